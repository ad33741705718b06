"""What the fuzz target starts with: a published state, and inputs made of the tests' own frames.

``python -m tests.fuzz.state DIRECTORY`` writes the files of a state for two workers to DIRECTORY
and the seed inputs to DIRECTORY/seeds.
"""

import dataclasses
import random
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, IPOption, TCPerror, UDPerror
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    IPerror6,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.packet import Raw

from lbfwd.forwarding import Forwarding, PoolState, ServiceState
from lbfwd.tables import Tables
from tests.packet import bench, corpus
from tests.packet.crafted import CLIENT, GSO_TCPV4, NEEDS_CSUM, VIP, ethernet, frame, ip, offload
from tests.packet.fleet import from_peer, peers
from tests.packet.memory import published

WORKERS = 2
FLOWS = 4  # so few that tables fill up
SMALL_MTU = 1300
SEEDS = 100
SEED = 20161103
OTHER_WORKER, MEND, ANSWERED_ENOUGH, FIRST_GENERATION = 1, 0x10, 0x80, 0x100
AFTER_1_MS, AFTER_1_S, AFTER_6_S = 2 << 1, 4 << 1, 5 << 1

Record = tuple[int, bytes, bytes]  # how, offload header, frame


def forwarding() -> Forwarding:
    """All combinations of families, and every way a service can be special."""
    state = bench.all_combinations()
    nobody = bench.pool("nobody", [])
    small = bench.pool("small", [bench.member(4, 30, paths=[bench.path(4, 30, mtu=SMALL_MTU)])])
    spread = bench.path(6, 31, source="fd00::1:0:0", entropy_bits=16)
    loose = bench.path(4, 32, source="10.9.0.0", entropy_bits=8, may_fragment=True)
    odd = bench.pool(
        "odd", [bench.member(6, 31, paths=[spread]), bench.member(4, 32, paths=[loose])]
    )
    special = [
        service
        for vip in (bench.VIP4, bench.VIP6)
        for protocol in ("tcp", "udp")
        for service in (
            bench.service(vip, protocol, 87, "small"),
            bench.service(vip, protocol, 88, "nobody", empty="reject"),
            bench.service(vip, protocol, 89, "odd", affinity="source"),
        )
    ]
    services: tuple[ServiceState, ...] = (*state.services, *special)
    return dataclasses.replace(state, services=services, pools=(*state.pools, nobody, small, odd))


def shrunk(pool: PoolState) -> PoolState:
    """The pool when half of its backends cannot be reached."""
    members = (
        dataclasses.replace(member, paths=() if number % 2 else member.paths)
        for number, member in enumerate(pool.members)
    )
    return dataclasses.replace(pool, members=tuple(members))


def record(how: int, header: bytes, data: bytes) -> bytes:
    return struct.pack("<HH", how, len(header) + len(data)) + header + data


def _fragments(family: int) -> Iterator[bytes]:
    """A datagram's three fragments."""
    if family == 4:
        whole = IP(bytes(ip(4, id=77) / UDP(sport=40000, dport=87) / Raw(bytes(1400))))
        payload = bytes(whole.payload)
        for at in range(0, len(payload), 600):
            more = "MF" if at + 600 < len(payload) else ""
            part = ip(4, id=77, flags=more, frag=at // 8, proto=17) / Raw(payload[at : at + 600])
            yield bytes(ethernet() / part)
        return
    payload = bytes(ip(6) / UDP(sport=40000, dport=86) / Raw(bytes(1400)))[40:]
    for at in range(0, len(payload), 600):
        extension = IPv6ExtHdrFragment(nh=17, offset=at // 8, m=int(at + 600 < len(payload)), id=77)
        yield bytes(ethernet() / ip(6, nh=44) / extension / Raw(payload[at : at + 600]))


def _stories() -> Iterator[list[Record]]:
    """Frames that mean something together."""
    for family in (4, 6):
        parts = list(_fragments(family))
        yield [(0, offload(), part) for part in parts]
        yield [(AFTER_1_MS, offload(), part) for part in reversed(parts)]
        yield [(AFTER_6_S, offload(), part) for part in reversed(parts)]
        for outer in (4, 6):
            handed = [from_peer(part[14:], outer) for part in parts]
            yield [(0, offload(), part) for part in handed]
            yield [(AFTER_1_MS, offload(), part) for part in reversed(handed)]
        for flags in ("S", "A", "F", "R"):
            opened = ethernet() / ip(family) / TCP(sport=1, dport=84, flags="S")
            after = ethernet() / ip(family) / TCP(sport=1, dport=84, flags=flags)
            yield [
                (0, offload(), bytes(opened)),
                (AFTER_1_S, offload(), bytes(after)),
                (AFTER_1_S | OTHER_WORKER, offload(), bytes(after)),
            ]


def _many_flows() -> Iterator[list[Record]]:
    """More live flows than the table holds, then news of them in another generation."""
    for protocol in (TCP, UDP):
        story = []
        for n in range(12):
            data = bytes(ethernet() / ip(4) / protocol(sport=n, dport=84))
            story += [(0, offload(), data), (n % 2 * FIRST_GENERATION, offload(), data)]
        yield story


def _cut_and_split() -> Iterator[Record]:
    """What becomes several packets in more than one way."""
    checksum = {"csum_start": 34, "csum_offset": 16}
    for flags in ("DF", ""):
        data = frame(4, "tcp", bytes(5000), port=87, flags=flags)
        yield 0, offload(NEEDS_CSUM, GSO_TCPV4, gso_size=1300, **checksum), data
        yield 0, offload(NEEDS_CSUM, GSO_TCPV4, gso_size=8, **checksum), data
    data = frame(4, "udp", bytes(1400), port=87)
    yield 0, offload(NEEDS_CSUM, csum_start=34, csum_offset=6), data
    options = [IPOption(b"\x07\x07\x04\0\0\0\0"), IPOption(b"\x94\x04\0\0")]
    yield 0, offload(), frame(4, "udp", bytes(1400), port=87, options=options)


def _single() -> Iterator[Record]:
    """Kinds of packets that the packet tests' own list may lack."""
    quoted4 = IPerror(src=VIP[4], dst=CLIENT[4])
    quoted6 = IPerror6(src=VIP[6], dst=CLIENT[6])
    transports = (TCPerror(sport=84, dport=40000), UDPerror(sport=84, dport=40000))
    packets = [
        ip(4) / ICMP(type=8) / Raw(b"ping"),
        ip(6) / ICMPv6EchoRequest(data=b"ping"),
        ip(6) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(sport=1, dport=84),
        ip(6, nh=44, plen=7) / Raw(b"\x11\0\0\1\0\0\0"),  # a byte of the extension is missing
        IPv6(src=CLIENT[6], dst=VIP[6], tc=255) / TCP(sport=1, dport=88),
        *[ip(4) / ICMP(type=3, code=4) / quoted4 / transport for transport in transports],
        *[ip(6) / ICMPv6DestUnreach() / quoted6 / transport for transport in transports],
        *[ip(family) / TCP(sport=1, dport=88, flags="SA") for family in (4, 6)],
        *[ip(family) / UDP(sport=1, dport=88) / Raw(b"refused") for family in (4, 6)],
        *[ip(family) / UDP(sport=1, dport=89) for family in (4, 6)],
    ]
    for packet in packets:
        yield 0, offload(), bytes(ethernet() / packet)
    for family in (4, 6):
        yield 0, offload(), frame(family, "udp", bytes(1400), port=87)
    yield 0, offload(), frame(4, "udp", bytes(1400), port=87, flags="DF")
    for packet in (ip(4) / ICMP(type=8), ip(4) / TCP(dport=88), ip(6) / UDP(dport=88)):
        yield ANSWERED_ENOUGH, offload(), bytes(ethernet() / packet)
    yield from _cut_and_split()


def inputs() -> Iterator[bytes]:
    """Seed inputs: stories, single frames, and a few of the packet tests' frames together."""
    rng = random.Random(SEED)
    for story in (*_stories(), *_many_flows()):
        yield b"".join(record(how | MEND, *rest) for how, *rest in story)
    for single in _single():
        yield record(*single)
    seeds = [item for item in corpus.seeds() if len(item[1]) < 2000]
    for _ in range(SEEDS):
        yield b"".join(record(rng.randrange(512), *item) for item in rng.sample(seeds, 3))


def write_inputs(directory: Path, data: Iterable[bytes]) -> None:
    directory.mkdir(exist_ok=True)
    for number, content in enumerate(data):
        (directory / f"{number:03}").write_bytes(content)


def publish(directory: Path) -> Tables:
    """Make the files of a state of two generations; close the tables to take them away.

    In the second there are other nodes, to which fragments are handed over.

    The file ``first`` holds what was published before: the first generation is never reclaimed.
    """
    tables = Tables.create(directory, WORKERS, FLOWS)
    state = forwarding()
    tables.publish(state)
    with published(tables) as view:
        word = int(view.control.published)
    (directory / "first").write_bytes(word.to_bytes(8, sys.byteorder))
    shrunken = tuple(map(shrunk, state.pools))
    tables.publish(dataclasses.replace(state, pools=shrunken, peers=peers()))
    return tables


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    publish(target).close(unlink=False)
    write_inputs(target / "seeds", inputs())
