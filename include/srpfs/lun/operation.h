// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What somebody asked of a logical unit: read, write, flush, or one raw command. Split into commands, retried here and
// nowhere else, answered exactly once.

#pragma once

#include <srpfs/base/instant.h>
#include <srpfs/base/intrusive_list.h>
#include <srpfs/initiator/command.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>

namespace srpfs::lun {

class Engine;
class Unit;
class Operation;
struct Buffer;
struct EdgeBuffers;

enum class OperationKind : std::uint8_t {
    read,
    write,
    flush,  // SYNCHRONIZE CACHE of the whole unit when it has a volatile cache and unflushed writes
    raw,    // one CDB, up to 64 KiB of data in; used by probing
};

// The end of an operation in the words of SAM and of this program. Mapped to errno in one table, in fs.
enum class OutcomeKind : std::uint8_t {
    ok,
    interrupted,  // the caller gave up before anything was known
    path_lost,    // fast_io_fail_tmo expired; or a write lost its connection and no fence could be had
    gone,         // the logical unit or the target port has been removed
    not_ready,
    medium_error,
    hardware_error,
    illegal_request,
    out_of_range,     // 5/21/00: beyond the end of the medium
    write_protected,  // 7/27/00
    space_exhausted,  // 7/27/07: thin provisioning
    reservation_conflict,
    miscompare,
    aborted,         // retries used up
    busy,            // BUSY or TASK SET FULL until the deadline
    short_transfer,  // GOOD with a residual: the data is not what was asked for
    protocol_error,  // no usable answer
    out_of_memory,   // parking memory exhausted: this target had the largest share
};
inline constexpr std::size_t outcome_kinds = static_cast<std::size_t>(OutcomeKind::out_of_memory) + 1;
[[nodiscard]] const char* to_string(OutcomeKind kind);  // the enumerator: "path_lost"

// Trivially copyable; no strings.
struct Outcome {
    OutcomeKind kind = OutcomeKind::ok;
    scsi::Status status = scsi::Status::good;
    scsi::Sense sense{};
    [[nodiscard]] bool ok() const { return kind == OutcomeKind::ok; }
};

class OperationListener {
public:
    // Called exactly once per started operation, possibly before start() returns, on the reactor's thread. For a read,
    // operation.data() is what to hand to the caller; it stays valid until operation.release(). After release() the
    // operation must not be touched: it goes back to its pool, at once or when its last command has ended (an operation
    // answered early may still have commands in flight).
    virtual void on_answered(Operation& operation) = 0;

protected:
    ~OperationListener() = default;
};

// How blocks become zeros.
enum class ZeroMethod : std::uint8_t {
    write,          // WRITE: they travel; any offset and length
    write_same,     // WRITE SAME(16): one block travels; whole blocks
    write_same_10,  // WRITE SAME(10), for units that refuse the longer one
    deallocate,     // WRITE SAME(16) with UNMAP: the same for a reader, and blocks may go back to a pool
    deallocate_10,  // WRITE SAME(10) with UNMAP
};

enum class Durability : std::uint8_t {
    cached,  // an acknowledged write may sit in the unit's volatile cache
    stable,  // O_DSYNC: FUA, or a flush before the answer
};

struct QueueTag {};  // free, or waiting for something
struct UnitTag {};   // belonging to a unit

// Taken from an Engine, filled by one of the prepare_ functions, started by Unit::start(). One reactor's thread.
class Operation final : public ListHook<QueueTag>, public ListHook<UnitTag>, private initiator::CommandOwner {
public:
    explicit Operation(Engine& engine) : engine_(engine) {}
    Operation(const Operation&) = delete;
    Operation& operator=(const Operation&) = delete;

    static constexpr unsigned commands_max = 4;  // in flight at one time (decisions 11)
    static constexpr std::uint32_t bytes_max = 1U << 20;
    static constexpr std::uint32_t raw_bytes_max = 65536;

    // Any offset and length within the unit; `bytes` 1..bytes_max.
    void prepare_read(Unit& unit, std::uint64_t offset, std::uint32_t bytes, OperationListener& listener);
    // The payload is the one Engine::take_over_intake() gave this operation before.
    void prepare_write(Unit& unit, std::uint64_t offset, Durability durability, OperationListener& listener);
    // Zeros; nothing else is touched. `bytes` 1..bytes_max for ZeroMethod::write, else whole blocks, less than 2^32
    // bytes. A write in every other respect. The unit refusing a method is OutcomeKind::illegal_request.
    void prepare_zero(Unit& unit, std::uint64_t offset, std::uint32_t bytes, ZeroMethod method,
                      OperationListener& listener);
    // `losses_seen` is UnitCounters::write_losses as whoever flushes knows it: when there have been more, he is told of
    // them once, by a medium error, and it is moved on. nullptr: nobody who could be told. It outlives the answer.
    void prepare_flush(Unit& unit, OperationListener& listener, std::atomic<std::uint64_t>* losses_seen = nullptr);
    // `data_in_bytes` 0..raw_bytes_max. Goes through while the unit is being probed. `channel`: see
    // Command::on_channel.
    void prepare_raw(Unit& unit, const scsi::Cdb& cdb, std::uint32_t data_in_bytes, OperationListener& listener,
                     std::optional<unsigned> channel = {});
    // The same with data-out, 1..raw_bytes_max bytes that stay where they are until it is answered. If the connection
    // is lost, nobody knows whether a command that repeat_rule() does not allow to repeat was carried out: path_lost.
    void prepare_raw_out(Unit& unit, const scsi::Cdb& cdb, std::span<const std::byte> data,
                         OperationListener& listener);

    // After either of them: somebody has asked for this command. It waits while the unit is looked at, as I/O does,
    // uses no credit of others'. Aborted when given up or unanswered after `time_limit`; zero: as a read. One that
    // `changes` the unit, or may do so, goes when no write is under way, and no write goes beside it; when nobody knows
    // its end none before a fence; and when it has ended none before a look. It counts as an acknowledged write.
    void mark_foreign(bool changes, Duration time_limit);
    // After either of them, of a command that does not wait for a look, and must not meet another unit than that look
    // has found: path_lost once something has happened since the stamp (UnitInfo::probed_at) that asks for another.
    void mark_only_for_unit_found_at(std::uint64_t stamp);
    // Of a raw operation whose outcome is ok, or a status: what came with it.
    [[nodiscard]] const initiator::CommandResult& raw_result() const { return parts_[0].command.result; }

    [[nodiscard]] OperationKind kind() const { return kind_; }
    [[nodiscard]] Unit& unit() const { return *unit_; }
    [[nodiscard]] const Outcome& outcome() const { return outcome_; }
    // Bytes read: exactly what was asked for, empty unless outcome().ok(). For raw: what the target sent.
    [[nodiscard]] std::span<const std::byte> data() const { return result_; }
    [[nodiscard]] std::uint64_t offset() const { return offset_; }
    [[nodiscard]] std::uint32_t bytes() const { return bytes_; }
    [[nodiscard]] bool answered() const { return stage_ == Stage::answered; }
    // A target has commands of it: of one that has been answered because it was given up, say.
    [[nodiscard]] bool is_in_flight() const { return parts_in_flight_ > 0; }
    // A read that has not been sent, or begins anew because its path was lost: whatever it brings is read from now on.
    [[nodiscard]] bool has_read_nothing() const {
        return kind_ == OperationKind::read && stage_ != Stage::answered && parts_in_flight_ == 0 && !buffer_;
    }
    // From within on_answered() of a foreign command: is let go of when none of its commands is in flight any more.
    void keep(std::shared_ptr<const void> token) { kept_ = std::move(token); }
    // Ends the listener's use of the operation, from within or after on_answered(). One that was never started goes
    // back to its pool.
    void release();

    // The caller's own mark (fs: which FUSE request this is). Not looked at here.
    std::uint64_t cookie = 0;

private:
    friend class Engine;
    friend class Unit;

    enum class Stage : std::uint8_t {
        idle,            // in the pool, or being prepared
        waiting_lock,    // for overlapping writes and ghosts to end
        waiting_memory,  // for a registered buffer
        waiting_path,    // for the unit to be released, the port to run, or for credit
        waiting_retry,   // for a back-off to end
        waiting_fence,   // for a LUN RESET: what was sent of it may still run, and it is to be sent again
        active,          // commands in flight, or about to be
        answered,        // the listener has been told; commands may still be in flight
    };
    enum class Phase : std::uint8_t { data, edge_read, flush };

    struct Part {  // one command's share of the operation
        initiator::Command command;
        // Engine::next_stamp() when its channel ended, or when the LUN RESET was sent that may have ended it; 0:
        // neither
        std::uint64_t lost_at = 0;
    };

    void prepare(Unit& unit, OperationKind kind, OperationListener& listener);
    void on_command_done(initiator::Command& command) override;
    [[nodiscard]] std::uint8_t bit_of(const Part& part) const {
        return static_cast<std::uint8_t>(1U << (&part - parts_.data()));
    }
    [[nodiscard]] bool is_in_flight(const Part& part) const { return (parts_in_flight_ & bit_of(part)) != 0; }
    [[nodiscard]] bool is_again(const Part& part) const { return (parts_again_ & bit_of(part)) != 0; }
    // Others may have to wait for what it does to the medium.
    [[nodiscard]] bool is_writer() const { return kind_ == OperationKind::write || changes_; }
    // Only looks, so it can begin anew at any time.
    [[nodiscard]] bool is_reader() const {
        return kind_ == OperationKind::read || (foreign_ && !changes_ && payload_.empty());
    }
    // Goes through while the unit is held.
    [[nodiscard]] bool is_probe() const { return kind_ == OperationKind::raw && !foreign_; }
    [[nodiscard]] bool is_waiting() const {
        return ListHook<QueueTag>::is_linked() || stage_ == Stage::waiting_retry || stage_ == Stage::waiting_fence;
    }

    Engine& engine_;
    Unit* unit_ = nullptr;
    OperationListener* listener_ = nullptr;

    OperationKind kind_ = OperationKind::read;
    Stage stage_ = Stage::idle;
    Phase phase_ = Phase::data;
    Durability durability_ = Durability::cached;
    std::optional<ZeroMethod> zeroes_;
    bool released_ = false;             // the listener is done with it
    bool answering_ = false;            // inside on_answered()
    bool interrupted_ = false;          // marked by INTERRUPT; answered after a grace period
    bool sent_ = false;                 // a write command of it has been submitted
    bool progressed_ = false;           // a read: some of its data has come
    bool unaligned_ = false;            // a write that begins or ends inside a block
    bool excludes_writes_ = false;      // past the lock, as an unaligned write or one that has lost a connection
    std::uint64_t unknown_since_ = 0;   // Part::lost_at of the last write command nobody knows the end of; 0: none
    std::uint8_t parts_in_flight_ = 0;  // a bit for each of parts_
    std::uint8_t parts_again_ = 0;      // those to be sent once more
    std::uint8_t retries_ = 0;          // that count against retries_max
    std::uint8_t attentions_ = 0;
    std::uint8_t backoffs_ = 0;
    std::uint8_t losses_ = 0;  // times a command of it was lost with its connection, or aborted
    std::uint64_t offset_ = 0;
    std::uint32_t bytes_ = 0;
    std::uint64_t first_block_ = 0;  // [first_block_, block_end_): what is touched, for locks and ghosts
    std::uint64_t block_end_ = 0;
    std::uint64_t next_block_ = 0;         // of the current phase: not yet submitted
    Instant retry_at_ = instant_never;     // waiting_retry: goes on then; waiting_lock, waiting_fence: gives up then
    Instant retry_until_ = instant_never;  // set at the first retry
    Instant loss_until_ = instant_never;   // set at the first loss
    Instant interrupt_at_ = instant_never;
    Instant started_at_{};  // as of the turn in which it came
    Outcome outcome_{};
    Outcome failure_{};  // the first failure of a part; the others are waited for
    std::span<const std::byte> result_{};
    Buffer* buffer_ = nullptr;        // registered: read destination, adopted intake buffer, or entry_
    Buffer* entry_ = nullptr;         // the memory of the caller's entry, if it has lent that
    std::span<std::byte> payload_{};  // write data: in buffer_ or in parking memory
    std::byte* parked_ = nullptr;     // memory that is not registered: parking memory of this operation, or
    bool parked_in_entry_ = false;    // that of the caller's entry
    EdgeBuffers* edges_ = nullptr;
    std::uint8_t wanted_class_ = 0;  // of memory, while waiting_memory
    scsi::Cdb raw_cdb_{};
    std::optional<unsigned> raw_channel_;
    bool foreign_ = false, changes_ = false;  // see mark_foreign()
    std::uint64_t raw_found_at_ = 0;          // see mark_only_for_unit_found_at(); 0: not marked
    Duration raw_time_limit_{};
    std::shared_ptr<const void> kept_;
    std::uint64_t flush_snapshot_ = 0;
    std::atomic<std::uint64_t>* losses_seen_ = nullptr;  // of whoever flushes
    std::uint64_t losses_before_ = 0;                    // UnitCounters::write_losses when a write began
    bool wrote_past_cache_ = true;                       // all that was written so far, with FUA
    std::uint64_t cache_losses_seen_ = 0;                // of the unit when a write began
    std::array<Part, commands_max> parts_{};
};

}  // namespace srpfs::lun
