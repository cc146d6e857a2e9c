# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034,SC2086  # variables of lib.sh, without blanks
#
# Target and initiator in two guests: what is sent really leaves, so it can be lost, and a cable can be pulled.

# The pair itself: data arrive at the other guest's backing file.
test_pair_carries_data() {
    srpfs_mount "$login_string,ch_count=2"
    put "$(srpfs_target)/lun1" shadow "${whole_blocks[@]}"
    get "$(srpfs_target)/lun1" shadow "${whole_blocks[@]}"
    srpfs_umount
    expect_equal "the backing file" "$(remote md5sum /lun/file512)" "$(md5sum <shadow | cut -d' ' -f1)  /lun/file512"
}
