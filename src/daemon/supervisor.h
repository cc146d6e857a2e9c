// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The composition root: owns everything, runs the control thread, brings the program up and down.

#pragma once

#include "demo_hold.h"
#include "event_log.h"
#include "reactor_plan.h"
#include "service_manager.h"
#include "status.h"
#include "target.h"
#include "unit_homes.h"
#include "views.h"
#include "worker.h"

#include <srpfs/daemon/config.h>
#include <srpfs/fs/file_system.h>
#include <srpfs/target/device.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace srpfs::daemon {

class Supervisor final : private fs::FileSystemListener, private TargetHost {
public:
    Supervisor(const Config& config, ServiceManager manager);
    ~Supervisor();

    // Called once: serving, or why not. The answer is what the world is told: with an error the mount ends again.
    using OnReady = std::function<Result<void>(const Result<void>&)>;

    // Mounts and logs in, then serves until it is unmounted or told to stop. Returns the exit code.
    int run(OnReady on_ready);

private:
    class SignalSource;

    // fs
    void on_unmounted() override;
    void on_serving() override;
    void on_refused(const Error& error) override { ready(error); }
    // targets
    fs::Tree& tree() override { return file_system_->tree(); }
    EventLog& events() override { return events_; }
    Views& views() override { return *views_; }
    reactor::Executor& control() override { return control_; }
    [[nodiscard]] const Config& mount_config() const override { return config_; }
    unsigned home_of(const lun::UnitInfo& info, unsigned proposed) override {
        return unit_homes_.home_of(info, proposed);
    }
    [[nodiscard]] std::optional<unsigned> known_home(const lun::UnitInfo& info) const override {
        return unit_homes_.known_home(info);
    }
    [[nodiscard]] bool has_several_homes() const override { return reactor_plan_.homes > 1; }
    fs::NodeId port_directory(const fabric::LocalPort& port) override;
    void on_event() override;
    void on_target_gone(Target& target) override;

    Result<void> bring_up();
    Result<void> make_workers(bool demo);
    std::size_t plan_rings(std::size_t& budget, unsigned homes);
    void stop_workers();
    // What each of them has: any can be asked.
    [[nodiscard]] Worker& worker() const { return *workers_.front(); }
    Result<void> start_demo(std::string_view luns);
    void show_top_files();
    void start_source();
    void ready(const Result<void>& result);
    // `wanted`: the local port whose add_target was written; nullopt: the one at the top.
    void add_target(std::string_view text, std::optional<initiator::WantedPort> wanted,
                    const std::shared_ptr<fs::PendingCall>& call);
    using WantedPort = std::optional<initiator::WantedPort>;
    using OnLogin = std::function<void(Result<void>)>;
    // Logs in. `on_done` is called once, and not if this fails at once.
    Result<std::shared_ptr<Target>> log_in(const std::string& text, const WantedPort& wanted, OnLogin on_done,
                                           std::optional<unsigned> home = {});
    // `home`: the index of the reactor to serve it; nullopt: choose one.
    Result<std::shared_ptr<Target>> make_target(std::string_view text, const WantedPort& wanted,
                                                std::optional<unsigned> home);
    // What the configuration wants to be logged in to.
    struct StaticLogin;
    void log_in_configured();
    void log_in_configured(StaticLogin& login);
    void on_configured_failed(StaticLogin& login, const Error& error);
    bool try_again(StaticLogin& login);
    void forget_attempts(const Target& target);
    [[nodiscard]] unsigned choose_home() const;
    [[nodiscard]] unsigned processors(bool demo) const;
    void choose_readers();
    void tell_status();
    Result<fabric::Address> address_of(const srp::LoginParameters& parameters,
                                       const std::optional<initiator::WantedPort>& wanted);
    void remember_error(const std::optional<initiator::WantedPort>& wanted, const std::string& text);
    void refuse_login(const std::optional<initiator::WantedPort>& wanted, const std::shared_ptr<fs::PendingCall>& call,
                      const Error& error);

    void on_signal(int number);
    void begin_shutdown(const std::string& why);
    void drain_requests();
    void log_out_all();
    void log_out_flushed();
    void finish();

    Config config_;
    ServiceManager manager_;
    reactor::Reactor control_;
    std::unique_ptr<SignalSource> signals_;
    EventLog events_;
    std::vector<std::unique_ptr<target::Device>> demos_;  // the embedded targets
    std::unique_ptr<DemoHold> demo_hold_;
    std::unique_ptr<DemoPowerCut> demo_power_cut_;
    std::unique_ptr<DemoBlackHole> demo_black_hole_;
    ReactorPlan reactor_plan_;
    std::vector<std::unique_ptr<Worker>> workers_;  // not empty while serving; the homes first
    UnitHomes unit_homes_;
    std::vector<Totals> gone_totals_;  // of targets that are gone, by index of the reactor
    std::unique_ptr<fs::FileSystem> file_system_;
    std::unique_ptr<Views> views_;  // while there is a file system
    std::vector<bool> readers_;     // of requests, by index of the reactor; empty: all
    std::vector<std::shared_ptr<Target>> targets_;
    unsigned next_vector_ = 0;  // of the next login that does not say which
    struct PortEntry {
        fs::NodeId directory{0};
        std::string last_error;
    };
    std::map<std::string, std::shared_ptr<PortEntry>> ports_;  // by name, "srp-mlx5_0-1"
    std::vector<std::unique_ptr<StaticLogin>> static_logins_;
    OnReady on_ready_;
    std::string last_error_;
    std::size_t registered_bytes_ = 0;
    fs::RingPlan rings_;
    Instant started_at_{};
    int exit_code_ = 0;
    bool source_started_ = false;
    bool shutting_down_ = false;
    bool unmounted_ = false;
    bool logging_out_ = false;
    bool aborted_ = false;
    reactor::Timer flush_timer_;     // ends the flushing before the logout
    reactor::Timer shutdown_timer_;  // ends the waiting for the logout
    reactor::Timer drain_timer_;
    Instant drain_until_{};
    std::unique_ptr<Watchdog> watchdog_;  // while somebody wants to know that we live
};

}  // namespace srpfs::daemon
