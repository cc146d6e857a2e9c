// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "zero_jobs.h"

#include "errno_map.h"

#include <srpfs/base/assert.h>
#include <srpfs/base/log.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace srpfs::fs {
namespace {

// A defect on purpose, for the simulation to find (src/lun/canary.h): what one user has written behind the end of
// another one's file is zeroed when that one goes on.
#ifdef SRPFS_CANARY_ZEROED_WRITE
constexpr bool forgets_writes = true;
#else
constexpr bool forgets_writes = false;
#endif

}  // namespace

ZeroJobs::~ZeroJobs() { SRPFS_ASSERT(jobs_.empty()); }

bool ZeroJobs::take_write(std::uint64_t handle, LunData& lun, lun::ByteRange range, lun::Durability durability,
                          const ReplyTo& to, const std::function<std::vector<std::byte>()>& copy) {
    for (Job& job : jobs_) {
        if (!are_same_unit(*job.lun, lun) || (job.handle != handle && !overlap(job.range, range))) continue;
        job.waiting.push_back({host_.on_waiting(to, &lun), copy()});
        return true;
    }
    if (auto gap = ends_.to_zero(handle, range.begin); !gap.empty()) {
        Job job{.handle = handle,
                .lun = &lun,
                .range = {gap.front().begin, gap.back().end},
                .record = host_.on_waiting(to, &lun),
                .zeroing = nullptr,
                .on_end = nullptr,
                .waiting = {},
                .precedes_write = true};
        // The write itself goes on once the end has moved up to it.
        job.on_end = [this, handle, begin = range.begin, record = job.record, request = copy()](int error) {
            if (error == 0) ends_.advance(handle, begin);
            const ReplyTo reply_to = host_.on_waited(record);
            if (error == 0 && !left_)
                host_.serve_for(reply_to, request);
            else
                host_.on_zeroed(reply_to, error != 0 ? error : EINTR);
        };
        tell(handle, lun, gap);
        start(std::move(job), std::move(gap), false, durability);
        return true;
    }
    if constexpr (!forgets_writes) ends_.note_written(&lun, range);
    ends_.advance(handle, range.end);
    return false;
}

void ZeroJobs::zero(std::uint64_t handle, LunData& lun, lun::ByteRange range, bool deallocates, bool moves_end,
                    const ReplyTo& to) {
    const auto end = moves_end ? ends_.end_of(handle) : std::nullopt;
    const bool grows = end && *end < range.end;
    std::vector<lun::ByteRange> ranges;
    if (grows && *end < range.begin) ranges = ends_.to_zero(handle, range.begin);
    ranges.push_back(range);
    Job job{.handle = grows ? handle : 0,
            .lun = &lun,
            .range = {std::min(ranges.front().begin, range.begin), range.end},
            .record = host_.on_waiting(to, &lun),
            .zeroing = nullptr,
            .on_end = nullptr,
            .waiting = {},
            .pages = 0};
    job.on_end = [this, handle, range, grows, &lun, record = job.record](int error) {
        if (error == 0) {
            ends_.note_written(&lun, range);
            if (grows) ends_.advance(handle, range.end);
        }
        host_.on_zeroed(host_.on_waited(record), error);
    };
    start(std::move(job), std::move(ranges), deallocates);
}

void ZeroJobs::extend(std::uint64_t handle, LunData& lun, std::uint64_t end, const ReplyTo& to) {
    auto gap = ends_.to_zero(handle, end);
    if (gap.empty()) {
        ends_.advance(handle, end);
        return host_.on_zeroed(to, 0);
    }
    Job job{.handle = handle,
            .lun = &lun,
            .range = {gap.front().begin, end},
            .record = host_.on_waiting(to, &lun),
            .zeroing = nullptr,
            .on_end = nullptr,
            .waiting = {},
            .pages = 0};
    job.on_end = [this, handle, end, record = job.record](int error) {
        if (error == 0) ends_.advance(handle, end);
        host_.on_zeroed(host_.on_waited(record), error);
    };
    tell(handle, lun, gap);
    start(std::move(job), std::move(gap), false);
}

void ZeroJobs::truncate(std::uint64_t handle, LunData& lun, std::uint64_t end, const ReplyTo& to,
                        std::function<void(int)> on_done) {
    if (left_) return on_done(EINTR);
    const auto now = ends_.end_of(handle);
    if (!now || end <= *now) {
        ends_.cut(handle, &lun, end);
        return on_done(0);
    }
    auto gap = ends_.to_zero(handle, end);
    Job job{.handle = handle,
            .lun = &lun,
            .range = {*now, end},
            .record = host_.on_waiting(to, &lun),
            .zeroing = nullptr,
            .on_end = nullptr,
            .waiting = {},
            .pages = 0};
    job.on_end = [this, handle, end, record = job.record, on_done = std::move(on_done)](int error) {
        if (error == 0) ends_.advance(handle, end);
        host_.on_waited(record);
        on_done(error);
    };
    tell(handle, lun, gap);
    start(std::move(job), std::move(gap), false);
}

// Old data is overwritten that nobody has named: worth a line, once for each open.
void ZeroJobs::tell(std::uint64_t handle, const LunData& lun, const std::vector<lun::ByteRange>& ranges) {
    const lun::Unit* unit = lun.unit.load(std::memory_order_relaxed);
    if (!unit || ranges.empty() || !ends_.first_zeroing(handle)) return;
    log::info(unit->link().name(),
              "{}: a truncated file is written with holes; they become zeros, the first at {} of {} bytes",
              unit->lun().file_name(), ranges.front().begin, ranges.front().end - ranges.front().begin);
}

void ZeroJobs::start(Job job, std::vector<lun::ByteRange> ranges, bool deallocates, lun::Durability durability) {
    lun::Unit* const unit = job.lun->unit.load(std::memory_order_relaxed);
    const auto place = jobs_.insert(jobs_.end(), std::move(job));
    if (!unit || left_) return end(place, {.kind = lun::OutcomeKind::gone});
    place->zeroing = std::make_unique<lun::Zeroing>(
        *unit, std::move(ranges), deallocates,
        [this, place](const lun::Outcome& outcome) { on_zeroed(place, outcome); }, durability);
    place->zeroing->start();
}

void ZeroJobs::on_zeroed(std::list<Job>::iterator place, const lun::Outcome& outcome) {
    const auto over = std::move(place->zeroing);  // it is calling us, and looks at nothing of its own any more
    const auto end_now = [this, place, outcome] {
        // A write that has not begun does not begin any more.
        const bool is_over = place->is_interrupted && place->precedes_write;
        end(place, is_over ? lun::Outcome{.kind = lun::OutcomeKind::interrupted} : outcome);
    };
    // Some of it may be zeros whatever has become of it. Who has been killed does not wait for that.
    if (place->is_interrupted)
        (void)host_.wait_for_pages(*place->lun, place->range, [] {});
    else
        place->pages = host_.wait_for_pages(*place->lun, place->range, end_now);
    if (place->pages == 0) end_now();
}

void ZeroJobs::end(std::list<Job>::iterator place, const lun::Outcome& outcome) {
    Job job = std::move(*place);
    jobs_.erase(place);
    const int error = errno_of(outcome, lun::OperationKind::write);
    job.on_end(error);
    for (Waiting& one : job.waiting) {
        const ReplyTo to = host_.on_waited(one.record);
        if (left_)
            host_.on_zeroed(to, EINTR);
        else
            host_.serve_for(to, one.request);
    }
}

void ZeroJobs::interrupt(std::uint32_t record) {
    for (Job& job : jobs_) {
        if (job.record == record) {
            job.is_interrupted = true;
            if (job.zeroing)
                job.zeroing->interrupt();
            else if (job.pages != 0)
                host_.give_up_pages(job.pages);
            return;
        }
        const auto waiting = std::find_if(job.waiting.begin(), job.waiting.end(),
                                          [&](const Waiting& one) { return one.record == record; });
        if (waiting == job.waiting.end()) continue;
        job.waiting.erase(waiting);
        host_.on_zeroed(host_.on_waited(record), EINTR);
        return;
    }
}

void ZeroJobs::leave() {
    left_ = true;
    std::vector<lun::Zeroing*> all;
    for (Job& job : jobs_)
        if (job.zeroing) all.push_back(job.zeroing.get());
    for (lun::Zeroing* zeroing : all)
        if (std::any_of(jobs_.begin(), jobs_.end(), [&](const Job& job) { return job.zeroing.get() == zeroing; }))
            zeroing->interrupt();
}

}  // namespace srpfs::fs
