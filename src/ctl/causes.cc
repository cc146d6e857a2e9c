// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// srpctl why: what the reasons that srpfs tells mean for who has to put it right, and what else can be in the way of a
// mount or a login: mount points, other logins, limits of the srpfs that runs.
#include "machine_files.h"

#include <srpfs/ctl/actions.h>
#include <srpfs/ctl/text.h>
#include <srpfs/ctl/tree_files.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <sstream>

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

namespace srpfs::ctl {
namespace {

// The first that occurs in what srpfs has said counts: the special ones come first. Its words are those of
// srp/login.cc, fabric/verbs/explain.cc, daemon/login_lock.cc, initiator/ and scsi/sense.cc, which a test compares.
struct Cause {
    const char* words;
    const char* advice;
};
constexpr Cause causes[] = {
    {"another srpfs login",
     "Another srpfs has this login: log it out there (srpctl list shows the mounts), or add another initiator_ext= to "
     "the login string."},
    {"the kernel's ib_srp",
     "Log ib_srp out (echo 1 > /sys/class/srp_remote_ports/port-*/delete), or add another initiator_ext= to the login "
     "string."},
    {"channel limit reached",
     "The target does not know this initiator: create the ACL that the reason names at the target; if it is there, use "
     "a smaller ch_count."},
    {"no such target port", "id_ext or ioc_guid is wrong: take both from ibsrpdm -c, or from the target."},
    {"nobody listens there",
     "The port number (or service_id) is wrong, or the target is not enabled: compare dest with what the target "
     "listens on."},
    {"rejected by the program listening there",
     "Something else than an SRP target listens there: check the port in dest."},
    {"the target grants", "The target gives too few credits: look into its log, and for limits of its queues."},
    {"the target is silent",
     "Check cable and switch, and whether the target runs and is reachable; ping its address, where it has one."},
    {"no answer to the connect request",
     "The host is there, but its RDMA connection manager does not answer: check that the target runs, and firewalls "
     "(RoCE needs UDP port 4791)."},
    {"no answer to ARP or neighbour discovery",
     "No host has this address: check the address in dest, and whether the target's host is switched on and in this "
     "network."},
    {"no route",
     "This machine has no route to that network: ip route get ADDRESS; add a route, or an address to the interface."},
    {"belongs to no RDMA device",
     "The route leaves by an interface without RDMA: use an address in a network of an RDMA interface (rdma link)."},
    {"no path there",
     "The subnet manager knows no path: check dgid, pkey and whether both ports are in the same partition."},
    {"is not active: check cable", "The local port is down: check cable, switch and interface."},
    {"locked memory", "Let srpfs lock more memory: ulimit -l unlimited, or LimitMEMLOCK=infinity in its unit."},
    {"stale connection", "The target drops an old connection now: try again in some seconds."},
    {"insufficient resources", "Enable the target port (LIO: echo 1 > enable), or use a smaller ch_count."},
    {"queue pair", "The target is out of queue pairs: use a smaller ch_count, or log out other initiators."},
    {"RESERVATION CONFLICT",
     "Somebody else has reserved the LUN: srpctl reservations LUN shows who; register and preempt if that one is "
     "gone."},
    {"reservation conflict",
     "Somebody else has reserved the LUN: srpctl reservations LUN shows who; register and preempt if that one is "
     "gone."},
    {"format in progress", "The LUN is being formatted: wait, then srpctl rescan."},
    {"NOT READY", "The LUN is not ready: start it, or put its medium in, at the target; then srpctl rescan."},
    {"not ready", "The LUN is not ready: start it, or put its medium in, at the target; then srpctl rescan."},
    {"MEDIUM ERROR",
     "The device behind the LUN cannot read or write there: look at it at the target; then srpctl rescan."},
    {"DATA PROTECT", "The target shows the LUN for reading only: change that at the target, then srpctl rescan."},
    {"write protected", "The target shows the LUN for reading only: change that at the target, then srpctl rescan."},
};

bool is_number(std::string_view text) {
    return !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
}

}  // namespace

std::string advice_about(std::string_view reason) {
    for (const Cause& cause : causes)
        if (reason.find(cause.words) != std::string_view::npos) return cause.advice;
    return {};
}

std::vector<std::string_view> known_reasons() {
    std::vector<std::string_view> words;
    for (const Cause& cause : causes) words.emplace_back(cause.words);
    return words;
}

Findings check_mount_point(const Machine& machine, const std::string& path, const std::vector<Mount>& mounts) {
    const std::string subject = "mount point " + path;
    const bool is_ours =
        std::any_of(mounts.begin(), mounts.end(), [&](const Mount& mount) { return mount.path == path; });
    const auto wrong = [&](std::string text, std::string advice) {
        return Findings{{Finding::Verdict::wrong, subject, std::move(text), std::move(advice)}};
    };
    struct stat found {};
    if (::stat(path.c_str(), &found) != 0) {
        const int fault = errno;
        if (fault == ENOTCONN || fault == ECONNABORTED)
            return wrong("The program that served it has ended without unmounting.",
                         is_ours ? fmt::format("umount {}", path)
                                 : "It was not srpfs: unmount it as that program's manual says, or choose another "
                                   "directory.");
        if (fault == ENOENT) return wrong("It is not there.", fmt::format("mkdir -p {}", path));
        if (fault == ENOTDIR)
            return wrong("A part of the path is no directory.", "Choose another mount point: srpfs SOURCE DIRECTORY.");
        return wrong(fmt::format("It cannot be looked at: {}.", std::strerror(fault)),
                     "Run srpfs as root, or choose a directory of your own.");
    }
    if (!S_ISDIR(found.st_mode)) return wrong("It is no directory.", "Choose a directory: srpfs SOURCE DIRECTORY.");
    if (is_ours)
        return wrong(
            "srpfs is mounted there already.",
            fmt::format("srpctl -m {} list; a second one needs another directory, or first: umount {}", path, path));
    if (machine.uid != 0 && ::access(path.c_str(), W_OK) != 0)
        return wrong("Only root may mount on a directory one cannot write to.",
                     "Run srpfs as root, or choose a directory of your own.");
    struct stat above {};
    if (::stat((path + "/..").c_str(), &above) == 0 && above.st_dev != found.st_dev)
        return {{Finding::Verdict::note, subject, "Another file system is mounted there, and would be hidden.",
                 "Use an empty directory."}};
    std::error_code fault;
    if (!std::filesystem::is_empty(path, fault) && !fault)
        return {{Finding::Verdict::note, subject, "It is not empty: what is in it would be hidden.",
                 "Use an empty directory."}};
    return {{Finding::Verdict::good, subject, "It is an empty directory.", ""}};
}

Findings check_holders(const Machine& machine, const std::string& path) {
    // Names of links, which the kernel knows without asking srpfs.
    const auto is_below = [&](const std::filesystem::path& link) {
        std::error_code fault;
        const std::string target = std::filesystem::read_symlink(link, fault).string();
        return !fault && (target == path || target.starts_with(path + "/"));
    };
    std::string holders;
    unsigned count = 0;
    constexpr unsigned named_max = 8;
    const auto add = [&](const std::string& holder) {
        if (count++ < named_max) holders += fmt::format("{}{}", holders.empty() ? "" : ", ", holder);
    };
    const auto processes = list_directory(machine.root + "/proc");
    for (const std::string& process : processes ? *processes : std::vector<std::string>{}) {
        if (!is_number(process)) continue;
        const std::string directory = machine.root + "/proc/" + process;
        const auto files = list_directory(directory + "/fd");
        const bool holds = is_below(directory + "/cwd") || is_below(directory + "/root") ||
                           (files && std::any_of(files->begin(), files->end(), [&](const std::string& file) {
                                return is_below(directory + "/fd/" + file);
                            }));
        if (holds) add(fmt::format("{} ({})", read_value(directory + "/comm").value_or("?"), process));
    }
    const auto devices = list_directory(machine.root + "/sys/block");
    for (const std::string& device : devices ? *devices : std::vector<std::string>{})
        if (const auto file = read_value(machine.root + "/sys/block/" + device + "/loop/backing_file");
            file && file->starts_with(path + "/"))
            add("/dev/" + device);
    if (count == 0) return {};
    if (count > named_max) holders += fmt::format(" and {} more", count - named_max);
    return {{Finding::Verdict::note, "mount point " + path, fmt::format("In use by {}.", holders),
             fmt::format("umount {} is refused (busy) until they let go; umount -l does not wait for them.", path)}};
}

Findings check_other_users(const Machine& machine) {
    Findings findings;
    const std::vector<std::string> folders = {"/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin"};
    if (std::none_of(folders.begin(), folders.end(), [&](const std::string& folder) {
            return ::access((machine.root + folder + "/fusermount3").c_str(), X_OK) == 0;
        }))
        findings.push_back({Finding::Verdict::wrong, "fusermount3",
                            "It is missing, and mounts for users who are not root.",
                            "Install the package fuse3, or run srpfs as root."});
    const auto text = read_file(machine.root + "/etc/fuse.conf");
    bool is_allowed = false;
    for (const std::string_view line : text ? split(*text, '\n') : std::vector<std::string_view>{})
        is_allowed = is_allowed || trimmed(line.substr(0, line.find('#'))) == "user_allow_other";
    if (!is_allowed)
        findings.push_back({Finding::Verdict::note, "other users",
                            "Users who are not root cannot mount with allow_other: /etc/fuse.conf does not have the "
                            "line user_allow_other.",
                            "Add it, if files are to be seen by other users than the one who mounts."});
    return findings;
}

Findings check_locks(const Machine& machine, std::string_view login) {
    const auto name = directory_of_login(login);
    if (!name) return {};
    // Those that are not held are left over.
    const auto locks = read_file(machine.root + "/proc/locks");
    if (!locks) return {};
    const std::string wanted = name->size() == 33 ? *name + "-0000000000000000" : *name;
    const auto files = list_directory(machine.root + "/run/srpfs");
    Findings findings;
    for (const std::string& file : files ? *files : std::vector<std::string>{}) {
        if (!file.ends_with("-" + wanted + ".lock")) continue;
        struct stat found {};
        if (::stat((machine.root + "/run/srpfs/" + file).c_str(), &found) != 0) continue;
        for (const std::string_view line : split(*locks, '\n')) {
            std::istringstream words{std::string(line)};
            std::string number, kind, how, what, holder, place;
            words >> number >> kind >> how >> what >> holder >> place;
            if (kind != "FLOCK" || !place.ends_with(fmt::format(":{}", found.st_ino))) continue;
            const std::string port = file.substr(0, file.size() - wanted.size() - 6);
            findings.push_back(
                {Finding::Verdict::wrong, "srpfs",
                 fmt::format("srpfs (process {}) is logged in to this target with the same initiator_ext "
                             "through {}.",
                             holder, port),
                 "Log out there (srpctl logout), or add another initiator_ext= to the login string."});
        }
    }
    return findings;
}

Findings check_running(const Machine& machine) {
    Findings findings;
    const auto processes = list_directory(machine.root + "/proc");
    for (const std::string& process : processes ? *processes : std::vector<std::string>{}) {
        if (!is_number(process)) continue;
        const std::string directory = machine.root + "/proc/" + process;
        if (read_value(directory + "/comm") != "srpfs") continue;
        const std::string subject = "srpfs " + process;
        const auto note = [&](std::string text, std::string advice) {
            findings.push_back({Finding::Verdict::note, subject, std::move(text), std::move(advice)});
        };
        if (const auto limit = locked_memory_of(directory); limit && *limit < memory_needed)
            note(fmt::format("This srpfs may lock {} only, and needs about {} for each reactor with RDMA.",
                             human_bytes(*limit), human_bytes(memory_needed)),
                 fmt::format("Begin it with more: ulimit -l unlimited, or LimitMEMLOCK=infinity in its unit{}.",
                             *limit < memory_least ? "" : "; or with -o memory=24M"));
        // proc_pid_stat(5): what stands behind the name, which may have anything in it, begins with field 3.
        const std::string stat = read_value(directory + "/stat").value_or("");
        const auto fields = split(std::string_view(stat).substr(std::min(stat.size(), stat.rfind(')') + 2)), ' ');
        const auto field = [&](std::size_t number) {
            return number - 3 < fields.size() ? fields[number - 3] : std::string_view();
        };
        if (field(3) == "T" || field(3) == "t")
            findings.push_back({Finding::Verdict::wrong, subject,
                                "This srpfs is stopped, by a signal or a debugger, and answers nobody.",
                                "Let it go on: kill -CONT " + process + "."});
        const std::string_view nice = field(19), policy = field(41);
        if (policy == "5" || policy == "3" || (is_number(nice) && nice != "0"))
            note(fmt::format("This srpfs is scheduled behind other programs ({}).", policy == "5" ? "SCHED_IDLE"
                                                                                    : policy == "3"
                                                                                        ? "SCHED_BATCH"
                                                                                        : fmt::format("nice {}", nice)),
                 fmt::format("Where others need the processors its I/O waits: chrt -o -p 0 {}; renice -n 0 -p {}.",
                             process, process));
        // "0::/system.slice/x.service" of cgroups(7), version 2, and "QUOTA PERIOD" there.
        const std::string group = read_value(directory + "/cgroup").value_or("");
        const std::string quota =
            group.starts_with("0::/")
                ? read_value(machine.root + "/sys/fs/cgroup" + group.substr(3) + "/cpu.max").value_or("")
                : "";
        if (!quota.empty() && !quota.starts_with("max"))
            note(fmt::format("This srpfs may use the processors for {} us of each {} us only (cpu.max of {}).",
                             quota.substr(0, quota.find(' ')), quota.substr(quota.find(' ') + 1), group.substr(3)),
                 "When it has used them up all its I/O waits: give it more, such as CPUQuota= in its unit.");
    }
    return findings;
}

Findings check_configuration(const std::vector<std::string>& complaints) {
    Findings findings;
    for (const std::string& complaint : complaints)
        findings.push_back({Finding::Verdict::wrong, "configuration", complaint,
                            "Put the line right; srpctl config check reads the file again."});
    return findings;
}

std::vector<std::string> configuration_files(const Machine& machine, const std::vector<Mount>& mounts) {
    std::vector<std::string> files;
    const auto add = [&](const std::string& file) {
        const bool is_new = file != config::default_file && std::find(files.begin(), files.end(), file) == files.end();
        struct stat found {};
        if (file.starts_with('/') && is_new && ::stat((machine.root + file).c_str(), &found) == 0 &&
            S_ISREG(found.st_mode))
            files.push_back(file);
    };
    for (const Mount& mount : mounts) add(mount.source);
    const auto processes = list_directory(machine.root + "/proc");
    for (const std::string& process : processes ? *processes : std::vector<std::string>{}) {
        const std::string directory = machine.root + "/proc/" + process;
        if (!is_number(process) || read_value(directory + "/comm") != "srpfs") continue;
        const auto words = read_file(directory + "/cmdline");
        for (const std::string_view word : words ? split(*words, '\0') : std::vector<std::string_view>{})
            for (std::string_view item : split(word, ',')) {
                if (item.starts_with("-o")) item.remove_prefix(2);
                if (item.starts_with("config=")) add(std::string(item.substr(std::strlen("config="))));
            }
    }
    return files;
}

Findings check_rules(const std::vector<config::Section>& sections, const std::vector<Json>& mounts) {
    const auto word = [](const Json& object, const char* name) {
        const auto found = object.find(name);
        return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
    };
    // As srpfs calls them, see srpfs.conf(5).
    std::vector<std::vector<std::string>> targets, luns;
    for (const Json& mount : mounts)
        for (const Json& target : mount.value("targets", Json::array())) {
            const std::string name = word(target, "name"), address = word(target, "address");
            std::vector<std::string> names = {name, address, address.substr(0, address.rfind(':'))};
            for (const std::string_view part : split(name, '-')) names.emplace_back(part);
            targets.push_back(std::move(names));
            for (const Json& lun : target.value("luns", Json::array())) {
                const std::string own = word(lun, "name");
                std::vector<std::string> all = {own, word(lun, "wwid"), name + "/" + own,
                                                fmt::format("{}/{}/{}", word(target, "port"), name, own)};
                for (const Json& id : lun.value("by_id", Json::array()))
                    if (id.is_string()) all.push_back(id);
                luns.push_back(std::move(all));
            }
        }
    Findings findings;
    for (const config::Section& section : sections) {
        const bool is_lun = section.kind == config::SectionKind::lun;
        if (!is_lun && section.kind != config::SectionKind::target) continue;
        const auto& things = is_lun ? luns : targets;
        // What is hidden is not seen from here.
        const bool hides = std::any_of(section.settings.begin(), section.settings.end(),
                                       [](const config::Setting& one) { return one.key == "hide"; });
        const bool fits = std::any_of(things.begin(), things.end(), [&](const std::vector<std::string>& names) {
            return config::matches_any(section.pattern, names);
        });
        if (things.empty() || hides || fits) continue;
        findings.push_back({Finding::Verdict::note, "configuration",
                            fmt::format("[{} {}] in {} fits no {} that is there now.", to_string(section.kind),
                                        section.pattern, to_string(section.origin), is_lun ? "LUN" : "target"),
                            is_lun ? "Compare it with the names of: srpctl list -v."
                                   : "Compare it with the names and addresses of: srpctl list -v."});
    }
    return findings;
}

}  // namespace srpfs::ctl
