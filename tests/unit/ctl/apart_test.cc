// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/apart.h>

#include <gtest/gtest.h>

#include <cerrno>
#include <stdexcept>
#include <vector>

#include <signal.h>
#include <unistd.h>

namespace srpfs::ctl {
namespace {

using namespace std::chrono_literals;
constexpr auto patience = 120s;

TEST(Apart, TheAnswerIsWhatTheWorkReturns) {
    const std::string large(3 << 20, 'x');
    const auto done = run_apart(patience, [&](Outlet&) -> Result<std::string> { return large; });
    ASSERT_TRUE(done);
    EXPECT_EQ(*done, large);
}

TEST(Apart, AnErrorKeepsItsErrnoAndItsSentence) {
    const auto done =
        run_apart(patience, [](Outlet&) -> Result<std::string> { return Error(EBUSY, "lun0: 7 are busy"); });
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().errno_value(), EBUSY);
    EXPECT_EQ(done.error().context, "lun0: 7 are busy");
}

TEST(Apart, WhatIsToldComesInOrder) {
    std::vector<std::string> told;
    const auto done = run_apart(
        patience,
        [](Outlet& outlet) -> Result<std::string> {
            outlet.tell("one");
            outlet.alive();
            outlet.tell("two");
            return std::string("end");
        },
        [&](std::string_view text) {
            told.emplace_back(text);
            return true;
        });
    ASSERT_TRUE(done);
    EXPECT_EQ(*done, "end");
    EXPECT_EQ(told, (std::vector<std::string>{"one", "two"}));
}

TEST(Apart, WhoHasHeardEnoughEndsIt) {
    const auto done = run_apart(
        patience,
        [](Outlet& outlet) -> Result<std::string> {
            outlet.tell("x");
            while (true) ::pause();
        },
        [](std::string_view) { return false; });
    ASSERT_TRUE(done);
    EXPECT_EQ(*done, "");
}

TEST(Apart, ItEndsWhenNobodyReadsWhatItIsFor) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const auto read = [&](Outlet& outlet) -> Result<std::string> {
        ::close(ends[0]);  // it has got that as well
        outlet.tell("x");
        while (true) ::pause();
    };
    const auto done = run_apart(
        patience, read,
        [&](std::string_view) {
            ::close(ends[0]);
            return true;
        },
        ends[1]);
    ::close(ends[1]);
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().errno_value(), EPIPE);
}

TEST(Apart, SilenceEndsAtTheLimit) {
    const auto done = run_apart(10ms, [](Outlet&) -> Result<std::string> {
        while (true) ::pause();
    });
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().errno_value(), ETIMEDOUT);
    EXPECT_EQ(done.error().context, "no answer within 0.01 s");
}

TEST(Apart, WorkThatDiesOrThrowsIsAnError) {
    const auto killed = run_apart(patience, [](Outlet&) -> Result<std::string> {
        ::raise(SIGKILL);
        return std::string();
    });
    ASSERT_FALSE(killed);
    EXPECT_EQ(killed.error().errno_value(), EINTR);
    const auto thrown =
        run_apart(patience, [](Outlet&) -> Result<std::string> { return std::vector<std::string>().at(1); });
    ASSERT_FALSE(thrown);
    EXPECT_NE(thrown.error().context.find("internal error"), std::string::npos);
}

}  // namespace
}  // namespace srpfs::ctl
