// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/copy.h>

#include <srpfs/ctl/text.h>
#include <srpfs/ctl/tree_files.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <vector>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace srpfs::ctl {
namespace {

using Json = nlohmann::ordered_json;
constexpr int journal_schema = 1;
constexpr std::size_t journal_bytes_max = 65536;

Error error_at(const std::string& path, const char* what, int errno_value) {
    return Error(errno_value, fmt::format("{}: {}: {}", path, what, std::strerror(errno_value)));
}

// What a journal is before it has its name.
std::string draft_of(const std::string& journal) { return journal + ".new"; }

// A LUN without a WWID is known by its path only, and there may be another one by that name the next time.
bool has_identity(const CopyEnd& end) { return !end.is_lun || end.identity != "lun " + end.path; }

bool is_same_file(const std::string& one, const std::string& other) {
    std::error_code fault;
    const auto path = std::filesystem::weakly_canonical(one, fault);
    if (!fault && path == std::filesystem::weakly_canonical(other, fault)) return true;
    struct stat a {
    }, b{};
    return ::stat(one.c_str(), &a) == 0 && ::stat(other.c_str(), &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

Result<void> sync_directory_of(const std::string& path) {
    const std::string directory = std::filesystem::path(path).parent_path();
    const int descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return error_at(directory, "open", errno);
    const int fault = ::fsync(descriptor) != 0 ? errno : 0;
    ::close(descriptor);
    if (fault != 0 && fault != EINVAL) return error_at(directory, "fsync", fault);  // some file systems have none
    return {};
}

}  // namespace

std::string CopyJournal::text() const {
    Json document;
    document["srpctl_copy"] = journal_schema;
    document["source"] = source;
    document["source_bytes"] = source_bytes;
    document["target"] = target;
    document["done_bytes"] = done_bytes;
    document["part_inode"] = part_inode;
    document["source_offset"] = range().source_offset;
    document["target_offset"] = range().target_offset;
    document["length"] = range().bytes;
    return document.dump(-1, ' ', true, Json::error_handler_t::replace) + "\n";
}

std::optional<CopyJournal> CopyJournal::parse(std::string_view text) {
    const Json document = Json::parse(text, nullptr, false);
    if (!document.is_object() || document.value("srpctl_copy", Json()) != journal_schema) return std::nullopt;
    for (const char* name : {"source", "target"})
        if (!document.contains(name) || !document[name].is_string()) return std::nullopt;
    for (const char* name : {"source_bytes", "done_bytes", "part_inode", "source_offset", "target_offset", "length"})
        if (!document.contains(name) || !document[name].is_number_unsigned()) return std::nullopt;
    CopyJournal journal{
        document["source"],       document["target"],
        document["source_bytes"], document["done_bytes"],
        document["part_inode"],   CopyRange{document["source_offset"], document["target_offset"], document["length"]}};
    const CopyRange range = journal.range();
    if (range.source_offset > journal.source_bytes || range.bytes > journal.source_bytes - range.source_offset ||
        journal.done_bytes > range.bytes)
        return std::nullopt;
    return journal;
}

Result<void> write_journal(const std::string& path, const CopyJournal& journal) {
    const std::string draft = draft_of(path), text = journal.text();
    ::unlink(draft.c_str());  // of a copy that was killed
    const int descriptor = ::open(draft.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (descriptor < 0) return error_at(draft, "open", errno);
    const ssize_t written = ::write(descriptor, text.data(), text.size());
    int fault = written == static_cast<ssize_t>(text.size()) ? 0 : written < 0 ? errno : ENOSPC;
    if (fault == 0 && ::fsync(descriptor) != 0) fault = errno;
    ::close(descriptor);
    if (fault == 0 && ::rename(draft.c_str(), path.c_str()) != 0) fault = errno;
    if (fault == 0) return sync_directory_of(path);
    ::unlink(draft.c_str());
    return error_at(path, "write", fault);
}

Result<std::optional<CopyJournal>> read_journal(const std::string& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (descriptor < 0 && errno == ENOENT) return std::optional<CopyJournal>();
    if (descriptor < 0 && errno == ELOOP)
        return Error(EPERM, fmt::format("{} is a symbolic link, and is not taken for a journal", path));
    if (descriptor < 0) return error_at(path, "open", errno);
    struct stat now {};
    std::string text(journal_bytes_max + 1, '\0');
    int fault = ::fstat(descriptor, &now) != 0 ? errno : 0;
    ssize_t got = 0;
    if (fault == 0 && S_ISREG(now.st_mode)) got = ::read(descriptor, text.data(), text.size());
    if (got < 0) fault = errno;
    ::close(descriptor);
    if (fault != 0) return error_at(path, "read", fault);
    if (now.st_uid != ::geteuid())
        return Error(EPERM, fmt::format("{} belongs to another user, and is not taken for a journal", path));
    text.resize(static_cast<std::size_t>(got));
    auto journal = CopyJournal::parse(text);
    if (!journal) return Error(EINVAL, fmt::format("{} is there, but is no journal of a copy", path));
    return journal;
}

Result<void> remove_journal(const std::string& path) {
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return error_at(path, "unlink", errno);
    return sync_directory_of(path);
}

std::string part_of(const CopyEnd& target) { return target.is_lun ? target.path : target.path + ".part"; }

std::string journal_for(const CopyEnd& target, const std::string& state_directory) {
    if (!target.is_lun) return part_of(target) + ".journal";
    std::string name = target.identity;
    std::replace_if(
        name.begin(), name.end(),
        [](char one) { return !std::isalnum(static_cast<unsigned char>(one)) && one != '.' && one != '-'; }, '_');
    return fmt::format("{}/copy-onto-{}.journal", state_directory, name);
}

std::optional<std::string> obstacle_to_resume(const CopyJournal& journal, const CopyJob& job) {
    const CopyEnd &source = job.source, &target = job.target;
    if (journal.source != source.identity)
        return fmt::format("a copy of another source ({}) was begun there", journal.source);
    if (journal.source_bytes != source.bytes)
        return fmt::format("the source had {} bytes when the copy was begun, and has {} now", journal.source_bytes,
                           source.bytes);
    if (journal.target != (target.is_lun ? target.identity : ""))
        return fmt::format("the copy was begun onto another target ({})", journal.target);
    const CopyRange was = journal.range(), now = job.range();
    if (was != now)
        return fmt::format(
            "the copy was begun with --offset {} --length {} --seek {}, and this one has --offset {} --length {} "
            "--seek {}",
            was.source_offset, was.bytes, was.target_offset, now.source_offset, now.bytes, now.target_offset);
    return std::nullopt;
}

Result<void> check_copy(const CopyJob& job) {
    const auto& [source, target, options, journal] = job;
    if (!source.is_lun && !target.is_lun)
        return Error(EINVAL, fmt::format("neither {} nor {} is a LUN; cp copies files", source.path, target.path));
    if (source.path == target.path) return Error(EINVAL, fmt::format("{} cannot be copied onto itself", source.path));
    if (source.is_lun && target.is_lun && source.identity == target.identity)
        return Error(EINVAL, fmt::format("{} and {} are the same LUN by two paths", source.path, target.path));
    if (options.source_offset > source.bytes)
        return Error(EINVAL, fmt::format("{} has {} bytes, and --offset {} is behind them; nothing was written",
                                         source.path, source.bytes, options.source_offset));
    const CopyRange range = job.range();
    if (const std::uint64_t rest = source.bytes - range.source_offset; range.bytes > rest)
        return Error(EINVAL,
                     fmt::format("{} has {} bytes from byte {} on, and --length {} is more; nothing was written",
                                 source.path, rest, range.source_offset, range.bytes));
    if (range.target_offset != 0 && !target.is_lun && !options.verifies_only)
        return Error(EINVAL, fmt::format("--seek is for LUNs, and {} is a file, which is always written from its "
                                         "beginning; nothing was written",
                                         target.path));
    const std::uint64_t room = target.bytes - std::min(target.bytes, range.target_offset);
    if (target.is_lun && range.bytes > room)
        return Error(EINVAL,
                     range.source_offset == 0 && range.target_offset == 0 && range.bytes == source.bytes
                         ? fmt::format("{} has {} bytes, {} more than {} has; nothing was written", source.path,
                                       source.bytes, source.bytes - target.bytes, target.path)
                         : fmt::format("{} bytes are to be copied to byte {} of {}, which has {}; nothing was written",
                                       range.bytes, range.target_offset, target.path, target.bytes));
    return {};
}

Result<void> check_journal(const CopyJob& job) {
    for (const std::string& journal : {job.journal, draft_of(job.journal)})
        for (const std::string& other : {job.source.path, job.target.path, part_of(job.target)})
            if (is_same_file(journal, other))
                return Error(EINVAL,
                             fmt::format("{} is what is copied, and {} would be written over it; nothing was "
                                         "written",
                                         other, journal == job.journal ? "its journal" : "its journal's draft"));
    return {};
}

std::uint64_t resume_offset(const CopyJob& job, const std::optional<CopyJournal>& left) {
    if (!left || job.options.begins_anew || !has_identity(job.source) || !has_identity(job.target)) return 0;
    if (job.target.is_lun && left->done_bytes == left->range().bytes) return 0;
    return obstacle_to_resume(*left, job) ? 0 : left->done_bytes;
}

std::string CopyProgress::text() const {
    return fmt::format("{} {} {} {} {}", phase == Phase::copying ? 'c' : 'v', bytes, bytes_total, bytes_zero,
                       bytes_before);
}

std::optional<CopyProgress> CopyProgress::parse(std::string_view text) {
    const auto words = split(text, ' ');
    if (words.size() != 5 || (words[0] != "c" && words[0] != "v")) return std::nullopt;
    CopyProgress progress;
    progress.phase = words[0] == "c" ? Phase::copying : Phase::verifying;
    std::uint64_t* const numbers[] = {&progress.bytes, &progress.bytes_total, &progress.bytes_zero,
                                      &progress.bytes_before};
    for (std::size_t i = 0; i < 4; ++i) {
        const std::string_view word = words[i + 1];
        const auto [end, fault] = std::from_chars(word.data(), word.data() + word.size(), *numbers[i]);
        if (fault != std::errc{} || end != word.data() + word.size()) return std::nullopt;
    }
    return progress;
}

void CopyRate::add(std::uint64_t bytes, double seconds) {
    if (last_seconds_ && bytes < last_bytes_) {  // verification begins
        last_seconds_.reset();
        rate_ = 0;
    }
    if (last_seconds_) {
        const double passed = seconds - *last_seconds_;
        if (passed < 0.05) return;
        const double now = static_cast<double>(bytes - last_bytes_) / passed;
        // Half of it is what the last 3 s were like.
        const double weight = rate_ == 0 ? 1 : 1 - std::exp2(-passed / 3);
        rate_ += (now - rate_) * weight;
    }
    last_seconds_ = seconds;
    last_bytes_ = bytes;
}

std::optional<std::uint64_t> seconds_left(const CopyProgress& progress, double bytes_per_second) {
    if (progress.bytes == progress.bytes_total) return 0;
    if (bytes_per_second < 1) return std::nullopt;
    return static_cast<std::uint64_t>(
        std::ceil(static_cast<double>(progress.bytes_total - progress.bytes) / bytes_per_second));
}

std::string progress_line(const CopyProgress& progress, double bytes_per_second, const Screen& screen) {
    const char* phase = progress.phase == CopyProgress::Phase::copying ? "copying" : "verifying";
    const double part =
        progress.bytes_total == 0 ? 1 : static_cast<double>(progress.bytes) / static_cast<double>(progress.bytes_total);
    const auto left = seconds_left(progress, bytes_per_second);
    std::string time = "-:--";
    if (left && *left < 3600) time = fmt::format("{}:{:02}", *left / 60, *left % 60);
    if (left && *left >= 3600) time = fmt::format("{}:{:02}:{:02}", *left / 3600, *left / 60 % 60, *left % 60);
    const std::string rest =
        fmt::format("{:3.0f} %  {} of {}  {:.1f} MB/s  {} left", std::floor(part * 100), human_bytes(progress.bytes),
                    human_bytes(progress.bytes_total), bytes_per_second / 1e6, time);
    constexpr std::size_t bar_min = 10, bar_max = 40;
    const std::size_t used = std::strlen(phase) + 2 + rest.size() + 4;
    if (screen.width < used + bar_min) {
        const std::string line = fmt::format("{}  {}", phase, rest);
        return screen.width == 0 ? line : shortened(line, screen.width - 1, Cut::end, screen.charset);
    }
    const std::size_t columns = std::min(screen.width - used - 1, bar_max);
    const auto filled = static_cast<std::size_t>(part * static_cast<double>(columns));
    std::string bar(filled, '=');
    if (filled < columns) bar += '>';
    bar.resize(columns, ' ');
    return fmt::format("{}  [{}]  {}", phase, bar, rest);
}

}  // namespace srpfs::ctl
