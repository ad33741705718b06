"""What a captured frame is about: its flow, and the tunnel it is in. Pure.

Only what it takes to say which service a packet belongs to: what becomes of it, the packet path
itself says (explain).
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from lbfwd.config import IPAddress

ETHERNET_BYTES = 14
VLAN_BYTES = 4
GRE_BYTES = 4
TCP, UDP, GRE = 6, 17, 47
PROTOCOLS = {"tcp": TCP, "udp": UDP}

_VLAN = (0x8100, 0x88A8)
_IP = {0x0800: 4, 0x86DD: 6}
_ICMP = {4: 1, 6: 58}
# RFC 792: unreachable, source quench, redirect, time exceeded, parameter problem. RFC 4443: errors
# are below 128.
_ICMP4_ERRORS = (3, 4, 5, 11, 12)
_ICMP6_ERRORS = 128
_QUOTED_AT = 8  # both ICMP headers
_EXTENSIONS = (0, 43, 60)  # hop-by-hop, routing, destination options: RFC 8200
_FRAGMENT = 44
_MOST_EXTENSIONS = 8


@dataclass(frozen=True)
class Flow:
    """The flow of a packet for a VIP; ports None: a fragment that is not the first one.

    An ICMP error belongs to the flow of the packet that it quotes.
    """

    protocol: int
    source: IPAddress
    source_port: int | None
    vip: IPAddress
    port: int | None


@dataclass(frozen=True)
class _Ip:
    source: IPAddress
    destination: IPAddress
    protocol: int
    payload: bytes
    first: bool  # not a later fragment


def flow(inner: bytes) -> Flow | None:
    """Return the flow of an IP packet; None where it has none, or is cut before it shows."""
    found = _ip(inner)
    if found is None:
        return None
    if found.protocol == _ICMP[found.destination.version] and found.first:
        return _quoted(found)
    if found.protocol not in PROTOCOLS.values():
        return None
    ports = _ports(found)
    return Flow(found.protocol, found.source, ports[0], found.destination, ports[1])


def destination(packet: bytes) -> IPAddress | None:
    """Return where an IP packet goes."""
    found = _ip(packet)
    return found.destination if found else None


def source(packet: bytes) -> IPAddress | None:
    """Return where an IP packet comes from."""
    found = _ip(packet)
    return found.source if found else None


def ip_packet(frame: bytes) -> bytes:
    """Return what is behind the Ethernet header and any VLAN tags; empty: it is not IP."""
    at = 12
    while int.from_bytes(frame[at : at + 2], "big") in _VLAN:
        at += VLAN_BYTES
    return frame[at + 2 :] if int.from_bytes(frame[at : at + 2], "big") in _IP else b""


def tunnelled(packet: bytes) -> bytes:
    """Return the IP packet inside a GRE packet of ours (RFC 2784 without options), or nothing."""
    outer = _ip(packet)
    if outer is None or outer.protocol != GRE or len(outer.payload) < GRE_BYTES:
        return b""
    flags, kind = outer.payload[:2], int.from_bytes(outer.payload[2:4], "big")
    return outer.payload[GRE_BYTES:] if flags == b"\0\0" and kind in _IP else b""


def _quoted(error: _Ip) -> Flow | None:
    """Return the flow whose answer an ICMP error quotes: from the VIP, to the client."""
    kind = error.payload[:1]
    errors = _ICMP4_ERRORS if error.source.version == 4 else range(_ICMP6_ERRORS)
    if not kind or kind[0] not in errors:
        return None
    quoted = _ip(error.payload[_QUOTED_AT:])
    if quoted is None or quoted.protocol not in PROTOCOLS.values():
        return None
    port, client_port = _ports(quoted)
    return Flow(quoted.protocol, quoted.destination, client_port, quoted.source, port)


def _ports(packet: _Ip) -> tuple[int | None, int | None]:
    if not packet.first or len(packet.payload) < 4:
        return None, None
    head = packet.payload
    return int.from_bytes(head[:2], "big"), int.from_bytes(head[2:4], "big")


def _ip(packet: bytes) -> _Ip | None:
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        start, fragment = (packet[0] & 0x0F) * 4, int.from_bytes(packet[6:8], "big")
        return _Ip(
            IPv4Address(packet[12:16]),
            IPv4Address(packet[16:20]),
            packet[9],
            packet[start:],
            not fragment & 0x1FFF,
        )
    return _ipv6(packet) if version == 6 and len(packet) >= 40 else None


def _ipv6(packet: bytes) -> _Ip | None:
    protocol, at, first = packet[6], 40, True
    for _ in range(_MOST_EXTENSIONS):
        if protocol not in (*_EXTENSIONS, _FRAGMENT) or len(packet) < at + 8:
            break
        if protocol == _FRAGMENT:
            first = first and not int.from_bytes(packet[at + 2 : at + 4], "big") & 0xFFF8
            protocol, at = packet[at], at + 8
        else:
            protocol, at = packet[at], at + 8 + packet[at + 1] * 8
    ends = IPv6Address(packet[8:24]), IPv6Address(packet[24:40])
    return _Ip(*ends, protocol, packet[at:], first)
