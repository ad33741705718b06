"""Frames that are worth mutating: all that the packet tests name, with their offload headers."""

import random
from collections.abc import Iterator
from functools import cache

from scapy.layers.inet import ICMP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.packet import Raw

from tests.oracle import fragments
from tests.packet import quoted, test_drops
from tests.packet.crafted import (
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    NEEDS_CSUM,
    ethernet,
    frame,
    ip,
    mended,
    offload,
    raw,
    transport,
)
from tests.packet.fleet import from_peer

GSO = {(4, "tcp"): GSO_TCPV4, (6, "tcp"): GSO_TCPV6, (4, "udp"): GSO_UDP_L4, (6, "udp"): GSO_UDP_L4}
TRANSPORT_AT = {4: 34, 6: 54}
CSUM_OFFSET = {"tcp": 16, "udp": 6}
SHORT6 = bytes(ip(6) / IPv6ExtHdrFragment(nh=17, m=1, id=8) / UDP(dport=84) / Raw(bytes(16)))
Item = tuple[bytes, bytes]  # offload header, frame


def _good() -> Iterator[Item]:
    for (family, protocol), kind in GSO.items():
        checksum = {"csum_start": TRANSPORT_AT[family], "csum_offset": CSUM_OFFSET[protocol]}
        for port in (84, 86):
            for length in (0, 1, 100, 1390, 5000):
                data = frame(family, protocol, payload=bytes(length), port=port)
                yield offload(), data
                yield offload(NEEDS_CSUM, **checksum), data
                yield offload(NEEDS_CSUM, kind, gso_size=100, **checksum), data
                yield offload(NEEDS_CSUM, kind, gso_size=1300, **checksum), data


def _beside_flows() -> Iterator[bytes]:
    """Fragments, extension headers, ICMP, packets that are too big."""
    for family, protocol in GSO:
        large = frame(family, protocol, bytes(3000))
        yield large
        yield mended(large[:20] + b"\x40\0" + large[22:])  # IPv4: DF
        yield quoted.about(family, protocol)
        yield frame(family, protocol, b"lbfwdtrc" + bytes(16))  # marked, as tests/fuzz looks for
    for family, name in quoted.EVERY:
        yield quoted.about(family, name=name)
    datagram = bytes(ip(4, id=7) / transport("udp") / Raw(bytes(2000)))
    yield from (bytes(ethernet())[:12] + b"\x08\0" + p for p in fragments.split(datagram, 900))
    datagram = bytes(ip(6) / transport("udp") / Raw(bytes(2000)))
    for part in fragments.fragment6(datagram, [800] * 3, 7):
        yield bytes(ethernet())[:12] + b"\x86\xdd" + part
    short = bytes(ip(4, id=8) / transport("udp") / Raw(bytes(99)))
    for part in (*fragments.split(short, 60), SHORT6):
        yield from_peer(part, 4)
        yield from_peer(part, 6)
    yield raw(ip(6), IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt(), IPv6ExtHdrRouting(), UDP(dport=84))
    yield raw(ip(6), ICMPv6EchoRequest(data=b"hello"))
    yield raw(ip(4, options=[IPOption_Router_Alert()] * 3), ICMP(), Raw(b"hello"))


@cache
def seeds() -> tuple[Item, ...]:
    crafted = ((case.offload, case.frame) for case in test_drops.ALL)
    return (*_good(), *((offload(), data) for data in _beside_flows()), *crafted)


def mutate(rng: random.Random, item: Item) -> Item:
    """Flip, overwrite, cut, lengthen: a few times, somewhere in the headers mostly.

    Then the IPv4 checksum is mostly mended, or it would be the end of nearly all of them.
    """
    header, data = bytearray(item[0]), bytearray(item[1])
    for _ in range(rng.randint(1, 4)):
        match rng.randrange(5):
            case 0:
                header[rng.randrange(len(header))] = rng.randrange(256)
            case 1 if data:
                data[rng.randrange(min(len(data), 80))] ^= 1 << rng.randrange(8)
            case 2 if data:
                data[rng.randrange(min(len(data), 80))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 3:
                del data[rng.randint(0, len(data)) :]
            case _:
                data += rng.randbytes(rng.randrange(40))
    return bytes(header), bytes(data) if rng.random() < 0.3 else mended(bytes(data))
