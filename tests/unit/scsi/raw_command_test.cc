// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/scsi/raw_command.h>

#include <gtest/gtest.h>

#include <cerrno>
#include <string>

namespace srpfs::scsi {
namespace {

using namespace std::chrono_literals;

RawCommand parsed(std::string_view text) {
    const auto command = parse_raw_command(text);
    EXPECT_TRUE(command) << text << ": " << command.error().context;
    return command ? *command : RawCommand{};
}
std::string complaint(std::string_view text) {
    const auto command = parse_raw_command(text);
    if (command) return "none";
    EXPECT_EQ(command.error().errno_value(), EINVAL);
    return command.error().context;
}
// "in 96", "out 512", "none"; with '!' when it changes; "EINVAL" when it is not sent.
std::string plan(std::string_view text, std::uint32_t block_bytes = 512) {
    const auto made = plan_raw_command(parsed(text), block_bytes);
    if (!made) return made.error().errno_value() == EINVAL ? "EINVAL" : "?";
    const std::string way =
        made->way == DataWay::none ? "none" : (made->way == DataWay::in ? "in " : "out ") + std::to_string(made->bytes);
    return made->changes ? way + "!" : way;
}
std::string hex(std::size_t bytes) { return std::string(2 * bytes, 'a'); }

TEST(ParseRawCommand, TakesBytesAndOptions) {
    const RawCommand inquiry = parsed("12 00 0 0x0 60\t00 in=96 timeout=5");
    EXPECT_EQ(inquiry.cdb.length, 6);
    EXPECT_EQ(inquiry.cdb.bytes[4], std::byte{0x60});
    EXPECT_EQ(inquiry.in_bytes, 96u);
    EXPECT_EQ(inquiry.time_limit, 5s);
    const RawCommand out = parsed("1d 10 00 00 02 00 out=0aFf");
    EXPECT_EQ(out.out, (std::vector{std::byte{0x0a}, std::byte{0xff}}));
    EXPECT_FALSE(out.in_bytes);
    EXPECT_EQ(out.time_limit, raw_time_limit_default);
}

TEST(ParseRawCommand, SaysWhatIsWrong) {
    for (const char* text : {"",
                             "in=4",
                             "100",
                             "-1",
                             "g0",
                             "0x",
                             "12 in=",
                             "12 in=x",
                             "12 in=65537",
                             "12 in=1 in=1",
                             "12 out=",
                             "12 out=1",
                             "12 out=zz",
                             "12 out=00 out=00",
                             "12 timeout=0",
                             "12 timeout=61",
                             "12 timeout=1 timeout=1",
                             "12 in=6 00",
                             "12 bytes=6",
                             "12 =",
                             "0 1 2 3 4 5 6 7 8 9 a b c d e f 10"}) {
        EXPECT_TRUE(complaint(text).starts_with("cdb: ")) << text;
    }
    EXPECT_NE(complaint("12 x\x01\xff=")
                  .find("'x?"
                        "?='"),
              std::string::npos);
}

TEST(PlanRawCommand, TakesTheLengthFromTheCdb) {
    EXPECT_EQ(plan("00 00 00 00 00 00"), "none");
    EXPECT_EQ(plan("12 01 83 01 00 00"), "in 256");
    EXPECT_EQ(plan("12 00 00 00 00 00"), "none");
    EXPECT_EQ(plan("25 00 00 00 00 00 00 00 00 00"), "in 8");
    EXPECT_EQ(plan("28 00 00 00 00 00 00 00 02 00"), "in 1024");
    EXPECT_EQ(plan("28 00 00 00 00 00 00 00 02 00", 4096), "in 8192");
    EXPECT_EQ(plan("08 00 00 00 80 00"), "in 65536");
    EXPECT_EQ(plan("08 00 00 00 00 00"), "EINVAL");  // 256 blocks are too much
    EXPECT_EQ(plan("88 00 00 00 00 00 00 00 00 00 00 00 00 80 00 00"), "in 65536");
    EXPECT_EQ(plan("a8 00 00 00 00 00 00 00 00 81 00 00"), "EINVAL");
    EXPECT_EQ(plan("9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00"), "in 32");
    EXPECT_EQ(plan("a3 0a 00 00 00 00 00 00 10 00 00 00"), "in 4096");
    EXPECT_EQ(plan("a3 0a 00 00 00 00 00 10 00 00 00 00"), "EINVAL");
    EXPECT_EQ(plan("5e 00 00 00 00 00 00 20 00 00"), "in 8192");
    EXPECT_EQ(plan("4d 00 40 00 00 00 00 00 ff 00"), "in 255");
    EXPECT_EQ(plan("3c 02 00 00 00 00 00 10 00 00"), "in 4096");
    EXPECT_EQ(plan("a3 0c 00 00 00 00 00 00 02 00 00 00"), "in 512");
    EXPECT_EQ(plan("2f 00 00 00 00 00 00 00 08 00"), "none");
    EXPECT_EQ(plan("35 00 00 00 00 00 00 00 00 00"), "none");
}

TEST(PlanRawCommand, WantsWhatIsGivenToAgree) {
    EXPECT_EQ(plan("12 00 00 00 60 00 in=96"), "in 96");
    EXPECT_EQ(plan("12 00 00 00 60 00 in=95"), "EINVAL");
    EXPECT_EQ(plan("12 00 00 00 60 00 in=0"), "EINVAL");
    EXPECT_EQ(plan("12 00 00 00 01 00 out=00"), "EINVAL");
    EXPECT_EQ(plan("00 00 00 00 00 00 in=1"), "EINVAL");
    EXPECT_EQ(plan("28 00 00 00 00 00 00 00 01 00 in=1024"), "EINVAL");
    // A target that goes by the direction would write.
    EXPECT_EQ(plan("28 00 00 00 00 00 00 00 01 00 out=" + hex(512)), "EINVAL");
    EXPECT_EQ(plan("2a 00 00 00 00 00 00 00 01 00 in=512"), "EINVAL");
    EXPECT_EQ(plan("2a 00 00 00 00 00 00 00 01 00"), "EINVAL");
    EXPECT_EQ(plan("2a 00 00 00 00 00 00 00 01 00 out=" + hex(511)), "EINVAL");
    EXPECT_EQ(plan("12 00 00 00 60 00 in=96 out=00"), "EINVAL");
}

TEST(PlanRawCommand, KnowsWhatChangesTheUnit) {
    EXPECT_EQ(plan("2a 00 00 00 00 00 00 00 01 00 out=" + hex(512)), "out 512!");
    EXPECT_EQ(plan("8a 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00 out=" + hex(4096), 4096), "out 4096!");
    EXPECT_EQ(plan("2a 00 00 00 00 00 00 00 00 00"), "none!");
    EXPECT_EQ(plan("93 08 00 00 00 00 00 00 00 00 00 00 10 00 00 00 out=" + hex(512)), "out 512!");
    EXPECT_EQ(plan("89 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00 out=" + hex(1024)), "out 1024!");
    EXPECT_EQ(plan("42 00 00 00 00 00 00 00 18 00 out=" + hex(24)), "out 24!");
    EXPECT_EQ(plan("55 10 00 00 00 00 00 00 14 00 out=" + hex(20)), "out 20!");
    EXPECT_EQ(plan("5f 00 00 00 00 00 00 00 18 00 out=" + hex(24)), "out 24!");
    EXPECT_EQ(plan("1b 00 00 00 01 00"), "none!");
    EXPECT_EQ(plan("04 00 00 00 00 00"), "none!");
    // What is not known could do anything.
    EXPECT_EQ(plan("04 10 00 00 00 00 out=00000000"), "out 4!");
    EXPECT_EQ(plan("c0 00 00 00 00 00 00 00 in=512"), "in 512!");
    EXPECT_EQ(plan("9e 1f 00 00 00 00 00 00 00 00 00 00 00 20 00 00 in=32"), "in 32!");
    EXPECT_EQ(plan("a3 1f 00 00 00 00 00 00 00 10 00 00 in=16"), "in 16!");
}

TEST(PlanRawCommand, KnowsFieldsThatMakeAnotherCommand) {
    EXPECT_EQ(plan("4d 01 40 00 00 00 00 00 ff 00 in=255"), "in 255!");            // saves
    EXPECT_EQ(plan("28 20 00 00 00 00 00 00 01 00 in=520"), "in 520!");            // protection information
    EXPECT_EQ(plan("2f 02 00 00 00 00 00 00 01 00 out=" + hex(512)), "out 512!");  // compares
    EXPECT_EQ(plan("93 01 00 00 00 00 00 00 00 00 00 00 10 00 00 00"), "none!");   // no data-out buffer
    EXPECT_EQ(plan("28 18 00 00 00 00 00 00 01 00"), "in 512");                    // DPO, FUA
}

TEST(PlanRawCommand, RefusesCdbsThatNoTargetShouldSee) {
    EXPECT_EQ(plan("12 00 00 00 60"), "EINVAL");
    EXPECT_EQ(plan("12 00 00 00 60 00 00"), "EINVAL");
    EXPECT_EQ(plan("28 00 00 00 00 00"), "EINVAL");
    EXPECT_EQ(plan("7f 00 00 00 00 00 00 18 00 09 00 00 00 00 00 00"), "EINVAL");
    EXPECT_EQ(plan("12 00 00 00 60 04"), "EINVAL");  // NACA
    EXPECT_EQ(plan("12 00 00 00 60 01"), "EINVAL");  // linked
    EXPECT_EQ(plan("12 00 00 00 60 40"), "in 96");   // vendor specific bits
}

TEST(PlanRawCommand, RefusesWhatTakesUnitAttentionsAway) {
    EXPECT_EQ(plan("03 00 00 00 12 00"), "EINVAL");
    EXPECT_EQ(plan("03 01 00 00 fc 00 in=252"), "EINVAL");
    EXPECT_EQ(plan("a0 00 00 00 00 00 00 00 10 00 00 00"), "EINVAL");
}

TEST(ParseRawCommand, TakesNoLongTimeLimits) {
    EXPECT_EQ(parsed("00 00 00 00 00 00 timeout=60").time_limit, 60s);
    EXPECT_NE(complaint("00 00 00 00 00 00 timeout=61").find("1 to 60"), std::string::npos);
}

}  // namespace
}  // namespace srpfs::scsi
