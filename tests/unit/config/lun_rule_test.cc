// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/config/lun_rule.h>

#include <gtest/gtest.h>

#include <cerrno>

namespace srpfs::config {
namespace {

LunRule rule(std::string_view text) {
    const auto parsed = parse_lun_rule(text);
    EXPECT_TRUE(parsed) << text << ": " << parsed.error().context;
    return parsed ? *parsed : LunRule{};
}

std::string refusal(std::string_view text) {
    const auto parsed = parse_lun_rule(text);
    EXPECT_FALSE(parsed) << text;
    if (parsed) return {};
    EXPECT_EQ(parsed.error().errno_value(), EINVAL);
    return parsed.error().context;
}

TEST(LunRule, HasAPatternAndWords) {
    EXPECT_EQ(rule("*:ro"), (LunRule{"*", {.read_only = true}}));
    EXPECT_EQ(rule("naa.6001*:rw:uid=7:gid=4294967294:mode=0640:cached:hide"), (LunRule{"naa.6001*",
                                                                                        {.read_only = false,
                                                                                         .uid = 7,
                                                                                         .gid = 4294967294,
                                                                                         .mode = 0640,
                                                                                         .cache = CacheMode::cached,
                                                                                         .hidden = true}}));
    // Of one rule the last word counts.
    EXPECT_EQ(rule("a:ro:rw:cached:direct:hide:show").options,
              (LunOptions{.read_only = false, .cache = CacheMode::direct, .hidden = false}));
    EXPECT_EQ(rule("t10.LIO\\:a\\\\b:ro").pattern, "t10.LIO\\:a\\\\b");
}

TEST(LunRule, ThatIsWrongSaysWhatIs) {
    for (const auto& [text, named] : std::initializer_list<std::pair<std::string, const char*>>{
             {"", "pattern is empty"},
             {":ro", "pattern is empty"},
             {"lun0", "no word"},
             {"lun0\\:ro", "no word"},
             {"lun0\\", "no word"},
             {"lun0:", "'' is none of"},
             {"lun0:r0:ro", "'r0' is none of"},
             {"lun0:ro=1", "'ro=1' is none of"},
             {"lun0:uid", "'uid' is none of"},
             {"lun0:uid=", "uid=: number from 0"},
             {"lun0:uid=-1", "uid=-1"},
             {"lun0:gid=4294967295", "to 4294967294"},
             {"lun0:mode=8", "mode=8: octal number from 0 to 777"},
             {"lun0:mode=1000", "mode=1000"},
             {std::string(256, 'x') + ":ro", "longer than 255"}})
        EXPECT_NE(refusal(text).find(named), std::string::npos) << text << ": " << refusal(text);
    EXPECT_EQ(rule(std::string(255, 'x') + ":ro").pattern.size(), 255U);
}

TEST(LunRule, OfEachThingTheLastRuleThatSaysSomethingCounts) {
    const std::vector<LunRule> rules{rule("*:ro:mode=0444:gid=6"), rule("*/lun1:rw"), rule("wwn-0x6*:gid=7"),
                                     rule("nothing:hide")};
    const std::vector<std::string> first{"naa.6001", "wwn-0x6001", "0001-0001/lun0"}, second{"", "0001-0001/lun1"};
    EXPECT_EQ(options_of(rules, first), (LunOptions{.read_only = true, .gid = 7, .mode = 0444}));
    EXPECT_EQ(options_of(rules, second), (LunOptions{.read_only = false, .gid = 6, .mode = 0444}));
    EXPECT_EQ(options_of({}, first), LunOptions{});
    EXPECT_EQ(options_of(rules, {}), LunOptions{});
}

TEST(LunRule, MatchesAsAShellDoes) {
    const std::vector<std::string> names{"t10.LIO:a [x]"};
    for (const char* pattern : {"t10*", "t10.LIO\\:?[[]x]", "t10.LIO:a*", "*[x-z]\\]"})
        EXPECT_EQ(matches_any(pattern, names), std::string(pattern) != "t10.LIO\\:?[[]x]") << pattern;
    EXPECT_FALSE(matches_any("T10*", names));
    EXPECT_TRUE(options_of(std::vector{rule("t10.LIO\\:a*:ro")}, names).read_only);
}

}  // namespace
}  // namespace srpfs::config
