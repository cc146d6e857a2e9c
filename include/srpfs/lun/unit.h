// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A logical unit as one reactor sees it: geometry, state, range locks, ghosts, dirty counters, and the path its
// commands take. With several reactors one of them is the unit's home and owns locks and ghosts; with one, it is the
// home.

#pragma once

#include <srpfs/base/count.h>
#include <srpfs/base/intrusive_list.h>
#include <srpfs/base/latency.h>
#include <srpfs/base/result.h>
#include <srpfs/initiator/target_link.h>
#include <srpfs/lun/engine.h>
#include <srpfs/lun/operation.h>
#include <srpfs/reactor/timer_queue.h>

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace srpfs::lun {

class Engine;

// What probing found out. Immutable once published; a new probe publishes a new one.
struct UnitInfo {
    scsi::Lun lun{};
    std::string wwid;             // identity: NAA or EUI name, else vendor+model+serial; empty: none offered
    bool wwid_is_serial = false;  // made of vendor, model and serial number, since there is no better one
    std::string vendor, model, revision, serial;
    std::vector<std::uint8_t> vpd_pages;  // that it says it has, in ascending order
    std::uint64_t blocks = 0;
    std::uint32_t block_bytes = 512;
    std::uint32_t physical_block_bytes = 512;
    bool read_only = false;
    bool write_cache = false;               // WCE: acknowledged writes are volatile until flushed
    bool fua = false;                       // DPOFUA
    std::uint32_t transfer_blocks_max = 0;  // of one command, 0: no limit reported
    std::uint32_t transfer_blocks_optimal = 0;
    std::uint32_t write_same_blocks_max = 0;  // of one command; 0: not reported
    // WRITE SAME may unmap, and what is unmapped reads as zeros (LBPWS, LBPRZ); then what can be unmapped at a time.
    bool deallocates_to_zeros = false;
    bool deallocates_to_zeros_by_10 = false;  // the same by WRITE SAME(10) (LBPWS10)
    std::uint32_t deallocation_blocks = 1;
    // GET LBA STATUS tells blocks that read as zeros from others (LBPME, LBPRZ).
    bool tells_holes = false;
    std::uint32_t deallocation_first = 0;  // LBA of a granule's beginning
    std::uint64_t probed_at = 0;  // Engine::next_stamp() before it was asked; 0: true whenever it was found out
    [[nodiscard]] std::uint64_t capacity_bytes() const { return blocks << block_shift(); }
    // Block lengths are powers of two; the parsers of READ CAPACITY data refuse others.
    [[nodiscard]] unsigned block_shift() const { return static_cast<unsigned>(std::countr_zero(block_bytes)); }
};

enum class UnitState : std::uint8_t {
    probing,  // only raw operations go through; others wait
    running,
    blocked,  // the target port is blocked: I/O waits
    offline,  // the unit answers, but not as a disk that can be used; I/O fails
    gone,     // removed: everything fails with `gone`
};
[[nodiscard]] const char* to_string(UnitState state);

// Written by the unit's reactor, read by anybody.
struct UnitCounters {
    Count reads, writes, flushes, bytes_read, bytes_written, errors, retries, interrupts, attentions,
        read_modify_writes, ghosts;
    // How often acknowledged writes may have been lost, by a volatile cache or because flushing it failed; and the last
    // of these times that somebody has been told of. Whoever opens the unit now starts from the latter, so that what
    // nobody knows is told to him.
    std::atomic<std::uint64_t> write_losses{0}, write_losses_told{0};
    // How many there are now: operations that were started and not answered, and commands that the target has.
    std::atomic<unsigned> pending{0}, in_flight{0};
    // By OutcomeKind; their sum is `errors`, without the interrupted.
    std::array<Count, outcome_kinds> errors_by_kind;
    // From Unit::start() to the answer, of those that succeeded; what was read, written and flushed, waiting included.
    LatencyHistogram read_latency, write_latency, flush_latency;
};

class UnitListener {
public:
    // The target says something changed (unit attention 3F/0E, 2A/09, 29/xx, 25/00 ...), or must have without saying so
    // (5/21/00 for what lies within the known size): probe again. I/O of the unit is held until Unit::resume() when
    // `hold` (decisions 7). Sense that is not valid: a foreign command has ended that
    // may have changed it. Reactor thread. What holds is told each time, a probe may have asked too early; others once.
    virtual void on_attention(Unit& unit, const scsi::Sense& sense, bool hold) = 0;
    // The end of a write has become unknown: see Unit::needs_fence().
    virtual void on_fence_needed(Unit& unit) = 0;
    // A LUN RESET of this number has succeeded: it counts when a look has shown that the unit is still there. Reactor
    // thread; the look has to be asked later.
    virtual void on_reset(Unit& unit) = 0;
    // Worth a line in last_error: an operation failed for good.
    virtual void on_failure(Unit& unit, const Operation& operation) = 0;
    // Acknowledged writes may be lost, as `text` says and the log has been told; the next fsync reports it. Worth an
    // event and last_error, since there may be no next one.
    virtual void on_write_loss(Unit& unit, const std::string& text) {
        static_cast<void>(unit);
        static_cast<void>(text);
    }

protected:
    ~UnitListener() = default;
};

// A write that was answered before its end was known. Its blocks are taboo for overlapping writes.
struct Ghost : ListHook<> {
    std::uint64_t first_block = 0, block_end = 0;
    Operation* operation = nullptr;   // whose commands are still in flight; null: only a fence ends it
    std::uint64_t unknown_since = 0;  // a fence has to be younger than this
};

// What the volatile write cache of one logical unit may have, whatever path it came by (decisions 8).
struct WriteCache {
    std::uint64_t write_count = 0;    // acknowledged volatile writes
    std::uint64_t flushed_count = 0;  // as many of them a flush has covered
    std::uint64_t losses = 0;         // times the cache may have been lost, with or without any in it
    // The unit was met just now: what somebody wrote who knew it before, an earlier process of ours perhaps, may be in
    // the cache. A flush covers that; that it may be lost is not ours to tell.
    bool may_have_others_writes = true;
    // Links by which the unit was met while something was unflushed. The target may have restarted before, and lost it:
    // a flush that goes by one of them covers it only if another link, that was there before, has heard of it since.
    struct Newcomer {
        const initiator::TargetLink* link;
        Instant since;
    };
    std::vector<Newcomer> newcomers;
    // TargetLink::incarnation() of paths that are gone, and were there before: by these it is met as it was left.
    std::vector<std::uint64_t> left_by;
    bool may_be_lost = false;  // something of what is unflushed, as was noticed
    [[nodiscard]] bool is_dirty() const { return write_count != flushed_count; }
    void note_flushed(std::uint64_t snapshot);
};

// Who may write which blocks of one logical unit, and what its volatile cache may have, by whatever path: all units of
// one identity share it, and it stays as long as there are ghosts, or something is unflushed (decisions 3, 6, 8).
// Unit's own; an Engine keeps it.
struct BlockLocks {
    ~BlockLocks();
    std::vector<Unit*> units;
    IntrusiveList<Operation, QueueTag> waiters;
    IntrusiveList<Ghost> ghosts;
    unsigned excluding = 0;  // writes past the lock that exclude all others of their blocks
    std::shared_ptr<WriteCache> cache = std::make_shared<WriteCache>();
};

class Unit final : private initiator::LinkListener {
public:
    // `link` and `engine` outlive the unit. Reactor thread, as everything here.
    Unit(Engine& engine, initiator::TargetLink& link, const scsi::Lun& lun, unsigned queue_depth,
         UnitListener& listener);
    ~Unit();  // idle: is_idle()

    void start(Operation& operation);
    // FUSE INTERRUPT: a waiting operation is answered `interrupted` at once; one in flight is marked and answered after
    // 500 ms if nothing has come (decisions 14). A write answered early leaves a ghost.
    void interrupt(Operation& operation);

    // Publishes what probing found and lets held I/O go. The identity is the same as before: another one is another
    // unit, and this one is removed (decisions 7). What was found out before the unit was last held (an attention, a
    // lost connection) changes nothing: the probe that follows it will call again.
    void resume(std::shared_ptr<const UnitInfo> info);
    // What a look that found the same unit says about the LUN RESET before it: if it was asked after the reset was
    // over, the reset was this unit's, and ends the ghosts and the waiting for a fence (decisions 1). False: another
    // unit may have had the number meanwhile, so the reset proves nothing. To be called before resume().
    bool confirm_reset(const UnitInfo& info);
    // The same unit was found again, though resume() is not due yet: what is reset from now on is this one.
    void note_found(const UnitInfo& info);
    [[nodiscard]] bool awaits_confirmation() const { return reset_until_ != 0; }
    // Which unit this is, when its I/O may not go yet: it waits for resume(). Shares locks and ghosts with the other
    // units of that identity, those that are gone included.
    void recognise(std::shared_ptr<const UnitInfo> info);
    // An earlier process may have left writes of which nobody knows the end: no write goes before a fence.
    void suspect_earlier_writes();
    // Keeps I/O waiting (a probe is under way).
    void hold();
    void set_offline();
    // Removal: everything waiting fails `gone`, and so does everything started later.
    void remove();
    [[nodiscard]] bool is_idle() const { return operations_.empty() && parked_requests_.empty(); }

    // False: the unit has said that it cannot, by what probing found or by refusing it once.
    [[nodiscard]] bool offers(ZeroMethod method) const;
    void note_refused(ZeroMethod method);
    // False: it has refused GET LBA STATUS once. Whether it offers that is in UnitInfo.
    [[nodiscard]] bool tells_holes() const { return !refuses_lba_status_; }
    void note_tells_no_holes() { refuses_lba_status_ = true; }

    // A volatile write cache may be gone: the next flush reports an error if acknowledged writes were in it (decisions
    // 8).
    void on_target_restart() override;
    bool tell_losses(const Operation& flush);
    void on_loss_told(const scsi::Sense& sense);
    void note_loss(const std::string& text);
    void on_cache_lost(const std::string& text);
    void count_loss();
    void join_dirty_cache();
    void leave_cache();
    // Commands with 32 bits for a block's address are enough for all of the unit.
    [[nodiscard]] bool reaches_all_by_10() const;
    void note_losses_before(Operation& write) const;
    // Writes whose end nobody knows: a LUN RESET is needed before they, or others to the same blocks, can go
    // (decisions 1, 3). Any that succeeds will do once a look has confirmed it; the unit hears of it through its link.
    [[nodiscard]] bool needs_fence() const;
    // A unit attention that may mean another unit, another size or another cache mode: nothing goes until somebody has
    // looked (decisions 7). The others only want the command repeated.
    [[nodiscard]] static bool is_held_by(const scsi::Sense& attention);

    [[nodiscard]] UnitState state() const;
    // Engine::next_stamp() when its I/O was last held: what was found out before may be about another unit.
    [[nodiscard]] std::uint64_t held_at() const { return held_at_; }
    // The same logical unit by another path, or itself.
    [[nodiscard]] bool shares_blocks_with(const Unit& other) const { return locks_ == other.locks_; }
    [[nodiscard]] const scsi::Lun& lun() const { return lun_; }
    [[nodiscard]] const std::shared_ptr<const UnitInfo>& info() const { return info_; }  // null while never probed
    [[nodiscard]] initiator::TargetLink& link() const { return link_; }
    [[nodiscard]] Engine& engine() const { return engine_; }
    [[nodiscard]] std::shared_ptr<const UnitCounters> counters() const { return counters_; }
    // Writes that were answered, or given up, and may still change it.
    [[nodiscard]] bool has_ghosts() const { return !locks_->ghosts.empty(); }
    // By any path.
    [[nodiscard]] bool has_unflushed_writes() const;
    // What is unflushed has not been lost before this path was there. False: nobody can say.
    [[nodiscard]] bool others_vouch_for_cache() const;
    [[nodiscard]] std::size_t operations() const { return operations_.size(); }
    // What each of them is waiting for, one a line: for the log when something hangs.
    [[nodiscard]] std::string describe_operations() const;

private:
    friend class Operation;
    friend class Engine;
    friend class ParkedRequest;

    enum class Verdict : std::uint8_t { good, again, again_later, after_fence, after_look, attention, failed };

    void on_link_ready() override;
    void on_link_state(initiator::PortState state) override;
    void on_link_changed() override;
    void on_link_event(const scsi::Lun& lun, const scsi::Sense& sense) override;
    void on_channel_lost(const initiator::Channel& channel) override;
    void on_reset_sent(const scsi::Lun& lun) override;
    void on_reset_over(const scsi::Lun& lun, bool succeeded) override;

    void on_part_done(Operation& operation, Operation::Part& part);
    void on_memory(Operation& operation);
    Verdict judge(Operation& operation, const Operation::Part& part, Outcome& outcome);
    Verdict judge_check_condition(Operation& operation, const Operation::Part& part, Outcome& outcome);
    void on_unit_attention(const scsi::Sense& sense);
    void doubt_size(const scsi::Sense& sense);

    void begin(Operation& operation);
    void wait_for_lock(Operation& operation);
    void make_ready(Operation& operation);
    void go_first(Operation& operation);
    void pump();
    bool advance(Operation& operation);
    bool send_parts(Operation& operation);
    bool next_part(Operation& operation, Operation::Part& part);
    void after_part(Operation& operation);
    void finish_phase(Operation& operation);
    void answer(Operation& operation, Outcome outcome);
    void settle(Operation& operation);
    void wait_and_retry(Operation& operation);
    void run_retries();
    void run_interrupts();
    void hold_io();
    void unlink(Operation& operation);
    void unlink_from_line(Operation& operation);
    void give_up_read_memory(Operation& operation);
    void unpark(Operation& operation);
    void enter_lock(Operation& operation);
    void answer_all(OutcomeKind kind);
    unsigned shed(std::size_t bytes_wanted);
    bool must_wait_for_lock(Operation& operation);
    void grant_locks();
    void exclude_writes(Operation& operation);
    void wait_for_fence(Operation& operation);
    void ask_for_fence();
    void add_ghost(Operation& operation, bool still_in_flight);
    void end_fenced();
    void hand_over_unflushed_writes();
    [[nodiscard]] bool has_to_flush() const;
    [[nodiscard]] bool refuses_nothing(const Operation& operation) const;
    Outcome end_of_nothing(const Operation& flush);
    [[nodiscard]] std::uint32_t blocks_of_command(std::uint64_t lba, std::uint64_t left) const;

    Engine& engine_;
    initiator::TargetLink& link_;
    scsi::Lun lun_;
    unsigned queue_depth_max_;
    unsigned queue_depth_;  // lowered by TASK SET FULL
    unsigned commands_in_flight_ = 0;
    UnitListener& listener_;
    Engine::Share* share_;
    std::shared_ptr<const UnitInfo> info_;
    bool held_ = true;
    bool offline_ = false;
    bool gone_ = false;
    bool pumping_ = false;
    bool attention_told_ = false;
    bool doubts_size_ = false;       // held because it has refused blocks that it is known to have
    Duration size_believed_for_{};   // after a look which has found that size again, longer each time
    Instant size_believed_until_{};  // till then what it refuses is refused
    bool refuses_write_same_ = false, refuses_write_same_10_ = false, refuses_deallocation_ = false,
         refuses_deallocation_10_ = false, refuses_lba_status_ = false;
    std::uint64_t held_at_ = 0;               // Engine::next_stamp(): what was found out before does not count
    std::array<unsigned, 6> buffers_held_{};  // buffers of each class of the engine
    std::size_t parked_bytes_ = 0;
    IntrusiveList<ParkedRequest, QueueTag> parked_requests_;  // the last one first
    Instant depth_lowered_at_{};
    IntrusiveList<Operation, UnitTag> operations_;  // all that were started and are not back in the pool
    IntrusiveList<Operation, QueueTag> waiting_;    // for path or credit, in order
    std::shared_ptr<BlockLocks> locks_ = std::make_shared<BlockLocks>();
    // All paths' of its identity; its own if that is a serial number, which several units of one array may have: then a
    // flush covers what went by this path.
    std::shared_ptr<WriteCache> cache_ = locks_->cache;
    // All Engine::next_stamp().
    std::uint64_t reset_sent_at_ = 0;  // of the LUN RESET under way
    std::uint64_t reset_until_ = 0;    // reset_sent_at_ of one that succeeded and waits for confirm_reset(); 0: none
    std::uint64_t reset_over_at_ = 0;  // when that was answered
    bool swap_suspected_ = false;      // an attention since the last resume(): another unit may have the number
    bool reset_doubted_ = false;       // so it was when reset_sent_at_, or has been since
    std::uint64_t fenced_until_ = 0;   // what was lost before this stamp cannot run any more
    reactor::Timer retry_timer_;       // back-offs, and the patience of those that wait for a lock
    reactor::Timer interrupt_timer_;
    std::shared_ptr<UnitCounters> counters_ = std::make_shared<UnitCounters>();
};

}  // namespace srpfs::lun
