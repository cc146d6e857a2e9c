// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/target/device.h>

#include "device_state.h"
#include "portal_core.h"

#include <srpfs/base/assert.h>

#include <srpfs/base/bytes.h>

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

namespace srpfs::target {
namespace {

constexpr unsigned numbers_max = 16384;
constexpr Failure luns_changed{scsi::SenseKey::unit_attention, 0x3f, 0x0e};

Error no_unit(unsigned number) { return Error(ENXIO, fmt::format("the target has no LUN {}", number)); }

}  // namespace

// ---- UnitMap ----

std::vector<unsigned> UnitMap::numbers() const {
    std::vector<unsigned> numbers;
    for (const auto& unit : units_)
        if (unit) numbers.push_back(unit->number);
    return numbers;
}

std::shared_ptr<const UnitMap> UnitMap::with(unsigned number, std::shared_ptr<LogicalUnit> unit) const {
    auto changed = std::make_shared<UnitMap>(*this);
    if (changed->units_.size() <= number) changed->units_.resize(number + 1);
    changed->units_[number] = std::move(unit);
    return changed;
}

// ---- PortalCounters ----

void PortalCounters::add_to(DeviceCounters& sum) const {
    const auto value = [](const Counter& counter) { return counter.load(std::memory_order_relaxed); };
    for (std::size_t i = 0; i < commands.size(); ++i) sum.commands[i] += value(commands[i]);
    sum.task_managements += value(task_managements);
    sum.logins += value(logins);
    sum.logins_rejected += value(logins_rejected);
    sum.check_conditions += value(check_conditions);
    sum.blocks_read += value(blocks_read);
    sum.blocks_written += value(blocks_written);
    sum.aborted += value(aborted);
    sum.late += value(late);
    sum.malformed += value(malformed);
}

// ---- DeviceState ----

void DeviceState::add_attention(ChannelRecord& record, unsigned number, Failure what) {
    auto& waiting = record.attentions[number];
    const bool is_known = std::any_of(waiting.begin(), waiting.end(), [&what](const Failure& known) {
        return known.asc == what.asc && known.ascq == what.ascq;
    });
    if (!is_known) waiting.push_back(what);
    record.has_attention.store(true, std::memory_order_release);
}

void DeviceState::set_units(std::shared_ptr<const UnitMap> map, std::optional<unsigned> silent_unit) {
    const std::lock_guard lock(mutex);
    units = std::move(map);
    for (const auto& record : channels) {
        std::erase_if(record->attentions, [this](const auto& entry) { return !units->find(entry.first); });
        record->has_attention.store(!record->attentions.empty(), std::memory_order_release);
        for (const auto& unit : units->units())
            if (unit && unit->number != silent_unit) add_attention(*record, unit->number, luns_changed);
    }
    units_generation.fetch_add(1, std::memory_order_release);
}

void DeviceState::attention_for_all(unsigned number, Failure what) {
    const std::lock_guard lock(mutex);
    for (const auto& record : channels) add_attention(*record, number, what);
}

void DeviceState::attention_for(const Nexus& nexus, unsigned number, Failure what) {
    const std::lock_guard lock(mutex);
    for (const auto& record : channels)
        if (record->nexus == nexus) add_attention(*record, number, what);
}

std::optional<Failure> DeviceState::take_attention(ChannelRecord& record, unsigned number) {
    const std::lock_guard lock(mutex);
    const auto waiting = record.attentions.find(number);
    if (waiting == record.attentions.end()) return std::nullopt;
    const Failure oldest = waiting->second.front();
    waiting->second.erase(waiting->second.begin());
    if (waiting->second.empty()) record.attentions.erase(waiting);
    record.has_attention.store(!record.attentions.empty(), std::memory_order_release);
    return oldest;
}

void DeviceState::on_portals(const std::function<void(PortalCore&)>& work) {
    const std::lock_guard lock(mutex);
    for (PortalCore* portal : portals) portal->post(work);
}

// ---- Device ----

Device::Device(std::unique_ptr<DeviceState> state) : state_(std::move(state)) {}

Device::~Device() { SRPFS_ASSERT(state_->portals.empty()); }

Result<std::unique_ptr<Device>> Device::create(const DeviceConfig& config, const std::vector<LunConfig>& luns) {
    SRPFS_ASSERT(config.credits >= 1 && config.credits <= 4096);
    SRPFS_ASSERT(config.request_bytes_max >= 64 && config.request_bytes_max <= 65536);
    SRPFS_ASSERT(config.sense_bytes >= 18 && config.sense_bytes <= 96);
    std::unique_ptr<Device> device(new Device(std::make_unique<DeviceState>(config)));
    for (unsigned number = 0; number < luns.size(); ++number)
        if (auto added = device->add_lun(number, luns[number]); !added) return added.error();
    return device;
}

void Device::set_behaviour(Behaviour* behaviour) { state_->behaviour = behaviour; }

Result<void> Device::add_lun(unsigned number, const LunConfig& config) {
    auto store = make_store(config, state_->config.volatile_cache);
    if (!store) return Error(store.error().code, fmt::format("LUN {}: {}", number, store.error().context));
    return add_lun(number, config, std::move(*store));
}

Result<void> Device::add_lun(unsigned number, const LunConfig& config, std::unique_ptr<BlockStore> store) {
    if (number >= numbers_max) return Error(EINVAL, fmt::format("LUN {}: numbers end at {}", number, numbers_max - 1));
    std::shared_ptr<const UnitMap> units;
    {
        const std::lock_guard lock(state_->mutex);
        units = state_->units;
    }
    if (units->find(number)) return Error(EEXIST, fmt::format("the target has a LUN {} already", number));
    auto unit = std::make_shared<LogicalUnit>(number, config, std::move(store));
    // LIO tells nothing on the new unit itself, not even when it takes the number of another.
    const auto silent = state_->config.attention_at_change ? std::nullopt : std::optional(number);
    state_->set_units(units->with(number, std::move(unit)), silent);
    return {};
}

Result<void> Device::remove_lun(unsigned number) {
    std::shared_ptr<const UnitMap> units;
    {
        const std::lock_guard lock(state_->mutex);
        units = state_->units;
    }
    if (!units->find(number)) return no_unit(number);
    state_->set_units(units->with(number, nullptr), std::nullopt);
    return {};
}

namespace {
std::shared_ptr<LogicalUnit> find_unit(DeviceState& state, unsigned number) {
    const std::lock_guard lock(state.mutex);
    const auto* unit = state.units->find(number);
    return unit ? *unit : nullptr;
}
Nexus nexus_of(const DeviceState& state, const srp::PortId& initiator) {
    Nexus nexus{.initiator = initiator, .target = {}};
    ByteWriter(nexus.target).u64(state.config.service_guid).u64(state.config.service_guid);
    return nexus;
}
}  // namespace

Result<void> Device::resize_lun(unsigned number, std::uint64_t bytes) {
    const auto unit = find_unit(*state_, number);
    if (!unit) return no_unit(number);
    if (bytes == 0 || bytes % unit->block_bytes != 0)
        return Error(EINVAL, fmt::format("LUN {}: a size of {} bytes is no multiple of the block length {}", number,
                                         bytes, unit->block_bytes));
    if (auto resized = unit->store->resize(bytes); !resized) return resized.error();
    if (state_->config.attention_at_change)
        state_->attention_for_all(number, {scsi::SenseKey::unit_attention, 0x2a, 0x09});
    return {};
}

Result<void> Device::set_read_only(unsigned number, bool read_only) {
    const auto unit = find_unit(*state_, number);
    if (!unit) return no_unit(number);
    unit->read_only = read_only;
    if (state_->config.attention_at_change)
        state_->attention_for_all(number, {scsi::SenseKey::unit_attention, 0x2a, 0x01});
    return {};
}

BlockStore* Device::store(unsigned number) {
    const auto unit = find_unit(*state_, number);
    return unit ? unit->store.get() : nullptr;
}

std::string Device::wwid(unsigned number) const {
    const auto unit = find_unit(*state_, number);
    return unit ? to_string(unit->identity) : std::string();
}

void Device::raise_attention(unsigned number, std::uint8_t asc, std::uint8_t ascq) {
    state_->attention_for_all(number, {scsi::SenseKey::unit_attention, asc, ascq});
}

Result<void> Device::reserve_as(const srp::PortId& initiator, unsigned number, const scsi::Cdb& cdb,
                                std::span<const std::byte> data) {
    const auto unit = find_unit(*state_, number);
    if (!unit) return no_unit(number);
    const auto done = unit->reservations->carry_out(nexus_of(*state_, initiator), cdb.bytes, data);
    for (const auto& [nexus, what] : done.attentions) state_->attention_for(nexus, number, what);
    if (done.conflict) return Error(EBUSY, fmt::format("LUN {}: RESERVATION CONFLICT", number));
    if (done.failure) return Error(EINVAL, fmt::format("LUN {}: refused", number));
    return {};
}

ReservationState Device::reservations(unsigned number) const {
    const auto unit = find_unit(*state_, number);
    return unit ? unit->reservations->state() : ReservationState{};
}

bool Device::refuses(const srp::PortId& initiator, unsigned number, bool writes) const {
    const auto unit = find_unit(*state_, number);
    return unit && unit->reservations->refuses(nexus_of(*state_, initiator),
                                               writes ? Reservations::Access::writes : Reservations::Access::reads);
}

void Device::set_enabled(bool enabled) {
    state_->enabled = enabled;
    if (!enabled) disconnect(std::nullopt);
}

void Device::crash(const std::function<bool(unsigned lun, std::uint64_t offset)>& lost) {
    state_->crashes.fetch_add(1);  // from here on nothing that was received before is carried out
    lose_cache(lost);
    {
        const std::lock_guard lock(state_->mutex);
        for (const auto& unit : state_->units->units())
            if (unit) unit->reservations->lose_power();
    }
    state_->on_portals([](PortalCore& portal) { portal.crash(); });
}

void Device::restart() {
    state_->on_portals([](PortalCore& portal) { portal.restart(); });
}

void Device::lose_cache(const std::function<bool(unsigned lun, std::uint64_t offset)>& lost) {
    std::shared_ptr<const UnitMap> units;
    {
        const std::lock_guard lock(state_->mutex);
        units = state_->units;
    }
    for (const auto& unit : units->units())
        if (unit) unit->store->lose_cache([&](std::uint64_t offset) { return lost(unit->number, offset); });
}

void Device::release_held() {
    state_->on_portals([](PortalCore& portal) { portal.release_held(); });
}

void Device::disconnect(std::optional<ChannelId> channel) {
    state_->on_portals([channel](PortalCore& portal) { portal.disconnect(channel); });
}

void Device::send_credit_request(std::optional<ChannelId> channel, std::int32_t credit_delta) {
    state_->on_portals([=](PortalCore& portal) { portal.send_credit_request(channel, credit_delta); });
}

void Device::send_owed_credits(std::optional<ChannelId> channel) {
    state_->on_portals([=](PortalCore& portal) { portal.send_owed_credits(channel); });
}

void Device::send_async_event(std::optional<ChannelId> channel, const scsi::Lun& lun, const scsi::Sense& sense) {
    state_->on_portals([=](PortalCore& portal) { portal.send_async_event(channel, lun, sense); });
}

void Device::send_target_logout(std::optional<ChannelId> channel, std::uint32_t reason) {
    state_->on_portals([=](PortalCore& portal) { portal.send_target_logout(channel, reason); });
}

std::vector<ChannelInfo> Device::channels() const {
    const std::lock_guard lock(state_->mutex);
    std::vector<ChannelInfo> infos;
    for (const auto& record : state_->channels)
        infos.push_back({record->id, record->nexus.initiator, record->action, record->live});
    return infos;
}

DeviceCounters Device::counters() const {
    const std::lock_guard lock(state_->mutex);
    DeviceCounters sum = state_->departed;
    for (const PortalCore* portal : state_->portals) portal->counters.add_to(sum);
    return sum;
}

const DeviceConfig& Device::config() const { return state_->config; }

}  // namespace srpfs::target
