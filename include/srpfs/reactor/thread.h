// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// How threads begin: whoever looks at the program with ps or top is to see which one is busy.

#pragma once

#include <cstddef>
#include <string_view>

namespace srpfs::reactor {

inline constexpr std::size_t thread_name_bytes_max = 15;  // the kernel's limit; longer ones are cut

// Of the calling thread.
void name_thread(std::string_view name);

// The first thing that a thread does that is no reactor, whichever thread has started it: without this it would have
// the name of that one, and, if that is a reactor, would be bound to its processor (-o cpus=). Has that of the
// program's first thread instead, which is bound to none of ours.
void begin_thread(std::string_view name);

}  // namespace srpfs::reactor
