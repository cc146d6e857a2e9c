// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/base/log.h>

#include <atomic>
#include <cstdio>
#include <mutex>

#include <sys/uio.h>
#include <syslog.h>
#include <unistd.h>

namespace srpfs::log {
namespace {

std::atomic<Destination> destination_now = Destination::standard_error;
std::atomic<Level> threshold_now = Level::info;
std::mutex observer_mutex;
std::function<void(Level, std::string_view)> observer_now;  // guarded by observer_mutex

int syslog_priority(Level level) {
    switch (level) {
        case Level::error: return LOG_ERR;
        case Level::warning: return LOG_WARNING;
        case Level::info: return LOG_INFO;
        case Level::debug: return LOG_DEBUG;
    }
    return LOG_ERR;
}

}  // namespace

void configure(Destination destination, Level threshold) {
    if (destination == Destination::syslog) openlog("srpfs", LOG_PID | LOG_NDELAY, LOG_DAEMON);
    destination_now = destination;
    threshold_now = threshold;
}

Level threshold() { return threshold_now.load(std::memory_order_relaxed); }

void observe(std::function<void(Level, std::string_view)> observer) {
    const std::lock_guard lock(observer_mutex);
    observer_now = std::move(observer);
}

void write(Level level, std::string_view subject, std::string_view message) {
    if (level > threshold()) return;
    std::string line = subject.empty() ? std::string(message) : fmt::format("{}: {}", subject, message);
    // One event is one line, whatever a peer put into its strings.
    for (char& c : line)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
    {
        const std::lock_guard lock(observer_mutex);
        if (observer_now) observer_now(level, line);
    }
    switch (destination_now.load(std::memory_order_relaxed)) {
        case Destination::standard_error: {
            const std::string whole = fmt::format("srpfs: {}\n", line);
            // One write per line, so that lines of several threads and processes do not mix.
            [[maybe_unused]] const auto written = ::write(STDERR_FILENO, whole.data(), whole.size());
            break;
        }
        case Destination::syslog: ::syslog(syslog_priority(level), "%s", line.c_str()); break;
        case Destination::none: break;
    }
}

}  // namespace srpfs::log
