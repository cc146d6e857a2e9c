// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/rates.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <vector>

namespace srpfs::ctl {
namespace {

constexpr std::size_t history_max = 10;

struct Rate {
    const char* name;
    const char* counter;
};
constexpr Rate target_rates[] = {{"commands_per_second", "commands"}, {"waits_per_second", "zero_req_lim"}};
constexpr Rate lun_rates[] = {{"reads_per_second", "reads"},
                              {"writes_per_second", "writes"},
                              {"flushes_per_second", "flushes"},
                              {"bytes_read_per_second", "bytes_read"},
                              {"bytes_written_per_second", "bytes_written"},
                              {"errors_per_second", "errors"},
                              {"retries_per_second", "retries"}};

const Json& member(const Json& object, const char* name) {
    static const Json none;
    if (!object.is_object()) return none;
    const auto found = object.find(name);
    return found == object.end() ? none : *found;
}

const Json& with_path(const Json& list, const Json& path) {
    static const Json none;
    for (const Json& one : list)
        if (member(one, "path") == path) return one;
    return none;
}

Json rate_of(const Json& before, const Json& after, double seconds) {
    if (!before.is_number() || !after.is_number() || seconds <= 0) return nullptr;
    const double more = after.get<double>() - before.get<double>();
    return more < 0 ? Json(nullptr) : Json(std::round(more / seconds * 10) / 10);
}

// What so large a part of the requests between two looks took at most, in microseconds; null if there were none.
Json percentile_of(const Json& before, const Json& after, double part) {
    std::map<std::uint64_t, std::int64_t> counts;  // by the time they took less than
    std::int64_t total = 0;
    for (const auto& [buckets, sign] :
         {std::pair{&member(after, "buckets_us"), 1}, {&member(before, "buckets_us"), -1}})
        for (const Json& pair : *buckets) {
            if (!pair.is_array() || pair.size() != 2 || !pair[0].is_number() || !pair[1].is_number()) return nullptr;
            counts[pair[0].get<std::uint64_t>()] += sign * pair[1].get<std::int64_t>();
            total += sign * pair[1].get<std::int64_t>();
        }
    const auto wanted = static_cast<std::int64_t>(std::ceil(static_cast<double>(total) * part));
    std::int64_t seen = 0;
    for (const auto& [limit, count] : counts) {
        if (count < 0) return nullptr;  // it has begun anew
        seen += count;
        if (total > 0 && seen >= wanted) return limit;
    }
    return nullptr;
}

double number_in(const Json& object, const char* name) {
    const Json& value = member(object, name);
    return value.is_number() ? value.get<double>() : 0;
}

std::string rate_text(const Json& object, const char* name) {
    const Json& value = member(object, name);
    return value.is_number() ? fmt::format("{:.0f}", value.get<double>()) : "-";
}

// In units of a million bytes, as fio and iostat -m of today do.
std::string megabytes_text(const Json& object, const char* name) {
    const Json& value = member(object, name);
    return value.is_number() ? fmt::format("{:.1f}", value.get<double>() / 1e6) : "-";
}

std::string time_text(const Json& object, const char* name) {
    const Json& value = member(object, name);
    return value.is_number() ? human_microseconds(value.get<std::uint64_t>()) : "-";
}

std::string plain_text(const Json& value) {
    return value.is_string() ? value.get<std::string>() : value.is_null() ? "-" : value.dump();
}

Cell state_cell(const Json& object) {
    const std::string state = plain_text(member(object, "state"));
    return {state, state == "running" ? Paint::good : state == "blocked" ? Paint::warning : Paint::bad};
}

std::string below(const std::string& path, const std::string& root) {
    return path.starts_with(root + "/") ? path.substr(root.size() + 1) : path;
}

double requests_of(const Json& lun) { return number_in(lun, "reads_per_second") + number_in(lun, "writes_per_second"); }

std::string first_lines(const std::string& text, std::size_t count) {
    std::size_t end = 0;
    for (std::size_t i = 0; i < count && end < text.size(); ++i)
        end = std::min(text.find('\n', end), text.size() - 1) + 1;
    return text.substr(0, end);
}

}  // namespace

std::string sparkline(const std::deque<double>& values, Charset charset) {
    constexpr std::array in_utf8 = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    constexpr std::array in_ascii = {"_", ".", ":", "-", "=", "+", "*", "#"};
    const auto& levels = charset == Charset::utf8 ? in_utf8 : in_ascii;
    const double largest = values.empty() ? 0 : *std::max_element(values.begin(), values.end());
    std::string text;
    for (const double value : values) {
        const double part = largest > 0 ? value / largest * static_cast<double>(levels.size()) : 0;
        const auto level = static_cast<std::size_t>(std::ceil(part));
        text += levels[std::clamp<std::size_t>(level, 1, levels.size()) - 1];
    }
    return text;
}

Rates::Rates() = default;
Rates::~Rates() = default;

void Rates::remember(const std::string& path, double rate) {
    auto& history = requests_[path];
    history.push_back(rate);
    if (history.size() > history_max) history.pop_front();
}

void Rates::add(const Json& mount, double seconds) {
    const Json stats = stats_document(mount);
    if (before_) {
        const double passed = seconds - before_seconds_;
        Json frame;
        frame["schema"] = json_schema;
        frame["mount"] = member(stats, "mount");
        frame["seconds"] = std::round(passed * 1000) / 1000;
        frame["requests_pending"] = member(stats, "requests_pending");
        frame["targets"] = Json::array();
        std::set<std::string> seen;
        for (const Json& target : member(stats, "targets")) {
            const Json& earlier = with_path(member(*before_, "targets"), member(target, "path"));
            Json one;
            for (const char* name : {"path", "state", "channels", "req_lim"}) one[name] = member(target, name);
            for (const Rate& rate : target_rates)
                one[rate.name] = rate_of(member(earlier, rate.counter), member(target, rate.counter), passed);
            one["channel_list"] = Json::array();
            for (const Json& channel : member(target, "channel_list")) {
                Json each;
                for (const char* name : {"index", "state", "credits", "in_flight"}) each[name] = member(channel, name);
                const Json* was = nullptr;
                for (const Json& other : member(earlier, "channel_list"))
                    if (member(other, "index") == member(channel, "index")) was = &other;
                each["commands_per_second"] =
                    was ? rate_of(member(*was, "commands"), member(channel, "commands"), passed) : Json(nullptr);
                one["channel_list"].push_back(std::move(each));
            }
            const std::string target_path = plain_text(member(target, "path"));
            remember(target_path, number_in(one, "commands_per_second"));
            seen.insert(target_path);
            one["luns"] = Json::array();
            for (const Json& lun : member(target, "luns")) {
                const Json& lun_before = with_path(member(earlier, "luns"), member(lun, "path"));
                const Json& counted = member(lun_before, "counters");
                Json each{{"path", member(lun, "path")}, {"state", member(lun, "state")}};
                for (const Rate& rate : lun_rates)
                    each[rate.name] =
                        rate_of(member(counted, rate.counter), member(member(lun, "counters"), rate.counter), passed);
                for (const char* operation : {"read", "write"}) {
                    const Json& now = member(member(lun, "latency"), operation);
                    const Json& then = member(member(lun_before, "latency"), operation);
                    for (const auto& [name, part] : {std::pair{"p50", 0.5}, {"p99", 0.99}, {"p999", 0.999}})
                        each[fmt::format("{}_{}_us", operation, name)] =
                            lun_before.is_object() ? percentile_of(then, now, part) : Json(nullptr);
                }
                const std::string path = plain_text(member(lun, "path"));
                remember(path, requests_of(each));
                seen.insert(path);
                one["luns"].push_back(std::move(each));
            }
            frame["targets"].push_back(std::move(one));
        }
        std::erase_if(requests_, [&](const auto& entry) { return !seen.contains(entry.first); });
        frame_ = std::make_unique<Json>(std::move(frame));
    }
    before_ = std::make_unique<Json>(stats);
    before_seconds_ = seconds;
}

std::string Rates::lately(const std::string& path, Charset charset) const {
    const auto history = requests_.find(path);
    return history == requests_.end() ? "" : sparkline(history->second, charset);
}

std::string Rates::text(Format format, const Screen& screen) const {
    if (format == Format::json) return frame_->dump(-1, ' ', true, Json::error_handler_t::replace) + "\n";
    const std::string root = plain_text(member(*frame_, "mount"));
    std::vector<std::pair<const Json*, std::string>> luns;  // and where they are
    std::string text;
    for (const Json& target : member(*frame_, "targets")) {
        if (format == Format::plain)
            for (const Rate& rate : target_rates)
                text += fmt::format("{}\t{}\t{}\n", printable(plain_text(member(target, "path")), Charset::utf8),
                                    rate.name, plain_text(member(target, rate.name)));
        for (const Json& lun : member(target, "luns")) {
            luns.emplace_back(&lun, plain_text(member(lun, "path")));
            if (format == Format::plain)
                for (const Rate& rate : lun_rates)
                    text += fmt::format("{}\t{}\t{}\n", printable(luns.back().second, Charset::utf8), rate.name,
                                        plain_text(member(lun, rate.name)));
        }
    }
    if (format == Format::plain) return text;

    std::stable_sort(luns.begin(), luns.end(),
                     [](const auto& a, const auto& b) { return requests_of(*a.first) > requests_of(*b.first); });
    double reads = 0, writes = 0, read = 0, written = 0;
    using Align = Column::Align;
    Table targets({{"TARGET", Align::left, 17, Cut::middle},
                   {"STATE"},
                   {"CHANNELS", Align::right, 0, Cut::end, 1},
                   {"CREDITS", Align::right},
                   {"COMMANDS/S", Align::right},
                   {"WAITS/S", Align::right, 0, Cut::end, 2},
                   {"LATELY", Align::left, 0, Cut::end, 3}});
    Table channels({{"TARGET", Align::left, 17, Cut::middle},
                    {"CHANNEL", Align::right},
                    {"STATE"},
                    {"CREDITS", Align::right},
                    {"IN FLIGHT", Align::right},
                    {"COMMANDS/S", Align::right}});
    std::size_t channel_count = 0;
    for (const Json& target : member(*frame_, "targets"))
        targets.add({{below(plain_text(member(target, "path")), root)},
                     state_cell(target),
                     {plain_text(member(target, "channels"))},
                     {plain_text(member(target, "req_lim"))},
                     {rate_text(target, "commands_per_second")},
                     {rate_text(target, "waits_per_second")},
                     {lately(plain_text(member(target, "path")), screen.charset)}});
    for (const Json& target : member(*frame_, "targets"))
        for (const Json& channel : member(target, "channel_list")) {
            ++channel_count;
            channels.add({{below(plain_text(member(target, "path")), root)},
                          {plain_text(member(channel, "index"))},
                          {plain_text(member(channel, "state")),
                           plain_text(member(channel, "state")) == "live" ? Paint::good : Paint::warning},
                          {plain_text(member(channel, "credits"))},
                          {plain_text(member(channel, "in_flight"))},
                          {rate_text(channel, "commands_per_second")}});
        }
    Table table({{"LUN", Align::left, 17, Cut::middle},
                 {"STATE", Align::left, 0, Cut::end, 5},
                 {"READS/S", Align::right},
                 {"MB/S", Align::right, 0, Cut::end, 1},
                 {"WRITES/S", Align::right},
                 {"MB/S", Align::right, 0, Cut::end, 1},
                 {"READ P99", Align::right, 0, Cut::end, 3},
                 {"WRITE P99", Align::right, 0, Cut::end, 3},
                 {"ERRORS/S", Align::right, 0, Cut::end, 2},
                 {"LATELY", Align::left, 0, Cut::end, 4}});
    for (const auto& [lun, path] : luns) {
        reads += number_in(*lun, "reads_per_second");
        writes += number_in(*lun, "writes_per_second");
        read += number_in(*lun, "bytes_read_per_second");
        written += number_in(*lun, "bytes_written_per_second");
        table.add({{below(path, root)},
                   state_cell(*lun),
                   {rate_text(*lun, "reads_per_second")},
                   {megabytes_text(*lun, "bytes_read_per_second")},
                   {rate_text(*lun, "writes_per_second")},
                   {megabytes_text(*lun, "bytes_written_per_second")},
                   {time_text(*lun, "read_p99_us")},
                   {time_text(*lun, "write_p99_us")},
                   {rate_text(*lun, "errors_per_second"),
                    number_in(*lun, "errors_per_second") > 0 ? Paint::bad : Paint::none},
                   {lately(path, screen.charset)}});
    }
    const std::string sums =
        fmt::format(": {:.0f} reads/s ({:.1f} MB/s), {:.0f} writes/s ({:.1f} MB/s), requests pending: {}", reads,
                    read / 1e6, writes, written / 1e6, plain_text(member(*frame_, "requests_pending")));
    std::string place = printable(root, screen.charset);
    // The numbers stay whole as long as they can.
    if (screen.width != 0 && place.size() + sums.size() > screen.width)
        place = shortened(place, std::max<std::size_t>(screen.width - std::min(screen.width, sums.size()), 8),
                          Cut::middle, screen.charset);
    text = (screen.width == 0 ? place + sums : shortened(place + sums, screen.width, Cut::end, screen.charset)) + "\n";
    // Channels are of interest where there are several, and room for the LUNs is left.
    const bool shows_channels = channel_count > member(*frame_, "targets").size() &&
                                (screen.height == 0 || channel_count + 2 <= screen.height / 3);
    for (const Table* each : {&targets, &channels, &table})
        if (!each->is_empty() && (each != &channels || shows_channels)) text += "\n" + each->text(screen);
    return screen.height == 0 ? text : first_lines(text, screen.height);
}

}  // namespace srpfs::ctl
