// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/reactor/thread.h>

#include <gtest/gtest.h>

#include <string>
#include <thread>

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

namespace srpfs::reactor {
namespace {

std::string name_of_this_thread() {
    char name[16] = {};
    pthread_getname_np(pthread_self(), name, sizeof name);
    return name;
}

cpu_set_t processors_of(pid_t thread) {
    cpu_set_t set;
    CPU_ZERO(&set);
    EXPECT_EQ(sched_getaffinity(thread, sizeof set, &set), 0);
    return set;
}

// On a machine with one processor nothing is seen of the binding.
TEST(Thread, OneThatABoundThreadStartsHasANameAndProcessorsOfItsOwn) {
    const cpu_set_t all = processors_of(getpid());
    std::string name;
    cpu_set_t processors;
    std::thread([&] {
        name_thread("srpfs-7");
        cpu_set_t one;
        CPU_ZERO(&one);
        int first = 0;
        while (!CPU_ISSET(first, &all)) ++first;
        CPU_SET(first, &one);
        ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
        std::thread([&] {
            begin_thread("srpfs-test");
            name = name_of_this_thread();
            processors = processors_of(0);
        }).join();
        EXPECT_EQ(name_of_this_thread(), "srpfs-7");
        const cpu_set_t still = processors_of(0);
        EXPECT_TRUE(CPU_EQUAL(&still, &one));
    }).join();

    EXPECT_EQ(name, "srpfs-test");
    EXPECT_TRUE(CPU_EQUAL(&processors, &all));
}

TEST(Thread, ALongNameIsCut) {
    std::string name;
    std::thread([&] {
        name_thread("srpfs-0123456789012345");
        name = name_of_this_thread();
    }).join();

    EXPECT_EQ(name, "srpfs-012345678");
}

}  // namespace
}  // namespace srpfs::reactor
