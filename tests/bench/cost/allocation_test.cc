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

// The other forms of new and delete, but those with an alignment, come here. Not inlined one by one: g++ would see
// free() of what new has given.
__attribute__((noinline)) void* operator new(std::size_t bytes) {
    ++allocations;
    if (void* memory = __real_malloc(bytes)) return memory;
    throw std::bad_alloc();
}
__attribute__((noinline)) void operator delete(void* memory) noexcept { std::free(memory); }
__attribute__((noinline)) void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

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

class HotPathBy : public testing::TestWithParam<Way> {};

TEST_P(HotPathBy, AllocatesNothingForARequest) {
    if (GetParam() == Way::ring && !ring_missing().empty()) GTEST_SKIP() << ring_missing();
    Path path(GetParam());
    unsigned tried = 0;
    for (const Case& one : cases) {
        if (one.way != GetParam()) continue;
        ++tried;
        path.begin(one);
        const unsigned long before = allocations;

        path.run(one.batches);

        EXPECT_EQ(allocations - before, 0u) << one.name << ", " << one.depth * one.batches << " requests";
    }
    EXPECT_GT(tried, 0u);
}

std::string name_of(const testing::TestParamInfo<Way>& instance) {
    static constexpr const char* names[] = {"Plain", "Window", "Ring", "Helper", "Pair"};
    return names[static_cast<std::size_t>(instance.param)];
}

INSTANTIATE_TEST_SUITE_P(EachWay, HotPathBy, testing::ValuesIn(ways), name_of);

}  // namespace
}  // namespace srpfs::cost
