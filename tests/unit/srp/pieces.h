// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What several tests of this layer build, or look for.

#pragma once

#include <srpfs/srp/srp.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace srpfs::srp {

// Big-endian.
inline std::vector<std::byte> u32(std::uint32_t value) {
    std::vector<std::byte> bytes(4);
    ByteWriter(bytes).u32(value);
    return bytes;
}

inline PortId port_id(std::uint64_t first, std::uint64_t second) {
    PortId id{};
    ByteWriter(id).u64(first).u64(second);
    return id;
}

inline bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace srpfs::srp
