// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/lun/unit.h>

#include "canary.h"
#include "repeat_rule.h"

#include <srpfs/base/log.h>
#include <srpfs/lun/engine.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

namespace srpfs::lun {
namespace {

using initiator::CommandEnd;
using initiator::PortState;
using initiator::Submitted;
using srp::DataDirection;

constexpr unsigned retries_max = 5;      // the kernel's disk driver allows as many (srp-admin 5)
constexpr unsigned attentions_max = 32;  // unit attentions one operation may meet, but for LUN RESETs
constexpr auto retry_span =
    std::chrono::seconds(180);  // (retries + 1) x 30 s: the kernel's bound for BUSY and the like
constexpr auto interrupt_grace = std::chrono::milliseconds(500);  // decisions 14
constexpr auto proof_patience = std::chrono::seconds(5);
constexpr auto depth_recovery = std::chrono::seconds(1);
constexpr auto not_ready_delay = std::chrono::seconds(1);
constexpr auto size_belief_first = std::chrono::seconds(1);
constexpr auto size_belief_max = std::chrono::seconds(60);
constexpr auto busy_delay_first = std::chrono::milliseconds(20);
constexpr auto busy_delay_max = std::chrono::seconds(2);
constexpr std::uint32_t piece_bytes_min = 256 << 10;  // of a unit's optimal size; less costs more than it gains
constexpr std::uint32_t write_same_bytes_max = std::uint32_t{16} << 20;

// What one WRITE SAME may zero: as the unit says, and not so much that a disk needs seconds for it.
std::uint32_t write_same_blocks(const UnitInfo& info) {
    const std::uint32_t most = write_same_bytes_max / info.block_bytes;
    return info.write_same_blocks_max == 0 ? most : std::min(most, info.write_same_blocks_max);
}

// Whether a flush of it may have anything to do; others may refuse it.
bool may_be_dirty(const UnitInfo& info) { return info.write_cache && !info.read_only; }

}  // namespace

const char* to_string(UnitState state) {
    switch (state) {
        case UnitState::probing: return "probing";
        case UnitState::running: return "running";
        case UnitState::blocked: return "blocked";
        case UnitState::offline: return "offline";
        case UnitState::gone: return "gone";
    }
    return "?";
}

const char* to_string(OutcomeKind kind) {
    static constexpr const char* names[] = {
        "ok",
        "interrupted",
        "path_lost",
        "gone",
        "not_ready",
        "medium_error",
        "hardware_error",
        "illegal_request",
        "out_of_range",
        "write_protected",
        "space_exhausted",
        "reservation_conflict",
        "miscompare",
        "aborted",
        "busy",
        "short_transfer",
        "protocol_error",
        "out_of_memory",
    };
    static_assert(std::size(names) == outcome_kinds);
    return names[static_cast<std::size_t>(kind)];
}

// ---- operation ----

void Operation::prepare(Unit& unit, OperationKind kind, OperationListener& listener) {
    SRPFS_ASSERT(stage_ == Stage::idle);
    SRPFS_ASSERT(parts_in_flight_ == 0);
    unit_ = &unit;
    listener_ = &listener;
    kind_ = kind;
    phase_ = Phase::data;
    durability_ = Durability::cached;
    zeroes_.reset();
    released_ = answering_ = interrupted_ = sent_ = progressed_ = unaligned_ = excludes_writes_ = false;
    foreign_ = changes_ = false;
    raw_found_at_ = 0;
    unknown_since_ = 0;
    retries_ = attentions_ = backoffs_ = losses_ = 0;
    offset_ = first_block_ = block_end_ = next_block_ = 0;
    bytes_ = 0;
    retry_at_ = retry_until_ = loss_until_ = interrupt_at_ = instant_never;
    outcome_ = failure_ = {};
    result_ = {};
    losses_seen_ = nullptr;
    wrote_past_cache_ = true;
    parts_again_ = 0;
}

void Operation::prepare_read(Unit& unit, std::uint64_t offset, std::uint32_t bytes, OperationListener& listener) {
    SRPFS_ASSERT(bytes >= 1);
    SRPFS_ASSERT(bytes <= bytes_max);
    prepare(unit, OperationKind::read, listener);
    offset_ = offset;
    bytes_ = bytes;
}

void Operation::prepare_write(Unit& unit, std::uint64_t offset, Durability durability, OperationListener& listener) {
    SRPFS_ASSERT(unit_ == &unit);
    SRPFS_ASSERT(!payload_.empty());
    prepare(unit, OperationKind::write, listener);
    offset_ = offset;
    bytes_ = static_cast<std::uint32_t>(payload_.size());
    durability_ = durability;
}

void Operation::prepare_zero(Unit& unit, std::uint64_t offset, std::uint32_t bytes, ZeroMethod method,
                             OperationListener& listener) {
    SRPFS_ASSERT(bytes >= 1);
    SRPFS_ASSERT(!buffer_ && !parked_);
    prepare(unit, OperationKind::write, listener);
    zeroes_ = method;
    offset_ = offset;
    bytes_ = bytes;
    if (method == ZeroMethod::write) {
        SRPFS_ASSERT(bytes <= bytes_max);
        payload_ = engine_.zeros().first(bytes);
    }
}

void Operation::prepare_flush(Unit& unit, OperationListener& listener, std::atomic<std::uint64_t>* losses_seen) {
    prepare(unit, OperationKind::flush, listener);
    losses_seen_ = losses_seen;
}

void Operation::prepare_raw(Unit& unit, const scsi::Cdb& cdb, std::uint32_t data_in_bytes, OperationListener& listener,
                            std::optional<unsigned> channel) {
    SRPFS_ASSERT(data_in_bytes <= raw_bytes_max);
    prepare(unit, OperationKind::raw, listener);
    raw_cdb_ = cdb;
    raw_channel_ = channel;
    bytes_ = data_in_bytes;
}

void Operation::prepare_raw_out(Unit& unit, const scsi::Cdb& cdb, std::span<const std::byte> data,
                                OperationListener& listener) {
    SRPFS_ASSERT(!data.empty());
    SRPFS_ASSERT(data.size() <= raw_bytes_max);
    SRPFS_ASSERT(!buffer_ && !parked_);
    prepare(unit, OperationKind::raw, listener);
    raw_cdb_ = cdb;
    raw_channel_.reset();
    bytes_ = static_cast<std::uint32_t>(data.size());
    // As memory of the caller that is not registered; it is only read.
    parked_ = const_cast<std::byte*>(data.data());
    parked_in_entry_ = true;
    payload_ = {parked_, data.size()};
}

void Operation::mark_only_for_unit_found_at(std::uint64_t stamp) {
    SRPFS_ASSERT(stage_ == Stage::idle);
    SRPFS_ASSERT(kind_ == OperationKind::raw);
    raw_found_at_ = stamp;
}

void Operation::mark_foreign(bool changes, Duration time_limit) {
    SRPFS_ASSERT(stage_ == Stage::idle);
    SRPFS_ASSERT(kind_ == OperationKind::raw);
    foreign_ = true;
    changes_ = changes;
    raw_time_limit_ = time_limit;
}

void Operation::on_command_done(initiator::Command& command) {
    for (Part& part : parts_)
        if (&part.command == &command) return unit_->on_part_done(*this, part);
    constexpr bool is_command_of_this_operation = false;
    SRPFS_ASSERT(is_command_of_this_operation);
}

void Operation::release() {
    if (stage_ == Stage::idle) return engine_.recycle(*this);  // never started
    SRPFS_ASSERT(stage_ == Stage::answered);
    released_ = true;
    result_ = {};
    if (!answering_) unit_->settle(*this);
}

// ---- life of a unit ----

Unit::Unit(Engine& engine, initiator::TargetLink& link, const scsi::Lun& lun, unsigned queue_depth,
           UnitListener& listener)
    : engine_(engine), link_(link), lun_(lun), queue_depth_max_(std::max(1U, queue_depth)),
      queue_depth_(queue_depth_max_), listener_(listener), share_(engine.join(*this)),
      retry_timer_(engine.timers(), [this] { run_retries(); }),
      interrupt_timer_(engine.timers(), [this] { run_interrupts(); }) {
    locks_->units.push_back(this);
    link_.attach(*this);
    link_.add_sharer();
}

Unit::~Unit() {
    SRPFS_ASSERT(is_idle());
    SRPFS_ASSERT(commands_in_flight_ == 0);
    std::erase(locks_->units, this);
    leave_cache();
    hand_over_unflushed_writes();
    link_.remove_sharer();
    link_.detach(*this);
    engine_.leave(*this);
}

UnitState Unit::state() const {
    if (gone_) return UnitState::gone;
    if (offline_) return UnitState::offline;
    switch (link_.state()) {
        case PortState::running: return held_ ? UnitState::probing : UnitState::running;
        case PortState::connecting:
        case PortState::blocked: return UnitState::blocked;
        case PortState::fail_fast: return UnitState::offline;
        case PortState::lost: return UnitState::gone;
    }
    return UnitState::gone;
}

BlockLocks::~BlockLocks() {
    while (Ghost* ghost = ghosts.pop_front()) delete ghost;
}

void Unit::recognise(std::shared_ptr<const UnitInfo> info) {
    // Once: another identity is another unit.
    if (info_) return;
    info_ = std::move(info);
    if (info_->wwid.empty()) return;  // without a name it shares with nobody
    const auto shared = engine_.locks_of(fmt::format("{} {}", info_->wwid, info_->block_bytes));
    if (shared == locks_) return;
    SRPFS_ASSERT(locks_->waiters.empty() && locks_->excluding == 0);
    while (Ghost* ghost = locks_->ghosts.pop_front()) shared->ghosts.push_back(*ghost);
    SRPFS_ASSERT(!has_unflushed_writes());
    std::erase(locks_->units, this);
    locks_ = shared;
    if (!info_->wwid_is_serial)
        cache_ = locks_->cache;
    else if (locks_->cache->is_dirty() && may_be_dirty(*info_)) {
        ++cache_->write_count;
        cache_->left_by = locks_->cache->left_by;
        cache_->may_be_lost = locks_->cache->may_be_lost;
    }
    if (cache_->is_dirty()) join_dirty_cache();
    locks_->units.push_back(this);
}

void WriteCache::note_flushed(std::uint64_t snapshot) {
    flushed_count = std::max(flushed_count, snapshot);
    if (is_dirty()) return;
    newcomers.clear();
    left_by.clear();
    may_be_lost = false;
}

void Unit::leave_cache() {
    constexpr std::size_t remembered_max = 64;  // more is a loss told that was none
    if (!cache_->is_dirty()) return;
    const bool is_newcomer = std::any_of(cache_->newcomers.begin(), cache_->newcomers.end(),
                                         [this](const auto& one) { return one.link == &link_; });
    for (WriteCache* const cache : {cache_.get(), locks_->cache.get()}) {
        cache->may_be_lost = cache->may_be_lost || cache_->may_be_lost;
        if (!is_newcomer && cache->left_by.size() < remembered_max) cache->left_by.push_back(link_.incarnation());
    }
}

void Unit::join_dirty_cache() {
    if (!cache_->may_be_lost) {
        for (const Unit* other : locks_->units)
            if (&other->link_ == &link_) return;  // it has been there all the time
        const auto& left = cache_->left_by;
        if (std::find(left.begin(), left.end(), link_.incarnation()) != left.end()) return;
    }
    cache_->newcomers.push_back({&link_, engine_.timers().now()});
    for (const Unit* other : locks_->units)
        if (other->cache_ == cache_ && other->link_.state() == PortState::running)
            other->link_.check_paths(proof_patience);
}

// Whether what is in the cache has not been lost before this path was there.
bool Unit::others_vouch_for_cache() const {
    const auto newcomer = [this](const Unit& unit) {
        return std::find_if(cache_->newcomers.begin(), cache_->newcomers.end(),
                            [&unit](const auto& one) { return one.link == &unit.link_; });
    };
    const auto self = newcomer(*this), none = cache_->newcomers.end();
    if (self == none) return true;
    if (cache_->may_be_lost) return false;  // who has opened the unit by this path has not been told
    return std::any_of(locks_->units.begin(), locks_->units.end(), [&](const Unit* unit) {
        return unit->cache_ == cache_ && newcomer(*unit) == none && unit->link_.has_heard_since(self->since);
    });
}

// Of those whose identity is only a serial number nobody knows which lead to the same unit: what this one leaves is for
// all of them to flush; if there are none, for those that are met next (the cache that they would share counts it).
void Unit::hand_over_unflushed_writes() {
    if (cache_ == locks_->cache || !cache_->is_dirty()) return;
    bool is_taken_over = false;
    for (const Unit* other : locks_->units) {
        if (!may_be_dirty(*other->info_)) continue;
        ++other->cache_->write_count;
        is_taken_over = true;
    }
    if (!is_taken_over) ++locks_->cache->write_count;
}

void Unit::suspect_earlier_writes() {
    auto* ghost = new Ghost;
    ghost->block_end = std::numeric_limits<std::uint64_t>::max();
    ghost->unknown_since = engine_.next_stamp();
    locks_->ghosts.push_back(*ghost);
}

void Unit::resume(std::shared_ptr<const UnitInfo> info) {
    SRPFS_ASSERT(info->block_bytes <= edge_block_bytes_max);
    if (gone_) return;
    if (info_ && info->probed_at != 0 && info->probed_at < held_at_) return;
    // What was acknowledged before may be in a cache now: the next flush is not for nothing.
    if (info_ && !info_->write_cache && info->write_cache) ++cache_->write_count;
    recognise(info);
    if (std::exchange(doubts_size_, false)) {
        // One that for ever refuses what it says to have is looked at ever more rarely.
        size_believed_for_ = info_->blocks != info->blocks
                                 ? Duration::zero()
                                 : std::clamp<Duration>(2 * size_believed_for_, size_belief_first, size_belief_max);
        size_believed_until_ = engine_.timers().now() + size_believed_for_;
    }
    info_ = std::move(info);
    held_ = swap_suspected_ = false;
    offline_ = false;
    attention_told_ = false;
    grant_locks();
    pump();
}

bool Unit::offers(ZeroMethod method) const {
    switch (method) {
        case ZeroMethod::write: return true;
        case ZeroMethod::write_same: return !refuses_write_same_;
        case ZeroMethod::write_same_10: return refuses_write_same_ && !refuses_write_same_10_ && reaches_all_by_10();
        case ZeroMethod::deallocate: return info_ && info_->deallocates_to_zeros && !refuses_deallocation_;
        case ZeroMethod::deallocate_10:
            return info_ && info_->deallocates_to_zeros_by_10 && !offers(ZeroMethod::deallocate) &&
                   !refuses_deallocation_10_ && reaches_all_by_10();
    }
    return false;
}

bool Unit::reaches_all_by_10() const { return info_ && info_->blocks <= std::uint64_t{UINT32_MAX} + 1; }

void Unit::note_refused(ZeroMethod method) {
    switch (method) {
        case ZeroMethod::write: break;
        case ZeroMethod::write_same: refuses_write_same_ = true; break;
        case ZeroMethod::write_same_10: refuses_write_same_10_ = true; break;
        case ZeroMethod::deallocate: refuses_deallocation_ = true; break;
        case ZeroMethod::deallocate_10: refuses_deallocation_10_ = true; break;
    }
}

void Unit::hold() { hold_io(); }

void Unit::hold_io() {
    held_at_ = engine_.next_stamp();
    if (!info_) return;  // being probed: nothing but raw operations
    held_ = true;
    // A waiting read keeps no memory (decisions 11).
    std::vector<Operation*> reads;
    waiting_.for_each([&](Operation& operation) {
        if (operation.buffer_ && operation.is_reader()) reads.push_back(&operation);
    });
    for (Operation* operation : reads)
        if (operation->stage_ == Operation::Stage::waiting_path) give_up_read_memory(*operation);
}

void Unit::set_offline() {
    held_at_ = engine_.next_stamp();  // what was found out before has been overtaken
    offline_ = true;
    // What one request gives back may be what the next has waited for: nothing may be sent while they are answered.
    held_ = true;
    attention_told_ = false;
    answer_all(OutcomeKind::not_ready);
}

void Unit::remove() {
    gone_ = held_ = true;
    answer_all(OutcomeKind::gone);
}

void Unit::start(Operation& operation) {
    SRPFS_ASSERT(operation.unit_ == this);
    operations_.push_back(operation);
    counters_->pending.store(counters_->pending.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    operation.stage_ = Operation::Stage::active;
    operation.started_at_ = engine_.timers().now();
    if (gone_) [[unlikely]]
        return answer(operation, {OutcomeKind::gone});
    if (link_.state() == PortState::fail_fast) [[unlikely]]
        return answer(operation, {OutcomeKind::path_lost});
    if (link_.state() == PortState::lost) [[unlikely]]
        return answer(operation, {OutcomeKind::gone});
    if (operation.is_probe()) return begin(operation);
    SRPFS_ASSERT(info_ != nullptr);  // no file without a successful probe
    if (offline_) [[unlikely]]
        return answer(operation, {OutcomeKind::not_ready});
    begin(operation);
}

// Works out the blocks, takes the lock, and gets in line.
void Unit::begin(Operation& operation) {
    switch (operation.kind_) {
        case OperationKind::raw:
            if (!operation.changes_) break;
            // Nobody knows what it touches.
            operation.block_end_ = std::numeric_limits<std::uint64_t>::max();
            operation.unaligned_ = true;
            if (must_wait_for_lock(operation)) return wait_for_lock(operation);
            note_losses_before(operation);
            enter_lock(operation);
            break;
        case OperationKind::flush: operation.phase_ = Operation::Phase::flush; break;
        case OperationKind::read:
        case OperationKind::write: {
            const unsigned shift = info_->block_shift();
            const std::uint64_t inside = info_->block_bytes - 1;  // offsets inside a block
            const std::uint64_t end = operation.offset_ + operation.bytes_;
            if (end < operation.offset_ || end > info_->capacity_bytes())
                return answer(operation, {OutcomeKind::out_of_range});
            operation.first_block_ = operation.next_block_ = operation.offset_ >> shift;
            operation.block_end_ = (end + inside) >> shift;
            operation.unaligned_ = ((operation.offset_ | end) & inside) != 0;
            if (operation.kind_ == OperationKind::read) break;
            SRPFS_ASSERT(!operation.unaligned_ || !operation.zeroes_ || *operation.zeroes_ == ZeroMethod::write);
            if (info_->read_only) return answer(operation, {OutcomeKind::write_protected});
            if (must_wait_for_lock(operation)) return wait_for_lock(operation);
            note_losses_before(operation);
            enter_lock(operation);
            break;
        }
    }
    make_ready(operation);
}

// Whoever has the lock may need a buffer: those that wait for it keep none. An entry is of no use to others.
void Unit::wait_for_lock(Operation& operation) {
    operation.stage_ = Operation::Stage::waiting_lock;
    locks_->waiters.push_back(operation);
    operation.retry_at_ = engine_.timers().now() + retry_span;
    if (!retry_timer_.armed()) retry_timer_.arm_at(operation.retry_at_);
    if (!operation.buffer_ || operation.buffer_ == operation.entry_) return;
    const bool room = engine_.make_parking_room(operation.bytes_);  // may fail others, and so let this one go
    if (operation.stage_ != Operation::Stage::waiting_lock) return;
    if (room && engine_.park(operation)) return;
    unlink(operation);
    answer(operation, {OutcomeKind::out_of_memory});
}

void Unit::make_ready(Operation& operation) {
    if (waiting_.empty() && !pumping_) [[likely]] {
        if (!advance(operation)) go_first(operation);
        return;
    }
    operation.stage_ = Operation::Stage::waiting_path;
    waiting_.push_back(operation);
    pump();
}

void Unit::go_first(Operation& operation) {
    operation.stage_ = Operation::Stage::waiting_path;
    waiting_.push_front(operation);
}

// Gives operations in line their turn until one cannot go on. Held units let only probes through.
void Unit::pump() {
    if (pumping_) return;
    pumping_ = true;
    while (!waiting_.empty()) {
        Operation* next =
            held_ ? waiting_.find([](Operation& operation) { return operation.is_probe(); }) : waiting_.front();
        if (!next) break;
        waiting_.remove(*next);
        if (advance(*next)) continue;
        go_first(*next);
        break;
    }
    pumping_ = false;
}

// ---- sending ----

// How many of the `left` blocks from `lba` on the next command moves: as many as one may; and if that is not all, and
// the unit has a size that it likes best (SBC-3 6.6.4), a piece that ends where such a size does, so that the pieces
// run beside each other and all but the first begin well.
std::uint32_t Unit::blocks_of_command(std::uint64_t lba, std::uint64_t left) const {
    std::uint64_t most = link_.command_bytes_max() >> info_->block_shift();
    if (info_->transfer_blocks_max != 0) most = std::min<std::uint64_t>(most, info_->transfer_blocks_max);
    most = std::max<std::uint64_t>(1, most);
    const std::uint32_t optimal = info_->transfer_blocks_optimal;
    if (optimal != 0 && optimal < std::min(most, left)) [[unlikely]] {
        const std::uint64_t piece = std::max<std::uint64_t>(
            optimal, std::min<std::uint64_t>(most, piece_bytes_min / info_->block_bytes) / optimal * optimal);
        most = piece - lba % optimal;
    }
    return static_cast<std::uint32_t>(std::min(most, left));
}

// Sends what can be sent. True: the operation waits for its commands, for memory, or is over. False: it stays first in
// line, for credit or for the path.
bool Unit::advance(Operation& operation) {
    using Phase = Operation::Phase;
    if (held_ && !operation.is_probe()) {
        give_up_read_memory(operation);
        return false;
    }
    operation.stage_ = Operation::Stage::active;

    switch (operation.kind_) {
        case OperationKind::read:
            if (operation.block_end_ > info_->blocks) return answer(operation, {OutcomeKind::out_of_range}), true;
            if (!operation.buffer_) {
                const std::uint64_t span = (operation.block_end_ - operation.first_block_) * info_->block_bytes;
                if (!engine_.acquire_read_buffer(operation, span)) {
                    operation.stage_ = Operation::Stage::waiting_memory;
                    return true;
                }
            }
            break;
        case OperationKind::write:
            // What it wrote was in a cache that is gone: a flush would prove nothing.
            if (operation.phase_ == Phase::flush && operation.parts_in_flight_ == 0 &&
                operation.cache_losses_seen_ != cache_->losses)
                return answer(operation, {OutcomeKind::medium_error}), true;
            if (operation.block_end_ > info_->blocks) return answer(operation, {OutcomeKind::out_of_range}), true;
            // What does not travel inside the IU has to be in registered memory. First this, then the edges: nobody who
            // has edges waits for a buffer.
            if (operation.phase_ != Phase::flush && operation.parked_ && !operation.buffer_ &&
                operation.bytes_ > link_.immediate_bytes_max()) {
                if (operation.parts_in_flight_ > 0) return true;  // comes back when they have ended
                if (operation.edges_) {
                    engine_.release_edges(operation);
                    operation.parts_again_ = 0;
                    operation.phase_ = Phase::edge_read;
                    operation.next_block_ = operation.first_block_;
                }
                if (!engine_.acquire_write_buffer(operation)) {
                    operation.stage_ = Operation::Stage::waiting_memory;
                    return true;
                }
                unpark(operation);
            }
            if (operation.unaligned_ && operation.phase_ != Phase::flush && !operation.edges_ &&
                !engine_.acquire_edges(operation)) {
                operation.stage_ = Operation::Stage::waiting_memory;
                return true;
            }
            break;
        case OperationKind::flush:
            if (operation.parts_in_flight_ == 0 && operation.phase_ == Phase::flush) {
                if (tell_losses(operation)) return answer(operation, {OutcomeKind::medium_error}), true;
                if constexpr (canary::skipped_flush) return answer(operation, {}), true;
                // Nothing to do without a volatile cache, or when the last flush covered every acknowledged write.
                if (!has_to_flush()) return answer(operation, {}), true;
            }
            break;
        case OperationKind::raw:
            if (operation.raw_found_at_ != 0 && operation.raw_found_at_ < held_at_)
                return answer(operation, {OutcomeKind::path_lost}), true;
            // While the unit is held, waiting writes may have all the buffers that it may have: what fits travels in
            // the IU.
            if (operation.bytes_ > 0 && !operation.buffer_ &&
                !(operation.parked_ && operation.bytes_ <= link_.immediate_bytes_max())) {
                if (operation.parked_ ? !engine_.acquire_write_buffer(operation)
                                      : !engine_.acquire_read_buffer(operation, operation.bytes_)) {
                    operation.stage_ = Operation::Stage::waiting_memory;
                    return true;
                }
                if (operation.parked_) unpark(operation);
            }
            break;
    }
    return send_parts(operation);
}

// A waiting read keeps no memory (decisions 11): it begins anew when its turn comes.
void Unit::give_up_read_memory(Operation& operation) {
    if (!operation.is_reader() || operation.parts_in_flight_ > 0 || !operation.buffer_) return;
    operation.parts_again_ = 0;
    operation.next_block_ = operation.first_block_;
    operation.progressed_ = false;
    engine_.release_buffer(operation);
}

// The payload moves from parking memory to the registered buffer it has got, and so do the commands that are to be sent
// again.
void Unit::unpark(Operation& operation) {
    std::memcpy(operation.buffer_->bytes.data(), operation.parked_, operation.payload_.size());
    for (Operation::Part& part : operation.parts_) {
        auto& data = part.command.data;
        if (!operation.is_again(part) || data.data() < operation.parked_ ||
            data.data() >= operation.parked_ + operation.payload_.size())
            continue;
        data = operation.buffer_->bytes.subspan(static_cast<std::size_t>(data.data() - operation.parked_), data.size());
        part.command.region = operation.buffer_->region;
    }
}

bool Unit::send_parts(Operation& operation) {
    bool more = true;
    for (unsigned index = 0; index < Operation::commands_max; ++index) {
        const auto bit = static_cast<std::uint8_t>(1U << index);
        if ((operation.parts_in_flight_ & bit) != 0) continue;
        Operation::Part& part = operation.parts_[index];
        // A later part may have been prepared and refused before, even when there is nothing new for this one.
        if ((operation.parts_again_ & bit) == 0 && !(more = more && next_part(operation, part))) {
            if (operation.parts_again_ == 0) break;
            continue;
        }
        operation.parts_again_ |= bit;  // until it is on its way
        if (!operation.is_probe() && (commands_in_flight_ >= queue_depth_ ||
                                      (!part.command.privileged && !link_.leaves_room(*this, commands_in_flight_))))
            return false;
        switch (link_.submit(part.command)) {
            case Submitted::sent: break;
            case Submitted::wait:
                link_.wait_for_room(*this);
                // One that has got some of its data already would begin anew each time, and never end.
                if (!operation.progressed_) give_up_read_memory(operation);
                return false;
            case Submitted::fail_fast: return answer(operation, {OutcomeKind::path_lost}), true;
            case Submitted::lost: return answer(operation, {OutcomeKind::gone}), true;
        }
        operation.parts_again_ &= static_cast<std::uint8_t>(~bit);
        operation.parts_in_flight_ |= bit;
        part.lost_at = 0;
        counters_->in_flight.store(++commands_in_flight_, std::memory_order_relaxed);
        if (part.command.direction == DataDirection::to_target || operation.changes_) operation.sent_ = true;
    }
    return true;
}

// Fills in the next command of the current phase; false when the phase has no more.
bool Unit::next_part(Operation& operation, Operation::Part& part) {
    using Phase = Operation::Phase;
    const bool sends_data = operation.phase_ == Phase::data && operation.kind_ != OperationKind::raw;
    if (sends_data && operation.next_block_ >= operation.block_end_) return false;
    initiator::Command& command = part.command;
    command.owner = &operation;
    command.lun = lun_;
    command.privileged = false;
    command.on_channel.reset();

    if (operation.kind_ == OperationKind::raw) {
        if (operation.next_block_ > 0) return false;
        operation.next_block_ = 1;
        command.cdb = operation.raw_cdb_;
        command.on_channel = operation.raw_channel_;
        command.direction = operation.bytes_ == 0 ? DataDirection::none
                            : operation.parked_   ? DataDirection::to_target
                                                  : DataDirection::from_target;
        if (operation.bytes_ > 0) {
            command.region = operation.buffer_ ? operation.buffer_->region : fabric::RegionId{};
            command.data = operation.buffer_ ? operation.buffer_->bytes.first(operation.bytes_) : operation.payload_;
        } else {
            command.data = {};
        }
        command.privileged = !operation.foreign_;
        if (operation.foreign_) command.time_limit = operation.raw_time_limit_;
        return true;
    }

    if (operation.phase_ == Phase::flush) {
        if (operation.next_block_ == std::numeric_limits<std::uint64_t>::max()) return false;
        operation.next_block_ = std::numeric_limits<std::uint64_t>::max();
        operation.flush_snapshot_ = cache_->write_count;
        command.cdb = scsi::synchronize_cache(0, 0);
        command.direction = DataDirection::none;
        command.data = {};
        command.privileged = true;
        return true;
    }

    const std::uint32_t block = info_->block_bytes;
    const bool head = operation.unaligned_ && operation.offset_ % block != 0;
    const std::uint64_t end = operation.offset_ + operation.bytes_;
    const bool tail =
        operation.unaligned_ && end % block != 0 && !(head && operation.block_end_ - operation.first_block_ == 1);

    if (operation.phase_ == Phase::edge_read) {
        // next_block_ walks over the edge blocks: first the head, then the tail.
        const std::uint64_t tail_block = operation.block_end_ - 1;
        std::span<std::byte> into;
        std::uint64_t lba = 0;
        if (head && operation.next_block_ == operation.first_block_) {
            lba = operation.first_block_;
            into = operation.edges_->old_head;
            operation.next_block_ = tail ? tail_block : operation.block_end_;
        } else if (tail && operation.next_block_ < operation.block_end_) {
            lba = tail_block;
            into = operation.edges_->old_tail;
            operation.next_block_ = operation.block_end_;
        } else {
            return false;
        }
        command.cdb = scsi::read(lba, 1, scsi::ForceUnitAccess::no);
        command.direction = DataDirection::from_target;
        command.region = operation.edges_->region_old;
        command.data = into.first(block);
        return true;
    }

    const std::uint64_t lba = operation.next_block_;

    if (operation.kind_ == OperationKind::read) {
        const std::uint32_t blocks = blocks_of_command(lba, operation.block_end_ - lba);
        operation.next_block_ += blocks;
        command.cdb = scsi::read(lba, blocks, scsi::ForceUnitAccess::no);
        command.direction = DataDirection::from_target;
        command.region = operation.buffer_->region;
        command.data =
            operation.buffer_->bytes.subspan((lba - operation.first_block_) * block, std::size_t{blocks} * block);
        return true;
    }

    // A write. The second half of a read-modify-write goes before new data (decisions 11).
    const auto fua = operation.durability_ == Durability::stable && info_->write_cache && info_->fua
                         ? scsi::ForceUnitAccess::yes
                         : scsi::ForceUnitAccess::no;
    if (fua == scsi::ForceUnitAccess::no) operation.wrote_past_cache_ = false;
    command.direction = DataDirection::to_target;
    command.privileged = operation.unaligned_;
    if (head && lba == operation.first_block_) {
        operation.next_block_ = lba + 1;
        command.region = operation.edges_->region_new;
        command.data = operation.edges_->new_head.first(block);
        command.cdb = scsi::write(lba, 1, fua);
        return true;
    }
    if (tail && lba == operation.block_end_ - 1) {
        operation.next_block_ = lba + 1;
        command.region = operation.edges_->region_new;
        command.data = operation.edges_->new_tail.first(block);
        command.cdb = scsi::write(lba, 1, fua);
        return true;
    }
    if (operation.zeroes_ && *operation.zeroes_ != ZeroMethod::write) {
        const bool by_10 =
            *operation.zeroes_ == ZeroMethod::write_same_10 || *operation.zeroes_ == ZeroMethod::deallocate_10;
        const bool deallocates =
            *operation.zeroes_ == ZeroMethod::deallocate || *operation.zeroes_ == ZeroMethod::deallocate_10;
        std::uint32_t most = write_same_blocks(*info_);
        if (by_10) most = std::min<std::uint32_t>(most, UINT16_MAX);
        if (deallocates && most > info_->deallocation_blocks) most -= most % info_->deallocation_blocks;
        const auto blocks = static_cast<std::uint32_t>(std::min<std::uint64_t>(most, operation.block_end_ - lba));
        operation.next_block_ += blocks;
        command.cdb = by_10 ? scsi::write_same_10(static_cast<std::uint32_t>(lba), static_cast<std::uint16_t>(blocks),
                                                  deallocates)
                            : scsi::write_same(lba, blocks, deallocates);
        command.region = engine_.region_of_zeros();
        command.data = engine_.zeros().first(block);
        return true;
    }
    const std::uint64_t whole_end = operation.block_end_ - (tail ? 1 : 0);
    const std::uint32_t blocks = blocks_of_command(lba, whole_end - lba);
    operation.next_block_ += blocks;
    const std::span<std::byte> source =
        operation.buffer_ ? operation.buffer_->bytes.first(operation.bytes_) : operation.payload_;
    command.region = operation.buffer_   ? operation.buffer_->region
                     : operation.zeroes_ ? engine_.region_of_zeros()
                                         : fabric::RegionId{};
    command.data = source.subspan(lba * block - operation.offset_, std::size_t{blocks} * block);
    command.cdb = scsi::write(lba, blocks, fua);
    return true;
}

// ---- what came back ----

void Unit::on_part_done(Operation& operation, Operation::Part& part) {
    const std::uint8_t bit = operation.bit_of(part);
    SRPFS_ASSERT((operation.parts_in_flight_ & bit) != 0);
    operation.parts_in_flight_ &= static_cast<std::uint8_t>(~bit);
    counters_->in_flight.store(--commands_in_flight_, std::memory_order_relaxed);

    Outcome outcome;
    Verdict verdict = judge(operation, part, outcome);
    // An attention is told to one command; the others that were in flight have met what is there now. Whether that is
    // still the same unit is being looked at, so a read that succeeded is repeated (decisions 7).
    if (verdict == Verdict::good && held_ && operation.is_reader() && operation.stage_ != Operation::Stage::answered)
        verdict = Verdict::again;

    const auto& result = part.command.result;
    if (result.end != CommandEnd::answered)
        operation.retry_until_ = instant_never;  // has a bound of its own
    else if (verdict != Verdict::good && verdict != Verdict::failed && operation.retry_until_ == instant_never)
        operation.retry_until_ = engine_.timers().now() + retry_span;
    const scsi::Sense sense = result.sense;
    // It is told once, so it counts whatever becomes of the command that has met it.
    const bool attention = result.end == CommandEnd::answered && result.status == scsi::Status::check_condition &&
                           sense.valid && !sense.deferred && sense.key == scsi::SenseKey::unit_attention;
    // The block size, the cache mode or the unit may be another now, on every path: what has waited for this one goes
    // when that has been looked at.
    if (operation.changes_ &&
        (operation.stage_ == Operation::Stage::answered || verdict == Verdict::good || verdict == Verdict::failed)) {
        for (Unit* unit : std::vector(locks_->units)) {
            if (unit->gone_) continue;
            unit->hold_io();
            unit->attention_told_ = true;
            unit->listener_.on_attention(*unit, {}, true);
        }
    }
    if (operation.stage_ == Operation::Stage::answered) {
        // Answered early; only the bookkeeping is left.
        if (attention) on_unit_attention(sense);
        if (verdict == Verdict::after_look) doubt_size(sense);
        if constexpr (canary::double_answer) operation.listener_->on_answered(operation);
        settle(operation);
        return pump();
    }
    if (verdict != Verdict::good && verdict != Verdict::failed) ++counters_->retries;
    switch (verdict) {
        case Verdict::good: operation.progressed_ = true; break;
        case Verdict::again: operation.parts_again_ |= bit; break;
        case Verdict::again_later:
            operation.parts_again_ |= bit;
            if (operation.retry_at_ == instant_never) {
                const bool busy = part.command.result.status == scsi::Status::busy ||
                                  part.command.result.status == scsi::Status::task_set_full;
                Duration delay = not_ready_delay;
                if (busy) {
                    delay = std::min<Duration>(
                        busy_delay_max, Duration(busy_delay_first) * (1 << std::min<unsigned>(operation.backoffs_, 7)));
                    delay += Duration(static_cast<Duration::rep>(
                        engine_.random().below(static_cast<std::uint64_t>(delay.count() / 2 + 1))));
                    if (operation.backoffs_ < 255) ++operation.backoffs_;
                }
                operation.retry_at_ = engine_.timers().now() + delay;
            }
            break;
        case Verdict::after_fence:
        case Verdict::after_look:
        case Verdict::attention: operation.parts_again_ |= bit; break;
        case Verdict::failed:
            if (operation.failure_.ok()) operation.failure_ = outcome;
            break;
    }
    // After the switch: holding the unit may take the operation's memory away, and with it what was to be sent again.
    if (attention) on_unit_attention(sense);
    if (verdict == Verdict::after_look) doubt_size(sense);
    after_part(operation);
    pump();
}

void Unit::after_part(Operation& operation) {
    if (!operation.failure_.ok()) {
        // The others are waited for: their memory is in use, and what they wrote is known then.
        if (operation.parts_in_flight_ == 0) {
            if (operation.is_waiting()) unlink(operation);
            answer(operation, refuses_nothing(operation) ? end_of_nothing(operation) : operation.failure_);
        }
        return;
    }
    const bool again = operation.parts_again_ != 0;
    if (again && operation.retry_at_ != instant_never) {
        // Nothing more of it goes out until then.
        if (operation.is_waiting()) unlink_from_line(operation);
        if (operation.parts_in_flight_ == 0) wait_and_retry(operation);
        return;
    }
    if (again && operation.unknown_since_ != 0) {
        // Neither does anything of this one, until a fence has ended what was lost.
        if (operation.is_waiting()) unlink_from_line(operation);
        if (operation.parts_in_flight_ == 0) wait_for_fence(operation);
        return;
    }
    if (operation.is_waiting()) {  // in line already
        if (held_) give_up_read_memory(operation);
        return;
    }
    const bool more = again || (operation.phase_ != Operation::Phase::flush && operation.kind_ != OperationKind::raw &&
                                operation.next_block_ < operation.block_end_);
    if (more) {
        go_first(operation);  // it has begun: before new ones
        if (held_) give_up_read_memory(operation);
        return;  // on_part_done pumps
    }
    if (operation.parts_in_flight_ == 0) finish_phase(operation);
}

void Unit::finish_phase(Operation& operation) {
    using Phase = Operation::Phase;
    const auto go_on = [&](Phase phase, std::uint64_t first) {
        operation.phase_ = phase;
        operation.next_block_ = first;
        go_first(operation);
    };
    switch (operation.phase_) {
        case Phase::edge_read: {
            const std::uint32_t block = info_->block_bytes;
            const std::uint64_t end = operation.offset_ + operation.bytes_;
            const std::size_t head_skip = operation.offset_ % block;
            EdgeBuffers& edges = *operation.edges_;
            if (head_skip != 0) {
                std::memcpy(edges.new_head.data(), edges.old_head.data(), block);
                const std::size_t count = std::min<std::size_t>(block - head_skip, operation.bytes_);
                std::memcpy(edges.new_head.data() + head_skip, operation.payload_.data(), count);
            }
            if (end % block != 0 && !(head_skip != 0 && operation.block_end_ - operation.first_block_ == 1)) {
                std::memcpy(edges.new_tail.data(), edges.old_tail.data(), block);
                const std::size_t count = end % block;
                std::memcpy(edges.new_tail.data(), operation.payload_.data() + (operation.payload_.size() - count),
                            count);
            }
            return go_on(Phase::data, operation.first_block_);
        }
        case Phase::data:
            if (operation.kind_ == OperationKind::read) {
                const std::size_t skip = operation.offset_ - operation.first_block_ * info_->block_bytes;
                operation.result_ = operation.buffer_->bytes.subspan(skip, operation.bytes_);
            } else if (operation.kind_ == OperationKind::raw) {
                const initiator::Command& command = operation.parts_[0].command;
                if (command.direction == DataDirection::from_target)
                    operation.result_ = command.data.first(command.data.size() - command.result.residual);
                if (operation.changes_ && info_->write_cache) {
                    ++cache_->write_count;
                    if (operation.cache_losses_seen_ != cache_->losses) count_loss();
                }
            } else if (operation.kind_ == OperationKind::write && info_->write_cache) {
                if (!operation.wrote_past_cache_) {
                    ++cache_->write_count;  // before the answer (decisions 8)
                    // A part of it may have been acknowledged before the cache was lost.
                    if (operation.cache_losses_seen_ != cache_->losses) count_loss();
                    if (operation.durability_ == Durability::stable) return go_on(Phase::flush, 0);
                }
            }
            return answer(operation, {});
        case Phase::flush:
            if (!cache_->newcomers.empty() && cache_->is_dirty() && !others_vouch_for_cache()) [[unlikely]]
                on_cache_lost(
                    "the unit was met by this path while writes by another one were not flushed, and the target may "
                    "have restarted between: they may be lost; fsync reports it");
            cache_->note_flushed(operation.flush_snapshot_);
            cache_->may_have_others_writes = false;
            if (cache_ != locks_->cache) locks_->cache->note_flushed(locks_->cache->write_count);
            // What was lost meanwhile, perhaps because the unit failed the flush at first, may be what it was for.
            if (operation.kind_ == OperationKind::flush ? tell_losses(operation)
                                                        : operation.losses_before_ != counters_->write_losses.load())
                return answer(operation, {OutcomeKind::medium_error});
            return answer(operation, {});
    }
}

// One table for everything a command can end with (srp-admin 6).
Unit::Verdict Unit::judge(Operation& operation, const Operation::Part& part, Outcome& outcome) {
    const initiator::CommandResult& result = part.command.result;
    outcome.status = result.status;
    outcome.sense = result.sense;
    const auto fail = [&](OutcomeKind kind) {
        outcome.kind = kind;
        return Verdict::failed;
    };
    const bool out_of_time = engine_.timers().now() > operation.retry_until_;

    // The port's timers bound how long there is no connection; this bounds how often it may be lost or the command be
    // aborted: not for ever, and not within a few bad seconds.
    if (result.end != CommandEnd::answered) {
        const Instant now = engine_.timers().now();
        if (operation.loss_until_ == instant_never) operation.loss_until_ = now + retry_span;
        if (operation.losses_ < UINT8_MAX) ++operation.losses_;
        const bool too_often = operation.losses_ > retries_max && now > operation.loss_until_;
        const auto kind = result.end == CommandEnd::connection_lost ? OutcomeKind::path_lost : OutcomeKind::aborted;
        // A fence that came between the end of the channel and that of its commands has covered this one.
        const bool fenced = part.lost_at != 0 && part.lost_at < fenced_until_;
        const CommandEnd end = fenced              ? CommandEnd::aborted
                               : part.lost_at != 0 ? CommandEnd::connection_lost
                                                   : result.end;
        // A command of somebody's choice is his to repeat. What it has written, or will yet, is for a fence to end.
        if (operation.changes_ && end == CommandEnd::connection_lost)
            operation.unknown_since_ =
                std::max(operation.unknown_since_, part.lost_at != 0 ? part.lost_at : engine_.next_stamp());
        if (operation.changes_ ||
            (operation.kind_ == OperationKind::raw && part.command.direction == DataDirection::to_target))
            return fail(kind);
        switch (repeat_rule(part.command, end)) {
            case Repeat::now: return too_often ? fail(kind) : Verdict::again;
            case Repeat::after_fence:
                operation.unknown_since_ =
                    std::max(operation.unknown_since_, part.lost_at != 0 ? part.lost_at : engine_.next_stamp());
                exclude_writes(operation);
                return too_often ? fail(kind) : Verdict::after_fence;
            case Repeat::never: return fail(kind);
        }
    }
    switch (result.status) {
        case scsi::Status::good:
        case scsi::Status::condition_met:
            if (operation.kind_ == OperationKind::raw) return Verdict::good;
            // Never pass on bytes the target did not write.
            if (result.residual != 0 || result.overflow) return fail(OutcomeKind::short_transfer);
            if (queue_depth_ < queue_depth_max_ && engine_.timers().now() - depth_lowered_at_ > depth_recovery)
                [[unlikely]] {
                ++queue_depth_;
                depth_lowered_at_ = engine_.timers().now();
            }
            return Verdict::good;
        case scsi::Status::check_condition: return judge_check_condition(operation, part, outcome);
        case scsi::Status::task_set_full:
            queue_depth_ = std::max(1U, std::min(queue_depth_, commands_in_flight_));
            depth_lowered_at_ = engine_.timers().now();
            return out_of_time ? fail(OutcomeKind::busy) : Verdict::again_later;
        case scsi::Status::busy:
            if (canary::lost_write && operation.kind_ == OperationKind::write) return Verdict::good;
            if (canary::stale_read && operation.kind_ == OperationKind::read) return Verdict::good;
            return out_of_time ? fail(OutcomeKind::busy) : Verdict::again_later;
        case scsi::Status::task_aborted:
            // The target has ended it: a LUN RESET, ours or another initiator's. Bounded by time, not by their number.
            if (repeat_rule(part.command, CommandEnd::aborted) == Repeat::never || operation.changes_ || out_of_time)
                return fail(OutcomeKind::aborted);
            if (operation.retries_ >= retries_max) return Verdict::again_later;
            ++operation.retries_;
            return Verdict::again;
        case scsi::Status::reservation_conflict: return fail(OutcomeKind::reservation_conflict);
        case scsi::Status::aca_active: return fail(OutcomeKind::aborted);
    }
    return fail(OutcomeKind::protocol_error);
}

Unit::Verdict Unit::judge_check_condition(Operation& operation, const Operation::Part& part, Outcome& outcome) {
    const initiator::CommandResult& result = part.command.result;
    const scsi::Sense& sense = result.sense;
    const bool out_of_time = engine_.timers().now() > operation.retry_until_;
    const auto fail = [&](OutcomeKind kind) {
        outcome.kind = kind;
        return Verdict::failed;
    };
    // A target may have carried out what it complains about (LIO does so with PERSISTENT RESERVE OUT, and says
    // 02/08/00).
    const bool once = operation.changes_ || repeat_rule(part.command, CommandEnd::aborted) == Repeat::never;
    const auto counted = [&](OutcomeKind kind) {
        if (operation.retries_ >= retries_max || out_of_time || once) return fail(kind);
        ++operation.retries_;
        return Verdict::again;
    };
    const auto is = [&](unsigned asc, unsigned ascq) { return sense.asc == asc && sense.ascq == ascq; };

    // Deferred sense is about an earlier command; this one did not run (SPC-4 4.5.5). It may be about a write that was
    // acknowledged from the cache. What a flush could not write back a unit may have forgotten when it is asked again.
    const auto opcode = part.command.cdb.opcode();
    const bool flushes = opcode == scsi::opcode::synchronize_cache_10 || opcode == scsi::opcode::synchronize_cache_16;
    if (flushes && !sense.valid && info_) {
        log::error(link_.name(), "{}: a flush has failed without a reason; the next fsync reports it",
                   lun_.file_name());
        count_loss();
    }
    const bool only_refused = flushes && sense.key == scsi::SenseKey::data_protect && !sense.deferred &&
                              !is(0x27, 0x07) && !has_unflushed_writes();
    if (sense.valid && (sense.deferred || flushes) && !only_refused) {
        if (info_)
            on_loss_told(sense);
        else
            link_.tell_event(lun_, sense);  // we only look; the unit that has been known until now is concerned
    }
    if (!sense.valid || sense.deferred) return counted(OutcomeKind::protocol_error);
    switch (sense.key) {
        case scsi::SenseKey::no_sense:
        case scsi::SenseKey::recovered_error:
            if (operation.kind_ != OperationKind::raw && (result.residual != 0 || result.overflow))
                return fail(OutcomeKind::short_transfer);
            return Verdict::good;
        case scsi::SenseKey::not_ready:
            if (is(0x04, 0x01) || is(0x04, 0x0a) || is(0x08, 0x00))
                return out_of_time || once ? fail(OutcomeKind::not_ready) : Verdict::again_later;
            return fail(OutcomeKind::not_ready);
        case scsi::SenseKey::medium_error:
            if (sense.asc == 0x11 || sense.asc == 0x13 || sense.asc == 0x14) return fail(OutcomeKind::medium_error);
            return counted(OutcomeKind::medium_error);
        case scsi::SenseKey::hardware_error: return fail(OutcomeKind::hardware_error);
        case scsi::SenseKey::illegal_request:
            // It was sent because it lies within the known size: the unit has become smaller and has not told us. What
            // lies within what it has now goes again.
            if (is(0x21, 0x00) && operation.kind_ != OperationKind::raw && operation.block_end_ <= info_->blocks &&
                (held_ || engine_.timers().now() >= size_believed_until_) && !out_of_time &&
                ++operation.attentions_ <= attentions_max)
                return Verdict::after_look;
            if (sense.asc == 0x21) return fail(OutcomeKind::out_of_range);
            if (sense.asc == 0x25) {
                if (operation.kind_ != OperationKind::raw && !std::exchange(attention_told_, true))
                    listener_.on_attention(*this, sense, false);
                return fail(OutcomeKind::gone);
            }
            return fail(OutcomeKind::illegal_request);
        case scsi::SenseKey::unit_attention:
            // A LUN RESET, one of our own fences as well, says nothing about the unit: it may come with each of many
            // reconnects, and only time bounds it.
            if (!is(0x29, 0x03) && operation.attentions_ < UINT8_MAX) ++operation.attentions_;
            if (operation.attentions_ > attentions_max || out_of_time) return fail(OutcomeKind::aborted);
            return Verdict::attention;
        case scsi::SenseKey::data_protect:
            if (is(0x27, 0x07)) return fail(OutcomeKind::space_exhausted);
            return fail(OutcomeKind::write_protected);
        case scsi::SenseKey::aborted_command:
            if (sense.asc == 0x10)
                return fail(OutcomeKind::hardware_error);  // protection information: no use trying again
            return counted(OutcomeKind::aborted);
        case scsi::SenseKey::miscompare: return fail(OutcomeKind::miscompare);
        case scsi::SenseKey::volume_overflow: return fail(OutcomeKind::out_of_range);
        case scsi::SenseKey::blank_check:
        case scsi::SenseKey::vendor_specific:
        case scsi::SenseKey::copy_aborted:
        case scsi::SenseKey::reserved_c:
        case scsi::SenseKey::completed: return fail(OutcomeKind::protocol_error);
    }
    return fail(OutcomeKind::protocol_error);
}

void Unit::on_target_restart() {
    if (!info_) return;
    on_cache_lost(
        "the target may have restarted: acknowledged writes that were not flushed may be lost; the next fsync reports "
        "it");
}

void Unit::note_losses_before(Operation& write) const {
    write.cache_losses_seen_ = cache_->losses;
    write.losses_before_ = counters_->write_losses.load(std::memory_order_relaxed);
}

// Each path, and each channel of it, tells of one loss when it is next asked. Another loss of the same writes looks no
// different, and who has opened the unit between the two knows of neither: so each counts.
void Unit::on_cache_lost(const std::string& text) {
    for (const Unit* unit : locks_->units) {
        ++unit->cache_->losses;
        unit->cache_->may_be_lost = unit->cache_->is_dirty();
    }
    if (has_unflushed_writes()) note_loss(text);
}

bool Unit::has_unflushed_writes() const {
    return std::any_of(locks_->units.begin(), locks_->units.end(),
                       [](const Unit* unit) { return unit->cache_->is_dirty(); });
}

// What was written by another path may be in a cache that this one does not know to be on. One that only reads has
// nothing of ours, and may refuse the command.
bool Unit::has_to_flush() const {
    return has_unflushed_writes() || (cache_->may_have_others_writes && may_be_dirty(*info_));
}

// Whether a flush was refused, and not failed, that was for nothing of ours.
bool Unit::refuses_nothing(const Operation& operation) const {
    const OutcomeKind kind = operation.failure_.kind;
    return operation.kind_ == OperationKind::flush && !has_unflushed_writes() &&
           (kind == OutcomeKind::reservation_conflict || kind == OutcomeKind::write_protected ||
            kind == OutcomeKind::illegal_request);
}

// What others may have written is theirs to flush: whoever has nothing there is not told of a refusal.
Outcome Unit::end_of_nothing(const Operation& flush) {
    // Asking one that has no such command again is no use.
    if (flush.failure_.kind == OutcomeKind::illegal_request) cache_->may_have_others_writes = false;
    return {tell_losses(flush) ? OutcomeKind::medium_error : OutcomeKind::ok};
}

// Deferred sense, or that of a flush: acknowledged writes are lost if it is an error of the medium.
void Unit::on_loss_told(const scsi::Sense& sense) {
    if (!info_ || !(info_->write_cache || has_unflushed_writes())) return;
    if (sense.key != scsi::SenseKey::medium_error && sense.key != scsi::SenseKey::hardware_error &&
        sense.key != scsi::SenseKey::data_protect)
        return;
    note_loss(fmt::format("{}: an acknowledged write was lost; the next fsync reports it", scsi::describe(sense)));
}

void Unit::note_loss(const std::string& text) {
    log::error(link_.name(), "{}: {}", lun_.file_name(), text);
    count_loss();
    listener_.on_write_loss(*this, text);
}

// Whatever path it was written by. All are this reactor's.
void Unit::count_loss() {
    if constexpr (canary::silent_cache_loss) return;
    for (const Unit* unit : locks_->units) unit->counters_->write_losses.fetch_add(1, std::memory_order_relaxed);
}

// Each who flushes is told once of what was lost since he last was, or since he opened the unit.
bool Unit::tell_losses(const Operation& flush) {
    if (!flush.losses_seen_) return false;
    const std::uint64_t losses = counters_->write_losses.load(std::memory_order_relaxed);
    if (flush.losses_seen_->exchange(losses, std::memory_order_relaxed) == losses) return false;
    counters_->write_losses_told.store(losses, std::memory_order_relaxed);
    return true;
}

bool Unit::is_held_by(const scsi::Sense& attention) {
    return attention.asc == 0x29 || (attention.asc == 0x2a && (attention.ascq == 0x09 || attention.ascq == 0x01)) ||
           attention.asc == 0x3f || attention.asc == 0x28;
}

void Unit::on_unit_attention(const scsi::Sense& sense) {
    // We only look. It is told once, and the unit that has been known until now is concerned.
    if (!info_) return link_.tell_event(lun_, sense);
    ++counters_->attentions;
    // 29/00, /01, /04: power on, or the device was reset: what its cache held is gone (decisions 8).
    if (sense.asc == 0x29 && (sense.ascq == 0x00 || sense.ascq == 0x01 || sense.ascq == 0x04)) {
        on_cache_lost(
            fmt::format("{}: acknowledged writes that were not flushed may be lost; the next fsync reports it",
                        scsi::describe(sense)));
    }
    if (sense.asc == 0x3f || sense.asc == 0x28) swap_suspected_ = reset_doubted_ = true;
    // Somebody has preempted or released what was reserved: that asks for a look, which checks our registration.
    if (sense.asc == 0x2a && sense.ascq >= 0x03 && sense.ascq <= 0x05) listener_.on_attention(*this, sense, false);
    if (!is_held_by(sense)) return;
    hold_io();
    attention_told_ = true;
    listener_.on_attention(*this, sense, true);
}

void Unit::doubt_size(const scsi::Sense& sense) {
    if (held_) return;  // it is being looked at, or will be
    doubts_size_ = attention_told_ = true;
    hold_io();
    listener_.on_attention(*this, sense, true);
}

// ---- the end of an operation ----

void Unit::unlink_from_line(Operation& operation) {
    if (operation.stage_ == Operation::Stage::waiting_path)
        waiting_.remove(operation);
    else if (operation.stage_ == Operation::Stage::waiting_memory)
        engine_.stop_waiting(operation);
    operation.stage_ = Operation::Stage::active;
}

void Unit::unlink(Operation& operation) {
    using Stage = Operation::Stage;
    switch (operation.stage_) {
        case Stage::waiting_lock:
            locks_->waiters.remove(operation);
            operation.retry_at_ = instant_never;
            break;
        case Stage::waiting_memory: engine_.stop_waiting(operation); break;
        case Stage::waiting_path: waiting_.remove(operation); break;
        case Stage::waiting_retry:
        case Stage::waiting_fence: operation.retry_at_ = instant_never; break;
        case Stage::idle:
        case Stage::active:
        case Stage::answered: break;
    }
    operation.stage_ = Stage::active;
}

void Unit::answer(Operation& operation, Outcome outcome) {
    SRPFS_ASSERT(operation.stage_ == Operation::Stage::active);
    const bool had_lock = operation.is_writer();
    operation.stage_ = Operation::Stage::answered;
    counters_->pending.store(counters_->pending.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
    operation.outcome_ = outcome;
    if (!outcome.ok()) operation.result_ = {};
    operation.parts_again_ = 0;
    // Who flushes is being told.
    if (operation.kind_ == OperationKind::flush && outcome.status == scsi::Status::check_condition && !outcome.ok())
        (void)tell_losses(operation);

    if (had_lock && operation.phase_ != Operation::Phase::flush) {
        if (operation.parts_in_flight_ > 0 && operation.sent_)
            add_ghost(operation, true);
        else if (operation.unknown_since_ != 0)
            add_ghost(operation, false);
    }
    if (outcome.ok()) {
        const Duration duration = engine_.timers().now() - operation.started_at_;
        switch (operation.kind_) {
            case OperationKind::read:
                counters_->read_latency.add(duration);
                ++counters_->reads;
                counters_->bytes_read += operation.bytes_;
                break;
            case OperationKind::write:
                counters_->write_latency.add(duration);
                ++counters_->writes;
                counters_->bytes_written += operation.bytes_;
                break;
            case OperationKind::flush:
                counters_->flush_latency.add(duration);
                ++counters_->flushes;
                break;
            case OperationKind::raw: break;
        }
    } else if (outcome.kind == OutcomeKind::interrupted) {
        ++counters_->interrupts;
    } else {
        ++counters_->errors;
        ++counters_->errors_by_kind[static_cast<std::size_t>(outcome.kind)];
        // Zeros have other ways.
        const bool only_refused = operation.zeroes_ && outcome.kind == OutcomeKind::illegal_request;
        if (operation.kind_ != OperationKind::raw && !only_refused) listener_.on_failure(*this, operation);
    }
    operation.answering_ = true;
    operation.listener_->on_answered(operation);
    operation.answering_ = false;
    settle(operation);
}

// Gives back what an answered operation does not need any more; the operation itself when nobody needs it.
void Unit::settle(Operation& operation) {
    SRPFS_ASSERT(operation.stage_ == Operation::Stage::answered);
    if (operation.parts_in_flight_ > 0) return;
    if (std::exchange(operation.excludes_writes_, false)) --locks_->excluding;
    Ghost* ghost = locks_->ghosts.find([&](Ghost& candidate) { return candidate.operation == &operation; });
    if (ghost) [[unlikely]] {
        ghost->operation = nullptr;
        ghost->unknown_since = operation.unknown_since_;
        if (operation.unknown_since_ == 0) {
            locks_->ghosts.remove(*ghost);
            delete ghost;
        } else {
            ask_for_fence();
        }
    }
    if (!operation.released_) return;
    if (operation.foreign_) {
        operation.parts_[0].command.time_limit = {};
        operation.kept_.reset();
    }
    const bool was_write = operation.is_writer();
    operations_.remove(operation);
    engine_.recycle(operation);
    if (was_write && !locks_->waiters.empty()) [[unlikely]]
        grant_locks();
}

void Unit::answer_all(OutcomeKind kind) {
    // Answering may start new operations; those see the state that made us do this.
    std::vector<Operation*> all;
    operations_.for_each([&](Operation& operation) {
        if (operation.stage_ != Operation::Stage::answered) all.push_back(&operation);
    });
    for (Operation* operation : all) {
        // A listener may not answer or recycle others, so the pointers stay good; the stage tells what is left to do.
        if (operation->stage_ == Operation::Stage::answered || operation->unit_ != this) continue;
        unlink(*operation);
        answer(*operation, {kind});
    }
}

// Fails requests that wait, none of whose commands is in flight: for so many bytes of parking memory, or (0) for
// operations. How many.
unsigned Unit::shed(std::size_t bytes_wanted) {
    unsigned count = 0;
    std::vector<Operation*> victims;
    std::size_t freed = 0;
    operations_.for_each([&](Operation& operation) {
        const bool idle =
            operation.stage_ != Operation::Stage::answered && operation.parts_in_flight_ == 0 && operation.is_waiting();
        const bool parked = operation.parked_ && !operation.parked_in_entry_;
        if (!idle || (bytes_wanted > 0 && (!parked || freed >= bytes_wanted)) ||
            (bytes_wanted == 0 && victims.size() >= 64))
            return;
        freed += operation.payload_.size();
        victims.push_back(&operation);
    });
    for (Operation* operation : victims) {
        if (operation->unit_ != this || operation->parts_in_flight_ > 0 || !operation->is_waiting()) continue;
        unlink(*operation);
        answer(*operation, {OutcomeKind::out_of_memory});
        ++count;
    }
    // Those that have come last.
    while (freed < bytes_wanted && !parked_requests_.empty()) {
        ParkedRequest& last = *parked_requests_.front();
        freed += last.counted_;
        last.shed();
        ++count;
    }
    if (count == 0) return 0;
    log::warning(link_.name(),
                 "{}: too many requests wait for this target; {} of them were failed to keep the others going",
                 lun_.file_name(), count);
    return count;
}

// ---- retries and interrupts ----

void Unit::wait_and_retry(Operation& operation) {
    operation.stage_ = Operation::Stage::waiting_retry;
    if (!retry_timer_.armed() || operation.retry_at_ < retry_timer_.deadline())
        retry_timer_.arm_at(operation.retry_at_);
}

void Unit::run_retries() {
    const Instant now = engine_.timers().now();
    Instant next = instant_never;
    std::vector<Operation*> impatient, held_reads;
    operations_.for_each([&](Operation& operation) {
        const bool others = operation.stage_ == Operation::Stage::waiting_lock ||
                            operation.stage_ == Operation::Stage::waiting_fence;  // what they do is waited for
        if (operation.stage_ != Operation::Stage::waiting_retry && !others) return;
        // While the port does not run its own timers decide how long one waits.
        if (others && operation.retry_at_ <= now && link_.state() != PortState::running)
            operation.retry_at_ = now + retry_span;
        if (operation.retry_at_ > now) {
            next = std::min(next, operation.retry_at_);
            return;
        }
        if (others) return impatient.push_back(&operation);
        operation.retry_at_ = instant_never;
        operation.stage_ = Operation::Stage::waiting_path;
        waiting_.push_back(operation);
        if (held_) held_reads.push_back(&operation);
    });
    // What is looked at may need it.
    for (Operation* operation : held_reads)
        if (operation->stage_ == Operation::Stage::waiting_path) give_up_read_memory(*operation);
    retry_timer_.arm_at(next);
    for (Operation* operation : impatient) {
        if (operation->unit_ != this) continue;
        const bool locked = operation->stage_ == Operation::Stage::waiting_lock;
        if (!locked && operation->stage_ != Operation::Stage::waiting_fence) continue;
        log::warning(link_.name(), "{}: {} for {} s; giving up", lun_.file_name(),
                     locked ? "an earlier write to the same blocks has not come to an end"
                            : "no LUN RESET has ended a write that lost its connection",
                     std::chrono::seconds(retry_span).count());
        unlink(*operation);
        answer(*operation, {locked ? OutcomeKind::aborted : OutcomeKind::path_lost});
    }
    pump();
}

void Unit::interrupt(Operation& operation) {
    if (operation.stage_ == Operation::Stage::answered || operation.stage_ == Operation::Stage::idle) return;
    SRPFS_ASSERT(operation.unit_ == this);
    if (operation.parts_in_flight_ == 0 && !operation.sent_) {
        unlink(operation);
        return answer(operation, {OutcomeKind::interrupted});
    }
    if (operation.interrupted_) return;
    operation.interrupted_ = true;
    operation.interrupt_at_ = engine_.timers().now() + interrupt_grace;
    if (!interrupt_timer_.armed()) interrupt_timer_.arm_at(operation.interrupt_at_);
}

void Unit::run_interrupts() {
    const Instant now = engine_.timers().now();
    Instant next = instant_never;
    std::vector<Operation*> due;
    operations_.for_each([&](Operation& operation) {
        if (!operation.interrupted_ || operation.stage_ == Operation::Stage::answered) return;
        if (operation.interrupt_at_ > now)
            next = std::min(next, operation.interrupt_at_);
        else
            due.push_back(&operation);
    });
    interrupt_timer_.arm_at(next);
    for (Operation* operation : due) {
        if (operation->unit_ != this || operation->stage_ == Operation::Stage::answered ||
            operation->stage_ == Operation::Stage::idle || !operation->interrupted_)
            continue;
        // Others may be waiting for it. What only asks stays in flight, as a read does.
        if (operation->foreign_ && operation->raw_time_limit_ > Duration::zero() &&
            operation->is_in_flight(operation->parts_[0])) {
            initiator::Command& command = operation->parts_[0].command;
            command.channel->expire(command);
        }
        unlink(*operation);
        answer(*operation, {OutcomeKind::interrupted});
    }
    pump();
}

std::string Unit::describe_operations() const {
    static constexpr const char* stages[] = {"idle",
                                             "waiting for a lock",
                                             "waiting for memory",
                                             "waiting for the path",
                                             "waiting to retry",
                                             "waiting for a fence",
                                             "active",
                                             "answered"};
    std::string text = fmt::format("{} ({}{}, depth {} of {}, {} commands in flight, {} ghosts):", lun_.file_name(),
                                   to_string(state()), held_ ? ", held" : "", queue_depth_, queue_depth_max_,
                                   commands_in_flight_, locks_->ghosts.size());
    const_cast<IntrusiveList<Operation, UnitTag>&>(operations_).for_each([&](Operation& operation) {
        text += fmt::format("\n  {} of {} bytes at {}: {}, phase {}, {} parts in flight, {} retries{}{}{}",
                            static_cast<int>(operation.kind_), operation.bytes_, operation.offset_,
                            stages[static_cast<int>(operation.stage_)], static_cast<int>(operation.phase_),
                            std::popcount(operation.parts_in_flight_), operation.retries_,
                            operation.buffer_ ? ", buffer" : "", operation.parked_ ? ", parked" : "",
                            operation.edges_ ? ", edges" : "");
    });
    return text;
}

// ---- locks and ghosts ----

// Whole-block writes do not exclude each other: two writers of one block have no order anyway. A write of a part of a
// block excludes every write of that block, and a ghost excludes them all (decisions 3, 6).
bool Unit::must_wait_for_lock(Operation& operation) {
    if (locks_->ghosts.empty() && locks_->excluding == 0 && locks_->waiters.empty() && !operation.unaligned_) [[likely]]
        return false;
    const auto overlaps = [&](std::uint64_t first, std::uint64_t end) {
        return first < operation.block_end_ && operation.first_block_ < end;
    };
    if (locks_->ghosts.find([&](Ghost& ghost) { return overlaps(ghost.first_block, ghost.block_end); })) return true;
    bool reached_itself = false;
    if (locks_->waiters.find([&](Operation& waiter) {
            reached_itself = reached_itself || &waiter == &operation;
            return !reached_itself && (waiter.unaligned_ || operation.unaligned_) &&
                   overlaps(waiter.first_block_, waiter.block_end_);
        }))
        return true;
    const auto excludes = [&](Operation& other) {
        return &other != &operation && other.is_writer() && other.stage_ != Operation::Stage::waiting_lock &&
               other.stage_ != Operation::Stage::answered &&
               (other.unaligned_ || operation.unaligned_ || other.excludes_writes_) &&
               overlaps(other.first_block_, other.block_end_);
    };
    return std::any_of(locks_->units.begin(), locks_->units.end(),
                       [&](Unit* unit) { return unit->operations_.find(excludes) != nullptr; });
}

void Unit::enter_lock(Operation& operation) {
    if (!operation.unaligned_) return;
    exclude_writes(operation);
    if (operation.changes_) return;
    operation.phase_ = Operation::Phase::edge_read;
    ++counters_->read_modify_writes;
}

void Unit::exclude_writes(Operation& operation) {
    if (!std::exchange(operation.excludes_writes_, true)) ++locks_->excluding;
}

void Unit::grant_locks() {
    // First come first served: a waiter is overtaken only by those that do not touch its blocks.
    while (Operation* next = locks_->waiters.find([&](Operation& waiter) { return !must_wait_for_lock(waiter); })) {
        locks_->waiters.remove(*next);
        next->retry_at_ = instant_never;
        next->stage_ = Operation::Stage::active;
        Unit& unit = *next->unit_;
        unit.note_losses_before(*next);
        unit.enter_lock(*next);
        unit.make_ready(*next);
    }
}

void Unit::add_ghost(Operation& operation, bool still_in_flight) {
    auto* ghost = new Ghost;
    ghost->first_block = operation.first_block_;
    ghost->block_end = operation.block_end_;
    ghost->operation = still_in_flight ? &operation : nullptr;
    ghost->unknown_since = operation.unknown_since_;
    locks_->ghosts.push_back(*ghost);
    ++counters_->ghosts;
    log::debug(link_.name(), "{}: blocks {} to {} may still be written by a command that was given up",
               lun_.file_name(), ghost->first_block, ghost->block_end - 1);
    if (!still_in_flight) ask_for_fence();
}

// Until a LUN RESET has succeeded it keeps others off its blocks, and is not sent again.
void Unit::wait_for_fence(Operation& operation) {
    operation.stage_ = Operation::Stage::waiting_fence;
    operation.retry_at_ = engine_.timers().now() + retry_span;
    if (!retry_timer_.armed() || operation.retry_at_ < retry_timer_.deadline())
        retry_timer_.arm_at(operation.retry_at_);
    ask_for_fence();
}

// Any path will do; a unit that is going away has none any more.
void Unit::ask_for_fence() {
    for (Unit* unit : std::vector(locks_->units))
        if (!unit->gone_) unit->listener_.on_fence_needed(*unit);
}

bool Unit::needs_fence() const {
    auto* self = const_cast<Unit*>(this);  // the lists' search is not const
    return self->locks_->ghosts.find([](Ghost& ghost) { return ghost.operation == nullptr; }) != nullptr ||
           self->operations_.find([](Operation& operation) {
               return operation.unknown_since_ != 0 && operation.stage_ != Operation::Stage::answered;
           }) != nullptr;
}

// One that is gone has nothing to do with a reset of its number any more: another unit has it now.
void Unit::on_reset_sent(const scsi::Lun& lun) {
    if (lun != lun_ || gone_) return;
    reset_sent_at_ = engine_.next_stamp();
    reset_doubted_ = swap_suspected_;
    reset_until_ = 0;
}

// It was sent to whatever has this number: which commands of this unit it has ended is known when it was confirmed.
void Unit::on_reset_over(const scsi::Lun& lun, bool succeeded) {
    if (lun != lun_ || !succeeded) return;
    const std::uint64_t lost_at = gone_ ? engine_.next_stamp() : reset_sent_at_ - 1;
    operations_.for_each([&](Operation& operation) {
        for (Operation::Part& part : operation.parts_)
            if (operation.is_in_flight(part) && part.lost_at == 0 &&
                part.command.fence == initiator::Command::Fence::proven)
                part.lost_at = lost_at;
    });
    if (gone_) return;
    reset_until_ = reset_sent_at_;
    reset_over_at_ = engine_.next_stamp();
    listener_.on_reset(*this);
}

void Unit::note_found(const UnitInfo& info) {
    if (info.probed_at == 0 || info.probed_at >= held_at_) swap_suspected_ = false;
}

bool Unit::confirm_reset(const UnitInfo& info) {
    if (gone_ || reset_until_ == 0) return true;
    if (info.probed_at != 0 && (info.probed_at < reset_over_at_ || info.probed_at < held_at_)) return true;
    const std::uint64_t until = std::exchange(reset_until_, 0);
    if (reset_doubted_) return false;
    fenced_until_ = until;
    end_fenced();
    return true;
}

// No write of this unit that was lost before fenced_until_ can run any more.
void Unit::end_fenced() {
    locks_->ghosts.for_each([&](Ghost& ghost) {
        if (ghost.operation || ghost.unknown_since >= fenced_until_) return;
        locks_->ghosts.remove(ghost);
        delete &ghost;
    });
    std::vector<Operation*> ready;
    operations_.for_each([&](Operation& operation) {
        if (operation.unknown_since_ == 0 || operation.unknown_since_ >= fenced_until_) return;
        operation.unknown_since_ = 0;
        if (operation.stage_ == Operation::Stage::waiting_fence) ready.push_back(&operation);
    });
    // The oldest goes first.
    for (auto operation = ready.rbegin(); operation != ready.rend(); ++operation) {
        (*operation)->retry_at_ = instant_never;
        go_first(**operation);
    }
    if (needs_fence()) ask_for_fence();  // lost after the reset was sent
    grant_locks();
    pump();
}

// ---- the link ----

void Unit::on_link_ready() { pump(); }

void Unit::on_link_state(PortState state) {
    switch (state) {
        case PortState::connecting:
        case PortState::running: break;  // whoever logged in probes the unit and calls resume()
        case PortState::blocked:
            hold_io();
            attention_told_ = false;
            break;
        case PortState::fail_fast:
            hold_io();  // for the day it runs again
            answer_all(OutcomeKind::path_lost);
            break;
        case PortState::lost: answer_all(OutcomeKind::gone); break;
    }
}

void Unit::on_link_changed() { hold_io(); }

// From now on others have to keep off what this channel was writing: it may happen at any time, until a fence.
void Unit::on_channel_lost(const initiator::Channel& channel) {
    if (link_.live_channels() == 0) reset_until_ = 0;  // what the target had to tell goes with the login
    operations_.for_each([&](Operation& operation) {
        for (Operation::Part& part : operation.parts_) {
            if (!operation.is_in_flight(part) || part.command.channel != &channel) continue;
            // What task management has ended cannot run any more; unless that was a LUN RESET, which has its own stamp
            // here.
            if (part.command.fence != initiator::Command::Fence::proven) part.lost_at = engine_.next_stamp();
            if (part.lost_at != 0 && operation.kind_ == OperationKind::write &&
                part.command.direction == DataDirection::to_target)
                exclude_writes(operation);
        }
    });
}

void Unit::on_link_event(const scsi::Lun& lun, const scsi::Sense& sense) {
    // Paths are checked by asking LUN 0, whatever way the target spells that.
    if (!lun.is_same_unit_as(lun_) || !sense.valid || !info_) return;
    if (sense.deferred || sense.key != scsi::SenseKey::unit_attention)
        on_loss_told(sense);
    else
        on_unit_attention(sense);
}

void Unit::on_memory(Operation& operation) {
    SRPFS_ASSERT(operation.stage_ == Operation::Stage::waiting_memory);
    if (operation.kind_ != OperationKind::read && operation.buffer_ && operation.parked_) unpark(operation);
    go_first(operation);
    if (held_) give_up_read_memory(operation);
    pump();
}

}  // namespace srpfs::lun
