# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Several reactors: any of them reads a request, and the one that has the unit serves it."""

from harness import BOTH, LOGIN, PATIENCE, SLOWER, Background, check, equal, eventually, opened, pattern, read_bytes, run, test, write_once
from luns import fio
from trouble import READ, Stuck, killed, user_of, waits, write_raw

import mmap
import os
import pathlib
import re
import signal

# All reactors read and hand over, and answer for each other, whether it pays or not (src/daemon/supervisor.cc).
SHARE = {"SRPFS_DEMO_SHARE": "1"}
# What there is by default on a machine with more processors than two.
LARGE = {"SRPFS_DEMO_PROCESSORS": "16"}
BUSY = "[(os.pread(handle, 1 << 20, place << 20), os.pwrite(handle, bytes(100000), place * 999)) for _ in range(1 << 30) for place in range(4)]"


@test
def there_are_as_many_reactors_as_asked_for(t):
    for count in (1, 2, 5):
        mount = t.mount("demo:ram:1M", f"reactors={count},cpus=0")
        equal([reactor["name"] for reactor in mount.stats()["reactors"]], [f"srpfs-{number}" for number in range(count)], "reactors")
        tasks = pathlib.Path(f"/proc/{mount.pid}/task")
        eventually(lambda: {comm.read_text().strip() for comm in tasks.glob("*/comm")} >= {f"srpfs-{number}" for number in range(count)},
                   f"{count} threads have their names")
        mount.umount()


@test
def reactors_help_where_there_are_no_rings(t):
    # 24M are too little for a ring, wherever there could be one.
    for options in ("io_uring=off", "io_uring=auto,memory=24M"):
        mount = t.mount("demo:ram:1M", options, env=LARGE)
        equal(len(mount.stats()["reactors"]), 4, f"reactors with {options}")
        write_once(mount.lun(0), b"works")
        mount.umount()


def processors_of(mount):
    """{reactor: the processors it is bound to}"""
    found = {}
    for task in pathlib.Path(f"/proc/{mount.pid}/task").iterdir():
        if re.fullmatch(r"srpfs-\d+", name := (task / "comm").read_text().strip()):
            found[name] = re.search(r"^Cpus_allowed_list:\s+(\S+)$", (task / "status").read_text(), re.M)[1]
    return found


@test(intakes=BOTH)
def reactors_are_bound_to_the_processors_that_are_named(t):
    allowed = sorted(os.sched_getaffinity(0))
    first, last = allowed[0], allowed[-1]
    for cpus in ([last], [first, last]):
        mount = t.mount("demo:ram:1M", f"reactors=3,cpus={':'.join(map(str, cpus))}")
        wanted = {f"srpfs-{number}": str(cpus[number % len(cpus)]) for number in range(3)}
        eventually(lambda: processors_of(mount) == wanted, f"reactors are bound: {processors_of(mount)}, wanted {wanted}")
        write_once(mount.lun(0), b"works")
        mount.umount()


def threads_of(mount):
    """{(name, thread): its processors}, without the kernel's own for an io_uring, which are called iou-..."""
    found = {}
    for task in pathlib.Path(f"/proc/{mount.pid}/task").iterdir():
        name, status = (task / "comm").read_text().strip(), (task / "status").read_text()
        if not name.startswith("iou-"):
            found[name, int(task.name)] = re.search(r"^Cpus_allowed_list:\s+(\S+)$", status, re.M)[1]
    return found


@test(intakes=BOTH)
def threads_that_are_no_reactors_have_names_and_are_not_bound_to_a_processor(t):
    image = t.path("image")
    image.write_bytes(bytes(1 << 20))
    bound = max(os.sched_getaffinity(0))
    mount = t.mount(f"demo:file:{image}", f"reactors=2,cpus={bound}")
    own = re.search(r"^Cpus_allowed_list:\s+(\S+)$", pathlib.Path("/proc/self/status").read_text(), re.M)[1]
    # A file of the target's, notifications, and pages of the kernel's that are dropped: all of them have run.
    write_once(mount.lun(0), b"works")
    with opened(mount.lun(0), os.O_RDONLY) as handle, mmap.mmap(handle, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ) as memory:
        equal(memory[:5], b"works", "what is mapped")
    wanted = {"srpfs", "srpfs-0", "srpfs-1", "srpfs-notify", "srpfs-pages", "srpfs-file"}
    eventually(lambda: {name for name, _ in threads_of(mount)} >= wanted, f"threads {threads_of(mount)}, wanted {wanted}")
    for (name, thread), processors in threads_of(mount).items():
        is_reactor = re.fullmatch(r"srpfs-\d+", name) is not None
        equal(processors, str(bound) if is_reactor else own, f"processors of {name} ({thread})")
        # A sanitizer's thread has none of its own.
        check(name in wanted and (SLOWER > 1 or (name == "srpfs") == (thread == mount.pid)), f"{name} ({thread}) is nobody's name")
    reactors = [name for name, _ in threads_of(mount) if re.fullmatch(r"srpfs-\d+", name)]
    equal(sorted(reactors), ["srpfs-0", "srpfs-1"], "threads with the name of a reactor")


@test(intakes=BOTH)
def several_reactors_carry_the_same_bytes(t):
    # The second target has a reactor of its own, which reads requests of the first one as well.
    mount = t.mount("demo:ram:32M+ram:32M,bs=4096,wce++ram:1M", "reactors=3,spin=20")
    for number in (0, 1):
        fio(t, mount, "--ioengine=psync", "--rw=randwrite", "--bsrange=512-64k", "--bs_unaligned=1", "--size=2m", "--offset_increment=2m", "--numjobs=8",
            number=number)
        fio(t, mount, "--ioengine=libaio", "--direct=1", "--rw=randwrite", "--bs=4k", "--size=4m", "--offset_increment=4m", "--numjobs=4", "--iodepth=16",
            number=number)
        fio(t, mount, "--ioengine=libaio", "--direct=1", "--rw=write", "--bs=1m", "--size=32m", "--iodepth=8", number=number)
    data = pattern(3 << 20, 4)
    mount.lun(0).write_bytes(data)
    check(read_bytes(mount.lun(0))[:len(data)] == data, "data as a whole")
    with opened(mount.lun(1)) as handle:
        os.fsync(handle)
    equal(mount.lun_stats(0)["errors"] + mount.lun_stats(1)["errors"], 0, "errors counted")


@test(intakes=BOTH)
def several_reactors_that_share_all_carry_the_same_bytes(t):
    for reactors in (2, 4):
        mount = t.mount("demo:ram:32M,wce+ram:8M,bs=4096++ram:1M", f"reactors={reactors}", env=SHARE)
        fio(t, mount, "--ioengine=psync", "--rw=randwrite", "--bsrange=512-64k", "--bs_unaligned=1", "--size=2m", "--offset_increment=2m", "--numjobs=8")
        fio(t, mount, "--ioengine=libaio", "--direct=1", "--rw=randwrite", "--bs=4k", "--size=2m", "--offset_increment=2m", "--numjobs=4", "--iodepth=16",
            number=1)
        fio(t, mount, "--ioengine=libaio", "--direct=1", "--rw=randwrite", "--bs=1m", "--size=32m", "--iodepth=16")
        fio(t, mount, "--ioengine=libaio", "--direct=1", "--rw=write", "--bsrange=64k-1m", "--size=32m", "--iodepth=8")
        equal(mount.lun_stats(0)["errors"] + mount.lun_stats(1)["errors"], 0, "errors counted")
        eventually(lambda: mount.requests() <= 0, "nothing is pending any more")
        mount.umount()


@test
def several_reactors_that_share_all_lose_nothing_under_trouble(t):
    mount = t.mount("demo:ram:4M++ram:1M", "reactors=4", env=SHARE)
    data = pattern(4 << 20, 6)
    mount.lun(0).write_bytes(data)
    for turn in range(6):
        eventually(mount.lun(0).exists, "the unit's file")
        users = [user_of(mount.lun(0), "[os.pread(handle, 1 << 20, place << 20) for place in range(4) for _ in range(8)]") for _ in range(4)]
        users += [user_of(mount.lun(0), "[os.pwrite(handle, os.pread(handle, 65536, 0), 0) for _ in range(40)]")]
        if turn % 3 == 0:
            write_once(mount.target / "delete", "1")
        elif turn % 3 == 1:
            write_once(mount.target / "rescan", "1")
        else:
            write_once(mount.target / "reset", "1")
        for process in users[:2]:
            process.kill()
        for process in users:
            process.wait(PATIENCE)
        if turn % 3 == 0:
            write_once(mount.path / "add_target", LOGIN)
        check(read_bytes(mount.lun(0)) == data, f"data after turn {turn}")
    eventually(lambda: mount.requests() <= 0, "nothing is pending any more")


def users_can_be_killed(stuck):
    """And whoever comes after them is served; its first unit has 8 MiB."""
    mount = stuck.mount
    stuck.hold()
    users = [user_of(mount.lun(0), READ) for _ in range(6)] + [user_of(mount.lun(0), *write_raw(number << 16)) for number in range(6)]
    waits(mount, *users)
    for each in [Background(killed, process, f"user {number}") for number, process in enumerate(users)]:
        each.wait("killing")
    stuck.go_on()
    eventually(lambda: mount.requests() <= 0, "nothing is pending any more")
    equal(len(read_bytes(mount.lun(0))), 8 << 20, "bytes read afterwards")


@test(intakes=BOTH)
def several_reactors_that_share_all_let_users_be_killed(t):
    users_can_be_killed(Stuck(t, "demo:ram:8M++ram:1M", "reactors=4", env=SHARE))


@test(intakes=BOTH)
def helpers_have_no_target_and_carry_the_same_bytes(t):
    # io_uring is asked for without a number of reactors: then nobody helps.
    alone = t.mount("demo:ram:1M", "reactors=1")
    memory = alone.stats()["memory"]["registered_bytes"]
    count = 1 if t.intake == "io_uring" else 4
    for environment in (LARGE, {**LARGE, **SHARE}):
        mount = t.mount("demo:ram:8M,wce+ram:8M,bs=4096++ram:1M++ram:1M", env=environment)
        equal([reactor["name"] for reactor in mount.stats()["reactors"]], [f"srpfs-{number}" for number in range(count)], "reactors")
        equal(mount.stats()["memory"]["registered_bytes"], memory, "registered bytes")
        write_once(mount.path / "add_target", LOGIN + ",initiator_ext=2")
        fio(t, mount, "--ioengine=psync", "--rw=randwrite", "--bsrange=512-64k", "--bs_unaligned=1", "--size=2m", "--offset_increment=2m", "--numjobs=4")
        fio(t, mount, "--ioengine=libaio", "--direct=1", "--rw=randwrite", "--bs=4k", "--size=2m", "--offset_increment=2m", "--numjobs=4", "--iodepth=16",
            number=1)
        fio(t, mount, "--ioengine=libaio", "--direct=1", "--rw=randwrite", "--bs=1m", "--size=8m", "--iodepth=8")
        equal(mount.lun_stats(0)["errors"] + mount.lun_stats(1)["errors"], 0, "errors counted")
        eventually(lambda m=mount: m.requests() <= 0, "nothing is pending any more")
        mount.umount()


@test(intakes=BOTH, exit_codes=(0, 2))
def the_end_comes_while_reactors_help(t):
    for reactors, environment in (("reactors=4,", SHARE), ("", {**LARGE, **SHARE})):
        for end in ("umount -f", "SIGTERM", "delete"):
            mount = t.mount("demo:ram:4M++ram:1M", f"{reactors}shutdown_timeout=1", env=environment)
            users = [user_of(mount.lun(0), BUSY) for _ in range(6)]
            eventually(lambda m=mount: m.lun_stats(0)["writes"] > 20, "the users are at work")
            users[0].kill()
            if end == "SIGTERM":
                os.kill(mount.pid, signal.SIGTERM)
            elif end == "delete":
                write_once(mount.target / "delete", "1")
            else:
                run("umount", "-f", mount.path)
            for process in users:
                process.wait(PATIENCE)
            if end != "SIGTERM":
                run("umount", mount.path)
            mount.wait_end()


def sleeps(mount, name):
    """How often the thread of that name went to sleep."""
    for task in pathlib.Path(f"/proc/{mount.pid}/task").iterdir():
        if (task / "comm").read_text().strip() == name:
            lines = (task / "status").read_text().splitlines()
            return int(next(line.split()[1] for line in lines if line.startswith("voluntary_ctxt_switches")))
    raise AssertionError(f"no thread {name}")


@test
def helpers_sleep_while_single_requests_are_served(t):
    mount = t.mount("demo:ram:1M++ram:1M", env=LARGE)
    names = ("srpfs-1", "srpfs-2", "srpfs-3")
    before = [sleeps(mount, name) for name in names]
    buffer = mmap.mmap(-1, 4096)
    with opened(mount.lun(0), os.O_RDONLY | os.O_DIRECT) as handle:
        for place in range(500):
            os.preadv(handle, [buffer], place % 256 * 4096)
    for name, count in zip(names, before):
        check(sleeps(mount, name) - count < 20, f"{name} was woken {sleeps(mount, name) - count} times by 500 requests")


@test
def a_reactor_without_a_target_is_not_woken_by_requests(t):
    mount = t.mount("demo:ram:1M", "reactors=2")
    requests = 500

    def read_all(path):
        with opened(path, os.O_RDONLY | os.O_DIRECT) as handle:
            for place in range(requests):
                os.preadv(handle, [buffer], place % 256 * 4096)

    buffer = mmap.mmap(-1, 4096)
    before = sleeps(mount, "srpfs-1")
    read_all(mount.lun(0))
    idle = sleeps(mount, "srpfs-1") - before
    check(idle < requests / 5, f"the reactor without a target was woken {idle} times by {requests} requests")
    # When the first target leaves and a second one has come, the other reactor takes over.
    write_once(mount.path / "add_target", LOGIN + ",initiator_ext=2")
    read_all(mount.lun(0))
    write_once(mount.target / "delete", "1")
    other = mount.port / "0000000000000001-0000000000000001-0000000000000002" / "lun0"
    eventually(other.exists, "the unit's other file")
    read_all(other)
    write_once(other.parent / "delete", "1")
    write_once(mount.path / "add_target", LOGIN)
    eventually(mount.lun(0).exists, "the unit after all have left")
    read_all(mount.lun(0))


@test(intakes=BOTH)
def several_reactors_and_two_logins_lose_no_part_of_a_block(t):
    mount = t.mount("demo:ram:1M++ram:1M", "reactors=4")
    with opened(mount.path / "events", os.O_RDONLY) as events:
        write_once(mount.path / "add_target", LOGIN + ",initiator_ext=2")
        told = os.read(events, 65536).decode()
    # It is given to another reactor first, and then to the one that has the unit.
    equal(told.count('"target_login"'), 2, f"logins of the second path in {told}")
    paths = (mount.lun(0), mount.port / "0000000000000001-0000000000000001-0000000000000002" / "lun0")

    def write(number):
        with opened(paths[number % 2]) as handle:
            for turn in range(30):
                for place in range(number * 50, 8000, 400):
                    equal(os.pwrite(handle, bytes([number * 20 + turn % 20]) * 50, place), 50, "bytes written")

    # The second has been given to another reactor, and moved to the one that has the unit.
    for writer in [Background(write, number) for number in range(8)]:
        writer.wait("a writer")
    content = read_bytes(mount.lun(0))
    for place in range(0, 8000, 50):
        equal(content[place:place + 50], bytes([place // 50 % 8 * 20 + 29 % 20]) * 50, f"bytes at {place}")


@test
def a_path_with_a_unit_of_its_own_goes_to_the_reactor_of_the_shared_one(t):
    shared, own = ("naa.600140500000000000000000000000" + end for end in ("0a", "0b"))
    # Whichever of the second target's units is found first.
    for units in (f"ram:1M,wwid={own}+ram:1M,wwid={shared}", f"ram:1M,wwid={shared}+ram:1M,wwid={own}"):
        mount = t.mount(f"demo:ram:2M,wwid={shared}++{units}", "reactors=3")
        second = mount.port / "0000000000000002-0000000000000002"
        equal(sorted((second / f"lun{number}.attr" / "wwid").read_text().strip() for number in (0, 1)), [shared, own], "units of the second path")
        for path in (mount.lun(0), second / "lun0", second / "lun1"):
            write_once(path, b"srpfs" * 1000)
            equal(read_bytes(path)[:5000], b"srpfs" * 1000, f"what {path} has")
        mount.umount()


@test
def a_unit_whose_paths_cannot_have_one_reactor_is_refused_with_what_helps(t):
    first, second = (f"wwid=naa.600140500000000000000000000000{end}" for end in ("0a", "0b"))
    source = f"demo:ram:1M,{first}++ram:1M,{second}++ram:1M,{first}+ram:1M,{second}"
    # If the third target is logged in to before one of the others is, there is no split.
    for _ in range(20):
        mount = t.mount(source, "reactors=2")
        both = mount.port / "0000000000000003-0000000000000003"
        eventually(lambda: all((mount.port / f"{n:016x}-{n:016x}" / "state").exists() for n in (1, 2, 3)), "three targets")

        def judged(mount=mount, both=both):
            refused, shown = mount.stats()["events"].get("lun_refused", 0), len(list(both.glob("lun?")))
            return (refused, shown) if refused + shown == 2 else None

        refused, shown = eventually(judged, "both units of the third target are shown or refused")
        if (refused, shown) == (1, 1):
            break
        mount.umount()
    equal(refused, 1, "units refused")
    said = (both / "last_error").read_text()
    check("another reactor serves" in said and "mount with reactors=1" in said and "log out" not in said, f"last_error: {said}")
    write_once(both / "delete", "1")
    eventually(lambda: not both.exists(), "the third target gone")
    write_once(mount.path / "add_target", "id_ext=3,ioc_guid=3,dest=demo3")
    equal(len(list(both.glob("lun?"))), 1, "units of it after another login")
    mount.umount()
    mount = t.mount(source, "reactors=1")
    eventually(lambda: len(list((mount.port / both.name).glob("lun?"))) == 2, "both units with one reactor")


@test(intakes=BOTH)
def users_are_killed_whichever_reactor_has_read_their_request(t):
    users_can_be_killed(Stuck(t, "demo:ram:8M++ram:1M++ram:1M", "reactors=3"))


@test(intakes=BOTH)
def several_reactors_log_out_and_in_under_io(t):
    mount = t.mount("demo:ram:4M++ram:1M", "reactors=3")
    data = pattern(1 << 20, 6)
    for _ in range(5):
        users = [user_of(mount.lun(0), "os.pread(handle, 1 << 20, 0)") for _ in range(4)]
        mount.lun(0).write_bytes(data)
        write_once(mount.target / "delete", "1")
        for process in users:
            process.wait(PATIENCE)
        write_once(mount.path / "add_target", LOGIN)
        check(read_bytes(mount.lun(0))[:len(data)] == data, "data after the next login")
