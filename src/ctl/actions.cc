// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/actions.h>

#include <srpfs/ctl/text.h>
#include <srpfs/ctl/timers.h>
#include <srpfs/ctl/tree_files.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>

#include <signal.h>

namespace srpfs::ctl {
namespace {

bool is_there(const std::string& path) {
    std::error_code fault;
    return std::filesystem::is_directory(path, fault);
}

// Directories of this name in all ports, or in one.
std::vector<std::string> targets_named(const std::string& mount, const std::string& port, const std::string& name) {
    std::vector<std::string> paths;
    const auto ports = list_directory(mount);
    if (!ports) return paths;
    for (const std::string& one : *ports)
        if (one.starts_with("srp-") && (port.empty() || one == port) && is_there(mount + "/" + one + "/" + name))
            paths.push_back(mount + "/" + one + "/" + name);
    return paths;
}

std::string string_at(const Json& object, const char* name) {
    const auto found = object.find(name);
    return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

struct Write {
    std::string file, value;
};

constexpr const char* timer_files[] = {"reconnect_delay", "fast_io_fail_tmo", "dev_loss_tmo"};
constexpr const char* unit_files[] = {"read_only", "uid", "gid", "mode", "cache"};

Seconds* timer_of(Timers& timers, std::string_view file) {
    if (file == timer_files[0]) return &timers.reconnect_delay;
    if (file == timer_files[1]) return &timers.fast_io_fail_tmo;
    if (file == timer_files[2]) return &timers.dev_loss_tmo;
    return nullptr;
}

// In an order that is allowed in between if there is one; otherwise so that what srpfs refuses in the end is refused
// because of what was wanted, and not because of what is to be changed anyway.
std::vector<Write> writes_for_timers(const std::string& directory, Settings settings) {
    const auto take = [&](std::size_t index) {
        const Write write{settings[index].first, settings[index].second};
        settings.erase(settings.begin() + static_cast<std::ptrdiff_t>(index));
        return write;
    };
    std::vector<Write> writes;
    Timers now, wanted;
    bool is_understood = true;
    const auto put = [&](Timers& timers, std::string_view file, std::string_view text) {
        const auto value = parse_seconds(text);
        is_understood = is_understood && value;
        if (value) *timer_of(timers, file) = *value;
    };
    for (const char* file : timer_files) put(now, file, read_value(directory + "/" + file).value_or(""));
    wanted = now;
    for (const auto& [file, text] : settings) put(wanted, file, text);
    if (is_understood) {
        if (const auto order = order_of_writes(now, wanted)) {
            for (const TimerWrite& write : *order) writes.push_back({write.file, format_seconds(write.value)});
            return writes;
        }
        for (std::size_t i = 0; i < settings.size();) {
            Timers next = now;
            put(next, settings[i].first, settings[i].second);
            if (!is_allowed(next)) {
                ++i;
                continue;
            }
            now = next;
            writes.push_back(take(i));
            i = 0;
        }
    }
    while (!settings.empty()) writes.push_back(take(0));
    return writes;
}

Result<void> perform(const std::string& directory, const std::vector<Write>& writes) {
    std::vector<Write> undo;
    for (const Write& write : writes) {
        const std::string path = directory + "/" + write.file;
        const auto before = read_value(path);
        const auto done = write_command(path, write.value);
        if (done) {
            if (before) undo.push_back({write.file, *before});
            continue;
        }
        std::string text = done.error().context;
        for (auto back = undo.rbegin(); back != undo.rend(); ++back)
            if (const auto put = write_command(directory + "/" + back->file, back->value); !put)
                text +=
                    fmt::format("; {} could not be put back to {}: {}", back->file, back->value, put.error().context);
        return Error(done.error().errno_value(), text);
    }
    return {};
}

}  // namespace

std::optional<std::string> directory_of_login(std::string_view login) {
    std::uint64_t id_ext = 0, ioc_guid = 0, initiator_ext = 0;
    bool has_id_ext = false, has_ioc_guid = false;
    std::string text(login);
    std::replace(text.begin(), text.end(), '\n', ',');
    for (const std::string_view part : split(text, ',')) {
        const std::string_view item = trimmed(part);
        const auto equals = item.find('=');
        if (equals == std::string_view::npos) continue;
        const std::string_view key = trimmed(item.substr(0, equals));
        std::string_view value = trimmed(item.substr(equals + 1));
        if (value.starts_with("0x") || value.starts_with("0X")) value.remove_prefix(2);
        std::uint64_t number = 0;
        const auto [end, fault] = std::from_chars(value.data(), value.data() + value.size(), number, 16);
        const bool is_number = !value.empty() && fault == std::errc{} && end == value.data() + value.size();
        if (key == "id_ext") id_ext = number, has_id_ext = is_number;
        if (key == "ioc_guid") ioc_guid = number, has_ioc_guid = is_number;
        if (key == "initiator_ext") initiator_ext = number;
    }
    if (!has_id_ext || !has_ioc_guid) return std::nullopt;
    std::string name = fmt::format("{:016x}-{:016x}", id_ext, ioc_guid);
    if (initiator_ext != 0) name += fmt::format("-{:016x}", initiator_ext);
    return name;
}

Result<LoginDone> log_in(const std::string& mount, const std::string& port, const std::string& login) {
    const auto name = directory_of_login(login);
    const auto before = name ? targets_named(mount, port, *name) : std::vector<std::string>{};
    const auto done =
        write_command(port.empty() ? mount + "/add_target" : fmt::format("{}/{}/add_target", mount, port), login);
    if (!done) {
        // Others that use the target's name for this initiator are EEXIST, too.
        if (done.error().errno_value() == EEXIST && !before.empty()) return LoginDone{before.front(), true};
        return done.error();
    }
    LoginDone result;
    for (const std::string& path : name ? targets_named(mount, port, *name) : std::vector<std::string>{})
        if (std::find(before.begin(), before.end(), path) == before.end()) result.path = path;
    return result;
}

Result<void> act_on(const Found& found, Act act) {
    const std::string directory = found.directory();
    const bool is_lun = found.kind == Found::Kind::lun;
    switch (act) {
        case Act::log_out:
            if (is_lun)
                return Error(EINVAL,
                             fmt::format("{} is a LUN; one logs out of its target, {}", found.lun, found.target));
            return write_command(directory + "/delete", "1");
        case Act::rescan: return write_command(directory + "/rescan", "1");
        case Act::reset: return write_command(directory + "/reset", is_lun ? "lun" : "host");
    }
    return {};
}

std::vector<Found> targets_of(const Json& mount, const Found& found) {
    if (found.kind != Found::Kind::port) return {found};
    std::vector<Found> targets = all_targets(mount);
    std::erase_if(targets, [&](const Found& one) { return one.port != found.port; });
    return targets;
}

std::vector<Found> all_targets(const Json& mount) {
    std::vector<Found> targets;
    if (const auto list = mount.find("targets"); list != mount.end())
        for (const Json& target : *list)
            targets.push_back({Found::Kind::target, string_at(mount, "path"), string_at(target, "port"),
                               string_at(target, "name"), ""});
    return targets;
}

Result<void> apply_settings(const Found& found, const Settings& settings) {
    const auto is_one_of = [](const auto& list, const std::string& key) {
        return std::find(std::begin(list), std::end(list), key) != std::end(list);
    };
    const bool is_lun = found.kind == Found::Kind::lun;
    for (const auto& [key, value] : settings) {
        if (is_lun ? is_one_of(unit_files, key) : is_one_of(timer_files, key)) continue;
        const bool is_of_other = is_lun ? is_one_of(timer_files, key) : is_one_of(unit_files, key);
        return Error(
            EINVAL, is_of_other ? fmt::format("{} is a setting of {}", key,
                                              is_lun ? "targets, not of LUNs" : "LUNs, not of targets")
                    : is_lun    ? fmt::format("{}: LUNs have read_only, uid, gid, mode and cache", key)
                             : fmt::format("{}: targets have reconnect_delay, fast_io_fail_tmo and dev_loss_tmo", key));
    }
    // All or none also when somebody presses Ctrl-C.
    sigset_t held, before;
    sigemptyset(&held);
    for (const int one : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) sigaddset(&held, one);
    sigprocmask(SIG_BLOCK, &held, &before);
    std::vector<Write> writes;
    if (is_lun)
        for (const auto& [key, value] : settings) writes.push_back({key, value});
    else
        writes = writes_for_timers(found.directory(), settings);
    const auto done = perform(found.directory(), writes);
    sigprocmask(SIG_SETMASK, &before, nullptr);
    return done;
}

}  // namespace srpfs::ctl
