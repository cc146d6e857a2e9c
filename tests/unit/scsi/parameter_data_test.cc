// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "hex.h"

#include <srpfs/scsi/scsi.h>

#include <gtest/gtest.h>

namespace srpfs::scsi {
namespace {

using namespace test;

std::vector<std::byte> capacity_16(std::string_view last_lba, std::string_view block_bytes,
                                   std::string_view rest = "") {
    auto data = hex(last_lba) + hex(block_bytes) + hex(rest);
    data.resize(32);
    return data;
}

TEST(LbaStatus, JoinsNeighboursAndEndsWhereNothingFollows) {
    const auto two = hex("00 00 00 34 00 00 00 00") + hex("00 00 00 00 00 00 00 08 00 00 00 08 00 00 00 00") +
                     hex("00 00 00 00 00 00 00 10 00 00 00 10 02 00 00 00") +
                     hex("00 00 00 00 00 00 00 20 00 00 00 01 01 00 00 00");
    const auto extents = parse_lba_status(two, 10);
    ASSERT_EQ(extents.size(), 2u);
    EXPECT_EQ(extents[0].lba, 10u);  // the extent begins before
    EXPECT_EQ(extents[0].blocks, 6u);
    EXPECT_TRUE(extents[0].is_mapped);
    EXPECT_EQ(extents[1].lba, 16u);
    EXPECT_EQ(extents[1].blocks, 17u);  // anchored and deallocated
    EXPECT_FALSE(extents[1].is_mapped);

    EXPECT_TRUE(parse_lba_status(two, 7).empty());
    EXPECT_TRUE(parse_lba_status(two, 16).empty());
    EXPECT_TRUE(parse_lba_status(std::span(two).first(7), 8).empty());
    EXPECT_TRUE(parse_lba_status(std::span(two).first(23), 8).empty());
    EXPECT_EQ(parse_lba_status(std::span(two).first(39), 8).size(), 1u);
    auto short_length = two;
    short_length[3] = std::byte{0x14};
    EXPECT_EQ(parse_lba_status(short_length, 8).size(), 1u);
    EXPECT_TRUE(
        parse_lba_status(hex("00 00 00 14 00 00 00 00 ff ff ff ff ff ff ff ff ff ff ff ff 01 00 00 00"), UINT64_MAX)
            .empty());
}

TEST(ReadCapacity16, CountsOneBlockMoreThanTheLastAddress) {
    const auto capacity = parse_read_capacity_16(capacity_16("00 00 00 00 00 01 ff ff", "00 00 02 00"));

    ASSERT_TRUE(capacity);
    EXPECT_EQ(capacity->blocks, 0x20000u);
    EXPECT_EQ(capacity->block_bytes, 512u);
    EXPECT_EQ(capacity->physical_block_bytes, 512u);
    EXPECT_FALSE(capacity->provisioning_enabled);
    EXPECT_FALSE(capacity->reads_zeros_after_unmap);
}

TEST(ReadCapacity16, TellsThePhysicalBlockAndProvisioning) {
    const auto capacity = parse_read_capacity_16(capacity_16("00 00 00 00 00 00 00 00", "00 00 02 00", "00 f3 c0 00"));

    ASSERT_TRUE(capacity);
    EXPECT_EQ(capacity->blocks, 1u);
    EXPECT_EQ(capacity->physical_block_bytes, 4096u);
    EXPECT_TRUE(capacity->provisioning_enabled);
    EXPECT_TRUE(capacity->reads_zeros_after_unmap);
    EXPECT_FALSE(parse_read_capacity_16(capacity_16("00 00 00 00 00 00 00 00", "00 00 02 00", "00 00 80"))
                     ->reads_zeros_after_unmap);
    EXPECT_FALSE(parse_read_capacity_16(capacity_16("00 00 00 00 00 00 00 00", "00 00 02 00", "00 00 40"))
                     ->provisioning_enabled);
}

TEST(ReadCapacity16, HasRoomForTheLargestPhysicalBlock) {
    EXPECT_EQ(
        parse_read_capacity_16(capacity_16("00 00 00 00 00 00 00 00", "00 01 00 00", "00 0f"))->physical_block_bytes,
        0x80000000u);
}

TEST(ReadCapacity16, TakesPowersOfTwoFrom512To65536AsBlockLength) {
    for (const char* good : {"00 00 02 00", "00 00 10 00", "00 01 00 00"})
        EXPECT_TRUE(parse_read_capacity_16(capacity_16("00 00 00 00 00 00 00 00", good))) << good;
    for (const char* bad : {"00 00 00 00", "00 00 01 00", "00 00 01 ff", "00 00 02 01", "00 00 02 08", "00 00 10 01",
                            "00 02 00 00", "80 00 00 00", "ff ff ff ff"})
        EXPECT_FALSE(parse_read_capacity_16(capacity_16("00 00 00 00 00 00 00 00", bad))) << bad;
}

TEST(ReadCapacity16, RefusesMoreBytesThanAFileCanHave) {
    // 2^63 bytes are 2^54 blocks of 512 or 2^47 blocks of 65536.
    EXPECT_TRUE(parse_read_capacity_16(capacity_16("00 3f ff ff ff ff ff fe", "00 00 02 00")));
    EXPECT_FALSE(parse_read_capacity_16(capacity_16("00 3f ff ff ff ff ff ff", "00 00 02 00")));
    EXPECT_FALSE(parse_read_capacity_16(capacity_16("00 40 00 00 00 00 00 00", "00 00 02 00")));
    EXPECT_TRUE(parse_read_capacity_16(capacity_16("00 00 7f ff ff ff ff fe", "00 01 00 00")));
    EXPECT_FALSE(parse_read_capacity_16(capacity_16("00 00 7f ff ff ff ff ff", "00 01 00 00")));
    EXPECT_FALSE(parse_read_capacity_16(capacity_16("ff ff ff ff ff ff ff ff", "00 00 02 00")));
}

TEST(ReadCapacity16, NeedsTwelveBytes) {
    const auto data = capacity_16("00 00 00 00 00 00 00 07", "00 00 02 00", "00 03 80");

    EXPECT_FALSE(parse_read_capacity_16(std::span(data).first(11)));
    ASSERT_TRUE(parse_read_capacity_16(std::span(data).first(12)));
    EXPECT_EQ(parse_read_capacity_16(std::span(data).first(12))->physical_block_bytes, 512u);
    EXPECT_TRUE(parse_read_capacity_16(std::span(data).first(15))->provisioning_enabled);
}

TEST(ReadCapacity10, CountsOneBlockMoreThanTheLastAddress) {
    const auto result = parse_read_capacity_10(hex("00 01 ff ff 00 00 10 00"));

    ASSERT_TRUE(result);
    EXPECT_FALSE(result->needs_16);
    EXPECT_EQ(result->capacity.blocks, 0x20000u);
    EXPECT_EQ(result->capacity.block_bytes, 4096u);
    EXPECT_EQ(result->capacity.physical_block_bytes, 4096u);
}

TEST(ReadCapacity10, AsksForTheLongFormAtTheLargestAddressOnly) {
    EXPECT_FALSE(parse_read_capacity_10(hex("ff ff ff fe 00 00 02 00"))->needs_16);
    EXPECT_TRUE(parse_read_capacity_10(hex("ff ff ff ff 00 00 02 00"))->needs_16);
}

TEST(ReadCapacity10, NeedsEightBytesAndASaneBlockLength) {
    EXPECT_FALSE(parse_read_capacity_10(hex("00 00 00 00 00 00 02")));
    EXPECT_FALSE(parse_read_capacity_10(hex("00 00 00 00 00 00 02 08")));
    EXPECT_FALSE(parse_read_capacity_10({}));
}

const auto caching_page = hex("08 12 04 00 ff ff 00 00 ff ff ff ff 80 14 00 00 00 00 00 00");
const auto recovery_page = hex("01 0a c0 08 00 00 00 00 00 00 00 00");

TEST(ModeSense6, TellsWriteProtectionFuaAndTheWriteCache) {
    const auto mode = parse_mode_sense_6(hex("17 00 90 00") + caching_page);

    ASSERT_TRUE(mode);
    EXPECT_TRUE(mode->write_protected);
    EXPECT_TRUE(mode->fua_supported);
    EXPECT_TRUE(mode->write_cache_enabled);
}

TEST(ModeSense6, TellsEachOfThemApart) {
    auto write_through = caching_page;
    write_through[2] = std::byte{0xfb};  // every bit but WCE

    EXPECT_FALSE(parse_mode_sense_6(hex("17 00 ff 00") + write_through)->write_cache_enabled);
    EXPECT_FALSE(parse_mode_sense_6(hex("17 00 7f 00") + caching_page)->write_protected);
    EXPECT_FALSE(parse_mode_sense_6(hex("17 00 ef 00") + caching_page)->fua_supported);
}

TEST(ModeSense6, NeedsItsHeader) {
    EXPECT_FALSE(parse_mode_sense_6(hex("03 00 80")));
    ASSERT_TRUE(parse_mode_sense_6(hex("03 00 80 00")));
    EXPECT_TRUE(parse_mode_sense_6(hex("03 00 80 00"))->write_protected);
    EXPECT_FALSE(parse_mode_sense_6(hex("03 00 80 00"))->write_cache_enabled);
    EXPECT_FALSE(parse_mode_sense_6(hex("02 00 80 00"))) << "a mode data length that ends inside the header";
}

TEST(ModeSense6, FindsThePageBehindDescriptorsAndOtherPages) {
    EXPECT_TRUE(parse_mode_sense_6(hex("1f 00 00 08") + zeros(8) + caching_page)->write_cache_enabled);
    EXPECT_TRUE(parse_mode_sense_6(hex("23 00 00 00") + recovery_page + caching_page)->write_cache_enabled);
    const auto subpage = hex("48 01 00 04 ff ff ff ff");  // page 08h in subpage format is another page
    EXPECT_FALSE(parse_mode_sense_6(hex("0b 00 00 00") + subpage)->write_cache_enabled);
    EXPECT_TRUE(parse_mode_sense_6(hex("1f 00 00 00") + subpage + caching_page)->write_cache_enabled);
}

TEST(ModeSense6, FindsNoPageBehindLengthsThatLie) {
    EXPECT_FALSE(parse_mode_sense_6(hex("17 00 00 ff") + caching_page)->write_cache_enabled);
    EXPECT_FALSE(parse_mode_sense_6(hex("23 00 00 00") + hex("01 ff") + caching_page)->write_cache_enabled);
    EXPECT_FALSE(parse_mode_sense_6(hex("05 00 00 00") + caching_page)->write_cache_enabled)
        << "the data end before WCE";
    EXPECT_TRUE(parse_mode_sense_6(hex("06 00 00 00") + caching_page)->write_cache_enabled) << "the data end after WCE";
    EXPECT_FALSE(parse_mode_sense_6(hex("17 00 00 00 08 00 04"))->write_cache_enabled) << "an empty page";
}

// Taking a cut page for "no write cache" would drop flushes.
TEST(ModeSense6, StillSeesTheWriteCacheOfAPageCutShort) {
    EXPECT_TRUE(parse_mode_sense_6(hex("17 00 00 00 08 12 04"))->write_cache_enabled);
}

TEST(ModeSense10, TellsTheSameFromItsLongerHeader) {
    const auto mode = parse_mode_sense_10(hex("00 1a 00 90 00 00 00 00") + caching_page);

    ASSERT_TRUE(mode);
    EXPECT_TRUE(mode->write_protected);
    EXPECT_TRUE(mode->fua_supported);
    EXPECT_TRUE(mode->write_cache_enabled);
    EXPECT_TRUE(parse_mode_sense_10(hex("00 2a 00 00 01 00 00 10") + zeros(16) + caching_page)->write_cache_enabled);
}

TEST(ModeSense10, NeedsItsHeader) {
    EXPECT_FALSE(parse_mode_sense_10(hex("00 06 00 80 00 00 00")));
    EXPECT_TRUE(parse_mode_sense_10(hex("00 06 00 80 00 00 00 00")));
    EXPECT_FALSE(parse_mode_sense_10(hex("00 05 00 80 00 00 00 00")));
    EXPECT_FALSE(parse_mode_sense_10(hex("00 1a 00 00 00 00 ff ff") + caching_page)->write_cache_enabled);
}

}  // namespace
}  // namespace srpfs::scsi
