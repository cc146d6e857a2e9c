# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""memory_lock: a file system on a loop device over a LUN file is written back while there is no memory left."""

import contextlib
import hashlib
import os
import pathlib
import re
import signal
import subprocess
import threading

from harness import BOTH, Skip, check, contains, equal, eventually, needs, pattern, read_file, run, succeeds, test, unmount

MIB = 1 << 20
LIMIT = 192 * MIB
# Takes memory until it is killed for that.
HOG = ("open('/proc/self/oom_score_adj', 'w').write('1000')\n"
       "taken = []\n"
       "while True: taken.append(bytearray(b'x') * (1 << 20))\n")


class MemoryGroup:
    """A control group whose processes have so much memory, version 2 or 1."""

    def __init__(self, name, limit):
        root = pathlib.Path("/sys/fs/cgroup")
        first = not (root / "cgroup.controllers").exists()
        self.path = (root / "memory" if first else root) / name
        self.failures = "memory.failcnt" if first else "memory.events"
        try:
            if not first and "memory" not in read_file(root / "cgroup.subtree_control").split():
                (root / "cgroup.subtree_control").write_text("+memory")
            self.path.mkdir()
            (self.path / ("memory.limit_in_bytes" if first else "memory.max")).write_text(str(limit))
            swap = self.path / ("memory.swappiness" if first else "memory.swap.max")
            if swap.exists():
                swap.write_text("0")                  # what does not fit is not to fill the machine's swap space
        except OSError as error:
            with contextlib.suppress(OSError):
                self.path.rmdir()
            raise Skip(f"no memory limit for a control group: {error}") from error

    def times_full(self):
        text = read_file(self.path / self.failures)
        return int(text) if text.strip().isdigit() else int(re.search(r"^max (\d+)", text, re.M)[1])

    def command(self, *words):
        """What runs the command inside."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.path / "cgroup.procs"), *map(str, words)]

    def remove(self):
        eventually(lambda: not read_file(self.path / "cgroup.procs").strip(), "the control group is empty")
        self.path.rmdir()


def has_sys_resource():
    return int(re.search(r"^CapEff:\s*([0-9a-f]+)", read_file("/proc/self/status"), re.M)[1], 16) >> 24 & 1


# PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE: what PR_SET_IO_FLUSHER sets.
IO_FLUSHER = 0x00080000 | 0x00100000


def flags_of_threads(pid):
    threads = {}
    for path in pathlib.Path(f"/proc/{pid}/task").glob("*/stat"):
        name, fields = re.fullmatch(r"\d+ \((.*)\) (.*)\n", read_file(path), re.S).groups()
        threads[name] = int(fields.split()[6])
    return threads


def hog(group, stop, counts):
    while not stop.is_set():
        with subprocess.Popen(group.command("python3", "-c", HOG), stderr=subprocess.DEVNULL) as process:
            counts.append(process.wait())


@test(seconds=420, intakes=BOTH)
def a_file_system_on_a_loop_device_is_written_while_memory_runs_out(t):
    is_written_while_memory_runs_out(t, "demo:ram:64M,wce", "memory=24M,park=8M" if t.intake != "io_uring" else "memory=96M,park=8M,io_uring_queue_depth=16")


@test(seconds=420)
def a_file_system_on_a_loop_device_is_written_by_several_reactors_while_memory_runs_out(t):
    # The other home reads requests as well.
    is_written_while_memory_runs_out(t, "demo:ram:64M,wce++ram:1M", "reactors=2,memory=48M,park=8M")


def is_written_while_memory_runs_out(t, source, options):
    needs("losetup", "mkfs.ext4", "e2fsck")
    group = MemoryGroup(f"srpfs-test-{os.getpid()}", LIMIT)
    stop, killed = threading.Event(), []
    hogs = []
    # Without the privilege srpfs is as vulnerable as any other process where memory runs out: then it is elsewhere.
    # Sanitizers need much more memory, and lock none.
    privileged = has_sys_resource()
    sanitized = any(f"{name}SAN_OPTIONS" in os.environ for name in ("A", "T"))
    if privileged and not sanitized:
        inside = t.path("srpfs-inside")
        inside.write_text(f"#!/bin/sh\necho $$ > '{group.path}/cgroup.procs' && exec '{t.program}' \"$@\"\n")
        inside.chmod(0o755)
        t.program = inside
    try:
        mount = t.mount(source, f"memory_lock={'on' if privileged else 'try'},{options}")
        status = read_file(f"/proc/{mount.pid}/status")
        check(sanitized or int(re.search(r"^VmLck:\s*(\d+) kB", status, re.M)[1]) > 0, "no memory is locked")
        if privileged:
            equal(read_file(f"/proc/{mount.pid}/oom_score_adj"), "-1000\n", "oom_score_adj")
            for thread, flags in flags_of_threads(mount.pid).items():
                check(flags & IO_FLUSHER == IO_FLUSHER, f"thread {thread} waits for memory that is being written back: flags {flags:#x}")
        if privileged and not sanitized:
            contains(read_file(f"{group.path}/cgroup.procs").split(), str(mount.pid), "processes of the control group")
        done = run("losetup", "--find", "--show", mount.lun(0))
        if done.returncode != 0:
            raise Skip(f"losetup: {done.stderr.strip()}")
        device = done.stdout.strip()
        point = t.mountpoint()
        try:
            succeeds("mkfs.ext4", "-q", "-F", device)
            done = run("mount", "-t", "ext4", device, point)
            if done.returncode != 0:
                raise Skip(f"ext4 cannot be mounted: {done.stderr.strip()}")
            hogs = [threading.Thread(target=hog, args=(group, stop, killed)) for _ in range(2)]
            for thread in hogs:
                thread.start()
            eventually(lambda: len(killed) > 1, "memory has run out")
            data = pattern(8 * MIB, 31)
            source = t.path("source")
            source.write_bytes(data)
            for turn in range(6):
                # dd is inside as well; what it has written is written back for want of memory, and by fsync at the end.
                # It may be what is killed for it, too.
                for _ in range(50):
                    done = run(*group.command("dd", f"if={source}", f"of={point}/file{turn % 4}", "bs=64k", "conv=fsync", "status=none"))
                    if done.returncode != -signal.SIGKILL:
                        break
                equal((done.returncode, done.stderr), (0, ""), f"exit code and messages of dd in turn {turn}")
            check(group.times_full() > 0, "the limit was never met")
            stop.set()
            for thread in hogs:
                thread.join()
            unmount(point)
            succeeds("e2fsck", "-fn", device)
            succeeds("mount", "-t", "ext4", "-o", "ro", device, point)
            for number in range(4):
                equal(hashlib.md5((point / f"file{number}").read_bytes()).digest(), hashlib.md5(data).digest(), f"md5 of file{number}")
            unmount(point)
        finally:
            stop.set()
            for thread in hogs:
                thread.join()
            run("umount", "-q", point)
            run("losetup", "-d", device)
        mount.umount()
    finally:
        group.remove()


@test(exit_codes=(0, 1, 32))
def without_the_privilege_memory_lock_does_not_mount(t):
    needs("setpriv")
    equal(t.srpfs("-o", "memory_lock=yes", "demo:ram:1M", t.mountpoint()).returncode, 1, "exit code of memory_lock=yes")
    point = t.mountpoint()
    done = run("setpriv", "--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource", t.program, "-o", "memory_lock=on", "demo:ram:1M", point)
    equal(done.returncode, 32, f"exit code ({done.stderr.strip()})")
    contains(done.stderr, "memory_lock: ", "message")
    contains(done.stderr, "CAP_SYS_RESOURCE", "message")
    done = run("setpriv", "--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource", t.program, "-o", "memory_lock=try", "demo:ram:1M", point)
    equal((done.returncode, done.stderr), (0, ""), "exit code and messages of memory_lock=try")
    eventually(lambda: (point / "stats").exists(), "the mount")
    unmount(point)
