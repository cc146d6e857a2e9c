// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A target as an administrator sees it: its directory with control files, its logical units as files, kept in step with
// what the transport and the target say. Control thread.

#pragma once

#include "event_log.h"
#include "login_lock.h"
#include "raw_door.h"
#include "text_file.h"
#include "totals.h"
#include "views.h"
#include "worker.h"

#include <srpfs/fs/tree.h>
#include <srpfs/initiator/target_port.h>
#include <srpfs/lun/inventory.h>

#include <nlohmann/json_fwd.hpp>

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace srpfs::daemon {

class Target;

// What a Target needs of its surroundings.
class TargetHost {
public:
    virtual fs::Tree& tree() = 0;
    virtual EventLog& events() = 0;
    virtual Views& views() = 0;
    virtual reactor::Executor& control() = 0;
    [[nodiscard]] virtual const Config& mount_config() const = 0;
    // See UnitHomes.
    virtual unsigned home_of(const lun::UnitInfo& info, unsigned proposed) = 0;
    [[nodiscard]] virtual std::optional<unsigned> known_home(const lun::UnitInfo& info) const = 0;
    [[nodiscard]] virtual bool has_several_homes() const = 0;
    // The directory srp-<hca>-<port>, made when it is not there yet.
    virtual fs::NodeId port_directory(const fabric::LocalPort& port) = 0;
    // Something happened to a target that `events` shows.
    virtual void on_event() = 0;
    // Nothing is left of it: destroy it (not from within this call).
    virtual void on_target_gone(Target& target) = 0;

protected:
    ~TargetHost() = default;
};

class Target final : private initiator::TargetPortListener,
                     private lun::InventoryListener,
                     public std::enable_shared_from_this<Target> {
public:
    // `home` is the reactor that has its channels and units, the one of that index (LunFile::reactor).
    // `rescan_interval`: see lun::InventoryConfig.
    Target(TargetHost& host, Worker& home, unsigned home_index, initiator::TargetPortConfig config,
           std::shared_ptr<LoginLock> lock, Duration rescan_interval);
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
    [[nodiscard]] unsigned home() const { return home_; }
    // The login failed because this reactor has one of its units: it would succeed there.
    [[nodiscard]] std::optional<unsigned> better_home() const { return better_home_; }
    [[nodiscard]] bool is_leaving() const { return leaving_; }
    // It was given up by dev_loss_tmo, and nobody has logged out.
    [[nodiscard]] bool was_lost() const { return was_lost_; }
    [[nodiscard]] const std::string& last_error() const { return last_error_; }
    // For `stats`, but for the reactor's name.
    [[nodiscard]] nlohmann::ordered_json report();
    // Of the units it has shown, those that are gone included.
    [[nodiscard]] Totals totals() { return totals_.read(); }
    static std::string directory_name(const srp::LoginParameters& parameters);

private:
    struct Lun;

    void on_port_state(initiator::TargetPort& port, initiator::PortState from, initiator::PortState to,
                       const std::string& why) override;
    void on_port_login(initiator::TargetPort& port, bool first) override;
    void on_port_closed(initiator::TargetPort& port) override;

    void on_unit_added(const std::shared_ptr<lun::ListedUnit>& unit, lun::Unit* pointer) override;
    void on_unit_changed(lun::ListedUnit& unit) override;
    void on_unit_offline(lun::ListedUnit& unit, const std::string& why) override;
    void on_unit_removed(const std::shared_ptr<lun::ListedUnit>& unit, const std::string& why) override;
    void on_unit_attention(lun::ListedUnit& unit, const scsi::Sense& sense) override;
    void on_unit_registration(lun::ListedUnit& unit, const std::string& text, bool lost) override;
    void on_unit_failure(lun::ListedUnit& unit, const std::string& text) override;
    void on_unit_write_loss(lun::ListedUnit& unit, const std::string& text) override;
    void on_listed() override;
    void on_scanned(const Result<void>& result) override;
    void on_inventory_gone(bool left_writes) override;

    [[nodiscard]] std::shared_ptr<Lun> find(const lun::ListedUnit& unit) const;  // nullptr: not shown
    [[nodiscard]] std::vector<std::string> names_of(const Lun& lun) const;
    static void apply_options(fs::LunFile& file, const config::LunOptions& options);
    [[nodiscard]] fs::LunFile lun_file(const Lun& lun) const;
    [[nodiscard]] fs::ExtendedAttributes lun_attributes(const Lun& lun) const;
    [[nodiscard]] bool may_show(const lun::ListedUnit& unit);
    [[nodiscard]] bool belongs_elsewhere();
    void show_unit(const std::shared_ptr<lun::ListedUnit>& unit, lun::Unit* pointer);
    void drop_pages(const Lun& lun);
    void release_units();
    void hide();
    [[nodiscard]] Views::Place place(std::string file) const;
    void list();
    void add_control_files();
    void add_lun_files(const std::shared_ptr<Lun>& lun);
    [[nodiscard]] FailCall refusal(const std::shared_ptr<Lun>& lun);
    [[nodiscard]] bool is_read_only_here(const Lun& lun) const;
    void add_raw_door(const std::shared_ptr<Lun>& lun);
    void add_reservations(const std::shared_ptr<Lun>& lun);
    void add_option_files(const std::shared_ptr<Lun>& lun);
    void add_cache_file(const std::shared_ptr<Lun>& lun);
    void add_page_files(const std::shared_ptr<Lun>& lun);
    using OnPage = std::function<void(std::span<const std::byte>)>;
    void ask(const std::shared_ptr<Lun>& lun, const scsi::Cdb& cdb, const std::shared_ptr<fs::PendingCall>& call,
             OnPage on_page);
    void add_vpd_text(const std::shared_ptr<Lun>& lun, std::shared_ptr<std::string> text, std::size_t index,
                      const std::shared_ptr<fs::PendingCall>& call);
    void fail_login(const Error& error);
    void check_gone();
    void event(std::string_view name, nlohmann::json details);
    [[nodiscard]] std::string lun_state(const Lun& lun) const;
    [[nodiscard]] nlohmann::ordered_json lun_report(const Lun& lun) const;

    TargetHost& host_;
    reactor::Executor& reactor_;  // of its home
    const unsigned home_;
    std::string name_;
    std::shared_ptr<LoginLock> lock_;
    std::shared_ptr<initiator::TargetPort> port_;
    std::function<void(Result<void>)> on_login_done_;
    fs::NodeId directory_{0};
    fs::NodeId port_directory_{0};
    Views::Key view_ = 0;
    std::shared_ptr<lun::Inventory> inventory_;
    std::vector<std::shared_ptr<Lun>> luns_;
    // By the first scan, where there are several homes: not shown before it is known whether the login stays here.
    std::vector<std::pair<std::shared_ptr<lun::ListedUnit>, lun::Unit*>> found_;
    std::optional<unsigned> better_home_;
    bool has_units_here_ = false;  // so that another login would have the same home
    bool inventory_gone_ = false;
    bool tree_removed_ = false;
    bool port_closed_ = false;
    bool leaving_ = false;
    bool was_lost_ = false;
    bool gone_told_ = false;
    std::string last_error_;
    // What became of the connections, the latest last.
    struct Transition {
        std::string time;
        initiator::PortState from, to;
        std::string reason;
    };
    std::deque<Transition> history_;
    std::uint64_t logins_ = 0, losses_ = 0;
    RunningTotals totals_;
};

}  // namespace srpfs::daemon
