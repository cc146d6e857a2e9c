// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "staffing.h"

#include <algorithm>

namespace srpfs::fs {
namespace {

constexpr double pays = 1.1;  // one more helper: so many times the work

}  // namespace

void Staffing::measure(Instant now, std::uint64_t work, unsigned helpers) {
    helpers_ = helpers;
    measures_ = true;
    begun_ = now;
    work_at_begin_ = work;
}

unsigned Staffing::on_backlog(Instant now, std::uint64_t work, unsigned helpers_max) {
    if (!measures_) {
        if (now < until_) return helpers_;
        if (now - until_ > pause_) pause_ = pause_min;  // that was another load
        measure(now, work, 0);
        return 0;
    }
    const Duration elapsed = now - begun_;
    if (elapsed < trial) return helpers_;
    if (elapsed > 4 * trial) {
        // There was no backlog for a while: so many are enough, or it is another load.
        if (helpers_ == 0)
            measure(now, work, 0);
        else
            keep(now + hold);
        return helpers_;
    }
    const double rate = static_cast<double>(work - work_at_begin_) / static_cast<double>(elapsed.count());
    if (helpers_ == 0 || rate >= pays * rate_with_one_less_) {
        if (helpers_ > 0) pause_ = pause_min;
        rate_with_one_less_ = rate;
        if (helpers_ < helpers_max)
            measure(now, work, helpers_ + 1);
        else
            keep(now + hold);
        return helpers_;
    }
    --helpers_;
    keep(now + (helpers_ > 0 ? hold : pause_));
    if (helpers_ == 0) pause_ = std::min(2 * pause_, pause_max);
    return helpers_;
}

}  // namespace srpfs::fs
