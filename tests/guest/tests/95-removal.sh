# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034,SC2086  # variables of lib.sh, without blanks
#
# The RDMA device goes away. Last of all, because LIO's target does not come back with it.

limit[srpfs_device_removed_under_load]=120
spends_guest[srpfs_device_removed_under_load]=yes
test_srpfs_device_removed_under_load() {
    local target status=0 remover
    srpfs_mount "$login_string,ch_count=2"
    target=$(srpfs_target)
    quick_timers 3 600
    srpfs-history --patience 2 8 "$target/lun1" "$target/lun4" >history 2>&1 &
    history=$!
    sleep 2
    rdma link del $rdma_device &
    remover=$!
    # Nobody hangs: I/O ends in an error, srpfs goes on, and can be left.
    wait_for 40 "srpfs-history ended" has_ended $history
    wait $history || status=$?
    cat history
    ((status == 4)) || fail "srpfs-history ended with $status instead of 4, the end could not be read"
    ! has_ended "$srpfs_pid" || fail "srpfs ended"
    cat $mount_point/version
    ! state_is running || fail "the state is still running"
    # LIO is told of the removal first and disconnects. A program that has no connection left is told nothing, and rxe
    # cannot take the device from it: then the removal waits for the program's end.
    if has_ended $remover; then note "removed at once"; else note "the removal waits for srpfs's end"; fi
    srpfs_umount
    wait_for 40 "rdma link del ended" has_ended $remover
    wait $remover || fail "rdma link del failed"
    expect_equal "queue pairs" "$(qp_count)" 0
}
