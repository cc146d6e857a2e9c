// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/cli/cli.h>

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace srpfs::cli
