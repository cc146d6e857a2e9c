// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/base/latency.h>

#include <algorithm>
#include <bit>

namespace srpfs {
namespace {

constexpr std::uint64_t fine_end = 16;  // below it each microsecond has a bucket
constexpr unsigned fine_bits = 4, steps_bits = 3;

std::uint64_t microseconds(Duration duration) {
    return duration <= Duration::zero()
               ? 0
               : static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(duration).count());
}

std::size_t bucket_of(std::uint64_t us) {
    if (us < fine_end) return us;
    const auto exponent = static_cast<unsigned>(std::bit_width(us)) - 1;  // 4 or more
    const std::size_t step = (us >> (exponent - steps_bits)) & ((1U << steps_bits) - 1);
    return std::min(latency_buckets - 1, fine_end + (std::size_t{exponent - fine_bits} << steps_bits) + step);
}

}  // namespace

std::size_t latency_bucket_of(Duration duration) { return bucket_of(microseconds(duration)); }

std::uint64_t latency_bucket_end_us(std::size_t bucket) {
    if (bucket < fine_end) return bucket + 1;
    const std::uint64_t octave = (bucket - fine_end) >> steps_bits,
                        step = (bucket - fine_end) & ((1U << steps_bits) - 1);
    return ((1U << steps_bits) + step + 1) << (octave + fine_bits - steps_bits);
}

std::uint64_t LatencySnapshot::quantile_us(unsigned per_mille) const {
    if (count == 0) return 0;
    const std::uint64_t wanted = std::max<std::uint64_t>(1, (count * per_mille + 999) / 1000);
    std::uint64_t seen = 0;
    for (std::size_t bucket = 0; bucket < latency_buckets; ++bucket)
        if ((seen += counts[bucket]) >= wanted) return latency_bucket_end_us(bucket);
    return latency_bucket_end_us(latency_buckets - 1);
}

LatencySnapshot& LatencySnapshot::operator+=(const LatencySnapshot& other) {
    for (std::size_t bucket = 0; bucket < latency_buckets; ++bucket) counts[bucket] += other.counts[bucket];
    count += other.count;
    sum_us += other.sum_us;
    return *this;
}

void LatencyHistogram::record(Duration duration) {
    const std::uint64_t us = microseconds(duration);
    ++counts_[bucket_of(us)];
    sum_us_ += us;
}

LatencySnapshot LatencyHistogram::read() const {
    LatencySnapshot copy;
    for (std::size_t bucket = 0; bucket < latency_buckets; ++bucket)
        copy.count += copy.counts[bucket] = counts_[bucket];
    copy.sum_us = sum_us_;
    return copy;
}

}  // namespace srpfs
