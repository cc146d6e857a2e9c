// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Standard INQUIRY data and every VPD page, each parser over the same bytes.
#include "fuzz.h"

#include <srpfs/scsi/page_text.h>
#include <srpfs/scsi/scsi.h>

#include <algorithm>
#include <string>

using namespace srpfs::scsi;

namespace srpfs::fuzz {
namespace {

bool is_clean(const std::string& text, std::size_t bytes_max) {
    return text.size() <= bytes_max && is_printable_line(text) && !text.ends_with(' ');
}

bool is_text(const std::string& text) {
    return text.ends_with('\n') &&
           std::all_of(text.begin(), text.end(), [](char one) { return one == '\n' || (one >= ' ' && one <= '~'); });
}

bool is_wwid(const std::string& text) {
    const bool known = text.starts_with("naa.") || text.starts_with("eui.") || text.starts_with("t10.");
    return known && text.size() > 4 && is_clean(text, 4 + 4 * 255);  // at most 255 bytes, each at most \xNN
}

}  // namespace
}  // namespace srpfs::fuzz

SRPFS_FUZZ_TARGET(inquiry) {
    if (const auto inquiry = parse_inquiry(input)) {
        PROPERTY(inquiry->peripheral_qualifier < 8);
        PROPERTY(inquiry->device_type < 32);
        PROPERTY(is_clean(inquiry->vendor, 8));
        PROPERTY(is_clean(inquiry->product, 16));
        PROPERTY(is_clean(inquiry->revision, 4));
    }
    if (const auto serial = parse_vpd_serial(input)) PROPERTY(is_clean(*serial, input.size()));
    if (const auto pages = parse_vpd_supported(input)) PROPERTY(pages->size() + 4 <= input.size());
    if (const auto wwid = parse_vpd_wwid(input)) PROPERTY(is_wwid(*wwid));
    if (const auto limits = parse_vpd_block_limits(input)) PROPERTY(input.size() >= 16);
    PROPERTY(is_text(inquiry_text(input)));
    PROPERTY(is_text(vpd_text(input)));
    PROPERTY(is_text(mode_text(input)));
}
