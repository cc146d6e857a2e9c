// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/cli/cli.h>
#include <srpfs/cli/mount_helper.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

namespace srpfs::cli {
namespace {

// What says when, by whom or before what to mount, and what has no meaning where the kernel keeps no times. The one
// list.
constexpr std::array dropped{
    "auto",       "noauto",   "user",       "nouser",     "users",       "nousers",       "owner",
    "noowner",    "group",    "nogroup",    "nofail",     "_netdev",     "defaults",      "comment",
    "uhelper",    "helper",   "relatime",   "norelatime", "strictatime", "nostrictatime", "lazytime",
    "nolazytime", "diratime", "nodiratime", "silent",     "loud",
};

bool is_mounts_own(std::string_view name) {
    return name.starts_with("x-") || name.starts_with("X-") ||
           std::find(dropped.begin(), dropped.end(), name) != dropped.end();
}

// With its backslashes: srpfs splits it again.
std::vector<std::string_view> items_of(std::string_view list) {
    std::vector<std::string_view> items;
    std::size_t start = 0;
    for (std::size_t i = 0; i <= list.size(); ++i) {
        if (i < list.size() && list[i] == '\\') {
            ++i;
        } else if (i >= list.size() || list[i] == ',') {
            if (i > start) items.push_back(list.substr(start, i - start));
            start = i + 1;
        }
    }
    return items;
}

}  // namespace

Result<MountRequest> mount_request(const std::vector<std::string>& arguments) {
    MountRequest request;
    bool sloppy = false;
    std::vector<std::string> lists, operands;
    std::vector<std::string> words = arguments;
    words.insert(words.begin(), std::string(mount_helper_name));
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    opterr = 0;
    optind = 0;  // from the beginning, whoever has used it before
    for (int letter = 0; (letter = getopt(static_cast<int>(words.size()), argv.data(), "-:fnsvo:t:N:")) != -1;) {
        switch (letter) {
            case 1: operands.emplace_back(optarg); break;
            case 'f': request.fake = true; break;
            case 'n': break;  // there is no /etc/mtab to write
            case 's': sloppy = true; break;
            case 'v': request.verbose = true; break;
            case 'o': lists.emplace_back(optarg); break;
            case 't': break;  // fuse.srpfs
            case 'N': request.mount_namespace = optarg; break;
            case ':': return Error(EINVAL, fmt::format("-{} needs a value", static_cast<char>(optopt)));
            default:
                return Error(EINVAL, fmt::format("unknown option -{}; this is mount(8)'s helper: use mount -t "
                                                 "fuse.srpfs, or srpfs",
                                                 static_cast<char>(optopt)));
        }
    }
    for (int i = optind; i < static_cast<int>(words.size()); ++i)
        operands.emplace_back(argv[static_cast<std::size_t>(i)]);
    if (operands.size() != 2)
        return Error(EINVAL, fmt::format("{} operands instead of SOURCE and DIRECTORY; this is mount(8)'s helper: use "
                                         "mount -t fuse.srpfs, or srpfs",
                                         operands.size()));
    const auto known = option_names();
    std::string kept;
    for (const std::string& list : lists)
        for (const std::string_view item : items_of(list)) {
            const std::string_view name = item.substr(0, item.find('='));
            if (name == "remount")
                return Error(EOPNOTSUPP, fmt::format("{}: remount is not supported: umount and mount again, or change "
                                                     "what can be changed through its control files",
                                                     operands[1]));
            if (is_mounts_own(name)) continue;
            if (sloppy && std::find(known.begin(), known.end(), name) == known.end()) continue;
            if (!kept.empty()) kept += ',';
            kept += item;
        }
    if (!kept.empty()) request.arguments = {"-o", kept};
    // Nothing behind it is an option.
    request.arguments.emplace_back("--");
    for (std::string& operand : operands) request.arguments.push_back(std::move(operand));
    return request;
}

int run_as_mount_helper(int argc, char** argv) {
    const auto request = mount_request(std::vector<std::string>(argv + 1, argv + argc));
    if (!request) {
        fmt::print(stderr, "srpfs: {}\n", request.error().context);
        return request.error().errno_value() == EINVAL ? daemon::exit_code::usage : daemon::exit_code::mount_failed;
    }
    if (request->verbose)
        fmt::print("srpfs: {}srpfs {}\n", request->fake ? "would run " : "", fmt::join(request->arguments, " "));
    if (request->fake) return daemon::exit_code::ok;
    if (!request->mount_namespace.empty()) {
        const int fd = open(request->mount_namespace.c_str(), O_RDONLY | O_CLOEXEC);
        const bool entered = fd >= 0 && setns(fd, CLONE_NEWNS) == 0;
        if (!entered) {
            fmt::print(stderr, "srpfs: mount namespace {}: {}\n", request->mount_namespace, std::strerror(errno));
            return daemon::exit_code::mount_failed;
        }
        close(fd);
    }
    std::vector<std::string> words = request->arguments;
    std::vector<char*> arguments{argv[0]};
    for (std::string& word : words) arguments.push_back(word.data());
    std::fflush(stdout);
    return run(static_cast<int>(arguments.size()), arguments.data());
}

}  // namespace srpfs::cli
