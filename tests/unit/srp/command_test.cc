// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Boundaries and hostile bytes of commands and task management; tests/wire has their golden bytes.
#include "hex.h"
#include "pieces.h"

#include <srpfs/srp/srp.h>

#include <gtest/gtest.h>

namespace srpfs::srp {
namespace {

using namespace test;

// The first 48 bytes of a command, a READ(10), with these format, count and additional CDB bytes.
std::vector<std::byte> head(std::string_view buffer_format, std::string_view out_count = "00",
                            std::string_view in_count = "00", std::string_view additional_cdb = "00") {
    return hex("02 00 00 00 00") + hex(buffer_format) + hex(out_count) + hex(in_count) +
           hex("00 00 00 00 00 00 00 42") + zeros(4) + hex("00 05 00 00 00 00 00 00") + hex("00 00 00") +
           hex(additional_cdb) + hex("28 00 00 00 00 00 00 00 08 00 00 00 00 00 00 00");
}

std::vector<std::byte> descriptor(std::uint32_t length, std::uint64_t address = 0x1000, std::uint32_t key = 0x77) {
    std::vector<std::byte> bytes(16);
    ByteWriter(bytes).u64(address).u32(key).u32(length);
    return bytes;
}

WireFault fault_of(const std::vector<std::byte>& bytes, std::uint16_t immediate_offset = 0) {
    return parse_command(bytes, immediate_offset).fault;
}

TEST(Command, WithoutDataHas48Bytes) {
    EXPECT_EQ(fault_of(head("00")), WireFault::none);
    EXPECT_EQ(parse_command(head("00"), 0)->direction, DataDirection::none);
    auto bytes = head("00");
    bytes.pop_back();
    EXPECT_EQ(fault_of(bytes), WireFault::truncated);
    EXPECT_EQ(fault_of({}), WireFault::truncated);
}

TEST(Command, OfAnotherOpcodeIsRefused) {
    auto bytes = head("00");
    bytes[0] = std::byte{0x01};
    EXPECT_EQ(fault_of(bytes), WireFault::wrong_opcode);
}

TEST(Command, WithDirectDataNeedsItsWholeDescriptor) {
    const auto bytes = head("01") + descriptor(4096);

    const auto parsed = parse_command(bytes, 0);
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->direction, DataDirection::from_target);
    EXPECT_EQ(parsed->descriptors, (std::vector{Descriptor{0x1000, 0x77, 4096}}));
    EXPECT_EQ(parsed->data_bytes, 4096u);
    EXPECT_EQ(parsed->tag, 0x42u);
    EXPECT_EQ(parsed->lun, scsi::Lun::from_number(5));
    EXPECT_EQ(parse_command(std::span(bytes).first(63), 0).fault, WireFault::truncated);
    EXPECT_EQ(fault_of(bytes + hex("00")), WireFault::none);
}

TEST(Command, WithAnEmptyDescriptorIsRefused) {
    EXPECT_EQ(fault_of(head("01") + descriptor(0)), WireFault::bad_length);
    EXPECT_EQ(fault_of(head("10") + descriptor(0)), WireFault::bad_length);
}

TEST(Command, InBothDirectionsOrAnUnknownFormatIsRefused) {
    for (const char* format : {"11", "12", "21", "22", "31", "32"})
        EXPECT_EQ(fault_of(head(format, "01", "01") + descriptor(16) + u32(512) + descriptor(512), 68),
                  WireFault::bad_format)
            << format;
    for (const char* format : {"03", "04", "0f", "40", "80", "f0"})
        EXPECT_EQ(fault_of(head(format) + descriptor(512), 48), WireFault::bad_format) << format;
}

TEST(Command, ThatIsRefusedStillTellsWhatAnAnswerNeeds) {
    const auto parsed = parse_command(head("11") + descriptor(512), 0);

    ASSERT_FALSE(parsed);
    EXPECT_EQ(parsed->tag, 0x42u);
    EXPECT_EQ(parsed->lun, scsi::Lun::from_number(5));
    EXPECT_EQ(parsed->cdb.size(), 16u);
    EXPECT_TRUE(parsed->descriptors.empty());
    EXPECT_EQ(parsed->data_bytes, 0u);
}

TEST(Command, WithAnInlineListSumsItsDescriptors) {
    const auto bytes = head("20", "02") + descriptor(32) + u32(1536) + descriptor(512) + descriptor(1024);

    const auto parsed = parse_command(bytes, 0);
    ASSERT_TRUE(parsed) << to_string(parsed.fault);
    EXPECT_EQ(parsed->direction, DataDirection::to_target);
    EXPECT_EQ(parsed->descriptors.size(), 2u);
    EXPECT_EQ(parsed->data_bytes, 1536u);
    EXPECT_EQ(parse_command(std::span(bytes).first(bytes.size() - 1), 0).fault, WireFault::truncated);
}

TEST(Command, CountsTheDescriptorsOfItsOwnDirection) {
    const auto list = descriptor(16) + u32(512) + descriptor(512);

    EXPECT_EQ(fault_of(head("02", "00", "01") + list), WireFault::none);
    EXPECT_EQ(fault_of(head("02", "01", "00") + list), WireFault::bad_format);
    EXPECT_EQ(fault_of(head("20", "01", "00") + list), WireFault::none);
    EXPECT_EQ(fault_of(head("20", "00", "01") + list), WireFault::bad_format);
}

TEST(Command, WithAPartialInlineListIsRefused) {
    EXPECT_EQ(fault_of(head("20", "01") + descriptor(32) + u32(1024) + descriptor(512)), WireFault::bad_format);
    EXPECT_EQ(fault_of(head("20", "00") + descriptor(16) + u32(512)), WireFault::bad_format);
}

TEST(Command, WithListLengthsThatDisagreeIsRefused) {
    const auto one = descriptor(512);

    EXPECT_EQ(fault_of(head("20", "02") + descriptor(16) + u32(1024) + one + one), WireFault::bad_length)
        << "more inline";
    EXPECT_EQ(fault_of(head("20", "00") + descriptor(0) + u32(0)), WireFault::bad_length) << "no descriptor";
    EXPECT_EQ(fault_of(head("20", "01") + descriptor(15) + u32(512) + one), WireFault::bad_length) << "not a multiple";
    EXPECT_EQ(fault_of(head("20", "01") + descriptor(17) + u32(512) + one), WireFault::bad_length) << "not a multiple";
    EXPECT_EQ(fault_of(head("20", "01") + descriptor(16) + u32(511) + one), WireFault::bad_length) << "total one less";
    EXPECT_EQ(fault_of(head("20", "01") + descriptor(16) + u32(513) + one), WireFault::bad_length) << "total one more";
    EXPECT_EQ(fault_of(head("20", "02") + descriptor(32) + u32(512) + one + descriptor(0)), WireFault::bad_length)
        << "empty one";
}

TEST(Command, WithAListTotalBeyond32BitsIsRefused) {
    const auto half = descriptor(0x80000000);

    EXPECT_EQ(fault_of(head("20", "02") + descriptor(32) + u32(0) + half + half), WireFault::bad_length);
}

TEST(Command, TakesTheLongestInlineList) {
    std::vector<std::byte> list;
    for (int i = 0; i < 255; ++i) list = list + descriptor(16);
    EXPECT_EQ(fault_of(head("20", "ff") + descriptor(255 * 16) + u32(255 * 16) + list), WireFault::none);
    EXPECT_EQ(fault_of(head("20", "ff") + descriptor(0xfffffff0) + u32(255 * 16) + list), WireFault::bad_format);
}

TEST(Command, FindsItsDescriptorsBehindAnAdditionalCdb) {
    const auto parsed = parse_command(head("01", "00", "00", "10") + zeros(16) + descriptor(512), 0);

    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->cdb.size(), 32u);
    EXPECT_EQ(parsed->data_bytes, 512u);
}

TEST(Command, MasksTheReservedBitsOfTheAdditionalCdbLength) {
    EXPECT_EQ(parse_command(head("00", "00", "00", "03"), 0)->cdb.size(), 16u);
    EXPECT_EQ(parse_command(head("00", "00", "00", "07") + zeros(4), 0)->cdb.size(), 20u);
    EXPECT_EQ(fault_of(head("00", "00", "00", "07") + zeros(3)), WireFault::truncated);
    EXPECT_EQ(fault_of(head("00", "00", "00", "ff") + zeros(251)), WireFault::truncated);
    EXPECT_EQ(fault_of(head("00", "00", "00", "ff") + zeros(252)), WireFault::none);
}

TEST(Command, ReadsUnknownTaskAttributesAsOrdered) {
    for (const auto& [byte, attribute] : {std::pair{0x00, TaskAttribute::simple},
                                          {0x01, TaskAttribute::head_of_queue},
                                          {0x02, TaskAttribute::ordered},
                                          {0x03, TaskAttribute::ordered},
                                          {0x04, TaskAttribute::aca},
                                          {0x07, TaskAttribute::ordered},
                                          {0xf8, TaskAttribute::simple}}) {
        auto bytes = head("00");
        bytes[29] = static_cast<std::byte>(byte);
        EXPECT_EQ(parse_command(bytes, 0)->attribute, attribute) << byte;
    }
}

// ---- immediate data ----

TEST(ImmediateData, IsFoundAtTheNegotiatedOffset) {
    const auto bytes = head("30") + u32(4) + zeros(16) + ascii("data");

    const auto parsed = parse_command(bytes, 68);
    ASSERT_TRUE(parsed) << to_string(parsed.fault);
    EXPECT_TRUE(parsed->immediate);
    EXPECT_EQ(parsed->direction, DataDirection::to_target);
    EXPECT_EQ(parsed->data_bytes, 4u);
    EXPECT_EQ(parsed->immediate_data.data(), bytes.data() + 68);
    EXPECT_EQ(parsed->immediate_data.size(), 4u);
    EXPECT_TRUE(parsed->descriptors.empty());
}

TEST(ImmediateData, ThatWasNotNegotiatedIsRefused) {
    EXPECT_EQ(fault_of(head("30") + u32(4) + zeros(16) + ascii("data"), 0), WireFault::bad_format);
}

TEST(ImmediateData, MustBeThereToItsLastByte) {
    EXPECT_EQ(fault_of(head("30") + u32(5) + zeros(16) + ascii("data"), 68), WireFault::truncated);
    EXPECT_EQ(fault_of(head("30") + u32(3) + zeros(16) + ascii("data"), 68), WireFault::none);
    EXPECT_EQ(fault_of(head("30") + u32(0) + zeros(16) + ascii("data"), 68), WireFault::bad_length);
    EXPECT_EQ(fault_of(head("30") + u32(0xffffffff) + zeros(16) + ascii("data"), 68), WireFault::truncated);
    EXPECT_EQ(fault_of(head("30") + u32(4) + zeros(15), 68), WireFault::truncated);
    EXPECT_EQ(fault_of(head("30") + zeros(3), 68), WireFault::truncated);
}

TEST(ImmediateData, MayNotOverlapItsCount) {
    EXPECT_EQ(fault_of(head("30") + u32(4) + ascii("data"), 52), WireFault::none);
    EXPECT_EQ(fault_of(head("30") + u32(4) + ascii("data"), 51), WireFault::bad_length);
    EXPECT_EQ(fault_of(head("30", "00", "00", "10") + zeros(16) + u32(4) + ascii("data"), 68), WireFault::none);
    EXPECT_EQ(fault_of(head("30", "00", "00", "14") + zeros(20) + u32(4) + ascii("data"), 68), WireFault::bad_length);
}

// ---- what the initiator writes ----

CommandHead command() {
    return {.tag = 0x42, .lun = scsi::Lun::from_number(5), .cdb = scsi::read(8, 8, scsi::ForceUnitAccess::no)};
}

std::vector<std::byte> bytes_of(const CommandHead& head) {
    std::vector<std::byte> buffer(128, std::byte{0xee});
    buffer.resize(encode(head, buffer));
    return buffer;
}

TEST(Command, IsUnderstoodByTheOtherSideInEveryForm) {
    auto none = command(), read = command(), write = command(), immediate = command();
    read.direction = DataDirection::from_target;
    read.descriptor = Descriptor{0x1122334455667788, 0x99aabbcc, 4096};
    write.direction = DataDirection::to_target;
    write.descriptor = read.descriptor;
    immediate.direction = DataDirection::to_target;
    immediate.immediate_bytes = 512;

    EXPECT_EQ(bytes_of(none).size(), 48u);
    EXPECT_EQ(parse_command(bytes_of(none), 0)->direction, DataDirection::none);
    for (const auto& one : {read, write}) {
        const auto unit = bytes_of(one);
        EXPECT_EQ(unit.size(), 64u);
        const auto parsed = parse_command(unit, 0);
        ASSERT_TRUE(parsed);
        EXPECT_EQ(parsed->direction, one.direction);
        EXPECT_EQ(parsed->descriptors, (std::vector{*one.descriptor}));
        EXPECT_TRUE(std::equal(one.cdb.bytes.begin(), one.cdb.bytes.end(), parsed->cdb.begin(), parsed->cdb.end()));
    }
    EXPECT_EQ(bytes_of(immediate).size(), 68u);
    const auto unit = bytes_of(immediate) + zeros(512);
    const auto parsed = parse_command(unit, 68);
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->immediate_data.size(), 512u);
}

TEST(CommandDeathTest, AbortsWhenDirectionAndDataDisagree) {
    auto without_descriptor = command(), without_direction = command(), both = command(), empty = command();
    without_descriptor.direction = DataDirection::from_target;
    without_direction.descriptor = Descriptor{1, 2, 3};
    both.direction = DataDirection::to_target;
    both.descriptor = Descriptor{1, 2, 3};
    both.immediate_bytes = 3;
    empty.direction = DataDirection::to_target;
    empty.descriptor = Descriptor{1, 2, 0};

    for (const auto& one : {without_descriptor, without_direction, both, empty})
        EXPECT_DEATH((void)bytes_of(one), "command\\.(direction|descriptor)");
}

TEST(CommandDeathTest, AbortsWhenTheBufferIsOneByteTooSmall) {
    std::vector<std::byte> buffer(47);
    EXPECT_DEATH((void)encode(command(), buffer), "overran");
}

// ---- task management ----

TaskManagement task_management() {
    return {.tag = 0x8000000000000001,
            .lun = scsi::Lun::from_number(3),
            .function = TaskFunction::lun_reset,
            .managed_tag = 0x42};
}

std::vector<std::byte> bytes_of(const TaskManagement& request) {
    std::vector<std::byte> buffer(48);
    buffer.resize(encode(request, buffer));
    return buffer;
}

TEST(TaskManagement, ReadsBackWhatWasWritten) {
    for (const unsigned function : {0x01u, 0x02u, 0x04u, 0x08u, 0x40u}) {
        auto request = task_management();
        request.function = static_cast<TaskFunction>(function);
        EXPECT_EQ(*parse_task_management(bytes_of(request)), request);
    }
}

TEST(TaskManagement, IsTruncatedByOneByte) {
    const auto bytes = bytes_of(task_management());

    EXPECT_EQ(parse_task_management(std::span(bytes).first(47)).fault, WireFault::truncated);
    EXPECT_TRUE(parse_task_management(bytes + hex("ff")));
}

TEST(TaskManagement, OfAnUnknownFunctionCanStillBeAnswered) {
    auto bytes = bytes_of(task_management());
    for (const unsigned function : {0x00u, 0x03u, 0x10u, 0x20u, 0x80u, 0xffu}) {
        bytes[30] = static_cast<std::byte>(function);
        const auto parsed = parse_task_management(bytes);
        EXPECT_EQ(parsed.fault, WireFault::bad_value) << function;
        EXPECT_EQ(parsed->tag, task_management().tag);
        EXPECT_EQ(parsed->lun, task_management().lun);
        EXPECT_EQ(parsed->managed_tag, 0x42u);
    }
}

TEST(TaskManagement, OfAnotherOpcodeIsRefused) {
    auto bytes = bytes_of(task_management());
    bytes[0] = std::byte{0x02};
    EXPECT_EQ(parse_task_management(bytes).fault, WireFault::wrong_opcode);
}

}  // namespace
}  // namespace srpfs::srp
