// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/cli/cli.h>

#include <srpfs/config/mount_options.h>
#include <srpfs/daemon/login_defaults.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace srpfs::cli {
namespace {

using daemon::Config;

Config config_of(std::vector<std::string> arguments) {
    auto parsed = parse(arguments);
    EXPECT_TRUE(parsed) << parsed.error().context;
    return parsed ? std::get<Config>(*parsed) : Config{};
}

std::string refusal_of(std::vector<std::string> arguments) {
    const auto parsed = parse(arguments);
    EXPECT_FALSE(parsed);
    return parsed ? std::string{} : parsed.error().context;
}

void expect_mentions(const std::string& text, const std::string& word) {
    EXPECT_NE(text.find(word), std::string::npos) << text;
}

TEST(Cli, TakesWhatMountPasses) {
    const Config config = config_of({"demo", "/mnt", "-o", "rw,dev,suid"});

    EXPECT_EQ(config.source, "demo");
    EXPECT_EQ(config.mount.mountpoint, "/mnt");
    EXPECT_FALSE(config.mount.read_only);
    EXPECT_FALSE(config.foreground);
    EXPECT_EQ(config.mount.kernel_options, (std::vector<std::string>{"dev", "suid"}));
}

TEST(Cli, OptionsMayComeFirstAndSeveralTimes) {
    const Config config = config_of({"-f", "-o", "ro", "-o", "uid=7,umask=0137", "-P", "/run/x.pid", "none", "/mnt/"});

    EXPECT_TRUE(config.foreground);
    EXPECT_TRUE(config.mount.read_only);
    EXPECT_EQ(config.mount.uid, 7U);
    EXPECT_EQ(config.mount.umask, 0137U);
    EXPECT_EQ(config.pid_file, "/run/x.pid");
    EXPECT_EQ(config.mount.mountpoint, "/mnt");
}

TEST(Cli, ABackslashQuotesACommaInAnOption) {
    EXPECT_EQ(config_of({"demo", "/mnt", "-o", "fsname=a\\,b"}).mount.fsname, "a,b");
    EXPECT_EQ(config_of({"demo:ram:1M,wce", "/mnt"}).mount.fsname, "demo:ram:1M,wce");
}

TEST(Cli, AnUnknownOptionIsNamed) {
    expect_mentions(refusal_of({"demo", "/mnt", "-o", "rw,frobnicate=3"}), "frobnicate");
    expect_mentions(refusal_of({"demo", "/mnt", "-x"}), "-x");
    expect_mentions(refusal_of({"demo", "/mnt", "-o", "auto_unmount"}), "umount cleans up");
}

TEST(Cli, ABadValueIsNamedWithWhatIsPossible) {
    const auto text = refusal_of({"demo", "/mnt", "-o", "ack_timeout=32"});

    expect_mentions(text, "ack_timeout=32");
    expect_mentions(text, "1 to 31");
    expect_mentions(refusal_of({"demo", "/mnt", "-o", "memory=1M"}), "24M");
    expect_mentions(refusal_of({"demo", "/mnt", "-o", "umask=9"}), "octal");
    expect_mentions(refusal_of({"demo", "/mnt", "-o", "uid="}), "uid");
    expect_mentions(refusal_of({"demo", "/mnt", "-o", "uid"}), "needs a value");
    expect_mentions(refusal_of({"demo", "/mnt", "-o", "ro=1"}), "takes no value");
    expect_mentions(refusal_of({"demo", "/mnt", "-o", "memory=99999999999999999999G"}), "memory");
}

TEST(Cli, WhereOffIsPossibleTheRefusalOfAValueSaysSo) {
    for (const std::string name : {"tur_interval", "rescan_interval", "reconnect_delay"}) {
        for (const std::string value : {"-1", "never", "1.5", ""}) {
            if (name == "reconnect_delay" && value == "-1") continue;  // means off, as in the kernel
            const auto text = refusal_of({"demo", "/mnt", "-o", name + "=" + value});
            expect_mentions(text, name + "=" + value);
            expect_mentions(text, "off");
        }
    }
    expect_mentions(refusal_of({"demo", "/mnt", "-o", "tur_interval=601"}), "1 to 600, or 'off'");
    expect_mentions(refusal_of({"demo", "/mnt", "-o", "rescan_interval=0"}), "1 to 86400, or 'off'");
    const Config config = config_of({"demo", "/mnt", "-o", "tur_interval=off,rescan_interval=off"});
    EXPECT_FALSE(config.path.interval);
    EXPECT_EQ(config.rescan_interval, Duration::zero());
}

TEST(Cli, TimersFollowTheKernelsRules) {
    const Config config = config_of({"demo", "/mnt", "-o", "dev_loss_tmo=off,fast_io_fail_tmo=0x10"});
    EXPECT_FALSE(config.timers.dev_loss_tmo);
    EXPECT_EQ(config.timers.fast_io_fail_tmo, 16U);

    expect_mentions(refusal_of({"demo", "/mnt", "-o", "dev_loss_tmo=15"}), "fast_io_fail_tmo");
    // Only together do they have to be valid: the order in the string does not matter.
    EXPECT_EQ(config_of({"demo", "/mnt", "-o", "dev_loss_tmo=15,fast_io_fail_tmo=5"}).timers.dev_loss_tmo, 15U);
}

TEST(Cli, OperandsAreTwo) {
    expect_mentions(refusal_of({}), "SOURCE");
    expect_mentions(refusal_of({"demo"}), "MOUNTPOINT");
    EXPECT_EQ(refusal_of({"demo", "/mnt", "-o"}), "-o needs a value; srpfs --help shows the usage");
    EXPECT_EQ(refusal_of({"demo", "/mnt", "-P"}), "-P needs a value; srpfs --help shows the usage");
    expect_mentions(refusal_of({"demo", "/mnt", "/mnt2"}), "/mnt2");
}

TEST(Cli, ASourceThatCannotWorkIsRefusedBeforeAnythingHappens) {
    expect_mentions(refusal_of({"demo:tape:1M", "/mnt"}), "tape");
    expect_mentions(refusal_of({"id_ext=1,ioc_guid=1", "/mnt"}), "dest");
    expect_mentions(refusal_of({"nonsense", "/mnt"}), "nonsense");
}

TEST(Cli, HelpAndVersionAreAnsweredWithoutOperands) {
    const auto help = parse({"--help"});
    ASSERT_TRUE(help);
    const auto& text = std::get<Print>(*help).text;
    for (const auto& name : option_names()) expect_mentions(text, name);

    const auto version = parse({"-V"});
    ASSERT_TRUE(version);
    expect_mentions(std::get<Print>(*version).text, "srpfs ");
}

// ---- configuration files ----

class CliFiles : public ::testing::Test {
protected:
    CliFiles() {
        std::string name = (std::filesystem::temp_directory_path() / "srpfs-cli.XXXXXX").string();
        directory_ = mkdtemp(name.data());
        file_ = directory_ + "/my.conf";
    }
    ~CliFiles() override { std::filesystem::remove_all(directory_); }
    void put(const std::string& text) const { std::ofstream(file_) << text; }

    std::string directory_, file_;
};

constexpr const char* login = "id_ext=1,ioc_guid=1,dest=demo,initiator_ext=7";

TEST_F(CliFiles, TheCommandLineGoesBeforeTheFileWhereverItStands) {
    put(fmt::format("[mount]\nuid = 5\ngid = 6\nro\nlun = a:ro\n[lun b]\nhide\n[login]\nlogin = {}\n", login));
    const Config config = config_of({"-o", "uid=7", "demo", "/mnt", "-o", "config=" + file_ + ",rw,lun=c:rw"});
    EXPECT_EQ(config.mount.uid, 7U);
    EXPECT_EQ(config.mount.gid, 6U);
    EXPECT_TRUE(config.mount.read_only) << "mount(8) says rw whenever nobody has said ro";
    ASSERT_EQ(config.lun_rules.size(), 3U);
    EXPECT_EQ(config.lun_rules[2].pattern, "c");
    EXPECT_EQ(config.logins, std::vector<std::string>{login});
    EXPECT_FALSE(config.is_configured);
    EXPECT_TRUE(config_of({"none", "/mnt", "-o", "config=" + file_}).logins.empty());
    EXPECT_EQ(config_of({"demo", "/mnt"}).mount.uid, std::nullopt);
}

TEST_F(CliFiles, SourceIsAFileOrAll) {
    put(fmt::format("[login]\nlogin = {}\n", login));
    for (const auto& arguments : {std::vector<std::string>{file_, "/mnt"}, {"all", "/mnt", "-o", "config=" + file_}}) {
        const Config config = config_of(arguments);
        EXPECT_TRUE(config.is_configured);
        EXPECT_EQ(config.logins, std::vector<std::string>{login});
        EXPECT_EQ(config.mount.fsname, arguments[0]);
    }
    expect_mentions(refusal_of({file_, "/mnt", "-o", "config=" + file_}), "names another");
    expect_mentions(refusal_of({file_ + "x", "/mnt"}), "there is no such file");
    expect_mentions(refusal_of({directory_, "/mnt"}), "there is no such file");
    expect_mentions(refusal_of({"all", "/mnt", "-o", "config=" + file_ + "x"}), "No such file");
    expect_mentions(refusal_of({"all", "/mnt", "-o", "config=" + directory_}), "is a directory");
    expect_mentions(refusal_of({"demo", "/mnt", "-o", "config="}), "config=");
}

TEST_F(CliFiles, ValuesAreCheckedAsThoseOfTheCommandLineAndAllOfThem) {
    put("[mount]\nuid = -1\nio_uring = maybe\numsak = 077\n[target *]\ndev_loss_tmo = soon\n");
    const std::string text = refusal_of({"demo", "/mnt", "-o", "config=" + file_});
    for (const char* part :
         {":2: option uid=-1: number", "\nsrpfs: ", ":3: option io_uring=maybe",
          ":4: unknown key \"umsak\" in [mount]; did you mean \"umask\"?", ":6: option dev_loss_tmo=soon"})
        expect_mentions(text, part);
    // What the options are together is said with the rest, and where it stands.
    put("[mount]\nfast_io_fail_tmo = 50\n[lun]\n[mount]\ndev_loss_tmo = 40\n");
    const std::string both = refusal_of({"demo", "/mnt", "-o", "config=" + file_});
    for (const char* part : {":3: [lun PATTERN]", ":5: fast_io_fail_tmo (50) must be less than dev_loss_tmo (40)"})
        expect_mentions(both, part);
    // Alone it would do; with the timer of the mount it does not.
    put("[target 0*]\ndev_loss_tmo = 12\n[mount]\nfast_io_fail_tmo = 20\n");
    expect_mentions(refusal_of({"demo", "/mnt", "-o", "config=" + file_}), "my.conf:2: [target 0*]: fast_io_fail_tmo");
    EXPECT_EQ(config_of({"demo", "/mnt", "-o", "fast_io_fail_tmo=5,config=" + file_}).target_rules.size(), 1U);
}

TEST_F(CliFiles, TheExampleShowsEveryOptionAndIsCorrectWithAllOfThem) {
    std::ifstream example(SRPFS_EXAMPLE);
    std::string line, active, mount;
    bool in_mount = false;
    while (std::getline(example, line)) {
        if (line.starts_with('[')) in_mount = line == "[mount]";
        if (line.size() > 1 && line[0] == '#' && line[1] != ' ') line.erase(0, 1);
        active += line + "\n";
        if (in_mount) mount += "\n" + line;
    }
    put(active);
    EXPECT_EQ(config_of({"all", "/mnt", "-o", "config=" + file_}).lun_rules.size(), 4U);
    for (const std::string& name : option_names())
        if (name != "config") expect_mentions(mount, "\n" + name + " = ");
    put("[mount]\n");
    EXPECT_EQ(config_of({SRPFS_EXAMPLE, "/mnt"}).mount.umask, std::nullopt);
}

TEST(Cli, EachOptionDoesSomethingOrIsRefused) {
    for (const config::MountOption& option : config::mount_options()) {
        const std::string name = option.name;
        if (!option.value)
            (void)config_of({"none", "/mnt", "-o", name});
        else
            EXPECT_FALSE(parse({"none", "/mnt", "-o", name})) << name;
    }
}

TEST(LoginDefaults, LaterRulesGoBeforeAndTheStringBeforeAll) {
    const auto parameters = *srp::parse_login_string("id_ext=1,ioc_guid=2,dest=1.2.3.4:5");
    const std::vector<config::TargetRule> rules{{"*", {{"queue_size", "7", {}}, {"fast_io_fail_tmo", "5", {}}}},
                                                {"1.2.3.4:*", {{"queue_size", "8", {}}, {"dev_loss_tmo", "off", {}}}},
                                                {"1.2.3.5*", {{"queue_size", "9", {}}}}};
    const auto defaults = daemon::login_defaults({}, rules, parameters);
    ASSERT_TRUE(defaults);
    EXPECT_EQ(defaults->items, "queue_size=7,queue_size=8,");
    EXPECT_EQ(defaults->timers.fast_io_fail_tmo, 5U);
    EXPECT_EQ(defaults->timers.dev_loss_tmo, std::nullopt);
    EXPECT_EQ(defaults->timers.reconnect_delay, 10U);
    const std::vector<config::TargetRule> apart{{"*", {{"dev_loss_tmo", "16", {}}}},
                                                {"*", {{"fast_io_fail_tmo", "17", {}}}}};
    const auto refused = daemon::login_defaults({}, apart, parameters);
    ASSERT_FALSE(refused);
    expect_mentions(refused.error().context, "do not go together");
}

}  // namespace
}  // namespace srpfs::cli
