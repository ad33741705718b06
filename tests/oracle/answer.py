"""What the node answers in a VIP's name, built by Scapy field by field.

ICMP: RFC 792, RFC 1191, RFC 1812 section 4.3.2; ICMPv6: RFC 4443; RST: RFC 9293 section 3.10.7.1.
"""

from typing import Any

from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.oracle.encap import inner_packet

LARGEST = {4: 576, 6: 1280}  # of an ICMP error, IP header included


def _back(frame: bytes, **fields: Any) -> Packet:
    """Ethernet and IP headers from where the frame went to, to where it came from."""
    packet = Ether(frame)
    ethernet = Ether(src=packet.dst, dst=packet.src)
    if IP in packet:
        return ethernet / IP(
            src=packet[IP].dst, dst=packet[IP].src, ttl=64, id=0, flags="DF", **fields
        )
    return ethernet / IPv6(src=packet[IPv6].dst, dst=packet[IPv6].src, hlim=64)


def _quote(frame: bytes) -> Packet:
    packet = inner_packet(frame)
    family = packet[0] >> 4
    headers = {4: 20 + 8, 6: 40 + 8}[family]
    return Raw(packet[: LARGEST[family] - headers])


def too_big(frame: bytes, mtu: int) -> bytes:
    """Fragmentation needed, or packet too big."""
    if frame[14] >> 4 == 4:
        return bytes(_back(frame) / ICMP(type=3, code=4, nexthopmtu=mtu) / _quote(frame))
    return bytes(_back(frame) / ICMPv6PacketTooBig(mtu=mtu) / _quote(frame))


def port_unreachable(frame: bytes) -> bytes:
    """Nobody listens on this UDP port."""
    if frame[14] >> 4 == 4:
        return bytes(_back(frame) / ICMP(type=3, code=3) / _quote(frame))
    return bytes(_back(frame) / ICMPv6DestUnreach(code=4) / _quote(frame))


def echo_reply(frame: bytes) -> bytes:
    """The request's data come back; a request with a right checksum only.

    A checksum of 0 is sent as 0xffff: both verify (RFC 1071), but over nothing but zeros only the
    latter does, and whoever changes a checksum without the data cannot tell (RFC 1624 section 3).
    """
    packet = Ether(frame)
    if IP in packet:
        request = packet[ICMP]
        message = ICMP(type=0, id=request.id, seq=request.seq) / Raw(bytes(request.payload))
        message.chksum = ICMP(bytes(message)).chksum or 0xFFFF
        return bytes(_back(frame) / message)
    request = packet[ICMPv6EchoRequest]
    reply = _back(frame) / ICMPv6EchoReply(id=request.id, seq=request.seq, data=request.data)
    reply[ICMPv6EchoReply].cksum = Ether(bytes(reply))[ICMPv6EchoReply].cksum or 0xFFFF
    return bytes(reply)


def reset(frame: bytes) -> bytes:
    """What a closed port says to a segment that is no RST itself."""
    segment = Ether(frame)[TCP]
    ports = {"sport": segment.dport, "dport": segment.sport, "window": 0}
    if "A" in segment.flags:
        return bytes(_back(frame) / TCP(flags="R", seq=segment.ack, ack=0, **ports))
    packet = inner_packet(frame)
    header = packet.index(bytes(segment)[:20])
    data = len(packet) - header - 4 * segment.dataofs
    taken = data + ("S" in segment.flags) + ("F" in segment.flags)
    return bytes(
        _back(frame) / TCP(flags="RA", seq=0, ack=(segment.seq + taken) & 0xFFFFFFFF, **ports)
    )
