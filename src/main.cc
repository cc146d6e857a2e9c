// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/cli/cli.h>
#include <srpfs/cli/mount_helper.h>

#include <string_view>

int main(int argc, char** argv) {
    const std::string_view path = argc > 0 ? argv[0] : "";
    if (path.substr(path.rfind('/') + 1) == srpfs::cli::mount_helper_name)
        return srpfs::cli::run_as_mount_helper(argc, argv);
    return srpfs::cli::run(argc, argv);
}
