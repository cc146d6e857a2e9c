// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Whoever waits for an answer and has been killed, found out without the kernel's INTERRUPT.

#pragma once

#include <cstdint>
#include <string_view>

namespace srpfs::fs {

// Of the text of /proc/THREAD/status (proc(5)): SIGKILL is pending. Every signal that ends a process, without a core
// dump, becomes that (kernel/signal.c, complete_signal()).
[[nodiscard]] bool has_fatal_signal(std::string_view status);

// `thread`: in our pid namespace; 0: in none. False as well if there is no such thread, or it cannot be looked at.
[[nodiscard]] bool was_killed(std::uint32_t thread);

}  // namespace srpfs::fs
