// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// srpctl copy: from LUNs to files, from files to LUNs, and between LUNs, by a thread that reads and one that writes.

#pragma once

#include <srpfs/base/result.h>
#include <srpfs/ctl/apart.h>
#include <srpfs/ctl/table.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace srpfs::ctl {

inline constexpr std::uint64_t copy_block_min = 4096, copy_block_max = std::uint64_t{16} << 20;

struct CopyOptions {
    bool is_confirmed = false;  // --yes
    bool verifies = false, verifies_only = false;
    bool begins_anew = false;  // --no-resume
    std::string journal;       // empty: where journal_for() says
    std::uint64_t block_bytes = std::uint64_t{1} << 20;
    // --offset, --seek: where in the source and in the target it begins; --length: nothing is the rest of the source.
    std::uint64_t source_offset = 0, target_offset = 0;
    std::optional<std::uint64_t> length;
};

struct CopyEnd {
    std::string path;      // absolute, without symbolic links
    std::string identity;  // "lun WWID" or "file INODE MTIME PATH": what must not change between two parts of a copy
    std::uint64_t bytes = 0;
    bool is_lun = false;
};

// Which bytes are copied. A journal without one is of all of the source.
struct CopyRange {
    std::uint64_t source_offset = 0, target_offset = 0, bytes = 0;
    bool operator==(const CopyRange&) const = default;
};

// What a copy needs to go on after it was ended, by whatever: the first `done_bytes` of its range are on stable
// storage.
struct CopyJournal {
    std::string source, target;  // identities; of a file that is written, none
    std::uint64_t source_bytes = 0, done_bytes = 0;
    std::uint64_t part_inode = 0;  // of the file that is written; 0: there is none yet, or it is a LUN
    std::optional<CopyRange> part;

    [[nodiscard]] CopyRange range() const { return part.value_or(CopyRange{0, 0, source_bytes}); }

    [[nodiscard]] std::string text() const;
    // Nothing if it is no journal.
    static std::optional<CopyJournal> parse(std::string_view text);
};
// Whoever reads the file afterwards, also after a crash, finds the whole of this journal or the whole of the one
// before.
Result<void> write_journal(const std::string& path, const CopyJournal& journal);
// What is there; nothing if there is no such file. Others' files are not read, nor what a symbolic link leads to
// (EPERM), nor files that are no journal (EINVAL).
Result<std::optional<CopyJournal>> read_journal(const std::string& path);
// Success when it is gone also after a crash.
Result<void> remove_journal(const std::string& path);
// Where it is unless somebody says: beside the file, or, for a LUN, below `state_directory`.
std::string journal_for(const CopyEnd& target, const std::string& state_directory);
// What it is written to before it has its name.
std::string part_of(const CopyEnd& target);

struct CopyJob {
    CopyEnd source, target;
    CopyOptions options;
    std::string journal;  // its path

    [[nodiscard]] CopyRange range() const {
        const std::uint64_t rest = source.bytes - std::min(source.bytes, options.source_offset);
        return {options.source_offset, options.target_offset, options.length.value_or(rest)};
    }
};

// Why a copy that left this journal is not the one that is wanted now.
std::optional<std::string> obstacle_to_resume(const CopyJournal& journal, const CopyJob& job);

// EINVAL for what cannot be copied: onto itself, what is not there, or onto a LUN that is too small.
Result<void> check_copy(const CopyJob& job);

// EINVAL where the journal would be written over what is copied. Looks at the files: for run_apart().
Result<void> check_journal(const CopyJob& job);
// Where a copy goes on that has left this journal; 0 if it begins anew, as it does where a LUN says of itself not which
// one it is, or has all of it. The file of a copy onto a file is not looked at.
std::uint64_t resume_offset(const CopyJob& job, const std::optional<CopyJournal>& left);

// What run_copy() tells and answers.
struct CopyProgress {
    enum class Phase { copying, verifying } phase = Phase::copying;
    std::uint64_t bytes = 0, bytes_total = 0;
    std::uint64_t bytes_zero = 0;    // of these, what was not sent: holes and zeros
    std::uint64_t bytes_before = 0;  // what an earlier copy had done

    [[nodiscard]] std::string text() const;
    static std::optional<CopyProgress> parse(std::string_view text);
};

// For run_apart() without a limit: the copy, its verification, and its name. Tells CopyProgress as it goes, and answers
// the last. When `stop` is not 0 any more it ends within seconds, with EINTR, and with ETIMEDOUT when nothing moves for
// `silence` (zero: no limit); what has been done is in the journal then, as it is after every other end. EILSEQ:
// verification has found a difference.
Result<std::string> run_copy(const CopyJob& job, const std::atomic<int>& stop, std::chrono::milliseconds silence,
                             Outlet& outlet);

// Bytes in a second, over the last seconds.
class CopyRate {
public:
    void add(std::uint64_t bytes, double seconds);
    [[nodiscard]] double bytes_per_second() const { return rate_; }

private:
    std::optional<double> last_seconds_;
    std::uint64_t last_bytes_ = 0;
    double rate_ = 0;
};

// "copying  [=====>    ]  45 %  1.2 GiB of 2.6 GiB  512.0 MB/s  0:12 left", as wide as the screen.
std::string progress_line(const CopyProgress& progress, double bytes_per_second, const Screen& screen);
// Nothing as long as it is not known; 0 when nothing is left, though no speed was measured.
std::optional<std::uint64_t> seconds_left(const CopyProgress& progress, double bytes_per_second);

}  // namespace srpfs::ctl
