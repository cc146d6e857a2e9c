// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/lun/registration.h>

#include "canary.h"

#include <srpfs/base/log.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <utility>

namespace srpfs::lun {
namespace {

using scsi::ReservationType;
using scsi::ReserveIn;
using scsi::ReserveOut;
using Verb = ReserveCommand::Verb;

constexpr std::uint16_t answer_bytes_max = 8192;  // a thousand keys
constexpr auto check_limit = std::chrono::seconds(10);

struct Word {
    std::string_view word;
    Verb verb;
    enum class Wants : std::uint8_t { nothing, key, type, key_and_maybe_type } wants;
};
constexpr Word words[] = {
    {"register", Verb::register_key, Word::Wants::key},
    {"register-ignore", Verb::register_and_ignore, Word::Wants::key},
    {"unregister", Verb::unregister, Word::Wants::nothing},
    {"reserve", Verb::reserve, Word::Wants::type},
    {"release", Verb::release, Word::Wants::nothing},
    {"preempt", Verb::preempt, Word::Wants::key_and_maybe_type},
    {"preempt-abort", Verb::preempt_abort, Word::Wants::key_and_maybe_type},
    {"clear", Verb::clear, Word::Wants::nothing},
};

std::vector<std::string_view> split(std::string_view text) {
    std::vector<std::string_view> parts;
    while (!text.empty()) {
        const auto begin = text.find_first_not_of(" \t");
        if (begin == std::string_view::npos) break;
        text.remove_prefix(begin);
        const auto end = std::min(text.find_first_of(" \t"), text.size());
        parts.push_back(text.substr(0, end));
        text.remove_prefix(end);
    }
    return parts;
}

std::optional<std::uint64_t> parse_key(std::string_view text) {
    int base = 10;
    if (text.starts_with("0x") || text.starts_with("0X")) {
        text.remove_prefix(2);
        base = 16;
    }
    std::uint64_t key = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), key, base);
    if (error != std::errc{} || end != text.data() + text.size() || key == 0) return std::nullopt;
    return key;
}

std::string text_of(std::uint64_t key) { return fmt::format("0x{:016x}", key); }

}  // namespace

Result<ReserveCommand> parse_reserve_command(std::string_view text) {
    const auto wrong = [](std::string what) { return Error(EINVAL, "reservations: " + what); };
    const auto parts = split(text);
    const auto word = parts.empty() ? std::end(words)
                                    : std::find_if(std::begin(words), std::end(words),
                                                   [&](const Word& one) { return one.word == parts[0]; });
    if (word == std::end(words))
        return wrong(
            fmt::format("'{}' is not register KEY, register-ignore KEY, unregister, reserve TYPE, release, "
                        "preempt KEY [TYPE], preempt-abort KEY [TYPE] or clear",
                        parts.empty() ? "" : parts[0]));
    ReserveCommand command;
    command.verb = word->verb;
    std::size_t at = 1;
    if (word->wants == Word::Wants::key || word->wants == Word::Wants::key_and_maybe_type) {
        const auto key = at < parts.size() ? parse_key(parts[at]) : std::nullopt;
        if (!key)
            return wrong(fmt::format("{} needs a key: a number from 1 to 0xffffffffffffffff, not '{}'", word->word,
                                     at < parts.size() ? parts[at] : ""));
        command.key = *key;
        ++at;
    }
    const bool may_have_type = word->wants == Word::Wants::type || word->wants == Word::Wants::key_and_maybe_type;
    if (may_have_type && (at < parts.size() || word->wants == Word::Wants::type)) {
        command.type = at < parts.size() ? scsi::parse_reservation_type(parts[at]) : std::nullopt;
        if (!command.type)
            return wrong(
                fmt::format("{} needs a type: write-exclusive or exclusive-access, plain or with "
                            "-registrants-only or -all-registrants, not '{}'",
                            word->word, at < parts.size() ? parts[at] : ""));
        ++at;
    }
    if (at < parts.size()) return wrong(fmt::format("'{}' is too much after {}", parts[at], word->word));
    return command;
}

// ---- one thing at a time ----

std::function<void()> Registration::enqueue(JobPointer job, bool first) {
    const std::weak_ptr<Registration> self = weak_from_this();
    const std::weak_ptr<Job> weak = job;
    jobs_.insert(first ? jobs_.begin() : jobs_.end(), std::move(job));
    next();
    return [self, weak] {
        const auto still = self.lock();
        const auto wanted = weak.lock();
        if (!still || !wanted || std::exchange(wanted->given_up, true)) return;
        const auto waiting = std::find(still->jobs_.begin(), still->jobs_.end(), wanted);
        if (waiting == still->jobs_.end()) {
            if (wanted == still->current_ && still->give_up_) still->give_up_();
            return;
        }
        still->jobs_.erase(waiting);
        wanted->fail(Error(EINTR, still->name_ + ": given up"));
    };
}

void Registration::next() {
    if (busy_ || jobs_.empty()) return;
    busy_ = true;
    current_ = std::move(jobs_.front());
    jobs_.pop_front();
    const JobPointer job = current_;
    job->begin(*job);
}

void Registration::end() {
    busy_ = false;
    current_.reset();
    next();
}

// ---- commands ----

Error Registration::error_of(const UnitAnswer& answer, std::string_view what) const {
    const Outcome& outcome = answer.outcome;
    const auto because = [&](int value, std::string_view why) {
        return Error(value, fmt::format("{}: {}: {}", name_, what, why));
    };
    if (answer.timed_out) return because(ETIMEDOUT, "no answer in time");
    switch (outcome.kind) {
        case OutcomeKind::interrupted: return because(EINTR, "given up");
        case OutcomeKind::gone: return because(ENODEV, "the unit is gone");
        case OutcomeKind::not_ready:
            if (outcome.status == scsi::Status::check_condition) break;
            return because(EIO, "the unit is offline");
        case OutcomeKind::path_lost: return because(EIO, "no connection; whether it was carried out is not known");
        case OutcomeKind::reservation_conflict:
            return because(EBUSY,
                           "RESERVATION CONFLICT: this nexus is not registered with that key, no such key is, or "
                           "somebody else holds the reservation");
        case OutcomeKind::illegal_request: return because(EOPNOTSUPP, scsi::describe(outcome.sense));
        default: break;
    }
    return because(EIO, outcome.status == scsi::Status::check_condition ? scsi::describe(outcome.sense)
                                                                        : std::string(scsi::describe(outcome.status)));
}

void Registration::ask(scsi::Cdb cdb, std::function<void(Result<std::vector<std::byte>>)> on_done) {
    if (current_ && current_->given_up) return on_done(Error(EINTR, name_ + ": given up"));
    UnitCommand command;
    command.cdb = cdb;
    command.data_in_bytes = answer_bytes_max;
    command.time_limit = check_limit;
    give_up_ = send_(std::move(command), [self = shared_from_this(), on_done = std::move(on_done)](UnitAnswer answer) {
        self->give_up_ = nullptr;
        if (!answer.outcome.ok()) return on_done(self->error_of(answer, "PERSISTENT RESERVE IN"));
        on_done(std::move(answer.data));
    });
}

void Registration::order(ReserveOut action, std::uint64_t key, std::uint64_t action_key,
                         std::optional<ReservationType> type, std::optional<std::uint64_t> found_at, Waiter on_done) {
    if (current_ && current_->given_up) return on_done(Error(EINTR, name_ + ": given up"));
    UnitCommand command;
    command.cdb = scsi::persistent_reserve_out(action, type);
    const auto data = scsi::encode_reserve_out(key, action_key);
    command.data_out.assign(data.begin(), data.end());
    command.is_foreign = !found_at;
    command.only_found_at = found_at.value_or(0);
    command.aborts = false;
    give_up_ = send_(std::move(command), [self = shared_from_this(), on_done = std::move(on_done)](UnitAnswer answer) {
        self->give_up_ = nullptr;
        if (!answer.outcome.ok()) return on_done(self->error_of(answer, "PERSISTENT RESERVE OUT"));
        on_done({});
    });
}

void Registration::ask_keys(std::function<void(Result<scsi::RegisteredKeys>)> on_done) {
    ask(scsi::persistent_reserve_in(ReserveIn::read_keys, answer_bytes_max),
        [self = shared_from_this(), on_done = std::move(on_done)](Result<std::vector<std::byte>> data) {
            if (!data) return on_done(data.error());
            const auto keys = scsi::parse_read_keys(*data);
            if (!keys) return on_done(Error(EPROTO, self->name_ + ": unusable answer to READ KEYS"));
            on_done(*keys);
        });
}

void Registration::ask_reservation(std::function<void(Result<scsi::ReservationData>)> on_done) {
    ask(scsi::persistent_reserve_in(ReserveIn::read_reservation, answer_bytes_max),
        [self = shared_from_this(), on_done = std::move(on_done)](Result<std::vector<std::byte>> data) {
            if (!data) return on_done(data.error());
            const auto told = scsi::parse_read_reservation(*data);
            if (!told) return on_done(Error(EPROTO, self->name_ + ": unusable answer to READ RESERVATION"));
            on_done(*told);
        });
}

// ---- what people ask for ----

std::function<void()> Registration::execute(const ReserveCommand& command, Waiter on_done) {
    const auto job = std::make_shared<Job>();
    const auto finish = [self = shared_from_this(), on_done](const Result<void>& result) {
        on_done(result);
        self->end();
    };
    job->fail = on_done;
    job->is_order = true;
    job->begin = [this, command, finish](Job&) { carry_out(command, finish); };
    return enqueue(job);
}

void Registration::carry_out(const ReserveCommand& command, Waiter on_done) {
    const bool registers = command.verb == Verb::register_key || command.verb == Verb::register_and_ignore;
    if (!registers && !key_)
        return on_done(Error(ENOKEY, name_ + ": not registered: write 'register KEY', or 'register-ignore KEY' to take "
                                             "over what is registered for this nexus already"));
    const std::uint64_t own = key_.value_or(0);
    const auto self = shared_from_this();
    // Sends it, and remembers what it has changed.
    const auto go = [self, own, on_done](ReserveOut action, std::uint64_t action_key,
                                         std::optional<ReservationType> type, std::function<void()> on_success) {
        self->order(action, own, action_key, type, std::nullopt, [self, on_done, on_success](const Result<void>& done) {
            if (!done) {
                // Without an answer nobody knows; what the target has refused it has not done.
                const int value = done.error().errno_value();
                if (value == EBUSY || value == EOPNOTSUPP || value == ENODEV) self->perhaps_.reset();
                return on_done(done);
            }
            on_success();
            self->note_generation(on_done);
        });
    };
    switch (command.verb) {
        case Verb::register_key:
        case Verb::register_and_ignore: {
            const auto action = command.verb == Verb::register_key ? ReserveOut::register_key
                                                                   : ReserveOut::register_and_ignore_existing_key;
            perhaps_ = command.key;
            return go(action, command.key, std::nullopt, [self, key = command.key] {
                self->key_ = key;
                self->perhaps_.reset();
                // It has counted this one, whatever becomes of the question how far.
                self->generation_ = std::max(self->generation_, std::uint32_t{1});
            });
        }
        case Verb::unregister:
            return go(ReserveOut::register_key, 0, std::nullopt, [self] {
                self->key_.reset();
                self->held_.reset();
            });
        case Verb::reserve:
            return go(ReserveOut::reserve, 0, command.type, [self, type = command.type] { self->held_ = type; });
        case Verb::clear:
            return go(ReserveOut::clear, 0, std::nullopt, [self] {
                self->key_.reset();
                self->held_.reset();
            });
        case Verb::release:
        case Verb::preempt:
        case Verb::preempt_abort: break;
    }
    // The type has to be that of the reservation there is.
    ask_reservation([self, command, go, on_done](const Result<scsi::ReservationData>& told) {
        if (!told) return on_done(told.error());
        const auto& reservation = told->reservation;
        if (command.verb == Verb::release) {
            if (!reservation) {
                self->held_.reset();
                return on_done({});
            }
            return go(ReserveOut::release, 0, reservation->type, [self] { self->held_.reset(); });
        }
        const auto type = command.type ? command.type : reservation ? std::optional(reservation->type) : std::nullopt;
        if (!type) return on_done(Error(EINVAL, self->name_ + ": there is no reservation: preempting needs a type"));
        const bool takes_over =
            reservation && (scsi::is_for_all_registrants(reservation->type) ? false : reservation->key == command.key);
        return go(command.verb == Verb::preempt ? ReserveOut::preempt : ReserveOut::preempt_and_abort, command.key,
                  type, [self, type, takes_over] {
                      if (takes_over) self->held_ = type;
                  });
    });
}

void Registration::note_generation(Waiter on_done) {
    ask_keys([self = shared_from_this(), on_done = std::move(on_done)](const Result<scsi::RegisteredKeys>& told) {
        // 0: it has lost its power meanwhile. The next look sees to that.
        if (told && told->generation > 0) self->generation_ = told->generation;
        on_done({});  // the command itself has been carried out
    });
}

std::function<void()> Registration::read(Reader on_done) {
    const auto job = std::make_shared<Job>();
    const auto finish = [self = shared_from_this(), on_done](Result<std::string> result) {
        on_done(std::move(result));
        self->end();
    };
    job->fail = on_done;
    job->begin = [this, finish](Job&) {
        ask_keys([self = shared_from_this(), finish](const Result<scsi::RegisteredKeys>& keys) {
            if (!keys) return finish(keys.error());
            self->ask_reservation([self, finish, keys = *keys](const Result<scsi::ReservationData>& told) {
                if (!told) return finish(told.error());
                std::string text = fmt::format("generation {}\nregistered {}\n", keys.generation,
                                               self->key_ ? text_of(*self->key_) : "none");
                for (const std::uint64_t key : keys.keys) text += fmt::format("key {}\n", text_of(key));
                if (keys.is_cut) text += "key ...\n";
                if (told->reservation)
                    text += fmt::format("reservation {} {}\n", scsi::to_string(told->reservation->type),
                                        text_of(told->reservation->key));
                else
                    text += "reservation none\n";
                finish(std::move(text));
            });
        });
    };
    return enqueue(job);
}

// ---- after a login ----

void Registration::check(std::uint64_t found_at, std::function<void(bool asked)> on_done) {
    if (!key_ && !perhaps_) return on_done(true);
    if (current_ && current_->is_order) return on_done(false);
    const auto job = std::make_shared<Job>();
    const auto finish = [self = shared_from_this(), on_done](bool asked) {
        on_done(asked);
        self->end();
    };
    job->fail = [on_done](const Error&) { on_done(false); };
    job->begin = [this, found_at, finish](Job&) {
        ask_keys([self = shared_from_this(), found_at, finish](const Result<scsi::RegisteredKeys>& told) {
            if (!told) return finish(false);
            const auto is_there = [&](std::optional<std::uint64_t> key) {
                return key && std::find(told->keys.begin(), told->keys.end(), *key) != told->keys.end();
            };
            if (is_there(self->perhaps_)) self->key_ = std::exchange(self->perhaps_, std::nullopt);
            self->perhaps_.reset();
            if (!self->key_) return finish(true);
            if (is_there(self->key_) || told->is_cut) {
                self->generation_ = told->generation;
                return finish(true);
            }
            // It counts from zero again, and nobody is registered: the target has lost its power, and forgotten
            // everybody.
            if (told->keys.empty() && told->generation == 0 && self->generation_ > 0)
                return self->repeat(found_at, finish);
            self->tell_(
                fmt::format("{}: the registration {} is gone: somebody has preempted or cleared it, or the target "
                            "has forgotten it and others have registered since",
                            self->name_, text_of(*self->key_)),
                true);
            self->key_.reset();
            self->held_.reset();
            finish(true);
        });
    };
    enqueue(job, true);
}

// Not the reservation: somebody may have preempted us before the power was lost, and take it for his. Without any
// reservation a registration gives no right that others do not have.
void Registration::repeat(std::uint64_t found_at, std::function<void(bool asked)> on_done) {
    if constexpr (canary::stale_registration) return on_done(true);
    const auto self = shared_from_this();
    order(ReserveOut::register_and_ignore_existing_key, 0, *key_, std::nullopt, found_at,
          [self, on_done](const Result<void>& registered) {
              if (!registered) {
                  self->tell_(
                      fmt::format("{}: the target has forgotten the registration {}, and it could not be repeated: {}",
                                  self->name_, text_of(*self->key_), registered.error().context),
                      false);
                  return on_done(false);
              }
              self->generation_ = 1;
              const bool held = std::exchange(self->held_, std::nullopt).has_value();
              self->tell_(fmt::format("{}: the target had forgotten the registration {}: repeated{}", self->name_,
                                      text_of(*self->key_), held ? "; the reservation it held is gone" : ""),
                          false);
              self->note_generation([on_done](const Result<void>&) { on_done(true); });
          });
}

}  // namespace srpfs::lun
