# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""What srpfs(8) and srpctl(8) show as examples is run as it stands there; and there is none that nobody runs."""

import os
import re

from harness import (PATIENCE, TARGET, TOP, Background, check, contains, equal, eventually, needs, own_mount_namespace, run, succeeds, test, unmount,
                     value)

# Examples of srpfs.conf(5) are parsed by tests/unit/config, lines of fstab are mounted by helper.py, the program is compiled by raw.py.
ELSEWHERE = (" fuse.srpfs ", "#include <srpfs/raw_ioctl.h>")


def examples(page):
    """The text of each .Bd -literal."""
    text = (TOP / "man" / page).read_text(encoding="utf-8")
    found = re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed$", text, re.M | re.S)
    return [block.replace("\\e", "\\").replace("\\&", "") for block in found if not any(mark in block for mark in ELSEWHERE)]


class Shell:
    """Where the examples are run: /srp, /tmp, /mnt and /run are this test's, and ibsrpdm finds the embedded target."""

    def __init__(self, t):
        own_mount_namespace()
        # Other mounts of the machine are no part of it.
        for line in reversed(open("/proc/self/mountinfo", encoding="utf-8").read().splitlines()):
            if " - fuse.srpfs " in line:
                run("umount", "-l", line.split()[4])
        self.place = t.path("place")
        for name in ("bin", "srp", "tmp", "mnt", "run"):
            (self.place / name).mkdir(parents=True)
        for name in ("srpfs", "srpctl"):
            (self.place / "bin" / name).symlink_to(t.program.parent / name)
        finder = self.place / "bin/ibsrpdm"
        finder.write_text("#!/bin/sh\necho id_ext=1,ioc_guid=1,dest=demo,initiator_ext=9\n")
        finder.chmod(0o755)
        self.env = {"PATH": f"{self.place}/bin:{os.environ['PATH']}:/usr/sbin:/sbin", "HOME": str(self.place)}

    def run(self, block, folder=None):
        here = re.sub(r"(?<![\w./])/(srp|tmp|mnt|run)(?![\w-])", rf"{self.place}/\1", block.replace("...\n", ""))
        return run(here, cwd=folder or self.place, env=self.env, seconds=PATIENCE)

    def works(self, block, folder=None):
        done = self.run(block, folder)
        equal((done.returncode, done.stderr if "dd" not in block and "mkfs" not in block else ""), (0, ""), block)
        return done.stdout


def only(blocks, mark):
    """The example with this in it, which has been taken out then."""
    found = [block for block in blocks if mark in block]
    equal(len(found), 1, f"examples with {mark!r}")
    blocks.remove(found[0])
    return found[0]


@test(exit_codes=(0, 32))
def examples_of_srpfs_8_work(t):
    shell, blocks = Shell(t), examples("srpfs.8")
    point = shell.place / "srp"

    shell.works(only(blocks, "srpfs demo /tmp/demo"))
    target = shell.place / "tmp/demo/srp-demo0-1" / TARGET
    check((target / "lun0").read_bytes()[:16 << 20].count(0) < 1 << 20, "nothing was written to lun0")
    shell.works(only(blocks, "fast_io_fail_tmo"), target)
    equal((value(target / "fast_io_fail_tmo"), value(target / "dev_loss_tmo")), ("5", "30"), "timers")

    # Commands with what they print.
    block = only(blocks, "# exec 3<>lun0.attr/cdb")
    commands = [line[2:] for line in block.splitlines() if line.startswith("# ")]
    printed = "".join(f"{line}\n" for line in block.splitlines() if not line.startswith("# "))
    trimmed = re.compile(r" +$", re.M)
    equal(trimmed.sub("", shell.works("\n".join(commands), target)), trimmed.sub("", printed), "what the example of cdb prints")

    shape = [re.sub(r"0x[0-9a-f]{16}|\d+", "N", line) for line in only(blocks, "generation ").splitlines()]
    reservations = target / "lun0.attr/reservations"
    for command in ("register 0xa", "reserve write-exclusive-registrants-only"):
        reservations.write_text(command)
    real = [re.sub(r"0x[0-9a-f]{16}|\d+", "N", line) for line in reservations.read_text().splitlines()]
    equal(list(dict.fromkeys(shape)), real, "lines of reservations")
    reservations.write_text("clear")

    block = only(blocks, "mkfs.ext4")
    if os.path.exists("/dev/loop-control"):
        needs("mkfs.ext4")
        shell.works(block, target)
        check(os.path.ismount(shell.place / "mnt"), "no file system at /mnt")
        unmount(shell.place / "mnt")
    unmount(shell.place / "tmp/demo")

    needs("fio")
    succeeds(t.program.parent / "srpfs", "demo", point)
    done = shell.run(only(blocks, "fio --name=x").replace("PORT/TARGET", f"srp-demo0-1/{TARGET}").replace("runtime=10", "runtime=1").replace("srpctl top", "srpctl top -n 1"))
    equal((done.returncode, done.stderr), (0, ""), "reading with fio, and top")
    contains(done.stdout, "LUN", "what top shows")
    unmount(point)

    # Nobody can be logged in to here, and whoever tries is told why.
    check(shell.works(only(blocks, "srpfs none /srp\nibsrpdm")).strip() != "", "no reason")
    unmount(point)
    done = shell.run(only(blocks, "dest=192.168.7.1:5555 /srp"))
    equal(done.returncode, 32, f"exit status of a login to nobody ({done.stderr})")
    check("Login string" not in done.stderr, done.stderr)

    shell.works(only(blocks, "srpfs -P /run/srp.pid none /srp"))
    check(not os.path.ismount(point) and not (shell.place / "run/srp.pid").exists(), "it has not ended")

    # The kernel's parameter is the machine's; where it is off, that is said.
    switch, mount = only(blocks, "io_uring=on").splitlines()
    equal(re.match(r"echo Y > (\S+)$", switch)[1], "/sys/module/fuse/parameters/enable_uring", "the parameter")
    done = shell.run(mount)
    check(done.returncode == 0 or done.returncode == 32 and "io_uring" in done.stderr, f"{mount}: {done.returncode} {done.stderr}")
    if done.returncode == 0:
        unmount(point)
    equal(blocks, [], "examples that nobody runs")


@test(exit_codes=(0, 32))
def examples_of_srpctl_8_work(t):
    needs("jq")
    shell, blocks = Shell(t), examples("srpctl.8")
    mount = t.mount("demo:ram:576M")
    named = f"{mount.target}/lun0"

    contains(shell.works(only(blocks, "ibsrpdm -c | srpctl login-all")), "0000000000000009", "what the example of login-all prints")
    shell.works(f"srpctl logout {TARGET}-0000000000000009")
    shell.works(only(blocks, "srpctl set fast_io_fail_tmo=5"))
    equal((value(mount.target / "fast_io_fail_tmo"), value(mount.target / "dev_loss_tmo")), ("5", "30"), "timers")
    equal(shell.works(only(blocks, "srpctl list -o json | jq")), "", "LUNs that do not run")

    with open(named, "r+b") as lun:
        lun.write(b"first")
    shell.works(only(blocks, "srpctl copy --verify lun0"))
    equal((shell.place / "lun0.img").stat().st_size, 576 << 20, "size of the image")
    with open(shell.place / "lun0.img", "r+b") as image:
        image.write(b"other")
        image.seek(1 << 20)
        image.write(b"part")
    shell.works(only(blocks, "--offset 1M --seek 1M --length 512M"))
    with open(named, "rb") as lun:
        equal(lun.read(5), b"first", "before the partition")
        lun.seek(1 << 20)
        equal(lun.read(4), b"part", "the partition")

    done = shell.run(only(blocks, "srpctl why"))
    check(done.returncode in (0, 12) and "192.168.7.1" in done.stdout, f"srpctl why: {done.returncode} {done.stdout} {done.stderr}")

    contains(shell.works(only(blocks, "srpctl events --since 2h")), "target_login", "what has happened lately")

    # It waits until there is such an event, and ends then.
    waiting = Background(shell.works, only(blocks, "srpctl events -f"))
    eventually(lambda: run(f"readlink /proc/[0-9]*/fd/* | grep -x '{mount.path}/events'").stdout, "srpctl listens")
    shell.works(f"srpctl reset {TARGET}")
    contains(waiting.wait("the example of events"), "to=running", "what the example of events prints")
    equal(blocks, [], "examples that nobody runs")
