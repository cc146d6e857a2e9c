// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/lun/probe.h>

#include <srpfs/base/log.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <set>

namespace srpfs::lun {
namespace {

constexpr std::uint16_t inquiry_bytes = 96;
constexpr std::uint16_t vpd_bytes = 1024;
constexpr std::uint32_t capacity_bytes = 32;
constexpr std::uint8_t mode_bytes = 192;
constexpr std::uint32_t report_luns_bytes = 16384;  // 2047 units; asked again when there are more
constexpr auto idle_check = std::chrono::milliseconds(50);
constexpr unsigned units_max = 8000;
constexpr unsigned repetitions_max = 5;  // of one unit's questions

std::string failure_text(const char* what, const Outcome& outcome) {
    if (outcome.status == scsi::Status::check_condition)
        return fmt::format("{}: {}", what, scsi::describe(outcome.sense));
    return fmt::format("{}: {}", what, scsi::describe(outcome.status));
}

}  // namespace

class Scan final : public std::enable_shared_from_this<Scan>, private OperationListener, private UnitListener {
public:
    Scan(Engine& engine, initiator::TargetLink& link, std::function<void(Result<ScanReport>)> on_done)
        : engine_(engine), link_(link), on_done_(std::move(on_done)),
          deadline_(engine.timers(), [this] { on_deadline(); }),
          idle_timer_(engine.timers(), [this] { end_when_idle(); }), next_timer_(engine.timers(), [this] { next(); }) {}

    void start(Duration time_limit) {
        self_ = shared_from_this();
        deadline_.arm_after(time_limit);
        unit_ = std::make_unique<Unit>(engine_, link_, scsi::Lun{}, 1, as_unit_listener());
        step_ = Step::report_luns;
        next_timer_.arm_after(Duration::zero());
    }

    void cancel() {
        on_done_ = nullptr;
        finish();
    }

private:
    enum class Step : std::uint8_t {
        report_luns,
        inquiry,
        ready,
        vpd_supported,
        vpd_wwid,
        vpd_serial,
        vpd_limits,
        capacity_16,
        capacity_10,
        mode_6,
        mode_10,
        done
    };

    UnitListener& as_unit_listener() { return *this; }

    // ---- the steps ----

    void next() {
        if (finished_) return;
        operation_ = engine_.take();
        if (!operation_)
            return fail(Error(ENOMEM, fmt::format("{}: too many requests to look for logical units", link_.name())));
        const auto ask = [&](const scsi::Cdb& cdb, std::uint32_t bytes) {
            operation_->prepare_raw(*unit_, cdb, bytes, *this);
            unit_->start(*operation_);
        };
        switch (step_) {
            case Step::report_luns: return ask(scsi::report_luns(report_bytes_), report_bytes_);
            case Step::inquiry: return ask(scsi::inquiry(inquiry_bytes), inquiry_bytes);
            case Step::ready: return ask(scsi::test_unit_ready(), 0);
            case Step::vpd_supported: return ask(scsi::inquiry_vpd(0x00, vpd_bytes), vpd_bytes);
            case Step::vpd_wwid: return ask(scsi::inquiry_vpd(0x83, vpd_bytes), vpd_bytes);
            case Step::vpd_serial: return ask(scsi::inquiry_vpd(0x80, vpd_bytes), vpd_bytes);
            case Step::vpd_limits: return ask(scsi::inquiry_vpd(0xb0, vpd_bytes), vpd_bytes);
            case Step::capacity_16: return ask(scsi::read_capacity_16(capacity_bytes), capacity_bytes);
            case Step::capacity_10: return ask(scsi::read_capacity_10(), 8);
            case Step::mode_6: return ask(scsi::mode_sense_6(0x08, mode_bytes), mode_bytes);
            case Step::mode_10: return ask(scsi::mode_sense_10(0x08, mode_bytes), mode_bytes);
            case Step::done: return;
        }
    }

    void on_answered(Operation& operation) override {
        const Outcome outcome = operation.outcome();
        const std::vector<std::byte> data(operation.data().begin(), operation.data().end());
        operation_ = nullptr;
        operation.release();
        if (finished_) return;
        if (outcome.kind == OutcomeKind::path_lost ||
            (outcome.kind == OutcomeKind::gone && outcome.status == scsi::Status::good))
            return fail(Error(
                ENOTCONN, fmt::format("{}: the connection was lost while looking for logical units", link_.name())));
        take_in(outcome, data);
        if (!finished_) next_timer_.arm_after(Duration::zero());  // in a turn of its own: not from within an answer
    }

    void take_in(const Outcome& outcome, std::span<const std::byte> data) {
        switch (step_) {
            case Step::report_luns: return on_report_luns(outcome, data);
            case Step::inquiry: return on_inquiry(outcome, data);
            case Step::ready:
                // Not being ready is not the end: capacity and identity may still be told.
                step_ = Step::vpd_supported;
                return;
            case Step::vpd_supported: {
                if (!is_told(outcome)) return skip(failure_text("INQUIRY (list of VPD pages) failed", outcome));
                if (outcome.ok() && is_cut(data, 4, 2)) return skip("unusable answer to INQUIRY (list of VPD pages)");
                pages_.clear();
                if (outcome.ok())
                    if (const auto pages = scsi::parse_vpd_supported(data)) pages_.insert(pages->begin(), pages->end());
                step_ = has_page(0x83)   ? Step::vpd_wwid
                        : has_page(0x80) ? Step::vpd_serial
                        : has_page(0xb0) ? Step::vpd_limits
                                         : Step::capacity_16;
                return;
            }
            case Step::vpd_wwid:
                // No identity because of a passing error would look like another unit.
                if (!is_told(outcome)) return skip(failure_text("INQUIRY (VPD page 83h) failed", outcome));
                if (outcome.ok() && is_cut(data, 4, 2)) return skip("unusable answer to INQUIRY (VPD page 83h)");
                if (outcome.ok()) info_.wwid = scsi::parse_vpd_wwid(data).value_or(std::string{});
                step_ = has_page(0x80) ? Step::vpd_serial : has_page(0xb0) ? Step::vpd_limits : Step::capacity_16;
                return;
            case Step::vpd_serial:
                if (!is_told(outcome)) return skip(failure_text("INQUIRY (VPD page 80h) failed", outcome));
                if (outcome.ok() && is_cut(data, 4, 2)) return skip("unusable answer to INQUIRY (VPD page 80h)");
                if (outcome.ok()) info_.serial = scsi::parse_vpd_serial(data).value_or(std::string{});
                step_ = has_page(0xb0) ? Step::vpd_limits : Step::capacity_16;
                return;
            case Step::vpd_limits:
                // A limit that is not known would make every larger transfer fail.
                if (!is_told(outcome)) return skip(failure_text("INQUIRY (VPD page B0h) failed", outcome));
                if (outcome.ok() && is_cut(data, 4, 2)) return skip("unusable answer to INQUIRY (VPD page B0h)");
                if (outcome.ok())
                    if (const auto limits = scsi::parse_vpd_block_limits(data)) {
                        info_.transfer_blocks_max = limits->transfer_blocks_max;
                        info_.transfer_blocks_optimal = limits->transfer_blocks_optimal;
                    }
                step_ = Step::capacity_16;
                return;
            case Step::capacity_16:
                if (outcome.ok()) {
                    if (const auto capacity = scsi::parse_read_capacity_16(data)) return on_capacity(*capacity);
                } else if (outcome.kind != OutcomeKind::illegal_request) {
                    return skip(failure_text("READ CAPACITY failed", outcome));
                }
                step_ = Step::capacity_10;
                return;
            case Step::capacity_10: {
                if (!outcome.ok()) return skip(failure_text("READ CAPACITY failed", outcome));
                const auto capacity = scsi::parse_read_capacity_10(data);
                if (!capacity || capacity->needs_16) return skip("READ CAPACITY gives no usable capacity");
                return on_capacity(capacity->capacity);
            }
            case Step::mode_6:
                if (outcome.ok() && !is_cut(data, 1, 0, 1))
                    if (const auto mode = scsi::parse_mode_sense_6(data)) return on_mode(*mode);
                step_ = Step::mode_10;
                return;
            case Step::mode_10:
                if (outcome.ok() && !is_cut(data, 2, 0))
                    if (const auto mode = scsi::parse_mode_sense_10(data)) return on_mode(*mode);
                // Nothing known about a cache. Assume there is one: a flush too many harms nothing.
                return on_mode({.write_protected = false, .fua_supported = false, .write_cache_enabled = true});
            case Step::done: return;
        }
    }

    // The target has answered: with data, or that there are none.
    [[nodiscard]] static bool is_told(const Outcome& outcome) {
        return outcome.ok() || outcome.kind == OutcomeKind::illegal_request;
    }
    // Less arrived than the data says of itself: `length_at` is where its length stands (`length_bytes` wide), counted
    // from byte `head` on. Believing it could lose a unit's identity, or its write cache.
    [[nodiscard]] static bool is_cut(std::span<const std::byte> data, std::size_t head, std::size_t length_at,
                                     std::size_t length_bytes = 2) {
        if (data.size() < head) return true;
        ByteReader in(data.subspan(length_at));
        const std::size_t length = length_bytes == 1 ? in.u8() : in.u16();
        return length > data.size() - head && data.size() < mode_bytes;
    }
    [[nodiscard]] bool has_page(std::uint8_t page) const { return pages_.contains(page); }

    void on_report_luns(const Outcome& outcome, std::span<const std::byte> data) {
        std::set<scsi::Lun> found;
        if (outcome.ok()) {
            const auto list = scsi::parse_report_luns(data);
            if (!list) return fail(Error(EPROTO, fmt::format("{}: unusable answer to REPORT LUNS", link_.name())));
            if (list->bytes_needed > report_bytes_ && report_bytes_ < Operation::raw_bytes_max) {
                report_bytes_ = std::min<std::uint32_t>(list->bytes_needed, Operation::raw_bytes_max);
                return;  // once more
            }
            // Units that are only missing in the answer must not vanish.
            if (list->bytes_needed <= report_bytes_ && list->bytes_needed > data.size())
                return fail(Error(EPROTO, fmt::format("{}: the answer to REPORT LUNS is cut short", link_.name())));
            found.insert(list->luns.begin(), list->luns.end());
        } else if (outcome.kind == OutcomeKind::illegal_request) {
            found.insert(scsi::Lun{});  // targets without REPORT LUNS have unit 0
        } else {
            return fail(Error(EIO, fmt::format("{}: {}", link_.name(), failure_text("REPORT LUNS failed", outcome))));
        }
        for (const scsi::Lun& lun : found)
            if (luns_.size() < units_max) luns_.push_back(lun);
        next_unit();
    }

    void next_unit() {
        if (position_ == luns_.size()) return succeed();
        unit_to_bury_ = std::move(unit_);  // not from within its own answer
        unit_ = std::make_unique<Unit>(engine_, link_, luns_[position_], 1, as_unit_listener());
        info_ = {};
        info_.lun = luns_[position_];
        info_.probed_at = engine_.next_stamp();
        pages_.clear();
        step_ = Step::inquiry;
    }

    void report(UnitReport report) {
        // What was told before an attention may have been another unit's.
        if (std::exchange(changed_, false) && repetitions_ < repetitions_max) {
            ++repetitions_;
            return next_unit();
        }
        repetitions_ = 0;
        report.lun = luns_[position_];
        found_.units.push_back(std::move(report));
        ++position_;
        next_unit();
    }
    void skip(std::string problem) {
        report({.lun = {}, .info = nullptr, .problem = std::move(problem), .present = true});
    }

    void on_inquiry(const Outcome& outcome, std::span<const std::byte> data) {
        if (outcome.kind == OutcomeKind::gone)
            return report({.lun = {}, .info = nullptr, .problem = "no such logical unit", .present = false});
        if (!outcome.ok()) return skip(failure_text("INQUIRY failed", outcome));
        const auto inquiry = scsi::parse_inquiry(data);
        if (!inquiry) return skip("unusable answer to INQUIRY");
        if (inquiry->peripheral_qualifier != 0 || inquiry->device_type == 0x1f)
            return report(
                {.lun = {}, .info = nullptr, .problem = "nothing is connected at this address", .present = false});
        if (!inquiry->is_disk())
            return skip(fmt::format("not a disk (peripheral device type {:02x}h)", inquiry->device_type));
        info_.vendor = inquiry->vendor;
        info_.model = inquiry->product;
        info_.revision = inquiry->revision;
        step_ = Step::ready;
    }

    void on_capacity(const scsi::Capacity& capacity) {
        if (capacity.blocks == 0) return skip("has no blocks");
        if (capacity.block_bytes > edge_block_bytes_max)
            return skip(fmt::format("has blocks of {} bytes; at most {} are supported", capacity.block_bytes,
                                    edge_block_bytes_max));
        if (capacity.blocks > std::uint64_t{INT64_MAX} / capacity.block_bytes)
            return skip("is larger than a file can be");
        info_.blocks = capacity.blocks;
        info_.block_bytes = capacity.block_bytes;
        info_.physical_block_bytes = std::max(capacity.physical_block_bytes, capacity.block_bytes);
        step_ = Step::mode_6;
    }

    void on_mode(const scsi::ModeCaching& mode) {
        info_.read_only = mode.write_protected;
        info_.write_cache = mode.write_cache_enabled;
        info_.fua = mode.fua_supported && mode.write_cache_enabled;
        if (info_.wwid.empty() && !info_.serial.empty())
            info_.wwid = fmt::format("t10.{}.{}.{}", info_.vendor, info_.model, info_.serial);
        report({.lun = {}, .info = std::make_shared<const UnitInfo>(info_), .problem = {}, .present = true});
    }

    // ---- the end ----

    void succeed() {
        if (!finished_) result_.emplace(std::move(found_));
        finish();
    }
    void fail(Error error) {
        if (!finished_) result_.emplace(std::move(error));
        finish();
    }
    void on_deadline() {
        fail(Error(ETIMEDOUT, fmt::format("{}: the target did not tell its logical units in time", link_.name())));
    }
    void finish() {
        if (std::exchange(finished_, true)) return;
        step_ = Step::done;
        deadline_.disarm();
        next_timer_.disarm();
        if (operation_) operation_->unit().interrupt(*operation_);
        idle_timer_.arm_after(Duration::zero());
    }
    void end_when_idle() {
        if (unit_to_bury_ && unit_to_bury_->is_idle()) unit_to_bury_.reset();
        if (unit_ && unit_->is_idle()) unit_.reset();
        if (unit_ || unit_to_bury_) return idle_timer_.arm_after(idle_check);
        // Only now: whoever is told may let go of the link.
        auto on_done = std::exchange(on_done_, nullptr);
        if (on_done && result_) on_done(std::move(*result_));
        engine_.executor().post([last = std::move(self_)] {});  // not from within our own timer
    }

    // Finding out is what we are doing; but the unit that has been known until now has to hear of it as well, and the
    // target says it only once.
    void on_attention(Unit& unit, const scsi::Sense& sense, bool hold) override {
        if (hold && step_ > Step::ready) changed_ = true;  // TEST UNIT READY takes those of before
        if (hold) link_.tell_event(unit.lun(), sense);
    }
    void on_fence_needed(Unit&) override {}  // a scan writes nothing
    void on_failure(Unit&, const Operation&) override {}

    Engine& engine_;
    initiator::TargetLink& link_;
    std::function<void(Result<ScanReport>)> on_done_;
    std::shared_ptr<Scan> self_;
    Step step_ = Step::report_luns;
    bool finished_ = false;
    bool changed_ = false;  // the unit being looked at
    unsigned repetitions_ = 0;
    std::uint32_t report_bytes_ = report_luns_bytes;
    std::vector<scsi::Lun> luns_;
    std::size_t position_ = 0;
    std::set<std::uint8_t> pages_;
    UnitInfo info_;
    ScanReport found_;
    std::optional<Result<ScanReport>> result_;
    Operation* operation_ = nullptr;
    std::unique_ptr<Unit> unit_, unit_to_bury_;
    reactor::Timer deadline_, idle_timer_, next_timer_;
};

std::shared_ptr<Scan> start_scan(Engine& engine, initiator::TargetLink& link, Duration time_limit,
                                 std::function<void(Result<ScanReport>)> on_done) {
    auto scan = std::make_shared<Scan>(engine, link, std::move(on_done));
    scan->start(time_limit);
    return scan;
}

void cancel_scan(const std::shared_ptr<Scan>& scan) { scan->cancel(); }

}  // namespace srpfs::lun
