// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "world.h"

#include <srpfs/base/log.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <utility>

namespace srpfs::simulation {
namespace {

using namespace std::chrono_literals;
using lun::OutcomeKind;

constexpr Duration answer_bound = 400s;  // of one request while fast_io_fail_tmo is on
constexpr Duration quiet_bound = 600s;   // for everything to come to an end once nothing goes wrong any more
constexpr Duration interrupt_bound = 1s;
constexpr std::uint64_t steps_max = 20'000'000;
constexpr unsigned identities = 2;  // of a LUN that is swapped

double in_seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }

// The same bytes again, after their LUN was taken away.
class SharedStore final : public target::BlockStore {
public:
    explicit SharedStore(std::shared_ptr<target::BlockStore> store) : store_(std::move(store)) {}
    target::StoreResult submit(target::StoreIo& io, reactor::Executor& executor) override {
        return store_->submit(io, executor);
    }
    std::uint64_t bytes() const override { return store_->bytes(); }
    Result<void> resize(std::uint64_t bytes) override { return store_->resize(bytes); }
    void lose_cache(const std::function<bool(std::uint64_t)>& lost) override { store_->lose_cache(lost); }

private:
    std::shared_ptr<target::BlockStore> store_;
};

// What the target has behind one identity.
struct Disk {
    target::LunConfig config;
    std::shared_ptr<target::BlockStore> store;
    std::unique_ptr<Oracle> oracle;
    unsigned times_mounted = 0;
};
struct Slot {  // a LUN number of the target
    Disk disks[identities];
    unsigned current = 0;
    bool present = true;
    bool read_only = false;
    [[nodiscard]] Disk& disk() { return disks[current]; }
};

class World;

class Client final : public lun::OperationListener {
public:
    Client(World& world, unsigned number);
    void start_after(Duration delay) { timer_.arm_after(delay); }
    [[nodiscard]] bool is_busy() const { return operation_ != nullptr; }
    // One request of a given kind, for the end of a run.
    void ask(const std::shared_ptr<MountedLun>& lun, lun::OperationKind kind, std::uint64_t offset,
             std::uint32_t bytes);
    [[nodiscard]] std::string describe() const;
    [[nodiscard]] bool ended_well() const { return ended_well_; }
    void stop() {
        timer_.disarm();
        interrupt_timer_.disarm();
        bound_timer_.disarm();
    }

private:
    void next();
    void on_answered(lun::Operation& operation) override;
    void interrupt();

    World& world_;
    unsigned number_;
    reactor::Timer timer_, interrupt_timer_, bound_timer_;
    lun::Operation* operation_ = nullptr;
    std::shared_ptr<MountedLun> lun_;
    Disk* disk_ = nullptr;
    lun::OperationKind kind_{};
    std::uint64_t offset_ = 0;
    std::uint32_t bytes_ = 0;
    bool stable_ = false, interrupted_ = false, ended_well_ = false, asked_ = false;
    Oracle::WriteId write_ = 0;
    Moment began_ = 0;
    Instant started_{}, interrupted_at_{};
};

class World final : public MountListener {
public:
    World(std::uint64_t seed, bool verbose);
    ~World();
    Outcome run();

    void violated(const std::string& what) {
        if (violation_) return;
        violation_ = fmt::format("at {:.6f} s: {}", in_seconds(now() - Instant{}), what);
        if (!mount) return;
        *violation_ += fmt::format("\n  port {}", initiator::to_string(mount->port().state()));
        for (const auto& channel : mount->port().link(0).report())
            *violation_ += fmt::format(", channel {} in state {}: {} of {} credits, {} in flight", channel.index,
                                       static_cast<int>(channel.state), channel.credits, channel.facts.credits_initial,
                                       channel.in_flight);
        for (const auto& lun : mount->luns())
            if (lun->unit) *violation_ += "\n  " + lun->unit->describe_operations();
    }
    [[nodiscard]] Instant now() const { return scheduler.timers.now(); }
    template <typename... Args>
    void tell(fmt::format_string<Args...> format, Args&&... args) {
        if (!verbose_) return;
        fmt::print(stderr, "[{:12.6f}] {}\n", in_seconds(now() - Instant{}),
                   fmt::format(format, std::forward<Args>(args)...));
    }
    [[nodiscard]] Disk* disk_of(const MountedLun& lun) {
        const auto found = disks_.find(lun.info->wwid);
        return found == disks_.end() ? nullptr : found->second;
    }

    Random random;
    FaultPlan plan;
    Scheduler scheduler;
    SimulatedExecutor control, reactor, target_thread;
    SimulatedNetwork network;
    SimulatedTarget behaviour;
    Random engine_random;
    std::unique_ptr<fabric::LoopbackFabric> fabric;
    std::unique_ptr<target::Device> device;
    std::unique_ptr<target::Portal> portal;
    std::unique_ptr<lun::Engine> engine;
    std::shared_ptr<Mount> mount;
    initiator::TargetPortConfig port_config;
    Statistics statistics;
    unsigned operations_left = 0;
    bool stormy = true;  // trouble may still come

private:
    friend class Client;
    void on_lun_added(const std::shared_ptr<MountedLun>& lun) override;
    void on_port_state(initiator::PortState from, initiator::PortState to) override;
    void on_logged_in() override { ++statistics.logins; }
    void on_gone() override;

    void make_target();
    void make_engine();
    void log_in();
    void gremlin();
    void crash(Duration down);
    void calm_down();
    [[nodiscard]] bool is_whole();
    void check_everything();
    void check_idle();
    void shut_down();
    bool ask_and_wait(unsigned number, lun::OperationKind kind, std::uint64_t offset, std::uint32_t bytes);
    [[nodiscard]] std::shared_ptr<MountedLun> any_lun(Random& from);

    bool verbose_;
    std::optional<std::string> violation_;
    std::vector<Slot> slots_;
    std::map<std::string, Disk*> disks_;
    std::vector<std::unique_ptr<Client>> clients_;
    std::unique_ptr<Client> checker_;
    std::unique_ptr<reactor::Timer> gremlin_timer_, login_timer_, rescan_timer_;
    std::vector<std::unique_ptr<reactor::Timer>> repairs_;
    Random trouble_, work_;
    bool crashed_ = false, finished_ = false;
    Duration gremlin_interval_{};
};

// ---- people ----

Client::Client(World& world, unsigned number)
    : world_(world), number_(number), timer_(world.scheduler.timers, [this] { next(); }),
      interrupt_timer_(world.scheduler.timers, [this] { interrupt(); }), bound_timer_(world.scheduler.timers, [this] {
          world_.violated(fmt::format("{} is not answered after {} s", describe(), in_seconds(answer_bound)));
      }) {}

std::string Client::describe() const {
    static constexpr const char* names[] = {"read", "write", "flush", "raw"};
    return fmt::format("client {}: {} of {} bytes at {}{} (write {}) of {} {}", number_, names[static_cast<int>(kind_)],
                       bytes_, offset_, stable_ ? ", stable" : "", write_, lun_ ? lun_->lun.file_name() : "-",
                       disk_ ? disk_->config.wwid.substr(34) : "");
}

void Client::next() {
    if (operation_ || world_.violation_) return;
    if (world_.operations_left == 0) return;
    Random& random = world_.work_;
    const auto lun = world_.any_lun(random);
    if (!lun) return start_after(200ms);
    --world_.operations_left;

    const std::uint64_t capacity = lun->unit->info()->capacity_bytes();
    const std::uint32_t block = lun->unit->info()->block_bytes;
    const std::uint64_t hot = std::min<std::uint64_t>(capacity, 12 * block);
    const std::uint64_t area = random.chance(1, 2) ? hot : capacity;
    std::uint64_t length = 0, offset = 0;
    switch (random.below(8)) {
        case 0: length = random.between(1, block); break;
        case 1: length = random.between(1, std::uint64_t{5} * block); break;
        case 2: length = random.between(1, 65536); break;
        default: length = random.between(1, 8) * block; break;
    }
    length = std::min(length, area);
    offset = random.below(area - length + 1);
    if (!random.chance(1, 4)) {  // mostly whole blocks
        offset -= offset % block;
        length = std::max<std::uint64_t>(block, length - length % block);
        length = std::min(length, capacity - offset);
    }
    const auto kind = random.chance(1, 10)  ? lun::OperationKind::flush
                      : random.chance(1, 2) ? lun::OperationKind::read
                                            : lun::OperationKind::write;
    stable_ = random.chance(1, 6);
    asked_ = false;
    const bool to_be_interrupted = world_.stormy && world_.plan.has(Fault::interrupts) && random.chance(1, 12);
    const auto patience = random.below(700'000'000);
    ask(lun, kind, offset, static_cast<std::uint32_t>(length));
    if (operation_ && to_be_interrupted)
        interrupt_timer_.arm_after(
            Duration(static_cast<Duration::rep>(random.chance(1, 2) ? patience / 1000 : patience)));
}

void Client::ask(const std::shared_ptr<MountedLun>& lun, lun::OperationKind kind, std::uint64_t offset,
                 std::uint32_t bytes) {
    lun_ = lun;
    disk_ = world_.disk_of(*lun);
    kind_ = kind;
    offset_ = offset;
    bytes_ = bytes;
    write_ = 0;
    interrupted_ = ended_well_ = false;
    lun::Unit& unit = *lun->unit;
    const std::uint32_t block = unit.info()->block_bytes;
    lun::Operation* operation = world_.engine->take();
    if (!operation) {
        ++world_.statistics.failed;
        return start_after(50ms);
    }
    ++world_.statistics.operations;
    if (kind != lun::OperationKind::flush && (offset % block != 0 || bytes % block != 0)) ++world_.statistics.unaligned;
    started_ = world_.now();
    switch (kind) {
        case lun::OperationKind::read:
            ++world_.statistics.reads;
            began_ = disk_->oracle->begin_read();
            operation->prepare_read(unit, offset, bytes, *this);
            break;
        case lun::OperationKind::write: {
            ++world_.statistics.writes;
            const auto intake = world_.engine->intake().subspan(lun::intake_header_bytes, bytes);
            write_ = disk_->oracle->begin_write(offset, bytes);
            Oracle::fill(write_, offset, intake);
            if (!world_.engine->take_over_intake(*operation, unit, bytes)) {
                disk_->oracle->end_write(write_, Oracle::End::unknown, false);
                operation->release();
                ++world_.statistics.failed;
                world_.tell("{}: no memory", describe());
                return start_after(50ms);
            }
            // What is read into the buffer next must not show.
            std::memset(world_.engine->intake().data(), 0xdd, 4096);
            operation->prepare_write(unit, offset, stable_ ? lun::Durability::stable : lun::Durability::cached, *this);
            break;
        }
        case lun::OperationKind::flush:
            ++world_.statistics.flushes;
            began_ = disk_->oracle->begin_flush();
            operation->prepare_flush(unit, *this);
            break;
        case lun::OperationKind::raw: SRPFS_ASSERT(false);
    }
    operation_ = operation;
    world_.tell("{} begins", describe());
    if (world_.port_config.timers.fast_io_fail_tmo) bound_timer_.arm_after(answer_bound);
    unit.start(*operation);
}

void Client::interrupt() {
    if (!operation_ || interrupted_) return;
    interrupted_ = true;
    interrupted_at_ = world_.now();
    ++world_.statistics.faults[static_cast<unsigned>(Fault::interrupts)];
    world_.tell("{} is interrupted", describe());
    lun_->unit->interrupt(*operation_);
}

void Client::on_answered(lun::Operation& operation) {
    if (operation_ != &operation) return world_.violated(fmt::format("{} was answered twice", describe()));
    operation_ = nullptr;
    interrupt_timer_.disarm();
    bound_timer_.disarm();
    const lun::Outcome outcome = operation.outcome();
    world_.tell("{} ends: kind {} status {:#x} sense {}", describe(), static_cast<int>(outcome.kind),
                static_cast<int>(outcome.status), scsi::describe(outcome.sense));
    if (interrupted_ && world_.now() - interrupted_at_ > interrupt_bound)
        world_.violated(fmt::format("{} was answered {:.3f} s after its interrupt", describe(),
                                    in_seconds(world_.now() - interrupted_at_)));
    if (outcome.kind == OutcomeKind::interrupted) {
        ++world_.statistics.interrupted;
        if (!interrupted_) world_.violated(fmt::format("{} ended as interrupted, but nobody did", describe()));
    } else if (!outcome.ok()) {
        ++world_.statistics.failed;
    }
    ended_well_ = outcome.ok();
    if (!outcome.ok() && world_.plan.describe() == "none")
        world_.violated(fmt::format("{} failed with kind {} although nothing went wrong", describe(),
                                    static_cast<int>(outcome.kind)));
    switch (kind_) {
        case lun::OperationKind::read:
            if (!outcome.ok()) {
                if (!operation.data().empty()) world_.violated(describe() + " failed and has data");
                break;
            }
            if (operation.data().size() != bytes_) {
                world_.violated(fmt::format("{} gave {} bytes", describe(), operation.data().size()));
                break;
            }
            world_.statistics.bytes_checked += bytes_;
            if (const auto wrong = disk_->oracle->end_read(began_, offset_, operation.data()))
                world_.violated(fmt::format("{} of {}: {}", describe(), lun_->info->wwid, *wrong));
            break;
        case lun::OperationKind::write:
            disk_->oracle->end_write(write_, outcome.ok() ? Oracle::End::acknowledged : Oracle::End::unknown,
                                     stable_ || !disk_->config.write_cache);
            break;
        case lun::OperationKind::flush:
            if (outcome.ok()) {
                disk_->oracle->end_flush_ok(began_);
            } else if (outcome.kind == OutcomeKind::medium_error) {
                ++world_.statistics.cache_losses_told;
                disk_->oracle->end_flush_lost();
            }
            break;
        case lun::OperationKind::raw: break;
    }
    operation.release();
    if (asked_) return;
    Random& random = world_.work_;
    const auto pause = random.below(random.chance(1, 4) ? 800'000'000 : 2'000'000);
    start_after(Duration(static_cast<Duration::rep>(pause)));
}

// ---- the world ----

World::World(std::uint64_t seed, bool verbose)
    : random(seed), plan(random), scheduler(random.next()), control(scheduler), reactor(scheduler),
      target_thread(scheduler), network(plan, random.next()), behaviour(plan, random.next()),
      engine_random(random.next()), verbose_(verbose), trouble_(random.next()), work_(random.next()) {
    if (plan.has(Fault::slow_mail)) scheduler.mail_lag_max = std::chrono::microseconds(random.between(1, 30000));
    fabric = fabric::make_loopback_fabric(scheduler.timers, fabric::demo_port(), &network);
    scheduler.fabric = fabric.get();
    make_target();
    make_engine();
    for (unsigned i = 0, count = static_cast<unsigned>(random.between(1, 12)); i < count; ++i)
        clients_.push_back(std::make_unique<Client>(*this, i));
    checker_ = std::make_unique<Client>(*this, 99);
    operations_left = static_cast<unsigned>(random.chance(1, 4) ? random.between(300, 1500) : random.between(60, 400));
    gremlin_interval_ =
        std::chrono::milliseconds(random.chance(1, 2) ? random.between(20, 1000) : random.between(500, 8000));
    gremlin_timer_ = std::make_unique<reactor::Timer>(scheduler.timers, [this] { gremlin(); });
    login_timer_ = std::make_unique<reactor::Timer>(scheduler.timers, [this] { log_in(); });
    rescan_timer_ = std::make_unique<reactor::Timer>(scheduler.timers, [this] {
        // Whoever sees a unit missing writes to `rescan`.
        if (mount && !is_whole()) mount->rescan();
        rescan_timer_->arm_after(20s);
    });
}

World::~World() = default;

void World::make_target() {
    target::DeviceConfig config;
    constexpr std::int32_t credit_choices[] = {2, 3, 4, 5, 8, 16, 64, 128};
    config.credits = credit_choices[random.below(8)];
    constexpr std::uint32_t request_choices[] = {8276, 8276, 2116, 996, 4148, 16384};
    config.request_bytes_max = request_choices[random.below(6)];
    constexpr std::uint32_t transfer_choices[] = {8 << 20, 8 << 20, 65536, 16384, 4096};
    config.transfer_bytes_max = transfer_choices[random.below(5)];
    config.immediate_data = random.chance(3, 4);
    config.multi_channel = random.chance(7, 8);
    config.channels_per_nexus_max = random.chance(1, 4) ? static_cast<unsigned>(random.between(1, 3)) : 0;
    config.attention_at_login = random.chance(1, 4);
    config.attention_at_change = true;
    config.flat_lun_addresses = random.chance(1, 4);
    config.sense_bytes = random.chance(1, 2) ? 96 : 18;
    config.volatile_cache = target::VolatileCache::modelled;
    auto made = target::Device::create(config, {});
    SRPFS_ASSERT(made.has_value());
    device = std::move(*made);
    device->set_behaviour(&behaviour);

    slots_.resize(random.between(1, 3));
    for (unsigned number = 0; number < slots_.size(); ++number) {
        Slot& slot = slots_[number];
        const std::uint32_t block = random.chance(1, 2) ? 512 : 4096;
        const std::uint64_t bytes = random.between(5, 60) * 4096 + (block == 512 ? random.below(8) * 512 : 0);
        for (unsigned i = 0; i < identities; ++i) {
            Disk& disk = slot.disks[i];
            disk.config.bytes = bytes;
            disk.config.block_bytes = block;
            disk.config.write_cache = random.chance(1, 2);
            disk.config.wwid = fmt::format("naa.600140500000000000000000000000{:x}{:x}", number, i);
            auto store = target::make_store(disk.config, config.volatile_cache);
            SRPFS_ASSERT(store.has_value());
            disk.store = std::move(*store);
            disk.oracle = std::make_unique<Oracle>(block);
            disks_[disk.config.wwid] = &disk;
        }
        SRPFS_ASSERT(device->add_lun(number, slot.disk().config, std::make_unique<SharedStore>(slot.disk().store)));
    }
    auto listening = target::make_portal(*device, target_thread, *fabric, fabric::LoopbackAddress{"demo"},
                                         {.buffers_16k = 24, .buffers_128k = 4, .buffers_1m = 2, .buffers_8m = 1});
    SRPFS_ASSERT(listening.has_value());
    portal = std::move(*listening);
}

void World::make_engine() {
    lun::EngineLimits limits;
    limits.intake_buffers = static_cast<unsigned>(random.between(3, 8));
    limits.read_buffers_4k = static_cast<unsigned>(random.between(2, 8));
    limits.read_buffers_64k = static_cast<unsigned>(random.between(2, 6));
    limits.read_buffers_1m = static_cast<unsigned>(random.between(2, 3));
    limits.edge_buffers = static_cast<unsigned>(random.between(1, 6));
    limits.operations_max = random.chance(1, 6) ? 64 : 4096;
    limits.park_bytes_max = random.chance(1, 5) ? random.between(65536, 262144) : 16 << 20;
    auto made = lun::Engine::create(limits, {fabric.get()}, reactor, engine_random);
    SRPFS_ASSERT(made.has_value());
    engine = std::move(*made);

    port_config.name = "demo";
    port_config.address = fabric::LoopbackAddress{"demo"};
    srp::LoginParameters& parameters = port_config.parameters;
    parameters.id_ext = parameters.ioc_guid = 1;
    parameters.dest = srp::IpDestination{"demo", 0};
    constexpr unsigned sector_choices[] = {1024, 128, 64, 16, 8};
    parameters.max_sect = sector_choices[random.below(5)];
    constexpr unsigned queue_choices[] = {1, 2, 4, 16, 62};
    parameters.queue_size = queue_choices[random.below(5)];
    parameters.max_cmd_per_lun = static_cast<unsigned>(random.between(1, parameters.queue_size));
    parameters.ch_count = static_cast<unsigned>(random.between(1, 4));
    parameters.use_imm_data = random.chance(3, 4);
    constexpr unsigned immediate_choices[] = {8192, 8192, 512, 4096, 65536};
    parameters.max_imm_data = immediate_choices[random.below(5)];
    initiator::TransportTimers& timers = port_config.timers;
    timers.reconnect_delay = static_cast<std::uint32_t>(random.between(1, 10));
    timers.fast_io_fail_tmo = static_cast<std::uint32_t>(random.between(1, 20));
    timers.dev_loss_tmo = 600;
    switch (random.below(8)) {
        case 0: timers.fast_io_fail_tmo.reset(); break;
        case 1: timers.dev_loss_tmo.reset(); break;
        case 2:
            timers.fast_io_fail_tmo.reset();
            timers.dev_loss_tmo.reset();
            break;
        case 3: timers.dev_loss_tmo = 25; break;
        default: break;
    }
    SRPFS_ASSERT(initiator::validate(timers));
}

void World::log_in() {
    if (mount || finished_) return;
    tell("logging in");
    mount =
        std::make_shared<Mount>(port_config, control, initiator::ReactorDoor{&reactor, fabric.get()}, *engine, *this);
    mount->login();
}

void World::on_gone() {
    tell("logged out");
    control.post([this, last = std::move(mount)]() mutable {
        last.reset();
        if (!finished_) login_timer_->arm_after(Duration(static_cast<Duration::rep>(trouble_.below(3'000'000'000))));
    });
}

void World::on_lun_added(const std::shared_ptr<MountedLun>& lun) {
    Disk* disk = disk_of(*lun);
    tell("{} is {}", lun->lun.file_name(), lun->info->wwid);
    if (!disk) return violated(fmt::format("a unit of unknown identity '{}' appeared", lun->info->wwid));
    // A new unit knows nothing of what an earlier one of the same name left behind.
    if (disk->times_mounted++ > 0) disk->oracle->on_forgotten();
}

void World::on_port_state(initiator::PortState from, initiator::PortState to) {
    tell("port: {} -> {}", initiator::to_string(from), initiator::to_string(to));
    if (to == initiator::PortState::running && from != initiator::PortState::connecting) ++statistics.reconnects;
}

std::shared_ptr<MountedLun> World::any_lun(Random& from) {
    if (!mount || mount->is_leaving()) return nullptr;
    std::vector<std::shared_ptr<MountedLun>> usable;
    for (const auto& lun : mount->luns())
        if (lun->unit && lun->unit->info() && !lun->gone) usable.push_back(lun);
    return usable.empty() ? nullptr : usable[from.below(usable.size())];
}

// ---- trouble ----

void World::crash(Duration down) {
    if (crashed_) return;
    crashed_ = true;
    tell("the target crashes for {:.3f} s", in_seconds(down));
    const unsigned mode = static_cast<unsigned>(trouble_.below(3));
    device->crash([&](unsigned, std::uint64_t) { return mode == 0 || (mode == 1 && trouble_.chance(1, 2)); });
    for (Slot& slot : slots_)
        if (slot.present) slot.disk().oracle->on_cache_lost();
    repairs_.push_back(std::make_unique<reactor::Timer>(scheduler.timers, [this] {
        if (!std::exchange(crashed_, false)) return;
        tell("the target is up again");
        device->restart();
    }));
    repairs_.back()->arm_after(down);
}

void World::gremlin() {
    if (!stormy) return;
    gremlin_timer_->arm_after(Duration(
        static_cast<Duration::rep>(trouble_.below(static_cast<std::uint64_t>(2 * gremlin_interval_.count())))));
    const auto later = [&](Duration most, std::function<void()> work) {
        repairs_.push_back(std::make_unique<reactor::Timer>(scheduler.timers, std::move(work)));
        repairs_.back()->arm_after(
            Duration(static_cast<Duration::rep>(trouble_.below(static_cast<std::uint64_t>(most.count())))));
    };
    const Duration length = trouble_.chance(1, 3) ? 30s : 2s;
    std::vector<Fault> possible;
    for (const Fault fault :
         {Fault::link_flaps, Fault::crash, Fault::cache_loss, Fault::disabled, Fault::dropped_channels,
          Fault::logouts_by_target, Fault::credit_requests, Fault::async_events, Fault::lost_lun, Fault::swapped_lun,
          Fault::grown_lun, Fault::read_only_lun, Fault::host_resets, Fault::lun_resets, Fault::logouts,
          Fault::rescans})
        if (plan.has(fault)) possible.push_back(fault);
    if (possible.empty()) return;
    const Fault fault = possible[trouble_.below(possible.size())];
    ++statistics.faults[static_cast<unsigned>(fault)];
    const auto number = static_cast<unsigned>(trouble_.below(slots_.size()));
    Slot& slot = slots_[number];
    const auto any_channel = [&]() -> std::optional<target::ChannelId> {
        const auto channels = device->channels();
        if (channels.empty() || trouble_.chance(1, 3)) return std::nullopt;
        return channels[trouble_.below(channels.size())].id;
    };
    tell("trouble: {} (LUN {})", to_string(fault), number);
    const auto add = [this](unsigned which) {
        Slot& there = slots_[which];
        SRPFS_ASSERT(device->add_lun(which, there.disk().config, std::make_unique<SharedStore>(there.disk().store)));
        there.present = true;
        there.read_only = false;
        device->raise_attention(which, 0x3f, 0x0e);
    };
    switch (fault) {
        case Fault::link_flaps:
            fabric->link_down();
            later(length, [this] { fabric->link_up(); });
            break;
        case Fault::crash:
            crash(Duration(static_cast<Duration::rep>(trouble_.below(static_cast<std::uint64_t>(length.count())))));
            break;
        case Fault::cache_loss:  // a power cut so short that one may miss it
            crash(Duration(static_cast<Duration::rep>(trouble_.below(20'000'000))));
            break;
        case Fault::disabled:
            device->set_enabled(false);
            later(length, [this] { device->set_enabled(true); });
            break;
        case Fault::dropped_channels: device->disconnect(any_channel()); break;
        case Fault::logouts_by_target:
            device->send_target_logout(any_channel(), static_cast<std::uint32_t>(trouble_.below(6)));
            break;
        case Fault::credit_requests: device->send_owed_credits(any_channel()); break;
        case Fault::async_events: {
            scsi::Sense sense;
            sense.valid = true;
            sense.key = scsi::SenseKey::unit_attention;
            constexpr std::uint8_t kinds[][2] = {{0x3f, 0x0e}, {0x2a, 0x09}, {0x29, 0x00}, {0x2a, 0x06}};
            const auto& kind = kinds[trouble_.below(4)];
            sense.asc = kind[0];
            sense.ascq = kind[1];
            device->send_async_event(any_channel(), scsi::Lun::from_number(static_cast<std::uint16_t>(number)), sense);
            break;
        }
        case Fault::lost_lun:
            if (!slot.present) break;
            SRPFS_ASSERT(device->remove_lun(number));
            slot.present = false;
            later(length, [this, number, add] {
                if (!slots_[number].present) add(number);
            });
            break;
        case Fault::swapped_lun:
            // While nobody is logged in: a target tells a living session only once, in answer to one of the commands
            // that are in flight, and carries out the others on what is there now.
            if (!slot.present) break;
            device->set_enabled(false);
            SRPFS_ASSERT(device->remove_lun(number));
            slot.present = false;
            slot.current = (slot.current + 1) % identities;
            later(length, [this, number, add] {
                if (!slots_[number].present) add(number);
                device->set_enabled(true);
            });
            break;
        case Fault::grown_lun:
            if (!slot.present || slot.disk().store->bytes() > (1 << 20)) break;
            slot.disk().config.bytes += 8 * 4096;
            SRPFS_ASSERT(device->resize_lun(number, slot.disk().config.bytes));
            break;
        case Fault::read_only_lun:
            if (!slot.present) break;
            slot.read_only = !slot.read_only;
            SRPFS_ASSERT(device->set_read_only(number, slot.read_only));
            break;
        case Fault::host_resets:
            if (mount) mount->reset_host();
            break;
        case Fault::lun_resets:
            if (const auto lun = any_lun(trouble_)) mount->reset_lun(lun);
            break;
        case Fault::logouts:
            if (mount) mount->logout("asked for");
            break;
        case Fault::rescans:
            if (mount) mount->rescan();
            break;
        default: SRPFS_ASSERT(false);
    }
}

void World::calm_down() {
    tell("all is well from now on");
    stormy = false;
    network.active = behaviour.active = false;
    gremlin_timer_->disarm();
    fabric->link_up();
    device->set_enabled(true);
    if (std::exchange(crashed_, false)) device->restart();
    device->release_held();
    for (unsigned number = 0; number < slots_.size(); ++number) {
        Slot& slot = slots_[number];
        if (!slot.present) {
            SRPFS_ASSERT(device->add_lun(number, slot.disk().config, std::make_unique<SharedStore>(slot.disk().store)));
            slot.present = true;
            slot.read_only = false;
            device->raise_attention(number, 0x3f, 0x0e);
        }
        if (std::exchange(slot.read_only, false)) SRPFS_ASSERT(device->set_read_only(number, false));
    }
    for (auto& repair : repairs_) repair->disarm();
    // Credits it still owes come in requests of its own: on some channels nothing may be sent that could bring them.
    scheduler.advance(1s);
    device->send_owed_credits(std::nullopt);
}

// ---- the end of a run ----

bool World::is_whole() {
    if (!mount || mount->is_leaving() || mount->luns().size() != slots_.size() || !mount->is_quiet()) return false;
    return std::all_of(mount->luns().begin(), mount->luns().end(), [&](const auto& lun) {
        const auto number = lun->lun.small_number();
        return lun->unit && lun->unit->state() == lun::UnitState::running && number && !lun->info->read_only &&
               lun->info->wwid == slots_.at(*number).disk().config.wwid && !lun->unit->needs_fence() &&
               lun->unit->info()->capacity_bytes() == slots_.at(*number).disk().store->bytes();
    });
}

bool World::ask_and_wait(unsigned number, lun::OperationKind kind, std::uint64_t offset, std::uint32_t bytes) {
    // Again when it fails: what went wrong before may only be told now, and a channel that was lied to only end now.
    for (unsigned attempt = 0; attempt < 4; ++attempt) {
        if (!scheduler.run_until([&] { return is_whole() || violation_; }, quiet_bound) || violation_) break;
        const auto lun = std::find_if(mount->luns().begin(), mount->luns().end(),
                                      [&](const auto& one) { return one->lun.small_number() == number; });
        checker_->ask(*lun, kind, offset, bytes);
        scheduler.run_until([&] { return !checker_->is_busy() || violation_; }, quiet_bound);
        if (violation_) return false;
        if (checker_->ended_well()) return true;
    }
    violated("in the end: " + checker_->describe() + " does not succeed although all is well");
    return false;
}

void World::check_everything() {
    for (unsigned number = 0; number < slots_.size(); ++number) {
        const std::uint64_t capacity = slots_[number].disk().store->bytes();
        for (std::uint64_t at = 0; at < capacity; at += 65536)
            if (!ask_and_wait(number, lun::OperationKind::read, at,
                              static_cast<std::uint32_t>(std::min<std::uint64_t>(65536, capacity - at))))
                return;
        if (!ask_and_wait(number, lun::OperationKind::flush, 0, 0)) return;
    }
    // A few more, so that each channel has had a response that brings back all credits.
    for (unsigned i = 0; i < 8; ++i)
        if (!ask_and_wait(0, lun::OperationKind::read, 0, 512)) return;
}

void World::check_idle() {
    const auto usage = engine->usage();
    if (usage.operations_in_use || usage.intake_in_use || usage.read_4k_in_use || usage.read_64k_in_use ||
        usage.read_1m_in_use || usage.edges_in_use || usage.parked_bytes)
        violated(
            fmt::format("memory is missing at the end: operations {}, intake {}, reads {}/{}/{}, edges {}, parked {}",
                        usage.operations_in_use, usage.intake_in_use, usage.read_4k_in_use, usage.read_64k_in_use,
                        usage.read_1m_in_use, usage.edges_in_use, usage.parked_bytes));
    if (!mount) return;
    // Target channel ids and our channels cannot be matched, so one lie excuses all.
    for (const auto& channel : mount->port().link(0).report()) {
        if (channel.state != initiator::ChannelState::live) continue;
        if (channel.in_flight != 0)
            violated(fmt::format("channel {} has {} commands in flight at the end", channel.index, channel.in_flight));
        if (behaviour.lied_about_credits.empty() && channel.credits != channel.facts.credits_initial)
            violated(fmt::format("channel {} has {} credits at the end, it began with {}", channel.index,
                                 channel.credits, channel.facts.credits_initial));
    }
    for (const auto& lun : mount->luns()) {
        statistics.ghosts += lun->unit->counters()->ghosts.load();
        statistics.retries += lun->unit->counters()->retries.load();
        if (lun->unit->needs_fence()) violated("writes are still unfenced at the end");
        if (lun->unit->operations() != 0) violated("operations are left at the end");
    }
}

void World::shut_down() {
    finished_ = true;
    login_timer_->disarm();
    rescan_timer_->disarm();
    if (mount) mount->logout("the end");
    scheduler.run_until([&] { return !mount; }, 60s);
    if (mount) return violated("logging out does not end: " + mount->describe_end());
    scheduler.advance(1s);
    portal->close();
    scheduler.advance(120s);
    if (!portal->is_closed()) return violated("the target does not come to an end");
    if (fabric->connections() != 0) return violated("connections are left at the end");
    for (auto& client : clients_) client->stop();
    checker_->stop();
    gremlin_timer_.reset();
    rescan_timer_.reset();
    login_timer_.reset();
    repairs_.clear();
    if (scheduler.timers.next_deadline() != instant_never) {
        // The portal's own go with it.
        portal.reset();
        if (scheduler.timers.next_deadline() != instant_never) violated("a timer is left at the end");
    }
    const auto usage = engine->usage();
    if (usage.operations_in_use) violated("operations are left after logging out");
}

Outcome World::run() {
    tell("plan: {}", plan.describe());
    login_timer_->arm_after(Duration::zero());
    rescan_timer_->arm_after(20s);
    gremlin_timer_->arm_after(gremlin_interval_);
    for (auto& client : clients_) client->start_after(1ms);

    const Duration storm = std::chrono::seconds(random.between(5, 120));
    const auto over = [&] { return violation_.has_value() || scheduler.steps > steps_max; };
    const auto idle = [&] {
        return operations_left == 0 &&
               std::none_of(clients_.begin(), clients_.end(), [](const auto& client) { return client->is_busy(); });
    };
    scheduler.run_until([&] { return over() || idle(); }, storm);
    if (!over()) {
        calm_down();
        if (!scheduler.run_until([&] { return over() || idle(); }, quiet_bound) && !over()) {
            std::string who;
            for (const auto& client : clients_)
                if (client->is_busy()) who += "\n    " + client->describe();
            violated(fmt::format("{} s after all is well again not everything has ended ({} to go):{}",
                                 in_seconds(quiet_bound), operations_left, who));
        }
    }
    if (!over() && !scheduler.run_until([&] { return over() || is_whole(); }, quiet_bound) && !over())
        violated(fmt::format("{} s after all is well again not every unit is usable", in_seconds(quiet_bound)));
    if (!over()) check_everything();
    if (!over()) scheduler.advance(40s);
    if (!over()) check_idle();
    if (!over()) shut_down();
    if (scheduler.steps > steps_max) violated("time stands still");
    statistics.late_writes = device->counters().late;
    statistics.fences = device->counters().task_managements;
    statistics.steps = scheduler.steps;
    statistics.seconds = in_seconds(now() - Instant{});
    return {violation_, plan.describe(), statistics};
}

}  // namespace

void Statistics::add(const Statistics& other) {
    operations += other.operations;
    reads += other.reads;
    writes += other.writes;
    flushes += other.flushes;
    unaligned += other.unaligned;
    bytes_checked += other.bytes_checked;
    failed += other.failed;
    interrupted += other.interrupted;
    logins += other.logins;
    reconnects += other.reconnects;
    ghosts += other.ghosts;
    retries += other.retries;
    late_writes += other.late_writes;
    cache_losses_told += other.cache_losses_told;
    fences += other.fences;
    steps += other.steps;
    seconds += other.seconds;
    for (unsigned i = 0; i < fault_count; ++i) faults[i] += other.faults[i];
}

Outcome run_world(std::uint64_t seed, bool verbose) {
    auto world = std::make_unique<World>(seed, verbose);
    Outcome outcome = world->run();
    if (outcome.violation) (void)world.release();
    return outcome;
}

}  // namespace srpfs::simulation
