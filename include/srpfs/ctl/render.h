// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What a survey looks like: tables for people, tab-separated lines for scripts, JSON for programs. Pure.

#pragma once

#include <srpfs/ctl/survey.h>
#include <srpfs/ctl/table.h>

#include <string>
#include <vector>

namespace srpfs::ctl {

enum class Format { table, json, plain };
enum class Detail { brief, full };

// {"schema": 1, "mounts": [...]}: each mount as survey() gives it, or {"path", "source", "error"}.
Json list_document(const std::vector<Json>& mounts);

// Of a list_document(). `detail` counts for tables only.
std::string render_list(const Json& document, Format format, Detail detail, const Screen& screen);

// {"schema": 1, "mount": its path, "port" | "target" | "lun": what was found}. A port has its targets in it.
Json show_document(const Json& mount, const Found& found);

// Of a show_document().
std::string render_show(const Json& document, Format format, const Screen& screen);

// {"schema": 1, "mount", "uptime_seconds", "requests_pending", "targets": [{"path", "state", ..., "luns": [{"path",
// "counters"}]}]}.
Json stats_document(const Json& mount);
std::string render_stats(const Json& document, Format format, const Screen& screen);

// {"schema": 1, "mount", "path" (of the LUN), "generation", "registered" (null: nothing), "keys": [...], "reservation":
// null, or
// {"type", "holder"}} from what the file `reservations` says. Lines that are not known are passed over.
Json reservations_document(const Found& lun, std::string_view text);
std::string render_reservations(const Json& document, Format format, const Screen& screen);

// {"schema": 1, "exit_status", "errors": [sentences]}: of a verb that has nothing else to show.
Json error_document(int status, const std::vector<std::string>& errors);

// One line of the file `events`: as it is for json, as a sentence for people, or tab-separated: time, event, target,
// lun, rest. What is no event is given as it is.
std::string render_event(std::string_view line, Format format, const Screen& screen);

// Of a target or a LUN, for tables: of a LUN that is offline because its target is fail-fast, that.
std::string shown_state(const Json& object);

// Two blanks for each level, ASCII only, a newline at the end.
std::string json_text(const Json& document);

}  // namespace srpfs::ctl
