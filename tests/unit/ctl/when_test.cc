// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/when.h>

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <string>

#include <time.h>

namespace srpfs::ctl {
namespace {

constexpr std::int64_t hour = 3600000, day = 24 * hour;
// 2026-11-24 10:30:00 UTC, which is 11:30 where the tests are.
constexpr std::int64_t now = 1795516200000;

class When : public testing::Test {
protected:
    void SetUp() override { move_to("CET-1CEST,M3.5.0,M10.5.0/3"); }
    void TearDown() override {
        ::unsetenv("TZ");
        ::tzset();
    }
    static void move_to(const char* zone) {
        ::setenv("TZ", zone, 1);
        ::tzset();
    }
    // -1 if it was refused.
    static std::int64_t parsed(std::string_view text, std::int64_t at = now) {
        const auto time = parse_time(text, at);
        return time ? *time : -1;
    }
    static std::int64_t after_now(std::string_view text) { return parsed(text) - now; }
};

TEST_F(When, AbsoluteTimesOfRfc3339) {
    EXPECT_EQ(after_now("2026-11-24T10:30:00Z"), 0);
    EXPECT_EQ(after_now("2026-11-24t10:30:00z"), 0);
    EXPECT_EQ(after_now("2026-11-24 10:30 UTC"), 0);
    EXPECT_EQ(after_now("2026-11-24T10:30:00.250Z"), 250);
    EXPECT_EQ(after_now("2026-11-24T10:30:00.2509999Z"), 250);
    EXPECT_EQ(after_now("2026-11-24T12:30:00+02:00"), 0);
    EXPECT_EQ(after_now("2026-11-24 05:00 -0530"), 0);
}

TEST_F(When, WithoutAnOffsetTheyAreLocal) {
    EXPECT_EQ(after_now("2026-11-24 11:30"), 0);
    EXPECT_EQ(after_now("2026-11-24 11:30:05"), 5000);
    EXPECT_EQ(after_now("2026-11-24T11:30:05.5"), 5500);
    EXPECT_EQ(after_now("11:30"), 0);
    EXPECT_EQ(after_now("00:00"), after_now("today"));
    EXPECT_EQ(after_now("2026-11-24"), after_now("today"));
    EXPECT_EQ(parsed("2026-07-01 12:00"), parsed("2026-07-01T10:00:00Z")) << "in summer";
    move_to("UTC0");
    EXPECT_EQ(after_now("2026-11-24 10:30"), 0);
}

TEST_F(When, DaysBeginAtMidnight) {
    EXPECT_EQ(after_now("now"), 0);
    EXPECT_EQ(after_now("today"), -11 * hour - hour / 2);
    EXPECT_EQ(after_now("yesterday"), -11 * hour - hour / 2 - day);
    // Midnight of 25 October 2026 is 25 hours before that of the 26th, whose beginning is 23:00 UTC.
    const std::int64_t after_change = now - 29 * day;
    EXPECT_EQ(parsed("today", after_change) - parsed("yesterday", after_change), 25 * hour);
}

TEST_F(When, RelativeTimesAreAgo) {
    for (const auto& [text, before] : {std::pair{"250ms", std::int64_t{250}},
                                       {"30s", 30000},
                                       {"10m", 600000},
                                       {"10 min ago", 600000},
                                       {"-10m", 600000},
                                       {"1h", hour},
                                       {"1h30m", hour + hour / 2},
                                       {"1h 30 minutes ago", hour + hour / 2},
                                       {"2d", 2 * day},
                                       {" 1week ", 7 * day}})
        EXPECT_EQ(after_now(text), -before) << text;
}

TEST_F(When, SecondsSince1970) {
    EXPECT_EQ(after_now("@1795516200"), 0);
    EXPECT_EQ(parsed("@0"), 0);
}

TEST_F(When, OthersAreRefused) {
    for (const char* text : {"",
                             " ",
                             "soon",
                             "10",
                             "m",
                             "10x",
                             "1h30",
                             "10m later",
                             "+10m",
                             "10m10m x",
                             "2026",
                             "2026-11",
                             "2026-13-01",
                             "2026-02-30",
                             "2026-11-24T",
                             "2026-11-24T25:00Z",
                             "2026-11-24 10:61",
                             "2026-11-24T10:30:00.Z",
                             "2026-11-24T10:30:00ZZ",
                             "2026-11-24T10:30:00+99:99x",
                             "2026-11-24x10:30",
                             "@",
                             "@x",
                             "@-1",
                             "@99999999999999999999",
                             "9999999999999999999d",
                             "1000000001s",
                             "tomorrow"}) {
        const auto time = parse_time(text, now);
        ASSERT_FALSE(time) << text;
        EXPECT_EQ(time.error().errno_value(), EINVAL) << text;
        EXPECT_TRUE(time.error().context.starts_with("a time is expected, such as ")) << time.error().context;
    }
}

TEST_F(When, TheClockIsThatOfTheWall) { EXPECT_GT(wall_clock_ms(), parsed("2020-01-01")); }

}  // namespace
}  // namespace srpfs::ctl
