# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2034  # what is set here is used by the tests
#
# What the tests in the guest are written with: an rxe device, LIO's SRP target on it, the kernel's own initiator, srpfs,
# and ways to wait and to compare. Sourced in the guest only.
#
# Two rules keep the guest alive. No CM message while the link is down: rxe's CM never recovers from it, so outages are
# made by disabling the target. No malformed descriptors to LIO: the kernel would go down with it.

# ------------------------------------------------------------------------------------------------ saying and waiting

scratch=/tmp/test                    # emptied before each test
reason_file=/run/test.reason         # why the running test failed; the first reason is the one that counts

note() { echo "$*"; }

fail() {
    [[ -e $reason_file ]] || echo "${*//$'\n'/ | }" >"$reason_file"
    exit 1
}

# Never counted as passed: the line says what was missing.
skip() {
    echo "${*//$'\n'/ | }" >"$reason_file"
    exit 77
}

# Bounds are written for an idle machine. CI's is slow and shared: they are that many times longer than they say.
patience=3

# wait_for SECONDS WHAT COMMAND...: until the command succeeds; after SECONDS the test fails for want of WHAT.
wait_for() {
    local seconds=$(($1 * patience)) what=$2
    local end=$((${EPOCHREALTIME/./} + seconds * 1000000))
    shift 2
    until "$@"; do
        ((${EPOCHREALTIME/./} < end)) || fail "not within $seconds s: $what"
        sleep 0.1
    done
}

# within SECONDS COMMAND...: the command's status, or a failed test when it takes longer. Programs only, no functions.
within() {
    local seconds=$(($1 * patience)) status=0
    shift
    timeout -k 3 "$seconds" "$@" || status=$?
    ((status != 124 && status != 137)) || fail "took more than $seconds s: $*"
    return "$status"
}

# Runs a line as a user would type it, and says so.
typed() {
    local seconds=$1
    shift
    note "# $*"
    within "$seconds" bash -c "$*"
}

expect_equal() {        # WHAT GOT WANTED
    [[ $2 == "$3" ]] || fail "$1 is '$2' instead of '$3'"
}

expect_match() {        # WHAT GOT EXTENDED-REGULAR-EXPRESSION, case does not matter
    grep -qiE -- "$3" <<<"$2" || fail "$1 is '$2', which has nothing of '$3'"
}

expect_file() {         # FILE WANTED-CONTENT
    expect_equal "$1" "$(<"$1")" "$2"
}

expect_same() {         # WHAT FILE FILE [CMP-OPTION...]: byte for byte, sizes included
    local what=$1 one=$2 other=$3 difference
    shift 3
    difference=$(within 60 cmp "$@" "$one" "$other" 2>&1) || fail "$what: $difference"
}

# The same for a file of srpfs, read in large pieces: cmp reads 4 KiB at a time, an emulated guest answers hundreds a
# second.
expect_lun() {          # WHAT LUN-FILE FILE
    within 60 dd if="$2" of="$scratch/lun" bs=1M status=none || fail "$1: cannot read $2"
    expect_same "$1" "$scratch/lun" "$3"
    rm "$scratch/lun"
}

# A process that is gone or waits for its parent to notice.
has_ended() { [[ ! -d /proc/$1 ]] || grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null; }

milliseconds() { echo $((${EPOCHREALTIME/./} / 1000)); }

# write_refused FILE TEXT: prints the error's text of a write that must fail ("Connection refused"), as bash gives it.
write_refused() {
    local status=0 output
    # shellcheck disable=SC2016
    output=$(within 30 bash -c 'echo "$1" >"$2"' - "$2" "$1" 2>&1) || status=$?
    ((status)) || fail "writing '$2' to $1 succeeded"
    echo "${output##*: }"
}

write_file() {          # FILE TEXT
    local output
    # shellcheck disable=SC2016
    output=$(within 30 bash -c 'echo "$1" >"$2"' - "$2" "$1" 2>&1) || fail "writing '$2' to $1: ${output##*: }"
}

# ------------------------------------------------------------------------------------------------------- RDMA device

netdev=eth9
address=10.9.9.1
address6=fd09::9
rdma_device=rxe9
cm_port=5555

# rxe on one end of a veth pair in one name space: traffic never leaves the device, only its link state matters.
rdma_up() {
    modprobe -a configfs veth rdma_rxe ib_uverbs rdma_ucm ib_umad
    # A fixed address, because the port GUID and so every name is made from it.
    ip link add $netdev address 02:00:00:00:00:09 type veth peer name ${netdev}p
    ip link set ${netdev}p mtu 4200 up
    ip link set $netdev mtu 4200
    ip addr add $address/24 dev $netdev
    ip -6 addr add $address6/64 dev $netdev nodad
    ip link set $netdev up
    rdma link add $rdma_device type rxe netdev $netdev
    wait_for 10 "port of $rdma_device active" rdma_is_active
}

rdma_is_active() { rdma link show $rdma_device/1 | grep -q 'state ACTIVE'; }

rdma_down() {
    within 60 rdma link del $rdma_device
    ip link del $netdev
}

# Of an object's owner, "rdma res" shows the kernel's modules as "comm [NAME]" and programs by the thread that made it,
# as long as that thread lives. So what is not the kernel's is srpfs's: no test has another program with RDMA meanwhile.
srpfs_objects() { grep -v ' comm \[' || true; }

# rdma_count KIND: how many qp, cq, mr, pd, cm_id or ctx srpfs has.
rdma_count() { rdma res show "$1" 2>/dev/null | srpfs_objects | grep -c . || true; }

# Connected queue pairs: of everybody, of srpfs.
qp_count() { rdma res show qp 2>/dev/null | grep -c ' type RC ' || true; }
srpfs_qp_count() { rdma res show qp 2>/dev/null | srpfs_objects | grep -c ' type RC ' || true; }

has_qps() { (($(qp_count) == $1)); }
srpfs_has_qps() { (($(srpfs_qp_count) == $1)); }

# The target frees its end of a connection some two seconds after the other end is gone.
no_qps() { wait_for 15 "no queue pair left" has_qps 0; }

# ------------------------------------------------------------------------------------------------------ target (LIO)

configfs=/sys/kernel/config
core=$configfs/target/core

lio_up() {
    modprobe -a target_core_mod target_core_file target_core_iblock ib_srpt
    mountpoint_is $configfs || mount -t configfs configfs $configfs
    mkdir -p /etc/target
    mkdir -p $configfs/target/srpt
    echo $cm_port >$configfs/target/srpt/discovery_auth/rdma_cm_port
    # The port directory is named by the interface half of GID 0; then the ACL of an RDMA/CM login is an IP address.
    local gid
    gid=$(</sys/class/infiniband/$rdma_device/ports/1/gids/0)
    gid=${gid#fe80:0000:0000:0000:}
    tpg=$configfs/target/srpt/$gid/$gid
    mkdir -p "$tpg"
    # Both halves of the target port identifier; the first RDMA device's node GUID.
    guid=$(printf '%016x' "$(</sys/module/ib_srpt/parameters/srpt_service_guid)")
    login_string="id_ext=$guid,ioc_guid=$guid,dest=$address:$cm_port"
    # Logins, logouts and task management appear in the kernel's log.
    echo 'module ib_srpt +p' >/sys/kernel/debug/dynamic_debug/control
}

# Enabled backstores; the block size must be set between enabling and mapping.
lio_ramdisk() {         # NAME MIB BLOCK-SIZE
    mkdir -p "$core/rd_mcp_0/$1"
    echo "rd_pages=$(($2 * 256))" >"$core/rd_mcp_0/$1/control"
    lio_finish_backstore "rd_mcp_0/$1" "$3"
}

lio_fileio() {          # NAME FILE MIB BLOCK-SIZE
    mkdir -p "$(dirname "$2")" "$core/fileio_0/$1"
    truncate -s "$3M" "$2"
    echo "fd_dev_name=$2,fd_dev_size=$(($3 << 20))" >"$core/fileio_0/$1/control"
    lio_finish_backstore "fileio_0/$1" "$4"
}

lio_iblock() {          # NAME DEVICE: blocks as large as the device's own
    mkdir -p "$core/iblock_0/$1"
    echo "udev_path=$2" >"$core/iblock_0/$1/control"
    lio_finish_backstore "iblock_0/$1" ''
}

lio_finish_backstore() {
    local directory=$core/$1
    # 32 hexadecimal digits at most, distinct: the WWID is made from it.
    printf '%s' "${1//[^a-z0-9]/}" | od -An -tx1 | tr -d ' \n' | tail -c 24 >"$directory/wwn/vpd_unit_serial"
    echo 1 >"$directory/enable"
    [[ ! $2 ]] || echo "$2" >"$directory/attrib/block_size"
}

lio_map() {             # LUN KIND_0/NAME
    mkdir -p "$tpg/lun/lun_$1"
    ln -s "$core/$2" "$tpg/lun/lun_$1/backstore"
}

lio_unmap() {           # LUN
    rm "$tpg/lun/lun_$1/backstore"
    rmdir "$tpg/lun/lun_$1"
}

# lio_allow NAME [LUN...]: an ACL that shows these LUNs, or all, under their own numbers.
lio_allow() {
    local name=$1 lun
    shift
    mkdir -p "$tpg/acls/$name"
    (($#)) || set -- "$tpg"/lun/lun_*
    for lun in "${@##*lun_}"; do
        mkdir "$tpg/acls/$name/lun_$lun"
        ln -s "$tpg/lun/lun_$lun" "$tpg/acls/$name/lun_$lun/lun"
    done
}

lio_hide() {            # NAME LUN
    rm "$tpg/acls/$1/lun_$2/lun"
    rmdir "$tpg/acls/$1/lun_$2"
}

lio_deny() {            # NAME
    local directory
    [[ -d $tpg/acls/$1 ]] || return 0
    for directory in "$tpg/acls/$1"/lun_*; do lio_hide "$1" "${directory##*lun_}"; done
    rmdir "$tpg/acls/$1"
}

lio_enable() { echo "$1" >"$tpg/enable"; }

lio_down() {
    local directory
    lio_enable 0
    for directory in "$tpg"/acls/*/; do lio_deny "$(basename "$directory")"; done
    for directory in "$tpg"/lun/lun_*; do lio_unmap "${directory##*lun_}"; done
    rmdir "$tpg" "$(dirname "$tpg")"
    for directory in "$core"/*_0/*/; do
        case $directory in */alua/) ;; *) rmdir "$directory" ;; esac
    done
    rmdir "$core"/*_0
    echo 0 >$configfs/target/srpt/discovery_auth/rdma_cm_port
    rmdir $configfs/target/srpt
}

# The LUNs of the tests. backing_of: where their bytes can be read past the target; empty for LIO's own ramdisk.
lun_mib=16
data_luns=(0 1 2 3 4 5)
declare -A lun_blocks=([0]=512 [1]=512 [2]=512 [3]=4096 [4]=4096 [5]=4096 [6]=512)
declare -A backing_of=([1]=/lun/file512 [2]=/dev/ram0 [4]=/lun/file4096 [5]=/lun/block4096 [6]=/lun/cached)
lun_with_cache=6
lun_write_protected=7
lun_beyond_255=300

target_up() {
    rdma_up
    lio_up
    mkdir -p /lun
    modprobe brd rd_nr=1 rd_size=$((lun_mib * 1024))
    # The loop device of 4096-byte blocks has a number that nothing takes by itself. (null_blk with memory behind it
    # would corrupt what arrives as immediate data: in 6.1 it copies whole blocks to and from pages that LIO's
    # buffers, aligned to 512 bytes, share with others.)
    modprobe loop max_loop=8
    truncate -s ${lun_mib}M /lun/block4096
    losetup -b 4096 /dev/loop7 /lun/block4096

    lio_ramdisk ram512 $lun_mib 512;                    lio_map 0 rd_mcp_0/ram512
    lio_fileio file512 /lun/file512 $lun_mib 512;       lio_map 1 fileio_0/file512
    lio_iblock block512 /dev/ram0;                      lio_map 2 iblock_0/block512
    lio_ramdisk ram4096 $lun_mib 4096;                  lio_map 3 rd_mcp_0/ram4096
    lio_fileio file4096 /lun/file4096 $lun_mib 4096;    lio_map 4 fileio_0/file4096
    lio_iblock block4096 /dev/loop7;                    lio_map 5 iblock_0/block4096
    lio_fileio cached /lun/cached $lun_mib 512;         lio_map 6 fileio_0/cached
    echo 1 >$core/fileio_0/cached/attrib/emulate_write_cache
    lio_ramdisk locked 1 512;                           lio_map 7 rd_mcp_0/locked
    lio_ramdisk far 1 512;                              lio_map $lun_beyond_255 rd_mcp_0/far
    target_allow
    lio_enable 1
}

target_allow() {
    lio_allow $address
    echo 1 >"$tpg/acls/$address/lun_$lun_write_protected/write_protect"
}

target_down() {
    lio_down
    losetup -d /dev/loop7
    rm -r /lun
    rdma_down
}

# ---------------------------------------------------------------------------------------- the kernel's own initiator

# Never the identity srpfs uses by default: a login of the same initiator port would end the other's channels.
kernel_initiator_ext=00000000000000ee

# kernel_login [KEY=VALUE...]: sets kernel_host (the SCSI host's number) and kernel_port (its transport directory).
# Keys given later win, so every part of the string can be replaced. Fails with kernel_error set when refused.
kernel_login() {
    local string="$login_string,initiator_ext=$kernel_initiator_ext,ch_count=2" key status=0 host
    local -A before=()
    for key in "$@"; do string+=,$key; done
    modprobe -a ib_srp sd_mod sg
    [[ -d /sys/class/infiniband_srp/srp-$rdma_device-1 ]] || fail "ib_srp has no directory for $rdma_device"
    for host in /sys/class/srp_host/host*; do before[$host]=yes; done
    # shellcheck disable=SC2016
    kernel_error=$(within 30 bash -c 'echo "$1" >"$2"' - "$string" /sys/class/infiniband_srp/srp-$rdma_device-1/add_target 2>&1) ||
        status=$?
    kernel_error=${kernel_error##*: }
    ((status == 0)) || return "$status"
    kernel_host=''
    for host in /sys/class/srp_host/host*; do [[ ${before[$host]:-} ]] || kernel_host=${host##*host}; done
    kernel_port=/sys/class/srp_remote_ports/port-$kernel_host:1
    [[ $kernel_host && -d $kernel_port ]] || fail "ib_srp took the login string and made no host"
}

kernel_logout() {       # [HOST]
    local host=${1:-$kernel_host}
    [[ ! -e /sys/class/srp_remote_ports/port-$host:1 ]] || write_file "/sys/class/srp_remote_ports/port-$host:1/delete" 1
    wait_for 20 "ib_srp's host$host gone" test ! -e "/sys/class/scsi_host/host$host"
}

# kernel_disk LUN: prints the block device of that LUN, once it answers. Letters differ from boot to boot.
kernel_disk() {
    local directory=/sys/class/scsi_device/$kernel_host:0:0:$1/device/block name
    wait_for 15 "LUN $1 of ib_srp" test -d "$directory"
    name=$(ls "$directory")
    wait_for 15 "/dev/$name readable" kernel_disk_is_readable "$name"
    echo "/dev/$name"
}

kernel_disk_is_readable() { [[ -b /dev/$1 ]] && dd if="/dev/$1" of=/dev/null bs=4096 count=1 iflag=direct 2>/dev/null; }

# The bytes of a whole disk, past the page cache.
kernel_read() {         # DISK FILE
    within 60 dd if="$1" of="$2" bs=1M iflag=direct status=none || fail "cannot read $1"
}

# --------------------------------------------------------------------------------------------------------------- srpfs

mount_point=/mnt/srp
pid_file=/run/srpfs-test.pid
port_directory=$mount_point/srp-$rdma_device-1
srpfs_log=/var/log/messages          # of busybox's syslogd; srpfs logs there when it runs in the background

# srpfs_mount SOURCE [OPTION...]: fails the test if it does not serve. srpfs_try_mount: sets mount_status, mount_message.
srpfs_try_mount() {
    local source=$1
    shift
    mkdir -p $mount_point
    mount_status=0
    timeout -k 3 60 srpfs -P $pid_file "$@" "$source" $mount_point >"$scratch/mount.out" 2>"$scratch/mount.err" </dev/null ||
        mount_status=$?
    mount_message=$(<"$scratch/mount.err")
}

srpfs_mount() {
    srpfs_try_mount "$@"
    ((mount_status == 0)) || fail "mounting $1 ended with $mount_status: $mount_message"
    srpfs_is_mounted || fail "srpfs returned 0 and $mount_point is not mounted"
    srpfs_pid=$(<$pid_file)
}

srpfs_is_mounted() { grep -q " $mount_point fuse.srpfs " /proc/mounts; }
mountpoint_is() { grep -q " $1 " /proc/mounts; }

# An identity for srpfs where ib_srp has logged in before it: srpfs cannot see which one ib_srp has, takes it for the
# default, and refuses to use that one as well.
initiator_ext_beside_kernel=00000000000000aa
srpfs_initiator_ext=

# The target's directory; -<initiator_ext> follows where there is one.
srpfs_target() { echo "$port_directory/$guid-$guid${srpfs_initiator_ext:+-$srpfs_initiator_ext}"; }

# umount returns before the logout is done; the pid file is removed last.
srpfs_umount() {
    within 30 umount $mount_point || fail "umount failed"
    srpfs_wait_end
}

srpfs_wait_end() {
    wait_for 15 "srpfs's pid file removed" test ! -e $pid_file
    wait_for 5 "srpfs process $srpfs_pid gone" has_ended "$srpfs_pid"
}

srpfs_login() {         # [KEY=VALUE...]
    local string=$login_string key
    for key in "$@"; do string+=,$key; done
    write_file $mount_point/add_target "$string"
}

# srpfs_refused ERROR HINT LOGIN-STRING: the login fails with that error, and last_error, at the top and at the port,
# has the hint's words; nothing of the attempt stays.
srpfs_refused() {
    local wanted=$1 hint=$2 string=$3 before error text
    before=$(srpfs_qp_count)
    error=$(write_refused $mount_point/add_target "$string")
    text=$(<$mount_point/last_error)
    note "$error: $text"
    expect_match "the error of the write" "$error" "^($wanted)\$"
    expect_match "last_error" "$text" "$hint"
    error=$(write_refused $port_directory/add_target "$string")
    expect_match "the error of the write at the port" "$error" "^($wanted)\$"
    expect_match "the port's last_error" "$(<$port_directory/last_error)" "$hint"
    wait_for 10 "no queue pair of the refused login" srpfs_has_qps "$before"
}

state_is() {
    local state=
    { read -r state <"$port_directory/$guid-$guid${srpfs_initiator_ext:+-$srpfs_initiator_ext}/state"; } 2>/dev/null
    [[ $state == "$1" ]]
}

# ---------------------------------------------------------------------------------------------------------------- data

pattern=/tmp/pattern                 # random bytes to cut writes from
pattern_mib=16

pattern_up() { dd if=/dev/urandom of=$pattern bs=1M count=$pattern_mib status=none; }

# put FILE SHADOW OFFSET:SIZE...: random bytes, each piece in one write, to the file and to the shadow.
put() { within 60 srpfs-ranges write "$@" || fail "writing $1 failed"; }
put_direct() { within 60 srpfs-ranges write --direct "$@" || fail "writing $1 failed"; }

# get FILE SHADOW OFFSET:SIZE...: each piece in one read, compared with the same bytes of the shadow.
get() { within 60 srpfs-ranges read "$@" || fail "$1 has other bytes than it should"; }

# OFFSET:SIZE pairs from one byte to 8 MiB within 16 MiB: whole blocks, sectors, everything else. The ranges overlap.
whole_blocks=(0:4096 4096:8192 65536:65536 1048576:262144 2097152:1048576 4194304:8388608 16773120:4096)
sectors=(512:512 8704:1024 16776704:512)
odd_ranges=(5:1 513:511 333:1000 8191:4095 65535:513 12288:8193 100003:70001 1500001:1048577 5242881:8388607 16777209:7)

# Bytes of a backing file or device, past the page cache where it is a device.
read_backing() {        # LUN FILE
    if [[ -b ${backing_of[$1]} ]]; then kernel_read "${backing_of[$1]}" "$2"; else cp "${backing_of[$1]}" "$2"; fi
}
