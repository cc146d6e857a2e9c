// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// One SRP target through one local RDMA port: login order, the transport state machine with the kernel's timers
// (scsi_transport_srp; table in docs/recovery.md), reconnecting, logging out.
//
// Owned by the control thread, which makes all calls and gets all callbacks. Channels belong to reactors; this class
// commands them by mail. Kept alive by shared_ptr because mail may still be under way when it is given up.

#pragma once

#include <srpfs/initiator/target_link.h>
#include <srpfs/reactor/executor.h>
#include <srpfs/srp/transport_timers.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace srpfs::initiator {

using srp::format_timer;
using srp::parse_timer;
using srp::TimerKind;
using srp::to_string;
using srp::TransportTimers;
using srp::validate;

struct TargetPortConfig {
    std::string name;  // for the log: "10.9.9.1:5555"
    fabric::Address address;
    srp::LoginParameters parameters;  // ch_count already resolved, >= 1
    TransportTimers timers;
    Duration login_timeout = std::chrono::seconds(10);
    Duration command_time =
        std::chrono::seconds(30);  // for a command to be answered; then the target is asked to abort it
    TaskLimits task_limits;
    std::optional<std::uint8_t> ack_timeout;
    PathLimits path;
    std::optional<WantedPort> wanted_port;
    // See ChannelConfig::admit. Thread-safe; called for every login.
    std::function<Result<void>(const fabric::LocalPort&)> admit;
};

struct ReactorDoor {
    reactor::Executor* executor;
    fabric::Fabric* fabric;
};

struct PortFacts {
    fabric::LocalPort port;  // where the login left
    unsigned channels = 0;   // live
    ChannelFacts first;
};

class TargetPort;
class TargetPortListener {
public:
    // Any transition; `why` in words.
    virtual void on_port_state(TargetPort& port, PortState from, PortState to, const std::string& why) = 0;
    // A login has succeeded, the first or a later one, of the whole port or of a channel that was missing: check the
    // units, then let their I/O go.
    virtual void on_port_login(TargetPort& port, bool first) = 0;
    // Every channel and link is gone; nothing will come any more.
    virtual void on_port_closed(TargetPort& port) = 0;

protected:
    ~TargetPortListener() = default;
};

class TargetPort final : public std::enable_shared_from_this<TargetPort> {
public:
    // `reactors`: at least one; channel k goes to reactor k mod N. All outlive the port.
    static std::shared_ptr<TargetPort> create(TargetPortConfig config, reactor::Executor& control,
                                              std::vector<ReactorDoor> reactors, TargetPortListener& listener);
    ~TargetPort();

    // The first login. `on_result` is called once; after an Error the port is closed (on_port_closed follows).
    void login(std::function<void(Result<PortFacts>)> on_result);
    // Ctrl-C while logging in: on_result gets EINTR.
    void cancel_login();
    // Logs out and ends: state lost, I/O fails, channels disconnect. on_port_closed follows. Idempotent.
    void close(const std::string& why);
    // Reconnects now (the `reset` file, the kernel's host reset).
    void relogin(const std::string& why);

    [[nodiscard]] PortState state() const { return state_; }
    [[nodiscard]] unsigned failed_reconnects() const { return failed_reconnects_; }
    [[nodiscard]] const TransportTimers& timers() const { return config_.timers; }
    // One timer as an administrator writes it; validated against the other two as they are now.
    Result<void> set_timer(TimerKind kind, std::string_view text);
    [[nodiscard]] const TargetPortConfig& config() const { return config_; }
    [[nodiscard]] const PortFacts& facts() const { return facts_; }
    [[nodiscard]] std::uint64_t epoch() const { return epoch_; }
    // The last loss of the connection was our own choice (a channel replaced, a reset asked for): the target did not
    // restart. Meaningful in on_port_login(), as far as its mail has come; LinkListener::on_target_restart() is exact.
    [[nodiscard]] bool loss_was_own() const { return !foreign_loss_; }
    [[nodiscard]] const std::string& last_error() const { return last_error_; }
    // The link on reactor `index`; use it on that reactor only. Valid until on_port_closed.
    [[nodiscard]] TargetLink& link(std::size_t index) const;
    [[nodiscard]] std::shared_ptr<const LinkGauges> gauges(std::size_t index) const;
    [[nodiscard]] std::size_t reactor_count() const { return links_.size(); }
    [[nodiscard]] reactor::Executor& executor(std::size_t index) const;

private:
    struct LinkHolder;  // owns a TargetLink, translates its calls into mail
    enum class ChannelSlot : std::uint8_t { none, connecting, live };

    TargetPort(TargetPortConfig config, reactor::Executor& control, std::vector<ReactorDoor> reactors,
               TargetPortListener& listener);
    void on_channel_live(unsigned index, std::uint64_t epoch, const ChannelFacts& facts);
    void on_channel_ended(unsigned index, std::uint64_t epoch, const ChannelEnd& end);
    void on_link_empty(std::size_t link_index);
    void on_port_change(const fabric::LocalPort& port, fabric::PortChange change);
    void on_path_alive(std::uint64_t epoch);

    void enter(PortState state, const std::string& why);
    void set_links(PortState state);
    void start_epoch();
    void open_channel(unsigned index);
    void login_next();
    void finish_login();
    void fail_login(const ChannelEnd& end);
    void block(const std::string& why);
    void transport_error(const std::string& why, bool reconnect_at_once);
    void suspend(const std::string& why);
    void on_local_port_active();
    void end_suspension();
    void reconnect();
    void replace_missing();
    void schedule_reconnect();
    void disconnect_all(const std::string& why);
    void check_closed();
    [[nodiscard]] bool smaller_iu_next();

    TargetPortConfig config_;
    reactor::Executor& control_;
    TargetPortListener& listener_;
    std::vector<std::shared_ptr<LinkHolder>> links_;
    PortState state_ = PortState::connecting;
    std::uint64_t epoch_ = 0;
    std::vector<ChannelSlot> channels_;  // by channel index, of the current epoch
    unsigned next_channel_ = 0;          // being logged in while logging_in_
    bool logging_in_ = false;
    bool logged_in_once_ = false;
    bool closing_ = false;
    bool closed_told_ = false;
    bool foreign_loss_ = false;  // a channel was lost, or a login failed, for no reason of ours since the last login
    bool local_port_down_ = false;
    unsigned failed_reconnects_ = 0;
    std::string failure_told_;  // why the last one failed that was told
    Instant failure_told_at_{};
    unsigned failures_forgiven_ = 0;    // of failed_reconnects_: they happened before the local port came up
    unsigned failed_replacements_ = 0;  // of single channels since one succeeded
    Instant lost_at_{};                 // the last channel of a login that was up
    unsigned iu_attempt_ = 0;
    srp::LoginParameters effective_;  // parameters after shrinking the IU
    PortFacts facts_;
    std::string last_error_;
    std::function<void(Result<PortFacts>)> on_login_result_;
    reactor::Timer reconnect_timer_;
    reactor::Timer fast_io_fail_timer_;
    reactor::Timer dev_loss_timer_;
    reactor::Timer suspension_timer_;  // of connections that live on while the local port is down
};

}  // namespace srpfs::initiator
