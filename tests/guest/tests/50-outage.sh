# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034,SC2086  # variables of lib.sh, without blanks
#
# The target goes away and comes back. Only by disabling it: a CM message sent while the link is down would leave the
# guest's rxe useless.

quick_timers() {        # FAST-IO-FAIL DEV-LOSS
    local target
    target=$(srpfs_target)
    write_file "$target/reconnect_delay" 2
    write_file "$target/fast_io_fail_tmo" "$1"
    write_file "$target/dev_loss_tmo" "$2"
}

test_srpfs_target_disabled_and_enabled() {
    local target status=0 started
    srpfs_mount "$login_string"
    target=$(srpfs_target)
    quick_timers 4 600
    put "$target/lun1" shadow 0:65536
    lio_enable 0
    wait_for 3 "state blocked" state_is blocked
    # A read that starts now waits, and ends in EIO when fast_io_fail_tmo is over.
    started=$(milliseconds)
    within 20 dd if="$target/lun1" of=/dev/null bs=4096 count=1 status=none 2>error || status=$?
    expect_equal "status of a read while blocked" "$status" 1
    expect_match "its error" "$(<error)" 'Input/output error'
    (($(milliseconds) - started < 10000 * patience)) || fail "EIO came after $(($(milliseconds) - started)) ms"
    wait_for 3 "state fail-fast" state_is fail-fast
    expect_file "$target/lun1.attr/state" offline
    lio_enable 1
    wait_for 15 "state running again" state_is running
    get "$target/lun1" shadow 0:65536
    put "$target/lun1" shadow 4096:8192
    get "$target/lun1" shadow 0:65536
    expect_file "$target/failed_reconnects" 0
}

# Back before fast_io_fail_tmo: a read that was waiting is answered as if nothing had been.
test_srpfs_short_outage_is_not_noticed() {
    local target reader status=0
    srpfs_mount "$login_string"
    target=$(srpfs_target)
    quick_timers 30 600
    cp /lun/file512 shadow
    lio_enable 0
    wait_for 3 "state blocked" state_is blocked
    dd if="$target/lun1" of=read bs=64k count=1 status=none &
    reader=$!
    sleep 1
    ! has_ended "$reader" || fail "the read did not wait"
    lio_enable 1
    wait_for 15 "state running again" state_is running
    wait_for 10 "the read ended" has_ended "$reader"
    wait "$reader" || status=$?
    expect_equal "status of the read" "$status" 0
    expect_same "what it read" read shadow -n 65536
}

test_srpfs_dev_loss_removes_the_target() {
    local target
    srpfs_mount "$login_string"
    target=$(srpfs_target)
    quick_timers 2 5
    lio_enable 0
    wait_for 15 "the target's directory gone" test ! -e "$target"
    expect_match "the log" "$(srpfs_said)" 'dev_loss_tmo expired'
    lio_enable 1
    srpfs_login
    expect_file "$target/state" running
    wait_for 10 "queue pairs of the lost login freed" srpfs_has_qps "$(<"$target/ch_count")"
}

# The link is away for a moment: I/O waits, and goes on over the same connections.
limit[srpfs_link_flap_costs_no_login]=90
test_srpfs_link_flap_costs_no_login() {
    local target before started took round lines
    lines=$(wc -l <$srpfs_log)  # it holds what earlier tests have said as well
    srpfs_mount "$login_string,ch_count=2"
    target=$(srpfs_target)
    before=$(rdma res show qp | srpfs_objects | grep -o 'lqpn [0-9]*' | sort)
    for round in 1 2 3; do
        ip link set $netdev down
        started=$(milliseconds)
        wait_for 10 "state blocked" state_is blocked
        took=$(($(milliseconds) - started))
        sleep 0.3
        ip link set $netdev up
        wait_for 15 "state running again" state_is running
        note "round $round: blocked seen $took ms after the link was down"
        put "$target/lun1" shadow $((round * 4096)):4096
    done
    expect_equal "queue pairs" "$(rdma res show qp | srpfs_objects | grep -o 'lqpn [0-9]*' | sort)" "$before"
    expect_match "the log" "$(srpfs_said)" 'port 1 of rxe9 went down'
    ! tail -n "+$((lines + 1))" $srpfs_log | grep -q 'reconnecting' || fail "srpfs has logged in again"
}

# Nothing comes any more, and nobody says so: the target's program is stopped, its kernel answers for its device.
limit[srpfs_silent_target_is_noticed]=120
test_srpfs_silent_target_is_noticed() {
    local listener target started took
    srpfs-listen $address:5600 >received 2>errors &
    listener=$!
    wait_for 20 "srpfs-listen listening" grep -q listening received
    # More than twice the default values, for slow machines.
    srpfs_mount "id_ext=1,ioc_guid=1,dest=$address:5600,ack_timeout=14" -o tur_interval=5,tur_timeout=8
    target=$port_directory/0000000000000001-0000000000000001
    write_file "$target/reconnect_delay" 2
    within 20 dd if="$target/lun0" of=/dev/null bs=4096 count=1 status=none
    kill -STOP $listener
    started=$(milliseconds)
    wait_for 60 "state blocked" grep -q blocked "$target/state"
    took=$(($(milliseconds) - started))
    note "noticed after $took ms"
    ((took >= 6500)) || fail "an idle target was given up after $took ms"
    expect_match "the log" "$(srpfs_said)" 'the target is silent'
    kill -CONT $listener
    wait_for 60 "state running again" grep -q running "$target/state"
    within 60 dd if="$target/lun0" of=/dev/null bs=4096 count=1 status=none
    srpfs_umount
    kill $listener
    wait_for 20 "srpfs-listen ended" has_ended $listener
}

# A process waiting for a stuck target dies when told to.
test_srpfs_killed_reader() {
    local target reader signal started took sleeper control
    srpfs_mount "$login_string"
    target=$(srpfs_target)
    quick_timers 50 600
    lio_enable 0
    wait_for 3 "state blocked" state_is blocked
    for signal in KILL INT; do
        # A shell without job control lets what it starts in the background ignore SIGINT.
        env --default-signal=INT dd if="$target/lun1" of=/dev/null bs=4096 count=1 status=none 2>/dev/null &
        reader=$!
        sleep 1
        ! has_ended "$reader" || fail "the read did not wait"
        started=$(milliseconds)
        kill -$signal "$reader"
        wait_for 5 "the reader gone after SIG$signal" has_ended "$reader"
        took=$(($(milliseconds) - started))
        # How long the end of a process that waits for nobody takes on this machine now.
        sleep 100 &
        sleeper=$!
        started=$(milliseconds)
        kill -KILL $sleeper
        wait_for 5 "the sleeper gone" has_ended $sleeper
        control=$(($(milliseconds) - started))
        note "SIG$signal: $took ms; a sleeper: $control ms"
        ((took < 2000 + 10 * control)) || fail "SIG$signal took $took ms; a sleeper: $control ms"
    done
    # Leaving is possible meanwhile, too.
    srpfs_umount
}
