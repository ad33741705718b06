"""Frames as Scapy builds them, and offload headers (virtio specification 1.2, section 5.1.6)."""

import struct
from typing import Any

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import checksum

from tests.packet.bench import NODE_MAC, ROUTER_MAC, VIP4, VIP6

CLIENT = {4: "198.51.100.7", 6: "2001:db8:1::7"}
VIP = {4: str(VIP4), 6: str(VIP6)}

NEEDS_CSUM = 1
GSO_NONE, GSO_TCPV4, GSO_UDP, GSO_TCPV6, GSO_UDP_L4, GSO_ECN = 0, 1, 3, 4, 5, 0x80
CSUM_OFFSET = {"tcp": 16, "udp": 6}


def ethernet() -> Packet:
    return Ether(src=ROUTER_MAC, dst=NODE_MAC.hex(":"))


def ip(family: int, **fields: Any) -> Packet:
    fields = {"src": CLIENT[family], "dst": VIP[family], **fields}
    return IP(**fields) if family == 4 else IPv6(**fields)


def transport(protocol: str, **fields: Any) -> Packet:
    fields = {"sport": 40000, "dport": 84, **fields}
    return TCP(**fields) if protocol == "tcp" else UDP(**fields)


def raw(*layers: object) -> bytes:
    """A frame to the node with these layers in it."""
    packet = ethernet()
    for layer in layers:
        packet /= layer
    return bytes(packet)


def frame(
    family: int, protocol: str, payload: bytes = b"hello", port: int = 84, **ip_fields: Any
) -> bytes:
    packet = ethernet() / ip(family, **ip_fields) / transport(protocol, dport=port) / Raw(payload)
    return bytes(packet)


def mended(data: bytes) -> bytes:
    """The frame with a right IPv4 header checksum, if there is such a header."""
    header = max(20, (data[14] & 15) * 4) if len(data) > 14 else 0
    if data[12:14] != b"\x08\x00" or len(data) < 14 + header:
        return data
    blank = data[:24] + b"\0\0" + data[26:]
    return data[:24] + struct.pack("!H", checksum(blank[14 : 14 + header])) + data[26:]


def offload(
    flags: int = 0,
    gso_type: int = GSO_NONE,
    *,
    hdr_len: int = 0,
    gso_size: int = 0,
    csum_start: int = 0,
    csum_offset: int = 0,
) -> bytes:
    return struct.pack("<BBHHHH", flags, gso_type, hdr_len, gso_size, csum_start, csum_offset)
