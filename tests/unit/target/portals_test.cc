// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// One device behind several portals: on one thread in turns, and on threads of their own.
#include "test_initiator.h"

#include <srpfs/base/random.h>
#include <srpfs/reactor/reactor.h>

#include <atomic>
#include <future>
#include <thread>

namespace srpfs::target {
namespace {

// A second network with its own executor, on the test's thread.
class Portals : public TargetTest {
protected:
    void SetUp() override {
        build("ram:1M+ram:1M");
        far_fabric = fabric::make_loopback_fabric(far_executor.timers(), fabric::demo_port(), nullptr);
        far_portal = std::move(make_portal(*device, far_executor, *far_fabric, address).value());
    }
    void TearDown() override {
        device->set_behaviour(nullptr);
        for (auto& initiator : far_initiators)
            if (!initiator->gone) initiator->disconnect();
        far_portal->close();
        settle_both();
        EXPECT_TRUE(far_portal->is_closed());
        far_portal.reset();
        shut_down();
        far_initiators.clear();
    }
    void settle_both() {
        for (bool busy = true; busy;) {
            settle();
            busy = far_executor.run();
            busy = far_fabric->poll(32) > 0 || busy || !far_fabric->arm();
        }
    }
    TestInitiator& far_login(const Login& with) {
        far_initiators.push_back(std::make_unique<TestInitiator>(*far_fabric, address, with));
        settle_both();
        EXPECT_TRUE(far_initiators.back()->is_live());
        return *far_initiators.back();
    }
    Rsp far_execute(TestInitiator& initiator, unsigned lun, const Bytes& cdb) {
        const auto tag = start(initiator, lun, cdb);
        settle_both();
        return initiator.response(tag).value_or(Rsp{});
    }

    test::ManualExecutor far_executor;
    std::unique_ptr<fabric::LoopbackFabric> far_fabric;
    std::unique_ptr<Portal> far_portal;
    std::vector<std::unique_ptr<TestInitiator>> far_initiators;
};

TEST_F(Portals, ShareTheData) {
    auto& near = login();
    auto& far = far_login({.action = 1});
    EXPECT_EQ(write(near, 0, 3, pattern(512, 1)).status, 0);
    const auto tag = start(far, 0, cdb_10(0x28, 3, 1), Data::in, {{0, 512}});
    settle_both();
    EXPECT_EQ(far.answer(tag).status, 0);
    EXPECT_EQ(far.in()[5], pattern(512, 1)[5]);
    EXPECT_EQ(device->channels().size(), 2u);
    EXPECT_EQ(device->counters().commands[0x28], 1u);
}

TEST_F(Portals, ASingleLoginTerminatesTheNexusEverywhere) {
    auto& near = login();
    auto& far = far_login({.action = 1});
    auto& again = login();
    settle_both();
    EXPECT_TRUE(near.ended);
    EXPECT_TRUE(far.ended);
    EXPECT_EQ(again.reply.at(26), std::byte{0x81});
}

TEST_F(Portals, AttentionsReachChannelsOfAllPortals) {
    auto& near = login();
    auto& far = far_login({.action = 1});
    device->raise_attention(0, 0x2a, 0x09);
    expect_sense(execute(near, 0, cdb16({0x00})), 6, 0x2a, 9);
    expect_sense(far_execute(far, 0, cdb16({0x00})), 6, 0x2a, 9);
}

TEST_F(Portals, LunResetReachesCommandsOfAllPortalsBeforeItIsAnswered) {
    struct Holding final : Behaviour {
        unsigned written = 0;
        CommandPlan on_command(const CommandView& command) override {
            return {.hold = command.cdb[0] == std::byte{0x2a}};
        }
        void on_write_applied(unsigned, std::uint64_t, std::uint64_t, std::span<const std::byte>) override {
            ++written;
        }
    } behaviour;
    device->set_behaviour(&behaviour);
    auto& near = login();
    auto& far = far_login({.action = 1});
    const auto near_write = start(near, 0, cdb_10(0x2a, 0, 1), Data::out, {{0, 512}});
    const auto far_write = start(far, 0, cdb_10(0x2a, 1, 1), Data::out, {{0, 512}});
    settle_both();

    const auto reset = next_tag++;
    EXPECT_TRUE(near.send(near.task_management(reset, 0, 0x08, 0)));
    settle();  // the near portal alone
    EXPECT_FALSE(near.response(reset));
    settle_both();
    EXPECT_EQ(near.answer(reset).task_code, 0);
    EXPECT_EQ(far.answer(far_write).status, 0x40);
    EXPECT_FALSE(near.response(near_write));
    expect_sense(far_execute(far, 0, cdb16({0x00})), 6, 0x29, 3);
    device->release_held();
    settle_both();
    EXPECT_EQ(behaviour.written, 0u);
}

TEST_F(Portals, ACrashTakesThemAllDown) {
    auto& near = login();
    auto& far = far_login({.action = 1});
    device->crash([](unsigned, std::uint64_t) { return true; });
    settle_both();
    EXPECT_TRUE(near.ended);
    EXPECT_TRUE(far.ended);
    device->restart();
    settle_both();
    EXPECT_EQ(far_execute(far_login({}), 0, cdb16({0x00})).status, 0);
}

// A reactor thread with a network, a portal and an initiator of its own that writes and checks its own blocks and
// resets the shared unit now and then.
class Station final : reactor::Source {
public:
    Station(Device& device, unsigned index, unsigned commands)
        : index_(index), commands_left_(commands), random_(index), reactor_("station" + std::to_string(index)),
          fabric_(fabric::make_loopback_fabric(reactor_.timers(), fabric::demo_port(), nullptr)),
          portal_(make_portal(device, reactor_, *fabric_, fabric::LoopbackAddress{"demo"},
                              {.buffers_16k = 64, .buffers_128k = 0, .buffers_1m = 0, .buffers_8m = 1})
                      .value()),
          initiator_(*fabric_, fabric::LoopbackAddress{"demo"}, {.guid = 100 + index}) {
        reactor_.add_source(*this);
    }
    void run() {
        reactor_.run();
        portal_.reset();
        reactor_.run();  // what the others have posted meanwhile: resets that wait for it would never be over
    }
    unsigned good = 0, aborted = 0, attentions = 0, wrong = 0;  // responses

private:
    static constexpr unsigned depth = 8;

    bool poll() override {
        const bool worked = fabric_->poll(64) > 0;
        if (!initiator_.is_live() && !finishing_) return worked;
        for (const Rsp& rsp : initiator_.responses) on_response(rsp);
        initiator_.responses.clear();
        while (!finishing_ && !resetting_ && commands_left_ > 0 && in_flight_ < depth) submit();
        if (resetting_ && in_flight_ == 0) {
            resetting_ = false;
            ++in_flight_;
            EXPECT_TRUE(initiator_.send(initiator_.task_management(1, 0, 0x08, 0)));
        }
        if (!finishing_ && commands_left_ == 0 && in_flight_ == 0) {
            finishing_ = true;
            initiator_.disconnect();
            portal_->close();
        }
        if (finishing_ && portal_->is_closed() && initiator_.gone) reactor_.stop();
        return true;
    }
    void submit() {
        --commands_left_;
        if (index_ == 0 && commands_left_ % 100 == 50) {
            resetting_ = true;  // as soon as its own commands, which would vanish, are answered
            return;
        }
        const std::uint64_t tag = next_tag_++;
        const auto lba = static_cast<std::uint32_t>(16 * index_ + tag % depth);
        std::fill_n(initiator_.out().begin() + static_cast<std::ptrdiff_t>(512 * (tag % depth)), 512,
                    static_cast<std::byte>(index_ + 1));
        const std::size_t offset = 512 * (tag % depth);
        const bool is_write = random_.chance(1, 2);
        EXPECT_TRUE(initiator_.send(initiator_.command(tag, 0, cdb_10(is_write ? 0x2a : 0x28, lba, 1),
                                                       is_write ? TestInitiator::Data::out : TestInitiator::Data::in,
                                                       {{offset, 512}})));
        ++in_flight_;
    }
    void on_response(const Rsp& rsp) {
        --in_flight_;
        if (rsp.status == 0x40) {
            ++aborted;
        } else if (rsp.status == 0x02) {
            attentions += rsp.key == 6;
            wrong += rsp.key != 6;
        } else {
            ++good;
            const std::byte found = initiator_.in()[512 * (rsp.tag % depth)];
            wrong += found != std::byte{0} && found != static_cast<std::byte>(index_ + 1);
        }
    }
    bool prepare_to_sleep() override { return fabric_->arm(); }

    const unsigned index_;
    unsigned commands_left_, in_flight_ = 0;
    Random random_;
    reactor::Reactor reactor_;
    std::unique_ptr<fabric::LoopbackFabric> fabric_;
    std::unique_ptr<Portal> portal_;
    TestInitiator initiator_;
    std::uint64_t next_tag_ = 0x1000;
    bool resetting_ = false, finishing_ = false;
};

TEST(PortalThreads, ShareOneDeviceSafely) {
    auto device = Device::create({}, *parse_lun_list("ram:1M,wce")).value().release();
    const std::unique_ptr<Device> owner(device);
    std::vector<std::unique_ptr<Station>> stations;
    for (unsigned i = 0; i < 4; ++i) stations.push_back(std::make_unique<Station>(*device, i, 2000));
    std::vector<std::thread> threads;
    for (auto& station : stations) threads.emplace_back([&station] { station->run(); });
    for (int i = 0; i < 20; ++i) {
        EXPECT_TRUE(device->add_lun(7, parse_lun_list("null:1M").value()[0]));
        EXPECT_TRUE(device->remove_lun(7));
        (void)device->counters();
        (void)device->channels();
    }
    for (auto& thread : threads) thread.join();

    for (const auto& station : stations) {
        EXPECT_EQ(station->wrong, 0u);
        EXPECT_GT(station->good, 0u);
    }
    EXPECT_GT(stations[0]->attentions, 0u);  // its own resets
    EXPECT_EQ(device->channels().size(), 0u);
    EXPECT_EQ(device->counters().task_managements, 20u);
}

}  // namespace
}  // namespace srpfs::target
