// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Asks a target what logical units it has (REPORT LUNS), and a unit what it is: TEST UNIT READY, INQUIRY, VPD pages,
// capacity and mode data. Runs on a reactor, through raw operations, which retry what the target says about itself
// meanwhile.

#pragma once

#include <srpfs/lun/engine.h>
#include <srpfs/lun/unit.h>

#include <memory>
#include <string>
#include <vector>

namespace srpfs::lun {

struct UnitReport {
    scsi::Lun lun{};
    // Set when the unit is a disk that can be used.
    std::shared_ptr<const UnitInfo> info;
    // Otherwise why not, in words; whether there is anything at this address at all; and whether it has said so itself:
    // false when it did not answer in time.
    std::string problem;
    bool present = false;
    bool answered = true;
    // Engine::next_stamp(): attentions of before have been taken in.
    std::uint64_t asked_at = 0;
};

// Called on the probe's reactor, each from a later turn than what started it.
class ProbeListener {
public:
    // What the target lists, in ascending order, each once. `asked_at`: see UnitReport.
    virtual void on_list(std::vector<scsi::Lun> luns, std::uint64_t asked_at) = 0;
    virtual void on_unit(UnitReport report) = 0;
    // After one of these, or instead of it: the target did not tell its list in time (ETIMEDOUT), its list cannot be
    // used, or the link was lost (ENOTCONN).
    virtual void on_probe_end(Result<void> result) = 0;
    // The last call, after on_probe_end() or cancel_probe(): nothing of the probe is left on the link, so after a
    // time-out only when its last command has ended.
    virtual void on_probe_gone() = 0;

protected:
    ~ProbeListener() = default;
};

// `engine` and `link` outlive the probe: the link's end makes it end; `listener` outlives its last call. Unit
// attentions met on the way are passed on to the units of the link (TargetLink::tell_event). Reactor thread. The
// returned handle only serves to cancel.
class Probe;
std::shared_ptr<Probe> ask_for_list(Engine& engine, initiator::TargetLink& link, Duration time_limit,
                                    ProbeListener& listener);
// One at a time for a unit: what it says of a change it says once, and the other would not hear of it.
std::shared_ptr<Probe> look_at(Engine& engine, initiator::TargetLink& link, const scsi::Lun& lun, Duration time_limit,
                               ProbeListener& listener);
// Only on_probe_gone() is called any more. The probe keeps itself alive until its commands have ended.
void cancel_probe(const std::shared_ptr<Probe>& probe);

}  // namespace srpfs::lun
