// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "metrics.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <set>
#include <sstream>

namespace srpfs::daemon {
namespace {

using Json = nlohmann::ordered_json;

Json latency(std::uint64_t count) {
    return {{"count", count}, {"sum_us", 1500000},
            {"p50_us", 9},    {"p99_us", 9},
            {"p999_us", 9},   {"buckets_us", {{4, 1}, {5, 2}, {std::uint64_t{1} << 30, count - 3}}}};
}

Json example() {
    Json stats = {
        {"version", "1.2"}, {"uptime_seconds", 7}, {"requests_pending", 1}, {"memory", {{"registered_bytes", 4096}}}};
    stats["reactors"] = Json::array({{{"name", "srpfs-0"}, {"busy_turns", 1}, {"slow_turns", 2}, {"sleeps", 3}}});
    Json lun = {{"name", "lun0"}, {"wwid", "naa.6"}, {"bytes", 512}, {"state", "running"}, {"reads", 1}};
    for (const char* field :
         {"bytes_read", "bytes_written", "retries", "interrupts", "unit_attentions", "read_modify_writes", "ghosts"})
        lun[field] = 11;
    lun["errors_by_kind"] = {{"path_lost", 2}, {"busy", 1}};
    lun["latency"] = {{"read", latency(5)}};
    Json channel = {{"index", 0}, {"state", "live"}};
    for (const char* field :
         {"credits_initial", "in_flight", "commands", "responses", "task_management", "path_checks", "timeouts",
          "out_of_credits", "credit_requests", "async_events", "unknown_tags", "malformed"})
        channel[field] = 4;
    channel["credits"] = -1;
    Json target = {{"name", "a\"b\\c\nd"}, {"address", "192.0.2.1"}, {"port", "srp-mlx5_0-1"}, {"state", "blocked"}};
    for (const char* field : {"channels", "failed_reconnects", "commands", "zero_req_lim", "logins", "losses"})
        target[field] = 9;
    Json dead = channel;
    dead["state"] = "dead";
    target["channel_list"] = Json::array({channel, dead});
    target["luns"] = Json::array({lun, {{"name", "lun1"}, {"state", "gone"}}});
    stats["targets"] = Json::array({target});
    return stats;
}

bool has_line(const std::string& text, const std::string& line) {
    return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

TEST(Metrics, AreWhatStatsSays) {
    const std::string text = metrics_of(example());
    const std::string target = R"(port="srp-mlx5_0-1",target="a\"b\\c\nd")";
    for (const std::string& line :
         {std::string(R"(srpfs_build_info{version="1.2"} 1)"), std::string("srpfs_uptime_seconds 7"),
          std::string("srpfs_registered_bytes 4096"),
          std::string(R"(srpfs_reactor_slow_turns_total{reactor="srpfs-0"} 2)"),
          "srpfs_target_info{" + target + R"(,address="192.0.2.1"} 1)", "srpfs_target_up{" + target + "} 0",
          "srpfs_target_losses_total{" + target + "} 9", "srpfs_channel_up{" + target + R"(,channel="0"} 1)",
          "srpfs_channel_credits{" + target + R"(,channel="0"} -1)",
          "srpfs_lun_info{" + target + R"(,lun="lun0",wwid="naa.6"} 1)",
          "srpfs_lun_errors_total{" + target + R"(,lun="lun0",kind="path_lost"} 2)",
          "srpfs_lun_read_bytes_total{" + target + R"(,lun="lun0"} 11)"})
        EXPECT_TRUE(has_line(text, line)) << line << "\n" << text;
}

// Cumulative, the last one what there are: as Prometheus has it.
TEST(Metrics, AHistogramCountsWhatTookNoLonger) {
    const std::string text = metrics_of(example());
    const std::string labels = R"(port="srp-mlx5_0-1",target="a\"b\\c\nd",lun="lun0",operation="read")";
    const std::string name = "srpfs_lun_request_duration_seconds";
    for (const std::string& line :
         {name + "_bucket{" + labels + R"(,le="4e-06"} 1)", name + "_bucket{" + labels + R"(,le="1.6e-05"} 3)",
          name + "_bucket{" + labels + R"(,le="67.108864"} 3)", name + "_bucket{" + labels + R"(,le="+Inf"} 5)",
          name + "_sum{" + labels + "} 1.5", name + "_count{" + labels + "} 5"})
        EXPECT_TRUE(has_line(text, line)) << line << "\n" << text;
}

TEST(Metrics, NoSeriesIsThereTwiceAndEachBelongsToTheFamilyAboveIt) {
    std::istringstream lines(metrics_of(example()));
    std::set<std::string> families, series;
    std::string line, family;
    while (std::getline(lines, line)) {
        if (line.starts_with("# HELP ")) {
            family = line.substr(7, line.find(' ', 7) - 7);
            EXPECT_TRUE(families.insert(family).second) << family;
        } else if (!line.starts_with("# TYPE ")) {
            EXPECT_TRUE(line.starts_with(family)) << line << " below " << family;
            EXPECT_TRUE(series.insert(line.substr(0, line.rfind(' '))).second) << line;
        }
    }
    EXPECT_GT(families.size(), 30u);
}

TEST(Metrics, WithoutTargetsThereIsTheProgram) {
    Json stats = example();
    stats["targets"] = Json::array();
    EXPECT_TRUE(has_line(metrics_of(stats), "srpfs_uptime_seconds 7"));
}

}  // namespace
}  // namespace srpfs::daemon
