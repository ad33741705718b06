"""IPv4 without DF is fragmented before encapsulation, and whole again at the backend."""

import random

import pytest
from scapy.layers.inet import (
    IPOption_EOL,
    IPOption_LSRR,
    IPOption_NOP,
    IPOption_Router_Alert,
    IPOption_RR,
    IPOption_Timestamp,
)
from scapy.packet import Raw

from tests.oracle import encap, fragments
from tests.packet import bench
from tests.packet.bench import MTU, Bench, BenchMaker
from tests.packet.crafted import NEEDS_CSUM, ethernet, frame, ip, mended, offload, raw, transport
from tests.packet.test_offload import unfinished

OVERHEAD = {4: 24, 6: 44}


@pytest.fixture
def node(make_bench: BenchMaker) -> Bench:
    return make_bench(bench.all_combinations(), tx_slots=256)


def check(
    node: Bench, data: bytes, outer: int = 4, whole: bytes | None = None, meta: bytes = offload()
) -> list[bytes]:
    """Split as the oracle says, and whole again as the client sent it."""
    whole = whole or encap.inner_packet(data)
    parts = fragments.split(whole, MTU - OVERHEAD[outer])
    outcome = node.forward(data, offload=meta)
    node.assert_forwarded(data, outcome, parts, {"packet_split": 1})
    return parts


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("length", [1477, 1478, 1500, 2952, 2953, 9000, 40000])
def test_any_length(node: Bench, length: int, protocol: str, outer: int) -> None:
    payload = random.Random(length).randbytes(length - 28)
    data = frame(4, protocol, payload, 80 + outer, id=0xBEEF, tos=0xBB)
    parts = check(node, data, outer)
    assert fragments.reassemble(parts) == data[14:]


@pytest.mark.parametrize(
    "options",
    [
        [IPOption_NOP()] * 4,
        [IPOption_Router_Alert(), IPOption_RR(routers=["0.0.0.0"] * 3)],
        [IPOption_RR(routers=["0.0.0.0"] * 2), IPOption_Router_Alert(), IPOption_NOP()],
        [IPOption_LSRR(routers=["192.0.2.1"]), IPOption_NOP(), IPOption_Timestamp()],
        [IPOption_NOP(), IPOption_EOL(), IPOption_RR(routers=["0.0.0.0"])],
        [IPOption_RR(routers=["0.0.0.0"])] * 5,
        [IPOption_LSRR(routers=["0.0.0.0"])] * 5,
    ],
)
def test_options(node: Bench, options: list[object]) -> None:
    """Only those that are marked for it are in the later fragments."""
    data = frame(4, "udp", bytes(3000), options=options, id=5)
    parts = check(node, data)
    assert fragments.reassemble(parts) == data[14:]


@pytest.mark.parametrize(
    "options",
    ["07000000", "07010000", "07050000", "070400ff", "01010107", "07040400870300aa", "0000ffff"],
)
def test_senseless_options_are_survived(node: Bench, options: str) -> None:
    """Lengths of 0 and 1, or beyond the header: what cannot be read is left as it is."""
    given = bytes.fromhex(options)
    data = raw(ip(4, options=[IPOption_NOP()] * len(given)), transport("udp"), Raw(bytes(2000)))
    data = mended(data[:34] + given + data[34 + len(given) :])
    check(node, data)


@pytest.mark.parametrize("flags", ["MF", ""])
def test_a_packet_that_is_a_fragment_already(node: Bench, flags: str) -> None:
    payload = bytes(n & 0xFF for n in range(1472))
    first = raw(ip(4, id=9, flags="MF"), transport("udp"), Raw(payload))
    second = raw(ip(4, id=9, flags=flags, frag=185, proto=17), Raw(payload))
    sent = []
    for data in (first, second):
        parts = fragments.split(data[14:], MTU - 24)
        assert len(parts) == 2
        outcome = node.forward(data)
        node.assert_forwarded(first, outcome, parts, {"packet_split": 1})
        sent += parts
    if not flags:
        assert fragments.reassemble(sent)[20:] == first[34:] + payload


def test_the_last_fragment_of_the_largest_datagram(node: Bench) -> None:
    """Its offset is nearly all ones, and one more bit would be a flag."""
    payload = bytes(1480)
    head = ip(4, id=9, proto=17, frag=(65535 - 1500) // 8)
    data = raw(head, Raw(payload[:1480]))
    first = raw(ip(4, id=9, flags="MF"), transport("udp"), Raw(bytes(16)))
    node.forward(first)
    parts = fragments.split(data[14:], MTU - 24)
    node.assert_forwarded(first, node.forward(data), parts, {"packet_split": 1})


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("length", [1478, 1479, 5000])
def test_a_checksum_left_to_hardware_is_completed_first(
    node: Bench, protocol: str, length: int
) -> None:
    data, meta, finished = unfinished(
        4, protocol, bytes(n & 0xFF for n in range(length)), {"id": 3}
    )
    assert meta[0] == NEEDS_CSUM
    parts = check(node, data, whole=finished, meta=meta)
    assert fragments.reassemble(parts) == finished


def test_padding_is_cut(node: Bench) -> None:
    data = frame(4, "udp", bytes(2000))
    parts = fragments.split(data[14:], MTU - 24)
    outcome = node.forward(data + b"\xee" * 50)
    node.assert_forwarded(data, outcome, parts, {"packet_split": 1})


def test_fragments_that_find_no_room(make_bench: BenchMaker) -> None:
    """Each is a packet, in a counter of its own."""
    node = make_bench(bench.all_combinations(), tx_slots=4)
    data = frame(4, "udp", bytes(9000))
    outcome = node.forward(data)
    assert len(fragments.split(data[14:], MTU - 24)) == 7
    assert outcome.drops == {"tx_ring_full": 3}
    assert (outcome.forwarded, outcome.seen) == (4, 7)


def test_random_packets(node: Bench) -> None:
    rng = random.Random(20)
    for _ in range(200):
        options = rng.randbytes(4 * rng.randrange(11))
        length = rng.randrange(1500, 4000)
        head = ip(4, id=rng.randrange(65536), options=[IPOption_NOP()] * len(options))
        data = bytes(ethernet() / head / transport("udp") / Raw(rng.randbytes(length)))
        data = mended(data[:34] + options + data[34 + len(options) :])
        check(node, data)
