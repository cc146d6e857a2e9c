// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/cli/cli.h>

#include <srpfs/base/assert.h>
#include <srpfs/config/config_file.h>
#include <srpfs/config/mount_options.h>
#include <srpfs/srp/login_string.h>
#include <srpfs/target/target_list.h>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <span>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <unistd.h>

namespace srpfs::cli {
namespace {

using daemon::Config;

using config::MountValue;

// What an option does with a value that config::parse_mount_option() has taken.
struct Effect {
    const char* name;
    std::function<void(Config&, const MountValue&)> apply;
};

template <typename T>
void set(T& field, const MountValue& value) {
    field = static_cast<T>(value.number);
}

Duration seconds(const MountValue& value) { return std::chrono::seconds(value.number); }

Effect timer(initiator::TimerKind kind) {
    return {to_string(kind), [kind](Config& config, const MountValue& value) {
                srp::timer_of(config.timers, kind) =
                    value.is_off ? std::nullopt : std::optional(static_cast<std::uint32_t>(value.number));
            }};
}

// Passed to the kernel as mount flags, or without meaning for this file system but harmless.
Effect kernel_flag(const char* name) {
    return {name, [name](Config& config, const MountValue&) { config.mount.kernel_options.emplace_back(name); }};
}

static_assert(config::reactors_most == daemon::reactors_max);
static_assert(config::readahead_most == fs::readahead_max);

const std::vector<Effect>& effects() {
    static const std::vector<Effect> all = {
        timer(initiator::TimerKind::reconnect_delay),
        timer(initiator::TimerKind::fast_io_fail_tmo),
        timer(initiator::TimerKind::dev_loss_tmo),
        {"login_timeout", [](Config& config, const MountValue& value) { config.login_timeout = seconds(value); }},
        {"command_timeout", [](Config& config, const MountValue& value) { config.command_timeout = seconds(value); }},
        {"abort_timeout",
         [](Config& config, const MountValue& value) { config.task_limits.abort_time = seconds(value); }},
        {"reset_timeout",
         [](Config& config, const MountValue& value) { config.task_limits.reset_time = seconds(value); }},
        {"shutdown_timeout", [](Config& config, const MountValue& value) { config.shutdown_timeout = seconds(value); }},
        {"ack_timeout",
         [](Config& config, const MountValue& value) { config.ack_timeout = static_cast<std::uint8_t>(value.number); }},
        {"tur_interval",
         [](Config& config, const MountValue& value) {
             config.path.interval = value.is_off ? std::nullopt : std::optional(seconds(value));
         }},
        {"tur_timeout", [](Config& config, const MountValue& value) { config.path.timeout = seconds(value); }},
        {"register",
         [](Config& config, const MountValue& value) {
             config.registration = value.text == "window" ? fabric::Registration::window : fabric::Registration::pool;
         }},
        {"cq_moderation",
         [](Config& config, const MountValue& value) {
             config.moderation = {};
             if (!value.is_off)
                 config.moderation = {static_cast<std::uint16_t>(value.number),
                                      static_cast<std::uint16_t>(value.second)};
         }},
        {"rescan_interval",
         [](Config& config, const MountValue& value) {
             config.rescan_interval = value.is_off ? Duration::zero() : seconds(value);
         }},
        {"ch_count", [](Config& config, const MountValue& value) { set(config.ch_count, value); }},
        {"use_imm_data", [](Config& config, const MountValue& value) { set(config.use_imm_data, value); }},
        {"max_imm_data", [](Config& config, const MountValue& value) { set(config.max_imm_data, value); }},
        {"reactors", [](Config& config, const MountValue& value) { set(config.reactors.emplace(), value); }},
        {"cpus", [](Config& config, const MountValue& value) { config.cpus = value.numbers; }},
        {"spin",
         [](Config& config, const MountValue& value) { config.spin = std::chrono::microseconds(value.number); }},
        {"memory", [](Config& config, const MountValue& value) { set(config.memory_bytes, value); }},
        {"park", [](Config& config, const MountValue& value) { set(config.park_bytes, value); }},
        {"wait", [](Config& config, const MountValue&) { config.wait = daemon::WaitForTargets::none; }},
        {"memory_lock",
         [](Config& config, const MountValue& value) {
             config.memory_lock = value.text == "on"    ? daemon::MemoryLock::required
                                  : value.text == "try" ? daemon::MemoryLock::tried
                                                        : daemon::MemoryLock::off;
         }},
        {"raw_commands",
         [](Config& config, const MountValue& value) {
             config.raw_commands = value.text == "read"  ? daemon::RawCommands::read
                                   : value.text == "all" ? daemon::RawCommands::all
                                                         : daemon::RawCommands::none;
         }},
        {"allow_other", [](Config& config, const MountValue&) { config.mount.allow_other = true; }},
        {"allow_root", [](Config& config, const MountValue&) { config.mount.allow_root = true; }},
        {"default_permissions", [](Config&, const MountValue&) {}},
        {"uid", [](Config& config, const MountValue& value) { set(config.mount.uid.emplace(), value); }},
        {"gid", [](Config& config, const MountValue& value) { set(config.mount.gid.emplace(), value); }},
        {"umask", [](Config& config, const MountValue& value) { set(config.mount.umask.emplace(), value); }},
        {"config", [](Config&, const MountValue&) {}},  // has been read before all other options
        {"lun",
         [](Config& config, const MountValue& value) {
             if (auto rule = config::parse_lun_rule(value.text)) config.lun_rules.push_back(std::move(*rule));
         }},
        {"fsname", [](Config& config, const MountValue& value) { config.mount.fsname = value.text; }},
        {"subtype", [](Config&, const MountValue&) {}},
        {"max_background", [](Config& config, const MountValue& value) { set(config.mount.max_background, value); }},
        {"readahead",
         [](Config& config, const MountValue& value) { set(config.mount.readahead_bytes.emplace(), value); }},
        {"truncate",
         [](Config& config, const MountValue& value) {
             config.mount.truncation = value.text == "emulate"  ? fs::Truncation::emulate
                                       : value.text == "device" ? fs::Truncation::device
                                                                : fs::Truncation::deny;
         }},
        {"io_uring",
         [](Config& config, const MountValue& value) {
             config.mount.io_uring = value.text == "on"    ? fs::RingUse::on
                                     : value.text == "off" ? fs::RingUse::off
                                                           : fs::RingUse::automatic;
         }},
        {"io_uring_queue_depth",
         [](Config& config, const MountValue& value) { set(config.mount.io_uring_queue_depth, value); }},
        {"pid_file", [](Config& config, const MountValue& value) { config.pid_file = value.text; }},
        {"debug",
         [](Config& config, const MountValue&) { config.debug = config.foreground = config.mount.debug = true; }},
        {"ro", [](Config& config, const MountValue&) { config.mount.read_only = true; }},
        {"rw", [](Config& config, const MountValue&) { config.mount.read_only = false; }},
        kernel_flag("dev"),
        kernel_flag("nodev"),
        kernel_flag("suid"),
        kernel_flag("nosuid"),
        kernel_flag("exec"),
        kernel_flag("noexec"),
        kernel_flag("atime"),
        kernel_flag("noatime"),
        kernel_flag("sync"),
        kernel_flag("async"),
        kernel_flag("dirsync"),
    };
    return all;
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
    const auto given = config::parse_mount_option(item);
    if (!given) return given.error();
    const auto effect = std::find_if(effects().begin(), effects().end(), [&](const Effect& one) {
        return std::string_view(one.name) == given->option->name;
    });
    SRPFS_ASSERT(effect != effects().end());
    effect->apply(config, given->value);
    return {};
}

// ---- configuration files ----

std::string joined(const std::vector<std::string>& lines) { return fmt::format("{}", fmt::join(lines, "\nsrpfs: ")); }

// Whether a SOURCE is a configuration file.
bool is_file(const std::string& source) {
    std::error_code fault;
    return source != "none" && source != "demo" && !source.starts_with("demo:") &&
           std::filesystem::is_regular_file(source, fault);
}

// What the files say, before the command line says otherwise.
Result<void> read_configuration(Config& config, const std::string& chosen, const std::string& source,
                                std::span<const config::Setting> overriding) {
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
    if (file.empty() && !is_all) return {};
    auto loaded =
        file.empty() ? config::load(config::default_file, false, overriding) : config::load(file, true, overriding);
    if (!loaded.errors.empty()) return Error(EINVAL, joined(loaded.errors));
    for (const config::Setting& one : loaded.mount) {
        const bool is_flag = config::is_mount_flag(one.key);
        if (is_flag && one.value == "no") continue;
        const auto applied = apply_option(config, is_flag ? one.key : fmt::format("{}={}", one.key, one.value));
        if (!applied) return Error(EINVAL, fmt::format("{}: {}", to_string(one.origin), applied.error().context));
    }
    config.lun_rules = loaded.lun_rules;
    config.target_rules = loaded.targets;
    if (source != "none")
        for (const config::Setting& login : loaded.logins) config.logins.push_back(login.value);
    return {};
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
    for (const config::MountOption& option : config::mount_options()) {
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

// What is meant by an option that there is not, as one would write it; empty if none is near.
std::string nearest_option(std::string_view word) {
    // By the names that other programs have for the letters.
    constexpr std::pair<const char*, const char*> own[] = {
        {"help", "--help"},  {"version", "--version"}, {"foreground", "-f"}, {"debug", "-d"},
        {"read_only", "-r"}, {"pid_file", "-P"},       {"options", "-o"}};
    std::string name(word.substr(std::min(word.find_first_not_of('-'), word.size())));
    name.resize(std::min(name.find('='), name.size()));
    std::replace(name.begin(), name.end(), '-', '_');
    if (name.size() < 2) return {};  // of a letter no other one is more like it than the rest
    std::vector<std::string> names;
    for (const auto& [long_name, option] : own) names.emplace_back(long_name);
    for (std::string& one : option_names()) names.push_back(std::move(one));
    const std::string near = config::nearest(name, names);
    for (const auto& [long_name, option] : own)
        if (near == long_name) return option;
    return near.empty() ? "" : fmt::format("-o {}", near);
}

Error unknown_option(std::string word, const std::vector<std::string>& arguments) {
    // Of several letters behind one dash CLI11 names what is left of them.
    if (std::find(arguments.begin(), arguments.end(), word) == arguments.end())
        for (const std::string& whole : arguments)
            if (whole.starts_with('-') && !whole.starts_with("--") && whole.ends_with(word.substr(1))) word = whole;
    const std::string near = nearest_option(word);
    return Error(EINVAL, fmt::format("unknown option '{}'; {}srpfs --help lists the options", word,
                                     near.empty() ? "" : fmt::format("did you mean {}? ", near)));
}

// Of the three standard files those that are closed become ones that can be neither read nor written: otherwise
// /dev/fuse would be one of them, and be closed as such in the background.
void keep_standard_files() {
    for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
        if (fcntl(descriptor, F_GETFD) < 0 && errno == EBADF)
            // The lowest number that is free. Without /dev/null it stays as it is.
            [[maybe_unused]]
            const int kept = open("/dev/null", descriptor == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

}  // namespace

std::vector<std::string> option_names() {
    std::vector<std::string> names;
    for (const config::MountOption& option : config::mount_options()) names.emplace_back(option.name);
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
    app.add_flag("-h,--help", help)->disable_flag_override();
    app.add_flag("-V,--version", version)->disable_flag_override();
    app.add_flag("-f", foreground)->disable_flag_override();
    app.add_flag("-d", debug)->disable_flag_override();
    app.add_flag("-r", read_only)->disable_flag_override();
    app.add_flag("-s", single)->disable_flag_override();
    app.add_option("-P", pid_file);
    app.add_option("-o", option_lists)->allow_extra_args(false)->take_all();
    app.add_option("operands", operands);
    try {
        std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
        app.parse(reversed);
    } catch (const CLI::ExtrasError&) {
        return unknown_option(app.remaining(true).front(), arguments);
    } catch (const CLI::ArgumentMismatch& error) {
        const std::string_view what = error.what(), name = what.substr(0, what.find_first_of(": "));
        if (what.ends_with("flag override"))
            return Error(EINVAL, fmt::format("--{} takes no value; srpfs --help shows the usage", name));
        return Error(EINVAL, fmt::format("{} needs a value; srpfs --help shows the usage", name));
    } catch (const CLI::ParseError& error) {
        return Error(EINVAL, fmt::format("{}; srpfs --help shows the usage", error.what()));
    }
    if (help) return Outcome(Print{help_text()});
    if (version) return Outcome(Print{fmt::format("srpfs {}\n{}\n", SRPFS_VERSION, fs::FileSystem::versions())});

    std::vector<std::string> items;
    for (const std::string& list : option_lists)
        for (std::string& item : split_options(list)) items.push_back(std::move(item));
    std::string config_file;
    std::vector<config::Setting> said;
    for (const std::string& item : items) {
        if (item.starts_with("config=")) config_file = item.substr(std::strlen("config="));
        const auto equals = std::min(item.find('='), item.size());
        said.push_back({item.substr(0, equals), item.substr(std::min(equals + 1, item.size())), {}});
    }
    if (const auto read = read_configuration(config, config_file, operands.empty() ? "" : operands.front(), said);
        !read)
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
    keep_standard_files();
    const auto parsed = parse(std::vector<std::string>(argv + 1, argv + argc));
    if (!parsed) {
        fmt::print(stderr, "srpfs: {}\n", parsed.error().context);
        return daemon::exit_code::usage;
    }
    if (const auto* print = std::get_if<Print>(&*parsed)) {
        if (std::fputs(print->text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0) return daemon::exit_code::ok;
        fmt::print(stderr, "srpfs: standard output: {}\n", std::strerror(errno));
        return daemon::exit_code::system;
    }
    return daemon::run(std::get<Config>(*parsed));
}

}  // namespace srpfs::cli
