// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What goes wrong in a run: kinds of trouble drawn from the seed, most of them switched off entirely in any one run, so
// that each combination gets its day.

#pragma once

#include <srpfs/base/random.h>
#include <srpfs/fabric/loopback.h>
#include <srpfs/target/behaviour.h>

#include <bitset>
#include <cstdint>
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
    count
};
inline constexpr auto fault_count = static_cast<unsigned>(Fault::count);
[[nodiscard]] const char* to_string(Fault fault);

class FaultPlan {
public:
    explicit FaultPlan(Random& random);
    // Only these (for tests of one thing).
    explicit FaultPlan(std::initializer_list<Fault> only);
    [[nodiscard]] bool has(Fault fault) const { return enabled_[static_cast<unsigned>(fault)]; }
    [[nodiscard]] std::string describe() const;

    unsigned commands_per_fault = 40;  // one in so many
    unsigned messages_per_break = 2000;
    unsigned messages_per_silence = 3000;
    Duration message_delay_max = std::chrono::milliseconds(5);
    Duration command_delay_max = std::chrono::milliseconds(100);
    Duration late_max = std::chrono::seconds(45);

private:
    std::bitset<fault_count> enabled_;
};

class SimulatedNetwork final : public fabric::FaultInjector {
public:
    SimulatedNetwork(const FaultPlan& plan, std::uint64_t seed) : plan_(plan), random_(seed) {}
    bool active = true;

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
    bool grants_all = false;  // logins are accepted whatever the plan says
    // Channels whose credits cannot be right any more, because of what was said to them.
    std::set<target::ChannelId> lied_about_credits;

    target::CommandPlan on_command(const target::CommandView& command) override;
    void on_response(const target::CommandView& command, target::ResponsePlan& plan) override;
    target::TaskManagementPlan on_task_management(target::ChannelId channel,
                                                  const srp::TaskManagement& request) override;
    std::int32_t credits(target::ChannelId channel, std::int32_t owed) override;
    std::optional<srp::RejectReason> on_login(const srp::LoginRequest& login, unsigned channels) override;
    bool grants_immediate_data(const srp::LoginRequest& login) override;

private:
    [[nodiscard]] bool strikes(Fault fault, unsigned times_rarer = 1);
    Duration up_to(Duration most);
    const FaultPlan& plan_;
    Random random_;
};

}  // namespace srpfs::simulation
