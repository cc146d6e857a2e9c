// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// How many reactors there are, and what they are for.

#pragma once

#include <chrono>
#include <cstddef>
#include <optional>

namespace srpfs::daemon {

struct ReactorPlan {
    unsigned reactors = 1;
    // The first ones, to which targets are given. The others only help: they have neither a fabric nor registered
    // memory, and sleep unless a home has more to do than it can.
    unsigned homes = 1;
};

// `wanted`: as asked for, and then all are homes. Otherwise one is, and what else there is may cost nothing while one
// is enough: helpers, up to four reactors in all, and none where fewer than three of the `processors` are free to be
// used, since user and home have two to do; nor with requests that come through `rings`, which go to the reactor of the
// caller's processor, needed or not.
[[nodiscard]] ReactorPlan plan_reactors(std::optional<unsigned> wanted, unsigned processors, bool rings);

// How long a reactor looks for work before it sleeps, unless that is asked for (-o spin=): not at all where whoever has
// work for it would wait for its processor. 0 processors: not known.
[[nodiscard]] std::chrono::microseconds default_spin(unsigned processors);

// Buffers of a helper: of each it needs few at a time.
inline constexpr unsigned helper_intake_buffers = 12;  // 1 MiB each

}  // namespace srpfs::daemon
