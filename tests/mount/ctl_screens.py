# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What srpctl shows on a terminal: tmux draws it, and the screens are compared with those in tests/mount/screens. What differs
each time is masked. With SRPFS_SCREENS=write in the environment they are written anew: look at them then."""

import json
import os
import pathlib
import re
import shlex
import threading
import time

from ctl import OTHER, Ctl
from harness import PATIENCE, TARGET, TOP, check, equal, eventually, needs, opened, own_mount_namespace, pattern, run, succeeds, test

SCREENS = TOP / "tests/mount/screens"
SIZES = ((80, 24), (200, 50))
SOURCE = "demo:ram:64M+ram:1G,bs=4096,ro++2*null:1T"
LUN = f"srp-demo0-1/{TARGET}/lun0"
GIVEN_BACK = "1 0 1"                            # the cursor is seen, no other screen, lines are wrapped

# Numbers that stand alone, where they end; times, and pictures of how busy something was.
NUMBER = re.compile(r" *(?<![\w/.:~\u2026-])\d[\d.]*(?=( |$|\)|,|;|\x1b| %))", re.M)
TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
BARS = re.compile(r"(?<=  )[▁▂▃▄▅▆▇█]+(?=\x1b|$)|(?<=  )[_.:=+*#-]$", re.M)


def masked(text, numbers):
    text = re.sub(r"\bup \d+ s\b", "up # s", TIME.sub("####-##-##T##:##:##.###Z", text))
    if not numbers:
        return text
    return NUMBER.sub(lambda found: "#".rjust(len(found.group(0))), BARS.sub("_", text))


class Tmux:
    """A terminal of its own: nobody's configuration, socket or sessions."""

    def __init__(self, t, columns, rows, language="C", **environment):
        needs("tmux")
        t.count += 1
        socket = t.path(f"tmux{t.count}")       # a server that ends may still have the one before
        config = t.path("tmux.conf")
        config.write_text("set -g status off\nset -g remain-on-exit on\nset -sg escape-time 0\n")
        self.argv = ["tmux", "-u", "-f", config, "-S", socket]
        words = {"PATH": f"{t.program.parent}:{os.environ['PATH']}", "HOME": str(t.dir), "LANG": language, "TERM": "xterm-256color",
                 **environment}
        shell = ["env", "-i", *(f"{name}={value}" for name, value in words.items()), "sh"]
        succeeds(*self.argv, "new-session", "-d", "-s", "t", "-x", str(columns), "-y", str(rows), shlex.join([*shell, "-c", "stty -echo; cat"]))
        self.shell = shell

    def __enter__(self):
        return self

    def __exit__(self, *_):
        run(*self.argv, "kill-server")

    def begin(self, command):
        """On an empty screen; what ends shows [its exit status]."""
        script = f"trap : INT; stty -a > $HOME/before; {command}; printf '[%s]' $?; stty -a > $HOME/after; exec sleep 1000"
        succeeds(*self.argv, "respawn-pane", "-k", "-t", "t", shlex.join([*self.shell, "-c", script]))

    def text(self, *options):
        lines = succeeds(*self.argv, "capture-pane", "-p", *options, "-t", "t").split("\n")
        return "\n".join(line.rstrip() for line in lines).rstrip("\n") + "\n"

    def wait_for(self, wanted, what, *options):
        return eventually(lambda: re.search(wanted, self.text(*options), re.S) and self.text(*options), what)

    def end_of(self, command, *options):
        self.begin(command)
        return self.wait_for(r"\[\d+\]\s*$", f"the end of {command}", *options)

    def type(self, key):
        succeeds(*self.argv, "send-keys", "-t", "t", key)

    def state(self):
        return succeeds(*self.argv, "display-message", "-p", "-t", "t", "#{cursor_flag} #{alternate_on} #{wrap_flag}").strip()


def kept(name, text, numbers=False):
    """The screen is the one that is kept."""
    path, text = SCREENS / f"{name}.txt", masked(text, numbers).replace("\x1b", "\\e")
    if os.environ.get("SRPFS_SCREENS") == "write":
        path.write_text(text, encoding="utf-8")
    equal(text, path.read_text(encoding="utf-8"), f"the screen {name}")


def mounted(t, env=None):
    """At a place whose name is always the same; where nobody else sees it."""
    own_mount_namespace()
    succeeds("mount", "--bind", t.mountpoint("place"), "/mnt")
    pathlib.Path("/mnt/srp").mkdir()
    # Others' mounts are no part of it.
    for line in reversed(pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()):
        if " - fuse.srpfs " in line:
            run("umount", "-l", line.split()[4])
    return t.mount(SOURCE, at=pathlib.Path("/mnt/srp"), env=env)


@test
def screens_of_srpctl_are_those_that_are_kept(t):
    mount = mounted(t)
    succeeds(t.program.parent / "srpctl", "login", OTHER)
    for columns, rows in SIZES:
        for language in ("C", "C.UTF-8"):
            name = f"{columns}x{rows}-{'ascii' if language == 'C' else 'utf8'}"
            with Tmux(t, columns, rows, language, NO_COLOR="1") as screen:
                kept(f"list-{name}", screen.end_of("srpctl list"))
                kept(f"list-v-{name}", screen.end_of("srpctl list -v"))
                kept(f"show-target-{name}", screen.end_of(f"srpctl show {TARGET.replace('1', '2')}"), numbers=True)
                screen.begin("srpctl top -d 3600")
                kept(f"top-{name}", screen.wait_for("LUN ", "a picture"), numbers=True)
                screen.type("q")
                screen.wait_for(r"\[0\]", "the end of top")
    with Tmux(t, 80, 24, NO_COLOR="1") as screen:
        kept("show-lun", screen.end_of(f"srpctl show {LUN} | head -n 24"))
        kept("ambiguous", screen.end_of("srpctl show lun0"))
        kept("help-top", screen.end_of("srpctl top --help"))
        kept("help-copy", screen.end_of("srpctl copy --help"))
        kept("nothing-to-do", screen.end_of("srpctl copy lun0"))
        for seconds in ("11", "10"):
            (mount.target / "reconnect_delay").write_text(seconds)
        kept("events", screen.end_of("srpctl events -n 2"))
        screen.begin("srpctl events -f -n 1")
        eventually(lambda: srpctl_reads(mount), "srpctl listens")
        (mount.target / "reconnect_delay").write_text("12")
        screen.wait_for("value=12", "the new event")
        screen.type("C-c")
        kept("events-followed", screen.wait_for(r"\[130\]", "the end"))
        (mount.target / "reconnect_delay").write_text("10")
        succeeds(t.program.parent / "srpctl", "reservations", mount.lun(0), "register", "0xabc")
        succeeds(t.program.parent / "srpctl", "reservations", mount.lun(0), "reserve", "write-exclusive")
        kept("reservations", screen.end_of(f"srpctl reservations {LUN}; srpctl reservations lun0; srpctl reservations {LUN} frob"))
        write_configurations()
        kept("config", screen.end_of("srpctl config check /mnt/bad.conf; srpctl config check /mnt/good.conf; srpctl config show /mnt/good.conf"))
    with Tmux(t, 200, 50, NO_COLOR="1") as screen:
        kept("help", screen.end_of("srpctl --help"))
    with Tmux(t, 80, 24, "C.UTF-8") as screen:
        kept("list-colour", screen.end_of("srpctl list", "-e"))
        kept("stats-colour", screen.end_of("srpctl stats", "-e"), numbers=True)


BAD_CONFIGURATION = "[mount]\nreconnect_delay = 5000\nfoo = 1\n[lun x]\nmode=999\n"
GOOD_CONFIGURATION = "[mount]\nreconnect_delay = 5\nfast_io_fail_tmo = 10\n[login]\ndeny = pkey=ffff\n[lun lun1]\nro\ncached\n"
RULES = "# ours\na ioc_guid=0002c90300a1b2c4,max_cmd_per_lun=4,queue_size=64\nd pkey=ffff\n"
# What looks at a tree has its own in tests/unit/ctl/golden, and why tells of the machine.
PRINTED = (
    f"-o json copy -y /mnt/image {LUN}", f"-o plain copy --verify-only {LUN} /mnt/image", f"-o json copy --verify-only {LUN} /mnt/other",
    f"copy {LUN} /mnt/nowhere/image",
    f"-o json set {TARGET} reconnect_delay=11", f"-o plain set {TARGET} reconnect_delay=10", f"-o json set {LUN} cache=cached", f"-o json set {LUN} cache=fast",
    f"-o json rescan {TARGET}", f"-o json reset {LUN}", f"-o json reservations {LUN} register 0xabc", f"-o json reservations {LUN} register 0xabc",
    "-o json login id_ext=1,bad", "-o plain login id_ext=1,bad", f"-o json login {OTHER}", f"-o json login {OTHER}", "-o json logout-all", "-o json logout nothing",
    "-o json show nothing", "-o json list", "-o json -m /nowhere list", "-o json list --what", "-o json events -n x", "-o json frob", "--output=json show",
    "-ojson copy lun0", "-o json login-all /mnt/logins", "-o plain login-all /mnt/logins", "login-all /mnt/logins",
    "config check /mnt/bad.conf", "config check /mnt/good.conf", "-o json config check /mnt/bad.conf", "-o json config show /mnt/good.conf", "-o plain config show /mnt/good.conf",
    "config convert /mnt/rules.conf", "config convert /mnt/bad-rules.conf")


def write_configurations():
    for name, content in (("bad.conf", BAD_CONFIGURATION), ("good.conf", GOOD_CONFIGURATION), ("rules.conf", RULES), ("bad-rules.conf", RULES + "x what\n"),
                          ("logins", f"# two\n{OTHER}\n{OTHER}\nnonsense\n")):
        pathlib.Path("/mnt", name).write_text(content, encoding="utf-8")


@test
def what_srpctl_prints_for_programs_is_what_is_kept(t):
    mounted(t)
    write_configurations()
    image = pattern(64 << 20, 1)
    pathlib.Path("/mnt/image").write_bytes(image)
    pathlib.Path("/mnt/other").write_bytes(image[:12345] + b"x" + image[12346:])
    text = ""
    for line in PRINTED:
        done = run(t.program.parent / "srpctl", *shlex.split(line), env={**os.environ, "HOME": "/mnt", "LANG": "C"})
        out = done.stdout
        if "-o json copy" in line:              # how often it tells of itself depends on how fast it is
            out = re.sub(r'"(bytes_per_second|seconds)":[\d.]+', r'"\1":#', out.rstrip("\n").rpartition("\n")[2]) + "\n"
        elif line == "-o json list":
            out = shape_of(out)
        text += f"$ srpctl {line}\n{out}" + "".join(f"! {one}\n" for one in done.stderr.splitlines()) + f"[{done.returncode}]\n"
    kept("printed", text)


def shape_of(out):
    """JSON of mounts, without how long they have been and what their reactors have done: another matter each time."""
    def shape(value, key=""):
        if isinstance(value, dict):
            return {name: shape(one, name) for name, one in value.items()}
        if isinstance(value, list):
            return [] if key == "buckets_us" else [shape(one) for one in value]
        return 0 if isinstance(value, int) else value

    mounts = json.loads(out)
    for mount in mounts["mounts"]:
        mount["uptime_seconds"] = 0
        mount["reactors"] = shape(mount["reactors"])
    return json.dumps(mounts, indent=2) + "\n"


def srpctl_reads(mount):
    """Whether somebody has the file events open."""
    found = run("bash", "-c", f"for one in /proc/[0-9]*/fd/*; do readlink $one; done | grep -cx {mount.path}/events")
    return found.stdout.strip() not in ("", "0")


@test
def srpctl_top_shows_a_busy_unit_on_a_screen(t):
    mount = mounted(t)
    stop = threading.Event()

    def busy():
        with opened(mount.lun(0), os.O_RDONLY) as handle:
            while not stop.is_set():
                os.pread(handle, 4096, 0)
                time.sleep(0.02)

    worker = threading.Thread(target=busy)
    worker.start()
    try:
        for columns, rows in SIZES:
            with Tmux(t, columns, rows, "C.UTF-8", NO_COLOR="1") as screen:
                for _ in range(5):              # a machine that has other things to do takes long for a read now and then
                    screen.begin("srpctl top -d 3600")
                    text = screen.wait_for("LUN .*\n", "a picture")
                    if re.search(r"lun0 +[1-9]\d* .* us ", text):
                        break
                kept(f"top-busy-{columns}x{rows}", text, numbers=True)
                check(re.search(r"lun0 .*\b[1-9]\d* +0\.\d", text), f"no reads in {text}")
    finally:
        stop.set()
        worker.join()


@test
def srpctl_copy_draws_a_line_and_leaves_nothing_of_it(t):
    hold = t.path("hold")
    mount = mounted(t, env={"SRPFS_DEMO_HOLD": str(hold)})
    mount.lun(0).write_bytes(pattern(64 << 20, 1))
    for columns, rows in SIZES:
        with Tmux(t, columns, rows, NO_COLOR="1") as screen:
            hold.touch()
            screen.begin(f"srpctl copy {mount.lun(0)} /mnt/image")
            kept(f"copy-line-{columns}x{rows}", screen.wait_for("left", "the line"))
            hold.unlink()
            text = screen.wait_for(r"\[0\]", "the end")
            kept(f"copy-{columns}x{rows}", re.sub(r"in [\d.]+ s", "in # s", text))


@test
def srpctl_top_leaves_a_terminal_as_it_was(t):
    mounted(t)
    for key in ("q", "C-c"):
        with Tmux(t, 200, 50, NO_COLOR="1") as screen:
            screen.begin("echo before; srpctl top -d 3600")
            screen.wait_for("LUN ", "a picture")
            equal(screen.state(), "0 1 0", "cursor, other screen and wrapping while it runs")
            # The same as on a terminal that had this size from the beginning; the larger one comes back, too.
            for columns, rows in ((80, 24), (200, 50)):
                succeeds(*screen.argv, "resize-window", "-t", "t", "-x", str(columns), "-y", str(rows))
                wanted = (SCREENS / f"top-resized-{columns}x{rows}.txt")
                if os.environ.get("SRPFS_SCREENS") == "write":
                    time.sleep(1)
                    wanted.write_text(masked(screen.text(), True), encoding="utf-8")
                eventually(lambda w=wanted, s=screen: masked(s.text(), True) == w.read_text(encoding="utf-8"), f"the picture of {columns}x{rows}")
            # Nobody can read much there, but it has to be usable again.
            succeeds(*screen.argv, "resize-window", "-t", "t", "-x", "20", "-y", "5")
            eventually(lambda s=screen: s.text().startswith("/mnt/srp") and s.text().count("\n") <= 5
                       and max(map(len, s.text().split("\n"))) <= 20, "a picture of 20x5")
            succeeds(*screen.argv, "resize-window", "-t", "t", "-x", "80", "-y", "24")
            screen.type(key)
            text = screen.wait_for(r"\[\d+\]", "the end")
            equal(text, f"before\n{'[0]' if key == 'q' else '^C[130]'}\n" if "^C" in text else f"before\n[{0 if key == 'q' else 130}]\n",
                  f"the screen after {key}")
            equal(screen.state(), GIVEN_BACK, f"the terminal after {key}")
            eventually(lambda: t.path("after").exists() and t.path("after").read_text(), "stty has looked")
            same = [re.sub(r"rows \d+; columns \d+;", "", t.path(name).read_text()) for name in ("before", "after")]
            equal(same[1], same[0], f"stty -a after {key}")
            t.path("after").unlink()


@test
def srpctl_sends_no_escape_sequences_into_files(t):
    mount = mounted(t)
    ctl = Ctl(t)
    for arguments in (("list",), ("list", "-v"), ("show", LUN), ("show", TARGET), ("stats",), ("top", "-n", "2", "-d", "0.1"), ("why",), ("help",),
                      ("reservations", LUN), ("show", "lun0"), ("copy", mount.lun(0), t.path("image")), ("rescan",), ("config", "check"),
                      ("events", "-t", "1"), ("nonsense",)):
        done = run(*ctl.command(*arguments), env={"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}, seconds=PATIENCE)
        check(done.stdout + done.stderr != "" and "\x1b" not in done.stdout + done.stderr and "\r" not in done.stdout + done.stderr,
              f"srpctl {arguments}: {done.stdout + done.stderr!r}")
