// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// srpfs as mount(8)'s helper: called by the name mount.fuse.srpfs, with mount(8)'s arguments.

#pragma once

#include <srpfs/base/result.h>

#include <string>
#include <string_view>
#include <vector>

namespace srpfs::cli {

inline constexpr std::string_view mount_helper_name = "mount.fuse.srpfs";

struct MountRequest {
    std::vector<std::string> arguments;  // of srpfs
    bool fake = false;                   // -f: nothing is done
    bool verbose = false;
    std::string mount_namespace;  // a path; empty: this one
};

// `arguments` without the program's name: SOURCE DIRECTORY [-sfnv] [-o options] [-t type] [-N namespace]. Options that
// are mount(8)'s own are dropped; with -s, those that nobody knows as well.
Result<MountRequest> mount_request(const std::vector<std::string>& arguments);

int run_as_mount_helper(int argc, char** argv);

}  // namespace srpfs::cli
