// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What travels from target to initiator after login.
#include <srpfs/base/assert.h>
#include <srpfs/srp/srp.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace srpfs::srp {
namespace {

constexpr unsigned response_valid = 0x01, sense_valid = 0x02, data_out_over = 0x04, data_out_under = 0x08,
                   data_in_over = 0x10, data_in_under = 0x20;
constexpr std::uint32_t task_response_bytes = 4;

TaskCode task_code_of(std::uint8_t byte) {
    switch (static_cast<TaskCode>(byte)) {
        case TaskCode::complete: return TaskCode::complete;
        case TaskCode::request_fields_invalid: return TaskCode::request_fields_invalid;
        case TaskCode::not_supported: return TaskCode::not_supported;
        case TaskCode::failed: return TaskCode::failed;
    }
    return TaskCode::failed;  // reserved codes promise nothing
}

struct FixedPart {
    std::uint8_t opcode = 0, flags = 0;
    std::size_t sense_bytes = 0, data_bytes = 0;  // as announced
};

// Of a length that is known, so that the compiler sees that nothing overruns it.
FixedPart read_fixed_part(std::span<const std::byte, response_bytes> bytes, Response& response) {
    ByteReader in(bytes);
    FixedPart fixed;
    fixed.opcode = in.u8();
    in.skip(3);
    response.credit_delta = in.i32();
    response.tag = in.u64();
    in.skip(2);
    fixed.flags = in.u8();
    response.status = static_cast<scsi::Status>(in.u8());
    response.data_out_residual = in.u32();
    response.data_in_residual = in.u32();
    fixed.sense_bytes = in.u32();
    fixed.data_bytes = in.u32();
    return fixed;
}

std::size_t finish(const ByteWriter& out) {
    SRPFS_ASSERT(!out.overran());
    return out.position();
}

// Inline: most of what is known of a response need not be looked at.
[[gnu::always_inline]] inline std::size_t write(const Response& response, std::span<std::byte> buffer) {
    const bool has_data = response.response_valid || response.task_code.has_value();
    const unsigned flags = (has_data ? response_valid : 0) | (response.sense.empty() ? 0 : sense_valid) |
                           (response.data_out_over ? data_out_over : 0) |
                           (response.data_out_under ? data_out_under : 0) | (response.data_in_over ? data_in_over : 0) |
                           (response.data_in_under ? data_in_under : 0);
    const bool overran = buffer.size() < response_bytes;
    SRPFS_ASSERT(!overran);
    // A writer whose length is known to the compiler needs no test for each field.
    ByteWriter out(buffer.first<response_bytes>());
    out.u8(byte_of(Opcode::response)).zeros(3).i32(response.credit_delta).u64(response.tag);
    out.zeros(2).u8(static_cast<std::uint8_t>(flags)).u8(static_cast<std::uint8_t>(response.status));
    out.u32(response.data_out_residual).u32(response.data_in_residual);
    out.u32(static_cast<std::uint32_t>(response.sense.size())).u32(response.task_code ? task_response_bytes : 0);
    if (!response.task_code && response.sense.empty()) [[likely]]
        return finish(out);
    ByteWriter rest(buffer.subspan<response_bytes>());
    if (response.task_code) rest.zeros(3).u8(static_cast<std::uint8_t>(*response.task_code));
    rest.bytes(response.sense);
    return finish(out) + finish(rest);
}

}  // namespace

Parsed<Response> parse_response(std::span<const std::byte> bytes) {
    Parsed<Response> parsed;
    Response& response = parsed.value;
    if (bytes.size() < response_bytes) [[unlikely]] {
        std::array<std::byte, response_bytes> padded{};
        std::copy(bytes.begin(), bytes.end(), padded.begin());
        (void)read_fixed_part(padded, response);
        parsed.fault = WireFault::truncated;
        return parsed;
    }
    const FixedPart fixed = read_fixed_part(bytes.first<response_bytes>(), response);
    if (fixed.opcode != byte_of(Opcode::response)) {
        parsed.fault = WireFault::wrong_opcode;
        return parsed;
    }
    response.response_valid = (fixed.flags & response_valid) != 0;
    response.data_out_over = (fixed.flags & data_out_over) != 0;
    response.data_out_under = (fixed.flags & data_out_under) != 0;
    response.data_in_over = (fixed.flags & data_in_over) != 0;
    response.data_in_under = (fixed.flags & data_in_under) != 0;
    if ((fixed.flags & (response_valid | sense_valid)) == 0) return parsed;

    ByteReader in(bytes.subspan(response_bytes));
    const std::size_t data_bytes = response.response_valid ? fixed.data_bytes : 0;
    if (data_bytes > in.left()) return parsed;
    ByteReader data(in.take(data_bytes));
    data.skip(3);
    const std::uint8_t task_code = data.u8();
    if (!data.overran()) response.task_code = task_code_of(task_code);

    if ((fixed.flags & sense_valid) != 0 && fixed.sense_bytes <= in.left()) response.sense = in.take(fixed.sense_bytes);
    return parsed;
}

std::size_t encode(const Response& response, std::span<std::byte> buffer) { return write(response, buffer); }

std::size_t encode_good(std::int32_t credit_delta, Tag tag, std::span<std::byte> buffer) {
    Response response;
    response.credit_delta = credit_delta;
    response.tag = tag;
    return write(response, buffer);
}

Parsed<CreditRequest> parse_credit_request(std::span<const std::byte> bytes) {
    ByteReader in(bytes);
    CreditRequest request;
    const std::uint8_t opcode = in.u8();
    in.skip(3);
    request.credit_delta = in.i32();
    request.tag = in.u64();
    if (in.overran()) return {request, WireFault::truncated};
    if (opcode != byte_of(Opcode::credit_request)) return {request, WireFault::wrong_opcode};
    return {request};
}

std::size_t encode(const CreditRequest& request, std::span<std::byte> buffer) {
    ByteWriter out(buffer);
    out.u8(byte_of(Opcode::credit_request)).zeros(3).i32(request.credit_delta).u64(request.tag);
    return finish(out);
}

Parsed<AsyncEvent> parse_async_event(std::span<const std::byte> bytes) {
    ByteReader in(bytes);
    AsyncEvent event;
    const std::uint8_t opcode = in.u8();
    in.skip(3);
    event.credit_delta = in.i32();
    event.tag = in.u64();
    in.skip(4);
    event.lun.bytes = in.array<8>();
    const std::size_t sense_bytes = in.u32();
    in.skip(4);
    if (in.overran()) return {event, WireFault::truncated};
    if (opcode != byte_of(Opcode::async_event_request)) return {event, WireFault::wrong_opcode};
    if (sense_bytes <= in.left()) event.sense = in.take(sense_bytes);
    return {event};
}

std::size_t encode(const AsyncEvent& event, std::span<std::byte> buffer) {
    ByteWriter out(buffer);
    out.u8(byte_of(Opcode::async_event_request)).zeros(3).i32(event.credit_delta).u64(event.tag);
    out.zeros(4).bytes(event.lun.bytes);
    out.u32(static_cast<std::uint32_t>(event.sense.size())).zeros(4).bytes(event.sense);
    return finish(out);
}

Parsed<TargetLogout> parse_target_logout(std::span<const std::byte> bytes) {
    ByteReader in(bytes);
    TargetLogout logout;
    const std::uint8_t opcode = in.u8();
    in.skip(3);
    logout.reason = in.u32();
    logout.tag = in.u64();
    if (in.overran()) return {logout, WireFault::truncated};
    if (opcode != byte_of(Opcode::target_logout)) return {logout, WireFault::wrong_opcode};
    return {logout};
}

std::size_t encode(const TargetLogout& logout, std::span<std::byte> buffer) {
    ByteWriter out(buffer);
    out.u8(byte_of(Opcode::target_logout)).zeros(3).u32(logout.reason).u64(logout.tag);
    return finish(out);
}

// Other programs' names for the reasons above 4 contradict each other (srp-wire 3), so they stay vague here.
std::string describe_logout_reason(std::uint32_t reason) {
    std::string_view meaning = "a reason this program does not know";
    switch (reason) {
        case 0: meaning = "no reason given"; break;
        case 1: meaning = "the channel was inactive and its resources are reclaimed"; break;
        case 2: meaning = "it received an information unit of an invalid type"; break;
        case 3: meaning = "it received a response without a matching request"; break;
        case 4: meaning = "another login of the same initiator port replaced this channel"; break;
        case 5:
        case 6:
        case 7:
        case 8:
        case 9: meaning = "it found a data buffer format, count or length invalid"; break;
        default: break;
    }
    return fmt::format("The target asked to log out: {} ({}).", meaning, reason);
}

}  // namespace srpfs::srp
