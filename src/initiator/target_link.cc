// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/initiator/target_link.h>

#include "path_checker.h"

#include <srpfs/base/log.h>

#include <algorithm>
#include <limits>

namespace srpfs::initiator {
namespace {

// How long an old channel may take to show that the target is still the one it was (decisions 28), and how often one
// that has no credit left is asked again.
constexpr auto proof_time = std::chrono::seconds(3);
constexpr auto proof_interval = std::chrono::milliseconds(50);

}  // namespace

const char* to_string(PortState state) {
    switch (state) {
        case PortState::connecting: return "connecting";
        case PortState::running: return "running";
        case PortState::blocked: return "blocked";
        case PortState::fail_fast: return "fail-fast";
        case PortState::lost: return "lost";
    }
    return "?";
}

// One PathChecker for each channel, and what they want of the link.
class PathCheckers final : private PathCheckerHost {
public:
    explicit PathCheckers(TargetLink& link, LinkOwner& owner, reactor::TimerQueue& timers)
        : link_(link), owner_(owner), timers_(timers) {}

    std::function<bool(const scsi::Lun&)> may_ask_now;

    void add(Channel& channel) {
        PathCheckerHost& host = *this;
        all_.push_back(std::make_unique<PathChecker>(channel, timers_, channel.config().path, host));
    }
    [[nodiscard]] PathChecker& of(const Channel& channel) {
        const auto found = std::find_if(all_.begin(), all_.end(),
                                        [&](const auto& checker) { return &checker->channel() == &channel; });
        SRPFS_ASSERT(found != all_.end());
        return **found;
    }
    void bury() {
        std::erase_if(all_, [](const auto& checker) { return checker->channel().is_gone(); });
    }
    void pause() {
        for (const auto& checker : all_) checker->pause();
    }
    void ask_now(Duration patience) {
        for (const auto& checker : all_) checker->ask_now(patience);
    }

private:
    bool may_ask(const scsi::Lun& lun) const override { return may_ask_now(lun); }
    void on_path_attention(const scsi::Lun& lun, const scsi::Sense& sense) override { link_.tell_event(lun, sense); }
    void on_path_alive(Channel& channel) override { owner_.on_path_alive(channel.config().epoch); }

    TargetLink& link_;
    LinkOwner& owner_;
    reactor::TimerQueue& timers_;
    std::vector<std::unique_ptr<PathChecker>> all_;
};

TargetLink::TargetLink(std::string name, fabric::Fabric& fabric, reactor::TimerQueue& timers, LinkOwner& owner,
                       const TaskLimits& limits)
    : name_(std::move(name)), fabric_(fabric), timers_(timers), owner_(owner),
      checkers_(std::make_unique<PathCheckers>(*this, owner, timers)), burial_(timers, [this] { bury(); }),
      proof_timer_(timers, [this] { ask_for_proof(); }), tasks_(name_, limits, timers, *this) {
    // A command for a unit that is being reset might vanish with the others.
    checkers_->may_ask_now = [this](const scsi::Lun& lun) { return !tasks_.is_resetting(lun); };
}

TargetLink::~TargetLink() {
    if (watches_ports_) fabric_.unwatch_ports(*this);
    SRPFS_ASSERT(channels_.empty());
    SRPFS_ASSERT(listeners_.empty());
}

// ---- units ----

void TargetLink::attach(LinkListener& listener) { listeners_.push_back(listener); }

void TargetLink::detach(LinkListener& listener) {
    listeners_.remove(listener);
    for (auto* line : {&waiting_, &choosy_, &held_, &sharing_}) std::erase(*line, &listener);
    std::replace(waking_.begin(), waking_.end(), &listener, static_cast<LinkListener*>(nullptr));
}

Submitted TargetLink::submit(Command& command) {
    refused_ = &held_;
    switch (state_) {
        case PortState::running: break;
        case PortState::connecting:
        case PortState::blocked: return Submitted::wait;
        case PortState::fail_fast: return Submitted::fail_fast;
        case PortState::lost: return Submitted::lost;
    }
    if (tasks_.is_resetting(command.lun)) [[unlikely]]
        return Submitted::wait;  // for the LUN RESET to be over
    refused_ = command.on_channel ? &choosy_ : &waiting_;
    // Those that have been refused before come first; otherwise a busy unit would take each credit that its own answers
    // bring.
    if (!waiting_.empty() && !waking_now_ && !command.privileged) [[unlikely]]
        return Submitted::wait;
    const std::size_t choice = command.on_channel && !live_.empty() ? 1 : live_.size();
    if (command.on_channel) [[unlikely]]
        next_live_ = choice == 0 ? 0 : *command.on_channel % live_.size();
    for (std::size_t tried = 0; tried < choice; ++tried) {
        if (next_live_ >= live_.size()) next_live_ = 0;
        Channel& channel = *live_[next_live_++];
        if (channel.submit(command)) {
            ++gauges_->commands;
            ++sent_;
            return Submitted::sent;
        }
    }
    ++gauges_->zero_req_lim;
    return Submitted::wait;
}

bool TargetLink::has_turn(LinkListener& listener) {
    if ((sharing_.empty() || its_turn_ == &listener) && has_place_to_share()) return true;
    if (std::find(sharing_.begin(), sharing_.end(), &listener) == sharing_.end()) sharing_.push_back(&listener);
    for (Channel* channel : live_) channel->withhold_place();
    ++gauges_->zero_req_lim;
    return false;
}

bool TargetLink::has_place_to_share() const {
    unsigned places = 0, free = 0;
    for (const Channel* channel : live_) {
        free += channel->free_places();
        places += channel->in_flight();
    }
    places += free;
    return free > std::min(assured_commands * (sharers_ - 1), places / 4);
}

// One that could not take what it was given its turn for stands in line again, behind the others.
void TargetLink::give_turns() {
    while (!sharing_.empty() && waiting_.empty() && has_place_to_share()) {
        its_turn_ = sharing_.front();
        sharing_.erase(sharing_.begin());
        its_turn_->on_link_ready();
        its_turn_ = nullptr;
    }
    if (!sharing_.empty())
        for (Channel* channel : live_) channel->tell_when_room();
}

void TargetLink::wait_for_room(LinkListener& listener) {
    if (std::find(refused_->begin(), refused_->end(), &listener) == refused_->end()) refused_->push_back(&listener);
}

// Each waiting unit gets its turn once per wake-up, in the order they began to wait. One that has sent something and is
// refused again goes behind those that have not.
void TargetLink::wake_waiting() {
    if (waking_now_ || its_turn_) return;
    if (!waiting_.empty() || !choosy_.empty()) wake_refused();
    give_turns();
}

void TargetLink::wake_refused() {
    waking_now_ = true;
    waking_.swap(choosy_);
    waking_.insert(waking_.end(), waiting_.begin(), waiting_.end());
    waiting_.clear();
    std::vector<LinkListener*> served;
    for (std::size_t i = 0; i < waking_.size(); ++i) {
        LinkListener* const listener = std::exchange(waking_[i], nullptr);
        if (!listener) continue;
        const std::uint64_t before = sent_;
        listener->on_link_ready();
        if (sent_ != before) served.push_back(listener);
    }
    waking_.clear();
    waking_now_ = false;
    std::stable_partition(waiting_.begin(), waiting_.end(), [&](LinkListener* listener) {
        return std::find(served.begin(), served.end(), listener) == served.end();
    });
}

// The state has changed, or a LUN RESET is over.
void TargetLink::wake_all() {
    // Whoever came from on_link_ready() would leave those asleep whom it puts in line.
    SRPFS_ASSERT(!waking_now_ && !its_turn_);
    for (auto* line : {&held_, &sharing_}) {
        waiting_.insert(waiting_.end(), line->begin(), line->end());
        line->clear();
    }
    wake_waiting();
}

void TargetLink::on_channel_room(Channel&) { wake_waiting(); }

void TargetLink::on_async_event(Channel&, const scsi::Lun& lun, const scsi::Sense& sense) { tell_event(lun, sense); }

// Of a copy: a listener may leave. Rare events only.
template <typename Call>
void TargetLink::tell_listeners(Call call) {
    std::vector<LinkListener*> all;
    listeners_.for_each([&](LinkListener& listener) { all.push_back(&listener); });
    for (LinkListener* listener : all) call(*listener);
}

void TargetLink::tell_event(const scsi::Lun& lun, const scsi::Sense& sense) {
    tell_listeners([&](LinkListener& listener) { listener.on_link_event(lun, sense); });
}

// ---- task management ----

void TargetLink::reset_unit(const scsi::Lun& lun, std::function<void(Result<void>)> on_done) {
    tasks_.reset_unit(lun, std::move(on_done));
}

void TargetLink::on_commands_expired(Channel&) { tasks_.on_expired(); }

const std::vector<Channel*>& TargetLink::reset_channels() const {
    static const std::vector<Channel*> none;
    return state_ == PortState::running ? live_ : none;
}

void TargetLink::on_reset_sent(const scsi::Lun& lun) {
    tell_listeners([&](LinkListener& listener) { listener.on_reset_sent(lun); });
}

void TargetLink::on_reset_over(const scsi::Lun& lun, bool succeeded) {
    tell_listeners([&](LinkListener& listener) { listener.on_reset_over(lun, succeeded); });
    wake_all();
}

// ---- channels ----

void TargetLink::set_state(PortState state) {
    if (state_ == PortState::lost || state_ == state) return;
    state_ = state;
    tell_listeners([&](LinkListener& listener) { listener.on_link_state(state); });
    if (state != PortState::blocked && state != PortState::connecting) wake_all();
}

void TargetLink::open_channel(ChannelConfig config) {
    command_bytes_max_ = config.parameters.max_sect > (1U << 20) ? 512U << 20 : config.parameters.max_sect * 512;
    ChannelListener& listener = *this;
    channels_.push_back(std::make_unique<Channel>(fabric_, timers_, std::move(config), listener));
    checkers_->add(*channels_.back());
    if (!std::exchange(watches_ports_, true)) fabric_.watch_ports(*this);
    channels_.back()->connect();
}

void TargetLink::close_channels(const std::string& why) {
    for (const auto& channel : channels_) channel->disconnect(why);
    if (channels_.empty()) owner_.on_link_empty();
}

void TargetLink::on_port_change(const fabric::LocalPort& port, fabric::PortChange change) {
    owner_.on_port_change(port, change);
}

void TargetLink::pause_path_checks() { checkers_->pause(); }

void TargetLink::check_paths(Duration patience) { checkers_->ask_now(patience); }

bool TargetLink::has_heard_since(Instant when) const {
    return std::any_of(live_.begin(), live_.end(),
                       [when](const Channel* channel) { return channel->last_heard() > when; });
}

void TargetLink::tell_changed() {
    tell_listeners([](LinkListener& listener) { listener.on_link_changed(); });
}

bool TargetLink::is_on_probation(const Channel& channel) const {
    return std::find(probation_.begin(), probation_.end(), &channel) != probation_.end();
}

void TargetLink::ask_for_proof() {
    std::erase_if(proofs_, [](const auto& proof) { return !proof->in_flight; });
    if (probation_.empty()) return;
    for (Channel* channel : live_) {
        const bool asked =
            std::any_of(proofs_.begin(), proofs_.end(), [&](const auto& proof) { return proof->about == channel; });
        if (asked) continue;
        auto proof = std::make_unique<Proof>(*this, *channel);
        proof->command.owner = proof.get();
        proof->command.cdb = scsi::test_unit_ready();
        proof->command.time_limit = proof_time;
        proof->command.privileged = proof->command.vital = true;
        if (!channel->submit(proof->command)) continue;
        proof->in_flight = true;
        proofs_.push_back(std::move(proof));
    }
    proof_timer_.arm_after(proof_interval);
}

void TargetLink::Proof::on_command_done(Command& done) {
    in_flight = false;
    if (done.result.end != CommandEnd::answered) return;
    const bool counts = about != nullptr;
    // The target tells an attention, or a deferred error, once: it has to reach the unit it was meant for.
    const scsi::Sense& sense = done.result.sense;
    if (sense.valid && (sense.deferred || sense.key == scsi::SenseKey::unit_attention))
        link.tell_event(done.lun, sense);
    if (counts) link.end_probation();
}

// An old channel has answered a question that was asked after they had come up.
void TargetLink::end_probation() {
    const auto accepted = std::exchange(probation_, {});
    if (accepted.empty()) return;
    foreign_loss_ = false;  // an old channel has vouched for the target
    refresh();
    tell_changed();
    for (Channel* channel : accepted)
        owner_.on_channel_live(channel->config().index, channel->config().epoch, channel->facts());
    wake_waiting();
}

void TargetLink::on_channel_live(Channel& channel) {
    checkers_->of(channel).start();
    if (channel.config().replacement) {
        // What was asked before it came up proves nothing about it.
        for (const auto& proof : proofs_) proof->about = nullptr;
        probation_.push_back(&channel);
        refresh();
        if (live_.empty()) return channel.disconnect("the channels it was to join have ended");
        return ask_for_proof();
    }
    refresh();
    if (channel.config().epoch != epoch_) {
        epoch_ = channel.config().epoch;
        static std::atomic<std::uint64_t> incarnations{0};
        incarnation_ = incarnations.fetch_add(1, std::memory_order_relaxed) + 1;
        // Here and not by way of the port: nobody may flush before the units know.
        if (std::exchange(foreign_loss_, false) || channel.config().restart_suspected)
            tell_listeners([](LinkListener& listener) { listener.on_target_restart(); });
    }
    owner_.on_channel_live(channel.config().index, channel.config().epoch, channel.facts());
    wake_waiting();
}

void TargetLink::on_channel_ended(Channel& channel, const ChannelEnd& end) {
    const bool was_up = !live_.empty();
    checkers_->of(channel).stop();
    // Of the login before as well: it may have ended before we gave it up.
    if (end.was_live && end.reason != fabric::EndReason::closed) foreign_loss_ = true;
    std::erase(probation_, &channel);
    for (const auto& proof : proofs_)
        if (proof->about == &channel) proof->about = nullptr;
    refresh();
    tell_listeners([&](LinkListener& listener) { listener.on_channel_lost(channel); });
    if (was_up && live_.empty()) {
        tell_changed();
        for (Channel* other : std::vector(probation_)) other->disconnect("the channels it was to join have ended");
    }
    owner_.on_channel_ended(channel.config().index, channel.config().epoch, end);
    // What was meant for this one may have waited for its room only; nobody else would tell.
    if (!live_.empty()) wake_waiting();
}

void TargetLink::on_channel_gone(Channel&) { burial_.arm_after(Duration::zero()); }

void TargetLink::bury() {
    checkers_->bury();
    std::erase_if(channels_, [](const auto& channel) { return channel->is_gone(); });
    refresh();
    if (channels_.empty()) owner_.on_link_empty();
}

std::vector<std::shared_ptr<const ChannelGauges>> LinkGauges::channels() const {
    const std::lock_guard lock(mutex_);
    return channels_;
}

void LinkGauges::set_channels(std::vector<std::shared_ptr<const ChannelGauges>> channels) {
    const std::lock_guard lock(mutex_);
    channels_ = std::move(channels);
}

std::int32_t LinkGauges::req_lim() const {
    std::optional<std::int32_t> least;
    for (const auto& channel : channels())
        if (channel->state == ChannelState::live)
            least = std::min(least.value_or(channel->credits), channel->credits.load());
    return least.value_or(0);
}

void TargetLink::refresh() {
    live_.clear();
    immediate_bytes_max_ = std::numeric_limits<std::uint32_t>::max();
    std::vector<std::shared_ptr<const ChannelGauges>> all;
    for (const auto& channel : channels_) {
        all.push_back(channel->gauges());
        if (channel->state() != ChannelState::live || is_on_probation(*channel)) continue;
        live_.push_back(channel.get());
        immediate_bytes_max_ = std::min(immediate_bytes_max_, channel->facts().immediate_bytes_max);
    }
    if (live_.empty()) immediate_bytes_max_ = 0;
    gauges_->channels_live.store(static_cast<unsigned>(live_.size()), std::memory_order_relaxed);
    gauges_->set_channels(std::move(all));
}

std::vector<TargetLink::ChannelReport> TargetLink::report() const {
    std::vector<ChannelReport> reports;
    for (const auto& channel : channels_)
        reports.push_back({channel->config().index, channel->state(), channel->credits(), channel->in_flight(),
                           channel->counters().commands, channel->facts()});
    return reports;
}

}  // namespace srpfs::initiator
