#!/bin/bash
# The system packages that lbfwd needs here, on Debian and Ubuntu.
#
#   prerequisites.sh build|demo|test|bench|deb|vm …  makes sure that they are there: as root it
#                           installs what is missing, otherwise it names the command that does
#   prerequisites.sh python prints a Python that will do (or $PYTHON, if that will)
set -eu

OLDEST="3, 11"
POLICY=/usr/sbin/policy-rc.d # asked by package scripts before they start a daemon (invoke-rc.d(8))
PYTHONS="python3 python3.14 python3.13 python3.12 python3.11"
export PATH="$PATH:/usr/sbin:/sbin" # ordinary users lack them

find_python() {
    local python
    for python in ${PYTHON:-} $PYTHONS; do
        if "$python" -c "import sys; sys.exit(sys.version_info < ($OLDEST))" 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    return 1
}

# Packages that hold the tools of a group and are not there, one a line.
missing() {
    case $1 in
    build)
        missing_python
        tool gcc gcc
        echo '#include <linux/if_packet.h>' | gcc -E - >/dev/null 2>&1 || echo libc6-dev
        ;;
    demo)
        tool ip iproute2
        tool ss iproute2
        tool nft nftables
        tool sysctl procps
        tool unshare util-linux
        tool mount mount
        ;;
    test)
        tool nginx nginx-light
        tool curl curl
        tool iperf3 iperf3
        tool tshark tshark
        tool tcpdump tcpdump
        tool ethtool ethtool
        tool ping iputils-ping
        tool promtool prometheus
        tool systemd-analyze systemd
        tool debootstrap debootstrap
        tool etcd etcd-server
        tool bird bird2
        [ -x /usr/lib/frr/zebra ] || echo frr
        tool clang clang
        ls "$(clang -print-runtime-dir 2>/dev/null)"/libclang_rt.asan* >/dev/null 2>&1 ||
            echo "libclang-rt-$(clang_version)-dev"
        ;;
    deb)
        echo 'import venv, ensurepip' | /usr/bin/python3 - 2>/dev/null || echo python3-venv
        [ -e "$(/usr/bin/python3-config --includes 2>/dev/null | sed 's/^-I\(\S*\).*/\1/')/Python.h" ] ||
            echo python3-dev
        tool dpkg-deb dpkg
        tool strip binutils
        ;;
    vm)
        tool qemu-system-x86_64 qemu-system-x86
        tool busybox busybox-static
        tool cpio cpio
        tool modprobe kmod
        tool ipvsadm ipvsadm
        ;;
    bench)
        tool valgrind valgrind
        tool dpdk-testpmd dpdk-dev
        ;;
    esac
}

tool() {
    command -v "$1" >/dev/null || echo "$2"
}

missing_python() {
    local python version
    if ! python=$(find_python); then
        version=$(offered_python)
        printf '%s\n' "$version" "$version-venv" "$version-dev"
        return
    fi
    version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    "$python" -c 'import ensurepip, venv' 2>/dev/null || echo "$version-venv"
    "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || echo "$version-dev"
}

# The newest Python that this distribution offers, for a machine whose own is too old.
offered_python() {
    local python
    for python in $PYTHONS; do
        case $python in *.*) ;; *) continue ;; esac
        if apt-cache show "$python-venv" >/dev/null 2>&1; then
            echo "$python"
            return
        fi
    done
    echo python3
}

# The clang that is there, or the one that the package clang would bring.
clang_version() {
    if command -v clang >/dev/null; then
        clang -dumpversion | cut -d. -f1
    else
        apt-cache depends clang | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -1
    fi
}

install() {
    # A daemon that is only a tool of the tests must not start to serve on this machine.
    if [ ! -e $POLICY ]; then
        trap 'rm -f $POLICY' EXIT
        printf '#!/bin/sh\nexit 101\n' >$POLICY
        chmod 755 $POLICY
    fi
    echo "installing: $*"
    quietly apt-get install -y --no-install-recommends "$@"
}

# Run a command and show its output only if it fails.
quietly() {
    local output
    output=$(DEBIAN_FRONTEND=noninteractive "$@" 2>&1 </dev/null) || {
        printf '%s\n' "$output" "prerequisites.sh: failed: $*" >&2
        exit 1
    }
}

all_missing() {
    local group
    for group in "$@"; do
        missing "$group"
    done | sort -u | tr '\n' ' '
}

if [ "${1:-}" = python ]; then
    find_python
    exit
fi
for group in "$@"; do
    case $group in
    build | demo | test | bench | deb | vm) ;;
    *)
        echo "prerequisites.sh: $group: must be build, demo, test, bench, deb, vm or python" >&2
        exit 2
        ;;
    esac
done
packages=$(all_missing "$@")
[ -n "$packages" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    quietly apt-get update
    # shellcheck disable=SC2046,SC2086 # a list of names
    install $(all_missing "$@") # again: now the names are known for sure
    packages=$(all_missing "$@")
    [ -n "$packages" ] || exit 0
fi
echo "missing on this machine: $packages" >&2
echo "install with (Debian and Ubuntu names): sudo apt-get install $packages" >&2
exit 1
