// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The local port goes down and comes back, or its device does.

#include "world.h"

namespace srpfs::initiator {
namespace {

using LocalPort = PathTest;

TEST_F(LocalPort, AShortOutageBlocksAtOnceAndLosesNothing) {
    build();
    advance(10s);
    holder_.holds = true;
    Command& sent_before = start_read();
    const auto logins = target_logins();
    fabric_->link_flickers();
    settle();
    ASSERT_EQ(transitions_.size(), 1U) << "not noticed at once";
    EXPECT_EQ(transitions_[0].to, PortState::blocked);
    EXPECT_NE(transitions_[0].why.find("port 1 of demo0 went down"), std::string::npos) << transitions_[0].why;
    EXPECT_EQ(link().submit(read()), Submitted::wait);
    holder_.holds = false;
    device_->release_held();
    advance(200ms);
    EXPECT_FALSE(is_done(sent_before));
    fabric_->link_up();
    settle();
    ASSERT_EQ(transitions_.size(), 2U) << "not running again at once";
    EXPECT_EQ(transitions_[1].to, PortState::running);
    EXPECT_TRUE(is_good(sent_before));
    EXPECT_EQ(target_logins(), logins) << "a connection that had survived was thrown away";
    EXPECT_EQ(logins_, 1U) << "the units have to be looked at";
    EXPECT_TRUE(losses_were_own_[0]) << "a target that answers on the old connection has lost no cache";
    EXPECT_TRUE(is_good(start_read()));
}

TEST_F(LocalPort, ManyShortOutagesLoseNothing) {
    build([](TargetPortConfig& config) { config.parameters.ch_count = 2; });
    const auto logins = target_logins();
    for (int i = 0; i < 50; ++i) {
        advance(std::chrono::milliseconds(37 * i % 3000));
        fabric_->link_flickers();
        advance(std::chrono::milliseconds(20 * i));
        fabric_->link_up();
        settle();
        ASSERT_EQ(state(), PortState::running) << i;
    }
    EXPECT_EQ(target_logins(), logins);
}

TEST_F(LocalPort, AConnectionThatHasNotSurvivedIsReplacedWithinASecond) {
    build();
    advance(10s);
    const auto logins = target_logins();
    fabric_->link_flickers();
    advance(200ms);
    silencer_.to_us = true;  // only what exists is lost for good: a new login is heard
    fabric_->link_up();
    settle();
    EXPECT_EQ(state(), PortState::blocked);
    silencer_.to_us = false;
    const auto took = until([&] { return state() == PortState::running; }, 60s);
    ASSERT_TRUE(took.has_value());
    EXPECT_LE(*took, 1s);
    EXPECT_EQ(target_logins(), logins + 1);
}

TEST_F(LocalPort, ALongOutageEndsTheConnectionsAndALoginFollowsThePortAtOnce) {
    build([](TargetPortConfig& config) { config.timers.reconnect_delay = 60; });
    advance(10s);
    Command& lost = start_read();
    fabric_->link_flickers();
    settle();
    const auto logins = target_logins();
    advance(4999ms);
    EXPECT_EQ(live_channels(), 1U);
    advance(2ms);
    EXPECT_EQ(live_channels(), 0U) << "not given up after the limit of silence";
    EXPECT_TRUE(is_done(lost));
    advance(40s);
    EXPECT_EQ(target_logins(), logins);
    fabric_->link_up();
    settle();
    EXPECT_EQ(state(), PortState::running) << "the first attempt was not at once";
    EXPECT_EQ(target_logins(), logins + 1);
}

TEST_F(LocalPort, FastIoFailCountsFromTheOutage) {
    build([](TargetPortConfig& config) { config.timers.fast_io_fail_tmo = 3; });
    advance(10s);
    fabric_->link_flickers();
    settle();
    const Instant down = now();
    ASSERT_TRUE(until([&] { return state() == PortState::fail_fast; }, 60s).has_value());
    EXPECT_EQ(now() - down, Duration(3s));
    EXPECT_EQ(live_channels(), 1U);
    advance(1s);
    fabric_->link_up();
    settle();
    EXPECT_EQ(state(), PortState::running);
    EXPECT_EQ(target_logins(), 1U);
}

TEST_F(LocalPort, WithBothTimeoutsOffAnOutageChangesNoState) {
    build([](TargetPortConfig& config) {
        config.timers.fast_io_fail_tmo.reset();
        config.timers.dev_loss_tmo.reset();
    });
    fabric_->link_flickers();
    advance(1s);
    EXPECT_EQ(state(), PortState::running);
    fabric_->link_up();
    advance(20s);
    EXPECT_TRUE(transitions_.empty());
    EXPECT_EQ(target_logins(), 1U);
}

TEST_F(LocalPort, BrokenConnectionsAreReplacedAtOnceWhenThePortComesUp) {
    build([](TargetPortConfig& config) { config.timers.reconnect_delay = 30; });
    fabric_->link_down();
    advance(100s);
    const unsigned failed = port_->failed_reconnects();
    EXPECT_GT(failed, 4U);
    fabric_->link_up();
    silencer_.swallows_logins = false;
    settle();
    EXPECT_EQ(state(), PortState::running);
    EXPECT_EQ(port_->failed_reconnects(), 0U);
}

// The first attempt after the outage may come too early for the target; the next ones do not wait as if it were the
// twentieth.
TEST_F(LocalPort, AttemptsOfTheOutageDoNotCountAgainstTheNextOnes) {
    build([](TargetPortConfig& config) {
        config.timers.reconnect_delay = 30;
        config.timers.dev_loss_tmo.reset();
    });
    fabric_->link_down();
    advance(600s);
    device_->set_enabled(false);
    fabric_->link_up();
    settle();
    device_->set_enabled(true);
    const auto took = until([&] { return state() == PortState::running; }, 600s);
    ASSERT_TRUE(took.has_value());
    EXPECT_LE(*took, 500ms);
}

TEST_F(LocalPort, WithReconnectingOffNothingFollowsThePort) {
    build([](TargetPortConfig& config) { config.timers.reconnect_delay.reset(); });
    fabric_->link_down();
    advance(5s);
    fabric_->link_up();
    advance(5s);
    EXPECT_EQ(state(), PortState::blocked);
    EXPECT_EQ(target_logins(), 1U);
}

TEST_F(LocalPort, ALoginFollowsTheReturnOfTheDevice) {
    build([](TargetPortConfig& config) { config.timers.reconnect_delay = 30; });
    const auto guid = fabric::demo_port().guid;
    fabric_->remove_device();
    settle();
    EXPECT_EQ(state(), PortState::blocked);
    advance(100s);
    fabric_->add_device(guid);
    settle();
    EXPECT_EQ(state(), PortState::running);
}

TEST_F(LocalPort, AnotherDeviceOfTheSameNameIsNotUsed) {
    build([](TargetPortConfig& config) { config.timers.dev_loss_tmo.reset(); });
    const auto guid = fabric::demo_port().guid;
    fabric_->remove_device();
    advance(3s);
    fabric_->add_device(guid + 1);
    advance(100s);
    EXPECT_EQ(state(), PortState::fail_fast);
    EXPECT_EQ(target_logins(), 1U);
    EXPECT_NE(port_->last_error().find("GUID"), std::string::npos) << port_->last_error();
    fabric_->remove_device();
    advance(3s);
    fabric_->add_device(guid);
    settle();
    EXPECT_EQ(state(), PortState::running);
}

TEST_F(LocalPort, ALogoutDuringAnOutageEnds) {
    build();
    fabric_->link_flickers();
    settle();
    port_->close("asked for");
    advance(3s);
    EXPECT_TRUE(closed_);
}

}  // namespace
}  // namespace srpfs::initiator
