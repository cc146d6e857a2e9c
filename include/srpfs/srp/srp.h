// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// SRP information units to and from bytes (T10 SRP r16a; immediate data per SRP-2 as the Linux drivers speak it).
// Pure. Everything parsed comes from a peer: lengths are compared, never trusted.

#pragma once

#include <srpfs/base/bytes.h>
#include <srpfs/scsi/scsi.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace srpfs::srp {

enum class Opcode : std::uint8_t {
    login_request = 0x00,
    task_management = 0x01,
    command = 0x02,
    initiator_logout = 0x03,
    credit_response = 0x41,
    async_event_response = 0x42,
    target_logout = 0x80,
    credit_request = 0x81,
    async_event_request = 0x82,
    login_response = 0xc0,
    response = 0xc1,
    login_reject = 0xc2,
};
inline constexpr std::uint8_t byte_of(Opcode opcode) { return static_cast<std::uint8_t>(opcode); }  // byte 0

using Tag = std::uint64_t;  // opaque to the peer
using PortId = std::array<std::byte, 16>;

inline constexpr std::uint16_t format_direct = 0x0002, format_indirect = 0x0004;
inline constexpr std::uint16_t immediate_data_offset = 68;  // 48 + descriptor 16 + count 4, as ib_srp asks
inline constexpr std::size_t command_bytes = 48, task_management_bytes = 48, response_bytes = 36,
                             login_request_ib_bytes = 64, login_request_rdma_bytes = 56, login_response_bytes = 52,
                             login_reject_bytes = 32, descriptor_bytes = 16;

// Why bytes are not the information unit they should be.
enum class WireFault { none, truncated, wrong_opcode, bad_length, bad_format, bad_value };
[[nodiscard]] const char* to_string(WireFault fault);

template <typename T>
struct Parsed {
    T value{};
    WireFault fault = WireFault::none;
    explicit operator bool() const { return fault == WireFault::none; }
    const T* operator->() const { return &value; }
    const T& operator*() const { return value; }
};

// ---- login (connection-manager private data) ----

enum class LoginForm { ib_cm, rdma_cm };  // 64 bytes, 56 bytes
enum class MultiChannel : std::uint8_t { single = 0, multi = 1 };

struct LoginRequest {
    Tag tag = 0;
    std::uint32_t it_iu_bytes_max = 0;  // requested maximum initiator-to-target IU length
    std::uint16_t buffer_formats = format_direct | format_indirect;
    MultiChannel multi_channel = MultiChannel::single;
    bool immediate_data = false;
    std::uint16_t immediate_data_offset = 0;
    PortId initiator_port{};
    PortId target_port{};
    bool operator==(const LoginRequest&) const = default;
};
// All encoders: reserved bytes are written as zeros, `buffer` must hold the result, the bytes written are returned.
// All parsers: reserved bytes are ignored, bytes after the unit as well (private data arrives padded). With a fault the
// value holds what had been read, which is for the log unless a parser promises more.

// Returns 64 or 56. Bad_value: a reserved multi-channel action.
std::size_t encode(const LoginRequest& login, LoginForm form, std::span<std::byte> buffer);
Parsed<LoginRequest> parse_login_request(std::span<const std::byte> bytes, LoginForm form);

enum class MultiChannelResult : std::uint8_t { none_existed = 0, terminated = 1, maintained = 2 };
struct LoginResponse {
    std::int32_t credits = 0;  // request limit delta
    Tag tag = 0;
    std::uint32_t it_iu_bytes_max = 0;
    std::uint32_t ti_iu_bytes_max = 0;
    std::uint16_t buffer_formats = 0;
    MultiChannelResult multi_channel = MultiChannelResult::none_existed;
    bool immediate_data = false;  // honour only when asked for (srp-wire 2.3)
    bool operator==(const LoginResponse&) const = default;
};
std::size_t encode(const LoginResponse& response, std::span<std::byte> buffer);
// A reserved multi-channel result reads as none_existed: old targets leave garbage there. Credits and lengths come as
// they are, for the caller to judge.
Parsed<LoginResponse> parse_login_response(std::span<const std::byte> bytes);

enum class RejectReason : std::uint32_t {
    unspecified = 0x00010000,
    insufficient_resources = 0x00010001,
    it_iu_too_large = 0x00010002,
    no_association = 0x00010003,
    descriptor_format_unsupported = 0x00010004,
    multi_channel_unsupported = 0x00010005,
    channel_limit = 0x00010006,
};
struct LoginReject {
    RejectReason reason = RejectReason::unspecified;  // may hold a value that has no enumerator
    Tag tag = 0;
    std::uint16_t buffer_formats = 0;
    bool operator==(const LoginReject&) const = default;
};
std::size_t encode(const LoginReject& reject, std::span<std::byte> buffer);
Parsed<LoginReject> parse_login_reject(std::span<const std::byte> bytes);
// A sentence with a hint: what the target said, what it usually means (LIO answers "channel limit reached" to a missing
// ACL), what to do. With the initiator port id of the login request the name of the missing ACL is spelled out.
std::string describe(RejectReason reason, const PortId* initiator_port = nullptr);
// The same for an IBTA connection-manager reject reason (3: the target is out of queue pairs, use a smaller ch_count;
// 8: no listener at that service id or port; 10: stale connection; 28: consumer defined; ...).
std::string describe_cm_reject(int reason);

// ---- commands ----

struct Descriptor {
    std::uint64_t address = 0;
    std::uint32_t key = 0;
    std::uint32_t length = 0;
    bool operator==(const Descriptor&) const = default;
};
enum class DataDirection : std::uint8_t { none, from_target, to_target };
enum class TaskAttribute : std::uint8_t { simple = 0, head_of_queue = 1, ordered = 2, aca = 4 };

// What an initiator sends. CDBs of up to 16 bytes; one direct descriptor, or immediate data, or neither.
struct CommandHead {
    Tag tag = 0;
    scsi::Lun lun{};
    TaskAttribute attribute = TaskAttribute::simple;
    scsi::Cdb cdb{};
    DataDirection direction = DataDirection::none;
    std::optional<Descriptor> descriptor;  // direction != none and not immediate
    // Immediate data (direction to_target): the head is padded to the negotiated offset, the payload follows it.
    std::optional<std::uint32_t> immediate_bytes;
    std::uint16_t immediate_offset = srp::immediate_data_offset;
};
// Returns the bytes of the head: 48, 64, or immediate_offset. `buffer` must hold them (128 is always enough).
std::size_t encode(const CommandHead& command, std::span<std::byte> buffer);

// What a target makes of a received SRP_CMD, any format it may carry.
struct ReceivedCommand {
    Tag tag = 0;
    scsi::Lun lun{};
    TaskAttribute attribute = TaskAttribute::simple;  // unknown values read as ordered
    std::span<const std::byte> cdb;                   // 16 bytes plus additional CDB; into the parsed bytes
    DataDirection direction = DataDirection::none;
    std::vector<Descriptor> descriptors;  // direct: one; indirect: the inline list
    std::uint64_t data_bytes = 0;         // total the descriptors (or the immediate data) cover
    bool immediate = false;
    std::span<const std::byte> immediate_data;  // into the parsed bytes
};
// `immediate_offset` as negotiated at login, 0 when immediate data was not. Partial inline lists, zero-length
// descriptors, counts that disagree, both directions at once: bad_format / bad_length; tag, lun, attribute, cdb and
// direction (none for both at once) are valid then, so that the command can be answered (CHECK CONDITION).
Parsed<ReceivedCommand> parse_command(std::span<const std::byte> bytes, std::uint16_t immediate_offset);
// The same into a `command` that has been used before, whose vector keeps its memory.
WireFault parse_command(std::span<const std::byte> bytes, std::uint16_t immediate_offset, ReceivedCommand& command);

// ---- task management ----

enum class TaskFunction : std::uint8_t {
    abort_task = 0x01,
    abort_task_set = 0x02,
    clear_task_set = 0x04,
    lun_reset = 0x08,
    clear_aca = 0x40,
};
struct TaskManagement {
    Tag tag = 0;
    scsi::Lun lun{};
    TaskFunction function = TaskFunction::abort_task;
    Tag managed_tag = 0;
    bool operator==(const TaskManagement&) const = default;
};
std::size_t encode(const TaskManagement& request, std::span<std::byte> buffer);
// Bad_value: an unknown function; tag, lun and managed_tag are valid then (answer TaskCode::not_supported).
Parsed<TaskManagement> parse_task_management(std::span<const std::byte> bytes);

// ---- responses ----

enum class TaskCode : std::uint8_t {
    complete = 0x00,
    request_fields_invalid = 0x02,
    not_supported = 0x04,
    failed = 0x05
};
struct Response {
    std::int32_t credit_delta = 0;
    Tag tag = 0;
    scsi::Status status = scsi::Status::good;
    std::optional<TaskCode> task_code;  // response data with at least four bytes; reserved codes read as failed
    bool response_valid = false;        // RSPVALID set, even when the data is too short
    bool data_in_under = false, data_in_over = false, data_out_under = false, data_out_over = false;
    std::uint32_t data_in_residual = 0, data_out_residual = 0;
    std::span<const std::byte> sense;  // into the parsed bytes; empty when absent or when its length lies
};
// Lengths beyond the received bytes drop the sense data and keep the status (srp-wire 11).
Parsed<Response> parse_response(std::span<const std::byte> bytes);
std::size_t encode(const Response& response, std::span<std::byte> buffer);  // 36 + response data + sense
// The same of a Response in which only these two are set.
std::size_t encode_good(std::int32_t credit_delta, Tag tag, std::span<std::byte> buffer);

// ---- the rest ----

struct CreditRequest {
    std::int32_t credit_delta = 0;
    Tag tag = 0;
};
struct AsyncEvent {
    std::int32_t credit_delta = 0;
    Tag tag = 0;
    scsi::Lun lun{};
    std::span<const std::byte> sense;
};
struct TargetLogout {
    std::uint32_t reason = 0;
    Tag tag = 0;
};
// Sense data whose length goes beyond the received bytes is dropped.
Parsed<CreditRequest> parse_credit_request(std::span<const std::byte> bytes);
Parsed<AsyncEvent> parse_async_event(std::span<const std::byte> bytes);
Parsed<TargetLogout> parse_target_logout(std::span<const std::byte> bytes);
std::size_t encode(const CreditRequest& request, std::span<std::byte> buffer);
std::size_t encode(const AsyncEvent& event, std::span<std::byte> buffer);
std::size_t encode(const TargetLogout& logout, std::span<std::byte> buffer);
std::size_t encode_credit_response(Tag tag, std::span<std::byte> buffer);       // 16 bytes
std::size_t encode_async_event_response(Tag tag, std::span<std::byte> buffer);  // 16 bytes
std::string describe_logout_reason(std::uint32_t reason);

}  // namespace srpfs::srp
