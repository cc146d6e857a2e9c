# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""srpctl copy: exact both ways, however it is interrupted, and nothing is written that was not asked for."""

import contextlib
import json
import os
import pathlib
import pty
import random
import select
import signal
import subprocess
import time

from ctl import OTHER, Ctl
from harness import (PATIENCE, TARGET, Skip, check, contains, equal, eventually, opened, pattern, promised, run, succeeds, test, value,
                     wait_gone)

MIB = 1 << 20


class Copier(Ctl):
    """srpctl with a state directory of the test's own."""

    def __init__(self, t, mount):
        super().__init__(t, mount)
        self.state = t.path("state")

    def run(self, *arguments, **more):
        return super().run(*arguments, env={"XDG_STATE_HOME": str(self.state)}, **more)

    def begin(self, *arguments, **more):
        return subprocess.Popen(self.command("copy", *arguments), env=dict(os.environ, XDG_STATE_HOME=str(self.state), LC_ALL="C"),
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)

    def copy(self, *arguments, **more):
        return self.run("copy", *arguments, **more)

    def journals(self):
        return sorted(path.name for path in (self.state / "srpfs").glob("*"))


def sparse_pattern(size, seed):
    """Data, long zeros, zeros inside blocks, and an odd end."""
    data = bytearray(size)
    for begin, end in ((0, size // 8), (size // 4 + 12345, size // 2), (size // 2 + 70000, size // 2 + 70001), (size - 5, size)):
        data[begin:end] = pattern(end - begin, seed)
    return bytes(data)


@test
def srpctl_copies_exactly_both_ways(t):
    mount = t.mount("demo:ram:24M+ram:24M,bs=4096")
    ctl = Copier(t, mount)
    for lun, size in ((0, 24 * MIB), (1, 24 * MIB), (0, 5 * MIB + 1234), (1, 777), (0, 0)):
        junk = pattern(24 * MIB, 7)
        mount.lun(lun).write_bytes(junk)
        data = sparse_pattern(size, lun + 3) if size > 100000 else pattern(size, 5)
        image = t.path(f"image{lun}-{size}")
        image.write_bytes(data)
        said = ctl.copy(image, mount.lun(lun), "--yes", "--verify", "--block-size", "256K").stdout
        contains(said, "verified", "what it says")
        equal(mount.lun(lun).read_bytes() == data + junk[size:], True, f"{size} bytes on LUN {lun}, and what is behind them")
        equal(f"the last {24 * MIB - size} bytes of {mount.lun(lun)} are as they were" in said, size != 24 * MIB, "the rest is told of")
        back = t.path("back")
        back.write_bytes(b"what was there before")
        ctl.copy(mount.lun(lun), back, "--verify")
        equal(back.read_bytes() == data + junk[size:], True, f"LUN {lun} in a file")
        equal(back.stat().st_mode & 0o777, mount.lun(lun).stat().st_mode & 0o777, "its mode")
    ctl.copy("lun0", "lun1", "--yes", "--verify")
    equal(mount.lun(0).read_bytes() == mount.lun(1).read_bytes(), True, "a LUN on a LUN")
    equal(ctl.journals(), [], "journals of what is over")
    equal([path.name for path in t.dir.glob("*.part*")], [], "parts of what is over")


@test
def srpctl_copies_a_part_and_touches_nothing_else(t):
    mount = t.mount("demo:ram:4M+ram:4M,bs=4096")
    ctl = Copier(t, mount)
    junk, data = pattern(4 * MIB, 7), sparse_pattern(3 * MIB, 3)
    image, back = t.path("image"), t.path("back")
    image.write_bytes(data)
    for lun, offset, length, seek in ((0, 0, 1, 0), (0, 1, 511, 513), (1, 4095, 4098, 8191), (1, 777777, 1 * MIB + 3, 5), (0, 512, 3 * MIB - 512, MIB + 511),
                                      (1, 3 * MIB - 1, 1, 4 * MIB - 1), (0, MIB, 128 << 10, 3 * MIB)):
        mount.lun(lun).write_bytes(junk)
        said = ctl.out("copy", image, mount.lun(lun), "-y", "--verify", "--block-size", "64K", "--offset", offset, "--length", length, "--seek", seek)
        wanted = junk[:seek] + data[offset:offset + length] + junk[seek + length:]
        equal(mount.lun(lun).read_bytes() == wanted, True, f"{length} bytes from {offset} on, at {seek} of LUN {lun}")
        equal(f"the first {seek} bytes of {mount.lun(lun)} are as they were" in said, seek != 0, "what is said of what is before")
        ctl.run("copy", mount.lun(lun), back, "--verify", "--offset", seek, "--length", length)
        equal(back.read_bytes() == data[offset:offset + length], True, "the part in a file")
        equal(ctl.out("copy", "--verify-only", image, mount.lun(lun), "--offset", offset, "--seek", seek, "--length", length).startswith("the same"),
              True, "compared with the image")
        document = json.loads(ctl.out("-o", "json", "copy", "--verify-only", mount.lun(lun), back, "--offset", seek, "--length", length).splitlines()[-1])
        equal([document[name] for name in ("source_offset", "target_offset", "bytes_total")], [seek, 0, length], "what JSON says")
    mount.lun(0).write_bytes(junk)
    ctl.run("copy", "lun0", "lun1", "-y", "--verify", "--offset", "1M", "--length", "2M", "--seek", "1234567")
    equal(mount.lun(1).read_bytes()[1234567:1234567 + 2 * MIB] == junk[MIB:3 * MIB], True, "a part of a LUN on a LUN")
    with opened(mount.lun(1)) as handle:
        os.pwrite(handle, bytes([junk[MIB + 99] ^ 1]), 1234567 + 99)
    contains(ctl.fails(13, "copy", "--verify-only", "lun0", "lun1", "--offset", "1M", "--length", "2M", "--seek", "1234567"),
             f"first at byte {MIB + 99}, byte {1234567 + 99} there", "where they differ")
    ctl.run("copy", "lun0", back, "--offset", "3M")
    equal(back.read_bytes() == junk[3 * MIB:], True, "the rest")
    before = mount.lun(1).read_bytes()
    contains(ctl.fails(7, "copy", image, "lun1", "-y", "--offset", 3 * MIB + 1), "is behind them", "an offset behind the end")
    contains(ctl.fails(7, "copy", image, "lun1", "-y", "--offset", MIB, "--length", "3M"), "has 2097152 bytes from byte 1048576 on", "too long a part")
    contains(ctl.fails(7, "copy", image, "lun1", "-y", "--seek", "2M"), f"3145728 bytes are to be copied to byte {2 * MIB} of", "too large a part")
    contains(ctl.fails(7, "copy", "lun0", back, "--seek", 1), "--seek is for LUNs", "a file that is to be written from there")
    contains(ctl.fails(1, "copy", image, "lun1", "--seek", "1K", "--length", "1K"), "--yes overwrites its bytes 1024 to 2048", "without --yes")
    for option in ("--offset", "--length", "--seek"):
        for word in ("x", "-1", "1KB", "8E", "99999999999999999999", "1.5M", "K"):
            contains(ctl.fails(1, "copy", image, "lun1", f"{option}={word}"), f"{option} {word}: a number of bytes", f"{option} of {word}")
    contains(ctl.fails(1, "copy", image, "lun1", "--length", "0"), "a number of bytes", "nothing")
    contains(ctl.fails(1, "copy", "lun1", "-"), "cat and dd", "a pipe")
    equal((mount.lun(1).read_bytes() == before, ctl.journals()), (True, []), "what was refused")


@test
def srpctl_goes_on_with_a_part_but_not_with_another_one(t):
    mount = t.mount("demo:ram:32M+ram:48M")
    ctl = Copier(t, mount)
    data = pattern(32 * MIB, 4)
    mount.lun(0).write_bytes(data)
    small = t.mountpoint("small")
    with file_system(small, "size=10M"):
        part = ("--offset", 5 * MIB + 100, "--length", 20 * MIB + 7)
        contains(ctl.fails(2, "copy", "lun0", small / "out", *part), f" of {20 * MIB + 7} bytes are done", "how far it is")
        succeeds("mount", "-o", "remount,size=40M", small)
        for other in ((), part[:2], ("--offset", 5 * MIB + 101, *part[2:]), (*part[:2], "--length", 20 * MIB + 6)):
            contains(ctl.fails(7, "copy", "lun0", small / "out", *other), f"begun with --offset {5 * MIB + 100} --length {20 * MIB + 7} --seek 0",
                     f"going on with {other}")
        contains(ctl.copy("lun0", small / "out", *part).stdout, "bytes before", "what it says")
        equal((small / "out").read_bytes() == data[5 * MIB + 100:25 * MIB + 107], True, "the part")
    # Onto a LUN: what a journal says is of the part.
    image = t.path("image")
    image.write_bytes(data)
    ctl.state.joinpath("srpfs").mkdir(parents=True)
    wwids = [value(f"{mount.lun(number)}.attr/wwid") for number in (0, 1)]
    journal = ctl.state / "srpfs" / f"copy-onto-lun_{wwids[1]}.journal"
    part = ("--offset", 1000, "--length", 16 * MIB, "--seek", 3 * MIB + 5)
    with opened(mount.lun(1)) as handle:
        os.pwrite(handle, data[1000:1000 + 8 * MIB], 3 * MIB + 5)
    journal.write_text(json.dumps({"srpctl_copy": 1, "source": "lun " + wwids[0], "source_bytes": 32 * MIB, "target": "lun " + wwids[1],
                                   "done_bytes": 8 * MIB, "part_inode": 0, "source_offset": 1000, "target_offset": 3 * MIB + 5, "length": 16 * MIB}))
    contains(ctl.fails(7, "copy", "lun0", "lun1", "-y", *part[:4], "--seek", 3 * MIB), "begun with --offset 1000", "another place")
    equal(ctl.copy("lun0", "lun1", "-y", "--verify", *part).stderr, f"going on at byte {8 * MIB} of {16 * MIB}\n", "where it goes on")
    equal(mount.lun(1).read_bytes() == bytes(3 * MIB + 5) + data[1000:1000 + 16 * MIB] + bytes(29 * MIB - 5), True, "the LUN")


@contextlib.contextmanager
def file_system(place, options):
    """Of a size."""
    succeeds("mount", "-t", "tmpfs", "-o", options, "none", place)
    try:
        yield
    finally:
        run("umount", "-l", place)


@test
def srpctl_copies_holes_as_holes(t):
    mount = t.mount("demo:ram:64M+ram:64M")
    ctl = Copier(t, mount)
    image, back = t.path("image"), t.path("back")
    with open(image, "wb") as file:
        file.seek(40 * MIB)
        file.write(pattern(MIB, 2))
        file.truncate(64 * MIB)
    mount.lun(0).write_bytes(pattern(64 * MIB, 1))
    document = json.loads(ctl.copy("-o", "json", image, "lun0", "-y").stdout.splitlines()[-1])
    equal([document[name] for name in ("state", "phase", "bytes", "bytes_zero", "bytes_before", "verified", "error")],
          ["done", "copying", 64 * MIB, 63 * MIB, 0, False, None], "what was done")
    equal(mount.lun(0).read_bytes() == image.read_bytes(), True, "the LUN has the image")
    ctl.copy("lun0", back)
    equal(back.read_bytes() == image.read_bytes(), True, "the file has the image")
    if image.stat().st_blocks * 512 > 8 * MIB:
        raise Skip("the file system has no holes")
    check(back.stat().st_blocks * 512 <= 2 * MIB, f"the copy takes {back.stat().st_blocks * 512} bytes")
    # Zeros that are no holes.
    mount.lun(1).write_bytes(b"\0" * (8 * MIB) + pattern(MIB, 3) + b"\0" * (55 * MIB))
    ctl.copy("lun1", back, "--verify")
    check(back.stat().st_blocks * 512 <= 2 * MIB, f"zeros take {back.stat().st_blocks * 512} bytes")
    equal(back.read_bytes() == mount.lun(1).read_bytes(), True, "the copy of the zeros")


@test
def srpctl_copy_refuses_what_cannot_be_meant(t):
    mount = t.mount("demo:ram:2M+ram:1M")
    ctl = Copier(t, mount)
    ctl.run("login", OTHER)
    image = t.path("image")
    image.write_bytes(pattern(2 * MIB + 1, 1))
    before = mount.lun(0).read_bytes(), mount.lun(1).read_bytes()
    lun, other = mount.lun(0), pathlib.Path(f"{mount.target}-{2:016x}") / "lun0"
    contains(ctl.fails(7, "copy", image, lun, "-y"), "1 more than", "too large a file")
    contains(ctl.fails(7, "copy", lun, mount.lun(1), "-y"), f"{MIB} more than", "too large a LUN")
    contains(ctl.fails(1, "copy", mount.lun(1), lun), "--yes overwrites its first 1048576 bytes", "without --yes")
    contains(ctl.fails(7, "copy", lun, lun, "-y"), "onto itself", "itself")
    contains(ctl.fails(7, "copy", lun, other, "-y"), "the same LUN by two paths", "itself by another path")
    link = t.path("link")
    link.symlink_to(mount.path / "by-path" / f"demo0-1-srp-{TARGET}-lun-0")
    contains(ctl.fails(7, "copy", lun, link, "-y"), "onto itself", "itself by a link")
    contains(ctl.fails(7, "copy", image, t.path("x")), "cp copies files", "two files")
    contains(ctl.fails(4, "copy", t.path("nothing"), lun, "-y"), "no such file or LUN", "a source that is not there")
    contains(ctl.fails(4, "copy", "lun0", "./x"), "2 have this name", "an ambiguous name")
    contains(ctl.fails(4, "copy", lun, mount.target / "lun7", "-y"), "no such LUN", "a LUN that is not there")
    contains(ctl.fails(4, "copy", lun, mount.path / "stats", "-y"), "is no LUN", "another file of the mount")
    contains(ctl.fails(1, "copy", lun, t.dir), "is a directory", "a directory")
    contains(ctl.fails(1, "copy", "/dev/null", lun, "-y"), "neither a file nor a LUN", "a device")
    contains(ctl.fails(4, "copy", lun, t.path("no/such")), f"there is no directory {t.path('no')}; make it", "a directory that is not there")
    for size in ("0", "4095", "17M", "1G", "x", "", "99999999999999999999"):
        contains(ctl.fails(1, "copy", lun, t.path("x"), f"--block-size={size}"), "block-size", f"a block size of {size!r}")
    t.path("y.part").write_bytes(b"somebody's")
    contains(ctl.fails(15, "copy", lun, t.path("y")), "no journal", "a part of somebody's")
    equal(t.path("y.part").read_bytes(), b"somebody's", "what somebody has")
    t.path("z.part.journal").write_bytes(b"somebody's")
    contains(ctl.fails(7, "copy", lun, t.path("z"), "--no-resume"), "is no journal", "a journal of somebody's")
    equal(t.path("z.part.journal").read_bytes(), b"somebody's", "what somebody has")
    contains(ctl.fails(2, "copy", lun, os.fsdecode(os.fsencode(t.path("x")) + b"\xff")), "is not UTF-8", "a name that is not UTF-8")
    t.path("kept").write_bytes(b"kept")
    contains(ctl.fails(7, "copy", lun, t.path("new"), "--journal", t.path("new")), "nothing was written", "the target as journal")
    contains(ctl.fails(7, "copy", t.path("kept"), lun, "-y", "--no-resume", "--journal", t.path("kept")), "nothing was written",
             "the source as journal")
    equal((t.path("new").exists(), t.path("kept").read_bytes()), (False, b"kept"), "what would have been a journal")
    equal((lun.read_bytes(), mount.lun(1).read_bytes()) == before, True, "the LUNs are as they were")
    equal(t.path("x").exists(), False, "a file that was not to be there")


def killed_and_resumed(ctl, source, target, journal, answer, *options):
    """Kills copies at random moments, then lets one get through; gives how many of them had something to go on from."""
    resumed = 0
    rng = random.Random(20)
    for attempt in range(13):
        left = list(journal())
        resumed += bool(left) and json.loads(left[0].read_text())["done_bytes"] > 0
        process = ctl.begin(source, target, *options)
        if attempt < 12:
            time.sleep(rng.random() * 0.25)            # any moment will do
            process.kill()
        errors = process.communicate(timeout=PATIENCE)[1]
        if process.returncode == 0:
            break
        equal(process.returncode, -signal.SIGKILL, f"the end of a copy ({errors})")
        # The process that copies ends with it: else it would hold the lock.
        eventually(lambda: not copiers(ctl), "the copier has ended")
    equal(answer(), True, "the copy after it was killed and gone on with")
    return resumed


def copiers(ctl):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == os.fsencode(ctl.program) and b"copy" in words and str(ctl.mount.path).encode() in words:
            found.append(int(pid))
    return found


@test
def srpctl_copy_that_was_killed_goes_on_with_the_right_bytes(t):
    mount = t.mount("demo:ram:128M+ram:128M")
    ctl = Copier(t, mount)
    data = pattern(128 * MIB, 4)
    mount.lun(0).write_bytes(data)
    out = t.path("out")
    resumed = killed_and_resumed(ctl, "lun0", out, lambda: t.dir.glob("out.part.journal"), lambda: out.read_bytes() == data,
                                 "--block-size", "32K")
    resumed += killed_and_resumed(ctl, out, "lun1", lambda: ctl.state.glob("srpfs/*.journal"), lambda: mount.lun(1).read_bytes() == data,
                                  "--block-size", "32K", "--yes")
    equal(ctl.journals(), [], "journals")
    return f"{resumed} went on"


@test
def srpctl_copy_goes_on_where_an_interrupted_one_ended(t):
    mount = t.mount("demo:ram:256M+ram:256M")
    ctl = Copier(t, mount)
    data = pattern(256 * MIB, 4)
    mount.lun(0).write_bytes(data)
    for source, target, options in (("lun0", t.path("out"), ()), (t.path("out"), "lun1", ("--yes",))):
        process = ctl.begin("-o", "json", source, target, "--block-size", "4K", *options)
        reads = mount.lun_stats(0)["reads"] if not options else mount.lun_stats(1)["writes"]
        eventually(lambda r=reads, o=options: (mount.lun_stats(1)["writes"] if o else mount.lun_stats(0)["reads"]) > r + 50, "it copies")
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=PATIENCE)
        if process.returncode == 0:
            raise Skip("the copy was over before the signal came")
        equal(process.returncode, 130, f"exit status after Ctrl-C ({errors})")
        contains(errors, "the same command goes on there", "how to go on")
        document = json.loads(out.splitlines()[-1])
        equal((document["state"], document["errno"]), ("failed", "EINTR"), "what JSON says")
        done = int(errors.split(" of 268435456 bytes")[0].split()[-1])
        check(done > 0, f"nothing was done: {errors}")
        if options:
            # Whoever is asked is told so, and says no.
            text, code = ctl.on_a_terminal("copy", source, target, typed=b"n\n", env={"XDG_STATE_HOME": str(ctl.state)})
            contains(text, f"goes on: bytes {done} to 268435456 of", "the question")
            equal(code, 1, "exit status when it is not confirmed")
        again = json.loads(ctl.copy("-o", "json", source, target, *options).stdout.splitlines()[-1])
        equal(again["bytes_before"], done, "what it goes on from")
    equal(t.path("out").read_bytes() == data, True, "the file")
    equal(mount.lun(1).read_bytes() == data, True, "the LUN")


@test
def srpctl_copy_does_not_go_on_with_another_source(t):
    mount = t.mount("demo:ram:256M++ram:256M")
    ctl = Copier(t, mount)
    out, first = t.path("out"), mount.lun(0)
    data = pattern(256 * MIB, 4)
    first.write_bytes(data)
    ctl.mount = None
    source = str(first)
    second = str(first).replace(TARGET, TARGET.replace("1", "2"))
    process = ctl.begin(source, out, "--block-size", "4K")
    eventually(lambda: mount.lun_stats(0)["reads"] > 50, "it copies")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    if process.returncode == 0:
        raise Skip("the copy was over before the signal came")
    journal = json.loads(t.path("out.part.journal").read_text())
    equal(journal["source"], "lun " + value(f"{first}.attr/wwid"), "the source of the journal")
    contains(ctl.fails(7, "copy", second, out), "a copy of another source", "another LUN")
    t.path("out.part.journal").write_text(json.dumps(dict(journal, source_bytes=1 << 30)))
    contains(ctl.fails(7, "copy", source, out), "had 1073741824 bytes", "another size")
    t.path("out.part.journal").write_text(json.dumps(dict(journal, part_inode=1)))
    contains(ctl.fails(7, "copy", source, out), "not the file that was begun", "another part")
    check(not out.exists(), "the copy has its name already")
    # What stands in the part behind what is known to be durable does not count.
    t.path("out.part.journal").write_text(json.dumps(journal))
    with opened(t.path("out.part")) as handle:
        os.pwrite(handle, b"\xff" * 65536, max(journal["done_bytes"], 128 * MIB))
    ctl.copy(source, out)
    equal(out.read_bytes() == data, True, "the copy")
    ctl.copy(second, out, "--no-resume")
    equal(out.read_bytes().count(0), 256 * MIB, "the copy of the other")


@test
def srpctl_copy_goes_on_when_a_full_disk_has_room(t):
    mount = t.mount("demo:ram:32M")
    ctl = Copier(t, mount)
    data = pattern(32 * MIB, 4)
    mount.lun(0).write_bytes(data)
    small = t.mountpoint("small")
    with file_system(small, "size=20M"):
        for _ in range(2):
            told = ctl.fails(2, "copy", "lun0", small / "out")
            contains(told, "No space left on device; make room", "the reason")
            contains(told, "the same command goes on there", "how to go on")
        done = json.loads((small / "out.part.journal").read_text())["done_bytes"]
        check(10 * MIB < done < 20 * MIB, f"{done} bytes are done")
        check(not (small / "out").exists(), "the copy has its name already")
        succeeds("mount", "-o", "remount,size=40M", small)
        went_on = ctl.copy("lun0", small / "out")
        contains(went_on.stdout, f"{done} bytes before", "what it says")
        equal(went_on.stderr, f"going on at byte {done} of {32 * MIB}\n", "what it says first")
        equal((small / "out").read_bytes() == data, True, "the copy")


@test
def srpctl_copy_is_not_done_when_the_journal_took_the_room(t):
    mount = t.mount("demo:ram:4M")
    ctl = Copier(t, mount)
    data = pattern(4 * MIB, 4)
    mount.lun(0).write_bytes(data)
    small = t.mountpoint("small")
    failures = 0
    # At some of these sizes there is room for the last block, but not for the journal that says so.
    for room in range(0, 16384, 4096):
        with file_system(small, f"size={4 * MIB + room}"):
            done = run(*ctl.command("copy", "lun0", small / "out"))
            equal((small / "out").exists(), done.returncode == 0, f"the name, with {room} bytes more")
            if done.returncode != 0:
                failures += 1
                equal(done.returncode, 2, f"exit status ({done.stderr})")
                contains(done.stderr, "No space left on device; make room", "the reason")
                told = json.loads((small / "out.part.journal").read_text())["done_bytes"]
                contains(done.stderr, f"; {told} of {4 * MIB} bytes are done", "what is done")
                succeeds("mount", "-o", "remount,size=8M", small)
                ctl.copy("lun0", small / "out")
            equal((small / "out").read_bytes() == data, True, f"the copy, with {room} bytes more")
    check(failures > 0, "there was room enough each time")


@test
def srpctl_copy_does_not_go_on_in_a_file_that_became_shorter(t):
    mount = t.mount("demo:ram:32M")
    ctl = Copier(t, mount)
    data = pattern(32 * MIB, 4)
    mount.lun(0).write_bytes(data)
    small = t.mountpoint("small")
    with file_system(small, "size=20M"):
        out = small / "out"
        ctl.fails(2, "copy", "lun0", out)
        succeeds("mount", "-o", "remount,size=40M", small)
        os.truncate(small / "out.part", 1 * MIB)
        contains(ctl.fails(2, "copy", "lun0", out), "has 1048576 bytes, and ", "a shorter file")
        check(not out.exists(), "the copy has its name already")
        ctl.copy("lun0", out, "--no-resume")
        equal(out.read_bytes() == data, True, "the copy")


@test
def srpctl_copy_finds_a_byte_that_differs(t):
    mount = t.mount("demo:ram:16M")
    ctl = Copier(t, mount)
    data = bytearray(pattern(9 * MIB, 4))
    image = t.path("image")
    image.write_bytes(data)
    ctl.copy(image, "lun0", "-y")
    equal(ctl.out("copy", "--verify-only", image, "lun0"), f"the same: {9 * MIB} bytes of {image} and {mount.lun(0)}\n", "what is the same")
    for at in (0, 4 * MIB + 17, 9 * MIB - 1):
        with opened(mount.lun(0)) as handle:
            os.pwrite(handle, bytes([data[at] ^ 1]), at)
            contains(ctl.fails(13, "copy", "--verify-only", image, "lun0"), f"differ, first at byte {at}", "the place")
            os.pwrite(handle, bytes([data[at]]), at)
    contains(ctl.fails(13, "copy", "--verify-only", "lun0", image), "has 16777216 bytes, and", "a file that is shorter")
    equal(mount.lun(0).read_bytes()[:9 * MIB] == bytes(data), True, "nothing was written")


@test
def srpctl_copy_verifies_before_the_file_has_its_name(t):
    mount = t.mount("demo:ram:64M")
    ctl = Copier(t, mount)
    data = pattern(64 * MIB, 4)
    mount.lun(0).write_bytes(data)
    out = t.path("out")
    out.write_bytes(b"before")
    at = 64 * MIB - 100
    process = ctl.begin("--verify", "lun0", out)
    # Somebody writes into it all the time, also between what is written there and what is read.
    eventually(lambda: process.poll() is not None or (t.path("out.part").exists() and t.path("out.part").stat().st_size == len(data)), "it copies")
    with opened(t.path("out.part")) as handle:
        until = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < until:
            os.pwrite(handle, bytes([data[at] ^ 1]), at)
    errors = process.communicate(timeout=PATIENCE)[1]
    equal(process.returncode, 13, f"exit status ({errors})")
    contains(errors, f"differ, first at byte {at}; {out}.part is not to be used", "the place")
    equal(out.read_bytes(), b"before", "what had the name before")
    ctl.copy("--verify", "lun0", out)
    equal(out.read_bytes() == data, True, "the copy when it is made again")


@test
def srpctl_copy_says_where_it_failed(t):
    mount = t.mount("demo:ram:256M+ram:1M,ro", env={"SRPFS_DEMO_HOLD": str(t.path("hold"))})
    ctl = Copier(t, mount)
    mount.lun(0).write_bytes(pattern(256 * MIB, 1))
    out = t.path("out")
    image = t.path("image")
    image.write_bytes(b"x" * 4096)
    contains(ctl.fails(6, "copy", image, mount.lun(1), "-y"), "Read-only", "a read-only LUN")
    process = ctl.begin(mount.lun(0), out, "--block-size", "64K")
    eventually(lambda: t.path("out.part").exists() and t.path("out.part").stat().st_blocks > 0, "it copies")
    t.path("hold").touch()
    ctl.run("logout", TARGET)
    errors = process.communicate(timeout=PATIENCE)[1]
    if process.returncode != 0:
        equal(process.returncode, 10, f"exit status after the logout ({errors})")
        contains(errors, f"{mount.lun(0)}: read at byte ", "what failed, and where")
        contains(errors, "the same command goes on there", "how to go on")
    t.path("hold").unlink()
    eventually(lambda: not copiers(ctl), "what was left behind ends")


@test
def srpctl_copy_ends_when_srpfs_does_not_answer(t):
    mount = t.mount("demo:ram:256M")
    ctl = Copier(t, mount)
    mount.lun(0).write_bytes(pattern(256 * MIB, 1))
    for end in ("signal", "silence"):
        reads = mount.lun_stats(0)["reads"]
        process = ctl.begin("lun0", t.path(end), "--block-size", "4K", *(("-t", "2") if end == "silence" else ()))
        eventually(lambda r=reads: mount.lun_stats(0)["reads"] > r + 20, "it copies")
        os.kill(mount.pid, signal.SIGSTOP)
        try:
            with promised(10, "giving up", beside=lambda: run("true")):
                if end == "signal":
                    process.send_signal(signal.SIGINT)
                code = process.wait(PATIENCE)
            errors = process.stderr.read()
        finally:
            os.kill(mount.pid, signal.SIGCONT)
        if code != 0:
            equal(code, 130 if end == "signal" else 8, f"exit status ({errors})")
            contains(errors, "the same command goes on there", "how to go on")
        eventually(lambda: not copiers(ctl), "what was left behind ends")
        ctl.copy("lun0", t.path(end), "--verify")


@test
def srpctl_copy_shows_its_progress_on_a_terminal(t):
    mount = t.mount("demo:ram:64M")
    ctl = Copier(t, mount)
    mount.lun(0).write_bytes(pattern(64 * MIB, 1))
    text, code = ctl.on_a_terminal("copy", "lun0", t.path("out"), "--block-size", "16K")
    equal(code, 0, "exit status")
    contains(text, " of 64 MiB", "the progress")
    check(all(len(line.split("\x1b")[0]) < 80 for line in text.split("\r")), f"wider than the terminal: {text!r}")
    check(text.rstrip().split("\r\x1b[K")[-1].startswith("copied:"), f"the last line: {text[-300:]!r}")
    done = ctl.copy("lun0", t.path("out"))
    equal(done.stderr, "", "progress without a terminal")
    # A terminal is asked.
    for answer, wanted in ((b"n\n", 1), (b"y\n", 0)):
        pid, handle = pty.fork()
        if pid == 0:
            os.execve(ctl.program, ctl.command("copy", str(t.path("out")), "lun0"),
                      {"PATH": os.environ["PATH"], "TERM": "xterm", "XDG_STATE_HOME": str(ctl.state)})
        seen = b""
        while b"[y/N]" not in seen:
            check(select.select([handle], [], [], PATIENCE)[0], f"no question: {seen}")
            seen += os.read(handle, 4096)
        os.write(handle, answer)
        try:
            while os.read(handle, 4096):
                pass
        except OSError:
            pass
        wait_gone(pid)
        os.close(handle)
        equal(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), wanted, f"exit status after {answer}")
