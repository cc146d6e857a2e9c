// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The mounted file system: the FUSE session (libfuse mounts, unmounts and answers the rare requests on the control
// thread) and one request intake per reactor, which never lets READ, WRITE, FSYNC and INTERRUPT near libfuse
// (architecture 4, fuse-performance 3.3).

#pragma once

#include <srpfs/base/latency.h>
#include <srpfs/base/result.h>
#include <srpfs/fs/tree.h>
#include <srpfs/lun/engine.h>
#include <srpfs/reactor/reactor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace srpfs::fs {

// Whether requests come through io_uring (Linux 6.14 and later), or from /dev/fuse alone.
enum class RingUse : std::uint8_t { off, automatic, on };

// What ftruncate(2) and O_TRUNC do to a LUN file, which cannot shrink.
enum class Truncation : std::uint8_t {
    emulate,  // whoever has done it and writes on finds zeros below his end, as in a file; the device keeps its size
    device,   // nothing, as on a block device
    deny,     // EPERM
};

struct MountOptions {
    std::string mountpoint;  // absolute
    std::string fsname;      // what /proc/mounts shows as the source
    bool allow_other = false;
    bool allow_root = false;
    bool read_only = false;
    bool debug = false;                       // log every request that libfuse answers
    std::optional<unsigned> uid, gid, umask;  // of LUN files (umask: clears bits of 0666-style modes)
    std::vector<std::string> kernel_options;  // dev, nodev, suid, nosuid, exec, noexec, atime, noatime, sync, dirsync
    unsigned max_background = 1024;
    unsigned max_write_bytes = 1 << 20;
    Truncation truncation = Truncation::emulate;
    RingUse io_uring = RingUse::off;
    unsigned io_uring_queue_depth = 40;  // entries of each of the kernel's queues, over all reactors
    std::string io_uring_obstacle;       // why there can be none, if that is known
    // How far the kernel reads ahead of who reads a cached file; a multiple of 4096, 0: not at all. Without a value
    // `readahead_default`, and nobody is warned if it cannot be had.
    std::optional<unsigned> readahead_bytes;
    bool shares_all = false;  // for tests: all reactors read, and answer for each other whatever they can
};

inline constexpr unsigned readahead_default = 1U << 20;
inline constexpr unsigned readahead_max = 64U << 20;

// What the rings of all reactors need; to be made before their engines.
struct RingPlan {
    unsigned queues = 0;   // one for each CPU that may ever be there
    unsigned depth = 0;    // of each queue, over all rings
    unsigned rings = 0;    // reactors that have one: the first ones
    std::string obstacle;  // why there is none, in words to finish a sentence with
    [[nodiscard]] unsigned entries_of(unsigned reactor) const {  // EngineLimits::entries
        return reactor < rings ? queues * depth / rings : 0;
    }
};
// Entries are made fewer, and then rings, to stay within `bytes_max`; an obstacle if that is not possible.
[[nodiscard]] RingPlan plan_rings(unsigned queues, unsigned depth_wanted, unsigned reactors, std::size_t bytes_max);
// The same for this machine and these options; asks the system for obstacles.
[[nodiscard]] RingPlan plan_rings(const MountOptions& options, unsigned reactors, std::size_t bytes_max);
// The most that rings take where nobody has chosen: 512 MiB, and for more queues what they need at least, as far as an
// eighth of the machine's memory goes.
[[nodiscard]] std::size_t ring_bytes_default_max(unsigned queues, std::size_t machine_bytes);
[[nodiscard]] std::size_t ring_bytes_default_max();  // of this machine
// What it takes for the depth wanted.
[[nodiscard]] std::size_t ring_bytes_wanted(const MountOptions& options, unsigned reactors);
// Requests that wait in the kernel for an entry must not keep those of others waiting: so many of each queue's are kept
// free of asynchronous ones, which may all belong to one stuck target (decisions 12).
inline constexpr unsigned ring_entries_reserved = 8;
inline constexpr unsigned ring_depth_min = 16;

struct ReactorResources {
    reactor::Reactor* reactor;
    lun::Engine* engine;
};

// What was read by way of the kernel's page cache, and what became of those pages, since the mount.
struct PageStatistics {
    std::uint64_t fills = 0;         // READs that filled pages
    std::uint64_t fills_cached = 0;  // of these, those of cached files: their pages stay until something changes them
    // How often the kernel was asked to drop pages, how many ranges these were, and their bytes as far as the units go.
    std::uint64_t drops = 0, drop_ranges = 0, drop_bytes = 0;
    std::uint64_t waits = 0;           // changes that were answered after the kernel had dropped pages
    std::uint64_t waits_given_up = 0;  // of these, those answered without it, since it took too long
    LatencySnapshot drop_latency, wait_latency;
};

// What one reactor did with requests of any kind, since the mount.
struct RequestStatistics {
    std::uint64_t read = 0;               // from the kernel
    std::uint64_t handed_over = 0;        // of these, to the home of their unit
    std::uint64_t answered_for_home = 0;  // answers given for another reactor, whose unit's they are
};

class FileSystemListener {
public:
    // The mount is gone (umount, fusermount3 -u, abort): shut down. Control thread, once.
    virtual void on_unmounted() = 0;
    // The kernel's INIT was answered: requests are served. Control thread, once.
    virtual void on_serving() = 0;
    // Instead: io_uring=on, and the kernel has refused. Control thread, once.
    virtual void on_refused(const Error& error) { (void)error; }

protected:
    ~FileSystemListener() = default;
};

class FileSystem {
public:
    // Mounts (control thread, before the reactors run). Error: what to print, e.g. no /dev/fuse, mount point missing or
    // not a directory, not permitted, allow_other without user_allow_other, already mounted by srpfs.
    static Result<std::unique_ptr<FileSystem>> mount(const MountOptions& options, reactor::Executor& control,
                                                     std::vector<ReactorResources> reactors,
                                                     FileSystemListener& listener);
    virtual ~FileSystem() = default;

    virtual Tree& tree() = 0;
    // Control thread. Which reactors, by index, read requests from the kernel; at least one. At first all do. What one
    // reads for a unit of another reactor's is handed over. The others read as well while those cannot keep up, if that
    // helps. Rings are not concerned.
    virtual void set_readers(const std::vector<bool>& reads) = 0;
    // Control thread. Refuses new OPENs (ESHUTDOWN) from now on.
    virtual void refuse_opens() = 0;
    // Detaches the mount point (MNT_DETACH); on_unmounted follows when the last user is gone or abort() was called.
    virtual void detach() = 0;
    // Ends every request with an error now (fuse connection abort).
    virtual void abort() = 0;
    // After on_unmounted, or to give up: leaves the reactors and closes everything. The reactors must still run.
    virtual void close() = 0;
    // Requests read and not answered yet, all reactors.
    [[nodiscard]] virtual unsigned requests_pending() const = 0;
    [[nodiscard]] virtual PageStatistics page_statistics() const = 0;
    // By index of the reactor.
    [[nodiscard]] virtual std::vector<RequestStatistics> request_statistics() const = 0;
    // FUSE protocol and library versions for --version and the version file.
    static std::string versions();
};

}  // namespace srpfs::fs
