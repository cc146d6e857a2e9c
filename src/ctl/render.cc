// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/render.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <map>

namespace srpfs::ctl {
namespace {

constexpr std::size_t ids_min = 17;  // what a shortened name of a target has at least

const Json& field(const Json& object, std::string_view name) {
    static const Json none;
    if (!object.is_object()) return none;
    const auto found = object.find(name);
    return found == object.end() ? none : *found;
}

// Of a string or a number; "-" of what is not known.
std::string word(const Json& value) {
    if (value.is_string()) return value.get_ref<const std::string&>().empty() ? "-" : value.get<std::string>();
    if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
    if (value.is_number()) return value.dump();
    return "-";
}

std::string word(const Json& object, std::string_view name) { return word(field(object, name)); }

std::uint64_t count_of(const Json& object, std::string_view name) {
    const Json& value = field(object, name);
    return value.is_number_unsigned() || value.is_number_integer() ? value.get<std::uint64_t>() : 0;
}

std::string size_of(const Json& object, std::string_view name) {
    return field(object, name).is_number() ? human_bytes(count_of(object, name)) : "-";
}

std::string access_of(const Json& lun) {
    const Json& value = field(lun, "read_only");
    return value.is_boolean() ? (value.get<bool>() ? "ro" : "rw") : "-";
}

std::string timer_of(const Json& target, std::string_view name) {
    const Json& value = field(target, name);
    return value.is_number() ? value.dump() : "off";
}

std::string product_of(const Json& lun) {
    const std::string vendor = word(lun, "vendor"), model = word(lun, "model");
    return vendor == "-" ? model : fmt::format("{} {}", vendor, model);
}

Paint paint_of(std::string_view state) {
    if (state == "running") return Paint::good;
    if (state == "blocked") return Paint::warning;
    return Paint::bad;
}

Cell state_of(const Json& object) {
    const std::string state = shown_state(object);
    return {state, paint_of(state)};
}

std::string time_of(const Json& object, std::string_view name) {
    return field(object, name).is_number() ? human_microseconds(count_of(object, name)) : "-";
}

constexpr const char* operations[] = {"read", "write", "flush"};

// Tab-separated, one line.
std::string line_of(const std::vector<std::string>& words) {
    std::string line;
    for (const std::string& one : words)
        line += fmt::format("{}{}", line.empty() ? "" : "\t", printable(one, Charset::utf8));
    return line + "\n";
}

template <typename Action>
void for_each_lun(const Json& mount, Action&& action) {
    for (const Json& target : field(mount, "targets"))
        for (const Json& lun : field(target, "luns")) action(target, lun);
}

using Align = Column::Align;

std::string brief_table(const Json& document, const Screen& screen) {
    const bool many = field(document, "mounts").size() > 1;
    std::vector<Column> columns = {{"PORT", Align::left, 0, Cut::end, 3},
                                   {"TARGET", Align::left, ids_min, Cut::middle},
                                   {"LUN"},
                                   {"STATE"},
                                   {"SIZE", Align::right},
                                   {"MODE", Align::left, 0, Cut::end, 2},
                                   {"MODEL", Align::left, 8, Cut::end, 1},
                                   {"WWID", Align::left, 0, Cut::end, 4}};
    if (many) columns.insert(columns.begin(), {"MOUNT", Align::left, 8, Cut::middle});
    Table table(columns);
    for (const Json& mount : field(document, "mounts"))
        for (const Json& target : field(mount, "targets")) {
            const auto add = [&](std::vector<Cell> rest) {
                std::vector<Cell> row = {{word(target, "port")}, {word(target, "name")}};
                if (many) row.insert(row.begin(), Cell{word(mount, "path")});
                row.insert(row.end(), rest.begin(), rest.end());
                table.add(std::move(row));
            };
            for (const Json& lun : field(target, "luns"))
                add({{word(lun, "name")},
                     state_of(lun),
                     {size_of(lun, "bytes")},
                     {access_of(lun)},
                     {product_of(lun)},
                     {word(lun, "wwid")}});
            if (field(target, "luns").empty()) add({{"-"}, state_of(target), {"-"}, {"-"}, {"-"}, {"-"}});
        }
    return table.is_empty() ? "" : table.text(screen);
}

std::string full_tables(const Json& document, const Screen& screen) {
    std::map<std::string, unsigned> paths;  // to each identity
    for (const Json& mount : field(document, "mounts"))
        for_each_lun(mount, [&](const Json&, const Json& lun) { ++paths[word(lun, "wwid")]; });

    std::string text;
    for (const Json& mount : field(document, "mounts")) {
        if (field(mount, "error").is_string()) continue;
        const std::string head = fmt::format("{}: {}, srpfs {}, up {} s", word(mount, "path"), word(mount, "source"),
                                             word(mount, "version"), word(mount, "uptime_seconds"));
        text +=
            fmt::format("{}{}\n", text.empty() ? "" : "\n", wrapped(printable(head, screen.charset), screen.width, 0));
        Table ports({{"PORT"}, {"DEVICE"}, {"NUMBER", Align::right}, {"TARGETS", Align::right}});
        Table targets({{"TARGET", Align::left, ids_min, Cut::middle},
                       {"PORT", Align::left, 0, Cut::end, 3},
                       {"ADDRESS", Align::left, 12, Cut::end, 5},
                       {"STATE"},
                       {"CHANNELS", Align::right, 0, Cut::end, 1},
                       {"CREDITS", Align::right, 0, Cut::end, 2},
                       {"RECONNECT", Align::right, 0, Cut::end, 4},
                       {"FAIL", Align::right, 0, Cut::end, 4},
                       {"LOSS", Align::right, 0, Cut::end, 4},
                       {"LUNS", Align::right}});
        Table luns({{"TARGET", Align::left, ids_min, Cut::middle},
                    {"LUN"},
                    {"STATE"},
                    {"SIZE", Align::right},
                    {"BLOCK", Align::right, 0, Cut::end, 2},
                    {"MODE"},
                    {"WWID", Align::left, 16, Cut::middle, 4},
                    {"PATHS", Align::right, 0, Cut::end, 3},
                    {"VENDOR", Align::left, 0, Cut::end, 5},
                    {"MODEL", Align::left, 8, Cut::end, 1},
                    {"REV", Align::left, 0, Cut::end, 6},
                    {"SERIAL", Align::left, 8, Cut::middle, 7}});
        for (const Json& port : field(mount, "ports")) {
            const auto count =
                std::count_if(field(mount, "targets").begin(), field(mount, "targets").end(),
                              [&](const Json& target) { return field(target, "port") == field(port, "name"); });
            ports.add({{word(port, "name")}, {word(port, "device")}, {word(port, "number")}, {std::to_string(count)}});
        }
        for (const Json& target : field(mount, "targets"))
            targets.add({{word(target, "name")},
                         {word(target, "port")},
                         {word(target, "address")},
                         state_of(target),
                         {word(target, "channels")},
                         {word(target, "req_lim")},
                         {timer_of(target, "reconnect_delay")},
                         {timer_of(target, "fast_io_fail_tmo")},
                         {timer_of(target, "dev_loss_tmo")},
                         {std::to_string(field(target, "luns").size())}});
        for_each_lun(mount, [&](const Json& target, const Json& lun) {
            const std::string wwid = word(lun, "wwid");
            luns.add({{word(target, "name")},
                      {word(lun, "name")},
                      state_of(lun),
                      {size_of(lun, "bytes")},
                      {word(lun, "block_bytes")},
                      {access_of(lun)},
                      {wwid},
                      {wwid == "-" ? "-" : std::to_string(paths[wwid])},
                      {word(lun, "vendor")},
                      {word(lun, "model")},
                      {word(lun, "revision")},
                      {word(lun, "serial")}});
        });
        for (const Table* table : {&ports, &targets, &luns})
            if (!table->is_empty()) text += "\n" + table->text(screen);
    }
    return text;
}

// "name: value" with the values below each other.
class Properties {
public:
    void add(std::string name, std::string value, Paint paint = Paint::none) {
        rows_.push_back({std::move(name), std::move(value), paint});
    }
    [[nodiscard]] std::string text(const Screen& screen) const {
        std::size_t widest = 0;
        for (const auto& row : rows_) widest = std::max(widest, row.name.size());
        std::string text;
        for (const auto& row : rows_)
            text += fmt::format(
                "{}:{:{}} {}\n", row.name, "", widest - row.name.size(),
                painted(wrapped(printable(row.value, screen.charset), screen.width, widest + 2), row.paint, screen));
        return text;
    }

private:
    struct Row {
        std::string name, value;
        Paint paint;
    };
    std::vector<Row> rows_;
};

// Fields as they are, in their order.
void add_fields(Properties& list, const Json& object) {
    for (const auto& [name, value] : object.items()) {
        const bool is_timer = name == "reconnect_delay" || name == "fast_io_fail_tmo" || name == "dev_loss_tmo";
        if (name == "state" || name == "target_state")
            list.add(name, word(value), paint_of(word(value)));
        else if (is_timer)
            list.add(name, value.is_number() ? value.dump() + " s" : "off");
        else if (name == "bytes" && value.is_number())
            list.add(name, fmt::format("{} ({})", value.dump(), human_bytes(value.get<std::uint64_t>())));
        else if (name == "last_error" && !word(value).starts_with('-'))
            list.add(name, word(value), Paint::warning);
        else if (name == "by_id")
            for (const Json& id : value) list.add(name, word(id));
        else if (name == "latency" && value.is_object()) {
            for (const char* operation : operations)
                if (const Json& one = field(value, operation); count_of(one, "count") != 0)
                    list.add(fmt::format("{}_latency", operation),
                             fmt::format("p50 {}, p99 {}, p99.9 {}", time_of(one, "p50_us"), time_of(one, "p99_us"),
                                         time_of(one, "p999_us")));
        } else if (name == "errors_by_kind" && value.is_object()) {
            for (const auto& [kind, number] : value.items()) list.add("errors " + kind, word(number), Paint::bad);
        } else if (name == "channel_list") {
            for (const Json& one : value)
                list.add("channel " + word(one, "index"),
                         fmt::format("{}, {} of {} credits, {} in flight, {} commands, {} errors, {} timeouts",
                                     word(one, "state"), word(one, "credits"), word(one, "credits_initial"),
                                     word(one, "in_flight"), word(one, "commands"), word(one, "errors"),
                                     word(one, "timeouts")));
        } else if (name == "history") {
            for (const Json& one : value)
                list.add(name, fmt::format("{} {} to {}: {}", word(one, "time"), word(one, "from"), word(one, "to"),
                                           word(one, "reason")));
        } else if (value.is_object())
            for (const auto& [inner, number] : value.items()) list.add(inner, word(number));
        else if (!value.is_array() && !value.is_null())
            list.add(name, word(value));
    }
}

void add_plain(std::string& text, const std::string& prefix, const Json& object) {
    for (const auto& [name, value] : object.items()) {
        const std::string path = prefix.empty() ? name : prefix + "." + name;
        if (value.is_object()) {
            add_plain(text, path, value);
        } else if (value.is_array()) {
            for (std::size_t i = 0; i < value.size(); ++i) {
                const std::string each = fmt::format("{}.{}", path, i);
                if (value[i].is_object())
                    add_plain(text, each, value[i]);
                else
                    text += line_of({each, word(value[i])});
            }
        } else {
            text += line_of({path, word(value)});
        }
    }
}

std::string relative(const std::string& path, const std::string& root) {
    return path.starts_with(root + "/") ? path.substr(root.size() + 1) : path;
}

}  // namespace

std::string shown_state(const Json& object) {
    const std::string state = word(object, "state");
    return state == "offline" && word(object, "target_state") == "fail-fast" ? "fail-fast" : state;
}

std::string json_text(const Json& document) {
    return document.dump(2, ' ', true, Json::error_handler_t::replace) + "\n";
}

// ---- list ----

Json list_document(const std::vector<Json>& mounts) {
    Json document;
    document["schema"] = json_schema;
    document["mounts"] = mounts;
    return document;
}

std::string render_list(const Json& document, Format format, Detail detail, const Screen& screen) {
    if (format == Format::json) return json_text(document);
    if (format == Format::table)
        return detail == Detail::brief ? brief_table(document, screen) : full_tables(document, screen);
    std::string text;
    for (const Json& mount : field(document, "mounts")) {
        for (const Json& port : field(mount, "ports"))
            text += line_of({"port", word(port, "path"), word(port, "device"), word(port, "number")});
        for (const Json& target : field(mount, "targets")) {
            text += line_of({"target", word(target, "path"), word(target, "state"), word(target, "channels"),
                             word(target, "req_lim"), word(target, "address")});
            for (const Json& lun : field(target, "luns"))
                text += line_of({"lun", word(lun, "path"), word(lun, "state"), word(lun, "bytes"), access_of(lun),
                                 word(lun, "wwid"), word(lun, "vendor"), word(lun, "model")});
        }
    }
    return text;
}

// ---- show ----

Json show_document(const Json& mount, const Found& found) {
    Json document;
    document["schema"] = json_schema;
    document["mount"] = field(mount, "path");
    if (found.kind == Found::Kind::port) {
        for (const Json& port : field(mount, "ports"))
            if (field(port, "name") == found.port) document["port"] = port;
        Json& targets = document["port"]["targets"] = Json::array();
        for (const Json& target : field(mount, "targets"))
            if (field(target, "port") == found.port) targets.push_back(target);
        return document;
    }
    for (const Json& target : field(mount, "targets")) {
        if (field(target, "name") != found.target || field(target, "port") != found.port) continue;
        if (found.kind == Found::Kind::target) document["target"] = target;
        for (const Json& lun : field(target, "luns"))
            if (found.kind == Found::Kind::lun && field(lun, "name") == found.lun) document["lun"] = lun;
    }
    return document;
}

std::string render_show(const Json& document, Format format, const Screen& screen) {
    if (format == Format::json) return json_text(document);
    const bool is_port = document.contains("port"), is_target = document.contains("target");
    const Json& object = field(document, is_port ? "port" : is_target ? "target" : "lun");
    std::string text;
    if (format == Format::plain) {
        add_plain(text, "", object);
        return text;
    }
    Properties properties;
    add_fields(properties, object);
    text = properties.text(screen);
    if (!is_port && !is_target) return text;
    Json below;  // the table of list, for the rest
    below["mounts"] = Json::array({Json{{"targets", is_port ? field(object, "targets") : Json::array({object})}}});
    const std::string table = brief_table(below, screen);
    return table.empty() ? text : text + "\n" + table;
}

// ---- stats ----

Json stats_document(const Json& mount) {
    Json document;
    document["schema"] = json_schema;
    document["mount"] = field(mount, "path");
    document["uptime_seconds"] = field(mount, "uptime_seconds");
    document["requests_pending"] = field(mount, "requests_pending");
    document["pages"] = field(mount, "pages");
    document["reactors"] = field(mount, "reactors");
    document["targets"] = Json::array();
    for (const Json& target : field(mount, "targets")) {
        Json one;
        for (const char* name : {"path", "state", "channels", "req_lim", "zero_req_lim", "failed_reconnects",
                                 "commands", "logins", "losses", "reactor", "channel_list"})
            one[name] = field(target, name);
        one["luns"] = Json::array();
        for (const Json& lun : field(target, "luns"))
            one["luns"].push_back(Json{{"path", field(lun, "path")},
                                       {"state", field(lun, "state")},
                                       {"target_state", field(lun, "target_state")},
                                       {"requests_pending", field(lun, "requests_pending")},
                                       {"in_flight", field(lun, "in_flight")},
                                       {"counters", field(lun, "counters")},
                                       {"errors_by_kind", field(lun, "errors_by_kind")},
                                       {"latency", field(lun, "latency")}});
        document["targets"].push_back(std::move(one));
    }
    return document;
}

std::string render_stats(const Json& document, Format format, const Screen& screen) {
    if (format == Format::json) return json_text(document);
    std::string text;
    if (format == Format::plain) {
        // What `counted` has beside plain numbers.
        const auto add_counted = [&](const std::string& path, const std::string& prefix, const Json& counted) {
            for (const auto& [kind, value] : field(counted, "errors_by_kind").items())
                text += line_of({path, fmt::format("{}errors.{}", prefix, kind), word(value)});
            for (const auto& [operation, latency] : field(counted, "latency").items())
                for (const char* name : {"count", "sum_us", "p50_us", "p99_us", "p999_us"})
                    if (latency.is_object())
                        text += line_of(
                            {path, fmt::format("{}latency.{}.{}", prefix, operation, name), word(latency, name)});
        };
        // All of `counted` but its name.
        const auto add_all = [&](const std::string& path, const std::string& prefix, const Json& counted) {
            for (const auto& [name, value] : counted.items())
                if (name != "index" && name != "name" && !value.is_structured())
                    text += line_of({path, prefix + name, word(value)});
            add_counted(path, prefix, counted);
        };
        const std::string whole = word(document, "mount");
        add_all(whole, "pages.", field(document, "pages"));
        for (const Json& reactor : field(document, "reactors")) {
            const std::string prefix = fmt::format("reactor.{}.", word(reactor, "name"));
            add_all(whole, prefix, reactor);
            add_all(whole, prefix, field(reactor, "total"));
        }
        for (const Json& target : field(document, "targets")) {
            for (const char* name : {"channels", "req_lim", "zero_req_lim", "failed_reconnects", "commands", "logins",
                                     "losses", "reactor"})
                text += line_of({word(target, "path"), name, word(target, name)});
            for (const Json& channel : field(target, "channel_list"))
                add_all(word(target, "path"), fmt::format("channel.{}.", word(channel, "index")), channel);
            for (const Json& lun : field(target, "luns")) {
                const std::string path = word(lun, "path");
                for (const char* name : {"requests_pending", "in_flight"})
                    text += line_of({path, name, word(lun, name)});
                for (const auto& [name, value] : field(lun, "counters").items())
                    text += line_of({path, name, word(value)});
                add_counted(path, "", lun);
            }
        }
        return text;
    }
    const std::string root = word(document, "mount");
    Table targets({{"TARGET", Align::left, ids_min, Cut::middle},
                   {"STATE"},
                   {"CHANNELS", Align::right, 0, Cut::end, 3},
                   {"CREDITS", Align::right},
                   {"WAITED", Align::right, 0, Cut::end, 2},
                   {"RECONNECTS FAILED", Align::right, 0, Cut::end, 4},
                   {"COMMANDS", Align::right}});
    Table luns({{"LUN", Align::left, ids_min, Cut::middle},
                {"READS", Align::right},
                {"READ", Align::right},
                {"WRITES", Align::right},
                {"WRITTEN", Align::right},
                {"FLUSHES", Align::right, 0, Cut::end, 3},
                {"ERRORS", Align::right},
                {"RETRIES", Align::right, 0, Cut::end, 2},
                {"INTERRUPTS", Align::right, 0, Cut::end, 4},
                {"ATTENTIONS", Align::right, 0, Cut::end, 5},
                {"RMW", Align::right, 0, Cut::end, 6},
                {"GHOSTS", Align::right, 0, Cut::end, 7}});
    Table channels({{"TARGET", Align::left, ids_min, Cut::middle},
                    {"CHANNEL", Align::right},
                    {"STATE"},
                    {"CREDITS", Align::right},
                    {"OF", Align::right, 0, Cut::end, 3},
                    {"IN FLIGHT", Align::right},
                    {"COMMANDS", Align::right},
                    {"READ", Align::right, 0, Cut::end, 5},
                    {"WRITTEN", Align::right, 0, Cut::end, 5},
                    {"ERRORS", Align::right, 0, Cut::end, 4},
                    {"NO CREDITS", Align::right, 0, Cut::end, 1},
                    {"TIMEOUTS", Align::right, 0, Cut::end, 2}});
    Table reactors({{"REACTOR"},
                    {"READS", Align::right},
                    {"READ", Align::right},
                    {"WRITES", Align::right},
                    {"WRITTEN", Align::right},
                    {"ERRORS", Align::right},
                    {"IN USE", Align::right, 0, Cut::end, 3},
                    {"OF", Align::right, 0, Cut::end, 3},
                    {"SLOW TURNS", Align::right, 0, Cut::end, 4}});
    for (const Json& reactor : field(document, "reactors")) {
        const Json& total = field(reactor, "total");
        reactors.add({{word(reactor, "name")},
                      {word(total, "reads")},
                      {size_of(total, "bytes_read")},
                      {word(total, "writes")},
                      {size_of(total, "bytes_written")},
                      {word(total, "errors"), count_of(total, "errors") != 0 ? Paint::bad : Paint::none},
                      {word(reactor, "slots_in_use")},
                      {word(reactor, "slots")},
                      {word(reactor, "slow_turns")}});
    }
    // Of interest where files are cached or mapped, or are sent by sendfile(2).
    Table pages({{"PAGES FILLED", Align::right},
                 {"CACHED", Align::right},
                 {"DROPS", Align::right},
                 {"RANGES", Align::right, 0, Cut::end, 2},
                 {"DROPPED", Align::right},
                 {"P99", Align::right, 0, Cut::end, 1},
                 {"WAITS", Align::right},
                 {"GIVEN UP", Align::right},
                 {"P99", Align::right, 0, Cut::end, 1}});
    const Json& cached = field(document, "pages");
    const bool has_pages = count_of(cached, "fills") != 0 || count_of(cached, "drops") != 0;
    if (has_pages)
        pages.add(
            {{word(cached, "fills")},
             {word(cached, "fills_cached")},
             {word(cached, "drops")},
             {word(cached, "drop_ranges")},
             {size_of(cached, "drop_bytes")},
             {time_of(field(field(cached, "latency"), "drop"), "p99_us")},
             {word(cached, "waits")},
             {word(cached, "waits_given_up"), count_of(cached, "waits_given_up") != 0 ? Paint::warning : Paint::none},
             {time_of(field(field(cached, "latency"), "wait"), "p99_us")}});
    Table latencies({{"LUN", Align::left, ids_min, Cut::middle},
                     {"OPERATION"},
                     {"COUNT", Align::right},
                     {"MEAN", Align::right, 0, Cut::end, 1},
                     {"P50", Align::right},
                     {"P99", Align::right},
                     {"P99.9", Align::right}});
    Table errors({{"LUN", Align::left, ids_min, Cut::middle}, {"ERROR"}, {"COUNT", Align::right}});
    for (const Json& target : field(document, "targets")) {
        for (const Json& channel : field(target, "channel_list"))
            channels.add(
                {{relative(word(target, "path"), root)},
                 {word(channel, "index")},
                 {word(channel, "state"), word(channel, "state") == "live" ? Paint::good : Paint::warning},
                 {word(channel, "credits")},
                 {word(channel, "credits_initial")},
                 {word(channel, "in_flight")},
                 {word(channel, "commands")},
                 {size_of(channel, "bytes_read")},
                 {size_of(channel, "bytes_written")},
                 {word(channel, "errors")},
                 {word(channel, "out_of_credits")},
                 {word(channel, "timeouts"), count_of(channel, "timeouts") != 0 ? Paint::warning : Paint::none}});
        for (const Json& lun : field(target, "luns")) {
            const std::string path = relative(word(lun, "path"), root);
            for (const char* operation : operations)
                if (const Json& one = field(field(lun, "latency"), operation); count_of(one, "count") != 0)
                    latencies.add({{path},
                                   {operation},
                                   {word(one, "count")},
                                   {human_microseconds(count_of(one, "sum_us") / count_of(one, "count"))},
                                   {time_of(one, "p50_us")},
                                   {time_of(one, "p99_us")},
                                   {time_of(one, "p999_us")}});
            for (const auto& [kind, number] : field(lun, "errors_by_kind").items())
                errors.add({{path}, {kind}, {word(number), Paint::bad}});
        }
        targets.add({{relative(word(target, "path"), root)},
                     state_of(target),
                     {word(target, "channels")},
                     {word(target, "req_lim")},
                     {word(target, "zero_req_lim")},
                     {word(target, "failed_reconnects")},
                     {word(target, "commands")}});
        for (const Json& lun : field(target, "luns")) {
            const Json& counters = field(lun, "counters");
            luns.add({{relative(word(lun, "path"), root)},
                      {word(counters, "reads")},
                      {size_of(counters, "bytes_read")},
                      {word(counters, "writes")},
                      {size_of(counters, "bytes_written")},
                      {word(counters, "flushes")},
                      {word(counters, "errors"), count_of(counters, "errors") != 0 ? Paint::bad : Paint::none},
                      {word(counters, "retries"), count_of(counters, "retries") != 0 ? Paint::warning : Paint::none},
                      {word(counters, "interrupts")},
                      {word(counters, "unit_attentions")},
                      {word(counters, "read_modify_writes")},
                      {word(counters, "ghosts")}});
        }
    }
    text = fmt::format("{}: up {} s, requests pending: {}\n", printable(root, screen.charset),
                       word(document, "uptime_seconds"), word(document, "requests_pending"));
    for (const Table* table : {&reactors, &pages, &targets, &channels, &luns, &latencies, &errors})
        if (!table->is_empty()) text += "\n" + table->text(screen);
    return text;
}

// ---- reservations ----

Json reservations_document(const Found& lun, std::string_view text) {
    Json document;
    document["schema"] = json_schema;
    document["mount"] = lun.mount;
    document["path"] = fmt::format("{}/{}/{}/{}", lun.mount, lun.port, lun.target, lun.lun);
    for (const char* name : {"generation", "registered"}) document[name] = nullptr;
    document["keys"] = Json::array();
    document["reservation"] = nullptr;
    for (const std::string_view line : split(text, '\n')) {
        const auto words = split(trimmed(line), ' ');
        if (words.size() < 2 || words[1] == "none") continue;
        const std::string value(words[1]);
        if (words[0] == "generation")
            document["generation"] =
                Json::parse(value, nullptr, false).is_number() ? Json::parse(value) : Json(nullptr);
        if (words[0] == "registered") document["registered"] = value;
        if (words[0] == "key") document["keys"].push_back(value);
        if (words[0] == "reservation")
            document["reservation"] =
                Json{{"type", value}, {"holder", words.size() > 2 ? Json(std::string(words[2])) : Json(nullptr)}};
    }
    return document;
}

std::string render_reservations(const Json& document, Format format, const Screen& screen) {
    if (format == Format::json) return json_text(document);
    std::string text;
    if (format == Format::plain) {
        add_plain(text, "", document);
        return text;
    }
    Properties properties;
    const Json& reservation = field(document, "reservation");
    properties.add("LUN", word(document, "path"));
    properties.add("generation", word(document, "generation"));
    properties.add("reservation", reservation.is_object() ? fmt::format("{}, held by {}", word(reservation, "type"),
                                                                        word(reservation, "holder"))
                                                          : "none");
    properties.add("registered here",
                   field(document, "registered").is_null() ? "nothing" : word(document, "registered"));
    if (field(document, "keys").empty()) properties.add("keys", "none");
    for (const Json& key : field(document, "keys")) properties.add("key", word(key));
    return properties.text(screen);
}

// ---- events ----

Json error_document(int status, const std::vector<std::string>& errors) {
    Json document;
    document["schema"] = json_schema;
    document["exit_status"] = status;
    document["errors"] = errors;
    return document;
}

std::string render_event(std::string_view line, Format format, const Screen& screen) {
    const std::string_view whole = trimmed(line);
    if (whole.empty()) return {};
    if (format == Format::json) return std::string(whole) + "\n";
    const Json event = Json::parse(whole, nullptr, false);
    if (!event.is_object()) return printable(whole, screen.charset) + "\n";
    std::string rest;
    for (const auto& [name, value] : event.items()) {
        if (name == "schema" || name == "sequence" || name == "time" || name == "event" || name == "target" ||
            name == "lun")
            continue;
        rest += fmt::format("{}{}={}", rest.empty() ? "" : " ", name,
                            value.is_string() ? value.get<std::string>() : value.dump());
    }
    const std::string name = word(event, "event"), target = word(event, "target"), lun = word(event, "lun");
    if (format == Format::plain) return line_of({word(event, "time"), name, target, lun, rest.empty() ? "-" : rest});
    const bool is_bad = name.ends_with("_error") || name.ends_with("_failed") || name.ends_with("_lost") ||
                        name == "lun_offline" || name == "lun_refused";
    const std::string state = word(event, "to");
    const Paint paint = name == "target_state" ? paint_of(state) : is_bad ? Paint::bad : Paint::none;
    const std::string place = target == "-" ? "" : lun == "-" ? " " + target : fmt::format(" {}/{}", target, lun);
    const std::string when = printable(word(event, "time"), screen.charset), what = printable(name, screen.charset);
    std::string text = wrapped(
        fmt::format("{} {}{}", when, what, printable(place + (rest.empty() ? "" : "  ") + rest, screen.charset)),
        screen.width, 4);
    text.replace(text.find(what, when.size()), what.size(), painted(what, paint, screen));
    return text + "\n";
}

}  // namespace srpfs::ctl
