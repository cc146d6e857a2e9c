// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Points in time. Nobody but the reactor's turn loop reads a clock; everybody else is told what time it is.

#pragma once

#include <chrono>

namespace srpfs {

using Duration = std::chrono::nanoseconds;

// Tag clock: it has no now() on purpose. The epoch is arbitrary (CLOCK_MONOTONIC's, or 0 in a simulation).
struct MonotonicClock {
    using duration = Duration;
    using rep = duration::rep;
    using period = duration::period;
    using time_point = std::chrono::time_point<MonotonicClock>;
    static constexpr bool is_steady = true;
};
using Instant = MonotonicClock::time_point;

inline constexpr Instant instant_never = Instant::max();

// `start` + `delay` without overflow: a delay that does not fit means "never".
constexpr Instant saturating_add(Instant start, Duration delay) {
    return delay >= Instant::max() - start ? Instant::max() : start + delay;
}

}  // namespace srpfs
