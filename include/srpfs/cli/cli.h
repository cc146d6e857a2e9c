// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The command line of srpfs, as a person types it and as mount(8) calls it.

#pragma once

#include <srpfs/base/result.h>
#include <srpfs/daemon/config.h>

#include <string>
#include <variant>
#include <vector>

namespace srpfs::cli {

// Text to print on stdout instead of doing anything (--help, --version).
struct Print {
    std::string text;
};

// `arguments` without the program's name. An Error (EINVAL) names what was wrong and what is possible.
Result<std::variant<daemon::Config, Print>> parse(const std::vector<std::string>& arguments);

// The names of all -o options, for the test that compares them with the man page.
std::vector<std::string> option_names();

int run(int argc, char** argv);

}  // namespace srpfs::cli
