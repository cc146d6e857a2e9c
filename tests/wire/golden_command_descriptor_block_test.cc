// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// CDBs and sense data against bytes written by hand from SPC-4 and SBC-3; no encoder of ours had a part in them.
#include "hex.h"

#include <srpfs/scsi/scsi.h>

#include <gtest/gtest.h>

namespace srpfs::scsi {
namespace {

using test::hex;

std::vector<std::byte> bytes(const Cdb& cdb) { return {cdb.span().begin(), cdb.span().end()}; }

// SPC-4 6.47: operation code, reserved (4), control.
TEST(GoldenCdb, TestUnitReady) { EXPECT_EQ(bytes(test_unit_ready()), hex("00 00 00 00 00 00")); }

// SPC-4 6.6: operation code, EVPD, page code, allocation length (2), control.
TEST(GoldenCdb, Inquiry) {
    EXPECT_EQ(bytes(inquiry(36)), hex("12 00 00 0024 00"));
    EXPECT_EQ(bytes(inquiry(0xfffc)), hex("12 00 00 fffc 00"));
    EXPECT_EQ(bytes(inquiry_vpd(0x83, 0x1234)), hex("12 01 83 1234 00"));
    EXPECT_EQ(bytes(inquiry_vpd(0x00, 255)), hex("12 01 00 00ff 00"));
}

// SPC-4 6.33: operation code, reserved, select report, reserved (3), allocation length (4), reserved, control.
TEST(GoldenCdb, ReportLuns) { EXPECT_EQ(bytes(report_luns(0x12345678)), hex("a0 00 00 000000 12345678 00 00")); }

// SBC-3 5.16: operation code, reserved, logical block address (4, obsolete), reserved (2), PMI (obsolete), control.
TEST(GoldenCdb, ReadCapacity10) { EXPECT_EQ(bytes(read_capacity_10()), hex("25 00 00000000 0000 00 00")); }

// SBC-3 5.17: operation code, service action 10h, address (8, obsolete), allocation length (4), PMI (obsolete),
// control.
TEST(GoldenCdb, ReadCapacity16) {
    EXPECT_EQ(bytes(read_capacity_16(32)), hex("9e 10 0000000000000000 00000020 00 00"));
}

// SBC-3 5.6: operation code, service action 12h, address (8), allocation length (4), reserved, control.
TEST(GoldenCdb, GetLbaStatus) {
    EXPECT_EQ(bytes(get_lba_status(0x0123456789abcdef, 4096)), hex("9e 12 0123456789abcdef 00001000 00 00"));
}

// SPC-4 6.11: operation code, DBD (08h), page control and page code, subpage code, allocation length, control.
TEST(GoldenCdb, ModeSense6) { EXPECT_EQ(bytes(mode_sense_6(0x08, 0xc0)), hex("1a 08 08 00 c0 00")); }

// SPC-4 6.12: operation code, LLBAA and DBD, page, subpage, reserved (3), allocation length (2), control.
TEST(GoldenCdb, ModeSense10) { EXPECT_EQ(bytes(mode_sense_10(0x3f, 0x0102)), hex("5a 08 3f 00 000000 0102 00")); }

// SPC-4 6.39: operation code, DESC, reserved (2), allocation length, control.
TEST(GoldenCdb, RequestSense) { EXPECT_EQ(bytes(request_sense(252)), hex("03 00 00 00 fc 00")); }

// SBC-3 WRITE SAME: operation code, flags (UNMAP 08h), address, [length], group number, [length], control.
TEST(GoldenCdb, WriteSame) {
    EXPECT_EQ(bytes(write_same(0x123456789abcdef0, 0x01020304, false)), hex("93 00 123456789abcdef0 01020304 00 00"));
    EXPECT_EQ(bytes(write_same(1, 2, true)), hex("93 08 0000000000000001 00000002 00 00"));
    EXPECT_EQ(bytes(write_same_10(0x12345678, 0xabcd, false)), hex("41 00 12345678 00 abcd 00"));
    EXPECT_EQ(bytes(write_same_10(1, 2, true)), hex("41 08 00000001 00 0002 00"));
}

// SBC-3 5.9, 5.11: operation code, flags (FUA 08h), address, [length], group number, [length], control.
TEST(GoldenCdb, Read) {
    EXPECT_EQ(bytes(read(0x12345678, 0xabcd, ForceUnitAccess::no)), hex("28 00 12345678 00 abcd 00"));
    EXPECT_EQ(bytes(read(0x12345678, 0xabcd, ForceUnitAccess::yes)), hex("28 08 12345678 00 abcd 00"));
    EXPECT_EQ(bytes(read(0x123456789abcdef0, 0x01020304, ForceUnitAccess::no)),
              hex("88 00 123456789abcdef0 01020304 00 00"));
    EXPECT_EQ(bytes(read(0x123456789abcdef0, 1, ForceUnitAccess::yes)), hex("88 08 123456789abcdef0 00000001 00 00"));
    EXPECT_EQ(bytes(read(1, 0x10000, ForceUnitAccess::no)), hex("88 00 0000000000000001 00010000 00 00"));
}

// SBC-3 5.32, 5.34.
TEST(GoldenCdb, Write) {
    EXPECT_EQ(bytes(write(0x12345678, 0xabcd, ForceUnitAccess::no)), hex("2a 00 12345678 00 abcd 00"));
    EXPECT_EQ(bytes(write(0x12345678, 0xabcd, ForceUnitAccess::yes)), hex("2a 08 12345678 00 abcd 00"));
    EXPECT_EQ(bytes(write(0x123456789abcdef0, 0x01020304, ForceUnitAccess::yes)),
              hex("8a 08 123456789abcdef0 01020304 00 00"));
}

// SBC-3 5.22, 5.23: operation code, flags (IMMED 02h), address, [length], group number, [length], control.
TEST(GoldenCdb, SynchronizeCache) {
    EXPECT_EQ(bytes(synchronize_cache(0, 0)), hex("35 00 00000000 00 0000 00"));
    EXPECT_EQ(bytes(synchronize_cache(0x12345678, 0xabcd)), hex("35 00 12345678 00 abcd 00"));
    EXPECT_EQ(bytes(synchronize_cache(0x123456789a, 7)), hex("91 00 000000123456789a 00000007 00 00"));
}

// SPC-4 4.5.3: response code 70h, obsolete, key, information (4), additional length 10, command-specific (4), ASC,
// ASCQ, field replaceable unit, key-specific (3).
TEST(GoldenSense, FixedFormat) {
    const auto sense = encode_fixed_sense(SenseKey::illegal_request, 0x21, 0x07);
    const auto expected = hex("70 00 05 00000000 0a 00000000 21 07 00 000000");

    EXPECT_TRUE(std::equal(sense.begin(), sense.end(), expected.begin(), expected.end()));
    EXPECT_EQ(parse_sense(expected),
              (Sense{.valid = true, .key = SenseKey::illegal_request, .asc = 0x21, .ascq = 0x07}));
}

// SPC-4 4.5.2: response code 72h, key, ASC, ASCQ, reserved (3), additional length; then an information descriptor.
TEST(GoldenSense, DescriptorFormat) {
    EXPECT_EQ(parse_sense(hex("72 03 11 00 000000 0c 00 0a 80 00 0000000000001234")),
              (Sense{.valid = true, .key = SenseKey::medium_error, .asc = 0x11}));
}

}  // namespace
}  // namespace srpfs::scsi
