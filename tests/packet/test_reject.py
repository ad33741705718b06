"""``empty = "reject"``: a service without a usable backend says so. RFC 9293, RFC 792, RFC 4443."""

import pytest
from scapy.layers.inet import TCP, IPOption_NOP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt
from scapy.packet import Raw

from tests.oracle import answer
from tests.packet import bench
from tests.packet.bench import NOW_MS, VIP4, VIP6, Bench, BenchMaker
from tests.packet.crafted import frame, ip, raw, transport

FAMILIES = (4, 6)
EMPTY_POOLS = {
    "nobody": [],
    "weight 0": [bench.member(4, 11, weight=0)],
    "no path": [bench.member(4, 11, paths=[])],
}


def rejecting(make_bench: BenchMaker, what: str = "nobody", empty: str = "reject") -> Bench:
    services = [
        bench.service(vip, protocol, 84, "p", empty=empty)
        for vip in (VIP4, VIP6)
        for protocol in ("tcp", "udp")
    ]
    state = bench.forwarding(services, [bench.pool("p", EMPTY_POOLS[what])])
    return make_bench(state, tx_slots=256)


@pytest.fixture
def node(make_bench: BenchMaker) -> Bench:
    return rejecting(make_bench)


def check_reset(node: Bench, data: bytes) -> None:
    node.assert_answered(node.forward(data), "rejected", answer.reset(data), "reset_sent")


@pytest.mark.parametrize("flags", ["S", "SE", "F", "", "P", "SF", "A", "SA", "PA", "FA", "FPUA"])
@pytest.mark.parametrize("length", [0, 1, 1000])
@pytest.mark.parametrize("family", FAMILIES)
def test_tcp_is_reset(node: Bench, family: int, length: int, flags: str) -> None:
    """With ACK: at the number that was acknowledged; without: all that was sent is taken."""
    segment = TCP(sport=9, dport=84, seq=0xFFFFFF00, ack=0x12345678, flags=flags, window=500)
    check_reset(node, raw(ip(family), segment, Raw(bytes(length))))


@pytest.mark.parametrize("family", FAMILIES)
def test_options_are_no_data(node: Bench, family: int) -> None:
    options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("WScale", 7)]
    segment = TCP(sport=9, dport=84, seq=7, flags="S", options=options)
    check_reset(node, raw(ip(family), segment))
    check_reset(node, raw(ip(family), segment, Raw(b"early data")))
    head = ip(4, options=[IPOption_NOP()] * 8) if family == 4 else ip(6) / IPv6ExtHdrDestOpt()
    check_reset(node, raw(head, segment, Raw(b"early data")))


def test_padding_is_no_data(node: Bench) -> None:
    data = raw(ip(4), TCP(sport=9, dport=84, seq=7, flags="S"))
    outcome = node.forward(data + bytes(6))
    node.assert_answered(outcome, "rejected", answer.reset(data), "reset_sent")


@pytest.mark.parametrize("length", [0, 1, 500, 519, 520, 521, 1200, 1223, 1224, 1225, 1400])
@pytest.mark.parametrize("family", FAMILIES)
def test_udp_port_unreachable(node: Bench, family: int, length: int) -> None:
    data = frame(family, "udp", bytes(n * 7 & 0xFF for n in range(length)))
    told = answer.port_unreachable(data)
    node.assert_answered(node.forward(data), "rejected", told, "unreachable_sent")


@pytest.mark.parametrize("what", EMPTY_POOLS)
def test_every_way_to_be_empty(make_bench: BenchMaker, what: str) -> None:
    check_reset(rejecting(make_bench, what), frame(4, "tcp"))


@pytest.mark.parametrize("flags", ["R", "RA", "RPA", "SR"])
@pytest.mark.parametrize("family", FAMILIES)
def test_never_in_answer_to_a_reset(node: Bench, family: int, flags: str) -> None:
    data = raw(ip(family), TCP(sport=9, dport=84, flags=flags))
    node.assert_dropped(node.forward(data), "no_backend")


@pytest.mark.parametrize(("words", "length"), [(0, 0), (4, 20), (6, 0), (15, 39)])
def test_never_to_a_segment_whose_header_is_impossible(
    node: Bench, words: int, length: int
) -> None:
    """Where its data begin, and so what to acknowledge, nobody knows."""
    data = raw(ip(4), TCP(sport=9, dport=84, dataofs=words, flags="S"), Raw(bytes(length)))
    node.assert_dropped(node.forward(data), "no_backend")


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_never_to_who_is_no_single_host(node: Bench, family: int, protocol: str) -> None:
    for source in {4: ("224.0.0.1", "0.0.0.0", "127.1.2.3"), 6: ("ff02::1", "::")}[family]:
        outcome = node.forward(frame(family, protocol, src=source))
        assert (outcome.frames, outcome.drops) == ([], {"no_backend": 1})


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_drop_is_silent(make_bench: BenchMaker, family: int, protocol: str) -> None:
    node = rejecting(make_bench, empty="drop")
    node.assert_dropped(node.forward(frame(family, protocol)), "no_backend")


def test_a_later_fragment_is_not_answered(node: Bench) -> None:
    data = raw(ip(4, frag=9, proto=17), Raw(bytes(64)))
    assert node.forward(data).events == {"fragment_held": 1}


def test_the_rate_is_bounded(node: Bench) -> None:
    """One budget for both; what is not said is dropped as ever."""
    tcp, udp = frame(4, "tcp"), frame(6, "udp")
    outcome = node.forward(*[tcp, udp] * 60)
    assert outcome.drops == {"rejected": 100, "no_backend": 20}
    assert outcome.events == {"reset_sent": 50, "unreachable_sent": 50, "answer_suppressed": 20}
    assert outcome.frames == [answer.reset(tcp), answer.port_unreachable(udp)] * 50
    assert node.forward(tcp, tcp, now_ms=NOW_MS + 1).drops == {"rejected": 1, "no_backend": 1}


def test_no_room_for_the_answer(make_bench: BenchMaker) -> None:
    services = [bench.service(VIP4, "tcp", 84, "p", empty="reject")]
    node = make_bench(bench.forwarding(services, [bench.pool("p", [])]), tx_slots=4)
    outcome = node.forward(*[frame(4, "tcp")] * 6)
    assert outcome.drops == {"rejected": 4, "no_backend": 2}
    assert outcome.events == {"reset_sent": 4, "answer_lost": 2}


def test_it_serves_again_when_a_backend_comes(node: Bench) -> None:
    data = raw(ip(4), transport("udp"), Raw(b"x"))
    assert node.forward(data).drops == {"rejected": 1}
    node.publish(bench.one_service([bench.member(4, 11)], empty="reject"))
    assert node.backend_of(data) == "b11"
