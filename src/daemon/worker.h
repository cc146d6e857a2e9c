// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A reactor thread and what runs on it: fabrics, memory, and the portal of the embedded target.

#pragma once

#include <srpfs/base/random.h>
#include <srpfs/fabric/loopback.h>
#include <srpfs/fabric/verbs.h>
#include <srpfs/lun/engine.h>
#include <srpfs/reactor/reactor.h>
#include <srpfs/target/portal.h>

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace srpfs::daemon {

struct WorkerConfig {
    std::string name;
    std::uint64_t seed = 1;
    lun::EngineLimits limits;
    fabric::Registration registration = fabric::Registration::pool;
    fabric::CompletionModeration moderation;
    bool loopback = false;
    fabric::FaultInjector* injector = nullptr;  // of the loopback network; outlives the worker
    bool verbs = true;
    std::optional<unsigned> cpu;  // bound to it
    Duration spin{};              // see Reactor::set_spin()
};

// Created and destroyed by the control thread. Between start() and stop() everything but reactor().post() belongs to
// its own thread.
class Worker {
public:
    static Result<std::unique_ptr<Worker>> create(const WorkerConfig& config);
    ~Worker();  // stopped; no connection, operation or channel left

    // Opens an embedded target to the loopback network under this name. Before start(). `targets`: how many share the
    // memory for data on its way.
    Result<void> open_portal(target::Device& device, const std::string& name, unsigned targets = 1);
    void start();
    // Closes the portals, waits for the connections to be gone (at most `limit`), ends the thread.
    void stop(std::chrono::milliseconds limit);

    [[nodiscard]] reactor::Reactor& reactor() { return reactor_; }
    [[nodiscard]] lun::Engine& engine() { return *engine_; }
    [[nodiscard]] fabric::Fabric* loopback() { return loopback_.get(); }  // nullptr: not asked for
    [[nodiscard]] fabric::Fabric* verbs() { return verbs_.get(); }        // nullptr: none, see verbs_error()
    [[nodiscard]] const std::string& verbs_error() const { return verbs_error_; }

private:
    class FabricSource;
    explicit Worker(const WorkerConfig& config);

    const std::optional<unsigned> cpu_;
    reactor::Reactor reactor_;
    Random random_;
    std::unique_ptr<fabric::LoopbackFabric> loopback_;
    std::unique_ptr<fabric::Fabric> verbs_;
    std::string verbs_error_;
    std::vector<std::unique_ptr<FabricSource>> sources_;
    std::unique_ptr<lun::Engine> engine_;
    std::vector<std::unique_ptr<target::Portal>> portals_;
    std::thread thread_;
};

}  // namespace srpfs::daemon
