// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What becomes of a command by its status and sense, how often and how long it is tried again (srp-admin 6).
#include "lun_fixture.h"

#include <srpfs/scsi/reservation.h>

namespace srpfs::lun {
namespace {

using scripted::check_condition;

struct Row {
    const char* name;
    unsigned status, key, asc, ascq;  // with CHECK CONDITION; a key of `none`: no sense data
    OutcomeKind kind = OutcomeKind::ok;
    unsigned commands = 1;  // sent in all when the target always answers so
    unsigned response_code = 0x70;
    [[nodiscard]] Answer answer() const {
        if (status != 0x02 || key == none) return {.status = status};
        return {.status = status, .sense = scripted::fixed_sense(key, asc, ascq, response_code)};
    }
    static constexpr unsigned none = 0xff;
};
std::ostream& operator<<(std::ostream& out, const Row& row) { return out << row.name; }

class Judge : public LunTest {};
class JudgeRow : public Judge, public testing::WithParamInterface<Row> {};

TEST_P(JudgeRow, OfARead) {
    begin();
    Request& request = read(0, 512);
    while (!open().empty() && sent().size() < 100) answer(*open()[0], GetParam().answer());
    ASSERT_TRUE(request.answered());
    EXPECT_EQ(request.outcome.kind, GetParam().kind);
    EXPECT_EQ(sent().size(), GetParam().commands);
    if (!request.outcome.ok()) {
        EXPECT_EQ(request.outcome.status, static_cast<scsi::Status>(GetParam().status));
    }
    EXPECT_EQ(failures, GetParam().kind == OutcomeKind::ok ? 0u : 1u);
    EXPECT_EQ(unit().counters()->retries, GetParam().commands - 1);
}

TEST_P(JudgeRow, OfAWrite) {
    begin();
    Request& request = write(0, pattern(512, 1));
    while (!open().empty() && sent().size() < 100) {
        EXPECT_EQ(open()[0]->payload(), pattern(512, 1));
        answer(*open()[0], GetParam().answer());
    }
    ASSERT_TRUE(request.answered());
    EXPECT_EQ(request.outcome.kind, GetParam().kind);
    EXPECT_EQ(sent().size(), GetParam().commands);
    EXPECT_FALSE(unit().needs_fence());  // the target has answered
}

using enum OutcomeKind;

INSTANTIATE_TEST_SUITE_P(Statuses, JudgeRow,
                         testing::ValuesIn(std::vector<Row>{
                             Row{"GOOD", 0x00, Row::none, 0, 0, ok, 1},
                             Row{"CONDITION MET", 0x04, Row::none, 0, 0, ok, 1},
                             Row{"RESERVATION CONFLICT", 0x18, Row::none, 0, 0, reservation_conflict, 1},
                             Row{"ACA ACTIVE", 0x30, Row::none, 0, 0, aborted, 1},
                             Row{"an unknown status", 0x22, Row::none, 0, 0, protocol_error, 1},
                             Row{"CHECK CONDITION without sense", 0x02, Row::none, 0, 0, protocol_error, 6}}));

INSTANTIATE_TEST_SUITE_P(SenseKeys, JudgeRow,
                         testing::ValuesIn(std::vector<Row>{
                             Row{"no sense", 0x02, 0x0, 0, 0, ok, 1},
                             Row{"recovered", 0x02, 0x1, 0x18, 0, ok, 1},
                             Row{"not ready, cause not reportable", 0x02, 0x2, 0x04, 0x00, not_ready, 1},
                             Row{"initializing command required", 0x02, 0x2, 0x04, 0x02, not_ready, 1},
                             Row{"standby", 0x02, 0x2, 0x04, 0x0b, not_ready, 1},
                             Row{"unavailable", 0x02, 0x2, 0x04, 0x0c, not_ready, 1},
                             Row{"no medium", 0x02, 0x2, 0x3a, 0x00, not_ready, 1},
                             Row{"unrecovered read", 0x02, 0x3, 0x11, 0x00, medium_error, 1},
                             Row{"address mark", 0x02, 0x3, 0x13, 0x00, medium_error, 1},
                             Row{"record not found", 0x02, 0x3, 0x14, 0x01, medium_error, 1},
                             Row{"another medium error", 0x02, 0x3, 0x0c, 0x00, medium_error, 6},
                             Row{"hardware", 0x02, 0x4, 0x44, 0x00, hardware_error, 1},
                             Row{"opcode", 0x02, 0x5, 0x20, 0x00, illegal_request, 1},
                             Row{"unaligned write", 0x02, 0x5, 0x21, 0x04, out_of_range, 1},
                             Row{"field in CDB", 0x02, 0x5, 0x24, 0x00, illegal_request, 1},
                             Row{"unit not supported", 0x02, 0x5, 0x25, 0x00, gone, 1},
                             Row{"field in list", 0x02, 0x5, 0x26, 0x00, illegal_request, 1},
                             Row{"write protected", 0x02, 0x7, 0x27, 0x00, write_protected, 1},
                             Row{"space", 0x02, 0x7, 0x27, 0x07, space_exhausted, 1},
                             Row{"blank check", 0x02, 0x8, 0, 0, protocol_error, 1},
                             Row{"vendor specific", 0x02, 0x9, 0, 0, protocol_error, 1},
                             Row{"copy aborted", 0x02, 0xa, 0, 0, protocol_error, 1},
                             Row{"aborted", 0x02, 0xb, 0x00, 0x00, aborted, 6},
                             Row{"transport", 0x02, 0xb, 0x4b, 0x00, aborted, 6},
                             Row{"protection information", 0x02, 0xb, 0x10, 0x01, hardware_error, 1},
                             Row{"volume overflow", 0x02, 0xd, 0, 0, out_of_range, 1},
                             Row{"miscompare", 0x02, 0xe, 0x1d, 0, miscompare, 1},
                             Row{"about an earlier command", 0x02, 0x3, 0x11, 0, protocol_error, 6, 0x71},
                             Row{"ALUA state changed, always", 0x02, 0x6, 0x2a, 0x06, aborted, 33}}));

class JudgePasses : public Judge, public testing::WithParamInterface<Row> {};

TEST_P(JudgePasses, OnceItIsOver) {
    begin();
    Request& request = write(0, pattern(512, 1));
    answer(*open()[0], GetParam().answer());
    EXPECT_FALSE(request.answered());
    EXPECT_TRUE(advance_until([this] { return !open().empty(); }, 10s));
    serve_all();
    EXPECT_TRUE(request.ok());
    EXPECT_EQ(sent().size(), 2u);
    EXPECT_EQ(disk_at(0, 512), pattern(512, 1));
}
INSTANTIATE_TEST_SUITE_P(Passing, JudgePasses,
                         testing::ValuesIn(std::vector<Row>{
                             Row{"BUSY", 0x08, Row::none, 0, 0}, Row{"TASK SET FULL", 0x28, Row::none, 0, 0},
                             Row{"TASK ABORTED", 0x40, Row::none, 0, 0}, Row{"becoming ready", 0x02, 0x2, 0x04, 0x01},
                             Row{"ALUA transition", 0x02, 0x2, 0x04, 0x0a},
                             Row{"communication failure", 0x02, 0x2, 0x08, 0x00}, Row{"medium", 0x02, 0x3, 0x0c, 0},
                             Row{"aborted", 0x02, 0xb, 0, 0}, Row{"reservations preempted", 0x02, 0x6, 0x2a, 0x03},
                             Row{"ALUA state changed", 0x02, 0x6, 0x2a, 0x06}, Row{"no sense", 0x02, Row::none, 0, 0},
                             Row{"deferred", 0x02, 0x4, 0x44, 0, ok, 1, 0x71}}));

// ---- for how long ----

TEST_F(Judge, BusyIsTriedAgainWithGrowingDelaysFor180Seconds) {
    begin();
    Request& request = read(0, 512);
    std::vector<Instant> sent_at;
    const Instant began = now();
    while (!request.answered() && sent_at.size() < 1000) {
        if (!open().empty()) {
            sent_at.push_back(now());
            answer(*open()[0], {.status = 0x08});
        }
        if (!request.answered()) advance_until([&] { return !open().empty() || request.answered(); }, 10s);
    }
    EXPECT_EQ(request.outcome.kind, OutcomeKind::busy);
    EXPECT_EQ(request.outcome.status, scsi::Status::busy);
    EXPECT_GE(request.at - began, 180s);
    EXPECT_LE(request.at - began, 183s);
    ASSERT_GT(sent_at.size(), 10u);
    for (std::size_t i = 1; i < sent_at.size(); ++i) {
        const Duration least = std::min<Duration>(2s, Duration(20ms) * (1 << std::min<std::size_t>(i - 1, 10)));
        EXPECT_GE(sent_at[i] - sent_at[i - 1], least) << i;
        EXPECT_LE(sent_at[i] - sent_at[i - 1], least * 3 / 2) << i;
    }
}

TEST_F(Judge, BecomingReadyIsAskedOnceASecondFor180Seconds) {
    begin();
    Request& request = read(0, 512);
    const Instant began = now();
    while (!request.answered() && sent().size() < 1000) {
        if (!open().empty()) answer(*open()[0], check_condition(0x2, 0x04, 0x01));
        if (!request.answered()) advance(1s);
    }
    EXPECT_EQ(request.outcome.kind, OutcomeKind::not_ready);
    EXPECT_GE(request.at - began, 180s);
    EXPECT_LE(request.at - began, 182s);
    EXPECT_GE(sent().size(), 180u);
    EXPECT_LE(sent().size(), 183u);
}

TEST_F(Judge, TheFirstRetryBeginsTheBoundNotTheFirstCommand) {
    begin();
    Request& request = read(0, 512);
    advance(20s);
    answer(*open()[0], {.status = 0x40});
    advance(20s);
    answer(*open()[0], {.status = 0x40});
    EXPECT_FALSE(request.answered());
    serve_all();
    EXPECT_TRUE(request.ok());
}

TEST_F(Judge, NothingElseOfItGoesOutDuringABackOff) {
    parameters.max_sect = 1;
    begin();
    Request& request = read(0, 512 * 8);
    ASSERT_EQ(sent().size(), 4u);
    answer(sent()[0], {.status = 0x08});
    serve_one(sent()[1]);
    EXPECT_EQ(sent().size(), 4u);
    serving = true;
    serve_one(sent()[2]);
    serve_one(sent()[3]);
    advance(1s);
    EXPECT_TRUE(request.ok());
    EXPECT_EQ(request.data, disk_at(0, 512 * 8));
    EXPECT_EQ(sent().size(), 9u);
}

TEST_F(Judge, OthersGoOnMeanwhile) {
    begin();
    read(0, 512);
    answer(sent()[0], {.status = 0x08});
    Request& other = read(512, 512);
    ASSERT_EQ(open().size(), 1u);
    serve_one(*open()[0]);
    EXPECT_TRUE(other.ok());
    serving = true;
    advance(1s);
    EXPECT_TRUE(requests[0]->ok());
}

// Told once: what this command kept to itself nobody else would hear, and the next one would go to another unit.
TEST_F(Judge, AnAttentionHoldsTheUnitThoughItsCommandHasNoTimeLeft) {
    begin();
    Request& request = read(0, 512);
    const Instant began = now();
    while (now() - began < 178s) {
        answer(*open()[0], {.status = 0x08});
        ASSERT_TRUE(advance_until([this] { return !open().empty(); }, 10s));
    }
    advance(5s);
    answer(*open()[0], check_condition(0x6, 0x3f, 0x0e));
    EXPECT_EQ(request.outcome.kind, OutcomeKind::aborted);
    ASSERT_EQ(attentions.size(), 1u);
    EXPECT_EQ(unit().state(), UnitState::probing);
    Request& next = write(0, pattern(512, 1));
    EXPECT_TRUE(open().empty()) << "written to whatever unit is there now";
    resume();
    serve_all();
    EXPECT_TRUE(next.ok());
}

TEST_F(Judge, TheAttentionThatIsOneTooManyForItsCommandHoldsTheUnitToo) {
    begin();
    Request& request = read(0, 512);
    while (!request.answered() && attentions.size() < 100) {
        answer(*open()[0], check_condition(0x6, 0x3f, 0x0e));
        if (!request.answered()) resume();
    }
    EXPECT_EQ(request.outcome.kind, OutcomeKind::aborted);
    EXPECT_EQ(unit().state(), UnitState::probing);
}

TEST_F(Judge, AnyNumberOfLunResetsIsNoReasonToFailInTime) {
    begin();
    Request& request = read(0, 512);
    const Instant began = now();
    for (unsigned times = 0; now() - began < 178s; ++times) {
        answer(*open()[0], check_condition(0x6, 0x29, 0x03));
        ASSERT_FALSE(request.answered()) << times;
        resume();
        advance(1s);
    }
    advance(5s);
    answer(*open()[0], check_condition(0x6, 0x29, 0x03));
    EXPECT_EQ(request.outcome.kind, OutcomeKind::aborted);
}

TEST_F(Judge, ALunThatIsGoneIsToldOnce) {
    begin();
    read(0, 512);
    read(512, 512);
    answer(sent()[0], check_condition(0x5, 0x25, 0));
    answer(sent()[1], check_condition(0x5, 0x25, 0));
    ASSERT_EQ(attentions.size(), 1u);
    EXPECT_FALSE(attentions[0].hold);
    EXPECT_EQ(requests[1]->outcome.kind, OutcomeKind::gone);
    resume();
    read(0, 512);
    answer(*open()[0], check_condition(0x5, 0x25, 0));
    EXPECT_EQ(attentions.size(), 2u);
}

// LIO registers a key, fails to write its file about it, and answers NOT READY: the second REGISTER would be a
// conflict.
TEST_F(Judge, WhatMustNotHappenTwiceIsNotSentAgainWhateverTheTargetSays) {
    begin();
    const scsi::Cdb reserve = scsi::persistent_reserve_out(scsi::ReserveOut::register_key, std::nullopt);
    for (const auto& complaint : {check_condition(0x2, 0x08, 0), check_condition(0x2, 0x04, 0x01),
                                  check_condition(0xb, 0x47, 0), check_condition(0x3, 0x0c, 0)}) {
        Request& request = raw(reserve, 0);
        const std::size_t before = sent().size();
        answer(*open()[0], complaint);
        advance(10s);
        EXPECT_TRUE(request.answered());
        EXPECT_FALSE(request.outcome.ok());
        EXPECT_EQ(sent().size(), before);
    }
    // These say that nothing was done.
    for (const auto& refusal : {check_condition(0x6, 0x29, 0), Answer{.status = 0x08}, Answer{.status = 0x28}}) {
        Request& request = raw(reserve, 0);
        answer(*open()[0], refusal);
        ASSERT_TRUE(advance_until([this] { return !open().empty(); }, 10s));
        answer(*open()[0]);
        EXPECT_TRUE(request.ok());
    }
}

TEST_F(Judge, ARawCommandThatFailsIsNobodysBusiness) {
    begin();
    Request& request = raw(scsi::inquiry(96), 96);
    answer(sent()[0], check_condition(0x5, 0x25, 0));
    EXPECT_EQ(request.outcome.kind, OutcomeKind::gone);
    EXPECT_TRUE(attentions.empty());
    EXPECT_EQ(failures, 0u);
}

// ---- connections ----

TEST_F(Judge, AReadIsSentAgainAfterReconnecting) {
    begin();
    Request& request = read(512, 4096);
    lose_connection();
    EXPECT_FALSE(request.answered());
    reconnect();
    EXPECT_TRUE(sent().empty());  // not before the unit has been looked at
    resume();
    ASSERT_EQ(sent().size(), 1u);
    serve_all();
    EXPECT_TRUE(request.ok());
    EXPECT_EQ(request.data, disk_at(512, 4096));
}

TEST_F(Judge, AReadSurvivesMoreThanFiveLossesWithinItsTime) {
    begin();
    Request& request = read(512, 4096);
    for (unsigned i = 0; i < 10; ++i) {
        lose_connection();
        reconnect();
        resume();
    }
    serve_all();
    EXPECT_TRUE(request.ok());
}

TEST_F(Judge, AWriteWhoseConnectionIsLostIsSentAgainBehindAFence) {
    begin();
    Request& request = write(512, pattern(512, 1));
    lose_connection();
    EXPECT_TRUE(unit().needs_fence());
    EXPECT_GE(fences_needed, 1u);
    reconnect();
    resume();
    EXPECT_TRUE(sent().empty());  // a login is no fence
    Request& over = write(512, pattern(512, 2));
    EXPECT_TRUE(sent().empty());  // nor may another write come in between
    fence();
    EXPECT_FALSE(unit().needs_fence());
    serve_all();
    EXPECT_TRUE(request.ok() && over.ok());
    EXPECT_EQ(disk_at(512, 512), pattern(512, 2));
}

TEST_F(Judge, AResetFromBeforeTheLossIsNoFence) {
    begin();
    Request& request = write(512, pattern(512, 1));
    link->reset_unit(unit().lun(), [](Result<void>) {});
    ASSERT_EQ(target().tasks.size(), 1u);
    lose_connection();
    reconnect();
    resume();
    EXPECT_TRUE(sent().empty());
    EXPECT_FALSE(request.answered());
    EXPECT_TRUE(unit().needs_fence());
    fence();
    serve_all();
    EXPECT_TRUE(request.ok());
}

TEST_F(Judge, AWriteThatWasNotSentWaitsForTheConnection) {
    begin();
    lose_connection();
    Request& request = write(512, pattern(512, 1));
    reconnect();
    resume();
    serve_all();
    EXPECT_TRUE(request.ok());
}

TEST_F(Judge, AReadThatHasLostItsConnectionHasReadNothing) {
    parameters.max_sect = 1;
    begin();
    Request& request = read(0, 1024);
    EXPECT_FALSE(request.operation->has_read_nothing());
    serve_one(sent()[0]);
    EXPECT_FALSE(request.operation->has_read_nothing());
    lose_connection();
    EXPECT_TRUE(request.operation->has_read_nothing());
    reconnect();
    EXPECT_TRUE(request.operation->has_read_nothing());
    resume();
    EXPECT_FALSE(request.operation->has_read_nothing());
    EXPECT_EQ(sent().size(), 2u);
    serve_all();
    EXPECT_TRUE(request.ok());
}

// ---- blocks that the unit is known to have, and refuses ----

class Refused : public Judge {
protected:
    void refuse(Seen& seen) { answer(seen, check_condition(0x5, 0x21, 0x00)); }
};

TEST_F(Refused, TheUnitIsLookedAtAndWhatItHasGoesAgain) {
    begin();
    Request& request = write(512, pattern(512, 1));
    refuse(*open()[0]);
    EXPECT_FALSE(request.answered());
    ASSERT_EQ(attentions.size(), 1u);
    EXPECT_TRUE(attentions[0].hold);
    EXPECT_EQ(attentions[0].sense.asc, 0x21u);
    EXPECT_EQ(unit().state(), UnitState::probing);
    EXPECT_TRUE(open().empty());

    info.blocks = 2;
    resume();
    serve_all();
    EXPECT_TRUE(request.ok());
    EXPECT_EQ(disk_at(512, 512), pattern(512, 1));
    EXPECT_EQ(failures, 0u);
}

TEST_F(Refused, WhatItHasNoLongerIsBeyondTheEnd) {
    begin();
    Request& at_end = read((info.blocks - 1) * 512, 512);
    Request& across = read((info.blocks - 12) * 512, 4096);
    refuse(*open()[0]);
    refuse(*open()[0]);
    EXPECT_FALSE(at_end.answered() || across.answered());
    EXPECT_EQ(attentions.size(), 1u);  // one look is enough

    info.blocks -= 8;
    resume();
    EXPECT_EQ(at_end.outcome.kind, OutcomeKind::out_of_range);
    EXPECT_EQ(across.outcome.kind, OutcomeKind::out_of_range);
    EXPECT_EQ(sent().size(), 2u);
    Request& inside = read(0, 512);
    serve_all();
    EXPECT_TRUE(inside.ok());
}

TEST_F(Refused, AllPartsOfARequestWaitForTheSameLook) {
    parameters.max_sect = 1;
    begin();
    Request& request = read(0, 512 * 8);
    ASSERT_EQ(open().size(), 4u);
    while (!open().empty()) refuse(*open()[0]);
    EXPECT_EQ(attentions.size(), 1u);
    resume();
    serve_all();
    EXPECT_TRUE(request.ok());
    EXPECT_EQ(request.data, disk_at(0, 512 * 8));
}

TEST_F(Refused, WhoeverRefusesForEverIsLookedAtEverMoreRarely) {
    begin();
    const Instant began = now();
    std::vector<Instant> looked_at;
    while (now() - began < 600s) {
        Request& request = read(0, 512);
        while (!request.answered()) {
            if (!open().empty()) refuse(*open()[0]);
            if (attentions.size() == looked_at.size()) continue;
            looked_at.push_back(now());
            resume();
        }
        EXPECT_EQ(request.outcome.kind, OutcomeKind::out_of_range);
        advance(100ms);
    }
    // After 1, 2, 4 and so on to 60 s.
    EXPECT_GE(looked_at.size(), 14u);
    EXPECT_LE(looked_at.size(), 17u);
    EXPECT_GE(looked_at.back() - looked_at[looked_at.size() - 2], 60s);

    // What it refuses to others is no reason to look either.
    advance(60s);
    attentions.clear();
    Request& by_hand = raw(scsi::read(0, 1, scsi::ForceUnitAccess::no), 512);
    refuse(*open()[0]);
    EXPECT_TRUE(by_hand.answered());
    EXPECT_TRUE(attentions.empty());
}

TEST_F(Refused, ASizeThatChangesWithEachLookEndsTheRequestAllTheSame) {
    begin();
    Request& request = read(0, 512);
    for (unsigned looks = 0; looks < 100 && !request.answered(); ++looks) {
        refuse(*open()[0]);
        info.blocks ^= 1;
        if (!request.answered()) resume();
    }
    EXPECT_EQ(request.outcome.kind, OutcomeKind::out_of_range);
    EXPECT_LE(sent().size(), 33u);
}

TEST_F(Refused, AUnitThatShrinksTwiceIsLookedAtTwice) {
    begin();
    for (unsigned times = 1; times <= 2; ++times) {
        Request& request = read((info.blocks - 1) * 512, 512);
        refuse(*open()[0]);
        EXPECT_EQ(attentions.size(), times);
        info.blocks -= 8;
        resume();
        EXPECT_EQ(request.outcome.kind, OutcomeKind::out_of_range);
    }
}

// As somebody who has given it up would not hear of it otherwise.
TEST_F(Refused, ARequestThatWasGivenUpAsksForTheLookAsWell) {
    begin();
    Request& request = read((info.blocks - 1) * 512, 512);
    interrupt(request);
    advance(600ms);
    ASSERT_TRUE(request.answered());
    refuse(*open()[0]);
    EXPECT_EQ(attentions.size(), 1u);
    EXPECT_EQ(unit().state(), UnitState::probing);
    resume();
    EXPECT_EQ(unit().state(), UnitState::running);
}

}  // namespace
}  // namespace srpfs::lun
