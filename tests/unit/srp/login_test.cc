// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Boundaries and hostile bytes of the login units; tests/wire has their golden bytes.
#include "hex.h"
#include "pieces.h"

#include <srpfs/srp/srp.h>

#include <gtest/gtest.h>

namespace srpfs::srp {
namespace {

using namespace test;

LoginRequest request() {
    return {.tag = 0x0123456789abcdef,
            .it_iu_bytes_max = 8260,
            .multi_channel = MultiChannel::multi,
            .immediate_data = true,
            .immediate_data_offset = immediate_data_offset,
            .initiator_port = port_id(1, 2),
            .target_port = port_id(3, 4)};
}

std::vector<std::byte> bytes_of(const LoginRequest& login, LoginForm form) {
    std::vector<std::byte> buffer(64);
    buffer.resize(encode(login, form, buffer));
    return buffer;
}

class LoginRequestForm : public testing::TestWithParam<LoginForm> {
protected:
    std::size_t size() const { return GetParam() == LoginForm::ib_cm ? 64 : 56; }
    std::size_t opcode_offset() const { return GetParam() == LoginForm::ib_cm ? 0 : 11; }
    std::size_t flags_offset() const { return GetParam() == LoginForm::ib_cm ? 26 : 10; }
};
INSTANTIATE_TEST_SUITE_P(BothForms, LoginRequestForm, testing::Values(LoginForm::ib_cm, LoginForm::rdma_cm));

TEST_P(LoginRequestForm, ReadsBackWhatWasWritten) {
    const auto bytes = bytes_of(request(), GetParam());

    EXPECT_EQ(bytes.size(), size());
    const auto parsed = parse_login_request(bytes, GetParam());
    ASSERT_TRUE(parsed) << to_string(parsed.fault);
    EXPECT_EQ(*parsed, request());
}

TEST_P(LoginRequestForm, IsTruncatedByOneByteButNotByPadding) {
    auto bytes = bytes_of(request(), GetParam());
    bytes.push_back(std::byte{0xff});

    EXPECT_EQ(parse_login_request(std::span(bytes).first(size() - 1), GetParam()).fault, WireFault::truncated);
    EXPECT_TRUE(parse_login_request(std::span(bytes).first(size()), GetParam()));
    EXPECT_TRUE(parse_login_request(bytes, GetParam()));
    EXPECT_EQ(parse_login_request({}, GetParam()).fault, WireFault::truncated);
}

TEST_P(LoginRequestForm, RefusesAnotherOpcode) {
    auto bytes = bytes_of(request(), GetParam());
    bytes[opcode_offset()] = std::byte{0x02};

    EXPECT_EQ(parse_login_request(bytes, GetParam()).fault, WireFault::wrong_opcode);
}

TEST_P(LoginRequestForm, RefusesTheReservedMultiChannelActions) {
    auto bytes = bytes_of(request(), GetParam());
    for (const unsigned action : {2u, 3u}) {
        bytes[flags_offset()] = static_cast<std::byte>(action);
        EXPECT_EQ(parse_login_request(bytes, GetParam()).fault, WireFault::bad_value) << action;
    }
}

TEST_P(LoginRequestForm, IgnoresTheFlagsForNotifications) {
    auto bytes = bytes_of(request(), GetParam());
    bytes[flags_offset()] |= std::byte{0x7c};

    EXPECT_EQ(*parse_login_request(bytes, GetParam()), request());
}

TEST_P(LoginRequestForm, IsNotWrittenIntoABufferOneByteTooSmall) {
    std::vector<std::byte> buffer(size() - 1);

    EXPECT_DEATH((void)encode(request(), GetParam(), buffer), "overran");
}

LoginResponse response() {
    return {.credits = 128,
            .tag = 7,
            .it_iu_bytes_max = 8276,
            .ti_iu_bytes_max = 8260,
            .buffer_formats = 6,
            .multi_channel = MultiChannelResult::maintained,
            .immediate_data = true};
}

std::vector<std::byte> response_bytes() {
    std::vector<std::byte> buffer(52);
    encode(response(), buffer);
    return buffer;
}

TEST(LoginResponse, ReadsBackWhatWasWritten) {
    EXPECT_EQ(*parse_login_response(response_bytes()), response());
    EXPECT_EQ(*parse_login_response(response_bytes() + zeros(196 - 52)), response());
}

TEST(LoginResponse, IsTruncatedByOneByte) {
    const auto bytes = response_bytes();

    EXPECT_EQ(parse_login_response(std::span(bytes).first(51)).fault, WireFault::truncated);
    EXPECT_EQ(parse_login_response({}).fault, WireFault::truncated);
}

TEST(LoginResponse, RefusesAnotherOpcode) {
    auto bytes = response_bytes();
    bytes[0] = std::byte{0xc2};

    EXPECT_EQ(parse_login_response(bytes).fault, WireFault::wrong_opcode);
}

TEST(LoginResponse, ReadsAReservedMultiChannelResultAsNone) {
    auto bytes = response_bytes();
    bytes[26] = std::byte{0x03};

    const auto parsed = parse_login_response(bytes);
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->multi_channel, MultiChannelResult::none_existed);
    EXPECT_FALSE(parsed->immediate_data);
}

TEST(LoginResponse, KeepsNegativeCreditsAndAbsurdLengthsForTheCaller) {
    auto bytes = response_bytes();
    for (std::size_t i = 4; i < 8; ++i) bytes[i] = std::byte{0xff};
    for (std::size_t i = 16; i < 24; ++i) bytes[i] = std::byte{0xff};

    const auto parsed = parse_login_response(bytes);
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->credits, -1);
    EXPECT_EQ(parsed->it_iu_bytes_max, UINT32_MAX);
    EXPECT_EQ(parsed->ti_iu_bytes_max, UINT32_MAX);
}

TEST(LoginReject, ReadsBackWhatWasWritten) {
    const LoginReject reject{.reason = RejectReason::channel_limit, .tag = 9, .buffer_formats = 6};
    std::vector<std::byte> bytes(32);
    encode(reject, bytes);

    EXPECT_EQ(*parse_login_reject(bytes), reject);
    EXPECT_EQ(*parse_login_reject(bytes + zeros(148 - 32)), reject);
    EXPECT_EQ(parse_login_reject(std::span(bytes).first(31)).fault, WireFault::truncated);
}

TEST(LoginReject, KeepsAReasonWithoutAName) {
    const auto parsed = parse_login_reject(hex("c2 00 00 00 de ad be ef") + zeros(24));

    ASSERT_TRUE(parsed);
    EXPECT_EQ(static_cast<std::uint32_t>(parsed->reason), 0xdeadbeefu);
}

// Private data of a reject by something that is not SRP.
TEST(LoginReject, RefusesBytesOfAnotherProtocol) {
    EXPECT_EQ(parse_login_reject(zeros(148)).fault, WireFault::wrong_opcode);
    EXPECT_EQ(parse_login_reject({}).fault, WireFault::truncated);
}

}  // namespace
}  // namespace srpfs::srp
