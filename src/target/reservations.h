// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Persistent reservations of one embedded unit (SPC-4 5.12), as LIO has them: forgotten at power loss, scope logical
// unit, no SPEC_I_PT, ALL_TG_PT or APTPL.

#pragma once

#include "logical_unit.h"

#include <srpfs/scsi/reservation.h>
#include <srpfs/srp/srp.h>
#include <srpfs/target/device.h>

#include <atomic>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace srpfs::target {

struct Nexus {
    srp::PortId initiator{}, target{};
    bool operator==(const Nexus&) const = default;
};

// Any thread.
class Reservations {
public:
    enum class Access { neither, reads, writes };
    // Whether a command that reads or writes the medium has to be refused. Costs a load while nothing is reserved.
    [[nodiscard]] bool refuses(const Nexus& nexus, Access access) const {
        return is_reserved() && conflicts(nexus, access);
    }

    // False: nothing is refused.
    [[nodiscard]] bool is_reserved() const { return is_reserved_.load(std::memory_order_acquire); }

    // PERSISTENT RESERVE IN.
    Told tell(const CdbBytes& cdb, std::span<std::byte> out) const;

    struct Done {
        bool conflict = false;
        std::optional<Failure> failure;
        std::vector<std::pair<Nexus, Failure>> attentions;  // for others
    };
    // PERSISTENT RESERVE OUT with its parameter list.
    Done carry_out(const Nexus& nexus, const CdbBytes& cdb, std::span<const std::byte> data);

    void lose_power();
    [[nodiscard]] ReservationState state() const;

private:
    struct Registration {
        Nexus nexus;
        std::uint64_t key = 0;
    };
    [[nodiscard]] bool conflicts(const Nexus& nexus, Access access) const;
    [[nodiscard]] Registration* find(const Nexus& nexus);
    [[nodiscard]] bool is_holder(const Nexus& nexus) const;
    void enroll(const Nexus& nexus, std::uint64_t key, Done& done);
    void preempt(const Nexus& nexus, std::uint64_t key, scsi::ReservationType type, Done& done);
    void set_reservation(std::optional<scsi::ReservationType> type, const Nexus& holder);
    void tell_others(const Nexus& nexus, std::uint8_t ascq, Done& done) const;

    mutable std::mutex mutex_;
    std::atomic<bool> is_reserved_ = false;
    std::uint32_t generation_ = 0;
    std::vector<Registration> registrations_;
    std::optional<scsi::ReservationType> type_;
    Nexus holder_;  // of one that is not for all registrants
};

}  // namespace srpfs::target
