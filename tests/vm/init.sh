#!/bin/busybox sh
# The guest's first process. The host's root is seen read-only; what the guest writes stays in its
# memory. Then it goes on as guest.sh there. (exec: the kernel's own modprobe looks where process 1
# looks.)
B=/bin/busybox
. /settings
$B mount -t proc proc /proc
$B mount -t sysfs sys /sys
$B mount -t devtmpfs dev /dev
for module in $MODULES; do
    $B insmod "/modules/$module" || echo "init.sh: insmod $module failed"
done
$B mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=524288,cache=loose host /host
$B mount -t tmpfs -o size=1g changes /changes
$B mkdir /changes/up /changes/work
$B mount -t overlay -o lowerdir=/host,upperdir=/changes/up,workdir=/changes/work overlay /new
$B mount -t proc proc /new/proc
$B mount -t sysfs sys /new/sys
$B mount --move /dev /new/dev
$B mount -t tmpfs run /new/run
$B mkdir -p /new/lib/modules
$B mount -o bind "/new$ALL_MODULES" /new/lib/modules
exec $B chroot /new /bin/sh "$REPOSITORY/tests/vm/guest.sh" "$REPOSITORY"
