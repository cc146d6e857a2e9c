// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What srpctl shows of configuration files. Pure.

#pragma once

#include <srpfs/config/config_file.h>
#include <srpfs/ctl/render.h>

namespace srpfs::ctl {

// {"schema": 1, "files": [...], "settings": [{"section", "pattern", "key", "value", "file", "line", "denied"}]}: what
// holds, in the order of the files. A login that a rule denies is denied.
Json config_document(const config::Loaded& loaded);
std::string render_config(const Json& document, Format format, const Screen& screen);

}  // namespace srpfs::ctl
