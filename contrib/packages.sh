# SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
# shellcheck shell=bash disable=SC2034
#
# The Debian packages this project needs, and how scripts install what is missing. Sourced, never run.
# This is the one place that names them.

# To build and run srpfs.
build_packages=(
    g++ libcli11-dev libfmt-dev libfuse3-dev libibverbs-dev librdmacm-dev liburing-dev meson ninja-build nlohmann-json3-dev
    pkg-config fuse3
)

# To build and run the tests as well; what the guest is made of stands in tests/guest/common.sh.
test_packages=(
    "${build_packages[@]}" clang-format-14 e2fsprogs fdisk fio jq libgmock-dev libgtest-dev libnbd-bin mandoc mount nbdkit python3 qemu-utils
    rsync shellcheck sqlite3 tmux util-linux valgrind xz-utils
    fish zsh  # whose completions tests/ctl tries
)

# The other tools that tests/tools looks at.
tools_packages=(btrfs-progs cryptsetup-bin gdisk lvm2 mdadm parted postgresql stress-ng xfsprogs)

# What tests/bench/peers compares with, and how.
bench_packages=(fio fuse3 libnbd-bin nbdkit qemu-system-common)
profile_packages=(linux-perf)  # tests/bench/host-profile

# The other compiler, with libFuzzer and the sanitizers.
clang_packages=(clang-14 libclang-rt-14-dev llvm-14)

# To make Debian packages and to look at them, and at what belongs to systemd.
package_packages=(binutils debhelper dpkg-dev fakeroot git lintian procps rpm rpmlint systemd udev)

# Prints those of the named packages that are not installed, one a line. 1: this is not a Debian-like system.
missing_packages() {
    local package installed
    command -v dpkg-query >/dev/null && command -v apt-get >/dev/null || return 1
    # `all` architectures too: libfoo:amd64 is libfoo here.
    installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true)
    for package; do
        grep -qxF "installed $package" <<<"$installed" || echo "$package"
    done
}

# install_missing_packages DIE SAY PACKAGE...: DIE and SAY are functions that take a sentence; DIE does not return.
# Says nothing and takes no time when everything is there.
install_missing_packages() {
    local die=$1 say=$2 log root=() wanted=()
    shift 2
    mapfile -t wanted < <(missing_packages "$@" || echo not-debian)
    ((${#wanted[@]})) || return 0
    [[ ${wanted[*]} != not-debian ]] ||
        "$die" "this is not Debian (no apt-get here): install the equivalents of: $*"
    if ((EUID != 0)); then
        command -v sudo >/dev/null ||
            "$die" "not root and there is no sudo; as root, run: apt-get install ${wanted[*]}"
        # A terminal is needed to ask for a password; without one, only a sudo that asks nothing helps.
        if [[ -t 0 ]]; then root=(sudo); else root=(sudo -n); fi
        "${root[@]}" true 2>/dev/null || "$die" "sudo refuses; as root, run: apt-get install ${wanted[*]}"
    fi
    "$say" "installing ${#wanted[@]} packages with apt: ${wanted[*]}"
    log=$(mktemp)
    local install=("${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120
                   install --no-install-recommends "${wanted[@]}")
    # Package lists may be absent or older than the archive: the second attempt follows an update.
    if ! "${install[@]}" >"$log" 2>&1 </dev/null; then
        "${root[@]}" apt-get -q -o DPkg::Lock::Timeout=120 update >>"$log" 2>&1 </dev/null || true
        if ! "${install[@]}" >>"$log" 2>&1 </dev/null; then
            tail -n 15 "$log" >&2
            "$die" "apt-get could not install ${wanted[*]} (all it said: $log)"
        fi
    fi
    rm -f "$log"
}
