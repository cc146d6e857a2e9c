// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/fabric/loopback.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <string>

namespace {

std::size_t allocations = 0;

}  // namespace

// Counts every allocation of this program, for the test that a steady stream of messages makes none.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
    ++allocations;
    if (void* memory = std::malloc(bytes)) return memory;
    throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace srpfs::fabric {
namespace {

using namespace std::chrono_literals;

std::vector<std::byte> bytes_of(const std::string& text) {
    std::vector<std::byte> bytes(text.size());
    std::transform(text.begin(), text.end(), bytes.begin(), [](char one) { return static_cast<std::byte>(one); });
    return bytes;
}

std::string text_of(std::span<const std::byte> bytes) {
    std::string text;
    for (const std::byte one : bytes)
        if (one != std::byte{0}) text += static_cast<char>(one);
    return text;
}

// Writes down what happens to one side of a connection.
struct Side final : ConnectionHandler {
    std::vector<std::byte> login = bytes_of("login");
    std::optional<ReceiveRing> ring = ReceiveRing{8, 128};
    std::vector<std::string> story;
    Connection* connection = nullptr;
    std::optional<EndReason> end;
    End end_details;
    std::vector<std::byte> end_private_data;
    std::size_t reply_bytes = 0;
    bool established = false, gone = false;
    bool record = true;
    std::size_t messages = 0;
    std::vector<std::uint64_t> rdma_done;
    Side* echo_to = nullptr;

    std::span<const std::byte> on_route(const LocalPort& port) override {
        story.push_back("route " + port.device);
        return login;
    }
    std::optional<ReceiveRing> on_reply(std::span<const std::byte> private_data) override {
        story.push_back("reply " + text_of(private_data));
        reply_bytes = private_data.size();
        return ring;
    }
    void on_established() override {
        established = true;
        story.push_back("established");
    }
    void on_received(std::span<const std::byte> message) override {
        ++messages;
        if (record) story.push_back("received " + text_of(message));
        if (echo_to) (void)connection->send(message, {});
    }
    void on_rdma_done(std::uint64_t context) override {
        if (record) story.push_back("rdma " + std::to_string(context));
    }
    void on_revoked(std::uint64_t context) override { story.push_back("revoked " + std::to_string(context)); }
    void on_ended(const End& details) override {
        EXPECT_FALSE(end.has_value());
        end = details.reason;
        end_details = details;
        end_private_data.assign(details.private_data.begin(), details.private_data.end());
        story.push_back(std::string("ended ") + to_string(details.reason));
    }
    void on_gone() override {
        EXPECT_TRUE(end.has_value());
        EXPECT_FALSE(gone);
        gone = true;
        story.push_back("gone");
    }
};

struct Faults final : FaultInjector {
    Duration delay{}, connects_after{}, gone_after{};
    std::optional<Direction> broken, silent, mangled;
    bool swallow = false;
    Duration message_delay(Direction) override { return delay; }
    bool breaks(Direction direction) override { return broken == direction; }
    bool loses(Direction direction) override { return silent == direction; }
    void mangle(Direction direction, std::vector<std::byte>& message) override {
        if (mangled == direction) message.assign(3, std::byte{'x'});
    }
    bool swallows_connect() override { return swallow; }
    Duration connect_delay() override { return connects_after; }
    Duration gone_delay() override { return gone_after; }
};

class Loopback : public testing::Test, protected ListenHandler {
protected:
    enum class Answer { accept, reject, drop, keep };

    void on_request(std::unique_ptr<ConnectRequest> arrived) override {
        request_bytes = arrived->private_data().size();
        request_text = text_of(arrived->private_data());
        switch (answer) {
            case Answer::accept: accept(*arrived); break;
            case Answer::reject: arrived->reject(bytes_of("no")); break;
            case Answer::drop: break;
            case Answer::keep: request = std::move(arrived); break;
        }
    }
    void accept(ConnectRequest& arrived) {
        target.connection =
            &arrived.accept({.sends_max = 4, .message_bytes_max = 128}, {8, 128}, bytes_of("hello"), target);
    }
    void SetUp() override { start(nullptr); }
    void TearDown() override {
        request.reset();
        if (initiator.connection && !initiator.gone) initiator.connection->disconnect();
        if (target.connection && !target.gone) target.connection->disconnect();
        injector.gone_after = {};
        turn();
        turn();
        turn();
        advance(10s);
        listener.reset();
        EXPECT_EQ(fabric->connections(), 0u);
    }
    void start(FaultInjector* faults, Registration registration = Registration::pool) {
        listener.reset();
        fabric = make_loopback_fabric(timers, demo_port(), faults, registration);
        auto listening = fabric->listen(LoopbackAddress{"demo"}, *this);
        ASSERT_TRUE(listening);
        listener = std::move(*listening);
    }
    void connect(const Address& address = LoopbackAddress{"demo"}) {
        auto connecting = fabric->connect(address, {.sends_max = 4, .message_bytes_max = 128}, initiator);
        ASSERT_TRUE(connecting);
        initiator.connection = *connecting;
    }
    void turn() {
        fabric->poll(32);
        fabric->flush();
    }
    void settle() {
        for (int i = 0; i < 100 && !fabric->arm(); ++i) turn();
    }
    void advance(Duration duration) {
        timers.advance_to(timers.now() + duration);
        settle();
    }
    void establish() {
        connect();
        settle();
        ASSERT_TRUE(initiator.established);
        ASSERT_TRUE(target.established);
        initiator.story.clear();
        target.story.clear();
    }
    RegionId region(std::span<std::byte> memory, RemoteAccess access) {
        auto id = fabric->register_memory(memory, access);
        EXPECT_TRUE(id);
        return *id;
    }

    reactor::TimerQueue timers{Instant{}};
    Faults injector;
    std::unique_ptr<LoopbackFabric> fabric;
    std::unique_ptr<Listener> listener;
    std::unique_ptr<ConnectRequest> request;
    Side initiator, target;
    Answer answer = Answer::accept;
    std::size_t request_bytes = 0;
    std::string request_text;
};

using Story = std::vector<std::string>;

TEST_F(Loopback, ConnectsInTheOrderOfTheInterface) {
    connect();
    EXPECT_TRUE(initiator.story.empty());  // nothing from inside connect()
    settle();

    EXPECT_EQ(initiator.story, (Story{"route demo0", "reply hello", "established"}));
    EXPECT_EQ(target.story, (Story{"established"}));
    EXPECT_EQ(request_text, "login");
    EXPECT_EQ(fabric->connections(), 2u);
}

TEST_F(Loopback, PadsPrivateDataAsAConnectionManagerDoes) {
    establish();
    EXPECT_EQ(request_bytes, 56u);
    EXPECT_EQ(initiator.reply_bytes, 196u);
}

TEST_F(Loopback, GivesNativeAddresses92BytesOfPrivateData) {
    IbAddress address;
    address.service_id = 7;
    auto second = fabric->listen(address, *this);
    ASSERT_TRUE(second);
    connect(address);
    settle();
    EXPECT_TRUE(initiator.established);
    EXPECT_EQ(request_bytes, 92u);
}

TEST_F(Loopback, RefusesPrivateDataThatDoesNotFit) {
    initiator.login.assign(57, std::byte{1});
    connect();
    settle();
    EXPECT_EQ(initiator.end, EndReason::local_error);
}

TEST_F(Loopback, RejectsWithPrivateDataAndReason28) {
    answer = Answer::reject;
    connect();
    settle();

    EXPECT_EQ(initiator.end, EndReason::rejected);
    EXPECT_EQ(initiator.end_details.cm_reason, 28);
    EXPECT_EQ(text_of(initiator.end_private_data), "no");
    EXPECT_EQ(initiator.end_private_data.size(), 148u);
    EXPECT_TRUE(initiator.gone);
}

TEST_F(Loopback, RejectsARequestThatIsDropped) {
    answer = Answer::drop;
    connect();
    settle();
    EXPECT_EQ(initiator.end, EndReason::rejected);
    EXPECT_TRUE(initiator.end_private_data.empty());
}

TEST_F(Loopback, RejectsWithReason8WhereNobodyListens) {
    connect(LoopbackAddress{"other"});
    settle();
    EXPECT_EQ(initiator.end, EndReason::rejected);
    EXPECT_EQ(initiator.end_details.cm_reason, 8);
}

TEST_F(Loopback, RefusesASecondListenerOfOneName) {
    auto second = fabric->listen(LoopbackAddress{"demo"}, *this);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().errno_value(), EADDRINUSE);
}

TEST_F(Loopback, EndsLocallyWhenTheRouteIsRefused) {
    initiator.login.clear();
    connect();
    settle();
    EXPECT_EQ(initiator.story, (Story{"route demo0", "ended refused locally", "gone"}));
}

TEST_F(Loopback, EndsBothSidesWhenTheReplyIsRefused) {
    initiator.ring.reset();
    connect();
    settle();
    EXPECT_EQ(initiator.end, EndReason::refused_locally);
    EXPECT_EQ(target.end, EndReason::rejected);
    EXPECT_FALSE(target.established);
}

TEST_F(Loopback, AcceptingARequestWhoseSenderGaveUpEndsAtOnce) {
    answer = Answer::keep;
    connect();
    settle();
    initiator.connection->disconnect();
    settle();
    EXPECT_EQ(initiator.story, (Story{"route demo0", "ended closed", "gone"}));

    accept(*request);
    settle();
    EXPECT_EQ(target.end, EndReason::unreachable);
    EXPECT_TRUE(target.gone);
}

TEST_F(Loopback, CarriesMessagesInOrderBothWays) {
    establish();
    EXPECT_TRUE(initiator.connection->send(bytes_of("one "), bytes_of("two")));
    EXPECT_TRUE(initiator.connection->send(bytes_of("three"), {}));
    EXPECT_TRUE(target.connection->send(bytes_of("four"), {}));
    EXPECT_TRUE(target.story.empty());
    settle();

    EXPECT_EQ(target.story, (Story{"received one two", "received three"}));
    EXPECT_EQ(initiator.story, (Story{"received four"}));
}

TEST_F(Loopback, HandsOverAnAnswerInTheSamePollAsItsMessage) {
    establish();
    target.echo_to = &initiator;
    EXPECT_TRUE(initiator.connection->send(bytes_of("ping"), {}));
    fabric->poll(32);
    EXPECT_EQ(initiator.story, (Story{"received ping"}));
}

TEST_F(Loopback, StopsAtTheLimitOfOnePoll) {
    establish();
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(initiator.connection->send(bytes_of("m"), {}));
    EXPECT_EQ(fabric->poll(2), 2u);
    EXPECT_EQ(target.messages, 2u);
    EXPECT_FALSE(fabric->arm());
    settle();
    EXPECT_EQ(target.messages, 3u);
    EXPECT_TRUE(fabric->arm());
}

TEST_F(Loopback, RefusesToSendBeforeItIsEstablishedAndAfterItEnded) {
    connect();
    EXPECT_FALSE(initiator.connection->send(bytes_of("early"), {}));
    settle();
    initiator.connection->disconnect();
    EXPECT_FALSE(initiator.connection->send(bytes_of("late"), {}));
}

TEST_F(Loopback, RefusesToSendMoreOrLongerThanItsLimits) {
    establish();
    EXPECT_FALSE(initiator.connection->send(std::vector<std::byte>(100), std::vector<std::byte>(29)));
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(initiator.connection->send(std::vector<std::byte>(128), {}));
    EXPECT_FALSE(initiator.connection->send(bytes_of("m"), {}));
    settle();
    EXPECT_TRUE(initiator.connection->send(bytes_of("m"), {}));
}

TEST_F(Loopback, BreaksOnAMessageLongerThanTheReceiveBuffers) {
    initiator.ring = ReceiveRing{8, 10};
    establish();
    EXPECT_TRUE(target.connection->send(std::vector<std::byte>(10), {}));
    settle();
    EXPECT_EQ(initiator.messages, 1u);
    EXPECT_TRUE(target.connection->send(std::vector<std::byte>(11), {}));
    settle();
    EXPECT_EQ(initiator.end, EndReason::transport_error);
    EXPECT_EQ(target.end, EndReason::transport_error);
}

TEST_F(Loopback, EndsWithClosedHereAndPeerDisconnectedThereAndGoneLast) {
    establish();
    EXPECT_TRUE(initiator.connection->send(bytes_of("last"), {}));
    initiator.connection->disconnect();
    initiator.connection->disconnect();
    EXPECT_TRUE(initiator.story.empty());  // nothing from inside disconnect()
    turn();
    EXPECT_EQ(initiator.story, (Story{"ended closed"}));
    EXPECT_FALSE(initiator.gone);  // only from a later poll
    settle();

    EXPECT_EQ(initiator.story, (Story{"ended closed", "gone"}));
    EXPECT_EQ(target.story, (Story{"received last", "ended target disconnected", "gone"}));
    EXPECT_EQ(fabric->connections(), 0u);
}

TEST_F(Loopback, DisconnectBeforeEstablishedAbandonsTheAttempt) {
    connect();
    initiator.connection->disconnect();
    settle();
    EXPECT_EQ(initiator.story, (Story{"ended closed", "gone"}));
    EXPECT_EQ(request_bytes, 0u);
}

TEST_F(Loopback, DescribesOnlyBytesInsideARegion) {
    establish();
    std::vector<std::byte> memory(100);
    const RegionId id = region(std::span(memory).subspan(10, 80), RemoteAccess::read);

    const auto inside = initiator.connection->describe(id, std::span(memory).subspan(10, 80));
    ASSERT_TRUE(inside);
    EXPECT_EQ(inside->address, reinterpret_cast<std::uintptr_t>(memory.data() + 10));
    EXPECT_EQ(inside->length, 80u);
    EXPECT_FALSE(initiator.connection->describe(id, std::span(memory).subspan(9, 10)));
    EXPECT_FALSE(initiator.connection->describe(id, std::span(memory).subspan(11, 80)));
    EXPECT_FALSE(initiator.connection->describe(RegionId{99}, std::span(memory).subspan(10, 1)));
    fabric->unregister_memory(id);
    EXPECT_FALSE(initiator.connection->describe(id, std::span(memory).subspan(10, 80)));
}

TEST_F(Loopback, WritesIntoAndReadsFromThePeersMemory) {
    establish();
    auto readable = bytes_of("from initiator"), writable = bytes_of("..............");
    auto staging = bytes_of("from target..."), sink = bytes_of("..............");
    const auto readable_id = region(readable, RemoteAccess::read), writable_id = region(writable, RemoteAccess::write);
    const auto staging_id = region(staging, RemoteAccess::read), sink_id = region(sink, RemoteAccess::read);

    EXPECT_TRUE(target.connection->rdma_write(staging_id, std::span(staging).first(11),
                                              *initiator.connection->describe(writable_id, writable), 1));
    EXPECT_TRUE(target.connection->rdma_read(sink_id, sink, *initiator.connection->describe(readable_id, readable), 2));
    EXPECT_TRUE(target.connection->send(bytes_of("done"), {}));
    settle();

    EXPECT_EQ(text_of(writable), "from target...");
    EXPECT_EQ(text_of(sink), "from initiator");
    EXPECT_EQ(target.story, (Story{"rdma 1", "rdma 2"}));
    EXPECT_EQ(initiator.story, (Story{"received done"}));
}

TEST_F(Loopback, WithAPoolAGrantIsWhatDescribeSays) {
    establish();
    std::vector<std::byte> memory(64);
    const auto id = region(memory, RemoteAccess::write);
    const auto grant = initiator.connection->grant(id, memory, RemoteAccess::write);
    ASSERT_TRUE(grant);
    EXPECT_FALSE(grant->window);
    EXPECT_EQ(grant->remote.key, initiator.connection->describe(id, memory)->key);
    EXPECT_TRUE(initiator.connection->revoke(*grant, 1)) << "there is nothing to revoke";
    EXPECT_FALSE(initiator.connection->grant(id, std::span(memory).subspan(1, 64), RemoteAccess::write));
}

class LoopbackWindows : public Loopback {
protected:
    void SetUp() override {
        start(nullptr, Registration::window);
        memory_id = region(memory, RemoteAccess::write);
        local_id = region(local, RemoteAccess::read);
        establish();
    }
    std::vector<std::byte> memory = bytes_of("................"), local = bytes_of("from the target!");
    RegionId memory_id{}, local_id{};
    Grant grant(std::span<const std::byte> bytes, RemoteAccess access = RemoteAccess::write) {
        const auto granted = initiator.connection->grant(memory_id, bytes, access);
        EXPECT_TRUE(granted && granted->window);
        return granted.value_or(Grant{});
    }
    void expect_refused() {
        settle();
        ASSERT_TRUE(target.end.has_value()) << "the access was not refused";
        EXPECT_EQ(*target.end, EndReason::transport_error);
        EXPECT_EQ(text_of(memory).find("target"), std::string::npos) << "something has landed";
    }
};

TEST_F(LoopbackWindows, WhatIsGrantedCanBeReachedUntilItIsRevoked) {
    const Grant open = grant(memory);
    EXPECT_TRUE(target.connection->rdma_write(local_id, local, open.remote, 1));
    settle();
    EXPECT_EQ(text_of(memory), "from the target!");
    EXPECT_EQ(fabric->windows(), 1U);
    std::fill(memory.begin(), memory.end(), std::byte{'.'});
    EXPECT_FALSE(initiator.connection->revoke(open, 7));
    EXPECT_EQ(initiator.story, Story{});
    settle();
    EXPECT_EQ(initiator.story, Story{"revoked 7"});
    EXPECT_EQ(fabric->windows(), 0U);
    // Nothing late can land.
    EXPECT_TRUE(target.connection->rdma_write(local_id, local, open.remote, 2));
    expect_refused();
}

TEST_F(LoopbackWindows, WhatIsOnItsWayWhenAGrantIsRevokedDoesNotLand) {
    const Grant open = grant(memory);
    EXPECT_TRUE(target.connection->rdma_write(local_id, local, open.remote, 1));
    (void)initiator.connection->revoke(open, 7);
    expect_refused();
}

TEST_F(LoopbackWindows, AGrantCoversItsBytesAndNoOthers) {
    Grant open = grant(std::span(memory).first(8));
    open.remote.length = 16;
    EXPECT_TRUE(target.connection->rdma_write(local_id, std::span(local).first(9), open.remote, 1));
    expect_refused();
}

TEST_F(LoopbackWindows, AGrantHasOneDirection) {
    const Grant open = grant(memory, RemoteAccess::read);
    EXPECT_TRUE(target.connection->rdma_write(local_id, local, open.remote, 1));
    expect_refused();
}

TEST_F(LoopbackWindows, TheRegionItselfIsClosed) {
    EXPECT_TRUE(target.connection->rdma_write(local_id, local, *initiator.connection->describe(memory_id, memory), 1));
    expect_refused();
}

TEST_F(LoopbackWindows, AGrantBelongsToItsConnection) {
    const Grant open = grant(memory);
    // The other end may not use it against its own peer either: it is the initiator's memory that was opened, to the
    // target.
    auto sink = bytes_of("................");
    const auto sink_id = region(sink, RemoteAccess::read);
    EXPECT_TRUE(initiator.connection->rdma_read(sink_id, sink, open.remote, 1));
    settle();
    ASSERT_TRUE(initiator.end.has_value());
    EXPECT_EQ(*initiator.end, EndReason::transport_error);
}

TEST_F(LoopbackWindows, AGrantEndsWithItsConnection) {
    const Grant open = grant(memory);
    initiator.connection->disconnect();
    settle();
    EXPECT_EQ(fabric->windows(), 0U);
    initiator = Side{};
    target = Side{};
    establish();
    EXPECT_TRUE(target.connection->rdma_write(local_id, local, open.remote, 1));
    expect_refused();
}

TEST_F(LoopbackWindows, NoMoreAreOutThanMessagesCanBe) {
    std::vector<Grant> grants;
    for (int i = 0; i < 4; ++i) grants.push_back(grant(memory));
    EXPECT_FALSE(initiator.connection->grant(memory_id, memory, RemoteAccess::write));
    (void)initiator.connection->revoke(grants[2], 1);
    EXPECT_FALSE(initiator.connection->grant(memory_id, memory, RemoteAccess::write)) << "it is not revoked yet";
    settle();
    const Grant again = grant(memory);
    for (const Grant& old : grants) EXPECT_NE(again.remote.key, old.remote.key) << "a key has come back";
}

TEST_F(LoopbackWindows, NobodyIsToldOfARevocationAfterTheEnd) {
    const Grant open = grant(memory);
    (void)initiator.connection->revoke(open, 7);
    initiator.connection->disconnect();
    settle();
    EXPECT_EQ(initiator.story, (Story{"ended closed", "gone"}));
}

TEST_F(Loopback, BreaksBothEndsOnAnyViolationOfARegion) {
    std::vector<std::byte> memory(64), local(64);
    enum class Violation { right, key, before, behind, length, unregistered, local_range };
    for (const auto violation : {Violation::right, Violation::key, Violation::before, Violation::behind,
                                 Violation::length, Violation::unregistered, Violation::local_range}) {
        SCOPED_TRACE(static_cast<int>(violation));
        initiator = Side{};
        target = Side{};
        establish();
        const auto id = region(memory, RemoteAccess::write), local_id = region(local, RemoteAccess::read);
        RemoteBuffer remote = *initiator.connection->describe(id, memory);
        std::span<std::byte> source(local);
        switch (violation) {
            case Violation::right: break;
            case Violation::key: remote.key ^= 1; break;
            case Violation::before: remote.address -= 1; break;
            case Violation::behind: remote.address += 1; break;
            case Violation::length: remote.length = 63; break;
            case Violation::unregistered: fabric->unregister_memory(id); break;
            case Violation::local_range: source = memory; break;
        }
        if (violation == Violation::right)
            EXPECT_TRUE(target.connection->rdma_read(local_id, source, remote, 1));
        else
            EXPECT_TRUE(target.connection->rdma_write(local_id, source, remote, 1));
        settle();

        EXPECT_EQ(target.story, (Story{"ended transport error", "gone"}));
        EXPECT_EQ(initiator.story, (Story{"ended transport error", "gone"}));
    }
}

TEST_F(Loopback, CountsOneSidedOperationsInTheSendQueue) {
    establish();
    std::vector<std::byte> memory(64), local(64);
    const auto id = region(memory, RemoteAccess::write), local_id = region(local, RemoteAccess::read);
    const RemoteBuffer remote = *initiator.connection->describe(id, memory);
    for (std::uint64_t i = 0; i < 4; ++i) EXPECT_TRUE(target.connection->rdma_write(local_id, local, remote, i));
    EXPECT_FALSE(target.connection->rdma_write(local_id, local, remote, 4));
    EXPECT_FALSE(target.connection->send(bytes_of("m"), {}));
    settle();
    EXPECT_TRUE(target.connection->rdma_write(local_id, local, remote, 4));
    settle();  // while the memory exists
}

TEST_F(Loopback, LandsOperationsOnTheirWayUntilGone) {
    start(&injector);
    injector.gone_after = 5s;
    establish();
    auto memory = bytes_of("before"), local = bytes_of("after ");
    const auto id = region(memory, RemoteAccess::write), local_id = region(local, RemoteAccess::read);
    injector.delay = 1s;
    EXPECT_TRUE(target.connection->rdma_write(local_id, local, *initiator.connection->describe(id, memory), 1));
    initiator.connection->disconnect();
    settle();
    EXPECT_EQ(initiator.story, (Story{"ended closed"}));
    EXPECT_EQ(text_of(memory), "before");

    advance(1s);
    EXPECT_EQ(text_of(memory), "after ");
    EXPECT_FALSE(initiator.gone);
    advance(4s);
    EXPECT_TRUE(initiator.gone);
}

TEST_F(Loopback, DropsOperationsThatArriveAfterGone) {
    start(&injector);
    establish();
    auto memory = bytes_of("before"), local = bytes_of("after ");
    const auto id = region(memory, RemoteAccess::write), local_id = region(local, RemoteAccess::read);
    injector.delay = 1s;
    EXPECT_TRUE(target.connection->rdma_write(local_id, local, *initiator.connection->describe(id, memory), 1));
    initiator.connection->disconnect();
    settle();
    EXPECT_TRUE(initiator.gone);
    advance(2s);
    EXPECT_EQ(text_of(memory), "before");
}

TEST_F(Loopback, DelaysMessagesWithoutReorderingThem) {
    start(&injector);
    establish();
    injector.delay = 3s;
    EXPECT_TRUE(initiator.connection->send(bytes_of("slow"), {}));
    injector.delay = 1s;
    EXPECT_TRUE(initiator.connection->send(bytes_of("fast"), {}));
    EXPECT_EQ(timers.next_deadline(), Instant{} + 3s);
    advance(2s);
    EXPECT_TRUE(target.story.empty());
    advance(1s);
    EXPECT_EQ(target.story, (Story{"received slow", "received fast"}));
}

TEST_F(Loopback, BreaksInsteadOfCarryingAMessageWhenToldTo) {
    start(&injector);
    establish();
    injector.broken = FaultInjector::Direction::to_initiator;
    EXPECT_TRUE(initiator.connection->send(bytes_of("fine"), {}));
    settle();
    EXPECT_EQ(target.story, (Story{"received fine"}));
    EXPECT_TRUE(target.connection->send(bytes_of("breaks"), {}));
    settle();
    EXPECT_EQ(initiator.end, EndReason::transport_error);
    EXPECT_EQ(target.end, EndReason::transport_error);
    EXPECT_EQ(initiator.messages, 0u);
}

TEST_F(Loopback, LosesEverythingOfASilentSideFromThenOn) {
    start(&injector);
    establish();
    injector.silent = FaultInjector::Direction::to_initiator;
    EXPECT_TRUE(target.connection->send(bytes_of("lost"), {}));
    injector.silent.reset();
    EXPECT_TRUE(target.connection->send(bytes_of("lost too"), {}));
    target.connection->disconnect();
    advance(100s);
    EXPECT_TRUE(initiator.story.empty());
    EXPECT_TRUE(target.gone);

    // The next thing the other side sends finds nobody.
    EXPECT_TRUE(initiator.connection->send(bytes_of("hello?"), {}));
    settle();
    EXPECT_EQ(initiator.end, EndReason::transport_error);
}

TEST_F(Loopback, ManglesMessagesWhenToldTo) {
    start(&injector);
    establish();
    injector.mangled = FaultInjector::Direction::to_listener;
    EXPECT_TRUE(initiator.connection->send(bytes_of("message"), {}));
    settle();
    EXPECT_EQ(target.story, (Story{"received xxx"}));
}

TEST_F(Loopback, AnswersASwallowedConnectOnlyByDisconnect) {
    start(&injector);
    injector.swallow = true;
    connect();
    advance(1000s);
    EXPECT_EQ(initiator.story, (Story{"route demo0"}));
    initiator.connection->disconnect();
    settle();
    EXPECT_EQ(initiator.end, EndReason::closed);
}

TEST_F(Loopback, DelaysConnects) {
    start(&injector);
    injector.connects_after = 2s;
    connect();
    settle();
    advance(1s);
    EXPECT_EQ(request_bytes, 0u);
    advance(1s);
    EXPECT_EQ(request_bytes, 56u);
    EXPECT_FALSE(initiator.established);
    advance(2s);
    EXPECT_TRUE(initiator.established);
    EXPECT_FALSE(target.established);
    advance(2s);
    EXPECT_TRUE(target.established);
}

TEST_F(Loopback, APulledCableBreaksEverythingUntilItIsBack) {
    establish();
    EXPECT_TRUE(fabric->local_ports().at(0).active);
    fabric->link_down();
    EXPECT_FALSE(fabric->local_ports().at(0).active);
    settle();
    EXPECT_EQ(initiator.end, EndReason::transport_error);
    EXPECT_EQ(target.end, EndReason::transport_error);

    initiator = Side{};
    target = Side{};
    connect();
    settle();
    EXPECT_EQ(initiator.end, EndReason::unreachable);

    fabric->link_up();
    initiator = Side{};
    connect();
    settle();
    EXPECT_TRUE(initiator.established);
}

TEST_F(Loopback, AllocatesNothingForASteadyStreamOfMessages) {
    establish();
    std::vector<std::byte> memory(64), local(64), message(64);
    const auto id = region(memory, RemoteAccess::write), local_id = region(local, RemoteAccess::read);
    const RemoteBuffer remote = *initiator.connection->describe(id, memory);
    initiator.record = target.record = false;
    target.echo_to = &initiator;
    const auto round = [&] {
        for (int i = 0; i < 2; ++i) EXPECT_TRUE(initiator.connection->send(message, {}));
        EXPECT_TRUE(target.connection->rdma_write(local_id, local, remote, 1));
        fabric->poll(32);
    };
    for (int i = 0; i < 10; ++i) round();

    const std::size_t before = allocations;
    for (int i = 0; i < 1000; ++i) round();
    EXPECT_EQ(allocations, before);
    EXPECT_EQ(initiator.messages, 2020u);
}

}  // namespace
}  // namespace srpfs::fabric
