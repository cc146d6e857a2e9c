// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/base/bytes.h>

#include <gtest/gtest.h>

#include <vector>

namespace srpfs {
namespace {

std::vector<std::byte> counting(std::size_t count) {
    std::vector<std::byte> bytes;
    for (std::size_t i = 0; i < count; ++i) bytes.push_back(static_cast<std::byte>(i + 1));
    return bytes;
}

TEST(ByteReader, ReadsBigEndianFieldsInOrder) {
    const auto bytes = counting(18);
    ByteReader in(bytes);

    EXPECT_EQ(in.u8(), 0x01);
    EXPECT_EQ(in.u16(), 0x0203);
    EXPECT_EQ(in.u24(), 0x040506u);
    EXPECT_EQ(in.u32(), 0x0708090au);
    EXPECT_EQ(in.u64(), 0x0b0c0d0e0f101112u);
    EXPECT_EQ(in.left(), 0u);
    EXPECT_FALSE(in.overran());
}

TEST(ByteReader, ReadsNegativeNumbers) {
    const std::byte bytes[] = {std::byte{0xff}, std::byte{0xff}, std::byte{0xff}, std::byte{0xfe}};

    EXPECT_EQ(ByteReader(bytes).i32(), -2);
}

TEST(ByteReader, OverrunsByOneByteButNotAtTheExactEnd) {
    for (const std::size_t size : {3u, 4u, 5u}) {
        const auto bytes = counting(size);
        ByteReader in(bytes);

        const std::uint32_t value = in.u32();

        EXPECT_EQ(in.overran(), size < 4) << size;
        EXPECT_EQ(value, size < 4 ? 0u : 0x01020304u) << size;
    }
}

TEST(ByteReader, GivesZerosAfterAnOverrunEvenWhereBytesWouldFit) {
    const auto bytes = counting(3);
    ByteReader in(bytes);

    EXPECT_EQ(in.u32(), 0u);
    EXPECT_EQ(in.u8(), 0u);
    EXPECT_TRUE(in.overran());
}

TEST(ByteReader, TakesNothingWhenMoreIsWantedThanLeft) {
    const auto bytes = counting(4);
    ByteReader exact(bytes), one_more(bytes), absurd(bytes);

    EXPECT_EQ(exact.take(4).size(), 4u);
    EXPECT_FALSE(exact.overran());
    EXPECT_TRUE(one_more.take(5).empty());
    EXPECT_TRUE(one_more.overran());
    EXPECT_TRUE(absurd.take(SIZE_MAX).empty());
    EXPECT_TRUE(absurd.overran());
}

TEST(ByteReader, SeeksToTheEndButNotBeyond) {
    const auto bytes = counting(4);
    ByteReader at_end(bytes), beyond(bytes);

    at_end.seek(4);
    beyond.seek(5);

    EXPECT_FALSE(at_end.overran());
    EXPECT_EQ(at_end.left(), 0u);
    EXPECT_TRUE(beyond.overran());
    EXPECT_EQ(beyond.left(), 0u);
}

TEST(ByteReader, CopiesAnArrayOrLeavesItZero) {
    const auto bytes = counting(4);

    EXPECT_EQ(ByteReader(bytes).array<4>()[3], std::byte{4});
    EXPECT_EQ(ByteReader(bytes).array<5>()[0], std::byte{0});
}

TEST(ByteReader, OfNothingOverrunsOnlyWhenRead) {
    ByteReader in({});

    EXPECT_FALSE(in.overran());
    in.skip(0);
    EXPECT_FALSE(in.overran());
    in.skip(1);
    EXPECT_TRUE(in.overran());
}

TEST(ByteWriter, WritesWhatTheReaderReads) {
    std::array<std::byte, 22> buffer{};
    const auto tail = counting(2);
    ByteWriter out(buffer);

    out.u8(1).u16(0x0203).u24(0x040506).u32(0x0708090a).u64(0x0b0c0d0e0f101112).bytes(tail).zeros(2);

    EXPECT_FALSE(out.overran());
    EXPECT_EQ(out.position(), 22u);
    const auto expected = counting(18);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), buffer.begin()));
    EXPECT_EQ(buffer[18], std::byte{1});
    EXPECT_EQ(buffer[20], std::byte{0});
}

TEST(ByteWriter, WritesNothingOfAFieldThatDoesNotFit) {
    std::array<std::byte, 4> buffer{};
    ByteWriter out(std::span<std::byte>(buffer).first(3));

    out.u32(0xffffffff);

    EXPECT_TRUE(out.overran());
    EXPECT_EQ(out.position(), 0u);
    EXPECT_EQ(buffer, (std::array<std::byte, 4>{}));
}

TEST(ByteWriter, RefusesOneByteAndOneZeroTooMany) {
    std::array<std::byte, 2> buffer{};
    ByteWriter bytes(buffer), zeros(buffer), exact(buffer);

    bytes.bytes(counting(3));
    zeros.zeros(3);
    exact.bytes(counting(2)).zeros(0).bytes({});

    EXPECT_TRUE(bytes.overran());
    EXPECT_TRUE(zeros.overran());
    EXPECT_FALSE(exact.overran());
    EXPECT_EQ(exact.written().size(), 2u);
}

}  // namespace
}  // namespace srpfs
