# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034,SC2086  # variables of lib.sh, without blanks
#
# TO BE WIRED: the kernel's own initiator logs in to srpfs's embedded target through the verbs fabric's listening side,
# and what it sends becomes golden bytes. Needs build/tests/srpfs-listen, of which is assumed here:
#
#   srpfs-listen ADDRESS:PORT        listens until SIGTERM; prints "listening", then one line for each thing received:
#                                    "login HEX" (the private data) and "iu HEX" (a whole information unit)
#
# Its target port has the id_ext and ioc_guid 0000000000000001, as the demonstration target.

test_own_target_kernel_login_bytes() {
    local listener
    command -v srpfs-listen >/dev/null || skip "to be wired: no srpfs-listen in the build"
    srpfs-listen $address:5600 >received 2>errors &
    listener=$!
    wait_for 10 "srpfs-listen listening" grep -q listening received
    kernel_login id_ext=0000000000000001,ioc_guid=0000000000000001 dest=$address:5600 ch_count=1 ||
        fail "ib_srp: $kernel_error; $(cat errors)"
    kernel_disk 0
    kernel_logout
    kill -TERM $listener
    wait_for 10 "srpfs-listen gone" has_ended "$listener"
    expect_match "login bytes" "$(grep -c '^login ' received)" '^1$'
    expect_match "the login's length" "$(sed -n 's/^login \(.\{112\}\).*/56 bytes/p' received)" '56 bytes'
    # Who keeps golden bytes compares with them; to renew them: tests/guest/run own_target_kernel_login_bytes
    sed 's/^/golden: /' received
}
