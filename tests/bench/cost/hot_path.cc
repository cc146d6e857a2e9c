// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// For tests/bench/cost/run, which counts instructions.
//
//   cost-path [CASE...]      a case: read-4k-qd32
//
// Each case warms up, then calls srpfs_cost_measured(), in which nothing but its requests is served.

#include "hot_path.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

extern "C" {
void srpfs_cost_measured(void (*work)(void* context), void* context);
__attribute__((noinline)) void srpfs_cost_measured(void (*work)(void* context), void* context) { work(context); }
}

namespace srpfs::cost {
namespace {

void measure(Path& path, const Case& one) {
    path.begin(one);
    srpfs_cost_measured([](void* context) { static_cast<Path*>(context)->run(kernel.now.batches); }, &path);
    std::printf("%s %u\n", std::string(one.name).c_str(), one.depth * one.batches);
}

}  // namespace
}  // namespace srpfs::cost

int main(int count, char** arguments) {
    using namespace srpfs::cost;
    const std::string missing = ring_missing();
    const std::vector<std::string> wanted(arguments + 1, arguments + count);
    for (const std::string& name : wanted) {
        const auto* const found =
            std::find_if(std::begin(cases), std::end(cases), [&](const Case& one) { return one.name == name; });
        if (found == std::end(cases) || (found->way == Way::ring && !missing.empty())) {
            std::fprintf(stderr, "cost-path: no case %s%s%s\n", name.c_str(), missing.empty() ? "" : "; ",
                         missing.c_str());
            return 2;
        }
    }
    for (const Way way : ways) {
        if (way == Way::ring && !missing.empty()) continue;
        std::vector<const Case*> chosen;
        for (const Case& one : cases)
            if (one.way == way && (wanted.empty() || std::find(wanted.begin(), wanted.end(), one.name) != wanted.end()))
                chosen.push_back(&one);
        if (chosen.empty()) continue;
        Path path(way);
        for (const Case* one : chosen) measure(path, *one);
    }
    return 0;
}
