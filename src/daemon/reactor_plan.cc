// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "reactor_plan.h"

#include <algorithm>

namespace srpfs::daemon {
namespace {

constexpr unsigned default_max = 4;
constexpr unsigned processors_of_user_and_home = 2;
constexpr std::chrono::microseconds spin_default(50);

}  // namespace

ReactorPlan plan_reactors(std::optional<unsigned> wanted, unsigned processors, bool rings) {
    if (wanted) return {.reactors = *wanted, .homes = *wanted};
    if (processors <= processors_of_user_and_home || rings) return {};
    return {.reactors = std::min(processors, default_max), .homes = 1};
}

std::chrono::microseconds default_spin(unsigned processors) {
    return processors < processors_of_user_and_home ? std::chrono::microseconds::zero() : spin_default;
}

}  // namespace srpfs::daemon
