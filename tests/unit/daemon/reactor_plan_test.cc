// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "reactor_plan.h"

#include <gtest/gtest.h>

namespace srpfs::daemon {
namespace {

TEST(ReactorPlan, AllThatAreAskedForAreHomesWhateverTheMachine) {
    for (const unsigned processors : {1U, 2U, 64U})
        for (const bool rings : {false, true}) {
            const ReactorPlan plan = plan_reactors(3, processors, rings);
            EXPECT_EQ(plan.reactors, 3u);
            EXPECT_EQ(plan.homes, 3u);
        }
}

TEST(ReactorPlan, TheDefaultIsOneHomeAndAtMostThreeHelpersForWhichThereAreProcessors) {
    const unsigned reactors[] = {1, 1, 1, 3, 4, 4};  // by number of processors; 0: not known
    for (unsigned processors = 0; processors < 6; ++processors) {
        const ReactorPlan plan = plan_reactors({}, processors, false);
        EXPECT_EQ(plan.reactors, reactors[processors]) << processors << " processors";
        EXPECT_EQ(plan.homes, 1u);
    }
    EXPECT_EQ(plan_reactors({}, 256, false).reactors, 4u);
}

TEST(ReactorPlan, NobodyHelpsByDefaultWhereRingsWouldWakeHim) { EXPECT_EQ(plan_reactors({}, 64, true).reactors, 1u); }

TEST(ReactorPlan, WhoHasOneProcessorLeavesItToOthersAtOnce) {
    EXPECT_EQ(default_spin(1).count(), 0);
    EXPECT_EQ(default_spin(2).count(), 50);
    EXPECT_EQ(default_spin(64).count(), 50);
}

}  // namespace
}  // namespace srpfs::daemon
