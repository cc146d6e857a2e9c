// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "worker.h"

#include <srpfs/base/log.h>
#include <srpfs/reactor/thread.h>

#include <algorithm>
#include <cstring>
#include <future>

#include <pthread.h>
#include <signal.h>

namespace srpfs::daemon {
namespace {

constexpr unsigned completions_per_turn = 64;
constexpr auto portal_check = std::chrono::milliseconds(5);

}  // namespace

class Worker::FabricSource final : public reactor::Source {
public:
    explicit FabricSource(fabric::Fabric& fabric) : fabric_(fabric) {}
    bool poll() override { return fabric_.poll(completions_per_turn) > 0; }
    void flush() override { fabric_.flush(); }
    bool prepare_to_sleep() override { return fabric_.arm(); }
    void sleep_on(std::vector<int>& fds) override { fabric_.sleep_on(fds); }
    void woken(std::span<const int> readable) override { fabric_.woken(readable); }

private:
    fabric::Fabric& fabric_;
};

Worker::Worker(const WorkerConfig& config) : cpu_(config.cpu), reactor_(config.name), random_(config.seed) {
    reactor_.set_spin(config.spin);
}

Result<std::unique_ptr<Worker>> Worker::create(const WorkerConfig& config) {
    std::unique_ptr<Worker> worker(new Worker(config));
    std::vector<fabric::Fabric*> fabrics;
    if (config.loopback) {
        worker->loopback_ = fabric::make_loopback_fabric(worker->reactor_.timers(), fabric::demo_port(),
                                                         config.injector, config.registration);
        fabrics.push_back(worker->loopback_.get());
    }
    if (config.verbs) {
        auto verbs = fabric::make_verbs_fabric(worker->reactor_, config.registration, config.moderation);
        if (verbs) {
            worker->verbs_ = std::move(*verbs);
            fabrics.push_back(worker->verbs_.get());
        } else {
            worker->verbs_error_ = verbs.error().context;
        }
    }
    auto engine = lun::Engine::create(config.limits, fabrics, worker->reactor_, worker->random_);
    if (!engine) return engine.error();
    worker->engine_ = std::move(*engine);
    for (fabric::Fabric* fabric : fabrics) {
        worker->sources_.push_back(std::make_unique<FabricSource>(*fabric));
        worker->reactor_.add_source(*worker->sources_.back());
    }
    return worker;
}

Worker::~Worker() { SRPFS_ASSERT(!thread_.joinable()); }

Result<void> Worker::open_portal(target::Device& device, const std::string& name, unsigned targets) {
    target::StagingConfig staging;
    staging.buffers_16k = std::max(8U, staging.buffers_16k / targets);
    staging.buffers_128k = std::max(4U, staging.buffers_128k / targets);
    staging.buffers_1m = std::max(2U, staging.buffers_1m / targets);
    staging.buffers_8m = std::max(1U, staging.buffers_8m / targets);
    auto portal = target::make_portal(device, reactor_, *loopback_, fabric::LoopbackAddress{name}, staging);
    if (!portal) return portal.error();
    portals_.push_back(std::move(*portal));
    return {};
}

void Worker::start() {
    // Signals are the control thread's.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread([this] {
        reactor::name_thread(reactor_.name());
        if (cpu_) {
            cpu_set_t set;
            CPU_ZERO(&set);
            CPU_SET(*cpu_, &set);
            if (const int fault = pthread_setaffinity_np(pthread_self(), sizeof set, &set))
                log::warning(reactor_.name(), "cannot be bound to processor {}: {}", *cpu_, std::strerror(fault));
        }
        reactor_.run();
    });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Worker::stop(std::chrono::milliseconds limit) {
    if (thread_.joinable()) {
        if (!portals_.empty()) {
            std::promise<void> closed;
            std::unique_ptr<reactor::Timer> timer;
            reactor_.post([&] {
                for (const auto& portal : portals_) portal->close();
                timer = std::make_unique<reactor::Timer>(reactor_.timers(), [&] {
                    std::erase_if(portals_, [](const auto& portal) { return portal->is_closed(); });
                    if (!portals_.empty()) return timer->arm_after(portal_check);
                    std::promise<void>& ended = closed;  // not the capture, which goes with the timer
                    timer.reset();
                    ended.set_value();
                });
                timer->arm_after(Duration::zero());
            });
            if (closed.get_future().wait_for(limit) != std::future_status::ready) {
                // Leave: what is stuck ends with the process.
                log::error(reactor_.name(), "the embedded target does not end; leaving it");
                _exit(2);
            }
        }
        reactor_.stop();
        thread_.join();
    }
    portals_.clear();
}

}  // namespace srpfs::daemon
