// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What durable means: flushes, FUA, and caches that are lost (decisions 8, 9; docs/recovery.md).
#include "lun_fixture.h"

namespace srpfs::lun {
namespace {

using scripted::check_condition;

class Flush : public LunTest {
protected:
    Flush() { info.write_cache = true; }
    // Nobody has written to it that we do not know of.
    void begin() {
        LunTest::begin();
        flush();
        serve_all();
        sent().clear();
    }
    Request& flush_by(Unit& path) {
        Request& request = make_request();
        request.operation->prepare_flush(path, request, &losses_seen);
        path.start(*request.operation);
        settle();
        return request;
    }
    // Unit 0 goes.
    void leave() {
        unit().remove();
        settle();
        units.pop_front();
    }
    Unit& add_stranger() {
        const std::string wwid = std::exchange(info.wwid, "naa.6001405000000009");
        Unit& stranger = add_unit(9);
        info.wwid = wwid;
        return stranger;
    }
    void write_one(Durability durability = Durability::cached) {
        serving = true;
        EXPECT_TRUE(write(0, pattern(512, 1), durability).ok());
        serving = false;
    }
    [[nodiscard]] std::size_t flushes() {
        std::size_t count = 0;
        for (const Seen& seen : sent()) count += seen.is_flush() ? 1 : 0;
        return count;
    }
    // A flush that is answered without a command.
    void expect_nothing_to_flush() {
        const auto before = flushes();
        EXPECT_TRUE(flush().ok());
        EXPECT_EQ(flushes(), before);
    }
};

TEST_F(Flush, WithoutAVolatileCacheSendsNothing) {
    info.write_cache = false;
    begin();
    write_one();
    expect_nothing_to_flush();
}

TEST_F(Flush, WithoutAWriteSendsNothing) {
    begin();
    expect_nothing_to_flush();
}

TEST_F(Flush, CoversTheWholeUnit) {
    begin();
    write_one();
    Request& request = flush();
    ASSERT_EQ(flushes(), 1u);
    EXPECT_EQ(sent().back().opcode(), 0x35u);
    EXPECT_EQ(sent().back().lba(), 0u);
    EXPECT_EQ(sent().back().blocks(), 0u);
    EXPECT_FALSE(request.answered());
    serve_all();
    EXPECT_TRUE(request.ok());
    expect_nothing_to_flush();
}

// Another path, or an earlier process, may have left them there.
TEST_F(Flush, OfAUnitThatWasMetJustNowCoversWhatOthersHaveWritten) {
    LunTest::begin();
    Request& request = flush();
    ASSERT_EQ(flushes(), 1u);
    EXPECT_FALSE(request.answered());
    serve_all();
    EXPECT_TRUE(request.ok());
    expect_nothing_to_flush();
}

TEST_F(Flush, OfAUnitThatWasMetJustNowIsAskedForAgainWhenItFails) {
    LunTest::begin();
    const Request& request = flush();
    answer(sent().back(), check_condition(0x4, 0x44, 0));
    EXPECT_EQ(request.outcome.kind, OutcomeKind::hardware_error);
    flush();
    EXPECT_EQ(flushes(), 2u);
    serve_all();
}

TEST_F(Flush, OfAUnitThatCanOnlyBeReadSendsNothing) {
    info.read_only = true;
    LunTest::begin();
    expect_nothing_to_flush();
}

// A unit that is reserved by others, has no such command, or is write-protected.
class Refusal : public Flush, public testing::WithParamInterface<std::pair<scripted::Answer, OutcomeKind>> {
protected:
    void refuse() { answer(sent().back(), GetParam().first); }
};

TEST_P(Refusal, OfAFlushOfNothingIsNoError) {
    LunTest::begin();
    const Request& request = flush();
    ASSERT_EQ(flushes(), 1u);
    refuse();
    EXPECT_TRUE(request.ok());
    EXPECT_EQ(failures, 0u);
    EXPECT_EQ(unit().counters()->write_losses, 0u);
    // One that has no such command is not asked again; the others may have something yet.
    flush();
    EXPECT_EQ(flushes(), GetParam().second == OutcomeKind::illegal_request ? 1u : 2u);
    serve_all();
}

TEST_P(Refusal, OfAFlushOfNothingStillTellsOfALoss) {
    LunTest::begin();
    const Request& request = flush();
    link->tell_event(unit().lun(),
                     {.valid = true, .deferred = true, .key = scsi::SenseKey::medium_error, .asc = 0x0c, .ascq = 0});
    refuse();
    EXPECT_EQ(request.outcome.kind, OutcomeKind::medium_error);
}

TEST_P(Refusal, OfAFlushOfSomethingIsAnError) {
    begin();
    write_one();
    const Request& request = flush();
    refuse();
    EXPECT_EQ(request.outcome.kind, GetParam().second);
    EXPECT_EQ(failures, 1u);
    EXPECT_TRUE(unit().has_unflushed_writes());
}
INSTANTIATE_TEST_SUITE_P(All, Refusal,
                         testing::Values(std::pair{Answer{.status = 0x18}, OutcomeKind::reservation_conflict},
                                         std::pair{check_condition(0x5, 0x20, 0), OutcomeKind::illegal_request},
                                         std::pair{check_condition(0x7, 0x27, 0), OutcomeKind::write_protected}));

TEST_F(Flush, OfAUnitWithoutRoomForWhatOthersHaveWrittenFails) {
    LunTest::begin();
    const Request& request = flush();
    answer(sent().back(), check_condition(0x7, 0x27, 0x07));
    EXPECT_EQ(request.outcome.kind, OutcomeKind::space_exhausted);
    EXPECT_EQ(unit().counters()->write_losses, 1u);
}

TEST_F(Flush, WhatOthersHaveWrittenIsNoLossOfOurs) {
    LunTest::begin();
    unit().on_target_restart();
    Request& request = flush();
    serve_all();
    EXPECT_TRUE(request.ok());
}

TEST_F(Flush, ByAnotherPathCoversTheWritesOfThis) {
    begin();
    Unit& other = add_unit(1);  // of the same identity
    write_one();
    Request& request = flush_by(other);
    ASSERT_EQ(flushes(), 1u);
    EXPECT_FALSE(request.answered());
    serve_all();
    EXPECT_TRUE(request.ok());
    expect_nothing_to_flush();
}

TEST_F(Flush, ByAPathThatWasMetLaterSendsNothingAfterOneByTheFirst) {
    begin();
    write_one();
    flush();
    serve_all();
    EXPECT_TRUE(flush_by(add_unit(1)).ok());
    EXPECT_EQ(flushes(), 1u);
}

// They may be two units of an array that tells its own number.
TEST_F(Flush, ByAPathThatIsKnownByASerialNumberOnlyCoversWhatWentByIt) {
    info.wwid_is_serial = true;
    begin();
    Unit& other = add_unit(1);
    write_one();
    for (unsigned sent_before = 0; sent_before < 2; ++sent_before) {
        flush_by(other);
        EXPECT_EQ(flushes(), sent_before + 1);
        serve_all();
    }
    flush();
    EXPECT_EQ(flushes(), 3u);
    serve_all();
    expect_nothing_to_flush();
    EXPECT_TRUE(flush_by(other).ok());
    EXPECT_EQ(flushes(), 3u);
}

TEST_F(Flush, AfterThePathOfTheWritesIsGoneCoversThem) {
    begin();
    write_one();
    leave();
    add_unit(0);
    Request& request = flush();
    ASSERT_EQ(flushes(), 1u);
    serve_all();
    EXPECT_TRUE(request.ok());
}

// Nobody has told of a loss: the unit was not there when the target was logged in to again.
TEST_F(Flush, AfterAnotherLoginWithoutAnyPathProvesNothingOfWhatWasWrittenBefore) {
    begin();
    write_one();
    leave();
    lose_connection();
    reconnect();
    serving = true;
    Unit& back = add_unit(1);
    EXPECT_EQ(flush_by(back).outcome.kind, OutcomeKind::medium_error);
    EXPECT_TRUE(flush_by(back).ok());
}

TEST_F(Flush, OfALossThatWasNoticedWhileTheUnitWasAwayTellsWhoOpensItNext) {
    begin();
    write_one();
    unit().on_target_restart();
    leave();
    serving = true;
    Unit& back = add_unit(1);
    EXPECT_EQ(flush_by(back).outcome.kind, OutcomeKind::medium_error);
    EXPECT_TRUE(flush_by(back).ok());
}

// What the path of the writes has not noticed yet, a restart of the target, the other one cannot know.
TEST_F(Flush, ByAPathThatWasMetLaterCoversOnlyWhatTheFirstVouchesFor) {
    for (const bool is_heard : {true, false}) {
        if (link) TearDown();
        units.clear();
        requests.clear();
        begin();
        write_one();
        LinkOwner& owner = *this;
        initiator::TargetLink newer("newer", fabric, timers(), owner);
        UnitListener& listener = *this;
        auto path = std::make_unique<Unit>(*engine, newer, scsi::Lun::from_number(1), queue_depth, listener);
        newer.set_state(initiator::PortState::running);
        path->resume(std::make_shared<const UnitInfo>(info));
        EXPECT_TRUE(path->has_unflushed_writes());
        advance(1s);
        if (is_heard) {
            read(0, 512);
            serve_all();
        }
        EXPECT_EQ(path->others_vouch_for_cache(), is_heard);
        EXPECT_TRUE(unit().others_vouch_for_cache());
        path->remove();
        settle();
        path.reset();
        flush();
        serve_all();
    }
}

// Another unit was met in the meantime, when nobody was there that knew of them.
TEST_F(Flush, LossesOfWhatAPathThatIsGoneHasWrittenAreTold) {
    begin();
    write_one();
    leave();
    Unit& stranger = add_stranger();
    Unit& back = add_unit(1);
    EXPECT_FALSE(stranger.has_unflushed_writes());
    EXPECT_TRUE(back.has_unflushed_writes());
    back.on_target_restart();
    EXPECT_EQ(flush_by(back).outcome.kind, OutcomeKind::medium_error);
}

TEST_F(Flush, LossesOfWhatWasFlushedBeforeThePathWentAreNone) {
    begin();
    write_one();
    flush();
    serve_all();
    leave();
    add_stranger();
    Unit& back = add_unit(1);
    EXPECT_FALSE(back.has_unflushed_writes());
    back.on_target_restart();
    serving = true;
    EXPECT_TRUE(flush_by(back).ok());
}

TEST_F(Flush, OfWhatAPathThatIsGoneHasWrittenIsRefusedWithAnError) {
    begin();
    write_one();
    leave();
    const Request& request = flush_by(add_unit(1));
    answer(sent().back(), {.status = 0x18});
    EXPECT_EQ(request.outcome.kind, OutcomeKind::reservation_conflict);
}

class SerialNumber : public Flush {
protected:
    SerialNumber() { info.wwid_is_serial = true; }
};

TEST_F(SerialNumber, WhatAPathThatIsGoneHasWrittenIsTheOthersToFlush) {
    begin();
    Unit& second = add_unit(1);
    Unit& third = add_unit(2);
    for (Unit* path : {&second, &third}) {
        flush_by(*path);
        serve_all();
    }
    write_one();
    leave();
    // Nobody knows which of them leads to the same unit.
    for (Unit* path : {&second, &third}) {
        const auto before = flushes();
        const Request& refused = flush_by(*path);
        ASSERT_EQ(flushes(), before + 1);
        answer(sent().back(), {.status = 0x18});
        EXPECT_EQ(refused.outcome.kind, OutcomeKind::reservation_conflict);
        const Request& request = flush_by(*path);
        ASSERT_EQ(flushes(), before + 2);
        serve_all();
        EXPECT_TRUE(request.ok());
    }
    EXPECT_TRUE(flush_by(second).ok());
    EXPECT_TRUE(flush_by(third).ok());
    EXPECT_FALSE(second.has_unflushed_writes());
}

TEST_F(SerialNumber, WhatTheOnlyPathHasLeftIsOfThoseThatAreMetNext) {
    begin();
    write_one();
    leave();
    add_stranger();
    Unit& second = add_unit(1);
    EXPECT_TRUE(second.has_unflushed_writes());
    second.on_target_restart();
    EXPECT_EQ(flush_by(second).outcome.kind, OutcomeKind::medium_error);
    serving = true;
    EXPECT_TRUE(flush_by(second).ok());
    EXPECT_FALSE(second.has_unflushed_writes());
    EXPECT_FALSE(add_unit(2).has_unflushed_writes());
}

TEST_F(SerialNumber, APathThatCanOnlyBeReadTakesNothingOver) {
    begin();
    write_one();
    info.read_only = true;
    Unit& other = add_unit(1);
    leave();
    EXPECT_FALSE(other.has_unflushed_writes());
    EXPECT_TRUE(flush_by(other).ok());
    EXPECT_EQ(flushes(), 0u);
    info.read_only = false;
    EXPECT_TRUE(add_unit(2).has_unflushed_writes());
}

// One path may have been looked at before the cache was switched off, the other since.
TEST_F(Flush, ByAPathThatSeesNoCacheCoversWhatAnotherHasWritten) {
    begin();
    info.write_cache = false;
    Unit& other = add_unit(1);
    write_one();
    const Request& request = flush_by(other);
    ASSERT_EQ(flushes(), 1u);
    serve_all();
    EXPECT_TRUE(request.ok());
    EXPECT_FALSE(other.has_unflushed_writes());
}

TEST_F(Flush, APathThatSeesNoCacheTellsOfTheLossOfWhatAnotherHasWritten) {
    begin();
    info.write_cache = false;
    Unit& other = add_unit(1);
    write_one();
    other.on_target_restart();
    EXPECT_EQ(flush().outcome.kind, OutcomeKind::medium_error);
    read(other, 0, 512);
    answer(sent().back(), check_condition(0x6, 0x29, 0x00));
    EXPECT_EQ(flush().outcome.kind, OutcomeKind::medium_error);
    link->tell_event(other.lun(),
                     {.valid = true, .deferred = true, .key = scsi::SenseKey::medium_error, .asc = 0x0c, .ascq = 0});
    EXPECT_EQ(flush().outcome.kind, OutcomeKind::medium_error);
    resume(other);
    serve_all();
}

TEST_F(Flush, DoesNotCoverWhatIsAcknowledgedMeanwhile) {
    begin();
    write_one();
    Request& request = flush();
    Seen& command = sent().back();
    write_one();
    answer(command);
    EXPECT_TRUE(request.ok());
    EXPECT_TRUE(unit().has_unflushed_writes());
    flush();
    EXPECT_EQ(flushes(), 2u);
    serve_all();
}

TEST_F(Flush, ThatFailsLeavesTheWritesUnflushed) {
    begin();
    write_one();
    Request& request = flush();
    answer(sent().back(), check_condition(0x3, 0x11, 0));
    EXPECT_EQ(request.outcome.kind, OutcomeKind::medium_error);
    flush();
    EXPECT_EQ(flushes(), 2u);
    serve_all();
    expect_nothing_to_flush();
}

TEST_F(Flush, AfterAWriteThatFailedHasNothingToDo) {
    begin();
    write(0, pattern(512, 1));
    answer(sent().back(), check_condition(0x3, 0x11, 0));
    expect_nothing_to_flush();
}

TEST_F(Flush, ADurableWriteUsesFua) {
    info.fua = true;
    begin();
    write_one(Durability::stable);
    EXPECT_TRUE(sent().at(0).has_fua());
    EXPECT_EQ(sent().size(), 1u);
    expect_nothing_to_flush();
}

TEST_F(Flush, ACachedWriteDoesNotUseFua) {
    info.fua = true;
    begin();
    write_one();
    EXPECT_FALSE(sent().at(0).has_fua());
}

TEST_F(Flush, ADurableWriteWithoutACacheIsAnyWrite) {
    info.write_cache = false;
    begin();
    write_one(Durability::stable);
    EXPECT_FALSE(sent().at(0).has_fua());
    EXPECT_EQ(sent().size(), 1u);
}

TEST_F(Flush, ADurableWriteWithoutFuaIsFlushedBeforeItsAnswer) {
    begin();
    Request& request = write(0, pattern(512, 1), Durability::stable);
    serve_one(sent()[0]);
    ASSERT_EQ(sent().size(), 2u);
    EXPECT_TRUE(sent()[1].is_flush());
    EXPECT_FALSE(request.answered());
    serve_one(sent()[1]);
    EXPECT_TRUE(request.ok());
    expect_nothing_to_flush();
}

TEST_F(Flush, ADurableWriteWhoseFlushFailsFails) {
    begin();
    Request& request = write(0, pattern(512, 1), Durability::stable);
    serve_one(sent()[0]);
    answer(sent()[1], check_condition(0x4, 0x44, 0));
    EXPECT_EQ(request.outcome.kind, OutcomeKind::hardware_error);
    EXPECT_TRUE(unit().has_unflushed_writes());
}

TEST_F(Flush, ADurablePartialWriteIsDurableToo) {
    info.fua = true;
    begin();
    serving = true;
    EXPECT_TRUE(write(10, pattern(1000, 1), Durability::stable).ok());
    for (const Seen& seen : sent()) EXPECT_EQ(seen.has_fua(), seen.is_write());
}

// ---- caches that are lost ----

class CacheLoss : public Flush, public testing::WithParamInterface<std::pair<unsigned, bool>> {};

TEST_P(CacheLoss, IsToldByTheNextFlushOnce) {
    begin();
    write_one();
    Request& read_request = read(0, 512);
    answer(sent().back(), check_condition(0x6, 0x29, GetParam().first));
    ASSERT_EQ(attentions.size(), 1u);
    EXPECT_TRUE(attentions[0].hold);
    EXPECT_EQ(unit().state(), UnitState::probing);
    resume();
    serve_all();
    EXPECT_TRUE(read_request.ok());
    Request& request = flush();
    serve_all();
    EXPECT_EQ(request.outcome.kind, GetParam().second ? OutcomeKind::medium_error : OutcomeKind::ok);
    Request& next = flush();
    serve_all();
    EXPECT_TRUE(next.ok());
}
// Power on, power on occurred, device internal reset; but neither SCSI bus reset, nor LUN reset, nor nexus loss.
INSTANTIATE_TEST_SUITE_P(Attentions, CacheLoss,
                         testing::Values(std::pair{0x00U, true}, std::pair{0x01U, true}, std::pair{0x04U, true},
                                         std::pair{0x02U, false}, std::pair{0x03U, false}, std::pair{0x07U, false}));

// SCST tells each new session of a power on. Whether it means only that cannot be told for sure: a false alarm is
// better than a missed one (docs/recovery.md "Volatile caches").
TEST_F(Flush, APowerOnToldToAReplacedChannelCountsAsALostCache) {
    begin();
    write_one();
    Peer& replacement = open_replacement();
    resume();  // it was held for a look
    for (unsigned i = 0; i < 2; ++i) read(0, 512);
    ASSERT_EQ(replacement.commands.size(), 1u);
    answer(replacement.commands[0], check_condition(0x6, 0x29, 0x00));
    EXPECT_EQ(unit().state(), UnitState::probing);
    resume();
    EXPECT_EQ(flush().outcome.kind, OutcomeKind::medium_error);
    serving = true;
    for (const auto& peer : fabric.peers)
        for (Seen* seen : peer->open_commands()) serve(*seen);
    settle();
    EXPECT_TRUE(flush().ok());
}

TEST_F(Flush, ALostCacheWithoutUnflushedWritesIsNoError) {
    begin();
    write_one();
    serving = true;
    EXPECT_TRUE(flush().ok());
    serving = false;
    read(0, 512);
    answer(sent().back(), check_condition(0x6, 0x29, 0x00));
    resume();
    serve_all();
    expect_nothing_to_flush();
}

TEST_F(Flush, ARestartOfTheTargetWithUnflushedWritesIsAnErrorOnce) {
    begin();
    write_one();
    lose_connection();
    reconnect();
    unit().on_target_restart();
    resume();
    Request& request = flush();
    EXPECT_EQ(request.outcome.kind, OutcomeKind::medium_error);
    Request& next = flush();
    serve_all();
    EXPECT_TRUE(next.ok());
}

TEST_F(Flush, ARestartIsNoErrorForAUnitWithoutACache) {
    info.write_cache = false;
    begin();
    write_one();
    unit().on_target_restart();
    expect_nothing_to_flush();
}

TEST_F(Flush, ARestartIsNoErrorForFuaWrites) {
    info.fua = true;
    begin();
    write_one(Durability::stable);
    unit().on_target_restart();
    expect_nothing_to_flush();
}

TEST_F(Flush, ADurableWriteWhoseCacheIsLostBeforeItsFlushFails) {
    begin();
    Request& request = write(0, pattern(512, 1), Durability::stable);
    serve_one(sent()[0]);
    ASSERT_TRUE(sent()[1].is_flush());
    answer(sent()[1], check_condition(0x6, 0x29, 0x00));
    resume();
    serve_all();
    EXPECT_EQ(request.outcome.kind, OutcomeKind::medium_error);
}

// One program's fsync must not hide from another one that its writes are lost.
class Losses : public Flush {
protected:
    // Acknowledged writes are lost.
    void lose_writes() {
        begin();
        write_one();
        unit().on_target_restart();
        serving = true;
    }
    [[nodiscard]] std::uint64_t as_of_open() { return unit().counters()->write_losses_told; }
    std::atomic<std::uint64_t> another{0};
};

TEST_F(Losses, AreToldOnceToEachWhoHadTheUnitOpen) {
    lose_writes();
    EXPECT_EQ(flush().outcome.kind, OutcomeKind::medium_error);
    EXPECT_TRUE(flush().ok());
    EXPECT_EQ(flush(another).outcome.kind, OutcomeKind::medium_error);
    EXPECT_TRUE(flush(another).ok());
    EXPECT_TRUE(flush().ok());
}

TEST_F(Losses, ThatNobodyKnowsAreToldToWhoOpensTheUnitNext) {
    lose_writes();
    another = as_of_open();
    EXPECT_EQ(flush(another).outcome.kind, OutcomeKind::medium_error);
}

TEST_F(Losses, ThatWereToldDoNotConcernWhoOpensTheUnitLater) {
    lose_writes();
    flush();
    another = as_of_open();
    EXPECT_TRUE(flush(another).ok());
}

TEST_F(Losses, AreNotUsedUpByAFlushOfNobody) {
    lose_writes();
    Request& request = make_request();
    request.operation->prepare_flush(unit(), request);
    unit().start(*request.operation);
    settle();
    EXPECT_TRUE(request.ok());
    EXPECT_EQ(flush().outcome.kind, OutcomeKind::medium_error);
}

TEST_F(Losses, ThatHappenDuringAFlushFailIt) {
    begin();
    write_one();
    Request& request = flush();
    unit().on_target_restart();
    serve_all();
    EXPECT_EQ(request.outcome.kind, OutcomeKind::medium_error);
    EXPECT_TRUE(flush().ok());
}

// The unit says it once: whoever asks again hears that all is well.
TEST_F(Losses, OfAFlushThatTheUnitFailsOnceFailTheFsync) {
    begin();
    write_one();
    Request& request = flush();
    answer(sent().back(), check_condition(0x3, 0x0c, 0));
    advance(1s);
    serve_all();
    EXPECT_EQ(request.outcome.kind, OutcomeKind::medium_error);
    serving = true;
    EXPECT_TRUE(flush().ok());
    EXPECT_EQ(flush(another).outcome.kind, OutcomeKind::medium_error);
}

TEST_F(Losses, MayBeBehindAFlushThatFailsWithoutAReason) {
    begin();
    write_one();
    Request& request = flush();
    answer(sent().back(), {.status = 0x02});
    advance(1s);
    serve_all();
    EXPECT_EQ(request.outcome.kind, OutcomeKind::medium_error);
}

TEST_F(Losses, OfAFlushThatWasInterruptedAreToldByTheNext) {
    begin();
    write_one();
    Request& request = flush();
    Seen& command = sent().back();
    interrupt(request);
    advance(1s);
    EXPECT_EQ(request.outcome.kind, OutcomeKind::interrupted);
    answer(command, check_condition(0x3, 0x0c, 0));
    serving = true;
    EXPECT_EQ(flush().outcome.kind, OutcomeKind::medium_error);
}

TEST_F(Losses, OfTheFlushOfADurableWriteFailItAndAreToldToTheOthers) {
    begin();
    write_one();
    Request& durable = write(4096, pattern(512, 2), Durability::stable);
    serve_one(sent().back());
    ASSERT_TRUE(sent().back().is_flush());
    answer(sent().back(), check_condition(0x3, 0x0c, 0));
    advance(1s);
    serve_all();
    EXPECT_EQ(durable.outcome.kind, OutcomeKind::medium_error);
    serving = true;
    EXPECT_EQ(flush().outcome.kind, OutcomeKind::medium_error);
}

TEST_F(Losses, ToldToALookAtTheUnitAreToldByTheNextFlush) {
    begin();
    write_one();
    scsi::Sense sense;
    sense.valid = sense.deferred = true;
    sense.key = scsi::SenseKey::data_protect;
    sense.asc = 0x27;
    sense.ascq = 0x07;
    link->tell_event(unit().lun(), sense);
    EXPECT_EQ(unit().state(), UnitState::running);
    serving = true;
    EXPECT_EQ(flush().outcome.kind, OutcomeKind::medium_error);
}

// By whatever path it is flushed.
TEST_F(Losses, AreThoseOfTheUnitAndNotOfThePath) {
    begin();
    Unit& other = add_unit(1);  // of the same identity
    write_one();
    Request& request = make_request();
    request.operation->prepare_flush(other, request, &another);
    EXPECT_TRUE(write(other, 4096, pattern(512, 2)).answers == 0);
    serve_one(sent().back());
    other.start(*request.operation);
    settle();
    answer(sent().back(), check_condition(0x3, 0x0c, 0));
    advance(1s);
    serve_all();
    EXPECT_EQ(request.outcome.kind, OutcomeKind::medium_error);
    serving = true;
    EXPECT_EQ(flush().outcome.kind, OutcomeKind::medium_error);
}

TEST_F(Losses, ToldByAPathThatHasNotWrittenAreThoseOfTheOther) {
    begin();
    Unit& other = add_unit(1);
    write_one();
    other.on_target_restart();
    EXPECT_EQ(flush().outcome.kind, OutcomeKind::medium_error);
}

TEST_F(Losses, ToldByAnotherPathMeanwhileMayHitAWriteThatIsUnderWay) {
    begin();
    Unit& other = add_unit(1);
    write(0, pattern(512, 1));
    other.on_target_restart();
    serve_all();
    serving = true;
    EXPECT_EQ(flush_by(other).outcome.kind, OutcomeKind::medium_error);
}

// It may be another loss, of which those do not know who have opened the unit between the two.
TEST_F(Losses, ToldByOnePathAfterTheOtherMayBeTwo) {
    begin();
    Unit& other = add_unit(1);
    write_one();
    unit().on_target_restart();
    EXPECT_EQ(flush().outcome.kind, OutcomeKind::medium_error);
    another = as_of_open();
    other.on_target_restart();
    serving = true;
    EXPECT_EQ(flush(another).outcome.kind, OutcomeKind::medium_error);
}

// It was sent while the unit had no cache, so without FUA.
TEST_F(Losses, CanStillHitADurableWriteThatWasSentBeforeTheUnitHadACache) {
    info.write_cache = false;
    begin();
    Request& request = write(0, pattern(512, 1), Durability::stable);
    Seen& command = sent().back();
    info.write_cache = info.fua = true;
    resume();
    serve_one(command);
    EXPECT_FALSE(request.answered());
    ASSERT_TRUE(sent().back().is_flush());
    serve_all();
    EXPECT_TRUE(request.ok());
}

// A disk that cannot write back what it had in its cache says so once, and has forgotten it.
TEST_F(Losses, OfAFlushThatFailedAreToldToTheOthersAsWell) {
    begin();
    write_one();
    Request& request = flush();
    answer(sent().back(), check_condition(0x3, 0x0c, 0));
    for (int i = 0; i < 30 && !request.answered(); ++i) {  // it is tried again
        advance(1s);
        for (Seen* seen : open()) answer(*seen, check_condition(0x3, 0x0c, 0));
    }
    EXPECT_EQ(request.outcome.kind, OutcomeKind::medium_error);
    serving = true;
    EXPECT_TRUE(flush().ok());
    EXPECT_EQ(flush(another).outcome.kind, OutcomeKind::medium_error);
}

TEST_F(Flush, ADeferredErrorIsToldByTheNextFlush) {
    begin();
    write_one();
    read(0, 512);
    answer(sent().back(), {.status = 0x02, .sense = scripted::fixed_sense(0x3, 0x0c, 0, 0x71)});
    serve_all();  // the read is tried again
    EXPECT_EQ(flush().outcome.kind, OutcomeKind::medium_error);
}

// ---- holding and resuming (decisions 7) ----

class Hold : public LunTest {};

// What one of them gives back is what another has waited for; and the unit may have become another one.
TEST_F(Hold, AUnitThatGoesOfflineSendsNothingOfWhatWaits) {
    limits.edge_buffers = 2;  // of which one target gets one
    begin();
    Request& first = write(100, pattern(50, 1));
    Request& second = write(5100, pattern(50, 2));
    EXPECT_EQ(sent().size(), 1u);
    lose_connection();
    Request& third = write(20480, pattern(512, 3));
    reconnect();
    unit().set_offline();
    settle();
    EXPECT_TRUE(sent().empty());
    for (const Request* request : {&first, &second, &third}) EXPECT_EQ(request->outcome.kind, OutcomeKind::not_ready);
    EXPECT_FALSE(unit().needs_fence());
}

class Attentions : public Hold, public testing::WithParamInterface<std::pair<unsigned, unsigned>> {};
TEST_P(Attentions, HoldTheUnitUntilItHasBeenLookedAt) {
    begin();
    Request& first = read(0, 512);
    answer(sent()[0], check_condition(0x6, GetParam().first, GetParam().second));
    Request& second = read(512, 512);
    EXPECT_EQ(sent().size(), 1u);
    ASSERT_EQ(attentions.size(), 1u);
    EXPECT_TRUE(attentions[0].hold);
    EXPECT_EQ(attentions[0].sense.asc, GetParam().first);
    resume();
    EXPECT_EQ(sent().size(), 3u);
    serve_all();
    EXPECT_TRUE(first.ok() && second.ok());
}
INSTANTIATE_TEST_SUITE_P(All, Attentions,
                         testing::Values(std::pair{0x28U, 0x00U}, std::pair{0x29U, 0x00U}, std::pair{0x29U, 0x03U},
                                         std::pair{0x29U, 0x07U}, std::pair{0x2aU, 0x01U}, std::pair{0x2aU, 0x09U},
                                         std::pair{0x3fU, 0x03U}, std::pair{0x3fU, 0x0eU}));

// Who asks LUN 0 whether the target is there spells it in his own way.
TEST_F(Hold, AnAttentionMetBySomebodyElseReachesTheUnitByAnySpelling) {
    begin();
    scsi::Lun flat = unit().lun();
    flat.bytes[0] |= std::byte{0x40};
    const scsi::Sense sense{.valid = true, .key = scsi::SenseKey::unit_attention, .asc = 0x3f, .ascq = 0x0e};
    link->tell_event(scsi::Lun::from_number(9), sense);
    EXPECT_TRUE(attentions.empty());
    link->tell_event(flat, sense);
    ASSERT_EQ(attentions.size(), 1u);
    EXPECT_TRUE(attentions[0].hold);
}

TEST_F(Hold, OtherAttentionsOnlyWantTheCommandRepeated) {
    begin();
    Request& request = read(0, 512);
    answer(sent()[0], check_condition(0x6, 0x2a, 0x06));
    EXPECT_TRUE(attentions.empty());
    serve_all();
    EXPECT_TRUE(request.ok());
}

TEST_F(Hold, ReadsThatWereInFlightWithAnAttentionAreRepeated) {
    begin();
    Request& first = read(0, 512);
    Request& second = read(512, 512);
    answer(sent()[0], check_condition(0x6, 0x3f, 0x0e));
    serve_one(sent()[1]);
    EXPECT_FALSE(second.answered());
    resume();
    EXPECT_EQ(sent().size(), 4u);
    serve_all();
    EXPECT_TRUE(first.ok() && second.ok());
}

TEST_F(Hold, RawCommandsPass) {
    begin();
    unit().hold();
    read(0, 512);
    EXPECT_TRUE(sent().empty());
    Request& request = raw(scsi::inquiry(96), 96);
    ASSERT_EQ(sent().size(), 1u);
    EXPECT_EQ(sent()[0].opcode(), 0x12u);
    answer(sent()[0]);
    EXPECT_TRUE(request.ok());
    resume();
    serve_all();
}

TEST_F(Hold, WhatWasFoundOutBeforeItWasHeldDoesNotRelease) {
    begin();
    UnitInfo old = info;
    old.probed_at = engine->next_stamp();
    unit().hold();
    read(0, 512);
    unit().resume(std::make_shared<const UnitInfo>(old));
    settle();
    EXPECT_TRUE(sent().empty());
    EXPECT_EQ(unit().state(), UnitState::probing);
    resume();
    EXPECT_EQ(unit().state(), UnitState::running);
    serve_all();
}

TEST_F(Hold, WaitingReadsKeepNoMemory) {
    begin();
    unit().hold();
    for (unsigned i = 0; i < 40; ++i) read(512 * i, 512);
    EXPECT_EQ(engine->usage().read_4k_in_use, 0u);
    resume();
    serving = true;
    for (Seen* seen : open()) serve(*seen);
    settle();
    for (const auto& request : requests) EXPECT_TRUE(request->ok());
}

TEST_F(Hold, WhatNoLongerFitsIsOutOfRange) {
    begin();
    unit().hold();
    Request& beyond = read((info.blocks - 1) * 512, 512);
    Request& inside = read(0, 512);
    info.blocks -= 1;
    resume();
    EXPECT_EQ(beyond.outcome.kind, OutcomeKind::out_of_range);
    serve_all();
    EXPECT_TRUE(inside.ok());
}

TEST_F(Hold, AnEventOfTheTargetHoldsItsUnitOnly) {
    begin();
    Unit& other = add_unit(1);
    target().say(scripted::async_event(0, 1, 0x0001000000000000, scripted::fixed_sense(0x6, 0x3f, 0x0e)));
    settle();
    EXPECT_EQ(unit().state(), UnitState::running);
    EXPECT_EQ(other.state(), UnitState::probing);
    EXPECT_EQ(attentions.size(), 1u);
    resume(other);
}

TEST_F(Hold, ALoginDoesNotReleaseIt) {
    begin();
    Request& request = write(0, pattern(512, 1));
    serve_all();
    EXPECT_TRUE(request.ok());
    lose_connection();
    EXPECT_EQ(unit().state(), UnitState::blocked);
    read(0, 512);
    reconnect();
    EXPECT_EQ(unit().state(), UnitState::probing);
    EXPECT_TRUE(sent().empty());
    resume();
    serve_all();
}

TEST_F(Hold, OfflineFailsUntilItIsFoundAgain) {
    begin();
    Request& waiting = read(0, 512);
    unit().set_offline();
    EXPECT_EQ(waiting.outcome.kind, OutcomeKind::not_ready);
    EXPECT_EQ(read(0, 512).outcome.kind, OutcomeKind::not_ready);
    serve_all();
    resume();
    Request& request = read(0, 512);
    serve_all();
    EXPECT_TRUE(request.ok());
}

TEST_F(Hold, RemovedIsGoneForEver) {
    begin();
    Request& waiting = read(0, 512);
    unit().remove();
    EXPECT_EQ(waiting.outcome.kind, OutcomeKind::gone);
    resume();
    EXPECT_EQ(read(0, 512).outcome.kind, OutcomeKind::gone);
    EXPECT_EQ(unit().state(), UnitState::gone);
    serve_all();
}

TEST_F(Hold, AFailingPathFailsWhatWaitsAndWhatComes) {
    begin();
    lose_connection();
    Request& waiting = read(0, 512);
    link->set_state(initiator::PortState::fail_fast);
    settle();
    EXPECT_EQ(waiting.outcome.kind, OutcomeKind::path_lost);
    EXPECT_EQ(read(0, 512).outcome.kind, OutcomeKind::path_lost);
    EXPECT_EQ(unit().state(), UnitState::offline);
    reconnect();
    resume();
    Request& request = read(0, 512);
    serve_all();
    EXPECT_TRUE(request.ok());
}

TEST_F(Hold, ALostPortIsGone) {
    begin();
    lose_connection();
    Request& waiting = read(0, 512);
    link->set_state(initiator::PortState::lost);
    settle();
    EXPECT_EQ(waiting.outcome.kind, OutcomeKind::gone);
    EXPECT_EQ(read(0, 512).outcome.kind, OutcomeKind::gone);
    EXPECT_EQ(unit().state(), UnitState::gone);
}

// ---- memory (decisions 11) ----

class Memory : public LunTest {};

TEST_F(Memory, AReadTakesALargerBufferWhenTheSmallOnesAreOut) {
    limits.read_buffers_4k = 2;
    begin();
    for (unsigned i = 0; i < 3; ++i) read(4096 * i, 4096);
    EXPECT_EQ(sent().size(), 3u);
    EXPECT_EQ(engine->usage().read_4k_in_use, 1u);  // half of them at most
    EXPECT_EQ(engine->usage().read_64k_in_use, 2u);
    serve_all();
}

TEST_F(Memory, ReadsWithoutABufferGetOneInTheirTurn) {
    limits.read_buffers_1m = 4;
    begin();
    for (unsigned i = 0; i < 5; ++i) read(512 * i, 100000);
    EXPECT_EQ(engine->usage().read_1m_in_use, 2u);  // a unit has half of a kind at most
    EXPECT_EQ(sent().size(), 2u);
    serve_one(sent()[1]);
    ASSERT_EQ(sent().size(), 3u);
    EXPECT_EQ(sent()[2].lba(), 2u);
    serve_all();
    for (const auto& request : requests) EXPECT_TRUE(request->ok());
}

TEST_F(Memory, AStuckUnitLeavesBuffersForTheOthers) {
    begin();
    Unit& other = add_unit(1);
    for (unsigned i = 0; i < 20; ++i) read(512 * i, 100000);
    Request& request = read(other, 0, 100000);
    serve_one(sent().back());
    EXPECT_TRUE(request.ok());
    serve_all();
}

TEST_F(Memory, SmallWritesAreCopiedAndLeaveTheIntakeItsBuffer) {
    limits.write_buffers_4k = 8;
    begin();
    const auto intake = engine->intake();
    for (unsigned i = 0; i < 6; ++i) write(std::uint64_t{i} * 4096, pattern(4096, i));
    EXPECT_EQ(engine->usage().write_4k_in_use, 4u);  // half of them at most
    EXPECT_EQ(engine->usage().intake_in_use, 2u);
    EXPECT_EQ(engine->usage().parked_bytes, 0u);
    EXPECT_NE(engine->intake().data(), intake.data());
    serve_all();
    for (unsigned i = 0; i < 6; ++i) {
        EXPECT_TRUE(requests[i]->ok());
        EXPECT_EQ(disk_at(std::size_t{i} * 4096, 4096), pattern(4096, i));
    }
    write(0, pattern(512, 9));
    EXPECT_EQ(engine->usage().write_4k_in_use, 1u);
    EXPECT_EQ(engine->usage().intake_in_use, 0u);
    serve_all();
}

TEST_F(Memory, WritesThatWouldBeParkedAreCopiedWhereThereIsRoom) {
    limits.write_buffers_64k = 8;
    begin();
    for (unsigned i = 0; i < 10; ++i) write(std::uint64_t{i} * 65536, pattern(65536, i));
    EXPECT_EQ(engine->usage().intake_in_use, limits.intake_buffers / 2);
    EXPECT_EQ(engine->usage().write_64k_in_use, 4u);
    EXPECT_EQ(engine->usage().parked_bytes, 2u * 65536u);
    serving = true;
    serve_all();
    settle();
    for (unsigned i = 0; i < 10; ++i) {
        EXPECT_TRUE(requests[i]->ok());
        EXPECT_EQ(disk_at(std::size_t{i} * 65536, 65536), pattern(65536, i));
    }
}

TEST_F(Memory, WaitingWritesAreParkedAndComeOutRight) {
    begin();
    unit().hold();
    for (unsigned i = 0; i < 20; ++i) write(std::uint64_t{i} * 16384, pattern(16384, i));
    EXPECT_GT(engine->usage().parked_bytes, 0u);
    EXPECT_LE(engine->usage().intake_in_use, limits.intake_buffers / 2);
    resume();
    serving = true;
    for (Seen* seen : open()) serve(*seen);
    settle();
    for (unsigned i = 0; i < 20; ++i) {
        EXPECT_TRUE(requests[i]->ok());
        EXPECT_EQ(disk_at(std::size_t{i} * 16384, 16384), pattern(16384, i));
    }
    EXPECT_EQ(engine->usage().parked_bytes, 0u);
}

TEST_F(Memory, TheUnitWithMostParkedBytesLosesRequests) {
    limits.park_bytes_max = 100000;
    begin();
    Unit& other = add_unit(1);
    unit().hold();
    other.hold();
    for (unsigned i = 0; i < 9; ++i) write(0, pattern(20000, i));  // some in intake buffers, the others parked
    ASSERT_GE(engine->usage().parked_bytes, 80000u);
    for (unsigned i = 0; i < 6; ++i) write(other, 0, pattern(20000, i));
    ASSERT_FALSE(shed.empty());
    EXPECT_EQ(shed[0].first, &unit());
    unsigned lost = 0;
    for (const auto& request : requests)
        if (request->answered()) {
            EXPECT_EQ(request->outcome.kind, OutcomeKind::out_of_memory);
            ++lost;
        }
    EXPECT_GE(lost, shed[0].second);
    EXPECT_LE(engine->usage().parked_bytes, limits.park_bytes_max);
    resume();
    resume(other);
    serve_all();
}

struct CountingOwner final : ParkedRequestOwner {
    void on_shed() override { ++times; }
    unsigned times = 0;
};

TEST_F(Memory, AParkedRequestCountsUntilItGoesOnOrIsGone) {
    limits.park_bytes_max = 100000;
    begin();
    CountingOwner owner;
    const Bytes head = pattern(80, 1), data = pattern(60000, 2);
    EXPECT_TRUE(unit().is_idle());
    auto request = engine->park_request(unit(), owner, head, data);
    ASSERT_TRUE(request);
    EXPECT_EQ(engine->usage().parked_bytes, 60000u);
    EXPECT_FALSE(unit().is_idle());
    Bytes both = head;
    both.insert(both.end(), data.begin(), data.end());
    EXPECT_EQ(Bytes(request->bytes().begin(), request->bytes().end()), both);

    request->stop_counting();
    EXPECT_EQ(engine->usage().parked_bytes, 0u);
    EXPECT_TRUE(unit().is_idle());
    auto next = engine->park_request(unit(), owner, head, pattern(100000, 3));
    ASSERT_TRUE(next);
    EXPECT_EQ(Bytes(request->bytes().begin(), request->bytes().end()), both);  // not shed for that
    EXPECT_EQ(owner.times, 0u);
    next.reset();
    request.reset();
    EXPECT_EQ(engine->usage().parked_bytes, 0u);
    EXPECT_FALSE(engine->park_request(unit(), owner, head, pattern(100001, 3)));
}

TEST_F(Memory, OfParkedRequestsTheLastOnesOfTheGreediestUnitAreShed) {
    limits.park_bytes_max = 100000;
    begin();
    Unit& other = add_unit(1);
    CountingOwner owner, of_other;
    std::vector<std::unique_ptr<ParkedRequest>> requests_parked;
    for (unsigned i = 0; i < 3; ++i)
        requests_parked.push_back(engine->park_request(unit(), owner, {}, pattern(20000, i)));
    const auto kept = engine->park_request(other, of_other, {}, pattern(40000, 9));
    ASSERT_TRUE(kept);
    EXPECT_TRUE(shed.empty());

    const auto wanted = engine->park_request(other, of_other, {}, pattern(30000, 8));

    ASSERT_TRUE(wanted);
    EXPECT_EQ(shed, (std::vector<std::pair<Unit*, unsigned>>{{&unit(), 2u}}));
    EXPECT_EQ(owner.times, 2u);
    EXPECT_EQ(of_other.times, 0u);
    EXPECT_FALSE(requests_parked[0]->bytes().empty());
    EXPECT_TRUE(requests_parked[1]->bytes().empty());
    EXPECT_TRUE(requests_parked[2]->bytes().empty());
    EXPECT_EQ(engine->usage().parked_bytes, 90000u);
}

TEST_F(Memory, WaitingWritesTakeTheRoomOfParkedRequests) {
    limits.park_bytes_max = 100000;
    begin();
    Unit& other = add_unit(1);
    CountingOwner owner;
    const auto parked = engine->park_request(unit(), owner, {}, pattern(90000, 1));
    ASSERT_TRUE(parked);
    other.hold();
    for (unsigned i = 0; i < 6; ++i) write(other, 20480 * i, pattern(20480, i));  // some in intake buffers
    EXPECT_GT(engine->usage().parked_bytes, 0u);
    EXPECT_TRUE(parked->bytes().empty());
    EXPECT_EQ(owner.times, 1u);
    for (const auto& request : requests) EXPECT_FALSE(request->answered());
    resume(other);
    serve_all();
}

TEST_F(Memory, TooManyRequestsMakeTheGreediestUnitGiveUp) {
    limits.operations_max = 128;
    begin();
    unit().hold();
    for (unsigned i = 0; i < 129; ++i) read(0, 512);
    ASSERT_EQ(shed.size(), 1u);
    EXPECT_EQ(shed[0].second, 64u);
    resume();
    serving = true;
    for (Seen* seen : open()) serve(*seen);
    settle();
}

// The look that lets the unit go again needs one: REPORT LUNS has the size of these reads.
TEST_F(Memory, ReadsThatWereToBeRetriedGiveTheirBuffersBackWhileTheUnitIsHeld) {
    limits.read_buffers_64k = 2;
    limits.read_buffers_1m = 2;
    begin();
    for (unsigned i = 0; i < 2; ++i) read(std::uint64_t{i} * 32768, 32768);
    for (Seen* seen : open()) answer(*seen, {.status = 0x08});
    unit().hold();
    advance(std::chrono::seconds(5));
    EXPECT_EQ(engine->usage().read_64k_in_use + engine->usage().read_1m_in_use, 0u);
    const Request& question = raw(scsi::report_luns(16384), 16384);
    ASSERT_EQ(open().size(), 1u);
    answer(*open()[0]);
    EXPECT_TRUE(question.ok());
    resume();
    serve_all();
}

TEST_F(Memory, AReadInLineGivesItsBufferBackWhenItsLastCommandEndsWhileTheUnitIsHeld) {
    limits.read_buffers_1m = 2;
    info.transfer_blocks_max = 64;
    queue_depth = 2;
    begin();
    read(0, 131072);
    EXPECT_EQ(open().size(), 2u);
    EXPECT_EQ(engine->usage().read_1m_in_use, 1u);
    unit().hold();
    for (Seen* seen : open()) serve_one(*seen);
    EXPECT_EQ(engine->usage().read_1m_in_use, 0u);
    EXPECT_TRUE(open().empty());
    resume();
    serve_all();
    EXPECT_TRUE(requests[0]->ok());
}

TEST_F(Memory, PartialWritesBeyondTheEdgeBuffersWaitForThem) {
    limits.edge_buffers = 2;
    begin();
    for (unsigned i = 0; i < 4; ++i) write(i * 1024 + 1, pattern(10, i));
    EXPECT_EQ(engine->usage().edges_in_use, 1u);  // half of them at most
    EXPECT_EQ(sent().size(), 1u);
    serve_all();
    for (const auto& request : requests) EXPECT_TRUE(request->ok());
}

}  // namespace
}  // namespace srpfs::lun
