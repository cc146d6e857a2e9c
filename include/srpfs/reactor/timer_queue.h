// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Timers of one thread. Time enters here and nowhere else: the turn loop (or a simulator) calls advance_to().

#pragma once

#include <srpfs/base/instant.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace srpfs::reactor {

class TimerQueue;

// A one-shot timer. Lives in the object that wants to be told; disarmed by its destructor. Not thread-safe: it is used
// on the thread of its queue only. The callback may arm it again, or destroy its owner.
class Timer {
public:
    Timer(TimerQueue& queue, std::function<void()> on_expired) : queue_(queue), on_expired_(std::move(on_expired)) {}
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;
    ~Timer() { disarm(); }

    void arm_at(Instant when);  // replaces an earlier deadline; instant_never disarms
    void arm_after(Duration delay);
    void disarm();
    [[nodiscard]] bool armed() const { return position_ != not_queued; }
    [[nodiscard]] Instant deadline() const { return deadline_; }  // meaningful while armed

private:
    friend class TimerQueue;
    static constexpr std::size_t not_queued = SIZE_MAX;
    TimerQueue& queue_;
    std::function<void()> on_expired_;
    Instant deadline_ = instant_never;
    std::uint64_t sequence_ = 0;  // timers of the same instant fire in the order they were armed
    std::size_t position_ = not_queued;
};

class TimerQueue {
public:
    explicit TimerQueue(Instant start) : now_(start) {}
    TimerQueue(const TimerQueue&) = delete;
    TimerQueue& operator=(const TimerQueue&) = delete;
    ~TimerQueue();  // no timer may be armed

    // Constant within a turn.
    [[nodiscard]] Instant now() const { return now_; }
    // The earliest deadline, instant_never when nothing is armed.
    [[nodiscard]] Instant next_deadline() const;
    // Moves time forward and calls what has expired, in order of deadline. An `instant` before now() changes nothing
    // but still fires what is due.
    void advance_to(Instant instant);

private:
    friend class Timer;
    void insert(Timer& timer, Instant when);
    void erase(Timer& timer);
    void place(std::size_t position, Timer* timer);
    void sift_up(std::size_t position);
    void sift_down(std::size_t position);

    Instant now_;
    std::uint64_t next_sequence_ = 0;
    std::vector<Timer*> heap_;
};

}  // namespace srpfs::reactor
