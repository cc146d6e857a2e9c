// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "stores.h"

#include <fmt/format.h>

#include <atomic>
#include <cstring>

namespace srpfs::target {
namespace {

class NullStore final : public BlockStore {
public:
    explicit NullStore(std::uint64_t bytes) : bytes_(bytes) {}

    StoreResult submit(StoreIo& io, reactor::Executor&) override {
        if (io.kind == StoreIo::Kind::read) std::memset(io.memory, 0, io.bytes);
        return StoreResult::done;
    }
    std::uint64_t bytes() const override { return bytes_.load(std::memory_order_relaxed); }
    Result<void> resize(std::uint64_t bytes) override {
        bytes_ = bytes;
        return {};
    }
    bool is_null() const override { return true; }
    Extent extent_at(std::uint64_t) const override { return {false, bytes()}; }

private:
    std::atomic<std::uint64_t> bytes_;
};

}  // namespace

Result<std::unique_ptr<BlockStore>> make_store(const LunConfig& config, VolatileCache cache) {
    if (config.kind == StoreKind::file) return make_file_store(config);
    if (config.bytes == 0 || config.bytes % config.block_bytes != 0)
        return Error(EINVAL, fmt::format("a size of {} bytes is no multiple of the block length {}", config.bytes,
                                         config.block_bytes));
    if (config.kind == StoreKind::ram) return make_ram_store(config, cache);
    return std::unique_ptr<BlockStore>(std::make_unique<NullStore>(config.bytes));
}

}  // namespace srpfs::target
