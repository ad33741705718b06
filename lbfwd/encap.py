"""The prebuilt outer header of a path: Ethernet, outer IP, GRE. RFC 2784, RFC 791, RFC 8200."""

import struct
from ipaddress import IPv4Address, IPv6Address

IPAddress = IPv4Address | IPv6Address

_TTL = 64
_GRE = 47
_DONT_FRAGMENT = 0x4000
_IPV4_HEADER = 14 + 20 + 4  # Ethernet, IPv4, GRE
_FLAGS_AT = 14 + 6


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _outer_ipv4(source: bytes, destination: bytes, flags: int) -> bytes:
    def build(check: int) -> bytes:
        fixed = struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, flags, _TTL, _GRE, check)
        return fixed + source + destination

    return build(checksum(build(0)))


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
