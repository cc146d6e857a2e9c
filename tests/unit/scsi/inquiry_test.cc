// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "hex.h"

#include <srpfs/scsi/scsi.h>

#include <gtest/gtest.h>

namespace srpfs::scsi {
namespace {

using namespace test;

std::vector<std::byte> standard_inquiry() {
    return hex("00 00 06 02 1f 00 00 02") + ascii("LIO-ORG ramdisk0        4.0 ");
}

// The header of a VPD page around its payload.
std::vector<std::byte> vpd(std::string_view page_code, const std::vector<std::byte>& payload) {
    return hex("00") + hex(page_code) +
           std::vector{static_cast<std::byte>(payload.size() >> 8), static_cast<std::byte>(payload.size() & 0xff)} +
           payload;
}

std::vector<std::byte> designator(std::string_view code_set, std::string_view kind,
                                  const std::vector<std::byte>& bytes) {
    return hex(code_set) + hex(kind) + hex("00") + std::vector{static_cast<std::byte>(bytes.size())} + bytes;
}

TEST(Inquiry, TellsADiskAndItsNames) {
    const auto inquiry = parse_inquiry(standard_inquiry());

    ASSERT_TRUE(inquiry);
    EXPECT_TRUE(inquiry->is_disk());
    EXPECT_EQ(inquiry->version, 6);
    EXPECT_EQ(inquiry->vendor, "LIO-ORG");
    EXPECT_EQ(inquiry->product, "ramdisk0");
    EXPECT_EQ(inquiry->revision, "4.0");
}

// LIO answers 3Fh for LUN 0 when nothing is mapped there (srp-targets 1.4).
TEST(Inquiry, OfAVirtualUnitIsNoDisk) {
    auto data = standard_inquiry();
    data[0] = std::byte{0x3f};

    const auto inquiry = parse_inquiry(data);

    EXPECT_EQ(inquiry->peripheral_qualifier, 1);
    EXPECT_EQ(inquiry->device_type, 0x1f);
    EXPECT_FALSE(inquiry->is_disk());
}

TEST(Inquiry, OfADisconnectedDiskOrAnotherDeviceIsNoDisk) {
    for (const char* peripheral : {"20", "60", "05", "01", "1f"}) {
        auto data = standard_inquiry();
        data[0] = hex(peripheral)[0];
        EXPECT_FALSE(parse_inquiry(data)->is_disk()) << peripheral;
    }
}

TEST(Inquiry, NeedsFiveBytes) {
    EXPECT_FALSE(parse_inquiry({}));
    EXPECT_FALSE(parse_inquiry(zeros(4)));
    EXPECT_TRUE(parse_inquiry(zeros(5)));
}

TEST(Inquiry, HasNoNamesBeyondWhatWasReceived) {
    auto data = standard_inquiry();
    data.resize(35);
    EXPECT_EQ(parse_inquiry(data)->product, "ramdisk0");
    EXPECT_EQ(parse_inquiry(data)->revision, "");
    data.resize(15);
    EXPECT_EQ(parse_inquiry(data)->vendor, "");
}

TEST(Inquiry, HasNoNamesBeyondTheAdditionalLength) {
    auto data = standard_inquiry();
    data[4] = std::byte{0x1e};  // 35 bytes in all
    EXPECT_EQ(parse_inquiry(data)->revision, "");
    EXPECT_EQ(parse_inquiry(data)->vendor, "LIO-ORG");
    data[4] = std::byte{0xff};
    EXPECT_EQ(parse_inquiry(data)->revision, "4.0");
}

TEST(Inquiry, ShowsUnprintableBytesAsQuestionMarksAndCutsPadding) {
    auto data = standard_inquiry();
    data[8] = std::byte{'\n'};
    data[9] = std::byte{0x1b};
    data[10] = std::byte{0x80};
    for (std::size_t i = 32; i < 36; ++i) data[i] = std::byte{0};

    EXPECT_EQ(parse_inquiry(data)->vendor,
              "?"
              "?"
              "?"
              "-ORG");
    EXPECT_EQ(parse_inquiry(data)->revision, "");
}

TEST(VpdPage, IsRefusedWhenShortOrOfAnotherCode) {
    EXPECT_FALSE(parse_vpd_serial(hex("00 80 00")));
    EXPECT_TRUE(parse_vpd_serial(hex("00 80 00 00")));
    EXPECT_FALSE(parse_vpd_serial(hex("00 83 00 00")));
    EXPECT_FALSE(parse_vpd_supported(hex("00 80 00 00")));
    EXPECT_FALSE(parse_vpd_wwid(hex("00 80 00 00")));
    EXPECT_FALSE(parse_vpd_block_limits(hex("00 80 00 00")));
}

TEST(VpdPage, EndsAtItsLengthOrAtTheBytesReceived) {
    const auto page = hex("00 80 00 04") + ascii("ABCDEF");

    EXPECT_EQ(parse_vpd_serial(page), "ABCD");
    EXPECT_EQ(parse_vpd_serial(std::span(page).first(7)), "ABC");
    EXPECT_EQ(parse_vpd_serial(std::span(page).first(4)), "");
    EXPECT_EQ(parse_vpd_serial(hex("00 80 ff ff") + ascii("AB")), "AB");
}

TEST(VpdSerial, IsTrimmedOnBothSides) {
    EXPECT_EQ(parse_vpd_serial(vpd("80", ascii("   42 a  "))), "42 a");
    EXPECT_EQ(parse_vpd_serial(vpd("80", ascii("      "))), "");
}

TEST(VpdSupported, ListsThePages) {
    EXPECT_EQ(parse_vpd_supported(vpd("00", hex("00 80 83 b0"))), (std::vector<std::uint8_t>{0x00, 0x80, 0x83, 0xb0}));
    EXPECT_EQ(parse_vpd_supported(vpd("00", {}))->size(), 0u);
}

const auto naa_6 = designator("01", "03", hex("60 01 40 5a 11 22 33 44 55 66 77 88 99 aa bb cc"));
const auto naa_5 = designator("01", "03", hex("50 01 40 5a 11 22 33 44"));
const auto eui_8 = designator("01", "02", hex("00 25 90 ff fe 12 34 56"));
const auto eui_16 = designator("01", "02", hex("00 25 90 ff fe 12 34 56 00 00 00 00 00 00 00 01"));
const auto t10 = designator("02", "01", ascii("LIO-ORG ramdisk0:1a2b"));

TEST(VpdWwid, PrefersNaaToEuiToT10WhateverTheOrder) {
    EXPECT_EQ(parse_vpd_wwid(vpd("83", t10 + eui_8 + naa_6)), "naa.6001405a112233445566778899aabbcc");
    EXPECT_EQ(parse_vpd_wwid(vpd("83", naa_6 + eui_8 + t10)), "naa.6001405a112233445566778899aabbcc");
    EXPECT_EQ(parse_vpd_wwid(vpd("83", t10 + eui_8)), "eui.002590fffe123456");
    EXPECT_EQ(parse_vpd_wwid(vpd("83", t10)), "t10.LIO-ORG ramdisk0:1a2b");
}

TEST(VpdWwid, PrefersTheLongerOfTwoOfAKind) {
    EXPECT_EQ(parse_vpd_wwid(vpd("83", naa_5 + naa_6)), "naa.6001405a112233445566778899aabbcc");
    EXPECT_EQ(parse_vpd_wwid(vpd("83", eui_16 + eui_8)), "eui.002590fffe1234560000000000000001");
    EXPECT_EQ(parse_vpd_wwid(vpd("83", naa_5 + eui_16)), "naa.5001405a11223344");
}

TEST(VpdWwid, TakesTheFirstOfTwoEqualOnes) {
    const auto other = designator("01", "03", hex("50 01 40 5a ff ff ff ff"));

    EXPECT_EQ(parse_vpd_wwid(vpd("83", naa_5 + other)), "naa.5001405a11223344");
}

TEST(VpdWwid, LeavesOutDesignatorsOfPortAndTarget) {
    const auto of_port = designator("61", "93", hex("50 01 40 5a 11 22 33 44"));
    const auto of_target = designator("61", "a3", hex("50 01 40 5a 11 22 33 44"));

    EXPECT_EQ(parse_vpd_wwid(vpd("83", of_port + of_target)), std::nullopt);
    EXPECT_EQ(parse_vpd_wwid(vpd("83", of_port + t10)), "t10.LIO-ORG ramdisk0:1a2b");
}

TEST(VpdWwid, LeavesOutDesignatorsThatAreNotWhatTheyClaim) {
    const std::vector<std::byte> wrong[] = {
        designator("01", "03", hex("50 01 40 5a 11 22 33")),                             // one byte short
        designator("01", "03", hex("50 01 40 5a 11 22 33 44 55")),                       // one more
        designator("01", "03", hex("60 01 40 5a 11 22 33 44")),                          // NAA 6 has 16 bytes
        designator("01", "03", hex("00 01 40 5a 11 22 33 44")),                          // no such NAA
        designator("01", "03", hex("50 01 40 5a 11 22 33 44 55 66 77 88 99 aa bb cc")),  // NAA 5 has 8 bytes
        designator("02", "03", hex("50 01 40 5a 11 22 33 44")),                          // NAA in ASCII
        designator("01", "03", {}),
        designator("01", "02", zeros(8)),  // EUI of zeros
        designator("01", "02", hex("00 25 90 ff fe 12 34")),
        designator("02", "01", ascii("LIO-ORG ")),      // a vendor alone names no unit
        designator("02", "01", ascii("VENDOR_8")),      // a vendor alone names no unit
        designator("01", "01", ascii("LIO-ORG disk")),  // T10 in binary
        designator("02", "08", ascii("iqn.2003-01.org.linux-iscsi:x")),
        designator("01", "04", hex("00 00 00 01")),
    };
    for (const auto& one : wrong) EXPECT_EQ(parse_vpd_wwid(vpd("83", one)), std::nullopt);
    EXPECT_EQ(parse_vpd_wwid(vpd("83", {})), std::nullopt);
}

TEST(VpdWwid, TakesTheShortestT10ThatNamesAUnit) {
    EXPECT_EQ(parse_vpd_wwid(vpd("83", designator("02", "01", ascii("VENDOR  1")))), "t10.VENDOR  1");
}

TEST(VpdWwid, KeepsDifferentUnprintableNamesDifferent) {
    EXPECT_EQ(parse_vpd_wwid(vpd("83", designator("02", "01", ascii("VENDOR  ") + hex("01 41")))),
              "t10.VENDOR  \\x01A");
    EXPECT_EQ(parse_vpd_wwid(vpd("83", designator("02", "01", ascii("VENDOR  \\x01A")))), "t10.VENDOR  \\x5cx01A");
    EXPECT_EQ(parse_vpd_wwid(vpd("83", designator("03", "01", ascii("VENDOR  ") + hex("c3 a4 0a")))),
              "t10.VENDOR  \\xc3\\xa4\\x0a");
}

TEST(VpdWwid, KeepsWhatCameBeforeADesignatorThatClaimsTooMuch) {
    auto lying = naa_6;
    lying[3] = std::byte{0xff};

    EXPECT_EQ(parse_vpd_wwid(vpd("83", t10 + lying)), "t10.LIO-ORG ramdisk0:1a2b");
    EXPECT_EQ(parse_vpd_wwid(vpd("83", lying)), std::nullopt);
    EXPECT_EQ(parse_vpd_wwid(vpd("83", t10 + hex("01 03 00"))), "t10.LIO-ORG ramdisk0:1a2b") << "half a header";
}

TEST(BlockLimits, AreReadFromALongPage) {
    const auto page = vpd("b0", hex("01 01 00 08  00 00 40 00  00 00 20 00  00 00 00 00  00 00 10 00  00 00 00 20"
                                    "00 00 00 01  80 00 00 00  00 00 00 00 00 00 ff ff") +
                                    zeros(20));
    const auto limits = parse_vpd_block_limits(page);

    ASSERT_TRUE(limits);
    EXPECT_EQ(limits->transfer_granularity_blocks, 8);
    EXPECT_EQ(limits->transfer_blocks_max, 0x4000u);
    EXPECT_EQ(limits->transfer_blocks_optimal, 0x2000u);
    EXPECT_EQ(limits->unmap_blocks_max, 0x1000u);
    EXPECT_EQ(limits->unmap_descriptors_max, 0x20u);
    EXPECT_EQ(limits->write_same_blocks_max, 0xffffu);
}

TEST(Provisioning, TellsWhichWriteSameUnmaps) {
    struct Row {
        const char* flags;
        bool by_16, by_10;
    };
    for (const Row& row :
         {Row{"00 9f", false, false}, Row{"00 40", true, false}, Row{"00 20", false, true}, Row{"00 e0", true, true}}) {
        const auto told = parse_vpd_provisioning(vpd("b2", hex(row.flags)));
        ASSERT_TRUE(told) << row.flags;
        EXPECT_EQ(told->write_same_unmaps, row.by_16) << row.flags;
        EXPECT_EQ(told->write_same_10_unmaps, row.by_10) << row.flags;
    }
    EXPECT_FALSE(parse_vpd_provisioning(vpd("b2", hex("00"))));
}

TEST(BlockLimits, AreReadFromTheShortPageOfSbc2AndNotFromLess) {
    const auto payload = hex("00 00 00 08  00 00 40 00  00 00 20 00");

    const auto limits = parse_vpd_block_limits(vpd("b0", payload));
    ASSERT_TRUE(limits);
    EXPECT_EQ(limits->transfer_blocks_max, 0x4000u);
    EXPECT_EQ(limits->transfer_blocks_optimal, 0x2000u);
    EXPECT_EQ(limits->unmap_blocks_max, 0u);
    EXPECT_EQ(limits->write_same_blocks_max, 0u);

    EXPECT_FALSE(parse_vpd_block_limits(vpd("b0", std::vector(payload.begin(), payload.end() - 1))));
}

}  // namespace
}  // namespace srpfs::scsi
