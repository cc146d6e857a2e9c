// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The command line of srpctl, as a person types it.

#pragma once

#include <srpfs/base/result.h>
#include <srpfs/ctl/copy.h>
#include <srpfs/ctl/render.h>

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace srpfs::ctl {

struct Request {
    std::string verb;
    std::string mount;  // --mount, absolute; empty: not given
    Format format = Format::table;
    std::optional<unsigned> timeout;      // --timeout, seconds
    Detail detail = Detail::brief;        // -v
    std::string port;                     // login, login-all: --port
    std::string config;                   // login-all: --config
    unsigned count = 0;                   // top: -n; 0: no limit
    bool follows = false;                 // events: -f
    std::optional<unsigned> event_count;  // events: -n
    std::optional<std::int64_t> since;    // events: milliseconds since 1970
    std::optional<std::int64_t> until;    // the same
    unsigned delay_tenths = 10;           // top: -d, in tenths of a second
    bool is_batch = false;                // top: -b
    CopyOptions copy;
    std::vector<std::string> operands;
};

// Text for standard output instead of doing anything (--help, --version).
struct Print {
    std::string text;
};

// Whether -o json stands in `arguments`, whatever else is wrong with them.
bool asks_for_json(const std::vector<std::string>& arguments);

// `arguments` without the program's name. An Error (EINVAL) says what was wrong and what is possible.
Result<std::variant<Request, Print>> parse(const std::vector<std::string>& arguments);

}  // namespace srpfs::ctl
