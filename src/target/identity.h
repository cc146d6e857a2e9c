// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The name of a logical unit: what INQUIRY VPD pages 80h and 83h tell.

#pragma once

#include <srpfs/target/lun_config.h>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace srpfs::target {

struct Identity {
    // Designator types of SPC-4 7.8.6.
    enum class Type : std::uint8_t { t10 = 1, eui = 2, naa = 3 };
    Type type = Type::naa;
    std::vector<std::byte> bytes;
    bool operator==(const Identity&) const = default;
};

// "naa.<hex>", "eui.<hex>", "t10.<text>"; hex digits alone mean naa.
std::optional<Identity> parse_identity(std::string_view text);
std::string to_string(const Identity& identity);
// The unit's own wwid, or one made of what and where it is: naa.6001405 and 25 more digits.
Identity identity_of(const LunConfig& config, unsigned number, std::size_t target = 0);
// 80h: the digits of the identity.
std::string serial_of(const Identity& identity);

}  // namespace srpfs::target
