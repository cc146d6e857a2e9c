// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// SCSI commands of somebody's choice to one unit, as text in lunN.attr/cdb and as an ioctl (raw_ioctl.h): who may send
// what, and what came of it. Control thread.

#pragma once

#include <srpfs/base/instant.h>
#include <srpfs/base/result.h>
#include <srpfs/daemon/config.h>
#include <srpfs/fs/tree.h>
#include <srpfs/lun/unit_command.h>
#include <srpfs/scsi/raw_command.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace srpfs::daemon {

// What a door needs of the unit it belongs to.
struct RawDoorConfig {
    RawCommands allowed = RawCommands::read;
    // lun::send_command() to the unit.
    std::function<std::function<void()>(lun::UnitCommand, std::function<void(lun::UnitAnswer)>)> send;
    // Looks at the unit again, and has the kernel drop its pages, then calls.
    std::function<void(std::function<void()>)> look;
    std::function<std::uint32_t()> block_bytes;
    std::function<bool()> is_read_only;  // this mount refuses to write
    Duration command_timeout{};          // of the unit's I/O
    std::function<Instant()> now;
    // For people: each refusal of what was written; of ioctls, which any reader may repeat, one a second.
    std::function<void(const Error&)> on_refused;
    // Before one that may change the unit is sent.
    std::function<void(const std::string& cdb, unsigned uid)> on_change;
};

class RawDoor final : public std::enable_shared_from_this<RawDoor> {
public:
    explicit RawDoor(RawDoorConfig config) : config_(std::move(config)) {}

    // At a time; those that were given up count as long as the target has them.
    static constexpr unsigned commands_max = 8;
    static constexpr unsigned commands_of_others_max = 4;  // of them, of those that are not root
    static constexpr Duration refusal_pause = std::chrono::seconds(1);

    void write(std::string_view text, std::shared_ptr<fs::PendingCall> call);
    // The answer to the last command in words; empty before the first.
    [[nodiscard]] const std::string& last() const { return last_; }
    // `may_change`: he is allowed to change the unit, as far as files say so.
    void ioctl(std::string_view bytes, bool may_change, unsigned uid, std::shared_ptr<fs::PendingCall> call);

private:
    using Done = std::function<void(const lun::UnitAnswer& answer)>;
    [[nodiscard]] Result<scsi::RawPlan> check(const scsi::RawCommand& command, bool may_change) const;
    struct Sender {
        unsigned uid = 0;
        bool may_change = false;
        bool by_ioctl = false;
        std::shared_ptr<fs::PendingCall> call;
    };
    void send(const scsi::RawCommand& command, const Sender& sender, Done on_done);
    void refuse(const Sender& sender, const Error& error);
    // Commands that the target may have.
    struct Load {
        unsigned all = 0, of_others = 0;
    };
    [[nodiscard]] Load load();

    const RawDoorConfig config_;
    std::string last_;
    Load under_way_;  // their callers wait
    struct GivenUp {
        std::weak_ptr<const void> flight;
        bool of_root = false;
    };
    std::vector<GivenUp> given_up_;
    unsigned refusals_ = 0;  // of ioctls, since refusal_told_at_
    Instant refusal_told_at_{};
};

}  // namespace srpfs::daemon
