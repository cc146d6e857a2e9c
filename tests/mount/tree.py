# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The tree: names, modes, owners and contents are a contract."""

import ctypes
import errno
import json
import os
import re
import select
import stat
import time

from harness import (NOBODY, PATIENCE, PORT, TARGET, check, contains, equal, fails_with, in_child, needs, opened, promised, read_bytes,
                     read_file, run, succeeds, test, value)

HEX16 = "0x[0-9a-f]{16}"
GID = "[0-9a-f]{4}(:[0-9a-f]{4}){7}"
COUNT = r"\d+"

# name: (mode, content); None: not looked at here
TOP = {"add_target": (0o644, None), "stats": (0o444, None), "metrics": (0o444, None), "events": (0o444, None), "events.log": (0o444, None), "version": (0o444, None),
       "last_error": (0o444, ".*")}
IN_PORT = {"add_target": (0o200, None), "ibdev": (0o444, "demo0"), "port": (0o444, "1"), "last_error": (0o444, ".*")}
# dgid, orig_dgid, pkey and service_id belong to InfiniBand targets (decisions 38).
IN_TARGET = {
    "state": (0o444, "running"), "dev_loss_tmo": (0o644, "600"), "fast_io_fail_tmo": (0o644, "15"),
    "reconnect_delay": (0o644, "10"), "failed_reconnects": (0o444, "0"),
    "port_id": (0o444, "00:00:00:00:00:00:00:01:00:00:00:00:00:00:00:01"), "roles": (0o444, "SRP Target"),
    "delete": (0o200, None), "rescan": (0o200, None), "reset": (0o200, None), "last_error": (0o444, ".*"),
    "id_ext": (0o444, "0x0000000000000001"), "ioc_guid": (0o444, "0x0000000000000001"), "sgid": (0o444, GID),
    "req_lim": (0o444, COUNT), "zero_req_lim": (0o444, COUNT), "local_ib_device": (0o444, "demo0"),
    "local_ib_port": (0o444, "1"), "ch_count": (0o444, "1"), "comp_vector": (0o444, "0"), "tl_retry_count": (0o444, "7"),
    "cmd_sg_entries": (0o444, "12"), "allow_ext_sg": (0o444, "false"), "queue_size": (0o444, "62")}
IN_LUN = {"wwid": (0o444, r"naa\.[0-9a-f]{32}"), "vendor": (0o444, "SRPFS"), "model": (0o444, "RAM DISK"), "rev": (0o444, "1.0"),
          "serial": (0o444, r"\S+"), "logical_block_size": (0o444, "512"), "physical_block_size": (0o444, "512"),
          "read_only": (0o644, "0"), "uid": (0o644, "0"), "gid": (0o644, "0"), "mode": (0o644, "0600"), "cache": (0o644, "direct"), "state": (0o444, "running"), "last_error": (0o444, ".*"), "reset": (0o200, None),
          "rescan": (0o200, None), "reservations": (0o644, None), "cdb": (0o600, None), "inquiry": (0o444, None), "inquiry.txt": (0o444, None), "mode_pages": (0o444, None),
          "mode_pages.txt": (0o444, None), "vpd.txt": (0o444, None)}
IN_LUN.update({f"vpd_pg{page}": (0o444, None) for page in ("0", "80", "83", "b0", "b1", "b2")})


def wanted_tree(wwids):
    """path below the mount point: (mode, size, content); wwids of lun0 and lun1"""
    def files(folder, table):
        return {f"{folder}{name}": (stat.S_IFREG | mode, 0, content) for name, (mode, content) in table.items()}

    target = f"{PORT}/{TARGET}"
    links = {f"by-target/{TARGET}": f"../{target}"}
    for number, wwid in enumerate(wwids):
        for name in (f"by-id/wwn-0x{wwid[4:]}", f"by-id/scsi-3{wwid[4:]}", f"by-path/demo0-1-srp-{TARGET}-lun-{number}"):
            links[name] = f"../{target}/lun{number}"
    directory = (stat.S_IFDIR | 0o755, 0, None)
    wanted = {PORT: directory, target: directory, f"{target}/lun0.attr": directory, f"{target}/lun1.attr": directory}
    wanted.update(files("", TOP))
    wanted.update(files(f"{PORT}/", IN_PORT))
    wanted.update(files(f"{target}/", IN_TARGET))
    for number, size in ((0, 64 << 20), (1, 1 << 30)):
        wanted[f"{target}/lun{number}"] = (stat.S_IFREG | 0o600, size, None)
        wanted.update(files(f"{target}/lun{number}.attr/", IN_LUN))
    wanted.update({name: directory for name in ("by-id", "by-path", "by-target")})
    wanted.update({name: (stat.S_IFLNK | 0o777, len(place), None) for name, place in links.items()})
    return wanted


def walk(top):
    """Relative names of all below."""
    found = []
    for folder, folders, files in os.walk(top):
        found += [os.path.relpath(os.path.join(folder, name), top) for name in folders + files]
    return found


@test
def the_tree_is_what_the_contract_says(t):
    mount = t.mount("demo")
    wanted = wanted_tree([mount.attribute(number, "wwid") for number in (0, 1)])
    found = walk(mount.path)
    equal(sorted(set(found) - set(wanted)), [], "names that should not be there")
    equal(sorted(set(wanted) - set(found)), [], "names that are missing")
    equal(len(found), len(set(found)), "names, each counted once")
    for name, (mode, size, content) in wanted.items():
        path = mount.path / name
        status = path.lstat()
        equal(oct(status.st_mode), oct(mode), f"mode of {name}")
        equal((status.st_uid, status.st_gid), (0, 0), f"owner of {name}")
        equal(status.st_size, size, f"size of {name}")
        if content is not None:
            check(re.fullmatch(content, value(path)), f"{name}: {value(path)!r} is not {content}")


@test
def an_initiator_ext_is_part_of_the_name(t):
    mount = t.mount("demo:ram:1M")
    (mount.path / "add_target").write_text("id_ext=1,ioc_guid=1,dest=demo,initiator_ext=00ABCDEF")
    equal(sorted(path.name for path in mount.port.iterdir() if path.is_dir()), [TARGET, f"{TARGET}-0000000000abcdef"],
          "directories of targets")


@test
def luns_are_numbered_in_decimal(t):
    mount = t.mount("demo:" + "+".join(["ram:1M"] * 12))
    luns = sorted((path.name for path in mount.target.iterdir() if path.name.startswith("lun") and path.is_file()),
                  key=lambda name: int(name[3:]))
    equal(luns, [f"lun{number}" for number in range(12)], "names of LUNs")
    wwids = {mount.attribute(number, "wwid") for number in range(12)}
    equal(len(wwids), 12, "different wwids")


@test
def two_hundred_and_fifty_six_luns_are_shown(t):
    mount = t.mount("demo:" + "+".join(["null:1G"] * 256))
    names = set(os.listdir(mount.target))
    for number in (0, 9, 100, 255):
        check({f"lun{number}", f"lun{number}.attr"} <= names, f"lun{number} is missing")
    equal(sum(name.endswith(".attr") for name in names), 256, "LUNs")


@test
def attributes_tell_what_the_unit_is(t):
    image = t.path("image")
    image.write_bytes(bytes(2 << 20))
    mount = t.mount(f"demo:ram:1M,bs=4096+file:{image},ro+null:1T,wwid=naa.5000000000000001+ram:3M,wwid=eui.0011223344556677")
    for number, name, wanted in ((0, "logical_block_size", "4096"), (0, "physical_block_size", "4096"), (0, "read_only", "0"),
                                 (1, "model", "FILE DISK"), (1, "read_only", "1"), (1, "logical_block_size", "512"),
                                 (2, "model", "NULL DISK"), (2, "wwid", "naa.5000000000000001"),
                                 (3, "wwid", "eui.0011223344556677")):
        equal(mount.attribute(number, name), wanted, f"{name} of lun{number}")
    for number, size, mode in ((0, 1 << 20, 0o600), (1, 2 << 20, 0o400), (2, 1 << 40, 0o600), (3, 3 << 20, 0o600)):
        status = mount.lun(number).stat()
        equal((status.st_size, oct(status.st_mode & 0o7777)), (size, oct(mode)), f"size and mode of lun{number}")
    again = t.mount("demo:ram:1M,bs=4096")
    equal(again.attribute(0, "wwid"), mount.attribute(0, "wwid"), "wwid in another run")


READERS = ["cat '{0}'", "head '{0}'", "head -c 4096 '{0}'", "tail '{0}'", "dd if='{0}' bs=1 status=none",
           "dd if='{0}' bs=7 status=none", "dd if='{0}' bs=1M status=none", "grep '' '{0}'", "sed -n p '{0}'", "awk 1 '{0}'", "sort '{0}'",
           "cp '{0}' /dev/stdout", "while read -r line; do echo \"$line\"; done < '{0}'", "echo \"$(<'{0}')\"",
           "echo \"$(cat '{0}')\"", "python3 -c 'import sys; print(open(sys.argv[1]).read(), end=\"\")' '{0}'",
           "diff '{0}' /dev/null | sed -n 's/^< //p'", "perl -pe 1 '{0}'", "tr -d '\\0' < '{0}'", "cat < '{0}'"]


@test
def every_way_of_reading_gives_the_value(t):
    mount = t.mount("demo:ram:1M")
    for path in (mount.target / "state", mount.target / "port_id", mount.target / "lun0.attr" / "wwid"):
        wanted = read_file(path)
        for reader in READERS:
            done = run(reader.format(path))
            equal((done.returncode, done.stderr, done.stdout), (0, "", wanted), reader.format(path))
    lines = read_file(mount.path / "add_target")
    for reader in ("cat", "head -c 100000", "dd bs=1 status=none if=", "dd bs=100 status=none if=", "sed -n p"):
        glue = "" if reader.endswith("=") else " "
        equal(succeeds(f"{reader}{glue}'{mount.path / 'add_target'}'"), lines, f"{reader} add_target")
    done = run(f"grep . '{mount.target}'/*tmo")
    equal(done.stdout, f"{mount.target}/dev_loss_tmo:600\n{mount.target}/fast_io_fail_tmo:15\n", "grep . over all time-outs")
    equal(succeeds(f"md5sum < '{mount.target}/state'"), succeeds("printf 'running\\n' | md5sum"), "md5sum of state")


@test
def a_reader_sees_one_snapshot(t):
    mount = t.mount("demo:ram:1M")
    path = mount.target / "reconnect_delay"
    (path).write_text("12345")
    with opened(path, os.O_RDONLY) as handle:
        equal(os.read(handle, 2), b"12", "first bytes")
        path.write_text("67")
        equal(os.read(handle, 100), b"345\n", "rest of the same value")
        equal(os.read(handle, 100), b"", "end")
        equal(os.pread(handle, 100, 0), b"67\n", "from the beginning again")
        equal(os.pread(handle, 2, 1), b"7\n", "at an offset")
        equal(os.pread(handle, 2, 1000), b"", "beyond the end")
        os.lseek(handle, 0, os.SEEK_SET)
        equal(os.read(handle, 100), b"67\n", "after a seek")


@test
def files_do_only_what_their_mode_says(t):
    mount = t.mount("demo:ram:1M")
    for name in ("delete", "rescan", "reset", "lun0.attr/reset", "lun0.attr/rescan", "../add_target"):
        path = mount.target / name
        fails_with(errno.EACCES, f"reading {name}", lambda p=path: read_bytes(p))
        fails_with(errno.EACCES, f"opening {name} for both", lambda p=path: os.close(os.open(p, os.O_RDWR)))
    for name in ("state", "id_ext", "lun0.attr/wwid", "../ibdev", "../../version", "../../stats", "../../events", "../../last_error"):
        path = mount.target / name
        fails_with(errno.EACCES, f"writing {name}", lambda p=path: os.close(os.open(p, os.O_WRONLY)))
        done = run(f"echo 1 > '{path}'")
        check(done.returncode != 0 and "Permission denied" in done.stderr, f"echo 1 > {name}: {done.returncode} {done.stderr!r}")
    fails_with(errno.ENOTDIR, "a file as a directory", lambda: os.stat(mount.target / "state" / "x"))
    fails_with(errno.ENOENT, "a name that is not there", lambda: os.stat(mount.target / "lun7"))
    fails_with(errno.EISDIR, "writing a directory", lambda: os.close(os.open(mount.target, os.O_WRONLY)))


@test
def nothing_can_be_made_or_removed(t):
    mount = t.mount("demo:ram:1M")
    for where in (mount.path, mount.port, mount.target, mount.target / "lun0.attr"):
        for what, action in (
                ("create", lambda d: os.close(os.open(d / "new", os.O_CREAT | os.O_WRONLY))),
                ("exclusive create", lambda d: os.close(os.open(d / "new", os.O_CREAT | os.O_EXCL | os.O_WRONLY))),
                ("mkdir", lambda d: os.mkdir(d / "new")), ("mknod", lambda d: os.mknod(d / "new")),
                ("mkfifo", lambda d: os.mkfifo(d / "new")), ("symlink", lambda d: os.symlink("x", d / "new")),
                ("rename", lambda d: os.rename(next(d.iterdir()), d / "new")),
                ("link", lambda d: os.link(next(p for p in d.iterdir() if p.is_file()), d / "new")),
                ("unlink", lambda d: os.unlink(next(p for p in d.iterdir() if p.is_file())))):
            fails_with(errno.EPERM, f"{what} in {os.path.relpath(where, mount.path)}", lambda a=action, d=where: a(d))
    fails_with(errno.EPERM, "rmdir", lambda: os.rmdir(mount.target / "lun0.attr"))
    fails_with(errno.EPERM, "unlink of a LUN", lambda: os.unlink(mount.lun(0)))
    fails_with(errno.EPERM, "rename over a LUN", lambda: os.rename(mount.target / "state", mount.lun(0)))
    for command in (f"mv '{mount.lun(0)}' '{mount.target}/lun5'", f"rm '{mount.target}/state'", f"touch '{mount.path}/x'",
                    f"mkdir '{mount.path}/d'", f"sed -i s/1/2/ '{mount.target}/state'"):
        done = run(command)
        check(done.returncode != 0 and "not permitted" in done.stderr, f"{command}: {done.returncode} {done.stderr!r}")
    check(mount.lun(0).exists(), "lun0 is gone")


@test
def chmod_chown_and_touch_are_kept(t):
    mount = t.mount("demo:ram:1M")
    lun, state = mount.lun(0), mount.target / "state"
    for path in (lun, state, mount.target, mount.path):
        os.chmod(path, 0o640)
        os.chown(path, 12, 34)
        os.utime(path, (1e9, 2e9))
        status = path.stat()
        equal((oct(status.st_mode & 0o7777), status.st_uid, status.st_gid, status.st_atime, status.st_mtime),
              ("0o640", 12, 34, 1e9, 2e9), f"attributes of {path.name}")
        os.chmod(path, 0o755)
    os.chown(lun, -1, 56)
    equal((lun.stat().st_uid, lun.stat().st_gid), (12, 56), "owner after chgrp")
    begin = time.time()
    succeeds("touch", lun)
    check(begin - 1 < lun.stat().st_mtime < time.time() + 1, "touch sets the time to now")
    lun.write_bytes(b"x")
    # They outlive a logout.
    (mount.target / "delete").write_text("1")
    (mount.path / "add_target").write_text("id_ext=1,ioc_guid=1,dest=demo")
    equal((lun.stat().st_uid, lun.stat().st_gid, oct(lun.stat().st_mode & 0o7777)), (12, 56, "0o755"), "attributes after login")


@test
def times_make_sense(t):
    before = time.time()
    mount = t.mount("demo:ram:1M")
    for path in (mount.path, mount.target, mount.target / "state", mount.lun(0)):
        status = path.stat()
        check(before - 5 < status.st_mtime < time.time() + 5, f"mtime of {path.name} is {status.st_mtime}")
    time.sleep(0.05)
    written_at = time.time()
    with opened(mount.lun(0)) as handle:
        os.pwrite(handle, b"x", 0)
    modified = os.stat(mount.lun(0)).st_mtime
    check(written_at - 1 < modified < time.time() + 1 and modified > before, f"mtime after a write: {modified - written_at:+.3f} s")


@test
def extended_attributes_are_answered_quickly(t):
    mount = t.mount("demo:ram:1M")
    for path in (mount.path, mount.lun(0), mount.target / "state"):
        for name in ("user.x", "security.selinux", "system.posix_acl_access", "trusted.x"):
            code = errno_of_getxattr(path, name)
            check(code in (errno.ENODATA, errno.EOPNOTSUPP), f"getxattr {name} of {path.name}: {errno.errorcode[code]}")
        fails_with(errno.EPERM, f"setxattr of {path.name}", lambda p=path: os.setxattr(p, "user.x", b"1"))
        fails_with(errno.EOPNOTSUPP, f"setxattr of {path.name}", lambda p=path: os.setxattr(p, "trusted.x", b"1"))
        fails_with(errno.ENODATA, f"removexattr of {path.name}", lambda p=path: os.removexattr(p, "user.x"))
    equal(errno_of_getxattr(mount.lun(0), "security.selinux"), errno.ENODATA, "getxattr security.selinux")
    with promised(2, "500 getxattr", beside=lambda: [mount.lun(0).stat() for _ in range(500)]):
        for _ in range(500):
            errno_of_getxattr(mount.lun(0), "user.x")
    done = run("ls", "-lR", mount.path)
    equal((done.returncode, done.stderr), (0, ""), "ls -lR")


@test
def extended_attributes_name_the_unit(t):
    mount = t.mount("demo:ram:1M,bs=4096,wwid=naa.6000000000000001aaaabbbbccccdddd+ram:1M")
    names = ["wwid", "vendor", "product", "revision", "serial", "block_size", "physical_block_size", "lun", "target"]
    for path in (mount.lun(0), mount.target / "lun0.attr"):
        equal(os.listxattr(path), [f"user.srpfs.{name}" for name in names], f"listxattr of {path.name}")
        values = {name: os.getxattr(path, f"user.srpfs.{name}").decode() for name in names}
        equal(values, {"wwid": "naa.6000000000000001aaaabbbbccccdddd", "vendor": "SRPFS", "product": "RAM DISK", "revision": "1.0",
                       "serial": mount.attribute(0, "serial"), "block_size": "4096", "physical_block_size": "4096", "lun": "0", "target": TARGET},
              f"extended attributes of {path.name}")
        for name in names:
            fails_with(errno.EPERM, f"setxattr {name}", lambda p=path, n=name: os.setxattr(p, f"user.srpfs.{n}", b"x"))
            fails_with(errno.EPERM, f"removexattr {name}", lambda p=path, n=name: os.removexattr(p, f"user.srpfs.{n}"))
    equal(os.getxattr(mount.lun(1), "user.srpfs.block_size"), b"512", "block_size of lun1")
    equal({name: os.getxattr(mount.target, name) for name in os.listxattr(mount.target)},
          {"user.srpfs.target": TARGET.encode(), "user.srpfs.address": b"demo", "user.srpfs.port": PORT.encode()}, "those of the target")
    equal((os.listxattr(mount.path), os.listxattr(mount.target / "state")), ([], []), "those of other files")
    # Too little room, exactly enough, and the question how much there is.
    room = ctypes.create_string_buffer(64)
    libc = ctypes.CDLL(None, use_errno=True)
    for size, result in ((0, 4), (3, -1), (4, 4), (64, 4)):
        equal(libc.getxattr(bytes(mount.lun(0)), b"user.srpfs.block_size", room, size), result, f"getxattr with room for {size} bytes")
        if result < 0:
            equal(ctypes.get_errno(), errno.ERANGE, "errno without enough room")
    equal(libc.listxattr(bytes(mount.lun(0)), room, 10), -1, "listxattr with room for 10 bytes")
    equal(ctypes.get_errno(), errno.ERANGE, "errno of listxattr without enough room")
    copy = t.path("copy")
    succeeds("cp", "--preserve=xattr", mount.lun(0), copy)
    equal(os.getxattr(copy, "user.srpfs.wwid"), b"naa.6000000000000001aaaabbbbccccdddd", "the copy's wwid")


def errno_of_getxattr(path, name):
    try:
        os.getxattr(path, name)
    except OSError as error:
        return error.errno
    return 0


@test
def statfs_tells_the_sum_of_the_luns(t):
    mount = t.mount("demo:ram:64M+null:1G")
    status = os.statvfs(mount.path)
    equal((status.f_blocks * status.f_frsize, status.f_bfree, status.f_bavail, status.f_namemax), ((64 << 20) + (1 << 30), 0, 0, 255),
          "total, free, available, longest name")
    equal(succeeds("df", "--output=size", "-B1M", mount.path).split()[1], "1088", "df")


@test
def directories_list_well(t):
    mount = t.mount("demo:" + "+".join(["null:1G"] * 200))
    entries = {entry.name: entry for entry in os.scandir(mount.target)}
    for name, entry in entries.items():
        equal(entry.is_dir(follow_symlinks=False), name.endswith(".attr"), f"type of {name} in the listing")
        equal(entry.inode(), (mount.target / name).lstat().st_ino, f"inode number of {name}")
    equal(len({entry.inode() for entry in entries.values()}), len(entries), "different inode numbers")
    equal(mount.target.stat().st_nlink, 2 + 200, "links of the directory")
    equal(sorted(os.listdir(mount.target)), sorted(entries), "second listing")
    equal(len(succeeds("find", mount.path, "-name", "wwid").split()), 200, "find -name wwid")
    equal((mount.path / ".." ).resolve(), mount.path.parent, "parent of the mount")
    equal(os.stat(mount.target / "..").st_ino, os.stat(mount.port).st_ino, "parent of the target")


@test
def names_appear_and_vanish_at_once(t):
    mount = t.mount("demo:ram:1M")
    other = mount.port / f"{TARGET}-0000000000000007"
    fails_with(errno.ENOENT, "before the login", lambda: os.stat(other / "lun0"))
    (mount.path / "add_target").write_text("id_ext=1,ioc_guid=1,dest=demo,initiator_ext=7")
    equal((other / "lun0").stat().st_size, 1 << 20, "size right after the login")
    contains(os.listdir(mount.port), other.name, "listing right after the login")
    (other / "delete").write_text("1")
    fails_with(errno.ENOENT, "right after delete", lambda: os.stat(other / "lun0"))
    check(other.name not in os.listdir(mount.port), "still listed after delete")


@test
def other_users_see_nothing_without_allow_other(t):
    mount = t.mount("demo:ram:1M")
    equal(in_child(lambda: os.stat(mount.path / "version"), NOBODY), errno.EACCES, "stat as another user")
    equal(in_child(lambda: os.listdir(mount.path), NOBODY), errno.EACCES, "listing as another user")


@test
def allow_other_obeys_the_modes(t):
    mount = t.mount("demo:ram:1M+ram:1M", "allow_other")
    reading = (mount.path / "version", mount.path / "stats", mount.target / "state", mount.target / "dev_loss_tmo", mount.path / "add_target")
    for path in reading:
        equal(in_child(lambda p=path: read_bytes(p), NOBODY), 0, f"reading {path.name} as another user")
    for path in (mount.path / "add_target", mount.port / "add_target", mount.target / "dev_loss_tmo", mount.target / "delete",
                 mount.target / "rescan", mount.target / "lun0.attr" / "reset", mount.lun(0), mount.target / "state"):
        for flags in (os.O_WRONLY, os.O_RDWR):
            equal(in_child(lambda p=path, f=flags: os.close(os.open(p, f)), NOBODY), errno.EACCES, f"opening {path.name} for writing as another user")
    equal(in_child(lambda: read_bytes(mount.lun(0)), NOBODY), errno.EACCES, "reading lun0 as another user")
    equal(in_child(lambda: os.chmod(mount.lun(0), 0o666), NOBODY), errno.EPERM, "chmod as another user")
    os.chown(mount.lun(1), NOBODY, -1)
    equal(in_child(lambda: mount.lun(1).write_bytes(b"mine"), NOBODY), 0, "writing one's own LUN")
    equal(in_child(lambda: os.truncate(mount.lun(0), 0), NOBODY), errno.EACCES, "truncate as another user")


@test
def uid_gid_and_umask_are_of_the_luns(t):
    mount = t.mount("demo:ram:1M+ram:1M,ro", f"uid={NOBODY},gid=12,umask=007,allow_other")
    for number, mode in ((0, 0o660), (1, 0o440)):
        status = mount.lun(number).stat()
        equal((status.st_uid, status.st_gid, oct(status.st_mode & 0o7777)), (NOBODY, 12, oct(mode)), f"owner and mode of lun{number}")
    for path in (mount.path / "add_target", mount.target / "delete", mount.target, mount.target / "lun0.attr" / "reset"):
        equal((path.stat().st_uid, path.stat().st_gid), (0, 0), f"owner of {path.name}")
    equal(oct((mount.target / "delete").stat().st_mode & 0o7777), oct(0o200), "mode of delete")
    equal(in_child(lambda: mount.lun(0).write_bytes(b"mine"), NOBODY), 0, "writing as the owner")
    equal(in_child(lambda: (mount.target / "delete").write_text("1"), NOBODY), errno.EACCES, "delete as the owner of the LUNs")
    mount = t.mount("demo:ram:1M", "umask=0")
    equal(oct(mount.lun(0).stat().st_mode & 0o7777), oct(0o666), "mode with umask=0")


@test
def a_read_only_mount_changes_nothing(t):
    for arguments, options in ((("-r",), ""), ((), "ro")):
        mount = t.mount("demo:ram:1M", options, arguments=arguments)
        for path in (mount.lun(0), mount.target / "dev_loss_tmo", mount.target / "delete", mount.path / "add_target"):
            fails_with(errno.EROFS, f"writing {path.name}", lambda p=path: os.close(os.open(p, os.O_WRONLY)))
        equal(oct(mount.lun(0).stat().st_mode & 0o7777), "0o400", "mode of lun0")
        fails_with(errno.EROFS, "chmod", lambda: os.chmod(mount.lun(0), 0o600))
        fails_with(errno.EROFS, "truncate", lambda: os.truncate(mount.lun(0), 0))
        fails_with(errno.EROFS, "mkdir", lambda: os.mkdir(mount.path / "x"))
        equal(read_bytes(mount.lun(0)), bytes(1 << 20), "content of lun0")
        equal(value(mount.target / "state"), "running", "state")


@test
def poll_says_ready(t):
    mount = t.mount("demo:ram:1M")
    for path, flags, wanted in ((mount.lun(0), os.O_RDWR, select.POLLIN | select.POLLOUT),
                                (mount.target / "state", os.O_RDONLY, select.POLLIN),
                                (mount.target / "dev_loss_tmo", os.O_RDWR, select.POLLIN | select.POLLOUT)):
        with opened(path, flags) as handle:
            poll = select.poll()
            poll.register(handle, select.POLLIN | select.POLLOUT)
            events = poll.poll(PATIENCE * 1000)
            check(events and events[0][1] & wanted == wanted, f"poll of {path.name}: {events}")


# ---- golden shapes ----

LATENCY = {"count": int, "sum_us": int, "p50_us": int, "p99_us": int, "p999_us": int, "buckets_us": list}
TOTAL = {"reads": int, "writes": int, "flushes": int, "bytes_read": int, "bytes_written": int, "errors": 0, "retries": int,
         "errors_by_kind": {}, "latency": {"read": LATENCY, "write": LATENCY, "flush": LATENCY}}
STATS = {
    "schema": 1, "version": "0.1.0", "uptime_seconds": int, "requests_pending": 0,
    "memory": {"registered_bytes": int, "park_bytes_max": 268435456},
    "pages": {"fills": 0, "fills_cached": 0, "drops": 0, "drop_ranges": 0, "drop_bytes": 0, "waits": 0, "waits_given_up": 0,
              "latency": {"drop": LATENCY, "wait": LATENCY}},
    "events": {"lun_added": 1, "target_added": 1, "target_login": 1, "target_state": 1},
    "reactors": [{"name": "srpfs-0", "busy_turns": int, "slow_turns": int, "sleeps": int, "slots": 62, "slots_in_use": int,
                  "requests_read": int, "requests_handed_over": 0, "answers_for_others": 0, "total": TOTAL}],
    "targets": [{
        "name": TARGET, "address": "demo", "port": PORT, "state": "running", "channels": 1, "failed_reconnects": 0,
        "req_lim": int, "zero_req_lim": int, "commands": int, "logins": 1, "losses": 0,
        "history": [{"time": str, "from": "connecting", "to": "running", "reason": str}],
        "channel_list": [{"index": 0, "state": "live", "credits": int, "credits_initial": int, "in_flight": int, "commands": int,
                          "responses": int, "task_management": 0, "path_checks": int, "timeouts": 0, "out_of_credits": int,
                          "credit_requests": 0, "async_events": 0, "unknown_tags": 0, "malformed": 0,
                          "bytes_read": int, "bytes_written": int, "errors": int, "errors_by_kind": dict,
                          "latency": {"read": LATENCY, "write": LATENCY, "other": LATENCY}}],
        "luns": [{"name": "lun0", "wwid": str, "bytes": 1 << 20, "block_bytes": 512, "read_only": False, "write_cache": True,
                  "state": "running", "requests_pending": 0, "in_flight": 0, "reads": int, "writes": int, "flushes": int, "bytes_read": int, "bytes_written": int,
                  "errors": 0, "retries": int, "interrupts": 0, "unit_attentions": int, "read_modify_writes": int, "ghosts": 0,
                  "errors_by_kind": {}, "latency": {"read": LATENCY, "write": LATENCY, "flush": LATENCY}}],
        "total": TOTAL, "reactor": "srpfs-0"}]}


def compare(got, wanted, where):
    if isinstance(wanted, dict):
        check(isinstance(got, dict), f"{where}: {got!r} is no object")
        equal(list(got), list(wanted), f"{where}: keys in order")
        for key, inner in wanted.items():
            compare(got[key], inner, f"{where}.{key}")
    elif isinstance(wanted, list):
        equal(len(got), len(wanted), f"{where}: elements")
        for index, inner in enumerate(wanted):
            compare(got[index], inner, f"{where}[{index}]")
    elif isinstance(wanted, type):
        check(type(got) is wanted and (wanted is not int or got >= 0), f"{where}: {got!r} is no {wanted.__name__}")
    else:
        equal((type(got), got), (type(wanted), wanted), where)


@test
def stats_keep_their_shape(t):
    mount = t.mount("demo:ram:1M,wce", "reactors=1")
    text = read_file(mount.path / "stats")
    compare(json.loads(text), STATS, "stats")
    check(text.endswith("}\n"), "no newline at the end")
    (mount.target / "delete").write_text("1")
    equal(mount.stats()["targets"], [], "targets after delete")
    needs("jq")
    equal(succeeds(f"jq -r .schema '{mount.path}/stats'"), "1\n", "schema by jq")


@test
def stats_count_what_happened(t):
    mount = t.mount("demo:ram:1M,wce")
    before = mount.lun_stats(0)
    with opened(mount.lun(0)) as handle:
        for _ in range(3):
            os.pwrite(handle, b"x" * 4096, 4096)
        os.pwrite(handle, b"y", 3)
        for _ in range(5):
            os.pread(handle, 8192, 0)
        os.fsync(handle)
        after = mount.lun_stats(0)
    changes = {name: after[name] - before[name] for name in ("reads", "writes", "flushes", "bytes_read", "bytes_written", "read_modify_writes")}
    equal(changes, {"reads": 5, "writes": 4, "flushes": 1, "bytes_read": 5 * 8192, "bytes_written": 3 * 4096 + 1, "read_modify_writes": 1}, "what was counted")


@test
def latencies_and_metrics_count_each_request(t):
    mount = t.mount("demo:ram:1M,wce")
    before = mount.lun_stats(0)["latency"]
    with opened(mount.lun(0)) as handle:
        for _ in range(7):
            os.pwrite(handle, b"x" * 4096, 0)
        os.pread(handle, 4096, 0)
        os.fsync(handle)
        after = mount.lun_stats(0)["latency"]
    for operation, times in (("write", 7), ("read", 1), ("flush", 1)):
        one = after[operation]
        equal(one["count"] - before[operation]["count"], times, f"{operation}: count")
        equal(sum(count for _, count in one["buckets_us"]), one["count"], f"{operation}: in buckets")
        check(0 < one["p50_us"] <= one["p99_us"] <= one["p999_us"] <= one["buckets_us"][-1][0], f"{operation}: {one}")
    text = read_file(mount.path / "metrics")
    labels = f'port="{PORT}",target="{TARGET}",lun="lun0",operation="write"'
    check(f'srpfs_lun_request_duration_seconds_count{{{labels}}} {after["write"]["count"]}\n' in text, text)
    check(f'srpfs_target_up{{port="{PORT}",target="{TARGET}"}} 1\n' in text, text)


@test
def version_is_what_the_command_prints(t):
    mount = t.mount("demo:ram:1M")
    equal(read_file(mount.path / "version"), t.srpfs("--version").stdout, "the file version")


@test
def everything_readable_is_clean_text(t):
    # ls -l and grep over everything must neither fail nor block, whoever runs them by habit.
    mount = t.mount("demo:ram:1M")
    readable = [path for path in walk(mount.path)
                if (mount.path / path).is_file() and (mount.path / path).stat().st_mode & 0o400 and path != "events"]
    binary = re.compile("lun0|inquiry|mode_pages|vpd_pg[0-9a-f]+")
    for path in readable:
        text = read_bytes(mount.path / path)
        if path.endswith("/cdb"):
            equal(text, b"", f"{path}: the answer to no command")
        elif not binary.fullmatch((mount.path / path).resolve().name):
            check(text.endswith(b"\n") and text.isascii(), f"{path}: {text[:80]!r}")
            check(not re.search(rb"[ \t]\n", text), f"{path}: trailing blanks")
