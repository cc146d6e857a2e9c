// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include "fuzz.h"

#include <srpfs/config/config_file.h>

using namespace srpfs::config;

// A configuration file, and rules of srp_daemon.
SRPFS_FUZZ_TARGET(config_file) {
    const std::string_view text(reinterpret_cast<const char*>(input.data()), input.size());
    std::vector<std::string> errors;
    auto sections = parse_file("f", text, errors);
    for (const std::string& error : errors) {
        PROPERTY(error.starts_with("f:"));
        PROPERTY(error.size() < 1200);
        for (const char c : error) PROPERTY(static_cast<unsigned char>(c) >= 0x20 || c == '\t');
    }
    // Whatever is left out for an error, the rest can be used.
    const Loaded all = resolve(std::move(sections));
    PROPERTY(all.errors.empty());
    for (const Setting& login : all.logins) PROPERTY(srpfs::srp::parse_login_string(login.value));
    const std::vector<std::string> names{"naa.6001405aabbccdd", "0000000000000001-0000000000000001/lun0"};
    (void)options_of(all.lun_rules, names);

    const auto converted = convert_srp_daemon("x", text);
    if (!converted) {
        PROPERTY(converted.error().context.starts_with("x:"));
        return;
    }
    errors.clear();
    (void)parse_file("converted", *converted, errors);
    PROPERTY(errors.empty());
}
