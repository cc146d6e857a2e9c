// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What the portals of a Device share. The hot path looks at atomics only: the generation of the unit map, and one flag
// per channel for unit attentions.

#pragma once

#include "logical_unit.h"
#include "reservations.h"

#include <srpfs/target/device.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace srpfs::target {

class PortalCore;

// Immutable; replaced as a whole.
class UnitMap {
public:
    [[nodiscard]] const std::shared_ptr<LogicalUnit>* find(unsigned number) const {
        if (number < units_.size()) return units_[number] ? &units_[number] : nullptr;
        return nullptr;
    }
    [[nodiscard]] std::vector<unsigned> numbers() const;
    [[nodiscard]] const std::vector<std::shared_ptr<LogicalUnit>>& units() const { return units_; }
    [[nodiscard]] std::shared_ptr<const UnitMap> with(unsigned number, std::shared_ptr<LogicalUnit> unit) const;

private:
    std::vector<std::shared_ptr<LogicalUnit>> units_;  // by number, with gaps
};

// A channel as all portals know it. Owned by its channel and, while that lives, listed in DeviceState.
struct ChannelRecord {
    ChannelId id = 0;
    Nexus nexus;
    srp::MultiChannel action = srp::MultiChannel::single;
    PortalCore* portal = nullptr;
    bool live = false;                                    // guarded by DeviceState::mutex
    std::map<unsigned, std::vector<Failure>> attentions;  // by unit, oldest first; guarded by DeviceState::mutex
    std::atomic<bool> has_attention = false;
};

// Counters of one portal: one writer.
struct PortalCounters {
    using Counter = std::atomic<std::uint64_t>;
    std::array<Counter, 256> commands{};
    Counter task_managements = 0, logins = 0, logins_rejected = 0, check_conditions = 0, blocks_read = 0,
            blocks_written = 0, aborted = 0, late = 0, malformed = 0;

    static void add(Counter& counter, std::uint64_t count = 1) {
        counter.store(counter.load(std::memory_order_relaxed) + count, std::memory_order_relaxed);
    }
    void add_to(DeviceCounters& sum) const;
};

struct DeviceState {
    explicit DeviceState(const DeviceConfig& config_) : config(config_), units(std::make_shared<UnitMap>()) {}

    const DeviceConfig config;
    std::atomic<Behaviour*> behaviour = nullptr;
    std::atomic<bool> enabled = true;
    std::atomic<std::uint64_t> crashes = 0;  // channels and commands of before the last crash are void
    std::atomic<std::uint64_t> units_generation = 0;

    std::mutex mutex;  // guards the rest
    std::shared_ptr<const UnitMap> units;
    std::vector<PortalCore*> portals;
    std::vector<std::shared_ptr<ChannelRecord>> channels;
    ChannelId last_channel = 0;
    DeviceCounters departed;  // sums of portals that are gone

    // The functions below lock.
    void set_units(std::shared_ptr<const UnitMap> map, std::optional<unsigned> silent_unit);
    void attention_for_all(unsigned number, Failure what);
    void attention_for(const Nexus& nexus, unsigned number, Failure what);
    // The oldest attention of a unit, removed; clears has_attention when it was the channel's last.
    std::optional<Failure> take_attention(ChannelRecord& record, unsigned number);
    // Runs on each portal's thread, in a later turn. A portal that closes meanwhile is left out.
    void on_portals(const std::function<void(PortalCore&)>& work);

private:
    static void add_attention(ChannelRecord& record, unsigned number, Failure what);
};

}  // namespace srpfs::target
