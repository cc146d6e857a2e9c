// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Sparse memory. With a modelled volatile cache the memory is what reads see, and durable_ keeps what a power failure
// would bring back.

#include "stores.h"

#include <srpfs/base/assert.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <vector>

#include <sys/mman.h>

namespace srpfs::target {
namespace {

// Locks are striped by address: a multiple of every block length, so no block lies in two stripes.
constexpr std::uint64_t stripe_bytes = 64 << 10;
constexpr std::size_t stripes = 32;  // resize() holds them all, and ThreadSanitizer knows 64 locks at once

class Mapping {
public:
    Mapping() = default;
    explicit Mapping(std::uint64_t bytes) : bytes_(bytes) {
        void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        memory_ = mapped == MAP_FAILED ? nullptr : static_cast<std::byte*>(mapped);
    }
    Mapping(const Mapping&) = delete;
    Mapping& operator=(const Mapping&) = delete;
    ~Mapping() {
        if (memory_) munmap(memory_, bytes_);
    }
    // The content stays where it fits. False, and nothing has changed: no memory.
    bool resize(std::uint64_t bytes) {
        void* moved = mremap(memory_, bytes_, bytes, MREMAP_MAYMOVE);
        if (moved == MAP_FAILED) return false;
        memory_ = static_cast<std::byte*>(moved);
        bytes_ = bytes;
        return true;
    }
    [[nodiscard]] std::byte* memory() const { return memory_; }
    [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

private:
    std::byte* memory_ = nullptr;
    std::uint64_t bytes_ = 0;
};

class RamStore final : public BlockStore {
public:
    // `tells_holes`: remembers what has been written, for extent_at().
    RamStore(std::uint64_t bytes, std::uint32_t block_bytes, bool models_cache, bool tells_holes)
        : mapping_(bytes), bytes_(bytes), block_bytes_(block_bytes), models_cache_(models_cache) {
        if (tells_holes) pages_.emplace(pages_bytes(bytes));
    }

    [[nodiscard]] bool is_mapped() const { return mapping_.memory() && (!pages_ || pages_->memory()); }

    StoreResult submit(StoreIo& io, reactor::Executor&) override;
    std::uint64_t bytes() const override { return bytes_.load(std::memory_order_relaxed); }
    Result<void> resize(std::uint64_t bytes) override;
    Extent extent_at(std::uint64_t offset) const override;
    void lose_cache(const std::function<bool(std::uint64_t)>& lost) override;

private:
    void access(const StoreIo& io, std::uint64_t offset, std::uint64_t bytes);
    void remember(std::uint64_t offset, std::uint64_t bytes);
    void forget(std::uint64_t offset, std::uint64_t bytes);
    // A bit for each page of a stripe: something has been written there. Changed under the stripe's lock.
    using StripePages = std::uint16_t;
    static constexpr std::uint64_t page_bytes = stripe_bytes / 16;
    static std::uint64_t pages_bytes(std::uint64_t bytes) {
        return (bytes + stripe_bytes - 1) / stripe_bytes * sizeof(StripePages);
    }
    [[nodiscard]] std::atomic_ref<StripePages> pages_of(std::uint64_t stripe) const {
        return std::atomic_ref(reinterpret_cast<StripePages*>(pages_->memory())[stripe]);
    }
    void note_written(std::uint64_t offset, std::uint64_t bytes);
    void note_unmapped(std::uint64_t offset, std::uint64_t bytes);

    Mapping mapping_;
    std::optional<Mapping> pages_;  // StripePages of all stripes; empty: not remembered
    std::atomic<std::uint64_t> bytes_;
    const std::uint32_t block_bytes_;
    const bool models_cache_;
    mutable std::array<std::mutex, stripes> stripe_mutexes_;
    std::mutex cache_mutex_;                                   // taken after a stripe's
    std::map<std::uint64_t, std::vector<std::byte>> durable_;  // by offset of the block; guarded by cache_mutex_
};

StoreResult RamStore::submit(StoreIo& io, reactor::Executor&) {
    // A unit may have shrunk since the command was checked.
    const std::uint64_t size = bytes();
    if (io.offset > size || io.bytes > size - io.offset) return StoreResult::medium_error;
    if (io.kind == StoreIo::Kind::flush) {
        if (models_cache_) forget(io.offset, io.bytes);
        return StoreResult::done;
    }
    for (std::uint64_t moved = 0; moved < io.bytes;) {
        const std::uint64_t offset = io.offset + moved;
        const std::uint64_t part = std::min(io.bytes - moved, stripe_bytes - offset % stripe_bytes);
        const std::lock_guard lock(stripe_mutexes_[offset / stripe_bytes % stripes]);
        access(io, offset, part);
        moved += part;
    }
    return StoreResult::done;
}

void RamStore::access(const StoreIo& io, std::uint64_t offset, std::uint64_t bytes) {
    std::byte* here = mapping_.memory() + offset;
    std::byte* there = io.memory ? io.memory + (offset - io.offset) : nullptr;
    if (models_cache_ && io.kind != StoreIo::Kind::read) remember(offset, bytes);
    if (pages_ && io.kind != StoreIo::Kind::read) {
        if (io.kind == StoreIo::Kind::unmap)
            note_unmapped(offset, bytes);
        else
            note_written(offset, bytes);
    }
    switch (io.kind) {
        case StoreIo::Kind::read: std::memcpy(there, here, bytes); break;
        case StoreIo::Kind::write: std::memcpy(here, there, bytes); break;
        case StoreIo::Kind::write_through:
            std::memcpy(here, there, bytes);
            if (models_cache_) forget(offset, bytes);
            break;
        case StoreIo::Kind::unmap:
            // A whole stripe goes back to the kernel, which gives zeros for it.
            if (bytes != stripe_bytes || madvise(here, bytes, MADV_DONTNEED) != 0) std::memset(here, 0, bytes);
            break;
        case StoreIo::Kind::flush: break;
    }
}

// Both within a stripe.
void RamStore::note_written(std::uint64_t offset, std::uint64_t bytes) {
    const auto first = static_cast<unsigned>(offset % stripe_bytes / page_bytes),
               last = static_cast<unsigned>((offset % stripe_bytes + bytes - 1) / page_bytes);
    const unsigned touched = ((2U << last) - 1) & ~((1U << first) - 1);
    const auto pages = pages_of(offset / stripe_bytes);
    pages.store(static_cast<StripePages>(pages.load(std::memory_order_relaxed) | touched), std::memory_order_relaxed);
}

void RamStore::note_unmapped(std::uint64_t offset, std::uint64_t bytes) {
    const std::uint64_t begin = offset % stripe_bytes;
    const auto first = static_cast<unsigned>((begin + page_bytes - 1) / page_bytes),
               end = static_cast<unsigned>((begin + bytes) / page_bytes);
    if (first >= end) return;  // no whole page
    const unsigned gone = ((1U << end) - 1) & ~((1U << first) - 1);
    const auto pages = pages_of(offset / stripe_bytes);
    pages.store(static_cast<StripePages>(pages.load(std::memory_order_relaxed) & ~gone), std::memory_order_relaxed);
}

// What has been written before this is asked is seen: the command that wrote it has been answered.
BlockStore::Extent RamStore::extent_at(std::uint64_t offset) const {
    constexpr std::uint64_t stripes_max = 1 << 20;   // looked at in one go
    const std::lock_guard lock(stripe_mutexes_[0]);  // against resize(), which holds all
    const std::uint64_t size = bytes();
    if (!pages_ || offset >= size) return {true, size};
    const auto is_written = [](StripePages pages, unsigned page) { return (pages >> page & 1U) != 0; };
    std::uint64_t stripe = offset / stripe_bytes;
    auto page = static_cast<unsigned>(offset % stripe_bytes / page_bytes);
    const bool wanted = is_written(pages_of(stripe).load(std::memory_order_relaxed), page);
    const std::uint64_t stripe_end = std::min((size + stripe_bytes - 1) / stripe_bytes, stripe + stripes_max);
    for (; stripe < stripe_end; ++stripe, page = 0) {
        const StripePages pages = pages_of(stripe).load(std::memory_order_relaxed);
        if (page == 0 && pages == (wanted ? StripePages{0xffff} : StripePages{0})) continue;
        while (page < 16 && is_written(pages, page) == wanted) ++page;
        if (page < 16) return {wanted, std::min(size, stripe * stripe_bytes + page * page_bytes)};
    }
    return {wanted, std::min(size, stripe_end * stripe_bytes)};
}

void RamStore::remember(std::uint64_t offset, std::uint64_t bytes) {
    const std::lock_guard lock(cache_mutex_);
    for (std::uint64_t block = offset; block < offset + bytes; block += block_bytes_) {
        auto& content = durable_[block];
        if (content.empty()) content.assign(mapping_.memory() + block, mapping_.memory() + block + block_bytes_);
    }
}

void RamStore::forget(std::uint64_t offset, std::uint64_t bytes) {
    const std::lock_guard lock(cache_mutex_);
    durable_.erase(durable_.lower_bound(offset), durable_.lower_bound(offset + bytes));
}

void RamStore::lose_cache(const std::function<bool(std::uint64_t)>& lost) {
    for (auto& mutex : stripe_mutexes_) mutex.lock();
    {
        const std::lock_guard lock(cache_mutex_);
        for (const auto& [offset, content] : durable_)
            if (offset < bytes() && lost(offset)) {
                std::memcpy(mapping_.memory() + offset, content.data(), content.size());
                if (pages_) note_written(offset, content.size());
            }
        durable_.clear();
    }
    for (auto& mutex : stripe_mutexes_) mutex.unlock();
}

Result<void> RamStore::resize(std::uint64_t new_bytes) {
    for (auto& mutex : stripe_mutexes_) mutex.lock();
    // What a smaller size cuts off comes back as zeros, and counts as written until it is unmapped.
    const bool resized = (!pages_ || pages_bytes(new_bytes) == 0 || pages_->resize(pages_bytes(new_bytes))) &&
                         mapping_.resize(new_bytes);
    if (resized) bytes_ = new_bytes;
    for (auto& mutex : stripe_mutexes_) mutex.unlock();
    if (!resized) return Error(errno, fmt::format("no memory for {} bytes", new_bytes));
    return {};
}

}  // namespace

Result<std::unique_ptr<BlockStore>> make_ram_store(const LunConfig& config, VolatileCache cache) {
    auto store = std::make_unique<RamStore>(config.bytes, config.block_bytes,
                                            config.write_cache && cache == VolatileCache::modelled, config.unmap);
    if (!store->is_mapped())
        return Error(ENOMEM, fmt::format("ram of {} bytes: {}", config.bytes, std::strerror(errno)));
    return std::unique_ptr<BlockStore>(std::move(store));
}

}  // namespace srpfs::target
