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

}  // namespace
}  // namespace srpfs::fs
