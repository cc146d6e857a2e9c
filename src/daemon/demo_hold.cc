// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "demo_hold.h"

#include <srpfs/base/log.h>
#include <srpfs/base/random.h>

#include <cstdlib>
#include <fstream>
#include <utility>

#include <unistd.h>

namespace srpfs::daemon {
namespace {

constexpr auto look_interval = std::chrono::milliseconds(10);

bool touches_the_medium(std::byte opcode) {
    switch (static_cast<std::uint8_t>(opcode)) {
        case 0x28:  // READ(10)
        case 0x88:  // READ(16)
        case 0x2a:  // WRITE(10)
        case 0x8a:  // WRITE(16)
        case 0x35:  // SYNCHRONIZE CACHE(10)
        case 0x91:  // SYNCHRONIZE CACHE(16)
            return true;
        default: return false;
    }
}

}  // namespace

std::unique_ptr<DemoHold> DemoHold::from_environment(target::Device& device, reactor::Executor& control) {
    const char* path = std::getenv("SRPFS_DEMO_HOLD");
    if (!path || path[0] != '/') return nullptr;
    log::warning({}, "SRPFS_DEMO_HOLD is set: the embedded target does not answer while {} exists", path);
    return std::make_unique<DemoHold>(path, device, control);
}

DemoHold::DemoHold(std::string path, target::Device& device, reactor::Executor& control)
    : path_(std::move(path)), device_(device), timer_(control.timers(), [this] { look(); }) {
    device_.set_behaviour(this);
    timer_.arm_after(look_interval);
}

target::CommandPlan DemoHold::on_command(const target::CommandView& command) {
    target::CommandPlan plan;
    plan.hold = touches_the_medium(command.cdb[0]) && holds(command.lun);
    if (plan.hold) holding_ = true;
    return plan;
}

bool DemoHold::holds(const scsi::Lun& lun) const {
    std::ifstream file(path_);
    if (!file) return false;
    std::string name;
    file >> name;
    return name.empty() || name == lun.file_name();
}

void DemoHold::look() {
    timer_.arm_after(look_interval);
    if (holding_ && access(path_.c_str(), F_OK) != 0 && holding_.exchange(false)) device_.release_held();
}

// ---- a black hole ----

class DemoBlackHole::Injector final : public fabric::FaultInjector {
public:
    explicit Injector(const std::atomic<bool>& is_there) : is_there_(is_there) {}
    bool loses(Direction) override { return is_there_ && listener == address; }
    bool swallows_connect() override { return is_there_ && listener == address; }

private:
    const std::atomic<bool>& is_there_;
};

std::unique_ptr<DemoBlackHole> DemoBlackHole::from_environment(reactor::Executor& control) {
    const char* path = std::getenv("SRPFS_DEMO_BLACK_HOLE");
    if (!path || path[0] != '/') return nullptr;
    log::warning({}, "SRPFS_DEMO_BLACK_HOLE is set: nothing reaches the embedded target as {} while {} exists", address,
                 path);
    return std::make_unique<DemoBlackHole>(path, control);
}

DemoBlackHole::DemoBlackHole(std::string path, reactor::Executor& control)
    : path_(std::move(path)), timer_(control.timers(), [this] { look(); }) {
    look();
}

void DemoBlackHole::look() {
    timer_.arm_after(look_interval);
    const bool is_there = access(path_.c_str(), F_OK) == 0;
    if (is_there_.exchange(is_there) || !is_there) return;
    // Whoever made the file waits for this.
    std::ofstream(path_, std::ios::in) << "in effect\n";
}

DemoBlackHole::~DemoBlackHole() = default;

// ---- a power cut ----

std::unique_ptr<DemoPowerCut> DemoPowerCut::from_environment(reactor::Executor& control) {
    const char* path = std::getenv("SRPFS_DEMO_POWER_CUT");
    if (!path || path[0] != '/') return nullptr;
    log::warning({}, "SRPFS_DEMO_POWER_CUT is set: the embedded target has no power while {} exists", path);
    return std::make_unique<DemoPowerCut>(path, control);
}

DemoPowerCut::DemoPowerCut(std::string path, reactor::Executor& control)
    : path_(std::move(path)), control_(control), timer_(control.timers(), [this] { look(); }) {}

void DemoPowerCut::watch(target::Device& device, reactor::Executor& reactor) {
    device_ = &device;
    reactor_ = &reactor;
    look();
}

void DemoPowerCut::look() {
    timer_.arm_after(look_interval);
    std::ifstream file(path_);
    if (!file) {
        if (std::exchange(is_cut_, false)) reactor_->post([device = device_] { device->restart(); });
        return;
    }
    if (std::exchange(is_cut_, true)) return;
    std::uint64_t seed = 0;
    const bool loses_all = !(file >> seed);
    reactor_->post([this, weak = std::weak_ptr(alive_), control = &control_, device = device_, loses_all, seed] {
        Random random(seed);
        device->crash([&](unsigned, std::uint64_t) { return loses_all || random.below(2) == 0; });
        control->post([this, weak] {
            // Whoever made the file waits for this.
            if (!weak.expired()) std::ofstream(path_, std::ios::in) << "in effect\n";
        });
    });
}

fabric::FaultInjector& DemoBlackHole::injector() {
    return *injectors_.emplace_back(std::make_unique<Injector>(is_there_));
}

}  // namespace srpfs::daemon
