// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Units of a scripted target: what they send is seen, what they get back is said by the test, or done by a small disk.

#pragma once

#include "../initiator/scripted_fabric.h"

#include <srpfs/base/random.h>
#include <srpfs/initiator/target_link.h>
#include <srpfs/lun/engine.h>
#include <srpfs/lun/unit.h>

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace srpfs::lun {

using namespace std::chrono_literals;
using scripted::Answer;
using scripted::Bytes;
using scripted::number_at;
using scripted::pattern;
using scripted::Peer;
using scripted::Seen;

// One operation and what became of it.
struct Request final : OperationListener {
    Operation* operation = nullptr;
    unsigned answers = 0;
    Outcome outcome{};
    Bytes data;
    Instant at{};
    reactor::TimerQueue* timers = nullptr;
    std::shared_ptr<const void> to_keep;  // by the operation, if it is answered while in flight
    [[nodiscard]] bool answered() const { return answers > 0; }
    [[nodiscard]] bool ok() const { return answers == 1 && outcome.ok(); }
    void on_answered(Operation& of) override {
        ++answers;
        outcome = of.outcome();
        data.assign(of.data().begin(), of.data().end());
        at = timers->now();
        operation = nullptr;
        if (of.is_in_flight()) of.keep(std::move(to_keep));
        of.release();
    }
};

class LunTest : public scripted::ScriptedTest,
                protected initiator::LinkOwner,
                protected UnitListener,
                protected EngineListener {
protected:
    LunTest() {
        limits.intake_buffers = 8;
        limits.write_buffers_4k = limits.write_buffers_64k = 0;
        limits.read_buffers_4k = 16;
        limits.read_buffers_64k = 8;
        limits.read_buffers_1m = 4;
        limits.edge_buffers = 8;
        limits.operations_max = 1024;
        limits.park_bytes_max = std::size_t{8} << 20;
        info.wwid = "naa.6001405000000001";
        info.blocks = 2304;
    }
    void TearDown() override {
        if (!link) return;
        for (const auto& unit : units) unit->remove();
        for (const auto& peer : fabric.peers) peer->let_go_of_held();
        link->close_channels("the test is over");
        settle();
        EXPECT_TRUE(link->is_empty());
        for (const auto& unit : units) EXPECT_TRUE(unit->is_idle()) << unit->describe_operations();
        for (const auto& request : requests) EXPECT_EQ(request->answers, 1u);
        units.clear();
        const auto usage = engine->usage();
        EXPECT_EQ(usage.operations_in_use + usage.intake_in_use + usage.write_4k_in_use + usage.write_64k_in_use +
                      usage.read_4k_in_use + usage.read_64k_in_use + usage.read_1m_in_use + usage.edges_in_use,
                  0u);
        EXPECT_EQ(usage.parked_bytes, 0u);
        link.reset();
        engine.reset();
    }

    // A link with one live channel, an engine, and unit 0 as `info` says.
    void begin() {
        begin_link();
        add_unit(0);
    }
    void begin_link() {
        engine = std::move(*Engine::create(limits, {&fabric}, executor, random));
        engine->set_listener(this);
        LinkOwner& owner = *this;
        link = std::make_unique<initiator::TargetLink>("test", fabric, timers(), owner);
        fabric.on_command = [this](Seen& seen) {
            if (serving) serve(seen);
            return serving;
        };
        open_channel();
        link->set_state(initiator::PortState::running);
    }
    void open_channel() {
        initiator::ChannelConfig channel;
        channel.name = "test/ch0";
        channel.epoch = ++epoch;
        channel.address = fabric::LoopbackAddress{"test"};
        channel.parameters = parameters;
        link->open_channel(channel);
        settle();
        ASSERT_EQ(fabric.live(), 1u);
    }
    // Takes the place of a channel that was lost beside others; they vouch for it by themselves.
    Peer& open_replacement() {
        initiator::ChannelConfig channel;
        channel.name = "test/ch1";
        channel.index = 1;
        channel.epoch = epoch;
        channel.replacement = true;
        channel.address = fabric::LoopbackAddress{"test"};
        channel.parameters = parameters;
        link->open_channel(channel);
        settle();
        EXPECT_EQ(link->live_channels(), 2u);
        return fabric.last();
    }
    Unit& add_unit(std::uint16_t number) {
        UnitListener& listener = *this;
        units.push_back(std::make_unique<Unit>(*engine, *link, scsi::Lun::from_number(number), queue_depth, listener));
        info.lun = scsi::Lun::from_number(number);
        if (disk.empty()) disk = pattern(std::size_t{info.blocks < 65536 ? info.blocks : 0} * info.block_bytes, 99);
        units.back()->resume(std::make_shared<const UnitInfo>(info));
        return *units.back();
    }
    // The connection breaks, the port is blocked, and somebody logs in again; units are still held.
    void lose_connection() {
        target().end(fabric::EndReason::transport_error, "the cable is pulled");
        link->set_state(initiator::PortState::blocked);
        settle();
    }
    void reconnect() {
        open_channel();
        link->set_state(initiator::PortState::running);
        settle();
    }
    // As after a probe that found what `info` says.
    void resume(Unit& of) {
        UnitInfo fresh = info;
        fresh.lun = of.lun();
        fresh.probed_at = engine->next_stamp();
        of.resume(std::make_shared<const UnitInfo>(fresh));
        settle();
    }
    void resume() { resume(unit()); }

    // A LUN RESET of unit 0 that the target has carried out, and a look that found it again.
    void fence() {
        reset_unit();
        confirm();
    }
    bool confirm() {
        UnitInfo fresh = info;
        fresh.probed_at = engine->next_stamp();
        const bool was_this_unit = unit().confirm_reset(fresh);
        settle();
        return was_this_unit;
    }
    void reset_unit() {
        bool over = false;
        link->reset_unit(unit().lun(), [&over](Result<void> result) { over = result.has_value(); });
        ASSERT_FALSE(target().tasks.empty());
        EXPECT_EQ(target().tasks.back().function, 0x08u);
        target().answer(target().tasks.back(), 0x00);
        settle();
        EXPECT_TRUE(over);
    }

    [[nodiscard]] Unit& unit() { return *units.front(); }
    [[nodiscard]] Peer& target() { return fabric.last(); }

    Request& make_request() {
        requests.push_back(std::make_unique<Request>());
        requests.back()->timers = &timers();
        requests.back()->operation = engine->take();
        EXPECT_NE(requests.back()->operation, nullptr);
        return *requests.back();
    }
    Request& read(std::uint64_t offset, std::uint32_t bytes) { return read(unit(), offset, bytes); }
    Request& read(Unit& of, std::uint64_t offset, std::uint32_t bytes) {
        Request& request = make_request();
        request.operation->prepare_read(of, offset, bytes, request);
        of.start(*request.operation);
        settle();
        return request;
    }
    Request& write(std::uint64_t offset, const Bytes& payload, Durability durability = Durability::cached) {
        return write(unit(), offset, payload, durability);
    }
    Request& write(Unit& of, std::uint64_t offset, const Bytes& payload, Durability durability = Durability::cached) {
        Request& request = make_request();
        std::memcpy(engine->intake().data() + intake_header_bytes, payload.data(), payload.size());
        EXPECT_TRUE(engine->take_over_intake(*request.operation, of, static_cast<std::uint32_t>(payload.size())));
        // What is read into the buffer next must not show.
        std::memset(engine->intake().data(), 0xdd, 16384);
        request.operation->prepare_write(of, offset, durability, request);
        of.start(*request.operation);
        settle();
        return request;
    }
    Request& flush() { return flush(losses_seen); }
    Request& flush(std::atomic<std::uint64_t>& seen) {
        Request& request = make_request();
        request.operation->prepare_flush(unit(), request, &seen);
        unit().start(*request.operation);
        settle();
        return request;
    }
    Request& raw(const scsi::Cdb& cdb, std::uint32_t bytes) {
        Request& request = make_request();
        request.operation->prepare_raw(unit(), cdb, bytes, request);
        unit().start(*request.operation);
        settle();
        return request;
    }
    void interrupt(Request& request) {
        ASSERT_NE(request.operation, nullptr);
        request.operation->unit().interrupt(*request.operation);
        settle();
    }

    // Commands sent so far.
    [[nodiscard]] std::deque<Seen>& sent() { return target().commands; }
    [[nodiscard]] std::vector<Seen*> open() { return target().open_commands(); }
    void answer(Seen& seen, const Answer& with = {}) {
        seen.peer->answer(seen, with);
        settle();
    }
    // Does what a disk does.
    void serve(Seen& seen) {
        if (seen.is_read() || seen.is_write()) {
            const std::size_t at = seen.lba() * info.block_bytes, bytes = seen.blocks() * info.block_bytes;
            ASSERT_LE(at + bytes, disk.size());
            if (seen.is_read()) {
                ASSERT_EQ(seen.length, bytes);
                std::memcpy(seen.memory().data(), disk.data() + at, bytes);
            } else {
                const Bytes payload = seen.payload();
                ASSERT_EQ(payload.size(), bytes);
                std::memcpy(disk.data() + at, payload.data(), bytes);
            }
        }
        if (seen.opcode() == 0x93 || seen.opcode() == 0x41) {
            ASSERT_EQ(seen.payload().size(), info.block_bytes);
            for (std::uint64_t i = 0; i < seen.blocks(); ++i)
                std::memcpy(disk.data() + (seen.lba() + i) * info.block_bytes, seen.payload().data(), info.block_bytes);
        }
        seen.peer->answer(seen);
    }
    void serve_one(Seen& seen) {
        serve(seen);
        settle();
    }
    // Everything that is open, and what follows from it.
    void serve_all() {
        serving = true;
        for (Seen* seen : open()) serve(*seen);
        settle();
        serving = false;
    }
    [[nodiscard]] Bytes disk_at(std::size_t offset, std::size_t bytes) const {
        return {disk.begin() + static_cast<std::ptrdiff_t>(offset),
                disk.begin() + static_cast<std::ptrdiff_t>(offset + bytes)};
    }

    void on_channel_live(unsigned, std::uint64_t, const initiator::ChannelFacts&) override {}
    void on_channel_ended(unsigned, std::uint64_t, const initiator::ChannelEnd&) override {}
    void on_link_empty() override {}
    void on_attention(Unit&, const scsi::Sense& sense, bool hold) override { attentions.push_back({sense, hold}); }
    void on_fence_needed(Unit&) override { ++fences_needed; }
    void on_reset(Unit&) override { ++resets; }
    void on_failure(Unit&, const Operation&) override { ++failures; }
    void on_parking_exhausted(Unit& of, unsigned operations) override { shed.push_back({&of, operations}); }

    struct Attention {
        scsi::Sense sense;
        bool hold;
    };

    EngineLimits limits;
    std::atomic<std::uint64_t> losses_seen{0};  // of the only one who flushes, unless a test has more
    srp::LoginParameters parameters;
    UnitInfo info;
    unsigned queue_depth = 62;
    Random random{1};
    std::unique_ptr<Engine> engine;
    std::unique_ptr<initiator::TargetLink> link;
    std::deque<std::unique_ptr<Unit>> units;
    std::deque<std::unique_ptr<Request>> requests;
    Bytes disk;
    bool serving = false;  // the disk answers by itself
    std::vector<Attention> attentions;
    std::vector<std::pair<Unit*, unsigned>> shed;
    unsigned fences_needed = 0, failures = 0, resets = 0;
    std::uint64_t epoch = 0;
};

}  // namespace srpfs::lun
