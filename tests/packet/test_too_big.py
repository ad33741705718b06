"""Larger than the tunnel: the sender is told the exact MTU. RFC 1191, RFC 8201."""

from typing import Any

import pytest
from scapy.layers.inet import ICMP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.packet import Raw

from tests.oracle import answer
from tests.packet import bench
from tests.packet.bench import MTU, NOW_MS, VIP4, VIP6, Bench, BenchMaker, Outcome
from tests.packet.crafted import (
    GSO_TCPV4,
    GSO_TCPV6,
    NEEDS_CSUM,
    frame,
    ip,
    offload,
    raw,
    transport,
)

FAMILIES = (4, 6)
OVERHEAD = {4: 24, 6: 44}
IP_BYTES = {4: 20, 6: 40}
AT_ONCE = 100


@pytest.fixture
def node(make_bench: BenchMaker) -> Bench:
    return make_bench(bench.all_combinations(), tx_slots=256)


def dont_fragment(family: int) -> dict[str, Any]:
    return {"flags": "DF"} if family == 4 else {}


def sized(family: int, total: int, protocol: str = "udp", port: int = 84) -> bytes:
    """A packet of so many bytes, IP header included, that must not be fragmented."""
    transport_bytes = {"udp": 8, "tcp": 20}[protocol]
    payload = bytes(n * 3 & 0xFF for n in range(total - IP_BYTES[family] - transport_bytes))
    return frame(family, protocol, payload, port, **dont_fragment(family))


def check(node: Bench, outcome: Outcome, data: bytes, mtu: int) -> None:
    node.assert_answered(outcome, "too_big", answer.too_big(data, mtu), "too_big_sent")


@pytest.mark.parametrize("outer", FAMILIES)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_one_byte_too_many(node: Bench, family: int, protocol: str, outer: int) -> None:
    mtu = MTU - OVERHEAD[outer]
    fits = sized(family, mtu, protocol, 80 + outer)
    node.assert_forwarded(fits, node.forward(fits), [fits[14:]])
    data = sized(family, mtu + 1, protocol, 80 + outer)
    check(node, node.forward(data), data, mtu)


@pytest.mark.parametrize("total", [501, 547, 548, 549, 576, 577, 1231, 1232, 1233, 1280, 9000])
@pytest.mark.parametrize("family", FAMILIES)
def test_how_much_is_quoted(make_bench: BenchMaker, family: int, total: int) -> None:
    """As much as fits 576 bytes, or 1,280: RFC 1812 section 4.3.2.3, RFC 4443 section 2.4 (c)."""
    members = [bench.member(4, 11, paths=[bench.path(4, 11, mtu=524)])]
    node = make_bench(bench.one_service(members, VIP4 if family == 4 else VIP6))
    data = sized(family, total)
    outcome = node.forward(data)
    check(node, outcome, data, 500 if family == 4 else 1280)
    (sent,) = outcome.frames
    assert len(sent) - 14 == min(IP_BYTES[family] + 8 + total, answer.LARGEST[family])


@pytest.mark.parametrize("mtu", [92, 93, 600, 1304, 1324, 9000, 65535])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_mtu_that_is_told(make_bench: BenchMaker, family: int, mtu: int) -> None:
    """Never less than the least of the family: RFC 791, RFC 8200 section 5."""
    members = [bench.member(4, 11, paths=[bench.path(4, 11, mtu=mtu)])]
    node = make_bench(bench.one_service(members, VIP4 if family == 4 else VIP6))
    ring_room = 2048 - 48 - 10 - 38  # a slot's, when the link has become larger than the ring
    inner = min(mtu - 24, ring_room)
    data = sized(family, max(inner + 1, 100))
    check(node, node.forward(data), data, max(inner, {4: 68, 6: 1280}[family]))


def test_options_and_padding(node: Bench) -> None:
    mtu = MTU - 24
    options = [IPOption_NOP()] * 40
    data = frame(4, "udp", bytes(mtu), options=options, flags="DF", tos=0xFF)
    check(node, node.forward(data), data, mtu)
    short = sized(4, mtu + 1)
    check(node, node.forward(short + bytes(99)), short, mtu)


@pytest.mark.parametrize("family", FAMILIES)
def test_super_frames(node: Bench, family: int) -> None:
    data = frame(family, "tcp", bytes(5000), **dont_fragment(family))
    kind = {4: GSO_TCPV4, 6: GSO_TCPV6}[family]
    meta = offload(
        NEEDS_CSUM, kind, gso_size=1460, csum_start=14 + IP_BYTES[family], csum_offset=16
    )
    check(node, node.forward(data, offload=meta), data, MTU - 24)


def test_behind_extension_headers(node: Bench) -> None:
    data = raw(ip(6), IPv6ExtHdrDestOpt(), transport("udp"), Raw(bytes(1450)))
    check(node, node.forward(data), data, MTU - 24)
    first = raw(ip(6), IPv6ExtHdrFragment(m=1, id=7), transport("udp"), Raw(bytes(1450)))
    check(node, node.forward(first), first, MTU - 24)


@pytest.mark.parametrize("family", FAMILIES)
def test_never_about_a_later_fragment(node: Bench, family: int) -> None:
    """RFC 1122 section 3.2.2; the first one of IPv6 is as large, and its sender is told."""
    head = ip(family, **({"flags": "DF+MF", "id": 7} if family == 4 else {}))
    fragment = (lambda **fields: IPv6ExtHdrFragment(id=7, nh=17, **fields)) if family == 6 else None
    if fragment is None:
        first = raw(head, UDP(dport=84), Raw(bytes(16)))
        later = raw(ip(4, flags="DF", id=7, frag=3, proto=17), Raw(bytes(1460)))
    else:
        first = raw(head, fragment(m=1), UDP(dport=84), Raw(bytes(16)))
        later = raw(head, fragment(offset=3), Raw(bytes(1450)))
    assert node.forward(first).forwarded == 1
    node.assert_dropped(node.forward(later), "too_big")


@pytest.mark.parametrize(
    ("family", "source"),
    [(4, "0.1.2.3"), (4, "127.0.0.1"), (4, "239.1.1.1"), (4, "255.255.255.255"), (6, "ff0e::1")],
)
def test_never_to_who_is_no_single_host(node: Bench, family: int, source: str) -> None:
    data = frame(family, "udp", bytes(1500), src=source, **dont_fragment(family))
    outcome = node.forward(data)
    assert (outcome.frames, outcome.drops) == ([], {"too_big": 1})


def test_the_rate_is_bounded(node: Bench) -> None:
    """What is not answered is still counted as too big."""
    data = sized(4, 1500)
    outcome = node.forward(*[data] * (AT_ONCE + 7))
    assert outcome.frames == [answer.too_big(data, MTU - 24)] * AT_ONCE
    assert outcome.drops == {"too_big": AT_ONCE + 7}
    assert outcome.events["too_big_sent"] == AT_ONCE
    assert outcome.events["answer_suppressed"] == 7
    outcome = node.forward(*[data] * 7, now_ms=NOW_MS + 3)
    assert outcome.events == {"too_big_sent": 3, "answer_suppressed": 4}


def test_a_flood_of_pings_does_not_cost_the_mtu(node: Bench) -> None:
    """Nor the other way round: each kind of answer has a rate of its own."""
    ping, data = raw(ip(4), ICMP(), Raw(b"x")), sized(4, 1500)
    assert node.forward(*[ping] * 150).drops == {"echo_answered": AT_ONCE, "rate_limited": 50}
    check(node, node.forward(data), data, MTU - 24)


def test_no_room_for_the_answer(make_bench: BenchMaker) -> None:
    node = make_bench(bench.all_combinations(), tx_slots=4)
    outcome = node.forward(*[sized(4, 1500)] * 6)
    assert outcome.drops == {"too_big": 6}
    assert (outcome.events["too_big_sent"], outcome.events["answer_lost"]) == (4, 2)


def test_an_answer_that_was_taken_back(node: Bench) -> None:
    """Its link went down: it is no packet that was forwarded, and none that was dropped."""
    node.forward(frame(4, "udp"))
    before, seen = node.tables.totals(), node.tables.slot(0).seen
    node.worker.forward(sized(4, 1500))
    node.worker.remove_tx(0)
    outcome = node.outcome(before, seen)
    assert (outcome.drops, outcome.forwarded) == ({"too_big": 1}, 0)
    assert outcome.events == {"too_big_sent": 1, "answer_lost": 1}


def test_the_flow_has_its_entry_nevertheless(make_bench: BenchMaker) -> None:
    """The smaller packet that follows goes where the larger one would have gone."""
    node = make_bench(bench.one_service([bench.member(4, n) for n in range(11, 18)]))
    data, small = sized(4, 1500), sized(4, 100)
    backend = node.choose(data)[1].name
    assert node.forward(data).drops == {"too_big": 1}
    heavy = [bench.member(4, n, weight=500) for n in range(30, 50)]
    node.publish(bench.one_service([*(bench.member(4, n) for n in range(11, 18)), *heavy]))
    assert node.choose(small)[1].name != backend
    assert node.backend_of(small) == backend
