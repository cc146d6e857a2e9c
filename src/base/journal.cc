// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "journal.h"

#include <cerrno>

#include <sys/socket.h>
#include <syslog.h>
#include <unistd.h>

namespace srpfs::log {
namespace {

bool has_no_room(int code) { return code == EAGAIN || code == EWOULDBLOCK || code == ENOBUFS; }

}  // namespace

int syslog_priority(Level level) {
    switch (level) {
        case Level::error: return LOG_ERR;
        case Level::warning: return LOG_WARNING;
        case Level::info: return LOG_INFO;
        case Level::debug: return LOG_DEBUG;
    }
    return LOG_ERR;
}

bool Journal::send(Level level, std::string_view subject, std::string_view message) {
    constexpr int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    if (socket_ >= 0) {
        const auto entry = journal_entry(level, subject, message);
        if (::send(socket_, entry.data(), entry.size(), flags) >= 0) return true;
        if (has_no_room(errno)) return false;
    }
    // The stream of a service takes the priority in front of a line.
    const std::string line =
        fmt::format("<{}>{}{}{}\n", syslog_priority(level), subject, subject.empty() ? "" : ": ", message);
    if (::send(stream_, line.data(), line.size(), flags) >= 0) return true;
    if (has_no_room(errno)) return false;
    if (errno == ENOTSOCK) {
        [[maybe_unused]] const auto written = ::write(stream_, line.data(), line.size());
    }
    return true;
}

}  // namespace srpfs::log
