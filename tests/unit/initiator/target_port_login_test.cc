// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The order of logins, what is done when a target refuses or grants less, and how a login is given up (decisions 19;
// srp-wire 2.4, 2.5; docs/recovery.md).
#include "port_fixture.h"

namespace srpfs::initiator {
namespace {

using scripted::login_reject;

class PortLogin : public PortTest {
protected:
    // Connect requests wait for the test.
    void hold_logins() {
        fabric.on_connect = [](Peer&) {};
    }
    [[nodiscard]] static std::uint32_t unit_length(const Peer& peer) {
        return static_cast<std::uint32_t>(number_at(peer.login, 12, 4));
    }
    [[nodiscard]] std::vector<std::uint32_t> unit_lengths() const {
        std::vector<std::uint32_t> lengths;
        for (const auto& peer : fabric.peers) lengths.push_back(unit_length(*peer));
        return lengths;
    }
    // Takes requested units of up to so many bytes.
    void accept_up_to(std::uint32_t bytes) {
        fabric.on_connect = [this, bytes](Peer& peer) {
            if (unit_length(peer) > bytes) return peer.reject(28, login_reject(0x00010002));
            peer.accept(fabric.login);
        };
    }
};

TEST_F(PortLogin, BeginsSingleAndGoesOnMulti) {
    config.parameters.ch_count = 3;
    log_in();
    ASSERT_EQ(fabric.peers.size(), 3u);
    EXPECT_EQ(action(*fabric.peers[0]), 0u);
    EXPECT_EQ(action(*fabric.peers[1]), 1u);
    EXPECT_EQ(action(*fabric.peers[2]), 1u);
    EXPECT_EQ(granted->channels, 3u);
    EXPECT_EQ(logins, 1u);
    EXPECT_EQ(first_logins, 1u);
}

TEST_F(PortLogin, TheNextChannelWaitsForTheOneBefore) {
    config.parameters.ch_count = 2;
    hold_logins();
    begin_login();
    EXPECT_EQ(fabric.peers.size(), 1u);
    fabric.peers[0]->accept();
    settle();
    ASSERT_EQ(fabric.peers.size(), 2u);
    EXPECT_EQ(port->state(), PortState::connecting);
    EXPECT_EQ(results, 0u);
    fabric.peers[1]->accept();
    settle();
    EXPECT_EQ(port->state(), PortState::running);
    EXPECT_EQ(results, 1u);
}

TEST_F(PortLogin, ATargetThatGrantsFewerIsUsedWithThose) {
    config.parameters.ch_count = 4;
    fabric.on_connect = [this](Peer& peer) {
        if (fabric.live() >= 2) return peer.reject(28, login_reject(0x00010006));
        peer.accept(fabric.login);
    };
    log_in();
    EXPECT_EQ(granted->channels, 2u);
    EXPECT_EQ(fabric.peers.size(), 3u);  // the fourth is not tried
    EXPECT_EQ(fabric.live(), 2u);
    advance(1h);
    EXPECT_EQ(fabric.peers.size(), 3u);  // nor is the third again
}

TEST_F(PortLogin, ChannelsThatWereNotGrantedAreAskedForAtTheNextLogin) {
    config.parameters.ch_count = 3;
    fabric.on_connect = [this](Peer& peer) {
        if (fabric.live() >= 1) return peer.reject(28, login_reject(0x00010001));
        peer.accept(fabric.login);
    };
    log_in();
    EXPECT_EQ(granted->channels, 1u);
    mend();
    port->relogin("the test");
    settle();
    EXPECT_EQ(port->state(), PortState::running);
    EXPECT_EQ(port->facts().channels, 3u);
}

TEST_F(PortLogin, AChannelThatIsNotAnsweredIsNotGranted) {
    config.parameters.ch_count = 2;
    fabric.on_connect = [this](Peer& peer) {
        if (fabric.live() == 0) peer.accept(fabric.login);
    };
    begin_login();
    advance(10s - 1ns);
    EXPECT_EQ(port->state(), PortState::connecting);
    advance(1ns);
    EXPECT_EQ(port->state(), PortState::running);
    EXPECT_EQ(port->facts().channels, 1u);
}

TEST_F(PortLogin, ARefusedFirstChannelIsAFailedLogin) {
    fabric.on_connect = [](Peer& peer) { peer.reject(28, login_reject(0x00010003)); };
    begin_login();
    ASSERT_TRUE(refused.has_value());
    EXPECT_EQ(refused->errno_value(), ECONNREFUSED);
    EXPECT_NE(refused->context.find("ioc_guid"), std::string::npos);
    EXPECT_EQ(results, 1u);
    EXPECT_EQ(port->state(), PortState::lost);
    EXPECT_EQ(closed, 1u);
    advance(1h);
    EXPECT_EQ(fabric.peers.size(), 1u);
}

TEST_F(PortLogin, NoAnswerIsATimeOut) {
    hold_logins();
    begin_login();
    advance(10s - 1ns);
    EXPECT_EQ(results, 0u);
    advance(1ns);
    ASSERT_TRUE(refused.has_value());
    EXPECT_EQ(refused->errno_value(), ETIMEDOUT);
    EXPECT_EQ(closed, 1u);
}

TEST_F(PortLogin, AChannelLostWhileTheNextLogsInEndsTheLogin) {
    config.parameters.ch_count = 2;
    hold_logins();
    begin_login();
    fabric.peers[0]->accept();
    settle();
    fabric.peers[0]->end(fabric::EndReason::transport_error, "gone again");
    settle();
    ASSERT_TRUE(refused.has_value());
    EXPECT_EQ(refused->errno_value(), ECONNRESET);
    EXPECT_EQ(port->state(), PortState::lost);
    EXPECT_EQ(closed, 1u);
}

// ---- requested units that are too large: srp-wire 2.4 ----

TEST_F(PortLogin, ATooLargeUnitIsTriedAgainWithoutImmediateData) {
    accept_up_to(276);
    log_in();
    EXPECT_EQ(unit_lengths(), (std::vector<std::uint32_t>{8260, 276}));
    EXPECT_EQ(granted->first.immediate_bytes_max, 0u);
    EXPECT_EQ(port->failed_reconnects(), 0u);
    for (const auto& peer : fabric.peers) EXPECT_EQ(action(*peer), 0u);
}

TEST_F(PortLogin, OldTargetsAreTriedWithSmallerUnits) {
    config.parameters.cmd_sg_entries = 255;
    accept_up_to(2116);
    log_in();
    EXPECT_EQ(unit_lengths(), (std::vector<std::uint32_t>{8260, 4164, 2116}));
}

TEST_F(PortLogin, TheSmallestUnitTriedIs996) {
    config.parameters.cmd_sg_entries = 255;
    accept_up_to(995);
    begin_login();
    EXPECT_EQ(unit_lengths(), (std::vector<std::uint32_t>{8260, 4164, 2116, 996}));
    ASSERT_TRUE(refused.has_value());
    EXPECT_EQ(refused->errno_value(), ECONNREFUSED);
    EXPECT_EQ(results, 1u);
    EXPECT_EQ(closed, 1u);
}

TEST_F(PortLogin, NoSizeIsTriedTwice) {
    accept_up_to(0);
    begin_login();
    EXPECT_EQ(unit_lengths(), (std::vector<std::uint32_t>{8260, 276}));
    EXPECT_TRUE(refused.has_value());
}

TEST_F(PortLogin, TheSizeThatWorkedIsTheFirstOneNextTime) {
    config.parameters.cmd_sg_entries = 255;
    accept_up_to(2116);
    log_in();
    port->relogin("the test");
    settle();
    EXPECT_EQ(port->state(), PortState::running);
    EXPECT_EQ(unit_lengths(), (std::vector<std::uint32_t>{8260, 4164, 2116, 2116}));
}

TEST_F(PortLogin, AllChannelsUseTheSizeThatWorked) {
    config.parameters.ch_count = 2;
    accept_up_to(276);
    log_in();
    EXPECT_EQ(unit_lengths(), (std::vector<std::uint32_t>{8260, 276, 276}));
    EXPECT_EQ(granted->channels, 2u);
}

// ---- giving up ----

TEST_F(PortLogin, ACancelledLoginIsInterrupted) {
    hold_logins();
    begin_login();
    port->cancel_login();
    settle();
    ASSERT_TRUE(refused.has_value());
    EXPECT_EQ(refused->errno_value(), EINTR);
    EXPECT_EQ(results, 1u);
    EXPECT_EQ(port->state(), PortState::lost);
    EXPECT_EQ(closed, 1u);
}

TEST_F(PortLogin, CancellingAFinishedLoginDoesNothing) {
    log_in();
    port->cancel_login();
    settle();
    EXPECT_EQ(port->state(), PortState::running);
    EXPECT_EQ(results, 1u);
}

TEST_F(PortLogin, ALoginThatIsClosedIsCancelled) {
    hold_logins();
    begin_login();
    port->close("logged out meanwhile");
    settle();
    ASSERT_TRUE(refused.has_value());
    EXPECT_EQ(refused->errno_value(), ECANCELED);
    EXPECT_EQ(closed, 1u);
}

TEST_F(PortLogin, AnAnswerAfterCancellingIsNotListenedTo) {
    hold_logins();
    begin_login();
    fabric.peers[0]->accept();
    port->cancel_login();
    settle();
    EXPECT_EQ(port->state(), PortState::lost);
    EXPECT_EQ(logins, 0u);
    EXPECT_EQ(closed, 1u);
    EXPECT_EQ(fabric.live(), 0u);
}

TEST_F(PortLogin, IsAskedForByTheNameOfItsPort) {
    config.wanted_port = WantedPort{"other0", 1};
    begin_login();
    ASSERT_TRUE(refused.has_value());
    EXPECT_EQ(refused->errno_value(), ENXIO);
}

TEST_F(PortLogin, EveryLoginAsksForAdmission) {
    unsigned asked = 0;
    bool admitted = true;
    config.admit = [&](const fabric::LocalPort&) -> Result<void> {
        ++asked;
        if (!admitted) return Error(EEXIST, "taken");
        return {};
    };
    log_in();
    admitted = false;
    port->relogin("the test");
    settle();
    EXPECT_EQ(asked, 2u);
    EXPECT_EQ(port->state(), PortState::blocked);
    EXPECT_EQ(port->failed_reconnects(), 1u);
}

}  // namespace
}  // namespace srpfs::initiator
