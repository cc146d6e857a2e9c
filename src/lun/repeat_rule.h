// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The one rule for commands that have no answer: whether they may be sent again, and after what (decisions 1, 2;
// docs/recovery.md "Ghosts and fences").

#pragma once

#include <srpfs/initiator/command.h>

namespace srpfs::lun {

enum class Repeat : std::uint8_t {
    now,          // carrying it out twice, at any time, does no harm; or the first copy has been proven not to run
    after_fence,  // the first copy may still run, and would undo what is written later: only a LUN RESET ends that
    never,        // twice is not the same as once: whoever asked has to be told that the end is unknown
};

// `command` was accepted by a channel and has ended without an answer of the unit: as `end` says, or with the status
// TASK ABORTED (pass `aborted`).
[[nodiscard]] Repeat repeat_rule(const initiator::Command& command, initiator::CommandEnd end);

}  // namespace srpfs::lun
