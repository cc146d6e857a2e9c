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
constexpr const char* timed_operations[] = {"read", "write"};
constexpr Rate channel_rates[] = {{"commands_per_second", "commands"},
                                  {"bytes_read_per_second", "bytes_read"},
                                  {"bytes_written_per_second", "bytes_written"},
                                  {"errors_per_second", "errors"}};
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

// How many requests there were, by the time in microseconds that they took less than.
using Buckets = std::map<std::uint64_t, std::int64_t>;

// Of those that ended between two looks; none if what was counted has begun anew, or is not understood.
Buckets ended_between(const Json& before, const Json& after) {
    Buckets counts;
    for (const auto& [buckets, sign] :
         {std::pair{&member(after, "buckets_us"), 1}, {&member(before, "buckets_us"), -1}})
        for (const Json& pair : *buckets) {
            if (!pair.is_array() || pair.size() != 2 || !pair[0].is_number() || !pair[1].is_number()) return {};
            counts[pair[0].get<std::uint64_t>()] += sign * pair[1].get<std::int64_t>();
        }
    const bool has_begun_anew =
        std::any_of(counts.begin(), counts.end(), [](const auto& bucket) { return bucket.second < 0; });
    return has_begun_anew ? Buckets{} : counts;
}

// What so large a part of them took at most; null if there were none.
Json percentile_of(const Buckets& counts, double part) {
    std::int64_t total = 0, seen = 0;
    for (const auto& [limit, count] : counts) total += count;
    const auto wanted = static_cast<std::int64_t>(std::ceil(static_cast<double>(total) * part));
    for (const auto& [limit, count] : counts)
        if ((seen += count) >= wanted && total > 0) return limit;
    return nullptr;
}

// `prefix`: "read_", or nothing.
void add_percentiles(Json& to, const std::string& prefix, const Buckets& counts) {
    for (const auto& [name, part] : {std::pair{"p50", 0.5}, {"p99", 0.99}, {"p999", 0.999}})
        to[fmt::format("{}{}_us", prefix, name)] = percentile_of(counts, part);
}

// What is known of it in the parts of `list`, together; null if there are parts and nothing is.
Json sum_of(const Json& list, const char* name) {
    Json sum = list.is_array() && list.empty() ? Json(0) : Json(nullptr);
    for (const Json& one : list) {
        const Json& value = member(one, name);
        if (value.is_number_integer() && !sum.is_number_float())
            sum = (sum.is_null() ? 0 : sum.get<std::int64_t>()) + value.get<std::int64_t>();
        else if (value.is_number())
            sum = std::round(((sum.is_null() ? 0 : sum.get<double>()) + value.get<double>()) * 10) / 10;
    }
    return sum;
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
std::string megabytes_text(const Json& value) {
    if (!value.is_number()) return "-";
    const double megabytes = value.get<double>() / 1e6;
    return megabytes < 99.95 ? fmt::format("{:.1f}", megabytes) : fmt::format("{:.0f}", megabytes);
}

std::string megabytes_text(const Json& object, const char* name) { return megabytes_text(member(object, name)); }

// Bytes in a second, both ways; null if neither is known.
Json carried_by(const Json& channel) {
    const Json &read = member(channel, "bytes_read_per_second"), &written = member(channel, "bytes_written_per_second");
    return read.is_number() && written.is_number() ? Json(read.get<double>() + written.get<double>()) : Json(nullptr);
}

std::string time_text(const Json& object, const char* name) {
    const Json& value = member(object, name);
    return value.is_number() ? human_microseconds(value.get<std::uint64_t>()) : "-";
}

std::string plain_text(const Json& value) {
    return value.is_string() ? value.get<std::string>() : value.is_null() ? "-" : value.dump();
}

Cell state_cell(const Json& object) {
    const std::string state = shown_state(object);
    return {state, state == "running" ? Paint::good : state == "blocked" ? Paint::warning : Paint::bad};
}

std::string below(const std::string& path, const std::string& root) {
    return path.starts_with(root + "/") ? path.substr(root.size() + 1) : path;
}

// What is remembered of a channel goes by this; nothing in the tree has such a name.
std::string channel_name(const std::string& target, const Json& channel) {
    return fmt::format("{}/channel {}", target, plain_text(member(channel, "index")));
}

double requests_of(const Json& lun) { return number_in(lun, "reads_per_second") + number_in(lun, "writes_per_second"); }

std::string first_lines(const std::string& text, std::size_t count) {
    std::size_t end = 0;
    for (std::size_t i = 0; i < count && end < text.size(); ++i)
        end = std::min(text.find('\n', end), text.size() - 1) + 1;
    return text.substr(0, end);
}

// One that is ending may still be there beside the one that takes its place.
bool has_successor(const Json& channel, const Json& channels) {
    const auto is_ending = [](const Json& one) {
        return member(one, "state") == "dead" || member(one, "state") == "draining";
    };
    return is_ending(channel) && std::any_of(channels.begin(), channels.end(), [&](const Json& other) {
               return member(other, "index") == member(channel, "index") && !is_ending(other);
           });
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
            const Json& luns = member(target, "luns");
            Json one;
            for (const char* name : {"path", "state", "channels", "req_lim"}) one[name] = member(target, name);
            one["requests_pending"] = sum_of(luns, "requests_pending");
            std::int64_t credits = 0;
            for (const Json& channel : member(target, "channel_list"))
                if (member(channel, "state") == "live" && member(channel, "credits").is_number())
                    credits += member(channel, "credits").get<std::int64_t>();
            one["credits"] = credits;
            one["in_flight"] = sum_of(member(target, "channel_list"), "in_flight");
            for (const Rate& rate : target_rates)
                one[rate.name] = rate_of(member(earlier, rate.counter), member(target, rate.counter), passed);
            const std::string target_path = plain_text(member(target, "path"));
            remember(target_path, number_in(one, "commands_per_second"));
            seen.insert(target_path);
            Json channels = Json::array(), units = Json::array();
            for (const Json& channel : member(target, "channel_list")) {
                if (has_successor(channel, member(target, "channel_list"))) continue;
                Json each;
                for (const char* name : {"index", "state", "credits", "credits_initial", "in_flight"})
                    each[name] = member(channel, name);
                const Json* was = nullptr;
                for (const Json& other : member(earlier, "channel_list"))
                    if (member(other, "index") == member(channel, "index")) was = &other;
                for (const Rate& rate : channel_rates)
                    each[rate.name] = was ? rate_of(member(*was, rate.counter), member(channel, rate.counter), passed)
                                          : Json(nullptr);
                Buckets of_channel;
                for (const char* operation : timed_operations) {
                    Buckets ended;
                    if (was)
                        ended = ended_between(member(member(*was, "latency"), operation),
                                              member(member(channel, "latency"), operation));
                    add_percentiles(each, fmt::format("{}_", operation), ended);
                    for (const auto& [limit, count] : ended) of_channel[limit] += count;
                }
                add_percentiles(each, "", of_channel);
                const std::string name = channel_name(target_path, each);
                remember(name, number_in(each, "commands_per_second"));
                seen.insert(name);
                channels.push_back(std::move(each));
            }
            std::map<std::string, Buckets> of_target;
            for (const Json& lun : luns) {
                const Json& lun_before = with_path(member(earlier, "luns"), member(lun, "path"));
                const Json& counted = member(lun_before, "counters");
                Json each;
                for (const char* name : {"path", "state", "target_state", "requests_pending", "in_flight"})
                    each[name] = member(lun, name);
                for (const Rate& rate : lun_rates)
                    each[rate.name] =
                        rate_of(member(counted, rate.counter), member(member(lun, "counters"), rate.counter), passed);
                for (const char* operation : timed_operations) {
                    Buckets ended;
                    if (lun_before.is_object())
                        ended = ended_between(member(member(lun_before, "latency"), operation),
                                              member(member(lun, "latency"), operation));
                    add_percentiles(each, fmt::format("{}_", operation), ended);
                    for (const auto& [limit, count] : ended) of_target[operation][limit] += count;
                }
                const std::string path = plain_text(member(lun, "path"));
                remember(path, requests_of(each));
                seen.insert(path);
                units.push_back(std::move(each));
            }
            for (const Rate& rate : lun_rates) one[rate.name] = sum_of(units, rate.name);
            for (const char* operation : timed_operations)
                add_percentiles(one, fmt::format("{}_", operation), of_target[operation]);
            one["channel_list"] = std::move(channels);
            one["luns"] = std::move(units);
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
    return format == Format::plain ? plain() : table(screen);
}

std::string Rates::plain() const {
    std::string text;
    const auto add = [&](const Json& path, const std::string& prefix, const Json& object) {
        for (const auto& [name, value] : object.items())
            if (name != "path" && name != "index" && !value.is_structured())
                text += fmt::format("{}\t{}{}\t{}\n", printable(plain_text(path), Charset::utf8), prefix, name,
                                    plain_text(value));
    };
    for (const char* name : {"seconds", "requests_pending"})
        add(member(*frame_, "mount"), "", Json{{name, member(*frame_, name)}});
    for (const Json& target : member(*frame_, "targets")) {
        add(member(target, "path"), "", target);
        for (const Json& channel : member(target, "channel_list"))
            add(member(target, "path"), fmt::format("channel.{}.", plain_text(member(channel, "index"))), channel);
        for (const Json& lun : member(target, "luns")) add(member(lun, "path"), "", lun);
    }
    return text;
}

std::string Rates::table(const Screen& screen) const {
    const std::string root = plain_text(member(*frame_, "mount"));
    std::vector<std::pair<const Json*, std::string>> luns;  // and where they are
    double reads = 0, writes = 0, read = 0, written = 0;
    using Align = Column::Align;
    // Beside READS/S and WRITES/S, and what goes before others when there is no room.
    const auto times_of = [](unsigned dropped, unsigned dropped_first) {
        return std::vector<Column>{{"P50", Align::right, 0, Cut::end, dropped_first},
                                   {"P99", Align::right, 0, Cut::end, dropped},
                                   {"P99.9", Align::right, 0, Cut::end, dropped_first}};
    };
    const auto joined = [](std::initializer_list<std::vector<Column>> some) {
        std::vector<Column> all;
        for (const auto& columns : some) all.insert(all.end(), columns.begin(), columns.end());
        return all;
    };
    Table targets(joined({{{"TARGET", Align::left, 17, Cut::middle},
                           {"STATE"},
                           {"CHANNELS", Align::right, 0, Cut::end, 8},
                           {"QUEUE", Align::right, 0, Cut::end, 3},
                           {"IN FLIGHT", Align::right, 0, Cut::end, 2},
                           {"CREDITS", Align::right},
                           {"WAITS/S", Align::right, 0, Cut::end, 6},
                           {"COMMANDS/S", Align::right},
                           {"READ MB/S", Align::right, 0, Cut::end, 7}},
                          times_of(9, 10),
                          {{"WRITE MB/S", Align::right, 0, Cut::end, 7}},
                          times_of(9, 10),
                          {{"LATELY", Align::left, 0, Cut::end, 4}}}));
    Table channels({{"TARGET", Align::left, 17, Cut::middle},
                    {"CHANNEL", Align::right},
                    {"STATE"},
                    {"IN FLIGHT", Align::right, 0, Cut::end, 3},
                    {"CREDITS", Align::right},
                    {"OF", Align::right, 0, Cut::end, 4},
                    {"COMMANDS/S", Align::right},
                    {"MB/S", Align::right, 0, Cut::end, 1},
                    {"P50", Align::right, 0, Cut::end, 5},
                    {"P99", Align::right, 0, Cut::end, 1},
                    {"P99.9", Align::right, 0, Cut::end, 5},
                    {"LATELY", Align::left, 0, Cut::end, 2}});
    // Errors are of interest when there are any.
    bool has_errors = false;
    for (const Json& target : member(*frame_, "targets"))
        has_errors = has_errors || number_in(target, "errors_per_second") > 0;
    Table table(joined(
        {{{"LUN", Align::left, 17, Cut::middle},
          {"STATE", Align::left, 0, Cut::end, 8},
          {"QUEUE", Align::right, 0, Cut::end, 5},
          {"IN FLIGHT", Align::right, 0, Cut::end, 9},
          {"READS/S", Align::right},
          {"MB/S", Align::right, 0, Cut::end, 2}},
         times_of(4, 10),
         {{"WRITES/S", Align::right}, {"MB/S", Align::right, 0, Cut::end, 2}},
         times_of(4, 10),
         {{"ERRORS/S", Align::right, 0, Cut::end, has_errors ? 1U : 6U}, {"LATELY", Align::left, 0, Cut::end, 7}}}));
    std::size_t channel_count = 0;
    bool has_several = false;
    for (const Json& target : member(*frame_, "targets")) {
        const std::string path = plain_text(member(target, "path")), name = below(path, root);
        targets.add({{name},
                     state_cell(target),
                     {plain_text(member(target, "channels"))},
                     {plain_text(member(target, "requests_pending"))},
                     {plain_text(member(target, "in_flight"))},
                     {plain_text(member(target, "credits"))},
                     {rate_text(target, "waits_per_second")},
                     {rate_text(target, "commands_per_second")},
                     {megabytes_text(target, "bytes_read_per_second")},
                     {time_text(target, "read_p50_us")},
                     {time_text(target, "read_p99_us")},
                     {time_text(target, "read_p999_us")},
                     {megabytes_text(target, "bytes_written_per_second")},
                     {time_text(target, "write_p50_us")},
                     {time_text(target, "write_p99_us")},
                     {time_text(target, "write_p999_us")},
                     {lately(path, screen.charset)}});
        has_several = has_several || member(target, "channel_list").size() > 1;
        for (const Json& channel : member(target, "channel_list")) {
            ++channel_count;
            const std::string state = plain_text(member(channel, "state"));
            channels.add({{name},
                          {plain_text(member(channel, "index"))},
                          {state, state == "live" ? Paint::good : Paint::warning},
                          {plain_text(member(channel, "in_flight"))},
                          {plain_text(member(channel, "credits"))},
                          {plain_text(member(channel, "credits_initial"))},
                          {rate_text(channel, "commands_per_second")},
                          {megabytes_text(carried_by(channel))},
                          {time_text(channel, "p50_us")},
                          {time_text(channel, "p99_us")},
                          {time_text(channel, "p999_us")},
                          {lately(channel_name(path, channel), screen.charset)}});
        }
        for (const Json& lun : member(target, "luns")) luns.emplace_back(&lun, plain_text(member(lun, "path")));
    }
    std::stable_sort(luns.begin(), luns.end(),
                     [](const auto& a, const auto& b) { return requests_of(*a.first) > requests_of(*b.first); });
    for (const auto& [lun, path] : luns) {
        reads += number_in(*lun, "reads_per_second");
        writes += number_in(*lun, "writes_per_second");
        read += number_in(*lun, "bytes_read_per_second");
        written += number_in(*lun, "bytes_written_per_second");
        table.add({{below(path, root)},
                   state_cell(*lun),
                   {plain_text(member(*lun, "requests_pending"))},
                   {plain_text(member(*lun, "in_flight"))},
                   {rate_text(*lun, "reads_per_second")},
                   {megabytes_text(*lun, "bytes_read_per_second")},
                   {time_text(*lun, "read_p50_us")},
                   {time_text(*lun, "read_p99_us")},
                   {time_text(*lun, "read_p999_us")},
                   {rate_text(*lun, "writes_per_second")},
                   {megabytes_text(*lun, "bytes_written_per_second")},
                   {time_text(*lun, "write_p50_us")},
                   {time_text(*lun, "write_p99_us")},
                   {time_text(*lun, "write_p999_us")},
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
    std::string text =
        (screen.width == 0 ? place + sums : shortened(place + sums, screen.width, Cut::end, screen.charset)) + "\n";
    // Channels are of interest where a target has several, and room for the LUNs is left.
    const bool shows_channels = has_several && (screen.height == 0 || channel_count + 2 <= screen.height / 3);
    for (const Table* each : {&targets, &channels, &table})
        if (!each->is_empty() && (each != &channels || shows_channels)) text += "\n" + each->text(screen);
    return screen.height == 0 ? text : first_lines(text, screen.height);
}

}  // namespace srpfs::ctl
