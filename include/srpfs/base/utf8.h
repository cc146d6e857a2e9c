// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// UTF-8 (RFC 3629) that comes from outside: where its characters end, and what of it a person may be shown.

#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace srpfs {

// Bytes of the character that the text, which is not empty, begins with; 0: what is there is not UTF-8.
[[nodiscard]] std::size_t character_bytes(std::string_view text);

// The same; 0 also for what a terminal would obey or could not show: control characters, and those that are invisible
// or turn the text around.
[[nodiscard]] std::size_t printable_bytes(std::string_view text);

// One line of printable text, whatever it was: each byte that is no part of a printable character is \xNN. Not more
// than the first `bytes_max` bytes, and no character in part.
[[nodiscard]] std::string escaped(std::string_view text, std::size_t bytes_max = std::string_view::npos);
// The same of its first 80 bytes, with "..." behind them where there are more: a wrong word, for a message.
[[nodiscard]] std::string excerpt(std::string_view text);

}  // namespace srpfs
