// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// One reliable connection: an rdma_cm_id, a queue pair with its completion queue, buffers for messages.
//
// Owned by its VerbsFabric and used on that fabric's thread only, except for what a worker does to it while busy_.
// Life of a connection that we start:
//   resolving_address -> resolving_route -> connecting -> completing -> established
// of one that we accept:
//   completing -> accepting -> established
// and of both, from any state: [disconnecting ->] destroying -> (on_gone, erased).
// on_ended() is called from VerbsFabric::poll() only, before disconnecting or destroying is entered.

#pragma once

#include "address.h"
#include "device.h"
#include "send_ledger.h"

#include <srpfs/fabric/fabric.h>
#include <srpfs/reactor/timer_queue.h>

#include <array>
#include <cstdlib>

namespace srpfs::fabric::verbs {

class VerbsFabric;

// A copy of what rdma_get_cm_event() returned, so that the event can be acknowledged before it is acted upon: while one
// is not, rdma_destroy_id() on a worker waits.
struct CmEvent {
    rdma_cm_event_type type = RDMA_CM_EVENT_ADDR_RESOLVED;
    int status = 0;
    rdma_cm_id* id = nullptr;
    rdma_conn_param parameters{};  // private_data: null, see below
    std::array<std::byte, 256> private_data_bytes{};
    std::size_t private_data_size = 0;
    [[nodiscard]] std::span<const std::byte> private_data() const {
        return std::span(private_data_bytes).first(private_data_size);
    }
};

// What an rdma_cm_id's context points to.
class CmEventTarget {
public:
    virtual void on_cm_event(const CmEvent& event) = 0;

protected:
    ~CmEventTarget() = default;
};

// The descriptor and counter through which completion queues of one fabric on one device wake their reactor.
class CompletionChannel {
public:
    static Result<std::shared_ptr<CompletionChannel>> make(std::shared_ptr<Device> device);
    CompletionChannel(std::shared_ptr<Device> device, ibv_comp_channel* channel)
        : device_(std::move(device)), channel_(channel) {}
    CompletionChannel(const CompletionChannel&) = delete;
    CompletionChannel& operator=(const CompletionChannel&) = delete;
    ~CompletionChannel();

    [[nodiscard]] const Device& device() const { return *device_; }
    [[nodiscard]] ibv_comp_channel* get() const { return channel_; }
    [[nodiscard]] int fd() const { return channel_->fd; }

    unsigned armed = 0;  // queues that will write to the descriptor; for the reactor's thread

private:
    std::shared_ptr<Device> device_;
    ibv_comp_channel* channel_;
};

// Page-aligned memory for messages that only this side's device may touch.
class MessageBuffer {
public:
    MessageBuffer() = default;
    // `count` slots of at least `bytes_each` bytes, each on cache lines of its own. Blocks: for workers.
    static Result<MessageBuffer> make(Devices& devices, Device& device, unsigned count, unsigned bytes_each);

    [[nodiscard]] std::byte* slot(std::size_t index) const { return memory_.get() + index * stride_; }
    [[nodiscard]] std::uint32_t key() const { return region_->lkey; }
    [[nodiscard]] unsigned count() const { return count_; }
    [[nodiscard]] unsigned bytes_each() const { return bytes_each_; }

private:
    struct Free {
        void operator()(std::byte* memory) const { std::free(memory); }
    };
    std::unique_ptr<std::byte, Free> memory_;
    MemoryRegion region_;
    std::size_t stride_ = 0;
    unsigned count_ = 0;
    unsigned bytes_each_ = 0;
};

// Everything of a connection that belongs to a device; in the order of its making, so that it is destroyed backwards.
struct Resources {
    std::shared_ptr<Device> device;
    std::shared_ptr<const RegionTable> regions;
    LocalPort port;
    std::uint32_t operation_bytes_max = 0;  // longest message or one-sided operation of the port
    std::shared_ptr<CompletionChannel> channel;
    MessageBuffer send_buffer;
    MessageBuffer receive_buffer;
    CompletionQueue completions;
    QueuePair queue_pair;
    std::vector<MemoryWindow>
        windows;  // none: the regions are open. Go before the queue pair, which they may be bound to
    unsigned inline_bytes_max = 0;
    unsigned receives_max = 0;
};

class VerbsConnection final : public Connection, private CmEventTarget {
public:
    struct Side {
        bool is_initiating = false;
        std::size_t request_bytes_max = 0;  // initiating side: private data that fits
        unsigned rdma_max = 0;              // accepting side: one-sided operations under way
    };
    // Takes `id`, whose events come here from now on.
    VerbsConnection(VerbsFabric& fabric, ConnectionHandler& handler, const ConnectionLimits& limits, CmId id,
                    std::string peer, const Side& side);
    VerbsConnection(const VerbsConnection&) = delete;
    VerbsConnection& operator=(const VerbsConnection&) = delete;
    ~VerbsConnection() override;

    // Accepting side, at once after construction: `requested` came with the request.
    void start_accepting(const ReceiveRing& ring, std::span<const std::byte> private_data,
                         const rdma_conn_param& requested);

    bool send(std::span<const std::byte> head, std::span<const std::byte> payload) override;
    std::optional<RemoteBuffer> describe(RegionId region, std::span<const std::byte> bytes) const override;
    std::optional<Grant> grant(RegionId region, std::span<const std::byte> bytes, RemoteAccess access) override;
    bool revoke(const Grant& grant, std::uint64_t context) override;
    bool rdma_write(RegionId region, std::span<const std::byte> local, const RemoteBuffer& remote,
                    std::uint64_t context) override;
    bool rdma_read(RegionId region, std::span<std::byte> local, const RemoteBuffer& remote,
                   std::uint64_t context) override;
    void disconnect() override;

    // What follows is for VerbsFabric.
    unsigned poll(unsigned completions_max);
    void flush();  // posts what was collected
    bool arm();    // false: completions are waiting
    // Armed, and something has completed since: so there is, or will be, an event that tells nothing new.
    [[nodiscard]] bool has_old_event() const { return armed_ && has_completed_; }
    void on_completion_event();  // the queue has woken the reactor and has to be armed again
    void on_device_event(const DeviceEvent& event);
    void deliver_end();

private:
    enum class State {
        resolving_address,
        resolving_route,  // and a worker makes resources_
        connecting,       // the request is sent
        completing,       // a worker makes the queue pair ready and answers the peer
        accepting,        // waiting for the initiator's confirmation
        established,
        disconnecting,  // on_ended() was called; waiting for the peer's answer to our DREQ
        destroying,     // a worker destroys resources_
    };
    static constexpr int completions_at_once = 32;

    void on_cm_event(const CmEvent& event) override;
    void on_address_resolved();
    void on_route_resolved();
    void adopt(Resources&& resources);
    void request_when_ready();
    void on_reply(const CmEvent& event);
    void on_ready(const Result<void>& outcome);
    void enter_established();

    // Blocking; on a worker, while busy_.
    void on_worker(std::function<void()> job);
    Result<Resources> make_resources(const DeviceName& name, unsigned port, std::shared_ptr<CompletionChannel> channel,
                                     const ReceiveRing* ring);
    Result<void> make_ready(Resources& resources, const ReceiveRing& ring);
    Result<void> modify(const Resources& resources, ibv_qp_state state);
    Result<void> accept(Resources& resources, const ReceiveRing& ring, std::span<const std::byte> private_data,
                        const rdma_conn_param& requested);

    [[nodiscard]] bool is_live() const { return !end_ && (state_ == State::established || state_ == State::accepting); }
    [[nodiscard]] const RegionKeys* keys_of(RegionId region, std::span<const std::byte> bytes) const;
    ibv_send_wr& collect(const SendLedger::Entry& entry, const void* local, std::size_t size, std::uint32_t key);
    bool rdma(SendLedger::Kind kind, RegionId region, std::span<const std::byte> local, const RemoteBuffer& remote,
              std::uint64_t context);
    void collect_receive(const Resources& resources, unsigned slot);
    int post_collected_receives(const Resources& resources);
    void handle(const ibv_wc& completion);
    void fail(const ibv_wc& completion);

    void on_disconnected();
    void on_device_removed();
    void refuse(std::string text);
    void end_locally(int errno_value, std::string text);
    void end_with(EndReason reason, int errno_value, const std::string& text);
    void end(End end);  // only the first one counts
    void leave();
    void destroy();

    // Read or written for every message.
    ConnectionHandler& handler_;
    State state_ = State::resolving_address;
    bool armed_ = false;
    bool has_completed_ = false;  // since it was armed
    SendLedger ledger_;
    Resources resources_;
    struct Window {
        std::uint32_t key = 0;      // of the last grant; the next one's follows from it
        std::uint64_t context = 0;  // while it is being revoked
    };
    std::vector<Window> windows_;              // of resources_.windows
    std::vector<std::uint32_t> free_windows_;  // invalid ones
    std::vector<ibv_send_wr> sends_;           // collected_sends_ of them wait for flush()
    std::vector<ibv_sge> send_pieces_;
    unsigned collected_sends_ = 0;
    std::vector<ibv_recv_wr> receives_;  // collected_receives_ of them wait for the end of poll()
    std::vector<ibv_sge> receive_pieces_;
    unsigned collected_receives_ = 0;
    std::array<ibv_wc, completions_at_once> completions_;
    int completions_begin_ = 0;  // completions_[begin, end): taken from the queue, not handled yet
    int completions_end_ = 0;

    VerbsFabric& fabric_;
    const ConnectionLimits limits_;
    const Side side_;
    CmId id_;
    const std::string peer_;
    Farewell farewell_ = Farewell::none;
    bool busy_ = false;  // a worker uses id_ and resources_
    bool has_route_ = false;
    bool has_resources_ = false;
    bool is_confirmed_ = false;  // accepting side: the initiator's confirmation came
    bool is_polite_ = false;     // tell the peer with a DREQ and wait for its answer
    bool has_ended_ = false;     // on_ended() was called
    std::optional<End> end_;     // its private data lies in end_private_data_
    std::vector<std::byte> end_private_data_;
    reactor::Timer disconnect_timer_;
};

}  // namespace srpfs::fabric::verbs
