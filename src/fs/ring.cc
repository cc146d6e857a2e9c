// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "ring.h"

#include "ring_entry.h"

#include <srpfs/base/assert.h>
#include <srpfs/base/log.h>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <optional>
#include <utility>
#include <vector>

#include <liburing.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

namespace srpfs::fs {
namespace {

constexpr std::uint64_t descriptor_mark = UINT64_MAX;  // user data of the poll; an entry's is its index
constexpr int descriptor_file = 0;                     // its place in the table of registered files
constexpr unsigned register_tries_max = 1000;          // the answer to INIT is digested long before
constexpr std::size_t command_offset = 48;             // of an SQE; <linux/io_uring.h>: cmd[]
constexpr const char* enable_uring = "/sys/module/fuse/parameters/enable_uring";

std::string first_line(const char* path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

// Sets up a ring that its user enables, so that it can be made on another thread. 0 or a positive errno.
int set_up(io_uring& ring, unsigned submissions) {
    constexpr unsigned always =
        IORING_SETUP_SQE128 | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE | IORING_SETUP_R_DISABLED;
    int result = 0;
    for (const unsigned more : {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
                                IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, 0U}) {
        io_uring_params parameters{};
        parameters.flags = always | more;
        parameters.cq_entries = 2 * submissions;
        result = io_uring_queue_init_params(submissions, &ring, &parameters);
        if (result != -EINVAL) break;
    }
    return -result;
}

std::string explain_no_ring(int errno_value) {
    const std::string disabled = first_line("/proc/sys/kernel/io_uring_disabled");
    switch (errno_value) {
        case EPERM:
        case EACCES:
            if (!disabled.empty() && disabled != "0")
                return fmt::format("io_uring is disabled (kernel.io_uring_disabled is {})", disabled);
            return "io_uring is not permitted (a security policy, such as seccomp)";
        case ENOSYS: return "this kernel has no io_uring, or a security policy hides it";
        case EINVAL: return "this kernel's io_uring is too old";
        case ENOMEM: return "there is no memory for a ring, or the limit of locked memory (ulimit -l) is too low";
        default: return fmt::format("a ring cannot be made ({})", std::strerror(errno_value));
    }
}

class KernelRing final : public Ring {
public:
    KernelRing(lun::Engine& engine, unsigned queues) : engine_(engine), queues_(queues), entries_(engine.entries()) {}
    ~KernelRing() override { KernelRing::close(); }
    KernelRing(const KernelRing&) = delete;
    KernelRing& operator=(const KernelRing&) = delete;

    // 0 or a positive errno.
    int make() {
        const int reason = set_up(ring_, static_cast<unsigned>(entries_.size()) + 8);
        open_ = reason == 0;
        return reason;
    }

    Result<void> start(int fd) override;
    unsigned poll(IntakeListener& listener, const Batch& most) override;
    bool answer(const ReplyTo& to, int error, std::span<const std::byte> body) override;
    void flush() override {
        if (open_ && io_uring_sq_ready(&ring_) > 0) enter();
    }
    [[nodiscard]] bool prepare_to_sleep() override {
        if (!open_) return true;
        // From here on it signals, whenever work comes to an empty list of it; what came before shows in the flags.
        io_uring_cq_eventfd_toggle(&ring_, true);
        asleep_ = true;
        std::atomic_thread_fence(std::memory_order_seq_cst);
        if (wants_kernel()) enter();
        return !wants_kernel() && io_uring_cq_ready(&ring_) == 0 && arrived_.empty();
    }
    void sleep_on(std::vector<int>& fds) override {
        if (open_) fds.push_back(wake_fd_);
    }
    [[nodiscard]] bool descriptor_is_ready() const override { return descriptor_ready_ || !open_; }
    void watch_descriptor() override;
    void close() override {
        if (std::exchange(open_, false)) io_uring_queue_exit(&ring_);
        if (wake_fd_ >= 0) ::close(std::exchange(wake_fd_, -1));
    }
    [[nodiscard]] bool is_open() const override { return open_; }

private:
    struct Entry {
        EntryHeader header{};
        bool occupied = false;  // by a request
    };

    struct Completion {
        std::uint64_t user_data;
        int result;
    };

    // Answers to hand over, requests to be copied to us, or completions the ring had no room for.
    [[nodiscard]] bool wants_kernel() const {
        constexpr unsigned work = IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW;
        return io_uring_sq_ready(&ring_) > 0 || (__atomic_load_n(ring_.sq.kflags, __ATOMIC_ACQUIRE) & work) != 0;
    }
    void enter();
    io_uring_sqe& next_submission(std::uint8_t operation, std::uint64_t user_data);
    io_uring_sqe& command(unsigned index, EntryCommand command);
    int register_entry(unsigned index);
    std::optional<Completion> next_completion();
    void on_completed(std::uint64_t user_data, int result, IntakeListener& listener);
    void on_arrived(unsigned index, IntakeListener& listener);

    lun::Engine& engine_;
    const unsigned queues_;
    std::vector<Entry> entries_;
    std::vector<std::byte> scratch_;
    std::vector<unsigned> arrived_;  // while entries were being registered
    std::size_t bytes_taken_ = 0;    // by the poll() under way
    io_uring ring_{};
    bool open_ = false;
    // The ring's own descriptor does not wake a poll() when work comes that is left to our thread (DEFER_TASKRUN).
    int wake_fd_ = -1;
    bool asleep_ = false;
    bool descriptor_ready_ = true;
    bool failure_told_ = false, loss_told_ = false;
};

// Once a turn, as a rule: hands over what is prepared, and has what has come copied to us. Never waits.
void KernelRing::enter() {
    const int result = io_uring_submit_and_get_events(&ring_);
    // EBUSY: completions first.
    if (result >= 0 || result == -EINTR || result == -EAGAIN || result == -EBUSY) return;
    if (!std::exchange(failure_told_, true))
        log::error("fuse", "io_uring_enter failed ({}); trying again", std::strerror(-result));
}

io_uring_sqe& KernelRing::next_submission(std::uint8_t operation, std::uint64_t user_data) {
    io_uring_sqe* submission = io_uring_get_sqe(&ring_);
    SRPFS_ASSERT(submission);  // there are more places than entries, and an entry has one at a time
    std::memset(static_cast<void*>(submission), 0, 2 * sizeof *submission);
    submission->opcode = operation;
    submission->fd = descriptor_file;
    submission->flags = IOSQE_FIXED_FILE;
    submission->user_data = user_data;
    return *submission;
}

io_uring_sqe& KernelRing::command(unsigned index, EntryCommand command) {
    io_uring_sqe& submission = next_submission(IORING_OP_URING_CMD, index);
    submission.cmd_op = static_cast<std::uint32_t>(command);
    const EntryCommandArguments arguments{.commit_id = entries_[index].header.state.commit_id,
                                          .queue = static_cast<std::uint16_t>(index % queues_)};
    std::memcpy(reinterpret_cast<std::byte*>(&submission) + command_offset, &arguments, sizeof arguments);
    return submission;
}

std::optional<KernelRing::Completion> KernelRing::next_completion() {
    if (!open_ || io_uring_cq_ready(&ring_) == 0) return std::nullopt;
    const io_uring_cqe& next = ring_.cq.cqes[*ring_.cq.khead & *ring_.cq.kring_mask];
    const Completion completion{next.user_data, next.res};
    io_uring_cq_advance(&ring_, 1);
    return completion;
}

// ---- start ----

// 0 or a positive errno. The kernel says nothing of one that it takes, until a request comes.
int KernelRing::register_entry(unsigned index) {
    const auto payload = engine_.entry(index);
    iovec parts[2] = {{&entries_[index].header, sizeof(EntryHeader)}, {payload.data(), payload.size()}};
    int result = 0;
    for (unsigned tries = 0; tries < register_tries_max; ++tries) {
        io_uring_sqe& submission = command(index, EntryCommand::register_entry);
        submission.addr = reinterpret_cast<std::uintptr_t>(parts);
        submission.len = 2;
        enter();
        result = 0;
        while (const auto completion = next_completion()) {
            if (completion->result == 0)
                arrived_.push_back(static_cast<unsigned>(completion->user_data));
            else if (completion->user_data == index)
                result = -completion->result;
        }
        if (result != EAGAIN) break;
    }
    return result;
}

Result<void> KernelRing::start(int fd) {
    const auto refused = [this](const char* what, int reason) {
        close();
        return Error(reason, fmt::format("{} ({})", what, std::strerror(reason)));
    };
    // liburing 2.3 declares io_uring_enable_rings() but does not export it.
    if (const int result =
            io_uring_register(static_cast<unsigned>(ring_.ring_fd), IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
        result < 0)
        return refused("the ring cannot be enabled", -result);
    wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_fd_ < 0) return refused("no eventfd for the ring", errno);
    if (const int result = io_uring_register_eventfd(&ring_, wake_fd_); result < 0)
        return refused("the ring does not take an eventfd", -result);
    io_uring_cq_eventfd_toggle(&ring_, false);
    (void)io_uring_register_ring_fd(&ring_);  // spares a look-up at each call
    if (const int result = io_uring_register_files(&ring_, &fd, 1); result < 0)
        return refused("the ring does not take the FUSE descriptor", -result);
    // The kernel begins to use rings when each queue has an entry. A refusal before that sends everything to the
    // descriptor; one that comes later only means fewer entries.
    for (unsigned index = 0; index < entries_.size(); ++index) {
        const int reason = register_entry(index);
        if (reason == 0) continue;
        if (index < queues_) return refused("the kernel refuses the entries", reason);
        log::warning("fuse", "the kernel takes only {} of {} ring entries ({})", index, entries_.size(),
                     std::strerror(reason));
        break;
    }
    return {};
}

// ---- work ----

void KernelRing::watch_descriptor() {
    if (!open_) return;
    descriptor_ready_ = false;
    next_submission(IORING_OP_POLL_ADD, descriptor_mark).poll32_events = POLLIN;
}

unsigned KernelRing::poll(IntakeListener& listener, const Batch& most) {
    if (!open_) return 0;
    if (std::exchange(asleep_, false)) {
        io_uring_cq_eventfd_toggle(&ring_, false);
        std::uint64_t count = 0;
        [[maybe_unused]] const auto drained = read(wake_fd_, &count, sizeof count);
    }
    if (wants_kernel()) enter();
    unsigned taken = 0;
    bytes_taken_ = 0;
    for (; taken < most.requests && bytes_taken_ < most.bytes && !arrived_.empty(); ++taken) {
        const unsigned index = arrived_.back();
        arrived_.pop_back();
        on_arrived(index, listener);
    }
    while (taken < most.requests && bytes_taken_ < most.bytes) {
        const auto completion = next_completion();
        if (!completion) break;
        on_completed(completion->user_data, completion->result, listener);
        ++taken;
    }
    return taken;
}

void KernelRing::on_completed(std::uint64_t user_data, int result, IntakeListener& listener) {
    if (user_data == descriptor_mark) {
        descriptor_ready_ = true;
        return;
    }
    SRPFS_ASSERT(user_data < entries_.size());
    if (result == 0) [[likely]]
        return on_arrived(static_cast<unsigned>(user_data), listener);
    // At the end of the mount they all come back so; the descriptor tells.
    if (result == -ENOTCONN || result == -ECONNABORTED || result == -ECANCELED) return;
    if (!std::exchange(loss_told_, true))
        log::warning("fuse", "a ring entry is lost ({}); there are fewer from now on", std::strerror(-result));
}

void KernelRing::on_arrived(unsigned index, IntakeListener& listener) {
    Entry& entry = entries_[index];
    SRPFS_ASSERT(!entry.occupied);
    entry.occupied = true;
    auto request = request_in_entry(entry.header, engine_.entry(index), scratch_);
    if (!request) [[unlikely]] {
        fuse_in_header header{};
        std::memcpy(&header, entry.header.in_out, sizeof header);
        log::warning("fuse", "a request of operation {} in a ring entry has lengths that do not agree", header.opcode);
        answer({.unique = header.unique, .slot = static_cast<std::uint16_t>(index)}, EIO, {});
        return;
    }
    request->slot = static_cast<std::uint16_t>(index);
    bytes_taken_ += data_bytes(*request);
    listener.on_incoming(*request);
}

bool KernelRing::answer(const ReplyTo& to, int error, std::span<const std::byte> body) {
    if (!open_) return false;
    Entry& entry = entries_[to.slot];
    SRPFS_ASSERT(entry.occupied);
    const auto payload = engine_.entry(to.slot);
    if (error != 0) body = {};
    if (body.size() > payload.size()) [[unlikely]] {
        error = EIO;
        body = {};
    }
    if (!body.empty() && !engine_.is_in_entry(to.slot, body)) std::memcpy(payload.data(), body.data(), body.size());
    put_answer(entry.header, to.unique, error, static_cast<std::uint32_t>(body.size()));
    entry.occupied = false;
    (void)command(to.slot, EntryCommand::commit_and_fetch);
    return true;
}

}  // namespace

unsigned ring_queues() {
    // "0-3,8-11": the numbers of the kernel's queues are those of CPUs, so what counts is how many there may be.
    const std::string possible = first_line("/sys/devices/system/cpu/possible");
    unsigned count = 0, first = 0, last = 0;
    const char* at = possible.data();
    const char* const end = at + possible.size();
    while (at < end) {
        const auto begin = std::from_chars(at, end, first);
        if (begin.ec != std::errc{}) break;
        at = begin.ptr;
        last = first;
        if (at < end && *at == '-') {
            const auto until = std::from_chars(at + 1, end, last);
            if (until.ec != std::errc{} || last < first) break;
            at = until.ptr;
        }
        count += last - first + 1;
        if (at < end && *at == ',') ++at;
    }
    if (count == 0) count = static_cast<unsigned>(std::max(1L, sysconf(_SC_NPROCESSORS_CONF)));
    return count;
}

std::string ring_obstacle() {
    io_uring ring{};
    if (const int reason = set_up(ring, 8); reason != 0) return explain_no_ring(reason);
    io_uring_queue_exit(&ring);
    // Where the module is not loaded yet, mounting loads it, and INIT tells.
    if (access("/sys/module/fuse", F_OK) != 0) return {};
    if (access(enable_uring, F_OK) != 0)
        return "this kernel's FUSE has no io_uring (Linux 6.14 and later have it, if configured so)";
    if (first_line(enable_uring) != "Y")
        return fmt::format("the kernel does not offer it (root can change that: echo Y > {})", enable_uring);
    return {};
}

Result<std::unique_ptr<Ring>> make_ring(lun::Engine& engine, unsigned queues) {
    SRPFS_ASSERT(queues > 0 && engine.entries() % queues == 0 && engine.entries() < no_slot);
    auto ring = std::make_unique<KernelRing>(engine, queues);
    if (const int reason = ring->make(); reason != 0) return Error(reason, explain_no_ring(reason));
    return std::unique_ptr<Ring>(std::move(ring));
}

}  // namespace srpfs::fs
