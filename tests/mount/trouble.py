# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""A target that does not answer: who waits can be killed, others go on, and everything ends in time.

The embedded target is made stuck with SRPFS_DEMO_HOLD (src/daemon/demo_hold.h).
"""

import contextlib
import errno
import os
import signal
import subprocess
import time

from harness import (BOTH, LOGIN, PATIENCE, SLACK, Background, Lateness, check, contains, equal, eventually, in_a_request, needs, opened, pattern,
                     promised, read_bytes, read_file, run, succeeds, test, unmount, value, write_once)

KILL_SECONDS = 1.0          # decisions 13
GONE_SECONDS = 10           # decisions 18
GRACE_SECONDS = 0.5         # decisions 14: a marked request may still be answered
ENDED = (errno.ENOTCONN, errno.ECONNABORTED, errno.ECANCELED, errno.EIO, errno.ENODEV)


class Stuck:
    """A mount whose target stops answering when told."""

    def __init__(self, t, source="demo:ram:8M+ram:8M", options="", env=None):
        self.file = t.path("hold")
        self.mount = t.mount(source, options, env={"SRPFS_DEMO_HOLD": str(self.file), **(env or {})})

    def hold(self, lun=""):
        self.file.write_text(lun)

    def go_on(self):
        with contextlib.suppress(FileNotFoundError):
            self.file.unlink()


class BlackHole:
    """A mount with two targets; nothing comes to or from the second one while told so."""

    def __init__(self, t, options=""):
        self.file = t.path("black-hole")
        self.mount = t.mount("demo:ram:8M+ram:8M", "reconnect_delay=1,login_timeout=2,fast_io_fail_tmo=300," + options,
                             env={"SRPFS_DEMO_BLACK_HOLE": str(self.file)})
        write_once(self.mount.path / "add_target", LOGIN.replace("demo", "demo2") + ",initiator_ext=2")
        self.second = self.mount.target.parent / (self.mount.target.name + "-0000000000000002")

    def open(self):
        self.file.touch()
        eventually(lambda: self.file.stat().st_size > 0, "the black hole in effect")


def user_of(path, *what):
    """A process in synchronous I/O on the file."""
    script = ("import os,signal,sys\n"
              "signal.signal(signal.SIGUSR1, lambda *_: None)\n"          # a handler that does not restart
              "signal.siginterrupt(signal.SIGUSR1, True)\n"
              "handle = os.open(sys.argv[1], os.O_RDWR)\nprint('open', flush=True)\n"
              "try:\n    " + "\n    ".join(what) + "\n    print('done', flush=True)\n"
              "except OSError as error: print(error.errno, flush=True)\n")
    process = subprocess.Popen(["python3", "-c", script, str(path)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    equal(process.stdout.readline(), "open\n", "the user of the LUN")
    return process


READ = "os.pread(handle, 4096, 0)"
# Python repeats what a signal interrupts, so the errno is asked for beneath it.
WRITE_RAW = ("import ctypes; libc = ctypes.CDLL(None, use_errno=True)",
             "count = libc.pwrite(handle, b'N' * 4096, ctypes.c_size_t(4096), ctypes.c_long(%d))",
             "if count < 0: raise OSError(ctypes.get_errno(), 'pwrite')")


def write_raw(offset=0):
    return (WRITE_RAW[0], WRITE_RAW[1] % offset, WRITE_RAW[2])


def waits(mount, *processes):
    """Each of them waits for srpfs, and srpfs has its request."""
    in_a_request(*(process.pid for process in processes))
    eventually(lambda: mount.requests() >= len(processes), f"{len(processes)} requests of users of a stuck target")
    for process in processes:
        equal(process.poll(), None, "exit code of a user of a stuck target, who should wait")


def killed(process, what):
    with promised(KILL_SECONDS, f"the end of a killed {what}"):
        process.kill()
        process.wait(PATIENCE)


@test
def the_lever_works(t):
    stuck = Stuck(t)
    mount = stuck.mount
    mount.lun(0).write_bytes(b"before")
    stuck.hold()
    reader = Background(read_bytes, mount.lun(0))
    reader.in_a_request()
    time.sleep(0.3)
    check(reader.is_running(), "the target answers although it is held")
    equal(value(mount.target / "state"), "running", "state meanwhile")
    stuck.go_on()
    equal(reader.wait("the reader")[:6], b"before", "data afterwards")


@test(intakes=BOTH)
def killed_users_of_a_stuck_target_end_within_a_second(t):
    stuck = Stuck(t)
    mount = stuck.mount
    stuck.hold()
    users = [("reader", user_of(mount.lun(0), READ)), ("writer", user_of(mount.lun(0), "os.pwrite(handle, b'x' * 4096, 0)")),
             ("waiting writer", user_of(mount.lun(0), "os.pwrite(handle, b'x' * 4096, 0)")),
             ("writer of a part of a block", user_of(mount.lun(0), "os.pwrite(handle, b'x', 70000)")),
             ("long reader", user_of(mount.lun(0), "os.pread(handle, 4 << 20, 0)")),
             ("long writer", user_of(mount.lun(0), "os.pwrite(handle, b'x' * (4 << 20), 1 << 20)")),
             ("durable writer", user_of(mount.lun(0), "os.close(handle)", "handle = os.open(sys.argv[1], os.O_RDWR | os.O_DSYNC)",
                                        "os.pwrite(handle, b'x' * 4096, 1 << 22)"))]
    waits(mount, *(process for _, process in users))
    together = [Background(killed, process, what) for what, process in users]
    for each in together:
        each.wait("killing")
    stuck.go_on()
    eventually(lambda: mount.requests() <= 0, "nothing is pending any more")
    equal(len(read_bytes(mount.lun(0))), 8 << 20, "bytes read afterwards")


@test(intakes=BOTH)
def a_signal_handler_gets_eintr(t):
    stuck = Stuck(t)
    mount = stuck.mount
    stuck.hold()
    process = user_of(mount.lun(0), *write_raw())
    waits(mount, process)
    begin = time.monotonic()
    with promised(GRACE_SECONDS + 0.5, "EINTR"):
        process.send_signal(signal.SIGUSR1)
        equal(process.stdout.readline(), f"{errno.EINTR}\n", "errno of an interrupted write")
    taken = time.monotonic() - begin
    check(taken > 0.9 * GRACE_SECONDS, f"EINTR after {taken:.2f} s already; healthy I/O gets {GRACE_SECONDS} s to end")
    process.wait(PATIENCE)
    stats = mount.lun_stats(0)
    check(stats["interrupts"] >= 1 and stats["ghosts"] >= 1, f"counted: {stats}")


@test(intakes=BOTH)
def healthy_io_survives_signals(t):
    mount = t.mount("demo:ram:8M")
    process = user_of(mount.lun(0), "for turn in range(3000): assert os.pwrite(handle, bytes([turn % 256]) * 5000, 100) == 5000 and os.pread(handle, 5000, 100)[0] == turn % 256")
    lateness = Lateness()
    while process.poll() is None:
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.001)
    late = lateness.worst()
    equal(process.stdout.read(), "done\n", "end of a user who gets signals all the time")
    # I/O that takes longer than the grace, because the machine stands still for so long, is not healthy.
    if SLACK * late < GRACE_SECONDS:
        equal(mount.lun_stats(0)["ghosts"], 0, "ghosts")


@test(intakes=BOTH)
def a_ghost_keeps_later_writers_waiting(t):
    stuck = Stuck(t)
    mount = stuck.mount
    mount.lun(0).write_bytes(b"O" * 16384)
    stuck.hold()
    old = user_of(mount.lun(0), *write_raw(4096))
    waits(mount, old)
    old.send_signal(signal.SIGUSR1)
    equal(old.stdout.readline(), f"{errno.EINTR}\n", "the interrupted write")
    old.wait(PATIENCE)
    # The old write of N may still land. A newer one there must not be overtaken by it; one elsewhere need not wait.
    with opened(mount.lun(0)) as handle:
        newer = Background(os.pwrite, handle, b"L" * 512, 4608)
        part = Background(os.pwrite, handle, b"l", 8191)
        newer.in_a_request()
        part.in_a_request()
        time.sleep(0.3)
        check(newer.is_running() and part.is_running(), "a write over a ghost did not wait")
        killed(user_of(mount.lun(0), "os.pwrite(handle, b'k' * 512, 5120)"), "writer who waits for a ghost")
        stuck.go_on()
        equal(newer.wait("the newer write"), 512, "the newer write")
        equal(part.wait("the newer write of one byte"), 1, "the newer write of one byte")
        content = os.pread(handle, 16384, 0)
    equal(content[4608:5120], b"L" * 512, "where the newer write was")
    equal(content[8191:8192], b"l", "where the newer byte was")
    equal(set(content[4096:4608]), set(b"N"), "where only the old write was, which was carried out after all")
    equal(content[:4096] + content[8192:], b"O" * 12288, "what nobody wrote")


@test(intakes=BOTH)
def other_luns_go_on(t):
    stuck = Stuck(t)
    mount = stuck.mount
    other = t.mount("demo:ram:1M")
    stuck.hold("lun0")
    users = [user_of(mount.lun(0), READ) for _ in range(4)] + [user_of(mount.lun(0), *write_raw(number << 16)) for number in range(4)]
    waits(mount, *users)
    data = pattern(8 << 20, 3)
    with promised(5, "the use of the other LUN while one is stuck"):
        mount.lun(1).write_bytes(data)
        check(read_bytes(mount.lun(1)) == data, "data of lun1")
        other.lun(0).write_bytes(data[:1 << 20])
        with opened(mount.lun(1)) as handle:
            os.fsync(handle)
    for path in (mount.path / "stats", mount.target / "state", mount.path / "last_error"):
        read_file(path)
    write_once(mount.target / "dev_loss_tmo", "700")
    write_once(mount.path / "add_target", LOGIN + ",initiator_ext=5")
    stuck.go_on()
    for process in users:
        equal(process.stdout.read(), "done\n", "end of a user of the stuck LUN")
        process.wait(PATIENCE)


@test
def many_requests_to_a_stuck_lun_do_not_stop_the_others(t):
    needs("fio")
    stuck = Stuck(t, "demo:ram:64M+ram:8M", "park=32M")
    mount = stuck.mount
    stuck.hold("lun0")
    load = subprocess.Popen(["fio", "--name=stuck", f"--filename={mount.lun(0)}", "--ioengine=libaio", "--direct=1", "--rw=randwrite", "--bs=64k", "--iodepth=400",
                             "--size=64m", "--continue_on_error=none", "--output-format=terse"], cwd=t.dir, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)
    eventually(lambda: mount.requests() >= 400, "as many requests as fio has")
    data = pattern(4 << 20, 8)
    with promised(5, "4 MiB to and 8 MiB from the other LUN"):
        mount.lun(1).write_bytes(data)
        check(read_bytes(mount.lun(1))[:len(data)] == data, "data of lun1")
    equal(mount.stats()["schema"], 1, "stats")
    stuck.go_on()
    load.wait(PATIENCE)
    data = pattern(1 << 20, 9)
    mount.lun(0).write_bytes(data)
    check(read_bytes(mount.lun(0))[:len(data)] == data, "data of lun0 afterwards")


@test(intakes=BOTH)
def delete_frees_users_of_a_stuck_target(t):
    stuck = Stuck(t)
    mount = stuck.mount
    stuck.hold()
    users = [user_of(mount.lun(0), READ), user_of(mount.lun(0), *write_raw()), user_of(mount.lun(0), *write_raw(100)), user_of(mount.lun(1), READ)]
    waits(mount, *users)
    with promised(3, "the end of the users after delete"):
        with promised(2, "delete"):
            write_once(mount.target / "delete", "1")
        check(not mount.target.exists(), "the path is still there")
        for process in users:
            equal(process.stdout.readline(), f"{errno.ENODEV}\n", "end of a user")
            process.wait(PATIENCE)
    # It can be logged in to again while old commands still hang in it.
    write_once(mount.path / "add_target", LOGIN)
    equal(value(mount.target / "state"), "running", "state after the new login")
    stuck.go_on()
    equal(len(read_bytes(mount.lun(0))), 8 << 20, "bytes read afterwards")


@test(intakes=BOTH)
def delete_frees_asynchronous_io(t):
    # libaio gets no INTERRUPT from the kernel: it ends by the target's end only (decisions 13).
    needs("fio")
    stuck = Stuck(t)
    mount = stuck.mount
    stuck.hold()
    load = subprocess.Popen(["fio", "--name=stuck", f"--filename={mount.lun(0)}", "--ioengine=libaio", "--direct=1", "--rw=randrw", "--bs=4k", "--iodepth=16",
                             "--size=8m", "--output-format=terse"], cwd=t.dir, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually(lambda: mount.requests() >= 16, "as many requests as fio has")
    equal(load.poll(), None, "exit code of fio, which should wait")
    load.kill()
    time.sleep(0.3)
    with promised(3, "the end of fio after delete"):
        write_once(mount.target / "delete", "1")
        load.wait(PATIENCE)


@test
def a_reset_of_a_stuck_unit_lets_it_go_on(t):
    stuck = Stuck(t)
    mount = stuck.mount
    mount.lun(0).write_bytes(b"O" * 8192)
    stuck.hold()
    reader = user_of(mount.lun(0), "assert os.pread(handle, 4096, 0) == b'O' * 4096")
    writer = user_of(mount.lun(0), *write_raw(4096))
    waits(mount, reader, writer)
    with promised(5, "reset"):
        write_once(mount.target / "lun0.attr" / "reset", "1")
    stuck.go_on()
    for what, process in (("reader", reader), ("writer", writer)):
        equal(process.stdout.readline(), "done\n", f"end of the {what}")
        process.wait(PATIENCE)
    equal(read_bytes(mount.lun(0))[4096:8192], b"N" * 4096, "what the writer wrote")


@test(exit_codes=(0, 2), intakes=BOTH)
def sigterm_ends_it_although_io_is_stuck(t):
    for options in ("", "shutdown_timeout=1"):
        stuck = Stuck(t, options=options)
        mount = stuck.mount
        stuck.hold()
        users = [user_of(mount.lun(0), READ), user_of(mount.lun(0), *write_raw()), user_of(mount.lun(1), "os.pwrite(handle, b'x', 5)")]
        waits(mount, *users)
        with promised(GONE_SECONDS if not options else 6, "the end"):
            os.kill(mount.pid, signal.SIGTERM)
            mount.wait_end()
        for process in users:
            line = process.stdout.readline().strip()
            check(line.isdigit() and int(line) in ENDED, f"a user ended with {line!r}")
            process.wait(PATIENCE)
        check(not mount.is_mounted(), "still mounted")
        stuck.go_on()


@test(exit_codes=(0, 2))
def a_stuck_flush_does_not_keep_it_from_ending(t):
    stuck = Stuck(t, "demo:ram:8M,wce")
    mount = stuck.mount
    with opened(mount.lun(0)) as handle:
        os.pwrite(handle, b"x" * 4096, 0)
        stuck.hold()
        syncer = user_of(mount.lun(0), "os.fsync(handle)")
        waits(mount, syncer)
        killed(syncer, "fsync")
    with promised(GONE_SECONDS, "the end"):
        unmount(mount.path)
        mount.wait_end()


@test(exit_codes=(0, 2), intakes=BOTH)
def umount_by_force_frees_stuck_users(t):
    stuck = Stuck(t)
    mount = stuck.mount
    stuck.hold()
    users = [user_of(mount.lun(0), READ), user_of(mount.lun(0), *write_raw())]
    waits(mount, *users)
    done = run("umount", mount.path)
    equal(done.returncode, 32, "exit code of umount while files are open")
    with promised(3, "the end of users after umount -f"):
        run("umount", "-f", mount.path)
        for process in users:
            line = process.stdout.readline().strip()
            check(line.isdigit() and int(line) in ENDED, f"a user ended with {line!r}")
            process.wait(PATIENCE)
    with promised(GONE_SECONDS, "the end"):
        run("umount", mount.path)
        mount.wait_end()


@test(exit_codes=(0, 2), intakes=BOTH)
def a_lazy_umount_waits_for_stuck_users_only_as_long_as_they_live(t):
    stuck = Stuck(t)
    mount = stuck.mount
    stuck.hold()
    reader = user_of(mount.lun(0), READ)
    waits(mount, reader)
    succeeds("umount", "-l", mount.path)
    time.sleep(0.3)
    check(mount.pid_file.exists(), "the daemon ended although somebody waits")
    killed(reader, "reader")
    with promised(GONE_SECONDS, "the end"):
        mount.wait_end()


@test(intakes=BOTH)
def control_calls_beside_stuck_io_answer(t):
    stuck = Stuck(t)
    mount = stuck.mount
    stuck.hold()
    reader = user_of(mount.lun(0), READ)
    waits(mount, reader)
    for command in (f"ls -l '{mount.target}'", f"stat '{mount.lun(0)}'", f"cat '{mount.path}/stats'", f"df '{mount.path}'", f"echo 1 > '{mount.target}/rescan'",
                    f"chmod 600 '{mount.lun(0)}'", f"touch '{mount.lun(0)}'"):
        succeeds(command)
    contains(value(mount.target / "state"), "running", "state")
    stuck.go_on()
    equal(reader.stdout.readline(), "done\n", "end of the reader")
    reader.wait(PATIENCE)


@test(intakes=BOTH)
def a_target_in_a_black_hole_is_noticed_comes_back_and_its_neighbour_goes_on(t):
    hole = BlackHole(t)
    (hole.second / "lun1").write_bytes(b"before")
    hole.open()
    readers = [user_of(hole.second / "lun1", READ) for _ in range(8)]
    waits(hole.mount, *readers)
    hole.mount.lun(0).write_bytes(b"meanwhile")
    equal(read_bytes(hole.mount.lun(0))[:9], b"meanwhile", "content of the neighbour's unit")
    eventually(lambda: value(hole.second / "state") == "blocked", "the silent target is blocked")
    equal(value(hole.mount.target / "state"), "running", "state of the neighbour")
    equal([reader.poll() for reader in readers], [None] * 8, "exit codes of the readers, who wait")
    eventually(lambda: value(hole.second / "failed_reconnects") != "0", "a login that gets no answer")
    hole.file.unlink()
    for reader in readers:
        equal(reader.communicate(timeout=PATIENCE)[0], "done\n", "output of a reader")
    equal(value(hole.second / "state"), "running", "state of the target that is back")


@test(intakes=BOTH)
def a_mount_with_a_target_in_a_black_hole_ends_in_time(t):
    hole = BlackHole(t)
    hole.open()
    reader = user_of(hole.second / "lun1", READ)
    waits(hole.mount, reader)
    with promised(GONE_SECONDS, "the end"):
        os.kill(hole.mount.pid, signal.SIGTERM)
        hole.mount.wait_end()
    check(reader.communicate(timeout=PATIENCE)[0].strip() in map(str, ENDED), "the reader got no error")
