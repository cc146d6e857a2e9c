// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/initiator/task_manager.h>

#include <srpfs/base/log.h>

#include <algorithm>

namespace srpfs::initiator {
namespace {

// How soon a LUN RESET is tried again that no channel could take: for want of a credit, or because the adapter has not
// said yet that what was sent before has left.
constexpr auto send_retry_delay = std::chrono::milliseconds(10);

std::string describe(std::optional<srp::TaskCode> code) {
    return code ? fmt::format("the target answered task management code {:02x}", static_cast<unsigned>(*code))
                : std::string("the target did not answer it in time");
}

}  // namespace

// ---- ABORT TASK ----

// Takes up the command that is overdue for longest. Each gets one ABORT TASK; what that does not end gets a LUN RESET.
void TaskManager::next() {
    if (starting_) return;  // whoever is starting something comes back here
    starting_ = true;
    while (stage_ == Stage::idle) {
        if (!queue_.empty()) {
            if (begin_reset()) continue;
            retry_timer_.arm_after(send_retry_delay);
            break;
        }
        Channel* channel = nullptr;
        Command* oldest = nullptr;
        for (const auto& candidate : host_.task_channels()) {
            if (candidate->state() != ChannelState::live && candidate->state() != ChannelState::draining) continue;
            Command* const command = candidate->find_expired();
            if (command && (!oldest || command->deadline < oldest->deadline)) {
                channel = candidate.get();
                oldest = command;
            }
        }
        if (!oldest) break;
        abort(*channel, *oldest);
    }
    starting_ = false;
}

// The one that has waited for longest.
bool TaskManager::begin_reset() {
    Wanted wanted = std::move(queue_.front());
    queue_.pop_front();
    if (host_.reset_channels().empty()) {
        end(wanted, Error(ENOTCONN, fmt::format("{}: not connected, a LUN RESET cannot be sent", name_)));
    } else if (start_reset(wanted)) {
        reset_ = std::move(wanted);
        host_.on_reset_sent(reset_.lun);
    } else if (timers_.now() < wanted.until) {
        queue_.push_front(std::move(wanted));
        return false;
    } else {
        end(wanted, Error(ETIMEDOUT, fmt::format("{}: no channel could take a LUN RESET (no credit)", name_)));
    }
    return true;
}

void TaskManager::abort(Channel& channel, const Command& command) {
    carrier_ = &channel;
    managed_tag_ = command.tag;
    request_ = TaskRequest{};
    request_.function = srp::TaskFunction::abort_task;
    request_.lun = command.lun;
    request_.managed_tag = command.tag;
    request_.time_limit = limits_.abort_time;
    request_.on_done = [this](std::optional<srp::TaskCode> code) { finish_abort(code); };
    if (!channel.submit(request_)) {
        log::warning(channel.config().name, "SRP abort called, tag {:016x}: it cannot be sent", command.tag);
        return escalate(command.lun, &channel);
    }
    stage_ = Stage::abort;
    log::warning(channel.config().name, "SRP abort called, tag {:016x} ({})", command.tag, command.lun.file_name());
}

void TaskManager::finish_abort(std::optional<srp::TaskCode> code) {
    stage_ = Stage::idle;
    Channel& channel = *carrier_;
    if (channel.state() == ChannelState::dead) return next();  // and with it whatever was in flight
    const Command* const command = channel.find(managed_tag_);
    if (!command) {
        log::info(channel.config().name, "SRP abort of tag {:016x}: it was answered meanwhile", managed_tag_);
    } else if (code == srp::TaskCode::complete) {
        log::info(channel.config().name, "SRP abort of tag {:016x} complete", managed_tag_);
        channel.settle_abort(managed_tag_);
    } else {
        log::warning(channel.config().name, "SRP abort of tag {:016x} failed: {}", managed_tag_, describe(code));
        escalate(command->lun, &channel);
    }
    next();
}

// ---- LUN RESET ----

// Ahead of those that somebody has asked for.
void TaskManager::escalate(const scsi::Lun& lun, Channel* preferred) {
    log::warning(name_, "SRP reset_device called for {}", lun.file_name());
    queue_.push_front({lun, {}, true, timers_.now() + limits_.reset_time, preferred});
    next();
}

void TaskManager::reset_unit(const scsi::Lun& lun, std::function<void(Result<void>)> on_done) {
    // One that has not been sent yet covers everything up to then: it will do for both.
    const auto same =
        std::find_if(queue_.begin(), queue_.end(), [&](const Wanted& wanted) { return wanted.lun == lun; });
    if (same != queue_.end())
        same->on_done.push_back(std::move(on_done));
    else
        queue_.push_back({lun, {std::move(on_done)}, false, timers_.now() + limits_.reset_time, nullptr});
    next();
}

// False: nothing was sent.
bool TaskManager::start_reset(const Wanted& wanted) {
    request_ = TaskRequest{};
    request_.function = srp::TaskFunction::lun_reset;
    request_.lun = wanted.lun;
    request_.managed_tag = 0xffffffff;  // what ib_srp sends; the function has no managed task
    request_.time_limit = limits_.reset_time;
    request_.on_done = [this](std::optional<srp::TaskCode> code) { finish_reset(code); };

    // On the channel with most of its commands it proves most.
    std::vector<Channel*> candidates = host_.reset_channels();
    const auto count = [&](const Channel* channel) {
        return channel == wanted.preferred ? 1U << 20 : channel->in_flight();
    };
    std::stable_sort(candidates.begin(), candidates.end(),
                     [&](const Channel* a, const Channel* b) { return count(a) > count(b); });
    for (Channel* channel : candidates) {
        if (!channel->submit(request_)) continue;
        stage_ = Stage::reset;
        carrier_ = channel;
        unsigned marked = 0;
        for (const auto& other : host_.task_channels()) marked += other->mark_for_fence(wanted.lun);
        log::info(channel->config().name, "LUN RESET of {} sent, {} of its commands outstanding",
                  wanted.lun.file_name(), marked);
        return true;
    }
    return false;
}

void TaskManager::finish_reset(std::optional<srp::TaskCode> code) {
    stage_ = Stage::idle;
    Wanted reset = std::move(reset_);
    const bool succeeded = code == srp::TaskCode::complete;
    unsigned unanswered = 0;
    for (const auto& channel : host_.task_channels()) {
        channel->settle_fence(reset.lun, succeeded, channel.get() == carrier_);
        unanswered += channel->fenced_in_flight(reset.lun);
    }
    const std::string name = reset.lun.file_name();
    Result<void> done;
    if (succeeded) {
        log::info(name_, "LUN RESET of {} complete, {} commands still unanswered", name, unanswered);
    } else {
        const bool lost = !code && carrier_->state() == ChannelState::dead;
        const std::string why = lost ? "the connection ended before it was answered" : describe(code);
        log::warning(name_, "LUN RESET of {} failed: {}", name, why);
        done = Error(code   ? EIO
                     : lost ? ENOTCONN
                            : ETIMEDOUT,
                     fmt::format("{}: LUN RESET of {} failed: {}", name_, name, why));
    }
    host_.on_reset_over(reset.lun, succeeded);
    end(reset, done);
    next();
}

void TaskManager::end(const Wanted& wanted, const Result<void>& done) {
    for (const auto& on_done : wanted.on_done) on_done(done);
    if (!done && wanted.overdue) break_connections(wanted.lun, done.error().context);
}

// ---- the last resort ----

// Only the end of the connection proves that the target does not write into the memory of these commands any more.
void TaskManager::break_connections(const scsi::Lun& lun, const std::string& why) {
    for (const auto& channel : host_.task_channels()) {
        const Command* const command = channel->find_expired();
        if (!command || command->lun != lun) continue;
        log::warning(channel->config().name, "SRP reset_host called: {}", why);
        channel->fail(
            fmt::format("a command was not answered in time, and neither ABORT TASK nor LUN RESET of {} ended it "
                        "({})",
                        lun.file_name(), why));
    }
}

}  // namespace srpfs::initiator
