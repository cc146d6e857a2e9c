# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""docs/tour.md and README.md have transcripts: their commands are run, and what they print is compared, without what differs each
time. With SRPFS_TOUR=write in the environment the outputs in the pages are written anew."""

import os
import pathlib
import re

from harness import PATIENCE, TOP, check, equal, eventually, needs, own_mount_namespace, run, succeeds, test

PAGE = TOP / "docs/tour.md"
README = TOP / "README.md"

# What differs from one run to the next.
VOLATILE = (
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"), (r"\b[A-Z][a-z]{2} [ \d]\d \d\d:\d\d\b", "DATE"), (r"up \d+ s", "up N s"),
    (r"\b\d+(\.\d+)? (us|ms)\b", "N us"), (r"in \d+\.\d s", "in N s"), (r"\b\d+\.\d s\b", "N s"),
)
# Of `srpctl top` and `srpctl stats` the pictures, every number that stands alone, and how wide a column is for them.
COUNTED = (
    (r"(?<=  )[_.:=+*#-]+$", "_"), (r"(?<![\w/.:~-])\d+(\.\d+)?(?![\w/.:-])", "N"), (r"\bN (us|s|[KMGT]?i?B)\b(?!/)|(?<= )-(?= )", "N"),
    (r" +", " "),
)


def masked(text, command):
    for pattern, word in VOLATILE:
        text = re.sub(pattern, word, text, flags=re.M)
    if re.search(r"srpctl (top|stats)", command):
        for pattern, word in COUNTED:
            text = re.sub(pattern, word, text, flags=re.M)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def blocks(page):
    """(begin, end) of what stands between fences of transcripts."""
    return [found.span(1) for found in re.finditer(r"^```\n(\$ .*?)^```$", page, re.M | re.S)]


def steps(block):
    """[command, output] of a transcript."""
    found = []
    for line in block.splitlines(keepends=True):
        if line.startswith("$ "):
            found.append([line[2:].rstrip("\n"), ""])
        else:
            found[-1][1] += line
    return found


class Shell:
    """Runs one command after the other, as somebody would type them, in a home directory of its own, which is `shown` in the page."""

    def __init__(self, t, shown):
        needs("fio", "jq")
        own_mount_namespace()
        # Other mounts of the machine are no part of it, nor are its adapters.
        for line in reversed(pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()):
            if " - fuse.srpfs " in line:
                run("umount", "-l", line.split()[4])
        for place in ("/sys/class/infiniband", "/dev/infiniband"):
            if os.path.isdir(place):
                succeeds("mount", "-t", "tmpfs", "none", place)
        self.home, self.programs, self.shown = t.path("home"), t.path("bin"), shown
        self.home.mkdir()
        self.programs.mkdir()
        for name in ("srpfs", "srpctl"):
            (self.programs / name).symlink_to(t.program.parent / name)
        (self.home / "build").symlink_to(self.programs)
        self.folder = str(self.home)
        self.env = {"HOME": str(self.home), "PATH": f"{self.programs}:{os.environ['PATH']}:/usr/sbin:/sbin", "LC_ALL": "C", "LANG": "",
                    "SRPFS_DEMO_BLACK_HOLE": str(self.home / "pulled")}

    def run(self, command):
        """What it prints."""
        there = self.home.parent / "folder"
        here = command.replace(f"{self.shown}/", f"{self.home}/")
        # The directory may have vanished since; and as on a terminal ls has columns.
        done = run(f'cd {self.folder} 2>/dev/null; ls() {{ command ls -C -T 0 -w 100 "$@"; }}; exec 2>&1; {here}\npwd >{there}',
                   cwd=self.home, env=self.env, seconds=PATIENCE)
        self.folder = there.read_text().strip()
        if "srpctl events" in command and "&" in command:
            eventually(self.listens, "srpctl listens")
        out = re.sub(r"^bash: line \d+: ", "", done.stdout, flags=re.M)
        return out.replace(str(self.home), self.shown).replace(str(self.programs), "/usr/sbin")

    def listens(self):
        return run(f"readlink /proc/[0-9]*/fd/* | grep -x '{self.home}.*/events'").stdout != ""

    def end(self):
        for name in self.home.iterdir():
            if os.path.ismount(name):
                succeeds("umount", "-l", name)


def follow(t, path, shown, blocks_min):
    page = path.read_text(encoding="utf-8")
    writes = os.environ.get("SRPFS_TOUR") == "write"
    begin, new = 0, ""
    shell = Shell(t, shown)
    try:
        for first, last in blocks(page):
            new += page[begin:first]
            for command, wanted in steps(page[first:last]):
                got = shell.run(command)
                if not writes:
                    equal(masked(got, command), masked(wanted, command), f"what is printed by: {command}")
                new += f"$ {command}\n{got}"
            begin = last
        if writes:
            path.write_text(new + page[begin:], encoding="utf-8")
        check(len(blocks(page)) >= blocks_min, "the page has hardly any transcripts: has its form changed?")
    finally:
        shell.end()


@test
def the_tour_installs_as_the_readme_says(t):
    page, readme = PAGE.read_text(encoding="utf-8"), README.read_text(encoding="utf-8")
    lines = re.findall(r"^    .*(?:install).*$", page, re.M)
    equal(len(lines), 2, "lines that install")
    for line in lines:
        check(line in readme, f"not in the README: {line}")
    for command in re.findall(r"contrib/[\w-]+", "".join(lines)):
        check(os.access(TOP / command, os.X_OK), f"{command} is no program")


@test
def the_tour_shows_what_happens(t):
    follow(t, PAGE, "~", 10)


@test
def the_readme_shows_what_happens(t):
    follow(t, README, "/tmp", 2)
