// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A small initiator that writes its information units by hand, and a world with one target, for tests of the target.
// Bytes are laid out here as srp-wire and T10 SRP say, not with the product's encoders.

#pragma once

#include "manual_executor.h"

#include <srpfs/base/bytes.h>
#include <srpfs/fabric/loopback.h>
#include <srpfs/target/device.h>
#include <srpfs/target/portal.h>

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace srpfs::target {

using namespace std::chrono_literals;

using Bytes = std::vector<std::byte>;

inline Bytes bytes_of(std::initializer_list<int> values) {
    Bytes bytes;
    for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
    return bytes;
}

inline Bytes pattern(std::size_t size, unsigned seed) {
    Bytes bytes(size);
    for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>((i * 7 + seed * 31 + i / 256) & 0xff);
    return bytes;
}

// Big-endian; bytes beyond the end are left out.
inline std::uint64_t number_at(const Bytes& bytes, std::size_t offset, std::size_t width) {
    std::uint64_t value = 0;
    for (std::size_t i = offset; i < offset + width && i < bytes.size(); ++i)
        value = value << 8 | static_cast<std::uint64_t>(bytes[i]);
    return value;
}

// SRP_RSP as received, taken apart by offset.
struct Rsp {
    Bytes raw;
    std::uint64_t tag = 0;
    std::int32_t delta = 0;
    int flags = 0, status = 0;
    std::uint32_t out_residual = 0, in_residual = 0, sense_length = 0, data_length = 0;
    int key = -1, asc = -1, ascq = -1;  // fixed format sense
    int task_code = -1;
};

inline Rsp parse_rsp(std::span<const std::byte> raw) {
    Rsp rsp;
    rsp.raw.assign(raw.begin(), raw.end());
    const auto byte = [&raw](std::size_t i) { return i < raw.size() ? static_cast<int>(raw[i]) : -1; };
    const auto word = [&byte](std::size_t i) {
        std::uint32_t value = 0;
        for (std::size_t k = 0; k < 4; ++k) value = value << 8 | static_cast<std::uint32_t>(byte(i + k) & 0xff);
        return value;
    };
    rsp.delta = static_cast<std::int32_t>(word(4));
    rsp.tag = static_cast<std::uint64_t>(word(8)) << 32 | word(12);
    rsp.flags = byte(18);
    rsp.status = byte(19);
    rsp.out_residual = word(20);
    rsp.in_residual = word(24);
    rsp.sense_length = word(28);
    rsp.data_length = word(32);
    const std::size_t sense = 36 + ((rsp.flags & 1) ? rsp.data_length : 0);
    if ((rsp.flags & 1) && rsp.data_length >= 4) rsp.task_code = byte(39);
    if (rsp.flags & 2) {
        rsp.key = byte(sense + 2) & 0xf;
        rsp.asc = byte(sense + 12);
        rsp.ascq = byte(sense + 13);
    }
    return rsp;
}

constexpr int check_condition = 0x02;

// One channel.
class TestInitiator final : public fabric::ConnectionHandler {
public:
    struct Login {
        std::uint64_t tag = 0x1122334455667788;
        std::uint32_t iu_bytes = 8260;
        int formats = 6;
        int action = 0;
        bool immediate = true;
        std::uint16_t immediate_offset = 68;
        std::uint64_t initiator_ext = 0, guid = 0xabcdef;
        std::uint64_t id_ext = 1, ioc_guid = 1;
        bool native = false;  // the 64-byte form
    };
    enum class Data { none, in, out, out_immediate };

    static constexpr std::size_t buffer_bytes = 9 << 20;

    TestInitiator(fabric::Fabric& fabric, const fabric::Address& address, const Login& login)
        : in_(zeroed()), out_(zeroed()) {
        in_region_ = *fabric.register_memory(in(), fabric::RemoteAccess::write);
        out_region_ = *fabric.register_memory(out(), fabric::RemoteAccess::read);
        encode(login);
        connection_ = *fabric.connect(address, {.sends_max = 4096, .message_bytes_max = 16384}, *this);
    }
    TestInitiator(const TestInitiator&) = delete;
    TestInitiator& operator=(const TestInitiator&) = delete;

    [[nodiscard]] bool is_live() const { return established_ && !ended; }
    [[nodiscard]] std::span<std::byte> in() { return {in_.get(), buffer_bytes}; }
    [[nodiscard]] std::span<std::byte> out() { return {out_.get(), buffer_bytes}; }
    void disconnect() { connection_->disconnect(); }

    // Sends a unit as it is.
    bool send(std::span<const std::byte> unit) { return connection_->send(unit, {}); }

    fabric::RemoteBuffer describe_in(std::size_t offset, std::size_t bytes) {
        return *connection_->describe(in_region_, in().subspan(offset, bytes));
    }
    fabric::RemoteBuffer describe_out(std::size_t offset, std::size_t bytes) {
        return *connection_->describe(out_region_, out().subspan(offset, bytes));
    }

    struct Piece {
        std::size_t offset, bytes;
    };
    // SRP_CMD. One piece: direct descriptor; more: indirect.
    Bytes command(std::uint64_t tag, unsigned lun, const Bytes& cdb, Data data, std::vector<Piece> pieces = {},
                  int lun_method = 0) {
        Bytes unit(48);
        ByteWriter head(unit);
        const bool is_in = data == Data::in;
        const int format = pieces.size() > 1 ? 2 : 1;
        head.u8(0x02).zeros(4);
        head.u8(static_cast<std::uint8_t>(data == Data::none            ? 0
                                          : data == Data::out_immediate ? 0x30
                                          : is_in                       ? format
                                                                        : format << 4));
        const auto count = static_cast<std::uint8_t>(pieces.size() > 1 ? pieces.size() : 0);
        head.u8(is_in ? 0 : count).u8(is_in ? count : 0);
        head.u64(tag).zeros(4);
        head.u16(static_cast<std::uint16_t>(lun | static_cast<unsigned>(lun_method) << 14)).zeros(6);
        head.zeros(4).bytes(cdb);
        if (data == Data::none) return unit;
        if (data == Data::out_immediate) {
            Bytes payload(68 - 48 + pieces.at(0).bytes);
            ByteWriter(payload).u32(static_cast<std::uint32_t>(pieces[0].bytes));
            std::copy_n(out().begin() + static_cast<std::ptrdiff_t>(pieces[0].offset), pieces[0].bytes,
                        payload.begin() + 20);
            unit.insert(unit.end(), payload.begin(), payload.end());
            return unit;
        }
        Bytes table(20 + 16 * pieces.size());
        ByteWriter descriptors(table);
        if (pieces.size() > 1) {
            std::uint32_t total = 0;
            for (const auto& piece : pieces) total += static_cast<std::uint32_t>(piece.bytes);
            descriptors.u64(0x1000).u32(0).u32(static_cast<std::uint32_t>(16 * pieces.size())).u32(total);
        }
        for (const auto& piece : pieces) {
            const auto remote =
                is_in ? describe_in(piece.offset, piece.bytes) : describe_out(piece.offset, piece.bytes);
            descriptors.u64(remote.address).u32(remote.key).u32(remote.length);
        }
        unit.insert(unit.end(), table.begin(), table.begin() + static_cast<std::ptrdiff_t>(descriptors.position()));
        return unit;
    }
    Bytes task_management(std::uint64_t tag, unsigned lun, int function, std::uint64_t managed) {
        Bytes unit(48);
        ByteWriter out(unit);
        out.u8(0x01).zeros(7).u64(tag).zeros(4).u16(static_cast<std::uint16_t>(lun)).zeros(6);
        out.zeros(2).u8(static_cast<std::uint8_t>(function)).zeros(1).u64(managed);
        return unit;
    }

    // Everything received that was not an RSP, and the RSPs, in order.
    std::vector<Bytes> others;
    std::vector<Rsp> responses;
    [[nodiscard]] std::optional<Rsp> response(std::uint64_t tag) const {
        for (const auto& one : responses)
            if (one.tag == tag) return one;
        return std::nullopt;
    }

    // The same when it has to be there; status -1 when it is not, and a failed test.
    [[nodiscard]] Rsp answer(std::uint64_t tag) const {
        const auto found = response(tag);
        EXPECT_TRUE(found.has_value()) << "no response to tag " << tag;
        return found.value_or(Rsp{.status = -1});
    }

    Bytes reply;  // LOGIN_RSP as the connection manager delivered it
    std::optional<fabric::End> end;
    Bytes reject;  // LOGIN_REJ, ditto
    bool ended = false, gone = false;
    std::int64_t credits = 0;  // LOGIN_RSP and deltas, less nothing

private:
    void encode(const Login& login) {
        login_.resize(login.native ? 64 : 56);
        ByteWriter out(login_);
        const auto flags = static_cast<std::uint8_t>(login.action | (login.immediate ? 0x80 : 0));
        if (login.native) {
            out.u8(0)
                .zeros(7)
                .u64(login.tag)
                .u32(login.iu_bytes)
                .zeros(4)
                .u16(static_cast<std::uint16_t>(login.formats));
            out.u8(flags).zeros(1).u16(login.immediate ? login.immediate_offset : std::uint16_t{0}).zeros(2);
            out.u64(login.initiator_ext).u64(login.guid).u64(login.id_ext).u64(login.ioc_guid);
            return;
        }
        out.u64(login.tag).u16(static_cast<std::uint16_t>(login.formats)).u8(flags).u8(0).u32(login.iu_bytes);
        out.u64(login.initiator_ext).u64(login.guid).u64(login.id_ext).u64(login.ioc_guid);
        out.u16(login.immediate ? login.immediate_offset : std::uint16_t{0});
    }

    std::span<const std::byte> on_route(const fabric::LocalPort&) override { return login_; }
    std::optional<fabric::ReceiveRing> on_reply(std::span<const std::byte> private_data) override {
        reply.assign(private_data.begin(), private_data.end());
        ByteReader in(private_data);
        in.skip(4);
        credits = in.i32();
        return fabric::ReceiveRing{256, 8260};
    }
    void on_established() override { established_ = true; }
    void on_received(std::span<const std::byte> message) override {
        ASSERT_FALSE(message.empty());
        if (message[0] == std::byte{0xc1}) {
            responses.push_back(parse_rsp(message));
            credits += responses.back().delta;
        } else {
            others.emplace_back(message.begin(), message.end());
        }
    }
    void on_ended(const fabric::End& details) override {
        ended = true;
        end = details;
        reject.assign(details.private_data.begin(), details.private_data.end());
    }
    void on_gone() override { gone = true; }

    struct Free {
        void operator()(std::byte* memory) const { std::free(memory); }
    };
    using Memory = std::unique_ptr<std::byte[], Free>;
    // Not touched before it is used, unlike a vector's.
    static Memory zeroed() { return Memory(static_cast<std::byte*>(std::calloc(buffer_bytes, 1))); }

    Memory in_, out_;
    Bytes login_;
    fabric::RegionId in_region_{}, out_region_{};
    fabric::Connection* connection_ = nullptr;
    bool established_ = false;
};

// CDBs by hand (SBC-3, SPC-4).
inline Bytes cdb16(std::initializer_list<int> start) {
    Bytes cdb = bytes_of(start);
    cdb.resize(16);
    return cdb;
}
inline Bytes cdb_10(int opcode, std::uint32_t lba, std::uint16_t blocks, int flags = 0) {
    Bytes cdb(16);
    ByteWriter(cdb)
        .u8(static_cast<std::uint8_t>(opcode))
        .u8(static_cast<std::uint8_t>(flags))
        .u32(lba)
        .u8(0)
        .u16(blocks);
    return cdb;
}
inline Bytes cdb_16(int opcode, std::uint64_t lba, std::uint32_t blocks, int flags = 0) {
    Bytes cdb(16);
    ByteWriter(cdb).u8(static_cast<std::uint8_t>(opcode)).u8(static_cast<std::uint8_t>(flags)).u64(lba).u32(blocks);
    return cdb;
}
inline Bytes inquiry_cdb(int page = -1, int allocation = 255) {
    return cdb16({0x12, page >= 0 ? 1 : 0, page >= 0 ? page : 0, allocation >> 8, allocation & 0xff});
}

// A device, one portal on a loopback network, and initiators.
class TargetTest : public testing::Test {
protected:
    using Data = TestInitiator::Data;
    using Login = TestInitiator::Login;

    ~TargetTest() override { shut_down(); }

    void build(const std::string& luns, DeviceConfig config = {}, fabric::FaultInjector* injector = nullptr,
               const StagingConfig& staging = {}) {
        auto parsed = parse_lun_list(luns);
        ASSERT_TRUE(parsed) << parsed.error().context;
        build(*parsed, config, injector, staging);
    }
    void build(const std::vector<LunConfig>& luns, DeviceConfig config = {}, fabric::FaultInjector* injector = nullptr,
               const StagingConfig& staging = {}) {
        fabric = fabric::make_loopback_fabric(executor.timers(), fabric::demo_port(), injector);
        auto made = Device::create(config, luns);
        ASSERT_TRUE(made) << made.error().context;
        device = std::move(*made);
        auto listening = make_portal(*device, executor, *fabric, address, staging);
        ASSERT_TRUE(listening) << listening.error().context;
        portal = std::move(*listening);
    }
    void shut_down() {
        if (!fabric) return;
        if (device) device->set_behaviour(nullptr);
        for (auto& initiator : initiators)
            if (!initiator->gone) initiator->disconnect();
        if (portal) portal->close();
        for (int i = 0; i < 100; ++i) advance(1s);
        EXPECT_TRUE(!portal || portal->is_closed());
        portal.reset();
        EXPECT_EQ(fabric->connections(), 0u);
        initiators.clear();
        fabric.reset();
        device.reset();
    }
    bool turn() {
        const bool had_mail = executor.run();
        const unsigned events = fabric->poll(32);
        fabric->flush();
        return had_mail || events > 0 || !fabric->arm();
    }
    void settle() {
        while (turn()) {
        }
    }
    void advance(Duration duration) {
        executor.timers().advance_to(executor.timers().now() + duration);
        settle();
    }
    TestInitiator& connect(const Login& login) {
        initiators.push_back(std::make_unique<TestInitiator>(*fabric, address, login));
        settle();
        return *initiators.back();
    }
    TestInitiator& login() { return login(Login{}); }
    TestInitiator& login(const Login& with) {
        TestInitiator& initiator = connect(with);
        EXPECT_TRUE(initiator.is_live());
        return initiator;
    }

    // Sends a command and waits for its response.
    Rsp execute(TestInitiator& initiator, unsigned lun, const Bytes& cdb, Data data = Data::none,
                std::vector<TestInitiator::Piece> pieces = {}) {
        const std::uint64_t tag = next_tag++;
        EXPECT_TRUE(initiator.send(initiator.command(tag, lun, cdb, data, std::move(pieces))));
        settle();
        const auto response = initiator.response(tag);
        EXPECT_TRUE(response.has_value()) << "no response";
        return response.value_or(Rsp{});
    }
    // Sends without waiting; the tag.
    std::uint64_t start(TestInitiator& initiator, unsigned lun, const Bytes& cdb, Data data = Data::none,
                        std::vector<TestInitiator::Piece> pieces = {}) {
        const std::uint64_t tag = next_tag++;
        EXPECT_TRUE(initiator.send(initiator.command(tag, lun, cdb, data, std::move(pieces))));
        return tag;
    }
    Rsp manage(TestInitiator& initiator, unsigned lun, int function, std::uint64_t managed = 0xffffffff) {
        const std::uint64_t tag = next_tag++;
        EXPECT_TRUE(initiator.send(initiator.task_management(tag, lun, function, managed)));
        settle();
        const auto response = initiator.response(tag);
        EXPECT_TRUE(response.has_value()) << "no answer";
        return response.value_or(Rsp{});
    }
    // Data-in of a command that succeeds, cut to what was really transferred.
    Bytes ask(TestInitiator& initiator, unsigned lun, const Bytes& cdb, std::size_t bytes = 255) {
        std::fill(initiator.in().begin(), initiator.in().begin() + 4096, std::byte{0xee});
        const Rsp rsp = execute(initiator, lun, cdb, Data::in, {{0, bytes}});
        EXPECT_EQ(rsp.status, 0) << rsp.key << "/" << rsp.asc << "/" << rsp.ascq;
        const std::size_t got = bytes - ((rsp.flags & 0x20) ? rsp.in_residual : 0);
        EXPECT_EQ(initiator.in()[got], std::byte{0xee}) << "more was written than the response says";
        return {initiator.in().begin(), initiator.in().begin() + static_cast<std::ptrdiff_t>(got)};
    }
    // WRITE(10) and READ(10) of whole blocks of `block` bytes.
    Rsp write(TestInitiator& initiator, unsigned lun, std::uint32_t lba, const Bytes& content, std::size_t block = 512,
              int flags = 0) {
        std::copy(content.begin(), content.end(), initiator.out().begin());
        return execute(initiator, lun, cdb_10(0x2a, lba, static_cast<std::uint16_t>(content.size() / block), flags),
                       Data::out, {{0, content.size()}});
    }
    Bytes read(TestInitiator& initiator, unsigned lun, std::uint32_t lba, std::size_t bytes, std::size_t block = 512) {
        std::fill_n(initiator.in().begin(), bytes, std::byte{0xee});
        const Rsp rsp = execute(initiator, lun, cdb_10(0x28, lba, static_cast<std::uint16_t>(bytes / block)), Data::in,
                                {{0, bytes}});
        EXPECT_EQ(rsp.status, 0) << rsp.key << "/" << rsp.asc << "/" << rsp.ascq;
        EXPECT_EQ(rsp.flags, 0);
        return {initiator.in().begin(), initiator.in().begin() + static_cast<std::ptrdiff_t>(bytes)};
    }
    static void expect_sense(const Rsp& rsp, int key, int asc, int ascq) {
        EXPECT_EQ(rsp.status, check_condition);
        EXPECT_EQ(rsp.key, key);
        EXPECT_EQ(rsp.asc, asc);
        EXPECT_EQ(rsp.ascq, ascq);
    }

    const fabric::Address address = fabric::LoopbackAddress{"demo"};
    test::ManualExecutor executor;
    std::unique_ptr<fabric::LoopbackFabric> fabric;
    std::unique_ptr<Device> device;
    std::unique_ptr<Portal> portal;
    std::vector<std::unique_ptr<TestInitiator>> initiators;
    std::uint64_t next_tag = 0x100;
};

}  // namespace srpfs::target
