// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Which targets may be logged in to, and with what: the rules of srp_daemon.conf(5). Pure.

#pragma once

#include <srpfs/base/result.h>
#include <srpfs/srp/login_string.h>

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace srpfs::config {

struct LoginRule {
    bool allows = true;
    std::optional<std::uint64_t> id_ext, ioc_guid, service_id, pkey;
    std::optional<std::string> dgid;  // 32 lower-case hexadecimal digits
    std::string options;              // "queue_size=16,ch_count=2": goes behind what is logged in with
    bool operator==(const LoginRule&) const = default;
};

// What follows the letter: conditions and, where it allows, options, separated by commas or blanks. Nothing at all fits
// everything. EINVAL with a sentence.
Result<LoginRule> parse_login_rule(bool allows, std::string_view text);

// The first rule that fits decides; nullptr: none does, which allows.
[[nodiscard]] const LoginRule* rule_for(std::span<const LoginRule> rules, const srp::LoginParameters& parameters);

// A file of srp_daemon's as text of srpfs.conf(5); what has no counterpart becomes a comment that says so. Error: the
// lines that are wrong, each "NAME:LINE: ...".
Result<std::string> convert_srp_daemon(const std::string& name, std::string_view text);

}  // namespace srpfs::config
