// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/cli/cli.h>

#include <srpfs/config/config_file.h>
#include <srpfs/daemon/login_defaults.h>
#include <srpfs/srp/login_string.h>
#include <srpfs/target/target_list.h>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <thread>

namespace srpfs::cli {
namespace {

using daemon::Config;

struct Option {
    const char* name;
    const char* value;  // nullptr: none is taken; else how it looks
    const char* help;
    std::function<Result<void>(Config&, std::string_view)> apply;
};

Error bad(std::string_view name, std::string_view value, std::string_view wanted) {
    return Error(EINVAL, fmt::format("option {}={}: {}", name, value, wanted));
}

Result<std::uint64_t> number(std::string_view name, std::string_view text, std::uint64_t low, std::uint64_t high,
                             int base = 10) {
    std::uint64_t value = 0;
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (text.empty() || fault != std::errc{} || end != text.data() + text.size() || value < low || value > high)
        return bad(name, text, fmt::format("{}number from {} to {} expected", base == 8 ? "octal " : "", low, high));
    return value;
}

// "0-3:8": numbers and ranges.
Result<std::vector<unsigned>> processors(std::string_view text) {
    std::vector<unsigned> list;
    for (std::string_view rest = text; list.empty() || !rest.empty();) {
        const std::string_view item = rest.substr(0, rest.find(':'));
        rest.remove_prefix(std::min(rest.size(), item.size() + 1));
        const auto dash = item.find('-');
        const auto first = number("cpus", item.substr(0, dash), 0, CPU_SETSIZE - 1);
        if (!first) return first.error();
        const auto last =
            dash == std::string_view::npos ? first : number("cpus", item.substr(dash + 1), *first, CPU_SETSIZE - 1);
        if (!last) return last.error();
        for (auto cpu = *first; cpu <= *last; ++cpu) list.push_back(static_cast<unsigned>(cpu));
    }
    return list;
}

Result<std::size_t> size(std::string_view name, std::string_view text, std::size_t low, std::size_t high) {
    std::size_t shift = 0;
    std::string_view digits = text;
    if (!digits.empty()) {
        switch (digits.back()) {
            case 'K':
            case 'k': shift = 10; break;
            case 'M':
            case 'm': shift = 20; break;
            case 'G':
            case 'g': shift = 30; break;
            case 'T':
            case 't': shift = 40; break;
            default: break;
        }
        if (shift != 0) digits.remove_suffix(1);
    }
    std::size_t value = 0;
    const auto [end, fault] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    const bool fits =
        fault == std::errc{} && end == digits.data() + digits.size() && !digits.empty() && value <= (SIZE_MAX >> shift);
    if (!fits || (value << shift) < low || (value << shift) > high)
        return bad(name, text,
                   fmt::format("size from {}M to {}M expected, in bytes or with K, M, G, T", low >> 20, high >> 20));
    return value << shift;
}

Result<Duration> seconds(std::string_view name, std::string_view text, std::uint64_t low, std::uint64_t high) {
    const auto value = number(name, text, low, high);
    if (!value) return value.error();
    return Duration(std::chrono::seconds(*value));
}

// "off" is nothing.
Result<std::optional<Duration>> seconds_or_off(std::string_view name, std::string_view text, std::uint64_t low,
                                               std::uint64_t high) {
    if (text == "off") return std::optional<Duration>{};
    const auto value = seconds(name, text, low, high);
    if (!value) return bad(name, text, fmt::format("number from {} to {}, or 'off', expected", low, high));
    return std::optional<Duration>(*value);
}

template <typename T, typename Get>
Result<void> set(T& field, Get&& got) {
    if (!got) return got.error();
    field = static_cast<T>(*got);
    return {};
}

Option timer_option(const char* name, const char* help,
                    std::optional<std::uint32_t> initiator::TransportTimers::*field) {
    return {name, "SECONDS|off", help, [name, field](Config& config, std::string_view text) -> Result<void> {
                const auto value = initiator::parse_timer(text);
                if (!value) return bad(name, text, value.error().context);
                config.timers.*field = *value;
                return {};
            }};
}

Option flag(const char* name, const char* help, std::function<void(Config&)> apply) {
    return {name, nullptr, help, [apply = std::move(apply)](Config& config, std::string_view) -> Result<void> {
                apply(config);
                return {};
            }};
}

// Passed to the kernel as mount flags, or without meaning for this file system but harmless.
Option kernel_flag(const char* name, const char* help) {
    return flag(name, help, [name](Config& config) { config.mount.kernel_options.emplace_back(name); });
}

const std::vector<Option>& options() {
    static const std::vector<Option> all = {
        timer_option("reconnect_delay", "longest time between attempts to reconnect (default 10)",
                     &initiator::TransportTimers::reconnect_delay),
        timer_option("fast_io_fail_tmo", "how long I/O waits for a lost connection before it fails (default 15)",
                     &initiator::TransportTimers::fast_io_fail_tmo),
        timer_option("dev_loss_tmo", "when a lost target is removed (default 600)",
                     &initiator::TransportTimers::dev_loss_tmo),
        {"login_timeout", "SECONDS", "how long a login may take, 1..600 (default 10)",
         [](Config& config, std::string_view text) {
             return set(config.login_timeout, seconds("login_timeout", text, 1, 600));
         }},
        {"command_timeout", "SECONDS", "how long a command may take before it is aborted, 1..3600 (default 30)",
         [](Config& config, std::string_view text) {
             return set(config.command_timeout, seconds("command_timeout", text, 1, 3600));
         }},
        {"abort_timeout", "SECONDS", "how long an ABORT TASK may take before the unit is reset, 1..600 (default 5)",
         [](Config& config, std::string_view text) {
             return set(config.task_limits.abort_time, seconds("abort_timeout", text, 1, 600));
         }},
        {"reset_timeout", "SECONDS", "how long a LUN RESET may take before the connection is ended, 1..600 (default 5)",
         [](Config& config, std::string_view text) {
             return set(config.task_limits.reset_time, seconds("reset_timeout", text, 1, 600));
         }},
        {"shutdown_timeout", "SECONDS", "how long requests are served after SIGTERM, 0..600 (default 5)",
         [](Config& config, std::string_view text) {
             return set(config.shutdown_timeout, seconds("shutdown_timeout", text, 0, 600));
         }},
        {"ack_timeout", "EXPONENT", "RC local ACK time-out, 4.096 us x 2^EXPONENT, 1..31 (default: the fabric's)",
         [](Config& config, std::string_view text) -> Result<void> {
             const auto value = number("ack_timeout", text, 1, 31);
             if (!value) return value.error();
             config.ack_timeout = static_cast<std::uint8_t>(*value);
             return {};
         }},
        {"tur_interval", "SECONDS|off",
         "silence after which a target is asked with TEST UNIT READY, 1..600 (default 2)",
         [](Config& config, std::string_view text) {
             return set(config.path.interval, seconds_or_off("tur_interval", text, 1, 600));
         }},
        {"tur_timeout", "SECONDS", "how long a target that is asked may stay silent, 1..600 (default 3)",
         [](Config& config, std::string_view text) {
             return set(config.path.timeout, seconds("tur_timeout", text, 1, 600));
         }},
        {"register", "window|pool",
         "how targets reach memory: each command's while it runs, or all of it (default pool)",
         [](Config& config, std::string_view text) -> Result<void> {
             if (text != "window" && text != "pool") return bad("register", text, "'window' or 'pool' expected");
             config.registration = text == "window" ? fabric::Registration::window : fabric::Registration::pool;
             return {};
         }},
        {"cq_moderation", "COUNT:USEC|off",
         "completions, or microseconds after the first, that one interrupt waits for (default off)",
         [](Config& config, std::string_view text) -> Result<void> {
             config.moderation = {};
             if (text == "off") return {};
             const std::size_t colon = text.find(':');
             if (colon == std::string_view::npos) return bad("cq_moderation", text, "COUNT:USEC or 'off' expected");
             const auto count = number("cq_moderation", text.substr(0, colon), 1, UINT16_MAX);
             const auto period = number("cq_moderation", text.substr(colon + 1), 1, UINT16_MAX);
             if (!count || !period) return (count ? period : count).error();
             config.moderation = {static_cast<std::uint16_t>(*count), static_cast<std::uint16_t>(*period)};
             return {};
         }},
        {"rescan_interval", "SECONDS|off",
         "how often logical units are looked at without a reason, 1..86400 (default 60)",
         [](Config& config, std::string_view text) -> Result<void> {
             const auto value = seconds_or_off("rescan_interval", text, 1, 86400);
             if (!value) return value.error();
             config.rescan_interval = value->value_or(Duration::zero());
             return {};
         }},
        {"ch_count", "N", "channels of a login that names no ch_count, 1..64 (default 1)",
         [](Config& config, std::string_view text) { return set(config.ch_count, number("ch_count", text, 1, 64)); }},
        {"use_imm_data", "0|1", "ask targets for immediate data (default 1)",
         [](Config& config, std::string_view text) {
             return set(config.use_imm_data, number("use_imm_data", text, 0, 1));
         }},
        {"max_imm_data", "BYTES", "largest write sent as immediate data, 0..65536 (default 8192)",
         [](Config& config, std::string_view text) {
             return set(config.max_imm_data, number("max_imm_data", text, 0, 65536));
         }},
        {"reactors", "N",
         "threads that carry I/O, 1..64 (default 1, and up to 3 that help it given 3 processors or more)",
         [](Config& config, std::string_view text) {
             return set(config.reactors.emplace(), number("reactors", text, 1, daemon::reactors_max));
         }},
        {"cpus", "LIST", "processors to bind the reactors to, in turn, for example 0-3:8 (default: not bound)",
         [](Config& config, std::string_view text) -> Result<void> {
             auto list = processors(text);
             if (!list) return list.error();
             config.cpus = std::move(*list);
             return {};
         }},
        {"spin", "USEC",
         "how long a reactor without work looks for some before it sleeps, as long as that helps, 0..10000 (default "
         "50; "
         "0 with one processor)",
         [](Config& config, std::string_view text) -> Result<void> {
             const auto value = number("spin", text, 0, 10000);
             if (!value) return value.error();
             config.spin = std::chrono::microseconds(*value);
             return {};
         }},
        {"memory", "SIZE", "budget of registered memory, 24M..64G (default 80M, and 40M for each further reactor)",
         [](Config& config, std::string_view text) {
             return set(config.memory_bytes, size("memory", text, std::size_t{24} << 20, std::size_t{64} << 30));
         }},
        {"park", "SIZE", "memory for writes that wait for a target, of each reactor, 1M..64G (default 256M)",
         [](Config& config, std::string_view text) {
             return set(config.park_bytes, size("park", text, std::size_t{1} << 20, std::size_t{64} << 30));
         }},
        {"wait", "none", "do not wait for the login of SOURCE, and do not fail with it",
         [](Config& config, std::string_view text) -> Result<void> {
             if (text != "none") return bad("wait", text, "'none' expected");
             config.wait = daemon::WaitForTargets::none;
             return {};
         }},
        {"memory_lock", "on|try|off", "stay in memory and work when there is none left (default off)",
         [](Config& config, std::string_view text) -> Result<void> {
             if (text != "on" && text != "try" && text != "off")
                 return bad("memory_lock", text, "'on', 'try' or 'off' expected");
             config.memory_lock = text == "on"    ? daemon::MemoryLock::required
                                  : text == "try" ? daemon::MemoryLock::tried
                                                  : daemon::MemoryLock::off;
             return {};
         }},
        {"raw_commands", "read|all|none", "SCSI commands that may be sent by hand: see lunN.attr/cdb (default read)",
         [](Config& config, std::string_view text) -> Result<void> {
             if (text != "read" && text != "all" && text != "none")
                 return bad("raw_commands", text, "'read', 'all' or 'none' expected");
             config.raw_commands = text == "read"  ? daemon::RawCommands::read
                                   : text == "all" ? daemon::RawCommands::all
                                                   : daemon::RawCommands::none;
             return {};
         }},
        flag("allow_other", "let other users see the files", [](Config& config) { config.mount.allow_other = true; }),
        flag("allow_root", "let root see the files of another user's mount",
             [](Config& config) { config.mount.allow_root = true; }),
        flag("default_permissions", "check permissions in the kernel; always on", [](Config&) {}),
        {"uid", "N", "owner of LUN files (default: who mounts)",
         [](Config& config, std::string_view text) {
             return set(config.mount.uid.emplace(), number("uid", text, 0, 4294967294));
         }},
        {"gid", "N", "group of LUN files (default: who mounts)",
         [](Config& config, std::string_view text) {
             return set(config.mount.gid.emplace(), number("gid", text, 0, 4294967294));
         }},
        {"umask", "OCTAL", "permission bits that LUN files do not have (default 0177)",
         [](Config& config, std::string_view text) {
             return set(config.mount.umask.emplace(), number("umask", text, 0, 0777, 8));
         }},
        {"config", "FILE", "settings and logins of this file, and of FILE.d/*.conf",
         [](Config&, std::string_view text) -> Result<void> {
             if (text.empty()) return bad("config", text, "the path of a file expected");
             return {};  // has been read before all other options
         }},
        {"lun", "PATTERN:WORD...",
         "how units of such names are shown: ro, rw, uid=N, gid=N, mode=OCTAL, cached, direct, hide, show; may be "
         "repeated",
         [](Config& config, std::string_view text) -> Result<void> {
             auto rule = config::parse_lun_rule(text);
             if (!rule) return bad("lun", text, rule.error().context);
             config.lun_rules.push_back(std::move(*rule));
             return {};
         }},
        {"fsname", "NAME", "the source /proc/mounts shows (default: SOURCE)",
         [](Config& config, std::string_view text) -> Result<void> {
             if (text.empty()) return bad("fsname", text, "a name expected");
             config.mount.fsname = text;
             return {};
         }},
        {"subtype", "srpfs", "accepted; the type is always fuse.srpfs",
         [](Config&, std::string_view text) -> Result<void> {
             if (text != "srpfs") return bad("subtype", text, "'srpfs' expected");
             return {};
         }},
        {"max_background", "N", "asynchronous requests the kernel may have outstanding, 64..65535 (default 1024)",
         [](Config& config, std::string_view text) {
             return set(config.mount.max_background, number("max_background", text, 64, 65535));
         }},
        {"readahead", "SIZE", "how far the kernel reads ahead of who reads a cached file, 0..64M (default 1M)",
         [](Config& config, std::string_view text) {
             return set(config.mount.readahead_bytes.emplace(), size("readahead", text, 0, fs::readahead_max));
         }},
        {"truncate", "emulate|device|deny", "what truncating a LUN file does (default emulate)",
         [](Config& config, std::string_view text) -> Result<void> {
             if (text != "emulate" && text != "device" && text != "deny")
                 return bad("truncate", text, "'emulate', 'device' or 'deny' expected");
             config.mount.truncation = text == "emulate"  ? fs::Truncation::emulate
                                       : text == "device" ? fs::Truncation::device
                                                          : fs::Truncation::deny;
             return {};
         }},
        {"io_uring", "auto|on|off", "whether requests come through io_uring (default off)",
         [](Config& config, std::string_view text) -> Result<void> {
             if (text != "auto" && text != "on" && text != "off")
                 return bad("io_uring", text, "'auto', 'on' or 'off' expected");
             config.mount.io_uring = text == "on"    ? fs::RingUse::on
                                     : text == "off" ? fs::RingUse::off
                                                     : fs::RingUse::automatic;
             return {};
         }},
        {"io_uring_queue_depth", "N", "places for requests in each of the kernel's queues, 16..1024 (default 40)",
         [](Config& config, std::string_view text) {
             return set(config.mount.io_uring_queue_depth, number("io_uring_queue_depth", text, 16, 1024));
         }},
        {"pid_file", "PATH", "as -P",
         [](Config& config, std::string_view text) -> Result<void> {
             config.pid_file = text;
             return {};
         }},
        flag("debug", "as -d", [](Config& config) { config.debug = config.foreground = config.mount.debug = true; }),
        flag("ro", "as -r", [](Config& config) { config.mount.read_only = true; }),
        flag("rw", "read-write (default)", [](Config& config) { config.mount.read_only = false; }),
        kernel_flag("dev", "mount flag"),
        kernel_flag("nodev", "mount flag"),
        kernel_flag("suid", "mount flag"),
        kernel_flag("nosuid", "mount flag"),
        kernel_flag("exec", "mount flag"),
        kernel_flag("noexec", "mount flag"),
        kernel_flag("atime", "mount flag"),
        kernel_flag("noatime", "mount flag"),
        kernel_flag("sync", "mount flag"),
        kernel_flag("async", "mount flag"),
        kernel_flag("dirsync", "mount flag"),
    };
    return all;
}

// Options that users of other FUSE programs try, and why they do nothing here.
const char* why_not(std::string_view name) {
    if (name == "auto_unmount")
        return "not supported: srpfs unmounts by itself when it ends, and umount cleans up after a crash";
    if (name == "kernel_cache" || name == "auto_cache" || name == "direct_io")
        return "not supported: LUN files use direct I/O, because other initiators may write to the same unit; see "
               "cache";
    if (name == "max_read" || name == "max_write") return "not supported: requests are always up to 1 MiB";
    if (name == "max_threads" || name == "max_idle_threads" || name == "clone_fd")
        return "not supported: srpfs does not use libfuse's threads";
    if (name == "fmask" || name == "dmask") return "not supported: use umask=";
    if (name == "attr_timeout" || name == "entry_timeout" || name == "negative_timeout")
        return "not supported: srpfs tells the kernel when something changes";
    return nullptr;
}

// "a,b=c\,d" -> {"a", "b=c,d"}: a backslash quotes a comma or a backslash.
std::vector<std::string> split_options(std::string_view text) {
    std::vector<std::string> items(1);
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\\' && i + 1 < text.size() && (text[i + 1] == ',' || text[i + 1] == '\\'))
            items.back() += text[++i];
        else if (text[i] == ',')
            items.emplace_back();
        else
            items.back() += text[i];
    }
    std::erase(items, "");
    return items;
}

Result<void> apply_option(Config& config, const std::string& item) {
    const auto equals = item.find('=');
    const std::string name = item.substr(0, equals);
    const auto found =
        std::find_if(options().begin(), options().end(), [&](const Option& option) { return name == option.name; });
    if (found == options().end()) {
        if (const char* reason = why_not(name)) return Error(EINVAL, fmt::format("option {}: {}", name, reason));
        return Error(EINVAL, fmt::format("unknown option '{}'; srpfs --help lists the options", name));
    }
    if (found->value && equals == std::string::npos)
        return Error(EINVAL, fmt::format("option {} needs a value: {}={}", name, name, found->value));
    if (!found->value && equals != std::string::npos)
        return Error(EINVAL, fmt::format("option {} takes no value", name));
    return found->apply(config,
                        equals == std::string::npos ? std::string_view{} : std::string_view(item).substr(equals + 1));
}

// ---- configuration files ----

// What they can say of a mount, and how it is checked: as the same option of the command line.
config::Knowledge knowledge() {
    config::Knowledge known;
    for (const Option& option : options())
        (option.value ? known.mount_values : known.mount_flags).emplace_back(option.name);
    known.check_mount = [](const std::string& key, const std::string& value) {
        Config ignored;
        return apply_option(ignored, fmt::format("{}={}", key, value));
    };
    known.check_timer = [](const std::string& key, const std::string& value) -> Result<void> {
        const auto timer = initiator::parse_timer(value);
        return timer ? Result<void>() : bad(key, value, timer.error().context);
    };
    return known;
}

std::string joined(const std::vector<std::string>& lines) { return fmt::format("{}", fmt::join(lines, "\nsrpfs: ")); }

// Whether a SOURCE is a configuration file.
bool is_file(const std::string& source) {
    std::error_code fault;
    return source != "none" && source != "demo" && !source.starts_with("demo:") &&
           std::filesystem::is_regular_file(source, fault);
}

// What the files say, before the command line says otherwise.
Result<config::Loaded> read_configuration(Config& config, const std::string& chosen, const std::string& source) {
    std::string file = chosen;
    const bool is_all = source == "all";
    config.is_configured = is_all || is_file(source);
    if (config.is_configured && !is_all) {
        if (!chosen.empty())
            return Error(EINVAL, fmt::format("SOURCE {} is a configuration file, and config={} names another; SOURCE "
                                             "all takes what config= says",
                                             source, chosen));
        file = source;
    }
    if (file.empty() && !is_all) return config::Loaded{};
    auto loaded =
        file.empty() ? config::load(config::default_file, false, knowledge()) : config::load(file, true, knowledge());
    if (!loaded.errors.empty()) return Error(EINVAL, joined(loaded.errors));
    for (const config::Setting& one : loaded.mount) {
        const bool is_flag = std::any_of(options().begin(), options().end(),
                                         [&](const Option& option) { return one.key == option.name && !option.value; });
        if (is_flag && one.value == "no") continue;
        const auto applied = apply_option(config, is_flag ? one.key : fmt::format("{}={}", one.key, one.value));
        if (!applied) return Error(EINVAL, fmt::format("{}: {}", to_string(one.origin), applied.error().context));
    }
    config.lun_rules = loaded.lun_rules;
    config.target_rules = loaded.targets;
    if (source != "none")
        for (const config::Setting& login : loaded.logins) config.logins.push_back(login.value);
    return loaded;
}

// The timers of each section have to go with what holds where it says nothing.
Result<void> check_timers(const Config& config) {
    std::vector<std::string> errors;
    for (const config::TargetRule& rule : config.target_rules) {
        initiator::TransportTimers timers = config.timers;
        const config::Setting* last = nullptr;
        for (const config::Setting& one : rule.settings)
            if (config::is_timer(one.key)) {
                last = &one;
                if (const auto set = daemon::set_timer(timers, one); !set) return set.error();
            }
        if (!last) continue;
        if (const auto valid = initiator::validate(timers); !valid)
            errors.push_back(
                fmt::format("{}: [target {}]: {}", to_string(last->origin), rule.pattern, valid.error().context));
    }
    return errors.empty() ? Result<void>() : Error(EINVAL, joined(errors));
}

std::string help_text() {
    std::string text =
        "Usage: srpfs [options] SOURCE MOUNTPOINT\n"
        "       mount -t fuse.srpfs SOURCE MOUNTPOINT [-o options]\n"
        "\n"
        "Logs in to SRP (SCSI RDMA Protocol) targets and shows their logical units as files.\n"
        "\n"
        "SOURCE:\n"
        "  none                an empty tree; log in by writing to MOUNTPOINT/add_target\n"
        "  all                 the targets that the configuration names: -o config=FILE, else /etc/srpfs/srpfs.conf\n"
        "  FILE                the same of this file; see srpfs.conf(5)\n"
        "  LOGIN               a login string as ibsrpdm -c prints it, for example\n"
        "                      id_ext=200100e08b000000,ioc_guid=0002c90200402bd4,dest=192.168.1.7:5555\n"
        "  demo[:LUN[+LUN]]    an embedded target: LUN is ram:SIZE, file:PATH or null:SIZE, each with\n"
        "                      ,bs=512|4096 ,wce ,thin ,ro ,wwid=ID (default ";
    text += target::default_lun_list;
    text +=
        ")\n"
        "\n"
        "Options:\n"
        "  -o OPT[,OPT...]     options, below; may be given more than once\n"
        "  -f                  stay in the foreground, log to stderr\n"
        "  -d                  as -f, and log every step\n"
        "  -r                  read-only\n"
        "  -s                  accepted for compatibility; nothing changes\n"
        "  -P PIDFILE          write the process id when serving; removed last\n"
        "  -h, --help          this text\n"
        "  -V, --version       versions\n"
        "\n"
        "Options of -o:\n";
    for (const Option& option : options()) {
        const std::string left =
            option.value ? fmt::format("{}={}", option.name, option.value) : std::string(option.name);
        text += fmt::format("  {:<28} {}\n", left, option.help);
    }
    text +=
        "\n"
        "Exit status: 0 serving (or unmounted, with -f), 1 wrong usage, 2 system error, 32 the mount or the login "
        "failed.\n"
        "See srpfs(8).\n";
    return text;
}

}  // namespace

std::vector<std::string> option_names() {
    std::vector<std::string> names;
    for (const Option& option : options()) names.emplace_back(option.name);
    return names;
}

Result<std::variant<Config, Print>> parse(const std::vector<std::string>& arguments) {
    using Outcome = std::variant<Config, Print>;
    Config config;
    CLI::App app;
    app.set_help_flag();
    bool help = false, version = false, foreground = false, debug = false, read_only = false, single = false;
    std::vector<std::string> option_lists;
    std::vector<std::string> operands;
    std::string pid_file;
    app.add_flag("-h,--help", help);
    app.add_flag("-V,--version", version);
    app.add_flag("-f", foreground);
    app.add_flag("-d", debug);
    app.add_flag("-r", read_only);
    app.add_flag("-s", single);
    app.add_option("-P", pid_file);
    app.add_option("-o", option_lists)->allow_extra_args(false)->take_all();
    app.add_option("operands", operands);
    try {
        std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
        app.parse(reversed);
    } catch (const CLI::ParseError& error) {
        return Error(EINVAL, fmt::format("{}; srpfs --help shows the usage", error.what()));
    }
    if (help) return Outcome(Print{help_text()});
    if (version) return Outcome(Print{fmt::format("srpfs {}\n{}\n", SRPFS_VERSION, fs::FileSystem::versions())});

    std::vector<std::string> items;
    for (const std::string& list : option_lists)
        for (std::string& item : split_options(list)) items.push_back(std::move(item));
    std::string config_file;
    for (const std::string& item : items)
        if (item.starts_with("config=")) config_file = item.substr(std::strlen("config="));
    if (const auto read = read_configuration(config, config_file, operands.empty() ? "" : operands.front()); !read)
        return read.error();
    const bool file_says_read_only = config.mount.read_only;
    for (const std::string& item : items)
        if (const auto applied = apply_option(config, item); !applied) return applied.error();
    if (foreground) config.foreground = true;
    if (debug) config.debug = config.foreground = config.mount.debug = true;
    // mount(8) says rw whenever nobody has said ro.
    if (read_only || file_says_read_only) config.mount.read_only = true;
    if (!pid_file.empty()) config.pid_file = pid_file;
    if (const auto valid = initiator::validate(config.timers); !valid) return Error(EINVAL, valid.error().context);
    if (const auto valid = check_timers(config); !valid) return valid.error();

    if (operands.empty()) return Error(EINVAL, "SOURCE and MOUNTPOINT are missing; srpfs --help shows the usage");
    if (operands.size() == 1)
        return Error(EINVAL,
                     fmt::format("MOUNTPOINT is missing after SOURCE '{}'; srpfs --help shows the usage", operands[0]));
    if (operands.size() > 2)
        return Error(EINVAL, fmt::format("'{}' is one operand too many; srpfs --help shows the usage", operands[2]));
    config.source = operands[0];
    if (config.source.empty()) return Error(EINVAL, "SOURCE is empty; use 'none', a login string, or demo");
    if (config.source == "demo" || config.source.starts_with("demo:")) {
        const auto luns = std::string_view(config.source).substr(std::min<std::size_t>(config.source.size(), 5));
        if (const auto list = target::parse_target_list(luns.empty() ? target::default_lun_list : luns); !list)
            return Error(EINVAL, fmt::format("SOURCE: {}", list.error().context));
    } else if (config.source != "none" && !config.is_configured) {
        if (config.source.find('/') != std::string::npos && config.source.find('=') == std::string::npos)
            return Error(
                EINVAL,
                fmt::format(
                    "SOURCE {}: there is no such file, or it is no regular one; a configuration file is expected, or "
                    "all, none, demo or a login string",
                    config.source));
        if (const auto login = srp::parse_login_string(config.source); !login)
            return Error(EINVAL,
                         fmt::format("SOURCE '{}' is neither none, all nor demo, nor a file, nor a login string: {}",
                                     config.source, login.error().context));
    }
    // The background process works from /.
    std::error_code fault;
    config.mount.mountpoint = std::filesystem::absolute(operands[1], fault).lexically_normal();
    if (fault) return Error(EINVAL, fmt::format("mount point '{}': {}", operands[1], fault.message()));
    if (config.mount.mountpoint.size() > 1 && config.mount.mountpoint.ends_with('/'))
        config.mount.mountpoint.pop_back();
    if (!config.pid_file.empty()) config.pid_file = std::filesystem::absolute(config.pid_file, fault);
    if (config.mount.fsname.empty()) config.mount.fsname = config.source;
    return Outcome(std::move(config));
}

int run(int argc, char** argv) {
    const auto parsed = parse(std::vector<std::string>(argv + 1, argv + argc));
    if (!parsed) {
        fmt::print(stderr, "srpfs: {}\n", parsed.error().context);
        return daemon::exit_code::usage;
    }
    if (const auto* print = std::get_if<Print>(&*parsed)) {
        std::fputs(print->text.c_str(), stdout);
        return std::fflush(stdout) == 0 ? daemon::exit_code::ok : daemon::exit_code::system;
    }
    return daemon::run(std::get<Config>(*parsed));
}

}  // namespace srpfs::cli
