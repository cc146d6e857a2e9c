// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "login_lock.h"

#include <srpfs/base/log.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
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

}  // namespace

LoginLock::LoginLock(const srp::LoginParameters& parameters, std::string directory, std::string scsi_hosts)
    : id_ext_(parameters.id_ext), ioc_guid_(parameters.ioc_guid), initiator_ext_(parameters.initiator_ext),
      directory_(std::move(directory)), scsi_hosts_(std::move(scsi_hosts)) {}

LoginLock::~LoginLock() {
    // The file stays: removing it would race with somebody who has just opened it.
    if (fd_ >= 0) close(fd_);
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
    fd_ = fd;
    locked_name_ = name;
    return {};
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
