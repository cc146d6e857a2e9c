// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Text for people at a terminal: sizes, and what came from outside made harmless.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace srpfs::ctl {

enum class Charset { ascii, utf8 };

// "512 B", "64 MiB", "1.5 GiB": powers of 1024, one decimal place where it is not a whole number.
std::string human_bytes(std::uint64_t bytes);

// "384 us", "32.8 ms", "1.5 s".
std::string human_microseconds(std::uint64_t microseconds);

// Nothing that a terminal would obey or could not show: control characters, malformed UTF-8 (RFC 3629), and, for
// Charset::ascii, all that is not ASCII become '?'.
std::string printable(std::string_view text, Charset charset);

// Columns of a text that is printable(): its code points. No character is taken to be wide.
std::size_t columns_of(std::string_view text);

enum class Cut { end, middle };
// At most so many columns: what is left out is told by an ellipsis ("~" without UTF-8).
std::string shortened(std::string_view text, std::size_t columns, Cut cut, Charset charset);
// The same, with so many columns before the ellipsis, and the others behind it.
std::string shortened(std::string_view text, std::size_t columns, std::size_t front_columns, Charset charset);

// Lines of at most `width` columns (0: one line), broken at blanks; all but the first begin with `indent` blanks, and
// the first has as many columns less.
std::string wrapped(std::string_view text, std::size_t width, std::size_t indent);

// The parts between separators, empty ones included; of an empty text none.
std::vector<std::string_view> split(std::string_view text, char separator);

// Without blanks, tabs, carriage returns and newlines at both ends.
std::string_view trimmed(std::string_view text);

}  // namespace srpfs::ctl
