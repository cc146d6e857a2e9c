// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A CDB that somebody else has made: what he writes for it, what is known of it, and whether it can be sent as it is.
// Pure. Sources: SPC-4, SBC-3; which commands harm nobody follows what Linux lets unprivileged users send (SG_IO).

#pragma once

#include <srpfs/base/result.h>
#include <srpfs/scsi/scsi.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace srpfs::scsi {

enum class DataWay : std::uint8_t { none, in, out };

// Data in or out of one raw command.
inline constexpr std::uint32_t raw_data_bytes_max = 65536;
inline constexpr std::chrono::milliseconds raw_time_limit_default = std::chrono::seconds(30),
                                           raw_time_limit_min = std::chrono::seconds(1),
                                           raw_time_limit_max = std::chrono::hours(24);
// As text: the next one who writes to the file waits in the kernel, and no signal ends that.
inline constexpr std::chrono::milliseconds raw_text_time_limit_max = std::chrono::seconds(60);

struct RawCommand {
    Cdb cdb;
    std::optional<std::uint32_t> in_bytes;  // as its maker says; empty: what the CDB says
    std::vector<std::byte> out;
    std::chrono::milliseconds time_limit = raw_time_limit_default;
};

// "12 00 00 00 60 00 in=96 timeout=5": the CDB as numbers in hexadecimal, then in=BYTES, out=HEX (two digits a byte)
// and timeout=SECONDS as wanted. EINVAL with what is wrong and what is expected.
Result<RawCommand> parse_raw_command(std::string_view text);

struct RawPlan {
    DataWay way = DataWay::none;
    std::uint32_t bytes = 0;  // to be described to the target: exactly those
    // What it is meant for may change the unit or what it keeps, or is not known here. False: it asks or reads.
    bool changes = true;
};
// What the CDB of a known command says of its data has to be what `command` brings, the direction included: a target
// that believes the direction rather than the operation code would write what it was to read. Not sent at all are CDBs
// of another length than their operation code says, those that ask for ACA, those that take unit attentions away
// (REQUEST SENSE, REPORT LUNS), and more data than raw_data_bytes_max.
// EINVAL with the reason. `block_bytes` is the unit's.
Result<RawPlan> plan_raw_command(const RawCommand& command, std::uint32_t block_bytes);

}  // namespace srpfs::scsi
