// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "totals.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace srpfs::daemon {
namespace {

using namespace std::chrono_literals;
using Json = nlohmann::ordered_json;
using lun::OutcomeKind, lun::UnitCounters;

// A unit's, which its reactor would write.
std::shared_ptr<UnitCounters> counted(std::uint64_t reads, Duration each, OutcomeKind error) {
    auto unit = std::make_shared<UnitCounters>();
    unit->reads += reads;
    unit->bytes_read += reads * 512;
    unit->errors += 1;
    ++unit->errors_by_kind[static_cast<std::size_t>(error)];
    for (std::uint64_t i = 0; i < reads; ++i) unit->read_latency.add(each);
    return unit;
}

TEST(Totals, AreTheSumOfWhatUnitsHaveCounted) {
    RunningTotals totals;
    const auto first = counted(2, 4us, OutcomeKind::busy), second = counted(98, 5us, OutcomeKind::busy);
    second->flushes += 3;
    totals.add(first);
    totals.add(second);

    const Json json = report_of(totals.read());

    EXPECT_EQ(json["reads"], 100);
    EXPECT_EQ(json["bytes_read"], 51200);
    EXPECT_EQ(json["flushes"], 3);
    EXPECT_EQ(json["errors"], 2);
    EXPECT_EQ(json["errors_by_kind"], (Json{{"busy", 2}}));
    const Json& read = json["latency"]["read"];
    EXPECT_EQ(read["count"], 100);
    EXPECT_EQ(read["sum_us"], 2 * 4 + 98 * 5);
    EXPECT_EQ(read["buckets_us"], (Json{{5, 2}, {6, 98}}));
    EXPECT_EQ(read["p50_us"], 6);
    EXPECT_EQ(json["latency"]["write"]["p99_us"], 0);
}

TEST(Totals, KeepWhatUnitsHaveCountedThatAreGone) {
    RunningTotals totals;
    auto leaving = counted(5, 1ms, OutcomeKind::path_lost);
    const auto staying = counted(7, 1us, OutcomeKind::medium_error);
    totals.add(leaving);
    totals.add(staying);
    const std::weak_ptr<UnitCounters> left = leaving;
    (void)totals.read();

    ++leaving->reads;  // somebody has it still
    leaving.reset();

    for (unsigned look = 0; look < 3; ++look) {
        const Json json = report_of(totals.read());
        EXPECT_EQ(json["reads"], 13);
        EXPECT_EQ(json["latency"]["read"]["count"], 12);
        EXPECT_EQ(json["errors_by_kind"], (Json{{"path_lost", 1}, {"medium_error", 1}}));
    }
    EXPECT_TRUE(left.expired()) << "the counters of a unit that is gone are kept one by one";
}

TEST(Totals, WithoutUnitsAreZeros) {
    const Json json = report_of(RunningTotals().read());
    EXPECT_EQ(json["reads"], 0);
    EXPECT_EQ(json["errors_by_kind"], Json::object());
    EXPECT_EQ(json["latency"]["flush"]["p50_us"], 0);
}

TEST(Totals, OfTargetsAddUpToThoseOfAReactor) {
    RunningTotals one, other;
    const auto first = counted(1, 4us, OutcomeKind::busy), second = counted(2, 100us, OutcomeKind::aborted);
    one.add(first);
    other.add(second);
    Totals sum = one.read();

    sum += other.read();

    const Json json = report_of(sum);
    EXPECT_EQ(json["reads"], 3);
    EXPECT_EQ(json["errors_by_kind"], (Json{{"aborted", 1}, {"busy", 1}}));
    EXPECT_EQ(json["latency"]["read"]["buckets_us"], (Json{{5, 1}, {104, 2}}));
}

}  // namespace
}  // namespace srpfs::daemon
