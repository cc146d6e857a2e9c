// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Where the bytes of an embedded logical unit are kept: memory, a file, or nowhere.

#pragma once

#include <srpfs/base/result.h>
#include <srpfs/reactor/executor.h>
#include <srpfs/target/lun_config.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

namespace srpfs::target {

enum class StoreResult {
    done,
    pending,  // the outcome follows through StoreIo::on_store_done()
    medium_error,
    no_space,
};

// One access to a store. Owned by the caller, who leaves it and its memory alone while it is pending.
class StoreIo {
public:
    enum class Kind {
        read,           // `bytes` from `offset` into `memory`
        write,          // `memory` to `offset`; may stay in the volatile cache, if there is one
        write_through,  // the same, durable when done
        unmap,          // `bytes` at `offset` read as zeros from now on
        flush,          // `bytes` at `offset` are durable when done
    };
    Kind kind = Kind::read;
    std::uint64_t offset = 0;     // a multiple of the block length, as is `bytes`
    std::uint64_t bytes = 0;      // offset + bytes <= BlockStore::bytes()
    std::byte* memory = nullptr;  // of `bytes` bytes, for read and writes
    // While this has expired, on_store_done() is not called any more.
    std::weak_ptr<const void> owner;

    // On the executor's thread, after a submit() that answered `pending`.
    virtual void on_store_done(StoreResult result) = 0;

protected:
    ~StoreIo() = default;
};

// Thread-safe: portals on several reactors share one. Accesses that overlap in a block do not tear it.
class BlockStore {
public:
    virtual ~BlockStore() = default;
    // Never blocks for long. `executor` is where on_store_done() is called.
    virtual StoreResult submit(StoreIo& io, reactor::Executor& executor) = 0;
    [[nodiscard]] virtual std::uint64_t bytes() const = 0;
    // Others may have made it longer or shorter: bytes() is what there is now. Waits for nothing.
    virtual void look_at_size() {}
    // Grows with zeros or cuts. ENOTSUP if it cannot.
    virtual Result<void> resize(std::uint64_t bytes) = 0;
    // True: submit() never answers pending, so `memory` is free again when it returns.
    [[nodiscard]] virtual bool is_inline() const { return true; }
    // True: reads give zeros and writes are dropped, so nobody needs to call submit() for them.
    [[nodiscard]] virtual bool is_null() const { return false; }
    struct Extent {
        bool is_mapped = true;  // false: nothing is kept there, and it reads as zeros
        std::uint64_t end = 0;  // up to where that is so at least; beyond the offset asked for, at most bytes()
    };
    // `offset` is less than bytes(). Waits for nothing but a file system's own tables.
    [[nodiscard]] virtual Extent extent_at(std::uint64_t offset) const {
        (void)offset;
        return {true, bytes()};
    }
    // Puts every block that was written and not flushed since, and for which `lost(offset in bytes)` is true, back to
    // what it was when it was last durable; asked in ascending order. The others become durable. Stores that do not
    // model a volatile cache do nothing.
    virtual void lose_cache(const std::function<bool(std::uint64_t)>& lost) { (void)lost; }
    // Returns when nothing is pending any more and no memory of a StoreIo will be touched.
    virtual void drain() {}
};

enum class VolatileCache { not_modelled, modelled };

// Errors: ENOMEM; those of opening the file, with its path; EINVAL for a size that is no multiple of the block length.
// `modelled`: a ram store with write cache remembers what lose_cache() needs (one copy of each dirty block).
Result<std::unique_ptr<BlockStore>> make_store(const LunConfig& config, VolatileCache cache);

}  // namespace srpfs::target
