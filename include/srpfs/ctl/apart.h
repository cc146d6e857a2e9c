// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Whoever touches a mount that does not answer may not end before it does, not even when killed. So a process of its
// own does that, and can be left behind.

#pragma once

#include <srpfs/base/result.h>

#include <chrono>
#include <functional>
#include <string>
#include <string_view>

namespace srpfs::ctl {

// In the process of its own: its way to who waits.
class Outlet {
public:
    explicit Outlet(int descriptor) : descriptor_(descriptor) {}

    void alive() { send('a', {}); }                        // begins the time limit anew
    void tell(std::string_view text) { send('t', text); }  // and is handed out at once
    void send(char kind, std::string_view text);           // for run_apart(); ends the process when nobody listens

private:
    int descriptor_;
};

// Runs `work` in a process of its own, whose signals are as usual: Ctrl-C interrupts what it waits for, and it gets
// SIGTERM when this process ends. `work` must neither print nor change anything that is needed here. The answer is what
// it returns; ETIMEDOUT when nothing has been heard of it for `limit` (zero: no limit): it is killed then, and left
// behind if that does not end it. What it tells goes to `on_told`, which answers whether to go on; if not, the end is
// success, with an empty text. EPIPE when nobody reads any more what is written to `reader`, a pipe, socket or
// terminal; others do not matter, and -1 is none.
Result<std::string> run_apart(std::chrono::milliseconds limit, const std::function<Result<std::string>(Outlet&)>& work,
                              const std::function<bool(std::string_view)>& on_told = nullptr, int reader = -1);

}  // namespace srpfs::ctl
