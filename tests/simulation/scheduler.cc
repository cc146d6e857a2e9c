// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "scheduler.h"

#include <algorithm>
#include <array>
#include <utility>

namespace srpfs::simulation {

SimulatedExecutor::SimulatedExecutor(Scheduler& scheduler) : scheduler_(scheduler) {
    scheduler_.executors_.push_back(this);
}

void SimulatedExecutor::post(std::function<void()> work) {
    Instant ready = scheduler_.timers.now();
    const auto lag = scheduler_.mail_lag_max.count();
    if (lag > 0)
        ready += Duration(static_cast<Duration::rep>(scheduler_.random_.below(static_cast<std::uint64_t>(lag))));
    last_ready_ = std::max(last_ready_, ready);
    mail_.push_back({std::move(work), last_ready_});
}

reactor::TimerQueue& SimulatedExecutor::timers() { return scheduler_.timers; }

void SimulatedExecutor::run_one() {
    const auto work = std::move(mail_.front().work);
    mail_.pop_front();
    work();
}

bool Scheduler::step_now() {
    if (jump_ > Duration::zero()) {
        const Duration by = std::exchange(jump_, Duration::zero());
        jumped_ += by;
        timers.advance_to(timers.now() + by);
        return true;
    }
    std::array<int, 8> ready{};
    std::size_t count = 0;
    constexpr int the_fabric = -1, the_timers = -2;
    for (std::size_t i = 0; i < executors_.size(); ++i)
        if (executors_[i]->next_mail() <= timers.now()) ready[count++] = static_cast<int>(i);
    if (fabric && !fabric->arm()) ready[count++] = the_fabric;
    if (timers.next_deadline() <= timers.now()) ready[count++] = the_timers;
    if (count == 0) return false;
    ++steps;
    const int chosen = ready[count == 1 ? 0 : random_.below(count)];
    if (chosen == the_fabric) {
        fabric->poll(static_cast<unsigned>(random_.between(1, 16)));
        fabric->flush();
    } else if (chosen == the_timers) {
        timers.advance_to(timers.now());
    } else {
        executors_[static_cast<std::size_t>(chosen)]->run_one();
    }
    return true;
}

Instant Scheduler::next_instant() const {
    Instant next = timers.next_deadline();
    for (const SimulatedExecutor* executor : executors_) next = std::min(next, executor->next_mail());
    return next;
}

bool Scheduler::step() {
    if (step_now()) return true;
    const Instant next = next_instant();
    if (next == instant_never) return false;
    timers.advance_to(next);
    return true;
}

void Scheduler::settle() {
    while (step_now()) {
    }
}

void Scheduler::advance(Duration duration) {
    const Instant end = timers.now() + duration;
    settle();
    while (next_instant() <= end) {
        timers.advance_to(next_instant());
        settle();
    }
    timers.advance_to(end);
    settle();
}

bool Scheduler::run_until(const std::function<bool()>& done, Duration limit) {
    const Instant end = timers.now() + limit;
    while (!done()) {
        if (step_now()) continue;
        const Instant next = next_instant();
        if (next > end) {
            timers.advance_to(end);
            return done();
        }
        timers.advance_to(next);
    }
    return true;
}

}  // namespace srpfs::simulation
