// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Standard output and standard error, and what can be shown there.

#pragma once

#include <srpfs/base/result.h>
#include <srpfs/ctl/table.h>

#include <string>
#include <string_view>
#include <vector>

namespace srpfs::ctl {

// What standard output is: as wide as its terminal, in the characters of the locale, with colours unless NO_COLOR is
// set and not empty, or TERM is "dumb". What is no terminal has no width and no colours.
Screen screen_of_output();

// Of the terminal that standard error is; 0 if it is none.
std::size_t columns_of_errors();

// Of the three standard files those that are closed become ones that can be neither read nor written, so that no LUN or
// file that is opened later is taken for one of them, and gets what is meant for people. Before anything is opened.
void keep_standard_files();

// To standard error, as it is: for lines that are written anew. It does not matter whether it works.
void write_aside(std::string_view text);

// All of it, or an Error that says why not.
Result<void> write_output(std::string_view text);

// Each line, made printable(), behind "srpctl: ", to standard error, whole and not wrapped, however long it is: it may
// be searched for, and a log has it; lines that begin with a blank go on with the one before.
void complain(std::string_view text);

// What complain() has been given so far, line by line, if write_output() has not written anything yet; else nothing:
// for who wants one document, whatever happens. Of this process, which has one thread.
std::vector<std::string> complaints_alone();

}  // namespace srpfs::ctl
