// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "target.h"

#include <srpfs/base/log.h>
#include <srpfs/base/utf8.h>
#include <srpfs/daemon/raw_ioctl.h>
#include <srpfs/lun/registration.h>
#include <srpfs/lun/unit_question.h>
#include <srpfs/scsi/page_text.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>

namespace srpfs::daemon {
namespace {

constexpr std::size_t history_kept = 16;
constexpr std::uint16_t inquiry_bytes_max = 255;

using initiator::PortState;

constexpr auto question_limit = std::chrono::seconds(5);  // for what somebody reads in lunN.attr
constexpr std::uint16_t page_bytes_max = 4096;
constexpr std::size_t vpd_files_max = 64;  // of a unit

std::string gid_text(const fabric::Gid& gid) {
    std::string text;
    for (std::size_t i = 0; i < gid.size(); i += 2)
        text += fmt::format("{}{:02x}{:02x}", i ? ":" : "", static_cast<unsigned>(gid[i]),
                            static_cast<unsigned>(gid[i + 1]));
    return text;
}

// For what takes its time: tells the caller the end of it, or nothing if he does not wait. A signal ends the waiting,
// not what is waited for.
std::function<void(Result<void>)> answer_later(const std::shared_ptr<fs::PendingCall>& call, FailCall fail) {
    if (call->nonblocking()) {
        call->succeed();
        return [](const Result<void>&) {};
    }
    auto answered = std::make_shared<bool>(false);
    call->on_interrupt([call, answered] {
        if (!std::exchange(*answered, true)) call->fail(EINTR);
    });
    return [call, answered, fail = std::move(fail)](const Result<void>& done) {
        if (std::exchange(*answered, true)) return;
        if (done)
            call->succeed();
        else
            fail(call, done.error());
    };
}

}  // namespace

struct Target::Lun {
    std::string name;
    std::shared_ptr<lun::ListedUnit> unit;
    lun::Unit* pointer = nullptr;  // for LunFile
    fs::NodeId file{0}, attributes{0};
    Views::Key view = 0;
    bool refuses_writes = false;  // `read_only` has been set here
    config::LunOptions options;   // what the mount says of it; for the life of its files
    std::shared_ptr<RawDoor> door;
    std::string last_error;
};

// ---- life ----

std::string Target::directory_name(const srp::LoginParameters& parameters) {
    std::string name = fmt::format("{:016x}-{:016x}", parameters.id_ext, parameters.ioc_guid);
    if (parameters.initiator_ext != 0) name += fmt::format("-{:016x}", parameters.initiator_ext);
    return name;
}

Target::Target(TargetHost& host, Worker& home, unsigned home_index, initiator::TargetPortConfig config,
               std::shared_ptr<LoginLock> lock, Duration rescan_interval)
    : host_(host), reactor_(home.reactor()), home_(home_index), name_(directory_name(config.parameters)),
      lock_(std::move(lock)) {
    const bool loopback = std::holds_alternative<fabric::LoopbackAddress>(config.address);
    initiator::ReactorDoor door{&home.reactor(), loopback ? home.loopback() : home.verbs()};
    SRPFS_ASSERT(door.fabric != nullptr);
    config.admit = [shared = lock_](const fabric::LocalPort& port) { return shared->take(port); };
    lun::InventoryConfig inventory{.name = config.name,
                                   .queue_depth = config.parameters.max_cmd_per_lun,
                                   .rescan_interval = rescan_interval,
                                   .suspects_earlier_writes = [lock = lock_] { return lock->was_left_behind(); }};
    port_ = initiator::TargetPort::create(std::move(config), host.control(), {door}, *this);
    inventory_ =
        lun::Inventory::create(std::move(inventory), host.control(), home.reactor(), home.engine(), port_, *this);
}

Target::~Target() = default;

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

void Target::logout(const std::string& why) {
    if (std::exchange(leaving_, true)) return;
    if (lock_) lock_->release();
    inventory_->close(why);
    port_->close(why);
    if (directory_ != fs::NodeId{0}) {
        event("target_removed", {{"reason", why}});
        hide();
        host_.tree().remove(std::exchange(directory_, fs::NodeId{0}), [self = shared_from_this()] {
            self->tree_removed_ = true;
            self->release_units();
        });
    } else {
        tree_removed_ = true;
        release_units();
    }
    if (on_login_done_) {
        auto on_done = std::exchange(on_login_done_, nullptr);
        on_done(Error(ECANCELED, why));
    }
}

Views::Place Target::place(std::string file) const {
    const fabric::LocalPort& port = port_->facts().port;
    return {.port = fmt::format("{}-{}", port.device, port.port), .target = name_, .file = std::move(file)};
}

// No other name leads here any more.
void Target::hide() {
    host_.views().remove(std::exchange(view_, 0));
    for (const auto& lun : luns_) host_.views().remove(std::exchange(lun->view, 0));
}

// No file refers to them any more.
void Target::release_units() {
    luns_.clear();
    found_.clear();
    for (const auto& unit : std::vector(inventory_->units())) inventory_->release(unit);
    check_gone();
}

void Target::on_port_closed(initiator::TargetPort&) {
    port_closed_ = true;
    if (!leaving_) logout("the target port was closed");
    check_gone();
}

void Target::check_gone() {
    if (!leaving_ || !port_closed_ || !tree_removed_ || !inventory_gone_ || gone_told_) return;
    gone_told_ = true;
    host_.on_target_gone(*this);
}

// ---- the transport ----

void Target::on_port_state(initiator::TargetPort& port, PortState from, PortState to, const std::string& why) {
    if (to != PortState::running) last_error_ = why;
    if (from == PortState::running) ++losses_;
    history_.push_back({utc_now(), from, to, why});
    if (history_.size() > history_kept) history_.pop_front();
    event("target_state",
          {{"from", to_string(from)}, {"to", to_string(to)}, {"reason", why}, {"channels", port.facts().channels}});
    // Nobody reads by the page cache what nobody can reach.
    if (to == PortState::fail_fast)
        for (const auto& lun : luns_) drop_pages(*lun);
    if (to != PortState::lost || leaving_) return;
    was_lost_ = logins_ > 0;
    logout(why);
}

void Target::on_port_login(initiator::TargetPort& port, bool first) {
    if (leaving_) return;
    ++logins_;
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
    // Who knows what has happened to the units meanwhile.
    for (const auto& lun : luns_) drop_pages(*lun);
    inventory_->scan(first ? "first login" : "logged in again");
}

// ---- logical units ----

void Target::on_listed() {
    if (!leaving_) list();
}

void Target::on_scanned(const Result<void>& result) {
    if (leaving_) return;
    if (!result) {
        last_error_ = result.error().context;
        event("scan_failed", {{"reason", last_error_}});
        if (on_login_done_) fail_login(result.error());
    } else if (on_login_done_ && !belongs_elsewhere()) {
        const auto on_done = std::exchange(on_login_done_, nullptr);
        for (const auto& [unit, pointer] : std::exchange(found_, {})) show_unit(unit, pointer);
        on_done({});
    }
}

void Target::on_inventory_gone(bool left_writes) {
    if (!left_writes) lock_->mark_clean();
    inventory_gone_ = true;
    check_gone();
}

std::shared_ptr<Target::Lun> Target::find(const lun::ListedUnit& unit) const {
    const auto found =
        std::find_if(luns_.begin(), luns_.end(), [&](const auto& lun) { return lun->unit.get() == &unit; });
    return found == luns_.end() ? nullptr : *found;
}

// True, and the login is given up: another reactor has units of it by other paths, and this one none. Before one of
// them has been given to this reactor, where it would stay.
bool Target::belongs_elsewhere() {
    const lun::ListedUnit* elsewhere = nullptr;
    for (const auto& [unit, pointer] : found_) {
        const auto home = host_.known_home(*unit->info());
        if (home == home_) {
            has_units_here_ = true;
            return false;
        }
        if (!home || elsewhere) continue;
        elsewhere = unit.get();
        better_home_ = home;
    }
    if (!elsewhere) return false;
    fail_login(Error(EXDEV, fmt::format("{}: {} is {}, which another reactor serves by another path", config().name,
                                        elsewhere->lun().file_name(), elsewhere->info()->wwid)));
    return true;
}

// False: another reactor has that unit, by another path.
bool Target::may_show(const lun::ListedUnit& unit) {
    if (host_.home_of(*unit.info(), home_) == home_) {
        has_units_here_ = true;
        return true;
    }
    last_error_ =
        fmt::format("{}: {} is {}, which another reactor serves by another path; {}", config().name,
                    unit.lun().file_name(), unit.info()->wwid,
                    has_units_here_ ? "this one serves others of the target, and all of a target's units have "
                                      "one reactor: mount with reactors=1"
                                    : "log out and in again to see it");
    log::error({}, "{}", last_error_);
    event("lun_refused", {{"lun", unit.lun().file_name()}, {"reason", last_error_}});
    return false;
}

void Target::on_unit_added(const std::shared_ptr<lun::ListedUnit>& unit, lun::Unit* pointer) {
    if (leaving_) return;
    if (on_login_done_ && host_.has_several_homes())
        found_.emplace_back(unit, pointer);
    else
        show_unit(unit, pointer);
}

void Target::show_unit(const std::shared_ptr<lun::ListedUnit>& unit, lun::Unit* pointer) {
    if (leaving_ || !may_show(*unit)) return;
    list();
    auto lun = std::make_shared<Lun>();
    lun->unit = unit;
    lun->pointer = pointer;
    lun->name = unit->lun().file_name();
    // Two addressing methods may spell one number (decisions 39): the second keeps its bytes in its name.
    if (std::any_of(luns_.begin(), luns_.end(), [&](const auto& other) { return other->name == lun->name; })) {
        lun->name = "lun0x";
        for (const std::byte one : unit->lun().bytes) lun->name += fmt::format("{:02x}", static_cast<unsigned>(one));
    }
    lun->options = config::options_of(host_.mount_config().lun_rules, names_of(*lun));
    if (lun->options.hidden.value_or(false)) {
        log::info(config().name, "{}: {} is not shown, as the mount wants it", lun->name, unit->info()->wwid);
        return;
    }
    luns_.push_back(lun);
    totals_.add(unit->counters());
    lun->file = host_.tree().add_lun_file(directory_, lun->name, lun_file(*lun));
    add_lun_files(lun);
    for (const fs::NodeId node : {lun->file, lun->attributes})
        host_.tree().describe(node, [this, lun] { return lun_attributes(*lun); });
    const lun::UnitInfo& info = *unit->info();
    lun->view = host_.views().add_unit(
        place(lun->name), info, [this, unit] { return port_->state() == PortState::running && !unit->is_offline(); });
    log::info(config().name, "{}: {} {} {}, {} bytes, {}-byte blocks{}{}", lun->name, info.vendor, info.model,
              info.wwid, info.capacity_bytes(), info.block_bytes, info.read_only ? ", read-only" : "",
              info.write_cache ? ", write cache" : "");
    event("lun_added", {{"lun", lun->name}, {"wwid", info.wwid}, {"bytes", info.capacity_bytes()}});
}

// What the rules of the mount may call it by.
std::vector<std::string> Target::names_of(const Lun& lun) const {
    const lun::UnitInfo& info = *lun.unit->info();
    const Views::Place where = place(lun.name);
    std::vector<std::string> names = by_id_names(info);
    if (!info.wwid.empty()) names.push_back(info.wwid);
    names.push_back(lun.name);
    names.push_back(fmt::format("{}/{}", name_, lun.name));
    names.push_back(fmt::format("srp-{}/{}/{}", where.port, name_, lun.name));
    return names;
}

// The one place where what the mount says of a unit becomes what its file is.
void Target::apply_options(fs::LunFile& file, const config::LunOptions& options) {
    file.read_only |= options.read_only.value_or(false);
    file.uid = options.uid;
    file.gid = options.gid;
    file.mode = options.mode;
    file.is_cached = options.cache == config::CacheMode::cached;
}

fs::LunFile Target::lun_file(const Lun& lun) const {
    const lun::UnitInfo& info = *lun.unit->info();
    fs::LunFile file;
    file.unit = lun.pointer;
    file.reactor = home_;
    file.capacity_bytes = info.capacity_bytes();
    file.io_bytes =
        std::max<std::uint32_t>(4096, std::bit_ceil(std::min<std::uint32_t>(info.physical_block_bytes, 1U << 20)));
    file.read_only = info.read_only || lun.refuses_writes;
    file.may_have_holes = info.tells_holes;
    apply_options(file, lun.options);
    // Without a name nobody knows of its other paths, by which it may be changed.
    file.is_cached = file.is_cached && !info.wwid.empty();
    return file;
}

// What a reader of getfattr -d wants to know, and cp -a copies along: short.
fs::ExtendedAttributes Target::lun_attributes(const Lun& lun) const {
    const lun::UnitInfo& info = *lun.unit->info();
    fs::ExtendedAttributes all;
    const auto add = [&](const char* name, std::string value) {
        if (!value.empty()) all.emplace_back(fmt::format("user.srpfs.{}", name), std::move(value));
    };
    add("wwid", info.wwid);
    add("vendor", info.vendor);
    add("product", info.model);
    add("revision", info.revision);
    add("serial", info.serial);
    add("block_size", fmt::format("{}", info.block_bytes));
    add("physical_block_size", fmt::format("{}", info.physical_block_bytes));
    add("lun", lun.name.substr(std::string_view("lun").size()));
    add("target", name_);
    return all;
}

// What the unit holds may be something else than before, in a way that no write of ours says.
void Target::drop_pages(const Lun& lun) {
    host_.tree().drop_pages(lun.file, [] {});
}

void Target::on_unit_changed(lun::ListedUnit& unit) {
    const auto lun = find(unit);
    if (!lun) return;
    host_.tree().change_lun_file(lun->file, lun_file(*lun));
    drop_pages(*lun);
    const lun::UnitInfo& info = *unit.info();
    log::info(config().name, "{}: now {} bytes{}", lun->name, info.capacity_bytes(),
              info.read_only ? ", read-only" : "");
    event("lun_changed", {{"lun", lun->name}, {"bytes", info.capacity_bytes()}, {"read_only", info.read_only}});
}

void Target::on_unit_offline(lun::ListedUnit& unit, const std::string& why) {
    const auto lun = find(unit);
    if (!lun) return;
    lun->last_error = why;
    drop_pages(*lun);
    log::warning(config().name, "{} is offline: {}", lun->name, why);
    event("lun_offline", {{"lun", lun->name}, {"reason", why}});
}

void Target::on_unit_removed(const std::shared_ptr<lun::ListedUnit>& unit, const std::string& why) {
    std::erase_if(found_, [&](const auto& found) { return found.first == unit; });
    const auto lun = find(*unit);
    if (!lun) return inventory_->release(unit);
    log::warning(config().name, "{} is removed: {}", lun->name, why);
    event("lun_removed", {{"lun", lun->name}, {"reason", why}});
    host_.views().remove(std::exchange(lun->view, 0));
    std::erase(luns_, lun);
    host_.tree().remove(lun->attributes, [] {});
    host_.tree().remove(lun->file, [inventory = inventory_, unit] { inventory->release(unit); });
}

void Target::on_unit_attention(lun::ListedUnit& unit, const scsi::Sense& sense) {
    const auto lun = find(unit);
    if (!lun) return;
    const std::string& name = lun->name;
    drop_pages(*lun);
    if (!sense.valid) return;
    log::info(config().name, "{}: {}; looking at it again", name, scsi::describe(sense));
    event("unit_attention", {{"lun", name}, {"sense", scsi::describe(sense)}});
}

void Target::on_unit_registration(lun::ListedUnit& unit, const std::string& text, bool lost) {
    const auto lun = find(unit);
    if (!lun) return;
    if (lost) {
        drop_pages(*lun);  // somebody else is the master of the unit
        lun->last_error = last_error_ = text;
        log::error({}, "{}", text);
        event("registration_lost", {{"lun", lun->name}, {"text", text}});
    } else {
        log::warning({}, "{}", text);
        event("registration_repeated", {{"lun", lun->name}, {"text", text}});
    }
}

void Target::on_unit_failure(lun::ListedUnit& unit, const std::string& text) {
    const auto lun = find(unit);
    if (!lun) return;
    lun->last_error = text;
    log::error(config().name, "{}: {}", lun->name, text);
    event("io_error", {{"lun", lun->name}, {"text", text}});
}

void Target::on_unit_write_loss(lun::ListedUnit& unit, const std::string& text) {
    const auto lun = find(unit);
    if (!lun) return;
    lun->last_error = text;
    last_error_ = fmt::format("{}: {}", lun->name, text);
    event("writes_lost", {{"lun", lun->name}, {"text", text}});
}

void Target::flush(std::function<void()> on_done) { inventory_->flush(std::move(on_done)); }

// ---- what can be seen ----

void Target::event(std::string_view name, nlohmann::json details) {
    details["target"] = name_;
    host_.events().add(name, details);
    host_.on_event();
}

std::string Target::lun_state(const Lun& lun) const {
    if (lun.unit->is_gone()) return "gone";
    if (lun.unit->is_offline()) return "offline";
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
    host_.tree().describe(directory_, [this] {
        return fs::ExtendedAttributes{
            {"user.srpfs.target", name_},
            {"user.srpfs.address", config().name},
            {"user.srpfs.port", fmt::format("srp-{}-{}", port_->facts().port.device, port_->facts().port.port)}};
    });
    view_ = host_.views().add_target(place({}), [this] { return port_->state() == PortState::running; });
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
            },
            fail);
    add_text(
        tree, directory_, "delete", Access::write_only, nullptr,
        [this](std::string_view, std::shared_ptr<fs::PendingCall> call) {
            logout(fmt::format("{}: logged out on request", config().name));
            call->succeed();
        },
        fail);
    add_text(
        tree, directory_, "rescan", Access::write_only, nullptr,
        [this, fail](std::string_view, std::shared_ptr<fs::PendingCall> call) {
            inventory_->scan("asked for", answer_later(call, fail));
        },
        fail);
    add_text(
        tree, directory_, "reset", Access::write_only, nullptr,
        [this, fail](std::string_view command, std::shared_ptr<fs::PendingCall> call) {
            if (command != "1" && command != "host")
                return fail(call, Error(EINVAL, fmt::format("reset: '{}' is not 'host' or '1'", excerpt(command))));
            port_->relogin("asked for");
            call->succeed();
        },
        fail);
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
    value("req_lim", [this] { return fmt::format("{}", port_->gauges(0)->req_lim()); });
    value("zero_req_lim", [this] { return fmt::format("{}", std::uint64_t{port_->gauges(0)->zero_req_lim}); });
    value("local_ib_device", [this] { return port_->facts().port.device; });
    value("local_ib_port", [this] { return fmt::format("{}", port_->facts().port.port); });
    value("ch_count", [this] { return fmt::format("{}", port_->facts().channels); });
    value("comp_vector", [parameters] { return fmt::format("{}", parameters.comp_vector); });
    value("tl_retry_count", [parameters] { return fmt::format("{}", parameters.tl_retry_count); });
    value("cmd_sg_entries", [parameters] { return fmt::format("{}", parameters.cmd_sg_entries); });
    value("allow_ext_sg", [parameters] { return std::string(parameters.allow_ext_sg ? "true" : "false"); });
    value("queue_size", [parameters] { return fmt::format("{}", parameters.queue_size); });
}

// For what was written to one of its files and is no command.
FailCall Target::refusal(const std::shared_ptr<Lun>& lun) {
    return [this, lun](const std::shared_ptr<fs::PendingCall>& call, const Error& error) {
        lun->last_error = last_error_ = fmt::format("{}: {}", lun->name, error.context);
        log::warning(config().name, "{}", last_error_);
        call->fail(error.errno_value());
    };
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
    value("wwid", [lun] { return lun->unit->info()->wwid; });
    value("vendor", [lun] { return lun->unit->info()->vendor; });
    value("model", [lun] { return lun->unit->info()->model; });
    value("rev", [lun] { return lun->unit->info()->revision; });
    value("serial", [lun] { return lun->unit->info()->serial; });
    value("logical_block_size", [lun] { return fmt::format("{}", lun->unit->info()->block_bytes); });
    value("physical_block_size", [lun] { return fmt::format("{}", lun->unit->info()->physical_block_bytes); });
    value("state", [this, lun] { return lun_state(*lun); });
    value("last_error", [lun] { return lun->last_error; });
    add_text(
        tree, lun->attributes, "reset", Access::write_only, nullptr,
        [this, lun, fail](std::string_view command, std::shared_ptr<fs::PendingCall> call) {
            if (command != "1" && command != "lun")
                return fail(call, Error(EINVAL, fmt::format("reset: '{}' is not 'lun' or '1'", excerpt(command))));
            log::info(config().name, "SRP reset_device called for {}", lun->name);
            event("lun_reset", {{"lun", lun->name}});
            inventory_->reset(lun->unit, [self = shared_from_this(), lun,
                                          done = answer_later(call, fail)](const Result<void>& result) {
                self->drop_pages(*lun);
                done(result);
            });
        },
        refusal(lun));
    add_text(
        tree, lun->attributes, "rescan", Access::write_only, nullptr,
        [this, lun, fail](std::string_view, std::shared_ptr<fs::PendingCall> call) {
            inventory_->look(lun->unit, "asked for", answer_later(call, fail));
        },
        refusal(lun));
    add_option_files(lun);
    add_cache_file(lun);
    add_reservations(lun);
    add_page_files(lun);
    add_raw_door(lun);
}

// Whatever the unit itself says.
bool Target::is_read_only_here(const Lun& lun) const {
    return host_.mount_config().mount.read_only || lun.refuses_writes || lun.options.read_only.value_or(false);
}

// ---- commands of somebody's choice ----

void Target::add_raw_door(const std::shared_ptr<Lun>& lun) {
    using Call = std::shared_ptr<fs::PendingCall>;
    fs::Tree& tree = host_.tree();
    const std::weak_ptr<Lun> weak = lun;  // which holds the door
    RawDoorConfig door;
    door.allowed = host_.mount_config().raw_commands;
    door.send = [this, unit = lun->unit](lun::UnitCommand command, std::function<void(lun::UnitAnswer)> on_done) {
        return lun::send_command(host_.control(), reactor_, unit, std::move(command), std::move(on_done));
    };
    door.look = [&tree, file = lun->file, inventory = inventory_, unit = lun->unit,
                 self = weak_from_this()](const std::function<void()>& on_done) {
        inventory->look(unit, "a raw command may have changed it", [&tree, file, on_done, self](const Result<void>&) {
            if (self.lock())
                tree.drop_pages(file, on_done);
            else
                on_done();
        });
    };
    door.block_bytes = [unit = lun->unit] { return unit->info()->block_bytes; };
    door.is_read_only = [this, weak] {
        const auto still = weak.lock();
        return !still || is_read_only_here(*still);
    };
    door.command_timeout = port_->config().command_time;
    door.now = [&control = host_.control()] { return control.timers().now(); };
    door.on_refused = [self = weak_from_this(), weak](const Error& error) {
        const auto target = self.lock();
        const auto still = weak.lock();
        if (!target || !still) return;
        still->last_error = target->last_error_ = error.context;
        log::warning(target->config().name, "{}: {}", still->name, error.context);
    };
    door.on_change = [self = weak_from_this(), weak](const std::string& cdb, unsigned uid) {
        const auto target = self.lock();
        const auto still = weak.lock();
        if (!target || !still) return;
        log::info(target->config().name, "{}: raw command {} of uid {}", still->name, cdb, uid);
        target->event("raw_command", {{"lun", still->name}, {"cdb", cdb}, {"uid", uid}});
    };
    lun->door = std::make_shared<RawDoor>(std::move(door));
    const fs::NodeId file = add_dialogue(
        tree, lun->attributes, "cdb", [door = lun->door]() -> Result<std::string> { return door->last(); },
        [door = lun->door](std::string_view text, const Call& call) { door->write(text, call); }, refusal(lun));
    // Who may write this file has been decided by whoever set its mode; of a LUN file that means the data alone.
    tree.serve_ioctl(file, SRPFS_RAW_COMMAND,
                     [door = lun->door](std::string_view bytes, const fs::Tree::IoctlCaller& caller, const Call& call) {
                         door->ioctl(bytes, caller.may_write, caller.uid, call);
                     });
    tree.serve_ioctl(lun->file, SRPFS_RAW_COMMAND,
                     [door = lun->door](std::string_view bytes, const fs::Tree::IoctlCaller& caller, const Call& call) {
                         door->ioctl(bytes, caller.may_write && caller.uid == 0, caller.uid, call);
                     });
}

// ---- persistent reservations ----

void Target::add_reservations(const std::shared_ptr<Lun>& lun) {
    using Call = std::shared_ptr<fs::PendingCall>;
    const auto fail = [this, lun](const Call& call, const Error& error) {
        lun->last_error = last_error_ = error.context;
        log::warning({}, "{}", error.context);
        call->fail(error.errno_value());
    };
    add_slow(
        host_.tree(), lun->attributes, "reservations",
        [lun](const Call& call) {
            const auto give_up = lun->unit->registration()->read([lun, call](const Result<std::string>& text) {
                if (text) return call->succeed_with(*text);
                lun->last_error = text.error().context;
                call->fail(text.error().errno_value());
            });
            call->on_interrupt(give_up);
        },
        [this, lun, fail](std::string_view text, const Call& call) {
            const auto command = lun::parse_reserve_command(text);
            if (!command) return fail(call, command.error());
            if (is_read_only_here(*lun))
                return fail(call,
                            Error(EROFS, fmt::format("{}: reservations: {} changes the unit: the mount or the file "
                                                     "is read-only",
                                                     lun->name, text)));
            log::info(config().name, "{}: reservations: {}", lun->name, text);
            event("reservation_command", {{"lun", lun->name}, {"command", text}});
            const bool waits = !call->nonblocking();
            const auto give_up = lun->unit->registration()->execute(
                *command, [self = shared_from_this(), call, fail, waits](const Result<void>& done) {
                    if (!waits) {
                        if (!done) log::warning({}, "{}", done.error().context);
                    } else if (done) {
                        call->succeed();
                    } else {
                        fail(call, done.error());
                    }
                });
            if (!waits) return call->succeed();
            call->on_interrupt(give_up);
        },
        refusal(lun));
}

// ---- what can be set for each unit ----

// How this mount shows the unit: for its life, and nothing the unit is told.
void Target::add_option_files(const std::shared_ptr<Lun>& lun) {
    using Call = std::shared_ptr<fs::PendingCall>;
    fs::Tree& tree = host_.tree();
    // `set` answers an Error for a value that is understood and cannot be had.
    const auto add = [&](const char* name, unsigned base, unsigned long long most, std::function<std::string()> read,
                         std::function<Result<void>(unsigned)> set) {
        add_text(
            tree, lun->attributes, name, fs::Tree::Access::read_write,
            [read = std::move(read)]() -> Result<std::string> { return read() + "\n"; },
            [this, lun, name, base, most, set = std::move(set)](std::string_view text, const Call& call) {
                unsigned long long wanted = 0;
                const auto parsed =
                    std::from_chars(text.data(), text.data() + text.size(), wanted, static_cast<int>(base));
                const bool is_number = parsed.ec == std::errc{} && parsed.ptr == text.data() + text.size();
                const std::string range = base == 8 ? fmt::format("an octal number up to {:o}", most)
                                                    : fmt::format("a number up to {}", most);
                const Result<void> done =
                    is_number && wanted <= most
                        ? set(static_cast<unsigned>(wanted))
                        : Error(EINVAL, fmt::format("{}: {}: '{}' is not {}", lun->name, name, excerpt(text), range));
                if (done) {
                    log::info(config().name, "{}: {} set to {}", lun->name, name, text);
                    return call->succeed();
                }
                lun->last_error = last_error_ = done.error().context;
                log::warning(config().name, "{}", done.error().context);
                call->fail(done.error().errno_value());
            },
            refusal(lun));
    };
    const auto is_read_only = [lun] {
        return lun->unit->info()->read_only || lun->refuses_writes || lun->options.read_only.value_or(false);
    };
    add(
        "read_only", 10, 1, [is_read_only] { return std::string(is_read_only() ? "1" : "0"); },
        [this, lun](unsigned wanted) -> Result<void> {
            if (wanted == 0 && lun->unit->info()->read_only)
                return Error(EROFS, fmt::format("{}: the unit is write protected", lun->name));
            if (wanted == 0 && lun->options.read_only.value_or(false))
                return Error(EROFS, fmt::format("{}: the mount's option lun= makes it read-only", lun->name));
            if (wanted == 1 && host_.tree().writers(lun->file) > 0)
                return Error(EBUSY, fmt::format("{}: it is open for writing", lun->name));
            lun->refuses_writes = wanted == 1;
            host_.tree().change_lun_file(lun->file, lun_file(*lun));
            return {};
        });
    add(
        "uid", 10, 4294967294, [&tree, lun] { return fmt::format("{}", tree.permissions(lun->file).uid); },
        [&tree, lun](unsigned wanted) -> Result<void> {
            tree.set_owner(lun->file, wanted, {});
            return {};
        });
    add(
        "gid", 10, 4294967294, [&tree, lun] { return fmt::format("{}", tree.permissions(lun->file).gid); },
        [&tree, lun](unsigned wanted) -> Result<void> {
            tree.set_owner(lun->file, {}, wanted);
            return {};
        });
    add(
        "mode", 8, 0777, [&tree, lun] { return fmt::format("{:04o}", tree.permissions(lun->file).mode); },
        [&tree, lun](unsigned wanted) -> Result<void> {
            tree.set_mode(lun->file, wanted);
            return {};
        });
}

// Counts for who opens the file from now on. Writing it drops what there is of pages, also if it says what it has said
// before.
void Target::add_cache_file(const std::shared_ptr<Lun>& lun) {
    using config::CacheMode;
    add_text(
        host_.tree(), lun->attributes, "cache", fs::Tree::Access::read_write,
        [lun]() -> Result<std::string> {
            return std::string(
                lun->options.cache == CacheMode::cached && !lun->unit->info()->wwid.empty() ? "cached\n" : "direct\n");
        },
        [this, lun](std::string_view text, const std::shared_ptr<fs::PendingCall>& call) {
            const auto fail = [this, lun](const std::shared_ptr<fs::PendingCall>& whose, const Error& error) {
                lun->last_error = last_error_ = error.context;
                log::warning(config().name, "{}", error.context);
                whose->fail(error.errno_value());
            };
            if (text != "direct" && text != "cached")
                return fail(call, Error(EINVAL, fmt::format("{}: cache: '{}' is neither direct nor cached", lun->name,
                                                            excerpt(text))));
            if (text == "cached" && lun->unit->info()->wwid.empty())
                return fail(call, Error(EOPNOTSUPP, fmt::format("{}: cache: it has no name, so nobody knows by which "
                                                                "other paths it may be changed; it stays direct",
                                                                lun->name)));
            lun->options.cache = text == "cached" ? CacheMode::cached : CacheMode::direct;
            host_.tree().change_lun_file(lun->file, lun_file(*lun));
            log::info(config().name, "{}: cache set to {}", lun->name, text);
            host_.tree().drop_pages(lun->file, [done = answer_later(call, fail)] { done({}); });
        },
        refusal(lun));
}

// ---- INQUIRY, VPD and mode pages ----

// Asks the unit for somebody who reads; what goes wrong is his errno.
void Target::ask(const std::shared_ptr<Lun>& lun, const scsi::Cdb& cdb, const std::shared_ptr<fs::PendingCall>& call,
                 OnPage on_page) {
    const auto answered = std::make_shared<bool>(false);
    const auto give_up =
        lun::ask_unit(host_.control(), reactor_, lun->unit, cdb, page_bytes_max, question_limit,
                      [lun, call, answered, on_page = std::move(on_page)](const Result<std::vector<std::byte>>& data) {
                          if (std::exchange(*answered, true)) return;
                          if (data) return on_page(*data);
                          lun->last_error = data.error().context;
                          call->fail(data.error().errno_value());
                      });
    call->on_interrupt([call, answered, give_up] {
        give_up();
        if (!std::exchange(*answered, true)) call->fail(EINTR);
    });
}

void Target::add_vpd_text(const std::shared_ptr<Lun>& lun, std::shared_ptr<std::string> text, std::size_t index,
                          const std::shared_ptr<fs::PendingCall>& call) {
    const std::vector<std::uint8_t>& pages = lun->unit->info()->vpd_pages;
    if (index >= std::min(pages.size(), vpd_files_max)) return call->succeed_with(std::move(*text));
    ask(lun, scsi::inquiry_vpd(pages[index], page_bytes_max), call,
        [self = shared_from_this(), lun, text, index, call](std::span<const std::byte> page) {
            if (!text->empty()) *text += '\n';
            *text += scsi::vpd_text(page);
            self->add_vpd_text(lun, text, index + 1, call);
        });
}

// Asked for when they are read; `inquiry` and vpd_pg* as in sysfs.
void Target::add_page_files(const std::shared_ptr<Lun>& lun) {
    using Call = std::shared_ptr<fs::PendingCall>;
    fs::Tree& tree = host_.tree();
    const auto add = [&](const std::string& name, const scsi::Cdb& cdb,
                         std::string (*text_of)(std::span<const std::byte>)) {
        add_slow(tree, lun->attributes, name, [this, lun, cdb, text_of](const Call& call) {
            ask(lun, cdb, call,
                [call, text_of](std::span<const std::byte> data) { call->succeed_with(text_of(data)); });
        });
    };
    const auto raw = [](std::span<const std::byte> data) {
        return std::string(reinterpret_cast<const char*>(data.data()), data.size());
    };
    // As long as they say they are: some targets fill up what they are given room for.
    const auto raw_inquiry = [](std::span<const std::byte> data) {
        const std::size_t told = data.size() > 4 ? std::to_integer<std::size_t>(data[4]) + 5 : data.size();
        return std::string(reinterpret_cast<const char*>(data.data()), std::min(told, data.size()));
    };
    add("inquiry", scsi::inquiry(inquiry_bytes_max), raw_inquiry);
    add("inquiry.txt", scsi::inquiry(inquiry_bytes_max), scsi::inquiry_text);
    add("mode_pages", scsi::mode_sense_10(0x3f, page_bytes_max), raw);
    add("mode_pages.txt", scsi::mode_sense_10(0x3f, page_bytes_max), scsi::mode_text);
    const std::vector<std::uint8_t>& pages = lun->unit->info()->vpd_pages;
    for (std::size_t i = 0; i < std::min(pages.size(), vpd_files_max); ++i)
        add(fmt::format("vpd_pg{:x}", pages[i]), scsi::inquiry_vpd(pages[i], page_bytes_max), raw);
    add_slow(tree, lun->attributes, "vpd.txt",
             [this, lun](const Call& call) { add_vpd_text(lun, std::make_shared<std::string>(), 0, call); });
}

namespace {

nlohmann::ordered_json channel_report(const initiator::ChannelGauges& channel) {
    nlohmann::ordered_json json;
    json["index"] = channel.index;
    json["state"] = to_string(channel.state.load());
    json["credits"] = channel.credits.load();
    json["credits_initial"] = channel.credits_initial.load();
    json["in_flight"] = channel.in_flight.load();
    const initiator::ChannelCounters& counters = channel.counters;
    json["commands"] = std::uint64_t{counters.commands};
    json["responses"] = std::uint64_t{counters.responses};
    json["task_management"] = std::uint64_t{counters.task_management};
    json["path_checks"] = std::uint64_t{counters.path_checks};
    json["timeouts"] = std::uint64_t{counters.timeouts};
    json["out_of_credits"] = std::uint64_t{counters.out_of_credits};
    json["credit_requests"] = std::uint64_t{counters.credit_requests};
    json["async_events"] = std::uint64_t{counters.async_events};
    json["unknown_tags"] = std::uint64_t{counters.unknown_tags};
    json["malformed"] = std::uint64_t{counters.malformed};
    json["bytes_read"] = std::uint64_t{counters.bytes_read};
    json["bytes_written"] = std::uint64_t{counters.bytes_written};
    std::uint64_t sum = 0;
    nlohmann::ordered_json by_kind = nlohmann::ordered_json::object();
    for (std::size_t fault = 0; fault < initiator::command_faults; ++fault) {
        const std::uint64_t errors = counters.errors_by_kind[fault];
        sum += errors;
        if (errors != 0) by_kind[to_string(static_cast<initiator::CommandFault>(fault))] = errors;
    }
    json["errors"] = sum;
    json["errors_by_kind"] = std::move(by_kind);
    json["latency"]["read"] = report_of(counters.read_latency.read());
    json["latency"]["write"] = report_of(counters.write_latency.read());
    json["latency"]["other"] = report_of(counters.other_latency.read());
    return json;
}

}  // namespace

nlohmann::ordered_json Target::lun_report(const Lun& lun) const {
    nlohmann::ordered_json json;
    json["name"] = lun.name;
    json["wwid"] = lun.unit->info()->wwid;
    json["bytes"] = lun.unit->info()->capacity_bytes();
    json["block_bytes"] = lun.unit->info()->block_bytes;
    json["read_only"] = lun.unit->info()->read_only;
    json["write_cache"] = lun.unit->info()->write_cache;
    json["state"] = lun_state(lun);
    if (const auto counters = lun.unit->counters()) {
        json["requests_pending"] = counters->pending.load(std::memory_order_relaxed);
        json["in_flight"] = counters->in_flight.load(std::memory_order_relaxed);
        const auto count = [&](const char* name, std::uint64_t number) { json[name] = number; };
        count("reads", counters->reads);
        count("writes", counters->writes);
        count("flushes", counters->flushes);
        count("bytes_read", counters->bytes_read);
        count("bytes_written", counters->bytes_written);
        count("errors", counters->errors);
        count("retries", counters->retries);
        count("interrupts", counters->interrupts);
        count("unit_attentions", counters->attentions);
        count("read_modify_writes", counters->read_modify_writes);
        count("ghosts", counters->ghosts);
        json["errors_by_kind"] = nlohmann::ordered_json::object();
        for (std::size_t kind = 0; kind < lun::outcome_kinds; ++kind)
            if (const std::uint64_t errors = counters->errors_by_kind[kind]; errors != 0)
                json["errors_by_kind"][to_string(static_cast<lun::OutcomeKind>(kind))] = errors;
        json["latency"]["read"] = report_of(counters->read_latency.read());
        json["latency"]["write"] = report_of(counters->write_latency.read());
        json["latency"]["flush"] = report_of(counters->flush_latency.read());
    }
    return json;
}

nlohmann::ordered_json Target::report() {
    const auto gauges = port_->gauges(0);
    nlohmann::ordered_json json;
    json["name"] = name_;
    json["address"] = config().name;
    json["port"] = fmt::format("srp-{}-{}", port_->facts().port.device, port_->facts().port.port);
    json["state"] = to_string(port_->state());
    json["channels"] = port_->facts().channels;
    json["failed_reconnects"] = port_->failed_reconnects();
    json["req_lim"] = gauges->req_lim();
    json["zero_req_lim"] = std::uint64_t{gauges->zero_req_lim};
    json["commands"] = std::uint64_t{gauges->commands};
    json["logins"] = logins_;
    json["losses"] = losses_;
    json["history"] = nlohmann::ordered_json::array();
    for (const Transition& one : history_)
        json["history"].push_back(nlohmann::ordered_json{
            {"time", one.time}, {"from", to_string(one.from)}, {"to", to_string(one.to)}, {"reason", one.reason}});
    json["channel_list"] = nlohmann::ordered_json::array();
    for (const auto& channel : gauges->channels()) json["channel_list"].push_back(channel_report(*channel));
    json["luns"] = nlohmann::ordered_json::array();
    for (const auto& lun : luns_) json["luns"].push_back(lun_report(*lun));
    json["total"] = report_of(totals());
    return json;
}

}  // namespace srpfs::daemon
