// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// RDMA through librdmacm and libibverbs: AF_INET/AF_INET6 (RDMA_PS_TCP) and AF_IB (RDMA_PS_IB).

#pragma once

#include <srpfs/fabric/fabric.h>
#include <srpfs/reactor/executor.h>

namespace srpfs::fabric {

// One fabric for one reactor. Blocking calls (memory registration, destroying ids and queue pairs) run on worker
// threads; their results come back through `executor`. All fabrics of a process share the opened devices, protection
// domains and registered regions. Error: librdmacm or the kernel modules are missing (errno ENODEV/ENOENT) with the
// reason and what to load, permission denied on the device nodes, ...
// `registration` is the same for all of them; a device without type 2 memory windows gets a pool, and the log says so.
Result<std::unique_ptr<Fabric>> make_verbs_fabric(reactor::Executor& executor,
                                                  Registration registration = Registration::pool);

// The ports of this machine, whether or not a fabric exists; empty when there is no RDMA device.
std::vector<LocalPort> verbs_local_ports();

}  // namespace srpfs::fabric
