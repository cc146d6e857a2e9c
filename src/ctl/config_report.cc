// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/config_report.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace srpfs::ctl {

Json config_document(const config::Loaded& loaded) {
    Json document;
    document["schema"] = json_schema;
    document["files"] = loaded.files;
    document["settings"] = Json::array();
    const auto is_at = [](const std::vector<config::Setting>& list, const config::Origin& origin) {
        return std::any_of(list.begin(), list.end(), [&](const auto& other) { return other.origin == origin; });
    };
    for (const config::Section& section : loaded.sections)
        for (const config::Setting& one : section.settings) {
            // What a later line has replaced does not hold.
            if (section.kind == config::SectionKind::mount && one.key != "lun" && !is_at(loaded.mount, one.origin))
                continue;
            const bool is_login = section.kind == config::SectionKind::login && one.key == "login";
            const bool is_denied = is_login && is_at(loaded.denied, one.origin);
            Json entry;
            entry["section"] = to_string(section.kind);
            entry["pattern"] = section.pattern.empty() ? Json(nullptr) : Json(section.pattern);
            entry["key"] = one.key;
            entry["value"] = one.value;
            entry["file"] = one.origin.file;
            entry["line"] = one.origin.line;
            entry["denied"] = is_denied;
            document["settings"].push_back(std::move(entry));
        }
    return document;
}

std::string render_config(const Json& document, Format format, const Screen& screen) {
    if (format == Format::json) return json_text(document);
    Table table({{.title = "SECTION", .width_min = 10},
                 {.title = "KEY"},
                 {.title = "VALUE", .width_min = 12, .cut = Cut::middle},
                 {.title = "FROM", .width_min = 12, .cut = Cut::middle}});
    std::string plain;
    for (const Json& one : document["settings"]) {
        const auto text = [&](const char* name) { return one[name].is_string() ? one[name].get<std::string>() : ""; };
        const std::string section =
            one["pattern"].is_null() ? text("section") : fmt::format("{} {}", text("section"), text("pattern"));
        const std::string from = fmt::format("{}:{}", text("file"), one["line"].get<unsigned>());
        const bool is_denied = one["denied"].get<bool>();
        if (format == Format::plain)
            plain += fmt::format("{}\t{}\t{}\t{}{}\n", section, text("key"),
                                 text("value").empty() ? "-" : text("value"), from, is_denied ? "\tdenied" : "");
        else
            table.add({{section},
                       {text("key")},
                       {is_denied ? fmt::format("{} (denied by a rule)", text("value")) : text("value"),
                        is_denied ? Paint::faint : Paint::none},
                       {from}});
    }
    return format == Format::plain ? plain : table.is_empty() ? "" : table.text(screen);
}

}  // namespace srpfs::ctl
