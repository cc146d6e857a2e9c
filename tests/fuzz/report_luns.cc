// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "fuzz.h"

#include <srpfs/scsi/scsi.h>

using namespace srpfs::scsi;

SRPFS_FUZZ_TARGET(report_luns) {
    const auto list = parse_report_luns(input);
    if (!list) return;
    PROPERTY(8 + 8 * list->luns.size() <= input.size());
    PROPERTY(list->bytes_needed >= 8 + 8 * list->luns.size());
    for (std::size_t index = 0; index < list->luns.size(); ++index) {
        const Lun& lun = list->luns[index];
        PROPERTY(same_bytes(lun.bytes, input.subspan(8 + 8 * index, 8)));
        const auto number = lun.small_number();
        PROPERTY(!number || *number <= 255);
        PROPERTY(lun.file_name().starts_with("lun"));
        PROPERTY(number.has_value() != lun.file_name().starts_with("lun0x"));
        if (number && lun.bytes[0] == std::byte{0})
            PROPERTY(Lun::from_number(static_cast<std::uint16_t>(*number)) == lun);
    }
}
