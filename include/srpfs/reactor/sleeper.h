// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// How a reactor's thread waits when there is nothing to do: ppoll(2), or what a source has that waits for more than
// descriptors.

#pragma once

#include <srpfs/base/instant.h>

#include <optional>
#include <span>

struct pollfd;

namespace srpfs::reactor {

class Sleeper {
public:
    virtual ~Sleeper() = default;
    // On the reactor's thread. Returns when one of the descriptors is readable, which its `revents` tells then, when
    // `most` is over (nullopt: never), when something has come that the source of this sleeper finds in its poll(), or
    // for no reason. How many of them are readable; negative, with errno: nothing is known.
    virtual int wait_for(std::span<pollfd> polled, std::optional<Duration> most) = 0;
};

}  // namespace srpfs::reactor
