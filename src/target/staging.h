// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Registered buffers in which data waits between an initiator's memory and a store. A portal's own, one thread.

#pragma once

#include <srpfs/fabric/fabric.h>
#include <srpfs/fabric/huge_memory.h>
#include <srpfs/target/portal.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace srpfs::target {

class Staging {
public:
    struct Buffer {
        std::byte* memory = nullptr;
        std::uint8_t size_class = 0;
        explicit operator bool() const { return memory != nullptr; }
    };
    static constexpr std::size_t zeros_bytes = 256 << 10;

    static Result<std::unique_ptr<Staging>> create(fabric::Fabric& fabric, const StagingConfig& config);
    ~Staging();  // unregisters; no connection of the portal may be left
    Staging(const Staging&) = delete;
    Staging& operator=(const Staging&) = delete;

    // The smallest free buffer that holds `bytes`; empty when there is none now.
    [[nodiscard]] Buffer take(std::size_t bytes);
    void give_back(Buffer buffer);
    [[nodiscard]] std::size_t largest() const { return largest_; }
    [[nodiscard]] fabric::RegionId region() const { return region_; }
    // Registered in the same region, never written.
    [[nodiscard]] std::span<const std::byte> zeros() const { return {zeros_, zeros_bytes}; }

private:
    static constexpr std::array<std::size_t, 4> sizes{16 << 10, 128 << 10, 1 << 20, 8 << 20};

    explicit Staging(fabric::Fabric& fabric) : fabric_(fabric) {}

    fabric::Fabric& fabric_;
    fabric::HugeMemory memory_;
    fabric::RegionId region_{};
    bool registered_ = false;
    const std::byte* zeros_ = nullptr;
    std::size_t largest_ = 0;
    std::array<std::vector<std::byte*>, sizes.size()> free_;  // last in, first out: the warm one first
};

}  // namespace srpfs::target
