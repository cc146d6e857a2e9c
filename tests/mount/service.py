# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What a service manager is told, and what the journal gets; both are sockets of the test's own."""

import contextlib
import ctypes
import os
import pathlib
import select
import socket
import subprocess

from harness import PATIENCE, TARGET, Mount, check, contains, equal, eventually, own_mount_namespace, succeeds, test, unmount, wait_gone, write_once

PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_DETACH = 0x4206, 0x4207, 17
WATCHDOG = 2                # seconds; a ping comes each half of it


class Manager:
    """The service manager's end."""

    def __init__(self, name):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + name[1:] if name.startswith("@") else name)
        self.name = name
        self.pending = []

    def lines(self, seconds=0):
        """What has come, waiting for something so long."""
        while select.select([self.socket], [], [], seconds)[0]:
            self.pending += self.socket.recv(4096).decode().split("\n")
            seconds = 0
        got, self.pending = self.pending, []
        return got

    def wait_for(self, wanted):
        """Everything until this line has come."""
        seen = []

        def come():
            seen.extend(self.lines(0.05))
            return wanted in seen
        eventually(come, f"the service manager is told {wanted}")
        return seen

    def wait_for_part(self, part):
        """Everything until a line with this in it has come."""
        seen = []

        def come():
            seen.extend(self.lines(0.05))
            return any(part in line for line in seen)
        eventually(come, f"a line with {part!r}")
        return seen


@contextlib.contextmanager
def stopped_thread(pid, name):
    """One thread does not run meanwhile, the others do."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    task, = (entry for entry in os.listdir(f"/proc/{pid}/task") if pathlib.Path(f"/proc/{pid}/task/{entry}/comm").read_text().strip() == name)
    for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
        check(libc.ptrace(request, int(task), None, None) == 0, f"ptrace: {os.strerror(ctypes.get_errno())}")
    os.waitpid(int(task), 0x40000000)             # __WALL
    try:
        yield
    finally:
        libc.ptrace(PTRACE_DETACH, int(task), None, None)


@test
def a_service_manager_is_told_when_it_serves_and_when_it_ends(t):
    manager = Manager(str(t.path("notify")))
    mount = t.mount_in_foreground(env={"NOTIFY_SOCKET": manager.name})
    seen = manager.wait_for("READY=1")
    contains(seen, f"MAINPID={mount.pid}", "what came with READY=1")
    contains(seen, f"STATUS=serving demo:ram:64M at {mount.path}: 1 target, 1 running", "what came before READY=1")
    write_once(mount.port / TARGET / "delete", "1")
    manager.wait_for(f"STATUS=serving demo:ram:64M at {mount.path}: 0 targets, 0 running")
    unmount(mount.path)
    equal(mount.exit_code(), 0, "exit code")
    contains(manager.lines(), "STOPPING=1", "what came at the end")


@test
def a_service_manager_is_told_the_process_that_stays_in_the_background(t):
    manager = Manager(f"@srpfs-test-{os.getpid()}")
    mount = t.mount(env={"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": str(WATCHDOG * 1000000)})
    contains(manager.wait_for("READY=1"), f"MAINPID={mount.pid}", "what came with READY=1")
    manager.wait_for("WATCHDOG=1")
    os.kill(mount.pid, 15)
    manager.wait_for("STOPPING=1")
    mount.wait_end()


@test
def a_service_manager_is_told_why_it_does_not_serve(t):
    manager = Manager(str(t.path("notify")))
    done = t.srpfs("-f", "none", t.path("nowhere"), env={"NOTIFY_SOCKET": manager.name})
    equal(done.returncode, 32, "exit code")
    seen = manager.lines()
    contains(seen, "ERRNO=2", "what it was told")
    check(any(line.startswith("STATUS=") and "does not exist" in line for line in seen), f"no reason in {seen}")
    check("READY=1" not in seen, "it was told READY=1")


@test
def a_reactor_that_hangs_stops_the_watchdog(t):
    manager = Manager(str(t.path("notify")))
    mount = t.mount_in_foreground("demo:ram:64M++ram:64M", ("-f", "-oreactors=2"),
                                  env={"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": str(WATCHDOG * 1000000)})
    manager.wait_for("READY=1")
    for _ in range(2):
        manager.wait_for("WATCHDOG=1")
    with stopped_thread(mount.pid, "srpfs-1"):
        eventually(lambda: "srpfs-1: hangs" in mount.log_file.read_text(), "the log names the reactor that hangs")
        manager.lines()
        got = manager.lines(WATCHDOG)
        check("WATCHDOG=1" not in got, f"pings while a reactor hangs: {got}")
    manager.wait_for("WATCHDOG=1")
    unmount(mount.path)
    equal(mount.exit_code(), 0, "exit code")


def journal():
    """A socket where journald has its own, for what this test starts."""
    own_mount_namespace()
    succeeds("mount", "-t", "tmpfs", "none", "/run")
    os.makedirs("/run/systemd/journal")
    return Manager("/run/systemd/journal/socket")


def start_with_journal(t):
    path = t.mountpoint()
    log = open(t.path("stderr"), "wb")  # pylint: disable=consider-using-with
    status = os.fstat(log.fileno())
    process = subprocess.Popen([str(t.program), "-f", "demo:ram:64M", str(path)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                               env=dict(os.environ, JOURNAL_STREAM=f"{status.st_dev}:{status.st_ino}"))
    eventually(lambda: process.poll() is not None or os.path.exists(path / "srp-demo0-1" / TARGET / "lun0"), "serving")
    return Mount(path, None, process)


@test
def the_journal_gets_priority_target_and_unit(t):
    manager = journal()
    mount = start_with_journal(t)
    seen = manager.lines()
    check(any(one.startswith("MESSAGE=demo: lun0: SRPFS RAM DISK") for one in seen), f"no message about lun0 in {seen}")
    for line in ("PRIORITY=6", "SYSLOG_IDENTIFIER=srpfs", "SRPFS_TARGET=demo", "SRPFS_LUN=lun0"):
        contains(seen, line, "the journal")
    equal(t.path("stderr").read_text(), "", "standard error beside the journal")
    unmount(mount.path)
    equal(mount.process.wait(PATIENCE), 0, "exit code")


@test
def without_its_socket_the_journal_gets_priorities_in_front_of_lines(t):
    manager = journal()
    os.unlink(manager.name)
    mount = start_with_journal(t)
    unmount(mount.path)
    equal(mount.process.wait(PATIENCE), 0, "exit code")
    wait_gone(mount.pid)
    text = t.path("stderr").read_text()
    check(text and all(line.startswith("<") and line[2] == ">" for line in text.splitlines()), f"lines without a priority: {text!r}")


@test
def a_system_log_that_hangs_is_not_waited_for(t):
    # A /dev of this test's own, with what srpfs and umount need.
    own_mount_namespace()
    devices = t.path("dev")
    devices.mkdir()
    succeeds("mount", "-t", "tmpfs", "none", devices)
    for name in ("fuse", "null", "zero", "urandom"):
        (devices / name).touch()
        succeeds("mount", "--bind", f"/dev/{name}", devices / name)
    succeeds("mount", "--move", devices, "/dev")
    logger = Manager("/dev/log")
    mount = t.mount("demo:ram:64M")
    logger.wait_for_part("lun0: SRPFS RAM DISK")
    # More lines than a socket holds that nobody reads.
    room = int(pathlib.Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
    for _ in range(2 * room + 100):
        with contextlib.suppress(OSError):
            write_once(mount.path / "add_target", "bogus")
    equal(len((mount.port / TARGET / "lun0").read_bytes()), 64 << 20, "bytes read while the logger hangs")
    seen = logger.lines()
    check(len(seen) < 2 * room, f"{len(seen)} lines came")
    with contextlib.suppress(OSError):
        write_once(mount.path / "add_target", "bogus")
    logger.wait_for_part("messages before this one are lost: the system log took none")
    unmount(mount.path)
    mount.wait_end()
