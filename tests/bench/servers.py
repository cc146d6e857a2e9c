# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The servers of tests/bench/peers and tests/bench/host-profile: srpfs and others that show a disk as a file, all mounted on this machine.
Imported, never run."""

import contextlib
import dataclasses
import glob
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import typing

from measuring import TOP, Failure, stat_of

GIB = 1 << 30
READY_SECONDS_MAX = 30
END_SECONDS_MAX = 10
ENABLE_URING = pathlib.Path("/sys/module/fuse/parameters/enable_uring")


@dataclasses.dataclass
class Peer:
    """A server with a mounted file. `command` gets the mount point; the file is the only one that fits `pattern` below it."""
    name: str
    words: str
    command: typing.Callable[[pathlib.Path], list[str]]
    pattern: str
    mounts_file: bool = False  # on a file instead of a directory
    in_memory: bool = False    # what was never written costs less to read
    is_watched: bool = False   # its metrics are read once a second while it is measured
    needs_uring: bool = False  # the kernel's parameter has to be on
    process: subprocess.Popen | None = None
    mountpoint: pathlib.Path | None = None
    file: str = ""
    log: typing.IO[bytes] | None = None


def srpfs_peer(name: str, unit: str, build: pathlib.Path, options: str) -> Peer:
    words = f"srpfs demo:{unit}" + (f" -o {options}" if options else "")
    arguments = ["-o", options] if options else []
    return Peer(name, words, lambda mountpoint: [str(build / "srpfs"), "-f", *arguments, f"demo:{unit}", str(mountpoint)],
                "srp-*/*/lun0", in_memory=unit.startswith("ram"), needs_uring="io_uring=on" in options)


def all_peers(build: pathlib.Path) -> list[Peer]:
    options = subprocess.run([build / "srpfs", "--help"], check=True, capture_output=True, text=True).stdout
    peers = []
    if "io_uring=" in options:
        peers += [srpfs_peer("srpfs-null", "null:8G", build, "io_uring=off"),
                  srpfs_peer("srpfs-null-ring", "null:8G", build, "io_uring=on"),
                  srpfs_peer("srpfs-ram", "ram:1G", build, "io_uring=off"),
                  srpfs_peer("srpfs-ram-ring", "ram:1G", build, "io_uring=on")]
    else:
        peers += [srpfs_peer("srpfs-null", "null:8G", build, ""), srpfs_peer("srpfs-ram", "ram:1G", build, "")]
    peers.append(Peer("ceiling", "null-fuse (the same intake, nothing behind it)",
                      lambda mountpoint: [str(build / "tests/bench/null-fuse"), str(mountpoint)], "null"))
    if "io_uring=" in options:
        peers.append(Peer("ceiling-ring", "null-fuse --ring (the same through io_uring)",
                          lambda mountpoint: [str(build / "tests/bench/null-fuse"), "--ring", str(mountpoint)], "null", needs_uring=True))
    peers.append(Peer("qsd", "qemu-storage-daemon, FUSE export of null-co",
                      lambda mountpoint: ["qemu-storage-daemon", "--blockdev", f"driver=null-co,node-name=disk,size={8 * GIB}",
                                          "--export", f"type=fuse,id=export,node-name=disk,mountpoint={mountpoint},writable=on"],
                      "", mounts_file=True))
    peers.append(Peer("nbdfuse", "nbdfuse, nbdkit memory",
                      lambda mountpoint: ["nbdfuse", str(mountpoint), "--socket-activation", "nbdkit", "-f", "memory", "1G"],
                      "nbd", in_memory=True))
    return peers


def install_packages(who: str, *lists: str) -> None:
    """Those of the build and the servers, and more lists of contrib/packages.sh; `who` says so."""
    named = " ".join(f'"${{{one}[@]}}"' for one in ("build_packages", "bench_packages", *lists))
    script = (f'die() {{ printf "{who}: %s\\n" "$*" >&2; exit 1; }}; say() {{ printf "{who}: %s\\n" "$*" >&2; }}; '
              f'. contrib/packages.sh; install_missing_packages die say {named}')
    if subprocess.run(["bash", "-c", script], cwd=TOP, check=False).returncode != 0:
        raise Failure("the packages of the servers are not there and could not be installed; see above")


def build_programs(build: pathlib.Path) -> None:
    if not (build / "build.ninja").exists():
        subprocess.run(["meson", "setup", build, TOP], check=True, stdout=sys.stderr)
    done = subprocess.run(["ninja", "-C", build, "--quiet", "srpfs", "tests/bench/null-fuse"], check=False, stdout=sys.stderr)
    if done.returncode != 0:
        raise Failure(f"srpfs and null-fuse do not build in {build}; see above")


def is_mounted(path: pathlib.Path) -> bool:
    return any(line.split()[4] == str(path) for line in pathlib.Path("/proc/self/mountinfo").read_text(errors="replace").splitlines())


def begin(peer: Peer, directory: pathlib.Path) -> None:
    peer.mountpoint = directory / peer.name
    if peer.mounts_file:
        peer.mountpoint.touch()
    else:
        peer.mountpoint.mkdir()
    peer.log = (directory / f"{peer.name}.log").open("w+b")
    command = peer.command(peer.mountpoint)
    try:
        peer.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=peer.log, stderr=subprocess.STDOUT,  # pylint: disable=consider-using-with
                                        start_new_session=True)
    except OSError as error:
        raise Failure(f"{peer.name} could not be started: {command[0]}: {error.strerror}") from error
    end = time.monotonic() + READY_SECONDS_MAX
    while True:
        if peer.process.poll() is not None:
            raise Failure(f"{peer.name} ended before its file was there: {last_words(peer)}")
        if is_mounted(peer.mountpoint):
            found = glob.glob(str(peer.mountpoint / peer.pattern)) if peer.pattern else [str(peer.mountpoint)]
            if found and os.stat(found[0]).st_size > 0:
                peer.file = found[0]
                return
        if time.monotonic() > end:
            raise Failure(f"{peer.name} has not shown its file within {READY_SECONDS_MAX} s: {last_words(peer)}")
        time.sleep(0.05)


def last_words(peer: Peer) -> str:
    assert peer.log
    peer.log.seek(0)
    lines = peer.log.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def unmount(path: pathlib.Path, *options: str) -> None:
    command = ["umount", *options] if os.geteuid() == 0 else ["fusermount3", "-u", *(["-z"] if options else [])]
    subprocess.run([*command, path], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finish(peer: Peer) -> None:
    if not peer.process or not peer.mountpoint:
        return
    if is_mounted(peer.mountpoint):
        unmount(peer.mountpoint)
    # Most end when they are unmounted, some have to be told.
    for number, seconds in ((signal.SIGTERM, 1), (signal.SIGKILL, END_SECONDS_MAX)):
        try:
            peer.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        for pid in session_of(peer.process.pid):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
    if is_mounted(peer.mountpoint):
        unmount(peer.mountpoint, "-l")


def session_of(leader: int) -> list[int]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = stat_of(pid)
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] not in "ZX":
            found.append(int(pid))
    return found


def fio(peer: Peer, arguments: typing.Sequence[str]) -> dict:
    command = ["fio", "--name=bench", f"--filename={peer.file}", "--size=256m", "--direct=1", "--allow_file_create=0",
               "--group_reporting=1", "--output-format=json", "--eta=never", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    try:
        return json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0] if done.returncode == 0 else {}
    except (ValueError, KeyError, IndexError):
        return {}
    finally:
        if done.returncode != 0:
            lines = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["it said nothing"]
            assert peer.process
            ended = "" if peer.process.poll() is None else f" ({peer.name} has ended: {last_words(peer)})"
            raise Failure(f"fio with {' '.join(arguments)} failed on {peer.name}{ended}: {lines[0]}")


@contextlib.contextmanager
def mounted(peers: list[Peer]) -> typing.Iterator[None]:
    """All of them, with the kernel's io_uring intake switched on meanwhile if one needs it."""
    uring_before = None
    directory = pathlib.Path(tempfile.mkdtemp(prefix="srpfs-peers."))
    try:
        if any(peer.needs_uring for peer in peers) and ENABLE_URING.exists() and ENABLE_URING.read_text().strip() == "N":
            if not os.access(ENABLE_URING, os.W_OK):
                raise Failure(f"{ENABLE_URING} is N, so there is no io_uring intake: set it as root, or choose others with --only")
            ENABLE_URING.write_text("Y")
            uring_before = "N"
        for peer in peers:
            begin(peer, directory)
        yield
    finally:
        for peer in peers:
            finish(peer)
        if uring_before:
            ENABLE_URING.write_text(uring_before)
        if not any(peer.mountpoint and is_mounted(peer.mountpoint) for peer in peers):
            shutil.rmtree(directory, ignore_errors=True)


def chosen_of(peers: list[Peer], only: str) -> list[Peer]:
    """Those named in `only`, separated by commas; all if that is empty."""
    if not only:
        return peers
    wanted = only.split(",")
    if unknown := [name for name in wanted if name not in {peer.name for peer in peers}]:
        raise Failure(f"--only: there is no {unknown[0]}; there are {', '.join(peer.name for peer in peers)}")
    return [peer for peer in peers if peer.name in wanted]
