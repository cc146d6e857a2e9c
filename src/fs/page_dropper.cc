// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "page_dropper.h"

#include "request.h"

#include <srpfs/base/log.h>
#include <srpfs/reactor/thread.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <utility>

#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <sys/uio.h>
#include <unistd.h>

namespace srpfs::fs {
namespace {

constexpr std::size_t stack_bytes = std::size_t{128} << 10;  // with memory_lock all of it is memory
constexpr auto idle_time = std::chrono::seconds(10);
constexpr auto stop_time = std::chrono::milliseconds(200);

}  // namespace

struct PageDropper::State : std::enable_shared_from_this<PageDropper::State> {
    struct Job {
        NodeId node;
        std::vector<lun::ByteRange> ranges;
        reactor::Executor* executor;
        std::function<void()> done;
    };
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<Job> jobs;  // guarded by mutex, as everything below
    unsigned threads = 0, idle = 0;
    bool starting = false;
    std::atomic<bool> stopping = false;    // may be read without it
    bool is_open = true;                   // the descriptor, in the program's table
    bool shares_table = false;             // a thread has none of its own
    int fd = -1;                           // its number, in every table
    reactor::Executor* control = nullptr;  // valid until stop()

    ~State() {
        if (is_open) close(fd);
    }

    // 0 or an errno. Control thread.
    int start_thread() {
        {
            const std::lock_guard lock(mutex);
            starting = false;
            if (stopping) return 0;
            ++threads;
        }
        pthread_attr_t attributes;
        int error = pthread_attr_init(&attributes);
        if (error == 0) {
            (void)pthread_attr_setstacksize(&attributes, stack_bytes);
            (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
            sigset_t all, before;
            sigfillset(&all);
            pthread_sigmask(SIG_SETMASK, &all, &before);
            auto* const self = new std::shared_ptr<State>(shared_from_this());
            pthread_t thread;
            error = pthread_create(&thread, &attributes, &State::begin, self);
            if (error != 0) delete self;
            pthread_sigmask(SIG_SETMASK, &before, nullptr);
            pthread_attr_destroy(&attributes);
        }
        if (error == 0) return 0;
        const std::lock_guard lock(mutex);
        --threads;  // those there are take its work
        return error;
    }

    // With the lock, and not stopping.
    void want_thread() {
        control->post([state = shared_from_this()] {
            if (const int error = state->start_thread(); error != 0)
                log::warning("fuse", "no further thread to drop pages ({})", std::strerror(error));
        });
    }

    // While this thread waits for a page nothing ends it, not even SIGKILL, and it would keep all that the program has
    // open: the requests the program had read would never be ended by the kernel, nor the page unlocked, and locks
    // stayed. So it has a table of its own, with nothing in it but its own descriptor and what wakes reactors.
    bool let_go_of_descriptors() const {
        constexpr const char* own_table = "/proc/thread-self/fd";
        if (access(own_table, R_OK | X_OK) != 0 || unshare(CLONE_FILES) != 0) return false;
        DIR* const table = opendir(own_table);
        if (!table) return true;
        while (const dirent* const entry = readdir(table)) {
            const int number = std::atoi(entry->d_name);
            char target[32] = {};
            if (entry->d_name[0] == '.' || number == fd || number == dirfd(table)) continue;
            if (readlinkat(dirfd(table), entry->d_name, target, sizeof target - 1) > 0 &&
                std::strcmp(target, "anon_inode:[eventfd]") == 0)
                continue;
            close(number);
        }
        closedir(table);
        return true;
    }

    static void* begin(void* argument) {
        auto* const given = static_cast<std::shared_ptr<State>*>(argument);
        const std::shared_ptr<State> self = std::move(*given);
        delete given;
        reactor::begin_thread("srpfs-pages");
        if (!self->let_go_of_descriptors()) {
            const std::lock_guard lock(self->mutex);
            self->shares_table = true;
        }
        self->run();
        return nullptr;
    }

    void run() {
        std::unique_lock lock(mutex);
        while (!stopping) {
            if (jobs.empty()) {
                ++idle;
                const bool woken = changed.wait_for(lock, idle_time, [this] { return stopping || !jobs.empty(); });
                --idle;
                if (!woken && threads > 1) break;
                continue;
            }
            Job job = std::move(jobs.front());
            jobs.pop_front();
            // The thread that was started last may have blocked as well.
            if (!jobs.empty() && idle == 0 && !std::exchange(starting, true)) want_thread();
            lock.unlock();
            for (const lun::ByteRange& range : job.ranges)
                if (!stopping) tell(job.node, range);
            lock.lock();
            // Under the lock: stop() promises the executor's life.
            if (!stopping) job.executor->post(std::move(job.done));
        }
        // The connection ends with its last descriptor.
        if (--threads == 0 && shares_table && std::exchange(is_open, false)) close(fd);
        changed.notify_all();
    }

    void tell(NodeId node, const lun::ByteRange& range) const {
        fuse_out_header header{};
        fuse_notify_inval_inode_out body{};
        header.len = sizeof header + sizeof body;
        header.error = FUSE_NOTIFY_INVAL_INODE;  // unique 0: a notification
        body.ino = static_cast<std::uint64_t>(node);
        constexpr auto last = static_cast<std::uint64_t>(INT64_MAX);
        body.off = static_cast<std::int64_t>(std::min(range.begin, last));
        // 0: to the end.
        body.len = range.end > last ? 0 : static_cast<std::int64_t>(range.end - range.begin);
        const iovec parts[2] = {{&header, sizeof header}, {&body, sizeof body}};
        ssize_t written = 0;
        do {
            written = writev(fd, parts, 2);
        } while (written < 0 && errno == EINTR);
        // ENOENT: the kernel knows nothing of the file. The others: unmounted.
        const bool expected = written >= 0 || errno == ENOENT || errno == ENODEV || errno == ENOTCONN ||
                              errno == EPERM || errno == ECONNABORTED || errno == EPIPE || errno == ECONNRESET;
        // The log may need a descriptor that this thread does not have.
        if (!expected && !stopping)
            control->post(
                [reason = errno] { log::warning("fuse", "dropping pages was refused ({})", std::strerror(reason)); });
    }
};

PageDropper::PageDropper(std::shared_ptr<State> state) : state_(std::move(state)) {}

PageDropper::~PageDropper() { stop(); }

Result<std::unique_ptr<PageDropper>> PageDropper::create(int fd, reactor::Executor& control) {
    auto state = std::make_shared<State>();
    state->fd = fd;
    state->control = &control;
    if (const int error = state->start_thread(); error != 0)
        return Error(error, "starting the thread that has the kernel drop pages");
    return std::unique_ptr<PageDropper>(new PageDropper(std::move(state)));
}

void PageDropper::drop(NodeId node, std::vector<lun::ByteRange> ranges, reactor::Executor& executor,
                       std::function<void()> done) {
    const std::lock_guard lock(state_->mutex);
    if (state_->stopping) return;
    state_->jobs.push_back({node, std::move(ranges), &executor, std::move(done)});
    state_->changed.notify_one();
    if (state_->jobs.size() <= state_->idle || std::exchange(state_->starting, true)) return;
    state_->want_thread();
}

bool PageDropper::stop() {
    std::deque<State::Job> dropped;  // destroyed without the lock
    std::unique_lock lock(state_->mutex);
    state_->stopping = true;
    dropped.swap(state_->jobs);
    state_->changed.notify_all();
    if (!state_->shares_table && std::exchange(state_->is_open, false)) close(state_->fd);
    return state_->changed.wait_for(lock, stop_time, [this] { return state_->threads == 0; });
}

}  // namespace srpfs::fs
