// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A queue in a circular buffer that only ever grows: no allocation once it has been as long as it gets.

#pragma once

#include <srpfs/base/assert.h>

#include <cstddef>
#include <memory>
#include <utility>

namespace srpfs::fabric {

template <typename T>
class Ring {
public:
    [[nodiscard]] bool empty() const { return count_ == 0; }
    [[nodiscard]] std::size_t size() const { return count_; }
    [[nodiscard]] T& front() { return (*this)[0]; }
    [[nodiscard]] T& operator[](std::size_t index) {
        SRPFS_ASSERT(index < count_);
        return elements_[(first_ + index) & (capacity_ - 1)];
    }
    // Returns the new element, which stays where it is until the next one is added. It holds what an earlier one has
    // left there.
    T& add() {
        if (count_ == capacity_) [[unlikely]]
            grow();
        T& added = elements_[(first_ + count_) & (capacity_ - 1)];
        ++count_;
        return added;
    }
    void push_back(const T& element) { add() = element; }
    // Returns what has been removed, which stays what it is until the next one is added.
    T& pop_front() {
        T& element = front();
        first_ = (first_ + 1) & (capacity_ - 1);
        --count_;
        return element;
    }

private:
    // Not inline: what it needs of registers and stack would be saved for each element.
    [[gnu::noinline]] void grow() {
        const std::size_t capacity = capacity_ == 0 ? 16 : 2 * capacity_;
        auto larger = std::make_unique<T[]>(capacity);
        for (std::size_t i = 0; i < count_; ++i) larger[i] = std::move((*this)[i]);
        elements_ = std::move(larger);
        capacity_ = capacity;
        first_ = 0;
    }

    std::unique_ptr<T[]> elements_;
    std::size_t capacity_ = 0;  // a power of two, or 0
    std::size_t first_ = 0;
    std::size_t count_ = 0;
};

}  // namespace srpfs::fabric
