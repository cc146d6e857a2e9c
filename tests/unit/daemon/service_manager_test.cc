// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "service_manager.h"

#include "../../common/manual_executor.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace srpfs::daemon {
namespace {

using namespace std::chrono_literals;

// What a service manager listens on: an abstract socket, or one with a path.
class Listener {
public:
    explicit Listener(std::string name) : name_(std::move(name)), fd_(socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        name_.copy(address.sun_path, sizeof address.sun_path - 1);
        if (name_[0] == '@') address.sun_path[0] = '\0';
        const auto bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name_.size());
        EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), bytes), 0) << std::strerror(errno);
        setenv("NOTIFY_SOCKET", name_.c_str(), 1);
    }
    ~Listener() {
        close(fd_);
        if (name_[0] == '/') unlink(name_.c_str());
        for (const char* name : {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}) unsetenv(name);
    }
    std::string next() {
        char text[512];
        const ssize_t got = recv(fd_, text, sizeof text, 0);
        return got < 0 ? "nothing" : std::string(text, static_cast<std::size_t>(got));
    }

private:
    std::string name_;
    int fd_;
};

std::string unique(char first) { return fmt::format("{}tmp/srpfs-test-{}", first, getpid()); }

TEST(ServiceManager, IsToldThroughItsSocketWithAPathOrAbstract) {
    for (const char first : {'/', '@'}) {
        Listener listener(unique(first));
        const auto manager = ServiceManager::from_environment();
        ASSERT_TRUE(manager.exists());
        manager.send("MAINPID=7\nREADY=1");
        EXPECT_EQ(listener.next(), "MAINPID=7\nREADY=1");
        EXPECT_EQ(std::getenv("NOTIFY_SOCKET"), nullptr) << "what srpfs starts is not the service";
    }
}

TEST(ServiceManager, NobodyIsToldWithoutASocketOrWithABadOne) {
    unsetenv("NOTIFY_SOCKET");
    EXPECT_FALSE(ServiceManager::from_environment().exists());
    for (const std::string bad : {"relative", "/nonexistent/socket", "", "@"})
        EXPECT_FALSE((setenv("NOTIFY_SOCKET", bad.c_str(), 1), ServiceManager::from_environment().exists())) << bad;
    setenv("NOTIFY_SOCKET", ("/" + std::string(200, 'x')).c_str(), 1);
    EXPECT_FALSE(ServiceManager::from_environment().exists());
    ServiceManager().send("READY=1");
    ServiceManager().status("fine");
}

TEST(ServiceManager, AStatusIsOneLineAndSaidOnce) {
    Listener listener(unique('@'));
    auto manager = ServiceManager::from_environment();
    manager.status("two\nlines");
    EXPECT_EQ(listener.next(), "STATUS=two lines");
    manager.status("two\nlines");
    EXPECT_EQ(listener.next(), "nothing");
}

TEST(ServiceManager, WantsAWatchdogOfThisProcessOnly) {
    Listener listener(unique('@'));
    const auto asked = [](const char* interval, const std::string& pid) {
        const std::string path = unique('@');
        setenv("NOTIFY_SOCKET", path.c_str(), 1);
        setenv("WATCHDOG_USEC", interval, 1);
        setenv("WATCHDOG_PID", pid.c_str(), 1);
        return ServiceManager::from_environment().watchdog();
    };
    EXPECT_EQ(asked("30000000", fmt::format("{}", getpid())), Duration(30s));
    EXPECT_EQ(asked("30000000", ""), Duration(30s));
    EXPECT_EQ(asked("30000000", fmt::format("{}", getpid() + 1)), std::nullopt);
    for (const char* bad : {"", "0", "-1", "30s", "99999999999999999999"})
        EXPECT_EQ(asked(bad, ""), std::nullopt) << bad;
}

class WatchdogTest : public ::testing::Test {
protected:
    void pass(Duration time) { control.timers().advance_to(control.timers().now() + time); }
    Duration since_ping() { return control.timers().now() - last_ping; }
    std::function<void()> on_alive() {
        return [this] {
            ++pings;
            last_ping = control.timers().now();
        };
    }

    test::ManualExecutor control, first, second;
    unsigned pings = 0;
    Instant last_ping{};
    static constexpr Duration interval = 12s;
    Watchdog watchdog{control, {{"first", &first}, {"second", &second}}, interval, on_alive()};
};

TEST_F(WatchdogTest, PingsFourTimesInAnInterval) {
    EXPECT_EQ(pings, 1U);
    for (unsigned i = 2; i < 6; ++i) {
        first.run();
        second.run();
        pass(3s - 1ns);
        EXPECT_EQ(pings, i - 1);
        pass(1ns);
        EXPECT_EQ(pings, i);
    }
}

TEST_F(WatchdogTest, LooksAtMostOnceASecondAndAtLeastTwiceInAnInterval) {
    for (const auto& [wanted, looks] : {std::pair<Duration, unsigned>{3s, 3}, {2s, 2}, {500ms, 2}, {1h, 4}}) {
        test::ManualExecutor clock;
        unsigned told = 0;
        const Watchdog one{clock, {}, wanted, [&] { ++told; }};
        told = 0;
        for (Duration passed{}; passed < wanted; passed += 50ms) clock.timers().advance_to(clock.timers().now() + 50ms);
        EXPECT_EQ(told, looks) << wanted.count();
    }
}

// Whenever it begins.
TEST_F(WatchdogTest, AThreadThatStoodStillForLessThanTheIntervalIsForgiven) {
    constexpr Duration step = 100ms;
    for (Duration before = 0s; before < 3s; before += step) {
        const auto turn = [&](Duration time, bool second_runs) {
            for (Duration passed{}; passed < time; passed += step) {
                first.run();
                if (second_runs) second.run();
                pass(step);
                EXPECT_LT(since_ping(), interval) << "after " << before.count();
            }
        };
        turn(interval + before, true);
        turn(interval - step, false);
    }
}

TEST_F(WatchdogTest, AThreadThatHangsStopsThePings) {
    first.run();
    pass(3s);
    EXPECT_EQ(pings, 2U) << "it may be about to run";
    for (int looks = 0; looks < 5; ++looks) {
        first.run();
        pass(3s);
    }
    EXPECT_EQ(pings, 2U) << "the second has run nothing";
    EXPECT_GT(since_ping(), interval);
    first.run();
    second.run();
    pass(3s);
    EXPECT_EQ(pings, 3U) << "it turns again";
    pass(3s);
    EXPECT_EQ(pings, 4U) << "what it had missed before does not count";
}

TEST_F(WatchdogTest, AThreadThatHangsIsGivenNothingMore) {
    pass(3s);
    pass(3s);
    first.run();
    EXPECT_FALSE(first.run());
}

}  // namespace
}  // namespace srpfs::daemon
