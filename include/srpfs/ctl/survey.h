// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What there is in a mount, as JSON: the one description that all verbs, tables and -o json are made of. srpctl(8),
// "JSON", says what the fields are; the golden tests keep them.

#pragma once

#include <srpfs/base/result.h>
#include <srpfs/ctl/mounts.h>

#include <nlohmann/json_fwd.hpp>

#include <functional>
#include <string>
#include <string_view>

namespace srpfs::ctl {

using Json = nlohmann::ordered_json;

inline constexpr int json_schema = 1;

// brief: what the file `stats` tells, and who made a unit: what a table of one line for each needs. full: every field.
enum class Depth { brief, full };

// {"path", "source", "version", "ports": [...], "targets": [...]}. Reads the tree, so it is for run_apart(); `alive` is
// called after each directory. What vanishes meanwhile is left out, and what may not be read is null. An Error if
// `stats` cannot be read.
Result<Json> survey(
    const Mount& mount, Depth depth, const std::function<void()>& alive = [] {});

// What a name on the command line means.
struct Found {
    enum class Kind { port, target, lun } kind = Kind::port;
    std::string mount;                            // its path
    std::string port;                             // "srp-HCA-PORT"; always there
    std::string target;                           // name of its directory
    std::string lun;                              // "lunN"
    [[nodiscard]] std::string directory() const;  // absolute: where its control files are
    bool operator==(const Found&) const = default;
};

// `name` is a path (absolute ones as they are, others below the mount), or the name of a port, a target or a unit, or
// the identity of a unit (wwid, wwn-0x..., a name of by-id). An Error (ENOENT) when nothing has that name, or
// (ENOTUNIQ) more than one thing, and then says which.
Result<Found> find(const Json& mount, std::string_view name);

}  // namespace srpfs::ctl
