// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Seeded randomness, given at construction to everybody who needs some: a run is reproducible from its seed.
// Not for secrets.

#pragma once

#include <srpfs/base/assert.h>

#include <cstdint>
#include <random>

namespace srpfs {

class Random {
public:
    explicit Random(std::uint64_t seed) : engine_(seed) {}

    std::uint64_t next() { return engine_(); }

    // Uniform in [0, bound). `bound` > 0. Our own reduction, because std::uniform_int_distribution differs
    // between standard libraries and a seed must mean the same run everywhere.
    std::uint64_t below(std::uint64_t bound) {
        SRPFS_ASSERT(bound > 0);
        return static_cast<std::uint64_t>((static_cast<Uint128>(engine_()) * bound) >> 64);
    }
    // Uniform in [low, high].
    std::uint64_t between(std::uint64_t low, std::uint64_t high) { return low + below(high - low + 1); }
    // True `numerator` times out of `denominator`.
    bool chance(std::uint64_t numerator, std::uint64_t denominator) { return below(denominator) < numerator; }

private:
    __extension__ using Uint128 = unsigned __int128;
    std::mt19937_64 engine_;
};

}  // namespace srpfs
