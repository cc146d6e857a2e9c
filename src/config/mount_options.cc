// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/config/config_file.h>
#include <srpfs/config/mount_options.h>

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

#include <sched.h>

namespace srpfs::config {
namespace {

using Parse = std::function<Result<MountValue>(std::string_view name, std::string_view text)>;

Error bad(std::string_view name, std::string_view value, std::string_view wanted) {
    return Error(EINVAL, fmt::format("option {}={}: {}", name, value, wanted));
}

Result<std::uint64_t> number(std::string_view name, std::string_view text, std::uint64_t low, std::uint64_t high,
                             int base = 10) {
    std::uint64_t value = 0;
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (text.empty() || fault != std::errc{} || end != text.data() + text.size() || value < low || value > high)
        return bad(name, text,
                   base == 8 ? fmt::format("octal number from {:o} to {:o} expected", low, high)
                             : fmt::format("number from {} to {} expected", low, high));
    return value;
}

Parse a_number(std::uint64_t low, std::uint64_t high, int base = 10) {
    return [=](std::string_view name, std::string_view text) -> Result<MountValue> {
        const auto value = number(name, text, low, high, base);
        if (!value) return value.error();
        return MountValue{.text = text, .number = *value};
    };
}

Parse a_number_or_off(std::uint64_t low, std::uint64_t high) {
    return [=](std::string_view name, std::string_view text) -> Result<MountValue> {
        if (text == "off") return MountValue{.text = text, .is_off = true};
        const auto value = number(name, text, low, high);
        if (!value) return bad(name, text, fmt::format("number from {} to {}, or 'off', expected", low, high));
        return MountValue{.text = text, .number = *value};
    };
}

// mount(8)'s users know names; FUSE's options have always been numbers.
Parse an_id(const char* how) {
    return [how](std::string_view name, std::string_view text) -> Result<MountValue> {
        constexpr std::uint64_t id_max = 4294967294;
        const auto value = number(name, text, 0, id_max);
        if (!value)
            return bad(name, text, fmt::format("number from 0 to {} expected; {} shows that of a name", id_max, how));
        return MountValue{.text = text, .number = *value};
    };
}

Parse a_timer() {
    return [](std::string_view name, std::string_view text) -> Result<MountValue> {
        const auto value = srp::parse_timer(text);
        if (!value) return bad(name, text, value.error().context);
        if (const auto valid = srp::validate(*srp::timer_kind(name), *value); !valid)
            return bad(name, text, valid.error().context);
        return MountValue{.text = text, .number = value->value_or(0), .is_off = !*value};
    };
}

Parse one_of(std::vector<std::string_view> words) {
    return [words = std::move(words)](std::string_view name, std::string_view text) -> Result<MountValue> {
        if (std::find(words.begin(), words.end(), text) != words.end()) return MountValue{.text = text};
        std::string wanted = fmt::format("'{}'", words.front());
        for (std::size_t i = 1; i < words.size(); ++i)
            wanted += fmt::format("{}'{}'", i + 1 == words.size() ? " or " : ", ", words[i]);
        return bad(name, text, wanted + " expected");
    };
}

Parse some_text(const char* wanted) {
    return [wanted](std::string_view name, std::string_view text) -> Result<MountValue> {
        if (text.empty() && *wanted) return bad(name, text, fmt::format("{} expected", wanted));
        return MountValue{.text = text};
    };
}

Parse a_size(std::size_t low, std::size_t high) {
    return [=](std::string_view name, std::string_view text) -> Result<MountValue> {
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
        const bool fits = fault == std::errc{} && end == digits.data() + digits.size() && !digits.empty() &&
                          value <= (SIZE_MAX >> shift);
        if (!fits || (value << shift) < low || (value << shift) > high)
            return bad(
                name, text,
                fmt::format("size from {}M to {}M expected, in bytes or with K, M, G, T", low >> 20, high >> 20));
        return MountValue{.text = text, .number = value << shift};
    };
}

// "0-3:8": numbers and ranges.
Result<MountValue> processors(std::string_view name, std::string_view text) {
    MountValue value{.text = text};
    for (std::string_view rest = text; value.numbers.empty() || !rest.empty();) {
        const std::string_view item = rest.substr(0, rest.find(':'));
        rest.remove_prefix(std::min(rest.size(), item.size() + 1));
        const auto dash = item.find('-');
        const auto first = number(name, item.substr(0, dash), 0, CPU_SETSIZE - 1);
        if (!first) return first.error();
        const auto last =
            dash == std::string_view::npos ? first : number(name, item.substr(dash + 1), *first, CPU_SETSIZE - 1);
        if (!last) return last.error();
        for (auto cpu = *first; cpu <= *last; ++cpu) value.numbers.push_back(static_cast<unsigned>(cpu));
    }
    return value;
}

Result<MountValue> moderation(std::string_view name, std::string_view text) {
    if (text == "off") return MountValue{.text = text, .is_off = true};
    const std::size_t colon = text.find(':');
    if (colon == std::string_view::npos) return bad(name, text, "COUNT:USEC or 'off' expected");
    const auto count = number(name, text.substr(0, colon), 1, UINT16_MAX);
    const auto period = number(name, text.substr(colon + 1), 1, UINT16_MAX);
    if (!count || !period) return (count ? period : count).error();
    return MountValue{.text = text, .number = *count, .second = *period};
}

Result<MountValue> lun_rule(std::string_view name, std::string_view text) {
    const auto rule = parse_lun_rule(text);
    if (!rule) return bad(name, text, rule.error().context);
    return MountValue{.text = text};
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

}  // namespace

const std::vector<MountOption>& mount_options() {
    static const std::vector<MountOption> all = {
        {"reconnect_delay", "SECONDS|off", "longest time between attempts to reconnect (default 10)", a_timer()},
        {"fast_io_fail_tmo", "SECONDS|off", "how long I/O waits for a lost connection before it fails (default 15)",
         a_timer()},
        {"dev_loss_tmo", "SECONDS|off", "when a lost target is removed (default 600)", a_timer()},
        {"login_timeout", "SECONDS", "how long a login may take, 1..600 (default 10)", a_number(1, 600)},
        {"command_timeout", "SECONDS", "how long a command may take before it is aborted, 1..3600 (default 30)",
         a_number(1, 3600)},
        {"abort_timeout", "SECONDS", "how long an ABORT TASK may take before the unit is reset, 1..600 (default 5)",
         a_number(1, 600)},
        {"reset_timeout", "SECONDS", "how long a LUN RESET may take before the connection is ended, 1..600 (default 5)",
         a_number(1, 600)},
        {"shutdown_timeout", "SECONDS", "how long requests are served after SIGTERM, 0..600 (default 5)",
         a_number(0, 600)},
        {"ack_timeout", "EXPONENT", "RC local ACK time-out, 4.096 us x 2^EXPONENT, 1..31 (default: the fabric's)",
         a_number(1, 31)},
        {"tur_interval", "SECONDS|off",
         "silence after which a target is asked with TEST UNIT READY, 1..600 (default 2)", a_number_or_off(1, 600)},
        {"tur_timeout", "SECONDS", "how long a target that is asked may stay silent, 1..600 (default 3)",
         a_number(1, 600)},
        {"register", "window|pool",
         "how targets reach memory: each command's while it runs, or all of it (default pool)",
         one_of({"window", "pool"})},
        {"cq_moderation", "COUNT:USEC|off",
         "completions, or microseconds after the first, that one interrupt waits for (default off)", moderation},
        {"rescan_interval", "SECONDS|off",
         "how often logical units are looked at without a reason, 1..86400 (default 60)", a_number_or_off(1, 86400)},
        {"ch_count", "N", "channels of a login that names no ch_count, 1..64 (default 1)", a_number(1, 64)},
        {"use_imm_data", "0|1", "ask targets for immediate data (default 1)", a_number(0, 1)},
        {"max_imm_data", "BYTES", "largest write sent as immediate data, 0..65536 (default 8192)", a_number(0, 65536)},
        {"reactors", "N",
         "threads that carry I/O, 1..64 (default 1, and up to 3 that help it given 3 processors or more)",
         a_number(1, reactors_most)},
        {"cpus", "LIST", "processors to bind the reactors to, in turn, for example 0-3:8 (default: not bound)",
         processors},
        {"spin", "USEC",
         "how long a reactor without work looks for some before it sleeps, as long as that helps, 0..10000 (default "
         "50; "
         "0 with one processor)",
         a_number(0, 10000)},
        {"memory", "SIZE", "budget of registered memory, 24M..64G (default 80M, and 40M for each further reactor)",
         a_size(std::size_t{24} << 20, std::size_t{64} << 30)},
        {"park", "SIZE", "memory for writes that wait for a target, of each reactor, 1M..64G (default 256M)",
         a_size(std::size_t{1} << 20, std::size_t{64} << 30)},
        {"wait", "none", "do not wait for the login of SOURCE, and do not fail with it", one_of({"none"})},
        {"memory_lock", "on|try|off", "stay in memory and work when there is none left (default off)",
         one_of({"on", "try", "off"})},
        {"raw_commands", "read|all|none", "SCSI commands that may be sent by hand: see lunN.attr/cdb (default read)",
         one_of({"read", "all", "none"})},
        {"allow_other", nullptr, "let other users see the files", {}},
        {"allow_root", nullptr, "let root see the files of another user's mount", {}},
        {"default_permissions", nullptr, "check permissions in the kernel; always on", {}},
        {"uid", "N", "owner of LUN files (default: who mounts)", an_id("id -u NAME")},
        {"gid", "N", "group of LUN files (default: who mounts)", an_id("getent group NAME")},
        {"umask", "OCTAL", "permission bits that LUN files do not have (default 0177)", a_number(0, 0777, 8)},
        {"config", "FILE", "settings and logins of this file, and of FILE.d/*.conf", some_text("the path of a file")},
        {"lun", "PATTERN:WORD...",
         "how units of such names are shown: ro, rw, uid=N, gid=N, mode=OCTAL, cached, direct, hide, show; may be "
         "repeated",
         lun_rule},
        {"fsname", "NAME", "the source /proc/mounts shows (default: SOURCE)", some_text("a name")},
        {"subtype", "srpfs", "accepted; the type is always fuse.srpfs", one_of({"srpfs"})},
        {"max_background", "N", "asynchronous requests the kernel may have outstanding, 64..65535 (default 1024)",
         a_number(64, 65535)},
        {"readahead", "SIZE", "how far the kernel reads ahead of who reads a cached file, 0..64M (default 1M)",
         a_size(0, readahead_most)},
        {"truncate", "emulate|device|deny", "what truncating a LUN file does (default emulate)",
         one_of({"emulate", "device", "deny"})},
        {"io_uring", "auto|on|off", "whether requests come through io_uring (default off)",
         one_of({"auto", "on", "off"})},
        {"io_uring_queue_depth", "N", "places for requests in each of the kernel's queues, 16..1024 (default 40)",
         a_number(16, 1024)},
        {"pid_file", "PATH", "as -P", some_text("")},
        {"debug", nullptr, "as -d", {}},
        {"ro", nullptr, "as -r", {}},
        {"rw", nullptr, "read-write (default)", {}},
        {"dev", nullptr, "mount flag", {}},
        {"nodev", nullptr, "mount flag", {}},
        {"suid", nullptr, "mount flag", {}},
        {"nosuid", nullptr, "mount flag", {}},
        {"exec", nullptr, "mount flag", {}},
        {"noexec", nullptr, "mount flag", {}},
        {"atime", nullptr, "mount flag", {}},
        {"noatime", nullptr, "mount flag", {}},
        {"sync", nullptr, "mount flag", {}},
        {"async", nullptr, "mount flag", {}},
        {"dirsync", nullptr, "mount flag", {}},
    };
    return all;
}

bool is_mount_flag(std::string_view name) {
    const auto& all = mount_options();
    return std::any_of(all.begin(), all.end(),
                       [&](const MountOption& option) { return name == option.name && !option.value; });
}

Result<GivenOption> parse_mount_option(std::string_view item) {
    const auto equals = item.find('=');
    const std::string_view name = item.substr(0, equals);
    const auto& all = mount_options();
    const auto found =
        std::find_if(all.begin(), all.end(), [&](const MountOption& option) { return name == option.name; });
    if (found == all.end()) {
        if (const char* reason = why_not(name)) return Error(EINVAL, fmt::format("option {}: {}", name, reason));
        std::vector<std::string> names;
        for (const MountOption& option : all) names.emplace_back(option.name);
        const std::string near = nearest(name, names);
        return Error(EINVAL, near.empty() ? fmt::format("unknown option '{}'; srpfs --help lists the options", name)
                                          : fmt::format("unknown option '{}'; did you mean '{}'? srpfs --help lists "
                                                        "the options",
                                                        name, near));
    }
    if (found->value && equals == std::string_view::npos)
        return Error(EINVAL, fmt::format("option {} needs a value: {}={}", name, name, found->value));
    if (!found->value && equals != std::string_view::npos)
        return Error(EINVAL, fmt::format("option {} takes no value", name));
    if (!found->value) return GivenOption{&*found, {}};
    auto value = found->parse(name, item.substr(equals + 1));
    if (!value) return value.error();
    return GivenOption{&*found, std::move(*value)};
}

}  // namespace srpfs::config
