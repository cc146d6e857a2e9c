// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Memory in huge pages where the kernel has them: every copy to and from FUSE pins its pages one by one, and
// a device translates fewer of them.

#pragma once

#include <cstddef>
#include <span>
#include <utility>

namespace srpfs::fabric {

class HugeMemory {
public:
    HugeMemory() = default;
    // Zeros, not touched yet, at a multiple of 2 MiB; small pages below 16 MiB. Empty when there is no memory (errno).
    explicit HugeMemory(std::size_t bytes);
    // The beginning of a file in memory (memfd_create(2)), shared.
    enum class Filled { as_used, now };
    // `now` asks for huge pages whatever shmem_enabled of transparent_hugepage says (MADV_COLLAPSE, Linux 6.1), which
    // takes all of the memory at once. Other mappings of the file then show the same pages.
    HugeMemory(std::size_t bytes, int file, Filled filled);
    HugeMemory(HugeMemory&& other) noexcept
        : mapped_(std::exchange(other.mapped_, {})), bytes_(std::exchange(other.bytes_, {})) {}
    HugeMemory& operator=(HugeMemory&& other) noexcept {
        std::swap(mapped_, other.mapped_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~HugeMemory();

    [[nodiscard]] std::span<std::byte> bytes() const { return bytes_; }

private:
    void map(std::size_t bytes, int file, int flags);

    std::span<std::byte> mapped_;
    std::span<std::byte> bytes_;
};

}  // namespace srpfs::fabric
