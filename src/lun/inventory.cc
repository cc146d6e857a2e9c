// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/lun/inventory.h>
#include <srpfs/lun/registration.h>
#include <srpfs/lun/unit_command.h>

#include "canary.h"

#include <srpfs/base/log.h>

#include <algorithm>
#include <cerrno>
#include <limits>

namespace srpfs::lun {
namespace {

constexpr auto ask_time_limit = std::chrono::seconds(60);  // for the list, and for each unit
constexpr auto retry_delay = std::chrono::seconds(2);      // times the failures so far
constexpr unsigned retry_factor_max = 30;
constexpr unsigned failures_max = 3;  // one after the other; then what failed is offline until it succeeds
constexpr auto fence_retry_delay = std::chrono::seconds(5);
constexpr unsigned fence_attempts_max = 3;
constexpr unsigned looks_at_once = 8;
constexpr auto idle_check = std::chrono::milliseconds(20);
constexpr auto failure_pause = std::chrono::seconds(1);

// The word for an outcome in messages.
const char* describe(OutcomeKind kind) {
    switch (kind) {
        case OutcomeKind::ok: return "ok";
        case OutcomeKind::interrupted: return "interrupted";
        case OutcomeKind::path_lost: return "the connection was lost";
        case OutcomeKind::gone: return "the logical unit is gone";
        case OutcomeKind::not_ready: return "not ready";
        case OutcomeKind::medium_error: return "medium error";
        case OutcomeKind::hardware_error: return "hardware error";
        case OutcomeKind::illegal_request: return "refused by the target";
        case OutcomeKind::out_of_range: return "beyond the end of the unit";
        case OutcomeKind::write_protected: return "write protected";
        case OutcomeKind::space_exhausted: return "no space left in the target's pool";
        case OutcomeKind::reservation_conflict: return "reservation conflict";
        case OutcomeKind::miscompare: return "miscompare";
        case OutcomeKind::aborted: return "aborted by the target";
        case OutcomeKind::busy: return "the target stayed busy";
        case OutcomeKind::short_transfer: return "the target transferred less than asked for";
        case OutcomeKind::protocol_error: return "unusable answer";
        case OutcomeKind::out_of_memory: return "too many requests were waiting for this target";
    }
    return "?";
}

const char* describe(OperationKind kind) {
    switch (kind) {
        case OperationKind::read: return "read";
        case OperationKind::write: return "write";
        case OperationKind::flush: return "flush";
        case OperationKind::raw: return "command";
    }
    return "?";
}

// Power on and resets, changed parameters and capacity, a changed medium, blocks beyond the end: what the unit says of
// itself. Everything else
// (SPC-4 5.14: 3F/0E and what a target may find besides) may be about others as well. Not valid: a command has been
// sent to it by hand.
bool concerns_only_itself(const scsi::Sense& sense) {
    return !sense.valid || sense.asc == 0x29 || sense.asc == 0x2a || sense.asc == 0x28 || sense.asc == 0x21;
}

bool is_same_unit(const UnitInfo& a, const UnitInfo& b) {
    if (a.block_bytes != b.block_bytes) return false;
    if (a.wwid.empty() && b.wwid.empty()) return a.vendor == b.vendor && a.model == b.model && a.serial == b.serial;
    return a.wwid == b.wwid;
}

}  // namespace

// ---- a unit, on the reactor ----

ListedUnit::ListedUnit(Inventory& inventory, const scsi::Lun& lun, std::shared_ptr<const UnitInfo> info)
    : inventory_(inventory.shared_from_this()), lun_(lun), info_(std::move(info)) {}

ListedUnit::~ListedUnit() { SRPFS_ASSERT(!unit_); }

void ListedUnit::create() {
    UnitListener& listener = *this;
    unit_ = std::make_unique<Unit>(inventory_->engine_, inventory_->port_->link(0), lun_,
                                   inventory_->config_.queue_depth, listener);
    idle_timer_ = std::make_unique<reactor::Timer>(inventory_->engine_.timers(), [this] { end_when_idle(); });
}

void ListedUnit::retire() {
    self_ = shared_from_this();
    unit_->remove();
    idle_timer_->arm_after(Duration::zero());
}

void ListedUnit::end_when_idle() {
    if (!unit_->is_idle()) return idle_timer_->arm_after(idle_check);
    const bool left_writes = unit_->needs_fence();
    unit_.reset();
    // Not from within our own timer.
    inventory_->reactor_.post([self = std::move(self_), left_writes] {
        self->idle_timer_.reset();
        self->inventory_->control_.post([self, left_writes] { self->inventory_->on_unit_destroyed(left_writes); });
    });
}

void ListedUnit::flush(std::function<void()> on_done) {
    Operation* operation =
        unit_ && unit_->info() && unit_->has_unflushed_writes() ? inventory_->engine_.take() : nullptr;
    if (!operation) return on_done();
    flush_done_.push_back(std::move(on_done));
    operation->prepare_flush(*unit_, *this);
    unit_->start(*operation);
}

void ListedUnit::on_answered(Operation& operation) {
    // By another path it may have succeeded meanwhile.
    if (!operation.outcome().ok() && unit_->has_unflushed_writes())
        log::error(inventory_->config_.name, "{}: flushing before the end failed: {}", lun_.file_name(),
                   describe(operation.outcome().kind));
    operation.release();
    auto done = std::move(flush_done_.front());
    flush_done_.erase(flush_done_.begin());
    done();
}

void ListedUnit::on_attention(Unit&, const scsi::Sense& sense, bool) {
    inventory_->control_.post([self = shared_from_this(), sense, stamp = inventory_->engine_.next_stamp()] {
        self->inventory_->on_attention(self, sense, stamp);
    });
}

void ListedUnit::on_fence_needed(Unit&) {
    inventory_->reactor_.post([self = shared_from_this()] { self->inventory_->fence(self); });
}

void ListedUnit::on_reset(Unit&) {
    inventory_->control_.post([self = shared_from_this(), stamp = inventory_->engine_.next_stamp()] {
        self->inventory_->on_reset(self, stamp);
    });
}

void ListedUnit::on_failure(Unit&, const Operation& operation) {
    const Outcome& outcome = operation.outcome();
    // A storm of failures (a pulled cable) is one event, not thousands.
    const Instant now = inventory_->engine_.timers().now();
    if (failures_ > 0 && now - failure_told_at_ < failure_pause) {
        ++failures_;
        return;
    }
    std::string text = fmt::format("{} of {} bytes at {} failed: {}", describe(operation.kind()), operation.bytes(),
                                   operation.offset(), describe(outcome.kind));
    if (outcome.status == scsi::Status::check_condition) text += fmt::format(" ({})", scsi::describe(outcome.sense));
    if (failures_ > 1) text += fmt::format(" (and {} failures before)", failures_ - 1);
    failures_ = 1;
    failure_told_at_ = now;
    inventory_->control_.post([self = shared_from_this(), text = std::move(text)] {
        if (!self->gone_) self->inventory_->listener_.on_unit_failure(*self, text);
    });
}

void ListedUnit::on_write_loss(Unit&, const std::string& text) {
    inventory_->control_.post([self = shared_from_this(), text] {
        if (!self->gone_) self->inventory_->listener_.on_unit_write_loss(*self, text);
    });
}

// ---- a question, on the reactor ----

class Inventory::Asking final : public ProbeListener, public std::enable_shared_from_this<Asking> {
public:
    // No unit: what is there?
    Asking(std::shared_ptr<Inventory> inventory, std::optional<scsi::Lun> lun)
        : inventory_(std::move(inventory)), lun_(lun) {}

    void start() {
        self_ = shared_from_this();
        initiator::TargetLink& link = inventory_->port_->link(0);
        if (lun_)
            look_at(inventory_->engine_, link, *lun_, ask_time_limit, *this);
        else
            ask_for_list(inventory_->engine_, link, ask_time_limit, *this);
    }

private:
    template <class Call>
    void tell(Call call) {
        inventory_->control_.post([self = shared_from_this(), call = std::move(call)] { call(*self->inventory_); });
    }

    void on_list(std::vector<scsi::Lun> luns, std::uint64_t asked_at) override {
        tell([luns = std::move(luns), asked_at](Inventory& inventory) { inventory.on_list(luns, asked_at); });
    }
    void on_unit(UnitReport report) override {
        tell([report = std::move(report)](Inventory& inventory) { inventory.on_report(report); });
    }
    void on_probe_end(Result<void> result) override {
        tell([lun = lun_, result = std::move(result)](Inventory& inventory) {
            if (lun)
                inventory.on_look_end(*lun, result);
            else
                inventory.on_list_end(result);
        });
    }
    void on_probe_gone() override {
        tell([](Inventory& inventory) { inventory.on_asking_gone(); });
        inventory_->reactor_.post([last = std::move(self_)] {});
    }

    const std::shared_ptr<Inventory> inventory_;
    const std::optional<scsi::Lun> lun_;
    std::shared_ptr<Asking> self_;
};

// ---- life ----

std::shared_ptr<Inventory> Inventory::create(InventoryConfig config, reactor::Executor& control,
                                             reactor::Executor& reactor, Engine& engine,
                                             std::shared_ptr<initiator::TargetPort> port, InventoryListener& listener) {
    std::shared_ptr<Inventory> made(
        new Inventory(std::move(config), control, reactor, engine, std::move(port), listener));
    made->self_ = made;
    return made;
}

Inventory::Inventory(InventoryConfig config, reactor::Executor& control, reactor::Executor& reactor, Engine& engine,
                     std::shared_ptr<initiator::TargetPort> port, InventoryListener& listener)
    : config_(std::move(config)), control_(control), reactor_(reactor), engine_(engine), port_(std::move(port)),
      listener_(listener), retry_timer_(control.timers(), [this] { on_retry_time(); }),
      poll_timer_(control.timers(), [this] {
          poll_timer_.arm_after(config_.rescan_interval);
          if (runs() && !scanning_) start_scan("it is time to", true);
      }) {
    if (config_.rescan_interval > Duration::zero()) poll_timer_.arm_after(config_.rescan_interval);
}

Inventory::~Inventory() { SRPFS_ASSERT(units_alive_ == 0); }

void Inventory::close(const std::string& why) {
    if (std::exchange(closed_, true)) return;
    retry_timer_.disarm();
    poll_timer_.disarm();
    const Error error(ENODEV, why);
    for (auto& waiter : std::exchange(waiters_, {})) waiter(error);
    for (const auto& unit : units_) unit->gone_ = true;
    looks_waiting_.clear();
    for (auto& [lun, look] : std::exchange(looks_, {}))
        for (auto& waiter : look.waiters) waiter(error);
    control_.post([self = shared_from_this()] { self->check_gone(); });
}

void Inventory::release(const UnitPointer& unit) {
    if (std::exchange(unit->released_, true)) return;
    unit->gone_ = true;
    const UnitPointer keep = unit;  // it may be an element of what follows
    std::erase(units_, keep);
    reactor_.post([keep] { keep->retire(); });
}

void Inventory::on_unit_destroyed(bool left_writes) {
    left_writes_ = left_writes_ || left_writes;
    --units_alive_;
    check_gone();
}

void Inventory::on_asking_gone() {
    --asking_;
    check_gone();
}

void Inventory::check_gone() {
    if (!closed_ || units_alive_ > 0 || units_pending_ > 0 || asking_ > 0 || gone_told_) return;
    gone_told_ = true;
    port_.reset();  // what is still on its way through the executors keeps only us
    listener_.on_inventory_gone(left_writes_);
    control_.post([last = std::move(self_)] {});
}

std::string Inventory::describe() const {
    return fmt::format("{} units, {} pending, {} on the reactor; {} questions under way{}{}", units_.size(),
                       units_pending_, units_alive_, asking_, scanning_ ? ", scanning" : "", closed_ ? ", closed" : "");
}

Inventory::UnitPointer Inventory::find(const scsi::Lun& lun) const {
    const auto found = std::find_if(units_.begin(), units_.end(), [&](const auto& unit) { return unit->lun_ == lun; });
    return found == units_.end() ? nullptr : *found;
}

// ---- scans ----

void Inventory::scan(const std::string& why, Waiter on_done) {
    if (closed_) {
        if (on_done) on_done(Error(ENODEV, fmt::format("{}: being logged out", config_.name)));
        return;
    }
    if (!runs()) {
        if (on_done) on_done(Error(ENOTCONN, fmt::format("{}: not connected", config_.name)));
        return;
    }
    if (on_done) waiters_.push_back(std::move(on_done));
    if (scanning_)
        scan_again_ = true;
    else
        start_scan(why, false);
}

void Inventory::start_scan(const std::string& why, bool routine) {
    log::debug(config_.name, "looking for logical units: {}", why);
    scanning_ = true;
    routine_ = routine;
    list_ended_ = scan_again_ = scan_wanted_ = false;
    ask(std::nullopt);
}

void Inventory::ask(std::optional<scsi::Lun> lun) {
    ++asking_;
    reactor_.post([asking = std::make_shared<Asking>(shared_from_this(), lun)] { asking->start(); });
}

void Inventory::on_list(const std::vector<scsi::Lun>& luns, std::uint64_t asked_at) {
    if (closed_ || !runs()) return;
    listed_at_ = asked_at;
    listed_ = luns;
    listener_.on_listed();
    for (const auto& unit : std::vector(units_))
        if (!is_listed(unit->lun_)) remove(unit, "the target does not report this logical unit any more");
    std::erase_if(unanswered_, [&](const auto& entry) { return !is_listed(entry.first); });
    for (const scsi::Lun& lun : luns) want_look(lun, "it is listed", routine_).in_scan = true;
}

void Inventory::on_list_end(Result<void> result) {
    list_ended_ = true;
    scan_result_ = std::move(result);
    finish_scan();
}

// Once everything it has found is there.
void Inventory::finish_scan() {
    if (!scanning_ || !list_ended_ || units_pending_ > 0) return;
    if (std::any_of(looks_.begin(), looks_.end(), [](const auto& entry) { return entry.second.in_scan; })) return;
    scanning_ = false;
    if (closed_) return;
    const bool lost = !scan_result_ && scan_result_.error().errno_value() == ENOTCONN;
    if (scan_result_) {
        scans_failed_ = 0;
        if (units_.empty() && !routine_)
            log::warning(config_.name,
                         "logged in, but the target shows no usable logical unit; check the LUN mapping for this "
                         "initiator on the target");
    } else if (!lost) {  // a lost connection is the port's affair
        ++scans_failed_;
        log::warning({}, "{}", scan_result_.error().context);
        if (scans_failed_ >= failures_max)
            for (const auto& unit : units_) set_offline(unit, scan_result_.error().context);
        scan_wanted_ = true;
        try_again(retry_delay * std::min(retry_factor_max, scans_failed_));
    }
    // A login may have asked for it while this scan was still ending for want of a connection.
    if (runs() && (scan_again_ || (scan_result_ && stale_at_ > listed_at_)))
        return start_scan("something has changed meanwhile", false);
    for (auto& waiter : std::exchange(waiters_, {})) waiter(scan_result_);
    listener_.on_scanned(scan_result_);
}

bool Inventory::is_listed(const scsi::Lun& lun) const {
    return std::binary_search(listed_.begin(), listed_.end(), lun);
}

// ---- looks ----

void Inventory::look(const UnitPointer& unit, const std::string& why, Waiter on_done) {
    if (closed_ || unit->gone_) {
        if (on_done) on_done(Error(ENODEV, fmt::format("{}: {} is gone", config_.name, unit->lun_.file_name())));
        return;
    }
    if (!runs()) {
        if (on_done) on_done(Error(ENOTCONN, fmt::format("{}: not connected", config_.name)));
        return;
    }
    Look& look = want_look(unit->lun_, why, false);
    if (on_done) look.waiters.push_back(std::move(on_done));
}

// The next one that begins, which may be waiting already.
Inventory::Look& Inventory::want_look(const scsi::Lun& lun, const std::string& why, bool routine) {
    const auto [place, is_new] = looks_.try_emplace(lun);
    Look& look = place->second;
    look.routine = routine && (is_new || look.routine);
    if (is_new) {
        log::debug(config_.name, "looking at {}: {}", lun.file_name(), why);
        looks_waiting_.push_back(lun);
        start_looks();
    } else if (look.under_way) {
        look.again = true;
    }
    return look;
}

void Inventory::start_looks() {
    while (looking_ < looks_at_once && !looks_waiting_.empty()) {
        const scsi::Lun lun = looks_waiting_.front();
        looks_waiting_.pop_front();
        Look& look = looks_.at(lun);
        look.under_way = true;
        look.again = false;
        ++looking_;
        ask(lun);
    }
}

void Inventory::on_look_end(const scsi::Lun& lun, const Result<void>& result) {
    --looking_;
    if (closed_) return;
    const auto place = looks_.find(lun);
    Look& look = place->second;
    const UnitPointer unit = find(lun);
    const bool stale = result && unit && unit->stale_at_ > unit->asked_at_;
    if (runs() && (look.again || stale)) {
        look.under_way = false;
        looks_waiting_.push_back(lun);
        return start_looks();
    }
    auto waiters = std::move(look.waiters);
    const bool in_scan = look.in_scan;
    looks_.erase(place);
    // The port may run on with other channels, and the unit be held until somebody has looked.
    if (!result && unit && !unit->gone_ && runs()) {
        unit->look_wanted_ = true;
        try_again(retry_delay);
    }
    if (in_scan && !result && scan_result_) scan_result_ = result;
    for (auto& waiter : waiters) waiter(result);
    start_looks();
    finish_scan();
}

// ---- what has been found ----

void Inventory::on_report(const UnitReport& report) {
    if (closed_ || !runs()) return;
    const bool routine = looks_.at(report.lun).routine;
    if (report.answered) unanswered_.erase(report.lun);
    if (const UnitPointer unit = find(report.lun)) return update(unit, report, routine);
    if (report.info) return add(report);
    if (!routine) log::info(config_.name, "{}: {}", report.lun.file_name(), report.problem);
    if (report.answered || !is_listed(report.lun)) return;
    Unanswered& unanswered = unanswered_[report.lun];
    unanswered.look_wanted = true;
    try_again(retry_delay * std::min(retry_factor_max, ++unanswered.times));
}

void Inventory::add(const UnitReport& report) {
    auto unit = std::make_shared<ListedUnit>(*this, report.lun, report.info);
    unit->asked_at_ = report.asked_at;
    const std::weak_ptr<ListedUnit> weak = unit;
    unit->registration_ = std::make_shared<Registration>(
        fmt::format("{}: {}", config_.name, report.lun.file_name()),
        [this, weak](UnitCommand command, std::function<void(UnitAnswer)> on_answer) -> std::function<void()> {
            const auto still = weak.lock();
            if (still) return send_command(control_, reactor_, still, std::move(command), std::move(on_answer));
            on_answer({.outcome = {OutcomeKind::gone}, .timed_out = false, .data = {}});
            return [] {};
        },
        [this, weak](const std::string& text, bool lost) {
            const auto still = weak.lock();
            if (still && !still->gone_) listener_.on_unit_registration(*still, text, lost);
        });
    units_.push_back(unit);
    ++units_pending_;
    ++units_alive_;
    const bool suspected = config_.suspects_earlier_writes && config_.suspects_earlier_writes();
    reactor_.post([self = shared_from_this(), unit, suspected, info = unit->info_] {
        unit->create();
        unit->unit_->recognise(info);
        if (suspected) unit->unit_->suspect_earlier_writes();
        self->fence_and_resume(unit, info);
        self->control_.post([self, unit, pointer = unit->unit_.get(), counters = unit->unit_->counters()] {
            --self->units_pending_;
            unit->counters_ = counters;
            if (self->closed_) return self->check_gone();
            if (!unit->gone_) self->listener_.on_unit_added(unit, pointer);
            self->finish_scan();
        });
    });
}

void Inventory::update(const UnitPointer& unit, const UnitReport& report, bool routine) {
    if (report.asked_at < unit->stale_at_) return;  // half of it may be about what was there before
    unit->asked_at_ = report.asked_at;
    if (!report.present) return remove(unit, "the target has no such logical unit any more");
    if (!report.info) {
        ++unit->looks_failed_;
        // One that has said nothing gets some more chances, and one of which nothing was suspected.
        const bool another_chance = !report.answered || routine;
        if (!another_chance || unit->looks_failed_ >= failures_max) set_offline(unit, report.problem);
        if (!another_chance) return;
        log::warning(config_.name, "{}: {}", unit->lun_.file_name(), report.problem);
        unit->look_wanted_ = true;
        return try_again(retry_delay * std::min(retry_factor_max, unit->looks_failed_));
    }
    // Never another unit's data behind an old name (decisions 7).
    if (!is_same_unit(*report.info, *unit->info_)) {
        remove(unit, fmt::format("another logical unit is there now ({} instead of {})", report.info->wwid,
                                 unit->info_->wwid));
        return add(report);
    }
    auto found = report.info;
    if constexpr (canary::old_capacity) {
        auto old = *found;
        old.blocks = unit->info_->blocks;
        found = std::make_shared<const UnitInfo>(old);
    }
    const auto before = std::exchange(unit->info_, found);
    unit->offline_ = false;
    unit->looks_failed_ = 0;
    if (before->blocks != unit->info_->blocks || before->read_only != unit->info_->read_only)
        listener_.on_unit_changed(*unit);
    // What is reserved may refuse I/O of those that are not registered.
    unit->registration_->check(unit->info_->probed_at,
                               [self = shared_from_this(), unit, info = unit->info_](bool asked) {
                                   if (!asked && !self->closed_ && !unit->gone_) {
                                       unit->look_wanted_ = true;
                                       self->try_again(fence_retry_delay);
                                   }
                                   self->reactor_.post([self, unit, info] {
                                       if (unit->unit_) self->fence_and_resume(unit, info);
                                   });
                               });
}

void Inventory::set_offline(const UnitPointer& unit, const std::string& why) {
    if (!std::exchange(unit->offline_, true)) listener_.on_unit_offline(*unit, why);
    reactor_.post([unit] {
        if (unit->unit_) unit->unit_->set_offline();
    });
}

void Inventory::remove(const UnitPointer& unit, const std::string& why) {
    unit->gone_ = true;
    std::erase(units_, unit);
    reactor_.post([unit] {
        if (unit->unit_) unit->unit_->remove();
    });
    listener_.on_unit_removed(unit, why);
}

// ---- attentions, resets, fences ----

void Inventory::on_attention(const UnitPointer& unit, const scsi::Sense& sense, std::uint64_t stamp) {
    if (closed_ || unit->gone_) return;
    listener_.on_unit_attention(*unit, sense);
    if (!runs()) return;  // the next login asks for everything
    unit->stale_at_ = std::max(unit->stale_at_, stamp);
    const std::string why = sense.valid ? scsi::describe(sense) : "a command sent by hand may have changed it";
    if (!concerns_only_itself(sense)) {
        stale_at_ = std::max(stale_at_, stamp);
        if (!scanning_ && stale_at_ > listed_at_) start_scan(why, false);
    }
    // A look that is under way goes on: it may have met this attention itself, and if not another one follows it.
    if (unit->stale_at_ > unit->asked_at_ && !looks_.contains(unit->lun_)) want_look(unit->lun_, why, false);
}

// Which unit was it? What was asked before does not tell.
void Inventory::on_reset(const UnitPointer& unit, std::uint64_t stamp) {
    if (closed_ || unit->gone_ || !runs()) return;
    unit->stale_at_ = std::max(unit->stale_at_, stamp);
    if (!looks_.contains(unit->lun_)) want_look(unit->lun_, "LUN RESET", true);
}

void Inventory::reset(const UnitPointer& unit, Waiter on_done) {
    reactor_.post([self = shared_from_this(), unit, on_done = std::move(on_done)]() mutable {
        if (!unit->unit_) {
            self->control_.post([self, unit, on_done = std::move(on_done)] {
                on_done(Error(ENODEV, fmt::format("{}: {} is gone", self->config_.name, unit->lun_.file_name())));
            });
            return;
        }
        unit->unit_->hold();
        self->port_->link(0).reset_unit(unit->lun_,
                                        [self, unit, on_done = std::move(on_done)](const Result<void>& done) {
                                            self->control_.post([self, unit, on_done, done] {
                                                // A look lets its I/O go again; after a success one is under way.
                                                if (!done) self->look(unit, "LUN RESET");
                                                on_done(done);
                                            });
                                        });
    });
}

// Lets a unit's I/O go. If writes of an earlier connection may still run in the target, a LUN RESET comes first: until
// it has succeeded, and another look has found the same unit, those blocks stay locked.
void Inventory::fence_and_resume(const UnitPointer& unit, std::shared_ptr<const UnitInfo> info) {
    const bool was_this_unit = unit->unit_->confirm_reset(*info);
    if (!was_this_unit || unit->unit_->awaits_confirmation() || !unit->unit_->needs_fence()) {
        unit->unit_->resume(std::move(info));
        if (was_this_unit) return;
        const Error why(EAGAIN, "the logical units changed while the LUN RESET was under way");
        return control_.post([self = shared_from_this(), unit, why] { self->on_fence(unit, why); });
    }
    unit->unit_->note_found(*info);
    port_->link(0).reset_unit(unit->lun_, [self = shared_from_this(), unit, info](const Result<void>& done) {
        if (unit->unit_) unit->unit_->resume(info);
        self->control_.post([self, unit, done] { self->on_fence(unit, done); });
    });
}

// A channel has been lost with writes on it while others go on. A unit that is being looked at is fenced after that.
void Inventory::fence(const UnitPointer& unit) {
    if (!unit->unit_ || unit->unit_->awaits_confirmation() || !unit->unit_->needs_fence() ||
        unit->unit_->state() != UnitState::running)
        return;
    port_->link(0).reset_unit(unit->lun_, [self = shared_from_this(), unit](const Result<void>& done) {
        self->control_.post([self, unit, done] { self->on_fence(unit, done); });
    });
}

void Inventory::on_fence(const UnitPointer& unit, const Result<void>& result) {
    if (result) {
        unit->fence_attempts_ = 0;
        return;
    }
    if (closed_ || unit->gone_ || !runs()) return;
    const std::string& why = result.error().context;
    log::warning(config_.name, "{}: writes that were given up cannot be fenced yet: {}", unit->lun_.file_name(), why);
    if (++unit->fence_attempts_ >= fence_attempts_max) {
        unit->fence_attempts_ = 0;
        return port_->relogin(fmt::format("{}: {}", unit->lun_.file_name(), why));
    }
    unit->look_wanted_ = true;
    try_again(fence_retry_delay);
}

// ---- trying again ----

void Inventory::try_again(Duration delay) {
    const Instant when = saturating_add(control_.timers().now(), delay);
    if (!retry_timer_.armed() || when < retry_timer_.deadline()) retry_timer_.arm_at(when);
}

void Inventory::on_retry_time() {
    if (!runs()) return;
    if (scan_wanted_ && !scanning_) start_scan("trying again", false);
    for (const auto& unit : std::vector(units_))
        if (std::exchange(unit->look_wanted_, false)) want_look(unit->lun_, "trying again", false);
    for (auto& [lun, unanswered] : unanswered_)
        if (std::exchange(unanswered.look_wanted, false)) want_look(lun, "trying again", true);
}

// ---- flushing ----

void Inventory::flush(std::function<void()> on_done) {
    auto left = std::make_shared<std::size_t>(units_.size() + 1);
    const auto one_done = [left, on_done = std::move(on_done), &control = control_] {
        control.post([left, on_done] {
            if (--*left == 0) on_done();
        });
    };
    for (const auto& unit : units_) reactor_.post([unit, one_done] { unit->flush(one_done); });
    one_done();
}

}  // namespace srpfs::lun
