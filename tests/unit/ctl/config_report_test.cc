// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/config_report.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cstdlib>
#include <fstream>

namespace srpfs::ctl {
namespace {

config::Loaded loaded() {
    std::vector<std::string> errors;
    auto sections = config::parse_file("/etc/srpfs/srpfs.conf",
                                       "[mount]\nuid = 5\nallow_other\n[lun naa.6*]\nro\n[login]\n"
                                       "login = id_ext=1,ioc_guid=1,dest=192.168.7.1:5555\n"
                                       "login = id_ext=2,ioc_guid=2,dest=192.168.7.2:5555\ndeny = ioc_guid=2\n",
                                       errors);
    for (auto& one : config::parse_file("/etc/srpfs/srpfs.conf.d/10.conf", "[mount]\nuid = 6\nlun = *:rw\n", errors))
        sections.push_back(std::move(one));
    EXPECT_TRUE(errors.empty());
    auto all = config::resolve(std::move(sections));
    all.files = {"/etc/srpfs/srpfs.conf", "/etc/srpfs/srpfs.conf.d/10.conf"};
    return all;
}

void expect_golden(const std::string& name, const std::string& text) {
    const std::string path = std::string(SRPFS_GOLDEN_DIRECTORY) + "/" + name;
    const char* renew = std::getenv("SRPFS_GOLDEN");
    if (renew && std::string(renew) == "renew") std::ofstream(path) << text;
    std::ifstream file(path);
    EXPECT_EQ(text, std::string(std::istreambuf_iterator<char>(file), {})) << path;
}

TEST(ConfigReport, TellsWhatHoldsAndWhereItStands) {
    const Json document = config_document(loaded());
    expect_golden("config.json", render_config(document, Format::json, {}));
    expect_golden("config.plain", render_config(document, Format::plain, {}));
    expect_golden("config.txt", render_config(document, Format::table, {}));
    expect_golden("config-80.txt", render_config(document, Format::table, {.width = 80}));
}

TEST(ConfigReport, OfNothingIsNothing) {
    EXPECT_EQ(render_config(config_document({}), Format::table, {}), "");
    EXPECT_EQ(config_document({}).dump(), R"({"schema":1,"files":[],"settings":[]})");
}

}  // namespace
}  // namespace srpfs::ctl
