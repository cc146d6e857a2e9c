// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The file layer of a world: a FuseChannel for each of several reactors, one or two of which are homes of units, and
// the kernel's side of their connection. Requests stand in one queue; whoever reads gets the next. The kernel takes the
// answer only where the request was read, and hands out an INTERRUPT only after that. In half of the seeds it has a
// page cache for every other read: pages appear with an answer, and go when it is told to drop them, some time later;
// in half of these the files are cached ones, whose pages stay until somebody changes them. It has fewer scruples than
// Linux, which also drops pages by itself where somebody writes to the same file.

#pragma once

#include "fuse_channel.h"
#include "open_files.h"
#include "scheduler.h"

#include <srpfs/lun/engine.h>
#include <srpfs/lun/unit.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace srpfs::simulation {

class Files final : public fs::ChannelHost, public SimulatedSource {
public:
    struct Seat {  // of a reactor
        SimulatedExecutor* executor;
        lun::Engine* engine;
    };
    using OnAnswer = std::function<void(int error, std::span<const std::byte> body)>;

    // `on_wrong` is told what the kernel would not stand.
    Files(Scheduler& scheduler, SimulatedExecutor& control, std::vector<Seat> seats, std::uint64_t seed,
          std::function<void(const std::string&)> on_wrong);
    ~Files();

    // ---- what the daemon does ----
    // `home`: the seat of the reactor that has it.
    void add(const void* unit, unsigned home, lun::Unit* pointer, const lun::UnitInfo& info);
    void update(const void* unit, const lun::UnitInfo& info);
    // Who knows what has happened to the units (daemon::Target).
    void drop_pages();
    // `when_released`, on the control thread, once no reactor looks at the unit any more.
    void remove(const void* unit, std::function<void()> when_released);
    // 0: no such file (any more).
    [[nodiscard]] std::uint64_t open(const void* unit);
    void close(std::uint64_t handle);
    // Whether it is a file of this unit, which may stand where an earlier one stood.
    [[nodiscard]] bool shows(std::uint64_t handle, const void* unit) const;
    // What its user knows of lost writes, see lun::UnitCounters.
    [[nodiscard]] std::uint64_t losses_seen(std::uint64_t handle) const;
    [[nodiscard]] std::optional<std::uint64_t> capacity(const void* unit) const;

    // ---- what the kernel does: `unique` numbers for interrupt() ----
    std::uint64_t read(std::uint64_t handle, std::uint64_t offset, std::uint32_t bytes, OnAnswer on_answer);
    // Through the page cache, in whole pages; one of an open file.
    std::uint64_t read_cached(std::uint64_t handle, std::uint64_t offset, std::uint32_t bytes, OnAnswer on_answer);
    [[nodiscard]] bool has_cache() const { return has_cache_; }
    static constexpr std::uint64_t page_bytes = 4096;
    std::uint64_t write(std::uint64_t handle, std::uint64_t offset, std::span<const std::byte> data, bool stable,
                        OnAnswer on_answer);
    std::uint64_t fsync(std::uint64_t handle, OnAnswer on_answer);
    std::uint64_t fallocate(std::uint64_t handle, int mode, std::uint64_t offset, std::uint64_t length,
                            OnAnswer on_answer);
    std::uint64_t truncate(std::uint64_t handle, std::uint64_t size, OnAnswer on_answer);
    // A signal for who waits.
    void interrupt(std::uint64_t unique);

    [[nodiscard]] unsigned pending() const;                                   // requests that some reactor has noted
    [[nodiscard]] std::uint64_t handed_over() const { return handed_over_; }  // read by another than the home
    // The end of the mount: the reactors let go. Then nothing may be asked any more.
    void leave();

private:
    struct Asked {
        OnAnswer on_answer;
        std::optional<unsigned> channel{};  // that has read it
        bool truncates = false, interrupted = false, cached = false;
        unsigned home = 0;
    };
    struct Connection {
        int kernel = -1;  // our end
        int other = -1;   // a duplicate of the channel's
        bool awake = true;
    };
    struct Message {
        std::uint64_t unique;  // odd: an INTERRUPT
        std::vector<std::byte> bytes;
    };

    void on_control_request(const fs::Origin& origin, std::vector<std::byte> request) override;
    void on_control_interrupt(const fs::Origin&) override {
        on_wrong_("an interrupt was handed to the control thread");
    }
    void on_disconnected(unsigned, int) override { on_wrong_("a connection has ended"); }
    void on_drop_pages(unsigned channel, fs::NodeId node, std::vector<lun::ByteRange> ranges,
                       std::uint64_t ticket) override;

    bool is_ready() override;
    void turn() override;
    void after_step(const SimulatedExecutor* thread) override;

    template <typename In>
    std::uint64_t ask(std::uint32_t opcode, const In& in, std::span<const std::byte> data, OnAnswer on_answer,
                      std::uint64_t node = 2);
    [[nodiscard]] unsigned home_of(std::uint64_t handle) const;
    void queue_interrupt(std::uint64_t unique);
    void take_answers();
    void answered(std::uint64_t unique, int error, std::span<const std::byte> body);
    [[nodiscard]] std::vector<int> descriptors_of(std::size_t channel) const;
    // Channels whose reactor has a reason to have a turn.
    [[nodiscard]] std::vector<std::size_t> ready() const;

    Scheduler& scheduler_;
    SimulatedExecutor& control_;
    const std::vector<Seat> seats_;
    Random random_;
    const std::function<void(const std::string&)> on_wrong_;
    fs::OpenFiles open_files_;
    std::map<const void*, std::shared_ptr<fs::LunData>> luns_;
    std::map<std::uint64_t, std::shared_ptr<fs::LunData>> handles_;
    std::vector<Connection> connections_;
    std::vector<std::shared_ptr<fs::FuseChannel>> channels_;
    std::map<std::uint64_t, Asked> asked_;  // and not answered, by unique number
    std::deque<Message> queue_;             // and not read
    // The page cache: of a file, by number, pages that are whole.
    using Pages = std::map<std::uint64_t, std::vector<std::byte>>;
    std::map<std::uint64_t, Pages> cache_;
    std::map<const fs::LunData*, std::uint64_t> nodes_;
    std::uint64_t last_node_ = 1;
    bool has_cache_ = false;
    bool keeps_pages_ = false;  // as of cached files
    std::uint64_t last_unique_ = 0, handed_over_ = 0;
    std::vector<std::byte> received_;
    std::uint64_t writes_seen_ = 0;
    bool left_ = false;
};

}  // namespace srpfs::simulation
