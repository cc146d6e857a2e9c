// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Times as people write them: srpctl events --since.

#pragma once

#include <srpfs/base/result.h>

#include <cstdint>
#include <string_view>

namespace srpfs::ctl {

// Milliseconds since 1970. `text` is one of
//   2026-11-24T10:00:00.250Z     RFC 3339: also with a blank instead of T, without seconds or their fraction, with an
//                                offset such as +01:00; without one it is local time
//   2026-11-24, 10:00            the beginning of this day; this time of today
//   today, yesterday, now        the first two: their beginning, in local time
//   10m, 1h 30m, 2 days ago      so long before `now_ms`: units are ms, s, m, h, d, w, or longer names of them
//   @1795514400                  seconds since 1970
// An Error (EINVAL) says what is expected.
[[nodiscard]] Result<std::int64_t> parse_time(std::string_view text, std::int64_t now_ms);

// Now, by the clock of events.
[[nodiscard]] std::int64_t wall_clock_ms();

}  // namespace srpfs::ctl
