// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// ABORT TASK, LUN RESET and the others, answered as LIO answers (srp-wire 5.1 and 9, srp-admin 5, decisions 1-2).
#include "test_initiator.h"

#include <set>

namespace srpfs::target {
namespace {

constexpr int abort_task = 0x01, abort_task_set = 0x02, clear_task_set = 0x04, lun_reset = 0x08, clear_aca = 0x40;
constexpr int complete = 0x00, not_supported = 0x04, failed = 0x05;
constexpr int task_aborted = 0x40;

// Applies one plan to the commands with certain operation codes.
struct Planned final : Behaviour {
    CommandPlan plan;
    std::set<int> opcodes = {0x2a, 0x28};
    TaskManagementPlan management;
    std::vector<std::uint64_t> written;
    CommandPlan on_command(const CommandView& command) override {
        return opcodes.contains(static_cast<int>(command.cdb[0])) ? plan : CommandPlan{};
    }
    TaskManagementPlan on_task_management(ChannelId, const srp::TaskManagement&) override { return management; }
    void on_write_applied(unsigned, std::uint64_t lba, std::uint64_t, std::span<const std::byte>) override {
        written.push_back(lba);
    }
};

class TaskManagement : public TargetTest {
protected:
    void SetUp() override {
        build("ram:1M+ram:1M");
        device->set_behaviour(&behaviour);
    }
    void TearDown() override { shut_down(); }
    std::uint64_t start_write(TestInitiator& initiator, unsigned lun = 0, std::uint32_t lba = 0) {
        const auto tag = start(initiator, lun, cdb_10(0x2a, lba, 1), Data::out, {{0, 512}});
        settle();
        return tag;
    }
    std::uint64_t start_read(TestInitiator& initiator, unsigned lun = 0) {
        const auto tag = start(initiator, lun, cdb_10(0x28, 0, 1), Data::in, {{0, 512}});
        settle();
        return tag;
    }
    Planned behaviour;
};

TEST_F(TaskManagement, AbortTaskEndsTheCommandSilentlyAndTheCreditReturnsLater) {
    auto& initiator = login();
    behaviour.plan.hold = true;
    const auto tag = start_write(initiator);
    EXPECT_FALSE(initiator.response(tag));
    EXPECT_EQ(initiator.credits, 128);

    const Rsp answer = manage(initiator, 0, abort_task, tag);
    EXPECT_EQ(answer.task_code, complete);
    EXPECT_EQ(answer.flags, 0x01);
    EXPECT_EQ(answer.status, 0);
    EXPECT_EQ(answer.delta, 2);  // its own and the command's
    EXPECT_EQ(answer.raw.size(), 40u);

    device->release_held();
    advance(100s);
    EXPECT_FALSE(initiator.response(tag));
    EXPECT_TRUE(behaviour.written.empty());  // 00 is a fence
    EXPECT_EQ(portal->commands(), 0u);
    EXPECT_EQ(device->counters().aborted, 1u);
}

TEST_F(TaskManagement, AbortTaskOfADelayedReadTouchesNoMemoryAfterwards) {
    auto& initiator = login();
    behaviour.plan.delay = 5s;
    std::fill_n(initiator.in().begin(), 512, std::byte{0xee});
    const auto tag = start_read(initiator);
    EXPECT_EQ(manage(initiator, 0, abort_task, tag).task_code, complete);
    advance(10s);
    EXPECT_EQ(initiator.in()[0], std::byte{0xee});
    EXPECT_FALSE(initiator.response(tag));
}

TEST_F(TaskManagement, AbortTaskOfAnUnknownTagFails) {
    auto& initiator = login();
    const auto done = start(initiator, 0, cdb16({0x00}));
    settle();
    EXPECT_EQ(manage(initiator, 0, abort_task, done).task_code, failed);
    EXPECT_EQ(manage(initiator, 0, abort_task, 0xdeadbeef).task_code, failed);
}

TEST_F(TaskManagement, AbortTaskWorksOnItsOwnChannelAndUnitOnly) {
    auto& first = login();
    auto& second = login({.action = 1});
    behaviour.plan.hold = true;
    const auto tag = start_write(first);
    EXPECT_EQ(manage(second, 0, abort_task, tag).task_code, failed);
    EXPECT_EQ(manage(first, 1, abort_task, tag).task_code, failed);
    EXPECT_EQ(manage(first, 0, abort_task, tag).task_code, complete);
}

TEST_F(TaskManagement, OnAMissingUnitItFails) {
    auto& initiator = login();
    EXPECT_EQ(manage(initiator, 9, abort_task, 1).task_code, failed);
    EXPECT_EQ(manage(initiator, 9, lun_reset).task_code, failed);
}

TEST_F(TaskManagement, FunctionsLioLacksFailAndUnknownOnesAreNotSupported) {
    auto& initiator = login();
    for (const int function : {abort_task_set, clear_task_set, clear_aca})
        EXPECT_EQ(manage(initiator, 0, function).task_code, failed);
    for (const int function : {0x00, 0x03, 0x10, 0xff})
        EXPECT_EQ(manage(initiator, 0, function).task_code, not_supported);
    EXPECT_EQ(device->counters().task_managements, 7u);
}

TEST_F(TaskManagement, LunResetDropsOwnCommandsAndAbortsThoseOfOtherChannels) {
    auto& mine = login();
    auto& sibling = login({.action = 1});
    auto& stranger = login({.guid = 2});
    behaviour.plan.hold = true;
    const auto my_write = start_write(mine), my_read = start_read(mine);
    const auto sibling_write = start_write(sibling), other_unit = start_write(sibling, 1);
    const auto stranger_read = start_read(stranger);

    const Rsp answer = manage(mine, 0, lun_reset);
    EXPECT_EQ(answer.task_code, complete);
    EXPECT_EQ(answer.delta, 3);
    EXPECT_FALSE(mine.response(my_write));
    EXPECT_FALSE(mine.response(my_read));
    EXPECT_EQ(sibling.answer(sibling_write).status, task_aborted);
    EXPECT_EQ(stranger.answer(stranger_read).status, task_aborted);
    EXPECT_FALSE(sibling.response(other_unit));

    behaviour.plan = {};
    device->release_held();
    settle();
    EXPECT_EQ(sibling.answer(other_unit).status, 0);
    EXPECT_EQ(behaviour.written.size(), 1u);  // only the other unit's

    for (auto* initiator : {&mine, &sibling, &stranger}) {
        expect_sense(execute(*initiator, 0, cdb16({0x00})), 6, 0x29, 3);
        EXPECT_EQ(execute(*initiator, 0, cdb16({0x00})).status, 0);
        EXPECT_EQ(execute(*initiator, 1, cdb16({0x00})).status, 0);
    }
}

TEST_F(TaskManagement, LunResetFencesTheWritesOfDeadSessions) {
    auto& old = login();
    behaviour.plan.hold = true;
    (void)start_write(old, 0, 7);
    old.disconnect();
    settle();
    EXPECT_EQ(portal->commands(), 1u);

    auto& young = login();
    EXPECT_EQ(manage(young, 0, lun_reset).task_code, complete);
    device->release_held();
    settle();
    EXPECT_TRUE(behaviour.written.empty());
    EXPECT_EQ(portal->commands(), 0u);
}

TEST_F(TaskManagement, WithoutAFenceAnOldWriteLandsAfterTheNewLogin) {
    auto& old = login();
    behaviour.plan.hold = true;
    std::fill_n(old.out().begin(), 512, std::byte{0x11});
    (void)start_write(old, 0, 7);
    behaviour.plan = {};

    auto& young = login();  // "single": displaces the old channel
    settle();
    EXPECT_TRUE(old.ended);
    EXPECT_EQ(write(young, 0, 7, Bytes(512, std::byte{0x22})).status, 0);
    device->release_held();
    settle();
    EXPECT_EQ(read(young, 0, 7, 512), Bytes(512, std::byte{0x11}));
    EXPECT_EQ(device->counters().late, 1u);
}

TEST_F(TaskManagement, AReadOfADeadSessionIsForgotten) {
    auto& old = login();
    behaviour.plan.hold = true;
    (void)start_read(old);
    old.disconnect();
    settle();
    EXPECT_EQ(portal->commands(), 0u);
}

TEST_F(TaskManagement, ABackendThatCannotBeInterruptedMakesTheAnswerWait) {
    auto& initiator = login();
    behaviour.plan = {.hold = true, .abort_waits = true};
    const auto tag = start_write(initiator, 0, 3);
    const auto management = next_tag++;
    EXPECT_TRUE(initiator.send(initiator.task_management(management, 0, abort_task, tag)));
    advance(60s);
    EXPECT_FALSE(initiator.response(management));

    device->release_held();
    settle();
    EXPECT_EQ(initiator.answer(management).task_code, complete);
    EXPECT_FALSE(initiator.response(tag));
    EXPECT_EQ(behaviour.written, (std::vector<std::uint64_t>{3}));  // it ran before the answer, never after
    EXPECT_EQ(initiator.responses.back().delta, 2);
}

TEST_F(TaskManagement, LunResetWaitsForSuchABackendToo) {
    auto& mine = login();
    auto& sibling = login({.action = 1});
    behaviour.plan = {.delay = 5s, .abort_waits = true};
    const auto my_write = start_write(mine), sibling_write = start_write(sibling);
    const auto management = next_tag++;
    EXPECT_TRUE(mine.send(mine.task_management(management, 0, lun_reset, 0xffffffff)));
    advance(4s);
    EXPECT_FALSE(mine.response(management));
    advance(1s);
    EXPECT_EQ(mine.answer(management).task_code, complete);
    EXPECT_FALSE(mine.response(my_write));
    EXPECT_EQ(sibling.answer(sibling_write).status, task_aborted);
}

TEST_F(TaskManagement, ACommandDoneInTheBackendStillSendsDataAndResponse) {
    auto& initiator = login();
    (void)write(initiator, 0, 0, pattern(512, 1));
    behaviour.plan.response_delay = 1s;
    std::fill_n(initiator.in().begin(), 512, std::byte{0xee});
    const auto tag = start_read(initiator);

    EXPECT_EQ(manage(initiator, 0, abort_task, tag).task_code, failed);  // too late to abort
    EXPECT_EQ(manage(initiator, 0, lun_reset).task_code, complete);      // skipped, not waited for
    EXPECT_FALSE(initiator.response(tag));
    advance(1s);
    EXPECT_EQ(initiator.answer(tag).status, 0);
    EXPECT_EQ(initiator.in()[1], pattern(512, 1)[1]);
}

TEST_F(TaskManagement, CanBeDelayedLeftUnansweredOrAnsweredWithAnyCode) {
    auto& initiator = login();
    behaviour.management.delay = 2s;
    const auto delayed = next_tag++;
    EXPECT_TRUE(initiator.send(initiator.task_management(delayed, 0, lun_reset, 0)));
    settle();
    advance(1s);
    EXPECT_FALSE(initiator.response(delayed));
    advance(1s);
    EXPECT_EQ(initiator.answer(delayed).task_code, complete);

    behaviour.management = {.answered = false};
    const auto lost = next_tag++;
    EXPECT_TRUE(initiator.send(initiator.task_management(lost, 0, lun_reset, 0)));
    advance(100s);
    EXPECT_FALSE(initiator.response(lost));
    expect_sense(execute(initiator, 0, cdb16({0x00})), 6, 0x29, 3);  // carried out all the same

    behaviour.management = {.code = srp::TaskCode::not_supported};
    EXPECT_EQ(manage(initiator, 0, lun_reset).task_code, not_supported);
}

TEST_F(TaskManagement, ItsInitiatorMayVanishMeanwhile) {
    auto& initiator = login();
    behaviour.plan = {.hold = true, .abort_waits = true};
    const auto tag = start_write(initiator);
    EXPECT_TRUE(initiator.send(initiator.task_management(next_tag++, 0, abort_task, tag)));
    settle();
    initiator.disconnect();
    settle();
    device->release_held();
    settle();
    EXPECT_EQ(portal->commands(), 0u);
}

TEST_F(TaskManagement, MalformedRequestsAreIgnored) {
    auto& initiator = login();
    Bytes unit = initiator.task_management(1, 0, lun_reset, 0);
    unit.resize(47);
    EXPECT_TRUE(initiator.send(unit));
    settle();
    EXPECT_TRUE(initiator.responses.empty());
    EXPECT_EQ(device->counters().malformed, 1u);
    EXPECT_TRUE(initiator.is_live());
}

}  // namespace
}  // namespace srpfs::target
