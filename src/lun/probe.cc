// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/lun/probe.h>

#include <srpfs/base/log.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <set>

namespace srpfs::lun {
namespace {

constexpr std::uint16_t inquiry_bytes = 96;
constexpr std::uint16_t vpd_bytes = 1024;
constexpr std::uint32_t capacity_bytes = 32;
constexpr std::uint8_t mode_bytes = 192;
constexpr std::uint32_t report_luns_bytes = 16384;  // 2047 units; asked again when there are more
constexpr auto idle_check = std::chrono::milliseconds(50);
constexpr auto memory_check = std::chrono::milliseconds(5);
constexpr auto copies_patience = std::chrono::seconds(1);  // for the other channels' answers
constexpr unsigned copies_max = 64;                        // channels of a login
constexpr unsigned units_max = 8000;
constexpr unsigned repetitions_max = 5;  // of the questions when attentions come meanwhile; logins are not counted

std::string failure_text(const char* what, const Outcome& outcome) {
    if (outcome.status == scsi::Status::check_condition)
        return fmt::format("{}: {}", what, scsi::describe(outcome.sense));
    return fmt::format("{}: {}", what, scsi::describe(outcome.status));
}

// Asks one unit one thing after the other.
class Inquirer : private OperationListener, private UnitListener, private initiator::LinkListener {
public:
    Inquirer(Engine& engine, initiator::TargetLink& link, const scsi::Lun& lun)
        : engine_(engine), link_(link), unit_(engine, link, lun, copies_max, as_unit_listener()),
          next_timer_(engine.timers(), [this] { next(); }),
          patience_timer_(engine.timers(), [this] { interrupt_all(); }) {
        link_.attach(*this);
    }
    Inquirer(const Inquirer&) = delete;
    Inquirer& operator=(const Inquirer&) = delete;
    virtual ~Inquirer() { link_.detach(*this); }

    void start() { next_timer_.arm_after(Duration::zero()); }
    // Nothing is told any more. Destroy it when it is idle.
    void stop() {
        stopped_ = true;
        next_timer_.disarm();
        patience_timer_.disarm();
        interrupt_all();
    }
    [[nodiscard]] bool is_stopped() const { return stopped_; }
    [[nodiscard]] bool is_idle() const { return unit_.is_idle(); }
    [[nodiscard]] const scsi::Lun& lun() const { return unit_.lun(); }

protected:
    struct Question {
        scsi::Cdb cdb;
        std::uint32_t bytes;
        unsigned copies = 1;  // sent at once, each on another channel; the last answer counts
    };
    [[nodiscard]] virtual Question question() const = 0;
    virtual void on_told(const Outcome& outcome, std::span<const std::byte> data) = 0;
    virtual void on_path_lost() = 0;
    // Half of what has been told may be about another unit: it is worth nothing, and asked again. True: there is a
    // reason to do so. False: it may be told. nullopt: that has happened too often.
    [[nodiscard]] std::optional<bool> must_repeat() {
        const bool attention = std::exchange(attention_told_, false),
                   connection = std::exchange(connection_lost_, false);
        if (connection) return true;  // not for ever: the time is limited
        if (!attention) return false;
        if (repetitions_++ < repetitions_max) return true;
        return std::nullopt;
    }
    void forget_changes() { attention_told_ = connection_lost_ = false; }

    Engine& engine_;
    initiator::TargetLink& link_;

private:
    UnitListener& as_unit_listener() { return *this; }

    void interrupt_all() {
        for (Operation* operation : std::vector(operations_)) unit_.interrupt(*operation);
    }
    void next() {
        const Question asked = question();
        while (operations_.size() < std::min(asked.copies, copies_max)) {
            Operation* const operation = engine_.take();
            if (!operation) break;
            const auto channel = static_cast<unsigned>(operations_.size());
            operation->prepare_raw(unit_, asked.cdb, asked.bytes, *this,
                                   asked.copies > 1 ? std::optional(channel) : std::nullopt);
            operations_.push_back(operation);
        }
        if (operations_.empty()) return next_timer_.arm_after(memory_check);
        for (Operation* operation : std::vector(operations_)) unit_.start(*operation);
    }
    void on_answered(Operation& operation) override {
        const Outcome outcome = operation.outcome();
        const std::vector<std::byte> data(operation.data().begin(), operation.data().end());
        std::erase(operations_, &operation);
        operation.release();
        if (stopped_) return;
        if (outcome.kind == OutcomeKind::path_lost ||
            (outcome.kind == OutcomeKind::gone && outcome.status == scsi::Status::good))
            return on_path_lost();
        // A channel without a credit keeps nobody waiting for long.
        if (!operations_.empty()) {
            if (!patience_timer_.armed()) patience_timer_.arm_after(copies_patience);
            return;
        }
        patience_timer_.disarm();
        on_told(outcome, data);
        if (!stopped_) start();  // in a turn of its own: not from within an answer
    }
    void on_attention(Unit&, const scsi::Sense&, bool) override {}  // our unit tells the link of what it meets
    void on_link_event(const scsi::Lun& lun, const scsi::Sense& sense) override {
        if (sense.deferred || !lun.is_same_unit_as(unit_.lun())) return;
        if (sense.key != scsi::SenseKey::unit_attention || Unit::is_held_by(sense)) attention_told_ = true;
    }
    // What was asked over another connection may have been about another unit.
    void on_link_changed() override { connection_lost_ = true; }
    void on_link_ready() override {}
    void on_link_state(initiator::PortState) override {}
    void on_channel_lost(const initiator::Channel&) override {}
    void on_reset_sent(const scsi::Lun&) override {}
    void on_reset_over(const scsi::Lun&, bool) override {}
    void on_fence_needed(Unit&) override {}  // nothing is written
    void on_reset(Unit&) override {}
    void on_failure(Unit&, const Operation&) override {}

    bool stopped_ = false;
    bool attention_told_ = false, connection_lost_ = false;  // since the first question
    unsigned repetitions_ = 0;
    std::vector<Operation*> operations_;  // in flight
    Unit unit_;
    reactor::Timer next_timer_;
    reactor::Timer patience_timer_;
};

// What is this unit?
class Look final : public Inquirer {
public:
    // `on_report` and `on_lost` may stop it, but not destroy it.
    Look(Engine& engine, initiator::TargetLink& link, const scsi::Lun& lun, Duration time_limit,
         std::function<void(UnitReport)> on_report, std::function<void()> on_lost)
        : Inquirer(engine, link, lun), on_report_(std::move(on_report)), on_lost_(std::move(on_lost)),
          deadline_(engine.timers(), [this] { on_deadline(); }) {
        deadline_.arm_after(time_limit);
    }

private:
    enum class Step : std::uint8_t {
        ready,
        inquiry,
        vpd_supported,
        vpd_wwid,
        vpd_serial,
        vpd_limits,
        vpd_provisioning,
        capacity_16,
        capacity_10,
        mode_6,
        mode_10
    };

    [[nodiscard]] Question question() const override {
        switch (step_) {
            // To each nexus, and that is each channel, a target may tell the attentions of before.
            case Step::ready: return {scsi::test_unit_ready(), 0, std::max(1U, link_.live_channels())};
            case Step::inquiry: return {scsi::inquiry(inquiry_bytes), inquiry_bytes};
            case Step::vpd_supported: return {scsi::inquiry_vpd(0x00, vpd_bytes), vpd_bytes};
            case Step::vpd_wwid: return {scsi::inquiry_vpd(0x83, vpd_bytes), vpd_bytes};
            case Step::vpd_serial: return {scsi::inquiry_vpd(0x80, vpd_bytes), vpd_bytes};
            case Step::vpd_limits: return {scsi::inquiry_vpd(0xb0, vpd_bytes), vpd_bytes};
            case Step::vpd_provisioning: return {scsi::inquiry_vpd(0xb2, vpd_bytes), vpd_bytes};
            case Step::capacity_16: return {scsi::read_capacity_16(capacity_bytes), capacity_bytes};
            case Step::capacity_10: return {scsi::read_capacity_10(), 8};
            case Step::mode_6: return {scsi::mode_sense_6(0x08, mode_bytes), mode_bytes};
            case Step::mode_10: break;
        }
        return {scsi::mode_sense_10(0x08, mode_bytes), mode_bytes};
    }

    void on_told(const Outcome& outcome, std::span<const std::byte> data) override {
        switch (step_) {
            case Step::ready:
                // It takes the attentions of before; what is told from now on is what is there now. Not being ready is
                // not the end: capacity and identity may still be told.
                info_ = {};
                info_.lun = lun();
                info_.probed_at = asked_at_ = engine_.next_stamp();
                pages_.clear();
                forget_changes();
                step_ = Step::inquiry;
                return;
            case Step::inquiry: return on_inquiry(outcome, data);
            case Step::vpd_supported: {
                if (!is_told(outcome)) return skip(failure_text("INQUIRY (list of VPD pages) failed", outcome));
                if (outcome.ok() && is_cut(data, 4, 2)) return skip("unusable answer to INQUIRY (list of VPD pages)");
                pages_.clear();
                if (outcome.ok())
                    if (const auto pages = scsi::parse_vpd_supported(data)) pages_.insert(pages->begin(), pages->end());
                return next_page();
            }
            case Step::vpd_wwid:
                // No identity because of a passing error would look like another unit.
                if (!is_told(outcome)) return skip(failure_text("INQUIRY (VPD page 83h) failed", outcome));
                if (outcome.ok() && is_cut(data, 4, 2)) return skip("unusable answer to INQUIRY (VPD page 83h)");
                if (outcome.ok()) info_.wwid = scsi::parse_vpd_wwid(data).value_or(std::string{});
                return next_page();
            case Step::vpd_serial:
                if (!is_told(outcome)) return skip(failure_text("INQUIRY (VPD page 80h) failed", outcome));
                if (outcome.ok() && is_cut(data, 4, 2)) return skip("unusable answer to INQUIRY (VPD page 80h)");
                if (outcome.ok()) info_.serial = scsi::parse_vpd_serial(data).value_or(std::string{});
                return next_page();
            case Step::vpd_limits:
                // A limit that is not known would make every larger transfer fail.
                if (!is_told(outcome)) return skip(failure_text("INQUIRY (VPD page B0h) failed", outcome));
                if (outcome.ok() && is_cut(data, 4, 2)) return skip("unusable answer to INQUIRY (VPD page B0h)");
                if (outcome.ok())
                    if (const auto limits = scsi::parse_vpd_block_limits(data)) {
                        info_.transfer_blocks_max = limits->transfer_blocks_max;
                        info_.transfer_blocks_optimal = limits->transfer_blocks_optimal;
                        info_.write_same_blocks_max = static_cast<std::uint32_t>(
                            std::min<std::uint64_t>(limits->write_same_blocks_max, UINT32_MAX));
                        info_.deallocation_blocks = std::max(1U, limits->unmap_granularity_blocks);
                        info_.deallocation_first = limits->unmap_alignment % info_.deallocation_blocks;
                    }
                return next_page();
            case Step::vpd_provisioning:
                // Not known is not offered: zeros are written then.
                if (outcome.ok() && !is_cut(data, 4, 2))
                    if (const auto told = scsi::parse_vpd_provisioning(data)) {
                        info_.deallocates_to_zeros = told->write_same_unmaps;
                        info_.deallocates_to_zeros_by_10 = told->write_same_10_unmaps;
                    }
                return next_page();
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
        }
    }
    void on_path_lost() override {
        stop();
        deadline_.disarm();
        on_lost_();
    }
    void on_deadline() {
        asked_at_ = asked_at_ != 0 ? asked_at_ : engine_.next_stamp();
        forget_changes();
        report({.lun = {},
                .info = nullptr,
                .problem = "the unit did not tell in time what it is",
                .present = true,
                .answered = false});
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
    // The VPD pages in the order of Step, those that the unit has.
    void next_page() {
        static constexpr std::pair<std::uint8_t, Step> all[] = {
            {0x83, Step::vpd_wwid}, {0x80, Step::vpd_serial}, {0xb0, Step::vpd_limits}, {0xb2, Step::vpd_provisioning}};
        for (const auto& [page, step] : all)
            if (step > step_ && pages_.contains(page)) {
                step_ = step;
                return;
            }
        step_ = Step::capacity_16;
    }

    void report(UnitReport report) {
        const auto again = must_repeat();
        if (again == true) {
            step_ = Step::ready;
            return;
        }
        if (!again)
            report = {.lun = {},
                      .info = nullptr,
                      .problem = "the unit has changed again and again while it was looked at",
                      .present = true,
                      .answered = false};
        stop();
        deadline_.disarm();
        report.lun = lun();
        report.asked_at = asked_at_;
        on_report_(std::move(report));
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
        step_ = Step::vpd_supported;
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
        info_.tells_holes = capacity.provisioning_enabled && capacity.reads_zeros_after_unmap;
        info_.deallocates_to_zeros = info_.deallocates_to_zeros && info_.tells_holes;
        info_.deallocates_to_zeros_by_10 = info_.deallocates_to_zeros_by_10 && info_.tells_holes;
        info_.physical_block_bytes = std::max(capacity.physical_block_bytes, capacity.block_bytes);
        step_ = Step::mode_6;
    }

    void on_mode(const scsi::ModeCaching& mode) {
        info_.read_only = mode.write_protected;
        info_.write_cache = mode.write_cache_enabled;
        info_.fua = mode.fua_supported && mode.write_cache_enabled;
        info_.vpd_pages.assign(pages_.begin(), pages_.end());
        info_.wwid_is_serial = info_.wwid.empty() && !info_.serial.empty();
        if (info_.wwid_is_serial) info_.wwid = fmt::format("t10.{}.{}.{}", info_.vendor, info_.model, info_.serial);
        report({.lun = {}, .info = std::make_shared<const UnitInfo>(info_), .problem = {}, .present = true});
    }

    std::function<void(UnitReport)> on_report_;
    std::function<void()> on_lost_;
    Step step_ = Step::ready;
    std::set<std::uint8_t> pages_;
    UnitInfo info_;
    std::uint64_t asked_at_ = 0;
    reactor::Timer deadline_;
};

// Which units are there?
class ListQuestion final : public Inquirer {
public:
    // `on_list` and `on_failure` may stop it, but not destroy it.
    ListQuestion(Engine& engine, initiator::TargetLink& link, Duration time_limit,
                 std::function<void(std::vector<scsi::Lun>, std::uint64_t)> on_list,
                 std::function<void(Error)> on_failure)
        : Inquirer(engine, link, scsi::Lun{}), on_list_(std::move(on_list)), on_failure_(std::move(on_failure)),
          asked_at_(engine.next_stamp()), deadline_(engine.timers(), [this] {
              fail(
                  Error(ETIMEDOUT, fmt::format("{}: the target did not tell its logical units in time", link_.name())));
          }) {
        deadline_.arm_after(time_limit);
    }

private:
    [[nodiscard]] Question question() const override { return {scsi::report_luns(bytes_), bytes_}; }

    void on_told(const Outcome& outcome, std::span<const std::byte> data) override {
        const auto again = must_repeat();
        if (again == true) {
            asked_at_ = engine_.next_stamp();
            return;  // once more
        }
        if (!again)
            return fail(
                Error(EAGAIN, fmt::format("{}: the list of logical units has changed again and again", link_.name())));
        std::set<scsi::Lun> found;
        if (outcome.ok()) {
            const auto list = scsi::parse_report_luns(data);
            if (!list) return fail(Error(EPROTO, fmt::format("{}: unusable answer to REPORT LUNS", link_.name())));
            if (list->bytes_needed > bytes_ && bytes_ < Operation::raw_bytes_max) {
                bytes_ = std::min<std::uint32_t>(list->bytes_needed, Operation::raw_bytes_max);
                return;  // once more
            }
            // Units that are only missing in the answer must not vanish.
            if (list->bytes_needed <= bytes_ && list->bytes_needed > data.size())
                return fail(Error(EPROTO, fmt::format("{}: the answer to REPORT LUNS is cut short", link_.name())));
            found.insert(list->luns.begin(), list->luns.end());
        } else if (outcome.kind == OutcomeKind::illegal_request) {
            found.insert(scsi::Lun{});  // targets without REPORT LUNS have unit 0
        } else {
            return fail(Error(EIO, fmt::format("{}: {}", link_.name(), failure_text("REPORT LUNS failed", outcome))));
        }
        end();
        std::vector<scsi::Lun> luns(found.begin(), found.end());
        if (luns.size() > units_max) luns.resize(units_max);
        on_list_(std::move(luns), asked_at_);
    }
    void on_path_lost() override {
        fail(Error(ENOTCONN, fmt::format("{}: the connection was lost while looking for logical units", link_.name())));
    }
    void fail(Error error) {
        end();
        on_failure_(std::move(error));
    }
    void end() {
        stop();
        deadline_.disarm();
    }

    std::function<void(std::vector<scsi::Lun>, std::uint64_t)> on_list_;
    std::function<void(Error)> on_failure_;
    std::uint64_t asked_at_;
    std::uint32_t bytes_ = report_luns_bytes;
    reactor::Timer deadline_;
};

}  // namespace

class Probe final : public std::enable_shared_from_this<Probe> {
public:
    Probe(Engine& engine, initiator::TargetLink& link, ProbeListener& listener)
        : engine_(engine), link_(link), listener_(listener), idle_timer_(engine.timers(), [this] { end_when_idle(); }) {
    }

    void ask_for_list(Duration time_limit) {
        start(std::make_unique<ListQuestion>(
            engine_, link_, time_limit,
            [this](std::vector<scsi::Lun> luns, std::uint64_t asked_at) {
                if (finished_) return;
                listener_.on_list(std::move(luns), asked_at);
                end({});
            },
            [this](Error error) { end(std::move(error)); }));
    }
    void look_at(const scsi::Lun& lun, Duration time_limit) {
        start(std::make_unique<Look>(
            engine_, link_, lun, time_limit,
            [this](UnitReport report) {
                if (finished_) return;
                listener_.on_unit(std::move(report));
                end({});
            },
            [this] {
                end(Error(ENOTCONN,
                          fmt::format("{}: the connection was lost while looking at logical units", link_.name())));
            }));
    }
    // Nothing more is told, whatever its questions, or their deadline, still bring.
    void cancel() { finish(); }

private:
    void start(std::unique_ptr<Inquirer> inquirer) {
        self_ = shared_from_this();
        inquirer_ = std::move(inquirer);
        inquirer_->start();
    }
    void end(Result<void> result) {
        if (finished_) return;
        finish();
        listener_.on_probe_end(std::move(result));
    }
    void finish() {
        finished_ = true;
        inquirer_->stop();
        idle_timer_.arm_after(Duration::zero());
    }
    void end_when_idle() {
        if (!inquirer_->is_idle()) return idle_timer_.arm_after(idle_check);
        inquirer_.reset();
        // Only now: whoever is told may let go of the link.
        listener_.on_probe_gone();
        engine_.executor().post([last = std::move(self_)] {});  // not from within our own timer
    }

    Engine& engine_;
    initiator::TargetLink& link_;
    ProbeListener& listener_;
    std::shared_ptr<Probe> self_;
    bool finished_ = false;
    std::unique_ptr<Inquirer> inquirer_;
    reactor::Timer idle_timer_;
};

std::shared_ptr<Probe> ask_for_list(Engine& engine, initiator::TargetLink& link, Duration time_limit,
                                    ProbeListener& listener) {
    auto probe = std::make_shared<Probe>(engine, link, listener);
    probe->ask_for_list(time_limit);
    return probe;
}

std::shared_ptr<Probe> look_at(Engine& engine, initiator::TargetLink& link, const scsi::Lun& lun, Duration time_limit,
                               ProbeListener& listener) {
    auto probe = std::make_shared<Probe>(engine, link, listener);
    probe->look_at(lun, time_limit);
    return probe;
}

void cancel_probe(const std::shared_ptr<Probe>& probe) { probe->cancel(); }

}  // namespace srpfs::lun
