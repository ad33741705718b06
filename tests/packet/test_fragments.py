"""Fragments follow their datagram's first, wherever that goes. RFC 791, RFC 8200 section 4.5."""

import random
from ipaddress import ip_address

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.packet import Raw

from lbfwd.tables import Count
from tests.oracle import encap, fragments
from tests.packet import bench
from tests.packet.bench import NOW_MS, Bench, BenchMaker, Outcome
from tests.packet.crafted import (
    GSO_TCPV4,
    NEEDS_CSUM,
    ethernet,
    ip,
    mended,
    offload,
    raw,
    transport,
)

FAMILIES = (4, 6)
LED_MS = 5000  # how long the others may follow the first
HELD_MS = 500  # how long they may wait for it
HELD_MOST = 256


@pytest.fixture
def node(make_bench: BenchMaker) -> Bench:
    return make_bench(bench.all_combinations(), tx_slots=1024)


def datagram(
    family: int,
    identification: int = 7,
    length: int = 3000,
    protocol: str = "udp",
    port: int = 84,
    **fields: object,
) -> list[bytes]:
    """The frames of a datagram's fragments."""
    payload = random.Random(identification).randbytes(length)
    head = ip(family, **({"id": identification} if family == 4 else {}), **fields)
    packet = bytes(head / transport(protocol, dport=port) / Raw(payload))
    if family == 4:
        parts = fragments.split(packet, 1200)
    else:
        parts = fragments.fragment6(packet, [1104] * (1 + length // 1104), identification)
    return [bytes(ethernet())[:12] + ethertype(family) + part for part in parts]


def ethertype(family: int) -> bytes:
    return b"\x08\x00" if family == 4 else b"\x86\xdd"


def wrapped(node: Bench, first: bytes, frames: list[bytes]) -> dict[int, list[bytes]]:
    """The frames as they leave, when all follow the first one's choice."""
    both = [node.wrapped(first, encap.inner_packet(data)) for data in frames]
    return {both[0][0]: [data for _tx, data in both]}


def check_all_sent(node: Bench, outcome: Outcome, first: bytes, frames: list[bytes]) -> None:
    assert outcome.sent == wrapped(node, first, frames)
    assert outcome.drops == {}
    service, member, _hop = node.choose(first)
    size = sum(len(encap.inner_packet(data)) for data in frames)
    count = Count(len(frames), size, outcome.events.get("flow_new", 0))
    assert outcome.services == {service.name: count}
    assert outcome.backends == {(service.pool, member.name): count}


@pytest.mark.parametrize("outer", FAMILIES)
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("family", FAMILIES)
def test_all_go_where_the_first_goes(node: Bench, family: int, protocol: str, outer: int) -> None:
    frames = datagram(family, protocol=protocol, port=80 + outer)
    assert len(frames) == 3
    check_all_sent(node, node.forward(*frames), frames[0], frames)


@pytest.mark.parametrize("family", FAMILIES)
def test_and_that_is_where_the_flows_whole_packets_go(node: Bench, family: int) -> None:
    """Also when the table has changed since the flow began."""
    whole = raw(ip(family), transport("udp"), Raw(b"x"))
    backend = node.backend_of(whole)
    members = [m for m in bench.all_combinations().pools[0].members if m.name == backend]
    others = [bench.member(4, n, weight=500) for n in range(21, 40)]
    pools = [bench.pool("p4", [*members, *others]), bench.pool("p6", [bench.member(6, 11)])]
    node.publish(bench.forwarding(bench.all_combinations().services, pools))
    assert node.choose(whole)[1].name != backend, "the table alone would say otherwise"
    assert node.backend_of(whole, *datagram(family)) == backend


@pytest.mark.parametrize("order", [[1, 0, 2], [2, 1, 0], [1, 2, 0]])
@pytest.mark.parametrize("family", FAMILIES)
def test_those_that_come_before_the_first_are_held(
    node: Bench, family: int, order: list[int]
) -> None:
    """They leave right behind it, in the order in which they came."""
    frames = datagram(family)
    arrived = [frames[n] for n in order]
    early = arrived.index(frames[0])
    outcome = node.forward(*arrived[:early])
    assert (outcome.frames, outcome.drops) == ([], {})
    assert outcome.events == {"fragment_held": early}
    outcome = node.forward(*arrived[early:])
    check_all_sent(node, outcome, frames[0], [frames[0], *arrived[:early], *arrived[early + 1 :]])


@pytest.mark.parametrize("family", FAMILIES)
def test_held_until_half_a_second_is_over(node: Bench, family: int) -> None:
    first, second, third = datagram(family)
    node.forward(second)
    outcome = node.forward(first, now_ms=NOW_MS + HELD_MS)
    check_all_sent(node, outcome, first, [first, second])
    node.forward(third, now_ms=NOW_MS + LED_MS + 2 * HELD_MS)
    late = NOW_MS + LED_MS + 3 * HELD_MS + 1
    outcome = node.forward(first, now_ms=late)
    assert outcome.drops == {"fragment_unmatched": 1}
    assert outcome.sent == wrapped(node, first, [first])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_is_followed_for_five_seconds(node: Bench, family: int) -> None:
    first, second, third = datagram(family)
    node.forward(first)
    outcome = node.forward(second, now_ms=NOW_MS + LED_MS)
    check_all_sent(node, outcome, first, [second])
    outcome = node.forward(third, now_ms=NOW_MS + LED_MS + 1)
    assert (outcome.frames, outcome.events) == ([], {"fragment_held": 1})


def test_no_more_than_256_wait(node: Bench) -> None:
    """The oldest make room, and when their time is over there is room again."""
    waiting = [datagram(4, n)[:2] for n in range(HELD_MOST + 3)]
    outcome = node.forward(*[second for _first, second in waiting])
    assert outcome.drops == {"fragment_no_room": 3}
    assert outcome.events == {"fragment_held": HELD_MOST + 3}
    assert outcome.seen == HELD_MOST + 3
    for (first, second), sent in ((waiting[2], [0]), (waiting[3], [0, 1])):
        frames = [(first, second)[n] for n in sent]
        check_all_sent(node, node.forward(first), first, frames)
    outcome = node.forward(datagram(4, 999)[1], now_ms=NOW_MS + HELD_MS + 1)
    assert outcome.drops == {"fragment_unmatched": HELD_MOST - 1}
    assert outcome.events == {"fragment_held": 1}


def test_one_that_was_sent_makes_room_without_a_loss(node: Bench) -> None:
    first, second, _third = datagram(4)
    node.forward(second)
    check_all_sent(node, node.forward(first), first, [first, second])
    outcome = node.forward(*[datagram(4, n)[1] for n in range(1000, 1000 + HELD_MOST)])
    assert outcome.drops == {}


def test_a_fragment_larger_than_a_jumbo_frame_does_not_wait(node: Bench) -> None:
    fits = raw(ip(4, proto=17, frag=100), Raw(bytes(9232 - 34)))
    over = raw(ip(4, proto=17, frag=100), Raw(bytes(9232 - 33)))
    assert node.forward(fits).events == {"fragment_held": 1}
    node.assert_dropped(node.forward(over), "fragment_no_room")


@pytest.mark.parametrize("what", ["source", "identification", "VIP", "protocol"])
def test_datagrams_are_told_apart(make_bench: BenchMaker, what: str) -> None:
    """A first fragment lets go of its own datagram's others only."""
    vips = ("192.0.2.10", "192.0.2.11")
    services = [
        bench.service(ip_address(vip), protocol, 84, "p")
        for vip in vips
        for protocol in ("udp", "tcp")
    ]
    pools = [bench.pool("p", [bench.member(4, n) for n in range(11, 18)])]
    node = make_bench(bench.forwarding(services, pools), tx_slots=512)
    mine = datagram(4)
    other = {
        "source": lambda: datagram(4, src="198.51.100.8"),
        "identification": lambda: datagram(4, 8),
        "VIP": lambda: datagram(4, dst=vips[1]),
        "protocol": lambda: datagram(4, protocol="tcp"),
    }[what]()
    node.forward(mine[1], other[1])
    check_all_sent(node, node.forward(mine[0]), mine[0], [mine[0], mine[1]])
    check_all_sent(node, node.forward(mine[2]), mine[0], [mine[2]])
    check_all_sent(node, node.forward(other[0]), other[0], [other[0], other[1]])


def test_ipv6_fragments_whose_first_has_more_headers(node: Bench) -> None:
    """RFC 8200: source, destination and identification name the datagram, no protocol does."""
    options = IPv6ExtHdrDestOpt()
    inner = bytes(ip(6) / options / UDP(sport=7, dport=84) / Raw(bytes(2000)))[40:]
    first = raw(ip(6), IPv6ExtHdrFragment(nh=60, m=1, id=9), Raw(inner[:1000]))
    last = raw(ip(6), IPv6ExtHdrFragment(nh=60, offset=125, id=9), Raw(inner[1000:]))
    outcome = node.forward(last, first)
    assert outcome.drops == {}
    assert [encap.unwrapped(sent) for sent in outcome.frames] == [first[14:], last[14:]]
    assert len(outcome.backends) == 1


def test_a_first_fragment_that_comes_again(node: Bench) -> None:
    """Retransmitted by the network: it goes where it went, and so do those behind it."""
    first, second, third = datagram(4)
    frames = [first, second, first, third]
    check_all_sent(node, node.forward(*frames), first, frames)


def test_an_identification_that_is_used_again_follows_the_new_first(node: Bench) -> None:
    by_backend = {}
    for sport in range(200):
        parts = fragments.split(
            bytes(ip(4, id=7) / UDP(sport=sport + 1, dport=84) / Raw(bytes(2000))), 1200
        )
        frames = [bytes(ethernet())[:12] + ethertype(4) + part for part in parts]
        outcome = node.forward(*frames)
        check_all_sent(node, outcome, frames[0], frames)
        by_backend[node.choose(frames[0])[1].name] = frames
    assert len(by_backend) == 7


@pytest.mark.parametrize("gone", ["removed", "its place taken", "down"])
def test_a_backend_that_goes_in_between(make_bench: BenchMaker, gone: str) -> None:
    node = make_bench(bench.one_service([bench.member(4, 11)]))
    first, second, _third = datagram(4)
    node.forward(first)
    members = {
        "removed": [],
        "its place taken": [bench.member(4, 12)],
        "down": [bench.member(4, 11, paths=[])],
    }[gone]
    node.publish(bench.one_service(members))
    reason = "no_next_hop" if gone == "down" else "fragment_unmatched"
    node.assert_dropped(node.forward(second), reason)


def test_a_draining_backend_gets_the_rest(make_bench: BenchMaker) -> None:
    node = make_bench(bench.one_service([bench.member(4, 11)]))
    first, *others = datagram(4)
    node.forward(first)
    node.publish(bench.one_service([bench.member(4, 11, weight=0), bench.member(4, 12)]))
    assert node.backend_of(*others) == "b11"


def test_a_first_without_service_leads_nobody(node: Bench) -> None:
    first, second, _third = datagram(4, port=85)
    node.assert_dropped(node.forward(first), "no_service")
    assert node.forward(second).events == {"fragment_held": 1}


def test_a_first_fragment_without_the_ports(node: Bench) -> None:
    """RFC 1858, RFC 7112: what has no whole transport header decides nothing."""
    tiny4 = raw(ip(4, flags="MF", proto=6), Raw(bytes(16)))
    tiny6 = raw(ip(6), IPv6ExtHdrFragment(nh=17, m=1), Raw(bytes(7)))
    node.assert_dropped(node.forward(tiny4), "truncated")
    node.assert_dropped(node.forward(tiny6), "truncated")


@pytest.mark.parametrize("kind", ["TCP segments", "checksum"])
def test_no_fragment_has_work_left_for_hardware(node: Bench, kind: str) -> None:
    """A later one has no header that the metadata could mean; nothing is read behind its end."""
    meta = {
        "TCP segments": offload(NEEDS_CSUM, GSO_TCPV4, gso_size=8),
        "checksum": offload(NEEDS_CSUM, csum_start=34, csum_offset=16),
    }[kind]
    first = raw(ip(4, flags="MF", id=3), TCP(dport=84), Raw(bytes(4)))
    empty = raw(ip(4, frag=3, proto=6, id=3))
    later = raw(ip(4, frag=3, proto=6, id=3), Raw(bytes(64)))
    node.forward(first)
    for data in (first, empty, later):
        node.assert_dropped(node.forward(data, offload=meta), "bad_offload")


def test_more_datagrams_than_there_is_room_for(node: Bench) -> None:
    """4,096 places, four of which a datagram may take: the oldest are forgotten, none is misled."""
    one = datagram(4, length=1300)

    def of_client(number: int) -> list[bytes]:
        source = number.to_bytes(2, "big")
        return [mended(data[:28] + source + data[30:]) for data in one]

    many = [of_client(n) for n in range(6000)]
    for n, (first, _second) in enumerate(many):
        node.worker.forward(first, now_ms=NOW_MS + n // 2)
        node.worker.sent(0)
    found = 0
    for first, second in many[-500:]:
        outcome = node.forward(second, now_ms=NOW_MS + 3000)
        if outcome.frames:
            found += 1
            assert outcome.sent == wrapped(node, first, [second])
    assert found > 475


def test_what_the_backend_puts_together_is_what_the_client_sent(node: Bench) -> None:
    frames = datagram(4, length=5000)
    outcome = node.forward(*reversed(frames))
    inner = [encap.unwrapped(sent) for sent in outcome.frames]
    whole = bytes(ip(4, id=7) / UDP(sport=40000, dport=84) / Raw(random.Random(7).randbytes(5000)))
    assert fragments.reassemble(inner) == whole


def test_a_worker_that_ends_counts_those_that_wait(node: Bench) -> None:
    served, waiting = datagram(4, 7), datagram(4, 8)
    node.forward(served[1], waiting[1], waiting[2], served[0])
    before, seen = node.tables.totals(), node.tables.slot(0).seen
    node.worker.retire()
    assert node.outcome(before, seen).drops == {"fragment_unmatched": 2}
    node.worker.retire()  # none is counted twice, nor by the successor
    heir = node.new_worker(0)
    heir.recover()
    heir.close()
    assert node.outcome(before, seen).drops == {"fragment_unmatched": 2}
