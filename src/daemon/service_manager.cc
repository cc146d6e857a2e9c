// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "service_manager.h"

#include <srpfs/base/log.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <utility>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace srpfs::daemon {
namespace {

std::string take_from_environment(const char* name) {
    const char* const value = std::getenv(name);
    std::string text = value ? value : "";
    unsetenv(name);
    return text;
}

template <typename T>
std::optional<T> number(std::string_view text) {
    T value{};
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (fault != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

}  // namespace

struct ServiceManager::Socket {
    explicit Socket(int descriptor) : fd(descriptor) {}
    Socket(const Socket&) = delete;
    Socket& operator=(const Socket&) = delete;
    ~Socket() { close(fd); }
    const int fd;
};

ServiceManager ServiceManager::from_environment() {
    const std::string path = take_from_environment("NOTIFY_SOCKET");
    const auto interval = number<std::uint64_t>(take_from_environment("WATCHDOG_USEC"));
    const std::string watched = take_from_environment("WATCHDOG_PID");
    ServiceManager manager;
    if (path.empty()) return manager;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    // "@" begins the name of an abstract socket: its first byte is 0, and it has no last one.
    if ((path[0] != '/' && path[0] != '@') || path.size() >= sizeof address.sun_path) {
        log::warning({}, "NOTIFY_SOCKET={} is no path of a socket; the service manager is told nothing", path);
        return manager;
    }
    path.copy(address.sun_path, path.size());
    if (path[0] == '@') address.sun_path[0] = '\0';
    const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        log::warning({}, "no socket for the service manager: {}", std::strerror(errno));
        return manager;
    }
    manager.socket_ = std::make_shared<Socket>(fd);
    const auto bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
    if (connect(fd, reinterpret_cast<const sockaddr*>(&address), bytes) != 0) {
        log::warning({}, "the service manager's socket {}: {}; it is told nothing", path, std::strerror(errno));
        return {};
    }
    const bool ours = watched.empty() || number<pid_t>(watched) == getpid();
    if (ours && interval && *interval > 0 && *interval < std::uint64_t{INT64_MAX} / 1000)
        manager.watchdog_ = std::chrono::microseconds(*interval);
    return manager;
}

void ServiceManager::send(std::string_view state) const {
    if (!socket_) return;
    if (::send(socket_->fd, state.data(), state.size(), MSG_NOSIGNAL) < 0)
        log::debug({}, "the service manager was not told {}: {}", state.substr(0, state.find('=')),
                   std::strerror(errno));
}

void ServiceManager::status(const std::string& text) {
    if (!socket_ || text == last_status_) return;
    last_status_ = text;
    // A line ends the value.
    std::string line = "STATUS=" + text;
    for (char& c : line)
        if (static_cast<unsigned char>(c) < 0x20) c = ' ';
    send(line);
}

Watchdog::Watchdog(reactor::Executor& control, std::vector<Watched> watched, Duration interval,
                   std::function<void()> on_alive)
    : watched_(std::move(watched)),
      pause_(std::max<Duration>(interval / 4, std::min<Duration>(std::chrono::seconds(1), interval / 2))),
      on_alive_(std::move(on_alive)), timer_(control.timers(), [this] { look(); }) {
    for (std::size_t i = 0; i < watched_.size(); ++i) answers_.push_back(std::make_shared<Answer>());
    look();
}

void Watchdog::look() {
    constexpr unsigned looks_missed_max = 2;
    timer_.arm_after(pause_);
    bool alive = true;
    for (std::size_t i = 0; i < watched_.size(); ++i) {
        Answer& last = *answers_[i];
        if (last.given.exchange(false)) {
            last.looks = 0;
            watched_[i].executor->post([answer = answers_[i]] { answer->given = true; });
            continue;
        }
        if (++last.looks < looks_missed_max) continue;
        alive = false;
        log::error(watched_[i].name, "hangs: no turn for {} ms; the service manager is not told that srpfs is alive",
                   std::chrono::duration_cast<std::chrono::milliseconds>(pause_ * last.looks).count());
    }
    if (alive) on_alive_();
}

}  // namespace srpfs::daemon
