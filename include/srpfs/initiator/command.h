// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// One SCSI command on its way to a logical unit: what the layer above fills in, and what comes back.

#pragma once

#include <srpfs/base/instant.h>
#include <srpfs/base/intrusive_list.h>
#include <srpfs/fabric/fabric.h>
#include <srpfs/scsi/scsi.h>
#include <srpfs/srp/srp.h>

#include <optional>

namespace srpfs::initiator {

class Channel;
struct Command;

enum class CommandEnd : std::uint8_t {
    answered,         // the target responded: status, sense and residual are valid
    aborted,          // proven not to run any more by task management (decisions 1, 2); may be sent again
    connection_lost,  // no response will come; whether the command ran, or still runs, is unknown
};

struct CommandResult {
    CommandEnd end = CommandEnd::connection_lost;
    scsi::Status status = scsi::Status::good;
    scsi::Sense sense{};
    // Bytes not transferred of what the command asked for; 0 with overflow, when the target had more than that.
    std::uint32_t residual = 0;
    bool overflow = false;
};

// Why a command was not answered GOOD, for counting.
enum class CommandFault : std::uint8_t {
    check_condition,
    busy,
    reservation_conflict,
    task_set_full,
    other_status,
    aborted,          // by task management
    connection_lost,  // as far as anybody knows
};
inline constexpr std::size_t command_faults = static_cast<std::size_t>(CommandFault::connection_lost) + 1;
[[nodiscard]] const char* to_string(CommandFault fault);
// Nothing: it was.
[[nodiscard]] std::optional<CommandFault> fault_of(const CommandResult& result);

class CommandOwner {
public:
    // Called exactly once per accepted command, from a later turn; the command and its memory are free again.
    virtual void on_command_done(Command& command) = 0;

protected:
    ~CommandOwner() = default;
};

// Lives in its owner from submit() to on_command_done(). Its data must not be reused in between: the target may read
// or write it until then.
struct Command : ListHook<> {
    // Filled in by the owner.
    CommandOwner* owner = nullptr;
    scsi::Lun lun{};
    scsi::Cdb cdb{};
    srp::DataDirection direction = srp::DataDirection::none;
    fabric::RegionId region{};  // of `data`; RemoteAccess::write for from_target, read for to_target
    std::span<std::byte> data{};
    Duration time_limit{};  // for the target to answer, from submit(); zero: ChannelConfig::command_time
    // May use the credit kept for flushes, probes and the second half of a read-modify-write (decisions 11).
    bool privileged = false;
    // Goes on this channel, of those that are live then, and on no other (counted around); empty: on any.
    std::optional<unsigned> on_channel{};
    // A question whether the target is there at all: unanswered in time, the connection ends.
    bool vital = false;
    // Asks whether the target is there: as privileged, and there is always a tag for it. One at a time per channel.
    bool checks_path = false;

    // Result.
    CommandResult result{};

    // The channel's, while in flight.
    Channel* channel = nullptr;
    srp::Tag tag = 0;
    Instant sent_at{};
    Instant deadline = instant_never;
    // What task management has done about it. `covered` and `proven` commands are not waited for.
    enum class Fence : std::uint8_t {
        none,
        marked,   // a LUN RESET that is under way covers it: no proof of anything yet
        covered,  // a LUN RESET succeeded that may have overtaken it on another channel: ends `connection_lost`
        proven,   // it cannot run any more: ends `aborted` if it is not answered
    };
    Fence fence = Fence::none;
    bool expired = false;    // its time limit has passed; task management is told once
    bool immediate = false;  // the payload travelled in the IU: nothing remote refers to `data`
};

}  // namespace srpfs::initiator
