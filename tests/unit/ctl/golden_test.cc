// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Everything srpctl shows of a tree, against what it has shown when somebody looked at it: golden/*. SRPFS_GOLDEN=renew
// in the environment writes them anew, to be looked at again.
#include "fake_tree.h"

#include <srpfs/ctl/command_line.h>
#include <srpfs/ctl/diagnosis.h>
#include <srpfs/ctl/rates.h>
#include <srpfs/ctl/render.h>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace srpfs::ctl {
namespace {

constexpr const char* healthy = "srp-mlx5_0-1/0002c90300a1b2c3-0002c90300a1b2c3";
constexpr const char* infiniband = "srp-mlx5_0-2/0002c90300000001-0002c90300000002-00000000000000ff";
constexpr const char* empty = "srp-mlx5_0-2/0000000000000009-0000000000000009";

std::string stats_lun(const char* name, const char* wwid, std::uint64_t bytes, const char* state, std::uint64_t reads) {
    return fmt::format(
        R"({{"name":"{}","wwid":"{}","bytes":{},"block_bytes":512,"read_only":false,"write_cache":true,"state":"{}","requests_pending":2,"in_flight":1,"reads":{},)"
        R"("writes":7,"flushes":2,"bytes_read":{},"bytes_written":28672,"errors":{},"retries":0,"interrupts":1,)"
        R"("unit_attentions":3,"read_modify_writes":0,"ghosts":0,"errors_by_kind":{},"latency":{{)"
        R"("read":{{"count":{},"sum_us":{},"p50_us":192,"p99_us":4096,"p999_us":1310720,"buckets_us":[[192,1]]}},)"
        R"("write":{{"count":7,"sum_us":1400,"p50_us":200,"p99_us":224,"p999_us":224,"buckets_us":[[200,7]]}},)"
        R"("flush":{{"count":0,"sum_us":0,"p50_us":0,"p99_us":0,"p999_us":0,"buckets_us":[]}}}}}})",
        name, wwid, bytes, state, reads, reads * 4096, reads == 0 ? 5 : 0,
        reads == 0 ? R"({"path_lost":4,"medium_error":1})" : "{}", reads, reads * 250);
}

std::string stats_channel(int index) {
    return fmt::format(
        R"({{"index":{},"state":"{}","credits":{},"credits_initial":62,"in_flight":{},"commands":500,"responses":498,)"
        R"("task_management":0,"path_checks":1,"timeouts":{},"out_of_credits":2,"credit_requests":0,"async_events":0,)"
        R"("unknown_tags":0,"malformed":0,"bytes_read":{},"bytes_written":28672,"errors":{},"errors_by_kind":{},"latency":{{)"
        R"("read":{{"count":450,"sum_us":90000,"p50_us":192,"p99_us":4096,"p999_us":4096,"buckets_us":[[192,440],[4096,10]]}},)"
        R"("write":{{"count":7,"sum_us":1400,"p50_us":200,"p99_us":224,"p999_us":224,"buckets_us":[[200,7]]}},)"
        R"("other":{{"count":3,"sum_us":30,"p50_us":9,"p99_us":10,"p999_us":10,"buckets_us":[[9,2],[10,1]]}}}}}})",
        index, index == 0 ? "live" : "draining", 60 - index * 7, index, index, 450 * 4096, index * 2,
        index == 0 ? "{}" : R"({"busy":2})");
}

std::string stats_target(const std::string& path, const char* address, const char* state, int channels,
                         const std::string& luns) {
    const auto slash = path.find('/');
    return fmt::format(
        R"({{"name":"{}","address":"{}","port":"{}","state":"{}","channels":{},"failed_reconnects":{},"req_lim":{},)"
        R"("zero_req_lim":4,"commands":1000,"logins":2,"losses":1,"reactor":"srpfs-0","history":[{{"time":"2026-11-23T11:55:31.479Z",)"
        R"("from":"connecting","to":"running","reason":"logged in"}}],"channel_list":[{}],"luns":[{}]}})",
        path.substr(slash + 1), address, path.substr(0, slash), state, channels, channels == 0 ? 12 : 0, channels * 30,
        channels == 0 ? "" : stats_channel(0) + "," + stats_channel(1), luns);
}

void write_lun(const FakeTree& tree, const std::string& path, const char* model, const char* last_error) {
    tree.write(path, "");
    const std::string below = path + ".attr/";
    for (const auto& [file, value] : std::vector<std::pair<const char*, const char*>>{{"vendor", "LIO-ORG"},
                                                                                      {"model", model},
                                                                                      {"rev", "4.0"},
                                                                                      {"serial", "1b5cd7f2-0001"},
                                                                                      {"physical_block_size", "4096"},
                                                                                      {"read_only", "0"},
                                                                                      {"uid", "0"},
                                                                                      {"gid", "6"},
                                                                                      {"mode", "0660"},
                                                                                      {"cache", "cached"},
                                                                                      {"last_error", last_error}})
        tree.write(below + file, std::string(value) + "\n");
}

void write_target(const FakeTree& tree, const std::string& path, const char* loss, const char* last_error) {
    for (const auto& [file, value] :
         std::vector<std::pair<const char*, const char*>>{{"reconnect_delay", "10"},
                                                          {"fast_io_fail_tmo", "15"},
                                                          {"dev_loss_tmo", loss},
                                                          {"queue_size", "62"},
                                                          {"id_ext", "0x0002c90300a1b2c3"},
                                                          {"ioc_guid", "0x0002c90300a1b2c3"},
                                                          {"sgid", "fe80:0000:0000:0000:0002:c903:0000:0001"},
                                                          {"last_error", last_error}})
        tree.write(path + "/" + file, std::string(value) + "\n");
}

// Two ports; a target that runs, one of InfiniBand that has lost its connection, and one that never had a LUN.
void fill(const FakeTree& tree) {
    for (const char* number : {"1", "2"}) {
        const std::string port = fmt::format("srp-mlx5_0-{}/", number);
        tree.write(port + "ibdev", "mlx5_0\n");
        tree.write(port + "port", std::string(number) + "\n");
        tree.write(port + "last_error", "\n");
    }
    tree.write("last_error", "login: no route to 10.0.0.9\n");
    tree.write("version", "srpfs 0.1.0\n");
    const std::string first = std::string(healthy) + "/lun10", second = std::string(healthy) + "/lun2";
    tree.write(
        "stats",
        fmt::format(
            R"({{"schema":1,"version":"0.1.0","uptime_seconds":4711,"requests_pending":3,"pages":{{"fills":21,"fills_cached":9,)"
            R"("drops":4,"drop_ranges":5,"drop_bytes":1048576,"waits":3,"waits_given_up":1,"latency":{{)"
            R"("drop":{{"count":4,"sum_us":400,"p50_us":96,"p99_us":160,"p999_us":160,"buckets_us":[[96,3],[160,1]]}},)"
            R"("wait":{{"count":3,"sum_us":900,"p50_us":320,"p99_us":320,"p999_us":320,"buckets_us":[[320,3]]}}}}}},)"
            R"("reactors":[{{"name":"srpfs-0","busy_turns":7,"slow_turns":1,"sleeps":9,"slots":62,"slots_in_use":2,"requests_read":99,)"
            R"("requests_handed_over":0,"answers_for_others":0,"total":{{"reads":12,"writes":7,"flushes":2,"bytes_read":49152,)"
            R"("bytes_written":28672,"errors":5,"retries":0,"errors_by_kind":{{"path_lost":5}},"latency":{{)"
            R"("read":{{"count":12,"sum_us":2400,"p50_us":192,"p99_us":208,"p999_us":208,"buckets_us":[[192,11],[208,1]]}}}}}}}}],)"
            R"("targets":[{},{},{}]}})",
            stats_target(infiniband, "fe80::1", "blocked", 0,
                         stats_lun("lun0", "naa.60014055ca1ab1e04bd46c11af65a111", 1ULL << 40, "blocked", 0)),
            stats_target(empty, "10.0.0.8:5555", "fail-fast", 0, ""),
            stats_target(healthy, "10.0.0.7:5555", "running", 2,
                         stats_lun("lun10", "naa.60014055ca1ab1e04bd46c11af65a111", 1ULL << 40, "running", 123456789) +
                             "," + stats_lun("lun2", "t10.ACME    disk 7", 1000000512, "offline", 5))));
    write_target(tree, healthy, "600", "");
    write_target(tree, infiniband, "off", "the link went down");
    for (const char* file : {"service_id", "pkey", "dgid", "orig_dgid"})
        tree.write(std::string(infiniband) + "/" + file, "0x1\n");
    write_target(tree, empty, "600", "no answer to TEST UNIT READY within 3 s");
    write_lun(tree, std::string(infiniband) + "/lun0", "IBLOCK", "");
    write_lun(tree, first, "IBLOCK", "");
    write_lun(tree, second, "b\x1b[2Jad m\xc3\xbcll", "MEDIUM ERROR at block 7");
    tree.link("by-id/wwn-0x60014055ca1ab1e04bd46c11af65a111", "../" + first);
    tree.link("by-id/scsi-360014055ca1ab1e04bd46c11af65a111", "../" + first);
    tree.link("by-path/mlx5_0-1-srp-0002c90300a1b2c3-0002c90300a1b2c3-lun-2", "../" + second);
}

// Without the name of the directory, which is another one each time and not always as long.
std::string compared(std::string text, const FakeTree& tree) {
    for (auto at = text.find(tree.path()); at != std::string::npos; at = text.find(tree.path(), at))
        text.replace(at, tree.path().size(), "/srp");
    return text;
}

void expect_golden(const std::string& name, const std::string& text) {
    const std::string path = std::string(SRPFS_GOLDEN_DIRECTORY) + "/" + name;
    if (const char* wish = std::getenv("SRPFS_GOLDEN"); wish && std::string(wish) == "renew")
        std::ofstream(path, std::ios::binary) << text;
    std::ifstream file(path, std::ios::binary);
    const std::string wanted((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    EXPECT_EQ(text, wanted) << path;
}

class Golden : public testing::Test {
protected:
    Golden() {
        fill(tree);
        // As if it were mounted where nobody's temporary directory is.
        Json seen = look(Depth::full);
        document = list_document({seen});
    }
    Json look(Depth depth) {
        const auto seen = survey({tree.path(), "none", "0:50"}, depth);
        if (!seen) ADD_FAILURE() << seen.error().context;
        return Json::parse(compared(seen ? seen->dump() : "{}", tree));
    }
    Found found(std::string_view name) {
        const auto one = find(document["mounts"][0], name);
        if (!one) ADD_FAILURE() << one.error().context;
        return one ? *one : Found{};
    }
    void expect_show(std::string_view what, const std::string& name) {
        const Json shown = show_document(document["mounts"][0], found(what));
        expect_golden(name + ".json", render_show(shown, Format::json, {}));
        expect_golden(name + ".plain", render_show(shown, Format::plain, {}));
        expect_golden(name + ".txt", render_show(shown, Format::table, {.width = 80, .charset = Charset::ascii}));
    }

    FakeTree tree;
    Json document;
};

TEST_F(Golden, List) {
    expect_golden("list.json", render_list(document, Format::json, Detail::brief, {}));
    expect_golden("list.plain", render_list(document, Format::plain, Detail::brief, {}));
    expect_golden("list-80.txt",
                  render_list(document, Format::table, Detail::brief, {.width = 80, .charset = Charset::utf8}));
    expect_golden("list-wide.txt", render_list(document, Format::table, Detail::brief, {.charset = Charset::utf8}));
    expect_golden("list-40-ascii.txt", render_list(document, Format::table, Detail::brief, {.width = 40}));
    expect_golden("list-colour.txt",
                  render_list(document, Format::table, Detail::brief, {.width = 80, .has_colour = true}));
}

TEST_F(Golden, ListVerbose) {
    expect_golden("list-v-80.txt",
                  render_list(document, Format::table, Detail::full, {.width = 80, .charset = Charset::utf8}));
    expect_golden("list-v-wide.txt", render_list(document, Format::table, Detail::full, {}));
    EXPECT_EQ(render_list(document, Format::json, Detail::full, {}),
              render_list(document, Format::json, Detail::brief, {}));
}

TEST_F(Golden, ListOfSeveralMounts) {
    Json other = document["mounts"][0];
    other["path"] = "/mnt/other";
    const Json both =
        list_document({document["mounts"][0], other, Json{{"path", "/x"}, {"source", "none"}, {"error", "no answer"}}});
    expect_golden("list-mounts.txt", render_list(both, Format::table, Detail::brief, {.width = 100}));
    EXPECT_EQ(Json::parse(render_list(both, Format::json, Detail::brief, {})), both);
}

TEST_F(Golden, ListOfNothing) {
    EXPECT_EQ(render_list(list_document({}), Format::json, Detail::brief, {}),
              "{\n  \"schema\": 1,\n  \"mounts\": []\n}\n");
    EXPECT_EQ(render_list(list_document({}), Format::table, Detail::brief, {}), "");
    EXPECT_EQ(render_list(list_document({}), Format::plain, Detail::brief, {}), "");
}

TEST_F(Golden, ShowPort) { expect_show("mlx5_0-2", "show-port"); }

TEST_F(Golden, ShowTarget) { expect_show(infiniband, "show-target"); }

TEST_F(Golden, ShowLun) { expect_show("lun2", "show-lun"); }

TEST_F(Golden, Stats) {
    const Json stats = stats_document(document["mounts"][0]);
    expect_golden("stats.json", render_stats(stats, Format::json, {}));
    expect_golden("stats.plain", render_stats(stats, Format::plain, {}));
    expect_golden("stats-80.txt", render_stats(stats, Format::table, {.width = 80, .charset = Charset::utf8}));
    expect_golden("stats-wide.txt", render_stats(stats, Format::table, {}));
}

TEST_F(Golden, ABriefLookFindsWhatStatsNeed) {
    EXPECT_EQ(stats_document(look(Depth::brief)), stats_document(document["mounts"][0]));
    EXPECT_EQ(render_list(list_document({look(Depth::brief)}), Format::table, Detail::brief, {}),
              render_list(document, Format::table, Detail::brief, {}));
}

TEST_F(Golden, Reservations) {
    const Json held = reservations_document(found("lun2"),
                                            "generation 5\nregistered 0x000000000000000a\nkey 0x000000000000000a\n"
                                            "key 0x000000000000000b\nsomething new\n"
                                            "reservation write-exclusive-registrants-only 0x000000000000000b\n");
    expect_golden("reservations.json", render_reservations(held, Format::json, {}));
    expect_golden("reservations.plain", render_reservations(held, Format::plain, {}));
    expect_golden("reservations.txt", render_reservations(held, Format::table, {}));
    const Json none = reservations_document(found("lun2"), "generation 0\nregistered none\nreservation none\n");
    expect_golden("reservations-none.txt", render_reservations(none, Format::table, {}));
    EXPECT_EQ(none["registered"], nullptr);
    EXPECT_EQ(none["reservation"], nullptr);
    EXPECT_EQ(none["generation"], 0);
}

// What happened to the tree in two seconds: a unit is busy, another one has errors, and nobody has heard of the rest.
Json two_seconds_later(Json mount) {
    Json& target = mount["targets"][0];
    target["commands"] = 31000;
    target["zero_req_lim"] = 24;
    for (Json& channel : target["channel_list"]) {
        channel["commands"] = 15500;
        channel["bytes_read"] = channel["bytes_read"].get<std::uint64_t>() + 40960000;
        channel["bytes_written"] = channel["bytes_written"].get<std::uint64_t>() + 512000000;
        channel["latency"]["read"]["buckets_us"] = {{96, 9000}, {192, 1390}, {4096, 60}};
        channel["latency"]["write"]["buckets_us"] = {{200, 4007}, {224, 993}};
    }
    for (Json& lun : target["luns"]) {
        const bool is_busy = lun["name"] == "lun10";
        lun["requests_pending"] = is_busy ? 40 : 1;
        lun["in_flight"] = is_busy ? 32 : 0;
        for (const auto& [counter, more] :
             {std::pair{"reads", 20000}, {"bytes_read", 81920000}, {"writes", 10000}, {"bytes_written", 1024000000}})
            if (is_busy)
                lun["counters"][counter] =
                    lun["counters"][counter].get<std::uint64_t>() + static_cast<std::uint64_t>(more);
        if (!is_busy) lun["counters"]["errors"] = 3;
        if (!is_busy) continue;
        lun["latency"]["read"]["buckets_us"] = {{96, 18000}, {192, 1901}, {4096, 90}, {1310720, 10}};
        lun["latency"]["write"]["buckets_us"] = {{200, 8007}, {224, 1990}, {3072, 10}};
    }
    return mount;
}

TEST_F(Golden, Top) {
    const Json& first = document["mounts"][0];
    Rates rates;
    rates.add(first, 10);
    rates.add(two_seconds_later(first), 12);
    expect_golden("top.json", rates.text(Format::json, {}));
    expect_golden("top.plain", rates.text(Format::plain, {}));
    expect_golden("top-80.txt", rates.text(Format::table, {.width = 80, .height = 24, .charset = Charset::ascii}));
    expect_golden("top-80-utf8.txt", rates.text(Format::table, {.width = 80, .height = 24, .charset = Charset::utf8}));
    expect_golden("top-200.txt", rates.text(Format::table, {.width = 200, .height = 50, .charset = Charset::ascii}));
    expect_golden("top-colour.txt", rates.text(Format::table, {.width = 120, .height = 50, .has_colour = true}));
}

TEST_F(Golden, Why) {
    using Verdict = Finding::Verdict;
    Json mount = document["mounts"][0];
    Findings findings = {{Verdict::good, "fuse", "/dev/fuse can be opened.", ""},
                         {Verdict::note, "kernel", "fs.mqueue is small; m\xc3\xbcll and \x1b[2J.", "sysctl -w a=b"}};
    for (const Finding& one : check_mount(mount)) findings.push_back(one);
    expect_golden("why.json", render_why(findings, Format::json, {}));
    expect_golden("why.plain", render_why(findings, Format::plain, {}));
    expect_golden("why-80.txt", render_why(findings, Format::table, {.width = 80, .charset = Charset::ascii}));
    expect_golden("why-200.txt", render_why(findings, Format::table, {.width = 200, .charset = Charset::utf8}));
    expect_golden("why-colour.txt", render_why(findings, Format::table, {.width = 80, .has_colour = true}));
    expect_golden("why-good.txt", render_why({findings.front()}, Format::table, {.width = 80}));
}

TEST(Help, OfAllVerbs) {
    const auto help_of = [](const std::vector<std::string>& arguments) {
        const auto parsed = parse(arguments);
        const Print* print = parsed ? std::get_if<Print>(&*parsed) : nullptr;
        return print ? print->text : std::string();
    };
    std::string text = help_of({"--help"});
    std::vector<std::string> verbs;
    bool is_verb = false;
    for (const std::string_view line : split(text, '\n')) {
        if (line.empty()) is_verb = false;
        if (is_verb && !line.starts_with("   ")) verbs.emplace_back(split(trimmed(line), ' ').front());
        if (line == "Verbs:") is_verb = true;
    }
    EXPECT_GT(verbs.size(), 10U);
    for (const std::string& verb : verbs)
        text += fmt::format("$ srpctl {} --help\n{}", verb, help_of({verb, "--help"}));
    expect_golden("help.txt", text);
    for (const std::string_view line : split(text, '\n')) EXPECT_LE(columns_of(line), 80U) << line;
}

TEST_F(Golden, AUnitOfATargetThatHasFailedFastIsShownAsThat) {
    Json mount = document["mounts"][0];
    for (Json& target : mount["targets"])
        for (Json& lun : target["luns"]) {
            if (lun["state"] != "blocked") continue;
            lun["state"] = "offline";
            target["state"] = lun["target_state"] = "fail-fast";
        }
    const Json list = list_document({mount});
    expect_golden("list-fail-fast.txt", render_list(list, Format::table, Detail::brief, {.width = 80}));
    expect_golden("list-v-fail-fast.txt", render_list(list, Format::table, Detail::full, {.width = 80}));
    const std::string shown =
        render_show(show_document(mount, found(std::string(infiniband) + "/lun0")), Format::table, {});
    EXPECT_NE(shown.find("target_state:         fail-fast\n"), std::string::npos) << shown;
    EXPECT_NE(render_list(list, Format::plain, Detail::brief, {}).find("/lun0\toffline\t"), std::string::npos);
}

TEST_F(Golden, Events) {
    const char* lines[] = {
        R"({"schema":1,"sequence":0,"time":"2026-11-23T07:00:00.000Z","event":"target_login","channels":2,"credits":62,"first":true,"target":"a-b"})",
        R"({"schema":1,"sequence":1,"time":"2026-11-23T07:00:01.000Z","event":"target_state","from":"running","to":"blocked","reason":"the link\u001b[2J went down","target":"a-b"})",
        R"({"schema":1,"sequence":2,"time":"2026-11-23T07:00:02.000Z","event":"io_error","lun":"lun0","text":"MEDIUM ERROR","target":"a-b"})",
        R"({"schema":1,"sequence":3,"time":"2026-11-23T07:00:03.000Z","event":"shutdown"})",
        "not JSON",
        ""};
    std::string table, plain, json;
    for (const char* line : lines) {
        table += render_event(line, Format::table, {.has_colour = true});
        plain += render_event(line, Format::plain, {});
        json += render_event(line, Format::json, {});
    }
    expect_golden("events.txt", table);
    expect_golden("events.plain", plain);
    EXPECT_EQ(json, std::string(lines[0]) + "\n" + lines[1] + "\n" + lines[2] + "\n" + lines[3] + "\nnot JSON\n");
}

// ---- names ----

TEST_F(Golden, NamesAreFoundByPathOrWordOrIdentity) {
    const Found target{Found::Kind::target, "/srp", "srp-mlx5_0-1", "0002c90300a1b2c3-0002c90300a1b2c3", ""};
    Found lun = target;
    lun.kind = Found::Kind::lun, lun.lun = "lun10";
    EXPECT_EQ(found("srp-mlx5_0-1"), (Found{Found::Kind::port, "/srp", "srp-mlx5_0-1", "", ""}));
    for (const std::string& name :
         {std::string("/srp/") + healthy, std::string(healthy) + "/", target.target, "by-target/" + target.target})
        EXPECT_EQ(found(name), target) << name;
    for (const std::string& name :
         {std::string("lun10"), std::string("/srp/") + healthy + "/lun10", std::string(healthy) + "/lun10.attr",
          target.target + "/lun10", std::string("wwn-0x60014055ca1ab1e04bd46c11af65a111"),
          std::string("/srp/by-id/scsi-360014055ca1ab1e04bd46c11af65a111"),
          std::string("by-path/mlx5_0-1-srp-0002c90300a1b2c3-0002c90300a1b2c3-lun-10"),
          "by-target/" + target.target + "/lun10"})
        EXPECT_EQ(found(name), lun) << name;
    EXPECT_EQ(found("t10.ACME    disk 7").lun, "lun2");
}

TEST_F(Golden, ANameOfSeveralThingsIsRefusedWithTheirPaths) {
    const auto result = find(document["mounts"][0], "naa.60014055ca1ab1e04bd46c11af65a111");
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().context,
              "naa.60014055ca1ab1e04bd46c11af65a111: 2 have this name; say which by its path:\n"
              "  /srp/srp-mlx5_0-1/0002c90300a1b2c3-0002c90300a1b2c3/lun10\n"
              "  /srp/srp-mlx5_0-2/0002c90300000001-0002c90300000002-00000000000000ff/lun0");
}

TEST_F(Golden, WhatIsNotThereIsNotFound) {
    for (const char* name :
         {"lun1", "lun", "", "/", "/srp", "mlx5_0", "/srp/srp-mlx5_0-3", "/other/lun10", "by-id", "..", "stats"})
        EXPECT_FALSE(find(document["mounts"][0], name)) << name;
}

// ---- trees that are not as they should be ----

TEST(Survey, WhatIsNoSrpfsIsSaidToBeNone) {
    const FakeTree tree;
    const auto nothing = survey({tree.path(), "none", "0:1"}, Depth::brief);
    ASSERT_FALSE(nothing);
    EXPECT_EQ(nothing.error().errno_value(), ENOENT);
    tree.write("stats", "[1]");
    EXPECT_NE(survey({tree.path(), "none", "0:1"}, Depth::brief).error().context.find("not a JSON object"),
              std::string::npos);
    tree.write("stats", R"({"schema":2})");
    EXPECT_NE(survey({tree.path(), "none", "0:1"}, Depth::brief).error().context.find("has schema 2"),
              std::string::npos);
}

TEST(Survey, FilesThatAreNotThereAreNull) {
    const FakeTree tree;
    tree.write("stats", R"({"schema":1,"targets":[{"name":"a-b","port":"srp-x-1","luns":[{"name":"lun0"}]}]})");
    const auto seen = survey({tree.path(), "none", "0:1"}, Depth::full);
    ASSERT_TRUE(seen);
    const Json& target = (*seen)["targets"][0];
    EXPECT_TRUE(target["dev_loss_tmo"].is_null());
    EXPECT_TRUE(target["luns"][0]["vendor"].is_null());
    EXPECT_TRUE(target["luns"][0]["counters"]["reads"].is_null());
    for (const Format format : {Format::table, Format::json, Format::plain}) {
        EXPECT_FALSE(render_list(list_document({*seen}), format, Detail::full, {}).empty());
        EXPECT_FALSE(render_stats(stats_document(*seen), format, {}).empty());
    }
}

}  // namespace
}  // namespace srpfs::ctl
