# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034,SC2086  # variables of lib.sh, without blanks

# Step 7: I/O that does not end. The disk below a LUN swallows what it is given, until it goes on. The time limits are short
# ones, not to wait for a minute.
limit[srpfs_step_7_io_failure]=150
test_srpfs_step_7_io_failure() {
    local target writer status=0 word line last=0
    slow_disk_up
    srpfs_mount "$login_string" -o command_timeout=5,abort_timeout=2,reset_timeout=2
    target=$(srpfs_target)
    put "$target/lun$lun_slow" shadow 0:65536
    log_begins=$(wc -l <$srpfs_log)
    slow_disk_stops
    dd if=$pattern of="$target/lun$lun_slow" bs=4096 count=1 conv=notrunc oflag=direct status=none 2>error &
    writer=$!
    # Each word later in the log than the one before.
    for word in 'not answered in time' 'SRP abort called' 'SRP reset_device called' 'SRP reset_host called' \
        'connection closed|reconnect succeeded'; do
        wait_for 40 "'$word' in the log" log_has "$word" $last
        line=$(tail -n +$((log_begins + last + 1)) $srpfs_log | grep -niE -m 1 "$word")
        note "$(cut -d: -f2- <<<"$line")"
        last=$((last + ${line%%:*}))
    done
    # The other units of the target are none the worse for it.
    wait_for 60 "state running" state_is running
    within 30 dd if="$target/lun1" of=/dev/null bs=64k count=1 status=none
    slow_disk_goes_on
    wait_for 60 "the writer ended" has_ended $writer
    wait $writer || status=$?
    expect_equal "status of the writer" "$status" 0
    dd if=$pattern of=shadow bs=4096 count=1 conv=notrunc status=none
    get "$target/lun$lun_slow" shadow 0:65536
    srpfs_umount
    no_qps
    slow_disk_down
}

log_has() { tail -n +$((log_begins + $2 + 1)) $srpfs_log | grep -qiE "$1"; }
