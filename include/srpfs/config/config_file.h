// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Configuration files (srpfs.conf(5)): what they say, where they say it, and everything that is wrong with them.

#pragma once

#include <srpfs/base/result.h>
#include <srpfs/config/login_rule.h>
#include <srpfs/config/lun_rule.h>
#include <srpfs/srp/transport_timers.h>

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace srpfs::config {

inline constexpr const char* default_file = "/etc/srpfs/srpfs.conf";
inline constexpr std::size_t file_bytes_max = std::size_t{1} << 20;  // more is an error

struct Origin {
    std::string file;
    unsigned line = 0;  // 1-based
    bool operator==(const Origin&) const = default;
};
[[nodiscard]] std::string to_string(const Origin& origin);  // "FILE:LINE"

struct Setting {
    std::string key, value;
    Origin origin;
};

enum class SectionKind : std::uint8_t { mount, login, target, lun };
[[nodiscard]] const char* to_string(SectionKind kind);
struct Section {
    SectionKind kind = SectionKind::mount;
    std::string pattern;  // of target and lun
    Origin origin;
    std::vector<Setting> settings;
};

// The text of one file; what is wrong goes to `errors`, a line "FILE:LINE: ..." each, and is left out.
[[nodiscard]] std::vector<Section> parse_file(const std::string& name, std::string_view text,
                                              std::vector<std::string>& errors);

// Defaults of logins to targets of such names (target_names()).
struct TargetRule {
    std::string pattern;
    std::vector<Setting> settings;
};

struct Loaded {
    std::vector<std::string> files;      // that were read, in this order
    std::vector<std::string> errors;     // if any, the rest is not to be used
    std::vector<Section> sections;       // of all files, in order
    std::vector<Setting> mount;          // what holds: each key once, in the order of their lines
    std::vector<LunRule> lun_rules;      // in order
    std::vector<TargetRule> targets;     // in order: later ones go before
    std::vector<LoginRule> login_rules;  // the first that fits decides
    std::vector<Setting> logins;         // value: what to log in with, rules already applied
    std::vector<Setting> denied;         // those the rules do not allow, with the rule's text as key
};

// `file` and its drop-ins, `file`.d/*.conf, sorted by name. `required`: it is an error if `file` is not there.
// `overriding`: what the command line says instead, for rules that are about several options.
[[nodiscard]] Loaded load(const std::string& file, bool required, std::span<const Setting> overriding = {});
// The same of texts that have been read: for tests, and for what comes from elsewhere.
[[nodiscard]] Loaded resolve(std::vector<Section> sections);

// The timers of a mount, and of each section [target PATTERN] with what holds where that says nothing, have to go
// together. A line for each that do not, with the place of the last one that a file has. What cannot be parsed, and
// options that are no timers, are left out.
[[nodiscard]] std::vector<std::string> check_timers(std::span<const Setting> mount,
                                                    std::span<const TargetRule> targets);

// Reads a whole regular file of up to file_bytes_max, that nobody but root and its reader can write.
[[nodiscard]] Result<std::string> read_file(const std::string& path);

// What sections [target PATTERN] may call a target by.
[[nodiscard]] std::vector<std::string> target_names(const srp::LoginParameters& parameters);
[[nodiscard]] bool is_timer(std::string_view key);

// The one of `known` that is meant by `word`, as far as one can tell; empty: none is near.
[[nodiscard]] std::string nearest(std::string_view word, std::span<const std::string> known);

}  // namespace srpfs::config
