// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/lun/unit_question.h>

#include <srpfs/base/assert.h>
#include <srpfs/lun/engine.h>

#include <fmt/format.h>

#include <cerrno>
#include <optional>
#include <utility>

namespace srpfs::lun {
namespace {

using Answer = Result<std::vector<std::byte>>;

// Lives on the unit's reactor, and holds itself while the command is under way.
class UnitQuestion final : public std::enable_shared_from_this<UnitQuestion>, private OperationListener {
public:
    UnitQuestion(reactor::Executor& control, reactor::Executor& reactor, std::shared_ptr<ListedUnit> unit,
                 const scsi::Cdb& cdb, std::uint32_t bytes, std::function<void(Answer)> on_done)
        : control_(control), reactor_(reactor), unit_(std::move(unit)), cdb_(cdb), bytes_(bytes),
          on_done_(std::move(on_done)) {}

    void start(Duration time_limit) {
        Unit* const unit = unit_->unit();
        if (!unit) return end(Error(ENODEV, "the unit is gone"));
        operation_ = unit->engine().take();
        if (!operation_) return end(Error(EIO, "too many requests are being served"));
        self_ = shared_from_this();
        deadline_.emplace(reactor_.timers(), [this] {
            is_late_ = true;
            give_up();
        });
        deadline_->arm_after(time_limit);
        operation_->prepare_raw(*unit, cdb_, bytes_, *this);
        unit->start(*operation_);
    }
    void give_up() {
        if (operation_) operation_->unit().interrupt(*operation_);
    }

private:
    void on_answered(Operation& operation) override {
        const Outcome outcome = operation.outcome();
        std::vector<std::byte> data(operation.data().begin(), operation.data().end());
        operation_ = nullptr;
        operation.release();
        if (outcome.ok())
            end(std::move(data));
        else
            end(error_of(outcome));
    }
    [[nodiscard]] Error error_of(const Outcome& outcome) const {
        const auto because = [&](int value) {
            return Error(value, outcome.status == scsi::Status::check_condition
                                    ? scsi::describe(outcome.sense)
                                    : std::string(scsi::describe(outcome.status)));
        };
        if (outcome.kind == OutcomeKind::interrupted && is_late_) return {ETIMEDOUT, "no answer in time"};
        if (outcome.kind == OutcomeKind::interrupted) return {EINTR, "given up"};
        if (outcome.kind == OutcomeKind::illegal_request) return because(EOPNOTSUPP);
        if (outcome.kind == OutcomeKind::gone) return {ENODEV, "the unit is gone"};
        if (outcome.kind == OutcomeKind::path_lost) return {EIO, "there is no connection"};
        if (outcome.kind == OutcomeKind::reservation_conflict || outcome.kind == OutcomeKind::busy)
            return because(EBUSY);
        return because(EIO);
    }
    // The unit is let go of where it belongs, and this in a later turn: the timer may be calling.
    void end(Answer answer) {
        if (deadline_) deadline_->disarm();
        control_.post([unit = std::move(unit_), on_done = std::move(on_done_), answer = std::move(answer)]() mutable {
            on_done(std::move(answer));
        });
        if (self_) reactor_.post([last = std::move(self_)] {});
    }

    reactor::Executor& control_;
    reactor::Executor& reactor_;
    std::shared_ptr<ListedUnit> unit_;
    const scsi::Cdb cdb_;
    const std::uint32_t bytes_;
    std::function<void(Answer)> on_done_;
    Operation* operation_ = nullptr;
    std::optional<reactor::Timer> deadline_;
    bool is_late_ = false;
    std::shared_ptr<UnitQuestion> self_;
};

}  // namespace

std::function<void()> ask_unit(reactor::Executor& control, reactor::Executor& reactor, std::shared_ptr<ListedUnit> unit,
                               const scsi::Cdb& cdb, std::uint32_t bytes, Duration time_limit,
                               std::function<void(Answer)> on_done) {
    SRPFS_ASSERT(bytes <= Operation::raw_bytes_max);
    auto question = std::make_shared<UnitQuestion>(control, reactor, std::move(unit), cdb, bytes, std::move(on_done));
    std::weak_ptr<UnitQuestion> weak = question;
    reactor.post([question = std::move(question), time_limit] { question->start(time_limit); });
    return [weak, &reactor] {
        reactor.post([weak] {
            if (const auto still = weak.lock()) still->give_up();
        });
    };
}

}  // namespace srpfs::lun
