// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// How a simulated target misbehaves, and who watches it. The target asks, the implementation decides (from its own
// seeded randomness): without one nothing is delayed, refused or distorted.

#pragma once

#include <srpfs/base/instant.h>
#include <srpfs/scsi/scsi.h>
#include <srpfs/srp/srp.h>

#include <cstdint>
#include <optional>
#include <span>

namespace srpfs::target {

using ChannelId = std::uint64_t;  // 1, 2, ... in the order of the logins to a Device; never used again

struct CommandView {
    ChannelId channel = 0;
    srp::PortId initiator{};
    srp::Tag tag = 0;
    scsi::Lun lun{};
    std::span<const std::byte> cdb;  // 16 bytes
    srp::DataDirection direction = srp::DataDirection::none;
    std::uint64_t data_bytes = 0;  // that the descriptors or the immediate data cover
};

struct CommandPlan {
    Duration delay{};           // before the backend; the data of a write has been fetched already
    bool hold = false;          // before the backend, until Device::release_held()
    bool abort_waits = false;   // an abort of this command is answered only when the delay or hold is over, and
                                // the command is carried out (a backend that cannot be interrupted)
    Duration response_delay{};  // between the backend and data-in plus response; cannot be aborted any more
    std::optional<scsi::Status> status;  // answered instead of executing
    std::optional<scsi::Sense> sense;    // with status check_condition
};

// Lies in one SRP_RSP. Everything is as it should be unless set.
struct ResponsePlan {
    bool lost = false;  // not sent at all; its credit comes with a later response
    unsigned copies = 1;
    std::optional<srp::Tag> tag;
    std::optional<std::int32_t> credit_delta;
    std::optional<std::uint32_t> data_in_residual, data_out_residual;  // claimed with DIUNDER, DOUNDER
    std::optional<std::uint32_t> sense_bytes, response_data_bytes;     // claimed lengths; the bytes stay the same
    std::optional<std::size_t> length;                                 // the unit is cut there
};

struct TaskManagementPlan {
    bool answered = true;               // false: carried out, but the answer is lost
    Duration delay{};                   // of the answer
    std::optional<srp::TaskCode> code;  // answered; the function is not carried out
    // Commands it concerns that are still delayed complete in the backend just before it looks, so that it does not
    // wait for them (decisions 2); their data and responses come so much later.
    std::optional<Duration> overtaken_by;
};

// Called on the reactor thread of the portal concerned.
class Behaviour {
public:
    virtual CommandPlan on_command(const CommandView& command) {
        (void)command;
        return {};
    }
    virtual void on_response(const CommandView& command, ResponsePlan& plan) { (void)command, (void)plan; }
    virtual TaskManagementPlan on_task_management(ChannelId channel, const srp::TaskManagement& request) {
        (void)channel, (void)request;
        return {};
    }
    // How many of the credits owed to the initiator a response gives back; the rest stays owed.
    virtual std::int32_t credits(ChannelId channel, std::int32_t owed) {
        (void)channel;
        return owed;
    }
    // `channels`: that the nexus has now. A reason refuses the login.
    virtual std::optional<srp::RejectReason> on_login(const srp::LoginRequest& login, unsigned channels) {
        (void)login, (void)channels;
        return std::nullopt;
    }
    virtual bool grants_immediate_data(const srp::LoginRequest& login) {
        (void)login;
        return true;
    }

    // Observers. A write is applied when later reads give its data; `data` is empty for a null store and for unmap.
    virtual void on_write_applied(unsigned lun, std::uint64_t lba, std::uint64_t blocks,
                                  std::span<const std::byte> data) {
        (void)lun, (void)lba, (void)blocks, (void)data;
    }
    virtual void on_flushed(unsigned lun, std::uint64_t lba, std::uint64_t blocks) {
        (void)lun, (void)lba, (void)blocks;
    }
    // PERSISTENT RESERVE IN, just before it is answered, or OUT, just after it was carried out (`data`: its parameter
    // list) and not refused.
    virtual void on_reservation_command(unsigned lun, const srp::PortId& initiator, std::span<const std::byte> cdb,
                                        std::span<const std::byte> data) {
        (void)lun, (void)initiator, (void)cdb, (void)data;
    }

protected:
    ~Behaviour() = default;
};

}  // namespace srpfs::target
