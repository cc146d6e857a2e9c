// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The least a FUSE server can do: one file, "null", whose reads give zeros and whose writes go nowhere. It takes
// requests in as srpfs does (a cloned descriptor that does not block, read until it is empty, one writev() for an
// answer), and does nothing else, so it is the ceiling of that intake on a machine. For tests/bench/peers; not
// installed.
//
//   null-fuse [--size BYTES] [--threads N] [--spin MICROSECONDS] [--huge] MOUNTPOINT
//
// Serves in the foreground until it is unmounted or gets SIGTERM, SIGINT or SIGHUP. Who may mount is up to libfuse,
// which does nothing after that.

#define FUSE_USE_VERSION 312
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
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <linux/fuse.h>
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

struct Options {
    std::uint64_t size = std::uint64_t{8} << 30;
    unsigned threads = 1;
    unsigned spin_us = 0;
    bool huge = false;
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
        else if (argument.starts_with('-') || !options.mountpoint.empty())
            die("usage: null-fuse [--size BYTES] [--threads N] [--spin MICROSECONDS] [--huge] MOUNTPOINT");
        else
            options.mountpoint = argument;
    }
    if (options.mountpoint.empty()) die("no mount point given");
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

class Server {
public:
    explicit Server(const Options& options) : options_(options), zeros_(make_buffer(options.huge, 0)) {}

    // Of a thread: until the mount is gone.
    void serve(int fd) {
        std::byte* const request = make_buffer(options_.huge, header_bytes) - header_bytes;
        auto idle_since = std::chrono::steady_clock::now();
        while (true) {
            unsigned taken = 0;
            for (; taken < batch_max; ++taken) {
                const ssize_t count = read(fd, request, header_bytes + payload_max);
                if (count > 0) [[likely]] {
                    answer(fd, request, static_cast<std::size_t>(count));
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
    void reply(int fd, std::uint64_t unique, int error, const void* body, std::size_t bytes) {
        fuse_out_header header{};
        header.len = static_cast<std::uint32_t>(sizeof header + bytes);
        header.error = -error;
        header.unique = unique;
        iovec parts[2] = {{&header, sizeof header}, {const_cast<void*>(body), bytes}};
        // A failure means that the asker was killed.
        [[maybe_unused]] const auto written = writev(fd, parts, bytes == 0 ? 1 : 2);
    }
    template <class Body>
    void reply(int fd, std::uint64_t unique, const Body& body) {
        reply(fd, unique, 0, &body, sizeof body);
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

    void answer(int fd, const std::byte* request, std::size_t bytes) {
        fuse_in_header header{};
        std::memcpy(&header, request, sizeof header);
        const std::byte* const body = request + sizeof header;
        switch (header.opcode) {
            case FUSE_READ: {
                fuse_read_in in{};
                std::memcpy(&in, body, sizeof in);
                const std::uint64_t left = in.offset < options_.size ? options_.size - in.offset : 0;
                return reply(fd, header.unique, 0, zeros_, std::min<std::uint64_t>({in.size, left, payload_max}));
            }
            case FUSE_WRITE: {
                fuse_write_in in{};
                std::memcpy(&in, body, sizeof in);
                return reply(fd, header.unique, fuse_write_out{in.size, 0});
            }
            default: return answer_rare(fd, header, body, bytes - sizeof header);
        }
    }

    void answer_rare(int fd, const fuse_in_header& header, const std::byte* body, std::size_t bytes) {
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
                return reply(fd, header.unique, out);
            }
            case FUSE_LOOKUP: {
                if (header.nodeid != FUSE_ROOT_ID || bytes != file_name.size() + 1 ||
                    std::memcmp(body, file_name.data(), file_name.size()) != 0)
                    return reply(fd, header.unique, ENOENT, nullptr, 0);
                fuse_entry_out out{};
                out.nodeid = file_node;
                out.entry_valid = out.attr_valid = an_hour;
                out.attr = attributes(file_node);
                return reply(fd, header.unique, out);
            }
            case FUSE_GETATTR:
            case FUSE_SETATTR: {
                fuse_attr_out out{};
                out.attr_valid = an_hour;
                out.attr = attributes(header.nodeid);
                return reply(fd, header.unique, out);
            }
            case FUSE_OPEN: {
                fuse_open_out out{};
                out.open_flags = FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES | FOPEN_NOFLUSH;
                return reply(fd, header.unique, out);
            }
            case FUSE_OPENDIR: return reply(fd, header.unique, fuse_open_out{});
            case FUSE_READDIR:
            case FUSE_FSYNC:
            case FUSE_FLUSH:
            case FUSE_ACCESS:
            case FUSE_RELEASE:
            case FUSE_RELEASEDIR: return reply(fd, header.unique, 0, nullptr, 0);
            case FUSE_STATFS: return reply(fd, header.unique, fuse_statfs_out{});
            case FUSE_FORGET:
            case FUSE_BATCH_FORGET:
            case FUSE_INTERRUPT: return;  // not answered
            default: return reply(fd, header.unique, ENOSYS, nullptr, 0);
        }
    }

    const Options options_;
    const std::byte* const zeros_;
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
        threads.emplace_back([&server, fd = clone_of(fuse_session_fd(session))] { server.serve(fd); });
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
