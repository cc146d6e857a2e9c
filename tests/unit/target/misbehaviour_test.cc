// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The levers of the simulation: delays, refusals, lies, crashes, and units a target sends by itself.
#include "test_initiator.h"

namespace srpfs::target {
namespace {

struct Puppet final : Behaviour {
    CommandPlan plan;
    ResponsePlan lies;
    std::int32_t credits_at_most = INT32_MAX;
    std::vector<CommandView> seen;
    std::vector<std::uint64_t> flushed;
    std::vector<Bytes> written;
    CommandPlan on_command(const CommandView& command) override {
        seen.push_back(command);
        return plan;
    }
    void on_response(const CommandView&, ResponsePlan& out) override { out = lies; }
    std::int32_t credits(ChannelId, std::int32_t owed) override { return std::min(owed, credits_at_most); }
    void on_write_applied(unsigned, std::uint64_t, std::uint64_t, std::span<const std::byte> data) override {
        written.emplace_back(data.begin(), data.end());
    }
    void on_flushed(unsigned, std::uint64_t lba, std::uint64_t blocks) override {
        flushed.push_back(lba);
        flushed.push_back(blocks);
    }
};

class Misbehaviour : public TargetTest {
protected:
    void SetUp() override {
        build("ram:1M,wce+null:1M", {.volatile_cache = VolatileCache::modelled});
        device->set_behaviour(&puppet);
    }
    void TearDown() override { shut_down(); }
    Puppet puppet;
};

TEST_F(Misbehaviour, SeesTheCommand) {
    auto& initiator = login({.guid = 0x77});
    (void)write(initiator, 0, 5, pattern(512, 1));
    ASSERT_EQ(puppet.seen.size(), 1u);
    EXPECT_EQ(puppet.seen[0].channel, device->channels()[0].id);
    EXPECT_EQ(puppet.seen[0].initiator[15], std::byte{0x77});
    EXPECT_EQ(puppet.seen[0].direction, srp::DataDirection::to_target);
    EXPECT_EQ(puppet.seen[0].data_bytes, 512u);
    EXPECT_EQ(puppet.seen[0].tag, 0x100u);
}

TEST_F(Misbehaviour, DelaysCommandsByTheTimerQueue) {
    auto& initiator = login();
    puppet.plan.delay = 3s;
    const auto tag = start(initiator, 0, cdb_10(0x2a, 0, 1), Data::out_immediate, {{0, 512}});
    settle();
    advance(2s);
    EXPECT_FALSE(initiator.response(tag));
    EXPECT_TRUE(puppet.written.empty());
    advance(1s);
    EXPECT_EQ(initiator.answer(tag).status, 0);
    EXPECT_EQ(puppet.written.size(), 1u);
}

TEST_F(Misbehaviour, FetchesTheDataOfAHeldWriteFirst) {
    auto& initiator = login();
    puppet.plan.hold = true;
    std::fill_n(initiator.out().begin(), 512, std::byte{0x33});
    (void)start(initiator, 0, cdb_10(0x2a, 0, 1), Data::out, {{0, 512}});
    settle();
    std::fill_n(initiator.out().begin(), 512, std::byte{0x44});
    device->release_held();
    settle();
    EXPECT_EQ(puppet.written.at(0), Bytes(512, std::byte{0x33}));
}

// A unit's store that tells what becomes of it.
struct Fate {
    unsigned writes = 0;
    bool gone = false;
};
struct Witness final : BlockStore {
    explicit Witness(Fate& fate) : fate_(fate) {}
    ~Witness() override { fate_.gone = true; }
    StoreResult submit(StoreIo& io, reactor::Executor&) override {
        fate_.writes += io.kind == StoreIo::Kind::write;
        return StoreResult::done;
    }
    std::uint64_t bytes() const override { return 1 << 20; }
    Result<void> resize(std::uint64_t) override { return {}; }
    Fate& fate_;
};

TEST_F(Misbehaviour, AHeldCommandGoesOnWithTheUnitItWasSentTo) {
    for (const bool is_orphan : {false, true}) {
        SCOPED_TRACE(is_orphan ? "its channel has ended" : "its channel is there");
        Fate fate;
        LunConfig config;
        config.bytes = 1 << 20;
        ASSERT_TRUE(device->add_lun(7, config, std::make_unique<Witness>(fate)));
        auto& other = login({.action = 1});
        auto& initiator = login({.action = 1});
        puppet.plan.hold = true;
        const auto tag = start(initiator, 7, cdb_10(0x2a, 0, 1), Data::out, {{0, 512}});
        settle();
        puppet.plan = {};
        if (is_orphan) {
            initiator.disconnect();
            settle();
        }
        ASSERT_TRUE(device->remove_lun(7));
        expect_sense(execute(other, 7, cdb_10(0x28, 0, 1), Data::in, {{0, 512}}), 5, 0x25, 0);  // the portal knows
        EXPECT_FALSE(fate.gone);
        device->release_held();
        settle();
        if (!is_orphan) {
            EXPECT_EQ(initiator.answer(tag).status, 0);
        }
        EXPECT_EQ(fate.writes, 1u);
        EXPECT_TRUE(fate.gone);
    }
}

TEST_F(Misbehaviour, AnswersAnyStatusInsteadOfExecuting) {
    auto& initiator = login();
    for (const auto status : {scsi::Status::busy, scsi::Status::task_set_full, scsi::Status::reservation_conflict,
                              scsi::Status::task_aborted}) {
        puppet.plan = {.status = status};
        const Rsp rsp = write(initiator, 0, 0, pattern(512, 1));
        EXPECT_EQ(rsp.status, static_cast<int>(status));
        EXPECT_EQ(rsp.flags, 0);
    }
    puppet.plan = {.status = scsi::Status::check_condition,
                   .sense = scsi::Sense{.valid = true, .key = scsi::SenseKey::medium_error, .asc = 0x11, .ascq = 0x04}};
    expect_sense(write(initiator, 0, 0, pattern(512, 1)), 3, 0x11, 4);
    puppet.plan.sense.reset();
    EXPECT_EQ(write(initiator, 0, 0, pattern(512, 1)).key, -1);  // CHECK CONDITION without sense
    EXPECT_TRUE(puppet.written.empty());
}

TEST_F(Misbehaviour, LiesInResponses) {
    auto& initiator = login();
    const auto lie = [&](const ResponsePlan& lies) {
        puppet.lies = lies;
        initiator.responses.clear();
        (void)start(initiator, 0, cdb_10(0x28, 0, 1), Data::in, {{0, 512}});
        settle();
        puppet.lies = {};
        return initiator.responses;
    };
    EXPECT_TRUE(lie({.lost = true}).empty());
    EXPECT_EQ(lie({.copies = 3}).size(), 3u);
    EXPECT_EQ(lie({.tag = 0xbad}).at(0).tag, 0xbadu);
    EXPECT_EQ(lie({.credit_delta = INT32_MAX}).at(0).delta, INT32_MAX);
    EXPECT_EQ(lie({.credit_delta = -5}).at(0).delta, -5);
    const auto residual = lie({.data_in_residual = 100}).at(0);
    EXPECT_EQ(residual.flags, 0x20);
    EXPECT_EQ(residual.in_residual, 100u);
    const auto out = lie({.data_out_residual = 7}).at(0);
    EXPECT_EQ(out.flags, 0x08);
    EXPECT_EQ(out.out_residual, 7u);
    const auto sense = lie({.sense_bytes = 0xffffffff}).at(0);
    EXPECT_EQ(sense.sense_length, 0xffffffffu);
    EXPECT_EQ(sense.flags, 0x02);
    EXPECT_EQ(sense.raw.size(), 36u);
    EXPECT_EQ(lie({.response_data_bytes = 1000}).at(0).data_length, 1000u);
    EXPECT_EQ(lie({.length = 10}).at(0).raw.size(), 10u);
    EXPECT_TRUE(lie({.length = 0}).empty());
}

TEST_F(Misbehaviour, CreditsOfLostResponsesComeWithTheNext) {
    auto& initiator = login();
    puppet.lies.lost = true;
    (void)start(initiator, 0, cdb16({0x00}));
    settle();
    puppet.lies = {};
    EXPECT_EQ(execute(initiator, 0, cdb16({0x00})).delta, 2);
}

TEST_F(Misbehaviour, StarvesOfCreditsAndGivesThemBackOnRequest) {
    auto& initiator = login();
    puppet.credits_at_most = 0;
    for (int i = 0; i < 5; ++i) EXPECT_EQ(execute(initiator, 0, cdb16({0x00})).delta, 0);
    device->send_owed_credits(std::nullopt);
    settle();
    ASSERT_EQ(initiator.others.size(), 1u);
    EXPECT_EQ(Bytes(initiator.others[0].begin(), initiator.others[0].begin() + 8),
              bytes_of({0x81, 0, 0, 0, 0, 0, 0, 5}));
    EXPECT_EQ(initiator.others[0].size(), 16u);
    device->send_owed_credits(std::nullopt);
    settle();
    EXPECT_EQ(initiator.others.size(), 1u);  // nothing owed
    puppet.credits_at_most = 1;
    EXPECT_EQ(execute(initiator, 0, cdb16({0x00})).delta, 1);
}

TEST_F(Misbehaviour, SendsRequestsOfItsOwnToOneChannelOrAll) {
    auto& first = login();
    auto& second = login({.action = 1});
    device->send_credit_request(device->channels()[0].id, 3);
    device->send_async_event(std::nullopt, scsi::Lun::from_number(1),
                             {.valid = true, .key = scsi::SenseKey::unit_attention, .asc = 0x3f, .ascq = 0x0e});
    device->send_target_logout(device->channels()[1].id, 4);
    settle();
    ASSERT_EQ(first.others.size(), 2u);
    EXPECT_EQ(first.others[0][7], std::byte{3});
    const Bytes& event = first.others[1];
    ASSERT_EQ(event.size(), 54u);
    EXPECT_EQ(event[0], std::byte{0x82});
    EXPECT_EQ(event[21], std::byte{1});
    EXPECT_EQ(event[31], std::byte{18});
    EXPECT_EQ(event[36 + 2], std::byte{6});
    EXPECT_EQ(event[36 + 12], std::byte{0x3f});
    ASSERT_EQ(second.others.size(), 2u);
    EXPECT_EQ(second.others[1][0], std::byte{0x80});
    EXPECT_EQ(second.others[1][7], std::byte{4});
    EXPECT_EQ(second.others[1].size(), 16u);
    EXPECT_TRUE(second.is_live());  // the disconnect that should follow is a lever of its own
}

TEST_F(Misbehaviour, AnswersOfInitiatorsAreTakenAndStrangeUnitsIgnored) {
    auto& initiator = login();
    for (const int opcode : {0x41, 0x42, 0x03, 0x00, 0xc1, 0x77}) {
        Bytes unit(16);
        unit[0] = static_cast<std::byte>(opcode);
        EXPECT_TRUE(initiator.send(unit));
    }
    EXPECT_TRUE(initiator.send(bytes_of({0x02})));
    settle();
    EXPECT_TRUE(initiator.is_live());
    EXPECT_TRUE(initiator.responses.empty());
    EXPECT_EQ(device->counters().malformed, 4u);
    EXPECT_EQ(execute(initiator, 0, cdb16({0x00})).status, 0);
}

TEST_F(Misbehaviour, MalformedCommandsGetInvalidFieldInCdb) {
    auto& initiator = login();
    Bytes partial = initiator.command(1, 0, cdb_10(0x28, 0, 2), Data::in, {{0, 512}, {512, 512}});
    partial[7] = std::byte{1};  // one of two descriptors inline: the rest would be in the initiator's memory
    EXPECT_TRUE(initiator.send(partial));
    Bytes empty = initiator.command(2, 0, cdb_10(0x28, 0, 1), Data::in, {{0, 512}});
    std::fill(empty.begin() + 60, empty.end(), std::byte{0});  // zero length
    EXPECT_TRUE(initiator.send(empty));
    Bytes unknown = initiator.command(3, 0, cdb_10(0x28, 0, 1), Data::in, {{0, 512}});
    unknown[5] = std::byte{0x07};
    EXPECT_TRUE(initiator.send(unknown));
    settle();
    for (const std::uint64_t tag : {1u, 2u, 3u}) expect_sense(initiator.answer(tag), 5, 0x24, 0);
    EXPECT_EQ(initiator.credits, 128 + 3);
}

TEST_F(Misbehaviour, DisconnectsOnDemand) {
    auto& first = login();
    auto& second = login({.action = 1});
    device->disconnect(device->channels()[1].id);
    settle();
    EXPECT_TRUE(first.is_live());
    EXPECT_EQ(second.end->reason, fabric::EndReason::peer_disconnected);
    device->disconnect(std::nullopt);
    settle();
    EXPECT_TRUE(first.ended);
}

TEST_F(Misbehaviour, ACrashDropsConnectionsCommandsAndUnflushedWrites) {
    auto& initiator = login();
    const Bytes old = pattern(512, 1), young = pattern(512, 2);
    (void)write(initiator, 0, 0, old);
    (void)execute(initiator, 0, cdb_10(0x35, 0, 0));
    EXPECT_EQ(puppet.flushed, (std::vector<std::uint64_t>{0, 2048}));
    (void)write(initiator, 0, 0, young);
    puppet.plan.hold = true;
    (void)start(initiator, 0, cdb_10(0x2a, 9, 1), Data::out, {{0, 512}});
    settle();
    puppet.written.clear();

    device->crash([](unsigned, std::uint64_t) { return true; });
    settle();
    EXPECT_TRUE(initiator.ended);
    device->release_held();
    advance(10s);
    EXPECT_TRUE(puppet.written.empty());
    EXPECT_EQ(portal->commands(), 0u);
    auto& early = connect({});
    EXPECT_EQ(early.end->reason, fabric::EndReason::rejected);
    EXPECT_EQ(early.end->cm_reason, 8);

    device->restart();
    settle();
    puppet.plan = {};
    auto& again = login();
    EXPECT_EQ(read(again, 0, 0, 512), old);
    EXPECT_EQ(read(again, 0, 9, 512), Bytes(512));
}

TEST_F(Misbehaviour, NothingIsCarriedOutBetweenACrashAndItsNoticeByThePortal) {
    auto& initiator = login();
    EXPECT_TRUE(initiator.send(initiator.command(1, 0, cdb_10(0x2a, 0, 1), Data::out_immediate, {{0, 512}})));
    device->crash([](unsigned, std::uint64_t) { return false; });
    fabric->poll(32);  // before the mailbox
    EXPECT_TRUE(puppet.written.empty());
    EXPECT_TRUE(initiator.responses.empty());
}

TEST_F(Misbehaviour, AThroughWriteIsObservedAsFlushed) {
    auto& initiator = login();
    (void)write(initiator, 0, 3, pattern(1024, 1), 512, 0x08);
    EXPECT_EQ(puppet.flushed, (std::vector<std::uint64_t>{3, 2}));
    EXPECT_EQ(puppet.written.at(0), pattern(1024, 1));
    (void)write(initiator, 1, 3, pattern(1024, 1));
    EXPECT_TRUE(puppet.written.at(1).empty());
}

TEST_F(Misbehaviour, HeldCommandsOfAnEndedChannelAreForgottenWhenThePortalCloses) {
    auto& initiator = login();
    puppet.plan.hold = true;
    (void)start(initiator, 0, cdb_10(0x2a, 9, 1), Data::out, {{0, 512}});
    (void)start(initiator, 0, cdb_10(0x2a, 10, 1), Data::out, {{0, 512}});
    settle();
    initiator.disconnect();
    settle();
    EXPECT_EQ(portal->commands(), 2u);
    portal->close();
    settle();
    EXPECT_TRUE(portal->is_closed());
}

// A fabric that breaks while everything is under way must leave nothing behind.
TEST_F(Misbehaviour, ABrokenConnectionFreesEverythingInEveryStage) {
    struct Slow final : fabric::FaultInjector {
        Duration delay{};
        Duration message_delay(Direction) override { return delay; }
        Duration gone_delay() override { return 500ms; }
    } injector;
    shut_down();
    build("ram:16M", {.credits = 100}, &injector,
          {.buffers_16k = 4, .buffers_128k = 2, .buffers_1m = 2, .buffers_8m = 1});
    device->set_behaviour(&puppet);
    for (int round = 0; round < 40; ++round) {
        injector.delay = {};
        puppet.plan = {};
        if (round % 4 == 1) puppet.plan.delay = 3ms;
        if (round % 4 == 2) puppet.plan.response_delay = 3ms;
        auto& initiator = login();
        injector.delay = 1ms;
        for (unsigned i = 0; i < 20; ++i) {
            (void)start(initiator, 0, cdb_10(0x2a, 100 * i, 64), Data::out, {{0, 32768}});
            (void)start(initiator, 0, cdb_10(0x28, 100 * i, 3), Data::in, {{0, 512}, {1000, 1024}});
            (void)start(initiator, 0, inquiry_cdb(), Data::in, {{0, 255}});
        }
        for (int i = 0; i < round; ++i) advance(500us);
        if (round % 2 == 0)
            initiator.disconnect();
        else
            fabric->link_down();
        for (int i = 0; i < 10; ++i) advance(300ms);
        fabric->link_up();
        EXPECT_TRUE(initiator.gone);
        EXPECT_EQ(portal->channels(), 0u);
        EXPECT_EQ(portal->commands(), 0u) << "round " << round;
        initiators.clear();
    }
    device->set_behaviour(nullptr);
}

}  // namespace
}  // namespace srpfs::target
