// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/fabric/huge_memory.h>

#include <cstdint>

#include <sys/mman.h>

namespace srpfs::fabric {
namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;
// What is less may well be one of many, of which each would begin with a whole huge page.
constexpr std::size_t bytes_min = 8 * huge_page;

}  // namespace

HugeMemory::HugeMemory(std::size_t bytes) {
    const std::size_t size = bytes + huge_page;
    void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return;
    mapped_ = {static_cast<std::byte*>(memory), size};
    const auto address = reinterpret_cast<std::uintptr_t>(memory);
    bytes_ = mapped_.subspan((huge_page - address % huge_page) % huge_page, bytes);
    // Where there are none, small ones will do.
    if (bytes >= bytes_min) (void)madvise(bytes_.data(), bytes_.size(), MADV_HUGEPAGE);
}

HugeMemory::~HugeMemory() {
    if (!mapped_.empty()) munmap(mapped_.data(), mapped_.size());
}

}  // namespace srpfs::fabric
