// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "local_ports.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <fstream>

namespace srpfs::fabric::verbs {
namespace {

namespace stdfs = std::filesystem;

// A directory that looks like /sys/class/infiniband.
class LocalPorts : public testing::Test {
protected:
    LocalPorts() {
        std::string name = stdfs::temp_directory_path() / "srpfs-ports.XXXXXX";
        root_ = mkdtemp(name.data());
    }
    ~LocalPorts() override { stdfs::remove_all(root_); }

    void write(const std::string& file, const std::string& text) const {
        stdfs::create_directories((root_ / file).parent_path());
        std::ofstream(root_ / file) << text << "\n";
    }
    void add_port(const std::string& device, const std::string& number, const std::string& state,
                  const std::string& link_layer, const std::string& gid) const {
        const std::string directory = device + "/ports/" + number + "/";
        write(directory + "state", state);
        write(directory + "link_layer", link_layer);
        write(directory + "gids/0", gid);
    }

    stdfs::path root_;
};

TEST_F(LocalPorts, AreReadFromSysfs) {
    write("mlx5_0/node_guid", "506b:4b03:00c4:4d20");
    add_port("mlx5_0", "1", "4: ACTIVE", "InfiniBand", "fe80:0000:0000:0000:506b:4b03:00c4:4d21");

    const auto ports = read_local_ports(root_);

    ASSERT_EQ(ports.size(), 1u);
    EXPECT_EQ(ports[0].device, "mlx5_0");
    EXPECT_EQ(ports[0].port, 1u);
    EXPECT_EQ(ports[0].link_layer, LinkLayer::infiniband);
    EXPECT_EQ(ports[0].gid[0], std::byte{0xfe});
    EXPECT_EQ(ports[0].gid[15], std::byte{0x21});
    EXPECT_EQ(ports[0].guid, 0x506b4b0300c44d21u);
    EXPECT_EQ(ports[0].node_guid, 0x506b4b0300c44d20u);
    EXPECT_TRUE(ports[0].active);
}

TEST_F(LocalPorts, AreSortedByDeviceAndNumber) {
    for (const char* number : {"10", "2", "1"}) add_port("mlx5_1", number, "4: ACTIVE", "InfiniBand", "::1");
    add_port("mlx5_0", "1", "4: ACTIVE", "InfiniBand", "::1");

    const auto ports = read_local_ports(root_);

    ASSERT_EQ(ports.size(), 4u);
    EXPECT_EQ(ports[0].device, "mlx5_0");
    EXPECT_EQ(ports[1].port, 1u);
    EXPECT_EQ(ports[2].port, 2u);
    EXPECT_EQ(ports[3].port, 10u);
}

TEST_F(LocalPorts, AreActiveInOneStateOnly) {
    const char* states[] = {"1: DOWN", "2: INIT", "3: ARMED", "4: ACTIVE", "5: ACTIVE_DEFER"};
    for (int i = 0; i < 5; ++i) add_port("rxe0", std::to_string(i + 1), states[i], "Ethernet", "fe80::1");

    const auto ports = read_local_ports(root_);

    ASSERT_EQ(ports.size(), 5u);
    for (const auto& port : ports) {
        EXPECT_EQ(port.active, port.port == 4) << port.port;
        EXPECT_EQ(port.link_layer, LinkLayer::ethernet);
    }
}

TEST_F(LocalPorts, WithoutAGidHaveNoGuid) {
    write("rxe0/ports/1/state", "1: DOWN");

    const auto port = read_local_port("rxe0", 1, root_);

    ASSERT_TRUE(port.has_value());
    EXPECT_EQ(port->guid, 0u);
    EXPECT_EQ(port->gid, Gid{});
}

TEST_F(LocalPorts, ThatDoNotExistAreNotReported) {
    add_port("rxe0", "1", "4: ACTIVE", "Ethernet", "fe80::1");
    write("rxe0/ports/notes/state", "4: ACTIVE");

    EXPECT_EQ(read_local_ports(root_).size(), 1u);
    EXPECT_FALSE(read_local_port("rxe0", 2, root_).has_value());
    EXPECT_FALSE(read_local_port("rxe1", 1, root_).has_value());
    EXPECT_TRUE(read_local_ports(root_ / "absent").empty());
}

}  // namespace
}  // namespace srpfs::fabric::verbs
