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
