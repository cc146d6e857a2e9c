// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Asks a target what logical units it has and what they are: REPORT LUNS, then INQUIRY, VPD pages, capacity and mode
// data of each. Runs on a reactor, through raw operations, which retry what the target says about itself meanwhile.

#pragma once

#include <srpfs/lun/engine.h>
#include <srpfs/lun/unit.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace srpfs::lun {

struct UnitReport {
    scsi::Lun lun{};
    // Set when the unit is a disk that can be used.
    std::shared_ptr<const UnitInfo> info;
    // Otherwise why not, in words; and whether there is anything at this address at all.
    std::string problem;
    bool present = false;
};
struct ScanReport {
    std::vector<UnitReport> units;  // in ascending order of LUN
};

// Starts a scan; `on_done` is called once, from a later turn, with what was found, or with an Error when the target did
// not answer within `time_limit` or the link was lost; in each case when nothing of the scan is left on the link, so
// after a time-out only when its last command has ended. `engine` and `link` must outlive the scan: the link's end
// makes it end. Unit attentions met on the way are passed on to the units of the link (TargetLink::tell_event). Reactor
// thread. The returned handle only serves to cancel.
class Scan;
std::shared_ptr<Scan> start_scan(Engine& engine, initiator::TargetLink& link, Duration time_limit,
                                 std::function<void(Result<ScanReport>)> on_done);
// `on_done` is not called any more. The scan keeps itself alive until its commands have ended.
void cancel_scan(const std::shared_ptr<Scan>& scan);

}  // namespace srpfs::lun
