# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""A target that loses its power, and what its volatile cache had: what was made durable is there, and what is lost is told."""

import contextlib
import errno
import json
import os
import re
import signal
import struct
import subprocess
import threading

from harness import (BOTH, LOGIN, PATIENCE, TARGET, Background, check, contains, equal, errno_of, eventually, fails_with, needs, opened, pattern, read_bytes,
                     run, test, value, write_once)

MIB = 1 << 20
BLOCK = 4096


class Power:
    """A mount whose target loses its power when told, and what units with a volatile cache have not made durable."""

    def __init__(self, t, source="demo:ram:16M,wce", options=""):
        self.file = t.path("power-cut")
        self.mount = t.mount(source, ",".join(filter(None, ["reconnect_delay=1,fast_io_fail_tmo=300", options])),
                             env={"SRPFS_DEMO_POWER_CUT": str(self.file)})

    def cut(self, seed=""):
        """All of it is lost, or, with a seed, half of the blocks. Written at once: it is looked at all the time."""
        draft = self.file.with_suffix(".new")
        draft.write_text(str(seed))
        draft.rename(self.file)
        self.is_cut()

    def is_cut(self):
        eventually(lambda: self.file.exists() and "in effect" in self.file.read_text(), "the power is cut")

    def back(self):
        self.file.unlink()
        eventually(lambda: value(self.mount.target / "state") == "running", "logged in again")


@test
def the_power_lever_works(t):
    power = Power(t, "demo:ram:1M,wce+ram:1M")
    old, new = pattern(65536, 1), pattern(65536, 2)
    with opened(power.mount.lun(0)) as one, opened(power.mount.lun(1)) as other:    # closing them would flush
        for handle in (one, other):
            os.pwrite(handle, old, 0)
            os.fsync(handle)
            os.pwrite(handle, new, 0)
        power.cut(7)
        power.back()
    blocks = read_bytes(power.mount.lun(0))[:65536]
    kept = [blocks[at:at + 512] == new[at:at + 512] for at in range(0, 65536, 512)]
    check(all(kept[at // 512] or blocks[at:at + 512] == old[at:at + 512] for at in range(0, 65536, 512)), "a block of neither")
    check(16 < sum(kept) < 112, f"{sum(kept)} of 128 blocks have survived")
    equal(read_bytes(power.mount.lun(1))[:65536], new, "the unit without a volatile cache")


@test
def a_loss_that_nobody_has_been_told_of_is_told_to_who_opens_next(t):
    power = Power(t)
    with opened(power.mount.path / "events", os.O_RDONLY | os.O_NONBLOCK) as events:
        with opened(power.mount.lun(0)) as handle:
            os.pwrite(handle, pattern(MIB, 1), 0)
            power.cut()
            power.back()
        # Closing it has flushed, and told nobody but the administrator.
        told = []

        def is_told():
            with contextlib.suppress(BlockingIOError):
                told.extend(json.loads(line) for line in os.read(events, 1 << 20).splitlines())
            return any(one["event"] == "writes_lost" and one["lun"] == "lun0" for one in told)
        eventually(is_told, "the event")
    for place in (power.mount.target, power.mount.target / "lun0.attr"):
        contains(value(place / "last_error"), "may be lost", f"last_error of {place.name}")
    with opened(power.mount.lun(0)) as handle:
        fails_with(errno.EIO, "fsync", lambda: os.fsync(handle))
        fails_with(0, "the second fsync", lambda: os.fsync(handle))


@test(intakes=BOTH)
def a_lost_cache_is_told_to_everybody_who_flushes_once(t):
    power = Power(t)
    lun = power.mount.lun(0)
    with opened(lun) as one, opened(lun) as other:
        os.pwrite(one, pattern(MIB, 1), 0)
        os.fsync(one)
        os.fsync(other)
        os.pwrite(one, pattern(MIB, 2), 0)
        power.cut()
        power.back()
        for handle, name in ((one, "writer"), (other, "other")):
            fails_with(errno.EIO, f"the {name}'s first fsync after the loss", lambda h=handle: os.fsync(h))
            fails_with(0, f"the {name}'s second fsync", lambda h=handle: os.fsync(h))
        with opened(lun) as late:
            fails_with(0, "fsync of who comes when others have been told", lambda: os.fsync(late))
        equal(os.pread(one, MIB, 0), pattern(MIB, 1), "what is on the unit: what was flushed")
        # Written again it stays.
        os.pwrite(other, pattern(MIB, 3), 0)
        os.fsync(other)
        power.cut()
        power.back()
        os.fsync(one)
        equal(os.pread(one, MIB, 0), pattern(MIB, 3), "what was flushed after the error")
    with opened(lun) as handle:
        os.pwrite(handle, pattern(MIB, 4), 0)
        os.fdatasync(handle)
        # Nothing is unflushed: a loss of nothing is no error.
        power.cut()
        power.back()
        fails_with(0, "fsync when nothing was lost", lambda: os.fsync(handle))
        equal(os.pread(handle, MIB, 0), pattern(MIB, 4), "what was flushed")


@test(intakes=BOTH)
def the_hole_before_a_durable_write_survives_a_power_cut(t):
    power = Power(t)
    lun = power.mount.lun(0)
    with opened(lun) as handle:
        os.pwrite(handle, pattern(4 * MIB, 1), 0)
        os.fsync(handle)
    with opened(lun, os.O_WRONLY | os.O_TRUNC | os.O_DSYNC) as handle:
        os.pwrite(handle, pattern(MIB, 2), MIB)
        os.pwrite(handle, pattern(4096, 3), 2 * MIB + 5000)
        power.cut()
        power.back()
    blocks = read_bytes(lun)[:4 * MIB]
    check(blocks[:MIB] == bytes(MIB), "what the first write left out is not zeros")
    check(blocks[MIB:2 * MIB] == pattern(MIB, 2), "the first write is lost")
    check(blocks[2 * MIB:2 * MIB + 5000] == bytes(5000), "what the second write left out is not zeros")
    check(blocks[2 * MIB + 5000:2 * MIB + 9096] == pattern(4096, 3), "the second write is lost")
    check(blocks[2 * MIB + 9096:] == pattern(4 * MIB, 1)[2 * MIB + 9096:], "what lies behind has changed")


@test(intakes=BOTH)
def fsync_by_another_path_makes_durable_what_was_written_by_this(t):
    power = Power(t)
    write_once(power.mount.path / "add_target", LOGIN + ",initiator_ext=2")
    other = power.mount.port / f"{TARGET}-0000000000000002" / "lun0"
    eventually(other.exists, "the second path")
    with opened(power.mount.lun(0)) as writer:      # closing it would flush
        os.pwrite(writer, pattern(MIB, 1), 0)
        with opened(other) as handle:
            os.fsync(handle)
        power.cut()
        power.back()
    check(read_bytes(power.mount.lun(0))[:MIB] == pattern(MIB, 1), "what was flushed by the other path is lost")


class Writer:
    """Writes blocks that tell their version, flushes now and then, and knows what has to be there."""

    def __init__(self, path, first, count, seed):
        self.path, self.first, self.count = path, first, count
        self.written = [0] * count          # newest version that was acknowledged, or may have been written
        self.durable = [0] * count          # of those, what a successful fsync has covered
        self.version = seed << 20
        self.flushes = self.lost = 0
        self.stop = threading.Event()

    def block(self, index, version):
        return struct.pack("<QQ", self.first + index, version) * (BLOCK // 16)

    def run(self):
        state = self.version
        with opened(self.path) as handle:
            while not self.stop.is_set():
                for _ in range(16):
                    state = (state * 1103515245 + 12345) & 0x7fffffff
                    index = (state >> 8) % self.count
                    self.version += 1
                    self.written[index] = self.version
                    equal(os.pwrite(handle, self.block(index, self.version), (self.first + index) * BLOCK), BLOCK, "bytes written")
                before = list(self.written)
                got = errno_of(lambda: os.fsync(handle))
                check(got in (0, errno.EIO), f"fsync: {errno.errorcode.get(got, got)}")
                if got == 0:
                    self.durable = before
                    self.flushes += 1
                else:
                    self.lost += 1
                    # What is there now counts: whoever is told has to look.
                    self.written = [self.version_of(handle, index) for index in range(self.count)]
                    self.durable = [min(pair) for pair in zip(self.durable, self.written)]

    def version_of(self, handle, index):
        data = os.pread(handle, BLOCK, (self.first + index) * BLOCK)
        number, version = struct.unpack_from("<QQ", data)
        versions = {struct.unpack_from("<Q", data, at + 8)[0] for at in range(0, BLOCK, 512)}
        check(version == 0 or number == self.first + index, f"block {self.first + index} has what belongs to block {number}")
        # The unit's blocks are of 512 bytes, and each of them survives or not.
        oldest = min(versions)
        check(oldest >= self.durable[index], f"block {self.first + index} is of version {oldest}; {self.durable[index]} was flushed")
        check(max(versions) <= self.version, f"block {self.first + index} is of version {max(versions)}, which nobody has written")
        return oldest


@test(intakes=BOTH)
def what_fsync_has_promised_survives_power_cuts_under_load(t):
    what_was_flushed_is_there(t, Power(t, options="park=16M"))


@test(intakes=BOTH)
def what_fsync_has_promised_survives_power_cuts_with_several_reactors(t):
    # The second target's home reads requests for the first one as well.
    what_was_flushed_is_there(t, Power(t, "demo:ram:16M,wce++ram:1M", "park=16M,reactors=3,ch_count=2"))


class Writers:
    """Four of them, in the background, side by side from a block of the file on."""

    def __init__(self, lun, first=0):
        self.lun = lun
        self.all = [Writer(lun, first + 512 * number, 512, number + 1) for number in range(4)]
        self.threads = [Background(writer.run) for writer in self.all]

    def have_flushed_again(self):
        counts = [writer.flushes for writer in self.all]
        eventually(lambda: all(writer.flushes >= count + 3 or not thread.is_running() for writer, count, thread in zip(self.all, counts, self.threads)),
                   "all writers have flushed again")

    def end(self):
        """They have been told of a loss, and what they had flushed is there."""
        for writer in self.all:
            writer.stop.set()
        for thread in self.threads:
            thread.wait("a writer")
        check(sum(writer.lost for writer in self.all) > 0, "no loss was told")
        with opened(self.lun) as handle:
            os.fsync(handle)
            for writer in self.all:
                for index in range(writer.count):
                    writer.version_of(handle, index)


def what_was_flushed_is_there(t, power):
    writers = Writers(power.mount.lun(0))
    for seed in ("", 1, 2, ""):
        writers.have_flushed_again()
        power.cut(seed)
        power.back()
    writers.end()


# fio keeps a list of what was acknowledged. With O_DSYNC that is what has to be there. The writers' histories and fio's list judge the same power cut.
@test(intakes=BOTH)
def fio_finds_what_it_was_told_is_durable(t):
    needs("fio")
    power = Power(t, "demo:ram:80M,wce")
    job = ("fio", "--name=power", f"--filename={power.mount.lun(0)}", "--allow_file_create=0", "--rw=randwrite", "--bs=4k", "--size=64m",
           "--ioengine=libaio", "--direct=1", "--iodepth=8", "--sync=dsync", "--randrepeat=1", "--verify=crc32c", "--verify_fatal=1")
    ready, cut = t.path("ready"), t.path("draft")
    cut.write_text("3")
    # fio notes what is done, and then has the power cut.
    trigger = f"mv '{cut}' '{power.file}'"
    with subprocess.Popen([*job, "--do_verify=0", "--rate_iops=1000", "--verify_state_save=1", f"--trigger-file={ready}",
                           f"--trigger={trigger}"], cwd=t.dir, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True) as fio:
        eventually(lambda: power.mount.lun_stats(0)["writes"] > 500, "fio writes")
        writers = Writers(power.mount.lun(0), 64 * MIB // BLOCK)
        writers.have_flushed_again()
        ready.touch()
        power.is_cut()
        power.back()
        with contextlib.suppress(subprocess.TimeoutExpired):
            fio.wait(10)
        fio.send_signal(signal.SIGINT)
        said = fio.communicate(timeout=PATIENCE)[0]
    states = sorted(path.name for path in t.dir.glob("*.state"))
    check(states, f"fio has left no state: {said[-400:]}")
    done = run(*job, "--verify_only=1", "--verify_state_load=1", cwd=t.dir)
    check(done.returncode == 0 and "verify:" not in done.stderr, f"fio --verify_state_load: {(done.stderr + done.stdout)[:600]}")
    found = re.search(r"issued rwts: total=(\d+)", done.stdout)
    check(found and int(found[1]) >= 500, f"fio has verified next to nothing: {done.stdout[-600:]}")
    writers.end()
