# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034,SC2086  # variables of lib.sh, without blanks
#
# srpfs logs in and out: as a mount's source, by control file, over IPv4 and IPv6, with one and two channels; what it
# says when it is refused; what is left when it goes.

logged_in_facts() {     # CHANNELS
    local target lun
    target=$(srpfs_target)
    expect_equal "queue pairs of srpfs" "$(srpfs_qp_count)" "$1"
    expect_equal "their other ends" "$(($(qp_count) - $(srpfs_qp_count)))" "$1"
    expect_file "$target/state" running
    expect_file "$target/ch_count" "$1"
    expect_file "$target/roles" "SRP Target"
    for lun in "${data_luns[@]}"; do
        expect_equal "size of lun$lun" "$(stat -c %s "$target/lun$lun")" $((lun_mib << 20))
        expect_equal "mode of lun$lun" "$(stat -c %a "$target/lun$lun")" 600
        expect_file "$target/lun$lun.attr/logical_block_size" "${lun_blocks[$lun]}"
        expect_file "$target/lun$lun.attr/state" running
        expect_match "vendor of lun$lun" "$(<"$target/lun$lun.attr/vendor")" '^LIO-ORG$'
    done
}

test_srpfs_login_one_channel() {
    no_qps
    srpfs_mount "$login_string,ch_count=1"
    logged_in_facts 1
    within 10 dd if="$(srpfs_target)/lun0" of=/dev/null bs=1M count=1 status=none
    srpfs_umount
    no_qps
}

test_srpfs_login_two_channels() {
    no_qps
    srpfs_mount "$login_string,ch_count=2"
    logged_in_facts 2
    within 10 dd if="$(srpfs_target)/lun0" of=/dev/null bs=1M count=1 status=none
    srpfs_umount
    no_qps
}

test_srpfs_login_over_ipv6() {
    lio_allow fd09:0000:0000:0000:0000:0000:0000:0009
    srpfs_mount none
    write_file $mount_point/add_target "id_ext=$guid,ioc_guid=$guid,dest=[$address6]:$cm_port"
    within 10 dd if="$(srpfs_target)/lun0" of=/dev/null bs=4096 count=1 status=none
    srpfs_umount
    lio_deny fd09:0000:0000:0000:0000:0000:0000:0009
}

test_srpfs_mount_by_mount8() {
    mkdir -p $mount_point
    typed 60 "mount -t fuse.srpfs '$login_string' $mount_point"
    srpfs_is_mounted || fail "mount(8) returned 0 and nothing is mounted"
    expect_file "$(srpfs_target)/state" running
    typed 30 "umount $mount_point"
    wait_for 15 "no srpfs process" no_srpfs
}

no_srpfs() { ! pidof srpfs >/dev/null; }

# What the kernel's initiator shows of the same target, srpfs shows under the same names in the same words.
test_srpfs_attributes_agree_with_kernel() {
    local target host name lun disk
    kernel_login ch_count=2
    srpfs_initiator_ext=$initiator_ext_beside_kernel
    srpfs_mount "$login_string,ch_count=2,initiator_ext=$srpfs_initiator_ext"
    target=$(srpfs_target)
    host=/sys/class/scsi_host/host$kernel_host
    for name in id_ext ioc_guid sgid local_ib_device local_ib_port ch_count comp_vector tl_retry_count cmd_sg_entries \
        allow_ext_sg zero_req_lim; do
        expect_equal "$name" "$(<"$target/$name")" "$(<"$host/$name")"
    done
    for name in port_id roles state fast_io_fail_tmo dev_loss_tmo reconnect_delay failed_reconnects; do
        expect_equal "$name" "$(<"$target/$name")" "$(<"$kernel_port/$name")"
    done
    for name in ibdev port; do
        expect_equal "$name" "$(<"$port_directory/$name")" "$(<"/sys/class/infiniband_srp/srp-$rdma_device-1/$name")"
    done
    # No part of an RDMA/CM login in either.
    for name in pkey service_id dgid orig_dgid; do
        [[ ! -e $target/$name ]] || fail "$name is shown for an RDMA/CM login"
    done
    for lun in "${data_luns[@]}"; do
        disk=$(kernel_disk "$lun")
        disk=/sys/block/${disk#/dev/}
        for name in vendor model rev; do
            expect_equal "$name of lun$lun" "$(<"$target/lun$lun.attr/$name")" "$(sed 's/ *$//' "$disk/device/$name")"
        done
        for name in logical_block_size physical_block_size; do
            expect_equal "$name of lun$lun" "$(<"$target/lun$lun.attr/$name")" "$(<"$disk/queue/$name")"
        done
        expect_match "wwid of lun$lun" "$(<"$target/lun$lun.attr/wwid")" "$(sed 's/^naa\.//' "$disk/device/wwid")"
    done
}

hex_of() { od -An -v -tx1 "$1" | tr -d ' \n'; }

# raw_command DOOR CDB...: the answer is in `answer`, its data in `data`, in hexadecimal.
raw_command() {
    local door=$1
    shift
    # In one piece, as a control file wants it: bash writes 4096 bytes at a time.
    echo "$*" >sent
    exec 7<>"$door"
    within 20 cat sent >&7 || fail "$door: '$(cut -c1-60 sent)' is refused"
    within 20 cat <&7 >answer
    exec 7>&-
    data=$(sed -n 's/^[0-9a-f]\{8\}: //p' answer | cut -c1-47 | tr -d ' \n')
}

# What a CDB brings the kernel's initiator (sg_raw), it brings srpfs, byte for byte; and what one writes the other reads.
limit[srpfs_raw_commands_agree_with_kernel]=120
test_srpfs_raw_commands_agree_with_kernel() {
    local target lun disk door bytes cdb data name
    kernel_login ch_count=1
    srpfs_initiator_ext=$initiator_ext_beside_kernel
    srpfs_mount "$login_string,initiator_ext=$srpfs_initiator_ext" -o raw_commands=all
    target=$(srpfs_target)
    for lun in 1 4; do
        disk=$(kernel_disk $lun)
        door=$target/lun$lun.attr/cdb
        while read -r bytes cdb; do
            rm -f expected
            within 20 sg_raw -r "$bytes" -o expected "$disk" $cdb 2>sg_raw.err || fail "sg_raw $cdb: $(<sg_raw.err)"
            raw_command "$door" "$cdb"
            expect_match "the answer to $cdb" "$(<answer)" 'status GOOD'
            expect_equal "data of $cdb of lun$lun" "$data" "$(hex_of expected)"
        done <<END
255 12 00 00 00 ff 00
255 12 01 00 00 ff 00
512 12 01 83 02 00 00
128 12 01 b0 00 80 00
64 12 01 b2 00 40 00
8 25 00 00 00 00 00 00 00 00 00
32 9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00
255 1a 00 3f 00 ff 00
256 5a 08 3f 00 00 00 00 01 00 00
256 5e 00 00 00 00 00 00 01 00 00
256 a3 0a 00 00 00 00 00 00 01 00 00 00
${lun_blocks[$lun]} 28 00 00 00 00 03 00 00 01 00
END
        raw_command "$door" 28 00 7f ff ff 00 00 00 01 00
        expect_match "a READ beyond the end" "$(<answer)" '5/21/00'
        raw_command "$door" ee 00 00 00 00 00 00 00 00 00
        expect_match "a command that LIO does not know" "$(<answer)" '5/20/00'
        # Block 3, by hand; the kernel's initiator and the backing file have it.
        head -c "${lun_blocks[$lun]}" /dev/urandom >written
        raw_command "$door" 2a 00 00 00 00 03 00 00 01 00 out="$(hex_of written)"
        expect_match "the answer to WRITE(10)" "$(<answer)" 'status GOOD'
        kernel_read "$disk" read
        read_backing "$lun" backing
        for name in read backing; do
            dd if=$name of=block bs="${lun_blocks[$lun]}" skip=3 count=1 status=none
            expect_same "block 3 ($name) of lun$lun, written by hand" block written
        done
    done
    # No length is sent that the CDB does not say: LIO fails some and may not survive others.
    door=$target/lun1.attr/cdb
    expect_match "a length that is not the CDB's" "$(write_refused "$door" '12 00 00 00 60 00 in=95')" 'Invalid argument'
    expect_match "REPORT LUNS, which is srpfs's own" "$(write_refused "$door" 'a0 00 00 00 00 00 00 00 04 00 00 00')" 'Invalid argument'
    expect_match "a READ with data out" "$(write_refused "$door" '28 00 00 00 00 00 00 00 01 00 out=00')" 'Invalid argument'
    srpfs_umount
    kernel_logout
}

test_srpfs_lun_names_and_write_protection() {
    local target
    srpfs_mount "$login_string"
    target=$(srpfs_target)
    expect_file "$target/lun$lun_write_protected.attr/read_only" 1
    expect_file "$target/lun0.attr/read_only" 0
    expect_match "error of a write to a write-protected LUN" \
        "$(write_refused "$target/lun$lun_write_protected" x)" '^Read-only file system$'
    # LIO puts the number plainly into the first two bytes, which above 255 is no peripheral address.
    expect_equal "names of LUNs" "$(cd "$target" && echo lun* | tr ' ' '\n' | grep -v attr | sort | tr '\n' ' ')" \
        "lun0 lun0x$(printf '%04x' $lun_beyond_255)000000000000 lun1 lun2 lun3 lun4 lun5 lun6 lun7 "
    within 10 dd if="$target/lun0x$(printf '%04x' $lun_beyond_255)000000000000" of=read bs=1M status=none
    expect_equal "bytes of the LUN beyond 255" "$(stat -c %s read)" $((1 << 20))
}

test_srpfs_rescan() {
    local target
    srpfs_mount "$login_string"
    target=$(srpfs_target)
    lio_hide $address 6
    write_file "$target/rescan" 1
    wait_for 10 "lun6 gone" test ! -e "$target/lun6"
    expect_file "$target/state" running
    mkdir "$tpg/acls/$address/lun_6"
    ln -s "$tpg/lun/lun_6" "$tpg/acls/$address/lun_6/lun"
    write_file "$target/rescan" 1
    wait_for 10 "lun6 back" test -e "$target/lun6"
    within 10 dd if="$target/lun6" of=/dev/null bs=1M count=1 status=none
}

# Two logins side by side under different names; the same nexus twice is refused, whoever holds it.
test_srpfs_nexus_is_never_taken_twice() {
    local error
    srpfs_mount "$login_string"
    srpfs_refused "File exists" 'already|logged in' "$login_string"
    srpfs_login initiator_ext=00000000000000aa
    [[ -e $(srpfs_target)-00000000000000aa/lun0 ]] || fail "no directory for the second login"
    within 10 cmp -n 65536 "$(srpfs_target)/lun0" "$(srpfs_target)-00000000000000aa/lun0" || fail "one LUN, different bytes"

    # Another srpfs cannot take it either.
    mkdir -p /mnt/other
    error=$(within 60 srpfs "$login_string" /mnt/other 2>&1) && fail "a second srpfs took the same nexus"
    note "$error"
    expect_match "the second srpfs's message" "$error" 'another srpfs.*initiator_ext'
    expect_file "$(srpfs_target)/state" running
    within 10 dd if="$(srpfs_target)/lun0" of=/dev/null bs=4096 count=1 status=none
}

test_srpfs_nexus_of_the_kernel_is_never_taken() {
    srpfs_mount none
    kernel_login initiator_ext=0000000000000000
    srpfs_refused "File exists" 'ib_srp.*initiator_ext' "$login_string"
    expect_file "$kernel_port/state" running
    # An identity of its own is all it needs.
    srpfs_initiator_ext=$initiator_ext_beside_kernel
    srpfs_login "initiator_ext=$srpfs_initiator_ext"
    within 10 dd if="$(srpfs_target)/lun0" of=/dev/null bs=4096 count=1 status=none
    kernel_disk 0
    expect_file "$kernel_port/state" running
    expect_file "$(srpfs_target)/state" running
}

test_srpfs_wrong_acl() {
    lio_deny $address
    srpfs_mount none
    srpfs_refused "Connection refused" 'ACL' "$login_string"
    # With the ACL the same string works.
    target_allow
    srpfs_login
    expect_file "$(srpfs_target)/state" running
}

test_srpfs_wrong_guid() {
    srpfs_mount none
    srpfs_refused "Connection refused" 'id_ext|ioc_guid|GUID' \
        "id_ext=0000000000000bad,ioc_guid=0000000000000bad,dest=$address:$cm_port"
    srpfs_refused "Connection refused" 'id_ext|ioc_guid|GUID' "id_ext=$guid,ioc_guid=0000000000000bad,dest=$address:$cm_port"
}

test_srpfs_wrong_port() {
    srpfs_mount none
    srpfs_refused "Connection refused" 'listen|port' "id_ext=$guid,ioc_guid=$guid,dest=$address:5556"
}

test_srpfs_disabled_target() {
    lio_enable 0
    srpfs_mount none
    srpfs_refused "Connection refused" 'enable|disable' "$login_string"
    lio_enable 1
    srpfs_login
    expect_file "$(srpfs_target)/state" running
}

limit[srpfs_unreachable_address]=90
test_srpfs_unreachable_address() {
    srpfs_mount none
    # An address of the right network where nobody answers, and one of no network at all.
    srpfs_refused "No such device or address|No route to host|Connection timed out|Network is unreachable" \
        'address|route|answer|reach' "id_ext=$guid,ioc_guid=$guid,dest=10.9.9.77:$cm_port"
    srpfs_refused "No such device or address|No route to host|Connection timed out|Network is unreachable" \
        'address|route|answer|reach' "id_ext=$guid,ioc_guid=$guid,dest=192.0.2.1:$cm_port"
}

# Nobody waits for this login, so only the events say how it went.
limit[srpfs_failed_login_of_the_source_is_an_event]=90
test_srpfs_failed_login_of_the_source_is_an_event() {
    local string="id_ext=$guid,ioc_guid=$guid,dest=10.9.9.77:$cm_port"
    srpfs_mount "$string" -o wait=none,login_timeout=1
    wait_for 30 "the event" grep -q '"login_failed"' $mount_point/events.log
    grep -m 1 '"login_failed"' $mount_point/events.log >event
    cat event
    expect_match "its login string" "$(<event)" '"login": ?"[^"]*dest=10\.9\.9\.77'
    expect_match "its reason" "$(<event)" '"reason": ?"[^"]*(address|route|answer|reach)'
    srpfs_umount
}

# A login string as ibsrpdm -c prints it on InfiniBand: rxe has no such link, and srpfs has to say so in time.
test_srpfs_infiniband_string_on_roce() {
    local gid
    gid=$(tr -d : </sys/class/infiniband/$rdma_device/ports/1/gids/0)
    srpfs_mount none
    srpfs_refused ".+" 'InfiniBand|AF_IB|IB|port|route' "id_ext=$guid,ioc_guid=$guid,dgid=$gid,pkey=ffff,service_id=$guid"
}

test_srpfs_bad_strings() {
    local string
    srpfs_mount none
    for string in "id_ext=$guid" "id_ext=$guid,ioc_guid=$guid" "$login_string,colour=blue" "$login_string,ch_count=0" \
        "$login_string,tl_retry_count=8" "$login_string,queue_size=-1" "id_ext=xyz,ioc_guid=$guid,dest=$address:$cm_port"; do
        expect_match "error for '$string'" "$(write_refused $mount_point/add_target "$string")" '^Invalid argument$'
        [[ $(<$mount_point/last_error) ]] || fail "last_error is empty after '$string'"
    done
    expect_equal "queue pairs of srpfs" "$(srpfs_qp_count)" 0
}

# The parent of a mount that failed: exit status 32, one line, nothing mounted, no process, no pid file.
test_srpfs_mount_says_why_not() {
    local case hint setting
    for case in acl guid port disabled; do
        setting=$login_string
        case $case in
            acl) lio_deny $address; hint=ACL ;;
            guid) setting="id_ext=0000000000000bad,ioc_guid=0000000000000bad,dest=$address:$cm_port"; hint='id_ext|ioc_guid|GUID' ;;
            port) setting="id_ext=$guid,ioc_guid=$guid,dest=$address:5556"; hint='listen|port' ;;
            disabled) lio_enable 0; hint='enable|disable' ;;
        esac
        srpfs_try_mount "$setting"
        note "$case: $mount_status: $mount_message"
        expect_equal "$case: exit status" "$mount_status" 32
        expect_match "$case: message" "$mount_message" "$hint"
        expect_equal "$case: lines on standard error" "$(wc -l <$scratch/mount.err)" 1
        ! srpfs_is_mounted || fail "$case: still mounted"
        wait_for 10 "$case: no srpfs process" no_srpfs
        [[ ! -e $pid_file ]] || fail "$case: the pid file is still there"
        case $case in
            acl) target_allow ;;
            disabled) lio_enable 1 ;;
        esac
    done
}

# why_says VERDICT TEXT ADVICE [LOGIN-STRING | MOUNT-POINT]: srpctl why has one finding of this kind, with these words, and its exit status fits.
why_says() {
    local said status=0 found
    said=$(within 60 srpctl --output plain why "${@:4}") || status=$?
    found=$(grep -cE "^$1"$'\t[^\t]*\t'"[^"$'\t'"]*$2[^"$'\t]*\t'"[^"$'\t'"]*$3" <<<"$said") || true
    note "$said"
    expect_equal "findings of why with '$2' and '$3'" "$found" 1
    expect_equal "exit status of why" "$status" "$(if grep -q '^wrong' <<<"$said"; then echo 12; else echo 0; fi)"
}

# Broken in one way at a time, and put right again. Files of the kernel are changed by mounting something over them.
limit[srpfs_why_names_the_cause]=240
test_srpfs_why_names_the_cause() {
    local port=/sys/class/infiniband/$rdma_device/ports/1 other="id_ext=$guid,ioc_guid=$guid,initiator_ext=7"
    why_says note 'Nothing is mounted' 'srpfs none /srp'
    mv /dev/fuse /dev/fuse.away
    why_says wrong 'There is no /dev/fuse' 'modprobe fuse'
    mv /dev/fuse.away /dev/fuse
    mount -t tmpfs none /sys/class/infiniband
    why_says wrong 'There is no RDMA device' 'rdma link add'
    umount /sys/class/infiniband
    mount -t tmpfs none /dev/infiniband
    why_says wrong 'There is no /dev/infiniband/uverbs' 'modprobe ib_uverbs'
    umount /dev/infiniband
    echo '1: DOWN' >down
    mount --bind down $port/state
    why_says wrong "The port is DOWN: .*$netdev.* is down" 'ip link set'
    umount $port/state
    mount -t tmpfs none $port/gids
    why_says wrong 'active but has no GID' "Give $netdev an address"
    umount $port/gids
    mkdir -p /etc/srpfs
    echo 'reconect_delay = 5' >/etc/srpfs/srpfs.conf
    why_says wrong '/etc/srpfs/srpfs.conf:1: ' 'srpctl config check'
    rm /etc/srpfs/srpfs.conf
    why_says wrong 'leave by lo, which has no RDMA device' 'network of an RDMA interface' "$other,dest=127.0.0.1:$cm_port"
    why_says wrong 'No active InfiniBand port is in its subnet' 'ibsrpdm' "$other,pkey=ffff,dgid=fe800000000000000000000000000001,service_id=1"

    # What a login that was refused leaves in last_error, in the words of the target and of the kernel here.
    srpfs_mount none
    lio_deny $address
    why_after_login "$login_string" 'ACL' 'create the ACL'
    target_allow
    why_after_login "id_ext=0000000000000bad,ioc_guid=$guid,dest=$address:$cm_port" '.' 'id_ext or ioc_guid is wrong'
    why_after_login "id_ext=$guid,ioc_guid=$guid,dest=$address:5556" 'nobody listens there' 'port number .* is wrong'
    lio_enable 0
    why_after_login "$login_string" '.' 'Enable the target port|target is not enabled'
    lio_enable 1
    why_after_login "id_ext=$guid,ioc_guid=$guid,dest=10.9.9.77:$cm_port" '.' 'No host has this address|RDMA connection manager does not answer'
    why_after_login "id_ext=$guid,ioc_guid=$guid,dest=192.0.2.1:$cm_port" '.' 'no route to that network|without RDMA'

    # Others who are logged in, a mount point in use, a target that goes away.
    kernel_login initiator_ext=0000000000000000
    why_after_login "$login_string" 'ib_srp' 'Log ib_srp out'
    why_says wrong "The kernel's ib_srp \(host$kernel_host\) is logged in to this target with the same initiator_ext" 'Log it out' "$login_string"
    kernel_logout
    srpfs_login
    why_says wrong "srpfs \(process $srpfs_pid\) is logged in to this target with the same initiator_ext" 'srpctl logout' "$login_string"
    why_says wrong 'srpfs is mounted there already' 'umount' $mount_point
    why_says good 'Runs, with [0-9]* LUNs' -
    lio_enable 0
    wait_for 30 "the target is lost" state_is blocked
    why_says wrong "The connection to $address:$cm_port is lost and I/O waits" 'srpfs tries again by itself'
    lio_enable 1
    wait_for 60 "the target is back" state_is running
    why_says good 'Runs, with [0-9]* LUNs' -
}

why_after_login() {     # LOGIN-STRING TEXT ADVICE
    write_refused $mount_point/add_target "$1" >/dev/null
    why_says wrong "No target is logged in to. The last attempt failed: .*($2)" "($3)"
}

limit[srpctl_lists_and_copies]=90
test_srpctl_lists_and_copies() {
    local lun
    srpfs_mount "$login_string,ch_count=2"
    within 30 srpctl list >list.out || fail "srpctl list ended with $?"
    cat list.out
    for lun in "${data_luns[@]}"; do
        expect_match "lun$lun in the list" "$(<list.out)" \
            "^srp-$rdma_device-1 +$guid-$guid +lun$lun +running +$lun_mib MiB +rw +LIO-ORG [^ ]+ +$(<"$(srpfs_target)/lun$lun.attr/wwid")$"
    done
    expect_match "what is write-protected in the list" "$(<list.out)" " lun$lun_write_protected +running +1 MiB +ro "
    expect_equal "lines of the list" "$(wc -l <list.out)" 10
    within 60 dd if=$pattern of="$(srpfs_target)/lun1" bs=1M conv=notrunc status=none
    typed 60 "srpctl copy --verify lun1 ./copy"
    expect_same "a LUN copied to a file" copy $pattern
    truncate -s 7M copy
    typed 60 "dd if=/dev/zero of=copy bs=1M seek=2 count=1 conv=notrunc status=none"
    cp /lun/file4096 shadow
    dd if=copy of=shadow bs=1M conv=notrunc status=none
    typed 60 "srpctl copy --yes --verify ./copy lun4"
    expect_same "the backing of what a file was copied to" ${backing_of[4]} shadow
    typed 60 "srpctl copy --yes --verify lun1 lun5"
    read_backing 5 backing
    expect_same "the backing of what a LUN was copied to" backing $pattern
    ! typed 60 "srpctl copy --yes lun1 lun$lun_write_protected" >copy.out 2>&1 || fail "a copy onto a smaller unit succeeded"
    expect_match "what it says" "$(<copy.out)" 'more than .* has; nothing was written'
    srpfs_umount
}

# ---- going ----

test_srpfs_umount_logs_out() {
    no_qps
    srpfs_mount "$login_string"
    srpfs_umount
    # The target was told; a connection that only falls silent would stay for ever.
    no_qps
    expect_equal "memory regions of srpfs" "$(rdma_count mr)" 0
}

test_srpfs_ends_on_sigterm() {
    no_qps
    srpfs_mount "$login_string"
    kill -TERM "$srpfs_pid"
    srpfs_wait_end
    ! srpfs_is_mounted || fail "still mounted after SIGTERM"
    no_qps
}

# Killed, it cannot log out; the kernel closes its connections, umount(8) cleans the mount, and the next one works.
test_srpfs_killed() {
    no_qps
    srpfs_mount "$login_string"
    kill -KILL "$srpfs_pid"
    wait_for 10 "srpfs process gone" test ! -d "/proc/$srpfs_pid"
    within 10 umount $mount_point || fail "umount after kill -9 failed"
    no_qps
    srpfs_mount "$login_string"
    within 10 dd if="$(srpfs_target)/lun0" of=/dev/null bs=4096 count=1 status=none
    srpfs_umount
}

held_by_srpfs() {
    echo "qp $(srpfs_qp_count) mr $(rdma_count mr) pd $(rdma_count pd)" \
        "cm_id $(rdma_count cm_id) ctx $(rdma_count ctx) fd $(find "/proc/$srpfs_pid/fd" -mindepth 1 | wc -l)"
}

holds() { [[ $(held_by_srpfs) == "$1" ]]; }
