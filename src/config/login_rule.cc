// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/config/login_rule.h>

#include <srpfs/base/utf8.h>

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>

namespace srpfs::config {
namespace {

constexpr std::string_view blanks = " \t\r\v\f";
constexpr std::size_t shown_bytes_max = 60;  // of a word that is wrong
constexpr std::string_view separators = " ,\t\r\v\f";
// What srp_daemon copies into the login string; all are decimal.
constexpr std::string_view option_names[] = {"allow_ext_sg",    "ch_count",     "cmd_sg_entries",
                                             "comp_vector",     "max_sect",     "queue_size",
                                             "max_cmd_per_lun", "sg_tablesize", "tl_retry_count"};

bool is_hex(std::string_view text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
        return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
    });
}

std::optional<std::uint64_t> hex_number(std::string_view text) {
    if (text.starts_with("0x") || text.starts_with("0X")) text.remove_prefix(2);
    std::uint64_t value = 0;
    const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
    if (text.empty() || fault != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

Result<void> apply_item(LoginRule& rule, std::string_view item) {
    const auto equals = std::min(item.find('='), item.size());
    const std::string_view name = item.substr(0, equals), value = item.substr(std::min(equals + 1, item.size()));
    const auto number = [&](std::optional<std::uint64_t>& field, std::uint64_t most) -> Result<void> {
        field = hex_number(value);
        if (field && *field <= most) return {};
        return Error(EINVAL, fmt::format("{}={}: hexadecimal number up to {:x} expected", name,
                                         escaped(value, shown_bytes_max), most));
    };
    if (name == "id_ext") return number(rule.id_ext, UINT64_MAX);
    if (name == "ioc_guid") return number(rule.ioc_guid, UINT64_MAX);
    if (name == "service_id") return number(rule.service_id, UINT64_MAX);
    if (name == "pkey") return number(rule.pkey, UINT16_MAX);
    if (name == "dgid") {
        if (value.size() != 32 || !is_hex(value))
            return Error(EINVAL,
                         fmt::format("dgid={}: 32 hexadecimal digits expected", escaped(value, shown_bytes_max)));
        rule.dgid = std::string(value);
        for (char& c : *rule.dgid) c = static_cast<char>(std::tolower(c));
        return {};
    }
    if (std::find(std::begin(option_names), std::end(option_names), name) == std::end(option_names))
        return Error(EINVAL,
                     fmt::format("'{}' is no condition (id_ext, ioc_guid, dgid, service_id, pkey) and no option "
                                 "of a rule ({})",
                                 escaped(item, shown_bytes_max), fmt::join(option_names, ", ")));
    if (!rule.allows) return Error(EINVAL, fmt::format("{}: what is denied has conditions only, and no options", name));
    // The login string knows the ranges.
    const auto tried = srp::parse_login_string(fmt::format("id_ext=1,ioc_guid=1,dest=demo,{}={}", name, value));
    if (!tried) {
        const std::string& text = tried.error().context;
        const auto colon = text.find("): ");
        std::string reason = colon == std::string::npos ? text : text.substr(colon + 3);
        if (reason.ends_with('.')) reason.pop_back();
        return Error(EINVAL, reason);
    }
    rule.options += fmt::format("{}{}={}", rule.options.empty() ? "" : ",", name, value);
    return {};
}

std::string gid_text(const std::array<std::byte, 16>& gid) {
    std::string text;
    for (const std::byte one : gid) text += fmt::format("{:02x}", std::to_integer<unsigned>(one));
    return text;
}

// The letter in front, and what follows it; nothing for a line that says nothing.
struct Line {
    char letter = 0;
    std::string_view rest;
};

std::optional<Line> line_of(std::string_view text) {
    const auto first = text.find_first_not_of(blanks);
    if (first == std::string_view::npos || text[first] == '#') return std::nullopt;
    text.remove_prefix(first);
    const auto end = std::min(text.find_first_of(blanks), text.size());
    return Line{end == 1 ? static_cast<char>(std::tolower(static_cast<unsigned char>(text.front()))) : '\0',
                text.substr(end)};
}

}  // namespace

Result<LoginRule> parse_login_rule(bool allows, std::string_view text) {
    LoginRule rule;
    rule.allows = allows;
    while (true) {
        const auto begin = text.find_first_not_of(separators);
        if (begin == std::string_view::npos) return rule;
        text.remove_prefix(begin);
        const std::string_view item = text.substr(0, text.find_first_of(separators));
        text.remove_prefix(item.size());
        if (const auto applied = apply_item(rule, item); !applied) return applied.error();
    }
}

const LoginRule* rule_for(std::span<const LoginRule> rules, const srp::LoginParameters& parameters) {
    const auto fits = [&](const LoginRule& rule) {
        if (rule.id_ext && *rule.id_ext != parameters.id_ext) return false;
        if (rule.ioc_guid && *rule.ioc_guid != parameters.ioc_guid) return false;
        if (!parameters.ib) return !rule.service_id && !rule.pkey && !rule.dgid;
        return (!rule.service_id || *rule.service_id == parameters.ib->service_id) &&
               (!rule.pkey || *rule.pkey == parameters.ib->pkey) &&
               (!rule.dgid || *rule.dgid == gid_text(parameters.ib->dgid));
    };
    const auto found = std::find_if(rules.begin(), rules.end(), fits);
    return found == rules.end() ? nullptr : &*found;
}

Result<std::string> convert_srp_daemon(const std::string& name, std::string_view text) {
    std::string result = fmt::format(
        "# Rules of {}, for srpfs.conf(5). The first one that fits decides.\n"
        "# srp_daemon also finds targets; what it prints can be piped: srp_daemon -oc | srpctl login-all\n"
        "[login]\n",
        escaped(name, shown_bytes_max));
    std::string errors;
    unsigned number = 0, faults = 0;
    constexpr unsigned faults_told = 10;  // of a file that is something else
    while (!text.empty()) {
        const std::string_view line = text.substr(0, text.find('\n'));
        const bool is_ended = line.size() < text.size();
        text.remove_prefix(std::min(text.size(), line.size() + 1));
        ++number;
        const auto complain = [&](std::string_view what) {
            if (++faults > faults_told) return;
            errors += fmt::format("{}{}:{}: {}", errors.empty() ? "" : "\n", name, number, what);
        };
        const auto said = line_of(line);
        if (!said) {
            // Comments are kept, as what they are.
            const auto hash = line.find('#');
            if (hash != std::string_view::npos) {
                result += escaped(line.substr(hash, line.find_last_not_of(blanks) + 1 - hash)) + "\n";
            }
            continue;
        }
        if (line.size() >= 255) result += "# srp_daemon refuses the next line: it has 255 characters or more.\n";
        if (!is_ended) result += "# srp_daemon refuses the next line: it does not end in a newline.\n";
        if (said->letter != 'a' && said->letter != 'd') {
            complain("a line begins with a (allow), d (disallow) or #");
            continue;
        }
        const auto rule = parse_login_rule(said->letter == 'a', said->rest);
        if (!rule) {
            complain(rule.error().context);
            continue;
        }
        std::string items;
        std::string_view rest = said->rest;
        while (true) {
            const auto begin = rest.find_first_not_of(separators);
            if (begin == std::string_view::npos) break;
            rest.remove_prefix(begin);
            const auto item = rest.substr(0, rest.find_first_of(separators));
            rest.remove_prefix(item.size());
            items += fmt::format("{}{}", items.empty() ? "" : ",", item);
        }
        for (const std::string_view shown_only : {"allow_ext_sg", "sg_tablesize"})
            if (items.find(fmt::format("{}=", shown_only)) != std::string::npos)
                result += fmt::format("# {} is accepted and changes nothing: srpfs sends one descriptor per command.\n",
                                      shown_only);
        if (said->letter == 'd' && items.empty()) result += "# Everything that no rule before this one allows:\n";
        result += fmt::format("{} = {}", said->letter == 'a' ? "allow" : "deny", items);
        while (result.ends_with(' ')) result.pop_back();
        result += '\n';
    }
    if (faults > faults_told) errors += fmt::format("\n{}: and {} more", name, faults - faults_told);
    if (!errors.empty()) return Error(EINVAL, errors);
    return result;
}

}  // namespace srpfs::config
