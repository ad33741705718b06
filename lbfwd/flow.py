"""A flow as people write it, and a packet of it. Pure.

``tcp 198.51.100.7:40000 192.0.2.10:443``; an IPv6 address with a port stands in brackets (RFC 5952
section 6). ICMP has no ports: its packet is an echo request.
"""

import ipaddress
import re
import struct
from dataclasses import dataclass
from typing import Literal

from lbfwd.encap import IPAddress, checksum

Protocol = Literal["tcp", "udp", "icmp"]
PROTOCOLS: tuple[Protocol, ...] = ("tcp", "udp", "icmp")

_PLACE = re.compile(r"(?:\[(?P<six>[^]]*)\]|(?P<four>[^:]*))(?::(?P<port>[^:]*))?")
_TTL = 64
_TCP_ACK = 0x10
_NUMBERS = {("tcp", 4): 6, ("tcp", 6): 6, ("udp", 4): 17, ("udp", 6): 17,
            ("icmp", 4): 1, ("icmp", 6): 58}  # fmt: skip
_ECHO_REQUEST = {4: 8, 6: 128}  # RFC 792, RFC 4443 section 4.1


@dataclass(frozen=True)
class Flow:
    """Client and VIP; ports are 0 where the protocol has none."""

    protocol: Protocol
    source: IPAddress
    source_port: int
    destination: IPAddress
    destination_port: int

    def __str__(self) -> str:
        """Return it as ``parse`` reads it."""
        source = _place(self.source, self.source_port)
        return f"{self.protocol} {source} {_place(self.destination, self.destination_port)}"


def parse(protocol: str, source: str, destination: str) -> Flow:
    """Read a flow. Raises ValueError, which names the value and the rule."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol {protocol!r}: must be one of {', '.join(PROTOCOLS)}")
    client, client_port = _end("source", source, protocol)
    vip, vip_port = _end("destination", destination, protocol)
    if client.version != vip.version:
        raise ValueError(f"source {client} and destination {vip}: must be of one family")
    return Flow(protocol, client, client_port, vip, vip_port)


def packet(flow: Flow, payload: bytes = b"") -> bytes:
    """Return an Ethernet frame with a packet of the flow; its payload has an even length.

    TCP: a segment with ACK, as all but the first of a connection. MAC addresses are 0.
    """
    transport = _transport(flow, payload)
    number = _NUMBERS[flow.protocol, flow.source.version]
    ends = flow.source.packed + flow.destination.packed
    if flow.source.version == 4:
        head = _ipv4_header(ends, len(transport), number)
        return bytes(12) + b"\x08\x00" + head + transport
    head = struct.pack("!IHBB", 6 << 28, len(transport), number, _TTL) + ends
    return bytes(12) + b"\x86\xdd" + head + transport


def parse_end(name: str, text: str) -> tuple[IPAddress, int | None]:
    """Read ADDRESS or ADDRESS:PORT, as ``parse`` does for both. ValueError: value and rule."""
    address, port = _split(name, text)
    if port is None:
        return address, None
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{name} {text!r}: port {port!r} must be a number from 1 to 65535")
    return address, int(port)


def _end(name: str, text: str, protocol: Protocol) -> tuple[IPAddress, int]:
    address, port = parse_end(name, text)
    if protocol == "icmp":
        if port is not None:
            raise ValueError(f"{name} {text!r}: icmp has no ports")
        return address, 0
    if port is None:
        raise ValueError(f"{name} {text!r}: {protocol} needs a port: {_place(address, 'PORT')}")
    return address, port


def _split(name: str, text: str) -> tuple[IPAddress, str | None]:
    """Return the address, and the text of the port behind it."""
    try:
        return ipaddress.ip_address(text), None
    except ValueError:
        found = _PLACE.fullmatch(text)
    try:
        if found and found["six"] is not None:
            return ipaddress.IPv6Address(found["six"]), found["port"]
        if found:
            return ipaddress.IPv4Address(found["four"]), found["port"]
    except ValueError:
        pass
    rule = "must be ADDRESS or ADDRESS:PORT, an IPv6 address with a port in brackets"
    raise ValueError(f"{name} {text!r}: {rule}")


def _place(address: IPAddress, port: int | str) -> str:
    if not port:
        return str(address)
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _ipv4_header(ends: bytes, payload: int, number: int) -> bytes:
    """RFC 791 section 3.1: don't fragment, identification 0 (RFC 6864)."""

    def build(check: int) -> bytes:
        return (
            struct.pack("!BBHHHBBH", 0x45, 0, 20 + payload, 0, 0x4000, _TTL, number, check) + ends
        )

    return build(checksum(build(0)))


def _transport(flow: Flow, payload: bytes) -> bytes:
    def head(check: int) -> bytes:
        ports = struct.pack("!HH", flow.source_port, flow.destination_port)
        if flow.protocol == "tcp":
            return ports + struct.pack("!IIBBHHH", 1, 1, 5 << 4, _TCP_ACK, 65535, check, 0)
        if flow.protocol == "udp":
            return ports + struct.pack("!HH", 8 + len(payload), check)
        return struct.pack("!BBHHH", _ECHO_REQUEST[flow.source.version], 0, check, 0, 0)

    def build(check: int) -> bytes:
        return head(check) + payload

    return build(checksum(_pseudo_header(flow, len(build(0))) + build(0)) or 0xFFFF)


def _pseudo_header(flow: Flow, length: int) -> bytes:
    """RFC 9293 section 3.1, RFC 768, RFC 8200 section 8.1; ICMP over IPv4 has none (RFC 792)."""
    number = _NUMBERS[flow.protocol, flow.source.version]
    ends = flow.source.packed + flow.destination.packed
    if flow.source.version == 6:
        return ends + struct.pack("!II", length, number)
    return b"" if flow.protocol == "icmp" else ends + struct.pack("!HH", number, length)
