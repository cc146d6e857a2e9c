// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What all verbs fabrics of a process share: the opened devices with one protection domain each, and the memory
// registered with all of them. Thread-safe.
//
// A device is opened and memory registered on worker threads, when the first connection needs them. A device that the
// kernel removes is closed when its last connection is gone; a new one of the same name is another device.

#pragma once

#include "worker_pool.h"

#include <srpfs/fabric/verbs.h>
#include <srpfs/reactor/executor.h>

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <typeinfo>
#include <vector>

namespace srpfs::fabric::verbs {

// unique_ptr with the destroying function of libibverbs; what cannot be destroyed is logged and leaks.
void report_not_destroyed(const char* what, int errno_value);
template <auto destroy>
struct Destroy {
    template <typename T>
    void operator()(T* object) const {
        if (const int failure = destroy(object)) report_not_destroyed(typeid(T).name(), failure > 0 ? failure : errno);
    }
};
using Context = std::unique_ptr<ibv_context, Destroy<ibv_close_device>>;
using ProtectionDomain = std::unique_ptr<ibv_pd, Destroy<ibv_dealloc_pd>>;
using MemoryRegion = std::unique_ptr<ibv_mr, Destroy<ibv_dereg_mr>>;
using CompletionQueue = std::unique_ptr<ibv_cq, Destroy<ibv_destroy_cq>>;
int free_memory_window(ibv_mw* window);  // ibv_dealloc_mw() is an inline function of each file
using MemoryWindow = std::unique_ptr<ibv_mw, Destroy<free_memory_window>>;
// Whether type 2 memory windows can be had, by trying: some drivers say 0 of what they have. Logs what it means for
// register=window on `device`. On a worker.
bool has_windows(const std::string& device, ibv_pd& domain);
using QueuePair = std::unique_ptr<ibv_qp, Destroy<ibv_destroy_qp>>;

// The descriptor on which connection events of one fabric arrive. Outlives the ids made with it.
class EventChannel {
public:
    explicit EventChannel(rdma_event_channel* channel) : channel_(channel) {}
    EventChannel(const EventChannel&) = delete;
    EventChannel& operator=(const EventChannel&) = delete;
    ~EventChannel() { rdma_destroy_event_channel(channel_); }
    [[nodiscard]] rdma_event_channel* get() const { return channel_; }

private:
    rdma_event_channel* channel_;
};

// An rdma_cm_id with the channel it needs. Destroyed by Devices, because destroying may block and may send a message.
struct CmId {
    std::shared_ptr<EventChannel> channel;
    rdma_cm_id* id = nullptr;
};

// The keys of the registered regions on one device, by RegionId. Immutable; a connection keeps the one of its birth.
struct RegionKeys {
    const std::byte* begin = nullptr;  // null: no such region any more
    std::size_t size = 0;
    std::uint32_t local_key = 0;
    std::uint32_t remote_key = 0;  // opens nothing where windows are used
    ibv_mr* region = nullptr;      // for windows
};
using RegionTable = std::vector<RegionKeys>;

// Device names may come back with another device behind them; the index does not.
struct DeviceName {
    std::string name;
    int index = -1;
    bool operator==(const DeviceName&) const = default;
};
[[nodiscard]] DeviceName device_name(ibv_device* device);

struct DeviceEvent {
    enum class Kind { port_error, port_active, queue_pair_failed, queue_failed, removed };
    Kind kind = Kind::port_error;
    DeviceName device;
    LocalPort port{};                     // port_error and port_active: as it is now
    std::uint32_t queue_pair_number = 0;  // queue_pair_failed
    const ibv_cq* completions = nullptr;  // queue_failed: to compare with, not to use
    const char* text = "";                // of the last two: what the driver calls it
};

// Whether destroying an id makes the kernel send the peer a message (DREQ or REJ): after a request was sent or
// received. A message sent while the port is down can leave a software device's connection manager dead for good, and
// is lost on any device; the id is then kept until the port is active again.
enum class Farewell { none, message };

class Devices;

class Device {
public:
    // On a worker.
    static Result<std::shared_ptr<Device>> open(Devices& devices, const DeviceName& name);
    Device(Devices& devices, DeviceName name, Context context, ProtectionDomain domain,
           const ibv_device_attr& attributes, bool uses_windows);
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;
    ~Device();  // not on its own event thread

    [[nodiscard]] const DeviceName& name() const { return name_; }
    [[nodiscard]] ibv_context* context() const { return context_.get(); }
    [[nodiscard]] ibv_pd* domain() const { return domain_.get(); }
    [[nodiscard]] const ibv_device_attr& attributes() const { return attributes_; }
    [[nodiscard]] bool is_iwarp() const { return context_->device->transport_type == IBV_TRANSPORT_IWARP; }
    // Peers get windows, and the regions are closed to them.
    [[nodiscard]] bool uses_windows() const { return uses_windows_; }
    [[nodiscard]] bool is_removed() const { return removed_; }
    // As the options want it. A device that cannot is told of in the log once, and does without.
    void moderate(ibv_cq& completions);
    // Asks the driver.
    [[nodiscard]] bool is_port_active(unsigned port) const;

private:
    friend class Devices;
    void read_events();  // the event thread: runs until stop_fd_ is written or the device is gone
    bool handle_event();
    void tell_port(DeviceEvent event);

    Devices& devices_;
    const DeviceName name_;
    Context context_;
    ProtectionDomain domain_;
    const ibv_device_attr attributes_;
    const bool uses_windows_;
    std::atomic<bool> removed_ = false;
    std::atomic<bool> moderation_refused_ = false;
    std::map<RegionId, MemoryRegion> regions_;         // guarded by Devices::regions_mutex_
    std::shared_ptr<const RegionTable> region_table_;  // likewise
    int stop_fd_ = -1;
    std::thread event_thread_;
};

class Devices {
public:
    // The one of this process; made when there is none.
    static std::shared_ptr<Devices> shared();
    Devices() = default;
    Devices(const Devices&) = delete;
    Devices& operator=(const Devices&) = delete;
    ~Devices();  // not on a worker; waits for the workers

    [[nodiscard]] RegionId add_region(std::span<std::byte> memory, RemoteAccess access);
    // Blocks until no device knows the memory any more.
    void remove_region(RegionId region);

    struct Opened {
        std::shared_ptr<Device> device;
        std::shared_ptr<const RegionTable> regions;
    };
    // Opens the device if needed and registers what is not registered yet. Blocks: for workers.
    Result<Opened> open(const DeviceName& name);
    // Memory of a connection's own: reachable by this device only. Blocks: for workers.
    Result<MemoryRegion> register_local(Device& device, std::span<std::byte> memory);

    // For devices that are opened later.
    void set_registration(Registration registration) { registration_ = registration; }
    [[nodiscard]] Registration registration() const { return registration_; }
    // For completion queues that are created later.
    void set_moderation(CompletionModeration moderation) { moderation_ = moderation; }
    [[nodiscard]] CompletionModeration moderation() const { return moderation_; }

    // Called on event threads, until the subscription is given back.
    using Listener = std::function<void(const DeviceEvent&)>;
    [[nodiscard]] std::uint64_t subscribe(Listener listener);
    void unsubscribe(std::uint64_t subscription);

    // Destroys an id. Blocks: for workers. The id's context must be null: nobody is told of its events any more.
    void destroy(CmId id, Farewell farewell);
    // The kernel is about to remove the device and waits until the process has let go of it: connections are told, and
    // what is left of the device is closed with the last of them. Drivers that can cut a process off tell so by an
    // event of the device; for others (rxe, siw) the connection manager's RDMA_CM_EVENT_DEVICE_REMOVAL is the only
    // sign, which nobody gets while there is no connection and no listener on the device.
    void remove(const DeviceName& name);

    void run(std::function<void()> job) { workers_.run(std::move(job)); }

private:
    friend class Device;
    void tell(const DeviceEvent& event);
    [[nodiscard]] std::shared_ptr<Device> find(const DeviceName& name);
    [[nodiscard]] bool is_removed(const DeviceName& name);
    // Destroys what destroy() kept for one port, or for all of a device. For workers.
    void destroy_parked(const DeviceName& device, std::optional<unsigned> port);
    void destroy_now(CmId& id);

    struct Region {
        std::span<std::byte> memory;
        RemoteAccess access = RemoteAccess::read;
    };
    struct Parked {
        CmId id;
        DeviceName device;
        unsigned port = 0;
    };

    std::mutex regions_mutex_;  // held while registering; taken before devices_mutex_
    std::map<RegionId, Region> regions_;
    std::uint32_t next_region_ = 0;
    std::atomic<std::uint64_t> region_bytes_ = 0;
    std::atomic<Registration> registration_ = Registration::pool;
    std::atomic<CompletionModeration> moderation_{};

    std::mutex devices_mutex_;
    std::vector<std::shared_ptr<Device>> devices_;  // without removed ones
    std::vector<DeviceName> removed_;               // indexes do not come back, and so neither do these

    std::mutex listeners_mutex_;
    std::map<std::uint64_t, Listener> listeners_;
    std::uint64_t next_subscription_ = 0;

    std::mutex parked_mutex_;
    std::vector<Parked> parked_;

    WorkerPool workers_{8};
};

}  // namespace srpfs::fabric::verbs
