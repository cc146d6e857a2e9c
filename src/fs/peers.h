// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Between the FuseChannels of one mount. A unit has one home; a request of it that another channel has read is carried
// out there, and answered by either. What they tell each other lies on desks: a batch of mail costs one lock, and a
// system call only if its reader is asleep.

#pragma once

#include "intake.h"

#include <srpfs/lun/engine.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace srpfs::fs {

// Trivially copyable; memory it points to belongs to its sender until the mail that gives it back.
struct Mail {
    enum class Kind : std::uint8_t {
        request,    // reader to home: head and data of a request; `to.record` is the reader's note of it
        interrupt,  // reader to home: of a request sent before
        answer,     // home to reader: to be given to the kernel. The body is in `head`, or in `data` if `record` is set
        answered,   // home to reader: the home has done that
        written,    // reader to home: the data of an answer is not needed any more; `record` as in the answer
        copied,     // home to reader: nor is that of a request
    };
    Kind kind = Kind::request;
    std::uint8_t head_bytes = 0;
    std::uint16_t from = 0;             // index of the sender
    std::int32_t error = 0;             // of an answer: 0 or a positive errno
    std::uint32_t record = no_record;   // the home's, whose operation has the data
    ReplyTo to{};                       // whose request this is about
    std::span<const std::byte> data{};  // of a WRITE, or of the answer to a READ
    lun::Buffer* buffer = nullptr;      // of the reader's engine: what a WRITE's data is in, or
    std::byte* copy = nullptr;          // new[]ed: the same when buffers are short. Neither: a ring's entry
    std::array<std::byte, lun::intake_header_bytes> head{};
};

// Where the others leave mail for a channel. Its owner is one thread; everything else is for any thread.
class Desk {
public:
    enum class Asked : std::uint8_t { nothing, to_help, to_stop };
    Desk() = default;
    ~Desk();
    Desk(const Desk&) = delete;
    Desk& operator=(const Desk&) = delete;
    // Puts all of `mail` there, in order, and leaves it empty. True: the owner sleeps, and the caller has to wake him.
    // Mail that is not urgent waits until he is awake for another reason.
    [[nodiscard]] bool put(std::vector<Mail>& mail, bool urgent);
    // Asks the owner to read requests as long as there are some. True: he has to be woken.
    [[nodiscard]] bool ask();
    // Or not to do that any more.
    void dismiss() { asked_.store(Asked::to_stop, std::memory_order_relaxed); }

    [[nodiscard]] bool is_asleep() const { return asleep_.load(std::memory_order_relaxed); }
    // The owner reads requests because he was asked to.
    [[nodiscard]] bool helps() const { return helps_.load(std::memory_order_relaxed); }
    // He has been asked, and has not heard of it yet.
    [[nodiscard]] bool is_asked_to_help() const { return asked_.load(std::memory_order_relaxed) == Asked::to_help; }
    // He sleeps because he has read as much as he may that nobody has answered yet.
    [[nodiscard]] bool is_full() const { return full_.load(std::memory_order_relaxed); }
    // He reads them without being asked.
    [[nodiscard]] bool reads() const { return reads_.load(std::memory_order_relaxed); }
    // The work_of() all requests that he has read and that were answered meanwhile; grows.
    [[nodiscard]] std::uint64_t work_done() const { return work_done_.load(std::memory_order_relaxed); }

    // ---- the owner ----
    // Everything there is, in each sender's order; `into` is empty.
    void take(std::vector<Mail>& into);
    // From now on senders wake him. False: there is something to do.
    [[nodiscard]] bool fall_asleep();
    void wake_up() {
        if (asleep_.load(std::memory_order_relaxed)) asleep_.store(false, std::memory_order_relaxed);
    }
    // What somebody has asked for since.
    [[nodiscard]] Asked was_asked() {
        if (asked_.load(std::memory_order_relaxed) == Asked::nothing) [[likely]]
            return Asked::nothing;
        return asked_.exchange(Asked::nothing, std::memory_order_acquire);
    }
    void set_helps(bool helps) { helps_.store(helps, std::memory_order_relaxed); }
    void set_full(bool full) { full_.store(full, std::memory_order_relaxed); }
    void set_reads(bool reads) { reads_.store(reads, std::memory_order_relaxed); }
    void count_work(std::uint64_t count) {
        work_done_.store(work_done_.load(std::memory_order_relaxed) + count, std::memory_order_relaxed);
    }

private:
    [[nodiscard]] bool must_be_woken();

    std::mutex mutex_;
    std::vector<Mail> mail_;  // guarded by mutex_
    std::atomic<bool> has_mail_{false};
    // What is left here and this are ordered by sequential consistency: either the owner sees it, or he is woken.
    std::atomic<bool> asleep_{true};  // nobody looks here yet
    std::atomic<Asked> asked_{Asked::nothing};
    std::atomic<bool> helps_{false}, full_{false};
    std::atomic<bool> reads_{true};
    std::atomic<std::uint64_t> work_done_{0};
};

// Of a request, in bytes of data: what reading and answering it costs.
inline std::uint64_t work_of(std::size_t bytes) { return 16384 + bytes; }

}  // namespace srpfs::fs
