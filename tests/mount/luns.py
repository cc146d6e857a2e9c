# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""LUN files: data at any offset and length, the end, the flags of open(2), and the tools people use."""

import ctypes
import errno
import fcntl
import hashlib
import json
import mmap
import os
import random
import select
import shutil
import stat
import struct
import subprocess
import threading

from harness import (BOTH, LOGIN, PATIENCE, Background, Skip, check, contains, equal, eventually, fails_with, needs, opened, pattern, promised,
                     read_bytes, run, succeeds, test, unmount, write_once)

MIB = 1 << 20
BLKGETSIZE64 = 0x80081272
BLKSSZGET, BLKPBSZGET, BLKGETSIZE, BLKROGET, BLKFLSBUF, BLKDISCARD = 0x1268, 0x127b, 0x1260, 0x125e, 0x1261, 0x1277


def aligned(data):
    """A copy in memory that O_DIRECT takes."""
    buffer = mmap.mmap(-1, max(len(data), 1))
    buffer[:len(data)] = data
    return memoryview(buffer)[:len(data)]


@test(intakes=BOTH)
def dd_writes_and_reads_at_any_size_and_place(t):
    source = t.path("source")
    source.write_bytes(pattern(9 * MIB, 11))
    for options in ("ram:16M", "ram:16M,bs=4096"):
        mount = t.mount(f"demo:{options}")
        lun = mount.lun(0)
        for size, offset in ((1, 0), (1, 511), (1, 4095), (511, 0), (512, 512), (513, 1), (1000, 5000), (4096, 0), (4096, 4096), (4096, 100), (4097, 4095),
                             (8192, 2048), (65536, 65536), (65537, 3), (131072, 0), (1 * MIB, 0), (1 * MIB, 512), (1 * MIB + 1, 4095), (3 * MIB, 1234567),
                             (8 * MIB, 0), (8 * MIB, 4 * MIB), (8 * MIB - 1, 7)):
            for read_size in (size, 4096) if size <= 8192 else (size,):
                succeeds(f"dd if='{source}' of='{lun}' bs={size} count=1 seek={offset} oflag=seek_bytes conv=notrunc status=none && "
                         f"dd if='{lun}' bs={read_size} skip={offset} iflag=skip_bytes,fullblock status=none | cmp -n {size} '{source}' -")


@test(intakes=BOTH)
def neighbours_of_what_is_written_stay(t):
    numbers = random.Random(20)
    for block in (512, 4096):
        mount = t.mount(f"demo:ram:1M,bs={block}")
        model = bytearray(pattern(MIB, 4))
        with opened(mount.lun(0)) as handle:
            equal(os.pwrite(handle, model, 0), MIB, "first write")
            for _ in range(600):
                offset = numbers.randrange(MIB)
                size = min(MIB - offset, numbers.choice((1, 2, 511, 512, 513, block - 1, block, block + 1, 3 * block, numbers.randrange(1, 40000))))
                data = pattern(size, numbers.randrange(1 << 30))
                equal(os.pwrite(handle, data, offset), size, f"write of {size} at {offset}")
                model[offset:offset + size] = data
                offset = numbers.randrange(MIB)
                size = numbers.randrange(1, 50000)
                check(os.pread(handle, size, offset) == model[offset:offset + size], f"{block}-byte blocks: {size} bytes at {offset} differ")
            check(os.pread(handle, MIB, 0) == model, f"{block}-byte blocks: the whole differs")


@test(intakes=BOTH)
def the_end_is_where_a_device_has_it(t):
    for source, size in (("ram:1M", MIB), ("ram:1M,bs=4096", MIB), ("ram:1536", 1536)):
        mount = t.mount(f"demo:{source}")
        with opened(mount.lun(0)) as handle:
            equal(os.fstat(handle).st_size, size, "st_size")
            equal(os.pread(handle, 100, size), b"", "read at the end")
            equal(os.pread(handle, 100, size + 12345), b"", "read beyond the end")
            equal(os.pread(handle, 100, size - 1), b"\0", "read across the end")
            equal(os.pread(handle, 4 * MIB, 0), bytes(size), "read of more than all")
            equal(os.pwrite(handle, b"ab", size - 1), 1, "write across the end")
            equal(os.pread(handle, 100, size - 1), b"a", "the last byte")
            equal(os.pwrite(handle, pattern(8192), size - 1000), 1000, "long write across the end")
            for offset in (size, size + 1, size + 512, 1 << 40):
                fails_with(errno.ENOSPC, f"write at {offset}", lambda o=offset: os.pwrite(handle, b"x", o))
            equal(os.pwrite(handle, b"", size), 0, "empty write at the end")
            equal(os.lseek(handle, 0, os.SEEK_END), size, "seek to the end")
            fails_with(errno.ENOSPC, "write there", lambda: os.write(handle, b"x"))
            equal(os.fstat(handle).st_size, size, "st_size afterwards")
        with opened(mount.lun(0), os.O_WRONLY | os.O_APPEND) as handle:
            fails_with(errno.ENOSPC, "appending", lambda: os.write(handle, b"x"))
    lun = t.mount("demo:ram:1M").lun(0)
    done = run(f"dd if=/dev/zero of='{lun}' bs=64k")
    check(done.returncode == 1 and "No space left on device" in done.stderr and "16+0 records out" in done.stderr, f"dd to the end: {done.stderr!r}")
    done = run(f"head -c 1000001 /dev/zero > '{lun}'")
    equal((done.returncode, done.stderr), (0, ""), "a shell's > with less than fits")
    done = run(f"cat /dev/zero > '{lun}'")
    check(done.returncode == 1 and "No space left" in done.stderr, f"cat /dev/zero: {done.stderr!r}")
    equal(len(read_bytes(lun)), MIB, "size")


@test(intakes=BOTH)
def o_direct_takes_any_alignment(t):
    for block in (512, 4096):
        lun = t.mount(f"demo:ram:16M,bs={block}").lun(0)
        with opened(lun, os.O_RDWR | os.O_DIRECT) as handle:
            for size, offset in ((512, 0), (512, 512), (4096, 4096), (4096, 512), (8 * MIB, 0), (8 * MIB, 512), (3 * MIB + 512, 1024)):
                data = aligned(pattern(size, size + offset))
                equal(os.pwrite(handle, data, offset), size, f"write of {size} at {offset}")
                into = aligned(bytes(size))
                equal(os.preadv(handle, [into], offset), size, f"read of {size} at {offset}")
                check(into == data, f"{block}-byte blocks: {size} bytes at {offset} differ")
            equal(os.pwrite(handle, b"odd", 1), 3, "write of odd bytes from odd memory")
            equal(os.pread(handle, 3, 1), b"odd", "read of odd bytes")


@test
def flags_of_open_do_what_they_say(t):
    lun = t.mount("demo:ram:8M,wce").lun(0)
    data = pattern(3 * MIB + 77, 2)
    for flags in (os.O_SYNC, os.O_DSYNC, os.O_NONBLOCK, os.O_CREAT, os.O_CREAT | os.O_TRUNC, os.O_NOATIME, os.O_CLOEXEC, os.O_DIRECT | os.O_DSYNC):
        with opened(lun, os.O_RDWR | flags) as handle:
            equal(os.pwrite(handle, data, 99), len(data), f"write with {flags:#o}")
            check(os.pread(handle, len(data), 99) == data, f"data with {flags:#o}")
    fails_with(errno.EEXIST, "exclusive create", lambda: os.close(os.open(lun, os.O_CREAT | os.O_EXCL | os.O_RDWR)))
    fails_with(errno.ENOTDIR, "O_DIRECTORY", lambda: os.close(os.open(lun, os.O_DIRECTORY)))
    with opened(lun, os.O_RDONLY) as handle:
        fails_with(errno.EBADF, "write through a handle for reading", lambda: os.pwrite(handle, b"x", 0))
    with opened(lun, os.O_WRONLY) as handle:
        fails_with(errno.EBADF, "read through a handle for writing", lambda: os.pread(handle, 1, 0))
    for command in ("dd if=/dev/zero of={0} bs=1M count=4 oflag=direct conv=notrunc", "dd if=/dev/zero of={0} bs=4k count=16 oflag=dsync conv=notrunc",
                    "dd if=/dev/zero of={0} bs=1000 count=16 oflag=sync", "dd if=/dev/zero of={0} bs=1M count=2 conv=fsync", "dd if={0} of=/dev/null bs=1M iflag=direct",
                    "dd if=/dev/zero of={0} bs=8M count=1 conv=fdatasync", "sync {0}", "sync -d {0}", "sync -f {0}"):
        succeeds(command.format(f"'{lun}'"))


@test(intakes=BOTH)
def writers_of_the_same_blocks_lose_nothing(t):
    # Each thread owns bytes in every block, so each write is a read-modify-write beside those of others.
    threads, width, rounds = 8, 61, 40
    for block in (512, 4096):
        mount = t.mount(f"demo:ram:1M,bs={block}")
        size = threads * width * 80                  # blocks are shared by all, borders everywhere
        errors = []

        def write(number):
            try:
                with opened(mount.lun(0)) as handle:
                    for turn in range(rounds):
                        for place in range(number * width, size, threads * width * 8):
                            data = bytes([number * 16 + turn % 16]) * width
                            if os.pwrite(handle, data, place) != width:
                                errors.append(f"short write at {place}")
            except OSError as error:
                errors.append(str(error))

        workers = [threading.Thread(target=write, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(PATIENCE)
        check(not any(worker.is_alive() for worker in workers), "a writer does not end")
        equal(errors, [], "errors of writers")
        content = read_bytes(mount.lun(0))
        for number in range(threads):
            for place in range(number * width, size, threads * width * 8):
                wanted = bytes([number * 16 + (rounds - 1) % 16]) * width
                equal(content[place:place + width], wanted, f"{block}-byte blocks: bytes of writer {number} at {place}")
        check(mount.lun_stats(0)["read_modify_writes"] > 0, "nothing was a read-modify-write")


@test
def single_bytes_of_many_processes_all_arrive(t):
    mount = t.mount("demo:ram:1M,bs=4096")
    count = 6
    script = ("import os,sys\nhandle=os.open(sys.argv[1],os.O_WRONLY)\nnumber=int(sys.argv[2])\n"
              f"for place in range(number,8192,{count}): assert os.pwrite(handle,bytes([number+1]),place)==1\n")
    workers = [subprocess.Popen(["python3", "-c", script, str(mount.lun(0)), str(number)]) for number in range(count)]
    for worker in workers:
        equal(worker.wait(PATIENCE), 0, "exit code of a writer")
    content = read_bytes(mount.lun(0))[:8192]
    equal(content, bytes(place % count + 1 for place in range(8192)), "bytes of all processes")


@test
def readers_beside_writers_see_old_or_new(t):
    mount = t.mount("demo:ram:1M")
    old, new = b"o" * 4096, b"n" * 4096
    stop = threading.Event()

    def write():
        with opened(mount.lun(0)) as handle:
            while not stop.is_set():
                os.pwrite(handle, old, 0)
                os.pwrite(handle, new, 0)

    mount.lun(0).write_bytes(old)
    writer = Background(write)
    with opened(mount.lun(0), os.O_RDONLY) as handle:
        for _ in range(2000):
            block = os.pread(handle, 512, 0)
            check(block in (old[:512], new[:512]), f"a torn block: {set(block)}")
    stop.set()
    writer.wait("the writer")


FIO = ("fio", "--name=verify", "--verify=crc32c", "--verify_fatal=1", "--do_verify=1", "--verify_state_save=0", "--group_reporting", "--output-format=terse",
       "--allow_file_create=0", "--randrepeat=1")


def fio(t, mount, *options, number=0):
    needs("fio")
    done = run(*FIO, f"--filename={mount.lun(number)}", *options, cwd=t.dir)
    if done.returncode != 0 and "engine" in done.stderr and "not loadable" in done.stderr:
        raise Skip(done.stderr.strip())
    check(done.returncode == 0 and "verify:" not in done.stderr, f"fio {' '.join(options)}: {(done.stderr + done.stdout)[-400:]}")


def verify_with(t, engine, *options):
    mount = t.mount("demo:ram:32M+ram:32M,bs=4096,wce")
    for number in (0, 1):
        for more in (("--rw=randwrite", "--bs=4k", "--size=8m", "--iodepth=32"),
                     ("--rw=write", "--bs=1m", "--size=32m", "--iodepth=4"),
                     ("--rw=randwrite", "--bsrange=512-128k", "--bs_unaligned=1" if not options else "--bs_unaligned=0", "--size=8m", "--iodepth=16"),
                     ("--rw=randwrite", "--bs=16k", "--size=8m", "--offset_increment=8m", "--numjobs=4", "--iodepth=8")):
            fio(t, mount, f"--ioengine={engine}", *options, *more, number=number)
    equal(mount.lun_stats(0)["errors"] + mount.lun_stats(1)["errors"], 0, "errors counted")


@test
def fio_verifies_with_psync(t):
    verify_with(t, "psync")


@test(intakes=BOTH)
def fio_verifies_with_libaio(t):
    verify_with(t, "libaio", "--direct=1")


@test(intakes=BOTH)
def fio_verifies_with_io_uring(t):
    verify_with(t, "io_uring", "--direct=1")


@test(intakes=BOTH)
def fio_verifies_odd_sizes(t):
    mount = t.mount("demo:ram:16M,bs=4096+ram:16M")
    for number in (0, 1):
        fio(t, mount, "--ioengine=psync", "--rw=randwrite", "--bs=3000", "--size=3m", "--fsync=64", number=number)
        fio(t, mount, "--ioengine=psync", "--rw=randwrite", "--bs=7k", "--size=7m", "--sync=dsync", number=number)


@test(intakes=BOTH)
def deep_queues_beyond_the_credits_work(t):
    mount = t.mount("demo:ram:64M")
    fio(t, mount, "--ioengine=libaio", "--direct=1", "--rw=randwrite", "--bs=4k", "--size=16m", "--iodepth=512")
    fio(t, mount, "--ioengine=libaio", "--direct=1", "--rw=write", "--bs=1m", "--size=64m", "--iodepth=256")
    zero = mount.stats()["targets"][0]
    check(zero["state"] == "running" and zero["failed_reconnects"] == 0, f"state afterwards: {zero}")


@test
def a_small_memory_budget_is_enough(t):
    mount = t.mount("demo:ram:64M", "memory=24M,park=16M")
    fio(t, mount, "--ioengine=libaio", "--direct=1", "--rw=randrw", "--bs=64k", "--size=32m", "--iodepth=128")
    fio(t, mount, "--ioengine=psync", "--rw=randwrite", "--bs=1m", "--size=16m", "--offset_increment=16m", "--numjobs=4")


@test
def without_immediate_data_it_works_as_well(t):
    mount = t.mount("demo:ram:16M", "use_imm_data=0")
    fio(t, mount, "--ioengine=libaio", "--direct=1", "--rw=randwrite", "--bsrange=512-16k", "--size=8m", "--iodepth=16")


@test
def a_read_only_lun_is_not_written(t):
    image = t.path("image")
    data = pattern(MIB, 8)
    image.write_bytes(data)
    mount = t.mount(f"demo:file:{image},ro+ram:1M")
    lun = mount.lun(0)
    equal(oct(stat.S_IMODE(lun.stat().st_mode)), "0o400", "mode")
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_TRUNC):
        fails_with(errno.EROFS, f"open with {flags:#o}", lambda f=flags: os.close(os.open(lun, f)))
    fails_with(errno.EROFS, "truncate", lambda: os.truncate(lun, 0))
    done = run(f"echo x > '{lun}'")
    check(done.returncode != 0 and "Read-only" in done.stderr, f"echo: {done.stderr!r}")
    check(read_bytes(lun) == data, "content")
    mount.lun(1).write_bytes(b"the other can be written")
    check(image.read_bytes() == data, "the backing file has changed")


@test
def data_of_a_file_lun_is_in_the_file_after_fsync(t):
    image = t.path("image")
    with open(image, "wb") as file:
        file.truncate(1 << 34)                    # 16 GiB of nothing
    before = image.stat().st_blocks
    for options in ("", ",wce", ",bs=4096"):
        mount = t.mount(f"demo:file:{image}{options}")
        equal(mount.lun(0).stat().st_size, 1 << 34, "size")
        data = pattern(MIB + 333, 12 + len(options))
        for sync in (os.fsync, os.fdatasync):
            for offset in (0, 777, (1 << 34) - len(data), (1 << 33) + 1):
                with opened(mount.lun(0)) as handle:
                    equal(os.pwrite(handle, data, offset), len(data), f"write at {offset}")
                    sync(handle)
                    with open(image, "rb") as file:
                        file.seek(offset)
                        check(file.read(len(data)) == data, f"the file lacks what was written at {offset} ({options})")
        with open(image, "r+b") as file:          # and the other way round
            file.seek(5000)
            file.write(b"from outside")
        with opened(mount.lun(0), os.O_RDONLY) as handle:
            equal(os.pread(handle, 12, 5000), b"from outside", "what was written beside srpfs")
        mount.umount()
    check(image.stat().st_blocks - before < 64 * 2048, "the sparse file has been filled")


@test(intakes=BOTH)
def a_write_cache_is_flushed_when_asked(t):
    mount = t.mount("demo:ram:1M,wce+ram:1M")

    def flush_commands(handle, data, flush=os.fsync):
        """Sent for a flush after a write (if there are data). Of three, the fewest: others may be sent meanwhile, by the clock."""
        counts = []
        for _ in range(3):
            os.pwrite(handle, data, 0)
            before = mount.stats()["targets"][0]["commands"]
            flush(handle)
            counts.append(mount.stats()["targets"][0]["commands"] - before)
        return min(counts)

    block = b"x" * 4096
    stats = mount.lun_stats(0)
    equal((stats["write_cache"], mount.lun_stats(1)["write_cache"]), (True, False), "write_cache in stats")
    with opened(mount.lun(0)) as handle, opened(mount.lun(1)) as other:
        equal(flush_commands(handle, b""), 0, "commands of an fsync of a clean unit")
        flushes = mount.lun_stats(0)["flushes"]
        equal(flush_commands(handle, block), 1, "commands of an fsync after a write")
        equal(flush_commands(handle, block, os.fdatasync), 1, "commands of an fdatasync after a write")
        equal(mount.lun_stats(0)["flushes"], flushes + 6, "flushes counted")
        equal(flush_commands(handle, b""), 0, "commands of a second fsync")
        equal(flush_commands(other, block), 0, "commands of an fsync without a write cache")
        os.pwrite(handle, b"y" * 4096, 0)
        flushes = mount.lun_stats(0)["flushes"]
        # It succeeds, and promises nothing: there is nothing in the page cache.
        commands = mount.stats()["targets"][0]["commands"]
        libc = ctypes.CDLL(None, use_errno=True)
        equal(libc.sync_file_range(handle, ctypes.c_longlong(0), ctypes.c_longlong(0), 7), 0, "sync_file_range")
        equal(mount.lun_stats(0)["flushes"], flushes, "flushes after sync_file_range")
        check(mount.stats()["targets"][0]["commands"] - commands <= 1, "commands of a sync_file_range; one may be sent meanwhile, by the clock")
    # The last close of a writer flushes: `dd; sync` is a habit.
    eventually(lambda: mount.lun_stats(0)["flushes"] > flushes, "a flush after the last close")
    with opened(mount.lun(0), os.O_RDWR | os.O_DSYNC) as handle:
        equal(flush_commands(handle, block), 0, "commands of an fsync after a write with O_DSYNC (FUA)")


@test
def a_null_lun_reads_zeros(t):
    mount = t.mount("demo:null:1T")
    with opened(mount.lun(0)) as handle:
        for offset in (0, 12345, (1 << 40) - 100):
            equal(os.pwrite(handle, b"x" * 100, offset), 100, f"write at {offset}")
            equal(os.pread(handle, 100, offset), bytes(100), f"read at {offset}")
        data = os.pread(handle, 4 * MIB, 1 << 39)
        check(data == bytes(4 * MIB), "a long read gave something else than zeros")


@test
def without_provisioning_a_unit_is_all_data(t):
    lun = t.mount("demo:ram:1M").lun(0)
    with opened(lun) as handle:
        equal(os.lseek(handle, 0, os.SEEK_DATA), 0, "SEEK_DATA at 0")
        equal(os.lseek(handle, 777, os.SEEK_DATA), 777, "SEEK_DATA at 777")
        equal(os.lseek(handle, 777, os.SEEK_HOLE), MIB, "SEEK_HOLE")
        fails_with(errno.ENXIO, "SEEK_DATA at the end", lambda: os.lseek(handle, MIB, os.SEEK_DATA))
    copy = t.path("copy")
    lun.write_bytes(bytes(4096) + pattern(4096) + bytes(8192))
    for command in ("cp {0} {1}", "cp --sparse=always {0} {1}", "cp --reflink=never {0} {1}", "dd if={0} of={1} bs=64k status=none", "cat {0} > {1}",
                    "tail -c +1 {0} > {1}", "install -m 600 {0} {1}"):
        succeeds(f"rm -f '{copy}'; " + command.format(f"'{lun}'", f"'{copy}'") + f" && cmp '{lun}' '{copy}'")


@test
def block_ioctls_tell_only_the_size(t):
    lun = t.mount("demo:ram:3M,bs=4096").lun(0)
    with opened(lun) as handle:
        buffer = bytearray(8)
        fcntl.ioctl(handle, BLKGETSIZE64, buffer)
        equal(struct.unpack("Q", buffer)[0], 3 * MIB, "BLKGETSIZE64")
        for name, number in (("BLKSSZGET", BLKSSZGET), ("BLKPBSZGET", BLKPBSZGET), ("BLKGETSIZE", BLKGETSIZE), ("BLKROGET", BLKROGET), ("BLKFLSBUF", BLKFLSBUF),
                             ("BLKDISCARD", BLKDISCARD), ("TCGETS", 0x5401)):
            fails_with(errno.ENOTTY, name, lambda n=number: fcntl.ioctl(handle, n, bytearray(64)))
    if shutil.which("blockdev"):
        equal(succeeds("blockdev", "--getsize64", lun).strip(), str(3 * MIB), "blockdev --getsize64")


@test
def locks_are_kept_by_the_kernel(t):
    lun = t.mount("demo:ram:1M").lun(0)
    with opened(lun) as first, opened(lun) as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        fails_with(errno.EAGAIN, "a second flock", lambda: fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB))
        fcntl.flock(first, fcntl.LOCK_UN)
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(first, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)


@test
def other_ways_of_moving_data_work(t):
    mount = t.mount("demo:ram:1M+ram:1M")
    data = pattern(MIB, 21)
    plain = t.path("plain")
    plain.write_bytes(data)
    with opened(mount.lun(0)) as lun, opened(mount.lun(1)) as other, opened(plain) as file:
        moved = 0
        while moved < MIB:
            moved += os.sendfile(lun, file, moved, MIB - moved)
        check(os.pread(lun, MIB, 0) == data, "sendfile into a LUN")
        pipe_in, pipe_out = os.pipe()
        for place in range(0, MIB, 65536):
            equal(os.splice(lun, pipe_out, 65536, offset_src=place), 65536, "splice from a LUN")
            equal(os.splice(pipe_in, other, 65536, offset_dst=place), 65536, "splice into a LUN")
        check(os.pread(other, MIB, 0) == data, "splice")
        os.pwrite(other, bytes(MIB), 0)
        os.lseek(lun, 0, os.SEEK_SET)
        os.lseek(other, 0, os.SEEK_SET)
        moved = 0
        while moved < MIB:
            moved += os.copy_file_range(lun, other, MIB - moved)
        check(os.pread(other, MIB, 0) == data, "copy_file_range from LUN to LUN")
        parts = [bytearray(1000), bytearray(1), bytearray(5000)]
        equal(os.preadv(lun, parts, 333), 6001, "preadv")
        check(b"".join(parts) == data[333:6334], "data of preadv")
        equal(os.pwritev(other, [b"a" * 700, b"", b"b" * 3], 99), 703, "pwritev")
        equal(os.pread(other, 703, 99), b"a" * 700 + b"bbb", "data of pwritev")
        with mmap.mmap(lun, MIB, mmap.MAP_PRIVATE, mmap.PROT_READ) as memory:
            check(memory[:] == data, "a private mapping")
    equal(hashlib.md5(data).hexdigest(), succeeds("md5sum", mount.lun(0)).split()[0], "md5sum")


@test
def handles_share_what_was_written(t):
    mount = t.mount("demo:ram:1M")
    with opened(mount.lun(0)) as first, opened(mount.lun(0)) as second:
        for number in range(200):
            text = f"{number:05}".encode()
            os.pwrite(first, text, 300)
            equal(os.pread(second, 5, 300), text, "read through the other handle")
    write_once(mount.path / "add_target", LOGIN + ",initiator_ext=2")
    other = mount.port / "0000000000000001-0000000000000001-0000000000000002" / "lun0"
    mount.lun(0).write_bytes(b"through the first login")
    equal(read_bytes(other)[:23], b"through the first login", "read through another login")


@test
def poll_and_select_do_not_wait(t):
    lun = t.mount("demo:ram:1M").lun(0)
    with opened(lun) as handle:
        poll = select.epoll()
        try:
            poll.register(handle, select.EPOLLIN | select.EPOLLOUT)
            events = poll.poll(2)
            equal(events[0][1] & 5, 5, "epoll")
        except PermissionError:
            pass                                  # regular files without poll of their own: not ours to decide
        equal(select.select([handle], [handle], [], 2)[:2], ([handle], [handle]), "select")


@test
def a_loop_device_with_ext4_works(t):
    needs("losetup", "mkfs.ext4", "e2fsck")
    image = t.path("image")
    with open(image, "wb") as file:
        file.truncate(96 * MIB)
    for source, options in ((f"file:{image},wce", ()), ("ram:96M", ("--direct-io=on",)), ("ram:96M,bs=4096", ("--sector-size", "4096"))):
        mount = t.mount(f"demo:{source}")
        done = run("losetup", "--find", "--show", *options, mount.lun(0))
        if done.returncode != 0:
            raise Skip(f"losetup: {done.stderr.strip()}")
        device = done.stdout.strip()
        try:
            equal(succeeds("blockdev", "--getsize64", device).strip(), str(96 * MIB), "size of the loop device")
            succeeds("mkfs.ext4", "-q", "-F", device)
            point = t.mountpoint()
            done = run("mount", "-t", "ext4", device, point)
            if done.returncode != 0:
                raise Skip(f"ext4 cannot be mounted: {done.stderr.strip()}")
            data = pattern(20 * MIB, 14)
            (point / "file").write_bytes(data)
            for number in range(200):
                (point / f"small{number}").write_bytes(data[:number * 13])
            succeeds("sync", "-f", point)
            unmount(point)
            succeeds("e2fsck", "-fn", device)
            succeeds("mount", "-t", "ext4", "-o", "ro", device, point)
            check((point / "file").read_bytes() == data, "the file differs after the second mount")
            unmount(point)
        finally:
            run("losetup", "-d", device)
        eventually(lambda m=mount: run("e2fsck", "-fn", m.lun(0)).returncode == 0, "e2fsck of the LUN file itself")
        mount.umount()
    succeeds("e2fsck", "-fn", image)


@test
def file_systems_are_made_on_the_file_itself(t):
    needs("mkfs.ext4", "debugfs", "e2fsck")
    lun = t.mount("demo:ram:32M,bs=4096").lun(0)
    plain = t.path("plain")
    plain.write_bytes(b"hello from a LUN\n")
    succeeds("mkfs.ext4", "-q", "-F", lun)
    succeeds(f"debugfs -w -R 'write {plain} hello' '{lun}'")
    succeeds("e2fsck", "-fn", lun)
    equal(succeeds(f"debugfs -R 'cat hello' '{lun}' 2>/dev/null"), "hello from a LUN\n", "file in the file system")
    contains(succeeds("blkid", "-p", "-o", "value", "-s", "TYPE", lun), "ext4", "blkid")


@test
def partition_tables_are_written(t):
    needs("sfdisk")
    lun = t.mount("demo:ram:32M").lun(0)
    done = run("sfdisk", lun, text_in="label: gpt\n,10M\n,,L\n")
    equal(done.returncode, 0, f"sfdisk ({done.stderr.strip()})")
    equal(len(json.loads(succeeds("sfdisk", "--json", lun))["partitiontable"]["partitions"]), 2, "partitions")


@test
def qemu_img_writes_and_compares(t):
    needs("qemu-img")
    mount = t.mount("demo:ram:16M+ram:16M")
    image = t.path("image")
    image.write_bytes(pattern(16 * MIB, 17))
    succeeds("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, mount.lun(0))
    succeeds("qemu-img", "compare", "-f", "raw", "-F", "raw", image, mount.lun(0))
    succeeds("qemu-img", "info", "-f", "raw", mount.lun(0))


@test
def two_luns_do_not_mix(t):
    mount = t.mount("demo:ram:8M+ram:8M,bs=4096+ram:8M")
    data = [pattern(8 * MIB, 30 + number) for number in range(3)]
    jobs = [Background(mount.lun(number).write_bytes, data[number]) for number in range(3)]
    for job in jobs:
        job.wait("a writer")
    for number in range(3):
        check(read_bytes(mount.lun(number)) == data[number], f"lun{number} differs")


@test
def writers_through_two_logins_lose_nothing(t):
    # Two directories may show the same unit; its locks are the unit's (decisions 6).
    mount = t.mount("demo:ram:1M")
    write_once(mount.path / "add_target", LOGIN + ",initiator_ext=2")
    paths = (mount.lun(0), mount.port / "0000000000000001-0000000000000001-0000000000000002" / "lun0")

    def write(number):
        with opened(paths[number % 2]) as handle:
            for turn in range(60):
                for place in range(number * 50, 8000, 400):
                    equal(os.pwrite(handle, bytes([number * 20 + turn % 20]) * 50, place), 50, "bytes written")

    writers = [Background(write, number) for number in range(8)]
    for writer in writers:
        writer.wait("a writer")
    content = read_bytes(mount.lun(0))
    for place in range(0, 8000, 50):
        equal(content[place:place + 50], bytes([place // 50 % 8 * 20 + 59 % 20]) * 50, f"bytes at {place}")


@test
def opening_and_closing_often_is_cheap(t):
    mount = t.mount("demo:ram:1M")
    handles = [os.open(mount.lun(0), os.O_RDONLY) for _ in range(900)]
    for handle in handles[::100]:
        equal(os.pread(handle, 5, 0), bytes(5), "read through one of many handles")
    for handle in handles:
        os.close(handle)
    with promised(5, "500 times open, write and close", beside=lambda: [mount.lun(0).stat() for _ in range(2000)]):
        for _ in range(500):
            with opened(mount.lun(0)) as handle:
                os.pwrite(handle, b"x", 0)
