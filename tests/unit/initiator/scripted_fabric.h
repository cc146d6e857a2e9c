// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A network whose other end is the test: it records what is sent and says what it is told to. For what no target does
// by itself: wrong bytes, answers at a chosen moment, silence. Bytes are laid out here as srp-wire and T10 SRP say, not
// with the product's encoders. One thread, time by hand.

#pragma once

#include "manual_executor.h"

#include <srpfs/base/log.h>
#include <srpfs/fabric/fabric.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace srpfs::scripted {

using namespace std::chrono_literals;

using Bytes = std::vector<std::byte>;

inline Bytes bytes_of(std::initializer_list<unsigned> values) {
    Bytes bytes;
    for (const unsigned value : values) bytes.push_back(static_cast<std::byte>(value));
    return bytes;
}

inline Bytes pattern(std::size_t size, unsigned seed) {
    Bytes bytes(size);
    for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>((i * 7 + seed * 31 + i / 256) & 0xff);
    return bytes;
}

// Big-endian, as everything in SRP and SCSI.
inline void put(Bytes& bytes, std::size_t offset, std::size_t width, std::uint64_t value) {
    for (std::size_t i = 0; i < width && offset + i < bytes.size(); ++i)
        bytes[offset + i] = static_cast<std::byte>(value >> (8 * (width - 1 - i)) & 0xff);
}
inline std::uint64_t number_at(std::span<const std::byte> bytes, std::size_t offset, std::size_t width) {
    std::uint64_t value = 0;
    for (std::size_t i = offset; i < offset + width; ++i)
        value = value << 8 | (i < bytes.size() ? static_cast<std::uint64_t>(bytes[i]) : 0);
    return value;
}

// ---- what a target says ----

struct LoginAnswer {
    std::int32_t credits = 64;
    std::uint32_t it_iu_bytes = 8276;
    std::uint32_t ti_iu_bytes = 8260;
    unsigned formats = 6;
    unsigned flags = 0x80;  // immediate data
};
inline Bytes login_response(const LoginAnswer& answer) {
    Bytes bytes(52);
    put(bytes, 0, 1, 0xc0);
    put(bytes, 4, 4, static_cast<std::uint32_t>(answer.credits));
    put(bytes, 16, 4, answer.it_iu_bytes);
    put(bytes, 20, 4, answer.ti_iu_bytes);
    put(bytes, 24, 2, answer.formats);
    put(bytes, 26, 1, answer.flags);
    return bytes;
}
inline Bytes login_reject(std::uint32_t reason) {
    Bytes bytes(32);
    put(bytes, 0, 1, 0xc2);
    put(bytes, 4, 4, reason);
    put(bytes, 24, 2, 6);
    return bytes;
}

inline Bytes fixed_sense(unsigned key, unsigned asc, unsigned ascq, unsigned response_code = 0x70) {
    Bytes bytes(18);
    put(bytes, 0, 1, response_code);
    put(bytes, 2, 1, key);
    put(bytes, 7, 1, 10);
    put(bytes, 12, 1, asc);
    put(bytes, 13, 1, ascq);
    return bytes;
}

struct Answer {
    unsigned status = 0;
    std::int32_t delta = 1;
    Bytes sense{};
    std::optional<std::uint32_t> out_under{}, out_over{}, in_under{}, in_over{};
    std::optional<unsigned> task_code{};
};
inline Answer check_condition(unsigned key, unsigned asc, unsigned ascq) {
    return {.status = 0x02, .sense = fixed_sense(key, asc, ascq)};
}
inline Bytes response(std::uint64_t tag, const Answer& answer) {
    Bytes bytes(answer.task_code ? 40 : 36);
    put(bytes, 0, 1, 0xc1);
    put(bytes, 4, 4, static_cast<std::uint32_t>(answer.delta));
    put(bytes, 8, 8, tag);
    const unsigned flags = (answer.task_code ? 0x01U : 0U) | (answer.sense.empty() ? 0U : 0x02U) |
                           (answer.out_over ? 0x04U : 0U) | (answer.out_under ? 0x08U : 0U) |
                           (answer.in_over ? 0x10U : 0U) | (answer.in_under ? 0x20U : 0U);
    put(bytes, 18, 1, flags);
    put(bytes, 19, 1, answer.status);
    put(bytes, 20, 4, answer.out_under.value_or(answer.out_over.value_or(0)));
    put(bytes, 24, 4, answer.in_under.value_or(answer.in_over.value_or(0)));
    put(bytes, 28, 4, answer.sense.size());
    if (answer.task_code) {
        put(bytes, 32, 4, 4);
        put(bytes, 36, 4, *answer.task_code);
    }
    for (const std::byte one : answer.sense) bytes.push_back(one);
    return bytes;
}
inline Bytes credit_request(std::int32_t delta, std::uint64_t tag) {
    Bytes bytes(16);
    put(bytes, 0, 1, 0x81);
    put(bytes, 4, 4, static_cast<std::uint32_t>(delta));
    put(bytes, 8, 8, tag);
    return bytes;
}
inline Bytes async_event(std::int32_t delta, std::uint64_t tag, std::uint64_t lun, const Bytes& sense) {
    Bytes bytes(36);
    put(bytes, 0, 1, 0x82);
    put(bytes, 4, 4, static_cast<std::uint32_t>(delta));
    put(bytes, 8, 8, tag);
    put(bytes, 20, 8, lun);
    put(bytes, 28, 4, sense.size());
    for (const std::byte one : sense) bytes.push_back(one);
    return bytes;
}
inline Bytes target_logout(std::uint32_t reason) {
    Bytes bytes(16);
    put(bytes, 0, 1, 0x80);
    put(bytes, 4, 4, reason);
    return bytes;
}

// ---- what it gets ----

class Peer;

// An SRP_CMD as received.
struct Seen {
    Peer* peer = nullptr;
    Bytes raw;
    std::uint64_t tag = 0, lun = 0;
    Bytes cdb;            // 16 bytes
    unsigned format = 0;  // byte 5: data-out in the high nibble, data-in in the low one
    std::uint64_t address = 0;
    std::uint32_t key = 0, length = 0;  // of the direct descriptor
    Bytes immediate;
    bool answered = false;

    [[nodiscard]] unsigned opcode() const { return static_cast<unsigned>(cdb[0]); }
    [[nodiscard]] bool is_read() const { return opcode() == 0x28 || opcode() == 0x88; }
    [[nodiscard]] bool is_write() const { return opcode() == 0x2a || opcode() == 0x8a; }
    [[nodiscard]] bool is_flush() const { return opcode() == 0x35 || opcode() == 0x91; }
    // Of READ, WRITE and SYNCHRONIZE CACHE, (10) and (16).
    [[nodiscard]] std::uint64_t lba() const { return opcode() >= 0x80 ? number_at(cdb, 2, 8) : number_at(cdb, 2, 4); }
    [[nodiscard]] std::uint64_t blocks() const {
        return opcode() >= 0x80 ? number_at(cdb, 10, 4) : number_at(cdb, 7, 2);
    }
    [[nodiscard]] bool has_fua() const { return (static_cast<unsigned>(cdb[1]) & 0x08) != 0; }
    // What the descriptor refers to: the test runs in the initiator's address space.
    [[nodiscard]] std::span<std::byte> memory() const {
        return {reinterpret_cast<std::byte*>(static_cast<std::uintptr_t>(address)), length};
    }
    // What a write brings.
    [[nodiscard]] Bytes payload() const {
        if (!immediate.empty()) return immediate;
        return {memory().begin(), memory().end()};
    }
};

// A TSK_MGMT as received.
struct SeenTask {
    Peer* peer = nullptr;
    std::uint64_t tag = 0, lun = 0, managed_tag = 0;
    unsigned function = 0;
};

class ScriptedFabric;

// The far end of one connection.
class Peer final : public fabric::Connection {
public:
    Peer(ScriptedFabric& fabric, fabric::Address address_, const fabric::ConnectionLimits& limits_,
         fabric::ConnectionHandler& handler)
        : address(std::move(address_)), limits(limits_), fabric_(fabric), handler_(handler) {}

    // What was asked for and sent. `commands` grows; references stay good.
    fabric::Address address;
    fabric::ConnectionLimits limits;
    Bytes login;  // private data of the connect request; empty until the route is known
    fabric::ReceiveRing ring;
    std::deque<Seen> commands;
    std::deque<SeenTask> tasks;
    std::deque<Bytes> others;
    unsigned idle_probes = 0;  // TEST UNIT READYs that were answered by themselves
    bool is_asked = false;     // the connect request has arrived
    bool is_live = false;
    bool is_leaving = false;  // the initiator has called disconnect()
    bool is_ended = false, is_gone = false;

    // A test that wants to answer TEST UNIT READY itself; else GOOD is answered, and it is not in `commands`.
    bool keeps_test_unit_ready = false;
    bool holds_gone = false;     // until let_go()
    bool refuses_sends = false;  // send() answers false, as a full queue does

    // All of these take effect in the next turn.
    void accept(const LoginAnswer& answer = {}) { accept_with(login_response(answer)); }
    void accept_with(Bytes private_data);
    void reject(int cm_reason, Bytes private_data = {});
    void end(fabric::EndReason reason, std::string text = "the test says so", int errno_value = 0);
    void say(Bytes message);
    void answer(Seen& command, const Answer& answer = {}) {
        EXPECT_FALSE(command.answered) << "the test answers a command twice";
        command.answered = true;
        say(response(command.tag, answer));
    }
    void answer(const SeenTask& task, unsigned code) { say(response(task.tag, {.task_code = code})); }
    void let_go();
    void let_go_of_held() {
        if (std::exchange(holds_gone, false) && is_ended) let_go();
    }
    [[nodiscard]] std::vector<Seen*> open_commands() {
        std::vector<Seen*> open;
        for (Seen& seen : commands)
            if (!seen.answered) open.push_back(&seen);
        return open;
    }

    // ---- fabric::Connection ----
    bool send(std::span<const std::byte> head, std::span<const std::byte> payload) override;
    std::optional<fabric::RemoteBuffer> describe(fabric::RegionId region,
                                                 std::span<const std::byte> bytes) const override;
    bool rdma_write(fabric::RegionId, std::span<const std::byte>, const fabric::RemoteBuffer&, std::uint64_t) override {
        return false;
    }
    bool rdma_read(fabric::RegionId, std::span<std::byte>, const fabric::RemoteBuffer&, std::uint64_t) override {
        return false;
    }
    void disconnect() override;

private:
    friend class ScriptedFabric;
    void start();
    void finish(const fabric::End& end);

    ScriptedFabric& fabric_;
    fabric::ConnectionHandler& handler_;
};

class ScriptedFabric final : public fabric::Fabric {
public:
    ~ScriptedFabric() override {
        for (const auto& peer : peers) EXPECT_TRUE(peer->is_gone) << "a connection is left";
    }

    std::deque<std::unique_ptr<Peer>> peers;  // every connection there ever was, in the order they were begun
    LoginAnswer login{};                      // how logins are answered
    // What happens to a connect request; by default it is accepted with `login`.
    std::function<void(Peer&)> on_connect = [this](Peer& peer) { peer.accept(login); };
    // Sees each command; true: it has dealt with it (which need not mean that it has answered).
    std::function<bool(Seen&)> on_command;
    std::optional<Error> connect_error;  // connect() fails at once
    fabric::LocalPort port{
        .device = "test0", .port = 1, .guid = 0x0002c903000e8acd, .node_guid = 0x0002c903000e8acc, .active = true};

    [[nodiscard]] Peer& last() { return *peers.back(); }
    [[nodiscard]] std::size_t live() const {
        return static_cast<std::size_t>(std::count_if(
            peers.begin(), peers.end(), [](const auto& peer) { return peer->is_live && !peer->is_ended; }));
    }
    void later(std::function<void()> event) { events_.push_back(std::move(event)); }

    // ---- fabric::Fabric ----
    std::vector<fabric::LocalPort> local_ports() override { return {port}; }
    Result<fabric::RegionId> register_memory(std::span<std::byte> memory, fabric::RemoteAccess access) override {
        regions_.push_back({memory, access});
        return static_cast<fabric::RegionId>(regions_.size() - 1);
    }
    void unregister_memory(fabric::RegionId) override {}
    Result<fabric::Connection*> connect(const fabric::Address& address, const fabric::ConnectionLimits& limits,
                                        fabric::ConnectionHandler& handler) override {
        if (connect_error) return *connect_error;
        peers.push_back(std::make_unique<Peer>(*this, address, limits, handler));
        Peer* peer = peers.back().get();
        later([peer] { peer->start(); });
        return static_cast<fabric::Connection*>(peer);
    }
    Result<std::unique_ptr<fabric::Listener>> listen(const fabric::Address&, fabric::ListenHandler&) override {
        return Error(ENOTSUP, "nobody listens here");
    }
    unsigned poll(unsigned) override {
        std::deque<std::function<void()>> now;
        now.swap(events_);
        for (auto& event : now) event();
        return static_cast<unsigned>(now.size());
    }
    void flush() override {}
    bool arm() override { return events_.empty(); }
    void sleep_on(std::vector<int>&) override {}

private:
    friend class Peer;
    struct Region {
        std::span<std::byte> memory;
        fabric::RemoteAccess access;
    };
    std::vector<Region> regions_;
    std::deque<std::function<void()>> events_;
};

inline void Peer::start() {
    if (is_ended) return;
    const auto data = handler_.on_route(fabric_.port);
    login.assign(data.begin(), data.end());
    if (login.empty()) return finish({.reason = fabric::EndReason::refused_locally});
    if (is_leaving) return;
    is_asked = true;
    fabric_.on_connect(*this);
}

inline void Peer::accept_with(Bytes private_data) {
    fabric_.later([this, data = std::move(private_data)] {
        if (is_ended) return;
        const auto wanted = handler_.on_reply(data);
        if (!wanted) return finish({.reason = fabric::EndReason::refused_locally});
        ring = *wanted;
        if (is_ended || is_leaving) return;
        is_live = true;
        handler_.on_established();
    });
}

inline void Peer::reject(int cm_reason, Bytes private_data) {
    fabric_.later([this, cm_reason, data = std::move(private_data)] {
        fabric::End end;
        end.reason = fabric::EndReason::rejected;
        end.errno_value = ECONNREFUSED;
        end.cm_reason = cm_reason;
        end.private_data = data;
        end.text = "rejected";
        finish(end);
    });
}

inline void Peer::end(fabric::EndReason reason, std::string text, int errno_value) {
    fabric_.later([this, reason, text = std::move(text), errno_value] {
        fabric::End end;
        end.reason = reason;
        end.errno_value = errno_value;
        end.text = text;
        finish(end);
    });
}

inline void Peer::finish(const fabric::End& end) {
    if (std::exchange(is_ended, true)) return;
    is_live = false;
    handler_.on_ended(end);
    if (!holds_gone) let_go();
}

inline void Peer::let_go() {
    holds_gone = false;
    fabric_.later([this] {
        if (!std::exchange(is_gone, true)) handler_.on_gone();
    });
}

inline void Peer::say(Bytes message) {
    fabric_.later([this, message = std::move(message)] {
        if (is_live) handler_.on_received(message);
    });
}

inline void Peer::disconnect() {
    if (std::exchange(is_leaving, true) || is_ended) return;
    end(fabric::EndReason::closed, "closed");
}

inline bool Peer::send(std::span<const std::byte> head, std::span<const std::byte> payload) {
    const std::size_t bytes = head.size() + payload.size();
    if (!is_live || is_leaving || refuses_sends || bytes > limits.message_bytes_max) return false;
    Bytes message(head.begin(), head.end());
    message.insert(message.end(), payload.begin(), payload.end());
    if (number_at(message, 0, 1) == 0x01) {
        tasks.push_back({this, number_at(message, 8, 8), number_at(message, 20, 8), number_at(message, 32, 8),
                         static_cast<unsigned>(number_at(message, 30, 1))});
        return true;
    }
    if (number_at(message, 0, 1) != 0x02) {
        others.push_back(std::move(message));
        return true;
    }
    Seen seen;
    seen.peer = this;
    seen.tag = number_at(message, 8, 8);
    seen.lun = number_at(message, 20, 8);
    seen.format = static_cast<unsigned>(number_at(message, 5, 1));
    seen.cdb.assign(message.begin() + 32, message.begin() + 48);
    if (seen.format == 0x10 || seen.format == 0x01) {
        seen.address = number_at(message, 48, 8);
        seen.key = static_cast<std::uint32_t>(number_at(message, 56, 4));
        seen.length = static_cast<std::uint32_t>(number_at(message, 60, 4));
    } else if (seen.format == 0x30) {
        const auto count = number_at(message, 48, 4);
        EXPECT_EQ(message.size(), 68 + count);
        seen.immediate.assign(message.begin() + 68, message.end());
    }
    seen.raw = std::move(message);
    if (seen.opcode() == 0x00 && !keeps_test_unit_ready) {
        ++idle_probes;
        say(response(seen.tag, {}));
        return true;
    }
    commands.push_back(std::move(seen));
    Seen& kept = commands.back();
    if (fabric_.on_command)
        fabric_.later([this, &kept] {
            if (is_live && !kept.answered && fabric_.on_command) fabric_.on_command(kept);
        });
    return true;
}

inline std::optional<fabric::RemoteBuffer> Peer::describe(fabric::RegionId region,
                                                          std::span<const std::byte> bytes) const {
    const auto index = static_cast<std::size_t>(region);
    if (index >= fabric_.regions_.size()) return std::nullopt;
    const std::span<std::byte> memory = fabric_.regions_[index].memory;
    if (bytes.data() < memory.data() || bytes.data() + bytes.size() > memory.data() + memory.size())
        return std::nullopt;
    return fabric::RemoteBuffer{reinterpret_cast<std::uintptr_t>(bytes.data()), static_cast<std::uint32_t>(index + 1),
                                static_cast<std::uint32_t>(bytes.size())};
}

// An executor and a network with the clock in the test's hand.
class ScriptedTest : public testing::Test {
public:
    ScriptedTest() { log::configure(log::Destination::none, log::Level::error); }

    [[nodiscard]] reactor::TimerQueue& timers() { return executor.timers(); }
    [[nodiscard]] Instant now() { return timers().now(); }

    // Until nothing more happens by itself at this instant.
    void settle() {
        for (unsigned turns = 0;; ++turns) {
            ASSERT_LT(turns, 100000u) << "something goes on for ever without time passing";
            bool busy = executor.run();
            busy = fabric.poll(64) > 0 || busy;
            if (timers().next_deadline() <= now()) {
                timers().advance_to(now());
                busy = true;
            }
            if (!busy) return;
        }
    }
    // Lets everything happen that is due in the meantime, each at its instant.
    void advance(Duration duration) {
        const Instant end = now() + duration;
        settle();
        while (timers().next_deadline() <= end) {
            timers().advance_to(timers().next_deadline());
            settle();
        }
        timers().advance_to(end);
        settle();
    }
    // False: it has not come true within `limit` of virtual time.
    bool advance_until(const std::function<bool()>& done, Duration limit) {
        const Instant end = now() + limit;
        settle();
        while (!done()) {
            const Instant next = timers().next_deadline();
            if (next > end) {
                timers().advance_to(end);
                settle();
                return done();
            }
            timers().advance_to(next);
            settle();
        }
        return true;
    }

    test::ManualExecutor executor;
    ScriptedFabric fabric;
};

}  // namespace srpfs::scripted
