// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The libfuse session: mounts, and answers every request that is not about data. Its transport is taken over
// (fuse-performance 3.3): the real descriptor is kept here, libfuse's number is one end of a socket pair, so that its
// answers come to us and go to the reactor that read the request. Control thread.

#pragma once

#include "open_files.h"
#include "request.h"
#include "tree_nodes.h"

#include <srpfs/base/result.h>
#include <srpfs/fs/file_system.h>
#include <srpfs/reactor/executor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <fuse_lowlevel.h>

namespace srpfs::fs {

// A descriptor that closes itself.
class Descriptor {
public:
    explicit Descriptor(int fd = -1) : fd_(fd) {}
    Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
    Descriptor& operator=(Descriptor&& other) noexcept;
    ~Descriptor() { reset(); }
    [[nodiscard]] int get() const { return fd_; }
    [[nodiscard]] explicit operator bool() const { return fd_ >= 0; }
    [[nodiscard]] int release();
    void reset();
    [[nodiscard]] Descriptor duplicate() const;  // the same open file description, close-on-exec

private:
    int fd_;
};

// The answer to INIT as this file system wants it: what libfuse wrote, with limits and flags replaced. `offered` is the
// kernel's INIT. `ring_depth` entries of each queue wait for requests to come through io_uring; 0: none.
[[nodiscard]] fuse_init_out edit_init_reply(const fuse_init_out& reply, const fuse_init_in& offered,
                                            const MountOptions& options, unsigned ring_depth);

// What the session asks of its surroundings. Control thread.
class SessionHost {
public:
    // The handle's last user has closed it: the reactors are to forget it, then OpenFiles::free_index().
    virtual void on_released(std::uint64_t handle, OpenFileDetails details) = 0;
    [[nodiscard]] virtual bool refuses_opens() const = 0;

protected:
    ~SessionHost() = default;
};

class Session {
public:
    // Mounts, or takes the descriptor N when the mount point is "/dev/fd/N", and answers INIT. Blocks up to 10 s for
    // it.
    static Result<std::unique_ptr<Session>> create(const MountOptions& options, unsigned ring_depth);
    ~Session();  // close()
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    // Before the first answer().
    void serve(TreeNodes& tree, OpenFiles& files, SessionHost& host, reactor::Executor& control);

    // A descriptor for another reactor: a clone where the kernel has that, else the same queue once more. Non-blocking.
    [[nodiscard]] Result<Descriptor> make_intake(bool first);
    [[nodiscard]] Descriptor duplicate_real() const { return real_.duplicate(); }

    // libfuse's answer to a checked request (check_for_libfuse): empty for none, EIO when it did not fit.
    [[nodiscard]] std::vector<std::byte> answer(std::span<const std::byte> request);

    // The raw INIT request, for a successor (crash survival).
    [[nodiscard]] const std::vector<std::byte>& init_request() const { return init_request_; }
    [[nodiscard]] const fuse_init_out& init_reply() const { return init_reply_; }
    // The kernel offers rings, and was told to use them: it waits until each queue has an entry, or one is refused.
    [[nodiscard]] bool uses_rings() const;
    [[nodiscard]] std::size_t reply_bytes_max() const { return reply_bytes_max_; }

    // How far the kernel reads ahead of who opens a file by the page cache after this. It tells INIT how much it is
    // going to be, and takes less but not more from the answer; so it is told by another way. Failure is logged.
    void set_readahead() const;

    // Takes the mount point away; requests of those who still use it go on.
    void detach();
    // Every request ends with an error now, pending ones included. False: not possible here, close() does it.
    bool abort();
    // Restores libfuse's descriptor and ends the session; detaches when that has not happened. `unmounted`: it is gone
    // already.
    void close(bool unmounted);

private:
    friend struct SessionOperations;
    Session(const MountOptions& options, unsigned ring_depth);
    Result<void> mount();
    Result<void> take_over_transport();
    Result<void> answer_init();
    Result<std::vector<std::byte>> receive_answer();

    MountOptions options_;
    const unsigned ring_depth_;
    fuse_session* session_ = nullptr;
    Descriptor real_;     // /dev/fuse
    Descriptor answers_;  // our end of the pair: what libfuse writes
    std::size_t reply_bytes_max_ = 0;
    std::vector<std::byte> receive_buffer_;
    std::vector<std::byte> init_request_;
    fuse_init_out init_reply_{};
    unsigned connection_ = 0;  // number below /sys/fs/fuse/connections; 0: unknown
    bool mounted_ = false;     // by us, and not detached

    TreeNodes* tree_ = nullptr;
    OpenFiles* files_ = nullptr;
    SessionHost* host_ = nullptr;
    reactor::Executor* control_ = nullptr;
    std::map<std::uint64_t, std::vector<DirectoryEntry>> directories_;  // open ones, as when first read or rewound
    std::uint64_t next_directory_ = 1;
};

}  // namespace srpfs::fs
