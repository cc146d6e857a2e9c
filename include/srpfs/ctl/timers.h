// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The order in which a target's three timers are written, so that none of the states in between is refused. Pure.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace srpfs::ctl {

using Seconds = std::optional<std::uint64_t>;  // nothing: off

struct Timers {
    Seconds reconnect_delay, fast_io_fail_tmo, dev_loss_tmo;
    bool operator==(const Timers&) const = default;
};

// What srpfs(8), TIMERS AND STATES, allows.
bool is_allowed(const Timers& timers);

// As srpfs reads what is written to a timer: what begins with "off", or is negative, is off; 0x is hexadecimal, and a
// leading 0 octal. The outer optional: not such a value.
std::optional<Seconds> parse_seconds(std::string_view text);
std::string format_seconds(const Seconds& value);

struct TimerWrite {
    std::string file;  // "dev_loss_tmo", ...
    Seconds value;
    bool operator==(const TimerWrite&) const = default;
};

// As few writes as possible, each of which is allowed when its turn comes. A timer may be written twice: switched off,
// or on, for a moment. Nothing if `wanted` itself is not allowed, or `now` is not.
std::optional<std::vector<TimerWrite>> order_of_writes(const Timers& now, const Timers& wanted);

}  // namespace srpfs::ctl
