// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "mount.h"

#include <srpfs/base/log.h>

#include <algorithm>
#include <utility>

namespace srpfs::simulation {
namespace {

using initiator::PortState;

// The daemon's.
constexpr auto scan_time_limit = std::chrono::seconds(60);
constexpr auto scan_retry_delay = std::chrono::seconds(2);
constexpr unsigned scans_failed_max = 3;
constexpr auto fence_retry_delay = std::chrono::seconds(5);
constexpr auto idle_check = std::chrono::milliseconds(20);
constexpr unsigned fence_attempts_max = 3;

}  // namespace

void MountedLun::on_attention(lun::Unit&, const scsi::Sense& sense, bool) { mount.on_lun_attention(*this, sense); }
void MountedLun::on_fence_needed(lun::Unit&) { mount.on_lun_attention(*this, {}); }

Mount::Mount(initiator::TargetPortConfig config, reactor::Executor& control, initiator::ReactorDoor door,
             lun::Engine& engine, MountListener& listener)
    : control_(control), reactor_(*door.executor), engine_(engine), listener_(listener),
      port_(initiator::TargetPort::create(std::move(config), control, {door}, *this)),
      rescan_timer_(control.timers(), [this] { start_scan("trying again"); }) {}

Mount::~Mount() { SRPFS_ASSERT(units_alive_ == 0); }

void Mount::login() {
    port_->login([this](const Result<initiator::PortFacts>& facts) {
        if (!facts) logout(facts.error().context);
    });
}

void Mount::logout(const std::string& why) {
    if (std::exchange(leaving_, true)) return;
    rescan_timer_.disarm();
    port_->close(why);
    for (const auto& lun : std::exchange(luns_, {})) release(lun);
    check_gone();
}

void Mount::release(const std::shared_ptr<MountedLun>& lun) {
    lun->gone = true;
    reactor_.post([self = shared_from_this(), lun] { self->retire(lun); });
}

// On the reactor: destroys the unit once nothing of it is in flight.
void Mount::retire(const std::shared_ptr<MountedLun>& lun) {
    lun->unit->remove();
    lun->idle_timer = std::make_unique<reactor::Timer>(engine_.timers(), [self = shared_from_this(), lun] {
        if (!lun->unit->is_idle()) return lun->idle_timer->arm_after(idle_check);
        lun->unit.reset();
        const auto keep = self;
        keep->reactor_.post([keep, shared = lun] {
            shared->idle_timer.reset();
            keep->control_.post([keep] {
                --keep->units_alive_;
                keep->check_gone();
            });
        });
    });
    lun->idle_timer->arm_after(Duration::zero());
}

void Mount::on_port_closed(initiator::TargetPort&) {
    port_closed_ = true;
    if (!leaving_) logout("the target port was closed");
    check_gone();
}

void Mount::check_gone() {
    if (!leaving_ || !port_closed_ || units_alive_ > 0 || units_pending_ > 0 || scanning_ || gone_told_) return;
    gone_told_ = true;
    listener_.on_gone();
}

std::string Mount::describe_end() const {
    return fmt::format("port closed: {}, {} units alive, {} pending, scanning: {}", port_closed_, units_alive_,
                       units_pending_, scanning_);
}

void Mount::on_port_state(initiator::TargetPort&, PortState from, PortState to, const std::string& why) {
    listener_.on_port_state(from, to);
    if (to == PortState::lost && !leaving_) logout(why);
}

void Mount::on_port_login(initiator::TargetPort&, bool) {
    if (leaving_) return;
    listener_.on_logged_in();
    start_scan("login");
}

void Mount::start_scan(const std::string& why) {
    if (leaving_) return;
    if (scanning_) {
        scan_again_ = true;
        return;
    }
    if (port_->state() != PortState::running) return;
    log::debug("mount", "looking for logical units: {}", why);
    scanning_ = true;
    rescan_timer_.disarm();
    reactor_.post([self = shared_from_this()] {
        self->scan_ = lun::start_scan(self->engine_, self->port_->link(0), scan_time_limit,
                                      [self](Result<lun::ScanReport> report) {
                                          self->control_.post([self, report = std::move(report)]() mutable {
                                              self->scan_.reset();
                                              self->on_scan(std::move(report));
                                          });
                                      });
    });
}

void Mount::on_scan(Result<lun::ScanReport> report) {
    scanning_ = false;
    if (leaving_) return check_gone();
    if (!report) {
        ++scans_failed_;
        log::info("mount", "scan failed: {}", report.error().context);
        scan_again_ = false;
        if (scans_failed_ >= scans_failed_max)
            for (const auto& lun : luns_) {
                lun->offline = true;
                reactor_.post([lun] {
                    if (lun->unit) lun->unit->set_offline();
                });
            }
        if (port_->state() == PortState::running)
            rescan_timer_.arm_after(scan_retry_delay * std::min(30U, scans_failed_));
        return;
    }
    scans_failed_ = 0;
    if (std::exchange(scan_again_, false)) return start_scan("once more");
    if (port_->state() != PortState::running) return;
    apply(*report);
}

void Mount::apply(const lun::ScanReport& report) {
    for (const auto& lun : std::vector(luns_)) {
        const auto found = std::find_if(report.units.begin(), report.units.end(),
                                        [&](const auto& unit) { return unit.lun == lun->lun; });
        if (found == report.units.end() || !found->present) {
            remove_lun(lun);
            continue;
        }
        if (!found->info) {
            lun->offline = true;
            log::info("mount", "{} is offline: {}", lun->lun.file_name(), found->problem);
            reactor_.post([lun] {
                if (lun->unit) lun->unit->set_offline();
            });
            continue;
        }
        const auto& now = *found->info;
        const auto& before = *lun->info;
        const bool same = now.wwid.empty() && before.wwid.empty()
                              ? now.vendor == before.vendor && now.model == before.model && now.serial == before.serial
                              : now.wwid == before.wwid;
        if (!same || now.block_bytes != before.block_bytes) {
            remove_lun(lun);
            continue;
        }
        lun->info = found->info;
        lun->offline = false;
        resume(lun);
    }
    for (const lun::UnitReport& found : report.units) {
        const bool known =
            std::any_of(luns_.begin(), luns_.end(), [&](const auto& lun) { return lun->lun == found.lun; });
        if (!known && found.info) add_lun(found);
    }
}

void Mount::add_lun(const lun::UnitReport& report) {
    auto lun = std::make_shared<MountedLun>(*this, report.lun, report.info);
    luns_.push_back(lun);
    ++units_pending_;
    ++units_alive_;
    reactor_.post([self = shared_from_this(), lun] {
        lun->unit = std::make_unique<lun::Unit>(self->engine_, self->port_->link(0), lun->lun,
                                                self->port_->config().parameters.max_cmd_per_lun, lun->listener());
        lun->unit->recognise(lun->info);
        self->fence_and_resume(lun, lun->info);
        self->control_.post([self, lun] {
            --self->units_pending_;
            if (self->leaving_) return self->check_gone();
            if (lun->gone) return;
            lun->announced = true;
            self->listener_.on_lun_added(lun);
        });
    });
}

void Mount::remove_lun(const std::shared_ptr<MountedLun>& lun) {
    const auto keep = lun;
    std::erase(luns_, keep);
    release(keep);
}

void Mount::resume(const std::shared_ptr<MountedLun>& lun) {
    reactor_.post([self = shared_from_this(), lun, info = lun->info] {
        if (lun->unit) self->fence_and_resume(lun, info);
    });
}

void Mount::fence_and_resume(const std::shared_ptr<MountedLun>& lun, std::shared_ptr<const lun::UnitInfo> info) {
    if (!lun->unit->needs_fence()) return lun->unit->resume(std::move(info));
    port_->link(0).reset_unit(lun->lun, [self = shared_from_this(), lun, info](const Result<void>& done) {
        if (!lun->unit) return;
        lun->unit->resume(info);
        self->control_.post([self, lun, done] {
            if (done) {
                lun->fence_attempts = 0;
                return;
            }
            if (self->leaving_ || lun->gone) return;
            log::info("mount", "not fenced: {}", done.error().context);
            if (++lun->fence_attempts >= fence_attempts_max) {
                lun->fence_attempts = 0;
                self->port_->relogin(done.error().context);
            } else {
                self->rescan_timer_.arm_after(fence_retry_delay);
            }
        });
    });
}

void Mount::on_lun_attention(MountedLun& lun, const scsi::Sense& sense) {
    control_.post([self = shared_from_this(), shared = lun.shared_from_this(), sense] {
        if (!self->leaving_ && !shared->gone) self->start_scan(scsi::describe(sense));
    });
}

void Mount::reset_lun(const std::shared_ptr<MountedLun>& lun) {
    reactor_.post([self = shared_from_this(), lun] {
        if (!lun->unit) return;
        lun->unit->hold();
        self->port_->link(0).reset_unit(
            lun->lun, [self](const Result<void>&) { self->control_.post([self] { self->start_scan("LUN RESET"); }); });
    });
}

}  // namespace srpfs::simulation
