// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A number that one thread writes and any may read, without a locked instruction.

#pragma once

#include <atomic>
#include <cstdint>

namespace srpfs {

// False in one build that nobody uses, which tests/bench/statistics compares with this one: what counting costs. Counts
// and histograms stay at zero there. Nothing but statistics may be a Count.
#ifdef SRPFS_WITHOUT_STATISTICS
inline constexpr bool has_statistics = false;
#else
inline constexpr bool has_statistics = true;
#endif

class Count {
public:
    Count& operator+=(std::uint64_t more) {
        if constexpr (has_statistics)
            value_.store(value_.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
        else
            static_cast<void>(more);
        return *this;
    }
    Count& operator++() { return *this += 1; }
    operator std::uint64_t() const { return value_.load(std::memory_order_relaxed); }

private:
    std::atomic<std::uint64_t> value_{0};
};

}  // namespace srpfs
