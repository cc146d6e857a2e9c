// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "fuzz.h"

#include <srpfs/srp/srp.h>

using namespace srpfs::srp;

SRPFS_FUZZ_TARGET(task_management) {
    const auto request = parse_task_management(input);
    if (!request) return;
    const Bytes again = written(48, [&](auto buffer) { return encode(*request, buffer); });
    PROPERTY(parse_task_management(again));
    PROPERTY(*parse_task_management(again) == *request);
}
