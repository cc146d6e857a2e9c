// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Whether a thread without work goes on looking for some, or sleeps. Looking saves single requests the time it takes to
// put a thread to sleep and to wake it, which is several times what they cost otherwise. It wastes a processor when
// nothing comes in that time, and takes one away from whoever would make something come when processors are short. So
// it is done as long as it helps: after each vain attempt, and more so after one during which others were given the
// processor, the thread sleeps the next times, up to a thousand, before it tries again.

#pragma once

#include <srpfs/base/instant.h>

#include <algorithm>

namespace srpfs::reactor {

// One thread.
class Spin {
public:
    // `most`: how long to look; zero: not at all.
    explicit Spin(Duration most) : most_(most) {}

    // The turn that began at `now` has found nothing to do. True: have another one at once. False: sleep.
    [[nodiscard]] bool goes_on(Instant now) {
        if (most_ <= Duration::zero()) return false;
        if (began_ == instant_never) {
            if (sleeps_left_ > 0) {
                --sleeps_left_;
                return false;
            }
            began_ = looked_ = now;
            return true;
        }
        const bool was_away = now - looked_ > away_after;
        looked_ = now;
        if (was_away || now - began_ >= most_) {
            end(was_away ? level_ + away_levels : level_ + 1);
            return false;
        }
        return true;
    }
    // The turn that began at `now` has found something.
    void on_work(Instant now) {
        if (began_ != instant_never) end(now - looked_ > away_after ? level_ + 1 : level_ / 2);
    }

private:
    // Between two looks lie a few microseconds, unless somebody else has run meanwhile.
    static constexpr Duration away_after = std::chrono::microseconds(40);
    static constexpr unsigned level_max = 10, away_levels = 3;

    void end(unsigned level) {
        level_ = std::min(level, level_max);
        sleeps_left_ = (1U << level_) - 1;
        began_ = instant_never;
    }

    Duration most_;
    Instant began_ = instant_never, looked_{};
    unsigned level_ = 0;        // of doubt
    unsigned sleeps_left_ = 0;  // before the next attempt
};

}  // namespace srpfs::reactor
