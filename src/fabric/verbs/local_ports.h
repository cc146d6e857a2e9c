// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The RDMA ports of this machine as the kernel describes them in sysfs
// (Documentation/ABI/stable/sysfs-class-infiniband). Reading files needs no permission on device nodes and leaves no
// device open.

#pragma once

#include <srpfs/fabric/fabric.h>

#include <filesystem>

namespace srpfs::fabric::verbs {

inline constexpr const char* sysfs_class_directory = "/sys/class/infiniband";

// Sorted by device and port. Empty when there is no such directory.
[[nodiscard]] std::vector<LocalPort> read_local_ports(const std::filesystem::path& root = sysfs_class_directory);
// nullopt: no such port.
[[nodiscard]] std::optional<LocalPort> read_local_port(const std::string& device, unsigned port,
                                                       const std::filesystem::path& root = sysfs_class_directory);

}  // namespace srpfs::fabric::verbs
