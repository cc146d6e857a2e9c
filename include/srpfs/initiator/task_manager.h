// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Task management for one target on one reactor: LUN RESETs that somebody asks for, and what follows when a command is
// not answered in time: ABORT TASK on its own channel, LUN RESET, the end of the connection (srp-admin 5). One function
// is under way at a time (decisions 4). docs/recovery.md has the table.

#pragma once

#include <srpfs/initiator/channel.h>

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace srpfs::initiator {

// How long the answer to a task management function may take. The kernel's values.
struct TaskLimits {
    Duration abort_time = std::chrono::seconds(5);  // ABORT TASK
    Duration reset_time = std::chrono::seconds(5);  // LUN RESET
};

// What task management needs of the link. Its calls come on the link's reactor.
class TaskManagerHost {
public:
    // All channels that are not gone, dead ones included.
    [[nodiscard]] virtual const std::vector<std::unique_ptr<Channel>>& task_channels() const = 0;
    // Live channels in use, and the port runs.
    [[nodiscard]] virtual const std::vector<Channel*>& reset_channels() const = 0;
    // A LUN RESET has been sent: everything that was lost before is covered by it if it succeeds.
    virtual void on_reset_sent(const scsi::Lun& lun) = 0;
    // It is over; commands for the unit may be sent again.
    virtual void on_reset_over(const scsi::Lun& lun, bool succeeded) = 0;

protected:
    ~TaskManagerHost() = default;
};

class TaskManager final {
public:
    TaskManager(const std::string& name, const TaskLimits& limits, TaskManagerHost& host)
        : name_(name), limits_(limits), host_(host) {}

    // See TargetLink::reset_unit().
    void reset_unit(const scsi::Lun& lun, std::function<void(Result<void>)> on_done);
    [[nodiscard]] bool is_resetting(const scsi::Lun& lun) const { return stage_ == Stage::reset && lun == lun_; }
    // Some commands have reached their time limit.
    void on_expired() { next(); }

private:
    enum class Stage : std::uint8_t { idle, abort, reset };

    void next();
    void begin_reset();
    void abort(Channel& channel, const Command& command);
    void finish_abort(std::optional<srp::TaskCode> code);
    // Error: nothing was sent.
    Result<void> start_reset(const scsi::Lun& lun, Channel* preferred);
    void finish_reset(std::optional<srp::TaskCode> code);
    void escalate(const scsi::Lun& lun, Channel* preferred);
    void break_connections(const scsi::Lun& lun, const std::string& why);

    const std::string& name_;
    TaskLimits limits_;
    TaskManagerHost& host_;
    Stage stage_ = Stage::idle;
    bool starting_ = false;
    TaskRequest request_;
    scsi::Lun lun_{};             // of the function under way
    Channel* carrier_ = nullptr;  // what it was sent on; it answers before it ends
    srp::Tag managed_tag_ = 0;
    std::vector<std::function<void(Result<void>)>> on_done_;  // who asked for the reset; empty: a time-out did
    struct Wanted {
        scsi::Lun lun;
        std::vector<std::function<void(Result<void>)>> on_done;
    };
    std::deque<Wanted> queue_;  // LUN RESETs that wait for their turn
};

}  // namespace srpfs::initiator
