// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/srp/transport_timers.h>

#include <srpfs/base/utf8.h>

#include <fmt/format.h>

#include <cerrno>
#include <charconv>
#include <limits>

namespace srpfs::srp {
namespace {

constexpr std::uint32_t fast_io_fail_seconds_max = 600;  // SCSI_DEVICE_BLOCK_MAX_TIMEOUT
constexpr std::uint32_t dev_loss_seconds_max = std::numeric_limits<std::int32_t>::max();

}  // namespace

const char* to_string(TimerKind kind) {
    switch (kind) {
        case TimerKind::reconnect_delay: return "reconnect_delay";
        case TimerKind::fast_io_fail_tmo: return "fast_io_fail_tmo";
        case TimerKind::dev_loss_tmo: return "dev_loss_tmo";
    }
    return "?";
}

std::optional<TimerKind> timer_kind(std::string_view name) {
    for (const TimerKind kind : {TimerKind::reconnect_delay, TimerKind::fast_io_fail_tmo, TimerKind::dev_loss_tmo})
        if (name == to_string(kind)) return kind;
    return std::nullopt;
}

std::optional<std::uint32_t>& timer_of(TransportTimers& timers, TimerKind kind) {
    switch (kind) {
        case TimerKind::reconnect_delay: return timers.reconnect_delay;
        case TimerKind::fast_io_fail_tmo: return timers.fast_io_fail_tmo;
        case TimerKind::dev_loss_tmo: break;
    }
    return timers.dev_loss_tmo;
}

Result<std::optional<std::uint32_t>> parse_timer(std::string_view text) {
    if (text.starts_with("off")) return std::optional<std::uint32_t>{};
    const Error bad(EINVAL, fmt::format("'{}' is neither 'off' nor a number of seconds", excerpt(text)));
    std::string_view digits = text;
    const bool negative = digits.starts_with('-');
    if (negative || digits.starts_with('+')) digits.remove_prefix(1);
    int base = 10;
    if (digits.size() > 2 && digits[0] == '0' && (digits[1] == 'x' || digits[1] == 'X')) {
        base = 16;
        digits.remove_prefix(2);
    } else if (digits.size() > 1 && digits[0] == '0') {
        base = 8;
    }
    std::int64_t value = 0;
    const auto [end, fault] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    if (digits.empty() || digits[0] == '-' || fault != std::errc{} || end != digits.data() + digits.size() ||
        value > std::numeric_limits<std::int32_t>::max())
        return bad;
    if (negative && value > 0) return std::optional<std::uint32_t>{};
    return std::optional<std::uint32_t>(static_cast<std::uint32_t>(value));
}

std::string format_timer(std::optional<std::uint32_t> value) {
    return value ? fmt::format("{}", *value) : std::string("off");
}

Result<void> validate(TimerKind kind, std::optional<std::uint32_t> value) {
    if (!value) return {};
    switch (kind) {
        case TimerKind::reconnect_delay:
            if (*value == 0) return Error(EINVAL, "must be at least 1 second, or off");
            break;
        case TimerKind::fast_io_fail_tmo:
            if (*value > fast_io_fail_seconds_max)
                return Error(EINVAL, fmt::format("must not exceed {} seconds", fast_io_fail_seconds_max));
            break;
        case TimerKind::dev_loss_tmo:
            if (*value >= dev_loss_seconds_max)
                return Error(EINVAL, fmt::format("must be less than {} seconds", dev_loss_seconds_max));
            break;
    }
    return {};
}

Result<void> validate(const TransportTimers& timers) {
    const auto& [reconnect_delay, fast_io_fail, dev_loss] = timers;
    const auto check = [](TimerKind kind, std::optional<std::uint32_t> value) -> Result<void> {
        const auto valid = validate(kind, value);
        return valid ? valid : Error(EINVAL, fmt::format("{} {}", to_string(kind), valid.error().context));
    };
    if (!reconnect_delay && !fast_io_fail && !dev_loss)
        return Error(EINVAL,
                     "reconnect_delay, fast_io_fail_tmo and dev_loss_tmo cannot all be off: I/O would hang for ever");
    if (const auto valid = check(TimerKind::reconnect_delay, reconnect_delay); !valid) return valid;
    if (const auto valid = check(TimerKind::fast_io_fail_tmo, fast_io_fail); !valid) return valid;
    if (!fast_io_fail && dev_loss && *dev_loss > fast_io_fail_seconds_max)
        return Error(EINVAL, fmt::format("dev_loss_tmo must not exceed {} seconds while fast_io_fail_tmo is off",
                                         fast_io_fail_seconds_max));
    if (const auto valid = check(TimerKind::dev_loss_tmo, dev_loss); !valid) return valid;
    if (fast_io_fail && dev_loss && *fast_io_fail >= *dev_loss)
        return Error(
            EINVAL,
            fmt::format(
                "fast_io_fail_tmo ({}) must be less than dev_loss_tmo ({}); write the one that makes room first",
                *fast_io_fail, *dev_loss));
    return {};
}

}  // namespace srpfs::srp
