// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A thread of execution as its neighbours see it: post work to it. Implemented by the real turn loops and, in one
// thread and in seeded order, by the simulator.

#pragma once

#include <srpfs/reactor/timer_queue.h>

#include <functional>

namespace srpfs::reactor {

class Executor {
public:
    virtual ~Executor() = default;
    // Thread-safe. Runs `work` on the executor's thread in a later turn, in the order posted. Work posted after the
    // executor has stopped is dropped (destroyed unrun).
    virtual void post(std::function<void()> work) = 0;
    // For use on the executor's own thread only.
    virtual TimerQueue& timers() = 0;
};

}  // namespace srpfs::reactor
