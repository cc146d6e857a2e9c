// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/fabric/fabric.h>

#include <fmt/format.h>

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>

namespace srpfs::fabric {
namespace {

std::string to_string(const sockaddr_storage& address) {
    char text[INET6_ADDRSTRLEN] = "?";
    if (address.ss_family == AF_INET) {
        const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
        inet_ntop(AF_INET, &v4.sin_addr, text, sizeof text);
        return fmt::format("{}:{}", text, ntohs(v4.sin_port));
    }
    if (address.ss_family == AF_INET6) {
        const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
        inet_ntop(AF_INET6, &v6.sin6_addr, text, sizeof text);
        char name[IF_NAMESIZE] = "";
        if (v6.sin6_scope_id != 0 && if_indextoname(v6.sin6_scope_id, name))
            return fmt::format("[{}%{}]:{}", text, name, ntohs(v6.sin6_port));
        return fmt::format("[{}]:{}", text, ntohs(v6.sin6_port));
    }
    return fmt::format("address family {}", address.ss_family);
}

struct ToString {
    std::string operator()(const IpAddress& address) const { return to_string(address.destination); }
    std::string operator()(const IbAddress& address) const {
        char gid[INET6_ADDRSTRLEN] = "?";
        inet_ntop(AF_INET6, address.destination_gid.data(), gid, sizeof gid);
        return fmt::format("{}/0x{:016x}", gid, address.service_id);
    }
    std::string operator()(const LoopbackAddress& address) const { return address.name; }
};

}  // namespace

std::string to_string(const Address& address) { return std::visit(ToString{}, address); }

const char* to_string(Registration registration) { return registration == Registration::window ? "window" : "pool"; }

const char* to_string(EndReason reason) {
    switch (reason) {
        case EndReason::refused_locally: return "refused locally";
        case EndReason::local_error: return "local error";
        case EndReason::address_unresolved: return "address not resolved";
        case EndReason::route_unresolved: return "no route";
        case EndReason::wrong_port: return "wrong local port";
        case EndReason::unreachable: return "unreachable";
        case EndReason::rejected: return "rejected";
        case EndReason::peer_disconnected: return "target disconnected";
        case EndReason::transport_error: return "transport error";
        case EndReason::device_removed: return "RDMA device removed";
        case EndReason::closed: return "closed";
    }
    return "?";
}

}  // namespace srpfs::fabric
