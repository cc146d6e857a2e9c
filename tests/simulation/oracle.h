// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The history of one logical unit and what it allows a reader to see.
//
// Each write fills its bytes with a pattern of its number, so a reader's bytes tell whose they are; a zeroing is a
// write of zeros, which may be several writes'. Times are the order of events. For the bytes of one block that have the
// same history, a read may return write W unless W was overwritten: a write X that began after W had ended (however W
// ended: ghosts may not come back) and was acknowledged, or seen by a reader, before this read began. What a target
// loses with its volatile cache was not overwritten, unless a flush that succeeded has promised it.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace srpfs::simulation {

using Moment = std::uint64_t;  // position in the order of events
inline constexpr Moment never = UINT64_MAX;

class Oracle {
public:
    explicit Oracle(std::uint32_t block_bytes) : block_bytes_(block_bytes) {}

    // `failed` is as unknown, but for flushes: no part of it was acknowledged.
    enum class End { acknowledged, unknown, failed };
    using WriteId = std::size_t;

    // The content of write `id` at `offset` of the unit.
    static void fill(WriteId id, std::uint64_t offset, std::span<std::byte> bytes);
    // The number the next write will get.
    [[nodiscard]] WriteId next_write() const { return writes_.size() + 1; }

    enum class Content { pattern, zeros };
    WriteId begin_write(std::uint64_t offset, std::uint32_t bytes, Content content = Content::pattern);
    // `promised`: acknowledged as durable.
    void end_write(WriteId id, End end, bool promised);
    // What happened between `cut_began` and `cut_ended` was that somebody made his file end before `begin`; now he goes
    // on at `end`, and what lies between becomes zeros, except what has been written since.
    struct Gap {
        std::vector<WriteId> firm;    // zeros, if all goes well
        std::vector<WriteId> unsure;  // or not: somebody wrote there at the same time, or failed
    };
    Gap begin_gap(std::uint64_t begin, std::uint64_t end, Moment cut_began, Moment cut_ended);
    void end_gap(const Gap& gap, End end, bool promised);
    Moment tick() { return ++now_; }

    // Somebody opens the unit, to flush it some day. What was lost and told before does not concern him.
    using Opener = std::uint64_t;
    Opener open();
    Moment begin_flush() { return ++now_; }
    // A successful flush promises everything acknowledged before it began, except what its opener has been told is
    // lost.
    void end_flush_ok(Moment began, Opener opener);
    // False: whatever has been written, and perhaps not answered, was there before a flush that succeeded began.
    [[nodiscard]] bool may_have_unflushed() const;
    // The flush has reported that the cache was lost: what was not promised may be gone, and its opener knows.
    void end_flush_lost(Opener opener);
    // What was not promised may be gone, and nobody has to be told.
    void on_loss_unseen();
    // Unflushed writes may be gone from here on.
    void on_cache_lost() { cache_losses_.push_back(++now_); }
    // The unit was removed and logged in to anew: nothing was fenced, so what was unknown stays unknown for ever (with
    // what it wrote beside it into its first and last block). What was not flushed is remembered, but not that the
    // cache was lost meanwhile.
    void on_forgotten();

    // The unit was made smaller: what it holds beyond when it grows again is not defined.
    void on_cut(std::uint64_t bytes) { tainted_.push_back({bytes / block_bytes_ * block_bytes_, UINT64_MAX}); }

    Moment begin_read() { return ++now_; }
    // Through a page cache a reader may be given what a later write has replaced that is not acknowledged, even if
    // somebody else has seen that.
    enum class Through { nothing, page_cache };
    // nullopt, or what is wrong.
    std::optional<std::string> end_read(Moment began, std::uint64_t offset, std::span<const std::byte> bytes,
                                        Through through = Through::nothing);

private:
    struct Write {
        WriteId id = 0;
        std::uint64_t begin = 0, end = 0;
        Moment began = 0;
        Moment ended = never;
        Moment firm = never;  // acknowledged or seen
        Moment promised = never;
        bool excused = false;
        bool failed = false;
        Content content = Content::pattern;
        bool is_gap = false;
    };
    [[nodiscard]] bool is_overwritten(const Write& older, const Write& newer, Moment read_began) const;
    [[nodiscard]] static bool matches(const Write& write, std::uint64_t offset, std::span<const std::byte> bytes);
    [[nodiscard]] std::string describe(const Write& write) const;

    std::uint32_t block_bytes_;
    Moment now_ = 0;
    std::vector<Write> writes_;
    std::vector<Write> seen_;  // parts of writes that a reader saw before they were acknowledged
    std::vector<Moment> cache_losses_;
    Moment flushed_ = 0;                    // when the last flush that succeeded began
    Moment told_ = 0;                       // the last loss that somebody knows of
    std::vector<Moment> excused_until_{0};  // for each opener; 0 is nobody
    struct Range {
        std::uint64_t begin = 0, end = 0;
    };
    std::vector<Range> tainted_;  // blocks that a forgotten write may still put back to what they were
};

}  // namespace srpfs::simulation
