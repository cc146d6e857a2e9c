# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034,SC2086  # variables of lib.sh, without blanks
#
# The verification steps ib_srp's users know, typed as they would type them, with srpfs's tree in place of sysfs. (Step 2
# is the reset of a LUN; 4, 7 and 8 are lost connections; 9 is multipath.)

# Step 1: the initiator logs in.
test_srpfs_step_1_login() {
    srpfs_mount none
    typed 30 "echo '$login_string' > $port_directory/add_target"
    typed 10 "ls $port_directory/*/"
    typed 10 "cat $(srpfs_target)/state"
    expect_file "$(srpfs_target)/state" running
    expect_match "the log" "$(<$srpfs_log)" \
        "new target: id_ext $guid ioc_guid $guid .*sgid fe80:0000:0000:0000:0000:00ff:fe00:0009 dest $address"
}

# Step 3: data are what was written, through a file system and sixty-four threads.
limit[srpfs_step_3_data_integrity]=150
test_srpfs_step_3_data_integrity() {
    local lun disk
    srpfs_mount "$login_string"
    lun=$(srpfs_target)/lun1
    modprobe ext4
    mkdir -p /mnt/above
    typed 60 "mkfs.ext4 -q -F -O ^has_journal $lun"
    typed 60 "mount -o loop $lun /mnt/above"
    typed 120 "fio --eta=never --verify=md5 --rw=randwrite --size=128k --bs=4k --loops=1000 --runtime=20 --time_based --sync=1 --direct=1 \
        --ioengine=psync --directory=/mnt/above --name=test --thread --numjobs=64 --group_reporting --verify_fatal=1 \
        --output=$scratch/fio.out" || { tail -n 20 fio.out; fail "fio failed"; }
    (cd /mnt/above && md5sum test.*) >sums
    typed 60 "umount /mnt/above"
    typed 15 "umount $mount_point"
    srpfs_wait_end
    # The kernel's initiator finds the same file system.
    kernel_login
    disk=$(kernel_disk 1)
    within 30 mount -o ro "$disk" /mnt/above
    (cd /mnt/above && md5sum --quiet -c "$scratch/sums") || fail "files differ through the kernel's initiator"
    within 30 umount /mnt/above
}

# Step 5: the initiator logs out.
test_srpfs_step_5_logout() {
    no_qps
    srpfs_mount "$login_string"
    [[ -e $(srpfs_target)/lun0 ]] || fail "no lun0"
    typed 30 "for d in $mount_point/srp-*/*/delete; do echo 1 > \$d; done"
    wait_for 10 "the target's directory gone" test ! -e "$(srpfs_target)"
    expect_match "the log" "$(<$srpfs_log)" 'connection closed|logged out'
    no_qps
    # An open file of a LUN that is gone: ENODEV, not a hang, and not another LUN's data after the next login.
    srpfs_login
    exec 8<>"$(srpfs_target)/lun1"
    typed 30 "echo 1 > $(srpfs_target)/delete"
    srpfs_login
    ! within 10 dd of=/dev/null bs=4096 count=1 status=none <&8 2>error || fail "the old file still reads"
    expect_match "reading the old file" "$(<error)" 'No such device'
    exec 8>&-
}

# Step 6: the timers, with the kernel's rules; fast_io_fail_tmo first, because it must be below dev_loss_tmo.
test_srpfs_step_6_timers() {
    local target
    srpfs_mount "$login_string"
    target=$(srpfs_target)
    typed 10 "grep . $target/*_tmo $target/reconnect_delay"
    expect_file "$target/dev_loss_tmo" 600
    expect_file "$target/fast_io_fail_tmo" 15
    expect_file "$target/reconnect_delay" 10
    expect_match "dev_loss_tmo not above fast_io_fail_tmo" "$(write_refused "$target/dev_loss_tmo" 15)" '^Invalid argument$'
    typed 10 "echo 10 > $target/fast_io_fail_tmo"
    typed 10 "echo 15 > $target/dev_loss_tmo"
    expect_file "$target/fast_io_fail_tmo" 10
    expect_file "$target/dev_loss_tmo" 15
    typed 10 "echo off > $target/dev_loss_tmo"
    expect_file "$target/dev_loss_tmo" off
    expect_match "reconnect_delay 0" "$(write_refused "$target/reconnect_delay" 0)" '^Invalid argument$'
    typed 10 "echo off > $target/fast_io_fail_tmo"
    expect_match "all three off" "$(write_refused "$target/reconnect_delay" off)" '^Invalid argument$'
    expect_match "fast_io_fail_tmo 601" "$(write_refused "$target/fast_io_fail_tmo" 601)" '^Invalid argument$'

    # The kernel's initiator judges the same values in the same way, from the same start.
    local value file ours theirs
    kernel_login
    for value in reconnect_delay:10 dev_loss_tmo:off fast_io_fail_tmo:15 dev_loss_tmo:600; do
        write_file "$target/${value%:*}" "${value#*:}"
        write_file "$kernel_port/${value%:*}" "${value#*:}"
    done
    for file in reconnect_delay fast_io_fail_tmo dev_loss_tmo; do
        for value in 5 off 600 601 0 -1 0x14 abc 12x 20; do
            ours=taken theirs=taken
            { echo "$value" >"$target/$file"; } 2>/dev/null || ours=refused
            { echo "$value" >"$kernel_port/$file"; } 2>/dev/null || theirs=refused
            expect_equal "$value written to $file" "$ours" "$theirs"
            expect_equal "$file after that" "$(<"$target/$file")" "$(<"$kernel_port/$file")"
        done
    done
}
