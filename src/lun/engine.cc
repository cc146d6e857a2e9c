// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/lun/engine.h>

#include <srpfs/base/log.h>
#include <srpfs/fabric/huge_memory.h>
#include <srpfs/lun/unit.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <list>
#include <map>
#include <new>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace srpfs::lun {
namespace {

constexpr std::size_t page = 4096;
constexpr std::size_t kib = 1024, mib = 1024 * kib;
// Room for the blocks at both ends of an unaligned read.
constexpr std::size_t large_read_bytes = mib + 128 * kib;
// For reads, then for writes; each from small to large.
constexpr unsigned class_4k = 0, class_64k = 1, class_1m = 2, class_write_4k = 3, class_write_64k = 4, class_intake = 5,
                   class_count = 6;
constexpr std::size_t class_bytes[class_count] = {4 * kib, 64 * kib, large_read_bytes, 4 * kib, 64 * kib, mib};
constexpr unsigned class_slot = class_count;  // of an entry: in no list, and in nobody's share
constexpr unsigned operations_per_chunk = 64;

}  // namespace

std::size_t EngineLimits::registered_bytes() const {
    return intake_buffers * (mib + page) + write_buffers_4k * class_bytes[class_write_4k] +
           write_buffers_64k * class_bytes[class_write_64k] + read_buffers_4k * class_bytes[class_4k] +
           read_buffers_64k * class_bytes[class_64k] + read_buffers_1m * class_bytes[class_1m] +
           edge_buffers * std::size_t{4} * edge_block_bytes_max + Operation::bytes_max +
           (entries + spare_slots()) * mib;
}

// What the units of one target hold together, so that a stuck target cannot take everything.
struct Engine::Share {
    const initiator::TargetLink* link = nullptr;
    unsigned users = 0;
    unsigned held[class_count] = {};
    unsigned held_edges = 0;
    std::size_t parked_bytes = 0;
};

struct Engine::State {
    EngineLimits limits;
    EngineListener* listener = nullptr;
    std::vector<fabric::Fabric*> fabrics;

    fabric::HugeMemory target_writes;  // read buffers, old edge blocks
    fabric::HugeMemory target_reads;   // intake and write buffers, new edge blocks
    fabric::RegionId region_target_writes{}, region_target_reads{};
    unsigned regions_registered = 0;
    std::span<std::byte> zeros;

    // Entries. The file has slots, and behind them as much memory as the entries have without one. Its slots are mapped
    // twice: in `slots`, for devices, and in `windows`, piece by piece, each showing what its entry has at present.
    int slot_file = -1;
    fabric::HugeMemory slots, windows;
    fabric::RegionId region_slots{};
    std::deque<Buffer> slot_buffers;
    std::vector<Buffer*> slot_of_entry;  // nullptr: it shows memory of its own
    std::vector<Buffer*> spare_slots;
    unsigned slots_detached = 0;

    std::deque<Buffer> buffers;
    std::deque<EdgeBuffers> edges;
    std::deque<Operation> operations;
    IntrusiveList<Buffer, QueueTag> free_buffers[class_count];
    unsigned total[class_count] = {}, unit_max[class_count] = {}, target_max[class_count] = {};
    IntrusiveList<EdgeBuffers, QueueTag> free_edges;
    IntrusiveList<Operation, QueueTag> free_operations;
    IntrusiveList<Operation, QueueTag> waiting[class_count];
    IntrusiveList<Operation, QueueTag> waiting_edges;
    unsigned operations_in_use = 0;
    Buffer* intake = nullptr;
    std::size_t parked_bytes = 0;
    std::list<Share> shares;
    std::vector<Unit*> units;
    std::map<std::string, std::shared_ptr<BlockLocks>> locks;  // by identity

    // A stuck unit takes half of a class at most, a stuck target three quarters: something is left for the others.
    [[nodiscard]] bool may_hold(const Unit& unit, unsigned size_class) const {
        return unit.buffers_held_[size_class] < unit_max[size_class] &&
               unit.share_->held[size_class] < target_max[size_class];
    }
    [[nodiscard]] bool may_hold_edges(const Share& share) const {
        return share.held_edges < std::max(1U, limits.edge_buffers / 2);
    }
    [[nodiscard]] Result<void> map_slots();
    ~State() {
        for (auto& list : free_buffers)
            while (list.pop_front()) {
            }
        while (free_edges.pop_front()) {
        }
        while (free_operations.pop_front()) {
        }
        for (fabric::Fabric* fabric : fabrics) {
            if (regions_registered > 0) fabric->unregister_memory(region_target_writes);
            if (regions_registered > 1) fabric->unregister_memory(region_target_reads);
            if (regions_registered > 2) fabric->unregister_memory(region_slots);
        }
        if (slot_file >= 0) close(slot_file);
    }
};

Engine::Engine(reactor::Executor& executor, Random& random)
    : executor_(executor), random_(random), state_(std::make_unique<State>()) {}

Engine::~Engine() { SRPFS_ASSERT(state_->operations_in_use == 0); }

Result<std::unique_ptr<Engine>> Engine::create(const EngineLimits& limits, std::vector<fabric::Fabric*> fabrics,
                                               reactor::Executor& executor, Random& random) {
    SRPFS_ASSERT(limits.intake_buffers >= 3);
    std::unique_ptr<Engine> engine(new Engine(executor, random));
    State& state = *engine->state_;
    state.limits = limits;

    const std::size_t read_bytes =
        limits.read_buffers_4k * class_bytes[class_4k] + limits.read_buffers_64k * class_bytes[class_64k] +
        limits.read_buffers_1m * class_bytes[class_1m] + limits.edge_buffers * std::size_t{2} * edge_block_bytes_max;
    const std::size_t write_bytes = limits.intake_buffers * (mib + page) +
                                    limits.write_buffers_4k * class_bytes[class_write_4k] +
                                    limits.write_buffers_64k * class_bytes[class_write_64k] +
                                    limits.edge_buffers * std::size_t{2} * edge_block_bytes_max + Operation::bytes_max;
    state.target_writes = fabric::HugeMemory(read_bytes);
    state.target_reads = fabric::HugeMemory(write_bytes);
    const std::span<std::byte> target_writes = state.target_writes.bytes(), target_reads = state.target_reads.bytes();
    if (target_writes.empty() || target_reads.empty())
        return Error(ENOMEM, fmt::format("no memory for {} MiB of I/O buffers; use a smaller memory= option",
                                         (read_bytes + write_bytes) / mib));

    if (limits.entries > 0)
        if (const auto mapped = state.map_slots(); !mapped) return mapped.error();

    for (std::size_t i = 0; i < fabrics.size(); ++i) {
        const auto writes = fabrics[i]->register_memory(target_writes, fabric::RemoteAccess::write);
        if (!writes) return writes.error();
        const auto reads = fabrics[i]->register_memory(target_reads, fabric::RemoteAccess::read);
        if (!reads) return reads.error();
        if (i == 0) {
            state.region_target_writes = *writes;
            state.region_target_reads = *reads;
        }
        SRPFS_ASSERT(state.region_target_writes == *writes);
        SRPFS_ASSERT(state.region_target_reads == *reads);
        if (!state.slots.bytes().empty()) {
            const auto slots = fabrics[i]->register_memory(state.slots.bytes(), fabric::RemoteAccess::both);
            if (!slots) return slots.error();
            if (i == 0) state.region_slots = *slots;
            SRPFS_ASSERT(state.region_slots == *slots);
        }
        state.fabrics.push_back(fabrics[i]);
        state.regions_registered = state.slots.bytes().empty() ? 2 : 3;
    }

    std::size_t read_at = 0, write_at = 0;
    const auto add = [&](unsigned size_class, std::span<std::byte> bytes, fabric::RegionId region) {
        Buffer& buffer = state.buffers.emplace_back();
        buffer.bytes = bytes;
        buffer.region = region;
        buffer.size_class = static_cast<std::uint8_t>(size_class);
        state.free_buffers[size_class].push_back(buffer);
        ++state.total[size_class];
    };
    for (unsigned i = 0; i < limits.intake_buffers; ++i) {
        add(class_intake, target_reads.subspan(write_at + page, mib), state.region_target_reads);
        write_at += page + mib;
    }
    const unsigned write_counts[2] = {limits.write_buffers_4k, limits.write_buffers_64k};
    for (unsigned size_class = class_write_4k; size_class < class_intake; ++size_class)
        for (unsigned i = 0; i < write_counts[size_class - class_write_4k]; ++i) {
            add(size_class, target_reads.subspan(write_at, class_bytes[size_class]), state.region_target_reads);
            write_at += class_bytes[size_class];
        }
    const unsigned counts[3] = {limits.read_buffers_4k, limits.read_buffers_64k, limits.read_buffers_1m};
    for (unsigned size_class = 0; size_class < 3; ++size_class)
        for (unsigned i = 0; i < counts[size_class]; ++i) {
            add(size_class, target_writes.subspan(read_at, class_bytes[size_class]), state.region_target_writes);
            read_at += class_bytes[size_class];
        }
    for (unsigned i = 0; i < limits.edge_buffers; ++i) {
        EdgeBuffers& edges = state.edges.emplace_back();
        edges.old_head = target_writes.subspan(read_at, edge_block_bytes_max);
        edges.old_tail = target_writes.subspan(read_at + edge_block_bytes_max, edge_block_bytes_max);
        edges.new_head = target_reads.subspan(write_at, edge_block_bytes_max);
        edges.new_tail = target_reads.subspan(write_at + edge_block_bytes_max, edge_block_bytes_max);
        edges.region_old = state.region_target_writes;
        edges.region_new = state.region_target_reads;
        read_at += std::size_t{2} * edge_block_bytes_max;
        write_at += std::size_t{2} * edge_block_bytes_max;
        state.free_edges.push_back(edges);
    }
    state.zeros = target_reads.subspan(write_at, Operation::bytes_max);  // as they were mapped
    for (unsigned size_class = 0; size_class < class_count; ++size_class) {
        state.unit_max[size_class] = std::max(1U, state.total[size_class] / 2);
        state.target_max[size_class] = std::max(1U, state.total[size_class] * 3 / 4);
    }
    state.intake = state.free_buffers[class_intake].pop_front();
    for (std::size_t at = 0; at < state.slots.bytes().size(); at += mib) {
        Buffer& slot = state.slot_buffers.emplace_back();
        slot.bytes = state.slots.bytes().subspan(at, mib);
        slot.region = state.region_slots;
        slot.size_class = class_slot;
        (state.slot_of_entry.size() < limits.entries ? state.slot_of_entry : state.spare_slots).push_back(&slot);
    }
    return engine;
}

Result<void> Engine::State::map_slots() {
    const std::size_t bytes = (limits.entries + limits.spare_slots()) * mib;
    const auto failed = [&] {
        const int reason = errno;
        return Error(reason, fmt::format("no memory for {} MiB of ring entries ({}); use a smaller "
                                         "io_uring_queue_depth= or memory= option",
                                         bytes / mib, std::strerror(reason)));
    };
    slot_file = memfd_create("srpfs-entries", MFD_CLOEXEC);
    if (slot_file < 0 || ftruncate(slot_file, static_cast<off_t>(bytes + limits.entries * mib)) != 0) return failed();
    slots = fabric::HugeMemory(bytes, slot_file, fabric::HugeMemory::Filled::now);
    if (slots.bytes().empty()) return failed();
    windows = fabric::HugeMemory(limits.entries * mib, slot_file, fabric::HugeMemory::Filled::as_used);
    if (windows.bytes().empty()) return failed();
    return {};
}
std::span<std::byte> Engine::zeros() const { return state_->zeros; }

fabric::RegionId Engine::region_of_zeros() const { return state_->region_target_reads; }

void Engine::set_listener(EngineListener* listener) { state_->listener = listener; }

// ---- operations ----

Operation* Engine::take() {
    State& state = *state_;
    if (state.free_operations.empty()) [[unlikely]] {
        if (state.operations.size() >= state.limits.operations_max) {
            // Somebody has thousands of requests waiting: the unit with most of them gives some up.
            const auto greediest =
                std::max_element(state.units.begin(), state.units.end(),
                                 [](const Unit* a, const Unit* b) { return a->operations() < b->operations(); });
            if (greediest != state.units.end())
                if (const unsigned count = (*greediest)->shed(0); count > 0) tell_shed(**greediest, count);
            if (state.free_operations.empty()) return nullptr;
        } else {
            for (unsigned i = 0; i < operations_per_chunk; ++i)
                state.free_operations.push_back(state.operations.emplace_back(*this));
        }
    }
    Operation* operation = state.free_operations.pop_front();
    ++state.operations_in_use;
    operation->stage_ = Operation::Stage::idle;
    return operation;
}

void Engine::recycle(Operation& operation) {
    release_memory(operation);
    operation.entry_ = nullptr;
    operation.unit_ = nullptr;
    operation.stage_ = Operation::Stage::idle;
    --state_->operations_in_use;
    state_->free_operations.push_front(operation);  // the one used last is in the cache
}

// ---- intake and parking ----

std::span<std::byte> Engine::intake() {
    const Buffer& buffer = *state_->intake;
    return {buffer.bytes.data() - intake_header_bytes, intake_header_bytes + buffer.bytes.size()};
}

bool Engine::take_over_intake(Operation& operation, Unit& unit, std::uint32_t payload_bytes) {
    State& state = *state_;
    SRPFS_ASSERT(payload_bytes <= intake_payload_bytes_max);
    SRPFS_ASSERT(!operation.buffer_ && !operation.parked_);
    operation.unit_ = &unit;
    const auto payload = state.intake->bytes.first(payload_bytes);
    if (payload_bytes <= class_bytes[class_write_4k] && take_copy(operation, unit, payload, class_write_4k))
        return true;
    if (!state.free_buffers[class_intake].empty() && state.may_hold(unit, class_intake)) [[likely]] {
        operation.buffer_ = state.intake;
        operation.payload_ = payload;
        ++unit.share_->held[class_intake];
        ++unit.buffers_held_[class_intake];
        state.intake = state.free_buffers[class_intake].pop_front();
        return true;
    }
    if (payload_bytes <= class_bytes[class_write_64k] && take_copy(operation, unit, payload, class_write_64k))
        return true;
    return make_parking_room(payload_bytes) && park(operation, payload);
}

Buffer* Engine::lend_intake(std::uint32_t payload_bytes) {
    State& state = *state_;
    SRPFS_ASSERT(payload_bytes <= intake_payload_bytes_max);
    const auto small = [&](unsigned size_class) -> Buffer* {
        if (payload_bytes > class_bytes[size_class] || state.free_buffers[size_class].empty()) return nullptr;
        Buffer* buffer = state.free_buffers[size_class].pop_front();
        std::memcpy(buffer->bytes.data(), state.intake->bytes.data(), payload_bytes);
        return buffer;
    };
    if (Buffer* buffer = small(class_write_4k)) return buffer;
    // The units of this reactor keep some.
    if (state.free_buffers[class_intake].size() > state.total[class_intake] / 4)
        return std::exchange(state.intake, state.free_buffers[class_intake].pop_front());
    return small(class_write_64k);
}

void Engine::take_back(Buffer& buffer) {
    state_->free_buffers[buffer.size_class].push_front(buffer);
    hand_out(buffer.size_class);
}

bool Engine::take_copy_of(Operation& operation, Unit& unit, std::span<const std::byte> payload) {
    State& state = *state_;
    SRPFS_ASSERT(payload.size() <= intake_payload_bytes_max);
    SRPFS_ASSERT(!operation.buffer_ && !operation.parked_);
    operation.unit_ = &unit;
    for (unsigned size_class = class_write_4k; size_class <= class_intake; ++size_class) {
        // One stays for the intake's next takeover.
        const std::size_t kept = size_class == class_intake ? 1 : 0;
        if (payload.size() <= class_bytes[size_class] && state.free_buffers[size_class].size() > kept &&
            take_copy(operation, unit, payload, size_class))
            return true;
    }
    return make_parking_room(payload.size()) && park(operation, payload);
}

// Into a buffer of that size, if there is one.
bool Engine::take_copy(Operation& operation, Unit& unit, std::span<const std::byte> payload, unsigned size_class) {
    State& state = *state_;
    if (state.free_buffers[size_class].empty() || !state.may_hold(unit, size_class)) return false;
    operation.buffer_ = state.free_buffers[size_class].pop_front();
    ++unit.share_->held[size_class];
    ++unit.buffers_held_[size_class];
    std::memcpy(operation.buffer_->bytes.data(), payload.data(), payload.size());
    operation.payload_ = operation.buffer_->bytes.first(payload.size());
    return true;
}

bool Engine::park(Operation& operation) {
    if (!park(operation, operation.payload_)) return false;
    release_buffer(operation);
    return true;
}

bool Engine::park(Operation& operation, std::span<const std::byte> payload) {
    operation.parked_ = new (std::nothrow) std::byte[payload.size()];
    if (!operation.parked_) return false;
    std::memcpy(operation.parked_, payload.data(), payload.size());
    operation.payload_ = {operation.parked_, payload.size()};
    count_parked(*operation.unit_, payload.size());
    return true;
}

void Engine::count_parked(Unit& unit, std::size_t bytes) {
    state_->parked_bytes += bytes;
    unit.parked_bytes_ += bytes;
    unit.share_->parked_bytes += bytes;
}

void Engine::uncount_parked(Unit& unit, std::size_t bytes) {
    SRPFS_ASSERT(unit.parked_bytes_ >= bytes);
    state_->parked_bytes -= bytes;
    unit.parked_bytes_ -= bytes;
    unit.share_->parked_bytes -= bytes;
}

std::unique_ptr<ParkedRequest> Engine::park_request(Unit& unit, ParkedRequestOwner& owner,
                                                    std::span<const std::byte> head, std::span<const std::byte> data) {
    if (!make_parking_room(data.size())) return nullptr;
    const std::size_t bytes = head.size() + data.size();
    std::unique_ptr<std::byte[]> memory(new (std::nothrow) std::byte[bytes]);
    if (!memory) return nullptr;
    std::copy(data.begin(), data.end(), std::copy(head.begin(), head.end(), memory.get()));
    return std::unique_ptr<ParkedRequest>(new (std::nothrow)
                                              ParkedRequest(unit, owner, std::move(memory), bytes, data.size()));
}

ParkedRequest::ParkedRequest(Unit& unit, ParkedRequestOwner& owner, std::unique_ptr<std::byte[]> memory,
                             std::size_t bytes, std::size_t counted)
    : unit_(unit), owner_(owner), memory_(std::move(memory)), bytes_(bytes), counted_(counted) {
    unit_.engine_.count_parked(unit_, counted_);
    unit_.parked_requests_.push_front(*this);
}

void ParkedRequest::stop_counting() {
    if (!is_linked()) return;
    unit_.parked_requests_.remove(*this);
    unit_.engine_.uncount_parked(unit_, counted_);
}

void ParkedRequest::shed() {
    stop_counting();
    memory_.reset();
    owner_.on_shed();
}

void Engine::tell_shed(Unit& unit, unsigned count) {
    if (state_->listener) state_->listener->on_parking_exhausted(unit, count);
}

bool Engine::make_parking_room(std::size_t bytes) {
    State& state = *state_;
    while (state.parked_bytes + bytes > state.limits.park_bytes_max) {
        // Of the target with most of it, the unit with most of that.
        const auto greediest =
            std::max_element(state.units.begin(), state.units.end(), [](const Unit* a, const Unit* b) {
                return std::pair(a->share_->parked_bytes, a->parked_bytes_) <
                       std::pair(b->share_->parked_bytes, b->parked_bytes_);
            });
        if (greediest == state.units.end() || (*greediest)->parked_bytes_ == 0) return false;
        Unit& unit = **greediest;
        const std::size_t before = state.parked_bytes;
        const unsigned count = unit.shed(bytes);
        if (count > 0) tell_shed(unit, count);
        if (state.parked_bytes >= before) return false;
    }
    return true;
}

// ---- entries ----

unsigned Engine::entries() const { return state_->limits.entries; }

std::span<std::byte> Engine::entry(unsigned index) const { return state_->windows.bytes().subspan(index * mib, mib); }

void Engine::lend_entry_for_write(Operation& operation, Unit& unit, unsigned index, std::uint32_t payload_bytes) {
    SRPFS_ASSERT(payload_bytes <= intake_payload_bytes_max);
    SRPFS_ASSERT(!operation.buffer_ && !operation.parked_);
    lend_entry_for_read(operation, index);
    operation.unit_ = &unit;
    if (operation.entry_) [[likely]] {
        operation.buffer_ = operation.entry_;
        operation.payload_ = operation.entry_->bytes.first(payload_bytes);
    } else {
        operation.payload_ = entry(index).first(payload_bytes);
        operation.parked_ = operation.payload_.data();
        operation.parked_in_entry_ = true;
    }
}

void Engine::lend_entry_for_read(Operation& operation, unsigned index) {
    operation.entry_ = state_->slot_of_entry[index];
}

bool Engine::is_in_entry(unsigned index, std::span<const std::byte> bytes) const {
    const Buffer* slot = state_->slot_of_entry[index];
    return slot && bytes.data() == slot->bytes.data();
}

void Engine::take_entry_back(Operation& operation, unsigned index) {
    State& state = *state_;
    Buffer* slot = operation.entry_;
    if (slot && operation.buffer_ == slot && operation.parts_in_flight_ > 0) [[unlikely]] {
        SRPFS_ASSERT(slot == state.slot_of_entry[index]);
        slot->detached = true;
        ++state.slots_detached;
        slot = nullptr;
    } else if (state.slot_of_entry[index]) [[likely]] {
        return;
    }
    if (!state.spare_slots.empty()) {
        slot = state.spare_slots.back();
        state.spare_slots.pop_back();
    }
    if (slot != state.slot_of_entry[index]) show_in_entry(index, slot);
}

// A slot, or memory of its own (nullptr): it is in the file as well, takes pages as it is used, and gives them back
// when a slot takes its place.
void Engine::show_in_entry(unsigned index, Buffer* slot) {
    State& state = *state_;
    const auto window = entry(index);
    const auto own = static_cast<off_t>(state.slots.bytes().size() + index * mib);
    const off_t offset = slot ? static_cast<off_t>(slot->bytes.data() - state.slots.bytes().data()) : own;
    // It takes the place of a mapping of the same size and kind, so there is nothing that could be refused.
    void* const shown = mmap(window.data(), window.size(), PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_NORESERVE | MAP_FIXED, state.slot_file, offset);
    SRPFS_ASSERT(shown == window.data());
    if (slot && !state.slot_of_entry[index])
        (void)fallocate(state.slot_file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, own, static_cast<off_t>(mib));
    state.slot_of_entry[index] = slot;
}

void Engine::release_slot(Buffer& slot) {
    if (!std::exchange(slot.detached, false)) return;  // still its entry's
    --state_->slots_detached;
    state_->spare_slots.push_back(&slot);
}

// ---- buffers ----

bool Engine::acquire_read_buffer(Operation& operation, std::size_t bytes) {
    State& state = *state_;
    if (operation.entry_ && bytes == operation.bytes_) {
        operation.buffer_ = operation.entry_;
        return true;
    }
    unsigned smallest = class_4k;
    while (class_bytes[smallest] < bytes) ++smallest;
    SRPFS_ASSERT(smallest <= class_1m);
    Share& share = *operation.unit_->share_;
    for (unsigned size_class = smallest; size_class <= class_1m; ++size_class) {
        if (state.free_buffers[size_class].empty() || !state.may_hold(*operation.unit_, size_class)) [[unlikely]]
            continue;
        operation.buffer_ = state.free_buffers[size_class].pop_front();
        ++share.held[size_class];
        ++operation.unit_->buffers_held_[size_class];
        return true;
    }
    operation.wanted_class_ = static_cast<std::uint8_t>(smallest);
    state.waiting[smallest].push_back(operation);
    return false;
}

bool Engine::acquire_write_buffer(Operation& operation) {
    State& state = *state_;
    Share& share = *operation.unit_->share_;
    unsigned smallest = class_write_4k;
    while (state.total[smallest] == 0 || class_bytes[smallest] < operation.bytes_) ++smallest;
    for (unsigned size_class = smallest; size_class <= class_intake; ++size_class) {
        // One stays for the intake's next takeover.
        const std::size_t kept = size_class == class_intake ? 1 : 0;
        if (state.free_buffers[size_class].size() <= kept || !state.may_hold(*operation.unit_, size_class)) continue;
        operation.buffer_ = state.free_buffers[size_class].pop_front();
        ++share.held[size_class];
        ++operation.unit_->buffers_held_[size_class];
        return true;
    }
    operation.wanted_class_ = static_cast<std::uint8_t>(smallest);
    state.waiting[smallest].push_back(operation);
    return false;
}

bool Engine::acquire_edges(Operation& operation) {
    Share& share = *operation.unit_->share_;
    if (state_->may_hold_edges(share)) operation.edges_ = state_->free_edges.pop_front();
    if (operation.edges_) {
        ++share.held_edges;
        return true;
    }
    operation.wanted_class_ = class_count;
    state_->waiting_edges.push_back(operation);
    return false;
}

void Engine::stop_waiting(Operation& operation) {
    if (operation.wanted_class_ == class_count)
        state_->waiting_edges.remove(operation);
    else
        state_->waiting[operation.wanted_class_].remove(operation);
}

void Engine::release_buffer(Operation& operation) {
    if (Buffer* buffer = std::exchange(operation.buffer_, nullptr)) {
        if (buffer->size_class == class_slot) return release_slot(*buffer);
        --operation.unit_->share_->held[buffer->size_class];
        --operation.unit_->buffers_held_[buffer->size_class];
        state_->free_buffers[buffer->size_class].push_front(*buffer);
        hand_out(buffer->size_class);
    }
}

void Engine::release_memory(Operation& operation) {
    release_buffer(operation);
    if (std::exchange(operation.parked_in_entry_, false)) [[unlikely]]
        operation.parked_ = nullptr;
    if (operation.parked_) [[unlikely]] {
        uncount_parked(*operation.unit_, operation.payload_.size());
        delete[] std::exchange(operation.parked_, nullptr);
    }
    operation.payload_ = {};
    release_edges(operation);
}

void Engine::release_edges(Operation& operation) {
    if (EdgeBuffers* edges = std::exchange(operation.edges_, nullptr)) [[unlikely]] {
        --operation.unit_->share_->held_edges;
        state_->free_edges.push_front(*edges);
        hand_out_edges();
    }
}

// A buffer of this class is free: the longest waiting operation that may have it gets a turn.
void Engine::hand_out(unsigned size_class) {
    State& state = *state_;
    const unsigned lowest = size_class >= class_write_4k ? class_write_4k : class_4k;
    for (unsigned wanted = size_class + 1; wanted-- > lowest;) {
        if (state.waiting[wanted].empty()) [[likely]]
            continue;
        Operation* next = state.waiting[wanted].find(
            [&](Operation& operation) { return state.may_hold(*operation.unit_, size_class); });
        if (!next) continue;
        if (size_class == class_intake && state.free_buffers[class_intake].size() <= 1) return;
        state.waiting[wanted].remove(*next);
        next->buffer_ = state.free_buffers[size_class].pop_front();
        ++next->unit_->share_->held[size_class];
        ++next->unit_->buffers_held_[size_class];
        next->unit_->on_memory(*next);
        return;
    }
}

void Engine::hand_out_edges() {
    Operation* next = state_->waiting_edges.find(
        [&](Operation& operation) { return state_->may_hold_edges(*operation.unit_->share_); });
    if (!next) return;
    state_->waiting_edges.remove(*next);
    ++next->unit_->share_->held_edges;
    next->edges_ = state_->free_edges.pop_front();
    next->unit_->on_memory(*next);
}

// ---- shares ----

Engine::Share* Engine::join(Unit& unit) {
    state_->units.push_back(&unit);
    for (Share& share : state_->shares)
        if (share.link == &unit.link_) return ++share.users, &share;
    Share& share = state_->shares.emplace_back();
    share.link = &unit.link_;
    share.users = 1;
    return &share;
}

std::shared_ptr<BlockLocks> Engine::locks_of(const std::string& identity) {
    // What no unit uses and no ghost needs is forgotten; unless something is unflushed, which the next unit of that
    // identity will be asked about. One that never comes back keeps one entry, however often it has gone.
    std::erase_if(state_->locks, [](const auto& entry) {
        return entry.second.use_count() == 1 && entry.second->ghosts.empty() && !entry.second->cache->is_dirty();
    });
    auto& locks = state_->locks[identity];
    if (!locks) locks = std::make_shared<BlockLocks>();
    return locks;
}

void Engine::leave(Unit& unit) {
    std::erase(state_->units, &unit);
    if (--unit.share_->users > 0) return;
    state_->shares.remove_if([&](const Share& share) { return &share == unit.share_; });
}

Engine::Usage Engine::usage() const {
    const State& state = *state_;
    const auto used = [&](unsigned size_class) {
        return state.total[size_class] - static_cast<unsigned>(state.free_buffers[size_class].size());
    };
    return {.operations_in_use = state.operations_in_use,
            .intake_in_use = used(class_intake) - 1,
            .write_4k_in_use = used(class_write_4k),
            .write_64k_in_use = used(class_write_64k),
            .read_4k_in_use = used(class_4k),
            .read_64k_in_use = used(class_64k),
            .read_1m_in_use = used(class_1m),
            .edges_in_use = state.limits.edge_buffers - static_cast<unsigned>(state.free_edges.size()),
            .slots_detached = state.slots_detached,
            .parked_bytes = state.parked_bytes};
}

}  // namespace srpfs::lun
