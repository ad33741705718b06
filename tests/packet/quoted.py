"""ICMP errors as routers and clients send them about packets that a VIP sent."""

from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.packet import Packet, Raw

from tests.packet.crafted import CLIENT, VIP, raw

ROUTER = {4: "203.0.113.254", 6: "2001:db8:fe::1"}
ERRORS: dict[int, dict[str, Packet]] = {
    4: {
        "net unreachable": ICMP(type=3, code=0),
        "port unreachable": ICMP(type=3, code=3),
        "fragmentation needed": ICMP(type=3, code=4, nexthopmtu=1300),
        "source quench": ICMP(type=4),
        "time exceeded": ICMP(type=11),
        "parameter problem": ICMP(type=12),
    },
    6: {
        "no route": ICMPv6DestUnreach(code=0),
        "port unreachable": ICMPv6DestUnreach(code=4),
        "packet too big": ICMPv6PacketTooBig(mtu=1300),
        "time exceeded": ICMPv6TimeExceeded(),
        "parameter problem": ICMPv6ParamProblem(),
    },
}
EVERY = [(family, name) for family in ERRORS for name in ERRORS[family]]


def answer_of_the_vip(family: int, protocol: str, port: int, sport: int, **fields: Any) -> Packet:
    """A packet of the flow's other direction: what errors quote."""
    fields = {"src": VIP[family], "dst": CLIENT[family], **fields}
    ip = IP(**fields) if family == 4 else IPv6(**fields)
    kind = TCP(flags="A") if protocol == "tcp" else UDP()
    kind.sport, kind.dport = port, sport
    return ip / kind / Raw(bytes(100))


def error(
    family: int,
    quote: bytes,
    name: str | None = None,
    src: str | None = None,
    dst: str | None = None,
    **fields: Any,
) -> bytes:
    """The frame of an ICMP error to the VIP, with so much quoted."""
    message = ERRORS[family][name or "port unreachable"].copy()
    ends = {"src": src or ROUTER[family], "dst": dst or VIP[family], **fields}
    ip = IP(**ends) if family == 4 else IPv6(**ends)
    return raw(ip, message, Raw(quote))


def about(
    family: int,
    protocol: str = "udp",
    port: int = 84,
    sport: int = 40000,
    name: str | None = None,
    **fields: Any,
) -> bytes:
    """An error about a flow, which quotes no more than RFC 792 guarantees: 8 bytes."""
    quote = bytes(answer_of_the_vip(family, protocol, port, sport, **fields))
    return error(family, quote[: {4: 20, 6: 40}[family] + 8], name)
