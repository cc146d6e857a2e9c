// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "identity.h"

#include <srpfs/base/assert.h>
#include <srpfs/base/bytes.h>

#include <fmt/format.h>

#include <algorithm>

namespace srpfs::target {
namespace {

constexpr std::size_t t10_characters_max = 64;

std::optional<std::vector<std::byte>> parse_hex(std::string_view text) {
    std::vector<std::byte> bytes;
    if (text.size() % 2 != 0) return std::nullopt;
    unsigned value = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char digit = static_cast<char>(text[i] | 0x20);
        const bool decimal = text[i] >= '0' && text[i] <= '9';
        if (!decimal && (digit < 'a' || digit > 'f')) return std::nullopt;
        value = value << 4 | static_cast<unsigned>(decimal ? text[i] - '0' : digit - 'a' + 10);
        if (i % 2 == 1) bytes.push_back(static_cast<std::byte>(value));
    }
    return bytes;
}

std::string to_hex(std::span<const std::byte> bytes) {
    std::string text;
    for (const std::byte one : bytes) text += fmt::format("{:02x}", static_cast<unsigned>(one));
    return text;
}

bool take_prefix(std::string_view& text, std::string_view prefix) {
    if (text.substr(0, prefix.size()) != prefix) return false;
    text.remove_prefix(prefix.size());
    return true;
}

// SPC-4 7.8.6.6: the first four bits are the format, 2, 3 and 5 are 8 bytes long, 6 is 16.
bool is_naa(std::span<const std::byte> bytes) {
    if (bytes.empty()) return false;
    const unsigned format = static_cast<unsigned>(bytes[0]) >> 4;
    if (format == 6) return bytes.size() == 16;
    return (format == 2 || format == 3 || format == 5) && bytes.size() == 8;
}

// FNV-1a, 64 bits: only has to spread names, and to be the same in every run and build.
std::uint64_t hash_of(std::string_view text) {
    std::uint64_t hash = 0xcbf29ce484222325;
    for (const char one : text) hash = (hash ^ static_cast<unsigned char>(one)) * 0x100000001b3;
    return hash;
}

}  // namespace

std::optional<Identity> parse_identity(std::string_view text) {
    if (take_prefix(text, "t10.")) {
        const bool printable = std::all_of(text.begin(), text.end(), [](char one) { return one >= ' ' && one <= '~'; });
        if (text.empty() || text.size() > t10_characters_max || !printable) return std::nullopt;
        Identity identity{Identity::Type::t10, {}};
        for (const char one : text) identity.bytes.push_back(static_cast<std::byte>(one));
        return identity;
    }
    const bool is_eui = take_prefix(text, "eui.");
    if (!is_eui) (void)take_prefix(text, "naa.");
    auto bytes = parse_hex(text);
    if (!bytes) return std::nullopt;
    if (!is_eui) return is_naa(*bytes) ? std::optional(Identity{Identity::Type::naa, std::move(*bytes)}) : std::nullopt;
    if (bytes->size() != 8 && bytes->size() != 12 && bytes->size() != 16) return std::nullopt;
    return Identity{Identity::Type::eui, std::move(*bytes)};
}

std::string to_string(const Identity& identity) {
    switch (identity.type) {
        case Identity::Type::t10: {
            std::string text = "t10.";
            for (const std::byte one : identity.bytes) text += static_cast<char>(one);
            return text;
        }
        case Identity::Type::eui: return "eui." + to_hex(identity.bytes);
        case Identity::Type::naa: return "naa." + to_hex(identity.bytes);
    }
    return {};
}

Identity identity_of(const LunConfig& config, unsigned number, std::size_t target) {
    if (!config.wwid.empty()) {
        auto identity = parse_identity(config.wwid);
        SRPFS_ASSERT(identity);
        return std::move(*identity);
    }
    // A file keeps its name wherever it is listed; memory is what its place and size say.
    const std::string place = target == 0 ? std::string() : fmt::format("{}.", target);
    const std::string what =
        config.kind == StoreKind::file
            ? "file:" + config.path
            : fmt::format("{}:{}{}", config.kind == StoreKind::ram ? "ram" : "null", place, number);
    // 6001405 is the company identifier Linux targets use for made-up names.
    return *parse_identity(
        fmt::format("naa.6001405{:09x}{:016x}", 0x5ca1ab1e0 + static_cast<unsigned>(config.kind), hash_of(what)));
}

std::string serial_of(const Identity& identity) {
    return identity.type == Identity::Type::t10 ? to_string(identity).substr(4) : to_hex(identity.bytes);
}

}  // namespace srpfs::target
