// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "status.h"

#include "metrics.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <map>
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
    json["latency"]["drop"] = latency_report(pages.drop_latency);
    json["latency"]["wait"] = latency_report(pages.wait_latency);
    return json;
}

Json stats(const StatusInput& input) {
    Json json;
    json["schema"] = 1;
    json["version"] = SRPFS_VERSION;
    json["uptime_seconds"] = input.uptime_seconds;
    json["requests_pending"] = input.file_system.requests_pending();
    json["memory"]["registered_bytes"] = input.registered_bytes;
    json["memory"]["park_bytes_max"] = input.park_bytes_max;
    json["pages"] = pages_report(input.file_system.page_statistics());
    json["events"] = Json::object();
    for (const auto& [event, count] : input.events.counts()) json["events"][event] = count;
    Json targets = Json::array();
    // A reactor's places for commands are those of the channels that live on it.
    std::vector<std::uint64_t> slots(input.workers.size()), slots_in_use(input.workers.size());
    for (const auto& target : input.targets) {
        if (!target->is_listed()) continue;
        Json report = target->report();
        for (const Json& channel : report["channel_list"]) {
            if (channel["state"] != "live") continue;
            slots[target->home()] += target->config().parameters.queue_size;
            slots_in_use[target->home()] += channel["in_flight"].get<std::uint64_t>();
        }
        report["total"] = total_of(report["luns"]);
        targets.push_back(std::move(report));
    }
    json["reactors"] = Json::array();
    for (std::size_t i = 0; i < input.workers.size(); ++i) {
        const reactor::Reactor& reactor = input.workers[i]->reactor();
        json["reactors"].push_back(Json{{"name", reactor.name()},
                                        {"busy_turns", reactor.busy_turns()},
                                        {"slow_turns", reactor.slow_turns()},
                                        {"sleeps", reactor.sleeps()},
                                        {"slots", slots[i]},
                                        {"slots_in_use", slots_in_use[i]}});
    }
    json["targets"] = std::move(targets);
    return json;
}

// Of all of them together, from the buckets of each.
Json latency_of(const Json& luns, const char* operation) {
    std::map<std::uint64_t, std::uint64_t> buckets;
    std::uint64_t count = 0, sum_us = 0;
    for (const Json& lun : luns) {
        if (!lun.contains("latency")) continue;
        const Json& latency = lun["latency"][operation];
        count += latency["count"].get<std::uint64_t>();
        sum_us += latency["sum_us"].get<std::uint64_t>();
        for (const Json& bucket : latency["buckets_us"])
            buckets[bucket[0].get<std::uint64_t>()] += bucket[1].get<std::uint64_t>();
    }
    // As LatencySnapshot::quantile_us().
    const auto quantile_us = [&](std::uint64_t per_mille) -> std::uint64_t {
        const std::uint64_t wanted = (count * per_mille + 999) / 1000;
        std::uint64_t seen = 0;
        for (const auto& [end, so_many] : buckets)
            if ((seen += so_many) >= wanted) return end;
        return 0;
    };
    Json json{{"count", count},
              {"sum_us", sum_us},
              {"p50_us", quantile_us(500)},
              {"p99_us", quantile_us(990)},
              {"p999_us", quantile_us(999)}};
    json["buckets_us"] = Json::array();
    for (const auto& [end, so_many] : buckets) json["buckets_us"].push_back({end, so_many});
    return json;
}

}  // namespace

Json latency_report(const lun::LatencySnapshot& snapshot) {
    Json json;
    json["count"] = snapshot.count;
    json["sum_us"] = snapshot.sum_us;
    json["p50_us"] = snapshot.quantile_us(500);
    json["p99_us"] = snapshot.quantile_us(990);
    json["p999_us"] = snapshot.quantile_us(999);
    // Of each bucket that has any: what they took less than, and how many there are.
    json["buckets_us"] = Json::array();
    for (std::size_t bucket = 0; bucket < lun::latency_buckets; ++bucket)
        if (snapshot.counts[bucket] != 0)
            json["buckets_us"].push_back({lun::latency_bucket_end_us(bucket), snapshot.counts[bucket]});
    return json;
}

Json total_of(const Json& luns) {
    Json json;
    for (const char* field : {"reads", "writes", "flushes", "bytes_read", "bytes_written", "errors", "retries"}) {
        std::uint64_t sum = 0;
        for (const Json& lun : luns) sum += lun.value(field, std::uint64_t{0});
        json[field] = sum;
    }
    json["errors_by_kind"] = Json::object();
    for (const Json& lun : luns)
        if (lun.contains("errors_by_kind"))
            for (const auto& [kind, errors] : lun["errors_by_kind"].items())
                json["errors_by_kind"][kind] =
                    json["errors_by_kind"].value(kind, std::uint64_t{0}) + errors.get<std::uint64_t>();
    for (const char* operation : {"read", "write", "flush"}) json["latency"][operation] = latency_of(luns, operation);
    return json;
}

std::string stats_text(const StatusInput& input) {
    return stats(input).dump(2, ' ', true, Json::error_handler_t::replace) + "\n";
}

std::string metrics_text(const StatusInput& input) { return metrics_of(stats(input)); }

std::string version_text() { return fmt::format("srpfs {}\n{}\n", SRPFS_VERSION, fs::FileSystem::versions()); }

}  // namespace srpfs::daemon
