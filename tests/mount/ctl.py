# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""srpctl on real mounts: what it says is what the tree says, and what it does is what echo would have done."""

import fcntl
import json
import os
import pathlib
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

from harness import (LOGIN, NOBODY, PATIENCE, PORT, TARGET, TOP, Background, check, contains, equal, errno_of, eventually, opened, promised, read_file,
                     run, test, value, wait_gone, write_once)
from trouble import BlackHole

OTHER = "id_ext=1,ioc_guid=1,initiator_ext=2,dest=demo"


class Ctl:
    """srpctl on one mount, or without saying which."""

    def __init__(self, t, mount=None):
        self.program = t.program.parent / "srpctl"
        self.mount = mount

    def command(self, *arguments):
        return [str(self.program), *(["-m", str(self.mount.path)] if self.mount else []), *map(str, arguments)]

    def run(self, *arguments, code=0, **more):
        done = run(*self.command(*arguments), **more)
        equal(done.returncode, code, f"exit status of srpctl {' '.join(map(str, arguments))} ({done.stderr.strip()})")
        complaint = re.sub(r"^going on at byte \d+ of \d+\n", "", done.stderr)
        check(code != 0 or not complaint, f"srpctl {arguments} succeeds and complains: {complaint}")
        check(code == 0 or complaint.startswith("srpctl: "), f"srpctl {arguments} does not say why: {done.stderr!r}")
        return done

    def out(self, *arguments, **more):
        return self.run(*arguments, **more).stdout

    def json(self, *arguments, **more):
        return json.loads(self.out("-o", "json", *arguments, **more))

    def fails(self, code, *arguments, **more):
        """What it complains."""
        done = self.run(*arguments, code=code, **more)
        return done.stderr.removeprefix("srpctl: ").strip()

    def on_a_terminal(self, *arguments, columns=80, lines=24, env=None, typed=b""):
        """What appears on a terminal of this size, and the exit status."""
        pid, handle = pty.fork()
        if pid == 0:
            fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            os.execve(self.program, self.command(*arguments), {"PATH": os.environ["PATH"], "TERM": "xterm", **(env or {})})
        os.write(handle, typed)
        text = b""
        try:
            while select.select([handle], [], [], PATIENCE)[0] and (got := os.read(handle, 65536)):
                text += got
        except OSError:                       # the other end is closed
            pass
        wait_gone(pid)
        os.close(handle)
        return text.decode().replace("\r\n", "\n"), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# ---- looking ----

@test
def srpctl_lists_what_is_in_the_tree(t):
    mount = t.mount("demo:ram:64M+ram:1G,bs=4096,ro++3*null:1M")
    ctl = Ctl(t, mount)
    document = ctl.json("list")
    equal(document["schema"], 1, "schema")
    equal([one["path"] for one in document["mounts"]], [str(mount.path)], "mounts")
    seen = document["mounts"][0]
    equal([port["name"] for port in seen["ports"]], [PORT], "ports")
    equal([(target["name"], [lun["name"] for lun in target["luns"]]) for target in seen["targets"]],
          [(TARGET, ["lun0", "lun1"]), (TARGET.replace("1", "2"), ["lun0", "lun1", "lun2"])], "targets and LUNs")
    for target in seen["targets"]:
        for name in ("state", "id_ext", "ioc_guid", "sgid", "last_error"):
            equal(target[name], value(f"{target['path']}/{name}"), f"{name} of a target")
        for name in ("reconnect_delay", "fast_io_fail_tmo", "dev_loss_tmo", "queue_size"):
            equal(str(target[name]), value(f"{target['path']}/{name}"), f"{name} of a target")
        for lun in target["luns"]:
            equal(lun["bytes"], os.stat(lun["path"]).st_size, "size")
            for field, file in (("wwid", "wwid"), ("vendor", "vendor"), ("model", "model"), ("revision", "rev"), ("serial", "serial"),
                                ("mode", "mode"), ("cache", "cache"), ("state", "state"), ("last_error", "last_error")):
                equal(lun[field], value(f"{lun['path']}.attr/{file}"), field)
            for field, file in (("block_bytes", "logical_block_size"), ("physical_block_bytes", "physical_block_size"),
                                ("uid", "uid"), ("gid", "gid")):
                equal(str(lun[field]), value(f"{lun['path']}.attr/{file}"), field)
            equal(lun["read_only"], value(f"{lun['path']}.attr/read_only") == "1", "read_only")
            for name in lun["by_id"]:
                equal(os.path.realpath(mount.path / "by-id" / name), lun["path"], name)
            equal(len(lun["by_id"]), 2, "names in by-id")
    lines = ctl.out("list").splitlines()
    equal(len(lines), 6, "lines of the table")
    equal(re.split(" {2,}", lines[1]), [PORT, TARGET, "lun0", "running", "64 MiB", "rw", "SRPFS RAM DISK",
                                        value(mount.lun(0).with_suffix(".attr") / "wwid")], "a line of the table")
    contains(lines[2], " ro ", "a read-only LUN")
    equal(ctl.out("list", "-o", "plain").splitlines()[2].split("\t"),
          ["lun", str(mount.lun(0)), "running", str(64 << 20), "rw", value(mount.lun(0).with_suffix(".attr") / "wwid"), "SRPFS", "RAM DISK"],
          "a plain line")
    contains(ctl.out("list", "-v"), f"{mount.path}: demo:", "what -v begins with")
    for what, kind in ((PORT, "port"), (TARGET, "target"), (f"{TARGET}/lun1", "lun"), (mount.path / "by-path" / f"demo0-1-srp-{TARGET}-lun-1", "lun")):
        shown = ctl.json("show", what)[kind]
        check(shown["path"].startswith(str(mount.path / PORT)), f"show {what}: {shown}")
    contains(ctl.fails(4, "show", "lun0"), "2 have this name", "an ambiguous name")
    contains(ctl.fails(4, "show", "lun7"), "no port, target or LUN", "a name of nothing")


@test
def srpctl_finds_its_mount(t):
    first, second = t.mount("none"), t.mount("demo:ram:1M")
    ctl, alone = Ctl(t), Ctl(t, first)
    contains(ctl.fails(3, "stats"), "choose one with --mount", "two mounts")
    # Others' mounts are listed as well, and may come, go and stand still as they like.
    paths = {one["path"] for one in json.loads(run(*ctl.command("list", "-o", "json")).stdout)["mounts"]}
    check({str(first.path), str(second.path)} <= paths, f"mounts of list: {paths}")
    for arguments, directory in ((("show", second.lun(0)), "/"), (("-m", ".", "show", "lun0"), second.port), (("show", "./lun0"), second.target)):
        equal(ctl.json(*arguments, cwd=directory)["lun"]["path"], str(second.lun(0)), f"{arguments} in {directory}")
    file = t.path("file")
    file.write_text("")
    for verb in (("list",), ("show", "lun0"), ("login", OTHER), ("login-all", file), ("logout", TARGET), ("logout-all",), ("rescan",), ("reset", "lun0"),
                 ("set", "dev_loss_tmo=30"), ("reservations", "lun0"), ("copy", "lun0", t.path("copy")), ("copy", file, t.path("copy")), ("stats",),
                 ("top", "-n", "1"), ("events",), ("events", "-f"), ("why",)):
        for form in ("table", "plain", "json"):
            done = ctl.run("-m", "/proc", "-o", form, *verb, code=3)
            said = done.stderr.removeprefix("srpctl: ").removesuffix("\n")
            check(said.startswith("/proc is not in an srpfs mount; srpfs is mounted on ") and "\n" not in said, f"{verb} says: {said}")
            if form == "json":
                equal(json.loads(done.stdout), {"schema": 1, "exit_status": 3, "errors": [said]}, f"{verb} as JSON")
            else:
                equal(done.stdout, "", f"{verb} as {form}")
    nowhere = t.path("nowhere")
    for arguments in (("-m", nowhere, "list"), ("list", "-m", nowhere), ("list", "-v", "-m", nowhere)):
        said = ctl.run("-o", "json", *arguments, code=3)
        equal(json.loads(said.stdout)["errors"], [said.stderr.removeprefix("srpctl: ").strip()], f"{arguments} as JSON")
        contains(said.stderr, f"{nowhere} is not in an srpfs mount; ", f"{arguments}")
    done = run(*alone.command("list"))
    equal((done.returncode, done.stdout), (0, ""), "a list of nothing")
    contains(done.stderr, "no target is logged in to", "a hint")
    equal(alone.json("list", "-v")["mounts"][0]["targets"], [], "targets of an empty mount")


@test
def srpctl_fits_the_terminal(t):
    mount = t.mount("demo:2*ram:64M")
    ctl = Ctl(t, mount)
    whole = ctl.out("list")
    check("\x1b" not in whole, "colours in a pipe")
    for columns in (200, 80, 50):
        text, code = ctl.on_a_terminal("list", columns=columns)
        equal(code, 0, "exit status")
        contains(text, "\x1b[32mrunning\x1b[0m", "the colour of a state")
        plain, _ = ctl.on_a_terminal("list", columns=columns, env={"NO_COLOR": "1"})
        equal(re.sub("\x1b\\[[0-9]*m", "", text), plain, "without colours")
        check(all(len(line) <= columns for line in plain.splitlines()), f"wider than {columns}: {plain}")
        check(plain.isascii(), f"in the C locale: {plain}")
        if columns == 200:
            equal(plain, whole, "where there is room")
        in_utf8, _ = ctl.on_a_terminal("list", columns=columns, env={"NO_COLOR": "1", "LC_ALL": "C.UTF-8"})
        equal(in_utf8.replace("\u2026", "~"), plain, "in UTF-8")
        check("~" not in plain or "\u2026" in in_utf8, "no ellipsis in UTF-8")
    check("\x1b" not in ctl.on_a_terminal("list", env={"TERM": "dumb"})[0], "colours on a dumb terminal")


# ---- doing ----

@test
def srpctl_logs_in_and_out(t):
    mount = t.mount("none")
    demo = t.mount("demo:ram:1M")
    ctl, path, other = Ctl(t, demo), str(demo.target), f"{demo.target}-{2:016x}"
    equal(ctl.out("logout", TARGET), f"logged out: {path}\n", "logout")
    check(not demo.target.exists(), "the directory is still there")
    equal(ctl.out("login", LOGIN), f"logged in: {path}\n", "login")
    check(demo.lun(0).exists(), "the LUN is not there when login ends")
    equal(ctl.fails(15, "login", LOGIN), f"{path}: already logged in", "a second login")
    contains(ctl.fails(7, "login", "id_ext=zz"), "id_ext", "a bad login string")
    contains(ctl.fails(7, "login", "id_ext=" + "1" * 70000), "add_target: a command longer than 64 KiB", "a login string without end")
    contains(ctl.fails(4, "login", "-p", "srp-demo0-2", OTHER), "srp-demo0-2", "a port that is not there")
    equal(ctl.out("login", "-p", "demo0-1", OTHER, "-o", "plain"), f"done\t{other}\n", "a login through a port")
    lines = f"# targets\n\n{LOGIN}\n  {OTHER}\r\n"
    equal(ctl.out("login-all", text_in=lines), f"already logged in: {path}\nalready logged in: {other}\n", "all are there")
    ctl.run("logout", other)
    t.path("logins").write_text(lines + "nonsense\n" + LOGIN.replace("id_ext=1", "id_ext=77") + "\n")
    done = ctl.run("-o", "json", "login-all", t.path("logins"), code=7)
    results = json.loads(done.stdout)["results"]
    equal([one["outcome"] for one in results], ["already", "done", "failed", "failed"], "outcomes")
    equal([one["path"] for one in results], [path, other, None, None], "paths")
    equal(results[2]["errno"], "EINVAL", "errno of nonsense")
    contains(done.stderr, results[3]["error"], "what it complains")
    equal(ctl.out("logout-all"), f"logged out: {path}\nlogged out: {other}\n", "logout-all")
    contains(ctl.fails(4, "logout", TARGET), "no port, target or LUN", "logging out twice")
    equal(ctl.out("logout-all"), "", "nobody left")
    contains(ctl.fails(2, "login-all", t.path("not there")), "No such file", "a file that is not there")
    contains(Ctl(t, mount).fails(5, "login", LOGIN), "demo", "a login that cannot work")


@test
def srpctl_resets_and_rescans(t):
    mount = t.mount("demo:ram:1M+ram:2M")
    ctl = Ctl(t, mount)
    equal(ctl.out("rescan"), f"rescanned: {mount.target}\n", "rescan")
    equal(ctl.out("rescan", "lun1", PORT), f"rescanned: {mount.lun(1)}\nrescanned: {mount.target}\n", "rescan of some")
    equal(ctl.out("reset", "lun0"), f"reset: {mount.lun(0)}\n", "reset of a LUN")
    equal(ctl.out("reset", TARGET), f"reset: {mount.target}\n", "reset of a target")
    eventually(lambda: value(mount.target / "state") == "running", "the target is back")
    contains(ctl.fails(1, "logout", "lun0"), "is no target", "logging out of a LUN")
    contains(ctl.fails(1, "reset"), "WHAT is missing; ", "reset of nothing")
    # Nothing is done when one of several names is wrong.
    contains(ctl.fails(4, "reset", "lun0", "lun7"), "lun7", "a wrong name")


@test
def srpctl_sets_all_timers_at_once(t):
    mount = t.mount("demo:ram:1M")
    ctl = Ctl(t, mount)

    def timers():
        return [value(mount.target / name) for name in ("reconnect_delay", "fast_io_fail_tmo", "dev_loss_tmo")]

    # Each is impossible in the other order.
    for wanted in (["10", "5", "10"], ["20", "30", "60"], ["off", "5", "off"], ["10", "off", "off"], ["off", "off", "100"],
                   ["off", "600", "off"], ["1", "0", "1"], ["10", "15", "600"]):
        words = [f"{name}={one}" for name, one in zip(("reconnect_delay", "fast_io_fail_tmo", "dev_loss_tmo"), wanted)]
        equal(ctl.out("set", *words), f"set: {mount.target}\n", "what it says")
        equal(timers(), wanted, "timers")
    contains(ctl.fails(7, "set", "dev_loss_tmo=30", "fast_io_fail_tmo=50"), "fast_io_fail_tmo (50) must be less than dev_loss_tmo (30)",
             "the reason, about what was wanted")
    contains(ctl.fails(7, "set", TARGET, "reconnect_delay=5", "dev_loss_tmo=soon"), "'soon' is neither", "no number")
    equal(timers(), ["10", "15", "600"], "timers after refused settings")
    ctl.run("set", "lun0", "mode=0640", "gid=7", "read_only=1")
    equal([value(mount.target / "lun0.attr" / name) for name in ("gid", "read_only")], ["7", "1"], "settings of a LUN")
    equal(ctl.json("show", "lun0")["lun"]["read_only"], True, "read_only")
    contains(ctl.fails(7, "set", "lun0", "gid=8", "mode=9"), "'9' is not an octal number", "a bad mode")
    equal(value(mount.target / "lun0.attr/gid"), "7", "gid after a refused setting")
    ctl.run("set", "lun0", "read_only=0")
    equal(value(mount.target / "lun0.attr/mode"), "0640", "mode")
    with opened(mount.lun(0), os.O_RDWR):
        contains(ctl.fails(9, "set", "lun0", "read_only=1"), "open for writing", "read_only of an open file")
    contains(ctl.fails(1, "set", "lun0"), "KEY=VALUE is missing", "no setting")
    contains(ctl.fails(1, "set", "gid=1", "gid=2"), "given twice", "one setting twice")
    contains(ctl.fails(7, "set", "lun0", "size=1"), "LUNs have", "a setting that there is not")
    ctl.run("login", OTHER)
    contains(ctl.fails(4, "set", "reconnect_delay=9"), "2 targets", "which of two")
    ctl.run("set", PORT, "reconnect_delay=9")
    equal([value(path / "reconnect_delay") for path in sorted(mount.port.glob(TARGET + "*"))], ["9", "9"], "both")


@test
def srpctl_shows_events_and_counts(t):
    mount = t.mount("demo:ram:1M")
    ctl = Ctl(t, mount)
    mount.lun(0).write_bytes(b"x" * 4096)
    document = ctl.json("stats", "lun0")
    equal([lun["counters"]["bytes_written"] for lun in document["targets"][0]["luns"]], [4096], "what was written")
    contains(ctl.out("stats"), "4 KiB", "what was written, for people")
    contains(ctl.fails(8, "events", "-f", "--timeout", "1"), "no event within 1 s", "silence")
    at_end = Background(lambda: ctl.fails(3, "events", "-f"))
    eventually(lambda: str(mount.path / "events") in open_files_of(os.getsid(0)), "srpctl listens")
    os.kill(mount.pid, signal.SIGTERM)
    mount.wait_end()
    contains(at_end.wait("the end of the mount"), "srpfs has ended", "the end of the mount")


@test
def srpctl_says_that_srpfs_is_ending(t):
    """Found between the refusal of what is to be opened and the end of the mount; here another namespace has a copy of it."""
    mount = t.mount("demo:ram:1M", "shutdown_timeout=20")
    waiting = []
    with opened(mount.lun(0)):
        for arguments, words in ((("list",), "srpfs is ending"), (("events", "-f"), "srpfs has ended"), (("rescan", TARGET), "srpfs is ending")):
            process = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sh", "-c", 'echo ready; read -r go; exec "$@"', "sh",
                                        *Ctl(t, mount).command(*arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, text=True)
            equal(process.stdout.readline(), "ready\n", "the other namespace")
            waiting.append((arguments, words, process))
        os.kill(mount.pid, signal.SIGTERM)
        eventually(lambda: not mount.is_mounted(), "the mount point is free")
        for arguments, words, process in waiting:
            said = process.communicate("go\n", timeout=PATIENCE)[1]
            equal(process.returncode, 3, f"exit status of {arguments} ({said})")
            contains(said, words, f"what {arguments} complains")
    mount.wait_end()


@test
def srpctl_counts_no_request_of_its_own_and_shows_reactors_and_pages(t):
    mount = t.mount("demo:ram:1M", "reactors=1,lun=*:cached")
    ctl = Ctl(t, mount)
    contains(ctl.out("stats"), "requests pending: 0\n", "nobody asks for anything")
    check("PAGES FILLED" not in ctl.out("stats"), "pages, though nothing was read by way of them")
    mount.lun(0).write_bytes(b"x" * 8192)
    equal(mount.lun(0).read_bytes()[:8192], b"x" * 8192, "what was written")
    mount.lun(0).write_bytes(b"y" * 4096)
    pages, reactors = mount.stats()["pages"], mount.stats()["reactors"]
    check(pages["fills_cached"] > 0 and pages["drops"] > 0, f"pages {pages}")
    text = ctl.out("stats")
    row = next(after.split() for title, after in zip(text.splitlines(), text.splitlines()[1:]) if title.startswith("PAGES FILLED"))
    equal(row[:3], [str(pages[name]) for name in ("fills", "fills_cached", "drops")], "pages for people")
    row = next(line.split() for line in text.splitlines() if line.startswith("srpfs-0 "))
    equal((row[1], row[4]), (str(reactors[0]["total"]["reads"]), str(reactors[0]["total"]["writes"])), "the reactor for people")
    plain = ctl.out("stats", "-o", "plain")
    contains(plain, f"{mount.path}\tpages.drops\t{pages['drops']}\n", "drops for scripts")
    contains(plain, f"{mount.path}\treactor.srpfs-0.bytes_written\t12288\n", "bytes for scripts")
    document = ctl.json("stats", "lun0")
    equal((document["pages"], document["reactors"]), (None, None), "what is not about the unit that was asked for")


@test
def srpctl_shows_past_events_and_follows(t):
    mount = t.mount("demo:ram:1M")
    ctl = Ctl(t, mount)
    for delay in range(30, 42):
        write_once(mount.target / "reconnect_delay", str(delay))

    def delays(text):
        lines = [line.split("\t") for line in text.splitlines()]
        check(all(line[1:3] == ["timer_set", TARGET] for line in lines), f"other events in {text}")
        return [int(line[4].rpartition("=")[2]) for line in lines]

    equal(ctl.out("-o", "json", "events"), read_file(mount.path / "events.log"), "all of them, as JSON")
    contains(ctl.out("events"), "target_login", "what was first")
    equal(delays(ctl.out("-o", "plain", "events", "-n", "3")), [39, 40, 41], "the last three")
    equal(ctl.out("events", "-n", "0"), "", "none of them")
    for arguments, shown in (((), list(range(32, 42))), (("-n", "1"), [41]), (("-n", "0"), [])):
        with subprocess.Popen(ctl.command("-o", "plain", "events", "-f", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              start_new_session=True) as process:
            eventually(lambda p=process: str(mount.path / "events") in open_files_of(p.pid), "srpctl listens")
            first = [process.stdout.readline() for _ in shown]
            write_once(mount.target / "reconnect_delay", "41")
            equal(delays("".join([*first, process.stdout.readline()])), [*shown, 41], f"events -f {arguments}")
            # Nobody reads any more, and nothing happens: it ends all the same.
            process.stdout.close()
            equal(process.wait(PATIENCE), -signal.SIGPIPE, "end when nobody reads")
            equal(process.stderr.read(), "", "complaints about a closed pipe")


@test
def srpctl_shows_events_since_a_time(t):
    mount = t.mount("demo:ram:1M")
    ctl = Ctl(t, mount)

    def events(text):
        return [json.loads(line) for line in text.splitlines()]

    # Each at a time of its own, in milliseconds.
    for delay in range(30, 36):
        write_once(mount.target / "reconnect_delay", str(delay))
        at = time.time_ns() // 1000000
        eventually(lambda: time.time_ns() // 1000000 > at + 1, "the clock goes on")
    everything = events(read_file(mount.path / "events.log"))
    third, fifth = everything[-4], everything[-2]
    check(third["time"] < fifth["time"], f"times of events: {third} and {fifth}")

    def seen(*arguments, **more):
        return events(ctl.out("-o", "json", "events", *arguments, **more))

    equal(seen("--since", third["time"]), everything[-4:], "since the third one")
    equal(seen("--since", third["time"], "-n", "2"), everything[-2:], "the last two of them")
    equal(seen("--until", third["time"]), everything[:-3], "until the third one")
    equal(seen("--since", third["time"], "--until", fifth["time"]), everything[-4:-1], "those between")
    local = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - 3600))
    for some_time_ago in ("1h", "1 hour ago", local, "yesterday"):
        equal(seen("--since", some_time_ago), everything, f"since {some_time_ago}")
    equal(seen("--since", "1h", env={"TZ": "UTC-14"}), everything, "in another time zone")
    equal(ctl.out("events", "--until", "1h"), "", "none is so old")
    contains(ctl.out("events", "--since", third["time"]), third["time"], "for people")
    contains(ctl.fails(1, "events", "--since", "soon"), "--since soon: a time is expected, such as", "what is no time")
    equal(json.loads(ctl.run("-o", "json", "events", "--until", "10", code=1).stdout)["exit_status"], 1, "what is no time, as JSON")
    for since in (third["time"], "1h"):
        shown = [one for one in everything if since == "1h" or one["time"] >= third["time"]]
        with subprocess.Popen(ctl.command("-o", "json", "events", "-f", "--since", since), stdout=subprocess.PIPE, text=True,
                              start_new_session=True) as process:
            eventually(lambda p=process: str(mount.path / "events") in open_files_of(p.pid), "srpctl listens")
            first = [process.stdout.readline() for _ in shown]
            write_once(mount.target / "reconnect_delay", "40")
            last = json.loads(process.stdout.readline())
            equal(events("".join(first)), shown, f"events -f --since {since}")
            equal((last["event"], last["sequence"]), ("timer_set", everything[-1]["sequence"] + 1), "what follows")
            everything = [*everything, last]
            process.terminate()


@test
def srpctl_takes_mount_points_of_any_name(t):
    for name in (b"new\nline", b"not \xff utf8", b"\x1b[2Jclear"):
        place = os.fsencode(t.mountpoint()) + b"/" + name
        os.mkdir(place)
        mount = t.mount("demo:ram:1M", at=pathlib.Path(os.fsdecode(place)))
        ctl, lun = Ctl(t), os.fsencode(mount.lun(0))
        binary = [os.fsencode(one) for one in (t.program.parent / "srpctl", "-m")] + [place]

        def said(*arguments, code=0):
            done = subprocess.run([*binary, *map(os.fsencode, arguments)], capture_output=True, timeout=PATIENCE)
            equal(done.returncode, code, f"exit status of {arguments} at {name}: {done.stderr}")
            check(b"\x1b" not in done.stdout + done.stderr, f"{arguments} at {name}: {done.stdout + done.stderr}")
            done.stdout.decode("utf-8")
            return done

        for verb in (("list",), ("list", "-v"), ("show", "lun0"), ("show", lun), ("stats",), ("top", "-n", "1", "-d", "0.1"), ("events",),
                     ("reservations", "lun0"), ("set", "reconnect_delay=9"), ("rescan",), ("reset", "lun0")):
            for output in ("table", "plain", "json"):
                text = said("-o", output, *verb).stdout
                if output == "json":
                    for document in (text.splitlines() if verb[0] in ("top", "events") else [text]):
                        equal(json.loads(document)["schema"], 1, f"schema of {verb}")
        equal(value(mount.target / "reconnect_delay"), "9", "what was set")
        for arguments in (("show", "nothing"), ("logout", "lun0"), ("reservations", TARGET), ("set", "gid=x", "lun0"), ("list", "-m", place + b"x")):
            code = {"show": 4, "logout": 1, "reservations": 1, "set": 7, "list": 3}[arguments[0]]
            equal(said(*arguments, code=code).stderr.count(b"\n"), 1, f"lines of the complaint about {arguments} at {name}")
            errors = json.loads(said("-o", "json", *arguments, code=code).stdout)
            check({"errors", "results", "mounts"} & errors.keys(), f"{arguments} at {name}: {errors}")
        done = run(*ctl.command("-o", "json", "why"))
        check(done.returncode in (0, 12) and json.loads(done.stdout)["schema"] == 1, f"why: {done.stderr}")
        said("logout", TARGET)
        mount.umount()


@test
def srpctl_shows_and_changes_reservations(t):
    mount = t.mount("demo:ram:1M")
    ctl = Ctl(t, mount)
    contains(ctl.out("reservations", "lun0"), "registered here: nothing", "before")
    equal(ctl.out("reservations", "lun0", "register", "0xa"), f"register 0xa: {mount.lun(0)}\n", "registering")
    ctl.run("reservations", "lun0", "reserve", "write-exclusive")
    document = ctl.json("reservations", mount.lun(0))
    equal([document[name] for name in ("path", "registered", "keys")], [str(mount.lun(0)), f"0x{10:016x}", [f"0x{10:016x}"]], "who is registered")
    equal(document["reservation"]["type"], "write-exclusive", "the reservation")
    contains(ctl.fails(7, "reservations", "lun0", "reserve", "everything"), "everything", "a type that there is not")
    contains(ctl.fails(1, "reservations", TARGET), "is no LUN", "those of a target")
    contains(ctl.fails(1, "reservations", "lun0", "frob"), "frob: one of register, ", "a command that there is not")
    ctl.run("reservations", "lun0", "unregister")
    equal(ctl.json("reservations", "lun0")["registered"], None, "after unregistering")


# ---- trouble ----

@test
def srpctl_says_that_srpfs_does_not_answer(t):
    mount = t.mount("demo:ram:1M")
    ctl = Ctl(t, mount)
    os.kill(mount.pid, signal.SIGSTOP)
    try:
        with promised(5, "giving up after a second", beside=lambda: run("true")):
            contains(ctl.fails(8, "list", "-t", "1"), "srpfs does not answer (no answer within 1 s)", "a stopped srpfs")
        document = json.loads(ctl.run("list", "-o", "json", "-t", "1", code=8).stdout)
        contains(document["mounts"][0]["error"], "does not answer", "what JSON says of it")
    finally:
        os.kill(mount.pid, signal.SIGCONT)
    equal(len(ctl.out("list").splitlines()), 2, "lines when it goes on")


@test
def no_verb_waits_for_an_srpfs_that_does_not_answer(t):
    mount = t.mount("demo:ram:1M")
    ctl = Ctl(t, mount)
    image = t.path("image")
    image.write_bytes(b"x" * 512)
    os.kill(mount.pid, signal.SIGSTOP)
    try:
        for arguments in (("list",), ("list", "-v"), ("show", "lun0"), ("stats",), ("top", "-n", "1"), ("rescan",), ("reset", "lun0"), ("logout", TARGET),
                          ("logout-all",), ("set", "reconnect_delay=5"), ("reservations", "lun0"), ("copy", mount.lun(0), t.path("x")),
                          ("copy", image, mount.lun(0), "-y"), ("login", OTHER), ("login", "-p", PORT, OTHER), ("events",), ("events", "-f")):
            with promised(5, f"giving up {arguments} after a second", beside=lambda: run("true")):
                said = ctl.fails(8, *arguments, "-t", "1", env={"XDG_STATE_HOME": str(t.dir)})
            check("within 1 s" in said or "answer" in said, f"what {arguments} says: {said}")
        with promised(5, "finding out", beside=lambda: run("true")):
            done = run(*ctl.command("why", "-t", "1"))
        equal(done.returncode, 12, "exit status of why")
        contains(done.stdout, f"srpfs {mount.pid}: This srpfs is stopped", "what why says")
    finally:
        os.kill(mount.pid, signal.SIGCONT)


@test
def srpctl_takes_odd_words_for_what_they_are(t):
    mount = t.mount("demo:ram:1M")
    ctl = Ctl(t, mount)
    contains(ctl.fails(7, "login", ""), "the login string is empty", "an empty login")
    contains(ctl.fails(7, "login", " \n"), "the login string is empty", "a login of blanks")
    said = ctl.fails(4, "show", "lun0\x1b[2J\x9b\u202e\r")
    check(said.isascii() and said.isprintable(), f"a name that a terminal would obey: {said!r}")
    for words in (("show", "a" * 100000), ("login", "id_ext=" + "9" * 60000), ("set", "reconnect_delay=" + "9" * 100000)):
        done = run(*ctl.command(*words))
        check(done.returncode != 0 and done.stderr.count("\n") == 1, f"not one line is said of a long word, exit {done.returncode}: {done.stderr[:5000]}")
    said = ctl.fails(4, "show", "a" * 100000)
    equal(said, "a" * 100000 + f": no port, target or LUN of {mount.path} has this name; see: srpctl list -v", "what is said of a long name, which is not cut")
    shown, code = ctl.on_a_terminal("show", "b" * 200, columns=40)
    equal((code, shown), (4, f"srpctl: {'b' * 200}: no port, target or LUN of {mount.path} has this name; see: srpctl list -v\n"),
          "a complaint on a narrow terminal, which is not cut or broken either")
    image = t.path("image\x1b[2J")
    image.write_bytes(b"x" * 512)
    out = ctl.out("copy", image, "lun0", "-y", env={"XDG_STATE_HOME": str(t.dir)})
    check("\x1b" not in out and "image?[2J" in out, f"a file's name that a terminal would obey: {out!r}")
    said = ctl.fails(6, "copy", image, "lun0", "-y", env={"XDG_STATE_HOME": "", "HOME": "/proc"})
    contains(said, "/proc/.local/state/srpfs, where it would be noted how far the copy is, cannot be made", "no place for the journal")
    for language in ("xx_YY.nonsense", "", "C.UTF-8"):
        equal(len(ctl.out("list", env={"LC_ALL": language, "LANG": language}).splitlines()), 2, f"lines with LANG={language}")
    contains(ctl.fails(1, "logout-all", "-m", ""), "--mount needs a value", "a mount point that is empty")
    for words in (("show", ""), ("logout", ""), ("rescan", ""), ("copy", "lun0", ""), ("why", ""), ("config", "check", "")):
        contains(ctl.fails(1, *words), "an operand is empty; usage: srpctl", f"{words}")
    for word in ("fast_io_fail_tmo=", "=5", "="):
        contains(ctl.fails(1, "set", word), f"{word}: KEY=VALUE is expected", "half a setting")
    contains(ctl.fails(2, "login-all", "/dev/zero"), "/dev/zero: is larger than 1024 KiB", "logins without an end")
    contains(ctl.fails(2, "login-all", t.dir), "Is a directory", "logins in a directory")
    done = run(f"{' '.join(ctl.command('login-all'))} <&-")
    equal((done.returncode, done.stderr), (2, "srpctl: standard input: Bad file descriptor\n"), "logins from nowhere")
    image.write_bytes(b"y" * 512)
    for closed in (">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"):
        run(f"XDG_STATE_HOME={t.dir} {' '.join(ctl.command('copy', '-y', '--no-resume', image, 'lun0'))} {closed}")
        equal(mount.lun(0).read_bytes()[:1024], b"y" * 512 + bytes(512), f"the LUN after a copy with {closed}, where nothing meant for people belongs")
    for closed in ("<&-", ">&-", "2>&-"):
        done = run(f"{' '.join(ctl.command('list'))} {closed}; echo $? >&{'2' if closed == '>&-' else '1'}")
        equal((done.stdout + done.stderr).splitlines()[-1], "2" if closed == ">&-" else "0", f"exit status with {closed}")


@test
def a_mount_point_may_have_any_name(t):
    mount = t.mount("demo:ram:1M", at=t.mountpoint("a\x1b[31m\tb\\040 $(c)\u00fc "))
    ctl = Ctl(t, mount)
    equal(ctl.json("list")["mounts"][0]["path"], str(mount.path), "the mount point in JSON")
    shown = {"C": "/a?[31m?b\\040 $(c)?", "C.UTF-8": "/a?[31m?b\\040 $(c)\u00fc"}
    lun = mount.lun(0)
    # The columns of list and the lines of stats have no room for paths of this length.
    for words, is_named in ((("list",), False), (("list", "-v"), False), (("show", lun), True), (("show", TARGET), True), (("stats",), False),
                            (("rescan",), True), (("reset", lun), True), (("set", TARGET, "reconnect_delay=11"), True), (("set", "reconnect_delay=x"), False),
                            (("copy", lun, t.path("out")), True), (("copy", "-y", t.path("out"), "lun0"), False), (("reservations", lun), False),
                            (("why", mount.path), True), (("logout", "nothing"), True)):
        for locale, name in shown.items():
            for output in ("table", "plain"):
                done = run(*ctl.command("-o", output, *words), env={"LC_ALL": locale, "XDG_STATE_HOME": str(t.dir)})
                said = done.stdout + done.stderr
                kept = "\n\t" if output == "plain" else "\n"
                check(all(one.isprintable() or one in kept for one in said), f"srpctl -o {output} {words} with {locale}: {said!r}")
                check(not is_named or output == "plain" or name in re.sub(r"\n *", " ", said), f"srpctl {words} with {locale} does not say {name}: {said!r}")
    ctl.run("logout", TARGET)
    contains(ctl.out("login", LOGIN), "logged in: ", "a login")


@test
def every_field_that_is_printed_is_in_the_manual(t):
    """With schema in each document; those of the golden files are compared by tests/ctl/words_check."""
    mount = t.mount("demo:ram:1M,wce+ram:1M++ram:1M")
    ctl = Ctl(t, mount)
    mount.lun(0).write_bytes(b"x" * 4096)
    mount.lun(0).read_bytes()
    config = t.path("my.conf")
    config.write_text("[login]\nlogin = id_ext=1,ioc_guid=1,dest=demo\n[lun x*]\nro\n")
    image = t.path("image")
    image.write_bytes(b"x" * 512)
    lun = mount.lun(0)
    commands = [("list",), ("list", "-v"), ("show", PORT), ("show", TARGET), ("show", lun), ("stats",), ("top", "-n", "2", "-d", "0.1"), ("why", "id_ext=1"),
                ("reservations", lun), ("reservations", lun, "register", "1"), ("copy", lun, t.path("out")), ("copy", lun, t.path("no/out")),
                ("copy", image, lun, "-y", "--verify"), ("copy", "--verify-only", t.path("out"), lun), ("config", "show", config), ("config", "check", config),
                ("login", OTHER), ("login", "nonsense"), ("login-all", t.path("empty")), ("rescan",), ("reset", lun), ("set", TARGET, "reconnect_delay=11"),
                ("set", TARGET, "reconnect_delay=soon"), ("logout", TARGET), ("logout-all",), ("show", lun), ("list", "-m", "/nowhere")]
    t.path("empty").write_text("# nothing\n")
    text = re.search(r"^\.Sh JSON$(.*?)^\.Sh ", (TOP / "man/srpctl.8").read_text(encoding="utf-8"), re.M | re.S)[1]
    documented = set(re.findall(r"\w+", text))
    own = {"errors_by_kind": set(), "latency": None}

    def fields(value):
        if isinstance(value, list):
            for one in value:
                yield from fields(one)
        elif isinstance(value, dict):
            for name, inner in value.items():
                yield name
                if own.get(name) != set():          # kinds of errors are srpfs's
                    yield from fields(inner)

    for words in commands:
        done = run(*ctl.command("-o", "json", *words), env={"XDG_STATE_HOME": str(t.dir)})
        try:
            documents = [json.loads(done.stdout)] if done.stdout else []
        except ValueError:
            documents = [json.loads(line) for line in done.stdout.splitlines()]
        check(documents or done.returncode != 0, f"srpctl -o json {words} says nothing")
        for document in documents:
            equal(document["schema"], 1, f"schema of {words}")
            equal(sorted(set(fields(document)) - documented), [], f"fields of {words} that the manual does not have")


@test
def srpctl_ends_with_a_signal_while_it_waits(t):
    mount = t.mount("demo:ram:1M")
    ctl = Ctl(t, mount)
    for number, verb in ((signal.SIGINT, ("events", "-f")), (signal.SIGTERM, ("events", "-f", "-n", "0")), (signal.SIGKILL, ("events", "-f"))):
        with subprocess.Popen(ctl.command(*verb), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as process:
            eventually(lambda: str(mount.path / "events") in open_files_of(process.pid), "srpctl listens")
            if number == signal.SIGINT:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
            equal(process.wait(PATIENCE), -number, f"end by {number.name}")
            equal(process.stderr.read(), b"", "complaints")       # and nobody is left who has it open
    with subprocess.Popen(ctl.command("top", "-b", "-d", "3600"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        equal(process.wait(PATIENCE), -signal.SIGPIPE, "end when nobody reads")
        equal(process.stderr.read(), b"", "complaints about a closed pipe")


def open_files_of(leader):
    """What the processes of a session have open."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getsid(int(pid)) == leader:
                found |= {os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
        except OSError:                       # ended meanwhile
            pass
    return found


@test
def srpctl_tells_of_output_that_cannot_be_written(t):
    mount = t.mount("demo:ram:1M")
    ctl = Ctl(t, mount)
    for arguments in (("list",), ("list", "-o", "json"), ("show", "lun0"), ("rescan",), ("rescan", "-o", "json")):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(ctl.command(*arguments), stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE)
        equal((done.returncode, done.stderr), (2, "srpctl: standard output: No space left on device\n"), f"srpctl {arguments} > /dev/full")


@test
def srpctl_says_who_may_not(t):
    mount = t.mount("demo:ram:1M", options="allow_other")
    program = t.path("srpctl")
    program.write_bytes((t.program.parent / "srpctl").read_bytes())
    program.chmod(0o755)

    def as_nobody(*arguments):
        return run(program, "-m", mount.path, *arguments, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/")

    equal(as_nobody("list").returncode, 0, "looking")
    done = as_nobody("logout", TARGET)
    equal(done.returncode, 6, f"logging out: {done.stderr}")
    contains(done.stderr, "Permission denied", "the reason")
    check(mount.target.exists(), "it was logged out")
    read_only = t.mount("demo:ram:1M", arguments=("-r",), options="fsname=other")
    contains(Ctl(t, read_only).fails(6, "set", "reconnect_delay=5"), "Read-only", "a read-only mount")
    os.kill(read_only.pid, signal.SIGKILL)
    wait_gone(read_only.pid)
    contains(Ctl(t, read_only).fails(3, "list"), "has ended; clean up with: umount", "a mount without srpfs")
    run("umount", read_only.path)
    t.mounts.remove(read_only)


@test
def srpctl_says_what_is_wrong(t):
    hole = BlackHole(t)
    ctl = Ctl(t, hole.mount)

    def about(name, *arguments):
        # What is wrong with the machine itself depends on the machine.
        done = run(*ctl.command("-o", "json", "why", *arguments))
        document = json.loads(done.stdout)
        check(done.returncode == (12 if any(one["verdict"] == "wrong" for one in document["findings"]) else 0), f"exit status {done.returncode}")
        return [(one["verdict"], one["text"]) for one in document["findings"] if one["subject"] == name]

    second = f"{PORT}/{hole.second.name}"
    equal(about("fuse"), [("good", "/dev/fuse can be opened.")], "FUSE")
    equal(about(second), [("good", "Runs, with 2 LUNs.")], "a target that runs")
    hole.open()
    eventually(lambda: value(hole.second / "state") == "blocked", "the connection is lost")
    (verdict, text), = about(second)
    equal(verdict, "wrong", "a target that is lost")
    contains(text, "is lost and I/O", "what is said of it")
    eventually(lambda: value(hole.second / "last_error") in about(second)[0][1], "the reason is said")
    contains(about("login string", "dest=demo")[0][1], "id_ext and ioc_guid are missing", "a login string")
    text, code = ctl.on_a_terminal("why", env={"NO_COLOR": "1"})
    equal(code, 12, "exit status")
    check(all(len(line) <= 80 for line in text.splitlines()), f"wider than the terminal: {text}")
    contains(text, "wrong", "the verdict")


class Screen:
    """A terminal with srpctl on it."""

    def __init__(self, ctl, *arguments, columns=80, lines=24):
        self.text = b""
        self.pid, self.handle = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            os.execve(ctl.program, ctl.command(*arguments), {"PATH": os.environ["PATH"], "TERM": "xterm", "NO_COLOR": "1"})

    def read(self):
        if select.select([self.handle], [], [], 0.01)[0]:
            try:
                self.text += os.read(self.handle, 65536)
            except OSError:                   # the other end is closed
                pass
        return self.text.decode(errors="replace")

    def wait_for(self, pattern, what):
        return eventually(lambda: re.search(pattern, self.read(), re.S), what)

    def resize(self, columns, lines):
        self.text = b""
        fcntl.ioctl(self.handle, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def lines(self):
        """Of the last whole picture."""
        picture = self.read().split("\x1b[H")[-2]
        return re.sub(r"\x1b\[[0-9?]*[a-zA-Z]", "", picture).replace("\r", "").rstrip().split("\n")

    def end(self):
        """The exit status, when everything has been shown."""
        eventually(lambda: (self.read(), os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))[1], "srpctl ends")
        self.read()
        os.close(self.handle)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


GIVEN_BACK = "\x1b[?7h\x1b[?25h\x1b[?1049l"


@test
def srpctl_top_shows_how_busy_units_are(t):
    mount = t.mount("demo:ram:1M+ram:1M++30*null:1M")
    ctl = Ctl(t, mount)
    busy = subprocess.Popen(["bash", "-c", f"while :; do dd if={mount.lun(1)} of=/dev/null bs=4k status=none || exit; done"])
    try:
        frames = [json.loads(line) for line in ctl.out("top", "-o", "json", "-n", "3", "-d", "0.3").splitlines()]
        equal(len(frames), 3, "frames")
        for frame in frames:
            check(frame["seconds"] >= 0.3, f"looked again too soon: {frame['seconds']}")
        equal([target["path"] for target in frames[0]["targets"]], [str(mount.target), str(mount.target).replace(TARGET, TARGET.replace("1", "2"))], "targets")
        eventually(lambda: json.loads(ctl.out("top", "-o", "json", "-n", "1", "-d", "0.5"))["targets"][0]["luns"][1]["reads_per_second"] > 0, "reads are seen")
        text = ctl.out("top", "--batch", "-n", "2", "-d", "0.5")
        equal(text.count("reads/s ("), 2, "frames for people")
        check("\x1b" not in text, "escape sequences in a pipe")

        screen = Screen(ctl, "top", "-d", "0.2")
        screen.wait_for("LATELY.*lun", "a picture")
        screen.wait_for("(\x1b\\[H.*){3}", "more pictures")
        lines = screen.lines()
        check(len(lines) <= 24 and all(len(line) <= 80 for line in lines), f"too large for the terminal: {lines}")
        contains(lines[-1], "lun", "the last line that fits")
        for columns, rows in ((200, 50), (50, 10)):
            screen.resize(columns, rows)
            # A line in two, while the size is being told, is no matter: what counts is what stays.
            eventually(lambda c=columns, r=rows: screen.read().count("\x1b[H") > 2 and len(screen.lines()) <= r
                       and max(map(len, screen.lines())) in range(c // 2, c + 1), f"a picture of {columns}x{rows}")
        os.write(screen.handle, b"q")
        equal(screen.end(), 0, "exit status after q")
        check(screen.text.decode().endswith(GIVEN_BACK), f"the terminal is not given back: {screen.text[-60:]!r}")

        screen = Screen(ctl, "top")
        screen.wait_for("reads/s", "a picture")
        os.write(screen.handle, b"\x03")
        equal(screen.end(), -signal.SIGINT, "exit status after Ctrl-C")
        check(GIVEN_BACK in screen.text.decode(), f"the terminal is not given back: {screen.text[-60:]!r}")
        text, code = ctl.on_a_terminal("top", "-n", "2", "-d", "0.1")
        equal(code, 0, "exit status after two pictures")
    finally:
        busy.kill()
        busy.wait()
    screen = Screen(ctl, "top", "-d", "0.2", "-t", "1")
    screen.wait_for("reads/s", "a picture")
    os.kill(mount.pid, signal.SIGSTOP)
    try:
        equal(screen.end(), 8, "exit status when srpfs does not answer")
        contains(screen.text.decode(), "does not answer", "the reason")
        check(screen.text.decode().index(GIVEN_BACK) < screen.text.decode().index("does not answer"), "the reason is on the other screen")
    finally:
        os.kill(mount.pid, signal.SIGCONT)


@test
def srpctl_says_what_is_wrong_with_a_mount_point_or_a_login(t):
    mount = t.mount("demo:ram:1M")
    ctl = Ctl(t, mount)

    def about(what, *arguments):
        return [(one["text"], one["advice"]) for one in json.loads(run(*ctl.command("-o", "json", "why", *arguments)).stdout)["findings"]
                if one["subject"] == what]

    def of_point(path):
        return about(f"mount point {path}", path)[0][0]

    empty = t.mountpoint()
    equal(of_point(empty), "It is an empty directory.", "an empty directory")
    equal(of_point(empty / "x"), "It is not there.", "nothing")
    (empty / "file").write_bytes(b"")
    equal(of_point(empty), "It is not empty: what is in it would be hidden.", "a directory with a file")
    equal(of_point(mount.path), "srpfs is mounted there already.", "an srpfs")
    equal(run(*ctl.command("why", mount.path)).returncode, 12, "exit status of why there")
    with opened(mount.lun(0), os.O_RDONLY):
        holders = [text for text, _ in about(f"mount point {mount.path}", mount.path)][1:]
        check(len(holders) == 1 and f"({os.getpid()})" in holders[0], f"who has a LUN open: {holders}")
    # What is there needs no slash to be known, and is no login.
    (empty / "good.conf").write_text("[mount]\nuid = 5\n")
    (empty / "bad.conf").write_text("[mount]\numask = 99\n")
    (empty / "d").mkdir()

    def here(operand):
        found = json.loads(run(*ctl.command("-o", "json", "why", operand), cwd=empty).stdout)["findings"][-1]
        return found["subject"], found["text"]

    equal(here("d"), (f"mount point {empty}/d", "It is an empty directory."), "a directory by its name")
    equal(here("./good.conf"), ("configuration", f"{empty}/good.conf is good."), "a configuration")
    equal(here("bad.conf"), ("configuration", f"{empty}/bad.conf:2: option umask=99: octal number from 0 to 777 expected"), "a wrong configuration")
    equal(here("nothing")[0], "login string", "what is nothing")
    for name in ("good.conf", "bad.conf"):
        (empty / name).unlink()
    (empty / "d").rmdir()
    # Reasons that srpfs tells, of logins that cannot work.
    for login, advice in ((LOGIN.replace("dest=demo", "dest=127.0.0.1:1"), None), (LOGIN.replace("ioc_guid=1", "ioc_guid=99"), "id_ext or ioc_guid is wrong")):
        ctl.run("login", login, code=5)
        equal(about(str(mount.path))[0][0], f"The last command or login that failed: {value(mount.path / 'last_error')}", "the reason")
        check(advice is None or advice in about(str(mount.path))[0][1], f"advice: {about(str(mount.path))}")
    # As much of what was written as the terminal can show.
    errno_of(lambda: write_once(mount.path / "add_target", "grün\x1b\udcff=1".encode(errors="surrogateescape")))
    for locale, shown in (("C.UTF-8", '"grün\\x1b\\xff" is not a key'), ("C", '"gr?n\\x1b\\xff" is not a key')):
        contains(run(*ctl.command("why"), env={"LC_ALL": locale}).stdout, shown, f"what is shown in the locale {locale}")
    # This login is there: whoever logs in again is in the way of it.
    if os.path.isdir("/run/srpfs"):
        found = about("srpfs", LOGIN)
        check(all(f"process {mount.pid}" in text for text, _ in found), f"who holds the login: {found}")
    os.kill(mount.pid, signal.SIGKILL)
    wait_gone(mount.pid)
    eventually(lambda: of_point(mount.path) == "The program that served it has ended without unmounting.", "a mount whose srpfs has ended")
    contains(run(*ctl.command("why")).stdout, f"clean up with: umount {mount.path}", "what is said of it")
    run("umount", mount.path)
    t.mounts.remove(mount)


@test
def srpctl_does_not_mind_mounts_that_come_and_go(t):
    stays = t.mount("demo:ram:1M")
    other, ctl = t.mountpoint(), Ctl(t)
    done = []

    def come_and_go():
        for _ in range(15):
            mount = t.mount("demo:4*ram:1M", at=other, options="fsname=passing")
            eventually(lambda m=mount: run("umount", m.path).returncode == 0, "nobody looks at it")
            mount.wait_end()
            t.mounts.remove(mount)
        done.append(True)

    worker = Background(come_and_go)
    looks = 0
    while worker.is_running():
        found = run(*ctl.command("-o", "json", "list"))
        mounts = {one["path"]: one for one in json.loads(found.stdout)["mounts"]}
        check("targets" in mounts[str(stays.path)], f"the mount that stays: {mounts}")
        # Others' mounts may be as they like; what passes is there or not.
        check("error" not in mounts.get(str(other), {}), f"the mount that comes and goes: {mounts.get(str(other))}")
        looks += 1
    worker.wait("coming and going")
    equal(done, [True], "all of them came and went")
    return f"{looks} looks"


# ---- configuration files ----

@test
def configuration_files_are_checked_shown_and_made(t):
    ctl = Ctl(t)
    file = t.path("my.conf")
    file.write_text("[mount]\numsak = 077\n[target *]\ndev_loss_tmo = soon\n")
    said = ctl.fails(7, "config", "check", file).splitlines()
    equal(len(said), 2, f"lines of {said}")
    contains(said[0], f'{file}:2: unknown key "umsak" in [mount]; did you mean "umask"?', "the first error")
    contains(said[1], f"{file}:4: option dev_loss_tmo=soon: ", "the second error")
    contains(ctl.fails(4, "config", "convert", t.path("missing")), "cannot be read: No such file", "a file that is not there")
    contains(ctl.fails(7, "config", "check", t.path("missing")), "cannot be read: No such file", "a file that is not there")
    contains(ctl.fails(1, "config", "chekc"), "check, show or convert", "another word")
    contains(ctl.fails(1, "config"), "missing", "no word")

    rules = t.path("srp_daemon.conf")
    rules.write_text("# ours\na ioc_guid=1,queue_size=16\nd\n")
    file.write_text(ctl.out("config", "convert", rules) + f"login = {LOGIN}\nlogin = id_ext=2,ioc_guid=2,dest=demo\n[mount]\nuid = 5\n")
    equal(ctl.out("config", "check", file), f"{file}: good\n", "a good file")
    # Who has asked for JSON has it, whatever happens.
    file_of_nothing = t.path("nothing.conf")
    for status, words in ((7, ("config", "check", file_of_nothing)), (3, ("-m", "/", "logout", "x")), (3, ("-m", "/", "show", "x"))):
        done = ctl.run("-o", "json", *words, code=status)
        said = json.loads(done.stdout)
        equal((said["schema"], said["exit_status"]), (1, status), f"the document of {words}")
        equal([f"srpctl: {one}" for one in said["errors"]], done.stderr.splitlines(), f"errors of {words}")
    # What is something else is not complained about line by line.
    file_of_nothing.write_text("nonsense\n" * 23)
    said = ctl.fails(7, "config", "convert", file_of_nothing).splitlines()
    equal((len(said), said[-1]), (11, f"srpctl: {file_of_nothing}: and 13 more"), "complaints about a file of nonsense")
    shown = ctl.json("config", "show", file)
    equal(shown["files"], [str(file)], "files")
    equal([(one["key"], one["line"], one["denied"]) for one in shown["settings"]],
          [("allow", 5, False), ("deny", 7, False), ("login", 8, False), ("login", 9, True), ("uid", 11, False)], "settings")
    contains(ctl.out("config", "show", file), f"{file}:11", "the table")
    # What is good for one is good for the other.
    mount = t.mount("demo:ram:1M", f"config={file}")
    equal(mount.lun(0).stat().st_uid, 5, "owner")
    rules.write_text("a ioc_guid=1\nx\n")
    contains(ctl.fails(7, "config", "convert", rules), f"{rules}:2: a line begins with", "a wrong line")
    rules.write_text("[login]\nallow = id_ext=1,queue_size=5\ndeny =\n")
    (mount.path / "srp-demo0-1" / TARGET / "delete").write_text("1")
    eventually(lambda: not (mount.path / "srp-demo0-1" / TARGET).exists(), "logged out")
    logins = f"{LOGIN}\nid_ext=2,ioc_guid=2,dest=demo\n"
    equal(Ctl(t, mount).out("login-all", "-c", rules, text_in=logins).count("\n"), 1, "logins that the rules allow")
    equal(value(mount.path / "srp-demo0-1" / TARGET / "queue_size"), "5", "the option of the rule")
