// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/config/config_file.h>

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace srpfs::config {
namespace {

std::string content(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<LoginRule> rules_of(const std::string& text) {
    std::vector<std::string> errors;
    const auto all = resolve(parse_file("converted", text, errors));
    EXPECT_EQ(errors, std::vector<std::string>{}) << text;
    return all.login_rules;
}

// SRPFS_RENEW=1 in the environment writes what is expected anew.
TEST(Convert, GivesWhatIsExpectedOfRealFiles) {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(SRPFS_SAMPLES)) {
        if (entry.path().extension() != ".conf") continue;
        ++count;
        const auto converted = convert_srp_daemon(entry.path().filename(), content(entry.path()));
        ASSERT_TRUE(converted) << converted.error().context;
        const auto expected = std::filesystem::path(entry.path()).replace_extension(".expected");
        if (std::getenv("SRPFS_RENEW")) std::ofstream(expected, std::ios::binary) << *converted;
        EXPECT_EQ(*converted, content(expected)) << entry.path();
        // The file that is installed has its rules switched off.
        EXPECT_EQ(rules_of(*converted).empty(), entry.path().stem() == "rdma_core_installed") << entry.path();
    }
    EXPECT_EQ(count, 5U);
}

TEST(Convert, KeepsWhatTheExampleOfSrpDaemonSays) {
    const auto rules =
        rules_of(*convert_srp_daemon("x", content(std::filesystem::path(SRPFS_SAMPLES) / "rdma_core_manual.conf")));
    ASSERT_EQ(rules.size(), 4U);
    const auto decide = [&](const std::string& login) { return rule_for(rules, *srp::parse_login_string(login)); };
    const std::string rest = ",pkey=ffff,service_id=1,dgid=fe800000000000000002c90200402bd";
    EXPECT_EQ(decide("id_ext=1,ioc_guid=00a0b80200402bd7" + rest + "5"), &rules[0]);
    EXPECT_EQ(decide("id_ext=1,ioc_guid=00a0b80200402bd7" + rest + "6"), &rules[1]);
    EXPECT_EQ(decide("id_ext=200500A0B81146A1,ioc_guid=00a0b80200402bef" + rest + "6"), &rules[2]);
    EXPECT_EQ(decide("id_ext=1,ioc_guid=00a0b80200402bef" + rest + "6"), &rules[3]);
    EXPECT_EQ(rules[2].options, "max_cmd_per_lun=31");
}

TEST(Convert, KeepsWhatTheRulesDecide) {
    const auto rules =
        rules_of(*convert_srp_daemon("x", content(std::filesystem::path(SRPFS_SAMPLES) / "partitions.conf")));
    ASSERT_EQ(rules.size(), 4U);
    const auto decide = [&](const std::string& login) { return rule_for(rules, *srp::parse_login_string(login)); };
    const std::string ib = ",dgid=fe800000000000000002c90300a1b2c3,service_id=2c90300a1b2c2,pkey=";
    EXPECT_EQ(decide("id_ext=1,ioc_guid=1" + ib + "7fff"), &rules[0]);
    EXPECT_EQ(decide("id_ext=200100e08b4a11bc,ioc_guid=66a013800016c" + ib + "ffff"), &rules[1]);
    EXPECT_EQ(decide("id_ext=1,ioc_guid=1" + ib + "ffff"), &rules[2]);
    EXPECT_EQ(decide("id_ext=1,ioc_guid=1,dest=1.2.3.4:5"), &rules[3]);
    EXPECT_EQ(rules[1].options, "max_sect=512,tl_retry_count=3");
    EXPECT_EQ(rule_for({}, *srp::parse_login_string("id_ext=1,ioc_guid=1,dest=1.2.3.4:5")), nullptr);
}

TEST(Convert, SaysWhatSrpDaemonWouldRefuse) {
    const auto text = *convert_srp_daemon("x", "a ioc_guid=1" + std::string(260, ' ') + "\nd");
    EXPECT_NE(text.find("it has 255 characters or more.\nallow = ioc_guid=1\n"), std::string::npos) << text;
    EXPECT_NE(text.find("it does not end in a newline.\n# Everything that no rule before this one allows:\ndeny =\n"),
              std::string::npos)
        << text;
    EXPECT_TRUE(rules_of(*convert_srp_daemon("x", "")).empty());
    EXPECT_TRUE(rules_of(*convert_srp_daemon("x\ny", "# \x1b[m \xff\r\n")).empty());
}

TEST(Convert, KeepsCommentsInAnyLanguage) {
    const auto text = *convert_srp_daemon("x", "# f\xc3\xbcr \xe6\x97\xa5 \xff\n");
    EXPECT_NE(text.find("# f\xc3\xbcr \xe6\x97\xa5 \\xff\n"), std::string::npos) << text;
}

TEST(Convert, NamesEveryLineThatIsWrong) {
    const auto refused = convert_srp_daemon("x", "allow ioc_guid=1\na frob=1\na pkey=12345\nd queue_size=4\na\nb\n");
    ASSERT_FALSE(refused);
    const std::string& text = refused.error().context;
    for (const char* part : {"x:1: a line begins with", "\nx:2: 'frob=1' is no condition",
                             "\nx:3: pkey=12345: ", "\nx:4: queue_size: what is denied", "\nx:6: a line begins with"})
        EXPECT_NE(text.find(part), std::string::npos) << text;
    EXPECT_EQ(text.find("x:5"), std::string::npos) << text;
}

}  // namespace
}  // namespace srpfs::config
