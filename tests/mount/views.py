# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""by-id/, by-path/ and by-target/: the same units under names that last."""

import errno
import os
import stat

from harness import (LOGIN, PORT, TARGET, check, equal, errno_of, eventually, opened, promised, read_bytes, read_file, succeeds, test,
                     value, write_once)
from trouble import BlackHole

NAA = "naa.6000000000000001aaaabbbbccccdddd"
OTHER = f"{TARGET}-0000000000000002"


def links(mount):
    """Where each name leads, as written."""
    return {f"{view}/{name}": os.readlink(mount.path / view / name)
            for view in ("by-id", "by-path", "by-target") for name in os.listdir(mount.path / view)}


def names_of(units, target=TARGET):
    """units: number and by-id names."""
    wanted = {f"by-target/{target}": f"../{PORT}/{target}"}
    for number, names in units:
        place = f"../{PORT}/{target}/lun{number}"
        wanted[f"by-path/demo0-1-srp-{target}-lun-{number}"] = place
        wanted.update({f"by-id/{name}": place for name in names})
    return wanted


UNITS = [(0, ["wwn-0x" + NAA[4:], "scsi-3" + NAA[4:]]), (1, ["scsi-20011223344556677"]), (2, ["scsi-1ACME_disk_1"])]
SOURCE = f"demo:ram:1M,wwid={NAA}+ram:2M,wwid=eui.0011223344556677+ram:3M,wwid=t10.ACME    disk 1"


@test
def units_have_the_names_that_udev_would_give_them(t):
    mount = t.mount(SOURCE)
    equal(links(mount), names_of(UNITS), "links")
    for name in links(mount):
        path = mount.path / name
        status = path.lstat()
        equal((stat.S_IFMT(status.st_mode), status.st_size), (stat.S_IFLNK, len(os.readlink(path))), f"type and size of {name}")
        check(path.exists(), f"{name} leads nowhere")
    (mount.path / "by-id" / UNITS[0][1][0]).write_bytes(b"through the link")
    equal(read_bytes(mount.lun(0))[:16], b"through the link", "what lun0 has")
    equal((mount.path / "by-id" / UNITS[1][1][0]).stat().st_size, 2 << 20, "size through a link")
    equal(value(mount.path / "by-target" / TARGET / "lun0.attr" / "wwid"), NAA, "wwid by the target's name")
    equal(errno_of(lambda: os.stat(mount.path / "by-id" / "wwn-0x5000000000000000")), errno.ENOENT, "a unit that is not there")
    equal(errno_of(lambda: os.readlink(mount.lun(0))), errno.EINVAL, "readlink of a LUN")
    for what, action in (("unlink", os.unlink), ("rename", lambda path: os.rename(path, str(path) + "x"))):
        equal(errno_of(lambda a=action: a(mount.path / "by-id" / UNITS[0][1][0])), errno.EPERM, f"{what} of a link")
    succeeds(f"ls -lR '{mount.path}' > /dev/null")


@test
def links_come_and_go_with_their_target(t):
    mount = t.mount(SOURCE)
    path = mount.path / "by-id" / UNITS[0][1][0]
    with opened(path) as handle:
        write_once(mount.target / "delete", "1")
        equal(links(mount), {}, "links after the logout")
        equal(errno_of(path.stat), errno.ENOENT, "a name that has been used before")
        equal(errno_of(lambda: os.pread(handle, 1, 0)), errno.ENODEV, "what was open")
    write_once(mount.path / "add_target", LOGIN)
    equal(links(mount), names_of(UNITS), "links after the next login")
    check(path.exists(), "the name leads nowhere")


@test
def of_several_paths_a_name_takes_the_oldest_that_works(t):
    hole = BlackHole(t)
    mount = hole.mount
    path = mount.path / "by-id" / ("scsi-3" + mount.attribute(0, "wwid")[4:])
    first, second = f"../{PORT}/{TARGET}/lun0", f"../{PORT}/{hole.second.name}/lun0"
    equal(os.readlink(path), first, "the first path")
    equal(len(os.listdir(mount.path / "by-path")), 4, "names by path")
    equal(len(os.listdir(mount.path / "by-id")), 4, "names by identity")
    write_once(mount.target / "delete", "1")
    equal(os.readlink(path), second, "the path that is left")
    write_once(mount.path / "add_target", LOGIN)
    equal(os.readlink(path), second, "the path that has been there longer")
    hole.open()
    eventually(lambda: value(hole.second / "state") != "running", "the second path is lost")
    equal(os.readlink(path), first, "the path that works")
    path.write_bytes(b"works")
    hole.file.unlink()
    eventually(lambda: value(hole.second / "state") == "running", "the second path is back")
    equal(os.readlink(path), second, "the path that has been there longer, again")


@test(seconds=240)
def a_thousand_units_are_listed_and_followed_quickly(t):
    mount = t.mount("demo:" + "++".join(["250*null:1G"] * 4))
    names = os.listdir(mount.path / "by-id")
    equal(len(names), 2000, "names by identity")
    equal(len(set(os.path.realpath(mount.path / "by-id" / name) for name in names)), 1000, "units")
    plain = [mount.target / f"lun{number}" for number in range(250)]
    with promised(10, "listing a thousand units and looking at each", beside=lambda: [path.stat() for path in plain * 8]):
        for name in os.listdir(mount.path / "by-id"):
            os.stat(mount.path / "by-id" / name)
    equal(len(os.listdir(mount.path / "by-path")), 1000, "names by path")
    equal(read_file(mount.path / "by-target" / TARGET / "state"), "running\n", "state")
    for name in os.listdir(mount.path / "by-target"):
        write_once(mount.path / "by-target" / name / "delete", "1")
    equal(links(mount), {}, "links at the end")
