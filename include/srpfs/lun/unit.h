// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A logical unit as one reactor sees it: geometry, state, range locks, ghosts, dirty counters, and the path its commands
// take. With several reactors one of them is the unit's home and owns locks and ghosts; with one, it is the home.

#pragma once

#include <srpfs/base/intrusive_list.h>
#include <srpfs/base/result.h>
#include <srpfs/initiator/target_link.h>
#include <srpfs/lun/operation.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace srpfs::lun {

class Engine;

// What probing found out. Immutable once published; a new probe publishes a new one.
struct UnitInfo {
    scsi::Lun lun{};
    std::string wwid;                 // identity: NAA or EUI name, else vendor+model+serial; empty: none offered
    std::string vendor, model, revision, serial;
    std::uint64_t blocks = 0;
    std::uint32_t block_bytes = 512;
    std::uint32_t physical_block_bytes = 512;
    bool read_only = false;
    bool write_cache = false;         // WCE: acknowledged writes are volatile until flushed
    bool fua = false;                 // DPOFUA
    std::uint32_t transfer_blocks_max = 0;       // of one command, 0: no limit reported
    std::uint32_t transfer_blocks_optimal = 0;
    [[nodiscard]] std::uint64_t capacity_bytes() const { return blocks * block_bytes; }
};

enum class UnitState : std::uint8_t {
    probing,      // only raw operations go through; others wait
    running,
    blocked,      // the target port is blocked: I/O waits
    offline,      // the unit answers, but not as a disk that can be used; I/O fails
    gone,         // removed: everything fails with `gone`
};
[[nodiscard]] const char* to_string(UnitState state);

// Counters of one unit, written by its reactor, read by anybody.
struct UnitCounters;

class UnitListener {
public:
    // The target says something changed (unit attention 3F/0E, 2A/09, 29/xx, 25/00 ...): probe again. I/O of the unit is
    // held until Unit::resume() when `hold` (decisions 7). Reactor thread; coalesced until the next resume().
    virtual void on_attention(Unit& unit, const scsi::Sense& sense, bool hold) = 0;
    // Worth a line in last_error: an operation failed for good.
    virtual void on_failure(Unit& unit, const Operation& operation) = 0;

protected:
    ~UnitListener() = default;
};

class Unit final : public ListHook<>, private initiator::LinkListener {
public:
    // `link` and `engine` outlive the unit. Reactor thread, as everything here.
    Unit(Engine& engine, initiator::TargetLink& link, const scsi::Lun& lun, unsigned queue_depth, UnitListener& listener);
    ~Unit();                                           // idle: is_idle()

    void start(Operation& operation);
    // FUSE INTERRUPT: a waiting operation is answered `interrupted` at once; one in flight is marked and answered after
    // 500 ms if nothing has come (decisions 14). A write answered early leaves a ghost.
    void interrupt(Operation& operation);

    // Publishes what probing found and lets held I/O go. Another identity than before: everything waiting fails `gone`.
    void resume(std::shared_ptr<const UnitInfo> info);
    // Keeps I/O waiting (a probe is under way).
    void hold();
    void set_offline();
    // Removal: everything waiting fails `gone`, and so does everything started later.
    void remove();
    [[nodiscard]] bool is_idle() const { return operations_.empty() && ghosts_.empty(); }

    // LUN RESET: no write of this unit that was sent before can run any more. Ghosts end (decisions 1).
    void on_fence();
    [[nodiscard]] bool has_ghosts() const { return !ghosts_.empty(); }

    [[nodiscard]] UnitState state() const;
    [[nodiscard]] const scsi::Lun& lun() const { return lun_; }
    [[nodiscard]] const std::shared_ptr<const UnitInfo>& info() const { return info_; }   // null while never probed
    [[nodiscard]] initiator::TargetLink& link() const { return link_; }
    [[nodiscard]] const UnitCounters& counters() const { return *counters_; }
    [[nodiscard]] std::shared_ptr<const UnitCounters> shared_counters() const { return counters_; }
    [[nodiscard]] std::size_t parked_bytes() const { return parked_bytes_; }
    [[nodiscard]] bool has_unflushed_writes() const { return write_count_ != flushed_count_; }

    struct OperationTag {};

private:
    friend class Operation;
    friend class Engine;
    void on_link_ready() override;
    // The rest is in unit.cc.
    Engine& engine_;
    initiator::TargetLink& link_;
    scsi::Lun lun_;
};

}  // namespace srpfs::lun
