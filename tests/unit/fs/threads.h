// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A reactor running on a thread of its own, and a way to do something there and wait for it.

#pragma once

#include <srpfs/reactor/reactor.h>

#include <future>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

namespace srpfs::fs::test {

class ReactorThread {
public:
    explicit ReactorThread(std::string name) : reactor_(std::move(name)), thread_([this] { reactor_.run(); }) {}
    ~ReactorThread() {
        reactor_.stop();
        thread_.join();
    }
    ReactorThread(const ReactorThread&) = delete;
    ReactorThread& operator=(const ReactorThread&) = delete;

    reactor::Reactor& reactor() { return reactor_; }
    // Runs `work` on the thread and gives what it returns.
    template <typename Work>
    auto run(Work work) -> std::invoke_result_t<Work> {
        std::packaged_task<std::invoke_result_t<Work>()> task(std::move(work));
        auto result = task.get_future();
        reactor_.post([&task] { task(); });
        return result.get();
    }

private:
    reactor::Reactor reactor_;
    std::thread thread_;
};

}  // namespace srpfs::fs::test
