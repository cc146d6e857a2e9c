// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What MNT/stats and MNT/version say. Field names and types are a contract: "schema" counts the changes.

#pragma once

#include "event_log.h"
#include "target.h"

#include <srpfs/daemon/config.h>

#include <memory>
#include <string>
#include <vector>

namespace srpfs::daemon {

struct StatusInput {
    const std::vector<std::shared_ptr<Target>>& targets;
    const std::vector<std::unique_ptr<Worker>>& workers;
    fs::FileSystem& file_system;
    const std::vector<Totals>& gone;  // by index of the reactor: of targets that are gone
    const EventLog& events;
    std::size_t registered_bytes = 0;
    std::size_t park_bytes_max = 0;
    std::uint64_t uptime_seconds = 0;
};
std::string stats_text(const StatusInput& input);
std::string metrics_text(const StatusInput& input);
std::string version_text();

}  // namespace srpfs::daemon
