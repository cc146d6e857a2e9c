// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "fuzz.h"

#include <srpfs/base/utf8.h>
#include <srpfs/srp/login_string.h>

using srpfs::escaped;
using namespace srpfs::srp;

SRPFS_FUZZ_TARGET(login_string) {
    const std::string_view text(reinterpret_cast<const char*>(input.data()), input.size());
    const auto parsed = parse_login_string(text);
    if (!parsed) {
        PROPERTY(parsed.error().errno_value() == EINVAL);
        PROPERTY(escaped(parsed.error().context) == parsed.error().context);
        PROPERTY(parsed.error().context.ends_with('.'));
        PROPERTY(parsed.error().context.size() < 600);
        return;
    }
    PROPERTY(parsed->ib.has_value() != parsed->dest.has_value());
    PROPERTY(parsed->queue_size >= 1 && parsed->max_cmd_per_lun >= 1 && parsed->max_sect >= 1);
    PROPERTY(parsed->tl_retry_count >= 2 && parsed->tl_retry_count <= 7);
    PROPERTY(requested_it_iu_bytes(*parsed) <= 68 + 65536);
    const std::string canonical = to_login_string(*parsed);
    PROPERTY(is_printable_line(canonical));
    const auto again = parse_login_string(canonical);
    PROPERTY(again);
    PROPERTY(*again == *parsed);
    PROPERTY(to_login_string(*again) == canonical);
}
