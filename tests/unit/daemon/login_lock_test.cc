// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "login_lock.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include <stdlib.h>

namespace srpfs::daemon {
namespace {

class LoginLockTest : public testing::Test {
protected:
    void SetUp() override {
        char pattern[] = "/tmp/srpfs-lock-XXXXXX";
        ASSERT_NE(mkdtemp(pattern), nullptr);
        root_ = pattern;
        std::filesystem::create_directory(root_ / "hosts");
    }
    void TearDown() override { std::filesystem::remove_all(root_); }

    std::unique_ptr<LoginLock> lock(std::uint64_t initiator_ext = 0) {
        srp::LoginParameters parameters;
        parameters.id_ext = 0x10;
        parameters.ioc_guid = 0x20;
        parameters.initiator_ext = initiator_ext;
        return std::make_unique<LoginLock>(parameters, (root_ / "run").string(), (root_ / "hosts").string());
    }
    static fabric::LocalPort port(std::string device = "rxe0", unsigned number = 1) {
        fabric::LocalPort port;
        port.device = std::move(device);
        port.port = number;
        port.link_layer = fabric::LinkLayer::ethernet;
        return port;
    }
    void kernel_host(const std::string& id_ext, const std::string& device) {
        const auto host = root_ / "hosts" / "host7";
        std::filesystem::create_directory(host);
        std::ofstream(host / "id_ext") << id_ext << "\n";
        std::ofstream(host / "ioc_guid") << "0x0000000000000020\n";
        std::ofstream(host / "local_ib_device") << device << "\n";
        std::ofstream(host / "local_ib_port") << "1\n";
    }

    std::filesystem::path root_;
};

TEST_F(LoginLockTest, ALoginThatIsLeavingDoesNotKeepTheNextOneOut) {
    const auto leaving = lock(), next = lock();
    ASSERT_TRUE(leaving->take(port()));

    leaving->release();

    EXPECT_TRUE(next->take(port()));
    const auto refused = leaving->take(port());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().errno_value(), ECANCELED);
}

TEST_F(LoginLockTest, TheNextLoginIsNotKeptOutWhileTheLastOneIsClearedAway) {
    for (unsigned round = 0; round < 100; ++round) {
        const auto leaving = lock(), next = lock();
        ASSERT_TRUE(leaving->take(port()));
        leaving->release();
        std::thread clearing([&] { leaving->mark_clean(); });

        const auto taken = next->take(port());

        clearing.join();
        ASSERT_TRUE(taken) << "in round " << round;
        next->release();
        next->mark_clean();
    }
}

TEST_F(LoginLockTest, SecondLoginOfOneNexusIsRefusedWithAHint) {
    const auto first = lock(), second = lock();
    ASSERT_TRUE(first->take(port()));

    const auto refused = second->take(port());

    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().errno_value(), EEXIST);
    EXPECT_NE(refused.error().context.find("initiator_ext="), std::string::npos);
}

TEST_F(LoginLockTest, IsFreeAgainWhenItsOwnerIsGone) {
    auto first = lock();
    ASSERT_TRUE(first->take(port()));
    first.reset();

    EXPECT_TRUE(lock()->take(port()));
}

TEST_F(LoginLockTest, AProcessThatDidNotLogOutIsNoticedByTheNext) {
    ASSERT_TRUE(lock()->take(port()));  // creates the file
    const auto file = *std::filesystem::directory_iterator(root_ / "run");
    std::ofstream(file.path(), std::ios::trunc) << "1 12345\n";  // of another process
    const auto next = lock();
    ASSERT_TRUE(next->take(port()));
    EXPECT_TRUE(next->was_left_behind());
}

TEST_F(LoginLockTest, ALogoutLeavesNothingBehind) {
    const auto first = lock();
    ASSERT_TRUE(first->take(port()));
    EXPECT_FALSE(first->was_left_behind());
    const auto file = *std::filesystem::directory_iterator(root_ / "run");
    EXPECT_GT(std::filesystem::file_size(file.path()), 0u);
    first->release();
    EXPECT_GT(std::filesystem::file_size(file.path()), 0u);  // not before it is known to be clean
    first->mark_clean();
    EXPECT_EQ(std::filesystem::file_size(file.path()), 0u);
}

TEST_F(LoginLockTest, ALogoutKeepsTheMarkOfTheLoginThatFollowed) {
    const auto leaving = lock(), next = lock();
    ASSERT_TRUE(leaving->take(port()));
    leaving->release();
    ASSERT_TRUE(next->take(port()));
    EXPECT_FALSE(next->was_left_behind());  // of the same process: it knows its own ghosts
    leaving->mark_clean();
    const auto file = *std::filesystem::directory_iterator(root_ / "run");
    EXPECT_GT(std::filesystem::file_size(file.path()), 0u);
    next->mark_clean();
    EXPECT_EQ(std::filesystem::file_size(file.path()), 0u);
}

TEST_F(LoginLockTest, AnotherPortOrInitiatorIsAnotherNexus) {
    const auto first = lock(), other_port = lock(), other_device = lock(), other_initiator = lock(1);
    ASSERT_TRUE(first->take(port()));

    EXPECT_TRUE(other_port->take(port("rxe0", 2)));
    EXPECT_TRUE(other_device->take(port("rxe1")));
    EXPECT_TRUE(other_initiator->take(port()));
}

TEST_F(LoginLockTest, TakingItAgainForAReconnectSucceeds) {
    const auto first = lock();

    EXPECT_TRUE(first->take(port()));
    EXPECT_TRUE(first->take(port()));
}

TEST_F(LoginLockTest, RefusesANexusThatTheKernelDriverHolds) {
    kernel_host("0x0000000000000010", "rxe0");

    const auto refused = lock()->take(port());

    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().errno_value(), EEXIST);
    EXPECT_NE(refused.error().context.find("host7"), std::string::npos);
}

TEST_F(LoginLockTest, TheKernelDriverOnAnotherDeviceOrTargetDoesNotMatter) {
    kernel_host("0x0000000000000010", "rxe5");
    EXPECT_TRUE(lock()->take(port()));

    std::ofstream(root_ / "hosts" / "host7" / "local_ib_device") << "rxe0\n";
    std::ofstream(root_ / "hosts" / "host7" / "id_ext") << "0x0000000000000011\n";
    EXPECT_TRUE(lock(3)->take(port()));
}

TEST_F(LoginLockTest, AnInitiatorExtensionOfOurOwnKeepsApartFromTheKernelDriver) {
    kernel_host("0x0000000000000010", "rxe0");

    EXPECT_TRUE(lock(1)->take(port()));
}

TEST_F(LoginLockTest, ALockDirectoryThatCannotBeMadeIsNoError) {
    std::ofstream(root_ / "run") << "a file, not a directory";

    EXPECT_TRUE(lock()->take(port()));
}

}  // namespace
}  // namespace srpfs::daemon
