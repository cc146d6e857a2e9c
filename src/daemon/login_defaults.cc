// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/daemon/login_defaults.h>

#include <fmt/format.h>

#include <cerrno>

namespace srpfs::daemon {

Result<void> set_timer(initiator::TransportTimers& timers, const config::Setting& setting) {
    const auto value = initiator::parse_timer(setting.value);
    if (!value) return Error(EINVAL, fmt::format("{}: {}", setting.key, value.error().context));
    using initiator::TimerKind;
    if (setting.key == to_string(TimerKind::reconnect_delay))
        timers.reconnect_delay = *value;
    else if (setting.key == to_string(TimerKind::fast_io_fail_tmo))
        timers.fast_io_fail_tmo = *value;
    else
        timers.dev_loss_tmo = *value;
    return {};
}

Result<LoginDefaults> login_defaults(const initiator::TransportTimers& timers,
                                     std::span<const config::TargetRule> rules,
                                     const srp::LoginParameters& parameters) {
    LoginDefaults defaults{{}, timers};
    const auto names = config::target_names(parameters);
    for (const config::TargetRule& rule : rules) {
        if (!config::matches_any(rule.pattern, names)) continue;
        for (const config::Setting& one : rule.settings) {
            if (!config::is_timer(one.key))
                defaults.items += fmt::format("{}={},", one.key, one.value);
            else if (const auto set = set_timer(defaults.timers, one); !set)
                return set.error();
        }
    }
    if (const auto valid = initiator::validate(defaults.timers); !valid)
        return Error(EINVAL, fmt::format("{}: the sections [target] that fit it do not go together: {}", names.front(),
                                         valid.error().context));
    return defaults;
}

}  // namespace srpfs::daemon
