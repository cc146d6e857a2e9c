# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""docs/tour.md is a transcript: its commands are run, and what they print is compared, without what differs each time.
With SRPFS_TOUR=write in the environment the outputs in the page are written anew."""

import os
import re

from harness import PATIENCE, TOP, check, equal, needs, own_mount_namespace, run, succeeds, test

PAGE = TOP / "docs/tour.md"

# What differs from one run to the next.
VOLATILE = (
    (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME"), (r"up \d+ s", "up N s"), (r"\b\d+(\.\d+)? (us|ms)\b", "N us"), (r"in \d+\.\d s", "in N s"),
)


def masked(text):
    for pattern, word in VOLATILE:
        text = re.sub(pattern, word, text, flags=re.M)
    return text.strip()


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


@test
def the_tour_installs_as_the_readme_says(t):
    page, readme = PAGE.read_text(encoding="utf-8"), (TOP / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    .*(?:install).*$", page, re.M)
    equal(len(lines), 2, "lines that install")
    for line in lines:
        check(line in readme, f"not in the README: {line}")
    for command in re.findall(r"contrib/[\w-]+", "".join(lines)):
        check(os.access(TOP / command, os.X_OK), f"{command} is no program")


@test
def the_tour_shows_what_happens(t):
    needs("fio", "jq")
    own_mount_namespace()
    # Other mounts of the machine are no part of it.
    for line in reversed(open("/proc/self/mountinfo", encoding="utf-8").read().splitlines()):
        if " - fuse.srpfs " in line:
            run("umount", "-l", line.split()[4])
    home = t.path("home")
    home.mkdir()
    programs = t.path("bin")
    programs.mkdir()
    for name in ("srpfs", "srpctl"):
        (programs / name).symlink_to(t.program.parent / name)
    env = {"HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}:/usr/sbin:/sbin", "LC_ALL": "C", "LANG": "",
           "SRPFS_DEMO_BLACK_HOLE": str(home / "pulled")}
    page = PAGE.read_text(encoding="utf-8")
    writes = os.environ.get("SRPFS_TOUR") == "write"
    begin, new = 0, ""
    try:
        for first, last in blocks(page):
            new += page[begin:first]
            for command, wanted in steps(page[first:last]):
                done = run(f"exec 2>&1; {command}", cwd=home, env=env, seconds=PATIENCE)
                got = done.stdout.replace(str(home), "~").replace(str(programs), "/usr/sbin")
                if not writes:
                    equal(masked(got), masked(wanted), f"what is printed by: {command}")
                new += f"$ {command}\n{got}"
            begin = last
        if writes:
            PAGE.write_text(new + page[begin:], encoding="utf-8")
        check(len(blocks(page)) > 5, "the page has hardly any transcripts: has its form changed?")
    finally:
        for name in home.iterdir():
            if os.path.ismount(name):
                succeeds("umount", "-l", name)
