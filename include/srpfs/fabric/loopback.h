// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The in-process network: initiator and target on one thread, messages handed over in order, one-sided operations
// done by copying, with the checks an HCA would do (range, rights, key). Demonstration, tests and the simulator.

#pragma once

#include <srpfs/fabric/fabric.h>
#include <srpfs/reactor/timer_queue.h>

#include <functional>
#include <string_view>

namespace srpfs::fabric {

// Asked about everything that crosses the network. The simulator's lever; without one nothing fails and nothing waits.
class FaultInjector {
public:
    enum class Direction { to_listener, to_initiator };
    // Whose connections the next question is about: to_string() of the address that is listened on. Set by the network.
    std::string_view listener;
    // Delay before a message arrives. Messages of one connection and direction never overtake each other.
    virtual Duration message_delay(Direction direction) {
        (void)direction;
        return {};
    }
    // The connection breaks instead of carrying this message (both ends see transport_error).
    virtual bool breaks(Direction direction) {
        (void)direction;
        return false;
    }
    // The message (and all later ones of that direction) vanishes; nobody is told. A silent peer.
    virtual bool loses(Direction direction) {
        (void)direction;
        return false;
    }
    // Rewrites the bytes of a message on its way (hostile peers).
    virtual void mangle(Direction direction, std::vector<std::byte>& message) { (void)direction, (void)message; }
    // The connect request gets no answer.
    virtual bool swallows_connect() { return false; }
    virtual Duration connect_delay() { return {}; }
    // Between on_ended() and on_gone() of an endpoint: one-sided operations of the peer that are on their way still
    // land.
    virtual Duration gone_delay() { return {}; }

protected:
    ~FaultInjector() = default;
};

class LoopbackFabric : public Fabric {
public:
    // Breaks all connections as a pulled cable would, after which connects are `unreachable` until link_up().
    virtual void link_down() = 0;
    virtual void link_up() = 0;
    // The port goes down for so short a time that connections survive: what they send arrives after link_up(). Attempts
    // to connect end as with link_down().
    virtual void link_flickers() = 0;
    // The device is unplugged: its connections end (device_removed), there is no port, connecting fails. A later
    // add_device() brings one of the same name with this GUID.
    virtual void remove_device() = 0;
    virtual void add_device(std::uint64_t guid) = 0;
    // Grants in effect, of all connections.
    [[nodiscard]] virtual std::size_t windows() const = 0;
    // Connections whose on_gone() has not been called yet, both sides.
    [[nodiscard]] virtual std::size_t connections() const = 0;
};

// `injector` may be null and must outlive the fabric. `port` names the one local port ("demo0", 1).
// Any kind of Address can be listened on and connected to; equal to_string() means the same listener. Private data
// arrives padded with zeros to what the connection manager delivers (56 or 92, 196, 148 bytes), as on real networks.
// Send queues hold limits.sends_max messages and one-sided operations together.
// With windows, remote access without a grant that is in effect breaks the connection.
std::unique_ptr<LoopbackFabric> make_loopback_fabric(reactor::TimerQueue& timers, LocalPort port,
                                                     FaultInjector* injector,
                                                     Registration registration = Registration::pool);

// The port of the demonstration network: demo0, port 1.
LocalPort demo_port();

}  // namespace srpfs::fabric
