// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A target as an administrator sees it: its directory with control files, its logical units as files, kept in step with
// what the transport and the target say. Control thread.

#pragma once

#include "event_log.h"
#include "login_lock.h"
#include "worker.h"

#include <srpfs/fs/tree.h>
#include <srpfs/initiator/target_port.h>
#include <srpfs/lun/probe.h>
#include <srpfs/lun/unit.h>

#include <nlohmann/json_fwd.hpp>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace srpfs::daemon {

class Target;

// What a Target needs of its surroundings.
class TargetHost {
public:
    virtual fs::Tree& tree() = 0;
    virtual EventLog& events() = 0;
    virtual reactor::Executor& control() = 0;
    virtual Worker& worker() = 0;
    // The directory srp-<hca>-<port>, made when it is not there yet.
    virtual fs::NodeId port_directory(const fabric::LocalPort& port) = 0;
    // Nothing is left of it: destroy it (not from within this call).
    virtual void on_target_gone(Target& target) = 0;

protected:
    ~TargetHost() = default;
};

// One logical unit on the reactor, as the control thread holds it.
class UnitOwner;

class Target final : private initiator::TargetPortListener, public std::enable_shared_from_this<Target> {
public:
    Target(TargetHost& host, initiator::TargetPortConfig config, std::shared_ptr<LoginLock> lock);
    ~Target();

    // `on_done` is called once: the tree shows the target and its units, or why not (the target is then on its way to
    // on_target_gone).
    void login(std::function<void(Result<void>)> on_done);
    void cancel_login();
    void logout(const std::string& why);
    // Flushes every unit that has unflushed writes; `on_done` in any case.
    void flush(std::function<void()> on_done);

    [[nodiscard]] const initiator::TargetPortConfig& config() const { return port_->config(); }
    [[nodiscard]] const initiator::TargetPort& port() const { return *port_; }
    [[nodiscard]] const std::string& name() const { return name_; }  // the directory's name
    [[nodiscard]] bool is_listed() const { return directory_ != fs::NodeId{0}; }
    [[nodiscard]] bool is_leaving() const { return leaving_; }
    [[nodiscard]] const std::string& last_error() const { return last_error_; }
    [[nodiscard]] nlohmann::ordered_json report() const;
    static std::string directory_name(const srp::LoginParameters& parameters);

private:
    struct Lun;

    void on_port_state(initiator::TargetPort& port, initiator::PortState from, initiator::PortState to,
                       const std::string& why) override;
    void on_port_login(initiator::TargetPort& port, bool first) override;
    void on_port_closed(initiator::TargetPort& port) override;

    void start_scan(const std::string& why);
    void on_scan(Result<lun::ScanReport> report);
    void apply(const lun::ScanReport& report);
    void add_lun(const lun::UnitReport& report);
    void show_lun(const std::shared_ptr<Lun>& lun);
    void update_lun(Lun& lun, const lun::UnitReport& report);
    void remove_lun(const std::shared_ptr<Lun>& lun, const std::string& why);
    void release_luns(std::vector<std::shared_ptr<Lun>> luns);
    void finish_scan_round();
    void resume(Lun& lun);
    void fence_and_resume(const std::shared_ptr<Lun>& lun, std::shared_ptr<const lun::UnitInfo> info);
    struct Reset {
        std::shared_ptr<Lun> lun;
        Instant until;  // how long it waits for others
        std::function<void(Result<void>)> on_done;
    };
    void reset_lun(const std::shared_ptr<Lun>& lun, std::function<void(Result<void>)> on_done);
    void try_reset(Reset reset);
    void on_reset_done(Reset reset, const Result<void>& done);
    void on_lun_attention(Lun& lun, const scsi::Sense& sense);
    void on_lun_failure(Lun& lun, const std::string& text);

    void list();
    void add_control_files();
    void add_lun_files(const std::shared_ptr<Lun>& lun);
    void fail_login(const Error& error);
    void finish_login();
    void check_gone();
    void event(std::string_view name, nlohmann::json details);
    [[nodiscard]] std::string lun_state(const Lun& lun) const;
    [[nodiscard]] nlohmann::ordered_json lun_report(const Lun& lun) const;

    TargetHost& host_;
    std::string name_;
    std::shared_ptr<LoginLock> lock_;
    std::shared_ptr<initiator::TargetPort> port_;
    std::function<void(Result<void>)> on_login_done_;
    fs::NodeId directory_{0};
    fs::NodeId port_directory_{0};
    std::vector<std::shared_ptr<Lun>> luns_;
    unsigned units_pending_ = 0;  // being created on the reactor
    unsigned units_alive_ = 0;    // exist on the reactor, removed ones included
    bool tree_removed_ = false;
    bool port_closed_ = false;
    bool leaving_ = false;
    bool gone_told_ = false;
    bool left_writes_ = false;         // a unit has gone with writes of which nobody knows the end
    std::shared_ptr<lun::Scan> scan_;  // used on the reactor
    bool scanning_ = false;
    bool scan_again_ = false;
    std::string scan_again_why_;
    unsigned scans_failed_ = 0;
    std::vector<std::function<void(Result<void>)>> scan_waiters_;
    std::vector<Reset> resets_waiting_;  // for another one to end
    reactor::Timer rescan_timer_;
    reactor::Timer reset_timer_;
    std::string last_error_;
};

}  // namespace srpfs::daemon
