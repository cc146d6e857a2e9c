// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Writes of parts of blocks, the locks that make them whole, and ghosts (decisions 3, 6, 11; docs/recovery.md).
#include "lun_fixture.h"

namespace srpfs::lun {
namespace {

class PartialBlock : public LunTest, public testing::WithParamInterface<std::uint32_t> {
protected:
    PartialBlock() {
        info.block_bytes = GetParam();
        info.blocks = 64;
    }
    // What the disk has to be after that write.
    void expect_written(const Bytes& before, std::uint64_t offset, const Bytes& data) {
        Bytes expected = before;
        std::memcpy(expected.data() + offset, data.data(), data.size());
        EXPECT_TRUE(disk == expected);
    }
    [[nodiscard]] std::string commands() {
        std::string text;
        for (const Seen& seen : sent())
            text +=
                (seen.is_read() ? "R" : "W") + std::to_string(seen.lba()) + "+" + std::to_string(seen.blocks()) + " ";
        return text;
    }
};
INSTANTIATE_TEST_SUITE_P(BlockLength, PartialBlock, testing::Values(512U, 4096U));

TEST_P(PartialBlock, AHeadIsReadThenWritten) {
    begin();
    const Bytes before = disk, data = pattern(GetParam() * 2 - 10, 5);
    Request& request = write(GetParam() * 3 + 10, data);
    EXPECT_EQ(commands(), "R3+1 ");
    EXPECT_TRUE(disk == before);
    serve_all();
    EXPECT_EQ(commands(), "R3+1 W3+1 W4+1 ");
    EXPECT_TRUE(request.ok());
    expect_written(before, GetParam() * 3 + 10, data);
    EXPECT_EQ(unit().counters()->read_modify_writes, 1u);
}

TEST_P(PartialBlock, ATailIsReadThenWritten) {
    begin();
    const Bytes before = disk, data = pattern(GetParam() * 2 + 1, 5);
    Request& request = write(GetParam() * 3, data);
    EXPECT_EQ(commands(), "R5+1 ");
    serve_all();
    EXPECT_EQ(commands(), "R5+1 W3+2 W5+1 ");
    EXPECT_TRUE(request.ok());
    expect_written(before, GetParam() * 3, data);
}

TEST_P(PartialBlock, BothEndsAreReadTogether) {
    begin();
    const Bytes before = disk, data = pattern(GetParam() * 3, 5);
    Request& request = write(GetParam() + 1, data);
    EXPECT_EQ(commands(), "R1+1 R4+1 ");
    serve_one(sent()[1]);
    EXPECT_EQ(commands(), "R1+1 R4+1 ");  // not before both are there
    serve_all();
    EXPECT_EQ(commands(), "R1+1 R4+1 W1+1 W2+2 W4+1 ");
    EXPECT_TRUE(request.ok());
    expect_written(before, GetParam() + 1, data);
}

TEST_P(PartialBlock, TheMiddleOfOneBlockIsReadOnce) {
    begin();
    const Bytes before = disk, data = pattern(7, 5);
    Request& request = write(GetParam() * 2 + 100, data);
    EXPECT_EQ(commands(), "R2+1 ");
    serve_all();
    EXPECT_EQ(commands(), "R2+1 W2+1 ");
    EXPECT_TRUE(request.ok());
    expect_written(before, GetParam() * 2 + 100, data);
}

TEST_P(PartialBlock, TwoBlocksWithoutAWholeOneAreTwoEdges) {
    begin();
    const Bytes before = disk, data = pattern(20, 5);
    write(GetParam() * 2 - 10, data);
    serve_all();
    EXPECT_EQ(commands(), "R1+1 R2+1 W1+1 W2+1 ");
    expect_written(before, GetParam() * 2 - 10, data);
}

TEST_P(PartialBlock, AWholeBlockIsNotReadFirst) {
    begin();
    write(GetParam() * 2, pattern(GetParam(), 5));
    EXPECT_EQ(commands(), "W2+1 ");
    serve_all();
}

TEST_P(PartialBlock, AnyRangeComesOutRight) {
    begin();
    serving = true;
    Bytes model = disk;
    Random drawn(GetParam());
    for (unsigned i = 0; i < 150; ++i) {
        const auto bytes = drawn.between(1, GetParam() * 4), offset = drawn.below(GetParam() * 40);
        const Bytes data = pattern(bytes, i);
        std::memcpy(model.data() + offset, data.data(), bytes);
        ASSERT_TRUE(write(offset, data).ok());
        ASSERT_TRUE(disk == model) << bytes << " bytes at " << offset;
    }
}

TEST_P(PartialBlock, ManyAtOnceComeOutRight) {
    begin();
    Bytes model = disk;
    const unsigned count = 40;
    for (unsigned i = 0; i < count; ++i) {  // each its own 13 bytes of the same three blocks
        const std::uint64_t offset = i * 13 + GetParam() - 100;
        const Bytes data = pattern(13, i + 1);
        std::memcpy(model.data() + offset, data.data(), data.size());
        write(offset, data);
    }
    serve_all();
    for (const auto& request : requests) EXPECT_TRUE(request->ok());
    EXPECT_TRUE(disk == model);
}

TEST_P(PartialBlock, AReadThatFailsWritesNothing) {
    begin();
    const Bytes before = disk;
    Request& request = write(10, pattern(20, 1));
    answer(sent()[0], scripted::check_condition(0x3, 0x11, 0));
    EXPECT_EQ(request.outcome.kind, OutcomeKind::medium_error);
    EXPECT_EQ(commands(), "R0+1 ");
    EXPECT_TRUE(disk == before);
}

TEST_P(PartialBlock, ItsSecondHalfGoesBeforeNewDataAndOnTheKeptCredit) {
    fabric.login.credits = 5;
    begin();
    Request& partial = write(10, pattern(20, 1));
    Request& second = read(GetParam() * 10, GetParam());
    Request& third = read(GetParam() * 11, GetParam());
    Request& fourth = read(GetParam() * 12, GetParam());
    EXPECT_EQ(commands(), "R0+1 R10+1 R11+1 ");
    std::memset(sent()[0].memory().data(), 0, GetParam());
    answer(sent()[0], {.delta = 0});  // the credit does not come back: two are left, which others may not use
    EXPECT_EQ(commands(), "R0+1 R10+1 R11+1 W0+1 ");
    serve_all();
    EXPECT_TRUE(partial.ok() && second.ok() && third.ok() && fourth.ok());
}

// ---- locks ----

TEST_P(PartialBlock, WholeBlockWritesDoNotExcludeEachOther) {
    begin();
    write(0, pattern(GetParam(), 1));
    write(0, pattern(GetParam(), 2));
    EXPECT_EQ(commands(), "W0+1 W0+1 ");
    serve_all();
}

TEST_P(PartialBlock, APartialWriteWaitsForAWholeOneOfItsBlock) {
    begin();
    write(0, pattern(GetParam(), 1));
    Request& partial = write(10, pattern(20, 2));
    EXPECT_EQ(commands(), "W0+1 ");
    serve_one(sent()[0]);
    EXPECT_EQ(commands(), "W0+1 R0+1 ");
    serve_all();
    EXPECT_TRUE(partial.ok());
}

TEST_P(PartialBlock, AWholeWriteWaitsForAPartialOneOfItsBlock) {
    begin();
    write(10, pattern(20, 2));
    Request& whole = write(0, pattern(GetParam(), 1));
    EXPECT_EQ(commands(), "R0+1 ");
    serve_one(sent()[0]);
    EXPECT_EQ(commands(), "R0+1 W0+1 ");
    EXPECT_FALSE(whole.answered());
    serve_one(sent()[1]);
    EXPECT_EQ(commands(), "R0+1 W0+1 W0+1 ");
    serve_all();
    EXPECT_EQ(disk_at(0, GetParam()), pattern(GetParam(), 1));
}

TEST_P(PartialBlock, ANeighbourDoesNotWait) {
    begin();
    write(10, pattern(20, 2));
    write(GetParam(), pattern(GetParam(), 1));
    write(GetParam() * 2 + 10, pattern(20, 3));
    EXPECT_EQ(commands(), "R0+1 W1+1 R2+1 ");
    serve_all();
}

TEST_P(PartialBlock, ReadsDoNotWait) {
    begin();
    write(10, pattern(20, 2));
    read(0, GetParam());
    EXPECT_EQ(commands(), "R0+1 R0+1 ");
    serve_all();
}

TEST_P(PartialBlock, LocksAreGivenInTheOrderTheyWereAskedFor) {
    begin();
    write(10, pattern(20, 1));                                  // A: block 0
    write(GetParam() - 10, pattern(20, 2));                     // B: blocks 0 and 1, behind A
    Request& late = write(GetParam(), pattern(GetParam(), 3));  // C: block 1, behind B
    write(GetParam() * 2, pattern(GetParam(), 4));              // D: block 2, free
    EXPECT_EQ(commands(), "R0+1 W2+1 ");
    serve_one(sent()[1]);
    serve_one(sent()[0]);
    EXPECT_FALSE(late.answered());
    serve_one(sent()[2]);
    EXPECT_EQ(commands(), "R0+1 W2+1 W0+1 R0+1 R1+1 ");  // B has begun, C still waits
    serve_all();
    EXPECT_TRUE(late.ok());
    EXPECT_EQ(disk_at(GetParam(), GetParam()), pattern(GetParam(), 3));
}

TEST_P(PartialBlock, AWaiterThatIsInterruptedLetsTheNextOneGo) {
    begin();
    write(10, pattern(20, 1));
    Request& waiter = write(GetParam() - 10, pattern(20, 2));
    Request& behind = write(GetParam(), pattern(GetParam(), 3));
    interrupt(waiter);
    EXPECT_EQ(waiter.outcome.kind, OutcomeKind::interrupted);
    EXPECT_EQ(commands(), "R0+1 W1+1 ");
    serve_all();
    EXPECT_TRUE(behind.ok());
}

// ---- ghosts ----

class Ghosts : public LunTest {
protected:
    // A write of `blocks` from `first` on that was sent and then given up.
    Request& give_up_write(std::uint64_t first, std::uint64_t blocks) {
        Request& request = write(first * 512, pattern(blocks * 512, 77));
        ghost = &sent().back();
        interrupt(request);
        advance(500ms);
        EXPECT_EQ(request.outcome.kind, OutcomeKind::interrupted);
        EXPECT_EQ(unit().counters()->ghosts, 1u);
        return request;
    }
    Seen* ghost = nullptr;
};

TEST_F(Ghosts, AnOverlappingWriteWaitsUntilTheOldOneIsAnswered) {
    begin();
    give_up_write(4, 4);
    Request& over = write(7 * 512, pattern(512, 1));
    EXPECT_EQ(sent().size(), 1u);
    EXPECT_FALSE(over.answered());
    serve_one(*ghost);
    ASSERT_EQ(sent().size(), 2u);
    serve_all();
    EXPECT_TRUE(over.ok());
    EXPECT_EQ(disk_at(7 * 512, 512), pattern(512, 1));
    EXPECT_FALSE(unit().needs_fence());
    EXPECT_EQ(fences_needed, 0u);
}

TEST_F(Ghosts, NeighboursAndReadsDoNotWait) {
    begin();
    give_up_write(4, 4);
    write(3 * 512, pattern(512, 1));
    write(8 * 512, pattern(512, 1));
    read(4 * 512, 512);
    EXPECT_EQ(sent().size(), 4u);
    serve_all();
}

TEST_F(Ghosts, APartialWriteWaitsForTheGhostOfItsBlock) {
    begin();
    give_up_write(4, 1);
    write(4 * 512 + 100, pattern(10, 1));
    EXPECT_EQ(sent().size(), 1u);
    serve_all();
    EXPECT_EQ(sent().size(), 3u);
}

TEST_F(Ghosts, WaitingForAGhostCanBeInterrupted) {
    begin();
    give_up_write(4, 1);
    Request& over = write(4 * 512, pattern(512, 1));
    interrupt(over);
    EXPECT_EQ(over.outcome.kind, OutcomeKind::interrupted);
    EXPECT_EQ(over.at, now());
    EXPECT_EQ(sent().size(), 1u);
    serve_all();
}

TEST_F(Ghosts, ALostConnectionLeavesItUntilAFence) {
    begin();
    give_up_write(4, 1);
    EXPECT_FALSE(unit().needs_fence());  // its answer may still come
    lose_connection();
    EXPECT_TRUE(unit().needs_fence());
    EXPECT_GE(fences_needed, 1u);
    reconnect();
    resume();
    Request& over = write(4 * 512, pattern(512, 1));
    Request& other = write(5 * 512, pattern(512, 1));
    ASSERT_EQ(sent().size(), 1u);  // a login is no fence, but others go
    EXPECT_EQ(sent()[0].lba(), 5u);
    fence();
    EXPECT_FALSE(unit().needs_fence());
    ASSERT_EQ(sent().size(), 2u);
    serve_all();
    EXPECT_TRUE(over.ok() && other.ok());
}

// The reset has gone to the unit that has the number now, and the old one may still be written to.
TEST_F(Ghosts, AResetOfTheUnitThatHasTakenItsNumberDoesNotEndThem) {
    begin();
    write(0, pattern(512, 1));
    lose_connection();
    reconnect();
    unit().remove();
    const std::string wwid = std::exchange(info.wwid, "naa.6001405000000002");
    add_unit(0);
    fence();
    info.wwid = wwid;
    Unit& back = add_unit(1);
    EXPECT_TRUE(back.needs_fence());
    Request& waiting = write(back, 0, pattern(512, 2));
    EXPECT_TRUE(sent().empty()) << "written before anything has ended the old copy";
    interrupt(waiting);
}

// The commands of a connection that has ended are told when its queue pair is gone, which may take long.
TEST_F(Ghosts, AFenceCoversWhatWasLostBeforeItThoughThatIsToldLater) {
    begin();
    Request& old = write(0, pattern(512, 1));
    Peer& before = target();
    before.holds_gone = true;
    lose_connection();
    reconnect();
    resume();
    fence();
    before.let_go();
    settle();
    ASSERT_EQ(sent().size(), 1u) << "not sent again, or fenced once more";
    serve_all();
    EXPECT_TRUE(old.ok());
}

TEST_F(Ghosts, AResetOfTheUnitThatHasTakenItsNumberDoesNotCoverWhatIsToldLater) {
    begin();
    write(0, pattern(512, 1));
    Peer& before = target();
    before.holds_gone = true;
    lose_connection();
    reconnect();
    unit().remove();
    const std::string wwid = std::exchange(info.wwid, "naa.6001405000000002");
    add_unit(0);
    fence();
    before.let_go();
    settle();
    info.wwid = wwid;
    Unit& back = add_unit(1);
    EXPECT_TRUE(back.needs_fence());
    Request& waiting = write(back, 0, pattern(512, 2));
    EXPECT_TRUE(sent().empty()) << "written before anything has ended the old copy";
    interrupt(waiting);
}

TEST_F(Ghosts, AResetEndsThemWhenALookAfterItHasFoundTheUnit) {
    begin();
    Request& old = write(0, pattern(512, 1));
    lose_connection();
    reconnect();
    resume();
    UnitInfo early = info;
    early.probed_at = engine->next_stamp();
    reset_unit();
    EXPECT_EQ(resets, 1u) << "nobody would look";
    EXPECT_TRUE(unit().awaits_confirmation());
    EXPECT_TRUE(unit().confirm_reset(early));
    settle();
    EXPECT_TRUE(sent().empty()) << "what was asked before the reset does not tell which unit it has met";
    EXPECT_TRUE(unit().needs_fence());
    EXPECT_TRUE(confirm());
    EXPECT_FALSE(unit().needs_fence() || unit().awaits_confirmation());
    ASSERT_EQ(sent().size(), 1u);
    serve_all();
    EXPECT_TRUE(old.ok());
}

// The number was another unit's before anybody had heard of it.
TEST_F(Ghosts, AResetThatHasMetAnotherUnitDoesNotEndThem) {
    begin();
    write(0, pattern(512, 1));
    lose_connection();
    reconnect();
    resume();
    reset_unit();
    unit().remove();
    Unit& back = add_unit(1);
    EXPECT_TRUE(back.needs_fence());
    Request& waiting = write(back, 0, pattern(512, 2));
    EXPECT_TRUE(sent().empty()) << "written before anything has ended the old copy";
    interrupt(waiting);
}

// Its channel drains because no answer comes, as with LIO; that it has ended is known all the same.
TEST_F(Ghosts, WhatAbortTaskHasEndedIsSentAgainWithoutAFence) {
    begin();
    Request& request = write(0, pattern(512, 1));
    ASSERT_TRUE(advance_until([this] { return !target().tasks.empty(); }, 60s));
    EXPECT_EQ(target().tasks.back().function, 0x01u) << "ABORT TASK";
    target().answer(target().tasks.back(), 0x00);
    advance(3s);
    EXPECT_EQ(fabric.live(), 0u) << "it should have drained";
    reconnect();
    resume();
    EXPECT_EQ(fences_needed, 0u);
    EXPECT_FALSE(unit().needs_fence());
    serve_all();
    EXPECT_TRUE(request.ok());
}

TEST_F(Ghosts, AnExchangeAndBackDuringAResetMakesItProveNothing) {
    begin();
    write(0, pattern(512, 1));
    lose_connection();
    reconnect();
    resume();
    link->reset_unit(unit().lun(), [](const Result<void>&) {});
    link->tell_event(unit().lun(), {.valid = true, .key = scsi::SenseKey::unit_attention, .asc = 0x3f, .ascq = 0x0e});
    resume();  // by a look that came after it; the reset is still under way
    target().answer(target().tasks.back(), 0x00);
    settle();
    EXPECT_FALSE(confirm());
    EXPECT_TRUE(unit().needs_fence() && sent().empty());
    resume();
    fence();
    EXPECT_FALSE(unit().needs_fence());
    serve_all();
}

// The commands that it has ended were those of another unit, and may still run.
TEST_F(Ghosts, WhatAResetHasEndedIsSentAgainWhenALookHasFoundTheUnit) {
    begin();
    Request& old = write(0, pattern(512, 1));
    reset_unit();
    advance(2s);  // unanswered: its channel drains, and is replaced
    lose_connection();
    reconnect();
    resume();
    EXPECT_TRUE(sent().empty());
    fence();
    ASSERT_EQ(sent().size(), 1u);
    serve_all();
    EXPECT_TRUE(old.ok());
}

TEST_F(Ghosts, WhatAResetHasEndedIsAGhostOfAUnitThatIsGone) {
    begin();
    Request& old = write(0, pattern(512, 1));
    reset_unit();
    unit().remove();
    settle();
    EXPECT_FALSE(old.ok());
    advance(2s);
    lose_connection();
    reconnect();
    EXPECT_TRUE(add_unit(1).needs_fence());
}

TEST_F(Ghosts, AResetEndsOneWhoseCommandIsInFlightOnlyWithItsChannel) {
    begin();
    give_up_write(4, 1);
    fence();
    write(4 * 512, pattern(512, 1));
    EXPECT_EQ(sent().size(), 1u);  // the target may be about to answer the old one
    serve_one(*ghost);
    EXPECT_EQ(sent().size(), 2u);
    serve_all();
}

TEST_F(Ghosts, OneThatFailsInTheTargetEndsAsWell) {
    begin();
    give_up_write(4, 1);
    Request& over = write(4 * 512, pattern(512, 1));
    answer(*ghost, scripted::check_condition(0x3, 0x0c, 0));
    EXPECT_EQ(sent().size(), 2u);
    serve_all();
    EXPECT_TRUE(over.ok());
}

TEST_F(Ghosts, FailFastLeavesThemToo) {
    begin();
    Request& old = write(4 * 512, pattern(512, 77));
    lose_connection();
    link->set_state(initiator::PortState::fail_fast);
    settle();
    EXPECT_EQ(old.outcome.kind, OutcomeKind::path_lost);
    EXPECT_TRUE(unit().needs_fence());
}

TEST_F(Ghosts, AWriteThatWasNeverSentLeavesNone) {
    begin();
    lose_connection();
    Request& request = write(0, pattern(512, 1));
    interrupt(request);
    EXPECT_EQ(request.outcome.kind, OutcomeKind::interrupted);
    EXPECT_EQ(unit().counters()->ghosts, 0u);
    EXPECT_FALSE(unit().needs_fence());
}

TEST_F(Ghosts, AReadLeavesNone) {
    begin();
    Request& request = read(0, 512);
    interrupt(request);
    advance(500ms);
    lose_connection();
    EXPECT_EQ(request.outcome.kind, OutcomeKind::interrupted);
    EXPECT_EQ(unit().counters()->ghosts, 0u);
}

TEST_F(Ghosts, NobodyWaitsForOneForEver) {
    begin();
    give_up_write(4, 1);
    lose_connection();
    reconnect();
    resume();
    Request& over = write(4 * 512, pattern(512, 1));
    advance(180s - 1s);
    EXPECT_FALSE(over.answered());
    advance(2s);
    EXPECT_EQ(over.outcome.kind, OutcomeKind::aborted);
}

}  // namespace
}  // namespace srpfs::lun
