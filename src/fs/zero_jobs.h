// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Requests that have parts of a LUN zeroed before they are carried out, or answered: fallocate(2), ftruncate(2), and
// writes beyond the logical end of a truncated file (logical_ends.h). What depends on a job waits for it.

#pragma once

#include "intake.h"
#include "logical_ends.h"
#include "open_files.h"

#include <srpfs/lun/engine.h>
#include <srpfs/lun/zeroing.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <vector>

namespace srpfs::fs {

class ZeroJobsHost {
public:
    // Engine::park_request() of the unit of `lun`.
    virtual std::unique_ptr<lun::ParkedRequest> park(const LunData& lun, const Incoming& write,
                                                     lun::ParkedRequestOwner& owner) = 0;
    // A request waits: remembers it as one of `lun` that is not answered.
    virtual std::uint32_t on_waiting(const ReplyTo& to, LunData* lun) = 0;
    // It does not wait any more.
    virtual ReplyTo on_waited(std::uint32_t record) = 0;
    // Its answer; `error` is 0 or a positive errno value.
    virtual void on_zeroed(const ReplyTo& to, int error) = 0;
    // These bytes of `lun` have been changed: `done` follows once no page of the kernel's shows what was there before.
    // 0: at once, and `done` is not called.
    virtual std::uint64_t wait_for_pages(const LunData& lun, lun::ByteRange range, std::function<void()> done) = 0;
    virtual void give_up_pages(std::uint64_t wait) = 0;
    // Zeros that somebody has asked for are in `lun`.
    virtual void on_zeroes_written(LunData& lun) = 0;
    // It goes on as if it came now.
    virtual void serve_for(const ReplyTo& to, std::span<const std::byte> request) = 0;
    // Has ZeroJobs::end_shed() called, later.
    virtual void on_shed() = 0;

protected:
    ~ZeroJobsHost() = default;
};

// The reactor of the units.
class ZeroJobs final : private lun::ParkedRequestOwner {
public:
    explicit ZeroJobs(ZeroJobsHost& host) : host_(host) {}
    ~ZeroJobs();

    // Nobody has truncated anything, nothing is being zeroed: writes need not be shown to take_write().
    [[nodiscard]] bool idle() const { return jobs_.empty() && ends_.empty(); }
    // nullopt: the write waits, parked, and is served again later; what a durable write leaves out is as durable then.
    // Or there was no memory to park it, and it has been answered (EIO). Else it begins: its number, for end_write().
    [[nodiscard]] std::optional<std::uint64_t> take_write(std::uint64_t handle, LunData& lun, lun::ByteRange range,
                                                          lun::Durability durability, const ReplyTo& to,
                                                          const Incoming& request);
    // A write is under way that was not shown. Its number, never 0.
    [[nodiscard]] std::uint64_t begin_write(std::uint64_t handle, LunData& lun, lun::ByteRange range);
    // It has ended. What waited for that goes on with go_on(), which may call the host.
    void end_write(std::uint64_t write, bool succeeded);
    void go_on();
    // `range` is inside the unit.
    void zero(std::uint64_t handle, LunData& lun, lun::ByteRange range, bool deallocates, bool moves_end,
              lun::Durability durability, const ReplyTo& to);
    // fallocate() of mode 0: what a file had grown by reads as zeros.
    void extend(std::uint64_t handle, LunData& lun, std::uint64_t end, lun::Durability durability, const ReplyTo& to);
    // ftruncate(); `to` is only what an INTERRUPT of it names.
    void truncate(std::uint64_t handle, LunData& lun, std::uint64_t end, lun::Durability durability, const ReplyTo& to,
                  std::function<void(int)> on_done);
    void forget(std::uint64_t handle) { ends_.forget(handle); }
    void forget_file(const LunData* lun) { ends_.forget_file(lun); }
    void interrupt(std::uint32_t record);
    // Writes that have lost their parking memory fail; those whose gap is being zeroed once that is over.
    void end_shed();
    // The file is going: what of its requests waits for others' is not wanted any more (ENODEV).
    void end_waiting(const LunData* lun);
    // Everything that waits ends; what is under way in the unit comes to its end, and so do, by the host, waits for
    // pages.
    void leave();

private:
    struct Waiting {
        const LunData* lun;
        std::uint32_t record;
        std::unique_ptr<lun::ParkedRequest> request;
    };
    struct Job {
        std::uint64_t handle;  // whose logical end it moves; 0: nobody's
        LunData* lun;
        lun::ByteRange range;                                        // writes into it wait
        std::uint32_t record;                                        // the request that began it
        std::unique_ptr<lun::Zeroing> zeroing;                       // nullptr: it has come to its end
        std::function<void(int error, bool is_interrupted)> on_end;  // nullptr: of a write
        std::vector<Waiting> waiting;                                // in the order in which they came
        std::uint64_t gap_end = 0;             // of a gap: what the handle has not written below becomes zeros
        std::vector<lun::ByteRange> gap = {};  // what is being zeroed of that
        bool waits_for_writes = false;         // others' into the gap, which have to end before
        std::uint64_t pages = 0;               // what it waits for after its zeroing
        lun::Durability durability = lun::Durability::cached;  // of the zeros
        std::unique_ptr<lun::ParkedRequest> write = nullptr;   // the request is this WRITE, which has not begun
        bool is_interrupted = false;
    };
    struct Write {
        std::uint64_t handle;  // 0: nobody's who has truncated the file
        LunData* lun;
        lun::ByteRange range;
    };
    [[nodiscard]] std::vector<lun::ByteRange> gap_below(std::uint64_t handle, std::uint64_t end) const;
    void zero_gap(std::uint64_t handle, LunData& lun, std::uint64_t end, lun::Durability durability, const ReplyTo& to,
                  std::function<void(int error, bool is_interrupted)> on_done);
    [[nodiscard]] Job* job_before(std::uint64_t handle, const LunData& lun, lun::ByteRange range);
    [[nodiscard]] Job new_job(std::uint64_t handle, LunData& lun, const ReplyTo& to);
    void tell_refusal(std::uint64_t handle, const LunData& lun);
    void start_gap(Job job);
    bool start_zeroing_gap(std::list<Job>::iterator job);
    void start_zeroing(std::list<Job>::iterator job, std::vector<lun::ByteRange> ranges, bool deallocates);
    void on_zeroed(std::list<Job>::iterator job, const lun::Outcome& outcome);
    void end(std::list<Job>::iterator job, const lun::Outcome& outcome);
    void go_on_with(Waiting waiting, int error);
    void end_waiting_jobs(lun::OutcomeKind kind, const std::function<bool(const Job&)>& which);
    void fail_waiting(int error, const std::function<bool(const Waiting&)>& which);
    void on_shed() override;
    void tell(std::uint64_t handle, const LunData& lun, const std::vector<lun::ByteRange>& ranges);

    ZeroJobsHost& host_;
    LogicalEnds ends_;
    std::list<Job> jobs_;
    bool some_are_shed_ = false;             // end_shed() follows
    std::map<std::uint64_t, Write> writes_;  // under way, by number
    std::uint64_t last_write_ = 0;
    bool left_ = false;
};

}  // namespace srpfs::fs
