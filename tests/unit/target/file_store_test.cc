// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Units kept in files, whose answers come from worker threads by way of the executor.
#include "test_initiator.h"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>

#include <sys/stat.h>
#include <unistd.h>

namespace srpfs::target {
namespace {

class FileUnits : public TargetTest {
protected:
    void SetUp() override {
        char name[] = "/tmp/srpfs-file-unit-XXXXXX";
        const int fd = mkstemp(name);
        ASSERT_GE(fd, 0);
        ASSERT_EQ(ftruncate(fd, 1 << 20), 0);
        close(fd);
        path = name;
    }
    void TearDown() override {
        shut_down();
        unlink(path.c_str());
    }
    // The answer needs a thread of the store: turns until it is there.
    Rsp await(TestInitiator& initiator, std::uint64_t tag) {
        for (int i = 0; i < 100000 && !initiator.response(tag); ++i) {
            settle();
            std::this_thread::yield();
            if (i % 100 == 99) device->store(0)->drain();
        }
        EXPECT_TRUE(initiator.response(tag).has_value());
        return initiator.response(tag).value_or(Rsp{});
    }
    Rsp perform(TestInitiator& initiator, const Bytes& cdb, Data data = Data::none,
                std::vector<TestInitiator::Piece> pieces = {}) {
        return await(initiator, start(initiator, 0, cdb, data, std::move(pieces)));
    }
    static std::uint64_t number_of_blocks(const Bytes& capacity) {
        return ByteReader(capacity).u32() + std::uint64_t{1};
    }

    std::string path;
};

TEST_F(FileUnits, KeepWhatIsWrittenInTheFile) {
    build("file:" + path);
    auto& initiator = login();
    EXPECT_EQ(number_of_blocks(ask(initiator, 0, cdb16({0x25}))), 2048u);
    const Bytes content = pattern(4096, 1);
    std::copy(content.begin(), content.end(), initiator.out().begin());
    EXPECT_EQ(perform(initiator, cdb_10(0x2a, 8, 8), Data::out, {{0, 4096}}).status, 0);
    EXPECT_EQ(perform(initiator, cdb_10(0x2a, 100, 8), Data::out_immediate, {{0, 4096}}).status, 0);
    EXPECT_EQ(perform(initiator, cdb_10(0x35, 0, 0)).status, 0);

    std::ifstream file(path, std::ios::binary);
    for (const int lba : {8, 100}) {
        std::vector<char> raw(4096);
        file.seekg(lba * 512);
        file.read(raw.data(), 4096);
        EXPECT_EQ(std::memcmp(raw.data(), content.data(), 4096), 0);
    }
    EXPECT_EQ(perform(initiator, cdb_10(0x28, 8, 8), Data::in, {{0, 4096}}).status, 0);
    EXPECT_TRUE(std::equal(content.begin(), content.end(), initiator.in().begin()));
    EXPECT_EQ(perform(initiator, cdb_10(0x28, 2047, 1), Data::in, {{0, 512}}).status, 0);
    EXPECT_EQ(initiator.in()[0], std::byte{0});
}

TEST_F(FileUnits, DoNotBlockTheReactor) {
    build("file:" + path + "+ram:1M");
    auto& initiator = login();
    const auto slow = start(initiator, 0, cdb_10(0x28, 0, 8), Data::in, {{0, 4096}});
    fabric->poll(32);
    EXPECT_FALSE(initiator.response(slow));  // its answer can only come through the executor
    device->store(0)->drain();
    fabric->poll(32);
    EXPECT_FALSE(initiator.response(slow));
    EXPECT_EQ(await(initiator, slow).status, 0);
}

TEST_F(FileUnits, ServeManyCommandsAtOnce) {
    build("file:" + path);
    auto& initiator = login();
    std::vector<std::uint64_t> tags;
    for (unsigned i = 0; i < 100; ++i) {
        const Bytes block = pattern(512, i);
        std::copy(block.begin(), block.end(), initiator.out().begin() + i * 512);
        tags.push_back(start(initiator, 0, cdb_10(0x2a, i, 1), Data::out, {{i * 512, 512}}));
    }
    for (const auto tag : tags) EXPECT_EQ(await(initiator, tag).status, 0);
    EXPECT_EQ(perform(initiator, cdb_10(0x28, 0, 100), Data::in, {{0, 51200}}).status, 0);
    for (unsigned i = 0; i < 100; ++i) {
        const Bytes block = pattern(512, i);
        ASSERT_TRUE(std::equal(block.begin(), block.end(), initiator.in().begin() + i * 512));
    }
}

TEST_F(FileUnits, AFileThatBecameShorterIsAMediumError) {
    build("file:" + path);
    auto& initiator = login();
    ASSERT_EQ(truncate(path.c_str(), 512 * 10 + 100), 0);
    expect_sense(perform(initiator, cdb_10(0x28, 10, 1), Data::in, {{0, 512}}), 3, 0x11, 0);
    expect_sense(perform(initiator, cdb_10(0x28, 50, 1), Data::in, {{0, 512}}), 3, 0x11, 0);
    EXPECT_EQ(perform(initiator, cdb_10(0x28, 9, 1), Data::in, {{0, 512}}).status, 0);
}

TEST_F(FileUnits, AreOfTheSizeTheFileHasWhenTheirCapacityIsAskedFor) {
    build("file:" + path);
    auto& initiator = login();
    const Bytes ask_10 = cdb16({0x25}), ask_16 = cdb16({0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32});
    ASSERT_EQ(truncate(path.c_str(), 2 << 20), 0);
    expect_sense(perform(initiator, cdb_10(0x28, 4095, 1), Data::in, {{0, 512}}), 5, 0x21, 0);
    EXPECT_EQ(number_of_blocks(ask(initiator, 0, ask_10)), 4096u);
    EXPECT_EQ(perform(initiator, cdb_10(0x28, 4095, 1), Data::in, {{0, 512}}).status, 0);
    // Part of a block does not count.
    ASSERT_EQ(truncate(path.c_str(), 512 * 10 + 100), 0);
    EXPECT_EQ(ByteReader(ask(initiator, 0, ask_16)).u64(), 9u);
    expect_sense(perform(initiator, cdb_10(0x28, 10, 1), Data::in, {{0, 512}}), 5, 0x21, 0);
    ASSERT_EQ(truncate(path.c_str(), 511), 0);
    for (const Bytes& cdb : {ask_10, ask_16}) expect_sense(perform(initiator, cdb, Data::in, {{0, 32}}), 2, 0x3a, 0);
    ASSERT_EQ(truncate(path.c_str(), 512), 0);
    EXPECT_EQ(number_of_blocks(ask(initiator, 0, ask_10)), 1u);
}

TEST_F(FileUnits, AWriteLandsAfterItsChannelEnded) {
    build("file:" + path);
    auto& initiator = login();
    std::fill_n(initiator.out().begin(), 512, std::byte{0x5a});
    (void)start(initiator, 0, cdb_10(0x2a, 4, 1), Data::out, {{0, 512}});
    for (int i = 0; i < 4; ++i) fabric->poll(1);
    initiator.disconnect();
    settle();
    device->store(0)->drain();
    settle();
    EXPECT_EQ(portal->commands(), 0u);
    auto& again = login();
    EXPECT_EQ(perform(again, cdb_10(0x28, 4, 1), Data::in, {{0, 512}}).status, 0);
    EXPECT_EQ(again.in()[0], std::byte{0x5a});
}

TEST_F(FileUnits, AbortOfARunningWriteIsAnsweredAfterIt) {
    build("file:" + path);
    auto& initiator = login();
    const auto write_tag = start(initiator, 0, cdb_10(0x2a, 4, 1), Data::out_immediate, {{0, 512}});
    fabric->poll(32);
    const auto management = next_tag++;
    EXPECT_TRUE(initiator.send(initiator.task_management(management, 0, 0x01, write_tag)));
    fabric->poll(32);
    EXPECT_FALSE(initiator.response(management));  // the store has it, and its word is not in yet
    EXPECT_EQ(await(initiator, management).task_code, 0);
    EXPECT_FALSE(initiator.response(write_tag));
}

TEST_F(FileUnits, UnmapPunchesAHole) {
    LunConfig config = parse_lun_list("file:" + path).value()[0];
    config.unmap = true;
    build(std::vector{config});
    auto& initiator = login();
    std::fill_n(initiator.out().begin(), 1 << 20, std::byte{0x5a});
    EXPECT_EQ(perform(initiator, cdb_10(0x2a, 0, 2048), Data::out, {{0, 1 << 20}}).status, 0);
    struct stat full {
    }, sparse{};
    ASSERT_EQ(stat(path.c_str(), &full), 0);
    Bytes list(8 + 16);
    ByteWriter(list).u16(22).u16(16).zeros(4).u64(0).u32(1024).zeros(4);
    std::copy(list.begin(), list.end(), initiator.out().begin());
    EXPECT_EQ(perform(initiator, cdb16({0x42, 0, 0, 0, 0, 0, 0, 0, 24}), Data::out, {{0, 24}}).status, 0);
    ASSERT_EQ(stat(path.c_str(), &sparse), 0);
    EXPECT_LT(sparse.st_blocks, full.st_blocks);
    EXPECT_EQ(perform(initiator, cdb_10(0x28, 1023, 2), Data::in, {{0, 1024}}).status, 0);
    EXPECT_EQ(initiator.in()[511], std::byte{0});
    EXPECT_EQ(initiator.in()[512], std::byte{0x5a});
}

TEST_F(FileUnits, ResizeGrowsTheFile) {
    build("file:" + path);
    ASSERT_TRUE(device->resize_lun(0, 2 << 20));
    struct stat status {};
    ASSERT_EQ(stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_size, 2 << 20);
}

TEST_F(FileUnits, NeedAUsableFile) {
    const auto error_of = [](const std::string& text) {
        const auto made = Device::create({}, *parse_lun_list(text));
        return made ? Error(0, "") : made.error();
    };
    EXPECT_EQ(error_of("file:/nonexistent/disk").errno_value(), ENOENT);
    EXPECT_NE(error_of("ram:1M+file:/nonexistent/disk").context.find("LUN 1: cannot open /nonexistent/disk"),
              std::string::npos);
    EXPECT_EQ(error_of("file:/dev/null").errno_value(), EINVAL);
    EXPECT_EQ(error_of("file:/tmp,ro").errno_value(), EINVAL);
    ASSERT_EQ(truncate(path.c_str(), 1000), 0);
    EXPECT_NE(error_of("file:" + path).context.find("no multiple"), std::string::npos);
    ASSERT_EQ(truncate(path.c_str(), 0), 0);
    EXPECT_NE(error_of("file:" + path).context.find("is empty"), std::string::npos);
}

TEST_F(FileUnits, ClosingWhileTheStoreIsBusyIsSafe) {
    build("file:" + path);
    auto& initiator = login();
    for (unsigned i = 0; i < 20; ++i) (void)start(initiator, 0, cdb_10(0x2a, i, 64), Data::out, {{0, 32768}});
    fabric->poll(32);
    fabric->poll(32);
    initiator.disconnect();
    portal->close();
    for (int i = 0; i < 10; ++i) {
        fabric->poll(64);
        executor.timers().advance_to(executor.timers().now() + 1s);
    }
    portal.reset();  // with commands in the store: waits for the disk, not for the mailbox
    settle();
}

}  // namespace
}  // namespace srpfs::target
