// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "ring.h"

#include "killed.h"
#include "ring_entry.h"

#include <srpfs/base/assert.h>
#include <srpfs/base/log.h>

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <optional>
#include <utility>
#include <vector>

#include <liburing.h>
#include <poll.h>
#include <sys/uio.h>
#include <unistd.h>

namespace srpfs::fs {
namespace {

constexpr std::uint64_t descriptor_mark = UINT64_MAX;  // user data of the poll; an entry's is its index
constexpr std::uint64_t removal_mark = UINT64_MAX - 1;
constexpr std::uint64_t first_watch = std::uint64_t{1} << 32;  // and those that follow: of the reactor's descriptors
// A number may stand for another file than when its watch was made; so long may that go unnoticed.
constexpr auto watches_trusted = std::chrono::milliseconds(200);
// Pause between two attempts to hand over what the kernel does not take now.
constexpr auto refused_pause = std::chrono::milliseconds(1);
constexpr unsigned spare_places_least = 7;     // for watches
constexpr int descriptor_file = 0;             // its place in the table of registered files
constexpr unsigned register_tries_max = 1000;  // the answer to INIT is digested long before
constexpr std::size_t command_offset = 48;     // of an SQE; <linux/io_uring.h>: cmd[]
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
        const int reason = set_up(ring_, kept_places() + spare_places_least);
        open_ = reason == 0;
        return reason;
    }

    Result<void> start(int fd) override;
    unsigned poll(IntakeListener& listener, const Batch& most) override;
    bool answer(const ReplyTo& to, int error, std::span<const std::byte> body) override;
    void flush() override {
        if (open_ && io_uring_sq_ready(&ring_) > 0) enter();
    }
    [[nodiscard]] bool is_flushed() const override { return !open_ || io_uring_sq_ready(&ring_) == 0; }
    [[nodiscard]] bool prepare_to_sleep() override {
        if (!open_) return true;
        if (wants_kernel()) enter();
        return (!wants_kernel() || is_refused_) && io_uring_cq_ready(&ring_) == 0 && arrived_.empty();
    }
    void sleep_on(std::vector<int>&) override {}
    int wait_for(std::span<pollfd> polled, std::optional<Duration> most) override;
    [[nodiscard]] bool descriptor_is_ready() const override { return descriptor_ready_ || !open_; }
    void watch_descriptor() override;
    void close() override {
        if (std::exchange(open_, false)) io_uring_queue_exit(&ring_);
        watches_.clear();
        unwanted_.clear();
    }
    [[nodiscard]] bool is_open() const override { return open_; }
    [[nodiscard]] bool requester_was_killed(std::uint16_t slot) const override {
        fuse_in_header header{};
        std::memcpy(&header, entries_[slot].header.in_out, sizeof header);
        return entries_[slot].occupied && was_killed(header.pid);
    }

private:
    struct Entry {
        EntryHeader header{};
        bool occupied = false;  // by a request
    };

    struct Completion {
        std::uint64_t user_data;
        int result;
    };

    // A descriptor that the reactor sleeps on, watched by a poll of one event in the ring.
    struct Watch {
        int fd;
        std::uint64_t mark;  // user data of the poll; 0: it has come, or none was made
    };

    // Answers to hand over, requests to be copied to us, or completions the ring had no room for.
    [[nodiscard]] bool wants_kernel() const {
        constexpr unsigned work = IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW;
        return io_uring_sq_ready(&ring_) > 0 || (__atomic_load_n(ring_.sq.kflags, __ATOMIC_ACQUIRE) & work) != 0;
    }
    void enter();
    void check(int result);
    // Places that are there whenever they are needed: an entry has one at a time, and so has the poll of the
    // descriptor.
    [[nodiscard]] unsigned kept_places() const { return static_cast<unsigned>(entries_.size()) + 1; }
    io_uring_sqe& next_submission(std::uint8_t operation, std::uint64_t user_data);
    io_uring_sqe* spare_submission(std::uint8_t operation, std::uint64_t user_data);
    io_uring_sqe& command(unsigned index, EntryCommand command);
    int register_entry(unsigned index);
    void watch_anew(std::span<const pollfd> polled);
    bool watch(std::span<const pollfd> polled);
    void drop_watches(std::size_t from);
    void remove_unwanted();
    [[nodiscard]] bool are_watched() const;
    int look_at(std::span<pollfd> polled, std::optional<Duration> most);
    void wait(std::optional<Duration> most);
    int tell_readable(std::span<pollfd> polled) const;
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
    std::vector<Watch> watches_;           // of what the reactor slept on last, in that order
    std::vector<std::uint64_t> unwanted_;  // marks of others, which are to be removed
    std::vector<pollfd> looked_at_;
    std::uint64_t next_watch_ = first_watch;
    bool watches_are_new_ = false;  // made when nothing had happened since that may have closed a descriptor
    bool descriptor_ready_ = true;
    bool is_refused_ = false;  // the kernel has not taken what there is to hand over
    bool failure_told_ = false, loss_told_ = false;
};

// Once a turn, as a rule: hands over what is prepared, and has what has come copied to us. Never waits.
void KernelRing::enter() { check(io_uring_submit_and_get_events(&ring_)); }

void KernelRing::check(int result) {
    // EBUSY: completions first. EAGAIN: no memory just now.
    is_refused_ = result == -EAGAIN || result == -EBUSY;
    if (result >= 0 || result == -EINTR || is_refused_) return;
    if (!std::exchange(failure_told_, true))
        log::error("fuse", "io_uring_enter failed ({}); trying again", std::strerror(-result));
}

io_uring_sqe& KernelRing::next_submission(std::uint8_t operation, std::uint64_t user_data) {
    io_uring_sqe* submission = io_uring_get_sqe(&ring_);
    SRPFS_ASSERT(submission);
    std::memset(static_cast<void*>(submission), 0, 2 * sizeof *submission);
    submission->opcode = operation;
    submission->fd = descriptor_file;
    submission->flags = IOSQE_FIXED_FILE;
    submission->user_data = user_data;
    return *submission;
}

// A place for what can wait; the kept ones stay free. nullptr: there is none, even after asking the kernel to take what
// there is.
io_uring_sqe* KernelRing::spare_submission(std::uint8_t operation, std::uint64_t user_data) {
    if (io_uring_sq_space_left(&ring_) <= kept_places()) enter();
    return io_uring_sq_space_left(&ring_) > kept_places() ? &next_submission(operation, user_data) : nullptr;
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
    if (!open_ || !std::exchange(descriptor_ready_, false)) return;
    next_submission(IORING_OP_POLL_ADD, descriptor_mark).poll32_events = POLLIN;
}

unsigned KernelRing::poll(IntakeListener& listener, const Batch& most) {
    if (!open_) return 0;
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
        watches_are_new_ = false;
        return;
    }
    if (user_data >= first_watch) {
        const auto watch = std::find_if(watches_.begin(), watches_.end(),
                                        [user_data](const Watch& one) { return one.mark == user_data; });
        if (watch != watches_.end()) {
            watch->mark = 0;
            watches_are_new_ = false;
        }
        return;
    }
    watches_are_new_ = false;
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

// ---- sleep ----

// The polls live in the ring from one sleep to the next, so that a sleep is one system call, the one that hands over
// the answers as well. A poll of one event that has come is made again at the next sleep, and finds at once what was
// left unread.
int KernelRing::wait_for(std::span<pollfd> polled, std::optional<Duration> most) {
    if (watch(polled)) watches_are_new_ = false;
    if (!are_watched() || (is_refused_ && wants_kernel())) return look_at(polled, most);
    if (!watches_are_new_ && (!most || *most > watches_trusted)) {
        wait(watches_trusted);
        if (io_uring_cq_ready(&ring_) > 0 || wants_kernel()) return tell_readable(polled);
        if (most) *most -= watches_trusted;
        watch_anew(polled);
        if (!are_watched()) return look_at(polled, most);
    }
    wait(most);
    // A timer that has expired may close descriptors.
    if (io_uring_cq_ready(&ring_) == 0) watches_are_new_ = false;
    return tell_readable(polled);
}

// True: they are not the ones of the last sleep. Some may find no place, see are_watched().
bool KernelRing::watch(std::span<const pollfd> polled) {
    std::size_t same = 0;
    while (same < std::min(polled.size(), watches_.size()) && watches_[same].fd == polled[same].fd) ++same;
    const bool changed = same < watches_.size() || same < polled.size();
    drop_watches(same);
    for (std::size_t i = same; i < polled.size(); ++i) watches_.push_back({polled[i].fd, 0});
    remove_unwanted();
    for (Watch& one : watches_) {
        if (one.mark != 0) continue;
        io_uring_sqe* const submission = spare_submission(IORING_OP_POLL_ADD, next_watch_);
        if (!submission) break;
        one.mark = next_watch_++;
        submission->fd = one.fd;
        submission->flags = 0;
        submission->poll32_events = POLLIN;
    }
    return changed;
}

// As many as there are places for; the others later.
void KernelRing::remove_unwanted() {
    for (; !unwanted_.empty(); unwanted_.pop_back()) {
        io_uring_sqe* const submission = spare_submission(IORING_OP_POLL_REMOVE, removal_mark);
        if (!submission) return;
        submission->fd = -1;
        submission->flags = IOSQE_CQE_SKIP_SUCCESS;
        submission->addr = unwanted_.back();
    }
}

bool KernelRing::are_watched() const {
    return std::all_of(watches_.begin(), watches_.end(), [](const Watch& one) { return one.mark != 0; });
}

// Beside the ring: what the kernel has not taken is tried again soon.
int KernelRing::look_at(std::span<pollfd> polled, std::optional<Duration> most) {
    looked_at_.assign(polled.begin(), polled.end());
    looked_at_.push_back({ring_.ring_fd, POLLIN, 0});
    timespec limit{};
    limit.tv_nsec = static_cast<long>(std::min<Duration>(most.value_or(refused_pause), refused_pause).count());
    const int ready = ppoll(looked_at_.data(), looked_at_.size(), &limit, nullptr);
    if (ready < 0) return ready;
    for (std::size_t i = 0; i < polled.size(); ++i) polled[i].revents = looked_at_[i].revents;
    return ready - (looked_at_.back().revents != 0 ? 1 : 0);
}

// Nothing that happens while nothing happens closes a descriptor: these can be trusted until something comes.
void KernelRing::watch_anew(std::span<const pollfd> polled) {
    drop_watches(0);
    remove_unwanted();
    enter();
    // What is told of the old ones is of no use; there is nothing else, and what comes now stays for poll().
    while (io_uring_cq_ready(&ring_) > 0) {
        const io_uring_cqe& next = ring_.cq.cqes[*ring_.cq.khead & *ring_.cq.kring_mask];
        if (next.user_data < first_watch || next.user_data == descriptor_mark) break;
        io_uring_cq_advance(&ring_, 1);
    }
    watch(polled);
    watches_are_new_ = true;
}

void KernelRing::drop_watches(std::size_t from) {
    for (std::size_t i = from; i < watches_.size(); ++i)
        if (watches_[i].mark != 0) unwanted_.push_back(watches_[i].mark);
    watches_.resize(std::min(from, watches_.size()));
}

void KernelRing::wait(std::optional<Duration> most) {
    int result = 0;
    if (most) {
        __kernel_timespec limit{};
        limit.tv_sec = std::chrono::duration_cast<std::chrono::seconds>(*most).count();
        limit.tv_nsec = (*most % std::chrono::seconds(1)).count();
        io_uring_cqe* first = nullptr;
        result = io_uring_submit_and_wait_timeout(&ring_, &first, 1, &limit, nullptr);
    } else {
        result = io_uring_submit_and_wait(&ring_, 1);
    }
    if (result != -ETIME) check(result);
}

// Completions stay where they are, for poll().
int KernelRing::tell_readable(std::span<pollfd> polled) const {
    int readable = 0;
    unsigned at = 0;
    io_uring_cqe* next = nullptr;
    io_uring_for_each_cqe(&ring_, at, next) {
        for (std::size_t i = 0; i < watches_.size() && next->user_data >= first_watch; ++i) {
            if (watches_[i].mark != next->user_data || polled[i].revents != 0) continue;
            // An error is something to look at as well.
            polled[i].revents = POLLIN;
            ++readable;
        }
    }
    return readable;
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
