// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A whole system in one thread: the real initiator, units and target over the loopback network, people who read and
// write, and trouble; all of it drawn from one seed. Time is virtual.

#pragma once

#include "faults.h"
#include "mount.h"
#include "oracle.h"
#include "scheduler.h"

#include <srpfs/target/device.h>
#include <srpfs/target/portal.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace srpfs::simulation {

struct Statistics {
    std::uint64_t operations = 0, reads = 0, writes = 0, zeroings = 0, truncations = 0, handed_over = 0, flushes = 0,
                  unaligned = 0, bytes_checked = 0;
    std::uint64_t failed = 0, interrupted = 0, logins = 0, reconnects = 0, ghosts = 0, retries = 0, late_writes = 0,
                  cache_losses_told = 0, fences = 0, steps = 0;
    // Persistent reservations: what people asked for, how often others have fenced us off, and what the units found
    // out.
    std::uint64_t reservation_orders = 0, fencings = 0, registrations_lost = 0, registrations_repeated = 0,
                  conflicts = 0;
    double seconds = 0;  // of virtual time
    std::array<std::uint64_t, fault_count> faults{};
    void add(const Statistics& other);
};

struct Outcome {
    std::optional<std::string> violation;  // what must never be
    std::string plan;                      // what the run was like
    Statistics statistics;
};

// One run. `verbose`: tells each operation and each piece of trouble on standard error. After a violation the world is
// left as it is (not destroyed): its destructors would only find consequences.
Outcome run_world(std::uint64_t seed, bool verbose);

}  // namespace srpfs::simulation
