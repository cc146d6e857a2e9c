// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "verbs_fabric.h"

#include "explain.h"
#include "local_ports.h"

#include <srpfs/base/log.h>

#include <fcntl.h>

#include <algorithm>
#include <cstring>

namespace srpfs::fabric {
namespace verbs {
namespace {

constexpr int address_resolution_ms_max = 2000;
constexpr int listen_backlog = 128;
// One-sided operations an accepting side may have under way on one connection.
constexpr unsigned accepting_rdma_max = 128;
// Nothing tells a program of a new device, so while one is missed somebody has to look.
constexpr auto look_interval = std::chrono::seconds(1);
// Without sleep in between, the event channel is looked at every so many polls: each look is a system call.
constexpr unsigned polls_between_cm_looks = 256;
constexpr unsigned cm_events_at_once = 64;

sockaddr* as_sockaddr(sockaddr_storage& address) { return reinterpret_cast<sockaddr*>(&address); }

void destroy_on_worker(VerbsFabric& fabric, CmId id, Farewell farewell) {
    id.id->context = nullptr;
    fabric.devices().run([&devices = fabric.devices(), id = std::move(id), farewell]() mutable {
        devices.destroy(std::move(id), farewell);
    });
}

class VerbsConnectRequest final : public ConnectRequest {
public:
    VerbsConnectRequest(VerbsFabric& fabric, const CmEvent& event, LocalPort port)
        : fabric_(fabric), event_(event), port_(std::move(port)), id_{fabric.event_channel(), event.id},
          peer_(to_string(rdma_get_peer_addr(event.id))) {}
    VerbsConnectRequest(const VerbsConnectRequest&) = delete;
    VerbsConnectRequest& operator=(const VerbsConnectRequest&) = delete;
    ~VerbsConnectRequest() override {
        if (id_.id) VerbsConnectRequest::reject({});
    }

    std::span<const std::byte> private_data() const override { return event_.private_data(); }
    const LocalPort& local_port() const override { return port_; }
    std::string peer() const override { return peer_; }

    Connection& accept(const ConnectionLimits& limits, const ReceiveRing& ring, std::span<const std::byte> private_data,
                       ConnectionHandler& handler) override {
        SRPFS_ASSERT(id_.id != nullptr);
        auto connection = std::make_unique<VerbsConnection>(fabric_, handler, limits, std::exchange(id_, {}), peer_,
                                                            VerbsConnection::Side{false, 0, accepting_rdma_max});
        connection->start_accepting(ring, private_data, event_.parameters);
        return fabric_.adopt(std::move(connection));
    }

    void reject(std::span<const std::byte> private_data) override {
        SRPFS_ASSERT(id_.id != nullptr);
        SRPFS_ASSERT(private_data.size() <= reject_bytes_max);
        CmId id = std::exchange(id_, {});
        const auto now = read_local_port(port_.device, port_.port);
        const bool may_say = now && now->active;
        if (may_say && rdma_reject(id.id, private_data.data(), static_cast<std::uint8_t>(private_data.size())) != 0)
            log::debug(peer_, "the rejection was not sent: {}", std::strerror(errno));
        destroy_on_worker(fabric_, std::move(id), Farewell::message);
    }

private:
    VerbsFabric& fabric_;
    const CmEvent event_;
    const LocalPort port_;
    CmId id_;  // null after accept() and reject()
    const std::string peer_;
};

class VerbsListener final : public Listener, private CmEventTarget {
public:
    VerbsListener(VerbsFabric& fabric, ListenHandler& handler, CmId id)
        : fabric_(fabric), handler_(handler), id_(std::move(id)) {
        id_.id->context = static_cast<CmEventTarget*>(this);
    }
    VerbsListener(const VerbsListener&) = delete;
    VerbsListener& operator=(const VerbsListener&) = delete;
    ~VerbsListener() override { stop(); }

private:
    void on_cm_event(const CmEvent& event) override {
        if (event.type == RDMA_CM_EVENT_CONNECT_REQUEST) return on_request(event);
        if (event.type != RDMA_CM_EVENT_DEVICE_REMOVAL) return;
        log::warning("verbs", "listening ends: the RDMA device failed or was removed");
        if (event.id->verbs) fabric_.devices().remove(device_name(event.id->verbs->device));
        stop();
    }
    void on_request(const CmEvent& event) {
        const unsigned number = event.id->port_num;
        const std::string device = event.id->verbs ? ibv_get_device_name(event.id->verbs->device) : "";
        auto port = read_local_port(device, number);
        if (!port) {
            port.emplace();
            port->device = device;
            port->port = number;
        }
        handler_.on_request(std::make_unique<VerbsConnectRequest>(fabric_, event, *std::move(port)));
    }
    void stop() {
        if (id_.id) destroy_on_worker(fabric_, std::exchange(id_, {}), Farewell::none);
    }

    VerbsFabric& fabric_;
    ListenHandler& handler_;
    CmId id_;  // null when stopped
};

}  // namespace

VerbsFabric::VerbsFabric(reactor::Executor& executor, std::shared_ptr<Devices> devices,
                         std::shared_ptr<EventChannel> channel)
    : look_timer_(executor.timers(), [this] { look_for_removed(); }), executor_(executor), devices_(std::move(devices)),
      event_channel_(std::move(channel)), self_(std::make_shared<VerbsFabric*>(this)) {
    // Events of devices come on their threads; what they do happens on ours.
    subscription_ =
        devices_->subscribe([this](const DeviceEvent& event) { post([this, event] { on_device_event(event); }); });
}

VerbsFabric::~VerbsFabric() {
    SRPFS_ASSERT(connections_.empty());
    devices_->unsubscribe(subscription_);
}

void VerbsFabric::on_device_event(const DeviceEvent& event) {
    for (std::size_t i = 0; i < connections_.size(); ++i) connections_[i]->on_device_event(event);
    switch (event.kind) {
        case DeviceEvent::Kind::port_error: return tell_port(event.port, PortChange::down);
        case DeviceEvent::Kind::port_active: return tell_port(event.port, PortChange::active);
        case DeviceEvent::Kind::queue_pair_failed:
        case DeviceEvent::Kind::queue_failed: return;
        case DeviceEvent::Kind::removed: break;
    }
    LocalPort gone;
    gone.device = event.device.name;
    gone.port = 0;
    tell_port(gone, PortChange::removed);
    if (std::find(removed_.begin(), removed_.end(), gone.device) == removed_.end()) removed_.push_back(gone.device);
    if (!watchers_.empty()) look_timer_.arm_after(look_interval);
}

void VerbsFabric::watch_ports(PortListener& listener) {
    watchers_.push_back(&listener);
    if (!removed_.empty() && !look_timer_.armed()) look_timer_.arm_after(look_interval);
}

void VerbsFabric::unwatch_ports(PortListener& listener) {
    std::replace(watchers_.begin(), watchers_.end(), &listener, static_cast<PortListener*>(nullptr));
}

void VerbsFabric::tell_port(const LocalPort& port, PortChange change) {
    for (std::size_t i = 0; i < watchers_.size(); ++i)
        if (watchers_[i]) watchers_[i]->on_port_change(port, change);
    std::erase(watchers_, nullptr);
}

void VerbsFabric::look_for_removed() {
    std::erase(watchers_, nullptr);
    if (removed_.empty() || watchers_.empty()) return;
    look_timer_.arm_after(look_interval);
    std::vector<LocalPort> back;
    for (const LocalPort& port : read_local_ports())
        if (port.active && std::find(removed_.begin(), removed_.end(), port.device) != removed_.end())
            back.push_back(port);
    for (const LocalPort& port : back) {
        log::info(port.device, "the RDMA device is back, port {} is active", port.port);
        tell_port(port, PortChange::active);
    }
    for (const LocalPort& port : back) std::erase(removed_, port.device);
    if (removed_.empty()) look_timer_.disarm();
}

std::vector<LocalPort> VerbsFabric::local_ports() { return read_local_ports(); }

Result<RegionId> VerbsFabric::register_memory(std::span<std::byte> memory, RemoteAccess access) {
    return devices_->add_region(memory, access);
}

void VerbsFabric::unregister_memory(RegionId region) { devices_->remove_region(region); }

Result<Connection*> VerbsFabric::connect(const Address& address, const ConnectionLimits& limits,
                                         ConnectionHandler& handler) {
    const std::string peer = fabric::to_string(address);
    auto cm = cm_address(address);
    if (!cm) return Error{cm.error().errno_value(), fmt::format("{}: {}", peer, cm.error().context)};
    rdma_cm_id* raw = nullptr;
    if (rdma_create_id(event_channel_->get(), &raw, nullptr, cm->port_space) != 0)
        return Error{errno, fmt::format("{}: the connection manager gives out no id: {}", peer, std::strerror(errno))};
    auto connection = std::make_unique<VerbsConnection>(*this, handler, limits, CmId{event_channel_, raw}, peer,
                                                        VerbsConnection::Side{true, cm->request_bytes_max, 0});
    if (rdma_resolve_addr(raw, cm->source ? as_sockaddr(*cm->source) : nullptr, as_sockaddr(cm->destination),
                          address_resolution_ms_max) != 0) {
        const End failure = address_error(peer, -errno, observe_environment());
        destroy_on_worker(*this, {event_channel_, raw}, Farewell::none);
        return Error{failure.errno_value, failure.text};
    }
    return &adopt(std::move(connection));
}

Result<std::unique_ptr<Listener>> VerbsFabric::listen(const Address& address, ListenHandler& handler) {
    const std::string name = fabric::to_string(address);
    auto cm = cm_listen_address(address);
    if (!cm) return Error{cm.error().errno_value(), fmt::format("{}: {}", name, cm.error().context)};
    rdma_cm_id* raw = nullptr;
    if (rdma_create_id(event_channel_->get(), &raw, nullptr, cm->port_space) != 0)
        return Error{errno, fmt::format("{}: the connection manager gives out no id: {}", name, std::strerror(errno))};
    if (rdma_bind_addr(raw, as_sockaddr(cm->destination)) != 0 || rdma_listen(raw, listen_backlog) != 0) {
        const int failure = errno;
        destroy_on_worker(*this, {event_channel_, raw}, Farewell::none);
        return Error{failure, fmt::format("cannot listen on {}: {}{}", name, std::strerror(failure),
                                          failure == ENODEV ? " (no RDMA device has this address)" : "")};
    }
    return std::unique_ptr<Listener>(std::make_unique<VerbsListener>(*this, handler, CmId{event_channel_, raw}));
}

void VerbsFabric::post(std::function<void()> work) {
    executor_.post([self = std::weak_ptr(self_), work = std::move(work)]() mutable {
        if (const auto fabric = self.lock()) (*fabric)->inbox_.push_back(std::move(work));
    });
}

std::shared_ptr<CompletionChannel> VerbsFabric::channel_of(const DeviceName& device) {
    for (const auto& known : channels_)
        if (auto channel = known.lock();
            channel && channel->device().name() == device && !channel->device().is_removed())
            return channel;
    return nullptr;
}

void VerbsFabric::keep(const std::shared_ptr<CompletionChannel>& channel) {
    std::erase_if(channels_, [](const auto& known) { return known.expired(); });
    const bool is_known =
        std::any_of(channels_.begin(), channels_.end(), [&](const auto& known) { return known.lock() == channel; });
    if (!is_known) channels_.push_back(channel);
}

VerbsConnection& VerbsFabric::adopt(std::unique_ptr<VerbsConnection> connection) {
    return *connections_.emplace_back(std::move(connection));
}

void VerbsFabric::erase(VerbsConnection& connection) {
    std::erase(sending_, &connection);
    std::erase_if(connections_, [&](const auto& owned) { return owned.get() == &connection; });
}

unsigned VerbsFabric::poll(unsigned completions_max) {
    unsigned done = run_inbox();
    if (may_have_completion_events_) consume_completion_events();
    unsigned completions = 0;
    const std::size_t count = connections_.size();  // handlers may add some, which have nothing yet
    for (std::size_t i = 0; i < count && completions < completions_max; ++i)
        completions += connections_[(first_polled_ + i) % count]->poll(completions_max - completions);
    ++first_polled_;
    done += completions;
    // Looking at the event channel costs a system call, and a busy reactor need not look each time: what is missed
    // keeps it from falling asleep.
    if ((may_have_cm_events_ && done == 0) || ++polls_since_cm_ >= polls_between_cm_looks) {
        polls_since_cm_ = 0;
        done += handle_cm_events();
    }
    may_have_completion_events_ = may_have_cm_events_ = false;
    return done + deliver_ends();
}

unsigned VerbsFabric::run_inbox() {
    if (inbox_.empty()) return 0;
    inbox_running_.swap(inbox_);
    for (auto& work : inbox_running_) work();
    const auto done = static_cast<unsigned>(inbox_running_.size());
    inbox_running_.clear();
    return done;
}

void VerbsFabric::consume_completion_events() {
    for (const auto& known : channels_) {
        const auto channel = known.lock();
        if (!channel) continue;
        ibv_cq* queue = nullptr;
        void* context = nullptr;
        while (channel->armed > 0 && ibv_get_cq_event(channel->get(), &queue, &context) == 0) {
            // At once: destroying the queue waits for it. The queue's connection is there until we erase it.
            auto* connection = static_cast<VerbsConnection*>(context);
            ibv_ack_cq_events(queue, 1);
            connection->on_completion_event();
        }
    }
}

unsigned VerbsFabric::handle_cm_events() {
    unsigned done = 0;
    while (done < cm_events_at_once && handle_cm_event()) ++done;
    return done;
}

bool VerbsFabric::handle_cm_event() {
    rdma_cm_event* raw = nullptr;
    if (rdma_get_cm_event(event_channel_->get(), &raw) != 0) {
        if (errno != EAGAIN && errno != EINTR) log::warning("verbs", "no connection event: {}", std::strerror(errno));
        return false;
    }
    CmEvent event;
    event.type = raw->event;
    event.status = raw->status;
    event.id = raw->id;
    event.parameters = raw->param.conn;
    event.private_data_size = raw->param.conn.private_data ? std::min<std::size_t>(raw->param.conn.private_data_len,
                                                                                   event.private_data_bytes.size())
                                                           : 0;
    if (event.private_data_size > 0)
        std::memcpy(event.private_data_bytes.data(), raw->param.conn.private_data, event.private_data_size);
    event.parameters.private_data = nullptr;

    const bool is_request = event.type == RDMA_CM_EVENT_CONNECT_REQUEST;
    auto* const target = static_cast<CmEventTarget*>(is_request ? raw->listen_id->context : raw->id->context);
    if (is_request) raw->id->context = nullptr;  // a copy of the listener's
    std::optional<DeviceName> removed;
    if (event.type == RDMA_CM_EVENT_DEVICE_REMOVAL && !target && raw->id->verbs)
        removed = device_name(raw->id->verbs->device);
    rdma_ack_cm_event(raw);

    if (target)
        target->on_cm_event(event);
    else if (is_request)
        destroy_on_worker(*this, {event_channel_, event.id}, Farewell::message);
    else if (removed)
        devices_->remove(*removed);
    return true;
}

unsigned VerbsFabric::deliver_ends() {
    if (ending_.empty()) return 0;
    ending_now_.swap(ending_);
    for (VerbsConnection* connection : ending_now_) connection->deliver_end();
    const auto done = static_cast<unsigned>(ending_now_.size());
    ending_now_.clear();
    return done;
}

void VerbsFabric::flush() {
    // A post that fails only marks the connection's end.
    for (VerbsConnection* connection : sending_) connection->flush();
    sending_.clear();
}

bool VerbsFabric::arm() {
    bool is_idle = ending_.empty() && inbox_.empty() && sending_.empty();
    // Left there, it would wake us at once.
    if (std::any_of(connections_.begin(), connections_.end(), [](const auto& it) { return it->has_old_event(); }))
        consume_completion_events();
    for (const auto& connection : connections_) is_idle = connection->arm() && is_idle;
    is_idle = is_idle && ending_.empty();
    if (is_idle) may_have_completion_events_ = may_have_cm_events_ = true;
    return is_idle;
}

void VerbsFabric::sleep_on(std::vector<int>& fds) {
    fds.push_back(event_channel_->get()->fd);
    for (const auto& known : channels_)
        if (const auto channel = known.lock()) fds.push_back(channel->fd());
}

void VerbsFabric::woken(std::span<const int> readable) {
    const auto is_readable = [&](int fd) { return std::find(readable.begin(), readable.end(), fd) != readable.end(); };
    may_have_cm_events_ = is_readable(event_channel_->get()->fd);
    may_have_completion_events_ = std::any_of(channels_.begin(), channels_.end(), [&](const auto& known) {
        const auto channel = known.lock();
        return channel && is_readable(channel->fd());
    });
}

}  // namespace verbs

Result<std::unique_ptr<Fabric>> make_verbs_fabric(reactor::Executor& executor, Registration registration,
                                                  CompletionModeration moderation) {
    const auto environment = verbs::observe_environment();
    if (!environment.has_user_device) return verbs::cm_unavailable(ENODEV, environment);
    rdma_event_channel* raw = rdma_create_event_channel();
    if (!raw) return verbs::cm_unavailable(errno, environment);
    auto channel = std::make_shared<verbs::EventChannel>(raw);
    if (fcntl(raw->fd, F_SETFL, fcntl(raw->fd, F_GETFL) | O_NONBLOCK) < 0)
        return Error{errno, fmt::format("the connection manager's descriptor cannot be made non-blocking: {}",
                                        std::strerror(errno))};
    auto devices = verbs::Devices::shared();
    devices->set_registration(registration);
    devices->set_moderation(moderation);
    return std::unique_ptr<Fabric>(
        std::make_unique<verbs::VerbsFabric>(executor, std::move(devices), std::move(channel)));
}

std::vector<LocalPort> verbs_local_ports() { return verbs::read_local_ports(); }

}  // namespace srpfs::fabric
