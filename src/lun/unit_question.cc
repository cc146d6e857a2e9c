// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/lun/unit_question.h>

#include <srpfs/lun/unit_command.h>

#include <cerrno>
#include <string>
#include <utility>

namespace srpfs::lun {
namespace {

Error error_of(const UnitAnswer& answer) {
    const Outcome& outcome = answer.outcome;
    const auto because = [&](int value) {
        return Error(value, outcome.status == scsi::Status::check_condition
                                ? scsi::describe(outcome.sense)
                                : std::string(scsi::describe(outcome.status)));
    };
    if (answer.timed_out) return {ETIMEDOUT, "no answer in time"};
    switch (outcome.kind) {
        case OutcomeKind::interrupted: return {EINTR, "given up"};
        case OutcomeKind::illegal_request: return because(EOPNOTSUPP);
        case OutcomeKind::gone: return {ENODEV, "the unit is gone"};
        case OutcomeKind::path_lost: return {EIO, "there is no connection"};
        case OutcomeKind::out_of_memory: return {EIO, "too many requests are being served"};
        case OutcomeKind::reservation_conflict:
        case OutcomeKind::busy: return because(EBUSY);
        default: return because(EIO);
    }
}

}  // namespace

std::function<void()> ask_unit(reactor::Executor& control, reactor::Executor& reactor, std::shared_ptr<ListedUnit> unit,
                               const scsi::Cdb& cdb, std::uint32_t bytes, Duration time_limit,
                               std::function<void(Result<std::vector<std::byte>>)> on_done) {
    UnitCommand command;
    command.cdb = cdb;
    command.data_in_bytes = bytes;
    command.time_limit = time_limit;
    return send_command(control, reactor, std::move(unit), std::move(command),
                        [on_done = std::move(on_done)](UnitAnswer answer) {
                            if (!answer.outcome.ok()) return on_done(error_of(answer));
                            on_done(std::move(answer.data));
                        });
}

}  // namespace srpfs::lun
