# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034,SC2086  # variables of lib.sh, without blanks
#
# The target's units change under those who use them.

# LIO tells that LUNs have changed by a unit attention for each LUN of an ACL, whoever of those that log in under it asks
# first. Here the kernel's initiator does, and srpfs never hears of it.
kernel_takes_attentions() {
    local disk
    for disk in "${kernel_disks[@]}"; do
        # The first command may end with it, or be repeated by the kernel.
        dd if="$disk" of=/dev/null bs=4096 count=1 iflag=direct status=none 2>/dev/null || true
    done
}

# srpfs stands still meanwhile, lest it asks something before the kernel has taken all attentions.
swapped_silently() {    # TO
    events_start
    cp "/lun/$1" "/lun/$1.before"
    kill -STOP $srpfs_pid
    swapped_is "$1"
    kernel_takes_attentions
    kill -CONT $srpfs_pid
}

nobody_has_told() {
    events_end
    cat events
    grep -q '"lun_removed"' events || fail "no event tells of the old unit's end"
    ! grep -q unit_attention events || fail "somebody has told srpfs: $(grep -m 1 unit_attention events)"
}

# The file of one unit is never that of another one, although no more than the number is the same.
another_unit_is_found() {       # WHAT NEW-BACKING
    local status=0 started
    wait_for 30 "$1: another file" is_another_file
    # The old one: an error, at once, and not a byte of the new unit.
    started=$(milliseconds)
    within 20 dd bs=64k count=1 status=none of=found <&8 2>error || status=$?
    note "$1: the old file: $(<error), after $(($(milliseconds) - started)) ms"
    ((status)) || fail "$1: the old file still reads"
    expect_match "$1: its error" "$(<error)" 'No such device|Input/output error'
    (($(stat -c %s found) == 0)) || fail "$1: the old file has given bytes with its error"
    status=0
    within 20 dd if=$pattern bs=64k count=1 status=none conv=notrunc >&8 2>error || status=$?
    ((status)) || fail "$1: the old file still writes"
    exec 8>&-
    nobody_has_told
    expect_same "$1: what was written to the old file" "$2" "$2.before"
    expect_lun "$1: the new file" "$lun" "$2"
}

# The inode number is that of the path.
is_another_file() {
    local now=
    { read -r now <"$lun.attr/wwid"; } 2>/dev/null
    [[ $now && $now != "$wwid" ]]
}

limit[srpfs_unit_swapped_silently]=90
test_srpfs_unit_swapped_silently() {
    local target lun wwid number
    kernel_disks=()
    swapped_up
    cp $pattern /lun/swapa
    dd if=$pattern of=/lun/swapb bs=1M skip=8 status=none
    dd if=$pattern of=/lun/swapb bs=1M seek=8 count=8 conv=notrunc status=none
    kernel_login
    for number in 0 1 2 3 4 5 6 7 $lun_swapped $lun_beyond_255; do kernel_disks+=("$(kernel_disk $number)"); done
    srpfs_initiator_ext=$initiator_ext_beside_kernel
    srpfs_mount "$login_string,initiator_ext=$srpfs_initiator_ext" -o rescan_interval=off
    target=$(srpfs_target)
    lun=$target/lun$lun_swapped
    expect_lun "the first unit" "$lun" /lun/swapa
    wwid=$(<"$lun.attr/wwid")
    exec 8<>"$lun"
    swapped_silently swapb
    write_file "$target/rescan" 1
    another_unit_is_found "after rescan" /lun/swapb
    srpfs_umount

    # And by itself, when rescan_interval is over.
    srpfs_mount "$login_string,initiator_ext=$srpfs_initiator_ext" -o rescan_interval=4
    expect_lun "the second unit" "$lun" /lun/swapb
    wwid=$(<"$lun.attr/wwid")
    exec 8<>"$lun"
    swapped_silently swapa
    another_unit_is_found "after rescan_interval" /lun/swapa
    rm /lun/*.before
}

size_is() { (($(stat -c %s "$lun") == $1 << 20)); }
told_of_size() { grep '"lun_changed"' events | grep "\"lun\": *\"lun$lun_sized\"" | grep -q "\"bytes\": *$(($1 << 20))[,}]"; }

# LIO's iblock has the size of its disk, and tells nobody when it changes.
limit[srpfs_unit_grows_and_shrinks]=120
test_srpfs_unit_grows_and_shrinks() {
    local lun loop status started
    modprobe loop
    sized_up
    srpfs_mount "$login_string" -o rescan_interval=4
    lun=$(srpfs_target)/lun$lun_sized
    dd if=$pattern of="$lun" bs=1M conv=notrunc status=none
    exec 8<>"$lun"
    loop=$(losetup --find --show "$lun")
    expect_equal "size of the loop device" "$(blockdev --getsize64 $loop)" $((lun_mib << 20))
    events_start

    # By itself, when rescan_interval is over.
    sized_is 24
    wait_for 20 "the new size" size_is 24
    wait_for 10 "the event lun_changed" told_of_size 24
    expect_equal "size that an open file has" "$(stat -L -c %s /proc/self/fd/8)" $((24 << 20))
    losetup -c $loop
    expect_equal "size of the loop device" "$(blockdev --getsize64 $loop)" $((24 << 20))
    # The new part: by the loop device, by who had the file open, and by one who opens it now.
    within 30 dd if=$pattern of=$loop bs=1M seek=16 count=2 oflag=direct status=none || fail "the loop device does not write the new part"
    within 30 dd if=$pattern bs=1M seek=18 skip=2 count=6 conv=notrunc status=none >&8 || fail "the open file does not write the new part"
    cp $pattern shadow
    head -c 8M $pattern >>shadow
    expect_same "the disk" /lun/sized shadow
    expect_lun "the grown unit" "$lun" shadow
    within 30 dd if=$loop of=found bs=1M iflag=direct status=none
    expect_same "the loop device" found shadow
    ! within 30 dd if=$pattern of="$lun" bs=4k seek=6144 count=1 conv=notrunc status=none 2>error || fail "a write at the new end succeeded"
    expect_match "its error" "$(<error)" 'No space left on device'

    # Smaller: before srpfs knows, the target refuses; then the end is nearer. Nothing waits.
    write_file "$(srpfs_target)/rescan" 1
    kill -STOP $srpfs_pid
    sized_is 8
    started=$(milliseconds)
    dd if="$lun" of=found bs=64k skip=240 count=1 status=none 2>error &
    kill -CONT $srpfs_pid
    status=0
    wait_for 20 "the read ended" has_ended $!
    wait $! || status=$?
    note "a read beyond the new end: status $status after $(($(milliseconds) - started)) ms: $(<error)"
    # An error, or srpfs has looked before: the end of the file. Not what was there.
    if ((status)); then expect_match "the error of a read beyond the new end" "$(<error)" 'Input/output error'; fi
    expect_equal "bytes read beyond the new end" "$(stat -c %s found)" 0
    wait_for 20 "the new size" size_is 8
    wait_for 10 "the event lun_changed" told_of_size 8
    expect_equal "size that an open file has" "$(stat -L -c %s /proc/self/fd/8)" $((8 << 20))
    within 30 dd if="$lun" bs=64k skip=240 count=1 status=none of=found 2>error || fail "a read beyond the end is an error: $(<error)"
    expect_equal "bytes of a read beyond the end" "$(stat -c %s found)" 0
    ! within 30 dd if=$pattern bs=64k seek=240 count=1 conv=notrunc status=none >&8 2>error || fail "a write beyond the end succeeded"
    expect_match "its error" "$(<error)" 'No space left on device'
    # The loop device believes in the old size until it is told, and makes zeros of what a file has not got.
    within 30 dd if=$loop of=found bs=64k skip=240 count=1 iflag=direct status=none 2>error || : >found
    expect_equal "bytes that the loop device has beyond the end" "$(tr -d '\0' <found | wc -c)" 0
    ! within 30 dd if=$pattern of=$loop bs=64k seek=240 count=1 oflag=direct status=none 2>error || fail "the loop device writes beyond the end"
    losetup -c $loop
    expect_equal "size of the loop device" "$(blockdev --getsize64 $loop)" $((8 << 20))
    truncate -s 8M shadow
    expect_lun "the smaller unit" "$lun" shadow
    expect_same "the disk" /lun/sized shadow
    events_end
    losetup -d $loop
    exec 8>&-
    srpfs_umount
    sized_down
}

reserve() { write_file "$lun.attr/reservations" "$*"; }
kernel_writes() { within 30 dd if=$pattern of="$disk" bs=4k count=1 oflag=direct status=none 2>error; }
srpfs_writes() { within 30 dd if=$pattern of="$lun" bs=4k count=1 conv=notrunc,fsync status=none 2>error; }
is_registered() { [[ $(<"$lun.attr/reservations") == *"registered $1"* ]]; }

# Two initiators of LIO: to LIO a port with an ACL of its own is another one, and both lead to LUN 1.
limit[srpfs_reservations_beside_the_kernel]=180
test_srpfs_reservations_beside_the_kernel() {
    local disk keys
    second_port_up
    kernel_login
    disk=$(kernel_disk 1)
    srpfs_mount "$second_login_string"
    lun=$second_target/lun1
    expect_match "reservations at first" "$(<"$lun.attr/reservations")" 'reservation none'
    # srpfs reserves, the kernel is refused.
    reserve register 0xa
    reserve reserve write-exclusive
    within 30 sg_persist --in --read-keys "$disk" >keys || fail "sg_persist cannot read the keys"
    expect_match "the keys that the kernel's initiator sees" "$(<keys)" '0xa'
    within 30 sg_persist --in --read-reservation "$disk" >keys || fail "sg_persist cannot read the reservation"
    expect_match "the key of the reservation that it sees" "$(<keys)" 'Key=0xa'
    expect_match "its type" "$(<keys)" 'Write Exclusive'
    srpfs_writes || fail "the holder cannot write: $(<error)"
    ! kernel_writes || fail "the kernel's initiator writes although srpfs has reserved"
    # The kernel preempts, srpfs is refused, and knows.
    within 30 sg_persist --out --register --param-sark=0xb "$disk" || fail "sg_persist cannot register"
    within 30 sg_persist --out --preempt --param-rk=0xb --param-sark=0xa --prout-type=1 "$disk" || fail "sg_persist cannot preempt"
    kernel_writes || fail "the one that has preempted cannot write: $(<error)"
    ! srpfs_writes || fail "srpfs writes although it was preempted"
    expect_match "what dd says" "$(<error)" 'Device or resource busy'
    wait_for 10 "srpfs knows that it was preempted" is_registered none
    ! { echo reserve write-exclusive >"$lun.attr/reservations"; } 2>/dev/null || fail "srpfs reserves without being registered"
    within 30 sg_persist --out --clear --param-rk=0xb "$disk" || fail "sg_persist cannot clear"
    # A registration outlives a login.
    reserve register 0xc
    reserve reserve exclusive-access
    write_file "$second_target/reset" host
    srpfs_writes || fail "after a login the holder cannot write: $(<error)"
    is_registered 0x000000000000000c || fail "after a login: $(<"$lun.attr/reservations")"
    ! within 30 dd if="$disk" of=/dev/null bs=4k count=1 iflag=direct status=none 2>error || fail "the kernel's initiator reads although srpfs has exclusive access"
    # The kernel takes its own look once more when it may.
    reserve release
    reserve unregister
    is_registered none || fail "registered in the end: $(<"$lun.attr/reservations")"
    expect_match "reservations in the end" "$(<"$lun.attr/reservations")" 'reservation none'
    kernel_writes || fail "nothing is reserved, and the kernel's initiator cannot write: $(<error)"
    srpfs_umount
    kernel_logout
    second_port_down
}

kernel_registers() { within 30 sg_persist --out --register-ignore --param-sark="$1" "$disk" || fail "sg_persist cannot register"; }
keys_of_kernel() { within 30 sg_persist --in --read-keys "$disk" || fail "sg_persist cannot read the keys"; }

# The other way round: the kernel has reserved, srpfs is refused, sees it, and takes it away; then while the kernel writes.
limit[srpfs_preempts_the_kernel]=180
test_srpfs_preempts_the_kernel() {
    local disk writer conflicts round status
    second_port_up
    kernel_login
    disk=$(kernel_disk 1)
    srpfs_mount "$second_login_string"
    lun=$second_target/lun1
    srpfs_writes || fail "nothing is reserved, and srpfs cannot write: $(<error)"
    kernel_registers 0xb
    within 30 sg_persist --out --reserve --param-rk=0xb --prout-type=1 "$disk" || fail "sg_persist cannot reserve"
    expect_match "what srpfs sees" "$(<"$lun.attr/reservations")" '^registered none$'
    expect_match "what srpfs sees" "$(<"$lun.attr/reservations")" '^key 0x000000000000000b$'
    expect_match "what srpfs sees" "$(<"$lun.attr/reservations")" '^reservation write-exclusive 0x000000000000000b$'
    ! srpfs_writes || fail "srpfs writes although the kernel has reserved"
    expect_match "what dd says" "$(<error)" 'Device or resource busy'
    within 30 dd if="$lun" of=/dev/null bs=4k count=1 status=none || fail "srpfs cannot read what is reserved for writing"
    # The kernel's registration and reservation outlive a login of its own.
    within 60 sg_reset -H "$disk"
    wait_for 20 "ib_srp is logged in again" grep -q running "$kernel_port/state"
    expect_match "the keys after the kernel's login" "$(keys_of_kernel)" '0xb'
    kernel_writes || fail "after a login of its own the holder cannot write: $(<error)"
    ! srpfs_writes || fail "srpfs writes after the holder's login"
    # Preempted.
    reserve register 0xa
    ! srpfs_writes || fail "srpfs writes because it is registered"
    reserve preempt 0xb write-exclusive
    expect_equal "the keys after preempting" "$(grep '^key ' "$lun.attr/reservations")" "key 0x000000000000000a"
    expect_match "the reservation after preempting" "$(<"$lun.attr/reservations")" '^reservation write-exclusive 0x000000000000000a$'
    srpfs_writes || fail "srpfs has preempted and cannot write: $(<error)"
    conflicts=$(dmesg | grep -c 'reservation conflict' || true)
    ! kernel_writes || fail "the kernel writes although it was preempted"
    (($(dmesg | grep -c 'reservation conflict') > conflicts)) || fail "dd of the kernel failed for another reason: $(<error)"
    # And while it writes: what srpfs writes after that stays. LIO leaves some aborted commands without an answer.
    echo 5 >"/sys/block/${disk#/dev/}/device/timeout"
    for round in 1 2 3; do
        kernel_registers 0xb
        within 30 sg_persist --out --preempt --param-rk=0xb --param-sark=0xa --prout-type=1 "$disk" || fail "sg_persist cannot preempt"
        wait_for 10 "srpfs knows that it was preempted" is_registered none
        fio --eta=never --name=kernel --filename="$disk" --size=${lun_mib}M --rw=randwrite --bs=64k --iodepth=8 --direct=1 \
            --ioengine=libaio --time_based --runtime=60 --output=fio.out &
        writer=$!
        sleep $round
        ! has_ended $writer || fail "the kernel's writer has ended: $(<fio.out)"
        reserve register 0xa
        reserve preempt-abort 0xb exclusive-access
        within 60 dd if=$pattern of="$lun" bs=1M conv=notrunc,fsync status=none || fail "who has preempted cannot write"
        wait_for 60 "the kernel's writer ended" has_ended $writer
        status=0
        wait $writer || status=$?
        ((status)) || fail "the kernel's writer was not refused"
        expect_same "the unit, round $round" "${backing_of[1]}" $pattern
        expect_lun "lun1, round $round" "$lun" $pattern
        ! within 30 dd if="$disk" of=/dev/null bs=4k count=1 iflag=direct status=none 2>error || fail "the kernel reads although srpfs has exclusive access"
    done
    reserve clear
    expect_match "reservations in the end" "$(<"$lun.attr/reservations")" 'reservation none'
    kernel_writes || fail "nothing is reserved, and the kernel's initiator cannot write: $(<error)"
    srpfs_umount
    kernel_logout
    second_port_down
}

# The target's disk is made anew, as after a loss of power: nobody is registered, and the generation begins at zero.
target_forgets() {
    events_start
    lio_enable 0
    wait_for 10 "state blocked" state_is blocked
    swapped_is_nothing
    rmdir $core/fileio_0/swapa
    lio_fileio swapa /lun/swapa $lun_mib 512
    swapped_is swapa
}

limit[srpfs_registration_is_repeated]=120
test_srpfs_registration_is_repeated() {
    local target lun disk wwid
    swapped_up
    cp $pattern /lun/swapa
    srpfs_mount "$login_string"
    target=$(srpfs_target)
    lun=$target/lun$lun_swapped
    write_file "$target/reconnect_delay" 2
    wwid=$(<"$lun.attr/wwid")
    reserve register 0xa1
    reserve reserve write-exclusive
    exec 8<>"$lun"
    target_forgets
    lio_enable 1
    wait_for 20 "state running again" state_is running
    wait_for 20 "the event registration_repeated" grep -q '"registration_repeated"' events
    grep '"registration_' events
    expect_match "the event" "$(grep '"registration_repeated"' events)" "\"lun\": *\"lun$lun_swapped\""
    ! grep -q '"registration_lost"' events || fail "told as lost, too"
    events_end
    expect_file "$lun.attr/wwid" "$wwid"
    is_registered 0x00000000000000a1 || fail "after the target has forgotten: $(<"$lun.attr/reservations")"
    # The reservation is not: somebody may have taken it over.
    expect_match "reservations" "$(<"$lun.attr/reservations")" '^reservation none$'
    kernel_login
    disk=$(kernel_disk $lun_swapped)
    expect_match "the keys that the kernel's initiator sees" "$(keys_of_kernel)" '1 registered reservation key follows'
    expect_match "the keys that the kernel's initiator sees" "$(keys_of_kernel)" '0xa1$'
    # It is the same file, and its user goes on.
    within 30 dd if=$pattern bs=64k count=1 status=none conv=notrunc >&8 || fail "the open file does not write"
    exec 8>&-
    expect_lun "the unit" "$lun" /lun/swapa
    reserve unregister
    expect_match "the keys in the end" "$(keys_of_kernel)" 'no registered reservation keys|there are NO'
    srpfs_umount
    kernel_logout
}

# Others have registered since: it may be theirs now.
limit[srpfs_registration_is_not_repeated_beside_others]=120
test_srpfs_registration_is_not_repeated_beside_others() {
    local target lun disk
    swapped_up
    second_port_up
    srpfs_mount "$login_string"
    target=$(srpfs_target)
    lun=$target/lun$lun_swapped
    write_file "$target/reconnect_delay" 2
    reserve register 0xa2
    target_forgets
    second_map $lun_swapped fileio_0/swapa
    kernel_device=$second_device kernel_login "dest=$second_address:$cm_port" || fail "ib_srp: $kernel_error"
    disk=$(kernel_disk $lun_swapped)
    kernel_registers 0xb2
    lio_enable 1
    wait_for 20 "the event registration_lost" grep -q '"registration_lost"' events
    ! grep -q '"registration_repeated"' events || fail "told as repeated, too"
    events_end
    wait_for 20 "state running again" state_is running
    is_registered none || fail "registered: $(<"$lun.attr/reservations")"
    expect_match "the keys that the kernel's initiator sees" "$(keys_of_kernel)" '0xb2$'
    ! keys_of_kernel | grep -q 0xa2 || fail "registered again beside somebody else"
    srpfs_umount
    kernel_logout
    second_port_down
}
