// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Which form of a command is chosen; the bytes of each are compared in tests/wire.
#include <srpfs/scsi/scsi.h>

#include <gtest/gtest.h>

namespace srpfs::scsi {
namespace {

TEST(Cdb, OfAReadHasTenBytesUntilLbaOrCountGrowsTooBig) {
    EXPECT_EQ(read(0xfffffffe, 1, ForceUnitAccess::no).opcode(), opcode::read_10);
    EXPECT_EQ(read(0xffffffff, 1, ForceUnitAccess::no).opcode(), opcode::read_10);
    EXPECT_EQ(read(0x100000000, 1, ForceUnitAccess::no).opcode(), opcode::read_16);
    EXPECT_EQ(read(0, 0xfffe, ForceUnitAccess::no).opcode(), opcode::read_10);
    EXPECT_EQ(read(0, 0xffff, ForceUnitAccess::no).opcode(), opcode::read_10);
    EXPECT_EQ(read(0, 0x10000, ForceUnitAccess::no).opcode(), opcode::read_16);
}

TEST(Cdb, OfAWriteHasTenBytesUntilLbaOrCountGrowsTooBig) {
    EXPECT_EQ(write(0xffffffff, 0xffff, ForceUnitAccess::no).opcode(), opcode::write_10);
    EXPECT_EQ(write(0x100000000, 0xffff, ForceUnitAccess::no).opcode(), opcode::write_16);
    EXPECT_EQ(write(0xffffffff, 0x10000, ForceUnitAccess::no).opcode(), opcode::write_16);
}

TEST(Cdb, OfAFlushHasTenBytesWhenItsAddressFits) {
    EXPECT_EQ(synchronize_cache(0, 0).opcode(), opcode::synchronize_cache_10);
    EXPECT_EQ(synchronize_cache(0xffffffff, 0).opcode(), opcode::synchronize_cache_10);
    EXPECT_EQ(synchronize_cache(0x100000000, 0).opcode(), opcode::synchronize_cache_16);
    EXPECT_EQ(synchronize_cache(0, 0x10000).opcode(), opcode::synchronize_cache_16);
}

// SAM-5 5.2.2: the group code in the three high bits of the operation code tells the length.
TEST(Cdb, HasTheLengthItsOperationCodeAnnounces) {
    const Cdb all[] = {test_unit_ready(),
                       inquiry(36),
                       inquiry_vpd(0x83, 255),
                       report_luns(16),
                       read_capacity_10(),
                       read_capacity_16(32),
                       mode_sense_6(8, 255),
                       mode_sense_10(8, 255),
                       request_sense(18),
                       read(0, 1, ForceUnitAccess::no),
                       read(1ull << 40, 1, ForceUnitAccess::no),
                       write(0, 1, ForceUnitAccess::yes),
                       write(1ull << 40, 1, ForceUnitAccess::yes),
                       write_same(0, 1, false),
                       write_same_10(0, 1, false),
                       synchronize_cache(0, 0),
                       synchronize_cache(1ull << 40, 0)};
    for (const Cdb& cdb : all) {
        const unsigned length_of_group[] = {6, 10, 10, 0, 16, 12, 0, 0};
        EXPECT_EQ(cdb.length, length_of_group[cdb.opcode() >> 5]) << unsigned{cdb.opcode()};
        EXPECT_EQ(cdb.span().size(), cdb.length);
    }
}

TEST(Cdb, KeepsThePageCodeOfModeSenseApartFromPageControl) {
    EXPECT_EQ(mode_sense_6(0xff, 4).bytes[2], std::byte{0x3f});
    EXPECT_EQ(mode_sense_10(0xff, 4).bytes[2], std::byte{0x3f});
}

}  // namespace
}  // namespace srpfs::scsi
