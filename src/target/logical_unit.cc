// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "logical_unit.h"

#include "reservations.h"

#include <srpfs/base/assert.h>
#include <srpfs/base/bytes.h>

#include <algorithm>
#include <string_view>

namespace srpfs::target {
namespace {

constexpr std::string_view vendor = "SRPFS";
constexpr std::uint8_t code_set_binary = 1, code_set_ascii = 2;
constexpr std::uint32_t write_same_needs_count = 0x01;  // WSNZ

std::uint8_t byte_of(const CdbBytes& cdb, std::size_t index) { return static_cast<std::uint8_t>(cdb[index]); }

void write_text(ByteWriter& out, std::string_view text, std::size_t width) {
    for (std::size_t i = 0; i < width; ++i) out.u8(static_cast<std::uint8_t>(i < text.size() ? text[i] : ' '));
}

std::string_view product_of(const LogicalUnit* unit) {
    if (!unit) return "NO DISK";
    switch (unit->kind) {
        case StoreKind::ram: return "RAM DISK";
        case StoreKind::file: return "FILE DISK";
        case StoreKind::null: return "NULL DISK";
    }
    return "";
}

Told tell_standard_inquiry(const LogicalUnit* unit, std::span<std::byte> out) {
    ByteWriter data(out);
    data.u8(unit ? 0x00 : 0x3f);  // qualifier 1 and type 1Fh: nothing is connected, but could be
    data.u8(0).u8(0x05);          // not removable; SPC-3
    data.u8(0x12);                // HISUP, response data format 2
    data.u8(36 - 5).u8(0x10);     // additional length; TPGS: implicit
    data.u8(0).u8(0x02);          // CMDQUE
    write_text(data, vendor, 8);
    write_text(data, product_of(unit), 16);
    write_text(data, "1.0", 4);
    return {data.position(), {}};
}

void write_designator(ByteWriter& data, std::uint8_t code_set, std::uint8_t type, std::span<const std::byte> bytes) {
    data.u8(code_set).u8(type).u8(0).u8(static_cast<std::uint8_t>(bytes.size())).bytes(bytes);
}

void write_identification(const LogicalUnit& unit, ByteWriter& data) {
    const bool is_text = unit.identity.type == Identity::Type::t10;
    write_designator(data, is_text ? code_set_ascii : code_set_binary, static_cast<std::uint8_t>(unit.identity.type),
                     unit.identity.bytes);
    if (!is_text) {
        std::array<std::byte, 8 + 64> text{};
        ByteWriter name(text);
        write_text(name, vendor, 8);
        for (const char one : serial_of(unit.identity)) name.u8(static_cast<std::uint8_t>(one));
        write_designator(data, code_set_ascii, static_cast<std::uint8_t>(Identity::Type::t10), name.written());
    }
    // Association 1 (target port): relative port 1 and its group.
    const std::array<std::byte, 4> one{std::byte{0}, std::byte{0}, std::byte{0}, std::byte{1}};
    write_designator(data, code_set_binary, 0x14, one);
    write_designator(data, code_set_binary, 0x15, one);
}

void write_block_limits(const LogicalUnit& unit, const UnitLimits& limits, ByteWriter& data) {
    const std::uint32_t transfer_blocks = limits.transfer_bytes_max / unit.block_bytes;
    data.u8(write_same_needs_count).u8(0);                  // no COMPARE AND WRITE
    data.u16(1).u32(transfer_blocks).u32(transfer_blocks);  // granularity, maximum, optimal
    data.u32(0);                                            // prefetch
    data.u32(unit.unmap ? unmap_blocks_max : 0).u32(unit.unmap ? unmap_descriptors_max : 0);
    data.u32(1).u32(0).u64(transfer_blocks);  // unmap granularity, alignment; WRITE SAME
    data.zeros(20);
}

Told tell_vpd(const LogicalUnit& unit, std::uint8_t page, const UnitLimits& limits, std::span<std::byte> out) {
    ByteWriter data(out);
    data.u8(0).u8(page).u16(0);
    switch (page) {
        case 0x00:
            for (const std::uint8_t supported : std::array<std::uint8_t, 6>{0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2})
                data.u8(supported);
            break;
        case 0x80:
            for (const char one : serial_of(unit.identity)) data.u8(static_cast<std::uint8_t>(one));
            break;
        case 0x83: write_identification(unit, data); break;
        case 0xb0: write_block_limits(unit, limits, data); break;
        case 0xb1:
            data.u16(1).zeros(58);
            break;  // not rotating
        // Threshold exponent 0; LBPU, LBPWS, LBPWS10, LBPRZ; provisioning type: thin.
        case 0xb2: data.u8(0).u8(unit.unmap ? 0xe4 : 0x00).u8(unit.unmap ? 0x02 : 0x00).u8(0); break;
        default: return {0, invalid_field};
    }
    SRPFS_ASSERT(!data.overran());
    ByteWriter(out.subspan(2)).u16(static_cast<std::uint16_t>(data.position() - 4));
    return {data.position(), {}};
}

enum ModePageControl : unsigned { current = 0, changeable = 1, defaults = 2, saved = 3 };

// Each page: code, length, and zeros where nothing may be changed.
void write_mode_page(const LogicalUnit& unit, std::uint8_t page, bool is_mask, ByteWriter& data) {
    switch (page) {
        case 0x01: data.u8(0x01).u8(0x0a).zeros(10); break;
        case 0x08: data.u8(0x08).u8(0x12).u8(unit.write_cache && !is_mask ? 0x04 : 0x00).zeros(17); break;
        case 0x0a:  // control: unrestricted reordering, TAS as LIO's emulate_tas
            data.u8(0x0a).u8(0x0a).u8(0).u8(is_mask ? 0 : 0x10).u8(0).u8(is_mask ? 0 : 0x40).zeros(6);
            break;
        case 0x1c: data.u8(0x1c).u8(0x0a).zeros(10); break;
        default: break;
    }
}

}  // namespace

LogicalUnit::LogicalUnit(unsigned number_, const LunConfig& config, std::unique_ptr<BlockStore> store_)
    : number(number_), kind(config.kind), block_bytes(config.block_bytes), write_cache(config.write_cache),
      unmap(config.unmap), identity(identity_of(config, number_)), store(std::move(store_)), is_null(store->is_null()),
      is_inline(store->is_inline()), reservations(std::make_unique<Reservations>()), read_only(config.read_only) {}

LogicalUnit::~LogicalUnit() = default;

Told tell_inquiry(const LogicalUnit* unit, const CdbBytes& cdb, const UnitLimits& limits, std::span<std::byte> out) {
    const bool wants_vpd = (byte_of(cdb, 1) & 0x01) != 0;
    const std::uint8_t page = byte_of(cdb, 2);
    if (!wants_vpd) return page == 0 ? tell_standard_inquiry(unit, out) : Told{0, invalid_field};
    if (!unit) return {0, invalid_field};
    return tell_vpd(*unit, page, limits, out);
}

Told tell_capacity_10(const LogicalUnit& unit, std::span<std::byte> out) {
    unit.store->look_at_size();
    if (unit.blocks() == 0) return {0, medium_not_present};
    const std::uint64_t last = unit.blocks() - 1;
    ByteWriter data(out);
    data.u32(static_cast<std::uint32_t>(std::min<std::uint64_t>(last, UINT32_MAX))).u32(unit.block_bytes);
    return {data.position(), {}};
}

Told tell_capacity_16(const LogicalUnit& unit, std::span<std::byte> out) {
    unit.store->look_at_size();
    if (unit.blocks() == 0) return {0, medium_not_present};
    ByteWriter data(out);
    data.u64(unit.blocks() - 1).u32(unit.block_bytes).u8(0).u8(0);
    data.u16(unit.unmap ? 0xc000 : 0x0000);  // LBPME, LBPRZ; lowest aligned LBA 0
    data.zeros(16);
    return {data.position(), {}};
}

Told tell_lba_status(const LogicalUnit& unit, const CdbBytes& cdb, std::span<std::byte> out) {
    constexpr std::size_t descriptor_bytes = 16;
    constexpr std::uint64_t descriptor_blocks_max = UINT32_MAX;
    if (!unit.unmap) return {0, invalid_field};
    ByteReader in(cdb);
    in.skip(2);
    std::uint64_t lba = in.u64();
    const std::uint64_t blocks = unit.blocks();
    if (lba >= blocks) return {0, out_of_range};
    const std::size_t room = std::min<std::size_t>(out.size(), std::max<std::uint32_t>(allocation_of(cdb), 24));
    ByteWriter data(out);
    data.zeros(8);
    while (lba < blocks && data.position() + descriptor_bytes <= room) {
        const auto extent = unit.store->extent_at(lba * unit.block_bytes);
        // A block is mapped if a part of it is.
        const std::uint64_t end =
            extent.is_mapped ? (extent.end + unit.block_bytes - 1) / unit.block_bytes : extent.end / unit.block_bytes;
        const bool is_mapped = extent.is_mapped || end <= lba;
        const std::uint64_t count =
            std::clamp<std::uint64_t>(end <= lba ? 1 : end - lba, 1, std::min(blocks - lba, descriptor_blocks_max));
        data.u64(lba).u32(static_cast<std::uint32_t>(count)).u8(is_mapped ? 0 : 1).zeros(3);
        lba += count;
    }
    ByteWriter(out).u32(static_cast<std::uint32_t>(data.position() - 4));
    return {data.position(), {}};
}

Told tell_mode_sense(const LogicalUnit& unit, const CdbBytes& cdb, std::span<std::byte> out) {
    const bool is_six = byte_of(cdb, 0) == scsi::opcode::mode_sense_6;
    const bool without_block_descriptor = (byte_of(cdb, 1) & 0x08) != 0;
    const unsigned control = byte_of(cdb, 2) >> 6;
    const std::uint8_t page = byte_of(cdb, 2) & 0x3f, subpage = byte_of(cdb, 3);
    if (control == saved) return {0, saving_not_supported};
    if (subpage != 0 && !(page == 0x3f && subpage == 0xff)) return {0, invalid_field};

    std::array<std::byte, 128> pages_memory{};
    ByteWriter pages(pages_memory);
    for (const std::uint8_t one : std::array<std::uint8_t, 4>{0x01, 0x08, 0x0a, 0x1c})
        if (page == one || page == 0x3f) write_mode_page(unit, one, control == changeable, pages);
    if (pages.position() == 0) return {0, invalid_field};

    const bool wp = unit.read_only.load(std::memory_order_relaxed);
    const auto specific = static_cast<std::uint8_t>((wp ? 0x80 : 0) | (unit.has_fua() ? 0x10 : 0));
    const std::uint8_t descriptor_bytes = without_block_descriptor ? 0 : 8;
    const std::size_t after_header = descriptor_bytes + pages.position();
    ByteWriter data(out);
    if (is_six)
        data.u8(static_cast<std::uint8_t>(3 + after_header)).u8(0).u8(specific).u8(descriptor_bytes);
    else
        data.u16(static_cast<std::uint16_t>(6 + after_header)).u8(0).u8(specific).u16(0).u16(descriptor_bytes);
    if (descriptor_bytes > 0)
        data.u32(static_cast<std::uint32_t>(std::min<std::uint64_t>(unit.blocks(), UINT32_MAX))).u32(unit.block_bytes);
    data.bytes(pages.written());
    SRPFS_ASSERT(!data.overran());
    return {data.position(), {}};
}

Told tell_target_port_groups(const CdbBytes& cdb, std::span<std::byte> out) {
    const bool extended = (byte_of(cdb, 1) >> 5) == 1;
    ByteWriter data(out);
    data.u32(extended ? 16 : 12);
    if (extended) data.u8(0x10).zeros(3);  // format 1; no implicit transition time
    data.u8(0x00).u8(0x01).u16(1);         // active/optimized; only that state is supported; group 1
    data.u8(0).u8(0).u8(0).u8(1);          // one port
    data.u16(0).u16(1);
    return {data.position(), {}};
}

Told tell_luns(const std::vector<unsigned>& numbers, bool flat, const CdbBytes& cdb, std::span<std::byte> out) {
    const std::uint8_t select = byte_of(cdb, 2);
    if (select > 0x02 || allocation_of(cdb) < 16) return {0, invalid_field};
    // 01h asks for well known units, of which there are none. Without any unit LUN 0 still answers.
    std::vector<unsigned> listed = select == 0x01 ? std::vector<unsigned>{} : numbers;
    if (listed.empty() && select != 0x01) listed.push_back(0);
    ByteWriter data(out);
    data.u32(static_cast<std::uint32_t>(8 * listed.size())).u32(0);
    for (const unsigned number : listed) {
        if (data.position() + 8 > out.size()) break;
        data.u16(static_cast<std::uint16_t>(number | (flat ? 0x4000 : 0))).zeros(6);
    }
    return {data.position(), {}};
}

Told tell_sense(const std::optional<Failure>& pending, const CdbBytes& cdb, std::span<std::byte> out) {
    if ((byte_of(cdb, 1) & 0x01) != 0) return {0, invalid_field};  // descriptor format
    const Failure told = pending.value_or(Failure{scsi::SenseKey::no_sense, 0, 0});
    ByteWriter data(out);
    data.bytes(scsi::encode_fixed_sense(told.key, told.asc, told.ascq));
    return {data.position(), {}};
}

BlockRange range_of(const CdbBytes& cdb) {
    ByteReader in(cdb);
    const unsigned group = in.u8() >> 5;
    switch (group) {
        case 0: {
            const std::uint32_t lba = in.u24() & 0x1fffff;
            const std::uint8_t count = in.u8();
            return {lba, count == 0 ? 256u : count};
        }
        case 1:
        case 2: {
            in.skip(1);
            const std::uint32_t lba = in.u32();
            in.skip(1);
            return {lba, in.u16()};
        }
        case 4: {
            in.skip(1);
            const std::uint64_t lba = in.u64();
            return {lba, in.u32()};
        }
        case 5: {
            in.skip(1);
            const std::uint32_t lba = in.u32();
            return {lba, in.u32()};
        }
        default: return {};
    }
}

std::uint32_t allocation_of(const CdbBytes& cdb) {
    ByteReader in(cdb);
    switch (in.u8()) {
        case scsi::opcode::inquiry: in.seek(3); return in.u16();
        case scsi::opcode::request_sense:
        case scsi::opcode::mode_sense_6: in.seek(4); return in.u8();
        case scsi::opcode::persistent_reserve_in:
        case scsi::opcode::mode_sense_10: in.seek(7); return in.u16();
        case scsi::opcode::read_capacity_10: return 8;
        case scsi::opcode::service_action_in_16: in.seek(10); return in.u32();
        case scsi::opcode::report_luns:
        case scsi::opcode::maintenance_in: in.seek(6); return in.u32();
        default: return 0;
    }
}

std::optional<std::vector<BlockRange>> parse_unmap_list(std::span<const std::byte> data) {
    ByteReader in(data);
    in.skip(2);
    const std::size_t list_bytes = in.u16();
    in.skip(4);
    if (in.overran() || list_bytes > in.left() || list_bytes % 16 != 0) return std::nullopt;
    std::vector<BlockRange> ranges;
    for (std::size_t count = list_bytes / 16; count > 0; --count) {
        const std::uint64_t lba = in.u64();
        ranges.push_back({lba, in.u32()});
        in.skip(4);
    }
    return ranges;
}

}  // namespace srpfs::target
