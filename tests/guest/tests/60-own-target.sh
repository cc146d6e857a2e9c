# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034,SC2086  # variables of lib.sh, without blanks
#
# The other way round: the kernel's own initiator logs in to srpfs's embedded target through the verbs fabric, and a bare
# initiator puts questions to LIO. What either of them sends is compared with the bytes kept in tests/wire/captured,
# which the wire tests parse and write again.

captured=/guest/captured

# What differs from run to run: tags, memory addresses and keys, and the stale bytes between an immediate data count and
# the data.
without_varying_bytes() {
    sed -E -e 's/^(command .{16}).{16}/\1<tag           >/' \
        -e 's/^(command .{10}(01|10).{84}).{24}/\1<address and key        >/' \
        -e 's/^(command .{10}30.{92}).{32}/\1<stale                           >/' \
        -e 's/^(task-management .{16}).{16}/\1<tag           >/'
}

# expect_captured FILE LIVE: every unit kept in FILE has come in LIVE. To renew: take the lines from this test's output.
expect_captured() {
    local unit count=0
    without_varying_bytes <"$2" >live
    while read -r unit; do
        grep -qxF -- "$unit" live || fail "has not come: ${unit:0:160}"
        count=$((count + 1))
    done < <(grep -v '^#' "$1" | without_varying_bytes)
    note "$count units as captured"
    ((count > 10)) || fail "only $count units in $1"
}

own_target_listens() {
    srpfs-listen $address:5600 >received 2>errors &
    wait_for 20 "srpfs-listen listening" grep -q listening received
}

test_own_target_serves_the_kernel() {
    local disk lun listener
    own_target_listens
    listener=$!
    kernel_login id_ext=0000000000000001,ioc_guid=0000000000000001 dest=$address:5600 ch_count=1 ||
        fail "ib_srp: $kernel_error; $(cat errors)"
    disk=$(kernel_disk 0)
    kernel_disk 1

    # The commands of the captured bytes: small writes carry their data, larger ones point at it, and four pages fit
    # into the twelve segments of a command wherever they lie.
    printf 'srpfs%s' {1..100} | head -c 512 >block
    within 20 dd if=block of="$disk" bs=512 count=1 seek=8 oflag=direct status=none
    within 20 dd if=$pattern of="$disk" bs=16k count=1 seek=1 oflag=direct status=none
    within 20 dd if="$disk" of=read bs=16k count=1 skip=1 iflag=direct status=none
    expect_same "16 KiB through the embedded target" read $pattern -n 16384
    within 20 dd if="$disk" of=read bs=512 count=1 skip=8 iflag=direct status=none
    expect_same "512 bytes through the embedded target" read block
    within 20 sg_reset -d "$disk"
    # The kernel asks again after the unit attention.
    within 20 dd if="$disk" of=read bs=16k count=1 skip=1 iflag=direct status=none
    expect_same "the same after a reset" read $pattern -n 16384
    sed -e '/^login /s/^login/login-request-rdma/' -e 's/^iu 01/task-management 01/' -e 's/^iu 02/command 02/' received >units
    grep -E '^(login|task)|^command .{10}30|^command .{64}(2a|28)' units | cut -c1-600
    expect_captured $captured/ib_srp-6.1.hex units
    grep -q '^command .\{10\}30' units || fail "no immediate data came"
    kernel_logout

    # Every byte of both block sizes, over two channels.
    kernel_login id_ext=0000000000000001,ioc_guid=0000000000000001 dest=$address:5600 ch_count=2
    for lun in 0 1; do
        disk=$(kernel_disk $lun)
        expect_equal "block size of LUN $lun" "$(blockdev --getss "$disk")" $((lun ? 4096 : 512))
        expect_equal "size of LUN $lun" "$(blockdev --getsize64 "$disk")" $((lun_mib << 20))
        cp $pattern shadow
        within 60 dd if=shadow of="$disk" bs=1M oflag=direct status=none
        # shellcheck disable=SC2046  # one word a range
        put_direct "$disk" shadow "${whole_blocks[@]}" $( ((lun == 1)) || echo "${sectors[@]}")
        kernel_read "$disk" read
        expect_same "LUN $lun of the embedded target" read shadow
    done
    expect_match "VPD 83h" "$(within 10 sg_vpd -p di "$disk")" 'NAA'
    kernel_logout
    kill -TERM $listener
    wait_for 10 "srpfs-listen gone" has_ended "$listener"
    no_qps
}

test_target_answers_with_the_captured_bytes() {
    local status=0
    {
        within 40 srpfs-ask $address:$cm_port $guid
        status=0; within 40 srpfs-ask $address:$cm_port 0000000000000bad || status=$?
        expect_equal "exit status after a login to no target port" $status 3
        lio_deny $address
        status=0; within 40 srpfs-ask $address:$cm_port $guid || status=$?
        expect_equal "exit status after a login without ACL" $status 3
        target_allow
        lio_enable 0
        status=0; within 40 srpfs-ask $address:$cm_port $guid || status=$?
        expect_equal "exit status after a login to a disabled target" $status 3
        lio_enable 1
    } >units
    cut -c1-600 units
    expect_captured $captured/ib_srpt-6.1.hex units
    expect_equal "units sent" "$(grep -vc '^#' units)" "$(grep -vc '^#' $captured/ib_srpt-6.1.hex)"
    no_qps
}
