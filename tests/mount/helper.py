# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""srpfs as mount(8)'s helper mount.fuse.srpfs, with tables of the test's own."""

import os
import pathlib
import re
import shlex

from harness import PATIENCE, TOP, check, contains, equal, mount_entry, own_mount_namespace, run, succeeds, test, unmount, wait_gone
from service import Manager

README, MAN = TOP / "README.md", TOP / "man/srpfs.8"


def with_changes(t, name, left_out):
    """For this test only: the directory as it is, without what begins so, to which the test may add."""
    real = pathlib.Path(name).resolve()
    before = t.path(name[1:])
    before.mkdir()
    succeeds("mount", "--bind", real, before)
    succeeds("mount", "-t", "tmpfs", "none", real)
    for entry in before.iterdir():
        if not entry.name.startswith(left_out):
            (real / entry.name).symlink_to(entry)
    return real


def install_helper(t):
    """/sbin with the helper, and without what would do instead (mount.fuse)."""
    own_mount_namespace()
    (with_changes(t, "/sbin", "mount.fuse") / "mount.fuse.srpfs").symlink_to(t.program)


def escaped(path):
    return str(path).replace(" ", "\\040")


@test(exit_codes=(0, 1, 32))
def mount_8_calls_the_helper_with_options_of_its_own(t):
    install_helper(t)
    point = t.mountpoint("a mount point")
    pid_file = t.path("pid")
    table = t.path("fstab")
    table.write_text(f"demo:ram:1M,bs=4096 {escaped(point)} fuse.srpfs defaults,noauto,nofail,_netdev,user,relatime,"
                     f"x-systemd.automount,X-a=b,comment=no,umask=077,fsname=a\\,b,ro,pid_file={pid_file} 0 0\n")
    done = run("mount", "-T", table, point)
    equal((done.returncode, done.stdout + done.stderr), (0, ""), "mount by fstab")
    source, kind, options = mount_entry(point)
    equal((source, kind), ("a,b", "fuse.srpfs"), "source and type")
    for option in ("ro", "nosuid", "nodev", "noexec"):
        contains(options, option, "options")
    pid = int(pid_file.read_text())
    unmount(point)
    wait_gone(pid)


@test
def mount_a_mounts_what_is_not_noauto_and_not_there(t):
    install_helper(t)
    points = [t.mountpoint(name) for name in ("one", "two words", "three")]
    table = t.path("fstab")
    table.write_text("".join(f"demo:ram:1M {escaped(point)} fuse.srpfs _netdev,nofail{more} 0 0\n"
                             for point, more in zip(points, ("", "", ",noauto"))))
    for _ in range(2):
        done = run("mount", "-a", "-T", table)
        equal((done.returncode, done.stderr), (0, ""), "mount -a")
        equal([mount_entry(point) is not None for point in points], [True, True, False], "what is mounted")
        mounts = pathlib.Path("/proc/mounts").read_text().count("fuse.srpfs")
    equal(mounts, pathlib.Path("/proc/mounts").read_text().count("fuse.srpfs"), "mounts after a second mount -a")
    for point in points[:2]:
        unmount(point)


@test(exit_codes=(0, 1, 32))
def the_helper_fails_as_mount_8_says(t):
    install_helper(t)
    point = t.mountpoint()
    for source, where, options, code, part in (
            ("demo:ram:1M", point, "bogus", 1, "'bogus'"), ("nonsense", point, "rw", 1, "nonsense"),
            ("demo:file:/missing", point, "rw", 32, "/missing"), ("demo:ram:1M", point, "umask=9", 1, "umask=9")):
        done = run("mount", "-t", "fuse.srpfs", source, where, "-o", options)
        equal(done.returncode, code, f"exit code of mount {source} -o {options}")
        contains(done.stderr, part, f"message of mount {source} -o {options}")
        check(mount_entry(point) is None, f"{source} -o {options} has mounted")
    for arguments, part in ((("-x", "none", point), "-x"), (("none",), "1 operands"), (("none", point, "-o"), "-o needs a value")):
        done = run("/sbin/mount.fuse.srpfs", *arguments)
        equal(done.returncode, 1, f"exit code of mount.fuse.srpfs {arguments}")
        contains(done.stderr, part, f"message of mount.fuse.srpfs {arguments}")


@test(exit_codes=(0, 32))
def a_mount_is_not_changed_by_remount(t):
    install_helper(t)
    point = t.mountpoint()
    succeeds("mount", "-t", "fuse.srpfs", "demo:ram:1M", point)
    done = run("mount", "-o", "remount,ro", point)
    equal(done.returncode, 32, "exit code of mount -o remount,ro")
    contains(done.stderr, "umount and mount again", "message of mount -o remount,ro")
    check("rw" in mount_entry(point)[2], "it is read-only all the same")
    unmount(point)


@test
def fake_and_verbose_and_sloppy_mounts_do_what_mount_8_says(t):
    install_helper(t)
    point = t.mountpoint()
    done = run("mount", "-f", "-t", "fuse.srpfs", "demo:ram:1M", point)
    equal((done.returncode, done.stderr), (0, ""), "mount -f")
    check(mount_entry(point) is None, "mount -f has mounted")
    done = run("mount", "-v", "-n", "-s", "-t", "fuse.srpfs", "demo:ram:1M", point, "-o", "bogus,ro")
    equal((done.returncode, done.stderr), (0, ""), "mount -v -n -s")
    contains(done.stdout, f"srpfs -o ro -- demo:ram:1M {point}", "what mount -v says")
    check("ro" in mount_entry(point)[2], "not read-only")
    unmount(point)


@test
def a_mount_in_another_namespace_is_there_only(t):
    install_helper(t)
    point = t.mountpoint()
    pid = os.fork()
    if pid == 0:
        own_mount_namespace()
        os.execvp("sleep", ["sleep", "300"])
    run("bash", "-c", f"until [[ $(cat /proc/{pid}/comm) == sleep ]]; do :; done")
    done = run("mount", "-N", str(pid), "-t", "fuse.srpfs", "demo:ram:1M", point)
    equal((done.returncode, done.stderr), (0, ""), "mount -N")
    check(mount_entry(point) is None, "it is mounted here")
    contains(pathlib.Path(f"/proc/{pid}/mounts").read_text(), f" {point} fuse.srpfs ", "mounts there")
    unmount(point, "-N", str(pid))
    os.kill(pid, 9)
    os.waitpid(pid, 0)


def readme_section(name):
    return re.search(rf"^## {name}$(.*?)^## ", README.read_text(encoding="utf-8"), re.M | re.S)[1]


def literal_blocks(text):
    """Of a Markdown page, without their indentation."""
    return [re.sub(r"^    ", "", block, flags=re.M) for block in re.findall(r"(?:^(?:    .*)?\n)*^    .*\n", text, re.M)]


def install_configuration(t):
    """/etc with the README's example as srpfs.conf and as san.conf."""
    example, = (block for block in literal_blocks(readme_section("Configured mounts")) if "[login]" in block)
    folder = with_changes(t, "/etc", "srpfs") / "srpfs"
    folder.mkdir()
    for name in ("srpfs.conf", "san.conf"):
        (folder / name).write_text(example)
        (folder / name).chmod(0o644)


def system_log(t):
    """What srpfs tells syslog, in this test only."""
    with_changes(t, "/dev", "log")
    return Manager("/dev/log")


def mounted_as_said(t, point, source, command, log):
    """The command has worked, and those logins of the file are tried that are to be, of a target that is not there."""
    entry = mount_entry(point)
    check(entry is not None, f"{command}: nothing is mounted")
    equal(entry[:2], (source, "fuse.srpfs"), command)
    if source != "none":
        log.wait_for_part("id_ext=0002c90300a1b2c3")
    pid = int(t.path("pid").read_text())
    unmount(point)
    wait_gone(pid)
    check(source != "none" or not any("id_ext" in line for line in log.lines()), f"{command}: it has tried to log in")
    log.lines()


@test(seconds=3 * PATIENCE)
def lines_of_fstab_in_readme_and_manual_work(t):
    install_helper(t)
    install_configuration(t)
    log = system_log(t)
    lines = re.findall(r"^ *(\S+ +/\S+ +fuse\.srpfs .*)$", README.read_text(encoding="utf-8") + MAN.read_text(encoding="utf-8"), re.M)
    check(len(lines) >= 6 and len([line for line in lines if line.startswith("all ")]) >= 4, f"only {lines}: have the pages changed?")
    for line in lines:
        source, _, kind, options, *numbers = line.split()
        point = t.mountpoint()
        table = t.path("fstab")
        table.write_text(" ".join((source, str(point), kind, f"{options},pid_file={t.path('pid')}", *numbers)) + "\n")
        done = run("mount", "-T", table, point)
        equal((done.returncode, done.stdout + done.stderr), (0, ""), line)
        mounted_as_said(t, point, source, line, log)


@test(seconds=3 * PATIENCE)
def configured_mounts_of_the_readme_work(t):
    own_mount_namespace()
    install_configuration(t)
    log = system_log(t)
    text = readme_section("Configured mounts")
    commands = [line for block in literal_blocks(text) if "[login]" not in block for line in block.splitlines() if line]
    check(len(commands) >= 5, f"only {commands}: has the form of the section changed?")
    for command in commands:
        program, *words = shlex.split(command)
        if program == "srpctl":
            equal(run(t.program.parent / "srpctl", *words).returncode, 0, command)
            continue
        point = t.mountpoint()
        *options, source, _ = words
        done = run(t.program, "-P", t.path("pid"), *options, source, point)
        equal((program, done.returncode, done.stdout + done.stderr), ("srpfs", 0, ""), command)
        mounted_as_said(t, point, source, command, log)
    for name in re.findall(r"(?:contrib|man)/[\w.]+", text):
        check((TOP / name).exists(), f"there is no {name}")
    # What is wrong with the example would be told.
    (pathlib.Path("/etc/srpfs/san.conf")).write_text("[mount]\nreconect_delay = 5\n")
    contains(run(t.program, "all", t.mountpoint(), "-o", "config=/etc/srpfs/san.conf").stderr, "san.conf:2:", "a wrong file")
