# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034,SC2086  # variables of lib.sh, without blanks

# The link away for 0.2 s or 1 s, the target away for 5 s or 20 s, in any order, with fio checking every block, and no
# error, because fast_io_fail_tmo allows none. (Longer than a second, the link must not be away: see above.)
limit[srpfs_flaps_and_outages]=240
limit_full[srpfs_flaps_and_outages]=500
test_srpfs_flaps_and_outages() {
    local target seconds end fio status=0 drawn
    seconds=$(short_or_full 60 300)
    srpfs_mount "$login_string,ch_count=2"
    target=$(srpfs_target)
    quick_timers 120 600
    fio --eta=never --name=flaps --verify=md5 --rw=randwrite --verify_backlog=64 --bs=4k --size=1m --numjobs=8 --thread \
        --ioengine=psync --direct=1 --offset_increment=1m --filename="$target/lun1" --time_based --runtime=$seconds \
        --verify_fatal=1 --group_reporting --output=fio.out &
    fio=$!
    end=$((SECONDS + seconds))
    sleep 2
    while ((SECONDS < end - 5)); do
        # Outages of 20 s are one of six, so that a minute has some of each.
        drawn=$((RANDOM % 6))
        ((drawn < 5 || end - SECONDS > 25)) || drawn=4
        case $drawn in
            0 | 1) note "link 0.2 s"; ip link set $netdev down; sleep 0.2; ip link set $netdev up ;;
            2 | 3) note "link 1 s"; ip link set $netdev down; sleep 1; ip link set $netdev up ;;
            4) note "target 5 s"; lio_enable 0; sleep 5; lio_enable 1 ;;
            5) note "target 20 s"; lio_enable 0; sleep 20; lio_enable 1 ;;
        esac
        wait_for 60 "state running" state_is running
        sleep 2
    done
    wait_for 120 "fio ended" has_ended $fio
    wait $fio || status=$?
    grep -E '^ +(read|write): IOPS|err=' fio.out || true
    ((status == 0)) || fail "fio ended with $status: $(grep -m 1 -iE 'verify|error|err=' fio.out)"
    srpfs_umount
    no_qps
}
