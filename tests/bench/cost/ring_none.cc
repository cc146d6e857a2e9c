// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// In the place of ring_kernel.cc where there is no liburing.
#include "hot_path.h"

namespace srpfs::cost {

void tell_ring() {}
std::string ring_missing() { return "srpfs is built without liburing"; }

}  // namespace srpfs::cost
