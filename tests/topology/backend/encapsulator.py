"""A load balancer in thirty lines: wraps every packet for a VIP into GRE, by raw sockets.

Usage: encapsulator.py BACKEND VIP [VIP …]. Prints "ready". Refuses (and so ends) when a packet
does not fit the path, because the sockets must not fragment.
"""

import socket
import sys
from ipaddress import ip_address

ETH_P_ALL, PACKET_HOST = 3, 0
MTU_DISCOVER, PMTUDISC_DO = {4: 10, 6: 23}, 2  # IP_MTU_DISCOVER, IPV6_MTU_DISCOVER


def destination(packet):
    return packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]


def main(backend, *vips):
    wanted = {ip_address(vip).packed for vip in vips}
    version = ip_address(backend).version
    family, level = {
        4: (socket.AF_INET, socket.IPPROTO_IP),
        6: (socket.AF_INET6, socket.IPPROTO_IPV6),
    }[version]
    taken = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    sent = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_GRE)
    sent.setsockopt(level, MTU_DISCOVER[version], PMTUDISC_DO)
    print("ready", flush=True)  # noqa: T201 - who started us waits for it
    while True:
        packet, (_device, _protocol, kind, *_) = taken.recvfrom(65536)
        if kind == PACKET_HOST and packet and destination(packet) in wanted:
            inner = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
            sent.sendto(b"\0\0" + inner + packet, (backend, 0))


if __name__ == "__main__":
    main(*sys.argv[1:])
