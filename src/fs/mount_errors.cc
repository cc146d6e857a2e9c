// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "mount_errors.h"

#include <fmt/format.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace srpfs::fs {
namespace {

std::vector<std::string_view> split(std::string_view line) {
    std::vector<std::string_view> fields;
    std::size_t start = 0;
    while (start <= line.size()) {
        const auto end = std::min(line.find(' ', start), line.size());
        fields.push_back(line.substr(start, end - start));
        start = end + 1;
    }
    return fields;
}

std::string unescape_octal(std::string_view text) {
    std::string plain;
    for (std::size_t i = 0; i < text.size(); ++i) {
        int value = 0;
        if (text[i] == '\\' && i + 3 < text.size() + 0 &&
            std::from_chars(text.data() + i + 1, text.data() + i + 4, value, 8).ptr == text.data() + i + 4) {
            plain += static_cast<char>(value);
            i += 3;
        } else {
            plain += text[i];
        }
    }
    return plain;
}

std::string resolved(const std::string& path) {
    char* real = realpath(path.c_str(), nullptr);
    std::string result = real ? real : path;
    std::free(real);
    return result;
}

bool has_fusermount() {
    if (access("/usr/bin/fusermount3", X_OK) == 0) return true;
    const char* path = std::getenv("PATH");
    std::istringstream folders(path ? path : "/usr/bin:/bin");
    for (std::string folder; std::getline(folders, folder, ':');)
        if (access((folder + "/fusermount3").c_str(), X_OK) == 0) return true;
    return false;
}

std::optional<Error> find_mountpoint_obstacle(const MountOptions& options) {
    const std::string& where = options.mountpoint;
    // First, because looking at a mount point means asking the program that serves it.
    const auto mounted = find_mount(resolved(where));
    if (mounted && mounted->type == "fuse.srpfs")
        return Error{EBUSY, fmt::format("{}: an srpfs mount is there already, alive or left behind by a program that "
                                        "ended; run 'umount {}' first",
                                        where, where)};
    struct stat st {};
    if (stat(where.c_str(), &st) != 0) {
        const int reason = errno;
        switch (reason) {
            case ENOENT:
                return Error{reason,
                             fmt::format("{}: the mount point does not exist; create the directory first", where)};
            case ENOTCONN:
                return Error{
                    reason,
                    fmt::format("{}: an earlier mount is still there but its program has ended; run 'umount {}' first",
                                where, where)};
            default:
                return Error{reason,
                             fmt::format("{}: cannot look at the mount point: {}", where, std::strerror(reason))};
        }
    }
    if (!S_ISDIR(st.st_mode)) return Error{ENOTDIR, fmt::format("{}: the mount point is not a directory", where)};
    if (geteuid() != 0 && access(where.c_str(), W_OK) != 0)
        return Error{EACCES, fmt::format("{}: only root may mount on a directory one cannot write to", where)};
    return std::nullopt;
}

std::optional<Error> find_device_obstacle(const MountOptions& options) {
    const int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd >= 0) {
        close(fd);
        return std::nullopt;
    }
    const int reason = errno;
    const char* advice =
        "the kernel has no FUSE; load it with 'modprobe fuse' (in a container: pass the device /dev/fuse in)";
    if (reason == EMFILE || reason == ENFILE)
        advice = "more open files have to be allowed ('ulimit -n', LimitNOFILE= of a service, fs.file-max)";
    else if (reason != ENOENT && reason != ENODEV && reason != ENXIO)
        advice = "no permission to use FUSE; run as root or change the device's mode";
    return Error{reason,
                 fmt::format("{}: cannot open /dev/fuse ({}): {}", options.mountpoint, std::strerror(reason), advice)};
}

}  // namespace

std::optional<MountInfo> parse_mountinfo_line(std::string_view line) {
    // id parent major:minor root mountpoint options [optional...] - type source superoptions (proc(5))
    const auto fields = split(line);
    if (fields.size() < 10) return std::nullopt;
    std::size_t separator = 6;
    while (separator < fields.size() && fields[separator] != "-") ++separator;
    if (separator + 1 >= fields.size()) return std::nullopt;
    const auto device = fields[2];
    const auto colon = device.find(':');
    if (colon == std::string_view::npos) return std::nullopt;
    MountInfo info;
    const auto minor = device.substr(colon + 1);
    if (std::from_chars(minor.data(), minor.data() + minor.size(), info.device_minor).ptr !=
        minor.data() + minor.size())
        return std::nullopt;
    info.mountpoint = unescape_octal(fields[4]);
    info.type = unescape_octal(fields[separator + 1]);
    return info;
}

std::optional<MountInfo> find_mount(const std::string& mountpoint) {
    std::ifstream mounts("/proc/self/mountinfo");
    std::optional<MountInfo> found;
    for (std::string line; std::getline(mounts, line);) {
        auto info = parse_mountinfo_line(line);
        if (info && info->mountpoint == mountpoint) found = std::move(info);
    }
    return found;
}

bool allows_other_users(std::string_view fuse_conf) {
    std::istringstream lines{std::string(fuse_conf)};
    for (std::string line; std::getline(lines, line);) {
        line.erase(std::min(line.find('#'), line.size()));
        std::istringstream words(line);
        std::string word, more;
        if (words >> word && word == "user_allow_other" && !(words >> more)) return true;
    }
    return false;
}

std::string escape_option(std::string_view value) {
    std::string escaped;
    for (const char c : value) {
        if (c == ',' || c == '\\') escaped += '\\';
        escaped += c;
    }
    return escaped;
}

std::optional<Error> find_mount_obstacle(const MountOptions& options) {
    if (auto obstacle = find_mountpoint_obstacle(options)) return obstacle;
    if (auto obstacle = find_device_obstacle(options)) return obstacle;
    if (geteuid() == 0) return std::nullopt;
    if (!has_fusermount())
        return Error{ENOENT,
                     fmt::format("{}: fusermount3 is missing, which mounts for users who are not root; install the "
                                 "package fuse3",
                                 options.mountpoint)};
    if (options.allow_other || options.allow_root) {
        std::ifstream file("/etc/fuse.conf");
        std::stringstream text;
        text << file.rdbuf();
        if (!allows_other_users(text.str()))
            return Error{EPERM,
                         fmt::format("{}: the option {} needs the line 'user_allow_other' in /etc/fuse.conf, or root",
                                     options.mountpoint, options.allow_other ? "allow_other" : "allow_root")};
    }
    return std::nullopt;
}

Error explain_mount_failure(const MountOptions& options, std::string_view messages) {
    std::string text(messages);
    for (char& c : text)
        if (c == '\n') c = ' ';
    while (!text.empty() && text.back() == ' ') text.pop_back();
    const auto says = [&text](int errno_value) { return text.find(std::strerror(errno_value)) != std::string::npos; };
    if (says(EPERM) || says(EACCES))
        return Error{EPERM,
                     fmt::format("{}: mounting is not permitted (a container without CAP_SYS_ADMIN, or a security "
                                 "policy): {}",
                                 options.mountpoint, text)};
    if (says(EBUSY)) return Error{EBUSY, fmt::format("{}: the mount point is busy: {}", options.mountpoint, text)};
    if (says(EINVAL))
        return Error{EINVAL, fmt::format("{}: the kernel refused the mount options: {}", options.mountpoint, text)};
    return Error{
        EIO, fmt::format("{}: mounting failed: {}", options.mountpoint, text.empty() ? "no reason was given" : text)};
}

}  // namespace srpfs::fs
