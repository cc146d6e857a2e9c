// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "notifier.h"

#include "request.h"

#include <srpfs/base/log.h>
#include <srpfs/reactor/thread.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>

#include <unistd.h>

namespace srpfs::fs {
namespace {

std::vector<std::byte> make_notification(int code, const fuse_notify_inval_inode_out& body) {
    fuse_out_header header{};
    header.len = sizeof header + sizeof body;
    header.error = code;  // unique 0: a notification, error is its code
    std::vector<std::byte> message(header.len);
    std::memcpy(message.data(), &header, sizeof header);
    std::memcpy(message.data() + sizeof header, &body, sizeof body);
    return message;
}

}  // namespace

struct Notifier::State {
    struct Job {
        std::vector<std::byte> message;
        reactor::Executor* executor = nullptr;  // set: a barrier, `work` is posted to it
        std::function<void()> work;
    };
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<Job> jobs;  // guarded by mutex, as everything below
    bool busy = false;
    bool stopping = false;
    bool ended = false;
    int fd = -1;  // the thread's own
    std::thread thread;

    void run() {
        reactor::begin_thread("srpfs-notify");
        std::unique_lock lock(mutex);
        while (true) {
            changed.wait(lock, [this] { return stopping || !jobs.empty(); });
            if (stopping) break;
            Job job = std::move(jobs.front());
            jobs.pop_front();
            if (job.executor) {
                job.executor->post(std::move(job.work));  // under the lock: stop() promises the executor's life
                continue;
            }
            busy = true;
            lock.unlock();
            tell(job.message);
            lock.lock();
            busy = false;
        }
        jobs.clear();
        close(fd);
        fd = -1;
        ended = true;
        changed.notify_all();
    }

    void tell(const std::vector<std::byte>& message) const {
        ssize_t written = 0;
        do {
            written = write(fd, message.data(), message.size());
        } while (written < 0 && errno == EINTR);
        // ENOENT: not cached, so nothing to correct. The others: unmounted.
        const bool expected = written >= 0 || errno == ENOENT || errno == ENODEV || errno == ENOTCONN ||
                              errno == EPERM || errno == ECONNABORTED || errno == EPIPE || errno == ECONNRESET;
        if (!expected) log::warning("fuse", "a notification was refused ({})", std::strerror(errno));
    }
};

Notifier::Notifier(int fd) : state_(std::make_shared<State>()) {
    state_->fd = fd;
    state_->thread = std::thread([state = state_] { state->run(); });
}

Notifier::~Notifier() { stop(); }

void Notifier::queue(std::vector<std::byte> message) {
    const std::lock_guard lock(state_->mutex);
    if (state_->stopping) return;
    // A directory that fills is told of once and not for each name.
    if (!state_->jobs.empty() && state_->jobs.back().message == message) return;
    state_->jobs.push_back({.message = std::move(message), .executor = nullptr, .work = {}});
    state_->changed.notify_all();
}

void Notifier::attributes_changed(NodeId node) {
    fuse_notify_inval_inode_out body{};
    body.ino = static_cast<std::uint64_t>(node);
    body.off = -1;  // attributes only
    queue(make_notification(FUSE_NOTIFY_INVAL_INODE, body));
}

void Notifier::after_delivery(reactor::Executor& executor, std::function<void()> work) {
    {
        const std::lock_guard lock(state_->mutex);
        if (!state_->stopping && (state_->busy || !state_->jobs.empty())) {
            state_->jobs.push_back({.message = {}, .executor = &executor, .work = std::move(work)});
            state_->changed.notify_all();
            return;
        }
    }
    work();
}

void Notifier::stop() {
    std::deque<State::Job> dropped;  // destroyed without the lock
    std::unique_lock lock(state_->mutex);
    if (!state_->thread.joinable()) return;
    state_->stopping = true;
    state_->changed.notify_all();
    dropped.swap(state_->jobs);
    if (state_->changed.wait_for(lock, std::chrono::seconds(1), [this] { return state_->ended; })) {
        lock.unlock();
        state_->thread.join();
    } else {
        log::warning("fuse", "the kernel holds a notification; its thread is left behind");
        state_->thread.detach();
    }
}

}  // namespace srpfs::fs
