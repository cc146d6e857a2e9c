// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "peers.h"

#include <gtest/gtest.h>

namespace srpfs::fs {
namespace {

class DeskTest : public testing::Test {
protected:
    bool put(bool urgent) {
        std::vector<Mail> mail(1);
        return desk_.put(mail, urgent);
    }
    Desk desk_;
};

TEST_F(DeskTest, OnlyUrgentMailWakesWhoHasNothingToDo) {
    ASSERT_TRUE(desk_.fall_asleep());
    EXPECT_FALSE(put(false));
    EXPECT_TRUE(put(true));
    EXPECT_FALSE(put(true)) << "he is on his way";
}

// He waits for the end of what he has read: without it he would be asleep, and counted as one that helps.
TEST_F(DeskTest, WhoHelpsIsWokenByAnyMail) {
    desk_.set_helps(true);
    ASSERT_TRUE(desk_.fall_asleep());
    EXPECT_TRUE(put(false));
}

TEST_F(DeskTest, NobodyFallsAsleepWhoHasMailOrIsAskedFor) {
    EXPECT_TRUE(put(true)) << "nobody looks there yet";
    EXPECT_FALSE(desk_.fall_asleep());
    std::vector<Mail> taken;
    desk_.take(taken);
    EXPECT_EQ(taken.size(), 1u);
    EXPECT_FALSE(desk_.ask());
    EXPECT_TRUE(desk_.is_asked_to_help());
    EXPECT_FALSE(desk_.fall_asleep());
    EXPECT_EQ(desk_.was_asked(), Desk::Asked::to_help);
    EXPECT_FALSE(desk_.is_asked_to_help());
    EXPECT_TRUE(desk_.fall_asleep());
}

}  // namespace
}  // namespace srpfs::fs
