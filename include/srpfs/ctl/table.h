// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Tables that fit into a terminal.

#pragma once

#include <srpfs/ctl/text.h>

#include <cstddef>
#include <string>
#include <vector>

namespace srpfs::ctl {

enum class Paint { none, good, warning, bad, faint };

// What text is shown on. `width` in columns; 0: no limit, as for a file or a pipe.
struct Screen {
    std::size_t width = 0;
    std::size_t height = 0;
    Charset charset = Charset::ascii;
    bool has_colour = false;
};

// The text between escape sequences of its colour, or as it is where there are no colours.
std::string painted(std::string text, Paint paint, const Screen& screen);

// What a table may do with a column to become as narrow as the screen.
struct Column {
    std::string title;
    enum class Align { left, right } align = Align::left;
    std::size_t width_min = 0;  // may be shortened to this; 0: never
    Cut cut = Cut::end;
    unsigned dropped =
        0;  // left out when shortening is not enough, the highest first and equal ones together; 0: never
};

struct Cell {
    std::string text;  // made printable() by the table
    Paint paint = Paint::none;
};

class Table {
public:
    explicit Table(std::vector<Column> columns);

    void add(std::vector<Cell> row);  // as many as there are columns
    [[nodiscard]] bool is_empty() const { return rows_.empty(); }

    // A line of titles and one for each row, two blanks between columns, none at the end.
    [[nodiscard]] std::string text(const Screen& screen) const;

private:
    std::vector<Column> columns_;
    std::vector<std::vector<Cell>> rows_;
};

}  // namespace srpfs::ctl
