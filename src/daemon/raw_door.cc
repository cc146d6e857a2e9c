// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "raw_door.h"

#include <srpfs/daemon/raw_ioctl.h>

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

namespace srpfs::daemon {
namespace {

using lun::OutcomeKind;
using Call = std::shared_ptr<fs::PendingCall>;

static_assert(sizeof(srpfs_raw_command) == 64 + SRPFS_RAW_DATA_MAX);
static_assert(sizeof(srpfs_raw_command) < 1 << 13);  // _IOC_SIZEBITS of ppc, mips, sparc and alpha
static_assert(_IOC_SIZE(SRPFS_RAW_COMMAND) == sizeof(srpfs_raw_command));

std::string hex_of(std::span<const std::byte> bytes) {
    std::string text;
    for (const std::byte one : bytes)
        text += fmt::format("{}{:02x}", text.empty() ? "" : " ", std::to_integer<unsigned>(one));
    return text;
}

// As xxd -g1 does it, which can read it again.
void add_dump(std::string& text, std::span<const std::byte> data) {
    constexpr std::size_t width = 16;
    for (std::size_t at = 0; at < data.size(); at += width) {
        const auto line = data.subspan(at, std::min(width, data.size() - at));
        text += fmt::format("{:08x}: {:<48} ", at, hex_of(line));
        for (const std::byte one : line) {
            const auto c = std::to_integer<char>(one);
            text += c >= 0x20 && c <= 0x7e ? c : '.';
        }
        text += '\n';
    }
}

std::string text_of(const scsi::Cdb& cdb, unsigned uid, const lun::UnitAnswer& answer) {
    const lun::Outcome& outcome = answer.outcome;
    std::string text =
        fmt::format("command {}\nuid {}\nstatus {}\nsense {}\nresidual {}\noverflow {}\ndata {}\n", hex_of(cdb.span()),
                    uid, scsi::describe(outcome.status), outcome.sense.valid ? scsi::describe(outcome.sense) : "none",
                    answer.residual, answer.overflow ? "yes" : "no", answer.data.size());
    add_dump(text, answer.data);
    return text;
}

// Why there is no answer of the target.
Error error_of(const lun::UnitAnswer& answer) {
    if (answer.timed_out)
        return {ETIMEDOUT, "cdb: no answer in time; the command was aborted if it may change anything"};
    switch (answer.outcome.kind) {
        case OutcomeKind::interrupted:
            return {EINTR, "cdb: given up; the command is aborted if it may change anything"};
        case OutcomeKind::gone: return {ENODEV, "cdb: the unit is gone"};
        case OutcomeKind::not_ready: return {EIO, "cdb: the unit is offline"};
        case OutcomeKind::path_lost:
            return {EIO,
                    "cdb: there is no connection; if it was lost meanwhile, whether the command was carried out is "
                    "not known"};
        case OutcomeKind::out_of_memory: return {EIO, "cdb: too many requests are being served"};
        default: return {EIO, "cdb: the command was aborted, or its answer is unusable"};
    }
}

}  // namespace

void RawDoor::refuse(const Sender& sender, const Error& error) {
    const Instant now = config_.now();
    if (!sender.by_ioctl) {
        config_.on_refused(error);
    } else if (refusals_ > 0 && now - refusal_told_at_ < refusal_pause) {
        ++refusals_;
    } else {
        config_.on_refused(refusals_ > 1 ? Error(error.errno_value(), fmt::format("{} (and {} refusals before)",
                                                                                  error.context, refusals_ - 1))
                                         : error);
        refusals_ = 1;
        refusal_told_at_ = now;
    }
    sender.call->fail(error.errno_value());
}

Result<scsi::RawPlan> RawDoor::check(const scsi::RawCommand& command, bool may_change) const {
    if (config_.allowed == RawCommands::none) return Error(EPERM, "cdb: the mount has raw_commands=none");
    auto plan = scsi::plan_raw_command(command, config_.block_bytes());
    if (!plan || !plan->changes) return plan;
    const std::string who = fmt::format("cdb: {:02x} may change the unit, or is not known:", command.cdb.opcode());
    if (config_.allowed != RawCommands::all) return Error(EPERM, who + " that needs a mount with raw_commands=all");
    if (config_.is_read_only()) return Error(EROFS, who + " the mount or the file is read-only");
    if (!may_change) return Error(EPERM, who + " that needs root, and a file that is open for writing");
    return plan;
}

RawDoor::Load RawDoor::load() {
    std::erase_if(given_up_, [](const GivenUp& one) { return one.flight.expired(); });
    Load sum = under_way_;
    for (const GivenUp& one : given_up_) {
        ++sum.all;
        if (!one.of_root) ++sum.of_others;
    }
    return sum;
}

void RawDoor::send(const scsi::RawCommand& command, const Sender& sender, Done on_done) {
    const auto plan = check(command, sender.may_change);
    if (!plan) return refuse(sender, plan.error());
    const bool is_root = sender.uid == 0;
    const Load now = load();
    if (now.all >= commands_max || (!is_root && now.of_others >= commands_of_others_max))
        return refuse(sender, Error(EBUSY, fmt::format("cdb: {} commands are under way", now.all)));
    if (plan->changes) config_.on_change(hex_of(command.cdb.span()), sender.uid);
    lun::UnitCommand wanted;
    wanted.cdb = command.cdb;
    wanted.data_out = command.out;
    wanted.data_in_bytes = plan->way == scsi::DataWay::in ? plan->bytes : 0;
    wanted.time_limit = command.time_limit;
    wanted.is_foreign = true;
    wanted.changes = plan->changes;
    // An abort may cost all the others their connection: whoever may only read does not get it. Root may ask what takes
    // longer than I/O.
    wanted.aborts = plan->changes || (is_root && command.time_limit > config_.command_timeout);
    ++under_way_.all;
    if (!is_root) ++under_way_.of_others;
    const auto give_up = config_.send(std::move(wanted), [self = shared_from_this(), sender, changes = plan->changes,
                                                          on_done = std::move(on_done)](const lun::UnitAnswer& answer) {
        --self->under_way_.all;
        if (sender.uid != 0) --self->under_way_.of_others;
        if (!answer.flight.expired()) self->given_up_.push_back({answer.flight, sender.uid == 0});
        const auto told = std::make_shared<bool>(false);
        const auto tell = [self, sender, on_done, answer, told] {
            if (std::exchange(*told, true)) return;
            if (answer.answered) return on_done(answer);
            self->refuse(sender, error_of(answer));
        };
        if (!changes) return tell();
        // Its size, its cache mode or what it is may be another now: who is answered sees it.
        sender.call->on_interrupt(tell);
        self->config_.look(tell);
    });
    sender.call->on_interrupt(give_up);
}

void RawDoor::write(std::string_view text, Call call) {
    const auto command = scsi::parse_raw_command(text);
    const Sender sender{.uid = call->caller_uid(), .may_change = true, .by_ioctl = false, .call = call};
    if (!command) return refuse(sender, command.error());
    send(*command, sender, [self = shared_from_this(), sender, cdb = command->cdb](const lun::UnitAnswer& answer) {
        self->last_ = text_of(cdb, sender.uid, answer);
        sender.call->succeed_with(self->last_);
    });
}

void RawDoor::ioctl(std::string_view bytes, bool may_change, unsigned uid, Call call) {
    const Sender sender{.uid = uid, .may_change = may_change, .by_ioctl = true, .call = call};
    const auto wrong = [&](const char* what) { refuse(sender, Error(EINVAL, fmt::format("cdb: ioctl: {}", what))); };
    const auto raw = std::make_shared<srpfs_raw_command>();
    if (bytes.size() != sizeof *raw) return wrong("the structure has another size");
    std::memcpy(raw.get(), bytes.data(), sizeof *raw);
    if (raw->cdb_bytes > sizeof raw->cdb) return wrong("cdb_bytes is more than 16");
    if (raw->direction > SRPFS_RAW_DATA_OUT) return wrong("direction is not known");
    if (raw->data_bytes > sizeof raw->data) return wrong("data_bytes is more than SRPFS_RAW_DATA_MAX");
    if (raw->reserved[0] != 0 || raw->reserved[1] != 0) return wrong("reserved is not 0");
    if ((raw->direction == SRPFS_RAW_NO_DATA) != (raw->data_bytes == 0))
        return wrong("direction and data_bytes disagree");
    const std::chrono::milliseconds limit(raw->timeout_ms);
    if (limit > scsi::raw_time_limit_max) return wrong("timeout_ms is too much");
    if (raw->timeout_ms != 0 && limit < scsi::raw_time_limit_min) return wrong("timeout_ms is less than a second");

    scsi::RawCommand command;
    command.cdb.length = raw->cdb_bytes;
    std::memcpy(command.cdb.bytes.data(), raw->cdb, raw->cdb_bytes);
    const auto data = std::as_bytes(std::span(raw->data)).first(raw->data_bytes);
    if (raw->direction == SRPFS_RAW_DATA_OUT)
        command.out.assign(data.begin(), data.end());
    else
        command.in_bytes = raw->data_bytes;
    if (raw->timeout_ms != 0) command.time_limit = limit;
    send(command, sender,
         [self = shared_from_this(), call, raw, uid, cdb = command.cdb](const lun::UnitAnswer& answer) {
             self->last_ = text_of(cdb, uid, answer);
             const lun::Outcome& outcome = answer.outcome;
             raw->residual = answer.residual;
             raw->status = static_cast<std::uint8_t>(outcome.status);
             raw->overflow = answer.overflow;
             raw->has_sense = outcome.sense.valid;
             raw->sense_key = outcome.sense.valid ? static_cast<std::uint8_t>(outcome.sense.key) : 0;
             raw->asc = outcome.sense.valid ? outcome.sense.asc : 0;
             raw->ascq = outcome.sense.valid ? outcome.sense.ascq : 0;
             std::memset(raw->filler, 0, sizeof raw->filler);
             if (raw->direction == SRPFS_RAW_DATA_IN) {
                 std::memset(raw->data, 0, sizeof raw->data);
                 if (!answer.data.empty())
                     std::memcpy(raw->data, answer.data.data(), std::min(answer.data.size(), sizeof raw->data));
             }
             call->succeed_with(std::string(reinterpret_cast<const char*>(raw.get()), sizeof *raw));
         });
}

}  // namespace srpfs::daemon
