// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/target/lun_config.h>
#include <srpfs/target/target_list.h>

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace srpfs::target {
namespace {

std::vector<LunConfig> parsed(std::string_view text) {
    auto luns = parse_lun_list(text);
    EXPECT_TRUE(luns) << luns.error().context;
    return luns ? *luns : std::vector<LunConfig>{};
}

void expect_error(std::string_view text, std::string_view wanted) {
    SCOPED_TRACE(text);
    const auto luns = parse_lun_list(text);
    ASSERT_FALSE(luns);
    EXPECT_EQ(luns.error().errno_value(), EINVAL);
    EXPECT_NE(luns.error().context.find(wanted), std::string::npos) << luns.error().context;
}

TEST(LunList, DefaultIsTwoRamDisks) {
    const auto luns = parsed(default_lun_list);
    ASSERT_EQ(luns.size(), 2u);
    EXPECT_EQ(luns[0].kind, StoreKind::ram);
    EXPECT_EQ(luns[0].bytes, 64u << 20);
    EXPECT_EQ(luns[1].bytes, 1u << 30);
    EXPECT_EQ(luns[0].block_bytes, 512u);
    EXPECT_FALSE(luns[0].write_cache);
    EXPECT_FALSE(luns[0].read_only);
    EXPECT_TRUE(luns[0].wwid.empty());
}

TEST(LunList, TakesSizesWithSuffixes) {
    EXPECT_EQ(parsed("ram:1024")[0].bytes, 1024u);
    EXPECT_EQ(parsed("ram:3K")[0].bytes, 3072u);
    EXPECT_EQ(parsed("ram:3m")[0].bytes, 3u << 20);
    EXPECT_EQ(parsed("null:2G")[0].bytes, std::uint64_t{2} << 30);
    EXPECT_EQ(parsed("null:5t")[0].bytes, std::uint64_t{5} << 40);
}

TEST(LunList, TakesOptionsInAnyOrder) {
    const auto luns = parsed("ram:64M,bs=4096,wce,ro,wwid=naa.5001122334455667+file:/a,ro,bs=512");
    EXPECT_EQ(luns[0].block_bytes, 4096u);
    EXPECT_TRUE(luns[0].write_cache);
    EXPECT_TRUE(luns[0].read_only);
    EXPECT_EQ(luns[0].wwid, "naa.5001122334455667");
    EXPECT_EQ(luns[1].kind, StoreKind::file);
    EXPECT_EQ(luns[1].path, "/a");
    EXPECT_TRUE(luns[1].read_only);
}

TEST(LunList, BackslashQuotes) {
    const auto luns = parsed(R"(file:/a\+b\,c\\d:e=f,wce+ram:512)");
    ASSERT_EQ(luns.size(), 2u);
    EXPECT_EQ(luns[0].path, R"(/a+b,c\d:e=f)");
    EXPECT_TRUE(luns[0].write_cache);
}

TEST(LunList, WwidsAreBroughtIntoOneForm) {
    EXPECT_EQ(parsed("ram:1M,wwid=6001405AABBCCDDEEFF0011223344556")[0].wwid, "naa.6001405aabbccddeeff0011223344556");
    EXPECT_EQ(parsed("ram:1M,wwid=naa.2001122334455667")[0].wwid, "naa.2001122334455667");
    EXPECT_EQ(parsed("ram:1M,wwid=eui.001122334455667788990011")[0].wwid, "eui.001122334455667788990011");
    EXPECT_EQ(parsed("ram:1M,wwid=t10.ACME  1")[0].wwid, "t10.ACME  1");
}

TEST(LunList, RefusesBadSizes) {
    for (const char* size :
         {"", "M", "x", "12x", "1MM", "-1", "1.5M", " 1M", "1 M", "99999999999999999999", "99999999T"})
        expect_error(std::string("ram:") + size, "is no size");
    expect_error("ram", "is no size");
    expect_error("ram:0", "size 0");
    expect_error("ram:513", "multiple of the block length 512");
    expect_error("ram:512,bs=4096", "multiple of the block length 4096");
    expect_error("null:8388608T", "larger than 8 EiB");
}

TEST(LunList, RefusesUnknownKindsAndOptions) {
    expect_error("", "empty");
    expect_error("ram:1M+", "LUN 1: empty");
    expect_error("+ram:1M", "LUN 0: empty");
    expect_error("disk:1M", "unknown kind \"disk\"");
    expect_error("RAM:1M", "unknown kind");
    expect_error("ram:1M,", "unknown option \"\"");
    expect_error("ram:1M,foo", "unknown option \"foo\"");
    expect_error("ram:1M,wce=1", "\"wce\" takes no value");
    expect_error("ram:1M,thin=1", "\"thin\" takes no value");
    expect_error("ram:1M,ro=", "\"ro\" takes no value");
    expect_error("ram:1M,bs=1024", "neither 512 nor 4096");
    expect_error("ram:1M,bs", "neither 512 nor 4096");
    expect_error("file:", "without a path");
    expect_error("file", "without a path");
    expect_error("file:/a\\", "backslash at the end");
}

TEST(LunList, RefusesBadWwids) {
    for (const char* wwid : {"", "naa.", "123", "naa.6001405", "naa.600140500000000", "zz", "7001122334455667",
                             "eui.00", "t10.", "naa.6001405aabbccddeeff001122334455", "t10.\x01"})
        expect_error(std::string("ram:1M,wwid=") + wwid, "wwid");
    expect_error("ram:1M,wwid=5001122334455667+ram:1M,wwid=naa.5001122334455667", "has the wwid of LUN 0");
}

TEST(LunList, RefusesMoreUnitsThanNumbers) {
    std::string text = "null:512";
    for (int i = 0; i < 255; ++i) text += "+null:512";
    EXPECT_EQ(parsed(text).size(), 256u);
    expect_error(text + "+null:512", "257 LUNs");
}

TEST(LunList, ANumberInFrontStandsForSoMany) {
    const auto luns = parsed("2*ram:1M,wce+null:2M+3*null:1M,bs=4096");
    ASSERT_EQ(luns.size(), 6u);
    EXPECT_EQ(luns[0], luns[1]);
    EXPECT_TRUE(luns[1].write_cache);
    EXPECT_EQ(luns[2].bytes, 2u << 20);
    EXPECT_EQ(luns[5].block_bytes, 4096u);
    EXPECT_EQ(parsed("1*ram:1M").size(), 1u);
    EXPECT_EQ(parsed("256*ram:1M").size(), 256u);
}

TEST(LunList, RefusesNumbersThatFitNoList) {
    expect_error("0*ram:1M", "0 of them");
    expect_error("257*ram:1M", "257 LUNs, at most 256");
    expect_error("200*ram:1M+57*ram:1M", "257 LUNs, at most 256");
    expect_error("99999999999999999999999999*ram:1M", "at most 256");
    expect_error("2*ram:1M,wwid=naa.5001122334455667", "has the wwid of LUN 0");
    expect_error("*ram:1M", "unknown kind");
    expect_error("2*", "empty");
}

TEST(TargetList, TwoPlusSignsBeginAnotherTarget) {
    const auto targets = parse_target_list("ram:1M+null:1M++2*ram:1M++null:3M,wwid=naa.5001122334455667");
    ASSERT_TRUE(targets) << targets.error().context;
    ASSERT_EQ(targets->size(), 3u);
    EXPECT_EQ((*targets)[0], parsed("ram:1M+null:1M"));
    ASSERT_EQ((*targets)[1].size(), 2u);
    ASSERT_EQ((*targets)[2].size(), 1u);
    EXPECT_EQ((*targets)[2][0].wwid, "naa.5001122334455667");
    const auto quoted = parse_target_list(R"(file:/a\+\+b)");
    ASSERT_TRUE(quoted);
    ASSERT_EQ(quoted->size(), 1u);
    EXPECT_EQ((*quoted)[0][0].path, "/a++b");
}

TEST(TargetList, MemoryOfDifferentTargetsHasDifferentIdentities) {
    const auto targets = parse_target_list("2*ram:1M++2*ram:1M++2*ram:1M++file:/same++file:/same");
    ASSERT_TRUE(targets);
    std::set<std::string> seen;
    for (std::size_t target = 1; target < 3; ++target)
        for (const LunConfig& lun : (*targets)[target]) EXPECT_TRUE(seen.insert(lun.wwid).second) << lun.wwid;
    EXPECT_EQ(seen.count(""), 0u);
    EXPECT_EQ((*targets)[3][0].wwid, (*targets)[4][0].wwid);  // one unit through two targets
}

TEST(TargetList, NamesTheTargetThatCannotBe) {
    const auto luns = parse_target_list("ram:1M++ram:0");
    ASSERT_FALSE(luns);
    EXPECT_NE(luns.error().context.find("target 2: demo LUN 0: size 0"), std::string::npos) << luns.error().context;
    EXPECT_EQ(parse_target_list("ram:0").error().context.find("target"), std::string::npos);
    EXPECT_FALSE(parse_target_list("ram:1M+++ram:1M"));
    std::string many = "ram:1M";
    for (int i = 1; i < 64; ++i) many += "++ram:1M";
    EXPECT_TRUE(parse_target_list(many));
    EXPECT_FALSE(parse_target_list(many + "++ram:1M"));
}

}  // namespace
}  // namespace srpfs::target
