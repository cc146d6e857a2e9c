// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "page_dropper.h"
#include "request.h"
#include "threads.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <future>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace srpfs::fs::test {
namespace {

constexpr int drop_patience_ms = 60'000;

class PageDropperTest : public ::testing::Test {
protected:
    PageDropperTest() {
        EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair_), 0);
        auto made = control_.run([this] { return PageDropper::create(pair_[1], control_.reactor()); });
        EXPECT_TRUE(made);
        dropper_ = std::move(*made);
    }
    ~PageDropperTest() override {
        hang_up();
        control_.run([this] { dropper_.reset(); });
    }
    void hang_up() {
        if (pair_[0] >= 0) close(std::exchange(pair_[0], -1));
    }
    std::future<void> drop(NodeId node, std::vector<lun::ByteRange> ranges) {
        auto told = std::make_shared<std::promise<void>>();
        auto future = told->get_future();
        dropper_->drop(node, std::move(ranges), control_.reactor(), [told] { told->set_value(); });
        return future;
    }
    std::pair<fuse_out_header, fuse_notify_inval_inode_out> receive() {
        std::pair<fuse_out_header, fuse_notify_inval_inode_out> got{};
        std::byte bytes[sizeof got.first + sizeof got.second + 1];
        pollfd ready{.fd = pair_[0], .events = POLLIN, .revents = 0};
        EXPECT_EQ(poll(&ready, 1, drop_patience_ms), 1);
        const ssize_t count = recv(pair_[0], bytes, sizeof bytes, 0);
        EXPECT_EQ(count, static_cast<ssize_t>(sizeof got.first + sizeof got.second));
        EXPECT_TRUE(read_struct(bytes, 0, got.first) && read_struct(bytes, sizeof got.first, got.second));
        return got;
    }

    int pair_[2] = {-1, -1};
    ReactorThread control_{"control"};
    std::unique_ptr<PageDropper> dropper_;
};

TEST_F(PageDropperTest, TellsEachRangeAndThenWhoWaits) {
    auto done = drop(NodeId{9}, {{4096, 12288}, {0, UINT64_MAX}});

    const auto [header, one] = receive();
    const auto rest = receive().second;
    done.get();

    EXPECT_EQ(header.unique, 0u);
    EXPECT_EQ(header.error, FUSE_NOTIFY_INVAL_INODE);
    EXPECT_EQ(one.ino, 9u);
    EXPECT_EQ(one.off, 4096);
    EXPECT_EQ(one.len, 8192);
    EXPECT_EQ(rest.off, 0);
    EXPECT_EQ(rest.len, 0);  // to the end
}

// A socket that is full stands for a page that is locked.
TEST_F(PageDropperTest, OneThatTheKernelHoldsDoesNotKeepOthersWaiting) {
    std::vector<std::future<void>> held;
    const std::vector<lun::ByteRange> many(2'000, {0, 4096});
    for (std::uint64_t node = 1; node <= 3; ++node) held.push_back(drop(NodeId{node}, many));

    bool seen[4] = {};
    while (!seen[1] || !seen[2] || !seen[3]) seen[receive().second.ino] = true;  // all three are at it
    hang_up();

    for (auto& one : held) one.get();
}

TEST_F(PageDropperTest, AConnectionThatHasEndedHasNoPages) {
    hang_up();
    drop(NodeId{9}, {{0, 4096}}).get();
}

TEST_F(PageDropperTest, WhatTheKernelHoldsIsLeftBehind) {
    // The kernel's side of the socket is full, so that the first range is held.
    while (send(pair_[1], "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) > 0) continue;
    (void)drop(NodeId{1}, {{0, 4096}});
    // Until the thread has taken it, of which nothing tells.
    pollfd never{.fd = -1, .events = 0, .revents = 0};
    poll(&never, 1, 300);

    EXPECT_FALSE(dropper_->stop());
    hang_up();
    EXPECT_TRUE(dropper_->stop());
    pollfd state{.fd = pair_[1], .events = 0, .revents = 0};
    EXPECT_EQ(poll(&state, 1, 0), 1);
    EXPECT_NE(state.revents & POLLNVAL, 0);  // closed
}

}  // namespace
}  // namespace srpfs::fs::test
