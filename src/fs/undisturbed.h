// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Keeps the answers of one turn together. An answer wakes whoever waits for it, and where that one shares our processor
// the scheduler may prefer him at once: he sends his next request, sleeps again, and is woken again by the next answer.
// So where that is what happens, the thread is a real-time one while it answers, if it may be (CAP_SYS_NICE).
//
// One thread's.

#pragma once

#include <cstdint>

namespace srpfs::fs {

// The system calls, of the calling thread.
class Scheduling {
public:
    virtual ~Scheduling() = default;
    // It is scheduled as others are: neither real-time nor of less worth.
    virtual bool is_ordinary() = 0;
    // How often it had to give the processor to somebody else.
    virtual std::uint64_t involuntary_switches() = 0;
    // A real-time thread, or an ordinary one again; false: not allowed.
    virtual bool set_real_time(bool real_time) = 0;
};
[[nodiscard]] Scheduling& kernel_scheduling();

class Undisturbed {
public:
    explicit Undisturbed(Scheduling& scheduling) : scheduling_(scheduling) {}

    void before_answer() {
        if (++answers_ == 1 && answers_lately_ >= answers_worth_it) begin();
    }
    // Once a turn, before requests are read.
    void after_answers() {
        if (answers_ == 0) return;
        if (is_under_way_) end();
        answers_lately_ = answers_ > answers_lately_ / 2 ? answers_ : answers_lately_ / 2;
        answers_ = 0;
    }
    [[nodiscard]] bool is_raised() const { return is_raised_; }

    static constexpr unsigned answers_worth_it = 4;
    // Measured for so many answers; again after so many for which it was done, or was not. What it costs not to know is
    // small, and so is measuring, but for the answers that are disturbed meanwhile.
    static constexpr std::uint64_t measured = 128, done_for = std::uint64_t{1} << 14, left_for = std::uint64_t{1} << 10;

private:
    void begin();
    void end();

    Scheduling& scheduling_;
    unsigned answers_ = 0;         // of this turn
    unsigned answers_lately_ = 0;  // of a turn
    bool is_under_way_ = false;
    bool is_raised_ = false;
    bool is_forbidden_ = false;
    bool is_measuring_ = true;
    bool pays_ = false;
    std::uint64_t answers_seen_ = 0;  // while measuring, or since
    std::uint64_t switches_ = 0;      // while measuring
    std::uint64_t switches_before_ = 0;
};

}  // namespace srpfs::fs
