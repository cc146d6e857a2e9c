// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/reactor/spin.h>

#include <gtest/gtest.h>

namespace srpfs::reactor {
namespace {

using namespace std::chrono_literals;

constexpr Duration look = 1us;  // a turn without work

class SpinTest : public testing::Test {
protected:
    Spin spin{20us};
    Instant now{};

    // Turns without work until it wants to sleep; how long that took.
    Duration idle() {
        const Instant began = now;
        while (spin.goes_on(now)) now += look;
        now += 100us;  // asleep
        return now - began - 100us;
    }
    // Something comes after `delay` of looking; false when it slept before.
    bool comes_after(Duration delay) {
        const Instant at = now + delay;
        while (now < at) {
            if (!spin.goes_on(now)) {
                now = at + 30us;
                spin.on_work(now);
                return false;
            }
            now += look;
        }
        spin.on_work(now);
        return true;
    }
};

TEST_F(SpinTest, LooksForAsLongAsItWasTold) { EXPECT_EQ(idle(), 20us); }

TEST_F(SpinTest, NeverLooksWhenToldNotTo) {
    Spin none(Duration::zero());
    for (int i = 0; i < 5000; ++i) EXPECT_FALSE(none.goes_on(now += look));
}

TEST_F(SpinTest, LooksEachTimeWhileSomethingComes) {
    for (int i = 0; i < 10000; ++i) EXPECT_TRUE(comes_after(15us));
}

TEST_F(SpinTest, LooksSeldomWhenNothingComesInTime) {
    Duration looked{};
    for (int i = 0; i < 10000; ++i) looked += idle();
    EXPECT_LT(looked, 10000 * 20us / 100);
    EXPECT_GT(looked, Duration::zero());
}

TEST_F(SpinTest, LooksAgainSoonOnceThingsComeInTime) {
    for (int i = 0; i < 10000; ++i) idle();

    int slept = 0;
    for (int i = 0; i < 3000; ++i)
        if (!comes_after(5us)) ++slept;

    EXPECT_LT(slept, 1200);
    EXPECT_TRUE(comes_after(5us));
}

TEST_F(SpinTest, GivesUpWhenOthersAreGivenTheProcessor) {
    int looks = 0;
    for (int i = 0; i < 2000; ++i) {
        if (!spin.goes_on(now)) continue;
        ++looks;
        now += 4ms;  // somebody else's slice
        if (i % 2 == 0)
            spin.on_work(now);
        else
            (void)spin.goes_on(now);
    }
    EXPECT_LT(looks, 60);
}

}  // namespace
}  // namespace srpfs::reactor
