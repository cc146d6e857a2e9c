// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What is known of a target's units, and what is asked when: a TargetPort, an Inventory and the embedded target on one
// loopback network, one thread, time by hand.
#include "manual_executor.h"

#include <srpfs/base/log.h>
#include <srpfs/base/random.h>
#include <srpfs/fabric/loopback.h>
#include <srpfs/initiator/target_port.h>
#include <srpfs/lun/inventory.h>
#include <srpfs/target/device.h>
#include <srpfs/target/portal.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <string>
#include <vector>

namespace srpfs::lun {
namespace {

using namespace std::chrono_literals;
namespace opcode = scsi::opcode;

// Notes what is asked, and can keep or refuse the commands of one unit.
class Watcher final : public target::Behaviour {
public:
    std::map<unsigned, unsigned> commands;  // of each unit since the last clear()
    std::optional<std::uint8_t> tells_at;   // the command that meets `attention`, once
    scsi::Sense attention{};
    unsigned lists = 0;
    std::vector<unsigned> resets;  // LUN RESETs, of which units
    std::optional<unsigned> held, failing;
    void clear() {
        commands.clear();
        lists = 0;
    }

private:
    target::CommandPlan on_command(const target::CommandView& command) override {
        const auto code = static_cast<std::uint8_t>(command.cdb[0]);
        const unsigned number = command.lun.small_number().value_or(~0U);
        if (code == opcode::report_luns)
            ++lists;
        else
            ++commands[number];
        target::CommandPlan plan;
        plan.hold = held == number && code != opcode::report_luns;
        if (tells_at == code) {
            tells_at.reset();
            plan.status = scsi::Status::check_condition;
            plan.sense = attention;
        }
        if (failing == number && code == opcode::service_action_in_16) {
            plan.status = scsi::Status::check_condition;
            plan.sense = scsi::Sense{.valid = true, .key = scsi::SenseKey::hardware_error, .asc = 0x44, .ascq = 0};
        }
        return plan;
    }
    target::TaskManagementPlan on_task_management(target::ChannelId, const srp::TaskManagement& request) override {
        if (request.function == srp::TaskFunction::lun_reset)
            resets.push_back(request.lun.small_number().value_or(~0U));
        return {};
    }
};

class InventoryTest : public testing::Test, private initiator::TargetPortListener, private InventoryListener {
protected:
    void build(const std::string& luns, Duration rescan_interval = {}, unsigned channels = 1) {
        fabric = fabric::make_loopback_fabric(executor.timers(), fabric::demo_port(), nullptr);
        device = std::move(*target::Device::create({}, *target::parse_lun_list(luns)));
        device->set_behaviour(&watcher);
        portal = std::move(*target::make_portal(*device, executor, *fabric, fabric::LoopbackAddress{"demo"}));
        EngineLimits limits;
        limits.intake_buffers = 8;
        limits.read_buffers_4k = limits.read_buffers_64k = 8;
        limits.read_buffers_1m = limits.edge_buffers = 4;
        engine = std::move(*Engine::create(limits, {fabric.get()}, executor, random));

        initiator::TargetPortConfig config;
        config.name = "demo";
        config.address = fabric::LoopbackAddress{"demo"};
        config.parameters.id_ext = config.parameters.ioc_guid = 1;
        config.parameters.dest = srp::IpDestination{"demo", 0};
        config.parameters.ch_count = channels;
        config.command_time = 10h;
        config.path.interval.reset();
        port =
            initiator::TargetPort::create(config, executor, {initiator::ReactorDoor{&executor, fabric.get()}}, *this);
        inventory = Inventory::create({.name = "demo",
                                       .queue_depth = 8,
                                       .rescan_interval = rescan_interval,
                                       .suspects_earlier_writes = [this] { return was_left_behind; }},
                                      executor, executor, *engine, port, *this);
        port->login([](const Result<initiator::PortFacts>&) {});
        settle();
        ASSERT_EQ(scans, 1u);
        clear();
    }
    void TearDown() override {
        if (!port) return;
        watcher.held.reset();
        device->release_held();
        settle();
        inventory->close("the end");
        port->close("the end");
        for (const auto& unit : std::vector(inventory->units())) inventory->release(unit);
        for (unsigned turn = 0; turn < 60 && !(is_gone && is_closed); ++turn) advance(1s);
        EXPECT_TRUE(is_gone && is_closed) << inventory->describe();
        inventory.reset();
        port.reset();
        settle();
        engine.reset();
        portal->close();
        for (unsigned turn = 0; turn < 60 && !portal->is_closed(); ++turn) advance(1s);
        portal.reset();
    }
    void settle() {
        for (;;) {
            executor.timers().advance_to(executor.timers().now());
            const bool had_mail = executor.run();
            const unsigned events = fabric->poll(64);
            fabric->flush();
            if (!had_mail && events == 0 && fabric->arm() &&
                executor.timers().next_deadline() > executor.timers().now())
                return;
        }
    }
    void advance(Duration duration) {
        settle();
        const Instant end = executor.timers().now() + duration;
        while (executor.timers().now() < end) {
            executor.timers().advance_to(std::min(end, executor.timers().next_deadline()));
            settle();
        }
    }
    void clear() {
        watcher.clear();
        happened.clear();
        attentions.clear();
    }
    struct Asker final : OperationListener {
        OutcomeKind kind = OutcomeKind::interrupted;
        void on_answered(Operation& operation) override {
            kind = operation.outcome().kind;
            operation.release();
        }
    };
    OutcomeKind read(unsigned number, std::uint64_t offset) {
        Asker reader;
        Unit& from = *unit(number)->unit();
        Operation* const operation = engine->take();
        operation->prepare_read(from, offset, 512, reader);
        from.start(*operation);
        settle();
        return reader.kind;
    }
    OutcomeKind write(unsigned number) {
        Asker writer;
        Unit& to = *unit(number)->unit();
        Operation* const operation = engine->take();
        EXPECT_TRUE(engine->take_over_intake(*operation, to, 512));
        operation->prepare_write(to, 0, Durability::cached, writer);
        to.start(*operation);
        settle();
        return writer.kind;
    }
    [[nodiscard]] std::shared_ptr<ListedUnit> unit(unsigned number) const {
        for (const auto& one : inventory->units())
            if (one->lun().small_number() == number) return one;
        ADD_FAILURE() << "no unit " << number;
        return nullptr;
    }
    void attention(unsigned number, std::uint8_t asc, std::uint8_t ascq) {
        port->link(0).tell_event(scsi::Lun::from_number(static_cast<std::uint16_t>(number)),
                                 {.valid = true, .key = scsi::SenseKey::unit_attention, .asc = asc, .ascq = ascq});
        settle();
    }
    using Happened = std::vector<std::string>;

    test::ManualExecutor executor;
    Random random{1};
    Watcher watcher;
    std::unique_ptr<fabric::LoopbackFabric> fabric;
    std::unique_ptr<target::Device> device;
    std::unique_ptr<target::Portal> portal;
    std::unique_ptr<Engine> engine;
    std::shared_ptr<initiator::TargetPort> port;
    std::shared_ptr<Inventory> inventory;
    Happened happened;
    std::vector<scsi::Sense> attentions;
    unsigned scans = 0;
    bool was_left_behind = false;  // by a process that has not logged out

private:
    void on_port_state(initiator::TargetPort&, initiator::PortState, initiator::PortState,
                       const std::string&) override {}
    void on_port_login(initiator::TargetPort&, bool) override { inventory->scan("login"); }
    void on_port_closed(initiator::TargetPort&) override { is_closed = true; }

    void note(const char* what, const ListedUnit& which) {
        happened.push_back(std::string(what) + " " + which.lun().file_name());
    }
    void on_unit_added(const std::shared_ptr<ListedUnit>& which, Unit* pointer) override {
        EXPECT_EQ(which->unit(), pointer);
        note("added", *which);
    }
    void on_unit_changed(ListedUnit& which) override { note("changed", which); }
    void on_unit_offline(ListedUnit& which, const std::string&) override { note("offline", which); }
    void on_unit_removed(const std::shared_ptr<ListedUnit>& which, const std::string&) override {
        note("removed", *which);
        inventory->release(which);
    }
    void on_unit_attention(ListedUnit&, const scsi::Sense& sense) override { attentions.push_back(sense); }
    void on_unit_registration(ListedUnit&, const std::string&, bool) override {}
    void on_unit_failure(ListedUnit&, const std::string&) override {}
    void on_listed() override {}
    void on_scanned(const Result<void>&) override { ++scans; }
    void on_inventory_gone(bool) override { is_gone = true; }

    bool is_gone = false, is_closed = false;
};

TEST_F(InventoryTest, ALoginShowsAllUnits) {
    build("ram:1M+ram:2M+ram:3M");
    ASSERT_EQ(inventory->units().size(), 3u);
    for (unsigned number = 0; number < 3; ++number) {
        EXPECT_EQ(unit(number)->info()->capacity_bytes(), (number + 1) << 20);
        EXPECT_EQ(unit(number)->unit()->state(), UnitState::running);
        EXPECT_FALSE(unit(number)->is_offline());
    }
    EXPECT_TRUE(inventory->is_quiet());
}

TEST_F(InventoryTest, UnitsToWhichAnEarlierProcessMayStillWriteAreResetBeforeTheirFirstRequest) {
    was_left_behind = true;
    build("ram:1M+ram:1M");
    std::sort(watcher.resets.begin(), watcher.resets.end());
    EXPECT_EQ(watcher.resets, (std::vector<unsigned>{0, 1}));
    EXPECT_EQ(read(0, 0), OutcomeKind::ok);
    EXPECT_EQ(read(1, 0), OutcomeKind::ok);
    EXPECT_EQ(watcher.resets.size(), 2u) << "once";
}

TEST_F(InventoryTest, OtherUnitsAreNotResetByALogin) {
    build("ram:1M+ram:1M");
    EXPECT_EQ(read(0, 0), OutcomeKind::ok);
    EXPECT_TRUE(watcher.resets.empty());
}

// Two paths to one unit: one that works, and one that does not.
class LastFlush : public InventoryTest {
protected:
    LastFlush() {
        log::observe([this](log::Level, std::string_view line) {
            if (line.find("flushing before the end failed") != line.npos) ++complaints;
        });
    }
    ~LastFlush() override { log::observe({}); }
    void begin() {
        build("ram:1M,wce,wwid=naa.5001405000000099");
        ASSERT_TRUE(device->add_lun(1, target::parse_lun_list("ram:1M,wce,wwid=naa.5001405000000099")->at(0)));
        inventory->scan("asked for");
        settle();
        ASSERT_EQ(inventory->units().size(), 2u);
        ASSERT_EQ(write(0), OutcomeKind::ok);
        ASSERT_TRUE(unit(1)->unit()->has_unflushed_writes());
    }
    void end() {
        inventory->flush([this] { is_over = true; });
        settle();
        EXPECT_FALSE(is_over);
        for (const auto& one : std::vector(inventory->units())) inventory->release(one);
        advance(1s);
        EXPECT_TRUE(is_over);
    }
    unsigned complaints = 0;
    bool is_over = false;
};

TEST_F(LastFlush, ThatFailsByOnePathWhenAnotherHasSucceededIsNothingToComplainOf) {
    begin();
    unit(1)->unit()->hold();
    end();
    EXPECT_EQ(complaints, 0u);
}

TEST_F(LastFlush, ThatFailsByAllPathsIsToldByEach) {
    begin();
    for (unsigned number = 0; number < 2; ++number) unit(number)->unit()->hold();
    end();
    EXPECT_EQ(complaints, 2u);
}

TEST_F(InventoryTest, ALunResetLooksAtItsUnitOnly) {
    build("ram:1M+ram:1M");
    Result<void> done = Error(EAGAIN, "");
    inventory->reset(unit(1), [&](const Result<void>& result) { done = result; });
    settle();
    EXPECT_TRUE(done);
    EXPECT_EQ(watcher.lists, 0u);
    EXPECT_EQ(watcher.commands[0], 0u);
    EXPECT_GT(watcher.commands[1], 0u);
    EXPECT_EQ(unit(1)->unit()->state(), UnitState::running);
}

// Those that say of themselves what has changed, and those that may be about others.
class AnAttention : public InventoryTest, public testing::WithParamInterface<std::tuple<unsigned, unsigned, bool>> {};
TEST_P(AnAttention, AsksWhomItMayConcern) {
    const auto [asc, ascq, all] = GetParam();
    build("ram:1M+ram:1M");
    attention(1, static_cast<std::uint8_t>(asc), static_cast<std::uint8_t>(ascq));
    EXPECT_EQ(watcher.lists, all ? 1u : 0u);
    EXPECT_EQ(watcher.commands[0] > 0, all);
    EXPECT_GT(watcher.commands[1], 0u);
    EXPECT_EQ(unit(1)->unit()->state(), UnitState::running);
}
INSTANTIATE_TEST_SUITE_P(All, AnAttention,
                         testing::Values(std::tuple{0x28U, 0x00U, false}, std::tuple{0x29U, 0x03U, false},
                                         std::tuple{0x2aU, 0x01U, false}, std::tuple{0x2aU, 0x09U, false},
                                         std::tuple{0x3fU, 0x0eU, true}, std::tuple{0x3fU, 0x03U, true}));

TEST_F(InventoryTest, AUnitThatDoesNotAnswerKeepsNobodyElseWaiting) {
    build("ram:1M+ram:1M");
    watcher.held = 0;
    ASSERT_TRUE(device->resize_lun(1, 2 << 20));
    unsigned ends = 0;
    inventory->scan("asked for", [&](const Result<void>&) { ++ends; });
    settle();
    EXPECT_EQ(happened, Happened{"changed lun1"});
    EXPECT_EQ(ends, 0u);
    advance(60s);
    EXPECT_EQ(ends, 1u);
    EXPECT_FALSE(unit(0)->is_offline());  // it has not said that anything is wrong
}

TEST_F(InventoryTest, AUnitThatHasNotAnsweredThreeTimesIsOfflineUntilItDoes) {
    build("ram:1M");
    watcher.held = 0;
    inventory->scan("asked for");
    advance(60s);
    EXPECT_TRUE(happened.empty());
    advance(2s + 60s);
    EXPECT_TRUE(happened.empty());
    advance(4s + 60s);
    EXPECT_EQ(happened, Happened{"offline lun0"});
    EXPECT_TRUE(unit(0)->is_offline());
    watcher.held.reset();
    device->release_held();
    advance(6s);
    EXPECT_FALSE(unit(0)->is_offline());
    EXPECT_EQ(unit(0)->unit()->state(), UnitState::running);
}

TEST_F(InventoryTest, AUnitThatDoesNotAnswerWhenItIsMetIsFoundWhenItDoes) {
    build("ram:1M");
    ASSERT_TRUE(device->add_lun(5, target::parse_lun_list("ram:1M")->at(0)));
    watcher.held = 5;
    inventory->scan("asked for");
    advance(60s);
    advance(2s + 60s);
    EXPECT_TRUE(happened.empty());
    watcher.held.reset();
    device->release_held();
    advance(4s);
    EXPECT_EQ(happened, Happened{"added lun5"});
}

TEST_F(InventoryTest, AUnitThatHasNeverAnsweredAndIsListedNoMoreIsNotAskedAgain) {
    build("ram:1M");
    ASSERT_TRUE(device->add_lun(5, target::parse_lun_list("ram:1M")->at(0)));
    watcher.held = 5;
    inventory->scan("asked for");
    advance(60s);
    ASSERT_TRUE(device->remove_lun(5));
    inventory->scan("asked for");
    advance(120s);  // what is under way ends
    const auto asked = watcher.commands[5];
    advance(600s);
    EXPECT_EQ(watcher.commands[5], asked);
    EXPECT_TRUE(happened.empty());
}

TEST_F(InventoryTest, WhatTheTargetDoesNotTellIsFoundWhenItIsTime) {
    build("ram:1M+ram:1M", 60s);
    ASSERT_TRUE(device->resize_lun(0, 2 << 20));
    ASSERT_TRUE(device->set_read_only(1, true));
    advance(59s);
    EXPECT_TRUE(happened.empty());
    advance(1s);
    EXPECT_EQ(happened, (Happened{"changed lun0", "changed lun1"}));
    EXPECT_EQ(unit(0)->info()->capacity_bytes(), 2u << 20);
    EXPECT_TRUE(unit(1)->info()->read_only);
}

TEST_F(InventoryTest, AUnitThatWasExchangedWithoutAWordIsAnotherOneWhenItIsTime) {
    build("ram:1M", 60s);
    const std::string before = unit(0)->info()->wwid;
    auto other = *target::parse_lun_list("ram:1M,wwid=naa.5001405000000099");
    ASSERT_TRUE(device->remove_lun(0));
    ASSERT_TRUE(device->add_lun(0, other.at(0)));
    advance(60s);
    EXPECT_EQ(happened, (Happened{"removed lun0", "added lun0"}));
    EXPECT_NE(unit(0)->info()->wwid, before);
}

TEST_F(InventoryTest, UnitsThatComeAndGoWithoutAWordAreFoundWhenItIsTime) {
    build("ram:1M+ram:1M", 60s);
    ASSERT_TRUE(device->remove_lun(0));
    ASSERT_TRUE(device->add_lun(5, target::parse_lun_list("ram:1M")->at(0)));
    advance(60s);
    EXPECT_EQ(happened, (Happened{"removed lun0", "added lun5"}));
}

TEST_F(InventoryTest, AFailureThatNobodySuspectedHasToHappenThreeTimes) {
    build("ram:1M", 600s);
    watcher.failing = 0;
    advance(600s);
    EXPECT_TRUE(happened.empty());
    EXPECT_EQ(unit(0)->unit()->state(), UnitState::running);
    advance(10s);
    EXPECT_EQ(happened, Happened{"offline lun0"});
    watcher.failing.reset();
    advance(600s);
    EXPECT_FALSE(unit(0)->is_offline());
}

TEST_F(InventoryTest, AFailureAfterAnAttentionCountsAtOnce) {
    build("ram:1M");
    watcher.failing = 0;
    attention(0, 0x29, 0x03);
    EXPECT_EQ(happened, Happened{"offline lun0"});
}

TEST_F(InventoryTest, EachChannelIsAskedForTheAttentionsOfBefore) {
    build("ram:1M", {}, 3);
    device->raise_attention(0, 0x2a, 0x09);
    inventory->look(unit(0), "asked for");
    settle();
    clear();
    advance(10s);
    EXPECT_TRUE(watcher.commands.empty());  // nothing was left to be told
    EXPECT_EQ(unit(0)->unit()->state(), UnitState::running);
    EXPECT_GE(unit(0)->counters()->attentions, 3u);
}

// What a look meets itself is told only once as well.
class AnAttentionOfALook : public InventoryTest, public testing::WithParamInterface<std::tuple<unsigned, unsigned>> {};
TEST_P(AnAttentionOfALook, ReachesWhomThoseOfRequestsReach) {
    const auto [asc, ascq] = GetParam();
    build("ram:1M+ram:1M");
    const bool holds = ascq == 0x09 || asc == 0x3f, asks_for_look = holds || (ascq >= 0x03 && ascq <= 0x05);
    for (const std::uint8_t at : {opcode::test_unit_ready, opcode::service_action_in_16}) {
        clear();
        const std::uint64_t before = unit(1)->counters()->attentions;
        watcher.attention = {.valid = true,
                             .key = scsi::SenseKey::unit_attention,
                             .asc = static_cast<std::uint8_t>(asc),
                             .ascq = static_cast<std::uint8_t>(ascq)};
        watcher.tells_at = at;
        inventory->look(unit(1), "asked for");
        settle();
        EXPECT_FALSE(watcher.tells_at);
        EXPECT_EQ(unit(1)->counters()->attentions, before + 1);
        ASSERT_EQ(attentions.size(), asks_for_look ? 1u : 0u);
        if (asks_for_look) {
            EXPECT_EQ(attentions[0].asc, asc);
            EXPECT_EQ(attentions[0].ascq, ascq);
        }
        EXPECT_EQ(unit(1)->unit()->state(), UnitState::running);
        advance(10s);
        EXPECT_TRUE(inventory->is_quiet());
    }
}
INSTANTIATE_TEST_SUITE_P(All, AnAttentionOfALook,
                         testing::Values(std::tuple{0x2aU, 0x03U}, std::tuple{0x2aU, 0x04U}, std::tuple{0x2aU, 0x05U},
                                         std::tuple{0x2aU, 0x06U}, std::tuple{0x2aU, 0x09U}, std::tuple{0x3fU, 0x0eU}));

TEST_F(InventoryTest, AnAttentionThatHoldsNobodyDoesNotMakeALookBeginAnew) {
    build("ram:1M");
    inventory->look(unit(0), "asked for");
    settle();
    const unsigned questions = watcher.commands[0];
    clear();
    watcher.attention = {.valid = true, .key = scsi::SenseKey::unit_attention, .asc = 0x2a, .ascq = 0x06};
    watcher.tells_at = opcode::service_action_in_16;
    inventory->look(unit(0), "asked for");
    settle();
    EXPECT_EQ(watcher.commands[0], questions + 1);
}

TEST_F(InventoryTest, AUnitThatHasShrunkWithoutAWordIsFoundByWhoeverMeetsItsEnd) {
    build("ram:1M+ram:1M");
    ASSERT_TRUE(device->resize_lun(1, 512 << 10));
    EXPECT_EQ(read(1, 0), OutcomeKind::ok);
    EXPECT_TRUE(happened.empty());
    EXPECT_EQ(read(1, 768 << 10), OutcomeKind::out_of_range);
    EXPECT_EQ(happened, Happened{"changed lun1"});
    EXPECT_EQ(unit(1)->info()->capacity_bytes(), 512u << 10);
    ASSERT_EQ(attentions.size(), 1u);
    EXPECT_EQ(attentions[0].asc, 0x21u);
    EXPECT_EQ(watcher.lists, 0u);
    EXPECT_EQ(watcher.commands[0], 0u);
    EXPECT_EQ(read(1, 0), OutcomeKind::ok);
}

TEST_F(InventoryTest, LoggingOutEndsTheWaiting) {
    build("ram:1M");
    watcher.held = 0;
    int scan_error = 0, look_error = 0;
    inventory->scan("asked for",
                    [&](const Result<void>& result) { scan_error = result ? 0 : result.error().errno_value(); });
    inventory->look(unit(0), "asked for",
                    [&](const Result<void>& result) { look_error = result ? 0 : result.error().errno_value(); });
    settle();
    inventory->close("the end");
    EXPECT_EQ(scan_error, ENODEV);
    EXPECT_EQ(look_error, ENODEV);
}

}  // namespace
}  // namespace srpfs::lun
