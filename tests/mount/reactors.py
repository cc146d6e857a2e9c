# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Several reactors: any of them reads a request, and the one that has the unit serves it."""

from harness import BOTH, LOGIN, PATIENCE, Background, check, equal, eventually, opened, pattern, read_bytes, test, write_once
from luns import fio
from trouble import READ, Stuck, killed, user_of, waits, write_raw

import mmap
import os
import pathlib


@test
def there_are_as_many_reactors_as_asked_for(t):
    for count in (1, 2, 5):
        mount = t.mount("demo:ram:1M", f"reactors={count},cpus=0")
        equal([reactor["name"] for reactor in mount.stats()["reactors"]], [f"srpfs-{number}" for number in range(count)], "reactors")
        tasks = pathlib.Path(f"/proc/{mount.pid}/task")
        eventually(lambda: {comm.read_text().strip() for comm in tasks.glob("*/comm")} >= {f"srpfs-{number}" for number in range(count)},
                   f"{count} threads have their names")
        mount.umount()


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


def sleeps(mount, name):
    """How often the thread of that name went to sleep."""
    for task in pathlib.Path(f"/proc/{mount.pid}/task").iterdir():
        if (task / "comm").read_text().strip() == name:
            lines = (task / "status").read_text().splitlines()
            return int(next(line.split()[1] for line in lines if line.startswith("voluntary_ctxt_switches")))
    raise AssertionError(f"no thread {name}")


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


@test(intakes=BOTH)
def users_are_killed_whichever_reactor_has_read_their_request(t):
    stuck = Stuck(t, "demo:ram:8M++ram:1M++ram:1M", "reactors=3")
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
