// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Addresses as the RDMA connection manager wants them. Pure: nothing here touches a device.

#pragma once

#include <srpfs/fabric/fabric.h>

#include <rdma/rdma_cma.h>

#include <infiniband/ib.h>

namespace srpfs::fabric::verbs {

// Private data that fits into a message of the connection manager, in bytes. With IP addresses the kernel puts its own
// 36-byte header before the request's (IBTA annex A11); answers have none.
inline constexpr std::size_t ip_request_bytes_max = 56;
inline constexpr std::size_t ib_request_bytes_max = 92;
inline constexpr std::size_t reply_bytes_max = 196;
inline constexpr std::size_t reject_bytes_max = 148;

// What an rdma_cm_id is created and resolved (or bound) with.
struct CmAddress {
    rdma_port_space port_space = RDMA_PS_TCP;
    sockaddr_storage destination{};  // to bind to, for a listener
    std::optional<sockaddr_storage> source;
    std::size_t request_bytes_max = ip_request_bytes_max;
};

// `gid` and `service_id` as in the arguments, in network order inside the result; the mask covers the whole service id,
// or nothing when `service_id` is 0 (the kernel picks one).
[[nodiscard]] sockaddr_ib ib_socket_address(const Gid& gid, std::uint16_t pkey, std::uint64_t service_id);

// Error: a kind of address that is not for this network, or an IP address that is none.
Result<CmAddress> cm_address(const Address& address);
// The same for a listener: an IbAddress is bound to by its source GID.
Result<CmAddress> cm_listen_address(const Address& address);

// "10.9.9.1:4711" of what the connection manager knows a peer by.
[[nodiscard]] std::string to_string(const sockaddr* address);

}  // namespace srpfs::fabric::verbs
