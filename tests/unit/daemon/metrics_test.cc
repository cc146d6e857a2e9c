// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "metrics.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cstdlib>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

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
    for (const char* field : {"bytes_read", "bytes_written", "errors"}) channel[field] = 5;
    channel["errors_by_kind"] = {{"task_set_full", 3}, {"check_condition", 2}};
    for (const char* operation : {"read", "write", "other"}) channel["latency"][operation] = latency(6);
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
    target["total"] = total(17);
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
         {name + "_bucket{" + labels + R"(,le="8e-06"} 3)", name + "_bucket{" + labels + R"(,le="1.6e-05"} 3)",
          name + "_bucket{" + labels + R"(,le="67.108864"} 3)", name + "_bucket{" + labels + R"(,le="+Inf"} 5)",
          name + "_sum{" + labels + "} 1.5", name + "_count{" + labels + "} 5"})
        EXPECT_TRUE(has_line(text, line)) << line << "\n" << text;
}

// Where Prometheus draws the 99th percentile between the buckets: off by less than half of it.
TEST(Metrics, BucketsAreFineWhereThereAreFewThings) {
    const std::string text = metrics_of(example());
    const auto ends_of = [&](const std::string& series) {
        std::vector<double> ends;
        const std::regex bucket(series + R"re([^\n]*operation="read",le="([0-9.e-]+)")re");
        for (auto one = std::sregex_iterator(text.begin(), text.end(), bucket); one != std::sregex_iterator(); ++one)
            ends.push_back(std::stod((*one)[1]));
        return ends;
    };
    for (const auto& [thing, widest] :
         {std::pair{"reactor_request", 1.5}, {"target_request", 1.5}, {"channel_command", 1.5}, {"lun_request", 2.0}}) {
        const auto ends = ends_of(fmt::format("srpfs_{}_duration_seconds_bucket", thing));
        ASSERT_GT(ends.size(), 20u) << thing;
        EXPECT_EQ(ends.front(), 8e-6);
        EXPECT_EQ(ends.back(), 67.108864);
        for (std::size_t i = 1; i < ends.size(); ++i) EXPECT_LE(ends[i] / ends[i - 1], widest + 1e-9) << thing;
    }
}

TEST(Metrics, WhatSrpfsKnowsExactlyIsASummary) {
    const std::string text = metrics_of(example());
    const std::string labels = R"(port="srp-mlx5_0-1",target="a\"b\\c\nd",)";
    EXPECT_TRUE(has_line(text, "# TYPE srpfs_lun_request_latency_seconds summary"));
    EXPECT_TRUE(has_line(
        text, "srpfs_lun_request_latency_seconds{" + labels + R"(lun="lun0",operation="read",quantile="0.99"} 9e-06)"))
        << text;
    EXPECT_TRUE(has_line(text, "srpfs_channel_command_latency_seconds{" + labels +
                                   R"(channel="0",operation="other",quantile="0.999"} 9e-06)"));
    // Nothing was written to the unit.
    EXPECT_EQ(text.find(R"(lun="lun0",operation="write")"), std::string::npos);
}

TEST(Metrics, AQuantileOfNothingIsNoNumber) {
    Json stats = example();
    stats["targets"][0]["total"]["latency"]["read"]["count"] = 0;
    EXPECT_NE(metrics_of(stats).find(R"(operation="read",quantile="0.5"} NaN)"), std::string::npos);
}

// A thousand units that are read, written and flushed, with names as long as they get.
TEST(Metrics, OfAThousandUnitsAreLessThan18Megabytes) {
    Json stats = example();
    Json& target = stats["targets"][0];
    target["name"] = "0002c90300a1b2c3-0002c90300a1b2c3-00000000000000ff";
    Json lun = target["luns"][0];
    for (const char* operation : {"read", "write", "flush"}) lun["latency"][operation] = latency(5000000);
    target["luns"] = Json::array();
    for (unsigned number = 0; number < 1000; ++number) {
        lun["name"] = fmt::format("lun{}", number);
        target["luns"].push_back(lun);
    }
    EXPECT_LT(metrics_of(stats).size(), 18U << 20);
    for (Json& one : target["luns"])
        for (const char* operation : {"read", "write", "flush"}) one["latency"][operation]["count"] = 0;
    EXPECT_LT(metrics_of(stats).size(), 4U << 20);
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
