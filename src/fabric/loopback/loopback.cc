// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Everything that crosses the network is an Event in the queue of the endpoint it arrives at. An endpoint with events
// that are due stands in ready_ once for each of them, so events are handed over in the order they became due.

#include <srpfs/fabric/loopback.h>

#include "ring.h"

#include <srpfs/base/assert.h>

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <unordered_map>
#include <utility>
#include <vector>

namespace srpfs::fabric {
namespace {

using Bytes = std::vector<std::byte>;

// What the connection manager of InfiniBand delivers, whatever was given to it.
constexpr std::size_t request_bytes_ip = 56, request_bytes_ib = 92, reply_bytes = 196, reject_bytes = 148;
// IBTA connection-manager reject reasons.
constexpr int cm_invalid_service_id = 8, cm_consumer_defined = 28;

struct Region {
    std::span<std::byte> memory;
    RemoteAccess access = RemoteAccess::read;
    std::uint32_t key = 0;
    bool registered = false;
};

enum class EventKind : std::uint8_t { route, request, reply, refusal, established, message, write, read, disconnect };

// One for each message: kept within a cache line.
struct Event {
    EventKind kind = EventKind::message;
    bool local_valid = false;  // one-sided operations: `local` lay in the region the requester named
    int cm_reason = 0;
    std::uint32_t length = 0;  // of the message, or of `local`
    Instant arrival{};
    Bytes* bytes = nullptr;      // message (with more behind it) or private data; from the pool
    std::byte* local = nullptr;  // one-sided operations: the requester's memory
    RemoteBuffer remote{};
    std::uint64_t context = 0;
};
static_assert(sizeof(Event) <= 64);

class Network;
class Endpoint;

constexpr std::uint32_t window_key_flag = 1U << 31;

struct Window {
    const Endpoint* owner = nullptr;  // whose peer may use it
    RemoteBuffer remote{};
    RemoteAccess access = RemoteAccess::read;
};

struct Revoked {
    Endpoint* endpoint = nullptr;
    std::uint64_t context = 0;
};

class Endpoint final : public Connection {
public:
    using Direction = FaultInjector::Direction;
    // `incoming`: of what arrives here.
    Endpoint(Network& network, const ConnectionLimits& limits, ConnectionHandler& handler, Direction incoming);
    ~Endpoint() override = default;

    bool send(std::span<const std::byte> head, std::span<const std::byte> payload) override;
    std::optional<RemoteBuffer> describe(RegionId region, std::span<const std::byte> bytes) const override;
    std::optional<Grant> grant(RegionId region, std::span<const std::byte> bytes, RemoteAccess access) override;
    bool revoke(const Grant& grant, std::uint64_t context) override;
    bool rdma_write(RegionId region, std::span<const std::byte> local, const RemoteBuffer& remote,
                    std::uint64_t context) override;
    bool rdma_read(RegionId region, std::span<std::byte> local, const RemoteBuffer& remote,
                   std::uint64_t context) override;
    void disconnect() override;

    // Puts an event at the end of the queue, to arrive after `delay` and after everything before it. Of what is
    // returned nothing but the arrival is set.
    inline Event& add_event(Duration delay);
    void push(const Event& event, Duration delay);
    void move_due_events();
    void end(EndReason reason, int errno_value, std::string text, int cm_reason = 0, Bytes private_data = {});
    // Asked about this endpoint; may be null.
    [[nodiscard]] FaultInjector* injector() const;
    [[nodiscard]] Direction outgoing() const {
        return incoming == Direction::to_listener ? Direction::to_initiator : Direction::to_listener;
    }

    enum class State { connecting, accepted, live, ended };

    Network& network;
    ConnectionHandler& handler;
    const ConnectionLimits limits;
    const Direction incoming;
    State state = State::connecting;
    Endpoint* peer = nullptr;                 // until one of the two is gone
    class PendingRequest* request = nullptr;  // of an initiating endpoint, while nobody has answered it
    std::string address;                      // that is listened on
    std::size_t request_bytes = request_bytes_ip;
    ReceiveRing ring;
    unsigned grants = 0;     // out, those that are being revoked included
    unsigned in_flight = 0;  // sends and one-sided operations that have not reached the peer
    bool silent = false;     // what it sends vanishes
    bool has_gap = false;    // a one-sided operation of the peer was dropped: nothing it sent after that may arrive

    Ring<Event> queue;
    std::size_t due = 0;  // how many events at the front of the queue stand in ready_
    Instant last_arrival{};
    reactor::Timer arrival_timer;

    struct {
        EndReason reason;
        int errno_value;
        int cm_reason;
        std::string text;
        Bytes private_data;
    } end_state{};
    bool end_told = false;
    std::uint64_t end_told_in_poll = 0;
    Instant gone_at{};
    reactor::Timer gone_timer;  // only wakes the reactor; poll() looks at gone_at

private:
    // What becomes of the next thing that is sent.
    enum class Fate { crosses, lost, ends };
    // Without a peer, or with an injector; only the latter leaves anything that crosses.
    [[gnu::noinline]] Fate rare_fate();
    [[gnu::noinline]] bool send_rarely(std::span<const std::byte> head, std::span<const std::byte> payload);
    inline void add_message(Bytes* message, std::size_t length, Duration delay);
    [[gnu::noinline]] std::optional<Grant> open(const RemoteBuffer& remote, RemoteAccess access);
    inline bool post_one_sided(EventKind kind, RegionId region, std::byte* local, std::size_t bytes,
                               const RemoteBuffer& remote, std::uint64_t context);
};

class PendingRequest final : public ConnectRequest {
public:
    PendingRequest(Network& network, Endpoint& initiator, Bytes private_data);
    ~PendingRequest() override;

    std::span<const std::byte> private_data() const override { return private_data_; }
    const LocalPort& local_port() const override;
    std::string peer() const override;
    Connection& accept(const ConnectionLimits& limits, const ReceiveRing& ring, std::span<const std::byte> private_data,
                       ConnectionHandler& handler) override;
    void reject(std::span<const std::byte> private_data) override;

    Endpoint* initiator;  // nullptr once it has given up, or has been answered

private:
    void refuse(Bytes* private_data);
    Network& network_;
    Bytes private_data_;
    bool answered_ = false;
};

class NetworkListener final : public Listener {
public:
    NetworkListener(Network& network, std::string address) : network_(network), address_(std::move(address)) {}
    ~NetworkListener() override;

private:
    Network& network_;
    std::string address_;
};

class Network final : public LoopbackFabric {
public:
    Network(reactor::TimerQueue& timers_, LocalPort port_, FaultInjector* injector_, Registration registration_)
        : timers(timers_), port(std::move(port_)), injector(injector_), registration(registration_) {}
    ~Network() override {
        SRPFS_ASSERT(endpoints_.empty());
        SRPFS_ASSERT(listeners.empty());
    }

    std::vector<LocalPort> local_ports() override {
        if (!has_device) return {};
        return {port_now()};
    }
    Result<RegionId> register_memory(std::span<std::byte> memory, RemoteAccess access) override;
    void unregister_memory(RegionId region) override;
    Result<Connection*> connect(const Address& address, const ConnectionLimits& limits,
                                ConnectionHandler& handler) override;
    Result<std::unique_ptr<Listener>> listen(const Address& address, ListenHandler& handler) override;
    unsigned poll(unsigned completions_max) override;
    void flush() override {}
    bool arm() override;
    void sleep_on(std::vector<int>&) override {}
    void watch_ports(PortListener& listener) override { watchers_.push_back(&listener); }
    void unwatch_ports(PortListener& listener) override {
        std::replace(watchers_.begin(), watchers_.end(), &listener, static_cast<PortListener*>(nullptr));
        has_unwatched_ = true;
    }
    void link_down() override;
    void link_up() override;
    void link_flickers() override;
    void remove_device() override;
    void add_device(std::uint64_t guid) override;
    std::size_t connections() const override { return endpoints_.size(); }
    std::size_t windows() const override { return windows_.size(); }

    Endpoint& add_endpoint(const ConnectionLimits& limits, ConnectionHandler& handler, Endpoint::Direction incoming);
    // Nothing crosses between the two any more; both see transport_error.
    void cut(Endpoint& endpoint, const std::string& why);
    void ready(Endpoint& endpoint) { ready_.push_back(&endpoint); }
    void ended(Endpoint& endpoint) { ended_.push_back(&endpoint); }
    // The key of a new window.
    std::uint32_t open_window(const Window& window);
    void close_window(std::uint32_t key);
    void revoked(Endpoint& endpoint, std::uint64_t context) { revoked_.push_back({&endpoint, context}); }
    Bytes* take_bytes() {
        if (free_bytes_.empty()) [[unlikely]]
            return make_bytes();
        Bytes* bytes = free_bytes_.back();
        free_bytes_.pop_back();
        return bytes;
    }
    // Exactly as long as `bytes` or `padded_to`.
    Bytes* copy_of(std::span<const std::byte> bytes, std::size_t padded_to);
    // With whatever behind it: a message need not be as long as the one before.
    [[gnu::always_inline]] inline Bytes* message_of(std::span<const std::byte> head,
                                                    std::span<const std::byte> payload);
    void give_back(Bytes* bytes) {
        if (bytes) free_bytes_.push_back(bytes);
    }
    [[nodiscard]] const Region* region(RegionId id) const {
        const auto index = static_cast<std::size_t>(id);
        return index < regions_.size() && regions_[index].registered ? &regions_[index] : nullptr;
    }
    // The region if `bytes` lie in it, and a RemoteBuffer can tell how many they are.
    [[nodiscard]] const Region* region_around(RegionId id, std::span<const std::byte> bytes) const {
        const Region* known = region(id);
        if (!known || bytes.data() < known->memory.data() || bytes.size() > UINT32_MAX) return nullptr;
        const auto offset = static_cast<std::size_t>(bytes.data() - known->memory.data());
        if (offset > known->memory.size() || bytes.size() > known->memory.size() - offset) return nullptr;
        return known;
    }

    reactor::TimerQueue& timers;
    LocalPort port;
    FaultInjector* injector;
    const Registration registration;
    bool link_is_up = true;
    bool has_device = true;
    std::map<std::string, ListenHandler*> listeners;

private:
    [[nodiscard]] LocalPort port_now() const {
        LocalPort now = port;
        now.active = port.active && link_is_up;
        return now;
    }
    [[gnu::noinline]] Bytes* make_bytes();
    void tell_port_changes();
    bool tell_gone();
    void tell_ended(Endpoint& endpoint);
    // Everything but ready_; returns how much that was.
    [[gnu::noinline]] unsigned tell();
    void handle(Endpoint& endpoint, const Event& event);
    [[gnu::noinline]] void handle_rare(Endpoint& endpoint, Event event);
    void handle_route(Endpoint& endpoint);
    void handle_request(Endpoint& endpoint, const Event& event);
    void handle_reply(Endpoint& endpoint, const Event& event);
    void handle_message(Endpoint& endpoint, std::span<const std::byte> message);
    void handle_one_sided(Endpoint& endpoint, const Event& event);
    [[gnu::noinline]] void refuse(Endpoint& endpoint, std::span<const std::byte> message);
    [[gnu::noinline]] void refuse(Endpoint& endpoint, const Event& one_sided);
    std::byte* remote_memory(const Endpoint& owner, const RemoteBuffer& remote, std::size_t bytes, RemoteAccess wanted);
    void drop_queue(Endpoint& endpoint);

    std::vector<Region> regions_;
    using Windows = std::unordered_map<std::uint32_t, Window>;
    Windows windows_;                                  // by key
    std::vector<Windows::node_type> spare_windows_;    // so that a request allocates nothing
    std::uint32_t last_window_key_ = window_key_flag;  // keys do not come back
    Ring<Revoked> revoked_;                            // to be told
    std::vector<PortListener*> watchers_;              // nullptr: no more
    bool has_unwatched_ = false;                       // some are
    Ring<PortChange> port_changes_;                    // to be told
    std::vector<std::unique_ptr<Endpoint>> endpoints_;
    Ring<Endpoint*> ready_;         // nullptr: the endpoint is gone
    Ring<Endpoint*> ended_;         // on_ended() is due
    std::vector<Endpoint*> going_;  // on_ended() was called, on_gone() is due
    std::vector<std::unique_ptr<Bytes>> all_bytes_;
    std::vector<Bytes*> free_bytes_;
    std::uint64_t poll_number_ = 0;
    bool polling_ = false;
};

// ---- Endpoint ----

FaultInjector* Endpoint::injector() const {
    if (network.injector) network.injector->listener = address;
    return network.injector;
}

Endpoint::Endpoint(Network& network_, const ConnectionLimits& limits_, ConnectionHandler& handler_, Direction incoming_)
    : network(network_), handler(handler_), limits(limits_), incoming(incoming_),
      arrival_timer(network_.timers, [this] { move_due_events(); }), gone_timer(network_.timers, [] {}) {}

Event& Endpoint::add_event(Duration delay) {
    const Instant now = network.timers.now();
    Instant arrival = now;
    if (delay != Duration::zero()) [[unlikely]]
        arrival = saturating_add(now, delay);
    arrival = std::max(arrival, last_arrival);
    last_arrival = arrival;
    const bool is_next = due == queue.size();
    Event& event = queue.add();
    event.arrival = arrival;
    if (is_next && arrival <= now && network.link_is_up) [[likely]] {
        ++due;
        network.ready(*this);
    } else {
        move_due_events();
    }
    return event;
}

void Endpoint::push(const Event& event, Duration delay) {
    Event& added = add_event(delay);
    const Instant arrival = added.arrival;
    added = event;
    added.arrival = arrival;
}

void Endpoint::move_due_events() {
    // While the link is away, what travels waits; only attempts to connect go on, to their end.
    if (!network.link_is_up && (state == State::live || state == State::accepted)) return;
    const Instant now = network.timers.now();
    while (due < queue.size() && queue[due].arrival <= now) {
        ++due;
        network.ready(*this);
    }
    if (due < queue.size() && !arrival_timer.armed()) arrival_timer.arm_at(queue[due].arrival);
}

void Endpoint::end(EndReason reason, int errno_value, std::string text, int cm_reason, Bytes private_data) {
    if (state == State::ended) return;
    state = State::ended;
    end_state = {reason, errno_value, cm_reason, std::move(text), std::move(private_data)};
    if (request) request->initiator = nullptr;
    request = nullptr;
    network.ended(*this);
}

Endpoint::Fate Endpoint::rare_fate() {
    if (!peer) {
        end(EndReason::transport_error, EIO, "the peer does not answer any more (retries exhausted)");
        return Fate::ends;
    }
    FaultInjector* injector = this->injector();
    if (injector && injector->breaks(outgoing())) {
        network.cut(*this, "the connection broke (injected)");
        return Fate::ends;
    }
    silent = silent || (injector && injector->loses(outgoing()));
    return silent ? Fate::lost : Fate::crosses;
}

bool Endpoint::send(std::span<const std::byte> head, std::span<const std::byte> payload) {
    if (state != State::live || in_flight >= limits.sends_max) return false;
    const std::size_t length = head.size() + payload.size();
    if (length > limits.message_bytes_max) return false;
    if (!peer || network.injector) [[unlikely]]
        return send_rarely(head, payload);
    add_message(network.message_of(head, payload), length, {});
    return true;
}

bool Endpoint::send_rarely(std::span<const std::byte> head, std::span<const std::byte> payload) {
    if (rare_fate() != Fate::crosses) return true;
    FaultInjector* injector = this->injector();
    Bytes* message = network.message_of(head, payload);
    message->resize(head.size() + payload.size());
    injector->mangle(outgoing(), *message);
    add_message(message, message->size(), injector->message_delay(outgoing()));
    return true;
}

void Endpoint::add_message(Bytes* message, std::size_t length, Duration delay) {
    ++in_flight;
    Event& event = peer->add_event(delay);
    event.kind = EventKind::message;
    event.bytes = message;
    event.length = static_cast<std::uint32_t>(length);
}

std::optional<RemoteBuffer> Endpoint::describe(RegionId region, std::span<const std::byte> bytes) const {
    const Region* known = network.region_around(region, bytes);
    if (!known) return std::nullopt;
    return RemoteBuffer{reinterpret_cast<std::uintptr_t>(bytes.data()), known->key,
                        static_cast<std::uint32_t>(bytes.size())};
}

std::optional<Grant> Endpoint::grant(RegionId region, std::span<const std::byte> bytes, RemoteAccess access) {
    const Region* known = network.region_around(region, bytes);
    if (!known) return std::nullopt;
    const RemoteBuffer remote{reinterpret_cast<std::uintptr_t>(bytes.data()), known->key,
                              static_cast<std::uint32_t>(bytes.size())};
    if (network.registration == Registration::pool) return Grant{remote, std::nullopt};
    return open(remote, access);
}

std::optional<Grant> Endpoint::open(const RemoteBuffer& remote, RemoteAccess access) {
    if (grants == limits.sends_max || remote.length == 0) return std::nullopt;
    ++grants;
    const std::uint32_t key = network.open_window({this, remote, access});
    return Grant{{remote.address, key, remote.length}, key};
}

bool Endpoint::revoke(const Grant& grant, std::uint64_t context) {
    if (!grant.window) return true;
    // What an ended connection has open stays so until it is gone, as a device may be slow to notice.
    if (state != State::live) return false;
    network.close_window(*grant.window);
    network.revoked(*this, context);
    return false;
}

bool Endpoint::rdma_write(RegionId region, std::span<const std::byte> local, const RemoteBuffer& remote,
                          std::uint64_t context) {
    // The bytes are only read: handle_one_sided() copies from `local` for EventKind::write.
    return post_one_sided(EventKind::write, region, const_cast<std::byte*>(local.data()), local.size(), remote,
                          context);
}

bool Endpoint::rdma_read(RegionId region, std::span<std::byte> local, const RemoteBuffer& remote,
                         std::uint64_t context) {
    return post_one_sided(EventKind::read, region, local.data(), local.size(), remote, context);
}

bool Endpoint::post_one_sided(EventKind kind, RegionId region, std::byte* local, std::size_t bytes,
                              const RemoteBuffer& remote, std::uint64_t context) {
    if (state != State::live || in_flight >= limits.sends_max) return false;
    Duration delay{};
    if (!peer || network.injector) [[unlikely]] {
        const Fate fate = rare_fate();
        if (fate == Fate::ends) return true;
        if (fate == Fate::lost) {
            ++in_flight;  // never completes
            return true;
        }
        delay = injector()->message_delay(outgoing());
    }
    ++in_flight;
    Event& event = peer->add_event(delay);
    event.kind = kind;
    event.local_valid = network.region_around(region, {local, bytes}) != nullptr;
    event.length = static_cast<std::uint32_t>(bytes);
    event.bytes = nullptr;
    event.local = local;
    event.remote = remote;
    event.context = context;
    return true;
}

void Endpoint::disconnect() {
    if (state == State::ended) return;
    const bool connected = peer && !silent;
    end(EndReason::closed, ECONNABORTED, "closed");
    if (!connected) return;
    FaultInjector* injector = this->injector();
    peer->push({.kind = EventKind::disconnect}, injector ? injector->message_delay(outgoing()) : Duration{});
}

// ---- PendingRequest ----

PendingRequest::PendingRequest(Network& network, Endpoint& initiator_, Bytes private_data)
    : initiator(&initiator_), network_(network), private_data_(std::move(private_data)) {
    initiator_.request = this;
}

PendingRequest::~PendingRequest() { refuse(nullptr); }

const LocalPort& PendingRequest::local_port() const { return network_.port; }

std::string PendingRequest::peer() const { return "loopback"; }

Connection& PendingRequest::accept(const ConnectionLimits& limits, const ReceiveRing& ring,
                                   std::span<const std::byte> private_data, ConnectionHandler& handler) {
    SRPFS_ASSERT(!answered_);
    answered_ = true;
    Endpoint& accepting = network_.add_endpoint(limits, handler, Endpoint::Direction::to_listener);
    accepting.state = Endpoint::State::accepted;
    accepting.ring = ring;
    if (!initiator) {
        accepting.end(EndReason::unreachable, EHOSTUNREACH, "the initiator gave up before the login was answered");
        return accepting;
    }
    Endpoint& asking = *std::exchange(initiator, nullptr);
    asking.request = nullptr;
    asking.peer = &accepting;
    accepting.address = asking.address;
    accepting.peer = &asking;
    asking.push({.kind = EventKind::reply, .bytes = network_.copy_of(private_data, reply_bytes)},
                asking.injector() ? asking.injector()->connect_delay() : Duration{});
    return accepting;
}

void PendingRequest::reject(std::span<const std::byte> private_data) {
    SRPFS_ASSERT(!answered_);
    refuse(network_.copy_of(private_data, reject_bytes));
}

void PendingRequest::refuse(Bytes* private_data) {
    if (answered_ || !initiator) return network_.give_back(private_data);
    answered_ = true;
    Endpoint& asking = *std::exchange(initiator, nullptr);
    asking.request = nullptr;
    asking.push({.kind = EventKind::refusal, .cm_reason = cm_consumer_defined, .bytes = private_data},
                asking.injector() ? asking.injector()->connect_delay() : Duration{});
}

NetworkListener::~NetworkListener() { network_.listeners.erase(address_); }

// ---- Network ----

Bytes* Network::make_bytes() {
    all_bytes_.push_back(std::make_unique<Bytes>());
    free_bytes_.reserve(all_bytes_.size());
    return all_bytes_.back().get();
}

Bytes* Network::copy_of(std::span<const std::byte> bytes, std::size_t padded_to) {
    Bytes* copy = take_bytes();
    copy->assign(bytes.begin(), bytes.end());
    if (copy->size() < padded_to) copy->resize(padded_to);
    return copy;
}

Bytes* Network::message_of(std::span<const std::byte> head, std::span<const std::byte> payload) {
    Bytes* message = take_bytes();
    const std::size_t length = head.size() + payload.size();
    if (message->size() < length) [[unlikely]]
        message->resize(length);
    if (!head.empty()) std::memcpy(message->data(), head.data(), head.size());
    if (!payload.empty()) std::memcpy(message->data() + head.size(), payload.data(), payload.size());
    return message;
}

Result<RegionId> Network::register_memory(std::span<std::byte> memory, RemoteAccess access) {
    const auto index = static_cast<std::uint32_t>(regions_.size());
    // Keys are not plain indexes, so that a key taken from the wrong place is noticed.
    regions_.push_back({memory, access, (index + 1) << 8 | (0x5a ^ (index & 0xff)), true});
    return RegionId{index};
}

void Network::unregister_memory(RegionId id) {
    SRPFS_ASSERT(region(id));
    regions_[static_cast<std::size_t>(id)].registered = false;  // never used again: a stale key stays stale
}

Endpoint& Network::add_endpoint(const ConnectionLimits& limits, ConnectionHandler& handler,
                                Endpoint::Direction incoming) {
    endpoints_.push_back(std::make_unique<Endpoint>(*this, limits, handler, incoming));
    return *endpoints_.back();
}

Result<Connection*> Network::connect(const Address& address, const ConnectionLimits& limits,
                                     ConnectionHandler& handler) {
    Endpoint& endpoint = add_endpoint(limits, handler, Endpoint::Direction::to_initiator);
    endpoint.address = to_string(address);
    endpoint.request_bytes = std::holds_alternative<IbAddress>(address) ? request_bytes_ib : request_bytes_ip;
    endpoint.push({.kind = EventKind::route}, {});
    return &endpoint;
}

Result<std::unique_ptr<Listener>> Network::listen(const Address& address, ListenHandler& handler) {
    const std::string name = to_string(address);
    if (!listeners.emplace(name, &handler).second)
        return Error(EADDRINUSE, fmt::format("listen on {}: the loopback network has a listener of this name", name));
    return std::unique_ptr<Listener>(std::make_unique<NetworkListener>(*this, name));
}

void Network::drop_queue(Endpoint& endpoint) {
    while (!endpoint.queue.empty()) give_back(endpoint.queue.pop_front().bytes);
    endpoint.due = 0;
    endpoint.arrival_timer.disarm();
}

void Network::cut(Endpoint& endpoint, const std::string& why) {
    Endpoint* peer = endpoint.peer;
    drop_queue(endpoint);
    endpoint.end(EndReason::transport_error, EIO, why);
    if (!peer) return;
    drop_queue(*peer);
    peer->end(EndReason::transport_error, EIO, why);
}

void Network::link_flickers() {
    if (link_is_up) port_changes_.push_back(PortChange::down);
    link_is_up = false;
    for (const auto& endpoint : endpoints_) {
        if (endpoint->state == Endpoint::State::live || endpoint->state == Endpoint::State::accepted) continue;
        drop_queue(*endpoint);
        endpoint->end(EndReason::unreachable, EHOSTUNREACH, "the link is down");
    }
}

void Network::link_up() {
    if (!link_is_up) port_changes_.push_back(PortChange::active);
    link_is_up = true;
    for (const auto& endpoint : endpoints_) endpoint->move_due_events();
}

void Network::remove_device() {
    has_device = false;
    port_changes_.push_back(PortChange::removed);
    for (const auto& endpoint : endpoints_) {
        drop_queue(*endpoint);
        endpoint->end(EndReason::device_removed, ENODEV, "the RDMA device was removed");
    }
}

void Network::add_device(std::uint64_t guid) {
    has_device = true;
    port.guid = guid;
    if (link_is_up) port_changes_.push_back(PortChange::active);
}

void Network::tell_port_changes() {
    while (!port_changes_.empty()) {
        const PortChange change = port_changes_.pop_front();
        LocalPort now = port_now();
        if (change == PortChange::removed) {
            now = {};
            now.device = port.device;
            now.port = 0;
        }
        for (std::size_t i = 0; i < watchers_.size(); ++i)
            if (watchers_[i]) watchers_[i]->on_port_change(now, change);
    }
    std::erase(watchers_, nullptr);
    has_unwatched_ = false;
}

void Network::link_down() {
    if (link_is_up) port_changes_.push_back(PortChange::down);
    link_is_up = false;
    for (const auto& endpoint : endpoints_) {
        drop_queue(*endpoint);
        if (endpoint->state == Endpoint::State::live)
            endpoint->end(EndReason::transport_error, EIO, "the link is down (retries exhausted)");
        else
            endpoint->end(EndReason::unreachable, EHOSTUNREACH, "the link is down");
    }
}

bool Network::arm() {
    if (!ready_.empty() || !ended_.empty() || !port_changes_.empty() || !revoked_.empty()) return false;
    return std::none_of(going_.begin(), going_.end(),
                        [this](const Endpoint* endpoint) { return endpoint->gone_at <= timers.now(); });
}

unsigned Network::tell() {
    auto told = static_cast<unsigned>(port_changes_.size());
    tell_port_changes();
    while (tell_gone()) ++told;
    for (std::size_t count = ended_.size(); count > 0; --count, ++told) tell_ended(*ended_.pop_front());
    for (std::size_t count = revoked_.size(); count > 0; --count, ++told) {
        const Revoked done = revoked_.pop_front();
        if (!done.endpoint) continue;
        --done.endpoint->grants;
        if (done.endpoint->state == Endpoint::State::live) done.endpoint->handler.on_revoked(done.context);
    }
    return told;
}

unsigned Network::poll(unsigned completions_max) {
    SRPFS_ASSERT(!polling_);
    polling_ = true;
    ++poll_number_;
    unsigned told = 0;
    if (!port_changes_.empty() || has_unwatched_ || !going_.empty() || !ended_.empty() || !revoked_.empty())
        told = tell();
    // What the handlers send is handed over in the same call, as long as the limit allows: request and response of
    // a busy connection then share a turn.
    unsigned events = 0;
    while (events < completions_max && !ready_.empty()) {
        Endpoint* endpoint = ready_.pop_front();
        if (!endpoint || endpoint->due == 0) [[unlikely]]
            continue;  // gone or cut since it was queued
        --endpoint->due;
        handle(*endpoint, endpoint->queue.pop_front());
        ++events;
    }
    polling_ = false;
    return told + events;
}

void Network::tell_ended(Endpoint& endpoint) {
    endpoint.end_told = true;
    endpoint.end_told_in_poll = poll_number_;
    const Duration delay = injector ? endpoint.injector()->gone_delay() : Duration{};
    endpoint.gone_at = saturating_add(timers.now(), delay);
    if (delay > Duration::zero()) endpoint.gone_timer.arm_at(endpoint.gone_at);
    going_.push_back(&endpoint);
    const auto& state = endpoint.end_state;
    endpoint.handler.on_ended({.reason = state.reason,
                               .errno_value = state.errno_value,
                               .cm_reason = state.cm_reason,
                               .private_data = state.private_data,
                               .text = state.text});
}

// Tells one endpoint that it is gone; false when none is due.
bool Network::tell_gone() {
    const auto due = std::find_if(going_.begin(), going_.end(), [this](const Endpoint* endpoint) {
        return endpoint->end_told_in_poll < poll_number_ && endpoint->gone_at <= timers.now();
    });
    if (due == going_.end()) return false;
    Endpoint* endpoint = *due;
    going_.erase(due);
    drop_queue(*endpoint);
    if (endpoint->peer) endpoint->peer->peer = nullptr;
    endpoint->peer = nullptr;
    for (std::size_t i = 0; i < ready_.size(); ++i)
        if (ready_[i] == endpoint) ready_[i] = nullptr;
    for (std::size_t i = 0; i < revoked_.size(); ++i)
        if (revoked_[i].endpoint == endpoint) revoked_[i].endpoint = nullptr;
    std::erase_if(windows_, [endpoint](const auto& window) { return window.second.owner == endpoint; });
    endpoint->handler.on_gone();
    std::erase_if(endpoints_, [endpoint](const auto& owned) { return owned.get() == endpoint; });
    return true;
}

// `event` is where the next one of the endpoint may be put: not looked at after a handler was called.
void Network::handle(Endpoint& endpoint, const Event& event) {
    if (event.kind == EventKind::message) [[likely]] {
        Bytes* bytes = event.bytes;
        if (endpoint.peer) --endpoint.peer->in_flight;
        handle_message(endpoint, {bytes->data(), event.length});
        return give_back(bytes);
    }
    if (event.kind == EventKind::write || event.kind == EventKind::read) [[likely]]
        return handle_one_sided(endpoint, event);
    handle_rare(endpoint, event);
}

void Network::handle_rare(Endpoint& endpoint, Event event) {
    const bool ended = endpoint.state == Endpoint::State::ended;
    switch (event.kind) {
        case EventKind::route:
            if (!ended) handle_route(endpoint);
            break;
        case EventKind::request:
            if (!ended) handle_request(endpoint, event);
            break;
        case EventKind::reply:
            if (!ended) handle_reply(endpoint, event);
            break;
        case EventKind::refusal:
            endpoint.end(
                EndReason::rejected, ECONNREFUSED,
                fmt::format("{}: the peer's connection manager refused, reason {}", endpoint.address, event.cm_reason),
                event.cm_reason, event.bytes ? *event.bytes : Bytes{});
            break;
        case EventKind::established:
            if (endpoint.state != Endpoint::State::accepted) break;
            endpoint.state = Endpoint::State::live;
            endpoint.handler.on_established();
            break;
        case EventKind::disconnect:
            endpoint.end(EndReason::peer_disconnected, ECONNRESET, "the peer disconnected");
            break;
        case EventKind::message:
        case EventKind::write:
        case EventKind::read: SRPFS_ASSERT(false); break;
    }
    give_back(event.bytes);
}

void Network::handle_route(Endpoint& endpoint) {
    if (!has_device)
        return endpoint.end(EndReason::address_unresolved, ENODEV, endpoint.address + ": there is no RDMA device");
    if (!link_is_up) return endpoint.end(EndReason::unreachable, EHOSTUNREACH, endpoint.address + ": the link is down");
    const auto private_data = endpoint.handler.on_route(port);
    if (endpoint.state == Endpoint::State::ended) return;
    if (private_data.empty())
        return endpoint.end(EndReason::refused_locally, ECONNABORTED,
                            endpoint.address + ": the caller refused the route");
    if (private_data.size() > endpoint.request_bytes)
        return endpoint.end(EndReason::local_error, EINVAL,
                            fmt::format("{}: {} bytes of private data, {} fit", endpoint.address, private_data.size(),
                                        endpoint.request_bytes));
    if (injector && endpoint.injector()->swallows_connect()) return;
    endpoint.push({.kind = EventKind::request, .bytes = copy_of(private_data, endpoint.request_bytes)},
                  injector ? endpoint.injector()->connect_delay() : Duration{});
}

void Network::handle_request(Endpoint& endpoint, const Event& event) {
    const auto listener = listeners.find(endpoint.address);
    if (listener == listeners.end())
        return endpoint.end(EndReason::rejected, ECONNREFUSED,
                            endpoint.address + ": nobody listens there (connection manager reject reason 8)",
                            cm_invalid_service_id);
    listener->second->on_request(std::make_unique<PendingRequest>(*this, endpoint, *event.bytes));
}

void Network::handle_reply(Endpoint& endpoint, const Event& event) {
    const auto ring = endpoint.handler.on_reply(*event.bytes);
    if (endpoint.state == Endpoint::State::ended) return;
    if (!ring) {
        endpoint.end(EndReason::refused_locally, ECONNABORTED, endpoint.address + ": the caller refused the reply");
        if (endpoint.peer)
            endpoint.peer->end(EndReason::rejected, ECONNREFUSED, "the initiator refused the reply",
                               cm_consumer_defined);
        return;
    }
    endpoint.ring = *ring;
    endpoint.state = Endpoint::State::live;
    // Before on_established() of this side, so that it arrives before anything sent from there.
    if (endpoint.peer)
        endpoint.peer->push({.kind = EventKind::established},
                            injector ? endpoint.injector()->connect_delay() : Duration{});
    endpoint.handler.on_established();
}

void Network::handle_message(Endpoint& endpoint, std::span<const std::byte> message) {
    if (endpoint.state == Endpoint::State::ended || endpoint.has_gap) return;
    if (endpoint.ring.count == 0 || message.size() > endpoint.ring.bytes_each) [[unlikely]]
        return refuse(endpoint, message);
    endpoint.handler.on_received(message);
}

void Network::refuse(Endpoint& endpoint, std::span<const std::byte> message) {
    if (endpoint.ring.count == 0) return cut(endpoint, "a message met no receive buffer");
    cut(endpoint, fmt::format("a message of {} bytes met receive buffers of {} (local length error)", message.size(),
                              endpoint.ring.bytes_each));
}

// `endpoint` is the side whose memory is touched; its program takes no part.
void Network::handle_one_sided(Endpoint& endpoint, const Event& event) {
    Endpoint* requester = endpoint.peer;
    const bool is_write = event.kind == EventKind::write;
    std::byte* memory =
        remote_memory(endpoint, event.remote, event.length, is_write ? RemoteAccess::write : RemoteAccess::read);
    if (!event.local_valid || (!memory && event.length > 0)) [[unlikely]]
        return refuse(endpoint, event);
    // The requester's memory may be gone with it; the peer of a requester that is gone drops its operations.
    if (!requester) {
        endpoint.has_gap = true;
        return;
    }
    --requester->in_flight;
    if (event.length > 0) std::memcpy(is_write ? memory : event.local, is_write ? event.local : memory, event.length);
    if (requester->state == Endpoint::State::live) requester->handler.on_rdma_done(event.context);
}

void Network::refuse(Endpoint& endpoint, const Event& one_sided) {
    if (!one_sided.local_valid)
        return cut(endpoint, "one-sided operation outside the local region (local protection error)");
    cut(endpoint, fmt::format("remote {} of {} bytes at {:#x}+{}, key {:#x}: remote access error",
                              one_sided.kind == EventKind::write ? "write" : "read", one_sided.length,
                              one_sided.remote.address, one_sided.remote.length, one_sided.remote.key));
}

std::uint32_t Network::open_window(const Window& window) {
    const std::uint32_t key = ++last_window_key_;
    if (spare_windows_.empty()) {
        windows_.emplace(key, window);
        return key;
    }
    Windows::node_type node = std::move(spare_windows_.back());
    spare_windows_.pop_back();
    node.key() = key;
    node.mapped() = window;
    windows_.insert(std::move(node));
    return key;
}

void Network::close_window(std::uint32_t key) {
    if (Windows::node_type node = windows_.extract(key)) spare_windows_.push_back(std::move(node));
}

// What the peer of `owner` may touch.
std::byte* Network::remote_memory(const Endpoint& owner, const RemoteBuffer& remote, std::size_t bytes,
                                  RemoteAccess wanted) {
    if (registration == Registration::window) {
        const auto found = windows_.find(remote.key);
        if (found == windows_.end()) return nullptr;
        const Window& window = found->second;
        if (window.owner != &owner || window.access != wanted || bytes > remote.length) return nullptr;
        if (remote.address < window.remote.address) return nullptr;
        const std::uint64_t offset = remote.address - window.remote.address;
        if (offset > window.remote.length || bytes > window.remote.length - offset) return nullptr;
        return reinterpret_cast<std::byte*>(remote.address);
    }
    const std::size_t index = (remote.key >> 8) - std::size_t{1};
    if (remote.key >> 8 == 0 || index >= regions_.size()) return nullptr;
    const Region& region = regions_[index];
    if (!region.registered || region.key != remote.key) return nullptr;
    if (region.access != wanted && region.access != RemoteAccess::both) return nullptr;
    if (bytes > remote.length) return nullptr;
    const auto start = reinterpret_cast<std::uintptr_t>(region.memory.data());
    if (remote.address < start || remote.address - start > region.memory.size()) return nullptr;
    const std::size_t offset = remote.address - start;
    if (bytes > region.memory.size() - offset) return nullptr;
    return region.memory.data() + offset;
}

}  // namespace

std::unique_ptr<LoopbackFabric> make_loopback_fabric(reactor::TimerQueue& timers, LocalPort port,
                                                     FaultInjector* injector, Registration registration) {
    return std::make_unique<Network>(timers, std::move(port), injector, registration);
}

LocalPort demo_port() {
    LocalPort port;
    port.device = "demo0";
    port.port = 1;
    port.link_layer = LinkLayer::loopback;
    // fe80::5300:1 with the interface id below: link local, as GID index 0 of a real port.
    port.guid = 0x0200'00ff'fe53'0001;
    port.node_guid = port.guid;
    port.gid[0] = std::byte{0xfe};
    port.gid[1] = std::byte{0x80};
    for (std::size_t i = 0; i < 8; ++i) port.gid[8 + i] = static_cast<std::byte>(port.guid >> (8 * (7 - i)));
    port.active = true;
    return port;
}

}  // namespace srpfs::fabric
