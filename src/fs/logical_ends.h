// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A LUN file cannot shrink. Whoever truncates one and writes it anew expects what a file gives: zeros wherever he has
// not written below the end that he has reached. So each handle that has been truncated has a logical end; what lies
// between it and a later write, or a later truncation, becomes zeros first, and nothing beyond it is touched
// (decisions 5, user-interface 6). What others write beyond it meanwhile stays, as it would in a file, also by another
// path to the unit. A write counts when it has succeeded: what one that fails was to write is a hole as before.
//
// One reactor's thread: the unit's home. No input or output here.

#pragma once

#include <srpfs/lun/zeroing.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

namespace srpfs::fs {

struct LunData;

// Two files of one unit, by whatever path, as long as both have it.
[[nodiscard]] bool are_same_unit(const LunData& one, const LunData& other);

[[nodiscard]] constexpr bool overlap(const lun::ByteRange& a, const lun::ByteRange& b) {
    return a.begin < b.end && b.begin < a.end;
}

// Disjoint, not empty, not touching each other.
class RangeSet {
public:
    void add(lun::ByteRange range);
    void remove_below(std::uint64_t offset);
    void remove_from(std::uint64_t offset);
    // Removes what of `range` is in the set, and says what that was.
    std::vector<lun::ByteRange> take(lun::ByteRange range);
    void clear() { ends_.clear(); }
    [[nodiscard]] bool empty() const { return ends_.empty(); }
    [[nodiscard]] std::size_t size() const { return ends_.size(); }
    // From the first byte to the last.
    [[nodiscard]] lun::ByteRange hull() const;
    [[nodiscard]] lun::ByteRange last() const;  // not of an empty one
    // Where the range ends that has this byte; `offset` itself if none has.
    [[nodiscard]] std::uint64_t run_end(std::uint64_t offset) const;
    // What of `range` is not in the set.
    [[nodiscard]] std::vector<lun::ByteRange> missing_in(lun::ByteRange range) const;

private:
    std::map<std::uint64_t, std::uint64_t> ends_;  // by beginning
};

class LogicalEnds {
public:
    // What is remembered for one handle: some 16 MiB.
    static constexpr std::size_t pieces_max = std::size_t{1} << 18;

    [[nodiscard]] bool empty() const { return writers_.empty(); }
    // nullopt: never truncated; the file is the device.
    [[nodiscard]] std::optional<std::uint64_t> end_of(std::uint64_t handle) const;
    // What below `end` is neither written nor zeros; none for a handle never truncated. Writes that fail leave such
    // holes below the end as well.
    [[nodiscard]] std::vector<lun::ByteRange> to_zero(std::uint64_t handle, std::uint64_t end) const;
    // From here on others may have written what is in none of those ranges: more than pieces_max pieces. Nothing that
    // ends beyond it may be zeroed as a hole.
    [[nodiscard]] std::uint64_t unknown_from(std::uint64_t handle) const;
    // ftruncate() to less, or the first one. `lun` stays until forget_file().
    void cut(std::uint64_t handle, const LunData* lun, std::uint64_t end);
    // Forward only.
    void advance(std::uint64_t handle, std::uint64_t end);
    // These bytes of the unit are written, or have become zeros because somebody asked for it: no gap includes them.
    // The end of `handle` (0: nobody's) moves behind them.
    void note_written(const LunData* lun, lun::ByteRange range, std::uint64_t handle);
    // A gap of this handle's has become zeros.
    void note_zeroed(std::uint64_t handle, lun::ByteRange range);
    void forget(std::uint64_t handle);
    // The file is going, and its unit with it: nobody writes through its handles any more, which may stay open.
    void forget_file(const LunData* lun);
    // True once for each handle.
    [[nodiscard]] bool first_zeroing(std::uint64_t handle);
    [[nodiscard]] bool first_refusal(std::uint64_t handle);

private:
    struct Writer {
        const LunData* lun;
        std::uint64_t end;
        std::uint64_t whole;  // no hole below; may be beyond the end, where others have written
        RangeSet written;     // beyond `whole`, not touching it; zeros as well
        std::uint64_t unknown_from = UINT64_MAX;
        bool zeroing_told = false, refusal_told = false;
    };
    static void add(Writer& writer, lun::ByteRange range);
    std::map<std::uint64_t, Writer> writers_;  // by handle
};

}  // namespace srpfs::fs
