// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// srpctl config: looks at configuration files, without a mount.

#pragma once

#include <srpfs/config/config_file.h>
#include <srpfs/ctl/command_line.h>

namespace srpfs::ctl {

// Returns the exit status.
int run_config(const Request& request);

// Those that the rules of this file allow, with the options that these give them; what is no login string is left as it
// is.
Result<std::vector<std::string>> permitted_logins(const std::string& file, const std::vector<std::string>& logins);

// The configuration file that srpfs reads by itself; empty if there is none.
config::Loaded default_configuration();

}  // namespace srpfs::ctl
