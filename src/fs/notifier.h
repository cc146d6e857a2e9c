// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Tells the kernel that names have appeared or vanished and that attributes have changed. A thread of its own, because
// the kernel may take a directory lock whose holder waits for an answer of the control thread (decisions 15).

#pragma once

#include <srpfs/fs/tree.h>
#include <srpfs/reactor/executor.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

namespace srpfs::fs {

class Notifier {
public:
    // Writes to `fd` (/dev/fuse or a message socket), which it owns.
    explicit Notifier(int fd);
    ~Notifier();  // stop()
    Notifier(const Notifier&) = delete;
    Notifier& operator=(const Notifier&) = delete;

    // Any thread; none of these waits. The kernel not knowing the name or node is no error.
    void entry_appeared(NodeId parent, std::string_view name);  // ends a negative cache entry
    void entry_vanished(NodeId parent, NodeId child, std::string_view name);
    void attributes_changed(NodeId node);  // size, mode: fetched again when next needed

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
