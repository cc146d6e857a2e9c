// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/config/lun_rule.h>

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include <fnmatch.h>

namespace srpfs::config {
namespace {

constexpr unsigned id_max = 4294967294;

Result<void> set_number(std::optional<unsigned>& field, std::string_view name, std::string_view text, unsigned most,
                        int base) {
    unsigned value = 0;
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (text.empty() || fault != std::errc{} || end != text.data() + text.size() || value > most)
        return Error(EINVAL, base == 8 ? fmt::format("{}={}: octal number from 0 to {:o} expected", name, text, most)
                                       : fmt::format("{}={}: number from 0 to {} expected", name, text, most));
    field = value;
    return {};
}

}  // namespace

Result<void> check_pattern(std::string_view pattern) {
    if (pattern.empty()) return Error(EINVAL, "the pattern is empty; * matches everything");
    if (pattern.size() > pattern_bytes_max)
        return Error(EINVAL, fmt::format("the pattern is longer than {} bytes", pattern_bytes_max));
    return {};
}

bool matches_any(const std::string& pattern, std::span<const std::string> names) {
    return std::any_of(names.begin(), names.end(),
                       [&](const std::string& name) { return fnmatch(pattern.c_str(), name.c_str(), 0) == 0; });
}

Result<void> apply_lun_word(LunOptions& options, std::string_view word) {
    const auto equals = std::min(word.find('='), word.size());
    const std::string_view name = word.substr(0, equals), value = word.substr(std::min(equals + 1, word.size()));
    const bool has_value = equals != word.size();
    if (name == "uid" && has_value) return set_number(options.uid, name, value, id_max, 10);
    if (name == "gid" && has_value) return set_number(options.gid, name, value, id_max, 10);
    if (name == "mode" && has_value) return set_number(options.mode, name, value, 0777, 8);
    if (word == "ro" || word == "rw")
        options.read_only = word == "ro";
    else if (word == "cached" || word == "direct")
        options.cache = word == "cached" ? CacheMode::cached : CacheMode::direct;
    else if (word == "hide" || word == "show")
        options.hidden = word == "hide";
    else
        return Error(EINVAL,
                     fmt::format("'{}' is none of ro, rw, uid=N, gid=N, mode=OCTAL, cached, direct, hide, show", word));
    return {};
}

Result<LunRule> parse_lun_rule(std::string_view text) {
    std::vector<std::string_view> pieces;
    std::size_t begin = 0;
    for (std::size_t i = 0; i <= text.size(); ++i) {
        if (i < text.size() && text[i] == '\\' && pieces.empty()) {
            ++i;  // fnmatch() takes what follows as it is
            continue;
        }
        if (i < text.size() && text[i] != ':') continue;
        pieces.push_back(text.substr(begin, i - begin));
        begin = i + 1;
    }
    LunRule rule;
    if (pieces.empty()) pieces.push_back(text);
    rule.pattern = pieces.front();
    if (const auto fine = check_pattern(rule.pattern); !fine) return fine.error();
    if (pieces.size() == 1)
        return Error(EINVAL, "PATTERN:WORD[:WORD...] expected, such as *:ro; no word follows the pattern");
    for (std::size_t i = 1; i < pieces.size(); ++i)
        if (const auto applied = apply_lun_word(rule.options, pieces[i]); !applied) return applied.error();
    return rule;
}

LunOptions options_of(std::span<const LunRule> rules, std::span<const std::string> names) {
    LunOptions all;
    const auto take = [](auto& field, const auto& said) {
        if (said) field = said;
    };
    for (const LunRule& rule : rules) {
        if (!matches_any(rule.pattern, names)) continue;
        take(all.read_only, rule.options.read_only);
        take(all.uid, rule.options.uid);
        take(all.gid, rule.options.gid);
        take(all.mode, rule.options.mode);
        take(all.cache, rule.options.cache);
        take(all.hidden, rule.options.hidden);
    }
    return all;
}

}  // namespace srpfs::config
