// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The kinds of BlockStore.

#pragma once

#include <srpfs/target/block_store.h>

namespace srpfs::target {

Result<std::unique_ptr<BlockStore>> make_ram_store(const LunConfig& config, VolatileCache cache);
Result<std::unique_ptr<BlockStore>> make_file_store(const LunConfig& config);

}  // namespace srpfs::target
