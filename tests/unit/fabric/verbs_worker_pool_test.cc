// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "worker_pool.h"

#include <gtest/gtest.h>

#include <csignal>

#include <atomic>
#include <future>

#include <pthread.h>

#include "bound_thread.h"

namespace srpfs::fabric::verbs {
namespace {

TEST(WorkerPool, RunsEverythingBeforeItEnds) {
    std::atomic<int> done = 0;
    {
        WorkerPool pool(3);
        for (int i = 0; i < 1000; ++i) pool.run([&] { ++done; });
    }
    EXPECT_EQ(done, 1000);
}

TEST(WorkerPool, RunsWhatAJobQueuesEvenWhileEnding) {
    std::atomic<int> done = 0;
    {
        WorkerPool pool(2);
        pool.run([&] {
            for (int i = 0; i < 10; ++i) pool.run([&] { ++done; });
        });
    }
    EXPECT_EQ(done, 10);
}

TEST(WorkerPool, LetsNoSlowJobHoldUpAnother) {
    WorkerPool pool(2);
    std::promise<void> second_has_run;
    auto has_run = second_has_run.get_future();
    std::promise<void> first_is_done;
    pool.run([&] {
        has_run.wait();  // would wait for ever if jobs ran one after the other
        first_is_done.set_value();
    });
    pool.run([&] { second_has_run.set_value(); });
    first_is_done.get_future().wait();
}

TEST(WorkerPool, WithOneThreadKeepsTheOrder) {
    std::vector<int> order;
    {
        WorkerPool pool(1);
        for (int i = 0; i < 100; ++i) pool.run([&order, i] { order.push_back(i); });
    }
    ASSERT_EQ(order.size(), 100u);
    for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<std::size_t>(i)], i);
}

// They are started by reactors, which may be bound to a processor.
TEST(WorkerPool, HasNeitherNameNorProcessorOfWhoStartsIt) {
    cpu_set_t of_worker;
    char name[16] = {};
    test::in_bound_thread([&](const cpu_set_t&) {
        pthread_setname_np(pthread_self(), "srpfs-0");
        WorkerPool pool(1);
        pool.run([&] {
            pthread_getname_np(pthread_self(), name, sizeof name);
            of_worker = test::processors_of(0);
        });
    });
    EXPECT_STREQ(name, "srpfs-verbs");
    const cpu_set_t all = test::processors_of(getpid());
    EXPECT_TRUE(CPU_EQUAL(&of_worker, &all));
}

TEST(WorkerPool, BlocksSignalsInItsThreadsOnly) {
    sigset_t before, after;
    pthread_sigmask(SIG_SETMASK, nullptr, &before);
    bool is_blocked = false;
    {
        WorkerPool pool(1);
        pool.run([&] {
            sigset_t inside;
            pthread_sigmask(SIG_SETMASK, nullptr, &inside);
            is_blocked = sigismember(&inside, SIGTERM) == 1;
        });
    }
    pthread_sigmask(SIG_SETMASK, nullptr, &after);
    EXPECT_TRUE(is_blocked);
    EXPECT_EQ(sigismember(&before, SIGTERM), sigismember(&after, SIGTERM));
}

}  // namespace
}  // namespace srpfs::fabric::verbs
