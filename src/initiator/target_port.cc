// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/initiator/target_port.h>

#include <srpfs/base/log.h>

#include <algorithm>
#include <cerrno>

namespace srpfs::initiator {
namespace {

constexpr auto retry_delay_first = std::chrono::milliseconds(500);
constexpr unsigned doublings_max = 24;  // more than any reconnect_delay matters for
// The kernel waits for reconnect_delay before every attempt, and longer after ten. This is to find a target that has
// come back no later, whatever the phase of both: so it waits for a quarter, and longer after as long a time.
constexpr unsigned parts_of_delay = 4;
constexpr unsigned slow_after = 10 * parts_of_delay;  // failed attempts
constexpr std::uint32_t slow_factor_max = 100;
constexpr auto failure_repeated_after = std::chrono::minutes(1);  // in the log, if the reason is the same
// For a sign of life of a connection after the local port came up again: a new login takes less than waiting longer.
constexpr auto resume_time = std::chrono::seconds(1);

Duration seconds(std::uint32_t count) { return std::chrono::seconds(count); }

// What is tried after "requested initiator-to-target IU too large": no immediate data, then the sizes that older
// targets are known to accept (srp-wire 2.4, srp-targets 1).
bool shrink(srp::LoginParameters& parameters, unsigned attempt) {
    switch (attempt) {
        case 0: parameters.use_imm_data = false; return true;
        case 1: parameters.max_it_iu_size = 2116; return true;
        case 2: parameters.max_it_iu_size = 996; return true;
        default: return false;
    }
}

}  // namespace

// ---- the link of one reactor ----

struct TargetPort::LinkHolder final : LinkOwner {
    LinkHolder(const TargetPortConfig& config, const ReactorDoor& door_, reactor::Executor& control_,
               std::size_t index_)
        : door(door_), control(control_), index(index_),
          link(std::make_unique<TargetLink>(config.name, *door.fabric, door.executor->timers(), *this,
                                            config.task_limits)),
          gauges(link->gauges()) {}

    void on_channel_live(unsigned channel, std::uint64_t epoch, const ChannelFacts& facts) override {
        control.post([weak = port, channel, epoch, facts] {
            if (const auto owner = weak.lock()) owner->on_channel_live(channel, epoch, facts);
        });
    }
    void on_channel_ended(unsigned channel, std::uint64_t epoch, const ChannelEnd& end) override {
        control.post([weak = port, channel, epoch, end] {
            if (const auto owner = weak.lock()) owner->on_channel_ended(channel, epoch, end);
        });
    }
    void on_link_empty() override {
        if (!closing) return;  // between two logins: of no interest
        control.post([weak = port, which = index] {
            if (const auto owner = weak.lock()) owner->on_link_empty(which);
        });
    }

    void on_port_change(const fabric::LocalPort& local, fabric::PortChange change) override {
        control.post([weak = port, local, change] {
            if (const auto owner = weak.lock()) owner->on_port_change(local, change);
        });
    }
    void on_path_alive(std::uint64_t epoch) override {
        control.post([weak = port, epoch] {
            if (const auto owner = weak.lock()) owner->on_path_alive(epoch);
        });
    }

    ReactorDoor door;
    reactor::Executor& control;
    std::size_t index;
    std::weak_ptr<TargetPort> port;
    std::unique_ptr<TargetLink> link;
    std::shared_ptr<const LinkGauges> gauges;
    bool closing = false;  // the reactor's view: the port is being closed
    bool empty = false;    // control's view: nothing is left on the reactor
};

// ---- life ----

std::shared_ptr<TargetPort> TargetPort::create(TargetPortConfig config, reactor::Executor& control,
                                               std::vector<ReactorDoor> reactors, TargetPortListener& listener) {
    std::shared_ptr<TargetPort> port(new TargetPort(std::move(config), control, std::move(reactors), listener));
    for (const auto& holder : port->links_) holder->port = port;
    return port;
}

TargetPort::TargetPort(TargetPortConfig config, reactor::Executor& control, std::vector<ReactorDoor> reactors,
                       TargetPortListener& listener)
    : config_(std::move(config)), control_(control), listener_(listener), effective_(config_.parameters),
      reconnect_timer_(control.timers(), [this] { reconnect(); }),
      fast_io_fail_timer_(
          control.timers(),
          [this] {
              if (state_ != PortState::blocked) return;
              enter(PortState::fail_fast,
                    fmt::format("fast_io_fail_tmo expired for SRP {}: I/O fails from now on", config_.name));
          }),
      dev_loss_timer_(
          control.timers(),
          [this] { close(fmt::format("dev_loss_tmo expired for SRP {}: the target is removed", config_.name)); }),
      suspension_timer_(control.timers(), [this] { end_suspension(); }) {
    SRPFS_ASSERT(!reactors.empty());
    SRPFS_ASSERT(config_.parameters.ch_count >= 1);
    for (std::size_t i = 0; i < reactors.size(); ++i)
        links_.push_back(std::make_shared<LinkHolder>(config_, reactors[i], control_, i));
}

TargetPort::~TargetPort() {
    // A link dies on the reactor it lives on; whoever dies last there destroys it.
    for (auto& holder : links_) {
        reactor::Executor* executor = holder->door.executor;
        executor->post([last = std::move(holder)] {});
    }
}

TargetLink& TargetPort::link(std::size_t index) const { return *links_.at(index)->link; }
std::shared_ptr<const LinkGauges> TargetPort::gauges(std::size_t index) const { return links_.at(index)->gauges; }
reactor::Executor& TargetPort::executor(std::size_t index) const { return *links_.at(index)->door.executor; }

// Every change of state goes through here. docs/recovery.md has the table.
void TargetPort::enter(PortState state, const std::string& why) {
    if (state_ == state) return;
    const bool allowed = (state == PortState::running && state_ != PortState::lost) ||
                         (state == PortState::blocked && state_ == PortState::running) ||
                         (state == PortState::fail_fast && state_ != PortState::lost) || state == PortState::lost;
    SRPFS_ASSERT(allowed);
    const PortState from = std::exchange(state_, state);
    log::info(config_.name, "{} -> {}: {}", to_string(from), to_string(state), why);
    if (state == PortState::running || state == PortState::lost) {
        fast_io_fail_timer_.disarm();
        dev_loss_timer_.disarm();
    }
    set_links(state);
    listener_.on_port_state(*this, from, state, why);
}

void TargetPort::set_links(PortState state) {
    for (const auto& holder : links_) holder->door.executor->post([holder, state] { holder->link->set_state(state); });
}

// ---- login ----

void TargetPort::login(std::function<void(Result<PortFacts>)> on_result) {
    on_login_result_ = std::move(on_result);
    start_epoch();
}

void TargetPort::start_epoch() {
    // No channel of an earlier epoch may submit any more (decisions 19).
    if (epoch_ > 0) disconnect_all("a new login begins");
    ++epoch_;
    logging_in_ = true;
    next_channel_ = 0;
    channels_.assign(config_.parameters.ch_count, ChannelSlot::none);
    open_channel(0);
}

void TargetPort::open_channel(unsigned index) {
    channels_[index] = ChannelSlot::connecting;
    ChannelConfig channel;
    channel.name = fmt::format("{}/ch{}", config_.name, index);
    channel.index = index;
    channel.epoch = epoch_;
    channel.address = config_.address;
    channel.parameters = effective_;
    // The first channel of a login ends what an earlier login of ours left; the others must not end it (srp-wire 2.5).
    channel.replacement = !logging_in_;
    channel.restart_suspected = foreign_loss_;
    channel.action = logging_in_ && index == 0 ? srp::MultiChannel::single : srp::MultiChannel::multi;
    channel.login_timeout = config_.login_timeout;
    channel.command_time = config_.command_time;
    channel.ack_timeout = config_.ack_timeout;
    channel.path = config_.path;
    channel.wanted_port = config_.wanted_port;
    channel.admit = config_.admit;
    const auto& holder = links_[index % links_.size()];
    holder->door.executor->post(
        [holder, channel = std::move(channel)]() mutable { holder->link->open_channel(std::move(channel)); });
}

void TargetPort::on_channel_live(unsigned index, std::uint64_t epoch, const ChannelFacts& facts) {
    if (epoch != epoch_ || closing_ || channels_[index] != ChannelSlot::connecting) return;
    channels_[index] = ChannelSlot::live;
    facts_.channels = static_cast<unsigned>(std::count(channels_.begin(), channels_.end(), ChannelSlot::live));
    if (index == 0 || facts_.channels == 1) {
        facts_.port = facts.port;
        facts_.first = facts;
    }
    if (!logging_in_) {
        log::info(config_.name, "channel {} is back, {} of {} live", index, facts_.channels, channels_.size());
        foreign_loss_ = false;  // an old channel has vouched for it
        failed_replacements_ = 0;
        listener_.on_port_login(*this, false);
        return replace_missing();
    }
    login_next();
}

void TargetPort::login_next() {
    ++next_channel_;
    if (next_channel_ < channels_.size()) return open_channel(next_channel_);
    finish_login();
}

void TargetPort::finish_login() {
    logging_in_ = false;
    facts_.channels = static_cast<unsigned>(std::count(channels_.begin(), channels_.end(), ChannelSlot::live));
    channels_.resize(facts_.channels);  // what was not granted is not asked for again before the next login
    const bool first = !logged_in_once_;
    logged_in_once_ = true;
    failed_reconnects_ = failed_replacements_ = failures_forgiven_ = 0;
    failure_told_.clear();
    reconnect_timer_.disarm();
    suspension_timer_.disarm();
    local_port_down_ = false;
    // The directory is below this port, and the target knows us by its GUID: later logins leave by no other.
    config_.wanted_port = WantedPort{facts_.port.device, facts_.port.port, facts_.port.guid};
    if (state_ == PortState::running) set_links(PortState::running);
    enter(PortState::running,
          first ? fmt::format("logged in, {} channel{}", facts_.channels, facts_.channels == 1 ? "" : "s")
                : fmt::format("reconnect succeeded, {} channel{}", facts_.channels, facts_.channels == 1 ? "" : "s"));
    if (auto on_result = std::exchange(on_login_result_, nullptr)) on_result(facts_);
    if (!closing_) listener_.on_port_login(*this, first);
    foreign_loss_ = false;
}

bool TargetPort::smaller_iu_next() {
    const std::uint32_t refused = srp::requested_it_iu_bytes(effective_);
    while (shrink(effective_, iu_attempt_)) {
        ++iu_attempt_;
        if (srp::requested_it_iu_bytes(effective_) < refused) return true;
    }
    iu_attempt_ = 0;  // no size is right today: the next login begins with the one that was asked for
    return false;
}

void TargetPort::fail_login(const ChannelEnd& end) {
    last_error_ = fmt::format("{}: login failed: {}", config_.name, end.text);
    if (end.smaller_iu_may_help && smaller_iu_next()) {
        log::info(config_.name, "{}; trying again with a smaller request size of {} bytes{}", end.text,
                  srp::requested_it_iu_bytes(effective_), effective_.use_imm_data ? "" : ", without immediate data");
        return start_epoch();
    }
    logging_in_ = false;
    if (!logged_in_once_) {
        log::warning({}, "{}", last_error_);
        if (auto on_result = std::exchange(on_login_result_, nullptr)) on_result(Error(end.errno_value, last_error_));
        return close(last_error_);
    }
    ++failed_reconnects_;
    foreign_loss_ = true;  // away for longer than our own choice explains
    ++epoch_;              // what is left of this attempt does not count any more
    channels_.assign(channels_.size(), ChannelSlot::none);
    facts_.channels = 0;
    const Instant now = control_.timers().now();
    const bool news = end.text != failure_told_ || now - failure_told_at_ >= failure_repeated_after;
    constexpr const char* text = "reconnect attempt {} failed ({})";
    if (news) {
        log::warning(config_.name, text, failed_reconnects_, end.text);
        failure_told_ = end.text;
        failure_told_at_ = now;
    } else {
        log::debug(config_.name, text, failed_reconnects_, end.text);
    }
    // The kernel's rule: with both time-outs off nothing has blocked the devices, so a failed reconnect fails their
    // I/O.
    // Attempts before the kernel's first one do not count for that.
    const auto delay = config_.timers.reconnect_delay;
    if (state_ == PortState::running && (!delay || now - lost_at_ >= seconds(*delay)))
        enter(PortState::fail_fast, "reconnecting failed and neither fast_io_fail_tmo nor dev_loss_tmo is on");
    schedule_reconnect();
}

void TargetPort::cancel_login() {
    if (!on_login_result_) return;
    auto on_result = std::exchange(on_login_result_, nullptr);
    close("login interrupted");
    on_result(Error(EINTR, fmt::format("{}: login interrupted", config_.name)));
}

// ---- losing it ----

void TargetPort::on_channel_ended(unsigned index, std::uint64_t epoch, const ChannelEnd& end) {
    // We had given it up, but it had ended before: the target may have restarted all the same.
    if (epoch != epoch_ && end.was_live && end.reason != fabric::EndReason::closed) foreign_loss_ = true;
    if (epoch != epoch_ || closing_ || index >= channels_.size()) return;
    const ChannelSlot was = std::exchange(channels_[index], ChannelSlot::none);
    facts_.channels = static_cast<unsigned>(std::count(channels_.begin(), channels_.end(), ChannelSlot::live));
    if (was == ChannelSlot::connecting && !logging_in_) {  // a replacement that did not come up
        log::warning(config_.name, "channel {} could not be replaced: {}", index, end.text);
        ++failed_replacements_;
        return schedule_reconnect();
    }
    if (was == ChannelSlot::connecting) {
        if (index == 0) return fail_login(end);
        log::warning(config_.name, "channel {} of {} was not granted ({}); using {}", index, channels_.size(), end.text,
                     index);
        return finish_login();
    }
    if (was == ChannelSlot::none) return;
    if (!end.replace_at_once) foreign_loss_ = true;
    last_error_ = fmt::format("{}: connection lost: {}", config_.name, end.text);
    log::warning(config_.name, "channel {} ended: {} ({})", index, end.text, fabric::to_string(end.reason));
    if (logging_in_) {
        // Lost one while logging in the next: begin again.
        disconnect_all("login failed half-way");
        return fail_login(end);
    }
    if (facts_.channels > 0) {
        // The others carry on; this one is replaced.
        if (end.replace_at_once) return replace_missing();
        if (!reconnect_timer_.armed()) schedule_reconnect();
        return;
    }
    // A replacement that is still being logged in belongs to a login that is over.
    disconnect_all("no channel is left");
    ++epoch_;
    channels_.assign(channels_.size(), ChannelSlot::none);
    transport_error(end.text, end.replace_at_once);
}

void TargetPort::block(const std::string& why) {
    const auto& timers = config_.timers;
    if (state_ != PortState::running || (!timers.fast_io_fail_tmo && !timers.dev_loss_tmo)) return;
    enter(PortState::blocked, why);
    if (timers.fast_io_fail_tmo) fast_io_fail_timer_.arm_after(seconds(*timers.fast_io_fail_tmo));
    if (timers.dev_loss_tmo) dev_loss_timer_.arm_after(seconds(*timers.dev_loss_tmo));
}

void TargetPort::transport_error(const std::string& why, bool reconnect_at_once) {
    if (closing_ || state_ == PortState::lost) return;
    lost_at_ = control_.timers().now();
    suspension_timer_.disarm();
    block(why);
    // With both time-outs off the kernel's word stays; but nothing goes out before the next login is complete and its
    // owner has been told.
    if (state_ == PortState::running) set_links(PortState::blocked);
    if (reconnect_at_once)
        reconnect_timer_.arm_after(Duration::zero());
    else
        schedule_reconnect();
}

// The first attempt follows the loss at once; the next ones wait 0.5 s, 1 s, 2 s and so on up to a quarter of
// reconnect_delay. After forty failures the waits grow as the kernel's do after ten (srp-admin 4.1).
void TargetPort::schedule_reconnect() {
    if (!config_.timers.reconnect_delay || closing_) return;
    const unsigned failed = facts_.channels > 0 ? failed_replacements_
                                                : failed_reconnects_ - std::min(failed_reconnects_, failures_forgiven_);
    const Duration delay = seconds(*config_.timers.reconnect_delay);
    const Duration longest = std::max(delay / parts_of_delay, Duration(retry_delay_first));
    if (failed == 0) return reconnect_timer_.arm_after(Duration::zero());
    if (failed > slow_after)
        return reconnect_timer_.arm_after(longest * std::min(slow_factor_max, failed - slow_after));
    reconnect_timer_.arm_after(
        std::min(longest, Duration(retry_delay_first) * (1 << std::min(failed - 1, doublings_max))));
}

void TargetPort::reconnect() {
    if (closing_ || logging_in_) return;
    if (facts_.channels > 0) return replace_missing();
    if (failed_reconnects_ == 0)
        log::info(config_.name, "reconnecting");
    else
        log::debug(config_.name, "reconnecting (attempt {})", failed_reconnects_ + 1);
    effective_ = config_.parameters;
    for (unsigned i = 0; i < iu_attempt_; ++i) shrink(effective_, i);
    start_epoch();
}

// Only some channels are missing: adds them, one after the other, to the login that lives.
void TargetPort::replace_missing() {
    if (std::find(channels_.begin(), channels_.end(), ChannelSlot::connecting) != channels_.end()) return;
    for (unsigned i = 0; i < channels_.size(); ++i)
        if (channels_[i] == ChannelSlot::none) return open_channel(i);
}

// ---- the local port ----

void TargetPort::on_port_change(const fabric::LocalPort& port, fabric::PortChange change) {
    const fabric::LocalPort& ours = facts_.port;
    if (closing_ || !logged_in_once_ || port.device != ours.device) return;
    if (change != fabric::PortChange::removed && port.port != ours.port) return;
    if (change == fabric::PortChange::active) {
        if (port.guid == ours.guid) return on_local_port_active();
        return log::warning(config_.name,
                            "port {} of {} is active, but it is another one: its GUID is {:016x}, not {:016x}",
                            port.port, port.device, port.guid, ours.guid);
    }
    if (std::exchange(local_port_down_, true)) return;
    // Connections that are being set up end by themselves, and so do all when the device goes.
    if (change == fabric::PortChange::down && facts_.channels > 0 && !logging_in_)
        suspend(fmt::format("port {} of {} went down", ours.port, ours.device));
}

// I/O waits from now on, and the time-outs run. The connections stay: a short outage is bridged by the transport, and
// nothing that was sent is lost then.
void TargetPort::suspend(const std::string& why) {
    for (const auto& holder : links_) holder->door.executor->post([holder] { holder->link->pause_path_checks(); });
    suspension_timer_.arm_after(config_.path.silence_max());
    block(why);
}

void TargetPort::end_suspension() {
    if (facts_.channels == 0 || logging_in_) return;
    disconnect_all(fmt::format("port {} of {} has been down for {} s", facts_.port.port, facts_.port.device,
                               std::chrono::duration_cast<std::chrono::seconds>(config_.path.silence_max()).count()));
}

void TargetPort::on_local_port_active() {
    if (!std::exchange(local_port_down_, false)) return;
    suspension_timer_.disarm();
    if (facts_.channels > 0 && !logging_in_) {
        log::info(config_.name, "port {} of {} is active again; asking whether the connections have survived",
                  facts_.port.port, facts_.port.device);
        for (const auto& holder : links_)
            holder->door.executor->post([holder] { holder->link->check_paths(resume_time); });
        return;
    }
    // The first attempt at once, even if one that began before is still to fail.
    failures_forgiven_ = failed_reconnects_ + (logging_in_ ? 1 : 0);
    if (!logging_in_) schedule_reconnect();
}

void TargetPort::on_path_alive(std::uint64_t epoch) {
    if (epoch != epoch_ || closing_ || local_port_down_ || logging_in_ || facts_.channels == 0) return;
    if (state_ != PortState::blocked && state_ != PortState::fail_fast) return;
    foreign_loss_ = false;  // who answers on an old connection has not restarted
    enter(PortState::running, fmt::format("port {} of {} is active again and the connections have survived",
                                          facts_.port.port, facts_.port.device));
    listener_.on_port_login(*this, false);
}

void TargetPort::relogin(const std::string& why) {
    if (closing_ || logging_in_) return;
    log::info(config_.name, "SRP reset_host called: {}", why);
    failures_forgiven_ = failed_reconnects_;  // somebody has a reason to try now: waiting begins anew
    disconnect_all(why);
    channels_.assign(channels_.size(), ChannelSlot::none);
    facts_.channels = 0;
    ++epoch_;  // what the old channels say does not count any more
    transport_error(why, true);
}

void TargetPort::disconnect_all(const std::string& why) {
    for (const auto& holder : links_) holder->door.executor->post([holder, why] { holder->link->close_channels(why); });
}

// ---- logging out ----

void TargetPort::close(const std::string& why) {
    if (closing_) return;
    closing_ = true;
    logging_in_ = false;
    reconnect_timer_.disarm();
    suspension_timer_.disarm();
    if (state_ == PortState::blocked) enter(PortState::fail_fast, why);
    enter(PortState::lost, why);
    for (const auto& holder : links_)
        holder->door.executor->post([holder, why] {
            holder->closing = true;
            holder->link->close_channels(why);
        });
    if (auto on_result = std::exchange(on_login_result_, nullptr))
        on_result(Error(ECANCELED, fmt::format("{}: {}", config_.name, why)));
}

void TargetPort::on_link_empty(std::size_t link_index) {
    links_[link_index]->empty = true;
    check_closed();
}

void TargetPort::check_closed() {
    if (!closing_ || closed_told_) return;
    for (const auto& holder : links_)
        if (!holder->empty) return;
    closed_told_ = true;
    log::info(config_.name, "connection closed");
    listener_.on_port_closed(*this);
}

// ---- timers ----

Result<void> TargetPort::set_timer(TimerKind kind, std::string_view text) {
    auto value = parse_timer(text);
    if (!value) return Error(EINVAL, fmt::format("{}: {}", to_string(kind), value.error().context));
    TransportTimers wanted = config_.timers;
    srp::timer_of(wanted, kind) = *value;
    if (auto valid = validate(wanted); !valid) return valid;  // it names the timers
    const bool had_reconnect = config_.timers.reconnect_delay.has_value();
    config_.timers = wanted;
    if (kind == TimerKind::reconnect_delay) {
        // As the kernel: switching it on while not connected starts it, switching it off stops it; the other two timers
        // are not restarted by a write.
        if (!wanted.reconnect_delay)
            reconnect_timer_.disarm();
        else if (!had_reconnect && state_ != PortState::running && state_ != PortState::lost && !logging_in_)
            schedule_reconnect();
    }
    return {};
}

}  // namespace srpfs::initiator
