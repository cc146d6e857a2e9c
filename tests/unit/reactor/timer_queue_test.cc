// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/base/random.h>
#include <srpfs/reactor/timer_queue.h>

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace srpfs::reactor {
namespace {

using namespace std::chrono_literals;

constexpr Instant start{Duration(1000)};

TEST(TimerQueue, FiresInTheOrderOfDeadlinesNotOfArming) {
    TimerQueue queue(start);
    std::string order;
    Timer late(queue, [&] { order += 'l'; }), early(queue, [&] { order += 'e'; });
    late.arm_after(20ms);
    early.arm_after(10ms);

    queue.advance_to(start + 30ms);

    EXPECT_EQ(order, "el");
}

TEST(TimerQueue, FiresTimersOfTheSameInstantInTheOrderTheyWereArmed) {
    TimerQueue queue(start);
    std::vector<int> order;
    std::vector<std::unique_ptr<Timer>> timers;
    for (int i = 0; i < 20; ++i) timers.push_back(std::make_unique<Timer>(queue, [&order, i] { order.push_back(i); }));
    for (auto& timer : timers) timer->arm_at(start + 1ms);
    timers[0]->arm_at(start + 1ms);  // armed again: now the last

    queue.advance_to(start + 1ms);

    ASSERT_EQ(order.size(), 20u);
    EXPECT_EQ(order.front(), 1);
    EXPECT_EQ(order.back(), 0);
    EXPECT_TRUE(std::is_sorted(order.begin(), order.end() - 1));
}

TEST(TimerQueue, FiresAtTheExactDeadlineAndNotANanosecondBefore) {
    TimerQueue queue(start);
    int fired = 0;
    Timer timer(queue, [&] { ++fired; });
    timer.arm_after(10ms);

    queue.advance_to(start + 10ms - 1ns);
    EXPECT_EQ(fired, 0);
    EXPECT_TRUE(timer.armed());
    queue.advance_to(start + 10ms);
    EXPECT_EQ(fired, 1);
    EXPECT_FALSE(timer.armed());
    queue.advance_to(start + 20ms);
    EXPECT_EQ(fired, 1);
}

TEST(TimerQueue, ForgetsADisarmedTimer) {
    TimerQueue queue(start);
    int fired = 0;
    Timer timer(queue, [&] { ++fired; });
    timer.arm_after(10ms);

    timer.disarm();
    queue.advance_to(start + 1s);

    EXPECT_EQ(fired, 0);
    EXPECT_EQ(queue.next_deadline(), instant_never);
}

TEST(TimerQueue, ReplacesTheDeadlineOfAnArmedTimer) {
    TimerQueue queue(start);
    int fired = 0;
    Timer timer(queue, [&] { ++fired; });
    timer.arm_after(10ms);

    timer.arm_after(30ms);
    queue.advance_to(start + 20ms);
    EXPECT_EQ(fired, 0);
    EXPECT_EQ(queue.next_deadline(), start + 30ms);
    queue.advance_to(start + 30ms);
    EXPECT_EQ(fired, 1);
}

TEST(TimerQueue, TakesNeverAsDisarm) {
    TimerQueue queue(start);
    Timer timer(queue, [] {});
    timer.arm_after(10ms);

    timer.arm_at(instant_never);

    EXPECT_FALSE(timer.armed());
    timer.arm_after(Duration::max());
    EXPECT_FALSE(timer.armed());
}

TEST(TimerQueue, LetsACallbackArmItsOwnTimerAgain) {
    TimerQueue queue(start);
    std::vector<Instant> fired;
    std::optional<Timer> timer;
    timer.emplace(queue, [&] {
        fired.push_back(queue.now());
        if (fired.size() < 3) timer->arm_after(10ms);
    });
    timer->arm_after(10ms);

    for (int i = 1; i <= 5; ++i) queue.advance_to(start + i * 10ms);

    EXPECT_EQ(fired, (std::vector{start + 10ms, start + 20ms, start + 30ms}));
}

TEST(TimerQueue, EndsATurnInWhichACallbackArmsForNow) {
    TimerQueue queue(start);
    int fired = 0;
    std::optional<Timer> timer;
    timer.emplace(queue, [&] {
        ++fired;
        timer->arm_after(0ms);
    });
    timer->arm_after(0ms);

    queue.advance_to(start);
    EXPECT_EQ(fired, 1);
    EXPECT_EQ(queue.next_deadline(), start);
    queue.advance_to(start);
    EXPECT_EQ(fired, 2);
}

TEST(TimerQueue, LetsACallbackDisarmAnotherTimerThatIsDue) {
    TimerQueue queue(start);
    int fired = 0;
    Timer second(queue, [&] { ++fired; });
    Timer first(queue, [&] { second.disarm(); });
    first.arm_after(1ms);
    second.arm_after(1ms);

    queue.advance_to(start + 1ms);

    EXPECT_EQ(fired, 0);
}

TEST(TimerQueue, LetsACallbackDestroyTheTimerOfAnotherOwner) {
    TimerQueue queue(start);
    int fired = 0;
    auto second = std::make_unique<Timer>(queue, [&] { ++fired; });
    Timer first(queue, [&] { second.reset(); });
    first.arm_after(1ms);
    second->arm_after(2ms);

    queue.advance_to(start + 5ms);

    EXPECT_EQ(fired, 0);
}

TEST(TimerQueue, LetsACallbackDestroyItsOwner) {
    TimerQueue queue(start);
    struct Owner {
        Owner(TimerQueue& queue, std::unique_ptr<Owner>& self, int& fired)
            : timer(queue, [&self, &fired] {
                  ++fired;
                  self.reset();  // the last act: the captures die with the timer
              }) {}
        Timer timer;
    };
    std::unique_ptr<Owner> owner;
    int fired = 0;
    owner = std::make_unique<Owner>(queue, owner, fired);
    owner->timer.arm_after(1ms);

    queue.advance_to(start + 1ms);

    EXPECT_EQ(fired, 1);
    EXPECT_EQ(owner, nullptr);
}

TEST(TimerQueue, NeverMovesBackButFiresWhatIsDue) {
    TimerQueue queue(start);
    int fired = 0;
    Timer timer(queue, [&] { ++fired; });
    timer.arm_at(start);

    queue.advance_to(start - 500ns);

    EXPECT_EQ(queue.now(), start);
    EXPECT_EQ(fired, 1);
}

TEST(TimerQueue, DisarmsInTheDestructorOfTheTimer) {
    TimerQueue queue(start);
    {
        Timer timer(queue, [] {});
        timer.arm_after(1ms);
    }
    EXPECT_EQ(queue.next_deadline(), instant_never);
}

// Against the plainest model there is: a list that is searched for the smallest.
TEST(TimerQueue, AgreesWithALinearModelOverRandomArmingAndDisarming) {
    const std::uint64_t seed = 20240501;
    SCOPED_TRACE(seed);
    Random random(seed);
    TimerQueue queue(start);
    std::vector<int> fired;
    std::vector<std::unique_ptr<Timer>> timers;
    struct Model {
        Instant deadline = instant_never;
        std::uint64_t sequence = 0;
    };
    std::vector<Model> model(40);
    for (int i = 0; i < 40; ++i) timers.push_back(std::make_unique<Timer>(queue, [&fired, i] { fired.push_back(i); }));

    Instant now = start;
    std::uint64_t sequence = 0;
    for (int step = 0; step < 20'000; ++step) {
        const auto which = static_cast<std::size_t>(random.below(40));
        if (random.chance(1, 4)) {
            timers[which]->disarm();
            model[which].deadline = instant_never;
        } else if (random.chance(3, 4)) {
            const Instant when = now + Duration(random.below(50));
            timers[which]->arm_at(when);
            model[which] = {when, sequence++};
        } else {
            now += Duration(random.below(30));
            std::vector<int> expected;
            while (true) {
                std::size_t best = 40;
                for (std::size_t i = 0; i < 40; ++i) {
                    if (model[i].deadline > now) continue;
                    if (best == 40 || std::pair(model[i].deadline, model[i].sequence) <
                                          std::pair(model[best].deadline, model[best].sequence))
                        best = i;
                }
                if (best == 40) break;
                expected.push_back(static_cast<int>(best));
                model[best].deadline = instant_never;
            }
            fired.clear();
            queue.advance_to(now);
            ASSERT_EQ(fired, expected) << "step " << step;
        }
        Instant earliest = instant_never;
        for (const Model& one : model) earliest = std::min(earliest, one.deadline);
        ASSERT_EQ(queue.next_deadline(), earliest) << "step " << step;
    }
}

}  // namespace
}  // namespace srpfs::reactor
