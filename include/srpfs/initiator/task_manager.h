// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Task management for one target on one reactor: LUN RESETs that somebody asks for, and what follows when a command is
// not answered in time: ABORT TASK on its own channel, LUN RESET, the end of the connection (srp-admin 5). One function
// is under way at a time (decisions 4). docs/recovery.md has the table.

#pragma once

#include <srpfs/initiator/channel.h>
#include <srpfs/reactor/timer_queue.h>

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
    TaskManager(const std::string& name, const TaskLimits& limits, reactor::TimerQueue& timers, TaskManagerHost& host)
        : name_(name), limits_(limits), timers_(timers), host_(host), retry_timer_(timers, [this] { next(); }) {}

    // See TargetLink::reset_unit().
    void reset_unit(const scsi::Lun& lun, std::function<void(Result<void>)> on_done);
    [[nodiscard]] bool is_resetting(const scsi::Lun& lun) const {
        return stage_ == Stage::reset && lun.is_same_unit_as(reset_.lun);
    }
    // Some commands have reached their time limit.
    void on_expired() { next(); }

private:
    enum class Stage : std::uint8_t { idle, abort, reset };

    // A LUN RESET that is to be sent.
    struct Wanted {
        scsi::Lun lun;
        std::vector<std::function<void(Result<void>)>> on_done;  // who asked for it
        bool overdue;        // commands that ABORT TASK did not end need it: if it fails the connections end
        Instant until;       // when to give up sending it
        Channel* preferred;  // where it is sent if it can be; only compared
    };

    void next();
    // False: it has to wait at the head of the queue.
    bool begin_reset();
    void abort(Channel& channel, const Command& command);
    void finish_abort(std::optional<srp::TaskCode> code);
    bool start_reset(const Wanted& wanted);
    void finish_reset(std::optional<srp::TaskCode> code);
    void escalate(const scsi::Lun& lun, Channel* preferred);
    void end(const Wanted& wanted, const Result<void>& done);
    void break_connections(const scsi::Lun& lun, const std::string& why);

    const std::string& name_;
    TaskLimits limits_;
    reactor::TimerQueue& timers_;
    TaskManagerHost& host_;
    Stage stage_ = Stage::idle;
    bool starting_ = false;
    TaskRequest request_;
    Channel* carrier_ = nullptr;  // what the function under way was sent on; it answers before it ends
    srp::Tag managed_tag_ = 0;    // of the ABORT TASK under way
    Wanted reset_{};              // the LUN RESET under way
    std::deque<Wanted> queue_;    // those that wait for their turn
    reactor::Timer retry_timer_;  // the one at the head could not be sent
};

}  // namespace srpfs::initiator
