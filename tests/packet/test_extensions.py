"""IPv6 extension headers: followed up to a bounded number, or dropped by name. RFC 8200."""

import itertools

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.packet import Packet, Raw

from tests.oracle import segment
from tests.packet import bench
from tests.packet.bench import Bench, BenchMaker
from tests.packet.crafted import (
    CSUM_OFFSET,
    GSO_TCPV6,
    NEEDS_CSUM,
    ip,
    offload,
    raw,
)

AH, ESP, MOBILITY, HIP, SHIM6, NONE = 51, 50, 135, 139, 140, 59
HEADERS = {
    "hop-by-hop": IPv6ExtHdrHopByHop(),
    "destination": IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(12))]),
    "routing": IPv6ExtHdrRouting(segleft=0, addresses=["2001:db8::99"]),
    "atomic": IPv6ExtHdrFragment(id=7),
}


@pytest.fixture
def node(make_bench: BenchMaker) -> Bench:
    return make_bench(bench.all_combinations())


def udp() -> Packet:
    return UDP(sport=7, dport=84) / Raw(b"hello")


def check(node: Bench, data: bytes) -> None:
    node.assert_forwarded(data, node.forward(data), [data[14:]])


@pytest.mark.parametrize(
    "names",
    [*itertools.permutations(HEADERS, 1), *itertools.permutations(HEADERS, 2), tuple(HEADERS)],
)
def test_chains_that_are_followed(node: Bench, names: tuple[str, ...]) -> None:
    headers = [HEADERS[name] for name in names]
    check(node, raw(ip(6), *headers, udp()))
    check(node, raw(ip(6), *headers, TCP(dport=84)))


@pytest.mark.parametrize("bytes_more", [0, 1, 7, 100, 255])
def test_a_long_header(node: Bench, bytes_more: int) -> None:
    pads = [PadN(optdata=bytes(bytes_more))] * 2
    check(node, raw(ip(6), IPv6ExtHdrDestOpt(options=pads), udp()))


@pytest.mark.parametrize("name", HEADERS)
def test_eight_headers_and_no_more(node: Bench, name: str) -> None:
    check(node, raw(ip(6), *[HEADERS[name]] * 8, udp()))
    node.assert_dropped(node.forward(raw(ip(6), *[HEADERS[name]] * 9, udp())), "extension_header")


@pytest.mark.parametrize("behind", [(), ("hop-by-hop",), ("destination", "routing")])
@pytest.mark.parametrize("number", [AH, MOBILITY, HIP, SHIM6])
def test_headers_that_are_not_followed(node: Bench, number: int, behind: tuple[str, ...]) -> None:
    packet = ip(6)
    for name in behind:
        packet /= HEADERS[name].copy()
    packet.lastlayer().nh = number
    data = raw(packet, Raw(bytes(64)))
    node.assert_dropped(node.forward(data), "extension_header")


@pytest.mark.parametrize("number", [ESP, NONE, 47, 253])
def test_what_is_behind_the_headers_decides(node: Bench, number: int) -> None:
    header = HEADERS["destination"].copy()
    header.nh = number
    data = raw(ip(6), header, Raw(bytes(64)))
    node.assert_dropped(node.forward(data), "unsupported_protocol")


@pytest.mark.parametrize("left", [1, 2, 255])
@pytest.mark.parametrize("kind", [0, 2, 3, 4])
def test_a_routing_header_with_segments_left(node: Bench, kind: int, left: int) -> None:
    """We are not the one that it names next; type 0 is for nobody (RFC 5095)."""
    header = IPv6ExtHdrRouting(type=kind, segleft=left, addresses=["2001:db8::99"])
    node.assert_dropped(node.forward(raw(ip(6), header, udp())), "extension_header")


def cut(data: bytes, length: int) -> bytes:
    """The frame, so short, with a payload length that says so."""
    return data[:18] + (length - 54).to_bytes(2, "big") + data[20:length]


@pytest.mark.parametrize("names", [("hop-by-hop",), ("destination",), ("routing", "atomic")])
def test_every_length_that_ends_too_early(node: Bench, names: tuple[str, ...]) -> None:
    whole = raw(ip(6), *[HEADERS[name] for name in names], UDP(sport=7, dport=84))
    check(node, whole)
    for length in range(54, len(whole)):
        node.assert_dropped(node.forward(cut(whole, length)), "truncated")


def test_a_header_longer_than_the_packet(node: Bench) -> None:
    data = raw(ip(6), IPv6ExtHdrDestOpt(len=200), udp())
    node.assert_dropped(node.forward(data), "truncated")


def test_not_ours_is_counted_so_whatever_it_carries(node: Bench) -> None:
    data = raw(ip(6, dst="2001:db8::11", nh=AH), Raw(bytes(64)))
    node.assert_dropped(node.forward(data), "no_vip")


def test_a_checksum_and_segments_behind_a_header(node: Bench) -> None:
    """Offload metadata count from the transport header, wherever that begins."""
    header = HEADERS["destination"]
    whole = raw(ip(6), header, TCP(dport=84, seq=5, flags="PA") / Raw(bytes(range(200)) * 10))
    start = 14 + 40 + len(header)
    meta = offload(
        NEEDS_CSUM,
        GSO_TCPV6,
        gso_size=900,
        csum_start=start,
        csum_offset=CSUM_OFFSET["tcp"],
    )
    parts = segment.tcp(whole[14:], 900)
    node.assert_forwarded(whole, node.forward(whole, offload=meta), parts)
    misplaced = offload(NEEDS_CSUM, csum_start=54, csum_offset=CSUM_OFFSET["tcp"])
    short = raw(ip(6), header, TCP(dport=84))
    node.assert_dropped(node.forward(short, offload=misplaced), "bad_offload")
