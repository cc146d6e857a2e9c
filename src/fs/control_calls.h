// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// READ and WRITE of control and stream files (user interface 4): one write is one command, a read is served from the
// content as of the last read at offset 0, and whoever waits can be interrupted. Control thread.

#pragma once

#include "open_files.h"
#include "request.h"

#include <srpfs/fs/control_file.h>
#include <srpfs/reactor/executor.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace srpfs::fs {

// Where answers go.
class ReplySink {
public:
    // Exactly once per request; `reply` starts with its fuse_out_header.
    virtual void answer(const Origin& origin, std::vector<std::byte> reply) = 0;
    // Runs `work` on the control thread once the kernel has been told of every change of the tree so far: what a
    // command has done is visible when its write returns.
    virtual void after_notifications(std::function<void()> work) = 0;

protected:
    ~ReplySink() = default;
};

// A command as the shell wrote it: blanks (space, tab, CR, LF, VT, FF) trimmed at both ends.
// Error: EINVAL with a NUL inside, E2BIG beyond 64 KiB.
[[nodiscard]] Result<std::string_view> parse_command(std::string_view written);

class ControlCalls {
public:
    // `sink`, `files` and `control` outlive this object; calls that are pending may outlive it and then answer nobody.
    ControlCalls(OpenFiles& files, ReplySink& sink, reactor::Executor& control);
    ~ControlCalls();
    ControlCalls(const ControlCalls&) = delete;
    ControlCalls& operator=(const ControlCalls&) = delete;

    // A FUSE_READ or FUSE_WRITE, header included, of a file that is not a LUN. Of what is longer than a command may be
    // the beginning will do.
    void on_request(const Origin& origin, std::span<const std::byte> request);
    // A FUSE_IOCTL, header included, whose number is that of `carry_out`.
    void on_ioctl(const Origin& origin, std::span<const std::byte> request, const Tree::Ioctl& carry_out);
    // FUSE_INTERRUPT of such a request; nothing happens when it has been answered.
    void on_interrupt(const Origin& origin);
    [[nodiscard]] std::size_t pending() const;

    struct Registry;

private:
    void on_read(const Origin& origin, const fuse_in_header& header, const fuse_read_in& in);
    void on_read_dialogue(const Origin& origin, const fuse_read_in& in, OpenFileDetails& details);
    void on_write(const Origin& origin, const fuse_in_header& header, const fuse_write_in& in,
                  std::string_view written);
    void answer_error(const Origin& origin, int errno_value);

    OpenFiles& files_;
    ReplySink& sink_;
    std::shared_ptr<Registry> registry_;
};

}  // namespace srpfs::fs
