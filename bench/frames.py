"""The frames that are sent through a node, and their sizes."""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from lbfwd.encap import checksum

IPAddress = IPv4Address | IPv6Address
Protocol = Literal["udp", "tcp-syn", "tcp-ack"]

VIPS: dict[int, IPAddress] = {4: ip_address("192.0.2.10"), 6: ip_address("2001:db8::10")}
CLIENTS: dict[int, IPAddress] = {4: ip_address("11.0.0.0"), 6: ip_address("2001:db8:c::")}
PORT = 80
FCS_BYTES = 4
ETHERNET_BYTES = 14
_NUMBERS = {"udp": 17, "tcp-syn": 6, "tcp-ack": 6}
_HEADERS = {"udp": 8, "tcp-syn": 20, "tcp-ack": 20}
_FLAGS = {"tcp-syn": 0x02, "tcp-ack": 0x10}


@dataclass(frozen=True)
class Shape:
    """What all flows of a run have in common.

    ``size``: bytes of the Ethernet frame as RFC 2544 counts them, with the four of the FCS, which
    a packet socket never sees.
    """

    size: int = 64
    family: Literal[4, 6] = 4
    protocol: Protocol = "tcp-ack"

    @property
    def payload(self) -> int:
        """Bytes behind the UDP or TCP header. Raises ValueError where the frame is too short."""
        ip = {4: 20, 6: 40}[self.family]
        left = self.size - FCS_BYTES - ETHERNET_BYTES - ip - _HEADERS[self.protocol]
        if left < 0:
            least = self.size - left
            raise ValueError(f"size {self.size}: {self.protocol} over IPv{self.family} has {least}")
        return left


def frame(shape: Shape, destination_mac: bytes, source_mac: bytes) -> bytes:
    """Return the frame to the VIP's port 80 that every flow's frames are made of.

    Its checksums are right; the generator gives each flow an address and a port of its own.
    """
    ends = CLIENTS[shape.family].packed + VIPS[shape.family].packed
    length, number = _HEADERS[shape.protocol] + shape.payload, _NUMBERS[shape.protocol]
    pseudo = ends + struct.pack("!II", length, number)
    ethertype = {4: b"\x08\x00", 6: b"\x86\xdd"}[shape.family]
    ethernet = destination_mac + source_mac + ethertype
    return ethernet + _ip(shape.family, ends, length, number) + _transport(shape, pseudo)


def _ip(family: int, ends: bytes, length: int, number: int) -> bytes:
    if family == 6:
        return struct.pack("!IHBB", 6 << 28, length, number, 64) + ends
    fixed = struct.pack("!BBHHHBB", 0x45, 0, 20 + length, 0, 0x4000, 64, number)
    return fixed + struct.pack("!H", checksum(fixed + bytes(2) + ends)) + ends


def _transport(shape: Shape, pseudo: bytes) -> bytes:
    payload = bytes(shape.payload)
    if shape.protocol == "udp":
        head = struct.pack("!HHH", 1024, PORT, _HEADERS["udp"] + shape.payload)
        tail = b""
    else:
        head = struct.pack("!HHIIBBH", 1024, PORT, 1, 1, 0x50, _FLAGS[shape.protocol], 1024)
        tail = bytes(2)
    covered = pseudo + head + bytes(2) + tail + payload
    check = checksum(covered + bytes(len(covered) % 2))
    if shape.protocol == "udp":
        check = check or 0xFFFF  # 0 would mean "none" (RFC 768)
    return head + struct.pack("!H", check) + tail + payload
