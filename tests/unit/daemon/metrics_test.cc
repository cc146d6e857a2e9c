// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "metrics.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cstdlib>
#include <fstream>
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

Json total(std::uint64_t number) {
    Json json;
    for (const char* field : {"reads", "writes", "flushes", "bytes_read", "bytes_written", "errors", "retries"})
        json[field] = number;
    json["errors_by_kind"] = {{"medium_error", number}};
    for (const char* operation : {"read", "write", "flush"}) json["latency"][operation] = latency(number);
    return json;
}

Json example() {
    Json stats = {
        {"version", "1.2"}, {"uptime_seconds", 7}, {"requests_pending", 1}, {"memory", {{"registered_bytes", 4096}}}};
    for (const char* field : {"fills", "fills_cached", "drops", "drop_ranges", "drop_bytes", "waits", "waits_given_up"})
        stats["pages"][field] = 3;
    stats["pages"]["latency"] = {{"drop", latency(4)}, {"wait", latency(3)}};
    stats["events"] = {{"lun_added", 2}, {"target_added", 1}};
    stats["reactors"] = Json::array({{{"name", "srpfs-0"},
                                      {"busy_turns", 1},
                                      {"slow_turns", 2},
                                      {"sleeps", 3},
                                      {"slots", 62},
                                      {"slots_in_use", 5},
                                      {"requests_read", 6},
                                      {"requests_handed_over", 7},
                                      {"answers_for_others", 8},
                                      {"total", total(21)}}});
    Json lun = {{"name", "lun0"}, {"wwid", "naa.6"}, {"bytes", 512}, {"state", "running"}, {"reads", 1}};
    for (const char* field : {"writes", "flushes", "errors", "bytes_read", "bytes_written", "retries", "interrupts",
                              "unit_attentions", "read_modify_writes", "ghosts", "requests_pending", "in_flight"})
        lun[field] = 11;
    lun["errors_by_kind"] = {{"path_lost", 2}, {"busy", 1}};
    lun["flushes"] = 0;
    for (const char* operation : {"read", "write", "flush"})
        lun["latency"][operation] = {{"count", 0},  {"sum_us", 0},  {"p50_us", 0},
                                     {"p99_us", 0}, {"p999_us", 0}, {"buckets_us", Json::array()}};
    lun["latency"]["read"] = latency(5);
    Json channel = {{"index", 0}, {"state", "live"}};
    for (const char* field :
         {"credits_initial", "in_flight", "commands", "responses", "task_management", "path_checks", "timeouts",
          "out_of_credits", "credit_requests", "async_events", "unknown_tags", "malformed"})
        channel[field] = 4;
    channel["credits"] = -1;
    Json target = {{"name", "a\"b\\c\nd"},
                   {"address", "192.0.2.1"},
                   {"port", "srp-mlx5_0-1"},
                   {"state", "blocked"},
                   {"reactor", "srpfs-0"}};
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

// All of it, against what it was when somebody looked at it. SRPFS_GOLDEN=renew in the environment writes it anew.
TEST(Metrics, AreWhatStatsSays) {
    const std::string text = metrics_of(example()), path = SRPFS_GOLDEN_DIRECTORY "/metrics.txt";
    if (const char* wish = std::getenv("SRPFS_GOLDEN"); wish && std::string(wish) == "renew")
        std::ofstream(path) << text;
    std::ostringstream wanted;
    wanted << std::ifstream(path).rdbuf();
    EXPECT_EQ(text, wanted.str());
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
