// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Which srpfs mounts there are, and which of them is meant. No mount is touched to find out: it might not answer.

#pragma once

#include <srpfs/base/result.h>

#include <string>
#include <string_view>
#include <vector>

namespace srpfs::ctl {

struct Mount {
    std::string path;    // absolute, without a slash at the end
    std::string source;  // as in /proc/mounts
    std::string device;  // "major:minor"; the minor number names the connection in /sys/fs/fuse/connections

    [[nodiscard]] std::string shown() const;  // the path in a sentence, in one line

    bool operator==(const Mount&) const = default;
};

// The mounts of type fuse.srpfs in the text of /proc/self/mountinfo (proc(5)) that can be reached: not those with
// another mount on top, and of bind mounts of one srpfs only the first.
std::vector<Mount> parse_mountinfo(std::string_view text);

// Of this process. EIO if /proc cannot be read.
Result<std::vector<Mount>> find_mounts();

// The mount to use: the one that `wanted` (absolute) is, or is below of; when that is empty the one that a name in
// `names` is below of (absolute paths; others do not count); else the only one. ENODEV with a sentence that says what
// can be done when there is none or several are left.
Result<Mount> choose_mount(const std::vector<Mount>& mounts, const std::string& wanted,
                           const std::vector<std::string>& names);

// Absolute and without "." and ".."; looks at no file.
std::string absolute_path(const std::string& path);

}  // namespace srpfs::ctl
