// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/reactor/stepping_back.h>

#include <gtest/gtest.h>

namespace srpfs::reactor {
namespace {

using std::chrono::microseconds;

class SteppingBackTest : public testing::Test {
protected:
    // Works, steps back as long as wanted, each time for `step`; how often.
    unsigned steps_in_vain(Duration step) {
        stepping_.on_work(now_, 1);
        unsigned steps = 0;
        for (; stepping_.wants(now_); ++steps) now_ += step;
        return steps;
    }
    // Works, steps back for `step`, and finds work. False: it was to sleep instead.
    bool step_that_pays(Duration step) {
        stepping_.on_work(now_, 1);
        if (!stepping_.wants(now_)) return false;
        now_ += step;
        stepping_.on_work(now_, 2);
        return true;
    }

    SteppingBack stepping_;
    Instant now_{std::chrono::seconds(1)};
};

TEST_F(SteppingBackTest, SleepsWithoutOneIfNothingWasDone) { EXPECT_FALSE(stepping_.wants(now_)); }

TEST_F(SteppingBackTest, GivesWayAgainAndAgainWhileOthersUseIt) {
    EXPECT_EQ(steps_in_vain(microseconds(20)), SteppingBack::steps_max);
    EXPECT_FALSE(stepping_.wants(now_)) << "it sleeps once, without having worked in between";
}

TEST_F(SteppingBackTest, SleepsAfterSomeThatNobodyUsed) {
    EXPECT_EQ(steps_in_vain(microseconds(1)), SteppingBack::short_steps_max);
}

TEST_F(SteppingBackTest, GoesOnAfterOneThatNobodyUsed) {
    stepping_.on_work(now_, 1);
    unsigned steps = 0;
    for (; stepping_.wants(now_); ++steps) now_ += steps % 2 == 0 ? microseconds(1) : microseconds(20);
    EXPECT_EQ(steps, SteppingBack::steps_max);
}

TEST_F(SteppingBackTest, SleepsOnceItTakesTooLong) {
    EXPECT_EQ(steps_in_vain(SteppingBack::too_long * 3 / 4), 2U);
    EXPECT_EQ(steps_in_vain(SteppingBack::too_long * 3 / 4), 2U);
    EXPECT_EQ(steps_in_vain(SteppingBack::too_long * 3 / 4), 0U) << "and not at all after that";
}

TEST_F(SteppingBackTest, LeavesItWhenItTakesTooLongEvenIfThereIsWorkThen) {
    EXPECT_TRUE(step_that_pays(SteppingBack::too_long + microseconds(1)));
    EXPECT_TRUE(step_that_pays(SteppingBack::too_long + microseconds(1)));
    EXPECT_FALSE(step_that_pays(microseconds(10)));
}

TEST_F(SteppingBackTest, GoesOnWithoutEndWhileItPays) {
    for (int i = 0; i < 1000; ++i) ASSERT_TRUE(step_that_pays(microseconds(20))) << i;
}

TEST_F(SteppingBackTest, HardlyEverGivesWayWhereNobodySharesTheProcessor) {
    unsigned steps = 0;
    for (int i = 0; i < 100'000; ++i) steps += steps_in_vain(microseconds(1));
    EXPECT_LT(steps, 5000U);
}

TEST_F(SteppingBackTest, JudgesEachKindOfWorkByItself) {
    for (int i = 0; i < 100; ++i) (void)steps_in_vain(microseconds(1));
    EXPECT_EQ(steps_in_vain(microseconds(1)), 0U);
    stepping_.on_work(now_, 2);
    EXPECT_TRUE(stepping_.wants(now_));
}

}  // namespace
}  // namespace srpfs::reactor
