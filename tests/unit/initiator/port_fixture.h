// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A target port against a scripted target: logins, losses and timers, to the nanosecond.

#pragma once

#include "scripted_fabric.h"

#include <srpfs/initiator/target_port.h>

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace srpfs::initiator {

using namespace std::chrono_literals;
using scripted::Bytes;
using scripted::number_at;
using scripted::Peer;

inline constexpr std::optional<std::uint32_t> off = std::nullopt;  // a timer

class PortTest : public scripted::ScriptedTest, protected TargetPortListener {
protected:
    PortTest() {
        config.name = "test";
        config.address = fabric::LoopbackAddress{"test"};
        config.parameters.id_ext = config.parameters.ioc_guid = 1;
        config.parameters.ch_count = 1;
        config.login_timeout = 10s;
    }
    void TearDown() override {
        if (!port) return;
        for (const auto& peer : fabric.peers) peer->let_go_of_held();
        port->close("the test is over");
        settle();
        EXPECT_EQ(closed, 1u);
        port.reset();
        settle();
    }

    void begin_login() {
        TargetPortListener& listener = *this;
        port = TargetPort::create(config, executor, {{&executor, &fabric}}, listener);
        port->login([this](Result<PortFacts> result) {
            ++results;
            if (result)
                granted = *result;
            else
                refused = result.error();
        });
        settle();
    }
    void log_in() {
        begin_login();
        ASSERT_EQ(port->state(), PortState::running);
        ASSERT_TRUE(granted.has_value());
        ASSERT_EQ(results, 1u);
        changes.clear();
    }
    // Nobody answers logins, and every connection breaks.
    void cut() {
        fabric.on_connect = [](Peer& peer) { peer.end(fabric::EndReason::unreachable, "no answer"); };
        break_all();
    }
    void break_all() {
        for (const auto& peer : fabric.peers)
            if (!peer->is_ended) peer->end(fabric::EndReason::transport_error, "the cable is pulled");
        settle();
    }
    void mend() {
        fabric.on_connect = [this](Peer& peer) { peer.accept(fabric.login); };
    }
    [[nodiscard]] TargetLink& link() { return port->link(0); }
    // 0: single, 1: multi.
    [[nodiscard]] static unsigned action(const Peer& peer) {
        return static_cast<unsigned>(number_at(peer.login, peer.login.size() == 64 ? 26 : 10, 1)) & 3U;
    }

    void on_port_state(TargetPort&, PortState from, PortState to, const std::string& why) override {
        changes.push_back({from, to, why, now()});
    }
    void on_port_login(TargetPort& of, bool first) override {
        ++logins;
        if (first) ++first_logins;
        was_own = of.loss_was_own();
    }
    void on_port_closed(TargetPort&) override { ++closed; }

    struct Change {
        PortState from, to;
        std::string why;
        Instant at;
    };

    TargetPortConfig config;
    std::shared_ptr<TargetPort> port;
    std::optional<PortFacts> granted;
    std::optional<Error> refused;
    unsigned results = 0, logins = 0, first_logins = 0, closed = 0;
    bool was_own = false;
    std::vector<Change> changes;
};

}  // namespace srpfs::initiator
