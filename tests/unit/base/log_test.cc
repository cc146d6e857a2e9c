// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/base/log.h>

#include <gtest/gtest.h>

#include <cstdlib>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace srpfs::log {
namespace {

TEST(Journal, ALineOfTheProgramHasAPriorityAndNoTarget) {
    EXPECT_EQ(journal_entry(Level::warning, {}, "no room"), "MESSAGE=no room\nPRIORITY=4\nSYSLOG_IDENTIFIER=srpfs\n");
    EXPECT_EQ(journal_entry(Level::info, "fuse", "lun1: is not a unit here"),
              "MESSAGE=fuse: lun1: is not a unit here\nPRIORITY=6\nSYSLOG_IDENTIFIER=srpfs\n");
}

TEST(Journal, ALineAboutAUnitNamesTargetAndUnit) {
    EXPECT_EQ(journal_entry(Level::error, "10.0.0.7:5555", "lun3: a flush has failed"),
              "MESSAGE=10.0.0.7:5555: lun3: a flush has failed\nPRIORITY=3\nSYSLOG_IDENTIFIER=srpfs\n"
              "SRPFS_TARGET=10.0.0.7:5555\nSRPFS_LUN=lun3\n");
    const auto reset = journal_entry(Level::info, "[fe80::1%ib0]:5555/ch1", "SRP reset_device called for lun0x0102");
    EXPECT_NE(reset.find("\nSRPFS_TARGET=[fe80::1%ib0]:5555\n"), std::string::npos) << reset;
    EXPECT_NE(reset.find("\nSRPFS_LUN=lun0x0102\n"), std::string::npos) << reset;
}

TEST(Journal, WordsThatBeginAsAUnitDoAreNone) {
    const auto entry = journal_entry(Level::info, "demo", "lunch and lun and plun1: and lun1.attr");
    EXPECT_NE(entry.find("SRPFS_TARGET=demo\n"), std::string::npos) << entry;
    EXPECT_EQ(entry.find("SRPFS_LUN"), std::string::npos) << entry;
}

TEST(Journal, IsTakenOnlyWhenItIsStandardError) {
    struct stat status {};
    ASSERT_EQ(fstat(STDERR_FILENO, &status), 0);
    unsetenv("JOURNAL_STREAM");
    EXPECT_EQ(standard_error_or_journal(), Destination::standard_error);
    setenv("JOURNAL_STREAM", fmt::format("{}:{}", status.st_dev, status.st_ino + 1).c_str(), 1);
    EXPECT_EQ(standard_error_or_journal(), Destination::standard_error);
    setenv("JOURNAL_STREAM", fmt::format("{}:{}", status.st_dev, status.st_ino).c_str(), 1);
    EXPECT_EQ(standard_error_or_journal(), Destination::journal);
    unsetenv("JOURNAL_STREAM");
}

}  // namespace
}  // namespace srpfs::log
