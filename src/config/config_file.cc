// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/config/config_file.h>

#include <srpfs/base/utf8.h>
#include <srpfs/config/mount_options.h>

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <tuple>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace srpfs::config {
namespace {

// Keys of login strings that have a default; the others say which target is meant.
const std::vector<std::string>& target_keys() {
    static const std::vector<std::string> all = [] {
        std::vector<std::string> keys{"reconnect_delay", "fast_io_fail_tmo", "dev_loss_tmo"};
        const std::string grammar = srp::login_grammar();
        for (std::size_t begin = 0; begin < grammar.size(); begin = grammar.find('\n', begin) + 1) {
            std::string key = grammar.substr(begin, grammar.find('=', begin) - begin);
            constexpr std::string_view naming[] = {"id_ext", "ioc_guid", "dgid",          "pkey",    "service_id",
                                                   "dest",   "src",      "initiator_ext", "io_class"};
            if (std::find(std::begin(naming), std::end(naming), key) == std::end(naming))
                keys.push_back(std::move(key));
        }
        return keys;
    }();
    return all;
}

const std::vector<std::string>& lun_words() {
    static const std::vector<std::string> all{"ro", "rw", "uid", "gid", "mode", "show", "cached", "direct", "hide"};
    return all;
}

const std::vector<std::string>& login_keys() {
    static const std::vector<std::string> all{"login", "allow", "deny"};
    return all;
}

bool contains(const std::vector<std::string>& list, std::string_view one) {
    return std::find(list.begin(), list.end(), one) != list.end();
}

std::string_view trimmed(std::string_view text) {
    constexpr std::string_view blanks = " \t";
    const auto first = text.find_first_not_of(blanks);
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

// What a person sees of a word that is wrong: not more than fits a line.
std::string shown(std::string_view text) {
    constexpr std::size_t most = 60;
    if (text.size() <= most) return std::string(text);
    std::size_t end = most;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;  // not within a character
    return std::string(text.substr(0, end)) + "...";
}

// Why the line is no text; empty: it is.
std::string no_text(std::string_view line) {
    for (std::size_t i = 0; i < line.size();) {
        const auto byte = static_cast<unsigned char>(line[i]);
        if (byte == 0) return "there is a NUL byte in this line; is the file damaged?";
        if ((byte < 0x20 && byte != '\t') || byte == 0x7f)
            return fmt::format("there is a control character in this line (byte {:02x}h)", byte);
        const std::size_t count = character_bytes(line.substr(i));
        if (count == 0) return fmt::format("this line is not UTF-8 (byte {:02x}h, column {})", byte, i + 1);
        i += count;
    }
    return {};
}

std::string heading(const Section& section) {
    return section.pattern.empty() ? fmt::format("[{}]", to_string(section.kind))
                                   : fmt::format("[{} {}]", to_string(section.kind), shown(section.pattern));
}

class Parser {
public:
    Parser(const std::string& name, std::vector<std::string>& errors) : name_(name), errors_(errors) {}

    std::vector<Section> parse(std::string_view text) {
        if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);  // some editors begin with it
        while (!text.empty()) {
            std::string_view line = text.substr(0, text.find('\n'));
            text.remove_prefix(std::min(text.size(), line.size() + 1));
            ++line_;
            if (line.ends_with('\r')) line.remove_suffix(1);
            if (const std::string fault = no_text(line); !fault.empty()) {
                complain(fault);
                continue;
            }
            line = trimmed(line);
            if (line.empty() || line.front() == '#') continue;
            if (line.front() == '[')
                begin_section(line);
            else
                setting(line);
        }
        return std::move(sections_);
    }

private:
    void complain(std::string_view what) { errors_.push_back(fmt::format("{}:{}: {}", name_, line_, what)); }

    void begin_section(std::string_view line) {
        is_known_ = false;
        const auto wrong = [&](std::string_view what) {
            complain(what);
            skipping_ = true;  // one complaint is enough
        };
        if (line.back() != ']' || line.size() < 3) return wrong("a section begins with [NAME] or [NAME PATTERN]");
        const std::string_view inside = trimmed(line.substr(1, line.size() - 2));
        const std::string_view name = inside.substr(0, inside.find_first_of(" \t"));
        Section section;
        section.pattern = trimmed(inside.substr(name.size()));
        section.origin = {name_, line_};
        static const std::vector<std::string> names{"mount", "login", "target", "lun"};
        const auto found = std::find(names.begin(), names.end(), name);
        if (found == names.end()) {
            const std::string near = nearest(name, names);
            return wrong(fmt::format("unknown section [{}]; {}", shown(inside),
                                     near.empty() ? std::string("there are [mount], [login], [target PATTERN] and "
                                                                "[lun PATTERN]")
                                                  : fmt::format("did you mean [{}]?", near)));
        }
        section.kind = static_cast<SectionKind>(found - names.begin());
        const bool takes_pattern = section.kind == SectionKind::target || section.kind == SectionKind::lun;
        if (!takes_pattern && !section.pattern.empty())
            return wrong(fmt::format("[{}] takes no pattern; '{}' is too much", name, shown(section.pattern)));
        if (takes_pattern)
            if (const auto fine = check_pattern(section.pattern); !fine)
                return wrong(fmt::format("[{} PATTERN]: {}", name, fine.error().context));
        is_known_ = true;
        sections_.push_back(std::move(section));
    }

    void setting(std::string_view line) {
        if (!is_known_) {
            if (!std::exchange(skipping_, true)) complain("this stands before the first section, such as [mount]");
            return;
        }
        Section& section = sections_.back();
        const auto equals = std::min(line.find('='), line.size());
        const bool has_value = equals != line.size();
        Setting one;
        one.key = trimmed(line.substr(0, equals));
        one.value = has_value ? trimmed(line.substr(equals + 1)) : std::string_view{};
        one.origin = {name_, line_};
        if (one.key.empty()) return complain("KEY = VALUE expected; there is nothing in front of =");
        if (const auto fine = check(section, one, has_value); !fine) return complain(fine.error().context);
        const bool may_repeat =
            section.kind == SectionKind::login || (section.kind == SectionKind::mount && one.key == "lun");
        const auto [first, is_new] =
            seen_.try_emplace(std::tuple(section.kind, section.pattern, one.key), one.origin.line);
        if (!is_new && !may_repeat)
            return complain(
                fmt::format("{} is given twice in {}; first in line {}", one.key, heading(section), first->second));
        section.settings.push_back(std::move(one));
    }

    [[nodiscard]] static Error unknown(const Section& section, const std::string& key, std::vector<std::string> known) {
        std::sort(known.begin(), known.end());
        const std::string near = nearest(key, known);
        return {EINVAL, near.empty() ? fmt::format("unknown key \"{}\" in {}; srpfs.conf(5) lists the keys", shown(key),
                                                   heading(section))
                                     : fmt::format("unknown key \"{}\" in {}; did you mean \"{}\"?", shown(key),
                                                   heading(section), near)};
    }
    static Error needs_value(const std::string& key) {
        return {EINVAL, fmt::format("{} needs a value: {} = ...", key, key)};
    }

    [[nodiscard]] static Result<void> check(const Section& section, Setting& one, bool has_value) {
        switch (section.kind) {
            case SectionKind::mount: return check_mount(section, one, has_value);
            case SectionKind::login: return check_login(section, one, has_value);
            case SectionKind::target: return check_target(section, one, has_value);
            case SectionKind::lun: {
                if (!contains(lun_words(), one.key)) return unknown(section, one.key, lun_words());
                LunOptions ignored;
                return apply_lun_word(ignored, has_value ? fmt::format("{}={}", one.key, one.value) : one.key);
            }
        }
        return {};
    }

    [[nodiscard]] static Result<void> check_mount(const Section& section, Setting& one, bool has_value) {
        if (one.key == "config") return Error(EINVAL, "config: a configuration file cannot name another one");
        if (is_mount_flag(one.key)) {
            if (!has_value) one.value = "yes";
            if (one.value != "yes" && one.value != "no")
                return Error(EINVAL, fmt::format("{} = {}: yes or no expected", one.key, shown(one.value)));
            return {};
        }
        std::vector<std::string> known;
        for (const MountOption& option : mount_options()) known.emplace_back(option.name);
        if (!contains(known, one.key)) return unknown(section, one.key, std::move(known));
        if (!has_value) return needs_value(one.key);
        const auto given = parse_mount_option(fmt::format("{}={}", one.key, one.value));
        return given ? Result<void>() : given.error();
    }

    [[nodiscard]] static Result<void> check_login(const Section& section, const Setting& one, bool has_value) {
        if (!contains(login_keys(), one.key)) return unknown(section, one.key, login_keys());
        if (one.key == "login") {
            if (!has_value) return needs_value(one.key);
            if (const auto login = srp::parse_login_string(one.value); !login) return login.error();
            return {};
        }
        const auto rule = parse_login_rule(one.key == "allow", one.value);
        return rule ? Result<void>() : rule.error();
    }

    [[nodiscard]] static Result<void> check_target(const Section& section, const Setting& one, bool has_value) {
        if (!contains(target_keys(), one.key)) return unknown(section, one.key, target_keys());
        if (!has_value) return needs_value(one.key);
        if (is_timer(one.key)) {
            const auto given = parse_mount_option(fmt::format("{}={}", one.key, one.value));
            return given ? Result<void>() : given.error();
        }
        if (one.value.find(',') != std::string::npos)
            return Error(EINVAL, fmt::format("{} = {}: one value expected", one.key, shown(one.value)));
        const auto tried =
            srp::parse_login_string(fmt::format("id_ext=1,ioc_guid=1,dest=demo,{}={}", one.key, one.value));
        if (tried) return {};
        // Without the place within a string that nobody has written.
        const std::string& text = tried.error().context;
        const auto place = text.find("): ");
        std::string reason = place == std::string::npos ? text : text.substr(place + 3);
        if (reason.ends_with('.')) reason.pop_back();
        return Error(EINVAL, reason);
    }

    const std::string name_;
    std::vector<std::string>& errors_;
    std::vector<Section> sections_;
    std::map<std::tuple<SectionKind, std::string, std::string>, unsigned> seen_;
    unsigned line_ = 0;
    bool is_known_ = false;
    bool skipping_ = false;
};

// The names of drop-ins, sorted.
// A file, or a directory, that somebody else than root and who reads it can change is not to be trusted.
Result<void> check_trusted(const std::string& path, const struct stat& status) {
    const auto refused = [&](const std::string& why) { return Error(EPERM, fmt::format("{}: {}", path, why)); };
    if (status.st_mode & S_IWOTH)
        return refused(fmt::format("everybody can write it, so it is not used; chmod o-w {}", path));
    if ((status.st_mode & S_IWGRP) && status.st_gid != 0 && status.st_gid != getegid())
        return refused(
            fmt::format("gid {} can write it, which is the group neither of root nor of who reads it, so it "
                        "is not used; chmod g-w {}",
                        status.st_gid, path));
    if (status.st_uid != 0 && status.st_uid != geteuid())
        return refused(fmt::format("belongs to uid {}, and neither to root nor to who reads it, so it is not used",
                                   status.st_uid));
    return {};
}

Result<std::vector<std::string>> drop_ins(const std::string& directory) {
    std::vector<std::string> found;
    const std::unique_ptr<DIR, int (*)(DIR*)> open(opendir(directory.c_str()), closedir);
    if (!open) {
        if (errno == ENOENT || errno == ENOTDIR) return found;
        return Error(errno, fmt::format("{}: cannot be read: {}", directory, std::strerror(errno)));
    }
    struct stat status {};
    if (fstat(dirfd(open.get()), &status) != 0)
        return Error(errno, fmt::format("{}: {}", directory, std::strerror(errno)));
    if (const auto trusted = check_trusted(directory, status); !trusted) return trusted.error();
    while (const dirent* entry = readdir(open.get())) {
        const std::string_view name = entry->d_name;
        if (name.ends_with(".conf") && !name.starts_with('.')) found.push_back(fmt::format("{}/{}", directory, name));
    }
    std::sort(found.begin(), found.end());
    return found;
}

}  // namespace

std::string to_string(const Origin& origin) { return fmt::format("{}:{}", origin.file, origin.line); }

const char* to_string(SectionKind kind) {
    switch (kind) {
        case SectionKind::mount: return "mount";
        case SectionKind::login: return "login";
        case SectionKind::target: return "target";
        case SectionKind::lun: return "lun";
    }
    return "?";
}

bool is_timer(std::string_view key) { return srp::timer_kind(key).has_value(); }

std::vector<std::string> check_timers(std::span<const Setting> mount, std::span<const TargetRule> targets) {
    std::vector<std::string> errors;
    // nullptr: it has said nothing about timers. Later ones replace earlier ones.
    const auto take = [](srp::TransportTimers& timers, std::span<const Setting> settings) {
        const Setting* last = nullptr;
        for (const Setting& one : settings) {
            const auto kind = srp::timer_kind(one.key);
            const auto value = kind ? srp::parse_timer(one.value) : Error(EINVAL, "");
            if (!value) continue;
            srp::timer_of(timers, *kind) = *value;
            if (!last || !one.origin.file.empty()) last = &one;
        }
        return last;
    };
    const auto complain = [&](const Setting& last, const std::string& what) {
        errors.push_back(last.origin.file.empty() ? what : fmt::format("{}: {}", to_string(last.origin), what));
    };
    srp::TransportTimers usual;
    const Setting* last = take(usual, mount);
    const auto together = srp::validate(usual);
    if (last && !together) {
        complain(*last, together.error().context);
        usual = {};
    }
    for (const TargetRule& rule : targets) {
        srp::TransportTimers timers = usual;
        last = take(timers, rule.settings);
        // Where the mount's timers are wrong only what does not depend on them is complained about.
        const bool says_both = std::count_if(rule.settings.begin(), rule.settings.end(), [](const Setting& one) {
                                   return one.key == "fast_io_fail_tmo" || one.key == "dev_loss_tmo";
                               }) == 2;
        if (!last || (!together && !says_both)) continue;
        if (const auto valid = srp::validate(timers); !valid)
            complain(*last, fmt::format("[target {}]: {}", rule.pattern, valid.error().context));
    }
    return errors;
}

// Levenshtein's distance, to each of them; half of the word may be wrong.
std::string nearest(std::string_view word, std::span<const std::string> known) {
    constexpr std::size_t longest = 64;
    if (word.empty() || word.size() > longest) return {};
    std::string best;
    std::size_t least = word.size() / 2 + 1;
    for (const std::string& candidate : known) {
        std::vector<std::size_t> row(candidate.size() + 1);
        std::iota(row.begin(), row.end(), std::size_t{0});
        for (std::size_t i = 0; i < word.size(); ++i) {
            std::size_t diagonal = std::exchange(row[0], i + 1);
            for (std::size_t j = 0; j < candidate.size(); ++j) {
                const std::size_t replaced = diagonal + (word[i] == candidate[j] ? 0 : 1);
                diagonal = row[j + 1];
                row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
            }
        }
        if (row.back() >= least) continue;
        least = row.back();
        best = candidate;
    }
    return best;
}

std::vector<Section> parse_file(const std::string& name, std::string_view text, std::vector<std::string>& errors) {
    return Parser(name, errors).parse(text);
}

Loaded resolve(std::vector<Section> sections) {
    Loaded all;
    std::vector<Setting> logins;
    for (const Section& section : sections) {
        LunRule lun{section.pattern, {}};
        for (const Setting& one : section.settings) {
            switch (section.kind) {
                case SectionKind::mount:
                    if (one.key == "lun") {
                        if (const auto rule = parse_lun_rule(one.value)) all.lun_rules.push_back(*rule);
                        break;
                    }
                    std::erase_if(all.mount, [&](const Setting& earlier) { return earlier.key == one.key; });
                    all.mount.push_back(one);
                    break;
                case SectionKind::login:
                    if (one.key == "login")
                        logins.push_back(one);
                    else if (const auto rule = parse_login_rule(one.key == "allow", one.value))
                        all.login_rules.push_back(*rule);
                    break;
                case SectionKind::target: break;
                case SectionKind::lun:
                    if (const auto applied = apply_lun_word(
                            lun.options, one.value.empty() ? one.key : fmt::format("{}={}", one.key, one.value));
                        !applied)
                        all.errors.push_back(fmt::format("{}: {}", to_string(one.origin), applied.error().context));
                    break;
            }
        }
        if (section.kind == SectionKind::lun) all.lun_rules.push_back(std::move(lun));
        if (section.kind == SectionKind::target) all.targets.push_back({section.pattern, section.settings});
    }
    for (Setting& login : logins) {
        const auto parameters = srp::parse_login_string(login.value);
        if (!parameters) continue;  // complained about by who has parsed it
        const LoginRule* rule = rule_for(all.login_rules, *parameters);
        if (rule && !rule->allows) {
            all.denied.push_back(std::move(login));
            continue;
        }
        if (rule && !rule->options.empty()) login.value += "," + rule->options;
        const bool is_there = std::any_of(all.logins.begin(), all.logins.end(),
                                          [&](const Setting& other) { return other.value == login.value; });
        if (!is_there) all.logins.push_back(std::move(login));
    }
    all.sections = std::move(sections);
    return all;
}

Result<std::string> read_file(const std::string& path) {
    const auto refused = [&](int code, std::string_view why) { return Error(code, fmt::format("{}: {}", path, why)); };
    // O_NONBLOCK: a FIFO would make us wait for its writer.
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) return refused(errno, fmt::format("cannot be read: {}", std::strerror(errno)));
    struct Closer {
        int fd;
        ~Closer() { close(fd); }
    } closer{fd};
    struct stat status {};
    if (fstat(fd, &status) != 0) return refused(errno, std::strerror(errno));
    if (S_ISDIR(status.st_mode)) return refused(EISDIR, "is a directory, and not a configuration file");
    if (!S_ISREG(status.st_mode)) return refused(EINVAL, "is not a regular file");
    if (const auto trusted = check_trusted(path, status); !trusted) return trusted.error();
    std::string text;
    std::string piece(65536, '\0');
    while (text.size() <= file_bytes_max) {
        const ssize_t got = read(fd, piece.data(), piece.size());
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return refused(errno, fmt::format("cannot be read: {}", std::strerror(errno)));
        if (got == 0) return text;
        text.append(piece, 0, static_cast<std::size_t>(got));
    }
    return refused(EFBIG, fmt::format("is larger than {} KiB", file_bytes_max >> 10));
}

Loaded load(const std::string& file, bool required, std::span<const Setting> overriding) {
    std::vector<std::string> errors, files;
    std::vector<Section> sections;
    const auto take = [&](const std::string& name, bool needed) {
        const auto text = read_file(name);
        if (!text) {
            if (needed || text.error().errno_value() != ENOENT) errors.push_back(text.error().context);
            return;
        }
        files.push_back(name);
        for (Section& one : parse_file(name, *text, errors)) sections.push_back(std::move(one));
    };
    take(file, required);
    const auto further = drop_ins(file + ".d");
    if (!further) errors.push_back(further.error().context);
    if (further)
        for (const std::string& name : *further) take(name, true);
    Loaded all = resolve(std::move(sections));
    all.files = std::move(files);
    errors.insert(errors.end(), all.errors.begin(), all.errors.end());
    std::vector<Setting> mount = all.mount;
    mount.insert(mount.end(), overriding.begin(), overriding.end());
    for (std::string& error : check_timers(mount, all.targets)) errors.push_back(std::move(error));
    all.errors = std::move(errors);
    return all;
}

std::vector<std::string> target_names(const srp::LoginParameters& parameters) {
    std::string name = fmt::format("{:016x}-{:016x}", parameters.id_ext, parameters.ioc_guid);
    if (parameters.initiator_ext != 0) name += fmt::format("-{:016x}", parameters.initiator_ext);
    std::vector<std::string> names{name, fmt::format("{:016x}", parameters.id_ext),
                                   fmt::format("{:016x}", parameters.ioc_guid)};
    if (parameters.dest) {
        const bool is_v6 = parameters.dest->host.find(':') != std::string::npos;
        names.push_back(parameters.dest->host);
        if (parameters.dest->port != 0)
            names.push_back(
                fmt::format(fmt::runtime(is_v6 ? "[{}]:{}" : "{}:{}"), parameters.dest->host, parameters.dest->port));
    }
    if (parameters.ib) {
        std::string gid;
        for (const std::byte one : parameters.ib->dgid) gid += fmt::format("{:02x}", std::to_integer<unsigned>(one));
        names.push_back(gid);
    }
    return names;
}

}  // namespace srpfs::config
