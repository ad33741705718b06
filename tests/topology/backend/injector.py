"""Sends whole IP packets, given as lines of hexadecimal digits on stdin."""

import socket
import sys
from ipaddress import ip_address

if __name__ == "__main__":
    kinds = {4: socket.AF_INET, 6: socket.AF_INET6}
    # IPPROTO_RAW: the header is ours, in both families (raw(7), RFC 3542 does not have it).
    raw = {v: socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_RAW) for v, kind in kinds.items()}
    print("ready", flush=True)  # noqa: T201 - who started us waits for it
    for line in sys.stdin:
        packet = bytes.fromhex(line)
        version = packet[0] >> 4
        target = packet[16:20] if version == 4 else packet[24:40]
        raw[version].sendto(packet, (str(ip_address(target)), 0))
