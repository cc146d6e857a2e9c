// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/config/config_file.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <sys/stat.h>
#include <unistd.h>

namespace srpfs::config {
namespace {

using Lines = std::vector<std::string>;

Lines errors_of(std::string_view text) {
    Lines errors;
    (void)parse_file("f", text, errors);
    return errors;
}

Loaded resolved(std::string_view text) {
    Lines errors;
    Loaded all = resolve(parse_file("f", text, errors));
    EXPECT_EQ(errors, Lines{});
    return all;
}

TEST(ConfigFile, IsSectionsOfKeysAndValues) {
    const Loaded all = resolved(
        "# comment\n\n [mount] \r\n uid=7\n\tallow_other\nlun = a b\\:c:ro\nlun=d:rw\n"
        "[lun naa.6* x]\nro\nmode = 0640\n[target 0001*]\nqueue_size = 0x10\nfast_io_fail_tmo=off\n"
        "[login]\nlogin = id_ext=1,ioc_guid=1,dest=demo\nallow =\n[mount]\nro = no");
    ASSERT_EQ(all.mount.size(), 3U);
    EXPECT_EQ(all.mount[0].key + "=" + all.mount[0].value, "uid=7");
    EXPECT_EQ(to_string(all.mount[0].origin), "f:4");
    EXPECT_EQ(all.mount[1].key + "=" + all.mount[1].value, "allow_other=yes");
    EXPECT_EQ(all.mount[2].key + "=" + all.mount[2].value, "ro=no");
    ASSERT_EQ(all.lun_rules.size(), 3U);
    EXPECT_EQ(all.lun_rules[0].pattern, "a b\\:c");
    EXPECT_EQ(all.lun_rules[2], (LunRule{"naa.6* x", {.read_only = true, .mode = 0640}}));
    ASSERT_EQ(all.targets.size(), 1U);
    EXPECT_EQ(all.targets[0].pattern, "0001*");
    EXPECT_EQ(all.targets[0].settings.size(), 2U);
    ASSERT_EQ(all.logins.size(), 1U);
    EXPECT_EQ(all.logins[0].value, "id_ext=1,ioc_guid=1,dest=demo");
}

TEST(ConfigFile, WhatIsWrongIsNamedWithItsLineAndAllOfIt) {
    EXPECT_EQ(errors_of("[target *]\nrelogin_delay = 5\nqueue_size = 0\n[mont]\nx\n[mount]\nuid = wrong\nuid = "
                        "3\nfast_io_fail_tmo = 700\n"),
              (Lines{"f:2: unknown key \"relogin_delay\" in [target *]; did you mean \"reconnect_delay\"?",
                     "f:3: queue_size=\"0\" is not valid: expected decimal number, or hexadecimal with 0x, range "
                     "1..2147483647",
                     "f:4: unknown section [mont]; did you mean [mount]?",
                     "f:7: option uid=wrong: number from 0 to 4294967294 expected; id -u NAME shows that of a name",
                     "f:9: option fast_io_fail_tmo=700: must not exceed 600 seconds"}));
    const std::pair<std::string_view, const char*> cases[] = {
        {"uid = 3\nro\n", "f:1: this stands before the first section"},
        {"[mount\n", "f:1: a section begins with"},
        {"[]\n", "f:1: a section begins with"},
        {"[mount *]\n", "f:1: [mount] takes no pattern"},
        {"[lun]\n", "f:1: [lun PATTERN]: the pattern is empty"},
        {"[frobnicate]\n", "f:1: unknown section [frobnicate]; there are"},
        {"[mount]\nzzzzzzzzzz = 1", "f:2: unknown key \"zzzzzzzzzz\" in [mount]; srpfs.conf(5)"},
        {"[mount]\n= 1", "f:2: KEY = VALUE expected"},
        {"[mount]\nuid", "f:2: uid needs a value"},
        {"[mount]\nro = maybe", "f:2: ro = maybe: yes or no"},
        {"[mount]\nconfig = other", "f:2: config: a configuration file cannot name another one"},
        {"[mount]\nlun = x", "f:2: option lun=x: "},
        {"[mount]\nuid=1\n\nuid=1", "f:4: uid is given twice in [mount]; first in line 2"},
        {"[lun a]\nro\n[lun a]\nro", "f:4: ro is given twice in [lun a]; first in line 2"},
        {"[lun *]\nro = yes", "f:2: 'ro=yes' is none of"},
        {"[lun *]\nmode = 9", "f:2: mode=9"},
        {"[lun *]\nreadonly", "f:2: unknown key \"readonly\" in [lun *]"},
        {"[target *]\nid_ext = 1", "f:2: unknown key \"id_ext\" in [target *]"},
        {"[target *]\nqueue_size", "f:2: queue_size needs a value"},
        {"[target *]\nqueue_size = 5,dest=1.2.3.4:5", "f:2: queue_size = 5,dest=1.2.3.4:5: one value expected"},
        {"[login]\nlogin = id_ext=1", "f:2: Login string: ioc_guid"},
        {"[login]\nlogin", "f:2: login needs a value"},
        {"[login]\nallow = dest=1.2.3.4:5", "f:2: 'dest=1.2.3.4:5' is no condition"},
        {"[login]\ndeny = queue_size=5", "f:2: queue_size: what is denied has conditions only"},
        {"[login]\nallow = pkey=10000", "f:2: pkey=10000: hexadecimal number up to ffff"},
        {"[login]\nallow = dgid=fe80", "f:2: dgid=fe80: 32 hexadecimal digits"},
        {"[login]\nallow = tl_retry_count=9", "f:2: tl_retry_count=\"9\" is not valid"},
        {std::string_view("[mount]\nuid = \0 1", 16), "f:2: there is a NUL byte"},
        {"[mount]\nuid = \x1b[1m", "f:2: there is a control character in this line (byte 1bh)"},
        {"[mount]\n# \xff\n", "f:2: this line is not UTF-8 (byte ffh, column 3)"},
        {"[mount]\n# \xc0\xaf\n", "f:2: this line is not UTF-8"},
        {"[mount]\n# \xed\xa0\x80\n", "f:2: this line is not UTF-8"},
        {"[mount]\n# \xe2\x82", "f:2: this line is not UTF-8"}};
    for (const auto& [text, wanted] : cases) {
        const Lines errors = errors_of(text);
        ASSERT_EQ(errors.size(), 1U) << text << fmt::format("{}", fmt::join(errors, "\n"));
        EXPECT_TRUE(errors[0].starts_with(wanted)) << errors[0] << " instead of " << wanted;
    }
}

TEST(ConfigFile, TimersHaveToGoTogetherInEachSectionAndWithTheMount) {
    const std::pair<std::string_view, Lines> cases[] = {
        {"[mount]\nfast_io_fail_tmo = 20\ndev_loss_tmo = 30\n[target *]\ndev_loss_tmo = 25\n", {}},
        {"[target *]\nfast_io_fail_tmo=10\ndev_loss_tmo=5\n",
         {"f:3: [target *]: fast_io_fail_tmo (10) must be less than dev_loss_tmo (5); write the one that makes room "
          "first"}},
        {"[target *]\ndev_loss_tmo = 12\n[mount]\nuid = 1\nfast_io_fail_tmo = 20\ngid = 1\n",
         {"f:2: [target *]: fast_io_fail_tmo (20) must be less than dev_loss_tmo (12); write the one that makes room "
          "first"}},
        // Both errors; and not one about what the mount's mean for a section.
        {"[mount]\nfast_io_fail_tmo = 20\ndev_loss_tmo = 10\n[target a]\nfast_io_fail_tmo = 15\n"
         "[target b]\nfast_io_fail_tmo = off\ndev_loss_tmo = 601\n",
         {"f:3: fast_io_fail_tmo (20) must be less than dev_loss_tmo (10); write the one that makes room first",
          "f:8: [target b]: dev_loss_tmo must not exceed 600 seconds while fast_io_fail_tmo is off"}},
        {"[mount]\nreconnect_delay = off\nfast_io_fail_tmo = off\ndev_loss_tmo = off\n",
         {"f:4: reconnect_delay, fast_io_fail_tmo and dev_loss_tmo cannot all be off: I/O would hang for ever"}}};
    for (const auto& [text, wanted] : cases) {
        const Loaded all = resolved(text);
        EXPECT_EQ(check_timers(all.mount, all.targets), wanted) << text;
    }
    // What the command line says has no place, and what it replaces no meaning.
    const Loaded all = resolved("[mount]\nfast_io_fail_tmo = 20\n");
    std::vector<Setting> both = all.mount;
    both.push_back({"dev_loss_tmo", "15", {}});
    EXPECT_TRUE(check_timers(both, {}).at(0).starts_with("f:2: fast_io_fail_tmo (20) must be")) << "the file's part";
    both.push_back({"fast_io_fail_tmo", "5", {}});
    EXPECT_EQ(check_timers(both, {}), Lines{});
    EXPECT_TRUE(check_timers(std::vector<Setting>{{"dev_loss_tmo", "15", {}}}, {}).at(0).starts_with("fast_io_fail"));
}

TEST(ConfigFile, MayBeEmptyAndHasAnyTextInComments) {
    for (const char* text :
         {"", "\n", "\r\n", "#", "\xef\xbb\xbf# mark\n[mount]\nuid = 1", "# \xe2\x82\xac \xf0\x9f\x98\x80 \xc3\xa4"})
        EXPECT_EQ(errors_of(text), Lines{}) << text;
}

TEST(ConfigFile, RulesDecideAboutLoginsAndTheFirstThatFitsCounts) {
    const Loaded all = resolved(
        "[login]\nlogin = id_ext=1,ioc_guid=a,dest=demo\nlogin = id_ext=2,ioc_guid=b,dest=demo,queue_size=3\n"
        "login = id_ext=3,ioc_guid=c,dgid=fe800000000000000002c90200402bd5,pkey=ffff,service_id=5\n"
        "login = id_ext=1,ioc_guid=a,dest=demo\nlogin = id_ext=4,ioc_guid=d,dest=demo\n"
        "allow = ioc_guid=000b queue_size=9,ch_count=2\ndeny = ioc_guid=b\ndeny = pkey=ffff\ndeny=id_ext=0x4\n");
    ASSERT_EQ(all.logins.size(), 2U);
    EXPECT_EQ(all.logins[0].value, "id_ext=1,ioc_guid=a,dest=demo");
    EXPECT_EQ(all.logins[1].value, "id_ext=2,ioc_guid=b,dest=demo,queue_size=3,queue_size=9,ch_count=2");
    ASSERT_EQ(all.denied.size(), 2U);
    EXPECT_EQ(all.denied[0].origin.line, 4U);
    EXPECT_EQ(all.denied[1].origin.line, 6U);
}

TEST(ConfigFile, SuggestsOnlyWhatIsNear) {
    const Lines known{"reconnect_delay", "queue_size", "ro"};
    EXPECT_EQ(nearest("qeue_size", known), "queue_size");
    EXPECT_EQ(nearest("relogin_delay", known), "reconnect_delay");
    EXPECT_EQ(nearest("zzz", known), "");
    EXPECT_EQ(nearest("", known), "");
    EXPECT_EQ(nearest(std::string(100000, 'q'), known), "");
}

TEST(TargetNames, AreItsDirectoryItsGuidsAndItsAddress) {
    const auto names = [](const char* login) { return target_names(*srp::parse_login_string(login)); };
    EXPECT_EQ(names("id_ext=1,ioc_guid=a,dest=[fe80::1%ib0]:7,initiator_ext=5"),
              (Lines{"0000000000000001-000000000000000a-0000000000000005", "0000000000000001", "000000000000000a",
                     "fe80::1%ib0", "[fe80::1%ib0]:7"}));
    EXPECT_EQ(names("id_ext=1,ioc_guid=a,dest=1.2.3.4:7").back(), "1.2.3.4:7");
    EXPECT_EQ(names("id_ext=1,ioc_guid=a,dest=demo").back(), "demo");
    EXPECT_EQ(names("id_ext=1,ioc_guid=a,dgid=FE800000000000000002c90200402bd5,pkey=1,service_id=1").back(),
              "fe800000000000000002c90200402bd5");
}

class ConfigFiles : public ::testing::Test {
protected:
    ConfigFiles() {
        std::string name = (std::filesystem::temp_directory_path() / "srpfs-config.XXXXXX").string();
        directory_ = mkdtemp(name.data());
        file_ = directory_ + "/srpfs.conf";
    }
    ~ConfigFiles() override { std::filesystem::remove_all(directory_); }
    std::string put(const std::string& name, const std::string& text) {
        const auto path = std::filesystem::path(directory_) / name;
        std::filesystem::create_directories(path.parent_path());
        std::ofstream(path, std::ios::binary) << text;
        return path;
    }
    [[nodiscard]] Loaded loaded(bool required = true) const { return load(file_, required); }
    std::string only_error(bool required = true) {
        const Lines errors = loaded(required).errors;
        EXPECT_EQ(errors.size(), 1U) << fmt::format("{}", fmt::join(errors, "\n"));
        return errors.empty() ? "" : errors[0];
    }

    std::string directory_, file_;
};

TEST_F(ConfigFiles, DropInsGoBeforeInTheOrderOfTheirNames) {
    put("srpfs.conf", "[mount]\nuid = 1\nspin = 2\nreconnect_delay = 3\n");
    put("srpfs.conf.d/20-b.conf", "[mount]\nuid = 20\n");
    put("srpfs.conf.d/10-a.conf", "[mount]\nuid = 10\nspin = 10\n");
    put("srpfs.conf.d/30-c.conf~", "[nonsense]\n");
    put("srpfs.conf.d/.hidden.conf", "[nonsense]\n");
    const Loaded all = loaded();
    EXPECT_EQ(all.errors, Lines{});
    EXPECT_EQ(all.files, (Lines{file_, file_ + ".d/10-a.conf", file_ + ".d/20-b.conf"}));
    Lines held;
    for (const Setting& one : all.mount) held.push_back(one.key + "=" + one.value);
    EXPECT_EQ(held, (Lines{"reconnect_delay=3", "spin=10", "uid=20"}));
    EXPECT_EQ(to_string(all.mount.back().origin), file_ + ".d/20-b.conf:2");
}

TEST_F(ConfigFiles, AllErrorsOfAllFilesAreTold) {
    put("srpfs.conf", "[mount]\nuit = 1\n");
    put("srpfs.conf.d/a.conf", "[mount]\nuid = wrong\n[lun]\n");
    put("srpfs.conf.d/b.conf/x", "");
    const Lines errors = loaded().errors;
    ASSERT_EQ(errors.size(), 4U);
    EXPECT_EQ(errors[0], file_ + ":2: unknown key \"uit\" in [mount]; did you mean \"uid\"?");
    EXPECT_EQ(errors[3], file_ + ".d/b.conf: is a directory, and not a configuration file");
}

TEST_F(ConfigFiles, OneThatIsNotThereIsAnErrorOnlyIfItWasNamed) {
    EXPECT_EQ(loaded(false).errors, Lines{});
    EXPECT_EQ(only_error(), file_ + ": cannot be read: No such file or directory");
    put("srpfs.conf.d/a.conf", "[mount]\nuid = 5\n");
    EXPECT_EQ(loaded(false).mount.size(), 1U);
    std::filesystem::create_symlink("nowhere", directory_ + "/srpfs.conf.d/b.conf");
    EXPECT_EQ(only_error(false), file_ + ".d/b.conf: cannot be read: No such file or directory");
}

TEST_F(ConfigFiles, WhatOthersCanWriteOrIsNoFileIsNotUsed) {
    put("srpfs.conf", "[mount]\nuid = 5\n");
    chmod(file_.c_str(), 0646);
    EXPECT_NE(only_error().find("everybody can write it, so it is not used; chmod o-w "), std::string::npos);
    chmod(file_.c_str(), 0664);
    EXPECT_EQ(loaded().errors, Lines{});
    if (geteuid() == 0) {
        ASSERT_EQ(chown(file_.c_str(), 0, 65534), 0);
        EXPECT_NE(only_error().find("gid 65534 can write it, which is the group neither of root nor of who reads it"),
                  std::string::npos);
        chmod(file_.c_str(), 0644);
        EXPECT_EQ(loaded().errors, Lines{}) << "they can read it only";
        ASSERT_EQ(chown(file_.c_str(), 65534, 0), 0);
        EXPECT_NE(only_error().find("belongs to uid 65534"), std::string::npos);
    }
    unlink(file_.c_str());
    ASSERT_EQ(mkfifo(file_.c_str(), 0600), 0);
    EXPECT_EQ(only_error(), file_ + ": is not a regular file");
    unlink(file_.c_str());
    put("srpfs.conf", "[mount]\n# " + std::string(10 << 20, 'x'));
    EXPECT_EQ(only_error(), file_ + ": is larger than 1024 KiB");
    put("srpfs.conf", "[mount]\n" + std::string((1 << 20) - 8, 'x'));
    EXPECT_LT(only_error().size(), 300U);
}

TEST_F(ConfigFiles, ADirectoryThatOthersCanWriteIsNotUsed) {
    put("srpfs.conf", "[mount]\nuid = 5\n");
    put("srpfs.conf.d/a.conf", "[mount]\nuid = 6\n");
    const std::string further = file_ + ".d";
    chmod(further.c_str(), 01777);
    EXPECT_NE(only_error().find(further + ": everybody can write it, so it is not used; chmod o-w " + further),
              std::string::npos);
    EXPECT_EQ(loaded().mount.at(0).value, "5") << "what is in it does not count";
    chmod(further.c_str(), 0775);
    EXPECT_EQ(loaded().errors, Lines{});
    EXPECT_EQ(loaded().mount.at(0).value, "6");
    if (geteuid() != 0) return;
    ASSERT_EQ(chown(further.c_str(), 0, 65534), 0);
    EXPECT_NE(only_error().find(further + ": gid 65534 can write it"), std::string::npos);
    ASSERT_EQ(chown(further.c_str(), 65534, 0), 0);
    EXPECT_NE(only_error().find(further + ": belongs to uid 65534"), std::string::npos);
}

// What is shipped is correct, as it is and with everything switched on that it shows.
TEST(Example, IsCorrectAlsoWithoutItsCommentMarks) {
    std::ifstream file(SRPFS_EXAMPLE);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    ASSERT_GT(text.size(), 1000U);
    Lines errors;
    std::string active, line;
    std::size_t keys = 0;
    for (std::size_t at = 0; at < text.size(); at += line.size() + 1) {
        line = text.substr(at, text.find('\n', at) - at);
        const bool is_key = line.size() > 1 && line[0] == '#' && line[1] != ' ';
        keys += is_key;
        active += (is_key ? line.substr(1) : line) + "\n";
    }
    EXPECT_GT(keys, 70U);
    const auto plain = resolve(parse_file("example", text, errors));
    EXPECT_TRUE(plain.mount.empty() && plain.logins.empty());
    const auto all = resolve(parse_file("example", active, errors));
    EXPECT_EQ(errors, Lines{});
    EXPECT_EQ(all.logins.size(), 2U);
}

TEST(Page, HasOnlyExamplesThatAreCorrect) {
    std::ifstream file(SRPFS_PAGE);
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const std::string begin = ".Bd -literal -offset indent\n";
    std::size_t count = 0;
    for (auto at = text.find(begin); at != std::string::npos; at = text.find(begin, at)) {
        at += begin.size();
        Lines errors;
        const auto all = resolve(parse_file("example", text.substr(at, text.find(".Ed\n", at) - at), errors));
        EXPECT_EQ(errors, Lines{});
        EXPECT_FALSE(all.sections.empty());
        ++count;
    }
    EXPECT_EQ(count, 3U);
}

}  // namespace
}  // namespace srpfs::config
