// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// One broken set-up in each row, and the sentences in which why names its cause and what to do.
#include "fake_tree.h"

#include <srpfs/ctl/diagnosis.h>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <regex>

#include <sys/stat.h>
#include <unistd.h>

namespace srpfs::ctl {
namespace {

using namespace std::string_literals;

// A machine on which everything is right.
struct Lab {
    Lab() {
        port("mlx5_0", "InfiniBand", "0x0001", "fe80:0000:0000:0000:0002:c903:00a1:b2c3");
        port("mlx5_1", "Ethernet", "0x0", "0000:0000:0000:0000:0000:ffff:0a00:0001");
        tree.write("sys/class/infiniband/mlx5_1/ports/1/gid_attrs/ndevs/0", "eth1\n");
        for (const char* name : {"uverbs0", "umad0", "rdma_cm"}) tree.write(std::string("dev/infiniband/") + name, "");
        process("self", "bash", "268435456");
        process("4711", "srpfs", "268435456");
        tree.write("usr/bin/fusermount3", "");
        ::chmod((tree.path() + "/usr/bin/fusermount3").c_str(), 0755);
        tree.write("etc/fuse.conf", "# comment\nuser_allow_other # all\n");
        tree.write("proc/locks", "");
        tree.write("proc/sys/fs/fuse/max_pages_limit", "256\n");
        tree.write("proc/sys/kernel/io_uring_disabled", "0\n");
        tree.write("sys/module/fuse/parameters/enable_uring", "Y\n");
        machine.root = tree.path();
        machine.open_errno = [this](const std::string& path) { return refusals.contains(path) ? refusals[path] : 0; };
        machine.route_to = [this](const std::string&) { return route; };
    }
    void port(const std::string& device, const char* layer, const char* manager, const char* gid) const {
        const std::string at = "sys/class/infiniband/" + device + "/ports/1/";
        for (const auto& [name, value] : std::map<std::string, std::string>{{"link_layer", layer},
                                                                            {"state", "4: ACTIVE"},
                                                                            {"phys_state", "5: LinkUp"},
                                                                            {"sm_lid", manager},
                                                                            {"gids/0", gid},
                                                                            {"pkeys/0", "0xffff"}})
            tree.write(at + name, value + "\n");
    }
    void process(const std::string& number, const char* name, const std::string& limit, const char* can = "0") const {
        tree.write("proc/" + number + "/comm", std::string(name) + "\n");
        tree.write("proc/" + number + "/status", std::string("CapEff:\t000000000000") + can + "000\n");
        tree.write("proc/" + number + "/limits",
                   "Max locked memory         " + limit + "              unlimited            bytes\n");
    }
    void remove(const std::string& name) const { std::filesystem::remove_all(tree.path() + "/" + name); }
    void only_port_of(const char* layer) const {
        remove(std::string("sys/class/infiniband/") + (std::string(layer) == "Ethernet" ? "mlx5_0" : "mlx5_1"));
    }
    void set(const char* device, const char* file, const char* value) const {
        tree.write(std::string("sys/class/infiniband/") + device + "/ports/1/" + file, std::string(value) + "\n");
    }
    // Everything that why looks at.
    Findings all() {
        Findings all;
        for (const Findings& some :
             {check_fuse(machine), check_devices(machine, true), check_ports(machine), check_locked_memory(machine),
              check_kernel(machine), check_ib_srp(machine), check_running(machine), check_other_users(machine),
              check_configuration(complaints), check_mount(mount), check_login(machine, login)})
            all.insert(all.end(), some.begin(), some.end());
        if (!mount_point.empty())
            for (const Finding& one : check_mount_point(machine, tree.path() + mount_point, mounts)) all.push_back(one);
        return all;
    }
    void last_error(const char* text) { mount = {{"path", "/srp"}, {"last_error", text}, {"targets", Json::array()}}; }
    void target(const char* state, const char* reason) {
        mount["targets"][0]["state"] = state;
        mount["targets"][0]["last_error"] = reason;
        mount["targets"][0]["fast_io_fail_tmo"] = 15;
        mount["targets"][0]["failed_reconnects"] = 3;
        mount["targets"][0]["address"] = "10.0.0.7:5555";
    }
    void lun(const char* state, const char* reason) {
        mount["targets"][0]["luns"][0] = {{"name", "lun0"}, {"state", state}, {"last_error", reason}};
    }

    FakeTree tree;
    Machine machine;
    std::map<std::string, int> refusals;
    Route route{0, "eth1"};
    std::vector<std::string> complaints;
    std::vector<Mount> mounts;
    std::string mount_point;
    std::string login = "id_ext=1,ioc_guid=2,dest=10.0.0.7:5555";
    Json mount = Json::parse(R"({"path":"/srp","last_error":"","targets":[
        {"name":"t","port":"srp-a-1","state":"running","luns":[{"name":"lun0","state":"running"}]}]})");
};

struct Row {
    const char* name;
    std::function<void(Lab&)> breaks;
    const char* text;    // in the one finding that is not good
    const char* advice;  // in what is to be done
};

const Row rows[] = {
    {"NoFuse", [](Lab& lab) { lab.refusals["/dev/fuse"] = ENOENT; }, "There is no /dev/fuse", "modprobe fuse"},
    {"FuseIsNotPermitted", [](Lab& lab) { lab.refusals["/dev/fuse"] = EPERM; }, "/dev/fuse must not be opened here",
     "docker run --device /dev/fuse"},
    {"FuseIsOfOthers", [](Lab& lab) { lab.refusals["/dev/fuse"] = EACCES; }, "Permission denied", "ls -l /dev/fuse"},
    {"NoUserAllowOther", [](Lab& lab) { lab.tree.write("etc/fuse.conf", "#user_allow_other\n"); },
     "does not have the line user_allow_other", "Add it"},
    {"NoFuseConf", [](Lab& lab) { lab.remove("etc/fuse.conf"); }, "does not have the line user_allow_other", "Add it"},
    {"NoVerbsModule", [](Lab& lab) { lab.remove("dev/infiniband/uverbs0"); }, "no /dev/infiniband/uverbs*",
     "modprobe ib_uverbs"},
    {"NoConnectionManager", [](Lab& lab) { lab.refusals["/dev/infiniband/rdma_cm"] = ENOENT; },
     "no /dev/infiniband/rdma_cm", "modprobe rdma_ucm"},
    {"NoUmad", [](Lab& lab) { lab.remove("dev/infiniband/umad0"); }, "ibsrpdm cannot look for targets",
     "modprobe ib_umad"},
    {"PortDown",
     [](Lab& lab) {
         lab.set("mlx5_0", "state", "1: DOWN");
         lab.set("mlx5_0", "phys_state", "2: Polling");
     },
     "The port is DOWN (Polling)", "Check the cable"},
    {"NoGid", [](Lab& lab) { lab.set("mlx5_0", "gids/0", "0000:0000:0000:0000:0000:0000:0000:0000"); },
     "active but has no GID", "subnet manager's log"},
    {"NoSubnetManager", [](Lab& lab) { lab.set("mlx5_0", "state", "2: INIT"); }, "no subnet manager has configured it",
     "opensm"},
    {"SubnetManagerLidZero", [](Lab& lab) { lab.set("mlx5_0", "sm_lid", "0x0000"); }, "(SM LID 0)", "opensm"},
    {"LittleLockedMemory", [](Lab& lab) { lab.process("self", "bash", "8388608"); }, "Only 8 MiB may be locked",
     "LimitMEMLOCK=infinity in a unit."},
    {"SomeLockedMemory", [](Lab& lab) { lab.process("self", "bash", "67108864"); }, "Only 64 MiB may be locked",
     "-o memory=24M"},
    {"LittleLockedMemoryOfTheOneThatRuns", [](Lab& lab) { lab.process("4711", "srpfs", "65536"); },
     "This srpfs may lock 64 KiB only", "LimitMEMLOCK=infinity in its unit."},
    {"NoFusermount", [](Lab& lab) { lab.remove("usr/bin/fusermount3"); }, "It is missing, and mounts for users",
     "package fuse3"},
    {"NoAcl",
     [](Lab& lab) {
         lab.last_error(
             "The target rejected the login: channel limit reached (0x00010006); on LIO this usually means that no "
             "ACL");
     },
     "No target is logged in to. The last attempt failed: The target rejected", "create the ACL"},
    {"WrongGuid", [](Lab& lab) { lab.last_error("The target rejected the login: no such target port (0x00010002)"); },
     "no such target port", "id_ext or ioc_guid is wrong"},
    {"WrongPortNumber",
     [](Lab& lab) { lab.last_error("connection rejected (reason 8, invalid service id: nobody listens there)"); },
     "nobody listens there", "port number (or service_id) is wrong"},
    {"NoSrpThere",
     [](Lab& lab) { lab.last_error("rejected the connection: rejected by the program listening there (REJ 28)"); },
     "REJ 28", "Something else than an SRP target"},
    {"NoAnswer",
     [](Lab& lab) { lab.last_error("10.0.0.7:5555: no answer to the connect request (Connection timed out)"); },
     "no answer to the connect request", "UDP port 4791"},
    {"NoHost",
     [](Lab& lab) {
         lab.last_error(
             "10.0.0.7: the address was not resolved (EHOSTUNREACH): no answer to ARP or neighbour discovery");
     },
     "no answer to ARP", "No host has this address"},
    {"NoRouteWasThere",
     [](Lab& lab) { lab.last_error("10.0.0.7: the address was not resolved (ENETUNREACH): no route"); }, "no route",
     "ip route get"},
    {"NoRoute",
     [](Lab& lab) {
         lab.route = {ENETUNREACH, ""};
     },
     "There is no route to 10.0.0.7", "ip route get 10.0.0.7"},
    {"TargetDisabled",
     [](Lab& lab) { lab.last_error("The target rejected the login: insufficient resources (0x00010003)"); },
     "insufficient resources", "Enable the target port"},
    {"OutOfQueuePairs",
     [](Lab& lab) { lab.last_error("10.0.0.7:5555: connection rejected (reason 1, no queue pair available)"); },
     "no queue pair available", "log out other initiators"},
    {"OldConnection",
     [](Lab& lab) { lab.last_error("10.0.0.7:5555: connection rejected (reason 10, stale connection)"); },
     "stale connection", "try again in some seconds"},
    {"NoPath", [](Lab& lab) { lab.last_error("fe80::2: no path there (subnet administrator's status 3)"); },
     "no path there", "same partition"},
    {"NoRdmaOnTheRoute",
     [](Lab& lab) {
         lab.last_error(
             "10.0.0.7: the address was not resolved (ENODEV): the interface that routes there belongs to no RDMA "
             "device, or its port is down");
     },
     "belongs to no RDMA device", "network of an RDMA interface"},
    {"LocalPortDown",
     [](Lab& lab) { lab.last_error("local port mlx5_0 1 is not active: check cable, switch and interface"); },
     "is not active", "The local port is down"},
    {"LoginMayNotLockMemory",
     [](Lab& lab) { lab.last_error("buffers: the limit on locked memory (RLIMIT_MEMLOCK) is 64 KiB"); },
     "limit on locked memory", "LimitMEMLOCK=infinity"},
    {"AnotherSrpfsHadIt",
     [](Lab& lab) { lab.last_error("another srpfs login (this or another process, lock x) uses"); },
     "another srpfs login", "another initiator_ext="},
    {"AnotherSrpfsHasIt",
     [](Lab& lab) {
         const std::string file = "run/srpfs/mlx5_1-1-0000000000000001-0000000000000002-0000000000000000.lock";
         lab.tree.write(file, "x");
         struct stat found {};
         ASSERT_EQ(::stat((lab.tree.path() + "/" + file).c_str(), &found), 0);
         lab.tree.write("proc/locks", fmt::format("1: FLOCK  ADVISORY  WRITE 99 00:1b:{} 0 EOF\n", found.st_ino));
     },
     "srpfs (process 99) is logged in to this target with the same initiator_ext through mlx5_1-1.", "srpctl logout"},
    {"IbSrpHadIt", [](Lab& lab) { lab.last_error("the kernel's ib_srp (host3) is logged in to this target"); },
     "the kernel's ib_srp (host3)", "srp_remote_ports"},
    {"TargetGone", [](Lab& lab) { lab.target("blocked", "the target stays silent"); },
     "The connection to 10.0.0.7:5555 is lost and I/O waits: the target stays silent",
     "Check whether the target runs and is reachable. I/O fails after 15 s"},
    // The reason that is left is the timer; what it was begins the outage.
    {"TargetGoneAndItsHost",
     [](Lab& lab) {
         lab.target("fail-fast", "fast_io_fail_tmo expired for SRP 10.0.0.7:5555: I/O fails from now on");
         lab.mount["targets"][0]["history"] = Json::parse(R"([
             {"from": "running", "to": "blocked", "reason": "an earlier outage"},
             {"from": "blocked", "to": "running", "reason": "reconnect succeeded"},
             {"from": "running", "to": "blocked", "reason": "the target is silent: nothing came for 2.0 s"},
             {"from": "blocked", "to": "fail-fast", "reason": "fast_io_fail_tmo expired for SRP 10.0.0.7:5555"}])");
     },
     "lost and I/O fails: the target is silent: nothing came for 2.0 s", "Check cable and switch"},
    {"TooFewCredits", [](Lab& lab) { lab.last_error("the target grants 1 credits, at least 2 are needed"); },
     "the target grants 1 credits", "too few credits"},
    {"WriteProtected", [](Lab& lab) { lab.lun("offline", "DATA PROTECT (07/27/00): write protected"); },
     "The LUN is offline", "for reading only"},
    {"LunReserved", [](Lab& lab) { lab.lun("offline", "READ: RESERVATION CONFLICT"); }, "The LUN is offline",
     "Somebody else has reserved the LUN"},
    {"LunNotReady", [](Lab& lab) { lab.lun("offline", "TEST UNIT READY: NOT READY (02/04/03)"); }, "The LUN is offline",
     "start it, or put its medium in"},
    {"LunHasABadMedium", [](Lab& lab) { lab.lun("offline", "READ(16): MEDIUM ERROR (03/11/00)"); },
     "The LUN is offline", "cannot read or write there"},
    {"LunIsWriteProtected", [](Lab& lab) { lab.lun("offline", "WRITE(16): DATA PROTECT, write protected (07/27/00)"); },
     "The LUN is offline", "for reading only"},
    {"LunBeingFormatted", [](Lab& lab) { lab.lun("offline", "NOT READY: not ready, format in progress"); },
     "The LUN is offline", "wait, then srpctl rescan"},
    {"SrpfsIsStopped",
     [](Lab& lab) {
         lab.process("77", "srpfs", "unlimited", "0");
         lab.tree.write("proc/77/stat", "77 (a) b) T 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 0");
     },
     "is stopped", "kill -CONT 77"},
    {"SrpfsIsNice",
     [](Lab& lab) {
         lab.process("77", "srpfs", "unlimited", "0");
         lab.tree.write("proc/77/stat", "77 (srpfs) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 39 19 1 0 0");
     },
     "behind other programs (nice 19)", "renice -n 0 -p 77"},
    {"SrpfsIsIdle",
     [](Lab& lab) {
         lab.process("77", "srpfs", "unlimited", "0");
         lab.tree.write("proc/77/stat",
                        "77 (srpfs) S 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 5");
     },
     "SCHED_IDLE", "chrt -o -p 0 77"},
    {"SrpfsHasAQuota",
     [](Lab& lab) {
         lab.process("77", "srpfs", "unlimited", "0");
         lab.tree.write("proc/77/cgroup", "0::/system.slice/srpfs@srp.service\n");
         lab.tree.write("sys/fs/cgroup/system.slice/srpfs@srp.service/cpu.max", "50000 100000\n");
     },
     "for 50000 us of each 100000 us only", "CPUQuota="},
    {"IbSrpIsLostThere",
     [](Lab& lab) {
         for (const auto& [name, text] :
              {std::pair{"id_ext", "0x5"}, {"ioc_guid", "0x6"}, {"local_ib_device", "mlx5_0"}, {"local_ib_port", "1"}})
             lab.tree.write(std::string("sys/class/scsi_host/host7/") + name, std::string(text) + "\n");
         lab.tree.write("sys/class/srp_remote_ports/port-7:1/state", "fail-fast\n");
     },
     "through mlx5_0 port 1, and its remote port is fail-fast", "another initiator_ext"},
    {"MountPointIsNotThere", [](Lab& lab) { lab.mount_point = "/nothing"; }, "It is not there.", "mkdir -p"},
    {"MountPointIsAFile", [](Lab& lab) { lab.mount_point = "/etc/fuse.conf"; }, "It is no directory.",
     "srpfs SOURCE DIRECTORY"},
    {"MountPointBelowAFile", [](Lab& lab) { lab.mount_point = "/etc/fuse.conf/x"; },
     "A part of the path is no directory", "another mount point"},
    {"MountPointIsNotEmpty", [](Lab& lab) { lab.mount_point = "/etc"; }, "It is not empty", "empty directory"},
    {"MountPointIsBusy",
     [](Lab& lab) {
         lab.mount_point = "/etc";
         lab.mounts = {{lab.tree.path() + "/etc", "none", "0:50"}};
     },
     "srpfs is mounted there already", "umount"},
    {"MountPointHasAnotherFileSystem", [](Lab& lab) { lab.mount_point = "/../../../../../../../../proc"; },
     "Another file system is mounted there, and would be hidden.", "Use an empty directory."},
    {"ConfigurationIsWrong",
     [](Lab& lab) { lab.complaints = {"/etc/srpfs.conf:7: reconect_delay: there is no such key"}; },
     "/etc/srpfs.conf:7: reconect_delay", "srpctl config check"},
    {"KernelCutsRequests", [](Lab& lab) { lab.tree.write("proc/sys/fs/fuse/max_pages_limit", "32\n"); },
     "cut at 32 pages", "sysctl fs.fuse.max_pages_limit=256"},
    {"KernelEndsSlowMounts", [](Lab& lab) { lab.tree.write("proc/sys/fs/fuse/default_request_timeout", "30\n"); },
     "longer than 30 s", "default_request_timeout=0"},
    {"KernelHasNoRings", [](Lab& lab) { lab.tree.write("proc/sys/kernel/io_uring_disabled", "2\n"); },
     "may not use io_uring", "sysctl kernel.io_uring_disabled=0"},
    {"InterfaceWithoutRdma",
     [](Lab& lab) {
         lab.route = {0, "eth9"};
     },
     "leave by eth9, which has no RDMA device", "network of an RDMA interface"},
};

class Cause : public testing::TestWithParam<Row> {};

TEST_P(Cause, IsNamed) {
    Lab lab;
    const auto not_good = [&] {
        Findings found;
        for (const Finding& one : lab.all())
            if (one.verdict != Finding::Verdict::good) found.push_back(one);
        return found;
    };
    EXPECT_TRUE(not_good().empty()) << "before it is broken: " << render_why(not_good(), Format::table, {});
    GetParam().breaks(lab);
    const Findings found = not_good();
    ASSERT_EQ(found.size(), 1U) << render_why(lab.all(), Format::table, {});
    EXPECT_NE(found[0].text.find(GetParam().text), std::string::npos) << found[0].text;
    EXPECT_NE(found[0].advice.find(GetParam().advice), std::string::npos) << found[0].advice;
    EXPECT_TRUE(found[0].text.ends_with('.') || found[0].advice.ends_with('.') ||
                found[0].text.find(": ") != std::string::npos)
        << "a sentence";
}

INSTANTIATE_TEST_SUITE_P(Why, Cause, testing::ValuesIn(rows),
                         [](const auto& row) { return std::string(row.param.name); });

TEST(Causes, SharedWithTheDocumentAreReadAgain) {
    const Findings findings = {{Finding::Verdict::note, "a", "b", "c"}, {Finding::Verdict::wrong, "d", "e", ""}};
    const std::string text = render_why(findings, Format::json, {});
    EXPECT_EQ(render_why(findings_of(text), Format::json, {}), text);
    EXPECT_TRUE(findings_of("no document").empty());
}

TEST(Causes, RulesThatFitNothingAreNamed) {
    using config::SectionKind;
    Json mount{{"path", "/srp"}, {"targets", Json::array()}};
    const std::vector<config::Section> sections = {{SectionKind::lun, "*/lun0", {"/c", 1}, {}},
                                                   {SectionKind::lun, "naa.6*", {"/c", 2}, {}},
                                                   {SectionKind::lun, "wwn-0x6*", {"/c", 3}, {}},
                                                   {SectionKind::lun, "lun1", {"/c", 4}, {}},
                                                   {SectionKind::lun, "lun2", {"/c", 5}, {{"hide", "", {"/c", 6}}}},
                                                   {SectionKind::target, "10.0.0.7", {"/c", 7}, {}},
                                                   {SectionKind::target, "0000000000000001", {"/c", 8}, {}},
                                                   {SectionKind::target, "10.0.0.8*", {"/c", 9}, {}},
                                                   {SectionKind::mount, "", {"/c", 10}, {}}};
    EXPECT_TRUE(check_rules(sections, {mount}).empty()) << "nothing is logged in to yet";
    mount["targets"].push_back(
        {{"name", "0000000000000001-0000000000000002"},
         {"port", "srp-a-1"},
         {"address", "10.0.0.7:5555"},
         {"luns", Json::array({{{"name", "lun0"}, {"wwid", "naa.60"}, {"by_id", Json::array({"wwn-0x60"})}}})}});
    const Findings found = check_rules(sections, {mount});
    ASSERT_EQ(found.size(), 2U) << render_why(found, Format::table, {});
    EXPECT_EQ(found[0].text, "[lun lun1] in /c:4 fits no LUN that is there now.");
    EXPECT_EQ(found[1].text, "[target 10.0.0.8*] in /c:9 fits no target that is there now.");
}

// What srpfs says is written down where it says it, and here only repeated.
TEST(Causes, WordsOfReasonsAreThoseOfSrpfs) {
    std::string source;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(SRPFS_SOURCE)) {
        const std::string path = entry.path().string();
        if (!entry.is_regular_file() || path.find("/src/ctl/") != std::string::npos) continue;
        std::ifstream file(path);
        source += std::string(std::istreambuf_iterator<char>(file), {});
    }
    source = std::regex_replace(source, std::regex("\"\\s*\n\\s*\""), "");  // literals that go on
    ASSERT_GT(source.size(), 100000U);
    for (const std::string_view words : known_reasons())
        EXPECT_NE(source.find(words), std::string::npos) << words << " is said by nobody";
}

TEST(Causes, WhoMayNotWriteToADirectoryMayNotMountThere) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs to become somebody else";
    Lab lab;
    lab.tree.write("m/.keep", "");
    lab.remove("m/.keep");
    lab.machine.uid = 65534;
    ::chmod(lab.tree.path().c_str(), 0755);
    const std::string path = lab.tree.path() + "/m";
    ASSERT_EQ(::setresuid(65534, 0, 0), 0);  // access(2) is about the real one
    const Findings found = check_mount_point(lab.machine, path, {});
    ASSERT_EQ(::setresuid(0, 0, 0), 0);
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].verdict, Finding::Verdict::wrong);
    EXPECT_EQ(found[0].text, "Only root may mount on a directory one cannot write to.");
    EXPECT_EQ(check_mount_point(lab.machine, path, {})[0].verdict, Finding::Verdict::good) << "root may";
}

TEST(Causes, UnmountingIsAdvisedForSrpfsOnly) {
    Lab lab;
    for (const char* directory : {"/proc", "/sys", "/dev"})
        for (const Finding& one : check_mount_point(lab.machine, directory, {}))
            EXPECT_EQ(one.advice.find("umount"), std::string::npos) << directory << ": " << one.advice;
}

TEST(Causes, HoldersOfAMountAreNamed) {
    Lab lab;
    EXPECT_TRUE(check_holders(lab.machine, "/srp").empty());
    lab.process("77", "fio", "unlimited", "0");
    lab.tree.link("proc/77/fd/3", "/srp/srp-a-1/t/lun0");
    lab.process("78", "bash", "unlimited", "0");
    lab.tree.link("proc/78/cwd", "/srp");
    lab.process("79", "sh", "unlimited", "0");
    lab.tree.link("proc/79/cwd", "/srpx");
    lab.tree.write("sys/block/loop3/loop/backing_file", "/srp/srp-a-1/t/lun1\n");
    const Findings found = check_holders(lab.machine, "/srp");
    ASSERT_EQ(found.size(), 1U);
    EXPECT_EQ(found[0].text, "In use by fio (77), bash (78), /dev/loop3.");
}

TEST(Causes, FilesThatMountsAreMadeFromAreFound) {
    Lab lab;
    for (const char* file : {"a.conf", "b.conf", "c.conf", "etc/srpfs/srpfs.conf"}) lab.tree.write(file, "[mount]\n");
    lab.process("77", "srpfs", "unlimited", "0");
    lab.tree.write("proc/77/cmdline", "srpfs\0-o\0ro,config=/b.conf,uid=1\0all\0/m\0"s);
    lab.process("78", "srpfs", "unlimited", "0");
    lab.tree.write("proc/78/cmdline", "srpfs\0-oconfig=/missing\0all\0/n\0"s);
    lab.process("79", "bash", "unlimited", "0");
    lab.tree.write("proc/79/cmdline", "bash\0config=/c.conf\0"s);
    EXPECT_EQ(configuration_files(lab.machine, {{"/m", "/a.conf", "0:1"}, {"/n", "none", "0:2"}, {"/o", "all", "0:3"}}),
              (std::vector<std::string>{"/a.conf", "/b.conf"}));
}

TEST(Causes, ALockThatNobodyHoldsIsLeftOver) {
    Lab lab;
    lab.tree.write("run/srpfs/mlx5_1-1-0000000000000001-0000000000000002-0000000000000000.lock", "x");
    EXPECT_TRUE(check_locks(lab.machine, lab.login).empty());
}

TEST(Causes, CapabilitiesAreEnough) {
    Lab lab;
    lab.process("self", "bash", "8388608", "4");
    EXPECT_EQ(check_locked_memory(lab.machine).front().verdict, Finding::Verdict::good);
}

}  // namespace
}  // namespace srpfs::ctl
