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
