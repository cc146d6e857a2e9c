// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The rule for commands without an answer, row by row: every operation code there is (docs/recovery.md "What becomes of
// a request").
#include "repeat_rule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace srpfs::lun {
namespace {

using initiator::CommandEnd;

Repeat rule(unsigned opcode, CommandEnd end) {
    initiator::Command command;
    command.cdb.bytes[0] = static_cast<std::byte>(opcode);
    return repeat_rule(command, end);
}

struct RepeatRow {
    const char* name;
    unsigned opcode;
    Repeat aborted, connection_lost;
};

constexpr RepeatRow changes_nothing(const char* name, unsigned opcode) {
    return {name, opcode, Repeat::now, Repeat::now};
}
constexpr RepeatRow writes_the_same(const char* name, unsigned opcode) {
    return {name, opcode, Repeat::now, Repeat::after_fence};
}
constexpr RepeatRow adds_up(const char* name, unsigned opcode) { return {name, opcode, Repeat::never, Repeat::never}; }

// Operation codes as in SPC-4 and SBC-3, not as the program names them.
const std::vector<RepeatRow> rows{
    changes_nothing("TestUnitReady", 0x00),
    changes_nothing("RequestSense", 0x03),
    changes_nothing("Read6", 0x08),
    changes_nothing("Inquiry", 0x12),
    changes_nothing("ModeSense6", 0x1a),
    changes_nothing("ReadCapacity10", 0x25),
    changes_nothing("Read10", 0x28),
    changes_nothing("SynchronizeCache10", 0x35),
    changes_nothing("LogSense", 0x4d),
    changes_nothing("ModeSense10", 0x5a),
    changes_nothing("PersistentReserveIn", 0x5e),
    changes_nothing("Read16", 0x88),
    changes_nothing("SynchronizeCache16", 0x91),
    changes_nothing("ReadCapacity16", 0x9e),
    changes_nothing("ReportLuns", 0xa0),
    changes_nothing("MaintenanceIn", 0xa3),
    changes_nothing("Read12", 0xa8),
    writes_the_same("Write6", 0x0a),
    writes_the_same("Write10", 0x2a),
    writes_the_same("WriteSame10", 0x41),
    writes_the_same("Unmap", 0x42),
    writes_the_same("Write16", 0x8a),
    writes_the_same("WriteSame16", 0x93),
    writes_the_same("Write12", 0xaa),
    adds_up("FormatUnit", 0x04),
    adds_up("ReassignBlocks", 0x07),
    adds_up("ModeSelect6", 0x15),
    adds_up("Reserve6", 0x16),
    adds_up("Release6", 0x17),
    adds_up("StartStopUnit", 0x1b),
    adds_up("WriteAndVerify10", 0x2e),
    adds_up("XdWriteRead10", 0x53),
    adds_up("ModeSelect10", 0x55),
    adds_up("PersistentReserveOut", 0x5f),
    adds_up("VariableLength", 0x7f),
    adds_up("ExtendedCopy", 0x83),
    adds_up("CompareAndWrite", 0x89),
    adds_up("OrWrite16", 0x8b),
    adds_up("MaintenanceOut", 0xa4),
    adds_up("VendorSpecific", 0xc0),
};

class RepeatRule : public testing::TestWithParam<RepeatRow> {};

TEST_P(RepeatRule, Says) {
    EXPECT_EQ(rule(GetParam().opcode, CommandEnd::aborted), GetParam().aborted);
    EXPECT_EQ(rule(GetParam().opcode, CommandEnd::connection_lost), GetParam().connection_lost);
}
INSTANTIATE_TEST_SUITE_P(All, RepeatRule, testing::ValuesIn(rows), [](const auto& row) { return row.param.name; });

TEST(RepeatRule, NeverRepeatsWhatItDoesNotKnow) {
    for (unsigned opcode = 0; opcode < 256; ++opcode) {
        if (std::any_of(rows.begin(), rows.end(), [&](const RepeatRow& row) { return row.opcode == opcode; })) continue;
        for (const CommandEnd end : {CommandEnd::aborted, CommandEnd::connection_lost})
            EXPECT_EQ(rule(opcode, end), Repeat::never) << opcode;
    }
}

// A fence only ever adds caution: nothing may be repeated sooner because its connection was lost.
TEST(RepeatRule, IsNeverBolderAfterALostConnectionThanAfterAnAbort) {
    for (unsigned opcode = 0; opcode < 256; ++opcode)
        EXPECT_GE(rule(opcode, CommandEnd::connection_lost), rule(opcode, CommandEnd::aborted)) << opcode;
}

}  // namespace
}  // namespace srpfs::lun
