# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""lunN.attr/cdb and its ioctl: SCSI commands of somebody's choice."""

import errno
import fcntl
import json
import os
import re
import struct
import subprocess

from harness import (LOGIN, NOBODY, TOP, Background, check, contains, equal, errno_of, eventually, fails_with, in_child, needs, opened, pattern,
                     read_bytes, read_file, succeeds, test, value, write_once)
from trouble import BlackHole, Stuck, killed

MIB = 1 << 20
INQUIRY = "12 00 00 00 60 00"
READ_1 = "28 00 00 00 00 01 00 00 01 00"                # block 1
WRITE_1 = "2a 00 00 00 00 01 00 00 01 00"
DATA_MAX = 7680
RAW_COMMAND = 3 << 30 | 64 + DATA_MAX << 16 | 0xE5 << 8 | 1
HEAD = struct.Struct("16sBB2xIIIBBBBBB26x")
IN, OUT = 1, 2


class Answer:
    def __init__(self, text):
        lines = text.splitlines()
        self.fields = dict(line.split(" ", 1) for line in lines if not line.startswith("0"))
        self.status, self.sense = self.fields["status"], self.fields["sense"]
        self.data = b"".join(bytes.fromhex(line[10:57]) for line in lines if re.match("[0-9a-f]{8}: ", line))
        equal(len(self.data), int(self.fields["data"]), "bytes of data")


def read_all(handle):
    return b"".join(iter(lambda: os.read(handle, 4096), b"")).decode()


def ask(path, command):
    with opened(path) as handle:
        os.write(handle, command.encode())
        return Answer(read_all(handle))


def ioctl(handle, cdb, way=0, data=b"", bytes_in=0, timeout=0):
    """status, residual, sense or None, data"""
    cdb = bytes.fromhex(cdb)
    buffer = bytearray(HEAD.pack(cdb, len(cdb), way, len(data) or bytes_in, timeout, 0, 0, 0, 0, 0, 0, 0) + data.ljust(DATA_MAX, b"\0"))
    fcntl.ioctl(handle, RAW_COMMAND, buffer)
    _, _, _, count, _, residual, status, _, has_sense, *sense = HEAD.unpack_from(buffer)
    return status, residual, tuple(sense) if has_sense else None, bytes(buffer[64:64 + count - residual])


@test
def a_command_written_to_cdb_is_answered_to_whoever_has_written_it(t):
    mount = t.mount("demo:ram:1M+ram:2M,bs=4096")
    door = mount.target / "lun0.attr" / "cdb"
    equal(read_file(door), "", "before the first command")
    answer = ask(door, INQUIRY)
    equal((answer.status, answer.sense, answer.fields["residual"], answer.fields["overflow"], answer.fields["uid"]),
          ("GOOD", "none", "60", "no", "0"), "INQUIRY")
    equal((answer.fields["command"], answer.data), (INQUIRY, read_bytes(mount.target / "lun0.attr" / "inquiry")), "INQUIRY")
    with opened(mount.lun(0)) as handle:
        os.pwrite(handle, pattern(1024, 5), 0)
    equal(ask(door, READ_1).data, pattern(1024, 5)[512:], "READ(10)")
    equal(len(ask(mount.target / "lun1.attr" / "cdb", READ_1).data), 4096, "a block of the other unit")
    answer = ask(door, "28 00 7f 00 00 00 00 00 01 00")
    equal((answer.status, answer.sense), ("CHECK CONDITION", "ILLEGAL REQUEST: logical block address out of range (5/21/00)"), "beyond the end")
    equal(len(ask(door, "88 00 00 00 00 00 00 00 00 00 00 00 00 80 00 00").data), 65536, "the largest READ(16)")
    # Two at once, each with an answer of his own; who has not asked reads the last one.
    with opened(door) as one, opened(door) as other:
        os.write(one, b"00 00 00 00 00 00")
        os.write(other, READ_1.encode())
        contains(read_all(one), "command 00 00 00 00 00 00\n", "the first one's answer")
        contains(read_all(other), f"command {READ_1}\n", "the other one's answer")
        contains(read_all(one), "command 00 00 00 00 00 00\n", "the first one's answer once more")
        contains(read_file(door), f"command {READ_1}\n", "the last answer")
    # As a shell does it.
    shell = f"exec 3<>'{door}'; echo '{INQUIRY}' >&3 && cat <&3 | grep '^0' | cut -c11-57 | tr -d ' \\n'"
    equal(bytes.fromhex(succeeds(shell)), read_bytes(mount.target / "lun0.attr" / "inquiry"), "INQUIRY of a shell")
    with opened(door) as handle:
        for text in ("12 00", f"{INQUIRY} in=95", "12 00 00 00 60 04", "x", "03 00 00 00 12 00", INQUIRY + " timeout=61", READ_1 + " out=" + "00" * 512):
            fails_with(errno.EINVAL, text, lambda x=text: os.write(handle, x.encode()))
            check(value(mount.target / "lun0.attr" / "last_error").startswith("cdb: "), "last_error")
    equal(json.loads(read_file(mount.path / "stats"))["requests_pending"], 0, "requests left")


@test
def commands_that_change_a_unit_need_more_than_a_file_that_can_be_opened(t):
    data = pattern(512, 9)
    write = f"{WRITE_1} out={data.hex()}"
    mount = t.mount("demo:ram:1M,wce+ram:1M", "allow_other")
    door = mount.target / "lun0.attr" / "cdb"
    for command in (write, "1b 00 00 00 01 00", "c1 00 00 00 00 00"):
        fails_with(errno.EPERM, command[:20], lambda x=command: write_once(door, x))
        contains(value(mount.target / "lun0.attr" / "last_error"), "raw_commands=all", "last_error")
    with opened(mount.lun(0)) as handle:
        fails_with(errno.EPERM, "WRITE by ioctl", lambda: ioctl(handle, WRITE_1, OUT, data))
    equal(in_child(lambda: os.close(os.open(door, os.O_RDONLY)), NOBODY), errno.EACCES, "somebody else")
    equal(read_bytes(mount.lun(0))[:1024], bytes(1024), "what is on the unit")
    mount.umount()

    none = t.mount("demo:ram:1M", "raw_commands=none")
    fails_with(errno.EPERM, "raw_commands=none", lambda: write_once(none.target / "lun0.attr" / "cdb", INQUIRY))
    none.umount()

    mount = t.mount("demo:ram:1M,wce+ram:1M", "raw_commands=all,allow_other,umask=0")
    door = mount.target / "lun0.attr" / "cdb"
    flushes = mount.lun_stats(0)["flushes"]
    equal(ask(door, write).status, "GOOD", "WRITE(10)")
    equal(read_bytes(mount.lun(0))[512:1024], data, "what it has written")
    with opened(mount.lun(0)) as handle:
        os.fsync(handle)
        eventually(lambda: mount.lun_stats(0)["flushes"] > flushes, "fsync has something to flush")
        equal(ioctl(handle, WRITE_1, OUT, bytes(512)), (0, 0, None, bytes(512)), "WRITE(10) by ioctl")
    equal(read_bytes(mount.lun(0))[512:1024], bytes(512), "what that has written")
    with opened(mount.lun(0), os.O_RDONLY) as handle:
        fails_with(errno.EPERM, "WRITE by ioctl on a file open for reading", lambda: ioctl(handle, WRITE_1, OUT, data))
    with opened(mount.lun(0), os.O_WRONLY) as handle:
        fails_with(errno.EBADF, "READ by ioctl on a file open for writing", lambda: ioctl(handle, READ_1, IN, bytes_in=512))
    write_once(mount.target / "lun0.attr" / "read_only", "1")
    fails_with(errno.EROFS, "a read-only unit", lambda: write_once(door, write))
    mount.umount()


@test
def the_ioctl_sends_commands_of_whoever_can_open_the_file(t):
    mount = t.mount("demo:ram:1M,wce+ram:1M", "raw_commands=all,allow_other,umask=0")
    with opened(mount.lun(0)) as handle:
        os.pwrite(handle, pattern(MIB, 3), 0)

    def reads():
        with opened(mount.lun(0), os.O_RDONLY) as handle:
            equal(ioctl(handle, "28 00 00 00 00 00 00 00 0f 00", IN, bytes_in=DATA_MAX)[3], pattern(MIB, 3)[:DATA_MAX], "READ(10) by ioctl")
            equal(ioctl(handle, INQUIRY, IN, bytes_in=96)[:3], (0, 60, None), "INQUIRY by ioctl")
            equal(ioctl(handle, "00 00 00 00 00 00")[:3], (0, 0, None), "TEST UNIT READY by ioctl")
            equal(ioctl(handle, "28 00 7f 00 00 00 00 00 01 00", IN, bytes_in=512)[:3:2], (2, (5, 0x21, 0)), "beyond the end")

    def writes():
        with opened(mount.lun(0)) as handle:
            ioctl(handle, WRITE_1, OUT, bytes(512))

    reads()
    equal(in_child(reads, NOBODY), 0, "reading as somebody else")
    equal(in_child(writes, NOBODY), errno.EPERM, "writing as somebody else")
    equal(in_child(writes), 0, "writing as root")
    with opened(mount.target / "lun0.attr" / "cdb", os.O_RDONLY) as handle:
        equal(ioctl(handle, INQUIRY, IN, bytes_in=96)[:3], (0, 60, None), "INQUIRY by ioctl on cdb")
        equal(Answer(read_all(handle)).fields["command"], INQUIRY, "the last command")
        for wrong in ((INQUIRY, IN, b"", 95), (INQUIRY, 0, b"", 96), (INQUIRY, 3, b"", 96), (INQUIRY, IN, b"", DATA_MAX + 1), ("12", IN, b"", 96)):
            fails_with(errno.EINVAL, f"{wrong}", lambda w=wrong: ioctl(handle, *w))
    with opened(mount.target / "lun0.attr" / "wwid", os.O_RDONLY) as handle:
        fails_with(errno.ENOTTY, "another file", lambda: ioctl(handle, INQUIRY, IN, bytes_in=96))
    with opened(mount.lun(0), os.O_RDONLY) as handle:
        fails_with(errno.ENOTTY, "another number", lambda: fcntl.ioctl(handle, RAW_COMMAND + 1, bytearray(64 + DATA_MAX)))


# What the manual page shows, as it stands there.
@test
def the_example_of_the_manual_page_works(t):
    needs("cc")
    text = (TOP / "man/srpfs.8").read_text()
    example = text[text.index("#include <srpfs/raw_ioctl.h>"):]
    example = example[:example.index(".Ed")].replace("\\e", "\\").replace("\\&", "")
    source, program, include = t.path("example.c"), t.path("example"), t.path("include")
    (include / "srpfs").mkdir(parents=True)
    (include / "srpfs/raw_ioctl.h").symlink_to(TOP / "include/srpfs/daemon/raw_ioctl.h")
    source.write_text(example)
    succeeds("cc", "-Wall", "-Wextra", "-Werror", "-std=c99", "-D_DEFAULT_SOURCE", "-I", include, "-o", program, source)
    mount = t.mount("demo:ram:1M")
    equal(succeeds(program, mount.lun(0)).strip(), "SRPFS   RAM DISK", "what it prints")


@test
def a_command_of_a_silent_unit_ends_with_its_time_limit_or_a_signal(t):
    hole = BlackHole(t)
    door = hole.second / "lun0.attr" / "cdb"
    hole.open()
    fails_with(errno.ETIMEDOUT, "after a second", lambda: write_once(door, INQUIRY + " timeout=1"))
    script = "import os, sys; os.write(os.open(sys.argv[1], os.O_WRONLY), sys.argv[2].encode())"
    with subprocess.Popen(["python3", "-c", script, str(door), INQUIRY], stderr=subprocess.DEVNULL) as writer:
        eventually(lambda: hole.mount.requests() > 0, "it waits")
        killed(writer, "who waits for it")
    hole.file.unlink()
    eventually(lambda: value(hole.second / "state") == "running", "the connection is back")
    eventually(lambda: errno_of(lambda: write_once(door, INQUIRY)) == 0, "commands go again")


# What was written by hand, given up, and may still happen is in nobody's way later: the fence comes first.
@test
def a_write_by_hand_that_is_given_up_does_not_overtake_a_later_one(t):
    stuck = Stuck(t, options="raw_commands=all")
    mount = stuck.mount
    old, new = pattern(512, 1), pattern(512, 2)
    door = mount.target / "lun0.attr" / "cdb"
    stuck.hold("lun0")
    fails_with(errno.ETIMEDOUT, "a write that is held", lambda: write_once(door, f"{WRITE_1} timeout=1 out={old.hex()}"))
    writer = Background(lambda: write_new(mount.lun(0), new))
    stuck.go_on()
    writer.wait("the write after it")
    equal(read_bytes(mount.lun(0))[512:1024], new, "what is on the unit")


def write_new(path, data):
    with opened(path) as handle:
        os.pwrite(handle, data, 512)


@test
def no_more_than_some_commands_wait_at_a_time(t):
    stuck = Stuck(t, options="allow_other,umask=0")
    mount = stuck.mount
    door = mount.target / "lun0.attr" / "cdb"
    stuck.hold("lun0")

    def read():
        with opened(mount.lun(0), os.O_RDONLY) as handle:
            return ioctl(handle, READ_1, IN, bytes_in=512)[0]

    # By ioctl, because the kernel lets one writer of a control file in at a time; and by processes, because Python keeps its
    # lock in an ioctl with so much data.
    waiting = [Background(in_child, lambda: check(read() == 0, "not GOOD"), NOBODY) for _ in range(4)]
    eventually(lambda: mount.requests() == 4, "four commands wait")
    equal(in_child(read, NOBODY), errno.EBUSY, "the fifth of those that are not root")
    waiting += [Background(in_child, lambda: check(read() == 0, "not GOOD")) for _ in range(4)]
    eventually(lambda: mount.requests() == 8, "eight commands wait")
    equal(in_child(read), errno.EBUSY, "the ninth")
    fails_with(errno.EBUSY, "the tenth", lambda: write_once(door, INQUIRY))
    stuck.go_on()
    for one in waiting:
        equal(one.wait("one of eight"), 0, "errno of one of eight")
    write_once(door, INQUIRY)


# Who may only read costs nobody else the connection: what he gives up is not aborted.
@test
def a_read_by_hand_that_is_given_up_is_not_aborted(t):
    stuck = Stuck(t)
    mount = stuck.mount
    with opened(mount.lun(0), os.O_RDONLY) as handle:
        fails_with(errno.EINVAL, "a millisecond", lambda: ioctl(handle, READ_1, IN, bytes_in=512, timeout=1))
        stuck.hold("lun0")
        fails_with(errno.ETIMEDOUT, "a second", lambda: ioctl(handle, READ_1, IN, bytes_in=512, timeout=1000))
        stuck.go_on()
        equal(ioctl(handle, READ_1, IN, bytes_in=512)[0], 0, "the next one")
