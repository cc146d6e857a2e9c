// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Pages of LUN files in the kernel's page cache. Most files are open for direct I/O, but sendfile(2), splice(2) and
// private mappings go through the cache all the same, and so does who reads a cached file. The kernel never asks for
// such a page again, so whoever changes the unit by another path, another open file or a raw command would leave it
// old.
//
// Each READ that fills pages is noted before the unit is asked. Its pages are dropped soon after it was answered; those
// of a cached file are kept until somebody changes what they show. A write is answered once all pages are gone that may
// be older than its end: those of fills which were noted before. A fill that is under way when a write ends may bring
// what was there before, so its pages are never kept, whatever becomes of who waits. One for which nothing has been
// read, or which begins anew because its path was lost, counts as noted now.
//
// The kernel cannot be told to drop pages while it waits for them (it holds their locks), so what is being filled again
// is left out until that fill has been answered.
//
// One reactor's thread: the units' home.

#pragma once

#include "logical_ends.h"

#include <srpfs/base/count.h>
#include <srpfs/base/latency.h>
#include <srpfs/fs/tree.h>
#include <srpfs/lun/zeroing.h>
#include <srpfs/reactor/timer_queue.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <vector>

namespace srpfs::fs {

class PageFillsHost {
public:
    // Has the kernel drop these pages, without waiting for it; PageFills::dropped(ticket) follows. UINT64_MAX is the
    // end of a file.
    virtual void drop_pages(NodeId node, std::vector<lun::ByteRange> ranges, std::uint64_t ticket) = 0;
    // Whatever this fill brings is read from now on: nothing has been read for it, or what was is not used.
    [[nodiscard]] virtual bool has_read_nothing(std::uint64_t fill) const = 0;

protected:
    ~PageFillsHost() = default;
};

// Written by the reactor, read by anybody: see PageStatistics.
struct PageCounters {
    Count fills, fills_cached, drops, drop_ranges, drop_bytes, waits, waits_given_up;
    LatencyHistogram drop_latency, wait_latency;
};

class PageFills {
public:
    PageFills(PageFillsHost& host, reactor::TimerQueue& timers)
        : host_(host), timers_(timers), tick_(timers, [this] { is_due_ = true; }),
          late_(timers, [this] { give_up_late(); }) {}

    // Pages stay for one to two of these, so that who has asked for them, and for more than he needs now, gets them
    // before they go. Not when a write waits.
    static constexpr Duration tick = std::chrono::milliseconds(2);
    // Of one file, that wait to be dropped; more become one.
    static constexpr std::size_t ranges_max = 1024;
    // The same of those that are kept; a set of a few dozen bytes each.
    static constexpr std::size_t kept_max = 16384;

    // So long a write waits for a drop that the kernel does not end. It may be held by a page that a reader has locked
    // who waits for a place among the kernel's asynchronous requests, which are these very writes.
    static constexpr Duration patience = std::chrono::seconds(1);

    // False: the kernel has no pages, and wait() need not be asked.
    [[nodiscard]] bool any() const { return !files_.empty(); }

    // What becomes of the pages of a fill.
    enum class Stay : std::uint8_t { is_short, until_changed };
    // A fill, before anything is looked at that it depends on: its number, not 0. `lun` stays until forget_file().
    [[nodiscard]] std::uint64_t begin(const LunData& lun, NodeId node, lun::ByteRange range, Stay stay);
    // The kernel has got its answer, or gets it before send() is called.
    void answered(std::uint64_t fill);
    // That was an error, so there are no pages.
    void failed(std::uint64_t fill);

    // A change of `range` has come to its end: `done` is called once no page shows what was there before, or when
    // somebody gives up. 0: there is none now, and `done` is not called.
    [[nodiscard]] std::uint64_t wait(const LunData& lun, lun::ByteRange range, std::function<void()> done);
    // The same where nobody waits for it. False: some page may still show what was there before.
    bool change(const LunData& lun, lun::ByteRange range) { return wait(lun, range, nullptr) == 0; }
    // Nobody needs the pages of this file any more, by whatever path others know the unit.
    void drop_file(const LunData* lun);
    // Calls it now; nothing if that has happened.
    void give_up(std::uint64_t wait);

    // End of a turn, after the answers have been given.
    void send();
    [[nodiscard]] bool has_something_to_send() const { return any() && (is_due_ || is_urgent_); }
    void dropped(std::uint64_t ticket);
    // The unit is going: what is left of its file's pages is waited for by all.
    void forget_file(const LunData* lun);
    // Every wait ends, and nothing is dropped any more.
    void leave();

    [[nodiscard]] const PageCounters& counters() const { return counters_; }

private:
    struct Fill {
        std::uint64_t number;
        lun::ByteRange range;
        bool keeps;           // its pages are kept if nothing changes before it is answered
        std::uint64_t since;  // a number: it reads what has been written by waits that are older
    };
    struct Pages {
        std::uint64_t oldest;  // Fill::since
        lun::ByteRange range;
    };
    struct File {
        NodeId node;
        const LunData* lun;  // nullptr: forgotten
        std::uint64_t serial;
        unsigned waits = 0;
        std::vector<Fill> filling;
        RangeSet kept;
        std::vector<Pages> young, old;  // in the order in which they came
        std::vector<Pages> dropping;
        std::uint64_t ticket = 0;  // of `dropping`; 0: none
        Instant dropping_since{};
        [[nodiscard]] bool is_over() const {
            return filling.empty() && kept.empty() && young.empty() && old.empty() && ticket == 0 && waits == 0;
        }
    };
    struct Wait {
        std::uint64_t number;  // later fills do not matter
        lun::ByteRange range;
        std::vector<std::uint64_t> files;  // serial numbers
        std::function<void()> done;        // nullptr: nobody waits
        Instant since{};
    };

    [[nodiscard]] static bool keeps_waiting(const File& file, const Wait& wait);
    [[nodiscard]] File* file_of(std::uint64_t serial);
    static void add(std::vector<Pages>& all, const Pages& pages);
    // Fills of what this wait is for that begin, or begin anew, only after it.
    void renew(File& file, const Wait& wait);
    // What overlaps `range` is on its way out.
    void let_go(File& file, lun::ByteRange range);
    static void bound(RangeSet& kept);
    void arm_tick();
    bool end_fill(std::uint64_t fill, bool has_pages);
    void drop(File& file, bool young_too);
    void end(std::list<Wait>::iterator wait);
    void end_waits();
    void give_up_late();
    void tidy();

    PageFillsHost& host_;
    reactor::TimerQueue& timers_;
    std::list<File> files_;
    std::list<Wait> waits_;
    std::uint64_t numbers_ = 0;                // of fills, waits, files and tickets
    bool is_due_ = false, is_urgent_ = false;  // what is old is to go; what a write waits for
    bool left_ = false;
    reactor::Timer tick_, late_;
    PageCounters counters_;
};

}  // namespace srpfs::fs
