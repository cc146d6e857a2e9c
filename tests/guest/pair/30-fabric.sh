# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034,SC2086  # variables of lib.sh, without blanks
#
# The verbs fabric by itself, both ends in one process, on an RDMA device of its own that goes down and away as it likes. It
# needs no other guest, but the pair has done its work long before the single guest.

limit[fabric_works_on_rxe]=150
test_fabric_works_on_rxe() {
    local status=0
    within 150 srpfs-fabric-probe >probe 2>&1 || status=$?
    cat probe
    ((status == 0)) || fail "$(grep -m 1 '^not ok' probe || echo "the probe ended with $status")"
    ! grep '^not ok' probe || fail "$(grep -m 1 '^not ok' probe)"
    # Not less than what it is for.
    grep -q '^ok survives the removal of its device' probe || fail "the probe has not come to its end"
    expect_match "its last line" "$(tail -n 1 probe)" '^fabric-probe: [0-9]+ passed, 0 failed$'
}
