#!/bin/sh
# Makes this machine a backend by the kernel's own GRE, with iproute2 alone.
#
#   gre.sh up      devices, VIPs on lo, sysctls; again: no change
#   gre.sh down    takes devices and VIPs away; sysctls stay
#
# VIPs and MTUs: /etc/lbfwd/gre.env, or the file that GRE_ENV names. Who may send GRE, and the TCP
# MSS, is up to nftables.nft. In /etc/network/interfaces: post-up /etc/lbfwd/gre.sh up
set -eu

. "${GRE_ENV:-/etc/lbfwd/gre.env}"
CONF=/proc/sys/net/ipv4/conf

# One device takes GRE from every node (external: the outer addresses are no matter of the device).
add_device() {
    [ -e "/sys/class/net/$1" ] && return
    if ! ip link add "$1" type "$2" external; then
        echo "gre.sh: no device of kind $2: modprobe $3, or use lbfwd backend" >&2
        exit 1
    fi
}

# Nobody is there to talk to: no addresses of its own, no router advertisements.
bring_up() {
    [ ! -e "/proc/sys/net/ipv6/conf/$1" ] || {
        echo 1 >"/proc/sys/net/ipv6/conf/$1/addr_gen_mode"
        echo 0 >"/proc/sys/net/ipv6/conf/$1/accept_ra"
    }
    ip link set "$1" mtu "$2" up
}

at_least() {
    [ "$(cat "$1")" -ge "$2" ] || echo "$2" >"$1"
}

# Strict and loose mode both drop what comes out of the tunnel. The higher value of `all` and the
# device's own counts, so the others first take over what `all` gave them.
no_reverse_path_filter() {
    all=$(cat $CONF/all/rp_filter)
    for place in "$CONF"/*; do
        case ${place##*/} in
        all) ;;
        lbfwd-gre4 | lbfwd-gre6) echo 0 >"$place/rp_filter" ;;
        *) at_least "$place/rp_filter" "$all" ;;
        esac
    done
    echo 0 >$CONF/all/rp_filter
}

# Local, and never the source of connections that this machine opens.
add_vips() {
    for vip in $VIPS; do
        case $vip in
        *:*) ip address replace "$vip/128" dev lo nodad preferred_lft 0 ;;
        *) ip address replace "$vip/32" dev lo scope host ;;
        esac
    done
}

remove_vips() {
    for vip in $VIPS; do
        case $vip in
        *:*) ip address del "$vip/128" dev lo || true ;;
        *) ip address del "$vip/32" dev lo || true ;;
        esac
    done
}

case ${1:-} in
up)
    add_device lbfwd-gre4 gre ip_gre
    add_device lbfwd-gre6 ip6gre ip6_gre
    at_least $CONF/all/arp_ignore 1
    at_least $CONF/all/arp_announce 2
    no_reverse_path_filter
    bring_up lbfwd-gre4 "$MTU4"
    bring_up lbfwd-gre6 "$MTU6"
    add_vips
    ;;
down)
    remove_vips
    for device in lbfwd-gre4 lbfwd-gre6; do
        [ ! -e "/sys/class/net/$device" ] || ip link del "$device"
    done
    ;;
*)
    echo "usage: gre.sh up|down" >&2
    exit 2
    ;;
esac
