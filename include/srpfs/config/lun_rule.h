// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// How units are shown, by their names: `-o lun=PATTERN:WORD[:WORD...]`, and the sections [lun PATTERN] of a
// configuration file. Pure.

#pragma once

#include <srpfs/base/result.h>

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace srpfs::config {

enum class CacheMode : std::uint8_t { direct, cached };

// What rules have said; what none has is empty.
struct LunOptions {
    std::optional<bool> read_only;
    std::optional<unsigned> uid, gid, mode;
    std::optional<CacheMode> cache;
    std::optional<bool> hidden;
    bool operator==(const LunOptions&) const = default;
};

struct LunRule {
    std::string pattern;  // of fnmatch(3); '*' also matches '/'
    LunOptions options;
    bool operator==(const LunRule&) const = default;
};

inline constexpr std::size_t pattern_bytes_max = 255;

// Error (EINVAL): empty, or too long.
Result<void> check_pattern(std::string_view pattern);
[[nodiscard]] bool matches_any(const std::string& pattern, std::span<const std::string> names);

// One word: ro, rw, uid=N, gid=N, mode=OCTAL, cached, direct, hide or show. EINVAL with a sentence about it.
Result<void> apply_lun_word(LunOptions& options, std::string_view word);
// "PATTERN:WORD[:WORD...]". A colon of the pattern has a backslash before it.
Result<LunRule> parse_lun_rule(std::string_view text);

// What the rules say of a unit of these names: of each thing the last rule that says something about it.
[[nodiscard]] LunOptions options_of(std::span<const LunRule> rules, std::span<const std::string> names);

}  // namespace srpfs::config
