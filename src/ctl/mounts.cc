// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/mounts.h>

#include <srpfs/ctl/text.h>

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace srpfs::ctl {
namespace {

// Blank, tab, newline and backslash stand there as \ooo.
std::string unescaped(std::string_view field) {
    std::string result;
    for (std::size_t i = 0; i < field.size(); ++i) {
        const auto digit = [&](std::size_t at) { return at < field.size() && field[at] >= '0' && field[at] <= '7'; };
        if (field[i] == '\\' && digit(i + 1) && digit(i + 2) && digit(i + 3)) {
            result += static_cast<char>((field[i + 1] - '0') * 64 + (field[i + 2] - '0') * 8 + (field[i + 3] - '0'));
            i += 3;
        } else {
            result += field[i];
        }
    }
    return result;
}

bool is_below(std::string_view path, std::string_view directory) {
    if (directory == "/") return true;
    return path.starts_with(directory) && (path.size() == directory.size() || path[directory.size()] == '/');
}

// The innermost mount that has the path.
const Mount* mount_of(const std::vector<Mount>& mounts, std::string_view path) {
    const Mount* best = nullptr;
    for (const Mount& one : mounts)
        if (is_below(path, one.path) && (!best || one.path.size() > best->path.size())) best = &one;
    return best;
}

std::string list_of(const std::vector<Mount>& mounts) {
    std::string text;
    for (const Mount& one : mounts) text += fmt::format("{}{}", text.empty() ? "" : ", ", one.shown());
    return text;
}

}  // namespace

std::string Mount::shown() const { return printable(path, Charset::utf8); }

std::vector<Mount> parse_mountinfo(std::string_view text) {
    struct Entry {
        Mount mount;
        bool is_ours;
    };
    std::vector<Entry> entries;
    for (const std::string_view line : split(text, '\n')) {
        const auto fields = split(line, ' ');
        const auto dash = std::find(fields.begin(), fields.end(), "-");
        if (fields.size() < 6 || fields.end() - dash < 3) continue;
        const bool is_ours = dash[1] == "fuse.srpfs" && fields[3] == "/";
        Entry entry{{unescaped(fields[4]), unescaped(dash[2]), std::string(fields[2])}, is_ours};
        // What is mounted later on the same place, or above it, hides this one.
        std::erase_if(entries, [&](const Entry& other) { return is_below(other.mount.path, entry.mount.path); });
        entries.push_back(std::move(entry));
    }
    std::vector<Mount> mounts;
    for (const Entry& entry : entries)
        if (entry.is_ours && std::none_of(mounts.begin(), mounts.end(),
                                          [&](const Mount& other) { return other.device == entry.mount.device; }))
            mounts.push_back(entry.mount);
    return mounts;
}

Result<std::vector<Mount>> find_mounts() {
    std::ifstream file("/proc/self/mountinfo", std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    if (!file || text.empty()) return Error(EIO, "/proc/self/mountinfo cannot be read; is /proc mounted?");
    return parse_mountinfo(text);
}

Result<Mount> choose_mount(const std::vector<Mount>& mounts, const std::string& wanted,
                           const std::vector<std::string>& names) {
    const std::string others =
        mounts.empty() ? "nothing is mounted as srpfs" : fmt::format("srpfs is mounted on {}", list_of(mounts));
    if (!wanted.empty()) {
        if (const Mount* found = mount_of(mounts, wanted)) return *found;
        return Error(ENODEV, fmt::format("{} is not in an srpfs mount; {}", printable(wanted, Charset::utf8), others));
    }
    for (const std::string& name : names)
        if (name.starts_with('/'))
            if (const Mount* found = mount_of(mounts, name)) return *found;
    if (mounts.empty())
        return Error(ENODEV,
                     fmt::format("{}; begin with: srpfs none /srp (or srpfs demo /srp, to try it out)", others));
    if (mounts.size() > 1) return Error(ENODEV, fmt::format("{}: choose one with --mount", others));
    return mounts.front();
}

std::string absolute_path(const std::string& path) {
    std::error_code fault;
    std::string result = std::filesystem::absolute(path, fault).lexically_normal();
    if (fault) return path;
    while (result.size() > 1 && result.ends_with('/')) result.pop_back();
    return result;
}

}  // namespace srpfs::ctl
