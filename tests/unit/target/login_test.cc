// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Logging in: what is answered, what is refused and with which reason, and who displaces whom. Offsets: srp-wire 2.
#include "test_initiator.h"

namespace srpfs::target {
namespace {

class Login : public TargetTest {
protected:
    using Parameters = TestInitiator::Login;

    void expect_rejected(const Parameters& parameters, std::uint32_t reason) {
        TestInitiator& initiator = connect(parameters);
        ASSERT_TRUE(initiator.end.has_value());
        EXPECT_EQ(initiator.end->reason, fabric::EndReason::rejected);
        EXPECT_EQ(initiator.end->cm_reason, 28);
        ASSERT_GE(initiator.reject.size(), 32u);
        EXPECT_EQ(number_at(initiator.reject, 0, 1), 0xc2u);
        EXPECT_EQ(number_at(initiator.reject, 4, 4), reason);
        EXPECT_EQ(number_at(initiator.reject, 8, 8), parameters.tag);
        EXPECT_EQ(number_at(initiator.reject, 24, 2), 6u);
    }
};

TEST_F(Login, IsAnsweredAsLioDoes) {
    build("ram:1M");
    TestInitiator& initiator = login();
    ASSERT_GE(initiator.reply.size(), 52u);
    EXPECT_EQ(number_at(initiator.reply, 0, 1), 0xc0u);
    EXPECT_EQ(number_at(initiator.reply, 4, 4), 128u);
    EXPECT_EQ(number_at(initiator.reply, 8, 8), 0x1122334455667788u);
    EXPECT_EQ(number_at(initiator.reply, 16, 4), 8276u);
    EXPECT_EQ(number_at(initiator.reply, 20, 4), 8260u);  // the echo of what was asked for
    EXPECT_EQ(number_at(initiator.reply, 24, 2), 6u);
    EXPECT_EQ(number_at(initiator.reply, 26, 1), 0x80u);  // immediate data; no channel existed
    EXPECT_EQ(device->counters().logins, 1u);
    EXPECT_EQ(device->channels().size(), 1u);
    EXPECT_TRUE(device->channels()[0].live);
}

TEST_F(Login, AcceptsTheNativeFormOnANativeAddress) {
    build("ram:1M");
    fabric::IbAddress native;
    native.service_id = 1;
    auto second = make_portal(*device, executor, *fabric, native);
    ASSERT_TRUE(second);
    initiators.push_back(std::make_unique<TestInitiator>(*fabric, native, Parameters{.native = true}));
    settle();
    EXPECT_TRUE(initiators.back()->is_live());
    EXPECT_EQ(number_at(initiators.back()->reply, 8, 8), 0x1122334455667788u);
    EXPECT_EQ(number_at(initiators.back()->reply, 26, 1), 0x80u);
    (*second)->close();
    settle();
    EXPECT_TRUE((*second)->is_closed());
}

TEST_F(Login, GrantsImmediateDataOnlyWhenAskedWithAUsableOffset) {
    build("ram:1M");
    EXPECT_EQ(number_at(login({.immediate = false}).reply, 26, 1), 0x00u);
    EXPECT_EQ(number_at(login({.immediate_offset = 48, .guid = 2}).reply, 26, 1), 0x80u);
    EXPECT_EQ(number_at(login({.immediate_offset = 47, .guid = 3}).reply, 26, 1), 0x00u);
    shut_down();
    build("ram:1M", {.immediate_data = false});
    EXPECT_EQ(number_at(login().reply, 26, 1), 0x00u);
}

TEST_F(Login, CreditsAndLimitsAreConfigurable) {
    build("ram:1M", {.credits = 5, .request_bytes_max = 2116});
    TestInitiator& initiator = login({.iu_bytes = 2116});
    EXPECT_EQ(initiator.credits, 5);
    EXPECT_EQ(number_at(initiator.reply, 16, 4), 2116u);
}

TEST_F(Login, ASecondSingleLoginTerminatesTheChannelsOfItsNexus) {
    build("ram:1M");
    TestInitiator& first = login();
    TestInitiator& second = login({.action = 1});
    TestInitiator& stranger = login({.guid = 2});
    EXPECT_EQ(number_at(second.reply, 26, 1) & 3, 2u);  // maintained

    TestInitiator& third = login();
    EXPECT_EQ(number_at(third.reply, 26, 1) & 3, 1u);  // terminated
    settle();
    EXPECT_EQ(first.end->reason, fabric::EndReason::peer_disconnected);
    EXPECT_EQ(second.end->reason, fabric::EndReason::peer_disconnected);
    EXPECT_TRUE(stranger.is_live());
    EXPECT_TRUE(third.is_live());
    EXPECT_EQ(device->channels().size(), 2u);
}

TEST_F(Login, AnotherExtensionIsAnotherNexus) {
    build("ram:1M");
    TestInitiator& first = login();
    TestInitiator& second = login({.initiator_ext = 1});
    EXPECT_EQ(number_at(second.reply, 26, 1) & 3, 0u);
    EXPECT_TRUE(first.is_live());
}

TEST_F(Login, AMultiLoginIsMaintainedEvenAsTheFirst) {
    build("ram:1M");
    EXPECT_EQ(number_at(login({.action = 1}).reply, 26, 1) & 3, 2u);
}

TEST_F(Login, RejectsLengthsOutsideItsLimits) {
    build("ram:1M");
    expect_rejected({.iu_bytes = 8277}, 0x00010002);
    expect_rejected({.iu_bytes = 63}, 0x00010002);
    EXPECT_TRUE(login({.iu_bytes = 8276}).is_live());
    EXPECT_TRUE(login({.iu_bytes = 64}).is_live());
    EXPECT_EQ(device->counters().logins_rejected, 2u);
}

TEST_F(Login, RejectsAnotherTargetPort) {
    build("ram:1M", {.service_guid = 0x42});
    expect_rejected({.id_ext = 0x42, .ioc_guid = 1}, 0x00010003);
    expect_rejected({.id_ext = 1, .ioc_guid = 0x42}, 0x00010003);
    EXPECT_TRUE(login({.id_ext = 0x42, .ioc_guid = 0x42}).is_live());
}

TEST_F(Login, RejectsDescriptorFormatsItDoesNotHave) {
    build("ram:1M");
    expect_rejected({.formats = 8}, 0x00010004);
}

TEST_F(Login, RejectsMultiChannelWhereThereIsNone) {
    build("ram:1M", {.multi_channel = false});
    expect_rejected({.action = 1}, 0x00010005);
    EXPECT_TRUE(login().is_live());
}

TEST_F(Login, RejectsMoreChannelsThanItsLimit) {
    build("ram:1M", {.channels_per_nexus_max = 2});
    EXPECT_TRUE(login().is_live());
    EXPECT_TRUE(login({.action = 1}).is_live());
    expect_rejected({.action = 1}, 0x00010006);
    EXPECT_TRUE(login({.guid = 9}).is_live());
    shut_down();
    build("ram:1M", {.channels_per_nexus_max = 1, .channel_limit_reason = srp::RejectReason::insufficient_resources});
    EXPECT_TRUE(login().is_live());
    expect_rejected({.action = 1}, 0x00010001);
}

TEST_F(Login, RejectsAnInitiatorWithoutAnAclAsChannelLimit) {
    srp::PortId known{};
    ByteWriter(known).u64(7).u64(0xabcdef);
    build("ram:1M", {.initiators = {known}});
    expect_rejected({}, 0x00010006);
    EXPECT_TRUE(login({.initiator_ext = 7}).is_live());
}

TEST_F(Login, ADisabledTargetDisconnectsAndRejects) {
    build("ram:1M");
    TestInitiator& initiator = login();
    device->set_enabled(false);
    settle();
    EXPECT_EQ(initiator.end->reason, fabric::EndReason::peer_disconnected);
    expect_rejected({}, 0x00010001);
    device->set_enabled(true);
    EXPECT_TRUE(login().is_live());
}

TEST_F(Login, RejectsWithAnyReasonABehaviourWants) {
    struct Refusing final : Behaviour {
        std::optional<srp::RejectReason> reason;
        unsigned channels_seen = 0;
        std::optional<srp::RejectReason> on_login(const srp::LoginRequest&, unsigned channels) override {
            channels_seen = channels;
            return reason;
        }
        bool grants_immediate_data(const srp::LoginRequest&) override { return false; }
    } behaviour;
    build("ram:1M");
    device->set_behaviour(&behaviour);
    for (std::uint32_t reason = 0x00010000; reason <= 0x00010007; ++reason) {
        behaviour.reason = static_cast<srp::RejectReason>(reason);
        expect_rejected({}, reason);
    }
    behaviour.reason.reset();
    EXPECT_EQ(number_at(login().reply, 26, 1), 0u);  // no immediate data
    (void)login({.action = 1});
    EXPECT_EQ(behaviour.channels_seen, 1u);
}

TEST_F(Login, DropsAConnectRequestThatIsNoLogin) {
    struct Nonsense final : fabric::ConnectionHandler {
        Bytes data = Bytes(56, std::byte{0xff});
        std::optional<fabric::EndReason> end;
        std::size_t private_bytes = 1;
        bool gone = false;
        std::span<const std::byte> on_route(const fabric::LocalPort&) override { return data; }
        std::optional<fabric::ReceiveRing> on_reply(std::span<const std::byte>) override { return std::nullopt; }
        void on_established() override {}
        void on_received(std::span<const std::byte>) override {}
        void on_ended(const fabric::End& details) override {
            end = details.reason;
            private_bytes = details.private_data.size();
        }
        void on_gone() override { gone = true; }
    } nonsense;
    build("ram:1M");
    ASSERT_TRUE(fabric->connect(address, {}, nonsense));
    settle();
    EXPECT_EQ(nonsense.end, fabric::EndReason::rejected);
    EXPECT_EQ(nonsense.private_bytes, 0u);
    EXPECT_TRUE(nonsense.gone);
}

TEST_F(Login, LogsOutAndInAgainWithoutLeftovers) {
    build("ram:1M");
    for (int i = 0; i < 100; ++i) {
        TestInitiator& initiator = login();
        EXPECT_EQ(execute(initiator, 0, cdb16({0x00})).status, 0);
        initiator.disconnect();
        settle();
        EXPECT_TRUE(initiator.gone);
        initiators.clear();
    }
    EXPECT_EQ(fabric->connections(), 0u);
    EXPECT_EQ(portal->channels(), 0u);
    EXPECT_EQ(portal->commands(), 0u);
    EXPECT_TRUE(device->channels().empty());
}

}  // namespace
}  // namespace srpfs::target
