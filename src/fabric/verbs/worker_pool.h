// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Threads for calls that may block. A thread starts when a job finds no idle one, up to a limit, so that one slow call
// holds up no other connection's.

#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace srpfs::fabric::verbs {

class WorkerPool {
public:
    explicit WorkerPool(std::size_t threads_max) : threads_max_(threads_max) {}
    ~WorkerPool() { finish(); }

    // Thread-safe. Jobs start in the order given.
    void run(std::function<void()> job);
    // Runs what is queued and what that queues, then ends the threads. No run() from other threads during or after it.
    void finish();

private:
    void work();

    const std::size_t threads_max_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<std::function<void()>> jobs_;  // this and what follows: guarded by mutex_
    std::vector<std::thread> threads_;
    std::size_t idle_ = 0;
    bool finishing_ = false;
};

}  // namespace srpfs::fabric::verbs
