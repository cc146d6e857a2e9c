// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Reads and writes a file for a while, through whatever happens to it, and tells whether every byte was what it may be:
//
//     srpfs-history [--reads-must-succeed | --all-must-succeed] [--patience SECONDS] SECONDS FILE...
//
// Each file has threads of its own, each thread an area of its own. Every 4 KiB are stamped with where they belong and
// with a number that grows with each write. A read has to give the last acknowledged write of that place, or one that
// failed after it: a write that failed may have been carried out, but never after a later one was acknowledged. A file
// that is gone, or whose server is gone, is opened again until it is back. At the end everything is read once more,
// for which it may take --patience to come back (40). SIGTERM ends it early, with everything read once more.
// Prints what was done. Exit status 1: wrong bytes; 3: a read or write failed and must not have; 4: the end could not
// be read.

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace {

using Clock = std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr std::size_t unit_bytes = 4096;
constexpr unsigned units_per_request_max = 16;
constexpr unsigned threads_per_file = 4;
constexpr unsigned units_per_thread = 256;

struct Counters {
    std::atomic<unsigned> reads = 0, writes = 0, reads_failed = 0, writes_failed = 0, wrong = 0, opens = 0;
    std::atomic<unsigned> unread = 0;
    std::mutex mutex;
    std::map<std::string, unsigned> errors;
    std::int64_t longest_ms = 0;

    void failed(const char* what, int error) {
        const std::lock_guard lock(mutex);
        ++errors[std::string(what) + ": " + std::strerror(error)];
    }
    void took(Clock::duration time) {
        const std::lock_guard lock(mutex);
        longest_ms =
            std::max<std::int64_t>(longest_ms, std::chrono::duration_cast<std::chrono::milliseconds>(time).count());
    }
};

std::atomic<bool> told_to_end = false;
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler writes it");

struct Free {
    void operator()(void* memory) const { std::free(memory); }
};
using Buffer = std::unique_ptr<std::uint64_t[], Free>;
constexpr std::size_t unit_words = unit_bytes / sizeof(std::uint64_t);

void stamp(std::uint64_t* unit, std::uint64_t place, std::uint64_t number) {
    std::uint64_t state = place * 0x9e3779b97f4a7c15 + number;
    unit[0] = place;
    unit[1] = number;
    for (std::size_t word = 2; word < unit_words; ++word) {
        state = state * 6364136223846793005 + 1442695040888963407;
        unit[word] = state;
    }
}

class Worker {
public:
    Worker(std::string path, unsigned area, std::chrono::seconds patience, Counters& counters)
        : path_(std::move(path)), first_unit_(std::uint64_t{area} * units_per_thread), patience_(patience),
          counters_(counters), random_(std::random_device{}()),
          buffer_(static_cast<std::uint64_t*>(std::aligned_alloc(4096, units_per_request_max * unit_bytes))),
          places_(units_per_thread) {}

    void run(Clock::time_point end) {
        while (Clock::now() < end && !told_to_end) {
            if (!reopen()) {
                std::this_thread::sleep_for(100ms);
                continue;
            }
            const unsigned count = 1 + static_cast<unsigned>(random_() % units_per_request_max);
            const unsigned first = static_cast<unsigned>(random_() % (units_per_thread - count + 1));
            if (random_() % 3 == 0)
                read(first, count);
            else
                write(first, count);
        }
        // Whatever was broken is given time to come back.
        for (const auto limit = Clock::now() + patience_;;) {
            if (reopen() && read_all()) break;
            if (Clock::now() > limit) {
                ++counters_.unread;
                break;
            }
            std::this_thread::sleep_for(200ms);
        }
        if (file_ >= 0) close(file_);
    }

private:
    struct Place {
        std::uint64_t acknowledged = 0;       // the last number that was acknowledged
        std::uint64_t submitted = 0;          // the last number that was tried
        std::vector<std::uint64_t> in_doubt;  // failed after it
    };

    bool reopen() {
        if (file_ >= 0) return true;
        file_ = open(path_.c_str(), O_RDWR | O_CLOEXEC);
        if (file_ >= 0) ++counters_.opens;
        return file_ >= 0;
    }

    // EIO is an answer about this request; everything else says that the file is not what it was.
    void after_error(const char* what, int error) {
        counters_.failed(what, error);
        if (error == EIO) return;
        close(file_);
        file_ = -1;
    }

    void write(unsigned first, unsigned count) {
        for (unsigned unit = 0; unit < count; ++unit) {
            Place& place = places_[first + unit];
            stamp(buffer_.get() + unit * unit_words, first_unit_ + first + unit, ++place.submitted);
        }
        const auto started = Clock::now();
        const ssize_t done = pwrite(file_, buffer_.get(), count * unit_bytes, offset(first));
        const int error = errno;
        counters_.took(Clock::now() - started);
        const bool all = done == static_cast<ssize_t>(count * unit_bytes);
        for (unsigned unit = 0; unit < count; ++unit) {
            Place& place = places_[first + unit];
            if (done >= static_cast<ssize_t>((unit + 1) * unit_bytes)) {
                place.acknowledged = place.submitted;
                place.in_doubt.clear();
            } else {
                place.in_doubt.push_back(place.submitted);
            }
        }
        ++(all ? counters_.writes : counters_.writes_failed);
        if (!all) after_error("write", done < 0 ? error : EIO);
    }

    bool read(unsigned first, unsigned count) {
        std::memset(buffer_.get(), 0xa5, count * unit_bytes);
        const auto started = Clock::now();
        const ssize_t done = pread(file_, buffer_.get(), count * unit_bytes, offset(first));
        const int error = errno;
        counters_.took(Clock::now() - started);
        if (done != static_cast<ssize_t>(count * unit_bytes)) {
            ++counters_.reads_failed;
            after_error("read", done < 0 ? error : EIO);
            return false;
        }
        ++counters_.reads;
        for (unsigned unit = 0; unit < count; ++unit) check(first + unit, buffer_.get() + unit * unit_words);
        return true;
    }

    bool read_all() {
        for (unsigned first = 0; first < units_per_thread; first += units_per_request_max)
            if (!read(first, units_per_request_max)) return false;
        return true;
    }

    void check(unsigned index, const std::uint64_t* unit) {
        const Place& place = places_[index];
        // Before the first acknowledged write there can be anything, an earlier run's stamps included.
        if (place.acknowledged == 0) return;
        const std::uint64_t number = unit[1];
        bool allowed = number == place.acknowledged;
        for (const std::uint64_t one : place.in_doubt) allowed = allowed || number == one;
        std::vector<std::uint64_t> wanted(unit_words);
        stamp(wanted.data(), first_unit_ + index, number);
        if (allowed && std::memcmp(wanted.data(), unit, unit_bytes) == 0) return;
        if (++counters_.wrong <= 5)
            std::fprintf(stderr,
                         "%s: unit %llu is unit %llu number %llu%s; acknowledged %llu, submitted %llu, %zu in doubt\n",
                         path_.c_str(), static_cast<unsigned long long>(first_unit_ + index),
                         static_cast<unsigned long long>(unit[0]), static_cast<unsigned long long>(number),
                         allowed ? " with a wrong body" : "", static_cast<unsigned long long>(place.acknowledged),
                         static_cast<unsigned long long>(place.submitted), place.in_doubt.size());
    }

    [[nodiscard]] off_t offset(unsigned first) const { return static_cast<off_t>((first_unit_ + first) * unit_bytes); }

    std::string path_;
    std::uint64_t first_unit_;
    std::chrono::seconds patience_;
    Counters& counters_;
    std::mt19937_64 random_;
    Buffer buffer_;
    std::vector<Place> places_;
    int file_ = -1;
};

}  // namespace

int main(int argc, char** argv) {
    std::vector<std::string> words(argv + 1, argv + argc);
    const bool all_must_succeed = !words.empty() && words[0] == "--all-must-succeed";
    const bool reads_must_succeed = all_must_succeed || (!words.empty() && words[0] == "--reads-must-succeed");
    if (reads_must_succeed) words.erase(words.begin());
    std::chrono::seconds patience = 40s;
    if (words.size() > 1 && words[0] == "--patience") {
        patience = std::chrono::seconds(std::atoi(words[1].c_str()));
        words.erase(words.begin(), words.begin() + 2);
    }
    if (words.size() < 2 || std::atoi(words[0].c_str()) < 1) {
        std::fprintf(
            stderr,
            "usage: srpfs-history [--reads-must-succeed | --all-must-succeed] [--patience SECONDS] SECONDS FILE...\n");
        return 2;
    }
    std::signal(SIGTERM, [](int) { told_to_end = true; });
    Counters counters;
    const auto end = Clock::now() + std::chrono::seconds(std::atoi(words[0].c_str()));
    std::vector<std::thread> threads;
    for (std::size_t file = 1; file < words.size(); ++file)
        for (unsigned area = 0; area < threads_per_file; ++area)
            threads.emplace_back([&, file, area] { Worker(words[file], area, patience, counters).run(end); });
    for (std::thread& thread : threads) thread.join();

    std::printf("%u writes, %u failed; %u reads, %u failed; opened %u times; longest %lld ms; %u wrong\n",
                counters.writes.load(), counters.writes_failed.load(), counters.reads.load(),
                counters.reads_failed.load(), counters.opens.load(), static_cast<long long>(counters.longest_ms),
                counters.wrong.load());
    for (const auto& [error, count] : counters.errors) std::printf("%s: %u times\n", error.c_str(), count);
    if (counters.wrong > 0) return 1;
    if (counters.unread > 0) return 4;
    const bool failed =
        (reads_must_succeed && counters.reads_failed > 0) || (all_must_succeed && counters.writes_failed > 0);
    return failed ? 3 : 0;
}
