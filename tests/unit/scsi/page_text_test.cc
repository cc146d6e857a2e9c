// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "hex.h"

#include <srpfs/scsi/page_text.h>

#include <gtest/gtest.h>

#include <algorithm>

namespace srpfs::scsi {
namespace {

using namespace test;

TEST(InquiryText, NamesWhatIsThere) {
    const auto data = hex("00 80 05 12 1f 10 00 02") + ascii("ACME    Big Disk        1.0 ");
    EXPECT_EQ(inquiry_text(data),
              "peripheral qualifier: 0\n"
              "device type: 00h disk\n"
              "removable medium (RMB): 1\n"
              "version: 5\n"
              "target port groups (TPGS): 1\n"
              "protection (PROTECT): 0\n"
              "several ports (MULTIP): 0\n"
              "command queueing (CMDQUE): 1\n"
              "vendor: ACME\n"
              "product: Big Disk\n"
              "revision: 1.0\n");
}

TEST(VpdText, NamesDesignatorsByWhatTheyAreOf) {
    const auto page = hex("00 83 00 24") + hex("01 03 00 08 50 01 40 5a 11 22 33 44") + hex("02 01 00 04") +
                      ascii("AB\x07 ") + hex("01 14 00 04 00 00 00 01") +
                      hex("01 1c 00 04 00 00");  // claims more than there is
    EXPECT_EQ(vpd_text(page),
              "page: 83h device identification\n"
              "logical unit, NAA: 0x5001405a11223344\n"
              "logical unit, T10 vendor id: AB?\n"
              "target port, relative port: 0x00000001\n"
              "target port, type ch: 0x0000\n");
}

TEST(VpdText, ShowsUnknownPagesAsBytes) {
    EXPECT_EQ(vpd_text(hex("00 80 00 02 20 20")), "page: 80h unit serial number\nserial number:\n");
    EXPECT_EQ(vpd_text(hex("00 c0 00 02 ab cd ef")), "page: c0h\nbytes: ab cd\n");
    EXPECT_EQ(vpd_text(hex("00 80")), "unusable: 00 80\nbytes: 2\n");
    EXPECT_EQ(vpd_text({}), "bytes: 0\n");
}

TEST(ModeText, TellsProtectionAndPages) {
    const auto data =
        hex("00 1c 00 90 00 00 00 00") + hex("08 12 04") + hex("00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00");
    EXPECT_EQ(mode_text(data),
              "medium type: 0\n"
              "write protected (WP): 1\n"
              "DPO and FUA (DPOFUA): 1\n"
              "page: 08h caching\n"
              "write cache (WCE): 1\n"
              "read cache disabled (RCD): 0\n"
              "non-volatile cache disabled (NV_DIS): 0\n"
              "bytes: 04 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00\n");
    EXPECT_EQ(mode_text(hex("00 0c 00 00 00 00 00 00 4a 01 00 02 55 aa")),
              "medium type: 0\nwrite protected (WP): 0\nDPO and FUA (DPOFUA): 0\npage: 0ah, 01h\nbytes: 55 aa\n");
}

TEST(PageText, IsPrintableWhateverTheBytesAre) {
    const auto is_text = [](const std::string& text) {
        return text.ends_with('\n') && std::all_of(text.begin(), text.end(),
                                                   [](char one) { return one == '\n' || (one >= ' ' && one <= '~'); });
    };
    std::uint32_t state = 1;
    for (unsigned round = 0; round < 2000; ++round) {
        std::vector<std::byte> bytes(round % 80);
        for (std::byte& one : bytes) {
            state = state * 1664525 + 1013904223;
            one = static_cast<std::byte>(state >> 24);
        }
        static constexpr std::array<unsigned, 7> pages{0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2, 0xc3};
        if (bytes.size() > 3) {
            bytes[1] = static_cast<std::byte>(pages[round % pages.size()]);
            bytes[2] = std::byte{};
        }
        EXPECT_TRUE(is_text(inquiry_text(bytes)));
        EXPECT_TRUE(is_text(vpd_text(bytes)));
        EXPECT_TRUE(is_text(mode_text(bytes)));
    }
}

}  // namespace
}  // namespace srpfs::scsi
