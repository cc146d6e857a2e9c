# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What the kernel takes from LUN files by way of its page cache (sendfile, splice, copy_file_range, private mappings) is never older than
a write that was answered before, by whatever path it came."""

import ctypes
import mmap
import os
import signal
import struct
import subprocess
import time

from harness import BOTH, LOGIN, PATIENCE, check, equal, eventually, in_a_request, opened, pattern, promised, read_bytes, succeeds, test, wait_gone, write_once
from holes import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, fallocate
from raw import ask
from reactors import SHARE
from trouble import GONE_SECONDS, KILL_SECONDS, Stuck

MIB = 1 << 20
BLOCK = 4096


def two_paths(mount):
    """Two files of one unit, which the kernel takes for different ones."""
    write_once(mount.path / "add_target", LOGIN + ",initiator_ext=2")
    return mount.lun(0), mount.target.parent / (mount.target.name + "-0000000000000002") / "lun0"


def by_splice(handle, offset, count):
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb", buffering=0) as pipe:
        data = b""
        while len(data) < count:
            data += pipe.read(os.splice(handle, theirs, min(count - len(data), 65536), offset_src=offset + len(data)))
    os.close(theirs)
    return data


def by_sendfile(handle, offset, count):
    memory = os.memfd_create("copy")
    sent = 0
    while sent < count:
        sent += os.sendfile(memory, handle, offset + sent, count - sent)
    data = os.pread(memory, count, 0)
    os.close(memory)
    return data


def by_mapping(handle, offset, count):
    with mmap.mmap(handle, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as memory:
        return memory[offset:offset + count]


def by_copying(copy):
    def read(handle, offset, count):
        copied = 0
        while copied < count:
            copied += os.copy_file_range(handle, copy, count - copied, offset + copied, offset + copied)
        return os.pread(copy, count, offset)
    return read


def read_plainly(handle, offset, count):
    return os.pread(handle, count, offset)


def as_new_as_written(mount):
    """Whoever reads the file sees what was changed by another path, in whatever way."""
    one, other = two_paths(mount)
    door = other.parent / "lun0.attr" / "cdb"
    count = 16 * BLOCK
    with opened(one, os.O_RDONLY) as reader, opened(other) as writer, opened(other, os.O_RDWR | os.O_DIRECT) as direct, opened(mount.lun(1)) as copy:
        aligned = mmap.mmap(-1, count)
        mapping = mmap.mmap(reader, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)

        def write(data):
            os.pwrite(writer, data, 0)

        def write_directly(data):
            aligned[:] = data
            os.pwritev(direct, [aligned], 0)

        def write_raw(data):
            for block in range(0, count // 512, 8):
                piece = data[block * 512:(block + 8) * 512]
                equal(ask(door, f"2a 00 {block.to_bytes(4, 'big').hex(' ')} 00 00 08 00 out={piece.hex()}").status, "GOOD", "WRITE(10)")

        def punch(mode):
            def change(_):
                fallocate(writer, mode | KEEP_SIZE, 0, count)
                return bytes(count)
            return change

        def grow(_):
            """Zeros that nobody has written: what a truncated file had grown by."""
            os.ftruncate(writer, 0)
            os.pwrite(writer, b"end", count)
            return bytes(count)

        readers = (read_plainly, by_splice, by_sendfile, by_mapping, by_copying(copy), lambda _, offset, size: mapping[offset:offset + size])
        for turn, change in enumerate((write, write_directly, write_raw, punch(PUNCH_HOLE), write, punch(ZERO_RANGE), write, grow)):
            for number, read in enumerate(readers):
                for again in range(3):
                    data = pattern(count, 100 * turn + 10 * number + again)
                    os.pwrite(writer, data, 0)
                    equal(read(reader, 0, count) == data, True, f"reader {number}, change {turn}: what was written is read")
                    wanted = change(data[::-1]) or data[::-1]
                    equal(read(reader, 0, count) == wanted, True, f"reader {number}, change {turn}: what was changed is read")
        mapping.close()


@test(intakes=BOTH)
def pages_are_as_new_as_what_was_written_by_another_path(t):
    as_new_as_written(t.mount("demo:ram:8M+ram:8M", "raw_commands=all,reactors=2"))


READER = """
import mmap, os, struct, sys
path, way, seconds, words = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4]
import time
handle, words = os.open(path, os.O_RDONLY), mmap.mmap(os.open(words, os.O_RDWR), 4096)
memory = os.memfd_create("copy")
end, reads, pages = time.monotonic() + seconds, 0, 64
mapping = mmap.mmap(handle, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
while time.monotonic() < end:
    page = reads * 7 % pages
    least = struct.unpack_from("Q", words, 8 * page)[0]
    if way == "sendfile":
        assert os.sendfile(memory, handle, page * 4096, 4096) == 4096
        os.lseek(memory, 0, 0)
        data = os.read(memory, 4096)
        os.lseek(memory, 0, 0)
    elif way == "read":
        data = os.pread(handle, 4096, page * 4096)
    else:
        data = mapping[page * 4096:(page + 1) * 4096]
    for at in (0, 4088):
        seen = struct.unpack_from("Q", data, at)[0]
        if seen < least:
            sys.exit(f"page {page} by {way}: {seen} was read after {least} had been written")
    reads += 1
print(reads)
"""


def race(t, mount, seconds, ways=("sendfile", "mapping", "sendfile", "sendfile"), disturb=None):
    """`disturb` is called after every fiftieth write; then some may fail, and what those have left is anybody's guess."""
    one, other = two_paths(mount)
    words = t.path("words")
    words.write_bytes(bytes(4096))
    users = [subprocess.Popen(["python3", "-c", READER, str(one if number < 3 else other), way, str(seconds), str(words)], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
             for number, way in enumerate(ways)]
    doomed = subprocess.Popen(["python3", "-c", READER, str(one), "sendfile", "1000", str(words)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    writes = 0
    with opened(words) as file, mmap.mmap(file, 4096) as memory, opened(other) as writer, opened(one) as neighbour:
        while any(user.poll() is None for user in users):
            page, number = writes * 5 % 64, writes + 1
            writes += 1
            try:
                os.pwrite((writer, neighbour)[writes % 3 == 0], struct.pack("Q", number) * 512, page * BLOCK)
                struct.pack_into("Q", memory, 8 * page, number)
            except OSError:
                if not disturb:
                    raise
            if disturb and writes % 50 == 0:
                disturb()
            if writes == 50:
                with promised(KILL_SECONDS, "the end of a killed reader"):
                    doomed.kill()
                    doomed.wait(PATIENCE)
    for user in users:
        out, error = user.communicate(timeout=PATIENCE)
        equal((user.returncode, error), (0, ""), "exit code and complaints of a reader")
        check(int(out) > 0, "a reader has read nothing")
    check(writes > 50, f"only {writes} writes")


@test(intakes=BOTH)
def readers_of_pages_never_see_the_past(t):
    race(t, t.mount("demo:ram:1M"), 3)


@test(intakes=BOTH)
def readers_of_pages_never_see_the_past_with_several_reactors(t):
    race(t, t.mount("demo:ram:1M++ram:1M", "reactors=3", env=SHARE), 3)


@test
def pages_across_the_end_and_of_odd_sizes(t):
    size = 3 * BLOCK + 512
    mount = t.mount(f"demo:ram:{size}")
    one, other = two_paths(mount)
    with opened(one, os.O_RDONLY) as reader, opened(other) as writer:
        for turn in range(20):
            data = pattern(size, turn)
            equal(os.pwrite(writer, data, 0), size, "bytes written")
            check(by_sendfile(reader, 0, size) == data, "sendfile")
            equal(os.sendfile(os.open("/dev/null", os.O_WRONLY), reader, size, BLOCK), 0, "bytes beyond the end")
            with mmap.mmap(reader, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as memory:
                check(memory[:] == data, "mapping")


def users_of_pages(*wanted):
    """Processes that have the files open, and then take something from them: open(2) and mmap(2) wait in the kernel for pages that are being read,
    and for those not even a signal ends them."""
    users = []
    for path, way in wanted:
        script = ("import mmap, os, sys\nhandle = os.open(sys.argv[1], os.O_RDONLY)\n"
                  "pages = mmap.mmap(handle, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)\nprint('open', flush=True)\nsys.stdin.readline()\n" +
                  {"sendfile": "os.sendfile(os.memfd_create('x'), handle, 0, 65536)", "mapping": "pages[5]"}[way])
        users.append(subprocess.Popen(["python3", "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                      text=True))
        equal(users[-1].stdout.readline(), "open\n", "the user of pages")
    return users


def go_on(*users):
    for user in users:
        user.stdin.write("go on\n")
        user.stdin.flush()


PUNCH = "import ctypes, os, sys; h = os.open(sys.argv[1], os.O_RDWR); print('open', flush=True); sys.stdin.readline(); print(ctypes.CDLL(None).fallocate(h, 3, ctypes.c_long(0), ctypes.c_long(4096)), flush=True)"


def who_punches_a_hole(path):
    process = subprocess.Popen(["python3", "-c", PUNCH, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    equal(process.stdout.readline(), "open\n", "who punches a hole")
    return process


def punches(mount, process):
    """WRITE SAME is answered; whoever has asked for it waits for the page that may have been read before. Before that he asks for an attribute."""
    def commands():
        return sum(target["commands"] for target in mount.stats()["targets"])
    before = commands()
    go_on(process)
    eventually(lambda: commands() > before, "WRITE SAME")
    in_a_request(process.pid)


@test(intakes=BOTH)
def whoever_waits_for_pages_of_a_stuck_target_can_be_killed(t):
    stuck = Stuck(t)
    mount = stuck.mount
    one, other = two_paths(mount)
    one.write_bytes(pattern(65536, 1))
    readers, writer = users_of_pages((one, "sendfile"), (one, "mapping")), who_punches_a_hole(other)
    stuck.hold()
    go_on(*readers)
    eventually(lambda: mount.requests() >= 1, "a fill")
    punches(mount, writer)
    time.sleep(0.2)
    equal(writer.poll(), None, "exit code of who punches a hole below a page that is being read")
    for process in (writer, *readers):
        with promised(KILL_SECONDS, "the end of a killed user of pages"):
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE)
    stuck.go_on()
    with opened(one, os.O_RDONLY) as reader:
        equal(by_sendfile(reader, 0, BLOCK), bytes(BLOCK), "the hole")
    eventually(lambda: mount.requests() == 0, "nothing is pending any more")


def ends_whatever_is_read(t, **how):
    """The mount, in each way, while pages of a stuck target are being read."""
    for way in ("TERM", "KILL", "lazy", "force"):
        stuck = Stuck(t, **how)
        mount = stuck.mount
        one, other = two_paths(mount)
        users, writer = users_of_pages((one, "sendfile"), (one, "mapping")), who_punches_a_hole(other)
        stuck.hold()
        go_on(*users)
        eventually(lambda: mount.requests() >= 1, "fills")
        go_on(writer)
        in_a_request(writer.pid)
        with promised(GONE_SECONDS, f"the end by {way}"):
            if way in ("TERM", "KILL"):
                os.kill(mount.pid, getattr(signal, "SIG" + way))
            elif way == "lazy":
                succeeds("umount", "-l", mount.path)
                for process in (*users, writer):
                    process.kill()
            else:
                subprocess.run(["umount", "-f", mount.path], check=False, capture_output=True)
            if way != "KILL":
                mount.wait_end()
            for process in (*users, writer):
                process.wait(PATIENCE)
        if way == "KILL":
            wait_gone(mount.pid)
            mount.pid_file.unlink()
            subprocess.run(["umount", "-l", mount.path], check=False, capture_output=True)
        stuck.go_on()


@test(exit_codes=(0, 2, -9))
def the_mount_ends_although_pages_are_being_read(t):
    ends_whatever_is_read(t)
