// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What went wrong, as a sentence for an administrator: cause and remedy. Pure, except observe_environment().
// errno values are positive.

#pragma once

#include <srpfs/base/result.h>
#include <srpfs/fabric/fabric.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace srpfs::fabric::verbs {

// What decides why RDMA cannot be used at all.
struct Environment {
    bool has_cm_node = false;  // /dev/infiniband/rdma_cm
    bool may_use_cm_node = false;
    bool has_device = false;       // the kernel knows an RDMA device
    bool has_user_device = false;  // libibverbs knows one: its driver for user space is there too
    bool may_use_devices = true;   // all of /dev/infiniband/uverbs*
};
[[nodiscard]] Environment observe_environment();

// Why rdma_create_event_channel() failed (or would be of no use).
[[nodiscard]] Error cm_unavailable(int errno_value, const Environment& environment);

// libibverbs tries more than one way, and errno is that of the last: permissions are looked at here.
[[nodiscard]] Error device_not_opened(const std::string& device, int errno_value, const Environment& environment);

struct MemoryLimit {
    std::uint64_t bytes = 0;        // of this registration
    std::uint64_t total_bytes = 0;  // everything the process has registered with the device, and this
    std::uint64_t limit_bytes = 0;  // RLIMIT_MEMLOCK; UINT64_MAX: unlimited
};
[[nodiscard]] Error memory_not_registered(const std::string& device, int errno_value, const MemoryLimit& limit);
// RLIMIT_MEMLOCK of this process, UINT64_MAX when unlimited.
[[nodiscard]] std::uint64_t locked_memory_limit();

// `status` of an ADDR_ERROR: a negative errno, or -1 when librdmacm could not use the device.
[[nodiscard]] End address_error(const std::string& peer, int status, const Environment& environment);
[[nodiscard]] End route_error(const std::string& peer, int status);
[[nodiscard]] End unreachable(const std::string& peer, int status);
// `status` of REJECTED: the positive reason of IBTA's connection manager; negative errno with iWARP.
[[nodiscard]] End rejected(const std::string& peer, int status, std::span<const std::byte> private_data);
// The meaning of an IBTA CM reject reason; "unknown reason" for numbers the specification does not have.
[[nodiscard]] const char* reject_reason_text(int reason);

[[nodiscard]] End port_down(const LocalPort& port);

// The operation a completion belongs to.
enum class Operation { receive, send, rdma_read, rdma_write, bind, invalidate };
[[nodiscard]] const char* to_string(Operation operation);
// `status` is an ibv_wc_status.
[[nodiscard]] End completion_error(const std::string& peer, Operation operation, int status,
                                   std::uint32_t vendor_error);

// "64 MiB", "1.5 KiB"; the largest unit that keeps the number readable.
[[nodiscard]] std::string bytes_text(std::uint64_t bytes);

}  // namespace srpfs::fabric::verbs
