// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// How many helpers a reader that cannot keep up should have: as many as make it faster, found out by trying. A helper
// costs: processor time that others may need more, and caches that have to be filled twice.

#pragma once

#include <srpfs/base/instant.h>

#include <cstdint>

namespace srpfs::fs {

class Staffing {
public:
    static constexpr Duration trial = std::chrono::milliseconds(20);
    static constexpr Duration hold = std::chrono::seconds(1);  // of what has been found, until it is looked at again
    static constexpr Duration pause_min = std::chrono::milliseconds(300), pause_max = std::chrono::seconds(5);

    // There is more to read than the reader manages. `work`: what it and all helpers have done so far, in any unit;
    // grows. How many helpers there should be, 0..`helpers_max`.
    unsigned on_backlog(Instant now, std::uint64_t work, unsigned helpers_max);

private:
    void measure(Instant now, std::uint64_t work, unsigned helpers);
    void keep(Instant until) { until_ = until, measures_ = false; }

    unsigned helpers_ = 0;
    bool measures_ = false;
    Instant until_{};  // while not measuring
    Instant begun_{};
    std::uint64_t work_at_begin_ = 0;
    double rate_with_one_less_ = 0;
    Duration pause_ = pause_min;
};

}  // namespace srpfs::fs
