// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "raw_door.h"

#include "caller.h"

#include <srpfs/daemon/raw_ioctl.h>

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <vector>

namespace srpfs::daemon {
namespace {

class RawDoorTest : public ::testing::Test {
protected:
    struct Sent {
        lun::UnitCommand command;
        std::function<void(lun::UnitAnswer)> on_done;
        bool given_up = false;
    };
    RawDoorTest() {
        RawDoorConfig config;
        config.allowed = allowed;
        config.send = [this](lun::UnitCommand command, std::function<void(lun::UnitAnswer)> on_done) {
            sent.push_back({std::move(command), std::move(on_done)});
            return [this, index = sent.size() - 1] { sent[index].given_up = true; };
        };
        config.look = [this](std::function<void()> on_done) { looks.push_back(std::move(on_done)); };
        config.block_bytes = [] { return 512u; };
        config.is_read_only = [this] { return read_only; };
        config.command_timeout = std::chrono::seconds(30);
        config.now = [this] { return now; };
        config.on_refused = [this](const Error& error) { refused.push_back(error.context); };
        config.on_change = [this](const std::string& cdb, unsigned uid) { changes.emplace_back(cdb, uid); };
        door = std::make_shared<RawDoor>(std::move(config));
    }
    // What a caller keeps for a signal refers to him again.
    ~RawDoorTest() override {
        for (const auto& caller : callers) caller->interrupt = nullptr;
    }
    std::shared_ptr<Caller> make_caller() {
        callers.push_back(std::make_shared<Caller>());
        return callers.back();
    }
    std::shared_ptr<Caller> write(std::string_view text) {
        auto caller = make_caller();
        caller->uid = sender;
        door->write(text, caller);
        return caller;
    }
    std::shared_ptr<Caller> ioctl(const srpfs_raw_command& raw, bool may_change = true) {
        auto caller = make_caller();
        door->ioctl({reinterpret_cast<const char*>(&raw), sizeof raw}, may_change, sender, caller);
        return caller;
    }
    static srpfs_raw_command inquiry() {
        srpfs_raw_command raw{};
        raw.cdb[0] = 0x12;
        raw.cdb[4] = 4;
        raw.cdb_bytes = 6;
        raw.direction = SRPFS_RAW_DATA_IN;
        raw.data_bytes = 4;
        return raw;
    }
    static lun::UnitAnswer good() {
        lun::UnitAnswer answer;
        answer.answered = true;
        return answer;
    }

    static inline RawCommands allowed = RawCommands::all;
    bool read_only = false;
    unsigned sender = 7;
    Instant now{};
    std::vector<std::shared_ptr<Caller>> callers;
    std::vector<Sent> sent;
    std::vector<std::function<void()>> looks;
    std::vector<std::string> refused;
    std::vector<std::pair<std::string, unsigned>> changes;
    std::shared_ptr<RawDoor> door;
};

TEST_F(RawDoorTest, ACommandThatAsksIsAnsweredInWords) {
    const auto caller = write("12 00 00 00 04 00 timeout=2");
    ASSERT_EQ(sent.size(), 1u);
    EXPECT_TRUE(sent[0].command.is_foreign);
    EXPECT_FALSE(sent[0].command.changes);
    EXPECT_EQ(sent[0].command.data_in_bytes, 4u);
    EXPECT_EQ(sent[0].command.time_limit, std::chrono::seconds(2));
    auto answer = good();
    answer.residual = 2;
    answer.data = {std::byte{0x41}, std::byte{0}};
    sent[0].on_done(answer);
    EXPECT_EQ(caller->error, 0);
    EXPECT_EQ(caller->told,
              "command 12 00 00 00 04 00\nuid 7\nstatus GOOD\nsense none\nresidual 2\noverflow no\ndata 2\n"
              "00000000: 41 00                                            A.\n");
    EXPECT_EQ(door->last(), caller->told);
    EXPECT_TRUE(looks.empty() && changes.empty());
}

TEST_F(RawDoorTest, AfterACommandThatChangesTheUnitIsLookedAtFirst) {
    const auto caller = write("1b 00 00 00 01 00");
    EXPECT_EQ(changes, (std::vector<std::pair<std::string, unsigned>>{{"1b 00 00 00 01 00", 7}}));
    ASSERT_EQ(sent.size(), 1u);
    EXPECT_TRUE(sent[0].command.changes);
    sent[0].on_done(good());
    ASSERT_EQ(looks.size(), 1u);
    EXPECT_FALSE(caller->error);
    looks[0]();
    EXPECT_EQ(caller->error, 0);
    // Also if nobody knows whether it was carried out, and if he does not wait for that.
    const auto other = write("1b 00 00 00 01 00");
    lun::UnitAnswer lost;
    lost.outcome.kind = lun::OutcomeKind::path_lost;
    sent[1].on_done(lost);
    other->interrupt();
    EXPECT_EQ(other->error, EIO);
    looks.at(1)();
}

TEST_F(RawDoorTest, WhoIsNotAllowedToChangeAUnitDoesNot) {
    srpfs_raw_command raw{};
    raw.cdb[0] = 0x1b;
    raw.cdb_bytes = 6;
    EXPECT_EQ(ioctl(raw, false)->error, EPERM);
    read_only = true;
    EXPECT_EQ(ioctl(raw, true)->error, EROFS);
    EXPECT_EQ(write("1b 00 00 00 01 00")->error, EROFS);
    EXPECT_EQ(refused.size(), 2u);
    EXPECT_TRUE(sent.empty() && changes.empty());
    EXPECT_FALSE(write("00 00 00 00 00 00")->error);
}

TEST_F(RawDoorTest, WhatHasNoAnswerFailsWithItsReason) {
    using Kind = lun::OutcomeKind;
    const std::pair<Kind, int> kinds[] = {{Kind::interrupted, EINTR}, {Kind::gone, ENODEV},
                                          {Kind::path_lost, EIO},     {Kind::not_ready, EIO},
                                          {Kind::out_of_memory, EIO}, {Kind::aborted, EIO}};
    for (const auto& [kind, error] : kinds) {
        const auto caller = write("00 00 00 00 00 00");
        lun::UnitAnswer answer;
        answer.outcome.kind = kind;
        sent.back().on_done(answer);
        EXPECT_EQ(caller->error, error);
    }
    const auto late = write("00 00 00 00 00 00");
    lun::UnitAnswer answer;
    answer.outcome.kind = Kind::interrupted;
    answer.timed_out = true;
    sent.back().on_done(answer);
    EXPECT_EQ(late->error, ETIMEDOUT);
    EXPECT_TRUE(door->last().empty());
}

TEST_F(RawDoorTest, ASignalGivesTheCommandUp) {
    const auto caller = write("00 00 00 00 00 00");
    caller->interrupt();
    EXPECT_TRUE(sent[0].given_up);
    EXPECT_FALSE(caller->error);  // until its end is known
}

TEST_F(RawDoorTest, NoMoreThanSomeGoAtATime) {
    sender = 0;
    for (unsigned i = 0; i < RawDoor::commands_max; ++i) EXPECT_FALSE(write("00 00 00 00 00 00")->error);
    EXPECT_EQ(write("00 00 00 00 00 00")->error, EBUSY);
    sent[3].on_done(good());
    EXPECT_FALSE(write("00 00 00 00 00 00")->error);
}

TEST_F(RawDoorTest, OthersLeaveRootRoom) {
    for (unsigned i = 0; i < RawDoor::commands_of_others_max; ++i) EXPECT_FALSE(ioctl(inquiry())->error);
    EXPECT_EQ(ioctl(inquiry())->error, EBUSY);
    sender = 0;
    for (unsigned i = RawDoor::commands_of_others_max; i < RawDoor::commands_max; ++i)
        EXPECT_FALSE(ioctl(inquiry())->error);
    EXPECT_EQ(ioctl(inquiry())->error, EBUSY);
    sent[5].on_done(good());
    sender = 7;
    EXPECT_EQ(ioctl(inquiry())->error, EBUSY);
    sent[0].on_done(good());
    EXPECT_FALSE(ioctl(inquiry())->error);
}

TEST_F(RawDoorTest, WhatWasGivenUpCountsAsLongAsTheTargetHasIt) {
    const auto at_the_target = std::make_shared<char>();
    auto interrupted = lun::UnitAnswer{};
    interrupted.outcome.kind = lun::OutcomeKind::interrupted;
    interrupted.flight = at_the_target;
    for (unsigned i = 0; i < RawDoor::commands_of_others_max; ++i) {
        EXPECT_FALSE(ioctl(inquiry())->error);
        sent.back().on_done(interrupted);
    }
    EXPECT_EQ(ioctl(inquiry())->error, EBUSY);
    sender = 0;
    for (unsigned i = RawDoor::commands_of_others_max; i < RawDoor::commands_max; ++i) {
        EXPECT_FALSE(ioctl(inquiry())->error);
        sent.back().on_done(interrupted);
    }
    EXPECT_EQ(ioctl(inquiry())->error, EBUSY);
}

TEST_F(RawDoorTest, WhatTheTargetHasEndedDoesNotCount) {
    auto interrupted = lun::UnitAnswer{};
    interrupted.outcome.kind = lun::OutcomeKind::interrupted;
    for (unsigned i = 0; i < RawDoor::commands_max; ++i) {
        const auto at_the_target = std::make_shared<char>();
        interrupted.flight = at_the_target;
        EXPECT_FALSE(ioctl(inquiry())->error);
        sent.back().on_done(interrupted);
    }
    EXPECT_FALSE(ioctl(inquiry())->error);
}

TEST_F(RawDoorTest, RefusedIoctlsAreToldOnceASecond) {
    auto wrong = inquiry();
    wrong.direction = 3;
    now += std::chrono::hours(1);
    for (unsigned i = 0; i < 5; ++i) EXPECT_EQ(ioctl(wrong)->error, EINVAL);
    EXPECT_EQ(refused.size(), 1u);
    EXPECT_EQ(write("x")->error, EINVAL);
    EXPECT_EQ(refused.size(), 2u);
    now += RawDoor::refusal_pause;
    EXPECT_EQ(ioctl(wrong)->error, EINVAL);
    ASSERT_EQ(refused.size(), 3u);
    EXPECT_NE(refused[2].find("4 refusals before"), std::string::npos) << refused[2];
}

TEST_F(RawDoorTest, WhoeverOnlyReadsHasNothingAborted) {
    const auto aborts = [this](const char* text, unsigned of) {
        sender = of;
        EXPECT_FALSE(write(text)->error);
        sent.back().on_done(good());
        return sent.back().command.aborts;
    };
    EXPECT_FALSE(aborts("00 00 00 00 00 00 timeout=1", 7));
    EXPECT_FALSE(aborts("00 00 00 00 00 00 timeout=1", 0));
    EXPECT_FALSE(aborts("2f 00 00 00 00 00 00 00 08 00 timeout=60", 7));
    EXPECT_TRUE(aborts("2f 00 00 00 00 00 00 00 08 00 timeout=60", 0));
    EXPECT_TRUE(aborts("1b 00 00 00 01 00 timeout=1", 7));
}

TEST_F(RawDoorTest, TheIoctlGivesTheStructureBack) {
    auto raw = inquiry();
    std::memset(raw.data, 0xee, sizeof raw.data);
    const auto caller = ioctl(raw);
    ASSERT_EQ(sent.size(), 1u);
    auto answer = good();
    answer.residual = 1;
    answer.data = {std::byte{1}, std::byte{2}, std::byte{3}};
    answer.outcome.status = scsi::Status::check_condition;
    answer.outcome.sense = {
        .valid = true, .deferred = false, .key = scsi::SenseKey::recovered_error, .asc = 0x0b, .ascq = 1};
    sent[0].on_done(answer);
    ASSERT_EQ(caller->told.size(), sizeof raw);
    std::memcpy(&raw, caller->told.data(), sizeof raw);
    EXPECT_EQ((std::vector<unsigned>{raw.status, raw.residual, raw.has_sense, raw.sense_key, raw.asc, raw.ascq}),
              (std::vector<unsigned>{2, 1, 1, 1, 0x0b, 1}));
    EXPECT_EQ((std::vector<unsigned>{raw.data[0], raw.data[2], raw.data[3], raw.data[SRPFS_RAW_DATA_MAX - 1]}),
              (std::vector<unsigned>{1, 3, 0, 0}));
}

TEST_F(RawDoorTest, AnIoctlThatMakesNoSenseIsRefused) {
    const auto with = [this](auto change) {
        auto raw = inquiry();
        change(raw);
        return ioctl(raw)->error;
    };
    EXPECT_EQ(with([](auto& raw) { raw.cdb_bytes = 17; }), EINVAL);
    EXPECT_EQ(with([](auto& raw) { raw.cdb_bytes = 0; }), EINVAL);
    EXPECT_EQ(with([](auto& raw) { raw.direction = 3; }), EINVAL);
    EXPECT_EQ(with([](auto& raw) { raw.direction = 0; }), EINVAL);
    EXPECT_EQ(with([](auto& raw) { raw.data_bytes = 0; }), EINVAL);
    EXPECT_EQ(with([](auto& raw) { raw.data_bytes = SRPFS_RAW_DATA_MAX + 1; }), EINVAL);
    EXPECT_EQ(with([](auto& raw) { raw.reserved[1] = 1; }), EINVAL);
    EXPECT_EQ(with([](auto& raw) { raw.timeout_ms = UINT32_MAX; }), EINVAL);
    EXPECT_EQ(with([](auto& raw) { raw.timeout_ms = 999; }), EINVAL);
    EXPECT_EQ(with([](auto& raw) { raw.direction = SRPFS_RAW_DATA_OUT; }), EINVAL);
    EXPECT_TRUE(sent.empty());
    auto caller = std::make_shared<Caller>();
    door->ioctl("short", true, 0, caller);
    EXPECT_EQ(caller->error, EINVAL);
}

class RawDoorForReadersTest : public RawDoorTest {
protected:
    static void SetUpTestSuite() { allowed = RawCommands::read; }
    static void TearDownTestSuite() { allowed = RawCommands::all; }
};

TEST_F(RawDoorForReadersTest, SendsWhatChangesNothing) {
    EXPECT_FALSE(write("00 00 00 00 00 00")->error);
    EXPECT_EQ(write("1b 00 00 00 01 00")->error, EPERM);
    EXPECT_EQ(write("c2 00 00 00 00 00")->error, EPERM);
    EXPECT_EQ(sent.size(), 1u);
}

}  // namespace
}  // namespace srpfs::daemon
