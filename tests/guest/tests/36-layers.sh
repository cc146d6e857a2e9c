# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034,SC2086  # variables of lib.sh, without blanks
#
# What needs more of a kernel than tests/tools can count on: md and LVM above loop devices above LUN files.

# A mirror of a 512-byte and a 4096-byte unit, a volume on it, a file system in that. A half holds the file afterwards (--full: both do),
# read from the target's backing alone.
limit[srpfs_under_md_and_lvm]=150
test_srpfs_under_md_and_lvm() {
    local one two lun half config
    config='devices { use_devicesfile=0 filter=["a|/dev/md9|","r|.*|"] } activation { udev_sync=0 udev_rules=0 }'
    lvm_of() { typed 60 "lvm $1 --config '$config' ${*:2}"; }
    modprobe -a loop ext4 dm_mod raid1
    srpfs_mount "$login_string"
    one=$(losetup --find --show "$(srpfs_target)/lun1")
    two=$(losetup --find --show "$(srpfs_target)/lun4")
    typed 60 "mdadm --create /dev/md9 --run --metadata=1.2 --level=1 --raid-devices=2 $one $two"
    lvm_of vgcreate tools /dev/md9
    lvm_of lvcreate -y -Zn -L 8M -n volume tools
    typed 60 "mkfs.ext4 -q -F /dev/mapper/tools-volume"
    mkdir -p /mnt/above
    typed 60 "mount /dev/mapper/tools-volume /mnt/above"
    head -c 5000001 $pattern >wanted
    typed 60 "cp wanted /mnt/above/file"
    typed 60 "umount /mnt/above"
    typed 60 "mount -o ro /dev/mapper/tools-volume /mnt/above"
    expect_same "a file in the volume" /mnt/above/file wanted
    typed 60 "umount /mnt/above"
    lvm_of vgchange -a n tools
    typed 60 "mdadm --wait-clean /dev/md9; mdadm --stop /dev/md9"
    losetup -d $one
    losetup -d $two
    srpfs_umount
    for lun in $(short_or_full 4 '1 4'); do
        read_backing $lun backing
        half=$(losetup --find --show backing)
        typed 60 "mdadm --assemble --run /dev/md9 $half"
        lvm_of vgchange -a y tools
        typed 60 "mount -o ro /dev/mapper/tools-volume /mnt/above"
        expect_same "the file, from the backing of LUN $lun" /mnt/above/file wanted
        typed 60 "umount /mnt/above"
        lvm_of vgchange -a n tools
        typed 60 "mdadm --stop /dev/md9"
        losetup -d $half
    done
}
