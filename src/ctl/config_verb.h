// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// srpctl config: looks at configuration files, without a mount.

#pragma once

#include <srpfs/ctl/command_line.h>

namespace srpfs::ctl {

// Returns the exit status.
int run_config(const Request& request);

// Those that the rules of this file allow, with the options that these give them; what is no login string is left as it
// is.
Result<std::vector<std::string>> permitted_logins(const std::string& file, const std::vector<std::string>& logins);

// What is wrong in the configuration file that srpfs reads by itself, with file and line; nothing if there is none.
std::vector<std::string> configuration_complaints();

}  // namespace srpfs::ctl
