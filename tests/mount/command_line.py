# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""The command line, as a person types it and as mount(8) calls it; exit codes and messages."""

import errno
import os
import pathlib
import re
import resource
import shutil

from harness import (NOBODY, PORT, TARGET, Skip, check, contains, equal, eventually, fails_with, mount_entry, needs, opened, own_mount_namespace,
                     promised, read_bytes, read_file, run, shorten, succeeds, test, unmount, value, write_once)


@test
def help_goes_to_standard_output(t):
    for option in ("-h", "--help"):
        done = t.srpfs(option)
        equal((done.returncode, done.stderr), (0, ""), f"{option}: exit code and standard error")
        for part in ("Usage: srpfs [options] SOURCE MOUNTPOINT", "-o OPT", "  -f ", "  -d ", "  -r ", "  -s ", "-P PIDFILE",
                     "-h, --help", "-V, --version", "none", "demo[:LUN", "Exit status:"):
            contains(done.stdout, part, option)
        for known in ("allow_other", "uid=", "gid=", "umask=", "ro", "fsname=", "park=", "memory=", "wait=none"):
            contains(done.stdout, "\n  " + known, option)


@test
def help_and_version_that_cannot_be_written_are_an_error(t):
    for option in ("--help", "--version"):
        for redirection, reason in ((">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")):
            done = run(f"{t.program} {option} {redirection}")
            equal((done.returncode, done.stderr), (2, f"srpfs: standard output: {reason}\n"), f"{option} {redirection}")


@test
def version_names_program_library_and_protocol(t):
    for option in ("-V", "--version"):
        done = t.srpfs(option)
        equal((done.returncode, done.stderr), (0, ""), f"{option}: exit code and standard error")
        check(re.fullmatch(r"srpfs \d+\.\d+\.\d+\nFUSE protocol 7\.\d+, libfuse 3\.\d+\.\d+\n", done.stdout),
              f"{option} prints {done.stdout!r}")


@test
def wrong_usage_ends_with_1_and_names_the_fault(t):
    point = t.mountpoint()
    source = "demo:ram:1M"
    for arguments, named in [
            ((), "SOURCE and MOUNTPOINT"),
            ((source,), "MOUNTPOINT is missing"),
            ((source, point, "third"), "'third'"),
            (("", point), "SOURCE is empty"),
            (("-x", source, point), "unknown option '-x'; srpfs --help lists"),
            (("-fx", source, point), "unknown option '-fx'; srpfs --help lists"),
            (("--qqqqqq", source, point), "unknown option '--qqqqqq'; srpfs --help lists"),
            (("--hlep",), "unknown option '--hlep'; did you mean --help? srpfs --help lists"),
            (("--foregroud", source, point), "did you mean -f?"),
            (("--allow-other", source, point), "did you mean -o allow_other?"),
            (("--fast_io_fail=5", source, point), "unknown option '--fast_io_fail=5'; did you mean -o fast_io_fail_tmo?"),
            (("--help=1",), "--help takes no value"),
            ((source, point, "-o"), "-o"),
            ((source, point, "-P"), "-P"),
            (("-o", "bogus", source, point), "'bogus'"),
            (("-o", "ro,bogus=7", source, point), "'bogus'"),
            ((source, point, "-o", "allow_other", "-o", "bogus"), "'bogus'"),
            (("-o", "allow_other=1", source, point), "allow_other takes no value"),
            (("-o", "uid", source, point), "uid needs a value"),
            (("-o", "uid=root", source, point), "uid=root"),
            (("-o", "uid=-1", source, point), "uid=-1"),
            (("-o", "gid=4294967296", source, point), "gid=4294967296"),
            (("-o", "umask=8", source, point), "umask=8"),
            (("-o", "umask=1777", source, point), "umask=1777"),
            (("-o", "memory=1M", source, point), "memory=1M"),
            (("-o", "memory=64Q", source, point), "memory=64Q"),
            (("-o", "reactors=0", source, point), "reactors=0"),
            (("-o", "reactors=65", source, point), "reactors=65"),
            (("-o", "cpus=", source, point), "cpus="),
            (("-o", "cpus=3-1", source, point), "cpus=1: number from 3"),
            (("-o", "cpus=0:x", source, point), "cpus=x"),
            (("-o", "spin=10001", source, point), "spin=10001"),
            (("-o", "cq_moderation=16", source, point), "cq_moderation=16"),
            (("-o", "cq_moderation=:8", source, point), "cq_moderation="),
            (("-o", "cq_moderation=0:8", source, point), "cq_moderation=0"),
            (("-o", "cq_moderation=16:65536", source, point), "cq_moderation=65536"),
            (("-o", "cq_moderation=16:8:4", source, point), "cq_moderation=8:4"),
            (("-o", "park=0", source, point), "park=0"),
            (("-o", "readahead=65M", source, point), "readahead=65M"),
            (("-o", "readahead=much", source, point), "readahead=much"),
            (("-o", "park=18446744073709551616", source, point), "park=18446744073709551616"),
            (("-o", "wait=5m", source, point), "wait=5m"),
            (("-o", "login_timeout=0", source, point), "login_timeout=0"),
            (("-o", "command_timeout=0", source, point), "command_timeout=0"),
            (("-o", "abort_timeout=601", source, point), "abort_timeout=601"),
            (("-o", "reset_timeout=soon", source, point), "reset_timeout=soon"),
            (("-o", "shutdown_timeout=601", source, point), "shutdown_timeout=601"),
            (("-o", "ch_count=0", source, point), "ch_count=0"),
            (("-o", "ack_timeout=32", source, point), "ack_timeout=32"),
            (("-o", "use_imm_data=2", source, point), "use_imm_data=2"),
            (("-o", "max_imm_data=65537", source, point), "max_imm_data=65537"),
            (("-o", "max_background=65536", source, point), "max_background=65536"),
            (("-o", "subtype=other", source, point), "subtype=other"),
            (("-o", "fsname=", source, point), "fsname="),
            (("-o", "lun=", source, point), "lun=: the pattern is empty"),
            (("-o", "lun=lun0", source, point), "no word follows"),
            (("-o", "lun=*:rw:readonly", source, point), "'readonly' is none of ro, rw"),
            (("-o", "lun=*:mode=1000", source, point), "mode=1000: octal number"),
            (("-o", "truncate=maybe", source, point), "truncate=maybe: 'emulate', 'device' or 'deny' expected"),
            (("-o", "truncate=", source, point), "truncate=: 'emulate', 'device' or 'deny' expected"),
            (("-o", "reconnect_delay=0", source, point), "reconnect_delay"),
            (("-o", "fast_io_fail_tmo=soon", source, point), "fast_io_fail_tmo=soon"),
            (("-o", "fast_io_fail_tmo=600", source, point), "fast_io_fail_tmo"),
            (("-o", "reconnect_delay=off,fast_io_fail_tmo=off,dev_loss_tmo=off", source, point), "off"),
            (("-o", "auto_unmount", source, point), "auto_unmount"),
            (("-o", "kernel_cache", source, point), "kernel_cache"),
            (("-o", "max_read=4096", source, point), "max_read"),
            (("-o", "clone_fd", source, point), "clone_fd"),
            (("-o", "attr_timeout=1", source, point), "attr_timeout"),
            (("demo:ram:7", point), "7"),
            (("demo:tape:1M", point), "tape"),
            (("demo:ram:1M,bs=520", point), "520"),
            (("demo:ram:1M,wwid=xyz", point), "xyz"),
            (("demo:ram:1M+", point), "LUN"),
            (("demonic", point), "demonic"),
            (("id_ext=1,ioc_guid=1", point), "dest"),
            (("id_ext=1,ioc_guid=1,dest=1.2.3.4:5555,frob=1", point), "frob"),
            (("id_ext=xyzzy,ioc_guid=1,dest=1.2.3.4:5555", point), "id_ext")]:
        done = t.srpfs(*arguments)
        what = " ".join(map(str, ("srpfs", *arguments)))
        equal(done.returncode, 1, f"{what}: exit code ({done.stderr.strip()})")
        equal(done.stdout, "", f"{what}: standard output")
        check(done.stderr.startswith("srpfs: ") and done.stderr.count("\n") == 1, f"{what}: not one line: {done.stderr!r}")
        contains(done.stderr, named, what)
        check(mount_entry(point) is None, f"{what} has mounted something")


def mount_fails(t, named, source, point, *options, **more):
    """Exit code 32 and one line `srpfs: DIR: reason`."""
    done = t.srpfs(*options, source, point, **more)
    equal(done.returncode, 32, f"{source} {point}: exit code ({done.stderr.strip()})")
    line = done.stderr
    check(line.startswith(f"srpfs: {point}: ") and line.count("\n") == 1, f"not one line 'srpfs: DIR: reason': {line!r}")
    check(line.count(str(point)) == 1, f"the mount point is named more than once: {line!r}")
    contains(line, named, f"message for {source}")


@test(exit_codes=(0, 32))
def a_mount_that_fails_ends_with_32_and_one_line(t):
    point = t.mountpoint()
    missing = t.path("missing")
    a_file = t.path("file")
    a_file.write_text("x")
    empty = t.path("empty")
    empty.touch()
    uneven = t.path("uneven")
    uneven.write_bytes(bytes(1000))
    mount_fails(t, "does not exist", "demo:ram:1M", missing)
    mount_fails(t, "not a directory", "demo:ram:1M", a_file)
    mount_fails(t, "No such file", f"demo:file:{missing}", point)
    mount_fails(t, "empty", f"demo:file:{empty}", point)
    mount_fails(t, "512", f"demo:file:{uneven}", point)
    mount_fails(t, "directory", f"demo:file:{t.dir}", point)
    check(mount_entry(point) is None, "a failed mount is still there")
    equal(os.listdir(point), [], "the mount point")
    t.mount(at=point)                             # the next attempt may follow at once


@test(exit_codes=(0, 32))
def a_pid_file_that_cannot_be_written_fails_the_mount(t):
    point = t.mountpoint()
    mount_fails(t, "pid file", "demo:ram:1M", point, "-P", t.path("missing") / "pid")
    mount_fails(t, "pid file", "demo:ram:1M", point, "-P", t.dir)
    check(mount_entry(point) is None, "still mounted")


def limited(which, number):
    return {"preexec_fn": lambda: resource.setrlimit(which, (number, number))}


@test(exit_codes=(0, 32))
def what_is_limited_is_named(t):
    point = t.mountpoint()
    mount_fails(t, "more open files have to be allowed", "demo:ram:1M", point, **limited(resource.RLIMIT_NOFILE, 8))
    image = t.path("image")
    image.write_bytes(bytes(1 << 20))
    pid_file = t.path("pid")
    mount_fails(t, "File too large", f"demo:file:{image}", point, "-P", pid_file, **limited(resource.RLIMIT_FSIZE, 0))
    equal(pid_file.exists(), False, "a pid file is left")
    check(mount_entry(point) is None, "still mounted")


@test
def a_file_that_may_not_be_as_long_fails_writes_and_ends_nothing(t):
    image = t.path("image")
    image.write_bytes(bytes(1 << 20))
    point = t.mountpoint()
    equal(t.srpfs(f"demo:file:{image}", point, **limited(resource.RLIMIT_FSIZE, 1 << 16)).returncode, 0, "exit code")
    lun = point / PORT / TARGET / "lun0"
    with opened(lun) as handle:
        equal(os.pwrite(handle, b"a" * 4096, 0), 4096, "bytes written below the limit")
        fails_with(errno.EIO, "a write beyond the limit", lambda: os.pwrite(handle, b"b" * 4096, 1 << 19))
        equal(os.pread(handle, 4096, 0), b"a" * 4096, "what was written")
    unmount(point)


@test(exit_codes=(0, 32))
def a_login_that_fails_fails_the_mount(t):
    point = t.mountpoint()
    # No such network, and on machines without RDMA not even a device: either is told.
    done = t.srpfs("-o", "login_timeout=2", "id_ext=1,ioc_guid=1,dest=192.0.2.1:5555", point)
    equal(done.returncode, 32, f"exit code ({done.stderr.strip()})")
    check(re.fullmatch(rf"srpfs: {re.escape(str(point))}: \S.*\n", done.stderr), f"not one line: {done.stderr!r}")
    check(mount_entry(point) is None, "still mounted")


@test
def the_parent_returns_when_the_mount_serves(t):
    for count in range(5):
        mount = t.mount("demo:ram:1M")
        equal(mount.lun(0).stat().st_size, 1 << 20, "st_size right after the parent's return")
        equal(read_bytes(mount.lun(0)), bytes(1 << 20), "content right after the parent's return")
        equal(value(mount.target / "state"), "running", "state right after the parent's return")
        mount.umount()


@test
def the_daemon_lets_go_of_standard_files(t):
    # A pipe's reader sees its end only when the last writer is gone.
    point = t.mountpoint()
    done = run(f"'{t.program}' demo:ram:1M '{point}' 2>&1 | cat; echo end")
    equal(done.stdout, "end\n", "output through a pipe")
    check(mount_entry(point), "not mounted")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if point.name in pathlib.Path(f"/proc/{pid}/cmdline").read_text("utf-8") and os.readlink(f"/proc/{pid}/exe") == str(t.program):
                equal(os.readlink(f"/proc/{pid}/cwd"), "/", "directory the daemon works from")
                equal({os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)}, {"/dev/null"}, "standard files")
                break
        except OSError:
            continue
    else:
        raise AssertionError("the daemon was not found")
    unmount(point)


@test
def the_daemon_serves_whoever_closes_its_standard_files(t):
    for closed in ("<&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        point = t.mountpoint()
        done = run(f"{t.program} demo:ram:1M {point} {closed}")
        equal((done.returncode, done.stdout, done.stderr), (0, "", ""), f"mounting with {closed}")
        try:
            contains(read_file(point / "version"), ".", f"what is served with {closed}")
        finally:
            unmount(point)


@test
def every_option_of_the_help_is_accepted(t):
    values = {"reconnect_delay": "7", "fast_io_fail_tmo": "8", "dev_loss_tmo": "900", "login_timeout": "5", "shutdown_timeout": "1",
              "command_timeout": "20", "abort_timeout": "4", "reset_timeout": "6",
              "ack_timeout": "14", "register": "window", "tur_interval": "off", "rescan_interval": "9", "tur_timeout": "12", "ch_count": "1", "use_imm_data": "0",
              "max_imm_data": "4096", "reactors": "1", "cpus": "0", "spin": "10", "cq_moderation": "16:8", "memory": "24M", "memory_lock": "try", "raw_commands": "all", "park": "8M",
              "wait": "none", "uid": "1", "gid": "2", "umask": "077", "config": str(t.path("srpfs.conf")), "fsname": "name", "lun": "*:rw", "subtype": "srpfs",
              "max_background": "64", "readahead": "128K", "truncate": "device", "io_uring": "auto", "io_uring_queue_depth": "16", "pid_file": str(t.path("other.pid"))}
    listed = re.findall(r"^  ([a-z_]+)(=\S+)? +\S", t.srpfs("--help").stdout.split("Options of -o:")[1], re.M)
    check(len(listed) > 30, f"only {len(listed)} options in the help")
    t.path("srpfs.conf").write_text("# nothing\n")
    for name, has_value in listed:
        check(not has_value or name in values, f"the test knows no value for option {name}")
        if name in ("debug", "allow_root"):
            continue
        mount = t.mount("demo:ram:1M", f"{name}={values[name]}" if has_value else name)
        entry = mount_entry(mount.path)
        equal(entry[1], "fuse.srpfs", f"type with option {name}")
        check("default_permissions" in entry[2], f"no default_permissions with option {name}")
        check(("ro" in entry[2]) == (name == "ro"), f"option {name}: {entry}")
        check(("noexec" in entry[2]) == (name == "noexec"), f"option {name}: {entry}")
        if name == "fsname":
            equal(entry[0], "name", "source")
        eventually(lambda m=mount: m.target.is_dir(), f"the target with option {name}")
        mount.umount()


@test(exit_codes=(0, 32))
def without_rings_the_log_says_why_and_on_does_not_mount(t):
    # 24M are too little for a ring, wherever there could be one.
    mount = t.mount_in_foreground(arguments=("-f", "-oio_uring=auto,memory=24M"))
    equal(len(read_bytes(mount.lun(0))), 64 << 20, "bytes read")
    mount.umount()
    lines = [line for line in mount.log_file.read_text().splitlines() if "io_uring" in line]
    equal(len(lines), 1, f"lines about io_uring in {lines}")
    contains(lines[0], "requests come from /dev/fuse and not through io_uring: ", "the log")
    done = t.srpfs("-oio_uring=on,memory=24M", "demo:ram:1M", t.mountpoint())
    equal(done.returncode, 32, "exit code with io_uring=on")
    contains(done.stderr, "not through io_uring: ", "standard error")
    equal(done.stderr.count("\n"), 1, "lines of standard error")


@test(intakes=("io_uring",))
def a_ring_tells_its_size_and_stays_within_the_budget(t):
    for options, depth in (("", 40), (",io_uring_queue_depth=24", 24), (",memory=4G,io_uring_queue_depth=100", 100)):
        mount = t.mount_in_foreground(arguments=("-f", f"-oio_uring=on{options}"))
        write_once(mount.lun(0), b"x" * 4096)
        mount.umount()
        found = re.search(r"requests come through io_uring: \d+ queues of (\d+) entries, at most (\d+) async", mount.log_file.read_text())
        check(found, f"the log does not tell the ring: {shorten(mount.log_file.read_text())}")
        check(int(found[1]) <= depth, f"{found[1]} entries of {depth}")
        equal(int(found[2]), int(found[1]) - 8, "asynchronous requests")


@test
def options_may_stand_anywhere_and_be_repeated(t):
    point = t.mountpoint()
    pid_file = t.path("pid")
    done = t.srpfs("demo:ram:1M", "-o", "umask=077,uid=5", point, "-oro", "-o", "uid=6", f"-P{pid_file}", "-s")
    equal((done.returncode, done.stderr), (0, ""), "exit code")
    equal(mount_entry(point)[2][0], "ro", "first mount option")
    equal((point / "srp-demo0-1" / "0000000000000001-0000000000000001" / "lun0").stat().st_uid, 6, "owner: the last word wins")
    unmount(point)
    eventually(lambda: not pid_file.exists(), "no pid file")


@test
def timers_can_be_set_for_all_targets(t):
    mount = t.mount("demo:ram:1M", "reconnect_delay=off,fast_io_fail_tmo=3,dev_loss_tmo=off")
    for name, wanted in (("reconnect_delay", "off"), ("fast_io_fail_tmo", "3"), ("dev_loss_tmo", "off")):
        equal(value(mount.target / name), wanted, name)


@test
def the_pid_file_option_is_the_letter_P(t):
    point = t.mountpoint()
    pid_file = t.path("pid with blank")
    done = t.srpfs("demo:ram:1M", point, "-o", f"pid_file={pid_file}")
    equal((done.returncode, done.stderr), (0, ""), "exit code")
    pid = int(pid_file.read_text())
    equal(os.readlink(f"/proc/{pid}/exe"), str(t.program), "program of the process in the pid file")
    unmount(point)
    eventually(lambda: not pid_file.exists(), "no pid file")


@test
def names_of_mount_points_may_be_odd(t):
    for name in ("with blank", "tab\tand\nnewline", "comma,and\\backslash", "ümlaut", "-dash"):
        point = t.mountpoint(name)
        mount = t.mount("demo:ram:1M", at=point)
        check(mount.is_mounted(), f"{name!r} is not mounted")
        mount.umount()
    point = t.mountpoint("relative")
    done = t.srpfs("-P", "relative.pid", "demo:ram:1M", "./relative/", cwd=t.dir)
    equal((done.returncode, done.stderr), (0, ""), "exit code with a relative name")
    check(mount_entry(point), "relative name: not mounted")
    unmount(point)
    eventually(lambda: not t.path("relative.pid").exists(), "no pid file")
    link = t.path("link")
    link.symlink_to(point)
    done = t.srpfs("-P", t.path("l.pid"), "demo:ram:1M", link)
    equal((done.returncode, done.stderr), (0, ""), "exit code with a symbolic link")
    check(mount_entry(point), "symbolic link: not mounted")
    unmount(link)
    eventually(lambda: not t.path("l.pid").exists(), "no pid file")


@test
def the_source_is_shown_even_with_commas(t):
    for source, options, shown in (("demo:ram:1M,bs=4096+ram:2M", "", "demo:ram:1M,bs=4096+ram:2M"),
                                   ("demo:ram:1M", r"fsname=a\,b\\c d", r"a,b\c d"),
                                   ("demo:ram:1M", "ro,fsname=x=y", "x=y"),
                                   ("none", "", "none")):
        mount = t.mount(source, options)
        equal(mount_entry(mount.path)[:2], (shown, "fuse.srpfs"), f"/proc/mounts of {source} -o {options}")
        mount.umount()


@test(exit_codes=(0, 32))
def mount_8_finds_srpfs_as_a_type(t):
    if not (pathlib.Path("/sbin/mount.fuse").exists() or pathlib.Path("/sbin/mount.fuse3").exists()):
        needs("mount.fuse")
    # mount(8) takes PATH away, so the shell between mount.fuse and srpfs looks where it always does.
    own_mount_namespace()
    succeeds("mount", "-t", "tmpfs", "none", "/usr/local/sbin")
    os.symlink(t.program, "/usr/local/sbin/srpfs")
    point = t.mountpoint()
    for command, options in ((("mount", "-t", "fuse.srpfs", "demo:ram:1M,bs=4096", point), {"rw"}),
                             (("mount", "-t", "fuse.srpfs", "demo:ram:1M", point, "-o", "ro,noexec"), {"ro", "noexec"}),
                             (("mount", "-t", "fuse.srpfs", "-o", "x-systemd.automount,noauto,_netdev,nofail,umask=077",
                               "demo:ram:1M", point), {"rw"}),
                             (("mount", "-t", "fuse", "srpfs#demo:ram:1M", point), {"rw"})):
        done = run(*command)
        equal((done.returncode, done.stderr), (0, ""), f"{command}: exit code and message")
        entry = mount_entry(point)
        equal(entry[1], "fuse.srpfs", f"{command}: type")
        check(options <= set(entry[2]), f"{command}: {entry[2]} lacks {options}")
        check((point / "srp-demo0-1" / "0000000000000001-0000000000000001" / "lun0").exists(), f"{command}: no lun0")
        unmount(point)
    for source, options, code, named in (("demo:ram:1M", "bogus", 1, "'bogus'"), ("demo:file:/missing", "rw", 32, "/missing")):
        done = run("mount", "-t", "fuse.srpfs", source, point, "-o", options)
        equal(done.returncode, code, f"exit code of mount(8) for {source} -o {options}")
        contains(done.stderr, named, "message of mount(8)")
    table = t.path("fstab")
    table.write_text(f"demo:ram:1M {point} fuse.srpfs ro,noauto 0 0\n")
    done = run("mount", "-T", table, point)
    equal((done.returncode, done.stderr), (0, ""), "mount by fstab")
    check("ro" in mount_entry(point)[2], "fstab: not read-only")
    unmount(point)


@test
def none_comes_up_empty(t):
    mount = t.mount("none")
    names = {path.name for path in mount.path.iterdir() if not path.name.startswith("srp-")}
    equal(names, {"add_target", "stats", "metrics", "events", "events.log", "version", "last_error", "by-id", "by-path", "by-target"}, "names at the top")
    equal(mount.stats()["targets"], [], "targets in stats")


@test(exit_codes=(0, 32))
def wait_none_does_not_wait_for_the_login(t):
    mount = t.mount("demo:ram:1M", "wait=none")
    eventually(lambda: mount.lun(0).exists(), "the target")
    # A login that cannot work is no reason to end.
    point = t.mountpoint()
    done = t.srpfs("-o", "wait=none,login_timeout=1", "id_ext=1,ioc_guid=1,dest=192.0.2.1:5555", point)
    if done.returncode == 0:                      # a machine with RDMA
        eventually(lambda: read_file(point / "last_error").strip(), "a reason in last_error")
        unmount(point)
    else:
        contains(done.stderr, "RDMA", "message without a device")


@test(exit_codes=(0, 32))
def other_users_cannot_mount_where_they_may_not_write(t):
    folder = t.user_directory()
    program = t.path("srpfs")
    point = t.mountpoint()
    done = run(program, "demo:ram:1M", point, user=NOBODY, group=NOBODY, extra_groups=[])
    equal(done.returncode, 32, f"exit code ({done.stderr.strip()})")
    contains(done.stderr, "only root", "message")
    own = folder / "mnt"
    own.mkdir()
    os.chown(own, NOBODY, NOBODY)
    config = pathlib.Path("/etc/fuse.conf")
    if not config.exists() or not re.search(r"^user_allow_other\b", config.read_text(), re.M):
        done = run(program, "-o", "allow_other", "demo:ram:1M", own, user=NOBODY, group=NOBODY, extra_groups=[])
        equal(done.returncode, 32, f"exit code with allow_other ({done.stderr.strip()})")
        contains(done.stderr, "user_allow_other", "message")


@test
def other_users_mount_their_own_directory(t):
    needs("fusermount3")
    if not os.stat(shutil.which("fusermount3")).st_mode & 0o4000:
        raise Skip("fusermount3 is not set-user-id")
    folder = t.user_directory()
    program = t.path("srpfs")
    own = folder / "mnt"
    own.mkdir()
    os.chown(own, NOBODY, NOBODY)
    pid_file = folder / "pid"
    nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    done = run(program, "-P", pid_file, "demo:ram:1M", own, **nobody)
    equal((done.returncode, done.stderr), (0, ""), "exit code and message")
    entry = mount_entry(own)
    equal(entry[:2], ("demo:ram:1M", "fuse.srpfs"), "/proc/mounts")
    lun = own / "srp-demo0-1" / "0000000000000001-0000000000000001" / "lun0"
    done = run(f"stat -c '%u %g %a' '{lun}' && printf hello | dd of='{lun}' conv=notrunc status=none && head -c 5 '{lun}'", **nobody)
    equal((done.returncode, done.stdout), (0, f"{NOBODY} {NOBODY} 600\nhello"), f"use by the owner ({done.stderr})")
    done = run("cat", own / "version")
    check(done.returncode != 0, "root sees the files of another user's mount without allow_root or allow_other")
    with promised(5, "unmounting"):
        done = run("fusermount3", "-u", own, **nobody)
        equal((done.returncode, done.stderr), (0, ""), "fusermount3 -u")
        eventually(lambda: not pid_file.exists(), "no pid file")
    # SIGTERM unmounts with the help of fusermount3.
    done = run(program, "-P", pid_file, "demo:ram:1M", own, **nobody)
    equal((done.returncode, done.stderr), (0, ""), "second mount")
    os.kill(int(pid_file.read_text()), 15)
    eventually(lambda: not pid_file.exists(), "no pid file after SIGTERM")
    eventually(lambda: mount_entry(own) is None, "no mount after SIGTERM")
