// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// FUSE requests as bytes: what may be looked at, and what libfuse may be given. libfuse trusts the kernel and does not
// compare lengths; this does, because a FuseChannel accepts any descriptor. Source of the layouts: <linux/fuse.h>.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <vector>

#include <linux/fuse.h>

namespace srpfs::fs {

// The longest command that a control file takes (user interface 4: longer is E2BIG).
inline constexpr std::size_t command_bytes_max = 64 * 1024;

// Copies a T out of `bytes` at `offset`; false when it does not fit, and `out` is unchanged.
template <typename T>
[[nodiscard]] bool read_struct(std::span<const std::byte> bytes, std::size_t offset, T& out) {
    static_assert(std::is_trivially_copyable_v<T>);
    if (offset > bytes.size() || sizeof(T) > bytes.size() - offset) return false;
    std::memcpy(&out, bytes.data() + offset, sizeof(T));
    return true;
}

template <typename T>
[[nodiscard]] std::span<const std::byte> bytes_of(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    return std::as_bytes(std::span(&value, 1));
}

// Whether libfuse can be given the whole request `bytes` (header included): 0, or the errno to answer it with: ENOSYS
// for an operation this file system does not have, EINVAL for a request that is too short or whose names do not end.
[[nodiscard]] int check_for_libfuse(std::span<const std::byte> bytes);

// GETXATTR of a name outside "user.": no file has such attributes, and `ls -l` asks for some of each file
// (security.selinux, POSIX ACLs). ENOSYS would end those of ours as well.
[[nodiscard]] bool is_foreign_attribute(std::span<const std::byte> bytes);

// Requests the kernel expects no answer to.
[[nodiscard]] bool is_unanswered(std::uint32_t opcode);

// Header and body of an answer; `error` is a positive errno value or 0, and then `body` follows.
[[nodiscard]] std::vector<std::byte> make_reply(std::uint64_t unique, int error, std::span<const std::byte> body = {});

// A request read by one channel, on its way through the control thread and back to that channel.
struct Origin {
    unsigned channel = 0;      // index of the reactor
    std::uint32_t record = 0;  // the channel's own note of it
    std::uint64_t unique = 0;
};

}  // namespace srpfs::fs
