// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/timers.h>

#include <gtest/gtest.h>

namespace srpfs::ctl {
namespace {

constexpr Seconds off{};
constexpr Timers usual{10, 15, 600};

// The states on the way; a failure if one is not allowed, or the last is not what was wanted.
std::size_t writes_between(const Timers& now, const Timers& wanted) {
    const auto order = order_of_writes(now, wanted);
    if (!order) {
        ADD_FAILURE() << "no way";
        return 0;
    }
    Timers at = now;
    for (const TimerWrite& write : *order) {
        (write.file == "reconnect_delay"    ? at.reconnect_delay
         : write.file == "fast_io_fail_tmo" ? at.fast_io_fail_tmo
                                            : at.dev_loss_tmo) = write.value;
        EXPECT_TRUE(is_allowed(at)) << write.file << "=" << format_seconds(write.value);
    }
    EXPECT_EQ(at, wanted);
    return order->size();
}

TEST(Timers, NothingIsWrittenForWhatIsSoAlready) { EXPECT_EQ(writes_between(usual, usual), 0U); }

TEST(Timers, TheOneThatMakesRoomIsWrittenFirst) {
    EXPECT_EQ(order_of_writes(usual, {10, 5, 10}),
              (std::vector<TimerWrite>{{"fast_io_fail_tmo", 5}, {"dev_loss_tmo", 10}}));
    EXPECT_EQ(order_of_writes({10, 5, 10}, {10, 30, 60}),
              (std::vector<TimerWrite>{{"dev_loss_tmo", 60}, {"fast_io_fail_tmo", 30}}));
    EXPECT_EQ(order_of_writes({10, off, off}, {off, 5, off}),
              (std::vector<TimerWrite>{{"fast_io_fail_tmo", 5}, {"reconnect_delay", off}}));
}

TEST(Timers, OneIsSwitchedOnForAMomentWhereThereIsNoOtherWay) {
    EXPECT_EQ(writes_between({off, off, 100}, {off, 600, off}), 4U);
}

TEST(Timers, ThereIsAWayBetweenAnyTwoAllowedStates) {
    const std::vector<Seconds> values = {off, 0, 1, 15, 599, 600, 601, 2147483646};
    std::vector<Timers> allowed;
    for (const Seconds& reconnect : {off, Seconds{1}, Seconds{10}})
        for (const Seconds& fail : values)
            for (const Seconds& loss : values)
                if (is_allowed({reconnect, fail, loss})) allowed.push_back({reconnect, fail, loss});
    ASSERT_GT(allowed.size(), 50U);
    for (const Timers& now : allowed)
        for (const Timers& wanted : allowed) EXPECT_LE(writes_between(now, wanted), 5U);
}

TEST(Timers, WhatIsNotAllowedHasNoOrder) {
    EXPECT_FALSE(order_of_writes(usual, {10, 700, 800}));
    EXPECT_FALSE(order_of_writes(usual, {10, 20, 20}));
    EXPECT_FALSE(order_of_writes(usual, {0, 15, 600}));
    EXPECT_FALSE(order_of_writes(usual, {off, off, off}));
    EXPECT_FALSE(order_of_writes(usual, {10, off, 601}));
}

TEST(Timers, ValuesAreReadAsSrpfsReadsThem) {
    const auto read = [](std::string_view text) {
        const auto value = parse_seconds(text);
        EXPECT_TRUE(value) << text;
        return value ? format_seconds(*value) : "nothing";
    };
    EXPECT_EQ(read("off"), "off");
    EXPECT_EQ(read("offline"), "off");
    EXPECT_EQ(read("-1"), "off");
    EXPECT_EQ(read("15"), "15");
    EXPECT_EQ(read("0x10"), "16");
    EXPECT_EQ(read("010"), "8");
    EXPECT_EQ(read("0"), "0");
    EXPECT_EQ(read("-0"), "0");
    for (const char* text : {"", "x", "5s", "08", "--1", "0x", "1 2"}) EXPECT_FALSE(parse_seconds(text)) << text;
}

}  // namespace
}  // namespace srpfs::ctl
