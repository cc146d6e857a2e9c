// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/survey.h>

#include <srpfs/ctl/text.h>
#include <srpfs/ctl/tree_files.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <map>
#include <optional>
#include <vector>

namespace srpfs::ctl {
namespace {

constexpr const char* counters[] = {"reads",  "writes",  "flushes",    "bytes_read",      "bytes_written",
                                    "errors", "retries", "interrupts", "unit_attentions", "read_modify_writes",
                                    "ghosts"};

Json text_or_null(const std::optional<std::string>& value) { return value ? Json(*value) : Json(nullptr); }

// Octal for modes, hexadecimal with 0x; null for what is no number, such as "off".
Json number_or_null(const std::optional<std::string>& value) {
    if (!value) return nullptr;
    std::uint64_t number = 0;
    const auto [end, fault] = std::from_chars(value->data(), value->data() + value->size(), number);
    if (value->empty() || fault != std::errc{} || end != value->data() + value->size()) return nullptr;
    return number;
}

// A field of `stats`, or null.
Json copy_of(const Json& object, const char* name) {
    const auto found = object.find(name);
    return found == object.end() ? Json(nullptr) : *found;
}

std::string string_field(const Json& object, const char* name) {
    const auto found = object.find(name);
    return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

const Json& array_field(const Json& object, const char* name) {
    static const Json none = Json::array();
    const auto found = object.find(name);
    return found != object.end() && found->is_array() ? *found : none;
}

// Below the mount, of units: their names in by-id.
using IdNames = std::map<std::string, std::vector<std::string>>;

IdNames read_by_id(const std::string& mount) {
    IdNames names;
    const auto listed = list_directory(mount + "/by-id");
    if (!listed) return names;
    for (const std::string& name : *listed) {
        std::error_code fault;
        const auto target = std::filesystem::read_symlink(mount + "/by-id/" + name, fault);
        if (!fault) names[("by-id" / target).lexically_normal()].push_back(name);
    }
    return names;
}

struct Context {
    const Mount& mount;
    Depth depth;
    const std::function<void()>& alive;
    IdNames ids;
};

Json describe_lun(const Context& context, const std::string& directory, const Json& target_state, const Json& stats) {
    const std::string name = string_field(stats, "name"), below = directory + "/" + name;
    const std::string attributes = context.mount.path + "/" + below + ".attr/";
    const auto value = [&](const char* file) { return read_value(attributes + file); };
    Json lun;
    lun["name"] = name;
    lun["path"] = context.mount.path + "/" + below;
    lun["state"] = copy_of(stats, "state");
    lun["target_state"] = target_state;
    lun["wwid"] = copy_of(stats, "wwid");
    lun["bytes"] = copy_of(stats, "bytes");
    lun["block_bytes"] = copy_of(stats, "block_bytes");
    if (context.depth == Depth::full) lun["physical_block_bytes"] = number_or_null(value("physical_block_size"));
    const auto protection = context.depth == Depth::full ? value("read_only") : std::nullopt;  // of this mount as well
    lun["read_only"] = protection ? Json(*protection == "1") : copy_of(stats, "read_only");
    lun["write_cache"] = copy_of(stats, "write_cache");
    lun["vendor"] = text_or_null(value("vendor"));
    lun["model"] = text_or_null(value("model"));
    if (context.depth == Depth::full) {
        lun["revision"] = text_or_null(value("rev"));
        lun["serial"] = text_or_null(value("serial"));
        lun["uid"] = number_or_null(value("uid"));
        lun["gid"] = number_or_null(value("gid"));
        lun["mode"] = text_or_null(value("mode"));
        lun["cache"] = text_or_null(value("cache"));
        lun["last_error"] = text_or_null(value("last_error"));
        const auto ids = context.ids.find(below);
        lun["by_id"] = ids == context.ids.end() ? Json::array() : Json(ids->second);
    }
    for (const char* field : {"requests_pending", "in_flight", "errors_by_kind", "latency"})
        lun[field] = copy_of(stats, field);
    Json& counts = lun["counters"] = Json::object();
    for (const char* counter : counters) counts[counter] = copy_of(stats, counter);
    return lun;
}

Json describe_target(const Context& context, const Json& stats) {
    const std::string directory = string_field(stats, "port") + "/" + string_field(stats, "name");
    const auto value = [&](const char* file) { return read_value(context.mount.path + "/" + directory + "/" + file); };
    Json target;
    target["name"] = copy_of(stats, "name");
    target["path"] = context.mount.path + "/" + directory;
    target["port"] = copy_of(stats, "port");
    target["address"] = copy_of(stats, "address");
    target["state"] = copy_of(stats, "state");
    target["channels"] = copy_of(stats, "channels");
    target["req_lim"] = copy_of(stats, "req_lim");
    target["zero_req_lim"] = copy_of(stats, "zero_req_lim");
    target["reactor"] = copy_of(stats, "reactor");
    target["failed_reconnects"] = copy_of(stats, "failed_reconnects");
    for (const char* field : {"commands", "logins", "losses"}) target[field] = copy_of(stats, field);
    for (const char* field : {"channel_list", "history"}) target[field] = array_field(stats, field);
    if (context.depth == Depth::full) {
        for (const char* file : {"reconnect_delay", "fast_io_fail_tmo", "dev_loss_tmo", "queue_size"})
            target[file] = number_or_null(value(file));
        for (const char* file : {"id_ext", "ioc_guid", "sgid", "service_id", "pkey", "dgid", "orig_dgid", "last_error"})
            target[file] = text_or_null(value(file));
    }
    std::vector<Json> luns;
    for (const Json& lun : array_field(stats, "luns")) {
        luns.push_back(describe_lun(context, directory, target["state"], lun));
        context.alive();
    }
    std::sort(luns.begin(), luns.end(),
              [](const Json& a, const Json& b) { return is_before(string_field(a, "name"), string_field(b, "name")); });
    target["luns"] = std::move(luns);
    return target;
}

Json describe_port(const Context& context, const std::string& name) {
    const std::string path = context.mount.path + "/" + name;
    Json port;
    port["name"] = name;
    port["path"] = path;
    port["device"] = text_or_null(read_value(path + "/ibdev"));
    port["number"] = number_or_null(read_value(path + "/port"));
    port["last_error"] = text_or_null(read_value(path + "/last_error"));
    return port;
}

}  // namespace

Result<Json> survey(const Mount& mount, Depth depth, const std::function<void()>& alive) {
    const auto text = read_file(mount.path + "/stats");
    if (!text) return text.error();
    const Json stats = Json::parse(*text, nullptr, false);
    if (!stats.is_object())
        return Error(EPROTO, fmt::format("{}/stats is not a JSON object; is this an srpfs?", mount.path));
    if (const Json schema = copy_of(stats, "schema"); schema != json_schema)
        return Error(EPROTO, fmt::format("{}/stats has schema {}; this srpctl knows {}", mount.path, schema.dump(),
                                         json_schema));
    const auto names = list_directory(mount.path);
    if (!names) return names.error();

    Context context{mount, depth, alive, {}};
    if (depth == Depth::full) context.ids = read_by_id(mount.path);
    Json result;
    result["path"] = mount.path;
    result["source"] = mount.source;
    result["version"] = copy_of(stats, "version");
    result["uptime_seconds"] = copy_of(stats, "uptime_seconds");
    result["requests_pending"] = copy_of(stats, "requests_pending");
    result["pages"] = copy_of(stats, "pages");
    result["reactors"] = array_field(stats, "reactors");
    result["last_error"] = text_or_null(read_value(mount.path + "/last_error"));
    result["ports"] = Json::array();
    for (const std::string& name : *names)
        if (name.starts_with("srp-")) result["ports"].push_back(describe_port(context, name));
    std::vector<Json> targets;
    for (const Json& target : array_field(stats, "targets")) {
        targets.push_back(describe_target(context, target));
        alive();
    }
    std::sort(targets.begin(), targets.end(), [](const Json& a, const Json& b) {
        const std::string x = string_field(a, "port"), y = string_field(b, "port");
        return x != y ? is_before(x, y) : string_field(a, "name") < string_field(b, "name");
    });
    result["targets"] = std::move(targets);
    return result;
}

std::string Found::directory() const {
    std::string path = mount + "/" + port;
    if (!target.empty()) path += "/" + target;
    if (!lun.empty()) path += "/" + lun + ".attr";
    return path;
}

Result<Found> find(const Json& mount, std::string_view name) {
    const std::string root = string_field(mount, "path");
    std::string wanted = absolute_path(name.starts_with('/') ? std::string(name) : root + "/" + std::string(name));
    if (wanted.ends_with(".attr")) wanted.resize(wanted.size() - 5);
    const bool is_word = name.find('/') == std::string_view::npos;
    const std::string word(name.ends_with(".attr") ? name.substr(0, name.size() - 5) : name);
    const std::string last = std::filesystem::path(wanted).filename();
    const bool is_view = wanted == root + "/by-id/" + last || wanted == root + "/by-path/" + last ||
                         wanted == root + "/by-target/" + last;

    struct Match {
        Found found;
        std::string wwid;
    };
    std::vector<Match> matches;
    for (const Json& port : array_field(mount, "ports")) {
        const std::string port_name = string_field(port, "name");
        if (wanted == root + "/" + port_name || (is_word && "srp-" + word == port_name))
            matches.push_back({{Found::Kind::port, root, port_name, "", ""}, ""});
    }
    for (const Json& target : array_field(mount, "targets")) {
        const std::string target_name = string_field(target, "name"), port_name = string_field(target, "port");
        const std::string path = root + "/" + port_name + "/" + target_name;
        const bool is_in_view = is_view && wanted == root + "/by-target/" + target_name;
        const bool is_short = wanted == root + "/" + target_name;  // also "target/lunN"
        if (wanted == path || is_in_view || is_short)
            matches.push_back({{Found::Kind::target, root, port_name, target_name, ""}, ""});
        for (const Json& lun : array_field(target, "luns")) {
            const std::string lun_name = string_field(lun, "name"), wwid = string_field(lun, "wwid");
            bool is_meant = wanted == path + "/" + lun_name || wanted == root + "/" + target_name + "/" + lun_name ||
                            wanted == root + "/by-target/" + target_name + "/" + lun_name ||
                            (is_word && (word == lun_name || (!wwid.empty() && word == wwid)));
            if (is_view || is_word) {
                for (const Json& id : array_field(lun, "by_id"))
                    is_meant = is_meant || (is_word ? id == word : wanted == root + "/by-id/" + id.get<std::string>());
                is_meant = is_meant || last == fmt::format("{}-srp-{}-lun-{}", port_name.substr(4), target_name,
                                                           lun_name.substr(3));
            }
            if (is_meant) matches.push_back({{Found::Kind::lun, root, port_name, target_name, lun_name}, wwid});
        }
    }
    if (matches.size() == 1) return matches.front().found;
    if (matches.empty())
        return Error(ENOENT, fmt::format("{}: no port, target or LUN of {} has this name; see: srpctl list -v",
                                         printable(name, Charset::utf8), printable(root, Charset::utf8)));
    std::string choices;
    for (const Match& match : matches) {
        std::string path = match.found.directory();
        if (match.found.kind == Found::Kind::lun) path.resize(path.size() - 5);
        choices += fmt::format("\n  {}", printable(path, Charset::utf8));
    }
    return Error(ENOTUNIQ, fmt::format("{}: {} have this name; say which by its path:{}",
                                       printable(name, Charset::utf8), matches.size(), choices));
}

}  // namespace srpfs::ctl
