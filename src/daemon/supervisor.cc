// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "supervisor.h"

#include "memory_lock.h"
#include "text_file.h"

#include <srpfs/base/log.h>
#include <srpfs/daemon/login_defaults.h>
#include <srpfs/target/target_list.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <set>
#include <thread>

#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <sched.h>

namespace srpfs::daemon {
namespace {

// Longer than a good target takes for a small request, and not worth mentioning when it was in vain.
constexpr auto drain_check = std::chrono::milliseconds(20);
constexpr auto flush_limit = std::chrono::seconds(2);  // decisions 18
constexpr auto logout_limit = std::chrono::seconds(2);
constexpr unsigned queue_size_max = 4096, ch_count_max = 64;
constexpr unsigned vectors_counted = 1U << 16;  // more than devices have, which take the number modulo theirs
constexpr std::size_t mib = std::size_t{1} << 20;
// The first reactor has the first target; the others mostly help.
constexpr std::size_t memory_default = 80 * mib, memory_default_further = 40 * mib;
constexpr std::size_t memory_min = 24 * mib;  // of each reactor

std::uint64_t random_seed() {
    std::uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed) seed = static_cast<std::uint64_t>(getpid());
    return seed;
}

// Fits the numbers of buffers to a budget; the proportions stay.
lun::EngineLimits limits_for(std::size_t budget, std::size_t park_bytes) {
    lun::EngineLimits limits;
    limits.park_bytes_max = park_bytes;
    const double factor = static_cast<double>(budget) / static_cast<double>(lun::EngineLimits{}.registered_bytes());
    const auto scale = [&](unsigned count, unsigned least) {
        return std::max(least, static_cast<unsigned>(static_cast<double>(count) * factor));
    };
    limits.intake_buffers = scale(limits.intake_buffers, 4);
    limits.write_buffers_4k = scale(limits.write_buffers_4k, 32);
    limits.write_buffers_64k = scale(limits.write_buffers_64k, 8);
    limits.read_buffers_4k = scale(limits.read_buffers_4k, 64);
    limits.read_buffers_64k = scale(limits.read_buffers_64k, 16);
    limits.read_buffers_1m = scale(limits.read_buffers_1m, 4);
    limits.edge_buffers = scale(limits.edge_buffers, 8);
    return limits;
}

lun::EngineLimits limits_of_helper() {
    lun::EngineLimits limits;
    limits.park_bytes_max = 0;
    limits.intake_buffers = helper_intake_buffers;
    limits.write_buffers_4k = 64;
    limits.write_buffers_64k = 16;
    limits.read_buffers_4k = limits.read_buffers_64k = limits.read_buffers_1m = 1;  // nothing is read there
    limits.edge_buffers = 1;
    return limits;
}

Result<sockaddr_storage> numeric_address(const srp::IpDestination& text) {
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
    addrinfo* found = nullptr;
    const int fault = getaddrinfo(text.host.c_str(), fmt::format("{}", text.port).c_str(), &hints, &found);
    if (fault != 0 || !found)
        return Error(EINVAL, fmt::format("'{}' is not a numeric IPv4 or IPv6 address of this machine's interfaces ({})",
                                         text.host, gai_strerror(fault)));
    sockaddr_storage address{};
    std::memcpy(&address, found->ai_addr, std::min<std::size_t>(found->ai_addrlen, sizeof address));
    freeaddrinfo(found);
    return address;
}

// Of an embedded target, in the loopback network.
std::string demo_name(std::size_t index) { return index == 0 ? "demo" : fmt::format("demo{}", index + 1); }

std::string port_name(const fabric::LocalPort& port) { return fmt::format("srp-{}-{}", port.device, port.port); }

bool is_meant(const std::string& login, const Target& target) {
    const auto wanted = srp::parse_login_string(login);
    const auto& parameters = target.config().parameters;
    return wanted && wanted->id_ext == parameters.id_ext && wanted->ioc_guid == parameters.ioc_guid &&
           wanted->initiator_ext == parameters.initiator_ext;
}

// The same addresses lead through the same local port; others may lead through another one.
bool is_same_route(const srp::LoginParameters& one, const srp::LoginParameters& other) {
    return one.dest == other.dest && one.src == other.src && one.ib == other.ib;
}

}  // namespace

// ---- signals ----

class Supervisor::SignalSource final : public reactor::Source {
public:
    explicit SignalSource(std::function<void(int)> on_signal) : on_signal_(std::move(on_signal)) {
        sigset_t set;
        sigemptyset(&set);
        for (const int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, number);
        pthread_sigmask(SIG_BLOCK, &set, nullptr);
        fd_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    }
    ~SignalSource() override {
        if (fd_ >= 0) close(fd_);
    }
    bool poll() override {
        signalfd_siginfo info{};
        if (read(fd_, &info, sizeof info) != sizeof info) return false;
        on_signal_(static_cast<int>(info.ssi_signo));
        return true;
    }
    void sleep_on(std::vector<int>& fds) override { fds.push_back(fd_); }

private:
    std::function<void(int)> on_signal_;
    int fd_ = -1;
};

// ---- life ----

struct Supervisor::StaticLogin {
    std::string text;
    std::unique_ptr<reactor::Timer> timer;
    unsigned failures = 0;  // since it was last logged in
    std::string reason;     // of the last one
};

Supervisor::Supervisor(const Config& config, ServiceManager manager)
    : config_(config), manager_(std::move(manager)), control_("srpfs"),
      flush_timer_(control_.timers(), [this] { log_out_flushed(); }),
      shutdown_timer_(control_.timers(), [this] { finish(); }),
      drain_timer_(control_.timers(), [this] { drain_requests(); }) {}

Supervisor::~Supervisor() = default;

int Supervisor::run(OnReady on_ready) {
    on_ready_ = std::move(on_ready);
    signals_ = std::make_unique<SignalSource>([this](int number) { on_signal(number); });
    control_.add_source(*signals_);
    if (const auto up = bring_up(); !up) {
        stop_workers();
        file_system_.reset();
        ready(up.error());
        return exit_code::mount_failed;
    }
    control_.run();
    watchdog_.reset();
    if (file_system_) file_system_->close();
    stop_workers();
    file_system_.reset();
    control_.remove_source(*signals_);
    log::info({}, "ended");
    return exit_code_;
}

void Supervisor::ready(const Result<void>& result) {
    const auto on_ready = std::exchange(on_ready_, nullptr);
    if (!on_ready) return;  // told already; what ends a mount that served is no failure
    // Nothing is left of a mount that failed when its failure is told: the next attempt may follow at once.
    if (!result && file_system_) begin_shutdown(result.error().context);
    const auto told = on_ready(result);
    if (told) {
        tell_status();
        return manager_.send(fmt::format("MAINPID={}\nREADY=1", getpid()));
    }
    manager_.send(fmt::format("ERRNO={}", told.error().errno_value()));
    manager_.status(told.error().context);
    exit_code_ = exit_code::mount_failed;
    if (result) begin_shutdown(told.error().context);
}

Result<void> Supervisor::bring_up() {
    started_at_ = control_.timers().now();
    const bool demo = config_.source == "demo" || config_.source.starts_with("demo:");
    const bool may_be_empty = config_.source == "none" || config_.is_configured;
    if (!demo && !may_be_empty) {
        // Do not mount for a string that cannot work.
        if (const auto parameters = srp::parse_login_string(config_.source); !parameters)
            return Error(parameters.error().errno_value(), parameters.error().context);
    }
    // Before there are threads. The embedded target's disks take their memory when it is written.
    if (config_.memory_lock != MemoryLock::off)
        for (const Error& obstacle : survive_memory_pressure(demo ? LockPages::touched : LockPages::all)) {
            if (config_.memory_lock == MemoryLock::required) return obstacle;
            log::warning({}, "{}", obstacle.context);
        }
    if (const auto made = make_workers(demo); !made) return made.error();
    if (!demo && !worker().verbs()) {
        if (!may_be_empty) return Error(ENODEV, worker().verbs_error());
        log::warning({}, "{}; logging in is not possible until that is mended and srpfs is mounted again",
                     worker().verbs_error());
        last_error_ = worker().verbs_error();
    }
    if (demo)
        if (const auto started =
                start_demo(config_.source.size() > 5 ? std::string_view(config_.source).substr(5) : std::string_view{});
            !started)
            return started.error();

    if (demo && std::getenv("SRPFS_DEMO_SHARE")) {
        log::warning({}, "SRPFS_DEMO_SHARE is set: all reactors share all requests, whether it pays or not");
        config_.mount.shares_all = true;
    }
    fs::FileSystemListener& listener = *this;
    std::vector<fs::ReactorResources> reactors;
    for (const auto& one : workers_) reactors.push_back({&one->reactor(), &one->engine()});
    auto mounted = fs::FileSystem::mount(config_.mount, control_, std::move(reactors), listener);
    if (!mounted) return mounted.error();
    file_system_ = std::move(*mounted);
    choose_readers();
    show_top_files();
    if (demo)
        port_directory(fabric::demo_port());
    else if (worker().verbs())
        for (const fabric::LocalPort& port : worker().verbs()->local_ports()) port_directory(port);
    for (const auto& one : workers_) one->start();
    if (manager_.watchdog()) {
        std::vector<Watchdog::Watched> watched;
        for (const auto& one : workers_) watched.push_back({one->reactor().name(), &one->reactor()});
        watchdog_ = std::make_unique<Watchdog>(control_, std::move(watched), *manager_.watchdog(),
                                               [this] { manager_.send("WATCHDOG=1"); });
    }
    return {};
}

Result<void> Supervisor::make_workers(bool demo) {
    const unsigned homes = config_.reactors.value_or(1);
    std::size_t budget =
        config_.memory_bytes == 0 ? memory_default + (homes - 1) * memory_default_further : config_.memory_bytes;
    if (budget < homes * memory_min)
        return Error(EINVAL, fmt::format("memory={} is too little for {} reactor{}; at least {}M are needed", budget,
                                         homes, homes == 1 ? "" : "s", homes * memory_min / mib));
    WorkerConfig config;
    const std::size_t ring_bytes = plan_rings(budget, homes);
    // Only rings that can be had keep helpers away.
    reactor_plan_ = plan_reactors(config_.reactors, processors(demo), rings_.rings > 0);
    const unsigned count = reactor_plan_.reactors;
    gone_totals_.resize(count);
    const std::size_t buffers = budget - ring_bytes;
    const std::size_t further = std::min(std::max(memory_min, buffers / (homes + 1)), buffers / homes);
    const lun::EngineLimits limits = limits_for(buffers - (homes - 1) * further, config_.park_bytes);
    const lun::EngineLimits limits_further = limits_for(further, config_.park_bytes);
    config.registration = config_.registration;
    config.moderation = config_.moderation;
    config.spin = config_.spin.value_or(default_spin(processors(demo)));
    registered_bytes_ = limits.registered_bytes() + (homes - 1) * limits_further.registered_bytes() + ring_bytes;
    log::info({},
              "srpfs {}: {} reactor{}{}, {} MiB of I/O buffers ({}{} intake, {} + {} write, {} + {} + {} read, {} "
              "edge), {}up to {} MiB of waiting writes",
              SRPFS_VERSION, homes, homes == 1 ? "" : "s",
              count == homes ? "" : fmt::format(" and {} to help", count - homes), registered_bytes_ / mib,
              homes == 1 ? "" : "the first one: ", limits.intake_buffers, limits.write_buffers_4k,
              limits.write_buffers_64k, limits.read_buffers_4k, limits.read_buffers_64k, limits.read_buffers_1m,
              limits.edge_buffers, homes == 1 ? "" : "each ", limits.park_bytes_max / mib);
    if (demo) demo_black_hole_ = DemoBlackHole::from_environment(control_);
    for (unsigned index = 0; index < count; ++index) {
        if (demo_black_hole_) config.injector = &demo_black_hole_->injector();
        config.name = fmt::format("srpfs-{}", index);
        config.seed = random_seed();
        if (!config_.cpus.empty()) config.cpu = config_.cpus[index % config_.cpus.size()];
        config.limits = index == 0 ? limits : index < homes ? limits_further : limits_of_helper();
        config.loopback = demo && index < homes;
        config.verbs = !demo && index < homes;
        config.limits.entries = rings_.entries_of(index);
        auto made = Worker::create(config);
        if (!made && config.limits.entries > 0 && config_.mount.io_uring == fs::RingUse::automatic) {
            config_.mount.io_uring_obstacle = made.error().context;
            config.limits.entries = 0;
            made = Worker::create(config);
        }
        if (!made && index >= homes) {
            log::warning({}, "{} of {} reactors, the others were only to help: {}", index, count, made.error().context);
            reactor_plan_.reactors = index;
            break;
        }
        if (!made) return made.error();
        workers_.push_back(std::move(*made));
    }
    return {};
}

// How much of the budget the entries of rings get; without an option their memory comes on top of the default.
std::size_t Supervisor::plan_rings(std::size_t& budget, unsigned homes) {
    fs::MountOptions& mount = config_.mount;
    if (mount.io_uring == fs::RingUse::off) return 0;
    const bool chosen = config_.memory_bytes != 0;
    const std::size_t most =
        chosen ? budget / 2 : std::min(fs::ring_bytes_default_max(), fs::ring_bytes_wanted(mount, homes));
    rings_ = fs::plan_rings(mount, homes, most);
    mount.io_uring_obstacle = rings_.obstacle;
    std::size_t taken = 0;
    for (unsigned index = 0; index < homes; ++index) {
        lun::EngineLimits entries;
        entries.entries = rings_.entries_of(index);
        taken += (entries.entries + entries.spare_slots()) * mib;
    }
    if (!chosen) budget += taken;
    return taken;
}

void Supervisor::stop_workers() {
    for (const auto& one : workers_) one->stop(std::chrono::seconds(2));
}

Result<void> Supervisor::start_demo(std::string_view luns) {
    const auto lists = target::parse_target_list(luns.empty() ? target::default_lun_list : luns);
    if (!lists) return lists.error();
    const auto count = static_cast<unsigned>(lists->size());
    demo_power_cut_ = DemoPowerCut::from_environment(control_);
    for (const auto& list : *lists) {
        target::DeviceConfig config;
        config.service_guid = demos_.size() + 1;
        if (demo_power_cut_) config.volatile_cache = target::VolatileCache::modelled;
        auto device = target::Device::create(config, list);
        if (!device) return device.error();
        demos_.push_back(std::move(*device));
    }
    demo_hold_ = DemoHold::from_environment(*demos_.front(), control_);
    if (demo_power_cut_) demo_power_cut_->watch(*demos_.front(), worker().reactor());
    for (unsigned home = 0; home < reactor_plan_.homes; ++home) {
        const auto& one = workers_[home];
        for (unsigned index = 0; index < count; ++index)
            if (const auto opened = one->open_portal(*demos_[index], demo_name(index), count); !opened)
                return opened.error();
        if (!demo_black_hole_) continue;
        if (const auto opened = one->open_portal(*demos_.front(), DemoBlackHole::address); !opened)
            return opened.error();
    }
    return {};
}

void Supervisor::on_serving() {
    if (std::exchange(source_started_, true)) return;
    start_source();
}

void Supervisor::start_source() {
    if (config_.source == "none" || config_.is_configured) {
        log_in_configured();
        return ready({});
    }
    const bool demo = config_.source == "demo" || config_.source.starts_with("demo:");
    std::vector<std::string> logins;
    for (std::size_t index = 0; index < demos_.size(); ++index)
        logins.push_back(fmt::format("id_ext={0:x},ioc_guid={0:x},dest={1}", index + 1, demo_name(index)));
    if (!demo) logins.push_back(config_.source);
    if (config_.wait == WaitForTargets::none) ready({});
    const auto left = std::make_shared<std::size_t>(logins.size());
    for (const std::string& login : logins) {
        const auto on_done = [this, left, login](const Result<void>& done) {
            if (!done) {
                last_error_ = done.error().context;
                log::error({}, "{}", last_error_);
                events_.add("login_failed", {{"login", login}, {"reason", last_error_}});
            }
            if (--*left == 0 || !done) ready(done);
        };
        if (const auto target = log_in(login, std::nullopt, on_done); !target) on_done(target.error());
    }
    log_in_configured();  // after them: one that is the same as theirs must not keep them from logging in
}

// ---- the tree ----

void Supervisor::show_top_files() {
    using Access = fs::Tree::Access;
    fs::Tree& tree = file_system_->tree();
    const auto top = fs::NodeId::root;
    add_text(
        tree, top, "add_target", Access::read_write, []() -> Result<std::string> { return srp::login_grammar(); },
        [this](std::string_view text, std::shared_ptr<fs::PendingCall> call) { add_target(text, std::nullopt, call); },
        [this](const std::shared_ptr<fs::PendingCall>& call, const Error& error) {
            log::warning({}, "{}", error.context);
            refuse_login(std::nullopt, call, error);
        });
    add_value(tree, top, "last_error", [this] { return last_error_; });
    add_text(
        tree, top, "version", Access::read_only, []() -> Result<std::string> { return version_text(); }, nullptr);
    const auto status = [this] {
        const auto uptime =
            std::chrono::duration_cast<std::chrono::seconds>(control_.timers().now() - started_at_).count();
        return StatusInput{.targets = targets_,
                           .workers = workers_,
                           .file_system = *file_system_,
                           .gone = gone_totals_,
                           .events = events_,
                           .registered_bytes = registered_bytes_,
                           .park_bytes_max = config_.park_bytes,
                           .uptime_seconds = static_cast<std::uint64_t>(uptime)};
    };
    add_text(
        tree, top, "stats", Access::read_only, [status]() -> Result<std::string> { return stats_text(status()); },
        nullptr);
    add_text(
        tree, top, "metrics", Access::read_only, [status]() -> Result<std::string> { return metrics_text(status()); },
        nullptr);

    class EventsFile final : public fs::StreamFile {
    public:
        explicit EventsFile(EventLog& events) : events_(events) {}
        std::uint64_t open_cursor() override { return events_.end(); }
        void read_next(std::shared_ptr<std::uint64_t> cursor, std::size_t bytes_max,
                       std::shared_ptr<fs::PendingCall> call) override {
            events_.read_next(std::move(cursor), bytes_max, std::move(call));
        }

    private:
        EventLog& events_;
    };
    tree.add_stream_file(top, "events", std::make_unique<EventsFile>(events_));
    add_text(
        tree, top, "events.log", Access::read_only, [this]() -> Result<std::string> { return events_.text(); },
        nullptr);
    views_ = std::make_unique<Views>(tree);
}

fs::NodeId Supervisor::port_directory(const fabric::LocalPort& port) {
    const std::string name = port_name(port);
    auto& entry = ports_[name];
    if (entry) return entry->directory;
    entry = std::make_shared<PortEntry>();
    fs::Tree& tree = file_system_->tree();
    entry->directory = tree.add_directory(fs::NodeId::root, name);
    const initiator::WantedPort wanted{port.device, port.port};
    add_text(
        tree, entry->directory, "add_target", fs::Tree::Access::write_only, nullptr,
        [this, wanted](std::string_view text, std::shared_ptr<fs::PendingCall> call) {
            add_target(text, wanted, call);
        },
        [this, wanted](const std::shared_ptr<fs::PendingCall>& call, const Error& error) {
            log::warning({}, "{}", error.context);
            refuse_login(wanted, call, error);
        });
    add_value(tree, entry->directory, "ibdev", [device = port.device] { return device; });
    add_value(tree, entry->directory, "port", [number = port.port] { return fmt::format("{}", number); });
    add_value(tree, entry->directory, "last_error", [entry = entry] { return entry->last_error; });
    return entry->directory;
}

// ---- logging in ----

Result<fabric::Address> Supervisor::address_of(const srp::LoginParameters& parameters,
                                               const std::optional<initiator::WantedPort>& wanted) {
    if (parameters.dest) {
        if (parameters.dest->port == 0) {
            if (!worker().loopback())
                return Error(ENXIO,
                             fmt::format("dest={}: there is no such network; only a demo mount has the embedded target",
                                         parameters.dest->host));
            return fabric::Address(fabric::LoopbackAddress{parameters.dest->host});
        }
        if (!worker().verbs())
            return Error(ENODEV, worker().verbs_error().empty() ? "a demo mount has no RDMA; mount with SOURCE none"
                                                                : worker().verbs_error());
        fabric::IpAddress address;
        auto destination = numeric_address(*parameters.dest);
        if (!destination) return Error(EINVAL, fmt::format("dest: {}", destination.error().context));
        address.destination = *destination;
        if (parameters.src) {
            auto source = numeric_address(*parameters.src);
            if (!source) return Error(EINVAL, fmt::format("src: {}", source.error().context));
            address.source = *source;
        }
        return fabric::Address(address);
    }
    if (!worker().verbs())
        return Error(ENODEV, worker().verbs_error().empty() ? "a demo mount has no RDMA; mount with SOURCE none"
                                                            : worker().verbs_error());
    fabric::IbAddress address;
    address.destination_gid = parameters.ib->dgid;
    address.pkey = parameters.ib->pkey;
    address.service_id = parameters.ib->service_id;
    // The source GID picks the port (srp-transport 3): the wanted one, else the first active one of the same subnet.
    bool found = false;
    for (const fabric::LocalPort& port : worker().verbs()->local_ports()) {
        if (port.link_layer != fabric::LinkLayer::infiniband) continue;
        const bool fits =
            wanted ? wanted->device == port.device && wanted->port == port.port
                   : port.active && std::equal(port.gid.begin(), port.gid.begin() + 8, address.destination_gid.begin());
        if (!fits) continue;
        address.source_gid = port.gid;
        found = true;
        break;
    }
    if (!found)
        return Error(
            ENXIO,
            wanted
                ? fmt::format("port {} of {} is not an InfiniBand port; on RoCE and iWARP give dest=ADDRESS:PORT "
                              "instead of dgid, pkey and service_id",
                              wanted->port, wanted->device)
                : std::string(
                      "no active InfiniBand port of this machine is in the subnet of that dgid; on RoCE and iWARP give "
                      "dest=ADDRESS:PORT instead of dgid, pkey and service_id"));
    return fabric::Address(address);
}

// The one with the fewest targets.
unsigned Supervisor::choose_home() const {
    std::vector<unsigned> served(reactor_plan_.homes);
    for (const auto& other : targets_) ++served[other->home()];
    return static_cast<unsigned>(std::min_element(served.begin(), served.end()) - served.begin());
}

// Only reactors that are home to a target: what the others would read they would have to hand over.
void Supervisor::choose_readers() {
    std::vector<bool> readers(workers_.size());
    for (const auto& target : targets_) readers[target->home()] = true;
    if (targets_.empty()) readers[0] = true;
    if (!file_system_ || config_.mount.shares_all || readers == readers_) return;
    readers_ = readers;
    file_system_->set_readers(readers_);
}

// That reactors may run on. Tests say what the machine has not got.
unsigned Supervisor::processors(bool demo) const {
    if (const char* const assumed = demo ? std::getenv("SRPFS_DEMO_PROCESSORS") : nullptr)
        return static_cast<unsigned>(std::strtoul(assumed, nullptr, 10));
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return std::thread::hardware_concurrency();
    if (config_.cpus.empty()) return static_cast<unsigned>(CPU_COUNT(&allowed));
    const std::set<unsigned> cpus(config_.cpus.begin(), config_.cpus.end());
    return static_cast<unsigned>(
        std::count_if(cpus.begin(), cpus.end(), [&](unsigned cpu) { return CPU_ISSET(cpu, &allowed); }));
}

Result<std::shared_ptr<Target>> Supervisor::log_in(const std::string& text, const WantedPort& wanted, OnLogin on_done,
                                                   std::optional<unsigned> home) {
    auto made = make_target(text, wanted, home);
    if (!made) return made;
    (*made)->login([this, text, wanted, on_done = std::move(on_done), weak = std::weak_ptr(*made),
                    moved = home.has_value()](const Result<void>& done) {
        const auto target = weak.lock();
        const auto better = target ? target->better_home() : std::nullopt;
        if (done && target) forget_attempts(*target);
        if (done || !better || moved) return on_done(done);
        log::info({}, "{}; logging in again from there", done.error().context);
        if (const auto again = log_in(text, wanted, on_done, better); !again) on_done(again.error());
    });
    return made;
}

Result<std::shared_ptr<Target>> Supervisor::make_target(std::string_view text, const WantedPort& wanted,
                                                        std::optional<unsigned> home) {
    if (shutting_down_) return Error(ESHUTDOWN, "srpfs is shutting down");
    auto parsed = srp::parse_login_string(text);
    if (!parsed) return parsed.error();
    const auto defaults = login_defaults(config_.timers, config_.target_rules, *parsed);
    if (!defaults) return defaults.error();
    // Whatever says nothing of vectors begins where the last login ended, so that not all have one interrupt.
    parsed = srp::parse_login_string(fmt::format("comp_vector={},{}{}", next_vector_, defaults->items, text));
    if (!parsed) return parsed.error();
    srp::LoginParameters parameters = *parsed;
    if (parameters.ch_count == 0) parameters.ch_count = config_.ch_count;
    // What one login may take of this machine; the grammar alone would allow two thousand millions.
    if (parameters.queue_size > queue_size_max)
        return Error(EINVAL, fmt::format("queue_size={}: at most {} commands per channel are supported",
                                         parameters.queue_size, queue_size_max));
    if (parameters.ch_count > ch_count_max)
        return Error(EINVAL,
                     fmt::format("ch_count={}: at most {} channels are supported", parameters.ch_count, ch_count_max));
    if (!config_.use_imm_data) parameters.use_imm_data = false;
    parameters.max_imm_data = std::min(parameters.max_imm_data, config_.max_imm_data);
    const auto address = address_of(parameters, wanted);
    if (!address) return address.error();

    // Within this mount the answer is at hand; the lock file keeps other processes away.
    for (const auto& other : targets_) {
        const auto& theirs = other->config().parameters;
        if (other->is_leaving() || theirs.id_ext != parameters.id_ext || theirs.ioc_guid != parameters.ioc_guid ||
            theirs.initiator_ext != parameters.initiator_ext)
            continue;
        const auto& port = other->port().facts().port;
        if (wanted && other->is_listed() && (wanted->device != port.device || wanted->port != port.port)) continue;
        // Without a wanted port the route decides. If another one leads through the same port, the lock says so.
        if (!wanted && other->is_listed() && !is_same_route(theirs, parameters)) continue;
        return Error(
            EEXIST,
            fmt::format("Already connected to target port with id_ext={:016x};ioc_guid={:016x};initiator_ext={:016x}",
                        parameters.id_ext, parameters.ioc_guid, parameters.initiator_ext));
    }
    initiator::TargetPortConfig port;
    port.name = fabric::to_string(*address);
    port.address = *address;
    port.parameters = parameters;
    port.timers = defaults->timers;
    port.login_timeout = config_.login_timeout;
    port.command_time = config_.command_timeout;
    port.task_limits = config_.task_limits;
    port.ack_timeout = parameters.ack_timeout ? parameters.ack_timeout : config_.ack_timeout;
    port.path = config_.path;
    port.wanted_port = wanted;
    auto lock = std::make_shared<LoginLock>(parameters, "/run/srpfs", "/sys/class/scsi_host");
    TargetHost& host = *this;
    const unsigned index = home ? *home : choose_home();
    auto target = std::make_shared<Target>(host, *workers_[index], index, std::move(port), std::move(lock),
                                           config_.rescan_interval);
    targets_.push_back(target);
    next_vector_ = (next_vector_ + parameters.ch_count) % vectors_counted;
    choose_readers();
    return target;
}

void Supervisor::log_in_configured() {
    for (const std::string& text : config_.logins) {
        static_logins_.push_back(std::make_unique<StaticLogin>());
        StaticLogin& login = *static_logins_.back();
        login.text = text;
        login.timer = std::make_unique<reactor::Timer>(control_.timers(), [this, &login] { log_in_configured(login); });
        log_in_configured(login);
    }
}

void Supervisor::log_in_configured(StaticLogin& login) {
    if (shutting_down_) return;
    const auto target = log_in(login.text, std::nullopt, [this, &login](const Result<void>& done) {
        if (!done) return on_configured_failed(login, done.error());
        login.failures = 0;
        login.reason.clear();
    });
    if (!target) on_configured_failed(login, target.error());
}

void Supervisor::on_configured_failed(StaticLogin& login, const Error& error) {
    if (shutting_down_) return;
    // Somebody else has logged in, here, and will log out; or is just logging in.
    const auto other = std::find_if(targets_.begin(), targets_.end(),
                                    [&](const auto& one) { return !one->is_leaving() && is_meant(login.text, *one); });
    if (error.errno_value() == EEXIST && other != targets_.end()) {
        if (!(*other)->is_listed()) try_again(login);
        return;
    }
    ++login.failures;
    last_error_ = error.context;
    const bool comes_again = try_again(login);
    // A line for each reason, not for each attempt.
    if (std::exchange(login.reason, error.context) == error.context) return;
    log::warning({}, "{}: {}; {}", login.text, error.context,
                 comes_again ? "trying again" : "not tried again, because reconnect_delay is off");
    events_.add("login_failed", {{"login", login.text}, {"reason", error.context}});
}

// As a lost connection is tried again: after reconnect_delay, and later after more than ten failures. False: it is not.
bool Supervisor::try_again(StaticLogin& login) {
    const auto parameters = srp::parse_login_string(login.text);
    if (!parameters) return false;
    const auto defaults = login_defaults(config_.timers, config_.target_rules, *parameters);
    if (!defaults || !defaults->timers.reconnect_delay) return false;
    const unsigned factor = std::clamp(login.failures, 11U, 110U) - 10;
    login.timer->arm_after(std::chrono::seconds(std::uint64_t{*defaults->timers.reconnect_delay} * factor));
    return true;
}

// Somebody has logged in to it: an attempt that is due later would undo his logging out before.
void Supervisor::forget_attempts(const Target& target) {
    for (const auto& login : static_logins_) {
        if (!is_meant(login->text, target)) continue;
        const auto parameters = srp::parse_login_string(login->text);
        if (parameters && is_same_route(*parameters, target.config().parameters)) login->timer->disarm();
    }
}

void Supervisor::remember_error(const std::optional<initiator::WantedPort>& wanted, const std::string& text) {
    last_error_ = text;
    if (!wanted) return;
    if (const auto found = ports_.find(fmt::format("srp-{}-{}", wanted->device, wanted->port)); found != ports_.end())
        found->second->last_error = text;
}

void Supervisor::refuse_login(const std::optional<initiator::WantedPort>& wanted,
                              const std::shared_ptr<fs::PendingCall>& call, const Error& error) {
    remember_error(wanted, error.context);
    events_.add("login_failed", {{"reason", error.context}});
    call->fail(error.errno_value());
}

void Supervisor::add_target(std::string_view text, std::optional<initiator::WantedPort> wanted,
                            const std::shared_ptr<fs::PendingCall>& call) {
    const auto answered = std::make_shared<bool>(false);
    const auto target = log_in(std::string(text), wanted, [this, wanted, call, answered](const Result<void>& done) {
        if (!done) {
            remember_error(wanted, done.error().context);
            events_.add("login_failed", {{"reason", done.error().context}});
        }
        if (std::exchange(*answered, true)) return;
        if (done)
            call->succeed();
        else
            call->fail(done.error().errno_value());
    });
    if (!target) {
        log::warning({}, "add_target: {}", target.error().context);
        return refuse_login(wanted, call, target.error());
    }
    if (call->nonblocking()) {
        if (!std::exchange(*answered, true)) call->succeed();
    } else {
        call->on_interrupt([weak = std::weak_ptr(*target)] {
            if (const auto still = weak.lock()) still->cancel_login();
        });
    }
}

void Supervisor::on_event() {
    // In a later turn, when what has happened is over.
    if (manager_.exists()) control_.post([this] { tell_status(); });
}

void Supervisor::tell_status() {
    if (!manager_.exists() || (on_ready_ && !shutting_down_)) return;
    const auto running = std::count_if(targets_.begin(), targets_.end(), [](const auto& target) {
        return target->port().state() == initiator::PortState::running;
    });
    const std::string targets =
        fmt::format("{} target{}, {} running", targets_.size(), targets_.size() == 1 ? "" : "s", running);
    manager_.status(fmt::format("{} {} at {}: {}", shutting_down_ ? "ending" : "serving", config_.mount.fsname,
                                config_.mount.mountpoint, targets));
}

void Supervisor::on_target_gone(Target& target) {
    for (const auto& login : static_logins_)
        if (target.was_lost() && !shutting_down_ && is_meant(login->text, target)) try_again(*login);
    control_.post([this, gone = &target] {
        gone_totals_[gone->home()] += gone->totals();
        std::erase_if(targets_, [&](const auto& one) { return one.get() == gone; });
        tell_status();
        choose_readers();
        if (logging_out_ && targets_.empty()) finish();
    });
}

// ---- the end ----

void Supervisor::on_signal(int number) {
    if (number == SIGHUP) return log::info({}, "SIGHUP ignored: configuration is read once, at the start");
    begin_shutdown(fmt::format("{} received", number == SIGINT ? "SIGINT" : "SIGTERM"));
}

// Decisions 18: refuse new opens and logins, detach, serve what is under way for a while, fail the rest, flush, log
// out.
void Supervisor::begin_shutdown(const std::string& why) {
    if (std::exchange(shutting_down_, true)) return;
    log::info({}, "shutting down: {}", why);
    manager_.send("STOPPING=1");
    tell_status();
    file_system_->refuse_opens();
    events_.add("shutdown", {{"reason", why}});
    events_.close();
    file_system_->detach();
    drain_until_ = saturating_add(control_.timers().now(), config_.shutdown_timeout);
    drain_requests();
}

void Supervisor::drain_requests() {
    if (unmounted_) return;  // on_unmounted has taken over
    const bool time_is_up = control_.timers().now() >= drain_until_;
    if (!time_is_up) return drain_timer_.arm_after(drain_check);
    if (std::exchange(aborted_, true)) return log_out_all();
    log::warning({}, "files are still open or requests unanswered ({}); ending them", file_system_->requests_pending());
    file_system_->abort();
    drain_until_ = control_.timers().now() + std::chrono::milliseconds(500);
    drain_timer_.arm_after(drain_check);
}

void Supervisor::on_unmounted() {
    if (std::exchange(unmounted_, true)) return;
    if (!std::exchange(shutting_down_, true)) {
        log::info({}, "unmounted");
        manager_.send("STOPPING=1");
    }
    tell_status();
    drain_timer_.disarm();
    events_.close();
    ready(Error(ECANCELED, "unmounted before it was ready"));
    log_out_all();
}

void Supervisor::log_out_all() {
    if (std::exchange(logging_out_, true)) return;
    unmounted_ = true;
    // Neither RELEASE nor DESTROY reach a server whose mount is gone, so this is where unflushed writes go (decisions
    // 9).
    flush_timer_.arm_after(flush_limit);
    auto left = std::make_shared<std::size_t>(targets_.size() + 1);
    const auto one_done = [this, left] {
        if (--*left == 0) flush_timer_.arm_after(Duration::zero());
    };
    for (const auto& target : std::vector(targets_)) target->flush(one_done);
    one_done();
}

void Supervisor::log_out_flushed() {
    shutdown_timer_.arm_after(logout_limit);
    if (targets_.empty()) return finish();
    for (const auto& target : std::vector(targets_)) target->logout("unmounted");
}

void Supervisor::finish() {
    if (!targets_.empty()) {
        // Something does not end within its time. The kernel ends the rest with the process.
        log::error({}, "{} target{} did not log out in time; leaving", targets_.size(),
                   targets_.size() == 1 ? "" : "s");
        if (!config_.pid_file.empty()) unlink(config_.pid_file.c_str());
        _exit(exit_code_ == 0 ? exit_code::system : exit_code_);
    }
    shutdown_timer_.disarm();
    drain_timer_.disarm();
    control_.stop();
}

}  // namespace srpfs::daemon
