// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What the service manager that has started us is told: sd_notify(3)'s datagrams, which need no library. Without
// NOTIFY_SOCKET nothing is sent.

#pragma once

#include <srpfs/base/instant.h>
#include <srpfs/reactor/executor.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace srpfs::daemon {

// Copies share the socket. send() may be called on any thread.
class ServiceManager {
public:
    ServiceManager() = default;  // nobody
    // Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID and takes them out of the environment: what we start is not
    // the service. Before there are threads, and before a fork: the service manager knows the parent's process id.
    static ServiceManager from_environment();

    // Lines KEY=VALUE. Never blocks; a service manager that does not read misses it.
    void send(std::string_view state) const;
    // Not if it is what was said last.
    void status(const std::string& text);
    // The interval in which it wants to hear of us, if it does.
    [[nodiscard]] std::optional<Duration> watchdog() const { return watchdog_; }
    [[nodiscard]] bool exists() const { return socket_ != nullptr; }

private:
    struct Socket;
    std::shared_ptr<Socket> socket_;  // nullptr: nobody
    std::optional<Duration> watchdog_;
    std::string last_status_;
};

// Tells the service manager that we are alive, four times in its interval, though not more than once a second, and
// twice in an interval below 2 s. We are while the thread this runs on turns, and none of the others has let two looks
// pass without running what it was given: one that stood still for less than the interval is not held against it, and
// what is sent last comes before it has stood still for that long. All of it on the thread of `control`.
class Watchdog {
public:
    struct Watched {
        std::string name;
        reactor::Executor* executor;
    };
    Watchdog(reactor::Executor& control, std::vector<Watched> watched, Duration interval,
             std::function<void()> on_alive);

private:
    void look();

    // Outlives us in the mailbox of a thread that hangs.
    struct Answer {
        std::atomic<bool> given{true};
        unsigned looks = 0;  // since it was asked; of the thread that looks
    };
    std::vector<Watched> watched_;
    std::vector<std::shared_ptr<Answer>> answers_;
    Duration pause_;  // from one look to the next
    std::function<void()> on_alive_;
    reactor::Timer timer_;
};

}  // namespace srpfs::daemon
