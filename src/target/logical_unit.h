// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// One embedded disk: its store and what it says about itself. Shared by all portals.
// Sources: SPC-4, SBC-3, and LIO's answers as collected in srp-targets 1.4.

#pragma once

#include "identity.h"

#include <srpfs/scsi/scsi.h>
#include <srpfs/target/block_store.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace srpfs::target {

// Why a command ends in CHECK CONDITION.
struct Failure {
    scsi::SenseKey key = scsi::SenseKey::illegal_request;
    std::uint8_t asc = 0, ascq = 0;
};
inline constexpr Failure invalid_opcode{scsi::SenseKey::illegal_request, 0x20, 0x00};
inline constexpr Failure out_of_range{scsi::SenseKey::illegal_request, 0x21, 0x00};
inline constexpr Failure invalid_field{scsi::SenseKey::illegal_request, 0x24, 0x00};
inline constexpr Failure no_such_unit{scsi::SenseKey::illegal_request, 0x25, 0x00};
inline constexpr Failure invalid_parameter{scsi::SenseKey::illegal_request, 0x26, 0x00};
inline constexpr Failure wrong_data_length{scsi::SenseKey::illegal_request, 0x0e, 0x03};
inline constexpr Failure saving_not_supported{scsi::SenseKey::illegal_request, 0x39, 0x00};
inline constexpr Failure write_protected{scsi::SenseKey::data_protect, 0x27, 0x00};
inline constexpr Failure medium_not_present{scsi::SenseKey::not_ready, 0x3a, 0x00};
inline constexpr Failure no_space_left{scsi::SenseKey::data_protect, 0x27, 0x07};
inline constexpr Failure unrecovered_read{scsi::SenseKey::medium_error, 0x11, 0x00};
inline constexpr Failure write_failed{scsi::SenseKey::medium_error, 0x0c, 0x00};

using CdbBytes = std::array<std::byte, 16>;

class Reservations;

struct LogicalUnit : std::enable_shared_from_this<LogicalUnit> {
    LogicalUnit(unsigned number, const LunConfig& config, std::unique_ptr<BlockStore> store);
    ~LogicalUnit();

    [[nodiscard]] std::uint64_t blocks() const { return store->bytes() / block_bytes; }
    [[nodiscard]] bool contains(std::uint64_t lba, std::uint64_t count) const {
        const std::uint64_t all = blocks();
        return lba <= all && count <= all - lba;
    }
    // LIO accepts DPO and FUA only where it has a cache to go through.
    [[nodiscard]] bool has_fua() const { return write_cache; }

    const unsigned number;
    const StoreKind kind;
    const std::uint32_t block_bytes;
    const bool write_cache;
    const bool unmap;
    const Identity identity;
    const std::unique_ptr<BlockStore> store;
    const bool is_null, is_inline;  // what the store says of itself
    const std::unique_ptr<Reservations> reservations;
    std::atomic<bool> read_only;
};

// Numbers and names of what a unit can do, beyond the unit itself.
struct UnitLimits {
    std::uint32_t transfer_bytes_max = 0;
};
inline constexpr std::uint32_t unmap_descriptors_max = 32;
inline constexpr std::uint32_t unmap_blocks_max = 1 << 22;

// Data-in of commands that only tell. `out` is as long as it may get; the answer is how much there is to tell, before
// the allocation length of the CDB cuts it, or why the command fails. No unit: LUN 0 exists, but nothing is there.
struct Told {
    std::size_t bytes = 0;
    std::optional<Failure> failure;
};
Told tell_inquiry(const LogicalUnit* unit, const CdbBytes& cdb, const UnitLimits& limits, std::span<std::byte> out);
// The size is looked at here, so a file is as long as it was when its unit's capacity was last asked for.
Told tell_capacity_10(const LogicalUnit& unit, std::span<std::byte> out);
Told tell_capacity_16(const LogicalUnit& unit, std::span<std::byte> out);
Told tell_lba_status(const LogicalUnit& unit, const CdbBytes& cdb, std::span<std::byte> out);  // of thin units
Told tell_mode_sense(const LogicalUnit& unit, const CdbBytes& cdb, std::span<std::byte> out);
Told tell_target_port_groups(const CdbBytes& cdb, std::span<std::byte> out);
Told tell_luns(const std::vector<unsigned>& numbers, bool flat, const CdbBytes& cdb, std::span<std::byte> out);
Told tell_sense(const std::optional<Failure>& pending, const CdbBytes& cdb, std::span<std::byte> out);

// A range of blocks a READ, WRITE, VERIFY, SYNCHRONIZE CACHE or WRITE SAME CDB names.
struct BlockRange {
    std::uint64_t lba = 0;
    std::uint64_t count = 0;
};
// By the group of the operation code (SPC-4 4.2.5.1): 6, 10, 12 or 16 bytes. A count of 0 in six bytes means 256.
BlockRange range_of(const CdbBytes& cdb);
// What the CDB allows as data-in, for the commands that tell.
std::uint32_t allocation_of(const CdbBytes& cdb);

// UNMAP parameter data. nullopt: lengths disagree (SBC-3 5.28: then nothing is done).
std::optional<std::vector<BlockRange>> parse_unmap_list(std::span<const std::byte> data);

}  // namespace srpfs::target
