// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "worker_pool.h"

#include "signals.h"

#include <srpfs/reactor/thread.h>

namespace srpfs::fabric::verbs {

void WorkerPool::run(std::function<void()> job) {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
    if (idle_ < jobs_.size() && threads_.size() < threads_max_ && !finishing_) {
        const SignalsBlocked none_for_workers;
        threads_.emplace_back([this] { work(); });
    }
    changed_.notify_one();
}

void WorkerPool::finish() {
    std::vector<std::thread> threads;
    {
        const std::lock_guard lock(mutex_);
        finishing_ = true;
        threads.swap(threads_);
        changed_.notify_all();
    }
    for (auto& thread : threads) thread.join();
}

void WorkerPool::work() {
    reactor::begin_thread("srpfs-verbs");
    std::unique_lock lock(mutex_);
    for (;;) {
        ++idle_;
        changed_.wait(lock, [this] { return !jobs_.empty() || finishing_; });
        --idle_;
        if (jobs_.empty()) return;
        {
            const auto job = std::move(jobs_.front());
            jobs_.pop_front();
            lock.unlock();
            job();
        }
        lock.lock();
    }
}

}  // namespace srpfs::fabric::verbs
