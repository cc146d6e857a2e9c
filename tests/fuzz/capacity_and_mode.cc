// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// READ CAPACITY and MODE SENSE data, each parser over the same bytes.
#include "fuzz.h"

#include <srpfs/scsi/scsi.h>

#include <bit>

using namespace srpfs::scsi;

namespace srpfs::fuzz {
namespace {

bool is_sane(const Capacity& capacity) {
    const bool sane_block =
        std::has_single_bit(capacity.block_bytes) && capacity.block_bytes >= 512 && capacity.block_bytes <= 65536;
    return sane_block && capacity.blocks > 0 && capacity.blocks <= INT64_MAX / capacity.block_bytes &&
           capacity.physical_block_bytes >= capacity.block_bytes && std::has_single_bit(capacity.physical_block_bytes);
}

}  // namespace
}  // namespace srpfs::fuzz

SRPFS_FUZZ_TARGET(capacity_and_mode) {
    if (const auto capacity = parse_read_capacity_16(input)) PROPERTY(is_sane(*capacity));
    if (const auto result = parse_read_capacity_10(input)) {
        PROPERTY(is_sane(result->capacity));
        PROPERTY(result->needs_16 == (result->capacity.blocks == std::uint64_t{1} << 32));
    }
    std::uint64_t next = 8;
    for (const LbaExtent& extent : parse_lba_status(input, next)) {
        PROPERTY(extent.lba == next && extent.blocks > 0 && extent.lba + extent.blocks > next);
        next += extent.blocks;
    }
    PROPERTY(!parse_mode_sense_6(input) || input.size() >= 4);
    PROPERTY(!parse_mode_sense_10(input) || input.size() >= 8);
    // A write cache is reported by a byte of page 08h, which needs room behind the header.
    if (const auto mode = parse_mode_sense_6(input)) PROPERTY(!mode->write_cache_enabled || input.size() >= 4 + 3);
    if (const auto mode = parse_mode_sense_10(input)) PROPERTY(!mode->write_cache_enabled || input.size() >= 8 + 3);
}
