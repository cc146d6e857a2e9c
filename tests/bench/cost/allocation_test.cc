// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Memory for a request is taken at the start, never while it is served.

#include "hot_path.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <string>

namespace {
std::atomic<unsigned long> allocations{0};
}

extern "C" {
void* __real_malloc(std::size_t bytes);
void* __real_calloc(std::size_t count, std::size_t bytes);
void* __real_realloc(void* old, std::size_t bytes);
void* __wrap_malloc(std::size_t bytes);
void* __wrap_calloc(std::size_t count, std::size_t bytes);
void* __wrap_realloc(void* old, std::size_t bytes);

void* __wrap_malloc(std::size_t bytes) {
    ++allocations;
    return __real_malloc(bytes);
}
void* __wrap_calloc(std::size_t count, std::size_t bytes) {
    ++allocations;
    return __real_calloc(count, bytes);
}
void* __wrap_realloc(void* old, std::size_t bytes) {
    ++allocations;
    return __real_realloc(old, bytes);
}
}

// The other forms of new and delete, but those with an alignment, come here.
void* operator new(std::size_t bytes) {
    ++allocations;
    if (void* memory = __real_malloc(bytes)) return memory;
    throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace srpfs::cost {
namespace {

TEST(HotPath, CountsAllocations) {
    const unsigned long before = allocations;

    // Volatile, or the compiler does without.
    int* volatile number = new int(1);
    void* volatile byte = std::malloc(1);
    delete number;
    std::free(byte);

    EXPECT_EQ(allocations - before, 2u);
}

TEST(HotPath, AllocatesNothingForARequest) {
    Path path;
    for (const Case& one : cases) {
        path.begin(one);
        const unsigned long before = allocations;

        path.run(one.batches);

        EXPECT_EQ(allocations - before, 0u) << one.name << ", " << one.depth * one.batches << " requests";
    }
}

}  // namespace
}  // namespace srpfs::cost
