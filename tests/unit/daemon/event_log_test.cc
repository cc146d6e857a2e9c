// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "event_log.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <optional>
#include <sstream>

namespace srpfs::daemon {
namespace {

class Call final : public fs::PendingCall {
public:
    void succeed() override { text = ""; }
    void succeed_with(std::string answer) override { text = std::move(answer); }
    void fail(int errno_value) override { fault = errno_value; }
    void on_interrupt(std::function<void()> handler) override { interrupt = std::move(handler); }
    [[nodiscard]] bool nonblocking() const override { return nonblocking_; }
    [[nodiscard]] unsigned caller_uid() const override { return 0; }
    [[nodiscard]] bool answered() const { return text || fault != 0; }

    bool nonblocking_ = false;
    std::optional<std::string> text;
    int fault = 0;
    std::function<void()> interrupt;
};

std::shared_ptr<Call> read(EventLog& events, const std::shared_ptr<std::uint64_t>& cursor,
                           std::size_t bytes_max = 65536) {
    auto call = std::make_shared<Call>();
    events.read_next(cursor, bytes_max, call);
    return call;
}

std::vector<nlohmann::json> lines_of(const std::string& text) {
    std::vector<nlohmann::json> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) lines.push_back(nlohmann::json::parse(line));
    return lines;
}

TEST(EventLog, CountsEachKind) {
    EventLog events;
    EXPECT_TRUE(events.counts().empty());
    for (const char* name : {"lun_added", "target_added", "lun_added"}) events.add(name, {});
    using Counts = std::map<std::string, std::uint64_t, std::less<>>;
    EXPECT_EQ(events.counts(), (Counts{{"lun_added", 2}, {"target_added", 1}}));
    // Those that are dropped from the log are counted all the same.
    for (int i = 0; i < 5000; ++i) events.add("io_error", {});
    EXPECT_EQ(events.counts().at("io_error"), 5000U);
    EXPECT_EQ(events.counts().at("lun_added"), 2U);
}

TEST(EventLog, AReaderWaitsForTheNextEvent) {
    EventLog events;
    const auto cursor = std::make_shared<std::uint64_t>(events.end());
    const auto call = read(events, cursor);
    ASSERT_FALSE(call->answered());

    events.add("target_added", {{"target", "x"}});

    ASSERT_TRUE(call->text);
    const auto lines = lines_of(*call->text);
    ASSERT_EQ(lines.size(), 1U);
    EXPECT_EQ(lines[0]["schema"], 1);
    EXPECT_EQ(lines[0]["sequence"], 0);
    EXPECT_EQ(lines[0]["event"], "target_added");
    EXPECT_EQ(lines[0]["target"], "x");
    EXPECT_TRUE(lines[0]["time"].is_string());
}

TEST(EventLog, TwoReadersGetTheSameEvents) {
    EventLog events;
    const auto one = std::make_shared<std::uint64_t>(events.end()), two = std::make_shared<std::uint64_t>(events.end());
    const auto first = read(events, one), second = read(events, two);

    events.add("a", nlohmann::json::object());

    ASSERT_TRUE(first->text && second->text);
    EXPECT_EQ(*first->text, *second->text);
}

TEST(EventLog, WhatHappenedBetweenTwoReadsIsNotLost) {
    EventLog events;
    const auto cursor = std::make_shared<std::uint64_t>(events.end());
    events.add("a", nlohmann::json::object());
    events.add("b", nlohmann::json::object());

    const auto call = read(events, cursor);

    ASSERT_TRUE(call->text);
    EXPECT_EQ(lines_of(*call->text).size(), 2U);
}

TEST(EventLog, AShortReadGetsWholeLinesOnly) {
    EventLog events;
    const auto cursor = std::make_shared<std::uint64_t>(events.end());
    events.add("a", nlohmann::json::object());
    events.add("b", nlohmann::json::object());

    const auto first = read(events, cursor, 100), second = read(events, cursor, 100),
               tiny = read(events, std::make_shared<std::uint64_t>(0), 5);

    ASSERT_TRUE(first->text && second->text);
    EXPECT_EQ(lines_of(*first->text).at(0)["event"], "a");
    EXPECT_EQ(lines_of(*second->text).at(0)["event"], "b");
    EXPECT_EQ(tiny->fault, EMSGSIZE);
}

TEST(EventLog, NonblockingReadOfNothingIsEagain) {
    EventLog events;
    auto call = std::make_shared<Call>();
    call->nonblocking_ = true;

    events.read_next(std::make_shared<std::uint64_t>(events.end()), 4096, call);

    EXPECT_EQ(call->fault, EAGAIN);
}

TEST(EventLog, AnInterruptedReaderGetsEintrAndNothingElse) {
    EventLog events;
    const auto call = read(events, std::make_shared<std::uint64_t>(events.end()));
    ASSERT_TRUE(call->interrupt);

    call->interrupt();
    events.add("a", nlohmann::json::object());

    EXPECT_EQ(call->fault, EINTR);
    EXPECT_FALSE(call->text);
}

TEST(EventLog, AReaderThatIsTooSlowSeesTheGapInTheSequence) {
    EventLog events;
    const auto cursor = std::make_shared<std::uint64_t>(events.end());
    for (int i = 0; i < 5000; ++i) events.add("a", nlohmann::json::object());

    const auto call = read(events, cursor, 4096);

    ASSERT_TRUE(call->text);
    EXPECT_EQ(lines_of(*call->text).at(0)["sequence"], 5000 - 4096);
}

TEST(EventLog, ClosingEndsWaitingReadsWithEndOfFile) {
    EventLog events;
    const auto call = read(events, std::make_shared<std::uint64_t>(events.end()));

    events.close();

    ASSERT_TRUE(call->text);
    EXPECT_EQ(*call->text, "");
}

TEST(EventLog, AReaderWhoComesAfterTheEndStillGetsWhatHeHasNotRead) {
    EventLog events;
    const auto cursor = std::make_shared<std::uint64_t>(events.end());
    events.add("shutdown", {});
    events.close();

    const auto last = read(events, cursor);
    ASSERT_TRUE(last->text);
    EXPECT_EQ(lines_of(*last->text).at(0)["event"], "shutdown");
    const auto end = read(events, cursor);
    ASSERT_TRUE(end->text);
    EXPECT_EQ(*end->text, "");
}

TEST(EventLog, BytesOfAPeerCannotBreakTheLine) {
    EventLog events;
    const auto cursor = std::make_shared<std::uint64_t>(events.end());

    events.add("a", {{"reason", std::string("line\nbreak \xff\xfe")}});

    const auto call = read(events, cursor);
    ASSERT_TRUE(call->text);
    EXPECT_EQ(lines_of(*call->text).size(), 1U);
}

}  // namespace
}  // namespace srpfs::daemon
