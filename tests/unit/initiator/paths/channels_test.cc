// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Several channels under fire: one dies, one is slow, fewer are granted.

#include "world.h"

namespace srpfs::initiator {
namespace {

class Channels : public PathTest {
protected:
    void build_with(unsigned channels, unsigned queue_size = 8) {
        build([&](TargetPortConfig& config) {
            config.parameters.ch_count = channels;
            config.parameters.queue_size = queue_size;
        });
        ASSERT_EQ(live_channels(), channels);
        for (const auto& channel : device_->channels()) ids_.push_back(channel.id);
        ASSERT_EQ(ids_.size(), channels);
    }
    std::vector<Command*> start_reads(unsigned count) {
        std::vector<Command*> started;
        for (unsigned i = 0; i < count; ++i) started.push_back(&start_read(i));
        return started;
    }
    [[nodiscard]] unsigned count_good(const std::vector<Command*>& commands) const {
        return static_cast<unsigned>(
            std::count_if(commands.begin(), commands.end(), [&](const Command* one) { return is_good(*one); }));
    }
    [[nodiscard]] unsigned count_lost(const std::vector<Command*>& commands) const {
        return static_cast<unsigned>(std::count_if(commands.begin(), commands.end(), [&](const Command* one) {
            return is_done(*one) && one->result.end == CommandEnd::connection_lost;
        }));
    }
    // The others are used at once, no state changes, and all are replaced.
    void lose_and_carry_on(const std::vector<unsigned>& dead) {
        for (const unsigned channel : dead) device_->disconnect(ids_[channel]);
        settle();
        EXPECT_TRUE(transitions_.empty());
        EXPECT_EQ(count_good(start_reads(20)), 20U);
        EXPECT_TRUE(until([&] { return port_->facts().channels == ids_.size(); }, 30s).has_value());
    }
    std::vector<target::ChannelId> ids_;
};

TEST_F(Channels, OneDiesAndTheOthersCarryOn) {
    build_with(4);
    holder_.holds = true;
    const auto before = start_reads(8);  // two on each
    device_->disconnect(ids_[2]);
    settle();
    EXPECT_EQ(count_lost(before), 2U);
    EXPECT_TRUE(transitions_.empty()) << "the loss of one changes no state";
    holder_.holds = false;
    device_->release_held();
    settle();
    EXPECT_EQ(count_good(before), 6U);
    const auto after = start_reads(50);
    EXPECT_EQ(count_good(after), 50U);
    ASSERT_TRUE(until([&] { return port_->facts().channels == 4; }, 10s).has_value());
    EXPECT_TRUE(transitions_.empty());
    // The new one is used like the others.
    const auto reports = link().report();
    start_reads(40);
    for (const auto& now : link().report()) {
        const auto then =
            std::find_if(reports.begin(), reports.end(), [&](const auto& one) { return one.index == now.index; });
        ASSERT_NE(then, reports.end());
        EXPECT_EQ(now.commands - then->commands, 10U) << now.index;
    }
}

TEST_F(Channels, TheFirstIsNotSpecial) {
    build_with(3);
    lose_and_carry_on({0});
}

TEST_F(Channels, AllButOneDieAndThatOneCarriesOn) {
    build_with(4);
    lose_and_carry_on({0, 1, 3});
}

TEST_F(Channels, FewerAreGrantedAfterReconnecting) {
    build_with(4);
    holder_.logins_max = 2;
    device_->disconnect(std::nullopt);
    ASSERT_TRUE(until([&] { return state() == PortState::running && live_channels() == 2; }, 30s).has_value());
    EXPECT_EQ(port_->facts().channels, 2U);
    EXPECT_EQ(count_good(start_reads(30)), 30U);
    // What was not granted is not asked for again and again.
    const auto logins = target_logins(), rejected = device_->counters().logins_rejected;
    advance(300s);
    EXPECT_EQ(target_logins(), logins);
    EXPECT_EQ(device_->counters().logins_rejected, rejected);
    // The next login asks for all of them.
    holder_.logins_max = 0;
    device_->disconnect(std::nullopt);
    ASSERT_TRUE(until([&] { return state() == PortState::running && live_channels() == 4; }, 30s).has_value());
}

TEST_F(Channels, ASlowOneTakesNoMoreThanItsQueueAndTheOthersCarryOn) {
    build_with(3, 4);
    holder_.holds = true;
    holder_.held_channel = ids_[1];
    unsigned good = 0, sent = 0;
    for (unsigned i = 0; i < 200; ++i) {
        Command& command = read(i);
        ASSERT_EQ(link().submit(command), Submitted::sent) << "one slow channel stops the others, after " << i;
        settle();
        ++sent;
        good += is_good(command) ? 1 : 0;
    }
    EXPECT_EQ(sent - good, 4U) << "as many as fit into the slow one";
    advance(20s);
    EXPECT_TRUE(transitions_.empty()) << "slow is not silent";
    EXPECT_EQ(live_channels(), 3U);
    holder_.holds = false;
    device_->release_held();
    settle();
    EXPECT_EQ(link().report()[1].in_flight, 0U);
}

}  // namespace
}  // namespace srpfs::initiator
