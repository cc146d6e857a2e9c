// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/scsi/reservation.h>

#include <srpfs/base/bytes.h>

#include <algorithm>
#include <utility>

namespace srpfs::scsi {
namespace {

constexpr std::size_t reservation_bytes = 16;
constexpr std::pair<ReservationType, std::string_view> names[] = {
    {ReservationType::write_exclusive, "write-exclusive"},
    {ReservationType::exclusive_access, "exclusive-access"},
    {ReservationType::write_exclusive_registrants_only, "write-exclusive-registrants-only"},
    {ReservationType::exclusive_access_registrants_only, "exclusive-access-registrants-only"},
    {ReservationType::write_exclusive_all_registrants, "write-exclusive-all-registrants"},
    {ReservationType::exclusive_access_all_registrants, "exclusive-access-all-registrants"},
};

}  // namespace

std::string_view to_string(ReservationType type) {
    for (const auto& [one, name] : names)
        if (one == type) return name;
    return "unknown";
}

std::optional<ReservationType> parse_reservation_type(std::string_view text) {
    for (const auto& [type, name] : names)
        if (name == text) return type;
    return std::nullopt;
}

std::optional<ReservationType> reservation_type_of(std::uint8_t code) {
    for (const auto& [type, name] : names)
        if (static_cast<std::uint8_t>(type) == (code & 0x0f)) return type;
    return std::nullopt;
}

bool is_for_all_registrants(ReservationType type) {
    return type == ReservationType::write_exclusive_all_registrants ||
           type == ReservationType::exclusive_access_all_registrants;
}

bool is_for_registrants(ReservationType type) {
    return type != ReservationType::write_exclusive && type != ReservationType::exclusive_access;
}

bool excludes_reads(ReservationType type) {
    return type == ReservationType::exclusive_access || type == ReservationType::exclusive_access_registrants_only ||
           type == ReservationType::exclusive_access_all_registrants;
}

Cdb persistent_reserve_in(ReserveIn action, std::uint16_t allocation_bytes) {
    Cdb cdb;
    cdb.length = 10;
    ByteWriter(cdb.bytes)
        .u8(opcode::persistent_reserve_in)
        .u8(static_cast<std::uint8_t>(action))
        .zeros(5)
        .u16(allocation_bytes);
    return cdb;
}

Cdb persistent_reserve_out(ReserveOut action, std::optional<ReservationType> type) {
    Cdb cdb;
    cdb.length = 10;
    ByteWriter(cdb.bytes)
        .u8(opcode::persistent_reserve_out)
        .u8(static_cast<std::uint8_t>(action))
        .u8(type ? static_cast<std::uint8_t>(*type) : std::uint8_t{0})
        .zeros(2)
        .u32(reserve_out_bytes);
    return cdb;
}

std::array<std::byte, reserve_out_bytes> encode_reserve_out(std::uint64_t key, std::uint64_t action_key) {
    std::array<std::byte, reserve_out_bytes> data{};
    ByteWriter(data).u64(key).u64(action_key);
    return data;
}

std::optional<RegisteredKeys> parse_read_keys(std::span<const std::byte> data) {
    ByteReader in(data);
    RegisteredKeys told;
    told.generation = in.u32();
    const std::uint32_t bytes = in.u32();
    if (in.overran() || bytes % 8 != 0) return std::nullopt;
    const std::size_t here = std::min<std::size_t>(bytes, in.left()) / 8;
    told.is_cut = here < bytes / 8;
    for (std::size_t i = 0; i < here; ++i) told.keys.push_back(in.u64());
    return told;
}

std::optional<ReservationData> parse_read_reservation(std::span<const std::byte> data) {
    ByteReader in(data);
    ReservationData told;
    told.generation = in.u32();
    const std::uint32_t bytes = in.u32();
    if (in.overran()) return std::nullopt;
    if (bytes == 0) return told;
    if (bytes < reservation_bytes) return std::nullopt;
    Reservation reservation;
    reservation.key = in.u64();
    in.skip(5);
    const auto type = reservation_type_of(in.u8());
    if (in.overran() || !type) return std::nullopt;
    reservation.type = *type;
    told.reservation = reservation;
    return told;
}

}  // namespace srpfs::scsi
