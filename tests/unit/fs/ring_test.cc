// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Requests in ring entries, as far as no kernel is needed: their bytes, the memory behind them, and a FuseChannel over
// a ring whose kernel is the test. And a ring of the kernel's without entries: how a reactor sleeps in it.

#include "fuse_channel.h"
#include "killed.h"
#include "ring.h"
#include "ring_entry.h"

#include "client.h"
#include "world.h"

#include <srpfs/fs/file_system.h>

#include <gtest/gtest.h>

#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace srpfs::fs::test {
namespace {

constexpr std::size_t mib = std::size_t{1} << 20;

// What the kernel writes for a request: header, fixed argument and the rest in three places.
EntryHeader entry_of(std::uint32_t opcode, std::uint64_t unique, std::span<const std::byte> argument,
                     std::span<const std::byte> rest, std::span<std::byte> payload) {
    EntryHeader header{};
    fuse_in_header in{};
    in.len = static_cast<std::uint32_t>(sizeof in + argument.size() + rest.size());
    in.opcode = opcode;
    in.unique = unique;
    std::memcpy(header.in_out, &in, sizeof in);
    if (!argument.empty()) std::memcpy(header.op_in, argument.data(), argument.size());
    if (!rest.empty()) std::memcpy(payload.data(), rest.data(), rest.size());
    header.state.commit_id = unique;
    header.state.payload_bytes = static_cast<std::uint32_t>(rest.size());
    return header;
}

TEST(RingEntry, ARequestWithNamesIsWhatTheDescriptorWouldHaveRead) {
    std::vector<std::byte> payload(8192), scratch;
    const fuse_mknod_in argument{.mode = 0600};
    const auto name = bytes_of_text(std::string_view("abc\0", 4));
    EntryHeader header = entry_of(FUSE_MKNOD, 42, bytes_of(argument), name, payload);

    const auto request = request_in_entry(header, payload, scratch);

    ASSERT_TRUE(request);
    auto wanted = Client::make(FUSE_MKNOD, 42, 0, bytes_of(argument), name);
    EXPECT_EQ(std::vector(request->head.begin(), request->head.end()), wanted);
    EXPECT_TRUE(request->data.empty());
}

TEST(RingEntry, TheDataOfAWriteStaysWhereItIs) {
    std::vector<std::byte> payload(8192), scratch, data(5000, std::byte{7});
    const fuse_write_in argument{.fh = 1, .offset = 512, .size = 5000};
    EntryHeader header = entry_of(FUSE_WRITE, 8, bytes_of(argument), data, payload);

    const auto request = request_in_entry(header, payload, scratch);

    ASSERT_TRUE(request);
    EXPECT_EQ(request->head.size(), lun::intake_header_bytes);
    EXPECT_EQ(request->data.data(), payload.data());
    EXPECT_EQ(request->data.size(), 5000u);
}

TEST(RingEntry, LengthsThatDoNotAgreeAreRefused) {
    std::vector<std::byte> payload(8192), scratch;
    const fuse_read_in argument{.fh = 1};
    const EntryHeader good = entry_of(FUSE_READ, 8, bytes_of(argument), {}, payload);
    const auto with = [&](std::uint32_t length, std::uint32_t payload_bytes, std::uint32_t opcode = FUSE_READ) {
        EntryHeader header = good;
        fuse_in_header in{};
        std::memcpy(&in, header.in_out, sizeof in);
        in.len = length;
        in.opcode = opcode;
        std::memcpy(header.in_out, &in, sizeof in);
        header.state.payload_bytes = payload_bytes;
        return request_in_entry(header, payload, scratch).has_value();
    };
    EXPECT_TRUE(with(80, 0));
    EXPECT_FALSE(with(39, 0)) << "shorter than a header";
    EXPECT_FALSE(with(40 + 129, 0)) << "a longer argument than there is room";
    EXPECT_FALSE(with(80, 8193)) << "more than the payload holds";
    EXPECT_FALSE(with(80, 41)) << "more payload than the request has bytes";
    EXPECT_FALSE(with(0xffffffff, 0xffffffff));
    EXPECT_FALSE(with(79 + 512, 512, FUSE_WRITE)) << "a WRITE without all of its argument";
}

TEST(RingPlan, EntriesAndThenRingsAreMadeFewerToStayWithinTheBudget) {
    const RingPlan ample = plan_rings(2, 40, 1, 512 * mib);
    EXPECT_EQ(ample.entries_of(0), 80u);
    EXPECT_EQ(ample.depth, 40u);

    const RingPlan tight = plan_rings(2, 40, 1, 45 * mib);
    EXPECT_TRUE(tight.obstacle.empty());
    EXPECT_EQ(tight.depth, 20u);

    const RingPlan two = plan_rings(4, 40, 2, 512 * mib);
    EXPECT_EQ(two.depth, 40u);
    EXPECT_EQ(two.entries_of(0), 80u);
    EXPECT_EQ(two.entries_of(1), 80u);
    EXPECT_EQ(two.entries_of(2), 0u);

    const RingPlan many = plan_rings(8, 16, 8, 512 * mib);
    EXPECT_LT(many.rings, 8u);
    EXPECT_EQ(many.entries_of(many.rings), 0u);
    EXPECT_GE(many.depth, ring_depth_min);

    const RingPlan none = plan_rings(64, 40, 1, 100 * mib);
    EXPECT_EQ(none.entries_of(0), 0u);
    EXPECT_NE(none.obstacle.find("larger memory="), std::string::npos) << none.obstacle;
}

TEST(RingPlan, ManyProcessorsHaveRingsByDefaultIfTheMachineHasTheMemory) {
    constexpr std::size_t gib = 1024 * mib;
    EXPECT_EQ(ring_bytes_default_max(2, 256 * gib), 512 * mib);
    EXPECT_EQ(ring_bytes_default_max(2, 0), 512 * mib) << "not known";
    EXPECT_FALSE(plan_rings(29, 40, 1, 512 * mib).obstacle.empty()) << "this is what it is about";
    for (const unsigned queues : {29U, 64U, 256U})
        for (const unsigned reactors : {1U, 4U}) {
            const RingPlan plan = plan_rings(queues, 40, reactors, ring_bytes_default_max(queues, 256 * gib));
            EXPECT_TRUE(plan.obstacle.empty()) << plan.obstacle;
            EXPECT_GT(plan.entries_of(0), 0u) << queues;
            EXPECT_GE(plan.depth, ring_depth_min);
        }
    // A guest that may once have many.
    EXPECT_NE(plan_rings(240, 40, 1, ring_bytes_default_max(240, 4 * gib)).obstacle.find("larger memory="),
              std::string::npos);
}

TEST(RingPlan, NothingIsPlannedWhenRingsAreOff) {
    MountOptions options;
    options.io_uring = RingUse::off;
    const RingPlan plan = plan_rings(options, 1, 512 * mib);
    EXPECT_EQ(plan.entries_of(0), 0u);
    EXPECT_TRUE(plan.obstacle.empty());
}

// The test is its kernel: it fills entries, and sees what they are answered with.
class FakeRing final : public Ring {
public:
    explicit FakeRing(lun::Engine& engine) : engine_(engine), headers_(engine.entries()) {}
    Result<void> start(int) override { return {}; }
    void flush() override {}
    bool is_flushed() const override { return true; }
    bool prepare_to_sleep() override { return arrived_.empty(); }
    bool descriptor_is_ready() const override { return true; }
    void watch_descriptor() override {}
    bool requester_was_killed(std::uint16_t slot) const override { return killed.contains(slot); }
    void close() override { open_ = false; }
    bool is_open() const override { return open_; }
    void sleep_on(std::vector<int>&) override {}
    int wait_for(std::span<pollfd>, std::optional<Duration>) override { return 0; }
    unsigned poll(IntakeListener& listener, const Batch&) override {
        const auto now = std::exchange(arrived_, {});
        for (const std::uint16_t slot : now) {
            auto request = request_in_entry(headers_[slot], engine_.entry(slot), scratch_);
            ASSERT_TRUE_OR_THROW(request.has_value());
            request->slot = slot;
            listener.on_incoming(*request);
        }
        return static_cast<unsigned>(now.size());
    }
    bool answer(const ReplyTo& to, int error, std::span<const std::byte> body) override {
        if (!open_) return false;
        ASSERT_TRUE_OR_THROW(!answers.contains(to.slot));
        answers[to.slot] = {to.unique, error, {body.begin(), body.end()}};
        in_place[to.slot] = engine_.is_in_entry(to.slot, body);
        return true;
    }

    void put(std::uint16_t slot, std::uint32_t opcode, std::uint64_t unique, std::span<const std::byte> argument,
             std::span<const std::byte> rest = {}) {
        answers.erase(slot);
        headers_[slot] = entry_of(opcode, unique, argument, rest, engine_.entry(slot));
        arrived_.push_back(slot);
    }
    std::map<std::uint16_t, Reply> answers;
    std::map<std::uint16_t, bool> in_place;
    std::set<std::uint16_t> killed;

private:
    static void ASSERT_TRUE_OR_THROW(bool condition) {
        if (!condition) throw std::runtime_error("the ring was used wrongly");
    }
    lun::Engine& engine_;
    std::vector<EntryHeader> headers_;
    std::vector<std::uint16_t> arrived_;
    std::vector<std::byte> scratch_;
    bool open_ = true;
};

struct NoHost final : ChannelHost {
    void on_control_request(const Origin& origin, std::vector<std::byte> request) override {
        requests.emplace_back(origin, std::move(request));
    }
    void on_control_interrupt(const Origin&) override {}
    void on_disconnected(unsigned, int) override {}
    void on_drop_pages(unsigned, NodeId, std::vector<lun::ByteRange>, std::uint64_t) override {}
    std::vector<std::pair<Origin, std::vector<std::byte>>> requests;
};

struct Holding final : target::Behaviour {
    target::CommandPlan on_command(const target::CommandView& command) override {
        const auto opcode = static_cast<std::uint8_t>(command.cdb[0]);
        target::CommandPlan plan;
        plan.hold = holding && (opcode == scsi::opcode::read_10 || opcode == scsi::opcode::write_10);
        return plan;
    }
    bool holding = false;
};

class RingChannelTest : public ::testing::Test {
protected:
    static constexpr unsigned entries = 8;  // and 4 spare slots
    RingChannelTest() : world_({{.kind = target::StoreKind::ram, .bytes = 16 * mib}}, entries) {
        world_.device().set_behaviour(&holding_);
        lun_ = std::make_shared<LunData>();
        lun_->unit = &world_.unit();
        lun_->capacity_bytes = world_.unit().info()->capacity_bytes();
        OpenFileDetails details;
        details.node = NodeId{2};
        details.lun = lun_;
        handle_ = files_.open(std::move(details));
        channel_ = std::make_shared<FuseChannel>(0, client_.take_server_end(), world_.engine(), files_, host_);
        auto ring = std::make_shared<FakeRing>(world_.engine());
        ring_ = ring.get();
        EXPECT_TRUE(channel_->start_ring(std::move(ring)));
        world_.source = [this] { return channel_ && channel_->poll(); };
    }
    ~RingChannelTest() override {
        let_go();
        channel_->leave();
        channel_.reset();
        world_.advance(std::chrono::seconds(1));
        world_.device().set_behaviour(nullptr);
    }
    void let_go() {
        holding_.holding = false;
        world_.device().release_held();
        world_.settle();
    }
    void put_read(std::uint16_t slot, std::uint64_t offset, std::uint32_t bytes) {
        fuse_read_in in{};
        in.fh = handle_;
        in.offset = offset;
        in.size = bytes;
        in.read_flags = FUSE_READ_LOCKOWNER;
        ring_->put(slot, FUSE_READ, 1000 + 2U * slot, bytes_of(in));
    }
    void put_write(std::uint16_t slot, std::uint64_t offset, std::byte filler, std::size_t bytes) {
        fuse_write_in in{};
        in.fh = handle_;
        in.offset = offset;
        in.size = static_cast<std::uint32_t>(bytes);
        ring_->put(slot, FUSE_WRITE, 1000 + 2U * slot, bytes_of(in), std::vector<std::byte>(bytes, filler));
    }
    // Answered with EINTR while its command is held by the target.
    void interrupt(std::uint16_t slot) {
        client_.interrupt(1000 + 2U * slot);
        world_.advance(std::chrono::milliseconds(700));
    }

    Holding holding_;
    NoHost host_;
    Client client_;
    OpenFiles files_;
    World world_;
    std::shared_ptr<LunData> lun_;
    std::uint64_t handle_ = 0;
    std::shared_ptr<FuseChannel> channel_;
    FakeRing* ring_ = nullptr;
};

TEST_F(RingChannelTest, WholeBlocksAreReadAndWrittenInPlace) {
    for (const std::size_t bytes : {std::size_t{4096}, mib}) {
        put_write(0, mib, std::byte{0x5a}, bytes);
        world_.settle();
        ASSERT_EQ(ring_->answers.at(0).error, 0);
        EXPECT_EQ(ring_->answers.at(0).as<fuse_write_out>().size, bytes);

        put_read(1, mib, static_cast<std::uint32_t>(bytes));
        world_.settle();
        EXPECT_EQ(ring_->answers.at(1).body, std::vector<std::byte>(bytes, std::byte{0x5a}));
        EXPECT_TRUE(ring_->in_place.at(1));
        EXPECT_EQ(ring_->answers.at(1).body[0], world_.engine().entry(1)[0]);
    }
    EXPECT_EQ(world_.engine().usage().intake_in_use, 0u);
}

TEST_F(RingChannelTest, PartsOfBlocksGoThroughABuffer) {
    put_write(0, 1000, std::byte{0x11}, 700);
    world_.settle();
    put_read(1, 1000, 700);
    world_.settle();
    EXPECT_EQ(ring_->answers.at(1).body, std::vector<std::byte>(700, std::byte{0x11}));
    EXPECT_FALSE(ring_->in_place.at(1));
}

TEST_F(RingChannelTest, AWaitingWriteKeepsItsEntryAndNoParkingMemory) {
    world_.block();
    put_write(0, 0, std::byte{1}, 65536);
    world_.settle();
    EXPECT_FALSE(ring_->answers.contains(0));
    EXPECT_EQ(world_.engine().usage().parked_bytes, 0u);
    world_.unblock();
    world_.settle();
    EXPECT_EQ(ring_->answers.at(0).error, 0);
}

TEST_F(RingChannelTest, AWriteThatWasGivenUpDoesNotWriteWhatTheNextRequestBringsIntoItsEntry) {
    holding_.holding = true;
    put_write(3, 0, std::byte{0xaa}, 65536);
    world_.settle();
    interrupt(3);
    ASSERT_EQ(ring_->answers.at(3).error, EINTR);
    EXPECT_EQ(world_.engine().usage().slots_detached, 1u);

    // The kernel uses the entry again while the target still has the command.
    put_write(3, 8 * mib, std::byte{0xbb}, 65536);
    let_go();

    put_read(4, 0, 65536);
    world_.settle();
    EXPECT_EQ(ring_->answers.at(4).body, std::vector<std::byte>(65536, std::byte{0xaa}));
    put_read(5, 8 * mib, 65536);
    world_.settle();
    EXPECT_EQ(ring_->answers.at(5).body, std::vector<std::byte>(65536, std::byte{0xbb}));
    EXPECT_EQ(world_.engine().usage().slots_detached, 0u);
}

TEST_F(RingChannelTest, WhoWasKilledIsAnsweredThoughTheKernelDoesNotTell) {
    holding_.holding = true;
    put_read(2, 0, 4096);
    put_read(3, 0, 4096);
    world_.settle();
    ring_->killed.insert(3);
    for (int second = 0; second < 3; ++second) {
        EXPECT_FALSE(ring_->answers.contains(3) && second < 1);
        EXPECT_TRUE(channel_->prepare_to_sleep());
        world_.advance(std::chrono::seconds(1));
    }
    ASSERT_TRUE(ring_->answers.contains(3));
    EXPECT_EQ(ring_->answers.at(3).error, EINTR);
    EXPECT_FALSE(ring_->answers.contains(2));
    let_go();
    EXPECT_EQ(ring_->answers.at(2).error, 0);
    EXPECT_TRUE(channel_->prepare_to_sleep());
    world_.advance(std::chrono::seconds(2));  // nobody waits, and nobody is looked at
}

TEST_F(RingChannelTest, WhoWasKilledIsAnsweredThoughTheReactorNeverSleeps) {
    holding_.holding = true;
    put_read(2, 0, 4096);
    put_read(3, 0, 4096);
    world_.settle();
    ring_->killed.insert(3);
    world_.advance(std::chrono::seconds(2));
    ASSERT_TRUE(ring_->answers.contains(3));
    EXPECT_EQ(ring_->answers.at(3).error, EINTR);
    EXPECT_FALSE(ring_->answers.contains(2));

    // After that, too.
    ring_->killed.insert(2);
    world_.advance(std::chrono::seconds(2));
    ASSERT_TRUE(ring_->answers.contains(2));
    EXPECT_EQ(ring_->answers.at(2).error, EINTR);
}

// The unit's home is the first channel; the requests come through the ring of the second.
class RingAwayFromHomeTest : public RingChannelTest {
protected:
    RingAwayFromHomeTest() {
        lun::EngineLimits limits;
        limits.entries = entries;
        limits.intake_buffers = 4;
        limits.read_buffers_4k = limits.read_buffers_64k = limits.read_buffers_1m = 2;
        limits.write_buffers_4k = limits.write_buffers_64k = limits.edge_buffers = 2;
        second_engine_ = std::move(*lun::Engine::create(limits, {}, world_.executor(), random_));
        second_ = std::make_shared<FuseChannel>(1, second_client_.take_server_end(), *second_engine_, files_, host_);
        auto ring = std::make_shared<FakeRing>(*second_engine_);
        ring_ = ring.get();
        EXPECT_TRUE(second_->start_ring(std::move(ring)));
        channel_->set_peers({channel_, second_});
        second_->set_peers({channel_, second_});
        world_.source = [this] {
            bool worked = false;
            for (FuseChannel* channel : {channel_.get(), second_.get()}) {
                worked = channel->poll() || worked;
                channel->flush();
            }
            return worked;
        };
    }
    ~RingAwayFromHomeTest() override {
        let_go();
        second_->leave();
        world_.settle();
        second_.reset();
        world_.source = [this] { return channel_ && channel_->poll(); };
    }
    Random random_{2};
    std::unique_ptr<lun::Engine> second_engine_;
    Client second_client_;
    std::shared_ptr<FuseChannel> second_;
};

TEST_F(RingAwayFromHomeTest, WhoWasKilledIsAnsweredThoughHisRequestWaitsAtItsHome) {
    holding_.holding = true;
    put_read(2, 0, 4096);
    put_read(3, 0, 4096);
    world_.settle();
    ASSERT_EQ(second_->pending(), 0u);
    ring_->killed.insert(3);
    for (int second = 0; second < 3; ++second) {
        EXPECT_TRUE(second_->prepare_to_sleep());
        world_.advance(std::chrono::seconds(1));
    }
    ASSERT_TRUE(ring_->answers.contains(3));
    EXPECT_EQ(ring_->answers.at(3).error, EINTR);
    EXPECT_FALSE(ring_->answers.contains(2));
    let_go();
    EXPECT_EQ(ring_->answers.at(2).error, 0);
}

TEST(Killed, IsWhoHasASignalThatEndsHim) {
    const auto status = [](const char* own, const char* shared) {
        return std::string("Name:\tdd\nThreads:\t1\nSigQ:\t0/95\nSigPnd:\t") + own + "\nShdPnd:\t" + shared +
               "\nSigBlk:\tffffffffffffffff\n";
    };
    EXPECT_TRUE(has_fatal_signal(status("0000000000000100", "0000000000000000")));
    EXPECT_TRUE(has_fatal_signal(status("0000000000000000", "0000000000004102")));
    EXPECT_FALSE(has_fatal_signal(status("0000000000000000", "0000000000000000")));
    EXPECT_FALSE(has_fatal_signal(status("0000000000004002", "fffffffffffffeff")));
    EXPECT_FALSE(has_fatal_signal(""));
    EXPECT_FALSE(has_fatal_signal("\nSigPnd:\t"));
    EXPECT_FALSE(was_killed(static_cast<std::uint32_t>(getpid())));
    EXPECT_FALSE(was_killed(0));
    EXPECT_FALSE(was_killed(0xffffffff));
}

TEST_F(RingChannelTest, AReadThatWasGivenUpDoesNotOverwriteTheNextRequest) {
    put_write(0, 0, std::byte{0xaa}, 65536);
    world_.settle();
    holding_.holding = true;
    put_read(3, 0, 65536);
    world_.settle();
    interrupt(3);
    ASSERT_EQ(ring_->answers.at(3).error, EINTR);

    const auto window = world_.engine().entry(3);
    std::memset(window.data(), 0xcc, 65536);
    let_go();
    EXPECT_EQ(window[0], std::byte{0xcc});
    EXPECT_EQ(window[65535], std::byte{0xcc});
}

TEST_F(RingChannelTest, WithoutASpareSlotEntriesGoOnWithOtherMemory) {
    put_write(0, 0, std::byte{0x77}, mib);
    world_.settle();
    // Six, and there are four slots to spare.
    constexpr unsigned given_up = 6;
    holding_.holding = true;
    for (std::uint16_t slot = 0; slot < given_up; ++slot) {
        if (slot % 2 == 0)
            put_read(slot, slot * mib, 4096);
        else
            put_write(slot, slot * mib, std::byte{0xaa}, 4096);
    }
    world_.settle();
    for (std::uint16_t slot = 0; slot < given_up; ++slot) client_.interrupt(1000 + 2U * slot);
    world_.advance(std::chrono::milliseconds(700));
    for (std::uint16_t slot = 0; slot < given_up; ++slot) EXPECT_EQ(ring_->answers.at(slot).error, EINTR) << slot;
    EXPECT_EQ(world_.engine().usage().slots_detached, given_up);

    // The target is slow with those only.
    holding_.holding = false;
    for (const std::size_t bytes : {std::size_t{4096}, std::size_t{512}, mib}) {
        put_write(5, 12 * mib, std::byte{0x5a}, bytes);
        world_.settle();
        ASSERT_TRUE(ring_->answers.contains(5)) << bytes;
        ASSERT_EQ(ring_->answers.at(5).error, 0);
        put_read(4, 12 * mib, static_cast<std::uint32_t>(bytes));
        world_.settle();
        ASSERT_TRUE(ring_->answers.contains(4)) << bytes;
        EXPECT_EQ(ring_->answers.at(4).body, std::vector<std::byte>(bytes, std::byte{0x5a}));
        EXPECT_FALSE(ring_->in_place.at(4));
        EXPECT_EQ(world_.engine().usage().parked_bytes, 0u);
    }
    std::memset(world_.engine().entry(4).data(), 0xcc, mib);
    let_go();
    EXPECT_EQ(world_.engine().entry(4)[0], std::byte{0xcc});
    EXPECT_EQ(world_.engine().usage().slots_detached, 0u);

    // An entry gets a slot again with the next answer.
    for (unsigned round = 0; round < 2; ++round) {
        for (std::uint16_t slot = 0; slot < entries; ++slot) put_read(slot, 0, 4096);
        world_.settle();
        for (std::uint16_t slot = 0; slot < entries; ++slot)
            EXPECT_EQ(ring_->answers.at(slot).body, std::vector<std::byte>(4096, std::byte{0x77})) << slot;
    }
    for (std::uint16_t slot = 0; slot < entries; ++slot) EXPECT_TRUE(ring_->in_place.at(slot)) << slot;
}

TEST_F(RingChannelTest, AWriteWithoutASlotThatWaitsKeepsItsDataAndNoParkingMemory) {
    holding_.holding = true;
    for (std::uint16_t slot = 0; slot < entries; ++slot) put_read(slot, slot * mib, 4096);
    world_.settle();
    for (std::uint16_t slot = 0; slot < entries; ++slot) interrupt(slot);
    holding_.holding = false;
    world_.block();
    for (std::uint16_t slot = 0; slot < entries; ++slot) put_write(slot, slot * mib, std::byte(slot + 1U), mib);
    world_.settle();
    EXPECT_EQ(world_.engine().usage().parked_bytes, 0u);
    interrupt(3);
    EXPECT_EQ(ring_->answers.at(3).error, EINTR);
    world_.unblock();
    let_go();
    for (std::uint16_t slot = 0; slot < entries; ++slot) {
        EXPECT_EQ(ring_->answers.at(slot).error, slot == 3 ? EINTR : 0) << slot;
        put_read(slot, slot * mib, mib);
        world_.settle();
        EXPECT_EQ(ring_->answers.at(slot).body, std::vector<std::byte>(mib, std::byte(slot == 3 ? 0U : slot + 1U)));
    }
}

TEST_F(RingChannelTest, ControlAnswersIntoTheEntryTheRequestCameIn) {
    const auto name = bytes_of_text(std::string_view("lun0\0", 5));
    ring_->put(2, FUSE_LOOKUP, 77, {}, name);
    world_.settle();
    ASSERT_EQ(host_.requests.size(), 1u);
    EXPECT_EQ(host_.requests[0].second, Client::make(FUSE_LOOKUP, 77, 0, {}, name));

    channel_->finish(host_.requests[0].first, make_reply(77, ENOENT));
    EXPECT_EQ(ring_->answers.at(2).error, ENOENT);
}

TEST_F(RingChannelTest, TheDescriptorGoesOnBesideTheRing) {
    const auto unique = client_.read(handle_, 0, 512);
    EXPECT_EQ(client_.await(unique, [this] { world_.settle(); }).error, 0);
}

TEST_F(RingChannelTest, TheEndOfTheConnectionClosesTheRing) {
    client_.hang_up();
    world_.settle();
    EXPECT_FALSE(ring_->is_open());
}

struct Pipe {
    Pipe() { EXPECT_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0); }
    ~Pipe() {
        close(ends[0]);
        close(ends[1]);
    }
    Pipe(const Pipe&) = delete;
    Pipe& operator=(const Pipe&) = delete;
    void put() const { EXPECT_EQ(write(ends[1], "x", 1), 1); }
    void take() const {
        char byte = 0;
        EXPECT_EQ(read(ends[0], &byte, 1), 1);
    }
    int ends[2] = {-1, -1};
};

class RingSleepTest : public ::testing::Test, protected IntakeListener {
protected:
    void SetUp() override {
        auto made = make_ring(world_.engine(), 1);
        if (!made) GTEST_SKIP() << made.error().context;
        ring_ = std::move(*made);
        ASSERT_TRUE(ring_->start(fuse_.ends[0]));
        ring_->watch_descriptor();
    }
    void on_incoming(const Incoming&) override { ADD_FAILURE() << "a request out of nothing"; }
    void on_intake_ended(int) override {}

    // As a reactor does it; which of the descriptors are readable, as bits.
    unsigned sleep_on(const std::vector<int>& fds, std::optional<Duration> most) {
        while (!ring_->prepare_to_sleep()) ring_->poll(*this, Batch{});
        std::vector<pollfd> polled;
        for (const int fd : fds) polled.push_back({fd, POLLIN, 0});
        const int readable = ring_->wait_for(polled, most);
        unsigned bits = 0;
        for (std::size_t i = 0; i < polled.size(); ++i)
            if (polled[i].revents != 0) bits |= 1U << i;
        EXPECT_EQ(std::popcount(bits), readable);
        ring_->poll(*this, Batch{});
        return bits;
    }

    World world_{{{.kind = target::StoreKind::ram, .bytes = mib}}, 0};
    Pipe fuse_, one_, two_;
    std::unique_ptr<Ring> ring_;
};

constexpr auto briefly = std::chrono::milliseconds(2);

TEST_F(RingSleepTest, EndsWhenADescriptorIsReadable) {
    const std::vector<int> both{one_.ends[0], two_.ends[0]};
    EXPECT_EQ(sleep_on(both, briefly), 0u);
    two_.put();
    EXPECT_EQ(sleep_on(both, std::nullopt), 2u);
    EXPECT_EQ(sleep_on(both, std::nullopt), 2u) << "it has not been read";
    one_.put();
    EXPECT_EQ(sleep_on(both, std::nullopt), 3u);
    two_.take();
    EXPECT_EQ(sleep_on(both, std::nullopt), 1u);
    one_.take();
    EXPECT_EQ(sleep_on(both, briefly), 0u);
    two_.put();
    EXPECT_EQ(sleep_on(both, std::nullopt), 2u);
}

TEST_F(RingSleepTest, WhatIsReadableWhileAwakeIsToldByTheNextSleep) {
    EXPECT_EQ(sleep_on({one_.ends[0]}, briefly), 0u);
    one_.put();
    ring_->flush();
    ring_->poll(*this, Batch{});
    EXPECT_EQ(sleep_on({one_.ends[0]}, std::nullopt), 1u);
}

TEST_F(RingSleepTest, DescriptorsComeAndGo) {
    EXPECT_EQ(sleep_on({one_.ends[0]}, briefly), 0u);
    EXPECT_EQ(sleep_on({two_.ends[0], one_.ends[0]}, briefly), 0u);
    one_.put();
    EXPECT_EQ(sleep_on({two_.ends[0], one_.ends[0]}, std::nullopt), 2u);
    EXPECT_EQ(sleep_on({two_.ends[0]}, briefly), 0u) << "the other one is readable, but nobody sleeps on it";
    two_.put();
    EXPECT_EQ(sleep_on({two_.ends[0]}, std::nullopt), 1u);
    EXPECT_EQ(sleep_on({}, briefly), 0u);
}

TEST_F(RingSleepTest, ANumberThatStandsForAnotherFileNowIsNoticed) {
    EXPECT_EQ(sleep_on({one_.ends[0]}, briefly), 0u);
    ASSERT_EQ(dup2(two_.ends[0], one_.ends[0]), one_.ends[0]);
    two_.put();
    EXPECT_EQ(sleep_on({one_.ends[0]}, std::nullopt), 1u);
}

TEST_F(RingSleepTest, TheFuseDescriptorEndsIt) {
    EXPECT_EQ(sleep_on({one_.ends[0]}, briefly), 0u);
    EXPECT_FALSE(ring_->descriptor_is_ready());
    fuse_.put();
    EXPECT_EQ(sleep_on({one_.ends[0]}, briefly), 0u);  // or it was seen before
    EXPECT_TRUE(ring_->descriptor_is_ready());
}

TEST_F(RingSleepTest, LastsUntilItsTimeIsOver) {
    for (const auto most : {std::chrono::milliseconds(20), std::chrono::milliseconds(250)}) {
        const auto before = std::chrono::steady_clock::now();
        // New watches end the first one; after that nothing does.
        sleep_on({one_.ends[0]}, most);
        sleep_on({one_.ends[0]}, most);
        EXPECT_GE(std::chrono::steady_clock::now() - before, most);
    }
}

// To the end of the calling thread: its io_uring_enter(2) fails so, as when the kernel has no memory for a request.
bool refuse_to_enter(int errno_value) {
    sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_enter, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(errno_value)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog filter{.len = std::size(program), .filter = program};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

TEST(RingSleep, GoesOnBesideTheRingWhileTheKernelTakesNothing) {
    for (const int refusal : {EAGAIN, EBUSY}) {
        World world({{.kind = target::StoreKind::ram, .bytes = mib}}, 0);
        const Pipe fuse;
        const std::vector<Pipe> pipes(40);  // far more than the ring has places for
        bool skipped = false;
        std::thread([&] {
            auto ring = make_ring(world.engine(), 1);
            if (!ring || !(*ring)->start(fuse.ends[0]) || !refuse_to_enter(refusal)) {
                skipped = true;
                return;
            }
            (*ring)->watch_descriptor();
            std::vector<pollfd> polled;
            for (const Pipe& one : pipes) polled.push_back({one.ends[0], POLLIN, 0});
            const auto before = std::chrono::steady_clock::now();
            for (int turn = 0; turn < 3; ++turn) {
                EXPECT_TRUE((*ring)->prepare_to_sleep()) << "the processor is for others until it takes something";
                EXPECT_EQ((*ring)->wait_for(polled, std::nullopt), 0);
            }
            EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(30)) << "tried again soon";
            pipes[1].put();
            pipes[39].put();
            EXPECT_EQ((*ring)->wait_for(polled, std::nullopt), 2);
            EXPECT_TRUE(polled[1].revents != 0 && polled[39].revents != 0);
            EXPECT_EQ((*ring)->wait_for(std::span(polled).first(1), std::nullopt), 0);
            (*ring)->watch_descriptor();
        }).join();
        if (skipped) GTEST_SKIP() << "no ring, or no filter of system calls, can be had";
    }
}

TEST_F(RingSleepTest, MoreDescriptorsThanTheRingHasPlacesAreWatchedAllTheSame) {
    const std::vector<Pipe> pipes(40);
    std::vector<int> all;
    for (const Pipe& one : pipes) all.push_back(one.ends[0]);
    const auto sleeps_on = [this](const std::vector<int>& fds) {
        std::vector<pollfd> polled;
        for (const int fd : fds) polled.push_back({fd, POLLIN, 0});
        int readable = 0;
        while (readable == 0) {  // it may end for no reason
            while (!ring_->prepare_to_sleep()) ring_->poll(*this, Batch{});
            readable = ring_->wait_for(polled, std::nullopt);
            ring_->poll(*this, Batch{});
        }
        EXPECT_EQ(readable, 1);
        return polled;
    };
    pipes[39].put();
    EXPECT_NE(sleeps_on(all)[39].revents, 0);
    pipes[0].put();
    EXPECT_NE(sleeps_on({all[0]})[0].revents, 0) << "the others are not watched any more";
    pipes[0].take();
    EXPECT_NE(sleeps_on(all)[39].revents, 0);
}

TEST_F(RingSleepTest, ItMayBeClosedWithWatchesInIt) {
    EXPECT_EQ(sleep_on({one_.ends[0], two_.ends[0]}, briefly), 0u);
    ring_->close();
    EXPECT_FALSE(ring_->is_open());
}

}  // namespace
}  // namespace srpfs::fs::test
