// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "staging.h"

#include <srpfs/base/assert.h>

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace srpfs::target {

Result<std::unique_ptr<Staging>> Staging::create(fabric::Fabric& fabric, const StagingConfig& config) {
    const std::array<std::size_t, sizes.size()> counts{config.buffers_16k, config.buffers_128k, config.buffers_1m,
                                                       config.buffers_8m};
    std::size_t bytes = zeros_bytes;
    for (std::size_t i = 0; i < sizes.size(); ++i) bytes += sizes[i] * counts[i];
    fabric::HugeMemory memory(bytes);
    if (memory.bytes().empty())
        return Error(errno, fmt::format("{} bytes of staging memory for the target: {}", bytes, std::strerror(errno)));

    std::unique_ptr<Staging> staging(new Staging(fabric));
    staging->memory_ = std::move(memory);
    // Reading for a WRITE command makes the fabric write into it, which needs the stronger of the two rights on some
    // networks (iWARP). Nobody is ever told the key.
    auto region = fabric.register_memory(staging->memory_.bytes(), fabric::RemoteAccess::write);
    if (!region) return region.error();
    staging->region_ = *region;
    staging->registered_ = true;

    staging->zeros_ = staging->memory_.bytes().data();
    std::byte* next = staging->memory_.bytes().data() + zeros_bytes;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        staging->free_[i].reserve(counts[i]);
        for (std::size_t count = 0; count < counts[i]; ++count, next += sizes[i]) staging->free_[i].push_back(next);
        if (counts[i] > 0) staging->largest_ = sizes[i];
    }
    return staging;
}

Staging::~Staging() {
    if (registered_) fabric_.unregister_memory(region_);
}

Staging::Buffer Staging::take(std::size_t bytes) {
    for (std::size_t i = 0; i < sizes.size(); ++i) {
        if (sizes[i] < bytes || free_[i].empty()) continue;
        std::byte* memory = free_[i].back();
        free_[i].pop_back();
        return {memory, static_cast<std::uint8_t>(i)};
    }
    return {};
}

void Staging::give_back(Buffer buffer) {
    SRPFS_ASSERT(buffer.memory);
    free_[buffer.size_class].push_back(buffer.memory);
}

}  // namespace srpfs::target
