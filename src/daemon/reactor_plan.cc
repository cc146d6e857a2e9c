// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "reactor_plan.h"

#include <algorithm>

namespace srpfs::daemon {
namespace {

constexpr unsigned default_max = 4;
constexpr unsigned processors_of_user_and_home = 2;

}  // namespace

ReactorPlan plan_reactors(std::optional<unsigned> wanted, unsigned processors, bool rings) {
    if (wanted) return {.reactors = *wanted, .homes = *wanted};
    if (processors <= processors_of_user_and_home || rings) return {};
    return {.reactors = std::min(processors, default_max), .homes = 1};
}

}  // namespace srpfs::daemon
