# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Rows of the matrix: tools that want a block device or a file system, and what they do on the file itself."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess

import harness
from harness import check, equal, pattern, read_bytes, run
from unit import MIB, OLD, image, loop, mounted, row, same, tool

KINDS = {"ext4": ("mkfs.ext4 -q -F", "e2fsck -fn"), "xfs": ("mkfs.xfs -q -f", "xfs_repair -n"), "btrfs": ("mkfs.btrfs -q -f", "btrfs check -q")}


# ---- loop devices ----

def through_loop(unit, options, sector):
    unit.fill()
    wanted = bytearray(OLD * unit.size)
    with loop(unit.lun, options) as device:
        equal(tool(f"blockdev --getsize64 --getss {device}").split(), [str(unit.size), str(sector)], f"size and sectors with {options}")
        for flags, at, length in (("oflag=direct", sector, 3 * sector), ("oflag=direct", 3 * MIB, 70 * sector), ("conv=fsync", MIB + 12345, 100001), ("oflag=direct,sync", 2 * MIB, sector)):
            part = pattern(length, at)
            unit.path("part").write_bytes(part)
            block = sector if "direct" in flags else 9999
            tool(f"dd if={unit.path('part')} of={device} status=none bs={block} oflag=seek_bytes conv=notrunc {flags.replace('oflag=', 'oflag=seek_bytes,')} seek={at}")
            wanted[at:at + length] = part
        copy = unit.path("part")
        tool(f"dd if={device} of={copy} bs=64k iflag=direct status=none")
        same(read_bytes(copy), wanted, f"reading through losetup {options}")
        tool(f"blkdiscard -z -o {sector} -l {sector} {device} && blkdiscard -o {2 * MIB} -l {MIB} {device}", says=None)
        wanted[sector:2 * sector] = bytes(sector)
        wanted[2 * MIB:3 * MIB] = bytes(MIB)
    unit.is_exactly(wanted, f"losetup {options}")


@row("losetup", "losetup --find LUN; dd; blkdiscard", kernel=["loop"])
def loop_devices_are_exact(_, unit):
    through_loop(unit, "", 512)


@row("losetup", "losetup --direct-io=on LUN", kernel=["loop"])
def loop_devices_with_direct_io_are_exact(_, unit):
    through_loop(unit, "--direct-io=on", 512)


@row("losetup", "losetup -b 4096 [--direct-io=on] LUN", kernel=["loop"])
def loop_devices_of_4096_bytes_are_exact(_, unit):
    through_loop(unit, "-b 4096", 4096)
    through_loop(unit, "-b 4096 --direct-io=on", 4096)


@row("losetup", "losetup -o OFFSET --sizelimit SIZE LUN; losetup -r", kernel=["loop"])
def loop_devices_over_a_part_are_exact(_, unit):
    unit.fill()
    file = image(unit.path("image"), MIB, ((0, MIB),))
    with loop(unit.lun, f"-o {unit.block * 3} --sizelimit {MIB}") as device:
        tool(f"dd if={file} of={device} bs=64k conv=fsync status=none")
        tool(f"dd if={file} of={device} bs=64k seek=1 status=none", 1, ".*No space left on device.*")
        tool(f"dd if={file} of={device} bs=1M conv=fsync status=none")
    unit.holds(file.read_bytes(), "losetup -o", at=unit.block * 3)
    with loop(unit.lun, "-r") as device:
        tool(f"dd if={file} of={device} conv=fsync status=none", 1, ".*(Operation not permitted|Read-only|Permission denied).*")
        tool(f"cmp {device} {unit.lun}")
    unit.holds(file.read_bytes(), "losetup -r", at=unit.block * 3)


@row("blkdiscard", "losetup LUN; blkdiscard | blkdiscard -z DEVICE", kernel=["loop"], size=24 * MIB)
def blkdiscard_through_loop_leaves_zeros(_, unit):
    unit.fill()
    wanted = bytearray(OLD * unit.size)
    with loop(unit.lun) as device:
        for options, at, length in (("", 512, 512), ("-z", 3 * 512, 1024), ("", MIB + 512, 5 * MIB), ("-z", 9 * MIB, 6 * MIB), ("", unit.size - 512, 512)):
            tool(f"blkdiscard {options} -f -o {at} -l {length} {device}", says=None)
            wanted[at:at + length] = bytes(length)
    unit.is_exactly(wanted, "blkdiscard through loop")
    with loop(unit.lun) as device:
        tool(f"blkdiscard -f {device}", says=None)
    unit.is_exactly(bytes(unit.size), "blkdiscard of all")


@row("fstrim", "losetup LUN; mkfs.ext4; mount; fstrim", kernel=["loop", "ext4"], programs=["mkfs.ext4"], size=48 * MIB)
def fstrim_gives_space_back_and_no_byte_is_wrong(t, unit):
    data = pattern(10 * MIB, 3)
    with loop(unit.lun) as device:
        tool(f"mkfs.ext4 -q -F -E nodiscard {device}")
        with mounted(t, device, "ext4") as point:
            (point / "kept").write_bytes(data)
            (point / "gone").write_bytes(data)
            os.sync()
            (point / "gone").unlink()
            said = tool(f"sync -f {point}; fstrim -v {point}")
            check(re.search(r"\(([1-9]\d{6,}) bytes\) trimmed", said), f"fstrim says {said}")
            same((point / "kept").read_bytes(), data, "fstrim, of a file that is there")
        tool(f"e2fsck -fn {device}", says=None)
        with mounted(t, device, "ext4", "ro") as point:
            same((point / "kept").read_bytes(), data, "fstrim and another mount")
    unit.is_its_backing("fstrim")
    if unit.number and run("fallocate", "-p", "-l", "4096", image(unit.path("image"), MIB, ((0, MIB),))).returncode == 0:
        # Thin, and here files can have holes: the server's has some now.
        check(os.stat(unit.backing).st_blocks * 512 < unit.size - 8 * MIB, "fstrim has given no space back")


# ---- file systems ----

def tree(point, seed=1):
    """Files of many kinds; gives what is in them."""
    numbers, wanted = random.Random(seed), {}
    for number in range(120):
        wanted[f"small{number}"] = pattern(numbers.randrange(20000), number)
    wanted["large"] = pattern(6 * MIB + 77, 5)
    for name, content in wanted.items():
        (point / name).write_bytes(content)
    with open(point / "large", "r+b", buffering=0) as file:
        content = bytearray(wanted["large"])
        for step in range(50):
            at, part = numbers.randrange(6 * MIB), pattern(numbers.randrange(1, 5000), numbers.randrange(1000))
            os.pwrite(file.fileno(), part, at)
            content[at:at + len(part)] = part
            if not step % 10:
                os.fsync(file.fileno())
        wanted["large"] = bytes(content)
    with open(point / "sparse", "wb") as file:
        file.truncate(5 * MIB)
        file.seek(3 * MIB)
        file.write(b"in the middle")
    wanted["sparse"] = bytes(3 * MIB) + b"in the middle" + bytes(2 * MIB - 13)
    for number in range(0, 120, 7):
        (point / f"small{number}").unlink()
        del wanted[f"small{number}"]
    return wanted


def holds_tree(point, wanted, what):
    found = {path.name for path in point.iterdir()} - {"lost+found"}
    equal(found, set(wanted), f"files {what}")
    for name, content in wanted.items():
        same((point / name).read_bytes(), content, f"{what}: {name}")


def file_system(t, unit, kind, options=""):
    """Made, filled and checked through a loop device over the LUN file; then looked at without srpfs."""
    make, check_it = KINDS[kind]
    with loop(unit.lun, options) as device:
        tool(f"{make} {device}")
        with mounted(t, device, kind) as point:
            wanted = tree(point)
            tool(f"sync -f {point}")
            holds_tree(point, wanted, f"of {kind}")
        tool(f"{check_it} {device}", says=None)
        with mounted(t, device, kind, "ro") as point:
            holds_tree(point, wanted, f"of {kind} after another mount")
    unit.is_its_backing(kind)
    copy = unit.path("copy")
    tool(f"cp --sparse=always {unit.backing} {copy} && {check_it} {copy}", says=None)
    with loop(copy) as device, mounted(t, device, kind) as point:
        holds_tree(point, wanted, f"of {kind}, mounted from the server's file")
    copy.unlink()


@row("mkfs.ext4, mount, e2fsck", "losetup LUN; mkfs.ext4; mount; e2fsck -fn", kernel=["loop", "ext4"], programs=["mkfs.ext4", "e2fsck"], size=64 * MIB, quick=False)
def ext4_works(t, unit):
    file_system(t, unit, "ext4")


@row("mkfs.ext4, mount, e2fsck", "losetup -b 4096 --direct-io=on LUN; mkfs.ext4; mount", kernel=["loop", "ext4"], programs=["mkfs.ext4", "e2fsck"], size=64 * MIB, quick=False)
def ext4_with_direct_io_works(t, unit):
    file_system(t, unit, "ext4", "-b 4096 --direct-io=on")


@row("mkfs.xfs, mount, xfs_repair", "losetup [--direct-io=on] LUN; mkfs.xfs; mount; xfs_repair -n", kernel=["loop", "xfs"], programs=["mkfs.xfs", "xfs_repair"], size=320 * MIB, quick=False)
def xfs_works(t, unit):
    file_system(t, unit, "xfs", "--direct-io=on" if unit.number else "")


@row("mkfs.btrfs, mount, btrfs check", "losetup LUN; mkfs.btrfs; mount; btrfs check", kernel=["loop", "btrfs"], programs=["mkfs.btrfs"], size=128 * MIB, quick=False)
def btrfs_works(t, unit):
    file_system(t, unit, "btrfs")


@row("mount", "mkfs.ext4 LUN; mount -o loop LUN DIRECTORY", kernel=["loop", "ext4"], programs=["mkfs.ext4"], size=48 * MIB)
def mount_makes_its_own_loop_device(t, unit):
    tool(f"mkfs.ext4 -q -F -b {4096 if unit.number else 1024} {unit.lun}")
    point = t.mountpoint()
    tool(f"mount -o loop {unit.lun} {point}")
    wanted = tree(point, 4)
    tool(f"umount {point}")
    harness.eventually(lambda: run("e2fsck", "-fn", unit.lun).returncode == 0, "e2fsck of the file itself")
    with mounted(t, unit.backing, "ext4", "loop,ro") as point:
        holds_tree(point, wanted, "mounted from the server's file")
    unit.is_its_backing("mount -o loop")


@row("mkfs.ext4, debugfs, e2fsck, tune2fs, resize2fs", "mkfs.ext4 -F LUN, and so on", programs=["mkfs.ext4", "debugfs", "resize2fs"], size=32 * MIB, quick=False)
def ext4_is_made_on_the_file_itself(_, unit):
    unit.path("plain").write_bytes(pattern(300000, 2))
    tool(f"mkfs.ext4 -q -F -E lazy_itable_init=0 {unit.lun} 20M && debugfs -w -R 'write {unit.path('plain')} plain' {unit.lun} && e2fsck -fn {unit.lun} && "
         f"resize2fs {unit.lun} && tune2fs -L label {unit.lun} && e2fsck -fn {unit.lun} && debugfs -R 'dump plain {unit.path('back')}' {unit.lun}", says=None)
    same(read_bytes(unit.path("back")), read_bytes(unit.path("plain")), "debugfs")
    equal(tool(f"blkid -p -o value -s LABEL {unit.lun}").strip(), "label", "blkid")
    unit.is_its_backing("mkfs.ext4 on the file itself")


@row("mkfs.xfs", "mkfs.xfs -f LUN | -d file,name=LUN; xfs_repair -f -n", programs=["mkfs.xfs", "xfs_repair"], size=320 * MIB, quick=False)
def xfs_is_made_on_the_file_itself(_, unit):
    for command in (f"mkfs.xfs -q -f {unit.lun}", f"mkfs.xfs -q -f -d file,name={unit.lun},size={unit.size}", f"mkfs.xfs -q -f -s size=4096 {unit.lun}"):
        tool(command)
        tool(f"xfs_repair -f -n {unit.lun}", says=None)
        unit.is_its_backing("mkfs.xfs")


@row("mkfs.btrfs", "mkfs.btrfs -f LUN; btrfs check", programs=["mkfs.btrfs"], size=128 * MIB, quick=False)
def btrfs_is_made_on_the_file_itself(_, unit):
    tool(f"mkfs.btrfs -q -f {unit.lun} && btrfs check -q {unit.lun}", says=None)
    unit.is_its_backing("mkfs.btrfs")


@row("mkswap, wipefs, blkid", "mkswap LUN; blkid -p LUN; wipefs -a LUN", programs=["mkswap", "wipefs"])
def signatures_are_made_found_and_wiped(_, unit):
    unit.fill()
    tool(f"mkswap {unit.lun}", says=None)
    equal(tool(f"blkid -p -o value -s TYPE {unit.lun}").strip(), "swap", "blkid")
    before = bytearray(read_bytes(unit.lun))
    check("swap" in tool(f"wipefs -a {unit.lun}"), "wipefs has found no swap")
    before[4086:4096] = bytes(10)
    unit.is_exactly(before, "wipefs")
    tool(f"blkid -p {unit.lun}", 2)


# ---- partitions ----

@row("sfdisk", "sfdisk LUN; sfdisk --dump; sfdisk --delete", programs=["sfdisk"], size=32 * MIB, quick=False)
def sfdisk_partitions_the_file(_, unit):
    unit.fill()
    done = run("sfdisk", "-q", unit.lun, text_in="label: gpt\nfirst-lba: 2048\nstart=2048, size=20480, name=one\nstart=22528, name=two\n")
    equal((done.returncode, done.stderr), (0, ""), "sfdisk")
    said = json.loads(tool(f"sfdisk --json {unit.lun}"))["partitiontable"]
    equal([(one["start"], one["name"]) for one in said["partitions"]], [(2048, "one"), (22528, "two")], "partitions")
    tool(f"sfdisk -q --verify {unit.lun} && sfdisk -q --delete {unit.lun} 1")
    equal(len(json.loads(tool(f"sfdisk --json {unit.lun}"))["partitiontable"]["partitions"]), 1, "partitions")
    middle = read_bytes(unit.lun)[MIB:30 * MIB]
    same(middle, OLD * len(middle), "sfdisk, between its tables")
    unit.is_its_backing("sfdisk")


@row("fdisk", "fdisk LUN", programs=["fdisk"], size=32 * MIB, quick=False)
def fdisk_partitions_the_file(_, unit):
    unit.fill()
    done = run("fdisk", unit.lun, text_in="o\nn\np\n1\n\n+8M\nn\np\n2\n\n\nt\n2\n8e\nw\n")
    equal(done.returncode, 0, f"fdisk ({done.stderr})")
    equal([one["type"] for one in json.loads(tool(f"sfdisk --json {unit.lun}"))["partitiontable"]["partitions"]], ["83", "8e"], "types")
    unit.is_its_backing("fdisk")


@row("parted", "parted -s LUN mklabel gpt mkpart ...; print", programs=["parted"], size=32 * MIB, quick=False)
def parted_partitions_the_file(_, unit):
    unit.fill()
    tool(f"parted -s {unit.lun} mklabel gpt mkpart one ext4 1MiB 10MiB mkpart two 10MiB 100% name 1 first set 1 boot on", says=None)
    said = tool(f"parted -sm {unit.lun} unit B print")
    check(f"1:{MIB}B:{10 * MIB - 1}B:" in said and "2:" in said, f"parted prints {said}")
    tool(f"parted -s {unit.lun} rm 2 align-check optimal 1 && parted -s {unit.lun} mklabel msdos mkpart primary 1MiB 100%", says=None)
    unit.is_its_backing("parted")


@row("sgdisk", "sgdisk -n -t -v -p -Z LUN", programs=["sgdisk"], size=32 * MIB, quick=False)
def sgdisk_partitions_the_file(_, unit):
    unit.fill()
    tool(f"sgdisk -o -n 1:2048:+8M -t 1:8e00 -n 2:0:0 {unit.lun}", says=None)
    check("No problems found" in tool(f"sgdisk -v {unit.lun}"), "sgdisk -v has found problems")
    check("8E00" in tool(f"sgdisk -p {unit.lun}"), "sgdisk -p does not print the partition")
    tool(f"sgdisk -b {unit.path('table')} {unit.lun} && sgdisk -Z {unit.lun} && sgdisk -l {unit.path('table')} {unit.lun}", says=None)
    check("No problems found" in tool(f"sgdisk -v {unit.lun}"), "sgdisk -v has found problems in what it has put back")
    unit.is_its_backing("sgdisk")


@row("parted, sgdisk, sfdisk", "... on 4096-byte sectors: losetup -b 4096 LUN", kernel=["loop"], programs=["parted", "sgdisk", "sfdisk"], size=32 * MIB, quick=False)
def partitions_of_4096_byte_sectors_agree(_, unit):
    unit.fill()
    with loop(unit.lun, "-b 4096") as device:
        tool(f"parted -s {device} mklabel gpt mkpart one 1MiB 10MiB", says=None)
        equal(json.loads(tool(f"sfdisk --json {device}"))["partitiontable"]["partitions"][0]["start"], 256, "where the partition starts")
        check("No problems found" in tool(f"sgdisk -v {device}"), "sgdisk -v has found problems")
        check("NR" in tool(f"partx --show {device}"), "partx shows nothing")
    unit.is_its_backing("partitions of 4096-byte sectors")


# ---- mapped devices ----

@row("cryptsetup", "cryptsetup luksFormat LUN; luksDump; luksHeaderBackup; luksAddKey", programs=["cryptsetup"], size=24 * MIB, quick=False)
def cryptsetup_formats_the_file(_, unit):
    unit.fill()
    key = unit.path("key")
    key.write_bytes(pattern(64, 1))
    cheap = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000"
    tool(f"cryptsetup -q luksFormat --type luks2 {cheap} {unit.lun} {key}", says=None)
    tool(f"cryptsetup isLuks {unit.lun} && cryptsetup luksDump {unit.lun} && cryptsetup open --test-passphrase --key-file {key} {unit.lun}", says=None)
    unit.path("other").write_bytes(b"another key")
    tool(f"cryptsetup luksAddKey {cheap} --key-file {key} {unit.lun} {unit.path('other')} && cryptsetup open --test-passphrase --key-file {unit.path('other')} {unit.lun}", says=None)
    unit.path("header").unlink(missing_ok=True)
    tool(f"cryptsetup luksHeaderBackup {unit.lun} --header-backup-file {unit.path('header')} && dd if=/dev/zero of={unit.lun} bs=1M count=16 conv=notrunc status=none && "
         f"cryptsetup -q luksHeaderRestore {unit.lun} --header-backup-file {unit.path('header')} && cryptsetup open --test-passphrase --key-file {key} {unit.lun}", says=None)
    content = read_bytes(unit.lun)
    same(content[16 * MIB:], OLD * (unit.size - 16 * MIB), "cryptsetup, behind its header")
    unit.is_its_backing("cryptsetup")


@row("cryptsetup", "cryptsetup open LUN NAME; mkfs.ext4; mount", kernel=["loop", "dm", "ext4"], programs=["cryptsetup", "mkfs.ext4"], size=64 * MIB, quick=False)
def an_encrypted_file_system_works(t, unit):
    key = unit.path("key")
    key.write_bytes(pattern(64, 1))
    name = f"srpfs-tools-{os.getpid()}-{unit.number}"
    tool(f"cryptsetup -q luksFormat --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 {unit.lun} {key} && cryptsetup open --key-file {key} {unit.lun} {name}", says=None)
    try:
        tool(f"mkfs.ext4 -q -F /dev/mapper/{name}")
        with mounted(t, f"/dev/mapper/{name}", "ext4") as point:
            wanted = tree(point)
        with mounted(t, f"/dev/mapper/{name}", "ext4", "ro") as point:
            holds_tree(point, wanted, "of an encrypted file system")
    finally:
        tool(f"cryptsetup close {name}", says=None)
    unit.is_its_backing("cryptsetup open")


@row("LVM", "pvcreate LUN", programs=["pvcreate"], quick=False)
def pvcreate_wants_a_block_device(_, unit):
    unit.fill()
    tool(f"pvcreate {unit.lun}", 5, ".*No device found.*|.*Cannot use .*")
    unit.holds(b"", "pvcreate")
    return "impossible: LVM looks for block devices only; losetup first"


@row("LVM", "losetup LUN; pvcreate; vgcreate; lvcreate; mkfs.ext4; mount; lvextend; resize2fs", kernel=["loop", "dm", "ext4"], programs=["pvcreate", "mkfs.ext4"], size=96 * MIB, quick=False)
def volumes_work_through_loop(t, unit):
    group = f"srpfstools{os.getpid()}{unit.number}"
    with loop(unit.lun) as device:
        only = f"--config 'devices {{ filter=[\"a|{device}|\",\"r|.*|\"] use_devicesfile=0 }} activation {{ udev_sync=0 udev_rules=0 }}'"
        tool(f"pvcreate -q {only} {device} && vgcreate -q {only} {group} {device} && lvcreate -q {only} -y -L 48M -n volume {group}", says=None)
        try:
            tool(f"mkfs.ext4 -q -F /dev/{group}/volume", says=None)
            with mounted(t, f"/dev/{group}/volume", "ext4") as point:
                wanted = tree(point)
            tool(f"e2fsck -fp /dev/{group}/volume && lvextend -q {only} -L +16M /dev/{group}/volume && resize2fs /dev/{group}/volume", says=None)
            with mounted(t, f"/dev/{group}/volume", "ext4", "ro") as point:
                holds_tree(point, wanted, "of a volume")
        finally:
            tool(f"vgchange -q {only} -a n {group}", says=None)
    unit.is_its_backing("LVM")


@row("mdadm", "mdadm --create /dev/mdN LUN ...", programs=["mdadm"], quick=False)
def mdadm_wants_block_devices(_, unit):
    unit.fill()
    tool(f"mdadm --create /dev/md/srpfs --run --level=1 --raid-devices=2 {unit.lun} missing", 2, ".*(not a block device|cannot open|No such file).*")
    unit.holds(b"", "mdadm")
    return "impossible: md is made of block devices only; losetup first"


@row("mdadm", "losetup LUN, twice; mdadm --create --level=1; mkfs.ext4; mount; --examine", kernel=["loop", "md", "ext4"], programs=["mdadm", "mkfs.ext4"], size=64 * MIB, quick=False)
def mirrors_work_through_loop(t, unit):
    half = unit.size // 2
    array = f"/dev/md{120 + unit.number}"
    with loop(unit.lun, f"--sizelimit {half}") as one, loop(unit.lun, f"-o {half}") as two:
        tool(f"mdadm --create {array} --run --metadata=1.2 --level=1 --raid-devices=2 {one} {two} --homehost=any", says=None)
        try:
            tool(f"mkfs.ext4 -q -F {array}", says=None)
            with mounted(t, array, "ext4") as point:
                wanted = tree(point)
            # --wait fails when there is nothing to wait for (mdadm(8)).
            tool(f"mdadm --wait {array} || true; e2fsck -fn {array} && mdadm --examine {one} && mdadm --examine {two}", says=None)
            with mounted(t, array, "ext4", "ro") as point:
                holds_tree(point, wanted, "of a mirror")
        finally:
            tool(f"mdadm --stop {array}", says=None)
    unit.is_its_backing("mdadm")


# ---- exercisers of file systems ----

@row("fsstress", "losetup LUN; mkfs.ext4; mount; fsstress -p 4; e2fsck -fn", kernel=["loop", "ext4"], programs=["fsstress", "mkfs.ext4"], size=96 * MIB, quick=False)
def fsstress_leaves_a_file_system_in_order(t, unit):
    with loop(unit.lun, "-b 4096 --direct-io=on" if unit.number else "") as device:
        tool(f"mkfs.ext4 -q -F {device}")
        with mounted(t, device, "ext4") as point:
            tool(f"fsstress -d {point} -p 4 -n 400 -s 7", says=None)
            wanted = tool(f"cd {point} && find . -type f -print0 | sort -z | xargs -0 sha256sum")
        tool(f"e2fsck -fn {device}", says=None)
        with mounted(t, device, "ext4", "ro") as point:
            equal(tool(f"cd {point} && find . -type f -print0 | sort -z | xargs -0 sha256sum"), wanted, "files of fsstress after another mount")
    unit.is_its_backing("fsstress")


@row("stress-ng", "losetup LUN; mkfs.ext4; mount; stress-ng --verify (files, holes, links, renames)", kernel=["loop", "ext4"], programs=["stress-ng", "mkfs.ext4"], size=96 * MIB, quick=False)
def stress_ng_finds_nothing_wrong(t, unit):
    with loop(unit.lun) as device:
        tool(f"mkfs.ext4 -q -F {device}")
        with mounted(t, device, "ext4") as point:
            tool(f"stress-ng --temp-path {point} --verify --metrics-brief --timeout 120 --seed 7 --hdd 1 --hdd-bytes 8m --hdd-ops 60 --fallocate 1 --fallocate-bytes 8m "
                 "--fallocate-ops 5 --seek 1 --seek-size 4m --seek-ops 400 --seek-punch --fpunch 1 --fpunch-ops 5 --rename 1 --rename-ops 500 --link 1 --link-ops 5 --dentry 1 "
                 "--dentry-ops 200", says=None)
        tool(f"e2fsck -fn {device}", says=None)
    unit.is_its_backing("stress-ng")


# ---- databases ----

@row("sqlite3", "losetup LUN; mkfs.ext4; mount; sqlite3, killed by SIGKILL and opened again", kernel=["loop", "ext4"], programs=["sqlite3", "mkfs.ext4"], size=64 * MIB)
def a_database_on_a_file_system_survives_a_kill(t, unit):
    with loop(unit.lun) as device:
        tool(f"mkfs.ext4 -q -F {device}")
        with mounted(t, device, "ext4") as point:
            base = point / "base"
            tool(f"sqlite3 {base} 'pragma journal_mode=wal; create table t(a integer primary key, b);'")
            fill = "with recursive c(x) as (select 1 union all select x+1 from c where x<200) insert into t(b) select hex(randomblob(40)) from c;"
            rows = 0
            for turn in range(4):
                mode = "wal" if turn % 2 else "delete"
                with subprocess.Popen(["stdbuf", "-oL", "sqlite3", str(base)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
                    process.stdin.write(f"pragma journal_mode={mode};" + (fill + "select 'done';\n") * 200)
                    process.stdin.flush()
                    for _ in range(5):
                        process.stdout.readline()
                    process.send_signal(signal.SIGKILL)
                    with contextlib.suppress(BrokenPipeError):
                        process.stdin.close()
                count = int(tool(f"sqlite3 {base} 'pragma integrity_check; select count(*) from t;'").split("\n")[1])
                check(count >= rows + 800 and count % 200 == 0, f"{count} rows after a kill, and {rows} before")
                rows = count
            content = tool(f"sqlite3 {base} .dump")
        with mounted(t, device, "ext4") as point:
            check(tool(f"sqlite3 {point}/base .dump") == content, "the database differs after another mount")
    unit.is_its_backing("sqlite3")


@row("PostgreSQL", "losetup LUN; mkfs.ext4; mount; pgbench, a crash, pg_checksums, pg_dump", kernel=["loop", "ext4"], programs=["pgbench"], size=512 * MIB, quick=False, seconds=600)
def postgresql_works(t, unit):
    candidates = sorted(os.listdir("/usr/lib/postgresql")) if os.path.isdir("/usr/lib/postgresql") else []
    if not candidates:
        raise harness.Skip("no PostgreSQL server is installed")
    programs = f"/usr/lib/postgresql/{candidates[-1]}/bin"
    with loop(unit.lun, "--direct-io=on" if unit.number else "") as device:
        tool(f"mkfs.ext4 -q -F {device}")
        with mounted(t, device, "ext4") as point:
            data = point / "data"
            data.mkdir()
            shutil.chown(data, "postgres")
            socket = t.path(f"socket{unit.number}")
            socket.mkdir()
            shutil.chown(socket, "postgres")

            def as_postgres(command, **more):
                return tool(f"setpriv --reuid=postgres --regid=postgres --clear-groups bash -c \"cd /; {command}\"", says=None, **more)
            as_postgres(f"{programs}/initdb -D {data} -k --auth=trust --no-sync")
            start = f"{programs}/pg_ctl -D {data} -w -t 120 -l {socket}/log -o '-k {socket} -h \\\"\\\"' start"
            to = f"-h {socket} -U postgres"
            as_postgres(start)
            as_postgres(f"pgbench -q -i -s 3 {to} postgres && pgbench -n -c 4 -j 2 -t 150 {to} postgres")
            as_postgres(f"{programs}/pg_ctl -D {data} -w -m immediate stop")
            as_postgres(start)
            sums = "select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers), (select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history), (select count(*) from pgbench_history)"
            found = as_postgres(f"psql {to} -At -c '{sums}' postgres").strip().split("|")
            check(len(set(found[:4])) == 1 and found[4] == "600", f"the sums of pgbench are {found}")
            as_postgres(f"pg_dump {to} -f {socket}/dump postgres && {programs}/pg_ctl -D {data} -w -m fast stop && {programs}/pg_checksums -D {data} -c")
        tool(f"e2fsck -fn {device}", says=None)
    unit.is_its_backing("PostgreSQL")
