// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// For tests only: makes units of the embedded target stuck, as a broken disk would be, for as long as a file exists.

#pragma once

#include <srpfs/reactor/executor.h>
#include <srpfs/reactor/timer_queue.h>
#include <srpfs/target/behaviour.h>
#include <srpfs/target/device.h>

#include <atomic>
#include <memory>
#include <string>

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

}  // namespace srpfs::daemon
