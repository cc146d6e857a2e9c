# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2086  # variables of lib.sh, without blanks
#
# The rows of tests/tools in the guest, on units of LIO's. The tools are the host's: boot shows its /usr to the guest, read-only, and
# here it gets a root directory around it, with what a program may want to find besides. Sourced, after lib.sh.

tools_root=/tools

tools_up() {
    local directory
    modprobe -a virtio_pci 9p 9pnet_virtio loop ext4
    wait_for 10 "the host's /usr" usr_is_there
    mkdir -p $tools_root
    mount -t tmpfs tools $tools_root
    mkdir -p $tools_root/{usr,etc,dev,proc,sys,run,lun,guest,mnt/srp,srpfs,root} $tools_root/{tmp,var/tmp,var/lib}
    chmod 1777 $tools_root/tmp $tools_root/var/tmp
    for directory in bin sbin lib lib64; do ln -s usr/$directory $tools_root/$directory; done
    ln -s /run $tools_root/var/run
    cp -a /etc/. /guest/host/etc/. $tools_root/etc/
    cp /usr/bin/srpfs $tools_root/srpfs/
    mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose usr $tools_root/usr
    for directory in dev proc sys run lun guest; do mount --rbind /$directory $tools_root/$directory; done
}

usr_is_there() { grep -qs usr /sys/bus/virtio/drivers/9pnet_virtio/*/mount_tag; }

# For rows that every change need not pass.
more_kernel() { modprobe -a xfs btrfs dm_mod dm_crypt raid1; }

# What a row has not come to end: all its processes, srpfs as well, and the file systems above it.
tools_end() {
    local directory point
    for directory in /proc/[0-9]*; do
        [[ $(readlink "$directory/root") != "$tools_root" ]] || kill -KILL "${directory##*/}" || true
    done
    while read -r point; do umount -l "$point"; done < <(sed -n "s,^[^ ]* \($tools_root/tmp/[^ ]*\) .*,\1,p" /proc/mounts | sort -r)
}

tools_down() {
    [[ ! -x $tools_root/guest/units ]] || in_tools /guest/units remove
    umount -R -l $tools_root
    rmdir $tools_root
}

tools_are_up() { mountpoint_is $tools_root; }

# in_tools COMMAND...: among the host's programs.
in_tools() {
    export tpg guid login_string
    PATH=/srpfs:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin TMPDIR=/tmp chroot $tools_root "$@"
}

# run_tools [OPTION...] [ROW...]: as tests/tools/run.
run_tools() { in_tools /guest/host/tests/tools/run --build /srpfs --units /guest/units "$@"; }

# tools_alone [OPTION...] [ROW...]: all of it, in a guest that does nothing else.
tools_alone() {
    set -e
    mkdir -p $scratch
    cd $scratch
    modprobe fuse
    mount -t fusectl fusectl /sys/fs/fuse/connections
    target_up
    tools_up
    more_kernel
    run_tools "$@"
}
