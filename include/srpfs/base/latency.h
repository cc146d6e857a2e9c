// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// How long things took: a histogram of fixed size whose buckets are an eighth of their value wide.

#pragma once

#include <srpfs/base/count.h>
#include <srpfs/base/instant.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace srpfs {

// Buckets of 1 us each below 16 us, then eight for each power of two, up to 2^30 us (18 minutes); the last one has
// everything beyond.
inline constexpr std::size_t latency_buckets = 16 + (30 - 4) * 8;

[[nodiscard]] std::size_t latency_bucket_of(Duration duration);  // negative: 0
[[nodiscard]] std::uint64_t latency_bucket_end_us(
    std::size_t bucket);  // microseconds below this belong to it, or before

// A copy, for reading.
struct LatencySnapshot {
    std::array<std::uint64_t, latency_buckets> counts{};
    std::uint64_t count = 0;
    std::uint64_t sum_us = 0;

    // The end of the bucket in which `per_mille` of all are, in microseconds, at most 12.5 % too much (1 us below
    // 16 us); 0 without any. per_mille: 1..1000.
    [[nodiscard]] std::uint64_t quantile_us(unsigned per_mille) const;
    LatencySnapshot& operator+=(const LatencySnapshot& other);
};

// One thread adds, any reads. A reader may see the parts of a record one after the other.
class LatencyHistogram {
public:
    void add(Duration duration) {
        if constexpr (has_statistics)
            record(duration);
        else
            static_cast<void>(duration);
    }
    [[nodiscard]] LatencySnapshot read() const;

private:
    void record(Duration duration);
    std::array<Count, latency_buckets> counts_;
    Count sum_us_;
};

}  // namespace srpfs
