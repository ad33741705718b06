"""What a forwarded packet becomes, built by Scapy. DESIGN section 4; RFC 2784, RFC 6040."""

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


def _outer(source: IPAddress, destination: IPAddress, traffic_class: int) -> Packet:
    if destination.version == 4:
        return IP(
            src=str(source), dst=str(destination), tos=traffic_class, ttl=64, id=0, flags="DF"
        )
    return IPv6(src=str(source), dst=str(destination), tc=traffic_class, hlim=64)


def wrapped(
    inner: bytes, source: IPAddress, destination: IPAddress, src_mac: bytes, dst_mac: bytes
) -> bytes:
    """The whole frame that carries an inner IP packet from the node to a backend."""
    if inner[0] >> 4 == 4:
        proto, traffic_class = 0x0800, IP(inner).tos
    else:
        proto, traffic_class = 0x86DD, IPv6(inner).tc
    ethernet = Ether(src=src_mac.hex(":"), dst=dst_mac.hex(":"))
    headers = ethernet / _outer(source, destination, traffic_class) / GRE(proto=proto)
    return bytes(headers / inner)
