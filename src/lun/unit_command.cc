// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/lun/unit_command.h>

#include <srpfs/base/assert.h>
#include <srpfs/lun/engine.h>

#include <optional>
#include <utility>

namespace srpfs::lun {
namespace {

// Lives on the unit's reactor, and holds itself while the command is under way.
class UnitCall final : public std::enable_shared_from_this<UnitCall>, private OperationListener {
public:
    UnitCall(reactor::Executor& control, reactor::Executor& reactor, std::shared_ptr<ListedUnit> unit,
             UnitCommand command, std::function<void(UnitAnswer)> on_done)
        : control_(control), reactor_(reactor), unit_(std::move(unit)), command_(std::move(command)),
          on_done_(std::move(on_done)) {}

    void start() {
        Unit* const unit = unit_->unit();
        if (!unit) return end({.outcome = {OutcomeKind::gone}, .timed_out = false, .data = {}, .flight = {}});
        operation_ = unit->engine().take();
        if (!operation_)
            return end({.outcome = {OutcomeKind::out_of_memory}, .timed_out = false, .data = {}, .flight = {}});
        self_ = shared_from_this();
        deadline_.emplace(reactor_.timers(), [this] {
            is_late_ = true;
            give_up();
        });
        deadline_->arm_after(command_.time_limit);
        if (command_.data_out.empty())
            operation_->prepare_raw(*unit, command_.cdb, command_.data_in_bytes, *this);
        else
            operation_->prepare_raw_out(*unit, command_.cdb, command_.data_out, *this);
        if (command_.is_foreign)
            operation_->mark_foreign(command_.changes, command_.aborts ? command_.time_limit : Duration::zero());
        if (command_.only_found_at != 0) operation_->mark_only_for_unit_found_at(command_.only_found_at);
        unit->start(*operation_);
    }
    void give_up() {
        if (operation_) operation_->unit().interrupt(*operation_);
    }

private:
    void on_answered(Operation& operation) override {
        UnitAnswer answer{.outcome = operation.outcome(), .timed_out = false, .data = {}, .flight = {}};
        if (command_.is_foreign && operation.is_in_flight()) {
            const auto flight = std::make_shared<char>();
            answer.flight = flight;
            operation.keep(flight);
        }
        answer.data.assign(operation.data().begin(), operation.data().end());
        answer.timed_out = is_late_ && (answer.outcome.kind == OutcomeKind::interrupted ||
                                        answer.outcome.kind == OutcomeKind::aborted);
        if (answer.outcome.ok() || answer.outcome.status != scsi::Status::good) {
            const initiator::CommandResult& result = operation.raw_result();
            answer.answered = true;
            answer.outcome.status = result.status;
            answer.outcome.sense = result.sense;
            answer.residual = result.residual;
            answer.overflow = result.overflow;
        }
        operation_ = nullptr;
        operation.release();
        end(std::move(answer));
    }
    // The unit is let go of where it belongs, and this in a later turn: the timer may be calling.
    void end(UnitAnswer answer) {
        if (deadline_) deadline_->disarm();
        control_.post([unit = std::move(unit_), on_done = std::move(on_done_), answer = std::move(answer)]() mutable {
            on_done(std::move(answer));
        });
        if (self_) reactor_.post([last = std::move(self_)] {});
    }

    reactor::Executor& control_;
    reactor::Executor& reactor_;
    std::shared_ptr<ListedUnit> unit_;
    const UnitCommand command_;
    std::function<void(UnitAnswer)> on_done_;
    Operation* operation_ = nullptr;
    std::optional<reactor::Timer> deadline_;
    bool is_late_ = false;
    std::shared_ptr<UnitCall> self_;
};

}  // namespace

std::function<void()> send_command(reactor::Executor& control, reactor::Executor& reactor,
                                   std::shared_ptr<ListedUnit> unit, UnitCommand command,
                                   std::function<void(UnitAnswer)> on_done) {
    SRPFS_ASSERT(command.data_in_bytes <= Operation::raw_bytes_max);
    SRPFS_ASSERT(command.data_out.size() <= Operation::raw_bytes_max);
    auto call = std::make_shared<UnitCall>(control, reactor, std::move(unit), std::move(command), std::move(on_done));
    const std::weak_ptr<UnitCall> weak = call;
    reactor.post([call = std::move(call)] { call->start(); });
    return [weak, &reactor] {
        reactor.post([weak] {
            if (const auto still = weak.lock()) still->give_up();
        });
    };
}

}  // namespace srpfs::lun
