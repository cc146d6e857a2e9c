// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "logical_ends.h"
#include "open_files.h"

#include <gtest/gtest.h>

namespace srpfs::fs {
namespace {

// The unit is destroyed, the handles stay open: whoever writes to the same unit by another path looks at each of them.
TEST(LogicalEnds, AFileThatGoesTakesItsHandlesAlong) {
    LunData going, staying;
    LogicalEnds ends;
    ends.cut(1, &going, 4096);
    ends.cut(2, &staying, 8192);
    ends.cut(3, &going, 512);
    ends.forget_file(&going);
    EXPECT_FALSE(ends.end_of(1));
    EXPECT_EQ(ends.end_of(2), 8192u);
    EXPECT_FALSE(ends.end_of(3));
    ends.forget_file(&staying);
    EXPECT_TRUE(ends.empty());
}

// Others write every second block behind the end of a file that stays open. What is not remembered any more is told,
// and never offered as a hole before that; what lies before it is known as ever.
TEST(LogicalEnds, WhatOthersWriteIsRememberedUpToABound) {
    constexpr std::uint64_t block = 512, max = LogicalEnds::pieces_max;
    LunData lun;
    LogicalEnds ends;
    ends.cut(1, &lun, 0);
    const auto write = [&](std::uint64_t number) {
        ends.note_written(&lun, {number * block, number * block + block}, 2);
    };
    for (std::uint64_t piece = max; piece > 0; --piece) write(2 * piece + 1);
    EXPECT_EQ(ends.unknown_from(1), UINT64_MAX);
    EXPECT_EQ(ends.to_zero(1, (2 * max + 2) * block).size(), max);
    write(2 * max + 11);
    EXPECT_EQ(ends.unknown_from(1), (2 * max + 11) * block);
    write(1);
    EXPECT_EQ(ends.unknown_from(1), (2 * max + 1) * block);
    EXPECT_EQ(ends.to_zero(1, 4 * block), (std::vector<lun::ByteRange>{{0, block}, {2 * block, 3 * block}}));
    EXPECT_EQ(ends.unknown_from(2), UINT64_MAX);
    // It grows past what it knows, by its own writes: what was forgotten may lie anywhere from there on.
    ends.note_written(&lun, {0, (2 * max + 5) * block}, 1);
    EXPECT_EQ(ends.unknown_from(1), (2 * max + 1) * block);
    EXPECT_TRUE(ends.to_zero(1, (2 * max + 5) * block).empty());
    ends.cut(1, &lun, (2 * max + 4) * block);  // something between is forgotten still
    EXPECT_EQ(ends.unknown_from(1), (2 * max + 1) * block);
    ends.cut(1, &lun, block);  // a file forgets what lay behind
    EXPECT_EQ(ends.unknown_from(1), UINT64_MAX);
    EXPECT_TRUE(ends.first_refusal(1));
    EXPECT_FALSE(ends.first_refusal(1));
}

TEST(RangeSet, GivesAwayWhatItHasOfARange) {
    using Ranges = std::vector<lun::ByteRange>;
    RangeSet set;
    EXPECT_EQ(set.take({0, 10}), Ranges{});
    set.add({10, 20});
    set.add({30, 40});
    set.add({50, 60});
    EXPECT_EQ(set.take({5, 5}), Ranges{});
    EXPECT_EQ(set.take({20, 30}), Ranges{});
    EXPECT_EQ(set.take({12, 14}), (Ranges{{12, 14}}));
    EXPECT_EQ(set.missing_in({10, 20}), (Ranges{{12, 14}}));
    EXPECT_EQ(set.take({15, 55}), (Ranges{{15, 20}, {30, 40}, {50, 55}}));
    EXPECT_EQ(set.hull().begin, 10u);
    EXPECT_EQ(set.hull().end, 60u);
    EXPECT_EQ(set.take({0, UINT64_MAX}), (Ranges{{10, 12}, {14, 15}, {55, 60}}));
    EXPECT_TRUE(set.empty());
}

}  // namespace
}  // namespace srpfs::fs
