// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The whole terminal for one program, which is given back as it was however the program ends, but for SIGKILL.

#pragma once

#include <string_view>

namespace srpfs::ctl {

// One at a time: signals know of no object.
class LiveTerminal {
public:
    LiveTerminal();   // takes standard input and output, of which the latter has to be a terminal
    ~LiveTerminal();  // gives them back
    LiveTerminal(const LiveTerminal&) = delete;
    LiveTerminal& operator=(const LiveTerminal&) = delete;

    // From the upper left; what was there before goes away.
    void show(std::string_view text);

    enum class Woken { by_time, by_key_to_end, by_change };
    // Until so many milliseconds have passed, q is pressed (other keys do nothing but end the waiting), or the size has
    // changed.
    Woken wait(int milliseconds);
};

// Seconds since an arbitrary moment, for the time between two looks.
double seconds_now();

// Nothing but waiting, for who has no terminal.
void pause_for(int milliseconds);

}  // namespace srpfs::ctl
