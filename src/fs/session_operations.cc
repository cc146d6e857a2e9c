// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "session_operations.h"

#include "session.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <span>

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/statvfs.h>

namespace srpfs::fs {
namespace {

// Attributes change by our own hand only, and then the notifier tells the kernel.
constexpr double attribute_seconds = 3600;
// Names of LUNs and of links to them are asked for each time: what has appeared or vanished is seen at once, and
// nothing has to be invalidated under locks of the kernel's (notifier.h). It costs a request in open and stat, and I/O
// nothing. The other files go with their directories only, which are on the way to them. A directory that vanishes is
// told by its attributes: the kernel asks for them, gets ESTALE, and looks the path up again. The second is for the one
// whose LOOKUP is answered while it vanishes, because the kernel may learn the name after it was told. Without that
// second each path in a tree of many targets costs a request for each of its parts.
constexpr double directory_name_seconds = 1;
double name_seconds_of(const Node& node) {
    if (node.kind == NodeKind::directory) return directory_name_seconds;
    switch (node.kind) {
        case NodeKind::directory:
        case NodeKind::symlink:
        case NodeKind::lun: return 0;
        case NodeKind::control:
        case NodeKind::stream: return attribute_seconds;
    }
    return 0;
}

// Those of the top directory are not told, so they are not kept for long. A FUSE mount begins with a top directory of
// owner 0 and mode 0000, and the kernel drops the answer to a GETATTR when a notification about the same node overtakes
// it: a user's first steps into a fresh mount, whose targets are just appearing, then end in EACCES (seen on
// Linux 6.18). What other nodes lose in such a race are only newer attributes, because LOOKUP has brought the first
// ones. Where a link leads, and so its size, may change without anybody being told.
double attribute_seconds_of(const Node& node) {
    if (node.kind == NodeKind::symlink) return 0;
    return node.id == NodeId::root ? 1 : attribute_seconds;
}

}  // namespace

struct SessionOperations {
    static Session& session(fuse_req_t request) { return *static_cast<Session*>(fuse_req_userdata(request)); }

    // The node, or the answer ESTALE, which makes the kernel look the path up again.
    static const Node* node(fuse_req_t request, fuse_ino_t number) {
        const Node* found = session(request).tree_->node(NodeId{number});
        if (!found) fuse_reply_err(request, ESTALE);
        return found;
    }

    static void lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
        const Node* directory = node(request, parent);
        if (!directory) return;
        const TreeNodes& tree = *session(request).tree_;
        const Node* found = tree.node(tree.find(directory->id, name));
        if (!found) {
            fuse_reply_err(request, directory->kind == NodeKind::directory ? ENOENT : ENOTDIR);
            return;
        }
        const fuse_entry_param entry = entry_of(tree, *found);
        fuse_reply_entry(request, &entry);
    }

    static fuse_entry_param entry_of(const TreeNodes& tree, const Node& node) {
        fuse_entry_param entry{};
        entry.ino = static_cast<fuse_ino_t>(node.id);
        entry.generation = 1;  // numbers are identities: the same path is the same file
        entry.attr = tree.attributes(node);
        entry.attr_timeout = attribute_seconds_of(node);
        entry.entry_timeout = name_seconds_of(node);
        return entry;
    }

    static void getattr(fuse_req_t request, fuse_ino_t number, fuse_file_info*) {
        const Node* found = node(request, number);
        if (!found) return;
        const struct stat st = session(request).tree_->attributes(*found);
        fuse_reply_attr(request, &st, attribute_seconds_of(*found));
    }

    static void setattr(fuse_req_t request, fuse_ino_t number, struct stat* wanted, int which, fuse_file_info*) {
        const Node* found = node(request, number);
        if (!found) return;
        Session& self = session(request);
        if ((which & FUSE_SET_ATTR_SIZE) != 0) {
            const int error = check_size(*found, wanted->st_size);
            if (error != 0) {
                fuse_reply_err(request, error);
                return;
            }
        }
        TreeNodes& tree = *self.tree_;
        if ((which & FUSE_SET_ATTR_MODE) != 0) tree.set_mode(found->id, wanted->st_mode);
        if ((which & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) != 0)
            tree.set_owner(found->id, (which & FUSE_SET_ATTR_UID) != 0 ? std::optional(wanted->st_uid) : std::nullopt,
                           (which & FUSE_SET_ATTR_GID) != 0 ? std::optional(wanted->st_gid) : std::nullopt);
        const Instant now = self.control_->timers().now();
        const auto chosen = [&](int set, int set_now, const timespec& given) -> std::optional<timespec> {
            if ((which & set_now) != 0) return tree.wall_time(now);
            if ((which & set) != 0) return given;
            return std::nullopt;
        };
        tree.set_times(found->id, chosen(FUSE_SET_ATTR_ATIME, FUSE_SET_ATTR_ATIME_NOW, wanted->st_atim),
                       chosen(FUSE_SET_ATTR_MTIME, FUSE_SET_ATTR_MTIME_NOW, wanted->st_mtim), now);
        const struct stat st = tree.attributes(*found);
        fuse_reply_attr(request, &st, attribute_seconds_of(*found));
    }

    // A size up to the capacity is accepted. What follows from it is not decided here (MountedFileSystem); the real
    // size is always reported.
    static int check_size(const Node& node, off_t size) {
        switch (node.kind) {
            case NodeKind::directory: return EISDIR;
            case NodeKind::symlink: return EINVAL;
            case NodeKind::control: return 0;
            case NodeKind::stream: return 0;
            case NodeKind::lun:
                if (node.lun->read_only.load()) return EROFS;
                if (size < 0 || static_cast<std::uint64_t>(size) > node.lun->capacity_bytes.load()) return EFBIG;
                return 0;
        }
        return 0;
    }

    static void readlink(fuse_req_t request, fuse_ino_t number) {
        const Node* found = node(request, number);
        if (!found) return;
        if (found->kind == NodeKind::symlink)
            fuse_reply_readlink(request, found->destination().c_str());
        else
            fuse_reply_err(request, EINVAL);
    }

    // ---- files ----

    static void open(fuse_req_t request, fuse_ino_t number, fuse_file_info* info) {
        const Node* found = node(request, number);
        if (!found) return;
        Session& self = session(request);
        const int error = check_open(self, *found, info->flags);
        if (error != 0) {
            fuse_reply_err(request, error);
            return;
        }
        OpenFileDetails details;
        details.node = found->id;
        details.lun = found->lun;
        if (const lun::Unit* unit = found->lun ? found->lun->unit.load() : nullptr)
            details.losses_seen = unit->counters()->write_losses_told.load();
        details.control = found->control;
        details.stream = found->stream;
        const bool is_writer = (info->flags & O_ACCMODE) != O_RDONLY;
        details.writable = is_writer;
        details.readable = (info->flags & O_ACCMODE) != O_WRONLY;
        details.pid = fuse_req_ctx(request)->pid;
        details.is_cached = is_cached(*found, info->flags);
        details.is_durable = is_durable(static_cast<std::uint32_t>(info->flags));
        const bool keeps_pages = found->kind == NodeKind::lun && self.files_->has_cached(found->id);
        if (found->stream) details.cursor = std::make_shared<std::uint64_t>(found->stream->open_cursor());
        const bool cached = details.is_cached;
        const std::uint64_t handle = self.files_->open(std::move(details));
        if (handle == 0) {
            fuse_reply_err(request, ENFILE);
            return;
        }
        // By hand, because libfuse 3.14 has no field for parallel direct writes.
        fuse_open_out out{};
        out.fh = handle;
        out.open_flags = cached ? 0 : FOPEN_DIRECT_IO | FOPEN_NOFLUSH;
        if (found->kind == NodeKind::lun && !cached) out.open_flags |= FOPEN_PARALLEL_DIRECT_WRITES;
        // The first who reads by the page cache begins with what the unit holds now, and others join him: also who does
        // not read that way, because the kernel would drop all pages, and wait for those that are being read. That
        // FLUSH comes before close(2) ends, and RELEASE some time later, is why who is closing does not count.
        if (keeps_pages) out.open_flags |= FOPEN_KEEP_CACHE;
        if (found->kind == NodeKind::stream || (found->control && found->control->is_dialogue()))
            out.open_flags |= FOPEN_STREAM;
        fuse_reply_buf(request, reinterpret_cast<const char*>(&out), sizeof out);
    }

    // Who may write, or wants O_DIRECT, has nothing to do with the page cache (docs/data-path.md says why).
    static bool is_cached(const Node& node, int flags) {
        return node.kind == NodeKind::lun && node.lun->is_cached.load() && (flags & O_ACCMODE) == O_RDONLY &&
               (flags & O_DIRECT) == 0;
    }

    // Root passes default_permissions, so what a file can do at all is decided here.
    static int check_open(const Session& self, const Node& node, int flags) {
        if (self.host_->refuses_opens()) return ESHUTDOWN;
        const int access = flags & O_ACCMODE;
        const bool reads = access != O_WRONLY;
        const bool writes = access != O_RDONLY;
        if (writes && self.options_.read_only) return EROFS;
        switch (node.kind) {
            case NodeKind::directory: return EISDIR;
            case NodeKind::symlink: return ELOOP;
            case NodeKind::stream: return writes ? EACCES : 0;
            case NodeKind::lun: return writes && node.lun->read_only.load() ? EROFS : 0;
            case NodeKind::control:
                if (reads && node.access == Tree::Access::write_only) return EACCES;
                if (writes && node.access == Tree::Access::read_only) return EACCES;
                return 0;
        }
        return 0;
    }

    static void release(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
        Session& self = session(request);
        const std::uint64_t handle = info->fh;
        auto details = self.files_->close(handle);
        if (details) self.host_->on_released(handle, std::move(*details));
        fuse_reply_err(request, 0);
    }

    static void ioctl(fuse_req_t request, fuse_ino_t number, unsigned command, void*, fuse_file_info*, unsigned flags,
                      const void*, size_t, size_t out_bytes) {
        const Node* found = node(request, number);
        if (!found) return;
        // The only one of the block device ioctls whose number tells the kernel how much to copy. Answering the others
        // with success but no value makes tools divide by zero.
        if (found->kind == NodeKind::lun && command == BLKGETSIZE64 && (flags & FUSE_IOCTL_DIR) == 0 &&
            out_bytes >= sizeof(std::uint64_t)) {
            const std::uint64_t capacity = found->lun->capacity_bytes.load();
            fuse_reply_ioctl(request, 0, &capacity, sizeof capacity);
            return;
        }
        fuse_reply_err(request, ENOTTY);
    }

    // ---- directories ----

    static void opendir(fuse_req_t request, fuse_ino_t number, fuse_file_info* info) {
        const Node* found = node(request, number);
        if (!found) return;
        if (found->kind != NodeKind::directory) {
            fuse_reply_err(request, ENOTDIR);
            return;
        }
        Session& self = session(request);
        info->fh = self.next_directory_++;
        self.directories_.emplace(info->fh, std::vector<DirectoryEntry>{});
        fuse_reply_open(request, info);
    }

    // Offsets are positions in the list taken at the first read or at rewinddir, so they stay valid while names come
    // and go.
    static void readdir(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset, fuse_file_info* info) {
        read_directory(request, number, size, offset, info, false);
    }

    // The same with what LOOKUP would have said of each name, so that `ls -l` need not ask for one after the other.
    static void readdirplus(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset, fuse_file_info* info) {
        read_directory(request, number, size, offset, info, true);
    }

    static void read_directory(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset, fuse_file_info* info,
                               bool plus) {
        Session& self = session(request);
        const auto opened = self.directories_.find(info->fh);
        if (opened == self.directories_.end()) {
            fuse_reply_err(request, EBADF);
            return;
        }
        if (offset == 0 || opened->second.empty())
            if (const Node* directory = self.tree_->node(NodeId{number})) opened->second = self.tree_->list(*directory);
        const auto& entries = opened->second;
        std::string buffer(std::min(size, self.reply_bytes_max_ - sizeof(fuse_out_header)), '\0');
        std::size_t used = 0;
        for (auto position = static_cast<std::size_t>(std::max<off_t>(offset, 0)); position < entries.size();
             ++position) {
            const std::size_t room = buffer.size() - used;
            const std::size_t needed =
                add_entry(request, {buffer.data() + used, room}, entries[position], position, plus);
            if (needed > room) break;
            used += needed;
        }
        fuse_reply_buf(request, buffer.data(), used);
    }

    // Returns the bytes it takes; nothing has been written when they are more than there is room for.
    static std::size_t add_entry(fuse_req_t request, std::span<char> room, const DirectoryEntry& entry,
                                 std::size_t position, bool plus) {
        const TreeNodes& tree = *session(request).tree_;
        const auto next = static_cast<off_t>(position + 1);
        fuse_entry_param described{};  // node 0: no more than a name
        // "." and ".." come first, and the kernel takes no more of them.
        if (const Node* node = position < 2 ? nullptr : tree.node(entry.id); node && plus)
            described = entry_of(tree, *node);
        described.attr.st_ino = static_cast<ino_t>(entry.id);
        if (described.ino == 0) described.attr.st_mode = entry.type;
        return plus ? fuse_add_direntry_plus(request, room.data(), room.size(), entry.name.c_str(), &described, next)
                    : fuse_add_direntry(request, room.data(), room.size(), entry.name.c_str(), &described.attr, next);
    }

    static void releasedir(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
        session(request).directories_.erase(info->fh);
        fuse_reply_err(request, 0);
    }

    static void fsyncdir(fuse_req_t request, fuse_ino_t, int, fuse_file_info*) { fuse_reply_err(request, 0); }

    static void statfs(fuse_req_t request, fuse_ino_t) {
        const TreeNodes& tree = *session(request).tree_;
        struct statvfs st {};
        st.f_bsize = st.f_frsize = 4096;
        st.f_blocks = tree.lun_bytes_total() / st.f_frsize;
        st.f_files = tree.size();
        st.f_namemax = 255;
        fuse_reply_statfs(request, &st);
    }

    // ---- extended attributes ----

    // Size 0 asks how much room is needed.
    static void reply_attribute(fuse_req_t request, std::string_view value, size_t size) {
        if (size == 0)
            fuse_reply_xattr(request, value.size());
        else if (value.size() > size)
            fuse_reply_err(request, ERANGE);
        else
            fuse_reply_buf(request, value.data(), value.size());
    }

    static bool is_user_attribute(std::string_view name) { return name.starts_with("user."); }

    static void getxattr(fuse_req_t request, fuse_ino_t number, const char* name, size_t size) {
        // Asked for each file by ls -l (security.selinux, POSIX ACLs). ENOSYS would end all of them for good.
        if (!is_user_attribute(name)) {
            fuse_reply_err(request, ENODATA);
            return;
        }
        const Node* found = node(request, number);
        if (!found) return;
        for (const auto& [one, value] : TreeNodes::extended_attributes(*found))
            if (one == name) return reply_attribute(request, value, size);
        fuse_reply_err(request, ENODATA);
    }

    static void listxattr(fuse_req_t request, fuse_ino_t number, size_t size) {
        const Node* found = node(request, number);
        if (!found) return;
        std::string names;
        for (const auto& [name, value] : TreeNodes::extended_attributes(*found)) names.append(name).push_back('\0');
        reply_attribute(request, names, size);
    }

    // Ours cannot be changed, and none can be added. Of other namespaces there are none, which is what copying tools
    // pass over in silence.
    static void setxattr(fuse_req_t request, fuse_ino_t, const char* name, const char*, size_t, int) {
        fuse_reply_err(request, is_user_attribute(name) ? EPERM : EOPNOTSUPP);
    }
    static void removexattr(fuse_req_t request, fuse_ino_t number, const char* name) {
        const Node* found = node(request, number);
        if (!found) return;
        for (const auto& [one, value] : TreeNodes::extended_attributes(*found))
            if (one == name) {
                fuse_reply_err(request, EPERM);
                return;
            }
        fuse_reply_err(request, ENODATA);
    }

    // ---- what is not offered ----

    static void access(fuse_req_t request, fuse_ino_t, int) { fuse_reply_err(request, 0); }  // default_permissions

    // EPERM, not ENOSYS: "Function not implemented" confuses people.
    static void refuse(fuse_req_t request) { fuse_reply_err(request, EPERM); }
    static void mknod(fuse_req_t r, fuse_ino_t, const char*, mode_t, dev_t) { refuse(r); }
    static void mkdir(fuse_req_t r, fuse_ino_t, const char*, mode_t) { refuse(r); }
    static void unlink(fuse_req_t r, fuse_ino_t, const char*) { refuse(r); }
    static void rmdir(fuse_req_t r, fuse_ino_t, const char*) { refuse(r); }
    static void symlink(fuse_req_t r, const char*, fuse_ino_t, const char*) { refuse(r); }
    static void rename(fuse_req_t r, fuse_ino_t, const char*, fuse_ino_t, const char*, unsigned) { refuse(r); }
    static void link(fuse_req_t r, fuse_ino_t, fuse_ino_t, const char*) { refuse(r); }
    static void create(fuse_req_t r, fuse_ino_t, const char*, mode_t, fuse_file_info*) { refuse(r); }
};

const fuse_lowlevel_ops& session_operations() {
    static const fuse_lowlevel_ops operations = [] {
        fuse_lowlevel_ops ops{};
        ops.lookup = SessionOperations::lookup;
        ops.getattr = SessionOperations::getattr;
        ops.setattr = SessionOperations::setattr;
        ops.readlink = SessionOperations::readlink;
        ops.mknod = SessionOperations::mknod;
        ops.mkdir = SessionOperations::mkdir;
        ops.unlink = SessionOperations::unlink;
        ops.rmdir = SessionOperations::rmdir;
        ops.symlink = SessionOperations::symlink;
        ops.rename = SessionOperations::rename;
        ops.link = SessionOperations::link;
        ops.open = SessionOperations::open;
        ops.release = SessionOperations::release;
        ops.opendir = SessionOperations::opendir;
        ops.readdir = SessionOperations::readdir;
        ops.readdirplus = SessionOperations::readdirplus;
        ops.releasedir = SessionOperations::releasedir;
        ops.fsyncdir = SessionOperations::fsyncdir;
        ops.statfs = SessionOperations::statfs;
        ops.setxattr = SessionOperations::setxattr;
        ops.getxattr = SessionOperations::getxattr;
        ops.listxattr = SessionOperations::listxattr;
        ops.removexattr = SessionOperations::removexattr;
        ops.access = SessionOperations::access;
        ops.create = SessionOperations::create;
        ops.ioctl = SessionOperations::ioctl;
        // No poll: everything can be read and written at once, or waits in read() as `events` does. The kernel
        // remembers ENOSYS and says "ready" by itself; otherwise io_uring would ask before every I/O on a LUN file.
        return ops;
    }();
    return operations;
}

}  // namespace srpfs::fs
