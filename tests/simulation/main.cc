// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// srpfs-simulation: runs worlds from seeds. Each batch runs in a child process, so that a broken invariant (which ends
// the process) is the end of one seed and not of the search.

#include "world.h"

#include <srpfs/base/log.h>

#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

namespace srpfs::simulation {
namespace {

struct Regression {
    std::uint64_t seed;
    const char* name;  // what went wrong once
};
#include "regressions.inc"

struct Options {
    std::uint64_t first = 1;
    std::uint64_t count = 1000;
    double hours = 0;
    bool verbose = false;
    bool keep_going = false;
    bool expect_failure = false;  // of a build with a defect on purpose
    bool regressions = true;
    bool single = false;
    unsigned seconds_max = 0;
};

// Shared with the children.
struct Progress {
    std::atomic<std::uint64_t> seed;
    std::atomic<std::uint64_t> done;
    Statistics statistics;
};

void usage() {
    std::fputs(
        "usage: srpfs-simulation [options]\n"
        "  --seeds N          run N seeds (default 1000)\n"
        "  --first S          beginning with S (default 1)\n"
        "  --seed S           run this one only\n"
        "  --hours H          go on for so long, from a seed taken from the clock\n"
        "  --verbose          tell what happens\n"
        "  --keep-going       do not stop at the first failure\n"
        "  --expect-failure   succeed if some seed fails (for builds with a defect on purpose)\n",
        stderr);
}

bool parse(int argc, char** argv, Options& options) {
    for (int i = 1; i < argc; ++i) {
        std::string_view name = argv[i];
        std::string value;
        const auto equals = name.find('=');
        if (equals != std::string_view::npos) {
            value = name.substr(equals + 1);
            name = name.substr(0, equals);
        }
        const auto needed = [&] {
            if (value.empty() && i + 1 < argc) value = argv[++i];
            return value;
        };
        if (name == "--seeds") {
            options.count = std::strtoull(needed().c_str(), nullptr, 0);
        } else if (name == "--first") {
            options.first = std::strtoull(needed().c_str(), nullptr, 0);
        } else if (name == "--seed") {
            options.first = std::strtoull(needed().c_str(), nullptr, 0);
            options.count = 1;
            options.single = true;
            options.regressions = false;
        } else if (name == "--hours") {
            options.hours = std::strtod(needed().c_str(), nullptr);
            options.first = static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch().count());
            options.count = UINT64_MAX;
        } else if (name == "--verbose") {
            options.verbose = true;
        } else if (name == "--keep-going") {
            options.keep_going = true;
        } else if (name == "--expect-failure") {
            options.expect_failure = true;
            options.regressions = false;
        } else {
            return false;
        }
    }
    return true;
}

// In the child: runs seeds until one fails or `is_over`; the exit status tells.
template <typename IsOver>
[[noreturn]] void run_batch(const std::vector<std::uint64_t>& seeds, bool verbose, bool quiet, Progress& progress,
                            IsOver&& is_over) {
    if (verbose)
        log::configure(log::Destination::standard_error, log::Level::debug);
    else
        log::configure(log::Destination::none, log::Level::error);
    for (const std::uint64_t seed : seeds) {
        if (is_over()) break;
        progress.seed = seed;
        const Outcome outcome = run_world(seed, verbose);
        progress.statistics.add(outcome.statistics);
        ++progress.done;
        if (verbose) fmt::print(stderr, "seed {}: {}\n", seed, outcome.plan);
        if (!outcome.violation) continue;
        if (!quiet)
            fmt::print("seed {} FAILED {}\n  faults: {}\n  reproduce: srpfs-simulation --seed={} --verbose\n", seed,
                       *outcome.violation, outcome.plan, seed);
        std::fflush(stdout);
        _exit(1);
    }
    std::fflush(stdout);
    _exit(0);
}

int run(const Options& options) {
    void* memory = mmap(nullptr, sizeof(Progress), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return 2;
    auto& progress = *new (memory) Progress;
    const auto began = std::chrono::steady_clock::now();
    const auto elapsed = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    };
    const auto is_over = [&] { return options.hours > 0 && elapsed() > options.hours * 3600; };

    std::vector<std::uint64_t> failures;
    std::vector<std::uint64_t> list;
    if (options.regressions)
        for (const Regression& regression : regressions) list.push_back(regression.seed);
    std::uint64_t next = options.first, left = options.count;
    while (!is_over()) {
        for (; left > 0 && list.size() < 500; --left) list.push_back(next++);
        if (list.empty()) break;
        std::fflush(stdout);
        const pid_t child = fork();
        if (child < 0) return 2;
        if (child == 0) run_batch(list, options.verbose, options.expect_failure, progress, is_over);
        int status = 0;
        waitpid(child, &status, 0);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
            list.clear();
            continue;
        }
        const std::uint64_t seed = progress.seed;
        failures.push_back(seed);
        if (!WIFEXITED(status) && !options.expect_failure)
            fmt::print(
                "seed {} FAILED: the program ended by signal {} (a broken invariant?)\n"
                "  reproduce: srpfs-simulation --seed={} --verbose\n",
                seed, WTERMSIG(status), seed);
        for (const Regression& regression : regressions)
            if (regression.seed == seed && options.regressions) fmt::print("  (regression: {})\n", regression.name);
        if (!options.keep_going) break;
        list.erase(list.begin(), std::find(list.begin(), list.end(), seed) + 1);
    }

    const Statistics& sum = progress.statistics;
    const std::uint64_t done = progress.done;
    fmt::print(
        "{} seeds, {} failed, {:.1f} s; {} requests ({} reads, {} writes, {} flushes, {} unaligned), {} failed, "
        "{} interrupted, {} MiB checked; {} logins, {} reconnects, {} ghosts, {} retries, {} late writes, {} task "
        "management, {} lost caches told; {:.1f} h of virtual time, {} steps\n",
        done, failures.size(), elapsed(), sum.operations, sum.reads, sum.writes, sum.flushes, sum.unaligned, sum.failed,
        sum.interrupted, sum.bytes_checked >> 20, sum.logins, sum.reconnects, sum.ghosts, sum.retries, sum.late_writes,
        sum.fences, sum.cache_losses_told, sum.seconds / 3600, sum.steps);
    if (options.expect_failure) {
        if (failures.empty()) {
            fmt::print("the defect was NOT caught\n");
            return 1;
        }
        fmt::print("the defect was caught by seed {} after {} seeds\n", failures.front(), done);
        return 0;
    }
    if (!failures.empty()) {
        fmt::print("failing seeds:");
        for (const std::uint64_t seed : failures) fmt::print(" {}", seed);
        fmt::print("\n");
    }
    return failures.empty() ? 0 : 1;
}

}  // namespace
}  // namespace srpfs::simulation

int main(int argc, char** argv) {
    srpfs::simulation::Options options;
    if (!srpfs::simulation::parse(argc, argv, options)) {
        srpfs::simulation::usage();
        return 2;
    }
    return srpfs::simulation::run(options);
}
