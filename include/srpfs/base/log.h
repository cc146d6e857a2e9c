// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// One line per event: who, cause, consequence, next step. Never called on a successful I/O.
// Thread-safe. Lines go to stderr or the journal (foreground) or the system log (daemon), and to an optional observer.
// Nobody waits for those who take them, but with `standard_error`: lines there is no room for are counted, and the
// number is told later.

#pragma once

#include <fmt/format.h>

#include <functional>
#include <string>
#include <string_view>

namespace srpfs::log {

enum class Level { error, warning, info, debug };

// `standard_error` waits, and misses no line; `standard_error_if_room` does not.
enum class Destination { standard_error, standard_error_if_room, journal, system_log, none };

// `journal` when stderr is the journal's (JOURNAL_STREAM says so): there each line has its priority, SRPFS_TARGET and
// SRPFS_LUN where it is about one. systemd.journal-fields(7).
[[nodiscard]] Destination standard_error_or_journal();

// What goes to the journal: KEY=VALUE, one a line. `message` has no newline.
[[nodiscard]] std::string journal_entry(Level level, std::string_view subject, std::string_view message);

// Process-wide; call before threads start. `threshold`: lines below it are dropped.
void configure(Destination destination, Level threshold);
[[nodiscard]] Level threshold();

// Called with every line that is written, on the thread that wrote it. Empty to remove. For tests.
void observe(std::function<void(Level, std::string_view)> observer);

void write(Level level, std::string_view subject, std::string_view message);

// `subject` names the object the line is about ("10.0.0.7:5555/ch1"); empty for the program itself.
template <typename... Args>
void error(std::string_view subject, fmt::format_string<Args...> format, Args&&... args) {
    write(Level::error, subject, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void warning(std::string_view subject, fmt::format_string<Args...> format, Args&&... args) {
    write(Level::warning, subject, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void info(std::string_view subject, fmt::format_string<Args...> format, Args&&... args) {
    if (threshold() >= Level::info) write(Level::info, subject, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void debug(std::string_view subject, fmt::format_string<Args...> format, Args&&... args) {
    if (threshold() >= Level::debug) write(Level::debug, subject, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace srpfs::log
