// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Boundaries and hostile bytes of what a target sends; tests/wire has their golden bytes.
#include "hex.h"
#include "pieces.h"

#include <srpfs/srp/srp.h>

#include <gtest/gtest.h>

namespace srpfs::srp {
namespace {

using namespace test;

// The 36 fixed bytes of a response.
std::vector<std::byte> response(std::string_view flags, std::string_view status, std::uint32_t sense_bytes,
                                std::uint32_t response_data_bytes) {
    return hex("c1 00 00 00 00 00 00 01 00 00 00 00 00 00 00 42 00 00") + hex(flags) + hex(status) + zeros(8) +
           u32(sense_bytes) + u32(response_data_bytes);
}

TEST(Response, OfSuccessHas36Bytes) {
    const auto bytes = response("00", "00", 0, 0);

    const auto parsed = parse_response(bytes);
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->credit_delta, 1);
    EXPECT_EQ(parsed->tag, 0x42u);
    EXPECT_EQ(parsed->status, scsi::Status::good);
    EXPECT_FALSE(parsed->task_code);
    EXPECT_TRUE(parsed->sense.empty());
    EXPECT_EQ(parse_response(std::span(bytes).first(35)).fault, WireFault::truncated);
    EXPECT_EQ(parse_response({}).fault, WireFault::truncated);
}

TEST(Response, OfAnotherOpcodeIsRefused) {
    auto bytes = response("00", "00", 0, 0);
    bytes[0] = std::byte{0xc0};
    EXPECT_EQ(parse_response(bytes).fault, WireFault::wrong_opcode);
}

TEST(Response, ReadsNegativeCredits) {
    auto bytes = response("00", "00", 0, 0);
    for (std::size_t i = 4; i < 8; ++i) bytes[i] = std::byte{0xff};
    EXPECT_EQ(parse_response(bytes)->credit_delta, -1);
}

TEST(Response, HandsOutExactlyTheSenseBytes) {
    const auto bytes = response("02", "02", 18, 0) + zeros(18) + zeros(5);

    const auto parsed = parse_response(bytes);
    EXPECT_EQ(parsed->sense.data(), bytes.data() + 36);
    EXPECT_EQ(parsed->sense.size(), 18u);
}

TEST(Response, DropsSenseWhoseLengthLiesAndKeepsTheStatus) {
    for (const std::uint32_t claimed : {19u, 96u, 0x7fffffffu, 0xffffffffu}) {
        const auto parsed = parse_response(response("02", "02", claimed, 0) + zeros(18));
        ASSERT_TRUE(parsed) << claimed;
        EXPECT_EQ(parsed->status, scsi::Status::check_condition);
        EXPECT_TRUE(parsed->sense.empty()) << claimed;
    }
}

TEST(Response, IgnoresSenseThatIsNotMarkedValid) {
    EXPECT_TRUE(parse_response(response("00", "02", 18, 0) + zeros(18))->sense.empty());
}

TEST(Response, FindsSenseBehindResponseData) {
    const auto bytes = response("03", "02", 2, 4) + hex("00 00 00 05") + hex("72 06");

    const auto parsed = parse_response(bytes);
    EXPECT_EQ(parsed->task_code, TaskCode::failed);
    ASSERT_EQ(parsed->sense.size(), 2u);
    EXPECT_EQ(parsed->sense[0], std::byte{0x72});
}

TEST(Response, IgnoresAResponseDataLengthThatIsNotMarkedValid) {
    const auto parsed = parse_response(response("02", "02", 2, 0xfffffff0) + hex("72 06"));

    EXPECT_FALSE(parsed->response_valid);
    EXPECT_EQ(parsed->sense.size(), 2u);
}

TEST(Response, DropsEverythingBehindAResponseDataLengthThatLies) {
    for (const std::uint32_t claimed : {7u, 0xffffffffu, 0xffffffdcu /* 36 more wrap around */}) {
        const auto parsed = parse_response(response("03", "02", 2, claimed) + hex("00 00 00 00") + hex("72 06"));
        ASSERT_TRUE(parsed);
        EXPECT_TRUE(parsed->response_valid);
        EXPECT_FALSE(parsed->task_code) << claimed;
        EXPECT_TRUE(parsed->sense.empty()) << claimed;
    }
}

TEST(Response, HasNoTaskCodeInLessThanFourBytesOfResponseData) {
    EXPECT_FALSE(parse_response(response("01", "00", 0, 0))->task_code);
    EXPECT_TRUE(parse_response(response("01", "00", 0, 0))->response_valid);
    EXPECT_FALSE(parse_response(response("01", "00", 0, 3) + zeros(3))->task_code);
    EXPECT_EQ(parse_response(response("01", "00", 0, 4) + zeros(4))->task_code, TaskCode::complete);
    EXPECT_EQ(parse_response(response("01", "00", 0, 5) + zeros(5))->task_code, TaskCode::complete);
}

TEST(Response, ReadsReservedTaskCodesAsFailure) {
    for (const auto& [byte, code] : {std::pair{"00", TaskCode::complete},
                                     {"01", TaskCode::failed},
                                     {"02", TaskCode::request_fields_invalid},
                                     {"03", TaskCode::failed},
                                     {"04", TaskCode::not_supported},
                                     {"05", TaskCode::failed},
                                     {"06", TaskCode::failed},
                                     {"ff", TaskCode::failed}})
        EXPECT_EQ(parse_response(response("01", "00", 0, 4) + hex("ff ff ff") + hex(byte))->task_code, code) << byte;
}

TEST(Response, TellsTheFourResidualFlagsApart) {
    struct Flag {
        const char* bits;
        bool Response::*flag;
    };
    for (const auto& [bits, flag] : {Flag{"04", &Response::data_out_over}, Flag{"08", &Response::data_out_under},
                                     Flag{"10", &Response::data_in_over}, Flag{"20", &Response::data_in_under}}) {
        const auto parsed = parse_response(response(bits, "00", 0, 0));
        EXPECT_TRUE((*parsed).*flag) << bits;
        EXPECT_EQ(parsed->data_out_over + parsed->data_out_under + parsed->data_in_over + parsed->data_in_under, 1)
            << bits;
    }
}

TEST(Response, ReadsBackWhatWasWritten) {
    const auto sense = scsi::encode_fixed_sense(scsi::SenseKey::illegal_request, 0x25, 0);
    const Response original{.credit_delta = -3,
                            .tag = 0xfedcba9876543210,
                            .status = scsi::Status::check_condition,
                            .task_code = TaskCode::not_supported,
                            .response_valid = true,
                            .data_in_under = true,
                            .data_out_over = true,
                            .data_in_residual = 512,
                            .data_out_residual = 7,
                            .sense = sense};
    std::vector<std::byte> bytes(128);
    bytes.resize(encode(original, bytes));

    EXPECT_EQ(bytes.size(), 36u + 4 + 18);
    const auto parsed = parse_response(bytes);
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->credit_delta, -3);
    EXPECT_EQ(parsed->tag, original.tag);
    EXPECT_EQ(parsed->status, scsi::Status::check_condition);
    EXPECT_EQ(parsed->task_code, TaskCode::not_supported);
    EXPECT_TRUE(parsed->data_in_under);
    EXPECT_FALSE(parsed->data_in_over);
    EXPECT_TRUE(parsed->data_out_over);
    EXPECT_FALSE(parsed->data_out_under);
    EXPECT_EQ(parsed->data_in_residual, 512u);
    EXPECT_EQ(parsed->data_out_residual, 7u);
    EXPECT_TRUE(std::equal(sense.begin(), sense.end(), parsed->sense.begin(), parsed->sense.end()));
}

TEST(Response, OfWhatWentWellIsAPlainOne) {
    const Response plain{.credit_delta = -3, .tag = 0xfedcba9876543210};
    std::vector<std::byte> bytes(36, std::byte{0xee}), expected(36, std::byte{0x55});
    EXPECT_EQ(encode(plain, expected), 36u);
    EXPECT_EQ(encode_good(plain.credit_delta, plain.tag, bytes), 36u);
    EXPECT_EQ(bytes, expected);
}

TEST(ResponseDeathTest, AbortsWhenTheBufferIsOneByteTooSmall) {
    std::vector<std::byte> buffer(35);
    EXPECT_DEATH((void)encode(Response{}, buffer), "overran");
    EXPECT_DEATH((void)encode_good(1, 2, buffer), "overran");
    buffer.resize(36 + 3);
    EXPECT_DEATH((void)encode(Response{.task_code = TaskCode::complete}, buffer), "overran");
}

TEST(CreditRequest, Has16Bytes) {
    const auto bytes = hex("81 00 00 00 ff ff ff fe 00 00 00 00 00 00 00 09");

    const auto parsed = parse_credit_request(bytes);
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->credit_delta, -2);
    EXPECT_EQ(parsed->tag, 9u);
    EXPECT_EQ(parse_credit_request(std::span(bytes).first(15)).fault, WireFault::truncated);
    EXPECT_EQ(parse_credit_request(zeros(16)).fault, WireFault::wrong_opcode);
}

TEST(AsyncEvent, Has36BytesAndItsSense) {
    const auto bytes = hex("82 00 00 00 00 00 00 01 00 00 00 00 00 00 00 09") + zeros(4) +
                       hex("00 05 00 00 00 00 00 00") + u32(2) + zeros(4) + hex("72 06") + hex("ff");

    const auto parsed = parse_async_event(bytes);
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->credit_delta, 1);
    EXPECT_EQ(parsed->lun, scsi::Lun::from_number(5));
    EXPECT_EQ(parsed->sense.data(), bytes.data() + 36);
    EXPECT_EQ(parsed->sense.size(), 2u);
    EXPECT_EQ(parse_async_event(std::span(bytes).first(35)).fault, WireFault::truncated);
    EXPECT_TRUE(parse_async_event(std::span(bytes).first(37))->sense.empty());
    EXPECT_EQ(parse_async_event(zeros(36)).fault, WireFault::wrong_opcode);
}

TEST(TargetLogout, Has16Bytes) {
    const auto bytes = hex("80 01 00 00 00 00 00 02 00 00 00 00 00 00 00 09");

    const auto parsed = parse_target_logout(bytes);
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->reason, 2u);
    EXPECT_EQ(parsed->tag, 9u);
    EXPECT_EQ(parse_target_logout(std::span(bytes).first(15)).fault, WireFault::truncated);
    EXPECT_EQ(parse_target_logout(zeros(16)).fault, WireFault::wrong_opcode);
}

}  // namespace
}  // namespace srpfs::srp
