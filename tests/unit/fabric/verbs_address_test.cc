// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "address.h"

#include <gtest/gtest.h>

#include <arpa/inet.h>

#include <cstring>

namespace srpfs::fabric::verbs {
namespace {

Gid gid(const char* text) {
    Gid result;
    EXPECT_EQ(inet_pton(AF_INET6, text, result.data()), 1);
    return result;
}

std::string hex(const void* bytes, std::size_t size) {
    std::string text;
    for (std::size_t i = 0; i < size; ++i) {
        char digits[3];
        std::snprintf(digits, sizeof digits, "%02x", static_cast<const unsigned char*>(bytes)[i]);
        text += digits;
    }
    return text;
}

sockaddr_storage ipv4(const char* text, std::uint16_t port) {
    sockaddr_storage storage{};
    auto& v4 = reinterpret_cast<sockaddr_in&>(storage);
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    EXPECT_EQ(inet_pton(AF_INET, text, &v4.sin_addr), 1);
    return storage;
}

sockaddr_storage ipv6(const char* text, std::uint16_t port) {
    sockaddr_storage storage{};
    auto& v6 = reinterpret_cast<sockaddr_in6&>(storage);
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    EXPECT_EQ(inet_pton(AF_INET6, text, &v6.sin6_addr), 1);
    return storage;
}

// The kernel's struct sockaddr_ib (include/rdma/ib.h), 48 bytes: family in host order (27), pkey, flow label, GID,
// service id and mask in network order, scope 0.
constexpr const char* family_hex = std::endian::native == std::endian::little ? "1b00" : "001b";

TEST(IbSocketAddress, HasTheBytesTheKernelExpects) {
    const sockaddr_ib address = ib_socket_address(gid("fe80::2:c903:e:8acd"), 0x8001, 0x0002c903000e8acc);

    EXPECT_EQ(hex(&address, sizeof address), std::string(family_hex) +
                                                 "8001"                              // pkey
                                                 "00000000"                          // flow label and traffic class
                                                 "fe800000000000000002c903000e8acd"  // GID
                                                 "0002c903000e8acc"                  // service id
                                                 "ffffffffffffffff"                  // its mask
                                                 "0000000000000000");                // scope
}

TEST(IbSocketAddress, WithoutAServiceIdMasksNothing) {
    const sockaddr_ib address = ib_socket_address(gid("fe80::1"), 0xffff, 0);

    EXPECT_EQ(address.sib_sid, 0u);
    EXPECT_EQ(address.sib_sid_mask, 0u);
}

TEST(CmAddress, OfInfiniBandPicksThePortByItsGidAndRepeatsThePkey) {
    IbAddress address;
    address.destination_gid = gid("fe80::2:c903:e:8acd");
    address.source_gid = gid("fe80::2:c903:a:b");
    address.pkey = 0x8002;
    address.service_id = 0x1122334455667788;

    const auto cm = cm_address(address);

    ASSERT_TRUE(cm.has_value());
    EXPECT_EQ(cm->port_space, RDMA_PS_IB);
    EXPECT_EQ(cm->request_bytes_max, 92u);
    EXPECT_EQ(hex(&cm->destination, 48), std::string(family_hex) +
                                             "800200000000fe800000000000000002c903000e8acd"
                                             "1122334455667788ffffffffffffffff0000000000000000");
    ASSERT_TRUE(cm->source.has_value());
    EXPECT_EQ(hex(&*cm->source, 48), std::string(family_hex) +
                                         "800200000000fe800000000000000002c903000a000b"
                                         "000000000000000000000000000000000000000000000000");
}

TEST(CmAddress, OfInfiniBandWithoutASourceLeavesThePortToTheKernel) {
    IbAddress address;
    address.destination_gid = gid("fe80::1");

    const auto cm = cm_address(address);

    ASSERT_TRUE(cm.has_value());
    EXPECT_FALSE(cm->source.has_value());
}

TEST(CmAddress, OfAnIpAddressIsThatAddressInTheTcpPortSpace) {
    for (const auto& destination : {ipv4("10.9.9.1", 5555), ipv6("fd09::9", 5555)}) {
        const auto cm = cm_address(IpAddress{destination, std::nullopt});

        ASSERT_TRUE(cm.has_value());
        EXPECT_EQ(cm->port_space, RDMA_PS_TCP);
        EXPECT_EQ(cm->request_bytes_max, 56u);
        EXPECT_EQ(std::memcmp(&cm->destination, &destination, sizeof destination), 0);
        EXPECT_FALSE(cm->source.has_value());
    }
}

TEST(CmAddress, KeepsTheSourceOfAnIpAddress) {
    const auto source = ipv4("10.9.9.2", 0);

    const auto cm = cm_address(IpAddress{ipv4("10.9.9.1", 5555), source});

    ASSERT_TRUE(cm.has_value() && cm->source.has_value());
    EXPECT_EQ(std::memcmp(&*cm->source, &source, sizeof source), 0);
}

TEST(CmAddress, RefusesWhatRdmaCannotCarry) {
    sockaddr_storage unix_socket{};
    unix_socket.ss_family = AF_UNIX;

    EXPECT_FALSE(cm_address(IpAddress{unix_socket, std::nullopt}).has_value());
    EXPECT_FALSE(cm_address(IpAddress{ipv4("10.9.9.1", 1), ipv6("fd09::9", 1)}).has_value());
    EXPECT_FALSE(cm_address(LoopbackAddress{"demo"}).has_value());
    EXPECT_FALSE(cm_listen_address(LoopbackAddress{"demo"}).has_value());
}

TEST(CmListenAddress, OfInfiniBandIsBoundToTheLocalGid) {
    IbAddress address;
    address.destination_gid = gid("fe80::bad");
    address.source_gid = gid("fe80::2:c903:a:b");
    address.service_id = 0x1122334455667788;

    const auto cm = cm_listen_address(address);

    ASSERT_TRUE(cm.has_value());
    EXPECT_EQ(hex(&cm->destination, 48), std::string(family_hex) +
                                             "ffff00000000fe800000000000000002c903000a000b"
                                             "1122334455667788ffffffffffffffff0000000000000000");
}

TEST(PeerText, NamesEveryFamily) {
    const auto v4 = ipv4("10.9.9.1", 4711);
    const auto v6 = ipv6("fd09::9", 4711);
    const sockaddr_ib ib = ib_socket_address(gid("fe80::1"), 0xffff, 0x1234);

    EXPECT_EQ(to_string(reinterpret_cast<const sockaddr*>(&v4)), "10.9.9.1:4711");
    EXPECT_EQ(to_string(reinterpret_cast<const sockaddr*>(&v6)), "[fd09::9]:4711");
    EXPECT_EQ(to_string(reinterpret_cast<const sockaddr*>(&ib)), "fe80::1/0x0000000000001234");
    EXPECT_EQ(to_string(nullptr), "?");
}

}  // namespace
}  // namespace srpfs::fabric::verbs
