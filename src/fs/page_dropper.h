// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Has the kernel drop pages of its page cache (FUSE_NOTIFY_INVAL_INODE). It may wait for the locks of pages, so this is
// done by threads of their own, and one file's drops do not wait for another's: when all threads are busy there is one
// more, until it has had nothing to do for a while.

#pragma once

#include <srpfs/base/result.h>
#include <srpfs/fs/tree.h>
#include <srpfs/lun/zeroing.h>
#include <srpfs/reactor/executor.h>

#include <functional>
#include <memory>
#include <vector>

namespace srpfs::fs {

class PageDropper {
public:
    // Writes to `fd` (/dev/fuse or a message socket), which it owns. `control`, on whose thread this is called, is
    // where further threads are started, so that all inherit the same from it.
    static Result<std::unique_ptr<PageDropper>> create(int fd, reactor::Executor& control);
    ~PageDropper();  // stop()
    PageDropper(const PageDropper&) = delete;
    PageDropper& operator=(const PageDropper&) = delete;

    // Any thread; does not wait. `done` is posted to `executor` once the kernel has dropped these pages of `node`, or
    // has none. UINT64_MAX is the end of a file.
    void drop(NodeId node, std::vector<lun::ByteRange> ranges, reactor::Executor& executor, std::function<void()> done);

    // Forgets what is queued, and ends the threads; waits for that, a fifth of a second at most. False: the kernel
    // holds one of them, until the connection is aborted; those left end by themselves then.
    bool stop();

private:
    struct State;
    explicit PageDropper(std::shared_ptr<State> state);
    std::shared_ptr<State> state_;
};

}  // namespace srpfs::fs
