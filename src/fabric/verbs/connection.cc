// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "connection.h"

#include "explain.h"
#include "local_ports.h"
#include "verbs_fabric.h"

#include <srpfs/base/log.h>

#include <fcntl.h>

#include <cstring>

namespace srpfs::fabric::verbs {
namespace {

// How long the peer has to answer our DREQ; its own answer comes from its kernel, so silence means that it is gone.
constexpr auto disconnect_time_max = std::chrono::seconds(2);
constexpr int route_resolution_ms_max = 2000;
// RDMA reads the peer may have under way at once: 4 is what SRP targets ask for, more lets others overlap more.
constexpr int responder_resources_wanted = 16;
// Receiver-not-ready: try again without end, as soon as 0.64 ms (code 12) after a refusal. It only happens when a peer
// exceeds its credits; the connection manager's default of 655 ms would be an outage.
constexpr std::uint8_t rnr_retry_infinite = 7;
constexpr std::uint8_t rnr_timer = 12;
// Small messages travel inside the work request; more room would make every request longer.
constexpr unsigned inline_bytes_wanted = 128;
constexpr std::size_t cache_line = 64;

// Work request ids: what kind in the top bit, the receive slot or the ledger's ordinal below.
constexpr std::uint64_t receive_flag = std::uint64_t{1} << 63;

// Bits of the attribute mask that the kernel's connection manager sets for RoCE and that old kernels set for
// InfiniBand as well (librdmacm clears them the same way).
constexpr int roce_only_attributes = 0xe00000;

End from_error(const std::string& peer, const Error& error) {
    End end;
    end.errno_value = error.errno_value();
    end.reason = end.errno_value == ENETDOWN ? EndReason::unreachable
                 : end.errno_value == ENODEV ? EndReason::device_removed
                                             : EndReason::local_error;
    end.text = fmt::format("{}: {}", peer, error.context);
    return end;
}

std::uint8_t limited(int value, int limit) {
    return static_cast<std::uint8_t>(std::clamp(value, 0, std::min(limit, 255)));
}

// Before the device is known, so that the queues can be made on a worker.
unsigned windows_wanted(VerbsFabric& fabric, const ConnectionLimits& limits, const VerbsConnection::Side& side) {
    return side.is_initiating && fabric.devices().registration() == Registration::window ? limits.sends_max : 0;
}

Error errno_error(int errno_value, const char* what) {
    return {errno_value, fmt::format("{} failed: {}", what, std::strerror(errno_value))};
}

}  // namespace

Result<std::shared_ptr<CompletionChannel>> CompletionChannel::make(std::shared_ptr<Device> device) {
    ibv_comp_channel* channel = ibv_create_comp_channel(device->context());
    if (!channel) return errno_error(errno, "creating a completion channel");
    auto result = std::make_shared<CompletionChannel>(std::move(device), channel);
    if (fcntl(channel->fd, F_SETFL, fcntl(channel->fd, F_GETFL) | O_NONBLOCK) < 0)
        return errno_error(errno, "making a completion channel non-blocking");
    return result;
}

CompletionChannel::~CompletionChannel() {
    if (const int failure = ibv_destroy_comp_channel(channel_)) report_not_destroyed("ibv_comp_channel", failure);
}

Result<MessageBuffer> MessageBuffer::make(Devices& devices, Device& device, unsigned count, unsigned bytes_each) {
    constexpr std::size_t page = 4096;
    MessageBuffer buffer;
    buffer.count_ = count;
    buffer.bytes_each_ = bytes_each;
    buffer.stride_ = (std::size_t{bytes_each} + cache_line - 1) / cache_line * cache_line;
    const std::size_t size = (std::max<std::size_t>(buffer.stride_ * count, 1) + page - 1) / page * page;
    buffer.memory_.reset(static_cast<std::byte*>(std::aligned_alloc(page, size)));
    if (!buffer.memory_) return Error{ENOMEM, fmt::format("no memory for {} of messages", bytes_text(size))};
    std::memset(buffer.memory_.get(), 0, size);
    auto region = devices.register_local(device, {buffer.memory_.get(), size});
    if (!region) return region.error();
    buffer.region_ = *std::move(region);
    return buffer;
}

VerbsConnection::VerbsConnection(VerbsFabric& fabric, ConnectionHandler& handler, const ConnectionLimits& limits,
                                 CmId id, std::string peer, const Side& side)
    : handler_(handler), ledger_(std::max(limits.sends_max, 1u), side.rdma_max, windows_wanted(fabric, limits, side)),
      sends_(ledger_.entries()), send_pieces_(ledger_.entries()), fabric_(fabric), limits_(limits), side_(side),
      id_(std::move(id)), peer_(std::move(peer)), disconnect_timer_(fabric.timers(), [this] {
          log::debug(peer_, "no answer to the disconnect request; destroying the connection");
          destroy();
      }) {
    id_.id->context = static_cast<CmEventTarget*>(this);
    // Matters to the kernel before the route is resolved; refused only by kernels that do not know it.
    if (limits_.ack_timeout) {
        std::uint8_t exponent = *limits_.ack_timeout;
        if (rdma_set_option(id_.id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &exponent, sizeof exponent) != 0)
            log::warning(peer_, "the ACK timeout cannot be set ({}); the default stays", std::strerror(errno));
    }
}

VerbsConnection::~VerbsConnection() { SRPFS_ASSERT(!busy_); }

// --- Coming up --------------------------------------------------------------------------------------------------

void VerbsConnection::on_cm_event(const CmEvent& event) {
    switch (event.type) {
        case RDMA_CM_EVENT_ADDR_RESOLVED: return on_address_resolved();
        case RDMA_CM_EVENT_ROUTE_RESOLVED: return on_route_resolved();
        case RDMA_CM_EVENT_CONNECT_RESPONSE: return on_reply(event);
        case RDMA_CM_EVENT_ESTABLISHED:
            // iWARP has no third message: the reply itself establishes.
            if (state_ == State::connecting) return on_reply(event);
            is_confirmed_ = true;
            if (state_ == State::accepting) enter_established();
            return;
        case RDMA_CM_EVENT_ADDR_ERROR: return end(address_error(peer_, event.status, observe_environment()));
        case RDMA_CM_EVENT_ROUTE_ERROR: return end(route_error(peer_, event.status));
        case RDMA_CM_EVENT_CONNECT_ERROR:
        case RDMA_CM_EVENT_UNREACHABLE: return end(unreachable(peer_, event.status));
        case RDMA_CM_EVENT_REJECTED: return end(rejected(peer_, event.status, event.private_data()));
        case RDMA_CM_EVENT_DISCONNECTED: return on_disconnected();
        case RDMA_CM_EVENT_DEVICE_REMOVAL:
            if (id_.id->verbs) fabric_.devices().remove(device_name(id_.id->verbs->device));
            return on_device_removed();
        // The kernel's own affair, and what unreliable datagrams have.
        case RDMA_CM_EVENT_ADDR_CHANGE:
        case RDMA_CM_EVENT_TIMEWAIT_EXIT:
        case RDMA_CM_EVENT_CONNECT_REQUEST:
        case RDMA_CM_EVENT_MULTICAST_JOIN:
        case RDMA_CM_EVENT_MULTICAST_ERROR: return;
    }
}

void VerbsConnection::on_address_resolved() {
    if (state_ != State::resolving_address || end_) return;
    state_ = State::resolving_route;
    const DeviceName name = device_name(id_.id->verbs->device);
    const unsigned port = id_.id->port_num;
    on_worker([this, name, port, channel = fabric_.channel_of(name)] {
        auto made = std::make_shared<Result<Resources>>(make_resources(name, port, channel, nullptr));
        int route_failure = 0;
        // Here, because librdmacm may ask a daemon (ibacm) first.
        if (*made && rdma_resolve_route(id_.id, route_resolution_ms_max) != 0) route_failure = errno;
        fabric_.post([this, made, route_failure] {
            busy_ = false;
            if (*made) adopt(*std::move(*made));
            if (has_ended_) return leave();
            if (end_) return;
            if (!*made) return end(from_error(peer_, made->error()));
            if (route_failure != 0) return end(route_error(peer_, -route_failure));
            request_when_ready();
        });
    });
}

void VerbsConnection::on_route_resolved() {
    has_route_ = true;
    request_when_ready();
}

void VerbsConnection::adopt(Resources&& resources) {
    resources_ = std::move(resources);
    windows_.resize(resources_.windows.size());
    free_windows_.reserve(windows_.size());
    for (std::size_t i = windows_.size(); i-- > 0;) {
        windows_[i].key = resources_.windows[i]->rkey;
        free_windows_.push_back(static_cast<std::uint32_t>(i));
    }
    fabric_.keep(resources_.channel);
    has_resources_ = true;
}

void VerbsConnection::request_when_ready() {
    if (!has_route_ || !has_resources_ || end_ || state_ != State::resolving_route) return;
    const auto request = handler_.on_route(resources_.port);
    if (end_) return;
    if (request.empty()) return refuse("not connected: refused on this side");
    if (request.size() > side_.request_bytes_max)
        return end_locally(EMSGSIZE, fmt::format("a connect request of {} bytes is too long: {} fit", request.size(),
                                                 side_.request_bytes_max));
    if (!resources_.device->is_port_active(resources_.port.port))
        return end_with(EndReason::unreachable, ENETDOWN, port_down(resources_.port).text);

    rdma_conn_param parameters{};
    parameters.private_data = request.data();
    parameters.private_data_len = static_cast<std::uint8_t>(request.size());
    parameters.responder_resources = static_cast<std::uint8_t>(
        std::clamp(resources_.device->attributes().max_qp_rd_atom, 1, responder_resources_wanted));
    parameters.initiator_depth = 0;  // we never read the peer's memory
    parameters.flow_control = 1;
    parameters.retry_count = static_cast<std::uint8_t>(std::min(limits_.retry_count, 7u));
    parameters.rnr_retry_count = rnr_retry_infinite;
    parameters.qp_num = resources_.queue_pair->qp_num;
    state_ = State::connecting;
    farewell_ = Farewell::message;
    if (rdma_connect(id_.id, &parameters) != 0)
        end_locally(errno, fmt::format("sending the connect request failed: {}", std::strerror(errno)));
}

void VerbsConnection::on_reply(const CmEvent& event) {
    if (state_ != State::connecting || end_) return;
    const auto ring = handler_.on_reply(event.private_data());
    if (end_) return;
    if (!ring) return refuse("the peer's reply was refused on this side");
    if (ring->count == 0 || ring->count > resources_.receives_max)
        return end_locally(EINVAL, fmt::format("{} receive buffers are too many or too few: the queue pair takes {}",
                                               ring->count, resources_.receives_max));
    state_ = State::completing;
    on_worker([this, ring = *ring] {
        auto outcome = std::make_shared<Result<void>>(make_ready(resources_, ring));
        if (*outcome && !resources_.device->is_iwarp() && rdma_establish(id_.id) != 0)
            *outcome = errno_error(errno, "confirming the connection");
        fabric_.post([this, outcome] { on_ready(*outcome); });
    });
}

void VerbsConnection::start_accepting(const ReceiveRing& ring, std::span<const std::byte> private_data,
                                      const rdma_conn_param& requested) {
    state_ = State::completing;
    farewell_ = Farewell::message;
    const DeviceName name = device_name(id_.id->verbs->device);
    const unsigned port = id_.id->port_num;
    on_worker([this, name, port, ring, requested, channel = fabric_.channel_of(name),
               reply = std::vector(private_data.begin(), private_data.end())] {
        auto made = std::make_shared<Result<Resources>>(make_resources(name, port, channel, &ring));
        auto outcome = std::make_shared<Result<void>>();
        if (*made)
            *outcome = accept(**made, ring, reply, requested);
        else
            *outcome = made->error();
        fabric_.post([this, made, outcome] {
            if (*made) adopt(*std::move(*made));
            on_ready(*outcome);
        });
    });
}

void VerbsConnection::on_ready(const Result<void>& outcome) {
    busy_ = false;
    if (has_ended_) return leave();
    if (end_) return;
    if (!outcome) return end(from_error(peer_, outcome.error()));
    state_ = State::accepting;
    if (side_.is_initiating || is_confirmed_) enter_established();
}

void VerbsConnection::enter_established() {
    if (end_) return;
    state_ = State::established;
    handler_.on_established();
}

// --- On a worker ------------------------------------------------------------------------------------------------

void VerbsConnection::on_worker(std::function<void()> job) {
    SRPFS_ASSERT(!busy_);
    busy_ = true;
    fabric_.devices().run(std::move(job));
}

Result<Resources> VerbsConnection::make_resources(const DeviceName& name, unsigned port,
                                                  std::shared_ptr<CompletionChannel> channel, const ReceiveRing* ring) {
    Devices& devices = fabric_.devices();
    auto opened = devices.open(name);
    if (!opened) return opened.error();
    Resources made;
    made.device = opened->device;
    made.regions = opened->regions;
    ibv_context* const context = made.device->context();

    ibv_port_attr port_attributes{};
    if (const int failure = ibv_query_port(context, static_cast<std::uint8_t>(port), &port_attributes))
        return errno_error(failure, "asking for the state of the local port");
    made.operation_bytes_max = port_attributes.max_msg_sz;
    const auto local_port = read_local_port(name.name, port);
    if (!local_port) return Error{ENODEV, fmt::format("there is no RDMA port {} {} any more", name.name, port)};
    made.port = *local_port;
    if (port_attributes.state != IBV_PORT_ACTIVE) return Error{ENETDOWN, port_down(made.port).text};

    made.channel = std::move(channel);
    if (!made.channel || &made.channel->device() != made.device.get()) {
        auto own = CompletionChannel::make(made.device);
        if (!own) return own.error();
        made.channel = *std::move(own);
    }

    auto send_buffer = MessageBuffer::make(devices, *made.device, ledger_.slots(), limits_.message_bytes_max);
    if (!send_buffer) return send_buffer.error();
    made.send_buffer = *std::move(send_buffer);

    // What our own requests ask for is known; how many receives the peer's reply will ask for is not. They cost little.
    const auto& limits = made.device->attributes();
    const unsigned receives_max = ring ? ring->count : std::max(2 * limits_.sends_max, 512u);
    const unsigned sends = ledger_.entries();
    made.receives_max = std::min(receives_max, unsigned(limits.max_qp_wr));
    if (!ring && sends < unsigned(limits.max_cqe))
        made.receives_max = std::min(made.receives_max, unsigned(limits.max_cqe) - sends);
    const unsigned completions = sends + made.receives_max;  // each can complete, and none may be lost
    const int vectors = std::max(context->num_comp_vectors, 1);
    made.completions.reset(ibv_create_cq(context, static_cast<int>(completions), this, made.channel->get(),
                                         static_cast<int>(limits_.completion_vector) % vectors));
    if (!made.completions)
        return Error{errno, fmt::format("creating a completion queue of {} entries on {} failed: {}", completions,
                                        name.name, std::strerror(errno))};
    made.device->moderate(*made.completions);

    if (side_.is_initiating && made.device->uses_windows())
        for (unsigned i = 0; i < limits_.sends_max; ++i) {
            made.windows.emplace_back(ibv_alloc_mw(made.device->domain(), IBV_MW_TYPE_2));
            if (!made.windows.back())
                return Error{errno, fmt::format("allocating memory window {} of {} on {} failed: {}; a smaller "
                                                "queue_size or register=pool needs fewer",
                                                i + 1, limits_.sends_max, name.name, std::strerror(errno))};
        }

    ibv_qp_init_attr wanted{};
    wanted.send_cq = wanted.recv_cq = made.completions.get();
    wanted.qp_type = IBV_QPT_RC;
    wanted.cap.max_send_wr = sends;
    wanted.cap.max_recv_wr = made.receives_max;
    wanted.cap.max_send_sge = wanted.cap.max_recv_sge = 1;
    wanted.cap.max_inline_data = std::min(limits_.message_bytes_max, inline_bytes_wanted);
    ibv_qp_init_attr given = wanted;
    made.queue_pair.reset(ibv_create_qp(made.device->domain(), &given));
    if (!made.queue_pair) {
        given = wanted;
        given.cap.max_inline_data = 0;  // not every device can
        made.queue_pair.reset(ibv_create_qp(made.device->domain(), &given));
    }
    if (!made.queue_pair)
        return Error{errno,
                     fmt::format("creating a queue pair with {} sends and {} receives on {} failed: {}",
                                 wanted.cap.max_send_wr, wanted.cap.max_recv_wr, name.name, std::strerror(errno))};
    made.inline_bytes_max = given.cap.max_inline_data;

    // iWARP wants a queue pair that is ready before the connect request; receives can be posted from here on.
    if (auto outcome = modify(made, IBV_QPS_INIT); !outcome) return outcome.error();
    return made;
}

Result<void> VerbsConnection::make_ready(Resources& resources, const ReceiveRing& ring) {
    auto buffer = MessageBuffer::make(fabric_.devices(), *resources.device, ring.count, ring.bytes_each);
    if (!buffer) return buffer.error();
    resources.receive_buffer = *std::move(buffer);
    // The peer's reply has brought the path and the depths.
    if (auto outcome = modify(resources, IBV_QPS_INIT); !outcome) return outcome;

    receives_.resize(ring.count);
    receive_pieces_.resize(ring.count);
    for (unsigned slot = 0; slot < ring.count; ++slot) collect_receive(resources, slot);
    if (const int failure = post_collected_receives(resources)) return errno_error(failure, "posting receive buffers");

    if (resources.device->is_iwarp()) return {};  // its driver does the rest
    if (auto outcome = modify(resources, IBV_QPS_RTR); !outcome) return outcome;
    return modify(resources, IBV_QPS_RTS);
}

Result<void> VerbsConnection::modify(const Resources& resources, ibv_qp_state state) {
    ibv_qp_attr attributes{};
    attributes.qp_state = state;
    int mask = 0;
    if (rdma_init_qp_attr(id_.id, &attributes, &mask) != 0)
        return errno_error(errno, "asking for the attributes of a queue pair");
    if (mask & IBV_QP_ACCESS_FLAGS)
        attributes.qp_access_flags = side_.is_initiating ? IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE : 0;
    if (resources.port.link_layer == LinkLayer::infiniband) mask &= ~roce_only_attributes;
    const auto& limits = resources.device->attributes();
    if (mask & IBV_QP_MAX_DEST_RD_ATOMIC)
        attributes.max_dest_rd_atomic = limited(attributes.max_dest_rd_atomic, limits.max_qp_rd_atom);
    if (mask & IBV_QP_MAX_QP_RD_ATOMIC)
        attributes.max_rd_atomic = limited(attributes.max_rd_atomic, limits.max_qp_init_rd_atom);
    if (mask & IBV_QP_MIN_RNR_TIMER) attributes.min_rnr_timer = rnr_timer;
    if (const int failure = ibv_modify_qp(resources.queue_pair.get(), &attributes, mask))
        return errno_error(failure, state == IBV_QPS_INIT  ? "initialising a queue pair"
                                    : state == IBV_QPS_RTR ? "making a queue pair ready to receive"
                                                           : "making a queue pair ready to send");
    return {};
}

Result<void> VerbsConnection::accept(Resources& resources, const ReceiveRing& ring,
                                     std::span<const std::byte> private_data, const rdma_conn_param& requested) {
    if (ring.count == 0) return Error{EINVAL, "a connection needs receive buffers"};
    if (private_data.size() > reply_bytes_max)
        return Error{EMSGSIZE,
                     fmt::format("a reply of {} bytes is too long: {} fit", private_data.size(), reply_bytes_max)};
    if (auto outcome = make_ready(resources, ring); !outcome) return outcome;
    const auto& limits = resources.device->attributes();
    rdma_conn_param parameters{};
    parameters.private_data = private_data.data();
    parameters.private_data_len = static_cast<std::uint8_t>(private_data.size());
    // From our point of view: what we let the peer do, and how many reads the peer lets us have under way.
    parameters.responder_resources = limited(requested.responder_resources, limits.max_qp_rd_atom);
    parameters.initiator_depth = limited(requested.initiator_depth, limits.max_qp_init_rd_atom);
    parameters.flow_control = 1;
    parameters.rnr_retry_count = rnr_retry_infinite;
    parameters.qp_num = resources.queue_pair->qp_num;
    if (!resources.device->is_port_active(resources.port.port)) return Error{ENETDOWN, port_down(resources.port).text};
    if (rdma_accept(id_.id, &parameters) != 0) return errno_error(errno, "accepting the connection");
    return {};
}

// --- Messages ---------------------------------------------------------------------------------------------------

ibv_send_wr& VerbsConnection::collect(const SendLedger::Entry& entry, const void* local, std::size_t size,
                                      std::uint32_t key) {
    if (collected_sends_ == 0) fabric_.has_sends(*this);
    ibv_sge& piece = send_pieces_[collected_sends_];
    ibv_send_wr& request = sends_[collected_sends_++];
    piece.addr = reinterpret_cast<std::uintptr_t>(local);
    piece.length = static_cast<std::uint32_t>(size);
    piece.lkey = key;
    request = {};
    request.wr_id = entry.ordinal;
    request.sg_list = &piece;
    request.num_sge = size == 0 ? 0 : 1;
    request.send_flags = 0;
    if (entry.signalled) request.send_flags |= IBV_SEND_SIGNALED;
    if (entry.fenced) request.send_flags |= IBV_SEND_FENCE;
    return request;
}

bool VerbsConnection::send(std::span<const std::byte> head, std::span<const std::byte> payload) {
    const std::size_t size = head.size() + payload.size();
    if (state_ != State::established || end_ || size > limits_.message_bytes_max) [[unlikely]]
        return false;
    const auto entry = ledger_.take_message();
    if (!entry) [[unlikely]]
        return false;

    std::byte* const slot = resources_.send_buffer.slot(entry->slot);
    if (!head.empty()) std::memcpy(slot, head.data(), head.size());
    if (!payload.empty()) std::memcpy(slot + head.size(), payload.data(), payload.size());
    ibv_send_wr& request = collect(*entry, slot, size, resources_.send_buffer.key());
    request.opcode = IBV_WR_SEND;
    if (size <= resources_.inline_bytes_max) request.send_flags |= IBV_SEND_INLINE;
    return true;
}

const RegionKeys* VerbsConnection::keys_of(RegionId region, std::span<const std::byte> bytes) const {
    if (!has_resources_) return nullptr;
    const auto index = static_cast<std::size_t>(region);
    if (index >= resources_.regions->size()) return nullptr;
    const RegionKeys& keys = (*resources_.regions)[index];
    // Compared as numbers: `bytes` may be from anywhere.
    const auto begin = reinterpret_cast<std::uintptr_t>(keys.begin);
    const auto first = reinterpret_cast<std::uintptr_t>(bytes.data());
    const bool is_inside =
        keys.begin && first >= begin && bytes.size() <= keys.size && first - begin <= keys.size - bytes.size();
    return is_inside ? &keys : nullptr;
}

std::optional<RemoteBuffer> VerbsConnection::describe(RegionId region, std::span<const std::byte> bytes) const {
    const RegionKeys* keys = keys_of(region, bytes);
    if (!keys || bytes.size() > UINT32_MAX) [[unlikely]]
        return std::nullopt;
    return RemoteBuffer{reinterpret_cast<std::uintptr_t>(bytes.data()), keys->remote_key,
                        static_cast<std::uint32_t>(bytes.size())};
}

std::optional<Grant> VerbsConnection::grant(RegionId region, std::span<const std::byte> bytes, RemoteAccess access) {
    auto remote = describe(region, bytes);
    if (!remote || windows_.empty()) return remote ? std::optional(Grant{*remote, std::nullopt}) : std::nullopt;
    if (state_ != State::established || end_ || free_windows_.empty() || bytes.empty()) [[unlikely]]
        return std::nullopt;
    const std::uint32_t index = free_windows_.back();
    free_windows_.pop_back();
    Window& window = windows_[index];
    // Drivers find the window by the key it has, and leave it to us to write down the new one.
    resources_.windows[index]->rkey = window.key;
    remote->key = window.key = ibv_inc_rkey(window.key);  // its low byte counts
    // Done by the device before it sends what is posted after it.
    ibv_send_wr& request = collect(ledger_.take_bind(), nullptr, 0, 0);
    request.opcode = IBV_WR_BIND_MW;
    request.bind_mw.mw = resources_.windows[index].get();
    request.bind_mw.rkey = window.key;
    request.bind_mw.bind_info.mr = keys_of(region, bytes)->region;
    request.bind_mw.bind_info.addr = remote->address;
    request.bind_mw.bind_info.length = remote->length;
    request.bind_mw.bind_info.mw_access_flags =
        access == RemoteAccess::read ? IBV_ACCESS_REMOTE_READ : IBV_ACCESS_REMOTE_WRITE;
    return Grant{*remote, index};
}

bool VerbsConnection::revoke(const Grant& grant, std::uint64_t context) {
    if (!grant.window) return true;
    if (state_ != State::established || end_) return false;  // the queue pair's end closes it
    windows_[*grant.window].context = context;
    ibv_send_wr& request = collect(ledger_.take_invalidate(*grant.window), nullptr, 0, 0);
    request.opcode = IBV_WR_LOCAL_INV;
    request.invalidate_rkey = windows_[*grant.window].key;
    return false;
}

bool VerbsConnection::rdma(SendLedger::Kind kind, RegionId region, std::span<const std::byte> local,
                           const RemoteBuffer& remote, std::uint64_t context) {
    if (state_ != State::established || end_) return false;
    const RegionKeys* keys = keys_of(region, local);
    if (!keys || local.size() > resources_.operation_bytes_max || local.size() > remote.length) [[unlikely]] {
        end_locally(EINVAL, fmt::format("an RDMA operation of {} bytes is outside its memory region or the peer's "
                                        "buffer of {}, or longer than the {} of the device",
                                        local.size(), remote.length, resources_.operation_bytes_max));
        return false;
    }
    const auto entry = ledger_.take_rdma(kind, context);
    if (!entry) return false;
    ibv_send_wr& request = collect(*entry, local.data(), local.size(), keys->local_key);
    request.opcode = kind == SendLedger::Kind::rdma_read ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE;
    request.wr.rdma.remote_addr = remote.address;
    request.wr.rdma.rkey = remote.key;
    return true;
}

bool VerbsConnection::rdma_write(RegionId region, std::span<const std::byte> local, const RemoteBuffer& remote,
                                 std::uint64_t context) {
    return rdma(SendLedger::Kind::rdma_write, region, local, remote, context);
}

bool VerbsConnection::rdma_read(RegionId region, std::span<std::byte> local, const RemoteBuffer& remote,
                                std::uint64_t context) {
    return rdma(SendLedger::Kind::rdma_read, region, local, remote, context);
}

void VerbsConnection::flush() {
    const unsigned count = std::exchange(collected_sends_, 0);
    if (count == 0 || state_ != State::established) return;
    for (unsigned i = 0; i + 1 < count; ++i) sends_[i].next = &sends_[i + 1];
    sends_[count - 1].next = nullptr;
    ibv_send_wr* refused = nullptr;
    if (const int failure = ibv_post_send(resources_.queue_pair.get(), sends_.data(), &refused)) [[unlikely]]
        end_with(EndReason::transport_error, failure,
                 fmt::format("posting to the send queue failed: {}", std::strerror(failure)));
}

void VerbsConnection::collect_receive(const Resources& resources, unsigned slot) {
    ibv_sge& piece = receive_pieces_[collected_receives_];
    ibv_recv_wr& request = receives_[collected_receives_++];
    piece = {reinterpret_cast<std::uintptr_t>(resources.receive_buffer.slot(slot)),
             resources.receive_buffer.bytes_each(), resources.receive_buffer.key()};
    request = {receive_flag | slot, nullptr, &piece, 1};
}

int VerbsConnection::post_collected_receives(const Resources& resources) {
    const unsigned count = std::exchange(collected_receives_, 0);
    if (count == 0) return 0;
    for (unsigned i = 0; i + 1 < count; ++i) receives_[i].next = &receives_[i + 1];
    ibv_recv_wr* refused = nullptr;
    return ibv_post_recv(resources.queue_pair.get(), receives_.data(), &refused);
}

unsigned VerbsConnection::poll(unsigned completions_max) {
    if (!is_live()) return 0;
    if (completions_begin_ == completions_end_) {
        completions_begin_ = 0;
        completions_end_ = ibv_poll_cq(resources_.completions.get(), completions_at_once, completions_.data());
        if (completions_end_ < 0) [[unlikely]] {
            completions_end_ = 0;
            end_with(EndReason::transport_error, EIO, "polling the completion queue failed");
            return 1;
        }
        has_completed_ = has_completed_ || completions_end_ > 0;
    }
    unsigned done = 0;
    // The handler may end the connection: the rest is nobody's then.
    for (; completions_begin_ != completions_end_ && done < completions_max && is_live(); ++done)
        handle(completions_[static_cast<std::size_t>(completions_begin_++)]);
    if (end_) {
        collected_receives_ = 0;
    } else if (const int failure = post_collected_receives(resources_)) [[unlikely]] {
        end_with(EndReason::transport_error, failure,
                 fmt::format("posting receive buffers failed: {}", std::strerror(failure)));
    }
    return done;
}

void VerbsConnection::handle(const ibv_wc& completion) {
    if (completion.status != IBV_WC_SUCCESS) [[unlikely]]
        return fail(completion);
    if (completion.wr_id & receive_flag) {
        if (state_ == State::accepting) [[unlikely]] {
            // The peer's confirmation is late or lost: a message says the same.
            rdma_notify(id_.id, IBV_EVENT_COMM_EST);
            enter_established();
            if (end_) return;
        }
        const auto slot = static_cast<unsigned>(completion.wr_id & ~receive_flag);
        handler_.on_received({resources_.receive_buffer.slot(slot), completion.byte_len});
        collect_receive(resources_, slot);
    } else if (ledger_.is_taken(completion.wr_id)) {
        const auto kind = ledger_.kind(completion.wr_id);
        const auto context = ledger_.completed(completion.wr_id);
        if (!context) return;
        if (kind != SendLedger::Kind::invalidate) return handler_.on_rdma_done(*context);
        free_windows_.push_back(static_cast<std::uint32_t>(*context));
        handler_.on_revoked(windows_[*context].context);
    }
}

void VerbsConnection::fail(const ibv_wc& completion) {
    Operation operation = Operation::receive;
    if (!(completion.wr_id & receive_flag) && ledger_.is_taken(completion.wr_id)) {
        switch (ledger_.kind(completion.wr_id)) {
            case SendLedger::Kind::message: operation = Operation::send; break;
            case SendLedger::Kind::rdma_read: operation = Operation::rdma_read; break;
            case SendLedger::Kind::rdma_write: operation = Operation::rdma_write; break;
            case SendLedger::Kind::bind: operation = Operation::bind; break;
            case SendLedger::Kind::invalidate: operation = Operation::invalidate; break;
        }
    }
    End failure = completion_error(peer_, operation, completion.status, completion.vendor_err);
    if (!resources_.device->is_port_active(resources_.port.port))
        failure.text += "; " + port_down(resources_.port).text;
    end(std::move(failure));
}

bool VerbsConnection::arm() {
    if (!is_live()) return true;
    if (completions_begin_ != completions_end_) return false;
    if (armed_) return true;
    if (const int failure = ibv_req_notify_cq(resources_.completions.get(), 0)) [[unlikely]] {
        end_with(EndReason::transport_error, failure, "arming the completion queue failed");
        return false;
    }
    armed_ = true;
    has_completed_ = false;
    ++resources_.channel->armed;
    // Once more after arming: a completion between the last poll and ibv_req_notify_cq raises no event.
    completions_begin_ = 0;
    completions_end_ = std::max(0, ibv_poll_cq(resources_.completions.get(), completions_at_once, completions_.data()));
    return completions_end_ == 0;
}

void VerbsConnection::on_completion_event() {
    if (!armed_) return;
    armed_ = false;
    --resources_.channel->armed;
}

// --- Going down -------------------------------------------------------------------------------------------------

void VerbsConnection::disconnect() {
    if (end_ || has_ended_) return;
    if (state_ == State::established) {
        flush();  // what was sent before is not lost
        is_polite_ = true;
    }
    end_with(EndReason::closed, ECONNABORTED, "closed");
}

void VerbsConnection::on_disconnected() {
    if (state_ == State::disconnecting) return destroy();
    if (end_ || has_ended_) return;
    // What the peer said before it left is still to be heard.
    while (is_live() && poll(completions_at_once) > 0) continue;
    if (end_) return;
    if (has_resources_ && !busy_ && resources_.device->is_port_active(resources_.port.port)) rdma_disconnect(id_.id);
    end_with(EndReason::peer_disconnected, ECONNRESET, "disconnected by the peer");
}

void VerbsConnection::on_device_removed() {
    if (state_ == State::disconnecting) return destroy();
    end_with(EndReason::device_removed, ENODEV, "the RDMA device failed or was removed");
}

void VerbsConnection::on_device_event(const DeviceEvent& event) {
    if (!has_resources_ || !(resources_.device->name() == event.device)) return;
    switch (event.kind) {
        case DeviceEvent::Kind::removed: return on_device_removed();
        case DeviceEvent::Kind::port_active: return;
        case DeviceEvent::Kind::port_error: {
            if (resources_.port.port != event.port.port) return;
            if (state_ == State::disconnecting) return destroy();  // no answer can come
            // The transport bridges a short outage; when it cannot, a completion says so. A connection that is being
            // set up would need messages of the connection manager, which cannot pass.
            if (state_ == State::established) return;
            End down = port_down(resources_.port);
            down.text = fmt::format("{}: {}", peer_, down.text);
            return end(std::move(down));
        }
        case DeviceEvent::Kind::queue_pair_failed:
            if (resources_.queue_pair->qp_num != event.queue_pair_number) return;
            break;
        case DeviceEvent::Kind::queue_failed:
            if (resources_.completions.get() != event.completions) return;
            break;
    }
    // Completions that were written before this say more; after it none need come.
    while (is_live() && poll(completions_at_once) > 0) continue;
    end_with(EndReason::transport_error, EIO, fmt::format("the device reports: {}", event.text));
}

void VerbsConnection::refuse(std::string text) { end_with(EndReason::refused_locally, ECONNABORTED, std::move(text)); }

void VerbsConnection::end_locally(int errno_value, std::string text) {
    end_with(EndReason::local_error, errno_value, std::move(text));
}

void VerbsConnection::end_with(EndReason reason, int errno_value, const std::string& text) {
    End end_now;
    end_now.reason = reason;
    end_now.errno_value = errno_value;
    end_now.text = fmt::format("{}: {}", peer_, text);
    end(std::move(end_now));
}

void VerbsConnection::end(End end) {
    if (end_) return;  // the first reason is the cause, later ones follow from it
    end_private_data_.assign(end.private_data.begin(), end.private_data.end());
    end_ = std::move(end);
    end_->private_data = end_private_data_;
    fabric_.has_end(*this);
}

void VerbsConnection::deliver_end() {
    SRPFS_ASSERT(end_ && !has_ended_);
    has_ended_ = true;
    handler_.on_ended(*end_);
    leave();
}

void VerbsConnection::leave() {
    SRPFS_ASSERT(has_ended_);
    if (busy_) return;  // the worker's result brings us back
    // No message of the connection manager while the port is down: see Devices::destroy().
    if (is_polite_ && resources_.device->is_port_active(resources_.port.port) && rdma_disconnect(id_.id) == 0) {
        state_ = State::disconnecting;
        disconnect_timer_.arm_after(disconnect_time_max);
        return;
    }
    destroy();
}

void VerbsConnection::destroy() {
    SRPFS_ASSERT(!busy_ && state_ != State::destroying);
    state_ = State::destroying;
    disconnect_timer_.disarm();
    on_completion_event();      // the queue will not wake anybody any more
    id_.id->context = nullptr;  // nor the connection manager
    has_resources_ = false;
    // ibv_destroy_qp() returns when the device has let go of all memory: that is the drain. Completions of what was
    // under way vanish with the queue.
    // Moved, not copied: no owner may be left on this thread when the worker lets go.
    on_worker([this, &fabric = fabric_, &devices = fabric_.devices(), id = id_, farewell = farewell_,
               resources = std::make_shared<Resources>(std::move(resources_))]() mutable {
        resources.reset();
        fabric.post([this, &fabric] {
            busy_ = false;
            handler_.on_gone();
            fabric.erase(*this);
        });
        // Neither the connection nor the fabric need exist from here on.
        devices.destroy(std::move(id), farewell);
    });
}

}  // namespace srpfs::fabric::verbs
