// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What the checks of srpctl why have in common.

#pragma once

#include <srpfs/ctl/diagnosis.h>

#include <cstdint>
#include <optional>
#include <string>

namespace srpfs::ctl {

// What a reactor locks: the default of -o memory= of one, and messages.
inline constexpr std::uint64_t memory_needed = std::uint64_t{96} << 20;
inline constexpr std::uint64_t memory_least = std::uint64_t{40} << 20;  // with the smallest -o memory=

// How many bytes a process may lock, from its directory in /proc; UINT64_MAX: any amount. Nothing if that is not known.
std::optional<std::uint64_t> locked_memory_of(const std::string& directory);

}  // namespace srpfs::ctl
