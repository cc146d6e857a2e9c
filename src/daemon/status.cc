// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "status.h"

#include "metrics.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace srpfs::daemon {

using Json = nlohmann::ordered_json;  // fields stay in the order written

namespace {

Json stats(const StatusInput& input) {
    Json json;
    json["schema"] = 1;
    json["version"] = SRPFS_VERSION;
    json["uptime_seconds"] = input.uptime_seconds;
    json["requests_pending"] = input.file_system.requests_pending();
    json["memory"]["registered_bytes"] = input.registered_bytes;
    json["memory"]["park_bytes_max"] = input.park_bytes_max;
    json["reactors"] = Json::array();
    for (const auto& worker : input.workers)
        json["reactors"].push_back(Json{{"name", worker->reactor().name()},
                                        {"busy_turns", worker->reactor().busy_turns()},
                                        {"slow_turns", worker->reactor().slow_turns()},
                                        {"sleeps", worker->reactor().sleeps()}});
    json["targets"] = Json::array();
    for (const auto& target : input.targets)
        if (target->is_listed()) json["targets"].push_back(target->report());
    return json;
}

}  // namespace

std::string stats_text(const StatusInput& input) {
    return stats(input).dump(2, ' ', true, Json::error_handler_t::replace) + "\n";
}

std::string metrics_text(const StatusInput& input) { return metrics_of(stats(input)); }

std::string version_text() { return fmt::format("srpfs {}\n{}\n", SRPFS_VERSION, fs::FileSystem::versions()); }

}  // namespace srpfs::daemon
