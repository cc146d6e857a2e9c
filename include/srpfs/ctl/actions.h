// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What changes something, each by writing to control files. Blocks as they do: for run_apart().

#pragma once

#include <srpfs/base/result.h>
#include <srpfs/ctl/survey.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace srpfs::ctl {

// The name of the directory that a login string leads to, whichever port it goes through; nothing if the string does
// not say.
std::optional<std::string> directory_of_login(std::string_view login);

struct LoginDone {
    std::string path;        // of the target's directory; empty if it is not known
    bool was_there = false;  // logged in to before, by this mount: not done again
};
// Through the port of this name ("srp-HCA-PORT"), or whichever leads there if it is empty. `mount` is its path.
Result<LoginDone> log_in(const std::string& mount, const std::string& port, const std::string& login);

enum class Act { log_out, rescan, reset };
// EINVAL for what cannot be done with such a thing. A port stands for nothing here: see targets_of().
Result<void> act_on(const Found& found, Act act);

// What a port stands for: its targets. Others stand for themselves.
std::vector<Found> targets_of(const Json& mount, const Found& found);
// All of the mount.
std::vector<Found> all_targets(const Json& mount);

using Settings = std::vector<std::pair<std::string, std::string>>;  // key and value, as they were given
// All or none: if srpfs refuses one, those before it are put back, and the Error is what it has said. EINVAL for a key
// that such a thing does not have. Signals wait until it is done.
Result<void> apply_settings(const Found& found, const Settings& settings);

}  // namespace srpfs::ctl
