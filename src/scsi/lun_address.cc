// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/base/assert.h>
#include <srpfs/scsi/scsi.h>

#include <fmt/format.h>

namespace srpfs::scsi {
namespace {

// Addressing method: the two high bits of a level (SAM-5 4.7.5).
constexpr unsigned method_peripheral = 0, method_flat = 1;

}  // namespace

Lun Lun::from_number(std::uint16_t number) {
    SRPFS_ASSERT(number < 0x4000);
    Lun lun;
    ByteWriter(lun.bytes).u16(number);
    return lun;
}

std::uint64_t Lun::linux_value() const {
    ByteReader in(bytes);
    std::uint64_t value = 0;
    for (unsigned level = 0; level < 4; ++level) value |= static_cast<std::uint64_t>(in.u16()) << (16 * level);
    return value;
}

std::optional<unsigned> Lun::small_number() const {
    ByteReader in(bytes);
    const unsigned first_level = in.u16();
    const bool single_level = in.u16() == 0 && in.u32() == 0;
    const unsigned method = first_level >> 14;
    const unsigned number = first_level & 0x3fff;  // peripheral: bus identifier and number, bus 0 for small ones
    if (!single_level || number > 255) return std::nullopt;
    if (method != method_peripheral && method != method_flat) return std::nullopt;
    return number;
}

std::string Lun::file_name() const {
    if (const auto number = small_number()) return fmt::format("lun{}", *number);
    return fmt::format("lun0x{:016x}", ByteReader(bytes).u64());
}

// Header: list length (4), reserved (4). Then eight bytes each.
std::optional<LunList> parse_report_luns(std::span<const std::byte> data) {
    ByteReader in(data);
    const std::uint32_t list_bytes = in.u32();
    in.skip(4);
    if (in.overran()) return std::nullopt;

    LunList list;
    list.bytes_needed = list_bytes > UINT32_MAX - 8 ? UINT32_MAX : list_bytes + 8;
    const std::size_t count = std::min<std::size_t>(list_bytes, in.left()) / 8;
    list.luns.reserve(count);
    for (std::size_t index = 0; index < count; ++index) list.luns.push_back({in.array<8>()});
    return list;
}

}  // namespace srpfs::scsi
