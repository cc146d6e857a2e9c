# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034  # variables of lib.sh
#
# The rows of docs/tools.md on units of LIO's.

# An image with holes, and a loop device, from which holes come as well.
rows_of_every_run=(cp_sparse_always_writes_an_image loop_devices_with_direct_io_are_exact)

limit[srpfs_tools_are_exact]=120
limit_full[srpfs_tools_are_exact]=5000
test_srpfs_tools_are_exact() {
    local rows=("${rows_of_every_run[@]}") status=0
    tools_up
    if [[ ${full:-} ]]; then
        rows=()
        more_kernel
    fi
    run_tools "${rows[@]}" >tools.out 2>&1 || status=$?
    cat tools.out
    # Some rows cannot be run anywhere in here, which they say.
    ((status == 0)) || fail "$(grep -m 1 '^not ok' tools.out || tail -n 1 tools.out)"
    expect_match "what was run" "$(tail -n 1 tools.out)" "^tools: [1-9][0-9]* passed, 0 failed"
    tools_down
}
