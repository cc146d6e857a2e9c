// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// One channel against a scripted target.

#pragma once

#include "scripted_fabric.h"

#include <srpfs/initiator/channel.h>

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace srpfs::initiator {

using namespace std::chrono_literals;
using scripted::Bytes;
using scripted::bytes_of;
using scripted::number_at;
using scripted::Peer;
using scripted::Seen;

struct Owner final : CommandOwner {
    unsigned ends = 0;
    CommandResult result{};
    std::function<void()> then;
    void on_command_done(Command& command) override {
        ++ends;
        result = command.result;
        if (then) then();
    }
};

// A command with its owner, its memory and what became of it.
struct Asked {
    Command command;
    Owner owner;
    Bytes data;
};

class ChannelTest : public scripted::ScriptedTest, protected ChannelListener {
protected:
    ChannelTest() : memory_(1 << 20) {
        region_ = *fabric.register_memory(memory_, fabric::RemoteAccess::write);
        config.name = "test/ch0";
        config.address = fabric::LoopbackAddress{"test"};
        config.parameters.id_ext = 0x1111222233334444;
        config.parameters.ioc_guid = 0x5555666677778888;
    }
    void TearDown() override {
        if (channel) {
            for (const auto& peer : fabric.peers) peer->let_go_of_held();
            channel->disconnect("the test is over");
            settle();
            if (channel->state() != ChannelState::idle) {
                EXPECT_TRUE(channel->is_gone());
            }
            for (const auto& one : asked) EXPECT_EQ(one->owner.ends, one->command.owner ? 1u : 0u);
        }
    }

    void connect() {
        ChannelListener& listener = *this;
        channel = std::make_unique<Channel>(fabric, timers(), config, listener);
        channel->connect();
        settle();
    }
    // A live channel; the target at its other end.
    Peer& connect_live() {
        connect();
        EXPECT_EQ(channel->state(), ChannelState::live);
        return fabric.last();
    }
    // A login that fails; why.
    ChannelEnd connect_in_vain() {
        connect();
        EXPECT_EQ(lives, 0u);
        EXPECT_EQ(ends.size(), 1u);
        EXPECT_EQ(gone, 1u);
        EXPECT_EQ(channel->state(), ChannelState::dead);
        return ends.empty() ? ChannelEnd{} : ends[0];
    }

    Asked& prepare(std::uint32_t bytes = 0, srp::DataDirection direction = srp::DataDirection::none) {
        asked.push_back(std::make_unique<Asked>());
        Asked& one = *asked.back();
        one.command.cdb.length = 10;
        one.command.cdb.bytes[0] = std::byte{0x28};
        one.command.direction = direction;
        one.command.region = region_;
        one.command.data = std::span(memory_).first(bytes);
        return one;
    }
    bool submit(Asked& one) {
        if (!channel->submit(one.command)) return false;
        one.command.owner = &one.owner;
        return true;
    }
    // One that is taken.
    Asked& send(std::uint32_t bytes = 0, srp::DataDirection direction = srp::DataDirection::none) {
        Asked& one = prepare(bytes, direction);
        EXPECT_TRUE(submit(one));
        return one;
    }

    void on_channel_live(Channel&) override { ++lives; }
    void on_channel_ended(Channel&, const ChannelEnd& end) override { ends.push_back(end); }
    void on_channel_gone(Channel&) override { ++gone; }
    void on_channel_room(Channel&) override {
        ++rooms;
        if (when_room) when_room();
    }
    void on_commands_expired(Channel&) override { ++expiries; }
    void on_async_event(Channel&, const scsi::Lun& lun, const scsi::Sense& sense) override {
        events.emplace_back(lun, sense);
    }

    ChannelConfig config;
    std::unique_ptr<Channel> channel;
    unsigned lives = 0, gone = 0, rooms = 0, expiries = 0;
    std::function<void()> when_room;
    std::vector<ChannelEnd> ends;
    std::vector<std::pair<scsi::Lun, scsi::Sense>> events;
    std::vector<std::unique_ptr<Asked>> asked;

private:
    std::vector<std::byte> memory_;
    fabric::RegionId region_{};
};

}  // namespace srpfs::initiator
