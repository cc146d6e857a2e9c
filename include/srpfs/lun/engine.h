// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What one reactor has for I/O: operations, registered buffers, parking memory. Everything is bounded and its bound
// is printed at start.

#pragma once

#include <srpfs/base/intrusive_list.h>
#include <srpfs/base/random.h>
#include <srpfs/base/result.h>
#include <srpfs/fabric/fabric.h>
#include <srpfs/lun/operation.h>
#include <srpfs/reactor/executor.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace srpfs::lun {

// FUSE requests are read into memory that starts this many bytes before a page boundary, so that the payload of a WRITE
// (after fuse_in_header and fuse_write_in, 40 + 40 bytes) is page aligned (fuse-performance 3.2).
inline constexpr std::size_t intake_header_bytes = 80;
inline constexpr std::size_t intake_payload_bytes_max = std::size_t{1} << 20;

struct EngineLimits {
    unsigned intake_buffers = 32;  // 1 MiB each, >= 3
    // Where small writes are copied to, so that the intake keeps its buffer, which is in the cache.
    unsigned write_buffers_4k = 256;
    // For those that would have to be parked.
    unsigned write_buffers_64k = 32;
    unsigned read_buffers_4k = 512;
    unsigned read_buffers_64k = 128;
    unsigned read_buffers_1m = 24;    // 1 MiB + 128 KiB each: room for the edge blocks
    unsigned edge_buffers = 64;       // 2 + 2 blocks of up to 4 KiB each: a read-modify-write in progress
    unsigned operations_max = 16384;  // requests being served or waiting
    unsigned entries = 0;             // places of a ring of requests, 1 MiB each; see Engine::entry()
    std::size_t park_bytes_max = std::size_t{256} << 20;  // payload of writes that wait (option park)
    // What entries take over from each other while a target may still reach what one of them had.
    [[nodiscard]] unsigned spare_slots() const { return entries == 0 ? 0 : std::max(4U, entries / 8); }
    // Registered bytes of all of the above (parking memory is not registered).
    [[nodiscard]] std::size_t registered_bytes() const;
};

inline constexpr std::uint32_t edge_block_bytes_max = 4096;  // the largest logical block of a unit that can be used

// A piece of registered memory.
struct Buffer : ListHook<QueueTag> {
    std::span<std::byte> bytes{};
    fabric::RegionId region{};
    std::uint8_t size_class = 0;
    bool detached = false;  // a slot that its entry has left behind: free when its operation is over
};

// Two blocks that a target may write (the old content of the first and last block of an unaligned write) and two that
// it may read (the new content).
struct EdgeBuffers : ListHook<QueueTag> {
    std::span<std::byte> old_head, old_tail, new_head, new_tail;
    fabric::RegionId region_old{}, region_new{};
};

struct BlockLocks;

class ParkedRequest;

class ParkedRequestOwner {
public:
    // Parking memory is needed by others, and bytes() of some requests are gone: they are to fail. Called from within
    // whatever makes room, so nothing may begin or end before it has returned.
    virtual void on_shed() = 0;

protected:
    ~ParkedRequestOwner() = default;
};

// A write that waits and has no operation yet: a copy of its request in parking memory. It is destroyed, or has
// stopped counting, before its unit goes.
class ParkedRequest : public ListHook<QueueTag> {
public:
    ~ParkedRequest() { stop_counting(); }
    // Empty: it has been shed.
    [[nodiscard]] std::span<const std::byte> bytes() const { return {memory_.get(), memory_ ? bytes_ : 0}; }
    // It goes on, and may want the room itself.
    void stop_counting();

private:
    friend class Engine;
    friend class Unit;
    ParkedRequest(Unit& unit, ParkedRequestOwner& owner, std::unique_ptr<std::byte[]> memory, std::size_t bytes,
                  std::size_t counted);
    void shed();

    Unit& unit_;
    ParkedRequestOwner& owner_;
    std::unique_ptr<std::byte[]> memory_;
    const std::size_t bytes_, counted_;
};

class EngineListener {
public:
    // Parking memory (or operations_max) was exhausted: `unit` had the largest share and lost `operations` requests
    // (decisions 11).
    virtual void on_parking_exhausted(Unit& unit, unsigned operations) = 0;

protected:
    ~EngineListener() = default;
};

// One reactor's thread, except the constructor. Outlives its units and operations.
class Engine {
public:
    // Maps the memory (not yet touched) and registers it with each of `fabrics`; RegionIds must come out equal, so the
    // same sequence of registrations has to be made on each (a fabric of its own kind counts for itself).
    static Result<std::unique_ptr<Engine>> create(const EngineLimits& limits, std::vector<fabric::Fabric*> fabrics,
                                                  reactor::Executor& executor, Random& random);
    ~Engine();  // no operation may be in use
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    void set_listener(EngineListener* listener);

    // An idle operation; nullptr when operations_max are in use and nobody could be made to give up one.
    [[nodiscard]] Operation* take();

    // Where the next FUSE request is to be read: intake_header_bytes + 1 MiB, payload page aligned. Always there.
    [[nodiscard]] std::span<std::byte> intake();
    // The request just read is a WRITE: gives its payload, the `payload_bytes` after the header, to `operation`. Takes
    // the buffer itself, and intake() is another one; or copies it: to a small buffer, or to parking memory when
    // buffers are short. False: no memory, even after making the unit with most parked bytes give up; answer EIO.
    [[nodiscard]] bool take_over_intake(Operation& operation, Unit& unit, std::uint32_t payload_bytes);

    // ---- other reactors ----
    // Has another thread look at the payload of the WRITE just read, until take_back(): in the buffer itself, and
    // intake() is another one, or in a small one. nullptr, and nothing has changed: buffers are short.
    [[nodiscard]] Buffer* lend_intake(std::uint32_t payload_bytes);
    void take_back(Buffer& buffer);
    // As take_over_intake(), of a payload that lies elsewhere and is copied.
    [[nodiscard]] bool take_copy_of(Operation& operation, Unit& unit, std::span<const std::byte> payload);

    // A copy of a WRITE, `head` and `data` one behind the other, of which `data` counts. nullptr: no memory, even after
    // making the unit with most parked bytes give up; answer EIO. Others' requests may have been answered meanwhile.
    [[nodiscard]] std::unique_ptr<ParkedRequest> park_request(Unit& unit, ParkedRequestOwner& owner,
                                                              std::span<const std::byte> head,
                                                              std::span<const std::byte> data);

    // ---- entries: requests that occupy their memory until they are answered (io_uring) ----
    [[nodiscard]] unsigned entries() const;
    // Where the data of a WRITE comes in and that of a READ goes out: the same address always, page aligned, 1 MiB.
    // What stands behind it is one of several slots of registered memory, so that it can be given to the next request
    // while a target may still reach that of an earlier one; or, while there is none to spare, other memory, from and
    // to which the data is copied.
    [[nodiscard]] std::span<std::byte> entry(unsigned index) const;
    // Before the operation is prepared. The first `payload_bytes` in the entry are what is to be written.
    void lend_entry_for_write(Operation& operation, Unit& unit, unsigned index, std::uint32_t payload_bytes);
    // Whole blocks are read straight into the entry.
    void lend_entry_for_read(Operation& operation, unsigned index);
    // Whether these bytes, of an operation's data(), are what stands at the beginning of entry().
    [[nodiscard]] bool is_in_entry(unsigned index, std::span<const std::byte> bytes) const;
    // The operation is answered, and the entry's memory about to be used for something else: makes sure that commands
    // of it that are still in flight do not reach it. What was in the entry is lost then.
    void take_entry_back(Operation& operation, unsigned index);

    // Operation::bytes_max of zeros that a target may read. Nobody writes there.
    [[nodiscard]] std::span<std::byte> zeros() const;
    [[nodiscard]] fabric::RegionId region_of_zeros() const;

    [[nodiscard]] reactor::TimerQueue& timers() { return executor_.timers(); }
    [[nodiscard]] reactor::Executor& executor() { return executor_; }
    [[nodiscard]] Random& random() { return random_; }
    // 1, 2, ...: orders what happens on this reactor, also within one turn.
    [[nodiscard]] std::uint64_t next_stamp() { return ++stamp_; }

    struct Usage {
        unsigned operations_in_use, intake_in_use, write_4k_in_use, write_64k_in_use, read_4k_in_use, read_64k_in_use,
            read_1m_in_use, edges_in_use;
        unsigned slots_detached;  // a target may still reach them, and their requests have been answered
        std::size_t parked_bytes;
    };
    [[nodiscard]] Usage usage() const;

private:
    friend class Operation;
    friend class ParkedRequest;
    friend class Unit;
    struct State;
    struct Share;
    Engine(reactor::Executor& executor, Random& random);

    // Memory for an operation: true at once, or false and the operation waits; Unit::on_memory() follows.
    [[nodiscard]] bool take_copy(Operation& operation, Unit& unit, std::span<const std::byte> payload,
                                 unsigned size_class);
    [[nodiscard]] bool acquire_read_buffer(Operation& operation, std::size_t bytes);
    [[nodiscard]] bool acquire_write_buffer(Operation& operation);
    [[nodiscard]] bool acquire_edges(Operation& operation);
    void release_memory(Operation& operation);
    void release_buffer(Operation& operation);
    void release_edges(Operation& operation);
    void release_slot(Buffer& slot);
    void show_in_entry(unsigned index, Buffer* slot);
    void stop_waiting(Operation& operation);
    void recycle(Operation& operation);
    std::shared_ptr<BlockLocks> locks_of(const std::string& identity);
    Share* join(Unit& unit);
    void leave(Unit& unit);
    void hand_out(unsigned size_class);
    void hand_out_edges();
    void tell_shed(Unit& unit, unsigned count);
    bool make_parking_room(std::size_t bytes);
    void count_parked(Unit& unit, std::size_t bytes);
    void uncount_parked(Unit& unit, std::size_t bytes);
    // The payload moves to parking memory, room for which has been made, and its buffer to whoever wants one. False: no
    // memory, nothing has changed.
    [[nodiscard]] bool park(Operation& operation);
    [[nodiscard]] bool park(Operation& operation, std::span<const std::byte> payload);

    reactor::Executor& executor_;
    Random& random_;
    std::uint64_t stamp_ = 1;  // 0 means none; the one before the first may be one as well
    std::unique_ptr<State> state_;
};

}  // namespace srpfs::lun
