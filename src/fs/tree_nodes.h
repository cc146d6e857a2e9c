// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The tree itself: nodes, their numbers, attributes and what changes tell the rest. Control thread.

#pragma once

#include "open_files.h"

#include <srpfs/base/instant.h>
#include <srpfs/fs/tree.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <sys/stat.h>

namespace srpfs::fs {

// Is told what became of the tree, after the fact.
class TreeWatcher {
public:
    // Of a file, or of a directory that has gained or lost a name, or is gone.
    virtual void on_attributes_changed(NodeId node) = 0;
    // These nodes are gone: their open files must not reach `luns` any more; `done` when no reactor does.
    virtual void on_unreachable(std::vector<NodeId> nodes, std::vector<std::shared_ptr<LunData>> luns,
                                std::function<void()> done) = 0;
    // Some file is read by the page cache from now on.
    virtual void on_cached() = 0;
    // `done` when the kernel has dropped what it has of the unit's pages now. Control thread.
    virtual void on_changed_elsewhere(const std::shared_ptr<LunData>& lun, std::function<void()> done) = 0;

protected:
    ~TreeWatcher() = default;
};

struct TreeDefaults {
    std::optional<unsigned> uid, gid, umask;  // of LUN files (MountOptions)
    unsigned owner_uid = 0, owner_gid = 0;    // of everything else
    bool read_only = false;                   // mode bits show r--
    timespec wall_time{};                     // at `instant`; times of files that have never been written
    Instant instant{};
};

enum class NodeKind : std::uint8_t { directory, control, stream, lun, symlink };

struct Node {
    NodeId id{};
    Node* parent = nullptr;  // the root is its own parent
    std::string name;
    NodeKind kind = NodeKind::directory;
    Tree::Access access = Tree::Access::read_only;
    std::map<std::string, Node*, std::less<>> children;
    std::shared_ptr<ControlFile> control;
    std::shared_ptr<StreamFile> stream;
    std::shared_ptr<LunData> lun;
    std::optional<unsigned> uid, gid, mode;  // of a LUN file (LunFile)
    std::function<std::string()> destination;
    std::function<ExtendedAttributes()> attributes;
    unsigned ioctl_number = 0;
    Tree::Ioctl ioctl;
    unsigned directories = 0;  // among the children
};

struct DirectoryEntry {
    NodeId id{};
    mode_t type = 0;  // S_IFDIR, S_IFREG or S_IFLNK
    std::string name;
};

class TreeNodes final : public Tree {
public:
    // 64 bits of a path ("/srp-demo0-1/lun0"); replaceable to test collisions.
    using PathHash = std::function<std::uint64_t(std::string_view)>;
    static std::uint64_t hash_path(std::string_view path);

    TreeNodes(const TreeDefaults& defaults, TreeWatcher& watcher, const OpenFiles& files, PathHash hash = hash_path);
    ~TreeNodes() override;

    // ---- Tree ----
    NodeId add_directory(NodeId parent, std::string_view name) override;
    NodeId add_control_file(NodeId parent, std::string_view name, Access access,
                            std::unique_ptr<ControlFile> file) override;
    NodeId add_stream_file(NodeId parent, std::string_view name, std::unique_ptr<StreamFile> file) override;
    NodeId add_lun_file(NodeId parent, std::string_view name, const LunFile& file) override;
    NodeId add_symlink(NodeId parent, std::string_view name, std::function<std::string()> destination) override;
    void change_lun_file(NodeId node, const LunFile& file) override;
    [[nodiscard]] Permissions permissions(NodeId node) const override;
    [[nodiscard]] unsigned writers(NodeId node) const override;
    void describe(NodeId node, std::function<ExtendedAttributes()> attributes) override;
    void serve_ioctl(NodeId node, unsigned number, Ioctl carry_out) override;
    void drop_pages(NodeId node, std::function<void()> done) override;
    void remove(NodeId node, std::function<void()> when_released) override;
    [[nodiscard]] NodeId find(NodeId parent, std::string_view name) const override;
    [[nodiscard]] unsigned open_handles(NodeId node) const override;

    // ---- for the session ----
    [[nodiscard]] const Node* node(NodeId id) const;  // nullptr: no such (any more)
    // st_ino is the node's number; times and mode as shown.
    [[nodiscard]] struct stat attributes(const Node& node) const;
    [[nodiscard]] static ExtendedAttributes extended_attributes(const Node& node);
    // "." and ".." first.
    [[nodiscard]] std::vector<DirectoryEntry> list(const Node& directory) const;
    // chmod, chown, utimens: kept for the life of the mount, also for a node that is removed and comes back.
    void set_mode(NodeId node, unsigned mode) override;
    void set_owner(NodeId node, std::optional<unsigned> uid, std::optional<unsigned> gid) override;
    void set_times(NodeId node, std::optional<timespec> access, std::optional<timespec> modification, Instant now);
    [[nodiscard]] timespec wall_time(Instant instant) const;
    [[nodiscard]] std::uint64_t lun_bytes_total() const;
    [[nodiscard]] std::size_t size() const { return nodes_.size(); }

private:
    struct Overrides {
        std::optional<mode_t> mode;
        std::optional<uid_t> uid;
        std::optional<gid_t> gid;
        std::optional<timespec> access_time, modification_time;
        Instant set_at{};  // of modification_time
    };
    Node& add(NodeId parent, std::string_view name, NodeKind kind);
    [[nodiscard]] NodeId number_for(const Node& parent, std::string_view name, NodeKind kind) const;
    [[nodiscard]] static std::string path_of(const Node& node);
    void remove_below(Node& node, std::vector<NodeId>& gone, std::vector<std::shared_ptr<LunData>>& luns);
    [[nodiscard]] Node& existing(NodeId id);
    [[nodiscard]] mode_t default_mode(const Node& node) const;

    TreeDefaults defaults_;
    TreeWatcher& watcher_;
    const OpenFiles& files_;
    PathHash hash_;
    std::unordered_map<std::uint64_t, std::unique_ptr<Node>> nodes_;
    std::unordered_map<std::uint64_t, Overrides> overrides_;
    Node* root_ = nullptr;
};

}  // namespace srpfs::fs
