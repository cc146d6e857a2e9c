// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// A Device as seen from one reactor: listens on a fabric, keeps the channels logged in there, carries out their
// commands. Uses nothing but the Fabric interface, so it runs over loopback and verbs alike.

#pragma once

#include <srpfs/base/result.h>
#include <srpfs/fabric/fabric.h>
#include <srpfs/reactor/executor.h>
#include <srpfs/target/device.h>

#include <cstddef>
#include <memory>

namespace srpfs::target {

// How many registered buffers of each size there are for data on its way. Memory is touched only when used (but pinned
// at once by a verbs fabric). A command that finds none waits.
struct StagingConfig {
    unsigned buffers_16k = 256;
    unsigned buffers_128k = 64;
    unsigned buffers_1m = 24;
    unsigned buffers_8m = 3;
};

// Everything on the thread of its executor and fabric. Its work is done inside Fabric::poll(), timers and posted work.
class Portal {
public:
    virtual ~Portal() = default;  // is_closed() must be true
    // Stops listening, disconnects all channels, forgets commands in flight. Takes turns of the fabric to complete.
    virtual void close() = 0;
    [[nodiscard]] virtual bool is_closed() const = 0;
    [[nodiscard]] virtual std::size_t channels() const = 0;
    // Commands being carried out, those of ended channels included.
    [[nodiscard]] virtual std::size_t commands() const = 0;
};

// The login form follows the address: 64 bytes for IbAddress, 56 otherwise. `device`, `executor` and `fabric` outlive
// the portal. Registers memory with the fabric. Errors: those of listen() and of registering memory.
Result<std::unique_ptr<Portal>> make_portal(Device& device, reactor::Executor& executor, fabric::Fabric& fabric,
                                            const fabric::Address& address, const StagingConfig& staging = {});

}  // namespace srpfs::target
