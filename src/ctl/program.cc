// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/program.h>

#include "config_verb.h"
#include "live_terminal.h"
#include "terminal.h"

#include <srpfs/ctl/actions.h>
#include <srpfs/ctl/apart.h>
#include <srpfs/ctl/command_line.h>
#include <srpfs/ctl/copy.h>
#include <srpfs/ctl/diagnosis.h>
#include <srpfs/ctl/mounts.h>
#include <srpfs/ctl/rates.h>
#include <srpfs/ctl/render.h>
#include <srpfs/ctl/survey.h>
#include <srpfs/ctl/text.h>
#include <srpfs/ctl/tree_files.h>
#include <srpfs/ctl/when.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <iostream>
#include <iterator>
#include <new>
#include <optional>
#include <set>

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace srpfs::ctl {
namespace {

using std::chrono::milliseconds;
constexpr unsigned look_seconds = 10, change_seconds = 120;

// A verb that has told why it did not work ends with this.
struct Failure {
    int status;
    std::string text;
};

template <typename T>
using Either = std::variant<T, Failure>;

int fail(const Failure& failure) {
    complain(failure.text);
    return failure.status;
}

int finish(std::string_view text, int status = exit_code::ok) {
    if (const auto printed = write_output(text); !printed) return fail({exit_code::other, printed.error().context});
    return status;
}

milliseconds limit_of(const Request& request, unsigned seconds) {
    return std::chrono::seconds(request.timeout.value_or(seconds));
}

// ---- mounts ----

Either<Mount> mount_for(const Request& request, const std::vector<std::string>& names = {}) {
    const auto mounts = find_mounts();
    if (!mounts) return Failure{exit_code::other, mounts.error().context};
    const auto mount = choose_mount(*mounts, request.mount, names);
    if (!mount) return Failure{exit_code::no_mount, mount.error().context};
    return *mount;
}

Failure failure_of_mount(const Mount& mount, const Error& error) {
    const int code = error.errno_value();
    const std::string connection = mount.device.substr(mount.device.find(':') + 1);
    if (code == ETIMEDOUT)
        return {
            exit_code::no_answer,
            fmt::format("{}: srpfs does not answer ({}); its log may say why. What ends it all the same, with all I/O: "
                        "umount -f {}",
                        mount.shown(), error.context, mount.shown())};
    if (code == ENOTCONN || code == ECONNABORTED)
        return {exit_code::no_mount,
                fmt::format("{}: the srpfs that served this mount has ended; clean up with: umount {}", mount.shown(),
                            mount.shown())};
    if (code == ESHUTDOWN)
        return {exit_code::no_mount,
                fmt::format("{}: srpfs is ending: it opens nothing any more; what is open already has until its "
                            "shutdown_timeout",
                            mount.shown())};
    if (code == EACCES)
        return {exit_code::not_permitted,
                fmt::format("{}; without allow_other only the user who has mounted it may look", error.context)};
    return {exit_code_of(error), error.context};
}

Either<Json> look_at(const Request& request, const Mount& mount, Depth depth) {
    const auto text = run_apart(limit_of(request, look_seconds), [&](Outlet& outlet) -> Result<std::string> {
        const auto found = survey(mount, depth, [&] { outlet.alive(); });
        if (!found) return found.error();
        // Names of mount points need not be UTF-8, and have to stay what they are.
        const std::vector<std::uint8_t> bytes = Json::to_cbor(*found);
        return std::string(bytes.begin(), bytes.end());
    });
    if (!text) return failure_of_mount(mount, text.error());
    return Json::from_cbor(*text, true, false);
}

// nullopt: it was unmounted since it was found, which is no failure of who has only come across it.
std::optional<Either<Json>> look_if_there(const Request& request, const Mount& mount, Depth depth) {
    constexpr int times_max = 5;
    for (int times = 1;; ++times) {
        auto seen = look_at(request, mount, depth);
        const auto* failure = std::get_if<Failure>(&seen);
        if (!failure || !request.mount.empty()) return seen;
        const auto now = find_mounts();
        if (now && std::find(now->begin(), now->end(), mount) == now->end()) return std::nullopt;
        // Another one may have come to its place, and nothing tells them apart.
        if (failure->status == exit_code::no_answer || times == times_max) return seen;
    }
}

Depth depth_for(const std::vector<std::string>& names) {
    const bool by_id = std::any_of(names.begin(), names.end(), [](const std::string& name) {
        return name.find("by-id") != std::string::npos || name.starts_with("wwn-") || name.starts_with("scsi-");
    });
    return by_id ? Depth::full : Depth::brief;
}

// Names that are paths count from here, others are looked for in the mount.
std::vector<std::string> names_in(const std::vector<std::string>& operands, const std::string& mount) {
    std::vector<std::string> names;
    for (const std::string& operand : operands) {
        const std::string absolute = absolute_path(operand);
        const bool is_here = operand.find('/') != std::string::npos && absolute.starts_with(mount + "/");
        names.push_back(is_here ? absolute : operand);
    }
    return names;
}

std::vector<std::string> paths_of(const std::vector<std::string>& operands) {
    std::vector<std::string> paths;
    for (const std::string& operand : operands)
        if (operand.find('/') != std::string::npos) paths.push_back(absolute_path(operand));
    return paths;
}

struct Meant {
    Mount mount;
    Json survey;
    std::vector<Found> things;
};

// What the names mean, none of them being wrong.
Either<Meant> find_all(const Request& request, const std::vector<std::string>& operands,
                       std::optional<Depth> depth = {}) {
    auto mount = mount_for(request, paths_of(operands));
    if (auto* failure = std::get_if<Failure>(&mount)) return *failure;
    Meant meant{std::get<Mount>(mount), {}, {}};
    auto seen = look_at(request, meant.mount, depth.value_or(depth_for(operands)));
    if (auto* failure = std::get_if<Failure>(&seen)) return *failure;
    meant.survey = std::get<Json>(std::move(seen));
    for (const std::string& name : names_in(operands, meant.mount.path)) {
        const auto found = find(meant.survey, name);
        if (!found) return Failure{exit_code::not_found, found.error().context};
        meant.things.push_back(*found);
    }
    return meant;
}

// ---- looking ----

int list(const Request& request) {
    const auto mounts = find_mounts();
    if (!mounts) return fail({exit_code::other, mounts.error().context});
    std::vector<Mount> wanted = *mounts;
    if (!request.mount.empty() || wanted.empty()) {
        const auto mount = choose_mount(*mounts, request.mount, {});
        if (!mount) return fail({exit_code::no_mount, mount.error().context});
        wanted = {*mount};
    }
    std::optional<Failure> failure;
    const bool needs_all = request.format == Format::json || request.detail == Detail::full;
    std::vector<Json> seen;
    for (const Mount& mount : wanted) {
        auto one = look_if_there(request, mount, needs_all ? Depth::full : Depth::brief);
        if (!one) continue;
        if (auto* json = std::get_if<Json>(&*one)) {
            seen.push_back(std::move(*json));
            continue;
        }
        const auto& reason = std::get<Failure>(*one);
        seen.push_back(Json{{"path", mount.path}, {"source", mount.source}, {"error", reason.text}});
        if (failure) complain(failure->text);
        failure = reason;
    }
    const Screen screen = screen_of_output();
    const std::string text = render_list(list_document(seen), request.format, request.detail, screen);
    const int status = finish(text);
    if (failure) return fail(*failure);
    if (text.empty()) {
        std::string where;
        for (const Mount& mount : wanted) where += fmt::format("{}{}", where.empty() ? "" : ", ", mount.shown());
        complain(fmt::format("{}: no target is logged in to; see: srpctl login --help", where));
    }
    return status;
}

int show(const Request& request) {
    auto meant = find_all(request, request.operands, Depth::full);
    if (auto* failure = std::get_if<Failure>(&meant)) return fail(*failure);
    const auto& [mount, seen, things] = std::get<Meant>(meant);
    return finish(render_show(show_document(seen, things.front()), request.format, screen_of_output()));
}

int stats(const Request& request) {
    auto meant = find_all(request, request.operands);
    if (auto* failure = std::get_if<Failure>(&meant)) return fail(*failure);
    auto& [mount, seen, things] = std::get<Meant>(meant);
    if (!things.empty()) {
        const Found& only = things.front();
        Json kept = Json::array();
        for (Json& target : seen["targets"]) {
            if (target["port"] != only.port || (!only.target.empty() && target["name"] != only.target)) continue;
            Json luns = Json::array();
            for (const Json& lun : target["luns"])
                if (only.lun.empty() || lun["name"] == only.lun) luns.push_back(lun);
            target["luns"] = std::move(luns);
            kept.push_back(target);
        }
        seen["targets"] = std::move(kept);
        seen["pages"] = seen["reactors"] = nullptr;  // of the whole mount
    }
    return finish(render_stats(stats_document(seen), request.format, screen_of_output()));
}

// ---- rates ----

int top(const Request& request) {
    auto mount = mount_for(request);
    if (auto* failure = std::get_if<Failure>(&mount)) return fail(*failure);
    const Mount& chosen = std::get<Mount>(mount);
    Rates rates;
    std::optional<Failure> failure;
    const auto look = [&] {
        auto seen = look_at(request, chosen, Depth::brief);
        if (auto* broken = std::get_if<Failure>(&seen))
            failure = *broken;
        else
            rates.add(std::get<Json>(seen), seconds_now());
        return !failure;
    };
    const int delay = static_cast<int>(request.delay_tenths) * 100;
    unsigned shown = 0;
    const bool is_live = !request.is_batch && request.format == Format::table && isatty(STDOUT_FILENO);
    if (!is_live) {
        Screen screen = screen_of_output();
        screen.height = 0;
        if (!look()) return fail(*failure);
        do {
            pause_for(delay);
            if (!look()) return fail(*failure);
            const bool needs_gap = shown != 0 && request.format != Format::json;
            if (const int status = finish((needs_gap ? "\n" : "") + rates.text(request.format, screen)); status != 0)
                return status;
            ++shown;
        } while (request.count == 0 || shown < request.count);
        return exit_code::ok;
    }
    {
        LiveTerminal terminal;
        terminal.show("...");
        // The first look has nothing to compare with; the second comes soon.
        for (int pause = std::min(delay, 250); look(); pause = delay) {
            auto woken = LiveTerminal::Woken::by_change;
            do {
                if (rates.is_ready()) terminal.show(rates.text(Format::table, screen_of_output()));
                woken = terminal.wait(pause);
            } while (woken == LiveTerminal::Woken::by_change);
            if (woken == LiveTerminal::Woken::by_key_to_end) break;
            if (rates.is_ready() && request.count != 0 && ++shown == request.count) break;
        }
    }
    return failure ? fail(*failure) : exit_code::ok;
}

// ---- copying ----

// The LUN that a survey has there; nothing if the name means none.
std::optional<Either<CopyEnd>> lun_named(const Json& seen, const std::string& name) {
    const auto found = find(seen, name);
    if (!found && found.error().errno_value() == ENOTUNIQ) return Failure{exit_code::not_found, found.error().context};
    if (!found || found->kind != Found::Kind::lun) return std::nullopt;
    const Json document = show_document(seen, *found);
    const Json& lun = document["lun"];
    if (!lun["bytes"].is_number_unsigned())
        return Failure{exit_code::not_connected, fmt::format("{}: its size is not known", name)};
    const std::string path = lun["path"];
    // Without an identity it is this file only, and another mount may show another LUN by this name.
    const std::string identity = lun["wwid"].is_string() ? lun["wwid"].get<std::string>() : "";
    return CopyEnd{path, "lun " + (identity.empty() ? path : identity), lun["bytes"], true};
}

// What a path is, without symbolic links; it may lead into a mount that does not answer.
Result<std::string> look_at_path(const std::string& path) {
    std::error_code fault;
    Json seen;
    seen["path"] = std::filesystem::weakly_canonical(path, fault).string();
    if (fault) return Error(fault, fmt::format("{}: {}", path, fault.message()));
    struct stat now {};
    const bool is_there = ::stat(path.c_str(), &now) == 0;
    if (!is_there && errno != ENOENT) return Error(errno, fmt::format("{}: {}", path, std::strerror(errno)));
    const auto directory = std::filesystem::path(seen["path"].get<std::string>()).parent_path();
    seen["directory"] = directory.string();
    seen["has_directory"] = std::filesystem::is_directory(directory, fault);
    seen["kind"] = !is_there ? "none" : S_ISREG(now.st_mode) ? "file" : S_ISDIR(now.st_mode) ? "directory" : "other";
    seen["bytes"] = is_there ? static_cast<std::uint64_t>(now.st_size) : 0;
    seen["identity"] = fmt::format("file {} {}.{:09}", now.st_ino, now.st_mtim.tv_sec, now.st_mtim.tv_nsec);
    std::string text = seen.dump(-1, ' ', true, Json::error_handler_t::replace);
    // Another file would be written to, and a journal has UTF-8 only.
    if (Json::parse(text, nullptr, false)["path"] != seen["path"])
        return Error(EILSEQ, fmt::format("{} is not UTF-8, and cannot be copied from or to; give it another name",
                                         printable(path, Charset::utf8)));
    return text;
}

// A LUN, or a file; `is_source`: it has to be there.
Either<CopyEnd> end_of_copy(const Request& request, const std::string& operand, bool is_source) {
    if (operand == "-")
        return Failure{exit_code::usage,
                       "-: a pipe cannot be gone on with, nor verified; cat and dd copy between LUN files and pipes "
                       "(./- is a file of that name)"};
    const auto mounts = find_mounts();
    if (!mounts) return Failure{exit_code::other, mounts.error().context};
    const bool is_word = operand.find('/') == std::string::npos;
    const auto look_by_name = [&]() -> std::optional<Either<CopyEnd>> {
        const auto mount = choose_mount(*mounts, request.mount, {});
        if (!mount) return std::nullopt;
        auto seen = look_at(request, *mount, depth_for({operand}));
        if (auto* failure = std::get_if<Failure>(&seen)) return *failure;
        return lun_named(std::get<Json>(seen), operand);
    };
    if (is_word)
        if (auto lun = look_by_name()) return *lun;
    const auto text =
        run_apart(limit_of(request, look_seconds), [&](Outlet&) { return look_at_path(absolute_path(operand)); });
    if (!text) {
        const auto mount = choose_mount(*mounts, absolute_path(operand), {});
        if (mount) return failure_of_mount(*mount, text.error());
        return Failure{exit_code_of(text.error()), text.error().context};
    }
    const Json there = Json::parse(*text, nullptr, false);
    const std::string path = there["path"], kind = there["kind"];
    if (const auto mount = choose_mount(*mounts, path, {})) {
        auto seen = look_at(request, *mount, Depth::brief);
        if (auto* failure = std::get_if<Failure>(&seen)) return *failure;
        if (auto lun = lun_named(std::get<Json>(seen), path)) return *lun;
        return Failure{exit_code::not_found, fmt::format("{}: {}", operand,
                                                         kind == "none" ? "there is no such LUN; see: srpctl list"
                                                                        : "is in an srpfs mount, but is no LUN")};
    }
    if (kind == "none" && !is_word)
        if (auto lun = look_by_name()) return *lun;
    if (kind == "none" && is_source)
        return Failure{exit_code::not_found, fmt::format("{}: there is no such file or LUN", operand)};
    if (!there["has_directory"].get<bool>()) {
        const std::string directory = printable(there["directory"].get<std::string>(), Charset::utf8);
        return Failure{exit_code::not_found, fmt::format("{}: there is no directory {}; make it with: mkdir -p {}",
                                                         operand, directory, directory)};
    }
    if (kind == "directory")
        return Failure{exit_code::usage, fmt::format("{} is a directory; name a file in it", operand)};
    if (kind == "other") return Failure{exit_code::usage, fmt::format("{} is neither a file nor a LUN", operand)};
    return CopyEnd{path, there["identity"].get<std::string>() + " " + path, there["bytes"], false};
}

// Which signal has asked the copy to end, also for the process that copies.
std::atomic<int>* copy_stop = nullptr;

void stop_copy(int number) {
    if (copy_stop->exchange(number) == 0) return;
    ::signal(number, SIG_DFL);  // the second time
    ::raise(number);
}

int exit_code_of_copy(const Error& error) {
    switch (error.errno_value()) {
        case EILSEQ: return exit_code::differs;
        case ENODEV:
        case ENXIO:
        case ENOTCONN:
        case ECONNABORTED:
        case ESHUTDOWN: return exit_code::not_connected;
        case ENOENT: return exit_code::not_found;
        default: return exit_code_of(error);
    }
}

// What is copied, for people and programs, while it is.
class CopyMeter {
public:
    CopyMeter(Format format, const CopyJob& job)
        : format_(format), job_(job), has_bar_(format == Format::table && isatty(STDERR_FILENO)),
          begin_(seconds_now()) {}

    void add(const CopyProgress& now) {
        if (!has_gone_on_ && format_ != Format::json && now.bytes_before != 0) {
            clear();
            write_aside(fmt::format("going on at byte {} of {}\n", now.bytes_before, now.bytes_total));
            has_gone_on_ = true;
        }
        const double seconds = seconds_now();
        rate_.add(now.bytes, seconds);
        if (has_bar_) {
            const std::string line =
                progress_line(now, rate_.bytes_per_second(), {columns_of_errors(), 1, Charset::ascii, false});
            write_aside("\r" + line + "\x1b[K");
            has_line_ = true;
        } else if (format_ == Format::json && seconds - told_ >= 1) {
            told_ = seconds;
            tell(document("running", now));
        }
    }
    void clear() {
        if (has_line_) write_aside("\r\x1b[K");
        has_line_ = false;
    }
    [[nodiscard]] Json document(const char* state, const CopyProgress& now) const {
        Json one;
        one["schema"] = json_schema;
        one["source"] = job_.source.path;
        one["target"] = job_.target.path;
        one["state"] = state;
        one["phase"] = now.phase == CopyProgress::Phase::copying ? "copying" : "verifying";
        one["source_offset"] = job_.range().source_offset;
        one["target_offset"] = job_.range().target_offset;
        one["bytes"] = now.bytes;
        one["bytes_total"] = now.bytes_total;
        one["bytes_zero"] = now.bytes_zero;
        one["bytes_before"] = now.bytes_before;
        one["bytes_per_second"] = std::round(rate_.bytes_per_second());
        const auto left = seconds_left(now, rate_.bytes_per_second());
        one["seconds_left"] = left ? Json(*left) : Json(nullptr);
        one["seconds"] = std::round((seconds_now() - begin_) * 1000) / 1000;
        return one;
    }
    static void tell(const Json& document) {
        // Nobody to tell is no reason to end what can be gone on with only with luck.
        [[maybe_unused]] const auto told =
            write_output(document.dump(-1, ' ', true, Json::error_handler_t::replace) + "\n");
    }
    [[nodiscard]] double seconds() const { return seconds_now() - begin_; }

private:
    Format format_;
    const CopyJob& job_;
    bool has_bar_, has_gone_on_ = false, has_line_ = false;
    double begin_, told_ = 0;
    CopyRate rate_;
};

std::string summary_of_copy(const CopyJob& job, const CopyProgress& last, double seconds) {
    const Charset charset = screen_of_output().charset;
    const CopyEnd source{printable(job.source.path, charset), "", job.source.bytes, job.source.is_lun};
    const CopyEnd target{printable(job.target.path, charset), "", job.target.bytes, job.target.is_lun};
    const CopyOptions& options = job.options;
    const CopyRange range = job.range();
    const auto from = [](std::uint64_t offset) {
        return offset == 0 ? std::string() : fmt::format(" from byte {} on", offset);
    };
    if (options.verifies_only)
        return fmt::format("the same: {} bytes of {}{} and {}{}\n", last.bytes, source.path, from(range.source_offset),
                           target.path, from(range.target_offset));
    const std::uint64_t moved = last.bytes - last.bytes_before;
    std::string text =
        fmt::format("copied: {}{} to {}{}: {} bytes ({}) in {:.1f} s", source.path, from(range.source_offset),
                    target.path, from(range.target_offset), moved, human_bytes(moved), seconds);
    if (last.bytes_before != 0) text += fmt::format(", {} bytes before", last.bytes_before);
    if (last.bytes_zero != 0) text += fmt::format(", {} bytes of zeros not sent", last.bytes_zero);
    if (options.verifies) text += ", verified";
    text = wrapped(text, screen_of_output().width, 4) + "\n";
    if (target.is_lun && range.target_offset > 0)
        text += fmt::format("the first {} bytes of {} are as they were\n", range.target_offset, target.path);
    if (const std::uint64_t end = range.target_offset + range.bytes; target.is_lun && target.bytes > end)
        text += fmt::format("the last {} bytes of {} are as they were\n", target.bytes - end, target.path);
    return text;
}

// "first 512 bytes", "bytes 1024 to 1536": what of the target is written.
std::string written_bytes(const CopyRange& range) {
    return range.target_offset == 0
               ? fmt::format("first {} bytes", range.bytes)
               : fmt::format("bytes {} to {}", range.target_offset, range.target_offset + range.bytes);
}

bool is_confirmed_by_hand(const CopyJob& job) {
    if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO)) return false;
    // What is wrong with the journal is said by who needs it.
    const auto text = run_apart(milliseconds(std::uint64_t{look_seconds} * 1000), [&](Outlet&) -> Result<std::string> {
        const auto left = read_journal(job.journal);
        return left && *left ? (*left)->text() : std::string();
    });
    const std::uint64_t done = text ? resume_offset(job, CopyJournal::parse(*text)) : 0;
    const std::string what =
        done == 0 ? "The " + written_bytes(job.range())
                  : fmt::format("A copy that has ended before goes on: bytes {} to {}",
                                job.range().target_offset + done, job.range().target_offset + job.range().bytes);
    write_aside(fmt::format("{} of {} ({}) will be overwritten. Go on? [y/N] ", what,
                            printable(job.target.path, Charset::ascii),
                            printable(job.target.identity, Charset::ascii)));
    std::string answer;
    std::getline(std::cin, answer);
    return answer == "y" || answer == "Y" || answer == "yes";
}

int copy(const Request& request) {
    // Names may be of files only, but a mount that is named has to be one.
    if (!request.mount.empty())
        if (const auto mount = mount_for(request); const auto* failure = std::get_if<Failure>(&mount))
            return fail(*failure);
    CopyJob job;
    job.options = request.copy;
    for (const bool is_source : {true, false}) {
        auto end = end_of_copy(request, request.operands[is_source ? 0 : 1], is_source || job.options.verifies_only);
        if (auto* failure = std::get_if<Failure>(&end)) return fail(*failure);
        (is_source ? job.source : job.target) = std::get<CopyEnd>(std::move(end));
    }
    if (const auto checked = check_copy(job); !checked)
        return fail({exit_code::refused_value, checked.error().context});
    const char *state = std::getenv("XDG_STATE_HOME"), *home = std::getenv("HOME");
    std::string directory = state && *state == '/' ? state
                            : home && *home == '/' ? std::string(home) + "/.local/state"
                                                   : "";
    job.journal = job.options.journal;
    if (job.journal.empty() && job.target.is_lun && directory.empty() && !job.options.verifies_only)
        return fail(
            {exit_code::usage, "neither XDG_STATE_HOME nor HOME says where to note how far it is: --journal FILE"});
    if (job.journal.empty()) job.journal = journal_for(job.target, directory + "/srpfs");
    if (job.options.verifies_only) {
        // A part may be compared with a part; without one, the file is all of it.
        const std::uint64_t there = job.target.bytes - std::min(job.target.bytes, job.range().target_offset);
        const bool is_part = job.range() != CopyRange{0, 0, job.source.bytes};
        if (!job.target.is_lun && job.source.is_lun &&
            (is_part ? there < job.range().bytes : there != job.range().bytes))
            return fail({exit_code::differs, fmt::format("{} has {} bytes, and {} has {}", job.source.path,
                                                         job.range().bytes, job.target.path, there)});
    } else if (job.target.is_lun && !job.options.is_confirmed && !is_confirmed_by_hand(job)) {
        return fail({exit_code::usage, fmt::format("{} is a LUN, and nothing was written: --yes overwrites its {}",
                                                   job.target.path, written_bytes(job.range()))});
    }

    void* const shared =
        mmap(nullptr, sizeof(std::atomic<int>), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return fail({exit_code::other, fmt::format("mmap: {}", std::strerror(errno))});
    copy_stop = new (shared) std::atomic<int>(0);
    for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::signal(number, stop_copy);
    // Who reads the progress may go away, and the copy goes on.
    ::signal(SIGPIPE, SIG_IGN);

    CopyMeter meter(request.format, job);
    CopyProgress last{job.options.verifies_only ? CopyProgress::Phase::verifying : CopyProgress::Phase::copying, 0,
                      job.range().bytes, 0, 0};
    const milliseconds silence = limit_of(request, change_seconds);
    const auto done = run_apart(
        milliseconds(0), [&](Outlet& outlet) { return run_copy(job, *copy_stop, silence, outlet); },
        [&](std::string_view text) {
            if (const auto now = CopyProgress::parse(text)) meter.add(last = *now);
            return true;
        });
    meter.clear();
    if (!done) {
        const int number = *copy_stop;
        const Error& error = done.error();
        const bool was_interrupted = number != 0 && (error.errno_value() == EINTR || error.errno_value() == EIO);
        if (request.format == Format::json) {
            Json document = meter.document("failed", last);
            const char* name = strerrorname_np(error.errno_value());
            document["errno"] = name ? name : "EIO";
            document["error"] = error.context;
            CopyMeter::tell(document);
        }
        return fail({was_interrupted ? 128 + number : exit_code_of_copy(error), error.context});
    }
    if (const auto whole = CopyProgress::parse(*done)) last = *whole;
    if (request.format == Format::json) {
        Json document = meter.document("done", last);
        document["errno"] = nullptr;
        document["error"] = nullptr;
        document["verified"] = job.options.verifies || job.options.verifies_only;
        return finish(document.dump(-1, ' ', true, Json::error_handler_t::replace) + "\n");
    }
    if (request.format == Format::plain)
        return finish(fmt::format("done\t{}\n", printable(job.target.path, Charset::utf8)));
    return finish(summary_of_copy(job, last, meter.seconds()));
}

// ---- what is wrong ----

int why(const Request& request) {
    const auto mounts = find_mounts();
    if (!mounts) return fail({exit_code::other, mounts.error().context});
    std::vector<Mount> wanted = *mounts;
    if (!request.mount.empty()) {
        const auto mount = choose_mount(*mounts, request.mount, {});
        if (!mount) return fail({exit_code::no_mount, mount.error().context});
        wanted = {*mount};
    }
    Findings of_mounts;
    std::vector<Json> surveys;
    const auto add = [](Findings& to, const Findings& more) { to.insert(to.end(), more.begin(), more.end()); };
    bool has_demo = std::any_of(request.operands.begin(), request.operands.end(),
                                [](const std::string& login) { return login.find("dest=demo") != std::string::npos; });
    for (const Mount& mount : wanted) {
        auto seen = look_if_there(request, mount, Depth::full);
        if (!seen) continue;
        if (const auto* failure = std::get_if<Failure>(&*seen)) {
            add(of_mounts,
                {{Finding::Verdict::wrong, mount.path, failure->text,
                  failure->status == exit_code::not_permitted
                      ? "Ask as the user who has mounted it, or mount with -o allow_other; root needs one of them, too."
                      : ""}});
            continue;
        }
        const Json& survey = std::get<Json>(*seen);
        has_demo = has_demo || json_text(survey).find("srp-demo0-1") != std::string::npos;
        add(of_mounts, check_mount(survey));
        surveys.push_back(survey);
    }
    if (wanted.empty())
        add(of_mounts, {{Finding::Verdict::note, "mount", "Nothing is mounted as srpfs.",
                         "Begin with: srpfs none /srp, or srpfs demo /srp to try it out."}});

    const Machine machine = this_machine();
    Findings findings;
    for (const Findings& some : {check_fuse(machine), check_devices(machine, !has_demo), check_ports(machine),
                                 check_locked_memory(machine), check_kernel(machine), check_ib_srp(machine), of_mounts})
        add(findings, some);
    add(findings, check_running(machine));
    const config::Loaded configuration = default_configuration();
    add(findings, check_configuration(configuration.errors));
    add(findings, check_rules(configuration.sections, surveys));
    // They may lie where nobody answers, as what is named may.
    const auto about_files = [&](const std::vector<std::string>& files) {
        return [&, files](Outlet&) -> Result<std::string> {
            Findings some;
            for (const std::string& file : files) {
                const config::Loaded loaded = config::load(file, true);
                add(some, check_configuration(loaded.errors));
                add(some, check_rules(loaded.sections, surveys));
                if (loaded.errors.empty())
                    some.push_back({Finding::Verdict::good, "configuration", fmt::format("{} is good.", file), ""});
            }
            return render_why(some, Format::json, {});
        };
    };
    if (const auto done = run_apart(limit_of(request, look_seconds), about_files(configuration_files(machine, wanted))))
        add(findings, findings_of(*done));
    if (machine.uid != 0) add(findings, check_other_users(machine));
    for (const std::string& operand : request.operands) {
        // Login strings have = in them; of the other words those are paths that lead somewhere, or look like it.
        const std::string path = absolute_path(operand);
        const auto done = operand.find('=') != std::string::npos
                              ? Result<std::string>("login")
                              : run_apart(limit_of(request, look_seconds), [&](Outlet& outlet) -> Result<std::string> {
                                    struct stat found {};
                                    const bool is_there = ::lstat(path.c_str(), &found) == 0;
                                    const bool is_path = operand.find('/') != std::string::npos;
                                    if (!is_there && !is_path) return std::string("login");
                                    if (::stat(path.c_str(), &found) == 0 && S_ISREG(found.st_mode))
                                        return about_files({path})(outlet);
                                    return render_why(check_mount_point(machine, path, *mounts), Format::json, {});
                                });
        if (!done)
            add(findings, {{Finding::Verdict::wrong, "mount point " + path,
                            fmt::format("It does not answer: {}.", done.error().context),
                            fmt::format("What serves it hangs; this ends it, with all I/O: umount -f {}", path)}});
        else if (*done == "login")
            add(findings, check_login(machine, operand));
        else
            add(findings, findings_of(*done));
        if (std::any_of(mounts->begin(), mounts->end(), [&](const Mount& mount) { return mount.path == path; }))
            add(findings, check_holders(machine, path));
    }
    const bool is_wrong = std::any_of(findings.begin(), findings.end(),
                                      [](const Finding& one) { return one.verdict == Finding::Verdict::wrong; });
    return finish(render_why(findings, request.format, screen_of_output()),
                  is_wrong ? exit_code::wrong : exit_code::ok);
}

// ---- events ----

// The field "sequence" of an event.
std::optional<std::int64_t> sequence_of(std::string_view line) {
    const Json event = Json::parse(line, nullptr, false);
    if (!event.is_object()) return std::nullopt;
    const auto found = event.find("sequence");
    return found != event.end() && found->is_number_integer() ? std::optional(found->get<std::int64_t>())
                                                              : std::nullopt;
}

// Of a text whose lines all end.
std::string_view last_lines(std::string_view text, unsigned count) {
    std::size_t begin = text.size();
    for (unsigned i = 0; i < count && begin > 0; ++i)
        begin = begin < 2 ? 0 : text.rfind('\n', begin - 2) + 1;  // npos + 1 is the beginning
    return text.substr(begin);
}

// Those of the lines that are events of the times asked for. Whose time is not known are.
std::string wanted_events(const Request& request, std::string_view text) {
    std::string wanted;
    for (const std::string_view line : split(text, '\n')) {
        if (line.empty()) continue;
        const Json event = Json::parse(line, nullptr, false);
        const auto when = event.is_object() ? event.find("time") : event.end();
        const auto time = when != event.end() && when->is_string() ? parse_time(when->get<std::string>(), 0)
                                                                   : Result<std::int64_t>(Error(EINVAL, "no time"));
        if (time && request.since && *time < *request.since) continue;
        if (time && request.until && *time > *request.until) continue;
        wanted += fmt::format("{}\n", line);
    }
    return wanted;
}

// From the first event behind `sequence` on, until the mount ends.
Result<std::string> follow(Outlet& outlet, const Request& request, const std::string& path, int descriptor,
                           std::int64_t sequence) {
    while (true) {
        char buffer[65536];
        const ssize_t got = ::read(descriptor, buffer, sizeof buffer);
        if (got < 0) return Error(errno, fmt::format("{}: {}", path, std::strerror(errno)));
        if (got == 0) return std::string("end");
        std::string text;
        for (const std::string_view line : split({buffer, static_cast<std::size_t>(got)}, '\n'))  // all of them whole
            if (sequence_of(line).value_or(-1) > sequence) text += fmt::format("{}\n", line);
        outlet.tell(request.since ? wanted_events(request, text) : text);
    }
}

// The last `count` events there have been, and, if it is to follow, those that come.
Result<std::string> tell_events(Outlet& outlet, const Request& request, const std::string& mount,
                                std::optional<unsigned> count) {
    // Opened before the others are read, so that none is missed in between.
    const std::string path = mount + "/events";
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return Error(errno, fmt::format("{}: {}", path, std::strerror(errno)));
    std::int64_t last = -1;
    if (count != 0U) {
        const auto past = read_file(mount + "/events.log");
        if (!past) return past.error();
        last = sequence_of(last_lines(*past, 1)).value_or(-1);
        const std::string wanted = request.since || request.until ? wanted_events(request, *past) : *past;
        const std::string_view text = count ? last_lines(wanted, *count) : wanted;
        if (!text.empty()) outlet.tell(text);
    }
    return request.follows ? follow(outlet, request, path, descriptor, last) : std::string("end");
}

int events(const Request& request) {
    constexpr unsigned followed_after = 10;  // as tail(1)
    auto mount = mount_for(request);
    if (auto* failure = std::get_if<Failure>(&mount)) return fail(*failure);
    const Mount& chosen = std::get<Mount>(mount);
    const Screen screen = screen_of_output();
    const bool has_default = request.follows && !request.since;
    const auto count = request.event_count || !has_default ? request.event_count : followed_after;
    std::optional<Error> broken;
    const auto done = run_apart(
        limit_of(request, request.follows ? 0 : look_seconds),
        [&](Outlet& outlet) { return tell_events(outlet, request, chosen.path, count); },
        [&](std::string_view text) {
            std::string shown;
            for (const std::string_view line : split(text, '\n')) shown += render_event(line, request.format, screen);
            if (const auto printed = write_output(shown); !printed) broken = printed.error();
            return !broken;
        },
        STDOUT_FILENO);
    if (broken) return fail({exit_code::other, broken->context});
    if (done && !request.follows) return exit_code::ok;
    const int code = done ? ENODEV : done.error().errno_value();
    if (code == EPIPE) {
        // As if it had written.
        ::raise(SIGPIPE);
        return fail({exit_code::other, fmt::format("standard output: {}", done.error().context)});
    }
    if (request.follows && (code == ENOTCONN || code == ECONNABORTED || code == ENODEV || code == ESHUTDOWN))
        return fail({exit_code::no_mount, fmt::format("{}: srpfs has ended", chosen.shown())});
    if (request.follows && code == ETIMEDOUT)
        return fail(
            {exit_code::no_answer, fmt::format("{}: no event {}", chosen.shown(), done.error().context.substr(10))});
    return fail(failure_of_mount(chosen, done.error()));
}

// ---- changing ----

// What came of each thing that was to be done: lines as they happen, or JSON at the end.
class Report {
public:
    explicit Report(const Request& request) : format_(request.format) {}

    void done(const std::string& what, const std::string& path, const char* sentence, const char* outcome = "done") {
        add(what, path, outcome, nullptr, "");
        const std::string& place = path.empty() ? what : path;
        if (format_ == Format::table)
            say(fmt::format("{}: {}\n", sentence, printable(place, screen_of_output().charset)));
        if (format_ == Format::plain) say(fmt::format("{}\t{}\n", outcome, printable(place, Charset::utf8)));
    }
    void failed(const std::string& what, const std::string& path, const Error& error, int status) {
        const char* name = strerrorname_np(error.errno_value());
        add(what, path, "failed", name ? name : "EIO", error.context);
        const std::string place = printable(path.empty() ? what : path, Charset::utf8);
        // It may begin with its own name already.
        std::string_view reason = error.context;
        if (const std::string own = place.substr(place.rfind('/') + 1) + ": "; reason.starts_with(own))
            reason.remove_prefix(own.size());
        complain(reason.starts_with(place) ? std::string(reason) : fmt::format("{}: {}", place, reason));
        if (format_ == Format::plain) say(fmt::format("failed\t{}\n", place));
        if (status_ == exit_code::ok) status_ = status;
    }
    // The first failure's exit status.
    int end() {
        if (format_ == Format::json) {
            Json document;
            document["schema"] = json_schema;
            document["results"] = std::move(results_);
            say(json_text(document));
        }
        return status_;
    }

private:
    void add(const std::string& what, const std::string& path, const char* outcome, const char* code,
             const std::string& text) {
        Json one;
        one["what"] = what;
        one["path"] = path.empty() ? Json(nullptr) : Json(path);
        one["outcome"] = outcome;
        one["errno"] = code ? Json(code) : Json(nullptr);
        one["error"] = code ? Json(text) : Json(nullptr);
        results_.push_back(std::move(one));
    }
    void say(const std::string& text) {
        // What cannot be told is no reason to stop half-way.
        if (const auto printed = write_output(text); !printed && status_ == exit_code::ok) {
            complain(printed.error().context);
            status_ = exit_code::other;
        }
    }

    Format format_;
    Json results_ = Json::array();
    int status_ = exit_code::ok;
};

// One line for `what` is said to have no answer, but for the whole mount the other verbs say it.
Error explained(const Error& error, milliseconds limit) {
    if (error.errno_value() != ETIMEDOUT || !error.context.starts_with("no answer within")) return error;
    return Error(ETIMEDOUT, fmt::format("not done within {} s, and given up; --timeout allows more",
                                        std::chrono::duration_cast<std::chrono::seconds>(limit).count()));
}

std::string path_of(const Found& found) {
    std::string path = found.directory();
    if (found.kind == Found::Kind::lun) path.resize(path.size() - std::strlen(".attr"));
    return path;
}

int login(const Request& request, const std::vector<std::string>& logins, bool may_be_there) {
    auto mount = mount_for(request);
    if (auto* failure = std::get_if<Failure>(&mount)) return fail(*failure);
    const Mount& chosen = std::get<Mount>(mount);
    std::string port = request.port;
    if (!port.empty()) {
        auto seen = look_at(request, chosen, Depth::brief);
        if (auto* failure = std::get_if<Failure>(&seen)) return fail(*failure);
        const auto found = find(std::get<Json>(seen), port);
        if (!found || found->kind != Found::Kind::port)
            return fail({exit_code::not_found, found ? fmt::format("{} is no port", port) : found.error().context});
        port = found->port;
    }
    Report report(request);
    const milliseconds limit = limit_of(request, change_seconds);
    for (const std::string& one : logins) {
        // srpfs takes it for nothing to do.
        if (trimmed(one).empty()) {
            report.failed(one, "", Error(EINVAL, "the login string is empty; srpctl login --help tells more"),
                          exit_code::refused_value);
            continue;
        }
        const auto answer = run_apart(limit, [&](Outlet&) -> Result<std::string> {
            const auto done = log_in(chosen.path, port, one);
            if (!done) return done.error();
            return fmt::format("{}{}", done->was_there ? "!" : "+", done->path);
        });
        if (!answer) {
            const Error error = explained(answer.error(), limit);
            const int code = exit_code_of(error);
            const bool is_about_login =
                code == exit_code::other || code == exit_code::not_found || code == exit_code::not_connected;
            report.failed(one, "", error, is_about_login ? exit_code::login_failed : code);
        } else if (answer->starts_with('!')) {
            if (may_be_there)
                report.done(one, answer->substr(1), "already logged in", "already");
            else
                report.failed(one, answer->substr(1), Error(EEXIST, "already logged in"), exit_code::exists);
        } else {
            report.done(one, answer->substr(1), "logged in");
        }
    }
    return report.end();
}

// The text of a file, or of standard input ("-"), which may be a pipe or a device without an end.
Result<std::string> lines_for_logins(const std::string& name) {
    const bool is_input = name == "-";
    const std::string shown = is_input ? "standard input" : name;
    const int descriptor = is_input ? STDIN_FILENO : ::open(name.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return Error(errno, fmt::format("{}: {}", shown, std::strerror(errno)));
    std::string text;
    char buffer[65536];
    ssize_t got = 0;
    while (text.size() <= config::file_bytes_max && (got = ::read(descriptor, buffer, sizeof buffer)) > 0)
        text.append(buffer, static_cast<std::size_t>(got));
    const int fault = got < 0 ? errno : 0;
    if (!is_input) ::close(descriptor);
    if (fault != 0) return Error(fault, fmt::format("{}: {}", shown, std::strerror(fault)));
    if (text.size() > config::file_bytes_max)
        return Error(EFBIG, fmt::format("{}: is larger than {} KiB; a login string in each line is expected", shown,
                                        config::file_bytes_max >> 10));
    return text;
}

int login_all(const Request& request) {
    std::vector<std::string> files = request.operands;
    if (files.empty()) files = {"-"};
    std::vector<std::string> logins;
    for (const std::string& name : files) {
        const auto all = lines_for_logins(name);
        if (!all) return fail({exit_code::other, all.error().context});
        for (const std::string_view line : split(*all, '\n'))
            if (const auto text = trimmed(line); !text.empty() && !text.starts_with('#')) logins.emplace_back(text);
    }
    if (!request.config.empty()) {
        auto permitted = permitted_logins(request.config, logins);
        if (!permitted) return fail({exit_code_of(permitted.error()), permitted.error().context});
        logins = std::move(*permitted);
    }
    return login(request, logins, true);
}

int act(const Request& request, const std::vector<Found>& things, Act what) {
    Report report(request);
    const milliseconds limit = limit_of(request, change_seconds);
    for (const Found& thing : things) {
        const auto done = run_apart(limit, [&](Outlet&) -> Result<std::string> {
            const auto acted = act_on(thing, what);
            if (!acted) return acted.error();
            return std::string();
        });
        const std::string path = path_of(thing);
        if (!done) {
            const Error error = explained(done.error(), limit);
            report.failed(path, path, error, exit_code_of(error));
        } else {
            report.done(path, path, what == Act::log_out ? "logged out" : what == Act::rescan ? "rescanned" : "reset");
        }
    }
    return report.end();
}

// `whole`: without operands everything is meant.
int act(const Request& request, Act what, bool whole) {
    auto meant = find_all(request, request.operands);
    if (auto* failure = std::get_if<Failure>(&meant)) return fail(*failure);
    const auto& [mount, seen, named] = std::get<Meant>(meant);
    std::vector<Found> things;
    if (whole && named.empty()) things = all_targets(seen);
    for (const Found& one : named) {
        if (what == Act::log_out && one.kind != Found::Kind::target)
            return fail({exit_code::usage, fmt::format("{} is no target; one logs out of targets: srpctl logout TARGET",
                                                       printable(path_of(one), Charset::utf8))});
        for (Found& target : targets_of(seen, one))
            if (std::find(things.begin(), things.end(), target) == things.end()) things.push_back(std::move(target));
    }
    return act(request, things, what);
}

int set(const Request& request) {
    Settings settings;
    std::vector<std::string> names;
    for (const std::string& operand : request.operands) {
        const auto equals = operand.find('=');
        const bool is_setting = equals != std::string::npos && operand.find('/') == std::string::npos;
        if (is_setting && (equals == 0 || equals + 1 == operand.size()))
            return fail(
                {exit_code::usage, fmt::format("{}: KEY=VALUE is expected, such as fast_io_fail_tmo=5", operand)});
        if (is_setting)
            settings.emplace_back(operand.substr(0, equals), operand.substr(equals + 1));
        else
            names.push_back(operand);
    }
    if (settings.empty()) return fail({exit_code::usage, "KEY=VALUE is missing, such as fast_io_fail_tmo=5"});
    std::set<std::string> keys;
    for (const auto& [key, value] : settings)
        if (!keys.insert(key).second) return fail({exit_code::usage, fmt::format("{} is given twice", key)});
    auto meant = find_all(request, names);
    if (auto* failure = std::get_if<Failure>(&meant)) return fail(*failure);
    const auto& [mount, seen, named] = std::get<Meant>(meant);
    std::vector<Found> things;
    for (const Found& one : named)
        for (Found& thing : targets_of(seen, one)) things.push_back(std::move(thing));
    if (named.empty()) {
        things = all_targets(seen);
        if (things.size() != 1)
            return fail(
                {exit_code::not_found, fmt::format("{} has {} targets; say which, or name a port to mean all of it",
                                                   mount.shown(), things.size())});
    }
    Report report(request);
    const milliseconds limit = limit_of(request, change_seconds);
    for (const Found& thing : things) {
        const auto done = run_apart(limit, [&](Outlet&) -> Result<std::string> {
            const auto applied = apply_settings(thing, settings);
            if (!applied) return applied.error();
            return std::string();
        });
        const std::string path = path_of(thing);
        if (done) {
            report.done(path, path, "set");
        } else {
            const Error error = explained(done.error(), limit);
            report.failed(path, path, error, exit_code_of(error));
        }
    }
    return report.end();
}

int reservations(const Request& request) {
    auto meant = find_all(request, {request.operands.front()});
    if (auto* failure = std::get_if<Failure>(&meant)) return fail(*failure);
    const auto& [mount, seen, things] = std::get<Meant>(meant);
    const Found& lun = things.front();
    const std::string path = path_of(lun), file = lun.directory() + "/reservations";
    if (lun.kind != Found::Kind::lun)
        return fail({exit_code::usage, fmt::format("{} is no LUN", printable(path, Charset::utf8))});
    if (request.operands.size() == 1) {
        const auto text = run_apart(limit_of(request, look_seconds), [&](Outlet&) { return read_answer(file); });
        if (text)
            return finish(render_reservations(reservations_document(lun, *text), request.format, screen_of_output()));
        return fail(text.error().errno_value() == ETIMEDOUT
                        ? Failure{exit_code::no_answer, fmt::format("{}: {}", path, text.error().context)}
                        : failure_of_mount(mount, text.error()));
    }
    constexpr std::string_view commands[] = {"register", "register-ignore", "unregister",    "reserve",
                                             "release",  "preempt",         "preempt-abort", "clear"};
    if (std::find(std::begin(commands), std::end(commands), request.operands[1]) == std::end(commands))
        return fail({exit_code::usage,
                     fmt::format("{}: one of {} is expected", request.operands[1], fmt::join(commands, ", "))});
    std::string command;
    for (std::size_t i = 1; i < request.operands.size(); ++i)
        command += fmt::format("{}{}", command.empty() ? "" : " ", request.operands[i]);
    Report report(request);
    const milliseconds limit = limit_of(request, change_seconds);
    const auto done = run_apart(limit, [&](Outlet&) -> Result<std::string> {
        const auto written = write_command(file, command);
        if (!written) return written.error();
        return std::string();
    });
    if (done) {
        report.done(path, path, command.c_str());
    } else {
        const Error error = explained(done.error(), limit);
        report.failed(path, path, error, exit_code_of(error));
    }
    return report.end();
}

int execute(const Request& request) {
    const std::string& verb = request.verb;
    if (verb == "list") return list(request);
    if (verb == "show") return show(request);
    if (verb == "login") return login(request, request.operands, false);
    if (verb == "login-all") return login_all(request);
    if (verb == "logout") return act(request, Act::log_out, false);
    if (verb == "logout-all") return act(request, Act::log_out, true);
    if (verb == "rescan") return act(request, Act::rescan, true);
    if (verb == "reset") return act(request, Act::reset, false);
    if (verb == "set") return set(request);
    if (verb == "stats") return stats(request);
    if (verb == "events") return events(request);
    if (verb == "reservations") return reservations(request);
    if (verb == "top") return top(request);
    if (verb == "copy") return copy(request);
    if (verb == "why") return why(request);
    if (verb == "config") return run_config(request);
    return fail({exit_code::usage, fmt::format("{}: no such verb; srpctl --help shows them", verb)});
}

}  // namespace

int exit_code_of(const Error& error) {
    switch (error.errno_value()) {
        case ENOENT:
        case ENODEV: return exit_code::not_found;
        case ECONNREFUSED:
        case ECONNRESET:
        case EHOSTUNREACH:
        case ENETDOWN:
        case ENXIO:
        case ECANCELED: return exit_code::login_failed;
        case EACCES:
        case EPERM:
        case EROFS: return exit_code::not_permitted;
        case EINVAL:
        case E2BIG: return exit_code::refused_value;
        case ETIMEDOUT: return exit_code::no_answer;
        case EBUSY:
        case EAGAIN: return exit_code::busy;
        case ENOTCONN: return exit_code::not_connected;
        case ESHUTDOWN: return exit_code::no_mount;
        case EEXIST: return exit_code::exists;
        default: return exit_code::other;
    }
}

int run(int argc, char** argv) {
    try {
        keep_standard_files();
        const std::vector<std::string> arguments(argv + 1, argv + argc);
        const auto parsed = parse(arguments);
        if (const auto* text = parsed ? std::get_if<Print>(&*parsed) : nullptr) return finish(text->text);
        const Request* const request = parsed ? std::get_if<Request>(&*parsed) : nullptr;
        const int status = request ? execute(*request) : fail({exit_code::usage, parsed.error().context});
        const bool wants_json = request ? request->format == Format::json : asks_for_json(arguments);
        const auto errors = complaints_alone();
        if (!wants_json || status == exit_code::ok || errors.empty()) return status;
        finish(json_text(error_document(status, errors)));
        return status;
    } catch (const std::exception& error) {
        complain(fmt::format("internal error: {}; please report it with the command", error.what()));
        return exit_code::other;
    }
}

}  // namespace srpfs::ctl
