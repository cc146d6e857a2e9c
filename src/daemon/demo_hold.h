// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// For tests only: makes units of the embedded target stuck, as a broken disk would be, the way to it a black hole, or
// cuts its power, for as long as a file exists.

#pragma once

#include <srpfs/fabric/loopback.h>
#include <srpfs/reactor/executor.h>
#include <srpfs/reactor/timer_queue.h>
#include <srpfs/target/behaviour.h>
#include <srpfs/target/device.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

namespace srpfs::daemon {

// While the file exists, READ, WRITE and SYNCHRONIZE CACHE stay unanswered: of all units if it is empty, else of the
// one it names ("lun0"). When it is removed everything goes on. Answers to other commands are not delayed.
class DemoHold final : public target::Behaviour {
public:
    // The file of the environment variable SRPFS_DEMO_HOLD; nullptr when that is not set. Control thread. Both outlive
    // the object, and the device's portals end before it does.
    static std::unique_ptr<DemoHold> from_environment(target::Device& device, reactor::Executor& control);

    DemoHold(std::string path, target::Device& device, reactor::Executor& control);

    target::CommandPlan on_command(const target::CommandView& command) override;

private:
    [[nodiscard]] bool holds(const scsi::Lun& lun) const;
    void look();

    const std::string path_;
    target::Device& device_;
    std::atomic<bool> holding_{false};  // since the last release
    reactor::Timer timer_;
};

// The embedded target has a second address, "demo2", and while the file exists everything that is sent there or comes
// from there vanishes: connections stay silent for ever, attempts to connect get no answer. Once it is in effect the
// file says so.
class DemoBlackHole final {
public:
    static constexpr const char* address = "demo2";
    // The file of the environment variable SRPFS_DEMO_BLACK_HOLE; nullptr when that is not set. Control thread.
    static std::unique_ptr<DemoBlackHole> from_environment(reactor::Executor& control);

    DemoBlackHole(std::string path, reactor::Executor& control);
    ~DemoBlackHole();
    // Of one more network, which the object outlives.
    fabric::FaultInjector& injector();

private:
    class Injector;
    void look();

    const std::string path_;
    std::atomic<bool> is_there_{false};
    std::vector<std::unique_ptr<Injector>> injectors_;
    reactor::Timer timer_;
};

// While the file exists the embedded target has no power: connections end, nobody listens, and of what units with a
// volatile cache (ram, wce) had acknowledged and not made durable all is lost if the file is empty, else, if it has a
// number, half of the blocks, drawn with that as seed. Once that is so the file says so.
class DemoPowerCut final {
public:
    // The file of the environment variable SRPFS_DEMO_POWER_CUT; nullptr when that is not set. Control thread.
    static std::unique_ptr<DemoPowerCut> from_environment(reactor::Executor& control);

    DemoPowerCut(std::string path, reactor::Executor& control);
    // Before power is cut. `reactor` is where the portal of `device` works: no command is half-way done at that
    // moment. Both outlive what is posted there.
    void watch(target::Device& device, reactor::Executor& reactor);

private:
    void look();

    const std::string path_;
    reactor::Executor& control_;
    target::Device* device_ = nullptr;
    reactor::Executor* reactor_ = nullptr;
    bool is_cut_ = false;
    const std::shared_ptr<int> alive_ = std::make_shared<int>();
    reactor::Timer timer_;
};

}  // namespace srpfs::daemon
