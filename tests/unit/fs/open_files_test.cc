// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "open_files.h"

#include <gtest/gtest.h>

namespace srpfs::fs::test {
namespace {

OpenFileDetails details_of(std::uint64_t node, bool writable = false) {
    OpenFileDetails details;
    details.node = NodeId{node};
    details.writable = writable;
    return details;
}

TEST(OpenFiles, FindsWhatIsOpenAndNothingElse) {
    OpenFiles files;
    auto lun = std::make_shared<LunData>();
    OpenFileDetails details = details_of(5);
    details.lun = lun;

    const auto handle = files.open(std::move(details));

    ASSERT_NE(files.find(handle), nullptr);
    EXPECT_EQ(files.find(handle)->lun, lun.get());
    EXPECT_EQ(files.find(0), nullptr);
    EXPECT_EQ(files.find(handle + 1), nullptr);
    EXPECT_EQ(files.find(handle + (std::uint64_t{1} << 32)), nullptr);
    EXPECT_EQ(files.find(UINT64_MAX), nullptr);
}

TEST(OpenFiles, AnUnpublishedFileIsKnownToControlOnly) {
    OpenFiles files;
    const auto handle = files.open(details_of(5));

    files.unpublish(handle);

    EXPECT_EQ(files.find(handle), nullptr);
    ASSERT_NE(files.details(handle), nullptr);
    EXPECT_EQ(files.details(handle)->node, NodeId{5});
}

TEST(OpenFiles, AStaleHandleDoesNotMeetTheNextUserOfItsIndex) {
    OpenFiles files;
    const auto first = files.open(details_of(5));
    EXPECT_TRUE(files.close(first).has_value());
    files.free_index(first);

    const auto second = files.open(details_of(6));

    EXPECT_EQ(static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(second));
    EXPECT_NE(first, second);
    EXPECT_EQ(files.find(first), nullptr);
    EXPECT_EQ(files.details(first), nullptr);
    EXPECT_FALSE(files.close(first).has_value());
    EXPECT_NE(files.find(second), nullptr);
}

TEST(OpenFiles, AnIndexIsNotUsedAgainBeforeItIsFree) {
    OpenFiles files;
    const auto first = files.open(details_of(5));
    EXPECT_TRUE(files.close(first).has_value());

    const auto second = files.open(details_of(6));

    EXPECT_NE(static_cast<std::uint32_t>(first), static_cast<std::uint32_t>(second));
}

TEST(OpenFiles, CountsHandlesAndWritersOfANode) {
    OpenFiles files;
    (void)files.open(details_of(5, true));
    const auto reader = files.open(details_of(5));
    (void)files.open(details_of(6, true));

    EXPECT_EQ(files.count_of_node(NodeId{5}), 2u);
    EXPECT_EQ(files.writers_of_node(NodeId{5}), 1u);
    EXPECT_TRUE(files.close(reader).has_value());
    EXPECT_EQ(files.count_of_node(NodeId{5}), 1u);
    EXPECT_EQ(files.open_count(), 2u);
}

TEST(OpenFiles, HandlesOfARemovedFileAreNotThoseOfItsSuccessor) {
    OpenFiles files;
    const auto old = files.open(details_of(5, true));
    files.unpublish(old);

    EXPECT_EQ(files.count_of_node(NodeId{5}), 0u);
    EXPECT_EQ(files.writers_of_node(NodeId{5}), 0u);
    const auto details = files.close(old);
    ASSERT_TRUE(details);
    EXPECT_TRUE(details->removed);
}

TEST(OpenFiles, AThreadTruncatesWhatItHasOpenedLast) {
    OpenFiles files;
    const auto open = [&](std::int32_t pid, bool writable = true) {
        OpenFileDetails details = details_of(5, writable);
        details.pid = pid;
        return files.open(std::move(details));
    };
    EXPECT_EQ(files.writer_to_truncate(NodeId{5}, 0), 0u);
    const auto first = open(7);
    files.find(first)->is_used = true;
    EXPECT_EQ(files.writer_to_truncate(NodeId{5}, 7), first);
    const auto second = open(7);
    (void)open(7, false);
    EXPECT_EQ(files.writer_to_truncate(NodeId{5}, 7), second);
    EXPECT_EQ(files.writer_to_truncate(NodeId{5}, 8), 0u);
    EXPECT_EQ(files.writer_to_truncate(NodeId{5}, 0), 0u);
}

TEST(OpenFiles, OfThreadsWithoutANumberTheOnlyUnusedHandleIsTruncated) {
    OpenFiles files;
    const auto open = [&] { return files.open(details_of(5, true)); };
    const auto first = open();
    EXPECT_EQ(files.writer_to_truncate(NodeId{5}, 0), first);
    const auto second = open();
    EXPECT_EQ(files.writer_to_truncate(NodeId{5}, 0), std::nullopt);
    files.find(first)->is_used = true;
    EXPECT_EQ(files.writer_to_truncate(NodeId{5}, 0), second);
    files.details(second)->is_truncated = true;
    EXPECT_EQ(files.writer_to_truncate(NodeId{5}, 0), std::nullopt);
    EXPECT_TRUE(files.close(second));
    files.free_index(second);
    const auto third = open();
    EXPECT_EQ(files.writer_to_truncate(NodeId{5}, 0), third);
}

TEST(OpenFiles, RefusesMoreThanItHolds) {
    OpenFiles files;
    std::uint64_t last = 0;
    for (std::uint32_t i = 0; i < OpenFiles::files_max; ++i) last = files.open(details_of(5));
    EXPECT_NE(last, 0u);
    EXPECT_EQ(files.open(details_of(5)), 0u);
    EXPECT_NE(files.find(last), nullptr);
}

}  // namespace
}  // namespace srpfs::fs::test
