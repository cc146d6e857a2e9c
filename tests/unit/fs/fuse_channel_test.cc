// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "fuse_channel.h"

#include "client.h"
#include "threads.h"
#include "world.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <numeric>
#include <random>
#include <tuple>
#include <utility>

#include <fcntl.h>
#include <linux/falloc.h>

namespace {
bool has_no_memory = false;  // for those that ask whether there is
}

void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
    try {
        return has_no_memory ? nullptr : ::operator new[](bytes);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

namespace srpfs::fs::test {
namespace {

constexpr std::uint64_t capacity = (4 << 20) + 512;
constexpr std::uint32_t mib = 1 << 20;

std::vector<std::byte> pattern(std::size_t size, unsigned seed) {
    std::vector<std::byte> bytes(size);
    for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>((i * 31 + i / 251 + seed) & 0xff);
    return bytes;
}

struct Host final : ChannelHost {
    void on_control_request(const Origin& origin, std::vector<std::byte> request) override {
        requests.emplace_back(origin, std::move(request));
    }
    void on_control_interrupt(const Origin& origin) override { interrupts.push_back(origin.unique); }
    void on_disconnected(unsigned, int errno_value) override { disconnects.push_back(errno_value); }
    void on_drop_pages(unsigned, NodeId node, std::vector<lun::ByteRange> ranges, std::uint64_t ticket) override {
        drops.push_back({node, std::move(ranges), ticket});
    }
    std::vector<std::pair<Origin, std::vector<std::byte>>> requests;
    std::vector<std::uint64_t> interrupts;
    std::vector<int> disconnects;
    struct Drop {
        NodeId node;
        std::vector<lun::ByteRange> ranges;
        std::uint64_t ticket;
    };
    std::vector<Drop> drops;
};

// Holds or delays commands, as the tests say.
struct Slow final : target::Behaviour {
    target::CommandPlan on_command(const target::CommandView& command) override {
        target::CommandPlan plan;
        const auto opcode = static_cast<std::uint8_t>(command.cdb[0]);
        const bool is_data = opcode == scsi::opcode::read_10 || opcode == scsi::opcode::write_10;
        const bool zeroes = opcode == scsi::opcode::write_same_16;
        if (zeroes) ++zeroings;
        plan.hold = (holding && is_data) || (holding_zeroes && zeroes);
        if (is_data) fua = fua || (static_cast<std::uint8_t>(command.cdb[1]) & 0x08) != 0;
        return plan;
    }
    bool holding = false, holding_zeroes = false;
    unsigned zeroings = 0;  // WRITE SAME commands
    bool fua = false;
};

class FuseChannelTest : public ::testing::Test {
protected:
    explicit FuseChannelTest(target::LunConfig lun = {.kind = target::StoreKind::ram, .bytes = capacity})
        : world_(lun) {
        world_.device().set_behaviour(&slow_);
        lun_ = std::make_shared<LunData>();
        lun_->unit = &world_.unit();
        lun_->capacity_bytes = world_.unit().info()->capacity_bytes();
        OpenFileDetails details;
        details.node = NodeId{2};
        details.lun = lun_;
        details.writable = true;
        handle_ = files_.open(std::move(details));
        channel_ = std::make_shared<FuseChannel>(0, client_.take_server_end(), world_.engine(), files_, host_);
        world_.source = [this] {
            const bool worked = channel_ && channel_->poll();
            if (channel_) channel_->flush();
            return worked;
        };
    }
    ~FuseChannelTest() override {
        slow_.holding = slow_.holding_zeroes = false;
        world_.device().release_held();
        world_.settle();
        if (channel_) channel_->leave();
        channel_.reset();
        world_.advance(std::chrono::seconds(1));
        world_.device().set_behaviour(nullptr);
    }

    Reply await(std::uint64_t unique) {
        return client_.await(unique, [this] { world_.settle(); });
    }
    Reply read(std::uint64_t offset, std::uint32_t size) { return await(client_.read(handle_, offset, size)); }
    Reply write(std::uint64_t offset, std::span<const std::byte> data, std::uint32_t flags = 0) {
        return await(client_.write(handle_, offset, data, flags));
    }

    Slow slow_;
    Host host_;
    Client client_;
    OpenFiles files_;
    World world_;
    std::shared_ptr<LunData> lun_;
    std::uint64_t handle_ = 0;
    std::shared_ptr<FuseChannel> channel_;
};

TEST_F(FuseChannelTest, ReadsBackWhatWasWrittenAtAnyOffsetAndLength) {
    for (const auto& [offset, size] : std::initializer_list<std::pair<std::uint64_t, std::uint32_t>>{
             {0, 512}, {512, 4096}, {1000, 1}, {4095, 4098}, {123457, 100'003}, {0, mib}, {mib - 7, mib}}) {
        const auto data = pattern(size, size);

        const Reply written = write(offset, data);
        const Reply back = read(offset, size);

        EXPECT_EQ(written.error, 0) << offset;
        EXPECT_EQ(written.as<fuse_write_out>().size, size) << offset;
        EXPECT_EQ(back.error, 0) << offset;
        EXPECT_EQ(back.body, data) << offset;
    }
    EXPECT_EQ(channel_->pending(), 0u);
    EXPECT_EQ(world_.engine().usage().operations_in_use, 0u);
}

TEST_F(FuseChannelTest, ReadsAreShortAtTheEndAndEmptyBeyondIt) {
    EXPECT_EQ(read(capacity - 100, 4096).body.size(), 100u);
    const Reply at_end = read(capacity, 4096);
    EXPECT_EQ(at_end.error, 0);
    EXPECT_TRUE(at_end.body.empty());
    EXPECT_TRUE(read(capacity + 12345, 1).body.empty());
    EXPECT_EQ(read(UINT64_MAX - 5, 4096).error, EINVAL);
}

TEST_F(FuseChannelTest, WritesAreShortAcrossTheEndAndRefusedBeyondIt) {
    const auto data = pattern(4096, 9);

    EXPECT_EQ(write(capacity - 100, data).as<fuse_write_out>().size, 100u);
    EXPECT_EQ(write(capacity, data).error, ENOSPC);
    EXPECT_EQ(write(capacity + 1, data).error, ENOSPC);
    EXPECT_EQ(write(UINT64_MAX - 5, data).error, EINVAL);

    const auto back = read(capacity - 100, 100).body;
    EXPECT_TRUE(std::equal(back.begin(), back.end(), data.begin()));
}

TEST_F(FuseChannelTest, ManyRequestsInFlightAreEachAnsweredOnce) {
    std::vector<std::uint64_t> uniques;
    for (unsigned i = 0; i < 64; ++i) uniques.push_back(client_.write(handle_, i * 4096, pattern(4096, i)));
    for (const auto unique : uniques) EXPECT_EQ(await(unique).error, 0);
    uniques.clear();
    for (unsigned i = 0; i < 64; ++i) uniques.push_back(client_.read(handle_, i * 4096, 4096));
    for (unsigned i = 0; i < 64; ++i) EXPECT_EQ(await(uniques[i]).body, pattern(4096, i));
    EXPECT_EQ(client_.unexpected(), 0u);
}

TEST_F(FuseChannelTest, ATurnTakesManySmallRequestsAndFewLargeOnes) {
    const auto taken_by = [&](std::uint32_t size) {
        std::vector<std::uint64_t> uniques;
        for (unsigned i = 0; i < 8; ++i) uniques.push_back(client_.read(handle_, 0, size));
        const std::uint64_t before = channel_->counters().requests;
        (void)channel_->poll();
        const std::uint64_t taken = channel_->counters().requests - before;
        for (const auto unique : uniques) EXPECT_EQ(await(unique).error, 0);
        return taken;
    };
    EXPECT_EQ(taken_by(4096), 8u);
    EXPECT_EQ(taken_by(65536), 2u);
    EXPECT_EQ(taken_by(1 << 20), 1u);
}

TEST_F(FuseChannelTest, ASynchronousWriteIsDurable) {
    (void)write(0, pattern(512, 1));
    EXPECT_FALSE(slow_.fua);
    for (const std::uint32_t flags : {std::uint32_t{O_DSYNC}, std::uint32_t{O_SYNC}})
        EXPECT_EQ(write(0, pattern(512, 1), flags).error, 0);
    // This unit has no volatile cache, so FUA changes nothing; the cached unit is below.
}

class CachedUnitTest : public FuseChannelTest {
protected:
    CachedUnitTest() : FuseChannelTest({.kind = target::StoreKind::ram, .bytes = capacity, .write_cache = true}) {}
    std::uint64_t flushes() {
        const auto counters = world_.device().counters();
        return counters.commands[scsi::opcode::synchronize_cache_10] +
               counters.commands[scsi::opcode::synchronize_cache_16];
    }
};

TEST_F(CachedUnitTest, ODsyncReachesTheMediumAndPlainWritesDoNot) {
    (void)write(0, pattern(512, 1));
    EXPECT_FALSE(slow_.fua);
    EXPECT_EQ(flushes(), 0u);

    EXPECT_EQ(write(0, pattern(512, 1), O_DSYNC).error, 0);

    EXPECT_TRUE(slow_.fua || flushes() == 1);
}

TEST_F(CachedUnitTest, WhatADurableWriteLeavesOutOfATruncatedFileIsFlushedBeforeItsAnswer) {
    int error = -1;
    channel_->truncate(handle_, lun_, 0, 9999, [&](int result) { error = result; });
    ASSERT_EQ(error, 0);
    EXPECT_EQ(write(mib, pattern(4096, 1)).error, 0);  // its zeros may wait
    EXPECT_EQ(flushes(), 0u);

    EXPECT_EQ(write(2 * mib, pattern(4096, 2), O_DSYNC).error, 0);

    EXPECT_TRUE(slow_.fua);
    EXPECT_EQ(flushes(), 1u);
    // What comes next leaves nothing out.
    EXPECT_EQ(write(2 * mib + 4096, pattern(4096, 3), O_DSYNC).error, 0);
    EXPECT_EQ(flushes(), 1u);
}

TEST_F(CachedUnitTest, WhatAFileOpenedWithODsyncGrowsByIsFlushed) {
    OpenFileDetails details;
    details.node = NodeId{2};
    details.lun = lun_;
    details.writable = details.is_durable = true;
    const std::uint64_t durable = files_.open(std::move(details));
    const auto truncate = [&](std::uint64_t handle, std::uint64_t end) {
        int error = -1;
        channel_->truncate(handle, lun_, end, 9999, [&](int result) { error = result; });
        for (unsigned i = 0; i < 100 && error < 0; ++i) world_.settle();
        EXPECT_EQ(error, 0);
    };
    truncate(handle_, 0);
    truncate(handle_, mib);
    EXPECT_EQ(flushes(), 0u);
    truncate(durable, 0);
    truncate(durable, mib);
    EXPECT_EQ(flushes(), 1u);
    fuse_fallocate_in in{};
    in.fh = durable;
    in.length = 4096;
    in.mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    EXPECT_EQ(await(client_.request(FUSE_FALLOCATE, 2, in)).error, 0);
    EXPECT_EQ(flushes(), 2u);
}

TEST_F(CachedUnitTest, FsyncFlushesOnceForUnflushedWrites) {
    (void)write(0, pattern(512, 1));

    EXPECT_EQ(await(client_.fsync(handle_)).error, 0);
    EXPECT_EQ(flushes(), 1u);
    EXPECT_EQ(await(client_.fsync(handle_)).error, 0);
    EXPECT_EQ(flushes(), 1u);
}

TEST_F(CachedUnitTest, FsyncTellsEachOpenFileOnceThatWritesAreLost) {
    OpenFileDetails details;
    details.lun = lun_;
    const auto another = files_.open(std::move(details));
    (void)write(0, pattern(512, 1));
    lun_->unit.load()->on_target_restart();

    channel_->flush_after_close(lun_);
    world_.settle();

    for (const auto handle : {handle_, another}) {
        EXPECT_EQ(await(client_.fsync(handle)).error, EIO);
        EXPECT_EQ(await(client_.fsync(handle)).error, 0);
    }
}

TEST_F(CachedUnitTest, TheLastCloseOfAWriterFlushesAndAnswersNobody) {
    (void)write(0, pattern(512, 1));

    channel_->flush_after_close(lun_);
    world_.settle();

    EXPECT_EQ(flushes(), 1u);
    EXPECT_EQ(client_.unexpected(), 0u);
    EXPECT_EQ(channel_->pending(), 0u);
}

TEST_F(FuseChannelTest, AWriteTellsWhenItWas) {
    EXPECT_EQ(lun_->last_write, 0);
    world_.advance(std::chrono::seconds(3));

    (void)write(0, pattern(512, 1));

    EXPECT_EQ(Instant(Duration(lun_->last_write)), world_.executor().timers().now());
}

TEST_F(FuseChannelTest, UnknownClosedAndRemovedHandlesAreEnodev) {
    EXPECT_EQ(await(client_.read(handle_ + 1, 0, 512)).error, ENODEV);
    EXPECT_EQ(await(client_.read(0, 0, 512)).error, ENODEV);
    EXPECT_EQ(await(client_.read(UINT64_MAX, 0, 512)).error, ENODEV);
    files_.unpublish(handle_);

    EXPECT_EQ(read(0, 512).error, ENODEV);
    EXPECT_EQ(write(0, pattern(512, 1)).error, ENODEV);
    EXPECT_EQ(await(client_.fsync(handle_)).error, ENODEV);
}

TEST_F(FuseChannelTest, OutcomesOfTheTargetBecomeErrnoValues) {
    ASSERT_TRUE(world_.device().set_read_only(0, true));
    EXPECT_EQ(write(0, pattern(512, 1)).error, EROFS);

    world_.link().set_state(initiator::PortState::fail_fast);
    EXPECT_EQ(read(0, 512).error, EIO);
    world_.link().set_state(initiator::PortState::lost);
    EXPECT_EQ(read(0, 512).error, ENODEV);
}

TEST_F(FuseChannelTest, InterruptEndsAWaitingRequestAtOnce) {
    world_.block();
    const auto unique = client_.read(handle_, 0, 512);
    const auto other = client_.read(handle_, 0, 512);
    world_.settle();
    EXPECT_EQ(channel_->pending(), 2u);

    client_.interrupt(unique);

    EXPECT_EQ(await(unique).error, EINTR);
    world_.unblock();
    EXPECT_EQ(await(other).error, 0);
    EXPECT_EQ(client_.unexpected(), 0u);
}

TEST_F(FuseChannelTest, InterruptOfACommandInFlightIsAnsweredAfterTheGracePeriodAndOnce) {
    slow_.holding = true;
    const auto unique = client_.read(handle_, 0, 512);
    world_.settle();

    client_.interrupt(unique);
    client_.interrupt(unique);
    world_.advance(std::chrono::milliseconds(400));
    EXPECT_EQ(client_.unexpected(), 0u);
    world_.advance(std::chrono::milliseconds(200));

    EXPECT_EQ(await(unique).error, EINTR);
    slow_.holding = false;
    world_.device().release_held();
    world_.settle();
    EXPECT_EQ(client_.unexpected(), 0u);
}

TEST_F(FuseChannelTest, InterruptOfAnAnsweredRequestIsIgnored) {
    const auto unique = client_.read(handle_, 0, 512);
    EXPECT_EQ(await(unique).error, 0);

    client_.interrupt(unique);
    world_.settle();

    EXPECT_EQ(client_.unexpected(), 0u);
}

TEST_F(FuseChannelTest, InterruptBeforeItsRequestIsAskedForAgain) {
    const auto unique = client_.next_unique();
    const auto interrupt = client_.interrupt(unique);

    EXPECT_EQ(await(interrupt).error, EAGAIN);
}

TEST_F(FuseChannelTest, InterruptOfARequestThatControlServesGoesThere) {
    OpenFileDetails details;
    details.node = NodeId{3};
    const auto control_handle = files_.open(std::move(details));
    const auto unique = client_.write(control_handle, 0, bytes_of_text("login"));
    world_.settle();
    ASSERT_EQ(host_.requests.size(), 1u);

    client_.interrupt(unique);
    world_.settle();

    EXPECT_EQ(host_.interrupts, std::vector<std::uint64_t>{unique});
    channel_->finish(host_.requests[0].first, make_reply(unique, EINTR));
    EXPECT_EQ(await(unique).error, EINTR);
    EXPECT_EQ(channel_->pending(), 0u);
}

TEST_F(FuseChannelTest, HandsTheRareRequestsOverUnchangedAndAnswersThemOnce) {
    const auto unique = client_.named(FUSE_LOOKUP, 1, "lun0");
    world_.settle();
    ASSERT_EQ(host_.requests.size(), 1u);
    const auto& [origin, request] = host_.requests[0];
    EXPECT_EQ(request, [&] {
        auto name = bytes_of_text("lun0");
        name.push_back(std::byte{0});
        return Client::make(FUSE_LOOKUP, unique, 1, {}, name);
    }());

    channel_->finish(origin, make_reply(unique, ENOENT));
    channel_->finish(origin, make_reply(unique, ENOENT));

    EXPECT_EQ(await(unique).error, ENOENT);
    EXPECT_EQ(client_.unexpected(), 0u);
}

TEST_F(FuseChannelTest, OfCommandsOfMoreThan64KiBAsMuchAsShowsThatIsHandedOn) {
    OpenFileDetails details;
    details.node = NodeId{3};
    const auto control_handle = files_.open(std::move(details));

    constexpr std::size_t head_bytes = sizeof(fuse_in_header) + sizeof(fuse_write_in), most = 64 * 1024;
    for (const auto& [written, handed_on] : {std::pair(most, most), {most + 1, most + 1}, {16 * most, most + 1}}) {
        (void)client_.write(control_handle, 0, std::vector<std::byte>(written));
        world_.settle();
        EXPECT_EQ(host_.requests.back().second.size(), head_bytes + handed_on) << written;
    }
    EXPECT_EQ(host_.requests.size(), 3u);
}

TEST_F(FuseChannelTest, FsyncAndFlushOfAControlFileSucceedAtOnce) {
    OpenFileDetails details;
    details.node = NodeId{3};
    const auto control_handle = files_.open(std::move(details));
    fuse_flush_in flush{};
    flush.fh = control_handle;

    EXPECT_EQ(await(client_.fsync(control_handle)).error, 0);
    EXPECT_EQ(await(client_.request(FUSE_FLUSH, 3, flush)).error, 0);
    EXPECT_TRUE(host_.requests.empty());
}

TEST_F(FuseChannelTest, ALunIsAllDataForLseek) {
    const auto seek = [&](std::uint64_t offset, std::uint32_t whence) {
        fuse_lseek_in in{};
        in.fh = handle_;
        in.offset = offset;
        in.whence = whence;
        return await(client_.request(FUSE_LSEEK, 2, in));
    };
    EXPECT_EQ(seek(1000, SEEK_DATA).as<fuse_lseek_out>().offset, 1000u);
    EXPECT_EQ(seek(1000, SEEK_HOLE).as<fuse_lseek_out>().offset, capacity);
    EXPECT_EQ(seek(capacity, SEEK_DATA).error, ENXIO);
    EXPECT_EQ(seek(capacity - 1, SEEK_HOLE).as<fuse_lseek_out>().offset, capacity);
    EXPECT_EQ(seek(0, 17).error, EINVAL);
}

// ---- fallocate(2), ftruncate(2) ----

class ZeroJobsTest : public FuseChannelTest {
protected:
    static constexpr std::uint32_t keep = FALLOC_FL_KEEP_SIZE, punch = keep | FALLOC_FL_PUNCH_HOLE,
                                   zero = FALLOC_FL_ZERO_RANGE;

    std::uint64_t send_fallocate(std::uint64_t handle, std::uint64_t offset, std::uint64_t length, std::uint32_t mode) {
        fuse_fallocate_in in{};
        in.fh = handle;
        in.offset = offset;
        in.length = length;
        in.mode = mode;
        return client_.request(FUSE_FALLOCATE, 2, in);
    }
    int allocate(std::uint64_t offset, std::uint64_t length, std::uint32_t mode) {
        return await(send_fallocate(handle_, offset, length, mode)).error;
    }
    int truncate(std::uint64_t handle, std::uint64_t end) {
        int error = -1;
        channel_->truncate(handle, lun_, end, 9999, [&](int result) { error = result; });
        for (unsigned i = 0; i < 1000 && error < 0; ++i) world_.settle();
        return error;
    }
    std::size_t parked() { return world_.engine().usage().parked_bytes; }
    void let_go() {
        slow_.holding = slow_.holding_zeroes = false;
        world_.device().release_held();
    }
    std::uint64_t open_another() {
        OpenFileDetails details;
        details.node = NodeId{2};
        details.lun = lun_;
        details.writable = true;
        return files_.open(std::move(details));
    }
    void fill() {
        for (std::uint64_t at = 0; at < capacity; at += mib)
            ASSERT_EQ(
                write(at, pattern(static_cast<std::size_t>(std::min<std::uint64_t>(mib, capacity - at)), 77)).error, 0);
    }
    std::vector<std::byte> content() {
        std::vector<std::byte> all;
        while (all.size() < capacity) {
            const auto piece = read(all.size(), mib).body;
            all.insert(all.end(), piece.begin(), piece.end());
        }
        return all;
    }
};

TEST_F(ZeroJobsTest, WhatFallocateOffersIsInsideTheDevice) {
    EXPECT_EQ(allocate(0, capacity, 0), 0);
    EXPECT_EQ(allocate(1, capacity, 0), EFBIG);
    EXPECT_EQ(allocate(UINT64_MAX, UINT64_MAX, 0), EFBIG);
    EXPECT_EQ(allocate(capacity, 1, keep), EFBIG);
    EXPECT_EQ(allocate(capacity - 512, 513, zero), EFBIG);
    EXPECT_EQ(allocate(0, 4096, FALLOC_FL_COLLAPSE_RANGE), EOPNOTSUPP);
    EXPECT_EQ(allocate(0, 4096, FALLOC_FL_PUNCH_HOLE), EOPNOTSUPP);
    EXPECT_EQ(slow_.zeroings, 0u);
    // Beyond the end there is nothing that could have other content.
    EXPECT_EQ(allocate(capacity, 4096, punch), 0);
    EXPECT_EQ(allocate(capacity - 512, UINT64_MAX, punch), 0);
    EXPECT_EQ(allocate(capacity - 512, UINT64_MAX, zero | keep), 0);
}

TEST_F(ZeroJobsTest, HolesAndZeroedRangesReadAsZerosAndNothingElseChanges) {
    fill();
    auto expected = content();
    for (const auto& [offset, length, mode] :
         std::initializer_list<std::tuple<std::uint64_t, std::uint64_t, unsigned>>{{4096, 8192, punch},
                                                                                   {100'001, 300'007, punch},
                                                                                   {2 * mib, mib + 5, zero},
                                                                                   {3 * mib + 1, 3, zero | keep},
                                                                                   {capacity - 700, 5000, punch}}) {
        ASSERT_EQ(allocate(offset, length, mode), 0) << offset;
        const auto end = std::min(capacity, offset + length);
        std::fill(expected.begin() + static_cast<std::ptrdiff_t>(offset),
                  expected.begin() + static_cast<std::ptrdiff_t>(end), std::byte{});
    }
    EXPECT_EQ(content(), expected);
    EXPECT_GT(slow_.zeroings, 0u);
}

TEST_F(ZeroJobsTest, ZeroesThatSomebodyHasAskedForTellWhenTheyWereWritten) {
    for (const std::uint32_t mode : {punch, zero}) {
        world_.advance(std::chrono::seconds(3));
        ASSERT_EQ(allocate(mib, 4096, mode), 0);
        EXPECT_EQ(Instant(Duration(lun_->last_write)), world_.executor().timers().now());
    }
}

TEST_F(ZeroJobsTest, ATruncatedFileIsWrittenLikeAFileWhateverTheOrder) {
    std::mt19937_64 random(7);
    const auto below = [&](std::uint64_t limit) { return random() % limit; };
    fill();
    const auto before = content();
    for (unsigned round = 0; round < 15; ++round) {
        fill();
        const std::uint64_t handle = open_another();
        std::vector<std::byte> file;
        std::uint64_t reached = 0;  // nothing beyond has a reason to change
        ASSERT_EQ(truncate(handle, 0), 0);
        for (unsigned step = 0; step < 12; ++step) {
            const std::uint64_t offset = below(3) == 0 ? below(capacity - 1) : below(capacity / 512) * 512;
            const std::uint64_t length = std::min<std::uint64_t>(capacity - offset, 1 + below(200'000));
            switch (below(6)) {
                case 0:
                    ASSERT_EQ(truncate(handle, offset), 0);
                    file.resize(offset);
                    break;
                case 1: {
                    const bool keeps = below(2) == 0;
                    ASSERT_EQ(await(send_fallocate(handle, offset, length, keeps ? zero | keep : zero)).error, 0);
                    if (!keeps) file.resize(std::max<std::size_t>(file.size(), offset + length));
                    for (std::uint64_t at = offset; at < std::min<std::uint64_t>(file.size(), offset + length); ++at)
                        file[at] = std::byte{};
                    reached = std::max(reached, offset + length);
                    break;
                }
                case 2:
                    ASSERT_EQ(await(send_fallocate(handle, offset, length, 0)).error, 0);
                    file.resize(std::max<std::size_t>(file.size(), offset + length));
                    break;
                default: {
                    const auto data = pattern(length, step);
                    ASSERT_EQ(await(client_.write(handle, offset, data)).as<fuse_write_out>().size, length);
                    file.resize(std::max<std::size_t>(file.size(), offset + length));
                    std::copy(data.begin(), data.end(), file.begin() + static_cast<std::ptrdiff_t>(offset));
                }
            }
            reached = std::max<std::uint64_t>(reached, file.size());
        }
        const auto now = content();
        ASSERT_TRUE(std::equal(file.begin(), file.end(), now.begin())) << "round " << round;
        const auto untouched = static_cast<std::ptrdiff_t>(reached);
        ASSERT_TRUE(std::equal(now.begin() + untouched, now.end(), before.begin() + untouched)) << "round " << round;
        channel_->on_file_closed(handle);
    }
}

TEST_F(ZeroJobsTest, WritesOfATruncatedFileThatOvertakeEachOtherAllStay) {
    fill();
    ASSERT_EQ(truncate(handle_, 0), 0);
    slow_.holding_zeroes = true;
    const auto late = client_.write(handle_, 2 * mib, pattern(4096, 1));  // waits for zeros before it
    const auto early = client_.write(handle_, mib, pattern(4096, 2));     // inside what becomes zeros
    const auto first = client_.write(handle_, 0, pattern(4096, 3));
    world_.settle();
    EXPECT_EQ(slow_.zeroings, 1u);
    EXPECT_FALSE(client_.has_answer(late) || client_.has_answer(early) || client_.has_answer(first));
    slow_.holding_zeroes = false;
    world_.device().release_held();
    for (const auto unique : {late, early, first}) EXPECT_EQ(await(unique).error, 0);
    std::vector<std::byte> expected(2 * mib + 4096);
    const auto put = [&](std::size_t at, unsigned seed) {
        const auto data = pattern(4096, seed);
        std::copy(data.begin(), data.end(), expected.begin() + static_cast<std::ptrdiff_t>(at));
    };
    put(2 * mib, 1);
    put(mib, 2);
    put(0, 3);
    const auto now = content();
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), now.begin()));
}

TEST_F(ZeroJobsTest, WhatAnotherHandleHasWrittenMeanwhileIsNoHole) {
    fill();
    const std::uint64_t other = open_another();
    ASSERT_EQ(truncate(handle_, 0), 0);
    ASSERT_EQ(await(client_.write(other, mib + 7, pattern(5000, 4))).error, 0);
    ASSERT_EQ(write(3 * mib, pattern(10, 5)).error, 0);
    EXPECT_EQ(read(mib + 7, 5000).body, pattern(5000, 4));
    EXPECT_EQ(read(mib, 7).body, std::vector<std::byte>(7));
    EXPECT_EQ(read(mib + 5007, 5000).body, std::vector<std::byte>(5000));
    EXPECT_EQ(read(0, 512).body, std::vector<std::byte>(512));
}

TEST_F(ZeroJobsTest, AWriteOfAnotherHandleIntoAGapThatIsBeingZeroedComesAfterIt) {
    fill();
    const std::uint64_t other = open_another();
    ASSERT_EQ(truncate(handle_, 0), 0);
    slow_.holding_zeroes = true;
    const auto gap = client_.write(handle_, 2 * mib, pattern(10, 5));
    const auto inside = client_.write(other, mib, pattern(4096, 6));
    const auto outside = client_.write(other, 3 * mib, pattern(4096, 7));
    EXPECT_EQ(await(outside).error, 0);
    EXPECT_FALSE(client_.has_answer(inside));
    slow_.holding_zeroes = false;
    world_.device().release_held();
    EXPECT_EQ(await(gap).error, 0);
    EXPECT_EQ(await(inside).error, 0);
    EXPECT_EQ(read(mib, 4096).body, pattern(4096, 6));
}

// The kernel would take an answer for a sign that the device has grown.
TEST_F(ZeroJobsTest, AppendingEndsInNoSpaceInATruncatedFileToo) {
    ASSERT_EQ(truncate(handle_, 1000), 0);
    EXPECT_EQ(write(capacity, pattern(10, 2), O_APPEND).error, ENOSPC);
}

TEST_F(ZeroJobsTest, ClosingForgetsTheEnd) {
    fill();
    const auto before = content();
    ASSERT_EQ(truncate(handle_, 0), 0);
    channel_->on_file_closed(handle_);
    ASSERT_EQ(write(mib, pattern(512, 1)).error, 0);
    EXPECT_EQ(slow_.zeroings, 0u);
    EXPECT_TRUE(std::equal(before.begin(), before.begin() + mib, content().begin()));
}

TEST_F(ZeroJobsTest, AFailureToZeroFailsWhatNeedsItAndTheEndStaysWhereItWas) {
    fill();
    ASSERT_EQ(truncate(handle_, 0), 0);
    slow_.holding_zeroes = true;
    const auto gap = client_.write(handle_, 2 * mib, pattern(10, 5));
    const auto waiting = client_.write(handle_, 0, pattern(512, 6));
    world_.settle();
    client_.interrupt(gap);
    world_.advance(std::chrono::seconds(1));
    EXPECT_EQ(await(gap).error, EINTR);
    slow_.holding_zeroes = false;
    world_.device().release_held();
    EXPECT_EQ(await(waiting).error, 0);  // a turn later, as if it came now
    EXPECT_EQ(read(0, 512).body, pattern(512, 6));
    ASSERT_EQ(write(2 * mib, pattern(10, 5)).error, 0);
    EXPECT_EQ(read(mib, 512).body, std::vector<std::byte>(512));
}

TEST_F(ZeroJobsTest, AWaitingWriteAndATruncationCanBeInterrupted) {
    fill();
    ASSERT_EQ(truncate(handle_, 0), 0);
    slow_.holding_zeroes = true;
    const auto gap = client_.write(handle_, 2 * mib, pattern(10, 5));
    const auto waiting = client_.write(handle_, mib, pattern(512, 6));
    world_.settle();
    client_.interrupt(waiting);
    EXPECT_EQ(await(waiting).error, EINTR);
    slow_.holding_zeroes = false;
    world_.device().release_held();
    EXPECT_EQ(await(gap).error, 0);
    EXPECT_EQ(read(mib, 512).body, std::vector<std::byte>(512));

    slow_.holding_zeroes = true;
    int error = -1;
    channel_->truncate(handle_, lun_, 3 * mib, 4711, [&](int result) { error = result; });
    world_.settle();
    EXPECT_EQ(error, -1);
    channel_->interrupt_truncation(4711);
    world_.advance(std::chrono::seconds(1));
    EXPECT_EQ(error, EINTR);
}

// Nothing of it has been written, so the zeros that are to be there come with the next gap.
TEST_F(ZeroJobsTest, WhatAWriteOfAnotherHandleHasNotWrittenIsAHole) {
    fill();
    const std::uint64_t other = open_another();
    ASSERT_EQ(truncate(handle_, 0), 0);
    world_.block();
    const auto failing = client_.write(other, mib, pattern(mib, 4));
    world_.settle();
    client_.interrupt(failing);
    world_.advance(std::chrono::seconds(1));
    ASSERT_EQ(await(failing).error, EINTR);
    world_.unblock();
    ASSERT_EQ(write(3 * mib, pattern(10, 5)).error, 0);
    EXPECT_EQ(read(mib, mib).body, std::vector<std::byte>(mib));
}

TEST_F(ZeroJobsTest, WhatAWriteOfItsOwnHasNotWrittenIsAHole) {
    fill();
    ASSERT_EQ(truncate(handle_, 0), 0);
    world_.block();
    const auto failing = client_.write(handle_, 0, pattern(mib, 4));
    const auto beside = client_.write(handle_, mib, pattern(512, 5));
    world_.settle();
    client_.interrupt(failing);
    world_.advance(std::chrono::seconds(1));
    ASSERT_EQ(await(failing).error, EINTR);
    world_.unblock();
    ASSERT_EQ(await(beside).error, 0);
    ASSERT_EQ(truncate(handle_, mib + 512), 0);
    EXPECT_EQ(read(0, mib).body, std::vector<std::byte>(mib));
    EXPECT_EQ(read(mib, 512).body, pattern(512, 5));
}

TEST_F(ZeroJobsTest, AGapWaitsForWritesOfOthersIntoIt) {
    fill();
    const std::uint64_t other = open_another();
    for (const bool fails : {false, true}) {
        ASSERT_EQ(truncate(handle_, 0), 0);
        world_.block();
        const auto inside = client_.write(other, mib, pattern(4096, 4));
        world_.settle();
        const auto gap = client_.write(handle_, 2 * mib, pattern(10, 5));
        const auto later = client_.write(other, mib + 4096, pattern(4096, 6));
        world_.settle();
        if (fails) client_.interrupt(inside);
        world_.advance(std::chrono::seconds(1));
        EXPECT_FALSE(client_.has_answer(gap) || client_.has_answer(later));
        world_.unblock();
        EXPECT_EQ(await(gap).error, 0);
        EXPECT_EQ(await(later).error, 0);
        EXPECT_EQ(await(inside).error, fails ? EINTR : 0);
        EXPECT_EQ(read(mib, 4096).body, fails ? std::vector<std::byte>(4096) : pattern(4096, 4));
        EXPECT_EQ(read(mib + 4096, 4096).body, pattern(4096, 6));
        EXPECT_EQ(read(mib + 8192, 4096).body, std::vector<std::byte>(4096));
    }
}

TEST_F(ZeroJobsTest, AGapWaitsForWritesThatHaveBegunBeforeTheTruncation) {
    fill();
    const std::uint64_t other = open_another();
    world_.block();
    const auto inside = client_.write(other, mib, pattern(4096, 4));
    world_.settle();
    ASSERT_EQ(truncate(handle_, 0), 0);
    const auto gap = client_.write(handle_, 2 * mib, pattern(10, 5));
    world_.unblock();
    EXPECT_EQ(await(inside).error, 0);
    EXPECT_EQ(await(gap).error, 0);
    EXPECT_EQ(read(mib, 4096).body, pattern(4096, 4));
}

TEST_F(ZeroJobsTest, WhoWaitsForWritesOfOthersCanBeInterrupted) {
    fill();
    const std::uint64_t other = open_another();
    ASSERT_EQ(truncate(handle_, 0), 0);
    slow_.holding = true;
    const auto inside = client_.write(other, mib, pattern(4096, 4));
    world_.settle();
    const auto gap = client_.write(handle_, 2 * mib, pattern(10, 5));
    const auto behind = client_.write(other, mib, pattern(4096, 6));
    world_.settle();
    EXPECT_EQ(slow_.zeroings, 0u);
    client_.interrupt(gap);
    EXPECT_EQ(await(gap).error, EINTR);
    slow_.holding = false;
    world_.device().release_held();
    EXPECT_EQ(await(inside).error, 0);
    EXPECT_EQ(await(behind).error, 0);
    // The end of the mount as well.
    slow_.holding = true;
    (void)client_.write(other, mib, pattern(4096, 4));
    world_.settle();
    (void)client_.write(handle_, 2 * mib, pattern(10, 5));
    world_.settle();
    channel_->leave();
    world_.advance(std::chrono::seconds(1));
    EXPECT_EQ(channel_->pending(), 0u);
    channel_.reset();
}

TEST_F(ZeroJobsTest, WritesOfATruncatedFileDoNotWaitForEachOther) {
    fill();
    ASSERT_EQ(truncate(handle_, 0), 0);
    slow_.holding = true;
    for (const std::uint64_t at : {0U, 4096U, 8192U}) (void)client_.write(handle_, at, pattern(4096, 4));
    world_.settle();
    EXPECT_EQ(world_.unit().counters()->in_flight, 3u);
}

// io_submit(2) does not hold the inode until a write has ended.
TEST_F(ZeroJobsTest, ACutWhileItsOwnGapIsZeroedIsNotUndone) {
    fill();
    ASSERT_EQ(truncate(handle_, mib), 0);
    slow_.holding_zeroes = true;
    const auto gap = client_.write(handle_, 2 * mib, pattern(512, 5));
    world_.settle();
    ASSERT_EQ(truncate(handle_, mib / 2), 0);
    slow_.holding_zeroes = false;
    world_.device().release_held();
    ASSERT_EQ(await(gap).error, 0);
    ASSERT_EQ(write(3 * mib, pattern(512, 6)).error, 0);
    EXPECT_EQ(read(mib / 2, mib / 2).body, std::vector<std::byte>(mib / 2));
}

TEST_F(ZeroJobsTest, ACutWhileItGrowsIsNotUndone) {
    fill();
    ASSERT_EQ(truncate(handle_, mib), 0);
    slow_.holding_zeroes = true;
    int error = -1;
    channel_->truncate(handle_, lun_, 2 * mib, 4711, [&](int result) { error = result; });
    world_.settle();
    ASSERT_EQ(truncate(handle_, mib / 2), 0);
    slow_.holding_zeroes = false;
    world_.device().release_held();
    world_.settle();
    ASSERT_EQ(error, 0);
    for (std::uint64_t at = mib / 2; at < 2 * mib; at += mib / 2)
        EXPECT_EQ(read(at, mib / 2).body, std::vector<std::byte>(mib / 2)) << at;
}

// As one of another handle: whoever goes on behind it has been told of no failure.
TEST_F(ZeroJobsTest, AGapWaitsForWritesOfItsOwnThatWereCut) {
    fill();
    ASSERT_EQ(truncate(handle_, mib), 0);
    world_.block();
    const auto late = client_.write(handle_, mib, pattern(4096, 5));
    world_.settle();
    ASSERT_EQ(truncate(handle_, mib / 2), 0);
    const auto next = client_.write(handle_, 2 * mib, pattern(512, 6));
    world_.settle();
    client_.interrupt(late);
    world_.advance(std::chrono::seconds(1));
    ASSERT_EQ(await(late).error, EINTR);
    world_.unblock();
    ASSERT_EQ(await(next).error, 0);
    for (std::uint64_t at = mib / 2; at < 2 * mib; at += mib / 2)
        EXPECT_EQ(read(at, mib / 2).body, std::vector<std::byte>(mib / 2)) << at;
}

TEST_F(ZeroJobsTest, DrainWaitsForThem) {
    fill();
    slow_.holding_zeroes = true;
    const auto unique = send_fallocate(handle_, 0, mib, punch);
    world_.settle();
    files_.unpublish(handle_);
    bool drained = false;
    channel_->drain(lun_.get(), [&] { drained = true; });
    EXPECT_FALSE(drained);
    slow_.holding_zeroes = false;
    world_.device().release_held();
    EXPECT_EQ(await(unique).error, 0);
    EXPECT_TRUE(drained);
}

// What follows a job is of the same request, but begins before the first has ended.
TEST_F(ZeroJobsTest, DrainWaitsForWhatFollowsThem) {
    fill();
    EXPECT_EQ(await(client_.fill(handle_, 0, 4096)).error, 0);
    EXPECT_EQ(await(client_.fill(handle_, mib, 4096)).error, 0);
    ASSERT_EQ(truncate(handle_, 0), 0);
    const auto growing = send_fallocate(handle_, mib, mib, zero);
    world_.settle();
    ASSERT_EQ(host_.drops.size(), 1u);  // which the zeros before it wait for
    files_.unpublish(handle_);
    bool drained = false;
    channel_->drain(lun_.get(), [&] {
        drained = true;
        EXPECT_EQ(channel_->pending(), 0u);
    });
    world_.unit().remove();
    for (std::size_t i = 0; i < host_.drops.size(); ++i) {
        channel_->on_pages_dropped(host_.drops[i].ticket);
        world_.settle();
    }
    EXPECT_NE(await(growing).error, 0);
    EXPECT_TRUE(drained);
}

TEST_F(ZeroJobsTest, DrainEndsWhatOnlyWaitsForWritesOfOthers) {
    fill();
    const std::uint64_t other = open_another();
    ASSERT_EQ(truncate(handle_, 0), 0);
    slow_.holding = true;
    (void)client_.write(other, mib, pattern(4096, 6));
    const auto gap = client_.write(handle_, 2 * mib, pattern(10, 5));
    const auto behind = client_.write(handle_, 0, pattern(10, 5));
    world_.settle();
    EXPECT_FALSE(client_.has_answer(gap) || client_.has_answer(behind));
    files_.unpublish(handle_);
    bool drained = false;
    channel_->drain(lun_.get(), [&] { drained = true; });
    world_.settle();
    EXPECT_EQ(await(gap).error, ENODEV);
    EXPECT_EQ(await(behind).error, ENODEV);
    EXPECT_FALSE(drained);
    let_go();
    world_.settle();
    EXPECT_TRUE(drained);
}

TEST_F(ZeroJobsTest, LeavingEndsThem) {
    fill();
    ASSERT_EQ(truncate(handle_, 0), 0);
    slow_.holding_zeroes = true;
    (void)client_.write(handle_, 2 * mib, pattern(10, 5));
    (void)client_.write(handle_, mib, pattern(10, 5));
    world_.settle();
    EXPECT_EQ(channel_->pending(), 2u);
    EXPECT_EQ(parked(), 20u);
    channel_->leave();
    world_.advance(std::chrono::seconds(1));
    EXPECT_EQ(channel_->pending(), 0u);
    EXPECT_EQ(parked(), 0u);
    channel_.reset();
}

// ---- what of them is parked ----

struct ParkingOwner final : lun::ParkedRequestOwner {
    void on_shed() override { ++times_shed; }
    unsigned times_shed = 0;
};

TEST_F(ZeroJobsTest, WritesThatWaitAreParkedUntilTheyGoOn) {
    fill();
    ASSERT_EQ(truncate(handle_, 0), 0);
    slow_.holding_zeroes = true;
    const auto gap = client_.write(handle_, 2 * mib, pattern(512, 1));
    const auto inside = client_.write(handle_, mib + 5, pattern(5000, 2));
    const auto given_up = client_.write(handle_, 0, pattern(4096, 3));
    world_.settle();
    EXPECT_EQ(parked(), 512u + 5000 + 4096);
    client_.interrupt(given_up);
    EXPECT_EQ(await(given_up).error, EINTR);
    EXPECT_EQ(parked(), 512u + 5000);
    let_go();
    EXPECT_EQ(await(gap).error, 0);
    EXPECT_EQ(await(inside).error, 0);
    EXPECT_EQ(parked(), 0u);
    EXPECT_EQ(read(mib + 5, 5000).body, pattern(5000, 2));
    EXPECT_EQ(read(0, 4096).body, std::vector<std::byte>(4096));
}

TEST_F(ZeroJobsTest, TheWriteThatCameLastMakesRoomForOthers) {
    fill();
    ASSERT_EQ(truncate(handle_, 0), 0);
    slow_.holding_zeroes = true;
    const auto gap = client_.write(handle_, 3 * mib, pattern(512, 1));
    std::vector<std::uint64_t> waiting;
    for (unsigned i = 0; i < 3; ++i) {
        waiting.push_back(client_.write(handle_, i * mib, pattern(mib, 10 + i)));
        world_.settle();
    }
    EXPECT_EQ(parked(), 512u + 3 * mib);

    const auto last = client_.write(handle_, 2 * mib, pattern(mib, 20));
    world_.settle();

    EXPECT_EQ(await(waiting[2]).error, EIO);
    EXPECT_EQ(parked(), 512u + 3 * mib);
    for (const auto unique : {gap, waiting[0], waiting[1], last}) EXPECT_FALSE(client_.has_answer(unique));
    let_go();
    for (const auto unique : {gap, waiting[0], waiting[1], last}) EXPECT_EQ(await(unique).error, 0);
    EXPECT_EQ(read(0, mib).body, pattern(mib, 10));
    EXPECT_EQ(read(mib, mib).body, pattern(mib, 11));
    EXPECT_EQ(read(2 * mib, mib).body, pattern(mib, 20));
    EXPECT_EQ(parked(), 0u);
}

// Its zeros may be on their way: what comes after its answer is not destroyed by them.
TEST_F(ZeroJobsTest, AWriteThatIsShedWhileItsGapIsZeroedFailsAfterThat) {
    fill();
    ASSERT_EQ(truncate(handle_, 0), 0);
    slow_.holding_zeroes = true;
    const auto gap = client_.write(handle_, 2 * mib, pattern(4096, 1));
    world_.settle();
    {
        ParkingOwner owner;
        const std::vector<std::byte> data(4 * mib);
        const auto other = world_.engine().park_request(world_.unit(), owner, {}, data);
        ASSERT_TRUE(other);
        EXPECT_EQ(parked(), data.size());
        world_.settle();
        EXPECT_FALSE(client_.has_answer(gap));
        EXPECT_EQ(owner.times_shed, 0u);
    }
    EXPECT_EQ(parked(), 0u);
    let_go();
    EXPECT_EQ(await(gap).error, EIO);
    EXPECT_EQ(read(2 * mib - 512, 512).body, std::vector<std::byte>(512));
    EXPECT_NE(read(2 * mib, 4096).body, pattern(4096, 1));
    EXPECT_EQ(write(2 * mib, pattern(4096, 1)).error, 0);
    EXPECT_EQ(read(2 * mib, 4096).body, pattern(4096, 1));
}

TEST_F(ZeroJobsTest, AWriteThatIsShedBeforeItsGapIsZeroedFailsAtOnceAndOthersGoOn) {
    fill();
    const std::uint64_t other = open_another();
    ASSERT_EQ(truncate(handle_, 0), 0);
    slow_.holding = true;
    const auto inside = client_.write(other, mib, pattern(4096, 4));
    world_.settle();
    const auto gap = client_.write(handle_, 2 * mib, pattern(mib, 5));
    world_.settle();
    EXPECT_EQ(parked(), mib);
    ParkingOwner owner;
    const std::vector<std::byte> data(3 * mib + 1);
    auto wanted = world_.engine().park_request(world_.unit(), owner, {}, data);
    ASSERT_TRUE(wanted);
    EXPECT_EQ(await(gap).error, EIO);
    EXPECT_EQ(slow_.zeroings, 0u);
    wanted.reset();
    let_go();
    EXPECT_EQ(await(inside).error, 0);
    EXPECT_EQ(write(2 * mib, pattern(512, 5)).error, 0);
    EXPECT_EQ(read(mib, 4096).body, pattern(4096, 4));
    EXPECT_EQ(parked(), 0u);
}

TEST_F(ZeroJobsTest, WithoutMemoryAWriteThatHasToWaitFails) {
    fill();
    ASSERT_EQ(truncate(handle_, 0), 0);
    slow_.holding_zeroes = true;
    const auto gap = client_.write(handle_, 2 * mib, pattern(512, 1));
    world_.settle();
    has_no_memory = true;
    const int behind = write(0, pattern(512, 2)).error;
    has_no_memory = false;
    EXPECT_EQ(behind, EIO);
    EXPECT_EQ(channel_->pending(), 1u);
    EXPECT_EQ(parked(), 512u);
    let_go();
    EXPECT_EQ(await(gap).error, 0);

    has_no_memory = true;
    const int before_gap = write(3 * mib, pattern(512, 3)).error;
    has_no_memory = false;
    EXPECT_EQ(before_gap, EIO);
    EXPECT_EQ(channel_->pending(), 0u);
    EXPECT_EQ(slow_.zeroings, 1u);
    EXPECT_EQ(write(3 * mib, pattern(512, 3)).error, 0);
}

TEST_F(ZeroJobsTest, AUnitThatIsRemovedIsIdleOnceNothingOfItIsParked) {
    fill();
    EXPECT_EQ(await(client_.fill(handle_, 0, 4096)).error, 0);
    ASSERT_EQ(truncate(handle_, 0), 0);
    const auto gap = client_.write(handle_, 2 * mib, pattern(512, 1));
    const auto behind = client_.write(handle_, 0, pattern(512, 2));
    world_.settle();
    ASSERT_EQ(host_.drops.size(), 1u);  // which the gap waits for
    EXPECT_EQ(parked(), 1024u);

    world_.unit().remove();
    world_.settle();
    EXPECT_FALSE(world_.unit().is_idle());
    EXPECT_FALSE(client_.has_answer(gap));

    channel_->on_pages_dropped(host_.drops[0].ticket);
    EXPECT_NE(await(gap).error, 0);
    EXPECT_NE(await(behind).error, 0);
    EXPECT_EQ(parked(), 0u);
    EXPECT_TRUE(world_.unit().is_idle());
}

TEST_F(ZeroJobsTest, TheRemovalOfAUnitEndsWritesThatAreParked) {
    fill();
    ASSERT_EQ(truncate(handle_, 0), 0);
    slow_.holding_zeroes = true;
    const auto gap = client_.write(handle_, 2 * mib, pattern(512, 1));
    const auto behind = client_.write(handle_, mib, pattern(512, 2));
    world_.settle();
    files_.unpublish(handle_);
    bool drained = false;
    channel_->drain(lun_.get(), [&] { drained = true; });

    world_.unit().remove();

    EXPECT_EQ(await(gap).error, ENODEV);
    EXPECT_EQ(await(behind).error, ENODEV);
    EXPECT_TRUE(drained);
    EXPECT_EQ(parked(), 0u);
}

// ---- who is interrupted between two jobs ----

TEST_F(ZeroJobsTest, WhoIsInterruptedWhileAGapWaitsForPagesZeroesNothingMore) {
    fill();
    EXPECT_EQ(await(client_.fill(handle_, 0, 4096)).error, 0);
    ASSERT_EQ(truncate(handle_, 0), 0);
    const auto growing = send_fallocate(handle_, 2 * mib, mib, zero);
    world_.settle();
    ASSERT_EQ(host_.drops.size(), 1u);
    const unsigned zeroings = slow_.zeroings;
    slow_.holding_zeroes = true;

    client_.interrupt(growing);

    EXPECT_EQ(await(growing).error, EINTR);
    EXPECT_EQ(slow_.zeroings, zeroings);
    EXPECT_EQ(channel_->pending(), 0u);
}

TEST_F(ZeroJobsTest, WhoIsInterruptedWhileAGapWaitsForPagesDoesNotWaitForAnother) {
    fill();
    EXPECT_EQ(await(client_.fill(handle_, mib, 4096)).error, 0);
    ASSERT_EQ(truncate(handle_, mib), 0);
    for (const bool is_cut : {false, true}) {
        int error = -1;
        channel_->truncate(handle_, lun_, 2 * mib, 4711, [&](int result) { error = result; });
        world_.settle();
        ASSERT_EQ(error, -1) << is_cut;
        const unsigned zeroings = slow_.zeroings;
        // Meanwhile there may be another hole, see ACutWhileItGrowsIsNotUndone.
        if (is_cut) {
            ASSERT_EQ(truncate(handle_, mib / 2), 0);
        }
        slow_.holding_zeroes = true;

        channel_->interrupt_truncation(4711);
        world_.settle();

        EXPECT_EQ(error, EINTR) << is_cut;
        EXPECT_EQ(slow_.zeroings, zeroings) << is_cut;
        let_go();
        channel_->on_pages_dropped(host_.drops.back().ticket);
        if (is_cut) break;
        EXPECT_EQ(await(client_.fill(handle_, mib, 4096)).error, 0);
        ASSERT_EQ(truncate(handle_, mib), 0);
    }
}

TEST_F(FuseChannelTest, DrainWaitsForRequestsOfThatUnitOnly) {
    slow_.holding = true;
    const auto unique = client_.read(handle_, 0, 512);
    world_.settle();
    files_.unpublish(handle_);
    bool drained = false, other_drained = false;
    const LunData other;

    channel_->drain(lun_.get(), [&] { drained = true; });
    channel_->drain(&other, [&] { other_drained = true; });

    EXPECT_TRUE(other_drained);
    EXPECT_FALSE(drained);
    slow_.holding = false;
    world_.device().release_held();
    EXPECT_EQ(await(unique).error, 0);
    EXPECT_TRUE(drained);
}

TEST_F(FuseChannelTest, TheEndOfTheConnectionIsReportedOnce) {
    client_.hang_up();
    world_.settle();
    world_.settle();

    EXPECT_EQ(host_.disconnects, std::vector<int>{ENODEV});
    std::vector<int> fds;
    channel_->sleep_on(fds);
    EXPECT_TRUE(fds.empty());
}

// What saves system calls must not lose a request: told wrongly, or not at all, it is a turn late at most.
TEST_F(FuseChannelTest, ADescriptorThatIsSaidToBeEmptyIsLookedAtInTheNextTurn) {
    channel_->woken({});
    (void)client_.write(handle_, 0, pattern(4096, 1));

    EXPECT_FALSE(channel_->poll());
    EXPECT_TRUE(channel_->poll());
}

TEST_F(FuseChannelTest, ADescriptorThatIsSaidToBeReadableIsLookedAtAtOnce) {
    std::vector<int> fds;
    channel_->sleep_on(fds);
    channel_->woken({});
    (void)client_.write(handle_, 0, pattern(4096, 1));

    channel_->woken(fds);

    EXPECT_TRUE(channel_->poll());
}

// Looking in vain for long makes looks rare, but no request waits for more than a few turns.
TEST_F(FuseChannelTest, ADescriptorThatWasEmptyForLongIsLookedAtAgainSoon) {
    slow_.holding = true;
    (void)client_.write(handle_, 0, pattern(4096, 1));
    world_.settle();
    channel_->woken({});
    for (int i = 0; i < 20'000; ++i) {
        channel_->look_again();
        (void)channel_->poll();
    }
    (void)client_.read(handle_, 0, 512);

    unsigned turns = 0;
    do {
        channel_->look_again();
        ++turns;
    } while (!channel_->poll() && turns < 100);

    EXPECT_LE(turns, 5u);
    slow_.holding = false;
    world_.device().release_held();
    world_.settle();
}

TEST_F(FuseChannelTest, LivesOnAfterLeavingUntilItsOperationsHaveEnded) {
    slow_.holding = true;
    (void)client_.write(handle_, 0, pattern(4096, 1));
    world_.settle();
    const std::weak_ptr<FuseChannel> watched = channel_;

    channel_->leave();
    channel_.reset();
    EXPECT_FALSE(watched.expired());
    world_.advance(std::chrono::milliseconds(600));

    EXPECT_TRUE(watched.expired());
}

TEST_F(FuseChannelTest, ForgetAndOtherOneWayRequestsAreSwallowed) {
    fuse_forget_in forget{.nlookup = 1};
    (void)client_.request(FUSE_FORGET, 2, forget);
    fuse_batch_forget_in batch{};
    (void)client_.request(FUSE_BATCH_FORGET, 0, batch);
    (void)client_.send_bytes(FUSE_NOTIFY_REPLY, 2, {});
    world_.settle();

    EXPECT_TRUE(host_.requests.empty());
    EXPECT_EQ(client_.unexpected(), 0u);
    EXPECT_EQ(channel_->pending(), 0u);
}

TEST_F(FuseChannelTest, UnknownOperationsAreEnosys) {
    for (const std::uint32_t opcode :
         {std::uint32_t{0}, std::uint32_t{7}, std::uint32_t{FUSE_SETLK}, std::uint32_t{FUSE_BMAP},
          std::uint32_t{FUSE_SYNCFS}, std::uint32_t{99}, std::uint32_t{4096}, UINT32_MAX})
        EXPECT_EQ(await(client_.send_bytes(opcode, 1, std::vector<std::byte>(64))).error, ENOSYS) << opcode;
    EXPECT_TRUE(host_.requests.empty());
}

TEST_F(FuseChannelTest, ASecondInitIsNotPassedOn) {
    const fuse_init_in init{};
    EXPECT_EQ(await(client_.request(FUSE_INIT, 0, init)).error, ENOSYS);
}

TEST_F(FuseChannelTest, ShortRequestsAreEinvalAndSurvived) {
    for (const std::uint32_t opcode :
         {FUSE_READ, FUSE_WRITE, FUSE_FSYNC, FUSE_LSEEK, FUSE_FALLOCATE, FUSE_INTERRUPT, FUSE_LOOKUP, FUSE_GETATTR,
          FUSE_SETATTR, FUSE_OPEN, FUSE_RELEASE, FUSE_READDIR, FUSE_IOCTL, FUSE_RENAME2, FUSE_CREATE, FUSE_MKNOD})
        for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{7}})
            EXPECT_EQ(await(client_.send_bytes(opcode, 1, std::vector<std::byte>(size))).error, EINVAL)
                << opcode << ' ' << size;
    EXPECT_TRUE(host_.requests.empty());
    EXPECT_EQ(read(0, 512).error, 0);
}

TEST_F(FuseChannelTest, OnlyAttributesOfUsersAreTheControlThreadsBusiness) {
    const auto asked_for = [](std::string_view name) {
        std::vector<std::byte> bytes(sizeof(fuse_getxattr_in));
        for (const std::byte one : bytes_of_text(name)) bytes.push_back(one);
        bytes.push_back(std::byte{0});
        return bytes;
    };
    for (const char* name : {"security.selinux", "system.posix_acl_access", "trusted.x", "user", "use"})
        EXPECT_EQ(await(client_.send_bytes(FUSE_GETXATTR, 1, asked_for(name))).error, ENODATA) << name;
    EXPECT_EQ(await(client_.send_bytes(FUSE_GETXATTR, 1, asked_for(""))).error, EINVAL);
    EXPECT_TRUE(host_.requests.empty());

    client_.send_bytes(FUSE_GETXATTR, 1, asked_for("user.srpfs.wwid"));
    world_.settle();

    EXPECT_EQ(host_.requests.size(), 1u);
}

// ---- pages of the kernel's ----

TEST_F(FuseChannelTest, AWriteIsAnsweredOnceTheKernelHasDroppedWhatItReadThereBefore) {
    const auto fill = client_.fill(handle_, 0, 128 * 1024, 7);
    EXPECT_EQ(await(fill).body.size(), 128u * 1024);
    const auto written = client_.write(handle_, 8192, pattern(512, 1));
    const auto elsewhere = client_.write(handle_, 128 * 1024, pattern(512, 1));
    world_.settle();

    EXPECT_EQ(await(elsewhere).error, 0);
    EXPECT_FALSE(client_.has_answer(written));
    ASSERT_EQ(host_.drops.size(), 1u);
    EXPECT_EQ(host_.drops[0].node, NodeId{7});
    EXPECT_EQ(host_.drops[0].ranges, (std::vector{lun::ByteRange{0, 128 * 1024}}));
    EXPECT_EQ(world_.engine().usage().operations_in_use, 0u);  // who waits keeps nothing

    channel_->on_pages_dropped(host_.drops[0].ticket);
    EXPECT_EQ(await(written).as<fuse_write_out>().size, 512u);
    EXPECT_EQ(channel_->pending(), 0u);
}

TEST_F(FuseChannelTest, AWriteThatOvertakesAFillWaitsForIt) {
    slow_.holding = true;
    const auto fill = client_.fill(handle_, 4096, 4096);
    world_.settle();
    slow_.holding = false;
    const auto written = client_.write(handle_, 4096, pattern(4096, 1));
    world_.settle();
    EXPECT_FALSE(client_.has_answer(written));
    EXPECT_TRUE(host_.drops.empty());

    world_.device().release_held();
    EXPECT_EQ(await(fill).error, 0);
    world_.settle();
    EXPECT_FALSE(client_.has_answer(written));
    ASSERT_EQ(host_.drops.size(), 1u);
    channel_->on_pages_dropped(host_.drops[0].ticket);

    EXPECT_EQ(await(written).error, 0);
}

TEST_F(FuseChannelTest, AnInterruptedWriterIsToldOfNoSuccessThatOthersMayNotSee) {
    EXPECT_EQ(await(client_.fill(handle_, 0, 4096)).error, 0);
    const auto written = client_.write(handle_, 0, pattern(4096, 3));
    world_.settle();
    EXPECT_FALSE(client_.has_answer(written));

    client_.interrupt(written);

    EXPECT_EQ(await(written).error, EINTR);
    EXPECT_EQ(read(0, 4096).body, pattern(4096, 3));
}

TEST_F(FuseChannelTest, WhoWasKilledWhileHeWroteDoesNotWaitForPagesLater) {
    slow_.holding = true;
    client_.fill(handle_, 0, 4096);
    world_.settle();
    const auto written = client_.write(handle_, 0, pattern(4096, 3));
    world_.settle();
    client_.interrupt(written);
    world_.settle();
    EXPECT_FALSE(client_.has_answer(written));

    slow_.holding = false;
    world_.device().release_held();
    world_.settle();
    ASSERT_TRUE(client_.has_answer(written));
    EXPECT_EQ(await(written).error, EINTR);
    EXPECT_EQ(host_.drops.size(), 1u);  // for others they are dropped all the same
}

// Somebody reads a cached file while a write that was given up is still on its way: what he gets is right then, and
// old for good if it was kept when the write lands.
TEST_F(FuseChannelTest, WhatIsReadWhileAWriteThatWasGivenUpMayStillLandIsNotKept) {
    OpenFileDetails details;
    details.node = NodeId{2};
    details.lun = lun_;
    details.is_cached = true;
    const std::uint64_t reader = files_.open(std::move(details));
    const auto before = pattern(4096, 1), after = pattern(4096, 2);
    (void)write(0, before);
    slow_.holding = true;
    const auto given_up = client_.write(handle_, 0, after);
    world_.settle();
    client_.interrupt(given_up);
    world_.advance(std::chrono::seconds(1));
    EXPECT_EQ(await(given_up).error, EINTR);
    slow_.holding = false;

    EXPECT_EQ(await(client_.fill(reader, 0, 4096)).body, before);
    world_.device().release_held();
    EXPECT_EQ(read(0, 4096).body, after);
    world_.advance(10 * PageFills::tick);
    ASSERT_EQ(host_.drops.size(), 1u);
    EXPECT_EQ(host_.drops[0].ranges, (std::vector{lun::ByteRange{0, 4096}}));
    channel_->on_pages_dropped(host_.drops[0].ticket);

    // What is read when that is over stays.
    EXPECT_EQ(await(client_.fill(reader, 0, 4096)).body, after);
    world_.advance(10 * PageFills::tick);
    EXPECT_EQ(host_.drops.size(), 1u);
}

TEST_F(FuseChannelTest, WhatTheKernelFillsBeyondTheEndIsDroppedAsWell) {
    EXPECT_TRUE(await(client_.fill(handle_, 8 * mib, 4096)).body.empty());
    bool done = false;
    channel_->after_pages(lun_, [&] { done = true; });
    world_.settle();
    EXPECT_FALSE(done);
    ASSERT_EQ(host_.drops.size(), 1u);

    channel_->on_pages_dropped(host_.drops[0].ticket);

    EXPECT_TRUE(done);
    channel_->after_pages(lun_, [&] { done = false; });
    EXPECT_FALSE(done);
}

TEST_F(FuseChannelTest, PunchingWaitsForPages) {
    EXPECT_EQ(await(client_.fill(handle_, 0, 4096)).error, 0);
    fuse_fallocate_in in{};
    in.fh = handle_;
    in.length = 4096;
    in.mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    for (const bool is_killed : {true, false}) {
        const auto punched = client_.request(FUSE_FALLOCATE, 2, in);
        world_.settle();
        EXPECT_FALSE(client_.has_answer(punched)) << is_killed;
        if (is_killed)
            client_.interrupt(punched);
        else
            channel_->on_pages_dropped(host_.drops.at(0).ticket);
        EXPECT_EQ(await(punched).error, is_killed ? EINTR : 0) << is_killed;
    }
}

TEST_F(FuseChannelTest, TheEndOfTheMountEndsWhoWaitsForPages) {
    EXPECT_EQ(await(client_.fill(handle_, 0, 4096)).error, 0);
    const auto written = client_.write(handle_, 0, pattern(4096, 3));
    world_.settle();
    EXPECT_FALSE(client_.has_answer(written));

    channel_->leave();

    EXPECT_EQ(channel_->pending(), 0u);
}

TEST_F(FuseChannelTest, ARequestShorterThanAHeaderIsDropped) {
    client_.send_raw(std::vector<std::byte>(39));
    EXPECT_EQ(read(0, 512).error, 0);
    EXPECT_EQ(channel_->counters().malformed, 1u);
}

TEST_F(FuseChannelTest, ALengthThatLiesIsEinval) {
    fuse_read_in in{};
    in.fh = handle_;
    in.size = 512;
    const auto unique = client_.next_unique();
    auto request = Client::make(FUSE_READ, unique, 2, bytes_of(in));
    const std::uint32_t wrong = static_cast<std::uint32_t>(request.size()) + 1;
    std::memcpy(request.data(), &wrong, sizeof wrong);
    client_.send_raw(request);

    EXPECT_EQ(await(unique).error, EINVAL);
}

TEST_F(FuseChannelTest, AWriteWhosePayloadIsNotWhatItSaysIsEinval) {
    for (const int difference : {-1, 1}) {
        fuse_write_in in{};
        in.fh = handle_;
        in.size = static_cast<std::uint32_t>(512 + difference);
        EXPECT_EQ(await(client_.request(FUSE_WRITE, 2, in, std::vector<std::byte>(512))).error, EINVAL);
    }
}

TEST_F(FuseChannelTest, ANameWithoutItsEndIsNotPassedOn) {
    EXPECT_EQ(await(client_.send_bytes(FUSE_LOOKUP, 1, bytes_of_text("lun0"))).error, EINVAL);
    EXPECT_EQ(await(client_.named(FUSE_LOOKUP, 1, "")).error, EINVAL);
    EXPECT_TRUE(host_.requests.empty());
}

TEST_F(FuseChannelTest, ALongerReadThanAnybodyMayAskForIsCut) {
    EXPECT_EQ(read(0, 3 * mib).body.size(), mib);
    EXPECT_EQ(read(0, 0).body.size(), 0u);
}

TEST_F(FuseChannelTest, WhenNothingIsLeftARequestFailsAndTheIntakeGoesOn) {
    world_.block();
    // Far more than buffers and parking memory hold.
    std::vector<std::uint64_t> uniques;
    unsigned failed = 0;
    for (unsigned i = 0; i < 40; ++i) {
        uniques.push_back(client_.write(handle_, 0, std::vector<std::byte>(mib)));
        world_.settle();
    }
    world_.unblock();
    for (const auto unique : uniques) {
        const int error = await(unique).error;
        EXPECT_TRUE(error == 0 || error == EIO);
        failed += error == EIO ? 1 : 0;
    }
    EXPECT_GT(failed, 0u);
    EXPECT_LT(failed, 40u);
    EXPECT_EQ(world_.engine().usage().parked_bytes, 0u);
}

// Two reactors: the unit lives on the first, requests are read by both.
class TwoChannelsTest : public FuseChannelTest {
protected:
    TwoChannelsTest() {
        lun::EngineLimits limits;
        limits.intake_buffers = 4;
        limits.write_buffers_4k = limits.write_buffers_64k = 2;
        limits.read_buffers_4k = limits.read_buffers_64k = limits.read_buffers_1m = limits.edge_buffers = 2;
        second_engine_ = std::move(*lun::Engine::create(limits, {}, world_.executor(), random_));
        second_ = std::make_shared<FuseChannel>(1, second_client_.take_server_end(), *second_engine_, files_, host_);
        channel_->set_peers({channel_, second_});
        second_->set_peers({channel_, second_});
        world_.source = [this] {
            const bool first = turn(*channel_), second = turn(*second_);
            return first || second;
        };
    }
    ~TwoChannelsTest() override {
        world_.source = [this] { return turn(*channel_); };
        slow_.holding = false;
        world_.device().release_held();
        second_->leave();
        world_.settle();
        EXPECT_EQ(second_engine_->usage().intake_in_use, 0u);
        EXPECT_EQ(second_engine_->usage().write_4k_in_use, 0u);
        EXPECT_EQ(second_engine_->usage().write_64k_in_use, 0u);
        second_.reset();
        world_.source = nullptr;
    }
    static bool turn(FuseChannel& channel) {
        const bool worked = channel.poll();
        channel.flush();
        return worked;
    }
    void reads_alone(const FuseChannel& reader) {
        for (const auto& one : {channel_, second_}) one->set_reading(one.get() == &reader, one.get() == &reader);
    }
    // What a reactor does when a turn had nothing to do.
    static bool sleeps(FuseChannel& channel) { return channel.prepare_to_sleep(); }
    void pass(Duration time) {
        reactor::TimerQueue& timers = world_.executor().timers();
        timers.advance_to(timers.now() + time);
    }
    Reply await_second(std::uint64_t unique) {
        return second_client_.await(unique, [this] { world_.settle(); });
    }
    // The first channel, which alone waits for requests, gets more of them than it can read in turns without a pause.
    void overload() {
        reads_alone(*channel_);
        world_.settle();
        ASSERT_TRUE(sleeps(*second_));
        for (unsigned i = 0; i < 4 * FuseChannel::batch_max; ++i) load_.push_back(client_.read(handle_, 0, 512));
        turn(*channel_);
        pass(std::chrono::microseconds(150));
        turn(*channel_);
        pass(Staffing::trial);
        turn(*channel_);
    }
    unsigned read_buffers_in_use() {
        const lun::Engine::Usage usage = world_.engine().usage();
        return usage.read_4k_in_use + usage.read_64k_in_use + usage.read_1m_in_use;
    }
    void end_load() {
        for (const auto unique : load_) EXPECT_EQ(await(unique).body.size(), 512u);
        load_.clear();
    }
    Random random_{2};
    std::unique_ptr<lun::Engine> second_engine_;
    Client second_client_;
    std::shared_ptr<FuseChannel> second_;
    std::vector<std::uint64_t> load_;
};

TEST_F(TwoChannelsTest, ARequestReadElsewhereIsServedAtHomeAndAnsweredWhereItWasRead) {
    const auto data = pattern(5000, 3);
    EXPECT_EQ(await_second(second_client_.write(handle_, 777, data)).as<fuse_write_out>().size, 5000u);
    EXPECT_EQ(await_second(second_client_.read(handle_, 777, 5000)).body, data);
    EXPECT_EQ(await_second(second_client_.fsync(handle_)).error, 0);
    EXPECT_EQ(await_second(second_client_.read(handle_, capacity, 512)).body.size(), 0u);
    EXPECT_EQ(await_second(second_client_.write(handle_, capacity, data)).error, ENOSPC);
    EXPECT_EQ(client_.unexpected(), 0u);
    EXPECT_EQ(read(777, 5000).body, data);
    EXPECT_EQ(second_->counters().handed_over, 5u);
}

TEST_F(TwoChannelsTest, AHomeAnswersWithoutWakingTheReaderOfTheRequest) {
    const auto unique = second_client_.read(handle_, 0, 512);
    turn(*second_);
    ASSERT_TRUE(sleeps(*second_));
    world_.source = [this] { return turn(*channel_); };

    EXPECT_EQ(await_second(unique).body.size(), 512u);
    EXPECT_EQ(second_->counters().answered_for_home, 0u);
    EXPECT_EQ(world_.engine().usage().operations_in_use, 0u);
}

TEST_F(TwoChannelsTest, AnAnswerDoesNotPassThroughTheReactorThatHasReadTheRequest) {
    const auto unique = second_client_.read(handle_, 0, 512);
    turn(*second_);
    world_.source = [this] { return turn(*channel_); };
    second_->leave();  // it has closed its own descriptor

    EXPECT_EQ(await_second(unique).body.size(), 512u);
}

TEST_F(TwoChannelsTest, AChannelThatIsNotTheReaderServesWhatOthersHaveRead) {
    reads_alone(*second_);
    const auto waits = client_.read(handle_, 0, 512);
    const auto served = second_client_.read(handle_, 0, 512);

    EXPECT_EQ(await_second(served).body.size(), 512u);
    std::vector<int> fds;
    channel_->sleep_on(fds);
    EXPECT_TRUE(fds.empty());
    EXPECT_FALSE(client_.has_answer(waits));

    reads_alone(*channel_);

    channel_->sleep_on(fds);
    EXPECT_EQ(fds.size(), 1u);
    second_->sleep_on(fds);
    EXPECT_EQ(fds.size(), 1u);
    EXPECT_EQ(await(waits).body.size(), 512u);
}

TEST_F(TwoChannelsTest, AReaderThatKeepsUpAsksNobody) {
    reads_alone(*channel_);
    world_.settle();
    ASSERT_TRUE(sleeps(*second_));
    const auto waits = second_client_.read(handle_, 0, 512);

    for (unsigned round = 0; round < 50; ++round) {
        // A full batch, and time to serve it.
        std::vector<std::uint64_t> uniques;
        for (unsigned i = 0; i < FuseChannel::batch_max; ++i) uniques.push_back(client_.read(handle_, 0, 512));
        for (const auto unique : uniques) EXPECT_EQ(await(unique).error, 0);
        pass(std::chrono::milliseconds(1));
    }

    EXPECT_FALSE(second_client_.has_answer(waits));
    reads_alone(*second_);
    EXPECT_EQ(await_second(waits).error, 0);
}

TEST_F(TwoChannelsTest, AReaderThatCannotKeepUpIsHelped) {
    const auto data = pattern(100'000, 5);
    EXPECT_EQ(write(1000, data).error, 0);
    overload();
    const auto unique = second_client_.read(handle_, 1000, 100'000);

    EXPECT_EQ(await_second(unique).body, data);

    EXPECT_EQ(second_->counters().handed_over, 1u);
    EXPECT_EQ(second_->counters().answered_for_home, 1u) << "whoever helps answers as well";
    end_load();
}

TEST_F(TwoChannelsTest, AHelperThatFindsNothingStopsUntilItIsAskedAgain) {
    overload();
    world_.settle();
    ASSERT_TRUE(sleeps(*second_));
    const auto waits = second_client_.read(handle_, 0, 512);
    end_load();
    EXPECT_FALSE(second_client_.has_answer(waits));
    std::vector<int> fds;
    second_->sleep_on(fds);
    EXPECT_TRUE(fds.empty());

    pass(std::chrono::seconds(1));
    overload();

    EXPECT_EQ(await_second(waits).error, 0);
    end_load();
}

TEST_F(TwoChannelsTest, AHelperTakesNoMoreThanItGetsAnswered) {
    overload();
    for (unsigned i = 0; i < 100; ++i) (void)second_client_.read(handle_, 0, 512);
    world_.source = [this] { return turn(*second_); };
    world_.settle();

    EXPECT_EQ(second_->counters().handed_over, 32u);

    world_.source = [this] {
        const bool first = turn(*channel_), second = turn(*second_);
        return first || second;
    };
    end_load();
    world_.settle();
    EXPECT_EQ(second_->counters().handed_over, 100u);
    EXPECT_EQ(second_client_.unexpected(), 100u);
}

TEST_F(TwoChannelsTest, AHelperGivesTheKernelLargeAnswersOfOthersToo) {
    const auto data = pattern(mib, 8);
    EXPECT_EQ(write(0, data).error, 0);
    overload();
    turn(*second_);
    const auto large = client_.read(handle_, 0, mib), small = client_.read(handle_, 0, 512);
    world_.source = [this] { return turn(*channel_); };
    end_load();
    world_.settle();
    EXPECT_TRUE(client_.has_answer(small));
    EXPECT_FALSE(client_.has_answer(large));

    world_.source = [this] {
        const bool first = turn(*channel_), second = turn(*second_);
        return first || second;
    };

    EXPECT_EQ(await(large).body, data);
    EXPECT_EQ(second_->counters().answered_for_home, 1u);
    EXPECT_EQ(second_client_.unexpected(), 0u);
    world_.settle();
    EXPECT_EQ(read_buffers_in_use(), 0u);
    EXPECT_EQ(await(client_.read(handle_, 0, mib)).body, data) << "nobody helps any more";
}

TEST_F(TwoChannelsTest, DataBelongsToTheHelperUntilItHasGivenItToTheKernel) {
    overload();
    const auto unique = second_client_.read(handle_, 0, 4096);
    turn(*second_);
    world_.source = [this] { return turn(*channel_); };
    end_load();
    world_.settle();  // done, and on its way back
    bool drained = false;
    files_.unpublish(handle_);
    channel_->drain(lun_.get(), [&drained] { drained = true; });
    world_.settle();

    EXPECT_FALSE(second_client_.has_answer(unique));
    EXPECT_EQ(read_buffers_in_use(), 1u);
    EXPECT_FALSE(drained);

    turn(*second_);

    EXPECT_TRUE(second_client_.has_answer(unique));
    EXPECT_EQ(read_buffers_in_use(), 1u);
    EXPECT_FALSE(drained) << "the home has not been told";

    turn(*channel_);

    EXPECT_EQ(read_buffers_in_use(), 0u);
    EXPECT_EQ(channel_->pending(), 0u);
    EXPECT_TRUE(drained);
}

TEST_F(TwoChannelsTest, AHelperThatLeavesGivesBackWhatItWasToAnswer) {
    overload();
    (void)second_client_.read(handle_, 0, 4096);
    turn(*second_);
    world_.source = [this] { return turn(*channel_); };
    end_load();
    world_.settle();
    EXPECT_EQ(world_.engine().usage().operations_in_use, 1u);

    second_->leave();
    world_.settle();

    EXPECT_EQ(world_.engine().usage().operations_in_use, 0u);
    EXPECT_EQ(second_client_.unexpected(), 0u);
}

TEST_F(TwoChannelsTest, WhatAHomeHasWhenItLeavesIsAnsweredByItsReader) {
    reads_alone(*second_);
    world_.block();
    const auto has = second_client_.write(handle_, 0, pattern(100'000, 1));
    world_.settle();
    const auto gets = second_client_.write(handle_, 0, pattern(100'000, 1));
    turn(*second_);

    world_.source = [this] { return turn(*second_); };
    channel_->leave();

    EXPECT_EQ(await_second(has).error, EINTR);
    EXPECT_EQ(await_second(gets).error, ENODEV);
    EXPECT_EQ(await_second(second_client_.read(handle_, 0, 512)).error, ENODEV);
    world_.unblock();
}

TEST_F(TwoChannelsTest, WritesOfAHelperKeepNoneOfItsBuffers) {
    reads_alone(*second_);
    for (const std::uint32_t bytes : {512U, 4096U, 60'000U, mib}) {
        std::vector<std::uint64_t> uniques;
        // More than it has buffers, before the home looks at any.
        for (unsigned i = 0; i < 4; ++i) {
            uniques.push_back(second_client_.write(handle_, std::uint64_t{i} * bytes % (2 * mib), pattern(bytes, i)));
            turn(*second_);
        }
        for (const auto unique : uniques) EXPECT_EQ(await_second(unique).as<fuse_write_out>().size, bytes);
        world_.settle();
        EXPECT_EQ(second_engine_->usage().intake_in_use, 0u);
        EXPECT_EQ(second_engine_->usage().write_4k_in_use, 0u);
        EXPECT_EQ(second_engine_->usage().write_64k_in_use, 0u);
    }
    EXPECT_EQ(await_second(second_client_.read(handle_, mib, mib)).body, pattern(mib, 3));
}

TEST_F(TwoChannelsTest, AnInterruptFindsItsRequestOnTheOtherReactor) {
    world_.block();
    const auto unique = client_.read(handle_, 0, 512);
    world_.settle();

    second_client_.interrupt(unique);

    EXPECT_EQ(await(unique).error, EINTR);
    world_.unblock();
}

TEST_F(TwoChannelsTest, AnInterruptFindsARequestThatIsOnItsWayHome) {
    world_.block();
    for (Client* reader : {&client_, &second_client_}) {
        const auto unique = second_client_.read(handle_, 0, 512);
        (void)second_->poll();  // the home has not been told yet
        reader->interrupt(unique);
        (void)channel_->poll();

        EXPECT_EQ(await_second(unique).error, EINTR);
    }
    world_.unblock();
}

TEST_F(TwoChannelsTest, AnInterruptOfWhatHasBeenAnsweredElsewhereDoesNothing) {
    overload();
    const auto unique = second_client_.read(handle_, 0, 512);
    turn(*second_);
    world_.source = [this] { return turn(*channel_); };
    end_load();
    world_.settle();  // answered by the home, and not by the helper yet
    client_.interrupt(unique);
    world_.settle();
    world_.source = [this] {
        const bool first = turn(*channel_), second = turn(*second_);
        return first || second;
    };
    second_client_.interrupt(unique);

    EXPECT_EQ(await_second(unique).error, 0);
    world_.settle();
    EXPECT_EQ(second_client_.unexpected(), 0u);
}

TEST_F(TwoChannelsTest, ARequestOnItsWayHomeMeetsTheRemovalOfItsFile) {
    const auto unique = second_client_.read(handle_, 0, 512);
    turn(*second_);  // now on the home's desk
    files_.unpublish(handle_);

    EXPECT_EQ(await_second(unique).error, ENODEV);
}

TEST_F(TwoChannelsTest, NobodyFallsAsleepOverMail) {
    const auto unique = second_client_.read(handle_, 0, 512);
    turn(*second_);

    EXPECT_FALSE(sleeps(*channel_));
    EXPECT_TRUE(sleeps(*second_));
    EXPECT_EQ(await_second(unique).error, 0);
}

// The second channel on a thread of its own; it reads, and the home answers on the reader's descriptor.
TEST_F(FuseChannelTest, ChannelsOnTwoThreadsCarryTheSameBytes) {
    lun::EngineLimits limits;
    limits.intake_buffers = 4;
    Random random{3};
    Client client;
    ReactorThread thread("second");
    auto engine = std::move(*lun::Engine::create(limits, {}, thread.reactor(), random));
    auto second = std::make_shared<FuseChannel>(1, client.take_server_end(), *engine, files_, host_);
    channel_->set_peers({channel_, second});
    second->set_peers({channel_, second});
    channel_->set_reading(false, false);
    thread.run([&] {
        second->set_reading(true, true);
        thread.reactor().add_source(*second);
    });
    unsigned turns = 0;
    world_.source = [&] {
        const bool worked = channel_->poll();
        channel_->flush();
        return worked;
    };
    const auto work = [&] {
        // Busy and idle spells.
        reactor::TimerQueue& timers = world_.executor().timers();
        if (++turns % 64 < 32) timers.advance_to(timers.now() + std::chrono::milliseconds(1));
        if (!world_.turn()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    };
    constexpr std::uint32_t piece = 64 << 10;
    std::vector<std::uint64_t> uniques;
    for (unsigned round = 0; round < 20; ++round) {
        for (std::uint32_t i = 0; i < 16; ++i)
            uniques.push_back(
                client.write(handle_, std::uint64_t{i} * piece, pattern(i % 3 == 0 ? 512 : piece, i + round)));
        for (const auto unique : uniques) EXPECT_EQ(client.await(unique, work).error, 0);
        uniques.clear();
        for (std::uint32_t i = 0; i < 16; ++i)
            uniques.push_back(client.read(handle_, std::uint64_t{i} * piece, i % 3 == 0 ? 512 : piece));
        client.interrupt(uniques[round % 16]);
        for (std::uint32_t i = 0; i < 16; ++i) {
            const Reply reply = client.await(uniques[i], work);
            if (reply.error == 0)
                EXPECT_EQ(reply.body, pattern(i % 3 == 0 ? 512 : piece, i + round));
            else
                EXPECT_EQ(reply.error, EINTR);
        }
        uniques.clear();
    }
    thread.run([&] {
        thread.reactor().remove_source(*second);
        second->leave();
    });
    world_.settle();
    world_.source = nullptr;
    EXPECT_EQ(world_.engine().usage().operations_in_use, 0u);
}

}  // namespace
}  // namespace srpfs::fs::test
