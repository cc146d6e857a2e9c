// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/reactor/timer_queue.h>

#include <srpfs/base/assert.h>

#include <algorithm>
#include <tuple>

namespace srpfs::reactor {

void Timer::arm_at(Instant when) {
    disarm();
    if (when != instant_never) queue_.insert(*this, when);
}

void Timer::arm_after(Duration delay) { arm_at(saturating_add(queue_.now(), delay)); }

void Timer::disarm() {
    if (armed()) queue_.erase(*this);
}

TimerQueue::~TimerQueue() { SRPFS_ASSERT(heap_.empty()); }

Instant TimerQueue::next_deadline() const { return heap_.empty() ? instant_never : heap_.front()->deadline_; }

void TimerQueue::advance_to(Instant instant) {
    now_ = std::max(now_, instant);
    // A callback may arm timers that are due at once; they fire in the next call, or this would not end.
    const std::uint64_t sequence_end = next_sequence_;
    while (!heap_.empty() && heap_.front()->deadline_ <= now_) {
        Timer* timer = heap_.front();
        if (timer->sequence_ >= sequence_end) break;
        erase(*timer);
        timer->on_expired_();
    }
}

namespace {
auto key(Instant deadline, std::uint64_t sequence) { return std::tuple(deadline, sequence); }
}  // namespace

void TimerQueue::insert(Timer& timer, Instant when) {
    timer.deadline_ = when;
    timer.sequence_ = next_sequence_++;
    heap_.push_back(&timer);
    place(heap_.size() - 1, &timer);
    sift_up(timer.position_);
}

void TimerQueue::erase(Timer& timer) {
    const std::size_t position = timer.position_;
    SRPFS_ASSERT(position < heap_.size() && heap_[position] == &timer);
    Timer* last = heap_.back();
    heap_.pop_back();
    timer.position_ = Timer::not_queued;
    if (last == &timer) return;
    place(position, last);
    sift_up(last->position_);
    sift_down(last->position_);
}

void TimerQueue::place(std::size_t position, Timer* timer) {
    heap_[position] = timer;
    timer->position_ = position;
}

void TimerQueue::sift_up(std::size_t position) {
    Timer* timer = heap_[position];
    while (position > 0) {
        const std::size_t parent = (position - 1) / 2;
        if (key(heap_[parent]->deadline_, heap_[parent]->sequence_) <= key(timer->deadline_, timer->sequence_)) break;
        place(position, heap_[parent]);
        position = parent;
    }
    place(position, timer);
}

void TimerQueue::sift_down(std::size_t position) {
    Timer* timer = heap_[position];
    while (true) {
        std::size_t child = 2 * position + 1;
        if (child >= heap_.size()) break;
        if (child + 1 < heap_.size() && key(heap_[child + 1]->deadline_, heap_[child + 1]->sequence_) <
                                            key(heap_[child]->deadline_, heap_[child]->sequence_))
            ++child;
        if (key(timer->deadline_, timer->sequence_) <= key(heap_[child]->deadline_, heap_[child]->sequence_)) break;
        place(position, heap_[child]);
        position = child;
    }
    place(position, timer);
}

}  // namespace srpfs::reactor
