// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The three timers as text and together: srp-admin 4.2, row by row.
#include "port_fixture.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>

namespace srpfs::initiator {
namespace {

struct Text {
    const char* text;
    std::optional<std::uint32_t> value;
};
class TimerText : public testing::TestWithParam<Text> {};

TEST_P(TimerText, IsUnderstood) {
    const auto parsed = parse_timer(GetParam().text);
    ASSERT_TRUE(parsed) << GetParam().text;
    EXPECT_EQ(*parsed, GetParam().value) << GetParam().text;
}
INSTANTIATE_TEST_SUITE_P(All, TimerText,
                         testing::Values(Text{"0", 0U}, Text{"15", 15U}, Text{"+15", 15U}, Text{"0x1f", 31U},
                                         Text{"0X1F", 31U}, Text{"017", 15U}, Text{"00", 0U}, Text{"off", off},
                                         Text{"offline", off}, Text{"-1", off}, Text{"-600", off}, Text{"-0", 0U},
                                         Text{"-0x10", off}, Text{"2147483647", 2147483647U}));

class TimerNonsense : public testing::TestWithParam<const char*> {};

TEST_P(TimerNonsense, IsInvalid) {
    const auto parsed = parse_timer(GetParam());
    ASSERT_FALSE(parsed) << GetParam();
    EXPECT_EQ(parsed.error().errno_value(), EINVAL);
    EXPECT_NE(parsed.error().context.find(GetParam()), std::string::npos) << parsed.error().context;
}
INSTANTIATE_TEST_SUITE_P(All, TimerNonsense,
                         testing::Values("", " 5", "5s", "5 ", "0x", "0xg", "08", "1.5", "--1", "+-1", "-+1", "-",
                                         "OFF", "of", "2147483648", "99999999999999999999", "five"));

TEST(TimerText, IsWrittenAsTheKernelDoes) {
    EXPECT_EQ(format_timer(600), "600");
    EXPECT_EQ(format_timer(0), "0");
    EXPECT_EQ(format_timer(off), "off");
}

TEST(Timers, HaveTheKernelsDefaults) {
    const TransportTimers timers;
    EXPECT_EQ(timers.reconnect_delay, 10U);
    EXPECT_EQ(timers.fast_io_fail_tmo, 15U);
    EXPECT_EQ(timers.dev_loss_tmo, 600U);
    EXPECT_TRUE(validate(timers));
}

struct Row {
    std::optional<std::uint32_t> reconnect_delay, fast_io_fail_tmo, dev_loss_tmo;
    bool valid;
};
class TimerRow : public testing::TestWithParam<Row> {};

TEST_P(TimerRow, IsJudgedAsTheKernelDoes) {
    const auto& [reconnect_delay, fast_io_fail_tmo, dev_loss_tmo, valid] = GetParam();
    const auto result = validate({reconnect_delay, fast_io_fail_tmo, dev_loss_tmo});
    EXPECT_EQ(result.has_value(), valid);
    if (!result) {
        EXPECT_EQ(result.error().errno_value(), EINVAL);
        EXPECT_FALSE(result.error().context.empty());
    }
}

// All off.
INSTANTIATE_TEST_SUITE_P(AllOff, TimerRow,
                         testing::Values(Row{off, off, off, false}, Row{10U, off, off, true}, Row{off, 15U, off, true},
                                         Row{off, off, 60U, true}));
// reconnect_delay == 0.
INSTANTIATE_TEST_SUITE_P(ReconnectDelay, TimerRow,
                         testing::Values(Row{0U, 15U, 600U, false}, Row{1U, 15U, 600U, true},
                                         Row{2147483647U, 15U, 600U, true}, Row{off, 15U, 600U, true}));
// fast_io_fail_tmo > 600 (SCSI_DEVICE_BLOCK_MAX_TIMEOUT).
INSTANTIATE_TEST_SUITE_P(FastIoFail, TimerRow,
                         testing::Values(Row{10U, 600U, off, true}, Row{10U, 601U, off, false},
                                         Row{10U, 600U, 601U, true}, Row{10U, 601U, 602U, false},
                                         Row{10U, 0U, off, true}, Row{10U, 0U, 1U, true}));
// fast_io_fail_tmo off and dev_loss_tmo > 600.
INSTANTIATE_TEST_SUITE_P(DevLossAlone, TimerRow,
                         testing::Values(Row{10U, off, 600U, true}, Row{10U, off, 601U, false}, Row{10U, off, 0U, true},
                                         Row{off, off, 0U, true}));
// Both on: fast_io_fail_tmo < dev_loss_tmo.
INSTANTIATE_TEST_SUITE_P(Both, TimerRow,
                         testing::Values(Row{10U, 14U, 15U, true}, Row{10U, 15U, 15U, false}, Row{10U, 16U, 15U, false},
                                         Row{10U, 0U, 0U, false}, Row{10U, 15U, 2000000000U, true}));
// dev_loss_tmo >= LONG_MAX / HZ: no 32-bit number is, on a 64-bit kernel; here the largest is refused.
INSTANTIATE_TEST_SUITE_P(DevLoss, TimerRow,
                         testing::Values(Row{10U, 15U, 2147483646U, true}, Row{10U, 15U, 2147483647U, false}));

TEST(Timers, NameTheRuleThatIsBroken) {
    EXPECT_NE(validate({off, off, off}).error().context.find("all be off"), std::string::npos);
    EXPECT_NE(validate({0U, 15U, 600U}).error().context.find("reconnect_delay"), std::string::npos);
    EXPECT_NE(validate({10U, 601U, off}).error().context.find("600"), std::string::npos);
    EXPECT_NE(validate({10U, off, 601U}).error().context.find("fast_io_fail_tmo is off"), std::string::npos);
    EXPECT_NE(validate({10U, 15U, 15U}).error().context.find("less than dev_loss_tmo"), std::string::npos);
}

}  // namespace
}  // namespace srpfs::initiator
