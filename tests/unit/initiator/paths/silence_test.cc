// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A target that says nothing any more, and how soon that is noticed.

#include "world.h"

namespace srpfs::initiator {
namespace {

using Silence = PathTest;

TEST_F(Silence, AnIdleTargetIsAskedEveryTwoSeconds) {
    build();
    advance(10s);
    const auto before = questions();
    advance(60s);
    EXPECT_GE(questions() - before, 29U);
    EXPECT_LE(questions() - before, 31U);
    EXPECT_EQ(state(), PortState::running);
    EXPECT_TRUE(transitions_.empty());
}

TEST_F(Silence, AnIdleProgramIsWokenOnceASecondAtMost) {
    build([](TargetPortConfig& config) { config.parameters.ch_count = 4; });
    ASSERT_EQ(live_channels(), 4U);
    advance(1500ms);  // so that the channels have not all spoken on a whole second
    holder_.holds = false;
    start_read();
    advance(10s);
    wakeups_.clear();
    advance(60s);
    EXPECT_LE(wakeups_.size(), 61U);
}

TEST_F(Silence, AnIdleTargetThatFallsSilentIsNoticedWithinFiveSeconds) {
    build();
    for (const Duration busy : {Duration(7s), Duration(7s + 1ms), Duration(8s + 500ms), Duration(9s + 999ms)}) {
        advance(busy);
        EXPECT_TRUE(is_good(start_read()));
        transitions_.clear();
        silencer_.to_us = true;
        const auto took = until([&] { return !transitions_.empty(); }, 60s);
        ASSERT_TRUE(took.has_value());
        EXPECT_LE(*took, 5s);
        EXPECT_GE(*took, 4s - 1ms);
        EXPECT_EQ(transitions_[0].to, PortState::blocked);
        EXPECT_NE(transitions_[0].why.find("silent"), std::string::npos) << transitions_[0].why;
        silencer_.to_us = false;
        ASSERT_TRUE(until([&] { return state() == PortState::running; }, 60s).has_value());
    }
}

TEST_F(Silence, ATargetThatDoesNotHearUsIsNoticedAsWell) {
    build();
    advance(10s);
    silencer_.to_target = true;
    const auto took = until([&] { return !transitions_.empty(); }, 60s);
    ASSERT_TRUE(took.has_value());
    EXPECT_LE(*took, 7s);  // it was asked up to two seconds ago
}

TEST_F(Silence, ATargetThatFallsSilentWithAFullQueueIsNoticedWithinFiveSeconds) {
    build([](TargetPortConfig& config) { config.parameters.queue_size = 2; });
    holder_.holds = true;
    Command& first = start_read();
    start_read();
    EXPECT_EQ(link().submit(read()), Submitted::wait) << "the queue is not full";
    silencer_.to_us = true;
    const auto took = until([&] { return !transitions_.empty(); }, 60s);
    ASSERT_TRUE(took.has_value());
    EXPECT_LE(*took, 5s);
    advance(1s);
    ASSERT_TRUE(is_done(first));
    EXPECT_EQ(first.result.end, CommandEnd::connection_lost);
}

TEST_F(Silence, ASlowCommandIsNotSilence) {
    build();
    holder_.holds = true;
    Command& slow = start_read();
    advance(25s);
    EXPECT_TRUE(transitions_.empty());
    EXPECT_FALSE(is_done(slow));
    holder_.holds = false;
    device_->release_held();
    settle();
    EXPECT_TRUE(is_good(slow));
}

// What arrives counts, whatever it is: a target whose LUN 0 does not answer TEST UNIT READY lives.
TEST_F(Silence, AnySignOfLifeCounts) {
    build();
    silencer_.to_target = true;  // it will not hear the questions
    for (int i = 0; i < 20; ++i) {
        device_->send_async_event(std::nullopt, scsi::Lun{}, scsi::Sense{});
        advance(1s);
    }
    EXPECT_TRUE(transitions_.empty());
}

TEST_F(Silence, SwitchedOffNobodyIsAsked) {
    build([](TargetPortConfig& config) { config.path.interval.reset(); });
    const auto before = questions();
    silencer_.to_us = true;
    advance(300s);
    EXPECT_EQ(questions(), before);
    EXPECT_TRUE(transitions_.empty());
}

TEST_F(Silence, IntervalAndTimeoutAreThoseAskedFor) {
    build([](TargetPortConfig& config) {
        config.path.interval = 10s;
        config.path.timeout = 20s;
    });
    silencer_.to_us = true;
    const auto took = until([&] { return !transitions_.empty(); }, 120s);
    ASSERT_TRUE(took.has_value());
    EXPECT_GE(*took, 29s);
    EXPECT_LE(*took, 30s);
}

// The target tells an attention once. If the question meets it, the unit has to hear of it.
TEST_F(Silence, AnAttentionMetByAQuestionReachesTheUnit) {
    build();
    advance(10s);
    ASSERT_TRUE(attentions_.empty());
    device_->raise_attention(0, 0x2a, 0x09);
    advance(5s);
    ASSERT_EQ(attentions_.size(), 1U);
    EXPECT_EQ(attentions_[0].asc, 0x2a);
    EXPECT_EQ(attentions_[0].ascq, 0x09);
    EXPECT_EQ(state(), PortState::running);
}

TEST_F(Silence, OneSilentChannelIsReplacedWhileTheOthersCarryOn) {
    build([](TargetPortConfig& config) { config.parameters.ch_count = 3; });
    ASSERT_EQ(live_channels(), 3U);
    advance(10s);
    // A channel is silenced by what it is told to send while the network loses: only the first question of the next
    // round is lost, and all that follows on that channel.
    const auto logins = target_logins();
    silencer_.to_target = true;
    ASSERT_EQ(link().submit(read()), Submitted::sent);
    silencer_.to_target = false;
    const auto took = until([&] { return target_logins() > logins; }, 60s);
    ASSERT_TRUE(took.has_value());
    EXPECT_LE(*took, 7s);
    EXPECT_TRUE(transitions_.empty());
    EXPECT_TRUE(is_good(start_read()));
    ASSERT_TRUE(until([&] { return port_->facts().channels == 3; }, 60s).has_value());
    EXPECT_EQ(live_channels(), 3U);
}

}  // namespace
}  // namespace srpfs::initiator
