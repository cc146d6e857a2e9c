// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// srpfs-simulation: runs worlds from seeds, in child processes: one for each processor, and so that a broken invariant
// (which ends the process) is the end of one seed and not of the search.

#include "world.h"

#include <srpfs/base/log.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <sys/mman.h>
#include <sys/prctl.h>
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
    unsigned jobs = 0;  // 0: as many as there are processors
};

constexpr unsigned jobs_max = 64;

// Shared with the children.
struct Worker {
    std::atomic<std::uint64_t> seed;
    std::atomic<std::uint64_t> done;
    Statistics statistics;
};
struct Progress {
    std::atomic<std::uint64_t> next;  // position in the order of the seeds
    std::atomic<bool> stop;
    std::array<Worker, jobs_max> workers;
};

// The seeds in their order: first those that found something once.
class Seeds {
public:
    explicit Seeds(const Options& options)
        : first_(options.first), regressions_(options.regressions ? std::size(regressions) : 0),
          count_(options.count > UINT64_MAX - regressions_ ? UINT64_MAX : options.count + regressions_) {}
    [[nodiscard]] std::uint64_t count() const { return count_; }
    [[nodiscard]] std::uint64_t at(std::uint64_t position) const {
        return position < regressions_ ? regressions[position].seed : first_ + (position - regressions_);
    }

private:
    std::uint64_t first_, regressions_, count_;
};

void usage() {
    std::fputs(
        "usage: srpfs-simulation [options]\n"
        "  --seeds N          run N seeds (default 1000)\n"
        "  --first S          beginning with S (default 1)\n"
        "  --seed S           run this one only\n"
        "  --hours H          go on for so long, from a seed taken from the clock\n"
        "  --jobs N           so many at a time (default: one for each processor)\n"
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
            options.jobs = 1;
            options.regressions = false;
        } else if (name == "--hours") {
            options.hours = std::strtod(needed().c_str(), nullptr);
            options.first = static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch().count());
            options.count = UINT64_MAX;
        } else if (name == "--jobs") {
            options.jobs = static_cast<unsigned>(std::strtoul(needed().c_str(), nullptr, 0));
            if (options.jobs < 1 || options.jobs > jobs_max) return false;
        } else if (name == "--verbose") {
            options.verbose = true;
            options.jobs = 1;
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

// In the child: runs seeds until one fails or none is left; the exit status tells.
template <typename IsOver>
[[noreturn]] void work(const Seeds& seeds, const Options& options, Progress& progress, Worker& worker,
                       IsOver&& is_over) {
    if (options.verbose)
        log::configure(log::Destination::standard_error, log::Level::debug);
    else
        log::configure(log::Destination::none, log::Level::error);
    while (!is_over() && !progress.stop) {
        const std::uint64_t position = progress.next++;
        if (position >= seeds.count()) break;
        const std::uint64_t seed = seeds.at(position);
        worker.seed = seed;
        const Outcome outcome = run_world(seed, options.verbose);
        worker.statistics.add(outcome.statistics);
        ++worker.done;
        if (options.verbose) fmt::print(stderr, "seed {}: {}\n", seed, outcome.plan);
        if (!outcome.violation) continue;
        if (!options.expect_failure)
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
    auto& progress = *new (memory) Progress{};
    const Seeds seeds(options);
    const auto began = std::chrono::steady_clock::now();
    const auto elapsed = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    };
    const auto is_over = [&] { return options.hours > 0 && elapsed() > options.hours * 3600; };
    const unsigned jobs = options.jobs ? options.jobs : std::clamp(std::thread::hardware_concurrency(), 1U, jobs_max);

    std::vector<std::uint64_t> failures;
    std::map<pid_t, Worker*> children;
    const auto start = [&](Worker& worker) {
        std::fflush(stdout);
        const pid_t child = fork();
        if (child == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);  // whoever ends the search ends all of it
            work(seeds, options, progress, worker, is_over);
        }
        if (child > 0) children[child] = &worker;
        return child > 0;
    };
    for (unsigned i = 0; i < jobs; ++i)
        if (!start(progress.workers[i])) return 2;
    while (!children.empty()) {
        int status = 0;
        const pid_t child = wait(&status);
        const auto found = children.find(child);
        if (found == children.end()) continue;
        Worker& worker = *found->second;
        children.erase(found);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
        const std::uint64_t seed = worker.seed;
        failures.push_back(seed);
        if (!WIFEXITED(status) && !options.expect_failure)
            fmt::print(
                "seed {} FAILED: the program ended by signal {} (a broken invariant?)\n"
                "  reproduce: srpfs-simulation --seed={} --verbose\n",
                seed, WTERMSIG(status), seed);
        for (const Regression& regression : regressions)
            if (regression.seed == seed && options.regressions) fmt::print("  (regression: {})\n", regression.name);
        if (!options.keep_going) progress.stop = true;
        if (!start(worker)) return 2;
    }

    Statistics sum;
    std::uint64_t done = 0;
    for (const Worker& worker : progress.workers) {
        sum.add(worker.statistics);
        done += worker.done;
    }
    fmt::print(
        "{} seeds, {} failed, {:.1f} s; {} requests ({} reads, {} writes, {} of them zeroing, {} truncations, {} "
        "flushes, {} unaligned), {} handed to another reactor, {} failed, "
        "{} interrupted, {} MiB checked; {} logins, {} reconnects, {} ghosts, {} retries, {} late writes, {} task "
        "management, {} lost caches told; {} orders of reservations, {} fencings, {} registrations found lost, {} "
        "repeated, "
        "{} conflicts; {:.1f} h of virtual time, {} steps\n",
        done, failures.size(), elapsed(), sum.operations, sum.reads, sum.writes, sum.zeroings, sum.truncations,
        sum.flushes, sum.unaligned, sum.handed_over, sum.failed, sum.interrupted, sum.bytes_checked >> 20, sum.logins,
        sum.reconnects, sum.ghosts, sum.retries, sum.late_writes, sum.fences, sum.cache_losses_told,
        sum.reservation_orders, sum.fencings, sum.registrations_lost, sum.registrations_repeated, sum.conflicts,
        sum.seconds / 3600, sum.steps);
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
