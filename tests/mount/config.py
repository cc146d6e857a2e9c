# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Configuration files: what a mount makes of them, and what it says when they are wrong."""

import json
import os
import time

from harness import LOGIN, TARGET, check, contains, equal, eventually, mount_entry, read_file, run, succeeds, test, value, write_once

AGAIN = "id_ext=1,ioc_guid=1,dest=demo,initiator_ext=7"
NAME = "0000000000000001-0000000000000001-0000000000000007"


def written(t, text, name="srpfs.conf"):
    path = t.path(name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
    return path


@test
def a_file_sets_options_timers_units_and_logins(t):
    file = written(t, f"""
[mount]
gid = 9
fast_io_fail_tmo = 7
[lun *]
mode = 0444
[target *-0000000000000007]
fast_io_fail_tmo = 8
queue_size = 16
[login]
login = {AGAIN}
login = id_ext=1,ioc_guid=1,dest=demo,initiator_ext=8
deny = ioc_guid=2
""")
    written(t, "[lun lun1]\nhide\n[lun */lun0]\nuid = 5\n", "srpfs.conf.d/10.conf")
    written(t, "this is no configuration file", "srpfs.conf.d/10.conf.old")
    mount = t.mount("demo:ram:1M+ram:1M", f"config={file},fast_io_fail_tmo=6")
    eventually(lambda: (mount.path / "srp-demo0-1" / NAME / "lun0").exists(), "the login of the file")
    again = mount.path / "srp-demo0-1" / NAME
    equal([value(mount.target / "fast_io_fail_tmo"), value(again / "fast_io_fail_tmo")], ["6", "8"], "timers")
    equal([value(mount.target / "queue_size"), value(again / "queue_size")], ["62", "16"], "queue sizes")
    lun = mount.lun(0).stat()
    equal((oct(lun.st_mode & 0o777), lun.st_uid, lun.st_gid), ("0o444", 5, 9), "the unit")
    check(not mount.lun(1).exists(), "the hidden unit is shown")
    # What somebody logs in to by hand has the same defaults, unless he says otherwise.
    write_once(again / "delete", "1")
    eventually(lambda: not again.exists(), "logged out")
    write_once(mount.path / "add_target", AGAIN + ",queue_size=5")
    equal([value(again / "queue_size"), value(again / "fast_io_fail_tmo")], ["5", "8"], "by hand")


def tells_of_a_failed_login(mount):
    def failed():
        events = [json.loads(line) for line in read_file(mount.path / "events.log").splitlines()]
        return [(one["login"], one["reason"]) for one in events if one["event"] == "login_failed"]

    eventually(failed, "an event")
    equal(failed()[0], ("id_ext=1,ioc_guid=1,dest=192.0.2.1:5555", value(mount.path / "last_error")), "what the event says")


@test
def a_source_may_be_a_file_or_all(t):
    # There is no target here that could answer: the mount comes up at once, says why, and goes on trying.
    file = written(t, "[mount]\nreconnect_delay = 1\nlogin_timeout = 1\n[login]\nlogin = id_ext=1,ioc_guid=1,dest=192.0.2.1:5555\n")
    for source, options in ((file, ""), ("all", f"config={file}")):
        mount = t.mount(str(source), options)
        equal(mount_entry(mount.path)[0], str(source), "the source")
        eventually(lambda m=mount: value(m.path / "last_error"), "the reason why the login failed")
        tells_of_a_failed_login(mount)
        equal([name for name in os.listdir(mount.path) if name.startswith("srp-demo")], [], "ports")
        mount.umount()
    mount = t.mount("none", f"config={file}")
    mount.umount()


@test(seconds=120)
def a_login_of_the_file_is_made_again_when_it_is_lost_and_not_when_it_was_deleted(t):
    hole = t.path("black-hole")
    second = "id_ext=1,ioc_guid=1,dest=demo2,initiator_ext=7"
    file = written(t, f"[mount]\nlogin_timeout = 1\ntur_interval = 1\ntur_timeout = 1\nreconnect_delay = 1\nfast_io_fail_tmo = 1\n"
                      f"dev_loss_tmo = 2\n[login]\nlogin = {second}\n")
    mount = t.mount("demo:ram:1M", f"config={file}", env={"SRPFS_DEMO_BLACK_HOLE": str(hole)})
    target = mount.path / "srp-demo0-1" / NAME
    eventually(target.exists, "the login of the file")
    hole.touch()
    eventually(lambda: not target.exists(), "dev_loss_tmo", seconds=30)
    eventually(lambda: value(mount.path / "last_error"), "an attempt that fails", seconds=30)
    hole.unlink()
    eventually((target / "lun0").exists, "logged in again", seconds=30)
    write_once(target / "delete", "1")
    eventually(lambda: not target.exists(), "logged out")
    write_once(mount.path / "add_target", second)      # nobody else has taken it meanwhile
    equal(value(target / "state"), "running", "state")


@test
def a_login_of_the_file_that_is_also_the_source_is_one_login(t):
    file = written(t, f"[mount]\nreconnect_delay = 1\n[login]\nlogin = {LOGIN}\nlogin = {AGAIN}\n")
    mount = t.mount("demo:ram:1M", f"config={file}")
    again = mount.path / "srp-demo0-1" / NAME
    eventually(again.exists, "the other login of the file")
    equal(sorted(one.name for one in mount.port.iterdir() if one.is_dir()), [TARGET, NAME], "logins")
    equal(value(mount.path / "last_error"), "", "last_error")
    # Nor does an attempt from before its success come after it was logged out.
    write_once(mount.target / "delete", "1")
    eventually(lambda: not mount.target.exists(), "logged out")
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        check(not mount.target.exists(), "it was logged in again")
        time.sleep(0.05)


@test
def a_login_of_the_file_that_is_not_tried_again_says_so(t):
    for delay, words in (("off", "not tried again, because reconnect_delay is off"), ("1", "; trying again")):
        file = written(t, f"[mount]\nreconnect_delay = {delay}\n[login]\nlogin = id_ext=5,ioc_guid=5,dest=nowhere\n")
        mount = t.mount_in_foreground("demo:ram:1M", ("-f", f"-oconfig={file}"))
        eventually(lambda m=mount: "id_ext=5" in m.log_file.read_text(), "the log names the login")
        said = [line for line in mount.log_file.read_text().splitlines() if "id_ext=5" in line]
        contains(said[0], words, f"reconnect_delay={delay}")
        mount.umount()


@test
def everything_that_is_wrong_is_told_and_nothing_is_mounted(t):
    point = t.mountpoint()

    def refused(*arguments, named, lines=1):
        done = t.srpfs(*arguments, point)
        equal((done.returncode, done.stdout), (1, ""), f"{arguments}: exit code ({done.stderr.strip()})")
        equal(done.stderr.count("\n"), lines, f"lines of {done.stderr!r}")
        for line in done.stderr.splitlines():
            check(line.startswith("srpfs: "), f"{line!r}")
        for part in named:
            contains(done.stderr, part, str(arguments))
        check(mount_entry(point) is None, "something is mounted")

    file = written(t, "[target *]\nrelogin_delay = 5\n[mount]\numask = 9\n")
    written(t, "[lun]\nro\n", "srpfs.conf.d/x.conf")
    refused("demo", f"-oconfig={file}", lines=3, named=(
        f'srpfs: {file}:2: unknown key "relogin_delay" in [target *]; did you mean "reconnect_delay"?\n',
        f"srpfs: {file}:4: option umask=9: octal number", f"srpfs: {file}.d/x.conf:1: [lun PATTERN]: "))
    refused(file, lines=3, named=("relogin_delay",))
    refused("demo", "-oconfig=/nonexistent/file", named=("srpfs: /nonexistent/file: cannot be read: No such file",))
    refused("all", f"-oconfig={t.dir}", named=("is a directory",))
    refused(str(t.dir), named=("there is no such file",))
    refused("/nonexistent/file", named=("there is no such file",))
    bad = written(t, "[mount]\nuid = 5\n", "bad.conf")
    bad.chmod(0o666)
    refused("demo", f"-oconfig={bad}", named=("everybody can write it",))
    for content, named in ((b"\0", "NUL byte"), (b"[mount]\nuid = 1\0", "NUL byte"), (b"# \xff", "not UTF-8"), (b"x" * (10 << 20), "larger than"),
                           (b"[mount]\nuid", "uid needs a value"), (f"[mount]\nconfig = {bad}".encode(), "cannot name another")):
        bad.write_bytes(content)
        bad.chmod(0o644)
        refused("demo", f"-oconfig={bad}", named=(named,))
    for content in (b"", b"\r\n", b"[mount]\r\nuid = 5\r\n# end"):
        bad.write_bytes(content)
        mount = t.mount("demo:ram:1M", f"config={bad}")
        mount.umount()
    (t.path("bad.conf.d")).mkdir()
    (t.path("bad.conf.d") / "loop.conf").symlink_to("loop.conf")
    refused("demo", f"-oconfig={bad}", named=("loop.conf: cannot be read: Too many levels",))


@test
def srpctl_and_srpfs_say_the_same_of_a_file(t):
    point = t.mountpoint()
    srpctl = t.program.parent / "srpctl"
    bad = {"[target *]\nfast_io_fail_tmo = 10\ndev_loss_tmo = 5\n": 1,
           "[mount]\numask = 99\nuid = bob\nfast_io_fail_tmo = 700\n": 3,
           "[mount]\nfast_io_fail_tmo = 20\n[target *]\ndev_loss_tmo = 12\n[lun\n": 2,
           "[mount]\nfast_io_fail_tmo = 50\ndev_loss_tmo = 50\nmemory = 1M\n": 2,
           "[mount]\nreconnect_delay = 0\nfast_io_fail_tmo = soon\nio_uring = maybe\ncpus = 3-1\nreadahead = 65M\n": 5,
           "[mount]\nmax_read = 5\nrecconect_delay = 3\nro = perhaps\n[login]\nlogin = id_ext=1\n": 4,
           "[target *]\ndev_loss_tmo = 2147483647\nch_count = 0\n": 2,
           "uid = 5\n": 1}
    for text, lines in bad.items():
        file = written(t, text)
        by_srpfs = t.srpfs("demo", f"-oconfig={file}", point)
        by_srpctl = run(srpctl, "config", "check", file)
        equal((by_srpfs.returncode, by_srpctl.returncode), (1, 7), f"exit statuses of {text!r} ({by_srpfs.stderr}{by_srpctl.stderr})")
        equal(by_srpctl.stderr.replace("srpctl: ", "srpfs: "), by_srpfs.stderr, f"what both say of {text!r}")
        equal(by_srpfs.stderr.count(f"srpfs: {file}:"), lines, f"lines with a place of {text!r}: {by_srpfs.stderr}")
    for text in ("", "[mount]\numask = 0077\nuid = 5\nfast_io_fail_tmo = 600\ndev_loss_tmo = 601\n",
                 "[mount]\nfast_io_fail_tmo = 20\n[target *]\nfast_io_fail_tmo = 5\ndev_loss_tmo = 12\n",
                 "[mount]\nfast_io_fail_tmo = off\ndev_loss_tmo = 600\ncq_moderation = 16:8\nio_uring_queue_depth = 16\n"):
        file = written(t, text)
        succeeds(srpctl, "config", "check", file)
        t.mount("demo:ram:1M", f"config={file}").umount()
    # What the command line replaces is not what the file has wrong together.
    file = written(t, "[mount]\nfast_io_fail_tmo = 50\ndev_loss_tmo = 40\n")
    t.mount("demo:ram:1M", f"config={file},dev_loss_tmo=60").umount()


@test
def a_mount_without_a_configuration_is_not_influenced_by_the_machine(t):
    done = t.srpfs("--help")
    contains(done.stdout, "/etc/srpfs/srpfs.conf", "the help")
    # A drop-in of a file that nobody has named is not looked at either.
    written(t, "[mount]\nuid = 5\n")
    mount = t.mount("demo:ram:1M")
    equal(mount.lun(0).stat().st_uid, os.geteuid(), "owner")
