// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The table of what libfuse calls; see session.h.

#pragma once

#include <fuse_lowlevel.h>

namespace srpfs::fs {

[[nodiscard]] const fuse_lowlevel_ops& session_operations();

}  // namespace srpfs::fs
