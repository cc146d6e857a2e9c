// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A logged-in target as the daemon keeps one, without its tree.

#pragma once

#include <srpfs/initiator/target_port.h>
#include <srpfs/lun/engine.h>
#include <srpfs/lun/inventory.h>
#include <srpfs/lun/unit.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace srpfs::simulation {

class MountListener {
public:
    virtual void on_lun_added(const std::shared_ptr<lun::ListedUnit>& lun, lun::Unit* pointer) = 0;
    virtual void on_lun_changed(const lun::ListedUnit& lun) { (void)lun; }
    virtual void on_lun_attention() {}
    // Call `release` once nobody starts anything on it.
    virtual void on_lun_removed(const std::shared_ptr<lun::ListedUnit>& lun, std::function<void()> release) {
        (void)lun;
        release();
    }
    virtual void on_lun_registration(const lun::ListedUnit& lun, bool lost) { (void)lun, (void)lost; }
    virtual void on_port_state(initiator::PortState from, initiator::PortState to) = 0;
    virtual void on_logged_in() = 0;
    virtual void on_gone() = 0;  // nothing of it is left; destroy it

protected:
    ~MountListener() = default;
};

class Mount final : public std::enable_shared_from_this<Mount>,
                    private initiator::TargetPortListener,
                    private lun::InventoryListener {
public:
    // `rescan_interval`: see lun::InventoryConfig.
    Mount(initiator::TargetPortConfig config, reactor::Executor& control, initiator::ReactorDoor door,
          lun::Engine& engine, Duration rescan_interval, MountListener& listener);

    void login();
    void logout(const std::string& why);
    void rescan() { inventory_->scan("asked for"); }
    void reset_host() { port_->relogin("asked for"); }
    void reset_lun(const std::shared_ptr<lun::ListedUnit>& lun) {
        inventory_->reset(lun, [](const Result<void>&) {});
    }

    [[nodiscard]] initiator::TargetPort& port() { return *port_; }
    [[nodiscard]] const std::vector<std::shared_ptr<lun::ListedUnit>>& luns() const { return inventory_->units(); }
    [[nodiscard]] bool is_quiet() const { return inventory_->is_quiet(); }
    [[nodiscard]] bool is_leaving() const { return leaving_; }
    [[nodiscard]] std::string describe_end() const;

private:
    void on_port_state(initiator::TargetPort& port, initiator::PortState from, initiator::PortState to,
                       const std::string& why) override;
    void on_port_login(initiator::TargetPort& port, bool first) override;
    void on_port_closed(initiator::TargetPort& port) override;

    void on_unit_added(const std::shared_ptr<lun::ListedUnit>& unit, lun::Unit* pointer) override;
    void on_unit_changed(lun::ListedUnit& unit) override { listener_.on_lun_changed(unit); }
    void on_unit_offline(lun::ListedUnit& unit, const std::string& why) override;
    void on_unit_removed(const std::shared_ptr<lun::ListedUnit>& unit, const std::string& why) override;
    void on_unit_attention(lun::ListedUnit&, const scsi::Sense&) override { listener_.on_lun_attention(); }
    void on_unit_registration(lun::ListedUnit& unit, const std::string&, bool lost) override {
        listener_.on_lun_registration(unit, lost);
    }
    void on_unit_failure(lun::ListedUnit&, const std::string&) override {}
    void on_listed() override {}
    void on_scanned(const Result<void>&) override {}
    void on_inventory_gone(bool left_writes) override;

    void release(const std::shared_ptr<lun::ListedUnit>& unit);
    void check_gone();

    MountListener& listener_;
    std::shared_ptr<initiator::TargetPort> port_;
    std::shared_ptr<lun::Inventory> inventory_;
    bool leaving_ = false, port_closed_ = false, inventory_gone_ = false, gone_told_ = false;
};

}  // namespace srpfs::simulation
