// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "undisturbed.h"

#include <sched.h>
#include <sys/resource.h>

namespace srpfs::fs {
namespace {

constexpr int lowest_real_time_priority = 1;  // what sched_get_priority_min(SCHED_FIFO) says, by a system call

class KernelScheduling final : public Scheduling {
public:
    bool is_ordinary() override { return (sched_getscheduler(0) & ~SCHED_RESET_ON_FORK) == SCHED_OTHER; }
    std::uint64_t involuntary_switches() override {
        rusage usage{};
        getrusage(RUSAGE_THREAD, &usage);
        return static_cast<std::uint64_t>(usage.ru_nivcsw);
    }
    bool set_real_time(bool real_time) override {
        // The time is counted from one sleep as a real-time thread to the next, and we never sleep as one: in the end
        // we would be killed.
        rlimit limit{};
        if (real_time && (getrlimit(RLIMIT_RTTIME, &limit) != 0 || limit.rlim_cur != RLIM_INFINITY)) return false;
        sched_param parameters{};
        parameters.sched_priority = real_time ? lowest_real_time_priority : 0;
        // What is started meanwhile is no real-time thread. Taking the flag back would need a privilege.
        const int policy = (real_time ? SCHED_FIFO : SCHED_OTHER) | SCHED_RESET_ON_FORK;
        return sched_setscheduler(0, policy, &parameters) == 0;
    }
};

}  // namespace

Scheduling& kernel_scheduling() {
    static KernelScheduling scheduling;
    return scheduling;
}

void Undisturbed::begin() {
    if (is_forbidden_) return;
    is_under_way_ = true;
    if (is_measuring_) {
        switches_before_ = scheduling_.involuntary_switches();
    } else if (pays_) {
        is_raised_ = scheduling_.set_real_time(true);
        is_forbidden_ = !is_raised_;
    }
}

void Undisturbed::end() {
    is_under_way_ = false;
    answers_seen_ += answers_;
    if (is_raised_) {
        is_raised_ = false;
        (void)scheduling_.set_real_time(false);  // giving up a privilege needs none
    }
    if (is_measuring_) {
        switches_ += scheduling_.involuntary_switches() - switches_before_;
        if (answers_seen_ < measured) return;
        // Whoever has made srpfs a real-time program, or one of less worth, has his reasons.
        pays_ = switches_ * 4 >= answers_seen_ && scheduling_.is_ordinary();
        is_measuring_ = false;
        answers_seen_ = switches_ = 0;
    } else if (answers_seen_ >= (pays_ ? done_for : left_for)) {
        is_measuring_ = true;
        answers_seen_ = 0;
    }
}

}  // namespace srpfs::fs
