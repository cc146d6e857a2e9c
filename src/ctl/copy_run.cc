// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The threads of a copy: one reads blocks, another writes them, or reads the target's and compares; a third opens,
// begins and joins the two, and gives the name at the end. The process's first thread only looks on and touches no
// file, so that it can leave when one of them hangs in a mount that does not answer.
#include <srpfs/ctl/copy.h>

#include "live_terminal.h"

#include <srpfs/ctl/tree_files.h>

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace srpfs::ctl {
namespace {

constexpr std::size_t blocks_in_flight = 4;
constexpr std::uint64_t hole_bytes_max = std::uint64_t{64} << 20;  // of one step, so that progress is seen
constexpr std::uint64_t hole_bytes_min = std::uint64_t{64} << 10;  // shorter zeros inside a block are written
constexpr std::uint64_t checkpoint_bytes = std::uint64_t{64} << 20;
constexpr double checkpoint_seconds = 2;
constexpr std::uint64_t looked_at_bytes = std::uint64_t{4} << 20;  // of what is done, before going on
constexpr std::chrono::milliseconds look{100};
constexpr std::chrono::milliseconds leave{5000};  // for the threads to end, when they have to

struct Free {
    void operator()(void* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<char, Free>;

bool is_zero(const char* data, std::size_t bytes) {
    return bytes == 0 || (data[0] == 0 && std::memcmp(data, data + 1, bytes - 1) == 0);
}

// A file or LUN, read and written at any place. O_DIRECT as long as the file system takes it.
struct Disk {
    std::string path;
    bool is_lun = false;
    std::uint64_t base = 0;  // where what is copied begins; offsets count from there
    int descriptor = -1;
    bool is_direct = false;

    [[nodiscard]] Error error(const char* what, std::uint64_t offset, int code) const {
        std::string text = fmt::format("{}: {} at byte {}: {}", path, what, base + offset, std::strerror(code));
        if (!is_lun) return Error(code, std::move(text));
        const auto reason = read_value(path + ".attr/last_error");
        return Error(code, reason && !reason->empty() ? fmt::format("{} ({})", text, *reason) : text);
    }
    Result<void> open(int flags, mode_t mode = 0) {
        // A file system without O_DIRECT says so when it has made the file.
        const int direct = flags & O_CREAT ? 0 : O_DIRECT;
        descriptor = ::open(path.c_str(), flags | direct | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, mode);
        is_direct = descriptor >= 0 && direct != 0;
        if (descriptor < 0 && errno == EINVAL)
            descriptor = ::open(path.c_str(), flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, mode);
        if (descriptor < 0) return Error(errno, fmt::format("{}: {}", path, std::strerror(errno)));
        if (direct == 0) set_direct(true);
        return {};
    }
    int set_direct(bool wanted) {
        const int flags = fcntl(descriptor, F_GETFL);
        if (flags < 0 || fcntl(descriptor, F_SETFL, wanted ? flags | O_DIRECT : flags & ~O_DIRECT) != 0) return errno;
        is_direct = wanted;
        return 0;
    }
    // All of it, or an errno; ENODATA if the file ends before.
    int read(char* data, std::size_t bytes, std::uint64_t offset) {
        return transfer(bytes, ENODATA, [&](std::size_t done) {
            return ::pread(descriptor, data + done, bytes - done, place(offset + done));
        });
    }
    int write(const char* data, std::size_t bytes, std::uint64_t offset) {
        return transfer(bytes, EIO, [&](std::size_t done) {
            return ::pwrite(descriptor, data + done, bytes - done, place(offset + done));
        });
    }
    // Where an offset in what is copied is in the file.
    [[nodiscard]] off_t place(std::uint64_t offset) const { return static_cast<off_t>(base + offset); }

    // `move` makes one system call, for what is behind the bytes that are done.
    template <typename Move>
    int transfer(std::size_t bytes, int errno_of_nothing, Move&& move) {
        for (std::size_t done = 0; done < bytes;) {
            const ssize_t moved = move(done);
            if (moved > 0) {
                done += static_cast<std::size_t>(moved);
            } else if (moved == 0) {
                return errno_of_nothing;
            } else if (errno == EINVAL && is_direct) {
                // Of a file's last bytes, or of a place that is no multiple.
                if (const int fault = set_direct(false); fault != 0) return fault;
            } else if (errno != EINTR) {
                return errno;
            }
        }
        return 0;
    }
};

struct Block {
    std::uint64_t offset = 0, bytes = 0;
    char* data = nullptr;  // nullptr: zeros
};

// What the threads share. It outlives whoever waits for them.
struct Pipeline {
    CopyJob job;
    Disk source, target;
    CopyJournal journal;
    CopyProgress::Phase phase = CopyProgress::Phase::copying;
    std::uint64_t begin = 0, end = 0;
    std::uint64_t before = 0;  // what an earlier copy had done; told also while it is verified

    std::vector<Memory> memory;
    Memory other;  // the target's, to compare with

    std::atomic<bool> stop = false;
    std::atomic<std::uint64_t> done = 0, zeros = 0;

    std::mutex mutex;
    std::condition_variable changed;
    std::deque<Block> filled;
    std::vector<char*> spare;
    bool has_all = false;                       // the reader has put its last block there
    bool has_lost_writes = false;               // what is behind the last checkpoint counts no more
    std::optional<Error> failure;               // the first
    std::optional<Result<std::string>> result;  // of all of it
    std::atomic<std::uint64_t> journalled = 0;  // what the journal says
    std::atomic<bool> has_begun = false;        // there is a journal of it

    void fail(Error error) {
        const std::lock_guard lock(mutex);
        if (!failure) failure = std::move(error);
        stop = true;
        changed.notify_all();
    }
    void ask_to_end() {
        const std::lock_guard lock(mutex);
        stop = true;
        changed.notify_all();
    }

    // ---- reading ----

    char* spare_memory() {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return !spare.empty() || stop; });
        if (stop) return nullptr;
        char* data = spare.back();
        spare.pop_back();
        return data;
    }
    void give_back(char* data) {
        const std::lock_guard lock(mutex);
        spare.push_back(data);
        changed.notify_all();
    }
    bool put(Block block) {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return filled.size() < 2 * blocks_in_flight || stop; });
        if (stop) return false;
        filled.push_back(block);
        changed.notify_all();
        return true;
    }
    // Where data begin at or behind `offset`, and where they end. What is not known for certain to be a hole is data.
    void find_data(std::uint64_t offset, std::uint64_t& first, std::uint64_t& last) {
        first = offset;
        last = end;
        const off_t data = ::lseek(source.descriptor, source.place(offset), SEEK_DATA);
        if (data < 0) {
            // ENXIO is also what is said of devices that are gone, of which one does not know.
            const bool is_hole =
                errno == ENXIO && ::lseek(source.descriptor, source.place(offset), SEEK_HOLE) == source.place(offset);
            if (is_hole) first = end;
            return;
        }
        const auto from_base = [&](off_t place) {
            return static_cast<std::uint64_t>(std::max(place, source.place(0))) - source.base;
        };
        first = std::min(std::max(from_base(data), offset), end);
        const off_t hole = ::lseek(source.descriptor, data, SEEK_HOLE);
        if (hole > data) last = std::min(from_base(hole), end);
    }
    void read_all() {
        const std::uint64_t size = job.options.block_bytes;
        const bool looks_for_holes = phase == CopyProgress::Phase::copying;
        std::uint64_t offset = begin, data_begin = begin, data_end = looks_for_holes ? begin : end;
        while (offset < end && !stop) {
            if (offset >= data_end) find_data(offset, data_begin, data_end);
            if (offset < data_begin) {
                const std::uint64_t bytes = std::min(data_begin - offset, hole_bytes_max);
                if (!put({offset, bytes, nullptr})) break;
                offset += bytes;
                continue;
            }
            // Blocks end at multiples in the source, for O_DIRECT.
            const std::uint64_t bytes = std::min(size - (source.base + offset) % size, end - offset);
            char* data = spare_memory();
            if (!data) break;
            if (const int fault = source.read(data, bytes, offset); fault != 0)
                return fail(fault == ENODATA ? Error(EIO, fmt::format("{}: ends before byte {}; it became shorter",
                                                                      source.path, source.base + end))
                                             : source.error("read", offset, fault));
            const bool is_hole = looks_for_holes && is_zero(data, bytes);
            if (is_hole) give_back(data);
            if (!put({offset, bytes, is_hole ? nullptr : data})) break;
            offset += bytes;
        }
        const std::lock_guard lock(mutex);
        has_all = offset >= end;
        changed.notify_all();
    }

    // ---- writing ----

    // Of a file, holes are there already.
    int write_zeros(std::uint64_t offset, std::uint64_t bytes) {
        zeros += bytes;
        if (!target.is_lun) return 0;
        if (::fallocate(target.descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, target.place(offset),
                        static_cast<off_t>(bytes)) == 0)
            return 0;
        if (errno != EOPNOTSUPP && errno != ENOSYS) return errno;
        zeros -= bytes;
        if (!other) return ENOMEM;
        std::memset(other.get(), 0, job.options.block_bytes);
        for (std::uint64_t at = 0; at < bytes; at += job.options.block_bytes)
            if (const int fault = target.write(other.get(), std::min(bytes - at, job.options.block_bytes), offset + at);
                fault != 0)
                return fault;
        return 0;
    }
    int write_block(const Block& block) {
        if (!block.data) return write_zeros(block.offset, block.bytes);
        if (target.is_lun) return target.write(block.data, block.bytes, block.offset);
        // Long zeros inside stay holes.
        std::uint64_t from = 0, at = 0;
        while (at < block.bytes) {
            const std::uint64_t next = std::min(at + hole_bytes_min, block.bytes);
            if (is_zero(block.data + at, next - at)) {
                if (const int fault = target.write(block.data + from, at - from, block.offset + from); fault != 0)
                    return fault;
                zeros += next - at;
                from = next;
            }
            at = next;
        }
        return target.write(block.data + from, block.bytes - from, block.offset + from);
    }
    // The first byte that differs.
    std::optional<std::uint64_t> difference(const Block& block, int& fault) {
        fault = target.read(other.get(), block.bytes, block.offset);
        if (fault != 0 || std::memcmp(other.get(), block.data, block.bytes) == 0) return std::nullopt;
        const auto [ours, theirs] = std::mismatch(other.get(), other.get() + block.bytes, block.data);
        return block.offset + static_cast<std::uint64_t>(ours - other.get());
    }
    // What has been written is made durable, and said to be.
    std::optional<Error> checkpoint() {
        const std::uint64_t now = done;
        if (has_lost_writes) return std::nullopt;
        if (::fdatasync(target.descriptor) != 0) {
            has_lost_writes = true;
            return target.error("flush", now, errno);
        }
        journal.done_bytes = now;
        auto written = write_journal(job.journal, journal);
        // A full disk has no room for the journal either: give back what was written last. The copy has ended with
        // that, since the file is shorter now than what was said to be done.
        const int fault = written ? 0 : written.error().errno_value();
        if ((fault == ENOSPC || fault == EDQUOT) && !target.is_lun) {
            has_lost_writes = true;
            const std::uint64_t less = std::max(journalled.load(), now - std::min(now, job.options.block_bytes));
            if (::ftruncate(target.descriptor, static_cast<off_t>(less)) == 0) {
                journal.done_bytes = less;
                if (write_journal(job.journal, journal)) journalled = less;
            }
        }
        if (!written) return written.error();
        journalled = journal.done_bytes;
        return std::nullopt;
    }
    void write_all() {
        double last_time = seconds_now();
        std::uint64_t last_done = begin;
        const bool copies = phase == CopyProgress::Phase::copying;
        while (true) {
            Block block;
            {
                std::unique_lock lock(mutex);
                changed.wait(lock, [&] { return !filled.empty() || has_all || stop; });
                // What has been read is written also after a failure: that is work done.
                if (filled.empty()) break;
                block = filled.front();
                filled.pop_front();
                changed.notify_all();
            }
            int fault = 0;
            if (copies) {
                fault = write_block(block);
            } else if (const auto at = difference(block, fault)) {
                const std::string other_place =
                    source.base == target.base ? "" : fmt::format(", byte {} there", target.base + *at);
                return fail(Error(EILSEQ, fmt::format("{} and {} differ, first at byte {}{}", source.path,
                                                      job.options.verifies_only ? job.target.path : target.path,
                                                      source.base + *at, other_place)));
            }
            if (fault != 0) {
                fail(target.error(copies ? "write" : "read", block.offset, fault));
                break;
            }
            done = block.offset + block.bytes;
            if (block.data) give_back(block.data);
            if (copies && (done - last_done >= checkpoint_bytes || seconds_now() - last_time >= checkpoint_seconds)) {
                if (auto error = checkpoint()) {
                    fail(std::move(*error));
                    break;
                }
                last_time = seconds_now();
                last_done = done;
            }
        }
        if (!copies) return;
        // A flush that has failed has said so: what it was for may be lost, and the journal does not have it.
        if (auto error = checkpoint()) fail(std::move(*error));
    }

    [[nodiscard]] CopyProgress progress() const { return {phase, done, end, zeros, before}; }
    Result<void> run_phase(CopyProgress::Phase which, std::uint64_t from) {
        {
            const std::lock_guard lock(mutex);
            phase = which;
            begin = from;
            if (which == CopyProgress::Phase::copying) before = from;
            done = from;
            zeros = 0;
            has_all = false;
        }
        std::thread reader([this] { read_all(); }), writer([this] { write_all(); });
        reader.join();
        writer.join();
        const std::lock_guard lock(mutex);
        if (failure) return *failure;
        if (stop) return Error(EINTR, "interrupted");
        return {};
    }
    Result<std::string> conduct();
};

// A LUN's name may mean another one by now than when it was looked for.
Result<void> check_identity(const CopyEnd& end) {
    if (!end.is_lun) return {};
    const auto wwid = read_value(end.path + ".attr/wwid");
    const std::string now = "lun " + (wwid && !wwid->empty() ? *wwid : end.path);
    if (now == end.identity) return {};
    return Error(ESTALE, fmt::format("{} has just become another LUN: {} instead of {}", end.path, now, end.identity));
}

// Takes the lock of what has been opened, which is what has the name.
Result<void> lock_target(const Disk& target) {
    if (::flock(target.descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
        return Error(EBUSY, fmt::format("{}: another copy is being written there", target.path));
    struct stat opened {
    }, named{};
    if (::fstat(target.descriptor, &opened) != 0)
        return Error(errno, fmt::format("{}: fstat: {}", target.path, std::strerror(errno)));
    if (::lstat(target.path.c_str(), &named) != 0 || named.st_dev != opened.st_dev || named.st_ino != opened.st_ino)
        return Error(EBUSY,
                     fmt::format("{} has just been replaced; is another copy being written there?", target.path));
    return {};
}

Result<void> create_target(Disk& target, mode_t mode) {
    auto opened = target.open(O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
    if (!opened && opened.error().errno_value() == EEXIST)
        return Error(EBUSY, fmt::format("{}: another copy has just begun there", target.path));
    if (!opened) return opened;
    return lock_target(target);
}

// What is said to be done is looked at near its end: somebody may have written to the target, or to the source, since.
Result<void> check_what_is_done(Pipeline& copy, std::uint64_t done) {
    const std::uint64_t size = copy.job.options.block_bytes;
    const bool directs[] = {copy.source.is_direct, copy.target.is_direct};
    char *const ours = copy.memory.front().get(), *const theirs = copy.other.get();
    for (std::uint64_t at = (done - std::min(done, looked_at_bytes)) / copy_block_min * copy_block_min; at < done;
         at += size) {
        const std::uint64_t bytes = std::min(size, done - at);
        if (const int fault = copy.source.read(ours, bytes, at); fault != 0)
            return copy.source.error("read", at, fault);
        if (const int fault = copy.target.read(theirs, bytes, at); fault != 0)
            return copy.target.error("read", at, fault);
        if (std::memcmp(ours, theirs, bytes) != 0)
            return Error(EINVAL, fmt::format("{} and {} differ before byte {}, where the copy would go on: one of them "
                                             "was written to since; --no-resume begins anew",
                                             copy.source.path, copy.target.path, done));
    }
    if (directs[0]) copy.source.set_direct(true);
    if (directs[1]) copy.target.set_direct(true);
    return {};
}

// Finds out where to begin, and begins the journal, with the lock held. `is_new`: the file has just been made.
Result<std::uint64_t> begin_locked_target(Pipeline& copy, mode_t mode, bool is_new) {
    const CopyJob& job = copy.job;
    Disk& target = copy.target;
    const bool begins_anew = job.options.begins_anew;
    struct stat now {};
    if (::fstat(target.descriptor, &now) != 0) return Error(errno, target.path);
    if (auto same = check_identity(job.target); !same) return same.error();
    if (target.is_lun && static_cast<std::uint64_t>(now.st_size) != job.target.bytes)
        return Error(EINVAL,
                     fmt::format("{} has {} bytes now instead of {}", target.path, now.st_size, job.target.bytes));
    if (!target.is_lun && !S_ISREG(now.st_mode))
        return Error(EINVAL, fmt::format("{} is no regular file", target.path));
    auto there = read_journal(job.journal);
    if (!there) return there.error();
    std::optional<CopyJournal> left = std::move(*there);
    // Of a LUN: what is finished is no copy to go on with, also if the machine crashed before its journal was gone.
    if (target.is_lun && left && left->done_bytes == left->range().bytes) left.reset();
    // An empty file is one whose journal was not written any more.
    const bool has_part = !target.is_lun && !is_new && (now.st_size > 0 || (left && left->part_inode == now.st_ino));
    if (has_part && !begins_anew) {
        if (now.st_uid != ::geteuid())
            return Error(EPERM, fmt::format("{} belongs to another user; --no-resume replaces it", target.path));
        if (now.st_nlink != 1)
            return Error(EPERM, fmt::format("{} has other names (hard links); --no-resume replaces it", target.path));
        if (!left)
            return Error(EEXIST, fmt::format("{} is there, and no journal ({}) says that it is of a copy; --no-resume "
                                             "replaces it",
                                             target.path, job.journal));
    }
    if (left && !begins_anew) {
        auto obstacle = obstacle_to_resume(*left, job);
        if (!obstacle && has_part && left->part_inode != 0 && left->part_inode != now.st_ino)
            obstacle = fmt::format("{} is not the file that was begun", target.path);
        if (obstacle)
            return Error(EINVAL, fmt::format("{}: {}; --no-resume begins anew, and what was done is lost", job.journal,
                                             *obstacle));
    }
    const std::uint64_t done =
        target.is_lun || (has_part && left && left->part_inode == now.st_ino) ? resume_offset(job, left) : 0;
    if (done > 0 && !target.is_lun && static_cast<std::uint64_t>(now.st_size) < done)
        return Error(EIO, fmt::format("{} has {} bytes, and {} of it should be done; --no-resume begins anew",
                                      target.path, now.st_size, done));
    if (done > 0)
        if (auto same = check_what_is_done(copy, done); !same) return same.error();
    if (begins_anew && !target.is_lun && !is_new) {
        // What was there may have other names, and other readers.
        const int before = target.descriptor;
        if (::unlink(target.path.c_str()) != 0)
            return Error(errno, fmt::format("{}: unlink: {}", target.path, std::strerror(errno)));
        const auto made = create_target(target, mode);
        ::close(before);
        if (!made) return made.error();
        if (::fstat(target.descriptor, &now) != 0) return Error(errno, target.path);
    }
    if (target.is_lun && job.options.journal.empty()) {
        const std::string directory = job.journal.substr(0, job.journal.rfind('/'));
        for (std::size_t at = directory.find('/', 1);; at = directory.find('/', at + 1)) {
            const int fault = ::mkdir(directory.substr(0, at).c_str(), 0700) != 0 ? errno : 0;
            if (at != std::string::npos) continue;
            if (fault != 0 && fault != EEXIST)
                return Error(fault == ENOENT ? EACCES : fault,
                             fmt::format("{}, where it would be noted how far the copy is, cannot be made: {}; "
                                         "--journal FILE notes it elsewhere",
                                         directory, std::strerror(fault)));
            break;
        }
    }
    copy.journal = {job.source.identity,
                    target.is_lun ? job.target.identity : "",
                    job.source.bytes,
                    done,
                    target.is_lun ? 0 : now.st_ino,
                    job.range()};
    if (done == 0)
        if (auto written = write_journal(job.journal, copy.journal); !written) return written.error();
    copy.journalled = done;
    copy.has_begun = true;
    // Whatever a file has behind what is known to be of this copy goes; what is added are holes.
    if (!target.is_lun)
        if (::ftruncate(target.descriptor, static_cast<off_t>(done)) != 0 ||
            ::ftruncate(target.descriptor, static_cast<off_t>(copy.end)) != 0)
            return Error(errno, fmt::format("{}: {} bytes: {}", target.path, copy.end, std::strerror(errno)));
    return done;
}

// Opens what is written to, and finds out where to begin. Who holds the lock has the journal to himself.
Result<std::uint64_t> begin_target(Pipeline& copy) {
    Disk& target = copy.target;
    if (auto checked = check_journal(copy.job); !checked) return checked.error();
    struct stat source {};
    if (::fstat(copy.source.descriptor, &source) != 0) return Error(errno, copy.job.source.path);
    const mode_t mode = source.st_mode & 0777;
    bool is_new = false;
    if (auto opened = target.open(target.is_lun ? O_RDWR : O_RDWR | O_NOFOLLOW); !opened) {
        is_new = !target.is_lun && opened.error().errno_value() == ENOENT;
        if (!is_new) return opened.error();
        if (auto created = create_target(target, mode); !created) return created.error();
    } else if (auto locked = lock_target(target); !locked) {
        return locked.error();
    }
    auto from = begin_locked_target(copy, mode, is_new);
    if (!from && is_new && !copy.has_begun) ::unlink(target.path.c_str());
    return from;
}

Result<void> give_name(Pipeline& copy) {
    const CopyJob& job = copy.job;
    if (!copy.target.is_lun && ::rename(copy.target.path.c_str(), job.target.path.c_str()) != 0)
        return Error(errno,
                     fmt::format("{}: rename to {}: {}", copy.target.path, job.target.path, std::strerror(errno)));
    if (!copy.target.is_lun) {
        const std::string directory = job.target.path.substr(0, job.target.path.rfind('/') + 1);
        const int descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        const int fault = descriptor < 0 || ::fsync(descriptor) != 0 ? errno : 0;
        if (descriptor >= 0) ::close(descriptor);
        if (fault != 0 && fault != EINVAL)
            return Error(fault, fmt::format("{}: fsync: {}", directory, std::strerror(fault)));
    }
    // A journal that stays, or is there again after a crash, must not be taken for one of a copy to go on with.
    copy.has_begun = false;
    if (!copy.target.is_lun) {
        // The lock is on a file that has another name now: somebody may have begun the next copy.
        const auto left = read_journal(job.journal);
        if (left && *left && (*left)->part_inode != copy.journal.part_inode) return {};
    }
    if (auto removed = remove_journal(job.journal); !removed)
        return Error(removed.error().code, removed.error().context + "; the copy itself is complete");
    return {};
}

// Opening, copying, verifying, and the name.
Result<std::string> Pipeline::conduct() {
    if (auto opened = source.open(O_RDONLY); !opened) return opened.error();
    struct stat now {};
    if (::fstat(source.descriptor, &now) != 0 || static_cast<std::uint64_t>(now.st_size) != job.source.bytes)
        return Error(EINVAL, fmt::format("{} has just changed its size", job.source.path));
    if (auto same = check_identity(job.source); !same) return same.error();
    std::uint64_t holes = 0;
    if (job.options.verifies_only) {
        if (auto opened = target.open(O_RDONLY); !opened) return opened.error();
        if (auto same = check_identity(job.target); !same) return same.error();
    } else {
        const auto from = begin_target(*this);
        if (!from) return from.error();
        if (auto copied = run_phase(CopyProgress::Phase::copying, *from); !copied) return copied.error();
        holes = zeros;
        if (!job.target.is_lun) {
            if (::fsync(target.descriptor) != 0) return target.error("fsync", end, errno);
            if (::fstat(target.descriptor, &now) != 0) return target.error("fstat", end, errno);
            if (static_cast<std::uint64_t>(now.st_size) != end)
                return Error(EIO, fmt::format("{} has {} bytes instead of {}; somebody else changes it", target.path,
                                              now.st_size, end));
        }
    }
    if (job.options.verifies || job.options.verifies_only) {
        for (Disk* disk : {&source, &target}) {
            // What the devices have, not what is in this machine's memory.
            posix_fadvise(disk->descriptor, 0, 0, POSIX_FADV_DONTNEED);
            disk->set_direct(true);
        }
        if (auto same = run_phase(CopyProgress::Phase::verifying, 0); !same) {
            if (same.error().errno_value() != EILSEQ || job.options.verifies_only) return same.error();
            journal.done_bytes = 0;
            journalled = 0;
            if (auto written = write_journal(job.journal, journal); !written) ::unlink(job.journal.c_str());
            return Error(EILSEQ, fmt::format("{}; {} is not to be used", same.error().context, target.path));
        }
    }
    if (!job.options.verifies_only)
        if (auto named = give_name(*this); !named) return named.error();
    return CopyProgress{phase, end, end, holes, before}.text();
}

}  // namespace

Result<std::string> run_copy(const CopyJob& job, const std::atomic<int>& stop, std::chrono::milliseconds silence,
                             Outlet& outlet) {
    // Who has begun this process says when to end, and there is nothing to be done after its end.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::signal(number, SIG_IGN);
    const auto copy = std::make_shared<Pipeline>();
    copy->job = job;
    if (job.options.verifies_only) copy->phase = CopyProgress::Phase::verifying;
    copy->end = job.range().bytes;
    copy->source = {job.source.path, job.source.is_lun, job.range().source_offset};
    copy->target = {job.options.verifies_only ? job.target.path : part_of(job.target), job.target.is_lun,
                    job.range().target_offset};
    for (std::size_t i = 0; i < blocks_in_flight + 1; ++i) {
        Memory memory(static_cast<char*>(std::aligned_alloc(copy_block_min, job.options.block_bytes)));
        if (!memory) return Error(ENOMEM, "no memory for the blocks; --block-size takes less");
        if (i == blocks_in_flight) {
            copy->other = std::move(memory);
        } else {
            copy->spare.push_back(memory.get());
            copy->memory.push_back(std::move(memory));
        }
    }
    std::thread([copy] {
        auto result = copy->conduct();
        const std::lock_guard lock(copy->mutex);
        copy->result = std::move(result);
        copy->changed.notify_all();
    }).detach();

    // Looks are counted instead of time, so that a time in which all of this was stopped (Ctrl-Z) is none.
    std::chrono::milliseconds quiet{0}, leaving{0};
    std::string told;
    const auto unfinished = [&](const Error& error) {
        if (!copy->has_begun || job.options.verifies_only) return error;
        CopyJob again = job;
        again.options.begins_anew = false;
        CopyJournal left{
            job.source.identity, job.target.is_lun ? job.target.identity : "", job.source.bytes, copy->journalled, 0,
            job.range()};
        const bool has_no_room = error.errno_value() == ENOSPC || error.errno_value() == EDQUOT;
        const bool goes_on = left.done_bytes == 0 || resume_offset(again, left) > 0;
        return Error(error.code, fmt::format("{}{}; {} of {} bytes are done, and the same command {}", error.context,
                                             has_no_room ? "; make room" : "", left.done_bytes, copy->end,
                                             goes_on ? "goes on there" : "begins anew"));
    };
    while (true) {
        std::string now;
        {
            std::unique_lock lock(copy->mutex);
            copy->changed.wait_for(lock, look, [&] { return copy->result.has_value(); });
            if (copy->result) {
                // What is over between two looks has gone on somewhere, too.
                if (copy->has_begun || *copy->result) outlet.tell(copy->progress().text());
                if (*copy->result) return *copy->result;
                return unfinished(copy->result->error());
            }
            now = copy->progress().text();
        }
        quiet = now == told ? quiet + look : std::chrono::milliseconds{0};
        if (now != told) outlet.tell(told = now);
        const bool is_silent = silence.count() != 0 && quiet >= silence;
        if (stop == 0 && !is_silent && leaving.count() == 0) continue;
        if (leaving.count() == 0) copy->ask_to_end();
        leaving += look;
        if (is_silent && stop == 0)
            return unfinished(Error(
                ETIMEDOUT, fmt::format("nothing was copied for {} s; --timeout allows more", silence.count() / 1000)));
        if (leaving >= leave)
            return unfinished(Error(EINTR, "interrupted, and left behind, since srpfs does not answer"));
    }
}

}  // namespace srpfs::ctl
