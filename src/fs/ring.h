// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Requests through an io_uring of the reactor's own, beside the descriptor: each of the ring's entries is a place for
// one request, with a payload in registered memory (Engine::entry), and is the kernel's again when it is answered.
// FORGET and INTERRUPT never come this way, nor does anything before the entries are registered.

#pragma once

#include "intake.h"

#include <srpfs/base/result.h>
#include <srpfs/reactor/sleeper.h>

#include <memory>
#include <string>

namespace srpfs::fs {

class Ring : public Intake, public reactor::Sleeper {
public:
    // On the reactor's thread, once INIT has been answered: gives the entries to the kernel. `fd`, the channel's
    // descriptor, stays open until close(). An Error: the kernel has refused so many that this ring is of no use, and
    // sends everything to the descriptor; the ring is closed.
    virtual Result<void> start(int fd) = 0;
    // Hands over this turn's answers, and lets requests come.
    virtual void flush() = 0;
    // The kernel has all answers that it was given; it may take another flush().
    [[nodiscard]] virtual bool is_flushed() const = 0;
    // False: something has come. Whoever is open after it has to wait through wait_for(): nothing else is woken by what
    // comes to the ring.
    [[nodiscard]] virtual bool prepare_to_sleep() = 0;
    // The descriptor has something to read, as far as is known. After all of that: have it watched.
    [[nodiscard]] virtual bool descriptor_is_ready() const = 0;
    virtual void watch_descriptor() = 0;
    // Whether the thread that waits for the request in this occupied entry has been killed. Reads a file of /proc.
    [[nodiscard]] virtual bool requester_was_killed(std::uint16_t slot) const = 0;
};

// Queues that the kernel has: one for each CPU that may ever be there.
[[nodiscard]] unsigned ring_queues();

// Why no ring can be had, in words to finish a sentence with; empty if nothing is known against it. Costs some system
// calls.
[[nodiscard]] std::string ring_obstacle();

// A ring for all entries of the engine, dealt to the queues in turn. On any thread; used and closed on the reactor's.
// `engine` outlives it.
[[nodiscard]] Result<std::unique_ptr<Ring>> make_ring(lun::Engine& engine, unsigned queues);

}  // namespace srpfs::fs
