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

extern "C" {
void srpfs_cost_measured(void (*work)(void* context), void* context);
__attribute__((noipa)) void srpfs_cost_measured(void (*work)(void* context), void* context) { work(context); }
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
    srpfs::cost::Path path;
    for (int i = 1; i < count; ++i) {
        const auto* const found = std::find_if(std::begin(srpfs::cost::cases), std::end(srpfs::cost::cases),
                                               [&](const auto& one) { return one.name == arguments[i]; });
        if (found == std::end(srpfs::cost::cases)) {
            std::fprintf(stderr, "cost-path: no case %s\n", arguments[i]);
            return 2;
        }
        srpfs::cost::measure(path, *found);
    }
    if (count == 1)
        for (const auto& one : srpfs::cost::cases) srpfs::cost::measure(path, one);
    return 0;
}
