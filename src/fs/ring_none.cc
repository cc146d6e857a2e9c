// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Built without liburing.
#include "ring.h"

#include <cerrno>

namespace srpfs::fs {

unsigned ring_queues() { return 1; }

std::string ring_obstacle() { return "this srpfs was built without liburing"; }

Result<std::unique_ptr<Ring>> make_ring(lun::Engine&, unsigned) { return Error{EOPNOTSUPP, ring_obstacle()}; }

}  // namespace srpfs::fs
