// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What the target tells about its units, and which commands it refuses. Offsets are those of SPC-4 and SBC-3.
#include "test_initiator.h"

namespace srpfs::target {
namespace {

std::string text_of(const Bytes& bytes, std::size_t offset, std::size_t count) {
    std::string text;
    for (std::size_t i = offset; i < offset + count && i < bytes.size(); ++i) text += static_cast<char>(bytes[i]);
    return text;
}

class Commands : public TargetTest {};

TEST_F(Commands, TestUnitReadyIsGood) {
    build("ram:1M");
    const Rsp rsp = execute(login(), 0, cdb16({0x00}));
    EXPECT_EQ(rsp.status, 0);
    EXPECT_EQ(rsp.delta, 1);
    EXPECT_EQ(rsp.raw.size(), 36u);
    EXPECT_EQ(rsp.flags, 0);
}

TEST_F(Commands, InquiryDescribesADisk) {
    build("ram:1M+null:1M");
    auto& initiator = login();
    const Bytes data = ask(initiator, 0, inquiry_cdb());
    ASSERT_EQ(data.size(), 36u);
    EXPECT_EQ(data[0], std::byte{0x00});
    EXPECT_EQ(number_at(data, 4, 1), 31u);
    EXPECT_EQ(text_of(data, 8, 24), "SRPFS   RAM DISK        ");
    EXPECT_EQ(text_of(ask(initiator, 1, inquiry_cdb()), 16, 16), "NULL DISK       ");
}

TEST_F(Commands, InquiryIsCutByTheAllocationLengthAndTheResidualTells) {
    build("ram:1M");
    auto& initiator = login();
    EXPECT_EQ(ask(initiator, 0, inquiry_cdb(-1, 5), 255).size(), 5u);
    // The descriptor is shorter than what the CDB allows.
    const Rsp rsp = execute(initiator, 0, inquiry_cdb(-1, 255), Data::in, {{0, 20}});
    EXPECT_EQ(rsp.flags, 0x10);  // DIOVER
    EXPECT_EQ(rsp.in_residual, 16u);
}

TEST_F(Commands, VpdPagesAreListedAndConsistent) {
    build("ram:1M");
    auto& initiator = login();
    const Bytes list = ask(initiator, 0, inquiry_cdb(0x00));
    EXPECT_EQ(list, bytes_of({0x00, 0x00, 0x00, 0x06, 0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2}));
    for (const int page : {0x80, 0x83, 0xb0, 0xb1, 0xb2}) {
        const Bytes data = ask(initiator, 0, inquiry_cdb(page));
        EXPECT_EQ(number_at(data, 1, 1), static_cast<unsigned>(page));
        EXPECT_EQ(number_at(data, 2, 2), data.size() - 4);
    }
    expect_sense(execute(initiator, 0, inquiry_cdb(0xc0), Data::in, {{0, 255}}), 5, 0x24, 0);
    expect_sense(execute(initiator, 0, cdb16({0x12, 0, 0x80, 0, 255}), Data::in, {{0, 255}}), 5, 0x24, 0);
}

TEST_F(Commands, IdentificationStartsWithTheGivenName) {
    build(
        "ram:1M,wwid=naa.6001405aabbccddeeff0011223344556+ram:1M,wwid=eui.0011223344556677+ram:1M,wwid=t10.MAKER disk "
        "7");
    auto& initiator = login();

    const Bytes naa = ask(initiator, 0, inquiry_cdb(0x83));
    EXPECT_EQ(Bytes(naa.begin() + 4, naa.begin() + 24),
              bytes_of({0x01, 0x03, 0x00, 0x10, 0x60, 0x01, 0x40, 0x5a, 0xab, 0xbc,
                        0xcd, 0xde, 0xef, 0xf0, 0x01, 0x12, 0x23, 0x34, 0x45, 0x56}));
    EXPECT_EQ(text_of(ask(initiator, 0, inquiry_cdb(0x80)), 4, 32), "6001405aabbccddeeff0011223344556");

    const Bytes eui = ask(initiator, 1, inquiry_cdb(0x83));
    EXPECT_EQ(Bytes(eui.begin() + 4, eui.begin() + 16),
              bytes_of({0x01, 0x02, 0x00, 0x08, 0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77}));

    const Bytes t10 = ask(initiator, 2, inquiry_cdb(0x83));
    EXPECT_EQ(number_at(t10, 4, 4), 0x0201000cu);
    EXPECT_EQ(text_of(t10, 8, 12), "MAKER disk 7");
}

TEST_F(Commands, UnitsHaveDistinctAndStableNamesOfTheirOwn) {
    build("ram:1M+ram:1M+null:1M");
    EXPECT_EQ(device->wwid(0).substr(0, 11), "naa.6001405");
    EXPECT_EQ(device->wwid(0).size(), 36u);
    EXPECT_NE(device->wwid(0), device->wwid(1));
    EXPECT_NE(device->wwid(1), device->wwid(2));
    const auto again = Device::create({}, *parse_lun_list("ram:2M"));
    EXPECT_EQ((*again)->wwid(0), device->wwid(0));
    EXPECT_EQ(device->wwid(9), "");
}

TEST_F(Commands, BlockLimitsNameTheLargestTransfer) {
    build("ram:64M+ram:64M,bs=4096");
    auto& initiator = login();
    EXPECT_EQ(number_at(ask(initiator, 0, inquiry_cdb(0xb0)), 8, 4), (8u << 20) / 512);
    EXPECT_EQ(number_at(ask(initiator, 1, inquiry_cdb(0xb0)), 8, 4), (8u << 20) / 4096);
    EXPECT_EQ(number_at(ask(initiator, 0, inquiry_cdb(0xb0)), 20, 4), 0u);  // no UNMAP
    expect_sense(execute(initiator, 0, cdb_16(0x88, 0, 16385), Data::in, {{0, 16385 * 512}}), 5, 0x24, 0);
    EXPECT_EQ(execute(initiator, 0, cdb_16(0x88, 0, 16384), Data::in, {{0, 16384 * 512}}).status, 0);
}

TEST_F(Commands, ReadCapacityTellsLastBlockAndBlockLength) {
    build("ram:1M+null:2M,bs=4096+null:4T");
    auto& initiator = login();
    EXPECT_EQ(ask(initiator, 0, cdb16({0x25})), bytes_of({0, 0, 0x07, 0xff, 0, 0, 0x02, 0x00}));
    EXPECT_EQ(ask(initiator, 1, cdb16({0x25})), bytes_of({0, 0, 0x01, 0xff, 0, 0, 0x10, 0x00}));
    EXPECT_EQ(ask(initiator, 2, cdb16({0x25})), bytes_of({0xff, 0xff, 0xff, 0xff, 0, 0, 0x02, 0x00}));
    const Bytes long_form = ask(initiator, 2, cdb16({0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32}));
    ASSERT_EQ(long_form.size(), 32u);
    EXPECT_EQ(number_at(long_form, 0, 8), (std::uint64_t{4} << 40) / 512 - 1);
    EXPECT_EQ(number_at(long_form, 8, 4), 512u);
    EXPECT_EQ(number_at(long_form, 14, 2), 0u);
    expect_sense(execute(initiator, 0, cdb16({0x9e, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32}), Data::in, {{0, 32}}),
                 5, 0x24,
                 0);  // GET LBA STATUS
}

TEST_F(Commands, GetLbaStatusOfThinUnitsTellsWhatHasBeenWritten) {
    build("ram:1M,thin+null:8T,thin+ram:1M,thin,bs=4096");
    auto& initiator = login();
    const auto map = [&](unsigned lun, std::uint64_t lba, std::uint32_t room = 200) {
        const Bytes data = ask(initiator, lun, cdb_16(0x9e, lba, room, 0x12));
        std::vector<std::array<std::uint64_t, 3>> extents;
        for (std::size_t at = 8; at + 16 <= data.size(); at += 16)
            extents.push_back({number_at(data, at, 8), number_at(data, at + 8, 4), number_at(data, at + 12, 1)});
        EXPECT_EQ(number_at(data, 0, 4), data.size() - 4);
        return extents;
    };
    using Map = std::vector<std::array<std::uint64_t, 3>>;
    EXPECT_EQ(map(0, 0), (Map{{0, 2048, 1}}));
    write(initiator, 0, 100, Bytes(512, std::byte{1}));
    write(initiator, 0, 127, Bytes(1024, std::byte{1}));
    // By pages of 4 KiB.
    EXPECT_EQ(map(0, 0), (Map{{0, 96, 1}, {96, 8, 0}, {104, 16, 1}, {120, 16, 0}, {136, 1912, 1}}));
    EXPECT_EQ(map(0, 101), (Map{{101, 3, 0}, {104, 16, 1}, {120, 16, 0}, {136, 1912, 1}}));
    EXPECT_EQ(map(0, 2047), (Map{{2047, 1, 1}}));
    EXPECT_EQ(map(0, 0, 40), (Map{{0, 96, 1}, {96, 8, 0}}));
    EXPECT_EQ(map(0, 0, 24), (Map{{0, 96, 1}}));
    EXPECT_EQ(map(1, 5, 24), (Map{{5, UINT32_MAX, 1}}));
    EXPECT_EQ(map(2, 0), (Map{{0, 256, 1}}));
    expect_sense(execute(initiator, 0, cdb_16(0x9e, 2048, 200, 0x12), Data::in, {{0, 200}}), 5, 0x21, 0);
}

TEST_F(Commands, ReportLunsAnswersOnAnyLun) {
    build("ram:1M+ram:1M");
    ASSERT_TRUE(device->add_lun(300, parse_lun_list("null:1M").value()[0]));
    auto& initiator = login();
    const Bytes expected = bytes_of(
        {0, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x01, 0x2c, 0, 0, 0, 0, 0, 0});
    const Bytes cdb = cdb16({0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0});
    EXPECT_EQ(ask(initiator, 0, cdb), expected);
    EXPECT_EQ(ask(initiator, 77, cdb), expected);
    EXPECT_EQ(ask(initiator, 0, cdb16({0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16})).size(), 16u);
    expect_sense(execute(initiator, 0, cdb16({0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 15}), Data::in, {{0, 255}}), 5, 0x24, 0);
    expect_sense(execute(initiator, 0, cdb16({0xa0, 0, 9, 0, 0, 0, 0, 0, 1, 0}), Data::in, {{0, 255}}), 5, 0x24, 0);
}

TEST_F(Commands, FlatAddressesAreReportedAndAcceptedOnlyWhenConfigured) {
    build("ram:1M+ram:1M", {.flat_lun_addresses = true});
    auto& initiator = login();
    const Bytes list = ask(initiator, 0, cdb16({0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0}));
    EXPECT_EQ(number_at(list, 16, 8), 0x4001000000000000u);
    EXPECT_TRUE(initiator.send(initiator.command(7, 1, cdb16({0x00}), Data::none, {}, 1)));
    settle();
    EXPECT_EQ(initiator.answer(7).status, 0);
    shut_down();

    build("ram:1M+ram:1M");
    auto& other = login();
    EXPECT_TRUE(other.send(other.command(7, 1, cdb16({0x00}), Data::none, {}, 1)));
    settle();
    expect_sense(other.answer(7), 5, 0x25, 0);
}

TEST_F(Commands, MissingUnitsAreRefused) {
    build("ram:1M");
    auto& initiator = login();
    for (const auto& cdb :
         {cdb16({0x00}), inquiry_cdb(), cdb16({0x25}), cdb16({0x03, 0, 0, 0, 18}), cdb_10(0x28, 0, 1)}) {
        const Rsp rsp = execute(initiator, 5, cdb, Data::in, {{0, 512}});
        expect_sense(rsp, 5, 0x25, 0);
        EXPECT_EQ(rsp.raw.size(), 132u);  // 96 bytes of sense, as LIO sends
    }
}

TEST_F(Commands, LunZeroAnswersInquiryEvenWhenNothingIsThere) {
    build("ram:1M");
    ASSERT_TRUE(device->remove_lun(0));
    auto& initiator = login();
    EXPECT_EQ(ask(initiator, 0, inquiry_cdb())[0], std::byte{0x3f});
    EXPECT_EQ(execute(initiator, 0, cdb16({0x00})).status, 0);
    expect_sense(execute(initiator, 0, cdb16({0x25}), Data::in, {{0, 8}}), 5, 0x25, 0);
    EXPECT_EQ(number_at(ask(initiator, 0, cdb16({0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0})), 0, 4), 8u);
}

TEST_F(Commands, ModeSenseTellsCacheAndProtection) {
    build("ram:1M+ram:1M,wce+ram:1M,ro");
    auto& initiator = login();
    const Bytes plain = ask(initiator, 0, cdb16({0x1a, 0x08, 0x08, 0, 255}));
    ASSERT_EQ(plain.size(), 24u);
    EXPECT_EQ(plain[0], std::byte{23});
    EXPECT_EQ(plain[2], std::byte{0x00});
    EXPECT_EQ(plain[4], std::byte{0x08});
    EXPECT_EQ(plain[6], std::byte{0x00});

    const Bytes cached = ask(initiator, 1, cdb16({0x1a, 0x08, 0x08, 0, 255}));
    EXPECT_EQ(cached[2], std::byte{0x10});  // DPOFUA
    EXPECT_EQ(cached[6], std::byte{0x04});  // WCE

    const Bytes ten = ask(initiator, 2, cdb16({0x5a, 0x08, 0x08, 0, 0, 0, 0, 0, 255}));
    ASSERT_EQ(ten.size(), 28u);
    EXPECT_EQ(number_at(ten, 0, 2), 26u);
    EXPECT_EQ(ten[3], std::byte{0x80});  // WP
    EXPECT_EQ(ten[8], std::byte{0x08});
}

TEST_F(Commands, ModeSenseHasBlockDescriptorAllPagesAndMasks) {
    build("ram:1M,wce");
    auto& initiator = login();
    const Bytes all = ask(initiator, 0, cdb16({0x1a, 0x00, 0x3f, 0, 255}));
    EXPECT_EQ(all[3], std::byte{8});
    EXPECT_EQ(number_at(all, 4, 4), 2048u);
    EXPECT_EQ(number_at(all, 8, 4), 512u);
    EXPECT_EQ(all.size(), 4u + 8 + 12 + 20 + 12 + 12);
    EXPECT_EQ(ask(initiator, 0, cdb16({0x1a, 0x08, 0x48, 0, 255}))[6], std::byte{0});  // changeable values
    expect_sense(execute(initiator, 0, cdb16({0x1a, 0x08, 0xc8, 0, 255}), Data::in, {{0, 255}}), 5, 0x39, 0);
    expect_sense(execute(initiator, 0, cdb16({0x1a, 0x08, 0x02, 0, 255}), Data::in, {{0, 255}}), 5, 0x24, 0);
}

TEST_F(Commands, RequestSenseIsEmptyOrTellsTheAttention) {
    build("ram:1M");
    auto& initiator = login();
    const Bytes empty = ask(initiator, 0, cdb16({0x03, 0, 0, 0, 18}));
    ASSERT_EQ(empty.size(), 18u);
    EXPECT_EQ(empty[0], std::byte{0x70});
    EXPECT_EQ(empty[2], std::byte{0x00});

    device->raise_attention(0, 0x2a, 0x01);
    const Bytes told = ask(initiator, 0, cdb16({0x03, 0, 0, 0, 18}));
    EXPECT_EQ(told[2], std::byte{0x06});
    EXPECT_EQ(told[12], std::byte{0x2a});
    EXPECT_EQ(told[13], std::byte{0x01});
    EXPECT_EQ(execute(initiator, 0, cdb16({0x00})).status, 0);  // told once
}

TEST_F(Commands, StartStopUnitAcceptsOnlyAStartThatChangesNothing) {
    build("ram:1M");
    auto& initiator = login();
    EXPECT_EQ(execute(initiator, 0, cdb16({0x1b, 1, 0, 0, 1})).status, 0);
    expect_sense(execute(initiator, 0, cdb16({0x1b, 0, 0, 0, 1})), 5, 0x24, 0);
    expect_sense(execute(initiator, 0, cdb16({0x1b, 1, 0, 0, 0})), 5, 0x24, 0);
    expect_sense(execute(initiator, 0, cdb16({0x1b, 1, 0, 0, 3})), 5, 0x24, 0);
}

TEST_F(Commands, ReportTargetPortGroupsNamesOneActiveGroup) {
    build("ram:1M");
    auto& initiator = login();
    const Bytes data = ask(initiator, 0, cdb16({0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 0, 255}));
    EXPECT_EQ(data, bytes_of({0, 0, 0, 12, 0x00, 0x01, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1}));
    EXPECT_EQ(number_at(ask(initiator, 0, cdb16({0xa3, 0x2a, 0, 0, 0, 0, 0, 0, 0, 255})), 0, 5), 0x1010u);
}

TEST_F(Commands, EverythingElseIsAnInvalidOperationCode) {
    build("ram:1M");
    auto& initiator = login();
    for (const int opcode : {0x04, 0x15, 0x16, 0x3b, 0x42, 0x4d, 0x55, 0x56, 0x57, 0x7f, 0x83, 0x89, 0x9b, 0xff}) {
        SCOPED_TRACE(opcode);
        expect_sense(execute(initiator, 0, cdb16({opcode})), 5, 0x20, 0);
    }
    expect_sense(execute(initiator, 0, cdb16({0xa3, 0x0c})), 5, 0x20, 0);
    EXPECT_EQ(device->counters().commands[0x56], 1u);
    EXPECT_EQ(device->counters().check_conditions, 15u);
}

TEST_F(Commands, SenseLengthIsConfigurable) {
    build("ram:1M", {.sense_bytes = 18});
    const Rsp rsp = execute(login(), 0, cdb16({0xff}));
    EXPECT_EQ(rsp.raw.size(), 54u);
    EXPECT_EQ(rsp.sense_length, 18u);
    expect_sense(rsp, 5, 0x20, 0);
}

TEST_F(Commands, AChangedMapRaisesAnAttentionOncePerChannelAndUnit) {
    build("ram:1M+ram:1M");
    auto& first = login();
    auto& second = login({.action = 1});
    ASSERT_TRUE(device->add_lun(2, parse_lun_list("null:1M").value()[0]));

    for (auto* initiator : {&first, &second}) {
        for (const unsigned lun : {0u, 1u}) {
            EXPECT_EQ(ask(*initiator, lun, inquiry_cdb())[0], std::byte{0});  // INQUIRY is not held up
            expect_sense(execute(*initiator, lun, cdb16({0x00})), 6, 0x3f, 0x0e);
            EXPECT_EQ(execute(*initiator, lun, cdb16({0x00})).status, 0);
        }
        EXPECT_EQ(execute(*initiator, 2, cdb16({0x00})).status, 0);  // the new one has nothing to tell
    }

    ASSERT_TRUE(device->remove_lun(1));
    expect_sense(execute(first, 0, cdb16({0x00})), 6, 0x3f, 0x0e);
    expect_sense(execute(first, 1, cdb16({0x00})), 5, 0x25, 0);
    EXPECT_FALSE(device->remove_lun(1));
    EXPECT_FALSE(device->add_lun(0, parse_lun_list("null:1M").value()[0]));
}

TEST_F(Commands, ResizingChangesTheCapacityAndTellsOnlyWhenConfigured) {
    build("ram:1M");
    auto& silent = login();
    ASSERT_TRUE(device->resize_lun(0, 2 << 20));
    EXPECT_EQ(number_at(ask(silent, 0, cdb16({0x25})), 0, 4), 4095u);
    EXPECT_EQ(write(silent, 0, 4000, pattern(512, 1)).status, 0);
    ASSERT_TRUE(device->resize_lun(0, 1 << 20));
    expect_sense(write(silent, 0, 4000, pattern(512, 1)), 5, 0x21, 0);
    EXPECT_FALSE(device->resize_lun(0, 1000));
    EXPECT_FALSE(device->resize_lun(1, 1024));
    shut_down();

    build("ram:1M", {.attention_at_change = true});
    auto& told = login();
    ASSERT_TRUE(device->resize_lun(0, 2 << 20));
    expect_sense(execute(told, 0, cdb16({0x00})), 6, 0x2a, 0x09);
    EXPECT_EQ(execute(told, 0, cdb16({0x00})).status, 0);
    ASSERT_TRUE(device->set_read_only(0, true));
    expect_sense(execute(told, 0, cdb16({0x00})), 6, 0x2a, 0x01);
}

TEST_F(Commands, AUnitThatTakesTheNumberOfAnotherIsAnnouncedOnlyWhenConfigured) {
    for (const bool is_announced : {false, true}) {
        build("ram:1M", {.attention_at_change = is_announced});
        auto& initiator = login();
        ASSERT_TRUE(device->remove_lun(0));
        ASSERT_TRUE(device->add_lun(0, parse_lun_list("ram:1M,wwid=5001122334455667").value()[0]));
        const Rsp rsp = execute(initiator, 0, cdb16({0x00}));
        if (is_announced)
            expect_sense(rsp, 6, 0x3f, 0x0e);
        else
            EXPECT_EQ(rsp.status, 0);
        EXPECT_EQ(device->wwid(0), "naa.5001122334455667");
        shut_down();
    }
}

TEST_F(Commands, AnAttentionOfARemovedUnitVanishesWithIt) {
    build("ram:1M+ram:1M");
    auto& initiator = login();
    device->raise_attention(1, 0x2a, 0x09);
    ASSERT_TRUE(device->remove_lun(1));
    ASSERT_TRUE(device->add_lun(1, parse_lun_list("ram:1M").value()[0]));
    EXPECT_EQ(execute(initiator, 1, cdb16({0x00})).status, 0);
}

TEST_F(Commands, ANewChannelMayStartWithAPowerOnAttention) {
    build("ram:1M+ram:1M", {.attention_at_login = true});
    auto& initiator = login();
    expect_sense(execute(initiator, 0, cdb16({0x00})), 6, 0x29, 0);
    EXPECT_EQ(execute(initiator, 0, cdb16({0x00})).status, 0);
    expect_sense(execute(initiator, 1, cdb16({0x00})), 6, 0x29, 0);
}

}  // namespace
}  // namespace srpfs::target
