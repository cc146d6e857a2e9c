// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What is wrong with this machine, or with what is mounted, in sentences: srpctl why. Each check looks at one thing and
// knows no other.

#pragma once

#include <srpfs/base/result.h>
#include <srpfs/config/config_file.h>
#include <srpfs/ctl/mounts.h>
#include <srpfs/ctl/render.h>

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace srpfs::ctl {

struct Finding {
    enum class Verdict { good, note, wrong } verdict = Verdict::good;
    std::string subject;  // a word or two: "fuse", "port mlx5_0 1"
    std::string text;     // a sentence about what is
    std::string advice;   // and about what can be done; empty if it is good
};
using Findings = std::vector<Finding>;

// How packets get to an address.
struct Route {
    int errno_value = 0;    // 0: there is one
    std::string interface;  // by which they leave; empty if it is not known
};

// The files of a machine, below `root` (empty: of this one), and what cannot be told by files.
struct Machine {
    std::string root;
    std::function<int(const std::string& path)>
        open_errno;  // of opening such a file for reading and writing; 0: it can be
    std::function<Route(const std::string& host)>
        route_to;      // of a numeric IPv4 or IPv6 address, perhaps with %interface
    unsigned uid = 0;  // who asks
};
Machine this_machine();

Findings check_fuse(const Machine& machine);
// RDMA devices and what is needed to use them. `is_needed`: without one nothing works; else only the demo does.
Findings check_devices(const Machine& machine, bool is_needed);
Findings check_ports(const Machine& machine);
Findings check_locked_memory(const Machine& machine);
Findings check_kernel(const Machine& machine);
// Logins of the kernel's ib_srp.
Findings check_ib_srp(const Machine& machine);
// What a survey() tells of a mount.
Findings check_mount(const Json& mount);
// Whether a login string can lead anywhere from this machine. Nothing is sent.
Findings check_login(const Machine& machine, std::string_view login);

// Whether srpfs can be mounted there; `mounts` are those of srpfs. It may block, as stat(2) does: for run_apart().
Findings check_mount_point(const Machine& machine, const std::string& path, const std::vector<Mount>& mounts);
// Who has something open in this mount of srpfs, as far as may be known; nothing if nobody has. Does not touch it.
Findings check_holders(const Machine& machine, const std::string& path);
// What users who are not root need to mount, and to mount with allow_other; nothing if it is there.
Findings check_other_users(const Machine& machine);
// Whether an srpfs of this machine holds the login that the string asks for (/run/srpfs, proc_locks(5)).
Findings check_locks(const Machine& machine, std::string_view login);
// Limits and scheduling of each srpfs that runs.
Findings check_running(const Machine& machine);
// What reading the configuration has complained about, sentences with file and line: one finding each.
Findings check_configuration(const std::vector<std::string>& complaints);
// Configuration files that what is mounted has been started with, or is said to have: absolute paths that are named as
// a mount's source or by config= of an srpfs that runs. The default one is not among them.
std::vector<std::string> configuration_files(const Machine& machine, const std::vector<Mount>& mounts);
// Sections [lun PATTERN] and [target PATTERN] that fit nothing in these surveys. Those without a target say nothing.
Findings check_rules(const std::vector<config::Section>& sections, const std::vector<Json>& mounts);
// What can be done about a reason that srpfs has told in last_error; empty where that is not known.
std::string advice_about(std::string_view reason);
// The words by which it knows them.
std::vector<std::string_view> known_reasons();

// {"schema": 1, "findings": [{"verdict", "subject", "text", "advice"}]}
Json why_document(const Findings& findings);
// Of such a document, as text; what is none has none.
Findings findings_of(std::string_view document);
std::string render_why(const Findings& findings, Format format, const Screen& screen);

}  // namespace srpfs::ctl
