// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "config_verb.h"

#include "terminal.h"

#include <srpfs/ctl/config_report.h>
#include <srpfs/ctl/program.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <cerrno>

namespace srpfs::ctl {
namespace {

int finish(std::string_view text) {
    const auto printed = write_output(text);
    if (printed) return exit_code::ok;
    complain(printed.error().context);
    return exit_code::other;
}

int usage(std::string_view what) {
    complain(what);
    return exit_code::usage;
}

int convert(const Request& request) {
    const std::string file = request.operands.size() > 1 ? request.operands[1] : "/etc/srp_daemon.conf";
    const auto text = config::read_file(file);
    if (!text) {
        complain(text.error().context);
        return exit_code_of(text.error());
    }
    const auto converted = config::convert_srp_daemon(file, *text);
    if (converted) return finish(*converted);
    complain(converted.error().context);
    return exit_code::refused_value;
}

}  // namespace

Result<std::vector<std::string>> permitted_logins(const std::string& file, const std::vector<std::string>& logins) {
    const config::Loaded loaded = config::load(file, true);
    if (!loaded.errors.empty()) return Error(EINVAL, fmt::format("{}", fmt::join(loaded.errors, "\n")));
    std::vector<std::string> permitted;
    for (const std::string& login : logins) {
        const auto parameters = srp::parse_login_string(login);
        const config::LoginRule* rule = parameters ? config::rule_for(loaded.login_rules, *parameters) : nullptr;
        if (!rule || rule->allows)
            permitted.push_back(rule && !rule->options.empty() ? fmt::format("{},{}", login, rule->options) : login);
    }
    return permitted;
}

config::Loaded default_configuration() { return config::load(config::default_file, false); }

int run_config(const Request& request) {
    const std::string& what = request.operands.front();
    if (what == "convert") return convert(request);
    if (what != "check" && what != "show")
        return usage(fmt::format("config {}: check, show or convert is expected", what));
    const bool is_named = request.operands.size() > 1;
    const config::Loaded loaded = config::load(is_named ? request.operands[1] : config::default_file, is_named);
    if (!loaded.errors.empty()) {
        complain(fmt::format("{}", fmt::join(loaded.errors, "\n")));
        return exit_code::refused_value;
    }
    if (loaded.files.empty())
        complain(fmt::format("{}: there is no such file, and none is needed", config::default_file));
    if (what == "check") {
        std::string text;
        for (const std::string& file : loaded.files) text += fmt::format("{}: good\n", file);
        return request.format == Format::json ? finish(render_config(config_document(loaded), request.format, {}))
                                              : finish(text);
    }
    return finish(render_config(config_document(loaded), request.format, screen_of_output()));
}

}  // namespace srpfs::ctl
