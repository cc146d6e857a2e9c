# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""From mount to end: unmounting, signals, crashes, several mounts."""

import contextlib
import errno
import os
import re
import shutil
import signal
import subprocess
import time

from harness import (BOTH, PATIENCE, Background, check, contains, equal, errno_of, eventually, fails_with, mount_entry, opened, own_mount_namespace,
                     pattern, promised, read_bytes, read_file, run, succeeds, test, unmount, wait_gone, write_once)

GONE_SECONDS = 10           # decisions 18: the daemon is gone by then, whatever happens
# The kernel's answers to what a killed daemon had taken, or was about to: ECANCELED when it was handed over in a ring's entry,
# ECONNABORTED when not; ENOTCONN to what comes later.
AFTER_A_KILL = (errno.ENOTCONN, errno.ECONNABORTED, errno.ECANCELED)
AFTER_THE_END = (*AFTER_A_KILL, errno.EIO, errno.ENODEV)


@test(intakes=BOTH)
def umount_ends_the_daemon(t):
    mount = t.mount()
    with promised(3, "the end of the daemon"):
        unmount(mount.path)
        mount.wait_end()
    equal(os.listdir(mount.path), [], "the mount point afterwards")


@test
def the_pid_file_goes_last(t):
    mount = t.mount()
    equal(os.readlink(f"/proc/{mount.pid}/exe"), str(t.program), "program of the process in the pid file")
    unmount(mount.path)
    eventually(lambda: not mount.pid_file.exists(), "no pid file")
    with promised(0.5, "the end of the process after its pid file's"):
        wait_gone(mount.pid)


@test
def umount_refuses_while_a_file_is_open(t):
    mount = t.mount()
    with opened(mount.lun(0)) as handle:
        done = run("umount", mount.path)
        check(done.returncode == 32 and "busy" in done.stderr, f"umount: {done.returncode} {done.stderr!r}")
        equal(os.pwrite(handle, b"still here", 0), 10, "write after the refused umount")
        equal(os.pread(handle, 10, 0), b"still here", "read after the refused umount")


@test
def tests_unmount_again_while_somebody_looks(t):
    attempts, folder = t.path("attempts"), t.path("bin")
    folder.mkdir()
    attempts.touch()
    (folder / "umount").write_text(f'#!/bin/sh\n{shutil.which("umount")} "$@"\nresult=$?\necho $result >> {attempts}\nexit $result\n')
    (folder / "umount").chmod(0o755)
    os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"       # of this test's process
    mount = t.mount()
    with opened(mount.lun(0)):
        ends = Background(mount.umount)
        eventually(lambda: attempts.read_text().count("32") > 1 or not ends.is_running(), "two attempts")
        check(mount.is_mounted() and ends.is_running(), "not tried again")
    ends.wait("the end")
    check(not mount.is_mounted(), "still mounted")
    attempts.write_text("")
    try:
        mount.umount()
    except AssertionError as error:
        contains(str(error), "not mounted", "why not")
    equal(attempts.read_text(), "32\n", "attempts of what is not busy")


@test(intakes=BOTH)
def a_lazy_umount_serves_until_the_last_close(t):
    mount = t.mount()
    data = pattern(1 << 20)
    with opened(mount.lun(0)) as handle:
        succeeds("umount", "-l", mount.path)
        check(not mount.is_mounted(), "still mounted after umount -l")
        time.sleep(0.3)
        equal(os.pwrite(handle, data, 0), len(data), "write after umount -l")
        os.fsync(handle)
        equal(os.pread(handle, len(data), 0), data, "read after umount -l")
        check(mount.pid_file.exists(), "the daemon ended although a file is open")
    mount.wait_end()


@test
def signals_end_an_idle_daemon(t):
    for number in (signal.SIGTERM, signal.SIGINT):
        mount = t.mount()
        with promised(3, f"{number.name}: the end"):
            os.kill(mount.pid, number)
            mount.wait_end()
        check(not mount.is_mounted(), f"{number.name}: still mounted")


@test
def other_signals_do_not_end_it(t):
    mount = t.mount()
    os.kill(mount.pid, signal.SIGHUP)
    os.kill(mount.pid, signal.SIGPIPE)
    time.sleep(0.2)
    equal(len(read_bytes(mount.lun(0))), 64 << 20, "bytes read after SIGHUP and SIGPIPE")


@test
def sigterm_serves_open_files_then_ends_them(t):
    seconds = 5                                   # enough for what is done meanwhile, on any machine
    mount = t.mount(options=f"shutdown_timeout={seconds}")
    directory = os.open(mount.target, os.O_RDONLY)
    with opened(mount.lun(0)) as handle:
        begin = time.monotonic()
        with promised(GONE_SECONDS, "the end"):
            os.kill(mount.pid, signal.SIGTERM)
            eventually(lambda: not mount.is_mounted(), "the mount point is free")
            equal(os.pwrite(handle, b"x" * 512, 0), 512, "write while shutting down")
            equal(os.pread(handle, 512, 0), b"x" * 512, "read while shutting down")
            # New files are refused, even by somebody who is inside already.
            fails_with(errno.ESHUTDOWN, "open while shutting down",
                       lambda: os.close(os.open("lun0", os.O_RDWR, dir_fd=directory)))
            mount.wait_end()
        taken = time.monotonic() - begin
        check(taken >= seconds, f"took {taken:.1f} s only with shutdown_timeout={seconds}")
        check(errno_of(lambda: os.pread(handle, 512, 0)) in AFTER_THE_END, "read after the end")
    os.close(directory)


def end_under_load(t, options, seconds_min):
    mount = t.mount(options=options)

    def write_on(handle):
        for offset in range(0, 1 << 60, 4096):
            os.pwrite(handle, b"y" * 4096, offset % (64 << 20))

    handles = [os.open(mount.lun(0), os.O_RDWR) for _ in range(4)]
    writers = [Background(lambda h=handle: errno_of(lambda: write_on(h))) for handle in handles]
    eventually(lambda: mount.lun_stats(0)["writes"] > 100, "the writers write")
    begin = time.monotonic()
    with promised(GONE_SECONDS, "the end"):
        os.kill(mount.pid, signal.SIGTERM)
        mount.wait_end()
    taken = time.monotonic() - begin
    check(taken >= seconds_min, f"requests were served for {taken:.1f} s only")
    for writer in writers:
        code = writer.wait("a writer")
        check(code in AFTER_THE_END, f"a writer ended with {errno.errorcode.get(code, code)}")
    for handle in handles:
        os.close(handle)


@test
def the_default_shutdown_is_over_within_10_seconds(t):
    end_under_load(t, "", 4.9)


@test(intakes=BOTH)
def shutting_down_under_load_does_not_need_fusectl(t):
    # Systems differ in whether /sys/fs/fuse/connections, with which a mount can be ended from outside, is there.
    own_mount_namespace()
    run("umount", "-q", "/sys/fs/fuse/connections")
    end_under_load(t, "shutdown_timeout=1", 0.9)
    succeeds("mount", "-t", "fusectl", "none", "/sys/fs/fuse/connections")
    end_under_load(t, "shutdown_timeout=1", 0.9)


@test
def sigterm_with_shutdown_timeout_0_ends_at_once(t):
    mount = t.mount(options="shutdown_timeout=0")
    with opened(mount.lun(0)), promised(3, "the end"):
        os.kill(mount.pid, signal.SIGTERM)
        mount.wait_end()


@test
def a_second_sigterm_changes_nothing(t):
    mount = t.mount(options="shutdown_timeout=1")
    with opened(mount.lun(0)), promised(GONE_SECONDS, "the end"):
        for _ in range(5):
            with contextlib.suppress(ProcessLookupError):
                os.kill(mount.pid, signal.SIGTERM)
            time.sleep(0.05)
        mount.wait_end()


@test
def shutdown_wakes_readers_of_events(t):
    mount = t.mount()
    handle = os.open(mount.path / "events", os.O_RDONLY)
    reader = Background(lambda: list(iter(lambda: os.read(handle, 65536), b"")))
    reader.in_a_request()
    with promised(GONE_SECONDS, "the end"):
        os.kill(mount.pid, signal.SIGTERM)
        text = b"".join(reader.wait("the reader of events"))
        os.close(handle)
        mount.wait_end()
    contains(text.decode(), '"event":"shutdown"', "events at the end")


@test(exit_codes=(0, 32), intakes=BOTH)
def what_kill_9_leaves_umount_cleans(t):
    mount = t.mount()
    with opened(mount.lun(0)) as handle:
        os.kill(mount.pid, signal.SIGKILL)
        wait_gone(mount.pid)
        check(mount.is_mounted(), "the mount vanished with its daemon")
        if t.intake == "io_uring":
            # The kernel takes a ring apart after its process has gone, and only then the connection ends.
            def ended():
                told = errno_of(lambda: os.listdir(mount.path))
                check(told in AFTER_A_KILL, f"listing of the dead mount: {told}")
                return told == errno.ENOTCONN
            eventually(ended, "ENOTCONN from the dead mount")
        else:
            fails_with(errno.ENOTCONN, "listing of the dead mount", lambda: os.listdir(mount.path))
        check(errno_of(lambda: os.pread(handle, 512, 0)) in AFTER_THE_END, "read after kill -9")
        done = t.srpfs("demo:ram:1M", mount.path)
        equal(done.returncode, 32, "exit code of a mount on the dead one")
        check(re.search("umount .* first|unmount it first", done.stderr), f"no advice: {done.stderr!r}")
    unmount(mount.path)
    check(not mount.is_mounted(), "still mounted after umount")
    mount.pid_file.unlink()
    mount.pid_file = None  # the next daemon writes one of the same name
    again = t.mount(at=mount.path)
    equal(len(read_bytes(again.lun(0))), 64 << 20, "bytes read from the new mount")


@test(intakes=BOTH)
def a_reader_does_not_hang_when_the_daemon_is_killed(t):
    mount = t.mount()
    with opened(mount.path / "events", os.O_RDONLY) as handle:
        reader = Background(lambda: errno_of(lambda: os.read(handle, 4096)))
        reader.in_a_request()
        os.kill(mount.pid, signal.SIGKILL)
        code = reader.wait("the reader")
        check(code in AFTER_A_KILL, f"the reader got {errno.errorcode.get(code, code)}")
    mount.pid_file.unlink()


@test
def two_mounts_do_not_know_each_other(t):
    # The loopback network is private to a process, so the same target can be logged in to twice.
    first, second = t.mount("demo:ram:2M"), t.mount("demo:ram:2M")
    first.lun(0).write_bytes(b"first")
    second.lun(0).write_bytes(b"second")
    equal(read_bytes(first.lun(0))[:7], b"first\0\0", "content of the first")
    equal(read_bytes(second.lun(0))[:7], b"second\0", "content of the second")
    first.umount()
    equal(read_bytes(second.lun(0))[:6], b"second", "content of the second after the first ended")


@test(exit_codes=(0, 32))
def a_second_mount_on_the_same_directory_is_refused(t):
    mount = t.mount()
    done = t.srpfs("demo:ram:1M", mount.path)
    equal(done.returncode, 32, "exit code")
    contains(done.stderr, "there already", "message")
    equal(mount.lun(0).stat().st_size, 64 << 20, "size through the first mount")


@test
def in_the_foreground_it_ends_with_the_mount(t):
    mount = t.mount_in_foreground()
    equal(len(read_bytes(mount.lun(0))), 64 << 20, "bytes read")
    unmount(mount.path)
    equal(mount.exit_code(), 0, "exit code after umount")
    log = mount.log_file.read_text()
    for part in ("new target: id_ext 0000000000000001 ioc_guid 0000000000000001", "MiB of I/O buffers", "lun0", "unmounted"):
        contains(log, part, "log on standard error")
    mount = t.mount_in_foreground()
    os.kill(mount.pid, signal.SIGINT)
    equal(mount.exit_code(), 0, "exit code after SIGINT")
    check(not mount.is_mounted(), "still mounted after SIGINT")


@test
def debugging_stays_in_the_foreground_and_says_more(t):
    lengths = {}
    for arguments in (("-f",), ("-d",), ("-o", "debug")):
        mount = t.mount_in_foreground(arguments=arguments)
        read_file(mount.target / "state")
        unmount(mount.path)
        equal(mount.exit_code(), 0, f"exit code with {arguments}")
        lengths[arguments] = len(mount.log_file.read_text())
    check(lengths[("-d",)] > lengths[("-f",)] and lengths[("-o", "debug")] > lengths[("-f",)], f"log lengths {lengths}")


@test
def a_foreground_that_cannot_mount_ends_with_32(t):
    for option in ("-f", "-d"):
        done = t.srpfs(option, "demo:ram:1M", t.path("missing"))
        equal(done.returncode, 32, f"{option}: exit code")
        contains(done.stderr, "does not exist", f"{option}: message")


@test(intakes=BOTH)
def mounting_and_unmounting_many_times_leaves_nothing(t):
    point = t.mountpoint()
    for _ in range(15):
        t.mount("demo:ram:1M+null:1G", at=point).umount()
    equal(mount_entry(point), None, "what is mounted at the end")


def a_thousand_leave_nothing_behind(mount, what, action):
    """Open files, threads and memory are after 1,000 of them what they were after 100. With AddressSanitizer, LeakSanitizer also
    has to find nothing at the daemon's end."""
    def usage():
        files = len(os.listdir(f"/proc/{mount.pid}/fd"))
        with open(f"/proc/{mount.pid}/statm", encoding="ascii") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
        return files, len(os.listdir(f"/proc/{mount.pid}/task")), resident

    for _ in range(100):
        action()
    files, threads, resident = usage()
    for _ in range(1000):
        action()
    eventually(lambda: usage()[:2] == (files, threads), f"open files and threads after 1000 {what} as before ({files}, {threads})")
    if "TSAN_OPTIONS" not in os.environ:          # ThreadSanitizer's own memory grows with what has been touched
        grown = usage()[2] - resident
        check(grown < 8 << 20, f"memory grew by {grown >> 10} KiB over 1000 {what}")


@test
def a_thousand_logins_leave_nothing_behind(t):
    mount = t.mount("demo:ram:1M+ram:1M")
    extra = mount.port / "0000000000000001-0000000000000001-0000000000000002"

    def login_and_out():
        mount.path.joinpath("add_target").write_text("id_ext=1,ioc_guid=1,dest=demo,initiator_ext=2")
        read_bytes(extra / "lun0")
        (extra / "delete").write_text("1")
        eventually(lambda: not extra.exists(), "the second login is gone")

    a_thousand_leave_nothing_behind(mount, "logins", login_and_out)


@test
def a_thousand_reconnects_leave_nothing_behind(t):
    mount = t.mount("demo:ram:1M+ram:1M")
    with opened(mount.lun(0)) as handle:
        def reconnect():
            write_once(mount.target / "reset", "1")
            equal(len(os.pread(handle, 65536, 0)), 65536, "bytes read")  # waits for the new connection

        a_thousand_leave_nothing_behind(mount, "reconnects", reconnect)


@test
def the_end_does_not_lose_unflushed_writes(t):
    # Neither RELEASE nor DESTROY reaches a server at umount, so it flushes by itself (decisions 9).
    image = t.path("image")
    data = pattern(3 << 20, 7)
    for end in ("umount", "lazy", "signal"):
        image.write_bytes(bytes(4 << 20))
        mount = t.mount(f"demo:file:{image},wce", "shutdown_timeout=0")
        with opened(mount.lun(0)) as handle:
            os.pwrite(handle, data, 512)
            if end == "lazy":
                succeeds("umount", "-l", mount.path)
            if end == "signal":
                os.kill(mount.pid, signal.SIGTERM)
                mount.wait_end()
        if end == "umount":
            unmount(mount.path)
        mount.wait_end()
        check(image.read_bytes()[512:512 + len(data)] == data, f"{end}: the backing file lacks the data")


@test(intakes=BOTH)
def umount_by_force_ends_it(t):
    mount = t.mount()
    with opened(mount.lun(0)) as handle:
        run("umount", "-f", mount.path)
        code = errno_of(lambda: os.pread(handle, 512, 0))
        check(code in AFTER_THE_END, f"read after umount -f: {errno.errorcode.get(code, code)}")
        with promised(GONE_SECONDS, "the end"):
            mount.wait_end()


@test
def a_user_inside_keeps_a_cwd(t):
    mount = t.mount()
    process = subprocess.Popen(["sleep", "600"], cwd=mount.target)
    done = run("umount", mount.path)
    equal(done.returncode, 32, "exit code of umount with a process inside")
    process.kill()
    process.wait(PATIENCE)


@test
def what_a_mount_hides_comes_back(t):
    point = t.mountpoint()
    (point / "file").write_text("hidden")
    mount = t.mount("demo:ram:1M", at=point)
    check("file" not in os.listdir(point), "the file beneath is still seen")
    mount.umount()
    equal((point / "file").read_text(), "hidden", "the file beneath")
