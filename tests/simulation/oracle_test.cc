// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The checker itself: what it lets pass and what not.

#include "oracle.h"

#include <gtest/gtest.h>

#include <vector>

namespace srpfs::simulation {
namespace {

class OracleTest : public testing::Test {
protected:
    std::optional<std::string> read(Oracle::WriteId id, std::uint64_t offset, std::size_t bytes) {
        return read_that_began(oracle.begin_read(), id, offset, bytes);
    }
    std::optional<std::string> read_that_began(Moment began, Oracle::WriteId id, std::uint64_t offset,
                                               std::size_t bytes) {
        std::vector<std::byte> content(bytes);
        Oracle::fill(id, offset, content);
        return oracle.end_read(began, offset, content);
    }
    Oracle::WriteId write(std::uint64_t offset, std::uint32_t bytes, Oracle::End end = Oracle::End::acknowledged) {
        const auto id = oracle.begin_write(offset, bytes);
        oracle.end_write(id, end, false);
        return id;
    }

    Oracle oracle{512};
    Oracle::Opener me = oracle.open();
};

TEST_F(OracleTest, ExpectsZerosWhereNobodyWrote) {
    EXPECT_FALSE(read(0, 0, 1024));
    EXPECT_TRUE(read(1, 0, 1024));
}

TEST_F(OracleTest, RefusesWhatAnAcknowledgedWriteHasReplaced) {
    const auto first = write(0, 1024);
    const auto second = write(0, 1024);
    EXPECT_FALSE(read(second, 0, 1024));
    EXPECT_TRUE(read(first, 0, 1024));
}

TEST_F(OracleTest, LetsAWriteThatIsUnderWayShowOrNot) {
    const auto first = write(0, 512);
    const auto second = oracle.begin_write(0, 512);
    EXPECT_FALSE(read(first, 0, 512));
    EXPECT_FALSE(read(second, 0, 512));
}

TEST_F(OracleTest, RefusesToGoBackOnceAWriteWasSeen) {
    const auto first = write(0, 512);
    const auto second = oracle.begin_write(0, 512);
    EXPECT_FALSE(read(second, 0, 512));
    EXPECT_TRUE(read(first, 0, 512));
}

TEST_F(OracleTest, RefusesWhatAZeroingHasReplaced) {
    const auto first = write(0, 1024);
    const auto zeroing = oracle.begin_write(0, 512, Oracle::Content::zeros);
    EXPECT_FALSE(read(first, 0, 1024)) << "it is under way";
    oracle.end_write(zeroing, Oracle::End::acknowledged, false);
    EXPECT_FALSE(read(0, 0, 512));
    EXPECT_FALSE(read(first, 512, 512));
    EXPECT_TRUE(read(first, 0, 512));
    EXPECT_TRUE(read(0, 512, 512));
}

TEST_F(OracleTest, RefusesZerosThatAWriteHasReplaced) {
    const auto zeroing = oracle.begin_write(0, 512, Oracle::Content::zeros);
    oracle.end_write(zeroing, Oracle::End::acknowledged, false);
    const auto second = write(0, 512);
    EXPECT_FALSE(read(second, 0, 512));
    EXPECT_TRUE(read(0, 0, 512));
}

TEST_F(OracleTest, KnowsWhenThereIsNothingToFlush) {
    EXPECT_FALSE(oracle.may_have_unflushed());
    const auto opener = oracle.open();
    write(0, 512);
    EXPECT_TRUE(oracle.may_have_unflushed());
    const auto began = oracle.begin_flush();
    const auto under_way = oracle.begin_write(512, 512);
    oracle.end_flush_ok(began, opener);
    EXPECT_TRUE(oracle.may_have_unflushed());
    oracle.end_write(under_way, Oracle::End::failed, false);
    EXPECT_FALSE(oracle.may_have_unflushed());
    write(0, 512, Oracle::End::unknown);
    EXPECT_TRUE(oracle.may_have_unflushed());
}

TEST_F(OracleTest, RefusesToGoBackOnceAZeroingWasSeen) {
    const auto first = write(0, 512);
    oracle.begin_write(0, 512, Oracle::Content::zeros);
    EXPECT_FALSE(read(first, 0, 512));
    EXPECT_FALSE(read(0, 0, 512));
    EXPECT_TRUE(read(first, 0, 512));
}

TEST_F(OracleTest, DoesNotTakeTheZerosOfAnEarlierZeroingForThoseOfOneUnderWay) {
    const auto before = oracle.begin_write(0, 512, Oracle::Content::zeros);
    oracle.end_write(before, Oracle::End::acknowledged, false);
    const auto ghost = oracle.begin_write(0, 512);
    oracle.begin_write(0, 512, Oracle::Content::zeros);
    EXPECT_FALSE(read(0, 0, 512));
    oracle.end_write(ghost, Oracle::End::acknowledged, false);
    EXPECT_FALSE(read(ghost, 0, 512));
}

TEST_F(OracleTest, LetsAnUnknownWriteShowUntilALaterOneIsAcknowledged) {
    const auto ghost = write(0, 512, Oracle::End::unknown);
    EXPECT_FALSE(read(0, 0, 512));
    EXPECT_FALSE(read(ghost, 0, 512));
    const auto later = write(0, 512);
    EXPECT_FALSE(read(later, 0, 512));
    EXPECT_TRUE(read(ghost, 0, 512));
}

TEST_F(OracleTest, LetsAReadThatOverlapsAWriteReturnEither) {
    const auto first = write(0, 512);
    const auto began = oracle.begin_read();
    const auto second = write(0, 512);
    EXPECT_FALSE(read_that_began(began, first, 0, 512));
    EXPECT_FALSE(read_that_began(began, second, 0, 512));
}

TEST_F(OracleTest, RefusesABlockThatIsPartlyOfOneWriteAndPartlyOfAnother) {
    const auto first = oracle.begin_write(0, 512);
    const auto second = oracle.begin_write(0, 512);
    std::vector<std::byte> torn(512);
    Oracle::fill(first, 0, std::span(torn).first(256));
    Oracle::fill(second, 256, std::span(torn).subspan(256));
    EXPECT_TRUE(oracle.end_read(oracle.begin_read(), 0, torn));
}

TEST_F(OracleTest, LetsAPageCacheHideWhatIsNotAcknowledgedEvenIfSomebodyHasSeenIt) {
    const auto first = write(0, 512);
    const auto second = oracle.begin_write(0, 512);
    EXPECT_FALSE(read(second, 0, 512));
    std::vector<std::byte> old(512);
    Oracle::fill(first, 0, old);
    EXPECT_TRUE(oracle.end_read(oracle.begin_read(), 0, old));
    EXPECT_FALSE(oracle.end_read(oracle.begin_read(), 0, old, Oracle::Through::page_cache));
    oracle.end_write(second, Oracle::End::acknowledged, false);
    EXPECT_TRUE(oracle.end_read(oracle.begin_read(), 0, old, Oracle::Through::page_cache));
}

TEST_F(OracleTest, LetsTwoBlocksComeFromTwoConcurrentWrites) {
    const auto first = oracle.begin_write(0, 1024);
    const auto second = oracle.begin_write(0, 1024);
    std::vector<std::byte> mixed(1024);
    Oracle::fill(first, 0, std::span(mixed).first(512));
    Oracle::fill(second, 512, std::span(mixed).subspan(512));
    EXPECT_FALSE(oracle.end_read(oracle.begin_read(), 0, mixed));
}

TEST_F(OracleTest, ExcusesAnUnflushedWriteThatACacheLost) {
    const auto first = write(0, 512);
    oracle.end_flush_ok(oracle.begin_flush(), me);
    const auto second = write(0, 512);
    oracle.on_cache_lost();
    EXPECT_FALSE(read(first, 0, 512));
    EXPECT_FALSE(read(second, 0, 512));
    EXPECT_TRUE(read(0, 0, 512));  // the first was flushed
}

TEST_F(OracleTest, HoldsAFlushThatHidALossToItsPromise) {
    const auto first = write(0, 512);
    oracle.on_cache_lost();
    oracle.end_flush_ok(oracle.begin_flush(), me);
    EXPECT_FALSE(read(first, 0, 512));
    EXPECT_TRUE(read(0, 0, 512));
}

TEST_F(OracleTest, ForgivesALossThatAFlushHasReported) {
    write(0, 512);
    oracle.on_cache_lost();
    oracle.end_flush_lost(me);
    oracle.end_flush_ok(oracle.begin_flush(), me);
    EXPECT_FALSE(read(0, 0, 512));
}

TEST_F(OracleTest, TakesAStableWriteAtItsWord) {
    const auto id = oracle.begin_write(0, 512);
    oracle.end_write(id, Oracle::End::acknowledged, true);
    oracle.on_cache_lost();
    EXPECT_TRUE(read(0, 0, 512));
    EXPECT_FALSE(read(id, 0, 512));
}

TEST_F(OracleTest, WantsEachToldWhoHadItOpenWhenItWasLost) {
    const auto another = oracle.open();
    const auto lost = write(0, 512);
    oracle.on_cache_lost();
    oracle.end_flush_lost(me);
    oracle.end_flush_ok(oracle.begin_flush(), me);
    EXPECT_FALSE(read(0, 0, 512));
    oracle.end_flush_ok(oracle.begin_flush(), another);
    EXPECT_TRUE(read(0, 0, 512));
    EXPECT_FALSE(read(lost, 0, 512));
}

TEST_F(OracleTest, WantsNobodyToldWhoOpensItAfterTheLossWasTold) {
    write(0, 512);
    oracle.on_cache_lost();
    oracle.end_flush_lost(me);
    oracle.end_flush_ok(oracle.begin_flush(), oracle.open());
    EXPECT_FALSE(read(0, 0, 512));
}

// A file that somebody has cut at 0 and goes on with at 2048.
class GapTest : public OracleTest {
protected:
    void cut() {
        cut_began = oracle.tick();
        cut_ended = oracle.tick();
    }
    void go_on(Oracle::End end = Oracle::End::acknowledged) {
        oracle.end_gap(oracle.begin_gap(0, 2048, cut_began, cut_ended), end, false);
    }
    Moment cut_began = 0, cut_ended = 0;
};

TEST_F(GapTest, WhatWasThereBeforeTheCutHasToBeZeros) {
    const auto before = write(0, 2048);
    cut();
    go_on();
    EXPECT_TRUE(read(before, 0, 2048));
    EXPECT_FALSE(read(0, 0, 2048));
}

TEST_F(GapTest, WhatSomebodyHasWrittenSinceMustStay) {
    cut();
    const auto since = write(512, 512);
    go_on();
    EXPECT_FALSE(read(since, 512, 512));
    EXPECT_TRUE(read(0, 512, 512));
    EXPECT_FALSE(read(0, 1024, 1024));
}

TEST_F(GapTest, AWriteAtTheTimeOfTheCutMayShowOrNot) {
    const auto id = oracle.begin_write(0, 512);
    cut();
    oracle.end_write(id, Oracle::End::acknowledged, false);
    go_on();
    EXPECT_FALSE(read(id, 0, 512));
    EXPECT_FALSE(read(0, 0, 512));
}

TEST_F(GapTest, AWriteThatFailedMayHaveKeptTheZerosAway) {
    const auto before = write(0, 2048);
    cut();
    write(0, 512, Oracle::End::unknown);
    go_on();
    EXPECT_FALSE(read(before, 0, 512));
    EXPECT_TRUE(read(before, 512, 512));
}

TEST_F(GapTest, ZerosThatFailedMayShowOrNot) {
    const auto before = write(0, 2048);
    cut();
    go_on(Oracle::End::unknown);
    EXPECT_FALSE(read(before, 0, 2048));
    EXPECT_FALSE(read(0, 0, 512));
}

TEST_F(GapTest, ANewCutMakesWhatWasWrittenAfterTheFirstZeros) {
    cut();
    const auto since = write(0, 512);
    cut();
    go_on();
    EXPECT_TRUE(read(since, 0, 512));
}

}  // namespace
}  // namespace srpfs::simulation
