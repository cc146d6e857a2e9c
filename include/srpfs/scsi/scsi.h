// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// SCSI as bytes: CDBs, sense data, INQUIRY and VPD pages, capacity, mode data, LUN addresses.
// Pure functions. Sources: SAM-5, SPC-4, SBC-3. Everything parsed comes from a peer and is checked here.

#pragma once

#include <srpfs/base/bytes.h>

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace srpfs::scsi {

// SAM-5 5.3.1.
enum class Status : std::uint8_t {
    good = 0x00,
    check_condition = 0x02,
    condition_met = 0x04,
    busy = 0x08,
    reservation_conflict = 0x18,
    task_set_full = 0x28,
    aca_active = 0x30,
    task_aborted = 0x40,
};

// The 8-byte logical unit number, compared as bytes (SAM-5 4.7).
struct Lun {
    std::array<std::byte, 8> bytes{};
    auto operator<=>(const Lun&) const = default;

    // Peripheral addressing, 0..255; 256..16383 the way LIO writes them (plain number in the first level). Less than
    // 16384.
    static Lun from_number(std::uint16_t number);
    // The value Linux shows: level i in bits 16i..16i+15, level 0 first. 5 for 00 05 00..; 0x4100 for 41 00 00...
    [[nodiscard]] std::uint64_t linux_value() const;
    // 0..255 when the address is a single-level peripheral or flat address (method 00b or 01b) of such a number.
    [[nodiscard]] std::optional<unsigned> small_number() const;
    // Two addressing methods may spell one number.
    [[nodiscard]] bool is_same_unit_as(const Lun& other) const {
        return *this == other || (small_number() && small_number() == other.small_number());
    }
    // "lun5" for small numbers, else "lun0x" and 16 hex digits of the bytes (decisions 39).
    [[nodiscard]] std::string file_name() const;
};
// REPORT LUNS parameter data: entries in the order reported, complete ones only. nullopt when shorter than its header.
struct LunList {
    std::vector<Lun> luns;
    std::uint32_t bytes_needed = 0;  // allocation length for the whole list
};
std::optional<LunList> parse_report_luns(std::span<const std::byte> data);

struct Cdb {
    std::array<std::byte, 16> bytes{};
    std::uint8_t length = 0;
    [[nodiscard]] std::span<const std::byte> span() const { return std::span(bytes).first(length); }
    [[nodiscard]] std::uint8_t opcode() const { return static_cast<std::uint8_t>(bytes[0]); }
};

namespace opcode {
inline constexpr std::uint8_t test_unit_ready = 0x00, request_sense = 0x03, inquiry = 0x12, mode_select_6 = 0x15,
                              mode_sense_6 = 0x1a, start_stop_unit = 0x1b, read_capacity_10 = 0x25, read_10 = 0x28,
                              write_10 = 0x2a, verify_10 = 0x2f, synchronize_cache_10 = 0x35, write_same_10 = 0x41,
                              unmap = 0x42, mode_sense_10 = 0x5a, persistent_reserve_in = 0x5e,
                              persistent_reserve_out = 0x5f, read_16 = 0x88, compare_and_write = 0x89, write_16 = 0x8a,
                              synchronize_cache_16 = 0x91, write_same_16 = 0x93, service_action_in_16 = 0x9e,
                              report_luns = 0xa0, maintenance_in = 0xa3;
inline constexpr std::uint8_t service_action_read_capacity_16 = 0x10, service_action_get_lba_status = 0x12;
}  // namespace opcode

enum class ForceUnitAccess : bool { no, yes };

Cdb test_unit_ready();
Cdb inquiry(std::uint16_t allocation_bytes);
Cdb inquiry_vpd(std::uint8_t page, std::uint16_t allocation_bytes);
Cdb report_luns(std::uint32_t allocation_bytes);  // SELECT REPORT 00h
Cdb read_capacity_10();
Cdb read_capacity_16(std::uint32_t allocation_bytes);
Cdb get_lba_status(std::uint64_t lba, std::uint32_t allocation_bytes);
Cdb mode_sense_6(std::uint8_t page, std::uint8_t allocation_bytes);  // DBD=1, current values
Cdb mode_sense_10(std::uint8_t page, std::uint16_t allocation_bytes);
Cdb request_sense(std::uint8_t allocation_bytes);
// READ(10)/WRITE(10) when LBA and count fit, else (16).
Cdb read(std::uint64_t lba, std::uint32_t blocks, ForceUnitAccess fua);
Cdb write(std::uint64_t lba, std::uint32_t blocks, ForceUnitAccess fua);
// WRITE SAME(16) of one block of data-out. `deallocate` (UNMAP): blocks may be unmapped that read the same then.
Cdb write_same(std::uint64_t lba, std::uint32_t blocks, bool deallocate);
// The same by WRITE SAME(10).
Cdb write_same_10(std::uint32_t lba, std::uint16_t blocks, bool deallocate);
Cdb synchronize_cache(std::uint64_t lba, std::uint32_t blocks);  // 0 blocks: to the end; (10) when the LBA fits

// SPC-4 4.5.
enum class SenseKey : std::uint8_t {
    no_sense = 0x0,
    recovered_error = 0x1,
    not_ready = 0x2,
    medium_error = 0x3,
    hardware_error = 0x4,
    illegal_request = 0x5,
    unit_attention = 0x6,
    data_protect = 0x7,
    blank_check = 0x8,
    vendor_specific = 0x9,
    copy_aborted = 0xa,
    aborted_command = 0xb,
    reserved_c = 0xc,
    volume_overflow = 0xd,
    miscompare = 0xe,
    completed = 0xf,
};
struct Sense {
    bool valid = false;     // false: no or unusable sense data
    bool deferred = false;  // response codes 71h, 73h: about an earlier command
    SenseKey key = SenseKey::no_sense;
    std::uint8_t asc = 0;
    std::uint8_t ascq = 0;
    auto operator<=>(const Sense&) const = default;
};
Sense parse_sense(std::span<const std::byte> data);  // fixed and descriptor format
// 18 bytes of fixed format sense, as a target sends it.
std::array<std::byte, 18> encode_fixed_sense(SenseKey key, std::uint8_t asc, std::uint8_t ascq);
// "UNIT ATTENTION: reported LUNs data has changed (6/3f/0e)"; unknown codes as numbers.
std::string describe(const Sense& sense);
std::string_view describe(Status status);

struct InquiryData {
    std::uint8_t peripheral_qualifier = 0;  // 0 connected, 1 nothing connected, 3 cannot be
    std::uint8_t device_type = 0;           // 0 direct access, 0x1f none
    std::uint8_t version = 0;
    std::string vendor, product, revision;  // printable ASCII, trailing blanks and NULs removed, other bytes as '?'
    [[nodiscard]] bool is_disk() const { return peripheral_qualifier == 0 && device_type == 0; }
};
// At least the first five bytes; strings beyond the received bytes or the additional length are empty.
std::optional<InquiryData> parse_inquiry(std::span<const std::byte> data);

// VPD pages: nullopt when shorter than the header or of another page code. Bytes beyond the page length are ignored.
std::optional<std::string> parse_vpd_serial(std::span<const std::byte> page);                   // 80h
std::optional<std::vector<std::uint8_t>> parse_vpd_supported(std::span<const std::byte> page);  // 00h
// The best designator of the logical unit (association 0) as udev and multipath spell it: "naa.6001405...",
// "eui.0025...", "t10.VENDOR..." (unprintable bytes and backslashes as \xNN, so that different units stay different),
// in this order of preference; the longest of a kind. nullopt: none usable.
std::optional<std::string> parse_vpd_wwid(std::span<const std::byte> page);  // 83h

struct BlockLimits {  // VPD B0h; 0 = not reported
    std::uint32_t transfer_blocks_max = 0;
    std::uint32_t transfer_blocks_optimal = 0;
    std::uint16_t transfer_granularity_blocks = 0;
    std::uint32_t unmap_blocks_max = 0;
    std::uint32_t unmap_descriptors_max = 0;
    std::uint32_t unmap_granularity_blocks = 0;
    std::uint32_t unmap_alignment = 0;  // the first LBA of a granule; 0 as well when none is reported
    std::uint64_t write_same_blocks_max = 0;
};
std::optional<BlockLimits> parse_vpd_block_limits(std::span<const std::byte> page);

struct Provisioning {                   // VPD B2h
    bool write_same_unmaps = false;     // LBPWS: WRITE SAME(16) with UNMAP
    bool write_same_10_unmaps = false;  // LBPWS10: WRITE SAME(10) with UNMAP
};
std::optional<Provisioning> parse_vpd_provisioning(std::span<const std::byte> page);

struct Capacity {
    std::uint64_t blocks = 0;       // last LBA + 1
    std::uint32_t block_bytes = 0;  // a power of two, 512..65536
    std::uint32_t physical_block_bytes = 0;
    bool provisioning_enabled = false;     // LBPME
    bool reads_zeros_after_unmap = false;  // LBPRZ
};
// nullopt: shorter than 12 (8) bytes, a block length that is not a power of two in 512..65536, or more bytes than a
// file size can express (2^63 - 1). READ CAPACITY(10) answers needs_16 when the last LBA is FFFFFFFFh.
std::optional<Capacity> parse_read_capacity_16(std::span<const std::byte> data);
struct Capacity10 {
    Capacity capacity;
    bool needs_16 = false;
};
std::optional<Capacity10> parse_read_capacity_10(std::span<const std::byte> data);

// GET LBA STATUS (SBC-3 5.6): one after the other without a gap, the first from the LBA asked for.
struct LbaExtent {
    std::uint64_t lba = 0;
    std::uint64_t blocks = 0;  // at least 1
    // Deallocated or anchored: reads as zeros where LBPRZ is 1. What is not known counts as mapped.
    bool is_mapped = true;
};
// `lba` is what was asked for. Descriptors end where one does not follow from the one before; neighbours of the same
// status are one extent. Empty: nothing usable.
std::vector<LbaExtent> parse_lba_status(std::span<const std::byte> data, std::uint64_t lba);

struct ModeCaching {                   // MODE SENSE, page 08h plus the header's device-specific parameter
    bool write_protected = false;      // WP
    bool fua_supported = false;        // DPOFUA
    bool write_cache_enabled = false;  // WCE; false as well when the page is absent
};
// nullopt: shorter than the header.
std::optional<ModeCaching> parse_mode_sense_6(std::span<const std::byte> data);
std::optional<ModeCaching> parse_mode_sense_10(std::span<const std::byte> data);

}  // namespace srpfs::scsi
