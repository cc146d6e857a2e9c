// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A logged-in target as the daemon keeps one, without its tree: scans after each login and attention, fences what is
// unknown, removes what has become another unit. Follows src/daemon/target.cc; where the two differ, that one is right.

#pragma once

#include <srpfs/initiator/target_port.h>
#include <srpfs/lun/engine.h>
#include <srpfs/lun/probe.h>
#include <srpfs/lun/unit.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace srpfs::simulation {

class Mount;

struct MountedLun final : std::enable_shared_from_this<MountedLun>, private lun::UnitListener {
    MountedLun(Mount& mount_, const scsi::Lun& lun_, std::shared_ptr<const lun::UnitInfo> info_)
        : mount(mount_), lun(lun_), info(std::move(info_)) {}
    lun::UnitListener& listener() { return *this; }

    Mount& mount;
    scsi::Lun lun;
    std::shared_ptr<const lun::UnitInfo> info;  // control's
    std::unique_ptr<lun::Unit> unit;            // the reactor's
    std::unique_ptr<reactor::Timer> idle_timer;
    bool offline = false;
    bool gone = false;
    bool announced = false;  // the listener has been told
    unsigned fence_attempts = 0;

private:
    void on_attention(lun::Unit&, const scsi::Sense& sense, bool hold) override;
    void on_fence_needed(lun::Unit&) override;
    void on_failure(lun::Unit&, const lun::Operation&) override {}
};

class MountListener {
public:
    virtual void on_lun_added(const std::shared_ptr<MountedLun>& lun) = 0;
    virtual void on_port_state(initiator::PortState from, initiator::PortState to) = 0;
    virtual void on_logged_in() = 0;
    virtual void on_gone() = 0;  // nothing of it is left; destroy it

protected:
    ~MountListener() = default;
};

class Mount final : public std::enable_shared_from_this<Mount>, private initiator::TargetPortListener {
public:
    Mount(initiator::TargetPortConfig config, reactor::Executor& control, initiator::ReactorDoor door,
          lun::Engine& engine, MountListener& listener);
    ~Mount();

    void login();
    void logout(const std::string& why);
    void rescan() { start_scan("asked for"); }
    void reset_host() { port_->relogin("asked for"); }
    void reset_lun(const std::shared_ptr<MountedLun>& lun);

    [[nodiscard]] initiator::TargetPort& port() { return *port_; }
    [[nodiscard]] const std::vector<std::shared_ptr<MountedLun>>& luns() const { return luns_; }
    [[nodiscard]] bool is_quiet() const { return !scanning_ && units_pending_ == 0; }
    [[nodiscard]] bool is_leaving() const { return leaving_; }
    [[nodiscard]] std::string describe_end() const;

    void on_lun_attention(MountedLun& lun, const scsi::Sense& sense);

private:
    void on_port_state(initiator::TargetPort& port, initiator::PortState from, initiator::PortState to,
                       const std::string& why) override;
    void on_port_login(initiator::TargetPort& port, bool first) override;
    void on_port_closed(initiator::TargetPort& port) override;

    void start_scan(const std::string& why);
    void on_scan(Result<lun::ScanReport> report);
    void apply(const lun::ScanReport& report);
    void add_lun(const lun::UnitReport& report);
    void remove_lun(const std::shared_ptr<MountedLun>& lun);
    void release(const std::shared_ptr<MountedLun>& lun);
    void resume(const std::shared_ptr<MountedLun>& lun);
    void fence_and_resume(const std::shared_ptr<MountedLun>& lun, std::shared_ptr<const lun::UnitInfo> info);
    void retire(const std::shared_ptr<MountedLun>& lun);
    void check_gone();

    reactor::Executor& control_;
    reactor::Executor& reactor_;
    lun::Engine& engine_;
    MountListener& listener_;
    std::shared_ptr<initiator::TargetPort> port_;
    std::vector<std::shared_ptr<MountedLun>> luns_;
    reactor::Timer rescan_timer_;
    std::shared_ptr<lun::Scan> scan_;
    bool scanning_ = false, scan_again_ = false, leaving_ = false, port_closed_ = false, gone_told_ = false;
    unsigned scans_failed_ = 0, units_alive_ = 0, units_pending_ = 0;
};

}  // namespace srpfs::simulation
