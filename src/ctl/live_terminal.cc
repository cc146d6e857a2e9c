// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "live_terminal.h"

#include "terminal.h"

#include <cerrno>
#include <chrono>
#include <string>

#include <poll.h>
#include <signal.h>
#include <termios.h>
#include <unistd.h>

namespace srpfs::ctl {
namespace {

// Another screen, no cursor, long lines are cut; and back.
constexpr std::string_view take = "\x1b[?1049h\x1b[?25l\x1b[?7l", give_back = "\x1b[?7h\x1b[?25h\x1b[?1049l";

// What signal handlers need.
termios usual{};
volatile sig_atomic_t has_usual = 0;
volatile sig_atomic_t has_changed = 0;

// In a signal handler as well: system calls alone, whose failure nobody could do anything about.
void restore() {
    [[maybe_unused]] const auto written = ::write(STDOUT_FILENO, give_back.data(), give_back.size());
    if (has_usual) tcsetattr(STDIN_FILENO, TCSANOW, &usual);
}

void seize() {
    [[maybe_unused]] const auto written = ::write(STDOUT_FILENO, take.data(), take.size());
    if (!has_usual) return;
    termios live = usual;
    live.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    live.c_cc[VMIN] = 1;
    live.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &live);
}

void on_end(int number) {
    restore();
    ::signal(number, SIG_DFL);
    ::raise(number);
}

void on_stop(int) {
    const int before = errno;
    restore();
    ::kill(::getpid(), SIGSTOP);  // goes on behind this when it is continued
    seize();
    has_changed = 1;
    errno = before;
}

void on_size(int) { has_changed = 1; }

void set_handlers(bool ours) {
    const auto set = [&](int number, void (*handler)(int)) {
        struct sigaction action {};
        action.sa_handler = ours ? handler : SIG_DFL;
        sigemptyset(&action.sa_mask);
        sigaction(number, &action, nullptr);  // without SA_RESTART: waiting ends
    };
    for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE}) set(number, on_end);
    set(SIGTSTP, on_stop);
    set(SIGWINCH, on_size);
}

}  // namespace

LiveTerminal::LiveTerminal() {
    has_usual = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &usual) == 0;
    set_handlers(true);
    seize();
}

LiveTerminal::~LiveTerminal() {
    set_handlers(false);
    restore();
    has_usual = 0;
}

void LiveTerminal::show(std::string_view text) {
    std::string all = "\x1b[H";
    if (text.ends_with('\n')) text.remove_suffix(1);
    const auto lines = split(text, '\n');
    for (std::size_t i = 0; i < lines.size(); ++i) {
        if (i != 0) all += "\r\n";
        // Erased before the text is there: behind a line as wide as the screen the cursor is on its last character
        // still.
        all += i + 1 == lines.size() ? "\x1b[J" : "\x1b[K";
        all += lines[i];
    }
    // The next look finds out if nobody sees it any more.
    [[maybe_unused]] const auto written = write_output(all);
}

LiveTerminal::Woken LiveTerminal::wait(int milliseconds) {
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (!has_changed) {
        const int ready = poll(&input, has_usual ? 1 : 0, milliseconds);
        if (ready == 0) return Woken::by_time;
        if (ready > 0) {
            char key = 0;
            const ssize_t got = ::read(STDIN_FILENO, &key, 1);
            if (got == 0 || (got < 0 && errno != EINTR)) return Woken::by_key_to_end;  // nobody is there any more
            return got == 1 && (key == 'q' || key == 'Q') ? Woken::by_key_to_end : Woken::by_change;
        }
    }
    has_changed = 0;
    return Woken::by_change;
}

double seconds_now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void pause_for(int milliseconds) {
    pollfd reader{STDOUT_FILENO, 0, 0};
    poll(&reader, 1, milliseconds);
}

}  // namespace srpfs::ctl
