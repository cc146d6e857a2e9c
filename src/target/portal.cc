// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "portal_core.h"

#include <srpfs/base/assert.h>
#include <srpfs/base/log.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <utility>

namespace srpfs::target {
namespace {

constexpr std::size_t tell_bytes_max = 16 << 10;
constexpr std::size_t unmap_list_bytes_max = 8 + 16 * unmap_descriptors_max;
constexpr std::uint32_t request_bytes_min = 64;  // what LIO refuses below
constexpr std::uint16_t immediate_offset_min = 48;
constexpr Failure reset_occurred{scsi::SenseKey::unit_attention, 0x29, 0x03};
constexpr Failure power_on{scsi::SenseKey::unit_attention, 0x29, 0x00};
constexpr Failure parameter_list_length{scsi::SenseKey::illegal_request, 0x1a, 0x00};

namespace opcode = scsi::opcode;
// Those that scsi.h has no builder for.
constexpr std::uint8_t read_6 = 0x08, write_6 = 0x0a, write_and_verify_10 = 0x2e, read_12 = 0xa8, write_12 = 0xaa,
                       write_and_verify_16 = 0x8e, verify_12 = 0xaf, verify_16 = 0x8f;
constexpr std::uint8_t service_action_report_target_port_groups = 0x0a;

std::uint8_t byte_of(const Task& task, std::size_t index) { return static_cast<std::uint8_t>(task.cdb[index]); }
std::uint8_t opcode_of(const Task& task) { return byte_of(task, 0); }
bool is_vpd_or_list(std::uint8_t code) {
    return code == opcode::inquiry || code == opcode::report_luns || code == opcode::request_sense;
}
bool changes_the_store(Task::Work work) {
    switch (work) {
        case Task::Work::write:
        case Task::Work::write_same:
        case Task::Work::unmap:
        case Task::Work::flush: return true;
        case Task::Work::tell:
        case Task::Work::read:
        case Task::Work::reserve:
        case Task::Work::nothing:
        case Task::Work::task_management: return false;
    }
    return false;
}
Reservations::Access access_of(Task::Work work) {
    if (work == Task::Work::read) return Reservations::Access::reads;
    return changes_the_store(work) ? Reservations::Access::writes : Reservations::Access::neither;
}

// Of a command that names a range of blocks; `tell` if it names none.
Task::Work work_on_blocks(std::uint8_t code) {
    switch (code) {
        case read_6:
        case opcode::read_10:
        case read_12:
        case opcode::read_16: return Task::Work::read;
        case write_6:
        case opcode::write_10:
        case write_12:
        case opcode::write_16:
        case write_and_verify_10:
        case write_and_verify_16: return Task::Work::write;
        case opcode::write_same_10:
        case opcode::write_same_16: return Task::Work::write_same;
        case opcode::verify_10:
        case verify_12:
        case verify_16: return Task::Work::nothing;
        case opcode::synchronize_cache_10:
        case opcode::synchronize_cache_16: return Task::Work::flush;
        default: return Task::Work::tell;
    }
}

bool refuse(Task& task, const Failure& why) {
    task.failure = why;
    return false;
}

// Visits a list whose elements may vanish meanwhile, the current one included.
template <typename Visit>
void for_each_safely(IntrusiveList<Task, BelongingTag>& list, Visit&& visit) {
    std::vector<Task*> tasks;
    list.for_each([&tasks](Task& task) { tasks.push_back(&task); });
    for (Task* task : tasks)
        if (task->stage != Task::Stage::idle) visit(*task);
}

}  // namespace

// ---- Task ----

Task::Task(PortalCore& portal_) : portal(portal_), timer(portal_.timers(), [this] { portal.on_timer(*this); }) {
    owner = portal_.alive();
}

void Task::on_store_done(StoreResult result) { portal.on_store_done(*this, result); }

void Task::reset() {
    SRPFS_ASSERT(rdma_outstanding == 0);
    SRPFS_ASSERT(!staging);
    channel = nullptr;
    stage = Stage::idle;
    work = Work::nothing;
    descriptors.clear();
    data_bytes = 0;
    cdb = {};
    direction = srp::DataDirection::none;
    is_immediate = false;
    unit = nullptr;
    range = {};
    cdb_data_bytes = 0;
    unmap_index = 0;
    move_bytes = moved_bytes = 0;
    descriptor_index = 0;
    descriptor_offset = 0;
    memory = nullptr;
    status = scsi::Status::good;
    failure.reset();
    task_code.reset();
    is_silent = false;
    if (timer.armed() || kept_unit || has_plan || abort_job) [[unlikely]]
        reset_rare();
}

void Task::reset_rare() {
    timer.disarm();
    kept_unit.reset();
    if (std::exchange(has_plan, false)) plan = {};
    abort_job.reset();  // last: may finish the job
}

// ---- life of the portal ----

PortalCore::PortalCore(DeviceState& device, reactor::Executor& executor, fabric::Fabric& fabric,
                       fabric::Address address, std::unique_ptr<Staging> staging)
    : device_(device), executor_(executor), fabric_(fabric), address_(std::move(address)), staging_(std::move(staging)),
      alive_(std::make_shared<int>()), crashes_seen_(device.crashes.load()) {
    const std::lock_guard lock(device_.mutex);
    device_.portals.push_back(this);
}

PortalCore::~PortalCore() {
    SRPFS_ASSERT(channels_.empty());
    // Nothing but commands a store is busy with may be left; their outcome interests nobody.
    while (Task* task = orphans_.front()) {
        task->unit->store->drain();
        orphans_.remove(*task);
    }
    const std::lock_guard lock(device_.mutex);
    counters.add_to(device_.departed);
    std::erase(device_.portals, this);
}

Result<void> PortalCore::listen() {
    auto listener = fabric_.listen(address_, *this);
    if (!listener) return listener.error();
    listener_ = std::move(*listener);
    return {};
}

void PortalCore::close() {
    closing_ = true;
    listener_.reset();
    for (const auto& channel : channels_) channel->disconnect();
    for_each_safely(orphans_, [this](Task& task) {
        if (task.stage == Task::Stage::parked) release(task);
    });
}

bool PortalCore::is_closed() const { return closing_ && channels_.empty() && commands() == 0; }

std::size_t PortalCore::commands() const { return pool_.size() - idle_count_; }

void PortalCore::post(const std::function<void(PortalCore&)>& work) {
    executor_.post([this, alive = std::weak_ptr<const void>(alive_), work] {
        if (!alive.expired()) work(*this);
    });
}

// ---- login ----

void PortalCore::on_request(std::unique_ptr<fabric::ConnectRequest> request) {
    if (crashes_seen_ != device_.crashes.load()) return;  // a crashed target answers nothing
    const auto form =
        std::holds_alternative<fabric::IbAddress>(address_) ? srp::LoginForm::ib_cm : srp::LoginForm::rdma_cm;
    const auto login = srp::parse_login_request(request->private_data(), form);
    if (!login) {
        log::warning("target", "connect request from {} without a usable SRP_LOGIN_REQ ({}); refused", request->peer(),
                     srp::to_string(login.fault));
        return;
    }
    unsigned channels_of_nexus = 0;
    {
        const std::lock_guard lock(device_.mutex);
        const Nexus nexus{login->initiator_port, login->target_port};
        channels_of_nexus =
            static_cast<unsigned>(std::count_if(device_.channels.begin(), device_.channels.end(),
                                                [&nexus](const auto& one) { return one->nexus == nexus; }));
    }
    if (const auto reason = refusal_of(*login, channels_of_nexus)) return reject(*request, *login, *reason);
    accept(*request, *login);
}

std::optional<srp::RejectReason> PortalCore::refusal_of(const srp::LoginRequest& login, unsigned channels_of_nexus) {
    using srp::RejectReason;
    const DeviceConfig& config = device_.config;
    if (Behaviour* b = behaviour())
        if (const auto reason = b->on_login(login, channels_of_nexus)) return reason;
    if (login.it_iu_bytes_max > config.request_bytes_max || login.it_iu_bytes_max < request_bytes_min)
        return RejectReason::it_iu_too_large;
    srp::PortId own{};
    ByteWriter(own).u64(config.service_guid).u64(config.service_guid);
    if (login.target_port != own) return RejectReason::no_association;
    if (!device_.enabled.load()) return RejectReason::insufficient_resources;
    if ((login.buffer_formats & ~config.buffer_formats) != 0) return RejectReason::descriptor_format_unsupported;
    const auto& known = config.initiators;
    if (!known.empty() && std::find(known.begin(), known.end(), login.initiator_port) == known.end())
        return RejectReason::channel_limit;  // what LIO says to an initiator without an ACL
    if (login.multi_channel == srp::MultiChannel::single) return std::nullopt;
    if (!config.multi_channel) return RejectReason::multi_channel_unsupported;
    if (config.channels_per_nexus_max != 0 && channels_of_nexus >= config.channels_per_nexus_max)
        return config.channel_limit_reason;
    return std::nullopt;
}

void PortalCore::reject(fabric::ConnectRequest& request, const srp::LoginRequest& login, srp::RejectReason reason) {
    PortalCounters::add(counters.logins_rejected);
    log::info("target", "login from {} rejected ({:#010x})", request.peer(), static_cast<std::uint32_t>(reason));
    std::array<std::byte, srp::login_reject_bytes> unit{};
    const srp::LoginReject answer{.reason = reason, .tag = login.tag, .buffer_formats = device_.config.buffer_formats};
    request.reject(std::span(unit).first(srp::encode(answer, unit)));
}

void PortalCore::accept(fabric::ConnectRequest& request, const srp::LoginRequest& login) {
    const DeviceConfig& config = device_.config;
    srp::LoginResponse response;
    response.credits = config.credits;
    response.tag = login.tag;
    response.it_iu_bytes_max = config.request_bytes_max;
    response.ti_iu_bytes_max = login.it_iu_bytes_max;  // as LIO does
    response.buffer_formats = config.buffer_formats;
    response.immediate_data = login.immediate_data && config.immediate_data &&
                              login.immediate_data_offset >= immediate_offset_min &&
                              (!behaviour() || behaviour()->grants_immediate_data(login));

    auto record = std::make_shared<ChannelRecord>();
    record->nexus = {login.initiator_port, login.target_port};
    record->action = login.multi_channel;
    record->portal = this;
    const bool is_single = login.multi_channel == srp::MultiChannel::single;
    std::vector<std::pair<PortalCore*, ChannelId>> displaced;
    {
        const std::lock_guard lock(device_.mutex);
        record->id = ++device_.last_channel;
        for (const auto& other : device_.channels) {
            if (!is_single || other->nexus != record->nexus) continue;
            if (other->portal == this)
                displaced.emplace_back(nullptr, other->id);
            else
                other->portal->post([id = other->id](PortalCore& portal) { portal.disconnect(id); });
            response.multi_channel = srp::MultiChannelResult::terminated;
        }
        if (config.attention_at_login)
            for (const unsigned number : device_.units->numbers()) record->attentions[number] = {power_on};
        record->has_attention = !record->attentions.empty();
        device_.channels.push_back(record);
    }
    if (!is_single) response.multi_channel = srp::MultiChannelResult::maintained;
    // The commands of a displaced channel go on in the backend (decisions 1).
    for (const auto& [portal, id] : displaced) disconnect(id);

    PortalCounters::add(counters.logins);
    std::array<std::byte, srp::login_response_bytes> unit{};
    const std::size_t bytes = srp::encode(response, unit);
    channels_.push_back(std::make_unique<Channel>(
        *this, std::move(record), response.immediate_data ? login.immediate_data_offset : std::uint16_t{0}));
    channels_.back()->accept(request, std::span(unit).first(bytes));
}

Channel* PortalCore::find_channel(ChannelId id) {
    const auto found = std::find_if(channels_.begin(), channels_.end(),
                                    [id](const auto& channel) { return channel->record().id == id; });
    return found == channels_.end() ? nullptr : found->get();
}

void PortalCore::on_channel_ended(Channel& channel) {
    {
        const std::lock_guard lock(device_.mutex);
        channel.record().live = false;
        std::erase(device_.channels, channel.shared_record());
    }
    for_each_safely(channel.tasks(), [&](Task& task) {
        channel.stop_waiting(task);
        if (task.stage == Task::Stage::in_store || (task.stage == Task::Stage::parked && changes_the_store(task.work) &&
                                                    !closing_ && task.crashes == device_.crashes.load())) {
            channel.tasks().remove(task);
            task.channel = nullptr;
            orphans_.push_back(task);
        } else if (task.rdma_outstanding > 0) {
            task.stage = Task::Stage::answered;  // the device may touch its memory until on_channel_gone()
            task.abort_job.reset();
        } else {
            release(task);
        }
    });
}

void PortalCore::on_channel_gone(Channel& channel) {
    for_each_safely(channel.tasks(), [this](Task& task) {
        task.rdma_outstanding = 0;
        release(task);
    });
    std::erase_if(channels_, [&channel](const auto& one) { return one.get() == &channel; });
}

// ---- levers ----

template <typename Visit>
void PortalCore::for_channels(std::optional<ChannelId> id, Visit&& visit) {
    for (const auto& channel : channels_)
        if (!id || channel->record().id == *id) visit(*channel);
}

void PortalCore::disconnect(std::optional<ChannelId> channel) {
    for_channels(channel, [](Channel& one) { one.disconnect(); });
}

void PortalCore::send_credit_request(std::optional<ChannelId> channel, std::int32_t credit_delta) {
    for_channels(channel, [credit_delta](Channel& one) { one.send_credit_request(credit_delta); });
}

void PortalCore::send_owed_credits(std::optional<ChannelId> channel) {
    for_channels(channel, [](Channel& one) { one.send_owed_credits(); });
}

void PortalCore::send_async_event(std::optional<ChannelId> channel, const scsi::Lun& lun, const scsi::Sense& sense) {
    for_channels(channel, [&](Channel& one) { one.send_async_event(lun, sense); });
}

void PortalCore::send_target_logout(std::optional<ChannelId> channel, std::uint32_t reason) {
    for_channels(channel, [reason](Channel& one) { one.send_target_logout(reason); });
}

void PortalCore::release_held() {
    const auto release_it = [this](Task& task) {
        if (task.stage != Task::Stage::parked || !task.plan.hold) return;
        task.plan.hold = false;
        carry_out(task);
    };
    for_each_safely(orphans_, release_it);
    // A command that is carried out may not end a channel at once, so channels_ stays as it is.
    for (const auto& channel : channels_) for_each_safely(channel->tasks(), release_it);
}

void PortalCore::crash() {
    crashes_seen_ = device_.crashes.load();
    listener_.reset();
    for (const auto& channel : channels_) channel->disconnect();
    for_each_safely(orphans_, [this](Task& task) {
        if (task.stage == Task::Stage::parked) release(task);
    });
}

void PortalCore::restart() {
    if (closing_ || listener_) return;
    if (auto listening = listen(); !listening)
        log::error("target", "cannot listen again: {}", listening.error().context);
}

// ---- tasks ----

void PortalCore::make_task() {
    pool_.push_back(std::make_unique<Task>(*this));
    idle_ = pool_.back().get();
    ++idle_count_;
}

void PortalCore::release(Task& task) {
    if (static_cast<ListHook<WaitingTag>&>(task).is_linked()) [[unlikely]] {
        SRPFS_ASSERT(task.stage == Task::Stage::no_staging);
        waiting_for_staging_.remove(task);
    }
    (task.channel ? task.channel->tasks() : orphans_).remove(task);
    if (task.staging) staging_->give_back(std::exchange(task.staging, {}));
    task.reset();
    task.next_idle = std::exchange(idle_, &task);
    ++idle_count_;
    if (!waiting_for_staging_.empty()) [[unlikely]]
        hand_out_staging();
}

void PortalCore::hand_out_staging() {
    if (handing_out_) return;  // what runs below releases tasks as well
    handing_out_ = true;
    while (Task* task = waiting_for_staging_.front()) {
        task->staging = staging_->take(staging_bytes_of(*task));
        if (!task->staging) break;
        waiting_for_staging_.remove(*task);
        const auto immediate = std::exchange(task->immediate, {});
        have_staging(*task, immediate);
    }
    handing_out_ = false;
}

void PortalCore::on_timer(Task& task) {
    if (task.stage == Task::Stage::parked) return carry_out(task);
    SRPFS_ASSERT(task.stage == Task::Stage::completing);
    deliver(task);
}

// ---- a command: arrival ----

void PortalCore::start(Task& task, std::span<const std::byte> immediate) {
    PortalCounters::add(counters.commands[opcode_of(task)]);
    if (Behaviour* b = behaviour()) [[unlikely]] {
        task.plan = b->on_command(task.channel->view_of(task));
        task.has_plan = true;
        if (task.plan.status) {
            task.status = *task.plan.status;
            if (task.plan.sense)
                task.failure = Failure{task.plan.sense->key, task.plan.sense->asc, task.plan.sense->ascq};
            return have_data(task);
        }
    }
    if (!admit(task)) [[unlikely]]
        return fail(task, *task.failure);
    if (task.unit && task.unit->reservations->is_reserved() &&
        task.unit->reservations->refuses(task.channel->record().nexus, access_of(task.work))) [[unlikely]] {
        task.status = scsi::Status::reservation_conflict;
        return complete(task);
    }

    // The shortest way: into the store from where it lies.
    if (task.is_immediate && task.work == Task::Work::write && !task.has_plan && task.unit->is_inline) {
        task.memory = const_cast<std::byte*>(immediate.data());  // a write only reads it
        return carry_out(task);
    }
    get_staging(task, immediate);
}

void PortalCore::fail_malformed(Task& task) { fail(task, invalid_field); }

bool PortalCore::admit(Task& task) { return find_unit(task) && understand(task); }

std::optional<unsigned> PortalCore::number_of(const scsi::Lun& lun) const {
    ByteReader in(lun.bytes);
    const unsigned first_level = in.u16();
    if (in.u16() != 0 || in.u32() != 0) return std::nullopt;
    if (first_level < 0x4000) return first_level;  // peripheral, and plain numbers as LIO takes them
    if (first_level < 0x8000 && device_.config.flat_lun_addresses) return first_level & 0x3fff;
    return std::nullopt;
}

void PortalCore::refresh_units() {
    if (device_.units_generation.load(std::memory_order_acquire) != units_generation_) [[unlikely]]
        take_units();
}

void PortalCore::take_units() {
    // A command goes on with the unit it was sent to, also when that is not there any more.
    const auto keep = [](Task& task) {
        if (task.unit && !task.kept_unit) task.kept_unit = task.unit->shared_from_this();
    };
    for (const auto& channel : channels_) channel->tasks().for_each(keep);
    orphans_.for_each(keep);
    const std::lock_guard lock(device_.mutex);
    units_generation_ = device_.units_generation.load(std::memory_order_relaxed);
    units_ = device_.units;
}

bool PortalCore::find_unit(Task& task) {
    refresh_units();
    const auto number = number_of(task.lun);
    const auto* unit = number ? units_->find(*number) : nullptr;
    const std::uint8_t code = opcode_of(task);
    if (!unit) [[unlikely]] {
        // REPORT LUNS is answered everywhere; LUN 0 always exists a little.
        if (code == opcode::report_luns) return true;
        const bool is_always_there = number == 0u && (code == opcode::inquiry || code == opcode::test_unit_ready);
        return is_always_there || refuse(task, no_such_unit);
    }
    task.unit = unit->get();
    ChannelRecord& record = task.channel->record();
    if (record.has_attention.load(std::memory_order_acquire) && !is_vpd_or_list(code)) [[unlikely]] {
        task.failure = device_.take_attention(record, *number);
        return !task.failure;
    }
    return true;
}

bool PortalCore::understand_blocks(Task& task, Task::Work work) {
    const LogicalUnit& unit = *task.unit;
    const bool is_write = work == Task::Work::write || work == Task::Work::write_same;
    const bool is_short_cdb = opcode_of(task) >> 5 == 0;
    const unsigned flags = is_short_cdb ? 0 : byte_of(task, 1);
    task.work = work;
    task.range = range_of(task.cdb);
    if (is_write && unit.read_only.load(std::memory_order_relaxed)) return refuse(task, write_protected);
    if (work == Task::Work::flush) {
        if (!unit.contains(task.range.lba, task.range.count)) return refuse(task, out_of_range);
        if (task.range.count == 0) task.range.count = unit.blocks() - task.range.lba;
        return true;
    }
    if ((flags & 0xe0) != 0) return refuse(task, invalid_field);  // protection information
    if (work == Task::Work::write_same) {
        // ANCHOR, PBDATA, LBDATA, NDOB; UNMAP where units have it; a count, because of WSNZ.
        if ((flags & 0x17) != 0) return refuse(task, invalid_field);
        if ((flags & 0x08) != 0 && !unit.unmap) return refuse(task, invalid_field);
        if (task.range.count == 0) return refuse(task, invalid_field);
    } else if (work != Task::Work::nothing && (flags & 0x18) != 0 && !unit.has_fua()) {
        return refuse(task, invalid_field);  // DPO, FUA
    }
    if (!unit.contains(task.range.lba, task.range.count)) return refuse(task, out_of_range);
    if (work == Task::Work::nothing) return true;  // VERIFY: the range is all that is looked at

    const std::uint64_t range_bytes = task.range.count * unit.block_bytes;
    if (range_bytes > device_.config.transfer_bytes_max || range_bytes > staging_->largest())
        return refuse(task, invalid_field);
    task.cdb_data_bytes = work == Task::Work::write_same ? unit.block_bytes : range_bytes;
    if (is_write) {
        const bool is_right = task.data_bytes == 0 || task.direction == srp::DataDirection::to_target;
        if (!is_right || task.data_bytes != task.cdb_data_bytes) return refuse(task, wrong_data_length);
    } else if (task.direction == srp::DataDirection::to_target) {
        return refuse(task, wrong_data_length);
    }
    return true;
}

bool PortalCore::understand(Task& task) {
    const Task::Work work = work_on_blocks(opcode_of(task));
    return work == Task::Work::tell ? understand_rare(task) : understand_blocks(task, work);
}

bool PortalCore::understand_rare(Task& task) {
    const std::uint8_t service_action = byte_of(task, 1) & 0x1f;
    switch (opcode_of(task)) {
        case opcode::test_unit_ready: return true;
        case opcode::service_action_in_16:
            if (service_action != opcode::service_action_read_capacity_16 &&
                service_action != opcode::service_action_get_lba_status)
                return refuse(task, invalid_field);
            break;
        case opcode::maintenance_in:
            if (service_action != service_action_report_target_port_groups) return refuse(task, invalid_opcode);
            break;
        case opcode::request_sense:
        case opcode::inquiry:
        case opcode::mode_sense_6:
        case opcode::mode_sense_10:
        case opcode::read_capacity_10:
        case opcode::report_luns: break;
        case opcode::persistent_reserve_in: break;
        case opcode::persistent_reserve_out:
            task.cdb_data_bytes = task.data_bytes;
            if (task.direction != srp::DataDirection::to_target || task.data_bytes > unmap_list_bytes_max)
                return refuse(task, parameter_list_length);
            task.work = Task::Work::reserve;
            return true;
        case opcode::start_stop_unit: {
            // LIO: nothing but IMMED=1 START=1, which does nothing.
            const bool is_start = (byte_of(task, 1) & 0x01) != 0 && (byte_of(task, 4) & 0x07) == 0x01;
            return is_start || refuse(task, invalid_field);
        }
        case opcode::unmap:
            if (!task.unit->unmap) return refuse(task, invalid_opcode);
            if (task.unit->read_only.load(std::memory_order_relaxed)) return refuse(task, write_protected);
            if ((byte_of(task, 1) & 0x01) != 0) return refuse(task, invalid_field);  // ANCHOR
            task.cdb_data_bytes = static_cast<std::uint64_t>(byte_of(task, 7)) << 8 | byte_of(task, 8);
            if (task.cdb_data_bytes == 0) return true;
            if (task.direction != srp::DataDirection::to_target || task.data_bytes != task.cdb_data_bytes)
                return refuse(task, wrong_data_length);
            if (task.data_bytes > unmap_list_bytes_max) return refuse(task, invalid_field);
            task.work = Task::Work::unmap;
            return true;
        default: return refuse(task, invalid_opcode);
    }
    task.work = Task::Work::tell;
    return true;
}

// ---- a command: data out ----

// 0: no memory is needed.
std::size_t PortalCore::staging_bytes_of(const Task& task) const {
    switch (task.work) {
        case Task::Work::tell: return tell_bytes_max;
        case Task::Work::read:
        case Task::Work::write:
        case Task::Work::write_same: return task.unit->is_null ? 0 : task.range.count * task.unit->block_bytes;
        case Task::Work::unmap:
        case Task::Work::reserve: return unmap_list_bytes_max;
        case Task::Work::flush:
        case Task::Work::nothing:
        case Task::Work::task_management: return 0;
    }
    return 0;
}

void PortalCore::get_staging(Task& task, std::span<const std::byte> immediate) {
    const std::size_t bytes = staging_bytes_of(task);
    if (bytes == 0) return have_data(task);
    if (waiting_for_staging_.empty()) task.staging = staging_->take(bytes);
    if (task.staging) [[likely]]
        return have_staging(task, immediate);
    task.immediate.assign(immediate.begin(), immediate.end());
    task.stage = Task::Stage::no_staging;
    waiting_for_staging_.push_back(task);
}

void PortalCore::have_staging(Task& task, std::span<const std::byte> immediate) {
    const bool takes_data = changes_the_store(task.work) || task.work == Task::Work::reserve;
    if (task.direction != srp::DataDirection::to_target || !takes_data) return have_data(task);
    if (task.is_immediate) {
        std::memcpy(task.staging.memory, immediate.data(), immediate.size());
        return have_data(task);
    }
    task.stage = Task::Stage::fetching;
    task.move_bytes = task.data_bytes;
    (void)task.channel->move_data(task);
}

void PortalCore::on_data_moved(Task& task) {
    if (task.stage == Task::Stage::fetching) {
        task.move_bytes = task.moved_bytes = 0;
        return have_data(task);
    }
    SRPFS_ASSERT(task.stage == Task::Stage::sending);
    // One-sided operations come before later sends, so the response need not wait for their completion.
    task.channel->respond(task);
    task.stage = Task::Stage::answered;
    if (task.rdma_outstanding == 0) release(task);
}

void PortalCore::have_data(Task& task) {
    if (task.has_plan && (task.plan.hold || task.plan.delay > Duration::zero())) [[unlikely]]
        return park(task);
    carry_out(task);
}

void PortalCore::park(Task& task) {
    task.stage = Task::Stage::parked;
    if (!task.plan.hold) task.timer.arm_after(task.plan.delay);
}

// ---- a command: the backend ----

void PortalCore::carry_out(Task& task) {
    if (task.crashes != device_.crashes.load(std::memory_order_relaxed)) [[unlikely]]
        return release(task);
    if (!task.channel) [[unlikely]]
        PortalCounters::add(counters.late);
    const bool reads = task.work == Task::Work::read;
    if (!reads && task.work != Task::Work::write) return carry_out_rare(task);
    if (task.unit->is_null || task.range.count == 0) return on_applied(task);
    const bool is_through = !reads && opcode_of(task) >> 5 != 0 && (byte_of(task, 1) & 0x08) != 0;
    const auto kind = reads ? StoreIo::Kind::read : is_through ? StoreIo::Kind::write_through : StoreIo::Kind::write;
    submit(task, kind, task.range.lba, task.range.count);
}

void PortalCore::carry_out_rare(Task& task) {
    switch (task.work) {
        case Task::Work::tell: {
            const std::span<std::byte> out(task.staging.memory, tell_bytes_max);
            const Told told = tell(task, out);
            if (told.failure) return fail(task, *told.failure);
            task.cdb_data_bytes = std::min<std::uint64_t>(told.bytes, allocation_of(task.cdb));
            task.move_bytes =
                task.direction == srp::DataDirection::from_target ? std::min(task.cdb_data_bytes, task.data_bytes) : 0;
            return complete(task);
        }
        case Task::Work::write_same: {
            if (task.unit->is_null) return on_applied(task);
            if ((byte_of(task, 1) & 0x08) != 0)
                return submit(task, StoreIo::Kind::unmap, task.range.lba, task.range.count);
            const std::size_t block = task.unit->block_bytes;
            for (std::uint64_t i = 1; i < task.range.count; ++i)
                std::memcpy(task.staging.memory + i * block, task.staging.memory, block);
            return submit(task, StoreIo::Kind::write, task.range.lba, task.range.count);
        }
        case Task::Work::unmap: {
            auto ranges = parse_unmap_list({task.staging.memory, task.data_bytes});
            if (!ranges) return fail(task, parameter_list_length);
            for (const BlockRange& range : *ranges)
                if (!task.unit->contains(range.lba, range.count)) return fail(task, out_of_range);
            task.unmap_ranges = std::move(*ranges);
            return next_unmap(task);
        }
        case Task::Work::reserve: {
            if (!task.channel) return complete(task);
            const Nexus nexus = task.channel->record().nexus;
            const std::span<const std::byte> data(task.staging.memory, task.data_bytes);
            const auto done = task.unit->reservations->carry_out(nexus, task.cdb, data);
            for (const auto& [other, what] : done.attentions) device_.attention_for(other, task.unit->number, what);
            if (done.failure) return fail(task, *done.failure);
            if (done.conflict)
                task.status = scsi::Status::reservation_conflict;
            else if (Behaviour* b = behaviour())
                b->on_reservation_command(task.unit->number, nexus.initiator, task.cdb, data);
            return complete(task);
        }
        case Task::Work::flush: return submit(task, StoreIo::Kind::flush, task.range.lba, task.range.count);
        case Task::Work::nothing: return complete(task);
        case Task::Work::read:
        case Task::Work::write:
        case Task::Work::task_management: break;
    }
    SRPFS_ASSERT(false);
}

void PortalCore::next_unmap(Task& task) {
    while (task.unmap_index < task.unmap_ranges.size() && task.unmap_ranges[task.unmap_index].count == 0)
        ++task.unmap_index;
    if (task.unmap_index == task.unmap_ranges.size()) return complete(task);
    task.range = task.unmap_ranges[task.unmap_index];
    submit(task, StoreIo::Kind::unmap, task.range.lba, task.range.count);
}

void PortalCore::submit(Task& task, StoreIo::Kind kind, std::uint64_t lba, std::uint64_t blocks) {
    task.kind = kind;
    task.offset = lba * task.unit->block_bytes;
    task.bytes = blocks * task.unit->block_bytes;
    if (task.staging) task.memory = task.staging.memory;
    task.stage = Task::Stage::in_store;
    const StoreResult result = task.unit->store->submit(task, executor_);
    if (result != StoreResult::pending) on_store_done(task, result);
}

void PortalCore::on_store_done(Task& task, StoreResult result) {
    if (task.crashes != device_.crashes.load(std::memory_order_relaxed)) [[unlikely]]
        return release(task);
    switch (result) {
        case StoreResult::done: break;
        case StoreResult::pending: SRPFS_ASSERT(false); break;
        case StoreResult::medium_error:
            return fail(task, task.work == Task::Work::read ? unrecovered_read : write_failed);
        case StoreResult::no_space: return fail(task, no_space_left);
    }
    on_applied(task);
}

void PortalCore::on_applied(Task& task) {
    observe(task);
    if (task.work == Task::Work::read) {
        PortalCounters::add(counters.blocks_read, task.range.count);
        task.move_bytes = std::min(task.cdb_data_bytes, task.data_bytes);
    }
    if (task.work == Task::Work::unmap) {
        ++task.unmap_index;
        return next_unmap(task);
    }
    complete(task);
}

void PortalCore::observe(Task& task) {
    if (!changes_the_store(task.work)) return;
    if (task.work != Task::Work::flush) PortalCounters::add(counters.blocks_written, task.range.count);
    if (Behaviour* told = behaviour()) [[unlikely]]
        tell_behaviour(task, *told);
}

void PortalCore::tell_behaviour(const Task& task, Behaviour& behaviour) {
    const BlockRange& range = task.range;
    const bool is_flush = task.work == Task::Work::flush;
    const bool has_data = task.memory &&
                          (task.kind == StoreIo::Kind::write || task.kind == StoreIo::Kind::write_through) &&
                          !task.unit->is_null;
    if (!is_flush)
        behaviour.on_write_applied(
            task.unit->number, range.lba, range.count,
            has_data ? std::span<const std::byte>(task.memory, task.bytes) : std::span<const std::byte>());
    if (is_flush || task.kind == StoreIo::Kind::write_through)
        behaviour.on_flushed(task.unit->number, range.lba, range.count);
}

Told PortalCore::tell(Task& task, std::span<std::byte> out) {
    switch (opcode_of(task)) {
        case opcode::inquiry: return tell_inquiry(task.unit, task.cdb, {device_.config.transfer_bytes_max}, out);
        case opcode::read_capacity_10: return tell_capacity_10(*task.unit, out);
        case opcode::service_action_in_16:
            return (byte_of(task, 1) & 0x1f) == opcode::service_action_get_lba_status
                       ? tell_lba_status(*task.unit, task.cdb, out)
                       : tell_capacity_16(*task.unit, out);
        case opcode::mode_sense_6:
        case opcode::mode_sense_10: return tell_mode_sense(*task.unit, task.cdb, out);
        case opcode::report_luns:
            refresh_units();
            return tell_luns(units_->numbers(), device_.config.flat_lun_addresses, task.cdb, out);
        case opcode::maintenance_in: return tell_target_port_groups(task.cdb, out);
        case opcode::persistent_reserve_in:
            if (Behaviour* b = behaviour(); b && task.channel)
                b->on_reservation_command(task.unit->number, task.channel->record().nexus.initiator, task.cdb, {});
            return task.unit->reservations->tell(task.cdb, out);
        case opcode::request_sense: {
            std::optional<Failure> pending;
            if (task.channel && task.unit) pending = device_.take_attention(task.channel->record(), task.unit->number);
            return tell_sense(pending, task.cdb, out);
        }
        default: break;
    }
    SRPFS_ASSERT(false);
    return {};
}

// ---- a command: the answer ----

void PortalCore::fail(Task& task, Failure failure) {
    task.status = scsi::Status::check_condition;
    task.failure = failure;
    complete(task);
}

void PortalCore::complete(Task& task) {
    if (task.abort_job || !task.channel || task.has_plan) [[unlikely]]
        return complete_rare(task);
    deliver(task);
}

void PortalCore::complete_rare(Task& task) {
    if (task.abort_job) return finish_abort(task);
    if (!task.channel) return release(task);
    // An attention is not told later than what was done after it on the same channel.
    const bool is_attention = task.failure && task.failure->key == scsi::SenseKey::unit_attention;
    if (task.has_plan && task.plan.response_delay > Duration::zero() && !is_attention) {
        task.stage = Task::Stage::completing;
        return task.timer.arm_after(task.plan.response_delay);
    }
    deliver(task);
}

void PortalCore::deliver(Task& task) {
    if (task.crashes != device_.crashes.load(std::memory_order_relaxed)) [[unlikely]]
        return release(task);
    task.stage = Task::Stage::sending;
    if (task.status != scsi::Status::good) task.move_bytes = 0;
    task.moved_bytes = 0;
    task.descriptor_index = 0;
    task.descriptor_offset = 0;
    if (task.channel->move_data(task)) on_data_moved(task);
}

// ---- task management ----

void PortalCore::start_task_management(Task& task, const srp::TaskManagement& request, bool is_known_function) {
    PortalCounters::add(counters.task_managements);
    task.work = Task::Work::task_management;
    task.stage = Task::Stage::completing;
    std::optional<Duration> overtaken_by;
    if (Behaviour* b = behaviour()) {
        const TaskManagementPlan plan = b->on_task_management(task.channel->record().id, request);
        task.has_plan = true;
        task.plan.response_delay = plan.delay;
        task.is_silent = !plan.answered;
        overtaken_by = plan.overtaken_by;
        if (plan.code) return answer(task, *plan.code);
    }
    if (!is_known_function) return answer(task, srp::TaskCode::not_supported);
    refresh_units();
    const auto number = number_of(task.lun);
    if (!number || !units_->find(*number)) return answer(task, srp::TaskCode::failed);
    if (overtaken_by) complete_concerned(task, request, *overtaken_by);
    switch (request.function) {
        case srp::TaskFunction::abort_task: return abort_task(task, request.managed_tag);
        case srp::TaskFunction::lun_reset: return reset_unit(task);
        case srp::TaskFunction::abort_task_set:
        case srp::TaskFunction::clear_task_set:
        case srp::TaskFunction::clear_aca: return answer(task, srp::TaskCode::failed);  // LIO has none of them
    }
}

// Ends the delays of what the function is about to look for, on this portal.
void PortalCore::complete_concerned(const Task& request, const srp::TaskManagement& function, Duration answers_after) {
    const bool is_reset = function.function == srp::TaskFunction::lun_reset;
    const auto complete_it = [&](Task& task) {
        if (task.stage != Task::Stage::parked || task.lun != request.lun) return;
        if (!is_reset && (task.channel != request.channel || task.tag != function.managed_tag)) return;
        task.timer.disarm();
        task.plan.hold = false;
        task.plan.response_delay = answers_after;
        carry_out(task);
    };
    for_each_safely(orphans_, complete_it);
    for (const auto& channel : channels_) for_each_safely(channel->tasks(), complete_it);
}

void PortalCore::answer(Task& request, srp::TaskCode code) {
    request.task_code = code;
    if (request.is_silent) {
        request.channel->owe_credit();
        return release(request);
    }
    complete(request);
}

std::shared_ptr<AbortJob> PortalCore::make_job(const Task& request, std::optional<unsigned> reset_number) {
    const auto answer_it = [this, alive = std::weak_ptr<const void>(alive_), id = request.channel->record().id,
                            tag = request.tag] {
        if (alive.expired()) return;
        Channel* channel = find_channel(id);
        if (!channel) return;
        Task* waiting = channel->tasks().find([tag](const Task& task) {
            return task.tag == tag && task.work == Task::Work::task_management && !task.task_code;
        });
        if (waiting) answer(*waiting, srp::TaskCode::complete);
    };
    return std::make_shared<AbortJob>([this, answer_it, reset_number, alive = std::weak_ptr<const void>(alive_),
                                       home = std::this_thread::get_id(), &executor = executor_] {
        if (alive.expired()) return;
        if (reset_number) device_.attention_for_all(*reset_number, reset_occurred);
        if (std::this_thread::get_id() == home)
            answer_it();
        else
            executor.post(answer_it);
    });
}

void PortalCore::abort_task(Task& request, srp::Tag managed) {
    Task* task = request.channel->tasks().find([&](const Task& one) {
        return one.tag == managed && one.lun == request.lun && one.work != Task::Work::task_management &&
               (one.stage == Task::Stage::no_staging || one.stage == Task::Stage::fetching ||
                one.stage == Task::Stage::parked || one.stage == Task::Stage::in_store);
    });
    // Unknown, finished, or complete in the backend and on its way out.
    if (!task) return answer(request, srp::TaskCode::failed);
    abort(*task, true, make_job(request, std::nullopt));
}

void PortalCore::reset_unit(Task& request) {
    const unsigned number = *number_of(request.lun);
    const ChannelId by = request.channel->record().id;
    const auto job = make_job(request, number);
    // The device counts, as in LIO, not the number: what was sent to it under another number is aborted as well.
    Identity identity;
    {
        const std::lock_guard lock(device_.mutex);
        const auto* unit = device_.units->find(number);
        if (unit) identity = (*unit)->identity;
        for (PortalCore* portal : device_.portals)
            if (portal != this) portal->post([=](PortalCore& there) { there.abort_unit(identity, by, job); });
    }
    abort_unit(identity, by, job);
}

// Commands of the asking channel vanish, those of others end in TASK ABORTED, those of dead channels are forgotten.
void PortalCore::abort_unit(const Identity& identity, ChannelId by, const std::shared_ptr<AbortJob>& job) {
    const auto is_concerned = [&](const Task& task) { return task.unit && task.unit->identity == identity; };
    for (const auto& channel : channels_)
        for_each_safely(channel->tasks(), [&](Task& task) {
            if (is_concerned(task)) abort(task, channel->record().id == by, job);
        });
    for_each_safely(orphans_, [&](Task& task) {
        if (is_concerned(task)) abort(task, true, job);
    });
}

void PortalCore::abort(Task& task, bool is_silent, const std::shared_ptr<AbortJob>& job) {
    switch (task.stage) {
        case Task::Stage::in_store: break;
        case Task::Stage::parked:
            if (task.plan.abort_waits) break;
            [[fallthrough]];
        case Task::Stage::no_staging:
        case Task::Stage::fetching: task.is_silent = is_silent; return finish_abort(task);
        case Task::Stage::idle:
        case Task::Stage::completing:
        case Task::Stage::sending:
        case Task::Stage::answered: return;
    }
    task.is_silent = is_silent;
    task.abort_job = job;  // carried out to its end; the job waits for that
}

void PortalCore::finish_abort(Task& task) {
    PortalCounters::add(counters.aborted);
    task.timer.disarm();
    if (task.channel) {
        task.channel->stop_waiting(task);
        if (task.is_silent) {
            task.channel->owe_credit();
        } else {
            task.status = scsi::Status::task_aborted;
            task.task_code.reset();
            task.channel->respond(task);
        }
    }
    if (task.rdma_outstanding == 0) return release(task);
    task.stage = Task::Stage::answered;
    task.abort_job.reset();
}

// ---- the public door ----

Result<std::unique_ptr<Portal>> make_portal(Device& device, reactor::Executor& executor, fabric::Fabric& fabric,
                                            const fabric::Address& address, const StagingConfig& config) {
    auto staging = Staging::create(fabric, config);
    if (!staging) return staging.error();
    auto portal = std::make_unique<PortalCore>(device.state(), executor, fabric, address, std::move(*staging));
    if (auto listening = portal->listen(); !listening) return listening.error();
    return std::unique_ptr<Portal>(std::move(portal));
}

}  // namespace srpfs::target
