// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// READ CAPACITY and MODE SENSE data.
#include <srpfs/scsi/scsi.h>

#include <bit>

namespace srpfs::scsi {
namespace {

constexpr std::uint64_t file_bytes_max = INT64_MAX;  // what a file size can express

bool is_block_length(std::uint32_t bytes) { return std::has_single_bit(bytes) && bytes >= 512 && bytes <= 65536; }

// Pages up to the caching page (08h). A page: code (PS 80h, SPF 40h), length (1), bytes; with SPF: code, subpage,
// length (2), bytes.
bool write_cache_of(std::span<const std::byte> pages) {
    ByteReader in(pages);
    while (in.left() > 0) {
        const std::uint8_t code = in.u8();
        const bool subpage_format = (code & 0x40) != 0;
        if (subpage_format) in.skip(1);
        const std::size_t body_bytes = subpage_format ? in.u16() : in.u8();
        // A page cut short by the allocation length still tells its write cache bit.
        const auto body = in.take(std::min(body_bytes, in.left()));
        const bool is_caching = !subpage_format && (code & 0x3f) == 0x08;
        if (is_caching) return !body.empty() && (body[0] & std::byte{0x04}) != std::byte{0};
    }
    return false;
}

ModeCaching mode_caching(std::uint8_t device_specific, std::size_t block_descriptor_bytes, ByteReader in) {
    ModeCaching mode;
    mode.write_protected = (device_specific & 0x80) != 0;
    mode.fua_supported = (device_specific & 0x10) != 0;
    in.skip(block_descriptor_bytes);
    mode.write_cache_enabled = write_cache_of(in.take(in.left()));
    return mode;
}

}  // namespace

std::optional<Capacity> parse_read_capacity_16(std::span<const std::byte> data) {
    ByteReader in(data);
    const std::uint64_t last_lba = in.u64();
    const std::uint32_t block_bytes = in.u32();
    if (in.overran() || !is_block_length(block_bytes)) return std::nullopt;
    if (last_lba >= file_bytes_max / block_bytes) return std::nullopt;
    in.skip(1);  // protection
    const std::uint8_t exponents = in.u8();
    const std::uint8_t provisioning = in.u8();
    Capacity capacity;
    capacity.blocks = last_lba + 1;
    capacity.block_bytes = block_bytes;
    capacity.physical_block_bytes = block_bytes << (exponents & 0x0f);  // at most 65536 << 15
    capacity.provisioning_enabled = (provisioning & 0x80) != 0;
    capacity.reads_zeros_after_unmap = (provisioning & 0x40) != 0;
    return capacity;
}

std::optional<Capacity10> parse_read_capacity_10(std::span<const std::byte> data) {
    ByteReader in(data);
    const std::uint32_t last_lba = in.u32();
    const std::uint32_t block_bytes = in.u32();
    if (in.overran() || !is_block_length(block_bytes)) return std::nullopt;
    Capacity10 result;
    result.capacity.blocks = std::uint64_t{last_lba} + 1;
    result.capacity.block_bytes = block_bytes;
    result.capacity.physical_block_bytes = block_bytes;
    result.needs_16 = last_lba == UINT32_MAX;
    return result;
}

// Length of what follows it, 4 reserved, then descriptors: LBA (8), blocks (4), status (low nibble), 3 more.
std::vector<LbaExtent> parse_lba_status(std::span<const std::byte> data, std::uint64_t lba) {
    constexpr std::size_t head_bytes = 8, descriptor_bytes = 16;
    ByteReader in(data);
    const std::size_t told = std::size_t{in.u32()} + 4;
    if (in.overran() || data.size() < head_bytes) return {};
    in.skip(4);
    std::vector<LbaExtent> extents;
    for (std::size_t left = std::min(data.size(), told); left >= head_bytes + descriptor_bytes;
         left -= descriptor_bytes) {
        const std::uint64_t first = in.u64();
        const std::uint64_t end = first + in.u32();  // no overflow that is not found out below
        const unsigned status = in.u8() & 0x0f;
        in.skip(3);
        // Some begin the first where the extent does that contains the LBA asked for.
        if (extents.empty() ? first > lba : first != lba) break;
        if (end <= lba) break;
        const bool is_mapped = status != 1 && status != 2;
        if (!extents.empty() && extents.back().is_mapped == is_mapped)
            extents.back().blocks += end - lba;
        else
            extents.push_back({lba, end - lba, is_mapped});
        lba = end;
    }
    return extents;
}

std::optional<ModeCaching> parse_mode_sense_6(std::span<const std::byte> data) {
    ByteReader header(data);
    const std::size_t data_bytes = std::size_t{header.u8()} + 1;  // the length does not count itself
    header.skip(1);
    const std::uint8_t device_specific = header.u8();
    const std::size_t block_descriptor_bytes = header.u8();
    if (header.overran() || data_bytes < 4) return std::nullopt;

    ByteReader in(data.first(std::min(data.size(), data_bytes)));
    in.skip(4);
    return mode_caching(device_specific, block_descriptor_bytes, in);
}

std::optional<ModeCaching> parse_mode_sense_10(std::span<const std::byte> data) {
    ByteReader header(data);
    const std::size_t data_bytes = std::size_t{header.u16()} + 2;
    header.skip(1);
    const std::uint8_t device_specific = header.u8();
    header.skip(2);
    const std::size_t block_descriptor_bytes = header.u16();
    if (header.overran() || data_bytes < 8) return std::nullopt;

    ByteReader in(data.first(std::min(data.size(), data_bytes)));
    in.skip(8);
    return mode_caching(device_specific, block_descriptor_bytes, in);
}

}  // namespace srpfs::scsi
