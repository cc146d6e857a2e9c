// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// When a thread that has nothing to do gives way (sched_yield()) before it sleeps. Who shares its processor, and has to
// do something before the thread can go on, does it meanwhile, and then the thread is there at once: no descriptor is
// armed, waited for and read. That pays only where others do share the processor, hence the Habit, one for each kind of
// work that came before: after an answer a user has to ask for more, after a request a device or a target has to act.

#pragma once

#include <srpfs/reactor/habit.h>
#include <srpfs/base/instant.h>

#include <array>

namespace srpfs::reactor {

class SteppingBack {
public:
    // A turn that began at `now` did something; `kind` says what.
    void on_work(Instant now, unsigned kind);
    // There is nothing to do, `now`. True: give way, and if that lets somebody run, look again; false: sleep.
    [[nodiscard]] bool wants(Instant now);

    static constexpr unsigned kinds = 8;
    // So often at most before sleeping.
    static constexpr unsigned steps_max = 12;
    // What takes less than this has let nobody run, and that so often in a row means that nobody wants to: Linux's
    // scheduler may have to be asked half a dozen times.
    static constexpr Duration short_step = std::chrono::microseconds(2);
    static constexpr unsigned short_steps_max = 8;
    // Longer than this: somebody wants the processor for himself, to whom we would have been preferred had we slept.
    static constexpr Duration too_long = std::chrono::milliseconds(2);
    static constexpr int too_long_cost = Habit::score_max / 2;

private:
    void end(Instant now, bool paid);

    std::array<Habit, kinds> habits_;
    unsigned kind_ = 0;
    bool has_worked_ = false;   // since it last slept
    unsigned steps_ = 0;        // since it last worked or slept
    unsigned short_steps_ = 0;  // the last of them
    Instant first_{}, last_{};
};

}  // namespace srpfs::reactor
