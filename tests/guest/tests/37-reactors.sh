# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034,SC2086  # variables of lib.sh, without blanks
#
# Several reactors, and completions that are to be told late.

# A unit that only the second port has, which has no other: all paths to one unit have one reactor.
lun_of_second=3

second_unit_up() {
    second_port_up
    lio_fileio second /lun/second $lun_mib 4096
    second_map $lun_of_second fileio_0/second
    (
        tpg=$(second_tpg)
        lio_hide $second_address 1
        lio_unmap 1
    )
}

second_unit_down() {
    second_port_down
    rmdir $core/fileio_0/second
    rm /lun/second
}

# busy_turns of each reactor.
busy_turns() { tr -d ' \n' <$mount_point/stats | grep -o '"busy_turns":[0-9]*' | cut -d: -f2; }

# fio_on FILE NAME: in the background, for some seconds, in pieces that are read back; a failure of a request ends it.
fio_on() {
    fio --eta=never --name=$2 --filename="$1" --size=${lun_mib}M --rw=randrw --bssplit=4k/60:32k/30:512k/10 --iodepth=8 --direct=1 \
        --ioengine=libaio --verify=crc32c --verify_fatal=1 --verify_backlog=32 --time_based --runtime=15 --output=$2.out &
}

fio_ended_well() {      # PROCESS NAME
    local status=0
    wait_for 90 "fio on $2 ended" has_ended $1
    wait $1 || status=$?
    grep -E '^ +(read|write): IOPS' $2.out || true
    ((status == 0)) || { tail -n 20 $2.out; fail "fio on $2 ended with $status: $(grep -m 1 -iE 'verify|error|err=' $2.out)"; }
}

# Two targets at once, and what happens to one of them: connections are ended, a unit is reset, the link is away, the target is.
two_targets_at_once() { # REACTORS OPTIONS
    local target one two before after index
    second_unit_up
    srpfs_mount "$login_string,ch_count=2" -o "reactors=$1$2,fast_io_fail_tmo=120"
    target=$(srpfs_target)
    events_start
    write_file $mount_point/add_target "$second_login_string,ch_count=2"
    expect_file "$second_target/state" running
    write_file "$target/reconnect_delay" 2
    write_file "$second_target/reconnect_delay" 2
    mapfile -t before < <(busy_turns)
    expect_equal "reactors that stats shows" "${#before[@]}" "$1"
    fio_on "$target/lun4" first
    one=$!
    fio_on "$second_target/lun$lun_of_second" second
    two=$!
    sleep 2
    write_file "$target/reset" host
    wait_for 20 "state running after the reset" state_is running
    write_file "$target/lun4.attr/reset" lun
    write_file "$second_target/reset" host
    ip link set $netdev down
    sleep 0.5
    ip link set $netdev up
    wait_for 20 "state running after the link was away" state_is running
    lio_enable 0
    wait_for 10 "state blocked" state_is blocked
    sleep 1
    lio_enable 1
    wait_for 20 "state running after the target was away" state_is running
    ! has_ended $one || note "fio on the first target had ended before"
    fio_ended_well $one first
    fio_ended_well $two second
    mapfile -t after < <(busy_turns)
    note "busy turns: ${before[*]}, then ${after[*]}"
    # Each target has kept a reactor of its own at work, and the third one has had nothing to do.
    for index in 0 1; do
        (($1 < 3 || after[index] - before[index] > 3 * (after[2] - before[2]) + 50)) || fail "reactor $index has done nothing: ${before[*]}, then ${after[*]}"
    done
    expect_lun "the first target's unit" "$target/lun4" ${backing_of[4]}
    expect_lun "the second target's unit" "$second_target/lun$lun_of_second" /lun/second
    events_end
    ! grep -q '"io_error"' events || fail "a request has failed: $(grep -m 1 '"io_error"' events)"
}

two_targets_end() {
    srpfs_umount
    no_qps
    second_unit_down
}

limit[srpfs_one_reactor_two_targets]=120
test_srpfs_one_reactor_two_targets() {
    two_targets_at_once 1 ''
    two_targets_end
}

limit[srpfs_three_reactors_two_targets]=120
test_srpfs_three_reactors_two_targets() {
    local task
    two_targets_at_once 3 ,cpus=1:0
    # One after the other, beginning again. What a reactor has started besides has its name and its processor.
    for task in "/proc/$srpfs_pid/task/"*; do
        [[ $(<$task/comm) != srpfs-[0-9] ]] || echo "$(<$task/comm) $(sed -n 's/^Cpus_allowed_list:[[:blank:]]*//p' $task/status)"
    done >bound
    expect_equal "processors of the reactors" "$(sort -u bound | tr '\n' ',')" "srpfs-0 1,srpfs-1 0,srpfs-2 1,"
    two_targets_end
}

# rxe cannot tell of completions late: the log says so, once, and everything goes on without.
limit[srpfs_moderated_completions]=120
test_srpfs_moderated_completions() {
    local fio lines
    lines=$(wc -l <$srpfs_log)
    srpfs_mount "$login_string,ch_count=2" -o cq_moderation=16:200
    cp ${backing_of[1]} shadow
    put "$(srpfs_target)/lun1" shadow "${whole_blocks[@]}" "${sectors[@]}" "${odd_ranges[@]}"
    get "$(srpfs_target)/lun1" shadow "${whole_blocks[@]}" "${sectors[@]}" "${odd_ranges[@]}"
    expect_same "the backing of lun1" ${backing_of[1]} shadow
    fio_on "$(srpfs_target)/lun4" moderated
    fio_ended_well $! moderated
    expect_lun lun4 "$(srpfs_target)/lun4" ${backing_of[4]}
    tail -n +$((lines + 1)) $srpfs_log | grep cq_moderation >told || true
    cat told
    expect_match "the log" "$(<told)" "$rdma_device: cq_moderation=16:200 is not possible \\(.*\\); completions are told at once"
    expect_equal "how often it says so" "$(wc -l <told)" 1
    srpfs_umount
}
