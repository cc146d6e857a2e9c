// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/reactor/thread.h>

#include <string>

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

namespace srpfs::reactor {

void name_thread(std::string_view name) {
    (void)pthread_setname_np(pthread_self(), std::string(name.substr(0, thread_name_bytes_max)).c_str());
}

void begin_thread(std::string_view name) {
    name_thread(name);
    cpu_set_t wanted, own;
    // A process's number is that of its first thread.
    if (sched_getaffinity(getpid(), sizeof wanted, &wanted) != 0 || sched_getaffinity(0, sizeof own, &own) != 0) return;
    if (!CPU_EQUAL(&wanted, &own)) (void)sched_setaffinity(0, sizeof wanted, &wanted);
}

}  // namespace srpfs::reactor
