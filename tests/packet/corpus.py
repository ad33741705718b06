"""Frames that are worth mutating: all that the packet tests name, with their offload headers."""

import random
from collections.abc import Iterator
from functools import cache

from tests.packet import test_drops
from tests.packet.crafted import (
    GSO_TCPV4,
    GSO_TCPV6,
    GSO_UDP_L4,
    NEEDS_CSUM,
    frame,
    mended,
    offload,
)

GSO = {(4, "tcp"): GSO_TCPV4, (6, "tcp"): GSO_TCPV6, (4, "udp"): GSO_UDP_L4, (6, "udp"): GSO_UDP_L4}
TRANSPORT_AT = {4: 34, 6: 54}
CSUM_OFFSET = {"tcp": 16, "udp": 6}
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


@cache
def seeds() -> tuple[Item, ...]:
    return (*_good(), *((case.offload, case.frame) for case in test_drops.ALL))


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
