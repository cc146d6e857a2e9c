// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Information units against bytes written by hand, field by field, from T10 SRP r16a (and SRP-2 for immediate data); no
// encoder of ours had a part in them. Each unit is compared in both directions.
#include "hex.h"

#include <srpfs/srp/srp.h>

#include <gtest/gtest.h>

namespace srpfs::srp {
namespace {

using test::hex;
using test::operator+;
using Bytes = std::vector<std::byte>;

template <std::size_t N>
std::array<std::byte, N> array(const Bytes& bytes) {
    std::array<std::byte, N> result{};
    EXPECT_EQ(bytes.size(), N);
    std::copy(bytes.begin(), bytes.end(), result.begin());
    return result;
}

// What encode() writes into a buffer full of other bytes: reserved bytes have to be overwritten.
template <typename Encode>
Bytes written(Encode&& encode_into) {
    Bytes buffer(256, std::byte{0xee});
    buffer.resize(encode_into(buffer));
    return buffer;
}
template <typename Unit>
Bytes encoded(const Unit& unit) {
    return written([&](std::span<std::byte> buffer) { return encode(unit, buffer); });
}
Bytes encoded(const LoginRequest& login, LoginForm form) {
    return written([&](std::span<std::byte> buffer) { return encode(login, form, buffer); });
}

const LoginRequest login_request{
    .tag = 0x0102030405060708,
    .it_iu_bytes_max = 8260,
    .buffer_formats = 0x0006,
    .multi_channel = MultiChannel::multi,
    .immediate_data = true,
    .immediate_data_offset = 68,
    .initiator_port = array<16>(hex("0000000000000000 505400fffe4a0b7b")),
    .target_port = array<16>(hex("0002c903000e8acd 0002c903000e8ace")),
};

TEST(GoldenUnit, LoginRequestInIbCmForm) {
    const Bytes golden =
        hex("00"                                  // 0      operation code
            "00000000000000"                      // 1..7   reserved
            "0102030405060708"                    // 8..15  tag
            "00002044"                            // 16..19 requested maximum I>T unit length
            "00000000"                            // 20..23 reserved
            "0006"                                // 24..25 required buffer formats
            "81"                                  // 26     immediate data, multi-channel action 1
            "00"                                  // 27     reserved
            "0044"                                // 28..29 immediate data offset
            "0000"                                // 30..31 reserved
            "0000000000000000505400fffe4a0b7b"    // 32..47 initiator port
            "0002c903000e8acd0002c903000e8ace");  // 48..63 target port
    EXPECT_EQ(encoded(login_request, LoginForm::ib_cm), golden);
    EXPECT_EQ(*parse_login_request(golden, LoginForm::ib_cm), login_request);
}

TEST(GoldenUnit, LoginRequestInRdmaCmForm) {
    const Bytes golden =
        hex("0102030405060708"                  // 0..7   tag
            "0006"                              // 8..9   required buffer formats
            "81"                                // 10     flags
            "00"                                // 11     operation code
            "00002044"                          // 12..15 requested maximum I>T unit length
            "0000000000000000505400fffe4a0b7b"  // 16..31 initiator port
            "0002c903000e8acd0002c903000e8ace"  // 32..47 target port
            "0044"                              // 48..49 immediate data offset
            "000000000000");                    // 50..55 reserved
    EXPECT_EQ(encoded(login_request, LoginForm::rdma_cm), golden);
    EXPECT_EQ(*parse_login_request(golden, LoginForm::rdma_cm), login_request);
}

TEST(GoldenUnit, LoginRequestOfAFirstChannelWithoutImmediateData) {
    LoginRequest plain = login_request;
    plain.multi_channel = MultiChannel::single;
    plain.immediate_data = false;
    plain.immediate_data_offset = 0;

    EXPECT_EQ(encoded(plain, LoginForm::ib_cm)[26], std::byte{0x00});
    EXPECT_EQ(encoded(plain, LoginForm::rdma_cm)[10], std::byte{0x00});
}

TEST(GoldenUnit, LoginResponse) {
    const LoginResponse response{.credits = 128,
                                 .tag = 0x0102030405060708,
                                 .it_iu_bytes_max = 8276,
                                 .ti_iu_bytes_max = 8260,
                                 .buffer_formats = 6,
                                 .multi_channel = MultiChannelResult::maintained,
                                 .immediate_data = true};
    const Bytes golden =
        hex("c0"                                                    // 0      operation code
            "000000"                                                // 1..3   reserved
            "00000080"                                              // 4..7   request limit delta
            "0102030405060708"                                      // 8..15  tag
            "00002054"                                              // 16..19 maximum I>T unit length
            "00002044"                                              // 20..23 maximum T>I unit length
            "0006"                                                  // 24..25 supported buffer formats
            "82"                                                    // 26     immediate data, result 2
            "00000000000000000000000000000000000000000000000000");  // 27..51 reserved
    EXPECT_EQ(encoded(response), golden);
    EXPECT_EQ(*parse_login_response(golden), response);
}

TEST(GoldenUnit, LoginReject) {
    const LoginReject reject{.reason = RejectReason::it_iu_too_large, .tag = 0x0102030405060708, .buffer_formats = 6};
    const Bytes golden =
        hex("c2"                // 0      operation code
            "000000"            // 1..3   reserved
            "00010002"          // 4..7   reason
            "0102030405060708"  // 8..15  tag
            "0000000000000000"  // 16..23 reserved
            "0006"              // 24..25 supported buffer formats
            "000000000000");    // 26..31 reserved
    EXPECT_EQ(encoded(reject), golden);
    EXPECT_EQ(*parse_login_reject(golden), reject);
}

// ---- commands ----

// Bytes 0..47 of a command with this buffer format byte and CDB (16 bytes).
Bytes command_head(std::string_view buffer_format, std::string_view counts, std::string_view cdb) {
    return hex("02"                // 0      operation code
               "00"                // 1      solicited notification
               "000000") +         // 2..4   reserved
           hex(buffer_format) +    // 5      data-out format (high nibble), data-in format
           hex(counts) +           // 6..7   descriptor counts: out, in
           hex("0102030405060708"  // 8..15  tag
               "00000000"          // 16..19 reserved
               "0005000000000000"  // 20..27 logical unit
               "00"                // 28     reserved
               "02"                // 29     task attribute: ordered
               "00"                // 30     reserved
               "00") +             // 31     additional CDB length
           hex(cdb);               // 32..47 CDB
}

constexpr std::string_view read_cdb = "28 00 00000008 00 0010 00 000000000000";
constexpr std::string_view write_cdb = "2a 08 00000008 00 0010 00 000000000000";

const CommandHead read_command{.tag = 0x0102030405060708,
                               .lun = {array<8>(hex("0005000000000000"))},
                               .attribute = TaskAttribute::ordered,
                               .cdb = scsi::read(8, 16, scsi::ForceUnitAccess::no),
                               .direction = DataDirection::from_target,
                               .descriptor = Descriptor{0x1122334455667788, 0x99aabbcc, 8192}};

const Bytes golden_descriptor =
    hex("1122334455667788"  // 0..7   virtual address
        "99aabbcc"          // 8..11  memory handle (rkey)
        "00002000");        // 12..15 length

void expect_head(const ReceivedCommand& command, std::string_view cdb) {
    EXPECT_EQ(command.tag, read_command.tag);
    EXPECT_EQ(command.lun, read_command.lun);
    EXPECT_EQ(command.attribute, TaskAttribute::ordered);
    EXPECT_EQ(std::vector(command.cdb.begin(), command.cdb.end()), hex(cdb));
}

TEST(GoldenUnit, CommandWithoutData) {
    CommandHead command = read_command;
    command.cdb = scsi::test_unit_ready();
    command.direction = DataDirection::none;
    command.descriptor.reset();
    const Bytes golden = command_head("00", "0000", "00000000000000000000000000000000");

    EXPECT_EQ(encoded(command), golden);
    const auto parsed = parse_command(golden, 0);
    ASSERT_TRUE(parsed);
    expect_head(*parsed, "00000000000000000000000000000000");
    EXPECT_EQ(parsed->direction, DataDirection::none);
    EXPECT_EQ(parsed->data_bytes, 0u);
}

TEST(GoldenUnit, CommandThatReadsIntoADirectDescriptor) {
    const Bytes golden = command_head("01", "0000", read_cdb) + golden_descriptor;

    EXPECT_EQ(encoded(read_command), golden);
    const auto parsed = parse_command(golden, 0);
    ASSERT_TRUE(parsed);
    expect_head(*parsed, read_cdb);
    EXPECT_EQ(parsed->direction, DataDirection::from_target);
    EXPECT_EQ(parsed->descriptors, std::vector{*read_command.descriptor});
    EXPECT_FALSE(parsed->immediate);
}

TEST(GoldenUnit, CommandThatWritesFromADirectDescriptor) {
    CommandHead command = read_command;
    command.cdb = scsi::write(8, 16, scsi::ForceUnitAccess::yes);
    command.direction = DataDirection::to_target;
    const Bytes golden = command_head("10", "0000", write_cdb) + golden_descriptor;

    EXPECT_EQ(encoded(command), golden);
    const auto parsed = parse_command(golden, 0);
    ASSERT_TRUE(parsed);
    expect_head(*parsed, write_cdb);
    EXPECT_EQ(parsed->direction, DataDirection::to_target);
    EXPECT_EQ(parsed->descriptors, std::vector{*command.descriptor});
}

TEST(GoldenUnit, CommandThatWritesImmediateData) {
    CommandHead command = read_command;
    command.cdb = scsi::write(8, 16, scsi::ForceUnitAccess::yes);
    command.direction = DataDirection::to_target;
    command.descriptor.reset();
    command.immediate_bytes = 3;
    const Bytes golden =
        command_head("30", "0000", write_cdb) + hex("00000003"                            // 48..51 count
                                                    "00000000000000000000000000000000");  // 52..67 padding
    EXPECT_EQ(encoded(command), golden);
    const Bytes unit = golden + hex("aabbcc");
    const auto parsed = parse_command(unit, 68);
    ASSERT_TRUE(parsed);
    expect_head(*parsed, write_cdb);
    EXPECT_TRUE(parsed->immediate);
    EXPECT_EQ(Bytes(parsed->immediate_data.begin(), parsed->immediate_data.end()), hex("aabbcc"));
}

// Only parsed: our initiator sends no lists.
TEST(GoldenUnit, CommandThatReadsIntoAnIndirectList) {
    const Bytes golden = command_head("02", "0002", read_cdb) +
                         hex("00000000deadbeef 00000077 00000020"    // 48..63 the table: two descriptors, 32 bytes
                             "00002000"                              // 64..67 total data length
                             "0000000000001000 00000001 00001000"    // 68..83
                             "0000000000003000 00000002 00001000");  // 84..99
    const auto parsed = parse_command(golden, 0);
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->direction, DataDirection::from_target);
    EXPECT_EQ(parsed->descriptors, (std::vector{Descriptor{0x1000, 1, 4096}, Descriptor{0x3000, 2, 4096}}));
    EXPECT_EQ(parsed->data_bytes, 8192u);
}

TEST(GoldenUnit, TaskManagement) {
    const TaskManagement request{.tag = 0x8000000000000001,
                                 .lun = {array<8>(hex("0005000000000000"))},
                                 .function = TaskFunction::abort_task,
                                 .managed_tag = 0x0102030405060708};
    const Bytes golden =
        hex("01"                  // 0      operation code
            "00"                  // 1      solicited notification
            "000000000000"        // 2..7   reserved
            "8000000000000001"    // 8..15  tag
            "00000000"            // 16..19 reserved
            "0005000000000000"    // 20..27 logical unit
            "0000"                // 28..29 reserved
            "01"                  // 30     function
            "00"                  // 31     reserved
            "0102030405060708"    // 32..39 tag of the task to manage
            "0000000000000000");  // 40..47 reserved
    EXPECT_EQ(encoded(request), golden);
    EXPECT_EQ(*parse_task_management(golden), request);

    const std::pair<TaskFunction, unsigned> functions[] = {{TaskFunction::abort_task_set, 0x02},
                                                           {TaskFunction::clear_task_set, 0x04},
                                                           {TaskFunction::lun_reset, 0x08},
                                                           {TaskFunction::clear_aca, 0x40}};
    for (const auto& [function, byte] : functions) {
        TaskManagement other = request;
        other.function = function;
        EXPECT_EQ(encoded(other)[30], static_cast<std::byte>(byte));
    }
}

// ---- responses ----

TEST(GoldenUnit, ResponseOfSuccess) {
    const Bytes golden =
        hex("c1"                // 0      operation code
            "00"                // 1      solicited notification
            "0000"              // 2..3   reserved
            "00000001"          // 4..7   request limit delta
            "0102030405060708"  // 8..15  tag
            "0000"              // 16..17 reserved
            "00"                // 18     flags
            "00"                // 19     status
            "00000000"          // 20..23 data-out residual
            "00000000"          // 24..27 data-in residual
            "00000000"          // 28..31 sense data length
            "00000000");        // 32..35 response data length
    EXPECT_EQ(encoded(Response{.credit_delta = 1, .tag = 0x0102030405060708}), golden);
    const auto parsed = parse_response(golden);
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->credit_delta, 1);
    EXPECT_EQ(parsed->tag, 0x0102030405060708u);
    EXPECT_EQ(parsed->status, scsi::Status::good);
}

TEST(GoldenUnit, ResponseWithSenseAndAResidual) {
    const Bytes sense = hex("70 00 05 00000000 0a 00000000 21 00 00 000000");
    const Bytes golden = hex("c1 00 0000 fffffffe 0102030405060708 0000"
                             "22"           // 18     sense valid, data-in underflow
                             "02"           // 19     CHECK CONDITION
                             "00000000"     // 20..23 data-out residual
                             "00000200"     // 24..27 data-in residual
                             "00000012"     // 28..31 sense data length
                             "00000000") +  // 32..35 response data length
                         sense;
    const Response response{.credit_delta = -2,
                            .tag = 0x0102030405060708,
                            .status = scsi::Status::check_condition,
                            .data_in_under = true,
                            .data_in_residual = 512,
                            .sense = sense};
    EXPECT_EQ(encoded(response), golden);
    const auto parsed = parse_response(golden);
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->credit_delta, -2);
    EXPECT_EQ(parsed->status, scsi::Status::check_condition);
    EXPECT_TRUE(parsed->data_in_under);
    EXPECT_EQ(parsed->data_in_residual, 512u);
    EXPECT_EQ(Bytes(parsed->sense.begin(), parsed->sense.end()), sense);
}

TEST(GoldenUnit, ResponseToAWriteThatMovedTooMuch) {
    const Bytes golden = hex("c1 00 0000 00000001 0102030405060708 0000 04 00 00000007 00000000 00000000 00000000");

    EXPECT_EQ(
        encoded(Response{.credit_delta = 1, .tag = 0x0102030405060708, .data_out_over = true, .data_out_residual = 7}),
        golden);
    EXPECT_TRUE(parse_response(golden)->data_out_over);
    EXPECT_EQ(parse_response(golden)->data_out_residual, 7u);
}

TEST(GoldenUnit, ResponseToTaskManagement) {
    const Bytes golden =
        hex("c1 00 0000 00000001 8000000000000001 0000"
            "01"  // 18     response data valid
            "00"  // 19     status
            "00000000 00000000"
            "00000000"     // 28..31 sense data length
            "00000004"     // 32..35 response data length
            "000000 05");  // 36..39 reserved, response code: function failed
    const Response response{
        .credit_delta = 1, .tag = 0x8000000000000001, .task_code = TaskCode::failed, .response_valid = true};

    EXPECT_EQ(encoded(response), golden);
    EXPECT_EQ(parse_response(golden)->task_code, TaskCode::failed);
}

TEST(GoldenUnit, CreditRequestAndItsResponse) {
    const Bytes golden = hex("81 00 0000 00000010 0102030405060708");

    EXPECT_EQ(encoded(CreditRequest{.credit_delta = 16, .tag = 0x0102030405060708}), golden);
    EXPECT_EQ(parse_credit_request(golden)->credit_delta, 16);
    EXPECT_EQ(parse_credit_request(golden)->tag, 0x0102030405060708u);
    EXPECT_EQ(written([](std::span<std::byte> buffer) { return encode_credit_response(0x0102030405060708, buffer); }),
              hex("41 00000000000000 0102030405060708"));
}

TEST(GoldenUnit, AsyncEventAndItsResponse) {
    const Bytes sense = hex("72 06 3f 0e 000000 00");
    const Bytes golden = hex("82"                // 0      operation code
                             "00"                // 1      solicited notification
                             "0000"              // 2..3   reserved
                             "00000001"          // 4..7   request limit delta
                             "0102030405060708"  // 8..15  tag
                             "00000000"          // 16..19 reserved
                             "0005000000000000"  // 20..27 logical unit
                             "00000008"          // 28..31 sense data length
                             "00000000") +       // 32..35 reserved
                         sense;
    const AsyncEvent event{
        .credit_delta = 1, .tag = 0x0102030405060708, .lun = scsi::Lun::from_number(5), .sense = sense};

    EXPECT_EQ(encoded(event), golden);
    const auto parsed = parse_async_event(golden);
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->lun, event.lun);
    EXPECT_EQ(Bytes(parsed->sense.begin(), parsed->sense.end()), sense);
    EXPECT_EQ(
        written([](std::span<std::byte> buffer) { return encode_async_event_response(0x0102030405060708, buffer); }),
        hex("42 00000000000000 0102030405060708"));
}

TEST(GoldenUnit, TargetLogout) {
    const Bytes golden = hex("80 00 0000 00000004 0102030405060708");

    EXPECT_EQ(encoded(TargetLogout{.reason = 4, .tag = 0x0102030405060708}), golden);
    EXPECT_EQ(parse_target_logout(golden)->reason, 4u);
    EXPECT_EQ(parse_target_logout(golden)->tag, 0x0102030405060708u);
}

}  // namespace
}  // namespace srpfs::srp
