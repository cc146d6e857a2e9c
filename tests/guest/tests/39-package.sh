# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2154,SC2034,SC2086  # variables of lib.sh, without blanks
#
# The Debian package, as dpkg installs it among this machine's programs: a line of fstab, and srpfs@.service, confined as it is, run by
# systemd. `run` has made the package of the build's programs.

package=/guest/srpfs.deb
point=/mnt/srp                      # inside of $tools_root
package_target=$tools_root$point/srp-$rdma_device-1

package_up() {
    [[ -e $package ]] || fail "the guest was booted without a package: see run"
    tools_up
    modprobe overlay
    mkdir -p $tools_root/.usr/{files,work} $tools_root/var/lib/dpkg/{info,updates}
    mount -t overlay overlay -o lowerdir=$tools_root/usr,upperdir=$tools_root/.usr/files,workdir=$tools_root/.usr/work $tools_root/usr
    : >$tools_root/var/lib/dpkg/status
    # dpkg knows of no package here, those it depends on included; their files are there.
    in_root 60 dpkg --force-depends -i $package
    [[ -x $tools_root/usr/sbin/srpfs ]] || fail "dpkg has installed no srpfs"
}

package_down() {
    in_root 60 dpkg -P srpfs
    [[ ! -e $tools_root/usr/sbin/srpfs && ! -e $tools_root/etc/srpfs ]] || fail "purging leaves files"
    tools_down
}

# busybox's chroot, given a name, takes its own program of that name.
in_root() {             # SECONDS COMMAND...
    local seconds=$1
    shift
    note "# $*"
    PATH=/usr/sbin:/usr/bin:/sbin:/bin within "$seconds" chroot $tools_root /usr/bin/env "$@"
}

# What is read through the mount is what the target has; what is written arrives there.
package_data_is_exact() {
    local target=$package_target/$guid-$guid
    expect_file "$target/state" running
    dd if=/dev/urandom of="$scratch/bytes" bs=1M count=4 status=none
    in_root 60 dd of="$point/srp-$rdma_device-1/$guid-$guid/lun1" bs=1M conv=fsync,notrunc status=none <"$scratch/bytes"
    expect_same "the backing file of lun1" "$scratch/bytes" "${backing_of[1]}" -n $((4 << 20))
    expect_lun "lun1" "$target/lun1" "${backing_of[1]}"
}

limit[srpfs_package_line_of_fstab]=120
test_srpfs_package_line_of_fstab() {
    package_up
    echo "$login_string,ch_count=1 $point fuse.srpfs _netdev,nofail,allow_other 0 0" >$tools_root/etc/fstab
    in_root 60 mount -a
    expect_equal "queue pairs of srpfs" "$(srpfs_qp_count)" 1
    package_data_is_exact
    in_root 30 umount $point
    wait_for 15 "no srpfs process" no_srpfs
    package_down
}

# A systemd of its own process numbers, mounts and control groups, which knows no units but the package's and empty targets.
package_systemd_up() {
    local name
    mkdir $tools_root/units
    for name in basic default final network-online multi-user rdma-hw remote-fs shutdown sysinit umount; do
        printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n' $name >$tools_root/units/$name.target
    done
    for name in systemd-modules-load modprobe@; do
        printf '[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/true\n' >$tools_root/units/$name.service
    done
    ln -s /lib/systemd/system/srpfs@.service $tools_root/units/
    # shellcheck disable=SC2016
    PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot $tools_root /usr/bin/unshare --mount --pid --fork --kill-child=KILL --cgroup sh -ec '
        mount --make-rprivate /
        mount -t proc proc /proc
        mount -t tmpfs none /run
        mkdir -p /run/lock
        umount /sys/fs/cgroup 2>/dev/null || true  # an earlier test has used it
        mount -t cgroup2 none /sys/fs/cgroup
        exec env -i PATH=$PATH container=srpfs-test SYSTEMD_UNIT_PATH=/units /lib/systemd/systemd --system --unit=default.target \
            --log-target=console --log-level=notice' >"$scratch/systemd.log" 2>&1 &
    unshare_pid=$! systemd_pid=
    wait_for 30 "systemd is up" systemd_is_up
}

# What it answers has the exit status of its state.
systemd_is_up() {
    if has_ended "$unshare_pid"; then fail "systemd has ended: $(tail -n 5 "$scratch/systemd.log")"; fi
    read -r systemd_pid _ <"/proc/$unshare_pid/task/$unshare_pid/children" || [[ $systemd_pid ]] || return 1
    [[ $(in_systemd systemctl is-system-running 2>&1) =~ ^(running|degraded)$ ]]
}
in_systemd() {
    PATH=/usr/sbin:/usr/bin:/sbin:/bin timeout 90 chroot $tools_root /usr/bin/nsenter -t "$systemd_pid" -m -p -C -r -w "$@"
}
service_says() { in_systemd systemctl --no-pager status 'srpfs@mnt-srp.service' || true; cat "$scratch/systemd.log"; }

limit[srpfs_package_service]=240
test_srpfs_package_service() {
    package_up
    package_systemd_up
    mkdir -p $tools_root/etc/srpfs/mounts/mnt
    printf 'SRPFS_SOURCE=%s\nSRPFS_OPTIONS=allow_other,memory_lock=try\n' "$login_string,ch_count=2" >$tools_root/etc/srpfs/mounts$point.env
    in_systemd systemctl start 'srpfs@mnt-srp.service' || { service_says; fail "the service does not start"; }
    expect_equal "queue pairs of srpfs" "$(srpfs_qp_count)" 2
    expect_match "the status" "$(in_systemd systemctl show --value -p StatusText srpfs@mnt-srp.service)" '1 target, 1 running'
    # What the service has mounted is in systemd's name space, and so is who uses it.
    dd if=/dev/urandom of="$scratch/bytes" bs=1M count=4 status=none
    in_systemd dd of="$point/srp-$rdma_device-1/$guid-$guid/lun1" bs=1M conv=fsync,notrunc status=none <"$scratch/bytes"
    expect_same "the backing file of lun1" "$scratch/bytes" "${backing_of[1]}" -n $((4 << 20))
    in_systemd cat "$point/srp-$rdma_device-1/$guid-$guid/lun1" >"$scratch/lun"
    expect_same lun1 "$scratch/lun" "${backing_of[1]}"
    # Logged out and in again from inside: the confinement holds for later logins as well.
    in_systemd sh -c "echo 1 >$point/srp-$rdma_device-1/$guid-$guid/delete"
    in_systemd sh -c "echo $login_string,ch_count=1 >$point/add_target; cat $point/srp-$rdma_device-1/$guid-$guid/state" >state
    expect_file state running
    # An adapter's node that may not be opened would be told here; what has failed is.
    in_systemd cat $point/last_error $point/srp-$rdma_device-1/last_error $point/srp-$rdma_device-1/$guid-$guid/last_error >last_error
    expect_file last_error ''
    if in_systemd sh -c "echo $login_string,ch_count=1 >$point/add_target"; then fail "a second login with the same names succeeds"; fi
    in_systemd cat $point/last_error >last_error
    expect_match "last_error after a second login" "$(<last_error)" 'Already connected to target port'
    in_systemd systemctl stop 'srpfs@mnt-srp.service' || { service_says; fail "the service does not stop"; }
    expect_equal "the service's result" "$(in_systemd systemctl show --value -p Result srpfs@mnt-srp.service)" success
    wait_for 15 "no srpfs process" no_srpfs
    no_qps
    kill -KILL "$systemd_pid"
    wait_for 15 "systemd gone" has_ended "$systemd_pid"
    package_down
}
