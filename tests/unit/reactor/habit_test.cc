// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/reactor/habit.h>

#include <gtest/gtest.h>

namespace srpfs::reactor {
namespace {

unsigned tries_in(Habit& habit, unsigned chances, bool pays) {
    unsigned tries = 0;
    for (unsigned chance = 0; chance < chances; ++chance) {
        if (!habit.is_due()) continue;
        ++tries;
        habit.tried(pays);
    }
    return tries;
}

TEST(Habit, TriesAtEachChanceWhatPays) {
    Habit habit;
    EXPECT_EQ(tries_in(habit, 1000, true), 1000U);
}

TEST(Habit, TriesAtEachChanceWhatPaysEveryOtherTime) {
    Habit habit;
    for (unsigned chance = 0; chance < 1000; ++chance) {
        ASSERT_TRUE(habit.is_due()) << chance;
        habit.tried(chance % 2 == 0);
    }
}

TEST(Habit, TriesWhatDoesNotPayEverMoreRarelyButNotNever) {
    Habit habit;
    const unsigned first = tries_in(habit, 1000, false), second = tries_in(habit, 1000, false);
    EXPECT_LT(first, 40U);
    EXPECT_LT(second, first);
    (void)tries_in(habit, 10'000, false);
    constexpr unsigned tries_after_pause = Habit::score_after_pause;
    EXPECT_EQ(tries_in(habit, 10 * (Habit::pause_max + tries_after_pause), false), 10 * tries_after_pause);
}

TEST(Habit, TriesAtEachChanceAgainOnceItPaysAgain) {
    Habit habit;
    (void)tries_in(habit, 10'000, false);
    (void)tries_in(habit, Habit::pause_max + 1, true);
    EXPECT_EQ(tries_in(habit, 100, true), 100U);
}

TEST(Habit, PausesSoonerWhenFailingIsDearer) {
    Habit habit;
    (void)habit.is_due();
    habit.failed(Habit::score_max);
    EXPECT_EQ(tries_in(habit, Habit::pause_min, true), 0U);
    EXPECT_EQ(tries_in(habit, 10, true), 10U);
}

}  // namespace
}  // namespace srpfs::reactor
