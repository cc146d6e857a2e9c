# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""lunN.attr: what the unit says of itself, and how this mount shows it."""

import errno
import os
import re
import struct
import subprocess

from harness import (BOTH, LOGIN, NOBODY, Background, check, contains, equal, errno_of, eventually, fails_with, in_child, opened, pattern,
                     read_bytes, read_file, run, succeeds, test, value, write_once)
from trouble import BlackHole, killed

MIB = 1 << 20
WWID = "naa.6000000000000001aaaabbbbccccdddd"


def sections(text):
    """Paragraphs of "name: value" lines."""
    return [dict(line.split(": ", 1) for line in part.splitlines()) for part in text.split("\n\n")]


@test
def what_the_unit_says_of_itself_can_be_read_raw_and_as_text(t):
    mount = t.mount(f"demo:ram:1M,wwid={WWID},thin,wce+ram:2M,bs=4096")
    unit = mount.target / "lun0.attr"
    inquiry = read_bytes(unit / "inquiry")
    equal((len(inquiry), inquiry[0], inquiry[4] + 5, inquiry[8:16], inquiry[16:32]), (36, 0, 36, b"SRPFS   ", b"RAM DISK        "), "INQUIRY data")
    text = sections(read_file(unit / "inquiry.txt"))[0]
    equal((text["device type"], text["vendor"], text["product"], text["revision"]), ("00h disk", "SRPFS", "RAM DISK", "1.0"), "inquiry.txt")

    pages = read_bytes(unit / "vpd_pg0")
    equal(pages, bytes([0, 0, 0, 6, 0, 0x80, 0x83, 0xb0, 0xb1, 0xb2]), "VPD page 00h")
    equal(sorted(path.name for path in unit.glob("vpd_pg*")), sorted(f"vpd_pg{page:x}" for page in pages[4:]), "files of VPD pages")
    for page in pages[4:]:
        content = read_bytes(unit / f"vpd_pg{page:x}")
        equal((content[1], struct.unpack(">H", content[2:4])[0] + 4), (page, len(content)), f"head of VPD page {page:02x}h")
    check(bytes.fromhex(WWID[4:]) in read_bytes(unit / "vpd_pg83"), "VPD page 83h lacks the identity")
    by_page = {section["page"][:3]: section for section in sections(read_file(unit / "vpd.txt"))}
    equal(sorted(by_page), ["00h", "80h", "83h", "b0h", "b1h", "b2h"], "pages in vpd.txt")
    equal(by_page["83h"]["logical unit, NAA"], "0x" + WWID[4:], "the identity in vpd.txt")
    equal(by_page["80h"]["serial number"], mount.attribute(0, "serial"), "the serial number in vpd.txt")
    equal(by_page["b2h"]["provisioning"], "thin", "provisioning in vpd.txt")

    mode = read_bytes(unit / "mode_pages")
    equal(struct.unpack(">H", mode[:2])[0] + 2, len(mode), "length of mode data")
    contains(read_file(unit / "mode_pages.txt"), "page: 08h caching\nwrite cache (WCE): 1\n", "mode_pages.txt")
    contains(read_file(mount.target / "lun1.attr" / "mode_pages.txt"), "page: 08h caching\nwrite cache (WCE): 0\n", "mode_pages.txt of lun1")
    for name in ("inquiry.txt", "vpd.txt", "mode_pages.txt"):
        check(re.fullmatch(r"([ -~]+\n|\n)+", read_file(unit / name)), f"{name} is not lines of printable text")
    # In pieces, and by several readers.
    with opened(unit / "inquiry", os.O_RDONLY) as handle:
        equal(os.pread(handle, 8, 8) + os.pread(handle, 100, 16), inquiry[8:], "in pieces from the middle")
        equal(b"".join(iter(lambda: os.read(handle, 5), b"")), inquiry, "in small pieces")
    equal(succeeds(f"dd if='{unit}/vpd_pg83' bs=1 status=none | cmp - '{unit}/vpd_pg83' && echo same"), "same\n", "dd bs=1")
    for reader in [Background(lambda: [read_bytes(unit / "vpd_pg83") for _ in range(50)]) for _ in range(4)]:
        reader.wait("a reader")
    for name in ("inquiry", "vpd.txt"):
        fails_with(errno.EACCES, f"writing {name}", lambda n=name: os.close(os.open(unit / n, os.O_WRONLY)))


@test
def a_reader_of_what_a_silent_unit_says_waits_for_seconds_only(t):
    hole = BlackHole(t)
    path = hole.second / "lun0.attr" / "vpd_pg83"
    before = read_bytes(path)
    hole.open()
    script = "import sys; open(sys.argv[1], 'rb').read()"
    with subprocess.Popen(["python3", "-c", script, str(path)], stderr=subprocess.DEVNULL) as reader:
        eventually(lambda: hole.mount.requests() > 0, "the reader waits")
        killed(reader, "the reader")
    check(errno_of(lambda: read_bytes(path)) in (errno.ETIMEDOUT, errno.EIO), "reading from a unit that is not reached")
    check(read_bytes(hole.mount.target / "lun0.attr" / "vpd_pg83") == before, "the same unit by another path")
    hole.file.unlink()
    eventually(lambda: value(hole.second / "state") == "running", "the connection is back")
    eventually(lambda: errno_of(lambda: read_bytes(path)) == 0, "the unit tells again")
    equal(read_bytes(path), before, "what it says")


@test
def owner_group_and_mode_of_a_unit_are_set_by_files(t):
    mount = t.mount("demo:ram:1M+ram:1M", "allow_other,uid=7,gid=8,umask=027")
    unit, lun = mount.target / "lun0.attr", mount.lun(0)
    equal([value(unit / name) for name in ("uid", "gid", "mode")], ["7", "8", "0640"], "as mounted")
    for name, text in (("uid", "1234"), ("gid", "5678"), ("mode", "0604")):
        write_once(unit / name, text)
    status = lun.stat()
    equal((status.st_uid, status.st_gid, oct(status.st_mode & 0o7777)), (1234, 5678, "0o604"), "what stat tells")
    equal([value(unit / name) for name in ("uid", "gid", "mode")], ["1234", "5678", "0604"], "what the files tell")
    equal(in_child(lambda: len(read_bytes(lun)), NOBODY), 0, "reading as somebody else")
    os.chmod(lun, 0o600)
    os.chown(lun, 1, 2)
    equal([value(unit / name) for name in ("uid", "gid", "mode")], ["1", "2", "0600"], "after chmod and chown")
    equal(oct(mount.lun(1).stat().st_mode & 0o7777), "0o640", "the other unit's mode")
    for name, texts in (("uid", ("-1", "root", "4294967295", "1 2", "0x10", "99999999999999999999")), ("gid", ("-1", "x")),
                        ("mode", ("8", "1000", "rw", "-1", "0o644")), ("read_only", ("2", "ro", "-1"))):
        before = value(unit / name)
        for text in texts:
            fails_with(errno.EINVAL, f"{text} as {name}", lambda n=name, x=text: write_once(unit / n, x))
            contains(value(unit / "last_error"), f"{name}: '{text}' is not a", "last_error")
        equal(value(unit / name), before, f"{name} afterwards")
    # They outlive a logout, as chmod does.
    write_once(mount.target / "delete", "1")
    write_once(mount.path / "add_target", LOGIN)
    equal([value(unit / name) for name in ("uid", "gid", "mode")], ["1", "2", "0600"], "after a logout")


@test
def a_unit_is_made_read_only_for_this_mount(t):
    image = t.path("image")
    image.write_bytes(bytes(MIB))
    mount = t.mount(f"demo:ram:1M+file:{image},ro")
    lun, path = mount.lun(0), mount.target / "lun0.attr" / "read_only"
    with opened(lun):
        fails_with(errno.EBUSY, "while it is open for writing", lambda: write_once(path, "1"))
    with opened(lun, os.O_RDONLY):
        write_once(path, "1")
    equal((value(path), oct(lun.stat().st_mode & 0o777)), ("1", "0o400"), "read_only and mode")
    fails_with(errno.EROFS, "opening it for writing", lambda: os.close(os.open(lun, os.O_RDWR)))
    fails_with(errno.EROFS, "truncating it", lambda: os.truncate(lun, 0))
    read_bytes(lun)
    write_once(mount.target / "lun0.attr" / "rescan", "1")
    equal(value(path), "1", "after a rescan")
    write_once(path, "0")
    lun.write_bytes(b"again")
    equal(read_bytes(lun)[:5], b"again", "what was written then")
    fails_with(errno.EROFS, "making a write protected unit writable", lambda: write_once(mount.target / "lun1.attr" / "read_only", "0"))
    write_once(mount.target / "lun1.attr" / "read_only", "1")


@test
def options_of_a_mount_say_how_units_are_shown(t):
    image = t.path("image")
    image.write_bytes(bytes(MIB))
    mount = t.mount(f"demo:ram:1M,wwid={WWID}+ram:1M+ram:1M,wce+file:{image},ro",
                    f"raw_commands=all,lun=*:mode=0640:gid=7,lun={WWID}:ro,lun=*/lun2:hide,lun=wwn-0x{WWID[4:]}:uid=5,lun=lun3:rw")
    first, second = mount.lun(0), mount.lun(1)
    seen = [(oct(one.stat().st_mode & 0o777), one.stat().st_uid, one.stat().st_gid) for one in (first, second, mount.lun(3))]
    equal(seen, [("0o440", 5, 7), ("0o640", 0, 7), ("0o440", 0, 7)], "mode and owners")
    check(not mount.lun(2).exists() and not (mount.target / "lun2.attr").exists(), "the hidden unit is shown")
    equal([name for name in os.listdir(mount.path / "by-path") if name.endswith("lun-2")], [], "links to the hidden unit")
    fails_with(errno.EROFS, "opening the read-only unit for writing", lambda: os.close(os.open(first, os.O_RDWR)))
    fails_with(errno.EROFS, "truncating it", lambda: os.truncate(first, 0))
    write = "2a 00 00 00 00 00 00 00 01 00 out=" + "ab" * 512
    fails_with(errno.EROFS, "WRITE by hand", lambda: write_once(mount.target / "lun0.attr" / "cdb", write))
    for lasting in ("read_only", "rescan"):
        if lasting == "rescan":
            write_once(mount.target / "lun0.attr" / lasting, "1")
        fails_with(errno.EROFS, "making it writable", lambda: write_once(mount.target / "lun0.attr" / "read_only", "0"))
    contains(value(mount.target / "lun0.attr" / "last_error"), "lun=", "last_error")
    equal(value(mount.target / "lun0.attr" / "read_only"), "1", "read_only")
    equal(read_bytes(first), bytes(MIB), "what is on it")
    second.write_bytes(b"x" * 512)
    fails_with(errno.EROFS, "rw does not lift the unit's own protection", lambda: os.close(os.open(mount.lun(3), os.O_RDWR)))
    # What people set goes before it, and a rescan finds no new file for what is hidden.
    os.chown(second, 8, 9)
    write_once(mount.target / "rescan", "1")
    equal((second.stat().st_uid, second.stat().st_gid, mount.lun(2).exists()), (8, 9, False), "after chown and a rescan")
    write_once(mount.target / "delete", "1")
    write_once(mount.path / "add_target", LOGIN)
    equal((oct(first.stat().st_mode & 0o777), value(mount.target / "lun0.attr" / "read_only")), ("0o440", "1"), "after another login")
