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

std::optional<std::uint64_t> ZeroJobs::take_write(std::uint64_t handle, LunData& lun, lun::ByteRange range,
                                                  lun::Durability durability, const ReplyTo& to,
                                                  const Incoming& request) {
    if (!job_before(handle, lun, range) && gap_below(handle, range.begin).empty())
        return begin_write(handle, lun, range);
    auto parked = host_.park(lun, request, *this);
    if (!parked) {
        host_.on_zeroed(to, EIO);
        return std::nullopt;
    }
    // Others may have failed for that, and what there was to wait for may have ended.
    if (Job* const job = job_before(handle, lun, range)) {
        job->waiting.push_back({&lun, host_.on_waiting(to, &lun), std::move(parked)});
        return std::nullopt;
    }
    const auto gap = gap_below(handle, range.begin);
    if (gap.empty()) return begin_write(handle, lun, range);
    Job job = new_job(handle, lun, to);
    job.gap_end = range.begin;
    job.durability = durability;
    job.write = std::move(parked);  // goes on once nothing is missing before it
    tell(handle, lun, gap);
    start_gap(std::move(job));
    return std::nullopt;
}

// The first one that a write has to wait for; nullptr: none.
ZeroJobs::Job* ZeroJobs::job_before(std::uint64_t handle, const LunData& lun, lun::ByteRange range) {
    for (Job& job : jobs_)
        if (are_same_unit(*job.lun, lun) && (job.handle == handle || overlap(job.range, range))) return &job;
    return nullptr;
}

std::uint64_t ZeroJobs::begin_write(std::uint64_t handle, LunData& lun, lun::ByteRange range) {
    writes_.emplace(++last_write_, Write{.handle = handle, .lun = &lun, .range = range});
    return last_write_;
}

void ZeroJobs::end_write(std::uint64_t write, bool succeeded) {
    const auto place = writes_.find(write);
    SRPFS_ASSERT(place != writes_.end());
    const Write ended = place->second;
    writes_.erase(place);
    if (!succeeded) return;
    if constexpr (forgets_writes) {
        ends_.note_zeroed(ended.handle, ended.range);
        ends_.advance(ended.handle, ended.range.end);
    } else {
        ends_.note_written(ended.lun, ended.range, ended.handle);
    }
}

void ZeroJobs::go_on() {
    for (auto job = jobs_.begin(); job != jobs_.end();) {
        // Whoever is answered may begin and end others.
        if (job->waits_for_writes && start_zeroing_gap(job))
            job = jobs_.begin();
        else
            ++job;
    }
}

// Without what the handle itself is writing: a write that fails says so, and leaves a hole that is found later. One of
// another handle would leave it unsaid.
std::vector<lun::ByteRange> ZeroJobs::gap_below(std::uint64_t handle, std::uint64_t end) const {
    auto gap = ends_.to_zero(handle, end);
    if (gap.empty()) return gap;
    RangeSet own;
    for (const auto& [number, write] : writes_)
        if (write.handle == handle) own.add(write.range);
    if (own.empty()) return gap;
    std::vector<lun::ByteRange> left;
    for (const lun::ByteRange& range : gap) {
        const auto missing = own.missing_in(range);
        left.insert(left.end(), missing.begin(), missing.end());
    }
    return left;
}

ZeroJobs::Job ZeroJobs::new_job(std::uint64_t handle, LunData& lun, const ReplyTo& to) {
    return {.handle = handle,
            .lun = &lun,
            .range = {},
            .record = host_.on_waiting(to, &lun),
            .zeroing = nullptr,
            .on_end = nullptr,
            .waiting = {}};
}

void ZeroJobs::zero(std::uint64_t handle, LunData& lun, lun::ByteRange range, bool deallocates, bool moves_end,
                    lun::Durability durability, const ReplyTo& to) {
    const auto end = moves_end ? ends_.end_of(handle) : std::nullopt;
    const bool grows = end && *end < range.end;
    if (grows && !gap_below(handle, range.begin).empty())
        return zero_gap(handle, lun, range.begin, durability, to,
                        [this, handle, &lun, range, deallocates, durability, to](int error, bool is_interrupted) {
                            if (error == 0 && !is_interrupted)
                                zero(handle, lun, range, deallocates, true, durability, to);
                            else
                                host_.on_zeroed(to, error != 0 ? error : EINTR);
                        });
    Job job = new_job(grows ? handle : 0, lun, to);
    job.range = range;
    job.durability = durability;
    job.on_end = [this, handle, range, grows, &lun, record = job.record](int error, bool) {
        if (error == 0) {
            // Who has cut the file meanwhile has done it after this.
            const bool moves = grows && gap_below(handle, range.begin).empty();
            ends_.note_written(&lun, range, moves ? handle : 0);
            host_.on_zeroes_written(lun);
        }
        host_.on_zeroed(host_.on_waited(record), error);
    };
    start_zeroing(jobs_.insert(jobs_.end(), std::move(job)), {range}, deallocates);
}

// Until nothing is missing: a write may fail meanwhile. Who is interrupted when nothing is has what he wanted.
void ZeroJobs::zero_gap(std::uint64_t handle, LunData& lun, std::uint64_t end, lun::Durability durability,
                        const ReplyTo& to, std::function<void(int, bool)> on_done) {
    const auto gap = gap_below(handle, end);
    if (gap.empty()) return on_done(0, false);
    Job job = new_job(handle, lun, to);
    job.gap_end = end;
    job.durability = durability;
    job.on_end = [this, handle, &lun, end, durability, to, on_done = std::move(on_done), record = job.record](
                     int error, bool is_interrupted) {
        if (error != 0 || left_)
            on_done(error != 0 ? error : EINTR, is_interrupted);
        else if (is_interrupted)
            on_done(gap_below(handle, end).empty() ? 0 : EINTR, true);
        else
            zero_gap(handle, lun, end, durability, to, on_done);
        host_.on_waited(record);  // last, as the unit's data stays until then
    };
    tell(handle, lun, gap);
    start_gap(std::move(job));
}

void ZeroJobs::extend(std::uint64_t handle, LunData& lun, std::uint64_t end, lun::Durability durability,
                      const ReplyTo& to) {
    zero_gap(handle, lun, end, durability, to, [this, handle, end, to](int error, bool) {
        if (error == 0) ends_.advance(handle, end);
        host_.on_zeroed(to, error);
    });
}

void ZeroJobs::truncate(std::uint64_t handle, LunData& lun, std::uint64_t end, lun::Durability durability,
                        const ReplyTo& to, std::function<void(int)> on_done) {
    if (left_) return on_done(EINTR);
    const auto now = ends_.end_of(handle);
    if (!now || end <= *now) {
        ends_.cut(handle, &lun, end);
        // io_submit(2) holds no lock of the kernel's until a write has ended: such a one may come before or after.
        for (auto& [number, write] : writes_)
            if (write.handle == handle) write.handle = 0;
    }
    // Also of what remains: a write of it may have failed.
    zero_gap(handle, lun, end, durability, to, [this, handle, end, on_done = std::move(on_done)](int error, bool) {
        if (error == 0) ends_.advance(handle, end);
        on_done(error);
    });
}

// Old data is overwritten that nobody has named: worth a line, once for each open.
void ZeroJobs::tell(std::uint64_t handle, const LunData& lun, const std::vector<lun::ByteRange>& ranges) {
    const lun::Unit* unit = lun.unit.load(std::memory_order_relaxed);
    if (!unit || ranges.empty() || !ends_.first_zeroing(handle)) return;
    log::info(unit->link().name(),
              "{}: a truncated file is written with holes; they become zeros, the first at {} of {} bytes",
              unit->lun().file_name(), ranges.front().begin, ranges.front().end - ranges.front().begin);
}

void ZeroJobs::tell_refusal(std::uint64_t handle, const LunData& lun) {
    const lun::Unit* unit = lun.unit.load(std::memory_order_relaxed);
    if (!unit || !ends_.first_refusal(handle)) return;
    log::warning(unit->link().name(),
                 "{}: a truncated file is written with holes beyond byte {}, where others have written in more than {} "
                 "places, which are not remembered any more: that fails until it is opened or truncated anew",
                 unit->lun().file_name(), ends_.unknown_from(handle), LogicalEnds::pieces_max);
}

void ZeroJobs::start_gap(Job job) {
    const auto place = jobs_.insert(jobs_.end(), std::move(job));
    place->waits_for_writes = true;
    (void)start_zeroing_gap(place);
}

// False: it has to wait for writes of others, and no more of them begin. Zeros could destroy what they have written,
// and if they fail there would be none.
bool ZeroJobs::start_zeroing_gap(std::list<Job>::iterator place) {
    auto ranges = gap_below(place->handle, place->gap_end);
    if (ranges.empty()) {
        end(place, {});
        return true;
    }
    if (ranges.back().end > ends_.unknown_from(place->handle)) {
        tell_refusal(place->handle, *place->lun);
        end(place, {.kind = lun::OutcomeKind::out_of_memory});
        return true;
    }
    place->range = {ranges.front().begin, ranges.back().end};
    for (const auto& [number, write] : writes_) {
        if (write.handle == place->handle || !are_same_unit(*write.lun, *place->lun)) continue;
        if (std::any_of(ranges.begin(), ranges.end(),
                        [&write = write](const lun::ByteRange& range) { return overlap(range, write.range); }))
            return false;
    }
    place->waits_for_writes = false;
    place->gap = ranges;
    start_zeroing(place, std::move(ranges), false);
    return true;
}

void ZeroJobs::start_zeroing(std::list<Job>::iterator place, std::vector<lun::ByteRange> ranges, bool deallocates) {
    lun::Unit* const unit = place->lun->unit.load(std::memory_order_relaxed);
    if (!unit || left_) return end(place, {.kind = lun::OutcomeKind::gone});
    place->zeroing = std::make_unique<lun::Zeroing>(
        *unit, std::move(ranges), deallocates,
        [this, place](const lun::Outcome& outcome) { on_zeroed(place, outcome); }, place->durability);
    place->zeroing->start();
}

void ZeroJobs::on_zeroed(std::list<Job>::iterator place, const lun::Outcome& outcome) {
    const auto over = std::move(place->zeroing);  // it is calling us, and looks at nothing of its own any more
    const auto end_now = [this, place, outcome](bool is_interrupted) {
        if (outcome.ok())
            for (const lun::ByteRange& range : place->gap) ends_.note_zeroed(place->handle, range);
        end(place, outcome.ok() && is_interrupted ? lun::Outcome{.kind = lun::OutcomeKind::interrupted} : outcome);
    };
    // Some of it may be zeros whatever has become of it. Who has been interrupted does not wait for that, and is not
    // told of a success that others may not see yet; a write that has not begun does not begin any more.
    if (place->is_interrupted) {
        const bool may_be_old = host_.wait_for_pages(*place->lun, place->range, [] {}) != 0;
        return end_now(may_be_old || place->write);
    }
    place->pages =
        host_.wait_for_pages(*place->lun, place->range, [place, end_now] { end_now(place->is_interrupted); });
    if (place->pages == 0) end_now(false);
}

void ZeroJobs::end(std::list<Job>::iterator place, const lun::Outcome& outcome) {
    Job job = std::move(*place);
    jobs_.erase(place);
    const int error = errno_of(outcome, lun::OperationKind::write);
    if (job.write)
        go_on_with({job.lun, job.record, std::move(job.write)}, error);
    else
        job.on_end(error, job.is_interrupted);
    for (Waiting& one : job.waiting) go_on_with(std::move(one), 0);
}

void ZeroJobs::go_on_with(Waiting waiting, int error) {
    waiting.request->stop_counting();
    const ReplyTo to = host_.on_waited(waiting.record);
    if (waiting.request->bytes().empty())
        host_.on_zeroed(to, EIO);
    else if (error != 0 || left_)
        host_.on_zeroed(to, error != 0 ? error : EINTR);
    else
        host_.serve_for(to, waiting.request->bytes());
}

void ZeroJobs::on_shed() {
    if (!std::exchange(some_are_shed_, true)) host_.on_shed();
}

// What is zeroed for one of them goes on, and it is answered then: nothing of it changes the unit after its answer.
void ZeroJobs::end_shed() {
    some_are_shed_ = false;
    const auto is_shed = [](const auto& request) { return request->bytes().empty(); };
    fail_waiting(EIO, [&](const Waiting& one) { return is_shed(one.request); });
    end_waiting_jobs(lun::OutcomeKind::interrupted, [&](const Job& job) { return job.write && is_shed(job.write); });
}

void ZeroJobs::end_waiting(const LunData* lun) {
    fail_waiting(ENODEV, [&](const Waiting& one) { return one.lun == lun; });
    end_waiting_jobs(lun::OutcomeKind::gone, [&](const Job& job) { return job.lun == lun; });
}

void ZeroJobs::fail_waiting(int error, const std::function<bool(const Waiting&)>& which) {
    std::vector<std::uint32_t> records;
    for (Job& job : jobs_)
        std::erase_if(job.waiting, [&](const Waiting& one) {
            if (!which(one)) return false;
            records.push_back(one.record);
            return true;
        });
    for (const std::uint32_t record : records) host_.on_zeroed(host_.on_waited(record), error);
}

// Of those that wait for writes, and have begun nothing.
void ZeroJobs::end_waiting_jobs(lun::OutcomeKind kind, const std::function<bool(const Job&)>& which) {
    for (auto job = jobs_.begin(); job != jobs_.end();) {
        // Whoever is answered may begin and end others.
        if (job->waits_for_writes && which(*job)) {
            end(job, {.kind = kind});
            job = jobs_.begin();
        } else {
            ++job;
        }
    }
}

void ZeroJobs::interrupt(std::uint32_t record) {
    for (auto place = jobs_.begin(); place != jobs_.end(); ++place) {
        Job& job = *place;
        if (job.record == record) {
            job.is_interrupted = true;
            if (job.zeroing)
                job.zeroing->interrupt();
            else if (job.waits_for_writes)
                end(place, {.kind = lun::OutcomeKind::interrupted});
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
    end_waiting_jobs(lun::OutcomeKind::interrupted, [](const Job&) { return true; });
}

}  // namespace srpfs::fs
