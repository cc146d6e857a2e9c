// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/text.h>

#include <gtest/gtest.h>

namespace srpfs::ctl {
namespace {

TEST(Text, TimesAreShortForPeople) {
    EXPECT_EQ(human_microseconds(0), "0 us");
    EXPECT_EQ(human_microseconds(999), "999 us");
    EXPECT_EQ(human_microseconds(32768), "32.8 ms");
    EXPECT_EQ(human_microseconds(999949), "999.9 ms");
    EXPECT_EQ(human_microseconds(999950), "1.0 s");
    EXPECT_EQ(human_microseconds(61500000), "61.5 s");
}

TEST(Text, SizesAreRoundedDownToOnePlace) {
    EXPECT_EQ(human_bytes(0), "0 B");
    EXPECT_EQ(human_bytes(1023), "1023 B");
    EXPECT_EQ(human_bytes(1024), "1 KiB");
    EXPECT_EQ(human_bytes(1025), "1.0 KiB");
    EXPECT_EQ(human_bytes(1536), "1.5 KiB");
    EXPECT_EQ(human_bytes((std::uint64_t{2} << 20) - 1), "1.9 MiB");
    EXPECT_EQ(human_bytes(std::uint64_t{64} << 20), "64 MiB");
    EXPECT_EQ(human_bytes(UINT64_MAX), "15.9 EiB");
}

TEST(Text, NothingThatATerminalWouldObeyIsPrintable) {
    EXPECT_EQ(printable("RAM DISK", Charset::ascii), "RAM DISK");
    EXPECT_EQ(printable("a\x1b[31mb\x07\n\t\x7f", Charset::utf8), "a?[31mb????");
    EXPECT_EQ(printable("gr\xc3\xbcn", Charset::utf8), "gr\xc3\xbcn");
    EXPECT_EQ(printable("gr\xc3\xbcn", Charset::ascii), "gr?n");
    EXPECT_EQ(printable("\xc2\x9b"
                        "31m",
                        Charset::utf8),
              "??31m")
        << "C1: an escape sequence in two bytes";
    EXPECT_EQ(printable("\xe2\x80\xae"
                        "abc",
                        Charset::utf8),
              "???abc")
        << "right to left";
}

TEST(Text, MalformedUtf8IsNotPrintable) {
    EXPECT_EQ(printable("\xc0\xaf", Charset::utf8), "??") << "overlong";
    EXPECT_EQ(printable("\xed\xa0\x80", Charset::utf8), "???") << "a surrogate";
    EXPECT_EQ(printable("\xf4\x90\x80\x80", Charset::utf8), "????") << "beyond Unicode";
    EXPECT_EQ(printable("a\xc3", Charset::utf8), "a?") << "cut";
    EXPECT_EQ(printable("\xc3(", Charset::utf8), "?(");
    EXPECT_EQ(printable("\xff", Charset::ascii), "?");
}

TEST(Text, WhatIsShortenedHasTheColumnsItMayHave) {
    EXPECT_EQ(shortened("abcdef", 6, Cut::end, Charset::utf8), "abcdef");
    EXPECT_EQ(shortened("abcdef", 5, Cut::end, Charset::utf8), "abcd…");
    EXPECT_EQ(shortened("abcdef", 5, Cut::middle, Charset::utf8), "ab…ef");
    EXPECT_EQ(shortened("abcdef", 4, Cut::middle, Charset::ascii), "ab~f");
    EXPECT_EQ(shortened("abcdef", 1, Cut::middle, Charset::ascii), "~");
    EXPECT_EQ(shortened("abcdef", 0, Cut::end, Charset::ascii), "");
    EXPECT_EQ(shortened("äöüß", 3, Cut::end, Charset::utf8), "äö…");
    EXPECT_EQ(columns_of(shortened("äöüßabc", 4, Cut::middle, Charset::utf8)), 4U);
}

TEST(Text, EmptyPartsAreParts) {
    EXPECT_TRUE(split("", ',').empty());
    EXPECT_EQ(split("a", ','), (std::vector<std::string_view>{"a"}));
    EXPECT_EQ(split(",a,", ','), (std::vector<std::string_view>{"", "a", ""}));
}

TEST(Text, BlanksAreTrimmedAtBothEnds) {
    EXPECT_EQ(trimmed(" \t a b\r\n"), "a b");
    EXPECT_EQ(trimmed(" \n"), "");
}

}  // namespace
}  // namespace srpfs::ctl
