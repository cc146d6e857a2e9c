// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// One target in trouble, another beside it on the same reactor: what its users wait for does not change. Time is
// virtual, so what is measured is exact: waiting for memory, slots, credits and turns, and nothing else.

#include "mount.h"
#include "scheduler.h"

#include <srpfs/base/log.h>
#include <srpfs/target/device.h>
#include <srpfs/target/portal.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace srpfs::simulation {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view sound_name = "sound", troubled_name = "troubled";
constexpr Duration warm_up = 1s, trouble_begins = 2s, measured_until = 15s;

// Each message takes some microseconds. Everything to and from the troubled target vanishes once it is a black hole.
class Wire final : public fabric::FaultInjector {
public:
    bool is_black_hole = false;
    Duration message_delay(Direction) override { return 5us; }
    bool loses(Direction) override { return is_black_hole && listener == troubled_name; }
    bool swallows_connect() override { return is_black_hole && listener == troubled_name; }
};

// A backend that takes some time for each command.
class Backend final : public target::Behaviour {
public:
    explicit Backend(std::uint64_t seed) : random_(seed) {}
    bool is_stuck = false;  // answers nothing, to whatever question
    target::CommandPlan on_command(const target::CommandView&) override {
        target::CommandPlan plan;
        plan.hold = is_stuck;
        plan.delay = std::chrono::microseconds(random_.between(500, 3000));
        return plan;
    }
    target::TaskManagementPlan on_task_management(target::ChannelId, const srp::TaskManagement&) override {
        target::TaskManagementPlan plan;
        plan.answered = !is_stuck;
        return plan;
    }

private:
    Random random_;
};

struct Place;

// Asks one thing after another, for ever.
class User final : public lun::OperationListener {
public:
    User(Place& place, reactor::TimerQueue& timers, std::uint64_t seed)
        : place_(place), random_(seed), timer_(timers, [this] { ask(); }) {
        timer_.arm_after(Duration::zero());
    }
    void stop() { stopped_ = true, timer_.disarm(); }
    [[nodiscard]] bool is_busy() const { return busy_; }

private:
    void ask();
    void on_answered(lun::Operation& operation) override;

    Place& place_;
    Random random_;
    reactor::Timer timer_;
    Instant started_{};
    bool busy_ = false, stopped_ = false;
};

// A target, its mount, and its users.
struct Place final : MountListener {
    Place(std::string_view name_, Scheduler& scheduler_, fabric::LoopbackFabric& fabric, SimulatedExecutor& control,
          SimulatedExecutor& reactor, SimulatedExecutor& target_thread, lun::Engine& engine_, unsigned users_,
          std::uint64_t seed)
        : scheduler(scheduler_), engine(engine_), backend(seed) {
        target::LunConfig disk;
        disk.bytes = 64 << 20;
        disk.wwid = fmt::format("naa.6001405{:025x}", seed);
        device = *target::Device::create({}, {disk});
        device->set_behaviour(&backend);
        portal = *target::make_portal(*device, target_thread, fabric, fabric::LoopbackAddress{std::string(name_)});
        initiator::TargetPortConfig config;
        config.name = name_;
        config.address = fabric::LoopbackAddress{std::string(name_)};
        config.parameters.id_ext = config.parameters.ioc_guid = 1;
        config.parameters.dest = srp::IpDestination{std::string(name_), 0};
        config.parameters.ch_count = 2;
        config.timers.fast_io_fail_tmo = 5;  // its users live through waiting and through failing
        mount = std::make_shared<Mount>(config, control, initiator::ReactorDoor{&reactor, &fabric}, engine,
                                        Duration::zero(), *this);
        mount->login();
        for (unsigned i = 0; i < users_; ++i)
            users.push_back(std::make_unique<User>(*this, scheduler.timers, seed * 1000 + i));
    }
    [[nodiscard]] lun::Unit* unit() const {
        return mount && !mount->luns().empty() && mount->luns().front()->counters() ? mount->luns().front()->unit()
                                                                                    : nullptr;
    }
    void on_lun_added(const std::shared_ptr<lun::ListedUnit>&, lun::Unit*) override {}
    void on_port_state(initiator::PortState, initiator::PortState) override {}
    void on_logged_in() override {}
    void on_gone() override { is_gone = true; }

    Scheduler& scheduler;
    lun::Engine& engine;
    Backend backend;
    std::unique_ptr<target::Device> device;
    std::unique_ptr<target::Portal> portal;
    std::shared_ptr<Mount> mount;
    std::vector<std::unique_ptr<User>> users;
    std::vector<Duration> waits;  // of what was asked after the warm-up
    std::uint64_t failed = 0;
    bool is_gone = false;
};

void User::ask() {
    lun::Unit* unit = place_.unit();
    if (!unit || stopped_) return timer_.arm_after(10ms);
    constexpr std::uint32_t sizes[] = {4096, 4096, 4096, 16384, 65536, 1024};
    const std::uint32_t bytes = sizes[random_.below(6)];
    const std::uint64_t offset = random_.below((64 << 20) / bytes) * bytes;
    lun::Operation* operation = place_.engine.take();
    ASSERT_NE(operation, nullptr);
    started_ = place_.scheduler.timers.now();
    busy_ = true;
    if (random_.chance(1, 2)) {
        operation->prepare_read(*unit, offset, bytes, *this);
    } else if (place_.engine.take_over_intake(*operation, *unit, bytes)) {
        operation->prepare_write(*unit, offset, lun::Durability::cached, *this);
    } else {
        busy_ = false;
        operation->release();
        ++place_.failed;
        return timer_.arm_after(10ms);
    }
    unit->start(*operation);
}

void User::on_answered(lun::Operation& operation) {
    busy_ = false;
    const Instant now = place_.scheduler.timers.now();
    const bool is_well = operation.outcome().ok();
    if (!is_well) ++place_.failed;
    operation.release();
    if (started_ - Instant{} >= warm_up && now - Instant{} < measured_until) place_.waits.push_back(now - started_);
    if (stopped_) return;
    timer_.arm_after(is_well ? std::chrono::microseconds(random_.between(1, 500)) : 20ms);
}

enum class Trouble { none, black_hole, stuck_backend, disabled };

struct Measured {
    std::size_t requests = 0;
    Duration median{}, p99{}, longest{};
    std::uint64_t failed = 0;
};

Measured measure(unsigned users, unsigned users_beside, Trouble trouble) {
    Scheduler scheduler(7);
    SimulatedExecutor control(scheduler), reactor(scheduler), target_thread(scheduler);
    Wire wire;
    auto fabric = fabric::make_loopback_fabric(scheduler.timers, fabric::demo_port(), &wire);
    scheduler.fabric = fabric.get();
    Random random(8);
    auto engine = *lun::Engine::create({}, {fabric.get()}, reactor, random);
    Measured measured;
    {
        Place sound(sound_name, scheduler, *fabric, control, reactor, target_thread, *engine, users, 1);
        std::unique_ptr<Place> troubled;
        if (users_beside > 0)
            troubled = std::make_unique<Place>(troubled_name, scheduler, *fabric, control, reactor, target_thread,
                                               *engine, users_beside, 2);
        scheduler.advance(trouble_begins);
        wire.is_black_hole = trouble == Trouble::black_hole;
        if (troubled) troubled->backend.is_stuck = trouble == Trouble::stuck_backend;
        if (trouble == Trouble::disabled) troubled->device->set_enabled(false);
        scheduler.advance(measured_until - trouble_begins);

        std::sort(sound.waits.begin(), sound.waits.end());
        measured.requests = sound.waits.size();
        measured.failed = sound.failed;
        if (measured.requests > 0) {
            measured.median = sound.waits[measured.requests / 2];
            measured.p99 = sound.waits[measured.requests * 99 / 100];
            measured.longest = sound.waits.back();
        }
        for (Place* place : {&sound, troubled.get()}) {
            if (!place) continue;
            for (auto& user : place->users) user->stop();
            place->device->release_held();
            place->mount->logout("the end");
            scheduler.run_until([&] { return place->is_gone; }, 60s);
            EXPECT_TRUE(place->is_gone);
            scheduler.settle();
            place->mount.reset();
            place->portal->close();
        }
        scheduler.advance(60s);
        for (Place* place : {&sound, troubled.get()}) EXPECT_TRUE(!place || place->portal->is_closed());
    }
    scheduler.settle();
    return measured;
}

double in_ms(Duration duration) { return std::chrono::duration<double, std::milli>(duration).count(); }

class Isolation : public testing::TestWithParam<Trouble> {};

TEST_P(Isolation, OfATargetWhoseNeighbourIsInTroubleKeepsTheP99WithinTenPercent) {
    log::configure(log::Destination::none, log::Level::error);
    for (const unsigned users : {1U, 8U}) {
        const Measured alone = measure(users, 0, Trouble::none);
        const Measured beside = measure(users, GetParam() == Trouble::none ? 32 : 200, GetParam());
        const auto told = fmt::format(
            "{} users: alone {} requests, median {:.3f} ms, p99 {:.3f} ms, longest {:.3f} ms; beside {} requests, "
            "median {:.3f} ms, p99 {:.3f} ms, longest {:.3f} ms",
            users, alone.requests, in_ms(alone.median), in_ms(alone.p99), in_ms(alone.longest), beside.requests,
            in_ms(beside.median), in_ms(beside.p99), in_ms(beside.longest));
        fmt::print("{}\n", told);
        ASSERT_GT(alone.requests, 1000U);
        EXPECT_EQ(beside.failed, 0U) << told;
        EXPECT_LE(in_ms(beside.p99), in_ms(alone.p99) * 1.1) << told;
        EXPECT_GE(static_cast<double>(beside.requests), static_cast<double>(alone.requests) * 0.9) << told;
    }
}

INSTANTIATE_TEST_SUITE_P(Neighbours, Isolation,
                         testing::Values(Trouble::none, Trouble::black_hole, Trouble::stuck_backend, Trouble::disabled),
                         [](const auto& tested) {
                             switch (tested.param) {
                                 case Trouble::none: return "Busy";
                                 case Trouble::black_hole: return "BlackHole";
                                 case Trouble::stuck_backend: return "StuckBackend";
                                 case Trouble::disabled: return "Disabled";
                             }
                             return "";
                         });

}  // namespace
}  // namespace srpfs::simulation
