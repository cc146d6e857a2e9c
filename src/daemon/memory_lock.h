// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A file system or swap on a loop device over a LUN file is written back when memory runs out, and that must not wait
// for memory of ours: our pages stay, our allocations in the kernel neither start writing back nor wait for it, and we
// are not what is killed to make room.

#pragma once

#include <srpfs/base/result.h>

#include <vector>

namespace srpfs::daemon {

enum class LockPages : bool {
    all,      // what is mapped takes its memory at once
    touched,  // and stays from when it is first used
};

// For the whole process, threads that are started later included; to be called while there is one. Needs CAP_IPC_LOCK
// or a large RLIMIT_MEMLOCK, and CAP_SYS_RESOURCE. What is not possible, each with its reason; the rest is done.
[[nodiscard]] std::vector<Error> survive_memory_pressure(LockPages pages);

}  // namespace srpfs::daemon
