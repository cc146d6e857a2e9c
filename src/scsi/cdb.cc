// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/scsi/scsi.h>

namespace srpfs::scsi {
namespace {

constexpr std::uint8_t evpd = 0x01;                       // INQUIRY byte 1
constexpr std::uint8_t disable_block_descriptors = 0x08;  // MODE SENSE byte 1
constexpr std::uint8_t force_unit_access = 0x08;          // READ, WRITE byte 1

Cdb make(std::uint8_t length) {
    Cdb cdb;
    cdb.length = length;
    return cdb;
}

Cdb transfer(std::uint8_t opcode_10, std::uint8_t opcode_16, std::uint8_t flags, std::uint64_t lba,
             std::uint32_t blocks) {
    if (lba <= UINT32_MAX && blocks <= UINT16_MAX) {
        Cdb cdb = make(10);
        ByteWriter out(cdb.bytes);
        out.u8(opcode_10).u8(flags).u32(static_cast<std::uint32_t>(lba));
        out.zeros(1).u16(static_cast<std::uint16_t>(blocks)).zeros(1);  // group number, count, control
        return cdb;
    }
    Cdb cdb = make(16);
    ByteWriter out(cdb.bytes);
    out.u8(opcode_16).u8(flags).u64(lba).u32(blocks).zeros(2);  // group number, control
    return cdb;
}

std::uint8_t flags_of(ForceUnitAccess fua) { return fua == ForceUnitAccess::yes ? force_unit_access : std::uint8_t{0}; }

}  // namespace

Cdb test_unit_ready() { return make(6); }

Cdb inquiry(std::uint16_t allocation_bytes) {
    Cdb cdb = make(6);
    ByteWriter(cdb.bytes).u8(opcode::inquiry).zeros(2).u16(allocation_bytes);
    return cdb;
}

Cdb inquiry_vpd(std::uint8_t page, std::uint16_t allocation_bytes) {
    Cdb cdb = make(6);
    ByteWriter(cdb.bytes).u8(opcode::inquiry).u8(evpd).u8(page).u16(allocation_bytes);
    return cdb;
}

Cdb report_luns(std::uint32_t allocation_bytes) {
    Cdb cdb = make(12);
    ByteWriter(cdb.bytes).u8(opcode::report_luns).zeros(5).u32(allocation_bytes);
    return cdb;
}

Cdb read_capacity_10() {
    Cdb cdb = make(10);
    ByteWriter(cdb.bytes).u8(opcode::read_capacity_10);
    return cdb;
}

Cdb read_capacity_16(std::uint32_t allocation_bytes) {
    Cdb cdb = make(16);
    ByteWriter out(cdb.bytes);
    out.u8(opcode::service_action_in_16).u8(opcode::service_action_read_capacity_16).zeros(8).u32(allocation_bytes);
    return cdb;
}

Cdb get_lba_status(std::uint64_t lba, std::uint32_t allocation_bytes) {
    Cdb cdb = make(16);
    ByteWriter out(cdb.bytes);
    out.u8(opcode::service_action_in_16).u8(opcode::service_action_get_lba_status).u64(lba).u32(allocation_bytes);
    return cdb;
}

Cdb mode_sense_6(std::uint8_t page, std::uint8_t allocation_bytes) {
    Cdb cdb = make(6);
    ByteWriter out(cdb.bytes);
    out.u8(opcode::mode_sense_6).u8(disable_block_descriptors).u8(page & 0x3f).zeros(1).u8(allocation_bytes);
    return cdb;
}

Cdb mode_sense_10(std::uint8_t page, std::uint16_t allocation_bytes) {
    Cdb cdb = make(10);
    ByteWriter out(cdb.bytes);
    out.u8(opcode::mode_sense_10).u8(disable_block_descriptors).u8(page & 0x3f).zeros(4).u16(allocation_bytes);
    return cdb;
}

Cdb request_sense(std::uint8_t allocation_bytes) {
    Cdb cdb = make(6);
    ByteWriter(cdb.bytes).u8(opcode::request_sense).zeros(3).u8(allocation_bytes);
    return cdb;
}

Cdb read(std::uint64_t lba, std::uint32_t blocks, ForceUnitAccess fua) {
    return transfer(opcode::read_10, opcode::read_16, flags_of(fua), lba, blocks);
}

Cdb write(std::uint64_t lba, std::uint32_t blocks, ForceUnitAccess fua) {
    return transfer(opcode::write_10, opcode::write_16, flags_of(fua), lba, blocks);
}

Cdb write_same(std::uint64_t lba, std::uint32_t blocks, bool deallocate) {
    Cdb cdb = make(16);
    ByteWriter(cdb.bytes).u8(opcode::write_same_16).u8(deallocate ? 0x08 : 0x00).u64(lba).u32(blocks);
    return cdb;
}

Cdb write_same_10(std::uint32_t lba, std::uint16_t blocks, bool deallocate) {
    Cdb cdb = make(10);
    ByteWriter(cdb.bytes).u8(opcode::write_same_10).u8(deallocate ? 0x08 : 0x00).u32(lba).u8(0).u16(blocks);
    return cdb;
}

Cdb synchronize_cache(std::uint64_t lba, std::uint32_t blocks) {
    return transfer(opcode::synchronize_cache_10, opcode::synchronize_cache_16, 0, lba, blocks);
}

}  // namespace srpfs::scsi
