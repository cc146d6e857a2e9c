// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What an embedded logical unit is like, and the text users write for it: "ram:64M,bs=4096,wce+file:/disk.img,ro".

#pragma once

#include <srpfs/base/result.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace srpfs::target {

enum class StoreKind { ram, file, null };

struct LunConfig {
    StoreKind kind = StoreKind::ram;
    std::uint64_t bytes = 0;          // ram and null; a file's size is its own
    std::string path;                 // file
    std::uint32_t block_bytes = 512;  // 512 or 4096
    bool write_cache = false;         // WCE: acknowledged writes are durable after a flush only
    bool read_only = false;
    // "naa.<16 or 32 hex digits>", "eui.<16, 24 or 32>" or "t10.<text>", lower case; empty: derived from what and
    // where the unit is, equal in every run.
    std::string wwid;
    // Not in the text form.
    bool unmap = false;  // logical block provisioning: UNMAP and WRITE SAME with UNMAP
    bool operator==(const LunConfig&) const = default;
};

// What `demo` without a list means.
inline constexpr std::string_view default_lun_list = "ram:64M+ram:1G";

// LUN[+LUN...], from number 0, at most 256. LUN = ram:SIZE | file:PATH | null:SIZE, each with ",bs=512|4096", ",wce",
// ",ro", ",wwid=...", and after "N*" N of them; SIZE in bytes or with K, M, G, T (powers of 1024); a backslash takes
// the next character as it is. EINVAL with a sentence that names the LUN, what is wrong and what is allowed.
Result<std::vector<LunConfig>> parse_lun_list(std::string_view text);

}  // namespace srpfs::target
