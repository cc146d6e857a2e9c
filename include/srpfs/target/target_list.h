// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The text users write for several embedded targets: "ram:64M+ram:1G++16*null:1G".

#pragma once

#include <srpfs/base/result.h>
#include <srpfs/target/lun_config.h>

#include <string_view>
#include <vector>

namespace srpfs::target {

// Lists as parse_lun_list() takes them, with "++" between targets, at most 64. Errors as there, with the target named
// when there are several. Memory of different targets never has the same identity by accident.
Result<std::vector<std::vector<LunConfig>>> parse_target_list(std::string_view text);

}  // namespace srpfs::target
