// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// ioctl(2) of LUN files and of lunN.attr/cdb: one SCSI command of the caller's choice. C and C++; part of the
// interface: neither numbers nor layout change. What may be sent, and by whom, is in srpfs(8).
//
// 0: the target has answered, and status says what. Else -1, and errno: EINVAL (last_error has the message, one a
// second), EPERM, EROFS, EBADF (the file is not open for reading), EBUSY (too many at a time), ETIMEDOUT, EINTR,
// ENODEV, EIO (no connection; whether the command was carried out is not known).

#pragma once

#include <stdint.h>

#include <sys/ioctl.h>

// 15 blocks of 512 bytes; the number of an ioctl has room for 8191 bytes on some machines.
#define SRPFS_RAW_DATA_MAX 7680

enum { SRPFS_RAW_NO_DATA = 0, SRPFS_RAW_DATA_IN = 1, SRPFS_RAW_DATA_OUT = 2 };

struct srpfs_raw_command {
    // The caller's.
    uint8_t cdb[16];
    uint8_t cdb_bytes;  // as many as the operation code says: 6, 10, 12 or 16
    uint8_t direction;
    uint8_t reserved[2];  // 0
    uint32_t data_bytes;  // what the CDB says, at most SRPFS_RAW_DATA_MAX
    uint32_t timeout_ms;  // 1000 to 86400000; 0: 30 s
    // The answer.
    uint32_t residual;  // bytes of data_bytes that were not moved
    uint8_t status;     // SAM: 0 GOOD, 2 CHECK CONDITION, ...
    uint8_t overflow;   // 1: the target had more data than data_bytes
    uint8_t has_sense;
    uint8_t sense_key, asc, ascq;
    uint8_t filler[26];                // 0
    uint8_t data[SRPFS_RAW_DATA_MAX];  // out, or in: data_bytes - residual of them, the rest are 0
};

#define SRPFS_RAW_COMMAND _IOWR(0xE5, 1, struct srpfs_raw_command)
