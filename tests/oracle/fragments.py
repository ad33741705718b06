"""Fragments: how IPv4 packets are cut, and how a stack puts them together again.

RFC 791 sections 2.3 and 3.2; RFC 8200 section 4.5.
"""

from collections.abc import Iterable

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.packet import Raw

NOP, END = 1, 0


def _uncopied_blank(options: bytes) -> bytes:
    """Options that later fragments do not carry, as padding."""
    out, rest = b"", options
    while rest and rest[0] != END:
        length = 1 if rest[0] == NOP else rest[1] if len(rest) > 1 else 0
        if rest[0] != NOP and not 2 <= length <= len(rest):
            break  # senseless: nobody can tell where the next begins
        out += rest[:length] if rest[0] == NOP or rest[0] & 0x80 else bytes([NOP]) * length
        rest = rest[length:]
    return out + rest


def split(packet: bytes, mtu: int) -> list[bytes]:
    """An IPv4 packet (a fragment perhaps) in fragments of at most ``mtu`` bytes."""
    whole = IP(packet)
    header = 4 * whole.ihl
    payload, options = packet[header:], packet[20:header]
    size = (mtu - header) // 8 * 8
    parts = [payload[at : at + size] for at in range(0, len(payload), size)]
    fragments = []
    for number, part in enumerate(parts):
        head = IP(packet[:20] + (_uncopied_blank(options) if number else options))
        head.remove_payload()
        last = number == len(parts) - 1
        head.flags = whole.flags if last else "MF"
        head.frag = whole.frag + number * size // 8
        head.len = header + len(part)
        del head.chksum
        fragments.append(bytes(head / Raw(part)))
    return fragments


def reassemble(fragments: Iterable[bytes]) -> bytes:
    """The IPv4 packet that the fragments were, in any order: none missing, none twice."""
    pieces = {IP(data).frag * 8: data for data in fragments}
    first, payload = IP(pieces[0]), b""
    while pieces:
        data = pieces.pop(len(payload))
        payload += data[4 * IP(data).ihl :]
        more = bool(IP(data).flags.MF)
        assert more == bool(pieces)
    header = 4 * first.ihl
    head = IP(bytes(first)[:header])
    head.remove_payload()
    head.flags, head.len = "", header + len(payload)
    del head.chksum
    return bytes(head / Raw(payload))


def fragment6(packet: bytes, sizes: Iterable[int], identification: int) -> list[bytes]:
    """An IPv6 packet without extension headers, in fragments with so many payload bytes each."""
    whole = IPv6(packet)
    payload, at, fragments = packet[40:], 0, []
    head = whole.copy()
    head.remove_payload()
    del head.plen, head.nh
    for size in sizes:
        part = payload[at : at + size]
        header = IPv6ExtHdrFragment(
            nh=whole.nh, offset=at // 8, m=int(at + size < len(payload)), id=identification
        )
        fragments.append(bytes(head / header / Raw(part)))
        at += size
    assert at >= len(payload)
    return fragments
