// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Persistent reservations as bytes: offsets of SPC-4 6.15 and 6.16.
#include "hex.h"

#include <srpfs/scsi/reservation.h>

#include <gtest/gtest.h>

namespace srpfs::scsi {
namespace {

using srpfs::test::hex;

TEST(Reservation, CommandsAreTenBytesWithActionTypeAndLength) {
    const Cdb in = persistent_reserve_in(ReserveIn::read_reservation, 0x1234);
    EXPECT_EQ(std::vector<std::byte>(in.span().begin(), in.span().end()), hex("5e 01 00 00 00 00 00 12 34 00"));
    const Cdb out = persistent_reserve_out(ReserveOut::preempt, ReservationType::write_exclusive_registrants_only);
    EXPECT_EQ(std::vector<std::byte>(out.span().begin(), out.span().end()), hex("5f 04 05 00 00 00 00 00 18 00"));
}

TEST(Reservation, TheParameterListIsTwoKeysAndNoFlags) {
    const auto data = encode_reserve_out(0x1122334455667788, 0x99aabbccddeeff00);
    EXPECT_EQ(std::vector<std::byte>(data.begin(), data.end()),
              hex("11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff 00 00 00 00 00 00 00 00 00"));
}

TEST(Reservation, KeysAreReadAsFarAsTheyWereSent) {
    const auto told = parse_read_keys(hex("00 00 00 07 00 00 00 10 00 00 00 00 00 00 00 aa 00 00 00 00 00 00 00 bb"));
    ASSERT_TRUE(told);
    EXPECT_EQ(told->generation, 7u);
    EXPECT_EQ(told->keys, (std::vector<std::uint64_t>{0xaa, 0xbb}));
    EXPECT_FALSE(told->is_cut);
    const auto cut = parse_read_keys(hex("00 00 00 07 00 00 00 10 00 00 00 00 00 00 00 aa 00 00"));
    ASSERT_TRUE(cut);
    EXPECT_EQ(cut->keys.size(), 1u);
    EXPECT_TRUE(cut->is_cut);
    EXPECT_FALSE(parse_read_keys(hex("00 00 00 07 00 00")));
    EXPECT_FALSE(parse_read_keys(hex("00 00 00 07 00 00 00 03 00 00 00")));
}

TEST(Reservation, AReservationIsAKeyAndAType) {
    const auto none = parse_read_reservation(hex("00 00 00 02 00 00 00 00"));
    ASSERT_TRUE(none);
    EXPECT_FALSE(none->reservation);
    const auto some =
        parse_read_reservation(hex("00 00 00 02 00 00 00 10 00 00 00 00 00 00 00 aa 00 00 00 00 00 05 00 00"));
    ASSERT_TRUE(some && some->reservation);
    EXPECT_EQ(some->reservation->key, 0xaau);
    EXPECT_EQ(some->reservation->type, ReservationType::write_exclusive_registrants_only);
    EXPECT_FALSE(parse_read_reservation(hex("00 00 00 02 00 00 00 10 00 00 00 00 00 00 00 aa 00 00")));
    EXPECT_FALSE(parse_read_reservation(hex("00 00 00 02 00 00 00 10 00 00 00 00 00 00 00 aa 00 00 00 00 00 04 00 00")))
        << "no such type";
}

TEST(Reservation, EachTypeHasAName) {
    for (const unsigned code : {1U, 3U, 5U, 6U, 7U, 8U}) {
        const auto type = reservation_type_of(static_cast<std::uint8_t>(code));
        ASSERT_TRUE(type) << code;
        EXPECT_EQ(parse_reservation_type(to_string(*type)), type);
    }
    EXPECT_FALSE(reservation_type_of(2));
    EXPECT_FALSE(parse_reservation_type("shared"));
}

}  // namespace
}  // namespace srpfs::scsi
