// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The options of srpfs -o and of sections [mount]: their names, and which values they take. What they do is said in
// cli/. Pure.

#pragma once

#include <srpfs/base/result.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace srpfs::config {

inline constexpr unsigned reactors_most = 64;
inline constexpr std::size_t readahead_most = std::size_t{64} << 20;

struct MountValue {
    std::string_view text;          // as it was given
    std::uint64_t number = 0;       // of a number, of seconds or microseconds, or of bytes
    std::uint64_t second = 0;       // behind a colon
    bool is_off = false;            // of those that can be off
    std::vector<unsigned> numbers;  // of a list
};

struct MountOption {
    const char* name;
    const char* value;  // nullptr: none is taken; else how it looks
    const char* help;
    // EINVAL: "option NAME=TEXT: ..."
    std::function<Result<MountValue>(std::string_view name, std::string_view text)> parse;
};

[[nodiscard]] const std::vector<MountOption>& mount_options();
[[nodiscard]] bool is_mount_flag(std::string_view name);  // one that takes no value

struct GivenOption {
    const MountOption* option;
    MountValue value;
};
// "NAME" or "NAME=VALUE", which has to outlive what comes of it. EINVAL with a sentence.
Result<GivenOption> parse_mount_option(std::string_view item);

}  // namespace srpfs::config
