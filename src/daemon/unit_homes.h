// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Which reactor has a logical unit: all paths to it are served there, because the locks that order its writes, and the
// blocks that writes of unknown end may still change, are kept by that reactor's engine (decisions 3, 6). Control
// thread.

#pragma once

#include <srpfs/lun/unit.h>

#include <map>
#include <optional>
#include <string>

namespace srpfs::daemon {

class UnitHomes {
public:
    // The reactor that has the unit: the one that was the first to be given it, `proposed` if that is now. For good,
    // since writes of unknown end outlive the path they were sent on. One without a name is nobody else's.
    unsigned home_of(const lun::UnitInfo& info, unsigned proposed) {
        if (info.wwid.empty()) return proposed;
        return homes_.try_emplace(info.wwid, proposed).first->second;
    }

    // Nothing if nobody has been given it.
    [[nodiscard]] std::optional<unsigned> known_home(const lun::UnitInfo& info) const {
        const auto found = homes_.find(info.wwid);
        return found == homes_.end() ? std::nullopt : std::optional(found->second);
    }

private:
    std::map<std::string, unsigned> homes_;  // by identity
};

}  // namespace srpfs::daemon
