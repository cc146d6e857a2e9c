// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Persistent reservations of a unit as an administrator or a cluster uses them: the key under which this nexus is
// registered, commands in words, and what happens to them when a target forgets (SPC-4 5.12).
//
// A registration belongs to the I_T nexus and outlives its connections. A target without APTPL forgets all of them when
// it loses power: when nobody is registered any more and its generation counts from zero, ours is repeated, but never a
// reservation. One that was preempted or cleared is not repeated: somebody has fenced us off. Whose a key is the target
// is not asked: where several nexuses use the same one, one that was forgotten may go unnoticed.

#pragma once

#include <srpfs/base/result.h>
#include <srpfs/lun/unit_command.h>
#include <srpfs/scsi/reservation.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace srpfs::lun {

struct ReserveCommand {
    enum class Verb : std::uint8_t {
        register_key,         // register KEY: as the first one, or in place of ours
        register_and_ignore,  // register-ignore KEY: whatever is registered for this nexus
        unregister,
        reserve,        // reserve TYPE
        release,        // release
        preempt,        // preempt KEY [TYPE]: without TYPE that of the reservation there is
        preempt_abort,  // preempt-abort KEY [TYPE]
        clear,
    };
    Verb verb{};
    std::uint64_t key = 0;
    std::optional<scsi::ReservationType> type;
};
// EINVAL with what is wrong and what is expected.
Result<ReserveCommand> parse_reserve_command(std::string_view text);

// Control thread. One thing at a time; the others wait.
class Registration final : public std::enable_shared_from_this<Registration> {
public:
    // Sends a command to the unit; gives it up when the result is called.
    using Sender = std::function<std::function<void()>(UnitCommand, std::function<void(UnitAnswer)>)>;
    // `lost`: we are registered no more. Else: what was repeated.
    using Teller = std::function<void(const std::string& text, bool lost)>;
    Registration(std::string name, Sender send, Teller tell)
        : name_(std::move(name)), send_(std::move(send)), tell_(std::move(tell)) {}

    using Waiter = std::function<void(Result<void>)>;
    using Reader = std::function<void(Result<std::string>)>;
    // Each is answered once. What they return gives up (EINTR): whether a command was carried out is not known then.
    std::function<void()> execute(const ReserveCommand& command, Waiter on_done);
    // Lines "generation N", "registered KEY" or "registered none" (this nexus), "key KEY" for each registered nexus,
    // "reservation TYPE KEY" or "reservation none".
    std::function<void()> read(Reader on_done);
    // After a login or an attention, when a look has found the unit (UnitInfo::probed_at): is the registration still
    // there? Repeats it if the target has lost power. Does
    // nothing without a key. Always ends, within a bound. False: it is not known, ask again. So it is while a command
    // is being executed: that may have to wait until the unit has been looked at, which must not wait for it.
    void check(std::uint64_t found_at, std::function<void(bool asked)> on_done);

    [[nodiscard]] std::optional<std::uint64_t> key() const { return key_; }

private:
    struct Job {
        std::function<void(Job&)> begin;
        std::function<void(Error)> fail;
        bool is_order = false;  // see execute()
        bool given_up = false;
    };
    using JobPointer = std::shared_ptr<Job>;
    std::function<void()> enqueue(JobPointer job, bool first = false);
    void next();
    void end();
    void ask(scsi::Cdb cdb, std::function<void(Result<std::vector<std::byte>>)> on_done);
    // Only to the unit that a look has found at this stamp; without one it waits until it is known which unit is there.
    void order(scsi::ReserveOut action, std::uint64_t key, std::uint64_t action_key,
               std::optional<scsi::ReservationType> type, std::optional<std::uint64_t> found_at, Waiter on_done);
    void ask_keys(std::function<void(Result<scsi::RegisteredKeys>)> on_done);
    void ask_reservation(std::function<void(Result<scsi::ReservationData>)> on_done);
    void carry_out(const ReserveCommand& command, Waiter on_done);
    void note_generation(Waiter on_done);
    void repeat(std::uint64_t found_at, std::function<void(bool asked)> on_done);
    [[nodiscard]] Error error_of(const UnitAnswer& answer, std::string_view what) const;

    const std::string name_;
    const Sender send_;
    const Teller tell_;
    std::optional<std::uint64_t> key_;
    std::optional<std::uint64_t> perhaps_;       // of a registration whose end nobody knows
    std::optional<scsi::ReservationType> held_;  // by us, as far as we know
    std::uint32_t generation_ = 0;               // the last one seen with our key there
    std::deque<JobPointer> jobs_;
    JobPointer current_;
    bool busy_ = false;
    std::function<void()> give_up_;  // the command under way
};

}  // namespace srpfs::lun
