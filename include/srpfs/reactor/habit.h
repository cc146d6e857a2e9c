// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Whether to try something that costs a little and pays in some situations only. What pays at least every other time
// is tried at each chance; what does not, ever more rarely, to see whether that has changed.

#pragma once

#include <algorithm>
#include <cstdint>

namespace srpfs::reactor {

class Habit {
public:
    // Asked at each chance; after `true` it is tried, and paid() or failed() called.
    [[nodiscard]] bool is_due() {
        if (chances_left_out_ == 0) return true;
        --chances_left_out_;
        return false;
    }
    void paid() {
        score_ = std::min(score_ + 1, score_max);
        pause_ = pause_min;
    }
    // `cost`: of how many times it was in vain.
    void failed(int cost = 1) {
        score_ -= cost;
        if (score_ > 0) return;
        score_ = score_after_pause;
        chances_left_out_ = pause_;
        pause_ = std::min(2 * pause_, pause_max);
    }
    void tried(bool it_paid) {
        if (it_paid)
            paid();
        else
            failed();
    }

    static constexpr int score_max = 8, score_after_pause = 3;
    static constexpr std::uint32_t pause_min = 16, pause_max = 1024;

private:
    int score_ = score_max;
    std::uint32_t pause_ = pause_min;
    std::uint32_t chances_left_out_ = 0;
};

}  // namespace srpfs::reactor
