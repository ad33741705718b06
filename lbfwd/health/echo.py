"""Echo messages (RFC 792, RFC 4443): the bytes of a request, and whether bytes answer it. Pure."""

import struct

from lbfwd.encap import checksum
from lbfwd.net import bpf
from lbfwd.net.bpf import Program, op
from lbfwd.net.filter import ADMIT_ALL, DROP_ALL

HEADER = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number
REQUEST, REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
IP_BYTES = {4: 20, 6: 40}


def request(version: int, name: int, sequence: int, length: int) -> bytes:
    """Return an ICMP message that makes an IP packet of ``length`` bytes, 48 or more.

    The kernel completes the checksum of ICMPv6, which covers the addresses.
    """
    return message(version, name, sequence, bytes(length - IP_BYTES[version] - HEADER.size))


def message(version: int, name: int, sequence: int, payload: bytes) -> bytes:
    """Return a request with this payload, as ``request`` does."""
    whole = HEADER.pack(REQUEST[version], 0, 0, name, sequence) + payload
    if version == 6:
        return whole
    check = checksum(whole + bytes(len(whole) % 2))
    return HEADER.pack(REQUEST[version], 0, check, name, sequence) + payload


def heard(version: int, name: int) -> Program:
    """Return a raw socket's filter: replies that bear this name, and none of all others.

    Every raw socket is given every ICMP message of the host: IPv4's with their IP header (raw(7)),
    IPv6's without (RFC 3542, section 3).
    """
    begin, word = ((op(bpf.LDX_IHL),), bpf.LD_W_X) if version == 4 else ((), bpf.LD_W)
    kind_and_code = (op(word, 0), op(bpf.RSH, 16))
    identifier = (op(word, 4), op(bpf.RSH, 16))
    named = (*identifier, *bpf.branch(bpf.JEQ, name, ADMIT_ALL, DROP_ALL))
    return (*begin, *kind_and_code, *bpf.branch(bpf.JEQ, REPLY[version] << 8, named, DROP_ALL))


def answers(version: int, data: bytes, name: int, sequence: int) -> bool:
    """Tell whether what a raw socket gave is the reply. IPv4's come with their IP header."""
    if version == 4:
        data = data[(data[0] & 15) * 4 :] if data else b""
    if len(data) < HEADER.size:
        return False
    kind, code, _check, *rest = HEADER.unpack_from(data)
    return (kind, code, *rest) == (REPLY[version], 0, name, sequence)


def brings(version: int, data: bytes, name: int, sequence: int, payload: bytes) -> bool:
    """Tell whether it is the reply that brings this payload back, and nothing else."""
    header = (data[0] & 15) * 4 if version == 4 and data else 0
    return answers(version, data, name, sequence) and data[header + HEADER.size :] == payload
