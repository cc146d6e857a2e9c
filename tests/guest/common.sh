# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2034
#
# What prepare, boot and run share: where things are, what the guest is made of, and a few words to say.
# Sourced, never run. Everything in here is for the host side; the guest's own library is lib.sh.

guest_dir=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
top_dir=$(cd -- "$guest_dir/../.." && pwd)
newer_suite=forky                    # of Debian, whose kernel the tests of newer/ need
cache_dir=${SRPFS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/srpfs}/guest

# Debian packages the host needs: those that make and boot the guest, and those whose programs go into it.
packages=(
    bash busybox-static coreutils cpio diffutils dmsetup dpkg e2fsprogs fio fuse3 ibverbs-providers iproute2 kmod
    libfuse3-3 libibverbs1 librdmacm1 lvm2 mdadm mount qemu-system-x86 rdma-core sg3-utils util-linux xz-utils zstd
)

# Programs of the guest, besides busybox's applets. The tools a user would type are the real ones, because busybox's
# dd, mount and losetup open files in their own way.
programs=(
    base64 bash blockdev cat cmp cp dd df dmsetup env fallocate fio flock fusermount3 head ip kmod ls losetup lvm md5sum
    mdadm mkfs.ext4 mount mount.fuse mount.fuse3 od rdma sg_inq sg_luns sg_persist sg_raw sg_readcap sg_reset sg_vpd sha256sum sort stat
    stdbuf sync tail tc timeout tr truncate umount
)

# Kernel modules of the guest; what they depend on comes along.
modules=(
    9p 9pnet_virtio brd btrfs configfs dm_crypt dm_mod ext4 fuse ib_srp ib_srpt ib_umad ib_uverbs loop null_blk
    overlay raid1 rdma_cm rdma_rxe rdma_ucm scsi_debug sch_netem sd_mod sg target_core_file target_core_iblock target_core_mod veth
    virtio_net virtio_pci xfs
)
# Modules that newer kernels have built in, or under other names.
modules_of_some_kernels=(aesni_intel crc32_generic crc32c_generic crct10dif_generic ecb xts)

say() { printf 'guest: %s\n' "$*"; }
die() { printf 'guest: %s\n' "$*" >&2; exit 1; }

as_root() {
    if ((EUID == 0)); then "$@"
    elif command -v sudo >/dev/null; then sudo -- "$@"
    else die "this needs root: $*"
    fi
}

# copy_with_libraries ROOT FILE PATH: FILE becomes ROOT/PATH, and the libraries it is linked with come to their places.
copy_with_libraries() {
    local root=$1 file=$2 path=$3 library
    mkdir -p "$root/$(dirname -- "$path")"
    cp -L --preserve=mode -- "$file" "$root/$path"
    # ldd fails on scripts and static programs, which need nothing.
    while read -r library; do
        [[ -e $root/$library ]] && continue
        mkdir -p "$root/$(dirname -- "$library")"
        cp -L --preserve=mode -- "$library" "$root/$library"
    done < <(ldd "$file" 2>/dev/null | sed -n 's/^[^/]*\(\/[^ ]*\) (0x.*/\1/p' | xargs -r realpath -s |
             sed 's,^/lib,/usr/lib,; s,^/usr/usr/,/usr/,')
}

# pack ROOT FILE: a newc archive of ROOT, everything owned by root.
pack() {
    (cd -- "$1" && find . -mindepth 1 -printf '%P\n' | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$2"
}
