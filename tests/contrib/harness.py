# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What the tests of units and packages share: a systemd of their own, if need be in a copy of this machine's files, and how they report.

That systemd has namespaces of its own for processes, mounts, the host name and control groups, a /run of its own, and knows no units but
those it is given and empty targets, so nothing else of the machine is started or seen.
"""

import argparse
import contextlib
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
LUN = "srp-demo0-1/0000000000000001-0000000000000001/lun0"
PATIENCE = 180              # seconds; machines are slow and shared
TARGETS = ("sysinit", "basic", "shutdown", "multi-user", "network-online", "remote-fs", "rdma-hw", "umount", "final", "local-fs",
           "local-fs-pre", "remote-fs-pre", "sockets", "timers", "paths", "slices", "exit", "halt", "network", "default", "rescue", "emergency")


class Skip(Exception):
    pass


def run(*command, patience=PATIENCE, **more):
    return subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=patience,
                          stdin=subprocess.DEVNULL, check=False, **more)


def check(condition, text):
    if not condition:
        raise AssertionError(text)


def succeeds(*command, **more):
    done = run(*command, **more)
    check(done.returncode == 0, f"{shlex.join(map(str, command))}: {done.returncode}: {done.stdout[-1500:]}")
    return done.stdout


def eventually(condition, what):
    end = time.monotonic() + PATIENCE
    while not (result := condition()):
        check(time.monotonic() < end, f"{what}: not within {PATIENCE} s")
        time.sleep(0.05)
    return result


def make_targets(units):
    """Empty ones, in this directory, and a way to load a module that does nothing."""
    units.mkdir()
    for name in TARGETS:
        (units / f"{name}.target").write_text(f"[Unit]\nDescription={name}\nDefaultDependencies=no\n")
    for name in ("systemd-modules-load", "modprobe@"):
        (units / f"{name}.service").write_text("[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/true\n")


def needs_systemd():
    if os.geteuid() != 0 or not os.path.exists("/lib/systemd/systemd") or not os.path.exists("/dev/fuse"):
        raise Skip("needs root, /dev/fuse and systemd")


class Systemd:
    """A systemd with its own process numbers, mounts and /run. `changes`: a directory; then it also has all files of this machine's root
    file system as its own, what it writes is kept in memory, and the directory is seen under its own name;
    its `changes` is what has been written."""

    def __init__(self, units, log, changes=None):
        script = "set -e; mount --make-rprivate /; "
        if changes:
            for name in ("memory", "changes"):
                (changes / name).mkdir()
            place = shlex.quote(str(changes))
            script += (f"mount -t tmpfs none {place}/memory; cd {place}/memory; mkdir files work root; "
                       "mount -t overlay overlay -o lowerdir=/,upperdir=files,workdir=work root; "
                       f"for d in dev sys; do mount --rbind /$d root/$d; done; mkdir -p root{place}; mount --bind {place} root{place}; "
                       "rm -f root/usr/sbin/policy-rc.d; mount -t proc none root/proc; cd root; mkdir -p .before; pivot_root . .before; "
                       f"mount --bind .before{place}/memory/files {place}/changes; umount -l .before; rmdir .before; cd /; ")
        script += ("mount -t tmpfs none /run; mkdir -p /run/lock; mount -t cgroup2 none /sys/fs/cgroup; "
                   "exec /lib/systemd/systemd --system --unit=default.target --log-target=console --log-level=notice")
        self.log = log
        with open(log, "wb") as out:
            # pylint: disable-next=consider-using-with
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--uts", "--ipc", "--cgroup", "sh", "-c", script],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                env={"PATH": os.environ["PATH"], "container": "srpfs-test", "SYSTEMD_UNIT_PATH": str(units)})
        self.pid = None
        try:
            self.pid = eventually(self._child, "a process in the new namespaces")
            state = eventually(self._state, "systemd is up")
            check(state in ("running", "degraded"), f"systemd is {state}")
        except AssertionError as error:
            self.end()
            raise Skip(f"no systemd here: {error}; {log.read_text(errors='replace')[-300:]!r}") from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def _child(self):
        check(self.process.poll() is None, "it has ended")
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0]) if children else None

    def _state(self):
        check(self.process.poll() is None, "it has ended")
        said = self.systemctl("is-system-running").stdout.strip()
        return said if said in ("running", "degraded", "maintenance") else None

    def inside(self, *command):
        return run("nsenter", "-t", self.pid, "-m", "-p", "-u", "-i", "-C", *command, env={"PATH": os.environ["PATH"]})

    def systemctl(self, *words):
        return self.inside("systemctl", "--no-pager", *words)

    def show(self, unit, name):
        return self.systemctl("show", "--value", f"--property={name}", unit).stdout.strip()

    def mounts(self):
        return self.inside("cat", "/proc/1/mounts").stdout

    def end(self):
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)     # and with it all that are in its namespace
        self.process.kill()
        self.process.wait()

    def does(self, *command):
        done = self.inside(*command)
        check(done.returncode == 0, f"{shlex.join(map(str, command))}: {done.returncode}: {done.stdout[-1500:]}")
        return done.stdout


class Machine(Systemd):
    """A copy of this machine, whose systemd knows srpfs's units as soon as they are installed. `files` are in the directory then."""

    def __init__(self, directory, *files):
        needs_systemd()
        for file in files:
            shutil.copy(file, directory)
        units = directory / "units"
        make_targets(units)
        for name in ("srpfs@.service", "srpfs-textfile@.service", "srpfs-textfile@.timer"):
            (units / name).symlink_to(f"/lib/systemd/system/{name}")
        super().__init__(units, directory / "log", directory)
        self.place = directory

    def write(self, path, text):
        self.does("sh", "-c", 'mkdir -p "$(dirname "$1")" && printf %s "$2" >"$1"', "sh", path, text)

    def exists(self, path):
        return self.inside("test", "-e", path).returncode == 0

    def changes(self):
        """Files that were written, directories that are new, and files that are gone, as seen from this machine's own files."""
        listing = self.does("find", self.place / "changes", "-mindepth", "1", "-printf", "%y %P\n")
        found = set()
        for line in listing.splitlines():
            kind, path = line.split(" ", 1)
            if path.startswith(str(self.place)[1:]) or f"{self.place}/".startswith(f"/{path}/"):
                continue
            if kind == "c":
                found.add(f"{path} is gone")
            elif kind != "d" or not os.path.isdir(f"/{path}"):
                found.add(path)
        return found

    def mounted(self, point):
        return f" {point} fuse.srpfs " in self.mounts()

    def service(self, point, source="demo:ram:8M"):
        """Settings of the service for this mount point; its name."""
        self.does("mkdir", "-p", point)
        self.write(f"/etc/srpfs/mounts{point}.env", f"SRPFS_SOURCE={source}\nSRPFS_OPTIONS=allow_other,memory_lock=try\n")
        return f"srpfs@{self.does('systemd-escape', '--path', point).strip()}.service"


@contextlib.contextmanager
def writer_on(machine, path):
    """Somebody writes to this file all the time, until the end; each pass ends with a flush, and none may fail."""
    script = "while [ ! -e /tmp/srp-enough ]; do dd if=/dev/zero of=$1 bs=64k count=16 conv=notrunc,fsync status=none || exit 1; echo; done"
    with subprocess.Popen(["nsenter", "-t", str(machine.pid), "-m", "-p", "-C", "sh", "-c", script, "sh", path],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as writer:
        writer.stdout.readline()
        try:
            yield
            check(writer.poll() is None, "the writer has failed")
        finally:
            machine.write("/tmp/srp-enough", "")
        said = writer.communicate(timeout=60)[0].strip()
        check(writer.returncode == 0 and not said, f"the writer: {writer.returncode} {said!r}")


def main(tests, more=None):
    """Runs those whose name is an argument, or all; a line each: "ok NAME", "not ok NAME: what", "skip NAME: why"."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default=TOP / "build", type=pathlib.Path)
    parser.add_argument("--renew", action="store_true", help="golden lists become what is found")
    parser.add_argument("name", nargs="*")
    arguments = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory(prefix="srpfs-contrib-") as common:
        context = more(arguments, pathlib.Path(common).resolve()) if more else arguments.build.resolve()
        for test in tests:
            if arguments.name and test.__name__ not in arguments.name:
                continue
            with tempfile.TemporaryDirectory(prefix="srpfs-contrib-") as directory:
                verdict, reason = "ok", ""
                try:
                    test(context, pathlib.Path(directory).resolve())
                except Skip as error:
                    verdict, reason = "skip", f": {error}"
                except (AssertionError, OSError, subprocess.SubprocessError) as error:
                    verdict, reason = "not ok", f": {error}"
                    failed = True
            print(f"{verdict} {test.__name__}{reason}", flush=True)
    return 1 if failed else 0
