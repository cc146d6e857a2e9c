// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What a system call reports for the end of an operation. The only place where outcomes become errno values.

#pragma once

#include <srpfs/lun/operation.h>

namespace srpfs::fs {

// The positive errno value; 0 for success. `kind` matters where the device turns out to be smaller than it said:
// a writer hears "no space", a reader "I/O error".
[[nodiscard]] int errno_of(const lun::Outcome& outcome, lun::OperationKind kind);

}  // namespace srpfs::fs
