// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A control file as the layer above implements it. Everything here happens on the control thread.

#pragma once

#include <srpfs/base/result.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace srpfs::fs {

// The caller's side of a write, a blocking read or an ioctl that is not finished yet. Answered exactly once; dropping
// the last reference unanswered answers EIO.
class PendingCall {
public:
    virtual ~PendingCall() = default;
    virtual void succeed() = 0;  // of a write: the whole command was carried out
    // Of a read: what comes next, or for read_later() everything. Of a write to a dialogue: succeeds, and this is what
    // the handle reads then. Of an ioctl: what is given back, as many bytes as came.
    virtual void succeed_with(std::string text) = 0;
    virtual void fail(int errno_value) = 0;
    // Ctrl-C (FUSE_INTERRUPT): `handler` runs once on the control thread; it must answer (EINTR) soon.
    virtual void on_interrupt(std::function<void()> handler) = 0;
    // The caller opened the file with O_NONBLOCK: start the action, answer at once.
    [[nodiscard]] virtual bool nonblocking() const = 0;
    // uid of the caller, for the log.
    [[nodiscard]] virtual unsigned caller_uid() const = 0;
};

class ControlFile {
public:
    virtual ~ControlFile() = default;
    // The whole content; asked for at a read of offset 0, later offsets are served from that snapshot.
    // Error: the read's errno.
    virtual Result<std::string> read() = 0;
    // True: the content takes its time, and read_later() is called in place of read().
    [[nodiscard]] virtual bool is_slow() const { return false; }
    // `call` is to succeed with the whole content, or fail.
    virtual void read_later(std::shared_ptr<PendingCall> call) { call->fail(EIO); }
    // True: whoever has it open reads the answer to what he has written last, wherever his offset is, to its end and
    // then from its beginning again; who has written nothing gets read().
    [[nodiscard]] virtual bool is_dialogue() const { return false; }
    // One write(2) is one command: trimmed of blanks and a trailing newline, never empty, at most 64 KiB, without NUL.
    virtual void write(std::string_view command, std::shared_ptr<PendingCall> call) = 0;
    // What was written is no command: EINVAL, a NUL is in it; E2BIG, it is longer. `why` has the words; `call` is to
    // fail with its errno.
    virtual void refuse(const Error& why, std::shared_ptr<PendingCall> call) { call->fail(why.errno_value()); }
};

// A file whose reads wait for the next line (events). Each open handle has its own position.
class StreamFile {
public:
    virtual ~StreamFile() = default;
    // Called at open: the cursor of this handle.
    virtual std::uint64_t open_cursor() = 0;
    // Answers now, or later, with at least one whole line after `cursor`, at most `bytes_max`; advances the cursor
    // before answering. O_NONBLOCK and nothing there: EAGAIN.
    virtual void read_next(std::shared_ptr<std::uint64_t> cursor, std::size_t bytes_max,
                           std::shared_ptr<PendingCall> call) = 0;
};

}  // namespace srpfs::fs
