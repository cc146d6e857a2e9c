// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/copy.h>

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

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
    EXPECT_EQ(again->range(), (CopyRange{0, 0, 1000}));
    const CopyJournal part{"lun naa.6", "", 1000, 50, 77, CopyRange{900, 7, 100}};
    ASSERT_TRUE(CopyJournal::parse(part.text()));
    EXPECT_EQ(CopyJournal::parse(part.text())->range(), (CopyRange{900, 7, 100}));
    for (const CopyRange& range : {CopyRange{901, 0, 100}, CopyRange{1001, 0, 0}, CopyRange{900, 0, 49}})
        EXPECT_FALSE(CopyJournal::parse(CopyJournal{"lun naa.6", "", 1000, 50, 77, range}.text()));
}

TEST(CopyJournal, FitsOneRange) {
    CopyJob job{lun("/s/lun0", "a", 1000), lun("/s/lun1", "b", 2000), {}, ""};
    job.options.source_offset = 100;
    job.options.length = 200;
    job.options.target_offset = 5;
    CopyJournal journal{job.source.identity, job.target.identity, 1000, 50, 0, CopyRange{100, 5, 200}};
    EXPECT_FALSE(obstacle_to_resume(journal, job));
    EXPECT_EQ(resume_offset(job, journal), 50U);
    job.options.length = 201;
    EXPECT_EQ(obstacle_to_resume(journal, job),
              "the copy was begun with --offset 100 --length 200 --seek 5, and this one has --offset 100 --length 201 "
              "--seek 5");
    EXPECT_EQ(resume_offset(job, journal), 0U);
}

TEST(Copy, APartHasToBeThereAndToFit) {
    CopyJob job{lun("/s/lun0", "a", 1000), lun("/s/lun1", "b", 500), {}, ""};
    const auto refused = [&](std::uint64_t offset, std::optional<std::uint64_t> length, std::uint64_t seek) {
        job.options.source_offset = offset;
        job.options.length = length;
        job.options.target_offset = seek;
        const auto checked = check_copy(job);
        return checked ? "" : checked.error().context;
    };
    EXPECT_EQ(refused(500, {}, 0), "");
    EXPECT_EQ(refused(0, 500, 0), "");
    EXPECT_EQ(refused(999, 1, 499), "");
    EXPECT_EQ(refused(499, {}, 0),
              "501 bytes are to be copied to byte 0 of /s/lun1, which has 500; nothing was written");
    EXPECT_EQ(refused(0, 1, INT64_MAX),
              "1 bytes are to be copied to byte 9223372036854775807 of /s/lun1, which has 500; nothing was written");
    EXPECT_EQ(refused(1001, {}, 0), "/s/lun0 has 1000 bytes, and --offset 1001 is behind them; nothing was written");
    EXPECT_EQ(refused(999, INT64_MAX, 0),
              "/s/lun0 has 1 bytes from byte 999 on, and --length 9223372036854775807 is more; nothing was written");
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
    EXPECT_FALSE(obstacle_to_resume(journal, CopyJob{source, target, {}, ""}));
    EXPECT_FALSE(obstacle_to_resume(journal, CopyJob{lun("/elsewhere/lun9", "a", 1000), target, {}, ""}))
        << "the path does not matter";
    EXPECT_TRUE(obstacle_to_resume(journal, CopyJob{lun("/s/lun0", "c", 1000), target, {}, ""}));
    EXPECT_TRUE(obstacle_to_resume(journal, CopyJob{lun("/s/lun0", "a", 999), target, {}, ""}));
    EXPECT_TRUE(obstacle_to_resume(journal, CopyJob{source, lun("/s/lun1", "c", 2000), {}, ""}));
    EXPECT_TRUE(obstacle_to_resume(journal, CopyJob{source, file("/f", 0), {}, ""}));
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

// Files in the place of LUNs.
class CopyOfFiles : public ::testing::Test {
protected:
    void SetUp() override {
        char name[] = "/tmp/srpfs-copy-test-XXXXXX";
        ASSERT_NE(mkdtemp(name), nullptr);
        directory = name;
    }
    void TearDown() override { std::filesystem::remove_all(directory); }
    void write(const std::string& name, const std::string& content) {
        std::ofstream(directory + "/" + name, std::ios::binary) << content;
    }
    std::string content(const std::string& name) {
        std::ifstream in(directory + "/" + name, std::ios::binary);
        return {std::istreambuf_iterator<char>(in), {}};
    }
    CopyEnd disk(const std::string& name, const std::string& wwid, const std::string& bytes) {
        const std::string path = directory + "/" + name;
        write(name, bytes);
        std::filesystem::create_directories(path + ".attr");
        write(name + ".attr/wwid", wwid + "\n");
        return lun(path.c_str(), wwid.empty() ? path.c_str() : wwid.c_str(), bytes.size());
    }
    CopyEnd image(const std::string& name) { return file((directory + "/" + name).c_str(), 0); }
    CopyJob job(const CopyEnd& source, const CopyEnd& target) {
        CopyOptions options;
        options.block_bytes = copy_block_min;
        return {source, target, options, target.is_lun ? directory + "/journal" : journal_for(target, directory)};
    }
    // "" when it has got through.
    std::string refusal(const CopyJob& job) {
        told.clear();
        const std::atomic<int> stop = 0;
        const auto done = run_apart(
            std::chrono::milliseconds(0),
            [&](Outlet& outlet) { return run_copy(job, stop, std::chrono::milliseconds(60000), outlet); },
            [&](std::string_view text) {
                told = text;
                return true;
            });
        return done ? "" : done.error().context.empty() ? "?" : done.error().context;
    }
    std::uint64_t bytes_before() { return CopyProgress::parse(told).value_or(CopyProgress{}).bytes_before; }
    // As a copy leaves it that has ended in the middle.
    void leave_half(const CopyJob& job, std::uint64_t done) {
        ASSERT_TRUE(write_journal(job.journal, {job.source.identity, job.target.identity, job.source.bytes, done, 0}));
    }
    std::string directory, told;
};

std::string bytes_of(char first, std::size_t count) {
    std::string text(count, first);
    for (std::size_t i = 0; i < count; ++i) text[i] = static_cast<char>(first + static_cast<char>(i % 97) + 1);
    return text;
}
bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

TEST_F(CopyOfFiles, HasItsJournalBesideWhatIsCopied) {
    const std::string data = bytes_of('a', 65536), old = bytes_of('b', 65536);
    const CopyEnd source = disk("source", "a", data), target = disk("target", "b", old);
    write("image", old);
    std::filesystem::create_symlink("source", directory + "/link");
    std::filesystem::create_hard_link(directory + "/image", directory + "/other-name");
    for (const auto& [to, journal] :
         std::initializer_list<std::pair<CopyEnd, std::string>>{{image("new"), "/new"},
                                                                {image("new"), "/new.part"},
                                                                {image("new"), "/x/../new"},
                                                                {image("new"), "/source"},
                                                                {image("new"), "/link"},
                                                                {image("image"), "/other-name"},
                                                                {image("journal.new"), "/journal"},
                                                                {target, "/target"}}) {
        CopyJob wanted = job(source, to);
        wanted.journal = directory + journal;
        for (wanted.options.begins_anew = false;; wanted.options.begins_anew = true) {
            EXPECT_TRUE(has(refusal(wanted), "nothing was written")) << journal;
            if (wanted.options.begins_anew) break;
        }
        EXPECT_FALSE(std::filesystem::exists(directory + "/new")) << journal;
        EXPECT_FALSE(std::filesystem::exists(directory + "/new.part")) << journal;
    }
    EXPECT_TRUE(content("source") == data && content("target") == old && content("image") == old);
}

TEST_F(CopyOfFiles, OntoALunGoesOnOnlyWhereNobodyHasWritten) {
    const std::string data = bytes_of('a', 65536), old = bytes_of('b', 65536);
    const CopyEnd source = disk("source", "a", data);
    CopyEnd target = disk("target", "b", data.substr(0, 40960) + old.substr(40960));
    const CopyJob wanted = job(source, target);
    leave_half(wanted, 40960);
    EXPECT_EQ(refusal(wanted), "");
    EXPECT_EQ(bytes_before(), 40960U);
    EXPECT_TRUE(content("target") == data);
    EXPECT_FALSE(std::filesystem::exists(wanted.journal));

    disk("target", "b", old);
    leave_half(wanted, 40960);
    EXPECT_TRUE(has(refusal(wanted), "--no-resume begins anew"));
    EXPECT_TRUE(content("target") == old) << "nothing was written";
    CopyJob anew = wanted;
    anew.options.begins_anew = true;
    EXPECT_EQ(refusal(anew), "");
    EXPECT_TRUE(content("target") == data);
}

TEST_F(CopyOfFiles, OntoALunThatWasFinishedBeginsAnew) {
    const std::string data = bytes_of('a', 65536);
    const CopyJob wanted = job(disk("source", "a", data), disk("target", "b", bytes_of('b', 65536)));
    leave_half(wanted, 65536);
    EXPECT_EQ(refusal(wanted), "");
    EXPECT_EQ(bytes_before(), 0U);
    EXPECT_TRUE(content("target") == data);
    // Whatever it was a copy of.
    ASSERT_TRUE(write_journal(wanted.journal, {"lun c", "lun b", 10, 10, 0}));
    EXPECT_EQ(refusal(wanted), "");
    EXPECT_FALSE(std::filesystem::exists(wanted.journal));
}

TEST_F(CopyOfFiles, OntoALunWithoutAnIdentityBeginsAnew) {
    const std::string data = bytes_of('a', 65536);
    const CopyJob wanted =
        job(disk("source", "a", data), disk("target", "", data.substr(0, 40960) + bytes_of('b', 24576)));
    leave_half(wanted, 40960);
    EXPECT_EQ(refusal(wanted), "");
    EXPECT_EQ(bytes_before(), 0U);
    EXPECT_TRUE(content("target") == data);
}

TEST_F(CopyOfFiles, OfALunThatHasBecomeAnotherIsRefused) {
    const std::string data = bytes_of('a', 65536), old = bytes_of('b', 65536);
    const CopyEnd source = disk("source", "a", data), target = disk("target", "b", old);
    write("target.attr/wwid", "c\n");
    EXPECT_TRUE(has(refusal(job(source, target)), "has just become another LUN: lun c instead of lun b"));
    write("target.attr/wwid", "b\n");
    write("source.attr/wwid", "\n");
    EXPECT_TRUE(has(refusal(job(source, target)), "has just become another LUN"));
    EXPECT_TRUE(content("target") == old);
}

TEST_F(CopyOfFiles, OntoAFileOfOthersIsRefused) {
    const std::string data = bytes_of('a', 65536), theirs = bytes_of('b', 65536);
    const CopyJob wanted = job(disk("source", "a", data), image("out"));
    const auto leave = [&](const std::string& name) {
        struct stat now {};
        ASSERT_EQ(::stat((directory + "/out.part").c_str(), &now), 0) << name;
        ASSERT_TRUE(write_journal(wanted.journal, {wanted.source.identity, "", 65536, 4096, now.st_ino}));
    };
    write("theirs", theirs);
    std::filesystem::create_hard_link(directory + "/theirs", directory + "/out.part");
    leave("a hard link");
    EXPECT_TRUE(has(refusal(wanted), "has other names"));
    CopyJob anew = wanted;
    anew.options.begins_anew = true;
    EXPECT_EQ(refusal(anew), "");
    EXPECT_TRUE(content("out") == data);
    EXPECT_TRUE(content("theirs") == theirs) << "what has another name as well";

    std::filesystem::create_symlink("theirs", directory + "/out.part");
    EXPECT_NE(refusal(wanted), "");
    EXPECT_NE(refusal(anew), "");
    std::filesystem::remove(directory + "/out.part");
    std::filesystem::create_symlink("theirs", wanted.journal);
    EXPECT_TRUE(has(refusal(wanted), "is a symbolic link"));
    EXPECT_FALSE(std::filesystem::exists(directory + "/out.part")) << "what it had made itself";
    EXPECT_TRUE(content("theirs") == theirs);
    std::filesystem::remove(wanted.journal);
    if (::geteuid() != 0) return;
    write("out.part", data);
    leave("another user");
    ASSERT_EQ(::chown((directory + "/out.part").c_str(), 1, 1), 0);
    EXPECT_TRUE(has(refusal(wanted), "out.part belongs to another user"));
    ASSERT_EQ(::chown((directory + "/out.part").c_str(), 0, 0), 0);
    ASSERT_EQ(::chown(wanted.journal.c_str(), 1, 1), 0);
    EXPECT_TRUE(has(refusal(wanted), "journal belongs to another user"));
}

TEST_F(CopyOfFiles, OntoWhatAnotherCopyWritesIsRefused) {
    const std::string data = bytes_of('a', 65536);
    const CopyJob wanted = job(disk("source", "a", data), image("out"));
    CopyJob anew = wanted;
    anew.options.begins_anew = true;
    write("out.part", "begun");
    // The other one is only about to write its journal: that is not looked at without the lock.
    const int other = ::open((directory + "/out.part").c_str(), O_RDWR | O_CLOEXEC);
    ASSERT_EQ(::flock(other, LOCK_EX), 0);
    EXPECT_TRUE(has(refusal(wanted), "another copy is being written there"));
    EXPECT_TRUE(has(refusal(anew), "another copy is being written there"));
    EXPECT_EQ(content("out.part"), "begun");
    ::close(other);
    EXPECT_TRUE(has(refusal(wanted), "no journal"));
    EXPECT_EQ(refusal(anew), "");
    EXPECT_TRUE(content("out") == data);
    // An empty one is what a copy leaves that was killed before it had a journal.
    write("out.part", "");
    EXPECT_EQ(refusal(wanted), "");
}

TEST(CopyJournal, ThatCannotBeRemovedIsToldOf) {
    char directory[] = "/tmp/srpfs-copy-test-XXXXXX";
    ASSERT_NE(mkdtemp(directory), nullptr);
    EXPECT_TRUE(remove_journal(std::string(directory) + "/journal")) << "what is not there";
    std::filesystem::create_directory(std::string(directory) + "/journal");
    EXPECT_FALSE(remove_journal(std::string(directory) + "/journal"));
    EXPECT_FALSE(remove_journal(std::string(directory) + "/no/journal"));
    std::filesystem::remove_all(directory);
}

TEST(CopyJournal, SaysWhereACopyGoesOn) {
    CopyJob job{lun("/s/lun0", "a", 1000), lun("/s/lun1", "b", 2000), {}, "/j"};
    const CopyJournal journal{job.source.identity, job.target.identity, 1000, 500, 0};
    EXPECT_EQ(resume_offset(job, journal), 500U);
    EXPECT_EQ(resume_offset(job, std::nullopt), 0U);
    EXPECT_EQ(resume_offset(job, CopyJournal{"lun c", job.target.identity, 1000, 500, 0}), 0U);
    EXPECT_EQ(resume_offset(job, CopyJournal{job.source.identity, job.target.identity, 1000, 1000, 0}), 0U);
    job.options.begins_anew = true;
    EXPECT_EQ(resume_offset(job, journal), 0U);
    job.options.begins_anew = false;
    job.source.identity = "lun /s/lun0";
    EXPECT_EQ(resume_offset(job, CopyJournal{"lun /s/lun0", job.target.identity, 1000, 500, 0}), 0U);
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
              "verifying  100 %  0 B of 0 B  0.0 MB/s  0:00 left");
}

TEST(CopyProgress, WhatIsCopiedNeedsNoMoreTimeHoweverShortItTook) {
    CopyProgress progress{CopyProgress::Phase::copying, 4095, 4096, 0, 0};
    EXPECT_EQ(seconds_left(progress, 0), std::nullopt) << "nothing has been measured";
    progress.bytes = 4096;
    EXPECT_EQ(seconds_left(progress, 0), 0);
    EXPECT_EQ(seconds_left(progress, 1e9), 0);
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
