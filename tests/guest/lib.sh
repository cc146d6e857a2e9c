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

# What a long test has done so far: on the console, because its output is seen only when it fails.
progress() { echo "guest: $*" >/dev/ttyS0; }

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

# short_or_full SECONDS SECONDS: what a test does in every run, and what it does with --full.
short_or_full() { if [[ ${full:-} ]]; then echo "$2"; else echo "$1"; fi; }

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

# Set in the guests of a pair: 1 for the target's, 2 for the initiator's, which is the last byte of their addresses.
pair=

pair_host() { pair=$1 netdev=eth0; }

# rxe on one end of a veth pair in one name space: traffic never leaves the device, only its link state matters. In a
# pair it is on the wire to the other guest.
rdma_up() {
    modprobe -a configfs veth rdma_rxe ib_uverbs rdma_ucm ib_umad
    if [[ $pair ]]; then
        modprobe -a virtio_pci virtio_net sch_netem
        wait_for 10 "a network device" test -d /sys/class/net/$netdev
        ip addr add "${address%.*}.$pair/24" dev $netdev
        ip -6 addr add "${address6%:*}:$pair/64" dev $netdev nodad
    else
        # A fixed address, because the port GUID and so every name is made from it.
        ip link add $netdev address 02:00:00:00:00:09 type veth peer name ${netdev}p
        ip link set ${netdev}p mtu 4200 up
        ip addr add $address/24 dev $netdev
        ip -6 addr add $address6/64 dev $netdev nodad
    fi
    ip link set $netdev mtu 4200
    ip link set $netdev up
    rdma link add $rdma_device type rxe netdev $netdev
    wait_for 10 "port of $rdma_device active" rdma_is_active
}

# remote COMMAND...: in the target's guest of a pair, with the functions of this file. Its output and status.
remote() {
    local number answered='' status encoded output
    number=$BASHPID${EPOCHREALTIME/./}
    {
        flock 9
        exec 8<>/dev/ttyS2
        echo "$number $(base64 -w 0 <<<"$*")" >&8
        # What an earlier one that gave up has not waited for comes first.
        until [[ $answered == "$number" ]]; do
            read -r -t 60 -u 8 answered status encoded || fail "the target's guest does not answer '$*'"
        done
        exec 8>&-
    } 9>/run/remote.lock
    output=$(base64 -d <<<"$encoded")
    [[ ! $output ]] || echo "$output"
    return "$status"
}

# What is said before anybody listens is lost.
remote_listens() {
    local answered='' rest
    exec 8<>/dev/ttyS2
    echo "listening? $(base64 -w 0 <<<true)" >&8
    read -r -t 1 -u 8 answered rest || true
    exec 8>&-
    [[ $answered == "listening?" ]]
}

# The cable of this guest of a pair: pulled, its network device has no carrier, and nobody hears it.
cable() {               # on | off
    echo "set_link cable $1" >/dev/ttyS3
}

interface() { ip link set $netdev "$1"; }        # up | down

# Silence on the wire, in the direction away from this guest: no device notices anything.
loss() { tc qdisc add dev $netdev root netem loss "$1"; }
silence() { loss 100%; }
silence_ends() { tc qdisc del dev $netdev root; }

rdma_is_active() { rdma link show "${1:-$rdma_device}"/1 | grep -q 'state ACTIVE'; }

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
    # As targetcli's package has them: without the latter LIO fails commands about persistent reservations.
    mkdir -p /etc/target /var/target/pr
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
lio_ramdisk() {         # NAME MIB BLOCK-SIZE [rd_nullio=1]
    mkdir -p "$core/rd_mcp_0/$1"
    echo "rd_pages=$(($2 * 256))${4:+,$4}" >"$core/rd_mcp_0/$1/control"
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

# Whatever a test has left of the target, it answers again; and, when nobody is logged in any more, it is whole.
revive_target() {
    ip link set $netdev up
    if [[ $pair ]]; then
        cable on
        tc qdisc del dev $netdev root 2>/dev/null || true
    fi
    [[ $(cat "$tpg/enable") == 1 ]] || lio_enable 1
    ! slow_disk_is_there || slow_disk_goes_on
}

restore_target() {
    ! slow_disk_is_there || slow_disk_down
    [[ ! -d /sys/class/net/$second_netdev ]] || second_port_down
    ! swapped_is_there || swapped_down
    ! sized_is_there || sized_down
    if [[ $(find "$tpg/acls" -name 'lun_*' | wc -l) != $(find "$tpg/lun" -name 'lun_*' | wc -l) ]]; then
        lio_deny $address
        target_allow
    fi
}

# A second port of the target, on an RDMA device of its own, with LUN 1 of the first under the same number.
second_netdev=eth8
second_address=10.9.8.1
second_device=rxe8

second_tpg() {
    local gid
    gid=$(</sys/class/infiniband/$second_device/ports/1/gids/0)
    gid=${gid#fe80:0000:0000:0000:}
    echo "$configfs/target/srpt/$gid/$gid"
}

second_port_up() {
    local tpg
    ip link add $second_netdev address 02:00:00:00:00:08 type veth peer name ${second_netdev}p
    ip link set ${second_netdev}p mtu 4200 up
    ip link set $second_netdev mtu 4200
    ip addr add $second_address/24 dev $second_netdev
    ip link set $second_netdev up
    rdma link add $second_device type rxe netdev $second_netdev
    wait_for 10 "port of $second_device active" rdma_is_active $second_device
    tpg=$(second_tpg)
    mkdir -p "$tpg"
    lio_map 1 fileio_0/file512
    lio_allow $second_address
    lio_enable 1
    second_login_string="id_ext=$guid,ioc_guid=$guid,dest=$second_address:$cm_port"
    second_target=$mount_point/srp-$second_device-1/$guid-$guid
}

second_map() {          # LUN KIND_0/NAME
    local tpg
    tpg=$(second_tpg)
    lio_map "$1" "$2"
    mkdir "$tpg/acls/$second_address/lun_$1"
    ln -s "$tpg/lun/lun_$1" "$tpg/acls/$second_address/lun_$1/lun"
}

second_port_down() {
    local tpg lun
    tpg=$(second_tpg)
    if [[ -d $tpg ]]; then
        lio_enable 0
        lio_deny $second_address
        for lun in "$tpg"/lun/lun_*; do lio_unmap "${lun##*lun_}"; done
        rmdir "$tpg" "$(dirname "$tpg")"
    fi
    within 60 rdma link del $second_device
    ip link del $second_netdev
}

# LUN 9: a disk that can be made to swallow commands. What is sent to it while it is suspended ends when it goes on.
lun_slow=9
slow_disk=/dev/mapper/slow

slow_disk_up() {
    modprobe dm_mod
    truncate -s ${lun_mib}M /lun/slow
    losetup /dev/loop6 /lun/slow
    dmsetup create slow --noudevsync --table "0 $((lun_mib << 11)) linear /dev/loop6 0"
    # Without udev, nobody but dmsetup makes the node.
    dmsetup mknodes slow
    lio_iblock slow $slow_disk
    lio_map $lun_slow iblock_0/slow
    mkdir "$tpg/acls/$address/lun_$lun_slow"
    ln -s "$tpg/lun/lun_$lun_slow" "$tpg/acls/$address/lun_$lun_slow/lun"
}

slow_disk_is_there() { [[ -d $tpg/lun/lun_$lun_slow ]]; }
slow_disk_stops() { dmsetup suspend --nolockfs --noudevsync slow; }
slow_disk_goes_on() { dmsetup resume --noudevsync slow; }

slow_disk_down() {
    [[ ! -d $tpg/acls/$address/lun_$lun_slow ]] || lio_hide $address $lun_slow
    lio_unmap $lun_slow
    rmdir $core/iblock_0/slow
    dmsetup remove --noudevsync slow
    losetup -d /dev/loop6
    rm /lun/slow
}

# LUN 8: a LUN that is one of two disks, with bytes and an identity of their own.
lun_swapped=8

swapped_up() {
    lio_fileio swapa /lun/swapa $lun_mib 512
    lio_fileio swapb /lun/swapb $lun_mib 512
    swapped_is swapa
}

swapped_is_there() { [[ -d $core/fileio_0/swapa ]]; }

swapped_is() {          # swapa | swapb
    swapped_is_nothing
    lio_map $lun_swapped "fileio_0/$1"
    mkdir "$tpg/acls/$address/lun_$lun_swapped"
    ln -s "$tpg/lun/lun_$lun_swapped" "$tpg/acls/$address/lun_$lun_swapped/lun"
}

swapped_is_nothing() {
    [[ ! -d $tpg/acls/$address/lun_$lun_swapped ]] || lio_hide $address $lun_swapped
    [[ ! -d $tpg/lun/lun_$lun_swapped ]] || lio_unmap $lun_swapped
}

swapped_down() {
    swapped_is_nothing
    rmdir $core/fileio_0/swapa $core/fileio_0/swapb
    rm /lun/swapa /lun/swapb
}

# LUN 10: a disk whose size changes.
lun_sized=10

sized_up() {
    truncate -s ${lun_mib}M /lun/sized
    losetup /dev/loop5 /lun/sized
    lio_iblock sized /dev/loop5
    lio_map $lun_sized iblock_0/sized
    mkdir "$tpg/acls/$address/lun_$lun_sized"
    ln -s "$tpg/lun/lun_$lun_sized" "$tpg/acls/$address/lun_$lun_sized/lun"
}

sized_is_there() { [[ -d $tpg/lun/lun_$lun_sized ]]; }

sized_is() {            # MIB
    truncate -s "$1M" /lun/sized
    losetup -c /dev/loop5
}

sized_down() {
    [[ ! -d $tpg/acls/$address/lun_$lun_sized ]] || lio_hide $address $lun_sized
    lio_unmap $lun_sized
    rmdir $core/iblock_0/sized
    losetup -d /dev/loop5
    rm /lun/sized
}

# The target is in the other guest: what the tests call to change it is done there.
remote_target_up() {
    stty -F /dev/ttyS2 raw -echo
    stty -F /dev/ttyS3 raw -echo
    rdma_up
    wait_for 90 "the target's guest" remote_listens
    # shellcheck disable=SC2016  # the other guest's variable
    guid=$(remote 'echo $guid')
    login_string="id_ext=$guid,ioc_guid=$guid,dest=$address:$cm_port"
    # shellcheck disable=SC2317
    lio_enable() { remote "lio_enable $1"; }
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
# Keys given later win, so every part of the string can be replaced; $kernel_device is the RDMA device, if not the first one.
# Fails with kernel_error set when refused.
kernel_login() {
    local string="$login_string,initiator_ext=$kernel_initiator_ext,ch_count=2" key status=0 host
    local directory=/sys/class/infiniband_srp/srp-${kernel_device:-$rdma_device}-1
    local -A before=()
    for key in "$@"; do string+=,$key; done
    modprobe -a ib_srp sd_mod sg
    [[ -d $directory ]] || fail "ib_srp has no ${directory##*/}"
    for host in /sys/class/srp_host/host*; do before[$host]=yes; done
    # shellcheck disable=SC2016
    kernel_error=$(within 30 bash -c 'echo "$1" >"$2"' - "$string" "$directory/add_target" 2>&1) ||
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
# What has come to it since the test began; there is what other tests in this guest have had said as well.
log_lines=0
srpfs_said() { tail -n "+$((log_lines + 1))" $srpfs_log; }

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

# events_start: from now on, what srpfs has to tell goes to the file events. events_end: nothing more.
events_start() {
    cat $mount_point/events >events &
    events_reader=$!
    wait_for 10 "the events opened" events_are_read
}

events_are_read() { [[ $(readlink "/proc/$events_reader/fd/3") == */events ]]; }

events_end() {
    kill "$events_reader"
    wait_for 5 "the reader of events gone" has_ended "$events_reader"
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

# ------------------------------------------------------------------------------------------------------------ timeline

# timeline_starts SECONDS STATE-FILE FILE: requests of four threads; what becomes of them, and of the state, in the file
# timeline, with times (see srpfs-timeline).
timeline_starts() {
    srpfs-timeline --state "$2" "$1" "$3" >timeline 2>&1 &
    timeline=$!
    wait_for 20 "srpfs-timeline at work" grep -qs ' state running' timeline
    sleep 1
    ! has_ended $timeline || fail "srpfs-timeline ended at once: $(cat timeline)"
}

timeline_ends() {       # the exit status wanted
    local status=0
    kill -TERM $timeline 2>/dev/null || true
    wait_for 60 "srpfs-timeline ended" has_ended $timeline
    wait $timeline || status=$?
    tail -n 40 timeline
    expect_equal "exit status of srpfs-timeline" "$status" "$1"
}

nobody_waits() { [[ $(grep ' waiting ' timeline | tail -n 1) != *' waiting '[1-9]* ]]; }

# first_after FROM-MS EXTENDED-REGULAR-EXPRESSION: milliseconds from then to the first such line of the timeline.
first_after() { awk -v from="$1" -v what="$2" '$1 >= from && $0 ~ what { print $1 - from; exit }' timeline; }

# Milliseconds from then until the last thread that had been waiting was served; 0 if none waited.
served_after() { awk -v from="$1" '$1 >= from && $2 == "resumed" { last = $1 - from } END { print last + 0 }' timeline; }
