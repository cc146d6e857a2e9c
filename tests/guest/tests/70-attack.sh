# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034,SC2086  # variables of lib.sh, without blanks
#
# Trouble while programs write and read. srpfs-history knows what every byte may be: the last acknowledged write, or one
# that failed after it.

# history_starts SECONDS [OPTION]: on two LUNs, of 512-byte and of 4096-byte blocks.
history_starts() {
    local seconds=$1 target
    shift
    target=$(srpfs_target)
    srpfs-history "$@" "$seconds" "$target/lun1" "$target/lun4" >history 2>&1 &
    history=$!
    sleep 2
    ! has_ended $history || fail "srpfs-history ended at once: $(cat history)"
}

history_ends() {        # SECONDS
    local status=0
    wait_for "$1" "srpfs-history ended" has_ended $history
    wait $history || status=$?
    cat history
    ((status == 0)) || fail "srpfs-history ended with $status: $(tail -n 6 history)"
}

# The outage is shorter than fast_io_fail_tmo: reads wait and go on; a write that was on its way may end in EIO.
test_srpfs_outage_under_load() {
    local outage listener
    srpfs_mount "$login_string,ch_count=2"
    quick_timers 40 600
    cat $mount_point/events >events &
    listener=$!
    history_starts 10 --reads-must-succeed
    for outage in 1 2; do
        lio_enable 0
        wait_for 5 "state blocked" state_is blocked
        sleep 1
        lio_enable 1
        wait_for 20 "state running again" state_is running
        sleep 1
    done
    history_ends 50
    ! grep -vE '^(write: Input/output error|.* writes, .* reads,)' history || fail "other errors than EIO of writes"
    # Nothing of the lost connections stays, at either end.
    wait_for 15 "queue pairs of lost connections freed" has_qps 4
    kill -TERM $listener
    cat events
    expect_match "events" "$(<events)" 'blocked'
    srpfs_umount
}

# Killed with writes on their way; the next srpfs finds every acknowledged byte.
test_srpfs_killed_under_load() {
    srpfs_mount "$login_string,ch_count=2"
    history_starts 8
    kill -KILL "$srpfs_pid"
    wait_for 10 "srpfs process gone" test ! -d "/proc/$srpfs_pid"
    # Programs get errors now, and nobody hangs; umount(8) cleans up.
    ! within 10 cat $mount_point/version >/dev/null 2>error || fail "the tree still answers"
    expect_match "its error" "$(<error)" 'Transport endpoint is not connected'
    within 10 umount -l $mount_point || fail "umount after kill -9 failed"
    sleep 1
    srpfs_mount "$login_string,ch_count=2"
    history_ends 60
    srpfs_umount
    no_qps
}

# Logged in again many times by the target's reset, with nothing left behind.
limit[srpfs_many_resets]=240
test_srpfs_many_resets() {
    local target cycle cycles before
    cycles=$(short_or_full 20 100)
    srpfs_mount "$login_string,ch_count=2"
    target=$(srpfs_target)
    for ((cycle = 1; cycle <= cycles; cycle++)); do
        echo host >"$target/reset"
        wait_for 15 "cycle $cycle: state running" state_is running
        if ((cycle == 5)); then
            wait_for 15 "queue pairs of past logins freed" srpfs_has_qps 2
            sleep 1
            before=$(held_by_srpfs)
        fi
    done
    wait_for 15 "as much held as after 5 resets ($before)" holds "$before"
    within 10 dd if="$target/lun0" of=/dev/null bs=64k count=1 status=none
    srpfs_umount
    no_qps
}

# Two srpfs beside each other, and the kernel's initiator as a third, all at work on LUNs of their own.
test_srpfs_side_by_side() {
    local other=/mnt/other target
    mkdir -p $other
    srpfs_mount "$login_string"
    within 60 srpfs "$login_string,initiator_ext=00000000000000ab" $other || fail "the second srpfs does not mount"
    kernel_login
    history_starts 6 --reads-must-succeed
    cp $pattern shadow
    target=$other/srp-$rdma_device-1/$guid-$guid-00000000000000ab
    put "$target/lun2" shadow "${whole_blocks[@]}" "${sectors[@]}" "${odd_ranges[@]}"
    kernel_login initiator_ext=00000000000000ef || fail "ib_srp: $kernel_error"
    get "$target/lun2" shadow 5:1 513:511 333:1000
    echo 1 >$target/delete
    wait_for 10 "the other's directory gone" test ! -e $target
    history_ends 60
    expect_file "$(srpfs_target)/state" running
    within 30 umount $other
    srpfs_umount
}

# The link away for a second, too short for anybody's connection manager to speak meanwhile.
test_srpfs_link_down_one_second_under_load() {
    srpfs_mount "$login_string,ch_count=2"
    quick_timers 40 600
    history_starts 8 --reads-must-succeed
    ip link set $netdev down
    sleep 1
    ip link set $netdev up
    history_ends 70
    wait_for 20 "state running" state_is running
    srpfs_umount
}
