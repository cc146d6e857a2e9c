// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A queue in a circular buffer that only ever grows: no allocation once it has been as long as it gets.

#pragma once

#include <srpfs/base/assert.h>

#include <cstddef>
#include <utility>
#include <vector>

namespace srpfs::fabric {

template <typename T>
class Ring {
public:
    [[nodiscard]] bool empty() const { return count_ == 0; }
    [[nodiscard]] std::size_t size() const { return count_; }
    [[nodiscard]] T& front() { return (*this)[0]; }
    [[nodiscard]] T& operator[](std::size_t index) {
        SRPFS_ASSERT(index < count_);
        return elements_[(first_ + index) & mask_];
    }
    // Returns the new element, which stays where it is until the next one is added.
    T& push_back(const T& element) {
        if (count_ == elements_.size()) [[unlikely]]
            grow();
        T& added = elements_[(first_ + count_) & mask_];
        added = element;
        ++count_;
        return added;
    }
    T pop_front() {
        T element = std::move(front());
        first_ = (first_ + 1) & mask_;
        --count_;
        return element;
    }

private:
    void grow() {
        std::vector<T> larger(elements_.empty() ? 16 : 2 * elements_.size());
        for (std::size_t i = 0; i < count_; ++i) larger[i] = std::move((*this)[i]);
        elements_.swap(larger);
        mask_ = elements_.size() - 1;
        first_ = 0;
    }

    std::vector<T> elements_;  // a power of two, or empty
    std::size_t mask_ = 0;     // their number, less one
    std::size_t first_ = 0;
    std::size_t count_ = 0;
};

}  // namespace srpfs::fabric
