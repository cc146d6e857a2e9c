// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Ranges of a unit become zeros, by the cheapest method of which the unit promises that they read as zeros afterwards,
// in pieces of which few are under way at a time, so that other I/O goes on beside it and it can be interrupted.
// Never bare UNMAP, which is a hint (SBC-3 4.7.3.4).

#pragma once

#include <srpfs/lun/operation.h>
#include <srpfs/lun/unit.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

namespace srpfs::lun {

struct ByteRange {
    std::uint64_t begin = 0, end = 0;
    [[nodiscard]] bool empty() const { return begin >= end; }
    auto operator<=>(const ByteRange&) const = default;
};

// The reactor's thread of the unit. Destroyed once it is done.
class Zeroing final : private OperationListener {
public:
    static constexpr unsigned pieces_at_once = 2;

    // Within the unit. `deallocates`: space may go back to a pool. `on_done` is called once: with the first failure,
    // once nothing is under way any more, or ok. It may be called before start() returns, and may destroy this. Stable:
    // the zeros are not in a volatile cache any more when it is ok; it is not if they may have been lost with one.
    Zeroing(Unit& unit, std::vector<ByteRange> ranges, bool deallocates, std::function<void(const Outcome&)> on_done,
            Durability durability = Durability::cached);
    ~Zeroing();
    Zeroing(const Zeroing&) = delete;
    Zeroing& operator=(const Zeroing&) = delete;

    void start();
    // No new piece begins; those under way end as Unit::interrupt() says.
    void interrupt();
    [[nodiscard]] Unit& unit() const { return unit_; }

private:
    struct Piece {
        ByteRange range;
        ZeroMethod method;
    };
    void on_answered(Operation& operation) override;
    void go_on();
    [[nodiscard]] bool begin_flush();
    [[nodiscard]] Piece next_piece() const;

    Unit& unit_;
    std::deque<ByteRange> left_;
    const bool deallocates_;
    bool to_be_flushed_;
    std::uint64_t losses_before_ = 0;  // UnitCounters::write_losses when it began
    std::function<void(const Outcome&)> on_done_;
    struct UnderWay {
        Operation* operation;
        Piece piece;
    };
    std::vector<UnderWay> under_way_;
    Outcome failure_{};
    bool going_on_ = false;
};

}  // namespace srpfs::lun
