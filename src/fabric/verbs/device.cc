// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "device.h"

#include "explain.h"
#include "local_ports.h"
#include "signals.h"

#include <srpfs/base/log.h>
#include <srpfs/reactor/thread.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace srpfs::fabric::verbs {
namespace {

// Local write is the right of our own work requests (a target's RDMA reads land in the region); what the peer may do
// is what the region is for.
unsigned access_flags(RemoteAccess access, bool through_windows) {
    unsigned flags = IBV_ACCESS_LOCAL_WRITE;
    if (through_windows) return flags | IBV_ACCESS_MW_BIND;
    switch (access) {
        case RemoteAccess::read: flags |= IBV_ACCESS_REMOTE_READ; break;
        case RemoteAccess::write: flags |= IBV_ACCESS_REMOTE_WRITE; break;
        case RemoteAccess::both: flags |= IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE; break;
    }
    return flags;
}

struct DeviceList {
    DeviceList() : devices(ibv_get_device_list(nullptr)) {}
    DeviceList(const DeviceList&) = delete;
    DeviceList& operator=(const DeviceList&) = delete;
    ~DeviceList() {
        if (devices) ibv_free_device_list(devices);
    }
    ibv_device** devices;
};

// Closes the kernel's side of a context that is librdmacm's. librdmacm keeps a device open for good, and with the last
// device of a machine even beyond its removal, which therefore never ends where the driver cannot cut a process off.
// The descriptors stay taken, so that librdmacm closes its own. The caller holds an id of the device, so the context
// exists.
void cut_off(const ibv_context& context) {
    const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (nothing < 0) return;
    dup3(nothing, context.cmd_fd, O_CLOEXEC);
    dup3(nothing, context.async_fd, O_CLOEXEC);
    close(nothing);
}

}  // namespace

void report_not_destroyed(const char* what, int errno_value) {
    log::warning("verbs", "an object of type {} could not be destroyed ({}); it stays until the program ends", what,
                 std::strerror(errno_value));
}

int free_memory_window(ibv_mw* window) { return ibv_dealloc_mw(window); }

bool has_windows(const std::string& device, ibv_pd& domain) {
    const MemoryWindow window(ibv_alloc_mw(&domain, IBV_MW_TYPE_2));
    if (window) {
        log::info(device, "register=window: targets reach the memory of a command only while it runs");
        return true;
    }
    log::warning(device,
                 "register=window is not possible, the device has no type 2 memory windows ({}); using register=pool: "
                 "targets reach all memory for I/O as long as they are logged in",
                 std::strerror(errno));
    return false;
}

DeviceName device_name(ibv_device* device) { return {ibv_get_device_name(device), ibv_get_device_index(device)}; }

Result<std::shared_ptr<Device>> Device::open(Devices& devices, const DeviceName& name) {
    const DeviceList list;
    ibv_device* found = nullptr;
    for (ibv_device** device = list.devices; device && *device && !found; ++device)
        if (device_name(*device) == name) found = *device;
    if (!found) return Error{ENODEV, fmt::format("there is no RDMA device {} any more", name.name)};

    Context context(ibv_open_device(found));
    if (!context) return device_not_opened(name.name, errno, observe_environment());
    ibv_device_attr attributes{};
    if (const int failure = ibv_query_device(context.get(), &attributes))
        return device_not_opened(name.name, failure, observe_environment());
    ProtectionDomain domain(ibv_alloc_pd(context.get()));
    if (!domain) return device_not_opened(name.name, errno, observe_environment());
    const bool uses_windows = devices.registration() == Registration::window && has_windows(name.name, *domain);
    return std::make_shared<Device>(devices, name, std::move(context), std::move(domain), attributes, uses_windows);
}

Device::Device(Devices& devices, DeviceName name, Context context, ProtectionDomain domain,
               const ibv_device_attr& attributes, bool uses_windows)
    : devices_(devices), name_(std::move(name)), context_(std::move(context)), domain_(std::move(domain)),
      attributes_(attributes), uses_windows_(uses_windows), region_table_(std::make_shared<const RegionTable>()),
      stop_fd_(eventfd(0, EFD_CLOEXEC)) {
    SRPFS_ASSERT(stop_fd_ >= 0);
    const SignalsBlocked none_for_event_thread;
    event_thread_ = std::thread([this] { read_events(); });
}

Device::~Device() {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = write(stop_fd_, &one, sizeof one);
    event_thread_.join();
    close(stop_fd_);
}

bool Device::is_port_active(unsigned port) const {
    ibv_port_attr attributes{};
    return !removed_ && ibv_query_port(context_.get(), static_cast<std::uint8_t>(port), &attributes) == 0 &&
           attributes.state == IBV_PORT_ACTIVE;
}

void Device::moderate(ibv_cq& completions) {
    const CompletionModeration moderation = devices_.moderation();
    if (moderation.completions == 0) return;
    ibv_modify_cq_attr wanted{};
    wanted.attr_mask = IBV_CQ_ATTR_MODERATE;
    wanted.moderate = {.cq_count = moderation.completions, .cq_period = moderation.microseconds};
    const int failure = ibv_modify_cq(&completions, &wanted);
    if (failure != 0 && !moderation_refused_.exchange(true))
        log::warning(name_.name, "cq_moderation={}:{} is not possible ({}); completions are told at once",
                     moderation.completions, moderation.microseconds, std::strerror(failure));
}

void Device::read_events() {
    reactor::begin_thread("srpfs-device");
    pollfd polled[] = {{context_->async_fd, POLLIN, 0}, {stop_fd_, POLLIN, 0}};
    for (;;) {
        if (poll(polled, std::size(polled), -1) < 0) {
            if (errno == EINTR) continue;
            return;
        }
        if (polled[1].revents) return;
        if (polled[0].revents && !handle_event()) return;
    }
}

bool Device::handle_event() {
    ibv_async_event event{};
    if (ibv_get_async_event(context_.get(), &event) != 0) {
        if (errno == EINTR || errno == EAGAIN) return true;
        devices_.remove(name_);  // the kernel has cut the context off
        return false;
    }
    const auto type = event.event_type;
    DeviceEvent told;
    told.device = name_;
    told.text = ibv_event_type_str(type);
    // What an event is about exists until it is acknowledged.
    switch (type) {
        case IBV_EVENT_PORT_ERR:
        case IBV_EVENT_PORT_ACTIVE:
            told.kind = type == IBV_EVENT_PORT_ERR ? DeviceEvent::Kind::port_error : DeviceEvent::Kind::port_active;
            told.port.port = static_cast<unsigned>(event.element.port_num);
            break;
        case IBV_EVENT_QP_FATAL:
        case IBV_EVENT_QP_REQ_ERR:
        case IBV_EVENT_QP_ACCESS_ERR:
            told.kind = DeviceEvent::Kind::queue_pair_failed;
            told.queue_pair_number = event.element.qp->qp_num;
            break;
        case IBV_EVENT_CQ_ERR:
            told.kind = DeviceEvent::Kind::queue_failed;
            told.completions = event.element.cq;
            break;
        default: break;
    }
    ibv_ack_async_event(&event);
    switch (type) {
        case IBV_EVENT_DEVICE_FATAL: devices_.remove(name_); break;
        case IBV_EVENT_PORT_ERR: tell_port(told); break;
        case IBV_EVENT_PORT_ACTIVE:
            devices_.run(
                [&devices = devices_, name = name_, port = told.port.port] { devices.destroy_parked(name, port); });
            tell_port(told);
            break;
        case IBV_EVENT_CQ_ERR:
        case IBV_EVENT_QP_FATAL:
        case IBV_EVENT_QP_REQ_ERR:
        case IBV_EVENT_QP_ACCESS_ERR:
            log::warning(name_.name, "{}", told.text);
            devices_.tell(told);
            break;
        default: log::debug(name_.name, "{}", told.text); break;
    }
    return true;
}

void Device::tell_port(DeviceEvent event) {
    const unsigned number = event.port.port;
    const bool is_up = event.kind == DeviceEvent::Kind::port_active;
    if (is_up)
        log::info(name_.name, "port {} is active", number);
    else
        log::warning(name_.name, "port {} went down", number);
    event.port.device = name_.name;
    if (is_up)
        if (auto now = read_local_port(name_.name, number)) event.port = *std::move(now);
    devices_.tell(event);
}

std::shared_ptr<Devices> Devices::shared() {
    static std::mutex mutex;
    static std::weak_ptr<Devices> current;
    const std::lock_guard lock(mutex);
    auto devices = current.lock();
    if (!devices) current = devices = std::make_shared<Devices>();
    return devices;
}

Devices::~Devices() {
    workers_.finish();
    devices_.clear();  // ends the event threads
    for (auto& parked : parked_) destroy_now(parked.id);
}

RegionId Devices::add_region(std::span<std::byte> memory, RemoteAccess access) {
    const std::lock_guard lock(regions_mutex_);
    const RegionId region{next_region_++};
    regions_.emplace(region, Region{memory, access});
    region_bytes_ += memory.size();
    return region;
}

void Devices::remove_region(RegionId region) {
    const std::lock_guard lock(regions_mutex_);
    const auto found = regions_.find(region);
    SRPFS_ASSERT(found != regions_.end());
    region_bytes_ -= found->second.memory.size();
    regions_.erase(found);

    const std::lock_guard devices_lock(devices_mutex_);
    for (const auto& device : devices_) {
        auto table = std::make_shared<RegionTable>(*device->region_table_);
        if (static_cast<std::size_t>(region) < table->size()) (*table)[static_cast<std::size_t>(region)] = {};
        device->region_table_ = std::move(table);
        device->regions_.erase(region);
    }
}

Result<Devices::Opened> Devices::open(const DeviceName& name) {
    // Held throughout: a second connection to the same device waits for the registration that both need.
    const std::lock_guard lock(regions_mutex_);
    std::shared_ptr<Device> device = find(name);
    if (!device) {
        auto opened = Device::open(*this, name);
        if (!opened) return opened.error();
        device = *opened;
        const std::lock_guard devices_lock(devices_mutex_);
        // Its removal may have come and gone meanwhile.
        if (std::find(removed_.begin(), removed_.end(), name) != removed_.end())
            device->removed_ = true;
        else
            devices_.push_back(device);
    }

    auto table = std::make_shared<RegionTable>(next_region_);
    for (const auto& [region, wanted] : regions_) {
        MemoryRegion& registered = device->regions_[region];
        if (!registered) {
            registered.reset(ibv_reg_mr(device->domain(), wanted.memory.data(), wanted.memory.size(),
                                        access_flags(wanted.access, device->uses_windows())));
            if (!registered) {
                const int failure = errno;
                device->regions_.erase(region);
                return memory_not_registered(name.name, failure,
                                             {wanted.memory.size(), region_bytes_, locked_memory_limit()});
            }
            log::debug(name.name, "registered {} for {}{}", bytes_text(wanted.memory.size()),
                       wanted.access == RemoteAccess::read    ? "remote reads"
                       : wanted.access == RemoteAccess::write ? "remote writes"
                                                              : "remote reads and writes",
                       device->uses_windows() ? " through windows" : "");
        }
        (*table)[static_cast<std::size_t>(region)] = {wanted.memory.data(), wanted.memory.size(), registered->lkey,
                                                      registered->rkey, registered.get()};
    }
    device->region_table_ = table;
    return Opened{std::move(device), std::move(table)};
}

Result<MemoryRegion> Devices::register_local(Device& device, std::span<std::byte> memory) {
    const unsigned access = IBV_ACCESS_LOCAL_WRITE;
    MemoryRegion region(ibv_reg_mr(device.domain(), memory.data(), memory.size(), access));
    if (!region)
        return memory_not_registered(device.name().name, errno,
                                     {memory.size(), region_bytes_ + memory.size(), locked_memory_limit()});
    return region;
}

std::uint64_t Devices::subscribe(Listener listener) {
    const std::lock_guard lock(listeners_mutex_);
    listeners_.emplace(++next_subscription_, std::move(listener));
    return next_subscription_;
}

void Devices::unsubscribe(std::uint64_t subscription) {
    const std::lock_guard lock(listeners_mutex_);
    listeners_.erase(subscription);
}

std::shared_ptr<Device> Devices::find(const DeviceName& name) {
    const std::lock_guard lock(devices_mutex_);
    const auto found =
        std::find_if(devices_.begin(), devices_.end(), [&](const auto& known) { return known->name() == name; });
    return found == devices_.end() ? nullptr : *found;
}

bool Devices::is_removed(const DeviceName& name) {
    const std::lock_guard lock(devices_mutex_);
    return std::find(removed_.begin(), removed_.end(), name) != removed_.end();
}

void Devices::destroy(CmId id, Farewell farewell) {
    SRPFS_ASSERT(id.id->context == nullptr);
    if (farewell == Farewell::none || !id.id->verbs) return destroy_now(id);
    const DeviceName name = device_name(id.id->verbs->device);
    const unsigned port = id.id->port_num;
    auto device = find(name);
    if (!device && !is_removed(name)) {
        // Nobody else would tell when the port comes up.
        if (auto opened = open(name)) device = opened->device;
    }
    if (!device || device->is_removed() || device->is_port_active(port)) return destroy_now(id);

    rdma_cm_id* const key = id.id;
    {
        const std::lock_guard lock(parked_mutex_);
        parked_.push_back({std::move(id), name, port});
    }
    log::debug(name.name, "port {} is down: a connection's end is told to the peer when it is up again", port);
    // The port may have come up, or the device gone, before the id was in the list.
    if (!device->is_removed() && !device->is_port_active(port)) return;
    CmId late;
    {
        const std::lock_guard lock(parked_mutex_);
        const auto found =
            std::find_if(parked_.begin(), parked_.end(), [&](const auto& it) { return it.id.id == key; });
        if (found == parked_.end()) return;
        late = std::move(found->id);
        parked_.erase(found);
    }
    destroy_now(late);
}

void Devices::destroy_parked(const DeviceName& device, std::optional<unsigned> port) {
    for (;;) {
        CmId id;
        {
            const std::lock_guard lock(parked_mutex_);
            const auto found = std::find_if(parked_.begin(), parked_.end(), [&](const auto& it) {
                return it.device == device && (!port || it.port == *port);
            });
            if (found == parked_.end()) return;
            id = std::move(found->id);
            parked_.erase(found);
        }
        destroy_now(id);
    }
}

void Devices::destroy_now(CmId& id) {
    if (id.id->verbs && is_removed(device_name(id.id->verbs->device))) cut_off(*id.id->verbs);
    if (rdma_destroy_id(id.id) != 0) report_not_destroyed("rdma_cm_id", errno);
}

void Devices::remove(const DeviceName& name) {
    std::shared_ptr<Device> device;
    {
        const std::lock_guard lock(devices_mutex_);
        if (std::find(removed_.begin(), removed_.end(), name) != removed_.end()) return;
        if (name.index >= 0) removed_.push_back(name);  // else a new device would have the same name
        const auto found =
            std::find_if(devices_.begin(), devices_.end(), [&](const auto& known) { return known->name() == name; });
        if (found != devices_.end()) {
            device = std::move(*found);
            devices_.erase(found);
            device->removed_ = true;
        }
    }
    log::warning(name.name, "the RDMA device failed or was removed");
    // Perhaps we are the last owner, on the device's own thread, which its destructor waits for.
    workers_.run([this, device = std::move(device), name] { destroy_parked(name, std::nullopt); });
    DeviceEvent event;
    event.kind = DeviceEvent::Kind::removed;
    event.device = name;
    tell(event);
}

void Devices::tell(const DeviceEvent& event) {
    const std::lock_guard lock(listeners_mutex_);
    for (const auto& [subscription, listener] : listeners_) listener(event);
}

}  // namespace srpfs::fabric::verbs
