# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Requests through io_uring: what can go wrong with it, and what it must not change."""

import ctypes
import os
import re
import resource
import shutil
import signal
import struct

from harness import (BOTH, NOBODY, PORT, TARGET, Background, Skip, check, contains, equal, errno_of, eventually, needs, opened, pattern, promised,
                     read_bytes, run, succeeds, test, unmount, wait_gone)
from life import AFTER_A_KILL
from luns import aligned, fio
from trouble import READ, BlackHole, Stuck, killed, user_of, waits, write_raw

MIB = 1 << 20
EPERM_OF_SECCOMP = 0x00050000 | 1      # SECCOMP_RET_ERRNO
SETUP = 425                            # io_uring_setup, on every architecture


def forbid_io_uring():
    """To be called in a child: io_uring_setup() fails with EPERM from now on."""
    def step(code, true, false, constant):
        return struct.pack("<HBBI", code, true, false, constant)
    program = b"".join((step(0x20, 0, 0, 0),                  # the number of the call
                        step(0x15, 0, 1, SETUP),
                        step(0x06, 0, 0, EPERM_OF_SECCOMP),
                        step(0x06, 0, 0, 0x7fff0000)))        # SECCOMP_RET_ALLOW
    code = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("@HP", 4, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, filter_, 0, 0):     # no new privileges; seccomp
        os._exit(99)


@test(intakes=BOTH)
def fio_verifies_with_one_reactor_and_with_two(t):
    for count in (1, 2):
        mount = t.mount("demo:ram:16M+ram:16M,bs=4096,wce", f"reactors={count}")
        for number in (0, 1):
            fio(t, mount, "--ioengine=libaio", "--direct=1", "--rw=randwrite", "--bs=4k", "--size=2m", "--offset_increment=2m", "--numjobs=2",
                "--iodepth=32", number=number)
            fio(t, mount, "--ioengine=io_uring", "--direct=1", "--rw=write", "--bs=1m", "--size=16m", "--iodepth=8", number=number)
            fio(t, mount, "--ioengine=psync", "--rw=randwrite", "--bsrange=512-9k", "--bs_unaligned=1", "--size=1m", "--fsync=50", number=number)
        equal(mount.lun_stats(0)["errors"] + mount.lun_stats(1)["errors"], 0, "errors counted")
        mount.umount()


@test(intakes=("io_uring",))
def a_ring_of_the_least_depth_serves_deep_queues(t):
    mount = t.mount("demo:ram:32M", "io_uring_queue_depth=16")
    fio(t, mount, "--ioengine=libaio", "--direct=1", "--rw=randwrite", "--bs=4k", "--size=4m", "--offset_increment=4m", "--numjobs=3", "--iodepth=200")
    fio(t, mount, "--ioengine=libaio", "--direct=1", "--rw=write", "--bs=1m", "--size=32m", "--iodepth=64")
    for depth in ("15", "0", "1025", "many"):
        done = t.srpfs("-o", f"io_uring_queue_depth={depth}", "demo:ram:1M", t.mountpoint())
        equal(done.returncode, 1, f"exit code with a depth of {depth}")
        contains(done.stderr, "io_uring_queue_depth", "standard error")


@test(intakes=BOTH)
def any_size_at_any_place_in_any_memory(t):
    for block in (512, 4096):
        lun = t.mount(f"demo:ram:8M,bs={block}").lun(0)
        content = bytearray(8 * MIB)
        memory = aligned(bytes(3 * MIB))
        for flags in (0, os.O_DIRECT):
            with opened(lun, os.O_RDWR | flags) as handle:
                for turn, (size, offset) in enumerate((
                        (0, 0), (1, 0), (1, 511), (511, 1), (512, 512), (513, 511), (4095, 4097), (4096, 4096), (4097, 4095), (65536, 3),
                        (MIB - 1, 1), (MIB, 0), (MIB, 512), (MIB, 4095), (MIB + 1, 4096), (2 * MIB, MIB), (3 * MIB - 7, 5), (1, 8 * MIB - 1),
                        (MIB, 7 * MIB), (0, 8 * MIB))):
                    data = pattern(size, turn)
                    place = memory[turn % 3:turn % 3 + size]
                    place[:] = data
                    equal(os.pwrite(handle, place, offset), size, f"write of {size} at {offset}")
                    content[offset:offset + size] = data
                    around = max(0, offset - 700)
                    check(os.pread(handle, size + 1400, around) == content[around:around + size + 1400],
                          f"{block}-byte blocks, {flags:#o}: {size} bytes at {offset}, or what is beside them, differ")
        check(read_bytes(lun) == content, f"{block}-byte blocks: content as a whole")


@test(exit_codes=(0, 32), intakes=BOTH)
def a_kill_in_the_middle_of_io_frees_everybody(t):
    mount = t.mount("demo:ram:8M", "reactors=2")

    def use(number):
        with opened(mount.lun(0), os.O_RDWR | (os.O_DIRECT if number % 2 else 0)) as handle:
            memory = aligned(bytes(256 * 1024))
            for turn in range(1 << 30):
                place = (turn + number) % 16 << 16
                if number % 3:
                    os.pwrite(handle, memory, place)
                else:
                    os.preadv(handle, [memory], place)

    users = [Background(lambda n=number: errno_of(lambda: use(n))) for number in range(6)]
    eventually(lambda: mount.lun_stats(0)["writes"] > 100 and mount.lun_stats(0)["reads"] > 100, "the users are busy")
    os.kill(mount.pid, signal.SIGKILL)
    wait_gone(mount.pid)
    for number, user in enumerate(users):
        check(user.wait(f"user {number}") in AFTER_A_KILL, f"user {number} ended otherwise")
    unmount(mount.path)
    mount.pid_file.unlink()
    mount.pid_file = None
    equal(len(read_bytes(t.mount(at=mount.path).lun(0))), 64 * MIB, "bytes read from the next mount")


@test(exit_codes=(0, 2), intakes=BOTH)
def umount_beside_a_black_hole_ends_with_its_last_user(t):
    hole = BlackHole(t)
    hole.open()
    users = [user_of(hole.second / "lun1", READ), user_of(hole.second / "lun1", *write_raw()), user_of(hole.second / "lun0", *write_raw(100))]
    waits(hole.mount, *users)
    equal(run("umount", hole.mount.path).returncode, 32, "exit code of umount while files are open")
    succeeds("umount", "-l", hole.mount.path)
    for number, process in enumerate(users):
        killed(process, f"user {number} of the black hole")
    with promised(10, "the end"):
        hole.mount.wait_end()


@test(intakes=BOTH)
def requests_given_up_one_after_the_other_leave_entries_for_others(t):
    # More than there are spare slots: later answers wait for their memory, and nobody else's does.
    stuck = Stuck(t, options="io_uring_queue_depth=16" if t.intake == "io_uring" else "")
    mount = stuck.mount
    mount.lun(0).write_bytes(b"A" * (1 << 20))
    stuck.hold("lun0")
    for turn in range(3):
        users = [user_of(mount.lun(0), READ), user_of(mount.lun(0), *write_raw((1 + turn) * 4096))]
        waits(mount, *users)
        for process in users:
            killed(process, "user")
        data = pattern(MIB, turn)
        mount.lun(1).write_bytes(data)
        check(read_bytes(mount.lun(1))[:MIB] == data, "data of the other unit")
    stuck.go_on()
    eventually(lambda: mount.requests() <= 0, "nothing is pending any more")
    content = read_bytes(mount.lun(0))
    equal(content[:4096] + content[4 * 4096:MIB], b"A" * (MIB - 3 * 4096), "what nobody wrote")
    for turn in range(3):
        check(set(content[(1 + turn) * 4096:(2 + turn) * 4096]) in ({ord("A")}, {ord("N")}), "a write that was given up is torn")


@test(exit_codes=(0, 32), intakes=("io_uring",))
def users_have_rings_as_far_as_they_may_lock_memory(t):
    needs("fusermount3")
    if not os.stat(shutil.which("fusermount3")).st_mode & 0o4000:
        raise Skip("fusermount3 is not set-user-id")
    own = t.user_directory() / "mnt"
    own.mkdir()
    os.chown(own, NOBODY, NOBODY)
    nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []}

    def mounts(kind, bytes_locked):
        return run(t.path("srpfs"), "-o", f"io_uring={kind}", "demo:ram:1M", own, **nobody,
                   preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_MEMLOCK, (bytes_locked, bytes_locked)))

    done = mounts("on", 0)
    equal(done.returncode, 32, "exit code without memory to lock")
    contains(done.stderr, "limit of locked memory (ulimit -l) is too low", "standard error")
    for kind, bytes_locked in (("auto", 0), ("on", MIB)):
        done = mounts(kind, bytes_locked)
        equal((done.returncode, done.stderr), (0, ""), f"exit code and message with io_uring={kind}")
        lun = own / PORT / TARGET / "lun0"
        done = run(f"printf hello | dd of='{lun}' conv=notrunc status=none && head -c 5 '{lun}'", **nobody)
        equal((done.returncode, done.stdout), (0, "hello"), f"use by the owner ({done.stderr})")
        done = run("fusermount3", "-u", own, **nobody)
        equal(done.returncode, 0, f"exit code of fusermount3 ({done.stderr})")


@test(exit_codes=(0, 32))
def where_io_uring_is_forbidden_the_descriptor_serves_and_the_log_says_why(t):
    mount = t.mount_in_foreground("demo:ram:1M", ("-f", "-oio_uring=auto"), preexec_fn=forbid_io_uring)
    with opened(mount.lun(0)) as handle:
        equal(os.pwrite(handle, b"hello", 7), 5, "bytes written")
        equal(os.pread(handle, 5, 7), b"hello", "bytes read")
    mount.umount()
    lines = [line for line in mount.log_file.read_text().splitlines() if "io_uring" in line]
    equal(len(lines), 1, f"lines about io_uring in {lines}")
    check(re.search(r"not through io_uring: (io_uring is not permitted|this srpfs was built without liburing)", lines[0]), lines[0])
    done = t.srpfs("-o", "io_uring=on", "demo:ram:1M", t.mountpoint(), preexec_fn=forbid_io_uring)
    equal(done.returncode, 32, "exit code with io_uring=on")
    contains(done.stderr, "not through io_uring: ", "standard error")
