// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What units have counted, added up when somebody reads it: of a target, and of a reactor. Control thread.

#pragma once

#include <srpfs/base/latency.h>
#include <srpfs/lun/unit.h>

#include <nlohmann/json_fwd.hpp>

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

namespace srpfs::daemon {

struct Totals {
    std::uint64_t reads = 0, writes = 0, flushes = 0, bytes_read = 0, bytes_written = 0, errors = 0, retries = 0;
    std::array<std::uint64_t, lun::outcome_kinds> errors_by_kind{};
    LatencySnapshot read_latency, write_latency, flush_latency;

    Totals& operator+=(const lun::UnitCounters& unit);
    Totals& operator+=(const Totals& other);
};

// Of units that come and go: what those that are gone have counted stays, so no number ever becomes smaller.
class RunningTotals {
public:
    void add(std::shared_ptr<const lun::UnitCounters> unit);  // once for each
    [[nodiscard]] Totals read();

private:
    std::vector<std::shared_ptr<const lun::UnitCounters>> units_;
    Totals gone_;
};

// As `stats` has them.
nlohmann::ordered_json report_of(const Totals& totals);
nlohmann::ordered_json report_of(const LatencySnapshot& latency);

}  // namespace srpfs::daemon
