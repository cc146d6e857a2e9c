// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/base/instant.h>
#include <srpfs/base/random.h>

#include <gtest/gtest.h>

#include <set>

namespace srpfs {
namespace {

// The tenth-thousand output of mt19937_64 with the default seed is fixed by the C++ standard ([rand.predef]).
TEST(Random, IsTheStandardsEngineOnEveryPlatform) {
    Random random(5489);
    std::uint64_t last = 0;
    for (int i = 0; i < 10000; ++i) last = random.next();

    EXPECT_EQ(last, 9981545732273789042u);
}

TEST(Random, RepeatsARunFromItsSeed) {
    Random first(42), second(42), other(43);
    bool differs = false;
    for (int i = 0; i < 100; ++i) {
        const auto value = first.below(1'000'000);
        EXPECT_EQ(value, second.below(1'000'000));
        differs = differs || value != other.below(1'000'000);
    }
    EXPECT_TRUE(differs);
}

TEST(Random, StaysBelowItsBoundAndReachesEveryValue) {
    Random random(1);
    std::set<std::uint64_t> seen;
    for (int i = 0; i < 1000; ++i) {
        const auto value = random.below(6);
        ASSERT_LT(value, 6u);
        seen.insert(value);
    }
    EXPECT_EQ(seen.size(), 6u);
    EXPECT_EQ(random.below(1), 0u);
}

TEST(Random, IncludesBothEndsOfARange) {
    Random random(1);
    std::set<std::uint64_t> seen;
    for (int i = 0; i < 1000; ++i) seen.insert(random.between(3, 5));

    EXPECT_EQ(seen, (std::set<std::uint64_t>{3, 4, 5}));
    EXPECT_EQ(random.between(9, 9), 9u);
}

TEST(Random, GivesCertaintyItsDue) {
    Random random(1);
    for (int i = 0; i < 100; ++i) {
        EXPECT_TRUE(random.chance(5, 5));
        EXPECT_FALSE(random.chance(0, 5));
    }
}

TEST(RandomDeathTest, AbortsWhenNothingIsBelowTheBound) {
    Random random(1);
    EXPECT_DEATH((void)random.below(0), "bound > 0");
}

TEST(Instant, AddsADelayOrSaysNever) {
    const Instant start{Duration(100)};

    EXPECT_EQ(saturating_add(start, Duration(5)), Instant{Duration(105)});
    EXPECT_EQ(saturating_add(start, Duration::max()), instant_never);
    EXPECT_EQ(saturating_add(Instant{Duration(0)}, Duration::max()), instant_never);
    EXPECT_EQ(saturating_add(start, Duration::max() - Duration(101)), instant_never - Duration(1));
}

}  // namespace
}  // namespace srpfs
