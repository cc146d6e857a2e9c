# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034,SC2086  # variables of lib.sh, without blanks
#
# The verification steps ib_srp's users know, typed as they would type them, with srpfs's tree in place of sysfs. Each can
# be run alone: see ../steps.

# Step 1: the initiator logs in.
test_srpfs_step_1_login() {
    srpfs_mount none
    typed 30 "echo '$login_string' > $port_directory/add_target"
    typed 10 "ls $port_directory/*/"
    typed 10 "cat $(srpfs_target)/state"
    expect_file "$(srpfs_target)/state" running
    expect_match "the log" "$(srpfs_said)" \
        "new target: id_ext $guid ioc_guid $guid .*sgid fe80:0000:0000:0000:0000:00ff:fe00:0009 dest $address"
}

# Step 2: a LUN is reset while programs use it. The target's log shows the reset, the programs notice nothing.
test_srpfs_step_2_lun_reset() {
    local target lines
    srpfs_mount "$login_string,ch_count=2"
    target=$(srpfs_target)
    history_starts 60 --all-must-succeed
    dmesg -c >/dev/null
    lines=$(wc -l <$srpfs_log)
    typed 15 "echo lun > $target/lun1.attr/reset"
    typed 15 "dmesg | grep 'recv tsk_mgmt fn 8'"            # 8: LOGICAL UNIT RESET
    typed 15 "echo lun > $target/lun4.attr/reset"
    typed 15 "echo 1 > $target/lun0.attr/reset"
    # Three were asked for; a write that one of them has left without an answer is fenced with another. The target has
    # seen what srpfs says it has sent, and nothing else.
    new_log() { tail -n "+$((lines + 1))" $srpfs_log; }
    expect_equal "resets asked for" "$(new_log | grep -c 'SRP reset_device called')" 3
    expect_equal "resets the target has seen" "$(dmesg | grep -c 'recv tsk_mgmt fn 8')" "$(new_log | grep -c 'LUN RESET of .* sent')"
    expect_match "the log" "$(srpfs_said)" 'LUN RESET of lun1 complete'
    kill -TERM $history
    history_ends 60
    expect_file "$target/state" running
    srpfs_umount
}

# Step 3: data are what was written, by sixty-four threads: through a file system on a loop device, and directly.
limit[srpfs_step_3_data_integrity]=150
limit_full[srpfs_step_3_data_integrity]=1500
test_srpfs_step_3_data_integrity() {
    local lun disk seconds options
    seconds=$(short_or_full 3 600)
    options="--eta=never --name=test --verify=md5 --rw=randwrite --size=128k --bs=4k --loops=10000 --runtime=$seconds"
    options+=" --time_based --sync=1 --direct=1 --ioengine=psync --thread --numjobs=64 --group_reporting --verify_fatal=1"
    srpfs_mount "$login_string"
    lun=$(srpfs_target)/lun1
    modprobe ext4
    mkdir -p /mnt/above
    typed 60 "mkfs.ext4 -q -F -O ^has_journal $lun"
    typed 60 "mount -o loop $lun /mnt/above"
    typed $((seconds + 90)) "fio $options --directory=/mnt/above --output=fio.out" || { tail -n 20 fio.out; fail "fio failed"; }
    (cd /mnt/above && md5sum test.*) >sums
    typed 60 "umount /mnt/above"
    typed $((seconds + 90)) "fio $options --filename=$(srpfs_target)/lun0 --offset_increment=128k --output=fio.out" ||
        { tail -n 20 fio.out; fail "fio failed on the LUN itself"; }
    typed 15 "umount $mount_point"
    srpfs_wait_end
    # The kernel's initiator finds the same file system.
    kernel_login
    disk=$(kernel_disk 1)
    within 30 mount -o ro "$disk" /mnt/above
    (cd /mnt/above && md5sum --quiet -c "$scratch/sums") || fail "files differ through the kernel's initiator"
    within 30 umount /mnt/above
}

# Step 4: the target logs out, stays away, and comes back; then it stays away for good.
test_srpfs_step_4_target_logout() {
    local target inode
    srpfs_mount "$login_string"
    target=$(srpfs_target)
    quick_timers 5 600
    put "$target/lun1" shadow 0:65536
    inode=$(stat -c %i "$target/lun1")
    exec 8<>"$target/lun1"
    typed 15 "echo 0 > $tpg/enable"
    wait_for 5 "state blocked" state_is blocked
    expect_match "the log" "$(srpfs_said)" 'disconnected|connection closed'
    typed 15 "echo 1 > $tpg/enable"
    wait_for 20 "state running again" state_is running
    # It is the same file, and who has it open goes on.
    expect_equal "the inode number" "$(stat -c %i "$target/lun1")" "$inode"
    within 10 dd bs=64k count=1 status=none of=found <&8 || fail "the open file does not read"
    expect_same "what the open file has" found shadow -n 65536
    get "$target/lun1" shadow 0:65536

    typed 15 "echo 2 > $target/fast_io_fail_tmo"
    typed 15 "echo 6 > $target/dev_loss_tmo"
    typed 15 "echo 0 > $tpg/enable"
    wait_for 20 "the target's directory gone" test ! -e "$target"
    expect_match "the log" "$(srpfs_said)" 'dev_loss_tmo expired'
    ! within 10 dd of=/dev/null bs=4096 count=1 status=none <&8 2>error || fail "the open file still reads"
    expect_match "its error" "$(<error)" 'No such device'
    exec 8>&-
    typed 15 "echo 1 > $tpg/enable"
}

# Step 5: the initiator logs out.
test_srpfs_step_5_logout() {
    no_qps
    srpfs_mount "$login_string"
    [[ -e $(srpfs_target)/lun0 ]] || fail "no lun0"
    typed 30 "for d in $mount_point/srp-*/*/delete; do echo 1 > \$d; done"
    wait_for 10 "the target's directory gone" test ! -e "$(srpfs_target)"
    expect_match "the log" "$(srpfs_said)" 'connection closed|logged out'
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

# Step 9: one path logs out and in for ever, while verified I/O goes through another port of the target; nothing is
# left behind.
limit[srpfs_step_9_relogin]=240
limit_full[srpfs_step_9_relogin]=14400
test_srpfs_step_9_relogin() {
    local target cycle cycles before output
    cycles=$(short_or_full 100 10000)
    second_port_up
    # Ten thousand cycles take hours, in which an emulated guest may stand still for longer than a silent target may.
    srpfs_mount none -o tur_interval=20,tur_timeout=60
    target=$(srpfs_target)
    typed 30 "echo '$second_login_string' > $mount_point/add_target"
    expect_file "$second_target/state" running
    srpfs-history --all-must-succeed 14400 "$second_target/lun1" >history 2>&1 &
    history=$!
    for ((cycle = 1; cycle <= cycles; cycle++)); do
        # No program is started where the shell can do it: that costs more than a login here.
        echo "$login_string,ch_count=2" >$mount_point/add_target || fail "cycle $cycle: $(<$mount_point/last_error)"
        [[ -e $target/lun0 ]] || fail "cycle $cycle: no lun0 after the login"
        ((cycle % 100)) || progress "$cycle logins"
        if ((cycle % 10 == 0)); then
            within 10 dd if="$target/lun0" of=/dev/null bs=64k count=1 status=none
            ! has_ended $history || fail "cycle $cycle: $(<history)"
        fi
        # What a logged-in target costs is the same once and after many. Past connections take a moment to be freed.
        if ((cycle == 5 || cycle == cycles)); then
            wait_for 30 "queue pairs of past logins freed" srpfs_has_qps 3
        fi
        if ((cycle == 5)); then
            sleep 1
            before=$(held_by_srpfs)
            note "held after 5 logins: $before; $(grep -E 'VmRSS|Threads' "/proc/$srpfs_pid/status")"
        fi
        if ((cycle == cycles)); then
            note "held after $cycles logins: $(held_by_srpfs); $(grep -E 'VmRSS|Threads' "/proc/$srpfs_pid/status")"
            wait_for 10 "as much held as after 5 logins ($before)" holds "$before"
            # Worker threads come as they are needed, up to a small number.
            (($(find "/proc/$srpfs_pid/task" -mindepth 1 -maxdepth 1 | wc -l) <= 12)) || fail "too many threads"
        fi
        echo 1 >"$target/delete"
        wait_for 10 "cycle $cycle: directory gone" test ! -e "$target"
    done
    kill -TERM $history
    history_ends 60
    srpfs_umount
    no_qps
    output=$(second_port_down 2>&1) || fail "the second port does not go: $output"
}
