// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/reactor/stepping_back.h>

#include <utility>

namespace srpfs::reactor {

void SteppingBack::on_work(Instant now, unsigned kind) {
    if (steps_ > 0) end(now, true);
    kind_ = kind % kinds;
    has_worked_ = true;
}

bool SteppingBack::wants(Instant now) {
    if (steps_ == 0) {
        if (!std::exchange(has_worked_, false) || !habits_[kind_].is_due()) return false;
        first_ = now;
        short_steps_ = 0;
    } else {
        short_steps_ = now - last_ < short_step ? short_steps_ + 1 : 0;
        if (steps_ == steps_max || short_steps_ == short_steps_max || now - first_ > too_long) {
            end(now, false);
            return false;
        }
    }
    ++steps_;
    last_ = now;
    return true;
}

void SteppingBack::end(Instant now, bool paid) {
    if (now - first_ > too_long)
        habits_[kind_].failed(too_long_cost);
    else
        habits_[kind_].tried(paid);
    steps_ = 0;
}

}  // namespace srpfs::reactor
