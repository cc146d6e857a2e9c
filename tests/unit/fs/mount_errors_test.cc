// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "mount_errors.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>

namespace srpfs::fs::test {
namespace {

TEST(MountInfo, UnderstandsTheKernelsLine) {
    const auto info = parse_mountinfo_line(
        "87 29 0:62 / /mnt/a\\040b\\134c rw,nosuid,nodev,relatime shared:45 master:1 - fuse.srpfs all rw,user_id=0");
    ASSERT_TRUE(info);
    EXPECT_EQ(info->device_minor, 62u);
    EXPECT_EQ(info->mountpoint, "/mnt/a b\\c");
    EXPECT_EQ(info->type, "fuse.srpfs");
}

TEST(MountInfo, UnderstandsALineWithoutOptionalFields) {
    const auto info = parse_mountinfo_line("87 29 8:1 / / rw - ext4 /dev/sda1 rw");
    ASSERT_TRUE(info);
    EXPECT_EQ(info->mountpoint, "/");
    EXPECT_EQ(info->type, "ext4");
}

TEST(MountInfo, RefusesWhatIsNotALine) {
    for (const char* line : {"", "a", "87 29 0:62 / /mnt rw", "87 29 0:62 / /mnt rw x y z -",
                             "87 29 0-62 / /mnt rw - fuse a rw", "87 29 0:x / /mnt rw - fuse a rw"})
        EXPECT_FALSE(parse_mountinfo_line(line)) << line;
}

TEST(FuseConf, NeedsTheWordOnALineOfItsOwn) {
    EXPECT_TRUE(allows_other_users("# comment\n  user_allow_other  # yes\n"));
    EXPECT_FALSE(allows_other_users("# user_allow_other\n"));
    EXPECT_FALSE(allows_other_users("user_allow_others\nx user_allow_other\nuser_allow_other x\n"));
    EXPECT_FALSE(allows_other_users(""));
}

TEST(EscapeOption, QuotesCommasAndBackslashes) {
    EXPECT_EQ(escape_option("id_ext=1,dest=a\\b"), "id_ext=1\\,dest=a\\\\b");
    EXPECT_EQ(escape_option("plain"), "plain");
}

TEST(MountFailure, NamesTheCause) {
    MountOptions options;
    options.mountpoint = "/mnt";
    const auto explain = [&](int errno_value) {
        return explain_mount_failure(options, std::string("fuse: mount failed: ") + std::strerror(errno_value) + "\n");
    };
    EXPECT_EQ(explain(EPERM).errno_value(), EPERM);
    EXPECT_EQ(explain(EBUSY).errno_value(), EBUSY);
    EXPECT_EQ(explain(EINVAL).errno_value(), EINVAL);
    EXPECT_EQ(explain(ENOMEM).errno_value(), EIO);
    EXPECT_TRUE(explain(EPERM).context.starts_with("/mnt: "));
    EXPECT_EQ(explain(EPERM).context.find('\n'), std::string::npos);
}

TEST(MountObstacle, IsFoundBeforeMounting) {
    MountOptions options;
    options.mountpoint = "/nonexistent-srpfs";
    auto obstacle = find_mount_obstacle(options);
    ASSERT_TRUE(obstacle);
    EXPECT_EQ(obstacle->errno_value(), ENOENT);
    options.mountpoint = "/dev/null";
    obstacle = find_mount_obstacle(options);
    ASSERT_TRUE(obstacle);
    EXPECT_EQ(obstacle->errno_value(), ENOTDIR);
}

}  // namespace
}  // namespace srpfs::fs::test
