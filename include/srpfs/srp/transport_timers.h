// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The three timers of the kernel's SRP transport class as text, and which of them go together. Pure.

#pragma once

#include <srpfs/base/result.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace srpfs::srp {

// Seconds; nullopt is `off`. Defaults are the kernel's.
struct TransportTimers {
    std::optional<std::uint32_t> reconnect_delay = 10;
    std::optional<std::uint32_t> fast_io_fail_tmo = 15;
    std::optional<std::uint32_t> dev_loss_tmo = 600;
};
enum class TimerKind : std::uint8_t { reconnect_delay, fast_io_fail_tmo, dev_loss_tmo };
[[nodiscard]] const char* to_string(TimerKind kind);
[[nodiscard]] std::optional<TimerKind> timer_kind(std::string_view name);
[[nodiscard]] std::optional<std::uint32_t>& timer_of(TransportTimers& timers, TimerKind kind);

// "off" (or anything starting with it, or a negative number) or an integer, base 0: EINVAL with the reason otherwise.
Result<std::optional<std::uint32_t>> parse_timer(std::string_view text);
std::string format_timer(std::optional<std::uint32_t> value);

// What one of them can be, whatever the others are. EINVAL: what goes behind its name.
Result<void> validate(TimerKind kind, std::optional<std::uint32_t> value);
// The kernel's rules for the three together (srp-admin 4.2); the Error says which rule and what to write first.
Result<void> validate(const TransportTimers& timers);

}  // namespace srpfs::srp
