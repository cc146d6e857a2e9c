// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The fabric of one reactor over RDMA hardware: one event channel of the connection manager, completion channels, and
// the connections.

#pragma once

#include "connection.h"

#include <srpfs/fabric/verbs.h>

namespace srpfs::fabric::verbs {

class VerbsFabric final : public Fabric {
public:
    VerbsFabric(reactor::Executor& executor, std::shared_ptr<Devices> devices, std::shared_ptr<EventChannel> channel);
    ~VerbsFabric() override;

    std::vector<LocalPort> local_ports() override;
    Result<RegionId> register_memory(std::span<std::byte> memory, RemoteAccess access) override;
    void unregister_memory(RegionId region) override;
    void watch_ports(PortListener& listener) override;
    void unwatch_ports(PortListener& listener) override;
    Result<Connection*> connect(const Address& address, const ConnectionLimits& limits,
                                ConnectionHandler& handler) override;
    Result<std::unique_ptr<Listener>> listen(const Address& address, ListenHandler& handler) override;
    unsigned poll(unsigned completions_max) override;
    void flush() override;
    bool arm() override;
    void sleep_on(std::vector<int>& fds) override;
    void woken(std::span<const int> readable) override;

    // For connections, requests and listeners.
    [[nodiscard]] Devices& devices() { return *devices_; }
    [[nodiscard]] reactor::TimerQueue& timers() { return executor_.timers(); }
    [[nodiscard]] const std::shared_ptr<EventChannel>& event_channel() const { return event_channel_; }
    // Thread-safe: `work` runs in a later poll(), unless the fabric is gone by then.
    void post(std::function<void()> work);
    void has_end(VerbsConnection& connection) { ending_.push_back(&connection); }
    void has_sends(VerbsConnection& connection) { sending_.push_back(&connection); }
    [[nodiscard]] std::shared_ptr<CompletionChannel> channel_of(const DeviceName& device);
    void keep(const std::shared_ptr<CompletionChannel>& channel);
    VerbsConnection& adopt(std::unique_ptr<VerbsConnection> connection);
    void erase(VerbsConnection& connection);

private:
    void on_device_event(const DeviceEvent& event);
    void tell_port(const LocalPort& port, PortChange change);
    void look_for_removed();
    unsigned run_inbox();
    unsigned handle_cm_events();
    bool handle_cm_event();
    void consume_completion_events();
    unsigned deliver_ends();

    std::vector<std::unique_ptr<VerbsConnection>> connections_;
    std::size_t first_polled_ = 0;  // rotates, so that nobody is always served last
    unsigned polls_since_cm_ = 0;
    // Slept since the last look, and not told that there is nothing.
    bool may_have_completion_events_ = true;
    bool may_have_cm_events_ = true;
    std::vector<VerbsConnection*> sending_;
    std::vector<VerbsConnection*> ending_;
    std::vector<VerbsConnection*> ending_now_;
    std::vector<std::function<void()>> inbox_;
    std::vector<std::function<void()>> inbox_running_;
    std::vector<std::weak_ptr<CompletionChannel>> channels_;
    std::vector<PortListener*> watchers_;  // nullptr: gave up while being told
    std::vector<std::string> removed_;     // devices that may come back
    reactor::Timer look_timer_;

    reactor::Executor& executor_;
    std::shared_ptr<Devices> devices_;
    std::shared_ptr<EventChannel> event_channel_;
    std::uint64_t subscription_ = 0;
    // Work that arrives after the fabric is gone finds this expired.
    std::shared_ptr<VerbsFabric*> self_;
};

}  // namespace srpfs::fabric::verbs
