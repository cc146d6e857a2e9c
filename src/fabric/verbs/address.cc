// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "address.h"

#include <fmt/format.h>

#include <cstring>

namespace srpfs::fabric::verbs {
namespace {

sockaddr_storage stored(const sockaddr_ib& address) {
    sockaddr_storage storage{};
    static_assert(sizeof address == 48 && sizeof address <= sizeof storage);
    std::memcpy(&storage, &address, sizeof address);
    return storage;
}

bool is_ip(const sockaddr_storage& address) { return address.ss_family == AF_INET || address.ss_family == AF_INET6; }

struct ToCmAddress {
    Result<CmAddress> operator()(const IpAddress& address) const {
        if (!is_ip(address.destination)) return Error{EAFNOSUPPORT, "the destination is not an IP address"};
        if (address.source && address.source->ss_family != address.destination.ss_family)
            return Error{EINVAL, "source and destination are IP addresses of different versions"};
        return CmAddress{RDMA_PS_TCP, address.destination, address.source, ip_request_bytes_max};
    }
    Result<CmAddress> operator()(const IbAddress& address) const {
        CmAddress cm{RDMA_PS_IB, {}, std::nullopt, ib_request_bytes_max};
        cm.destination = stored(ib_socket_address(address.destination_gid, address.pkey, address.service_id));
        // Without a source the kernel takes the first port whose GID prefix fits; the exact GID picks ours. The pkey of
        // the path then comes from the source address, so it is in both.
        if (address.source_gid != Gid{}) cm.source = stored(ib_socket_address(address.source_gid, address.pkey, 0));
        return cm;
    }
    Result<CmAddress> operator()(const LoopbackAddress& address) const {
        return Error{EAFNOSUPPORT, fmt::format("{} is an address of the in-process network", address.name)};
    }
};

}  // namespace

sockaddr_ib ib_socket_address(const Gid& gid, std::uint16_t pkey, std::uint64_t service_id) {
    sockaddr_ib address{};
    address.sib_family = AF_IB;
    address.sib_pkey = htobe16(pkey);
    std::memcpy(&address.sib_addr, gid.data(), gid.size());
    address.sib_sid = htobe64(service_id);
    address.sib_sid_mask = service_id == 0 ? 0 : ~std::uint64_t{0};
    return address;
}

Result<CmAddress> cm_address(const Address& address) { return std::visit(ToCmAddress{}, address); }

Result<CmAddress> cm_listen_address(const Address& address) {
    const auto* ib = std::get_if<IbAddress>(&address);
    if (!ib) return cm_address(address);
    CmAddress cm{RDMA_PS_IB, {}, std::nullopt, ib_request_bytes_max};
    cm.destination = stored(ib_socket_address(ib->source_gid, ib->pkey, ib->service_id));
    return cm;
}

std::string to_string(const sockaddr* address) {
    if (!address) return "?";
    IpAddress ip;
    if (address->sa_family == AF_INET)
        std::memcpy(&ip.destination, address, sizeof(sockaddr_in));
    else if (address->sa_family == AF_INET6)
        std::memcpy(&ip.destination, address, sizeof(sockaddr_in6));
    else if (address->sa_family == AF_IB) {
        sockaddr_ib ib;
        std::memcpy(&ib, address, sizeof ib);
        IbAddress peer;
        std::memcpy(peer.destination_gid.data(), &ib.sib_addr, peer.destination_gid.size());
        peer.service_id = be64toh(ib.sib_sid);
        return fabric::to_string(Address{peer});
    } else
        return fmt::format("address family {}", address->sa_family);
    return fabric::to_string(Address{ip});
}

}  // namespace srpfs::fabric::verbs
