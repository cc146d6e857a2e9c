// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Commands of somebody's choice among the unit's own: Operation::mark_foreign().
#include "lun_fixture.h"

namespace srpfs::lun {
namespace {

scsi::Cdb cdb_of(std::initializer_list<unsigned> bytes) {
    scsi::Cdb cdb;
    for (const unsigned one : bytes) cdb.bytes[cdb.length++] = static_cast<std::byte>(one);
    return cdb;
}
const scsi::Cdb start_stop_unit = cdb_of({0x1b, 0, 0, 0, 1, 0});
const scsi::Cdb write_block_1 = cdb_of({0x2a, 0, 0, 0, 0, 1, 0, 0, 1, 0});

class ForeignCommand : public LunTest {
protected:
    Request& foreign(const scsi::Cdb& cdb, bool changes, std::uint32_t in_bytes = 0, Duration limit = 60s) {
        Request& request = make_request();
        request.operation->prepare_raw(unit(), cdb, in_bytes, request);
        return go(request, changes, limit);
    }
    Request& foreign_out(const scsi::Cdb& cdb, const Bytes& data, Duration limit = 60s) {
        Request& request = make_request();
        request.operation->prepare_raw_out(unit(), cdb, data, request);
        return go(request, true, limit);
    }
    Request& go(Request& request, bool changes, Duration limit) {
        request.operation->mark_foreign(changes, limit);
        unit().start(*request.operation);
        settle();
        return request;
    }
};

TEST_F(ForeignCommand, ThatChangesGoesAlone) {
    begin();
    Request& before = write(0, pattern(512, 1));
    Request& alone = foreign(start_stop_unit, true);
    Request& after = write(4096, pattern(512, 2));
    ASSERT_EQ(sent().size(), 1u);
    answer(sent()[0]);
    EXPECT_TRUE(before.ok());
    ASSERT_EQ(sent().size(), 2u);
    EXPECT_EQ(sent()[1].opcode(), 0x1b);
    Request& reader = read(8192, 512);  // reads have no order
    EXPECT_EQ(sent().size(), 3u);
    answer(sent()[1]);
    EXPECT_TRUE(alone.ok());
    EXPECT_EQ(sent().size(), 3u);
    resume();
    serve_all();
    EXPECT_TRUE(after.ok() && reader.ok());
}

TEST_F(ForeignCommand, ThatAsksGoesBesideWrites) {
    begin();
    write(0, pattern(512, 1));
    Request& request = foreign(scsi::inquiry(96), false, 96);
    ASSERT_EQ(sent().size(), 2u);
    answer(sent()[1]);
    EXPECT_TRUE(request.ok());
    serve_all();
}

TEST_F(ForeignCommand, ThatChangesCountsAsAnAcknowledgedWrite) {
    info.write_cache = true;
    begin();
    Request& request = foreign_out(write_block_1, pattern(512, 3));
    ASSERT_EQ(sent().size(), 1u);
    EXPECT_EQ(sent()[0].payload(), pattern(512, 3));
    answer(sent()[0]);
    EXPECT_TRUE(request.ok());
    EXPECT_TRUE(unit().has_unflushed_writes());
    resume();
    foreign(scsi::inquiry(96), false, 96);
    Request& flushed = flush();
    serve_all();
    EXPECT_TRUE(flushed.ok());
    EXPECT_FALSE(unit().has_unflushed_writes());
}

TEST_F(ForeignCommand, ThatChangesIsNotRepeatedAndNoWriteGoesBeforeAFence) {
    for (const bool has_data : {true, false}) {
        SCOPED_TRACE(has_data);
        if (units.empty()) begin();
        const std::uint64_t count = unit().counters()->ghosts;
        Request& request = has_data ? foreign_out(write_block_1, pattern(512, 3)) : foreign(start_stop_unit, true);
        lose_connection();
        EXPECT_EQ(request.outcome.kind, OutcomeKind::path_lost);
        EXPECT_EQ(unit().counters()->ghosts, count + 1);
        EXPECT_TRUE(unit().needs_fence());
        reconnect();
        resume();
        EXPECT_TRUE(sent().empty());
        Request& later = write(4096, pattern(512, 4));
        EXPECT_TRUE(sent().empty());
        fence();
        serve_all();
        EXPECT_TRUE(later.ok());
        EXPECT_FALSE(unit().needs_fence());
    }
}

TEST_F(ForeignCommand, ThatChangesIsNotRepeatedForWhatTheTargetSays) {
    begin();
    const Answer answers[] = {{.status = 0x40}, {.status = 0x02, .sense = scripted::fixed_sense(0xb, 0, 0)}};
    for (const Answer& said : answers) {
        Request& request = foreign_out(write_block_1, pattern(512, 3));
        answer(*open()[0], said);
        EXPECT_EQ(request.outcome.kind, OutcomeKind::aborted);
        resume();
    }
    EXPECT_EQ(sent().size(), 2u);
}

TEST_F(ForeignCommand, ThatAsksIsRepeatedOnTheNextConnection) {
    begin();
    Request& request = foreign(scsi::inquiry(96), false, 96);
    lose_connection();
    EXPECT_FALSE(request.answered());
    reconnect();
    resume();
    ASSERT_EQ(sent().size(), 1u);
    answer(sent()[0]);
    EXPECT_TRUE(request.ok());
}

TEST_F(ForeignCommand, WaitsWhileTheUnitIsLookedAt) {
    begin();
    unit().hold();
    Request& asks = foreign(scsi::inquiry(96), false, 96);
    Request& changes = foreign(start_stop_unit, true);
    EXPECT_TRUE(sent().empty());
    Request& probe = raw(scsi::inquiry(96), 96);
    ASSERT_EQ(sent().size(), 1u);
    answer(sent()[0]);
    EXPECT_TRUE(probe.ok());
    EXPECT_EQ(engine->usage().read_4k_in_use, 0u);
    resume();
    ASSERT_EQ(sent().size(), 3u);
    serve_all();
    EXPECT_TRUE(asks.ok() && changes.ok());
}

// Its data may have come from another unit.
TEST_F(ForeignCommand, ThatAsksIsRepeatedWhenItsUnitCameInDoubt) {
    begin();
    Request& request = foreign(scsi::read(0, 1, scsi::ForceUnitAccess::no), false, 512);
    unit().hold();
    answer(sent()[0]);
    EXPECT_FALSE(request.answered());
    EXPECT_EQ(engine->usage().read_4k_in_use, 0u);
    resume();
    ASSERT_EQ(sent().size(), 2u);
    serve_all();
    EXPECT_EQ(request.data, disk_at(0, 512));
}

TEST_F(ForeignCommand, GivenUpIsAborted) {
    begin();
    Request& request = foreign(start_stop_unit, true);
    interrupt(request);
    EXPECT_TRUE(target().tasks.empty());
    advance(500ms);
    EXPECT_EQ(request.outcome.kind, OutcomeKind::interrupted);
    Request& later = write(0, pattern(512, 1));
    EXPECT_EQ(sent().size(), 1u);
    ASSERT_EQ(target().tasks.size(), 1u);
    EXPECT_EQ(target().tasks[0].function, 0x01u);
    target().answer(target().tasks[0], 0x00);
    settle();
    answer(sent()[0], {.status = 0x40});
    EXPECT_EQ(sent().size(), 1u);  // the unit is looked at first
    resume();
    serve_all();
    EXPECT_TRUE(later.ok());
}

TEST_F(ForeignCommand, HasATimeLimitOfItsOwn) {
    begin();
    Request& request = foreign(start_stop_unit, true, 0, 5s);
    advance(5s);
    ASSERT_EQ(target().tasks.size(), 1u);
    EXPECT_EQ(target().tasks[0].function, 0x01u);
    target().answer(target().tasks[0], 0x00);
    settle();
    answer(sent()[0], {.status = 0x40});
    EXPECT_EQ(request.outcome.kind, OutcomeKind::aborted);
    resume();
    // The next user of its memory has the usual one.
    read(0, 512);
    advance(29s);
    EXPECT_EQ(target().tasks.size(), 1u);
    serve_all();
}

// MODE SELECT may have set WCE, FORMAT UNIT the block size: a write that has waited goes by what a look finds.
TEST_F(ForeignCommand, ThatChangesHoldsTheUnitHoweverItEnds) {
    begin();
    add_unit(1);  // the same unit by another path
    const Answer ends[] = {{}, {.status = 0x02, .sense = scripted::fixed_sense(5, 0x20, 0)}, {.status = 0x18}};
    for (const Answer& end : ends) {
        attentions.clear();
        (void)foreign(start_stop_unit, true);
        Request& later = write(0, pattern(512, 1));
        Request& other = write(*units[1], 512, pattern(512, 2));
        answer(*open()[0], end);
        EXPECT_TRUE(open().empty());
        ASSERT_EQ(attentions.size(), 2u);
        for (const Attention& told : attentions) EXPECT_TRUE(told.hold && !told.sense.valid);
        info.write_cache = true;
        resume();
        resume(*units[1]);
        ASSERT_EQ(open().size(), 2u);
        serve_all();
        EXPECT_TRUE(later.ok() && other.ok());
        EXPECT_TRUE(unit().has_unflushed_writes());
    }
}

TEST_F(ForeignCommand, AfterWhichThereIsACacheIsFlushed) {
    begin();
    Request& before = write(0, pattern(512, 1));
    serve_all();
    EXPECT_TRUE(before.ok());
    (void)foreign(start_stop_unit, true);
    serve_all();
    info.write_cache = true;
    resume();
    Request& flushed = flush();
    ASSERT_EQ(open().size(), 1u);
    EXPECT_EQ(open()[0]->opcode(), 0x35);
    serve_all();
    EXPECT_TRUE(flushed.ok());
}

// Whoever may read a file may give up soon: the others' connection does not suffer.
TEST_F(ForeignCommand, ThatAsksAndIsGivenUpIsNotAborted) {
    begin();
    Request& request = foreign(scsi::inquiry(96), false, 96, Duration::zero());
    interrupt(request);
    advance(500ms);
    EXPECT_EQ(request.outcome.kind, OutcomeKind::interrupted);
    advance(29s);
    EXPECT_TRUE(target().tasks.empty());
    serve_all();
    EXPECT_TRUE(target().tasks.empty());
}

TEST_F(ForeignCommand, GivenUpKeepsItsTokenUntilTheTargetHasEndedIt) {
    begin();
    for (const bool connection_is_lost : {false, true}) {
        Request& request = foreign(scsi::inquiry(96), false, 96, Duration::zero());
        const std::weak_ptr<const void> flight = request.to_keep = std::make_shared<char>();
        interrupt(request);
        advance(500ms);
        EXPECT_TRUE(request.answered());
        EXPECT_FALSE(flight.expired());
        if (connection_is_lost)
            lose_connection();
        else
            serve_all();
        EXPECT_TRUE(flight.expired());
    }
}

TEST_F(ForeignCommand, DoesNotGoToAUnitThatIsOffline) {
    begin();
    unit().set_offline();
    EXPECT_EQ(foreign(scsi::inquiry(96), false, 96).outcome.kind, OutcomeKind::not_ready);
    EXPECT_TRUE(sent().empty());
}

}  // namespace
}  // namespace srpfs::lun
