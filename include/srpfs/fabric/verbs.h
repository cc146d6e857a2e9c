// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// RDMA through librdmacm and libibverbs: AF_INET/AF_INET6 (RDMA_PS_TCP) and AF_IB (RDMA_PS_IB).

#pragma once

#include <srpfs/fabric/fabric.h>
#include <srpfs/reactor/executor.h>

#include <cstdint>

namespace srpfs::fabric {

// A completion queue that is waited for tells of completions only when there are so many of them or the first is so
// old, whichever is earlier: fewer interrupts, later answers. 0 completions: at once.
struct alignas(std::uint32_t) CompletionModeration {  // so that it is read and written whole
    std::uint16_t completions = 0;
    std::uint16_t microseconds = 0;
};

// One fabric for one reactor. Blocking calls (memory registration, destroying ids and queue pairs) run on worker
// threads; their results come back through `executor`. All fabrics of a process share the opened devices, protection
// domains and registered regions. Error: librdmacm or the kernel modules are missing (errno ENODEV/ENOENT) with the
// reason and what to load, permission denied on the device nodes, ...
// `registration` and `moderation` are the same for all of them; a device without type 2 memory windows gets a pool, one
// that cannot moderate does not, and the log says so.
Result<std::unique_ptr<Fabric>> make_verbs_fabric(reactor::Executor& executor,
                                                  Registration registration = Registration::pool,
                                                  CompletionModeration moderation = {});

// The ports of this machine, whether or not a fabric exists; empty when there is no RDMA device.
std::vector<LocalPort> verbs_local_ports();

}  // namespace srpfs::fabric
