// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A TargetPort and the embedded target on one loopback network, one thread, time by hand: for what happens to the way
// between the two.

#pragma once

#include "manual_executor.h"

#include <srpfs/fabric/loopback.h>
#include <srpfs/initiator/target_port.h>
#include <srpfs/target/device.h>
#include <srpfs/target/portal.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace srpfs::initiator {

using namespace std::chrono_literals;

// A network whose directions can fall silent, for connections that exist and for those to come.
class Silencer final : public fabric::FaultInjector {
public:
    bool to_target = false, to_us = false;
    bool swallows_logins = false;

private:
    bool loses(Direction direction) override { return direction == Direction::to_listener ? to_target : to_us; }
    bool swallows_connect() override { return swallows_logins; }
};

// A target that keeps reads and writes until it is told to go on, or forgets to answer them.
class Holder final : public target::Behaviour {
public:
    bool holds = false;
    unsigned logins_max = 0;             // channels granted; 0: all
    target::ChannelId held_channel = 0;  // 0: all
    bool refuses_aborts = false;
    target::ChannelId mute_channel = 0;    // whose responses to commands get lost
    std::optional<Duration> overtaken_by;  // see target::TaskManagementPlan

private:
    void on_response(const target::CommandView& command, target::ResponsePlan& plan) override {
        plan.lost = mute_channel != 0 && command.channel == mute_channel;
    }
    target::TaskManagementPlan on_task_management(target::ChannelId, const srp::TaskManagement& request) override {
        target::TaskManagementPlan plan;
        plan.overtaken_by = overtaken_by;
        if (refuses_aborts && request.function == srp::TaskFunction::abort_task) plan.code = srp::TaskCode::failed;
        return plan;
    }
    target::CommandPlan on_command(const target::CommandView& command) override {
        target::CommandPlan plan;
        const bool is_question = command.cdb[0] == std::byte{0};  // TEST UNIT READY
        plan.hold = holds && !is_question && (held_channel == 0 || held_channel == command.channel);
        return plan;
    }
    std::optional<srp::RejectReason> on_login(const srp::LoginRequest&, unsigned channels) override {
        if (logins_max == 0 || channels < logins_max) return std::nullopt;
        return srp::RejectReason::channel_limit;
    }
};

struct Transition {
    PortState to{};
    Instant at{};
    std::string why;
};

class PathTest : public testing::Test, protected TargetPortListener, private LinkListener, private CommandOwner {
protected:
    ~PathTest() override { shut_down(); }

    // Makes everything and logs in.
    void build(const std::function<void(TargetPortConfig&)>& change = nullptr,
               const std::string& luns = "ram:16M,wce") {
        fabric_ = fabric::make_loopback_fabric(executor_.timers(), fabric::demo_port(), &silencer_, registration_);
        auto parsed = target::parse_lun_list(luns);
        ASSERT_TRUE(parsed);
        auto device = target::Device::create({}, *parsed);
        ASSERT_TRUE(device);
        device_ = std::move(*device);
        device_->set_behaviour(&holder_);
        auto portal = target::make_portal(*device_, executor_, *fabric_, fabric::LoopbackAddress{"demo"});
        ASSERT_TRUE(portal);
        portal_ = std::move(*portal);
        reads_ = *fabric_->register_memory(read_memory_, fabric::RemoteAccess::write);
        writes_ = *fabric_->register_memory(write_memory_, fabric::RemoteAccess::read);

        TargetPortConfig config;
        config.name = "demo";
        config.address = fabric::LoopbackAddress{"demo"};
        config.parameters.id_ext = config.parameters.ioc_guid = 1;
        config.parameters.dest = srp::IpDestination{"demo", 0};
        config.parameters.ch_count = 1;
        if (change) change(config);
        TargetPortListener& listener = *this;
        port_ = TargetPort::create(config, executor_, {ReactorDoor{&executor_, fabric_.get()}}, listener);
        link().attach(*this);
        attached_ = true;
        bool done = false;
        port_->login([&](const Result<PortFacts>& facts) { done = facts.has_value(); });
        settle();
        ASSERT_TRUE(done);
        ASSERT_EQ(port_->state(), PortState::running);
        transitions_.clear();
        logins_ = 0;
    }
    void shut_down() {
        if (!fabric_) return;
        silencer_.to_target = silencer_.to_us = silencer_.swallows_logins = false;
        holder_.holds = false;
        if (device_) device_->release_held();
        fabric_->link_up();
        if (port_) {
            port_->close("the end");
            advance(5s);
            if (std::exchange(attached_, false)) link().detach(*this);
            EXPECT_TRUE(closed_);
            port_.reset();
        }
        if (portal_) {
            portal_->close();
            for (int i = 0; i < 60 && !portal_->is_closed(); ++i) advance(1s);
            EXPECT_TRUE(portal_->is_closed());
        }
        settle();
        portal_.reset();
        EXPECT_EQ(fabric_->connections(), 0U);
        device_.reset();
        fabric_.reset();
    }

    // ---- time ----
    [[nodiscard]] Instant now() { return executor_.timers().now(); }
    // All that happens without time passing.
    void settle() {
        for (;;) {
            executor_.timers().advance_to(now());
            const bool had_mail = executor_.run();
            const unsigned events = fabric_->poll(64);
            fabric_->flush();
            const bool is_idle = !had_mail && events == 0 && fabric_->arm();
            if (is_idle && executor_.timers().next_deadline() > now()) return;
        }
    }
    // Stops at each instant at which a timer is due.
    void advance(Duration duration) {
        settle();
        const Instant end = now() + duration;
        while (now() < end) {
            const Instant next = std::min(end, executor_.timers().next_deadline());
            if (executor_.timers().next_deadline() <= end) wakeups_.insert(next);
            executor_.timers().advance_to(next);
            settle();
        }
    }
    // Until the condition holds; how long that took, or nothing if `limit` has passed.
    template <typename Condition>
    std::optional<Duration> until(const Condition& condition, Duration limit) {
        const Instant begin = now();
        settle();
        while (!condition()) {
            const Instant next = std::min(begin + limit, executor_.timers().next_deadline());
            if (now() >= begin + limit) return std::nullopt;
            executor_.timers().advance_to(std::max(next, now()));
            settle();
        }
        return now() - begin;
    }

    // ---- commands ----
    Command& read(std::uint32_t lba = 0) {
        Command& command = make();
        command.cdb = scsi::read(lba, 1, scsi::ForceUnitAccess::no);
        command.direction = srp::DataDirection::from_target;
        command.region = reads_;
        command.data = std::span(read_memory_).first(512);
        return command;
    }
    Command& write(std::uint32_t lba, std::uint32_t blocks) {
        Command& command = make();
        command.cdb = scsi::write(lba, blocks, scsi::ForceUnitAccess::no);
        command.direction = srp::DataDirection::to_target;
        command.region = writes_;
        command.data = std::span(write_memory_).first(std::size_t{512} * blocks);
        return command;
    }
    Command& start_read(std::uint32_t lba = 0) {
        Command& command = read(lba);
        EXPECT_EQ(link().submit(command), Submitted::sent);
        settle();
        return command;
    }
    [[nodiscard]] bool is_done(const Command& command) const {
        return std::find(done_.begin(), done_.end(), &command) != done_.end();
    }
    [[nodiscard]] bool is_good(const Command& command) const {
        return is_done(command) && command.result.end == CommandEnd::answered &&
               command.result.status == scsi::Status::good;
    }

    // ---- what can be seen ----
    TargetLink& link() { return port_->link(0); }
    [[nodiscard]] std::uint64_t questions() const { return device_->counters().commands[0]; }
    [[nodiscard]] std::uint64_t target_logins() const { return device_->counters().logins; }
    [[nodiscard]] unsigned live_channels() {
        unsigned live = 0;
        for (const auto& channel : link().report()) live += channel.state == ChannelState::live ? 1 : 0;
        return live;
    }
    [[nodiscard]] PortState state() const { return port_->state(); }

    fabric::Registration registration_ = fabric::Registration::pool;
    std::function<void(const Command&)> when_done_;
    test::ManualExecutor executor_;
    Silencer silencer_;
    Holder holder_;
    std::unique_ptr<fabric::LoopbackFabric> fabric_;
    std::unique_ptr<target::Device> device_;
    std::unique_ptr<target::Portal> portal_;
    std::shared_ptr<TargetPort> port_;
    std::vector<Transition> transitions_;  // since the first login
    unsigned logins_ = 0;                  // on_port_login() calls since then
    std::vector<bool> losses_were_own_;    // at each of those
    std::vector<scsi::Sense> attentions_;
    std::set<Instant> wakeups_;
    bool closed_ = false;

private:
    Command& make() {
        commands_.push_back(std::make_unique<Command>());
        commands_.back()->owner = this;
        return *commands_.back();
    }
    void on_port_state(TargetPort&, PortState, PortState to, const std::string& why) override {
        transitions_.push_back({to, now(), why});
    }
    void on_port_login(TargetPort& port, bool) override {
        ++logins_;
        losses_were_own_.push_back(port.loss_was_own());
    }
    void on_port_closed(TargetPort&) override { closed_ = true; }
    void on_link_ready() override {}
    void on_link_state(PortState) override {}
    void on_link_event(const scsi::Lun&, const scsi::Sense& sense) override { attentions_.push_back(sense); }
    void on_channel_lost(const Channel&) override {}
    void on_reset_sent(const scsi::Lun&) override {}
    void on_reset_over(const scsi::Lun&, bool) override {}
    void on_command_done(Command& command) override {
        done_.push_back(&command);
        if (when_done_) when_done_(command);
    }

    std::vector<std::byte> read_memory_{65536}, write_memory_{65536};
    fabric::RegionId reads_{}, writes_{};
    std::vector<std::unique_ptr<Command>> commands_;
    std::vector<const Command*> done_;
    bool attached_ = false;
};

}  // namespace srpfs::initiator
