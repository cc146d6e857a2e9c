// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/reactor/reactor.h>

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include <sys/eventfd.h>
#include <unistd.h>

namespace srpfs::reactor {
namespace {

using namespace std::chrono_literals;

TEST(Reactor, RunsPostedWorkInTheOrderPosted) {
    Reactor reactor("test");
    std::vector<int> order;
    for (int i = 0; i < 100; ++i) reactor.post([&order, i] { order.push_back(i); });
    reactor.post([&] { reactor.stop(); });

    reactor.run();

    ASSERT_EQ(order.size(), 100u);
    EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST(Reactor, RunsWorkPostedByWorkInALaterTurn) {
    Reactor reactor("test");
    bool inside = false, nested = false, ran = false;
    reactor.post([&] {
        inside = true;
        reactor.post([&] {
            nested = inside;
            ran = true;
            reactor.stop();
        });
        inside = false;
    });

    reactor.run();

    EXPECT_TRUE(ran);
    EXPECT_FALSE(nested);
}

TEST(Reactor, WakesFromItsSleepForMailOfOtherThreads) {
    Reactor reactor("test");
    constexpr int threads = 4, each = 2000;
    std::vector<int> last(threads, -1);  // reactor's thread only
    int received = 0;
    bool in_order = true;
    std::vector<std::thread> senders;
    for (int t = 0; t < threads; ++t)
        senders.emplace_back([&, t] {
            for (int i = 0; i < each; ++i)
                reactor.post([&, t, i] {
                    in_order = in_order && last[static_cast<std::size_t>(t)] == i - 1;
                    last[static_cast<std::size_t>(t)] = i;
                    if (++received == threads * each) reactor.stop();
                });
        });

    reactor.run();
    for (auto& sender : senders) sender.join();

    EXPECT_EQ(received, threads * each);
    EXPECT_TRUE(in_order);
}

TEST(Reactor, StopsWhenToldByAnotherThread) {
    Reactor reactor("test");
    std::thread runner([&] { reactor.run(); });

    reactor.stop();

    runner.join();
}

TEST(Reactor, DestroysUnrunWhatIsPostedAfterItHasStopped) {
    auto witness = std::make_shared<int>(0);
    {
        Reactor reactor("test");
        reactor.stop();
        reactor.run();
        reactor.post([witness] { ++*witness; });
    }
    EXPECT_EQ(*witness, 0);
    EXPECT_EQ(witness.use_count(), 1);
}

TEST(Reactor, WakesForATimerWithoutMailOrSources) {
    Reactor reactor("test");
    int fired = 0;
    Timer timer(reactor.timers(), [&] {
        ++fired;
        reactor.stop();
    });
    timer.arm_after(1ms);

    reactor.run();

    EXPECT_EQ(fired, 1);
}

// A source whose work is counted by an eventfd.
class CountingSource final : public Source {
public:
    explicit CountingSource(std::function<void()> on_work) : on_work_(std::move(on_work)) {}
    ~CountingSource() override { close(fd_); }

    void give_work() const {
        const std::uint64_t one = 1;
        ASSERT_EQ(write(fd_, &one, sizeof one), static_cast<ssize_t>(sizeof one));
    }
    bool poll() override {
        ++polls;
        std::uint64_t count = 0;
        if (read(fd_, &count, sizeof count) < 0) return false;
        on_work_();
        return true;
    }
    void flush() override { ++flushes; }
    bool prepare_to_sleep() override {
        ++sleeps;
        return refuse_sleep_ == 0 || --refuse_sleep_ == 0;
    }
    void sleep_on(std::vector<int>& fds) override { fds.push_back(fd_); }
    void woken(std::span<const int> readable) override { told.emplace_back(readable.begin(), readable.end()); }
    void refuse_sleep(unsigned times) { refuse_sleep_ = times; }
    [[nodiscard]] int fd() const { return fd_; }

    std::vector<std::vector<int>> told;
    unsigned polls = 0, flushes = 0, sleeps = 0;

private:
    int fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    unsigned refuse_sleep_ = 0;
    std::function<void()> on_work_;
};

TEST(Reactor, WakesWhenTheDescriptorOfASourceBecomesReadable) {
    Reactor reactor("test");
    int worked = 0;
    CountingSource source([&] {
        ++worked;
        reactor.stop();
    });
    reactor.add_source(source);
    std::thread runner([&] { reactor.run(); });

    source.give_work();

    runner.join();
    EXPECT_EQ(worked, 1);
    EXPECT_EQ(source.flushes, source.polls);
}

TEST(Reactor, TellsASourceNothingAboutTheDescriptorsOfAnother) {
    Reactor reactor("test");
    CountingSource idle([] {});
    CountingSource busy([&] { reactor.stop(); });
    reactor.add_source(idle);
    reactor.add_source(busy);
    std::thread runner([&] { reactor.run(); });

    busy.give_work();

    runner.join();
    for (const auto& readable : idle.told) EXPECT_TRUE(readable.empty());
    for (const auto& readable : busy.told) EXPECT_TRUE(readable.empty() || readable == std::vector{busy.fd()});
}

TEST(Reactor, TellsASourceThatItsDescriptorIsReadable) {
    Reactor reactor("test");
    CountingSource source([&] { reactor.stop(); });
    // Its work is found by sleeping only.
    struct LateSource final : Source {
        explicit LateSource(CountingSource& inner) : inner_(inner) {}
        bool poll() override { return was_told && inner_.poll(); }
        void sleep_on(std::vector<int>& fds) override { inner_.sleep_on(fds); }
        void woken(std::span<const int> readable) override {
            was_told = readable.size() == 1 && readable[0] == inner_.fd();
        }
        bool was_told = false;

    private:
        CountingSource& inner_;
    } late(source);
    reactor.add_source(late);
    source.give_work();

    reactor.run();

    EXPECT_TRUE(late.was_told);
}

TEST(Reactor, PollsAgainWhenASourceRefusesToSleep) {
    Reactor reactor("test");
    CountingSource source([] {});
    source.refuse_sleep(3);
    reactor.add_source(source);
    Timer timer(reactor.timers(), [&] { reactor.stop(); });
    timer.arm_after(1ms);

    reactor.run();

    EXPECT_GE(source.polls, 3u);
}

// Mail may be taken by a turn that runs between a sender's flag and its wake-up; the late wake-up must not keep the
// reactor awake. Most runs of 300 rounds meet that race on two processors.
TEST(Reactor, SleepsAgainAfterAWakeUpThatCameTooLate) {
    struct BusySource final : Source {
        bool poll() override { return busy.load(); }
        bool prepare_to_sleep() override {
            ++sleeps;
            return true;
        }
        std::atomic<bool> busy = false;
        std::atomic<unsigned> sleeps = 0;
    };
    Reactor reactor("test");
    BusySource source;
    reactor.add_source(source);
    std::atomic<bool> quiet = false;
    unsigned sleeps_before = 0, sleeps_max = 0;  // reactor's thread only
    Timer second(reactor.timers(), [&] {
        sleeps_max = std::max(sleeps_max, source.sleeps - sleeps_before);
        quiet = true;
        quiet.notify_one();
    });
    Timer first(reactor.timers(), [&] {
        sleeps_before = source.sleeps;
        second.arm_after(2ms);
    });
    std::thread runner([&] { reactor.run(); });

    for (int round = 0; round < 300; ++round) {
        quiet = false;
        source.busy = true;
        std::atomic<bool> awake = false;
        reactor.post([&] { awake = true; });
        while (!awake) std::this_thread::yield();
        reactor.post([&] {
            source.busy = false;
            first.arm_after(1ms);
        });
        quiet.wait(false);
    }

    reactor.stop();
    runner.join();
    EXPECT_LE(sleeps_max, 20u) << "turns in 2 ms without work";
}

TEST(Reactor, PollsASourceNoMoreAfterItsRemoval) {
    Reactor reactor("test");
    CountingSource source([] {});
    reactor.add_source(source);
    unsigned polls_at_removal = 0;
    reactor.post([&] {
        reactor.remove_source(source);
        polls_at_removal = source.polls;
        reactor.post([&] { reactor.stop(); });
    });

    reactor.run();

    EXPECT_EQ(source.polls, polls_at_removal);
}

TEST(Reactor, KeepsTimeStillWithinATurn) {
    Reactor reactor("test");
    Instant first{}, second{}, later{};
    reactor.post([&] { first = reactor.timers().now(); });
    reactor.post([&] {
        second = reactor.timers().now();
        reactor.post([&] {
            later = reactor.timers().now();
            reactor.stop();
        });
    });

    reactor.run();

    EXPECT_EQ(first, second);
    EXPECT_GE(later, second);
}

}  // namespace
}  // namespace srpfs::reactor
