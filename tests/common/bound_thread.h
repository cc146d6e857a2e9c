// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A thread that may run on one processor only, and what others may.

#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <thread>

#include <sched.h>
#include <unistd.h>

namespace srpfs::test {

// Those a thread of this process may run on; 0: the one that calls.
inline cpu_set_t processors_of(pid_t thread) {
    cpu_set_t set;
    CPU_ZERO(&set);
    EXPECT_EQ(sched_getaffinity(thread, sizeof set, &set), 0);
    return set;
}

// Runs work in a thread that is bound, as a reactor's can be, to the first of the processors of this process, and waits
// for its end. work is told which that is. On a machine with one processor nothing is seen of the binding.
inline void in_bound_thread(const std::function<void(const cpu_set_t& bound)>& work) {
    const cpu_set_t all = processors_of(getpid());
    std::thread([&] {
        cpu_set_t one;
        CPU_ZERO(&one);
        int first = 0;
        while (!CPU_ISSET(first, &all)) ++first;
        CPU_SET(first, &one);
        ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
        work(one);
    }).join();
}

}  // namespace srpfs::test
