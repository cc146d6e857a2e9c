// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The channels that one reactor has to one target port, and whether I/O may use them. Created and destroyed by the
// TargetPort (control thread), used on its reactor only.

#pragma once

#include <srpfs/initiator/channel.h>
#include <srpfs/initiator/task_manager.h>
#include <srpfs/reactor/executor.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace srpfs::initiator {

// The kernel's remote port states (scsi_transport_srp), as they act on I/O.
enum class PortState : std::uint8_t {
    connecting,  // before the first login has succeeded
    running,
    blocked,    // I/O waits
    fail_fast,  // I/O fails at once; reconnecting goes on
    lost,       // final
};
[[nodiscard]] const char* to_string(PortState state);  // "running", "blocked", "fail-fast", "lost", "connecting"

enum class Submitted : std::uint8_t {
    sent,
    wait,  // no credit, or blocked: on_link_ready() follows
    fail_fast,
    lost,
};

struct LinkListenerTag {};
class LinkListener : public ListHook<LinkListenerTag> {
public:
    // There is room again; called once per wait_for_room().
    virtual void on_link_ready() = 0;
    // The port state has changed (after the link's own state).
    virtual void on_link_state(PortState state) = 0;
    // The last live channel has ended, whatever the port makes of it, or a new one has joined those that live: after
    // each login a unit has to be looked at before its I/O goes on (decisions 7).
    virtual void on_link_changed() {}
    // Logged in again after a loss that was not our own doing, before any command is sent: a volatile write cache may
    // be gone, and not every target says so (decisions 8).
    virtual void on_target_restart() {}
    // Asynchronous event or unit attention information that is not tied to a command.
    virtual void on_link_event(const scsi::Lun& lun, const scsi::Sense& sense) = 0;
    // What this channel had sent will not be answered any more; the commands end later, in on_command_done().
    virtual void on_channel_lost(const Channel& channel) = 0;
    // A LUN RESET for a unit, whoever asked for it. What was lost before on_reset_sent() cannot run any more once it
    // has succeeded (decisions 1).
    virtual void on_reset_sent(const scsi::Lun& lun) = 0;
    virtual void on_reset_over(const scsi::Lun& lun, bool succeeded) = 0;

protected:
    ~LinkListener() = default;
};

// What the owner of the link (TargetPort) is told, on the reactor's thread: it posts to its own.
class LinkOwner {
public:
    virtual void on_channel_live(unsigned index, std::uint64_t epoch, const ChannelFacts& facts) = 0;
    virtual void on_channel_ended(unsigned index, std::uint64_t epoch, const ChannelEnd& end) = 0;
    virtual void on_link_empty() = 0;  // the last channel is gone
    // What the fabric tells of its ports, any of them.
    virtual void on_port_change(const fabric::LocalPort& port, fabric::PortChange change) { (void)port, (void)change; }
    // After check_paths(): the target has been heard of on a channel of that login.
    virtual void on_path_alive(std::uint64_t epoch) { (void)epoch; }

protected:
    ~LinkOwner() = default;
};

// Numbers that other threads show; written by the link's reactor.
struct LinkGauges {
    std::atomic<unsigned> channels_live{0};
    Count zero_req_lim, commands;

    // Any thread. Of all channels there are, dead ones as well until they are buried.
    [[nodiscard]] std::vector<std::shared_ptr<const ChannelGauges>> channels() const;
    void set_channels(std::vector<std::shared_ptr<const ChannelGauges>> channels);
    [[nodiscard]] std::int32_t req_lim() const;  // the credits of the live channel that has least; 0 without one

private:
    mutable std::mutex mutex_;
    std::vector<std::shared_ptr<const ChannelGauges>> channels_;
};

// What each unit may have in flight, whatever others have.
inline constexpr unsigned assured_commands = 4;

class PathChecker;
class PathCheckers;

class TargetLink final : private ChannelListener, private TaskManagerHost, private fabric::PortListener {
public:
    TargetLink(std::string name, fabric::Fabric& fabric, reactor::TimerQueue& timers, LinkOwner& owner,
               const TaskLimits& limits = {});
    ~TargetLink();  // no channel may be left

    // ---- for the units on this reactor ----
    void attach(LinkListener& listener);
    void detach(LinkListener& listener);
    // One that sends commands as long as it may: a unit.
    void add_sharer() { ++sharers_; }
    void remove_sharer() { --sharers_; }
    // Whether one with so many commands in flight may send another, as far as the others are concerned. A few places
    // are left to those that have few in flight, so that they get on beside one that is not answered; the others are
    // had in turn by those that want more. False: listener.on_link_ready() follows when it is its turn.
    [[nodiscard]] bool leaves_room(LinkListener& listener, unsigned in_flight) {
        return sharers_ < 2 || in_flight < assured_commands || has_turn(listener);
    }
    // Round-robin over the live channels with room.
    [[nodiscard]] Submitted submit(Command& command);
    // After Submitted::wait: call listener.on_link_ready() once there is room. Idempotent.
    void wait_for_room(LinkListener& listener);
    [[nodiscard]] PortState state() const { return state_; }
    [[nodiscard]] unsigned live_channels() const { return static_cast<unsigned>(live_.size()); }
    // The largest write that travels inside its IU on every live channel.
    [[nodiscard]] std::uint32_t immediate_bytes_max() const { return immediate_bytes_max_; }
    [[nodiscard]] std::uint32_t command_bytes_max() const { return command_bytes_max_; }  // max_sect
    // LUN RESET for one unit (decisions 2, 4): commands in flight for it that stay unanswered end `aborted`, or
    // `connection_lost` where the reset may have overtaken them. Until it is over no command for the unit is sent
    // (Submitted::wait), so everything sent before `on_done` is covered. `on_done` gets success and, on failure, why.
    // One at a time per link; the others wait for their turn.
    void reset_unit(const scsi::Lun& lun, std::function<void(Result<void>)> on_done);
    // Tells the listeners as if the target had sent an asynchronous event: somebody met a unit attention that concerns
    // them all, and a target tells each only once.
    void tell_event(const scsi::Lun& lun, const scsi::Sense& sense);

    // ---- for the target port, by mail ----
    void set_state(PortState state);
    void open_channel(ChannelConfig config);
    void close_channels(const std::string& why);
    // The local port is down: silence is not the target's fault.
    void pause_path_checks();
    // It is up again: asks on every live channel whether the target is still there, ends those that stay silent for
    // `patience`, and tells the owner of the first that does not.
    void check_paths(Duration patience);
    // Of the login that there is, or was last; no two logins of a process have the same one. 0: there was none.
    [[nodiscard]] std::uint64_t incarnation() const { return incarnation_; }
    // Something has come from the target since, on a connection that is still there.
    [[nodiscard]] bool has_heard_since(Instant when) const;
    [[nodiscard]] bool is_empty() const { return channels_.empty(); }
    [[nodiscard]] const std::string& name() const { return name_; }
    [[nodiscard]] std::shared_ptr<const LinkGauges> gauges() const { return gauges_; }
    struct ChannelReport {
        unsigned index;
        ChannelState state;
        std::int32_t credits;
        unsigned in_flight;
        std::uint64_t commands;  // sent so far
        ChannelFacts facts;
    };
    [[nodiscard]] std::vector<ChannelReport> report() const;

private:
    // Asks on an old channel whether the target is still there.
    struct Proof final : CommandOwner {
        Proof(TargetLink& link_, Channel& channel) : link(link_), about(&channel) {}
        void on_command_done(Command& command) override;
        TargetLink& link;
        Channel* about;
        Command command;
        bool in_flight = false;
    };

    // A replacement is used only when one of the older channels has been heard of after its login: only then they are
    // channels to the same life of the target. If none is, they all end and a new login begins.
    void on_channel_live(Channel& channel) override;
    void on_channel_ended(Channel& channel, const ChannelEnd& end) override;
    void on_channel_gone(Channel& channel) override;
    void on_channel_room(Channel& channel) override;
    void on_async_event(Channel& channel, const scsi::Lun& lun, const scsi::Sense& sense) override;
    void on_port_change(const fabric::LocalPort& port, fabric::PortChange change) override;
    void on_commands_expired(Channel& channel) override;
    [[nodiscard]] const std::vector<std::unique_ptr<Channel>>& task_channels() const override { return channels_; }
    [[nodiscard]] const std::vector<Channel*>& reset_channels() const override;
    void on_reset_sent(const scsi::Lun& lun) override;
    void on_reset_over(const scsi::Lun& lun, bool succeeded) override;
    template <typename Call>
    void tell_listeners(Call call);
    [[nodiscard]] bool has_turn(LinkListener& listener);
    [[nodiscard]] bool has_place_to_share() const;
    void give_turns();
    void refresh();
    void wake_waiting();
    void wake_refused();
    void wake_all();
    void bury();
    void tell_changed();
    void ask_for_proof();
    [[nodiscard]] bool is_on_probation(const Channel& channel) const;
    void end_probation();

    std::string name_;
    fabric::Fabric& fabric_;
    reactor::TimerQueue& timers_;
    LinkOwner& owner_;
    PortState state_ = PortState::connecting;
    std::vector<std::unique_ptr<Channel>> channels_;
    std::unique_ptr<PathCheckers> checkers_;  // of channels_
    bool watches_ports_ = false;
    std::vector<Channel*> live_;
    std::size_t next_live_ = 0;
    unsigned sharers_ = 0;
    std::uint32_t immediate_bytes_max_ = 0;
    std::uint32_t command_bytes_max_ = 512 * 1024;
    IntrusiveList<LinkListener, LinkListenerTag> listeners_;
    std::vector<LinkListener*> waiting_;            // for room on any channel; they go before new commands
    std::vector<LinkListener*> choosy_;             // for room on one channel: nobody else has to wait for that
    std::vector<LinkListener*> held_;               // for the port to run, or for a LUN RESET to be over
    std::vector<LinkListener*> sharing_;            // for a place that is not left to those that have few in flight
    LinkListener* its_turn_ = nullptr;              // while it takes one of these
    std::vector<LinkListener*>* refused_ = &held_;  // where the last submit() belongs
    std::uint64_t sent_ = 0;
    std::vector<LinkListener*> waking_;
    bool waking_now_ = false;
    reactor::Timer burial_;  // destroys gone channels in a turn of its own
    reactor::Timer proof_timer_;
    std::vector<Channel*> probation_;  // live, but not used yet
    std::vector<std::unique_ptr<Proof>> proofs_;
    std::uint64_t epoch_ = 0;  // of the last login
    std::uint64_t incarnation_ = 0;
    bool foreign_loss_ = false;  // since then a channel has ended for no reason of ours
    TaskManager tasks_;
    std::shared_ptr<LinkGauges> gauges_ = std::make_shared<LinkGauges>();
};

}  // namespace srpfs::initiator
