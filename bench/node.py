"""The node whose packet path is measured in memory: port 80 of two VIPs, seven backends."""

import struct
from ipaddress import ip_address

from bench.frames import PORT, VIPS
from lbfwd.encap import checksum
from lbfwd.forwarding import Forwarding, Member, PathSpec, PoolState, ServiceState

SECRET = bytes(range(16))
NODE_MAC, ROUTER_MAC = bytes.fromhex("020000000001"), bytes.fromhex("0200000000fe")
NODE, VIP = ip_address("10.0.0.1"), VIPS[4]
BACKENDS = range(11, 18)
TABLE_SIZE = 65537
MTU = 1500
ACK = 0x10


def forwarding() -> Forwarding:
    """Return the state: port 80 of each VIP, TCP and UDP."""
    members = tuple(
        Member(f"b{number}", target, 1, (PathSpec(NODE_MAC, mac, NODE, target, 0, MTU),))
        for number in BACKENDS
        for target, mac in [(ip_address(f"10.0.0.{number}"), NODE_MAC[:5] + bytes([number]))]
    )
    services = tuple(
        ServiceState(f"web-{protocol}-{family}", vip, protocol, PORT, "5-tuple", "web")
        for family, vip in VIPS.items()
        for protocol in ("tcp", "udp")
    )
    return Forwarding(SECRET, services, (PoolState("web", TABLE_SIZE, members),))


def segment(source: bytes, port: int) -> bytes:
    """Return a frame of 60 bytes: a TCP segment without data from that client."""
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0x4000, 64, 6, 0, source, VIP.packed)
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    tcp = struct.pack("!HHIIBBHHH", port, PORT, 0, 0, 0x50, ACK, 1024, 0, 0)
    return (NODE_MAC + ROUTER_MAC + b"\x08\x00" + head + tcp).ljust(60, b"\0")
