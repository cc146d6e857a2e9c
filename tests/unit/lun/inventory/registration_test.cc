// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Persistent reservations as srpfs gives them: two initiators, each with a TargetPort and an Inventory, and the
// embedded target on one loopback network, one thread, time by hand.
#include "manual_executor.h"

#include <srpfs/base/random.h>
#include <srpfs/fabric/loopback.h>
#include <srpfs/initiator/target_port.h>
#include <srpfs/lun/inventory.h>
#include <srpfs/lun/registration.h>
#include <srpfs/target/device.h>
#include <srpfs/target/portal.h>

#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <string>

namespace srpfs::lun {
namespace {

using namespace std::chrono_literals;

// A machine that has logged in.
class Host final : private initiator::TargetPortListener, private InventoryListener, private OperationListener {
public:
    Host(test::ManualExecutor& executor, fabric::Fabric& fabric, std::uint64_t extension) : random_(extension) {
        EngineLimits limits;
        limits.intake_buffers = 8;
        limits.read_buffers_4k = limits.read_buffers_64k = 8;
        limits.read_buffers_1m = limits.edge_buffers = 4;
        engine_ = std::move(*Engine::create(limits, {&fabric}, executor, random_));
        initiator::TargetPortConfig config;
        config.name = "demo";
        config.address = fabric::LoopbackAddress{"demo"};
        config.parameters.id_ext = config.parameters.ioc_guid = 1;
        config.parameters.initiator_ext = extension;
        config.parameters.dest = srp::IpDestination{"demo", 0};
        config.parameters.ch_count = 1;
        config.command_time = 10h;
        config.path.interval.reset();
        port = initiator::TargetPort::create(config, executor, {initiator::ReactorDoor{&executor, &fabric}}, *this);
        inventory = Inventory::create(
            {.name = "demo", .queue_depth = 8, .rescan_interval = {}, .suspects_earlier_writes = nullptr}, executor,
            executor, *engine_, port, *this);
        port->login([](const Result<initiator::PortFacts>&) {});
    }
    void close() {
        inventory->close("the end");
        port->close("the end");
        for (const auto& unit : std::vector(inventory->units())) inventory->release(unit);
    }
    [[nodiscard]] bool is_closed() const { return is_gone_ && is_closed_; }
    [[nodiscard]] std::shared_ptr<ListedUnit> unit() const { return inventory->units().at(0); }
    // The outcome of a write of one block: started, answered after the caller has let things settle.
    void start_write() {
        Operation* const operation = engine_->take();
        ASSERT_TRUE(engine_->take_over_intake(*operation, *unit()->unit(), 512));
        operation->prepare_write(*unit()->unit(), 0, Durability::cached, *this);
        outcome.reset();
        unit()->unit()->start(*operation);
    }

    std::shared_ptr<initiator::TargetPort> port;
    std::shared_ptr<Inventory> inventory;
    std::optional<Outcome> outcome;
    std::vector<std::string> lost, repeated;

private:
    void on_answered(Operation& operation) override {
        outcome = operation.outcome();
        operation.release();
    }
    void on_port_state(initiator::TargetPort&, initiator::PortState, initiator::PortState,
                       const std::string&) override {}
    void on_port_login(initiator::TargetPort&, bool) override { inventory->scan("login"); }
    void on_port_closed(initiator::TargetPort&) override { is_closed_ = true; }
    void on_unit_added(const std::shared_ptr<ListedUnit>&, Unit*) override {}
    void on_unit_changed(ListedUnit&) override {}
    void on_unit_offline(ListedUnit&, const std::string&) override {}
    void on_unit_removed(const std::shared_ptr<ListedUnit>& which, const std::string&) override {
        inventory->release(which);
    }
    void on_unit_attention(ListedUnit&, const scsi::Sense&) override {}
    void on_unit_registration(ListedUnit&, const std::string& text, bool is_lost) override {
        (is_lost ? lost : repeated).push_back(text);
    }
    void on_unit_failure(ListedUnit&, const std::string&) override {}
    void on_listed() override {}
    void on_scanned(const Result<void>&) override {}
    void on_inventory_gone(bool) override { is_gone_ = true; }

    Random random_;
    std::unique_ptr<Engine> engine_;
    bool is_gone_ = false, is_closed_ = false;
};

class RegistrationTest : public testing::Test {
protected:
    void SetUp() override {
        fabric = fabric::make_loopback_fabric(executor.timers(), fabric::demo_port(), nullptr);
        device = std::move(*target::Device::create({}, *target::parse_lun_list("ram:1M")));
        portal = std::move(*target::make_portal(*device, executor, *fabric, fabric::LoopbackAddress{"demo"}));
        a = std::make_unique<Host>(executor, *fabric, 0xa);
        b = std::make_unique<Host>(executor, *fabric, 0xb);
        settle();
        ASSERT_EQ(a->inventory->units().size(), 1u);
        ASSERT_EQ(b->inventory->units().size(), 1u);
    }
    void TearDown() override {
        a->close();
        b->close();
        for (unsigned turn = 0; turn < 60 && !(a->is_closed() && b->is_closed()); ++turn) advance(1s);
        EXPECT_TRUE(a->is_closed() && b->is_closed());
        a.reset();
        b.reset();
        settle();
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
    // 0, or the errno.
    int order(Host& host, const std::string& text) {
        const auto command = parse_reserve_command(text);
        if (!command) return command.error().errno_value();
        int value = -1;
        host.unit()->registration()->execute(*command, [&](const Result<void>& done) {
            value = done ? 0 : done.error().errno_value();
            if (!done) error = done.error().context;
        });
        settle();
        return value;
    }
    std::string text(Host& host) {
        std::string told = "not answered";
        host.unit()->registration()->read(
            [&](const Result<std::string>& read) { told = read ? *read : read.error().context; });
        settle();
        return told;
    }
    OutcomeKind write(Host& host) {
        host.start_write();
        settle();
        return host.outcome ? host.outcome->kind : OutcomeKind::protocol_error;
    }
    void lose_power(bool a_returns_first = true) {
        device->crash([](unsigned, std::uint64_t) { return false; });
        settle();
        device->restart();
        Host& first = a_returns_first ? *a : *b;
        for (unsigned turn = 0; turn < 100 && first.port->state() != initiator::PortState::running; ++turn) advance(1s);
        for (unsigned turn = 0; turn < 100 && !(a->port->state() == initiator::PortState::running &&
                                                b->port->state() == initiator::PortState::running);
             ++turn)
            advance(1s);
        settle();
    }

    // Another unit under the same number.
    void exchange() {
        ASSERT_TRUE(device->remove_lun(0));
        target::LunConfig other = target::parse_lun_list("ram:1M")->at(0);
        other.wwid = "naa.60014050000000000000000000000bad";
        ASSERT_TRUE(device->add_lun(0, other));
        device->raise_attention(0, 0x3f, 0x0e);
    }
    void return_to_run() {
        for (unsigned turn = 0; turn < 100 && a->port->state() != initiator::PortState::running; ++turn) advance(100ms);
        advance(100ms);
    }

    test::ManualExecutor executor;
    std::unique_ptr<fabric::LoopbackFabric> fabric;
    std::unique_ptr<target::Device> device;
    std::unique_ptr<target::Portal> portal;
    std::unique_ptr<Host> a, b;
    std::string error;
};

TEST(ReserveCommands, AreWordsKeysAndTypes) {
    const auto one = parse_reserve_command("  preempt 0xABC  write-exclusive ");
    ASSERT_TRUE(one);
    EXPECT_EQ(one->verb, ReserveCommand::Verb::preempt);
    EXPECT_EQ(one->key, 0xabcu);
    EXPECT_EQ(one->type, scsi::ReservationType::write_exclusive);
    EXPECT_EQ(parse_reserve_command("register 18446744073709551615")->key, UINT64_MAX);
    EXPECT_FALSE(parse_reserve_command("preempt 7")->type);
    for (const char* wrong :
         {"", "register", "register 0", "register 0x", "register -1", "register 1 2", "register 18446744073709551616",
          "reserve", "reserve shared", "reserve write-exclusive now", "release write-exclusive", "unregister 1",
          "preempt", "preempt write-exclusive", "clear all", "Register 1"}) {
        const auto command = parse_reserve_command(wrong);
        ASSERT_FALSE(command) << wrong;
        EXPECT_EQ(command.error().errno_value(), EINVAL);
        EXPECT_TRUE(command.error().context.starts_with("reservations: ")) << command.error().context;
    }
}

TEST_F(RegistrationTest, TheHolderWritesAndTheOthersAreRefused) {
    EXPECT_EQ(text(*a), "generation 0\nregistered none\nreservation none\n");
    EXPECT_EQ(order(*a, "register 0xa"), 0);
    EXPECT_EQ(order(*a, "reserve write-exclusive"), 0);
    EXPECT_EQ(text(*a),
              "generation 1\nregistered 0x000000000000000a\nkey 0x000000000000000a\n"
              "reservation write-exclusive 0x000000000000000a\n");
    EXPECT_EQ(write(*a), OutcomeKind::ok);
    EXPECT_EQ(write(*b), OutcomeKind::reservation_conflict);
    EXPECT_EQ(order(*a, "release"), 0);
    EXPECT_EQ(write(*b), OutcomeKind::ok);
}

TEST_F(RegistrationTest, WithoutAKeyNothingButRegisteringIsSent) {
    for (const char* command : {"reserve write-exclusive", "release", "preempt 1", "clear", "unregister"})
        EXPECT_EQ(order(*a, command), ENOKEY) << command;
    EXPECT_EQ(order(*a, "register 1"), 0);
    EXPECT_EQ(order(*a, "preempt 2"), EINVAL) << "there is no reservation whose type it could take";
    EXPECT_EQ(order(*a, "preempt 2 write-exclusive"), EBUSY);
    EXPECT_NE(error.find("RESERVATION CONFLICT"), std::string::npos) << error;
}

TEST_F(RegistrationTest, ThePreemptedHearsOfItAndIsNotRegisteredAgain) {
    EXPECT_EQ(order(*a, "register 0xa"), 0);
    EXPECT_EQ(order(*a, "reserve exclusive-access"), 0);
    EXPECT_EQ(order(*b, "register 0xb"), 0);
    EXPECT_EQ(order(*b, "preempt 0xa"), 0);
    EXPECT_EQ(write(*b), OutcomeKind::ok);
    EXPECT_EQ(write(*a), OutcomeKind::reservation_conflict);
    settle();
    ASSERT_EQ(a->lost.size(), 1u);
    EXPECT_TRUE(a->repeated.empty());
    EXPECT_FALSE(a->unit()->registration()->key());
    a->port->relogin("asked for");
    advance(30s);
    EXPECT_EQ(write(*a), OutcomeKind::reservation_conflict) << "it was fenced off";
}

TEST_F(RegistrationTest, AReloginKeepsIt) {
    EXPECT_EQ(order(*a, "register 0xa"), 0);
    EXPECT_EQ(order(*a, "reserve exclusive-access"), 0);
    a->port->relogin("asked for");
    advance(30s);
    EXPECT_EQ(write(*a), OutcomeKind::ok);
    EXPECT_EQ(write(*b), OutcomeKind::reservation_conflict);
    EXPECT_TRUE(a->lost.empty() && a->repeated.empty());
}

TEST_F(RegistrationTest, ATargetThatHasLostPowerIsToldAgainBeforeAnyIo) {
    EXPECT_EQ(order(*a, "register 0xa"), 0);
    EXPECT_EQ(order(*a, "reserve exclusive-access"), 0);
    lose_power();
    ASSERT_EQ(a->repeated.size(), 1u);
    EXPECT_NE(a->repeated[0].find("the reservation it held is gone"), std::string::npos) << a->repeated[0];
    EXPECT_EQ(text(*a), "generation 1\nregistered 0x000000000000000a\nkey 0x000000000000000a\nreservation none\n");
    EXPECT_EQ(write(*a), OutcomeKind::ok);
    EXPECT_EQ(write(*b), OutcomeKind::ok) << "nobody has reserved since";
    EXPECT_TRUE(a->lost.empty());
}

TEST_F(RegistrationTest, ATargetThatLosesPowerBeforeItHasToldItsGenerationIsToldAgain) {
    struct Silent final : target::Behaviour {
        target::CommandPlan on_command(const target::CommandView& command) override {
            target::CommandPlan plan;
            plan.hold = static_cast<std::uint8_t>(command.cdb[0]) == scsi::opcode::persistent_reserve_in;
            return plan;
        }
    } silent;
    device->set_behaviour(&silent);
    int value = -1;
    a->unit()->registration()->execute(*parse_reserve_command("register 0xa"), [&](const Result<void>& done) {
        value = done ? 0 : done.error().errno_value();
    });
    settle();
    EXPECT_EQ(value, -1) << "it has asked for the keys";
    device->set_behaviour(nullptr);
    lose_power();
    for (unsigned turn = 0; turn < 60 && a->repeated.empty() && a->lost.empty(); ++turn) advance(1s);
    EXPECT_EQ(value, 0);
    EXPECT_TRUE(a->lost.empty()) << a->lost[0];
    EXPECT_EQ(a->repeated.size(), 1u);
    EXPECT_EQ(a->unit()->registration()->key(), std::uint64_t{0xa});
    device->release_held();
}

TEST_F(RegistrationTest, ARefusedKeyIsNotTakenForOursWhenSomebodyElseHasIt) {
    EXPECT_EQ(order(*a, "register 0xa"), 0);
    EXPECT_EQ(order(*b, "register 0xb"), 0);
    EXPECT_EQ(order(*b, "preempt 0xa write-exclusive"), 0);
    EXPECT_EQ(order(*a, "register 0xb"), EBUSY);
    a->inventory->scan("asked for");
    settle();
    EXPECT_FALSE(a->unit()->registration()->key());
    EXPECT_EQ(a->lost.size(), 1u);
}

TEST_F(RegistrationTest, WhoeverClearedEverythingHasMeantUsToo) {
    EXPECT_EQ(order(*a, "register 0xa"), 0);
    EXPECT_EQ(order(*b, "register 0xb"), 0);
    EXPECT_EQ(order(*b, "clear"), 0);
    EXPECT_EQ(write(*a), OutcomeKind::ok) << "nothing is reserved";
    settle();
    EXPECT_EQ(a->lost.size(), 1u);
    EXPECT_EQ(text(*a), "generation 3\nregistered none\nreservation none\n");
}

TEST_F(RegistrationTest, WhatWaitedForAConnectionIsNotSentToAnotherUnit) {
    device->set_enabled(false);
    settle();
    int value = -1;
    a->unit()->registration()->execute(*parse_reserve_command("register 1"), [&](const Result<void>& done) {
        value = done ? 0 : done.error().errno_value();
    });
    exchange();
    device->set_enabled(true);
    return_to_run();
    EXPECT_EQ(value, ENODEV);
    EXPECT_TRUE(device->reservations(0).registrants.empty());
}

TEST_F(RegistrationTest, WhatWaitedForAConnectionKeepsNobodyWaitingWhenThereIsOneAgain) {
    EXPECT_EQ(order(*a, "register 1"), 0);
    device->set_enabled(false);
    settle();
    int value = -1;
    a->unit()->registration()->execute(*parse_reserve_command("register 2"), [&](const Result<void>& done) {
        value = done ? 0 : done.error().errno_value();
    });
    device->set_enabled(true);
    return_to_run();
    EXPECT_EQ(value, 0);
    EXPECT_EQ(write(*a), OutcomeKind::ok);
    advance(5s);
    EXPECT_TRUE(a->lost.empty());
}

// The unit is exchanged between the look that found it, and found its registration forgotten, and the repetition.
TEST_F(RegistrationTest, ARegistrationIsNotRepeatedToAnotherUnit) {
    struct Slow final : target::Behaviour {
        target::CommandPlan on_command(const target::CommandView& command) override {
            const bool asks = command.cdb[0] == std::byte{scsi::opcode::persistent_reserve_in};
            if (!asks || !on_question) return {};
            std::exchange(on_question, nullptr)();
            target::CommandPlan plan;
            plan.response_delay = 1s;
            return plan;
        }
        std::function<void()> on_question;
    } behaviour;
    device->set_behaviour(&behaviour);
    EXPECT_EQ(order(*a, "register 1"), 0);
    bool asked = false;
    behaviour.on_question = [&] { asked = true; };
    lose_power();
    ASSERT_TRUE(asked);
    exchange();
    advance(30s);
    EXPECT_TRUE(device->reservations(0).registrants.empty());
    EXPECT_TRUE(a->repeated.empty() || a->repeated[0].find("could not be repeated") != std::string::npos);
    device->set_behaviour(nullptr);
}

TEST_F(RegistrationTest, GivingUpEndsACommandThatIsUnderWay) {
    const auto registration = a->unit()->registration();
    a->port->link(0).set_state(initiator::PortState::blocked);
    int value = -1;
    const auto give_up = registration->execute(*parse_reserve_command("register 1"), [&](const Result<void>& done) {
        value = done ? 0 : done.error().errno_value();
    });
    settle();
    EXPECT_EQ(value, -1);
    give_up();
    advance(1s);
    EXPECT_EQ(value, EINTR);
    a->port->link(0).set_state(initiator::PortState::running);
    a->inventory->scan("asked for");
    EXPECT_EQ(order(*a, "register 2"), 0);
}

TEST_F(RegistrationTest, WhoGivesUpIsToldAndTheNextOneGoesOn) {
    // Two at once, the second given up while it waits.
    int first = -1, second = -1;
    const auto registration = a->unit()->registration();
    registration->execute(*parse_reserve_command("register 1"),
                          [&](const Result<void>& done) { first = done ? 0 : done.error().errno_value(); });
    const auto give_up = registration->execute(*parse_reserve_command("register 2"), [&](const Result<void>& done) {
        second = done ? 0 : done.error().errno_value();
    });
    give_up();
    EXPECT_EQ(second, EINTR);
    settle();
    EXPECT_EQ(first, 0);
    EXPECT_EQ(registration->key(), 1u);
    EXPECT_EQ(order(*a, "unregister"), 0);
    EXPECT_FALSE(registration->key());
}

}  // namespace
}  // namespace srpfs::lun
