#!/bin/sh
# A Linux router sends the VIPs to the nodes: static routes, over all nodes alike (ECMP).
# Put your own addresses in; run it as root, or carry it over into your network configuration.
set -eu

VIP4=192.0.2.10
VIP6=2001:db8::10

# Choose the node by addresses and ports, not by addresses alone. When a node is added or removed,
# flows move to other nodes; all nodes compute the same backend for a flow.
sysctl -qw net.ipv4.fib_multipath_hash_policy=1 net.ipv6.fib_multipath_hash_policy=1

# One `nexthop` for each node.
ip route replace "$VIP4/32" proto static \
    nexthop via 203.0.113.10 \
    nexthop via 203.0.113.11
ip -6 route replace "$VIP6/128" proto static \
    nexthop via 2001:db8:1::10 \
    nexthop via 2001:db8:1::11
