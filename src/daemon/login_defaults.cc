// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/daemon/login_defaults.h>

#include <fmt/format.h>

#include <cerrno>

namespace srpfs::daemon {

Result<LoginDefaults> login_defaults(const initiator::TransportTimers& timers,
                                     std::span<const config::TargetRule> rules,
                                     const srp::LoginParameters& parameters) {
    LoginDefaults defaults{{}, timers};
    const auto names = config::target_names(parameters);
    for (const config::TargetRule& rule : rules) {
        if (!config::matches_any(rule.pattern, names)) continue;
        for (const config::Setting& one : rule.settings) {
            const auto kind = srp::timer_kind(one.key);
            if (!kind) {
                defaults.items += fmt::format("{}={},", one.key, one.value);
                continue;
            }
            const auto value = srp::parse_timer(one.value);
            if (!value) return Error(EINVAL, fmt::format("{}: {}", one.key, value.error().context));
            srp::timer_of(defaults.timers, *kind) = *value;
        }
    }
    if (const auto valid = initiator::validate(defaults.timers); !valid)
        return Error(EINVAL, fmt::format("{}: the sections [target] that fit it do not go together: {}", names.front(),
                                         valid.error().context));
    return defaults;
}

}  // namespace srpfs::daemon
