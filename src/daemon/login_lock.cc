// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "login_lock.h"

#include <srpfs/base/log.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

namespace srpfs::daemon {
namespace {

std::string first_word(const std::filesystem::path& path) {
    std::ifstream file(path);
    std::string word;
    file >> word;
    return word;
}

// What a lock file holds while this process uses the nexus. The number after the process id tells processes apart that
// have the same one.
const std::string& own_mark() {
    static const std::string mark = [] {
        std::uint64_t number = 0;
        if (getrandom(&number, sizeof number, 0) != sizeof number) number = 0;
        return fmt::format("{} {:016x}\n", getpid(), number);
    }();
    return mark;
}

std::string content_of(int fd) {
    std::array<char, 64> bytes;
    const ssize_t count = pread(fd, bytes.data(), bytes.size(), 0);
    return {bytes.data(), count > 0 ? static_cast<std::size_t>(count) : 0};
}

// Held while a lock file is looked at: who clears the mark of a login that has ended locks the file for a moment, and
// the next login of this process must not take that for somebody else's.
std::mutex files_mutex;

// How many locks of this process use each file.
std::mutex users_mutex;
std::map<std::string, unsigned>& users_unlocked() {
    static std::map<std::string, unsigned> all;
    return all;
}

void add_user(const std::string& path) {
    const std::lock_guard lock(users_mutex);
    ++users_unlocked()[path];
}

// How many are left.
unsigned forget_user(const std::string& path) {
    const std::lock_guard lock(users_mutex);
    return --users_unlocked()[path];
}

}  // namespace

LoginLock::LoginLock(const srp::LoginParameters& parameters, std::string directory, std::string scsi_hosts)
    : id_ext_(parameters.id_ext), ioc_guid_(parameters.ioc_guid), initiator_ext_(parameters.initiator_ext),
      directory_(std::move(directory)), scsi_hosts_(std::move(scsi_hosts)) {}

LoginLock::~LoginLock() {
    // The file stays: removing it would race with somebody who has just opened it.
    if (fd_ >= 0) close(fd_);
    if (!path_.empty()) forget_user(path_);
}

Result<void> LoginLock::take(const fabric::LocalPort& port) {
    // The loopback network is private to this process.
    if (port.link_layer == fabric::LinkLayer::loopback) return {};
    const std::string name =
        fmt::format("{}-{}-{:016x}-{:016x}-{:016x}.lock", port.device, port.port, id_ext_, ioc_guid_, initiator_ext_);
    const std::lock_guard lock(mutex_);
    if (released_) return Error(ECANCELED, "the target is being logged out");
    if (locked_name_ == name) return {};
    if (const std::string host = held_by_ib_srp(port); !host.empty())
        return Error(
            EEXIST,
            fmt::format("the kernel's ib_srp ({}) is logged in to this target through port {} of {} with the same "
                        "initiator port id; "
                        "two logins would evict each other: log that one out, or give a different initiator_ext=",
                        host, port.port, port.device));
    const std::lock_guard files(files_mutex);
    mkdir(directory_.c_str(), 0755);
    const std::string path = directory_ + "/" + name;
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        log::warning({}, "{}: {}; cannot tell whether another srpfs is logged in to the same target", path,
                     std::strerror(errno));
        return {};
    }
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        return Error(EEXIST, fmt::format("another srpfs login (this or another process, lock {}) uses this target "
                                         "through port {} of {} with the same "
                                         "initiator port id; two logins would evict each other: log that one out, or "
                                         "give a different initiator_ext=",
                                         path, port.port, port.device));
    }
    if (fd_ >= 0) close(fd_);
    if (!path_.empty()) forget_user(path_);
    fd_ = fd;
    locked_name_ = name;
    path_ = path;
    add_user(path);
    const std::string before = content_of(fd);
    left_behind_ = !before.empty() && before != own_mark();
    if (left_behind_)
        log::warning({}, "{}: the last srpfs logged in to this target has not logged out; its writes are fenced first",
                     path);
    if (ftruncate(fd, 0) != 0 || pwrite(fd, own_mark().data(), own_mark().size(), 0) < 0)
        log::warning({}, "{}: {}", path, std::strerror(errno));
    return {};
}

bool LoginLock::was_left_behind() const {
    const std::lock_guard lock(mutex_);
    return left_behind_;
}

void LoginLock::mark_clean() {
    const std::lock_guard lock(mutex_);
    if (path_.empty()) return;
    const std::lock_guard files(files_mutex);
    const std::string path = std::exchange(path_, {});
    // Another login of this process may use the nexus by now, or of another: the mark is theirs.
    if (forget_user(path) > 0) return;
    const int fd = fd_ >= 0 ? fd_ : open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return;
    if ((fd == fd_ || flock(fd, LOCK_EX | LOCK_NB) == 0) && content_of(fd) == own_mark() && ftruncate(fd, 0) != 0)
        log::warning({}, "{}: {}", path, std::strerror(errno));
    if (fd != fd_) close(fd);
}

void LoginLock::release() {
    const std::lock_guard lock(mutex_);
    released_ = true;
    locked_name_.clear();
    if (fd_ >= 0) close(std::exchange(fd_, -1));
}

// ib_srp does not show its initiator_ext; it is 0 unless somebody has set it.
std::string LoginLock::held_by_ib_srp(const fabric::LocalPort& port) const {
    if (initiator_ext_ != 0) return {};
    std::error_code ignored;
    for (const auto& host : std::filesystem::directory_iterator(scsi_hosts_, ignored)) {
        const auto& path = host.path();
        if (first_word(path / "id_ext") == fmt::format("0x{:016x}", id_ext_) &&
            first_word(path / "ioc_guid") == fmt::format("0x{:016x}", ioc_guid_) &&
            first_word(path / "local_ib_device") == port.device &&
            first_word(path / "local_ib_port") == fmt::format("{}", port.port))
            return path.filename();
    }
    return {};
}

}  // namespace srpfs::daemon
