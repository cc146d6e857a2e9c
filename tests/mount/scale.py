# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Several targets, and what they cost while nobody uses them."""

import os
import pathlib
import re
import subprocess
import time

from harness import BOTH, PORT, check, equal, eventually, own_mount_namespace, pattern, promised, read_bytes, test

WINDOW = 10     # seconds in which wake-ups are counted
WAKE_UPS_OF_A_FILE = 2   # of the control thread, while `ls -lR` lists it; 15 when names and attributes are asked for one by one
REACTORS = 2    # each may look whether all is well once a second, as with rings, and nobody else
RESIDENT_MAX = 160 << 20
IDLE_CPU = 0.005
WINDOWS = 12    # one of which has to be quiet: what a mount begins with takes some time


def directory(mount, number):
    return mount.path / PORT / f"{number:016x}-{number:016x}"


def is_running(unit):
    state = unit.with_name(unit.name + ".attr") / "state"
    return state.exists() and state.read_text().strip() == "running"


@test
def each_embedded_target_has_its_own_units(t):
    mount = t.mount("demo:ram:1M++2*ram:2M++3*ram:3M", "reactors=2")
    for number in (1, 2, 3):
        for lun in range(number):
            unit = directory(mount, number) / f"lun{lun}"
            eventually(lambda one=unit: is_running(one), f"{unit} running")
            equal(unit.stat().st_size, number << 20, f"size of {unit}")
            unit.write_bytes(pattern(65536, 10 * number + lun))
    for number in (1, 2, 3):
        for lun in range(number):
            equal(read_bytes(directory(mount, number) / f"lun{lun}")[:65536], pattern(65536, 10 * number + lun), f"data of lun{lun} of {number}")
    equal(len(list((mount.path / PORT).glob("*/lun?"))), 6, "units of all")


def wake_ups(mount):
    """{thread: how often it went to sleep}"""
    found = {}
    for task in pathlib.Path(f"/proc/{mount.pid}/task").iterdir():
        lines = (task / "status").read_text().splitlines()
        name = (task / "comm").read_text().strip()
        found[f"{name} {task.name}"] = int(next(line.split()[1] for line in lines if line.startswith("voluntary_ctxt_switches")))
    return found


@test
def listing_a_large_tree_does_not_ask_for_each_file(t):
    mount = t.mount("demo:" + "++".join(["8*null:1G"] * 4))
    for number in range(1, 5):
        for lun in range(8):
            eventually(lambda n=number, one=lun: is_running(directory(mount, n) / f"lun{one}"), f"unit {lun} of target {number} running")
    before = wake_ups(mount)
    done = subprocess.run(["ls", "-lR", mount.path], stdout=subprocess.PIPE, check=True)
    control = f"srpfs {mount.pid}"
    woken = wake_ups(mount)[control] - before[control]
    files = done.stdout.count(b"\n-") + done.stdout.count(b"\nd")
    check(files > 400, f"only {files} files")
    check(woken <= WAKE_UPS_OF_A_FILE * files, f"the control thread was woken {woken} times for {files} files")


def cpu_seconds(mount):
    fields = pathlib.Path(f"/proc/{mount.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(mount):
    return int(re.search(r"^VmRSS:\s+(\d+) kB$", pathlib.Path(f"/proc/{mount.pid}/status").read_text(), re.M)[1]) << 10


# Of 64 targets and 1,024 units, and about 40,000 files; measured by tests/bench/scale, see docs/performance.md.
@test(intakes=BOTH, seconds=300)
def sixty_four_targets_cost_little_while_nobody_uses_them(t):
    own_mount_namespace()                       # who else is on the machine may look into all mounts there are
    mount = t.mount("demo:" + "++".join(["16*null:1G"] * 64), f"reactors={REACTORS},ch_count=2")
    for number in range(1, 65):
        for lun in range(16):
            eventually(lambda n=number, one=lun: is_running(directory(mount, n) / f"lun{one}"), f"unit {lun} of target {number} running")
    with promised(60, "listing all of it"):
        listed = subprocess.run(["ls", "-lR", mount.path], stdout=subprocess.PIPE, check=True).stdout
    files = listed.count(b"\n-") + listed.count(b"\nd")
    check(files > 10_000, f"only {files} files")
    check(resident_bytes(mount) < RESIDENT_MAX, f"{resident_bytes(mount) >> 20} MiB of memory")
    seen = []
    for _ in range(WINDOWS):
        before, used, begin = wake_ups(mount), cpu_seconds(mount), time.monotonic()
        time.sleep(WINDOW)
        after, used, seconds = wake_ups(mount), cpu_seconds(mount) - used, time.monotonic() - begin
        woken = {thread: count - before.get(thread, 0) for thread, count in after.items()}
        if max(woken.values()) <= seconds + 2 and sum(woken.values()) <= REACTORS * seconds + 3 and used < IDLE_CPU * seconds:
            return
        seen.append((woken, used))
    check(False, f"threads were woken so often, and used so many seconds of CPU time, in {WINDOW} s each: {seen}")
