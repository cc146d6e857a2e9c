// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "reservations.h"

#include <srpfs/base/bytes.h>

#include <algorithm>

namespace srpfs::target {
namespace {

using scsi::ReservationType;
using scsi::ReserveIn;
using scsi::ReserveOut;

constexpr Failure invalid_release{scsi::SenseKey::illegal_request, 0x26, 0x04};
constexpr std::uint8_t reservations_preempted = 0x03, reservations_released = 0x04, registrations_preempted = 0x05;
constexpr std::uint8_t unwanted_flags = 0x0d;  // SPEC_I_PT, ALL_TG_PT, APTPL

Failure attention(std::uint8_t ascq) { return {scsi::SenseKey::unit_attention, 0x2a, ascq}; }

}  // namespace

bool Reservations::conflicts(const Nexus& nexus, Access access) const {
    const std::lock_guard lock(mutex_);
    if (!type_ || access == Access::neither || is_holder(nexus)) return false;
    if (access == Access::reads && !scsi::excludes_reads(*type_)) return false;
    const bool is_registered = std::any_of(registrations_.begin(), registrations_.end(),
                                           [&](const Registration& one) { return one.nexus == nexus; });
    return !(is_registered && scsi::is_for_registrants(*type_));
}

Reservations::Registration* Reservations::find(const Nexus& nexus) {
    const auto found = std::find_if(registrations_.begin(), registrations_.end(),
                                    [&](const Registration& one) { return one.nexus == nexus; });
    return found == registrations_.end() ? nullptr : &*found;
}

bool Reservations::is_holder(const Nexus& nexus) const {
    if (!type_) return false;
    if (!scsi::is_for_all_registrants(*type_)) return holder_ == nexus;
    return std::any_of(registrations_.begin(), registrations_.end(),
                       [&](const Registration& one) { return one.nexus == nexus; });
}

void Reservations::set_reservation(std::optional<ReservationType> type, const Nexus& holder) {
    type_ = type;
    holder_ = holder;
    is_reserved_.store(type.has_value(), std::memory_order_release);
}

void Reservations::tell_others(const Nexus& nexus, std::uint8_t ascq, Done& done) const {
    for (const Registration& one : registrations_)
        if (!(one.nexus == nexus)) done.attentions.emplace_back(one.nexus, attention(ascq));
}

Told Reservations::tell(const CdbBytes& cdb, std::span<std::byte> out) const {
    const std::lock_guard lock(mutex_);
    ByteWriter data(out);
    switch (static_cast<ReserveIn>(std::to_integer<std::uint8_t>(cdb[1]) & 0x1f)) {
        case ReserveIn::read_keys: {
            data.u32(generation_).u32(static_cast<std::uint32_t>(registrations_.size() * 8));
            const std::size_t all = 8 + registrations_.size() * 8;
            for (const Registration& one : registrations_) data.u64(one.key);  // as many as fit
            return {.bytes = std::min(all, out.size()), .failure = {}};
        }
        case ReserveIn::read_reservation: {
            data.u32(generation_).u32(type_ ? 16 : 0);
            if (!type_) break;
            std::uint64_t key = 0;
            if (!scsi::is_for_all_registrants(*type_))
                for (const Registration& one : registrations_)
                    if (one.nexus == holder_) key = one.key;
            data.u64(key).zeros(5).u8(static_cast<std::uint8_t>(*type_)).zeros(2);
            break;
        }
        case ReserveIn::report_capabilities:
            data.u16(8).u8(0).u8(0x80);  // TMV
            data.u8(0xea).u8(0x01);      // all six types
            data.zeros(2);
            break;
        default: return {.bytes = 0, .failure = invalid_field};
    }
    return {.bytes = data.position(), .failure = {}};
}

Reservations::Done Reservations::carry_out(const Nexus& nexus, const CdbBytes& cdb, std::span<const std::byte> data) {
    const std::lock_guard lock(mutex_);
    Done done;
    ByteReader in(data);
    const std::uint64_t key = in.u64(), action_key = in.u64();
    in.skip(4);
    const std::uint8_t flags = in.u8();
    const auto action = static_cast<ReserveOut>(std::to_integer<std::uint8_t>(cdb[1]) & 0x1f);
    const std::uint8_t scope_and_type = std::to_integer<std::uint8_t>(cdb[2]);
    const auto type = scsi::reservation_type_of(scope_and_type);
    const auto fail = [&](Failure failure) {
        done.failure = failure;
        return done;
    };
    if (in.overran() || data.size() != scsi::reserve_out_bytes) return fail({scsi::SenseKey::illegal_request, 0x1a, 0});
    if ((flags & unwanted_flags) != 0) return fail(invalid_parameter);
    Registration* const own = find(nexus);
    const bool ignores_key = action == ReserveOut::register_and_ignore_existing_key;
    if (!ignores_key) {
        const bool first = action == ReserveOut::register_key && !own && key == 0;
        if (!first && (!own || own->key != key)) {
            done.conflict = true;
            return done;
        }
    }
    const bool needs_type = action == ReserveOut::reserve || action == ReserveOut::release ||
                            action == ReserveOut::preempt || action == ReserveOut::preempt_and_abort;
    if (needs_type && (!type || scope_and_type >> 4 != 0)) return fail(invalid_field);

    switch (action) {
        case ReserveOut::register_key:
        case ReserveOut::register_and_ignore_existing_key: enroll(nexus, action_key, done); return done;
        case ReserveOut::reserve:
            if (type_)
                done.conflict = !(is_holder(nexus) && *type_ == *type);
            else
                set_reservation(type, nexus);
            return done;
        case ReserveOut::release:
            if (!type_ || !is_holder(nexus)) return done;
            if (*type_ != *type) return fail(invalid_release);
            if (scsi::is_for_registrants(*type_)) tell_others(nexus, reservations_released, done);
            set_reservation(std::nullopt, {});
            return done;
        case ReserveOut::clear:
            tell_others(nexus, reservations_preempted, done);
            registrations_.clear();
            set_reservation(std::nullopt, {});
            ++generation_;
            return done;
        case ReserveOut::preempt:
        case ReserveOut::preempt_and_abort: preempt(nexus, action_key, *type, done); return done;
    }
    return fail(invalid_field);
}

void Reservations::enroll(const Nexus& nexus, std::uint64_t key, Done& done) {
    Registration* const own = find(nexus);
    if (key != 0) {
        if (own)
            own->key = key;
        else
            registrations_.push_back({nexus, key});
        ++generation_;
        return;
    }
    if (!own) return;
    const bool ends_reservation =
        is_holder(nexus) && (!scsi::is_for_all_registrants(*type_) || registrations_.size() == 1);
    if (ends_reservation) {
        if (scsi::is_for_registrants(*type_)) tell_others(nexus, reservations_released, done);
        set_reservation(std::nullopt, {});
    }
    std::erase_if(registrations_, [&](const Registration& one) { return one.nexus == nexus; });
    ++generation_;
}

void Reservations::preempt(const Nexus& nexus, std::uint64_t key, ReservationType type, Done& done) {
    const bool all = type_ && scsi::is_for_all_registrants(*type_);
    if (key == 0 && !all) {
        done.failure = invalid_parameter;
        return;
    }
    const auto is_meant = [&](const Registration& one) { return key == 0 ? !(one.nexus == nexus) : one.key == key; };
    if (key != 0 && std::none_of(registrations_.begin(), registrations_.end(), is_meant)) {
        done.conflict = true;
        return;
    }
    const bool takes_over =
        type_ && (all ? key == 0
                      : std::any_of(registrations_.begin(), registrations_.end(),
                                    [&](const Registration& one) { return is_meant(one) && one.nexus == holder_; }));
    std::erase_if(registrations_, [&](const Registration& one) {
        if (!is_meant(one) || one.nexus == nexus) return false;
        done.attentions.emplace_back(one.nexus, attention(registrations_preempted));
        return true;
    });
    if (takes_over) set_reservation(type, nexus);
    ++generation_;
}

void Reservations::lose_power() {
    const std::lock_guard lock(mutex_);
    registrations_.clear();
    generation_ = 0;
    set_reservation(std::nullopt, {});
}

ReservationState Reservations::state() const {
    const std::lock_guard lock(mutex_);
    ReservationState state{.generation = generation_, .registrants = {}, .type = type_};
    for (const Registration& one : registrations_) state.registrants.push_back({one.nexus.initiator, one.key});
    return state;
}

}  // namespace srpfs::target
