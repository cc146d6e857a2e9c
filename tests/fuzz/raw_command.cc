// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "fuzz.h"

#include <srpfs/scsi/raw_command.h>

#include <cerrno>

using namespace srpfs::scsi;

SRPFS_FUZZ_TARGET(raw_command) {
    const std::string_view text(reinterpret_cast<const char*>(input.data()), input.size());
    const auto command = parse_raw_command(text);
    if (!command) {
        PROPERTY(command.error().errno_value() == EINVAL);
        PROPERTY(is_printable_line(command.error().context));
        PROPERTY(command.error().context.size() < 300);
        return;
    }
    PROPERTY(command->cdb.length >= 1 && command->cdb.length <= 16);
    PROPERTY(command->in_bytes.value_or(0) <= raw_data_bytes_max);
    PROPERTY(command->time_limit >= raw_time_limit_min && command->time_limit <= raw_text_time_limit_max);
    for (const std::uint32_t block_bytes : {512u, 4096u, 65536u}) {
        const auto plan = plan_raw_command(*command, block_bytes);
        if (!plan) {
            PROPERTY(plan.error().errno_value() == EINVAL);
            PROPERTY(is_printable_line(plan.error().context));
            continue;
        }
        PROPERTY((plan->bytes == 0) == (plan->way == DataWay::none));
        PROPERTY(plan->bytes <= raw_data_bytes_max);
        PROPERTY(plan->way != DataWay::out || plan->bytes == command->out.size());
        PROPERTY(plan->way == DataWay::out || command->out.empty());
        PROPERTY(plan->changes || plan->way != DataWay::out);
        PROPERTY(command->cdb.length >= 6);
    }
}
