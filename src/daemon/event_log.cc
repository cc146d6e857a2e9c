// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "event_log.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cerrno>

#include <time.h>

namespace srpfs::daemon {
namespace {

constexpr std::size_t events_kept = 4096;

}  // namespace

std::string utc_now() {
    timespec now{};
    clock_gettime(CLOCK_REALTIME, &now);
    tm parts{};
    gmtime_r(&now.tv_sec, &parts);
    return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                       parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec, now.tv_nsec / 1000000);
}

void EventLog::add(std::string_view name, const nlohmann::json& details) {
    ++counts_.try_emplace(std::string(name)).first->second;
    nlohmann::ordered_json event;
    event["schema"] = 1;
    event["sequence"] = count();
    event["time"] = utc_now();
    event["event"] = name;
    for (const auto& [key, value] : details.items()) event[key] = value;
    lines_.push_back(event.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace) + "\n");
    if (lines_.size() > events_kept) {
        lines_.pop_front();
        ++first_;
    }
    std::vector<std::shared_ptr<Reader>> waiting;
    waiting.swap(waiting_);
    for (auto& reader : waiting)
        if (!serve(*reader)) waiting_.push_back(std::move(reader));
}

bool EventLog::serve(const Reader& reader) {
    std::uint64_t& cursor = *reader.cursor;
    cursor = std::max(cursor, first_);  // a slow reader misses what has been dropped; sequence shows it
    std::string text;
    while (cursor < count()) {
        const std::string& line = lines_[cursor - first_];
        if (!text.empty() && text.size() + line.size() > reader.bytes_max) break;
        if (line.size() > reader.bytes_max) {
            reader.call->fail(EMSGSIZE);
            return true;
        }
        text += line;
        ++cursor;
    }
    if (text.empty()) return false;
    reader.call->succeed_with(std::move(text));
    return true;
}

void EventLog::read_next(std::shared_ptr<std::uint64_t> cursor, std::size_t bytes_max,
                         std::shared_ptr<fs::PendingCall> call) {
    auto reader = std::make_shared<Reader>(Reader{std::move(cursor), bytes_max, std::move(call)});
    if (serve(*reader)) return;
    if (closed_) return reader->call->succeed_with({});  // the end: he has read everything
    if (reader->call->nonblocking()) return reader->call->fail(EAGAIN);
    waiting_.push_back(reader);
    reader->call->on_interrupt([this, weak = std::weak_ptr(reader)] {
        const auto gone = weak.lock();
        if (!gone) return;
        std::erase(waiting_, gone);
        gone->call->fail(EINTR);
    });
}

std::string EventLog::text() const {
    std::string all;
    for (const std::string& line : lines_) all += line;
    return all;
}

void EventLog::close() {
    closed_ = true;
    for (const auto& reader : std::exchange(waiting_, {})) reader->call->succeed_with({});
}

}  // namespace srpfs::daemon
