#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Runs the stages tests/run names, counts test cases, and ends with "N passed, N failed, N skipped".

The tests are those meson knows (names and commands from `meson introspect`), the guest's, and, for tests/run --all, those
of the other builds. A case is a GoogleTest case (from its JSON report) or a line "ok NAME...", "not ok NAME...",
"skip NAME..." of the output, or a seed of the simulation ("N seeds, N failed"); a program with none of these counts as
one case by its exit status (77: skipped).
"""

import argparse
import concurrent.futures
import dataclasses
import itertools
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import typing
import uuid

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = TOP / "build"
# Meson's tests of these names, and those that have one of them and a hyphen in front, are a stage; all others are "unit".
OWN_STAGES = ("wire", "fuzz", "simulation", "tidy", "man", "mount", "tools", "packages")
TAIL_LINES = 60
CLEAN_UP_SECONDS = 20   # that a test has which took too long: to unmount and to end what it has started
KILLED_SECONDS = 5      # after which what has been killed and still runs waits for an answer of a mount
# Time limits are written for an idle machine; CI's is slow and shared.
PATIENCE = 4 if os.environ.get("CI") else 2
CASE_LINE = re.compile(r"^(ok|not ok|skip) +(.*)$")
SEEDS_LINE = re.compile(r"^(\d+) seeds, (\d+) failed")
GTEST_RUNNING = re.compile(r"^\[ RUN      \] (\S+)")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


# With CI set, a skipped test is a failure, unless its reason is one of these: what no package, right or setting gives a machine.
EXCUSES = re.compile(r"this kernel has no |this kernel's FUSE has no io_uring|this kernel's io_uring is too old|"
                     r"no huge pages for files in memory here|this machine has an RDMA device")

MINUTES = {"simulation": "from seeds, under virtual time", "mount": "real mounts of the embedded target", "tools": "what people use on files and disks, on LUN files",
           "packages": "a Debian package, systemd units", "guest": "a real target in a virtual machine", "clang": "a build with the other compiler, and with sanitizers",
           "sanitizers": "tests of two builds", "fuzzers": "new inputs for the parsers"}
running: set[int] = set()  # process groups of what has been started


@dataclasses.dataclass
class Test:
    name: str
    command: list[str]
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    directory: str | None = None
    seconds_max: float = 60
    shown_while_running: bool = False  # its case lines, for those that take minutes
    niceness: int = 0
    made: typing.Callable[[], "Result"] | None = None  # instead of a command
    process: int | None = None  # while it runs: the leader of its session


@dataclasses.dataclass
class Result:
    passed: int = 0
    failed: list[str] = dataclasses.field(default_factory=list)  # names, with the reason if there is one
    skipped: list[str] = dataclasses.field(default_factory=list)
    seconds: float = 0
    output: str = ""


def meson_tests(build: pathlib.Path) -> list[Test]:
    listing = subprocess.run(["meson", "introspect", "--tests", str(build)], check=True, capture_output=True, text=True).stdout
    tests = []
    for item in json.loads(listing):
        environment = item["env"] if isinstance(item["env"], dict) else {}
        tests.append(Test(item["name"], item["cmd"], environment, item["workdir"], item["timeout"] * PATIENCE))
    return tests


def count_gtest(report: pathlib.Path, result: Result) -> bool:
    """Adds the cases of a GoogleTest report; False: there is none, or it is not whole."""
    try:
        suites = json.loads(report.read_text())["testsuites"]
    except (OSError, ValueError, KeyError):
        return False
    for suite in suites:
        for case in suite["testsuite"]:
            name = f'{suite["name"]}.{case["name"]}'
            if case.get("failures"):
                result.failed.append(name)
            elif case.get("result") == "SKIPPED":
                reasons = case.get("skipped") or [{}]
                result.skipped.append(f'{name}: {reasons[0].get("message", "").strip() or "no reason given"}')
            elif case.get("status") == "NOTRUN":
                result.skipped.append(f"{name}: disabled")
            else:
                result.passed += 1
    return True


def count_lines(output: str, result: Result) -> bool:
    found = False
    for line in output.splitlines():
        if seeds := SEEDS_LINE.match(line):
            found = True
            done, failures = map(int, seeds.groups())
            result.passed += done - failures
            result.failed += ["a seed (see its output)"] * failures
            continue
        matched = CASE_LINE.match(ANSI.sub("", line))
        if not matched:
            continue
        found = True
        word, rest = matched.groups()
        if word == "ok":
            result.passed += 1
        elif word == "skip":
            result.skipped.append(rest)
        else:
            result.failed.append(rest)
    return found


def processes(wanted: typing.Callable[[pathlib.Path], bool]) -> list[int]:
    """Those whose directory in /proc satisfies, and that have a thread that has not ended."""
    found = []
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if wanted(directory) and any(stat_of(thread)[0] not in "ZX" for thread in (directory / "task").iterdir()):
                found.append(int(directory.name))
        except OSError:  # ended meanwhile, or somebody else's
            pass
    return found


def stat_of(directory: pathlib.Path) -> list[str]:
    """From the third field on: state, parent, process group, session."""
    return (directory / "stat").read_text(errors="replace").rpartition(")")[2].split()


def in_session(leader: int) -> typing.Callable[[pathlib.Path], bool]:
    return lambda directory: int(stat_of(directory)[3]) == leader


def fuse_mounts(mountinfo: pathlib.Path) -> dict[str, str]:
    """Connection number to mount point."""
    found = {}
    for line in mountinfo.read_text(errors="replace").splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.split(" ")[0].split(".")[0] in ("fuse", "fuseblk"):
            found[fields.split(" ")[2].split(":")[1]] = fields.split(" ")[4].encode().decode("unicode_escape")
    return found


def abort_mounts(pids: list[int], others: set[str]) -> None:
    """Ends the FUSE mounts that these processes see, but the others: nothing else ends who waits for an answer of itself."""
    mounts: dict[str, str] = {}
    for directory in [pathlib.Path("/proc/self"), *(task for pid in pids for task in pathlib.Path(f"/proc/{pid}/task").glob("*"))]:
        try:
            mounts |= fuse_mounts(directory / "mountinfo")
        except OSError:
            pass
    with tempfile.TemporaryDirectory(prefix="srpfs-tests.") as own:
        connections = pathlib.Path("/sys/fs/fuse/connections")
        if not connections.is_mount():
            subprocess.run(["mount", "-t", "fusectl", "none", own], check=False, stderr=subprocess.DEVNULL)
            connections = pathlib.Path(own)
        for number in mounts.keys() - others:
            try:
                (connections / number / "abort").write_text("1")
            except OSError:
                pass
            subprocess.run(["umount", "-l", mounts[number]], check=False, stderr=subprocess.DEVNULL)
        if connections == pathlib.Path(own):
            subprocess.run(["umount", "-l", own], check=False, stderr=subprocess.DEVNULL)


def end_all(leader: int, mark: str, mounts_before: set[str]) -> None:
    """Ends every process of the session, and of others, too, that have the mark in their environment: within half a minute,
    whatever they wait for."""
    began = time.monotonic()
    aborted = False
    of_session = in_session(leader)
    while left := processes(lambda directory: of_session(directory) or mark.encode() in (directory / "environ").read_bytes()):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if not aborted and time.monotonic() > began + KILLED_SECONDS:
            aborted = True
            abort_mounts(left, mounts_before)
        if time.monotonic() > began + 30:
            return
        time.sleep(0.05)


def execute(test: Test) -> tuple[int | None, str]:
    """Exit status (None: it took too long) and output. Whatever it started ends with it."""
    mark = f"SRPFS_TESTS_MARK={uuid.uuid4()}"
    environment = {**os.environ, **test.environment, "SRPFS_TESTS_MARK": mark.partition("=")[2]}
    mounts_before = set(fuse_mounts(pathlib.Path("/proc/self/mountinfo")))
    command = ["nice", "-n", str(test.niceness), *test.command] if test.niceness else test.command
    # Never waited for without a bound: a process that waits for an answer of the kernel's cannot be killed.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,  # pylint: disable=consider-using-with
                               env=environment, cwd=test.directory, start_new_session=True)
    running.add(process.pid)
    test.process = process.pid
    lines: list[str] = []

    def collect() -> None:
        for raw in process.stdout:
            line = raw.decode(errors="replace")
            lines.append(line)
            if test.shown_while_running and (CASE_LINE.match(line) or line.startswith("guest:")):
                print(f"  {line.rstrip()}", flush=True)

    reader = threading.Thread(target=collect, daemon=True)
    reader.start()
    status: int | None
    try:
        status = process.wait(test.seconds_max)
    except subprocess.TimeoutExpired:
        status = None
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(CLEAN_UP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
    end_all(process.pid, mark, mounts_before)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        lines.append(f"process {process.pid} does not end even when it is killed\n")
    test.process = None
    running.discard(process.pid)
    reader.join(5)
    return status, "".join(lines)


def run_test(test: Test) -> Result:
    if test.made:
        return test.made()
    result = Result()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="srpfs-tests.") as directory:
        report = pathlib.Path(directory) / "report.json"
        test.environment = {**test.environment, "GTEST_OUTPUT": f"json:{report}", "GTEST_COLOR": "no"}
        try:
            status, result.output = execute(test)
        except OSError as error:
            result.failed.append(f"{test.name}: cannot be run: {error.strerror}: {test.command[0]}")
            return result
        # Of a program with a defect on purpose some seed has to fail: that is one case, by its exit status.
        counted = "--expect-failure" not in test.command and (
            count_gtest(report, result) or count_lines(result.output, result))
    result.seconds = time.monotonic() - started
    if status == 0 and not counted:
        result.passed = 1
    elif status == 77 and not counted:
        last = (result.output.strip().splitlines() or ["no reason given"])[-1]
        result.skipped.append(f"{test.name}: {last}")
    elif status != 0 and not result.failed:
        # It said of no case that it had failed: the program itself has.
        if status is None:
            why = f"no end within {test.seconds_max:.0f} s"
        elif status < 0:
            why = f"killed by signal {-status} ({signal.Signals(-status).name})"
        else:
            why = f"exit status {status}"
        running = [m.group(1) for m in map(GTEST_RUNNING.match, result.output.splitlines()) if m]
        result.failed.append(f"{test.name}: {why}" + (f", in {running[-1]}" if running and not counted else ""))
    if os.environ.get("CI"):
        refuse_skips(result)
    return result


def refuse_skips(result: Result) -> None:
    """What is skipped though it could have been run has failed."""
    refused = [item for item in result.skipped if not EXCUSES.search(item)]
    result.skipped = [item for item in result.skipped if item not in refused]
    result.failed += [f"{item} (skipped, which in CI is a failure)" for item in refused]


def plural(count: int, word: str) -> str:
    return f"{count} {word}"


def report(name: str, result: Result) -> None:
    words = [plural(result.passed, "passed")]
    if result.failed:
        words.append(plural(len(result.failed), "FAILED"))
    if result.skipped:
        words.append(plural(len(result.skipped), "skipped"))
    print(f"{name:<24} {', '.join(words):<32} {result.seconds:7.1f} s", flush=True)
    for item in result.skipped:
        print(f"  skipped: {item}")
    if result.failed:
        tail = result.output.rstrip().splitlines()[-TAIL_LINES:]
        print(f"  ---- the end of what {name} said ----")
        for line in tail:
            print(f"  | {line}")
        for item in result.failed:
            print(f"  FAILED: {item}")
    sys.stdout.flush()


def belongs(test: Test, stage: str) -> bool:
    return test.name == stage or test.name.startswith(f"{stage}-")


def stage_tests(stage: str, everything: bool) -> list[Test]:
    if stage == "guest":
        # At full length there are hours of it: ten thousand logins, fio for ten minutes at a time.
        seconds = 18000 if everything else 1500 if os.environ.get("CI") else 900
        command = [str(TOP / "tests/guest/run"), "--build", str(BUILD), "--time", str(seconds)]
        if everything:
            command.append("--full")
        # Downloading the kernel comes on top.
        return [Test("guest", command, seconds_max=seconds + 600, shown_while_running=True)]
    if stage == "clang":
        return [Test("build-clang", [], made=lambda: builds.made("build-clang"))]
    if stage == "sanitizers":
        return sanitizers(everything)
    if stage == "fuzzers":
        return fuzzers(60 if everything else 5)
    tests = meson_tests(BUILD)
    if stage == "unit":
        return [dataclasses.replace(test, name=f"unit/{test.name}") for test in tests
                if not any(belongs(test, own) for own in OWN_STAGES)]
    chosen = [test for test in tests if belongs(test, stage)]
    for test in chosen:
        if everything and stage == "simulation":
            test.command = ["100000" if word == "10000" else word for word in test.command]
            test.seconds_max *= 10
        if everything and test.name in ("packages-debian", "packages-rpm"):
            # From its source as well (the Debian package twice).
            test.environment = {**test.environment, "SRPFS_PACKAGE_FROM_SOURCE": "1"}
            test.seconds_max += 6000
        if everything and stage == "tools":
            test.command.remove("--quick")
            test.seconds_max *= 5
    return chosen


class Builds:
    """The builds besides build/. Each is made once in a run: when a stage asks for it, or ahead of that, one after the other
    at low priority. That a build works without a warning (in CI) is something to find out: it has a result like a test."""

    def __init__(self) -> None:
        self.pool = concurrent.futures.ThreadPoolExecutor(1)
        self.begun: dict[str, concurrent.futures.Future[Result]] = {}
        self.niceness = 0
        self.now: Test | None = None
        self.everything = False

    def begin(self, directory: str) -> None:
        if directory not in self.begun:
            self.begun[directory] = self.pool.submit(self.make, directory)

    def made(self, directory: str) -> Result:
        self.niceness = 0
        self.begin(directory)
        while not (future := self.begun[directory]).done():
            self.hurry()
            concurrent.futures.wait([future], 1)
        return future.result()

    def hurry(self) -> None:
        if not (self.now and self.now.niceness and (leader := self.now.process)):
            return
        for pid in processes(in_session(leader)):
            try:
                os.setpriority(os.PRIO_PROCESS, pid, 0)
            except OSError:  # only root may
                pass

    def make(self, directory: str) -> Result:
        if directory == "build-clang":
            compiler, options, targets = "clang++-14", CLANG_OPTIONS, []
        else:
            sanitizer, = (one for one in SANITIZERS if one.directory == directory)
            compiler, options = "g++", TSAN_OPTIONS
            targets = ["srpfs", "srpctl", *(str(pathlib.Path(test.command[0]).relative_to(BUILD))
                                  for test in sanitizer.tests(BUILD, self.everything) if not belongs(test, "mount"))]

        def attempt(*more: str) -> Result:
            command = [str(TOP / "tests/common/build"), directory, *options, *more, *(["--", *targets] if targets else [])]
            self.now = Test(directory, command, {"CXX": compiler}, seconds_max=3000, niceness=self.niceness)
            try:
                return run_test(self.now)
            finally:
                self.now = None

        result = attempt("-Dunity=on", "-Dunity_size=6")
        if result.failed and not (alone := attempt("-Dunity=off")).failed:
            # Names that are local to different sources clash when these are compiled as one.
            print(f"{directory} is slow to build, because it cannot be built with -Dunity=on:\n{result.output}", flush=True)
            result = alone
        return result

    def needed(self, directory: str) -> None:
        """For stages that run what a build makes; its failure fails the stage."""
        if (result := self.made(directory)).failed:
            raise OSError(result.output.strip() or result.failed[0])


builds = Builds()
NEEDED_BUILDS = {"clang": ["build-clang"], "sanitizers": ["build-clang", "build-tsan"], "fuzzers": ["build-clang"]}
# A reader of reports needs line numbers. Several sources are compiled as one, which takes half the time.
SANITIZED = ["-Doptimization=1", "-Ddebug=true", "-Db_lundef=false"]
# One build is the other compiler's opinion of the source, has the fuzzers, and ASan, LSan and UBSan.
CLANG_OPTIONS = [*SANITIZED, "-Db_sanitize=address,undefined", "-Dcpp_args=-gline-tables-only", "-Dfuzzers=true"]
TSAN_OPTIONS = [*SANITIZED, "-Db_sanitize=thread", "-Dcpp_args=-g1"]


@dataclasses.dataclass
class Sanitizer:
    """Which tests run in a build with sanitizers: with --all every program of ours but the simulations that have to fail,
    otherwise what reaches most in the time CI has."""
    name: str
    directory: str
    environment: dict[str, str]
    slower: int                     # than without, at worst
    left_out: tuple[str, ...]       # tests of meson that only --all runs
    seeds: int                      # of the simulation; --all: 1000
    mounts: tuple[str, ...]         # patterns of tests/mount; --all: all of them

    def tests(self, directory: pathlib.Path, everything: bool) -> list[Test]:
        return [test for test in meson_tests(directory) if test.name not in ("tidy", "man", "runner", "spread-rdma-interrupts", "bench-reports", "srpctl-words", "cost", "allocations", "tools", "simulation-repeats")
                and not test.name.startswith(("simulation-finds-", "packages-")) and (everything or test.name not in self.left_out)]


# All that is reported ends the program with this status, which no program of ours uses.
SANITIZER_STATUS = 66
SANITIZERS = [
    Sanitizer("asan", "build-clang",
              # The quarantine is small so that memory can be seen to grow or not.
              {"ASAN_OPTIONS": f"detect_leaks=1:exitcode={SANITIZER_STATUS}:quarantine_size_mb=4",
               "LSAN_OPTIONS": f"suppressions={TOP}/tests/common/leaks.supp:print_suppressions=0",
               "UBSAN_OPTIONS": f"halt_on_error=1:print_stacktrace=1:exitcode={SANITIZER_STATUS}"},
              4, ("simulation-isolation",), 1000,
              ("a_thousand_*", "several_logins_*", "delete_*", "rescan_*", "reset_of_*", "each_reader_*", "bad_login_*", "every_good_value_*", "killed_users_*",
               "a_ghost_*", "a_reset_of_*", "sigterm_ends_it_although_*", "neighbours_*", "*several_reactors*", "fio_verifies_odd_*", "a_small_memory_*", "debugging_*", "other_users_mount_*")),
    Sanitizer("tsan", "build-tsan",
              # Not halted at the first race: a program that serves the mount it waits for cannot end in the middle.
              {"TSAN_OPTIONS": f"halt_on_error=0:exitcode={SANITIZER_STATUS}:die_after_fork=0:suppressions={TOP}/tests/common/races.supp:print_suppressions=0"},
              # Each of these has one thread.
              12, ("base", "scsi", "srp", "fabric", "initiator", "lun", "target", "wire", "fuzz", "simulation-oracle", "simulation-isolation"), 100,
              ("several_logins_*", "delete_*", "rescan_*", "reset_of_*", "each_reader_*", "killed_users_*", "a_ghost_*", "a_reset_of_*",
               "sigterm_ends_it_although_*", "shutdown_wakes_*", "signals_end_*", "*several_reactors*", "users_are_killed_*", "other_users_mount_*"))]


def less_random() -> list[str]:
    """g++ 12's and clang 14's sanitizers do not find room for themselves when addresses are as random as newer kernels make them."""
    try:
        bits = int(pathlib.Path("/proc/sys/vm/mmap_rnd_bits").read_text())
    except (OSError, ValueError):
        return []
    return ["setarch", "-R"] if bits > 28 else []


def sanitizers(everything: bool) -> list[Test]:
    chosen = []
    for sanitizer in SANITIZERS:
        builds.needed(sanitizer.directory)
        tests = sanitizer.tests(TOP / sanitizer.directory, everything)
        for test in tests:
            if test.name == "simulation":
                test.command = [test.command[0], "--seeds", str(1000 if everything else sanitizer.seeds)]
            if test.name == "mount" and not everything:
                test.command += sanitizer.mounts
            test.name = f"{sanitizer.name}/{test.name}"
            test.environment.update(sanitizer.environment)
            test.environment["SRPFS_TESTS_SLOWER"] = str(sanitizer.slower)
            test.seconds_max *= sanitizer.slower
            test.command = [*less_random(), *test.command]
        chosen += tests
    return chosen


def fuzzers(seconds: int) -> list[Test]:
    builds.needed("build-clang")
    build_tests = TOP / "build-clang/tests"
    tests = []
    for program in sorted(build_tests.rglob("fuzz-*"), key=lambda path: path.name):
        if program.name == "fuzz-corpora" or not program.is_file() or not os.access(program, os.X_OK):
            continue
        name = program.name.removeprefix("fuzz-")
        # Beside the source: corpus/<name>, or a corpus of the folder's only fuzzer.
        folder = TOP / "tests" / program.parent.relative_to(build_tests) / "corpus"
        corpus = folder / name if (folder / name).is_dir() else folder
        if not corpus.is_dir():
            raise OSError(f"{program.name} has no corpus in {folder}")
        # New inputs go to a directory of their own, so that a run leaves the tree as it was.
        found = TOP / "build-clang/found" / name
        found.mkdir(parents=True, exist_ok=True)
        tests.append(Test(f"fuzzers/{name}", [str(program), f"-max_total_time={seconds}", "-timeout=10", "-print_final_stats=1",
                                              f"-artifact_prefix={found}/", str(found), str(corpus)],
                          seconds_max=seconds + 120))
    return tests


def run_stage(stage: str, everything: bool) -> Result:
    total = Result()
    started = time.monotonic()
    if stage in MINUTES:
        print(f"{stage}: {MINUTES[stage]}; takes minutes", flush=True)
    try:
        tests = stage_tests(stage, everything)
    except (subprocess.CalledProcessError, OSError, ValueError) as error:
        tests = []
        total.output = str(error)
    if not tests:
        # A stage without tests proves nothing: never silently nothing.
        total.failed.append(f"{stage}: nothing could be run")
        total.seconds = time.monotonic() - started
        report(stage, total)
        return total
    workers = (os.cpu_count() or 1) if stage in ("unit", "sanitizers", "fuzzers") else 1
    # The longest last, beside each other only: they measure times.
    longest = [test for test in tests if stage == "sanitizers" and test.name.endswith("/mount")]
    others = [test for test in tests if test not in longest]
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        # Those of the second group begin when the results of the first have all been taken.
        results = itertools.chain.from_iterable(pool.map(run_test, group) for group in (others, longest))
        for test, result in zip(others + longest, results):
            report(test.name, result)
            total.passed += result.passed
            total.failed += [f"{test.name}: {item}" for item in result.failed]
            total.skipped += result.skipped
    total.seconds = time.monotonic() - started
    if len(tests) > 1:
        print(f"{stage:<24} {plural(total.passed, 'passed') + ' in all':<32} {total.seconds:7.1f} s", flush=True)
    return total


def end_early(number: int, _) -> None:
    """Nothing that was started outlives us: guests, mounts, fuzzers. They get some seconds to clean up."""
    for kind, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 0)):
        for group in list(running):
            try:
                os.killpg(group, kind)
            except ProcessLookupError:
                running.discard(group)
        end = time.monotonic() + patience
        while running and time.monotonic() < end:
            time.sleep(0.1)
            for group in list(running):
                try:
                    os.killpg(group, 0)
                except ProcessLookupError:
                    running.discard(group)
    print(f"ended by {signal.Signals(number).name}", flush=True)
    os._exit(128 + number)


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end_early)
    parser = argparse.ArgumentParser()
    parser.add_argument("--all", action="store_true", dest="everything")
    parser.add_argument("stages", nargs="+")
    arguments = parser.parse_args()
    started = time.monotonic()
    passed, failed, skipped = 0, [], 0
    builds.everything = arguments.everything
    seconds = {}
    for i, stage in enumerate(arguments.stages):
        if stage in ("mount", "guest") and not builds.niceness:
            # Mounts mostly wait.
            builds.niceness = 19
            for later in arguments.stages[i + 1:]:
                for directory in NEEDED_BUILDS.get(later, []):
                    builds.begin(directory)
        result = run_stage(stage, arguments.everything)
        seconds[stage] = result.seconds
        passed += result.passed
        failed += result.failed
        skipped += len(result.skipped)
    if failed:
        print("\nfailed:")
        for item in failed:
            print(f"  {item}")
    print(f"\nin {time.monotonic() - started:.0f} s ({', '.join(f'{stage} {taken:.0f}' for stage, taken in seconds.items())}):")
    print(f"{passed} passed, {len(failed)} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
