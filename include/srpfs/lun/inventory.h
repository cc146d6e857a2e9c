// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What is known of the logical units of one logged-in target, kept in step with what the target says: asked for after
// each login, after unit attentions and LUN RESETs, and from time to time. Fences what an earlier connection has left
// (decisions 1, 3), and never lets another unit stand behind an old name (decisions 7).

#pragma once

#include <srpfs/initiator/target_port.h>
#include <srpfs/lun/engine.h>
#include <srpfs/lun/probe.h>
#include <srpfs/lun/unit.h>
#include <srpfs/reactor/executor.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace srpfs::lun {

class Inventory;
class Registration;

// A logical unit that the target has shown. Made and changed by its Inventory; control thread except where it says
// otherwise.
class ListedUnit final : public std::enable_shared_from_this<ListedUnit>,
                         private UnitListener,
                         private OperationListener {
public:
    ListedUnit(Inventory& inventory, const scsi::Lun& lun, std::shared_ptr<const UnitInfo> info);
    ~ListedUnit();

    [[nodiscard]] const scsi::Lun& lun() const { return lun_; }
    [[nodiscard]] const std::shared_ptr<const UnitInfo>& info() const { return info_; }
    [[nodiscard]] bool is_offline() const { return offline_; }
    [[nodiscard]] bool is_gone() const { return gone_; }
    [[nodiscard]] std::shared_ptr<const UnitCounters> counters() const { return counters_; }
    [[nodiscard]] const std::shared_ptr<Registration>& registration() const { return registration_; }

    // Reactor thread: null before it is made there and after it has been released. InventoryListener::on_unit_added()
    // is told the same pointer, good until Inventory::release().
    [[nodiscard]] Unit* unit() { return unit_.get(); }

private:
    friend class Inventory;

    // Reactor thread.
    void create();
    void retire();
    void end_when_idle();
    void flush(std::function<void()> on_done);
    void on_attention(Unit& unit, const scsi::Sense& sense, bool hold) override;
    void on_fence_needed(Unit& unit) override;
    void on_reset(Unit& unit) override;
    void on_failure(Unit& unit, const Operation& operation) override;
    void on_write_loss(Unit& unit, const std::string& text) override;
    void on_answered(Operation& operation) override;

    const std::shared_ptr<Inventory> inventory_;
    const scsi::Lun lun_;
    std::shared_ptr<const UnitInfo> info_;
    std::shared_ptr<const UnitCounters> counters_;
    std::shared_ptr<Registration> registration_;
    bool offline_ = false;
    bool gone_ = false;
    bool released_ = false;
    bool look_wanted_ = false;   // when the time comes to try again
    unsigned looks_failed_ = 0;  // one after the other
    unsigned fence_attempts_ = 0;
    std::uint64_t asked_at_ = 0;  // UnitReport::asked_at of the newest report
    std::uint64_t stale_at_ = 0;  // what was asked before does not count any more

    // The reactor's.
    std::unique_ptr<Unit> unit_;
    std::shared_ptr<ListedUnit> self_;  // from retire() to the end
    std::unique_ptr<reactor::Timer> idle_timer_;
    std::vector<std::function<void()>> flush_done_;
    std::uint64_t failures_ = 0;
    Instant failure_told_at_{};
};

// Calls come on the control thread, from later turns than what caused them.
class InventoryListener {
public:
    // It exists on the reactor: `pointer` is ListedUnit::unit().
    virtual void on_unit_added(const std::shared_ptr<ListedUnit>& unit, Unit* pointer) = 0;
    // Size or write protection are not what they were.
    virtual void on_unit_changed(ListedUnit& unit) = 0;
    // Its I/O fails until a look succeeds.
    virtual void on_unit_offline(ListedUnit& unit, const std::string& why) = 0;
    // It is not there any more, or another one is: its I/O has failed. Call Inventory::release() once nobody starts
    // anything on it.
    virtual void on_unit_removed(const std::shared_ptr<ListedUnit>& unit, const std::string& why) = 0;
    // `sense` is not valid when a command sent by hand has come to an end after it was given up, and may have changed
    // it.
    virtual void on_unit_attention(ListedUnit& unit, const scsi::Sense& sense) = 0;
    // Its persistent registration was `lost`, or something of it was repeated.
    virtual void on_unit_registration(ListedUnit& unit, const std::string& text, bool lost) = 0;
    // A line for people, at most one a second.
    virtual void on_unit_failure(ListedUnit& unit, const std::string& text) = 0;
    // See UnitListener::on_write_loss().
    virtual void on_unit_write_loss(ListedUnit& unit, const std::string& text) {
        static_cast<void>(unit);
        static_cast<void>(text);
    }
    // The target answers and has listed what it has.
    virtual void on_listed() = 0;
    // A scan of the whole target is over: all its units that answered have been told.
    virtual void on_scanned(const Result<void>& result) = 0;
    // After close(): nothing of it is left on the reactor. `left_writes`: a unit has gone with writes of which nobody
    // knows the end.
    virtual void on_inventory_gone(bool left_writes) = 0;

protected:
    ~InventoryListener() = default;
};

struct InventoryConfig {
    std::string name;          // for the log
    unsigned queue_depth = 1;  // commands of one unit at a time
    // How often everything is looked at without a reason, since not every target tells what has changed; zero: never.
    Duration rescan_interval{};
    // Whether an earlier process may have left writes of which nobody knows the end; asked when a unit is found. Empty:
    // no.
    std::function<bool()> suspects_earlier_writes;
};

// Control thread. Keeps itself and `port` alive until on_inventory_gone().
class Inventory final : public std::enable_shared_from_this<Inventory> {
public:
    // `reactor` is the one of link(0) of `port` and of `engine`; all outlive it.
    static std::shared_ptr<Inventory> create(InventoryConfig config, reactor::Executor& control,
                                             reactor::Executor& reactor, Engine& engine,
                                             std::shared_ptr<initiator::TargetPort> port, InventoryListener& listener);
    ~Inventory();

    // Looks at everything; when the port does not run the next login has to call it. `on_done` is called once, when
    // everything has been looked at since it was asked for, or with what kept it from that (ENOTCONN, ENODEV, ETIMEDOUT
    // and so on).
    void scan(const std::string& why, std::function<void(Result<void>)> on_done = nullptr);
    // Looks at this unit.
    void look(const std::shared_ptr<ListedUnit>& unit, const std::string& why,
              std::function<void(Result<void>)> on_done = nullptr);
    // Sends a LUN RESET; its I/O waits until the unit has been looked at after it. `on_done` is told the end of the
    // reset.
    void reset(const std::shared_ptr<ListedUnit>& unit, std::function<void(Result<void>)> on_done);
    // Flushes every unit that has unflushed writes; `on_done` in any case.
    void flush(std::function<void()> on_done);

    // No unit is added or looked at any more, and those there are are gone: each has to be released. Waiters are told
    // ENODEV.
    void close(const std::string& why);
    // See on_unit_removed(); of each unit after close().
    void release(const std::shared_ptr<ListedUnit>& unit);

    [[nodiscard]] const std::vector<std::shared_ptr<ListedUnit>>& units() const { return units_; }
    // Nothing is being asked or made.
    [[nodiscard]] bool is_quiet() const { return asking_ == 0 && units_pending_ == 0; }
    [[nodiscard]] std::string describe() const;  // for the log when something hangs

private:
    friend class ListedUnit;
    class Asking;

    Inventory(InventoryConfig config, reactor::Executor& control, reactor::Executor& reactor, Engine& engine,
              std::shared_ptr<initiator::TargetPort> port, InventoryListener& listener);

    using Waiter = std::function<void(Result<void>)>;
    using UnitPointer = std::shared_ptr<ListedUnit>;

    // Of one unit, waiting or under way.
    struct Look {
        bool under_way = false;
        bool again = false;    // somebody has asked for it since it began
        bool routine = false;  // nobody has a reason to think that something has changed
        bool in_scan = false;  // the scan waits for it
        std::vector<Waiter> waiters;
    };

    void start_scan(const std::string& why, bool routine);
    void ask(std::optional<scsi::Lun> lun);
    void on_list(const std::vector<scsi::Lun>& luns, std::uint64_t asked_at);
    void on_list_end(Result<void> result);
    void finish_scan();
    Look& want_look(const scsi::Lun& lun, const std::string& why, bool routine);
    void start_looks();
    void on_report(const UnitReport& report);
    void on_look_end(const scsi::Lun& lun, const Result<void>& result);
    void on_asking_gone();
    void add(const UnitReport& report);
    void update(const UnitPointer& unit, const UnitReport& report, bool routine);
    void set_offline(const UnitPointer& unit, const std::string& why);
    void remove(const UnitPointer& unit, const std::string& why);
    void on_attention(const UnitPointer& unit, const scsi::Sense& sense, std::uint64_t stamp);
    void on_reset(const UnitPointer& unit, std::uint64_t stamp);
    void on_fence(const UnitPointer& unit, const Result<void>& result);
    void try_again(Duration delay);
    void on_retry_time();
    void on_unit_destroyed(bool left_writes);
    void check_gone();
    [[nodiscard]] UnitPointer find(const scsi::Lun& lun) const;
    [[nodiscard]] bool is_listed(const scsi::Lun& lun) const;
    [[nodiscard]] bool runs() const { return port_->state() == initiator::PortState::running; }
    // Reactor thread.
    void fence_and_resume(const UnitPointer& unit, std::shared_ptr<const UnitInfo> info);
    void fence(const UnitPointer& unit);

    const InventoryConfig config_;
    reactor::Executor& control_;
    reactor::Executor& reactor_;
    Engine& engine_;
    std::shared_ptr<initiator::TargetPort> port_;  // until everything is gone
    InventoryListener& listener_;
    std::shared_ptr<Inventory> self_;
    std::vector<UnitPointer> units_;
    unsigned units_pending_ = 0;  // being made on the reactor
    unsigned units_alive_ = 0;    // exist there, removed ones included
    unsigned asking_ = 0;         // probes of which something is left there
    std::map<scsi::Lun, Look> looks_;
    std::deque<scsi::Lun> looks_waiting_;
    std::vector<scsi::Lun> listed_;  // by the newest list, in ascending order
    // Of these, and no unit yet, as they have not said in time what they are; and how often, one after the other.
    struct Unanswered {
        unsigned times = 0;
        bool look_wanted = false;
    };
    std::map<scsi::Lun, Unanswered> unanswered_;
    unsigned looking_ = 0;   // looks under way
    bool scanning_ = false;  // until all it has found is there
    bool routine_ = false;   // see Look
    bool list_ended_ = false;
    Result<void> scan_result_;
    bool scan_again_ = false;      // somebody has asked for a scan while one was under way
    bool scan_wanted_ = false;     // when the time comes to try again
    std::uint64_t listed_at_ = 0;  // when the target was asked for the newest list
    std::uint64_t stale_at_ = 0;   // lists that were asked for before do not count any more
    unsigned scans_failed_ = 0;    // one after the other
    std::vector<Waiter> waiters_;  // for a scan
    bool closed_ = false;
    bool left_writes_ = false;
    bool gone_told_ = false;
    reactor::Timer retry_timer_;
    reactor::Timer poll_timer_;
};

}  // namespace srpfs::lun
