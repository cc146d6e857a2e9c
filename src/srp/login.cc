// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Login request, response and reject: the private data of connect request, reply and reject.
#include <srpfs/base/assert.h>
#include <srpfs/srp/srp.h>

#include <fmt/format.h>

namespace srpfs::srp {
namespace {

constexpr std::uint8_t action_mask = 0x03, immediate_data_flag = 0x80;

std::size_t finish(const ByteWriter& out, std::size_t expected) {
    SRPFS_ASSERT(!out.overran());
    SRPFS_ASSERT(out.position() == expected);
    return expected;
}

std::uint8_t request_flags(const LoginRequest& login) {
    return static_cast<std::uint8_t>(static_cast<unsigned>(login.multi_channel) |
                                     (login.immediate_data ? immediate_data_flag : 0u));
}

}  // namespace

const char* to_string(WireFault fault) {
    switch (fault) {
        case WireFault::none: return "no fault";
        case WireFault::truncated: return "truncated";
        case WireFault::wrong_opcode: return "wrong opcode";
        case WireFault::bad_length: return "lengths disagree";
        case WireFault::bad_format: return "bad data buffer format";
        case WireFault::bad_value: return "reserved value";
    }
    return "unknown fault";
}

std::size_t encode(const LoginRequest& login, LoginForm form, std::span<std::byte> buffer) {
    ByteWriter out(buffer);
    switch (form) {
        case LoginForm::ib_cm:
            out.u8(byte_of(Opcode::login_request)).zeros(7).u64(login.tag);
            out.u32(login.it_iu_bytes_max).zeros(4);
            out.u16(login.buffer_formats).u8(request_flags(login)).zeros(1);
            out.u16(login.immediate_data_offset).zeros(2);
            out.bytes(login.initiator_port).bytes(login.target_port);
            return finish(out, login_request_ib_bytes);
        case LoginForm::rdma_cm:
            out.u64(login.tag);
            out.u16(login.buffer_formats).u8(request_flags(login)).u8(byte_of(Opcode::login_request));
            out.u32(login.it_iu_bytes_max);
            out.bytes(login.initiator_port).bytes(login.target_port);
            out.u16(login.immediate_data_offset).zeros(6);
            return finish(out, login_request_rdma_bytes);
    }
    SRPFS_ASSERT(false);  // no such form
    return 0;
}

Parsed<LoginRequest> parse_login_request(std::span<const std::byte> bytes, LoginForm form) {
    ByteReader in(bytes);
    LoginRequest login;
    std::uint8_t opcode = 0, flags = 0;
    switch (form) {
        case LoginForm::ib_cm:
            opcode = in.u8();
            in.skip(7);
            login.tag = in.u64();
            login.it_iu_bytes_max = in.u32();
            in.skip(4);
            login.buffer_formats = in.u16();
            flags = in.u8();
            in.skip(1);
            login.immediate_data_offset = in.u16();
            in.skip(2);
            login.initiator_port = in.array<16>();
            login.target_port = in.array<16>();
            break;
        case LoginForm::rdma_cm:
            login.tag = in.u64();
            login.buffer_formats = in.u16();
            flags = in.u8();
            opcode = in.u8();
            login.it_iu_bytes_max = in.u32();
            login.initiator_port = in.array<16>();
            login.target_port = in.array<16>();
            login.immediate_data_offset = in.u16();
            in.skip(6);
            break;
    }
    if (in.overran()) return {login, WireFault::truncated};
    if (opcode != byte_of(Opcode::login_request)) return {login, WireFault::wrong_opcode};
    if ((flags & action_mask) > static_cast<unsigned>(MultiChannel::multi)) return {login, WireFault::bad_value};
    login.multi_channel = static_cast<MultiChannel>(flags & action_mask);
    login.immediate_data = (flags & immediate_data_flag) != 0;
    return {login};
}

std::size_t encode(const LoginResponse& response, std::span<std::byte> buffer) {
    const auto flags = static_cast<std::uint8_t>(static_cast<unsigned>(response.multi_channel) |
                                                 (response.immediate_data ? immediate_data_flag : 0u));
    ByteWriter out(buffer);
    out.u8(byte_of(Opcode::login_response)).zeros(3).i32(response.credits).u64(response.tag);
    out.u32(response.it_iu_bytes_max).u32(response.ti_iu_bytes_max);
    out.u16(response.buffer_formats).u8(flags).zeros(25);
    return finish(out, login_response_bytes);
}

Parsed<LoginResponse> parse_login_response(std::span<const std::byte> bytes) {
    ByteReader in(bytes);
    LoginResponse response;
    const std::uint8_t opcode = in.u8();
    in.skip(3);
    response.credits = in.i32();
    response.tag = in.u64();
    response.it_iu_bytes_max = in.u32();
    response.ti_iu_bytes_max = in.u32();
    response.buffer_formats = in.u16();
    const std::uint8_t flags = in.u8();
    in.skip(25);
    if (in.overran()) return {response, WireFault::truncated};
    if (opcode != byte_of(Opcode::login_response)) return {response, WireFault::wrong_opcode};
    // Old targets leave garbage in this byte, and nothing depends on the result: a reserved value is no reason to
    // lose the login.
    const unsigned result = flags & action_mask;
    if (result <= static_cast<unsigned>(MultiChannelResult::maintained))
        response.multi_channel = static_cast<MultiChannelResult>(result);
    response.immediate_data = (flags & immediate_data_flag) != 0;
    return {response};
}

std::size_t encode(const LoginReject& reject, std::span<std::byte> buffer) {
    ByteWriter out(buffer);
    out.u8(byte_of(Opcode::login_reject)).zeros(3).u32(static_cast<std::uint32_t>(reject.reason)).u64(reject.tag);
    out.zeros(8).u16(reject.buffer_formats).zeros(6);
    return finish(out, login_reject_bytes);
}

Parsed<LoginReject> parse_login_reject(std::span<const std::byte> bytes) {
    ByteReader in(bytes);
    LoginReject reject;
    const std::uint8_t opcode = in.u8();
    in.skip(3);
    reject.reason = static_cast<RejectReason>(in.u32());
    reject.tag = in.u64();
    in.skip(8);
    reject.buffer_formats = in.u16();
    in.skip(6);
    if (in.overran()) return {reject, WireFault::truncated};
    if (opcode != byte_of(Opcode::login_reject)) return {reject, WireFault::wrong_opcode};
    return {reject};
}

namespace {

struct Explanation {
    std::string_view meaning;
    std::string hint;
};

// Of a GID-named port (srp-targets 1.2).
std::string acl_name(const PortId* initiator_port) {
    if (!initiator_port)
        return "the initiator port id (0x and 32 hex digits: initiator_ext, then the local port's GUID)";
    std::string name = "0x";
    for (const std::byte one : *initiator_port) name += fmt::format("{:02x}", std::to_integer<unsigned>(one));
    return name;
}

Explanation explain(RejectReason reason, const PortId* initiator_port) {
    switch (reason) {
        case RejectReason::unspecified:
            return {"it cannot establish the channel and gives no reason", "look into the target's log"};
        case RejectReason::insufficient_resources:
            return {"insufficient resources",
                    "on LIO this usually means that the target port is not enabled (write 1 to its \"enable\" file); "
                    "otherwise the target is out of memory or queue pairs: use a smaller ch_count or queue_size"};
        case RejectReason::it_iu_too_large:
            return {"the requested maximum information unit length does not suit it (too large, or below 64 bytes)",
                    "use use_imm_data=0 and a smaller cmd_sg_entries, or set max_it_iu_size to what the target takes "
                    "(LIO: its module parameter srp_max_req_size; old targets: 2116, 2132 or 4148)"};
        case RejectReason::no_association:
            return {"no such target port",
                    "check id_ext and ioc_guid: on LIO and SCST both must equal the target's service GUID (by default "
                    "the node GUID of its first HCA)"};
        case RejectReason::descriptor_format_unsupported:
            return {"it does not support the data buffer descriptor formats asked for (direct and indirect)",
                    "the target is not one srpfs can work with"};
        case RejectReason::multi_channel_unsupported: return {"it does not support several channels", "use ch_count=1"};
        case RejectReason::channel_limit:
            return {
                "channel limit reached",
                "on LIO this usually means that no ACL on the target names this initiator: create one under "
                "/sys/kernel/config/target/srpt/<port>/<tpg>/acls/. If <port> has the form of a GID, its name is " +
                    acl_name(initiator_port) +
                    "; if <port> has the form of a GUID, it is the initiator's port GUID (xxxx:xxxx:xxxx:xxxx) for a "
                    "dgid login and the target's own IP address, as in dest, for a dest login. If the ACL exists, "
                    "use a smaller ch_count"};
    }
    return {};
}

Explanation explain_cm(int reason) {
    switch (reason) {
        case 1:
            return {"no queue pair available",
                    "the target is out of queue pairs: use a smaller ch_count, or log out other initiators"};
        case 2:
            return {"no end-to-end context available",
                    "the target's HCA is short of resources: use a smaller ch_count"};
        case 3:
            return {"no resources available",
                    "the target is usually out of queue pairs because of too many channels: use a smaller ch_count"};
        case 4:
            return {"time-out",
                    "the target did not finish the connection in time: check its load and the path, then try again"};
        case 5:
            return {"unsupported request",
                    "the peer does not understand this kind of connect request; check dest or dgid"};
        case 6: return {"invalid communication id", "this may be left over from an earlier attempt: try again"};
        case 7: return {"invalid communication instance", "this may be left over from an earlier attempt: try again"};
        case 8:
            return {
                "invalid service id: nobody listens there",
                "check the port in dest or the service_id, that the target is enabled, and for a dest login that LIO's "
                "discovery_auth/rdma_cm_port is set to that port"};
        case 9:
            return {"invalid transport service type",
                    "the target does not take reliable connections there; check the service_id"};
        case 10:
            return {"stale connection",
                    "the target still holds an old connection of this host; it is dropping it now: try again in some "
                    "seconds"};
        case 11: return {"RDC does not exist", "the target's HCA refuses this transport; check dest or dgid"};
        case 12: return {"primary remote port GID rejected", "check dgid: it is not a port of the target"};
        case 13:
            return {"primary remote port LID rejected", "the subnet manager may have renumbered the fabric: try again"};
        case 14:
            return {"invalid primary service level",
                    "ask the subnet administrator which service level this path may use"};
        case 15: return {"invalid primary traffic class", "check the quality-of-service settings of the fabric"};
        case 16: return {"invalid primary hop limit", "the path crosses routers that the target does not accept"};
        case 17:
            return {"invalid primary packet rate",
                    "the target cannot take the path's rate; check cable and port speed"};
        case 24:
        case 25:
            return {
                "redirected to another port",
                "user space cannot follow such a redirect: log in with the address of the port that serves the target"};
        case 26: return {"invalid path MTU", "make the MTU of both ends equal"};
        case 27:
            return {"insufficient responder resources", "the target's HCA allows no remote reads; check its limits"};
        case 28:
            return {
                "rejected by the program listening there",
                "it sent no SRP login reject with it, so it may not be an SRP target: check the port in dest or the "
                "service_id"};
        case 29: return {"RNR retry count rejected", "the target's HCA refuses these connection parameters"};
        case 30: return {"duplicate local communication id", "try again"};
        case 31: return {"invalid class version", "the two connection managers do not understand each other"};
        case 32: return {"invalid flow label", "check the quality-of-service settings of the fabric"};
        case 33: return {"invalid alternate flow label", "check the quality-of-service settings of the fabric"};
        default: return {};
    }
}

}  // namespace

std::string describe(RejectReason reason, const PortId* initiator_port) {
    const Explanation explanation = explain(reason, initiator_port);
    const auto number = static_cast<std::uint32_t>(reason);
    if (explanation.meaning.empty())
        return fmt::format(
            "The target rejected the login with a reason this program does not know (0x{:08x}); "
            "look into the target's log.",
            number);
    return fmt::format("The target rejected the login: {} (0x{:08x}); {}.", explanation.meaning, number,
                       explanation.hint);
}

std::string describe_cm_reject(int reason) {
    const Explanation explanation = explain_cm(reason);
    if (explanation.meaning.empty())
        return fmt::format(
            "The peer's connection manager rejected the connection with a reason this program does not "
            "know (REJ {}); look into the target's log.",
            reason);
    return fmt::format("The peer's connection manager rejected the connection: {} (REJ {}); {}.", explanation.meaning,
                       reason, explanation.hint);
}

}  // namespace srpfs::srp
