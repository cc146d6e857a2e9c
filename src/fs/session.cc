// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "session.h"

#include "mount_errors.h"
#include "ring_entry.h"
#include "session_operations.h"

#include <srpfs/base/assert.h>
#include <srpfs/base/log.h>
#include <srpfs/reactor/thread.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

extern char** environ;

namespace srpfs::fs {
namespace {

constexpr int socket_buffer_bytes = 4 << 20;
// What libfuse may have to say at once; READDIR is the largest and is cut to what fits.
constexpr std::size_t reply_bytes_wanted = (std::size_t{1} << 20) + 4096;
constexpr std::size_t reply_bytes_needed = 64 * 1024;
constexpr int init_wait_ms = 10'000;
constexpr int first_private_fd = 10;  // away from 0..2, whatever the program does with them

std::mutex library_log_mutex;
std::string* library_log_collector = nullptr;  // guarded by library_log_mutex; set while mounting

void on_library_log(fuse_log_level level, const char* format, va_list arguments) {
    std::array<char, 1024> text{};
    std::vsnprintf(text.data(), text.size(), format, arguments);
    const std::lock_guard lock(library_log_mutex);
    if (library_log_collector) {
        library_log_collector->append(text.data());
        return;
    }
    std::string_view line(text.data());
    while (line.ends_with('\n')) line.remove_suffix(1);
    if (level <= FUSE_LOG_ERR)
        log::error("libfuse", "{}", line);
    else if (level <= FUSE_LOG_WARNING)
        log::warning("libfuse", "{}", line);
    else
        log::debug("libfuse", "{}", line);
}

void collect_library_log(std::string* collector) {
    const std::lock_guard lock(library_log_mutex);
    library_log_collector = collector;
}

// fusermount3 reports on standard error and nowhere else: what goes there in the life of this object ends up in `text`.
class StandardErrorCapture {
public:
    explicit StandardErrorCapture(std::string& text)
        : text_(text), file_(memfd_create("srpfs-messages", MFD_CLOEXEC)),
          saved_(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, first_private_fd)) {
        if (file_ && saved_) dup2(file_.get(), STDERR_FILENO);
    }
    ~StandardErrorCapture() {
        if (!file_ || !saved_) return;
        dup2(saved_.get(), STDERR_FILENO);
        std::array<char, 4096> buffer{};
        const ssize_t count = pread(file_.get(), buffer.data(), buffer.size(), 0);
        if (count > 0) text_.append(buffer.data(), static_cast<std::size_t>(count));
    }
    StandardErrorCapture(const StandardErrorCapture&) = delete;
    StandardErrorCapture& operator=(const StandardErrorCapture&) = delete;

private:
    std::string& text_;
    Descriptor file_;
    Descriptor saved_;
};

Error system_error(const std::string& what) {
    const int reason = errno;
    return Error{reason, fmt::format("{}: {}", what, std::strerror(reason))};
}

bool set_nonblocking(int fd) {
    const int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

void enlarge_buffer(int fd, int forced_option, int option) {
    if (setsockopt(fd, SOL_SOCKET, forced_option, &socket_buffer_bytes, sizeof socket_buffer_bytes) != 0)
        setsockopt(fd, SOL_SOCKET, option, &socket_buffer_bytes, sizeof socket_buffer_bytes);  // up to wmem_max
}

bool carries(int from, int to, std::size_t bytes, std::vector<std::byte>& scratch) {
    scratch.resize(bytes);
    if (send(from, scratch.data(), bytes, MSG_DONTWAIT | MSG_NOSIGNAL) != static_cast<ssize_t>(bytes)) return false;
    return recv(to, scratch.data(), bytes, MSG_DONTWAIT) == static_cast<ssize_t>(bytes);
}

void warn_of_request_timeouts() {
    for (const char* name : {"default_request_timeout", "max_request_timeout"}) {
        std::ifstream file(std::string("/proc/sys/fs/fuse/") + name);
        unsigned seconds = 0;
        if (file >> seconds && seconds > 0)
            log::warning("fuse",
                         "fs.fuse.{} is {} s: the kernel ends the whole mount when one request takes longer; keep "
                         "fast_io_fail_tmo below it",
                         name, seconds);
    }
}

}  // namespace

// ---- Descriptor ----

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
    if (this != &other) {
        reset();
        fd_ = other.release();
    }
    return *this;
}

int Descriptor::release() { return std::exchange(fd_, -1); }

void Descriptor::reset() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
}

Descriptor Descriptor::duplicate() const { return Descriptor(fcntl(fd_, F_DUPFD_CLOEXEC, first_private_fd)); }

// ---- INIT ----

fuse_init_out edit_init_reply(const fuse_init_out& reply, const fuse_init_in& offered, const MountOptions& options,
                              unsigned ring_depth) {
    fuse_init_out edited = reply;
    // All of ours is said here, so a library of another release cannot add to it: no splice, no writeback cache, no
    // locks of our own, and no O_TRUNC in OPEN, with which the kernel would set its own idea of a LUN's size to 0.
    constexpr std::uint32_t wanted = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS |
                                     FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_MAX_PAGES | FUSE_ABORT_ERROR;
    edited.flags = offered.flags & wanted;
    edited.flags2 = 0;
    edited.max_write = options.max_write_bytes;
    if ((edited.flags & FUSE_MAX_PAGES) == 0) edited.max_write = std::min<std::uint32_t>(edited.max_write, 128 * 1024);
    // Larger pages are no reason for larger requests: a short answer would be the end of the file.
    edited.max_pages =
        static_cast<std::uint16_t>(lun::Operation::bytes_max / static_cast<std::size_t>(sysconf(_SC_PAGESIZE)));
    edited.max_background = static_cast<std::uint16_t>(std::min(options.max_background, 65535u));
    const bool ring_offered = (offered.flags & FUSE_INIT_EXT) != 0 && (offered.flags2 & fuse_over_io_uring_flags2) != 0;
    if (ring_depth > 0 && ring_offered) {
        edited.flags |= FUSE_INIT_EXT;
        edited.flags2 = fuse_over_io_uring_flags2;
        edited.max_background =
            static_cast<std::uint16_t>(std::min<unsigned>(edited.max_background, ring_depth - ring_entries_reserved));
    }
    edited.congestion_threshold = edited.max_background;
    return edited;
}

// ---- Session ----

Session::Session(const MountOptions& options, unsigned ring_depth) : options_(options), ring_depth_(ring_depth) {}

Session::~Session() { close(false); }

Result<std::unique_ptr<Session>> Session::create(const MountOptions& options, unsigned ring_depth) {
    std::unique_ptr<Session> session(new Session(options, ring_depth));
    if (auto done = session->mount(); !done) return done.error();
    if (auto done = session->take_over_transport(); !done) return done.error();
    if (auto done = session->answer_init(); !done) return done.error();
    return session;
}

void Session::serve(TreeNodes& tree, OpenFiles& files, SessionHost& host, reactor::Executor& control) {
    tree_ = &tree;
    files_ = &files;
    host_ = &host;
    control_ = &control;
}

Result<void> Session::mount() {
    const bool inherited = options_.mountpoint.starts_with("/dev/fd/");
    if (!inherited)
        if (auto obstacle = find_mount_obstacle(options_)) return *obstacle;

    // default_permissions is not an option: without it anybody may do anything under allow_other.
    std::string list = "default_permissions,subtype=srpfs";
    if (!options_.fsname.empty()) list += ",fsname=" + escape_option(options_.fsname);
    if (options_.allow_other) list += ",allow_other";
    if (options_.allow_root) list += ",allow_root";
    for (const std::string& option : options_.kernel_options) list += ',' + option;
    if (options_.read_only) list += ",ro";
    if (options_.debug) list += ",debug";

    std::string messages;
    fuse_set_log_func(on_library_log);
    collect_library_log(&messages);
    fuse_args arguments = FUSE_ARGS_INIT(0, nullptr);
    const bool stored = fuse_opt_add_arg(&arguments, "srpfs") == 0 && fuse_opt_add_arg(&arguments, "-o") == 0 &&
                        fuse_opt_add_arg(&arguments, list.c_str()) == 0;
    if (stored) session_ = fuse_session_new(&arguments, &session_operations(), sizeof(fuse_lowlevel_ops), this);
    fuse_opt_free_args(&arguments);
    if (!session_) {
        collect_library_log(nullptr);
        return Error{EINVAL, fmt::format("{}: libfuse does not take these options: {}", options_.mountpoint, messages)};
    }
    bool mounted = false;
    {
        std::optional<StandardErrorCapture> capture;
        if (!inherited) capture.emplace(messages);
        mounted = fuse_session_mount(session_, options_.mountpoint.c_str()) == 0;
    }
    collect_library_log(nullptr);
    if (!mounted) return explain_mount_failure(options_, messages);

    if (!inherited) {
        mounted_ = true;
        char* real = realpath(options_.mountpoint.c_str(), nullptr);
        if (const auto info = find_mount(real ? real : options_.mountpoint)) connection_ = info->device_minor;
        std::free(real);
        warn_of_request_timeouts();
    }
    return {};
}

Result<void> Session::take_over_transport() {
    const int library_fd = fuse_session_fd(session_);
    real_ = Descriptor(fcntl(library_fd, F_DUPFD_CLOEXEC, first_private_fd));
    if (!real_) return system_error("keeping the FUSE descriptor");
    int pair[2] = {-1, -1};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return system_error("a socket pair for libfuse");
    answers_ = Descriptor(pair[0]);
    Descriptor library_end(pair[1]);
    for (const int fd : {pair[0], pair[1]}) {
        enlarge_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF);
        enlarge_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF);
    }
    // A reply that does not fit would be a hung caller: find out now what does.
    reply_bytes_max_ = reply_bytes_wanted;
    while (!carries(library_end.get(), answers_.get(), reply_bytes_max_, receive_buffer_)) {
        reply_bytes_max_ /= 2;
        if (reply_bytes_max_ < reply_bytes_needed)
            return Error{EMSGSIZE,
                         "the socket pair for libfuse carries less than 64 KiB at once; raise net.core.wmem_max"};
    }
    receive_buffer_.resize(reply_bytes_max_ + 1);
    if (dup3(library_end.get(), library_fd, O_CLOEXEC) < 0) return system_error("handing libfuse its socket");
    return {};
}

Result<std::vector<std::byte>> Session::receive_answer() {
    const ssize_t count = recv(answers_.get(), receive_buffer_.data(), receive_buffer_.size(), MSG_DONTWAIT);
    if (count < 0 && errno == EAGAIN) return std::vector<std::byte>{};
    if (count < 0) return system_error("libfuse's answer");
    return std::vector<std::byte>(receive_buffer_.begin(), receive_buffer_.begin() + count);
}

Result<void> Session::answer_init() {
    std::vector<std::byte> request(lun::intake_header_bytes + lun::intake_payload_bytes_max);
    while (true) {
        pollfd ready{.fd = real_.get(), .events = POLLIN, .revents = 0};
        const int count = ::poll(&ready, 1, init_wait_ms);
        if (count < 0 && errno == EINTR) continue;
        if (count == 0) return Error{ETIMEDOUT, "the kernel has not sent its FUSE INIT request within 10 s"};
        const ssize_t size = read(real_.get(), request.data(), request.size());
        if (size < 0 && errno == EINTR) continue;
        if (size <= 0) return system_error("reading the FUSE INIT request");

        const auto bytes = std::span<const std::byte>(request).first(static_cast<std::size_t>(size));
        fuse_in_header header{};
        fuse_init_in offered{};
        // flags2 and what follows came with protocol 7.36; an older kernel's request ends before.
        std::vector<std::byte> padded(bytes.begin(), bytes.end());
        padded.resize(std::max(padded.size(), sizeof header + sizeof offered));
        if (!read_struct(bytes, 0, header) || header.opcode != FUSE_INIT || bytes.size() < sizeof header + 16 ||
            !read_struct(padded, sizeof header, offered))
            return Error{EPROTO, "the kernel's first FUSE request is not INIT"};

        fuse_buf buffer{};
        buffer.mem = padded.data();
        buffer.size = padded.size();
        fuse_session_process_buf(session_, &buffer);
        auto answer = receive_answer();
        if (!answer) return answer.error();
        fuse_out_header reply_header{};
        fuse_init_out reply{};
        if (!read_struct(*answer, 0, reply_header))
            return Error{EPROTO, "libfuse has not answered the FUSE INIT request"};
        if (reply_header.error != 0)
            return Error{-reply_header.error, "libfuse does not understand this kernel's FUSE protocol"};
        const std::size_t reply_size = answer->size() - sizeof reply_header;
        std::memcpy(&reply, answer->data() + sizeof reply_header, std::min(reply_size, sizeof reply));
        if (offered.major == reply.major) reply = edit_init_reply(reply, offered, options_, ring_depth_);
        std::vector<std::byte> edited =
            make_reply(header.unique, 0, bytes_of(reply).first(std::min(reply_size, sizeof reply)));
        if (write(real_.get(), edited.data(), edited.size()) != static_cast<ssize_t>(edited.size()))
            return system_error("answering the FUSE INIT request");
        if (offered.major != reply.major) continue;  // a newer kernel asks again with our major version
        init_request_.assign(bytes.begin(), bytes.end());
        init_reply_ = reply;
        log::debug("fuse", "protocol {}.{}, max_write {}, max_background {}, flags {:#x}", offered.major, offered.minor,
                   reply.max_write, reply.max_background, reply.flags);
        return {};
    }
}

bool Session::uses_rings() const { return (init_reply_.flags2 & fuse_over_io_uring_flags2) != 0; }

Result<Descriptor> Session::make_intake(bool first) {
    Descriptor intake;
    if (!first) {
        // A clone has its own table of pending requests, which spares the reactors a shared lock.
        Descriptor clone(open("/dev/fuse", O_RDWR | O_CLOEXEC));
        std::uint32_t master = static_cast<std::uint32_t>(real_.get());
        if (clone && ioctl(clone.get(), FUSE_DEV_IOC_CLONE, &master) == 0) intake = std::move(clone);
    }
    if (!intake) intake = real_.duplicate();
    if (!intake || !set_nonblocking(intake.get())) return system_error("a FUSE descriptor for a reactor");
    return intake;
}

std::vector<std::byte> Session::answer(std::span<const std::byte> request) {
    SRPFS_ASSERT(tree_ != nullptr);
    fuse_in_header header{};
    if (!read_struct(request, 0, header)) return {};
    if (const int error = check_for_libfuse(request); error != 0) return make_reply(header.unique, error);
    fuse_buf buffer{};
    buffer.mem = const_cast<std::byte*>(request.data());  // libfuse does not write to it
    buffer.size = request.size();
    fuse_session_process_buf(session_, &buffer);
    auto reply = receive_answer();
    if (!reply || reply->empty()) {
        log::error("fuse", "libfuse's answer to operation {} got lost; answering EIO", header.opcode);
        return make_reply(header.unique, EIO);
    }
    return std::move(*reply);
}

void Session::set_readahead() const {
    const unsigned kibibytes = options_.readahead_bytes.value_or(readahead_default) / 1024;
    const std::string path = fmt::format("/sys/class/bdi/0:{}/read_ahead_kb", connection_);
    const std::string text = std::to_string(kibibytes);
    const Descriptor file(connection_ != 0 ? open(path.c_str(), O_WRONLY | O_CLOEXEC) : -1);
    if (connection_ == 0) errno = ENOTSUP;
    if (file && write(file.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()))
        return log::debug("fuse", "the kernel reads {} KiB ahead of cached files", kibibytes);
    const std::string why =
        fmt::format("readahead={}K of cached files cannot be set ({}: {}); the kernel's default is used", kibibytes,
                    path, std::strerror(errno));
    if (options_.readahead_bytes)
        log::warning("fuse", "{}", why);
    else
        log::info("fuse", "{}", why);
}

// ---- the end ----

void Session::detach() {
    if (!std::exchange(mounted_, false)) return;
    if (umount2(options_.mountpoint.c_str(), MNT_DETACH) == 0 || errno == EINVAL || errno == ENOENT) return;
    if (errno != EPERM) {
        log::warning("fuse", "{}: cannot be unmounted: {}", options_.mountpoint, std::strerror(errno));
        return;
    }
    // Mounted with the help of fusermount3, so unmounted with it. On a thread of its own: it runs another program.
    std::thread([mountpoint = options_.mountpoint] {
        reactor::begin_thread("srpfs-unmount");
        std::string where = mountpoint;
        std::string program = "fusermount3", unmount = "-u", quiet = "-q", lazy = "-z", end = "--";
        char* arguments[] = {program.data(), unmount.data(), quiet.data(), lazy.data(),
                             end.data(),     where.data(),   nullptr};
        pid_t child = -1;
        int status = 0;
        if (posix_spawnp(&child, program.c_str(), nullptr, nullptr, arguments, environ) != 0 ||
            waitpid(child, &status, 0) != child || status != 0)
            log::warning("fuse", "{}: fusermount3 could not unmount it", mountpoint);
    }).detach();
}

bool Session::abort() {
    if (connection_ == 0) return false;
    const std::string path = fmt::format("/sys/fs/fuse/connections/{}/abort", connection_);
    const Descriptor file(open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (file && write(file.get(), "1", 1) == 1) return true;
    if (!mounted_) return false;
    return umount2(options_.mountpoint.c_str(), MNT_FORCE) == 0 || errno == EBUSY;  // aborts, even if it stays mounted
}

void Session::close(bool unmounted) {
    if (!session_) return;
    if (unmounted) mounted_ = false;
    detach();
    bool dead = unmounted;
    if (real_) {
        // libfuse gets its descriptor back; it must be the last one, or unmounting could wait for ourselves.
        dup3(real_.get(), fuse_session_fd(session_), O_CLOEXEC);
        pollfd state{.fd = real_.get(), .events = 0, .revents = 0};
        dead = ::poll(&state, 1, 0) == 1 && (state.revents & POLLERR) != 0;
        real_.reset();
    }
    answers_.reset();
    // On a dead connection this only closes and frees. On a living one it would unmount by name, and after detach()
    // that name may be somebody else's mount; closing the descriptor ends the connection as well.
    if (dead) fuse_session_unmount(session_);
    fuse_session_destroy(session_);
    session_ = nullptr;
    directories_.clear();
}

}  // namespace srpfs::fs
