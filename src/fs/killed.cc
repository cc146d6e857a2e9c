// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "killed.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <csignal>

#include <fcntl.h>
#include <unistd.h>

namespace srpfs::fs {

bool has_fatal_signal(std::string_view status) {
    for (const std::string_view name : {"\nSigPnd:\t", "\nShdPnd:\t"}) {
        const auto at = status.find(name);
        if (at == std::string_view::npos) continue;
        const std::string_view rest = status.substr(at + name.size());
        std::uint64_t pending = 0;
        std::from_chars(rest.data(), rest.data() + rest.size(), pending, 16);
        if ((pending >> (SIGKILL - 1) & 1) != 0) return true;
    }
    return false;
}

bool was_killed(std::uint32_t thread) {
    if (thread == 0) return false;
    const int file = open(fmt::format("/proc/{}/status", thread).c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    std::array<char, 8192> text;
    const ssize_t bytes = read(file, text.data(), text.size());
    close(file);
    return bytes > 0 && has_fatal_signal({text.data(), static_cast<std::size_t>(bytes)});
}

}  // namespace srpfs::fs
