// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// An executor whose thread is the test: what is posted waits for run(), and time stands still.

#pragma once

#include <srpfs/reactor/executor.h>

#include <functional>
#include <mutex>
#include <utility>
#include <vector>

namespace srpfs::test {

class ManualExecutor final : public reactor::Executor {
public:
    void post(std::function<void()> work) override {
        const std::lock_guard lock(mutex_);
        work_.push_back(std::move(work));
    }
    reactor::TimerQueue& timers() override { return timers_; }
    // What has been posted so far, in order; what that posts waits for the next run(). False if there was nothing.
    bool run() {
        std::vector<std::function<void()>> now;
        {
            const std::lock_guard lock(mutex_);
            now.swap(work_);
        }
        for (auto& work : now) std::exchange(work, nullptr)();
        return !now.empty();
    }

private:
    reactor::TimerQueue timers_{Instant{}};
    std::mutex mutex_;
    std::vector<std::function<void()>> work_;
};

}  // namespace srpfs::test
