# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
"""Rows of the matrix: tools that work on the LUN file itself."""

import contextlib
import os
import random
import re
import signal
import subprocess

import harness
from harness import check, equal, pattern, read_bytes
from unit import ENOSPC, EPERM, EROFS, MIB, OLD, copies_exactly, each_copies_exactly, image, row, same, tool

NAMES = "impossible: the names in this directory belong to the target, and are neither made, renamed nor removed by tools"


def random_unit(unit):
    """Fills the unit with bytes that differ everywhere, and gives them."""
    content = pattern(unit.size, 77)
    unit.lun.write_bytes(content)
    unit.is_exactly(content, "writing the whole unit")
    return content


# ---- reading ----

@row("cat", "cat LUN > FILE")
def cat_reads_every_byte(_, unit):
    content = random_unit(unit)
    tool(f"cat {unit.lun} > {unit.path('copy')}")
    same(read_bytes(unit.path("copy")), content, "cat")


@row("dd", "dd if=LUN bs=1M | bs=9999 | bs=1 skip= | iflag=direct | iflag=direct,fullblock")
def dd_reads_every_byte(_, unit):
    content, copy = random_unit(unit), unit.path("copy")
    for options, wanted in (("bs=1M", content), ("bs=9999", content), ("bs=1 skip=123457 count=501", content[123457:123958]),
                            ("bs=512 iflag=direct skip=3 count=2001", content[1536:1536 + 2001 * 512]), ("bs=64k iflag=direct", content),
                            ("bs=1M iflag=direct,fullblock skip=1", content[MIB:]), ("bs=4k iflag=skip_bytes,count_bytes skip=777 count=10001", content[777:10778]),
                            (f"bs=1 iflag=skip_bytes skip={unit.size - 1}", content[-1:])):
        tool(f"dd if={unit.lun} of={copy} status=none {options}")
        same(read_bytes(copy), wanted, f"dd {options}")
    said = tool(f"dd if={unit.lun} of={copy} bs=4k status=none skip={unit.size // 4096 + 5}", says=None)
    equal((said, read_bytes(copy)), ("", b""), "dd beyond the end")


@row("cp", "cp [--sparse=auto|always|never] [--reflink=auto|never] LUN FILE")
def cp_reads_every_byte(_, unit):
    content = bytearray(random_unit(unit))
    tool(f"fallocate --punch-hole -o {MIB} -l {2 * MIB} {unit.lun}")
    content[MIB:3 * MIB] = bytes(2 * MIB)
    for options in ("", "--sparse=auto", "--sparse=always", "--sparse=never", "--reflink=auto", "--reflink=never", "-a"):
        tool(f"cp {options} {unit.lun} {unit.path('copy')}")
        same(read_bytes(unit.path("copy")), content, f"cp {options}")


@row("cp", "cp --reflink=always IMAGE LUN")
def cp_cannot_share_blocks(_, unit):
    file = image(unit.path("image"), 100000, ((0, 100000),))
    tool(f"cp --reflink=always {file} {unit.lun}", 1, "cp: failed to clone .*: (Operation not supported|Invalid cross-device link)")
    return "impossible: no blocks are shared between a target and a file; cp says so"


@row("rsync", "rsync [-S] LUN FILE", programs=["rsync"])
def rsync_reads_every_byte(_, unit):
    content = random_unit(unit)
    for options in ("", "-S", "--inplace --no-whole-file", "-a"):
        tool(f"rsync {options} {unit.lun} {unit.path('copy')}")
        same(read_bytes(unit.path("copy")), content, f"rsync {options}")


@row("tar", "tar -cf - [-S] LUN | tar -xOf -", programs=["tar"])
def tar_reads_every_byte(_, unit):
    content = random_unit(unit)
    for options in ("", "-S"):
        tool(f"tar -C {unit.lun.parent} {options} -cf - {unit.lun.name} | tar -xOf - > {unit.path('copy')}")
        same(read_bytes(unit.path("copy")), content, f"tar {options}")


@row("cmp, sha256sum, head, tail, od, split", "cmp LUN IMAGE; tail -c 1000 LUN; split LUN ...")
def others_read_every_byte(_, unit):
    content, file = random_unit(unit), unit.path("file")
    file.write_bytes(content)
    tool(f"cmp {unit.lun} {file}")
    equal(tool(f"sha256sum < {unit.lun}"), tool(f"sha256sum < {file}"), "sha256sum")
    for command in ("tail -c 1000 {}", "head -c 12345 {}", "od -A d -t x1 -j 4095 -N 600 {}", "tail -c +3000000 {}", "wc -c < {}", "head -c -1000000 {}",
                    "split -b 1000000 --filter=sha256sum {}", "base64 {}"):
        equal(tool(command.format(unit.lun) + " | sha256sum"), tool(command.format(file) + " | sha256sum"), command)
    with open(file, "r+b") as other:
        other.seek(2777777)
        other.write(bytes([content[2777777] ^ 1]))
    said = tool(f"cmp {unit.lun} {file}", 1)
    check("char 2777778," in said, f"cmp of files that differ says {said}")


# ---- writing ----

@row("cat", "cat IMAGE > LUN")
def cat_writes_an_image(_, unit):
    copies_exactly(unit, "cat {image} > {lun}")


@row("cat", "cat IMAGE >> LUN")
def appending_finds_no_space(_, unit):
    unit.fill()
    tool(f"printf abc >> {unit.lun}", 1, f".*(write error|printf).*: {ENOSPC}")
    tool(f"head -c 100000 /dev/zero | cat >> {unit.lun}", 1, f"cat: write error: {ENOSPC}")
    unit.holds(b"", "appending")
    return "impossible: a device has no room after its end; ENOSPC, nothing is changed"


@row("tee, shell", "tee LUN < IMAGE; printf x 1<> LUN")
def shells_write_images(_, unit):
    copies_exactly(unit, "tee {lun} < {image} > /dev/null")
    unit.fill()
    tool(f"{{ printf abc; printf defg; }} > {unit.lun}; printf XY 1<> {unit.lun}; printf z | dd of={unit.lun} bs=1 seek=20 conv=notrunc status=none")
    unit.holds(b"XYcdefg" + OLD * 13 + b"z", "the shell's redirections")


@row("dd", "dd if=IMAGE of=LUN bs=1M | bs=9999 | oflag=direct | oflag=dsync | conv=fsync")
def dd_writes_an_image(_, unit):
    each_copies_exactly(unit, "dd if={image} of={lun} status=none {options}",
                        ("bs=1M", "bs=9999", "bs=64k conv=fsync", "bs=64k oflag=direct", "bs=1M oflag=sync", "bs=1000001 oflag=dsync conv=fdatasync"))


@row("dd", "dd of=LUN conv=notrunc seek=N; dd of=LUN seek=N; dd oflag=seek_bytes")
def dd_writes_in_the_middle(_, unit):
    data = pattern(51200, 5)
    for options, at in (("bs=1 seek=12345 conv=notrunc", 12345), ("bs=1000 seek=3099 conv=notrunc", 3099000), ("bs=512 seek=2047", 2047 * 512),
                        ("bs=1000 oflag=seek_bytes seek=3000001", 3000001), ("bs=512 oflag=direct conv=notrunc seek=9", 9 * 512)):
        unit.fill()
        part = data[:500 if "bs=1 " in options else 51200 if "direct" in options else 50001]
        unit.path("part").write_bytes(part)
        tool(f"dd if={unit.path('part')} of={unit.lun} status=none {options}")
        unit.holds(part, f"dd {options}", at=at)


@row("dd", "dd of=LUN, of more bytes than fit")
def dd_of_too_much_fills_the_unit(_, unit):
    content = pattern(unit.size + 3 * MIB, 9)
    unit.path("image").write_bytes(content)
    for options in ("bs=1M", "bs=1000000", "bs=64k oflag=direct", "bs=9999"):
        unit.fill()
        tool(f"dd if={unit.path('image')} of={unit.lun} {options}", 1, f"dd: error writing '{unit.lun}': {ENOSPC}\n.*{unit.size} bytes .*")
        unit.is_exactly(content[:unit.size], f"dd {options}")
    unit.fill()
    tool(f"dd if={unit.path('image')} of={unit.lun} bs=1M seek={unit.size // MIB + 1}", 1, f"dd: failed to truncate to .*: File too large(\n.*)?")
    unit.holds(b"", "dd beyond the end")
    tool(f"dd if={unit.path('image')} of={unit.lun} bs=1M conv=notrunc seek={unit.size // MIB} status=none", 1, f"dd: error writing .*: {ENOSPC}")
    unit.holds(b"", "dd at the end")


@row("dd", "dd if=IMAGE of=LUN conv=sparse")
def dd_sparse_leaves_what_was_at_the_end(_, unit):
    file = image(unit.path("image"), 3 * MIB, ((0, 100000), (MIB + 12345, 4096), (3 * MIB - 100000, 100000)))
    for options in ("conv=sparse bs=64k", "conv=sparse,fsync bs=4096"):
        unit.fill()
        tool(f"dd if={file} of={unit.lun} status=none {options}")
        unit.holds(file.read_bytes(), f"dd {options} of an image that ends in data")
    file = image(unit.path("image"), 3 * MIB, ((0, 100000),))
    unit.fill()
    tool(f"dd if={file} of={unit.lun} status=none conv=sparse bs=64k")
    # In whole blocks of dd's; what it believes to be behind the end of the file.
    unit.holds(file.read_bytes()[:100000 // 65536 * 65536 + 65536], "dd conv=sparse of an image that ends in zeros")
    return "exact when the image ends in data; impossible when it ends in zeros: dd seeks over them, sees that the file is long enough, and leaves what was there"


@row("cp", "cp IMAGE LUN")
def cp_writes_an_image(_, unit):
    copies_exactly(unit, "cp {image} {lun}")


@row("cp", "cp --sparse=always IMAGE LUN")
def cp_sparse_always_writes_an_image(_, unit):
    copies_exactly(unit, "cp --sparse=always {image} {lun}")


@row("cp", "cp --sparse=never IMAGE LUN; cp -a; cp --reflink=auto; cp --preserve=all")
def cp_writes_an_image_with_other_options(_, unit):
    each_copies_exactly(unit, "cp {options} {image} {lun}", ("--sparse=never", "-a", "--reflink=auto --sparse=auto", "--preserve=all --sparse=always", "--no-preserve=mode"))


@row("cp", "cp IMAGE LUN, an image larger than the unit")
def cp_of_too_much_fails_and_fills_the_unit(_, unit):
    for options in ("--sparse=never", "--sparse=always", ""):
        unit.fill()
        content = pattern(unit.size + 100001, 6)
        unit.path("image").write_bytes(content)
        tool(f"cp {options} {unit.path('image')} {unit.lun}", 1, f"cp: error writing '{unit.lun}': {ENOSPC}")
        unit.is_exactly(content[:unit.size], f"cp {options}")
        # Nothing but a hole does not fit: ftruncate() tells.
        unit.fill()
        file = image(unit.path("image"), unit.size + MIB, ((0, 5000),))
        tool(f"cp --sparse=always {file} {unit.lun}", 1, "cp: .*: (File too large|No space left on device)")


@row("rsync", "rsync --inplace IMAGE LUN", programs=["rsync"])
def rsync_inplace_writes_an_image(_, unit):
    copies_exactly(unit, "rsync --inplace {image} {lun}")


@row("rsync", "rsync -S --inplace IMAGE LUN", programs=["rsync"])
def rsync_sparse_writes_an_image(_, unit):
    copies_exactly(unit, "rsync -S --inplace {image} {lun}")


@row("rsync", "rsync --inplace --no-whole-file -I IMAGE LUN; rsync -a --inplace", programs=["rsync"], quick=False)
def rsync_of_differences_writes_an_image(_, unit):
    each_copies_exactly(unit, "rsync {options} {image} {lun}", ("--inplace --no-whole-file -I", "-a --inplace", "--inplace -S --no-whole-file --checksum"))


@row("rsync", "rsync --write-devices --inplace IMAGE LUN", programs=["rsync"])
def rsync_write_devices_writes_an_image(_, unit):
    copies_exactly(unit, "rsync --write-devices --inplace {image} {lun}")


@row("rsync", "rsync IMAGE LUN (without --inplace)", programs=["rsync"], peers=False)
def rsync_wants_a_temporary_file(_, unit):
    file = image(unit.path("image"), 100000, ((0, 100000),))
    unit.fill()
    tool(f"rsync {file} {unit.lun}", 23, f"rsync: .*mkstemp .* failed: {EPERM} \\(1\\)\n.*")
    unit.holds(b"", "rsync")
    return NAMES + " (EPERM): use --inplace"


@row("tar", "tar -cSf - IMAGE | tar -xOf - > LUN; tar --overwrite -xf ARCHIVE", programs=["tar"])
def tar_writes_an_image(_, unit):
    each_copies_exactly(unit, "tar -C {directory} -c {options} -f - {name} | tar -xOf - > {lun}", ("", "-S"))
    each_copies_exactly(unit, f"tar -C {{directory}} -c {{options}} -f - --transform=s/.*/{unit.lun.name}/ {{name}} | "
                              f"tar -C {unit.lun.parent} --overwrite --no-same-owner -xf -", ("", "-S"))


@row("tar", "tar -xf ARCHIVE (without --overwrite)", programs=["tar"], peers=False)
def tar_wants_to_remove_the_file(_, unit):
    file = image(unit.path("image"), 100000, ((0, 100000),))
    unit.fill()
    tool(f"tar -C {file.parent} -c -f - --transform=s/.*/{unit.lun.name}/ {file.name} | tar -C {unit.lun.parent} --no-same-owner -xf -", 2,
         f"tar: {unit.lun.name}: Cannot (open|unlink): (File exists|{EPERM})\n.*")
    unit.holds(b"", "tar")
    return NAMES + ": use --overwrite"


@row("mv, install, ln, rm, sed -i", "mv IMAGE LUN; install IMAGE LUN; rm LUN; sed -i s/a/b/ LUN", peers=False)
def names_are_the_targets(_, unit):
    file = image(unit.path("image"), 100000, ((0, 100000),))
    unit.fill()
    for command, status in ((f"mv {file} {unit.lun}", 1), (f"install {file} {unit.lun}", 1), (f"ln -f {unit.lun} {unit.lun.parent}/x", 1), (f"rm -f {unit.lun}", 1),
                            (f"sed -i s/a/b/ {unit.lun}", 4), (f"mv {unit.lun} {unit.lun.parent}/y", 1), (f"mkdir {unit.lun.parent}/z", 1), (f"ln -s a {unit.lun.parent}/z", 1)):
        tool(command, status, f".*: {EPERM}(\n.*)?" if "sed" not in command else ".*(Operation not permitted|couldn't open temporary file).*")
    unit.holds(b"", "mv, install, ln, rm and sed")
    check(file.exists(), "mv has removed what it could not move")
    return NAMES + " (EPERM)"


@row("xz, gzip", "xz -dc IMAGE.xz > LUN (writes holes)", programs=["xz", "gzip"])
def decompressed_images_are_exact(_, unit):
    copies_exactly(unit, "xz -0 -c {image} > {image}.xz; xz -dc {image}.xz > {lun}")
    copies_exactly(unit, "gzip -1 -c {image} > {image}.gz; gzip -dc {image}.gz > {lun}", only=(1,))


@row("truncate", "truncate -s N LUN")
def truncate_changes_nothing(_, unit):
    unit.fill()
    for size in ("0", "5", "1M", "-4096", "+0", f"%{unit.block}", str(unit.size)):
        tool(f"truncate -s {size} {unit.lun}")
        unit.holds(b"", f"truncate -s {size}")
    tool(f"truncate -s {unit.size + 1} {unit.lun}", 1, "truncate: failed to truncate .* File too large")
    tool(f"truncate -s +1 {unit.lun}", 1, "truncate: failed to truncate .* File too large")
    tool(f"truncate -s 100T {unit.lun}", 1, "truncate: failed to truncate .* File too large")
    unit.holds(b"", "truncate to more")
    return "exact: a device keeps its size and content; beyond it EFBIG"


@row("shred", "shred -n 1 -z LUN; shred -x -s 12345 LUN")
def shred_overwrites(_, unit):
    unit.fill()
    tool(f"shred -n 1 -s 12345 -x {unit.lun}")
    content = read_bytes(unit.lun)
    check(content[12345:] == OLD * (unit.size - 12345) and OLD * 100 not in content[:12345], "shred -s 12345 has not overwritten 12345 bytes")
    tool(f"shred -n 2 -z {unit.lun}")
    unit.is_exactly(bytes(unit.size), "shred -z")


@row("shred", "shred -u LUN", peers=False)
def shred_cannot_remove(_, unit):
    unit.fill()
    tool(f"shred -n 0 -z -u {unit.lun}", 1, f"shred: .*: {EPERM}(\n.*)?")
    unit.is_exactly(bytes(unit.size), "shred -u")
    return "the content is overwritten; " + NAMES + " (EPERM)"


@row("fallocate", "fallocate -p | -z | -z -n | -l LUN")
def fallocate_zeroes(_, unit):
    unit.fill()
    wanted = bytearray(OLD * unit.size)
    for options, at, length in (("-p", 4096, MIB), ("-p", 2 * MIB + 1, 4095), ("-z", 3 * MIB - 3, 100000), ("-z -n", 3 * MIB + 500000, 512), ("-p", unit.size - 1000, 1000)):
        tool(f"fallocate {options} -o {at} -l {length} {unit.lun}")
        wanted[at:at + length] = bytes(length)
        unit.is_exactly(wanted, f"fallocate {options}")
    tool(f"fallocate -l {unit.size} {unit.lun}; fallocate -n -o 5 -l 100 {unit.lun}; fallocate -x -l {unit.size} {unit.lun}")
    tool(f"fallocate -l {unit.size + 1} {unit.lun}", 1, "fallocate: fallocate failed: File too large")
    unit.is_exactly(wanted, "fallocate -l")


@row("fallocate", "fallocate -d LUN (dig holes)")
def fallocate_digs_holes(_, unit):
    unit.fill()
    tool(f"dd if=/dev/zero of={unit.lun} bs=64k count=16 seek=8 conv=notrunc status=none")
    before = read_bytes(unit.lun)
    tool(f"fallocate -d {unit.lun}")
    unit.is_exactly(before, "fallocate -d")


@row("fallocate", "fallocate -c | -i LUN")
def fallocate_cannot_move_bytes(_, unit):
    unit.fill()
    for option in ("-c", "-i"):
        tool(f"fallocate {option} -o 4096 -l 4096 {unit.lun}", 1, "fallocate: fallocate failed: Operation not supported")
    unit.holds(b"", "fallocate -c and -i")
    return "impossible: a device has no bytes to take out or room to put some in; EOPNOTSUPP, from the kernel itself"


@row("blkdiscard", "blkdiscard LUN")
def blkdiscard_wants_a_block_device(_, unit):
    unit.fill()
    tool(f"blkdiscard {unit.lun}", 1, "blkdiscard: .*: not a block device")
    unit.holds(b"", "blkdiscard")
    return "impossible: blkdiscard refuses whatever is no block device; use fallocate -p, or losetup"


# ---- two at once, killed, read-only ----

@row("dd", "several dd conv=notrunc at once, into neighbouring bytes")
def writers_of_neighbouring_bytes_keep_each_others(_, unit):
    unit.fill()
    edges = [0, 100001, 100002, 300000, 1000003, 1000500, 2000000, 2000001]
    content = pattern(edges[-1], 8)
    unit.path("image").write_bytes(content)
    commands = [f"dd if={unit.path('image')} of={unit.lun} iflag=skip_bytes,count_bytes oflag=seek_bytes conv=notrunc status=none bs=5009 "
                f"skip={begin} seek={begin} count={end - begin} & pids+=($!)" for begin, end in zip(edges, edges[1:])]
    tool("; ".join(["pids=()"]) + "; " + "\n".join(commands) + "\nfor p in ${pids[@]}; do wait $p || exit 1; done")
    unit.holds(content, "seven dd at once")


@row("cp and dd", "cp IMAGE LUN beside dd of=LUN conv=notrunc behind the image's end")
def two_tools_at_once_do_not_disturb_each_other(_, unit):
    unit.fill()
    file = image(unit.path("image"), 3 * MIB - 99999, ((0, 70000), (MIB + 1, MIB)))
    behind = pattern(MIB, 4)
    unit.path("behind").write_bytes(behind)
    tool(f"for i in 1 2 3 4 5 6; do cp --sparse=always {file} {unit.lun} || exit 1; done & a=$!\n"
         f"for i in 1 2 3; do dd if={unit.path('behind')} of={unit.lun} conv=notrunc status=none bs=7777 oflag=seek_bytes seek={3 * MIB - 99999} || exit 1; done & b=$!\nwait $a && wait $b")
    unit.holds(file.read_bytes() + behind, "cp beside dd")


@row("cp, dd, rsync", "killed by SIGKILL in the middle, and run again", programs=["rsync"])
def a_tool_killed_and_run_again_is_exact(_, unit):
    numbers = random.Random(5)
    for command in ("cp --sparse=always {image} {lun}", "dd if={image} of={lun} bs=10000 status=none", "rsync -S --inplace {image} {lun}", "cp {image} {lun}"):
        path = image(unit.path("image"), 3 * MIB + 1001, ((0, 100000), (MIB + 1, MIB), (3 * MIB, 5)))
        content = path.read_bytes()
        unit.fill()
        for _ in range(6):
            with subprocess.Popen(["bash", "-c", "exec " + command.format(image=path, lun=unit.lun)], start_new_session=True,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(numbers.random() * 0.02)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(harness.PATIENCE)
            same(read_bytes(unit.lun)[len(content):], OLD * (unit.size - len(content)), f"`{command}` killed, behind the image's end")
        tool(command.format(image=path, lun=unit.lun))
        unit.holds(content, f"`{command}` after six that were killed")


@row("cat, dd, cp, mkfs.ext4", "... of a read-only unit", options=",ro", programs=["mkfs.ext4"], peers=False)
def a_read_only_unit_is_read_and_not_written(_, unit):
    file = image(unit.path("image"), 100000, ((0, 100000),))
    for command, status in ((f"dd if={file} of={unit.lun} conv=notrunc", 1), (f"cp {file} {unit.lun}", 1), (f"cat {file} > {unit.lun}", 1), (f"fallocate -p -l 4096 {unit.lun}", 1),
                            (f"truncate -s 0 {unit.lun}", 1), (f"mkfs.ext4 -q -F {unit.lun}", 1)):
        tool(command, status, f".*{EROFS}.*")
    same(read_bytes(unit.lun), OLD * unit.size, "tools that may not write")
    tool(f"dd if={unit.lun} of={unit.path('copy')} bs=1M status=none; cmp {unit.path('copy')} {unit.lun}")
    unit.holds(b"", "tools that may not write")
    return "exact: reads work, writers are told EROFS when they open"


# ---- virtual machines' tools ----

@row("qemu-img", "qemu-img convert -O raw IMAGE LUN", programs=["qemu-img"])
def qemu_img_convert_writes_an_image(_, unit):
    copies_exactly(unit, "qemu-img convert -f raw -O raw {image} {lun}", sector=unit.block)


@row("qemu-img", "qemu-img convert -n -O raw IMAGE LUN, -S 4k, -W -m 16, -t none", programs=["qemu-img"])
def qemu_img_convert_n_writes_an_image(_, unit):
    each_copies_exactly(unit, "qemu-img convert {options} -f raw -O raw {image} {lun}",
                        ("-n", "-n -S 4k", "-n -S 0", "-n -W -m 16", "-n -t none", "-n -t directsync", "-W -m 8 -t none"), unit.block)


@row("qemu-img", "qemu-img convert -O qcow2 IMAGE LUN, and back", programs=["qemu-img"])
def a_qcow2_image_on_the_unit_comes_back(_, unit):
    unit.fill()
    file = image(unit.path("image"), 3 * MIB, ((0, 100000), (MIB, MIB), (3 * MIB - 4096, 512)))
    tool(f"qemu-img convert -f raw -O qcow2 {file} {unit.lun}")
    tool(f"qemu-img check -q -f qcow2 {unit.lun}")
    tool(f"qemu-img convert -f qcow2 -O raw {unit.lun} {unit.path('back')}")
    same(read_bytes(unit.path("back")), file.read_bytes(), "qemu-img convert to qcow2 and back")
    # A shrunken image, written over, with compression.
    tool(f"qemu-img convert -c -f raw -O qcow2 {file} {unit.lun} && qemu-img check -q -f qcow2 {unit.lun} && qemu-img convert -f qcow2 -O raw {unit.lun} {unit.path('back')}")
    same(read_bytes(unit.path("back")), file.read_bytes(), "qemu-img convert -c to qcow2 and back")
    unit.is_its_backing("qemu-img convert to qcow2")


@row("qemu-img", "qemu-img create -f qcow2 LUN 1G; qemu-io writes; qemu-img snapshot; check", programs=["qemu-img", "qemu-io"])
def a_qcow2_image_lives_on_the_unit(_, unit):
    unit.fill()
    tool(f"qemu-img create -q -f qcow2 {unit.lun} 1G")
    tool(f"qemu-io -f qcow2 -c 'write -P 0x5a 900M 1M' -c 'write -P 0x33 5000 70001' {unit.lun} && qemu-img snapshot -c one {unit.lun} && "
         f"qemu-io -f qcow2 -c 'write -P 0x66 900M 64k' -c 'discard 0 64k' {unit.lun}")
    tool(f"qemu-img check -q {unit.lun}")
    said = tool(f"qemu-io -f qcow2 -c 'read -P 0x66 900M 64k' -c 'read -P 0x5a {900 * MIB + 65536} {MIB - 65536}' -c 'read -P 0 100M 1M' {unit.lun}")
    check("failed" not in said, f"qemu-io: {said}")
    tool(f"qemu-img snapshot -a one {unit.lun}")
    said = tool(f"qemu-io -f qcow2 -c 'read -P 0x5a 900M 1M' -c 'read -P 0x33 5000 70001' {unit.lun}")
    check("failed" not in said, f"qemu-io after going back: {said}")
    unit.is_its_backing("a qcow2 image")


@row("qemu-img", "qemu-img info | map | compare | measure LUN", programs=["qemu-img"])
def qemu_img_tells_the_truth(_, unit):
    content = random_unit(unit)
    unit.path("copy").write_bytes(content)
    said = tool(f"qemu-img info -f raw {unit.lun}")
    check(f"({unit.size} bytes)" in said, f"qemu-img info says {said}")
    tool(f"fallocate -p -o {MIB} -l {2 * MIB} {unit.lun} && fallocate -p -o {MIB} -l {2 * MIB} {unit.path('copy')}")
    tool(f"qemu-img compare -q -f raw -F raw {unit.lun} {unit.path('copy')} && qemu-img compare -q -f raw -F raw {unit.path('copy')} {unit.lun}")
    # Where it says "zero" there are zeros, and all bytes are told of.
    end, content = 0, read_bytes(unit.lun)
    for entry in re.finditer(r'"start": (\d+), "length": (\d+), .*?"zero": (\w+)', tool(f"qemu-img map --output=json -f raw {unit.lun}")):
        start, length = int(entry[1]), int(entry[2])
        equal(start, end, "where the next part of qemu-img map begins")
        end = start + length
        check(entry[3] == "false" or not any(content[start:end]), f"qemu-img map calls bytes from {start} zero")
    equal(end, unit.size, "bytes in qemu-img map")
    tool(f"qemu-img measure -f raw -O qcow2 {unit.lun}")


@row("qemu-img", "qemu-img dd of=LUN; qemu-img resize LUN +1M", programs=["qemu-img"])
def qemu_img_dd_writes_and_resize_refuses(_, unit):
    copies_exactly(unit, "qemu-img dd -f raw -O raw bs=64k if={image} of={lun}", sector=unit.block)
    unit.fill()
    tool(f"qemu-img resize -f raw {unit.lun} +1M", 1, "qemu-img: .*(File too large|shrink|cannot|annot|No space).*")
    unit.holds(b"", "qemu-img resize")


def qemu_io(unit, options, cache):
    unit.fill()
    wanted = bytearray(OLD * unit.size)
    step = unit.block
    commands = []
    for letter, at, length in ((0x5a, 0, MIB), (0x33, 3 * MIB + step, 5 * step), (0x77, unit.size - step, step), (0x12, MIB - step, 3 * step), (0x99, 5 * MIB, 3 * MIB)):
        commands.append(f"aio_write -P {letter} {at} {length}")
        commands.append("aio_flush")
        wanted[at:at + length] = bytes([letter]) * length
    for word, at, length in (("write -z", 2 * MIB, MIB), ("write -z -u", 5 * MIB + step, MIB), ("discard", 7 * MIB, MIB)):
        commands.append(f"{word} {at} {length}")
        wanted[at:at + length] = bytes(length)
    commands += ["flush", f"read -P 0x5a 0 {MIB - step}", f"read -P 0 {2 * MIB} {MIB}", f"write -f -P 0x44 {9 * MIB} {step}"]
    wanted[9 * MIB:9 * MIB + step] = b"\x44" * step
    said = tool(f"qemu-io -f raw {options} -t {cache} -d unmap " + " ".join(f"-c '{command}'" for command in commands) + f" {unit.lun}")
    check("failed" not in said, f"qemu-io says {said}")
    unit.is_exactly(wanted, f"qemu-io {options} -t {cache}")


@row("qemu-io", "qemu-io -i threads -t writeback | none", size=12 * MIB, programs=["qemu-io"])
def qemu_io_with_threads_is_exact(_, unit):
    for cache in ("writeback", "none", "directsync", "unsafe"):
        qemu_io(unit, "-i threads", cache)


@row("qemu-io", "qemu-io -i native -t none (libaio)", size=12 * MIB, programs=["qemu-io"])
def qemu_io_with_libaio_is_exact(_, unit):
    qemu_io(unit, "-i native", "none")


@row("qemu-io", "qemu-io -i io_uring -t none | writeback", size=12 * MIB, programs=["qemu-io"])
def qemu_io_with_io_uring_is_exact(_, unit):
    for cache in ("none", "writeback"):
        qemu_io(unit, "-i io_uring", cache)


@row("qemu-nbd", "qemu-nbd -f raw LUN; nbdcopy", programs=["qemu-nbd", "nbdcopy"])
def qemu_nbd_serves_the_unit(_, unit):
    copies_exactly(unit, "rm -f {image}.sock; qemu-nbd -k {image}.sock -f raw --discard=unmap {lun} & p=$!; until [ -S {image}.sock ]; do sleep 0.01; done; "
                   "nbdcopy --flush {image} 'nbd+unix:///?socket={image}.sock' && wait $p", sector=unit.block)


@row("nbdkit", "nbdkit file LUN; nbdcopy IMAGE to it and back", programs=["nbdkit", "nbdcopy"])
def nbdkit_serves_the_unit(_, unit):
    for options in ("", "fadvise=sequential cache=none"):
        each_copies_exactly(unit, f"nbdkit -U - file {{lun}} {options} --run 'nbdcopy --flush {{options}} {{image}} \"$uri\"'",
                            ("", "--request-size=65536 --connections=4"), unit.block)
    tool(f"nbdkit -U - file {unit.lun} --run 'nbdcopy \"$uri\" {unit.path('back')}'")
    unit.is_exactly(read_bytes(unit.path("back")), "nbdcopy from nbdkit")
    said = tool(f"nbdkit -U - file {unit.lun} --run 'nbdinfo \"$uri\"'")
    for word in ("can_trim: true", "can_zero: true", "can_flush: true", "can_fua: true", "can_multi_conn: true"):
        check(word in said, f"nbdinfo does not say {word!r}")


# ---- fio ----

def fio(unit, options):
    unit.fill()
    tool(f"fio --name=row --filename={unit.lun} --allow_file_create=0 --output-format=terse --size={unit.size} --randseed=7 --verify_fatal=1 --do_verify=1 --verify=crc32c {options}")
    unit.is_its_backing(f"fio {options}")


@row("fio", "fio --ioengine=psync | sync | pvsync2 --verify=crc32c", programs=["fio"], quick=False)
def fio_with_synchronous_engines_is_exact(_, unit):
    for engine in ("psync", "sync", "pvsync2"):
        fio(unit, f"--ioengine={engine} --rw=randwrite --bs=4k")
    fio(unit, "--ioengine=psync --rw=randrw --bsrange=512-64k --blockalign=512 --io_size=4m")


@row("fio", "fio --ioengine=libaio --direct=1 --verify=crc32c", programs=["fio"], quick=False)
def fio_with_libaio_is_exact(_, unit):
    fio(unit, "--ioengine=libaio --direct=1 --iodepth=32 --rw=randwrite --bs=4k")
    fio(unit, "--ioengine=libaio --direct=1 --iodepth=8 --rw=write --bs=1m")


@row("fio", "fio --ioengine=io_uring [--direct=1] --verify=crc32c", programs=["fio"], quick=False)
def fio_with_io_uring_is_exact(_, unit):
    fio(unit, "--ioengine=io_uring --direct=1 --iodepth=32 --rw=randwrite --bs=4k")
    fio(unit, "--ioengine=io_uring --iodepth=32 --rw=randwrite --bs=512 --size=2m")
    fio(unit, "--ioengine=io_uring --registerfiles=1 --fixedbufs=1 --iodepth=4 --rw=write --bs=256k")


@row("fio", "fio --ioengine=posixaio | psync --fsync=16 --verify_backlog=64", programs=["fio"], quick=False)
def fio_with_other_engines_is_exact(_, unit):
    fio(unit, "--ioengine=posixaio --iodepth=8 --rw=randwrite --bs=4k")
    fio(unit, "--ioengine=psync --rw=write --bs=64k --fsync=16 --verify_backlog=64")


@row("fio", "fio --ioengine=falloc (punch holes), --rw=randwrite", programs=["fio"], quick=False)
def fio_with_falloc_zeroes(_, unit):
    unit.fill()
    # Each job of this engine is one kind: here holes, of the first half.
    tool(f"fio --name=row --filename={unit.lun} --allow_file_create=0 --ioengine=falloc --rw=randtrim --bs=64k --size={unit.size // 2} --output-format=terse")
    unit.is_exactly(bytes(unit.size // 2) + OLD * (unit.size // 2), "fio --ioengine=falloc")


@row("fio", "fio --ioengine=mmap", programs=["fio"], quick=False, peers=False)
def fio_cannot_map_the_file(_, unit):
    unit.fill()
    said = tool(f"fio --name=row --filename={unit.lun} --allow_file_create=0 --ioengine=mmap --rw=write --bs=4k --size=64k 2>&1", 1)
    check("No such device" in said, f"fio --ioengine=mmap says {said}")
    unit.holds(b"", "fio --ioengine=mmap")
    return "refused, ENODEV: shared writable mappings need a page cache, which another initiator's writes would make wrong"


@row("fio", "fio --ioengine=libaio --rw=randtrim", programs=["fio"], quick=False)
def fio_cannot_discard_a_file(_, unit):
    unit.fill()
    tool(f"fio --name=row --filename={unit.lun} --allow_file_create=0 --ioengine=libaio --rw=randtrim --bs=64k --size=1m", 1, ".*")
    unit.holds(b"", "fio --rw=randtrim")
    return "impossible: fio discards with an ioctl that the kernel offers for block devices only; use --ioengine=falloc, or losetup"


@row("fio", "fio --directory=DIRECTORY", programs=["fio"], quick=False, peers=False)
def fio_cannot_make_files(_, unit):
    tool(f"fio --name=row --directory={unit.lun.parent} --rw=write --bs=4k --size=64k", 1, f".*{EPERM}.*")
    unit.holds(b"", "fio --directory")
    return NAMES + " (EPERM): use --filename="


# ---- exercisers of files: those of xfstests, where they have been put into the PATH; Debian has no package of them ----

@row("fsx", "fsx -L -R -W LUN; -Z (O_DIRECT) | -y -c 100", programs=["fsx"], quick=False)
def fsx_finds_no_difference(_, unit):
    unit.fill()
    for options in ("-N 2000", f"-N 1000 -Z -r {unit.block} -w {unit.block}", "-N 500 -y -c 100 -o 200000"):
        tool(f"fsx -q -S 7 -L -R -W -P {unit.directory} {options} {unit.lun}", says=None)
        unit.is_its_backing(f"fsx {options}")


@row("fsx", "fsx LUN (with truncations)", programs=["fsx"], quick=False, peers=False)
def fsx_wants_a_file_that_grows(_, unit):
    unit.fill()
    said = tool(f"fsx -q -S 7 -N 10 -R -W -P {unit.directory} {unit.lun} 2>&1", 130)
    check("no extend on truncate" in said, f"fsx says {said}")
    return "impossible: a device keeps its size, which fsx compares with what it has truncated it to; use -L"


# ---- databases and their like, on the file itself ----

@row("sqlite3", "cat DATABASE > LUN; sqlite3 LUN, with journal_mode=memory", programs=["sqlite3"])
def sqlite_works_on_the_file_itself(_, unit):
    unit.fill()
    database = unit.path("database")
    tool(f"sqlite3 {database} 'create table t(a, b); insert into t values (1, 2);' && cat {database} > {unit.lun}")
    for turn in (1, 2):
        said = tool(f"sqlite3 {unit.lun} \"pragma journal_mode=memory; pragma synchronous=full; with recursive c(x) as (select 1 union all select x+1 from c where x<3000) "
                    "insert into t select x, hex(randomblob(50)) from c; delete from t where a % 3 = 0; vacuum; pragma integrity_check; select count(*) from t;\"")
        equal(said.split(), ["memory", "ok", str(1 + turn * 2000)], "what sqlite3 says")
    equal(tool(f"sqlite3 {unit.lun} 'pragma integrity_check; select count(*), sum(a) from t;'").split(), ["ok", f"4001|{1 + 2 * (4501500 - 3 * 500500)}"], "sqlite3 again")
    unit.is_its_backing("sqlite3")
    database.write_bytes(read_bytes(unit.lun))
    equal(tool(f"sqlite3 {database} 'select count(*) from t;'").strip(), "4001", "a copy of the database")


@row("sqlite3", "sqlite3 LUN, a new database, or a journal beside it", programs=["sqlite3"], peers=False)
def sqlite_makes_no_database_or_journal(_, unit):
    unit.fill()
    tool(f"sqlite3 {unit.lun} 'create table t(a);'", 26, ".*file is not a database.*")
    unit.holds(b"", "sqlite3")
    return "impossible: a new database is an empty file, and a device is never empty; " + NAMES
