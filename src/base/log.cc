// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "journal.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <mutex>
#include <memory>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

namespace srpfs::log {
namespace {

std::atomic<Level> threshold_now = Level::info;
std::mutex observer_mutex;
std::function<void(Level, std::string_view)> observer_now;  // guarded by observer_mutex

// Each is made before threads start, and once.
std::unique_ptr<Journal> journal;
std::unique_ptr<SystemLog> system_log;
Stream& standard_error() {
    static Stream stream(STDERR_FILENO, Stream::When::always);
    return stream;
}
Stream& standard_error_if_room() {
    static Stream stream(STDERR_FILENO, Stream::When::if_there_is_room);
    return stream;
}
std::atomic<Sink*> sink_now = &standard_error();  // null: nobody

int connect_journal() {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    constexpr std::string_view path = "/run/systemd/journal/socket";
    path.copy(address.sun_path, path.size());
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
    if (fd >= 0) close(fd);
    return -1;
}

// "lun3" of "lun3: now 512 bytes" and of "SRP reset_device called for lun3"; empty: it is about none.
std::string_view lun_of(std::string_view message) {
    constexpr std::string_view digits = "0123456789abcdefx";
    for (std::size_t at = message.find("lun"); at != std::string_view::npos; at = message.find("lun", at + 1)) {
        const std::size_t end = std::min(message.find_first_not_of(digits, at + 3), message.size());
        const bool alone = (at == 0 || message[at - 1] == ' ' || message[at - 1] == '(') &&
                           (end == message.size() || message[end] == ':' || message[end] == ')');
        if (alone && end > at + 3 && message[at + 3] >= '0' && message[at + 3] <= '9')
            return message.substr(at, end - at);
    }
    return {};
}

// A subject that is a target's address, perhaps with a channel of it behind a slash: others have no colon, but for the
// embedded target.
std::string_view target_of(std::string_view subject) {
    const auto name = subject.substr(0, subject.rfind("/ch"));
    return name.find(':') != std::string_view::npos || name.starts_with("demo") ? name : std::string_view{};
}

}  // namespace

Destination standard_error_or_journal() {
    struct stat status {};
    const char* const stream = std::getenv("JOURNAL_STREAM");
    if (!stream || fstat(STDERR_FILENO, &status) != 0 || fmt::format("{}:{}", status.st_dev, status.st_ino) != stream)
        return Destination::standard_error;
    return Destination::journal;
}

std::string journal_entry(Level level, std::string_view subject, std::string_view message) {
    std::string entry = fmt::format("MESSAGE={}{}{}\nPRIORITY={}\nSYSLOG_IDENTIFIER=srpfs\n", subject,
                                    subject.empty() ? "" : ": ", message, syslog_priority(level));
    if (const auto target = target_of(subject); !target.empty()) {
        entry += fmt::format("SRPFS_TARGET={}\n", target);
        if (const auto lun = lun_of(message); !lun.empty()) entry += fmt::format("SRPFS_LUN={}\n", lun);
    }
    return entry;
}

void configure(Destination destination, Level threshold) {
    switch (destination) {
        case Destination::standard_error: sink_now = &standard_error(); break;
        case Destination::standard_error_if_room: sink_now = &standard_error_if_room(); break;
        case Destination::journal:
            if (!journal) journal = std::make_unique<Journal>(connect_journal(), STDERR_FILENO);
            sink_now = journal.get();
            break;
        case Destination::system_log:
            if (!system_log) system_log = std::make_unique<SystemLog>(_PATH_LOG);
            sink_now = system_log.get();
            break;
        case Destination::none: sink_now = nullptr; break;
    }
    threshold_now = threshold;
}

Level threshold() { return threshold_now.load(std::memory_order_relaxed); }

void observe(std::function<void(Level, std::string_view)> observer) {
    const std::lock_guard lock(observer_mutex);
    observer_now = std::move(observer);
}

void write(Level level, std::string_view subject, std::string_view message) {
    if (level > threshold()) return;
    const std::size_t prefix = subject.empty() ? 0 : subject.size() + 2;
    std::string line = subject.empty() ? std::string(message) : fmt::format("{}: {}", subject, message);
    // One event is one line, whatever a peer put into its strings.
    for (char& c : line)
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
    {
        const std::lock_guard lock(observer_mutex);
        if (observer_now) observer_now(level, line);
    }
    if (Sink* const sink = sink_now.load(std::memory_order_relaxed))
        sink->write(level, std::string_view(line).substr(0, subject.size()), std::string_view(line).substr(prefix));
}

}  // namespace srpfs::log
