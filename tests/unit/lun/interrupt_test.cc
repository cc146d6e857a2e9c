// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What an interrupt does to a request, wherever it stands (decisions 13, 14).
#include "lun_fixture.h"

namespace srpfs::lun {
namespace {

class Interrupts : public LunTest {};

TEST_F(Interrupts, WhatWaitsForThePathIsAnsweredAtOnce) {
    begin();
    lose_connection();
    Request& request = read(0, 512);
    interrupt(request);
    EXPECT_EQ(request.outcome.kind, OutcomeKind::interrupted);
    EXPECT_EQ(request.at, now());
    EXPECT_EQ(unit().counters()->interrupts, 1u);
    EXPECT_EQ(failures, 0u);
}

TEST_F(Interrupts, WhatWaitsForCreditIsAnsweredAtOnce) {
    fabric.login.credits = 2;
    begin();
    read(0, 512);
    Request& second = read(512, 512);
    Request& third = read(1024, 512);
    interrupt(second);
    EXPECT_EQ(second.outcome.kind, OutcomeKind::interrupted);
    serve_all();
    EXPECT_TRUE(third.ok());
    EXPECT_EQ(sent().size(), 2u);
}

TEST_F(Interrupts, AReadThatWaitsForABackOffIsAnsweredAtOnce) {
    begin();
    Request& request = read(0, 512);
    answer(sent()[0], {.status = 0x08});
    interrupt(request);
    EXPECT_EQ(request.outcome.kind, OutcomeKind::interrupted);
    advance(5s);
    EXPECT_EQ(sent().size(), 1u);
}

TEST_F(Interrupts, WhatIsInFlightHas500Milliseconds) {
    begin();
    Request& request = read(0, 512);
    interrupt(request);
    advance(500ms - 1ns);
    EXPECT_FALSE(request.answered());
    advance(1ns);
    EXPECT_EQ(request.outcome.kind, OutcomeKind::interrupted);
    EXPECT_TRUE(request.data.empty());
}

TEST_F(Interrupts, HealthyIoJustCompletes) {
    begin();
    Request& request = read(0, 512);
    interrupt(request);
    advance(499ms);
    serve_all();
    EXPECT_TRUE(request.ok());
    EXPECT_EQ(request.data, disk_at(0, 512));
    advance(5s);
    EXPECT_EQ(request.answers, 1u);
}

TEST_F(Interrupts, ASecondOneDoesNotProlongIt) {
    begin();
    Request& request = read(0, 512);
    interrupt(request);
    advance(400ms);
    interrupt(request);
    advance(100ms);
    EXPECT_EQ(request.outcome.kind, OutcomeKind::interrupted);
}

TEST_F(Interrupts, EachHasAGraceOfItsOwn) {
    begin();
    Request& first = read(0, 512);
    Request& second = read(512, 512);
    interrupt(first);
    advance(300ms);
    interrupt(second);
    advance(200ms);
    EXPECT_TRUE(first.answered());
    EXPECT_FALSE(second.answered());
    advance(300ms);
    EXPECT_TRUE(second.answered());
}

TEST_F(Interrupts, ItsMemoryStaysUntilTheTargetHasAnswered) {
    begin();
    Request& request = read(0, 512);
    interrupt(request);
    advance(1s);
    EXPECT_TRUE(request.answered());
    EXPECT_EQ(engine->usage().read_4k_in_use, 1u);
    EXPECT_EQ(engine->usage().operations_in_use, 1u);
    serve_all();
    EXPECT_EQ(engine->usage().read_4k_in_use, 0u);
    EXPECT_EQ(engine->usage().operations_in_use, 0u);
    EXPECT_EQ(request.answers, 1u);
}

TEST_F(Interrupts, AWritesMemoryStaysUntilItsConnectionIsGone) {
    begin();
    Request& request = write(0, pattern(16384, 1));
    interrupt(request);
    advance(1s);
    EXPECT_EQ(engine->usage().intake_in_use, 1u);
    target().holds_gone = true;
    lose_connection();
    EXPECT_EQ(engine->usage().intake_in_use, 1u);
    target().let_go();
    settle();
    EXPECT_EQ(engine->usage().intake_in_use, 0u);
}

TEST_F(Interrupts, APartialWriteThatHasOnlyReadLeavesNoGhost) {
    begin();
    Request& request = write(10, pattern(10, 1));
    ASSERT_TRUE(sent()[0].is_read());
    interrupt(request);
    advance(500ms);
    EXPECT_EQ(request.outcome.kind, OutcomeKind::interrupted);
    EXPECT_EQ(unit().counters()->ghosts, 0u);
    serve_all();
    EXPECT_EQ(sent().size(), 1u);
}

TEST_F(Interrupts, AWriteInABackOffEndsWithinTheGrace) {
    begin();
    Request& request = write(0, pattern(512, 1));
    for (unsigned i = 0; i < 8; ++i) {  // delays of 2 s by now
        answer(*open()[0], {.status = 0x08});
        ASSERT_TRUE(advance_until([this] { return !open().empty(); }, 10s));
    }
    answer(*open()[0], {.status = 0x08});
    interrupt(request);
    advance(500ms);
    EXPECT_EQ(request.outcome.kind, OutcomeKind::interrupted);
    advance(10s);
    EXPECT_TRUE(open().empty());
    EXPECT_FALSE(unit().needs_fence());  // the target answered every command
}

TEST_F(Interrupts, AFlushCanBeInterrupted) {
    info.write_cache = true;
    begin();
    serving = true;
    write(0, pattern(512, 1));
    serving = false;
    Request& request = flush();
    interrupt(request);
    advance(500ms);
    EXPECT_EQ(request.outcome.kind, OutcomeKind::interrupted);
    EXPECT_TRUE(unit().has_unflushed_writes());
    serve_all();
    EXPECT_EQ(unit().counters()->ghosts, 0u);
}

}  // namespace
}  // namespace srpfs::lun
