// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/cli/mount_helper.h>

#include <gtest/gtest.h>

#include <cerrno>

namespace srpfs::cli {
namespace {

using Words = std::vector<std::string>;

MountRequest good(const Words& arguments) {
    auto request = mount_request(arguments);
    EXPECT_TRUE(request) << request.error().context;
    return request ? *request : MountRequest{};
}

TEST(MountHelper, TakesWhatMountGives) {
    const auto request = good({"none", "/srp", "-n", "-v", "-o", "rw,allow_other,uid=3", "-t", "fuse.srpfs"});
    EXPECT_EQ(request.arguments, (Words{"-o", "rw,allow_other,uid=3", "--", "none", "/srp"}));
    EXPECT_TRUE(request.verbose);
    EXPECT_FALSE(request.fake);
    EXPECT_TRUE(good({"none", "/srp", "-sfnv"}).fake);
    EXPECT_EQ(good({"none", "/srp", "-N", "/proc/1/ns/mnt"}).mount_namespace, "/proc/1/ns/mnt");
}

TEST(MountHelper, DropsWhatIsMountsOwn) {
    const auto request = good({"none", "/srp", "-o",
                               "defaults,noauto,x-systemd.automount,x-a=b,X-mount.mkdir,_netdev,nofail,user=joe,users,"
                               "comment=a b,relatime"});
    EXPECT_EQ(request.arguments, (Words{"--", "none", "/srp"}));
}

TEST(MountHelper, KeepsQuotedCommasInTheirOption) {
    EXPECT_EQ(good({"none", "/srp", "-o", R"(nofail,fsname=a\,noauto\\,ro,noauto)"}).arguments,
              (Words{"-o", R"(fsname=a\,noauto\\,ro)", "--", "none", "/srp"}));
}

TEST(MountHelper, LeavesUnknownOptionsToSrpfsUnlessToldToBeSloppy) {
    EXPECT_EQ(good({"none", "/srp", "-o", "sizelimit=3,ro"}).arguments,
              (Words{"-o", "sizelimit=3,ro", "--", "none", "/srp"}));
    EXPECT_EQ(good({"none", "/srp", "-s", "-o", "sizelimit=3,ro"}).arguments,
              (Words{"-o", "ro", "--", "none", "/srp"}));
}

TEST(MountHelper, PathsWithSpacesAndDashesStayWhatTheyAre) {
    EXPECT_EQ(good({"none", "/a b", "-o", "ro"}).arguments, (Words{"-o", "ro", "--", "none", "/a b"}));
    EXPECT_EQ(good({"none", "--", "-f"}).arguments, (Words{"--", "none", "-f"}));
}

TEST(MountHelper, SaysWhatIsWrong) {
    for (const auto& [arguments, part] :
         std::vector<std::pair<Words, std::string>>{{{}, "0 operands"},
                                                    {{"none"}, "1 operands"},
                                                    {{"a", "b", "c"}, "3 operands"},
                                                    {{"a", "b", "-x"}, "-x"},
                                                    {{"a", "b", "-o"}, "-o needs a value"}}) {
        const auto request = mount_request(arguments);
        ASSERT_FALSE(request) << part;
        EXPECT_EQ(request.error().errno_value(), EINVAL);
        EXPECT_NE(request.error().context.find(part), std::string::npos) << request.error().context;
    }
    const auto remount = mount_request({"none", "/srp", "-o", "remount,ro"});
    ASSERT_FALSE(remount);
    EXPECT_EQ(remount.error().errno_value(), EOPNOTSUPP);
}

}  // namespace
}  // namespace srpfs::cli
