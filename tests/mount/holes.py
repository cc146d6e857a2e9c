# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Truncation, holes and zeroed ranges of LUN files: by system call, by the tools that copy sparse files, and through loop devices."""

import ctypes
import errno
import json
import os
import random
import signal
import subprocess

from harness import (BOTH, LOGIN, PATIENCE, TARGET, Background, Skip, check, equal, errno_of, eventually, fails_with, needs, opened, pattern,
                     promised, read_bytes, run, succeeds, test, unmount, wait_gone, write_once)

from trouble import Stuck

MIB = 1 << 20
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, COLLAPSE_RANGE = 1, 2, 16, 8
OLD = b"\xaa"  # what was on the device before

libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


def fallocate(handle, mode, offset, length):
    if libc.fallocate(handle, mode, offset, length) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def fill(lun, size):
    with opened(lun) as handle:
        for place in range(0, size, MIB):
            equal(os.pwrite(handle, OLD * MIB, place), MIB, "bytes written")


@test(intakes=BOTH)
def a_truncated_lun_is_written_like_a_file(t):
    lun, size = t.mount("demo:ram:8M").lun(0), 8 * MIB
    numbers = random.Random(3)
    for turn in range(12):
        fill(lun, size)
        plain = t.path(f"file{turn}")
        flags = os.O_RDWR | (os.O_TRUNC | os.O_CREAT if turn % 2 else os.O_CREAT)
        with opened(lun, flags & ~os.O_CREAT) as device, open(plain, "w+b", buffering=0) as file:
            if not turn % 2:
                os.ftruncate(device, 0)
            file = file.fileno()
            for step in range(10):
                offset = numbers.randrange(size - 300000) // numbers.choice((1, 512, 4096)) * numbers.choice((1, 1, 512))
                offset, length = min(offset, size - 300000), numbers.randrange(1, 300000)
                what = numbers.randrange(6)
                for handle in (device, file):
                    if what == 0:
                        os.ftruncate(handle, offset)
                    elif what == 1:
                        fallocate(handle, ZERO_RANGE | (KEEP_SIZE if step % 2 else 0), offset, length)
                    elif what == 2:
                        fallocate(handle, PUNCH_HOLE | KEEP_SIZE, offset, length)
                    else:
                        equal(os.pwrite(handle, pattern(length, step), offset), length, "bytes written")
            equal(os.fstat(device).st_size, size, "size of the device")
            end = os.fstat(file).st_size
            check(os.pread(file, end, 0) == b"".join(os.pread(device, MIB, place) for place in range(0, end, MIB))[:end],
                  f"turn {turn}: the device differs from a file within its {end} bytes")


class Model:
    """What a device that is truncated by some of its users has to contain (user interface 6)."""

    def __init__(self, size):
        self.size = size
        self.content = bytearray(OLD * size)
        self.handles = {}                             # open ones: [end, what has been written beyond it] or None

    def write(self, handle, offset, data):
        self._fill_gap(handle, offset)
        self._put(offset, data)
        self._advance(handle, offset + len(data))

    def truncate(self, handle, end):
        state = self.handles[handle]
        if state and end > state[0]:
            self._fill_gap(handle, end)
            self._advance(handle, end)
        else:
            self.handles[handle] = [end, bytearray(self.size)]

    def zero(self, handle, offset, length, keeps_size):
        state = self.handles[handle]
        grows = bool(state) and not keeps_size and state[0] < offset + length
        if grows:
            self._fill_gap(handle, offset)
        self._put(offset, bytes(length))
        if grows:
            self._advance(handle, offset + length)

    def allocate(self, handle, offset, length):
        self._fill_gap(handle, offset + length)
        self._advance(handle, offset + length)

    def _put(self, offset, data):
        self.content[offset:offset + len(data)] = data
        for state in filter(None, self.handles.values()):
            state[1][offset:offset + len(data)] = b"\1" * len(data)

    def _fill_gap(self, handle, end):
        state = self.handles[handle]
        place = state[1].find(0, state[0], end) if state else -1
        while place >= 0:
            stop = state[1].find(1, place, end)
            stop = end if stop < 0 else stop
            self.content[place:stop] = bytes(stop - place)
            place = state[1].find(0, stop, end)

    def _advance(self, handle, end):
        state = self.handles[handle]
        if state:
            state[0] = max(state[0], end)


# As fsx does it, with several handles. SRPFS_TESTS_STEPS and SRPFS_TESTS_SEED make it longer and another one.
@test(intakes=BOTH)
def whatever_several_handles_do_the_content_is_that_of_a_model(t):
    steps, seed = int(os.environ.get("SRPFS_TESTS_STEPS", "400")), int(os.environ.get("SRPFS_TESTS_SEED", "1"))
    mount = t.mount("demo:ram:1M+ram:1M,bs=4096,wce,thin")
    for number in (0, 1):
        exercise(mount.lun(number), MIB, steps, random.Random(seed + number), f"seed {seed}, lun{number}")


def exercise(lun, size, steps, numbers, name):
    fill(lun, size)
    model = Model(size)

    def open_another():
        truncates = numbers.randrange(4) == 0
        handle = os.open(lun, os.O_RDWR | (os.O_TRUNC if truncates else 0) | numbers.choice((0, 0, os.O_DSYNC)))
        model.handles[handle] = None
        if truncates:
            model.truncate(handle, 0)

    def compare(handle, offset, length, what):
        got = b"".join(os.pread(handle, min(MIB, offset + length - place), place) for place in range(offset, min(size, offset + length), MIB))
        wanted = model.content[offset:offset + length]
        if got != wanted:
            at = next((place for place, (one, other) in enumerate(zip(got, wanted)) if one != other), min(len(got), len(wanted)))
            check(False, f"{name}, {what}: byte {offset + at} differs ({len(got)} bytes of {len(wanted)})")

    for step in range(steps):
        if len(model.handles) < 2 or (len(model.handles) < 5 and numbers.randrange(12) == 0):
            open_another()
        handle = numbers.choice(list(model.handles))
        align = numbers.choice((1, 1, 512, 4096))
        length = max(align, numbers.choice((1, 100, 512, 4096, 65536, 200000)) * numbers.randrange(1, 3) // align * align)
        offset = numbers.randrange(size - length + 1) // align * align
        what = numbers.choice(("write", "write", "write", "read", "read", "truncate", "truncate", "punch", "zero", "zero and grow", "allocate", "fsync",
                               "close", "by name"))
        if what == "write":
            data = pattern(length, step)
            equal(os.pwrite(handle, data, offset), length, f"{name}, step {step}: bytes written")
            model.write(handle, offset, data)
        elif what == "read":
            compare(handle, offset, length, f"step {step}, read")
        elif what == "truncate":
            os.ftruncate(handle, offset)
            model.truncate(handle, offset)
        elif what == "by name":
            os.truncate(lun, offset)                  # it is that of who has opened it last here
            model.truncate(list(model.handles)[-1], offset)
        elif what in ("punch", "zero"):
            fallocate(handle, KEEP_SIZE | (PUNCH_HOLE if what == "punch" else ZERO_RANGE), offset, length)
            model.zero(handle, offset, length, True)
        elif what == "zero and grow":
            fallocate(handle, ZERO_RANGE, offset, length)
            model.zero(handle, offset, length, False)
        elif what == "allocate":
            fallocate(handle, 0, offset, length)
            model.allocate(handle, offset, length)
        elif what == "fsync":
            os.fsync(handle)
        elif what == "close" and numbers.randrange(2) == 0:
            os.close(handle)
            del model.handles[handle]
        if step % 50 == 49 and model.handles:
            compare(next(iter(model.handles)), 0, size, f"step {step} ({what}), all of it")
    for handle in model.handles:
        os.close(handle)
    check(read_bytes(lun) == model.content, f"{name}: the content in the end")


@test
def nothing_beyond_the_logical_end_is_touched(t):
    lun, size = t.mount("demo:ram:4M").lun(0), 4 * MIB
    fill(lun, size)
    succeeds(f"head -c 1000000 /dev/zero > '{lun}'")
    check(read_bytes(lun) == bytes(1000000) + OLD * (size - 1000000), "what a shell's > has left")
    succeeds(f": > '{lun}'; printf abc | dd of='{lun}' status=none; printf xyz | dd of='{lun}' bs=1 seek=1000 status=none; truncate -s 5 '{lun}'")
    check(read_bytes(lun) == b"abc" + bytes(997) + b"xyz" + bytes(1000000 - 1003) + OLD * (size - 1000000), "what dd has left")
    with opened(lun, os.O_RDWR | os.O_TRUNC) as handle:
        for end in (0, 1, 4096, 5, 4096):
            os.ftruncate(handle, end)
            equal(os.fstat(handle).st_size, size, f"size after ftruncate to {end}")
        fails_with(errno.EFBIG, "ftruncate beyond the end", lambda: os.ftruncate(handle, size + 1))
        equal(os.pwrite(handle, b"z", size - 1), 1, "write at the end afterwards")
    check(read_bytes(lun) == bytes(size - 1) + b"z", "the whole device")
    os.truncate(lun, 17)
    fails_with(errno.EFBIG, "truncate beyond the end", lambda: os.truncate(lun, 1 << 40))
    equal((lun.stat().st_size, lun.stat().st_blocks), (size, size // 512), "size and blocks")


@test(intakes=BOTH)
def another_path_to_a_truncated_lun_keeps_what_it_has_written(t):
    mount, size = t.mount("demo:ram:4M", "reactors=2"), 4 * MIB
    write_once(mount.path / "add_target", LOGIN + ",initiator_ext=2")
    paths = (mount.lun(0), mount.port / (TARGET + "-0000000000000002") / "lun0")
    for lun, other in (paths, paths[::-1]):
        fill(lun, size)
        with opened(other) as theirs, opened(lun, os.O_RDWR | os.O_TRUNC) as handle:
            equal(os.pwrite(theirs, b"other", MIB), 5, "bytes written")
            fallocate(theirs, ZERO_RANGE | KEEP_SIZE, 3 * MIB, 4096)
            equal(os.pwrite(handle, b"handle", 2 * MIB), 6, "bytes written")
        expected = bytearray(OLD * size)
        expected[:2 * MIB] = bytes(2 * MIB)
        expected[MIB:MIB + 5] = b"other"
        expected[2 * MIB:2 * MIB + 6] = b"handle"
        expected[3 * MIB:3 * MIB + 4096] = bytes(4096)
        for path in paths:
            check(read_bytes(path) == expected, f"{path.parent.name} differs")


@test(seconds=60)
def more_than_is_remembered_of_what_others_write_is_never_zeroed(t):
    """Every second block, by a program beside a truncated file that stays open: what is remembered of that has a bound."""
    needs("fio")
    size = 300 * MIB
    mount = t.mount_in_foreground("demo:ram:300M", ("-f",))
    lun = mount.lun(0)
    fill(lun, size)
    with opened(lun, os.O_RDWR | os.O_TRUNC) as handle:
        equal(os.pwrite(handle, b"begin", 0), 5, "bytes written")
        succeeds("fio", "--name=write", f"--filename={lun}", "--ioengine=libaio", "--direct=1", "--rw=write:512", "--bs=512", f"--offset={MIB}",
                 "--size=280M", "--io_size=140M", "--iodepth=32", "--buffer_pattern=0xdeadbeef", "--overwrite=1", "--allow_file_create=0", cwd=t.dir)
        fails_with(errno.EIO, "a write behind holes that are not known any more", lambda: os.pwrite(handle, b"behind", 290 * MIB))
        check("where others have written in more than" in mount.log_file.read_text(), "nothing is logged")
        equal(os.pwrite(handle, b"within", 2 * MIB), 6, "bytes written")
        os.ftruncate(handle, 2 * MIB)
        equal(os.pwrite(handle, b"behind", 290 * MIB), 6, "bytes written")
    data = read_bytes(lun)
    check(data[:8] == b"begin\0\0\0" and not any(data[8:MIB]), "the holes before what others have written are not zeros")
    check(data[MIB:MIB + 1024] == bytes.fromhex("deadbeef") * 128 + bytes(512), "what others have written is gone, or what lies between is no hole")
    check(not any(data[2 * MIB:290 * MIB]), "a file that was truncated has what was there before")


@test
def several_writers_of_a_truncated_lun_keep_what_each_has_written(t):
    lun, size = t.mount("demo:ram:4M").lun(0), 4 * MIB
    fill(lun, size)
    with opened(lun) as other, opened(lun, os.O_RDWR | os.O_TRUNC) as handle, opened(lun, os.O_WRONLY | os.O_APPEND) as appender:
        equal(os.pwrite(other, b"other", MIB), 5, "bytes written")
        equal(os.pwrite(handle, b"handle", 2 * MIB), 6, "bytes written")
        # The kernel appends at the size it knows, and would believe that the device has grown.
        fails_with(errno.ENOSPC, "appending", lambda: os.write(appender, b"x"))
        os.ftruncate(appender, 100)
        fails_with(errno.ENOSPC, "appending to a truncated file", lambda: os.write(appender, b"x"))
    expected = bytearray(OLD * size)
    expected[:2 * MIB] = bytes(2 * MIB)
    expected[MIB:MIB + 5] = b"other"
    expected[2 * MIB:2 * MIB + 6] = b"handle"
    check(read_bytes(lun) == expected, "the device differs")


@test(intakes=BOTH)
def writes_that_wait_for_a_hole_take_no_more_memory_than_they_may(t):
    """With park=1M there is room for the write behind the hole and three of those that wait for it; who came last fails for the next one."""
    size, piece, writers = 8 * MIB, MIB // 4, 9
    end = 4 * MIB + 7  # of the hole: a part of a block is read and written, which is held; WRITE SAME is not
    stuck = Stuck(t, "demo:ram:8M", "park=1M")
    lun = stuck.mount.lun(0)
    fill(lun, size)
    with opened(lun) as handle:
        os.ftruncate(handle, 0)
        stuck.hold()
        behind = Background(os.pwrite, handle, pattern(4096, 99), end)
        eventually(lambda: stuck.mount.requests() == 1, "the write behind the hole")
        waiting = [Background(errno_of, lambda place=place: os.pwrite(handle, pattern(piece, place), place * piece)) for place in range(writers)]
        eventually(lambda: sum(one.is_running() for one in waiting) == 3, "all but three writers have failed", seconds=10)
        lost = {place for place, one in enumerate(waiting) if not one.is_running()}
        equal({waiting[place].wait("who has failed") for place in lost}, {errno.EIO}, "what they were told")
        equal(stuck.mount.requests(), 4, "requests that wait")
        check(behind.is_running(), "the write behind the hole was answered")
        stuck.go_on()
        equal(behind.wait("the write behind the hole"), 4096, "bytes written")
        for place in set(range(writers)) - lost:
            equal(waiting[place].wait("who has waited"), 0, "error of a write that had room")
    expected = bytearray(OLD * size)
    expected[:end + 4096] = bytes(end) + pattern(4096, 99)
    for place in set(range(writers)) - lost:
        expected[place * piece:(place + 1) * piece] = pattern(piece, place)
    check(read_bytes(lun, size) == expected, "the content differs")


@test
def truncate_device_changes_nothing_and_deny_refuses(t):
    mount = t.mount("demo:ram:1M", "truncate=device")
    data = pattern(MIB, 6)
    mount.lun(0).write_bytes(data)
    with opened(mount.lun(0), os.O_RDWR | os.O_TRUNC) as handle:
        for end in (0, 1, 4096, MIB):
            os.ftruncate(handle, end)
        fails_with(errno.EFBIG, "ftruncate beyond the end", lambda: os.ftruncate(handle, MIB + 1))
        equal(os.pwrite(handle, b"z", 5000), 1, "write beyond where a file would end")
    check(read_bytes(mount.lun(0)) == data[:5000] + b"z" + data[5001:], "with truncate=device")
    mount.umount()
    lun = t.mount("demo:ram:1M", "truncate=deny").lun(0)
    equal(errno_of(lambda: os.open(lun, os.O_RDWR | os.O_TRUNC)), errno.EPERM, "open with O_TRUNC")
    equal(errno_of(lambda: os.truncate(lun, 5)), errno.EPERM, "truncate")
    with opened(lun) as handle:
        equal(os.pwrite(handle, data[:100], 7), 100, "bytes written")
    equal(read_bytes(lun)[7:107], data[:100], "data")


# Without the ring tests/tools does it, with more tools.
@test(intakes=("io_uring",), seconds=180)
def sparse_copies_are_exact(t):
    needs("qemu-img", "rsync")
    mount, size = t.mount("demo:ram:12M+ram:12M,thin,wce,bs=4096"), 12 * MIB
    image = t.path("image")
    for name, pieces in (("a hole at the end", (0, MIB)), ("a hole in the middle", (0, 7 * MIB)), ("holes everywhere", (123 * 4096, 5 * MIB, 8 * MIB))):
        with open(image, "wb") as file:
            for place in pieces:
                file.seek(place)
                file.write(pattern(100000, place))
            file.truncate(9 * MIB + (0 if name == "a hole in the middle" else 1000))
        wanted = image.read_bytes() + OLD * (size - image.stat().st_size)
        for number in (0, 1):
            lun = mount.lun(number)
            for command in ("cp {image} {lun}", "cp --sparse=always {image} {lun}", "cp --sparse=never {image} {lun}",
                            "rsync --inplace {image} {lun}", "rsync -S --inplace {image} {lun}", "cat {image} > {lun}",
                            "dd if={image} of={lun} bs=64k status=none", "tar -C {directory} -cSf - image | tar -xOf - > {lun}"):
                fill(lun, size)
                succeeds(command.format(image=f"'{image}'", lun=f"'{lun}'", directory=f"'{image.parent}'"))
                check(read_bytes(lun) == wanted, f"{name}, lun{number}: not exact after {command}")
            # These know images, which have whole sectors.
            for options in ("", "-n", "-S 4k -W -m 8", "-n -t none -W"):
                fill(lun, size)
                succeeds(f"qemu-img convert {options} -f raw -O raw '{image}' '{lun}'")
                length = image.stat().st_size
                check(read_bytes(lun)[:length] == wanted[:length], f"{name}, lun{number}: not exact after qemu-img convert {options}")


@test(intakes=BOTH)
def holes_and_zeroed_ranges_read_as_zeros(t):
    mount, size = t.mount("demo:ram:4M+ram:4M,thin+ram:4M,bs=4096,thin"), 4 * MIB
    for number in range(3):
        lun = mount.lun(number)
        fill(lun, size)
        expected = bytearray(OLD * size)
        with opened(lun) as handle:
            for mode, offset, length in ((PUNCH_HOLE | KEEP_SIZE, 4096, 8192), (PUNCH_HOLE | KEEP_SIZE, 100001, 1000000), (ZERO_RANGE, MIB + 1, 5),
                                         (ZERO_RANGE | KEEP_SIZE, 2 * MIB, MIB), (PUNCH_HOLE | KEEP_SIZE, size - 1000, 1 << 40), (0, 5, 10), (KEEP_SIZE, 5, 10)):
                fallocate(handle, mode, offset, length)
                if mode & (PUNCH_HOLE | ZERO_RANGE):
                    end = min(size, offset + length)
                    expected[offset:end] = bytes(end - offset)
            os.posix_fallocate(handle, 0, size)
            fails_with(errno.EFBIG, "allocating beyond the end", lambda: os.posix_fallocate(handle, 0, size + 1))
            fails_with(errno.EFBIG, "zeroing beyond the end", lambda: fallocate(handle, ZERO_RANGE, size - 4096, 8192))
            fails_with(errno.EOPNOTSUPP, "collapsing a range", lambda: fallocate(handle, COLLAPSE_RANGE, 0, 4096))
            os.fsync(handle)
        check(read_bytes(lun) == expected, f"lun{number} differs")
        equal(lun.stat().st_size, size, "size")
    with opened(mount.lun(0), os.O_RDONLY) as handle:
        fails_with(errno.EBADF, "punching a hole through a file that is open for reading", lambda: fallocate(handle, PUNCH_HOLE | KEEP_SIZE, 0, 4096))
    succeeds("fallocate", "--punch-hole", "-o", "0", "-l", "4096", mount.lun(0))
    succeeds("fallocate", "--zero-range", "-o", "8192", "-l", "512", mount.lun(0))


def extents(path):
    """(data or hole, begin, end) one after the other, as lseek(2) tells them."""
    found, place = [], 0
    with opened(path, os.O_RDONLY) as handle:
        size = os.fstat(handle).st_size
        while place < size:
            try:
                data = os.lseek(handle, place, os.SEEK_DATA)
            except OSError as error:
                equal(error.errno, errno.ENXIO, f"SEEK_DATA at {place}")
                data = size
            if data > place:
                found.append(("hole", place, data))
            if data < size:
                place = os.lseek(handle, data, os.SEEK_HOLE)
                check(place > data, f"a hole at {data}, where data is")
                found.append(("data", data, place))
            else:
                place = size
    return found


def holes_are_zeros(path):
    with opened(path, os.O_RDONLY) as handle:
        for kind, begin, end in extents(path):
            if kind == "hole":
                for place in range(begin, end, MIB):
                    length = min(MIB, end - place)
                    check(os.pread(handle, length, place) == bytes(length), f"what is said to be a hole at {place} does not read as zeros")


@test(intakes=BOTH)
def holes_of_thin_units_are_told(t):
    image = t.path("image")
    with open(image, "wb") as file:
        file.truncate(16 * MIB)
    mount = t.mount(f"demo:ram:16M,thin+ram:16M,thin,bs=4096+file:{image},thin+null:16M,thin+ram:16M")
    size = 16 * MIB
    for number in (0, 1, 2):
        lun = mount.lun(number)
        equal(extents(lun), [("hole", 0, size)], f"extents of lun{number}, which is new")
        with opened(lun) as handle:
            fails_with(errno.ENXIO, "SEEK_DATA in a hole up to the end", lambda h=handle: os.lseek(h, 5, os.SEEK_DATA))
            fails_with(errno.ENXIO, "SEEK_DATA at the end", lambda h=handle: os.lseek(h, size, os.SEEK_DATA))
            fails_with(errno.ENXIO, "SEEK_HOLE at the end", lambda h=handle: os.lseek(h, size, os.SEEK_HOLE))
            equal(os.lseek(handle, 5, os.SEEK_HOLE), 5, "SEEK_HOLE in a hole")
            os.pwrite(handle, OLD * MIB, 4 * MIB)
            os.pwrite(handle, b"x", 10 * MIB + 5)
            os.pwrite(handle, OLD * 4096, size - 4096)
            os.fsync(handle)
            wanted = [("hole", 0, 4 * MIB), ("data", 4 * MIB, 5 * MIB), ("hole", 5 * MIB, 10 * MIB), ("data", 10 * MIB, 10 * MIB + 4096),
                      ("hole", 10 * MIB + 4096, size - 4096), ("data", size - 4096, size)]
            equal(extents(lun), wanted, f"extents of lun{number}")
            equal(os.lseek(handle, 4 * MIB + 777, os.SEEK_DATA), 4 * MIB + 777, "SEEK_DATA inside data")
            equal(os.lseek(handle, 4 * MIB + 777, os.SEEK_HOLE), 5 * MIB, "SEEK_HOLE inside data")
            equal(os.lseek(handle, 100, os.SEEK_DATA), 4 * MIB, "SEEK_DATA before data")
            fallocate(handle, PUNCH_HOLE | KEEP_SIZE, 4 * MIB + 4096, MIB // 2)
            fallocate(handle, PUNCH_HOLE | KEEP_SIZE, 10 * MIB, MIB)
            fallocate(handle, PUNCH_HOLE | KEEP_SIZE, size - 100, 100)
        equal(extents(lun), [("hole", 0, 4 * MIB), ("data", 4 * MIB, 4 * MIB + 4096), ("hole", 4 * MIB + 4096, 4 * MIB + 4096 + MIB // 2),
                             ("data", 4 * MIB + 4096 + MIB // 2, 5 * MIB), ("hole", 5 * MIB, size - 4096), ("data", size - 4096, size)],
              f"extents of lun{number} with holes punched")
        holes_are_zeros(lun)
    equal(extents(mount.lun(3)), [("hole", 0, size)], "extents of a null unit")
    equal(extents(mount.lun(4)), [("data", 0, size)], "extents of a unit without provisioning")


@test(intakes=BOTH)
def copies_of_thin_units_are_sparse_and_exact(t):
    lun, size = t.mount("demo:ram:64M,thin+ram:64M,thin", "reactors=2").lun(0), 64 * MIB
    numbers = random.Random(8)
    model = bytearray(size)
    with opened(lun) as handle:
        for _ in range(40):
            place, length = numbers.randrange(size - 300000), numbers.randrange(1, 300000)
            if numbers.randrange(3):
                model[place:place + length] = pattern(length, place)
                equal(os.pwrite(handle, model[place:place + length], place), length, "bytes written")
            else:
                model[place:place + length] = bytes(length)
                fallocate(handle, PUNCH_HOLE | KEEP_SIZE, place, length)
    holes_are_zeros(lun)
    check(len(extents(lun)) > 10, "hardly any holes are told")
    copy = t.path("copy")
    commands = ["cp --sparse=auto {lun} {copy}", "tar -C {directory} -cSf - {name} | tar -xOf - > {copy}"]
    if not run("qemu-img", "--version").returncode:
        commands.append("qemu-img convert -f raw -O raw {lun} {copy}")
    for command in commands:
        succeeds(f"rm -f '{copy}'; " + command.format(lun=f"'{lun}'", copy=f"'{copy}'", directory=f"'{lun.parent}'", name=lun.name))
        check(copy.read_bytes() == model, f"not exact: {command}")
        if "tar" not in command:
            check(copy.stat().st_blocks * 512 < size // 2, f"not sparse: {command}: {copy.stat().st_blocks} blocks")
    if len(commands) > 2:
        told = json.loads(succeeds("qemu-img", "map", "-f", "raw", "--output=json", lun))
        equal([("data" if one["data"] else "hole", one["start"], one["start"] + one["length"]) for one in told], extents(lun), "qemu-img map")


@test(intakes=BOTH)
def an_interrupted_zeroing_ends_at_once_and_later_writes_stay(t):
    mount, size = t.mount("demo:ram:256M+ram:256M,thin,bs=4096"), 256 * MIB
    for number in (0, 1):
        lun = mount.lun(number)
        for turn in range(5):
            with opened(lun) as handle:
                os.pwrite(handle, OLD * 512, 0)
            with subprocess.Popen(["fallocate", "-z", "-o", "512", "-l", str(size - 512), lun], stderr=subprocess.DEVNULL) as process:
                eventually(lambda p=process: mount.requests() > 0 or p.poll() is not None, "zeroing", pause=0.001)
                process.send_signal(signal.SIGINT)
                with promised(2, "the end of a zeroing after SIGINT"):
                    process.wait(PATIENCE)
            check(process.returncode in (0, -signal.SIGINT), f"fallocate ends with {process.returncode}")
            with opened(lun) as handle:
                for place in (1000, 5 * MIB + turn, 200 * MIB):
                    equal(os.pwrite(handle, pattern(5000, turn), place), 5000, "bytes written")
                os.fsync(handle)
                eventually(lambda: mount.requests() == 0, "nothing waits")
                for place in (1000, 5 * MIB + turn, 200 * MIB):
                    check(os.pread(handle, 5000, place) == pattern(5000, turn), f"turn {turn}: what was written at {place} after the zeroing is gone")
                check(os.pread(handle, 512, 0) == OLD * 512, "zeroed before where it was to begin")


@test(intakes=BOTH)
def reads_and_other_units_go_on_beside_a_long_zeroing(t):
    mount, size = t.mount("demo:null:4096T+ram:1M"), 4096 << 40  # minutes: it is ended by what is judged, on a slow machine too
    counts = {"reads": 0, "writes beside": 0}
    with opened(mount.lun(0)) as handle, opened(mount.lun(1)) as other:
        with subprocess.Popen(["fallocate", "-z", "-o", "0", "-l", str(size), mount.lun(0)], stderr=subprocess.DEVNULL) as process:
            eventually(lambda: mount.requests() > 0 or process.poll() is not None, "zeroing", pause=0.001)
            while process.poll() is None:
                with promised(2, "a read and a write beside a zeroing"):
                    os.pread(handle, 4096, 1 << 30)
                    counts["reads"] += process.poll() is None
                    equal(os.pwrite(other, pattern(4096, counts["reads"] % 99), 0), 4096, "bytes written")
                    counts["writes beside"] += process.poll() is None
                if min(counts.values()) >= 100:
                    process.send_signal(signal.SIGINT)
                    with promised(2, "the end of a zeroing after SIGINT"):
                        process.wait(PATIENCE)
    check(min(counts.values()) >= 100, f"while {size >> 40} TiB were zeroed there were only {counts}")


def copied_so_far(data, source, old):
    """What nobody wrote, of a copy that may have ended anywhere: the first block that is neither old, of the source nor zeros."""
    for place in range(0, len(source), 512):
        if data[place:place + 512] not in (old * 512, source[place:place + 512], bytes(512)):
            return place
    return None


@test(intakes=BOTH)
def a_killed_srpfs_leaves_what_is_beyond_a_copy_alone(t):
    size, image_bytes = 64 * MIB, 32 * MIB
    backing, image = t.path("backing"), t.path("sparse.img")
    with open(image, "wb") as file:
        for place in range(0, image_bytes, 3 * MIB):
            file.seek(place + 333)
            file.write(pattern(MIB, place >> 20))
        file.truncate(image_bytes)
    source = image.read_bytes()
    interrupted = 0
    for turn in range(6):
        backing.write_bytes(OLD * size)
        mount = t.mount(f"demo:file:{backing}")
        lun = mount.lun(0)
        with subprocess.Popen(["cp", "--sparse=always", image, lun], stderr=subprocess.DEVNULL) as process:
            wanted = turn * 4
            eventually(lambda: mount.lun_stats(0)["writes"] >= wanted or process.poll() is not None, "cp writes", pause=0.0005)
            os.kill(mount.pid, signal.SIGKILL)
            with promised(5, "the end of cp when srpfs is killed"):
                process.wait(PATIENCE)
            interrupted += process.returncode != 0
        wait_gone(mount.pid)
        unmount(mount.path)
        mount.pid_file.unlink()
        data = backing.read_bytes()
        equal(copied_so_far(data, source, OLD), None, f"turn {turn}: a place with what nobody wrote")
        check(data[image_bytes:] == OLD * (size - image_bytes), f"turn {turn}: what is beyond the image was changed")
        mount = t.mount(f"demo:file:{backing}")
        succeeds("cp", "--sparse=always", image, mount.lun(0))
        with opened(mount.lun(0)) as handle:
            os.fsync(handle)
        mount.umount()
        data = backing.read_bytes()
        check(data[:image_bytes] == source and data[image_bytes:] == OLD * (size - image_bytes), f"turn {turn}: the copy made again differs")
    check(interrupted > 0, "no copy was interrupted")


@test
def writers_that_truncate_and_zero_at_once_never_show_what_nobody_wrote(t):
    lun, size, rounds = t.mount("demo:ram:8M,thin,bs=4096").lun(0), 8 * MIB, 300
    fill(lun, size)

    def work(number):
        numbers = random.Random(number)
        part = size // 4
        handle = os.open(lun, os.O_RDWR | os.O_TRUNC)
        for _ in range(rounds):
            place, length, letter = number * part + numbers.randrange(part - 60000), numbers.randrange(1, 60000), numbers.randrange(1, 0xa0)
            what = numbers.randrange(8)
            if what == 0:
                os.ftruncate(handle, numbers.randrange(size))
            elif what == 1:
                os.posix_fallocate(handle, place, length)
            elif what == 2:
                fallocate(handle, ZERO_RANGE | numbers.choice((0, KEEP_SIZE)), place, length)
            elif what == 3:
                fallocate(handle, PUNCH_HOLE | KEEP_SIZE, place, length)
            elif what == 4:
                os.close(handle)
                handle = os.open(lun, os.O_RDWR | os.O_TRUNC)
            else:
                equal(os.pwrite(handle, bytes([letter]) * length, place), length, "bytes written")
                # Nobody else writes here; others may make zeros of it.
                found = set(os.pread(handle, length, place))
                check(found <= {0, letter}, f"writer {number} reads {sorted(found)} where it has written {letter}")
        os.close(handle)
    writers = [Background(work, number) for number in range(4)]
    for writer in writers:
        writer.wait("a writer")
    fill(lun, size)
    check(read_bytes(lun) == OLD * size, "something came late")


@test
def loop_devices_discard_and_zero(t):
    needs("losetup", "blkdiscard")
    mount, size = t.mount("demo:ram:8M,thin+ram:8M"), 8 * MIB
    for number in (0, 1):
        lun = mount.lun(number)
        fill(lun, size)
        expected = bytearray(OLD * size)
        done = run("losetup", "--find", "--show", lun)
        if done.returncode != 0:
            raise Skip(f"losetup: {done.stderr.strip()}")
        device = done.stdout.strip()
        try:
            for options, offset, length in (("", MIB, MIB), ("-z", 3 * MIB, 512), ("", 512, 1024), ("-z", 5 * MIB, 2 * MIB)):
                succeeds(f"blkdiscard {options} -o {offset} -l {length} {device}")
                expected[offset:offset + length] = bytes(length)
        finally:
            run("losetup", "-d", device)
        check(read_bytes(lun) == expected, f"lun{number} differs")
