// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Reading and writing: every format of data, the length rules, caches, provisioning.
#include "test_initiator.h"

namespace srpfs::target {
namespace {

class DataTransfer : public TargetTest {};

TEST_F(DataTransfer, ReadsBackWhatWasWritten) {
    build("ram:16M+ram:16M,bs=4096");
    auto& initiator = login();
    for (const std::size_t blocks : {1u, 8u, 64u, 2048u}) {
        const Bytes content = pattern(blocks * 512, static_cast<unsigned>(blocks));
        const Rsp rsp = write(initiator, 0, 100, content);
        EXPECT_EQ(rsp.status, 0);
        EXPECT_EQ(rsp.flags, 0);
        EXPECT_EQ(read(initiator, 0, 100, content.size()), content);
    }
    const Bytes content = pattern(3 * 4096, 9);
    EXPECT_EQ(write(initiator, 1, 4093, content, 4096).status, 0);
    EXPECT_EQ(read(initiator, 1, 4093, content.size(), 4096), content);
    EXPECT_EQ(read(initiator, 1, 0, 4096, 4096), Bytes(4096));
}

TEST_F(DataTransfer, EightMebibytesFitOneCommand) {
    build("ram:16M");
    auto& initiator = login();
    const Bytes content = pattern(8 << 20, 3);
    std::copy(content.begin(), content.end(), initiator.out().begin());
    EXPECT_EQ(execute(initiator, 0, cdb_16(0x8a, 16, 16384), Data::out, {{0, content.size()}}).status, 0);
    EXPECT_EQ(execute(initiator, 0, cdb_16(0x88, 16, 16384), Data::in, {{0, content.size()}}).status, 0);
    EXPECT_TRUE(std::equal(content.begin(), content.end(), initiator.in().begin()));
}

TEST_F(DataTransfer, AllSizesOfCdbDoTheSame) {
    build("ram:1M");
    auto& initiator = login();
    struct Pair {
        Bytes write, read;
    };
    const std::vector<Pair> pairs = {
        {cdb16({0x0a, 0, 0, 7, 1}), cdb16({0x08, 0, 0, 7, 1})},
        {cdb_10(0x2a, 8, 1), cdb_10(0x28, 8, 1)},
        {cdb16({0xaa, 0, 0, 0, 0, 9, 0, 0, 0, 1}), cdb16({0xa8, 0, 0, 0, 0, 9, 0, 0, 0, 1})},
        {cdb_16(0x8a, 10, 1), cdb_16(0x88, 10, 1)},
        {cdb_10(0x2e, 11, 1), cdb_10(0x28, 11, 1)},  // WRITE AND VERIFY
        {cdb_16(0x8e, 12, 1), cdb_16(0x88, 12, 1)},
    };
    for (unsigned i = 0; i < pairs.size(); ++i) {
        const Bytes content = pattern(512, i);
        std::copy(content.begin(), content.end(), initiator.out().begin());
        EXPECT_EQ(execute(initiator, 0, pairs[i].write, Data::out, {{0, 512}}).status, 0);
        EXPECT_EQ(execute(initiator, 0, pairs[i].read, Data::in, {{0, 512}}).status, 0);
        EXPECT_TRUE(std::equal(content.begin(), content.end(), initiator.in().begin()));
        EXPECT_EQ(read(initiator, 0, 7 + i, 512), content);
    }
    // Six bytes: a count of 0 is 256 blocks.
    const Rsp rsp = execute(initiator, 0, cdb16({0x08, 0, 0, 0, 0}), Data::in, {{0, 256 * 512}});
    EXPECT_EQ(rsp.status, 0);
    EXPECT_EQ(rsp.flags, 0);
}

TEST_F(DataTransfer, IndirectDescriptorsScatterAndGather) {
    build("ram:1M");
    auto& initiator = login();
    const Bytes content = pattern(2048, 5);
    std::copy_n(content.begin(), 500, initiator.out().begin() + 1000);
    std::copy_n(content.begin() + 500, 48, initiator.out().begin());
    std::copy_n(content.begin() + 548, 1500, initiator.out().begin() + 5000);
    EXPECT_EQ(execute(initiator, 0, cdb_10(0x2a, 3, 4), Data::out, {{1000, 500}, {0, 48}, {5000, 1500}}).status, 0);
    EXPECT_EQ(read(initiator, 0, 3, 2048), content);

    EXPECT_EQ(execute(initiator, 0, cdb_10(0x28, 3, 4), Data::in, {{9000, 1}, {100, 2000}, {4000, 47}}).status, 0);
    EXPECT_EQ(initiator.in()[9000], content[0]);
    EXPECT_TRUE(std::equal(content.begin() + 1, content.begin() + 2001, initiator.in().begin() + 100));
    EXPECT_TRUE(std::equal(content.begin() + 2001, content.end(), initiator.in().begin() + 4000));
}

TEST_F(DataTransfer, MoreDescriptorsThanTheSendQueueHoldsAreWorkedOff) {
    build("ram:16M");
    auto& initiator = login();
    std::vector<TestInitiator::Piece> pieces;
    for (std::size_t i = 0; i < 200; ++i) pieces.push_back({i * 600, 512});
    for (std::size_t i = 0; i < 200; ++i) {
        const Bytes block = pattern(512, static_cast<unsigned>(i));
        std::copy(block.begin(), block.end(), initiator.out().begin() + static_cast<std::ptrdiff_t>(i * 600));
    }
    std::vector<std::uint64_t> tags;
    for (unsigned i = 0; i < 5; ++i) tags.push_back(start(initiator, 0, cdb_10(0x2a, 200 * i, 200), Data::out, pieces));
    settle();
    for (const auto tag : tags) EXPECT_EQ(initiator.answer(tag).status, 0);
    for (const unsigned i : {0u, 4u}) {
        EXPECT_EQ(execute(initiator, 0, cdb_10(0x28, 200 * i, 200), Data::in, pieces).status, 0);
        for (std::size_t k = 0; k < 200; ++k) {
            const Bytes block = pattern(512, static_cast<unsigned>(k));
            ASSERT_TRUE(
                std::equal(block.begin(), block.end(), initiator.in().begin() + static_cast<std::ptrdiff_t>(k * 600)));
        }
    }
    EXPECT_EQ(portal->commands(), 0u);
}

TEST_F(DataTransfer, ImmediateDataIsWritten) {
    build("ram:1M+ram:1M,bs=4096+null:1M");
    auto& initiator = login();
    const Bytes content = pattern(8192, 8);
    std::copy(content.begin(), content.end(), initiator.out().begin());
    EXPECT_EQ(execute(initiator, 0, cdb_10(0x2a, 5, 16), Data::out_immediate, {{0, 8192}}).status, 0);
    EXPECT_EQ(read(initiator, 0, 5, 8192), content);
    EXPECT_EQ(execute(initiator, 1, cdb_10(0x2a, 5, 1), Data::out_immediate, {{0, 4096}}).status, 0);
    EXPECT_EQ(read(initiator, 1, 5, 4096, 4096), Bytes(content.begin(), content.begin() + 4096));
    EXPECT_EQ(execute(initiator, 2, cdb_10(0x2a, 5, 1), Data::out_immediate, {{0, 512}}).status, 0);
}

TEST_F(DataTransfer, ImmediateDataIsRefusedWhenNotNegotiated) {
    build("ram:1M");
    auto& initiator = login({.immediate = false});
    expect_sense(execute(initiator, 0, cdb_10(0x2a, 5, 1), Data::out_immediate, {{0, 512}}), 5, 0x24, 0);
    EXPECT_EQ(device->counters().malformed, 1u);
}

TEST_F(DataTransfer, ANullUnitReadsZerosAndDropsWrites) {
    build("null:1T");
    auto& initiator = login();
    EXPECT_EQ(write(initiator, 0, 0, pattern(4096, 1)).status, 0);
    EXPECT_EQ(read(initiator, 0, 0, 4096), Bytes(4096));
    const Rsp rsp = execute(initiator, 0, cdb_16(0x88, 0, 16384), Data::in, {{0, 8 << 20}});
    EXPECT_EQ(rsp.status, 0);
    EXPECT_EQ(rsp.flags, 0);
    EXPECT_TRUE(std::all_of(initiator.in().begin(), initiator.in().begin() + (8 << 20),
                            [](std::byte one) { return one == std::byte{0}; }));
    EXPECT_EQ(device->counters().blocks_written, 8u);
}

TEST_F(DataTransfer, AWriteWhoseLengthDisagreesIsRefused) {
    build("ram:1M");
    auto& initiator = login();
    expect_sense(execute(initiator, 0, cdb_10(0x2a, 0, 2), Data::out, {{0, 512}}), 5, 0x0e, 3);
    expect_sense(execute(initiator, 0, cdb_10(0x2a, 0, 1), Data::out, {{0, 1024}}), 5, 0x0e, 3);
    expect_sense(execute(initiator, 0, cdb_10(0x2a, 0, 1)), 5, 0x0e, 3);
    expect_sense(execute(initiator, 0, cdb_10(0x2a, 0, 1), Data::in, {{0, 512}}), 5, 0x0e, 3);
    EXPECT_EQ(device->counters().blocks_written, 0u);
}

TEST_F(DataTransfer, AReadWhoseLengthDisagreesGivesAResidual) {
    build("ram:1M");
    auto& initiator = login();
    EXPECT_EQ(write(initiator, 0, 0, pattern(1024, 4)).status, 0);
    initiator.in()[1024] = std::byte{0xee};
    Rsp rsp = execute(initiator, 0, cdb_10(0x28, 0, 2), Data::in, {{0, 2048}});
    EXPECT_EQ(rsp.status, 0);
    EXPECT_EQ(rsp.flags, 0x20);
    EXPECT_EQ(rsp.in_residual, 1024u);
    EXPECT_EQ(initiator.in()[1024], std::byte{0xee});

    initiator.in()[512] = std::byte{0xee};
    rsp = execute(initiator, 0, cdb_10(0x28, 0, 2), Data::in, {{0, 512}});
    EXPECT_EQ(rsp.flags, 0x10);
    EXPECT_EQ(rsp.in_residual, 512u);
    EXPECT_EQ(initiator.in()[512], std::byte{0xee});
}

TEST_F(DataTransfer, RangesEndWithTheUnit) {
    build("ram:1M");  // 2048 blocks
    auto& initiator = login();
    EXPECT_EQ(write(initiator, 0, 2047, pattern(512, 1)).status, 0);
    expect_sense(write(initiator, 0, 2047, pattern(1024, 1)), 5, 0x21, 0);
    expect_sense(write(initiator, 0, 2048, pattern(512, 1)), 5, 0x21, 0);
    EXPECT_EQ(execute(initiator, 0, cdb_10(0x28, 2048, 0)).status, 0);
    expect_sense(execute(initiator, 0, cdb_10(0x28, 2049, 0)), 5, 0x21, 0);
    expect_sense(execute(initiator, 0, cdb_16(0x88, UINT64_MAX, 2), Data::in, {{0, 1024}}), 5, 0x21, 0);
    for (const int verify : {0x2f, 0xaf}) {
        EXPECT_EQ(execute(initiator, 0, cdb16({verify, 0, 0, 0, 0x07, 0xff, 0, 0, verify == 0x2f ? 1 : 0, 0})).status,
                  0);
        expect_sense(execute(initiator, 0, cdb16({verify, 0, 0, 0, 0x08, 0x01, 0, 0, verify == 0x2f ? 1 : 0, 0})), 5,
                     0x21, 0);
    }
    expect_sense(execute(initiator, 0, cdb_10(0x35, 2048, 1)), 5, 0x21, 0);
    EXPECT_EQ(execute(initiator, 0, cdb_10(0x35, 0, 0)).status, 0);
    EXPECT_EQ(execute(initiator, 0, cdb_16(0x91, 0, 0)).status, 0);
}

TEST_F(DataTransfer, ReadOnlyUnitsRefuseWrites) {
    build("ram:1M,ro+ram:1M");
    auto& initiator = login();
    expect_sense(write(initiator, 0, 0, pattern(512, 1)), 7, 0x27, 0);
    expect_sense(execute(initiator, 0, cdb_10(0x41, 0, 1), Data::out, {{0, 512}}), 7, 0x27, 0);
    EXPECT_EQ(write(initiator, 1, 0, pattern(512, 1)).status, 0);
    ASSERT_TRUE(device->set_read_only(1, true));
    expect_sense(write(initiator, 1, 0, pattern(512, 2)), 7, 0x27, 0);
    EXPECT_EQ(read(initiator, 1, 0, 512), pattern(512, 1));
}

TEST_F(DataTransfer, FuaIsForUnitsWithACache) {
    build("ram:1M+ram:1M,wce");
    auto& initiator = login();
    expect_sense(write(initiator, 0, 0, pattern(512, 1), 512, 0x08), 5, 0x24, 0);
    expect_sense(write(initiator, 0, 0, pattern(512, 1), 512, 0x10), 5, 0x24, 0);
    EXPECT_EQ(write(initiator, 1, 0, pattern(512, 1), 512, 0x08).status, 0);
    expect_sense(write(initiator, 1, 0, pattern(512, 1), 512, 0x20), 5, 0x24, 0);  // protection information
}

TEST_F(DataTransfer, WriteSameRepeatsOneBlock) {
    build("ram:1M+null:1M");
    auto& initiator = login();
    const Bytes block = pattern(512, 6);
    std::copy(block.begin(), block.end(), initiator.out().begin());
    EXPECT_EQ(execute(initiator, 0, cdb_10(0x41, 10, 3), Data::out, {{0, 512}}).status, 0);
    EXPECT_EQ(execute(initiator, 0, cdb_16(0x93, 13, 2), Data::out_immediate, {{0, 512}}).status, 0);
    for (std::uint32_t lba = 10; lba < 15; ++lba) EXPECT_EQ(read(initiator, 0, lba, 512), block);
    EXPECT_EQ(read(initiator, 0, 15, 512), Bytes(512));
    expect_sense(execute(initiator, 0, cdb_10(0x41, 10, 0), Data::out, {{0, 512}}), 5, 0x24, 0);
    expect_sense(execute(initiator, 0, cdb_10(0x41, 10, 1, 0x08), Data::out, {{0, 512}}), 5, 0x24, 0);
    expect_sense(execute(initiator, 0, cdb_10(0x41, 10, 2), Data::out, {{0, 1024}}), 5, 0x0e, 3);
    EXPECT_EQ(execute(initiator, 1, cdb_10(0x41, 10, 3), Data::out, {{0, 512}}).status, 0);
}

TEST_F(DataTransfer, UnmappedBlocksReadAsZeros) {
    LunConfig config = parse_lun_list("ram:1M").value()[0];
    config.unmap = true;
    build(std::vector{config});
    auto& initiator = login();
    EXPECT_EQ(write(initiator, 0, 0, pattern(512 * 400, 3)).status, 0);

    Bytes list(8 + 2 * 16);
    ByteWriter(list).u16(38).u16(32).zeros(4).u64(1).u32(2).zeros(4).u64(100).u32(300).zeros(4);
    std::copy(list.begin(), list.end(), initiator.out().begin());
    const Bytes cdb = cdb16({0x42, 0, 0, 0, 0, 0, 0, 0, 40});
    EXPECT_EQ(execute(initiator, 0, cdb, Data::out, {{0, list.size()}}).status, 0);
    const Bytes all = pattern(512 * 400, 3);
    EXPECT_EQ(read(initiator, 0, 0, 512), Bytes(all.begin(), all.begin() + 512));
    EXPECT_EQ(read(initiator, 0, 1, 1024), Bytes(1024));
    EXPECT_EQ(read(initiator, 0, 3, 512), Bytes(all.begin() + 3 * 512, all.begin() + 4 * 512));
    EXPECT_EQ(read(initiator, 0, 100, 300 * 512), Bytes(300 * 512));

    EXPECT_EQ(execute(initiator, 0, cdb_10(0x41, 3, 1, 0x08), Data::out, {{100000, 512}}).status, 0);
    EXPECT_EQ(read(initiator, 0, 3, 512), Bytes(512));

    ByteWriter(initiator.out()).u16(38).u16(32).zeros(4).u64(1).u32(2).zeros(4).u64(2000).u32(300).zeros(4);
    expect_sense(execute(initiator, 0, cdb, Data::out, {{0, list.size()}}), 5, 0x21, 0);
    ByteWriter(initiator.out()).u16(38).u16(33);
    expect_sense(execute(initiator, 0, cdb, Data::out, {{0, list.size()}}), 5, 0x1a, 0);
}

TEST_F(DataTransfer, AnUnflushedWriteMayBeLostAndAFlushedOneMayNot) {
    build("ram:1M,wce+ram:1M", {.volatile_cache = VolatileCache::modelled});
    auto& initiator = login();
    const auto old = pattern(512, 1), young = pattern(512, 2);
    for (const unsigned lun : {0u, 1u})
        for (const std::uint32_t lba : {0u, 1u, 2u, 3u}) EXPECT_EQ(write(initiator, lun, lba, old).status, 0);
    EXPECT_EQ(execute(initiator, 0, cdb_10(0x35, 0, 0)).status, 0);
    for (const unsigned lun : {0u, 1u})
        for (const std::uint32_t lba : {0u, 1u, 2u}) EXPECT_EQ(write(initiator, lun, lba, young).status, 0);
    EXPECT_EQ(execute(initiator, 0, cdb_10(0x35, 1, 1)).status, 0);  // only block 1
    EXPECT_EQ(write(initiator, 0, 3, young, 512, 0x08).status, 0);   // FUA
    EXPECT_EQ(read(initiator, 0, 0, 512), young);

    std::vector<std::uint64_t> asked;
    device->lose_cache([&](unsigned lun, std::uint64_t offset) {
        EXPECT_EQ(lun, 0u);
        asked.push_back(offset);
        return offset == 0;
    });
    EXPECT_EQ(asked, (std::vector<std::uint64_t>{0, 1024}));
    EXPECT_EQ(read(initiator, 0, 0, 512), old);
    EXPECT_EQ(read(initiator, 0, 1, 512), young);
    EXPECT_EQ(read(initiator, 0, 2, 512), young);
    EXPECT_EQ(read(initiator, 0, 3, 512), young);
    EXPECT_EQ(read(initiator, 1, 0, 512), young);  // no cache, nothing to lose
    device->lose_cache([](unsigned, std::uint64_t) { return true; });
    EXPECT_EQ(read(initiator, 0, 2, 512), young);  // what survived is durable now
}

TEST_F(DataTransfer, ManyCommandsWaitForFewBuffers) {
    build("ram:16M", {}, nullptr, {.buffers_16k = 1, .buffers_128k = 0, .buffers_1m = 0, .buffers_8m = 1});
    auto& initiator = login();
    std::vector<std::uint64_t> tags;
    for (unsigned i = 0; i < 60; ++i) {
        const Bytes block = pattern(512, i);
        std::copy(block.begin(), block.end(), initiator.out().begin() + i * 512);
        tags.push_back(
            start(initiator, 0, cdb_10(0x2a, i, 1), i % 2 ? Data::out : Data::out_immediate, {{i * 512, 512}}));
        tags.push_back(start(initiator, 0, cdb_10(0x28, i, 1), Data::in, {{i * 512, 512}}));
    }
    settle();
    for (const auto tag : tags) EXPECT_EQ(initiator.answer(tag).status, 0);
    for (unsigned i = 0; i < 60; ++i) EXPECT_EQ(read(initiator, 0, i, 512), pattern(512, i));
    EXPECT_EQ(portal->commands(), 0u);
    EXPECT_EQ(initiator.responses.size(), 180u);
}

TEST_F(DataTransfer, ABadRemoteKeyEndsTheConnectionAndNothingElse) {
    build("ram:1M");
    auto& victim = login();
    auto& other = login({.guid = 2});
    Bytes unit = victim.command(1, 0, cdb_10(0x28, 0, 1), Data::in, {{0, 512}});
    unit[56] ^= std::byte{0xff};  // the key of the descriptor
    EXPECT_TRUE(victim.send(unit));
    settle();
    EXPECT_EQ(victim.end->reason, fabric::EndReason::transport_error);
    EXPECT_EQ(portal->commands(), 0u);
    EXPECT_EQ(execute(other, 0, cdb16({0x00})).status, 0);
}

TEST_F(DataTransfer, CountersTellWhatWasCarriedOut) {
    build("ram:1M");
    auto& initiator = login();
    (void)write(initiator, 0, 0, pattern(2048, 1));
    (void)read(initiator, 0, 0, 1024);
    const DeviceCounters counters = device->counters();
    EXPECT_EQ(counters.commands[0x2a], 1u);
    EXPECT_EQ(counters.commands[0x28], 1u);
    EXPECT_EQ(counters.blocks_written, 4u);
    EXPECT_EQ(counters.blocks_read, 2u);
}

}  // namespace
}  // namespace srpfs::target
