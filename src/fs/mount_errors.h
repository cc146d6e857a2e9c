// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Why a mount cannot work, in a sentence, found out before libfuse is asked (its own messages name no cause).

#pragma once

#include <srpfs/base/result.h>
#include <srpfs/fs/file_system.h>

#include <optional>
#include <string>
#include <string_view>

namespace srpfs::fs {

// What can be known beforehand: the mount point, /dev/fuse, fusermount3 and fuse.conf for users who are not root.
[[nodiscard]] std::optional<Error> find_mount_obstacle(const MountOptions& options);

// After libfuse has failed with `messages` in its log: the same in our words.
[[nodiscard]] Error explain_mount_failure(const MountOptions& options, std::string_view messages);

// A line of /proc/self/mountinfo.
struct MountInfo {
    unsigned device_minor = 0;
    std::string mountpoint;
    std::string type;
};
// nullopt: not a mountinfo line. Undoes the kernel's octal escapes.
[[nodiscard]] std::optional<MountInfo> parse_mountinfo_line(std::string_view line);
// The uppermost mount at `mountpoint`, which must be a resolved path.
[[nodiscard]] std::optional<MountInfo> find_mount(const std::string& mountpoint);

// Whether the text of fuse.conf allows allow_other to everybody.
[[nodiscard]] bool allows_other_users(std::string_view fuse_conf);

// `value` as part of a comma separated list of mount options: commas and backslashes quoted.
[[nodiscard]] std::string escape_option(std::string_view value);

}  // namespace srpfs::fs
