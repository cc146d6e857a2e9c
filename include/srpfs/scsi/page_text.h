// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// INQUIRY data, VPD pages and mode pages as text for people: a line for each thing, "name: value", what is not known as
// hexadecimal bytes. Pure; whatever the bytes, the text is printable ASCII and ends with a newline. Sources: SPC-4,
// SBC-3.

#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace srpfs::scsi {

[[nodiscard]] std::string inquiry_text(std::span<const std::byte> data);
// One page, its header included.
[[nodiscard]] std::string vpd_text(std::span<const std::byte> page);
// What MODE SENSE(10) answers, header included.
[[nodiscard]] std::string mode_text(std::span<const std::byte> data);

}  // namespace srpfs::scsi
