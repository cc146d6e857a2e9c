// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Ranges become zeros: by which commands, in what pieces, and what happens when the unit refuses them.
#include "lun_fixture.h"

#include <srpfs/lun/zeroing.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <numeric>

namespace srpfs::lun {
namespace {

using namespace std::chrono_literals;

class Zeroes : public LunTest {
protected:
    void zero(std::vector<ByteRange> ranges, bool deallocates, Durability durability = Durability::cached) {
        before = disk;
        zeroed = ranges;
        job = std::make_unique<Zeroing>(
            unit(), std::move(ranges), deallocates,
            [this](const Outcome& outcome) {
                ++ends;
                end = outcome;
            },
            durability);
        job->start();
        settle();
    }
    // Serves everything, with a limit of commands that the unit has.
    void finish() {
        serving = true;
        for (unsigned i = 0; i < 1000 && ends == 0; ++i) {
            for (Seen* seen : open()) serve(*seen);
            settle();
        }
        serving = false;
        ASSERT_EQ(ends, 1u);
    }
    // Zeros where they were asked for, and every other byte as it was.
    void expect_exact() const {
        Bytes expected = before;
        for (const ByteRange& range : zeroed)
            std::fill(expected.begin() + static_cast<std::ptrdiff_t>(range.begin),
                      expected.begin() + static_cast<std::ptrdiff_t>(range.end), std::byte{});
        EXPECT_EQ(disk, expected);
    }
    [[nodiscard]] std::vector<unsigned> opcodes() {
        std::vector<unsigned> all;
        for (const Seen& seen : sent()) all.push_back(seen.opcode());
        return all;
    }
    [[nodiscard]] static bool unmaps(const Seen& seen) { return (static_cast<unsigned>(seen.cdb[1]) & 0x08) != 0; }

    std::unique_ptr<Zeroing> job;
    std::vector<ByteRange> zeroed;
    Bytes before;
    Outcome end;
    unsigned ends = 0;
};

TEST_F(Zeroes, WholeBlocksAreOneWriteSame) {
    begin();
    zero({{4096, 1044480}}, false);
    ASSERT_EQ(sent().size(), 1u);
    EXPECT_EQ(sent()[0].opcode(), 0x93u);
    EXPECT_FALSE(unmaps(sent()[0]));
    EXPECT_EQ(sent()[0].lba(), 8u);
    EXPECT_EQ(sent()[0].blocks(), 2032u);
    EXPECT_EQ(sent()[0].payload(), Bytes(512));
    finish();
    EXPECT_TRUE(end.ok());
    expect_exact();
}

TEST_F(Zeroes, PartsOfBlocksAtBothEndsKeepTheRest) {
    begin();
    zero({{1000, 5000}, {6000, 6100}, {7000, 7000}, {7168, 7169}}, false);
    finish();
    EXPECT_TRUE(end.ok());
    expect_exact();
}

TEST_F(Zeroes, ThatAreToLastEndWithOneFlush) {
    info.write_cache = info.fua = true;
    info.write_same_blocks_max = 100;
    begin();
    zero({{0, 512 * 350}, {512 * 400 + 1, 512 * 401}}, false, Durability::stable);
    finish();
    EXPECT_TRUE(end.ok());
    expect_exact();
    EXPECT_EQ(std::count_if(sent().begin(), sent().end(), [](const Seen& seen) { return seen.is_flush(); }), 1);
    EXPECT_TRUE(sent().back().is_flush());
    EXPECT_FALSE(unit().has_unflushed_writes());
}

TEST_F(Zeroes, ThatAreToLastNeedNoFlushWithoutACache) {
    begin();
    zero({{0, 4096}}, false, Durability::stable);
    finish();
    EXPECT_EQ(sent().size(), 1u);
}

TEST_F(Zeroes, ThatWereLostWithACacheHaveNotLasted) {
    info.write_cache = true;
    begin();
    zero({{0, 4096}}, false, Durability::stable);
    serve_one(sent()[0]);
    ASSERT_TRUE(sent().back().is_flush());
    EXPECT_EQ(ends, 0u);
    answer(sent().back(), scripted::check_condition(0x6, 0x29, 0x00));
    resume();
    finish();
    EXPECT_EQ(end.kind, OutcomeKind::medium_error);
}

TEST_F(Zeroes, TheUnitsLimitIsKept) {
    info.write_same_blocks_max = 100;
    begin();
    zero({{0, 512 * 350}}, false);
    finish();
    expect_exact();
    std::uint64_t blocks = 0;
    for (const Seen& seen : sent()) {
        EXPECT_LE(seen.blocks(), 100u);
        blocks += seen.blocks();
    }
    EXPECT_EQ(blocks, 350u);
}

TEST_F(Zeroes, AUnitThatRefusesWriteSameGetsZerosAndIsNotAskedAgain) {
    begin();
    zero({{0, 512 * 2304}}, false);
    ASSERT_EQ(open().size(), 1u);
    EXPECT_EQ(open()[0]->opcode(), 0x93u);
    answer(*open()[0], scripted::check_condition(0x5, 0x20, 0x00));
    settle();
    ASSERT_EQ(open().size(), 1u);
    EXPECT_EQ(open()[0]->opcode(), 0x41u);
    answer(*open()[0], scripted::check_condition(0x5, 0x20, 0x00));
    finish();
    EXPECT_TRUE(end.ok());
    expect_exact();
    EXPECT_EQ(failures, 0u);  // nobody has to know
    job.reset();
    ends = 0;
    const std::size_t sent_before = sent().size();
    zero({{0, 4096}}, false);
    ASSERT_EQ(sent().size(), sent_before + 1);
    EXPECT_TRUE(sent().back().is_write());
    finish();
}

TEST_F(Zeroes, AUnitThatHasOnlyTheShortWriteSameIsAskedByThatFromThenOn) {
    begin();
    zero({{512 * 7, 512 * 2300}}, false);
    ASSERT_EQ(open().size(), 1u);
    answer(*open()[0], scripted::check_condition(0x5, 0x20, 0x00));
    finish();
    EXPECT_TRUE(end.ok());
    expect_exact();
    ASSERT_EQ(sent().size(), 2u);
    EXPECT_EQ(sent()[1].opcode(), 0x41u);
    EXPECT_EQ(sent()[1].lba(), 7u);
    EXPECT_EQ(sent()[1].blocks(), 2293u);
    EXPECT_FALSE(unmaps(sent()[1]));
    EXPECT_EQ(sent()[1].payload(), Bytes(512));
    job.reset();
    ends = 0;
    zero({{0, 4096}}, false);
    finish();
    ASSERT_EQ(sent().size(), 3u);
    EXPECT_EQ(sent()[2].opcode(), 0x41u);
}

TEST_F(Zeroes, AUnitOfMoreBlocksThanTheShortWriteSameReachesGetsZeros) {
    info.blocks = (std::uint64_t{1} << 32) + 1;
    begin();
    zero({{0, 4096}}, false);
    answer(*open()[0], scripted::check_condition(0x5, 0x20, 0x00));
    ASSERT_EQ(opcodes(), (std::vector<unsigned>{0x93, 0x2a}));
    answer(*open()[0]);
    EXPECT_EQ(ends, 1u);
}

TEST_F(Zeroes, AUnitThatUnmapsByTheShortWriteSameAloneIsAskedByThat) {
    info.deallocates_to_zeros_by_10 = true;
    begin();
    zero({{0, 512 * 300}}, true);
    finish();
    EXPECT_TRUE(end.ok());
    expect_exact();
    EXPECT_EQ(opcodes(), (std::vector<unsigned>{0x41}));
    EXPECT_TRUE(unmaps(sent()[0]));
}

TEST_F(Zeroes, UnmapsOnlyWholeGranulesWhereThatReadsAsZeros) {
    info.deallocates_to_zeros = true;
    info.deallocation_blocks = 64;
    info.deallocation_first = 16;
    begin();
    zero({{512 * 10, 512 * 300}}, true);
    finish();
    EXPECT_TRUE(end.ok());
    expect_exact();
    ASSERT_EQ(sent().size(), 3u);
    EXPECT_FALSE(unmaps(sent()[0]));
    EXPECT_EQ(sent()[0].lba(), 10u);
    EXPECT_EQ(sent()[0].blocks(), 6u);
    EXPECT_TRUE(unmaps(sent()[1]));
    EXPECT_EQ(sent()[1].lba(), 16u);
    EXPECT_EQ(sent()[1].blocks(), 256u);
    EXPECT_FALSE(unmaps(sent()[2]));
    EXPECT_EQ(sent()[2].lba(), 272u);
    EXPECT_EQ(sent()[2].blocks(), 28u);
}

TEST_F(Zeroes, NothingIsUnmappedWhereThatMayReadAsSomethingElse) {
    info.deallocates_to_zeros = false;
    begin();
    zero({{0, 512 * 300}}, true);
    finish();
    for (const Seen& seen : sent()) EXPECT_FALSE(unmaps(seen));
    expect_exact();
}

TEST_F(Zeroes, NothingIsUnmappedWhereZerosWereAskedFor) {
    info.deallocates_to_zeros = true;
    begin();
    zero({{0, 512 * 300}}, false);
    finish();
    for (const Seen& seen : sent()) EXPECT_FALSE(unmaps(seen));
}

TEST_F(Zeroes, ARefusedUnmapIsDoneWithoutIt) {
    info.deallocates_to_zeros = true;
    begin();
    zero({{0, 512 * 300}}, true);
    ASSERT_EQ(open().size(), 1u);
    ASSERT_TRUE(unmaps(*open()[0]));
    answer(*open()[0], scripted::check_condition(0x5, 0x24, 0x00));
    finish();
    EXPECT_TRUE(end.ok());
    expect_exact();
    EXPECT_EQ(opcodes(), (std::vector<unsigned>{0x93, 0x93}));
    EXPECT_FALSE(unmaps(sent()[1]));
}

TEST_F(Zeroes, AFailureIsTheEndOfItAndIsToldOnceNothingIsUnderWay) {
    info.write_same_blocks_max = 64;
    begin();
    zero({{0, 512 * 2304}}, false);
    ASSERT_GT(open().size(), 1u);
    answer(*open()[0], scripted::check_condition(0x4, 0x44, 0x00));
    serving = false;
    EXPECT_EQ(ends, 0u);
    while (!open().empty()) serve_one(*open()[0]);
    EXPECT_EQ(ends, 1u);
    EXPECT_EQ(end.kind, OutcomeKind::hardware_error);
    EXPECT_LT(std::accumulate(sent().begin(), sent().end(), std::uint64_t{0},
                              [](std::uint64_t sum, const Seen& seen) { return sum + seen.blocks(); }),
              2304u);
}

TEST_F(Zeroes, AnInterruptEndsItAfterTheGracePeriodAndWhatIsUnderWayKeepsItsBlocks) {
    begin();
    zero({{0, 512 * 2304}}, false);
    ASSERT_EQ(open().size(), 1u);
    job->interrupt();
    settle();
    EXPECT_EQ(ends, 0u);
    advance(500ms);
    EXPECT_EQ(ends, 1u);
    EXPECT_EQ(end.kind, OutcomeKind::interrupted);
    const Request& later = write(0, pattern(512, 3));
    EXPECT_FALSE(later.answered());
    EXPECT_EQ(open().size(), 1u);  // not before the end of what was given up is known
    serve_all();
    EXPECT_TRUE(later.ok());
}

TEST_F(Zeroes, OtherBlocksAreReadAndWrittenMeanwhile) {
    begin();
    zero({{0, 512 * 64}}, false);
    const Request& other = read(512 * 100, 512);
    ASSERT_EQ(open().size(), 2u);
    serve_one(*open()[1]);
    EXPECT_TRUE(other.ok());
    finish();
}

TEST_F(Zeroes, AWriteThatIsAskedForAfterItsEndWins) {
    begin();
    zero({{0, 512 * 64}}, false);
    finish();
    write(512, pattern(512, 8));
    serve_all();
    EXPECT_EQ(disk_at(512, 512), pattern(512, 8));
}

TEST_F(Zeroes, ALostConnectionIsRepeatedBehindAFence) {
    begin();
    zero({{0, 512 * 64}}, false);
    ASSERT_EQ(open().size(), 1u);
    lose_connection();
    reconnect();
    fence();
    resume();
    ASSERT_EQ(open().size(), 1u);
    EXPECT_EQ(open()[0]->opcode(), 0x93u);
    finish();
    EXPECT_TRUE(end.ok());
    expect_exact();
}

TEST_F(Zeroes, ARemovedUnitEndsIt) {
    begin();
    zero({{0, 512 * 64}}, false);
    unit().remove();
    settle();
    EXPECT_EQ(ends, 1u);
    EXPECT_EQ(end.kind, OutcomeKind::gone);
}

TEST_F(Zeroes, NothingToDoIsDoneAtOnce) {
    begin();
    zero({{512, 512}}, false);
    EXPECT_EQ(ends, 1u);
    EXPECT_TRUE(end.ok());
    EXPECT_TRUE(sent().empty());
}

}  // namespace
}  // namespace srpfs::lun
