# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034,SC2086  # variables of lib.sh, without blanks
#
# Bytes: what srpfs writes is what the kernel's initiator and the backing hold, and the other way round.

# Both initiators are logged in at once, under identities of their own. A shadow file holds what the LUN should.
cross_check() {         # LOGIN-KEYS LUN...
    local keys=$1 lun disk file
    shift
    kernel_login
    srpfs_initiator_ext=$initiator_ext_beside_kernel
    srpfs_mount "$login_string,initiator_ext=$srpfs_initiator_ext${keys:+,$keys}"
    for lun; do
        disk=$(kernel_disk "$lun")
        file=$(srpfs_target)/lun$lun

        # What the kernel wrote: the whole, then pieces, read by srpfs.
        cp $pattern shadow
        within 60 dd if=shadow of="$disk" bs=1M oflag=direct status=none
        put_direct "$disk" shadow "${whole_blocks[@]}"
        expect_lun "lun$lun through srpfs, written by the kernel" "$file" shadow
        get "$file" shadow "${whole_blocks[@]}" "${sectors[@]}" "${odd_ranges[@]}"

        # What srpfs writes, read by the kernel and from the backing.
        put "$file" shadow "${whole_blocks[@]}" "${sectors[@]}" "${odd_ranges[@]}"
        kernel_read "$disk" read
        expect_same "LUN $lun read by the kernel, written by srpfs" read shadow
        [[ ! ${backing_of[$lun]:-} ]] || {
            read_backing "$lun" backing
            expect_same "backing of LUN $lun, written by srpfs" backing shadow
        }
        expect_lun "lun$lun read back by srpfs" "$file" shadow
    done
    srpfs_umount
}

limit[srpfs_and_kernel_agree_512]=120
test_srpfs_and_kernel_agree_512() { cross_check '' 0 1 2; }

limit[srpfs_and_kernel_agree_4096]=120
test_srpfs_and_kernel_agree_4096() { cross_check '' 3 4 5; }

limit[srpfs_and_kernel_agree_one_channel]=90
test_srpfs_and_kernel_agree_one_channel() { cross_check ch_count=1 4; }

limit[srpfs_and_kernel_agree_no_immediate_data]=90
test_srpfs_and_kernel_agree_no_immediate_data() { cross_check use_imm_data=0,ch_count=2 1 4; }

test_srpfs_and_kernel_agree_little_immediate_data() { cross_check max_imm_data=1024 2; }

test_srpfs_and_kernel_agree_one_command_at_a_time() { cross_check queue_size=1,ch_count=1 1; }

# Without conv=notrunc: the kernel asks for truncation, which a disk cannot do and srpfs emulates.
test_srpfs_dd_without_notrunc() {
    local file
    srpfs_mount "$login_string"
    file=$(srpfs_target)/lun1
    cp $pattern shadow
    typed 60 "dd if=$pattern of=$file bs=1M"
    expect_same "backing after dd" /lun/file512 shadow
    typed 60 "dd if=/dev/zero of=$file bs=64k count=3"
    dd if=/dev/zero of=shadow bs=64k count=3 conv=notrunc status=none
    expect_same "backing after a short dd" /lun/file512 shadow
    typed 60 "dd if=/dev/zero of=$file bs=1000 count=5 seek=77"
    dd if=/dev/zero of=shadow bs=1000 count=5 seek=77 conv=notrunc status=none
    expect_equal "size after dd" "$(stat -c %s "$file")" $((lun_mib << 20))
    expect_same "backing beyond what dd wrote" /lun/file512 shadow -i 82000
    ! typed 60 "dd if=/dev/zero of=$file bs=1M seek=$lun_mib count=1 conv=notrunc" >out 2>&1 || fail "a write behind the end succeeded"
    expect_match "dd behind the end" "$(cat out)" 'No space left on device'
    expect_same "backing after that" /lun/file512 shadow -i 82000
}

# On units that refuse WRITE SAME (ramdisk), that have it, and that unmap with it.
limit[srpfs_holes_become_zeros]=180
test_srpfs_holes_become_zeros() {
    local file lun attribute
    for attribute in emulate_tpu emulate_tpws; do echo 1 >$core/fileio_0/file4096/attrib/$attribute; done
    srpfs_mount "$login_string"
    truncate -s 3M holes
    dd if=$pattern of=holes bs=4k count=3 seek=5 conv=notrunc status=none
    dd if=$pattern of=holes bs=4k count=100 seek=400 conv=notrunc status=none
    for lun in 0 1 2 4; do
        file=$(srpfs_target)/lun$lun
        cp $pattern shadow
        typed 60 "dd if=$pattern of=$file bs=1M conv=notrunc"
        typed 60 "fallocate --punch-hole --offset 4096 --length 1048576 $file"
        typed 60 "fallocate --punch-hole --offset 3100001 --length 70007 $file"
        typed 60 "fallocate --zero-range --offset 4194304 --length 12345 $file"
        fallocate --punch-hole --offset 4096 --length 1048576 shadow
        fallocate --punch-hole --offset 3100001 --length 70007 shadow
        dd if=/dev/zero of=shadow bs=12345 count=1 oflag=seek_bytes seek=4194304 conv=notrunc status=none
        expect_lun "lun$lun with holes" "$file" shadow
        typed 60 "cp --sparse=always holes $file"
        dd if=holes of=shadow bs=1M conv=notrunc status=none
        expect_lun "lun$lun after a sparse copy" "$file" shadow
        [[ ! ${backing_of[$lun]:-} ]] || {
            read_backing "$lun" backing
            expect_same "backing of LUN $lun" backing shadow
        }
    done
    srpfs_umount
    for attribute in emulate_tpu emulate_tpws; do echo 0 >$core/fileio_0/file4096/attrib/$attribute; done
}

# A LUN with a volatile write cache: flushed on request.
test_srpfs_flush_of_a_write_cache() {
    local file=
    srpfs_mount "$login_string"
    file=$(srpfs_target)/lun$lun_with_cache
    typed 60 "dd if=$pattern of=$file bs=256k conv=notrunc,fsync"
    typed 60 "dd if=$pattern of=$file bs=4k count=64 oflag=dsync conv=notrunc"
    typed 60 "dd if=$pattern of=$file bs=512 count=16 oflag=direct,sync conv=notrunc"
    typed 60 "sync $file"
    expect_same "backing of the cached LUN" "${backing_of[$lun_with_cache]}" $pattern
    srpfs_umount
    expect_same "the same after umount" "${backing_of[$lun_with_cache]}" $pattern
}

# Each command opens its own memory and closes it again: the same bytes, and rxe refuses what would be too late.
limit[srpfs_windows_fio_verify]=150
test_srpfs_windows_fio_verify() {
    local target lun broken retransmissions
    rdma_counters >counters.before
    retransmissions=$(rdma_counter completer_retry_err)
    srpfs_mount "$login_string,ch_count=2" -o register=window
    target=$(srpfs_target)
    expect_match "the log" "$(srpfs_said)" 'register=window: targets reach the memory of a command only'
    cp $pattern shadow
    put "$target/lun1" shadow "${whole_blocks[@]}" "${sectors[@]}" "${odd_ranges[@]}"
    get "$target/lun1" shadow "${whole_blocks[@]}" "${sectors[@]}" "${odd_ranges[@]}"
    for lun in 0 4; do
        within 60 fio --name=windows$lun --filename="$target/lun$lun" --size=${lun_mib}M --direct=1 --ioengine=libaio \
            --iodepth=16 --rw=randrw --bssplit=4k/60:16k/30:256k/10 --verify=crc32c --verify_fatal=1 --verify_backlog=64 \
            --time_based=1 --runtime="$(short_or_full 4 20)" --eta=never --output=fio.out ||
            { tail -n 20 fio.out; fail "fio on lun$lun: $(grep -m 1 -iE 'verify|error|err=' fio.out)"; }
        grep -E '^ +(read|write): IOPS' fio.out
    done
    # When rxe sends something again (here because the machine is slow), it repeats finished binds that stand behind it, finds
    # them impossible, and breaks the connection. Nothing else may.
    retransmissions=$(($(rdma_counter completer_retry_err) - retransmissions))
    broken=$(srpfs_said | grep -E 'channel [0-9]+ ended' || true)
    [[ ! $broken ]] || ((retransmissions)) ||
        fail "a connection broke: $broken; counted: $(rdma_counters | diff counters.before - | sed -n 's/^> //p'); $(tail -n 3 <(dmesg))"
    [[ $broken ]] || expect_file "$target/failed_reconnects" 0
}

rdma_counters() { grep -H . /sys/class/infiniband/$rdma_device/ports/1/hw_counters/* | sed 's,.*/,,'; }
rdma_counter() { cat /sys/class/infiniband/$rdma_device/ports/1/hw_counters/"$1"; }

# For a minute: asynchronous, synchronous and io_uring, small, large and odd blocks, on both block sizes. Each
# job has an area of its own; every block carries a checksum and is read back and checked.
limit[srpfs_fio_verify]=150
test_srpfs_fio_verify() {
    local target lun disk
    srpfs_mount "$login_string,ch_count=2"
    target=$(srpfs_target)
    cat >verify.fio <<EOF2
[global]
verify=crc32c
verify_fatal=1
verify_backlog=256
time_based=1
runtime=20
rw=randwrite
group_reporting=1
[libaio-small]
ioengine=libaio
direct=1
iodepth=16
bs=4k
filename=$target/lun0
offset=0
size=4m
[libaio-mixed]
ioengine=libaio
direct=1
iodepth=4
bsrange=4k-256k
filename=$target/lun0
offset=4m
size=12m
[psync-odd]
stonewall
ioengine=psync
bs=3000
filename=$target/lun1
offset=0
size=3999000
[psync-sync]
ioengine=psync
sync=1
bs=8k
filename=$target/lun1
offset=4m
size=4m
[psync-mixed]
ioengine=psync
rw=randrw
bssplit=512/30:4k/40:64k/20:1m/10
filename=$target/lun1
offset=8m
size=8m
[uring-4096]
stonewall
ioengine=io_uring
direct=1
iodepth=8
bs=4k
filename=$target/lun4
offset=0
size=8m
[libaio-4096]
ioengine=libaio
direct=1
iodepth=8
bs=64k
filename=$target/lun3
size=16m
EOF2
    within 120 fio --eta=never --output=fio.out verify.fio || { tail -n 30 fio.out; fail "fio: $(grep -m 1 -iE 'verify|error|err=' fio.out)"; }
    grep -E '^ +(read|write): IOPS' fio.out
    ! grep -q 'err=[^ 0]' fio.out || fail "fio reports $(grep -m 1 -o 'err=[^,]*' fio.out)"
    # And what fio left is the same for everybody.
    kernel_login
    for lun in 0 1 3 4; do
        disk=$(kernel_disk "$lun")
        kernel_read "$disk" read
        expect_lun "LUN $lun after fio" "$target/lun$lun" read
    done
}
