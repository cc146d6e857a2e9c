// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What happened, one JSON object a line, for MNT/events, where reading waits for the next line, and MNT/events.log,
// which has those that are kept. Control thread.

#pragma once

#include <srpfs/fs/control_file.h>

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace srpfs::daemon {

// Wall-clock time for people ("2026-01-31T23:59:59.123Z"); nothing is decided by it.
std::string utc_now();

class EventLog {
public:
    // Adds {"schema":1,"sequence":N,"time":"...","event":name, ...details}. Readers that wait get it.
    void add(std::string_view name, const nlohmann::json& details);
    [[nodiscard]] std::uint64_t count() const { return first_ + lines_.size(); }
    // How many there were of each kind that has occurred.
    [[nodiscard]] const std::map<std::string, std::uint64_t, std::less<>>& counts() const { return counts_; }

    // The first reader position of a new handle is the end: it sees what happens from now on.
    [[nodiscard]] std::uint64_t end() const { return count(); }
    void read_next(std::shared_ptr<std::uint64_t> cursor, std::size_t bytes_max, std::shared_ptr<fs::PendingCall> call);
    // All lines there are, the oldest first.
    [[nodiscard]] std::string text() const;
    // Ends all waiting reads with an empty answer (end of file).
    void close();

private:
    struct Reader {
        std::shared_ptr<std::uint64_t> cursor;
        std::size_t bytes_max = 0;
        std::shared_ptr<fs::PendingCall> call;
    };
    // True: answered.
    bool serve(const Reader& reader);

    std::deque<std::string> lines_;  // with newline; the latest events_kept
    std::uint64_t first_ = 0;        // sequence number of lines_.front()
    std::map<std::string, std::uint64_t, std::less<>> counts_;
    std::vector<std::shared_ptr<Reader>> waiting_;
    bool closed_ = false;
};

}  // namespace srpfs::daemon
