// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "mount.h"

#include <srpfs/base/log.h>

#include <utility>

namespace srpfs::simulation {

using initiator::PortState;

Mount::Mount(initiator::TargetPortConfig config, reactor::Executor& control, initiator::ReactorDoor door,
             lun::Engine& engine, Duration rescan_interval, MountListener& listener)
    : listener_(listener) {
    lun::InventoryConfig inventory{.name = "mount",
                                   .queue_depth = config.parameters.max_cmd_per_lun,
                                   .rescan_interval = rescan_interval,
                                   .suspects_earlier_writes = nullptr};
    reactor::Executor& reactor = *door.executor;
    port_ = initiator::TargetPort::create(std::move(config), control, {door}, *this);
    inventory_ = lun::Inventory::create(std::move(inventory), control, reactor, engine, port_, *this);
}

void Mount::login() {
    port_->login([this](const Result<initiator::PortFacts>& facts) {
        if (!facts) logout(facts.error().context);
    });
}

void Mount::logout(const std::string& why) {
    if (std::exchange(leaving_, true)) return;
    inventory_->close(why);
    port_->close(why);
    for (const auto& unit : std::vector(inventory_->units())) release(unit);
    check_gone();
}

void Mount::on_port_closed(initiator::TargetPort&) {
    port_closed_ = true;
    if (!leaving_) logout("the target port was closed");
    check_gone();
}

void Mount::on_inventory_gone(bool) {
    inventory_gone_ = true;
    check_gone();
}

void Mount::check_gone() {
    if (!leaving_ || !port_closed_ || !inventory_gone_ || gone_told_) return;
    gone_told_ = true;
    listener_.on_gone();
}

std::string Mount::describe_end() const {
    return fmt::format("port closed: {}, {}", port_closed_, inventory_->describe());
}

void Mount::on_port_state(initiator::TargetPort&, PortState from, PortState to, const std::string& why) {
    listener_.on_port_state(from, to);
    if (to == PortState::lost && !leaving_) logout(why);
}

void Mount::on_port_login(initiator::TargetPort&, bool) {
    if (leaving_) return;
    listener_.on_logged_in();
    inventory_->scan("login");
}

void Mount::release(const std::shared_ptr<lun::ListedUnit>& unit) {
    listener_.on_lun_removed(unit, [inventory = inventory_, unit] { inventory->release(unit); });
}

void Mount::on_unit_added(const std::shared_ptr<lun::ListedUnit>& unit, lun::Unit* pointer) {
    listener_.on_lun_added(unit, pointer);
}

void Mount::on_unit_offline(lun::ListedUnit& unit, const std::string& why) {
    log::info("mount", "{} is offline: {}", unit.lun().file_name(), why);
}

void Mount::on_unit_removed(const std::shared_ptr<lun::ListedUnit>& unit, const std::string&) { release(unit); }

}  // namespace srpfs::simulation
