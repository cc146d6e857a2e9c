// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/command_line.h>

#include <srpfs/config/config_file.h>
#include <srpfs/ctl/program.h>
#include <srpfs/ctl/text.h>
#include <srpfs/ctl/when.h>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cctype>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <utility>

namespace srpfs::ctl {
namespace {

// What the command line says, before it is understood.
struct Words {
    std::string mount, format, timeout, port, count, delay, journal, block_size, config, offset, length, seek, since,
        until;
    bool help = false, version = false, verbose = false, follow = false, batch = false;
    bool yes = false, verify = false, verify_only = false, no_resume = false;
    std::vector<std::string> operands;
};

struct Option {
    const char* names;  // as CLI11 wants them
    const char* shown;
    const char* help;
    std::string Words::*value;  // one of the two
    bool Words::*flag;
};

struct Verb {
    const char* name;
    const char* operands;  // as in the usage
    std::size_t operands_min, operands_max;
    const char* summary;
    const char* details;
    std::vector<Option> options;
};

constexpr std::size_t any = SIZE_MAX;

const std::vector<Option>& common_options() {
    static const std::vector<Option> all = {
        {"-m,--mount", "-m, --mount DIR", "the mount point, or anything below it (default: the only srpfs mount)",
         &Words::mount, nullptr},
        {"-o,--output", "-o, --output FORMAT", "table, json or plain (default: table)", &Words::format, nullptr},
        {"-t,--timeout", "-t, --timeout SECONDS",
         "how long srpfs may be silent, 1..86400 (default: 10 for looking, 120 for changing)", &Words::timeout,
         nullptr},
        {"-h,--help", "-h, --help", "this text, or that of a verb", nullptr, &Words::help},
        {"-V,--version", "-V, --version", "the version", nullptr, &Words::version}};
    return all;
}

const std::vector<Verb>& verbs() {
    static const Option port = {"-p,--port", "-p, --port PORT", "log in through this local port, such as srp-mlx5_0-1",
                                &Words::port, nullptr};
    static const std::vector<Verb> all = {
        {"list",
         "",
         0,
         0,
         "show targets and their LUNs, of all mounts",
         "One line for each LUN; a target without LUNs has a line as well.",
         {{"-v,--verbose", "-v, --verbose", "three tables: ports, targets, LUNs", nullptr, &Words::verbose}}},
        {"show",
         "WHAT",
         1,
         1,
         "show everything about a port, a target or a LUN",
         "WHAT is a path, the name of a port, of a target or of a LUN, or the identity of a LUN.",
         {}},
        {"login",
         "LOGIN...",
         1,
         any,
         "log in to a target",
         "LOGIN is a login string as ibsrpdm -c prints it, or id_ext=...,ioc_guid=...,dest=ADDRESS:PORT.",
         {port}},
        {"login-all",
         "[FILE...]",
         0,
         any,
         "log in to every line of FILE, or of standard input",
         "For example: ibsrpdm -c | srpctl login-all. Empty lines and those that begin with # do not count, "
         "and who is logged in to already is no error.",
         {port,
          {"-c,--config", "-c, --config FILE", "only to those that the rules of this configuration file allow",
           &Words::config, nullptr}}},
        {"logout", "TARGET...", 1, any, "log out of targets", "Programs that have LUNs open get errors (ENODEV).", {}},
        {"logout-all", "", 0, 0, "log out of all targets of the mount", "", {}},
        {"rescan",
         "[WHAT...]",
         0,
         any,
         "look for new, changed and vanished LUNs",
         "Of all targets, or of these ports, targets and LUNs.",
         {}},
        {"reset",
         "WHAT...",
         1,
         any,
         "reset LUNs (LUN RESET), or end the connections of targets and log in again",
         "Outstanding commands are sent again.",
         {}},
        {"set",
         "[WHAT...] KEY=VALUE...",
         1,
         any,
         "change timers of targets, or settings of LUNs",
         "Targets have reconnect_delay, fast_io_fail_tmo and dev_loss_tmo, in seconds, or off; LUNs have "
         "read_only, uid, gid, mode and cache. Without WHAT: the only target. Several at once are written in an order "
         "that srpfs does not refuse; if it refuses one, all are as before.",
         {}},
        {"reservations",
         "LUN [COMMAND [KEY] [TYPE]]",
         1,
         4,
         "show or change the persistent reservations of a LUN",
         "COMMAND is register, register-ignore, unregister, reserve, release, preempt, preempt-abort or clear; "
         "srpfs(8), Reservations, says what they do and which of KEY and TYPE each has.",
         {}},
        {"copy",
         "SRC DST",
         2,
         2,
         "copy a LUN to a file, or a file or LUN to a LUN",
         "Holes and zeros are not sent. What was interrupted is gone on with by the same command. A file has the name "
         "DST.part until all of it is there; of a LUN that is larger than SRC the rest stays as it is.",
         {{"-y,--yes", "-y, --yes", "write onto a LUN without asking", nullptr, &Words::yes},
          {"--verify", "--verify", "read both afterwards, and compare", nullptr, &Words::verify},
          {"--verify-only", "--verify-only", "compare, and copy nothing", nullptr, &Words::verify_only},
          {"--no-resume", "--no-resume", "begin anew, whatever an earlier copy has done", nullptr, &Words::no_resume},
          {"--offset", "--offset BYTES",
           "begin there in SRC (default: 0); K, M, G, T after a number are powers of 1024", &Words::offset, nullptr},
          {"--length", "--length BYTES", "copy so much (default: the rest of SRC)", &Words::length, nullptr},
          {"--seek", "--seek BYTES", "begin there in DST, a LUN (default: 0)", &Words::seek, nullptr},
          {"--journal", "--journal FILE", "where is noted how far it is (default: see srpctl(8))", &Words::journal,
           nullptr},
          {"--block-size", "--block-size BYTES", "4K..16M, a multiple of 4K (default: 1M)", &Words::block_size,
           nullptr}}},
        {"stats", "[WHAT]", 0, 1, "show what has been counted", "Of all targets, or of this port, target or LUN.", {}},
        {"top",
         "",
         0,
         0,
         "show how busy targets and LUNs are, again and again",
         "q ends it. Without a terminal, and for json and plain, it prints as with --batch.",
         {{"-b,--batch", "-b, --batch", "print one after the other, for scripts", nullptr, &Words::batch},
          {"-d,--delay", "-d, --delay SECONDS", "time between two looks, 0.1..3600 (default: 1)", &Words::delay,
           nullptr},
          {"-n,--count", "-n, --count N", "end after N of them", &Words::count, nullptr}}},
        {"events",
         "",
         0,
         0,
         "show what has happened, and what happens",
         "srpfs keeps the last 4096 events. With --follow, --timeout ends it after so many seconds without one.",
         {{"-f,--follow", "-f, --follow", "then show each event as it happens, until interrupted", nullptr,
           &Words::follow},
          {"-n,--count", "-n, --count N",
           "begin with the last N events (default: all; with --follow 10, or all since the time given)", &Words::count,
           nullptr},
          {"--since", "--since TIME",
           "none before this: \"2026-11-24 10:00\", 2026-11-24T09:00:00Z, 10:00, today, yesterday; 10m, 2h or 1d ago",
           &Words::since, nullptr},
          {"--until", "--until TIME", "none after this", &Words::until, nullptr}}},
        {"why",
         "[LOGIN|DIRECTORY|FILE...]",
         0,
         any,
         "find out what does not work, and say what can be done",
         "Looks at FUSE, RDMA devices, ports, limits, kernel settings and mounts, of a login string at the way to "
         "its target, whether a directory can be a mount point, and a file be a configuration. Changes and sends "
         "nothing.",
         {}},
        {"config",
         "check|show|convert [FILE]",
         1,
         2,
         "look at a configuration file of srpfs, or make one of srp_daemon's",
         "check says what is wrong with FILE (default: /etc/srpfs/srpfs.conf) and its drop-ins, show what holds, and "
         "in which line it stands; convert writes the rules of FILE (default: /etc/srp_daemon.conf) as srpfs.conf(5) "
         "has them.",
         {}},
        {"help", "[VERB]", 0, 1, "show what srpctl can do, or what a verb can", "The same as with --help.", {}},
    };
    return all;
}

// As srpctl(8) has them, EXIT STATUS.
struct ExitStatus {
    int code;
    const char* text;
};
constexpr ExitStatus exit_statuses[] = {
    {exit_code::ok, "done"},
    {exit_code::usage, "wrong usage"},
    {exit_code::other, "another error"},
    {exit_code::no_mount, "there is no such mount, or several to choose from, or its srpfs has ended"},
    {exit_code::not_found, "there is no such port, target or LUN, or several have the name"},
    {exit_code::login_failed, "the login failed"},
    {exit_code::not_permitted, "not permitted, or the mount is read-only"},
    {exit_code::refused_value, "the value, the login string or the configuration was refused"},
    {exit_code::no_answer, "no answer in time, of the target or of srpfs"},
    {exit_code::busy, "busy"},
    {exit_code::not_connected, "not connected"},
    {exit_code::wrong, "why has found something wrong"},
    {exit_code::differs, "copy has found a difference"},
    {exit_code::exists, "already logged in, or a file is there that was not expected"},
    {exit_code::interrupted, "copy was interrupted, by SIGINT; by another signal, 128 and its number"},
};

constexpr std::size_t help_columns = 80, help_indent = 25;

std::string help_line(std::string_view name, std::string_view text) {
    return fmt::format("  {:<22} {}\n", name, wrapped(text, help_columns, help_indent));
}

std::string help_of(const std::vector<Option>& options) {
    std::string text;
    for (const Option& option : options) text += help_line(option.shown, option.help);
    return text;
}

std::string usage_of(const Verb& verb) {
    return fmt::format("srpctl {}{}{}{}", verb.name, verb.options.empty() ? "" : " [options]",
                       *verb.operands ? " " : "", verb.operands);
}

std::string help_text() {
    std::string text =
        "Usage: srpctl [options] VERB [options] [operands]\n"
        "\n"
        "Looks at and changes what srpfs has mounted. Everything it does can be done with\n"
        "cat and echo as well.\n"
        "\n"
        "Verbs:\n";
    for (const Verb& verb : verbs()) text += help_line(verb.name, verb.summary);
    text += "\nOptions, before or after the verb:\n" + help_of(common_options());
    text += "\nsrpctl VERB --help tells more about a verb, srpctl(8) everything.\n\n";
    text += "Exit status:\n";
    for (const ExitStatus& one : exit_statuses) {
        constexpr std::size_t indent = 7;
        text += fmt::format("  {:>3}  {}\n", one.code, wrapped(one.text, help_columns, indent));
    }
    return text;
}

std::string help_text(const Verb& verb) {
    std::string text = fmt::format("Usage: {}\n\n{}{}.\n", usage_of(verb),
                                   std::string(1, static_cast<char>(std::toupper(*verb.summary))), verb.summary + 1);
    if (*verb.details) text += wrapped(verb.details, help_columns, 0) + "\n";
    text += "\nOptions:\n" + help_of(verb.options) + help_of(common_options());
    return text;
}

Result<unsigned> number(std::string_view option, std::string_view text, unsigned low, unsigned high) {
    unsigned value = 0;
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || fault != std::errc{} || end != text.data() + text.size() || value < low || value > high)
        return Error(EINVAL, fmt::format("{} {}: a number from {} to {} is expected", option, text, low, high));
    return value;
}

// Of seconds with one decimal place at most.
Result<unsigned> tenths_of(std::string_view text) {
    const auto point = text.find('.');
    const auto whole = number("--delay", text.substr(0, point), 0, 3600);
    const auto part =
        point == std::string_view::npos ? Result<unsigned>(0U) : number("--delay", text.substr(point + 1), 0, 9);
    const bool is_one_digit = point == std::string_view::npos || text.size() - point == 2;
    const unsigned tenths = whole && part && is_one_digit ? *whole * 10 + *part : 0;
    if (tenths < 1 || tenths > 36000)
        return Error(EINVAL, fmt::format("--delay {}: seconds from 0.1 to 3600 are expected", text));
    return tenths;
}

// With K, M, G, T, P or E behind it: powers of 1024. Nothing if it is no such number, or does not fit in 63 bits.
std::optional<std::uint64_t> bytes_of(std::string_view text) {
    constexpr std::string_view units = "KMGTPE";
    constexpr auto limit = static_cast<std::uint64_t>(INT64_MAX);
    std::uint64_t value = 0;
    const char* const end = text.data() + text.size();
    const auto [rest, fault] = std::from_chars(text.data(), end, value);
    if (fault != std::errc{} || end - rest > 1) return std::nullopt;
    const std::size_t unit = rest == end ? 0 : units.find(static_cast<char>(std::toupper(*rest))) + 1;
    if (rest != end && unit == 0) return std::nullopt;  // npos + 1
    if (value > limit >> (10 * unit)) return std::nullopt;
    return value << (10 * unit);
}

Result<std::uint64_t> block_size_of(const std::string& text) {
    const auto value = bytes_of(text);
    if (!value || *value < copy_block_min || *value > copy_block_max || *value % copy_block_min != 0)
        return Error(EINVAL, fmt::format("--block-size {}: a multiple of 4K from 4K to 16M is expected", text));
    return *value;
}

// The first of "SRC DST" of which there are not enough, without dots and brackets.
std::string missing_operand(const Verb& verb, std::size_t given) {
    std::vector<std::string_view> names;
    for (const std::string_view name : split(verb.operands, ' '))
        if (!name.starts_with('[')) names.push_back(name);
    std::string_view name = names[std::min(given, names.size() - 1)];
    if (name.ends_with("...")) name.remove_suffix(3);
    return std::string(name);
}

// Of a verb that there is not.
Error unknown_verb(const std::string& word) {
    std::vector<std::string> names;
    for (const Verb& verb : verbs()) names.emplace_back(verb.name);
    const std::string near = config::nearest(word, names);
    return Error(EINVAL, fmt::format("{}: no such verb; {}", word,
                                     near.empty() ? "srpctl --help shows them"
                                                  : fmt::format("did you mean {}? srpctl --help shows all", near)));
}

// Of an option that `verb`, if there is one, does not have.
Error unknown_option(std::string word, const Verb* verb, const std::vector<std::string>& arguments) {
    // Of several letters behind one dash CLI11 names what is left of them.
    if (std::find(arguments.begin(), arguments.end(), word) == arguments.end())
        for (const std::string& whole : arguments)
            if (whole.starts_with('-') && !whole.starts_with("--") && whole.ends_with(word.substr(1))) word = whole;
    std::vector<std::string> names;
    const auto add = [&](const std::vector<Option>& options) {
        for (const Option& option : options) names.emplace_back(std::strstr(option.names, "--") + 2);
    };
    if (verb) add(verb->options);
    add(common_options());
    const std::string name = word.substr(0, word.find('='));
    // Of a letter no other one is more like it than the rest.
    const auto begin = name.find_first_not_of('-');
    const std::string near =
        begin == std::string::npos || name.size() - begin < 2 ? "" : config::nearest(name.substr(begin), names);
    return Error(EINVAL,
                 fmt::format("unknown option '{}'; {}srpctl {}--help shows {}", name,
                             near.empty() ? "" : fmt::format("did you mean --{}? ", near),
                             verb ? fmt::format("{} ", verb->name) : "", verb ? "the options of this verb" : "them"));
}

Result<void> check_operands(const Verb& verb, const std::vector<std::string>& operands) {
    // Of login it is one of the login strings, and the others are not kept from being tried.
    if (std::string_view(verb.name) != "login" && std::find(operands.begin(), operands.end(), "") != operands.end())
        return Error(EINVAL, fmt::format("an operand is empty; usage: {}", usage_of(verb)));
    if (operands.size() < verb.operands_min)
        return Error(EINVAL,
                     fmt::format("{} is missing; usage: {}", missing_operand(verb, operands.size()), usage_of(verb)));
    if (operands.size() > verb.operands_max)
        return Error(EINVAL, fmt::format("'{}' is one operand too many; usage: {}", operands[verb.operands_max],
                                         usage_of(verb)));
    return {};
}

Result<Request> understand(const Verb& verb, const Words& words) {
    Request request;
    request.verb = verb.name;
    if (!words.mount.empty()) request.mount = absolute_path(words.mount);
    if (words.format == "json")
        request.format = Format::json;
    else if (words.format == "plain")
        request.format = Format::plain;
    else if (!words.format.empty() && words.format != "table")
        return Error(EINVAL, fmt::format("--output {}: table, json or plain is expected", words.format));
    if (!words.timeout.empty()) {
        const auto seconds = number("--timeout", words.timeout, 1, 86400);
        if (!seconds) return seconds.error();
        request.timeout = *seconds;
    }
    if (!words.count.empty()) {
        const bool is_of_events = request.verb == "events";  // of which none may be wanted
        const auto count = number("--count", words.count, is_of_events ? 0 : 1, 1000000000);
        if (!count) return count.error();
        if (is_of_events)
            request.event_count = *count;
        else
            request.count = *count;
    }
    if (!words.delay.empty()) {
        const auto tenths = tenths_of(words.delay);
        if (!tenths) return tenths.error();
        request.delay_tenths = *tenths;
    }
    if (!words.block_size.empty()) {
        const auto bytes = block_size_of(words.block_size);
        if (!bytes) return bytes.error();
        request.copy.block_bytes = *bytes;
    }
    for (const auto& [option, text] :
         {std::pair{"--offset", &words.offset}, {"--length", &words.length}, {"--seek", &words.seek}}) {
        if (text->empty()) continue;
        const auto bytes = bytes_of(*text);
        if (!bytes || (text == &words.length && *bytes == 0))
            return Error(
                EINVAL, fmt::format("{} {}: a number of bytes is expected, perhaps with K, M, G or T behind it", option,
                                    *text));
        if (text == &words.offset) request.copy.source_offset = *bytes;
        if (text == &words.length) request.copy.length = *bytes;
        if (text == &words.seek) request.copy.target_offset = *bytes;
    }
    for (const auto& [option, text, time] :
         {std::tuple{"--since", &words.since, &request.since}, {"--until", &words.until, &request.until}}) {
        if (text->empty()) continue;
        const auto parsed = parse_time(*text, wall_clock_ms());
        if (!parsed) return Error(EINVAL, fmt::format("{} {}: {}", option, *text, parsed.error().context));
        *time = *parsed;
    }
    if (request.since && request.until && *request.since > *request.until)
        return Error(EINVAL, fmt::format("--since {} is later than --until {}", words.since, words.until));
    if (request.until && words.follow)
        return Error(EINVAL, "--until is for what has happened, and --follow for what will; --timeout ends it");
    if (words.verify_only && words.no_resume)
        return Error(EINVAL, "--verify-only copies nothing, so --no-resume has no meaning");
    request.copy.is_confirmed = words.yes;
    request.copy.verifies = words.verify;
    request.copy.verifies_only = words.verify_only;
    request.copy.begins_anew = words.no_resume;
    if (!words.journal.empty()) request.copy.journal = absolute_path(words.journal);
    request.detail = words.verbose ? Detail::full : Detail::brief;
    request.port = words.port;
    request.config = words.config;
    request.is_batch = words.batch;
    request.follows = words.follow;
    request.operands = words.operands;
    if (const auto checked = check_operands(verb, words.operands); !checked) return checked.error();
    return request;
}

}  // namespace

bool asks_for_json(const std::vector<std::string>& arguments) {
    std::string format;
    for (std::size_t i = 0; i < arguments.size() && arguments[i] != "--"; ++i) {
        const std::string_view one = arguments[i];
        if ((one == "-o" || one == "--output") && i + 1 < arguments.size())
            format = arguments[++i];
        else if (one.starts_with("--output="))
            format = one.substr(std::strlen("--output="));
        else if (one.starts_with("-o"))
            format = one.substr(std::strlen("-o"));
    }
    return format == "json";
}

Result<std::variant<Request, Print>> parse(const std::vector<std::string>& arguments) {
    using Outcome = std::variant<Request, Print>;
    Words words;
    CLI::App app;
    app.set_help_flag();
    app.require_subcommand(0, 1);
    const auto add_options = [&](CLI::App& to, const std::vector<Option>& options) {
        for (const Option& option : options) {
            if (option.flag)
                to.add_flag(option.names, words.*option.flag)->disable_flag_override();
            else
                to.add_option(option.names, words.*option.value)->allow_extra_args(false)->take_last();
        }
    };
    add_options(app, common_options());
    for (const Verb& verb : verbs()) {
        CLI::App* below = app.add_subcommand(verb.name);
        below->set_help_flag();
        below->fallthrough();
        add_options(*below, verb.options);
        below->add_option("operands", words.operands);
    }
    try {
        std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
        app.parse(reversed);
    } catch (const CLI::ExtrasError&) {
        const std::string unknown = app.remaining(true).front();
        const auto chosen = app.get_subcommands();
        const auto& all = verbs();
        const auto verb = std::find_if(all.begin(), all.end(), [&](const Verb& one) {
            return !chosen.empty() && chosen.front()->get_name() == one.name;
        });
        if (verb == all.end() && !unknown.starts_with('-')) return unknown_verb(unknown);
        return unknown_option(unknown, verb == all.end() ? nullptr : &*verb, arguments);
    } catch (const CLI::ArgumentMismatch& error) {
        const std::string_view what = error.what(), name = what.substr(0, what.find_first_of(": "));
        if (what.ends_with("flag override"))
            return Error(EINVAL, fmt::format("--{} takes no value; srpctl --help shows the usage", name));
        return Error(EINVAL, fmt::format("{} needs a value; srpctl --help shows the usage", name));
    } catch (const CLI::ParseError& error) {
        return Error(EINVAL, fmt::format("{}; srpctl --help shows the usage", error.what()));
    }

    const auto chosen = app.get_subcommands();
    const auto empty_option = [&](CLI::App& of, const std::vector<Option>& options) -> std::string {
        for (const Option& option : options) {
            const std::string name = std::strstr(option.names, "--");
            if (option.value && (words.*option.value).empty() && of.get_option(name)->count() > 0) return name;
        }
        return {};
    };
    // Mostly a variable that has not been set: it must not stand for what holds without the option.
    std::string empty = empty_option(app, common_options());
    for (const Verb& verb : verbs())
        if (empty.empty() && !chosen.empty() && chosen.front()->get_name() == verb.name)
            empty = empty_option(*chosen.front(), verb.options);
    if (!empty.empty()) return Error(EINVAL, fmt::format("{} needs a value, and this one is empty", empty));
    if (words.version) return Outcome(Print{"srpctl " SRPFS_VERSION "\n"});
    std::string name = chosen.empty() ? "" : chosen.front()->get_name();
    if (name == "help" && !words.operands.empty()) {
        if (const auto checked = check_operands(verbs().back(), words.operands); !checked) return checked.error();
        words.help = true;
        name = words.operands.front();
    } else if (name == "help" && !words.help) {
        words.help = true;
        name.clear();
    }
    if (name.empty()) {
        if (words.help) return Outcome(Print{help_text()});
        return Error(EINVAL, "a verb is missing, such as list; srpctl --help shows them");
    }
    for (const Verb& verb : verbs()) {
        if (name != verb.name) continue;
        if (words.help) return Outcome(Print{help_text(verb)});
        auto request = understand(verb, words);
        if (!request) return request.error();
        return Outcome(std::move(*request));
    }
    return unknown_verb(name);
}

}  // namespace srpfs::ctl
