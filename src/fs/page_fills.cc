// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "page_fills.h"

#include "open_files.h"

#include <srpfs/base/assert.h>
#include <srpfs/base/log.h>

#include <algorithm>
#include <utility>

#include <unistd.h>

namespace srpfs::fs {
namespace {

// A defect on purpose, for the simulation to find (src/lun/canary.h): nobody waits for pages to go.
#ifdef SRPFS_CANARY_OLD_PAGE
constexpr bool forgets_pages = true;
#else
constexpr bool forgets_pages = false;
#endif

constexpr lun::ByteRange whole_file{0, UINT64_MAX};
constexpr std::size_t pieces_max = 64;  // of what is kept, to be dropped at once

lun::ByteRange whole_pages(lun::ByteRange range) {
    static const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
    const std::uint64_t end = range.end > UINT64_MAX - page ? UINT64_MAX : (range.end + page - 1) / page * page;
    return {range.begin / page * page, end};
}

std::uint64_t bytes_below(std::uint64_t end, lun::ByteRange range) {
    return std::max(std::min(range.end, end), range.begin) - range.begin;
}

}  // namespace

std::uint64_t PageFills::begin(const LunData& lun, NodeId node, lun::ByteRange range, Stay stay) {
    auto file = std::find_if(files_.begin(), files_.end(),
                             [&](const File& one) { return one.node == node && one.lun == &lun; });
    if (file == files_.end())
        file = files_.insert(file, {.node = node,
                                    .lun = &lun,
                                    .serial = ++numbers_,
                                    .filling = {},
                                    .kept = {},
                                    .young = {},
                                    .old = {},
                                    .dropping = {}});
    ++numbers_;
    file->filling.push_back({numbers_, whole_pages(range), stay == Stay::until_changed, numbers_});
    ++counters_.fills;
    if (stay == Stay::until_changed) ++counters_.fills_cached;
    return numbers_;
}

bool PageFills::end_fill(std::uint64_t number, bool has_pages) {
    for (File& file : files_) {
        const auto fill = std::find_if(file.filling.begin(), file.filling.end(),
                                       [&](const Fill& one) { return one.number == number; });
        if (fill == file.filling.end()) continue;
        if (has_pages && fill->keeps) {
            file.kept.add(fill->range);
            bound(file.kept);
        } else if (has_pages) {
            add(file.young, {fill->since, fill->range});
            arm_tick();
        }
        file.filling.erase(fill);
        is_urgent_ = is_urgent_ || file.waits > 0;
        return true;
    }
    return false;
}

void PageFills::answered(std::uint64_t fill) {
    const bool is_known = end_fill(fill, true);
    SRPFS_ASSERT(is_known || left_);
}

void PageFills::arm_tick() {
    if (!tick_.armed() && !is_due_) tick_.arm_after(tick);
}

void PageFills::let_go(File& file, lun::ByteRange range) {
    for (Fill& fill : file.filling)
        if (overlap(fill.range, range)) fill.keeps = false;
    if (file.kept.empty()) return;
    const auto taken = file.kept.take(range);
    // Their numbers do not matter: all of them are older than what goes on now. Many small ones become one.
    if (taken.size() > pieces_max)
        add(file.old, {0, {taken.front().begin, taken.back().end}});
    else
        for (const lun::ByteRange& one : taken) add(file.old, {0, one});
    if (taken.empty()) return;
    bound(file.kept);  // what was one may be two
    arm_tick();
}

// Too many ranges become one: what was not kept is dropped in vain.
void PageFills::bound(RangeSet& kept) {
    if (kept.size() > kept_max) kept.add(kept.hull());
}

void PageFills::drop_file(const LunData* lun) {
    for (File& file : files_)
        if (file.lun == lun) let_go(file, whole_file);
}

void PageFills::failed(std::uint64_t fill) {
    const bool is_known = end_fill(fill, false);
    SRPFS_ASSERT(is_known || left_);
    end_waits();
}

void PageFills::end_waits() {
    std::vector<std::uint64_t> over;
    for (const Wait& wait : waits_)
        if (std::none_of(wait.files.begin(), wait.files.end(), [&](std::uint64_t serial) {
                const File* const file = file_of(serial);
                return file && keeps_waiting(*file, wait);
            }))
            over.push_back(wait.number);
    for (const std::uint64_t number : over) give_up(number);
    tidy();
}

// Neighbours are put together, so that a file that is read from its beginning to its end is a few ranges.
void PageFills::add(std::vector<Pages>& all, const Pages& pages) {
    for (Pages& one : all)
        if (pages.range.begin <= one.range.end && one.range.begin <= pages.range.end) {
            one.range = {std::min(one.range.begin, pages.range.begin), std::max(one.range.end, pages.range.end)};
            one.oldest = std::min(one.oldest, pages.oldest);
            return;
        }
    if (all.size() < ranges_max) return all.push_back(pages);
    std::uint64_t oldest = pages.oldest;
    for (const Pages& one : all) oldest = std::min(oldest, one.oldest);
    all.assign(1, {oldest, whole_file});
}

void PageFills::renew(File& file, const Wait& wait) {
    for (Fill& fill : file.filling)
        if (fill.since <= wait.number && overlap(fill.range, wait.range) && host_.has_read_nothing(fill.number))
            fill.since = ++numbers_;
}

bool PageFills::keeps_waiting(const File& file, const Wait& wait) {
    if (std::any_of(file.filling.begin(), file.filling.end(),
                    [&](const Fill& one) { return one.since <= wait.number && overlap(one.range, wait.range); }))
        return true;
    for (const auto* pages : {&file.young, &file.old, &file.dropping})
        if (std::any_of(pages->begin(), pages->end(),
                        [&](const Pages& one) { return one.oldest <= wait.number && overlap(one.range, wait.range); }))
            return true;
    return false;
}

PageFills::File* PageFills::file_of(std::uint64_t serial) {
    const auto file = std::find_if(files_.begin(), files_.end(), [&](const File& one) { return one.serial == serial; });
    return file == files_.end() ? nullptr : &*file;
}

std::uint64_t PageFills::wait(const LunData& lun, lun::ByteRange range, std::function<void()> done) {
    if (forgets_pages || left_) return 0;
    Wait wait{.number = ++numbers_, .range = whole_pages(range), .files = {}, .done = nullptr, .since = timers_.now()};
    for (File& file : files_) {
        if (file.lun && !are_same_unit(*file.lun, lun)) continue;
        let_go(file, wait.range);
        renew(file, wait);
        if (!keeps_waiting(file, wait)) continue;
        wait.files.push_back(file.serial);
        ++file.waits;
        is_urgent_ = true;
    }
    if (wait.files.empty()) return 0;
    const std::uint64_t number = wait.number;  // fills that begin from now on have larger ones
    wait.done = std::move(done);
    if (wait.done) ++counters_.waits;
    waits_.push_back(std::move(wait));
    if (!late_.armed()) late_.arm_after(patience);
    return number;
}

void PageFills::give_up(std::uint64_t number) {
    const auto wait = std::find_if(waits_.begin(), waits_.end(), [&](const Wait& one) { return one.number == number; });
    if (wait == waits_.end()) return;
    end(wait);
    tidy();
}

void PageFills::end(std::list<Wait>::iterator place) {
    Wait wait = std::move(*place);
    waits_.erase(place);
    for (const std::uint64_t serial : wait.files)
        if (File* const file = file_of(serial)) --file->waits;
    if (!wait.done) return;
    counters_.wait_latency.add(timers_.now() - wait.since);
    wait.done();  // may begin and end others
}

void PageFills::drop(File& file, bool young_too) {
    if (file.ticket != 0) return;
    std::vector<Pages> wanted = std::move(file.old);
    file.old.clear();
    if (young_too) {
        for (const Pages& pages : file.young) add(wanted, pages);
        file.young.clear();
    }
    if (wanted.empty()) return;
    RangeSet filling;
    for (const Fill& fill : file.filling) filling.add(fill.range);
    std::vector<lun::ByteRange> ranges;
    for (const Pages& pages : wanted) {
        RangeSet goes;
        for (const lun::ByteRange& range : filling.missing_in(pages.range)) {
            ranges.push_back(range);
            file.dropping.push_back({pages.oldest, range});
            goes.add(range);
        }
        for (const lun::ByteRange& range : goes.missing_in(pages.range)) add(file.old, {pages.oldest, range});
    }
    if (ranges.empty()) return;
    file.ticket = ++numbers_;
    file.dropping_since = timers_.now();
    if (!late_.armed()) late_.arm_after(patience);
    ++counters_.drops;
    counters_.drop_ranges += ranges.size();
    for (const lun::ByteRange& range : ranges)
        counters_.drop_bytes +=
            bytes_below(file.lun ? file.lun->capacity_bytes.load(std::memory_order_relaxed) : 0, range);
    host_.drop_pages(file.node, std::move(ranges), file.ticket);
}

void PageFills::send() {
    if (std::exchange(is_urgent_, false))
        for (File& file : files_)
            if (file.waits > 0) drop(file, true);
    if (!std::exchange(is_due_, false)) return;
    bool is_needed = false;
    for (File& file : files_) {
        drop(file, false);
        for (const Pages& pages : file.young) add(file.old, pages);
        file.young.clear();
        is_needed = is_needed || !file.old.empty();
    }
    if (is_needed) tick_.arm_after(tick);
}

void PageFills::dropped(std::uint64_t ticket) {
    if (left_) return;
    const auto file = std::find_if(files_.begin(), files_.end(), [&](const File& one) { return one.ticket == ticket; });
    SRPFS_ASSERT(file != files_.end());
    file->ticket = 0;
    file->dropping.clear();
    counters_.drop_latency.add(timers_.now() - file->dropping_since);
    if (file->waits == 0) return tidy();
    is_urgent_ = true;
    end_waits();
}

void PageFills::give_up_late() {
    // What they wait for may have lost its path meanwhile.
    for (const Wait& wait : waits_)
        for (const std::uint64_t serial : wait.files)
            if (File* const file = file_of(serial)) renew(*file, wait);
    end_waits();
    bool is_needed = !waits_.empty();
    std::vector<std::uint64_t> late;
    for (const File& file : files_) is_needed = is_needed || file.ticket != 0;
    for (const Wait& wait : waits_)
        if (std::any_of(wait.files.begin(), wait.files.end(), [this](std::uint64_t serial) {
                const File* const file = file_of(serial);
                return file && file->ticket != 0 && timers_.now() - file->dropping_since >= patience;
            })) {
            late.push_back(wait.number);
            if (wait.done) ++counters_.waits_given_up;
        }
    if (is_needed) late_.arm_after(patience);
    if (late.empty()) return;
    log::warning(
        "fuse",
        "the kernel has not dropped pages of a LUN file for {} s; {} writes are answered without waiting for it",
        std::chrono::duration_cast<std::chrono::seconds>(patience).count(), late.size());
    for (const std::uint64_t number : late) give_up(number);
}

void PageFills::forget_file(const LunData* lun) {
    for (File& file : files_)
        if (file.lun == lun) file.lun = nullptr;
}

void PageFills::leave() {
    left_ = true;
    tick_.disarm();
    late_.disarm();
    files_.clear();
    while (!waits_.empty()) end(waits_.begin());
}

void PageFills::tidy() {
    std::erase_if(files_, [](const File& file) { return file.is_over(); });
}

}  // namespace srpfs::fs
