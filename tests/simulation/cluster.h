// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Who has a unit to himself: an administrator who registers and reserves through our units, two other initiators who
// do the same at the target and fence us off now and then, and what must hold meanwhile.

#pragma once

#include "scheduler.h"

#include <srpfs/base/random.h>
#include <srpfs/lun/inventory.h>
#include <srpfs/lun/registration.h>
#include <srpfs/reactor/timer_queue.h>
#include <srpfs/target/behaviour.h>
#include <srpfs/target/device.h>

#include <array>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace srpfs::simulation {

class Cluster {
public:
    struct World {  // what it needs of one
        Scheduler& scheduler;
        reactor::Executor& control;
        target::Device& device;
        srp::PortId initiator;   // ours
        unsigned units;          // LUNs 0..units-1
        bool trouble;            // something else goes wrong, so that a command may fail for other reasons
        Duration arrival_bound;  // of a command after its order was answered
        Duration answer_bound, give_up_bound;
        std::function<std::shared_ptr<lun::ListedUnit>(Random&)> any_lun;  // nullptr: none now
        std::function<void(const std::string&)> violated;
        std::function<void(const std::string&)> tell;
    };
    Cluster(World world, std::uint64_t seed);
    ~Cluster();

    // ---- what the target sees ----
    // A PERSISTENT RESERVE OUT of ours has arrived: somebody has to wait for it.
    void on_arrival(const target::CommandView& command);
    void on_carried_out(unsigned number, const srp::PortId& initiator, std::span<const std::byte> cdb,
                        std::span<const std::byte> data);
    // The target has forgotten what it knew of this unit, or has one again.
    void on_forgotten(unsigned number);
    // Whether I/O of ours to this LUN may have met with a reservation since then.
    [[nodiscard]] bool may_have_refused(unsigned number, Instant since);

    // ---- what our unit says ----
    void on_registration(const lun::ListedUnit& lun, bool lost);

    // The others leave, and nobody asks for anything any more. What is registered for us may stay.
    void make_peace();
    [[nodiscard]] bool is_busy() const { return !orders_open_.empty(); }
    // Nothing of ours is on its way that could meet another unit.
    [[nodiscard]] bool is_quiet();
    // When each unit has been looked at since.
    void check_end(const std::vector<std::shared_ptr<lun::ListedUnit>>& luns);

    std::uint64_t orders = 0, fencings = 0, losses = 0, repeats = 0;  // of registrations, by the unit itself

private:
    // What somebody asked one of our units for.
    struct Order {
        std::string wwid;
        unsigned number = 0;
        std::optional<lun::ReserveCommand> command;  // nullopt: to read
        Instant asked_at{};
        std::function<void()> give_up;
        bool given_up = false, ended = false;
        Instant given_up_at{}, ended_at{};
        Duration jumped_when_asked{}, jumped_when_given_up{}, jumped_when_ended{};
        std::unique_ptr<reactor::Timer> patience, bound;
    };
    using OrderPointer = std::shared_ptr<Order>;
    // PERSISTENT RESERVE OUT that was carried out for us.
    struct Deed {
        std::string wwid;
        scsi::ReserveOut action{};
        std::uint64_t key = 0;
        Instant at{};
    };
    struct Refusals {
        bool now = false;
        Instant last{};
        bool ever = false;
    };

    void administrate();
    void ask(const std::shared_ptr<lun::ListedUnit>& lun, std::optional<lun::ReserveCommand> command);
    void on_end(const OrderPointer& order, const Error* error);
    void forget_ended();
    void fence();
    bool act(std::size_t rival, unsigned number, scsi::ReserveOut action, std::uint64_t key, std::uint64_t action_key,
             std::optional<scsi::ReservationType> type);
    void note_refusals(unsigned number);
    [[nodiscard]] std::uint64_t new_key() { return 0x5e00 + ++last_key_; }
    [[nodiscard]] std::optional<std::uint64_t> own_key(unsigned number) const;  // as the target has it
    [[nodiscard]] Duration since(Instant at, Duration jumped) const;

    World world_;
    Random random_;
    reactor::Timer administrator_, rivals_;
    std::array<srp::PortId, 2> rival_ids_{};
    bool active_ = true;
    std::uint64_t last_key_ = 0;
    std::list<OrderPointer> orders_open_, orders_ended_;
    std::vector<Deed> deeds_;
    std::map<std::string, std::vector<std::uint64_t>> keys_asked_;  // by wwid
    std::map<std::pair<std::string, scsi::ReserveOut>, unsigned> asked_;
    std::map<std::string, Instant> blank_at_;  // when a READ KEYS of ours last met with nobody, counted from zero
    std::map<std::string, Duration> blank_jumped_;
    std::map<unsigned, Refusals> refusals_;
};

}  // namespace srpfs::simulation
