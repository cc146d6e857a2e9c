// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Bytes written as they are printed in specifications: "12 00 ff". For tests of the pure layers.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace srpfs::test {

inline std::vector<std::byte> hex(std::string_view text) {
    std::vector<std::byte> bytes;
    int high = -1;
    for (const char c : text) {
        if (c == ' ') continue;
        const int digit = c <= '9' ? c - '0' : c - 'a' + 10;
        if (high < 0) {
            high = digit;
        } else {
            bytes.push_back(static_cast<std::byte>(high << 4 | digit));
            high = -1;
        }
    }
    return bytes;
}

inline std::vector<std::byte> ascii(std::string_view text) {
    std::vector<std::byte> bytes;
    for (const char c : text) bytes.push_back(static_cast<std::byte>(c));
    return bytes;
}

inline std::vector<std::byte> operator+(std::vector<std::byte> left, const std::vector<std::byte>& right) {
    left.insert(left.end(), right.begin(), right.end());
    return left;
}

inline std::vector<std::byte> zeros(std::size_t count) { return std::vector<std::byte>(count); }

}  // namespace srpfs::test
