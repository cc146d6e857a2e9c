// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// Machines on which something is wrong, each made of files: why must name it.
#include "fake_tree.h"

#include <srpfs/ctl/diagnosis.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <cerrno>
#include <map>

namespace srpfs::ctl {
namespace {

using Verdict = Finding::Verdict;

// One with everything it needs: a port of InfiniBand and one of Ethernet, both active.
class Why : public testing::Test {
protected:
    Why() {
        port("mlx5_0", "1", "InfiniBand", "4: ACTIVE", "5: LinkUp");
        tree.write(at("mlx5_0", "1") + "gids/0", "fe80:0000:0000:0000:0002:c903:00a1:b2c3\n");
        tree.write(at("mlx5_0", "1") + "gids/1", "0000:0000:0000:0000:0000:0000:0000:0000\n");
        tree.write(at("mlx5_0", "1") + "pkeys/0", "0xffff\n");
        tree.write(at("mlx5_0", "1") + "pkeys/1", "0x0000\n");
        port("mlx5_1", "1", "Ethernet", "4: ACTIVE", "5: LinkUp");
        tree.write(at("mlx5_1", "1") + "gids/0", "0000:0000:0000:0000:0000:ffff:0a00:0001\n");
        tree.write(at("mlx5_1", "1") + "gid_attrs/ndevs/0", "eth1\n");
        tree.write("dev/infiniband/uverbs0", "");
        tree.write("dev/infiniband/umad0", "");
        tree.write("proc/self/status", "Name:\tx\nCapEff:\t0000000000000000\n");
        limit("268435456");
        tree.write("proc/sys/fs/fuse/max_pages_limit", "256\n");
        tree.write("proc/sys/fs/fuse/default_request_timeout", "0\n");
        machine.root = tree.path();
        machine.open_errno = [this](const std::string& path) { return refusals.contains(path) ? refusals[path] : 0; };
        machine.route_to = [this](const std::string& host) {
            asked = host;
            return route;
        };
    }
    static std::string at(const std::string& device, const std::string& number) {
        return "sys/class/infiniband/" + device + "/ports/" + number + "/";
    }
    void port(const std::string& device, const std::string& number, const char* layer, const char* state,
              const char* physical) {
        tree.write(at(device, number) + "link_layer", std::string(layer) + "\n");
        tree.write(at(device, number) + "state", std::string(state) + "\n");
        tree.write(at(device, number) + "phys_state", std::string(physical) + "\n");
    }
    void remove(const std::string& name) { std::filesystem::remove_all(tree.path() + "/" + name); }
    void limit(const std::string& bytes) {
        tree.write("proc/self/limits",
                   "Limit                     Soft Limit           Hard Limit           Units     \n"
                   "Max processes             100                  100                  processes \n"
                   "Max locked memory         " +
                       bytes + "              unlimited            bytes     \n");
    }
    Findings everything() {
        Findings all;
        for (const Findings& some : {check_fuse(machine), check_devices(machine, true), check_ports(machine),
                                     check_locked_memory(machine), check_kernel(machine), check_ib_srp(machine)})
            all.insert(all.end(), some.begin(), some.end());
        return all;
    }
    // The only finding of that kind.
    static Finding only(const Findings& findings, Verdict verdict) {
        Findings found;
        for (const Finding& one : findings)
            if (one.verdict == verdict) found.push_back(one);
        EXPECT_EQ(found.size(), 1U) << render_why(findings, Format::table, {});
        return found.empty() ? Finding{} : found.front();
    }
    void expect_wrong(const Findings& findings, const char* text, const char* advice) {
        const Finding found = only(findings, Verdict::wrong);
        EXPECT_NE(found.text.find(text), std::string::npos) << found.text;
        EXPECT_NE(found.advice.find(advice), std::string::npos) << found.advice;
    }

    FakeTree tree;
    Machine machine;
    std::map<std::string, int> refusals;
    Route route{0, "eth1"};
    std::string asked;
    const std::string login = "id_ext=1,ioc_guid=2,dest=10.0.0.7:5555";
    const std::string ib_login = "id_ext=1,ioc_guid=2,dgid=fe800000000000000002c90300000001,pkey=ffff,service_id=1";
};

TEST_F(Why, NothingIsWrongWithAMachineThatIsAsItShouldBe) {
    const Findings findings = everything();
    for (const Finding& one : findings) EXPECT_EQ(one.verdict, Verdict::good) << one.subject << ": " << one.text;
    EXPECT_EQ(findings.size(), 7U) << render_why(findings, Format::table, {});
}

TEST_F(Why, NoFuse) {
    refusals["/dev/fuse"] = ENOENT;
    expect_wrong(everything(), "There is no /dev/fuse", "modprobe fuse");
}

TEST_F(Why, NoPermissionForFuse) {
    refusals["/dev/fuse"] = EACCES;
    expect_wrong(everything(), "/dev/fuse cannot be opened: Permission denied", "as root");
}

TEST_F(Why, NoRdmaDevice) {
    remove("sys/class/infiniband");
    expect_wrong(everything(), "There is no RDMA device", "rdma link add");
    EXPECT_NE(only(check_devices(machine, false), Verdict::note).text.find("Only the demo works"), std::string::npos);
}

TEST_F(Why, NoVerbsForPrograms) {
    remove("dev/infiniband");
    expect_wrong(everything(), "There is no /dev/infiniband/uverbs*", "modprobe ib_uverbs");
}

TEST_F(Why, NoPermissionForVerbs) {
    refusals["/dev/infiniband/uverbs0"] = EACCES;
    expect_wrong(everything(), "/dev/infiniband/uverbs0 cannot be opened: Permission denied", "join the group");
}

TEST_F(Why, NoConnectionManager) {
    refusals["/dev/infiniband/rdma_cm"] = ENOENT;
    expect_wrong(everything(), "There is no /dev/infiniband/rdma_cm", "modprobe rdma_ucm");
    refusals["/dev/infiniband/rdma_cm"] = EACCES;
    expect_wrong(everything(), "/dev/infiniband/rdma_cm cannot be opened: Permission denied", "as root");
}

TEST_F(Why, APortThatIsDownMattersWhenThereIsNoOther) {
    port("mlx5_1", "1", "Ethernet", "1: DOWN", "3: Disabled");
    const Finding found = only(everything(), Verdict::note);
    EXPECT_EQ(found.subject, "port mlx5_1 1");
    EXPECT_EQ(found.text, "The port is DOWN: eth1 is down.");
    remove("sys/class/infiniband/mlx5_0");
    expect_wrong(everything(), "The port is DOWN: eth1 is down.", "ip link set");
}

TEST_F(Why, NoSubnetManager) {
    remove("sys/class/infiniband/mlx5_1");
    port("mlx5_0", "1", "InfiniBand", "2: INIT", "5: LinkUp");
    expect_wrong(everything(), "no subnet manager has configured it", "opensm");
}

TEST_F(Why, NoCable) {
    remove("sys/class/infiniband/mlx5_1");
    port("mlx5_0", "1", "InfiniBand", "1: DOWN", "2: Polling");
    expect_wrong(everything(), "nothing answers at the other end", "Check the cable");
}

TEST_F(Why, ADisabledPort) {
    remove("sys/class/infiniband/mlx5_1");
    port("mlx5_0", "1", "InfiniBand", "1: DOWN", "3: Disabled");
    expect_wrong(everything(), "The port is disabled", "ibportstate");
}

TEST_F(Why, NoGid) {
    remove("sys/class/infiniband/mlx5_0");
    tree.write(at("mlx5_1", "1") + "gids/0", "0000:0000:0000:0000:0000:0000:0000:0000\n");
    expect_wrong(everything(), "has no GID", "ip address add ADDRESS/LENGTH dev INTERFACE");
}

TEST_F(Why, TooLittleLockedMemory) {
    limit("8388608");
    expect_wrong(everything(), "Only 8 MiB may be locked", "ulimit -l unlimited");
    limit("unlimited");
    EXPECT_EQ(check_locked_memory(machine).at(0).verdict, Verdict::good);
    limit("8388608");
    tree.write("proc/self/status", "CapEff:\t0000000000004000\n");
    EXPECT_EQ(check_locked_memory(machine).at(0).verdict, Verdict::good) << "CAP_IPC_LOCK";
}

TEST_F(Why, TheKernelEndsMountsThatAreSlow) {
    tree.write("proc/sys/fs/fuse/default_request_timeout", "20\n");
    expect_wrong(everything(), "takes longer than 20 s", "sysctl fs.fuse.default_request_timeout=0");
}

TEST_F(Why, TheKernelCutsRequests) {
    tree.write("proc/sys/fs/fuse/max_pages_limit", "32\n");
    EXPECT_EQ(only(everything(), Verdict::note).advice, "sysctl fs.fuse.max_pages_limit=256");
}

TEST_F(Why, IbSrpHasTheTarget) {
    for (const char* file : {"id_ext", "ioc_guid", "local_ib_device", "local_ib_port"})
        tree.write(std::string("sys/class/scsi_host/host7/") + file,
                   *file == 'i' ? file[1] == 'd' ? "0x0000000000000001\n" : "0x0000000000000002\n" : "1\n");
    tree.write("sys/class/scsi_host/host0/unique_id", "0\n");
    EXPECT_NE(only(everything(), Verdict::note).text.find("(host7) is logged in to id_ext=0x0000000000000001"),
              std::string::npos);
    expect_wrong(check_login(machine, login), "logged in to this target with the same initiator_ext",
                 "port-7:1/delete");
    EXPECT_EQ(check_login(machine, login + ",initiator_ext=1").size(), 1U) << "another nexus";
    EXPECT_EQ(check_login(machine, "id_ext=3,ioc_guid=2,dest=10.0.0.7:5555").size(), 1U) << "another target";
}

// ---- login strings ----

TEST_F(Why, TheWayToAnAddressLeadsThroughAnRdmaPort) {
    EXPECT_EQ(only(check_login(machine, login), Verdict::good).text,
              "Packets to 10.0.0.7 leave by eth1, which is RDMA port mlx5_1 1.");
    EXPECT_EQ(asked, "10.0.0.7");
    check_login(machine, "id_ext=1,ioc_guid=2,dest=[fe80::1%eth1]:5555");
    EXPECT_EQ(asked, "fe80::1%eth1");
}

TEST_F(Why, AddressUnreachable) {
    route = {ENETUNREACH, ""};
    expect_wrong(check_login(machine, login), "There is no route to 10.0.0.7 (Network is unreachable)",
                 "ip route get 10.0.0.7");
}

TEST_F(Why, NoAddressAtAll) {
    route = {EINVAL, ""};
    expect_wrong(check_login(machine, "id_ext=1,ioc_guid=2,dest=storage:5555"), "storage is not a numeric",
                 "dest=192.168.7.1:5555");
    expect_wrong(check_login(machine, "id_ext=1,ioc_guid=2"), "neither dest nor dgid", "dest=ADDRESS:PORT");
    expect_wrong(check_login(machine, "id_ext=x,ioc_guid=2,dgid=fe800000000000000002c90300000001"),
                 "are no hexadecimal numbers", "ibsrpdm");
}

TEST_F(Why, AnInterfaceWithoutRdma) {
    route.interface = "eth0";
    expect_wrong(check_login(machine, login),
                 "leave by eth0, which has no RDMA device; those that have one are eth1 (mlx5_1 1)",
                 "change the route");
}

TEST_F(Why, AnInterfaceWhosePortIsDown) {
    port("mlx5_1", "1", "Ethernet", "1: DOWN", "3: Disabled");
    expect_wrong(check_login(machine, login), "whose RDMA port mlx5_1 1 is DOWN", "cable");
}

TEST_F(Why, AnInterfaceThatIsNotKnown) {
    route.interface = "";
    EXPECT_EQ(only(check_login(machine, login), Verdict::note).text, "There is a route to 10.0.0.7.");
}

TEST_F(Why, ADgidOfAnotherSubnet) {
    EXPECT_EQ(only(check_login(machine, ib_login), Verdict::good).text, "It is in the subnet of port mlx5_0 1.");
    expect_wrong(check_login(machine, "id_ext=1,ioc_guid=2,pkey=ffff,dgid=fec00000000000000002c90300000001"),
                 "No active InfiniBand port is in its subnet, fec0000000000000; there are fe80000000000000 (mlx5_0 1)",
                 "ibsrpdm");
    expect_wrong(check_login(machine, "id_ext=1,ioc_guid=2,pkey=ffff,dgid=fe80"), "4 hexadecimal digits instead of 32",
                 "ibsrpdm");
}

TEST_F(Why, AnotherPartition) {
    expect_wrong(check_login(machine, "id_ext=1,ioc_guid=2,dgid=fe800000000000000002c90300000001,pkey=8005"),
                 "not in this partition", "partitions.conf");
    tree.write(at("mlx5_0", "1") + "pkeys/1", "0x0005\n");
    EXPECT_EQ(check_login(machine, "id_ext=1,ioc_guid=2,dgid=fe800000000000000002c90300000001,pkey=8005").size(), 1U)
        << "a limited member";
}

// ---- mounts ----

Json mounted(const char* targets, const char* last_error = "") {
    return Json{{"path", "/srp"}, {"last_error", last_error}, {"targets", Json::parse(targets)}};
}

TEST_F(Why, TheLastLoginWasRejected) {
    expect_wrong(check_mount(mounted("[]", "10.0.0.7: The target rejected the login: no ACL.")),
                 "The last attempt failed: 10.0.0.7: The target rejected the login: no ACL.", "srpctl login");
    EXPECT_EQ(only(check_mount(mounted("[]")), Verdict::note).text, "No target is logged in to.");
}

TEST_F(Why, ATargetIsGone) {
    expect_wrong(check_mount(mounted(
                     R"([{"name":"t","port":"srp-a-1","address":"10.0.0.7:5555","state":"blocked","failed_reconnects":3,
                                         "fast_io_fail_tmo":15,"last_error":"the target stays silent"}])")),
                 "lost and I/O waits: the target stays silent",
                 "(3 attempts have failed). Check whether the target runs and is reachable. I/O fails after 15 s");
    expect_wrong(
        check_mount(mounted(
            R"([{"name":"t","port":"srp-a-1","address":"x","state":"fail-fast","failed_reconnects":9,"dev_loss_tmo":null}])")),
        "lost and I/O fails.", "Its files stay, since dev_loss_tmo is off.");
}

TEST_F(Why, ATargetShowsNoLun) {
    expect_wrong(
        check_mount(mounted(R"([{"name":"t","port":"srp-a-1","state":"running","sgid":"fe80::1","luns":[]}])")),
        "shows no LUN", "see its ACLs and LUN maps for an initiator port with GID fe80::1");
}

TEST_F(Why, ALunIsOfflineOrHadErrors) {
    const Findings findings = check_mount(mounted(
        R"([{"name":"t","port":"srp-a-1","state":"running","luns":[
            {"name":"lun0","state":"offline","last_error":"MEDIUM ERROR"},{"name":"lun1","state":"running","counters":{"errors":0}},
            {"name":"lun2","state":"running","last_error":"7 blocks","counters":{"errors":5}}]}])"));
    expect_wrong(findings, "The LUN is offline although its target runs: MEDIUM ERROR", "rescan");
    EXPECT_EQ(only(findings, Verdict::note).text, "5 requests have failed. The last: 7 blocks");
}

TEST_F(Why, AMountThatIsAsItShouldBeIsSaidToBe) {
    const Findings findings = check_mount(
        mounted(R"([{"name":"t","port":"srp-a-1","state":"running","luns":[{"name":"lun0","state":"running"}]}])"));
    EXPECT_EQ(only(findings, Verdict::good).text, "Runs, with 1 LUN.");
}

// ---- saying it ----

TEST_F(Why, LinesAreBrokenAtBlanks) {
    const Findings findings = {
        {Verdict::good, "fuse", "/dev/fuse can be opened.", ""},
        {Verdict::wrong, "port x\x1b[2J", "It is down because the cable is not there.", "Plug it in, or do not."}};
    EXPECT_EQ(render_why(findings, Format::table, {.width = 40}),
              "good   fuse: /dev/fuse can be opened.\n"
              "wrong  port x?[2J: It is down because\n"
              "       the cable is not there.\n"
              "       Do: Plug it in, or do not.\n"
              "\n"
              "One thing is wrong.\n");
    EXPECT_EQ(render_why(findings, Format::plain, {}),
              "good\tfuse\t/dev/fuse can be opened.\t-\n"
              "wrong\tport x?[2J\tIt is down because the cable is not there.\tPlug it in, or do not.\n");
    EXPECT_EQ(
        why_document({findings[0]}).dump(),
        R"({"schema":1,"findings":[{"verdict":"good","subject":"fuse","text":"/dev/fuse can be opened.","advice":""}]})");
    EXPECT_NE(render_why({findings[0]}, Format::table, {.has_colour = true}).find("\x1b[32mgood\x1b[0m"),
              std::string::npos);
}

TEST(ThisMachine, RoutesToItselfByTheLoopbackInterface) {
    const Machine machine = this_machine();
    EXPECT_EQ(machine.route_to("not a number").errno_value, EINVAL);
    EXPECT_EQ(machine.route_to("127.0.0.1").errno_value, 0);
    EXPECT_EQ(machine.open_errno("/nowhere"), ENOENT);
}

}  // namespace
}  // namespace srpfs::ctl
