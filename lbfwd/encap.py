"""Outer headers: Ethernet, outer IP, GRE. RFC 2784, RFC 791, RFC 8200."""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

IPAddress = IPv4Address | IPv6Address

_TTL = 64
_GRE = 47
# GRE between nodes of a fleet says this in its first 16 bits: LBFWD_PEER_MARK in _fleet.h.
PEER_MARK = 0x0100
_DONT_FRAGMENT = 0x4000
_IPV4_HEADER = 14 + 20 + 4  # Ethernet, IPv4, GRE
_IPV6_HEADER = 14 + 40 + 4
_FLAGS_AT = 14 + 6


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of an even number of bytes."""
    # The ones' complement sum of 16-bit words is the whole number modulo 2^16 - 1, where 0 has two
    # forms: it is 0xffff unless all words are 0.
    number = int.from_bytes(data, "big")
    total = number % 0xFFFF or (0xFFFF if number else 0)
    return ~total & 0xFFFF


def _outer_ipv4(source: bytes, destination: bytes, flags: int) -> bytes:
    start = struct.pack("!BBHHHBB", 0x45, 0, 0, 0, flags, _TTL, _GRE)
    ends = source + destination
    return start + checksum(start + ends).to_bytes(2, "big") + ends


def _outer_ipv6(source: bytes, destination: bytes) -> bytes:
    return struct.pack("!IHBB", 6 << 28, 0, _GRE, _TTL) + source + destination


def outer_header(
    dst_mac: bytes,
    src_mac: bytes,
    source: IPAddress,
    destination: IPAddress,
    may_fragment: bool = False,
) -> bytes:
    """Return what C completes per packet: lengths, TOS and the GRE protocol are 0.

    38 bytes for an IPv4 backend, 58 for an IPv6 one. ``may_fragment``: leave DF out of an outer
    IPv4 header. ValueError when the families differ.
    """
    if source.version != destination.version:
        raise ValueError(f"outer source {source} and backend {destination} are of two families")
    ends = source.packed, destination.packed
    if destination.version == 4:
        outer = _outer_ipv4(*ends, 0 if may_fragment else _DONT_FRAGMENT)
        return dst_mac + src_mac + b"\x08\x00" + outer + bytes(4)
    return dst_mac + src_mac + b"\x86\xdd" + _outer_ipv6(*ends) + bytes(4)


def needs_identification(header: bytes) -> bool:
    """Return whether it is an outer IPv4 header without DF: its packets may be fragmented."""
    flags = int.from_bytes(header[_FLAGS_AT : _FLAGS_AT + 2], "big")
    return len(header) == _IPV4_HEADER and not flags & _DONT_FRAGMENT


@dataclass(frozen=True)
class Outer:
    """An outer header as it is sent. ``dont_fragment``: None in IPv6, where nobody else may."""

    dst_mac: str
    src_mac: str
    source: IPAddress
    destination: IPAddress
    ttl: int
    tos: int
    dont_fragment: bool | None
    length: int
    """Of the outer IP packet, bytes."""
    gre_protocol: int
    raw: bytes
    """Ethernet, IP and GRE."""


def read_outer(frame: bytes) -> Outer:
    """Read the outer header of a frame that was wrapped. ValueError: it has none."""
    macs = {"dst_mac": frame[:6].hex(":"), "src_mac": frame[6:12].hex(":")}
    ip = frame[14:]
    if frame[12:14] == b"\x08\x00" and len(frame) >= _IPV4_HEADER and ip[9] == _GRE:
        return Outer(
            **macs,
            source=IPv4Address(ip[12:16]),
            destination=IPv4Address(ip[16:20]),
            ttl=ip[8],
            tos=ip[1],
            dont_fragment=bool(int.from_bytes(ip[6:8], "big") & _DONT_FRAGMENT),
            length=int.from_bytes(ip[2:4], "big"),
            gre_protocol=int.from_bytes(ip[22:24], "big"),
            raw=frame[:_IPV4_HEADER],
        )
    if frame[12:14] == b"\x86\xdd" and len(frame) >= _IPV6_HEADER and ip[6] == _GRE:
        return Outer(
            **macs,
            source=IPv6Address(ip[8:24]),
            destination=IPv6Address(ip[24:40]),
            ttl=ip[7],
            tos=int.from_bytes(ip[:2], "big") >> 4 & 0xFF,
            dont_fragment=None,
            length=40 + int.from_bytes(ip[4:6], "big"),
            gre_protocol=int.from_bytes(ip[42:44], "big"),
            raw=frame[:_IPV6_HEADER],
        )
    raise ValueError(f"no GRE in a frame of {len(frame)} bytes")
