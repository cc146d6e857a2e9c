// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What the journal is told: through its socket, or through the stream that standard error is.

#pragma once

#include "sink.h"

#include <string_view>

namespace srpfs::log {

[[nodiscard]] int syslog_priority(Level level);

class Journal final : public Sink {
public:
    // -1: without its socket. `stream`: standard error, as it is for a service; gets what the socket does not exist
    // for.
    Journal(int socket, int stream) : Sink("the journal"), socket_(socket), stream_(stream) {}

private:
    bool send(Level level, std::string_view subject, std::string_view message) override;

    const int socket_, stream_;
};

}  // namespace srpfs::log
