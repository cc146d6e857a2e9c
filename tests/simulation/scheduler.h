// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// One thread that plays several: mailboxes, the network and the timers get their turns in an order drawn from a seed.

#pragma once

#include <srpfs/base/random.h>
#include <srpfs/fabric/loopback.h>
#include <srpfs/reactor/executor.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

namespace srpfs::simulation {

class Scheduler;

// A simulated thread: its mail is run one piece at a time, in the order posted.
class SimulatedExecutor final : public reactor::Executor {
public:
    explicit SimulatedExecutor(Scheduler& scheduler);
    void post(std::function<void()> work) override;
    reactor::TimerQueue& timers() override;

    [[nodiscard]] Instant next_mail() const { return mail_.empty() ? instant_never : mail_.front().ready_at; }
    void run_one();

private:
    struct Mail {
        std::function<void()> work;
        Instant ready_at{};
    };
    Scheduler& scheduler_;
    std::deque<Mail> mail_;
    Instant last_ready_{};
};

// Something else that has work now and then.
class SimulatedSource {
public:
    virtual bool is_ready() = 0;
    virtual void turn() = 0;
    // Somebody has had a turn: mail of `thread` was run, if that is not nullptr.
    virtual void after_step(const SimulatedExecutor* thread) = 0;

protected:
    ~SimulatedSource() = default;
};

class Scheduler {
public:
    explicit Scheduler(std::uint64_t seed) : timers(Instant{}), random_(seed) {}

    // Does one thing that is due, or moves the time to the next thing. False: nothing will ever happen again.
    bool step();
    // Turns until the queues are empty at the present instant.
    void settle();
    void advance(Duration duration);
    // As if the machine had slept: the time moves on at the next step, and whatever had a deadline on the way meets it
    // late and before anything that has arrived meanwhile.
    void jump(Duration duration) { jump_ += duration; }
    [[nodiscard]] Duration jumped() const { return jumped_; }  // so far, in all
    // Turns until `done` or until `limit` has passed; false in the latter case or when nothing happens any more.
    bool run_until(const std::function<bool()>& done, Duration limit);

    reactor::TimerQueue timers;
    fabric::Fabric* fabric = nullptr;
    std::vector<SimulatedSource*> sources;
    Duration mail_lag_max{};  // how long a piece of mail may lie about
    std::uint64_t steps = 0;

private:
    friend class SimulatedExecutor;
    bool step_now();
    void advance_to(Instant instant);
    void tell_sources(const SimulatedExecutor* thread = nullptr);
    [[nodiscard]] Instant next_instant() const;

    Random random_;
    Duration jump_{}, jumped_{};
    std::vector<SimulatedExecutor*> executors_;
};

}  // namespace srpfs::simulation
