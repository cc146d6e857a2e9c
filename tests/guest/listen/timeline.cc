// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Writes and reads a file or a block device for a while, 4 KiB at a time past all caches, and prints when what
// happened:
//
//     srpfs-timeline [--threads N] [--state FILE] SECONDS FILE
//
// Lines, each beginning with milliseconds of the wall clock (what bash has in EPOCHREALTIME):
//
//     MS state WORD               the content of --state has changed to this
//     MS error read|write ERRNO AFTER-MS    a request failed, that long after it was begun
//     MS resumed MS-AWAY          a request succeeded, and its thread had had no success for this long (400 ms or more)
//     MS waiting N                N threads have had no success for 400 ms or more
//     MS stuck MS-AWAY            at the end: a thread waits since then, and will not be waited for
//     MS end REQUESTS ERRORS
//
// Every thread has 64 KiB of its own; reads are compared with what was written last and acknowledged. SIGTERM ends it
// early. Exit status 1: wrong bytes; 5: a thread is stuck.

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

namespace {

constexpr std::size_t block = 4096;
constexpr unsigned places = 16;
constexpr std::int64_t away_ms_min = 400;
constexpr std::int64_t grace_ms = 3000;

std::atomic<bool> told_to_end = false;

std::int64_t now_ms() {
    using namespace std::chrono;
    return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

struct Shared {
    std::string path;
    std::int64_t end_ms = 0;
    std::atomic<unsigned> requests = 0, errors = 0, wrong = 0;
};

struct Thread {
    std::atomic<std::int64_t> succeeded_ms = 0;
    std::atomic<bool> ended = false;
};

// A thread may outlive the patience of main: what both touch is shared.
void work(const std::shared_ptr<Shared>& shared, const std::shared_ptr<Thread>& me, unsigned number) {
    auto* const buffer = static_cast<std::uint64_t*>(std::aligned_alloc(block, block));
    std::uint64_t written[places] = {}, next = static_cast<std::uint64_t>(now_ms()) << 20;
    const int file = open(shared->path.c_str(), O_RDWR | O_DIRECT | O_CLOEXEC);
    if (file < 0) {
        std::fprintf(stderr, "%s: %s\n", shared->path.c_str(), std::strerror(errno));
        std::_Exit(2);
    }
    me->succeeded_ms = now_ms();
    for (unsigned turn = 0; now_ms() < shared->end_ms && !told_to_end; ++turn) {
        const unsigned place = turn / 2 % places;
        const bool write = turn % 2 == 0;
        const auto offset = static_cast<off_t>((std::size_t{number} * places + place) * block);
        if (write) {
            ++next;
            for (std::size_t word = 0; word < block / 8; ++word) buffer[word] = next + word;
        }
        const std::int64_t begun = now_ms();
        const ssize_t done = write ? pwrite(file, buffer, block, offset) : pread(file, buffer, block, offset);
        const int error = done < 0 ? errno : done == static_cast<ssize_t>(block) ? 0 : EIO;
        const std::int64_t now = now_ms();
        ++shared->requests;
        if (error) {
            ++shared->errors;
            if (write) written[place] = 0;  // nobody knows
            std::printf("%lld error %s %d %lld\n", static_cast<long long>(now), write ? "write" : "read", error,
                        static_cast<long long>(now - begun));
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
            continue;
        }
        if (now - me->succeeded_ms >= away_ms_min)
            std::printf("%lld resumed %lld\n", static_cast<long long>(now),
                        static_cast<long long>(now - me->succeeded_ms));
        me->succeeded_ms = now;
        if (write) {
            written[place] = next;
        } else if (written[place] != 0) {
            for (std::size_t word = 0; word < block / 8; ++word)
                if (buffer[word] != written[place] + word) {
                    if (++shared->wrong == 1) std::fprintf(stderr, "thread %u place %u: wrong bytes\n", number, place);
                    break;
                }
        }
    }
    me->ended = true;
    // The file is left to the end of the program: closing may wait.
}

std::string content(const std::string& path) {
    char text[64] = {};
    const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return "gone";
    const ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    std::string word(text, length > 0 ? static_cast<std::size_t>(length) : 0);
    while (!word.empty() && word.back() == '\n') word.pop_back();
    return word.empty() ? "gone" : word;
}

}  // namespace

int main(int argc, char** argv) {
    std::vector<std::string> words(argv + 1, argv + argc);
    unsigned count = 4;
    std::string state_file;
    while (words.size() > 2 && words[0].starts_with("--")) {
        if (words[0] == "--threads")
            count = static_cast<unsigned>(std::atoi(words[1].c_str()));
        else
            state_file = words[1];
        words.erase(words.begin(), words.begin() + 2);
    }
    if (words.size() != 2 || std::atoi(words[0].c_str()) < 1 || count < 1) {
        std::fprintf(stderr, "usage: srpfs-timeline [--threads N] [--state FILE] SECONDS FILE\n");
        return 2;
    }
    std::setvbuf(stdout, nullptr, _IOLBF, 0);
    std::signal(SIGTERM, [](int) { told_to_end = true; });

    const auto shared = std::make_shared<Shared>();
    shared->path = words[1];
    shared->end_ms = now_ms() + std::int64_t{1000} * std::atoi(words[0].c_str());
    std::vector<std::shared_ptr<Thread>> threads;
    for (unsigned number = 0; number < count; ++number) {
        threads.push_back(std::make_shared<Thread>());
        std::thread(work, shared, threads.back(), number).detach();
    }
    std::string state;
    unsigned waiting = 0;
    std::int64_t ending_ms = 0;
    for (;;) {
        if (!state_file.empty()) {
            const std::string word = content(state_file);
            if (word != state) std::printf("%lld state %s\n", static_cast<long long>(now_ms()), word.c_str());
            state = word;
        }
        unsigned now_waiting = 0;
        for (const auto& thread : threads)
            if (!thread->ended && thread->succeeded_ms != 0 && now_ms() - thread->succeeded_ms >= away_ms_min)
                ++now_waiting;
        if (now_waiting != waiting) std::printf("%lld waiting %u\n", static_cast<long long>(now_ms()), now_waiting);
        waiting = now_waiting;
        bool ended = true;
        for (const auto& thread : threads) ended = ended && thread->ended;
        if (ended) break;
        const std::int64_t now = now_ms();
        if (ending_ms == 0 && (now >= shared->end_ms || told_to_end)) ending_ms = now;
        if (ending_ms != 0 && now > ending_ms + grace_ms) break;
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    bool stuck = false;
    for (const auto& thread : threads) {
        if (thread->ended) continue;
        stuck = true;
        std::printf("%lld stuck %lld\n", static_cast<long long>(now_ms()),
                    static_cast<long long>(now_ms() - thread->succeeded_ms));
    }
    std::printf("%lld end %u %u\n", static_cast<long long>(now_ms()), shared->requests.load(), shared->errors.load());
    std::fflush(stdout);
    std::_Exit(shared->wrong > 0 ? 1 : stuck ? 5 : 0);
}
