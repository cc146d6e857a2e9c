// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/copy.h>

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace srpfs::ctl {
namespace {

constexpr std::uint64_t mib = std::uint64_t{1} << 20;

CopyEnd lun(const char* path, const char* wwid, std::uint64_t bytes) {
    return {path, std::string("lun ") + wwid, bytes, true};
}
CopyEnd file(const char* path, std::uint64_t bytes) { return {path, std::string("file 7 1.5 ") + path, bytes, false}; }

std::string refusal(const CopyEnd& source, const CopyEnd& target) {
    const auto checked = check_copy({source, target, {}, ""});
    return checked ? "" : checked.error().context;
}

TEST(Copy, IsRefusedWhereItCannotBeMeant) {
    EXPECT_EQ(refusal(lun("/s/lun0", "a", 10), file("/f", 0)), "");
    EXPECT_EQ(refusal(file("/f", 10), lun("/s/lun0", "a", 10)), "");
    EXPECT_EQ(refusal(file("/f", 11), lun("/s/lun0", "a", 10)),
              "/f has 11 bytes, 1 more than /s/lun0 has; nothing was written");
    EXPECT_EQ(refusal(lun("/s/lun0", "a", 10), lun("/t/lun3", "a", 10)),
              "/s/lun0 and /t/lun3 are the same LUN by two paths");
    EXPECT_EQ(refusal(file("/f", 1), file("/f", 1)), "neither /f nor /f is a LUN; cp copies files");
}

TEST(CopyJournal, IsReadAsItWasWritten) {
    const CopyJournal journal{"lun naa.6", "", 1000, 500, 77};
    const auto again = CopyJournal::parse(journal.text());
    ASSERT_TRUE(again);
    EXPECT_EQ(again->text(), journal.text());
    EXPECT_EQ(again->done_bytes, 500U);
}

TEST(CopyJournal, IsNothingElse) {
    const std::string good = CopyJournal{"lun naa.6", "", 1000, 500, 77}.text();
    for (const std::string& text :
         {std::string(), std::string("{}"), std::string("[]"), std::string("disk image"),
          good.substr(0, good.size() / 2), std::string(good).replace(good.find(":500"), 4, ":1001"),
          std::string(good).replace(good.find(":500"), 4, ":-500"),
          std::string(good).replace(good.find(":500"), 4, ":\"5\""),
          std::string(good).replace(good.find(":1,"), 3, ":2,")})
        EXPECT_FALSE(CopyJournal::parse(text)) << text;
}

TEST(CopyJournal, FitsOneSourceOfOneSizeAndOneTarget) {
    const CopyEnd source = lun("/s/lun0", "a", 1000), target = lun("/s/lun1", "b", 2000);
    const CopyJournal journal{source.identity, target.identity, 1000, 500, 0};
    EXPECT_FALSE(obstacle_to_resume(journal, source, target));
    EXPECT_FALSE(obstacle_to_resume(journal, lun("/elsewhere/lun9", "a", 1000), target)) << "the path does not matter";
    EXPECT_TRUE(obstacle_to_resume(journal, lun("/s/lun0", "c", 1000), target));
    EXPECT_TRUE(obstacle_to_resume(journal, lun("/s/lun0", "a", 999), target));
    EXPECT_TRUE(obstacle_to_resume(journal, source, lun("/s/lun1", "c", 2000)));
    EXPECT_TRUE(obstacle_to_resume(journal, source, file("/f", 0)));
}

TEST(CopyJournal, LiesBesideTheFileOrInTheStateDirectory) {
    EXPECT_EQ(journal_for(file("/d/f", 0), "/state"), "/d/f.part.journal");
    EXPECT_EQ(journal_for(lun("/s/lun0", "naa.6/../x", 0), "/state"), "/state/copy-onto-lun_naa.6_.._x.journal");
}

TEST(CopyJournal, IsReplacedAsAWhole) {
    char directory[] = "/tmp/srpfs-copy-test-XXXXXX";
    ASSERT_NE(mkdtemp(directory), nullptr);
    const std::string path = std::string(directory) + "/journal";
    const auto content = [&] {
        std::ifstream in(path);
        return std::string(std::istreambuf_iterator<char>(in), {});
    };
    CopyJournal journal{"lun a", "", 1000, 1, 1};
    ASSERT_TRUE(write_journal(path, journal));
    const std::string before = content();
    EXPECT_EQ(before, journal.text());
    // What cannot be written leaves the one before.
    std::filesystem::create_directory(path + ".new");
    journal.done_bytes = 2;
    EXPECT_FALSE(write_journal(path, journal));
    EXPECT_EQ(content(), before);
    std::filesystem::remove_all(directory);
}

TEST(CopyProgress, IsReadAsItWasTold) {
    const CopyProgress progress{CopyProgress::Phase::verifying, 1, 2, 3, 4};
    const auto again = CopyProgress::parse(progress.text());
    ASSERT_TRUE(again);
    EXPECT_EQ(again->text(), progress.text());
    for (const char* text : {"", "x 1 2 3 4", "c 1 2 3", "c 1 2 3 4 5", "c 1 2 3 x", "c 1 2 3 "})
        EXPECT_FALSE(CopyProgress::parse(text)) << text;
}

TEST(CopyProgress, IsALineThatFits) {
    const CopyProgress progress{CopyProgress::Phase::copying, 512 * mib, 1024 * mib, 0, 0};
    EXPECT_EQ(progress_line(progress, 1e8, {80, 1, Charset::ascii, false}),
              "copying  [==========>         ]   50 %  512 MiB of 1 GiB  100.0 MB/s  0:06 left");
    EXPECT_EQ(progress_line(progress, 0, {0, 0, Charset::ascii, false}),
              "copying   50 %  512 MiB of 1 GiB  0.0 MB/s  -:-- left");
    EXPECT_EQ(progress_line(progress, 1e4, {60, 1, Charset::ascii, false}),
              "copying   50 %  512 MiB of 1 GiB  0.0 MB/s  14:54:48 left");
    for (std::size_t width = 1; width < 200; ++width)
        EXPECT_LT(columns_of(progress_line(progress, 1e8, {width, 1, Charset::ascii, false})),
                  std::max<std::size_t>(width, 2));
    EXPECT_EQ(progress_line({CopyProgress::Phase::verifying, 0, 0, 0, 0}, 0, {0, 0, Charset::ascii, false}),
              "verifying  100 %  0 B of 0 B  0.0 MB/s  -:-- left");
}

TEST(CopyRate, FollowsWhatIsCopied) {
    CopyRate rate;
    rate.add(1000, 10);
    EXPECT_EQ(rate.bytes_per_second(), 0) << "what was there before is no speed";
    rate.add(2000, 11);
    EXPECT_EQ(rate.bytes_per_second(), 1000);
    for (int second = 12; second < 60; ++second)
        rate.add(2000 + 5000 * static_cast<std::uint64_t>(second - 11), second);
    EXPECT_NEAR(rate.bytes_per_second(), 5000, 5);
    rate.add(0, 60);
    EXPECT_EQ(rate.bytes_per_second(), 0) << "verification begins";
}

}  // namespace
}  // namespace srpfs::ctl
