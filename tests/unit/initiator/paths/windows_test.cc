// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// With memory windows a command is done only when the target cannot reach its memory any more.

#include "world.h"

namespace srpfs::initiator {
namespace {

class Windows : public PathTest {
protected:
    Windows() { registration_ = fabric::Registration::window; }
    void build_with(const std::function<void(TargetPortConfig&)>& change = nullptr) {
        build(change);
        // Whoever is told that a command is done may use its memory for something else at once.
        when_done_ = [this](const Command& command) {
            ++done_count_;
            windows_when_done_ = std::max(windows_when_done_, fabric_->windows());
            last_end_ = command.result.end;
        };
    }
    unsigned done_count_ = 0;
    std::size_t windows_when_done_ = 0;
    CommandEnd last_end_ = CommandEnd::answered;
};

TEST_F(Windows, ACommandIsDoneWhenItsWindowIsClosed) {
    build_with();
    holder_.holds = true;
    Command& command = start_read();
    EXPECT_EQ(fabric_->windows(), 1U);
    holder_.holds = false;
    device_->release_held();
    settle();
    EXPECT_TRUE(is_good(command));
    EXPECT_EQ(windows_when_done_, 0U) << "the target could still reach the memory of a command that was done";
}

TEST_F(Windows, ManyCommandsLeaveNoneOpen) {
    build_with([](TargetPortConfig& config) {
        config.parameters.queue_size = 3;
        config.parameters.ch_count = 2;
        config.parameters.use_imm_data = false;
    });
    for (unsigned i = 0; i < 1000; ++i) {
        Command& command = i % 2 ? write(i, 1 + i % 8) : read(i);
        ASSERT_EQ(link().submit(command), Submitted::sent) << i;
        settle();
        ASSERT_TRUE(is_good(command)) << i;
        ASSERT_EQ(fabric_->windows(), 0U) << i;
    }
    EXPECT_EQ(windows_when_done_, 0U);
}

TEST_F(Windows, ImmediateDataNeedsNone) {
    build_with();
    holder_.holds = true;
    ASSERT_EQ(link().submit(write(0, 1)), Submitted::sent);
    settle();
    EXPECT_EQ(fabric_->windows(), 0U);
    holder_.holds = false;
    device_->release_held();
    settle();
    EXPECT_EQ(done_count_, 1U);
}

TEST_F(Windows, WhatTheTargetHoldsWhenTheConnectionBreaksIsDoneWhenThatIsGone) {
    build_with();
    holder_.holds = true;
    Command& command = start_read();
    device_->disconnect(std::nullopt);
    ASSERT_TRUE(until([&] { return is_done(command); }, 60s).has_value());
    EXPECT_EQ(last_end_, CommandEnd::connection_lost);
    EXPECT_EQ(windows_when_done_, 0U);
}

// What the target holds has ended by task management, and nobody answers it.
TEST_F(Windows, AnAbortedCommandIsDoneWhenItsWindowIsClosedAndTheChannelStays) {
    build_with();
    const auto logins = target_logins();
    holder_.holds = true;
    Command& command = start_read();
    ASSERT_TRUE(until([&] { return is_done(command); }, 60s).has_value());
    EXPECT_EQ(last_end_, CommandEnd::aborted);
    EXPECT_EQ(windows_when_done_, 0U);
    EXPECT_GE(device_->counters().task_managements, 1U);
    advance(10s);
    EXPECT_EQ(target_logins(), logins) << "the channel was replaced";
    EXPECT_TRUE(transitions_.empty());
    holder_.holds = false;
    EXPECT_TRUE(is_good(start_read(7)));
    EXPECT_EQ(link().report()[0].in_flight, 0U);
}

TEST_F(Windows, AWindowStaysOpenFor2sAfterAnAbortForWhatIsOnItsWay) {
    build_with();
    holder_.holds = true;
    Command& command = start_read();
    ASSERT_TRUE(until([&] { return device_->counters().aborted > 0; }, 60s).has_value());
    advance(1900ms);
    EXPECT_FALSE(is_done(command));
    EXPECT_EQ(fabric_->windows(), 1U);
    advance(200ms);
    EXPECT_TRUE(is_done(command));
    EXPECT_EQ(fabric_->windows(), 0U);
}

TEST_F(Windows, ACommandEndedByALunResetIsDoneWhenItsWindowIsClosedAndTheChannelStays) {
    build_with();
    const auto logins = target_logins();
    holder_.holds = holder_.refuses_aborts = true;
    Command& command = start_read();
    ASSERT_TRUE(until([&] { return is_done(command); }, 60s).has_value());
    EXPECT_EQ(last_end_, CommandEnd::aborted);
    EXPECT_EQ(windows_when_done_, 0U);
    EXPECT_EQ(device_->counters().task_managements, 2U);
    advance(10s);
    EXPECT_EQ(target_logins(), logins) << "the channel was replaced";
    EXPECT_TRUE(transitions_.empty());
}

// Task management proves nothing for what has not been ended by it: only the end of the connection does.
TEST_F(Windows, WhatNeitherAbortNorResetEndsIsDoneWhenTheConnectionIsGone) {
    build_with();
    const auto logins = target_logins();
    holder_.holds = true;
    Command& command = start_read();
    silencer_.to_us = true;
    advance(1s);
    EXPECT_FALSE(is_done(command));
    silencer_.to_target = true;
    ASSERT_TRUE(until([&] { return is_done(command); }, 120s).has_value());
    EXPECT_EQ(last_end_, CommandEnd::connection_lost);
    EXPECT_EQ(windows_when_done_, 0U);
    silencer_.to_us = silencer_.to_target = false;
    ASSERT_TRUE(until([&] { return state() == PortState::running && target_logins() > logins; }, 120s).has_value());
}

// With a pool there is nothing to close: the memory is free when the connection is gone.
TEST_F(PathTest, WithoutWindowsAnAbortedCommandCostsItsChannel) {
    build();
    const auto logins = target_logins();
    holder_.holds = true;
    Command& command = start_read();
    ASSERT_TRUE(until([&] { return is_done(command); }, 60s).has_value());
    EXPECT_EQ(command.result.end, CommandEnd::aborted);
    ASSERT_TRUE(until([&] { return target_logins() > logins; }, 60s).has_value());
}

TEST_F(Windows, AFullQueueGoesOn) {
    build_with([](TargetPortConfig& config) { config.parameters.queue_size = 2; });
    holder_.holds = true;
    Command& first = start_read(1);
    Command& second = start_read(2);
    Command& third = read(3);
    EXPECT_EQ(link().submit(third), Submitted::wait);
    holder_.holds = false;
    device_->release_held();
    settle();
    EXPECT_TRUE(is_good(first));
    EXPECT_TRUE(is_good(second));
    EXPECT_EQ(link().submit(third), Submitted::sent);
    settle();
    EXPECT_TRUE(is_good(third));
}

}  // namespace
}  // namespace srpfs::initiator
