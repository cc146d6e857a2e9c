// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/scsi/page_text.h>

#include <srpfs/base/bytes.h>
#include <srpfs/scsi/scsi.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <string_view>

namespace srpfs::scsi {
namespace {

class Text {
public:
    template <typename Value>
    Text& line(std::string_view name, const Value& value) {
        const std::string shown = fmt::format("{}", value);
        text_ += fmt::format("{}:{}{}\n", name, shown.empty() ? "" : " ", shown);
        return *this;
    }
    Text& bit(std::string_view name, unsigned byte, unsigned mask) { return line(name, (byte & mask) != 0 ? 1 : 0); }
    // What there is no name for.
    Text& bytes(std::string_view name, std::span<const std::byte> bytes) {
        if (bytes.empty()) return *this;
        text_ += fmt::format("{}:", name);
        for (const std::byte one : bytes) text_ += fmt::format(" {:02x}", std::to_integer<unsigned>(one));
        text_ += '\n';
        return *this;
    }
    [[nodiscard]] std::string take() { return std::move(text_); }

private:
    std::string text_;
};

std::string printable(std::span<const std::byte> bytes) {
    std::string text;
    for (const std::byte one : bytes) {
        const auto code = std::to_integer<unsigned char>(one);
        text += code >= 0x20 && code <= 0x7e ? static_cast<char>(code) : '?';
    }
    while (text.ends_with(' ')) text.pop_back();
    return text;
}

std::string_view device_type(unsigned type) {
    switch (type) {
        case 0x00: return "disk";
        case 0x01: return "tape";
        case 0x03: return "processor";
        case 0x05: return "CD or DVD";
        case 0x08: return "media changer";
        case 0x0c: return "storage array controller";
        case 0x0d: return "enclosure services";
        case 0x14: return "zoned disk";
        case 0x1e: return "well known logical unit";
        case 0x1f: return "none";
        default: return "other";
    }
}

// ---- VPD ----

void designator(Text& out, ByteReader& in) {
    static constexpr std::string_view associations[] = {"logical unit", "target port", "target device", "reserved"};
    static constexpr std::string_view types[] = {"vendor specific",
                                                 "T10 vendor id",
                                                 "EUI-64",
                                                 "NAA",
                                                 "relative port",
                                                 "target port group",
                                                 "logical unit group",
                                                 "MD5",
                                                 "SCSI name string",
                                                 "protocol specific"};
    const unsigned code_set = in.u8() & 0x0f, kind = in.u8();
    in.skip(1);
    const std::size_t length = in.u8();
    const auto bytes = in.take(std::min(length, in.left()));
    const unsigned type = kind & 0x0f;
    const std::string name =
        fmt::format("{}, {}", associations[kind >> 4 & 0x03],
                    type < std::size(types) ? std::string(types[type]) : fmt::format("type {:x}h", type));
    if (code_set == 1) {
        std::string hex = "0x";
        for (const std::byte one : bytes) hex += fmt::format("{:02x}", std::to_integer<unsigned>(one));
        out.line(name, hex);
    } else {
        out.line(name, printable(bytes));
    }
}

void block_limits(Text& out, ByteReader& in) {
    out.bit("zero blocks mean all in WRITE SAME (WSNZ 0)", ~unsigned{in.u8()} & 1U, 1);
    out.line("COMPARE AND WRITE length, at most, blocks", in.u8());
    out.line("optimal transfer length granularity, blocks", in.u16());
    out.line("transfer length, at most, blocks", in.u32());
    out.line("optimal transfer length, blocks", in.u32());
    if (in.left() < 28) return;  // SBC-2
    out.line("prefetch length, at most, blocks", in.u32());
    out.line("UNMAP, at most, blocks", in.u32());
    out.line("UNMAP, at most, descriptors", in.u32());
    out.line("optimal unmap granularity, blocks", in.u32());
    const std::uint32_t alignment = in.u32();
    if ((alignment & 0x80000000U) != 0) out.line("unmap granularity alignment, LBA", alignment & 0x7fffffffU);
    out.line("WRITE SAME length, at most, blocks", in.u64());
}

void characteristics(Text& out, ByteReader& in) {
    const unsigned rate = in.u16();
    if (rate == 1)
        out.line("medium rotation", "none");
    else if (rate >= 0x401 && rate <= 0xfffe)
        out.line("medium rotation, per minute", rate);
    else
        out.line("medium rotation", "not reported");
    in.skip(1);
    out.line("form factor", in.u8() & 0x0f);
}

void provisioning(Text& out, ByteReader& in) {
    static constexpr std::string_view types[] = {"not reported or full", "resource", "thin"};
    const unsigned exponent = in.u8(), flags = in.u8(), type = in.u8() & 0x07;
    out.line("threshold exponent", exponent);
    out.bit("UNMAP (LBPU)", flags, 0x80).bit("WRITE SAME(16) unmaps (LBPWS)", flags, 0x40);
    out.bit("WRITE SAME(10) unmaps (LBPWS10)", flags, 0x20);
    out.line("unmapped blocks read as (LBPRZ)", flags >> 2 & 0x07);
    out.bit("anchoring (ANC_SUP)", flags, 0x02);
    out.line("provisioning", type < std::size(types) ? types[type] : std::string_view("other"));
}

// ---- mode ----

void mode_page(Text& out, unsigned code, unsigned subpage, std::span<const std::byte> body) {
    const auto at = [&](std::size_t index) {
        return index < body.size() ? std::to_integer<unsigned>(body[index]) : 0U;
    };
    if (subpage != 0) {
        out.line("page", fmt::format("{:02x}h, {:02x}h", code, subpage)).bytes("bytes", body);
        return;
    }
    switch (code) {
        case 0x01:
            out.line("page", "01h read-write error recovery");
            out.bit("automatic write reallocation (AWRE)", at(0), 0x80);
            out.bit("automatic read reallocation (ARRE)", at(0), 0x40);
            out.line("read retries", at(1)).line("write retries", at(6));
            break;
        case 0x08:
            out.line("page", "08h caching");
            out.bit("write cache (WCE)", at(0), 0x04).bit("read cache disabled (RCD)", at(0), 0x01);
            out.bit("non-volatile cache disabled (NV_DIS)", at(11), 0x01);
            break;
        case 0x0a:
            out.line("page", "0ah control");
            out.bit("descriptor format sense (D_SENSE)", at(0), 0x04).line("queue algorithm", at(1) >> 4);
            out.bit("software write protect (SWP)", at(2), 0x08).bit("TASK ABORTED status (TAS)", at(3), 0x40);
            break;
        case 0x1c:
            out.line("page", "1ch informational exceptions");
            out.bit("disabled (DEXCPT)", at(0), 0x08).line("method of reporting", at(1) & 0x0f);
            break;
        default: out.line("page", fmt::format("{:02x}h", code)); break;
    }
    out.bytes("bytes", body);
}

}  // namespace

std::string inquiry_text(std::span<const std::byte> data) {
    Text out;
    const auto inquiry = parse_inquiry(data);
    if (!inquiry) return out.bytes("unusable", data).line("bytes", data.size()).take();
    ByteReader in(data);
    in.skip(1);
    const unsigned removable = in.u8();
    in.skip(3);
    const unsigned byte_5 = in.u8(), byte_6 = in.u8(), byte_7 = in.u8();
    out.line("peripheral qualifier", inquiry->peripheral_qualifier);
    out.line("device type", fmt::format("{:02x}h {}", inquiry->device_type, device_type(inquiry->device_type)));
    out.bit("removable medium (RMB)", removable, 0x80).line("version", inquiry->version);
    out.line("target port groups (TPGS)", byte_5 >> 4 & 3U).bit("protection (PROTECT)", byte_5, 0x01);
    out.bit("several ports (MULTIP)", byte_6, 0x10).bit("command queueing (CMDQUE)", byte_7, 0x02);
    out.line("vendor", inquiry->vendor).line("product", inquiry->product).line("revision", inquiry->revision);
    if (data.size() > 36) out.bytes("further bytes", data.subspan(36));
    return out.take();
}

std::string vpd_text(std::span<const std::byte> page) {
    ByteReader header(page);
    header.skip(1);
    const unsigned code = header.u8();
    const std::size_t length = header.u16();
    Text out;
    if (header.overran()) return out.bytes("unusable", page).line("bytes", page.size()).take();
    ByteReader in(header.take(std::min(length, header.left())));
    const auto title = [&](std::string_view name) { out.line("page", fmt::format("{:02x}h {}", code, name)); };
    switch (code) {
        case 0x00:
            title("supported pages");
            out.bytes("pages", in.take(in.left()));
            break;
        case 0x80:
            title("unit serial number");
            out.line("serial number", printable(in.take(in.left())));
            break;
        case 0x83:
            title("device identification");
            while (in.left() >= 4) designator(out, in);
            break;
        case 0xb0:
            title("block limits");
            block_limits(out, in);
            break;
        case 0xb1:
            title("block device characteristics");
            characteristics(out, in);
            break;
        case 0xb2:
            title("logical block provisioning");
            provisioning(out, in);
            break;
        default:
            out.line("page", fmt::format("{:02x}h", code));
            out.bytes("bytes", in.take(in.left()));
            break;
    }
    return out.take();
}

std::string mode_text(std::span<const std::byte> data) {
    Text out;
    ByteReader in(data);
    const std::size_t told = std::size_t{in.u16()} + 2;
    const unsigned medium_type = in.u8(), specific = in.u8();
    in.skip(2);
    const std::size_t descriptors = in.u16();
    if (in.overran()) return out.bytes("unusable", data).line("bytes", data.size()).take();
    out.line("medium type", medium_type).bit("write protected (WP)", specific, 0x80);
    out.bit("DPO and FUA (DPOFUA)", specific, 0x10);
    const std::size_t left = std::min(in.left(), told > 8 ? told - 8 : 0);
    ByteReader pages(in.take(left));
    out.bytes("block descriptors", pages.take(std::min(descriptors, pages.left())));
    while (pages.left() >= 2) {
        const unsigned code = pages.u8();
        const bool has_subpage = (code & 0x40) != 0;
        const unsigned subpage = has_subpage ? pages.u8() : 0;
        const std::size_t bytes = has_subpage ? pages.u16() : pages.u8();
        mode_page(out, code & 0x3f, subpage, pages.take(std::min(bytes, pages.left())));
    }
    return out.take();
}

}  // namespace srpfs::scsi
