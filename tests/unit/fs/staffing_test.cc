// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "staffing.h"

#include <gtest/gtest.h>

#include <array>

namespace srpfs::fs::test {
namespace {

// A reader with a backlog in each millisecond, and so much work done in it with 0, 1, ... helpers.
struct Load {
    Staffing staffing;
    Instant now{};
    std::uint64_t work = 0;
    unsigned helpers = 0;
    unsigned run(Duration time, const std::array<unsigned, 4>& per_millisecond) {
        unsigned with_help = 0;
        for (const Instant end = now + time; now < end;) {
            now += std::chrono::milliseconds(1);
            work += per_millisecond[helpers];
            helpers = staffing.on_backlog(now, work, 3);
            with_help += helpers > 0 ? 1 : 0;
        }
        return with_help;
    }
};

constexpr auto ms = [](int count) { return std::chrono::milliseconds(count); };

TEST(Staffing, ThereAreAsManyHelpersAsMakeItFaster) {
    Load load;
    load.run(ms(200), {100, 200, 300, 310});
    EXPECT_EQ(load.helpers, 2u);
}

TEST(Staffing, AllAreWantedWhenEachMakesItFaster) {
    Load load;
    load.run(ms(200), {100, 200, 300, 400});
    EXPECT_EQ(load.helpers, 3u);
}

TEST(Staffing, HelpThatDoesNotPayIsTriedLessAndLessOften) {
    Load load;
    EXPECT_LE(load.run(std::chrono::minutes(1), {100, 90, 90, 90}), 60'000u / 100);
    EXPECT_EQ(load.helpers, 0u);
    // The next load is another one.
    load.now += std::chrono::minutes(1);
    load.run(ms(100), {100, 200, 200, 200});
    EXPECT_EQ(load.helpers, 1u);
}

TEST(Staffing, HelpThatPaysNoMoreEnds) {
    Load load;
    load.run(ms(500), {100, 200, 200, 200});
    EXPECT_EQ(load.helpers, 1u);
    load.run(ms(1500), {100, 90, 90, 90});
    EXPECT_EQ(load.helpers, 0u);
}

TEST(Staffing, HelpThatEndsTheBacklogIsKept) {
    Load load;
    load.run(ms(25), {100, 100, 100, 100});
    EXPECT_EQ(load.helpers, 1u);
    load.now += ms(200);
    load.run(ms(500), {100, 100, 100, 100});
    EXPECT_EQ(load.helpers, 1u);
}

}  // namespace
}  // namespace srpfs::fs::test
