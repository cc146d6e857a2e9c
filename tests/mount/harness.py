# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What the tests stand on: a process and a directory for each test, mounts that always go away, waits that end.

The runner is the reaper of everything a test starts, so a daemon that a test forgets or that hangs is found and ended
by its process id. A test that touches a hung mount hangs only its own process.
"""

import contextlib
import ctypes
import errno
import json
import os
import pathlib
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback

# Nothing waits for time to pass, everything for something to happen; these are only the ends of patience, for a machine
# that is slow and shared. What srpfs promises in seconds is measured by promised().
TEST_SECONDS = 300          # of a test
PATIENCE = 120              # of one step: a command, a condition, the end of a process
BUSY_SECONDS = 30           # of unmounting what somebody looks at
REPORT_LINES = 60           # of what a sanitizer says
# How much slower the program is than it should be, because sanitizers are in it: promises are that much longer.
SLOWER = float(os.environ.get("SRPFS_TESTS_SLOWER", "1"))
TARGET = "0000000000000001-0000000000000001"   # the embedded target's directory (decisions 37)
PORT = "srp-demo0-1"
LOGIN = "id_ext=1,ioc_guid=1,dest=demo"
NOBODY = 65534
TOP = pathlib.Path(__file__).resolve().parents[2]

tests = []


class Skip(Exception):
    """Raised by a test that cannot be run here; the text says why."""


class Late(AssertionError):
    """Something was right, but took longer than promised."""


class Test:
    def __init__(self, function, seconds, exit_codes, intake=None):
        self.function = function
        self.name = function.__name__ + ("-io_uring" if intake == "io_uring" else "")
        self.seconds = seconds
        self.exit_codes = exit_codes
        self.intake = intake


def test(argument=None, *, seconds=TEST_SECONDS, exit_codes=(0,), intakes=(None,)):
    """Registers a test. Its name is a sentence that can be false. `exit_codes`: of daemons it leaves or ends. `intakes`:
    how requests come, once for each: None, as they do without an option; "descriptor"; "io_uring"."""
    def register(function):
        for intake in intakes:
            tests.append(Test(function, seconds, exit_codes, intake))
        return function
    return register(argument) if argument else register


BOTH = ("descriptor", "io_uring")


class OfferedRings:
    """The kernel offers FUSE over io_uring to mounts made meanwhile. To be made before this process takes over orphans, because
    what does it (tests/common/offer_rings) has to outlive a process that is killed."""

    def __init__(self):
        # Without the environment, by which tests/run knows what it has to end.
        self.helper = subprocess.Popen([TOP / "tests/common/offer_rings"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                       env={"PATH": os.environ["PATH"]})
        said = self.helper.stdout.readline().strip()
        self.obstacle = None if said == "ready" else said or "tests/common/offer_rings does not work"
        self.helper.wait()

    def end(self):
        self.helper.stdin.close()
        self.helper.stdout.read()


# ---- saying what is wrong ----

def check(condition, text):
    if not condition:
        raise AssertionError(text)


def equal(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: {shorten(got)} instead of {shorten(wanted)}")


def contains(text, part, what):
    if part not in text:
        raise AssertionError(f"{what}: no {part!r} in {shorten(text)}")


def shorten(value):
    text = repr(value)
    return text if len(text) <= 400 else f"{text[:250]}...{text[-100:]} ({len(text)} characters)"


def fails_with(wanted, what, action):
    """The action must end in this errno (0: in success)."""
    got = errno_of(action)
    if got != wanted:
        name = errno.errorcode.get
        raise AssertionError(f"{what}: {name(got, got)} instead of {name(wanted, wanted)}")


def errno_of(action):
    try:
        action()
    except OSError as error:
        return error.errno
    return 0


# ---- waiting ----

def eventually(condition, what, seconds=PATIENCE, pause=0.01):
    """Waits until the condition gives something true, and gives it back."""
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() >= end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(pause)


def wait_gone(pid, seconds=PATIENCE, what="the process"):
    """Waits for the end of a process, whoever its parent is; gives the seconds it took."""
    begin = time.monotonic()
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return 0.0
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        if not poll.poll(seconds * 1000):
            raise AssertionError(f"{what} ({pid}) is still there after {seconds} s")
    finally:
        os.close(handle)
    return time.monotonic() - begin


class Lateness:
    """A process that starts and ends another, and sleeps a little, all the time: how late that gets is how late anything
    is on this machine now, whatever srpfs does."""

    def __init__(self):
        self.stop_in, self.stop_out = os.pipe()
        self.worst_in, self.worst_out = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self.stop_out)
                self._measure()
            finally:
                os._exit(0)
        os.close(self.stop_in)
        os.close(self.worst_out)

    def _measure(self):
        worst, pause, last = 0.0, 0.02, False
        while not last:
            begin = time.monotonic()
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
            middle = time.monotonic()
            last = bool(select.select([self.stop_in], [], [], pause)[0])
            worst = max(worst, middle - begin, time.monotonic() - middle - pause)
        os.write(self.worst_out, str(worst).encode())

    def worst(self):
        """In seconds, since it was made. Ends it."""
        os.write(self.stop_out, b".")  # closing it is not enough: what other threads have forked meanwhile has it open, too
        text = os.read(self.worst_in, 100)
        os.close(self.stop_out)
        os.close(self.worst_in)
        os.waitpid(self.pid, 0)
        return float(text)


SLACK = 10                  # an action of srpfs's is a chain of at most so many steps of different processes


@contextlib.contextmanager
def promised(seconds, what, beside=None):
    """What happens inside has to be over within the seconds promised. On a loaded machine each step comes late, so the
    allowance grows by SLACK times the worst lateness that a control has seen meanwhile (idle: some milliseconds). For what
    has many steps there is a second control: the time that `beside` takes comes on top, too."""
    lateness = Lateness()
    begin = time.monotonic()
    try:
        yield
    finally:
        taken = time.monotonic() - begin
        if beside:
            beside()
        more = time.monotonic() - begin - taken
        late = lateness.worst()
    allowed = seconds * SLOWER + SLACK * late + more
    if taken > allowed:
        raise Late(f"{what} took {taken:.2f} s; {seconds} s are promised, and {allowed:.2f} s were allowed on this machine")


def in_a_request(*tasks):
    """Waits until each of these processes (or threads of ours) sleeps in a request to a FUSE file system."""
    for task in tasks:
        path = pathlib.Path(f"/proc/{task}/wchan")
        if not path.exists():
            path = pathlib.Path(f"/proc/self/task/{task}/wchan")
        eventually(lambda p=path: p.read_text() in ("request_wait_answer", "__fuse_request_send"), f"{task} waits for an answer")


class Background:
    """A function on a thread of its own; its error is raised where it is waited for."""

    def __init__(self, function, *arguments):
        self.result = None
        self.error = None
        self.task = None
        self.thread = threading.Thread(target=self._run, args=(function, arguments), daemon=True)
        self.thread.start()

    def _run(self, function, arguments):
        self.task = threading.get_native_id()
        try:
            self.result = function(*arguments)
        except BaseException as error:  # pylint: disable=broad-except
            self.error = error

    def is_running(self):
        return self.thread.is_alive()

    def in_a_request(self):
        """Waits until its thread sleeps in a request to srpfs."""
        in_a_request(eventually(lambda: self.task, "the thread runs"))

    def wait(self, what):
        self.thread.join(PATIENCE)
        if self.thread.is_alive():
            raise AssertionError(f"{what}: not over after {PATIENCE} s")
        if self.error:
            raise self.error
        return self.result


# ---- commands ----

def run(*command, seconds=PATIENCE, cwd=None, env=None, text_in=None, **more):
    """Runs a command to its end. A shell script when it is a single string."""
    argv = ["bash", "-c", command[0]] if len(command) == 1 and isinstance(command[0], str) else list(command)
    environment = dict(os.environ, LC_ALL="C")
    environment.update(env or {})
    try:
        return subprocess.run([str(word) for word in argv], cwd=cwd, env=environment, input=text_in, timeout=seconds,
                              text=True, errors="replace", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              stdin=None if text_in is not None else subprocess.DEVNULL, check=False, **more)
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"{shorten(argv)}: not over after {seconds} s") from error


def succeeds(*command, **more):
    done = run(*command, **more)
    if done.returncode != 0:
        raise AssertionError(f"{shorten(command)}: exit {done.returncode}: {shorten((done.stderr + done.stdout).strip())}")
    return done.stdout


def unmount(point, *options):
    """Others look at mounts as well, such as the srpctl of another test, and who was killed has files open a moment longer."""
    end = time.monotonic() + BUSY_SECONDS
    while True:
        done = run("umount", *options, point)
        if "target is busy" not in done.stderr or time.monotonic() >= end:
            break
        time.sleep(0.02)
    check(done.returncode == 0, f"umount {shorten([*options, point])}: exit {done.returncode}: {done.stderr.strip()}")


def needs(*programs):
    for program in programs:
        if not shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
            raise Skip(f"{program} is not installed")


def in_child(action, uid=0):
    """Runs the action in a process of its own, as that user; gives its errno (0: success)."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            if uid:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            code = errno_of(action)
        finally:
            os._exit(code)
    wait_gone(pid, what="a child of the test")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# ---- files ----

def read_bytes(path, bytes_max=1 << 20):
    """To the end, as cat does."""
    with open(path, "rb", buffering=0) as file:
        return b"".join(iter(lambda: file.read(bytes_max), b""))


def read_file(path):
    return read_bytes(path).decode()


def value(path):
    """The value of a control file: one line."""
    text = read_file(path)
    check(text.endswith("\n") and text.count("\n") == 1, f"{path}: not one line: {shorten(text)}")
    return text[:-1]


def write_once(path, data, flags=os.O_WRONLY):
    """One write(2), all of it or an errno."""
    if isinstance(data, str):
        data = data.encode()
    handle = os.open(path, flags)
    try:
        try:
            count = os.write(handle, data)
        except OSError as error:
            error.filename = f"{path} <- {shorten(data)}"
            raise
        check(count == len(data), f"{path}: write of {len(data)} bytes returned {count}")
    finally:
        os.close(handle)


@contextlib.contextmanager
def opened(path, flags=os.O_RDWR):
    handle = os.open(path, flags)
    try:
        yield handle
    finally:
        os.close(handle)


def pattern(size, seed=1):
    """Bytes that differ from place to place, the same for the same seed."""
    block = bytearray()
    state = (seed * 2654435761 + 12345) & 0xffffffff
    for _ in range(1021):                   # prime: no period of a block or a page
        state = (state * 1103515245 + 12345) & 0xffffffff
        block.append(state >> 16 & 0xff)
    return (bytes(block) * (size // len(block) + 1))[:size]


def own_mount_namespace():
    """From now on, what this test mounts and unmounts outside its directory is seen by nobody else."""
    if ctypes.CDLL(None, use_errno=True).unshare(0x00020000) != 0:          # CLONE_NEWNS
        raise Skip("no mount namespace: " + os.strerror(ctypes.get_errno()))
    succeeds("mount", "--make-rprivate", "/")


# ---- mounts ----

def plain(field):
    """A field of /proc/mounts, where odd characters are written as octal numbers."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), field))


def mounts_below(directory):
    """(mount point, its FUSE connection) of all below a directory, the innermost first."""
    found = []
    for line in pathlib.Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = line.split(b" ")
        point = plain(fields[4])
        if point == str(directory) or point.startswith(f"{directory}/"):
            found.append((point, fields[2].decode().split(":")[1]))
    return found[::-1]


def mount_entry(path):
    """(source, type, options) of what is mounted there, or None."""
    result = None
    for line in pathlib.Path("/proc/mounts").read_bytes().splitlines():
        source, point, kind, options = line.split(b" ")[:4]
        if plain(point) == str(path):
            result = (plain(source), kind.decode(), options.decode().split(","))
    return result


class Mount:
    """A mounted srpfs."""

    def __init__(self, path, pid_file, process=None):
        self.path = path
        self.pid_file = pid_file
        self.process = process                # with -f
        self.pid = int(pid_file.read_text()) if pid_file else process.pid
        # For cleaning up: umount -l hides a connection that processes may still hang in.
        remember_connection(path.parent, os.minor(os.stat(path).st_dev))
        self.port = path / PORT
        self.target = self.port / TARGET

    def lun(self, number):
        return self.target / f"lun{number}"

    def attribute(self, number, name):
        return value(self.target / f"lun{number}.attr" / name)

    def stats(self):
        return json.loads(read_file(self.path / "stats"))

    def lun_stats(self, number):
        for target in self.stats()["targets"]:
            for lun in target["luns"]:
                if lun["name"] == f"lun{number}":
                    return lun
        raise AssertionError(f"stats shows no lun{number}")

    def is_mounted(self):
        return mount_entry(self.path) is not None

    def requests(self):
        """Unanswered ones, without the one that asks."""
        return self.stats()["requests_pending"]

    def umount(self, *options):
        unmount(self.path, *options)
        self.wait_end()

    def wait_end(self):
        """The daemon is gone, and so is what it leaves last."""
        wait_gone(self.pid, what="srpfs")
        check(not self.pid_file or not self.pid_file.exists(), "the pid file is still there after the end of srpfs")


class Context:
    """What a test gets: its directory, the program, and mounts."""

    def __init__(self, directory, program, intake=None):
        self.dir = directory
        self.program = program
        self.intake = intake
        self.intake_options = [f"-oio_uring={'on' if intake == 'io_uring' else 'off'}"] if intake else []
        self.count = 0
        self.mounts = []

    def path(self, name):
        return self.dir / name

    def mountpoint(self, name=None):
        self.count += 1
        path = self.dir / (name or f"mnt{self.count}")
        path.mkdir()
        return path

    def srpfs(self, *arguments, **more):
        """Runs the program to its end (without -f: until the mount serves)."""
        return run(self.program, *arguments, **more)

    def mount(self, source="demo:ram:64M", options="", at=None, arguments=(), env=None):
        """Mounts in the background, with a pid file."""
        path = at or self.mountpoint()
        pid_file = path.parent / (path.name + ".pid")
        words = [*arguments, *self.intake_options, "-P", pid_file]
        if options:
            words += ["-o", options]
        done = self.srpfs(*words, source, path, env=env)
        if done.returncode != 0:
            raise AssertionError(f"srpfs {source} -o {options}: exit {done.returncode}: {done.stderr.strip()}")
        equal(done.stdout + done.stderr, "", "output of a mount that works")
        self.mounts.append(Mount(path, pid_file))
        return self.mounts[-1]

    def mount_in_foreground(self, source="demo:ram:64M", arguments=("-f",), env=None, **more):
        """With -f: log_file gets what it says, exit_code() waits for the end."""
        path = self.mountpoint()
        log = self.path(path.name + ".log")
        with open(log, "wb") as out:
            process = subprocess.Popen([str(self.program), *arguments, *self.intake_options, source, str(path)], stdin=subprocess.DEVNULL,
                                       stdout=out, stderr=out, env=dict(os.environ, **(env or {})), **more)
        mount = Mount(path, None, process)
        mount.log_file = log
        mount.exit_code = lambda: process.wait(PATIENCE)
        eventually(lambda: process.poll() is not None or (mount.is_mounted() and " serving " in log.read_text()),
                   "serving in the foreground")
        check(process.poll() is None, f"srpfs ended with {process.poll()}: {shorten(log.read_text())}")
        return mount

    def finish(self):
        """The end of a test that went well: what is still mounted must go away as it should."""
        for mount in self.mounts:
            if mount.is_mounted():
                unmount(mount.path)
        for mount in self.mounts:
            mount.wait_end()

    def user_directory(self):
        """A directory of another user's, in which that user can also run the program."""
        path = self.path("user")
        path.mkdir()
        os.chown(path, NOBODY, NOBODY)
        program = self.path("srpfs")
        if not program.exists():
            shutil.copyfile(self.program, program)
            program.chmod(0o755)
        return path


# ---- running them ----

def reason_not_to_run(program):
    if os.geteuid() != 0:
        return "not root"
    if not os.path.exists("/dev/fuse"):
        return "there is no /dev/fuse"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse: {error.strerror}"
    if not os.access(program, os.X_OK):
        sys.exit(f"mount: {program} is not there; build it first, or name its directory with --build")
    return None


def children_of(pid):
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(entry))
    return found


def reap(pid, exit_codes):
    """Takes note of how a child ended, if it has; text if it should not have ended so."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            name = file.read().strip()
        ended, status = os.waitpid(pid, os.WNOHANG)
    except OSError:
        return None
    if ended != pid:
        return None
    code = os.waitstatus_to_exitcode(status)
    if -code in (signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGSYS):
        return f"{name} died by {signal.Signals(-code).name}"
    if name == "srpfs" and code >= 0 and code not in exit_codes:
        return f"srpfs ended with exit code {code}"
    return None


def connections():
    """The directory with a directory for each FUSE connection; mounted where the system has not done so."""
    usual = pathlib.Path("/sys/fs/fuse/connections")
    if not os.path.ismount(usual):
        own = pathlib.Path(tempfile.gettempdir()) / "srpfs-fusectl"
        own.mkdir(exist_ok=True)
        if not os.path.ismount(own):
            run("mount", "-t", "fusectl", "none", own)
        return own
    return usual


def remember_connection(directory, number):
    """For clean_up(): a number is given to another mount as soon as it is free, the inode of its directory is not."""
    with contextlib.suppress(OSError):
        (directory / f"connection.{number}.{(connections() / str(number)).stat().st_ino}").touch()


def abort_connections(directory):
    """Ends all requests of the FUSE mounts of a test, for processes that hang in them."""
    for name in directory.glob("connection.*"):
        _, number, inode = name.name.split(".")
        with contextlib.suppress(OSError):
            place = connections() / number
            if place.stat().st_ino == int(inode):
                (place / "abort").write_text("1")


def clean_up(directory, exit_codes=(0,)):
    """Nothing of a test may be left: processes, mounts, loop devices, files. Gives what went wrong in ending, as text."""
    trouble = []
    for device in loop_devices_below(directory):
        run("losetup", "-d", device)
    for point, number in mounts_below(directory):
        remember_connection(directory, number)
        run("umount", "-l", point)
    # Children of an ended child become ours, so look again until there are none.
    end = time.monotonic() + 60
    while (pids := children_of(os.getpid())) and time.monotonic() < end:
        for pid in pids:
            trouble.append(reap(pid, exit_codes))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end - 50:
            abort_connections(directory)
        time.sleep(0.01)
    if pids:
        trouble.append(f"processes {pids} could not be ended")
    trouble += ["\n".join(report.read_text(errors="replace").splitlines()[:REPORT_LINES]) for report in directory.glob("sanitizer.*")]
    shutil.rmtree(directory, ignore_errors=True)
    if directory.exists():
        trouble.append(f"{directory} could not be removed")
    return "; ".join(dict.fromkeys(text for text in trouble if text))


def loop_devices_below(directory):
    if not shutil.which("losetup"):
        return []
    done = run("losetup", "--json", "--list")
    devices = json.loads(done.stdout)["loopdevices"] if done.stdout.strip() else []
    return [device["name"] for device in devices if (device.get("back-file") or "").startswith(str(directory))]


def run_test(chosen, program, base, prepare):
    """("ok" | "not ok" | "late" | "skip", reason)"""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="t-", dir=base))
    directory.chmod(0o755)                        # other users take part
    report_in, report_out = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(report_in)
        context = Context(directory, program, chosen.intake)
        prepare(context)
        verdict, reason = perform(chosen, context)
        os.write(report_out, json.dumps([verdict, reason]).encode())
        os._exit(0)
    os.close(report_out)
    verdict, reason = "not ok", "interrupted"
    try:
        if not select.select([report_in], [], [], chosen.seconds)[0]:
            reason = f"not over after {chosen.seconds} s"
        elif text := os.read(report_in, 65536):
            verdict, reason = json.loads(text)
        else:
            reason = "its process died"
    finally:
        os.close(report_in)
        if verdict in ("ok", "skip"):
            with contextlib.suppress(AssertionError):
                wait_gone(pid, 30)
        trouble = clean_up(directory, chosen.exit_codes)
    if trouble:
        verdict, reason = "not ok", "; ".join(filter(None, [reason, trouble]))
    return verdict, reason


def perform(chosen, context):
    os.setsid()
    for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"):
        if name in os.environ:                    # a daemon's standard error goes nowhere
            os.environ[name] += f":log_path={context.dir}/sanitizer"
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        found = chosen.function(context)
        context.finish()
    except Skip as skip:
        return "skip", str(skip)
    except BaseException as error:  # pylint: disable=broad-except
        frames = [frame for frame in traceback.extract_tb(error.__traceback__)
                  if not frame.filename.endswith(("harness.py", "contextlib.py"))]
        where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
        text = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        if isinstance(error, OSError) and frames:
            text += f" in `{frames[-1].line}`"
        return "late" if isinstance(error, Late) else "not ok", (" ".join(text.split()))[:4000] + where
    return "ok", found or ""


# Of the tests that are over, by name: "ok", "not ok" or "skip", and the reason, or what the function gave back.
verdicts = {}


def run_all(chosen, program, what="mount", prepare=lambda context: None):
    """`what` is what all of them are called in the last line; `prepare` is called with the context of each, in its process."""
    reason = reason_not_to_run(program)
    if reason:
        for one in chosen:
            print(f"skip {one.name}: {reason}")
        print(f"{what}: 0 passed, 0 failed, {len(chosen)} skipped")
        return 77
    rings = OfferedRings() if any(one.intake == "io_uring" for one in chosen) else None
    # Daemons whose parent has ended become our children (see clean_up).
    ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0)       # PR_SET_CHILD_SUBREAPER
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.umask(0o022)
    base = pathlib.Path(tempfile.mkdtemp(prefix=f"srpfs-{what}-"))
    base.chmod(0o755)
    counts = {"ok": 0, "not ok": 0, "skip": 0}
    try:
        for one in chosen:
            begin = time.monotonic()
            if one.intake == "io_uring" and rings.obstacle:
                verdict, reason = "skip", rings.obstacle
            else:
                verdict, reason = run_test(one, program, base, prepare)
                if verdict == "late":             # what a machine does once, srpfs does again
                    print(f"late, so again: {one.name}: {reason}", flush=True)
                    verdict, reason = run_test(one, program, base, prepare)
                    verdict = "not ok" if verdict == "late" else verdict
            verdicts[one.name] = verdict, reason
            counts[verdict] += 1
            taken = time.monotonic() - begin
            line = {"ok": f"ok {one.name}", "not ok": f"not ok {one.name}: {reason}",
                    "skip": f"skip {one.name}: {reason}"}[verdict]
            print(line if taken < 5 or verdict != "ok" else f"{line} ({taken:.0f} s)", flush=True)
    finally:
        clean_up(base)
        if rings:
            rings.end()
        run("umount", "-q", pathlib.Path(tempfile.gettempdir()) / "srpfs-fusectl")
    print(f"{what}: {counts['ok']} passed, {counts['not ok']} failed, {counts['skip']} skipped", flush=True)
    return 1 if counts["not ok"] else 0
