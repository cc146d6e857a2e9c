// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The turn loop of one thread: mailbox, then every source in order, then timers; sleeps when a turn did nothing.
// Knows no FUSE and no RDMA.

#pragma once

#include <srpfs/base/count.h>
#include <srpfs/reactor/executor.h>
#include <srpfs/reactor/sleeper.h>
#include <srpfs/reactor/spin.h>
#include <srpfs/reactor/stepping_back.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace srpfs::reactor {

// Something a reactor polls: a fabric, a FUSE intake.
class Source {
public:
    virtual ~Source() = default;
    // Does a bounded batch of work without blocking; false when there was none.
    virtual bool poll() = 0;
    // End of the turn: hand over what was collected (doorbells, replies).
    virtual void flush() {}
    // About to sleep: arm notifications. False: do not sleep, poll again (something arrived meanwhile).
    virtual bool prepare_to_sleep() { return true; }
    // The descriptors that become readable when there is work; may change between turns. Appends to `fds`.
    virtual void sleep_on(std::vector<int>& fds) { (void)fds; }
    // Who waits for those descriptors, and for what else this source may get; nullptr: ppoll(2). One source of a
    // reactor at most has one. After all sources were asked for their descriptors.
    virtual Sleeper* sleeper() { return nullptr; }
    // After each sleep, before poll(): which of those descriptors are readable now. What is not among them need not be
    // looked at, which saves a system call.
    virtual void woken(std::span<const int> readable) { (void)readable; }
    // Other threads may have run since the last poll(), which this one has made room for instead of sleeping: what was
    // looked at in vain is worth another look.
    virtual void look_again() {}
};

class Reactor final : public Executor {
public:
    explicit Reactor(std::string name);
    ~Reactor() override;

    void add_source(Source& source);     // before run(), or on the reactor's thread; polled in the order added
    void remove_source(Source& source);  // on the reactor's thread

    void post(std::function<void()> work) override;
    TimerQueue& timers() override { return timers_; }

    // How long turns without work go on before the thread sleeps, as long as that helps (spin.h). Before run().
    void set_spin(Duration most) { spin_ = Spin(most); }

    void run();   // turns until stop(); the calling thread is the reactor's thread
    void stop();  // thread-safe; the current turn is finished
    [[nodiscard]] const std::string& name() const { return name_; }
    // Turns that took longer than 10 ms (architecture: a slow handler stalls its reactor).
    [[nodiscard]] std::uint64_t slow_turns() const { return slow_turns_; }
    // Turns in which there was something to do, and how often the thread has slept.
    [[nodiscard]] std::uint64_t busy_turns() const { return busy_turns_; }
    [[nodiscard]] std::uint64_t sleeps() const { return sleeps_; }

private:
    bool run_mailbox();
    bool step_back(Instant& now);
    void sleep();
    void tell_sources(std::span<const pollfd> polled, bool nothing_known);

    std::string name_;
    TimerQueue timers_;
    std::vector<Source*> sources_;
    std::mutex mailbox_mutex_;
    std::vector<std::function<void()>> mailbox_;  // guarded by mailbox_mutex_
    std::vector<std::function<void()>> mailbox_running_;
    int wake_fd_ = -1;
    std::vector<int> sleep_fds_;
    std::vector<int> readable_;
    std::vector<std::size_t> sleep_fds_end_;  // of each source's, in the order of sources_
    std::atomic<bool> mail_waiting_ = false;
    std::atomic<bool> stopping_ = false;
    Count slow_turns_, busy_turns_, sleeps_;
    Spin spin_{Duration::zero()};
    SteppingBack stepping_back_;
};

}  // namespace srpfs::reactor
