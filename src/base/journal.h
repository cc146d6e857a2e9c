// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What the journal is told: through its socket, or through the stream that standard error is.

#pragma once

#include <srpfs/base/log.h>

#include <atomic>
#include <cstdint>
#include <string_view>

namespace srpfs::log {

[[nodiscard]] int syslog_priority(Level level);

// Whoever writes does not wait: the journal may have to write to one of our own units before it takes more. Messages
// that it has no room for are lost, and it is told how many as soon as it has.
class Journal {
public:
    // -1: without its socket. `stream`: standard error, as it is for a service; gets what the socket does not exist
    // for.
    Journal(int socket, int stream) : socket_(socket), stream_(stream) {}

    // On any thread.
    void write(Level level, std::string_view subject, std::string_view message);

private:
    // False: it has no room.
    bool send(Level level, std::string_view subject, std::string_view message) const;

    const int socket_, stream_;
    std::atomic<std::uint64_t> lost_{0};  // not yet told
};

}  // namespace srpfs::log
