// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A live channel: how commands look on the wire, credits and their reserve, tags, what a target may send by itself, and
// what becomes of wrong bytes (srp-wire 4, 5, 7, 9 to 11; decisions 11, 23).
#include "channel_fixture.h"

#include <limits>
#include <set>

namespace srpfs::initiator {
namespace {

using scripted::async_event;
using scripted::credit_request;
using scripted::fixed_sense;
using scripted::response;
using scripted::target_logout;
using srp::DataDirection;

class ChannelCommands : public ChannelTest {
protected:
    // How many commands it takes now.
    unsigned send_all(bool privileged = false) {
        for (unsigned count = 0;; ++count) {
            Asked& one = prepare();
            one.command.privileged = privileged;
            if (!submit(one)) return count;
        }
    }
    void say(Bytes message) {
        fabric.last().say(std::move(message));
        settle();
    }
    void expect_dropped(const std::string& part) {
        ASSERT_EQ(ends.size(), 1u);
        EXPECT_TRUE(ends[0].was_live);
        EXPECT_EQ(ends[0].errno_value, ECONNRESET);
        EXPECT_FALSE(ends[0].replace_at_once);
        EXPECT_NE(ends[0].text.find(part), std::string::npos) << ends[0].text;
        EXPECT_EQ(channel->state(), ChannelState::dead);
    }
};

// ---- on the wire ----

TEST_F(ChannelCommands, ADataInCommandHasOneDirectDescriptor) {
    Peer& peer = connect_live();
    Asked& one = prepare(4096, DataDirection::from_target);
    one.command.lun = scsi::Lun::from_number(5);
    ASSERT_TRUE(submit(one));
    ASSERT_EQ(peer.commands.size(), 1u);
    const Seen& seen = peer.commands[0];
    EXPECT_EQ(seen.raw.size(), 64u);
    EXPECT_EQ(seen.format, 0x01u);
    EXPECT_EQ(seen.lun, 0x0005000000000000u);
    EXPECT_EQ(seen.length, 4096u);
    EXPECT_EQ(seen.memory().data(), one.command.data.data());
    EXPECT_EQ(number_at(seen.raw, 6, 2), 0u);  // no indirect descriptors
    EXPECT_EQ(seen.opcode(), 0x28u);
}

TEST_F(ChannelCommands, ACommandWithoutDataIs48Bytes) {
    Peer& peer = connect_live();
    send();
    EXPECT_EQ(peer.commands.at(0).raw.size(), 48u);
    EXPECT_EQ(peer.commands.at(0).format, 0u);
}

TEST_F(ChannelCommands, ASmallWriteTravelsInsideItsUnit) {
    Peer& peer = connect_live();
    Asked& one = prepare(8192, DataDirection::to_target);
    std::fill(one.command.data.begin(), one.command.data.end(), std::byte{0x5a});
    ASSERT_TRUE(submit(one));
    EXPECT_TRUE(one.command.immediate);
    EXPECT_EQ(peer.commands.at(0).raw.size(), 68u + 8192u);
    EXPECT_EQ(peer.commands.at(0).immediate, Bytes(8192, std::byte{0x5a}));
}

TEST_F(ChannelCommands, AWriteOneByteLongerIsFetchedByTheTarget) {
    Peer& peer = connect_live();
    Asked& one = send(8193, DataDirection::to_target);
    EXPECT_FALSE(one.command.immediate);
    EXPECT_EQ(peer.commands.at(0).format, 0x10u);
    EXPECT_EQ(peer.commands.at(0).length, 8193u);
}

TEST_F(ChannelCommands, ImmediateDataFillsTheTargetsUnitAndNoMore) {
    fabric.login.it_iu_bytes = 68 + 512;
    Peer& peer = connect_live();
    EXPECT_TRUE(send(512, DataDirection::to_target).command.immediate);
    EXPECT_FALSE(send(513, DataDirection::to_target).command.immediate);
    EXPECT_EQ(peer.commands.at(0).raw.size(), 68u + 512u);
}

TEST_F(ChannelCommands, NoTagIsUsedTwice) {
    Peer& peer = connect_live();
    std::set<std::uint64_t> tags;
    for (unsigned i = 0; i < 300; ++i) {
        send();
        EXPECT_TRUE(tags.insert(peer.commands.back().tag).second);
        EXPECT_EQ(peer.commands.back().tag >> 63, 0u);
        peer.answer(peer.commands.back());
        settle();
    }
}

// ---- credits: one is kept for task management, one for flushes and probes ----

TEST_F(ChannelCommands, TheLastTwoCreditsAreKept) {
    fabric.login.credits = 10;
    connect_live();
    EXPECT_EQ(send_all(), 8u);
    EXPECT_EQ(channel->credits(), 2);
    EXPECT_FALSE(channel->has_room(false));
    EXPECT_TRUE(channel->has_room(true));
    EXPECT_EQ(send_all(true), 1u);
    EXPECT_EQ(channel->credits(), 1);
    EXPECT_FALSE(channel->has_room(true));
}

TEST_F(ChannelCommands, TaskManagementGetsTheLastCredit) {
    fabric.login.credits = 10;
    Peer& peer = connect_live();
    send_all();
    send_all(true);
    TaskRequest task;
    task.on_done = [](std::optional<srp::TaskCode>) {};
    EXPECT_TRUE(channel->submit(task));
    EXPECT_EQ(channel->credits(), 0);
    ASSERT_EQ(peer.tasks.size(), 1u);
    peer.answer(peer.tasks[0], 0x00);
    settle();
    EXPECT_EQ(channel->credits(), 1);
}

TEST_F(ChannelCommands, WithoutAnyCreditNoTaskManagementIsSent) {
    fabric.login.credits = 4;
    Peer& peer = connect_live();
    say(credit_request(-4, 1));
    TaskRequest task;
    EXPECT_FALSE(channel->submit(task));
    EXPECT_TRUE(peer.tasks.empty());
}

TEST_F(ChannelCommands, AStingyTargetStillGetsCommands) {
    fabric.login.credits = 2;
    connect_live();
    EXPECT_EQ(send_all(), 1u);
}

TEST_F(ChannelCommands, ThreeCreditsLeaveNoneForProbesAlone) {
    fabric.login.credits = 3;
    connect_live();
    EXPECT_EQ(send_all(), 2u);
}

TEST_F(ChannelCommands, FourCreditsKeepOneForProbes) {
    fabric.login.credits = 4;
    connect_live();
    EXPECT_EQ(send_all(), 2u);
    EXPECT_EQ(send_all(true), 1u);
}

TEST_F(ChannelCommands, TheQueueSizeBoundsThemToo) {
    config.parameters.queue_size = 3;
    connect_live();
    EXPECT_EQ(send_all(), 3u);
    EXPECT_EQ(channel->in_flight(), 3u);
}

TEST_F(ChannelCommands, AResponseBringsTheCreditsItSays) {
    fabric.login.credits = 10;
    Peer& peer = connect_live();
    send();
    peer.answer(peer.commands[0], {.delta = 5});
    settle();
    EXPECT_EQ(channel->credits(), 14);
}

TEST_F(ChannelCommands, ADeltaMayBeNegativeAndSoMayTheCredits) {
    fabric.login.credits = 10;
    Peer& peer = connect_live();
    send();
    peer.answer(peer.commands[0], {.delta = -12});
    settle();
    EXPECT_EQ(channel->credits(), -3);
    EXPECT_EQ(channel->state(), ChannelState::live);
    EXPECT_FALSE(channel->has_room(true));
}

TEST_F(ChannelCommands, CreditsBeyondTheQueueAreNoFault) {
    Peer& peer = connect_live();
    send();
    peer.answer(peer.commands[0], {.delta = 1'000'000'000});
    settle();
    EXPECT_EQ(channel->state(), ChannelState::live);
    EXPECT_EQ(send_all(), config.parameters.queue_size);
}

TEST_F(ChannelCommands, CreditsThatCannotBeCountedEndTheChannel) {
    Peer& peer = connect_live();
    send();
    peer.answer(peer.commands[0], {.delta = std::numeric_limits<std::int32_t>::max()});
    settle();
    expect_dropped("cannot be counted");
}

TEST_F(ChannelCommands, CreditsThatCannotBeCountedDownEndTheChannel) {
    connect_live();
    say(credit_request(-1000, 1));
    say(credit_request(std::numeric_limits<std::int32_t>::min(), 2));
    expect_dropped("be counted");
}

TEST_F(ChannelCommands, ARefusedSendCostsNoCredit) {
    Peer& peer = connect_live();
    peer.refuses_sends = true;
    EXPECT_FALSE(submit(prepare()));
    EXPECT_EQ(channel->credits(), 64);
    EXPECT_EQ(channel->in_flight(), 0u);
    peer.refuses_sends = false;
    send();
    peer.answer(peer.commands[0]);
    settle();
    EXPECT_EQ(rooms, 1u);
}

TEST_F(ChannelCommands, WhoWasRefusedIsToldOnceThereIsRoom) {
    fabric.login.credits = 4;
    Peer& peer = connect_live();
    send_all();
    EXPECT_EQ(channel->counters().out_of_credits, 1u);
    peer.answer(peer.commands[0]);
    settle();
    EXPECT_EQ(rooms, 1u);
    peer.answer(peer.commands[1]);
    settle();
    EXPECT_EQ(rooms, 1u);  // nobody asked again
}

TEST_F(ChannelCommands, ACreditRequestGivesRoomToo) {
    fabric.login.credits = 4;
    connect_live();
    send_all();
    say(credit_request(1, 9));
    EXPECT_EQ(rooms, 1u);
}

TEST_F(ChannelCommands, ATargetThatGrantsNoCreditFor30SecondsIsLeft) {
    fabric.login.credits = 4;
    connect_live();
    say(credit_request(-4, 1));
    EXPECT_FALSE(submit(prepare()));
    advance(30s - 1ns);
    EXPECT_TRUE(ends.empty());
    advance(1ns);
    expect_dropped("grants no credit");
}

// An idle channel whose peer is gone looks like one that only has no credit.
TEST_F(ChannelCommands, AnIdleTargetThatGrantsNoCreditForAQuestionIsLeftAfter30Seconds) {
    fabric.login.credits = 4;
    connect_live();
    say(credit_request(-3, 1));
    Asked& question = prepare();
    question.command.checks_path = true;
    EXPECT_FALSE(submit(question));
    advance(30s - 1ns);
    EXPECT_TRUE(ends.empty());
    advance(1ns);
    expect_dropped("grants no credit");
}

// They use a credit that nobody else gets. Looking at the units every few seconds must not hide that the others starve.
TEST_F(ChannelCommands, PrivilegedCommandsThatGoOnDoNotHideThatTheOthersStarve) {
    fabric.login.credits = 4;
    Peer& peer = connect_live();
    say(credit_request(-2, 1));
    EXPECT_FALSE(submit(prepare()));
    for (unsigned i = 0; i < 10 && ends.empty(); ++i) {
        Asked& look = prepare();
        look.command.privileged = true;
        ASSERT_TRUE(submit(look));
        peer.answer(peer.commands.back());
        advance(5s);
    }
    expect_dropped("grants no credit");
}

TEST_F(ChannelCommands, NobodyWaitingMeansNobodyStarves) {
    fabric.login.credits = 4;
    connect_live();
    say(credit_request(-4, 1));
    advance(1h);
    EXPECT_TRUE(ends.empty());
}

TEST_F(ChannelCommands, ACreditInTimeSavesTheChannel) {
    fabric.login.credits = 4;
    connect_live();
    say(credit_request(-4, 1));
    EXPECT_FALSE(submit(prepare()));
    advance(29s);
    say(credit_request(4, 2));
    advance(1h);
    EXPECT_TRUE(ends.empty());
}

// ---- what is counted ----

TEST_F(ChannelCommands, BytesAndTimesOfWhatSucceededAreCounted) {
    Peer& peer = connect_live();
    send(4096, DataDirection::from_target);
    send(512, DataDirection::to_target);
    send();
    send(8192, DataDirection::from_target);
    advance(300us);
    for (std::size_t i = 0; i < 3; ++i) peer.answer(peer.commands[i]);
    settle();
    advance(700us);
    peer.answer(peer.commands[3], {.in_under = 192});
    settle();

    const ChannelCounters& counters = channel->counters();
    EXPECT_EQ(counters.bytes_read, 4096u + 8000u);
    EXPECT_EQ(counters.bytes_written, 512u);
    const LatencySnapshot reads = counters.read_latency.read();
    EXPECT_EQ(reads.count, 2u);
    EXPECT_EQ(reads.counts[latency_bucket_of(300us)], 1u);
    EXPECT_EQ(reads.counts[latency_bucket_of(1000us)], 1u);
    EXPECT_EQ(reads.sum_us, 1300u);
    EXPECT_EQ(counters.write_latency.read().quantile_us(990), latency_bucket_end_us(latency_bucket_of(300us)));
    EXPECT_EQ(counters.other_latency.read().count, 1u);
    for (const Count& errors : counters.errors_by_kind) EXPECT_EQ(errors, 0u);
}

TEST_F(ChannelCommands, ErrorsAreCountedByKindAndNothingElseOfThem) {
    Peer& peer = connect_live();
    constexpr std::uint8_t statuses[] = {0x02, 0x08, 0x18, 0x28, 0x30, 0x28, 0x07};
    for (std::size_t i = 0; i < std::size(statuses); ++i) {
        send(512, DataDirection::from_target);
        peer.answer(peer.commands[i], {.status = statuses[i]});
    }
    send(512, DataDirection::from_target);
    const auto gauges = channel->gauges();
    settle();
    channel->disconnect("enough");
    settle();

    const auto errors = [&](CommandFault fault) -> std::uint64_t {
        return gauges->counters.errors_by_kind[static_cast<std::size_t>(fault)];
    };
    EXPECT_EQ(errors(CommandFault::check_condition), 1u);
    EXPECT_EQ(errors(CommandFault::busy), 1u);
    EXPECT_EQ(errors(CommandFault::reservation_conflict), 1u);
    EXPECT_EQ(errors(CommandFault::task_set_full), 2u);
    EXPECT_EQ(errors(CommandFault::other_status), 2u);
    EXPECT_EQ(errors(CommandFault::aborted), 0u);
    EXPECT_EQ(errors(CommandFault::connection_lost), 1u);
    EXPECT_EQ(gauges->counters.bytes_read, 0u);
    EXPECT_EQ(gauges->counters.read_latency.read().count, 0u);
}

TEST_F(ChannelCommands, APathCheckIsNoCommandOfAnybodys) {
    Peer& peer = connect_live();
    Asked& one = prepare();
    one.command.checks_path = true;
    ASSERT_TRUE(submit(one));
    peer.answer(peer.commands[0]);
    settle();

    EXPECT_EQ(one.owner.ends, 1u);
    EXPECT_EQ(channel->counters().path_checks, 1u);
    EXPECT_EQ(channel->counters().commands, 0u);
    EXPECT_EQ(channel->counters().other_latency.read().count, 0u);
}

// ---- what a command ends with ----

TEST_F(ChannelCommands, StatusAndSenseArrive) {
    Peer& peer = connect_live();
    Asked& one = send();
    peer.answer(peer.commands[0], scripted::check_condition(0x3, 0x11, 0x04));
    settle();
    EXPECT_EQ(one.owner.ends, 1u);
    EXPECT_EQ(one.owner.result.end, CommandEnd::answered);
    EXPECT_EQ(one.owner.result.status, scsi::Status::check_condition);
    EXPECT_TRUE(one.owner.result.sense.valid);
    EXPECT_EQ(one.owner.result.sense.key, scsi::SenseKey::medium_error);
    EXPECT_EQ(one.owner.result.sense.asc, 0x11);
    EXPECT_EQ(one.owner.result.sense.ascq, 0x04);
}

TEST_F(ChannelCommands, SenseOfTheCommandBeforeIsNotKept) {
    Peer& peer = connect_live();
    Asked& one = send();
    peer.answer(peer.commands[0], scripted::check_condition(0x3, 0x11, 0));
    settle();
    one.owner.ends = 0;
    ASSERT_TRUE(submit(one));
    peer.answer(peer.commands[1], {.status = 0x02});
    settle();
    EXPECT_FALSE(one.owner.result.sense.valid);
}

TEST_F(ChannelCommands, SenseWhoseLengthLiesIsDroppedAndTheStatusKept) {
    Peer& peer = connect_live();
    Asked& one = send();
    Bytes message = response(peer.commands[0].tag, scripted::check_condition(0x3, 0x11, 0));
    scripted::put(message, 28, 4, 19);
    say(message);
    EXPECT_EQ(one.owner.ends, 1u);
    EXPECT_EQ(one.owner.result.status, scsi::Status::check_condition);
    EXPECT_FALSE(one.owner.result.sense.valid);
    EXPECT_EQ(channel->state(), ChannelState::live);
}

TEST_F(ChannelCommands, AnUnderrunOfAReadIsAResidual) {
    Peer& peer = connect_live();
    Asked& one = send(4096, DataDirection::from_target);
    peer.answer(peer.commands[0], {.in_under = 100});
    settle();
    EXPECT_EQ(one.owner.result.residual, 100u);
    EXPECT_FALSE(one.owner.result.overflow);
}

TEST_F(ChannelCommands, AnUnderrunOfAWriteIsAResidual) {
    Peer& peer = connect_live();
    Asked& one = send(4096, DataDirection::to_target);
    peer.answer(peer.commands[0], {.out_under = 4096});
    settle();
    EXPECT_EQ(one.owner.result.residual, 4096u);
}

TEST_F(ChannelCommands, AResidualLargerThanTheTransferIsTheTransfer) {
    Peer& peer = connect_live();
    Asked& one = send(4096, DataDirection::from_target);
    peer.answer(peer.commands[0], {.in_under = 0xffffffff});
    settle();
    EXPECT_EQ(one.owner.result.residual, 4096u);
}

TEST_F(ChannelCommands, AnOverrunIsToldAsSuch) {
    Peer& peer = connect_live();
    Asked& one = send(4096, DataDirection::from_target);
    peer.answer(peer.commands[0], {.in_over = 512});
    settle();
    EXPECT_TRUE(one.owner.result.overflow);
    EXPECT_EQ(one.owner.result.residual, 0u);
}

TEST_F(ChannelCommands, ResidualCountsWithoutTheirFlagMeanNothing) {
    Peer& peer = connect_live();
    Asked& one = send(4096, DataDirection::from_target);
    Bytes message = response(peer.commands[0].tag, {});
    scripted::put(message, 20, 8, 0x0000100000001000);
    say(message);
    EXPECT_EQ(one.owner.result.residual, 0u);
    EXPECT_FALSE(one.owner.result.overflow);
}

TEST_F(ChannelCommands, AnAnswerMayBeFollowedByTheNextCommandAtOnce) {
    config.parameters.queue_size = 1;
    Peer& peer = connect_live();
    Asked& next = prepare();
    Asked& one = send();
    one.owner.then = [&] { EXPECT_TRUE(submit(next)); };
    peer.answer(peer.commands[0]);
    settle();
    ASSERT_EQ(peer.commands.size(), 2u);
    peer.answer(peer.commands[1]);
    settle();
    EXPECT_EQ(next.owner.ends, 1u);
}

// ---- strange tags: logged, counted, their credits taken; more than 16 a minute end the channel ----

TEST_F(ChannelCommands, SixteenStrangeTagsAMinuteAreBorne) {
    connect_live();
    for (unsigned i = 0; i < 16; ++i) say(response(0x7777000000000000 + i, {}));
    EXPECT_EQ(channel->state(), ChannelState::live);
    EXPECT_EQ(channel->counters().unknown_tags, 16u);
    EXPECT_EQ(channel->credits(), 64 + 16);
}

TEST_F(ChannelCommands, TheSeventeenthStrangeTagEndsTheChannel) {
    connect_live();
    for (unsigned i = 0; i < 16; ++i) say(response(0x7777000000000000 + i, {}));
    advance(59s);
    say(response(0x7777000000000000, {}));
    expect_dropped("unknown tags");
}

TEST_F(ChannelCommands, StrangeTagsAreForgottenAfterAMinute) {
    connect_live();
    for (unsigned minute = 0; minute < 5; ++minute) {
        for (unsigned i = 0; i < 16; ++i) say(response(0x7777000000000000 + i, {}));
        advance(60s + 1ns);
    }
    EXPECT_EQ(channel->state(), ChannelState::live);
}

TEST_F(ChannelCommands, ASecondResponseIsAStrangeTag) {
    Peer& peer = connect_live();
    Asked& one = send();
    peer.answer(peer.commands[0]);
    peer.say(response(peer.commands[0].tag, {.status = 0x02}));
    settle();
    EXPECT_EQ(one.owner.ends, 1u);
    EXPECT_EQ(one.owner.result.status, scsi::Status::good);
    EXPECT_EQ(channel->counters().unknown_tags, 1u);
}

TEST_F(ChannelCommands, AStaleTagDoesNotEndTheSlotsNextCommand) {
    config.parameters.queue_size = 1;
    Peer& peer = connect_live();
    send();
    peer.answer(peer.commands[0]);
    settle();
    Asked& next = send();
    say(response(peer.commands[0].tag, {}));
    EXPECT_EQ(next.owner.ends, 0u);
    EXPECT_EQ(channel->counters().unknown_tags, 1u);
    peer.answer(peer.commands[1]);
    settle();
    EXPECT_EQ(next.owner.ends, 1u);
}

TEST_F(ChannelCommands, ATagBeyondTheQueueIsStrange) {
    connect_live();
    say(response(0x1ffff, {}));
    EXPECT_EQ(channel->counters().unknown_tags, 1u);
}

// ---- what the target asks ----

TEST_F(ChannelCommands, ACreditRequestIsAppliedAndAnswered) {
    Peer& peer = connect_live();
    say(credit_request(7, 0x1122334455667788));
    EXPECT_EQ(channel->credits(), 71);
    ASSERT_EQ(peer.others.size(), 1u);
    EXPECT_EQ(peer.others[0].size(), 16u);
    EXPECT_EQ(number_at(peer.others[0], 0, 1), 0x41u);
    EXPECT_EQ(number_at(peer.others[0], 1, 7), 0u);
    EXPECT_EQ(number_at(peer.others[0], 8, 8), 0x1122334455667788u);
}

TEST_F(ChannelCommands, ACutCreditRequestIsNeitherAppliedNorAnswered) {
    Peer& peer = connect_live();
    Bytes cut = credit_request(7, 1);
    cut.resize(15);
    say(cut);
    EXPECT_EQ(channel->credits(), 64);
    EXPECT_TRUE(peer.others.empty());
    EXPECT_EQ(channel->state(), ChannelState::live);
}

TEST_F(ChannelCommands, AnAsynchronousEventIsAppliedAnsweredAndPassedOn) {
    Peer& peer = connect_live();
    say(async_event(3, 0x99, 0x0005000000000000, fixed_sense(0x6, 0x3f, 0x0e)));
    EXPECT_EQ(channel->credits(), 67);
    ASSERT_EQ(peer.others.size(), 1u);
    EXPECT_EQ(number_at(peer.others[0], 0, 1), 0x42u);
    EXPECT_EQ(number_at(peer.others[0], 8, 8), 0x99u);
    ASSERT_EQ(events.size(), 1u);
    EXPECT_EQ(events[0].first, scsi::Lun::from_number(5));
    EXPECT_EQ(events[0].second.asc, 0x3f);
    EXPECT_EQ(events[0].second.ascq, 0x0e);
}

TEST_F(ChannelCommands, AnEventWhoseSenseLengthLiesHasNoSense) {
    connect_live();
    Bytes message = async_event(0, 1, 0, fixed_sense(0x6, 0x3f, 0x0e));
    scripted::put(message, 28, 4, 19);
    say(message);
    ASSERT_EQ(events.size(), 1u);
    EXPECT_FALSE(events[0].second.valid);
}

TEST_F(ChannelCommands, ACutEventIsNeitherAppliedNorAnswered) {
    Peer& peer = connect_live();
    Bytes cut = async_event(3, 1, 0, {});
    cut.resize(35);
    say(cut);
    EXPECT_EQ(channel->credits(), 64);
    EXPECT_TRUE(peer.others.empty());
    EXPECT_TRUE(events.empty());
    EXPECT_EQ(channel->state(), ChannelState::live);
}

TEST_F(ChannelCommands, ATargetLogoutEndsTheChannel) {
    connect_live();
    say(target_logout(4));
    expect_dropped("another login");
}

TEST_F(ChannelCommands, ACutTargetLogoutEndsTheChannelToo) {
    connect_live();
    Bytes cut = target_logout(1);
    cut.resize(15);
    say(cut);
    expect_dropped("logged us out");
}

// ---- wrong bytes ----

TEST_F(ChannelCommands, ACutResponseEndsTheChannel) {
    Peer& peer = connect_live();
    Asked& one = send();
    Bytes cut = response(peer.commands[0].tag, {});
    cut.resize(35);
    say(cut);
    expect_dropped("malformed response");
    EXPECT_EQ(channel->counters().malformed, 1u);
    EXPECT_EQ(one.owner.result.end, CommandEnd::connection_lost);
}

TEST_F(ChannelCommands, AnUnknownUnitEndsTheChannel) {
    connect_live();
    Bytes message = response(1, {});
    message[0] = std::byte{0x55};
    say(message);
    expect_dropped("0x55");
}

TEST_F(ChannelCommands, AnEmptyMessageEndsTheChannel) {
    connect_live();
    say({});
    expect_dropped("empty");
}

TEST_F(ChannelCommands, ALoginResponseOutOfPlaceEndsTheChannel) {
    connect_live();
    say(scripted::login_response({}));
    expect_dropped("0xc0");
}

// ---- task management ----

class ChannelTasks : public ChannelCommands {
protected:
    bool send_task() {
        task.lun = scsi::Lun::from_number(3);
        task.managed_tag = 0xffffffff;
        task.on_done = [this](std::optional<srp::TaskCode> code) {
            ++done;
            answer = code;
        };
        return channel->submit(task);
    }
    TaskRequest task;
    unsigned done = 0;
    std::optional<srp::TaskCode> answer;
};

TEST_F(ChannelTasks, ATaskIsWrittenAsIbSrpDoes) {
    Peer& peer = connect_live();
    ASSERT_TRUE(send_task());
    ASSERT_EQ(peer.tasks.size(), 1u);
    EXPECT_EQ(peer.tasks[0].function, 0x08u);
    EXPECT_EQ(peer.tasks[0].lun, 0x0003000000000000u);
    EXPECT_EQ(peer.tasks[0].managed_tag, 0xffffffffu);
    peer.answer(peer.tasks[0], 0x00);
    settle();
    EXPECT_EQ(answer, srp::TaskCode::complete);
}

TEST_F(ChannelTasks, TheirTagsAreNoCommandsTags) {
    Peer& peer = connect_live();
    ASSERT_TRUE(send_task());
    EXPECT_EQ(peer.tasks[0].tag >> 63, 1u);
    peer.answer(peer.tasks[0], 0x00);
    settle();
    ASSERT_TRUE(send_task());
    EXPECT_NE(peer.tasks[1].tag, peer.tasks[0].tag);
    peer.answer(peer.tasks[1], 0x00);
    settle();
}

class ChannelTaskCode : public ChannelTasks, public testing::WithParamInterface<std::pair<unsigned, srp::TaskCode>> {};
TEST_P(ChannelTaskCode, IsToldAsItIs) {
    Peer& peer = connect_live();
    ASSERT_TRUE(send_task());
    peer.answer(peer.tasks[0], GetParam().first);
    settle();
    EXPECT_EQ(answer, GetParam().second);
}
INSTANTIATE_TEST_SUITE_P(Codes, ChannelTaskCode,
                         testing::Values(std::pair{0x00U, srp::TaskCode::complete},
                                         std::pair{0x02U, srp::TaskCode::request_fields_invalid},
                                         std::pair{0x04U, srp::TaskCode::not_supported},
                                         std::pair{0x05U, srp::TaskCode::failed},
                                         std::pair{0x77U, srp::TaskCode::failed}));

TEST_F(ChannelTasks, AnAnswerWithoutACodeIsAFailure) {
    Peer& peer = connect_live();
    ASSERT_TRUE(send_task());
    say(response(peer.tasks[0].tag, {}));
    EXPECT_EQ(answer, srp::TaskCode::failed);
}

TEST_F(ChannelTasks, AnAnswerWithThreeBytesIsAFailure) {
    Peer& peer = connect_live();
    ASSERT_TRUE(send_task());
    Bytes message = response(peer.tasks[0].tag, {.task_code = 0});
    scripted::put(message, 32, 4, 3);
    message.resize(39);
    say(message);
    EXPECT_EQ(answer, srp::TaskCode::failed);
}

TEST_F(ChannelTasks, OnlyOneIsUnderWay) {
    Peer& peer = connect_live();
    ASSERT_TRUE(send_task());
    TaskRequest second;
    EXPECT_FALSE(channel->submit(second));
    EXPECT_EQ(peer.tasks.size(), 1u);
}

TEST_F(ChannelTasks, NoAnswerInTimeIsNoAnswer) {
    connect_live();
    task.time_limit = 5s;
    ASSERT_TRUE(send_task());
    advance(5s - 1ns);
    EXPECT_EQ(done, 0u);
    advance(1ns);
    EXPECT_EQ(done, 1u);
    EXPECT_FALSE(answer.has_value());
    EXPECT_EQ(channel->state(), ChannelState::live);
}

TEST_F(ChannelTasks, AnAnswerThatIsTooLateOnlyBringsItsCredit) {
    Peer& peer = connect_live();
    ASSERT_TRUE(send_task());
    advance(5s);
    EXPECT_EQ(channel->credits(), 63);
    peer.answer(peer.tasks[0], 0x00);
    settle();
    EXPECT_EQ(done, 1u);
    EXPECT_EQ(channel->credits(), 64);
    EXPECT_EQ(channel->counters().unknown_tags, 0u);
}

TEST_F(ChannelTasks, ALateAnswerDoesNotAnswerTheNextOne) {
    Peer& peer = connect_live();
    ASSERT_TRUE(send_task());
    advance(5s);
    done = 0;
    ASSERT_TRUE(send_task());
    peer.answer(peer.tasks[0], 0x00);
    settle();
    EXPECT_EQ(done, 0u);
    peer.answer(peer.tasks[1], 0x05);
    settle();
    EXPECT_EQ(answer, srp::TaskCode::failed);
}

TEST_F(ChannelTasks, AConnectionThatIsLostAnswersNone) {
    Peer& peer = connect_live();
    ASSERT_TRUE(send_task());
    peer.end(fabric::EndReason::transport_error);
    settle();
    EXPECT_EQ(done, 1u);
    EXPECT_FALSE(answer.has_value());
}

TEST_F(ChannelTasks, ASubmittedTaskIsRefusedOnADeadChannel) {
    Peer& peer = connect_live();
    peer.end(fabric::EndReason::transport_error);
    settle();
    EXPECT_FALSE(send_task());
}

// ---- the end ----

TEST_F(ChannelCommands, CommandsEndOnlyWhenNothingCanTouchTheirMemory) {
    Peer& peer = connect_live();
    Asked& one = send(4096, DataDirection::from_target);
    peer.holds_gone = true;
    peer.end(fabric::EndReason::transport_error, "retries exhausted");
    settle();
    ASSERT_EQ(ends.size(), 1u);
    EXPECT_EQ(one.owner.ends, 0u);
    advance(1h);
    EXPECT_EQ(one.owner.ends, 0u);
    peer.let_go();
    settle();
    EXPECT_EQ(one.owner.ends, 1u);
    EXPECT_EQ(one.owner.result.end, CommandEnd::connection_lost);
    EXPECT_EQ(gone, 1u);
}

TEST_F(ChannelCommands, TheTargetsDisconnectIsAReasonOfItsOwn) {
    Peer& peer = connect_live();
    peer.end(fabric::EndReason::peer_disconnected, "DREQ received");
    settle();
    ASSERT_EQ(ends.size(), 1u);
    EXPECT_EQ(ends[0].reason, fabric::EndReason::peer_disconnected);
    EXPECT_TRUE(ends[0].was_live);
    EXPECT_FALSE(ends[0].timed_out);
}

TEST_F(ChannelCommands, ADisconnectOfOursIsToldAsOurs) {
    connect_live();
    Asked& one = send();
    channel->disconnect("logging out");
    settle();
    ASSERT_EQ(ends.size(), 1u);
    EXPECT_EQ(ends[0].reason, fabric::EndReason::closed);
    EXPECT_EQ(ends[0].text, "logging out");
    EXPECT_EQ(one.owner.result.end, CommandEnd::connection_lost);
}

TEST_F(ChannelCommands, TheFirstCauseOfAnEndIsTheOneTold) {
    Peer& peer = connect_live();
    peer.say({});
    peer.end(fabric::EndReason::device_removed, "unplugged");
    settle();
    ASSERT_EQ(ends.size(), 1u);
    EXPECT_NE(ends[0].text.find("empty"), std::string::npos);
}

TEST_F(ChannelCommands, NothingIsTakenOnceTheEndIsKnown) {
    Peer& peer = connect_live();
    peer.holds_gone = true;
    peer.end(fabric::EndReason::peer_disconnected);
    settle();
    EXPECT_FALSE(submit(prepare()));
}

TEST_F(ChannelCommands, DrainingTakesNothingNewAndEndsWithTheLastAnswer) {
    Peer& peer = connect_live();
    send();
    channel->drain("a reason");
    EXPECT_EQ(channel->state(), ChannelState::draining);
    EXPECT_FALSE(submit(prepare()));
    settle();
    EXPECT_TRUE(ends.empty());
    peer.answer(peer.commands[0]);
    settle();
    ASSERT_EQ(ends.size(), 1u);
    EXPECT_TRUE(ends[0].replace_at_once);
    EXPECT_EQ(ends[0].text, "a reason");
    EXPECT_EQ(asked[0]->owner.result.end, CommandEnd::answered);
}

TEST_F(ChannelCommands, DrainingAnIdleChannelEndsItAtOnce) {
    connect_live();
    channel->drain("a reason");
    settle();
    EXPECT_EQ(gone, 1u);
}

TEST_F(ChannelCommands, AChannelLostWhileDrainingWasNotOurChoice) {
    Peer& peer = connect_live();
    send();
    channel->drain("a reason");
    peer.end(fabric::EndReason::transport_error);
    settle();
    ASSERT_EQ(ends.size(), 1u);
    EXPECT_FALSE(ends[0].replace_at_once);
}

// ---- covered by a LUN RESET ----

TEST_F(ChannelCommands, ACommandCoveredByASuccessfulResetEndsAborted) {
    Peer& peer = connect_live();
    Asked& one = send();
    EXPECT_EQ(channel->mark_for_fence(scsi::Lun{}), 1u);
    channel->settle_fence(scsi::Lun{}, true, true);
    EXPECT_EQ(channel->fenced_in_flight(scsi::Lun{}), 1u);
    peer.end(fabric::EndReason::transport_error);
    settle();
    EXPECT_EQ(one.owner.result.end, CommandEnd::aborted);
}

TEST_F(ChannelCommands, AResetThatFailedProvesNothing) {
    Peer& peer = connect_live();
    Asked& one = send();
    channel->mark_for_fence(scsi::Lun{});
    channel->settle_fence(scsi::Lun{}, false, true);
    EXPECT_EQ(channel->fenced_in_flight(scsi::Lun{}), 0u);
    peer.end(fabric::EndReason::transport_error);
    settle();
    EXPECT_EQ(one.owner.result.end, CommandEnd::connection_lost);
}

TEST_F(ChannelCommands, AConnectionLostBeforeTheResetsAnswerProvesNothing) {
    Peer& peer = connect_live();
    Asked& one = send();
    channel->mark_for_fence(scsi::Lun{});
    peer.end(fabric::EndReason::transport_error);
    settle();
    EXPECT_EQ(one.owner.result.end, CommandEnd::connection_lost);
}

TEST_F(ChannelCommands, AResetOfOneUnitCoversNoOther) {
    Peer& peer = connect_live();
    Asked& other = prepare();
    other.command.lun = scsi::Lun::from_number(1);
    ASSERT_TRUE(submit(other));
    EXPECT_EQ(channel->mark_for_fence(scsi::Lun{}), 0u);
    channel->settle_fence(scsi::Lun{}, true, true);
    peer.end(fabric::EndReason::transport_error);
    settle();
    EXPECT_EQ(other.owner.result.end, CommandEnd::connection_lost);
}

TEST_F(ChannelCommands, ACommandSentAfterTheMarkingIsNotCovered) {
    Peer& peer = connect_live();
    channel->mark_for_fence(scsi::Lun{});
    Asked& late = send();
    channel->settle_fence(scsi::Lun{}, true, true);
    peer.end(fabric::EndReason::transport_error);
    settle();
    EXPECT_EQ(late.owner.result.end, CommandEnd::connection_lost);
}

TEST_F(ChannelCommands, ACoveredCommandThatIsAnsweredAfterAllIsAnswered) {
    Peer& peer = connect_live();
    Asked& one = send();
    channel->mark_for_fence(scsi::Lun{});
    channel->settle_fence(scsi::Lun{}, true, true);
    peer.answer(peer.commands[0], {.status = 0x40});
    settle();
    EXPECT_EQ(one.owner.result.end, CommandEnd::answered);
    EXPECT_EQ(one.owner.result.status, scsi::Status::task_aborted);
}

TEST_F(ChannelCommands, AResetOnAnotherChannelMayHaveOvertakenWhatIsCovered) {
    connect_live();
    Asked& one = send();
    channel->mark_for_fence(scsi::Lun{});
    channel->settle_fence(scsi::Lun{}, true, false);
    EXPECT_EQ(channel->fenced_in_flight(scsi::Lun{}), 1u);
    advance(2s);  // nobody waits for it any longer
    EXPECT_EQ(gone, 1u);
    EXPECT_EQ(one.owner.result.end, CommandEnd::connection_lost);
}

// Another unit may have the number by then. The unit it was sent to knows (lun::Unit::on_reset_over()).
TEST_F(ChannelCommands, AResetAfterTheEndOfTheChannelProvesNothingOfWhatItHadSent) {
    Peer& peer = connect_live();
    Asked& one = send();
    peer.holds_gone = true;
    peer.end(fabric::EndReason::transport_error);
    settle();
    EXPECT_EQ(channel->mark_for_fence(scsi::Lun{}), 0u);
    channel->settle_fence(scsi::Lun{}, true, false);
    peer.let_go();
    settle();
    EXPECT_EQ(one.owner.result.end, CommandEnd::connection_lost);
}

TEST_F(ChannelCommands, AChannelThatEndsUnderAResetProvesNothing) {
    Peer& peer = connect_live();
    Asked& one = send();
    peer.holds_gone = true;
    channel->mark_for_fence(scsi::Lun{});
    peer.end(fabric::EndReason::transport_error);
    settle();
    channel->settle_fence(scsi::Lun{}, true, false);
    peer.let_go();
    settle();
    EXPECT_EQ(one.owner.result.end, CommandEnd::connection_lost);
}

// ---- time limits ----

TEST_F(ChannelCommands, ACommandThatIsNotAnsweredInTimeIsToldOnce) {
    connect_live();
    Asked& one = send();
    advance(30s - 1ns);
    EXPECT_EQ(expiries, 0u);
    EXPECT_EQ(channel->find_expired(), nullptr);
    advance(1ns);
    EXPECT_EQ(expiries, 1u);
    EXPECT_EQ(channel->find_expired(), &one.command);
    advance(1h);
    EXPECT_EQ(expiries, 1u);
    EXPECT_EQ(channel->state(), ChannelState::live);  // what becomes of it is not the channel's to decide
}

TEST_F(ChannelCommands, AVitalCommandThatIsNotAnsweredInTimeEndsTheChannel) {
    connect_live();
    Asked& one = prepare();
    one.command.vital = true;
    one.command.time_limit = 3s;
    ASSERT_TRUE(submit(one));
    advance(3s - 1ns);
    EXPECT_TRUE(ends.empty());
    advance(1ns);
    ASSERT_EQ(ends.size(), 1u);
    EXPECT_EQ(ends[0].reason, fabric::EndReason::transport_error);
    EXPECT_EQ(expiries, 0u);
}

TEST_F(ChannelCommands, AnAbortedCommandKeepsItsMemoryUntilItsChannelIsReplaced) {
    Peer& peer = connect_live();
    Asked& one = send();
    advance(30s);
    Asked& other = send();
    EXPECT_TRUE(channel->settle_abort(one.command.tag));
    EXPECT_EQ(channel->find_expired(), nullptr);
    advance(2s - 1ns);
    EXPECT_EQ(channel->state(), ChannelState::live);
    EXPECT_EQ(one.owner.ends, 0u);
    advance(1ns);
    EXPECT_EQ(channel->state(), ChannelState::draining);
    peer.answer(peer.commands[1]);
    settle();
    EXPECT_EQ(other.owner.result.end, CommandEnd::answered);
    EXPECT_EQ(one.owner.result.end, CommandEnd::aborted);
    EXPECT_EQ(gone, 1u);
}

TEST_F(ChannelCommands, AnAbortedCommandThatIsAnsweredAfterAllSavesTheChannel) {
    Peer& peer = connect_live();
    Asked& one = send();
    advance(30s);
    channel->settle_abort(one.command.tag);
    advance(1s);
    peer.answer(peer.commands[0], {.status = 0x40});
    settle();
    EXPECT_EQ(one.owner.result.end, CommandEnd::answered);
    advance(1h);
    EXPECT_EQ(channel->state(), ChannelState::live);
    EXPECT_FALSE(channel->settle_abort(one.command.tag));
}

TEST_F(ChannelCommands, DrainingEndsAfterFiveSecondsWhateverIsLeft) {
    connect_live();
    Asked& one = send();
    channel->drain("a reason");
    advance(5s - 1ns);
    EXPECT_EQ(gone, 0u);
    advance(1ns);
    EXPECT_EQ(gone, 1u);
    EXPECT_EQ(one.owner.result.end, CommandEnd::connection_lost);
}

TEST_F(ChannelCommands, DrainingDoesNotWaitForCoveredCommands) {
    connect_live();
    Asked& one = send();
    channel->mark_for_fence(scsi::Lun{});
    channel->settle_fence(scsi::Lun{}, true, true);
    channel->drain("stragglers");
    settle();
    EXPECT_EQ(gone, 1u);
    EXPECT_EQ(one.owner.result.end, CommandEnd::aborted);
}

}  // namespace
}  // namespace srpfs::initiator
