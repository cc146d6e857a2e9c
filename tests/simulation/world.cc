// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "world.h"

#include "cluster.h"
#include "files.h"

#include <srpfs/base/bytes.h>
#include <srpfs/base/log.h>
#include <srpfs/lun/zeroing.h>

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <deque>
#include <map>
#include <utility>

#include <fcntl.h>

namespace srpfs::simulation {
namespace {

using namespace std::chrono_literals;
using lun::OutcomeKind;

constexpr Duration answer_bound = 400s;  // of one request while fast_io_fail_tmo is on
constexpr Duration quiet_bound = 600s;   // for everything to come to an end once nothing goes wrong any more
constexpr Duration interrupt_bound = 1s;
constexpr Duration arrival_bound = 1s;  // of a command after its request was answered: the longest delay of a message
constexpr bool writes_are_issued_again = true;
constexpr std::uint64_t steps_max = 20'000'000;
constexpr std::uint64_t zeroing_salt = 114;  // chosen so that the named seeds stay what they were
constexpr std::uint64_t files_salt = 1;      // the same
constexpr std::uint64_t cluster_salt = 0xc1;
constexpr std::uint64_t silence_salt = 0x51;
constexpr std::uint64_t homes_salt = 0x40;
constexpr unsigned first_of_other_home = 16;  // LUNs of the second target
constexpr unsigned identities = 2;            // of a LUN that is swapped

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
    Disk* current = nullptr;
    Disk* spare = nullptr;  // takes its place now and then
    bool present = true;
    bool read_only = false;
    [[nodiscard]] Disk& disk() { return *current; }
};
// What somebody asked for, in blocks.
struct Asked {
    unsigned number = 0;
    std::uint64_t first_block = 0, block_end = 0;
    bool is_write = false;
    Instant answered_at{};
    Duration jumped{};  // World::jumped then
};

class World;

class Client final : public lun::OperationListener {
public:
    Client(World& world, unsigned number);
    void start_after(Duration delay) { timer_.arm_after(delay); }
    [[nodiscard]] bool is_busy() const { return operation_ != nullptr || zeroing_ != nullptr || unique_ != 0; }
    [[nodiscard]] const std::optional<Asked>& asked() const { return request_; }  // and not answered; reads and writes
    // One request of a given kind, for the end of a run.
    void ask(const std::shared_ptr<lun::ListedUnit>& lun, lun::OperationKind kind, std::uint64_t offset,
             std::uint32_t bytes, bool zeroes = false);
    [[nodiscard]] std::string describe() const;
    [[nodiscard]] bool ended_well() const { return ended_well_; }
    void stop() {
        timer_.disarm();
        interrupt_timer_.disarm();
        bound_timer_.disarm();
    }

    // Gives the memory of another connection's end back.
    void forget_files() { open_.clear(); }

private:
    // What may be done to a file, and not to a unit.
    enum class FileKind : std::uint8_t { plain, punch, zero, shrink, grow, extend };
    // Where a file ends since somebody has truncated it.
    struct Cut {
        std::uint64_t end = 0;
        Moment began = 0, ended = 0;
    };
    struct OpenedFile {
        std::uint64_t handle = 0;
        Oracle::Opener opener = 0;
        std::optional<Cut> cut{};
    };
    struct OpenedUnit {
        std::weak_ptr<lun::ListedUnit> unit;
        Oracle::Opener opener = 0;
        std::atomic<std::uint64_t> losses_seen{0};
    };

    void next();
    OpenedUnit& open_unit();
    void ask_file(FileKind file_kind);
    void on_file_answered(int error, std::span<const std::byte> body);
    void close_file();
    void on_answered(lun::Operation& operation) override;
    void on_end(const lun::Outcome& outcome, std::span<const std::byte> data);
    void interrupt();

    World& world_;
    unsigned number_;
    reactor::Timer timer_, interrupt_timer_, bound_timer_;
    lun::Operation* operation_ = nullptr;
    std::unique_ptr<lun::Zeroing> zeroing_;
    std::shared_ptr<lun::ListedUnit> lun_;
    Disk* disk_ = nullptr;
    lun::OperationKind kind_{};
    std::uint64_t offset_ = 0;
    std::uint32_t bytes_ = 0;
    bool stable_ = false, zeroes_ = false, interrupted_ = false, ended_well_ = false, asked_ = false;
    Oracle::WriteId write_ = 0;
    Moment began_ = 0;
    Instant started_{}, interrupted_at_{};
    Duration jumped_at_start_{}, jumped_at_interrupt_{};
    std::optional<Asked> request_;
    std::map<const lun::ListedUnit*, OpenedUnit> units_open_;
    std::map<std::weak_ptr<lun::ListedUnit>, OpenedFile, std::owner_less<>> open_;
    Oracle::Opener opener_ = 0;
    Oracle::Through through_ = Oracle::Through::nothing;  // the read that is under way
    std::uint64_t losses_seen_ = 0;
    bool told_of_loss_ = false;
    std::uint64_t unique_ = 0;  // of the request to the file system that is not answered
    FileKind file_kind_{};
    Oracle::Gap gap_;
    Moment cut_began_ = 0;
};

// A second target, whose units have another reactor for their home. What goes wrong on the network concerns it as well.
class OtherHome final : public MountListener {
public:
    OtherHome(World& world, unsigned seat, SimulatedExecutor& reactor, lun::Engine& engine, std::uint64_t seed);
    void log_in();
    [[nodiscard]] bool is_whole() const;
    // Whether it has nothing to do, and has all credits.
    [[nodiscard]] bool is_quiet() const;
    void check_idle();
    [[nodiscard]] std::vector<std::shared_ptr<lun::ListedUnit>> luns() const;
    [[nodiscard]] std::uint64_t bytes(unsigned number) const {
        return disks_.at(number - first_of_other_home)->store->bytes();
    }
    [[nodiscard]] unsigned units() const { return static_cast<unsigned>(disks_.size()); }
    void reset_if_stuck();
    void logout();
    [[nodiscard]] bool has_left() const { return !mount_; }
    target::Portal& portal() { return *portal_; }
    target::Device& device() { return *device_; }
    void stop() { login_timer_.disarm(); }
    void destroy_portal() { portal_.reset(); }

private:
    void on_lun_added(const std::shared_ptr<lun::ListedUnit>& lun, lun::Unit* pointer) override;
    void on_lun_changed(const lun::ListedUnit& lun) override;
    void on_lun_attention() override;
    void on_lun_removed(const std::shared_ptr<lun::ListedUnit>& lun, std::function<void()> release) override;
    void on_port_state(initiator::PortState from, initiator::PortState to) override;
    void on_logged_in() override;
    void on_gone() override;

    World& world_;
    const unsigned seat_;
    SimulatedExecutor& reactor_;
    lun::Engine& engine_;
    Random random_;
    std::vector<Disk*> disks_;
    std::unique_ptr<target::Device> device_;
    std::unique_ptr<target::Portal> portal_;
    std::shared_ptr<Mount> mount_;
    reactor::Timer login_timer_;
};

class World final : public MountListener {
public:
    World(std::uint64_t seed, bool verbose);
    ~World();
    Outcome run();

    // nullopt: there is an excuse for that failure.
    [[nodiscard]] std::optional<std::string> why_not_excused(lun::OperationKind kind, const lun::Outcome& outcome,
                                                             bool write_cache, unsigned number, Instant since) const;
    void remember_answered(Asked asked);
    [[nodiscard]] bool is_swapping() const { return swap_number_.has_value(); }

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
            if (lun->unit()) *violation_ += "\n  " + lun->unit()->describe_operations();
    }
    [[nodiscard]] Instant now() const { return scheduler.timers.now(); }
    template <typename... Args>
    void tell(fmt::format_string<Args...> format, Args&&... args) {
        if (!verbose_) return;
        fmt::print(stderr, "[{:12.6f}] {}\n", in_seconds(now() - Instant{}),
                   fmt::format(format, std::forward<Args>(args)...));
    }
    [[nodiscard]] Disk* disk_of(const lun::ListedUnit& lun) {
        const auto found = disks_.find(lun.info()->wwid);
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
    // Every third seed: requests come to files, through one to three reactors, of which `reactor` is the units' home.
    std::vector<std::unique_ptr<SimulatedExecutor>> other_reactors;
    std::unique_ptr<fabric::LoopbackFabric> other_fabric;
    std::vector<std::unique_ptr<lun::Engine>> other_engines;
    std::unique_ptr<Files> files;
    unsigned home = 0;                 // the seat of `reactor`
    std::unique_ptr<OtherHome> other;  // half of the seeds with files
    Random file_work{0};
    std::unique_ptr<Cluster> cluster;  // every fourth seed
    Duration rescan_interval{};
    std::shared_ptr<Mount> mount;
    initiator::TargetPortConfig port_config;
    Statistics statistics;
    unsigned operations_left = 0;
    bool stormy = true;  // trouble may still come
    bool is_short_of_parking = false;
    bool has_zeroing = false;
    bool shrinks_silently = false;  // no unit attention when a unit is made smaller
    [[nodiscard]] Duration jumped() const { return scheduler.jumped(); }

private:
    friend class Client;
    friend class OtherHome;
    void on_lun_added(const std::shared_ptr<lun::ListedUnit>& lun, lun::Unit* pointer) override;
    void on_lun_changed(const lun::ListedUnit& lun) override;
    void on_lun_attention() override {
        if (files) files->drop_pages();
    }
    void on_lun_removed(const std::shared_ptr<lun::ListedUnit>& lun, std::function<void()> release) override;
    void on_lun_registration(const lun::ListedUnit& lun, bool lost) override {
        if (cluster) cluster->on_registration(lun, lost);
    }
    void on_port_state(initiator::PortState from, initiator::PortState to) override;
    void on_logged_in() override;
    void on_gone() override;

    void make_target();
    lun::EngineLimits make_engine();
    void make_files(std::uint64_t seed, const lun::EngineLimits& limits);
    void note_added(const lun::ListedUnit& lun, lun::Unit* pointer, unsigned seat);
    void make_cluster(std::uint64_t seed);
    void count_cluster();
    void log_in();
    void gremlin();
    void crash(Duration down);
    void on_arrival(const target::CommandView& command);
    void try_swap();
    void add_lun(unsigned number);
    void remove_lun(unsigned number);
    void calm_down();
    [[nodiscard]] bool is_whole();
    void check_everything();
    [[nodiscard]] bool is_quiet() const;
    void check_idle();
    void shut_down();
    bool ask_and_wait(unsigned number, lun::OperationKind kind, std::uint64_t offset, std::uint32_t bytes);
    [[nodiscard]] std::shared_ptr<lun::ListedUnit> any_lun(Random& from, bool of_all = false);
    [[nodiscard]] std::vector<std::shared_ptr<lun::ListedUnit>> all_luns() const;

    bool verbose_;
    std::optional<std::string> violation_;
    std::deque<Disk> pool_;
    std::vector<Slot> slots_;
    std::map<std::string, Disk*> disks_;
    std::vector<std::unique_ptr<Client>> clients_;
    std::unique_ptr<Client> checker_;
    std::unique_ptr<reactor::Timer> gremlin_timer_, login_timer_, rescan_timer_, swap_timer_;
    std::vector<std::unique_ptr<reactor::Timer>> repairs_;
    std::optional<unsigned> swap_number_;  // nobody writes until this LUN has been exchanged, and that was noticed
    bool swapped_ = false;
    bool has_device_ = true;
    unsigned jumps_left_ = 5;
    Instant next_jump_{};         // not counting the time jumped over
    std::deque<Asked> answered_;  // not long ago
    Random trouble_, work_, zeroing_;
    bool crashed_ = false, crashed_since_login_ = false, finished_ = false;
    Duration gremlin_interval_{};
};

// ---- people ----

Client::Client(World& world, unsigned number)
    : world_(world), number_(number), timer_(world.scheduler.timers, [this] { next(); }),
      interrupt_timer_(world.scheduler.timers, [this] { interrupt(); }), bound_timer_(world.scheduler.timers, [this] {
          // A zeroing is up to three requests, one after the other.
          // One to a file may wait for that of another one.
          const Duration left = (unique_ != 0 && kind_ == lun::OperationKind::write ? 8
                                 : zeroing_                                         ? 3
                                                                                    : 1) *
                                    answer_bound -
                                (world_.now() - started_ - (world_.jumped() - jumped_at_start_));
          if (left > Duration::zero()) return bound_timer_.arm_after(left);
          world_.violated(fmt::format("{} is not answered after {} s", describe(), in_seconds(answer_bound)));
      }) {}

std::string Client::describe() const {
    static constexpr const char* names[] = {"read", "write", "flush", "raw"};
    return fmt::format("client {}: {} of {} bytes at {}{} (write {}) of {} {}", number_,
                       zeroes_ ? "zeroing" : names[static_cast<int>(kind_)], bytes_, offset_, stable_ ? ", stable" : "",
                       write_, lun_ ? lun_->lun().file_name() : "-", disk_ ? disk_->config.wwid.substr(34) : "");
}

void Client::next() {
    if (is_busy() || world_.violation_) return;
    if (world_.operations_left == 0) return;
    Random& random = world_.work_;
    const auto lun = world_.any_lun(random, true);
    if (!lun) return start_after(200ms);
    --world_.operations_left;

    const std::uint64_t capacity = lun->unit()->info()->capacity_bytes();
    const std::uint32_t block = lun->unit()->info()->block_bytes;
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
    auto kind = random.chance(1, 10)  ? lun::OperationKind::flush
                : random.chance(1, 2) ? lun::OperationKind::read
                                      : lun::OperationKind::write;
    if (world_.is_swapping()) kind = lun::OperationKind::read;
    file_kind_ = FileKind::plain;
    stable_ = random.chance(1, 6);
    asked_ = false;
    const bool to_be_interrupted = world_.stormy && world_.plan.has(Fault::interrupts) && random.chance(1, 12);
    const auto patience = random.below(700'000'000);
    const bool zeroes = kind == lun::OperationKind::write && world_.has_zeroing && world_.zeroing_.chance(1, 4);
    if (zeroes) stable_ = false;
    if (world_.files && kind == lun::OperationKind::write) {
        Random& files = world_.file_work;
        if (zeroes)
            file_kind_ = files.chance(1, 2) ? FileKind::punch : FileKind::zero;
        else if (files.chance(1, 8))
            file_kind_ = FileKind::shrink;
        else if (files.chance(1, 8))
            file_kind_ = files.chance(1, 2) ? FileKind::grow : FileKind::extend;
    }
    ask(lun, kind, offset, static_cast<std::uint32_t>(length), zeroes);
    if (is_busy() && to_be_interrupted)
        interrupt_timer_.arm_after(
            Duration(static_cast<Duration::rep>(random.chance(1, 2) ? patience / 1000 : patience)));
}

void Client::ask(const std::shared_ptr<lun::ListedUnit>& lun, lun::OperationKind kind, std::uint64_t offset,
                 std::uint32_t bytes, bool zeroes) {
    lun_ = lun;
    disk_ = world_.disk_of(*lun);
    kind_ = kind;
    offset_ = offset;
    bytes_ = bytes;
    write_ = 0;
    zeroes_ = zeroes;
    interrupted_ = ended_well_ = false;
    lun::Unit& unit = *lun->unit();
    const std::uint32_t block = unit.info()->block_bytes;
    lun::Operation* operation = zeroes || world_.files ? nullptr : world_.engine->take();
    if (!operation && !zeroes && !world_.files) {
        ++world_.statistics.failed;
        return start_after(50ms);
    }
    ++world_.statistics.operations;
    if (kind != lun::OperationKind::flush && (offset % block != 0 || bytes % block != 0)) ++world_.statistics.unaligned;
    started_ = world_.now();
    jumped_at_start_ = world_.jumped();
    request_.reset();
    if (kind != lun::OperationKind::flush)
        request_ = Asked{.number = lun->lun().small_number().value_or(~0U),
                         .first_block = offset / block,
                         .block_end = (offset + bytes + block - 1) / block,
                         .is_write = kind == lun::OperationKind::write};
    if (world_.files) return ask_file(asked_ ? FileKind::plain : file_kind_);
    OpenedUnit& opened = open_unit();
    opener_ = opened.opener;
    switch (kind) {
        case lun::OperationKind::read:
            ++world_.statistics.reads;
            began_ = disk_->oracle->begin_read();
            operation->prepare_read(unit, offset, bytes, *this);
            break;
        case lun::OperationKind::write: {
            ++world_.statistics.writes;
            if (zeroes) {
                ++world_.statistics.zeroings;
                write_ = disk_->oracle->begin_write(offset, bytes, Oracle::Content::zeros);
                zeroing_ = std::make_unique<lun::Zeroing>(
                    unit, std::vector{lun::ByteRange{offset, offset + bytes}}, world_.zeroing_.chance(1, 2),
                    [this](const lun::Outcome& outcome) {
                        // It may be on the stack above.
                        world_.reactor.post([last = std::shared_ptr<lun::Zeroing>(std::move(zeroing_))] {});
                        on_end(outcome, {});
                    });
                break;
            }
            const auto intake = world_.engine->intake().subspan(lun::intake_header_bytes, bytes);
            write_ = disk_->oracle->begin_write(offset, bytes);
            Oracle::fill(write_, offset, intake);
            if (!world_.engine->take_over_intake(*operation, unit, bytes)) {
                disk_->oracle->end_write(write_, Oracle::End::unknown, false);
                operation->release();
                request_.reset();
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
            operation->prepare_flush(unit, *this, &opened.losses_seen);
            break;
        case lun::OperationKind::raw: SRPFS_ASSERT(false);
    }
    operation_ = operation;
    world_.tell("{} begins", describe());
    if (world_.port_config.timers.fast_io_fail_tmo) bound_timer_.arm_after(answer_bound);
    if (zeroing_)
        zeroing_->start();
    else
        unit.start(*operation);
}

Client::OpenedUnit& Client::open_unit() {
    OpenedUnit& opened = units_open_[lun_.get()];
    if (opened.unit.lock() != lun_) {
        opened.unit = lun_;
        opened.opener = disk_->oracle->open();
        opened.losses_seen = lun_->unit()->counters()->write_losses_told.load();
    }
    return opened;
}

void Client::ask_file(FileKind file_kind) {
    Files& files = *world_.files;
    file_kind_ = file_kind;
    if (const auto old = open_.find(lun_); old != open_.end() && !files.shows(old->second.handle, lun_.get()))
        close_file();
    OpenedFile& file = open_[lun_];
    if (file.handle == 0) file = {.handle = files.open(lun_.get()), .opener = disk_->oracle->open(), .cut = {}};
    opener_ = file.opener;
    const auto capacity = files.capacity(lun_.get());
    if (file.handle == 0 || !capacity || (bytes_ != 0 && offset_ + bytes_ > *capacity)) {
        request_.reset();
        file_kind_ = FileKind::plain;
        open_.erase(lun_);
        return start_after(50ms);
    }
    const auto on_answer = [this](int error, std::span<const std::byte> body) { on_file_answered(error, body); };
    const std::uint64_t end = offset_ + bytes_;
    Oracle& oracle = *disk_->oracle;
    gap_ = {};
    write_ = 0;
    // What lies between where the file ends and where it goes on.
    const auto begin_gap = [&](std::uint64_t until) {
        if (!file.cut || file.cut->end >= until) return;
        gap_ = oracle.begin_gap(file.cut->end, until, file.cut->began, file.cut->ended);
        request_->first_block = std::min(request_->first_block, file.cut->end / lun_->unit()->info()->block_bytes);
    };
    if (world_.port_config.timers.fast_io_fail_tmo) bound_timer_.arm_after(answer_bound);
    switch (kind_) {
        case lun::OperationKind::read:
            ++world_.statistics.reads;
            began_ = oracle.begin_read();
            through_ = Oracle::Through::nothing;
            if (files.has_cache() && world_.file_work.chance(1, 2) &&
                offset_ % Files::page_bytes + bytes_ + Files::page_bytes <= lun::intake_payload_bytes_max) {
                through_ = Oracle::Through::page_cache;
                const std::uint64_t block = lun_->unit()->info()->block_bytes;
                request_->first_block = offset_ / Files::page_bytes * Files::page_bytes / block;
                request_->block_end =
                    (offset_ + bytes_ + Files::page_bytes - 1) / Files::page_bytes * Files::page_bytes / block;
                unique_ = files.read_cached(file.handle, offset_, bytes_, on_answer);
                break;
            }
            unique_ = files.read(file.handle, offset_, bytes_, on_answer);
            break;
        case lun::OperationKind::flush:
            ++world_.statistics.flushes;
            began_ = oracle.begin_flush();
            losses_seen_ = files.losses_seen(file.handle);
            unique_ = files.fsync(file.handle, on_answer);
            break;
        case lun::OperationKind::write:
            switch (file_kind_) {
                case FileKind::plain: {
                    ++world_.statistics.writes;
                    begin_gap(offset_);
                    write_ = oracle.begin_write(offset_, bytes_);
                    std::vector<std::byte> data(bytes_);
                    Oracle::fill(write_, offset_, data);
                    unique_ = files.write(file.handle, offset_, data, stable_, on_answer);
                    break;
                }
                case FileKind::punch:
                case FileKind::zero: {
                    ++world_.statistics.zeroings;
                    const bool keeps = file_kind_ == FileKind::punch || world_.file_work.chance(1, 2);
                    if (!keeps) begin_gap(offset_);
                    write_ = oracle.begin_write(offset_, bytes_, Oracle::Content::zeros);
                    const int mode = (file_kind_ == FileKind::punch ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) |
                                     (keeps ? FALLOC_FL_KEEP_SIZE : 0);
                    if (keeps && file_kind_ == FileKind::zero) file_kind_ = FileKind::punch;  // as far as the end goes
                    unique_ = files.fallocate(file.handle, mode, offset_, bytes_, on_answer);
                    break;
                }
                case FileKind::shrink:
                case FileKind::grow: {
                    ++world_.statistics.truncations;
                    const std::uint64_t size = file_kind_ == FileKind::shrink || !file.cut ? offset_ : end;
                    // A file that was never cut ends with the unit: this one cuts it, wherever.
                    file_kind_ = file.cut && size > file.cut->end ? FileKind::grow : FileKind::shrink;
                    if (file_kind_ == FileKind::grow) begin_gap(size);
                    offset_ = size;
                    bytes_ = 0;
                    cut_began_ = oracle.tick();
                    unique_ = files.truncate(file.handle, size, on_answer);
                    break;
                }
                case FileKind::extend:
                    ++world_.statistics.truncations;
                    begin_gap(end);
                    unique_ = files.fallocate(file.handle, 0, offset_, bytes_, on_answer);
                    break;
            }
            break;
        case lun::OperationKind::raw: SRPFS_ASSERT(false);
    }
    world_.tell("{} begins (request {}, file {}, {} zeroed, {} perhaps)", describe(), unique_,
                static_cast<int>(file_kind_), gap_.firm.size(), gap_.unsure.size());
}

void Client::close_file() {
    const auto file = open_.find(lun_);
    if (file == open_.end()) return;
    world_.files->close(file->second.handle);
    open_.erase(file);
}

void Client::on_file_answered(int error, std::span<const std::byte> body) {
    unique_ = 0;
    lun::Outcome outcome;
    switch (error) {
        case 0: break;
        case EINTR: outcome.kind = OutcomeKind::interrupted; break;
        case ENODEV: outcome.kind = OutcomeKind::gone; break;
        case EBUSY: outcome.kind = world_.cluster ? OutcomeKind::reservation_conflict : OutcomeKind::busy; break;
        // What a flush reports, and all that has no number of its own.
        default:
            outcome.kind = world_.is_short_of_parking ? OutcomeKind::out_of_memory : OutcomeKind::medium_error;
            break;
    }
    // The unit may have another size by now.
    const bool resizes = world_.plan.has(Fault::shrunk_lun) || world_.plan.has(Fault::grown_lun);
    if (kind_ == lun::OperationKind::read && error == 0 && body.size() < bytes_ && resizes)
        bytes_ = static_cast<std::uint32_t>(body.size());
    bool is_whole = outcome.ok();
    if (kind_ == lun::OperationKind::write && file_kind_ == FileKind::plain && is_whole) {
        fuse_write_out out{};
        is_whole = fs::read_struct(body, 0, out) && out.size == bytes_;
        if (!is_whole && !resizes) world_.violated(fmt::format("{} wrote {} bytes", describe(), out.size));
    }
    if (kind_ == lun::OperationKind::write) {
        Oracle& oracle = *disk_->oracle;
        const auto certainty = is_whole ? Oracle::End::acknowledged : Oracle::End::unknown;
        const auto file = open_.find(lun_);
        oracle.end_gap(std::exchange(gap_, {}), certainty,
                       (file_kind_ == FileKind::plain && stable_) || !disk_->config.write_cache);
        // Without a write of its own, on_end() has nothing to end.
        if (write_ != 0 && !is_whole) oracle.end_write(std::exchange(write_, 0), Oracle::End::unknown, false);
        if (!is_whole) {
            // Nobody knows where it ends now.
            close_file();
        } else if (file_kind_ == FileKind::shrink) {
            file->second.cut = Cut{.end = offset_, .began = cut_began_, .ended = oracle.tick()};
        } else if (file_kind_ != FileKind::punch && file->second.cut) {
            file->second.cut->end = std::max(file->second.cut->end, offset_ + bytes_);
        }
    } else {
        const auto file = open_.find(lun_);
        told_of_loss_ = kind_ == lun::OperationKind::flush && error == EIO && file != open_.end() &&
                        world_.files->losses_seen(file->second.handle) != losses_seen_;
        if (error == ENODEV) close_file();
    }
    on_end(outcome, kind_ == lun::OperationKind::read ? body : std::span<const std::byte>{});
}

void Client::interrupt() {
    if (!is_busy() || interrupted_) return;
    interrupted_ = true;
    interrupted_at_ = world_.now();
    jumped_at_interrupt_ = world_.jumped();
    ++world_.statistics.faults[static_cast<unsigned>(Fault::interrupts)];
    world_.tell("{} is interrupted", describe());
    if (unique_ != 0)
        world_.files->interrupt(unique_);
    else if (zeroing_)
        zeroing_->interrupt();
    else
        lun_->unit()->interrupt(*operation_);
}

void Client::on_answered(lun::Operation& operation) {
    if (operation_ != &operation) return world_.violated(fmt::format("{} was answered twice", describe()));
    operation_ = nullptr;
    on_end(operation.outcome(), operation.data());
    operation.release();
}

void Client::on_end(const lun::Outcome& outcome, std::span<const std::byte> data) {
    interrupt_timer_.disarm();
    bound_timer_.disarm();
    world_.tell("{} ends: kind {} status {:#x} sense {}", describe(), static_cast<int>(outcome.kind),
                static_cast<int>(outcome.status), scsi::describe(outcome.sense));
    if (request_) world_.remember_answered(*std::exchange(request_, std::nullopt));
    if (interrupted_ && world_.now() - interrupted_at_ - (world_.jumped() - jumped_at_interrupt_) > interrupt_bound)
        world_.violated(fmt::format("{} was answered {:.3f} s after its interrupt", describe(),
                                    in_seconds(world_.now() - interrupted_at_)));
    if (outcome.kind == OutcomeKind::reservation_conflict) ++world_.statistics.conflicts;
    if (outcome.kind == OutcomeKind::interrupted) {
        ++world_.statistics.interrupted;
        if (!interrupted_) world_.violated(fmt::format("{} ended as interrupted, but nobody did", describe()));
    } else if (!outcome.ok()) {
        ++world_.statistics.failed;
    }
    ended_well_ = outcome.ok();
    // Whoever is told of the end has the size looked at. One that has grown meanwhile may have said the same as before.
    if (outcome.kind == OutcomeKind::out_of_range && lun_->unit() && !world_.plan.has(Fault::grown_lun) &&
        lun_->unit()->info()->capacity_bytes() >= offset_ + bytes_)
        world_.violated(
            fmt::format("{} is beyond the end of {} bytes", describe(), lun_->unit()->info()->capacity_bytes()));
    if (!outcome.ok())
        if (const auto why = world_.why_not_excused(kind_, outcome, disk_->config.write_cache,
                                                    lun_->lun().small_number().value_or(~0U), started_))
            world_.violated(
                fmt::format("{} failed with kind {} although {}", describe(), static_cast<int>(outcome.kind), *why));
    switch (kind_) {
        case lun::OperationKind::read:
            if (!outcome.ok()) {
                if (!data.empty()) world_.violated(describe() + " failed and has data");
                break;
            }
            if (data.size() != bytes_) {
                world_.violated(fmt::format("{} gave {} bytes", describe(), data.size()));
                break;
            }
            world_.statistics.bytes_checked += bytes_;
            if (const auto wrong = disk_->oracle->end_read(began_, offset_, data, through_))
                world_.violated(fmt::format("{} of {}: {}", describe(), lun_->info()->wwid, *wrong));
            break;
        case lun::OperationKind::write:
            if (write_ == 0) break;
            disk_->oracle->end_write(write_,
                                     outcome.ok()                         ? Oracle::End::acknowledged
                                     : stable_ || zeroes_ || world_.files ? Oracle::End::unknown
                                                                          : Oracle::End::failed,
                                     stable_ || !disk_->config.write_cache);
            break;
        case lun::OperationKind::flush:
            if (outcome.ok()) {
                disk_->oracle->end_flush_ok(began_, opener_);
            } else if (world_.files ? told_of_loss_ : outcome.kind == OutcomeKind::medium_error) {
                ++world_.statistics.cache_losses_told;
                disk_->oracle->end_flush_lost(opener_);
            } else if (outcome.kind == OutcomeKind::reservation_conflict && !disk_->oracle->may_have_unflushed()) {
                world_.violated(describe() + " was refused although there is nothing to flush");
            }
            break;
        case lun::OperationKind::raw: break;
    }
    if (asked_) return;
    Random& random = world_.work_;
    const auto pause = random.below(random.chance(1, 4) ? 800'000'000 : 2'000'000);
    start_after(Duration(static_cast<Duration::rep>(pause)));
}

// ---- the world ----

World::World(std::uint64_t seed, bool verbose)
    : random(seed), plan(seed, random), scheduler(random.next()), control(scheduler), reactor(scheduler),
      target_thread(scheduler), network(plan, random.next()), behaviour(plan, random.next()),
      engine_random(random.next()), verbose_(verbose), trouble_(random.next()), work_(random.next()),
      zeroing_(seed ^ 0x5a5a5a5a) {
    has_zeroing = Random(seed ^ zeroing_salt).chance(1, 3);
    shrinks_silently = Random(seed ^ silence_salt).chance(1, 2);
    if (plan.has(Fault::slow_mail)) scheduler.mail_lag_max = std::chrono::microseconds(random.between(1, 30000));
    // Choices that were added later have sequences of their own, so that the others of a seed stay what they were.
    Random paths(seed + 1), memory(~seed);
    fabric =
        fabric::make_loopback_fabric(scheduler.timers, fabric::demo_port(), &network,
                                     memory.chance(1, 2) ? fabric::Registration::window : fabric::Registration::pool);
    scheduler.fabric = fabric.get();
    make_target();
    const lun::EngineLimits limits = make_engine();
    if (Random(seed ^ files_salt).chance(1, 3)) make_files(seed, limits);
    if (Random(seed ^ cluster_salt).chance(1, 4)) make_cluster(seed);
    if (paths.chance(1, 4))
        port_config.path.interval.reset();
    else
        port_config.path.interval = std::chrono::seconds(paths.between(1, 10));
    port_config.path.timeout = std::chrono::seconds(paths.between(1, 5));
    for (unsigned i = 0, count = static_cast<unsigned>(random.between(1, 12)); i < count; ++i)
        clients_.push_back(std::make_unique<Client>(*this, i));
    checker_ = std::make_unique<Client>(*this, 99);
    operations_left = static_cast<unsigned>(random.chance(1, 4) ? random.between(300, 1500) : random.between(60, 400));
    gremlin_interval_ =
        std::chrono::milliseconds(random.chance(1, 2) ? random.between(20, 1000) : random.between(500, 8000));
    gremlin_timer_ = std::make_unique<reactor::Timer>(scheduler.timers, [this] { gremlin(); });
    login_timer_ = std::make_unique<reactor::Timer>(scheduler.timers, [this] { log_in(); });
    swap_timer_ = std::make_unique<reactor::Timer>(scheduler.timers, [this] { try_swap(); });
    behaviour.on_arrival = [this](const target::CommandView& command) { on_arrival(command); };
    behaviour.on_flush_failed = [this](scsi::Lun lun) {
        const auto number = lun.small_number();
        if (!number || *number >= slots_.size()) return;
        Disk& disk = slots_[*number].disk();
        disk.store->lose_cache([](std::uint64_t) { return true; });
        disk.oracle->on_cache_lost();
    };
    behaviour.cut = [this](target::ChannelId channel) {
        ++statistics.faults[static_cast<unsigned>(Fault::overtaken_writes)];
        repairs_.push_back(
            std::make_unique<reactor::Timer>(scheduler.timers, [this, channel] { device->disconnect(channel); }));
        repairs_.back()->arm_after(Duration(static_cast<Duration::rep>(trouble_.below(20'000'000))));
    };
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
            Disk& disk = pool_.emplace_back();
            (i == 0 ? slot.current : slot.spare) = &disk;
            disk.config.bytes = bytes;
            disk.config.block_bytes = block;
            disk.config.write_cache = random.chance(1, 2);
            disk.config.unmap = has_zeroing && zeroing_.chance(1, 2);
            disk.config.wwid = fmt::format("naa.600140500000000000000000000000{:x}{:x}", number, i);
            auto store = target::make_store(disk.config, config.volatile_cache);
            SRPFS_ASSERT(store.has_value());
            disk.store = std::move(*store);
            disk.oracle = std::make_unique<Oracle>(block);
            disks_[disk.config.wwid] = &disk;
        }
        // The last one comes later.
        slot.present = !plan.has(Fault::added_lun) || number + 1 < slots_.size();
        if (slot.present)
            SRPFS_ASSERT(device->add_lun(number, slot.disk().config, std::make_unique<SharedStore>(slot.disk().store)));
    }
    auto listening = target::make_portal(*device, target_thread, *fabric, fabric::LoopbackAddress{"demo"},
                                         {.buffers_16k = 24, .buffers_128k = 4, .buffers_1m = 2, .buffers_8m = 1});
    SRPFS_ASSERT(listening.has_value());
    portal = std::move(*listening);
}

lun::EngineLimits World::make_engine() {
    lun::EngineLimits limits;
    limits.intake_buffers = static_cast<unsigned>(random.between(3, 8));
    limits.read_buffers_4k = static_cast<unsigned>(random.between(2, 8));
    limits.read_buffers_64k = static_cast<unsigned>(random.between(2, 6));
    limits.read_buffers_1m = static_cast<unsigned>(random.between(2, 3));
    limits.edge_buffers = static_cast<unsigned>(random.between(1, 6));
    // Nothing is drawn for these, so that old seeds keep their meaning.
    limits.write_buffers_4k = limits.intake_buffers % 2 == 0 ? limits.read_buffers_4k : 0;
    limits.write_buffers_64k = limits.intake_buffers % 3 == 0 ? 2 : 0;
    limits.operations_max = random.chance(1, 6) ? 64 : 4096;
    is_short_of_parking = random.chance(1, 5);
    limits.park_bytes_max = is_short_of_parking ? random.between(65536, 262144) : 16 << 20;
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
    // Most of the runs in which nothing but delays happens allow no error.
    if (plan.only_delays() && random.chance(3, 4)) {
        timers.fast_io_fail_tmo.reset();
        timers.dev_loss_tmo = 600;
    }
    SRPFS_ASSERT(initiator::validate(timers));
    if (random.chance(1, 2)) rescan_interval = std::chrono::milliseconds(random.between(100, 20'000));
    return limits;
}

void World::make_files(std::uint64_t seed, const lun::EngineLimits& limits) {
    file_work = Random(seed ^ 0xf11e5);
    const auto reactors = static_cast<unsigned>(file_work.between(1, 3));
    home = static_cast<unsigned>(file_work.below(reactors));
    Random homes(seed ^ homes_salt);
    const bool has_other = reactors > 1 && homes.chance(3, 4);
    const unsigned other_seat = (home + 1) % reactors;
    std::vector<Files::Seat> seats;
    if (reactors > 1)
        other_fabric =
            fabric::make_loopback_fabric(scheduler.timers, fabric::demo_port(), nullptr, fabric::Registration::pool);
    for (unsigned index = 0; index < reactors; ++index) {
        if (index == home) {
            seats.push_back({&reactor, engine.get()});
            continue;
        }
        other_reactors.push_back(std::make_unique<SimulatedExecutor>(scheduler));
        auto* const of_seat = has_other && index == other_seat ? fabric.get() : other_fabric.get();
        auto made = lun::Engine::create(limits, {of_seat}, *other_reactors.back(), engine_random);
        SRPFS_ASSERT(made.has_value());
        other_engines.push_back(std::move(*made));
        seats.push_back({other_reactors.back().get(), other_engines.back().get()});
    }
    const Files::Seat seat = seats[other_seat % reactors];
    files = std::make_unique<Files>(scheduler, control, std::move(seats), file_work.next(),
                                    [this](const std::string& what) { violated(what); });
    if (has_other) other = std::make_unique<OtherHome>(*this, other_seat, *seat.executor, *seat.engine, homes.next());
}

void World::make_cluster(std::uint64_t seed) {
    const auto port = fabric::demo_port();
    cluster = std::make_unique<Cluster>(
        Cluster::World{.scheduler = scheduler,
                       .control = control,
                       .device = *device,
                       .initiator = srp::initiator_port_id(port_config.parameters, port.guid, port.node_guid),
                       .units = static_cast<unsigned>(slots_.size()),
                       .trouble = plan.describe() != "none",
                       .arrival_bound = arrival_bound,
                       .answer_bound = answer_bound,
                       .give_up_bound = interrupt_bound,
                       .any_lun = [this](Random& from) { return is_swapping() ? nullptr : any_lun(from); },
                       .violated = [this](const std::string& what) { violated(what); },
                       .tell = [this](const std::string& what) { tell("{}", what); }},
        seed ^ 0xc1a55);
    behaviour.on_reservation = [this](unsigned number, const srp::PortId& initiator, std::span<const std::byte> cdb,
                                      std::span<const std::byte> data) {
        cluster->on_carried_out(number, initiator, cdb, data);
    };
}

void World::log_in() {
    if (mount || finished_) return;
    tell("logging in");
    mount = std::make_shared<Mount>(port_config, control, initiator::ReactorDoor{&reactor, fabric.get()}, *engine,
                                    rescan_interval, *this);
    mount->login();
}

void World::on_gone() {
    tell("logged out");
    control.post([this, last = std::move(mount)]() mutable {
        last.reset();
        if (!finished_) login_timer_->arm_after(Duration(static_cast<Duration::rep>(trouble_.below(3'000'000'000))));
    });
}

void World::on_lun_changed(const lun::ListedUnit& lun) {
    if (!files) return;
    files->update(&lun, *lun.info());
    files->drop_pages();
}

void World::on_lun_removed(const std::shared_ptr<lun::ListedUnit>& lun, std::function<void()> release) {
    if (!files) return release();
    files->remove(lun.get(), std::move(release));
}

void World::on_lun_added(const std::shared_ptr<lun::ListedUnit>& lun, lun::Unit* pointer) {
    note_added(*lun, pointer, home);
}

void World::note_added(const lun::ListedUnit& lun, lun::Unit* pointer, unsigned seat) {
    if (files) files->add(&lun, seat, pointer, *lun.info());
    Disk* disk = disk_of(lun);
    tell("{} is {}", lun.lun().file_name(), lun.info()->wwid);
    if (!disk) return violated(fmt::format("a unit of unknown identity '{}' appeared", lun.info()->wwid));
    // A new unit knows of what an earlier one of the same name left behind only that something is unflushed.
    if (disk->times_mounted++ > 0) disk->oracle->on_forgotten();
}

void World::on_logged_in() {
    ++statistics.logins;
    if (files) files->drop_pages();
    // A target that restarts while we log in anew of our own accord, and that does not say so, cannot be found out: the
    // new login would have come in any case. What it lost then is nobody's fault.
    if (std::exchange(crashed_since_login_, false) && mount->port().loss_was_own() &&
        !device->config().attention_at_login)
        for (const auto& [wwid, disk] : disks_) disk->oracle->on_loss_unseen();
}

void World::on_port_state(initiator::PortState from, initiator::PortState to) {
    tell("port: {} -> {}", initiator::to_string(from), initiator::to_string(to));
    if (to == initiator::PortState::running && from != initiator::PortState::connecting) ++statistics.reconnects;
}

std::vector<std::shared_ptr<lun::ListedUnit>> World::all_luns() const {
    std::vector<std::shared_ptr<lun::ListedUnit>> all;
    if (mount && !mount->is_leaving()) all = mount->luns();
    if (other)
        for (const auto& lun : other->luns()) all.push_back(lun);
    return all;
}

std::shared_ptr<lun::ListedUnit> World::any_lun(Random& from, bool of_all) {
    std::vector<std::shared_ptr<lun::ListedUnit>> usable;
    for (const auto& lun : all_luns())
        if (lun->counters() && !lun->is_gone() && (of_all || *lun->lun().small_number() < first_of_other_home))
            usable.push_back(lun);
    return usable.empty() ? nullptr : usable[from.below(usable.size())];
}

// ---- the second home ----

OtherHome::OtherHome(World& world, unsigned seat, SimulatedExecutor& reactor, lun::Engine& engine, std::uint64_t seed)
    : world_(world), seat_(seat), reactor_(reactor), engine_(engine), random_(seed),
      login_timer_(world.scheduler.timers, [this] { log_in(); }) {
    target::DeviceConfig config = world.device->config();
    config.service_guid = 2;
    device_ = std::move(*target::Device::create(config, {}));
    for (unsigned i = 0, units = static_cast<unsigned>(random_.between(1, 2)); i < units; ++i) {
        Disk& disk = world.pool_.emplace_back();
        disk.config.block_bytes = random_.chance(1, 2) ? 512 : 4096;
        disk.config.bytes = random_.between(5, 60) * 4096;
        disk.config.write_cache = random_.chance(1, 2);
        disk.config.wwid = fmt::format("naa.600140500000000000000000000000{:x}0", 0xa + i);
        disk.store = std::move(*target::make_store(disk.config, config.volatile_cache));
        disk.oracle = std::make_unique<Oracle>(disk.config.block_bytes);
        world.disks_[disk.config.wwid] = &disk;
        disks_.push_back(&disk);
        SRPFS_ASSERT(device_->add_lun(first_of_other_home + i, disk.config, std::make_unique<SharedStore>(disk.store)));
    }
    portal_ =
        std::move(*target::make_portal(*device_, world.target_thread, *world.fabric, fabric::LoopbackAddress{"other"},
                                       {.buffers_16k = 24, .buffers_128k = 4, .buffers_1m = 2, .buffers_8m = 1}));
}

void OtherHome::log_in() {
    if (mount_ || world_.finished_) return;
    auto config = world_.port_config;
    config.name = "other";
    config.address = fabric::LoopbackAddress{"other"};
    config.parameters.id_ext = config.parameters.ioc_guid = 2;
    config.parameters.dest = srp::IpDestination{"other", 0};
    mount_ = std::make_shared<Mount>(config, world_.control, initiator::ReactorDoor{&reactor_, world_.fabric.get()},
                                     engine_, world_.rescan_interval, *this);
    mount_->login();
}

void OtherHome::on_gone() {
    world_.control.post([this, last = std::move(mount_)]() mutable {
        last.reset();
        if (!world_.finished_) login_timer_.arm_after(1s);
    });
}

void OtherHome::logout() {
    login_timer_.disarm();
    if (mount_) mount_->logout("the end");
}

void OtherHome::reset_if_stuck() {
    device_->release_held();
    if (mount_ && mount_->port().state() != initiator::PortState::running && mount_->port().failed_reconnects() > 10)
        mount_->reset_host();
}

void OtherHome::on_lun_added(const std::shared_ptr<lun::ListedUnit>& lun, lun::Unit* pointer) {
    world_.note_added(*lun, pointer, seat_);
}
void OtherHome::on_lun_changed(const lun::ListedUnit& lun) { world_.on_lun_changed(lun); }
void OtherHome::on_lun_attention() { world_.files->drop_pages(); }
void OtherHome::on_lun_removed(const std::shared_ptr<lun::ListedUnit>& lun, std::function<void()> release) {
    world_.on_lun_removed(lun, std::move(release));
}
void OtherHome::on_port_state(initiator::PortState from, initiator::PortState to) { world_.on_port_state(from, to); }
void OtherHome::on_logged_in() {
    ++world_.statistics.logins;
    world_.files->drop_pages();
}

std::vector<std::shared_ptr<lun::ListedUnit>> OtherHome::luns() const {
    return mount_ && !mount_->is_leaving() ? mount_->luns() : std::vector<std::shared_ptr<lun::ListedUnit>>{};
}

bool OtherHome::is_whole() const {
    const auto all = luns();
    return all.size() == disks_.size() && mount_->is_quiet() &&
           std::all_of(all.begin(), all.end(), [](const auto& lun) {
               return lun->unit() && lun->unit()->state() == lun::UnitState::running && !lun->unit()->needs_fence();
           });
}

bool OtherHome::is_quiet() const {
    if (!mount_ || engine_.usage().operations_in_use != 0) return false;
    const auto channels = mount_->port().link(0).report();
    return std::all_of(channels.begin(), channels.end(), [](const auto& channel) {
        return channel.in_flight == 0 &&
               (channel.state != initiator::ChannelState::live || channel.credits == channel.facts.credits_initial);
    });
}

void OtherHome::check_idle() {
    const auto usage = engine_.usage();
    if (usage.intake_in_use || usage.write_4k_in_use || usage.write_64k_in_use || usage.read_4k_in_use ||
        usage.read_64k_in_use || usage.read_1m_in_use || usage.edges_in_use || usage.parked_bytes)
        world_.violated("memory is missing at the second home at the end");
    if (!is_quiet()) world_.violated("the second home has something to do at the end");
}

// ---- trouble ----

void World::crash(Duration down) {
    if (crashed_) return;
    crashed_ = crashed_since_login_ = true;
    tell("the target crashes for {:.3f} s", in_seconds(down));
    const unsigned mode = static_cast<unsigned>(trouble_.below(3));
    device->crash([&](unsigned, std::uint64_t) { return mode == 0 || (mode == 1 && trouble_.chance(1, 2)); });
    for (Slot& slot : slots_)
        if (slot.present) slot.disk().oracle->on_cache_lost();
    if (cluster)
        for (unsigned number = 0; number < slots_.size(); ++number) cluster->on_forgotten(number);
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
    for (const Fault fault : {Fault::link_flaps,       Fault::crash,
                              Fault::cache_loss,       Fault::disabled,
                              Fault::dropped_channels, Fault::logouts_by_target,
                              Fault::credit_requests,  Fault::async_events,
                              Fault::lost_lun,         Fault::swapped_lun,
                              Fault::grown_lun,        Fault::read_only_lun,
                              Fault::host_resets,      Fault::lun_resets,
                              Fault::logouts,          Fault::rescans,
                              Fault::black_hole,       Fault::fewer_after_all,
                              Fault::clock_jumps,      Fault::added_lun,
                              Fault::shrunk_lun,       Fault::reordered_luns,
                              Fault::live_swaps})
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
    switch (fault) {
        case Fault::link_flaps:
            fabric->link_down();
            later(length, [this] { fabric->link_up(); });
            break;
        case Fault::link_flickers:
            fabric->link_flickers();
            later(length, [this] { fabric->link_up(); });
            break;
        case Fault::device_removal:
            if (!std::exchange(has_device_, false)) break;
            fabric->remove_device();
            later(length, [this] {
                if (!std::exchange(has_device_, true)) fabric->add_device(fabric::demo_port().guid);
            });
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
            remove_lun(number);
            later(length, [this, number] { add_lun(number); });
            break;
        case Fault::swapped_lun:
            // While nobody is logged in: a target tells a living session only once, in answer to one of the commands
            // that are in flight, and carries out the others on what is there now.
            if (!slot.present) break;
            device->set_enabled(false);
            remove_lun(number);
            std::swap(slot.current, slot.spare);
            later(length, [this, number] {
                add_lun(number);
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
        case Fault::black_hole:
            network.is_black_hole = true;
            later(length, [this] { network.is_black_hole = false; });
            break;
        case Fault::fewer_after_all:
            behaviour.channels_max = static_cast<unsigned>(trouble_.between(1, 3));
            device->disconnect(std::nullopt);
            later(length, [this] { behaviour.channels_max = 0; });
            break;
        case Fault::clock_jumps: {
            // The jump itself makes the next piece of trouble due.
            if (jumps_left_ == 0 || now() - jumped() < next_jump_) break;
            --jumps_left_;
            next_jump_ = now() - jumped() + 1s;
            const Duration by = std::chrono::seconds(trouble_.between(20, trouble_.chance(1, 2) ? 70 : 900));
            tell("the clock jumps by {} s", in_seconds(by));
            scheduler.jump(by);
            break;
        }
        case Fault::added_lun: add_lun(static_cast<unsigned>(slots_.size() - 1)); break;
        case Fault::shrunk_lun: {
            const std::uint64_t less = trouble_.between(1, 4) * 4096;
            if (!slot.present || slot.disk().store->bytes() < less + 4 * 4096) break;
            slot.disk().config.bytes -= less;
            slot.disk().oracle->on_cut(slot.disk().config.bytes);
            if (shrinks_silently)
                SRPFS_ASSERT(slot.disk().store->resize(slot.disk().config.bytes));
            else
                SRPFS_ASSERT(device->resize_lun(number, slot.disk().config.bytes));
            break;
        }
        case Fault::reordered_luns: {
            const auto another = static_cast<unsigned>(trouble_.below(slots_.size()));
            if (another == number || !slot.present || !slots_[another].present) break;
            device->set_enabled(false);
            remove_lun(number);
            remove_lun(another);
            std::swap(slot.current, slots_[another].current);
            later(length, [this, number, another] {
                add_lun(number);
                add_lun(another);
                device->set_enabled(true);
            });
            break;
        }
        case Fault::live_swaps:
            if (swap_number_ || !slot.present) break;
            swap_number_ = number;
            swapped_ = false;
            try_swap();
            break;
        default: SRPFS_ASSERT(false);
    }
}

void World::add_lun(unsigned number) {
    Slot& slot = slots_[number];
    if (slot.present) return;
    SRPFS_ASSERT(device->add_lun(number, slot.disk().config, std::make_unique<SharedStore>(slot.disk().store)));
    slot.present = true;
    slot.read_only = false;
    if (cluster) cluster->on_forgotten(number);
    device->raise_attention(number, 0x3f, 0x0e);
}

void World::remove_lun(unsigned number) {
    SRPFS_ASSERT(device->remove_lun(number));
    slots_[number].present = false;
    if (cluster) cluster->on_forgotten(number);
}

// Another unit under the number of one that is in use. A target tells a session only once, in answer to one of the
// commands in flight, and carries out the others on what is there now: nobody can save a write from that, but what is
// read may never reach the reader.
void World::try_swap() {
    if (!swap_number_) return;
    const auto later = [this](Duration delay) { swap_timer_->arm_after(delay); };
    if (swapped_) {
        if (!is_whole()) return later(50ms);
        swap_number_.reset();
        return;
    }
    if (!stormy) return swap_number_.reset();
    const bool is_writing = std::any_of(clients_.begin(), clients_.end(), [](const auto& client) {
        return client->is_busy() && (!client->asked() || client->asked()->is_write);
    });
    // What was given up may still be on its way.
    const bool has_written = std::any_of(answered_.begin(), answered_.end(), [this](const Asked& asked) {
        return asked.is_write && now() - asked.answered_at <= arrival_bound;
    });
    if (is_writing || has_written || (cluster && !cluster->is_quiet())) return later(20ms);
    Slot& slot = slots_[*swap_number_];
    if (!slot.present) return swap_number_.reset();
    tell("LUN {} is another unit now", *swap_number_);
    remove_lun(*swap_number_);
    std::swap(slot.current, slot.spare);
    add_lun(*swap_number_);
    swapped_ = true;
    later(50ms);
}

// ---- what the target sees ----

void World::remember_answered(Asked asked) {
    asked.answered_at = now();
    asked.jumped = jumped();
    answered_.push_back(asked);
    while (now() - answered_.front().answered_at > arrival_bound + (jumped() - answered_.front().jumped))
        answered_.pop_front();
}

// Every READ and WRITE is part of a request that somebody still waits for: nothing is sent again after a request has
// failed, been interrupted, or run out of time.
void World::on_arrival(const target::CommandView& command) {
    const auto opcode = static_cast<std::uint8_t>(command.cdb[0]);
    const bool is_same = opcode == scsi::opcode::write_same_16;
    const bool is_write = opcode == scsi::opcode::write_10 || opcode == scsi::opcode::write_16 || is_same;
    const bool reserves = cluster && opcode == scsi::opcode::persistent_reserve_out;
    if (!is_write && !reserves && opcode != scsi::opcode::read_10 && opcode != scsi::opcode::read_16) return;
    if (plan.has(Fault::link_flickers)) return;  // messages lie about for as long as the link is down
    if (reserves) return cluster->on_arrival(command);
    const bool is_16 = is_same || opcode == scsi::opcode::write_16 || opcode == scsi::opcode::read_16;
    ByteReader in(command.cdb.subspan(2));
    const std::uint64_t lba = is_16 ? in.u64() : in.u32();
    if (!is_16) in.skip(1);
    const std::uint64_t count = is_16 ? in.u32() : in.u16();
    const auto number = command.lun.small_number();
    const auto covers = [&](const Asked& asked) {
        return asked.number == number && asked.first_block <= lba && asked.block_end >= lba + count &&
               (asked.is_write || !is_write);
    };
    const auto asks = [&](const Client& client) { return client.asked() && covers(*client.asked()); };
    if (asks(*checker_) ||
        std::any_of(clients_.begin(), clients_.end(), [&](const auto& client) { return asks(*client); }))
        return;
    const bool was_asked = std::any_of(answered_.begin(), answered_.end(), [&](const Asked& asked) {
        return now() - asked.answered_at - (jumped() - asked.jumped) <= arrival_bound && covers(asked);
    });
    if (!was_asked)
        violated(fmt::format("a {} of blocks {} to {} of LUN {} has arrived, and nobody waits for it",
                             is_write ? "WRITE" : "READ", lba, lba + count - 1, number.value_or(~0U)));
}

std::optional<std::string> World::why_not_excused(lun::OperationKind kind, const lun::Outcome& outcome,
                                                  bool write_cache, unsigned number, Instant since) const {
    if (outcome.kind == OutcomeKind::interrupted) return std::nullopt;
    if (outcome.kind == OutcomeKind::reservation_conflict) {
        if (!cluster || !cluster->may_have_refused(number, since)) return "nobody else had it reserved";
        return std::nullopt;
    }
    // Who has little memory for waiting writes may have to give one up at any time (decisions 11).
    if (outcome.kind == OutcomeKind::out_of_memory && is_short_of_parking) return std::nullopt;
    if (plan.describe() == "none") return "nothing went wrong";
    const initiator::TransportTimers& timers = port_config.timers;
    // With both time-outs off a reconnect that fails is an error, as in the kernel.
    if (!plan.only_delays() || timers.fast_io_fail_tmo || !timers.dev_loss_tmo) return std::nullopt;
    // A cache that may have been lost is told to whoever wants something durable (decisions 8).
    if (outcome.kind == OutcomeKind::medium_error && kind != lun::OperationKind::read && write_cache)
        return std::nullopt;
    if (!writes_are_issued_again && kind == lun::OperationKind::write) return std::nullopt;
    return "nothing happened but delays, and fast_io_fail_tmo is off";
}

// ---- peace ----

void World::calm_down() {
    tell("all is well from now on");
    stormy = false;
    network.active = behaviour.active = false;
    network.is_black_hole = false;
    gremlin_timer_->disarm();
    if (!std::exchange(has_device_, true)) fabric->add_device(fabric::demo_port().guid);
    fabric->link_up();
    device->set_enabled(true);
    if (std::exchange(crashed_, false)) device->restart();
    device->release_held();
    for (unsigned number = 0; number < slots_.size(); ++number) {
        Slot& slot = slots_[number];
        add_lun(number);
        if (std::exchange(slot.read_only, false)) SRPFS_ASSERT(device->set_read_only(number, false));
    }
    for (auto& repair : repairs_) repair->disarm();
    if (cluster) cluster->make_peace();
    // After many attempts in vain the next is a long time off (up to a hundred times reconnect_delay). Whoever has put
    // everything right writes to `reset`.
    if (mount && mount->port().state() != initiator::PortState::running && mount->port().failed_reconnects() > 10)
        mount->reset_host();
    if (other) other->reset_if_stuck();
    // Credits it still owes come in requests of its own: on some channels nothing may be sent that could bring them.
    scheduler.advance(1s);
    device->send_owed_credits(std::nullopt);
    if (other) other->device().send_owed_credits(std::nullopt);
}

// ---- the end of a run ----

bool World::is_whole() {
    if (!mount || mount->is_leaving() || mount->luns().size() != slots_.size() || !mount->is_quiet()) return false;
    if (other && !other->is_whole()) return false;
    return std::all_of(mount->luns().begin(), mount->luns().end(), [&](const auto& lun) {
        const auto number = lun->lun().small_number();
        return lun->unit() && lun->unit()->state() == lun::UnitState::running && number && !lun->info()->read_only &&
               lun->info()->wwid == slots_.at(*number).disk().config.wwid && !lun->unit()->needs_fence() &&
               lun->unit()->info()->capacity_bytes() == slots_.at(*number).disk().store->bytes() &&
               (!files || files->capacity(lun.get()) == slots_.at(*number).disk().store->bytes());
    });
}

bool World::ask_and_wait(unsigned number, lun::OperationKind kind, std::uint64_t offset, std::uint32_t bytes) {
    // Again when it fails: what went wrong before may only be told now, and a channel that was lied to only end now.
    for (unsigned attempt = 0; attempt < 4; ++attempt) {
        if (!scheduler.run_until([&] { return is_whole() || violation_; }, quiet_bound) || violation_) break;
        const auto luns = all_luns();
        const auto lun = std::find_if(luns.begin(), luns.end(),
                                      [&](const auto& one) { return one->lun().small_number() == number; });
        checker_->ask(*lun, kind, offset, bytes);
        scheduler.run_until([&] { return !checker_->is_busy() || violation_; }, quiet_bound);
        if (violation_) return false;
        if (checker_->ended_well()) return true;
    }
    violated("in the end: " + checker_->describe() + " does not succeed although all is well");
    return false;
}

void World::check_everything() {
    std::vector<unsigned> numbers;
    for (unsigned number = 0; number < slots_.size(); ++number) numbers.push_back(number);
    for (unsigned i = 0; other && i < other->units(); ++i) numbers.push_back(first_of_other_home + i);
    for (const unsigned number : numbers) {
        const std::uint64_t capacity =
            number < first_of_other_home ? slots_[number].disk().store->bytes() : other->bytes(number);
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

bool World::is_quiet() const {
    const auto channels = mount->port().link(0).report();
    return engine->usage().operations_in_use == 0 && (!other || other->is_quiet()) &&
           std::all_of(channels.begin(), channels.end(),
                       [this](const auto& channel) {
                           // Credits that were lost with a message that never arrived end a channel in the end.
                           const bool has_all = !behaviour.lied_about_credits.empty() ||
                                                channel.state != initiator::ChannelState::live ||
                                                channel.credits == channel.facts.credits_initial;
                           return channel.in_flight == 0 && has_all;
                       }) &&
           std::none_of(mount->luns().begin(), mount->luns().end(),
                        [](const auto& lun) { return lun->unit() && lun->unit()->needs_fence(); });
}

void World::check_idle() {
    if (files && files->pending() != 0) violated("requests are left with a reactor at the end");
    const auto is_idle = [](const auto& one) { return one->usage().operations_in_use == 0; };
    if (!std::all_of(other_engines.begin(), other_engines.end(), is_idle))
        violated("operations are left with a reactor that is not the home");
    const auto usage = engine->usage();
    if (usage.operations_in_use || usage.intake_in_use || usage.write_4k_in_use || usage.write_64k_in_use ||
        usage.read_4k_in_use || usage.read_64k_in_use || usage.read_1m_in_use || usage.edges_in_use ||
        usage.parked_bytes)
        violated(fmt::format(
            "memory is missing at the end: operations {}, intake {}, writes {}/{}, reads {}/{}/{}, edges {}, parked {}",
            usage.operations_in_use, usage.intake_in_use, usage.write_4k_in_use, usage.write_64k_in_use,
            usage.read_4k_in_use, usage.read_64k_in_use, usage.read_1m_in_use, usage.edges_in_use, usage.parked_bytes));
    if (other) other->check_idle();
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
        statistics.ghosts += lun->unit()->counters()->ghosts;
        statistics.retries += lun->unit()->counters()->retries;
        if (lun->unit()->needs_fence()) violated("writes are still unfenced at the end");
        if (lun->unit()->operations() != 0) violated("operations are left at the end");
    }
}

void World::shut_down() {
    finished_ = true;
    login_timer_->disarm();
    rescan_timer_->disarm();
    if (mount) mount->logout("the end");
    if (other) other->logout();
    scheduler.run_until([&] { return !mount && (!other || other->has_left()); }, 60s);
    if (mount) return violated("logging out does not end: " + mount->describe_end());
    if (other && !other->has_left()) return violated("logging out of the second target does not end");
    scheduler.advance(1s);
    if (files) {
        statistics.handed_over += files->handed_over();
        files->leave();
        scheduler.advance(1s);
        for (auto& client : clients_) client->forget_files();
        checker_->forget_files();
        files.reset();
    }
    portal->close();
    if (other) other->portal().close();
    scheduler.advance(120s);
    if (!portal->is_closed() || (other && !other->portal().is_closed()))
        return violated("the target does not come to an end");
    if (fabric->connections() != 0) return violated("connections are left at the end");
    for (auto& client : clients_) client->stop();
    checker_->stop();
    behaviour.on_reservation = nullptr;
    count_cluster();
    cluster.reset();
    gremlin_timer_.reset();
    rescan_timer_.reset();
    login_timer_.reset();
    swap_timer_.reset();
    repairs_.clear();
    if (scheduler.timers.next_deadline() != instant_never) {
        // The portal's own go with it.
        portal.reset();
        if (other) other->destroy_portal();
        if (scheduler.timers.next_deadline() != instant_never) violated("a timer is left at the end");
    }
    const auto usage = engine->usage();
    if (usage.operations_in_use) violated("operations are left after logging out");
}

void World::count_cluster() {
    if (!cluster) return;
    statistics.reservation_orders = cluster->orders;
    statistics.fencings = cluster->fencings;
    statistics.registrations_lost = cluster->losses;
    statistics.registrations_repeated = cluster->repeats;
}

Outcome World::run() {
    tell("plan: {}", plan.describe());
    login_timer_->arm_after(Duration::zero());
    if (other) other->log_in();
    rescan_timer_->arm_after(20s);
    gremlin_timer_->arm_after(gremlin_interval_);
    for (auto& client : clients_) client->start_after(1ms);

    const Duration storm = std::chrono::seconds(random.between(5, 120));
    const auto over = [&] { return violation_.has_value() || scheduler.steps > steps_max; };
    const auto idle = [&] {
        return operations_left == 0 && !(cluster && cluster->is_busy()) &&
               std::none_of(clients_.begin(), clients_.end(), [](const auto& client) { return client->is_busy(); });
    };
    // The time that the clock jumps over does not count.
    for (bool goes_on = true; goes_on;) {
        const Duration seen = jumped();
        goes_on = false;
        scheduler.run_until(
            [&] {
                goes_on = jumped() != seen;
                return over() || idle() || goes_on;
            },
            storm - (now() - Instant{} - jumped()));
        goes_on = goes_on && !over() && !idle();
    }
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
    // A look or a question may just be under way, and take a while where a channel has no credit; a fence that was not
    // answered in time is tried again.
    if (!over()) scheduler.run_until([&] { return is_quiet(); }, quiet_bound);
    if (!over()) check_idle();
    if (!over() && cluster && mount) {
        // An order that was not answered may have been carried out: a look tells.
        mount->rescan();
        scheduler.advance(12s);
        scheduler.run_until([&] { return over() || (is_whole() && is_quiet()); }, quiet_bound);
        if (!over()) cluster->check_end(mount->luns());
    }
    if (!over()) shut_down();
    if (scheduler.steps > steps_max) violated("time stands still");
    statistics.late_writes = device->counters().late;
    statistics.fences = device->counters().task_managements;
    statistics.steps = scheduler.steps;
    count_cluster();
    statistics.seconds = in_seconds(now() - Instant{});
    return {violation_, plan.describe(), statistics};
}

}  // namespace

void Statistics::add(const Statistics& other) {
    operations += other.operations;
    reads += other.reads;
    writes += other.writes;
    zeroings += other.zeroings;
    truncations += other.truncations;
    handed_over += other.handed_over;
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
    reservation_orders += other.reservation_orders;
    fencings += other.fencings;
    registrations_lost += other.registrations_lost;
    registrations_repeated += other.registrations_repeated;
    conflicts += other.conflicts;
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
