# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034,SC2086  # variables of lib.sh, without blanks
#
# The kernel's own initiator against the target: proves the guest before srpfs is judged in it.

test_kernel_login_and_inquiry() {
    local disk lun
    no_qps
    kernel_login ch_count=1
    expect_equal "queue pairs, both ends of one channel" "$(qp_count)" 2
    expect_file "$kernel_port/state" running
    for lun in "${data_luns[@]}"; do
        disk=$(kernel_disk "$lun")
        expect_match "INQUIRY of LUN $lun" "$(within 10 sg_inq "$disk")" 'Vendor identification: LIO-ORG'
        expect_equal "block size of LUN $lun" "$(blockdev --getss "$disk")" "${lun_blocks[$lun]}"
        expect_equal "size of LUN $lun" "$(blockdev --getsize64 "$disk")" $((lun_mib << 20))
    done
    kernel_logout
}

test_kernel_login_two_channels() {
    no_qps
    kernel_login ch_count=2
    expect_file "/sys/class/scsi_host/host$kernel_host/ch_count" 2
    expect_equal "queue pairs, both ends of two channels" "$(qp_count)" 4
    kernel_logout
    no_qps
}

test_kernel_writes_reach_the_backing() {
    local lun disk block
    kernel_login
    for lun in "${data_luns[@]}"; do
        disk=$(kernel_disk "$lun")
        block=${lun_blocks[$lun]}
        cp "$pattern" shadow
        within 60 dd if=shadow of="$disk" bs=1M oflag=direct status=none
        # shellcheck disable=SC2046  # one word a range
        put_direct "$disk" shadow "${whole_blocks[@]}" $( ((block > 512)) || echo "${sectors[@]}")
        kernel_read "$disk" read
        expect_same "LUN $lun read back" read shadow
        [[ ! ${backing_of[$lun]:-} ]] || {
            read_backing "$lun" backing
            expect_same "backing of LUN $lun" backing shadow
        }
    done
}

test_kernel_login_over_ipv6() {
    lio_allow fd09:0000:0000:0000:0000:0000:0000:0009
    kernel_login "dest=[$address6]:$cm_port" || fail "ib_srp: $kernel_error"
    kernel_disk 0
    kernel_logout
    lio_deny fd09:0000:0000:0000:0000:0000:0000:0009
}

test_kernel_login_refused() {
    lio_deny "$address"
    ! kernel_login || fail "login without an ACL succeeded"
    note "no ACL: $kernel_error"
    target_allow
    lio_enable 0
    ! kernel_login || fail "login to a disabled target succeeded"
    note "disabled: $kernel_error"
    lio_enable 1
    ! kernel_login "dest=$address:5556" || fail "login to a port without listener succeeded"
    note "no listener: $kernel_error"
    ! kernel_login "ioc_guid=0000000000000bad" || fail "login to an unknown target port succeeded"
    note "unknown port: $kernel_error"
}
