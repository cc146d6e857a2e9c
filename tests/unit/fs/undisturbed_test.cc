// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "undisturbed.h"

#include <gtest/gtest.h>

namespace srpfs::fs {
namespace {

// Each answer of a thread that is not a real-time one costs `switches_per_answer`.
class FakeScheduling final : public Scheduling {
public:
    bool is_ordinary() override { return ordinary; }
    std::uint64_t involuntary_switches() override {
        ++questions;
        return switches;
    }
    bool set_real_time(bool wanted) override {
        ++changes;
        if (wanted && !allowed) return false;
        real_time = wanted;
        return true;
    }

    bool ordinary = true, allowed = true, real_time = false;
    std::uint64_t switches = 0;
    unsigned changes = 0, questions = 0;
};

class UndisturbedTest : public testing::Test {
protected:
    // One turn; whether it was a real-time thread at the last of them.
    bool answer(unsigned count, bool preempted = true) {
        bool real_time = false;
        for (unsigned i = 0; i < count; ++i) {
            undisturbed_.before_answer();
            real_time = scheduling_.real_time;
            if (preempted && !real_time) ++scheduling_.switches;
        }
        undisturbed_.after_answers();
        EXPECT_FALSE(scheduling_.real_time) << "it stays so after the turn";
        return real_time;
    }
    void measure(bool preempted) {
        for (std::uint64_t seen = 0; seen <= 2 * Undisturbed::measured; seen += 32) (void)answer(32, preempted);
    }

    FakeScheduling scheduling_;
    Undisturbed undisturbed_{scheduling_};
};

TEST_F(UndisturbedTest, AnswersInARowAreUndisturbedWhereEachCostsTheProcessor) {
    measure(true);
    EXPECT_TRUE(answer(32));
}

TEST_F(UndisturbedTest, NothingIsChangedWhereNobodyIsPreferred) {
    measure(false);
    EXPECT_FALSE(answer(32, false));
    EXPECT_EQ(scheduling_.changes, 0U);
}

TEST_F(UndisturbedTest, AFewAnswersBetweenManyChangeNothing) {
    measure(true);
    for (int i = 0; i < 10; ++i) {
        EXPECT_TRUE(answer(3));
        EXPECT_TRUE(answer(32));
    }
}

TEST_F(UndisturbedTest, SingleAnswersCostNoSystemCall) {
    measure(true);
    for (int i = 0; i < 10; ++i) (void)answer(1);
    const unsigned changes = scheduling_.changes, questions = scheduling_.questions;
    for (int i = 0; i < 1000; ++i) EXPECT_FALSE(answer(1));
    EXPECT_EQ(scheduling_.changes, changes);
    EXPECT_EQ(scheduling_.questions, questions);
}

TEST_F(UndisturbedTest, ForbiddenIsTriedOnce) {
    scheduling_.allowed = false;
    measure(true);
    for (int i = 0; i < 1000; ++i) EXPECT_FALSE(answer(32));
    EXPECT_EQ(scheduling_.changes, 1U);
}

TEST_F(UndisturbedTest, WhoeverHasChosenAnotherPolicyKeepsIt) {
    scheduling_.ordinary = false;
    measure(true);
    EXPECT_FALSE(answer(32));
    EXPECT_EQ(scheduling_.changes, 0U);
}

TEST_F(UndisturbedTest, ItIsMeasuredAgainLater) {
    for (const bool preempted : {false, true, false}) {
        // Until it has been measured, wherever that begins.
        bool real_time = !preempted;
        for (std::uint64_t seen = 0;
             seen < 2 * (Undisturbed::done_for + Undisturbed::measured) && real_time != preempted; seen += 32)
            real_time = answer(32, preempted);
        EXPECT_EQ(real_time, preempted);
    }
}

}  // namespace
}  // namespace srpfs::fs
