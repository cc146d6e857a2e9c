// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What the drawn faults may do: each is something that a target, a network or a machine really does.

#include "faults.h"

#include <gtest/gtest.h>

namespace srpfs::simulation {
namespace {

// Seed 5941, with memory windows: a response of no bytes is not sent at all, so that its credit was lost for ever on a
// channel that stays.
TEST(Faults, AResponseThatIsCutKeepsAtLeastAByte) {
    FaultPlan plan{Fault::short_units};
    plan.commands_per_fault = 1;
    SimulatedTarget target(plan, 5941);
    unsigned cut = 0;
    for (unsigned i = 0; i < 10'000; ++i) {
        target::ResponsePlan response;
        target.on_response({}, response);
        if (!response.length) continue;
        ++cut;
        ASSERT_GE(*response.length, 1U);
    }
    EXPECT_GT(cut, 1000U);
}

}  // namespace
}  // namespace srpfs::simulation
