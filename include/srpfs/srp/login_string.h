// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The add_target grammar: what ibsrpdm -c prints and administrators type ("id_ext=...,ioc_guid=...,dest=...").
// Keys, ranges and defaults as in the kernel's ib_srp (srp-admin 1), with its defects left out.

#pragma once

#include <srpfs/base/result.h>
#include <srpfs/srp/srp.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace srpfs::srp {

enum class IoClass : std::uint16_t { rev10 = 0xff00, rev16a = 0x0100 };

struct IbDestination {
    std::array<std::byte, 16> dgid{};
    std::uint16_t pkey = 0;
    std::uint64_t service_id = 0;
    bool operator==(const IbDestination&) const = default;
};
// `host` is a numeric address without brackets, with %scope if given, or a loopback network name ("demo", port 0).
struct IpDestination {
    std::string host;
    std::uint16_t port = 0;
    bool operator==(const IpDestination&) const = default;
};

struct LoginParameters {
    std::uint64_t id_ext = 0;
    std::uint64_t ioc_guid = 0;
    std::uint64_t initiator_ext = 0;
    std::optional<IbDestination> ib;  // exactly one of ib and dest is set
    std::optional<IpDestination> dest;
    std::optional<IpDestination> src;  // port 0: any
    IoClass io_class = IoClass::rev16a;
    unsigned max_sect = 1024;       // 512-byte sectors per command, >= 1
    unsigned queue_size = 62;       // outstanding commands per channel, >= 1
    unsigned max_cmd_per_lun = 62;  // queue_size unless given
    unsigned target_can_queue = 0;  // 0: no limit
    unsigned cmd_sg_entries = 12;   // 1..255
    bool allow_ext_sg = false;      // accepted and shown; srpfs sends single direct descriptors only
    unsigned sg_tablesize = 12;     // 1..2048
    unsigned comp_vector = 0;
    unsigned tl_retry_count = 7;  // 2..7
    unsigned max_it_iu_size = 0;  // 0: no cap
    unsigned ch_count = 0;        // 0: automatic
    // srpfs's own keys; the last two after ib_srp's module parameters
    std::optional<std::uint8_t> ack_timeout;  // local ACK timeout, 4.096 us * 2^n, 1..31; 0 would mean for ever
    bool use_imm_data = true;
    unsigned max_imm_data = 8192;  // 0..65536

    bool operator==(const LoginParameters&) const = default;
};

// Items separated by ',' or newline, empty items skipped, order free, the last one wins, blanks around trimmed.
// EINVAL with a sentence naming the key, what is wrong with its value, its range and the position.
Result<LoginParameters> parse_login_string(std::string_view text);
// The canonical string: mandatory keys first, then those that differ from the defaults. Parses to the same parameters.
std::string to_login_string(const LoginParameters& parameters);
// One key a line: name, syntax, range, default, effect. What reading add_target shows.
std::string login_grammar();

// `port_guid`: interface id of GID 0 of the local port. Topspin and Cisco targets (native InfiniBand, by the vendor
// part of their ioc_guid) want eight zero bytes and the node GUID instead, as ib_srp's topspin_workarounds gives them.
PortId initiator_port_id(const LoginParameters& parameters, std::uint64_t port_guid, std::uint64_t node_guid);
PortId target_port_id(const LoginParameters& parameters);
// The requested maximum I>T IU length (srp-wire 6).
std::uint32_t requested_it_iu_bytes(const LoginParameters& parameters);

}  // namespace srpfs::srp
