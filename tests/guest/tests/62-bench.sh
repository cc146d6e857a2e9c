# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034,SC2086  # variables of lib.sh, without blanks
#
# What tests/bench/guest --target starts on a machine with a real network: LIO stands for the target there.

limit[bench_measures_a_target_on_the_network]=90
test_bench_measures_a_target_on_the_network() {
    local peer job before
    before=$(sha256sum </lun/file512)
    cat >plan <<-END
	rounds 1
	size 4m
	best ch_count=1
	peer srpfs /usr/bin/srpfs -
	peer window /usr/bin/srpfs register=window
	peer wrong /usr/bin/srpfs no_such_option=1
	job rr4 ram,null 300 --rw=randread --bs=4k --ioengine=libaio --iodepth=4
	job sr1 null 300 --rw=read --bs=1m --ioengine=psync
	END
    within 80 /guest/guest-jobs --target $login_string --lun 1 --hca $rdma_device-1 plan >out 2>&1 || { cat out; fail "guest-jobs ended with $?"; }
    cat out
    # "run PEER UNIT JOB ROUND" and fio's line, whose 6th and 8th fields are KiB read and requests per second.
    for peer in ib_srp ib_srp-best srpfs window; do
        for job in rr4 sr1; do
            awk -v peer=$peer -v job=$job '
                $1 == "run" && $2 == peer && $3 == "target" && $4 == job && $5 == 1 {
                    split($0, field, ";"); found = field[5] == 0 && field[6] > 0 && field[8] > 0
                }
                END { exit !found }' out || fail "no result of $job on $peer"
        done
    done
    expect_equal "runs" "$(grep -c '^run ' out)" 8
    expect_match "who cannot be measured" "$(grep '^skip ' out)" "^skip wrong .*no_such_option"
    [[ ! -d /sys/module/ib_srp ]] || fail "ib_srp is still there"
    expect_equal "mounts left behind" "$(grep -c fuse.srpfs /proc/mounts || true)" 0
    [[ $(sha256sum </lun/file512) == "$before" ]] || fail "reading has changed the unit"
}
