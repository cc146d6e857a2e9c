// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "tree_nodes.h"

#include <srpfs/base/assert.h>

#include <algorithm>

namespace srpfs::fs {
namespace {

constexpr std::uint64_t root_number = static_cast<std::uint64_t>(NodeId::root);
// Inode numbers stay positive when somebody stores them in a signed 64-bit integer.
constexpr std::uint64_t number_mask = (std::uint64_t{1} << 62) - 1;

mode_t type_of(NodeKind kind) {
    switch (kind) {
        case NodeKind::directory: return S_IFDIR;
        case NodeKind::symlink: return S_IFLNK;
        case NodeKind::control:
        case NodeKind::stream:
        case NodeKind::lun: return S_IFREG;
    }
    return S_IFREG;
}

}  // namespace

// FNV-1a, finished with the mixer of splitmix64 because FNV leaves the high bits of short strings alike.
std::uint64_t TreeNodes::hash_path(std::string_view path) {
    std::uint64_t hash = 0xcbf29ce484222325;
    for (const char c : path) {
        hash ^= static_cast<unsigned char>(c);
        hash *= 0x100000001b3;
    }
    hash ^= hash >> 30;
    hash *= 0xbf58476d1ce4e5b9;
    hash ^= hash >> 27;
    hash *= 0x94d049bb133111eb;
    return hash ^ hash >> 31;
}

TreeNodes::TreeNodes(const TreeDefaults& defaults, TreeWatcher& watcher, const OpenFiles& files, PathHash hash)
    : defaults_(defaults), watcher_(watcher), files_(files), hash_(std::move(hash)) {
    auto root = std::make_unique<Node>();
    root->id = NodeId::root;
    root->parent = root.get();
    root_ = root.get();
    nodes_.emplace(root_number, std::move(root));
}

TreeNodes::~TreeNodes() = default;

const Node* TreeNodes::node(NodeId id) const {
    const auto found = nodes_.find(static_cast<std::uint64_t>(id));
    return found == nodes_.end() ? nullptr : found->second.get();
}

Node& TreeNodes::existing(NodeId id) {
    const auto found = nodes_.find(static_cast<std::uint64_t>(id));
    SRPFS_ASSERT(found != nodes_.end());
    return *found->second;
}

std::string TreeNodes::path_of(const Node& node) {
    if (node.parent == &node) return {};
    return path_of(*node.parent) + '/' + node.name;
}

NodeId TreeNodes::number_for(const Node& parent, std::string_view name, NodeKind kind) const {
    std::uint64_t number = hash_(path_of(parent) + '/' + std::string(name)) & number_mask;
    // Nor that of a file that is gone and that somebody has open: for the kernel it would be the same file, and show
    // him another unit's pages.
    while (number <= root_number || nodes_.contains(number) ||
           (kind == NodeKind::lun && files_.has_removed(NodeId{number})))
        number = (number + 1) & number_mask;
    return NodeId{number};
}

Node& TreeNodes::add(NodeId parent_id, std::string_view name, NodeKind kind) {
    Node& parent = existing(parent_id);
    SRPFS_ASSERT(parent.kind == NodeKind::directory);
    SRPFS_ASSERT(!name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos);
    SRPFS_ASSERT(!parent.children.contains(name));
    auto node = std::make_unique<Node>();
    node->id = number_for(parent, name, kind);
    node->parent = &parent;
    node->name = name;
    node->kind = kind;
    Node& added = *node;
    parent.children.emplace(std::string(name), &added);
    if (kind == NodeKind::directory) ++parent.directories;
    nodes_.emplace(static_cast<std::uint64_t>(added.id), std::move(node));
    return added;
}

NodeId TreeNodes::add_directory(NodeId parent, std::string_view name) {
    const NodeId id = add(parent, name, NodeKind::directory).id;
    watcher_.on_attributes_changed(parent);
    return id;
}

NodeId TreeNodes::add_control_file(NodeId parent, std::string_view name, Access access,
                                   std::unique_ptr<ControlFile> file) {
    Node& node = add(parent, name, NodeKind::control);
    node.access = access;
    node.control = std::move(file);
    watcher_.on_attributes_changed(parent);
    return node.id;
}

NodeId TreeNodes::add_stream_file(NodeId parent, std::string_view name, std::unique_ptr<StreamFile> file) {
    Node& node = add(parent, name, NodeKind::stream);
    node.stream = std::move(file);
    watcher_.on_attributes_changed(parent);
    return node.id;
}

NodeId TreeNodes::add_lun_file(NodeId parent, std::string_view name, const LunFile& file) {
    Node& node = add(parent, name, NodeKind::lun);
    node.access = Access::read_write;
    node.lun = std::make_shared<LunData>();
    node.lun->reactor = file.reactor;
    node.lun->unit = file.unit;
    node.lun->capacity_bytes = file.capacity_bytes;
    node.lun->io_bytes = file.io_bytes;
    node.lun->read_only = file.read_only;
    node.lun->may_have_holes = file.may_have_holes;
    node.lun->is_cached = file.is_cached;
    if (file.is_cached) watcher_.on_cached();
    node.uid = file.uid;
    node.gid = file.gid;
    node.mode = file.mode;
    watcher_.on_attributes_changed(parent);
    return node.id;
}

NodeId TreeNodes::add_symlink(NodeId parent, std::string_view name, std::function<std::string()> destination) {
    Node& node = add(parent, name, NodeKind::symlink);
    node.destination = std::move(destination);
    watcher_.on_attributes_changed(parent);
    return node.id;
}

void TreeNodes::change_lun_file(NodeId id, const LunFile& file) {
    Node& node = existing(id);
    SRPFS_ASSERT(node.kind == NodeKind::lun);
    SRPFS_ASSERT(node.lun->unit == file.unit);
    node.lun->capacity_bytes = file.capacity_bytes;
    node.lun->io_bytes = file.io_bytes;
    node.lun->read_only = file.read_only;
    node.lun->may_have_holes = file.may_have_holes;
    node.lun->is_cached = file.is_cached;
    if (file.is_cached) watcher_.on_cached();
    watcher_.on_attributes_changed(id);
}

void TreeNodes::describe(NodeId id, std::function<ExtendedAttributes()> attributes) {
    existing(id).attributes = std::move(attributes);
}

void TreeNodes::serve_ioctl(NodeId id, unsigned number, Ioctl carry_out) {
    Node& node = existing(id);
    node.ioctl_number = number;
    node.ioctl = std::move(carry_out);
}

void TreeNodes::drop_pages(NodeId id, std::function<void()> done) {
    const Node* const found = node(id);
    if (!found || !found->lun) return done();
    watcher_.on_changed_elsewhere(found->lun, std::move(done));
}

ExtendedAttributes TreeNodes::extended_attributes(const Node& node) {
    return node.attributes ? node.attributes() : ExtendedAttributes{};
}

void TreeNodes::remove_below(Node& node, std::vector<NodeId>& gone, std::vector<std::shared_ptr<LunData>>& luns) {
    while (!node.children.empty()) remove_below(*node.children.begin()->second, gone, luns);
    gone.push_back(node.id);
    if (node.lun) luns.push_back(node.lun);
    node.parent->children.erase(node.name);
    if (node.kind == NodeKind::directory) {
        --node.parent->directories;
        watcher_.on_attributes_changed(node.id);
    }
    nodes_.erase(static_cast<std::uint64_t>(node.id));
}

void TreeNodes::remove(NodeId id, std::function<void()> when_released) {
    SRPFS_ASSERT(id != NodeId::root);
    std::vector<NodeId> gone;
    std::vector<std::shared_ptr<LunData>> luns;
    Node& node = existing(id);
    const NodeId parent = node.parent->id;
    remove_below(node, gone, luns);
    watcher_.on_attributes_changed(parent);
    watcher_.on_unreachable(std::move(gone), std::move(luns), std::move(when_released));
}

NodeId TreeNodes::find(NodeId parent, std::string_view name) const {
    const Node* directory = node(parent);
    if (!directory) return NodeId{0};
    const auto child = directory->children.find(name);
    return child == directory->children.end() ? NodeId{0} : child->second->id;
}

unsigned TreeNodes::open_handles(NodeId id) const {
    const Node* start = node(id);
    if (!start) return 0;
    unsigned handles = start->kind == NodeKind::lun ? files_.count_of_node(id) : 0;
    for (const auto& [name, child] : start->children) handles += open_handles(child->id);
    return handles;
}

// ---- attributes ----

mode_t TreeNodes::default_mode(const Node& node) const {
    mode_t mode = 0;
    switch (node.kind) {
        case NodeKind::directory: mode = 0755; break;
        case NodeKind::stream: mode = 0444; break;
        case NodeKind::symlink: mode = 0777; break;
        case NodeKind::control:
            switch (node.access) {
                case Access::read_only: mode = 0444; break;
                case Access::write_only: mode = 0200; break;
                case Access::read_write: mode = 0644; break;
                case Access::owner_only: mode = 0600; break;
            }
            break;
        case NodeKind::lun: mode = node.mode.value_or(defaults_.umask ? 0666 & ~*defaults_.umask : 0600); break;
    }
    return mode;
}

struct stat TreeNodes::attributes(const Node& node) const {
    struct stat st {};
    st.st_ino = static_cast<ino_t>(node.id);
    st.st_nlink = 1;
    st.st_uid = defaults_.owner_uid;
    st.st_gid = defaults_.owner_gid;
    st.st_blksize = 4096;
    st.st_atim = st.st_mtim = st.st_ctim = defaults_.wall_time;
    st.st_mode = default_mode(node);
    if (node.kind == NodeKind::directory) st.st_nlink = 2 + node.directories;
    if (node.kind == NodeKind::symlink) st.st_size = static_cast<off_t>(node.destination().size());
    Instant written{};
    if (node.kind == NodeKind::lun) {
        st.st_size = static_cast<off_t>(node.lun->capacity_bytes.load());
        st.st_blocks = st.st_size / 512;
        if (node.lun->may_have_holes) st.st_blocks -= std::min<blkcnt_t>(st.st_blocks, 8);
        st.st_blksize = static_cast<blksize_t>(node.lun->io_bytes.load());
        st.st_uid = node.uid.value_or(defaults_.uid.value_or(st.st_uid));
        st.st_gid = node.gid.value_or(defaults_.gid.value_or(st.st_gid));
        written = Instant(Duration(node.lun->last_write.load(std::memory_order_relaxed)));
        if (written != Instant{}) st.st_mtim = st.st_ctim = wall_time(written);
    }
    if (const auto found = overrides_.find(static_cast<std::uint64_t>(node.id)); found != overrides_.end()) {
        const Overrides& set = found->second;
        if (set.mode) st.st_mode = *set.mode;
        if (set.uid) st.st_uid = *set.uid;
        if (set.gid) st.st_gid = *set.gid;
        if (set.access_time) st.st_atim = *set.access_time;
        if (set.modification_time && written <= set.set_at) st.st_mtim = *set.modification_time;
    }
    const bool unwritable = defaults_.read_only || (node.lun && node.lun->read_only.load());
    if (unwritable && type_of(node.kind) == S_IFREG) st.st_mode &= ~static_cast<mode_t>(0222);
    st.st_mode |= type_of(node.kind);
    return st;
}

std::vector<DirectoryEntry> TreeNodes::list(const Node& directory) const {
    std::vector<DirectoryEntry> entries;
    entries.reserve(directory.children.size() + 2);
    entries.push_back({directory.id, S_IFDIR, "."});
    entries.push_back({directory.parent->id, S_IFDIR, ".."});
    for (const auto& [name, child] : directory.children) entries.push_back({child->id, type_of(child->kind), name});
    return entries;
}

void TreeNodes::set_mode(NodeId id, unsigned mode) {
    overrides_[static_cast<std::uint64_t>(id)].mode = mode & 07777;
    watcher_.on_attributes_changed(id);
}

Tree::Permissions TreeNodes::permissions(NodeId id) const {
    const Node* found = node(id);
    SRPFS_ASSERT(found != nullptr);
    const struct stat st = attributes(*found);
    return {.uid = st.st_uid, .gid = st.st_gid, .mode = st.st_mode & 07777};
}

unsigned TreeNodes::writers(NodeId id) const { return files_.writers_of_node(id); }

void TreeNodes::set_owner(NodeId id, std::optional<unsigned> uid, std::optional<unsigned> gid) {
    Overrides& set = overrides_[static_cast<std::uint64_t>(id)];
    if (uid) set.uid = uid;
    if (gid) set.gid = gid;
    watcher_.on_attributes_changed(id);
}

void TreeNodes::set_times(NodeId id, std::optional<timespec> access, std::optional<timespec> modification,
                          Instant now) {
    Overrides& set = overrides_[static_cast<std::uint64_t>(id)];
    if (access) set.access_time = access;
    if (modification) {
        set.modification_time = modification;
        set.set_at = now;
    }
}

timespec TreeNodes::wall_time(Instant instant) const {
    constexpr std::int64_t second = 1'000'000'000;
    const std::int64_t later = (instant - defaults_.instant).count();
    std::int64_t seconds = later / second;
    std::int64_t nanoseconds = later % second + defaults_.wall_time.tv_nsec;
    if (nanoseconds < 0) {
        nanoseconds += second;
        --seconds;
    }
    if (nanoseconds >= second) {
        nanoseconds -= second;
        ++seconds;
    }
    return {.tv_sec = defaults_.wall_time.tv_sec + seconds, .tv_nsec = nanoseconds};
}

std::uint64_t TreeNodes::lun_bytes_total() const {
    std::uint64_t total = 0;
    for (const auto& [number, node] : nodes_)
        if (node->lun) total += node->lun->capacity_bytes.load();
    return total;
}

}  // namespace srpfs::fs
