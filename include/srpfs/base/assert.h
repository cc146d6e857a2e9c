// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// SRPFS_ASSERT: a broken invariant of ours. Kept in release builds: going on could corrupt data, so the process ends.

#pragma once

namespace srpfs {

// Logs the broken invariant and aborts. Never returns.
[[noreturn]] void assertion_failed(const char* expression, const char* file, int line) noexcept;

}  // namespace srpfs

#define SRPFS_ASSERT(expression)                                        \
    do {                                                                \
        if (!(expression)) [[unlikely]]                                 \
            ::srpfs::assertion_failed(#expression, __FILE__, __LINE__); \
    } while (false)
