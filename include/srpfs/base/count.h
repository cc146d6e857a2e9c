// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A number that one thread writes and any may read, without a locked instruction.

#pragma once

#include <atomic>
#include <cstdint>

namespace srpfs {

class Count {
public:
    Count& operator+=(std::uint64_t more) {
        value_.store(value_.load(std::memory_order_relaxed) + more, std::memory_order_relaxed);
        return *this;
    }
    Count& operator++() { return *this += 1; }
    operator std::uint64_t() const { return value_.load(std::memory_order_relaxed); }

private:
    std::atomic<std::uint64_t> value_{0};
};

}  // namespace srpfs
