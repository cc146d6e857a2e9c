// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The names that are visible. Owned by the control thread, which also serves every request that looks at it (LOOKUP,
// GETATTR, READDIR, OPEN, ...): nobody else touches it. Changes become visible at once; the kernel is told by the
// notifier.

#pragma once

#include <srpfs/fs/control_file.h>
#include <srpfs/lun/unit.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace srpfs::fs {

// A LUN file's data side. Shared by control thread and reactors.
struct LunFile {
    lun::Unit* unit = nullptr;  // constant; valid until the file has been removed and released
    unsigned reactor = 0;       // the unit's home: index into the ReactorResources given to mount(); constant
    std::uint64_t capacity_bytes = 0;
    std::uint32_t io_bytes = 4096;  // st_blksize
    bool read_only = false;
    // Who owns it, and permission bits, instead of what MountOptions say; constant.
    std::optional<unsigned> uid, gid, mode;
    // SEEK_HOLE may find some. What is allocated is not known; st_blocks says a little less than all, because cp and
    // tar look for holes only in files that seem to have some.
    bool may_have_holes = false;
    // Whoever opens it from now on to read only does so by the kernel's page cache.
    bool is_cached = false;
};

enum class NodeId : std::uint64_t { root = 1 };  // = inode number; a function of the path, so stable across restarts

// Extended attributes of a node: names with their namespace ("user.srpfs.wwid"), each once, and values.
using ExtendedAttributes = std::vector<std::pair<std::string, std::string>>;

class Tree {
public:
    virtual ~Tree() = default;

    // Names are unique in their directory and contain no '/'. Adding an existing name is a bug.
    virtual NodeId add_directory(NodeId parent, std::string_view name) = 0;  // 0755
    // Mode 0644 (read and write), 0444 or 0200 by what is allowed; st_size 0, FOPEN_DIRECT_IO.
    // `owner_only`: 0600, read and write.
    enum class Access { read_only, write_only, read_write, owner_only };
    virtual NodeId add_control_file(NodeId parent, std::string_view name, Access access,
                                    std::unique_ptr<ControlFile> file) = 0;
    virtual NodeId add_stream_file(NodeId parent, std::string_view name, std::unique_ptr<StreamFile> file) = 0;  // 0444
    virtual NodeId add_lun_file(NodeId parent, std::string_view name, const LunFile& file) = 0;  // 0600 / 0400
    // `destination` is asked for at each readlink(2) and stat(2), until the node is removed: it may change with the
    // time.
    virtual NodeId add_symlink(NodeId parent, std::string_view name, std::function<std::string()> destination) = 0;
    // A new capacity or write protection; open handles see it.
    virtual void change_lun_file(NodeId node, const LunFile& file) = 0;
    // As chmod(2) and chown(2), for the life of the mount. `mode` is the permission bits.
    virtual void set_mode(NodeId node, unsigned mode) = 0;
    virtual void set_owner(NodeId node, std::optional<unsigned> uid, std::optional<unsigned> gid) = 0;
    struct Permissions {
        unsigned uid = 0, gid = 0;
        unsigned mode = 0;  // as stat(2) shows it, permission bits only
    };
    [[nodiscard]] virtual Permissions permissions(NodeId node) const = 0;
    // ioctl(2) `number` of whoever has the node open is answered by `carry_out`: it gets the bytes of the caller's
    // structure, and gives as many back. The number says how many (_IOWR, less than 16 KiB). One of a node. Control
    // thread, until the node is removed.
    struct IoctlCaller {
        bool may_write = false;  // the handle was opened for writing
        unsigned uid = 0;
    };
    using Ioctl =
        std::function<void(std::string_view bytes, const IoctlCaller& caller, std::shared_ptr<PendingCall> call)>;
    virtual void serve_ioctl(NodeId node, unsigned number, Ioctl carry_out) = 0;
    // The unit of the LUN file `node` has been changed past it: `done` is called, on the control thread, once no page
    // of the kernel's page cache shows what was there before, by whatever path.
    virtual void drop_pages(NodeId node, std::function<void()> done) = 0;
    // Open handles of a LUN file that may write.
    [[nodiscard]] virtual unsigned writers(NodeId node) const = 0;
    // getxattr(2) and listxattr(2) are answered with what `attributes` gives when it is asked (control thread, until
    // the node is removed). Nodes have none unless this is called.
    virtual void describe(NodeId node, std::function<ExtendedAttributes()> attributes) = 0;
    // Removes the node and everything below it. Open handles of LUN files get ENODEV from now on; `when_released` runs
    // on the control thread once no reactor can reach any removed LunFile::unit any more (decisions 22).
    virtual void remove(NodeId node, std::function<void()> when_released) = 0;
    [[nodiscard]] virtual NodeId find(NodeId parent, std::string_view name) const = 0;  // NodeId{0}: not there
    // Open handles of LUN files below `node`.
    [[nodiscard]] virtual unsigned open_handles(NodeId node) const = 0;
};

}  // namespace srpfs::fs
