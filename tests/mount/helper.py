# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""srpfs as mount(8)'s helper mount.fuse.srpfs, with tables of the test's own."""

import os
import pathlib

from harness import check, contains, equal, mount_entry, own_mount_namespace, run, succeeds, test, wait_gone


def install_helper(t):
    """For this test only: /sbin as it is, with the helper, and without what would do instead (mount.fuse)."""
    own_mount_namespace()
    real = pathlib.Path("/sbin").resolve()
    before = t.path("sbin")
    before.mkdir()
    succeeds("mount", "--bind", real, before)
    succeeds("mount", "-t", "tmpfs", "none", real)
    for entry in before.iterdir():
        if not entry.name.startswith("mount.fuse"):
            (real / entry.name).symlink_to(entry)
    (real / "mount.fuse.srpfs").symlink_to(t.program)


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
    succeeds("umount", point)
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
        succeeds("umount", point)


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
    succeeds("umount", point)


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
    succeeds("umount", point)


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
    succeeds("umount", "-N", str(pid), point)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
