// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "terminal.h"

#include <fmt/format.h>

#include <cerrno>
#include <clocale>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <langinfo.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace srpfs::ctl {
namespace {

struct Said {
    std::vector<std::string> complaints;
    bool has_output = false;
};
Said& said() {
    static Said all;
    return all;
}

int write_all(int descriptor, std::string_view text) {
    while (!text.empty()) {
        const ssize_t written = ::write(descriptor, text.data(), text.size());
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return errno;
        text.remove_prefix(static_cast<std::size_t>(written));
    }
    return 0;
}

Charset charset_of_locale() {
    std::setlocale(LC_CTYPE, "");
    return std::strcmp(nl_langinfo(CODESET), "UTF-8") == 0 ? Charset::utf8 : Charset::ascii;
}

}  // namespace

Screen screen_of_output() {
    Screen screen;
    screen.charset = charset_of_locale();
    if (!isatty(STDOUT_FILENO)) return screen;
    winsize size{};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        screen.width = size.ws_col;
        screen.height = size.ws_row;
    }
    const char* no_colour = std::getenv("NO_COLOR");
    const char* kind = std::getenv("TERM");
    screen.has_colour = !(no_colour && *no_colour) && kind && std::strcmp(kind, "dumb") != 0;
    return screen;
}

std::size_t columns_of_errors() {
    winsize size{};
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

void keep_standard_files() {
    for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
        if (::fcntl(descriptor, F_GETFD) < 0 && errno == EBADF)
            // The lowest number that is free. Without /dev/null it stays as it is.
            [[maybe_unused]]
            const int kept = ::open("/dev/null", descriptor == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

void write_aside(std::string_view text) { write_all(STDERR_FILENO, text); }

Result<void> write_output(std::string_view text) {
    said().has_output = said().has_output || !text.empty();
    if (const int fault = write_all(STDOUT_FILENO, text); fault != 0)
        return Error(fault, fmt::format("standard output: {}", std::strerror(fault)));
    return {};
}

void complain(std::string_view text) {
    std::string lines;
    for (const std::string_view line : split(text, '\n')) {
        said().complaints.emplace_back(line);
        lines += fmt::format(
            "{}{}\n", line.starts_with(' ') && !lines.empty() ? "" : "srpctl: ", printable(line, charset_of_locale()));
    }
    write_all(STDERR_FILENO, lines);
}

std::vector<std::string> complaints_alone() {
    return said().has_output ? std::vector<std::string>{} : said().complaints;
}

}  // namespace srpfs::ctl
