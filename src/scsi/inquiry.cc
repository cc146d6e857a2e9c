// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/scsi/scsi.h>

#include <fmt/format.h>

namespace srpfs::scsi {
namespace {

bool is_padding(std::byte one) { return one == std::byte{' '} || one == std::byte{0}; }

bool is_printable(std::byte one) { return one >= std::byte{0x20} && one <= std::byte{0x7e}; }

std::span<const std::byte> without_trailing_padding(std::span<const std::byte> bytes) {
    while (!bytes.empty() && is_padding(bytes.back())) bytes = bytes.first(bytes.size() - 1);
    return bytes;
}

std::string text(std::span<const std::byte> bytes) {
    std::string result;
    for (const std::byte one : without_trailing_padding(bytes))
        result += is_printable(one) ? static_cast<char>(one) : '?';
    return result;
}

// The payload of a VPD page: at most what its header says and what was received. nullopt: not this page.
std::optional<std::span<const std::byte>> vpd_payload(std::span<const std::byte> page, std::uint8_t page_code) {
    ByteReader in(page);
    in.skip(1);  // peripheral qualifier and type
    const std::uint8_t code = in.u8();
    const std::size_t payload_bytes = in.u16();
    if (in.overran() || code != page_code) return std::nullopt;
    return in.take(std::min(payload_bytes, in.left()));
}

// ---- device identification (83h) ----

enum class CodeSet : std::uint8_t { binary = 1, ascii = 2, utf8 = 3 };
enum class DesignatorType : std::uint8_t { t10 = 1, eui64 = 2, naa = 3 };

struct Designator {
    CodeSet code_set;
    DesignatorType type;
    std::span<const std::byte> bytes;
};

std::string hex(std::span<const std::byte> bytes) {
    std::string result;
    for (const std::byte one : bytes) result += fmt::format("{:02x}", std::to_integer<unsigned>(one));
    return result;
}

// Unlike '?', this keeps different designators different: a wwid is an identity.
std::string escaped(std::span<const std::byte> bytes) {
    std::string result;
    for (const std::byte one : without_trailing_padding(bytes)) {
        if (is_printable(one) && one != std::byte{'\\'})
            result += static_cast<char>(one);
        else
            result += fmt::format("\\x{:02x}", std::to_integer<unsigned>(one));
    }
    return result;
}

bool is_naa(std::span<const std::byte> bytes) {
    if (bytes.empty()) return false;
    switch (std::to_integer<unsigned>(bytes[0]) >> 4) {
        case 2:
        case 3:
        case 5: return bytes.size() == 8;
        case 6: return bytes.size() == 16;
        default: return false;
    }
}

bool is_all_zero(std::span<const std::byte> bytes) {
    return std::all_of(bytes.begin(), bytes.end(), [](std::byte one) { return one == std::byte{0}; });
}

struct Wwid {
    unsigned rank = 0;  // 0: unusable; more is better
    std::string text;
};

// NAA before EUI-64 before T10 vendor id; a longer designator of the same kind is the more specific one.
Wwid wwid_of(const Designator& designator) {
    const unsigned length = static_cast<unsigned>(designator.bytes.size());  // at most 255
    switch (designator.type) {
        case DesignatorType::naa:
            if (designator.code_set != CodeSet::binary || !is_naa(designator.bytes)) return {};
            return {3000 + length, "naa." + hex(designator.bytes)};
        case DesignatorType::eui64:
            if (designator.code_set != CodeSet::binary || is_all_zero(designator.bytes)) return {};
            if (length != 8 && length != 12 && length != 16) return {};
            return {2000 + length, "eui." + hex(designator.bytes)};
        case DesignatorType::t10: {
            if (designator.code_set == CodeSet::binary) return {};
            // Eight bytes of vendor and at least one that tells its units apart.
            if (without_trailing_padding(designator.bytes).size() <= 8) return {};
            return {1000 + length, "t10." + escaped(designator.bytes)};
        }
    }
    return {};
}

}  // namespace

std::optional<InquiryData> parse_inquiry(std::span<const std::byte> data) {
    ByteReader header(data);
    const std::uint8_t peripheral = header.u8();
    header.skip(1);
    const std::uint8_t version = header.u8();
    header.skip(1);
    const std::size_t additional_bytes = header.u8();
    if (header.overran()) return std::nullopt;

    ByteReader in(data.first(std::min(data.size(), 5 + additional_bytes)));
    in.skip(8);
    InquiryData inquiry;
    inquiry.peripheral_qualifier = peripheral >> 5;
    inquiry.device_type = peripheral & 0x1f;
    inquiry.version = version;
    inquiry.vendor = text(in.take(8));
    inquiry.product = text(in.take(16));
    inquiry.revision = text(in.take(4));
    return inquiry;
}

std::optional<std::string> parse_vpd_serial(std::span<const std::byte> page) {
    const auto payload = vpd_payload(page, 0x80);
    if (!payload) return std::nullopt;
    std::string serial = text(*payload);
    serial.erase(0, std::min(serial.find_first_not_of(' '), serial.size()));  // some devices align it to the right
    return serial;
}

std::optional<std::vector<std::uint8_t>> parse_vpd_supported(std::span<const std::byte> page) {
    const auto payload = vpd_payload(page, 0x00);
    if (!payload) return std::nullopt;
    std::vector<std::uint8_t> pages;
    for (const std::byte one : *payload) pages.push_back(std::to_integer<std::uint8_t>(one));
    return pages;
}

// Each designator: code set (low nibble), association (bits 5..4) and type (low nibble), reserved, length, bytes.
std::optional<std::string> parse_vpd_wwid(std::span<const std::byte> page) {
    const auto payload = vpd_payload(page, 0x83);
    if (!payload) return std::nullopt;
    Wwid best;
    ByteReader in(*payload);
    while (in.left() > 0) {
        const auto code_set = static_cast<CodeSet>(in.u8() & 0x0f);
        const std::uint8_t kind = in.u8();
        in.skip(1);
        const auto bytes = in.take(in.u8());
        if (in.overran()) break;  // a designator that claims more than there is ends the list
        const bool of_logical_unit = (kind >> 4 & 0x03) == 0;
        if (!of_logical_unit) continue;
        Wwid wwid = wwid_of({code_set, static_cast<DesignatorType>(kind & 0x0f), bytes});
        if (wwid.rank > best.rank) best = std::move(wwid);
    }
    if (best.rank == 0) return std::nullopt;
    return best.text;
}

// SBC-3 6.6.3. SBC-2 devices end the page after the optimal transfer length.
std::optional<BlockLimits> parse_vpd_block_limits(std::span<const std::byte> page) {
    const auto payload = vpd_payload(page, 0xb0);
    if (!payload) return std::nullopt;
    ByteReader in(*payload);
    in.skip(2);  // WSNZ, maximum COMPARE AND WRITE length
    BlockLimits limits;
    limits.transfer_granularity_blocks = in.u16();
    limits.transfer_blocks_max = in.u32();
    limits.transfer_blocks_optimal = in.u32();
    if (in.overran()) return std::nullopt;
    in.skip(4);  // maximum prefetch length
    limits.unmap_blocks_max = in.u32();
    limits.unmap_descriptors_max = in.u32();
    limits.unmap_granularity_blocks = in.u32();
    const std::uint32_t alignment = in.u32();
    if ((alignment & 0x80000000U) != 0) limits.unmap_alignment = alignment & 0x7fffffffU;  // UGAVALID
    limits.write_same_blocks_max = in.u64();
    return limits;
}

std::optional<Provisioning> parse_vpd_provisioning(std::span<const std::byte> page) {
    const auto payload = vpd_payload(page, 0xb2);
    if (!payload) return std::nullopt;
    ByteReader in(*payload);
    in.skip(1);  // threshold exponent
    const std::uint8_t flags = in.u8();
    if (in.overran()) return std::nullopt;
    return Provisioning{.write_same_unmaps = (flags & 0x40) != 0, .write_same_10_unmaps = (flags & 0x20) != 0};
}

}  // namespace srpfs::scsi
