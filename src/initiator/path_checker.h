// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Finds out that the peer of a channel has fallen silent: nothing in SRP would tell (srp-admin 6, decisions 28).
//
// A channel that has heard nothing for the interval, busy or idle, is asked with a TEST UNIT READY; if nothing at all
// has been heard of the target when the time-out is over, the channel is ended. Whatever arrives is a sign of life, and
// whatever the answer says is an answer. The questions of all channels are asked on whole seconds, so that an idle
// program is woken once a second at most; a channel is therefore asked up to a second before its interval is over.
//
// One for each channel, on its reactor; owned by the TargetLink. Outlives the command it has in flight: destroy it when
// the channel is gone.

#pragma once

#include <srpfs/initiator/channel.h>
#include <srpfs/initiator/command.h>
#include <srpfs/reactor/timer_queue.h>

namespace srpfs::initiator {

class PathCheckerHost {
public:
    // False: commands to this unit have to wait now.
    [[nodiscard]] virtual bool may_ask(const scsi::Lun& lun) const = 0;
    // A unit attention came with an answer. The target tells each once, so it has to reach the unit it is about.
    virtual void on_path_attention(const scsi::Lun& lun, const scsi::Sense& sense) = 0;
    // After ask_now(): the target has been heard of since.
    virtual void on_path_alive(Channel& channel) = 0;

protected:
    ~PathCheckerHost() = default;
};

class PathChecker final : private CommandOwner {
public:
    PathChecker(Channel& channel, reactor::TimerQueue& timers, const PathLimits& limits, PathCheckerHost& host);
    ~PathChecker();
    PathChecker(const PathChecker&) = delete;
    PathChecker& operator=(const PathChecker&) = delete;

    [[nodiscard]] const Channel& channel() const { return channel_; }
    // The channel is live: begins to watch it.
    void start();
    // The channel has ended.
    void stop();
    // The local port is down: silence says nothing about the target. Until ask_now().
    void pause();
    // Asks at once, even if it is not to watch otherwise. on_path_alive() follows with the first sign of life; without
    // one within `patience` the channel is ended.
    void ask_now(Duration patience);

private:
    void on_command_done(Command& command) override;
    void on_timer();
    void ask();
    void watch();
    void judge();
    void alive();

    Channel& channel_;
    reactor::TimerQueue& timers_;
    PathCheckerHost& host_;
    const PathLimits limits_;
    bool watching_ = false;
    bool paused_ = false;
    bool urgent_ = false;     // ask_now() is to be answered
    bool asked_ = false;      // since asked_at_ a question is open
    bool in_flight_ = false;  // command_ is the channel's; it may be an old question, answered by other signs of life
    Instant asked_at_{};
    Duration patience_{};
    Instant urgent_since_{};
    Command command_;
    reactor::Timer timer_;
};

}  // namespace srpfs::initiator
