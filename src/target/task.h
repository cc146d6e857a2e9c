// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// One received command (or task management request) being carried out. Taken from its portal's pool, one thread.

#pragma once

#include "logical_unit.h"
#include "staging.h"

#include <srpfs/base/intrusive_list.h>
#include <srpfs/reactor/timer_queue.h>
#include <srpfs/srp/srp.h>
#include <srpfs/target/behaviour.h>
#include <srpfs/target/block_store.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

namespace srpfs::target {

class Channel;
class PortalCore;

struct BelongingTag {};  // to a channel, or to the commands of ended channels
struct WaitingTag {};    // for staging memory, or for room in the send queue

// What an initiator waits for that sent ABORT TASK or LUN RESET. Counts what still has to come to rest, on all portals.
struct AbortJob {
    explicit AbortJob(std::function<void()> finish_) : finish(std::move(finish_)) {}
    ~AbortJob() { finish(); }  // the last one to let go ends it
    AbortJob(const AbortJob&) = delete;
    AbortJob& operator=(const AbortJob&) = delete;
    const std::function<void()> finish;  // any thread
};

struct Task final : StoreIo, ListHook<BelongingTag>, ListHook<WaitingTag> {
    enum class Stage {
        idle,        // in the pool
        no_staging,  // waits for memory
        fetching,    // RDMA READs of data-out
        parked,      // delayed or held by the Behaviour, before the backend
        in_store,    // the store has it
        completing,  // done in the backend, delayed by the Behaviour
        sending,     // RDMA WRITEs of data-in; not all of them are posted
        answered,    // only RDMA WRITEs are still on their way; or aborted, and only RDMA READs are
    };
    enum class Work { tell, read, write, write_same, unmap, reserve, flush, nothing, task_management };

    explicit Task(PortalCore& portal);
    void on_store_done(StoreResult result) override;

    PortalCore& portal;
    Channel* channel = nullptr;  // nullptr: has ended
    Stage stage = Stage::idle;
    Work work = Work::nothing;

    // As received.
    srp::Tag tag = 0;
    scsi::Lun lun{};
    CdbBytes cdb{};
    srp::DataDirection direction = srp::DataDirection::none;
    std::vector<srp::Descriptor> descriptors;
    std::uint64_t data_bytes = 0;
    std::vector<std::byte> immediate;  // only while it waits for staging
    bool is_immediate = false;
    std::uint64_t crashes = 0;  // DeviceState::crashes when it was received

    // As understood.
    LogicalUnit* unit = nullptr;             // one of the portal's, as long as that has it
    std::shared_ptr<LogicalUnit> kept_unit;  // when it has not any more
    BlockRange range;
    std::uint64_t cdb_data_bytes = 0;  // what the CDB wants to move
    std::vector<BlockRange> unmap_ranges;
    std::size_t unmap_index = 0;

    // Data on its way.
    Staging::Buffer staging;
    std::uint64_t move_bytes = 0;   // between the initiator's memory and staging (or zeros)
    std::uint64_t moved_bytes = 0;  // posted
    std::size_t descriptor_index = 0;
    std::uint32_t descriptor_offset = 0;
    unsigned rdma_outstanding = 0;

    // The outcome.
    scsi::Status status = scsi::Status::good;
    std::optional<Failure> failure;
    std::optional<srp::TaskCode> task_code;
    bool is_silent = false;               // aborted: no response, the credit is owed
    std::shared_ptr<AbortJob> abort_job;  // lets go of it when it has come to rest

    bool has_plan = false;
    CommandPlan plan;
    reactor::Timer timer;  // parked, completing

    Task* next_idle = nullptr;  // in the pool

    inline void reset();  // as in the pool; keeps memory of vectors
    void reset_rare();
};

}  // namespace srpfs::target
