// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
#include <srpfs/ctl/command_line.h>
#include <srpfs/ctl/program.h>
#include <srpfs/ctl/when.h>

#include <gtest/gtest.h>

namespace srpfs::ctl {
namespace {

Request understood(const std::vector<std::string>& arguments) {
    const auto parsed = parse(arguments);
    if (!parsed) ADD_FAILURE() << parsed.error().context;
    return parsed && std::holds_alternative<Request>(*parsed) ? std::get<Request>(*parsed) : Request{};
}

std::string refused(const std::vector<std::string>& arguments) {
    const auto parsed = parse(arguments);
    return parsed ? "understood" : parsed.error().context;
}

std::string printed(const std::vector<std::string>& arguments) {
    const auto parsed = parse(arguments);
    return parsed && std::holds_alternative<Print>(*parsed) ? std::get<Print>(*parsed).text : "nothing";
}

TEST(CommandLine, OptionsStandBeforeOrAfterTheVerb) {
    for (const auto& arguments :
         {std::vector<std::string>{"-m", "/srp", "-o", "json", "-t", "5", "show", "lun0"},
          std::vector<std::string>{"show", "lun0", "--mount", "/srp/", "--output=json", "--timeout=5"},
          std::vector<std::string>{"-o", "table", "show", "-m/srp", "lun0", "-ojson", "-t5"}}) {
        const Request request = understood(arguments);
        EXPECT_EQ(request.verb, "show");
        EXPECT_EQ(request.mount, "/srp");
        EXPECT_EQ(request.format, Format::json);
        EXPECT_EQ(request.timeout, 5U);
        EXPECT_EQ(request.operands, std::vector<std::string>{"lun0"});
    }
}

TEST(CommandLine, OperandsAreTakenAsTheyAre) {
    EXPECT_EQ(understood({"login", "id_ext=1,ioc_guid=1,dest=[fe80::1%eth0]:5555", "x"}).operands,
              (std::vector<std::string>{"id_ext=1,ioc_guid=1,dest=[fe80::1%eth0]:5555", "x"}));
    EXPECT_EQ(understood({"show", "list"}).operands, std::vector<std::string>{"list"})
        << "a verb's name is a name, too";
    EXPECT_EQ(understood({"set", "lun0", "dev_loss_tmo=-1"}).operands,
              (std::vector<std::string>{"lun0", "dev_loss_tmo=-1"}));
    EXPECT_EQ(understood({"login-all", "-"}).operands, std::vector<std::string>{"-"});
}

TEST(CommandLine, VerbsHaveTheirOptions) {
    EXPECT_EQ(understood({"list", "-v"}).detail, Detail::full);
    EXPECT_EQ(understood({"login", "-p", "srp-a-1", "x"}).port, "srp-a-1");
    EXPECT_EQ(understood({"top", "-n", "3"}).count, 3U);
    EXPECT_EQ(understood({"events", "-f", "-n", "3"}).event_count, 3U);
    EXPECT_EQ(understood({"events", "-n", "0"}).event_count, 0U);
    EXPECT_EQ(understood({"events"}).event_count, std::nullopt);
    EXPECT_TRUE(understood({"events", "-f"}).follows);
    EXPECT_FALSE(understood({"events"}).follows);
    EXPECT_EQ(understood({"events"}).since, std::nullopt);
    EXPECT_EQ(understood({"events", "--since", "@5", "--until=1970-01-01T00:00:06.5Z"}).since, 5000);
    EXPECT_EQ(understood({"events", "--since", "@5", "--until=1970-01-01T00:00:06.5Z"}).until, 6500);
    EXPECT_LT(understood({"events", "--since", "10m"}).since, wall_clock_ms());
    EXPECT_NE(refused({"show", "-v", "lun0"}), "understood");
    const Request top = understood({"top", "-b", "-n2", "-d", "0.5"});
    EXPECT_TRUE(top.is_batch);
    EXPECT_EQ(top.delay_tenths, 5U);
    EXPECT_EQ(understood({"top", "--delay=3600"}).delay_tenths, 36000U);
    EXPECT_EQ(understood({"top"}).delay_tenths, 10U);
    for (const char* delay : {"0", "0.0", "3600.1", "3601", "0.05", "1.", ".5", "-1", "1s"})
        EXPECT_NE(refused({"top", std::string("-d") + delay}), "understood") << delay;
}

TEST(CommandLine, WhatIsWrongIsNamed) {
    EXPECT_EQ(refused({}), "a verb is missing, such as list; srpctl --help shows them");
    EXPECT_EQ(refused({"lsit"}), "lsit: no such verb; did you mean list? srpctl --help shows all");
    EXPECT_EQ(refused({"xyzzy"}), "xyzzy: no such verb; srpctl --help shows them");
    EXPECT_EQ(refused({"--qqqqqq", "list"}),
              "unknown option '--qqqqqq'; srpctl list --help shows the options of this verb");
    EXPECT_EQ(refused({"--qqqqqq"}), "unknown option '--qqqqqq'; srpctl --help shows them");
    EXPECT_EQ(refused({"--verson"}), "unknown option '--verson'; did you mean --version? srpctl --help shows them");
    EXPECT_EQ(refused({"list", "--outptu=json"}),
              "unknown option '--outptu'; did you mean --output? srpctl list --help shows the options of this verb");
    EXPECT_EQ(refused({"events", "--folow"}),
              "unknown option '--folow'; did you mean --follow? srpctl events --help shows the options of this verb");
    EXPECT_EQ(refused({"list", "-vx"}), "unknown option '-vx'; srpctl list --help shows the options of this verb");
    EXPECT_EQ(refused({"list", "-x"}), "unknown option '-x'; srpctl list --help shows the options of this verb");
    EXPECT_EQ(refused({"list", "--verbose=3"}), "--verbose takes no value; srpctl --help shows the usage");
    EXPECT_EQ(refused({"list", "lun0"}), "'lun0' is one operand too many; usage: srpctl list [options]");
    EXPECT_EQ(refused({"show"}), "WHAT is missing; usage: srpctl show WHAT");
    EXPECT_EQ(refused({"list", "-o", "yaml"}), "--output yaml: table, json or plain is expected");
    for (const char* seconds : {"0", "86401", "-1", "5s", "", "1.5"})
        EXPECT_NE(refused({"list", std::string("--timeout=") + seconds}), "understood") << seconds;
    EXPECT_EQ(refused({"top", "-n", "0"}), "--count 0: a number from 1 to 1000000000 is expected");
    EXPECT_EQ(refused({"list", "-m"}), "--mount needs a value; srpctl --help shows the usage");
    EXPECT_EQ(refused({"logot", "lun0"}), "logot: no such verb; did you mean logout? srpctl --help shows all");
    EXPECT_EQ(refused({"copy", "lun0"}), "DST is missing; usage: srpctl copy [options] SRC DST");
    EXPECT_EQ(refused({"copy"}), "SRC is missing; usage: srpctl copy [options] SRC DST");
    EXPECT_EQ(refused({"reset"}), "WHAT is missing; usage: srpctl reset WHAT...");
    EXPECT_EQ(refused({"set"}), "KEY=VALUE is missing; usage: srpctl set [WHAT...] KEY=VALUE...");
    EXPECT_EQ(refused({"logout-all", "-m", ""}), "--mount needs a value, and this one is empty");
    EXPECT_EQ(refused({"login-all", "--config", ""}), "--config needs a value, and this one is empty");
    EXPECT_EQ(refused({"rescan", ""}), "an operand is empty; usage: srpctl rescan [WHAT...]");
    EXPECT_EQ(understood({"login", ""}).operands, std::vector<std::string>{""}) << "it is told of each login string";
    EXPECT_EQ(refused({"help", "list", "show"}), "'show' is one operand too many; usage: srpctl help [VERB]");
    EXPECT_TRUE(refused({"events", "--since", "soon"}).starts_with("--since soon: a time is expected, such as "));
    EXPECT_TRUE(refused({"events", "--until=10"}).starts_with("--until 10: a time is expected, such as "));
    EXPECT_EQ(refused({"events", "--since", "1h", "--until", "2h"}), "--since 1h is later than --until 2h");
    EXPECT_EQ(refused({"events", "-f", "--until", "1h"}),
              "--until is for what has happened, and --follow for what will; --timeout ends it");
    EXPECT_EQ(refused({"help", "lsit"}), "lsit: no such verb; did you mean list? srpctl --help shows all");
}

TEST(CommandLine, WhoAsksForJsonIsKnownWhateverElseIsWrong) {
    for (const auto& arguments : {std::vector<std::string>{"-o", "json", "lsit"},
                                  {"show", "-ojson"},
                                  {"--output=json", "list", "--all"},
                                  {"list", "--output", "json", "x", "y"},
                                  {"-o", "plain", "top", "-o", "json", "-n"}})
        EXPECT_TRUE(asks_for_json(arguments)) << arguments[0];
    for (const auto& arguments : {std::vector<std::string>{},
                                  {"json"},
                                  {"list", "-o"},
                                  {"-o", "table", "json"},
                                  {"-o", "json", "x", "-o", "plain"},
                                  {"login", "--", "-o", "json"},
                                  {"-ojsonx"}})
        EXPECT_FALSE(asks_for_json(arguments)) << (arguments.empty() ? "" : arguments[0]);
}

TEST(CommandLine, HelpComesBeforeEverythingElse) {
    EXPECT_EQ(printed({"--version"}), "srpctl " SRPFS_VERSION "\n");
    EXPECT_EQ(printed({"--help"}), printed({"-h"}));
    EXPECT_EQ(printed({"help"}), printed({"-h"}));
    EXPECT_EQ(printed({"show", "--help"}), printed({"help", "show"})) << "although its operand is missing";
    EXPECT_EQ(printed({"help", "--help", "show"}), printed({"help", "show"}));
    EXPECT_EQ(printed({"help", "--help"}), printed({"help", "help"}));
    EXPECT_NE(printed({"help", "help"}).find("Usage: srpctl help [VERB]\n"), std::string::npos);
    EXPECT_NE(printed({"show", "--help"}).find("Usage: srpctl show WHAT\n"), std::string::npos);
}

TEST(CommandLine, HelpFitsATerminalOf120Columns) {
    for (const auto& arguments : {std::vector<std::string>{"help"}, std::vector<std::string>{"help", "set"}}) {
        const std::string text = printed(arguments);
        for (const std::string_view line : split(text, '\n')) EXPECT_LE(line.size(), 120U) << line;
    }
}

TEST(ExitCodes, AreThoseOfTheManualPage) {
    const auto code = [](int errno_value) { return exit_code_of(Error(errno_value, "")); };
    EXPECT_EQ(code(ENOENT), exit_code::not_found);
    EXPECT_EQ(code(ENODEV), exit_code::not_found);
    EXPECT_EQ(code(ECONNREFUSED), exit_code::login_failed);
    EXPECT_EQ(code(EROFS), exit_code::not_permitted);
    EXPECT_EQ(code(EINVAL), exit_code::refused_value);
    EXPECT_EQ(code(ETIMEDOUT), exit_code::no_answer);
    EXPECT_EQ(code(EBUSY), exit_code::busy);
    EXPECT_EQ(code(ENOTCONN), exit_code::not_connected);
    EXPECT_EQ(code(ESHUTDOWN), exit_code::no_mount);
    EXPECT_EQ(code(EEXIST), exit_code::exists);
    EXPECT_EQ(code(EIO), exit_code::other);
}

}  // namespace
}  // namespace srpfs::ctl
