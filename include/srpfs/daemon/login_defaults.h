// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What sections [target PATTERN] of a configuration file mean for a login. Pure.

#pragma once

#include <srpfs/config/config_file.h>
#include <srpfs/initiator/target_port.h>

#include <span>
#include <string>

namespace srpfs::daemon {

struct LoginDefaults {
    std::string items;  // "queue_size=16,": goes in front of the login string, where what stands later goes before
    initiator::TransportTimers timers;
};
// `timers`: of targets that no rule says anything about. EINVAL: those of all rules that fit do not go together.
Result<LoginDefaults> login_defaults(const initiator::TransportTimers& timers,
                                     std::span<const config::TargetRule> rules, const srp::LoginParameters& parameters);

}  // namespace srpfs::daemon
