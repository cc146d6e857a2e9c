// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "ring.h"

#include <srpfs/fs/file_system.h>

#include <fmt/format.h>

#include <algorithm>

#include <unistd.h>

namespace srpfs::fs {
namespace {

constexpr std::size_t mib = std::size_t{1} << 20;
constexpr std::size_t few_queues_bytes_max = 512 * mib;  // by default
constexpr std::size_t machine_share = 8;
constexpr unsigned ring_depth_least = 4;  // of a queue, on one ring: fewer are not worth a ring

std::size_t bytes_of_rings(unsigned rings, unsigned entries) {
    lun::EngineLimits limits;
    limits.entries = entries;
    return rings * std::size_t{entries + limits.spare_slots()} * mib;
}

}  // namespace

RingPlan plan_rings(unsigned queues, unsigned depth_wanted, unsigned reactors, std::size_t bytes_max) {
    RingPlan plan;
    plan.queues = queues;
    // A slot's number has 16 bits.
    const unsigned each_max = (no_slot - 1U) / queues;
    for (unsigned rings = std::max(1U, reactors); rings > 0; --rings) {
        unsigned each = std::min((depth_wanted + rings - 1) / rings, each_max);
        while (each > 0 && bytes_of_rings(rings, queues * each) > bytes_max) --each;
        if (each * rings < ring_depth_min || (rings > 1 && each < ring_depth_least)) continue;
        plan.rings = rings;
        plan.depth = each * rings;
        return plan;
    }
    plan.obstacle = fmt::format("{} queues of {} entries need {} MiB; use a larger memory= option", queues,
                                ring_depth_min, bytes_of_rings(1, queues * ring_depth_min) / mib);
    return plan;
}

RingPlan plan_rings(const MountOptions& options, unsigned reactors, std::size_t bytes_max) {
    RingPlan plan;
    if (options.io_uring == RingUse::off) return plan;
    plan.obstacle = ring_obstacle();
    if (!plan.obstacle.empty()) return plan;
    return plan_rings(ring_queues(), options.io_uring_queue_depth, reactors, bytes_max);
}

std::size_t ring_bytes_default_max(unsigned queues, std::size_t machine_bytes) {
    const std::size_t needed = bytes_of_rings(1, queues * ring_depth_min);
    return std::max(few_queues_bytes_max, std::min(needed, machine_bytes / machine_share));
}

std::size_t ring_bytes_default_max() {
    const long pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
    const bool is_known = pages > 0 && page_bytes > 0;
    return ring_bytes_default_max(
        ring_queues(), is_known ? static_cast<std::size_t>(pages) * static_cast<std::size_t>(page_bytes) : 0);
}

std::size_t ring_bytes_wanted(const MountOptions& options, unsigned reactors) {
    const unsigned rings = std::max(1U, reactors);
    return bytes_of_rings(rings, ring_queues() * ((options.io_uring_queue_depth + rings - 1) / rings));
}

}  // namespace srpfs::fs
