// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/initiator/channel.h>

#include <srpfs/base/log.h>

#include <algorithm>
#include <limits>

namespace srpfs::initiator {
namespace {

constexpr srp::Tag task_tag_bit = srp::Tag{1} << 63;  // command tags have it clear
constexpr unsigned slot_bits = 16;                    // of a command tag: slot index; above it the generation
constexpr srp::Tag slot_mask = (1U << slot_bits) - 1;
constexpr unsigned strange_tags_a_minute_max = 16;                            // decisions 23
constexpr std::uint32_t ti_iu_bytes_floor = 56, ti_iu_bytes_ceiling = 65536;  // srp-wire 6
// One response to a request of the target, one task management function (srp-wire 7), one check of the path.
constexpr unsigned extra_sends = 3;
constexpr unsigned check_slots = 1;            // beyond queue_size: a full queue of a silent target can still be asked
constexpr std::uint64_t no_slot = UINT64_MAX;  // of a grant that belongs to no command
constexpr unsigned slots_max = (1U << slot_bits) - check_slots;
// A target that owes credits for so long will not give them any more: as long as a command may take.
constexpr auto starvation_max = std::chrono::seconds(30);
// How long the answers of commands may take that task management has ended (decisions 2).
constexpr auto straggler_time = std::chrono::seconds(2);

int errno_of(fabric::EndReason reason, int suggested) {
    if (suggested > 0) return suggested;
    switch (reason) {
        case fabric::EndReason::refused_locally: return ECONNRESET;
        case fabric::EndReason::local_error: return EIO;
        case fabric::EndReason::address_unresolved: return ENXIO;
        case fabric::EndReason::route_unresolved: return EHOSTUNREACH;
        case fabric::EndReason::wrong_port: return ENXIO;
        case fabric::EndReason::unreachable: return EHOSTUNREACH;
        case fabric::EndReason::rejected: return ECONNREFUSED;
        case fabric::EndReason::peer_disconnected: return ECONNRESET;
        case fabric::EndReason::transport_error: return ECONNRESET;
        case fabric::EndReason::device_removed: return ENODEV;
        case fabric::EndReason::closed: return ECANCELED;
    }
    return EIO;
}

}  // namespace

const char* to_string(ChannelState state) {
    static constexpr const char* names[] = {"idle", "connecting", "live", "draining", "dead"};
    return names[static_cast<std::size_t>(state)];
}

const char* to_string(CommandFault fault) {
    static constexpr const char* names[] = {"check_condition", "busy",    "reservation_conflict", "task_set_full",
                                            "other_status",    "aborted", "connection_lost"};
    static_assert(std::size(names) == command_faults);
    return names[static_cast<std::size_t>(fault)];
}

std::optional<CommandFault> fault_of(const CommandResult& result) {
    switch (result.end) {
        case CommandEnd::answered: break;
        case CommandEnd::aborted: return CommandFault::aborted;
        case CommandEnd::connection_lost: return CommandFault::connection_lost;
    }
    switch (result.status) {
        case scsi::Status::good: return std::nullopt;
        case scsi::Status::check_condition: return CommandFault::check_condition;
        case scsi::Status::busy: return CommandFault::busy;
        case scsi::Status::reservation_conflict: return CommandFault::reservation_conflict;
        case scsi::Status::task_set_full: return CommandFault::task_set_full;
        case scsi::Status::condition_met:
        case scsi::Status::aca_active:
        case scsi::Status::task_aborted: break;
    }
    return CommandFault::other_status;
}

Channel::Channel(fabric::Fabric& fabric, reactor::TimerQueue& timers, ChannelConfig config, ChannelListener& listener)
    : gauges_(std::make_shared<ChannelGauges>(config.index)), fabric_(fabric), timers_(timers),
      config_(std::move(config)), listener_(listener),
      login_timer_(
          timers,
          [this] {
              end_.timed_out = true;
              refuse(ETIMEDOUT,
                     fmt::format("no answer to the login within {} s; is the target up and reachable on this address?",
                                 std::chrono::duration_cast<std::chrono::seconds>(config_.login_timeout).count()));
              connection_->disconnect();
          }),
      deadline_timer_(timers, [this] { check_deadlines(); }),
      drain_timer_(timers, [this] { connection_->disconnect(); }),
      task_timer_(timers,
                  [this] {
                      if (TaskRequest* task = std::exchange(task_, nullptr)) task->on_done(std::nullopt);
                  }),
      starvation_timer_(timers, [this] { check_starvation(); }) {}

Channel::~Channel() {
    SRPFS_ASSERT(state_ == ChannelState::idle || gone_);
    SRPFS_ASSERT(in_flight_ == 0);
}

void Channel::enter(ChannelState state) {
    const bool allowed =
        (state_ == ChannelState::idle && state == ChannelState::connecting) ||
        (state_ == ChannelState::connecting && (state == ChannelState::live || state == ChannelState::dead)) ||
        (state_ == ChannelState::live && (state == ChannelState::draining || state == ChannelState::dead)) ||
        (state_ == ChannelState::draining && state == ChannelState::dead);
    SRPFS_ASSERT(allowed);
    log::debug(config_.name, "{} -> {}", to_string(state_), to_string(state));
    state_ = state;
    gauges_->state.store(state, std::memory_order_relaxed);
}

// ---- login ----

void Channel::connect() {
    enter(ChannelState::connecting);
    requested_it_iu_bytes_ = srp::requested_it_iu_bytes(config_.parameters);

    fabric::ConnectionLimits limits;
    limits.sends_max = std::min(config_.parameters.queue_size, slots_max) + extra_sends;
    limits.message_bytes_max = requested_it_iu_bytes_;
    limits.retry_count = config_.parameters.tl_retry_count;
    limits.completion_vector = config_.parameters.comp_vector + config_.index;
    limits.ack_timeout = config_.ack_timeout;

    login_timer_.arm_after(config_.login_timeout);
    auto connection = fabric_.connect(config_.address, limits, *this);
    if (connection) {
        connection_ = *connection;
        return;
    }
    // Nothing was started, so nobody will call: tell the listener ourselves, in a later turn.
    refuse(connection.error().errno_value(), connection.error().context);
    login_timer_.disarm();
    deadline_timer_.arm_after(Duration::zero());
}

std::span<const std::byte> Channel::on_route(const fabric::LocalPort& port) {
    if (config_.wanted_port && (config_.wanted_port->device != port.device || config_.wanted_port->port != port.port)) {
        end_.reason = fabric::EndReason::wrong_port;
        refuse(
            ENXIO,
            fmt::format(
                "the route to {} leaves by port {} of {}, not by port {} of {}; log in through srp-{}-{}/add_target, "
                "or give a src= address of the wanted port",
                fabric::to_string(config_.address), port.port, port.device, config_.wanted_port->port,
                config_.wanted_port->device, port.device, port.port));
        return {};
    }
    if (config_.wanted_port && config_.wanted_port->guid != 0 && config_.wanted_port->guid != port.guid) {
        refuse(ENXIO, fmt::format("port {} of {} is another one now: its GUID is {:016x}, not {:016x}", port.port,
                                  port.device, port.guid, config_.wanted_port->guid));
        return {};
    }
    if (config_.admit) {
        if (const auto admitted = config_.admit(port); !admitted) {
            refuse(admitted.error().errno_value(), admitted.error().context);
            return {};
        }
    }
    facts_.port = port;

    srp::LoginRequest login;
    login.it_iu_bytes_max = requested_it_iu_bytes_;
    login.multi_channel = config_.action;
    login.immediate_data = config_.parameters.use_imm_data && config_.parameters.max_imm_data > 0;
    login.immediate_data_offset = login.immediate_data ? srp::immediate_data_offset : std::uint16_t{0};
    login.initiator_port = srp::initiator_port_id(config_.parameters, port.guid, port.node_guid);
    login.target_port = srp::target_port_id(config_.parameters);

    const bool native_ib = std::holds_alternative<fabric::IbAddress>(config_.address);
    login_bytes_.resize(native_ib ? srp::login_request_ib_bytes : srp::login_request_rdma_bytes);
    srp::encode(login, native_ib ? srp::LoginForm::ib_cm : srp::LoginForm::rdma_cm, login_bytes_);
    return login_bytes_;
}

std::optional<fabric::ReceiveRing> Channel::on_reply(std::span<const std::byte> private_data) {
    const auto response = srp::parse_login_response(private_data);
    if (!response) {
        refuse(
            ECONNRESET,
            fmt::format("the answer to the login is not an SRP login response ({}); is an SRP target listening there?",
                        srp::to_string(response.fault)));
        return std::nullopt;
    }
    if (response->credits < 2) {
        refuse(ECONNRESET, fmt::format("the target grants {} credits, at least 2 are needed", response->credits));
        return std::nullopt;
    }
    if (response->ti_iu_bytes_max < ti_iu_bytes_floor || response->ti_iu_bytes_max > ti_iu_bytes_ceiling) {
        refuse(ECONNRESET, fmt::format("the target announces information units of {} bytes; {} to {} are possible",
                                       response->ti_iu_bytes_max, ti_iu_bytes_floor, ti_iu_bytes_ceiling));
        return std::nullopt;
    }
    if ((response->buffer_formats & srp::format_direct) == 0) {
        refuse(ECONNRESET, "the target does not support direct data buffer descriptors");
        return std::nullopt;
    }
    facts_.credits_initial = response->credits;
    facts_.it_iu_bytes_max = std::min(requested_it_iu_bytes_, response->it_iu_bytes_max);
    facts_.ti_iu_bytes_max = response->ti_iu_bytes_max;
    if (facts_.it_iu_bytes_max < srp::command_bytes + srp::descriptor_bytes) {
        refuse(
            ECONNRESET,
            fmt::format("the target takes information units of {} bytes only; a command with one descriptor needs {}",
                        facts_.it_iu_bytes_max, srp::command_bytes + srp::descriptor_bytes));
        return std::nullopt;
    }
    // The bit counts only if we asked: targets before SRP-2 put garbage there (srp-wire 2.3).
    const bool asked = config_.parameters.use_imm_data && config_.parameters.max_imm_data > 0;
    if (asked && response->immediate_data && facts_.it_iu_bytes_max > srp::immediate_data_offset)
        facts_.immediate_bytes_max =
            std::min(config_.parameters.max_imm_data, facts_.it_iu_bytes_max - srp::immediate_data_offset);
    credits_ = response->credits;
    gauges_->credits_initial.store(credits_, std::memory_order_relaxed);
    publish();

    const unsigned queue = std::min(config_.parameters.queue_size, slots_max);
    slots_.resize(queue + check_slots);
    for (std::uint32_t i = 0; i < slots_.size(); ++i) slots_[i].next_free = i + 1;
    free_slot_ = 0;
    // Every command in flight answers once, and the target has at most one request of its own outstanding.
    return fabric::ReceiveRing{queue + extra_sends, response->ti_iu_bytes_max};
}

void Channel::on_established() {
    login_timer_.disarm();
    last_heard_ = timers_.now();
    enter(ChannelState::live);
    listener_.on_channel_live(*this);
}

// Remembers why the channel will end; the first cause wins.
void Channel::refuse(int errno_value, std::string text) {
    if (end_decided_) return;
    end_decided_ = true;
    end_.errno_value = errno_value;
    end_.text = std::move(text);
}

// ---- commands ----

std::int32_t Channel::reserve(bool privileged) const {
    // One credit is kept for task management, and one for flushes and probes where the target grants enough.
    return privileged || facts_.credits_initial < 4 ? 1 : 2;
}

unsigned Channel::free_places() const {
    const auto slots = static_cast<std::int32_t>(slots_.size()) - static_cast<std::int32_t>(check_slots + in_flight_);
    return static_cast<unsigned>(std::max(0, std::min(credits_ - reserve(false), slots)));
}

void Channel::withhold_place() {
    tell_when_room();
    const auto slots = static_cast<std::int32_t>(slots_.size()) - static_cast<std::int32_t>(check_slots + in_flight_);
    // Else it is for want of slots, which are ours.
    if (credits_ - reserve(false) <= slots) ++gauges_->counters.out_of_credits;
}

bool Channel::has_room(bool privileged) const {
    return state_ == ChannelState::live && credits_ > reserve(privileged) && in_flight_ + check_slots < slots_.size();
}

bool Channel::submit(Command& command) {
    if (command.checks_path) [[unlikely]] {
        if (state_ != ChannelState::live || in_flight_ == slots_.size()) return false;
        if (credits_ <= reserve(true)) {
            watch_credits();
            return false;
        }
    } else if (!has_room(command.privileged)) [[unlikely]] {
        want_room();
        return false;
    }
    const std::uint32_t index = free_slot_;
    Slot& slot = slots_[index];
    const srp::Tag tag = slot.generation << slot_bits | index;

    srp::CommandHead head;
    head.tag = tag;
    head.lun = command.lun;
    head.cdb = command.cdb;
    head.direction = command.direction;
    std::span<const std::byte> payload;
    command.immediate =
        command.direction == srp::DataDirection::to_target && command.data.size() <= facts_.immediate_bytes_max;
    if (command.immediate) {
        head.immediate_bytes = static_cast<std::uint32_t>(command.data.size());
        payload = command.data;
    } else if (command.direction != srp::DataDirection::none) {
        const auto granted =
            connection_->grant(command.region, command.data,
                               command.direction == srp::DataDirection::to_target ? fabric::RemoteAccess::read
                                                                                  : fabric::RemoteAccess::write);
        if (!granted) [[unlikely]] {  // as when sending fails
            room_wanted_ = true;
            return false;
        }
        slot.grant = *granted;
        const fabric::RemoteBuffer& remote = granted->remote;
        SRPFS_ASSERT(remote.length > 0);
        head.descriptor = srp::Descriptor{remote.address, remote.key, remote.length};
    }
    std::array<std::byte, 128> bytes;
    const std::size_t head_bytes = srp::encode(head, bytes);
    if (!connection_->send(std::span(bytes).first(head_bytes), payload)) [[unlikely]] {
        // The connection has ended and on_ended is on its way, or sends complete late: the credit was not used.
        // Nobody has heard of the grant.
        if (slot.grant.window) (void)connection_->revoke(slot.grant, no_slot);
        slot.grant = {};
        room_wanted_ = true;
        return false;
    }
    free_slot_ = slot.next_free;
    slot.command = &command;
    ++in_flight_;
    --credits_;
    publish();
    ++(command.checks_path ? gauges_->counters.path_checks : gauges_->counters.commands);
    if (!command.checks_path && !command.privileged) ordinary_sent_ = true;
    command.channel = this;
    command.tag = tag;
    command.fence = Command::Fence::none;
    command.expired = false;
    command.sent_at = timers_.now();
    command.deadline =
        command.sent_at + (command.time_limit > Duration::zero() ? command.time_limit : config_.command_time);
    watch_deadline(command.deadline);
    return true;
}

bool Channel::submit(TaskRequest& request) {
    if (state_ != ChannelState::live && state_ != ChannelState::draining) return false;
    if (task_ || credits_ < 1) return false;
    srp::TaskManagement task;
    task.tag = task_tag_bit | ++task_sequence_;
    task.lun = request.lun;
    task.function = request.function;
    task.managed_tag = request.managed_tag;
    std::array<std::byte, srp::task_management_bytes> bytes;
    const std::size_t length = srp::encode(task, bytes);
    if (!connection_->send(std::span(bytes).first(length), {})) return false;
    --credits_;
    publish();
    ++gauges_->counters.task_management;
    task_ = &request;
    task_tag_ = task.tag;
    task_timer_.arm_after(request.time_limit);
    return true;
}

void Channel::free_slot(std::uint32_t index) {
    Slot& slot = slots_[index];
    slot.command = nullptr;
    slot.grant = {};
    slot.over = nullptr;
    ++slot.generation;
    slot.generation &= (std::uint64_t{1} << (63 - slot_bits)) - 1;
    slot.next_free = free_slot_;
    free_slot_ = index;
    --in_flight_;
    publish();
}

// ---- receiving ----

void Channel::on_received(std::span<const std::byte> message) {
    if (message.empty()) return fail("the target sent an empty message");
    last_heard_ = timers_.now();
    switch (static_cast<srp::Opcode>(message[0])) {
        case srp::Opcode::response: on_response(message); break;
        case srp::Opcode::credit_request: on_credit_request(message); break;
        case srp::Opcode::async_event_request: on_async(message); break;
        case srp::Opcode::target_logout: {
            const auto logout = srp::parse_target_logout(message);
            return fail(fmt::format("the target logged us out ({})",
                                    logout ? srp::describe_logout_reason(logout->reason) : "malformed request"));
        }
        default:
            ++gauges_->counters.malformed;
            return fail(fmt::format("the target sent an information unit of unknown type 0x{:02x}",
                                    static_cast<unsigned>(message[0])));
    }
    // Each of them may have brought credits: that of a task management function brings those of what it aborted.
    if (room_wanted_) [[unlikely]]
        tell_room();
    if (state_ == ChannelState::draining) [[unlikely]]
        finish_drain_if_empty();
}

// Somebody was refused: to be told when there is room, which has to come some day.
void Channel::want_room() {
    room_wanted_ = true;
    if (state_ == ChannelState::live && credits_ <= reserve(false)) ++gauges_->counters.out_of_credits;
    watch_credits();
}

void Channel::watch_credits() {
    if (state_ != ChannelState::live || credits_ > reserve(false)) return;
    if (starvation_timer_.armed()) return;
    ordinary_sent_ = false;
    starvation_timer_.arm_after(starvation_max);
}

// Commands in flight have deadlines of their own; without any, only the target can bring credits, and it has not.
void Channel::check_starvation() {
    if (state_ != ChannelState::live || has_room(false)) return;
    // Neither questions to the path nor privileged commands help who waits: they use the credits that are kept for
    // them, and looking at the units every few seconds would go on for ever.
    const bool is_busy = std::any_of(slots_.begin(), slots_.end(),
                                     [](const Slot& slot) { return slot.command && !slot.command->checks_path; });
    if (is_busy || ordinary_sent_) {
        ordinary_sent_ = false;
        return starvation_timer_.arm_after(starvation_max);
    }
    fail(fmt::format("for {} s nothing was under way and the target grants no credit ({} left)",
                     std::chrono::seconds(starvation_max).count(), credits_));
}

void Channel::tell_room() {
    if (state_ != ChannelState::live) return;
    if (!has_room(true)) return watch_credits();  // who waits for a tag waits for a credit now
    room_wanted_ = false;
    listener_.on_channel_room(*this);
}

void Channel::on_response(std::span<const std::byte> message) {
    const auto response = srp::parse_response(message);
    if (!response) [[unlikely]] {
        ++gauges_->counters.malformed;
        return fail(fmt::format("the target sent a malformed response ({}, {} bytes)", srp::to_string(response.fault),
                                message.size()));
    }
    if (!grant_credits(response->credit_delta)) [[unlikely]]
        return fail(fmt::format("the target granted {} more credits, which cannot be counted", response->credit_delta));
    if (response->tag & task_tag_bit) [[unlikely]] {
        publish();
        return on_task_response(*response);
    }

    Command* const found = find(response->tag);
    if (!found) [[unlikely]]
        return on_strange_tag(response->tag);
    Command& command = *found;
    const auto index = static_cast<std::uint32_t>(response->tag & slot_mask);
    ++gauges_->counters.responses;

    CommandResult& result = command.result;
    result.end = CommandEnd::answered;
    result.status = response->status;
    result.sense = {};
    if (!response->sense.empty()) [[unlikely]]
        result.sense = scsi::parse_sense(response->sense);
    const bool in = command.direction == srp::DataDirection::from_target;
    const bool under = in ? response->data_in_under : response->data_out_under;
    result.overflow = in ? response->data_in_over : response->data_out_over;
    result.residual = 0;
    if (under && !result.overflow)
        result.residual = std::min(in ? response->data_in_residual : response->data_out_residual,
                                   static_cast<std::uint32_t>(command.data.size()));
    Slot& slot = slots_[index];
    slot.over = std::exchange(slot.command, nullptr);
    if (slot.grant.window && !connection_->revoke(slot.grant, index)) return;  // on_revoked() or on_gone() follows
    finish(index);
}

// The target cannot reach the memory any more.
void Channel::on_revoked(std::uint64_t context) {
    if (context == no_slot) return;
    SRPFS_ASSERT(context < slots_.size() && slots_[context].over);
    finish(static_cast<std::uint32_t>(context));
    if (room_wanted_) [[unlikely]]
        tell_room();
    if (state_ == ChannelState::draining) [[unlikely]]
        finish_drain_if_empty();
}

void Channel::finish(std::uint32_t index) {
    Command& command = *slots_[index].over;
    free_slot(index);
    count(command);
    command.channel = nullptr;
    command.owner->on_command_done(command);  // last: the owner may submit again
}

// No more than some additions: it is done for every command.
void Channel::count(const Command& command) {
    if (command.checks_path) [[unlikely]]
        return;
    ChannelCounters& counters = gauges_->counters;
    const CommandResult& result = command.result;
    if (result.end != CommandEnd::answered || result.status != scsi::Status::good) [[unlikely]] {
        if (const auto fault = fault_of(result)) ++counters.errors_by_kind[static_cast<std::size_t>(*fault)];
        return;
    }
    const Duration duration = timers_.now() - command.sent_at;
    const std::uint64_t bytes = command.data.size() - result.residual;
    switch (command.direction) {
        case srp::DataDirection::from_target:
            counters.bytes_read += bytes;
            counters.read_latency.add(duration);
            break;
        case srp::DataDirection::to_target:
            counters.bytes_written += bytes;
            counters.write_latency.add(duration);
            break;
        case srp::DataDirection::none: counters.other_latency.add(duration); break;
    }
}

void Channel::on_task_response(const srp::Response& response) {
    if (!task_ || response.tag != task_tag_) {
        log::warning(config_.name, "answer to a task management function that is over (tag {:016x}); ignored",
                     response.tag);
        return;
    }
    task_timer_.disarm();
    TaskRequest* task = std::exchange(task_, nullptr);
    // Without four bytes of response data the answer says nothing: count it as a failure (srp-wire 11).
    task->on_done(response.task_code.value_or(srp::TaskCode::failed));
}

void Channel::on_strange_tag(srp::Tag tag) {
    ++gauges_->counters.unknown_tags;
    const Instant now = timers_.now();
    std::erase_if(strange_tags_, [&](Instant seen) { return now - seen > std::chrono::minutes(1); });
    strange_tags_.push_back(now);
    log::warning(config_.name, "response with tag {:016x}, which is not in flight; ignored", tag);
    if (strange_tags_.size() > strange_tags_a_minute_max)
        fail(fmt::format("{} responses with unknown tags within a minute", strange_tags_.size()));
}

bool Channel::grant_credits(std::int32_t delta) {
    const std::int64_t sum = std::int64_t{credits_} + delta;
    if (sum > std::numeric_limits<std::int32_t>::max() || sum < std::numeric_limits<std::int32_t>::min()) return false;
    credits_ = static_cast<std::int32_t>(sum);
    return true;
}

void Channel::on_credit_request(std::span<const std::byte> message) {
    ++gauges_->counters.credit_requests;
    const auto request = srp::parse_credit_request(message);
    if (!request) {
        ++gauges_->counters.malformed;
        log::warning(config_.name, "malformed credit request ({}); not answered", srp::to_string(request.fault));
        return;
    }
    if (!grant_credits(request->credit_delta)) return fail("the target granted more credits than can be counted");
    publish();
    std::array<std::byte, 16> answer;
    const std::size_t length = srp::encode_credit_response(request->tag, answer);
    if (!connection_->send(std::span(answer).first(length), {}))
        log::debug(config_.name, "no answer to a credit request: the connection is ending");
}

void Channel::on_async(std::span<const std::byte> message) {
    ++gauges_->counters.async_events;
    const auto event = srp::parse_async_event(message);
    if (!event) {
        ++gauges_->counters.malformed;
        log::warning(config_.name, "malformed asynchronous event ({}); not answered", srp::to_string(event.fault));
        return;
    }
    if (!grant_credits(event->credit_delta)) return fail("the target granted more credits than can be counted");
    publish();
    std::array<std::byte, 16> answer;
    const std::size_t length = srp::encode_async_event_response(event->tag, answer);
    if (!connection_->send(std::span(answer).first(length), {})) return;
    listener_.on_async_event(*this, event->lun, scsi::parse_sense(event->sense));
}

// ---- time-outs ----

void Channel::watch_deadline(Instant deadline) {
    if (!deadline_timer_.armed() || deadline < deadline_timer_.deadline()) [[unlikely]]
        deadline_timer_.arm_at(deadline);
}

void Channel::check_deadlines() {
    if (state_ == ChannelState::connecting && !connection_) {  // connect() could not even start
        ended_ = gone_ = true;
        enter(ChannelState::dead);
        listener_.on_channel_ended(*this, end_);
        listener_.on_channel_gone(*this);
        return;
    }
    if (state_ == ChannelState::dead) return;
    const Instant now = timers_.now();
    Instant next = instant_never;
    unsigned expired = 0, stragglers = 0;
    for (std::uint32_t i = 0; i < slots_.size(); ++i) {
        Command* command = slots_[i].command;
        if (!command || command->expired || command->fence == Command::Fence::marked) continue;
        if (command->deadline > now) {
            next = std::min(next, command->deadline);
        } else if (command->vital) {
            ++gauges_->counters.timeouts;
            return fail("the target does not answer any more");
        } else if (command->fence == Command::Fence::none) {
            command->expired = true;
            ++expired;
        } else if (command->fence == Command::Fence::proven && slots_[i].grant.window) {
            close(i);
        } else {
            ++stragglers;
        }
    }
    deadline_timer_.arm_at(next);
    if (stragglers > 0)
        drain(fmt::format("task management left {} command{} unanswered; the channel is replaced", stragglers,
                          stragglers == 1 ? "" : "s"));
    if (expired == 0) return;
    gauges_->counters.timeouts += expired;
    log::warning(config_.name, "{} command{} not answered in time", expired, expired == 1 ? "" : "s");
    listener_.on_commands_expired(*this);
}

// It does not run any more, and once its window is closed, nothing of it can reach its memory: the channel can stay.
void Channel::close(std::uint32_t index) {
    Slot& slot = slots_[index];
    log::info(config_.name, "tag {:016x} is over; its memory window is closed", slot.command->tag);
    slot.command->result = {};
    slot.command->result.end = CommandEnd::aborted;
    slot.over = std::exchange(slot.command, nullptr);
    if (connection_->revoke(slot.grant, index)) finish(index);
}

void Channel::expire(Command& command) {
    SRPFS_ASSERT(command.channel == this);
    if (ended_ || command.expired || command.fence != Command::Fence::none) return;
    command.deadline = timers_.now();
    watch_deadline(command.deadline);
}

Command* Channel::find_expired() const {
    Command* oldest = nullptr;
    if (failing_) return nullptr;
    for (const Slot& slot : slots_) {
        Command* command = slot.command;
        if (!command || !command->expired || command->fence != Command::Fence::none) continue;
        if (!oldest || command->deadline < oldest->deadline) oldest = command;
    }
    return oldest;
}

bool Channel::settle_abort(srp::Tag tag) {
    Command* command = find(tag);
    if (!command) return false;
    conclude(*command, Command::Fence::proven);
    return true;
}

Command* Channel::find(srp::Tag tag) const {
    const std::uint64_t index = tag & slot_mask;
    if (index >= slots_.size() || !slots_[index].command || slots_[index].command->tag != tag) return nullptr;
    return slots_[index].command;
}

// Its answer may still be on its way, and so may its data.
void Channel::conclude(Command& command, Command::Fence fence) {
    command.fence = fence;
    command.expired = false;
    command.deadline = timers_.now() + straggler_time;
    if (!ended_) watch_deadline(command.deadline);
}

// ---- fences ----

unsigned Channel::mark_for_fence(const scsi::Lun& lun) {
    unsigned count = 0;
    // The number may be another unit's since then: whether the reset is about the one these were sent to, only that
    // knows.
    if (ended_) return count;
    for (const Slot& slot : slots_) {
        if (!slot.command || slot.command->lun != lun || slot.command->fence == Command::Fence::proven) continue;
        slot.command->fence = Command::Fence::marked;
        ++count;
    }
    return count;
}

void Channel::settle_fence(const scsi::Lun& lun, bool succeeded, bool carrier) {
    for (const Slot& slot : slots_) {
        if (!slot.command || slot.command->lun != lun || slot.command->fence != Command::Fence::marked) continue;
        if (succeeded) {
            conclude(*slot.command, carrier ? Command::Fence::proven : Command::Fence::covered);
        } else {
            slot.command->fence = Command::Fence::none;
            if (!ended_ && !slot.command->expired) watch_deadline(slot.command->deadline);
        }
    }
    // It may have waited for no other than these.
    if (state_ == ChannelState::draining) finish_drain_if_empty();
}

unsigned Channel::fenced_in_flight(const scsi::Lun& lun) const {
    return static_cast<unsigned>(std::count_if(slots_.begin(), slots_.end(), [&](const Slot& slot) {
        return slot.command && slot.command->fence >= Command::Fence::covered && slot.command->lun == lun;
    }));
}

// ---- the end ----

void Channel::drain(std::string why) {
    if (state_ != ChannelState::live) return;
    log::info(config_.name, "draining: {}", why);
    refuse(ECONNRESET, std::move(why));
    end_.replace_at_once = true;
    enter(ChannelState::draining);
    drain_timer_.arm_after(drain_time_max);
    finish_drain_if_empty();
}

void Channel::finish_drain_if_empty() {
    for (const Slot& slot : slots_)
        if (slot.command && slot.command->fence < Command::Fence::covered) return;
    connection_->disconnect();
}

void Channel::fail(std::string why) {
    if (ended_) return;
    refuse(ECONNRESET, std::move(why));
    end_.reason = fabric::EndReason::transport_error;
    failing_ = true;
    connection_->disconnect();
}

void Channel::disconnect(std::string why) {
    if (state_ == ChannelState::idle || ended_ || !connection_) return;
    refuse(ECANCELED, std::move(why));
    failing_ = true;
    connection_->disconnect();
}

void Channel::on_ended(const fabric::End& end) {
    SRPFS_ASSERT(!ended_);
    ended_ = true;
    login_timer_.disarm();
    deadline_timer_.disarm();
    starvation_timer_.disarm();
    drain_timer_.disarm();
    // A LUN RESET that is under way on another channel may have been overtaken by what this one had sent.
    for (const Slot& slot : slots_)
        if (slot.command && slot.command->fence == Command::Fence::marked) slot.command->fence = Command::Fence::none;
    // Lost before it was drained: whatever that was, it was not our choice.
    if (end.reason != fabric::EndReason::closed) end_.replace_at_once = false;
    end_.was_live = state_ == ChannelState::live || state_ == ChannelState::draining;
    if (!end_decided_) {
        end_.reason = end.reason;
        end_.errno_value = errno_of(end.reason, end.errno_value);
        end_.text = end.text;
        if (end.reason == fabric::EndReason::rejected) {
            end_.errno_value = ECONNREFUSED;
            const auto reject = srp::parse_login_reject(end.private_data);
            if (end.cm_reason == 28 && reject) {
                end_.reject = reject->reason;
                end_.smaller_iu_may_help = reject->reason == srp::RejectReason::it_iu_too_large;
                const srp::PortId initiator_port =
                    srp::initiator_port_id(config_.parameters, facts_.port.guid, facts_.port.node_guid);
                end_.text = srp::describe(reject->reason, &initiator_port);
            } else if (end.cm_reason == 28 && !end.private_data.empty()) {
                end_.text = fmt::format(
                    "rejected by something that is not an SRP target (first byte 0x{:02x} instead of 0xc2); "
                    "check address and port",
                    static_cast<unsigned>(end.private_data[0]));
            } else {
                end_.text = srp::describe_cm_reject(end.cm_reason);
            }
        }
    } else if (end_.reason == fabric::EndReason::closed && end.reason != fabric::EndReason::closed) {
        end_.reason = end.reason;
    }
    enter(ChannelState::dead);
    if (TaskRequest* task = std::exchange(task_, nullptr)) {
        task_timer_.disarm();
        task->on_done(std::nullopt);
    }
    listener_.on_channel_ended(*this, end_);
}

void Channel::on_gone() {
    SRPFS_ASSERT(ended_);
    connection_ = nullptr;
    gone_ = true;
    // Only now can nothing of ours be touched through the queue pair any more.
    for (std::uint32_t i = 0; i < slots_.size(); ++i) {
        if (slots_[i].over) finish(i);
        Command* command = slots_[i].command;
        if (!command) continue;
        free_slot(i);
        command->result = {};
        command->result.end =
            command->fence == Command::Fence::proven ? CommandEnd::aborted : CommandEnd::connection_lost;
        command->channel = nullptr;
        count(*command);
        command->owner->on_command_done(*command);
    }
    listener_.on_channel_gone(*this);
}

}  // namespace srpfs::initiator
