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
    // A read that the target keeps until task management ends it: then its window is closed, and the channel stays.
    void start_read_that_is_ended() {
        const auto logins = target_logins();
        holder_.holds = true;
        Command& command = start_read();
        EXPECT_TRUE(until([&] { return is_done(command); }, 60s).has_value());
        EXPECT_EQ(last_end_, CommandEnd::aborted);
        EXPECT_EQ(windows_when_done_, 0U);
        advance(10s);
        EXPECT_EQ(target_logins(), logins) << "the channel was replaced";
        EXPECT_TRUE(transitions_.empty());
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
    start_read_that_is_ended();
    EXPECT_GE(device_->counters().task_managements, 1U);
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
    holder_.refuses_aborts = true;
    start_read_that_is_ended();
    EXPECT_EQ(device_->counters().task_managements, 2U);
}

// Decisions 2: what completes in the backend just before the reset looks for it still sends its data after it.
TEST_F(Windows, DataThatComesAfterTheCloseTouchesNothingAndCostsTheTargetItsConnection) {
    build_with();
    const auto logins = target_logins();
    holder_.holds = true;
    holder_.overtaken_by = 5s;
    Command& command = start_read();
    std::fill(command.data.begin(), command.data.end(), std::byte{0xaa});
    ASSERT_TRUE(until([&] { return is_done(command); }, 60s).has_value());
    EXPECT_EQ(last_end_, CommandEnd::aborted);
    EXPECT_EQ(windows_when_done_, 0U);
    EXPECT_EQ(target_logins(), logins);
    holder_.holds = false;
    holder_.overtaken_by.reset();
    ASSERT_TRUE(until([&] { return !transitions_.empty(); }, 60s).has_value()) << "the data never came";
    EXPECT_EQ(transitions_[0].to, PortState::blocked);
    ASSERT_TRUE(until([&] { return state() == PortState::running; }, 60s).has_value());
    EXPECT_EQ(target_logins(), logins + 1);
    EXPECT_EQ(std::count(command.data.begin(), command.data.end(), std::byte{0xaa}), 512);
}

// The reset may have overtaken what was sent on another channel: a closed window is not enough there.
TEST_F(Windows, ALunResetKeepsItsOwnChannelAndDrainsTheOthersThatAreLeftWithoutAnAnswer) {
    build_with([](TargetPortConfig& config) { config.parameters.ch_count = 2; });
    const auto logins = target_logins();
    holder_.holds = true;
    holder_.mute_channel = device_->channels().at(0).id;
    std::vector<Command*> sent;
    for (const unsigned channel : {0U, 1U, 1U}) {
        sent.push_back(&read());
        sent.back()->on_channel = channel;
        ASSERT_EQ(link().submit(*sent.back()), Submitted::sent);
    }
    settle();
    EXPECT_EQ(fabric_->windows(), 3U);
    bool succeeded = false;
    link().reset_unit(scsi::Lun{}, [&](const Result<void>& result) { succeeded = result.has_value(); });
    advance(1900ms);
    ASSERT_TRUE(succeeded);
    EXPECT_EQ(done_count_, 0U);
    EXPECT_EQ(fabric_->windows(), 3U);
    advance(200ms);
    EXPECT_EQ(done_count_, 3U);
    EXPECT_EQ(fabric_->windows(), 0U);
    EXPECT_EQ(sent[0]->result.end, CommandEnd::connection_lost);
    EXPECT_EQ(sent[1]->result.end, CommandEnd::aborted);
    EXPECT_EQ(sent[2]->result.end, CommandEnd::aborted);
    holder_.mute_channel = 0;
    holder_.holds = false;
    ASSERT_TRUE(until([&] { return port_->facts().channels == 2; }, 60s).has_value());
    EXPECT_EQ(target_logins(), logins + 1) << "the channel of the reset was replaced as well";
    EXPECT_TRUE(transitions_.empty());
}

// A target may lose answers and, with them, their credits. The window of each is closed and the channel stays, until
// nothing can be sent on it.
TEST_F(Windows, ATargetWhoseAnswersGetLostIsLeftWhenNoCreditIsLeft) {
    build_with([](TargetPortConfig& config) { config.parameters.queue_size = 4; });
    const auto logins = target_logins();
    holder_.mute_channel = device_->channels().at(0).id;
    while (link().submit(read()) == Submitted::sent) settle();
    const auto took = until([&] { return target_logins() > logins; }, 300s);
    ASSERT_TRUE(took.has_value());
    EXPECT_EQ(fabric_->windows(), 0U);
    holder_.mute_channel = 0;
    settle();
    EXPECT_TRUE(is_good(start_read(1)));
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
