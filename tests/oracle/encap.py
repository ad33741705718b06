"""What a forwarded packet becomes, built by Scapy. docs/architecture.md; RFC 2784, RFC 6040."""

from ipaddress import IPv4Address, IPv6Address

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Packet

IPAddress = IPv4Address | IPv6Address


def inner_packet(frame: bytes) -> bytes:
    """The IP packet in an Ethernet frame, without the padding behind it."""
    packet = Ether(frame).payload
    length = packet.len if isinstance(packet, IP) else 40 + packet.plen
    return frame[14 : 14 + length]


def _outer(
    source: IPAddress, destination: IPAddress, traffic_class: int, identification: int | None
) -> Packet:
    if destination.version == 4:
        fields = {"id": 0, "flags": "DF"} if identification is None else {"id": identification}
        return IP(src=str(source), dst=str(destination), tos=traffic_class, ttl=64, **fields)
    return IPv6(src=str(source), dst=str(destination), tc=traffic_class, hlim=64)


def wrapped(
    inner: bytes,
    source: IPAddress,
    destination: IPAddress,
    src_mac: bytes,
    dst_mac: bytes,
    *,
    identification: int | None = None,
) -> bytes:
    """The whole frame that carries an inner IP packet from the node to a backend.

    ``identification``: of an outer IPv4 header without DF; None: DF is set.
    """
    if inner[0] >> 4 == 4:
        proto, traffic_class = 0x0800, IP(inner).tos
    else:
        proto, traffic_class = 0x86DD, IPv6(inner).tc
    ethernet = Ether(src=src_mac.hex(":"), dst=dst_mac.hex(":"))
    outer = _outer(source, destination, traffic_class, identification)
    return bytes(ethernet / outer / GRE(proto=proto) / inner)


def unwrapped(frame: bytes) -> bytes:
    """The inner packet of a frame with GRE in IPv4 or IPv6."""
    packet = Ether(frame)
    assert packet[GRE].proto in (0x0800, 0x86DD)
    return bytes(packet[GRE].payload)
