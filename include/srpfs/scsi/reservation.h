// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Persistent reservations (SPC-4 5.12, 6.15, 6.16) as bytes, and as the words people know them by.

#pragma once

#include <srpfs/scsi/scsi.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace srpfs::scsi {

enum class ReservationType : std::uint8_t {
    write_exclusive = 0x1,
    exclusive_access = 0x3,
    write_exclusive_registrants_only = 0x5,
    exclusive_access_registrants_only = 0x6,
    write_exclusive_all_registrants = 0x7,
    exclusive_access_all_registrants = 0x8,
};
// "write-exclusive", "exclusive-access", and these with "-registrants-only" or "-all-registrants".
std::string_view to_string(ReservationType type);
std::optional<ReservationType> parse_reservation_type(std::string_view text);
std::optional<ReservationType> reservation_type_of(std::uint8_t code);  // the lower half of a SCOPE, TYPE byte
bool is_for_all_registrants(ReservationType type);
bool is_for_registrants(ReservationType type);  // only or all
bool excludes_reads(ReservationType type);

enum class ReserveIn : std::uint8_t { read_keys = 0, read_reservation = 1, report_capabilities = 2 };
enum class ReserveOut : std::uint8_t {
    register_key = 0,
    reserve = 1,
    release = 2,
    clear = 3,
    preempt = 4,
    preempt_and_abort = 5,
    register_and_ignore_existing_key = 6,
};

inline constexpr std::size_t reserve_out_bytes = 24;
Cdb persistent_reserve_in(ReserveIn action, std::uint16_t allocation_bytes);
// Of the logical unit (the only scope there is). `type` counts for reserve, release and preempting only.
Cdb persistent_reserve_out(ReserveOut action, std::optional<ReservationType> type);
// Its parameter list. Without APTPL: the target forgets all when it loses power.
std::array<std::byte, reserve_out_bytes> encode_reserve_out(std::uint64_t key, std::uint64_t action_key);

struct RegisteredKeys {
    std::uint32_t generation = 0;     // counts REGISTERs, CLEARs and PREEMPTs since the target's power on
    std::vector<std::uint64_t> keys;  // one for each registered I_T nexus
    bool is_cut = false;              // there are more than were sent
};
std::optional<RegisteredKeys> parse_read_keys(std::span<const std::byte> data);

struct Reservation {
    std::uint64_t key = 0;  // 0 for all registrants
    ReservationType type{};
};
struct ReservationData {
    std::uint32_t generation = 0;
    std::optional<Reservation> reservation;
};
// nullopt: unusable, or of a type that does not exist.
std::optional<ReservationData> parse_read_reservation(std::span<const std::byte> data);

}  // namespace srpfs::scsi
