// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The kernel's transport state machine (srp-admin 4.1, 4.2), each timer to the nanosecond.
#include "port_fixture.h"

#include <srpfs/base/log.h>

namespace srpfs::initiator {
namespace {

class PortStates : public PortTest {
protected:
    void log_in_with(const TransportTimers& timers) {
        config.timers = timers;
        log_in();
        lost_at_ = now();
    }
    // When each connect request after the first login was made, in nanoseconds since the loss.
    void record_attempts(bool answered = false) {
        fabric.on_connect = [this, answered](Peer& peer) {
            attempts.push_back(now() - lost_at_);
            if (answered) return peer.accept(fabric.login);
            peer.end(fabric::EndReason::unreachable, "no answer");
        };
    }
    void lose() {
        lost_at_ = now();
        break_all();
    }
    // The state is `before` until just before that long after the loss, and `after` from then on.
    void expect_change(Duration after_loss, PortState before, PortState after) {
        advance(lost_at_ + after_loss - now() - 1ns);
        EXPECT_EQ(port->state(), before);
        advance(1ns);
        EXPECT_EQ(port->state(), after);
    }
    std::vector<Duration> attempts;
    Instant lost_at_{};
};

TEST_F(PortStates, LosingTheConnectionBlocks) {
    log_in_with({});
    cut();
    EXPECT_EQ(port->state(), PortState::blocked);
    ASSERT_EQ(changes.size(), 1u);
    EXPECT_EQ(changes[0].from, PortState::running);
    EXPECT_EQ(changes[0].to, PortState::blocked);
    EXPECT_NE(changes[0].why.find("the cable is pulled"), std::string::npos);
    EXPECT_EQ(link().state(), PortState::blocked);
    EXPECT_EQ(port->facts().channels, 0u);
}

TEST_F(PortStates, GoThroughAllTimersAtTheKernelsDefaults) {
    log_in_with({});
    record_attempts();
    lose();
    expect_change(15s, PortState::blocked, PortState::fail_fast);
    EXPECT_EQ(link().state(), PortState::fail_fast);
    expect_change(600s, PortState::fail_fast, PortState::lost);
    EXPECT_EQ(closed, 1u);
    const std::size_t tried = attempts.size();
    EXPECT_GE(tried, 12u);
    advance(1h);
    EXPECT_EQ(attempts.size(), tried);  // lost is final
    EXPECT_EQ(port->state(), PortState::lost);
}

TEST_F(PortStates, ReconnectAtOnce) {
    log_in_with({.reconnect_delay = 7U, .fast_io_fail_tmo = 15U, .dev_loss_tmo = 600U});
    record_attempts(true);
    lose();
    settle();
    EXPECT_EQ(port->state(), PortState::running);
    EXPECT_EQ(attempts, (std::vector<Duration>{0s}));
    EXPECT_EQ(logins, 2u);
    EXPECT_EQ(first_logins, 1u);
    EXPECT_FALSE(was_own);
    advance(1h);
    EXPECT_EQ(port->state(), PortState::running);  // both time-outs were stopped
    EXPECT_EQ(attempts.size(), 1u);
}

TEST_F(PortStates, ALaterLossHasTimersOfItsOwn) {
    log_in_with({.reconnect_delay = 7U, .fast_io_fail_tmo = 15U, .dev_loss_tmo = 600U});
    record_attempts(true);
    lose();
    advance(8s);
    ASSERT_EQ(port->state(), PortState::running);
    record_attempts();
    lose();
    expect_change(15s, PortState::blocked, PortState::fail_fast);
    expect_change(600s, PortState::fail_fast, PortState::lost);
}

TEST_F(PortStates, FailedAttemptsAreCountedUntilOneSucceeds) {
    log_in_with({});
    record_attempts();
    lose();
    settle();
    EXPECT_EQ(port->failed_reconnects(), 1u);
    advance(10s);
    EXPECT_EQ(port->failed_reconnects(), 6u);
    advance(10s);
    EXPECT_EQ(port->failed_reconnects(), 10u);
    EXPECT_EQ(port->state(), PortState::fail_fast);
    record_attempts(true);
    advance(10s);
    EXPECT_EQ(port->failed_reconnects(), 0u);
    EXPECT_EQ(port->state(), PortState::running);
    EXPECT_EQ(link().state(), PortState::running);
}

// The first comes at once, the next 0.5 s later, and then after twice as long each time, at most a
// quarter of reconnect_delay. Attempt n+1 comes that times min(100, n - 40) after attempt n from the forty-second on.
TEST_F(PortStates, AttemptsSlowDownFromTheFortySecondOn) {
    log_in_with({.reconnect_delay = 8U, .fast_io_fail_tmo = 15U, .dev_loss_tmo = off});
    record_attempts();
    lose();
    std::vector<Duration> expected{0s, 500ms, 1500ms};
    Duration at = 3500ms;
    for (unsigned failed = 4; failed <= 160; ++failed) {
        expected.push_back(at);
        at += 2s * std::min(100, std::max(1, static_cast<int>(failed) - 40));
    }
    advance(expected.back());
    EXPECT_EQ(attempts, expected);
    EXPECT_EQ(expected[41] - expected[40], Duration(2s));  // 41 have failed
    EXPECT_EQ(expected[42] - expected[41], Duration(4s));  // 42 have failed
    EXPECT_EQ(expected[159] - expected[158], Duration(200s));
    EXPECT_EQ(port->state(), PortState::fail_fast);
}

TEST_F(PortStates, TheSameReasonIsWarnedOfOnceAMinuteAndANewOneAtOnce) {
    std::vector<std::string> warnings;
    log::configure(log::Destination::none, log::Level::warning);
    log::observe([&](log::Level level, std::string_view line) {
        if (level == log::Level::warning && line.find("reconnect attempt") != line.npos) warnings.emplace_back(line);
    });
    log_in_with({});
    cut();
    advance(59s);
    ASSERT_EQ(warnings.size(), 1u);
    EXPECT_NE(warnings[0].find("attempt 1 failed"), std::string::npos) << warnings[0];
    fabric.on_connect = [](Peer& peer) { peer.end(fabric::EndReason::unreachable, "nobody listens there"); };
    advance(10s);
    ASSERT_EQ(warnings.size(), 2u);
    EXPECT_NE(warnings[1].find("nobody listens"), std::string::npos) << warnings[1];
    advance(121s);
    EXPECT_EQ(warnings.size(), 4u);
    log::observe({});
}

TEST_F(PortStates, AnAttemptThatIsNotAnsweredDelaysTheNextOne) {
    log_in_with({.reconnect_delay = 5U, .fast_io_fail_tmo = 15U, .dev_loss_tmo = off});
    fabric.on_connect = [this](Peer&) { attempts.push_back(now() - lost_at_); };
    lose();
    advance(40s);
    EXPECT_EQ(attempts, (std::vector<Duration>{0s, 10500ms, 21500ms, 32750ms}));  // 10 s of login_timeout each
}

TEST_F(PortStates, TimersGoOnWhileALoginIsUnderWay) {
    log_in_with({.reconnect_delay = 10U, .fast_io_fail_tmo = 15U, .dev_loss_tmo = 18U});
    fabric.on_connect = [](Peer&) {};
    lose();
    expect_change(15s, PortState::blocked, PortState::fail_fast);
    expect_change(18s, PortState::fail_fast, PortState::lost);
    EXPECT_EQ(closed, 1u);
}

TEST_F(PortStates, ALoginThatSucceedsWhileFailingFastRunsAgain) {
    log_in_with({});
    fabric.on_connect = [](Peer&) {};
    lose();
    advance(16s);
    ASSERT_EQ(port->state(), PortState::fail_fast);
    fabric.last().accept();
    settle();
    EXPECT_EQ(port->state(), PortState::running);
}

// ---- combinations of timers ----

TEST_F(PortStates, WithoutFastIoFailTmoItIsBlockedUntilDevLossTmo) {
    log_in_with({.reconnect_delay = 10U, .fast_io_fail_tmo = off, .dev_loss_tmo = 60U});
    record_attempts();
    lose();
    expect_change(60s, PortState::blocked, PortState::lost);
    ASSERT_EQ(changes.size(), 3u);  // through fail-fast, as the kernel's removal
    EXPECT_EQ(changes[1].to, PortState::fail_fast);
    EXPECT_EQ(changes[2].to, PortState::lost);
}

TEST_F(PortStates, WithoutDevLossTmoItFailsFastForEverAndComesBack) {
    log_in_with({.reconnect_delay = 10U, .fast_io_fail_tmo = 15U, .dev_loss_tmo = off});
    record_attempts();
    lose();
    expect_change(15s, PortState::blocked, PortState::fail_fast);
    advance(24h);
    EXPECT_EQ(port->state(), PortState::fail_fast);
    EXPECT_EQ(closed, 0u);
    mend();
    EXPECT_TRUE(advance_until([this] { return port->state() == PortState::running; }, 1000s));
}

TEST_F(PortStates, WithBothTimeOutsOffOnlyAFailedReconnectFailsIo) {
    log_in_with({.reconnect_delay = 10U, .fast_io_fail_tmo = off, .dev_loss_tmo = off});
    record_attempts();
    lose();
    EXPECT_EQ(port->state(), PortState::running);
    // Of the attempts at 0, 0.5, 1.5, 3.5, 6, 8.5 and 11 s the first that is not before the kernel's only one.
    expect_change(11s, PortState::running, PortState::fail_fast);
    advance(24h);
    EXPECT_EQ(port->state(), PortState::fail_fast);
    mend();
    EXPECT_TRUE(advance_until([this] { return port->state() == PortState::running; }, 1000s));
}

TEST_F(PortStates, WithBothTimeOutsOffAReconnectThatSucceedsChangesNothing) {
    log_in_with({.reconnect_delay = 10U, .fast_io_fail_tmo = off, .dev_loss_tmo = off});
    lose();
    advance(11s);
    EXPECT_EQ(port->state(), PortState::running);
    EXPECT_TRUE(changes.empty());
    EXPECT_EQ(logins, 2u);
}

// A target that has restarted may not be met by I/O before the owner of the port knows that there was a login.
TEST_F(PortStates, WithBothTimeOutsOffNothingIsSentUntilTheNextLoginIsComplete) {
    config.parameters.ch_count = 2;
    log_in_with({.reconnect_delay = 10U, .fast_io_fail_tmo = off, .dev_loss_tmo = off});
    unsigned connects = 0;
    fabric.on_connect = [&](Peer& peer) {
        if (++connects == 1) peer.accept(fabric.login);
    };
    break_all();
    advance(1s);
    ASSERT_EQ(connects, 2u);  // the second channel gets no answer yet
    EXPECT_EQ(port->state(), PortState::running);
    EXPECT_EQ(link().state(), PortState::blocked);
    fabric.last().accept(fabric.login);
    settle();
    EXPECT_EQ(logins, 2u);
    EXPECT_EQ(link().state(), PortState::running);
}

TEST_F(PortStates, WithoutReconnectDelayNobodyTries) {
    log_in_with({.reconnect_delay = off, .fast_io_fail_tmo = 15U, .dev_loss_tmo = 60U});
    record_attempts(true);
    lose();
    expect_change(15s, PortState::blocked, PortState::fail_fast);
    expect_change(60s, PortState::fail_fast, PortState::lost);
    EXPECT_TRUE(attempts.empty());
}

TEST_F(PortStates, AFastIoFailTmoOfZeroFailsAtOnce) {
    log_in_with({.reconnect_delay = 10U, .fast_io_fail_tmo = 0U, .dev_loss_tmo = 60U});
    cut();
    EXPECT_EQ(port->state(), PortState::fail_fast);
}

TEST_F(PortStates, ADevLossTmoOfZeroRemovesAtOnce) {
    log_in_with({.reconnect_delay = 10U, .fast_io_fail_tmo = off, .dev_loss_tmo = 0U});
    cut();
    EXPECT_EQ(port->state(), PortState::lost);
    EXPECT_EQ(closed, 1u);
}

// ---- timers changed while they run ----

TEST_F(PortStates, AWriteDoesNotRestartATimerThatRuns) {
    log_in_with({});
    record_attempts();
    lose();
    advance(5s);
    EXPECT_TRUE(port->set_timer(TimerKind::fast_io_fail_tmo, "3"));
    EXPECT_TRUE(port->set_timer(TimerKind::dev_loss_tmo, "20"));
    expect_change(15s, PortState::blocked, PortState::fail_fast);
    expect_change(600s, PortState::fail_fast, PortState::lost);
}

TEST_F(PortStates, ANewValueCountsFromTheNextLossOn) {
    log_in_with({});
    EXPECT_TRUE(port->set_timer(TimerKind::fast_io_fail_tmo, "3"));
    EXPECT_TRUE(port->set_timer(TimerKind::dev_loss_tmo, "20"));
    record_attempts();
    lose();
    expect_change(3s, PortState::blocked, PortState::fail_fast);
    expect_change(20s, PortState::fail_fast, PortState::lost);
}

TEST_F(PortStates, SwitchingReconnectDelayOnStartsAnAttemptAtOnce) {
    log_in_with({.reconnect_delay = off, .fast_io_fail_tmo = 15U, .dev_loss_tmo = 600U});
    record_attempts(true);
    lose();
    advance(2s);
    EXPECT_TRUE(attempts.empty());
    EXPECT_TRUE(port->set_timer(TimerKind::reconnect_delay, "4"));
    settle();
    EXPECT_EQ(port->state(), PortState::running);
    EXPECT_EQ(attempts, (std::vector<Duration>{2s}));
}

TEST_F(PortStates, SwitchingReconnectDelayOffStopsTheAttempts) {
    log_in_with({});
    record_attempts();
    lose();
    advance(9s);
    EXPECT_TRUE(port->set_timer(TimerKind::reconnect_delay, "off"));
    attempts.clear();
    advance(60s);
    EXPECT_TRUE(attempts.empty());
    EXPECT_EQ(port->state(), PortState::fail_fast);
}

TEST_F(PortStates, AnotherReconnectDelayDoesNotMoveTheAttemptThatIsDue) {
    log_in_with({});
    record_attempts();
    lose();
    advance(4s);
    EXPECT_TRUE(port->set_timer(TimerKind::reconnect_delay, "2"));
    advance(8s);
    std::vector<Duration> expected{0s, 500ms, 1500ms, 3500ms};
    for (Duration at = 6s; at <= Duration(12s); at += 500ms) expected.push_back(at);
    EXPECT_EQ(attempts, expected);
}

TEST_F(PortStates, SwitchingReconnectDelayOnWhileRunningStartsNothing) {
    log_in_with({.reconnect_delay = off, .fast_io_fail_tmo = 15U, .dev_loss_tmo = 600U});
    EXPECT_TRUE(port->set_timer(TimerKind::reconnect_delay, "4"));
    advance(1h);
    EXPECT_EQ(fabric.peers.size(), 1u);
}

TEST_F(PortStates, AnInvalidValueChangesNothing) {
    log_in_with({});
    const auto result = port->set_timer(TimerKind::dev_loss_tmo, "15");  // the README's step 6 as printed
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().errno_value(), EINVAL);
    EXPECT_NE(result.error().context.find("dev_loss_tmo"), std::string::npos);
    EXPECT_EQ(port->timers().dev_loss_tmo, 600U);
    EXPECT_TRUE(port->set_timer(TimerKind::fast_io_fail_tmo, "10"));
    EXPECT_TRUE(port->set_timer(TimerKind::dev_loss_tmo, "15"));
    EXPECT_FALSE(port->set_timer(TimerKind::reconnect_delay, "0"));
    EXPECT_FALSE(port->set_timer(TimerKind::reconnect_delay, "soon"));
    EXPECT_EQ(port->timers().reconnect_delay, 10U);
}

TEST_F(PortStates, TheLastOfThreeCannotBeSwitchedOff) {
    log_in_with({.reconnect_delay = 10U, .fast_io_fail_tmo = off, .dev_loss_tmo = off});
    EXPECT_FALSE(port->set_timer(TimerKind::reconnect_delay, "off"));
    EXPECT_FALSE(port->set_timer(TimerKind::reconnect_delay, "-1"));
}

// ---- reset ----

TEST_F(PortStates, AResetLogsInAnewAtOnce) {
    log_in_with({});
    record_attempts(true);
    port->relogin("the test");
    settle();
    EXPECT_EQ(attempts, (std::vector<Duration>{0s}));
    EXPECT_EQ(port->state(), PortState::running);
    EXPECT_TRUE(fabric.peers[0]->is_gone);
    EXPECT_EQ(action(fabric.last()), 0u);
    EXPECT_EQ(logins, 2u);
    EXPECT_TRUE(was_own);
}

TEST_F(PortStates, AResetWhileBlockedTriesAtOnce) {
    log_in_with({});
    record_attempts();
    lose();
    advance(3s);
    record_attempts(true);
    port->relogin("the test");
    settle();
    EXPECT_EQ(port->state(), PortState::running);
    EXPECT_FALSE(was_own);  // the target may have restarted all the same
}

// They are asked for; what follows by itself does not wait as if it were the sixtieth.
TEST_F(PortStates, ManyResetsDoNotSlowDownWhatFollows) {
    log_in_with({});
    cut();
    for (unsigned i = 0; i < 60; ++i) {
        port->relogin("asked for");
        advance(100ms);
    }
    EXPECT_GE(port->failed_reconnects(), 60u);
    mend();
    EXPECT_TRUE(advance_until([this] { return port->state() == PortState::running; }, 1s));
}

TEST_F(PortStates, AResetThatFailsIsAFailedReconnect) {
    log_in_with({});
    record_attempts();
    port->relogin("the test");
    settle();
    EXPECT_EQ(port->state(), PortState::blocked);
    EXPECT_EQ(port->failed_reconnects(), 1u);
    expect_change(15s, PortState::blocked, PortState::fail_fast);
    record_attempts(true);
    advance(10s);
    EXPECT_EQ(port->state(), PortState::running);
    EXPECT_FALSE(was_own);
}

TEST_F(PortStates, AResetDoesNotDisturbALoginThatIsUnderWay) {
    log_in_with({});
    fabric.on_connect = [](Peer&) {};
    lose();
    advance(9s);
    ASSERT_EQ(fabric.peers.size(), 2u);
    port->relogin("the test");
    settle();
    EXPECT_EQ(fabric.peers.size(), 2u);
    fabric.last().accept();
    settle();
    EXPECT_EQ(port->state(), PortState::running);
}

TEST_F(PortStates, AResetOfAClosedPortDoesNothing) {
    log_in_with({});
    port->close("logged out");
    port->relogin("the test");
    settle();
    EXPECT_EQ(port->state(), PortState::lost);
    EXPECT_EQ(fabric.peers.size(), 1u);
}

// ---- closing ----

TEST_F(PortStates, ClosingWhileRunningIsLostAndDisconnects) {
    log_in_with({});
    port->close("logged out");
    EXPECT_EQ(port->state(), PortState::lost);
    settle();
    EXPECT_TRUE(fabric.peers[0]->is_leaving);
    EXPECT_EQ(closed, 1u);
    ASSERT_EQ(changes.size(), 1u);
    EXPECT_EQ(changes[0].why, "logged out");
}

TEST_F(PortStates, ClosedIsToldOnlyWhenEveryConnectionIsGone) {
    log_in_with({});
    fabric.peers[0]->holds_gone = true;
    port->close("logged out");
    advance(1h);
    EXPECT_EQ(closed, 0u);
    fabric.peers[0]->let_go();
    settle();
    EXPECT_EQ(closed, 1u);
}

TEST_F(PortStates, ClosingTwiceIsClosingOnce) {
    log_in_with({});
    port->close("logged out");
    port->close("again");
    settle();
    port->close("and again");
    settle();
    EXPECT_EQ(closed, 1u);
    EXPECT_EQ(changes.size(), 1u);
}

TEST_F(PortStates, ClosingWhileBlockedGoesThroughFailFast) {
    log_in_with({});
    cut();
    port->close("logged out");
    settle();
    ASSERT_EQ(changes.size(), 3u);
    EXPECT_EQ(changes[1].to, PortState::fail_fast);
    EXPECT_EQ(changes[2].to, PortState::lost);
    EXPECT_EQ(closed, 1u);
    EXPECT_EQ(timers().next_deadline(), instant_never);
}

TEST_F(PortStates, ClosingWhileFailingFastIsLost) {
    log_in_with({});
    cut();
    advance(15s);
    ASSERT_EQ(port->state(), PortState::fail_fast);
    port->close("logged out");
    settle();
    EXPECT_EQ(port->state(), PortState::lost);
    EXPECT_EQ(closed, 1u);
}

TEST_F(PortStates, ClosingWhileReconnectingAbandonsTheAttempt) {
    log_in_with({});
    fabric.on_connect = [](Peer&) {};
    lose();
    advance(9s);
    ASSERT_EQ(fabric.peers.size(), 2u);
    port->close("logged out");
    settle();
    EXPECT_TRUE(fabric.peers[1]->is_leaving);
    EXPECT_EQ(closed, 1u);
    advance(1h);
    EXPECT_EQ(fabric.peers.size(), 2u);
}

TEST_F(PortStates, ALostPortSaysSoToItsLink) {
    log_in_with({});
    port->close("logged out");
    executor.run();
    EXPECT_EQ(link().state(), PortState::lost);
    settle();
}

}  // namespace
}  // namespace srpfs::initiator
