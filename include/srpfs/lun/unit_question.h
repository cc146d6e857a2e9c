// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// One command to a unit whose answer somebody wants to see: data in, nothing is changed by it.

#pragma once

#include <srpfs/base/result.h>
#include <srpfs/lun/inventory.h>
#include <srpfs/reactor/executor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace srpfs::lun {

// Control thread. `reactor` is the unit's. `on_done` is called once there, in a later turn: with what the target sent,
// at most `bytes` (0..Operation::raw_bytes_max), or EOPNOTSUPP (the unit refuses), ETIMEDOUT (no answer within
// `time_limit` and half a second, a lost connection included), EINTR (given up), ENODEV, EBUSY, EIO. The result gives
// up when called: on the control thread, at any time.
std::function<void()> ask_unit(reactor::Executor& control, reactor::Executor& reactor, std::shared_ptr<ListedUnit> unit,
                               const scsi::Cdb& cdb, std::uint32_t bytes, Duration time_limit,
                               std::function<void(Result<std::vector<std::byte>>)> on_done);

}  // namespace srpfs::lun
