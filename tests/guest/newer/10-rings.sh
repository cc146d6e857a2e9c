# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034,SC2086  # variables of lib.sh, without blanks
#
# Requests come through io_uring, and the target moves their data to and from the memory of its entries.

srpfs_mount_rings() {   # MORE-OPTIONS
    echo Y >/sys/module/fuse/parameters/enable_uring
    log_lines_before=$(wc -l <$srpfs_log)
    srpfs_mount "$login_string,ch_count=2" -o "io_uring=on,$1"
    target=$(srpfs_target)
    expect_match "the log" "$(tail -n +$((log_lines_before + 1)) $srpfs_log)" 'requests come through io_uring: [0-9]+ queues of [0-9]+ entries'
}

# How many entries srpfs has submitted to its rings: each answer is one.
ring_submissions() {
    local directory=/proc/$srpfs_pid link sum=0 tail
    for link in "$directory"/fd/*; do
        [[ $(readlink "$link") == *'[io_uring]'* ]] || continue
        tail=$(sed -n 's/^SqTail:[[:blank:]]*//p' "$directory/fdinfo/${link##*/}")
        sum=$((sum + tail))
    done
    echo $sum
}

# What stats counts of that unit of the only target.
counted() {             # LUN WHAT
    srpctl -o json stats "lun$1" | tr -d ' \n' | sed -n "s/.*\"$2\":\([0-9]*\).*/\1/p"
}

rings_are_exact() {     # OPTIONS
    local file before options
    srpfs_mount_rings "$1"
    file=$target/lun1
    before=$(ring_submissions)
    within 30 dd if="$file" of=read bs=4k count=64 iflag=direct status=none
    (($(ring_submissions) - before >= 64)) || fail "64 reads are $(($(ring_submissions) - before)) submissions: they came another way"
    cp ${backing_of[1]} shadow
    put "$file" shadow "${whole_blocks[@]}" "${sectors[@]}" "${odd_ranges[@]}"
    get "$file" shadow "${whole_blocks[@]}" "${sectors[@]}" "${odd_ranges[@]}"
    expect_same "the backing of lun1" ${backing_of[1]} shadow
    # Each byte once, in pieces that are read back at random; then by fio, of the target's own file.
    options="--eta=never --name=rings --size=${lun_mib}M --rw=randwrite --bsrange=4k-1m --iodepth=16 --direct=1 --verify=crc32c --verify_fatal=1"
    typed 120 "fio $options --filename=$file --ioengine=libaio --output=fio.out" || { tail -n 20 fio.out; fail "fio: $(grep -m 1 -iE 'verify|err' fio.out)"; }
    expect_lun "lun1 after fio" "$file" ${backing_of[1]}
    typed 60 "fio ${options/--direct=1/} --filename=${backing_of[1]} --ioengine=psync --verify_only --output=fio.out" ||
        { tail -n 20 fio.out; fail "the backing after fio: $(grep -m 1 -iE 'verify|err' fio.out)"; }
    # Blocks of 4096 bytes, reads among the writes.
    typed 120 "fio $options --filename=$target/lun4 --ioengine=io_uring --rw=randrw --verify_backlog=32 --output=fio.out" ||
        { tail -n 20 fio.out; fail "fio on lun4: $(grep -m 1 -iE 'verify|err' fio.out)"; }
    expect_lun "lun4 after fio" "$target/lun4" ${backing_of[4]}
    # A flush is one of the unit's cache.
    before=$(counted $lun_with_cache flushes)
    typed 60 "dd if=$pattern of=$target/lun$lun_with_cache bs=256k conv=notrunc,fsync"
    (($(counted $lun_with_cache flushes) > before)) || fail "fsync has flushed nothing: $before before, $(counted $lun_with_cache flushes) after"
    expect_same "the backing after fsync" ${backing_of[$lun_with_cache]} $pattern
    srpfs_umount
    no_qps
}

limit[srpfs_rings_are_exact]=150
test_srpfs_rings_are_exact() { rings_are_exact register=pool; }

limit[srpfs_rings_of_two_reactors_are_exact]=150
test_srpfs_rings_of_two_reactors_are_exact() { rings_are_exact register=pool,reactors=2; }

limit[srpfs_rings_with_windows_are_exact]=150
test_srpfs_rings_with_windows_are_exact() {
    local lines
    lines=$(wc -l <$srpfs_log)
    rings_are_exact register=window
    expect_match "the log" "$(tail -n +$((lines + 1)) $srpfs_log)" 'register=window: targets reach the memory of a command only'
}

# Who is killed leaves requests in the queues, whose memory the target may write to yet; then srpfs itself is killed.
limit[srpfs_rings_outlive_killed_programs]=120
test_srpfs_rings_outlive_killed_programs() {
    local round fio
    srpfs_mount_rings register=pool
    cp $pattern shadow
    within 60 dd if=$pattern of="$target/lun1" bs=1M conv=notrunc status=none
    for round in 1 2 3; do
        fio --eta=never --name=killed --filename="$target/lun4" --size=${lun_mib}M --rw=randrw --bsrange=4k-1m --iodepth=16 --direct=1 \
            --ioengine=libaio --thread --time_based --runtime=600 --output=fio.out &
        fio=$!
        sleep $round
        ! has_ended $fio || fail "fio has ended: $(<fio.out)"
        kill -KILL $fio
        wait_for 20 "fio gone, round $round" has_ended $fio
        get "$target/lun1" shadow "${whole_blocks[@]}"
        put "$target/lun1" shadow $((round * 4096)):$((round * 12288))
        expect_same "the backing of lun1, round $round" ${backing_of[1]} shadow
    done
    expect_file "$target/state" running
    kill -KILL "$srpfs_pid"
    wait_for 10 "srpfs process gone" test ! -d "/proc/$srpfs_pid"
    within 10 umount $mount_point || fail "umount after kill -9 failed"
    no_qps
    srpfs_mount_rings register=pool
    get "$target/lun1" shadow "${whole_blocks[@]}"
    srpfs_umount
    no_qps
}

# The target goes away and comes back while the queues are full: nobody notices.
limit[srpfs_rings_wait_for_the_target]=120
test_srpfs_rings_wait_for_the_target() {
    local fio status=0
    srpfs_mount_rings register=pool
    write_file "$target/reconnect_delay" 2
    fio --eta=never --name=outage --filename="$target/lun1" --size=${lun_mib}M --rw=randrw --bsrange=4k-256k --iodepth=16 --direct=1 \
        --ioengine=libaio --verify=crc32c --verify_fatal=1 --verify_backlog=32 --time_based --runtime=10 --output=fio.out &
    fio=$!
    sleep 2
    lio_enable 0
    wait_for 3 "state blocked" state_is blocked
    sleep 1
    lio_enable 1
    wait_for 15 "state running again" state_is running
    wait_for 60 "fio ended" has_ended $fio
    wait $fio || status=$?
    ((status == 0)) || { tail -n 20 fio.out; fail "fio over an outage: $(grep -m 1 -iE 'verify|err' fio.out)"; }
    expect_lun "lun1 afterwards" "$target/lun1" ${backing_of[1]}
    srpfs_umount
}
