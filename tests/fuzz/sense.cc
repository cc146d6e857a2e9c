// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "fuzz.h"

#include <srpfs/scsi/scsi.h>

using namespace srpfs::scsi;

SRPFS_FUZZ_TARGET(sense) {
    const Sense sense = parse_sense(input);
    PROPERTY(is_printable_line(describe(sense)));
    if (!sense.valid) {
        PROPERTY(sense == Sense{});
        return;
    }
    Sense current = sense;
    current.deferred = false;  // a target of ours sends no deferred sense
    PROPERTY(parse_sense(encode_fixed_sense(sense.key, sense.asc, sense.ascq)) == current);
}
