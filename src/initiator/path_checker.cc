// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "path_checker.h"

#include <srpfs/base/assert.h>

#include <fmt/format.h>

#include <algorithm>

namespace srpfs::initiator {
namespace {

constexpr auto grid = std::chrono::seconds(1);
// How often one tries again to ask when there is no credit for it, if somebody waits for the answer.
constexpr auto urgent_retry = std::chrono::milliseconds(50);

Instant on_grid(Instant when) { return when - (when - Instant{}) % Duration(grid); }

double in_seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

PathChecker::PathChecker(Channel& channel, reactor::TimerQueue& timers, const PathLimits& limits, PathCheckerHost& host)
    : channel_(channel), timers_(timers), host_(host), limits_(limits), timer_(timers, [this] { on_timer(); }) {}

PathChecker::~PathChecker() { SRPFS_ASSERT(!in_flight_); }

void PathChecker::start() {
    watching_ = true;
    watch();
}

void PathChecker::stop() {
    watching_ = urgent_ = asked_ = false;
    timer_.disarm();
}

void PathChecker::pause() {
    paused_ = true;
    urgent_ = asked_ = false;
    timer_.disarm();
}

void PathChecker::ask_now(Duration patience) {
    paused_ = false;
    if (!watching_) return;
    urgent_ = true;
    urgent_since_ = timers_.now();
    patience_ = patience;
    // A question that is under way may have been lost, or be answered now: both are as good as a new one.
    asked_ = in_flight_;
    asked_at_ = timers_.now();
    ask();
}

// The next time to look at a channel that need not be asked yet.
void PathChecker::watch() {
    if (!limits_.interval || paused_) return;
    const Instant due = saturating_add(channel_.last_heard(), *limits_.interval);
    timer_.arm_at(*limits_.interval > grid ? on_grid(due) : due);
}

void PathChecker::ask() {
    const Instant now = timers_.now();
    if (!asked_ && !in_flight_ && host_.may_ask(command_.lun)) {
        command_.owner = this;
        command_.cdb = scsi::test_unit_ready();
        command_.checks_path = true;
        if (channel_.submit(command_)) {
            in_flight_ = asked_ = true;
            asked_at_ = now;
        }
    }
    if (!asked_ && in_flight_) {  // an old question is still open, and silence has begun again
        asked_ = true;
        asked_at_ = now;
    }
    if (!asked_) return timer_.arm_after(urgent_ ? Duration(urgent_retry) : Duration(grid));
    timer_.arm_at(saturating_add(asked_at_, urgent_ ? patience_ : limits_.timeout));
}

void PathChecker::on_timer() {
    if (!watching_) return;
    if (urgent_ && channel_.last_heard() > urgent_since_) return alive();
    if (asked_) return judge();
    if (urgent_) return ask();
    const Instant due = saturating_add(channel_.last_heard(), *limits_.interval);
    if (timers_.now() >= (*limits_.interval > grid ? on_grid(due) : due)) return ask();
    watch();
}

void PathChecker::judge() {
    if (channel_.last_heard() > asked_at_) return alive();
    const Duration patience = urgent_ ? patience_ : limits_.timeout;
    if (timers_.now() < saturating_add(asked_at_, patience)) return timer_.arm_at(saturating_add(asked_at_, patience));
    channel_.fail(fmt::format(
        "the target is silent: nothing came for {:.1f} s, not even an answer to a TEST UNIT READY within {:.1f} s",
        in_seconds(timers_.now() - channel_.last_heard()), in_seconds(patience)));
}

void PathChecker::alive() {
    asked_ = false;
    timer_.disarm();
    watch();
    if (std::exchange(urgent_, false)) host_.on_path_alive(channel_);
}

void PathChecker::on_command_done(Command& command) {
    in_flight_ = false;
    const CommandResult& result = command.result;
    // Both are told once, to whatever command comes first.
    if (result.end == CommandEnd::answered && result.sense.valid &&
        (result.sense.deferred || result.sense.key == scsi::SenseKey::unit_attention))
        host_.on_path_attention(command.lun, result.sense);
    if (!watching_) return;
    if (result.end == CommandEnd::answered) return alive();
    // Ended by task management: whoever did that has heard of the target, or gives the channel up.
    if (asked_ && !urgent_) alive();
}

}  // namespace srpfs::initiator
