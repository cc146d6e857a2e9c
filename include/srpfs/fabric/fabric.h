// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A reliable message network with remote memory access, as SRP needs it. Implemented by fabric/loopback (in process)
// and fabric/verbs (librdmacm, libibverbs). Knows no SRP: login bytes travel as opaque connection-manager private data.
//
// Threads: a Fabric, its connections and all handler calls belong to one reactor thread, except where a comment says
// otherwise. Handlers may call back into the connection they are called for, and may start or end other connections.
// Life of a connection: connect() -> [on_route] -> [on_reply -> on_established] -> [on_received]* -> on_ended ->
// on_gone. Every connection that connect() or accept() returned ends with exactly one on_gone(), and never destroys
// itself before that call has returned.

#pragma once

#include <srpfs/base/instant.h>
#include <srpfs/base/result.h>

#include <sys/socket.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

namespace srpfs::fabric {

using Gid = std::array<std::byte, 16>;

enum class LinkLayer { infiniband, ethernet, loopback };

// A local RDMA port. `guid` is the interface id of GID index 0 (host byte order), which SRP uses in port identifiers.
struct LocalPort {
    std::string device;  // "mlx5_0"
    unsigned port = 1;   // 1-based, as the kernel counts
    LinkLayer link_layer = LinkLayer::loopback;
    Gid gid{};  // GID index 0
    std::uint64_t guid = 0;
    std::uint64_t node_guid = 0;
    bool active = false;
};

// RDMA/CM over an IP address (RoCE, iWARP, IPoIB); private data for a connect request: 56 bytes.
struct IpAddress {
    sockaddr_storage destination{};
    std::optional<sockaddr_storage> source;  // port may be 0
};
// Native InfiniBand service id through AF_IB; private data: 92 bytes.
struct IbAddress {
    Gid destination_gid{};
    std::uint16_t pkey = 0xffff;
    std::uint64_t service_id = 0;
    Gid source_gid{};  // GID index 0 of the local port: picks the port
};
// A listener of the same loopback network, by name.
struct LoopbackAddress {
    std::string name;
};
using Address = std::variant<IpAddress, IbAddress, LoopbackAddress>;

// "10.0.0.7:5555", "[fe80::1%eth0]:5555", "fe80:..:7/0x0002c903000e8acd", "demo".
[[nodiscard]] std::string to_string(const Address& address);

// What a peer may do with a memory region: SRP reads need `write` (the target writes into it), SRP writes need `read`.
// `both` is for regions that serve either; a grant is for one of the two.
enum class RemoteAccess { read, write, both };

// A region known to every fabric of the process (and so to every device they open).
enum class RegionId : std::uint32_t {};

// A piece of memory as the peer addresses it (SRP memory descriptor).
struct RemoteBuffer {
    std::uint64_t address = 0;
    std::uint32_t key = 0;
    std::uint32_t length = 0;
};

// How a peer reaches memory. A pool: whole regions are open to every peer, as long as they are registered, through one
// key for each. Windows: a peer reaches exactly the bytes of a grant, in one direction, over one connection, until it
// is revoked; the regions themselves are closed.
enum class Registration : std::uint8_t { pool, window };
[[nodiscard]] const char* to_string(Registration registration);  // "pool", "window"

// The right of a connection's peer to a piece of memory, as long as it is not revoked.
struct Grant {
    RemoteBuffer remote{};
    std::optional<std::uint32_t> window{};  // the connection's; empty: the key is that of the region
};

struct ConnectionLimits {
    unsigned sends_max = 64;          // messages posted and not completed at one time
    unsigned message_bytes_max = 64;  // longest message sent
    unsigned retry_count = 7;         // RC transport retries, 2..7 (tl_retry_count)
    unsigned completion_vector = 0;
    std::optional<std::uint8_t> ack_timeout;  // local ACK timeout exponent (4.096 us * 2^n); empty: the default
};

// Receive buffers to post before the connection goes live.
struct ReceiveRing {
    unsigned count = 0;
    unsigned bytes_each = 0;
};

enum class EndReason {
    refused_locally,     // a handler said no (on_route, on_reply)
    local_error,         // out of memory, no device, permission; see text
    address_unresolved,  // no such address or neighbour
    route_unresolved,    // no path
    wrong_port,          // reserved for handlers that compare the route with a wanted port
    unreachable,         // the peer did not answer the connection manager
    rejected,            // the peer's connection manager said no; cm_reason and private_data are set
    peer_disconnected,   // DREQ from the peer
    transport_error,     // completion error: retries exhausted, flushed, access error
    device_removed,
    closed,  // disconnect() was called
};
[[nodiscard]] const char* to_string(EndReason reason);

struct End {
    EndReason reason = EndReason::closed;
    int errno_value = 0;                      // best fit, positive
    int cm_reason = 0;                        // IBTA CM reject reason (28: consumer defined) when rejected
    std::span<const std::byte> private_data;  // of the reject; valid during the call
    std::string text;                         // what happened, in words, for log and last_error
};

class Connection;

class ConnectionHandler {
public:
    // The local port is known. Returns the private data of the connect request (valid until the next handler call);
    // an empty span refuses (-> on_ended with refused_locally).
    virtual std::span<const std::byte> on_route(const LocalPort& port) = 0;
    // The peer accepted with this private data. Says which receives to post; nullopt refuses.
    virtual std::optional<ReceiveRing> on_reply(std::span<const std::byte> private_data) = 0;
    // Messages may be sent from now on (initiating side and accepting side).
    virtual void on_established() = 0;
    // One message; the bytes are valid during the call only, the receive is posted again after it.
    virtual void on_received(std::span<const std::byte> message) = 0;
    // An rdma_read() or rdma_write() with this context has finished. Not called after on_ended.
    virtual void on_rdma_done(std::uint64_t context) { (void)context; }
    // What revoke() was asked for with this context has happened. Not called after on_ended.
    virtual void on_revoked(std::uint64_t context) { (void)context; }
    // The connection cannot be used any more (or never came up). Called once. Memory may still be touched by the peer.
    virtual void on_ended(const End& end) = 0;
    // Last call: the queue pair is destroyed, nothing of ours can be touched through it any more.
    virtual void on_gone() = 0;

protected:
    ~ConnectionHandler() = default;
};

class Connection {
public:
    // Sends head ++ payload as one message; both are copied before the call returns. False: not established, more than
    // limits.sends_max in flight, or longer than limits.message_bytes_max; nothing was sent.
    // Sent to the device at the end of the turn (Fabric::flush).
    [[nodiscard]] virtual bool send(std::span<const std::byte> head, std::span<const std::byte> payload) = 0;
    // The peer's view of `bytes`, which must lie inside the region; nullopt if they do not, or the region is not
    // registered with this connection's device.
    [[nodiscard]] virtual std::optional<RemoteBuffer> describe(RegionId region,
                                                               std::span<const std::byte> bytes) const = 0;
    // Opens `bytes` to the peer: in effect before any message that is sent later arrives. With windows it is a right of
    // its own, else that of describe(), for which `access` has to be among the region's. nullopt: as describe(), or
    // more than limits.sends_max grants are out.
    [[nodiscard]] virtual std::optional<Grant> grant(RegionId region, std::span<const std::byte> bytes,
                                                     RemoteAccess access) {
        (void)access;
        const auto remote = describe(region, bytes);
        if (!remote) return std::nullopt;
        return Grant{*remote, std::nullopt};
    }
    // Closes it again. True: there is nothing to close, because the region is open. False: the peer may reach the bytes
    // until on_revoked(context), or until on_gone() if the connection has ended or ends first.
    [[nodiscard]] virtual bool revoke(const Grant& grant, std::uint64_t context) {
        (void)grant, (void)context;
        return true;
    }
    // One-sided operations of a target, ordered before later sends. `local` lies in `region` and stays untouched by the
    // caller until on_rdma_done(context). False: not established or the queue is full.
    [[nodiscard]] virtual bool rdma_write(RegionId region, std::span<const std::byte> local, const RemoteBuffer& remote,
                                          std::uint64_t context) = 0;
    [[nodiscard]] virtual bool rdma_read(RegionId region, std::span<std::byte> local, const RemoteBuffer& remote,
                                         std::uint64_t context) = 0;
    // Ends the connection politely (DREQ) or, before it is established, abandons the attempt. on_ended(closed) comes in
    // a later poll() unless on_ended came before; then on_gone(). May be called more than once.
    virtual void disconnect() = 0;

protected:
    virtual ~Connection() = default;  // owned by the fabric
};

// An incoming connect request, to be accepted or rejected (at once or later, on the fabric's thread). Dropping it
// rejects it without private data.
class ConnectRequest {
public:
    virtual ~ConnectRequest() = default;
    [[nodiscard]] virtual std::span<const std::byte> private_data() const = 0;
    [[nodiscard]] virtual const LocalPort& local_port() const = 0;
    [[nodiscard]] virtual std::string peer() const = 0;
    // on_established follows when the peer has confirmed; on_route and on_reply are not called on this side.
    virtual Connection& accept(const ConnectionLimits& limits, const ReceiveRing& ring,
                               std::span<const std::byte> private_data, ConnectionHandler& handler) = 0;
    virtual void reject(std::span<const std::byte> private_data) = 0;  // CM reason 28
};

class ListenHandler {
public:
    virtual void on_request(std::unique_ptr<ConnectRequest> request) = 0;

protected:
    ~ListenHandler() = default;
};

// Stops listening when destroyed; connections accepted before live on.
class Listener {
public:
    virtual ~Listener() = default;
};

// What has happened to a local port.
enum class PortChange {
    down,     // its link is gone. Connections live on until the transport gives up; those being set up end now
    active,   // it can be used (again)
    removed,  // the device has gone, with all connections on it
};

class PortListener {
public:
    // `port` as it is now. Of a removed device only the name is known; port.port is 0 and means all its ports.
    virtual void on_port_change(const LocalPort& port, PortChange change) = 0;

protected:
    ~PortListener() = default;
};

class Fabric {
public:
    virtual ~Fabric() = default;  // no connection may be left

    // The ports that exist now. May open devices; not for the hot path.
    [[nodiscard]] virtual std::vector<LocalPort> local_ports() = 0;
    // Makes memory reachable for peers of connections made later, on whatever device they run. It must stay mapped
    // until unregister_memory(), which must not be called while a connection lives.
    virtual Result<RegionId> register_memory(std::span<std::byte> memory, RemoteAccess access) = 0;
    virtual void unregister_memory(RegionId region) = 0;

    // Tells from poll() what happens to the ports of devices that connections have used: within milliseconds where the
    // driver says it; a removed device that has come back, with an active port, within a second or so. Changes may be
    // told twice, and one that another follows at once may not be told at all. Nothing is told after unwatch_ports().
    virtual void watch_ports(PortListener& listener) { (void)listener; }
    virtual void unwatch_ports(PortListener& listener) { (void)listener; }

    // Starts a connection; the outcome comes through the handler from a later poll(). The handler must live until
    // on_gone(). An Error means nothing was started and no handler call will come. No timer runs here: the caller
    // ends an attempt that takes too long with disconnect().
    virtual Result<Connection*> connect(const Address& address, const ConnectionLimits& limits,
                                        ConnectionHandler& handler) = 0;
    virtual Result<std::unique_ptr<Listener>> listen(const Address& address, ListenHandler& handler) = 0;

    // Handles up to `completions_max` completions and all pending connection events; calls handlers; never blocks.
    // Returns how many things it did.
    virtual unsigned poll(unsigned completions_max) = 0;
    // Hands this turn's sends to the devices.
    virtual void flush() = 0;
    // About to sleep: false means something is ready, poll again.
    virtual bool arm() = 0;
    // Descriptors that become readable when poll() has work. Appends.
    virtual void sleep_on(std::vector<int>& fds) = 0;
    // After sleeping: which of them are readable. Who does not tell has all of them looked at.
    virtual void woken(std::span<const int> readable) { (void)readable; }
};

}  // namespace srpfs::fabric
