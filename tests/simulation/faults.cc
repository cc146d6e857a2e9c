// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "faults.h"

#include <algorithm>
#include <array>
#include <iterator>

namespace srpfs::simulation {

using namespace std::chrono_literals;

const char* to_string(Fault fault) {
    switch (fault) {
        case Fault::delayed_messages: return "delayed_messages";
        case Fault::broken_connections: return "broken_connections";
        case Fault::silent_peer: return "silent_peer";
        case Fault::swallowed_connects: return "swallowed_connects";
        case Fault::slow_connects: return "slow_connects";
        case Fault::slow_destruction: return "slow_destruction";
        case Fault::link_flaps: return "link_flaps";
        case Fault::slow_commands: return "slow_commands";
        case Fault::late_writes: return "late_writes";
        case Fault::slow_responses: return "slow_responses";
        case Fault::busy: return "busy";
        case Fault::task_set_full: return "task_set_full";
        case Fault::attentions: return "attentions";
        case Fault::sense: return "sense";
        case Fault::task_aborted: return "task_aborted";
        case Fault::no_answer: return "no_answer";
        case Fault::credit_starvation: return "credit_starvation";
        case Fault::no_task_answer: return "no_task_answer";
        case Fault::slow_task_answer: return "slow_task_answer";
        case Fault::task_failure: return "task_failure";
        case Fault::rejected_logins: return "rejected_logins";
        case Fault::fewer_channels: return "fewer_channels";
        case Fault::crash: return "crash";
        case Fault::cache_loss: return "cache_loss";
        case Fault::disabled: return "disabled";
        case Fault::dropped_channels: return "dropped_channels";
        case Fault::logouts_by_target: return "logouts_by_target";
        case Fault::credit_requests: return "credit_requests";
        case Fault::async_events: return "async_events";
        case Fault::lost_lun: return "lost_lun";
        case Fault::swapped_lun: return "swapped_lun";
        case Fault::grown_lun: return "grown_lun";
        case Fault::read_only_lun: return "read_only_lun";
        case Fault::wrong_tags: return "wrong_tags";
        case Fault::repeated_responses: return "repeated_responses";
        case Fault::short_units: return "short_units";
        case Fault::length_lies: return "length_lies";
        case Fault::credit_lies: return "credit_lies";
        case Fault::residual_lies: return "residual_lies";
        case Fault::interrupts: return "interrupts";
        case Fault::host_resets: return "host_resets";
        case Fault::lun_resets: return "lun_resets";
        case Fault::logouts: return "logouts";
        case Fault::rescans: return "rescans";
        case Fault::slow_mail: return "slow_mail";
        case Fault::black_hole: return "black_hole";
        case Fault::device_removal: return "device_removal";
        case Fault::link_flickers: return "link_flickers";
        case Fault::overtaken_writes: return "overtaken_writes";
        case Fault::overtaken_tasks: return "overtaken_tasks";
        case Fault::slow_channel: return "slow_channel";
        case Fault::fewer_after_all: return "fewer_after_all";
        case Fault::clock_jumps: return "clock_jumps";
        case Fault::added_lun: return "added_lun";
        case Fault::shrunk_lun: return "shrunk_lun";
        case Fault::reordered_luns: return "reordered_luns";
        case Fault::live_swaps: return "live_swaps";
        case Fault::failed_flushes: return "failed_flushes";
        case Fault::count: break;
    }
    return "?";
}

namespace {

std::uint64_t scrambled(std::uint64_t value) {
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9ULL;
    value = (value ^ value >> 27) * 0x94d049bb133111ebULL;
    return value ^ value >> 31;
}

// What may keep a request waiting, and no more.
bool is_delay(Fault fault) {
    switch (fault) {
        case Fault::delayed_messages:
        case Fault::broken_connections:
        case Fault::silent_peer:
        case Fault::swallowed_connects:
        case Fault::slow_connects:
        case Fault::slow_destruction:
        case Fault::link_flaps:
        case Fault::slow_commands:
        case Fault::late_writes:
        case Fault::slow_responses:
        case Fault::busy:
        case Fault::task_set_full:
        case Fault::no_answer:
        case Fault::credit_starvation:
        case Fault::no_task_answer:
        case Fault::slow_task_answer:
        case Fault::task_failure:
        case Fault::rejected_logins:
        case Fault::fewer_channels:
        case Fault::crash:
        case Fault::cache_loss:
        case Fault::disabled:
        case Fault::dropped_channels:
        case Fault::logouts_by_target:
        case Fault::credit_requests:
        case Fault::async_events:
        case Fault::interrupts:
        case Fault::host_resets:
        case Fault::lun_resets:
        case Fault::rescans:
        case Fault::slow_mail:
        case Fault::black_hole:
        case Fault::device_removal:
        case Fault::link_flickers:
        case Fault::overtaken_writes:
        case Fault::overtaken_tasks:
        case Fault::slow_channel:
        case Fault::fewer_after_all: return true;
        case Fault::attentions:    // as many as one command may meet
        case Fault::sense:         // errors by themselves
        case Fault::task_aborted:  // five times, and it is one
        case Fault::lost_lun:
        case Fault::swapped_lun:
        case Fault::grown_lun:
        case Fault::read_only_lun:
        case Fault::wrong_tags:  // as if there were no answer, and hostile
        case Fault::repeated_responses:
        case Fault::short_units:
        case Fault::length_lies:
        case Fault::credit_lies:
        case Fault::residual_lies:
        case Fault::logouts:
        case Fault::clock_jumps:  // past every deadline
        case Fault::added_lun:
        case Fault::shrunk_lun:
        case Fault::reordered_luns:
        case Fault::live_swaps:
        case Fault::failed_flushes:
        case Fault::count: return false;
    }
    return false;
}

}  // namespace

FaultPlan::FaultPlan(std::uint64_t seed, Random& random) {
    // One run in twelve is all well; otherwise about one kind in eight, so that each has room to show its effect.
    const unsigned one_in = random.chance(1, 12) ? 0 : static_cast<unsigned>(random.between(4, 14));
    // One in six has nothing that excuses an error.
    const bool delays_only = random.chance(1, 6);
    for (unsigned i = 0; i < fault_count; ++i) {
        // Not one sequence for all: a new kind does not change the draws of the others.
        const std::uint64_t own = scrambled(seed * 0x9e3779b97f4a7c15ULL + i);
        const bool is_allowed = !delays_only || is_delay(static_cast<Fault>(i));
        enabled_[i] = one_in != 0 && is_allowed && own % (delays_only ? (one_in + 1) / 2 : one_in) == 0;
    }
    commands_per_fault = static_cast<unsigned>(random.between(8, 120));
    messages_per_break = static_cast<unsigned>(random.between(200, 3000));
    messages_per_silence = static_cast<unsigned>(random.between(500, 4000));
    constexpr Duration delays[] = {50us, 1ms, 20ms, 400ms};
    message_delay_max = delays[random.below(4)];
    command_delay_max = delays[random.below(4)] * 10;
    late_max = std::chrono::seconds(random.between(1, 60));
    slow_channel_delay_max = delays[random.below(4)] * 5;
    slow_channel_of = static_cast<unsigned>(random.between(2, 4));
}

FaultPlan::FaultPlan(std::initializer_list<Fault> only) {
    for (const Fault fault : only) enabled_[static_cast<unsigned>(fault)] = true;
}

std::string FaultPlan::describe() const {
    std::string text;
    for (unsigned i = 0; i < fault_count; ++i)
        if (enabled_[i]) text += std::string(text.empty() ? "" : " ") + to_string(static_cast<Fault>(i));
    return text.empty() ? "none" : text;
}

bool FaultPlan::only_delays() const {
    for (unsigned i = 0; i < fault_count; ++i)
        if (enabled_[i] && !is_delay(static_cast<Fault>(i))) return false;
    return true;
}

bool FaultPlan::loses_answers() const {
    constexpr Fault kinds[] = {
        Fault::broken_connections, Fault::silent_peer,     Fault::link_flaps,        Fault::slow_commands,
        Fault::slow_responses,     Fault::no_answer,       Fault::credit_starvation, Fault::crash,
        Fault::cache_loss,         Fault::disabled,        Fault::dropped_channels,  Fault::logouts_by_target,
        Fault::lost_lun,           Fault::swapped_lun,     Fault::wrong_tags,        Fault::repeated_responses,
        Fault::short_units,        Fault::length_lies,     Fault::credit_lies,       Fault::residual_lies,
        Fault::host_resets,        Fault::lun_resets,      Fault::logouts,           Fault::black_hole,
        Fault::device_removal,     Fault::link_flickers,   Fault::overtaken_writes,  Fault::overtaken_tasks,
        Fault::slow_channel,       Fault::fewer_after_all, Fault::clock_jumps,       Fault::shrunk_lun,
        Fault::reordered_luns,     Fault::live_swaps};
    return std::any_of(std::begin(kinds), std::end(kinds), [this](Fault kind) { return has(kind); });
}

// ---- network ----

Duration SimulatedNetwork::up_to(Duration most) {
    return Duration(static_cast<Duration::rep>(random_.below(static_cast<std::uint64_t>(most.count()) + 1)));
}

Duration SimulatedNetwork::message_delay(Direction) {
    if (!active || !plan_.has(Fault::delayed_messages)) return {};
    // Mostly short, now and then the longest.
    return random_.chance(1, 8) ? up_to(plan_.message_delay_max) : up_to(plan_.message_delay_max / 64);
}

bool SimulatedNetwork::breaks(Direction) {
    return active && plan_.has(Fault::broken_connections) && random_.chance(1, plan_.messages_per_break);
}

bool SimulatedNetwork::loses(Direction) {
    if (active && is_black_hole) return true;
    return active && plan_.has(Fault::silent_peer) && random_.chance(1, plan_.messages_per_silence);
}

bool SimulatedNetwork::swallows_connect() {
    if (active && is_black_hole) return true;
    return active && plan_.has(Fault::swallowed_connects) && random_.chance(1, 3);
}

Duration SimulatedNetwork::connect_delay() {
    return active && plan_.has(Fault::slow_connects) ? up_to(4s) : Duration{};
}

Duration SimulatedNetwork::gone_delay() {
    return active && plan_.has(Fault::slow_destruction) ? up_to(random_.chance(1, 6) ? Duration(8s) : Duration(50ms))
                                                        : Duration{};
}

// ---- target ----

Duration SimulatedTarget::up_to(Duration most) {
    return Duration(static_cast<Duration::rep>(random_.below(static_cast<std::uint64_t>(most.count()) + 1)));
}

bool SimulatedTarget::strikes(Fault fault, unsigned times_rarer) {
    return active && plan_.has(fault) && random_.chance(1, std::uint64_t{plan_.commands_per_fault} * times_rarer);
}

target::CommandPlan SimulatedTarget::on_command(const target::CommandView& command) {
    if (on_arrival) on_arrival(command);
    target::CommandPlan plan;
    const auto opcode = static_cast<std::uint8_t>(command.cdb[0]);
    const bool is_write = command.direction == srp::DataDirection::to_target;
    const bool is_data = is_write || opcode == scsi::opcode::read_10 || opcode == scsi::opcode::read_16;
    const auto answer = [&](scsi::Status status) { plan.status = status; };
    const auto complain = [&](scsi::SenseKey key, std::uint8_t asc, std::uint8_t ascq) {
        plan.status = scsi::Status::check_condition;
        scsi::Sense sense;
        sense.valid = true;
        sense.key = key;
        sense.asc = asc;
        sense.ascq = ascq;
        plan.sense = sense;
    };
    if (strikes(Fault::slow_commands)) plan.delay = up_to(plan_.command_delay_max);
    if (is_write && strikes(Fault::late_writes)) {
        plan.delay = up_to(plan_.late_max);
        plan.abort_waits = random_.chance(1, 2);
    }
    if (is_write && strikes(Fault::overtaken_writes, 2)) {
        plan.delay = 1s + up_to(plan_.late_max);
        plan.abort_waits = random_.chance(1, 4);
        if (cut) cut(command.channel);
    }
    if (active && plan_.has(Fault::slow_channel) && command.channel % plan_.slow_channel_of == 0)
        plan.response_delay = up_to(plan_.slow_channel_delay_max);
    if (strikes(Fault::slow_responses)) plan.response_delay = up_to(plan_.command_delay_max);
    if (strikes(Fault::busy)) answer(scsi::Status::busy);
    if (strikes(Fault::task_set_full)) answer(scsi::Status::task_set_full);
    if (strikes(Fault::task_aborted, 2)) answer(scsi::Status::task_aborted);
    if (strikes(Fault::attentions, 4)) {
        constexpr std::array<std::array<std::uint8_t, 2>, 10> kinds{{{0x29, 0x00},
                                                                     {0x29, 0x01},
                                                                     {0x29, 0x02},
                                                                     {0x29, 0x03},
                                                                     {0x29, 0x04},
                                                                     {0x2a, 0x01},
                                                                     {0x2a, 0x09},
                                                                     {0x2a, 0x06},
                                                                     {0x3f, 0x0e},
                                                                     {0x28, 0x00}}};
        const auto& kind = kinds[random_.below(kinds.size())];
        complain(scsi::SenseKey::unit_attention, kind[0], kind[1]);
    }
    if ((opcode == scsi::opcode::synchronize_cache_10 || opcode == scsi::opcode::synchronize_cache_16) &&
        !plan.status && active && plan_.has(Fault::failed_flushes) && !plan_.loses_answers() && random_.chance(1, 8)) {
        complain(scsi::SenseKey::medium_error, 0x0c, 0x00);
        if (on_flush_failed) on_flush_failed(command.lun);
    }
    if (is_data && strikes(Fault::sense, 2)) {
        switch (random_.below(6)) {
            case 0: complain(scsi::SenseKey::aborted_command, 0x47, 0x00); break;
            case 1: complain(scsi::SenseKey::not_ready, 0x04, 0x01); break;
            case 2: complain(scsi::SenseKey::medium_error, 0x11, 0x00); break;
            case 3: complain(scsi::SenseKey::hardware_error, 0x44, 0x00); break;
            case 4: complain(scsi::SenseKey::medium_error, 0x0c, 0x00); break;
            default: plan.status = scsi::Status::check_condition; break;  // without sense data
        }
    }
    return plan;
}

void SimulatedTarget::on_response(const target::CommandView& command, target::ResponsePlan& plan) {
    if (strikes(Fault::no_answer, 4)) plan.lost = true;
    if (strikes(Fault::wrong_tags, 2)) {
        // A tag of before, or one that never was: those in flight belong to others.
        plan.tag = random_.chance(1, 2) ? command.tag - (std::uint64_t{1} << 16) : random_.next() | 1U << 15;
    }
    if (strikes(Fault::repeated_responses)) {
        plan.copies = static_cast<unsigned>(random_.between(2, 3));
        lied_about_credits.insert(command.channel);
    }
    // Not empty: that would not be sent at all, and its credit be lost for ever.
    if (strikes(Fault::short_units, 2)) plan.length = static_cast<std::size_t>(1 + random_.below(39));
    if (strikes(Fault::length_lies)) {
        const std::uint32_t lies[] = {0, 1, 17, 97, 1000, 0x7fffffff, 0x80000000, 0xffffffff};
        if (random_.chance(1, 2))
            plan.sense_bytes = lies[random_.below(8)];
        else
            plan.response_data_bytes = lies[random_.below(8)];
    }
    if (strikes(Fault::credit_lies, 2)) {
        const std::int32_t lies[] = {INT32_MAX, INT32_MIN, -1, -100, 5, 1000, 0};
        plan.credit_delta = lies[random_.below(7)];
        lied_about_credits.insert(command.channel);
    }
    if (strikes(Fault::residual_lies)) {
        const std::uint32_t lies[] = {1, 511, 512, 4096, 0xffffffff};
        (command.direction == srp::DataDirection::to_target ? plan.data_out_residual : plan.data_in_residual) =
            lies[random_.below(5)];
    }
}

target::TaskManagementPlan SimulatedTarget::on_task_management(target::ChannelId, const srp::TaskManagement&) {
    target::TaskManagementPlan plan;
    if (!active) return plan;
    if (plan_.has(Fault::no_task_answer) && random_.chance(1, 2)) plan.answered = false;
    if (plan_.has(Fault::slow_task_answer) && random_.chance(1, 2)) plan.delay = up_to(8s);
    if (plan_.has(Fault::overtaken_tasks) && random_.chance(1, 2)) plan.overtaken_by = 1ns + up_to(5s);
    if (plan_.has(Fault::task_failure) && random_.chance(1, 2))
        plan.code = random_.chance(1, 2) ? srp::TaskCode::failed : srp::TaskCode::not_supported;
    return plan;
}

std::int32_t SimulatedTarget::credits(target::ChannelId, std::int32_t owed) {
    if (!active || !plan_.has(Fault::credit_starvation)) return owed;
    switch (random_.below(4)) {
        case 0: return owed;
        case 1: return 0;
        default: return static_cast<std::int32_t>(random_.below(static_cast<std::uint64_t>(owed) + 1));
    }
}

std::optional<srp::RejectReason> SimulatedTarget::on_login(const srp::LoginRequest& login, unsigned channels) {
    if (!active || grants_all) return std::nullopt;
    if (plan_.has(Fault::fewer_channels) && login.multi_channel == srp::MultiChannel::multi && channels >= 1 &&
        random_.chance(2, 3))
        return srp::RejectReason::channel_limit;
    if (channels_max != 0 && login.multi_channel == srp::MultiChannel::multi && channels >= channels_max)
        return srp::RejectReason::channel_limit;
    if (plan_.has(Fault::rejected_logins) && random_.chance(1, 3)) {
        constexpr srp::RejectReason reasons[] = {
            srp::RejectReason::unspecified, srp::RejectReason::insufficient_resources,
            srp::RejectReason::it_iu_too_large, srp::RejectReason::no_association, srp::RejectReason::channel_limit};
        return reasons[random_.below(5)];
    }
    return std::nullopt;
}

bool SimulatedTarget::grants_immediate_data(const srp::LoginRequest& login) {
    // Some targets do, some do not, and some change their mind with a new version.
    return !(active && plan_.has(Fault::rejected_logins)) || login.multi_channel == srp::MultiChannel::multi ||
           random_.chance(1, 2);
}

}  // namespace srpfs::simulation
