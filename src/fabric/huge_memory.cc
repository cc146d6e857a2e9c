// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/fabric/huge_memory.h>

#include <cerrno>
#include <cstdint>

#include <linux/mman.h>  // MADV_COLLAPSE, which glibc 2.36 has not
#include <sys/mman.h>

namespace srpfs::fabric {
namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;
// What is less may well be one of many, of which each would begin with a whole huge page.
constexpr std::size_t bytes_min = 8 * huge_page;

}  // namespace

HugeMemory::HugeMemory(std::size_t bytes) {
    map(bytes, -1, MAP_PRIVATE | MAP_ANONYMOUS);
    // Where there are none, small ones will do.
    if (bytes >= bytes_min && !bytes_.empty()) (void)madvise(bytes_.data(), bytes_.size(), MADV_HUGEPAGE);
}

HugeMemory::HugeMemory(std::size_t bytes, int file, Filled filled) {
    map(bytes, file, MAP_SHARED);
    if (bytes_.empty()) return;
    (void)madvise(bytes_.data(), bytes_.size(), MADV_HUGEPAGE);
    if (filled == Filled::as_used) return;
    // Page tables that have nothing yet are refused (EINVAL).
    for (std::size_t at = 0; at < bytes_.size(); at += huge_page)
        (void)*static_cast<const volatile std::byte*>(&bytes_[at]);
    (void)madvise(bytes_.data(), bytes_.size() / huge_page * huge_page, MADV_COLLAPSE);
}

void HugeMemory::map(std::size_t bytes, int file, int flags) {
    // Room first, in which there is a multiple of a huge page: a file's pages are huge only where they lie at one.
    const std::size_t size = bytes + huge_page;
    void* const room = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) return;
    const auto address = reinterpret_cast<std::uintptr_t>(room);
    void* const begin = static_cast<std::byte*>(room) + (huge_page - address % huge_page) % huge_page;
    if (mmap(begin, bytes, PROT_READ | PROT_WRITE, flags | MAP_NORESERVE | MAP_FIXED, file, 0) == MAP_FAILED) {
        const int reason = errno;
        munmap(room, size);
        errno = reason;
        return;
    }
    mapped_ = {static_cast<std::byte*>(room), size};
    bytes_ = {static_cast<std::byte*>(begin), bytes};
}

HugeMemory::~HugeMemory() {
    if (!mapped_.empty()) munmap(mapped_.data(), mapped_.size());
}

}  // namespace srpfs::fabric
