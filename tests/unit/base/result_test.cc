// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/base/result.h>

#include <gtest/gtest.h>

#include <memory>

namespace srpfs {
namespace {

TEST(Result, HoldsTheValueItWasMadeFrom) {
    Result<int> result = 7;

    ASSERT_TRUE(result);
    EXPECT_EQ(*result, 7);
}

TEST(Result, HoldsTheErrorItWasMadeFrom) {
    const Result<int> result = Error(EEXIST, "log in: already there");

    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().errno_value(), EEXIST);
    EXPECT_EQ(result.error().context, "log in: already there");
}

TEST(Result, MovesOutAValueThatCannotBeCopied) {
    Result<std::unique_ptr<int>> result = std::make_unique<int>(3);

    const std::unique_ptr<int> taken = *std::move(result);

    EXPECT_EQ(*taken, 3);
}

TEST(Result, TellsAValueFromAnErrorOfTheSameType) {
    const Result<std::string> value = std::string("text");

    EXPECT_TRUE(value.has_value());
    EXPECT_EQ(value->size(), 4u);
}

TEST(Result, OfNothingIsSuccessByDefault) {
    const Result<void> success;
    const Result<void> failure = Error(EIO, "read");

    EXPECT_TRUE(success);
    EXPECT_FALSE(failure);
    EXPECT_EQ(failure.error().errno_value(), EIO);
}

TEST(ResultDeathTest, AbortsWhenTheValueOfAnErrorIsTaken) {
    Result<int> result = Error(EIO, "read");

    EXPECT_DEATH((void)result.value(), "has_value");
}

TEST(ResultDeathTest, AbortsWhenTheErrorOfAValueIsTaken) {
    const Result<int> result = 1;

    EXPECT_DEATH((void)result.error(), "has_value");
}

}  // namespace
}  // namespace srpfs
