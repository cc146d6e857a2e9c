// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "totals.h"

#include <nlohmann/json.hpp>

#include <utility>

namespace srpfs::daemon {

Totals& Totals::operator+=(const lun::UnitCounters& unit) {
    reads += unit.reads;
    writes += unit.writes;
    flushes += unit.flushes;
    bytes_read += unit.bytes_read;
    bytes_written += unit.bytes_written;
    errors += unit.errors;
    retries += unit.retries;
    for (std::size_t kind = 0; kind < lun::outcome_kinds; ++kind) errors_by_kind[kind] += unit.errors_by_kind[kind];
    read_latency += unit.read_latency.read();
    write_latency += unit.write_latency.read();
    flush_latency += unit.flush_latency.read();
    return *this;
}

Totals& Totals::operator+=(const Totals& other) {
    reads += other.reads;
    writes += other.writes;
    flushes += other.flushes;
    bytes_read += other.bytes_read;
    bytes_written += other.bytes_written;
    errors += other.errors;
    retries += other.retries;
    for (std::size_t kind = 0; kind < lun::outcome_kinds; ++kind) errors_by_kind[kind] += other.errors_by_kind[kind];
    read_latency += other.read_latency;
    write_latency += other.write_latency;
    flush_latency += other.flush_latency;
    return *this;
}

void RunningTotals::add(std::shared_ptr<const lun::UnitCounters> unit) { units_.push_back(std::move(unit)); }

Totals RunningTotals::read() {
    std::erase_if(units_, [this](auto& unit) {
        // Ours is the last one: the unit is gone and counts no more. One more that comes and goes orders its last
        // counts before what is read here, as use_count() does not.
        if (unit.use_count() > 1) return false;
        (void)std::shared_ptr(unit);
        gone_ += *unit;
        return true;
    });
    Totals sum = gone_;
    for (const auto& unit : units_) sum += *unit;
    return sum;
}

nlohmann::ordered_json report_of(const Totals& totals) {
    nlohmann::ordered_json json{{"reads", totals.reads},
                                {"writes", totals.writes},
                                {"flushes", totals.flushes},
                                {"bytes_read", totals.bytes_read},
                                {"bytes_written", totals.bytes_written},
                                {"errors", totals.errors},
                                {"retries", totals.retries}};
    json["errors_by_kind"] = nlohmann::ordered_json::object();
    for (std::size_t kind = 0; kind < lun::outcome_kinds; ++kind)
        if (totals.errors_by_kind[kind] != 0)
            json["errors_by_kind"][to_string(static_cast<lun::OutcomeKind>(kind))] = totals.errors_by_kind[kind];
    json["latency"]["read"] = report_of(totals.read_latency);
    json["latency"]["write"] = report_of(totals.write_latency);
    json["latency"]["flush"] = report_of(totals.flush_latency);
    return json;
}

nlohmann::ordered_json report_of(const LatencySnapshot& latency) {
    nlohmann::ordered_json json{{"count", latency.count},
                                {"sum_us", latency.sum_us},
                                {"p50_us", latency.quantile_us(500)},
                                {"p99_us", latency.quantile_us(990)},
                                {"p999_us", latency.quantile_us(999)}};
    // Of each bucket that has any: what they took less than, and how many there are.
    json["buckets_us"] = nlohmann::ordered_json::array();
    for (std::size_t bucket = 0; bucket < latency_buckets; ++bucket)
        if (latency.counts[bucket] != 0)
            json["buckets_us"].push_back({latency_bucket_end_us(bucket), latency.counts[bucket]});
    return json;
}

}  // namespace srpfs::daemon
