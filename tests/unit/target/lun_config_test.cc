// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/target/lun_config.h>

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace srpfs::target
