// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Tells the kernel that attributes have changed. A thread of its own, because such a write may wait for locks of the
// kernel's, and whoever holds them may wait for an answer of the control thread (decisions 15).
//
// Names are not told, although FUSE could: FUSE_NOTIFY_INVAL_ENTRY and _DELETE take the directory's and the file's
// lock. A process that writes to `delete` holds the lock of that very file until it is answered; and a program killed
// while its notifier waits for a lock held by a caller who waits for that program never ends, nor does the caller (both
// seen on Linux 6.18). So names that may vanish are not cached at all: see SessionOperations::lookup.

#pragma once

#include <srpfs/fs/tree.h>
#include <srpfs/reactor/executor.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

namespace srpfs::fs {

class Notifier {
public:
    // Writes to `fd` (/dev/fuse or a message socket), which it owns.
    explicit Notifier(int fd);
    ~Notifier();  // stop()
    Notifier(const Notifier&) = delete;
    Notifier& operator=(const Notifier&) = delete;

    // Any thread; does not wait. Size, mode, link count: fetched again when next needed. The kernel not knowing the
    // node is no error.
    void attributes_changed(NodeId node);

    // Posts `work` to `executor` once everything queued before has been told; runs it here and now when nothing is
    // queued.
    void after_delivery(reactor::Executor& executor, std::function<void()> work);

    // Drops what is queued and ends the thread; its descriptor is closed. Waits at most a second for a write that the
    // kernel holds; then the thread is left to end by itself.
    void stop();

private:
    struct State;
    void queue(std::vector<std::byte> message);
    std::shared_ptr<State> state_;
};

}  // namespace srpfs::fs
