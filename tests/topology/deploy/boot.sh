#!/bin/sh
# Boots a Debian root: systemd as process 1. To be started in new mount, pid, UTS, IPC and cgroup
# namespaces, as the first process of the pid namespace.
#
#   boot.sh ROOT cgroup2|cgroup
#
# The kernel's settings are read-only but for those of the network namespace, as systemd-nspawn(1)
# has it: the others belong to the machine that runs the test.
set -eu
R=$1
mount --make-rprivate /
mount --bind "$R" "$R"
mount -t proc proc "$R/proc"
mount --bind "$R/proc/sys" "$R/proc/sys"
mount --bind "$R/proc/sys/net" "$R/proc/sys/net"
mount -o remount,bind,ro "$R/proc/sys"
mount --bind "$R/proc/irq" "$R/proc/irq"
mount -o remount,bind,ro "$R/proc/irq"
mount -t sysfs -o ro sysfs "$R/sys"
if [ "$2" = cgroup2 ]; then
    mount -t cgroup2 cgroup2 "$R/sys/fs/cgroup"
else
    mount -t tmpfs -o mode=755 tmpfs "$R/sys/fs/cgroup"
    mkdir "$R/sys/fs/cgroup/systemd"
    mount -t cgroup -o none,name=systemd cgroup "$R/sys/fs/cgroup/systemd"
fi
mount -t tmpfs -o mode=755 tmpfs "$R/run"
mount -t tmpfs -o mode=1777 tmpfs "$R/tmp"
mount -t tmpfs -o mode=755 tmpfs "$R/dev"
mkdir "$R/dev/net" "$R/dev/pts" "$R/dev/shm"
for device in null zero full random urandom tty net/tun; do
    [ -e "/dev/$device" ] || continue
    touch "$R/dev/$device"
    mount --bind "/dev/$device" "$R/dev/$device"
done
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$R/dev/pts"
ln -s pts/ptmx "$R/dev/ptmx"
cd "$R"
exec env -i container=lbfwd-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    chroot . /lib/systemd/systemd --unit=multi-user.target
