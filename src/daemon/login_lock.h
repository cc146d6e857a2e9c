// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Two logins of one I_T nexus on one local port evict each other without a word (srp-wire 2.5). A lock file per nexus
// in /run/srpfs keeps two srpfs apart, a look at /sys/class/scsi_host keeps srpfs and ib_srp apart (decisions 34).

#pragma once

#include <srpfs/base/result.h>
#include <srpfs/fabric/fabric.h>
#include <srpfs/srp/login_string.h>

#include <memory>
#include <mutex>
#include <string>

namespace srpfs::daemon {

class LoginLock {
public:
    // `directory`: /run/srpfs; `scsi_hosts`: /sys/class/scsi_host (tests use others).
    LoginLock(const srp::LoginParameters& parameters, std::string directory, std::string scsi_hosts);
    ~LoginLock();
    LoginLock(const LoginLock&) = delete;
    LoginLock& operator=(const LoginLock&) = delete;

    // Thread-safe. Takes the lock for the nexus through `port`, once; EEXIST with a hint when somebody has it.
    // A lock directory that cannot be written is logged and not an error: an unprivileged user has no /run/srpfs.
    // ECANCELED after release().
    Result<void> take(const fabric::LocalPort& port);

    // Thread-safe. Gives the nexus up before the logout is done: who logs in under it now ends only connections that
    // nobody wants any more, and the next login must not fail because the last one is still being cleared away.
    void release();

    // Thread-safe. The nexus was last used by a process that ended without mark_clean(): writes of its may still run in
    // the target.
    [[nodiscard]] bool was_left_behind() const;
    // Thread-safe. Logged out, and the target has nothing of ours any more. Without this call the next process that
    // logs in is told.
    void mark_clean();

private:
    [[nodiscard]] std::string held_by_ib_srp(const fabric::LocalPort& port) const;

    const std::uint64_t id_ext_, ioc_guid_, initiator_ext_;
    const std::string directory_, scsi_hosts_;
    mutable std::mutex mutex_;
    int fd_ = -1;  // guarded by mutex_, as are those below
    bool released_ = false;
    std::string locked_name_;
    std::string path_;  // of the file that says we use the nexus; empty: none does
    bool left_behind_ = false;
};

}  // namespace srpfs::daemon
