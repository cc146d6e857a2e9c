// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/base/assert.h>
#include <srpfs/base/log.h>

#include <cstdlib>

namespace srpfs {

void assertion_failed(const char* expression, const char* file, int line) noexcept {
    log::write(log::Level::error, {},
               fmt::format("bug: {}:{}: '{}' does not hold; ending to protect data", file, line, expression));
    std::abort();
}

}  // namespace srpfs
