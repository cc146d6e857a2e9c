// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The least a FUSE server can do: one file, "null", whose reads give zeros and whose writes go nowhere. It takes
// requests in as srpfs does (a cloned descriptor that does not block, read until it is empty, one writev() for an
// answer), and does nothing else, so it is the ceiling of that intake on a machine. With --ring they come through
// io_uring, as they do to srpfs with io_uring=on. For tests/bench/peers; not installed.
//
//   null-fuse [--size BYTES] [--threads N] [--spin MICROSECONDS] [--huge] [--ring] MOUNTPOINT
//
// Serves in the foreground until it is unmounted or gets SIGTERM, SIGINT or SIGHUP. Who may mount is up to libfuse,
// which does nothing after that.

#define FUSE_USE_VERSION 312
#include "ring.h"
#include "ring_entry.h"

#include <fuse_lowlevel.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <linux/fuse.h>
#ifdef NULL_FUSE_RING
#include <liburing.h>
#endif
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {

constexpr std::size_t page = 4096;
constexpr std::size_t payload_max = 1 << 20;
constexpr std::size_t header_bytes = sizeof(fuse_in_header) + sizeof(fuse_write_in);  // before a WRITE's data
constexpr std::uint64_t file_node = 2;
constexpr std::string_view file_name = "null";
constexpr unsigned batch_max = 32;  // requests before anything else gets a turn, as in srpfs
// Of the ring, as in srpfs as well.
constexpr unsigned entries_of_a_queue = 40;
constexpr std::uint64_t descriptor_mark = UINT64_MAX;  // user data of the poll; an entry's is its index
constexpr std::size_t command_offset = 48;             // of an SQE

struct Options {
    std::uint64_t size = std::uint64_t{8} << 30;
    unsigned threads = 1;
    unsigned spin_us = 0;
    bool huge = false;
    bool ring = false;
    std::string mountpoint;
};

[[noreturn]] void die(const std::string& what) {
    std::fprintf(stderr, "null-fuse: %s\n", what.c_str());
    std::exit(1);
}

[[noreturn]] void die_of_errno(const std::string& what) { die(what + ": " + std::strerror(errno)); }

Options parse(int count, char** arguments) {
    Options options;
    for (int i = 1; i < count; ++i) {
        const std::string_view argument = arguments[i];
        const auto number = [&](std::uint64_t max) {
            if (++i == count) die(std::string(argument) + " needs a number");
            char* end = nullptr;
            errno = 0;
            const auto value = std::strtoull(arguments[i], &end, 10);
            if (errno != 0 || end == arguments[i] || *end != '\0' || arguments[i][0] == '-' || value > max)
                die(std::string(argument) + " " + arguments[i] + ": not a number from 0 to " + std::to_string(max));
            return value;
        };
        if (argument == "--size")
            options.size = number(INT64_MAX);
        else if (argument == "--threads")
            options.threads = std::max(1U, static_cast<unsigned>(number(64)));
        else if (argument == "--spin")
            options.spin_us = static_cast<unsigned>(number(1'000'000));
        else if (argument == "--huge")
            options.huge = true;
        else if (argument == "--ring")
            options.ring = true;
        else if (argument.starts_with('-') || !options.mountpoint.empty())
            die("usage: null-fuse [--size BYTES] [--threads N] [--spin MICROSECONDS] [--huge] [--ring] MOUNTPOINT");
        else
            options.mountpoint = argument;
    }
    if (options.mountpoint.empty()) die("no mount point given");
#ifndef NULL_FUSE_RING
    if (options.ring) die("--ring: built without liburing");
#endif
    if (options.ring && options.threads > 1) die("--ring is for one thread");
    if (const std::string obstacle = options.ring ? srpfs::fs::ring_obstacle() : ""; !obstacle.empty())
        die("--ring: " + obstacle);
    return options;
}

// Memory whose payload begins at a page: `before` bytes in front of it can be used as well.
std::byte* make_buffer(bool huge, std::size_t before) {
    constexpr std::size_t huge_page = 2 << 20;
    void* mapped = mmap(nullptr, 3 * huge_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) die_of_errno("memory");
    auto address = reinterpret_cast<std::uintptr_t>(mapped);
    if (huge) {
        address = (address + huge_page - 1) / huge_page * huge_page;
        if (madvise(reinterpret_cast<void*>(address), huge_page, MADV_HUGEPAGE) != 0) die_of_errno("huge pages");
    }
    auto* payload = reinterpret_cast<std::byte*>(address) + page;
    std::memset(payload - before, 0, before + payload_max);
    return payload;
}

// A place of the ring for one request, the kernel's until one has come.
struct Entry {
    srpfs::fs::EntryHeader header{};
    std::byte* payload = nullptr;
    std::size_t dirty_bytes = 0;  // of the payload: not zeros any more
};

// Where an answer goes.
struct ReplyTo {
    int fd;                  // unless there is
    Entry* entry = nullptr;  // where the request came
};

class Server {
public:
    explicit Server(const Options& options) : options_(options), zeros_(make_buffer(options.huge, 0)) {}

#ifdef NULL_FUSE_RING
    // As serve(), through a ring beside the descriptor as soon as the connection is there.
    void serve_ring(int fd) {
        std::byte* const request = make_buffer(options_.huge, header_bytes) - header_bytes;
        while (!has_begun_) {
            pollfd ready{fd, POLLIN, 0};
            poll(&ready, 1, -1);
            if (!read_all(fd, request)) return;
        }
        if (!ring_offered_) die("--ring: the kernel does not offer it");
        start_ring(fd);
        watch();
        std::vector<std::byte> scratch;
        auto idle_since = std::chrono::steady_clock::now();
        while (true) {
            // All answers of a batch and the wait for what follows are one system call.
            const bool spins = options_.spin_us > 0 && std::chrono::steady_clock::now() - idle_since <
                                                           std::chrono::microseconds(options_.spin_us);
            const int entered = spins ? io_uring_submit_and_get_events(&ring_) : io_uring_submit_and_wait(&ring_, 1);
            if (entered < 0 && entered != -EINTR && entered != -EAGAIN && entered != -EBUSY)
                die(std::string("io_uring_enter: ") + std::strerror(-entered));
            io_uring_cqe* next = nullptr;
            while (io_uring_peek_cqe(&ring_, &next) == 0) {
                const std::uint64_t mark = next->user_data;
                const int result = next->res;
                io_uring_cqe_seen(&ring_, next);
                if (mark == descriptor_mark) {
                    if (!read_all(fd, request)) return;
                    watch();
                } else if (result == 0) {
                    answer_entry(entries_[mark], scratch);
                } else if (result == -EAGAIN) {
                    register_entry(mark);  // too early
                } else if (result != -ENOTCONN && result != -ECONNABORTED && result != -ECANCELED) {
                    die(std::string("a ring entry: ") + std::strerror(-result));
                }
                if (options_.spin_us > 0) idle_since = std::chrono::steady_clock::now();
            }
        }
    }
#endif

    // Of a thread: until the mount is gone.
    void serve(int fd) {
        std::byte* const request = make_buffer(options_.huge, header_bytes) - header_bytes;
        auto idle_since = std::chrono::steady_clock::now();
        while (true) {
            unsigned taken = 0;
            for (; taken < batch_max; ++taken) {
                const ssize_t count = read(fd, request, header_bytes + payload_max);
                if (count > 0) [[likely]] {
                    answer({fd}, {request, static_cast<std::size_t>(count)});
                    continue;
                }
                if (count < 0 && errno == EAGAIN) break;
                if (count < 0 && (errno == EINTR || errno == ENOENT)) continue;
                return;  // ENODEV: unmounted
            }
            if (options_.spin_us > 0) {
                const auto now = std::chrono::steady_clock::now();
                if (taken > 0) idle_since = now;
                if (now - idle_since < std::chrono::microseconds(options_.spin_us)) continue;
            }
            if (taken > 0) continue;
            pollfd ready{fd, POLLIN, 0};
            poll(&ready, 1, -1);
            if (options_.spin_us > 0) idle_since = std::chrono::steady_clock::now();
        }
    }

private:
    // What the descriptor has. False: unmounted.
    bool read_all(int fd, std::byte* request) {
        while (true) {
            const ssize_t count = read(fd, request, header_bytes + payload_max);
            if (count > 0)
                answer({fd}, {request, static_cast<std::size_t>(count)});
            else if (count == 0 || (errno != EINTR && errno != ENOENT))
                return count < 0 && errno == EAGAIN;
        }
    }

#ifdef NULL_FUSE_RING
    void start_ring(int fd) {
        queues_ = srpfs::fs::ring_queues();
        entries_.resize(std::size_t{queues_} * entries_of_a_queue);
        io_uring_params parameters{};
        parameters.flags = IORING_SETUP_SQE128 | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE |
                           IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
        const auto places = static_cast<unsigned>(entries_.size()) + 8;
        parameters.cq_entries = 2 * places;
        int result = io_uring_queue_init_params(places, &ring_, &parameters);
        if (result == 0) result = io_uring_register_files(&ring_, &fd, 1);
        if (result < 0) die(std::string("--ring: ") + std::strerror(-result));
        (void)io_uring_register_ring_fd(&ring_);
        for (std::size_t index = 0; index < entries_.size(); ++index) {
            entries_[index].payload = make_buffer(true, 0);  // huge, as srpfs's
            register_entry(index);
        }
    }

    io_uring_sqe& submission(std::uint8_t operation, std::uint64_t mark) {
        io_uring_sqe* const next = io_uring_get_sqe(&ring_);
        if (!next) die("no place in the ring");
        std::memset(static_cast<void*>(next), 0, 2 * sizeof *next);
        next->opcode = operation;
        next->fd = 0;  // of the registered files
        next->flags = IOSQE_FIXED_FILE;
        next->user_data = mark;
        return *next;
    }

    io_uring_sqe& command(std::size_t index, srpfs::fs::EntryCommand what) {
        io_uring_sqe& next = submission(IORING_OP_URING_CMD, index);
        next.cmd_op = static_cast<std::uint32_t>(what);
        const srpfs::fs::EntryCommandArguments arguments{.commit_id = entries_[index].header.state.commit_id,
                                                         .queue = static_cast<std::uint16_t>(index % queues_)};
        std::memcpy(reinterpret_cast<std::byte*>(&next) + command_offset, &arguments, sizeof arguments);
        return next;
    }

    void register_entry(std::size_t index) {
        static iovec parts[2];
        parts[0] = {&entries_[index].header, sizeof(srpfs::fs::EntryHeader)};
        parts[1] = {entries_[index].payload, payload_max};
        io_uring_sqe& next = command(index, srpfs::fs::EntryCommand::register_entry);
        next.addr = reinterpret_cast<std::uintptr_t>(parts);
        next.len = 2;
        io_uring_submit(&ring_);  // which reads `parts`
    }

    void watch() { submission(IORING_OP_POLL_ADD, descriptor_mark).poll32_events = POLLIN; }

    void answer_entry(Entry& entry, std::vector<std::byte>& scratch) {
        const auto request = srpfs::fs::request_in_entry(entry.header, {entry.payload, payload_max}, scratch);
        if (!request) die("a request in a ring entry has lengths that do not agree");
        entry.dirty_bytes = std::max(entry.dirty_bytes, request->data.size());
        answer({-1, &entry}, request->head);
    }

    void commit(Entry& entry) {
        (void)command(static_cast<std::size_t>(&entry - entries_.data()), srpfs::fs::EntryCommand::commit_and_fetch);
    }
#else
    void commit(Entry&) {}
#endif

    void reply(ReplyTo to, std::uint64_t unique, int error, const void* body, std::size_t bytes) {
        if (to.entry) {
            Entry& entry = *to.entry;
            if (body != zeros_) {
                if (bytes > 0) std::memcpy(entry.payload, body, bytes);
                entry.dirty_bytes = std::max(entry.dirty_bytes, bytes);
            } else if (const std::size_t dirty = std::min(entry.dirty_bytes, bytes); dirty > 0) {
                std::memset(entry.payload, 0, entry.dirty_bytes);
                entry.dirty_bytes = 0;
            }
            srpfs::fs::put_answer(entry.header, unique, error, static_cast<std::uint32_t>(bytes));
            return commit(entry);
        }
        fuse_out_header header{};
        header.len = static_cast<std::uint32_t>(sizeof header + bytes);
        header.error = -error;
        header.unique = unique;
        iovec parts[2] = {{&header, sizeof header}, {const_cast<void*>(body), bytes}};
        // A failure means that the asker was killed.
        [[maybe_unused]] const auto written = writev(to.fd, parts, bytes == 0 ? 1 : 2);
    }
    template <class Body>
    void reply(ReplyTo to, std::uint64_t unique, const Body& body) {
        reply(to, unique, 0, &body, sizeof body);
    }

    [[nodiscard]] fuse_attr attributes(std::uint64_t node) const {
        fuse_attr attr{};
        attr.ino = node;
        attr.mode = node == file_node ? S_IFREG | 0600 : S_IFDIR | 0755;
        attr.nlink = 1;
        attr.size = node == file_node ? options_.size : 0;
        attr.blksize = page;
        attr.uid = geteuid();
        attr.gid = getegid();
        return attr;
    }

    void answer(ReplyTo to, std::span<const std::byte> request) {
        fuse_in_header header{};
        std::memcpy(&header, request.data(), sizeof header);
        const std::byte* const body = request.data() + sizeof header;
        switch (header.opcode) {
            case FUSE_READ: {
                fuse_read_in in{};
                std::memcpy(&in, body, sizeof in);
                const std::uint64_t left = in.offset < options_.size ? options_.size - in.offset : 0;
                return reply(to, header.unique, 0, zeros_, std::min<std::uint64_t>({in.size, left, payload_max}));
            }
            case FUSE_WRITE: {
                fuse_write_in in{};
                std::memcpy(&in, body, sizeof in);
                return reply(to, header.unique, fuse_write_out{in.size, 0});
            }
            default: return answer_rare(to, header, body, request.size() - sizeof header);
        }
    }

    void answer_rare(ReplyTo to, const fuse_in_header& header, const std::byte* body, std::size_t bytes) {
        constexpr std::uint64_t an_hour = 3600;
        switch (header.opcode) {
            case FUSE_INIT: {
                fuse_init_in in{};
                std::memcpy(&in, body, std::min(bytes, sizeof in));
                fuse_init_out out{};
                out.major = FUSE_KERNEL_VERSION;
                out.minor = std::min<std::uint32_t>(in.minor, FUSE_KERNEL_MINOR_VERSION);
                out.max_readahead = in.max_readahead;
                out.flags = in.flags & (FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS |
                                        FUSE_MAX_PAGES | FUSE_ABORT_ERROR);
                out.max_background = out.congestion_threshold = 1024;
                out.max_write = payload_max;
                out.max_pages = payload_max / page;
                if (options_.ring && (in.flags & FUSE_INIT_EXT) != 0 &&
                    (in.flags2 & srpfs::fs::fuse_over_io_uring_flags2) != 0) {
                    out.flags |= FUSE_INIT_EXT;
                    out.flags2 = srpfs::fs::fuse_over_io_uring_flags2;
                    ring_offered_ = true;
                }
                reply(to, header.unique, out);
                has_begun_ = true;
                return;
            }
            case FUSE_LOOKUP: {
                if (header.nodeid != FUSE_ROOT_ID || bytes != file_name.size() + 1 ||
                    std::memcmp(body, file_name.data(), file_name.size()) != 0)
                    return reply(to, header.unique, ENOENT, nullptr, 0);
                fuse_entry_out out{};
                out.nodeid = file_node;
                out.entry_valid = out.attr_valid = an_hour;
                out.attr = attributes(file_node);
                return reply(to, header.unique, out);
            }
            case FUSE_GETATTR:
            case FUSE_SETATTR: {
                fuse_attr_out out{};
                out.attr_valid = an_hour;
                out.attr = attributes(header.nodeid);
                return reply(to, header.unique, out);
            }
            case FUSE_OPEN: {
                fuse_open_out out{};
                out.open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES | FOPEN_NOFLUSH;
                return reply(to, header.unique, out);
            }
            case FUSE_OPENDIR: return reply(to, header.unique, fuse_open_out{});
            case FUSE_READDIR:
            case FUSE_FSYNC:
            case FUSE_FLUSH:
            case FUSE_ACCESS:
            case FUSE_RELEASE:
            case FUSE_RELEASEDIR: return reply(to, header.unique, 0, nullptr, 0);
            case FUSE_STATFS: return reply(to, header.unique, fuse_statfs_out{});
            case FUSE_FORGET:
            case FUSE_BATCH_FORGET:
            case FUSE_INTERRUPT: return;  // not answered
            default: return reply(to, header.unique, ENOSYS, nullptr, 0);
        }
    }

    const Options options_;
    const std::byte* const zeros_;
    // Of the ring's thread.
    bool has_begun_ = false, ring_offered_ = false;
#ifdef NULL_FUSE_RING
    io_uring ring_{};
    unsigned queues_ = 0;
    std::vector<Entry> entries_;
#endif
};

int clone_of(int session_fd) {
    const int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    auto master = static_cast<std::uint32_t>(session_fd);
    if (fd < 0 || ioctl(fd, FUSE_DEV_IOC_CLONE, &master) != 0) die_of_errno("cloning the FUSE descriptor");
    return fd;
}

}  // namespace

int main(int count, char** arguments) {
    const Options options = parse(count, arguments);
    sigset_t ending;
    sigemptyset(&ending);
    for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&ending, signal);
    pthread_sigmask(SIG_BLOCK, &ending, nullptr);

    std::array<char*, 3> words{arguments[0], const_cast<char*>("-o"), const_cast<char*>("fsname=null-fuse")};
    fuse_args library_arguments = FUSE_ARGS_INIT(words.size(), words.data());
    const fuse_lowlevel_ops none{};
    fuse_session* session = fuse_session_new(&library_arguments, &none, sizeof none, nullptr);
    if (!session || fuse_session_mount(session, options.mountpoint.c_str()) != 0)
        die(options.mountpoint + " cannot be mounted");

    Server server(options);
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < options.threads; ++i)
        threads.emplace_back([&server, &options, fd = clone_of(fuse_session_fd(session))] {
#ifdef NULL_FUSE_RING
            if (options.ring) return server.serve_ring(fd);
#endif
            (void)options;
            server.serve(fd);
        });
    // Whoever unmounts from outside ends the threads, and then this one.
    std::thread waiter([&ending, session] {
        int signal = 0;
        sigwait(&ending, &signal);
        fuse_session_unmount(session);
    });
    for (std::thread& thread : threads) thread.join();
    kill(getpid(), SIGTERM);
    waiter.join();
    return 0;
}
