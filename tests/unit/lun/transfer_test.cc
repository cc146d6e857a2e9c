// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// How reads and writes become commands: splitting, limits, ends of the medium, residuals.
#include "lun_fixture.h"

namespace srpfs::lun {
namespace {

class Transfer : public LunTest {
protected:
    struct Range {
        std::uint64_t lba, blocks;
        bool operator==(const Range&) const = default;
    };
    [[nodiscard]] std::vector<Range> ranges() {
        std::vector<Range> all;
        for (const Seen& seen : sent()) all.push_back({seen.lba(), seen.blocks()});
        return all;
    }

    // Two units of a target that takes so many commands at once, which is what either may have under way. The second.
    Unit& begin_two_units(unsigned places) {
        limits.read_buffers_4k = 128;
        parameters.queue_size = queue_depth = places;
        fabric.login.credits = 64;
        begin();
        return add_unit(1);
    }
};

TEST_F(Transfer, AReadIsOneCommandIntoRegisteredMemory) {
    begin();
    Request& request = read(512 * 7, 512 * 3);
    ASSERT_EQ(sent().size(), 1u);
    EXPECT_EQ(sent()[0].opcode(), 0x28u);
    EXPECT_EQ(ranges(), (std::vector<Range>{{7, 3}}));
    EXPECT_EQ(sent()[0].length, 1536u);
    EXPECT_FALSE(sent()[0].has_fua());
    serve_all();
    EXPECT_TRUE(request.ok());
    EXPECT_EQ(request.data, disk_at(512 * 7, 512 * 3));
    EXPECT_EQ(unit().counters()->reads, 1u);
    EXPECT_EQ(unit().counters()->bytes_read, 1536u);
}

TEST_F(Transfer, BlocksBeyond32BitsTakeTheLongForm) {
    info.blocks = std::uint64_t{1} << 33;
    begin();
    read(((std::uint64_t{1} << 32) - 1) * 512, 512);
    read((std::uint64_t{1} << 32) * 512, 512);
    ASSERT_EQ(sent().size(), 2u);
    EXPECT_EQ(sent()[0].opcode(), 0x28u);
    EXPECT_EQ(sent()[0].lba(), 0xffffffffu);
    EXPECT_EQ(sent()[1].opcode(), 0x88u);
    EXPECT_EQ(sent()[1].lba(), std::uint64_t{1} << 32);
    EXPECT_EQ(sent()[1].blocks(), 1u);
}

TEST_F(Transfer, MaxSectSplitsAReadInFourAtATime) {
    parameters.max_sect = 8;
    begin();
    Request& request = read(0, 512 * 45);
    EXPECT_EQ(ranges(), (std::vector<Range>{{0, 8}, {8, 8}, {16, 8}, {24, 8}}));
    serve_one(sent()[2]);
    ASSERT_EQ(sent().size(), 5u);
    EXPECT_EQ(ranges()[4], (Range{32, 8}));
    serve_one(sent()[0]);
    EXPECT_EQ(ranges()[5], (Range{40, 5}));
    EXPECT_FALSE(request.answered());
    serve_all();
    EXPECT_TRUE(request.ok());
    EXPECT_EQ(sent().size(), 6u);
    EXPECT_EQ(request.data, disk_at(0, 512 * 45));
}

TEST_F(Transfer, TheDevicesLimitSplitsToo) {
    info.transfer_blocks_max = 4;
    begin();
    read(0, 512 * 6);
    EXPECT_EQ(ranges(), (std::vector<Range>{{0, 4}, {4, 2}}));
}

TEST_F(Transfer, PiecesEndWhereTheSizeEndsThatTheDeviceLikesBest) {
    info.transfer_blocks_optimal = 96;
    begin();
    read(512 * 10, 512 * 1400);
    EXPECT_EQ(ranges(), (std::vector<Range>{{10, 470}, {480, 480}, {960, 450}}));  // five times 96 are most of 256 KiB
    serve_all();
    read(0, 512 * 96);
    EXPECT_EQ(ranges().back(), (Range{0, 96}));
    serve_all();
    write(512 * 95, pattern(512 * 97, 1));
    EXPECT_EQ(ranges().back(), (Range{95, 97}));  // less than a piece
    serve_all();
}

TEST_F(Transfer, AnOptimalSizeBeyondTheLimitIsNone) {
    info.transfer_blocks_optimal = 4096;
    info.transfer_blocks_max = 1000;
    begin();
    read(0, 512 * 1500);
    EXPECT_EQ(ranges(), (std::vector<Range>{{0, 1000}, {1000, 500}}));
    serve_all();
}

TEST_F(Transfer, TheSmallerOfBothLimitsCounts) {
    info.transfer_blocks_max = 1000;
    parameters.max_sect = 3;
    begin();
    read(0, 512 * 4);
    EXPECT_EQ(ranges(), (std::vector<Range>{{0, 3}, {3, 1}}));
}

TEST_F(Transfer, MaxSectCounts512ByteSectorsWhateverTheBlock) {
    info.block_bytes = 4096;
    info.blocks = 64;
    parameters.max_sect = 17;
    begin();
    read(0, 4096 * 5);
    EXPECT_EQ(ranges(), (std::vector<Range>{{0, 2}, {2, 2}, {4, 1}}));
}

TEST_F(Transfer, ACommandHasAtLeastOneBlock) {
    info.block_bytes = 4096;
    info.blocks = 64;
    parameters.max_sect = 1;
    begin();
    read(0, 8192);
    EXPECT_EQ(ranges(), (std::vector<Range>{{0, 1}, {1, 1}}));
}

TEST_F(Transfer, AWriteIsSplitWithItsData) {
    parameters.max_sect = 32;
    begin();
    const Bytes data = pattern(512 * 100, 3);
    Request& request = write(512 * 10, data);
    EXPECT_EQ(ranges(), (std::vector<Range>{{10, 32}, {42, 32}, {74, 32}, {106, 4}}));
    EXPECT_EQ(sent()[0].format, 0x10u);
    EXPECT_EQ(sent()[3].format, 0x30u);  // 2048 bytes fit into the unit
    serve_all();
    EXPECT_TRUE(request.ok());
    EXPECT_EQ(disk_at(512 * 10, data.size()), data);
    EXPECT_EQ(unit().counters()->bytes_written, data.size());
}

TEST_F(Transfer, AnUnalignedReadReadsWholeBlocksAndHandsOverThePart) {
    begin();
    Request& request = read(700, 1000);
    EXPECT_EQ(ranges(), (std::vector<Range>{{1, 3}}));
    serve_all();
    EXPECT_EQ(request.data, disk_at(700, 1000));
}

TEST_F(Transfer, OneByteIsAReadOfOneBlock) {
    info.block_bytes = 4096;
    info.blocks = 64;
    begin();
    Request& request = read(8191, 1);
    EXPECT_EQ(ranges(), (std::vector<Range>{{1, 1}}));
    serve_all();
    EXPECT_EQ(request.data, disk_at(8191, 1));
}

TEST_F(Transfer, TheLastByteCanBeReadAndTheNextCannot) {
    begin();
    const std::uint64_t end = info.blocks * 512;
    EXPECT_FALSE(read(end - 1, 1).answered());
    EXPECT_EQ(read(end - 1, 2).outcome.kind, OutcomeKind::out_of_range);
    EXPECT_EQ(read(end, 1).outcome.kind, OutcomeKind::out_of_range);
    EXPECT_EQ(read(UINT64_MAX, 1).outcome.kind, OutcomeKind::out_of_range);
    EXPECT_EQ(write(end - 512, Bytes(1024)).outcome.kind, OutcomeKind::out_of_range);
    EXPECT_EQ(sent().size(), 1u);
}

TEST_F(Transfer, AReadOnlyUnitIsNotWrittenTo) {
    info.read_only = true;
    begin();
    EXPECT_EQ(write(0, Bytes(512)).outcome.kind, OutcomeKind::write_protected);
    EXPECT_TRUE(sent().empty());
    EXPECT_EQ(failures, 1u);
}

TEST_F(Transfer, AFailureIsToldWhenTheOtherPartsHaveEnded) {
    parameters.max_sect = 1;
    begin();
    Request& request = read(0, 512 * 3);
    answer(sent()[1], scripted::check_condition(0x4, 0x44, 0));
    EXPECT_FALSE(request.answered());
    serve_one(sent()[0]);
    EXPECT_FALSE(request.answered());
    answer(sent()[2], scripted::check_condition(0x3, 0x11, 0));
    EXPECT_EQ(request.outcome.kind, OutcomeKind::hardware_error);  // the first
    EXPECT_TRUE(request.data.empty());
}

TEST_F(Transfer, AfterAFailureNothingMoreOfItIsSent) {
    parameters.max_sect = 1;
    begin();
    Request& request = read(0, 512 * 10);
    answer(sent()[0], scripted::check_condition(0x4, 0x44, 0));
    EXPECT_EQ(sent().size(), 4u);
    serve_all();
    EXPECT_EQ(sent().size(), 4u);
    EXPECT_EQ(request.outcome.kind, OutcomeKind::hardware_error);
}

TEST_F(Transfer, AMebibyteInOneRequestIsMovedWhole) {
    begin();
    serving = true;
    const Bytes data = pattern(1 << 20, 8);
    EXPECT_TRUE(write(512 * 64, data).ok());
    Request& request = read(512 * 64 + 1, (1 << 20) - 2);
    ASSERT_TRUE(request.ok());
    EXPECT_EQ(request.data, Bytes(data.begin() + 1, data.end() - 1));
}

// ---- residuals: never hand over bytes the target did not write (reliability 3.5) ----

TEST_F(Transfer, AGoodReadThatIsShortIsAnError) {
    begin();
    Request& request = read(0, 4096);
    answer(sent()[0], {.in_under = 1});
    EXPECT_EQ(request.outcome.kind, OutcomeKind::short_transfer);
    EXPECT_TRUE(request.data.empty());
    EXPECT_EQ(sent().size(), 1u);
}

TEST_F(Transfer, AGoodReadThatIsTooLongIsAnError) {
    begin();
    Request& request = read(0, 4096);
    answer(sent()[0], {.in_over = 512});
    EXPECT_EQ(request.outcome.kind, OutcomeKind::short_transfer);
}

TEST_F(Transfer, AGoodWriteThatIsShortIsAnError) {
    begin();
    Request& request = write(0, Bytes(512));
    answer(sent()[0], {.out_under = 512});
    EXPECT_EQ(request.outcome.kind, OutcomeKind::short_transfer);
}

TEST_F(Transfer, AGoodWriteThatIsTooLongIsAnError) {
    begin();
    Request& request = write(0, Bytes(512));
    answer(sent()[0], {.out_over = 512});
    EXPECT_EQ(request.outcome.kind, OutcomeKind::short_transfer);
}

TEST_F(Transfer, AResidualOfZeroIsNone) {
    begin();
    Request& request = read(0, 512);
    std::memset(sent()[0].memory().data(), 0, 512);
    answer(sent()[0], {.in_under = 0});
    EXPECT_TRUE(request.ok());
}

TEST_F(Transfer, ARecoveredErrorWithAResidualIsAnError) {
    begin();
    Request& request = read(0, 512);
    Answer with = scripted::check_condition(0x1, 0x18, 0);
    with.in_under = 512;
    answer(sent()[0], with);
    EXPECT_EQ(request.outcome.kind, OutcomeKind::short_transfer);
}

TEST_F(Transfer, ARawCommandGivesWhatTheTargetSent) {
    begin();
    Request& request = raw(scsi::inquiry(96), 96);
    ASSERT_EQ(sent().size(), 1u);
    EXPECT_EQ(sent()[0].length, 96u);
    std::memset(sent()[0].memory().data(), 0x41, 36);
    answer(sent()[0], {.in_under = 60});
    ASSERT_TRUE(request.ok());
    EXPECT_EQ(request.data, Bytes(36, std::byte{0x41}));
}

TEST_F(Transfer, ARawCommandWithoutDataHasNoDescriptor) {
    begin();
    target().keeps_test_unit_ready = true;
    Request& request = raw(scsi::test_unit_ready(), 0);
    EXPECT_EQ(sent()[0].format, 0u);
    answer(sent()[0]);
    EXPECT_TRUE(request.ok());
}

// ---- how many at a time ----

TEST_F(Transfer, TheUnitsDepthBoundsItsCommands) {
    queue_depth = 3;
    begin();
    for (unsigned i = 0; i < 5; ++i) read(512 * i, 512);
    EXPECT_EQ(sent().size(), 3u);
    serve_one(sent()[1]);
    EXPECT_EQ(sent().size(), 4u);
    EXPECT_EQ(sent()[3].lba(), 3u);
    serve_all();
    EXPECT_EQ(sent().size(), 5u);
}

TEST_F(Transfer, AUnitThatIsNotAnsweredLeavesPlacesToOthersOfItsTarget) {
    Unit& other = begin_two_units(16);
    for (unsigned i = 0; i < 20; ++i) read(512 * i, 512);
    EXPECT_EQ(sent().size(), 12u);

    for (unsigned i = 0; i < 10; ++i) {
        Request& request = read(other, 512 * i, 512);
        ASSERT_EQ(sent().size(), 13u + i);
        serve_one(sent().back());
        EXPECT_TRUE(request.ok());
    }
    EXPECT_EQ(open().size(), 12u);
    for (unsigned i = 0; i < 10; ++i) read(other, 512 * i, 512);
    EXPECT_EQ(open().size(), 16u) << "four at once, whatever others have";

    for (unsigned i = 0; i < 4; ++i) serve_all();
    for (const auto& request : requests) EXPECT_TRUE(request->ok());
}

// Units with no end of work; the first has nearly all places when the second comes.
TEST_F(Transfer, UnitsOfOneTargetHaveItsPlacesInTurn) {
    Unit& other = begin_two_units(16);
    const auto of_other = [this] {
        const auto all = open();
        return std::count_if(all.begin(), all.end(), [](const Seen* one) { return one->lun != 0; });
    };
    for (unsigned i = 0; i < 48; ++i) read(512 * i, 512);
    for (unsigned i = 0; i < 48; ++i) read(other, 512 * i, 512);
    EXPECT_EQ(open().size(), 16u);
    EXPECT_EQ(of_other(), 4);
    for (unsigned i = 0; i < 40; ++i) serve_one(*open().front());
    EXPECT_GE(open().size(), 12u);
    EXPECT_NEAR(static_cast<double>(of_other()), static_cast<double>(open().size()) / 2, 1);
    while (!open().empty()) serve_all();
    for (const auto& request : requests) EXPECT_TRUE(request->ok());
}

// Who wants to know whether the target grants too few commands looks at these, however many units there are.
TEST_F(Transfer, WhoHasToWaitForItsTurnIsCounted) {
    limits.read_buffers_4k = 64;
    parameters.queue_size = 64;
    queue_depth = 64;
    fabric.login.credits = 16;
    begin();
    add_unit(1);
    for (unsigned i = 0; i < 10; ++i) read(512 * i, 512);
    EXPECT_EQ(link->gauges()->zero_req_lim, 0u);
    EXPECT_EQ(link->gauges()->channels().front()->counters.out_of_credits, 0u);
    for (unsigned i = 0; i < 10; ++i) read(512 * i, 512);
    EXPECT_LT(open().size(), 14u) << "some are left to the other one";
    EXPECT_GT(link->gauges()->zero_req_lim, 0u);
    EXPECT_GT(link->gauges()->channels().front()->counters.out_of_credits, 0u);
    while (!open().empty()) serve_all();
}

TEST_F(Transfer, WantOfSlotsIsNotWantOfCredit) {
    begin_two_units(16);
    for (unsigned i = 0; i < 20; ++i) read(512 * i, 512);
    EXPECT_GT(link->gauges()->zero_req_lim, 0u);
    EXPECT_EQ(link->gauges()->channels().front()->counters.out_of_credits, 0u);
    while (!open().empty()) serve_all();
}

TEST_F(Transfer, WhoWaitsForAPlaceHasItWhenOthersHaveNothingLeft) {
    Unit& other = begin_two_units(16);
    for (unsigned i = 0; i < 20; ++i) read(512 * i, 512);
    for (unsigned i = 0; i < 20; ++i) read(other, 512 * i, 512);
    EXPECT_EQ(open().size(), 16u);
    const auto first_of_unit = [this]() -> Seen* {
        for (Seen* one : open())
            if (one->lun == 0) return one;
        return nullptr;
    };
    while (Seen* const one = first_of_unit()) serve_one(*one);
    EXPECT_EQ(open().size(), 12u) << "none of which has been answered";
    while (!open().empty()) serve_all();
    for (const auto& request : requests) EXPECT_TRUE(request->ok());
}

TEST_F(Transfer, AFlushDoesNotStandInLineForPlaces) {
    info.write_cache = true;
    Unit& other = begin_two_units(32);
    add_unit(2);
    Request& written = write(0, Bytes(512));
    serve_all();
    EXPECT_TRUE(written.ok());
    for (unsigned i = 0; i < 30; ++i) read(other, 512 * i, 512);
    EXPECT_EQ(open().size(), 24u);
    for (unsigned i = 0; i < 4; ++i) read(512 * i, 512);
    EXPECT_EQ(open().size(), 28u);
    flush();
    ASSERT_EQ(open().size(), 29u);
    EXPECT_TRUE(open().back()->is_flush());
    while (!open().empty()) serve_all();
    for (const auto& request : requests) EXPECT_TRUE(request->ok());
}

TEST_F(Transfer, AUnitThatIsAloneMayHaveAllPlaces) {
    begin_two_units(16);
    units.pop_back();
    for (unsigned i = 0; i < 20; ++i) read(512 * i, 512);
    EXPECT_EQ(open().size(), 16u);
    serve_all();
    serve_all();
}

TEST_F(Transfer, WithoutCreditRequestsWaitInOrder) {
    fabric.login.credits = 4;
    begin();
    for (unsigned i = 0; i < 5; ++i) read(512 * i, 512);
    EXPECT_EQ(sent().size(), 2u);
    serve_one(sent()[0]);
    ASSERT_EQ(sent().size(), 3u);
    EXPECT_EQ(sent()[2].lba(), 2u);
    serve_all();
    for (const auto& request : requests) EXPECT_TRUE(request->ok());
}

// ---- TASK SET FULL ----

TEST_F(Transfer, TaskSetFullLowersTheDepthToWhatTheTargetHas) {
    queue_depth = 8;
    begin();
    for (unsigned i = 0; i < 8; ++i) read(512 * i, 512);
    ASSERT_EQ(sent().size(), 8u);
    answer(sent()[7], {.status = 0x28});
    serve_one(sent()[0]);
    for (unsigned i = 8; i < 12; ++i) read(512 * i, 512);
    EXPECT_EQ(open().size(), 7u);  // 7 were in the target when it was full
}

TEST_F(Transfer, TheDepthRecoversByOneASecond) {
    queue_depth = 4;
    begin();
    for (unsigned i = 0; i < 4; ++i) read(512 * i, 512);
    answer(sent()[1], {.status = 0x28});
    answer(sent()[2], {.status = 0x28});
    answer(sent()[3], {.status = 0x28});
    serve_one(sent()[0]);
    serving = true;
    advance(500ms);  // the three are repeated, one at a time
    for (const auto& request : requests) EXPECT_TRUE(request->ok());
    serving = false;
    const auto width = [this] {
        for (unsigned i = 0; i < 8; ++i) read(512 * i, 512);
        const auto count = open().size();
        serve_all();
        return count;
    };
    EXPECT_EQ(width(), 1u);
    advance(1100ms);
    serving = true;
    EXPECT_TRUE(read(0, 512).ok());
    serving = false;
    EXPECT_EQ(width(), 2u);
    for (unsigned i = 0; i < 3; ++i) {
        advance(1100ms);
        serving = true;
        EXPECT_TRUE(read(0, 512).ok());
        serving = false;
    }
    EXPECT_EQ(width(), 4u);  // and no more than what was asked for
}

TEST_F(Transfer, TheDepthNeverGoesBelowOne) {
    queue_depth = 2;
    begin();
    read(0, 512);
    for (unsigned i = 0; i < 3; ++i) {
        ASSERT_EQ(open().size(), 1u);
        answer(*open()[0], {.status = 0x28});
        EXPECT_TRUE(advance_until([this] { return open().size() == 1; }, 10s));
    }
    serve_all();
    EXPECT_TRUE(requests[0]->ok());
}

TEST_F(Transfer, UnitsOfOneTargetShareItsCreditsInTurn) {
    fabric.login.credits = 4;
    begin();
    Unit& second = add_unit(1);
    for (unsigned i = 0; i < 6; ++i) read(512 * i, 512);
    Request& other = read(second, 0, 512);
    EXPECT_EQ(sent().size(), 2u);
    for (unsigned served = 0; served < 4 && !other.answered(); ++served) serve_one(*open().front());
    EXPECT_TRUE(other.answered());
    serve_all();
}

}  // namespace
}  // namespace srpfs::lun
