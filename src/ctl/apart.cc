// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/apart.h>

#include <fmt/format.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

namespace srpfs::ctl {
namespace {

// Each message: its kind, its length, its bytes.
constexpr std::size_t header_bytes = 1 + sizeof(std::uint32_t);

class Descriptor {
public:
    explicit Descriptor(int number = -1) : number_(number) {}
    ~Descriptor() { close(); }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;

    [[nodiscard]] int number() const { return number_; }
    void close() {
        if (number_ >= 0) ::close(number_);
        number_ = -1;
    }

private:
    int number_;
};

void arm(int timer, std::chrono::milliseconds limit) {
    const auto whole = std::chrono::duration_cast<std::chrono::seconds>(limit);
    itimerspec wanted{};
    wanted.it_value.tv_sec = whole.count();
    wanted.it_value.tv_nsec = std::chrono::nanoseconds(limit - whole).count();
    timerfd_settime(timer, 0, &wanted, nullptr);
}

[[noreturn]] void be_the_child(int descriptor, pid_t parent, const std::function<Result<std::string>(Outlet&)>& work) {
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGTSTP, SIGWINCH}) {
        struct sigaction action {};
        sigaction(number, nullptr, &action);
        if (action.sa_handler != SIG_IGN) ::signal(number, SIG_DFL);  // what nohup(1) and shells have ignored stays so
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) _exit(1);  // it has ended before
    Outlet outlet(descriptor);
    try {  // what is thrown here must not end up in a second copy of who has called
        const Result<std::string> done = work(outlet);
        if (done)
            outlet.send('r', *done);
        else
            outlet.send('e', fmt::format("{} {}", done.error().errno_value(), done.error().context));
    } catch (const std::exception& error) {
        outlet.send('e', fmt::format("{} internal error: {}", EIO, error.what()));
    }
    _exit(0);
}

// Ends it, and waits for its end only if that comes at once.
void end(pid_t child) {
    kill(child, SIGKILL);
    waitpid(child, nullptr, WNOHANG);
}

// It has answered, and ends, unless a thread of it hangs in a mount.
void reap(pid_t child) {
    constexpr int patience_ms = 1000;
    const int handle = static_cast<int>(syscall(SYS_pidfd_open, child, 0));
    pollfd ended{handle, POLLIN, 0};
    if (handle >= 0) poll(&ended, 1, patience_ms);
    waitpid(child, nullptr, handle >= 0 ? WNOHANG : 0);
    if (handle >= 0) ::close(handle);
}

Error error_of(std::string_view text) {
    const auto blank = text.find(' ');
    return Error(std::atoi(std::string(text.substr(0, blank)).c_str()), std::string(text.substr(blank + 1)));
}

}  // namespace

void Outlet::send(char kind, std::string_view text) {
    const auto length = static_cast<std::uint32_t>(text.size());
    std::string message(1, kind);
    message.append(reinterpret_cast<const char*>(&length), sizeof length);
    message += text;
    std::string_view rest = message;
    while (!rest.empty()) {
        const ssize_t sent = ::write(descriptor_, rest.data(), rest.size());
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0) _exit(1);
        rest.remove_prefix(static_cast<std::size_t>(sent));
    }
}

Result<std::string> run_apart(std::chrono::milliseconds limit, const std::function<Result<std::string>(Outlet&)>& work,
                              const std::function<bool(std::string_view)>& on_told, int reader) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return Error(errno, fmt::format("pipe: {}", std::strerror(errno)));
    Descriptor in(ends[0]), out(ends[1]);
    Descriptor timer(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    if (timer.number() < 0) return Error(errno, fmt::format("timerfd_create: {}", std::strerror(errno)));
    std::fflush(nullptr);
    const pid_t parent = getpid(), child = fork();
    if (child < 0) return Error(errno, fmt::format("fork: {}", std::strerror(errno)));
    if (child == 0) {
        in.close();
        be_the_child(out.number(), parent, work);
    }
    out.close();
    arm(timer.number(), limit);

    std::string received;
    while (true) {
        std::uint32_t length = 0;
        if (received.size() >= header_bytes) std::memcpy(&length, received.data() + 1, sizeof length);
        if (received.size() >= header_bytes && received.size() - header_bytes >= length) {
            const char kind = received[0];
            const std::string text = received.substr(header_bytes, length);
            received.erase(0, header_bytes + length);
            arm(timer.number(), limit);
            if (kind == 't' && on_told && !on_told(text)) {
                end(child);
                return std::string();
            }
            if (kind == 'r' || kind == 'e') {
                reap(child);
                if (kind == 'e') return error_of(text);
                return text;
            }
            continue;
        }
        pollfd wanted[3] = {{in.number(), POLLIN, 0}, {timer.number(), POLLIN, 0}, {reader, 0, 0}};
        if (poll(wanted, 3, -1) < 0 && errno != EINTR) break;
        if ((wanted[2].revents & (POLLERR | POLLHUP)) != 0) {
            end(child);
            return Error(EPIPE, std::strerror(EPIPE));
        }
        if (wanted[0].revents != 0) {
            char buffer[65536];
            const ssize_t got = ::read(in.number(), buffer, sizeof buffer);
            if (got > 0) received.append(buffer, static_cast<std::size_t>(got));
            if (got == 0) break;
        } else if (wanted[1].revents != 0) {
            end(child);
            return Error(ETIMEDOUT, fmt::format("no answer within {} s", static_cast<double>(limit.count()) / 1000));
        }
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFSIGNALED(status)) return Error(EINTR, fmt::format("ended by signal {}", WTERMSIG(status)));
    return Error(EIO, "the process that looks at the mount ended without an answer");
}

}  // namespace srpfs::ctl
