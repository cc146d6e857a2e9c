// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Several channels of one target: turns, replacements and their probation, LUN RESET over all of them (decisions 1, 2,
// 4, 19; docs/recovery.md).
#include "port_fixture.h"

namespace srpfs::initiator {
namespace {

struct Sent final : CommandOwner {
    Command command;
    unsigned ends = 0;
    CommandResult result{};
    void on_command_done(Command& done) override {
        ++ends;
        result = done.result;
    }
};

struct Unit final : LinkListener {
    unsigned ready = 0, changed = 0, lost = 0;
    std::vector<PortState> states;
    std::function<void()> when_ready;
    void on_link_ready() override {
        ++ready;
        if (when_ready) when_ready();
    }
    void on_link_state(PortState state) override { states.push_back(state); }
    void on_link_changed() override { ++changed; }
    void on_link_event(const scsi::Lun&, const scsi::Sense&) override {}
    void on_channel_lost(const Channel&) override { ++lost; }
    void on_reset_sent(const scsi::Lun&) override {}
    void on_reset_over(const scsi::Lun&, bool) override {}
};

class Channels : public PortTest {
protected:
    Channels() { config.parameters.ch_count = 2; }
    void TearDown() override {
        if (!port) return;
        link().detach(unit);
        PortTest::TearDown();
        for (const auto& one : commands) EXPECT_EQ(one->ends, 1u);
    }
    void log_in_with(unsigned channels) {
        config.parameters.ch_count = channels;
        log_in();
        link().attach(unit);
        for (const auto& peer : fabric.peers) peer->keeps_test_unit_ready = keeps_test_unit_ready;
    }
    static std::unique_ptr<Sent> make(std::uint16_t lun) {
        auto one = std::make_unique<Sent>();
        one->command.owner = one.get();
        one->command.lun = scsi::Lun::from_number(lun);
        one->command.cdb.length = 6;
        one->command.cdb.bytes[0] = std::byte{0x12};
        return one;
    }
    // One that is sent.
    Sent& send(std::uint16_t lun = 0) {
        commands.push_back(make(lun));
        EXPECT_EQ(link().submit(commands.back()->command), Submitted::sent);
        return *commands.back();
    }
    Submitted try_to_send(std::uint16_t lun = 0) {
        rejected.owner = nullptr;
        rejected.lun = scsi::Lun::from_number(lun);
        return link().submit(rejected);
    }
    void reset(std::uint16_t lun = 0) {
        link().reset_unit(scsi::Lun::from_number(lun), [this](Result<void> result) {
            ++resets;
            reset_error = result ? 0 : result.error().errno_value();
        });
        settle();
    }
    // Channel 0 has no credit until it gets the four it was granted.
    void log_in_without_credit(unsigned channels) {
        fabric.login.credits = 4;
        log_in_with(channels);
        peer(0).say(scripted::credit_request(-4, 1));
        settle();
    }
    void give_credit() {
        peer(0).say(scripted::credit_request(4, 2));
        settle();
    }
    [[nodiscard]] Peer& peer(std::size_t index) { return *fabric.peers.at(index); }
    void answer_all(Peer& of) {
        for (scripted::Seen* seen : of.open_commands()) of.answer(*seen);
        settle();
    }

    bool keeps_test_unit_ready = false;
    Unit unit;
    std::vector<std::unique_ptr<Sent>> commands;
    Command rejected;
    unsigned resets = 0;
    int reset_error = -1;
};

TEST_F(Channels, AreUsedInTurn) {
    log_in_with(3);
    for (unsigned i = 0; i < 6; ++i) send();
    for (unsigned i = 0; i < 3; ++i) EXPECT_EQ(peer(i).commands.size(), 2u);
}

TEST_F(Channels, OneWithoutCreditIsPassedOver) {
    log_in_without_credit(2);
    send();
    send();
    EXPECT_EQ(peer(1).commands.size(), 2u);
    EXPECT_EQ(try_to_send(), Submitted::wait);
    link().wait_for_room(unit);
    link().wait_for_room(unit);
    give_credit();
    EXPECT_EQ(unit.ready, 1u);  // once, although it was asked for twice
}

class OneChannel : public Channels {
protected:
    // The unit waits for room on channel 0, and channel 1 has some.
    void wait_for_channel_0() {
        keeps_test_unit_ready = true;
        log_in_without_credit(2);
        pinned.lun = scsi::Lun::from_number(0);
        pinned.on_channel = 0;
        pinned.privileged = true;
        EXPECT_EQ(link().submit(pinned), Submitted::wait);
        link().wait_for_room(unit);
    }
    Command pinned;
};

TEST_F(OneChannel, WhoWaitsForItKeepsNobodyElseWaiting) {
    wait_for_channel_0();
    send(1);
    EXPECT_EQ(unit.ready, 0u);
    give_credit();
    EXPECT_EQ(unit.ready, 1u);
}

TEST_F(OneChannel, WhoWaitsForItIsToldWhenItEnds) {
    wait_for_channel_0();
    peer(0).end(fabric::EndReason::transport_error);
    settle();
    EXPECT_EQ(unit.ready, 1u);
}

TEST_F(Channels, WhatTheStateOfThePortMeansForCommands) {
    log_in_with(1);
    cut();
    EXPECT_EQ(try_to_send(), Submitted::wait);
    advance(15s);
    EXPECT_EQ(try_to_send(), Submitted::fail_fast);
    advance(600s);
    ASSERT_EQ(port->state(), PortState::lost);
    EXPECT_EQ(unit.states, (std::vector<PortState>{PortState::blocked, PortState::fail_fast, PortState::lost}));
}

TEST_F(Channels, LosingOneOfSeveralChangesNoStateAndItIsReplacedAtOnce) {
    log_in_with(2);
    peer(0).end(fabric::EndReason::transport_error, "the cable is pulled");
    settle();
    EXPECT_EQ(port->state(), PortState::running);
    EXPECT_TRUE(changes.empty());
    ASSERT_EQ(fabric.peers.size(), 3u);
    EXPECT_EQ(action(peer(2)), 1u);  // "multi": the others stay
    EXPECT_EQ(port->facts().channels, 2u);
    EXPECT_EQ(logins, 2u);  // the units are looked at before their I/O goes on
    EXPECT_EQ(unit.changed, 1u);
}

TEST_F(Channels, AReplacementIsNotUsedBeforeAnOldChannelHasVouchedForIt) {
    keeps_test_unit_ready = true;
    log_in_with(2);
    peer(0).end(fabric::EndReason::transport_error);
    settle();
    ASSERT_EQ(fabric.peers.size(), 3u);
    ASSERT_TRUE(peer(2).is_live);
    EXPECT_EQ(port->facts().channels, 1u);
    ASSERT_EQ(peer(1).commands.size(), 1u);
    EXPECT_EQ(peer(1).commands[0].opcode(), 0x00u);  // TEST UNIT READY
    send();
    send();
    EXPECT_TRUE(peer(2).commands.empty());
    peer(1).answer(peer(1).commands[0]);
    settle();
    EXPECT_EQ(port->facts().channels, 2u);
    send();
    send();
    EXPECT_EQ(peer(2).commands.size(), 1u);
}

TEST_F(Channels, AnySenseVouchesAsWell) {
    keeps_test_unit_ready = true;
    log_in_with(2);
    peer(0).end(fabric::EndReason::transport_error);
    settle();
    peer(1).answer(peer(1).commands.at(0), scripted::check_condition(0x2, 0x3a, 0));
    settle();
    EXPECT_EQ(port->facts().channels, 2u);
}

TEST_F(Channels, IfTheLastOldChannelEndsTheReplacementGoesAsWell) {
    keeps_test_unit_ready = true;
    log_in_with(2);
    peer(0).end(fabric::EndReason::transport_error);
    settle();
    ASSERT_TRUE(peer(2).is_live);
    peer(1).end(fabric::EndReason::peer_disconnected);
    settle();
    EXPECT_TRUE(peer(2).is_gone);
    ASSERT_GE(fabric.peers.size(), 4u);
    EXPECT_EQ(action(peer(3)), 0u);  // "single" again
    EXPECT_EQ(port->state(), PortState::running);
}

// Silence proves nothing about the target's life: the old channels get 3 s, then a new login begins.
TEST_F(Channels, IfTheLastOldChannelIsSilentTheReplacementGoesAsWell) {
    keeps_test_unit_ready = true;
    log_in_with(2);
    peer(0).end(fabric::EndReason::transport_error);
    settle();
    ASSERT_TRUE(peer(2).is_live);
    advance(3s - 1ns);
    EXPECT_TRUE(peer(1).is_live);
    EXPECT_EQ(port->facts().channels, 1u);
    EXPECT_TRUE(peer(2).commands.empty()) << "it was used before anybody had vouched for it";
    advance(1ns);
    EXPECT_TRUE(peer(1).is_gone);
    EXPECT_TRUE(peer(2).is_gone);
    ASSERT_GE(fabric.peers.size(), 4u);
    EXPECT_EQ(action(peer(3)), 0u);  // "single"
}

TEST_F(Channels, OneOldChannelThatAnswersIsEnoughAndASilentOneIsEnded) {
    keeps_test_unit_ready = true;
    log_in_with(3);
    peer(0).end(fabric::EndReason::transport_error);
    settle();
    ASSERT_TRUE(peer(3).is_live);
    peer(2).answer(peer(2).commands.at(0));
    settle();
    EXPECT_EQ(port->facts().channels, 3u);
    advance(3s);
    EXPECT_TRUE(peer(1).is_gone);
    EXPECT_TRUE(peer(2).is_live);
    EXPECT_TRUE(peer(3).is_live);
    EXPECT_EQ(port->state(), PortState::running);
}

// What was asked before the replacement came up says nothing about it.
TEST_F(Channels, AnAnswerToAnEarlierQuestionDoesNotVouchForALaterReplacement) {
    keeps_test_unit_ready = true;
    log_in_with(2);
    peer(0).end(fabric::EndReason::transport_error);
    settle();
    ASSERT_TRUE(peer(2).is_live);
    ASSERT_EQ(peer(1).commands.size(), 1u);
    peer(2).end(fabric::EndReason::transport_error);
    settle();
    ASSERT_TRUE(advance_until([this] { return fabric.peers.size() == 4 && peer(3).is_live; }, 2s));
    peer(1).answer(peer(1).commands[0]);
    settle();
    EXPECT_EQ(port->facts().channels, 1u) << "accepted by an answer to what was asked before its login";
    ASSERT_EQ(peer(1).commands.size(), 2u);
    peer(1).answer(peer(1).commands[1]);
    settle();
    EXPECT_EQ(port->facts().channels, 2u);
}

TEST_F(Channels, AReplacementThatIsRefusedIsTriedAgain) {
    log_in_with(2);
    fabric.on_connect = [](Peer& asked) { asked.reject(28, scripted::login_reject(0x00010001)); };
    peer(0).end(fabric::EndReason::transport_error);
    settle();
    EXPECT_EQ(fabric.peers.size(), 3u);
    EXPECT_EQ(port->state(), PortState::running);
    mend();
    EXPECT_TRUE(advance_until([this] { return port->facts().channels == 2; }, 10s));
}

TEST_F(Channels, LosingAllOfThemBlocks) {
    log_in_with(3);
    cut();
    EXPECT_EQ(port->state(), PortState::blocked);
    EXPECT_EQ(changes.size(), 1u);
}

// ---- LUN RESET ----

TEST_F(Channels, AResetIsOneForAllChannels) {
    log_in_with(2);
    reset(3);
    ASSERT_EQ(peer(0).tasks.size() + peer(1).tasks.size(), 1u);
    Peer& used = peer(0).tasks.empty() ? peer(1) : peer(0);
    EXPECT_EQ(used.tasks[0].function, 0x08u);
    EXPECT_EQ(used.tasks[0].lun, 0x0003000000000000u);
    used.answer(used.tasks[0], 0x00);
    settle();
    EXPECT_EQ(resets, 1u);
    EXPECT_EQ(reset_error, 0);
}

TEST_F(Channels, MeanwhileTheUnitGetsNoCommandsAndOthersDo) {
    log_in_with(1);
    reset(3);
    EXPECT_EQ(try_to_send(3), Submitted::wait);
    send(4);
    link().wait_for_room(unit);
    peer(0).answer(peer(0).tasks.at(0), 0x00);
    settle();
    EXPECT_EQ(unit.ready, 1u);
    send(3);
}

// Whoever is refused for its reset and whoever is refused for want of credit stand in different lines.
TEST_F(Channels, AUnitThatIsBeingResetDoesNotKeepAnotherFromTheCreditItWaitsFor) {
    fabric.login.credits = 4;
    log_in_with(1);
    peer(0).say(scripted::credit_request(-2, 1));  // two are left: kept for task management and the like
    settle();
    Unit other;
    link().attach(other);
    std::vector<std::string> order;
    const auto go_on = [&](const char* name, Unit& one, std::uint16_t lun) {
        one.when_ready = [this, &order, &one, name, lun] {
            auto made = make(lun);
            const bool is_sent = link().submit(made->command) == Submitted::sent;
            if (is_sent)
                commands.push_back(std::move(made));
            else
                link().wait_for_room(one);
            order.push_back(fmt::format("{} {}", name, is_sent ? "sends" : "waits"));
        };
        one.when_ready();
    };
    go_on("reset", unit, 3);
    go_on("other", other, 4);
    reset(3);
    ASSERT_EQ(peer(0).tasks.size(), 1u);
    peer(0).say(scripted::credit_request(2, 2));
    settle();
    EXPECT_EQ(order, (std::vector<std::string>{"reset waits", "other waits", "reset waits", "other sends"}));
    ASSERT_EQ(peer(0).commands.size(), 1u);
    peer(0).answer(peer(0).commands[0]);
    settle();
    peer(0).answer(peer(0).tasks[0], 0x00);
    settle();
    EXPECT_EQ(order.back(), "reset sends");
    link().detach(other);
}

TEST_F(Channels, ResetsComeOneAfterTheOther) {
    log_in_with(1);
    reset(3);
    reset(4);
    reset(4);  // not sent yet: one will do for both
    EXPECT_EQ(resets, 0u);
    EXPECT_EQ(peer(0).tasks.size(), 1u);
    peer(0).answer(peer(0).tasks[0], 0x00);
    settle();
    EXPECT_EQ(resets, 1u);
    ASSERT_EQ(peer(0).tasks.size(), 2u);
    EXPECT_EQ(peer(0).tasks[1].lun, 0x0004000000000000u);
    peer(0).answer(peer(0).tasks[1], 0x00);
    settle();
    EXPECT_EQ(resets, 3u);
    EXPECT_EQ(reset_error, 0);
    EXPECT_EQ(peer(0).tasks.size(), 2u);
}

TEST_F(Channels, ALostConnectionEndsTheResetsThatWait) {
    log_in_with(1);
    reset(3);
    reset(4);
    cut();
    settle();
    EXPECT_EQ(resets, 1u);  // the one that was sent; the other one is looked at when the loss is known
    EXPECT_EQ(reset_error, ENOTCONN);
    advance(10ms);
    EXPECT_EQ(resets, 2u);
    EXPECT_EQ(reset_error, ENOTCONN);
}

TEST_F(Channels, AResetNeedsAConnection) {
    log_in_with(1);
    cut();
    reset();
    EXPECT_EQ(reset_error, ENOTCONN);
}

TEST_F(Channels, AResetWaitsForACredit) {
    log_in_without_credit(1);
    reset();
    advance(1s);
    EXPECT_EQ(resets, 0u);
    EXPECT_TRUE(peer(0).tasks.empty());
    give_credit();
    advance(10ms);
    ASSERT_EQ(peer(0).tasks.size(), 1u);
    peer(0).answer(peer(0).tasks.at(0), 0x00);
    settle();
    EXPECT_EQ(resets, 1u);
    EXPECT_EQ(reset_error, 0);
}

TEST_F(Channels, AResetWaitsForACreditForAsLongAsForAnAnswer) {
    log_in_without_credit(1);
    reset();
    advance(5s - 1ns);
    EXPECT_EQ(resets, 0u);
    advance(10ms);
    EXPECT_EQ(reset_error, ETIMEDOUT);
}

TEST_F(Channels, ARefusedResetIsAnError) {
    log_in_with(1);
    reset();
    peer(0).answer(peer(0).tasks.at(0), 0x05);
    settle();
    EXPECT_EQ(reset_error, EIO);
}

TEST_F(Channels, AResetWithoutAnAnswerIsATimeOutAfterFiveSeconds) {
    log_in_with(1);
    reset();
    advance(5s - 1ns);
    EXPECT_EQ(resets, 0u);
    advance(1ns);
    EXPECT_EQ(reset_error, ETIMEDOUT);
}

TEST_F(Channels, StragglersOfAResetHaveTwoSecondsThenTheirChannelIsReplacedAtOnce) {
    log_in_with(2);
    Sent& first = send();
    Sent& second = send();
    reset();
    ASSERT_EQ(peer(0).tasks.size() + peer(1).tasks.size(), 1u);
    Peer& carrier = peer(0).tasks.empty() ? peer(1) : peer(0);
    Peer& other = peer(0).tasks.empty() ? peer(0) : peer(1);
    Sent& dropped = &carrier == &peer(0) ? first : second;
    Sent& told = &carrier == &peer(0) ? second : first;
    carrier.answer(carrier.tasks[0], 0x00);
    other.answer(other.commands.at(0), {.status = 0x40});  // TASK ABORTED, as LIO on other channels
    advance(2s - 1ns);
    EXPECT_EQ(told.result.status, scsi::Status::task_aborted);
    EXPECT_EQ(dropped.ends, 0u);
    EXPECT_FALSE(carrier.is_leaving);
    advance(1ns);
    EXPECT_EQ(dropped.ends, 1u);
    EXPECT_EQ(dropped.result.end, CommandEnd::aborted);
    EXPECT_TRUE(carrier.is_gone);
    EXPECT_FALSE(other.is_leaving);
    ASSERT_EQ(fabric.peers.size(), 3u);
    EXPECT_EQ(action(peer(2)), 1u);
    EXPECT_EQ(port->state(), PortState::running);
}

TEST_F(Channels, AFailedResetLeavesTheCommandsAsTheyWere) {
    log_in_with(1);
    Sent& one = send();
    reset();
    peer(0).answer(peer(0).tasks.at(0), 0x05);
    advance(3s);
    EXPECT_EQ(one.ends, 0u);
    EXPECT_FALSE(peer(0).is_leaving);
    answer_all(peer(0));
    EXPECT_EQ(one.result.end, CommandEnd::answered);
}

// ---- a command nobody answers: ABORT TASK, LUN RESET, the end of the connection ----

TEST_F(Channels, ACommandThatIsNeverAnsweredGoesThroughEveryStep) {
    log_in_with(1);
    Sent& one = send(3);
    advance(30s);
    ASSERT_EQ(peer(0).tasks.size(), 1u);
    EXPECT_EQ(peer(0).tasks[0].function, 0x01u);
    EXPECT_EQ(peer(0).tasks[0].managed_tag, peer(0).commands[0].tag);
    EXPECT_EQ(peer(0).tasks[0].lun, 0x0003000000000000u);
    advance(5s);
    ASSERT_EQ(peer(0).tasks.size(), 2u);
    EXPECT_EQ(peer(0).tasks[1].function, 0x08u);
    EXPECT_EQ(one.ends, 0u);
    advance(5s);
    EXPECT_TRUE(peer(0).is_gone);
    EXPECT_EQ(one.ends, 1u);
    EXPECT_EQ(one.result.end, CommandEnd::connection_lost);
}

TEST_F(Channels, AnAbortThatTheTargetCannotDoBecomesAReset) {
    log_in_with(1);
    Sent& one = send();
    advance(30s);
    peer(0).answer(peer(0).tasks.at(0), 0x05);
    settle();
    ASSERT_EQ(peer(0).tasks.size(), 2u);
    EXPECT_EQ(peer(0).tasks[1].function, 0x08u);
    peer(0).answer(peer(0).tasks[1], 0x00);
    advance(2s);
    EXPECT_EQ(one.result.end, CommandEnd::aborted);
    EXPECT_EQ(port->state(), PortState::running);
}

TEST_F(Channels, AnAbortedCommandEndsWithItsChannelAfterTwoSeconds) {
    log_in_with(1);
    Sent& one = send();
    advance(30s);
    peer(0).answer(peer(0).tasks.at(0), 0x00);
    settle();
    EXPECT_EQ(one.ends, 0u);
    advance(2s);
    EXPECT_EQ(one.ends, 1u);
    EXPECT_EQ(one.result.end, CommandEnd::aborted);
    EXPECT_EQ(peer(0).tasks.size(), 1u);
}

}  // namespace
}  // namespace srpfs::initiator
