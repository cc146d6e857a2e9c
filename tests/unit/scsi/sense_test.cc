// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "hex.h"

#include <srpfs/scsi/scsi.h>

#include <gtest/gtest.h>

namespace srpfs::scsi {
namespace {

using namespace test;

const auto luns_changed_fixed = hex("70 00 06 00 00 00 00 0a 00 00 00 00 3f 0e 00 00 00 00");
const auto luns_changed_descriptor = hex("72 06 3f 0e 00 00 00 00");
constexpr Sense luns_changed{.valid = true, .key = SenseKey::unit_attention, .asc = 0x3f, .ascq = 0x0e};

TEST(Sense, IsReadFromBothFormats) {
    EXPECT_EQ(parse_sense(luns_changed_fixed), luns_changed);
    EXPECT_EQ(parse_sense(luns_changed_descriptor), luns_changed);
}

TEST(Sense, IsReadWhenPaddedAsLioPadsIt) {
    EXPECT_EQ(parse_sense(luns_changed_fixed + zeros(78)), luns_changed);
    EXPECT_EQ(parse_sense(luns_changed_descriptor + zeros(88)), luns_changed);
}

TEST(Sense, OfTheDeferredResponseCodesIsMarked) {
    auto fixed = luns_changed_fixed, descriptor = luns_changed_descriptor;
    fixed[0] = std::byte{0x71};
    descriptor[0] = std::byte{0x73};

    EXPECT_TRUE(parse_sense(fixed).deferred);
    EXPECT_TRUE(parse_sense(descriptor).deferred);
    EXPECT_FALSE(parse_sense(luns_changed_fixed).deferred);
}

TEST(Sense, IgnoresTheBitsBesideResponseCodeAndKey) {
    auto fixed = luns_changed_fixed;
    fixed[0] = std::byte{0xf0};  // VALID
    fixed[2] = std::byte{0xf6};  // FILEMARK, EOM, ILI, SDAT_OVFL

    EXPECT_EQ(parse_sense(fixed), luns_changed);
}

TEST(Sense, IsUnusableWithoutAKnownResponseCode) {
    EXPECT_FALSE(parse_sense({}).valid);
    EXPECT_FALSE(parse_sense(zeros(96)).valid);
    for (const char* code : {"6f", "74", "7f", "00", "80", "ff"})
        EXPECT_FALSE(parse_sense(hex(code) + zeros(17)).valid) << code;
}

TEST(Sense, IsUnusableWhenItsKeyWasNotReceived) {
    EXPECT_FALSE(parse_sense(hex("70 00")).valid);
    EXPECT_TRUE(parse_sense(hex("70 00 06")).valid);
    EXPECT_FALSE(parse_sense(hex("72")).valid);
    EXPECT_TRUE(parse_sense(hex("72 06")).valid);
}

TEST(Sense, HasAsManyCodesAsWereReceived) {
    const std::span<const std::byte> whole = luns_changed_fixed;

    EXPECT_EQ(parse_sense(whole.first(12)), (Sense{.valid = true, .key = SenseKey::unit_attention}));
    EXPECT_EQ(parse_sense(whole.first(13)), (Sense{.valid = true, .key = SenseKey::unit_attention, .asc = 0x3f}));
    EXPECT_EQ(parse_sense(whole.first(14)), luns_changed);
}

TEST(Sense, EndsWhereTheAdditionalLengthSays) {
    auto sense = luns_changed_fixed;
    sense[7] = std::byte{5};  // up to byte 12: ASC but no ASCQ
    EXPECT_EQ(parse_sense(sense), (Sense{.valid = true, .key = SenseKey::unit_attention, .asc = 0x3f}));
    sense[7] = std::byte{0};
    EXPECT_EQ(parse_sense(sense), (Sense{.valid = true, .key = SenseKey::unit_attention}));
    sense[7] = std::byte{0xff};  // a lie upwards
    EXPECT_EQ(parse_sense(sense), luns_changed);
}

TEST(Sense, ReadsWhatTheTargetSideEncodes) {
    for (unsigned key = 0; key < 16; ++key) {
        const Sense expected{.valid = true, .key = static_cast<SenseKey>(key), .asc = 0x25, .ascq = 0x01};
        EXPECT_EQ(parse_sense(encode_fixed_sense(expected.key, 0x25, 0x01)), expected);
    }
}

TEST(Sense, IsDescribedInWordsAndNumbers) {
    EXPECT_EQ(describe(luns_changed), "UNIT ATTENTION: reported LUNs data has changed (6/3f/0e)");
    EXPECT_EQ(describe(Sense{.valid = true, .deferred = true, .key = SenseKey::medium_error, .asc = 0x11}),
              "deferred MEDIUM ERROR: unrecovered read error (3/11/00)");
    EXPECT_EQ(describe(Sense{}), "no sense data");
}

TEST(Sense, IsDescribedByNumbersWhenTheCodesAreUnknown) {
    EXPECT_EQ(describe(Sense{.valid = true, .key = SenseKey::illegal_request, .asc = 0xee, .ascq = 0x7f}),
              "ILLEGAL REQUEST (5/ee/7f)");
    EXPECT_EQ(describe(Sense{.valid = true, .key = SenseKey::completed}),
              "COMPLETED: no additional sense information (f/00/00)");
}

// Every code that srp-admin 6 acts on has to be readable in a log.
TEST(Sense, HasWordsForEveryCodeThatIsActedOn) {
    const std::pair<int, int> acted_on[] = {
        {0x04, 0x01}, {0x04, 0x0a}, {0x04, 0x0b}, {0x04, 0x0c}, {0x08, 0x00}, {0x0e, 0x03}, {0x10, 0x01}, {0x11, 0x00},
        {0x13, 0x00}, {0x14, 0x00}, {0x20, 0x00}, {0x21, 0x00}, {0x24, 0x00}, {0x25, 0x00}, {0x26, 0x00}, {0x27, 0x00},
        {0x27, 0x07}, {0x28, 0x00}, {0x29, 0x00}, {0x29, 0x01}, {0x29, 0x03}, {0x29, 0x04}, {0x29, 0x07}, {0x2a, 0x01},
        {0x2a, 0x03}, {0x2a, 0x04}, {0x2a, 0x05}, {0x2a, 0x06}, {0x2a, 0x09}, {0x3f, 0x0e}};
    for (const auto& [asc, ascq] : acted_on) {
        const Sense sense{.valid = true,
                          .key = SenseKey::unit_attention,
                          .asc = static_cast<std::uint8_t>(asc),
                          .ascq = static_cast<std::uint8_t>(ascq)};
        EXPECT_NE(describe(sense).find(": "), std::string::npos) << describe(sense);
    }
}

TEST(Sense, HasTheNameOfEveryKey) {
    const char* names[] = {"NO SENSE",       "RECOVERED ERROR", "NOT READY",      "MEDIUM ERROR",
                           "HARDWARE ERROR", "ILLEGAL REQUEST", "UNIT ATTENTION", "DATA PROTECT",
                           "BLANK CHECK",    "VENDOR SPECIFIC", "COPY ABORTED",   "ABORTED COMMAND",
                           "RESERVED",       "VOLUME OVERFLOW", "MISCOMPARE",     "COMPLETED"};
    for (unsigned key = 0; key < 16; ++key) {
        const Sense sense{.valid = true, .key = static_cast<SenseKey>(key), .asc = 0xee};
        EXPECT_TRUE(describe(sense).starts_with(std::string(names[key]) + " (")) << describe(sense);
    }
}

// SAM-5 5.3.1.
TEST(Status, HasTheNameOfTheStandardOrSaysThatItIsUnknown) {
    const std::pair<unsigned, std::string_view> names[] = {
        {0x00, "GOOD"},       {0x02, "CHECK CONDITION"},      {0x04, "CONDITION MET"},
        {0x08, "BUSY"},       {0x18, "RESERVATION CONFLICT"}, {0x28, "TASK SET FULL"},
        {0x30, "ACA ACTIVE"}, {0x40, "TASK ABORTED"},         {0x22, "unknown SCSI status"}};
    for (const auto& [status, name] : names) EXPECT_EQ(describe(static_cast<Status>(status)), name);
}

}  // namespace
}  // namespace srpfs::scsi
