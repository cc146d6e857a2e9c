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

# in_group COMMAND...: inside the control group.
in_group() { (echo "$BASHPID" >$group/cgroup.procs && exec "$@"); }

memory_ran_out() { (($(sed -n 's/^oom_kill //p' $group/memory.events) > 1)); }
group_is_empty() { [[ ! $(<$group/cgroup.procs) ]]; }

# A file system on a loop device above a LUN file, written while the memory of the control group, in which srpfs is as well, is used up:
# writing back must not wait for memory that only writing back gives. On LIO; tests/mount has it with the embedded target, where it may lock
# no memory.
limit[srpfs_writes_back_while_memory_runs_out]=150
test_srpfs_writes_back_while_memory_runs_out() {
    local group=/sys/fs/cgroup/small loop turn tries stat flags hogs=()
    modprobe -a loop ext4
    mkdir -p /sys/fs/cgroup /mnt/above
    mountpoint_is /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup
    echo +memory >/sys/fs/cgroup/cgroup.subtree_control
    mkdir -p $group
    echo 144M >$group/memory.max
    echo "$BASHPID" >$group/cgroup.procs
    srpfs_mount "$login_string" -o memory_lock=on,memory=24M,park=8M
    echo "$BASHPID" >/sys/fs/cgroup/cgroup.procs
    grep -qx "$srpfs_pid" $group/cgroup.procs || fail "srpfs is not in the control group"
    expect_file /proc/$srpfs_pid/oom_score_adj -1000
    (($(sed -n 's/^VmLck:[[:blank:]]*\([0-9]*\) kB/\1/p' /proc/$srpfs_pid/status) > 0)) || fail "no memory is locked"
    # PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE are what PR_SET_IO_FLUSHER sets.
    for stat in "/proc/$srpfs_pid/task/"*/stat; do
        read -r _ _ _ _ _ _ flags _ < <(sed 's/^.*) //' $stat)
        (((flags & 0x180000) == 0x180000)) || fail "a thread waits for memory that is being written back: $(<$stat)"
    done
    loop=$(losetup --find --show "$(srpfs_target)/lun1")
    typed 60 "mkfs.ext4 -q -F $loop"
    typed 60 "mount $loop /mnt/above"
    head -c 3000001 $pattern >wanted
    for turn in 1 2; do
        # shellcheck disable=SC2016
        in_group bash -c 'while [[ ! -e "$1" ]]; do (echo 1000 >/proc/self/oom_score_adj; exec tail /dev/zero) 2>/dev/null; done; :' - "$PWD/enough" \
            >/dev/null 2>&1 &
        hogs+=($!)
    done
    wait_for 60 "memory has run out" memory_ran_out
    for turn in 1 2 3 4; do
        # It may be what is killed for want of memory, too.
        for ((tries = 0; tries < 50; tries++)); do
            if in_group dd if=wanted of=/mnt/above/file$((turn % 3)) bs=64k conv=fsync status=none 2>error; then break; fi
            ((tries < 49)) || fail "dd in turn $turn: $(<error)"
        done
    done
    touch enough
    # The last ones end by themselves, for want of memory.
    wait "${hogs[@]}" || true
    wait_for 60 "only srpfs in the control group" only_srpfs
    typed 60 "umount /mnt/above"
    typed 60 "mount -o ro $loop /mnt/above"
    for turn in 0 1 2; do expect_same "file$turn" /mnt/above/file$turn wanted; done
    typed 60 "umount /mnt/above"
    losetup -d $loop
    srpfs_umount
    wait_for 15 "an empty control group" group_is_empty
    rmdir $group
}

only_srpfs() { [[ $(<$group/cgroup.procs) == "$srpfs_pid" ]]; }
