// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/rates.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace srpfs::ctl {
namespace {

Json counted_lun(const char* name, std::uint64_t reads, std::uint64_t writes, std::uint64_t errors) {
    return Json{{"path", std::string("/srp/srp-a-1/t/") + name},
                {"state", "running"},
                {"target_state", "running"},
                {"requests_pending", 1},
                {"in_flight", 1},
                {"counters",
                 {{"reads", reads},
                  {"writes", writes},
                  {"flushes", 0},
                  {"bytes_read", reads * 4096},
                  {"bytes_written", writes * 1000000},
                  {"errors", errors},
                  {"retries", 0}}}};
}

Json counted(std::vector<Json> luns, std::uint64_t commands) {
    return Json{{"path", "/srp"},
                {"uptime_seconds", 5},
                {"requests_pending", 9},
                {"targets",
                 {{{"path", "/srp/srp-a-1/t"},
                   {"state", "running"},
                   {"channels", 2},
                   {"req_lim", 60},
                   {"zero_req_lim", 0},
                   {"failed_reconnects", 0},
                   {"commands", commands},
                   {"luns", luns}}}}};
}

const Json& lun_of(const Rates& rates, std::size_t index) { return rates.frame()["targets"][0]["luns"][index]; }

TEST(Rates, NeedTwoLooks) {
    Rates rates;
    EXPECT_FALSE(rates.is_ready());
    rates.add(counted({}, 0), 10);
    EXPECT_FALSE(rates.is_ready());
    rates.add(counted({}, 0), 11);
    EXPECT_TRUE(rates.is_ready());
}

TEST(Rates, AreWhatWasAddedDividedByTheTime) {
    Rates rates;
    rates.add(counted({counted_lun("lun0", 100, 0, 0)}, 1000), 10);
    rates.add(counted({counted_lun("lun0", 150, 7, 1)}, 1101), 12);
    EXPECT_EQ(rates.frame()["seconds"], 2.0);
    EXPECT_EQ(rates.frame()["targets"][0]["commands_per_second"], 50.5);
    EXPECT_EQ(lun_of(rates, 0)["reads_per_second"], 25.0);
    EXPECT_EQ(lun_of(rates, 0)["writes_per_second"], 3.5);
    EXPECT_EQ(lun_of(rates, 0)["bytes_written_per_second"], 3500000.0);
    EXPECT_EQ(lun_of(rates, 0)["errors_per_second"], 0.5);
}

Json with_latency(const char* buckets) {
    Json lun = counted_lun("lun0", 0, 0, 0);
    lun["latency"]["read"]["buckets_us"] = Json::parse(buckets);
    return lun;
}

TEST(Rates, LatenciesAreOfWhatEndedBetweenTwoLooks) {
    Rates rates;
    rates.add(counted({with_latency("[[100,1000],[5000,1]]")}, 0), 10);
    rates.add(counted({with_latency("[[100,1050],[200,49],[5000,1],[9000,1]]")}, 0), 11);
    EXPECT_EQ(lun_of(rates, 0)["read_p50_us"], 100);
    EXPECT_EQ(lun_of(rates, 0)["read_p99_us"], 200);
    EXPECT_EQ(lun_of(rates, 0)["read_p999_us"], 9000);
    EXPECT_TRUE(lun_of(rates, 0)["write_p99_us"].is_null());
    rates.add(counted({with_latency("[[100,1050],[200,49],[5000,1],[9000,1]]")}, 0), 12);
    EXPECT_TRUE(lun_of(rates, 0)["read_p99_us"].is_null()) << "nothing ended";
    rates.add(counted({with_latency("[[100,3]]")}, 0), 13);
    EXPECT_TRUE(lun_of(rates, 0)["read_p99_us"].is_null()) << "it has begun anew";
    rates.add(counted({with_latency("[[100],3]")}, 0), 14);
    EXPECT_TRUE(lun_of(rates, 0)["read_p99_us"].is_null()) << "what is not understood";
}

TEST(Rates, ChannelsAreShownWhereThereAreSeveralAndRoom) {
    Json look = counted({counted_lun("lun0", 0, 0, 0)}, 0);
    for (int index = 0; index < 4; ++index)
        look["targets"][0]["channel_list"].push_back(
            Json{{"index", index}, {"state", "live"}, {"credits", 10}, {"in_flight", 0}, {"commands", index}});
    Rates rates;
    rates.add(look, 10);
    look["targets"][0]["channel_list"][3]["commands"] = 203;
    rates.add(look, 12);
    EXPECT_EQ(rates.frame()["targets"][0]["channel_list"][3]["commands_per_second"], 100.0);
    const auto has_channels = [&](std::size_t height) {
        return rates.text(Format::table, {0, height, Charset::ascii, false}).find("CHANNEL  STATE") !=
               std::string::npos;
    };
    EXPECT_TRUE(has_channels(50));
    EXPECT_FALSE(has_channels(10));
    // Also beside a target that has none.
    look["targets"].push_back(look["targets"][0]);
    look["targets"][1]["path"] = "/srp/srp-a-1/lost";
    look["targets"][1]["channel_list"] = Json::array();
    rates.add(look, 14);
    EXPECT_TRUE(has_channels(50));
    // Those that take the place of others.
    Json& channels = look["targets"][0]["channel_list"];
    for (std::size_t index = 1; index < 4; ++index) channels[index]["index"] = 0;
    channels[0]["state"] = channels[1]["state"] = "dead";
    channels[2]["state"] = "draining";
    rates.add(look, 16);
    ASSERT_EQ(rates.frame()["targets"][0]["channel_list"].size(), 1u);
    EXPECT_EQ(rates.frame()["targets"][0]["channel_list"][0]["state"], "live");
    EXPECT_FALSE(has_channels(50));
}

TEST(Rates, OfATargetAreThoseOfItsUnitsTogether) {
    Json first = with_latency("[[100,10]]"), second = with_latency("[[100,1]]");
    second["path"] = "/srp/srp-a-1/t/lun1";
    Rates rates;
    rates.add(counted({first, second}, 0), 10);
    first["latency"]["read"]["buckets_us"] = Json::parse("[[100,70]]");
    second["latency"]["read"]["buckets_us"] = Json::parse("[[100,1],[900,40]]");
    first["counters"]["bytes_read"] = 3000000;
    second["counters"]["bytes_read"] = 500000;
    Json look = counted({first, second}, 0);
    look["targets"][0]["channel_list"] = {{{"index", 0}, {"state", "live"}, {"credits", 10}, {"in_flight", 3}},
                                          {{"index", 1}, {"state", "live"}, {"credits", 20}, {"in_flight", 4}},
                                          {{"index", 2}, {"state", "dead"}, {"credits", 99}, {"in_flight", 0}}};
    rates.add(look, 12);
    const Json& target = rates.frame()["targets"][0];
    EXPECT_EQ(target["bytes_read_per_second"], 1750000.0);
    EXPECT_EQ(target["read_p50_us"], 100) << "60 of 100";
    EXPECT_EQ(target["read_p99_us"], 900);
    EXPECT_TRUE(target["write_p99_us"].is_null());
    EXPECT_EQ(target["requests_pending"], 2);
    EXPECT_EQ(target["in_flight"], 7);
    EXPECT_EQ(target["credits"], 30) << "of the live ones";
    const std::string plain = rates.text(Format::plain, {});
    for (const char* line : {"/srp/srp-a-1/t\tchannel.1.credits\t20\n", "/srp/srp-a-1/t\tread_p99_us\t900\n",
                             "/srp/srp-a-1/t/lun0\trequests_pending\t1\n", "/srp\tseconds\t2.0\n"})
        EXPECT_NE(plain.find(line), std::string::npos) << line << plain;
}

TEST(Rates, OfAChannelAreWhatItCarriedAndHowLongThatTook) {
    const auto channel = [](unsigned bytes, const char* reads, const char* writes) {
        Json one = {{"index", 0}, {"state", "live"}, {"credits", 10}, {"in_flight", 3}, {"commands", bytes / 1000}};
        one["bytes_read"] = one["bytes_written"] = bytes;
        one["errors"] = bytes / 500000;
        one["latency"]["read"]["buckets_us"] = Json::parse(reads);
        one["latency"]["write"]["buckets_us"] = Json::parse(writes);
        return one;
    };
    Json look = counted({}, 0);
    look["targets"][0]["channel_list"] = Json::array({channel(0, "[[4,10]]", "[]")});
    Rates rates;
    rates.add(look, 10);
    look["targets"][0]["channel_list"] = Json::array({channel(3000000, "[[4,10],[100,98]]", "[[700,2]]")});
    rates.add(look, 12);

    const Json& one = rates.frame()["targets"][0]["channel_list"][0];
    EXPECT_EQ(one["bytes_read_per_second"], 1500000.0);
    EXPECT_EQ(one["bytes_written_per_second"], 1500000.0);
    EXPECT_EQ(one["errors_per_second"], 3.0);
    EXPECT_EQ(one["read_p99_us"], 100);
    EXPECT_EQ(one["write_p50_us"], 700);
    EXPECT_EQ(one["p50_us"], 100) << "of both";
    EXPECT_EQ(one["p99_us"], 700);
    // A new channel in its place has counted nothing.
    look["targets"][0]["channel_list"] = Json::array({channel(0, "[]", "[]")});
    rates.add(look, 14);
    EXPECT_TRUE(rates.frame()["targets"][0]["channel_list"][0]["bytes_read_per_second"].is_null());
    EXPECT_TRUE(rates.frame()["targets"][0]["channel_list"][0]["p99_us"].is_null());
}

TEST(Rates, OfWhatIsNewOrBeginsAnewAreNull) {
    Rates rates;
    rates.add(counted({counted_lun("lun0", 100, 0, 0)}, 1000), 10);
    rates.add(counted({counted_lun("lun0", 5, 0, 0), counted_lun("lun1", 5, 0, 0)}, 10), 11);
    EXPECT_TRUE(lun_of(rates, 0)["reads_per_second"].is_null());
    EXPECT_TRUE(lun_of(rates, 1)["reads_per_second"].is_null());
    EXPECT_TRUE(rates.frame()["targets"][0]["commands_per_second"].is_null());
    EXPECT_NE(rates.text(Format::table, {}).find(" -"), std::string::npos);
    rates.add(counted({counted_lun("lun0", 6, 0, 0)}, 11), 11);
    EXPECT_TRUE(lun_of(rates, 0)["reads_per_second"].is_null()) << "no time has passed";
}

TEST(Rates, ShowTheBusiestFirstAndAsMuchAsFits) {
    Rates rates;
    rates.add(counted({counted_lun("lun0", 0, 0, 0), counted_lun("lun1", 0, 0, 0), counted_lun("lun2", 0, 0, 0)}, 0),
              10);
    rates.add(
        counted({counted_lun("lun0", 0, 0, 0), counted_lun("lun1", 3000, 12, 0), counted_lun("lun2", 5, 0, 2)}, 3017),
        11);
    EXPECT_EQ(rates.text(Format::table, {.width = 80, .charset = Charset::utf8}),
              "/srp: 3005 reads/s (12.3 MB/s), 12 writes/s (12.0 MB/s), requests pending: 9\n"
              "\n"
              "TARGET     STATE    QUEUE  IN FLIGHT  CREDITS  WAITS/S  COMMANDS/S  LATELY\n"
              "srp-a-1/t  running      3          -        0        0        3017  █\n"
              "\n"
              "LUN             QUEUE  READS/S  MB/S  P99  WRITES/S  MB/S  P99  ERRORS/S  LATELY\n"
              "srp-a-1/t/lun1      1     3000  12.3    -        12  12.0    -         0  █\n"
              "srp-a-1/t/lun2      1        5   0.0    -         0   0.0    -         2  █\n"
              "srp-a-1/t/lun0      1        0   0.0    -         0   0.0    -         0  ▁\n");
    const std::string small = rates.text(Format::table, {.width = 40, .height = 8});
    EXPECT_EQ(std::count(small.begin(), small.end(), '\n'), 8);
    for (const std::string_view line : split(small, '\n')) EXPECT_LE(columns_of(line), 40U) << small;
    EXPECT_NE(rates.text(Format::plain, {}).find("/srp/srp-a-1/t/lun1\treads_per_second\t3000.0\n"), std::string::npos);
    EXPECT_EQ(Json::parse(rates.text(Format::json, {})), rates.frame());
}

TEST(Rates, RememberTenLooksOfWhatIsStillThere) {
    Rates rates;
    for (unsigned i = 0; i < 30; ++i) rates.add(counted({counted_lun("lun0", i * i, 0, 0)}, 0), i);
    const std::string text = rates.text(Format::table, {});
    EXPECT_EQ(text.substr(text.rfind(' ') + 1).size(), 11U) << text;
}

TEST(Sparkline, IsAsHighAsItsLargestValue) {
    EXPECT_EQ(sparkline({}, Charset::utf8), "");
    EXPECT_EQ(sparkline({0, 0}, Charset::utf8), "▁▁");
    EXPECT_EQ(sparkline({0, 1, 4, 8}, Charset::utf8), "▁▁▄█");
    EXPECT_EQ(sparkline({0, 0.001, 500, 1000}, Charset::ascii), "__-#");
}

}  // namespace
}  // namespace srpfs::ctl
