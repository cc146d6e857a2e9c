// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// MNT/metrics: what MNT/stats says, for Prometheus (text exposition format 0.0.4).

#pragma once

#include <nlohmann/json_fwd.hpp>

#include <string>

namespace srpfs::daemon {

// `stats` as in status.cc, of which every field has to be there. Each family once, with its help and type, then all its
// samples; times in seconds, and names with units, as Prometheus wants them.
std::string metrics_of(const nlohmann::ordered_json& stats);

}  // namespace srpfs::daemon
