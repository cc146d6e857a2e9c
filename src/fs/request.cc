// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "request.h"

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string_view>

namespace srpfs::fs {
namespace {

struct Shape {
    std::size_t fixed_bytes;  // of the body
    unsigned names;           // strings with a final NUL after it
};

std::optional<Shape> shape_of(std::uint32_t opcode) {
    switch (opcode) {
        case FUSE_LOOKUP: return Shape{0, 1};
        case FUSE_GETATTR: return Shape{sizeof(fuse_getattr_in), 0};
        case FUSE_SETATTR: return Shape{sizeof(fuse_setattr_in), 0};
        case FUSE_READLINK: return Shape{0, 0};
        case FUSE_SYMLINK: return Shape{0, 2};
        case FUSE_MKNOD: return Shape{sizeof(fuse_mknod_in), 1};
        case FUSE_MKDIR: return Shape{sizeof(fuse_mkdir_in), 1};
        case FUSE_UNLINK: return Shape{0, 1};
        case FUSE_RMDIR: return Shape{0, 1};
        case FUSE_RENAME: return Shape{sizeof(fuse_rename_in), 2};
        case FUSE_LINK: return Shape{sizeof(fuse_link_in), 1};
        case FUSE_OPEN: return Shape{sizeof(fuse_open_in), 0};
        case FUSE_STATFS: return Shape{0, 0};
        case FUSE_RELEASE: return Shape{sizeof(fuse_release_in), 0};
        case FUSE_SETXATTR: return Shape{FUSE_COMPAT_SETXATTR_IN_SIZE, 1};
        case FUSE_GETXATTR: return Shape{sizeof(fuse_getxattr_in), 1};
        case FUSE_LISTXATTR: return Shape{sizeof(fuse_getxattr_in), 0};
        case FUSE_REMOVEXATTR: return Shape{0, 1};
        case FUSE_OPENDIR: return Shape{sizeof(fuse_open_in), 0};
        case FUSE_READDIR:
        case FUSE_READDIRPLUS: return Shape{sizeof(fuse_read_in), 0};
        case FUSE_RELEASEDIR: return Shape{sizeof(fuse_release_in), 0};
        case FUSE_FSYNCDIR: return Shape{sizeof(fuse_fsync_in), 0};
        case FUSE_ACCESS: return Shape{sizeof(fuse_access_in), 0};
        case FUSE_CREATE: return Shape{sizeof(fuse_create_in), 1};
        case FUSE_DESTROY: return Shape{0, 0};
        case FUSE_IOCTL: return Shape{sizeof(fuse_ioctl_in), 0};
        case FUSE_RENAME2: return Shape{sizeof(fuse_rename2_in), 2};
        default: return std::nullopt;
    }
}

}  // namespace

int check_for_libfuse(std::span<const std::byte> bytes) {
    fuse_in_header header{};
    if (!read_struct(bytes, 0, header)) return EINVAL;
    const auto shape = shape_of(header.opcode);
    if (!shape) return ENOSYS;
    auto body = bytes.subspan(sizeof header);
    if (body.size() < shape->fixed_bytes) return EINVAL;
    if (header.opcode == FUSE_IOCTL) {
        fuse_ioctl_in ioctl{};
        if (!read_struct(body, 0, ioctl) || ioctl.in_size > body.size() - sizeof ioctl) return EINVAL;
        // libfuse allocates what the caller asks for; the kernel's own limit for restricted ioctls is 14 bits of size.
        if (ioctl.out_size > 1u << 14) return EINVAL;
    }
    body = body.subspan(shape->fixed_bytes);
    for (unsigned name = 0; name < shape->names; ++name) {
        const auto end = std::find(body.begin(), body.end(), std::byte{0});
        if (end == body.end() || end == body.begin()) return EINVAL;
        body = body.subspan(static_cast<std::size_t>(end - body.begin()) + 1);
    }
    return 0;
}

bool is_foreign_attribute(std::span<const std::byte> bytes) {
    fuse_in_header header{};
    if (!read_struct(bytes, 0, header) || header.opcode != FUSE_GETXATTR || check_for_libfuse(bytes) != 0) return false;
    const auto name = bytes.subspan(sizeof header + sizeof(fuse_getxattr_in));
    constexpr std::string_view ours = "user.";
    return std::string_view(reinterpret_cast<const char*>(name.data()), name.size()).substr(0, ours.size()) != ours;
}

bool is_unanswered(std::uint32_t opcode) {
    return opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_NOTIFY_REPLY;
}

std::vector<std::byte> make_reply(std::uint64_t unique, int error, std::span<const std::byte> body) {
    if (error != 0) body = {};
    fuse_out_header header{};
    header.len = static_cast<std::uint32_t>(sizeof header + body.size());
    header.error = -error;
    header.unique = unique;
    std::vector<std::byte> reply(sizeof header + body.size());
    std::memcpy(reply.data(), &header, sizeof header);
    if (!body.empty()) std::memcpy(reply.data() + sizeof header, body.data(), body.size());
    return reply;
}

}  // namespace srpfs::fs
