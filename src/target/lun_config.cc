// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/target/lun_config.h>
#include <srpfs/target/target_list.h>

#include "identity.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace srpfs::target {
namespace {

constexpr std::size_t luns_max = 256, targets_max = 64;
constexpr std::string_view syntax =
    "a LUN is ram:SIZE, file:PATH or null:SIZE, then ,bs=512|4096 ,wce ,thin ,ro ,wwid=ID as wanted";

Error bad(std::size_t number, std::string_view what) {
    return Error(EINVAL, fmt::format("demo LUN {}: {}; {}", number, what, syntax));
}

// Text in which the characters that were quoted with a backslash are told from those that were not.
struct Quotable {
    std::string text;
    std::vector<bool> quoted;

    void add(char one, bool is_quoted) {
        text += one;
        quoted.push_back(is_quoted);
    }
};

std::vector<Quotable> split(const Quotable& whole, char separator) {
    std::vector<Quotable> parts(1);
    for (std::size_t i = 0; i < whole.text.size(); ++i) {
        if (whole.text[i] == separator && !whole.quoted[i])
            parts.emplace_back();
        else
            parts.back().add(whole.text[i], whole.quoted[i]);
    }
    return parts;
}

std::optional<std::uint64_t> parse_size(std::string_view text) {
    std::uint64_t value = 0;
    std::size_t digits = 0;
    for (; digits < text.size() && text[digits] >= '0' && text[digits] <= '9'; ++digits) {
        if (__builtin_mul_overflow(value, std::uint64_t{10}, &value)) return std::nullopt;
        if (__builtin_add_overflow(value, static_cast<std::uint64_t>(text[digits] - '0'), &value)) return std::nullopt;
    }
    const std::string_view suffix = text.substr(digits);
    if (digits == 0 || suffix.size() > 1) return std::nullopt;
    if (suffix.empty()) return value;
    const std::size_t power = std::string_view("KMGT").find(static_cast<char>(suffix[0] & ~0x20));
    if (power == std::string_view::npos) return std::nullopt;
    if (__builtin_mul_overflow(value, std::uint64_t{1} << (10 * (power + 1)), &value)) return std::nullopt;
    return value;
}

// Applies one "bs=", "wce", "thin", "ro" or "wwid=" to `config`; empty when it was fine.
std::string apply_option(LunConfig& config, const std::string& option) {
    const std::size_t equals = option.find('=');
    const std::string key = option.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : option.substr(equals + 1);
    const bool has_value = equals != std::string::npos;
    if (key == "wce" || key == "thin" || key == "ro") {
        if (has_value) return fmt::format("option \"{}\" takes no value", key);
        (key == "wce" ? config.write_cache : key == "thin" ? config.unmap : config.read_only) = true;
        return {};
    }
    if (key == "bs") {
        if (value != "512" && value != "4096")
            return fmt::format("block length bs=\"{}\" is neither 512 nor 4096", value);
        config.block_bytes = value == "512" ? 512 : 4096;
        return {};
    }
    if (key == "wwid") {
        const auto identity = parse_identity(value);
        if (!identity)
            return fmt::format(
                "wwid \"{}\" is neither naa.HEX (16 digits, or 32 when the first is 6), eui.HEX (16, 24 or 32 digits) "
                "nor "
                "t10.TEXT (1 to 64 printable characters)",
                value);
        config.wwid = to_string(*identity);
        return {};
    }
    return fmt::format("unknown option \"{}\"", option);
}

Result<LunConfig> parse_lun(std::size_t number, const Quotable& text) {
    const auto items = split(text, ',');
    const std::string& unit = items[0].text;
    const std::size_t colon = unit.find(':');
    if (unit.empty()) return bad(number, "empty");
    const std::string kind = unit.substr(0, colon);
    if (kind != "ram" && kind != "null" && kind != "file") return bad(number, fmt::format("unknown kind \"{}\"", kind));
    const std::string argument = colon == std::string::npos ? "" : unit.substr(colon + 1);

    LunConfig config;
    if (kind == "file") {
        config.kind = StoreKind::file;
        config.path = argument;
        if (argument.empty()) return bad(number, "file: without a path");
        if (argument.find('\0') != std::string::npos) return bad(number, "a zero byte in the path");
    } else {
        config.kind = kind == "ram" ? StoreKind::ram : StoreKind::null;
        const auto size = parse_size(argument);
        if (!size) return bad(number, fmt::format("\"{}\" is no size (a number, or one with K, M, G or T)", argument));
        config.bytes = *size;
    }
    for (std::size_t i = 1; i < items.size(); ++i)
        if (std::string what = apply_option(config, items[i].text); !what.empty()) return bad(number, what);

    if (config.kind == StoreKind::file) return config;
    if (config.bytes == 0) return bad(number, "size 0");
    if (config.bytes > std::uint64_t{INT64_MAX}) return bad(number, "larger than 8 EiB");
    if (config.bytes % config.block_bytes != 0)
        return bad(number,
                   fmt::format("size {} is no multiple of the block length {}", config.bytes, config.block_bytes));
    return config;
}

// "16*" in front is taken away and means 16; nothing means 1. Of numbers that are too large only that is kept.
std::size_t take_count(Quotable& part) {
    const std::size_t digits = std::min(part.text.find_first_not_of("0123456789"), part.text.size());
    if (digits == 0 || digits == part.text.size() || part.text[digits] != '*' || part.quoted[digits]) return 1;
    std::size_t count = 0;
    for (std::size_t i = 0; i < digits; ++i)
        if (count <= luns_max) count = count * 10 + static_cast<std::size_t>(part.text[i] - '0');
    part.text.erase(0, digits + 1);
    part.quoted.erase(part.quoted.begin(), part.quoted.begin() + static_cast<std::ptrdiff_t>(digits) + 1);
    return count;
}

// At each "++" that is not quoted; the parts keep their backslashes.
std::vector<std::string_view> split_targets(std::string_view text) {
    std::vector<std::string_view> parts;
    std::size_t begin = 0;
    for (std::size_t i = 0; i + 1 < text.size(); ++i) {
        if (text[i] == '\\') {
            ++i;
        } else if (text.substr(i, 2) == "++") {
            parts.push_back(text.substr(begin, i - begin));
            begin = ++i + 1;
        }
    }
    parts.push_back(text.substr(begin));
    return parts;
}

}  // namespace

Result<std::vector<LunConfig>> parse_lun_list(std::string_view text) {
    Quotable whole;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool quotes = text[i] == '\\';
        if (quotes && ++i == text.size())
            return Error(EINVAL, fmt::format("demo LUN list: a backslash at the end quotes nothing; {}", syntax));
        whole.add(text[i], quotes);
    }
    std::vector<Quotable> parts;
    for (Quotable& part : split(whole, '+')) {
        const std::size_t count = take_count(part);
        if (count == 0) return bad(parts.size(), "0 of them");
        if (count > luns_max - parts.size())
            return Error(
                EINVAL, fmt::format("demo LUN list: {} LUNs, at most {} are possible", parts.size() + count, luns_max));
        parts.insert(parts.end(), count, part);
    }
    std::vector<LunConfig> luns;
    for (std::size_t number = 0; number < parts.size(); ++number) {
        auto lun = parse_lun(number, parts[number]);
        if (!lun) return lun.error();
        const auto same = std::find_if(luns.begin(), luns.end(), [&lun](const LunConfig& other) {
            return !lun->wwid.empty() && other.wwid == lun->wwid;
        });
        if (same != luns.end()) return bad(number, fmt::format("has the wwid of LUN {}", same - luns.begin()));
        luns.push_back(std::move(*lun));
    }
    return luns;
}

Result<std::vector<std::vector<LunConfig>>> parse_target_list(std::string_view text) {
    std::vector<std::vector<LunConfig>> targets;
    const auto parts = split_targets(text);
    if (parts.size() > targets_max)
        return Error(EINVAL, fmt::format("demo: {} targets, at most {} are possible", parts.size(), targets_max));
    for (const std::string_view part : parts) {
        const std::size_t target = targets.size();
        auto luns = parse_lun_list(part);
        if (!luns && parts.size() == 1) return luns.error();
        if (!luns)
            return Error(luns.error().errno_value(), fmt::format("target {}: {}", target + 1, luns.error().context));
        // The first one's keep the identities they have without others.
        if (target > 0)
            for (unsigned number = 0; number < luns->size(); ++number)
                (*luns)[number].wwid = to_string(identity_of((*luns)[number], number, target));
        targets.push_back(std::move(*luns));
    }
    return targets;
}

}  // namespace srpfs::target
