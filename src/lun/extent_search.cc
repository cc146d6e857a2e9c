// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/lun/extent_search.h>

#include <srpfs/base/assert.h>
#include <srpfs/lun/engine.h>

#include <algorithm>
#include <utility>

namespace srpfs::lun {
namespace {

constexpr std::uint32_t answer_bytes = 4096;  // 255 extents

}  // namespace

ExtentSearch::ExtentSearch(Unit& unit, std::uint64_t offset, Sought sought,
                           std::function<void(OutcomeKind, std::uint64_t)> on_done)
    : unit_(unit), info_(unit.info()), held_at_(unit.held_at()), offset_(offset), sought_(sought),
      on_done_(std::move(on_done)), next_(offset) {}

ExtentSearch::~ExtentSearch() { SRPFS_ASSERT(operation_ == nullptr); }

void ExtentSearch::start() {
    // While the unit is looked at, another one may answer.
    if (unit_.state() != UnitState::running || !info_->tells_holes || !unit_.tells_holes()) return found_data(offset_);
    ask();
}

void ExtentSearch::interrupt() {
    if (operation_) unit_.interrupt(*operation_);
}

void ExtentSearch::ask() {
    operation_ = commands_++ < commands_max ? unit_.engine().take() : nullptr;
    if (!operation_) return found_data(next_);
    operation_->prepare_raw(unit_, scsi::get_lba_status(next_ / info_->block_bytes, answer_bytes), answer_bytes, *this);
    unit_.start(*operation_);
}

void ExtentSearch::on_answered(Operation& operation) {
    const Outcome outcome = operation.outcome();
    const auto extents = outcome.ok() ? scsi::parse_lba_status(operation.data(), next_ / info_->block_bytes)
                                      : std::vector<scsi::LbaExtent>{};
    operation_ = nullptr;
    operation.release();
    if (outcome.kind == OutcomeKind::interrupted ||
        (outcome.kind == OutcomeKind::gone && outcome.status == scsi::Status::good))
        return fail(outcome.kind);
    if (outcome.kind == OutcomeKind::illegal_request) unit_.note_tells_no_holes();
    // What was told may have been another unit's, or about what is not true any more.
    if (unit_.state() != UnitState::running || unit_.held_at() != held_at_ || unit_.info() != info_)
        return found_data(offset_);
    if (extents.empty()) return found_data(next_);
    for (const scsi::LbaExtent& extent : extents) {
        if (extent.is_mapped == (sought_ == Sought::data))
            return found(std::max(offset_, extent.lba * info_->block_bytes));
        if (extent.lba + extent.blocks >= info_->blocks) return found(info_->capacity_bytes());
        next_ = (extent.lba + extent.blocks) * info_->block_bytes;
    }
    ask();
}

// Nothing is known from there on.
void ExtentSearch::found_data(std::uint64_t offset) {
    found(sought_ == Sought::data ? offset : info_->capacity_bytes());
}

void ExtentSearch::found(std::uint64_t offset) {
    const auto on_done = std::move(on_done_);
    on_done(OutcomeKind::ok, offset);
}

void ExtentSearch::fail(OutcomeKind kind) {
    const auto on_done = std::move(on_done_);
    on_done(kind, 0);
}

}  // namespace srpfs::lun
