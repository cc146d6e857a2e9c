// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "target.h"

#include "text_file.h"

#include <srpfs/base/log.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <bit>
#include <cerrno>

namespace srpfs::daemon {
namespace {

using initiator::PortState;

constexpr auto scan_time_limit = std::chrono::seconds(60);
constexpr auto scan_retry_delay = std::chrono::seconds(2);
constexpr unsigned scans_failed_max = 3;  // then the units go offline until a scan succeeds
constexpr auto fence_retry_delay = std::chrono::seconds(5);
constexpr auto idle_check = std::chrono::milliseconds(20);
constexpr unsigned fence_attempts_max = 3;
constexpr auto reset_retry_delay = std::chrono::milliseconds(100);
constexpr auto reset_wait_limit = std::chrono::seconds(10);  // for the resets of other units of the target

std::string gid_text(const fabric::Gid& gid) {
    std::string text;
    for (std::size_t i = 0; i < gid.size(); i += 2)
        text += fmt::format("{}{:02x}{:02x}", i ? ":" : "", static_cast<unsigned>(gid[i]),
                            static_cast<unsigned>(gid[i + 1]));
    return text;
}

// The word for an outcome in messages.
const char* describe(lun::OutcomeKind kind) {
    switch (kind) {
        case lun::OutcomeKind::ok: return "ok";
        case lun::OutcomeKind::interrupted: return "interrupted";
        case lun::OutcomeKind::path_lost: return "the connection was lost";
        case lun::OutcomeKind::gone: return "the logical unit is gone";
        case lun::OutcomeKind::not_ready: return "not ready";
        case lun::OutcomeKind::medium_error: return "medium error";
        case lun::OutcomeKind::hardware_error: return "hardware error";
        case lun::OutcomeKind::illegal_request: return "refused by the target";
        case lun::OutcomeKind::out_of_range: return "beyond the end of the unit";
        case lun::OutcomeKind::write_protected: return "write protected";
        case lun::OutcomeKind::space_exhausted: return "no space left in the target's pool";
        case lun::OutcomeKind::reservation_conflict: return "reservation conflict";
        case lun::OutcomeKind::miscompare: return "miscompare";
        case lun::OutcomeKind::aborted: return "aborted by the target";
        case lun::OutcomeKind::busy: return "the target stayed busy";
        case lun::OutcomeKind::short_transfer: return "the target transferred less than asked for";
        case lun::OutcomeKind::protocol_error: return "unusable answer";
        case lun::OutcomeKind::out_of_memory: return "too many requests were waiting for this target";
    }
    return "?";
}

const char* describe(lun::OperationKind kind) {
    switch (kind) {
        case lun::OperationKind::read: return "read";
        case lun::OperationKind::write: return "write";
        case lun::OperationKind::flush: return "flush";
        case lun::OperationKind::raw: return "command";
    }
    return "?";
}

}  // namespace

// Made by control, destroyed on the reactor when its unit is idle.
class UnitOwner final : public std::enable_shared_from_this<UnitOwner>,
                        private lun::UnitListener,
                        private lun::OperationListener {
public:
    using Attention = std::function<void(const scsi::Sense&)>;
    using Failure = std::function<void(const std::string&)>;
    using FenceNeeded = std::function<void()>;

    // Handlers are called on the reactor.
    UnitOwner(Attention on_attention, Failure on_failure, FenceNeeded on_fence_needed)
        : on_attention_(std::move(on_attention)), on_failure_(std::move(on_failure)),
          on_fence_needed_(std::move(on_fence_needed)) {}

    // ---- on the reactor ----
    lun::Unit& create(lun::Engine& engine, initiator::TargetLink& link, const scsi::Lun& lun, unsigned depth) {
        lun::UnitListener& listener = *this;
        unit_ = std::make_unique<lun::Unit>(engine, link, lun, depth, listener);
        idle_timer_ = std::make_unique<reactor::Timer>(engine.timers(), [this] { end_when_idle(); });
        return *unit_;
    }
    [[nodiscard]] lun::Unit* unit() { return unit_.get(); }
    // Retired with writes of which nobody knows the end. Once `on_gone` has been called.
    [[nodiscard]] bool left_writes() const { return left_writes_; }
    // Nothing is started on it any more; `on_gone` is called on the reactor when it is destroyed.
    void retire(std::function<void()> on_gone) {
        self_ = shared_from_this();
        on_gone_ = std::move(on_gone);
        unit_->remove();
        idle_timer_->arm_after(Duration::zero());
    }
    void flush(std::function<void()> on_done) {
        lun::Operation* operation =
            unit_ && unit_->info() && unit_->has_unflushed_writes() ? unit_->engine().take() : nullptr;
        if (!operation) return on_done();
        flush_done_.push_back(std::move(on_done));
        operation->prepare_flush(*unit_, *this);
        unit_->start(*operation);
    }

private:
    void on_attention(lun::Unit&, const scsi::Sense& sense, bool) override { on_attention_(sense); }
    void on_fence_needed(lun::Unit&) override { on_fence_needed_(); }
    void on_failure(lun::Unit& unit, const lun::Operation& operation) override {
        const lun::Outcome& outcome = operation.outcome();
        std::string text = fmt::format("{} of {} bytes at {} failed: {}", describe(operation.kind()), operation.bytes(),
                                       operation.offset(), describe(outcome.kind));
        if (outcome.status == scsi::Status::check_condition)
            text += fmt::format(" ({})", scsi::describe(outcome.sense));
        // A storm of failures (a pulled cable) is one event, not thousands.
        const Instant now = unit.engine().timers().now();
        if (failures_ > 0 && now - failure_told_at_ < std::chrono::seconds(1)) {
            ++failures_;
            return;
        }
        if (failures_ > 1) text += fmt::format(" (and {} failures before)", failures_ - 1);
        failures_ = 1;
        failure_told_at_ = now;
        on_failure_(text);
    }
    void on_answered(lun::Operation& operation) override {
        if (!operation.outcome().ok())
            log::error({}, "flushing before the end failed: {}", describe(operation.outcome().kind));
        operation.release();
        auto done = std::move(flush_done_.front());
        flush_done_.erase(flush_done_.begin());
        done();
    }
    void end_when_idle() {
        if (!unit_->is_idle()) return idle_timer_->arm_after(idle_check);
        if (unit_->needs_fence()) left_writes_ = true;
        reactor::Executor& executor = unit_->engine().executor();
        unit_.reset();
        // Not from within our own timer.
        executor.post([self = std::move(self_)] {
            self->idle_timer_.reset();
            self->on_gone_();
        });
    }

    Attention on_attention_;
    Failure on_failure_;
    FenceNeeded on_fence_needed_;
    std::unique_ptr<lun::Unit> unit_;
    std::unique_ptr<reactor::Timer> idle_timer_;
    std::function<void()> on_gone_;
    std::shared_ptr<UnitOwner> self_;
    std::vector<std::function<void()>> flush_done_;
    std::uint64_t failures_ = 0;
    Instant failure_told_at_{};
    bool left_writes_ = false;
};

struct Target::Lun {
    scsi::Lun lun{};
    std::string name;
    std::shared_ptr<const lun::UnitInfo> info;
    std::shared_ptr<UnitOwner> owner;
    lun::Unit* unit = nullptr;  // for LunFile and, on the reactor, through owner
    std::shared_ptr<const lun::UnitCounters> counters;
    fs::NodeId file{0}, attributes{0};
    bool offline = false;
    bool gone = false;
    unsigned fence_attempts = 0;
    std::string last_error;
};

// ---- life ----

std::string Target::directory_name(const srp::LoginParameters& parameters) {
    std::string name = fmt::format("{:016x}-{:016x}", parameters.id_ext, parameters.ioc_guid);
    if (parameters.initiator_ext != 0) name += fmt::format("-{:016x}", parameters.initiator_ext);
    return name;
}

Target::Target(TargetHost& host, initiator::TargetPortConfig config, std::shared_ptr<LoginLock> lock)
    : host_(host), name_(directory_name(config.parameters)), lock_(std::move(lock)),
      rescan_timer_(host.control().timers(), [this] { start_scan("trying again"); }),
      reset_timer_(host.control().timers(), [this] {
          for (auto& reset : std::exchange(resets_waiting_, {})) try_reset(std::move(reset));
      }) {
    Worker& worker = host.worker();
    const bool loopback = std::holds_alternative<fabric::LoopbackAddress>(config.address);
    initiator::ReactorDoor door{&worker.reactor(), loopback ? worker.loopback() : worker.verbs()};
    SRPFS_ASSERT(door.fabric != nullptr);
    config.admit = [shared = lock_](const fabric::LocalPort& port) { return shared->take(port); };
    port_ = initiator::TargetPort::create(std::move(config), host.control(), {door}, *this);
}

Target::~Target() { SRPFS_ASSERT(units_alive_ == 0); }

void Target::login(std::function<void(Result<void>)> on_done) {
    on_login_done_ = std::move(on_done);
    port_->login([this](const Result<initiator::PortFacts>& facts) {
        if (!facts) fail_login(facts.error());
    });
}

void Target::cancel_login() {
    if (!on_login_done_) return;
    fail_login(Error(EINTR, fmt::format("{}: login interrupted", config().name)));
}

void Target::fail_login(const Error& error) {
    last_error_ = error.context;
    auto on_done = std::exchange(on_login_done_, nullptr);
    logout(error.context);
    if (on_done) on_done(error);
}

void Target::finish_login() {
    if (auto on_done = std::exchange(on_login_done_, nullptr)) on_done({});
}

void Target::logout(const std::string& why) {
    if (std::exchange(leaving_, true)) return;
    rescan_timer_.disarm();
    reset_timer_.disarm();
    for (auto& waiter : std::exchange(scan_waiters_, {})) waiter(Error(ENODEV, "the target is being logged out"));
    for (auto& reset : std::exchange(resets_waiting_, {}))
        reset.on_done(Error(ENODEV, "the target is being logged out"));
    if (lock_) lock_->release();
    port_->close(why);
    for (const auto& lun : luns_) lun->gone = true;
    if (directory_ != fs::NodeId{0}) {
        event("target_removed", {{"reason", why}});
        host_.tree().remove(std::exchange(directory_, fs::NodeId{0}), [self = shared_from_this()] {
            self->tree_removed_ = true;
            self->release_luns(std::exchange(self->luns_, {}));
        });
    } else {
        tree_removed_ = true;
        release_luns(std::exchange(luns_, {}));
    }
    if (on_login_done_) {
        auto on_done = std::exchange(on_login_done_, nullptr);
        on_done(Error(ECANCELED, why));
    }
}

void Target::release_luns(std::vector<std::shared_ptr<Lun>> luns) {
    for (const auto& lun : luns) {
        if (!lun->owner) continue;
        host_.worker().reactor().post([owner = std::move(lun->owner), self = shared_from_this()]() mutable {
            auto gone = [self, retired = std::weak_ptr(owner)] {
                const auto unit = retired.lock();
                self->host_.control().post([self, left_writes = !unit || unit->left_writes()] {
                    self->left_writes_ = self->left_writes_ || left_writes;
                    --self->units_alive_;
                    self->check_gone();
                });
            };
            owner->retire(std::move(gone));
        });
    }
    check_gone();
}

void Target::on_port_closed(initiator::TargetPort&) {
    port_closed_ = true;
    if (!leaving_) logout("the target port was closed");
    check_gone();
}

void Target::check_gone() {
    if (!leaving_ || !port_closed_ || !tree_removed_ || units_alive_ > 0 || units_pending_ > 0 || scanning_ ||
        gone_told_)
        return;
    gone_told_ = true;
    if (!left_writes_) lock_->mark_clean();
    host_.on_target_gone(*this);
}

// ---- the transport ----

void Target::on_port_state(initiator::TargetPort& port, PortState from, PortState to, const std::string& why) {
    if (to != PortState::running) last_error_ = why;
    event("target_state",
          {{"from", to_string(from)}, {"to", to_string(to)}, {"reason", why}, {"channels", port.facts().channels}});
    if (to == PortState::lost && !leaving_) logout(why);
}

void Target::on_port_login(initiator::TargetPort& port, bool first) {
    if (leaving_) return;
    const auto& facts = port.facts();
    const auto& parameters = port.config().parameters;
    if (first) {
        // The line administrators know from ib_srp.
        if (parameters.ib)
            log::info({}, "new target: id_ext {:016x} ioc_guid {:016x} pkey {:04x} service_id {:016x} sgid {} dgid {}",
                      parameters.id_ext, parameters.ioc_guid, parameters.ib->pkey, parameters.ib->service_id,
                      gid_text(facts.port.gid), gid_text(parameters.ib->dgid));
        else
            log::info({}, "new target: id_ext {:016x} ioc_guid {:016x} sgid {} dest {}", parameters.id_ext,
                      parameters.ioc_guid, gid_text(facts.port.gid), port.config().name);
    }
    event("target_login", {{"first", first},
                           {"channels", facts.channels},
                           {"credits", facts.first.credits_initial},
                           {"immediate_bytes", facts.first.immediate_bytes_max}});
    start_scan(first ? "first login" : "logged in again");
}

// ---- scanning ----

void Target::start_scan(const std::string& why) {
    if (leaving_) return;
    if (scanning_) {
        scan_again_ = true;
        scan_again_why_ = why;
        return;
    }
    if (port_->state() != PortState::running) return;  // the next login scans
    log::debug(config().name, "looking for logical units: {}", why);
    scanning_ = true;
    rescan_timer_.disarm();
    host_.worker().reactor().post([self = shared_from_this()] {
        self->scan_ = lun::start_scan(self->host_.worker().engine(), self->port_->link(0), scan_time_limit,
                                      [self](Result<lun::ScanReport> report) {
                                          self->host_.control().post([self, report = std::move(report)]() mutable {
                                              self->on_scan(std::move(report));
                                          });
                                      });
    });
}

void Target::on_scan(Result<lun::ScanReport> report) {
    scanning_ = false;
    if (leaving_) return check_gone();
    if (!report) {
        ++scans_failed_;
        last_error_ = report.error().context;
        log::warning({}, "{}", last_error_);
        event("scan_failed", {{"reason", last_error_}});
        if (on_login_done_) return fail_login(report.error());
        for (auto& waiter : std::exchange(scan_waiters_, {})) waiter(report.error());
        scan_again_ = false;
        if (scans_failed_ >= scans_failed_max)
            for (const auto& lun : luns_) {
                lun->offline = true;
                host_.worker().reactor().post([owner = lun->owner] {
                    if (owner->unit()) owner->unit()->set_offline();
                });
            }
        if (port_->state() == PortState::running)
            rescan_timer_.arm_after(scan_retry_delay * std::min(30U, scans_failed_));
        return;
    }
    scans_failed_ = 0;
    if (std::exchange(scan_again_, false)) return start_scan(scan_again_why_);  // something changed meanwhile
    if (port_->state() != PortState::running) return;
    list();
    apply(*report);
}

// What the target has becomes what the tree shows.
void Target::apply(const lun::ScanReport& report) {
    const auto find_report = [&](const scsi::Lun& lun) -> const lun::UnitReport* {
        const auto found =
            std::find_if(report.units.begin(), report.units.end(), [&](const auto& unit) { return unit.lun == lun; });
        return found == report.units.end() ? nullptr : &*found;
    };
    for (const auto& lun : std::vector(luns_)) {
        const lun::UnitReport* found = find_report(lun->lun);
        if (!found || !found->present) {
            remove_lun(lun, "the target does not report this logical unit any more");
            continue;
        }
        if (found->info) {
            const auto& now = *found->info;
            const auto& before = *lun->info;
            // Never another unit's data behind an old name (decisions 7).
            const bool same =
                now.wwid.empty() && before.wwid.empty()
                    ? now.vendor == before.vendor && now.model == before.model && now.serial == before.serial
                    : now.wwid == before.wwid;
            if (!same || now.block_bytes != before.block_bytes) {
                remove_lun(lun,
                           fmt::format("another logical unit is there now ({} instead of {})", now.wwid, before.wwid));
                continue;
            }
        }
        update_lun(*lun, *found);
    }
    for (const lun::UnitReport& found : report.units) {
        const bool known =
            std::any_of(luns_.begin(), luns_.end(), [&](const auto& lun) { return lun->lun == found.lun; });
        if (known) continue;
        if (found.info)
            add_lun(found);
        else
            log::info(config().name, "{}: {}", found.lun.file_name(), found.problem);
    }
    if (luns_.empty() && units_pending_ == 0)
        log::warning(config().name,
                     "logged in, but the target shows no usable logical unit; check the LUN mapping for this initiator "
                     "on the target");
    if (units_pending_ == 0) finish_scan_round();
}

void Target::finish_scan_round() {
    for (auto& waiter : std::exchange(scan_waiters_, {})) waiter({});
    finish_login();
}

void Target::add_lun(const lun::UnitReport& report) {
    auto lun = std::make_shared<Lun>();
    lun->lun = report.lun;
    lun->name = report.lun.file_name();
    // Two addressing methods may spell one number (decisions 39): the second keeps its bytes in its name.
    if (std::any_of(luns_.begin(), luns_.end(), [&](const auto& other) { return other->name == lun->name; })) {
        lun->name = "lun0x";
        for (const std::byte one : report.lun.bytes) lun->name += fmt::format("{:02x}", static_cast<unsigned>(one));
    }
    lun->info = report.info;
    std::weak_ptr<Target> weak = weak_from_this();
    std::weak_ptr<Lun> weak_lun = lun;
    reactor::Executor& control = host_.control();
    lun->owner = std::make_shared<UnitOwner>(
        [&control, weak, weak_lun](const scsi::Sense& sense) {
            control.post([weak, weak_lun, sense] {
                const auto target = weak.lock();
                const auto which = weak_lun.lock();
                if (target && which) target->on_lun_attention(*which, sense);
            });
        },
        [&control, weak, weak_lun](const std::string& text) {
            control.post([weak, weak_lun, text] {
                const auto target = weak.lock();
                const auto which = weak_lun.lock();
                if (target && which) target->on_lun_failure(*which, text);
            });
        },
        [&control, weak] {
            control.post([weak] {
                if (const auto target = weak.lock()) target->start_scan("writes have lost their connection");
            });
        });
    luns_.push_back(lun);
    ++units_pending_;
    ++units_alive_;
    host_.worker().reactor().post([self = shared_from_this(), lun, owner = lun->owner] {
        lun::Unit& unit = owner->create(self->host_.worker().engine(), self->port_->link(0), lun->lun,
                                        self->config().parameters.max_cmd_per_lun);
        unit.recognise(lun->info);
        if (self->lock_->was_left_behind()) unit.suspect_earlier_writes();
        self->fence_and_resume(lun, lun->info);
        self->host_.control().post([self, lun, &unit, counters = unit.counters()] {
            --self->units_pending_;
            lun->unit = &unit;
            lun->counters = counters;
            if (self->leaving_) return self->check_gone();
            self->show_lun(lun);
            if (self->units_pending_ == 0) self->finish_scan_round();
        });
    });
}

void Target::show_lun(const std::shared_ptr<Lun>& lun) {
    const lun::UnitInfo& info = *lun->info;
    fs::LunFile file;
    file.unit = lun->unit;
    file.capacity_bytes = info.capacity_bytes();
    file.io_bytes =
        std::max<std::uint32_t>(4096, std::bit_ceil(std::min<std::uint32_t>(info.physical_block_bytes, 1U << 20)));
    file.read_only = info.read_only;
    lun->file = host_.tree().add_lun_file(directory_, lun->name, file);
    add_lun_files(lun);
    log::info(config().name, "{}: {} {} {}, {} bytes, {}-byte blocks{}{}", lun->name, info.vendor, info.model,
              info.wwid, info.capacity_bytes(), info.block_bytes, info.read_only ? ", read-only" : "",
              info.write_cache ? ", write cache" : "");
    event("lun_added", {{"lun", lun->name}, {"wwid", info.wwid}, {"bytes", info.capacity_bytes()}});
}

void Target::update_lun(Lun& lun, const lun::UnitReport& report) {
    if (!report.info) {
        lun.offline = true;
        lun.last_error = report.problem;
        log::warning(config().name, "{} is offline: {}", lun.name, report.problem);
        event("lun_offline", {{"lun", lun.name}, {"reason", report.problem}});
        host_.worker().reactor().post([owner = lun.owner] {
            if (owner->unit()) owner->unit()->set_offline();
        });
        return;
    }
    const auto before = std::exchange(lun.info, report.info);
    lun.offline = false;
    if (before->blocks != lun.info->blocks || before->read_only != lun.info->read_only) {
        fs::LunFile file;
        file.unit = lun.unit;
        file.capacity_bytes = lun.info->capacity_bytes();
        file.io_bytes = std::max<std::uint32_t>(
            4096, std::bit_ceil(std::min<std::uint32_t>(lun.info->physical_block_bytes, 1U << 20)));
        file.read_only = lun.info->read_only;
        host_.tree().change_lun_file(lun.file, file);
        log::info(config().name, "{}: now {} bytes{}", lun.name, lun.info->capacity_bytes(),
                  lun.info->read_only ? ", read-only" : "");
        event("lun_changed",
              {{"lun", lun.name}, {"bytes", lun.info->capacity_bytes()}, {"read_only", lun.info->read_only}});
    }
    resume(lun);
}

void Target::resume(Lun& lun) {
    const auto found = std::find_if(luns_.begin(), luns_.end(), [&](const auto& one) { return one.get() == &lun; });
    SRPFS_ASSERT(found != luns_.end());
    host_.worker().reactor().post([self = shared_from_this(), shared = *found, info = lun.info] {
        if (shared->owner && shared->owner->unit()) self->fence_and_resume(shared, info);
    });
}

// Lets a unit's I/O go. If writes of an earlier connection may still run in the target, a LUN RESET comes first
// (decisions 1, 3): until it has succeeded those blocks stay locked. On the reactor.
void Target::fence_and_resume(const std::shared_ptr<Lun>& lun, std::shared_ptr<const lun::UnitInfo> info) {
    const auto owner = lun->owner;
    if (!owner->unit()->needs_fence()) return owner->unit()->resume(std::move(info));
    port_->link(0).reset_unit(lun->lun, [self = shared_from_this(), lun, info, owner](const Result<void>& done) {
        if (!owner->unit()) return;
        owner->unit()->resume(info);
        if (done) return self->host_.control().post([lun] { lun->fence_attempts = 0; });
        self->host_.control().post([self, lun, why = done.error().context] {
            if (self->leaving_ || lun->gone) return;
            log::warning(self->config().name, "{}: writes that were given up cannot be fenced yet: {}", lun->name, why);
            if (++lun->fence_attempts >= fence_attempts_max) {
                lun->fence_attempts = 0;
                self->port_->relogin(fmt::format("{}: {}", lun->name, why));
            } else {
                self->rescan_timer_.arm_after(fence_retry_delay);
            }
        });
    });
}

void Target::remove_lun(const std::shared_ptr<Lun>& lun, const std::string& why) {
    log::warning(config().name, "{} is removed: {}", lun->name, why);
    event("lun_removed", {{"lun", lun->name}, {"reason", why}});
    lun->gone = true;
    std::erase(luns_, lun);
    // First the attributes: they refer to the unit only through `lun`.
    if (lun->attributes != fs::NodeId{0}) host_.tree().remove(lun->attributes, [] {});
    if (lun->file != fs::NodeId{0})
        host_.tree().remove(lun->file, [self = shared_from_this(), lun] { self->release_luns({lun}); });
    else
        release_luns({lun});
}

void Target::on_lun_attention(Lun& lun, const scsi::Sense& sense) {
    if (leaving_ || lun.gone) return;
    log::info(config().name, "{}: {}; looking at the logical units again", lun.name, scsi::describe(sense));
    event("unit_attention", {{"lun", lun.name}, {"sense", scsi::describe(sense)}});
    start_scan(scsi::describe(sense));
}

void Target::on_lun_failure(Lun& lun, const std::string& text) {
    lun.last_error = text;
    log::error(config().name, "{}: {}", lun.name, text);
    event("io_error", {{"lun", lun.name}, {"text", text}});
}

void Target::reset_lun(const std::shared_ptr<Lun>& lun, std::function<void(Result<void>)> on_done) {
    log::info(config().name, "SRP reset_device called for {}", lun->name);
    event("lun_reset", {{"lun", lun->name}});
    try_reset({lun, host_.control().timers().now() + reset_wait_limit, std::move(on_done)});
}

// Several at once are granted one after the other: a target gets one LUN RESET at a time (decisions 4).
void Target::try_reset(Reset reset) {
    host_.worker().reactor().post([self = shared_from_this(), owner = reset.lun->owner,
                                   reset = std::move(reset)]() mutable {
        if (!owner || !owner->unit()) {
            self->host_.control().post(
                [reset = std::move(reset)] { reset.on_done(Error(ENODEV, "the logical unit is gone")); });
            return;
        }
        owner->unit()->hold();
        const scsi::Lun address = reset.lun->lun;
        self->port_->link(0).reset_unit(address, [self, reset = std::move(reset)](const Result<void>& done) mutable {
            self->host_.control().post(
                [self, done, reset = std::move(reset)]() mutable { self->on_reset_done(std::move(reset), done); });
        });
    });
}

void Target::on_reset_done(Reset reset, const Result<void>& done) {
    const bool wait = !done && done.error().errno_value() == EBUSY && host_.control().timers().now() < reset.until;
    if (wait && !leaving_) {
        resets_waiting_.push_back(std::move(reset));
        return reset_timer_.arm_after(reset_retry_delay);
    }
    // The scan that follows releases the unit again, after a look at what it is now.
    start_scan("LUN RESET");
    reset.on_done(done);
}

void Target::flush(std::function<void()> on_done) {
    auto left = std::make_shared<std::size_t>(luns_.size() + 1);
    const auto one_done = [left, on_done = std::move(on_done), &control = host_.control()] {
        control.post([left, on_done] {
            if (--*left == 0) on_done();
        });
    };
    for (const auto& lun : luns_)
        host_.worker().reactor().post([owner = lun->owner, one_done] {
            if (owner)
                owner->flush(one_done);
            else
                one_done();
        });
    one_done();
}

// ---- what can be seen ----

void Target::event(std::string_view name, nlohmann::json details) {
    details["target"] = name_;
    host_.events().add(name, details);
}

std::string Target::lun_state(const Lun& lun) const {
    if (lun.gone) return "gone";
    if (lun.offline) return "offline";
    switch (port_->state()) {
        case PortState::running: return "running";
        case PortState::connecting:
        case PortState::blocked: return "blocked";
        case PortState::fail_fast: return "offline";
        case PortState::lost: return "gone";
    }
    return "gone";
}

void Target::list() {
    if (directory_ != fs::NodeId{0}) return;
    port_directory_ = host_.port_directory(port_->facts().port);
    directory_ = host_.tree().add_directory(port_directory_, name_);
    add_control_files();
    event("target_added", {{"port", fmt::format("srp-{}-{}", port_->facts().port.device, port_->facts().port.port)},
                           {"address", config().name}});
}

void Target::add_control_files() {
    using Access = fs::Tree::Access;
    fs::Tree& tree = host_.tree();
    const auto value = [&](std::string_view name, std::function<std::string()> read) {
        add_value(tree, directory_, name, std::move(read));
    };
    const auto fail = [this](const std::shared_ptr<fs::PendingCall>& call, const Error& error) {
        last_error_ = error.context;
        log::warning({}, "{}", error.context);
        call->fail(error.errno_value());
    };
    const auto& parameters = port_->config().parameters;

    value("state", [this] { return std::string(to_string(port_->state())); });
    value("failed_reconnects", [this] { return fmt::format("{}", port_->failed_reconnects()); });
    value("last_error", [this] { return last_error_; });
    for (const auto kind : {initiator::TimerKind::reconnect_delay, initiator::TimerKind::fast_io_fail_tmo,
                            initiator::TimerKind::dev_loss_tmo})
        add_text(
            tree, directory_, initiator::to_string(kind), Access::read_write,
            [this, kind]() -> Result<std::string> {
                const auto& timers = port_->timers();
                switch (kind) {
                    case initiator::TimerKind::reconnect_delay:
                        return initiator::format_timer(timers.reconnect_delay) + "\n";
                    case initiator::TimerKind::fast_io_fail_tmo:
                        return initiator::format_timer(timers.fast_io_fail_tmo) + "\n";
                    case initiator::TimerKind::dev_loss_tmo: return initiator::format_timer(timers.dev_loss_tmo) + "\n";
                }
                return Error(EINVAL, "no such timer");
            },
            [this, kind, fail](std::string_view command, std::shared_ptr<fs::PendingCall> call) {
                const auto done = port_->set_timer(kind, command);
                if (!done) return fail(call, done.error());
                log::info(config().name, "{} set to {}", initiator::to_string(kind), command);
                event("timer_set", {{"timer", initiator::to_string(kind)}, {"value", command}});
                call->succeed();
            });
    add_text(tree, directory_, "delete", Access::write_only, nullptr,
             [this](std::string_view, std::shared_ptr<fs::PendingCall> call) {
                 logout(fmt::format("{}: logged out on request", config().name));
                 call->succeed();
             });
    add_text(tree, directory_, "rescan", Access::write_only, nullptr,
             [this, fail](std::string_view, std::shared_ptr<fs::PendingCall> call) {
                 if (port_->state() != PortState::running)
                     return fail(call, Error(ENOTCONN, fmt::format("{}: not connected (state {})", config().name,
                                                                   to_string(port_->state()))));
                 if (!call->nonblocking()) {
                     // Ctrl-C ends the waiting, not the scan.
                     auto answered = std::make_shared<bool>(false);
                     scan_waiters_.push_back([call, answered, fail](const Result<void>& done) {
                         if (std::exchange(*answered, true)) return;
                         if (done)
                             call->succeed();
                         else
                             fail(call, done.error());
                     });
                     call->on_interrupt([call, answered] {
                         if (!std::exchange(*answered, true)) call->fail(EINTR);
                     });
                 } else {
                     call->succeed();
                 }
                 start_scan("asked for");
             });
    add_text(tree, directory_, "reset", Access::write_only, nullptr,
             [this, fail](std::string_view command, std::shared_ptr<fs::PendingCall> call) {
                 if (command != "1" && command != "host")
                     return fail(call, Error(EINVAL, fmt::format("reset: '{}' is not 'host' or '1'", command)));
                 port_->relogin("asked for");
                 call->succeed();
             });
    value("port_id", [parameters] {
        std::string text;
        for (const std::byte one : srp::target_port_id(parameters))
            text += fmt::format("{}{:02x}", text.empty() ? "" : ":", static_cast<unsigned>(one));
        return text;
    });
    value("roles", [] { return std::string("SRP Target"); });
    value("id_ext", [parameters] { return fmt::format("0x{:016x}", parameters.id_ext); });
    value("ioc_guid", [parameters] { return fmt::format("0x{:016x}", parameters.ioc_guid); });
    if (parameters.ib) {
        // As in the kernel, RDMA/CM targets have none of these (decisions 38).
        value("service_id", [parameters] { return fmt::format("0x{:016x}", parameters.ib->service_id); });
        value("pkey", [parameters] { return fmt::format("0x{:04x}", parameters.ib->pkey); });
        value("dgid", [parameters] { return gid_text(parameters.ib->dgid); });
        value("orig_dgid", [parameters] { return gid_text(parameters.ib->dgid); });
    }
    value("sgid", [this] { return gid_text(port_->facts().port.gid); });
    value("req_lim", [this] { return fmt::format("{}", port_->gauges(0)->req_lim.load(std::memory_order_relaxed)); });
    value("zero_req_lim",
          [this] { return fmt::format("{}", port_->gauges(0)->zero_req_lim.load(std::memory_order_relaxed)); });
    value("local_ib_device", [this] { return port_->facts().port.device; });
    value("local_ib_port", [this] { return fmt::format("{}", port_->facts().port.port); });
    value("ch_count", [this] { return fmt::format("{}", port_->facts().channels); });
    value("comp_vector", [parameters] { return fmt::format("{}", parameters.comp_vector); });
    value("tl_retry_count", [parameters] { return fmt::format("{}", parameters.tl_retry_count); });
    value("cmd_sg_entries", [parameters] { return fmt::format("{}", parameters.cmd_sg_entries); });
    value("allow_ext_sg", [parameters] { return std::string(parameters.allow_ext_sg ? "true" : "false"); });
    value("queue_size", [parameters] { return fmt::format("{}", parameters.queue_size); });
}

void Target::add_lun_files(const std::shared_ptr<Lun>& lun) {
    using Access = fs::Tree::Access;
    fs::Tree& tree = host_.tree();
    lun->attributes = tree.add_directory(directory_, lun->name + ".attr");
    const auto value = [&](std::string_view name, std::function<std::string()> read) {
        add_value(tree, lun->attributes, name, std::move(read));
    };
    const auto fail = [this, lun](const std::shared_ptr<fs::PendingCall>& call, const Error& error) {
        lun->last_error = error.context;
        last_error_ = error.context;
        log::warning({}, "{}", error.context);
        call->fail(error.errno_value());
    };
    value("wwid", [lun] { return lun->info->wwid; });
    value("vendor", [lun] { return lun->info->vendor; });
    value("model", [lun] { return lun->info->model; });
    value("rev", [lun] { return lun->info->revision; });
    value("serial", [lun] { return lun->info->serial; });
    value("logical_block_size", [lun] { return fmt::format("{}", lun->info->block_bytes); });
    value("physical_block_size", [lun] { return fmt::format("{}", lun->info->physical_block_bytes); });
    value("read_only", [lun] { return std::string(lun->info->read_only ? "1" : "0"); });
    value("state", [this, lun] { return lun_state(*lun); });
    value("last_error", [lun] { return lun->last_error; });
    add_text(tree, lun->attributes, "reset", Access::write_only, nullptr,
             [this, lun, fail](std::string_view command, std::shared_ptr<fs::PendingCall> call) {
                 if (command != "1" && command != "lun")
                     return fail(call, Error(EINVAL, fmt::format("reset: '{}' is not 'lun' or '1'", command)));
                 if (call->nonblocking()) {
                     call->succeed();
                     return reset_lun(lun, [](const Result<void>&) {});
                 }
                 auto answered = std::make_shared<bool>(false);
                 call->on_interrupt([call, answered] {
                     if (!std::exchange(*answered, true)) call->fail(EINTR);
                 });
                 reset_lun(lun, [call, answered, fail](const Result<void>& done) {
                     if (std::exchange(*answered, true)) return;
                     if (done)
                         call->succeed();
                     else
                         fail(call, done.error());
                 });
             });
    add_text(tree, lun->attributes, "rescan", Access::write_only, nullptr,
             [this, fail](std::string_view, std::shared_ptr<fs::PendingCall> call) {
                 if (port_->state() != PortState::running)
                     return fail(call, Error(ENOTCONN, fmt::format("{}: not connected (state {})", config().name,
                                                                   to_string(port_->state()))));
                 auto answered = std::make_shared<bool>(call->nonblocking());
                 if (*answered) call->succeed();
                 scan_waiters_.push_back([call, answered, fail](const Result<void>& done) {
                     if (std::exchange(*answered, true)) return;
                     if (done)
                         call->succeed();
                     else
                         fail(call, done.error());
                 });
                 call->on_interrupt([call, answered] {
                     if (!std::exchange(*answered, true)) call->fail(EINTR);
                 });
                 start_scan("asked for");
             });
}

nlohmann::ordered_json Target::lun_report(const Lun& lun) const {
    nlohmann::ordered_json json;
    json["name"] = lun.name;
    json["wwid"] = lun.info->wwid;
    json["bytes"] = lun.info->capacity_bytes();
    json["block_bytes"] = lun.info->block_bytes;
    json["read_only"] = lun.info->read_only;
    json["write_cache"] = lun.info->write_cache;
    json["state"] = lun_state(lun);
    if (lun.counters) {
        const auto count = [&](const char* name, const std::atomic<std::uint64_t>& counter) {
            json[name] = counter.load(std::memory_order_relaxed);
        };
        count("reads", lun.counters->reads);
        count("writes", lun.counters->writes);
        count("flushes", lun.counters->flushes);
        count("bytes_read", lun.counters->bytes_read);
        count("bytes_written", lun.counters->bytes_written);
        count("errors", lun.counters->errors);
        count("retries", lun.counters->retries);
        count("interrupts", lun.counters->interrupts);
        count("unit_attentions", lun.counters->attentions);
        count("read_modify_writes", lun.counters->read_modify_writes);
        count("ghosts", lun.counters->ghosts);
    }
    return json;
}

nlohmann::ordered_json Target::report() const {
    const auto gauges = port_->gauges(0);
    nlohmann::ordered_json json;
    json["name"] = name_;
    json["address"] = config().name;
    json["port"] = fmt::format("srp-{}-{}", port_->facts().port.device, port_->facts().port.port);
    json["state"] = to_string(port_->state());
    json["channels"] = port_->facts().channels;
    json["failed_reconnects"] = port_->failed_reconnects();
    json["req_lim"] = gauges->req_lim.load(std::memory_order_relaxed);
    json["zero_req_lim"] = gauges->zero_req_lim.load(std::memory_order_relaxed);
    json["commands"] = gauges->commands.load(std::memory_order_relaxed);
    json["luns"] = nlohmann::ordered_json::array();
    for (const auto& lun : luns_) json["luns"].push_back(lun_report(*lun));
    return json;
}

}  // namespace srpfs::daemon
