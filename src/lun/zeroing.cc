// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/lun/zeroing.h>

#include <srpfs/base/assert.h>
#include <srpfs/lun/engine.h>

#include <algorithm>
#include <initializer_list>
#include <utility>

namespace srpfs::lun {
namespace {

constexpr std::uint64_t piece_bytes_max = std::uint64_t{64} << 20;  // where only one block of it travels
constexpr std::uint64_t granule_bytes_max = std::uint64_t{1} << 30;

std::uint64_t round_up(std::uint64_t value, std::uint64_t to) { return (value + to - 1) / to * to; }
std::uint64_t round_down(std::uint64_t value, std::uint64_t to) { return value / to * to; }

}  // namespace

Zeroing::Zeroing(Unit& unit, std::vector<ByteRange> ranges, bool deallocates,
                 std::function<void(const Outcome&)> on_done, Durability durability)
    : unit_(unit), left_(ranges.begin(), ranges.end()), deallocates_(deallocates),
      to_be_flushed_(durability == Durability::stable), on_done_(std::move(on_done)) {
    std::erase_if(left_, [](const ByteRange& range) { return range.empty(); });
}

Zeroing::~Zeroing() { SRPFS_ASSERT(under_way_.empty()); }

void Zeroing::start() {
    losses_before_ = unit_.counters()->write_losses.load(std::memory_order_relaxed);
    go_on();
}

void Zeroing::interrupt() {
    if (failure_.ok()) failure_.kind = OutcomeKind::interrupted;
    // The last of them may end us.
    Unit& unit = unit_;
    const std::vector<UnderWay> all = under_way_;
    for (const UnderWay& one : all) unit.interrupt(*one.operation);
}

// The beginning of what is left, as far as one method goes.
Zeroing::Piece Zeroing::next_piece() const {
    const ByteRange range = left_.front();
    const UnitInfo& info = *unit_.info();
    const std::uint64_t block = info.block_bytes;
    const std::uint64_t first = round_up(range.begin, block), last = round_down(range.end, block);
    if (first > range.begin || first >= last)  // a part of a block
        return {{range.begin, std::min(range.end, round_down(range.begin, block) + block)}, ZeroMethod::write};
    const auto piece = [&](std::uint64_t end, ZeroMethod method) {
        const std::uint64_t most = method == ZeroMethod::write ? Operation::bytes_max : piece_bytes_max;
        return Piece{{first, std::min(end, first + round_down(most, block))}, method};
    };
    // What the unit offers, in the order in which it is preferred.
    const auto offered = [&](std::initializer_list<ZeroMethod> methods) {
        const auto* const found =
            std::find_if(methods.begin(), methods.end(), [&](ZeroMethod one) { return unit_.offers(one); });
        return found == methods.end() ? ZeroMethod::write : *found;
    };
    const ZeroMethod same = offered({ZeroMethod::write_same, ZeroMethod::write_same_10});
    const ZeroMethod deallocation = offered({ZeroMethod::deallocate, ZeroMethod::deallocate_10});
    const std::uint64_t granule = info.deallocation_blocks * block, origin = info.deallocation_first * block;
    if (deallocates_ && granule <= granule_bytes_max && deallocation != ZeroMethod::write) {
        // Counted from the first granule of the unit; what lies before that is a granule that is not whole.
        const std::uint64_t begin = first <= origin ? origin : origin + round_up(first - origin, granule);
        const std::uint64_t end = last <= origin ? origin : origin + round_down(last - origin, granule);
        if (begin == first && first < end) {
            const std::uint64_t most = std::max(granule, round_down(piece_bytes_max, granule));
            return {{first, std::min(end, first + most)}, deallocation};
        }
        if (begin < end) return piece(begin, same);
    }
    return piece(last, same);
}

void Zeroing::go_on() {
    if (going_on_) return;
    going_on_ = true;
    while (failure_.ok() && !left_.empty() && under_way_.size() < pieces_at_once) {
        const Piece piece = next_piece();
        Operation* const operation = unit_.engine().take();
        if (!operation) {
            failure_.kind = OutcomeKind::out_of_memory;
            break;
        }
        left_.front().begin = piece.range.end;
        if (left_.front().empty()) left_.pop_front();
        operation->prepare_zero(unit_, piece.range.begin,
                                static_cast<std::uint32_t>(piece.range.end - piece.range.begin), piece.method, *this);
        under_way_.push_back({operation, piece});
        unit_.start(*operation);
    }
    going_on_ = false;
    if (!under_way_.empty() || begin_flush()) return;
    const auto on_done = std::move(on_done_);
    on_done(failure_);
}

// One for all pieces: WRITE SAME has no FUA. False: there is nothing to wait for.
bool Zeroing::begin_flush() {
    if (!failure_.ok() || !std::exchange(to_be_flushed_, false)) return false;
    Operation* const operation = unit_.engine().take();
    if (!operation) {
        failure_.kind = OutcomeKind::out_of_memory;
        return false;
    }
    operation->prepare_flush(unit_, *this);
    under_way_.push_back({operation, {{}, ZeroMethod::write}});
    unit_.start(*operation);
    return true;
}

void Zeroing::on_answered(Operation& operation) {
    const auto place = std::find_if(under_way_.begin(), under_way_.end(),
                                    [&](const UnderWay& one) { return one.operation == &operation; });
    SRPFS_ASSERT(place != under_way_.end());
    const Piece piece = place->piece;
    Outcome outcome = operation.outcome();
    // A flush proves nothing of a cache that is gone.
    if (operation.kind() == OperationKind::flush && outcome.ok() &&
        unit_.counters()->write_losses.load(std::memory_order_relaxed) != losses_before_)
        outcome = {OutcomeKind::medium_error};
    under_way_.erase(place);
    operation.release();
    if (outcome.kind == OutcomeKind::illegal_request && piece.method != ZeroMethod::write) {
        unit_.note_refused(piece.method);
        left_.push_front(piece.range);
    } else if (!outcome.ok() && failure_.ok()) {
        failure_ = outcome;
    }
    go_on();
}

}  // namespace srpfs::lun
