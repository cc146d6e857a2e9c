# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash
#
# Last, because nothing can follow it without another set-up.

test_teardown_leaves_nothing() {
    no_qps
    target_down
    expect_equal "RDMA devices" "$(rdma link show)" ''
    wait_for 10 "ib_srpt unloaded" modprobe -q -r ib_srpt ib_srp
    # And once more from the start: nothing of the first time is in the way.
    target_up
    kernel_login
    kernel_disk 0
    kernel_logout
}
