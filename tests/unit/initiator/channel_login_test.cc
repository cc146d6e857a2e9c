// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Logging in: what a channel asks for, what it accepts, and what each refusal becomes (srp-wire 2, 6, 11; srp-admin 1).
#include "channel_fixture.h"

namespace srpfs::initiator {
namespace {

using scripted::login_reject;
using scripted::login_response;
using scripted::LoginAnswer;

class ChannelLogin : public ChannelTest {
protected:
    ChannelEnd answer_login(const LoginAnswer& answer) {
        fabric.login = answer;
        return connect_in_vain();
    }
    bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
};

// ---- what is asked for ----

TEST_F(ChannelLogin, AsksAsIbSrpDoes) {
    config.parameters.initiator_ext = 0x99;
    Peer& peer = connect_live();
    ASSERT_EQ(peer.login.size(), 56u);
    EXPECT_EQ(number_at(peer.login, 0, 1), 0u);
    EXPECT_EQ(number_at(peer.login, 12, 4), 8260u);  // 68 + 8192: immediate data wants the most
    EXPECT_EQ(number_at(peer.login, 16, 8), 0x99u);
    EXPECT_EQ(number_at(peer.login, 24, 8), fabric.port.guid);
    EXPECT_EQ(number_at(peer.login, 32, 8), config.parameters.id_ext);
    EXPECT_EQ(number_at(peer.login, 40, 8), config.parameters.ioc_guid);
    EXPECT_EQ(number_at(peer.login, 48, 2), 68u);
    EXPECT_EQ(lives, 1u);
}

TEST_F(ChannelLogin, TakesTheNativeFormForAServiceId) {
    config.address = fabric::IbAddress{.service_id = 7};
    config.parameters.ib = srp::IbDestination{};
    EXPECT_EQ(connect_live().login.size(), 64u);
}

TEST_F(ChannelLogin, WithoutImmediateDataNeedsOnlyTheDescriptors) {
    config.parameters.use_imm_data = false;
    Peer& peer = connect_live();
    EXPECT_EQ(number_at(peer.login, 12, 4), 276u);
    EXPECT_EQ(number_at(peer.login, 48, 2), 0u);
    EXPECT_EQ(channel->facts().immediate_bytes_max, 0u);  // although the target sets the bit: garbage in old ones
}

TEST_F(ChannelLogin, PostsAReceiveForEachCommandAndThreeMore) {
    config.parameters.queue_size = 5;
    Peer& peer = connect_live();
    EXPECT_EQ(peer.ring.count, 8u);
    EXPECT_EQ(peer.ring.bytes_each, 8260u);
    EXPECT_EQ(peer.limits.sends_max, 8u);
}

TEST_F(ChannelLogin, HandsTheRetryCountAndTheVectorOfItsIndexToTheFabric) {
    config.parameters.tl_retry_count = 3;
    config.parameters.comp_vector = 4;
    config.index = 2;
    config.ack_timeout = 17;
    Peer& peer = connect_live();
    EXPECT_EQ(peer.limits.retry_count, 3u);
    EXPECT_EQ(peer.limits.completion_vector, 6u);
    EXPECT_EQ(peer.limits.ack_timeout, 17);
}

TEST_F(ChannelLogin, UsesTheSmallerOfBothUnitLengths) {
    fabric.login.it_iu_bytes = 1000;
    connect_live();
    EXPECT_EQ(channel->facts().it_iu_bytes_max, 1000u);
    EXPECT_EQ(channel->facts().immediate_bytes_max, 932u);
}

TEST_F(ChannelLogin, TakesNoImmediateDataWithoutTheTargetsConsent) {
    fabric.login.flags = 0;
    connect_live();
    EXPECT_EQ(channel->facts().immediate_bytes_max, 0u);
}

TEST_F(ChannelLogin, TakesNoImmediateDataIntoAUnitThatHasNoRoomForIt) {
    fabric.login.it_iu_bytes = 68;
    connect_live();
    EXPECT_EQ(channel->facts().immediate_bytes_max, 0u);
}

// ---- refusals of the target ----

struct Rejection {
    std::uint32_t reason;
    const char* sentence;
    const char* hint;
};
class ChannelLoginReject : public ChannelLogin, public testing::WithParamInterface<Rejection> {};

TEST_P(ChannelLoginReject, IsConnectionRefusedWithASentenceAndAHint) {
    fabric.on_connect = [](Peer& peer) { peer.reject(28, login_reject(GetParam().reason)); };
    const ChannelEnd end = connect_in_vain();
    EXPECT_EQ(end.errno_value, ECONNREFUSED);
    EXPECT_EQ(end.reason, fabric::EndReason::rejected);
    EXPECT_EQ(static_cast<std::uint32_t>(end.reject.value_or(srp::RejectReason{})), GetParam().reason);
    EXPECT_TRUE(contains(end.text, GetParam().sentence)) << end.text;
    EXPECT_TRUE(contains(end.text, GetParam().hint)) << end.text;
    EXPECT_EQ(end.smaller_iu_may_help, GetParam().reason == 0x00010002);
    EXPECT_FALSE(end.was_live);
    EXPECT_FALSE(end.timed_out);
}

INSTANTIATE_TEST_SUITE_P(Reasons, ChannelLoginReject,
                         testing::Values(Rejection{0x00010000, "gives no reason", "log"},
                                         Rejection{0x00010001, "insufficient resources", "enable"},
                                         Rejection{0x00010002, "information unit length", "use_imm_data=0"},
                                         Rejection{0x00010003, "no such target port", "ioc_guid"},
                                         Rejection{0x00010004, "descriptor formats", "not one srpfs can work with"},
                                         Rejection{0x00010005, "several channels", "ch_count=1"},
                                         Rejection{0x00010006, "channel limit reached", "ACL"},
                                         Rejection{0x00010007, "0x00010007", "log"},
                                         Rejection{0xffffffff, "0xffffffff", "log"}));

TEST_F(ChannelLogin, NamesTheMissingAclByTheInitiatorPortId) {
    fabric.on_connect = [](Peer& peer) { peer.reject(28, login_reject(0x00010006)); };
    EXPECT_TRUE(contains(connect_in_vain().text, "0x00000000000000000002c903000e8acd"));
}

class ChannelCmReject : public ChannelLogin, public testing::WithParamInterface<std::pair<int, const char*>> {};

TEST_P(ChannelCmReject, IsConnectionRefusedWithItsMeaning) {
    // A reject that is not "consumer defined" has no login reject in it, whatever its bytes look like.
    fabric.on_connect = [](Peer& peer) { peer.reject(GetParam().first, login_reject(0x00010002)); };
    const ChannelEnd end = connect_in_vain();
    EXPECT_EQ(end.errno_value, ECONNREFUSED);
    EXPECT_FALSE(end.reject.has_value());
    EXPECT_FALSE(end.smaller_iu_may_help);
    EXPECT_TRUE(contains(end.text, GetParam().second)) << end.text;
    EXPECT_TRUE(contains(end.text, "REJ " + std::to_string(GetParam().first))) << end.text;
}

INSTANTIATE_TEST_SUITE_P(Reasons, ChannelCmReject,
                         testing::Values(std::pair{1, "queue pair"}, std::pair{3, "ch_count"}, std::pair{4, "in time"},
                                         std::pair{8, "nobody listens"}, std::pair{10, "stale connection"},
                                         std::pair{24, "redirect"}, std::pair{30, "try again"},
                                         std::pair{99, "does not know"}));

TEST_F(ChannelLogin, ReportsTheFirstByteOfARejectThatIsNotSrp) {
    fabric.on_connect = [](Peer& peer) { peer.reject(28, bytes_of({0x17, 0x03})); };
    const ChannelEnd end = connect_in_vain();
    EXPECT_EQ(end.errno_value, ECONNREFUSED);
    EXPECT_TRUE(contains(end.text, "0x17")) << end.text;
    EXPECT_FALSE(end.reject.has_value());
}

TEST_F(ChannelLogin, StandsACutLoginReject) {
    Bytes cut = login_reject(0x00010002);
    cut.resize(31);
    fabric.on_connect = [&](Peer& peer) { peer.reject(28, cut); };
    const ChannelEnd end = connect_in_vain();
    EXPECT_EQ(end.errno_value, ECONNREFUSED);
    EXPECT_FALSE(end.smaller_iu_may_help);
}

TEST_F(ChannelLogin, StandsARejectWithoutAnyBytes) {
    fabric.on_connect = [](Peer& peer) { peer.reject(28); };
    const ChannelEnd end = connect_in_vain();
    EXPECT_EQ(end.errno_value, ECONNREFUSED);
    EXPECT_FALSE(end.text.empty());
}

// ---- answers that cannot be used: srp-wire 2.3, 6, 7, 11 ----

TEST_F(ChannelLogin, RefusesAnAnswerThatIsNoLoginResponse) {
    Bytes wrong = login_response({});
    wrong[0] = std::byte{0xc1};
    fabric.on_connect = [&](Peer& peer) { peer.accept_with(wrong); };
    EXPECT_EQ(connect_in_vain().errno_value, ECONNRESET);
}

TEST_F(ChannelLogin, RefusesACutAnswer) {
    Bytes cut = login_response({});
    cut.resize(51);
    fabric.on_connect = [&](Peer& peer) { peer.accept_with(cut); };
    EXPECT_EQ(connect_in_vain().errno_value, ECONNRESET);
}

TEST_F(ChannelLogin, AcceptsAnAnswerThatArrivesPadded) {
    Bytes padded = login_response({});
    padded.resize(196);
    fabric.on_connect = [&](Peer& peer) { peer.accept_with(padded); };
    connect_live();
}

TEST_F(ChannelLogin, RefusesATargetThatGrantsFewerThanTwoCredits) {
    const ChannelEnd end = answer_login({.credits = 1});
    EXPECT_EQ(end.errno_value, ECONNRESET);
    EXPECT_TRUE(contains(end.text, "1 credits")) << end.text;
}

TEST_F(ChannelLogin, RefusesNegativeCredits) { EXPECT_EQ(answer_login({.credits = -1}).errno_value, ECONNRESET); }

TEST_F(ChannelLogin, AcceptsTwoCredits) {
    fabric.login.credits = 2;
    connect_live();
    EXPECT_EQ(channel->credits(), 2);
}

TEST_F(ChannelLogin, RefusesResponsesShorterThanAnyTargetNeeds) {
    EXPECT_EQ(answer_login({.ti_iu_bytes = 55}).errno_value, ECONNRESET);
}
TEST_F(ChannelLogin, AcceptsTheShortestResponses) {
    fabric.login.ti_iu_bytes = 56;
    EXPECT_EQ(connect_live().ring.bytes_each, 56u);
}
TEST_F(ChannelLogin, AcceptsTheLongestResponses) {
    fabric.login.ti_iu_bytes = 65536;
    EXPECT_EQ(connect_live().ring.bytes_each, 65536u);
}
TEST_F(ChannelLogin, RefusesResponsesThatNobodyCouldHaveBuffersFor) {
    EXPECT_EQ(answer_login({.ti_iu_bytes = 65537}).errno_value, ECONNRESET);
}

TEST_F(ChannelLogin, RefusesATargetWithoutDirectDescriptors) {
    EXPECT_EQ(answer_login({.formats = 4}).errno_value, ECONNRESET);
}
TEST_F(ChannelLogin, AcceptsATargetWithoutIndirectDescriptors) {
    fabric.login.formats = 2;
    connect_live();
}

TEST_F(ChannelLogin, RefusesUnitsTooShortForACommandWithADescriptor) {
    EXPECT_EQ(answer_login({.it_iu_bytes = 63}).errno_value, ECONNRESET);
}
TEST_F(ChannelLogin, AcceptsUnitsThatJustHoldACommandWithADescriptor) {
    fabric.login.it_iu_bytes = 64;
    connect_live();
    EXPECT_EQ(channel->facts().it_iu_bytes_max, 64u);
}

// ---- the way there ----

struct WayThere {
    fabric::EndReason reason;
    int errno_value;
};
class ChannelWayThere : public ChannelLogin, public testing::WithParamInterface<WayThere> {};

TEST_P(ChannelWayThere, HasAnErrnoOfItsOwn) {
    fabric.on_connect = [](Peer& peer) { peer.end(GetParam().reason, "what happened"); };
    const ChannelEnd end = connect_in_vain();
    EXPECT_EQ(end.errno_value, GetParam().errno_value);
    EXPECT_EQ(end.reason, GetParam().reason);
    EXPECT_EQ(end.text, "what happened");
}

INSTANTIATE_TEST_SUITE_P(Reasons, ChannelWayThere,
                         testing::Values(WayThere{fabric::EndReason::address_unresolved, ENXIO},
                                         WayThere{fabric::EndReason::route_unresolved, EHOSTUNREACH},
                                         WayThere{fabric::EndReason::unreachable, EHOSTUNREACH},
                                         WayThere{fabric::EndReason::local_error, EIO},
                                         WayThere{fabric::EndReason::peer_disconnected, ECONNRESET},
                                         WayThere{fabric::EndReason::transport_error, ECONNRESET},
                                         WayThere{fabric::EndReason::device_removed, ENODEV}));

TEST_F(ChannelLogin, KeepsTheErrnoTheFabricSuggests) {
    fabric.on_connect = [](Peer& peer) { peer.end(fabric::EndReason::local_error, "no memory", ENOMEM); };
    EXPECT_EQ(connect_in_vain().errno_value, ENOMEM);
}

TEST_F(ChannelLogin, TellsInALaterTurnThatItCouldNotEvenBegin) {
    fabric.connect_error = Error(ENODEV, "there is no RDMA device");
    ChannelListener& listener = *this;
    channel = std::make_unique<Channel>(fabric, timers(), config, listener);
    channel->connect();
    EXPECT_TRUE(ends.empty());
    settle();
    ASSERT_EQ(ends.size(), 1u);
    EXPECT_EQ(ends[0].errno_value, ENODEV);
    EXPECT_EQ(ends[0].text, "there is no RDMA device");
    EXPECT_EQ(gone, 1u);
    EXPECT_EQ(timers().next_deadline(), instant_never);
}

TEST_F(ChannelLogin, RefusesToLeaveByAnotherPortAndNamesTheRightOne) {
    config.wanted_port = WantedPort{"test0", 2};
    const ChannelEnd end = connect_in_vain();
    EXPECT_EQ(end.errno_value, ENXIO);
    EXPECT_EQ(end.reason, fabric::EndReason::wrong_port);
    EXPECT_TRUE(contains(end.text, "srp-test0-1")) << end.text;
    EXPECT_FALSE(fabric.last().is_asked);
}

TEST_F(ChannelLogin, RefusesToLeaveByAnotherDevice) {
    config.wanted_port = WantedPort{"mlx5_0", 1};
    EXPECT_EQ(connect_in_vain().errno_value, ENXIO);
}

TEST_F(ChannelLogin, LeavesByTheWantedPort) {
    config.wanted_port = WantedPort{"test0", 1};
    connect_live();
    EXPECT_EQ(channel->facts().port.device, "test0");
}

TEST_F(ChannelLogin, SendsNothingWhenItIsNotAdmitted) {
    config.admit = [](const fabric::LocalPort&) -> Result<void> { return Error(EEXIST, "somebody else is there"); };
    const ChannelEnd end = connect_in_vain();
    EXPECT_EQ(end.errno_value, EEXIST);
    EXPECT_EQ(end.text, "somebody else is there");
    EXPECT_FALSE(fabric.last().is_asked);
}

// ---- time ----

TEST_F(ChannelLogin, GivesUpWhenTheTimeIsOver) {
    config.login_timeout = 10s;
    fabric.on_connect = [](Peer&) {};
    connect();
    advance(10s - 1ns);
    EXPECT_TRUE(ends.empty());
    EXPECT_FALSE(fabric.last().is_leaving);
    advance(1ns);
    ASSERT_EQ(ends.size(), 1u);
    EXPECT_EQ(ends[0].errno_value, ETIMEDOUT);
    EXPECT_TRUE(ends[0].timed_out);
    EXPECT_TRUE(contains(ends[0].text, "10 s")) << ends[0].text;
    EXPECT_EQ(gone, 1u);
}

TEST_F(ChannelLogin, StaysTimedOutWhenTheAnswerComesTooLate) {
    fabric.on_connect = [](Peer&) {};
    connect();
    timers().advance_to(now() + 10s);  // the time-out; the fabric has not had a turn yet
    fabric.last().accept();
    settle();
    EXPECT_EQ(lives, 0u);
    ASSERT_EQ(ends.size(), 1u);
    EXPECT_EQ(ends[0].errno_value, ETIMEDOUT);
}

TEST_F(ChannelLogin, RunsNoTimerOnceItIsLive) {
    connect_live();
    advance(1h);
    EXPECT_EQ(channel->state(), ChannelState::live);
}

TEST_F(ChannelLogin, CanBeCancelled) {
    fabric.on_connect = [](Peer&) {};
    connect();
    channel->disconnect("the user changed his mind");
    settle();
    ASSERT_EQ(ends.size(), 1u);
    EXPECT_EQ(ends[0].errno_value, ECANCELED);
    EXPECT_EQ(ends[0].text, "the user changed his mind");
    EXPECT_EQ(gone, 1u);
    EXPECT_EQ(lives, 0u);
}

TEST_F(ChannelLogin, CanBeCancelledBeforeTheRouteIsKnown) {
    ChannelListener& listener = *this;
    channel = std::make_unique<Channel>(fabric, timers(), config, listener);
    channel->connect();
    channel->disconnect("at once");
    settle();
    ASSERT_EQ(ends.size(), 1u);
    EXPECT_EQ(ends[0].errno_value, ECANCELED);
    EXPECT_FALSE(fabric.last().is_asked);
}

}  // namespace
}  // namespace srpfs::initiator
