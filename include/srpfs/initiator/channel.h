// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// One login to one SRP target port over one reliable connection.
//
// Owned by a TargetLink; lives on that link's reactor and is never touched from another thread.
// Life: idle -> connecting -> live -> draining -> dead. A dead channel is replaced, not revived, so no late completion
// can meet a new login. A channel never retries anything: lun::Operation does.

#pragma once

#include <srpfs/base/count.h>
#include <srpfs/base/intrusive_list.h>
#include <srpfs/base/latency.h>
#include <srpfs/base/random.h>
#include <srpfs/fabric/fabric.h>
#include <srpfs/initiator/command.h>
#include <srpfs/reactor/timer_queue.h>
#include <srpfs/srp/login_string.h>
#include <srpfs/srp/srp.h>

#include <array>
#include <atomic>
#include <memory>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace srpfs::initiator {

// The local RDMA port a login has to leave by.
struct WantedPort {
    std::string device;
    unsigned port = 1;
    std::uint64_t guid = 0;  // 0: any; else the device of that name must still be the same
};

// When a silent target is noticed: see PathChecker. The defaults are those of decisions 28: within 5 s.
struct PathLimits {
    std::optional<Duration> interval =
        std::chrono::seconds(2);                 // without a sign of life, then it is asked; empty: never
    Duration timeout = std::chrono::seconds(3);  // for any sign of life after that
    // How long a target may be silent before its channels are ended.
    [[nodiscard]] Duration silence_max() const {
        return interval ? *interval + timeout : Duration(std::chrono::seconds(5));
    }
};

struct ChannelConfig {
    std::string name;         // for the log: "10.9.9.1:5555/ch0"
    unsigned index = 0;       // within its target port
    std::uint64_t epoch = 0;  // of its target port's login
    fabric::Address address;
    srp::LoginParameters parameters;
    srp::MultiChannel action = srp::MultiChannel::single;
    bool replacement = false;        // joins channels that live: see TargetLink::on_channel_live
    bool restart_suspected = false;  // the target may have restarted since the login before this one
    Duration login_timeout = std::chrono::seconds(10);
    Duration command_time = std::chrono::seconds(30);  // the kernel's for disks
    std::optional<std::uint8_t> ack_timeout;           // see fabric::ConnectionLimits
    PathLimits path;
    std::optional<WantedPort> wanted_port;  // empty: wherever the route leads
    // Asked once the local port is known, before anything is sent; an Error ends the login with it. Reactor thread.
    std::function<Result<void>(const fabric::LocalPort&)> admit;
};

enum class ChannelState : std::uint8_t { idle, connecting, live, draining, dead };
[[nodiscard]] const char* to_string(ChannelState state);

// Why a login did not succeed or a channel ended, for program and person.
struct ChannelEnd {
    fabric::EndReason reason = fabric::EndReason::closed;
    int errno_value = 0;
    std::string text;
    bool was_live = false;
    bool smaller_iu_may_help = false;  // login reject 00010002
    bool timed_out = false;            // the login timer ended it
    bool replace_at_once = false;      // drained on purpose: log in again without delay
    std::optional<srp::RejectReason> reject;
};

// What a live channel negotiated.
struct ChannelFacts {
    std::int32_t credits_initial = 0;
    std::uint32_t it_iu_bytes_max = 0;  // usable: minimum of ours and the target's
    std::uint32_t ti_iu_bytes_max = 0;
    std::uint32_t immediate_bytes_max = 0;  // 0: no immediate data
    fabric::LocalPort port;
};

struct ChannelCounters {
    Count commands, responses, task_management, out_of_credits, unknown_tags, malformed, timeouts, credit_requests,
        async_events, path_checks;
    // Of commands that have ended, path checks left out. Those that succeeded: the data they carried, and the time from
    // sending them to being done with their answer. The others: why.
    Count bytes_read, bytes_written;
    LatencyHistogram read_latency, write_latency, other_latency;  // data in, data out, no data
    std::array<Count, command_faults> errors_by_kind;
};

// Written by the channel's reactor, read by anybody; the parts one after the other.
struct ChannelGauges {
    explicit ChannelGauges(unsigned index_) : index(index_) {}
    const unsigned index;  // within its target port
    std::atomic<ChannelState> state = ChannelState::idle;
    std::atomic<std::int32_t> credits{0}, credits_initial{0};
    std::atomic<unsigned> in_flight{0};
    ChannelCounters counters;
};

// How long a draining channel waits for commands that have nothing to do with the reason.
inline constexpr Duration drain_time_max = std::chrono::seconds(5);

class ChannelListener {
public:
    virtual void on_channel_live(Channel& channel) = 0;
    // Commands in flight end (connection_lost or aborted) just before on_channel_gone, when nothing can touch their
    // memory any more.
    virtual void on_channel_ended(Channel& channel, const ChannelEnd& end) = 0;
    virtual void on_channel_gone(Channel& channel) = 0;  // may be destroyed from a later turn on
    virtual void on_channel_room(Channel& channel) = 0;  // submit() may succeed again
    // Commands have reached their time limit: find_expired() tells which. What becomes of them is the listener's to
    // decide (ABORT TASK, LUN RESET, fail()); told once for each command.
    virtual void on_commands_expired(Channel& channel) = 0;
    virtual void on_async_event(Channel& channel, const scsi::Lun& lun, const scsi::Sense& sense) = 0;

protected:
    ~ChannelListener() = default;
};

// One task management function. Lives in its owner from submit to on_done.
struct TaskRequest {
    srp::TaskFunction function = srp::TaskFunction::lun_reset;
    scsi::Lun lun{};
    srp::Tag managed_tag = 0;
    Duration time_limit = std::chrono::seconds(5);
    // nullopt: no answer in time, or the connection was lost.
    std::function<void(std::optional<srp::TaskCode>)> on_done;
};

class Channel final : private fabric::ConnectionHandler {
public:
    Channel(fabric::Fabric& fabric, reactor::TimerQueue& timers, ChannelConfig config, ChannelListener& listener);
    ~Channel();  // idle, or gone

    // Ends in on_channel_live, or in on_channel_ended and on_channel_gone (always in a later turn).
    void connect();
    // Takes the command now, or answers false: not live, no credit, or no tag. On true, on_command_done() comes exactly
    // once, from a later turn.
    [[nodiscard]] bool submit(Command& command);
    // One at a time per channel. False: not live, no credit, or another one is under way.
    [[nodiscard]] bool submit(TaskRequest& request);
    // Accepts nothing new; ends when every command has been answered that task management has not ended, at the latest
    // after drain_time_max. The target may still touch the memory of the others until then.
    void drain(std::string why);
    void disconnect(std::string why);
    // As if the connection had been lost: the target does not answer any more.
    void fail(std::string why);

    // The time limit of `command`, which is in flight here, is over now.
    void expire(Command& command);
    // The command that is past its time limit for longest and that no task management has dealt with; null: none.
    [[nodiscard]] Command* find_expired() const;
    [[nodiscard]] Command* find(srp::Tag tag) const;  // in flight
    // ABORT TASK has succeeded. False: the command has been answered meanwhile. One that stays unanswered makes the
    // channel drain after 2 s: the target may be writing into its memory (decisions 2). If that is open through a
    // window, the window is closed instead.
    bool settle_abort(srp::Tag tag);

    // Marks the commands for this unit that are in flight as covered by a LUN RESET that is about to be sent.
    // Returns how many there are.
    unsigned mark_for_fence(const scsi::Lun& lun);
    // The LUN RESET succeeded or failed. Success proves that what is still marked cannot run any more if it was sent
    // before on the same channel (`carrier`), or by a channel that had ended before; on another channel a command may
    // have been overtaken. A channel that was lost in between has proved nothing (decisions 1, 4).
    void settle_fence(const scsi::Lun& lun, bool succeeded, bool carrier);
    // Commands of the unit that are not waited for any more, but have not ended.
    [[nodiscard]] unsigned fenced_in_flight(const scsi::Lun& lun) const;

    [[nodiscard]] ChannelState state() const { return state_; }
    [[nodiscard]] const ChannelConfig& config() const { return config_; }
    [[nodiscard]] const ChannelFacts& facts() const { return facts_; }
    [[nodiscard]] const ChannelCounters& counters() const { return gauges_->counters; }
    [[nodiscard]] std::shared_ptr<const ChannelGauges> gauges() const { return gauges_; }
    [[nodiscard]] std::int32_t credits() const { return credits_; }
    [[nodiscard]] unsigned in_flight() const { return in_flight_; }
    // For commands without privileges, of a channel that is live.
    [[nodiscard]] unsigned free_places() const;
    // ChannelListener::on_channel_room() follows when one of the commands in flight has ended.
    void tell_when_room() { room_wanted_ = true; }
    // The same for one that has to wait because the places that are free are kept for others. Counted as a refusal.
    void withhold_place();
    [[nodiscard]] bool has_room(bool privileged) const;
    [[nodiscard]] bool is_gone() const { return gone_; }
    // Since when nothing has been heard of the target.
    [[nodiscard]] Instant last_heard() const { return last_heard_; }

private:
    struct Slot {
        Command* command = nullptr;
        fabric::Grant grant{};    // of the command's memory
        Command* over = nullptr;  // in the place of command, until its grant is revoked
        std::uint64_t generation = 1;
        std::uint32_t next_free = 0;
    };

    std::span<const std::byte> on_route(const fabric::LocalPort& port) override;
    std::optional<fabric::ReceiveRing> on_reply(std::span<const std::byte> private_data) override;
    void on_established() override;
    void on_received(std::span<const std::byte> message) override;
    void on_revoked(std::uint64_t context) override;
    void on_ended(const fabric::End& end) override;
    void on_gone() override;

    void enter(ChannelState state);
    void on_response(std::span<const std::byte> message);
    void on_credit_request(std::span<const std::byte> message);
    void on_async(std::span<const std::byte> message);
    void on_task_response(const srp::Response& response);
    void on_strange_tag(srp::Tag tag);
    bool grant_credits(std::int32_t delta);
    void check_deadlines();
    void watch_deadline(Instant deadline);
    void want_room();
    void watch_credits();
    void tell_room();
    void check_starvation();
    void finish_drain_if_empty();
    void free_slot(std::uint32_t index);
    void conclude(Command& command, Command::Fence fence);
    void close(std::uint32_t index);
    void finish(std::uint32_t index);
    void count(const Command& command);
    void refuse(int errno_value, std::string text);
    [[nodiscard]] std::int32_t reserve(bool privileged) const;
    void publish() {
        gauges_->credits.store(credits_, std::memory_order_relaxed);
        gauges_->in_flight.store(in_flight_, std::memory_order_relaxed);
    }

    // Written for every command.
    std::int32_t credits_ = 0;
    unsigned in_flight_ = 0;
    std::uint32_t free_slot_ = 0;
    std::vector<Slot> slots_;
    Instant last_heard_{};
    bool room_wanted_ = false;    // a submit() was refused: tell when there is room
    bool ordinary_sent_ = false;  // a command without privileges, since starvation_timer_ was armed

    // Read for every command.
    const std::shared_ptr<ChannelGauges> gauges_;
    fabric::Connection* connection_ = nullptr;
    ChannelState state_ = ChannelState::idle;
    ChannelFacts facts_;

    // The rest.
    fabric::Fabric& fabric_;
    reactor::TimerQueue& timers_;
    ChannelConfig config_;
    ChannelListener& listener_;
    reactor::Timer login_timer_;
    reactor::Timer deadline_timer_;
    reactor::Timer drain_timer_;
    reactor::Timer task_timer_;
    reactor::Timer starvation_timer_;  // armed while somebody waits for credit
    TaskRequest* task_ = nullptr;
    srp::Tag task_tag_ = 0;
    std::uint64_t task_sequence_ = 0;
    std::vector<std::byte> login_bytes_;
    std::uint32_t requested_it_iu_bytes_ = 0;
    ChannelEnd end_;  // the first cause wins
    bool end_decided_ = false;
    bool ended_ = false;
    bool gone_ = false;
    bool failing_ = false;               // disconnect() was called: on_ended comes
    std::vector<Instant> strange_tags_;  // of the last minute
};

}  // namespace srpfs::initiator
