// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/base/utf8.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

namespace srpfs {
namespace {

struct Character {
    std::size_t bytes = 0;  // 0: none
    std::uint32_t value = 0;
};

Character first_of(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
    const unsigned char first = byte(0);
    if (first < 0x80) return {1, first};
    Character one;
    std::uint32_t least = 0;
    if ((first & 0xe0) == 0xc0) {
        one = {2, first & 0x1fU}, least = 0x80;
    } else if ((first & 0xf0) == 0xe0) {
        one = {3, first & 0x0fU}, least = 0x800;
    } else if ((first & 0xf8) == 0xf0) {
        one = {4, first & 0x07U}, least = 0x10000;
    }
    if (one.bytes > text.size()) return {};
    for (std::size_t i = 1; i < one.bytes; ++i) {
        if ((byte(i) & 0xc0) != 0x80) return {};
        one.value = one.value << 6 | (byte(i) & 0x3fU);
    }
    const bool is_character = one.value >= least && one.value <= 0x10ffff && (one.value < 0xd800 || one.value > 0xdfff);
    return is_character ? one : Character{};
}

}  // namespace

std::size_t character_bytes(std::string_view text) { return first_of(text).bytes; }

std::size_t printable_bytes(std::string_view text) {
    const auto [bytes, value] = first_of(text);
    const bool is_control = value < 0x20 || (value >= 0x7f && value < 0xa0);
    const bool turns_text = (value >= 0x200b && value <= 0x200f) || (value >= 0x2028 && value <= 0x202e) ||
                            (value >= 0x2060 && value <= 0x206f) || value == 0xfeff;  // invisible, or right to left
    return is_control || turns_text ? 0 : bytes;
}

std::string escaped(std::string_view text, std::size_t bytes_max) {
    std::string result;
    for (std::size_t i = 0; i < text.size();) {
        const std::size_t bytes = printable_bytes(text.substr(i)), taken = std::max<std::size_t>(1, bytes);
        if (taken > bytes_max - i) break;
        if (bytes == 0)
            result += fmt::format("\\x{:02x}", static_cast<unsigned char>(text[i]));
        else
            result += text.substr(i, bytes);
        i += taken;
    }
    return result;
}

std::string excerpt(std::string_view text) {
    constexpr std::size_t shown_max = 80;
    return escaped(text, shown_max) + (text.size() > shown_max ? "..." : "");
}

}  // namespace srpfs
