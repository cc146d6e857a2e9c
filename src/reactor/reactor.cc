// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/reactor/reactor.h>

#include <srpfs/base/assert.h>
#include <srpfs/base/log.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

namespace srpfs::reactor {
namespace {

Instant clock_now() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return Instant(std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec));
}

constexpr auto slow_turn = std::chrono::milliseconds(10);

// Leaves the processor's other thread its share.
void pause_briefly() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

int wait_for_readable(std::span<pollfd> polled, std::optional<Duration> most) {
    timespec timeout{};
    if (most) {
        timeout.tv_sec = std::chrono::duration_cast<std::chrono::seconds>(*most).count();
        timeout.tv_nsec = static_cast<long>((*most % std::chrono::seconds(1)).count());
    }
    return ppoll(polled.data(), polled.size(), most ? &timeout : nullptr, nullptr);
}

}  // namespace

Reactor::Reactor(std::string name) : name_(std::move(name)), timers_(clock_now()) {
    wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    SRPFS_ASSERT(wake_fd_ >= 0);
}

Reactor::~Reactor() { close(wake_fd_); }

void Reactor::add_source(Source& source) { sources_.push_back(&source); }

void Reactor::remove_source(Source& source) { std::erase(sources_, &source); }

void Reactor::post(std::function<void()> work) {
    {
        const std::lock_guard lock(mailbox_mutex_);
        mailbox_.push_back(std::move(work));
    }
    if (!mail_waiting_.exchange(true)) {
        const std::uint64_t one = 1;
        [[maybe_unused]] const auto written = write(wake_fd_, &one, sizeof one);
    }
}

void Reactor::stop() {
    stopping_ = true;
    post([] {});
}

bool Reactor::run_mailbox() {
    if (!mail_waiting_.load(std::memory_order_acquire)) return false;
    std::uint64_t count = 0;
    [[maybe_unused]] const auto drained = read(wake_fd_, &count, sizeof count);
    mail_waiting_.store(false);
    {
        const std::lock_guard lock(mailbox_mutex_);
        mailbox_running_.swap(mailbox_);
    }
    for (auto& work : mailbox_running_) work();
    const bool did_something = !mailbox_running_.empty();
    mailbox_running_.clear();
    return did_something;
}

void Reactor::run() {
    Instant turn_start = clock_now();
    bool stepped_back = false;  // before this turn, so that sleeping is what is put off
    while (!stopping_.load(std::memory_order_relaxed)) {
        timers_.advance_to(turn_start);
        bool worked = run_mailbox();
        unsigned sources_worked = 0;
        // Sources may be removed by what they call.
        for (std::size_t i = 0; i < sources_.size(); ++i)
            if (sources_[i]->poll()) sources_worked |= 1U << std::min<std::size_t>(i, 31);
        worked = worked || sources_worked != 0;
        for (std::size_t i = 0; i < sources_.size(); ++i) sources_[i]->flush();
        if (worked) {
            stepped_back = false;
            ++busy_turns_;
            spin_.on_work(turn_start);
            stepping_back_.on_work(turn_start, sources_worked);
            const Instant turn_end = clock_now();
            if (turn_end - turn_start > slow_turn) ++slow_turns_;
            turn_start = turn_end;
            continue;
        }
        if (!std::exchange(stepped_back, false) && spin_.goes_on(turn_start)) {
            pause_briefly();
            turn_start = clock_now();
            continue;
        }
        if ((stepped_back = step_back(turn_start))) continue;
        ++sleeps_;
        sleep();
        turn_start = clock_now();
    }
    timers_.advance_to(clock_now());
    run_mailbox();
}

// True: others have run, until the new `now`.
bool Reactor::step_back(Instant& now) {
    while (stepping_back_.wants(now)) {
        sched_yield();
        const Instant before = std::exchange(now, clock_now());
        if (now - before < SteppingBack::short_step) continue;
        for (Source* source : sources_) source->look_again();
        return true;
    }
    return false;
}

void Reactor::tell_sources(std::span<const pollfd> polled, bool nothing_known) {
    std::size_t at = 1;
    for (std::size_t source = 0; source < sources_.size(); ++source) {
        readable_.clear();
        for (; at < sleep_fds_end_[source]; ++at)
            if (nothing_known || polled[at].revents != 0) readable_.push_back(polled[at].fd);
        sources_[source]->woken(readable_);
    }
}

void Reactor::sleep() {
    for (Source* source : sources_)
        if (!source->prepare_to_sleep()) return;
    sleep_fds_.assign(1, wake_fd_);
    sleep_fds_end_.clear();
    for (Source* source : sources_) {
        source->sleep_on(sleep_fds_);
        sleep_fds_end_.push_back(sleep_fds_.size());
    }

    // The set of descriptors is small and changes with connections; poll(2) needs no bookkeeping for that.
    thread_local std::vector<pollfd> polled;
    polled.clear();
    for (const int fd : sleep_fds_) polled.push_back({fd, POLLIN, 0});

    Sleeper* sleeper = nullptr;
    for (Source* source : sources_)
        if (Sleeper* const own = source->sleeper()) sleeper = own;
    std::optional<Duration> most;
    if (const Instant deadline = timers_.next_deadline(); deadline != instant_never)
        most = std::max(Duration::zero(), deadline - clock_now());
    const int ready = sleeper ? sleeper->wait_for(polled, most) : wait_for_readable(polled, most);
    if (ready > 0 && polled[0].revents != 0) {
        // A turn may have taken the mail before its sender wrote the wake-up; left there, it would keep us from
        // sleeping.
        std::uint64_t count = 0;
        [[maybe_unused]] const auto drained = read(wake_fd_, &count, sizeof count);
    }
    if (ready < 0 && errno != EINTR) log::error(name_, "poll failed ({}); trying again", std::strerror(errno));
    tell_sources(polled, ready < 0);
}

}  // namespace srpfs::reactor
