// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The sentences people read when a login fails.
#include "pieces.h"

#include <srpfs/srp/srp.h>

#include <gtest/gtest.h>

#include <set>

namespace srpfs::srp {
namespace {

void expect_sentence(const std::string& text) {
    EXPECT_TRUE(std::isupper(static_cast<unsigned char>(text.front()))) << text;
    EXPECT_EQ(text.back(), '.') << text;
    EXPECT_FALSE(contains(text, "..")) << text;
    EXPECT_FALSE(contains(text, "\n")) << text;
}

TEST(Explanation, OfEveryRejectReasonIsASentenceWithTheCodeAndAHint) {
    std::set<std::string> all;
    for (std::uint32_t code = 0x00010000; code <= 0x00010006; ++code) {
        const std::string text = describe(static_cast<RejectReason>(code));
        expect_sentence(text);
        EXPECT_TRUE(contains(text, "0x0001000" + std::to_string(code & 0xf))) << text;
        EXPECT_TRUE(contains(text, "; ")) << text;
        EXPECT_TRUE(all.insert(text).second) << text;
    }
}

TEST(Explanation, OfAChannelLimitTellsAboutTheMissingAclAndItsName) {
    const std::string text = describe(RejectReason::channel_limit);

    EXPECT_TRUE(contains(text, "channel limit reached")) << text;
    EXPECT_TRUE(contains(text, "ACL")) << text;
    EXPECT_TRUE(contains(text, "/sys/kernel/config/target/srpt/")) << text;
    EXPECT_TRUE(contains(text, "0x and 32 hex digits")) << text;
    EXPECT_TRUE(contains(text, "xxxx:xxxx:xxxx:xxxx")) << text;
    EXPECT_TRUE(contains(text, "target's own IP address")) << text;
}

TEST(Explanation, OfAChannelLimitSpellsOutTheNameOfTheAclWhenItKnowsTheInitiator) {
    PortId port{};
    ByteWriter(port).u64(0).u64(0x505400fffe4a0b7b);
    const std::string text = describe(RejectReason::channel_limit, &port);

    expect_sentence(text);
    EXPECT_TRUE(contains(text, " 0x0000000000000000505400fffe4a0b7b;")) << text;
}

TEST(Explanation, OfATooLargeUnitNamesTheOptionsThatMakeItSmaller) {
    const std::string text = describe(RejectReason::it_iu_too_large);

    EXPECT_TRUE(contains(text, "use_imm_data=0")) << text;
    EXPECT_TRUE(contains(text, "max_it_iu_size")) << text;
    EXPECT_TRUE(contains(text, "cmd_sg_entries")) << text;
    EXPECT_TRUE(contains(text, "srp_max_req_size")) << text;
}

TEST(Explanation, OfInsufficientResourcesTellsAboutADisabledPort) {
    EXPECT_TRUE(contains(describe(RejectReason::insufficient_resources), "enable"));
}

TEST(Explanation, OfAMissingTargetPortTellsWhichKeysToCheck) {
    EXPECT_TRUE(contains(describe(RejectReason::no_association), "id_ext and ioc_guid"));
}

TEST(Explanation, OfAnUnknownReasonShowsItsNumber) {
    const std::string reason = describe(static_cast<RejectReason>(0xdeadbeef));
    const std::string cm = describe_cm_reject(-1);

    expect_sentence(reason);
    EXPECT_TRUE(contains(reason, "0xdeadbeef")) << reason;
    expect_sentence(cm);
    EXPECT_TRUE(contains(cm, "REJ -1")) << cm;
}

TEST(Explanation, OfEveryConnectionManagerReasonIsASentenceWithTheNumber) {
    for (int code = 0; code <= 40; ++code) {
        const std::string text = describe_cm_reject(code);
        expect_sentence(text);
        EXPECT_TRUE(contains(text, "(REJ " + std::to_string(code) + ")")) << text;
    }
}

// The most frequent complaint of users (srp-targets 4).
TEST(Explanation, OfCmReason3SuggestsASmallerChCount) {
    EXPECT_TRUE(contains(describe_cm_reject(3), "smaller ch_count")) << describe_cm_reject(3);
    EXPECT_TRUE(contains(describe_cm_reject(1), "smaller ch_count")) << describe_cm_reject(1);
}

TEST(Explanation, OfCmReason8SuggestsCheckingTheListener) {
    EXPECT_TRUE(contains(describe_cm_reject(8), "dest"));
    EXPECT_TRUE(contains(describe_cm_reject(8), "rdma_cm_port"));
    EXPECT_TRUE(contains(describe_cm_reject(8), "service_id"));
}

TEST(Explanation, OfCmReason10And28SaysWhatHappened) {
    EXPECT_TRUE(contains(describe_cm_reject(10), "stale connection"));
    EXPECT_TRUE(contains(describe_cm_reject(28), "no SRP login reject"));
}

TEST(Explanation, OfALogoutReasonIsASentenceWithTheNumber) {
    for (const std::uint32_t code : {0u, 1u, 2u, 3u, 4u, 5u, 9u, 10u, 0xffffffffu}) {
        const std::string text = describe_logout_reason(code);
        expect_sentence(text);
        EXPECT_TRUE(contains(text, "(" + std::to_string(code) + ")")) << text;
    }
    EXPECT_TRUE(contains(describe_logout_reason(4), "another login"));
}

TEST(Explanation, OfAWireFaultHasWordsOfItsOwn) {
    std::set<std::string> all;
    for (const WireFault fault : {WireFault::none, WireFault::truncated, WireFault::wrong_opcode, WireFault::bad_length,
                                  WireFault::bad_format, WireFault::bad_value})
        EXPECT_TRUE(all.insert(to_string(fault)).second);
}

}  // namespace
}  // namespace srpfs::srp
