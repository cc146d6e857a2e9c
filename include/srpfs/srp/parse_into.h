// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Parsing for a receiver that must not allocate.

#pragma once

#include <srpfs/srp/srp.h>

namespace srpfs::srp {

// As the parse_command() that returns its result, into a `command` that has been used before: its vectors keep their
// memory.
WireFault parse_command(std::span<const std::byte> bytes, std::uint16_t immediate_offset, ReceivedCommand& command);

}  // namespace srpfs::srp
