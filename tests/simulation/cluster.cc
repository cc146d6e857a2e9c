// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "cluster.h"

#include <srpfs/base/bytes.h>
#include <srpfs/scsi/reservation.h>

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace srpfs::simulation {
namespace {

using namespace std::chrono_literals;
using lun::ReserveCommand;
using scsi::ReservationType;
using scsi::ReserveOut;
using Verb = ReserveCommand::Verb;

constexpr Duration command_bound = 31s;  // of one command to a unit, see lun::UnitCommand::time_limit
constexpr ReservationType types[] = {
    ReservationType::write_exclusive,
    ReservationType::exclusive_access,
    ReservationType::write_exclusive_registrants_only,
    ReservationType::exclusive_access_registrants_only,
    ReservationType::write_exclusive_all_registrants,
    ReservationType::exclusive_access_all_registrants,
};
constexpr const char* verb_names[] = {"register", "register-ignore", "unregister",    "reserve",
                                      "release",  "preempt",         "preempt-abort", "clear"};

ReserveOut action_of(Verb verb) {
    switch (verb) {
        case Verb::register_key:
        case Verb::unregister: return ReserveOut::register_key;
        case Verb::register_and_ignore: return ReserveOut::register_and_ignore_existing_key;
        case Verb::reserve: return ReserveOut::reserve;
        case Verb::release: return ReserveOut::release;
        case Verb::preempt: return ReserveOut::preempt;
        case Verb::preempt_abort: return ReserveOut::preempt_and_abort;
        case Verb::clear: return ReserveOut::clear;
    }
    return ReserveOut::clear;
}

ReserveOut action_of(std::span<const std::byte> cdb) {
    return static_cast<ReserveOut>(std::to_integer<std::uint8_t>(cdb[1]) & 0x1f);
}

std::string what(const std::optional<ReserveCommand>& command) {
    if (!command) return "reading reservations";
    return fmt::format("'{} {:#x}{}{}'", verb_names[static_cast<int>(command->verb)], command->key,
                       command->type ? " " : "", command->type ? scsi::to_string(*command->type) : "");
}

}  // namespace

Cluster::Cluster(World world, std::uint64_t seed)
    : world_(std::move(world)), random_(seed), administrator_(world_.scheduler.timers, [this] { administrate(); }),
      rivals_(world_.scheduler.timers, [this] { fence(); }) {
    for (std::size_t i = 0; i < rival_ids_.size(); ++i) rival_ids_[i].fill(static_cast<std::byte>(0xe0 + i));
    administrator_.arm_after(10ms);
    rivals_.arm_after(20ms);
}

Cluster::~Cluster() = default;

Duration Cluster::since(Instant at, Duration jumped) const {
    return world_.scheduler.timers.now() - at - (world_.scheduler.jumped() - jumped);
}

// ---- ours ----

void Cluster::administrate() {
    if (!active_) return;
    administrator_.arm_after(Duration(static_cast<Duration::rep>(random_.below(3'000'000'000))));
    const auto lun = orders_open_.size() < 4 ? world_.any_lun(random_) : nullptr;
    if (!lun || !lun->registration()) return;
    if (random_.chance(1, 6)) return ask(lun, std::nullopt);
    ReserveCommand command;
    const std::optional<std::uint64_t> own = lun->registration()->key();
    command.verb = own ? static_cast<Verb>(random_.below(std::size(verb_names)))
                       : (random_.chance(1, 8) ? Verb::reserve : Verb::register_and_ignore);
    switch (command.verb) {
        case Verb::register_key:
        case Verb::register_and_ignore: command.key = new_key(); break;
        case Verb::preempt:
        case Verb::preempt_abort: {
            const auto state = world_.device.reservations(*lun->lun().small_number());
            command.key =
                state.registrants.empty() ? 1 : state.registrants[random_.below(state.registrants.size())].key;
            if (random_.chance(1, 2)) command.type = types[random_.below(std::size(types))];
            break;
        }
        case Verb::reserve: command.type = types[random_.below(std::size(types))]; break;
        default: break;
    }
    ask(lun, command);
}

void Cluster::ask(const std::shared_ptr<lun::ListedUnit>& lun, std::optional<ReserveCommand> command) {
    ++orders;
    const auto order = std::make_shared<Order>();
    order->wwid = lun->info()->wwid;
    order->number = lun->lun().small_number().value_or(~0U);
    order->command = command;
    order->asked_at = world_.scheduler.timers.now();
    order->jumped_when_asked = world_.scheduler.jumped();
    orders_open_.push_back(order);
    world_.tell(fmt::format("{} of LUN {} begins", what(command), order->number));
    if (command) {
        ++asked_[{order->wwid, action_of(command->verb)}];
        if (command->verb == Verb::register_key || command->verb == Verb::register_and_ignore)
            keys_asked_[order->wwid].push_back(command->key);
    }
    order->bound = std::make_unique<reactor::Timer>(world_.scheduler.timers, [this, weak = std::weak_ptr(order)] {
        const auto still = weak.lock();
        const Duration left = world_.answer_bound - since(still->asked_at, still->jumped_when_asked);
        if (left > Duration::zero()) return still->bound->arm_after(left);
        world_.violated(fmt::format("{} of LUN {} is not answered", what(still->command), still->number));
    });
    order->bound->arm_after(world_.answer_bound);
    if (random_.chance(1, 8)) {
        order->patience =
            std::make_unique<reactor::Timer>(world_.scheduler.timers, [this, weak = std::weak_ptr(order)] {
                const auto still = weak.lock();
                if (still->ended || !still->give_up) return;
                world_.tell(fmt::format("{} of LUN {} is given up", what(still->command), still->number));
                still->given_up = true;
                still->given_up_at = world_.scheduler.timers.now();
                still->jumped_when_given_up = world_.scheduler.jumped();
                still->give_up();
            });
        order->patience->arm_after(Duration(static_cast<Duration::rep>(random_.below(700'000'000))));
    }
    // As the daemon does, on the control thread.
    world_.control.post([this, lun, order] {
        if (order->command)
            order->give_up = lun->registration()->execute(*order->command, [this, order](const Result<void>& result) {
                on_end(order, result ? nullptr : &result.error());
            });
        else
            order->give_up = lun->registration()->read([this, order](const Result<std::string>& result) {
                on_end(order, result ? nullptr : &result.error());
            });
    });
}

bool Cluster::is_quiet() {
    forget_ended();
    return orders_open_.empty() && orders_ended_.empty();
}

void Cluster::forget_ended() {
    while (!orders_ended_.empty() &&
           since(orders_ended_.front()->ended_at, orders_ended_.front()->jumped_when_ended) > world_.arrival_bound)
        orders_ended_.pop_front();
}

void Cluster::on_end(const OrderPointer& order, const Error* error) {
    const std::string name = fmt::format("{} of LUN {}", what(order->command), order->number);
    if (std::exchange(order->ended, true)) return world_.violated(name + " was answered twice");
    world_.tell(fmt::format("{} ends: {}", name, error ? error->context : "done"));
    order->bound->disarm();
    if (order->patience) order->patience->disarm();
    if (order->given_up && since(order->given_up_at, order->jumped_when_given_up) > world_.give_up_bound)
        world_.violated(fmt::format("{} was answered long after it was given up", name));
    order->ended_at = world_.scheduler.timers.now();
    order->jumped_when_asked = world_.scheduler.jumped();
    orders_open_.remove(order);
    orders_ended_.push_back(order);
    forget_ended();
    if (error) {
        const int value = error->errno_value();
        const bool expected =
            value == EBUSY || value == ENOKEY || value == EOPNOTSUPP || (value == EINTR && order->given_up) ||
            (value == EINVAL && order->command && !order->command->type) ||  // preempt what?
            (world_.trouble && (value == EIO || value == ETIMEDOUT || value == ENODEV || value == EPROTO));
        if (!expected) world_.violated(fmt::format("{} failed: {}", name, error->context));
        return;
    }
    if (!order->command) return;
    const ReserveOut action = action_of(order->command->verb);
    const bool was_done = std::any_of(deeds_.begin(), deeds_.end(), [&](const Deed& deed) {
        return deed.wwid == order->wwid && deed.action == action && deed.at >= order->asked_at;
    });
    // Where nothing is reserved there is nothing to be released.
    if (!was_done && order->command->verb != Verb::release)
        world_.violated(fmt::format("{} has succeeded, and the target has never carried it out", name));
}

// ---- the target's side ----

void Cluster::on_arrival(const target::CommandView& command) {
    const auto number = command.lun.small_number();
    if (command.initiator != world_.initiator || !number) return;
    const ReserveOut action = action_of(command.cdb);
    const auto asks = [&](const OrderPointer& order) {
        return order->number == *number && order->command && action_of(order->command->verb) == action;
    };
    if (std::any_of(orders_open_.begin(), orders_open_.end(), asks)) return;
    if (std::any_of(orders_ended_.begin(), orders_ended_.end(), [&](const OrderPointer& order) {
            return asks(order) && since(order->ended_at, order->jumped_when_ended) <= world_.arrival_bound;
        }))
        return;
    // Repeated by the unit itself: on_carried_out() sees to that.
    if (action == ReserveOut::register_and_ignore_existing_key) return;
    world_.violated(fmt::format("a PERSISTENT RESERVE OUT, action {}, has arrived for LUN {}, and nobody waits for it",
                                static_cast<int>(action), *number));
}

void Cluster::on_carried_out(unsigned number, const srp::PortId& initiator, std::span<const std::byte> cdb,
                             std::span<const std::byte> data) {
    note_refusals(number);
    if (initiator != world_.initiator) return;
    const std::string wwid = world_.device.wwid(number);
    const Instant now = world_.scheduler.timers.now();
    if (static_cast<std::uint8_t>(cdb[0]) == scsi::opcode::persistent_reserve_in) {
        const auto state = world_.device.reservations(number);
        if ((std::to_integer<std::uint8_t>(cdb[1]) & 0x1f) == static_cast<std::uint8_t>(scsi::ReserveIn::read_keys) &&
            state.registrants.empty() && state.generation == 0) {
            blank_at_[wwid] = now;
            blank_jumped_[wwid] = world_.scheduler.jumped();
        }
        return;
    }
    ByteReader in(data);
    in.skip(8);
    const Deed deed{.wwid = wwid, .action = action_of(cdb), .key = in.u64(), .at = now};
    deeds_.push_back(deed);
    const auto times = static_cast<unsigned>(std::count_if(deeds_.begin(), deeds_.end(), [&](const Deed& one) {
        return one.wwid == wwid && one.action == deed.action &&
               (deed.action != ReserveOut::register_and_ignore_existing_key || one.key == deed.key);
    }));
    if (deed.action != ReserveOut::register_and_ignore_existing_key) {
        if (times > asked_[{wwid, deed.action}])
            world_.violated(
                fmt::format("action {} has been carried out {} times for LUN {}, and was asked for {} times",
                            static_cast<int>(deed.action), times, number, asked_[{wwid, deed.action}]));
        return;
    }
    const auto& keys = keys_asked_[wwid];
    if (std::find(keys.begin(), keys.end(), deed.key) == keys.end())
        return world_.violated(
            fmt::format("LUN {} was registered with {:#x}, a key nobody has chosen", number, deed.key));
    const bool was_asked = std::any_of(orders_open_.begin(), orders_open_.end(), [&](const OrderPointer& order) {
        return order->command && order->command->verb == Verb::register_and_ignore && order->command->key == deed.key;
    });
    if (times == 1 && was_asked) return;
    // The unit itself has done it: only if the target had forgotten everybody.
    const auto blank = blank_at_.find(wwid);
    const bool had_forgotten = blank != blank_at_.end() && since(blank->second, blank_jumped_[wwid]) <= command_bound;
    const bool was_given_up = times == 1;  // and carried out late
    if (had_forgotten)
        ++repeats;
    else if (!was_given_up)
        world_.violated(fmt::format("LUN {} was registered again with {:#x} although the target had not forgotten it",
                                    number, deed.key));
}

void Cluster::on_forgotten(unsigned number) { note_refusals(number); }

void Cluster::note_refusals(unsigned number) {
    Refusals& refusals = refusals_[number];
    const bool now =
        world_.device.refuses(world_.initiator, number, false) || world_.device.refuses(world_.initiator, number, true);
    if (refusals.now || now) {
        refusals.last = world_.scheduler.timers.now();
        refusals.ever = true;
    }
    refusals.now = now;
}

bool Cluster::may_have_refused(unsigned number, Instant since) {
    const Refusals& refusals = refusals_[number];
    return refusals.now || (refusals.ever && refusals.last >= since);
}

// ---- the others ----

bool Cluster::act(std::size_t rival, unsigned number, ReserveOut action, std::uint64_t key, std::uint64_t action_key,
                  std::optional<ReservationType> type) {
    const auto done = world_.device.reserve_as(rival_ids_[rival], number, scsi::persistent_reserve_out(action, type),
                                               scsi::encode_reserve_out(key, action_key));
    note_refusals(number);
    return done.has_value();
}

std::optional<std::uint64_t> Cluster::own_key(unsigned number) const {
    for (const auto& one : world_.device.reservations(number).registrants)
        if (one.initiator == world_.initiator) return one.key;
    return std::nullopt;
}

void Cluster::fence() {
    if (!active_) return;
    rivals_.arm_after(Duration(static_cast<Duration::rep>(random_.below(5'000'000'000))));
    const auto number = static_cast<unsigned>(random_.below(world_.units));
    const auto rival = static_cast<std::size_t>(random_.below(rival_ids_.size()));
    const auto state = world_.device.reservations(number);
    std::uint64_t key = 0;
    for (const auto& one : state.registrants)
        if (one.initiator == rival_ids_[rival]) key = one.key;
    const ReservationType type = types[random_.below(std::size(types))];
    if (key == 0) {
        act(rival, number, ReserveOut::register_key, 0, 0xa000 + rival, std::nullopt);
        return;
    }
    switch (random_.below(6)) {
        case 0: act(rival, number, ReserveOut::reserve, key, 0, type); break;
        case 1:
        case 2: act(rival, number, ReserveOut::release, key, 0, state.type.value_or(type)); break;
        case 3:
            if (const auto own = own_key(number)) {
                if (!act(rival, number, random_.chance(1, 2) ? ReserveOut::preempt : ReserveOut::preempt_and_abort, key,
                         *own, state.type.value_or(type)))
                    break;
                ++fencings;
                world_.tell(fmt::format("we are fenced off LUN {}", number));
            }
            break;
        case 4: act(rival, number, ReserveOut::register_key, key, 0, std::nullopt); break;
        default:
            if (act(rival, number, ReserveOut::clear, key, 0, std::nullopt)) ++fencings;
            break;
    }
}

void Cluster::make_peace() {
    active_ = false;
    administrator_.disarm();
    rivals_.disarm();
    for (unsigned number = 0; number < world_.units; ++number) {
        const bool clears = random_.chance(1, 3);
        for (std::size_t rival = 0; rival < rival_ids_.size(); ++rival) {
            if (clears) {
                act(rival, number, ReserveOut::register_and_ignore_existing_key, 0, 0xa000 + rival, std::nullopt);
                act(rival, number, ReserveOut::clear, 0xa000 + rival, 0, std::nullopt);
            } else {
                // With the last of its registrants a reservation ends.
                act(rival, number, ReserveOut::register_and_ignore_existing_key, 0, 0, std::nullopt);
            }
        }
    }
}

// ---- what our unit says ----

void Cluster::on_registration(const lun::ListedUnit& lun, bool lost) {
    if (!lost) return;
    ++losses;
    const auto number = lun.lun().small_number();
    if (!number || world_.device.wwid(*number) != lun.info()->wwid) return;
    const auto key = lun.registration()->key();
    if (key && own_key(*number) == key)
        world_.violated(fmt::format("LUN {} says that its registration {:#x} is gone, and it is there", *number, *key));
}

void Cluster::check_end(const std::vector<std::shared_ptr<lun::ListedUnit>>& luns) {
    for (const auto& lun : luns) {
        const auto number = lun->lun().small_number();
        if (!number) continue;
        const auto believed = lun->registration()->key();
        const auto is = own_key(*number);
        if (believed && believed != is)
            world_.violated(fmt::format("in the end LUN {} believes to be registered with {:#x}, and is {}", *number,
                                        *believed, is ? fmt::format("so with {:#x}", *is) : "not"));
        if (!world_.trouble && is && !believed)
            world_.violated(
                fmt::format("in the end LUN {} is registered with {:#x} and does not know it", *number, *is));
    }
}

}  // namespace srpfs::simulation
