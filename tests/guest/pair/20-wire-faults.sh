# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034,SC2086  # variables of lib.sh, without blanks
#
# The wire between two guests fails: pulled cables, silence, interfaces that go down for longer than connection managers
# keep quiet.

noticed_max=30

# One fault, shorter than fast_io_fail_tmo: no request fails.
wire_fails() {          # WHAT SECONDS FAULT END
    local began healed
    began=$(milliseconds)
    eval "$3"
    sleep "$2"
    eval "$4"
    healed=$(milliseconds)
    wait_for 90 "$1: state running" state_is running
    wait_for 90 "$1: I/O goes on" nobody_waits
    sleep 1
    note "$1: noticed after $(first_after "$began" ' state (blocked|fail-fast)') ms," \
        "all served $(served_after "$healed") ms after its end"
    ! grep -q ' error ' timeline || fail "$1: $(grep -m 1 ' error ' timeline)"
}

limit[srpfs_wire_fails_and_no_request_does]=300
test_srpfs_wire_fails_and_no_request_does() {
    srpfs_mount "$login_string,ch_count=2"
    write_file "$(srpfs_target)/reconnect_delay" 2
    write_file "$(srpfs_target)/fast_io_fail_tmo" 300
    timeline_starts 300 "$(srpfs_target)/state" "$(srpfs_target)/lun1"
    wire_fails "the interface down" "$(short_or_full 5 20)" 'interface down' 'interface up'
    wire_fails "the cable out" "$(short_or_full 5 20)" 'cable off' 'cable on'
    wire_fails "the target's cable out" "$(short_or_full 8 40)" 'remote cable off' 'remote cable on'
    wire_fails "silence" "$(short_or_full 8 40)" silence silence_ends
    wire_fails "2 % of the packets lost" "$(short_or_full 5 20)" 'loss 2%' silence_ends
    timeline_ends 0
    srpfs_umount
}

# Longer than fast_io_fail_tmo: what waits ends in EIO when it is over, not earlier and not much later. A second either
# way is the promise; how much later than that an emulated guest on a shared machine may be, patience says.
fails_in_time() {       # WHAT FAULT END
    local began blocked failed after last
    timeline_starts 120 "$(srpfs_target)/state" "$(srpfs_target)/lun1"
    began=$(milliseconds)
    eval "$2"
    wait_for $noticed_max "$1: noticed" state_is blocked
    wait_for 20 "$1: state fail-fast" state_is fail-fast
    wait_for 20 "$1: an error" grep -q ' error ' timeline
    blocked=$(first_after "$began" ' state blocked')
    failed=$(first_after "$began" ' error ')
    last=$(awk '$2 == "error" && $5 > 2000 { last = $1 } END { print last }' timeline)
    note "$1: noticed after $blocked ms, first error after $failed ms"
    after=$((failed - blocked))
    ((after >= 3000 && after <= 5000 * patience)) || fail "$1: EIO came $after ms after the state became blocked, fast_io_fail_tmo being 4 s"
    ((last - began - blocked <= 5000 * patience)) || fail "$1: the last that waited ended $((last - began - blocked)) ms after that"
    ! grep ' error ' timeline | grep -qv ' error [a-z]* 5 ' || fail "$1: $(grep ' error ' timeline | grep -v -m 1 ' error [a-z]* 5 ')"
    eval "$3"
    wait_for 60 "$1: state running" state_is running
    wait_for 60 "$1: I/O goes on" nobody_waits
    timeline_ends 0
}

limit[srpfs_errors_come_with_fast_io_fail_tmo]=300
test_srpfs_errors_come_with_fast_io_fail_tmo() {
    # What is not acknowledged within 0.5 s is sent again, for ever: the questions notice silence.
    srpfs_mount "$login_string,ch_count=2" -o ack_timeout=17
    write_file "$(srpfs_target)/reconnect_delay" 2
    write_file "$(srpfs_target)/fast_io_fail_tmo" 4
    fails_in_time "the cable out" 'cable off' 'cable on'
    fails_in_time "silence" silence silence_ends
    srpfs_umount
}

# ack_timeout says how soon the transport gives up: with nobody asking (tur_interval=off), it is all that notices silence.
# rxe sends tl_retry_count times again (7: for ever); the larger exponent makes that seven times 2.1 s, which is below what a
# command may take (30 s).
limit[srpfs_ack_timeout_notices_silence]=180
test_srpfs_ack_timeout_notices_silence() {
    local exponent began
    local -A noticed=()
    for exponent in 17 19; do
        srpfs_mount "$login_string,ch_count=2,tl_retry_count=6" -o tur_interval=off,ack_timeout=$exponent
        write_file "$(srpfs_target)/reconnect_delay" 2
        write_file "$(srpfs_target)/fast_io_fail_tmo" 300
        events_start
        timeline_starts 300 "$(srpfs_target)/state" "$(srpfs_target)/lun1"
        began=$(milliseconds)
        silence
        wait_for $noticed_max "ack_timeout=$exponent: state blocked" state_is blocked
        silence_ends
        wait_for 90 "ack_timeout=$exponent: state running" state_is running
        wait_for 90 "ack_timeout=$exponent: I/O goes on" nobody_waits
        timeline_ends 0
        events_end
        noticed[$exponent]=$(first_after "$began" ' state blocked')
        note "ack_timeout=$exponent: noticed after ${noticed[$exponent]} ms: $(grep -m 1 target_state events)"
        # The transport said so, nobody else.
        expect_match "what the events say" "$(grep '"target_state"' events)" 'blocked.*transport retry|transport retry.*blocked'
        srpfs_umount
    done
    # Not before the last of the seven.
    ((noticed[19] >= 12000)) || fail "with 19 noticed after ${noticed[19]} ms"
    ((noticed[17] < noticed[19])) || fail "noticed after ${noticed[17]} ms with 17, after ${noticed[19]} ms with 19"
}

# Step 8: the cable is pulled while nobody reads or writes. Silence is noticed by asking (TEST UNIT READY); the times are four
# times the defaults, because an emulated guest may be slow to answer.
limit[srpfs_step_8_cable_pull]=240
test_srpfs_step_8_cable_pull() {
    local target
    srpfs_mount "$login_string" -o tur_interval=8,tur_timeout=12
    target=$(srpfs_target)
    put "$target/lun1" shadow 0:65536
    typed 15 "echo 6 > $target/fast_io_fail_tmo"
    note "this end's cable is pulled"
    cable off
    wait_for 10 "state blocked" state_is blocked
    wait_for 15 "state fail-fast" state_is fail-fast
    cable on
    wait_for 60 "state running again" state_is running
    get "$target/lun1" shadow 0:65536

    note "the target's cable is pulled: nothing tells this end's device"
    remote cable off
    wait_for 30 "state blocked" state_is blocked
    wait_for 15 "state fail-fast" state_is fail-fast
    remote cable on
    wait_for 60 "state running again" state_is running
    get "$target/lun1" shadow 0:65536

    note "this end's cable is pulled for good"
    typed 15 "echo 3 > $target/fast_io_fail_tmo"
    typed 15 "echo 6 > $target/dev_loss_tmo"
    cable off
    wait_for 30 "the target's directory gone" test ! -e "$target"
    expect_match "the log" "$(srpfs_said)" 'dev_loss_tmo expired'
    cable on
    srpfs_umount
}
