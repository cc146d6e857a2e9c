// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "open_files.h"

#include <srpfs/base/assert.h>

#include <utility>

namespace srpfs::fs {
namespace {

std::uint64_t handle_of(std::uint32_t generation, std::uint32_t index) {
    return static_cast<std::uint64_t>(generation) << 32 | index;
}

}  // namespace

OpenFiles::~OpenFiles() {
    for (auto& chunk : chunks_) delete chunk.load(std::memory_order_relaxed);
}

OpenFile& OpenFiles::file_at(std::uint32_t index) {
    auto& slot = chunks_[index / chunk_files];
    Chunk* chunk = slot.load(std::memory_order_relaxed);
    if (!chunk) {
        chunk = new Chunk();
        slot.store(chunk, std::memory_order_release);
    }
    return (*chunk)[index % chunk_files];
}

OpenFiles::Entry* OpenFiles::entry_of(std::uint64_t handle) {
    const auto index = static_cast<std::uint32_t>(handle);
    if (index >= entries_.size()) return nullptr;
    Entry& entry = entries_[index];
    if (entry.generation != handle >> 32 || !entry.details) return nullptr;
    return &entry;
}

std::uint64_t OpenFiles::open(OpenFileDetails details) {
    std::uint32_t index = 0;
    if (!free_.empty()) {
        index = free_.back();
        free_.pop_back();
    } else {
        if (entries_.size() == files_max) return 0;
        index = static_cast<std::uint32_t>(entries_.size());
        entries_.emplace_back();
    }
    Entry& entry = entries_[index];
    SRPFS_ASSERT(!entry.details);
    if (++entry.generation == 0) entry.generation = 1;  // a handle is never 0
    entry.details = std::move(details);
    entry.details->serial = ++opens_;
    OpenFile& file = file_at(index);
    file.lun = entry.details->lun.get();
    file.losses_seen.store(entry.details->losses_seen, std::memory_order_relaxed);
    file.is_cached = entry.details->is_cached;
    file.is_durable = entry.details->is_durable;
    file.is_flushed.store(false, std::memory_order_relaxed);
    file.is_used.store(false, std::memory_order_relaxed);
    const auto handle = handle_of(entry.generation, index);
    file.handle.store(handle, std::memory_order_release);
    ++open_count_;
    return handle;
}

OpenFileDetails* OpenFiles::details(std::uint64_t handle) {
    Entry* entry = entry_of(handle);
    return entry ? &*entry->details : nullptr;
}

void OpenFiles::unpublish(std::uint64_t handle) {
    Entry* entry = entry_of(handle);
    if (!entry) return;
    entry->details->removed = true;
    file_at(static_cast<std::uint32_t>(handle)).handle.store(0, std::memory_order_release);
}

std::optional<OpenFileDetails> OpenFiles::close(std::uint64_t handle) {
    Entry* entry = entry_of(handle);
    if (!entry) return std::nullopt;
    file_at(static_cast<std::uint32_t>(handle)).handle.store(0, std::memory_order_release);
    --open_count_;
    return std::exchange(entry->details, std::nullopt);
}

void OpenFiles::free_index(std::uint64_t handle) {
    const auto index = static_cast<std::uint32_t>(handle);
    SRPFS_ASSERT(index < entries_.size());
    SRPFS_ASSERT(!entries_[index].details);
    free_.push_back(index);
}

std::vector<std::uint64_t> OpenFiles::of_node(NodeId node) const {
    std::vector<std::uint64_t> handles;
    for (std::uint32_t index = 0; index < entries_.size(); ++index)
        if (const auto& details = entries_[index].details; details && details->node == node && !details->removed)
            handles.push_back(handle_of(entries_[index].generation, index));
    return handles;
}

bool OpenFiles::has_cached(NodeId node) const {
    const auto handles = of_node(node);
    return std::any_of(handles.begin(), handles.end(), [this](std::uint64_t handle) {
        const OpenFile* const file = find(handle);
        return file && file->is_cached && !file->is_flushed.load(std::memory_order_acquire);
    });
}

bool OpenFiles::has_removed(NodeId node) const {
    return std::any_of(entries_.begin(), entries_.end(), [node](const Entry& entry) {
        return entry.details && entry.details->node == node && entry.details->removed;
    });
}

std::optional<std::uint64_t> OpenFiles::writer_to_truncate(NodeId node, std::int32_t pid) const {
    std::uint64_t newest = 0, serial = 0, unused = 0;
    unsigned unused_count = 0;
    for (const std::uint64_t handle : of_node(node)) {
        const OpenFileDetails& details = *entries_[static_cast<std::uint32_t>(handle)].details;
        if (!details.writable || details.pid != pid) continue;
        const OpenFile* const file = find(handle);
        if (file && !file->is_used.load(std::memory_order_relaxed) && !details.is_truncated) {
            unused = handle;
            ++unused_count;
        }
        if (details.serial < serial) continue;
        newest = handle;
        serial = details.serial;
    }
    if (pid != 0 || newest == 0) return newest;
    if (unused_count != 1) return std::nullopt;
    return unused;
}

unsigned OpenFiles::writers_of_node(NodeId node) const {
    unsigned writers = 0;
    for (const Entry& entry : entries_)
        if (entry.details && entry.details->node == node && entry.details->writable && !entry.details->removed)
            ++writers;
    return writers;
}

}  // namespace srpfs::fs
