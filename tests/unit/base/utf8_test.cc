// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/base/utf8.h>

#include <gtest/gtest.h>

namespace srpfs {
namespace {

using namespace std::string_view_literals;

TEST(Utf8, CharactersHaveTheBytesThatTheirFirstSays) {
    EXPECT_EQ(character_bytes("a"), 1u);
    EXPECT_EQ(character_bytes("\0"sv), 1u);
    EXPECT_EQ(character_bytes("\xc3\xbcn"), 2u);
    EXPECT_EQ(character_bytes("\xe2\x82\xac"), 3u);
    EXPECT_EQ(character_bytes("\xf0\x9f\x92\xbe"), 4u);
    // The ends of each length, and of what is between the surrogates and Unicode's end.
    EXPECT_EQ(character_bytes("\xc2\x80"), 2u);
    EXPECT_EQ(character_bytes("\xdf\xbf"), 2u);
    EXPECT_EQ(character_bytes("\xe0\xa0\x80"), 3u);
    EXPECT_EQ(character_bytes("\xed\x9f\xbf"), 3u);
    EXPECT_EQ(character_bytes("\xee\x80\x80"), 3u);
    EXPECT_EQ(character_bytes("\xf0\x90\x80\x80"), 4u);
    EXPECT_EQ(character_bytes("\xf4\x8f\xbf\xbf"), 4u);
}

TEST(Utf8, WhatIsMalformedIsNoCharacter) {
    for (const auto text :
         {"\x80"sv, "\xc3"sv, "\xc3("sv, "\xc0\xaf"sv, "\xc1\xbf"sv, "\xe0\x9f\xbf"sv, "\xe2\x82"sv, "\xed\xa0\x80"sv,
          "\xed\xbf\xbf"sv, "\xf0\x8f\xbf\xbf"sv, "\xf4\x90\x80\x80"sv, "\xf8\x88\x80\x80\x80"sv, "\xff"sv})
        EXPECT_EQ(character_bytes(text), 0u) << escaped(text);
}

TEST(Utf8, WhatATerminalObeysOrHidesIsACharacterAndNotPrintable) {
    for (const auto text : {"\n"sv, "\x1b"sv, "\x7f"sv, "\0"sv, "\xc2\x80"sv, "\xc2\x9b"sv, "\xe2\x80\x8f"sv,
                            "\xe2\x80\xae"sv, "\xe2\x81\xa6"sv, "\xef\xbb\xbf"sv}) {
        EXPECT_EQ(character_bytes(text), text.size()) << escaped(text);
        EXPECT_EQ(printable_bytes(text), 0u) << escaped(text);
    }
    for (const auto text : {" "sv, "~"sv, "\xc2\xa0"sv, "\xe2\x80\x90"sv, "\xe2\x82\xac"sv})
        EXPECT_EQ(printable_bytes(text), text.size()) << escaped(text);
}

TEST(Utf8, BytesOfNoPrintableCharacterAreEscaped) {
    EXPECT_EQ(escaped("gr\xc3\xbcn \x1b[2J\0\xff\xc3"sv), "gr\xc3\xbcn \\x1b[2J\\x00\\xff\\xc3");
    EXPECT_EQ(escaped("a\xe2\x80\xae"
                      "b"),
              "a\\xe2\\x80\\xae"
              "b");
    EXPECT_EQ(escaped(""), "");
}

TEST(Utf8, WhatIsEscapedEndsWithACharacter) {
    EXPECT_EQ(escaped("gr\xc3\xbcn", 3), "gr");
    EXPECT_EQ(escaped("gr\xc3\xbcn", 4), "gr\xc3\xbc");
    EXPECT_EQ(escaped("\xff\xff\xff", 2), "\\xff\\xff");
    EXPECT_EQ(excerpt("\x1b[2J" + std::string(76, 'a')), "\\x1b[2J" + std::string(76, 'a'));
    EXPECT_EQ(excerpt("\x1b[2J" + std::string(77, 'a')), "\\x1b[2J" + std::string(76, 'a') + "...");
    EXPECT_EQ(escaped("abc", 0), "");
    EXPECT_EQ(escaped("abc", 3), "abc");
}

}  // namespace
}  // namespace srpfs
