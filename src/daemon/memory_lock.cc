// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "memory_lock.h"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

namespace srpfs::daemon {
namespace {

Error failed(const char* what, const char* needed) {
    const int reason = errno;
    return {reason, fmt::format("memory_lock: {}: {}; {}", what, std::strerror(reason), needed)};
}

bool may_lock() {
    __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
    std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> sets{};
    return syscall(SYS_capget, &header, sets.data()) == 0 && (sets[0].effective >> CAP_IPC_LOCK & 1U) != 0;
}

}  // namespace

std::vector<Error> survive_memory_pressure(LockPages pages) {
    std::vector<Error> obstacles;
    // Each thread has this, and those it starts inherit it.
    if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0)
        obstacles.push_back(failed("PR_SET_IO_FLUSHER", "it needs CAP_SYS_RESOURCE, and Linux 5.6 or later"));
    const int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "-1000", 5) != 5)
        obstacles.push_back(failed("/proc/self/oom_score_adj", "it needs CAP_SYS_RESOURCE"));
    if (fd >= 0) close(fd);
    const int when = pages == LockPages::touched ? MCL_ONFAULT : 0;
    // What is mapped later counts as well: with a limit it would fail when it is needed.
    rlimit limit{};
    if (!may_lock() && (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur != RLIM_INFINITY)) {
        errno = EPERM;
        obstacles.push_back(failed("mlockall", "it needs CAP_IPC_LOCK, or no RLIMIT_MEMLOCK (ulimit -l unlimited)"));
    } else if (mlockall(MCL_CURRENT | MCL_FUTURE | when) != 0)
        obstacles.push_back(failed("mlockall", "it needs CAP_IPC_LOCK, or no RLIMIT_MEMLOCK (ulimit -l unlimited)"));
    return obstacles;
}

}  // namespace srpfs::daemon
