#!/bin/sh
# The guest's first process once it sees the host's files: what systemd would do, and then the agent.
# When that ends, the machine does.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/run/tmp LC_ALL=C.UTF-8
mkdir -p /dev/pts /dev/shm "$TMPDIR"
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
ip link set lo up
# Before any network namespace: some put devices of their own into every one.
modprobe -a ip_gre ip6_gre 8021q bonding pktgen ip_vs_mh
cd "$1" && .venv/bin/python tests/vm/agent.py
echo o >/proc/sysrq-trigger
sleep 60 # process 1 must not end
