// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "hex.h"

#include <srpfs/scsi/scsi.h>

#include <gtest/gtest.h>

namespace srpfs::scsi {
namespace {

using namespace test;

Lun lun(std::string_view text) {
    Lun result;
    const auto bytes = hex(text);
    std::copy(bytes.begin(), bytes.end(), result.bytes.begin());
    return result;
}

TEST(Lun, OfASmallNumberUsesPeripheralAddressing) {
    EXPECT_EQ(Lun::from_number(0), lun("00 00 00 00 00 00 00 00"));
    EXPECT_EQ(Lun::from_number(5), lun("00 05 00 00 00 00 00 00"));
    EXPECT_EQ(Lun::from_number(255), lun("00 ff 00 00 00 00 00 00"));
}

TEST(Lun, OfALargerNumberLooksLikeLiosOwn) { EXPECT_EQ(Lun::from_number(300), lun("01 2c 00 00 00 00 00 00")); }

TEST(LunDeathTest, AbortsOnANumberThatNeedsTheMethodBits) { EXPECT_DEATH((void)Lun::from_number(0x4000), "0x4000"); }

TEST(Lun, ShowsTheValueThatLinuxShows) {
    EXPECT_EQ(lun("00 05 00 00 00 00 00 00").linux_value(), 5u);
    EXPECT_EQ(lun("41 00 00 00 00 00 00 00").linux_value(), 0x4100u);
    EXPECT_EQ(lun("00 01 00 02 00 03 00 04").linux_value(), 0x0004000300020001u);
    EXPECT_EQ(lun("ff ff ff ff ff ff ff ff").linux_value(), UINT64_MAX);
}

TEST(Lun, IsSmallOnlyUpTo255InOneLevelOfPeripheralOrFlatAddressing) {
    EXPECT_EQ(lun("00 fe 00 00 00 00 00 00").small_number(), 254u);
    EXPECT_EQ(lun("00 ff 00 00 00 00 00 00").small_number(), 255u);
    EXPECT_EQ(lun("01 00 00 00 00 00 00 00").small_number(), std::nullopt);
    EXPECT_EQ(lun("40 05 00 00 00 00 00 00").small_number(), 5u);
    EXPECT_EQ(lun("40 ff 00 00 00 00 00 00").small_number(), 255u);
    EXPECT_EQ(lun("41 00 00 00 00 00 00 00").small_number(), std::nullopt);
    EXPECT_EQ(lun("80 05 00 00 00 00 00 00").small_number(), std::nullopt);  // logical unit addressing
    EXPECT_EQ(lun("c0 05 00 00 00 00 00 00").small_number(), std::nullopt);  // extended
    EXPECT_EQ(lun("00 05 00 01 00 00 00 00").small_number(), std::nullopt);  // two levels
    EXPECT_EQ(lun("00 05 00 00 00 00 00 01").small_number(), std::nullopt);
}

TEST(Lun, TwoSpellingsOfOneNumberAreOneUnit) {
    EXPECT_TRUE(lun("00 00 00 00 00 00 00 00").is_same_unit_as(lun("40 00 00 00 00 00 00 00")));
    EXPECT_TRUE(lun("40 05 00 00 00 00 00 00").is_same_unit_as(lun("00 05 00 00 00 00 00 00")));
    EXPECT_TRUE(lun("80 05 00 00 00 00 00 00").is_same_unit_as(lun("80 05 00 00 00 00 00 00")));
    EXPECT_FALSE(lun("80 05 00 00 00 00 00 00").is_same_unit_as(lun("c0 05 00 00 00 00 00 00")));
    EXPECT_FALSE(lun("00 05 00 00 00 00 00 00").is_same_unit_as(lun("00 06 00 00 00 00 00 00")));
    EXPECT_FALSE(lun("00 05 00 00 00 00 00 00").is_same_unit_as(lun("00 05 00 01 00 00 00 00")));
}

TEST(Lun, IsNamedByItsSmallNumberOrByItsBytes) {
    EXPECT_EQ(lun("00 00 00 00 00 00 00 00").file_name(), "lun0");
    EXPECT_EQ(lun("40 ff 00 00 00 00 00 00").file_name(), "lun255");
    EXPECT_EQ(lun("01 2c 00 00 00 00 00 00").file_name(), "lun0x012c000000000000");
    EXPECT_EQ(lun("c1 01 00 00 00 00 00 0f").file_name(), "lun0xc10100000000000f");
}

TEST(ReportLuns, ListsTheUnitsInTheOrderReported) {
    const auto list = parse_report_luns(hex("00 00 00 10 00 00 00 00") + hex("00 07 00 00 00 00 00 00") +
                                        hex("00 01 00 00 00 00 00 00"));

    ASSERT_TRUE(list);
    EXPECT_EQ(list->luns, (std::vector{Lun::from_number(7), Lun::from_number(1)}));
    EXPECT_EQ(list->bytes_needed, 24u);
}

TEST(ReportLuns, NeedsItsWholeHeader) {
    EXPECT_FALSE(parse_report_luns({}));
    EXPECT_FALSE(parse_report_luns(zeros(7)));
    const auto empty = parse_report_luns(zeros(8));
    ASSERT_TRUE(empty);
    EXPECT_TRUE(empty->luns.empty());
    EXPECT_EQ(empty->bytes_needed, 8u);
}

TEST(ReportLuns, LeavesOutAnIncompleteEntry) {
    const auto header = hex("00 00 00 10 00 00 00 00");

    EXPECT_EQ(parse_report_luns(header + zeros(15))->luns.size(), 1u);
    EXPECT_EQ(parse_report_luns(header + zeros(16))->luns.size(), 2u);
    EXPECT_EQ(parse_report_luns(header + zeros(17))->luns.size(), 2u);
    EXPECT_EQ(parse_report_luns(header + zeros(24))->luns.size(), 2u) << "bytes beyond the list are no entry";
}

TEST(ReportLuns, SaysHowMuchTheWholeListNeedsWhenItWasCutShort) {
    EXPECT_EQ(parse_report_luns(hex("00 00 08 00 00 00 00 00") + zeros(8))->bytes_needed, 0x808u);
    EXPECT_EQ(parse_report_luns(hex("ff ff ff f7 00 00 00 00"))->bytes_needed, 0xffffffffu);
    EXPECT_EQ(parse_report_luns(hex("ff ff ff ff 00 00 00 00") + zeros(8))->bytes_needed, 0xffffffffu);
    EXPECT_EQ(parse_report_luns(hex("ff ff ff ff 00 00 00 00") + zeros(8))->luns.size(), 1u);
}

}  // namespace
}  // namespace srpfs::scsi
