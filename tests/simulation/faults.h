// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What goes wrong in a run: kinds of trouble drawn from the seed, most of them switched off entirely in any one run, so
// that each combination gets its day.

#pragma once

#include <srpfs/base/random.h>
#include <srpfs/fabric/loopback.h>
#include <srpfs/target/behaviour.h>

#include <bitset>
#include <cstdint>
#include <functional>
#include <set>
#include <string>

namespace srpfs::simulation {

enum class Fault : unsigned {
    // network
    delayed_messages,
    broken_connections,
    silent_peer,
    swallowed_connects,
    slow_connects,
    slow_destruction,  // on_gone() long after on_ended()
    link_flaps,
    // target, per command
    slow_commands,
    late_writes,
    slow_responses,
    busy,
    task_set_full,
    attentions,
    sense,
    task_aborted,
    no_answer,
    credit_starvation,
    // target, task management and logins
    no_task_answer,
    slow_task_answer,
    task_failure,
    rejected_logins,
    fewer_channels,
    // target, as a whole
    crash,
    cache_loss,
    disabled,
    dropped_channels,
    logouts_by_target,
    credit_requests,
    async_events,
    lost_lun,
    swapped_lun,
    grown_lun,
    read_only_lun,
    // hostile
    wrong_tags,
    repeated_responses,
    short_units,
    length_lies,
    credit_lies,
    residual_lies,
    // people
    interrupts,
    host_resets,
    lun_resets,
    logouts,
    rescans,
    // our own threads
    slow_mail,
    // Later additions come last: a seed's other kinds stay what they were.
    black_hole,        // for a while nothing arrives anywhere, and nobody is told
    device_removal,    // of the HCA, which comes back
    link_flickers,     // too short for connections to break
    overtaken_writes,  // a write is delayed in the target and its channel cut: the retry comes first
    overtaken_tasks,   // commands complete in the backend under a task management function, and answer after it
    slow_channel,      // one of several
    fewer_after_all,   // fewer channels after a reconnect than before it
    clock_jumps,       // as after a suspend: minutes pass in a moment
    added_lun,
    shrunk_lun,
    reordered_luns,  // between logins
    live_swaps,      // of a unit that is being read
    // The unit forgets what it could not write back. Who never hears of it cannot know, so only where each answer
    // arrives.
    failed_flushes,
    count
};
inline constexpr auto fault_count = static_cast<unsigned>(Fault::count);
[[nodiscard]] const char* to_string(Fault fault);

class FaultPlan {
public:
    // The kinds of a seed. Each is drawn on its own.
    FaultPlan(std::uint64_t seed, Random& random);
    // Only these (for tests of one thing).
    explicit FaultPlan(std::initializer_list<Fault> only);
    [[nodiscard]] bool has(Fault fault) const { return enabled_[static_cast<unsigned>(fault)]; }
    [[nodiscard]] std::string describe() const;
    // Answers may be lost on their way.
    [[nodiscard]] bool loses_answers() const;
    // None of the kinds gives a reason to fail a request while fast_io_fail_tmo is off: they only delay it.
    [[nodiscard]] bool only_delays() const;

    unsigned commands_per_fault = 40;  // one in so many
    unsigned messages_per_break = 2000;
    unsigned messages_per_silence = 3000;
    Duration message_delay_max = std::chrono::milliseconds(5);
    Duration command_delay_max = std::chrono::milliseconds(100);
    Duration late_max = std::chrono::seconds(45);
    Duration slow_channel_delay_max = std::chrono::milliseconds(500);
    unsigned slow_channel_of = 3;  // one channel in so many is slow

private:
    std::bitset<fault_count> enabled_;
};

class SimulatedNetwork final : public fabric::FaultInjector {
public:
    SimulatedNetwork(const FaultPlan& plan, std::uint64_t seed) : plan_(plan), random_(seed) {}
    bool active = true;
    bool is_black_hole = false;

    Duration message_delay(Direction direction) override;
    bool breaks(Direction direction) override;
    bool loses(Direction direction) override;
    bool swallows_connect() override;
    Duration connect_delay() override;
    Duration gone_delay() override;

private:
    Duration up_to(Duration most);
    const FaultPlan& plan_;
    Random random_;
};

class SimulatedTarget final : public target::Behaviour {
public:
    SimulatedTarget(const FaultPlan& plan, std::uint64_t seed) : plan_(plan), random_(seed) {}
    bool active = true;
    bool grants_all = false;    // logins are accepted whatever the plan says
    unsigned channels_max = 0;  // granted to one initiator; 0: no limit
    // A command has arrived.
    std::function<void(const target::CommandView&)> on_arrival;
    // A flush has failed, and nothing is left to be flushed.
    std::function<void(scsi::Lun)> on_flush_failed;
    // As Behaviour's.
    std::function<void(unsigned lun, const srp::PortId& initiator, std::span<const std::byte> cdb,
                       std::span<const std::byte> data)>
        on_reservation;
    // This channel is to be cut soon.
    std::function<void(target::ChannelId)> cut;
    // Channels whose credits cannot be right any more, because of what was said to them.
    std::set<target::ChannelId> lied_about_credits;

    target::CommandPlan on_command(const target::CommandView& command) override;
    void on_response(const target::CommandView& command, target::ResponsePlan& plan) override;
    target::TaskManagementPlan on_task_management(target::ChannelId channel,
                                                  const srp::TaskManagement& request) override;
    std::int32_t credits(target::ChannelId channel, std::int32_t owed) override;
    std::optional<srp::RejectReason> on_login(const srp::LoginRequest& login, unsigned channels) override;
    bool grants_immediate_data(const srp::LoginRequest& login) override;
    void on_reservation_command(unsigned lun, const srp::PortId& initiator, std::span<const std::byte> cdb,
                                std::span<const std::byte> data) override {
        if (on_reservation) on_reservation(lun, initiator, cdb, data);
    }

private:
    [[nodiscard]] bool strikes(Fault fault, unsigned times_rarer = 1);
    Duration up_to(Duration most);
    const FaultPlan& plan_;
    Random random_;
};

}  // namespace srpfs::simulation
