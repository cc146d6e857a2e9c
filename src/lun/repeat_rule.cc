// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "repeat_rule.h"

#include "canary.h"

namespace srpfs::lun {
namespace {

enum class Effect { none, settles, accumulates };

// What carrying a command out once more does. `settles`: it leaves the same blocks with the same content however often
// it runs, and harms only what was written in between. What is not listed is taken for the worst.
Effect effect_of(const scsi::Cdb& cdb) {
    constexpr std::uint8_t read_6 = 0x08, write_6 = 0x0a, log_sense = 0x4d, read_12 = 0xa8, write_12 = 0xaa;
    namespace op = scsi::opcode;
    switch (static_cast<std::uint8_t>(cdb.bytes[0])) {
        case op::test_unit_ready:
        case op::request_sense:
        case op::inquiry:
        case op::report_luns:
        case op::read_capacity_10:
        case op::service_action_in_16:
        case op::mode_sense_6:
        case op::mode_sense_10:
        case op::maintenance_in:
        case op::persistent_reserve_in:
        case log_sense:
        case read_6:
        case op::read_10:
        case read_12:
        case op::read_16:
        case op::synchronize_cache_10:
        case op::synchronize_cache_16: return Effect::none;
        case write_6:
        case op::write_10:
        case write_12:
        case op::write_16:
        case op::write_same_10:
        case op::write_same_16:
        case op::unmap: return Effect::settles;
        default: return Effect::accumulates;  // COMPARE AND WRITE, PERSISTENT RESERVE OUT, EXTENDED COPY and so on
    }
}

}  // namespace

Repeat repeat_rule(const initiator::Command& command, initiator::CommandEnd end) {
    switch (effect_of(command.cdb)) {
        case Effect::none: return Repeat::now;
        case Effect::settles:
            // A connection that ended proves nothing about what the target has taken in, and neither does a new login.
            if (end == initiator::CommandEnd::connection_lost && !canary::unfenced_retry) return Repeat::after_fence;
            return Repeat::now;
        case Effect::accumulates: return Repeat::never;
    }
    return Repeat::never;
}

}  // namespace srpfs::lun
