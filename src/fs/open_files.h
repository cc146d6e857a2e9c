// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Open files: a table that every reactor reads without locks and only the control thread writes.

#pragma once

#include <srpfs/fs/control_file.h>
#include <srpfs/fs/tree.h>

#include <fcntl.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace srpfs::fs {

// A LUN file as the reactors see it. Written by the control thread, except last_write. Lives until its node has been
// removed and every reactor has let go of it.
struct LunData {
    std::atomic<lun::Unit*> unit{nullptr};
    std::atomic<std::uint64_t> capacity_bytes{0};
    std::atomic<std::uint32_t> io_bytes{4096};
    std::atomic<bool> read_only{false};
    std::atomic<bool> may_have_holes{false};
    std::atomic<bool> is_cached{false};
    // Instant of the last write that was answered with success; Instant{} when there was none.
    std::atomic<Duration::rep> last_write{0};
    unsigned reactor = 0;  // index of the unit's home; constant
};

[[nodiscard]] constexpr bool is_durable(std::uint32_t open_flags) { return (open_flags & (O_DSYNC | O_SYNC)) != 0; }

// What the reactors look at for each request. `lun` is constant while `handle` is published.
struct OpenFile {
    std::atomic<std::uint64_t> handle{0};  // fuse_file_info::fh; 0: closed, or the file was removed
    LunData* lun = nullptr;                // nullptr: a control or stream file, served by the control thread
    // See lun::Operation::prepare_flush(). Written by the unit's home, once the file is open.
    mutable std::atomic<std::uint64_t> losses_seen{0};
    bool is_cached = false;   // reads go through the kernel's page cache; constant while `handle` is published
    bool is_durable = false;  // O_DSYNC or O_SYNC; the same
    // One who had it has closed it (FLUSH), so it may be about to go. Any reactor, before it answers him.
    mutable std::atomic<bool> is_flushed{false};
    // Something has been asked of the LUN through it. Any reactor.
    mutable std::atomic<bool> is_used{false};
};

// The control thread's side of an open file.
struct OpenFileDetails {
    NodeId node{};
    std::shared_ptr<LunData> lun;
    std::shared_ptr<ControlFile> control;
    std::shared_ptr<StreamFile> stream;
    bool writable = false;
    bool readable = true;
    bool is_cached = false;
    bool is_durable = false;
    std::uint64_t losses_seen = 0;          // of the LUN when it was opened
    std::int32_t pid = 0;                   // of the thread that has opened it
    std::uint64_t serial = 0;               // grows with each open
    bool is_truncated = false;              // somebody has set the size of the LUN through it, or by name
    bool removed = false;                   // its node is gone; one of the same name and number is another file
    std::optional<std::string> snapshot;    // control file: content as of the last read at offset 0
    std::shared_ptr<std::uint64_t> cursor;  // stream file; dialogue: in the snapshot
    bool has_asked = false;                 // dialogue: the snapshot is an answer to this handle
};

class OpenFiles {
public:
    OpenFiles() = default;
    ~OpenFiles();
    OpenFiles(const OpenFiles&) = delete;
    OpenFiles& operator=(const OpenFiles&) = delete;

    static constexpr std::uint32_t chunk_files = 256;
    static constexpr std::uint32_t files_max = 256 * 1024;

    // Any thread. nullptr: never opened, closed, or removed. The result stays readable until the caller's reactor has
    // acknowledged the handle's end.
    [[nodiscard]] const OpenFile* find(std::uint64_t handle) const {
        const auto index = static_cast<std::uint32_t>(handle);
        if (handle == 0 || index >= files_max) [[unlikely]]
            return nullptr;
        const Chunk* chunk = chunks_[index / chunk_files].load(std::memory_order_acquire);
        if (!chunk) [[unlikely]]
            return nullptr;
        const OpenFile& file = (*chunk)[index % chunk_files];
        return file.handle.load(std::memory_order_acquire) == handle ? &file : nullptr;
    }

    // ---- control thread ----
    // Publishes; the handle is index and generation. 0: files_max are open.
    [[nodiscard]] std::uint64_t open(OpenFileDetails details);
    // The open file with that handle, removed or not; nullptr: no such.
    [[nodiscard]] OpenFileDetails* details(std::uint64_t handle);
    // The file was removed: reactors find it no more, details() still does until it is closed.
    void unpublish(std::uint64_t handle);
    // The file was closed: unpublishes and hands out what it held. Its index is used again after free_index(), to be
    // called once every reactor has acknowledged.
    [[nodiscard]] std::optional<OpenFileDetails> close(std::uint64_t handle);
    void free_index(std::uint64_t handle);
    // Handles that show `node` as it is now.
    [[nodiscard]] std::vector<std::uint64_t> of_node(NodeId node) const;
    [[nodiscard]] unsigned count_of_node(NodeId node) const { return static_cast<unsigned>(of_node(node).size()); }
    [[nodiscard]] unsigned writers_of_node(NodeId node) const;
    // Somebody has it open by the page cache, and has not begun to close it.
    [[nodiscard]] bool has_cached(NodeId node) const;
    // Somebody has a file open that is gone, and whose number this was.
    [[nodiscard]] bool has_removed(NodeId node) const;
    // The handle for writing whose O_TRUNC, or the like, a thread carries out that names none: the one that it has
    // opened last; 0: none. Threads whose number is 0 are not told from each other: of theirs it is the one through
    // which nothing has been done yet; nullopt: there is not exactly one of these.
    [[nodiscard]] std::optional<std::uint64_t> writer_to_truncate(NodeId node, std::int32_t pid) const;
    [[nodiscard]] unsigned open_count() const { return open_count_; }

private:
    using Chunk = std::array<OpenFile, chunk_files>;
    struct Entry {
        std::uint32_t generation = 0;
        std::optional<OpenFileDetails> details;  // while open
    };
    [[nodiscard]] OpenFile& file_at(std::uint32_t index);
    [[nodiscard]] Entry* entry_of(std::uint64_t handle);

    std::array<std::atomic<Chunk*>, files_max / chunk_files> chunks_{};
    std::vector<Entry> entries_;
    std::vector<std::uint32_t> free_;
    unsigned open_count_ = 0;
    std::uint64_t opens_ = 0;
};

}  // namespace srpfs::fs
