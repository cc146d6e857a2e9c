// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A logical unit of the embedded target, logged in to over the loopback fabric, on one thread with a clock of its own.

#pragma once

#include "manual_executor.h"

#include <srpfs/base/random.h>
#include <srpfs/fabric/loopback.h>
#include <srpfs/initiator/target_link.h>
#include <srpfs/lun/engine.h>
#include <srpfs/lun/probe.h>
#include <srpfs/lun/unit.h>
#include <srpfs/target/device.h>
#include <srpfs/target/portal.h>

#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace srpfs::fs::test {

// How much the world has of everything; small, unless a test says otherwise.
struct WorldSizes {
    lun::EngineLimits engine = small_engine();
    target::StagingConfig staging{.buffers_16k = 4, .buffers_128k = 4, .buffers_1m = 1, .buffers_8m = 1};
    unsigned queue_depth = 32;
    fabric::Registration registration = fabric::Registration::pool;

private:
    static lun::EngineLimits small_engine() {
        lun::EngineLimits limits;
        limits.intake_buffers = 8;
        limits.read_buffers_4k = limits.read_buffers_64k = 8;
        limits.read_buffers_1m = 4;
        limits.edge_buffers = 4;
        limits.park_bytes_max = 4 << 20;
        return limits;
    }
};

class World final : private initiator::LinkOwner, private lun::UnitListener, private lun::ProbeListener {
public:
    explicit World(const target::LunConfig& lun) : World(std::vector<target::LunConfig>{lun}) {}
    explicit World(const std::vector<target::LunConfig>& luns, unsigned entries = 0)
        : World(luns, with_entries(entries)) {}
    World(const std::vector<target::LunConfig>& luns, const WorldSizes& sizes)
        : fabric_(fabric::make_loopback_fabric(executor_.timers(), fabric::demo_port(), nullptr, sizes.registration)) {
        target::DeviceConfig config;
        device_ = std::move(*target::Device::create(config, luns));
        const fabric::Address address = fabric::LoopbackAddress{"demo"};
        portal_ = std::move(*target::make_portal(*device_, executor_, *fabric_, address, sizes.staging));
        engine_ = std::move(*lun::Engine::create(sizes.engine, {fabric_.get()}, executor_, random_));
        link_ = std::make_unique<initiator::TargetLink>("demo", *fabric_, executor_.timers(),
                                                        static_cast<initiator::LinkOwner&>(*this));
        initiator::ChannelConfig channel;
        channel.name = "demo/ch0";
        channel.address = address;
        channel.parameters.id_ext = channel.parameters.ioc_guid = 1;
        channel.parameters.dest = srp::IpDestination{"demo", 0};
        link_->open_channel(channel);
        run_until([this] { return live_; });
        link_->set_state(initiator::PortState::running);
        const auto ask = [this](auto start) {
            probed_ = false;
            start(static_cast<lun::ProbeListener&>(*this));
            run_until([&] { return probed_; });
        };
        ask([this](lun::ProbeListener& listener) {
            lun::ask_for_list(*engine_, *link_, std::chrono::seconds(10), listener);
        });
        for (const scsi::Lun& lun : listed_)
            ask([&](lun::ProbeListener& listener) {
                lun::look_at(*engine_, *link_, lun, std::chrono::seconds(10), listener);
            });
        for (const auto& unit : found_) {
            if (!unit.info) continue;
            units_.push_back(std::make_unique<lun::Unit>(*engine_, *link_, unit.lun, sizes.queue_depth,
                                                         static_cast<lun::UnitListener&>(*this)));
            units_.back()->resume(unit.info);
        }
        if (units_.size() != luns.size()) throw std::runtime_error("the scan has not found all units");
    }
    ~World() {
        device_->release_held();
        for (const auto& unit : units_) unit->remove();
        run_until([this] {
            for (const auto& unit : units_)
                if (!unit->is_idle()) return false;
            return true;
        });
        link_->set_state(initiator::PortState::lost);
        link_->close_channels("the test is over");
        run_until([this] { return link_->is_empty(); });
        units_.clear();
        link_.reset();
        engine_.reset();
        portal_->close();
        run_until([this] { return portal_->is_closed(); });
        portal_.reset();
    }

    // One turn; `source` is what the caller has to poll.
    bool turn() {
        executor_.timers().advance_to(now_);
        bool worked = executor_.run();
        worked = fabric_->poll(32) > 0 || worked;
        if (source) worked = source() || worked;
        fabric_->flush();
        return worked;
    }
    // Turns, and a millisecond whenever nothing happens; gives up after a minute of test time.
    template <typename Condition>
    void run_until(Condition condition) {
        const Instant end = now_ + std::chrono::minutes(1);
        while (!condition()) {
            if (turn()) continue;
            now_ += std::chrono::milliseconds(1);
            if (now_ > end) throw std::runtime_error("nothing happened for a minute");
        }
    }
    void settle() {
        while (turn()) {
        }
    }
    void advance(Duration time) {
        const Instant end = now_ + time;
        settle();
        while (now_ < end) {
            now_ += std::chrono::milliseconds(1);
            settle();
        }
    }

    void block() { link_->set_state(initiator::PortState::blocked); }
    // As after a new login: the units have been probed again and are what they were.
    void unblock() {
        link_->set_state(initiator::PortState::running);
        for (const auto& unit : units_) found_again(*unit);
    }

    srpfs::test::ManualExecutor& executor() { return executor_; }
    lun::Engine& engine() { return *engine_; }
    lun::Unit& unit(std::size_t index = 0) { return *units_.at(index); }
    initiator::TargetLink& link() { return *link_; }
    target::Device& device() { return *device_; }

    std::function<bool()> source;

private:
    static WorldSizes with_entries(unsigned entries) {
        WorldSizes sizes;
        sizes.engine.entries = entries;
        return sizes;
    }
    void on_channel_live(unsigned, std::uint64_t, const initiator::ChannelFacts&) override { live_ = true; }
    void on_channel_ended(unsigned, std::uint64_t, const initiator::ChannelEnd&) override {}
    void on_link_empty() override {}
    void on_list(std::vector<scsi::Lun> luns, std::uint64_t) override { listed_ = std::move(luns); }
    void on_unit(lun::UnitReport report) override { found_.push_back(std::move(report)); }
    void on_probe_end(Result<void>) override { probed_ = true; }
    void on_probe_gone() override {}
    void on_attention(lun::Unit& unit, const scsi::Sense&, bool) override {
        executor_.post([this, &unit] { found_again(unit); });
    }
    void found_again(lun::Unit& unit) {
        auto info = std::make_shared<lun::UnitInfo>(*unit.info());
        info->probed_at = engine_->next_stamp();
        unit.resume(std::move(info));
    }
    void on_fence_needed(lun::Unit&) override {}
    void on_reset(lun::Unit&) override {}
    void on_failure(lun::Unit&, const lun::Operation&) override {}

    Instant now_{};
    srpfs::test::ManualExecutor executor_;
    Random random_{1};
    std::unique_ptr<fabric::LoopbackFabric> fabric_;
    std::unique_ptr<target::Device> device_;
    std::unique_ptr<target::Portal> portal_;
    std::unique_ptr<lun::Engine> engine_;
    std::unique_ptr<initiator::TargetLink> link_;
    std::vector<std::unique_ptr<lun::Unit>> units_;
    std::vector<lun::UnitReport> found_;
    std::vector<scsi::Lun> listed_;
    bool probed_ = false;
    bool live_ = false;
};

}  // namespace srpfs::fs::test
