// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/scsi/scsi.h>

#include <fmt/format.h>

namespace srpfs::scsi {
namespace {

constexpr unsigned fixed_current = 0x70, fixed_deferred = 0x71, descriptor_current = 0x72, descriptor_deferred = 0x73;

struct AdditionalSense {
    std::uint8_t asc, ascq;
    std::string_view text;
};

// Those a disk initiator meets, by SPC-4 annex F; ordered by code.
constexpr AdditionalSense additional_senses[] = {
    {0x00, 0x00, "no additional sense information"},
    {0x04, 0x00, "not ready, cause not reportable"},
    {0x04, 0x01, "becoming ready"},
    {0x04, 0x02, "not ready, initializing command required"},
    {0x04, 0x03, "not ready, manual intervention required"},
    {0x04, 0x04, "not ready, format in progress"},
    {0x04, 0x0a, "not accessible, asymmetric access state transition"},
    {0x04, 0x0b, "not accessible, target port in standby state"},
    {0x04, 0x0c, "not accessible, target port in unavailable state"},
    {0x08, 0x00, "logical unit communication failure"},
    {0x08, 0x01, "logical unit communication time-out"},
    {0x0c, 0x00, "write error"},
    {0x0e, 0x03, "invalid field in command information unit (data length differs from what the CDB says)"},
    {0x10, 0x00, "identifier CRC or ECC error"},
    {0x10, 0x01, "logical block guard check failed"},
    {0x10, 0x02, "logical block application tag check failed"},
    {0x10, 0x03, "logical block reference tag check failed"},
    {0x11, 0x00, "unrecovered read error"},
    {0x13, 0x00, "address mark not found for data field"},
    {0x14, 0x00, "recorded entity not found"},
    {0x1a, 0x00, "parameter list length error"},
    {0x1d, 0x00, "miscompare during verify operation"},
    {0x20, 0x00, "invalid command operation code"},
    {0x21, 0x00, "logical block address out of range"},
    {0x24, 0x00, "invalid field in CDB"},
    {0x25, 0x00, "logical unit not supported"},
    {0x26, 0x00, "invalid field in parameter list"},
    {0x27, 0x00, "write protected"},
    {0x27, 0x07, "space allocation failed, write protect"},
    {0x28, 0x00, "not ready to ready change, medium may have changed"},
    {0x29, 0x00, "power on, reset, or bus device reset occurred"},
    {0x29, 0x01, "power on occurred"},
    {0x29, 0x02, "SCSI bus reset occurred"},
    {0x29, 0x03, "bus device reset function occurred"},
    {0x29, 0x04, "device internal reset"},
    {0x29, 0x07, "I_T nexus loss occurred"},
    {0x2a, 0x00, "parameters changed"},
    {0x2a, 0x01, "mode parameters changed"},
    {0x2a, 0x03, "reservations preempted"},
    {0x2a, 0x04, "reservations released"},
    {0x2a, 0x05, "registrations preempted"},
    {0x2a, 0x06, "asymmetric access state changed"},
    {0x2a, 0x09, "capacity data has changed"},
    {0x2c, 0x00, "command sequence error"},
    {0x2f, 0x00, "commands cleared by another initiator"},
    {0x31, 0x00, "medium format corrupted"},
    {0x38, 0x07, "thin provisioning soft threshold reached"},
    {0x3a, 0x00, "medium not present"},
    {0x3e, 0x00, "logical unit has not self-configured yet"},
    {0x3e, 0x01, "logical unit failure"},
    {0x3f, 0x00, "target operating conditions have changed"},
    {0x3f, 0x03, "INQUIRY data has changed"},
    {0x3f, 0x05, "device identifier changed"},
    {0x3f, 0x0e, "reported LUNs data has changed"},
    {0x44, 0x00, "internal target failure"},
    {0x47, 0x00, "SCSI parity error"},
    {0x49, 0x00, "invalid message error"},
    {0x4b, 0x00, "data phase error"},
    {0x4e, 0x00, "overlapped commands attempted"},
    {0x55, 0x03, "insufficient resources"},
    {0x5d, 0x00, "failure prediction threshold exceeded"},
};

std::string_view text_of(std::uint8_t asc, std::uint8_t ascq) {
    for (const auto& known : additional_senses)
        if (known.asc == asc && known.ascq == ascq) return known.text;
    return {};
}

std::string_view text_of(SenseKey key) {
    switch (key) {
        case SenseKey::no_sense: return "NO SENSE";
        case SenseKey::recovered_error: return "RECOVERED ERROR";
        case SenseKey::not_ready: return "NOT READY";
        case SenseKey::medium_error: return "MEDIUM ERROR";
        case SenseKey::hardware_error: return "HARDWARE ERROR";
        case SenseKey::illegal_request: return "ILLEGAL REQUEST";
        case SenseKey::unit_attention: return "UNIT ATTENTION";
        case SenseKey::data_protect: return "DATA PROTECT";
        case SenseKey::blank_check: return "BLANK CHECK";
        case SenseKey::vendor_specific: return "VENDOR SPECIFIC";
        case SenseKey::copy_aborted: return "COPY ABORTED";
        case SenseKey::aborted_command: return "ABORTED COMMAND";
        case SenseKey::reserved_c: return "RESERVED";
        case SenseKey::volume_overflow: return "VOLUME OVERFLOW";
        case SenseKey::miscompare: return "MISCOMPARE";
        case SenseKey::completed: return "COMPLETED";
    }
    return "UNKNOWN";
}

SenseKey key_of(std::uint8_t byte) { return static_cast<SenseKey>(byte & 0x0f); }

// Fixed format, after the response code: segment (1), key (1), information (4), additional length (1),
// command-specific (4), ASC, ASCQ. Bytes beyond the additional length are not sense data.
Sense parse_fixed(std::span<const std::byte> data, bool deferred) {
    if (data.size() < 3) return {};
    if (data.size() > 7)
        data = data.first(std::min(data.size(), std::size_t{8} + std::to_integer<std::size_t>(data[7])));
    ByteReader in(data);
    in.skip(2);
    Sense sense{.valid = true, .deferred = deferred, .key = key_of(in.u8())};
    in.skip(9);
    sense.asc = in.u8();
    sense.ascq = in.u8();
    return sense;
}

// Descriptor format, after the response code: key, ASC, ASCQ; the descriptors add nothing a disk initiator acts on.
Sense parse_descriptor(std::span<const std::byte> data, bool deferred) {
    if (data.size() < 2) return {};
    ByteReader in(data);
    in.skip(1);
    Sense sense{.valid = true, .deferred = deferred, .key = key_of(in.u8())};
    sense.asc = in.u8();
    sense.ascq = in.u8();
    return sense;
}

}  // namespace

Sense parse_sense(std::span<const std::byte> data) {
    if (data.empty()) return {};
    const unsigned response_code = std::to_integer<unsigned>(data[0]) & 0x7f;
    switch (response_code) {
        case fixed_current: return parse_fixed(data, false);
        case fixed_deferred: return parse_fixed(data, true);
        case descriptor_current: return parse_descriptor(data, false);
        case descriptor_deferred: return parse_descriptor(data, true);
        default: return {};
    }
}

std::array<std::byte, 18> encode_fixed_sense(SenseKey key, std::uint8_t asc, std::uint8_t ascq) {
    std::array<std::byte, 18> bytes{};
    ByteWriter out(bytes);
    out.u8(fixed_current).zeros(1).u8(static_cast<std::uint8_t>(key)).zeros(4);
    out.u8(10);  // additional sense length: bytes 8..17
    out.zeros(4).u8(asc).u8(ascq).zeros(4);
    return bytes;
}

std::string describe(const Sense& sense) {
    if (!sense.valid) return "no sense data";
    const std::string_view text = text_of(sense.asc, sense.ascq);
    return fmt::format("{}{}{}{} ({:x}/{:02x}/{:02x})", sense.deferred ? "deferred " : "", text_of(sense.key),
                       text.empty() ? "" : ": ", text, static_cast<unsigned>(sense.key), sense.asc, sense.ascq);
}

std::string_view describe(Status status) {
    switch (status) {
        case Status::good: return "GOOD";
        case Status::check_condition: return "CHECK CONDITION";
        case Status::condition_met: return "CONDITION MET";
        case Status::busy: return "BUSY";
        case Status::reservation_conflict: return "RESERVATION CONFLICT";
        case Status::task_set_full: return "TASK SET FULL";
        case Status::aca_active: return "ACA ACTIVE";
        case Status::task_aborted: return "TASK ABORTED";
    }
    return "unknown SCSI status";
}

}  // namespace srpfs::scsi
