// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Where the next data or the next hole of a unit begins (SEEK_DATA, SEEK_HOLE), by GET LBA STATUS. A hole is only what
// the unit promises to read as zeros; whatever is not known for certain is data.

#pragma once

#include <srpfs/lun/operation.h>
#include <srpfs/lun/unit.h>

#include <cstdint>
#include <functional>
#include <memory>

namespace srpfs::lun {

enum class Sought : bool { data, hole };

// The reactor's thread of the unit. Destroyed once it is done.
class ExtentSearch final : private OperationListener {
public:
    // Of one search, one after the other. What lies beyond what they tell counts as data.
    static constexpr unsigned commands_max = 64;

    // `offset` is less than the capacity. `on_done` is called once, perhaps before start() returns, and may destroy
    // this: with `offset` or where beyond it what is sought begins; the capacity for none. Only `interrupted` and
    // `gone` are failures.
    ExtentSearch(Unit& unit, std::uint64_t offset, Sought sought,
                 std::function<void(OutcomeKind, std::uint64_t)> on_done);
    ~ExtentSearch();
    ExtentSearch(const ExtentSearch&) = delete;
    ExtentSearch& operator=(const ExtentSearch&) = delete;

    void start();
    // As Unit::interrupt().
    void interrupt();

private:
    void on_answered(Operation& operation) override;
    void ask();
    void found(std::uint64_t offset);
    void found_data(std::uint64_t offset);
    void fail(OutcomeKind kind);

    Unit& unit_;
    const std::shared_ptr<const UnitInfo> info_;
    const std::uint64_t held_at_;
    const std::uint64_t offset_;
    const Sought sought_;
    std::function<void(OutcomeKind, std::uint64_t)> on_done_;
    std::uint64_t next_;  // up to here nothing sought was found
    unsigned commands_ = 0;
    Operation* operation_ = nullptr;
};

}  // namespace srpfs::lun
