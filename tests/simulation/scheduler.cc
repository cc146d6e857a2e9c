// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "scheduler.h"

#include <srpfs/base/assert.h>

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
        advance_to(timers.now() + by);
        return true;
    }
    std::array<int, 16> ready{};
    std::size_t count = 0;
    constexpr int the_fabric = -1, the_timers = -2, first_source = -3;
    for (std::size_t i = 0; i < executors_.size(); ++i)
        if (executors_[i]->next_mail() <= timers.now()) ready[count++] = static_cast<int>(i);
    if (fabric && !fabric->arm()) ready[count++] = the_fabric;
    if (timers.next_deadline() <= timers.now()) ready[count++] = the_timers;
    for (std::size_t i = 0; i < sources.size(); ++i)
        if (sources[i]->is_ready()) ready[count++] = first_source - static_cast<int>(i);
    if (count == 0) return false;
    SRPFS_ASSERT(count <= ready.size());
    ++steps;
    const int chosen = ready[count == 1 ? 0 : random_.below(count)];
    if (chosen == the_fabric) {
        fabric->poll(static_cast<unsigned>(random_.between(1, 16)));
        fabric->flush();
    } else if (chosen == the_timers) {
        timers.advance_to(timers.now());
    } else if (chosen <= first_source) {
        sources[static_cast<std::size_t>(first_source - chosen)]->turn();
    } else {
        executors_[static_cast<std::size_t>(chosen)]->run_one();
    }
    tell_sources(chosen >= 0 ? executors_[static_cast<std::size_t>(chosen)] : nullptr);
    return true;
}

void Scheduler::tell_sources(const SimulatedExecutor* thread) {
    for (SimulatedSource* source : sources) source->after_step(thread);
}

void Scheduler::advance_to(Instant instant) {
    timers.advance_to(instant);
    tell_sources();
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
    advance_to(next);
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
        advance_to(next_instant());
        settle();
    }
    advance_to(end);
    settle();
}

bool Scheduler::run_until(const std::function<bool()>& done, Duration limit) {
    const Instant end = timers.now() + limit;
    while (!done()) {
        if (step_now()) continue;
        const Instant next = next_instant();
        if (next > end) {
            advance_to(end);
            return done();
        }
        advance_to(next);
    }
    return true;
}

}  // namespace srpfs::simulation
