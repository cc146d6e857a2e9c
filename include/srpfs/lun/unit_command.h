// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// One SCSI command of somebody's choice to a unit, and what became of it.

#pragma once

#include <srpfs/base/instant.h>
#include <srpfs/lun/inventory.h>
#include <srpfs/lun/operation.h>
#include <srpfs/reactor/executor.h>
#include <srpfs/scsi/scsi.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace srpfs::lun {

struct UnitCommand {
    scsi::Cdb cdb;
    std::vector<std::byte> data_out;  // at most Operation::raw_bytes_max
    std::uint32_t data_in_bytes = 0;  // 0..Operation::raw_bytes_max; not both
    Duration time_limit = std::chrono::seconds(30);
    bool is_foreign = false;          // somebody's choice, see Operation::mark_foreign()
    bool changes = false;             // foreign ones only
    std::uint64_t only_found_at = 0;  // see Operation::mark_only_for_unit_found_at(); 0: whatever unit is there
    bool aborts = true;  // foreign ones only: when it is given up; false: it stays in flight, as a read does
};
struct UnitAnswer {
    // Like a request's; `interrupted` if it was given up, `gone` without the unit, `out_of_memory`.
    Outcome outcome;
    bool timed_out = false;       // given up because of time_limit
    bool answered = false;        // outcome.status is the target's, and so is what follows
    std::uint32_t residual = 0;   // of what the command had room for, the bytes that were not moved
    bool overflow = false;        // the target had more
    std::vector<std::byte> data;  // in
    // Of one that was given up while the target had it: expires when the target has answered, or cannot any more.
    std::weak_ptr<const void> flight;
};

// Control thread. `reactor` is the unit's. `on_done` is called once there, in a later turn, half a second after the
// time limit at the latest. It waits like I/O while the port is blocked; while the unit is being looked at, a foreign
// one does so, too.
// What it returns gives up when called: on the control thread, at any time.
std::function<void()> send_command(reactor::Executor& control, reactor::Executor& reactor,
                                   std::shared_ptr<ListedUnit> unit, UnitCommand command,
                                   std::function<void(UnitAnswer)> on_done);

}  // namespace srpfs::lun
