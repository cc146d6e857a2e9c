// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "sink.h"

#include "journal.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <ctime>

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

namespace srpfs::log {

void Sink::write(Level level, std::string_view subject, std::string_view message) {
    if (const std::uint64_t lost = lost_.exchange(0); lost > 0) {
        if (!send(Level::warning, {}, fmt::format("{} messages before this one are lost: {} took none", lost, name_)))
            return static_cast<void>(lost_ += lost + 1);
    }
    if (!send(level, subject, message)) ++lost_;
}

SystemLog::SystemLog(std::string path)
    : Sink("the system log"), path_(std::move(path)), socket_(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    tzset();  // reads files: not while we serve
}

SystemLog::~SystemLog() {
    if (socket_ >= 0) close(socket_);
}

bool SystemLog::send(Level level, std::string_view subject, std::string_view message) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path_.size() >= sizeof address.sun_path) return false;
    path_.copy(address.sun_path, path_.size());
    const std::time_t now = std::time(nullptr);
    std::tm local{};
    localtime_r(&now, &local);
    std::array<char, 32> when{};
    when[std::strftime(when.data(), when.size(), "%b %e %H:%M:%S", &local)] = '\0';
    const std::string line = fmt::format("<{}>{} srpfs[{}]: {}{}{}", LOG_DAEMON | syslog_priority(level), when.data(),
                                         getpid(), subject, subject.empty() ? "" : ": ", message);
    return sendto(socket_, line.data(), line.size(), MSG_DONTWAIT | MSG_NOSIGNAL,
                  reinterpret_cast<const sockaddr*>(&address), sizeof address) >= 0;
}

bool Stream::send(Level, std::string_view subject, std::string_view message) {
    // One write per line, so that lines of several threads and processes do not mix.
    std::string line = fmt::format("srpfs: {}{}{}", subject, subject.empty() ? "" : ": ", message);
    const std::lock_guard lock(mutex_);
    if (when_ == When::if_there_is_room) {
        // A pipe that has room has it for so many bytes.
        line.resize(std::min<std::size_t>(line.size(), PIPE_BUF - 1));
        pollfd room{.fd = fd_, .events = POLLOUT, .revents = 0};
        if (poll(&room, 1, 0) == 0) return false;
    }
    line += '\n';
    [[maybe_unused]] const auto written = ::write(fd_, line.data(), line.size());
    return true;
}

}  // namespace srpfs::log
