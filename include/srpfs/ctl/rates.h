// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// What happens in a second, from what has been counted so far: srpctl top. Pure; whoever looks says when.

#pragma once

#include <srpfs/ctl/render.h>

#include <deque>
#include <map>
#include <memory>
#include <string>

namespace srpfs::ctl {

class Rates {
public:
    Rates();
    ~Rates();

    // A survey(), and when it was made, in seconds of any clock that only goes forward.
    void add(const Json& mount, double seconds);

    // From the second survey on.
    [[nodiscard]] bool is_ready() const { return frame_ != nullptr; }

    // {"schema": 1, "mount", "seconds" (between the two), "requests_pending", "targets": [{"path", "state", "channels",
    // "req_lim", "requests_pending", "credits", "in_flight", "commands_per_second", "waits_per_second",
    // "reads_per_second", ..., "read_p50_us", ..., "channel_list", "luns": [{"path", "state", "requests_pending",
    // "in_flight", "reads_per_second", ..., "read_p50_us", ...}]}]}. Latencies are of what has ended between the two.
    // Rates of what was not there before, or has begun anew, are null; those of a target are its units' together. A
    // channel has "commands_per_second", "bytes_read_per_second" and so on, "read_p50_us" ..., and "p50_us" ... of
    // reads and writes together.
    [[nodiscard]] const Json& frame() const { return *frame_; }

    // For people: a line about the whole, tables of targets, of channels where there are several, and of LUNs, the
    // busiest first, with pictures of how many requests they had lately. At most as many lines as the screen has, if it
    // has a height. Others: json in one line, plain as stats has it.
    [[nodiscard]] std::string text(Format format, const Screen& screen) const;

private:
    [[nodiscard]] std::string plain() const;
    [[nodiscard]] std::string table(const Screen& screen) const;
    void remember(const std::string& path, double rate);
    [[nodiscard]] std::string lately(const std::string& path, Charset charset) const;

    std::unique_ptr<Json> before_;  // a stats_document()
    double before_seconds_ = 0;
    std::unique_ptr<Json> frame_;
    // Of each LUN's path, and commands of each target and channel: per second, the latest last.
    std::map<std::string, std::deque<double>> requests_;
};

// One character for each value, in eighths of the largest; a value of 0 is the lowest.
std::string sparkline(const std::deque<double>& values, Charset charset);

}  // namespace srpfs::ctl
