# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Control files: what shells and tools do to them, every errno, logging in and out, events."""

import errno
import json
import os
import re
import signal
import subprocess
import threading
import time

from harness import (BOTH, LOGIN, PATIENCE, TARGET, Background, check, contains, equal, errno_of, eventually, fails_with,
                     in_a_request, needs, opened, pattern, promised, read_bytes, read_file, run, succeeds, test, value, write_once)

KIB64 = 64 * 1024


def fails_in_words(mount, wanted, path, text, *words, also_in=()):
    """The write has this errno, and last_error says why: at the top, and in the directories named."""
    fails_with(wanted, f"writing {text!r} to {path.name}", lambda: write_once(path, text))
    for folder in also_in or (mount.path,):
        reason = value(folder / "last_error")
        for word in words:
            contains(reason, word, f"last_error in {folder.name} after {text!r} to {path.name}")


# ---- what a write is ----

@test(intakes=BOTH)
def one_write_is_one_command(t):
    mount = t.mount("demo:ram:1M")
    path = mount.target / "dev_loss_tmo"

    def after(script, wanted, code=0):
        done = run(script.replace("FILE", f"'{path}'"))
        equal((done.returncode, value(path)), (code, wanted), f"{script} ({done.stderr.strip()})")

    after("echo 101 > FILE", "101")
    after("echo -n 102 > FILE", "102")
    after("printf '103\\n' > FILE", "103")
    after("printf '104\\r\\n' > FILE", "104")
    after("printf '  105\\t \\n\\n' > FILE", "105")
    after("echo 106 >> FILE", "106")
    after("echo 107 | tee FILE > /dev/null", "107")
    after("echo 108 | tee -a FILE > /dev/null", "108")
    after("echo 109 | dd of=FILE status=none", "109")
    after("echo 110 | dd of=FILE conv=notrunc oflag=append status=none", "110")
    after("cp <(echo 111) FILE", "111")
    after("cat > FILE <<< 112", "112")
    after("python3 -c \"open('$F', 'w').write('113')\"".replace("'$F'", repr(str(path))), "113")
    after("awk 'BEGIN { print 114 > ARGV[1] }' FILE", "114")
    after("sh -c 'echo 115 > \"$1\"' sh FILE", "115")
    after("printf '116\\n117\\n' > FILE", "117")                # bash writes each line by itself
    after("exec 3> FILE; echo 118 >&3; echo 119 >&3", "119")   # at offsets 0 and 4
    # What the last bad command leaves is what the one before set.
    after("echo 120 > FILE; echo soon > FILE", "120", 1)
    after("echo soon | dd of=FILE status=none", "120", 1)
    after("cp <(echo soon) FILE", "120", 1)
    after("echo soon | tee FILE > /dev/null", "120", 1)


@test
def writes_are_taken_whole_or_refused(t):
    mount = t.mount("demo:ram:1M")
    path = mount.target / "dev_loss_tmo"
    for data, wanted in ((b"301", "301"), (b"302\n", "302"), (b" \t303\r\n", "303"), (b"304\n\n\n", "304"),
                         (b"305" + b" " * (KIB64 - 3), "305"), (b"\n" * (KIB64 - 3) + b"306", "306"), (b"\v\f307", "307")):
        write_once(path, data)
        equal(value(path), wanted, f"after {data[:10]!r} of {len(data)} bytes")
    write_once(path, "400")
    for data in (b"", b"\n", b" ", b"\r\n", b" \t \n", b"\n" * KIB64):
        write_once(path, data)
        equal(value(path), "400", f"after {len(data)} bytes of nothing")
    for data, code in ((b"501\n502\n", errno.EINVAL), (b"501 502", errno.EINVAL), (b"501\0", errno.EINVAL), (b"\0", errno.EINVAL),
                       (b"501\n\0", errno.EINVAL), (b"\0" * KIB64, errno.EINVAL), (b"501" + b" " * (KIB64 - 2), errno.E2BIG),
                       (b" " * (KIB64 + 1), errno.E2BIG), (b"501" + b"\n" * (1 << 20), errno.E2BIG),
                       (b"501" + b"\n" * (3 << 20), errno.E2BIG), (b"\xff", errno.EINVAL), ("50１".encode(), errno.EINVAL)):
        fails_with(code, f"writing {data[:10]!r} of {len(data)} bytes", lambda d=data: write_once(path, d))
        equal(value(path), "400", f"after {data[:10]!r}, which was refused")
    with opened(path, os.O_WRONLY) as handle:
        equal(os.pwrite(handle, b"601\n", 1 << 40), 4, "write at an offset")
        equal(value(path), "601", "after a write at an offset")
        equal(os.writev(handle, [b"6", b"0", b"2\n"]), 4, "writev")
        equal(value(path), "602", "after writev")
        fails_with(errno.EBADF, "reading a handle for writing", lambda: os.read(handle, 1))


@test
def sizes_and_syncs_of_control_files_mean_nothing(t):
    mount = t.mount("demo:ram:1M")
    path = mount.target / "dev_loss_tmo"
    for flags in (os.O_WRONLY, os.O_WRONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_TRUNC, os.O_WRONLY | os.O_NONBLOCK,
                  os.O_WRONLY | os.O_SYNC, os.O_WRONLY | os.O_DSYNC, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
        write_once(path, "77", flags)
        equal(value(path), "77", f"with flags {flags:#o}")
        write_once(path, "78")
    for size in (0, 1, 4096, 1 << 40):
        os.truncate(path, size)
        equal(path.stat().st_size, 0, f"size after truncate to {size}")
    with opened(path, os.O_RDWR) as handle:
        os.ftruncate(handle, 100)
        os.fsync(handle)
        os.fdatasync(handle)
        equal(os.lseek(handle, 0, os.SEEK_END), 0, "seek to the end")
        equal(os.pread(handle, 10, 0), b"78\n", "content")
    fails_with(errno.EEXIST, "exclusive create of what exists", lambda: os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)))


# ---- timers ----

def set_timers(target, reconnect_delay, fast_io_fail_tmo, dev_loss_tmo):
    """From whatever to whatever, by steps that are always allowed."""
    for name, text in (("reconnect_delay", "10"), ("dev_loss_tmo", "off"), ("fast_io_fail_tmo", fast_io_fail_tmo),
                       ("dev_loss_tmo", dev_loss_tmo), ("reconnect_delay", reconnect_delay)):
        write_once(target / name, text)


@test
def timers_are_written_and_shown_as_in_the_kernel(t):
    target = t.mount("demo:ram:1M").target
    for name, good, bad in (
            ("reconnect_delay",
             (("1", "1"), ("2147483647", "2147483647"), ("0x10", "16"), ("010", "8"), ("0X1f", "31"), ("-1", "off"), ("-77", "off"), ("off", "off"),
              ("offfoo", "off"), ("off\n", "off"), ("+5", "5"), (" 6 ", "6")),
             ("0", "0x0", "00", "-0", "on", "OFF", "of", "1.5", "1s", "1 2", "0x", "08", "1,2", "2147483648", "99999999999999999999", "--1", "1-")),
            ("fast_io_fail_tmo",
             (("0", "0"), ("1", "1"), ("600", "600"), ("0x258", "600"), ("01130", "600"), ("-1", "off"), ("off", "off"), ("offfoo", "off")),
             ("601", "0x259", "never", "2147483648")),
            ("dev_loss_tmo",
             (("0", "0"), ("1", "1"), ("600", "600"), ("0x10", "16"), ("010", "8"), ("-1", "off"), ("off", "off"), ("offfoo", "off")),
             ("601", "none", "0x", "99999999999999999999"))):
        set_timers(target, "10", "15" if name == "reconnect_delay" else "off", "off")
        for text, shown in good:
            write_once(target / name, text)
            equal(value(target / name), shown, f"{name} after {text!r}")
        before = value(target / name)
        for text in bad:
            fails_with(errno.EINVAL, f"{name} = {text!r}", lambda n=name, x=text: write_once(target / n, x))
            equal(value(target / name), before, f"{name} after {text!r}, which was refused")
            contains(value(target / "last_error"), name, f"last_error after {name} = {text!r}")


@test
def timers_are_checked_against_each_other(t):
    target = t.mount("demo:ram:1M").target
    names = ("reconnect_delay", "fast_io_fail_tmo", "dev_loss_tmo")
    # (reconnect_delay, fast_io_fail_tmo, dev_loss_tmo), what is written, whether the kernel takes it (srp-admin 4.2)
    for now, name, text, taken in (
            (("10", "15", "600"), "dev_loss_tmo", "15", False), (("10", "15", "600"), "dev_loss_tmo", "16", True),
            (("10", "15", "600"), "dev_loss_tmo", "14", False), (("10", "15", "600"), "dev_loss_tmo", "0", False),
            (("10", "15", "600"), "fast_io_fail_tmo", "599", True), (("10", "15", "600"), "fast_io_fail_tmo", "600", False),
            (("10", "15", "601"), "fast_io_fail_tmo", "600", True), (("10", "15", "700"), "fast_io_fail_tmo", "601", False),
            (("10", "15", "600"), "dev_loss_tmo", "601", True), (("10", "15", "601"), "fast_io_fail_tmo", "off", False),
            (("10", "15", "600"), "fast_io_fail_tmo", "off", True), (("10", "off", "600"), "dev_loss_tmo", "601", False),
            (("10", "off", "off"), "dev_loss_tmo", "601", False), (("10", "off", "off"), "dev_loss_tmo", "600", True),
            (("10", "off", "off"), "dev_loss_tmo", "0", True), (("10", "5", "off"), "dev_loss_tmo", "100000", True),
            (("10", "5", "off"), "fast_io_fail_tmo", "600", True), (("10", "5", "off"), "fast_io_fail_tmo", "601", False),
            (("10", "off", "off"), "reconnect_delay", "off", False), (("off", "15", "off"), "fast_io_fail_tmo", "off", False),
            (("off", "off", "600"), "dev_loss_tmo", "off", False), (("off", "15", "600"), "dev_loss_tmo", "off", True),
            (("off", "15", "600"), "fast_io_fail_tmo", "off", True), (("10", "15", "600"), "reconnect_delay", "off", True),
            (("10", "15", "600"), "reconnect_delay", "0", False), (("off", "15", "600"), "reconnect_delay", "0", False),
            (("10", "0", "600"), "dev_loss_tmo", "1", True), (("10", "0", "1"), "fast_io_fail_tmo", "1", False),
            (("10", "0", "off"), "dev_loss_tmo", "0", False), (("10", "off", "0"), "fast_io_fail_tmo", "0", False)):
        set_timers(target, *now)
        equal(tuple(value(target / one) for one in names), now, "timers as prepared")
        code = errno_of(lambda n=name, x=text: write_once(target / n, x))
        equal(code, 0 if taken else errno.EINVAL, f"{name} = {text} with reconnect_delay {now[0]}, fast_io_fail_tmo {now[1]}, dev_loss_tmo {now[2]}")
        wanted = tuple(text if one == name and taken else was for one, was in zip(names, now))
        equal(tuple(value(target / one) for one in names), wanted, f"timers after {name} = {text}")


@test
def step_6_of_the_readme_works_in_the_right_order(t):
    mount = t.mount("demo:ram:1M")
    target = mount.target
    done = run(f"echo 15 > '{target}/dev_loss_tmo'")
    check(done.returncode == 1 and "Invalid argument" in done.stderr, f"echo 15 > dev_loss_tmo: {done.returncode} {done.stderr!r}")
    contains(value(target / "last_error"), "fast_io_fail_tmo", "last_error")
    succeeds(f"echo 10 > '{target}/fast_io_fail_tmo' && echo 15 > '{target}/dev_loss_tmo'")
    equal(value(target / "dev_loss_tmo"), "15", "dev_loss_tmo")


# ---- logging in ----

KEYS = ("id_ext", "ioc_guid", "dgid", "pkey", "service_id", "dest", "src", "max_sect", "queue_size", "max_cmd_per_lun", "target_can_queue", "io_class",
        "initiator_ext", "cmd_sg_entries", "allow_ext_sg", "sg_tablesize", "comp_vector", "tl_retry_count", "max_it_iu_size", "ch_count")


@test
def add_target_explains_itself(t):
    text = read_file(t.mount("none").path / "add_target")
    lines = text.splitlines()
    for key in KEYS:
        equal(len([line for line in lines if line.startswith(key + "=")]), 1, f"lines for {key}")
    check(all(re.match(r"[a-z_]+=\S", line) for line in lines), "a line that is no key")


BAD_VALUES = (
    ("id_ext=", "id_ext"), ("id_ext=x", "id_ext"), ("id_ext=10000000000000000", "id_ext"), ("id_ext=-1", "id_ext"), ("ioc_guid=1g", "ioc_guid"),
    ("pkey=10000", "pkey"), ("pkey=xyz", "pkey"), ("dgid=fe80", "dgid"), ("dgid=" + "0" * 31, "dgid"), ("dgid=" + "0" * 33, "dgid"),
    ("dgid=" + "g" * 32, "dgid"), ("service_id=x", "service_id"), ("dest=1.2.3.4", "dest"), ("dest=1.2.3.4:0", "dest"), ("dest=1.2.3.4:65536", "dest"),
    ("dest=[::1]", "dest"), ("dest=::1:5555", "dest"), ("dest=[::1:5555", "dest"), ("dest=", "dest"), ("src=1.2.3.4:x", "src"), ("max_sect=0", "max_sect"),
    ("max_sect=x", "max_sect"), ("queue_size=0", "queue_size"), ("queue_size=-1", "queue_size"), ("max_cmd_per_lun=0", "max_cmd_per_lun"),
    ("target_can_queue=0", "target_can_queue"), ("io_class=1", "io_class"), ("io_class=ff01", "io_class"), ("initiator_ext=z", "initiator_ext"),
    ("cmd_sg_entries=0", "cmd_sg_entries"), ("cmd_sg_entries=256", "cmd_sg_entries"), ("allow_ext_sg=yes", "allow_ext_sg"),
    ("sg_tablesize=0", "sg_tablesize"), ("sg_tablesize=2049", "sg_tablesize"), ("comp_vector=-1", "comp_vector"), ("tl_retry_count=1", "tl_retry_count"),
    ("tl_retry_count=8", "tl_retry_count"), ("max_it_iu_size=-1", "max_it_iu_size"), ("ch_count=0", "ch_count"), ("ch_count=-1", "ch_count"),
    ("bogus=1", "bogus"), ("bogus", "bogus"), ("ID_EXT=1", "ID_EXT"), ("id_ext", "id_ext"), ("=1", ""))


@test
def bad_login_strings_are_refused_by_name(t):
    mount = t.mount("none")
    path = mount.path / "add_target"
    for text, named in BAD_VALUES:
        fails_in_words(mount, errno.EINVAL, path, f"id_ext=2,ioc_guid=2,dest=demo,{text}", named)
    for text, named in (("id_ext=1", "ioc_guid"), ("id_ext=1,ioc_guid=1", "dest"), ("ioc_guid=1,dest=demo", "id_ext"), (",,,", "id_ext"),
                        ("id_ext=1,ioc_guid=1,dgid=" + "0" * 32, "pkey"), ("id_ext=1,ioc_guid=1,pkey=ffff,service_id=1", "dgid"), ("x", "x")):
        fails_in_words(mount, errno.EINVAL, path, text, named)
    equal(mount.stats()["targets"], [], "targets afterwards")


@test
def every_good_value_logs_in_and_is_shown(t):
    mount = t.mount("demo:ram:1M")
    shown = {"cmd_sg_entries": str, "tl_retry_count": str, "comp_vector": str, "queue_size": str, "ch_count": lambda _: "1",
             "allow_ext_sg": lambda text: "false" if text == "0" else "true"}
    directory = mount.port / f"{TARGET}-00000000000000ff"
    for text in ("max_sect=1", "max_sect=1024", "queue_size=1", "queue_size=62", "queue_size=4096", "max_cmd_per_lun=1", "target_can_queue=1", "io_class=0100",
                 "cmd_sg_entries=1", "cmd_sg_entries=255", "allow_ext_sg=1", "allow_ext_sg=0", "sg_tablesize=1", "sg_tablesize=2048", "comp_vector=0",
                 "comp_vector=3", "tl_retry_count=2", "tl_retry_count=7", "max_it_iu_size=0", "max_it_iu_size=512", "ch_count=1", "src=1.2.3.4"):
        write_once(mount.path / "add_target", f"{LOGIN},initiator_ext=ff,{text}")
        key, _, given = text.partition("=")
        if key in shown:
            equal(value(directory / key), shown[key](given), f"{key} after {text}")
        data = pattern(40000, 5)
        with opened(directory / "lun0") as handle:
            os.pwrite(handle, data, 1000)
            equal(os.pread(handle, len(data), 1000), data, f"data with {text}")
        write_once(directory / "delete", "1")
        check(not directory.exists(), f"still there after delete ({text})")


@test
def logins_take_completion_vectors_in_turn(t):
    mount = t.mount("demo:ram:1M")
    def vector(extension, more=""):
        write_once(mount.path / "add_target", f"{LOGIN},initiator_ext={extension}{more}")
        return int(value(mount.port / f"{TARGET}-00000000000000{extension}" / "comp_vector"))
    equal(int(value(mount.target / "comp_vector")), 0, "the first login's")
    equal([vector("f1"), vector("f2", ",ch_count=3"), vector("f3")], [1, 2, 5], "those of the next ones")
    equal([vector("f4", ",comp_vector=0"), vector("f5", ",comp_vector=9")], [0, 9], "those that are named")


@test
def login_strings_come_in_many_forms(t):
    mount = t.mount("demo:ram:1M")
    write_once(mount.target / "delete", "1")
    for path in (mount.path / "add_target", mount.port / "add_target"):
        for text in (LOGIN, LOGIN + "\n", "," + LOGIN, LOGIN + ",", LOGIN.replace(",", "\n"), LOGIN.replace(",", "\n") + "\n", LOGIN.replace(",", ",,\n,"),
                     "dest=demo,ioc_guid=0x0000000000000001,id_ext=0000000000000001", " " + LOGIN.replace(",", " , ") + " ",
                     "id_ext=77," + LOGIN, LOGIN + ",dgid=" + "0" * 32 + ",pkey=ffff,service_id=1", LOGIN + ",initiator_ext=0", LOGIN + "\r\n"):
            write_once(path, text)
            equal(value(mount.target / "state"), "running", f"state after {text!r}")
            equal(mount.lun(0).stat().st_size, 1 << 20, f"size of lun0 after {text!r}")
            write_once(mount.target / "delete", "1")
            check(not mount.target.exists(), f"still there after delete ({text!r})")
    succeeds(f"echo '{LOGIN}' | head -1 > '{mount.path}/add_target'")
    check(mount.target.exists(), "not logged in through a pipe")


@test
def a_second_login_is_refused(t):
    mount = t.mount("demo:ram:1M")
    for path, folders in ((mount.path / "add_target", (mount.path,)), (mount.port / "add_target", (mount.path, mount.port))):
        for text in (LOGIN, LOGIN + ",initiator_ext=0", LOGIN + ",queue_size=5"):
            fails_in_words(mount, errno.EEXIST, path, text, "0000000000000001", also_in=folders)
    equal([target["name"] for target in mount.stats()["targets"]], [TARGET], "targets afterwards")
    equal(value(mount.target / "state"), "running", "state of the first login")
    done = run(f"echo '{LOGIN}' > '{mount.path}/add_target'")
    check(done.returncode == 1 and "File exists" in done.stderr, f"echo: {done.returncode} {done.stderr!r}")
    write_once(mount.path / "add_target", LOGIN + ",initiator_ext=1")
    fails_in_words(mount, errno.EEXIST, mount.path / "add_target", LOGIN + ",initiator_ext=1")


@test(intakes=BOTH)
def logging_out_and_in_keeps_the_data(t):
    mount = t.mount("demo:ram:1M")
    data = pattern(1 << 20, 3)
    mount.lun(0).write_bytes(data)
    for command in ("1", "0", "now", "x y"):
        write_once(mount.target / "delete", command)        # any write (decisions 39)
        check(not mount.target.exists(), f"still there after {command!r}")
        equal(os.listdir(mount.port).count(TARGET), 0, "still listed")
        write_once(mount.path / "add_target", LOGIN)
        check(read_bytes(mount.lun(0)) == data, "data after the new login")
    write_once(mount.target / "delete", "")
    check(mount.target.exists(), "an empty write is no command")


@test
def a_wrong_guid_is_rejected_in_words(t):
    mount = t.mount("demo:ram:1M")
    for text in ("id_ext=2,ioc_guid=1,dest=demo", "id_ext=1,ioc_guid=2,dest=demo"):
        for path, folders in ((mount.path / "add_target", (mount.path,)), (mount.port / "add_target", (mount.path, mount.port))):
            fails_in_words(mount, errno.ECONNREFUSED, path, text, also_in=folders)
            reason = value(folders[-1] / "last_error")
            check(len(reason.split()) > 5, f"last_error is no sentence: {reason!r}")
    names = [path.name for path in mount.port.iterdir() if path.is_dir()]
    equal(names, [TARGET], "directories of targets")


@test
def places_that_are_not_there_are_told_apart(t):
    mount = t.mount("demo:ram:1M")
    for path in (mount.path / "add_target", mount.port / "add_target"):
        fails_in_words(mount, errno.ENODEV, path, "id_ext=1,ioc_guid=1,dest=192.0.2.1:5555", "RDMA")
        fails_in_words(mount, errno.ENODEV, path, "id_ext=1,ioc_guid=1,pkey=ffff,service_id=1,dgid=" + "fe80" + "0" * 28, "RDMA")
    code = errno_of(lambda: write_once(mount.path / "add_target", "id_ext=5,ioc_guid=5,dest=nowhere"))
    check(code in (errno.ENXIO, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.EINVAL), f"dest=nowhere: {errno.errorcode.get(code, code)}")
    contains(value(mount.path / "last_error"), "nowhere", "last_error")
    empty = t.mount("none")
    code = errno_of(lambda: write_once(empty.path / "add_target", LOGIN))
    check(code in (errno.ENODEV, errno.ENXIO), f"dest=demo without the embedded target: {errno.errorcode.get(code, code)}")
    contains(value(empty.path / "last_error"), "demo", "last_error")


@test
def without_waiting_a_login_starts_and_goes_on(t):
    mount = t.mount("demo:ram:1M")
    write_once(mount.target / "delete", "1", os.O_WRONLY | os.O_NONBLOCK)
    eventually(lambda: not mount.target.exists(), "the target is gone")
    write_once(mount.path / "add_target", LOGIN, os.O_WRONLY | os.O_NONBLOCK)
    eventually(lambda: mount.lun(0).exists(), "the target is back")
    # What cannot be known at once comes as an event.
    with opened(mount.path / "events", os.O_RDONLY) as handle:
        write_once(mount.path / "add_target", "id_ext=9,ioc_guid=9,dest=demo", os.O_WRONLY | os.O_NONBLOCK)
        events = []
        while "login_failed" not in events:
            events += [one["event"] for one in lines_of(Background(os.read, handle, 65536).wait("the event"))]
    fails_with(errno.EEXIST, "what is known at once", lambda: write_once(mount.path / "add_target", LOGIN, os.O_WRONLY | os.O_NONBLOCK))
    for name in ("rescan", "reset", "lun0.attr/rescan", "lun0.attr/reset"):
        write_once(mount.target / name, "1", os.O_WRONLY | os.O_NONBLOCK)
    eventually(lambda: value(mount.target / "state") == "running" and read_bytes(mount.lun(0)) == bytes(1 << 20), "the target works")


@test
def a_hundred_logins_and_logouts_work(t):
    mount = t.mount("demo:ram:1M+ram:1M")
    for count in range(100):
        write_once(mount.target / "delete", "1")
        write_once(mount.path / "add_target", LOGIN)
        check(mount.lun(1).exists(), f"no lun1 after login {count + 2}")


@test
def several_logins_at_once_work(t):
    mount = t.mount("demo:ram:1M")
    jobs = [Background(write_once, mount.path / "add_target", f"{LOGIN},initiator_ext={number:x}") for number in range(1, 9)]
    twins = [Background(lambda: errno_of(lambda: write_once(mount.path / "add_target", f"{LOGIN},initiator_ext=99"))) for _ in range(4)]
    for job in jobs:
        job.wait("a login")
    equal(sorted(twin.wait("a login") for twin in twins), [0, errno.EEXIST, errno.EEXIST, errno.EEXIST], "four logins of the same")
    names = [path.name for path in mount.port.iterdir() if path.is_dir()]
    equal(len(names), 10, f"targets: {names}")
    for name in names:
        equal(read_bytes(mount.port / name / "lun0"), bytes(1 << 20), f"data through {name}")
    jobs = [Background(write_once, mount.port / name / "delete", "1") for name in names]
    for job in jobs:
        job.wait("a logout")
    eventually(lambda: mount.stats()["targets"] == [], "no target")


# ---- deleting, rescanning and resetting what is in use ----

@test(intakes=BOTH)
def delete_under_load_ends_io_with_enodev(t):
    mount = t.mount("demo:ram:8M")

    def use(write):
        data = pattern(70000)
        with opened(mount.lun(0)) as handle:
            for count in range(1 << 40):
                offset = count * 70000 % (7 << 20)
                if write:
                    os.pwrite(handle, data, offset)
                else:
                    os.pread(handle, len(data), offset)

    for _ in range(3):
        users = [Background(lambda w=write: errno_of(lambda: use(w))) for write in (True, False, True, False)]
        idle = os.open(mount.lun(0), os.O_RDWR)
        state = os.open(mount.target / "state", os.O_RDONLY)
        before = mount.lun_stats(0)
        eventually(lambda b=before: all(mount.lun_stats(0)[what] > b[what] + 10 for what in ("reads", "writes")), "the users work")
        with promised(2, "delete"):
            write_once(mount.target / "delete", "1")
        check(not mount.target.exists(), "the path is still there")
        for user in users:
            equal(errno.errorcode.get(user.wait("a user")), "ENODEV", "end of a user of the LUN")
        for what, action in (("read", lambda: os.pread(idle, 512, 0)), ("write", lambda: os.pwrite(idle, b"x" * 512, 0)),
                             ("fsync", lambda: os.fsync(idle)), ("reading state", lambda: os.pread(state, 10, 0))):
            fails_with(errno.ENODEV, f"{what} through a handle of before", action)
        write_once(mount.path / "add_target", LOGIN)
        fails_with(errno.ENODEV, "read through a handle of before the new login", lambda: os.pread(idle, 512, 0))
        equal(len(read_bytes(mount.lun(0))), 8 << 20, "bytes read through a new handle")
        os.close(idle)
        os.close(state)


@test
def deleting_oneself_through_an_open_handle_works(t):
    mount = t.mount("demo:ram:1M")
    with opened(mount.target / "delete", os.O_WRONLY) as handle:
        equal(os.write(handle, b"1"), 1, "first write")
        fails_with(errno.ENODEV, "second write", lambda: os.write(handle, b"1"))
    process = subprocess.Popen(["sleep", "600"], cwd=mount.port)
    write_once(mount.path / "add_target", LOGIN)
    done = run("echo 1 > delete; ls", cwd=mount.target)
    check("delete" not in done.stdout, f"the directory one is in still has its files: {done.stdout!r}")
    process.kill()
    process.wait(PATIENCE)


FIO = ("fio", "--name=load", "--ioengine=psync", "--rw=randrw", "--bs=16k", "--size=8m", "--verify=crc32c", "--verify_fatal=1", "--numjobs=1",
       "--output-format=terse", "--thread", "--direct=1")


class Load:
    """Verified I/O on a LUN, again and again, until it is told to stop."""

    def __init__(self, t, mount, number):
        needs("fio")
        self.runs = 0
        self.stopping = False
        self.loop = Background(self._loop, [*FIO, f"--filename={mount.lun(number)}"], t.dir)

    def _loop(self, command, directory):
        while not self.stopping:
            succeeds(*command, cwd=directory)
            self.runs += 1

    def stop(self, what):
        self.stopping = True
        self.loop.wait(what)


def insist(mount, name):
    """Writes "1" until it is taken: 2 s after a reset has aborted a command, of which the target says no more, the connection is
    replaced, and for a moment there is none."""
    def taken():
        got = errno_of(lambda: write_once(mount.target / name, "1"))
        check(got in (0, errno.ENOTCONN, errno.ETIMEDOUT), f"{name}: {errno.errorcode.get(got, got)}")
        return got == 0
    eventually(taken, f"{name} is taken")


@test
def rescan_and_reset_disturb_nobody(t):
    mount = t.mount("demo:ram:8M+ram:8M")
    for path, commands, refused in ((mount.target / "rescan", ("1", "x"), ()), (mount.target / "lun0.attr" / "rescan", ("1", "now"), ()),
                                    (mount.target / "lun0.attr" / "reset", ("1", "lun"), ("0", "host", "2", "LUN")),
                                    (mount.target / "reset", ("1", "host"), ("0", "lun", "2"))):
        for command in commands:
            write_once(path, command)
        for command in refused:
            fails_with(errno.EINVAL, f"{path.name} = {command}", lambda p=path, c=command: write_once(p, c))
            contains(value(path.parent / "last_error"), "reset", "last_error beside it")
    eventually(lambda: value(mount.target / "state") == "running", "running again")
    loads = [Load(t, mount, number) for number in (0, 1)]
    rounds = 0
    # A number of rounds, and on until each load has come through once beside them.
    while rounds < 10 or any(load.runs == 0 and load.loop.is_running() for load in loads):
        for name in ("rescan", "lun0.attr/rescan", "lun0.attr/reset", "lun1.attr/reset"):
            insist(mount, name)
        rounds += 1
    for number, load in enumerate(loads):
        load.stop(f"fio on lun{number} beside {rounds} rounds of resets")


@test
def writers_see_no_error_beside_resets_of_the_target(t):
    # What was sent and not answered is sent again, behind a fence (decisions 1).
    mount = t.mount("demo:ram:8M+ram:8M", "reconnect_delay=1")
    stop = threading.Event()

    def write(number, lun):
        turn = 0
        with opened(mount.lun(lun)) as handle:
            while not stop.is_set() or turn < 3:
                for place in range(number * 65536, 8 << 20, 8 * 65536):
                    equal(os.pwrite(handle, bytes([(number + turn) % 256]) * 65536, place), 65536, "bytes written")
                turn += 1
        return turn

    turns = {}

    def writer(number, lun):
        turns[number, lun] = write(number, lun)

    writers = [Background(writer, number, lun) for lun in (0, 1) for number in range(8)]
    for _ in range(8):
        write_once(mount.target / "reset", "1")
        eventually(lambda: value(mount.target / "state") == "running", "running again")
    stop.set()
    for one in writers:
        one.wait("a writer")
    for (number, lun), turn in turns.items():
        content = read_bytes(mount.lun(lun))
        for place in range(number * 65536, 8 << 20, 8 * 65536):
            equal(content[place:place + 65536], bytes([(number + turn - 1) % 256]) * 65536, f"lun{lun} at {place} after {turn} turns")


@test
def reset_of_the_target_logs_in_again(t):
    mount = t.mount("demo:ram:8M", "reconnect_delay=1")
    data = pattern(8 << 20, 9)
    mount.lun(0).write_bytes(data)
    readers = [Background(lambda: [check(read_bytes(mount.lun(0)) == data, "wrong data") for _ in range(30)]) for _ in range(2)]
    for _ in range(5):
        write_once(mount.target / "reset", "1")
        time.sleep(0.2)
    for reader in readers:
        reader.wait("a reader")                # reads are sent again (decisions 10)
    eventually(lambda: value(mount.target / "state") == "running", "running")
    equal(value(mount.target / "failed_reconnects"), "0", "failed_reconnects")


# ---- events ----

def lines_of(text):
    return [json.loads(line) for line in text.decode().splitlines()]


@test(intakes=BOTH)
def events_are_lines_of_json(t):
    mount = t.mount("demo:ram:1M")
    with opened(mount.path / "events", os.O_RDONLY) as handle:
        reader = Background(os.read, handle, 65536)
        reader.in_a_request()
        time.sleep(0.2)
        check(reader.is_running(), "a read without an event came back")
        write_once(mount.target / "dev_loss_tmo", "500")
        text = reader.wait("the reader")
        check(text.endswith(b"\n") and text.count(b"\n") == 1, f"not one line: {text!r}")
        event = lines_of(text)[0]
        equal(list(event)[:4], ["schema", "sequence", "time", "event"], "first keys")
        equal((event["schema"], event["event"], event["timer"], event["value"], event["target"]), (1, "timer_set", "dev_loss_tmo", "500", TARGET), "the event")
        check(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["time"]), f"time {event['time']!r}")
        write_once(mount.target / "delete", "1")
        write_once(mount.path / "add_target", LOGIN)
        events = []
        while not any(one["event"] == "lun_added" for one in events):
            events += lines_of(Background(os.read, handle, 65536).wait("the reader"))
        equal([one["sequence"] for one in events], list(range(event["sequence"] + 1, event["sequence"] + 1 + len(events))), "sequence")
        kinds = [one["event"] for one in events]
        for kind in ("target_removed", "target_login", "target_added", "lun_added"):
            contains(kinds, kind, "events of a logout and login")


@test
def events_do_not_block_who_does_not_want_to(t):
    mount = t.mount("demo:ram:1M")
    with opened(mount.path / "events", os.O_RDONLY | os.O_NONBLOCK) as handle:
        fails_with(errno.EAGAIN, "read without an event", lambda: os.read(handle, 4096))
        write_once(mount.target / "dev_loss_tmo", "500")
        equal(lines_of(os.read(handle, 65536))[0]["event"], "timer_set", "event")
        fails_with(errno.EAGAIN, "read after the event", lambda: os.read(handle, 4096))


@test
def a_small_buffer_gets_whole_lines(t):
    mount = t.mount("demo:ram:1M")
    with opened(mount.path / "events", os.O_RDONLY | os.O_NONBLOCK) as handle:
        for number in range(20):
            write_once(mount.target / "dev_loss_tmo", str(500 + number))
        values = []
        while len(values) < 20:
            text = os.read(handle, 400)
            check(text.endswith(b"\n"), f"cut line: {text!r}")
            values += [one["value"] for one in lines_of(text)]
        equal(values, [str(500 + number) for number in range(20)], "values in order")


@test
def each_reader_gets_every_event(t):
    mount = t.mount("demo:ram:1M")

    def read_until(handle, last):
        events = []
        while not any(one.get("value") == last for one in events):
            events += lines_of(os.read(handle, 65536))
        return [one["value"] for one in events if one["event"] == "timer_set"]

    handles = [os.open(mount.path / "events", os.O_RDONLY) for _ in range(3)]
    readers = [Background(read_until, handle, "519") for handle in handles]
    for number in range(20):
        write_once(mount.target / "dev_loss_tmo", str(500 + number))
    for reader in readers:
        equal(reader.wait("a reader"), [str(500 + number) for number in range(20)], "values")
    late = os.open(mount.path / "events", os.O_RDONLY | os.O_NONBLOCK)
    fails_with(errno.EAGAIN, "a reader who comes later", lambda: os.read(late, 4096))
    for handle in handles + [late]:
        os.close(handle)


@test
def who_sleeps_misses_events_and_can_tell(t):
    mount = t.mount("demo:ram:1M")
    with opened(mount.path / "events", os.O_RDONLY | os.O_NONBLOCK) as handle, opened(mount.target / "dev_loss_tmo", os.O_WRONLY) as timer:
        for number in range(5000):
            os.write(timer, str(700 + number).encode())
        events = []
        while not events or events[-1]["value"] != "5699":
            events += lines_of(os.read(handle, 1 << 20))
    equal([one["sequence"] for one in events], list(range(events[0]["sequence"], events[-1]["sequence"] + 1)), "sequence of what is left")
    check(1000 <= len(events) < 5000, f"{len(events)} of 5000 events are left")


@test
def past_events_are_read_to_their_end(t):
    mount = t.mount("demo:ram:1M")
    with opened(mount.path / "events", os.O_RDONLY | os.O_NONBLOCK) as handle:
        for value_ in ("501", "502"):
            write_once(mount.target / "dev_loss_tmo", value_)
        events = lines_of(read_bytes(mount.path / "events.log"))
        equal([one["sequence"] for one in events], list(range(len(events))), "from the first one on")
        equal([one["event"] for one in events[-2:]], ["timer_set"] * 2, "to the last one")
        contains([one["event"] for one in events[:-2]], "target_login", "what was before")
        equal(lines_of(os.read(handle, 65536)), events[-2:], "the same as who has waited gets")
    write_once(mount.target / "dev_loss_tmo", "503")
    equal(succeeds("tail", "-n", "1", mount.path / "events.log").count('"value":"503"'), 1, "what tail shows")
    for number in range(4200):
        write_once(mount.target / "dev_loss_tmo", str(700 + number))
    events = lines_of(read_bytes(mount.path / "events.log"))
    equal((len(events), events[-1]["value"]), (4096, "4899"), "how many are kept, and the last of them")


@test
def ctrl_c_ends_waiting_for_events(t):
    mount = t.mount("demo:ram:1M")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        process = subprocess.Popen(["cat", str(mount.path / "events")], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        in_a_request(process.pid)
        with promised(1, f"{number.name}: the end of cat"):
            process.send_signal(number)
            process.wait(PATIENCE)
    write_once(mount.target / "dev_loss_tmo", "500")
    equal(mount.stats()["schema"], 1, "stats afterwards")


@test
def events_are_for_shell_loops(t):
    mount = t.mount("demo:ram:1M")
    process = subprocess.Popen(["grep", "-m", "2", "--line-buffered", "timer_set", str(mount.path / "events")], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    in_a_request(process.pid)
    write_once(mount.target / "dev_loss_tmo", "501")
    write_once(mount.target / "dev_loss_tmo", "502")
    text, _ = process.communicate(timeout=PATIENCE)
    equal([one["value"] for one in lines_of(text)], ["501", "502"], "values")


# ---- last_error ----

@test
def last_error_is_beside_what_failed(t):
    mount = t.mount("demo:ram:1M")
    for folder in (mount.path, mount.port, mount.target, mount.target / "lun0.attr"):
        equal(read_file(folder / "last_error"), "\n", f"last_error of {folder.name} at first")
    errno_of(lambda: write_once(mount.target / "reconnect_delay", "0"))
    contains(value(mount.target / "last_error"), "reconnect_delay", "of the target")
    errno_of(lambda: write_once(mount.target / "lun0.attr" / "reset", "maybe"))
    contains(value(mount.target / "lun0.attr" / "last_error"), "maybe", "of the LUN")
    errno_of(lambda: write_once(mount.port / "add_target", "frobnicate=1"))
    contains(value(mount.port / "last_error"), "frobnicate", "of the port")
    contains(value(mount.path / "last_error"), "frobnicate", "of the mount")
    errno_of(lambda: write_once(mount.path / "add_target", "odd\x01\x7f=1"))
    check(value(mount.path / "last_error").isprintable(), f"not printable: {value(mount.path / 'last_error')!r}")


@test
def a_wrong_value_is_repeated_as_printable_text(t):
    target = t.mount("demo:ram:1M").target
    unit = target / "lun0.attr"
    for path in (target / "reconnect_delay", target / "reset", unit / "reset", unit / "uid", unit / "cache"):
        fails_with(errno.EINVAL, f"{path.name} = nonsense", lambda p=path: write_once(p, "\x1b[2J" + 1000 * "x"))
        told = value(path.parent / "last_error")
        check(told.isprintable() and "\\x1b[2Jxxx" in told and "..." in told and len(told) < 300, f"after {path.name}: {told!r}")


@test(intakes=BOTH)
def what_is_no_command_is_refused_in_words(t):
    mount = t.mount("demo:ram:1M", "raw_commands=all")
    unit = mount.target / "lun0.attr"
    places = {mount.path: (mount.path,), mount.port: (mount.port, mount.path), mount.target: (mount.target,), unit: (unit, mount.target)}
    files = [path for place in places for path in sorted(place.iterdir())
             if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o222 and not path.name.startswith("lun")]
    missed = {"add_target", "delete", "rescan", "reset", "dev_loss_tmo", "reservations", "cdb", "uid", "cache"} - {path.name for path in files}
    check(not missed, f"not tried: {missed}")
    for path in files:
        for script, code, wanted in (("printf 'a\\0b' > FILE", errno.EINVAL, "NUL byte in the command, as its byte 2"),
                                     ("head -c 70000 /dev/zero | tr '\\0' 1 | dd of=FILE bs=70000 iflag=fullblock conv=notrunc status=none",
                                      errno.E2BIG, "longer than 64 KiB")):
            done = run(script.replace("FILE", f"'{path}'"))
            check(done.returncode != 0 and os.strerror(code) in done.stderr, f"{script} for {path.name}: {done.returncode}, {done.stderr!r}")
            for place in places[path.parent]:
                contains(value(place / "last_error"), f"{path.name}: ", f"last_error of {place.name}")
                contains(value(place / "last_error"), wanted, f"last_error of {place.name} for {path.name}")
    check(unit.exists(), "something was carried out")
    reasons = [one["reason"] for one in lines_of(read_bytes(mount.path / "events.log")) if one["event"] == "login_failed"]
    equal([reason.split(":")[0] for reason in reasons], ["add_target"] * 4, "events")


# ---- persistent reservations ----

@test(intakes=BOTH)
def reservations_exclude_other_initiators(t):
    mount = t.mount("demo:ram:1M")
    write_once(mount.path / "add_target", LOGIN + ",initiator_ext=2")
    other = mount.port / "0000000000000001-0000000000000001-0000000000000002"
    ours, theirs = mount.target / "lun0.attr" / "reservations", other / "lun0.attr" / "reservations"
    block = pattern(4096)

    def write(file):
        with opened(file, os.O_WRONLY | os.O_DSYNC) as handle:
            return errno_of(lambda: os.pwrite(handle, block, 0))

    equal(ours.read_text(), "generation 0\nregistered none\nreservation none\n", "at first")
    write_once(ours, "register 0xa")
    write_once(ours, "reserve write-exclusive")
    told = "key 0x000000000000000a\nreservation write-exclusive 0x000000000000000a\n"
    equal(ours.read_text(), "generation 1\nregistered 0x000000000000000a\n" + told, "the holder's view")
    equal(theirs.read_text(), "generation 1\nregistered none\n" + told, "the other's view")
    equal(write(mount.lun(0)), 0, "the holder writes")
    equal(write(other / "lun0"), errno.EBUSY, "the other is refused")
    # Both, as people see it: who has preempted and who was.
    write_once(theirs, "register 0xb")
    fails_in_words(mount, errno.EBUSY, theirs, "reserve write-exclusive", "RESERVATION CONFLICT", also_in=(other,))
    write_once(theirs, "preempt 0xa")
    equal(write(other / "lun0"), 0, "who has preempted writes")
    equal(write(mount.lun(0)), errno.EBUSY, "who was preempted is refused")
    eventually(lambda: "registered none" in ours.read_text(), "the preempted one knows")
    fails_in_words(mount, errno.ENOKEY, ours, "reserve write-exclusive", "register KEY", also_in=(mount.target,))
    fails_in_words(mount, errno.EINVAL, ours, "reserve shared", "write-exclusive", "'shared'", also_in=(mount.target,))
    fails_in_words(mount, errno.EINVAL, ours, "register 0", "0xffffffffffffffff", also_in=(mount.target,))
    write_once(theirs, "clear")
    equal(write(mount.lun(0)), 0, "nothing is reserved any more")


@test(intakes=BOTH)
def reservations_of_what_is_read_only_can_be_read_and_not_changed(t):
    mount = t.mount("demo:ram:1M+ram:1M", "lun=lun0:ro")
    nothing = "generation 0\nregistered none\nreservation none\n"
    changes = ("register 0xa", "register-ignore 0xa", "unregister", "reserve write-exclusive", "release", "preempt 0xb", "preempt-abort 0xb", "clear")
    write_once(mount.target / "lun1.attr" / "read_only", "1")
    for unit in ("lun0", "lun1"):
        file = mount.target / f"{unit}.attr" / "reservations"
        for change in changes:
            fails_in_words(mount, errno.EROFS, file, change, f"{unit}: reservations: {change} changes the unit", also_in=(mount.target, file.parent))
        fails_in_words(mount, errno.EINVAL, file, "reserve shared", "'shared'", also_in=(mount.target,))
        equal(file.read_text(), nothing, f"{unit} after what was refused")
    write_once(mount.target / "lun1.attr" / "read_only", "0")
    write_once(mount.target / "lun1.attr" / "reservations", "register 0xa")
    contains((mount.target / "lun1.attr" / "reservations").read_text(), "registered 0x000000000000000a", "writable again")
