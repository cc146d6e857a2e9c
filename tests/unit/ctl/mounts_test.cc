// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/mounts.h>

#include <gtest/gtest.h>

namespace srpfs::ctl {
namespace {

constexpr const char* two_mounts =
    "25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    "40 25 0:50 / /srp rw,nosuid,nodev,relatime shared:20 - fuse.srpfs none rw,user_id=0,group_id=0\n"
    "41 25 0:51 / /mnt/with\\040blank rw,relatime - fuse.srpfs id_ext=1\\134,dest=demo rw\n"
    "42 25 0:52 / /mnt/other rw,relatime - fuse.sshfs host:/ rw\n";

std::vector<std::string> paths_in(std::string_view mountinfo) {
    std::vector<std::string> paths;
    for (const Mount& mount : parse_mountinfo(mountinfo)) paths.push_back(mount.path);
    return paths;
}

std::string reason_of(const Result<Mount>& result) { return result ? "none" : result.error().context; }

TEST(Mounts, OnlyThoseOfSrpfsCountAndTheirEscapesAreUndone) {
    const auto mounts = parse_mountinfo(two_mounts);
    ASSERT_EQ(mounts.size(), 2U);
    EXPECT_EQ(mounts[0], (Mount{"/srp", "none", "0:50"}));
    EXPECT_EQ(mounts[1], (Mount{"/mnt/with blank", "id_ext=1\\,dest=demo", "0:51"}));
}

TEST(Mounts, OneThatAnotherMountHidesDoesNotCount) {
    const std::string hidden = "40 25 0:50 / /srp rw - fuse.srpfs none rw\n";
    EXPECT_EQ(paths_in(hidden + "43 40 0:60 / /srp rw - tmpfs tmpfs rw\n"), std::vector<std::string>{});
    EXPECT_EQ(paths_in(hidden + "43 40 0:61 / /srp rw - fuse.srpfs demo rw\n"), std::vector<std::string>{"/srp"});
    EXPECT_EQ(paths_in("40 25 0:50 / /a/srp rw - fuse.srpfs none rw\n43 25 0:60 / /a rw - tmpfs tmpfs rw\n"),
              std::vector<std::string>{});
    EXPECT_EQ(paths_in(hidden + "43 25 0:60 / /srp2 rw - tmpfs tmpfs rw\n"), std::vector<std::string>{"/srp"});
}

TEST(Mounts, BindMountsOfTheSameDoNotCountTwice) {
    EXPECT_EQ(paths_in("40 25 0:50 / /srp rw - fuse.srpfs none rw\n"
                       "41 25 0:50 / /chroot/srp rw - fuse.srpfs none rw\n"
                       "42 25 0:50 /srp-demo0-1 /port rw - fuse.srpfs none rw\n"),
              std::vector<std::string>{"/srp"});
}

TEST(Mounts, LinesThatAreNotUnderstoodArePassedOver) {
    EXPECT_EQ(paths_in("x\n\n40 25 0:50 / /srp rw fuse.srpfs none rw\n40 25 0:50 / /srp rw - fuse.srpfs\n"),
              std::vector<std::string>{});
}

TEST(Mounts, TheOnlyOneIsMeantWithoutBeingNamed) {
    const auto only = parse_mountinfo("40 25 0:50 / /srp rw - fuse.srpfs none rw\n");
    const auto chosen = choose_mount(only, "", {});
    ASSERT_TRUE(chosen);
    EXPECT_EQ(chosen->path, "/srp");
}

TEST(Mounts, WhenThereAreSeveralAllAreNamed) {
    EXPECT_EQ(reason_of(choose_mount(parse_mountinfo(two_mounts), "", {})),
              "srpfs is mounted on /srp, /mnt/with blank: choose one with --mount");
}

TEST(Mounts, OddNamesAreOneLineInSentences) {
    const auto mounts = parse_mountinfo(
        "40 25 0:50 / /a\\012b rw - fuse.srpfs none rw\n"
        "41 25 0:51 / /c\xff rw - fuse.srpfs none rw\n");
    ASSERT_EQ(mounts.size(), 2U);
    EXPECT_EQ(mounts[0].path, "/a\nb");
    EXPECT_EQ(mounts[0].shown(), "/a?b");
    EXPECT_EQ(reason_of(choose_mount(mounts, "", {})), "srpfs is mounted on /a?b, /c?: choose one with --mount");
}

TEST(Mounts, WhenThereIsNoneItSaysHowToBegin) {
    EXPECT_EQ(reason_of(choose_mount({}, "", {})),
              "nothing is mounted as srpfs; begin with: srpfs none /srp (or srpfs demo /srp, to try it out)");
}

TEST(Mounts, AnythingBelowAMountNamesIt) {
    const auto mounts = parse_mountinfo(two_mounts);
    EXPECT_EQ(choose_mount(mounts, "/srp/srp-demo0-1", {})->path, "/srp");
    EXPECT_EQ(choose_mount(mounts, "", {"lun0", "/mnt/with blank/by-id/x"})->path, "/mnt/with blank");
    EXPECT_EQ(reason_of(choose_mount(mounts, "/srpx", {})),
              "/srpx is not in an srpfs mount; srpfs is mounted on /srp, /mnt/with blank");
}

TEST(Mounts, PathsBecomeAbsoluteWithoutDots) {
    EXPECT_EQ(absolute_path("/srp/./a/../b/"), "/srp/b");
    EXPECT_EQ(absolute_path("/"), "/");
    EXPECT_TRUE(absolute_path("x").starts_with("/"));
}

}  // namespace
}  // namespace srpfs::ctl
