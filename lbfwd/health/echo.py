"""Echo messages (RFC 792, RFC 4443): the bytes of a request, and whether bytes answer it. Pure."""

import struct

from lbfwd.encap import checksum

HEADER = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number
REQUEST, REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
IP_BYTES = {4: 20, 6: 40}


def request(version: int, name: int, sequence: int, length: int) -> bytes:
    """Return an ICMP message that makes an IP packet of ``length`` bytes, 48 or more.

    The kernel completes the checksum of ICMPv6, which covers the addresses.
    """
    payload = bytes(length - IP_BYTES[version] - HEADER.size)
    message = HEADER.pack(REQUEST[version], 0, 0, name, sequence) + payload
    if version == 6:
        return message
    check = checksum(message + bytes(len(message) % 2))
    return HEADER.pack(REQUEST[version], 0, check, name, sequence) + payload


def answers(version: int, data: bytes, name: int, sequence: int) -> bool:
    """Tell whether what a raw socket gave is the reply. IPv4's come with their IP header."""
    if version == 4:
        data = data[(data[0] & 15) * 4 :] if data else b""
    if len(data) < HEADER.size:
        return False
    kind, code, _check, *rest = HEADER.unpack_from(data)
    return (kind, code, *rest) == (REPLY[version], 0, name, sequence)
