// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/text.h>

#include <srpfs/base/utf8.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace srpfs::ctl {
namespace {

// Of printable() text.
std::string_view first_columns(std::string_view text, std::size_t columns) {
    std::size_t end = 0;
    for (std::size_t i = 0; i < columns && end < text.size(); ++i)
        end += std::max<std::size_t>(1, printable_bytes(text.substr(end)));
    return text.substr(0, end);
}

}  // namespace

std::string human_bytes(std::uint64_t bytes) {
    constexpr std::array units = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    std::size_t unit = 0;
    while (unit + 1 < units.size() && bytes >> (10 * (unit + 1)) != 0) ++unit;
    const std::uint64_t whole = bytes >> (10 * unit);
    const std::uint64_t rest = bytes - (whole << (10 * unit));
    if (rest == 0) return fmt::format("{} {}", whole, units[unit]);
    // Rounded down: what is shown is there.
    const std::uint64_t tenths = (rest >> (10 * (unit - 1))) * 10 >> 10;
    return fmt::format("{}.{} {}", whole, tenths, units[unit]);
}

std::string human_microseconds(std::uint64_t microseconds) {
    if (microseconds < 1000) return fmt::format("{} us", microseconds);
    const double milliseconds = static_cast<double>(microseconds) / 1000;
    return milliseconds < 999.95 ? fmt::format("{:.1f} ms", milliseconds)
                                 : fmt::format("{:.1f} s", milliseconds / 1000);
}

std::string printable(std::string_view text, Charset charset) {
    std::string result;
    while (!text.empty()) {
        const std::size_t bytes = printable_bytes(text);
        if (bytes == 1 || (bytes > 1 && charset == Charset::utf8))
            result += text.substr(0, bytes);
        else
            result += '?';
        text.remove_prefix(std::max<std::size_t>(1, bytes));
    }
    return result;
}

std::size_t columns_of(std::string_view text) {
    return static_cast<std::size_t>(std::count_if(
        text.begin(), text.end(), [](char one) { return (static_cast<unsigned char>(one) & 0xc0) != 0x80; }));
}

std::string shortened(std::string_view text, std::size_t columns, Cut cut, Charset charset) {
    return shortened(text, columns, cut == Cut::middle ? columns / 2 : columns, charset);
}

std::string shortened(std::string_view text, std::size_t columns, std::size_t front_columns, Charset charset) {
    const std::size_t all = columns_of(text);
    if (all <= columns) return std::string(text);
    if (columns == 0) return {};
    const std::string_view ellipsis = charset == Charset::utf8 ? "…" : "~";
    const std::size_t kept = columns - 1, front = std::min(front_columns, kept);
    const std::string_view back = text.substr(first_columns(text, all - (kept - front)).size());
    return fmt::format("{}{}{}", first_columns(text, front), ellipsis, back);
}

std::string wrapped(std::string_view text, std::size_t width, std::size_t indent) {
    std::string result;
    std::size_t column = indent;
    for (const std::string_view word : split(text, ' ')) {
        const std::size_t columns = columns_of(word);
        if (width != 0 && column > indent && column + 1 + columns > width) {
            result += "\n" + std::string(indent, ' ');
            column = indent;
        } else if (column > indent) {
            result += ' ';
            ++column;
        }
        result += word;
        column += columns;
    }
    return result;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> parts;
    while (!text.empty()) {
        const auto end = text.find(separator);
        parts.push_back(text.substr(0, end));
        if (end == std::string_view::npos) return parts;
        text.remove_prefix(end + 1);
        if (text.empty()) parts.push_back(text);
    }
    return parts;
}

std::string_view trimmed(std::string_view text) {
    constexpr std::string_view blanks = " \t\r\n";
    const auto first = text.find_first_not_of(blanks);
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

}  // namespace srpfs::ctl
