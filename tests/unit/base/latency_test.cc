// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/base/latency.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace srpfs {
namespace {

using namespace std::chrono_literals;

TEST(Latency, EveryBucketBeginsWhereTheOneBeforeEnds) {
    for (std::size_t bucket = 0; bucket + 1 < latency_buckets; ++bucket) {
        const auto end = std::chrono::microseconds(latency_bucket_end_us(bucket));
        ASSERT_EQ(latency_bucket_of(end - 1us), bucket);
        ASSERT_EQ(latency_bucket_of(end), bucket + 1);
    }
    EXPECT_EQ(latency_bucket_end_us(latency_buckets - 1), std::uint64_t{1} << 30);
}

TEST(Latency, WhatIsOutOfRangeIsInTheFirstAndTheLastBucket) {
    EXPECT_EQ(latency_bucket_of(-1s), 0u);
    EXPECT_EQ(latency_bucket_of(999ns), 0u);
    EXPECT_EQ(latency_bucket_of(24h), latency_buckets - 1);
    EXPECT_EQ(latency_bucket_of(Duration::max()), latency_buckets - 1);
}

TEST(Latency, AQuantileIsAtMostAnEighthTooMuch) {
    LatencyHistogram histogram;
    std::vector<std::uint64_t> all;
    for (std::uint64_t i = 0; i < 5000; ++i) {
        const std::uint64_t us = i * i % 9973 * (i % 7 + 1);
        all.push_back(us);
        histogram.add(std::chrono::microseconds(us));
    }
    std::sort(all.begin(), all.end());
    const auto snapshot = histogram.read();
    EXPECT_EQ(snapshot.count, all.size());
    for (const unsigned per_mille : {1u, 100u, 500u, 900u, 990u, 999u, 1000u}) {
        const std::uint64_t real = all[(all.size() * per_mille + 999) / 1000 - 1];
        const std::uint64_t told = snapshot.quantile_us(per_mille);
        EXPECT_GT(told, real) << per_mille;
        EXPECT_LE(told, real + real / 8 + 1) << per_mille;
    }
}

TEST(Latency, NothingHasNoQuantiles) {
    const auto snapshot = LatencyHistogram().read();
    EXPECT_EQ(snapshot.quantile_us(500), 0u);
    EXPECT_EQ(snapshot.count, 0u);
}

}  // namespace
}  // namespace srpfs
