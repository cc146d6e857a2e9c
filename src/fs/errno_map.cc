// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "errno_map.h"

#include <cerrno>

namespace srpfs::fs {
namespace {

constexpr std::uint8_t asc_lun_not_supported = 0x25;
constexpr std::uint8_t asc_medium_not_present = 0x3a;

}  // namespace

int errno_of(const lun::Outcome& outcome, lun::OperationKind kind) {
    using Kind = lun::OutcomeKind;
    switch (outcome.kind) {
        case Kind::ok: return 0;
        case Kind::interrupted: return EINTR;
        case Kind::path_lost: return EIO;
        case Kind::gone: return ENODEV;
        case Kind::not_ready:
            return outcome.sense.valid && outcome.sense.asc == asc_medium_not_present ? ENOMEDIUM : EIO;
        case Kind::medium_error: return EIO;
        case Kind::hardware_error: return EIO;
        case Kind::illegal_request:
            return outcome.sense.valid && outcome.sense.asc == asc_lun_not_supported ? ENODEV : EIO;
        case Kind::out_of_range: return kind == lun::OperationKind::write ? ENOSPC : EIO;
        case Kind::write_protected: return EROFS;
        case Kind::space_exhausted: return ENOSPC;
        case Kind::reservation_conflict: return EBUSY;
        case Kind::miscompare: return EIO;
        case Kind::aborted: return EIO;
        case Kind::busy: return EBUSY;
        case Kind::short_transfer: return EIO;
        case Kind::protocol_error: return EIO;
        case Kind::out_of_memory: return EIO;
    }
    return EIO;
}

}  // namespace srpfs::fs
