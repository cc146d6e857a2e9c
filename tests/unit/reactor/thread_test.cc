// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/reactor/thread.h>

#include <gtest/gtest.h>

#include <string>
#include <thread>

#include <pthread.h>

#include "bound_thread.h"

namespace srpfs::reactor {
namespace {

std::string name_of_this_thread() {
    char name[16] = {};
    pthread_getname_np(pthread_self(), name, sizeof name);
    return name;
}

TEST(Thread, OneThatABoundThreadStartsHasANameAndProcessorsOfItsOwn) {
    std::string name;
    cpu_set_t processors;
    test::in_bound_thread([&](const cpu_set_t& bound) {
        name_thread("srpfs-7");
        std::thread([&] {
            begin_thread("srpfs-test");
            name = name_of_this_thread();
            processors = test::processors_of(0);
        }).join();
        EXPECT_EQ(name_of_this_thread(), "srpfs-7");
        const cpu_set_t still = test::processors_of(0);
        EXPECT_TRUE(CPU_EQUAL(&still, &bound));
    });

    EXPECT_EQ(name, "srpfs-test");
    const cpu_set_t all = test::processors_of(getpid());
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
