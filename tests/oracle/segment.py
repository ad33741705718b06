"""What a super-frame's segments look like, built by Scapy field by field.

RFC 9293 (sequence numbers), RFC 3168 section 6.1.2 (CWR), RFC 768, RFC 791.
"""

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw


def _headers(packet: bytes) -> Packet:
    return IP(packet) if packet[0] >> 4 == 4 else IPv6(packet)


def _pieces(payload: bytes, size: int) -> list[bytes]:
    return [payload[at : at + size] for at in range(0, len(payload), size)]


def _renumbered(packet: bytes, number: int) -> Packet:
    """The packet's headers, lengths and checksums left for Scapy to compute."""
    headers = _headers(packet)
    transport = TCP if TCP in headers else UDP
    headers[transport].remove_payload()
    if isinstance(headers, IP):
        headers.id = (headers.id + number) & 0xFFFF
        del headers.len, headers.chksum
    else:
        del headers.plen
    return headers


def tcp(packet: bytes, size: int) -> list[bytes]:
    """The segments of a TCP super-packet (IP header first), ``size`` payload bytes each."""
    pieces = _pieces(bytes(_headers(packet)[TCP].payload), size)
    segments = []
    for number, piece in enumerate(pieces):
        segment = _renumbered(packet, number)
        header = segment[TCP]
        header.seq = (header.seq + number * size) & 0xFFFFFFFF
        flags = str(header.flags)
        if number < len(pieces) - 1:
            flags = flags.replace("F", "").replace("P", "")
        if number > 0:
            flags = flags.replace("C", "")
        header.flags = flags
        del header.chksum
        segments.append(bytes(segment / Raw(piece)))
    return segments


def udp(packet: bytes, size: int, *, checksum: bool = True) -> list[bytes]:
    """The datagrams of a UDP super-packet; ``checksum`` False: IPv4 without one."""
    segments = []
    for number, piece in enumerate(_pieces(bytes(_headers(packet)[UDP].payload), size)):
        segment = _renumbered(packet, number)
        del segment[UDP].len
        if checksum:
            del segment[UDP].chksum
        else:
            segment[UDP].chksum = 0
        segments.append(bytes(segment / Raw(piece)))
    return segments
