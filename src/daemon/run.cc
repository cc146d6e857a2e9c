// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "service_manager.h"
#include "supervisor.h"

#include <srpfs/base/log.h>
#include <srpfs/daemon/config.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

namespace srpfs::daemon {
namespace {

// One line for a person, as mount(8) helpers print it.
void complain(const Config& config, std::string_view reason) {
    // Some reasons name the mount point themselves.
    const std::string named = config.mount.mountpoint + ": ";
    if (reason.starts_with(named)) reason.remove_prefix(named.size());
    const std::string line = fmt::format("srpfs: {}: {}\n", config.mount.mountpoint, reason);
    [[maybe_unused]] const auto written = write(STDERR_FILENO, line.data(), line.size());
}

// Written when ready, removed last: scripts wait for it to go away (decisions 18).
class PidFile {
public:
    // What would keep create() from working, known before the mount.
    static Result<void> check(const std::string& path) {
        if (path.empty()) return {};
        struct stat status {};
        const bool exists = stat(path.c_str(), &status) == 0;
        const std::string looked_at = exists ? path : path.substr(0, path.rfind('/') + 1);
        if (exists && S_ISDIR(status.st_mode))
            return Error(EISDIR, fmt::format("cannot write the pid file {}: it is a directory", path));
        if (faccessat(AT_FDCWD, looked_at.c_str(), W_OK, AT_EACCESS) == 0) return {};
        return Error(errno, fmt::format("cannot write the pid file {}: {}", path, std::strerror(errno)));
    }
    Result<void> create(const std::string& path) {
        if (path.empty()) return {};
        const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (fd < 0) return Error(errno, fmt::format("cannot write the pid file {}: {}", path, std::strerror(errno)));
        const std::string text = fmt::format("{}\n", getpid());
        const bool whole = write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
        const int fault = errno;
        close(fd);
        if (!whole) {
            unlink(path.c_str());
            return Error(fault, fmt::format("cannot write the pid file {}: {}", path, std::strerror(fault)));
        }
        path_ = path;
        return {};
    }
    void remove() {
        if (!path_.empty()) unlink(std::exchange(path_, {}).c_str());
    }
    ~PidFile() { remove(); }

private:
    std::string path_;
};

int serve(const Config& config, const ServiceManager& manager,
          const std::function<void(const Result<void>&)>& on_ready) {
    if (const auto possible = PidFile::check(config.pid_file); !possible) {
        on_ready(possible);
        return exit_code::mount_failed;
    }
    PidFile pid_file;
    int code = exit_code::ok;
    {
        Supervisor supervisor(config, manager);
        code = supervisor.run([&](const Result<void>& result) {
            // Whoever asked for a pid file waits for it, so a mount without it is none.
            const Result<void> told = result ? pid_file.create(config.pid_file) : result;
            on_ready(told);
            return told;
        });
    }
    pid_file.remove();
    return code;
}

void detach_standard_files() {
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0) return;
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) dup2(null, fd);
    if (null > STDERR_FILENO) close(null);
}

// The child's word to the parent: an exit code, then the reason.
struct Report {
    int code = exit_code::ok;
    char reason[2048] = "";
};

int run_in_background(const Config& config, const ServiceManager& manager) {
    int channel[2];
    if (pipe2(channel, O_CLOEXEC) != 0) {
        complain(config, fmt::format("cannot make a pipe: {}", std::strerror(errno)));
        return exit_code::system;
    }
    std::fflush(nullptr);  // else both would write what is left
    const pid_t child = fork();
    if (child < 0) {
        complain(config, fmt::format("cannot fork: {}", std::strerror(errno)));
        return exit_code::system;
    }
    if (child > 0) {
        close(channel[1]);
        Report report;
        std::size_t got = 0;
        while (got < sizeof report) {
            const ssize_t count = read(channel[0], reinterpret_cast<char*>(&report) + got, sizeof report - got);
            if (count < 0 && errno == EINTR) continue;
            if (count <= 0) break;
            got += static_cast<std::size_t>(count);
        }
        if (got == sizeof report) {
            report.reason[sizeof report.reason - 1] = '\0';
            if (report.code != exit_code::ok) complain(config, report.reason);
            return report.code;
        }
        int status = 0;
        waitpid(child, &status, 0);
        complain(config, WIFSIGNALED(status) ? fmt::format("ended by signal {} before it served", WTERMSIG(status))
                                             : "ended before it served; the system log may say more");
        return exit_code::system;
    }
    close(channel[0]);
    setsid();
    if (chdir("/") != 0) log::warning({}, "cannot change to /: {}", std::strerror(errno));
    log::configure(log::Destination::system_log, config.debug ? log::Level::debug : log::Level::info);
    const int code = serve(config, manager, [&](const Result<void>& result) {
        Report report;
        if (!result) {
            report.code = exit_code::mount_failed;
            result.error().context.copy(report.reason, sizeof report.reason - 1);
        } else {
            detach_standard_files();
        }
        [[maybe_unused]] const auto written = write(channel[1], &report, sizeof report);
        close(channel[1]);
    });
    return code;  // not _exit(): LeakSanitizer looks at the normal end
}

}  // namespace

int run(const Config& config) {
    // Writing to nobody, or beyond a limit, is an error of that write and ends nothing.
    for (const int number : {SIGPIPE, SIGXFSZ}) signal(number, SIG_IGN);
    const ServiceManager manager = ServiceManager::from_environment();
    if (!config.foreground) return run_in_background(config, manager);
    auto destination = log::standard_error_or_journal();
    // Who wants every step waits for it.
    if (destination == log::Destination::standard_error && !config.debug)
        destination = log::Destination::standard_error_if_room;
    log::configure(destination, config.debug ? log::Level::debug : log::Level::info);
    return serve(config, manager, [&](const Result<void>& result) {
        if (!result)
            complain(config, result.error().context);
        else
            log::info({}, "serving {} at {}", config.source, config.mount.mountpoint);
    });
}

}  // namespace srpfs::daemon
