// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What is wrong with this machine, or with what is mounted, in sentences: srpctl why. Each check looks at one thing and
// knows no other.

#pragma once

#include <srpfs/base/result.h>
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
        route_to;  // of a numeric IPv4 or IPv6 address, perhaps with %interface
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

// {"schema": 1, "findings": [{"verdict", "subject", "text", "advice"}]}
Json why_document(const Findings& findings);
std::string render_why(const Findings& findings, Format format, const Screen& screen);

}  // namespace srpfs::ctl
