// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Reading and writing control files, as cat and echo do. Blocks as they do: for run_apart().

#pragma once

#include <srpfs/base/result.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace srpfs::ctl {

// All of it. An Error has the errno and names the file.
Result<std::string> read_file(const std::string& path);

// The same of a file whose content srpfs has to ask for: an Error has its sentence, from `last_error` beside the file.
Result<std::string> read_answer(const std::string& path);

// What a control file of one line says, without the newline; nothing if it cannot be read, or is not there.
std::optional<std::string> read_value(const std::string& path);

// One write(2). What srpfs answers, with the sentence from `last_error` beside the file if it has told one.
Result<void> write_command(const std::string& path, std::string_view text);

// The names in a directory, sorted; numbers in them by their value, so that lun2 comes before lun10.
Result<std::vector<std::string>> list_directory(const std::string& path);

// The order of list_directory().
bool is_before(std::string_view a, std::string_view b);

}  // namespace srpfs::ctl
