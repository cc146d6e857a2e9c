// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The bookkeeping of one send queue: which entries are taken, which of them ask for a completion, which message slots
// are free. A queue completes its entries in order, so one completion frees all entries before it, and most messages
// need none of their own.
//
// Pure; owned by a connection.

#pragma once

#include <srpfs/base/assert.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <optional>
#include <vector>

namespace srpfs::fabric::verbs {

class SendLedger {
public:
    enum class Kind : std::uint8_t { message, rdma_read, rdma_write, bind, invalidate };

    // `messages_max` >= 1 messages and `rdma_max` one-sided operations can be under way at the same time, and each of
    // `windows_max` windows be bound and invalidated.
    SendLedger(unsigned messages_max, unsigned rdma_max, unsigned windows_max = 0)
        : signal_interval_(std::clamp(messages_max / 4, 1u, 16u)), slots_(messages_max + signal_interval_ - 1),
          rdma_max_(rdma_max), windows_max_(windows_max), records_(std::bit_ceil(entries())) {
        SRPFS_ASSERT(messages_max > 0);
    }

    // Entries the send queue has to have. It cannot overflow, whatever is taken here.
    [[nodiscard]] unsigned entries() const { return slots_ + rdma_max_ + 2 * windows_max_; }
    // Message slots to allocate: a few more than messages_max, because up to signal_interval() - 1 messages at the end
    // may have left without our knowing it.
    [[nodiscard]] unsigned slots() const { return slots_; }
    [[nodiscard]] unsigned signal_interval() const { return signal_interval_; }

    struct Entry {
        std::uint64_t ordinal;  // to give to completed()
        unsigned slot;          // messages only: where its bytes go, untouched until the entry is completed
        bool signalled;
        bool fenced;  // must wait for the reads before it
    };

    // nullopt: full.
    std::optional<Entry> take_message() {
        if (messages_ == slots_) return std::nullopt;
        ++messages_;
        const bool signalled = ++unsignalled_ >= signal_interval_;
        if (signalled) unsignalled_ = 0;
        const auto slot = static_cast<unsigned>(next_message_++ % slots_);
        return Entry{put({0, Kind::message}), slot, signalled, reads_ > 0};
    }
    // Always signalled: `context` comes back from completed(). A read followed by a write of the same bytes is the
    // caller's to order; only messages are fenced.
    std::optional<Entry> take_rdma(Kind kind, std::uint64_t context) {
        if (rdma_ == rdma_max_) return std::nullopt;
        ++rdma_;
        if (kind == Kind::rdma_read) ++reads_;
        unsignalled_ = 0;
        return Entry{put({context, kind}), 0, true, false};
    }

    // Of a window that is free, which it is again once its invalidation has completed: so never too many.
    Entry take_bind() { return {put({0, Kind::bind}), 0, false, false}; }
    Entry take_invalidate(std::uint64_t context) {
        unsignalled_ = 0;
        return {put({context, Kind::invalidate}), 0, true, false};
    }

    [[nodiscard]] bool is_taken(std::uint64_t ordinal) const { return ordinal >= tail_ && ordinal < head_; }
    [[nodiscard]] Kind kind(std::uint64_t ordinal) const { return record(ordinal).kind; }

    // The completion of a signalled entry has come: it and all before it are free. The context, if it was not a
    // message.
    std::optional<std::uint64_t> completed(std::uint64_t ordinal) {
        SRPFS_ASSERT(is_taken(ordinal));
        for (;; ++tail_) {
            const Record& done = record(tail_);
            if (done.kind == Kind::message) --messages_;
            if (done.kind == Kind::rdma_read || done.kind == Kind::rdma_write) --rdma_;
            if (done.kind == Kind::rdma_read) --reads_;
            if (tail_ == ordinal) break;
        }
        const Record& last = record(tail_++);
        return last.kind == Kind::message ? std::nullopt : std::optional(last.context);
    }

private:
    struct Record {
        std::uint64_t context = 0;
        Kind kind = Kind::message;
    };
    [[nodiscard]] const Record& record(std::uint64_t ordinal) const {
        return records_[ordinal & (records_.size() - 1)];
    }
    std::uint64_t put(const Record& record) {
        SRPFS_ASSERT(head_ - tail_ < entries());
        records_[head_ & (records_.size() - 1)] = record;
        return head_++;
    }

    std::uint64_t head_ = 0;  // ordinal of the next entry
    std::uint64_t tail_ = 0;  // the oldest one not completed
    std::uint64_t next_message_ = 0;
    unsigned messages_ = 0;  // not known to be completed
    unsigned rdma_ = 0;
    unsigned reads_ = 0;
    unsigned unsignalled_ = 0;  // messages since the last signalled entry
    unsigned signal_interval_;
    unsigned slots_;
    unsigned rdma_max_;
    unsigned windows_max_;
    std::vector<Record> records_;
};

}  // namespace srpfs::fabric::verbs
