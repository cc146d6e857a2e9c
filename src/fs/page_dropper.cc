// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "page_dropper.h"

#include "request.h"

#include <srpfs/base/log.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <deque>
#include <mutex>
#include <utility>

#include <pthread.h>
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
    std::atomic<bool> stopping = false;  // may be read without it
    int fd = -1;
    reactor::Executor* control = nullptr;  // valid until stop()

    ~State() {
        if (fd >= 0) close(fd);
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

    static void* begin(void* argument) {
        auto* const given = static_cast<std::shared_ptr<State>*>(argument);
        const std::shared_ptr<State> self = std::move(*given);
        delete given;
        pthread_setname_np(pthread_self(), "srpfs-pages");
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
            lock.unlock();
            for (const lun::ByteRange& range : job.ranges)
                if (!stopping) tell(job.node, range);
            lock.lock();
            // Under the lock: stop() promises the executor's life.
            if (!stopping) job.executor->post(std::move(job.done));
        }
        // The connection ends with its last descriptor.
        if (--threads == 0) close(std::exchange(fd, -1));
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
        if (!expected) log::warning("fuse", "dropping pages was refused ({})", std::strerror(errno));
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
    state_->control->post([state = state_] {
        if (const int error = state->start_thread(); error != 0)
            log::warning("fuse", "no further thread to drop pages ({})", std::strerror(error));
    });
}

bool PageDropper::stop() {
    std::deque<State::Job> dropped;  // destroyed without the lock
    std::unique_lock lock(state_->mutex);
    state_->stopping = true;
    dropped.swap(state_->jobs);
    state_->changed.notify_all();
    return state_->changed.wait_for(lock, stop_time, [this] { return state_->threads == 0; });
}

}  // namespace srpfs::fs
