// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "channel.h"

#include "portal_core.h"

#include <srpfs/base/assert.h>
#include <srpfs/base/log.h>
#include <srpfs/srp/srp.h>

#include <algorithm>
#include <utility>

namespace srpfs::target {
namespace {

using namespace std::chrono_literals;

constexpr unsigned rdma_outstanding_max = 64;
constexpr std::size_t message_bytes_max = 256;  // 36 + 4 + 96 is the longest response
constexpr unsigned spare_receives = 8;          // for answers to our requests, which cost no credit

}  // namespace

Channel::Channel(PortalCore& portal, std::shared_ptr<ChannelRecord> record, std::uint16_t immediate_offset)
    : portal_(portal), immediate_offset_(immediate_offset), crashes_(portal.device().crashes.load()),
      request_limit_(portal.device().config.credits),
      retry_(portal.timers(), [this] { post_waiting(), resume_waiting(); }), record_(std::move(record)),
      name_("target/ch" + std::to_string(record_->id)) {}

void Channel::accept(fabric::ConnectRequest& request, std::span<const std::byte> login_response) {
    const DeviceConfig& config = portal_.device().config;
    const auto credits = static_cast<unsigned>(config.credits);
    const fabric::ConnectionLimits limits{.sends_max = rdma_outstanding_max + 2 * credits + spare_receives,
                                          .message_bytes_max = message_bytes_max};
    connection_ = &request.accept(limits, {credits + spare_receives, config.request_bytes_max}, login_response, *this);
}

CommandView Channel::view_of(const Task& task) const {
    return {record_->id, record_->nexus.initiator, task.tag, task.lun, task.cdb, task.direction, task.data_bytes};
}

// ---- what arrives ----

void Channel::on_established() {
    {
        const std::lock_guard lock(portal_.device().mutex);
        record_->live = true;
    }
    log::debug(name_, "established");
    post_waiting();
    resume_waiting();
}

void Channel::on_received(std::span<const std::byte> message) {
    if (message.empty() || crashes_ != portal_.device().crashes.load(std::memory_order_relaxed)) [[unlikely]]
        return;
    if (message[0] == std::byte{srp::byte_of(srp::Opcode::command)}) [[likely]]
        return on_command(message);
    on_rare(message);
}

void Channel::on_rare(std::span<const std::byte> message) {
    switch (static_cast<srp::Opcode>(message[0])) {
        case srp::Opcode::task_management: return on_task_management(message);
        case srp::Opcode::credit_response:
        case srp::Opcode::async_event_response: return;
        case srp::Opcode::initiator_logout:
            return log::info(name_, "the initiator sent I_LOGOUT; it is expected to disconnect");
        case srp::Opcode::command:
        case srp::Opcode::login_request:
        case srp::Opcode::target_logout:
        case srp::Opcode::credit_request:
        case srp::Opcode::async_event_request:
        case srp::Opcode::login_response:
        case srp::Opcode::response:
        case srp::Opcode::login_reject: break;
    }
    PortalCounters::add(portal_.counters.malformed);
    log::warning(name_, "received an information unit of type {:#04x}; ignored", static_cast<unsigned>(message[0]));
}

void Channel::on_command(std::span<const std::byte> message) {
    srp::ReceivedCommand& command = received_;
    const srp::WireFault fault = srp::parse_command(message, immediate_offset_, command);
    if (--request_limit_ == -1) [[unlikely]]
        tell_of_excess();
    if (fault != srp::WireFault::none) [[unlikely]]
        return on_malformed(message, fault);

    Task& task = portal_.take_task(*this);
    task.tag = command.tag;
    task.lun = command.lun;
    SRPFS_ASSERT(command.cdb.size() >= task.cdb.size());
    std::copy_n(command.cdb.begin(), task.cdb.size(), task.cdb.begin());
    task.direction = command.direction;
    task.descriptors.swap(command.descriptors);
    task.data_bytes = command.data_bytes;
    task.is_immediate = command.immediate;
    task.crashes = crashes_;
    portal_.start(task, command.immediate_data);
}

void Channel::tell_of_excess() { log::warning(name_, "the initiator sent more commands than it had credits for"); }

// LIO 6.1 crashes here (srp-wire 4.1); SCST answers INVALID FIELD IN CDB.
void Channel::on_malformed(std::span<const std::byte> message, srp::WireFault fault) {
    PortalCounters::add(portal_.counters.malformed);
    log::warning(name_, "malformed SRP_CMD of {} bytes: {}", message.size(), srp::to_string(fault));
    if (message.size() < srp::command_bytes) return;
    ByteReader in(message);
    in.skip(8);
    Task& task = portal_.take_task(*this);
    task.tag = in.u64();
    task.crashes = crashes_;
    portal_.fail_malformed(task);
}

void Channel::on_task_management(std::span<const std::byte> message) {
    const auto request = srp::parse_task_management(message);
    --request_limit_;
    if (!request && request.fault != srp::WireFault::bad_value) {
        PortalCounters::add(portal_.counters.malformed);
        return log::warning(name_, "malformed SRP_TSK_MGMT of {} bytes: {}", message.size(),
                            srp::to_string(request.fault));
    }
    Task& task = portal_.take_task(*this);
    task.tag = request->tag;
    task.lun = request->lun;
    task.crashes = crashes_;
    portal_.start_task_management(task, *request, request.fault == srp::WireFault::none);
}

// ---- data ----

bool Channel::move_data(Task& task) {
    const bool is_read = task.stage == Task::Stage::fetching;
    const bool is_zeros = !task.staging;
    Staging& staging = portal_.staging();
    while (task.moved_bytes < task.move_bytes) {
        const srp::Descriptor& descriptor = task.descriptors[task.descriptor_index];
        std::size_t bytes =
            std::min<std::uint64_t>(descriptor.length - task.descriptor_offset, task.move_bytes - task.moved_bytes);
        if (is_zeros) bytes = std::min(bytes, Staging::zeros_bytes);
        const fabric::RemoteBuffer remote{descriptor.address + task.descriptor_offset, descriptor.key,
                                          static_cast<std::uint32_t>(bytes)};
        std::byte* local = task.staging.memory + (is_zeros ? 0 : task.moved_bytes);
        const auto context = is_zeros ? 0 : reinterpret_cast<std::uintptr_t>(&task);
        const bool posted =
            rdma_outstanding_ < rdma_outstanding_max &&
            (is_read ? connection_->rdma_read(staging.region(), {local, bytes}, remote, context)
                     : connection_->rdma_write(staging.region(),
                                               is_zeros ? staging.zeros().first(bytes) : std::span(local, bytes),
                                               remote, context));
        if (!posted) {
            waiting_.push_back(task);
            if (rdma_outstanding_ == 0 && !retry_.armed()) retry_.arm_after(1ms);
            return false;
        }
        ++rdma_outstanding_;
        if (!is_zeros) ++task.rdma_outstanding;
        task.moved_bytes += bytes;
        task.descriptor_offset += static_cast<std::uint32_t>(bytes);
        if (task.descriptor_offset == descriptor.length) {
            task.descriptor_offset = 0;
            ++task.descriptor_index;
        }
    }
    return true;
}

void Channel::stop_waiting(Task& task) {
    // In no_staging it stands in the portal's list.
    const bool is_here = task.stage == Task::Stage::fetching || task.stage == Task::Stage::sending;
    if (is_here && static_cast<ListHook<WaitingTag>&>(task).is_linked()) waiting_.remove(task);
}

void Channel::resume_waiting() {
    if (ended_) return;
    while (Task* task = waiting_.front()) {
        waiting_.remove(*task);
        if (!move_data(*task)) return;  // waits again, at the end: nobody starves
        // RDMA READs have to be done as well, which on_rdma_done() sees.
        if (task->stage == Task::Stage::sending) portal_.on_data_moved(*task);
    }
}

void Channel::on_rdma_done(std::uint64_t context) {
    --rdma_outstanding_;
    if (context != 0) {
        Task& task = *reinterpret_cast<Task*>(static_cast<std::uintptr_t>(context));
        if (--task.rdma_outstanding == 0) {
            if (task.stage == Task::Stage::answered)
                portal_.release(task);
            else if (task.stage == Task::Stage::fetching && task.moved_bytes == task.move_bytes)
                portal_.on_data_moved(task);
        }
    }
    if (!waiting_.empty()) [[unlikely]]
        resume_waiting();
}

// ---- what is sent ----

std::int32_t Channel::credits_to_return() {
    std::int32_t credits = credits_owed_;
    if (Behaviour* behaviour = portal_.behaviour()) [[unlikely]]
        credits = behaviour->credits(record_->id, credits);
    credits_owed_ -= credits;
    request_limit_ += credits;
    return credits;
}

void Channel::respond(Task& task) {
    ++credits_owed_;
    if (Behaviour* behaviour = portal_.behaviour()) [[unlikely]]
        return respond_as_planned(task, *behaviour);
    const bool is_plain =
        task.status == scsi::Status::good && task.cdb_data_bytes == task.data_bytes && !task.task_code;
    if (!is_plain) [[unlikely]]
        return respond_at_length(task);
    std::array<std::byte, srp::response_bytes> buffer;
    post(std::span(buffer).first(srp::encode_good(credits_to_return(), task.tag, buffer)));
}

void Channel::respond_at_length(const Task& task) {
    SenseBytes sense;
    std::array<std::byte, message_bytes_max> buffer;
    post(std::span(buffer).first(srp::encode(response_to(task, sense), buffer)));
}

// `sense` is where the response's lies.
srp::Response Channel::response_to(const Task& task, SenseBytes& sense) {
    srp::Response response;
    response.credit_delta = credits_to_return();
    response.tag = task.tag;
    response.status = task.status;
    response.task_code = task.task_code;
    if (task.status == scsi::Status::check_condition && task.failure) [[unlikely]] {
        sense.fill(std::byte{0});
        const auto fixed = scsi::encode_fixed_sense(task.failure->key, task.failure->asc, task.failure->ascq);
        std::copy(fixed.begin(), fixed.end(), sense.begin());
        response.sense = std::span(sense).first(portal_.device().config.sense_bytes);
        PortalCounters::add(portal_.counters.check_conditions);
    }
    if (task.status == scsi::Status::good && task.cdb_data_bytes != task.data_bytes) [[unlikely]] {
        // What the CDB moves against what the initiator has described.
        const bool is_under = task.cdb_data_bytes < task.data_bytes;
        const auto residual = static_cast<std::uint32_t>(is_under ? task.data_bytes - task.cdb_data_bytes
                                                                  : task.cdb_data_bytes - task.data_bytes);
        const bool is_out = task.direction == srp::DataDirection::to_target;
        (is_out ? response.data_out_residual : response.data_in_residual) = residual;
        (is_out ? (is_under ? response.data_out_under : response.data_out_over)
                : (is_under ? response.data_in_under : response.data_in_over)) = true;
    }
    return response;
}

void Channel::respond_as_planned(Task& task, Behaviour& behaviour) {
    ResponsePlan plan;
    behaviour.on_response(view_of(task), plan);
    // An attention is told once. With a target that does not tell it, or not so that one can read it, nobody could
    // live.
    if (task.failure && task.failure->key == scsi::SenseKey::unit_attention) {
        ResponsePlan readable;
        readable.copies = plan.copies;
        readable.credit_delta = plan.credit_delta;
        plan = readable;
    }
    if (plan.lost) return;

    SenseBytes sense;
    srp::Response response = response_to(task, sense);
    if (plan.tag) response.tag = *plan.tag;
    if (plan.credit_delta) response.credit_delta = *plan.credit_delta;
    if (plan.data_in_residual) {
        response.data_in_under = true;
        response.data_in_residual = *plan.data_in_residual;
    }
    if (plan.data_out_residual) {
        response.data_out_under = true;
        response.data_out_residual = *plan.data_out_residual;
    }

    std::array<std::byte, message_bytes_max> buffer;
    std::span<std::byte> unit = std::span(buffer).first(srp::encode(response, buffer));
    if (plan.sense_bytes) {
        ByteWriter(unit.subspan(28)).u32(*plan.sense_bytes);
        unit[18] |= std::byte{0x02};
    }
    if (plan.response_data_bytes) {
        ByteWriter(unit.subspan(32)).u32(*plan.response_data_bytes);
        unit[18] |= std::byte{0x01};
    }
    if (plan.length) unit = unit.first(std::min(unit.size(), *plan.length));
    for (unsigned copy = 0; copy < plan.copies; ++copy) post(unit);
}

void Channel::send_credit_request(std::int32_t delta) {
    std::array<std::byte, 16> unit{};
    request_limit_ += delta;
    post(std::span(unit).first(srp::encode(srp::CreditRequest{delta, next_request_tag_++}, unit)));
}

void Channel::send_owed_credits() {
    if (credits_owed_ > 0) send_credit_request(std::exchange(credits_owed_, 0));
}

void Channel::send_async_event(const scsi::Lun& lun, const scsi::Sense& sense) {
    const auto bytes = scsi::encode_fixed_sense(sense.key, sense.asc, sense.ascq);
    std::array<std::byte, 64> unit{};
    post(std::span(unit).first(srp::encode(srp::AsyncEvent{0, next_request_tag_++, lun, bytes}, unit)));
}

void Channel::send_target_logout(std::uint32_t reason) {
    std::array<std::byte, 16> unit{};
    post(std::span(unit).first(srp::encode(srp::TargetLogout{reason, next_request_tag_++}, unit)));
}

void Channel::post(std::span<const std::byte> message) {
    if (ended_ || message.empty()) return;
    if (unsent_.empty() && connection_->send(message, {})) [[likely]]
        return;
    post_later(message);
}

void Channel::post_later(std::span<const std::byte> message) {
    unsent_.emplace_back(message.begin(), message.end());
    if (!retry_.armed()) retry_.arm_after(1ms);
}

void Channel::post_waiting() {
    while (!ended_ && !unsent_.empty() && connection_->send(unsent_.front(), {})) unsent_.pop_front();
    if (!ended_ && !unsent_.empty() && !retry_.armed()) retry_.arm_after(1ms);
}

// ---- the end ----

void Channel::on_ended(const fabric::End& end) {
    ended_ = true;
    retry_.disarm();
    unsent_.clear();
    log::debug(name_, "ended: {}", end.text);
    portal_.on_channel_ended(*this);
}

void Channel::on_gone() { portal_.on_channel_gone(*this); }

}  // namespace srpfs::target
