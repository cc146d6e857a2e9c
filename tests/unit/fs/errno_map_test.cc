// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "errno_map.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace srpfs::fs::test {
namespace {

using Kind = lun::OutcomeKind;

struct Row {
    Kind kind;
    int read_errno, write_errno;
};

// What the man page promises, row by row.
constexpr Row rows[] = {
    {Kind::ok, 0, 0},
    {Kind::interrupted, EINTR, EINTR},
    {Kind::path_lost, EIO, EIO},
    {Kind::gone, ENODEV, ENODEV},
    {Kind::not_ready, EIO, EIO},
    {Kind::medium_error, EIO, EIO},
    {Kind::hardware_error, EIO, EIO},
    {Kind::illegal_request, EIO, EIO},
    {Kind::out_of_range, EIO, ENOSPC},
    {Kind::write_protected, EROFS, EROFS},
    {Kind::space_exhausted, ENOSPC, ENOSPC},
    {Kind::reservation_conflict, EBUSY, EBUSY},
    {Kind::miscompare, EIO, EIO},
    {Kind::aborted, EIO, EIO},
    {Kind::busy, EBUSY, EBUSY},
    {Kind::short_transfer, EIO, EIO},
    {Kind::protocol_error, EIO, EIO},
    {Kind::out_of_memory, EIO, EIO},
};

TEST(ErrnoMap, EachOutcomeHasItsErrno) {
    for (const Row& row : rows) {
        const lun::Outcome outcome{.kind = row.kind};
        EXPECT_EQ(errno_of(outcome, lun::OperationKind::read), row.read_errno) << static_cast<int>(row.kind);
        EXPECT_EQ(errno_of(outcome, lun::OperationKind::write), row.write_errno) << static_cast<int>(row.kind);
    }
}

TEST(ErrnoMap, TheTableHasARowForEachOutcome) {
    EXPECT_EQ(std::size(rows), static_cast<std::size_t>(Kind::out_of_memory) + 1);
    for (std::size_t i = 0; i < std::size(rows); ++i) EXPECT_EQ(static_cast<std::size_t>(rows[i].kind), i);
}

TEST(ErrnoMap, SenseTellsMissingMediaAndMissingUnitsApart) {
    const auto with = [](Kind kind, std::uint8_t asc) {
        lun::Outcome outcome{.kind = kind};
        outcome.sense.valid = true;
        outcome.sense.asc = asc;
        return errno_of(outcome, lun::OperationKind::read);
    };
    EXPECT_EQ(with(Kind::not_ready, 0x3a), ENOMEDIUM);
    EXPECT_EQ(with(Kind::not_ready, 0x04), EIO);
    EXPECT_EQ(with(Kind::illegal_request, 0x25), ENODEV);
    EXPECT_EQ(with(Kind::illegal_request, 0x24), EIO);
}

}  // namespace
}  // namespace srpfs::fs::test
