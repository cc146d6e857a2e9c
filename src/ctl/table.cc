// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/table.h>

#include <srpfs/base/assert.h>

#include <algorithm>
#include <numeric>
#include <optional>

namespace srpfs::ctl {
namespace {

constexpr std::size_t gap = 2;

const char* sequence_of(Paint paint) {
    switch (paint) {
        case Paint::none: return "";
        case Paint::good: return "\x1b[32m";
        case Paint::warning: return "\x1b[33m";
        case Paint::bad: return "\x1b[31m";
        case Paint::faint: return "\x1b[2m";
    }
    return "";
}

struct Shown {
    std::size_t index;
    std::size_t width;
    std::size_t front = 0;  // columns before the ellipsis
};

std::size_t different(std::vector<std::string> texts) {
    std::sort(texts.begin(), texts.end());
    return static_cast<std::size_t>(std::unique(texts.begin(), texts.end()) - texts.begin());
}

std::size_t sum_of(const std::vector<Shown>& shown) {
    return std::accumulate(shown.begin(), shown.end(), shown.empty() ? 0 : gap * (shown.size() - 1),
                           [](std::size_t sum, const Shown& one) { return sum + one.width; });
}

}  // namespace

std::string painted(std::string text, Paint paint, const Screen& screen) {
    if (!screen.has_colour || paint == Paint::none || text.empty()) return text;
    return sequence_of(paint) + std::move(text) + "\x1b[0m";
}

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

void Table::add(std::vector<Cell> row) {
    SRPFS_ASSERT(row.size() == columns_.size());
    rows_.push_back(std::move(row));
}

std::string Table::text(const Screen& screen) const {
    std::vector<Shown> natural;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
        std::size_t width = columns_of(columns_[i].title);
        for (const auto& row : rows_) width = std::max(width, columns_of(printable(row[i].text, screen.charset)));
        natural.push_back({i, width});
    }
    const auto least = [&](const Shown& one) {
        const std::size_t width_min = columns_[one.index].width_min;
        return width_min == 0 ? one.width : std::min(one.width, width_min);
    };

    // Names that differ have to differ when they are shortened as well: the ellipsis goes where most of them do, in the
    // middle if that makes no difference.
    const auto place_ellipsis = [&](Shown& one) {
        const Column& column = columns_[one.index];
        one.front = column.cut == Cut::middle ? one.width / 2 : one.width;
        std::vector<std::string> whole, cut(rows_.size());
        for (const auto& row : rows_) whole.push_back(printable(row[one.index].text, screen.charset));
        if (column.cut != Cut::middle) return true;
        const std::size_t all = different(whole), middle = one.front;
        std::size_t most = 0;
        for (std::size_t away = 0; away <= one.width && most < all; ++away)
            for (const std::size_t front : {middle - std::min(away, middle), middle + away}) {
                for (std::size_t i = 0; i < whole.size(); ++i)
                    cut[i] = shortened(whole[i], one.width, front, screen.charset);
                if (const std::size_t now = different(cut); now > most) most = now, one.front = front;
            }
        return most == all;
    };

    std::vector<Shown> shown = natural;
    std::optional<std::vector<Shown>> ambiguous;  // the first that fits
    while (screen.width != 0) {
        shown = natural;
        // The widest of those that may become narrower gives way first.
        while (sum_of(shown) > screen.width) {
            const auto widest = std::max_element(shown.begin(), shown.end(), [&](const Shown& a, const Shown& b) {
                return (a.width > least(a) ? a.width : 0) < (b.width > least(b) ? b.width : 0);
            });
            if (widest == shown.end() || widest->width <= least(*widest)) break;
            --widest->width;
        }
        const bool fits = sum_of(shown) <= screen.width;
        bool is_clear = true;
        for (Shown& one : shown) is_clear = place_ellipsis(one) && is_clear;
        if (fits && is_clear) break;
        if (fits && !ambiguous) ambiguous = shown;
        const auto last = std::max_element(natural.begin(), natural.end(), [&](const Shown& a, const Shown& b) {
            return columns_[a.index].dropped < columns_[b.index].dropped;
        });
        if (last == natural.end() || columns_[last->index].dropped == 0) {
            if (ambiguous) shown = *ambiguous;
            break;
        }
        std::erase_if(natural, [&, dropped = columns_[last->index].dropped](const Shown& one) {
            return columns_[one.index].dropped == dropped;
        });
    }

    std::string text;
    const auto add_line = [&](const auto& cell_of, Paint whole) {
        std::size_t column = 0;  // where the line ends
        for (const Shown& one : shown) {
            const auto& [cell, paint] = cell_of(one.index);
            const std::string content =
                shortened(printable(cell, screen.charset), one.width, one.front, screen.charset);
            const std::size_t fill = one.width - columns_of(content);
            const bool is_right = columns_[one.index].align == Column::Align::right;
            const std::size_t begin = (&one == &shown.front() ? 0 : gap) + (is_right ? fill : 0);
            if (!content.empty()) {
                text.append(column + begin, ' ');
                text += painted(content, whole == Paint::none ? paint : whole, screen);
                column = 0;
            } else {
                column += begin;
            }
            column += is_right ? 0 : fill;  // blanks are owed until something follows
        }
        text += '\n';
    };
    add_line([&](std::size_t i) { return Cell{columns_[i].title, Paint::none}; }, Paint::faint);
    for (const auto& row : rows_) add_line([&](std::size_t i) { return row[i]; }, Paint::none);
    return text;
}

}  // namespace srpfs::ctl
