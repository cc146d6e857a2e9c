// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "status.h"

#include "metrics.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <vector>

namespace srpfs::daemon {

using Json = nlohmann::ordered_json;  // fields stay in the order written

namespace {

Json pages_report(const fs::PageStatistics& pages) {
    Json json{{"fills", pages.fills},
              {"fills_cached", pages.fills_cached},
              {"drops", pages.drops},
              {"drop_ranges", pages.drop_ranges},
              {"drop_bytes", pages.drop_bytes},
              {"waits", pages.waits},
              {"waits_given_up", pages.waits_given_up}};
    json["latency"]["drop"] = report_of(pages.drop_latency);
    json["latency"]["wait"] = report_of(pages.wait_latency);
    return json;
}

Json stats(const StatusInput& input) {
    Json json;
    json["schema"] = 1;
    json["version"] = SRPFS_VERSION;
    json["uptime_seconds"] = input.uptime_seconds;
    // But for the one that reads this.
    json["requests_pending"] = std::max(input.file_system.requests_pending(), 1U) - 1;
    json["memory"]["registered_bytes"] = input.registered_bytes;
    json["memory"]["park_bytes_max"] = input.park_bytes_max;
    json["pages"] = pages_report(input.file_system.page_statistics());
    json["events"] = Json::object();
    for (const auto& [event, count] : input.events.counts()) json["events"][event] = count;
    Json targets = Json::array();
    // A reactor's places for commands are those of the channels that live on it.
    std::vector<std::uint64_t> slots(input.workers.size()), slots_in_use(input.workers.size());
    // So are the requests that it serves: those to units it is home to.
    std::vector<Totals> totals = input.gone;
    for (const auto& target : input.targets) {
        totals[target->home()] += target->totals();
        if (!target->is_listed()) continue;
        Json report = target->report();
        report["reactor"] = input.workers[target->home()]->reactor().name();
        for (const Json& channel : report["channel_list"]) {
            if (channel["state"] != "live") continue;
            slots[target->home()] += target->config().parameters.queue_size;
            slots_in_use[target->home()] += channel["in_flight"].get<std::uint64_t>();
        }
        targets.push_back(std::move(report));
    }
    json["reactors"] = Json::array();
    const std::vector<fs::RequestStatistics> requests = input.file_system.request_statistics();
    for (std::size_t i = 0; i < input.workers.size(); ++i) {
        const reactor::Reactor& reactor = input.workers[i]->reactor();
        json["reactors"].push_back(Json{{"name", reactor.name()},
                                        {"busy_turns", reactor.busy_turns()},
                                        {"slow_turns", reactor.slow_turns()},
                                        {"sleeps", reactor.sleeps()},
                                        {"slots", slots[i]},
                                        {"slots_in_use", slots_in_use[i]},
                                        {"requests_read", requests[i].read},
                                        {"requests_handed_over", requests[i].handed_over},
                                        {"answers_for_others", requests[i].answered_for_home},
                                        {"total", report_of(totals[i])}});
    }
    json["targets"] = std::move(targets);
    return json;
}

}  // namespace

std::string stats_text(const StatusInput& input) {
    return stats(input).dump(2, ' ', true, Json::error_handler_t::replace) + "\n";
}

std::string metrics_text(const StatusInput& input) { return metrics_of(stats(input)); }

std::string version_text() { return fmt::format("srpfs {}\n{}\n", SRPFS_VERSION, fs::FileSystem::versions()); }

}  // namespace srpfs::daemon
