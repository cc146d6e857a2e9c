// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "logical_ends.h"

#include "open_files.h"

#include <srpfs/lun/unit.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace srpfs::fs {

bool are_same_unit(const LunData& one, const LunData& other) {
    if (&one == &other) return true;
    const lun::Unit* const unit = one.unit.load(std::memory_order_relaxed);
    const lun::Unit* const others = other.unit.load(std::memory_order_relaxed);
    return unit && others && unit->shares_blocks_with(*others);
}

void RangeSet::add(lun::ByteRange range) {
    if (range.empty()) return;
    auto next = ends_.upper_bound(range.begin);
    if (next != ends_.begin()) {
        const auto before = std::prev(next);
        if (before->second >= range.begin) {
            range = {before->first, std::max(range.end, before->second)};
            next = ends_.erase(before);
        }
    }
    while (next != ends_.end() && next->first <= range.end) {
        range.end = std::max(range.end, next->second);
        next = ends_.erase(next);
    }
    ends_.emplace(range.begin, range.end);
}

void RangeSet::remove_below(std::uint64_t offset) {
    while (!ends_.empty() && ends_.begin()->first < offset) {
        const std::uint64_t end = ends_.begin()->second;
        ends_.erase(ends_.begin());
        if (end > offset) ends_.emplace(offset, end);
    }
}

void RangeSet::remove_from(std::uint64_t offset) {
    ends_.erase(ends_.lower_bound(offset), ends_.end());
    if (!ends_.empty()) std::prev(ends_.end())->second = std::min(std::prev(ends_.end())->second, offset);
}

std::vector<lun::ByteRange> RangeSet::take(lun::ByteRange range) {
    std::vector<lun::ByteRange> taken;
    if (range.empty()) return taken;
    auto next = ends_.upper_bound(range.begin);
    if (next != ends_.begin() && std::prev(next)->second > range.begin) --next;
    while (next != ends_.end() && next->first < range.end) {
        const lun::ByteRange whole{next->first, next->second};
        next = ends_.erase(next);
        taken.push_back({std::max(whole.begin, range.begin), std::min(whole.end, range.end)});
        if (whole.begin < range.begin) ends_.emplace(whole.begin, range.begin);
        if (whole.end > range.end) ends_.emplace(range.end, whole.end);
    }
    return taken;
}

lun::ByteRange RangeSet::hull() const {
    return ends_.empty() ? lun::ByteRange{} : lun::ByteRange{ends_.begin()->first, std::prev(ends_.end())->second};
}

lun::ByteRange RangeSet::last() const { return {std::prev(ends_.end())->first, std::prev(ends_.end())->second}; }

std::uint64_t RangeSet::run_end(std::uint64_t offset) const {
    const auto next = ends_.upper_bound(offset);
    return next == ends_.begin() ? offset : std::max(offset, std::prev(next)->second);
}

std::vector<lun::ByteRange> RangeSet::missing_in(lun::ByteRange range) const {
    std::vector<lun::ByteRange> missing;
    for (auto next = ends_.begin(); next != ends_.end() && !range.empty(); ++next) {
        if (next->second <= range.begin) continue;
        if (next->first >= range.end) break;
        if (next->first > range.begin) missing.push_back({range.begin, next->first});
        range.begin = next->second;
    }
    if (!range.empty()) missing.push_back(range);
    return missing;
}

std::optional<std::uint64_t> LogicalEnds::end_of(std::uint64_t handle) const {
    const auto writer = writers_.find(handle);
    if (writer == writers_.end()) return std::nullopt;
    return writer->second.end;
}

std::vector<lun::ByteRange> LogicalEnds::to_zero(std::uint64_t handle, std::uint64_t end) const {
    const auto writer = writers_.find(handle);
    if (writer == writers_.end()) return {};
    return writer->second.written.missing_in({writer->second.whole, end});
}

std::uint64_t LogicalEnds::unknown_from(std::uint64_t handle) const {
    const auto writer = writers_.find(handle);
    return writer == writers_.end() ? UINT64_MAX : writer->second.unknown_from;
}

void LogicalEnds::cut(std::uint64_t handle, const LunData* lun, std::uint64_t end) {
    const auto [writer, is_new] =
        writers_.try_emplace(handle, Writer{.lun = lun, .end = end, .whole = end, .written = {}});
    writer->second.end = std::min(writer->second.end, end);
    writer->second.whole = std::min(writer->second.whole, end);
    writer->second.written.remove_from(end);  // a file forgets it
    if (writer->second.unknown_from >= end) writer->second.unknown_from = UINT64_MAX;
}

void LogicalEnds::advance(std::uint64_t handle, std::uint64_t end) {
    const auto writer = writers_.find(handle);
    if (writer != writers_.end()) writer->second.end = std::max(writer->second.end, end);
}

void LogicalEnds::add(Writer& writer, lun::ByteRange range) {
    writer.written.add({std::max(range.begin, writer.whole), range.end});
    writer.whole = writer.written.run_end(writer.whole);
    writer.written.remove_below(writer.whole);
    if (writer.written.size() <= pieces_max) return;
    // The last one: whoever goes on needs the first ones before.
    writer.unknown_from = std::min(writer.unknown_from, writer.written.last().begin);
    writer.written.remove_from(writer.unknown_from);
}

void LogicalEnds::note_written(const LunData* lun, lun::ByteRange range, std::uint64_t handle) {
    for (auto& [number, writer] : writers_) {
        if (!are_same_unit(*writer.lun, *lun)) continue;
        add(writer, range);
        if (number == handle) writer.end = std::max(writer.end, range.end);
    }
}

void LogicalEnds::note_zeroed(std::uint64_t handle, lun::ByteRange range) {
    if (const auto writer = writers_.find(handle); writer != writers_.end()) add(writer->second, range);
}

void LogicalEnds::forget(std::uint64_t handle) { writers_.erase(handle); }

void LogicalEnds::forget_file(const LunData* lun) {
    std::erase_if(writers_, [lun](const auto& one) { return one.second.lun == lun; });
}

bool LogicalEnds::first_zeroing(std::uint64_t handle) {
    const auto writer = writers_.find(handle);
    return writer != writers_.end() && !std::exchange(writer->second.zeroing_told, true);
}

bool LogicalEnds::first_refusal(std::uint64_t handle) {
    const auto writer = writers_.find(handle);
    return writer != writers_.end() && !std::exchange(writer->second.refusal_told, true);
}

}  // namespace srpfs::fs
