"""Bursts: what becomes of a packet among others is what would become of it alone, in their order.

A burst goes through each step as a whole: flows are looked for in their first bucket, then in
their second, then made. So what these tests mix are packets that part on the way.
"""

import random
import time
from collections import Counter
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.l2 import ARP
from scapy.packet import Raw

from lbfwd import ring
from lbfwd.explain import explain
from lbfwd.forwarding import Forwarding
from tests.oracle import encap
from tests.packet import bench, quoted
from tests.packet.bench import Bench, BenchMaker, Outcome
from tests.packet.crafted import ethernet, frame, ip, raw
from tests.packet.rings import forward_block
from tests.packet.streams import Flow, flows
from tests.packet.test_flow_room import movable
from tests.packet.test_flows import HEAVY, chosen, members, state
from tests.packet.test_fragments import datagram

FAMILIES = (4, 6)
# Alike in their lower bytes, their upper bytes or, 32.1.13.184 and 2001:db8::, in all of them.
VIPS = [
    *("192.0.2.10", "192.0.2.11", "32.1.13.184"),
    *("2001:db8::", "2001:db8::10", "2001:db8:0:1::10"),
]
PLACES = [("tcp", 84), ("tcp", 0), ("udp", 84)]
ENDS_HERE = {
    "no_vip": frame(4, "tcp", dst="192.0.2.12"),
    "no_service": frame(4, "udp", port=85),
    "not_ip": bytes(ethernet() / ARP()),
    "truncated": frame(6, "tcp")[:60],
    "bad_ip_checksum": frame(4, "tcp", chksum=1),
    "echo_refused": raw(ip(4), ICMP()),
    "no_backend": frame(4, "udp", port=99),
}
FLOW_TABLE = 1000
TX_SLOTS = 1024


def many_services() -> Forwarding:
    """Each VIP, protocol and port has two backends of its own; every other one source affinity."""
    places = [(vip, protocol, port) for vip in VIPS for protocol, port in PLACES]
    services = [
        bench.service(
            ip_address(vip), protocol, port, f"p{n}", affinity=("5-tuple", "source")[n % 2]
        )
        for n, (vip, protocol, port) in enumerate(places)
    ]
    pools = [
        bench.pool(f"p{n}", [bench.member((4, 6)[n % 2], 11 + 2 * n + more) for more in (0, 1)])
        for n in range(len(places))
    ]
    nobody = bench.service(ip_address(VIPS[0]), "udp", 99, "nobody")
    return bench.forwarding([*services, nobody], [*pools, bench.pool("nobody", [])], echo="drop")


def to_a_service(rng: random.Random) -> bytes:
    """Of so few clients that flows come again, of all lengths around the steps of a copy."""
    vip = ip_address(rng.choice(VIPS))
    protocol, port = rng.choice(PLACES)
    source = ("198.51.100.", "2001:db8:1::")[vip.version == 6] + str(rng.randint(1, 3))
    head = ip(vip.version, src=source, dst=str(vip))
    ports: dict[str, Any] = {
        "sport": rng.randint(1, 2),
        "dport": port or rng.choice([80, 85, 65535]),
    }
    segment = TCP(flags=rng.choice(["S", "A"]), **ports) if protocol == "tcp" else UDP(**ports)
    return raw(head, segment, Raw(rng.randbytes(rng.randrange(160))))


def entry(node: Bench, data: bytes) -> tuple[str, bytes, bytes]:
    """What tells the packet's flow from all others."""
    service = node.choose(data)[0]
    is_ipv4 = data[12:14] == b"\x08\x00"
    source, ports = (data[26:30], data[34:38]) if is_ipv4 else (data[22:38], data[54:58])
    return service.name, source, b"" if service.affinity == "source" else ports


@pytest.mark.parametrize("seed", range(3))
def test_a_mixture_of_everything(make_bench: BenchMaker, seed: int) -> None:
    """Each is told from the one before it, and none has anything of the last burst's."""
    rng = random.Random(seed)
    node = make_bench(many_services(), tx_slots=TX_SLOTS)
    good = [to_a_service(rng) for _ in range(3 * ring.BURST)]
    bad = rng.choices(list(ENDS_HERE), k=ring.BURST)
    frames = [*good, *(ENDS_HERE[reason] for reason in bad)]
    rng.shuffle(frames)
    outcome = forward_block(node, frames)
    sent: dict[int, list[bytes]] = {}
    services: Counter[str] = Counter()
    for data in frames:
        if data not in ENDS_HERE.values():
            tx, wrapped = node.wrapped(data)
            sent.setdefault(tx, []).append(wrapped)
            services[node.choose(data)[0].name] += 1
    assert outcome.sent == sent
    assert outcome.drops == Counter(bad)
    assert {name: count.packets for name, count in outcome.services.items()} == services
    assert outcome.events == {"flow_new": len({entry(node, data) for data in good})}
    assert node.tables.slot(0).bursts == 4


@pytest.mark.parametrize("count", [1, 2, ring.BURST - 1, ring.BURST, ring.BURST + 1])
def test_a_burst_of_one_flow(make_bench: BenchMaker, count: int) -> None:
    """Its first packet makes the entry, which the others find."""
    node = make_bench(bench.all_combinations(), tx_slots=TX_SLOTS)
    frames = [frame(4, "udp", payload=bytes([n])) for n in range(count)]
    outcome = forward_block(node, frames)
    node.assert_forwarded(frames[0], outcome, [encap.inner_packet(data) for data in frames])
    assert outcome.events == {"flow_new": 1}


def test_the_second_packet_of_a_burst_protects(make_bench: BenchMaker) -> None:
    """It confirms: the flood behind it in the burst takes no place from its flow."""
    protected, *flood = movable(ring.BURST - 1)
    node = make_bench(state(members()), flows=1)
    burst = [protected.packet("S"), protected.packet(), *(flow.packet("S") for flow in flood)]
    outcome = forward_block(node, burst)
    assert outcome.events == {"flow_new": len(flood) + 1, "flow_evicted": len(flood) - 3}
    node.publish(state([*members(), *HEAVY]))
    name = chosen(state(members()), protected)
    assert list(forward_block(node, [protected.packet()]).backends) == [("p", name)]


def names(outcome: Outcome) -> list[str]:
    """The backends in the order in which packets went to them."""
    return [f"b{data[33]}" for data in outcome.sent[0]]


def begin(node: Bench, many: Sequence[Flow]) -> dict[Flow, str]:
    """Two packets of each, bursts of SYNs first; the backends that they have."""
    first = names(forward_block(node, [flow.packet("S") for flow in many]))
    assert names(forward_block(node, [flow.packet() for flow in many])) == first
    return dict(zip(many, first, strict=True))


def in_second_bucket(node: Bench, many: Sequence[Flow]) -> int:
    """How many of the flows have their entry in the second of their two buckets."""
    now_ms = time.monotonic_ns() // 10**6
    said = [explain(node.tables.files(), 0, (0, 1), flow.packet(), now_ms) for flow in many]
    return sum(sighting.bucket == 2 for one in said for sighting in one.sightings)


def test_known_flows_among_new_ones(make_bench: BenchMaker) -> None:
    """In either bucket: each keeps its backend, though the table would choose another."""
    rng = random.Random(7)
    old, new = movable(FLOW_TABLE * 3 // 4), flows(100, first=0x30000000)
    node = make_bench(state(members()), tx_slots=TX_SLOTS, flows=FLOW_TABLE)
    wanted = begin(node, old)
    assert 3 < in_second_bucket(node, old[-40:]) < 37
    after = state([*members(), *HEAVY])
    node.publish(after)
    wanted |= {flow: chosen(after, flow) for flow in new}
    mixed = [*old, *new, *new]
    rng.shuffle(mixed)
    outcome = forward_block(node, [flow.packet() for flow in mixed])
    assert names(outcome) == [wanted[flow] for flow in mixed]
    assert outcome.events == {"flow_new": len(new)}


@pytest.mark.parametrize("apart", [1, 15, 16, 17, 31, 32, 33, 34, ring.BURST - 1])
def test_a_new_flow_comes_twice_among_others(make_bench: BenchMaker, apart: int) -> None:
    """However far the search is when it comes again: it finds the entry that it made."""
    twice, *others = flows(ring.BURST - 1, first=0x30000000)
    node = make_bench(state(members()), tx_slots=TX_SLOTS)
    burst = [twice, *others[: apart - 1], twice, *others[apart - 1 :]]
    outcome = forward_block(node, [flow.packet("S") for flow in burst])
    assert outcome.events == {"flow_new": ring.BURST - 1}
    assert names(outcome) == [chosen(state(members()), flow) for flow in burst]


def test_ports_that_are_used_again_within_a_burst(make_bench: BenchMaker) -> None:
    """The end of a connection, and the next one, which the table sends elsewhere."""
    many = movable(ring.BURST // 4)
    node = make_bench(state(members()), tx_slots=TX_SLOTS)
    old = begin(node, many)
    after = state([*members(), *HEAVY])
    node.publish(after)
    story = [(flow, flags) for flags in ("A", "FA", "S", "A") for flow in many]
    outcome = forward_block(node, [flow.packet(flags) for flow, flags in story])
    new = {flow: chosen(after, flow) for flow in many}
    half = len(story) // 2
    wanted = [*(old[flow] for flow, _ in story[:half]), *(new[flow] for flow, _ in story[half:])]
    assert names(outcome) == wanted
    assert outcome.events == {"flow_new": len(many)}


def test_errors_about_flows_of_the_same_burst(make_bench: BenchMaker) -> None:
    """They go where the flow has gone, and make no entry: also for a flow that is not there yet."""
    node = make_bench(bench.all_combinations(), tx_slots=TX_SLOTS)
    packets = [raw(ip(4), UDP(sport=port, dport=84)) for port in range(1, 21)]
    errors = [quoted.about(4, sport=port) for port in range(1, 21)]
    order = [pair for both in zip(errors, packets, errors, strict=True) for pair in both]
    outcome = forward_block(node, order)
    wanted = [
        node.wrapped(packet, encap.inner_packet(data))[1]
        for packet, error in zip(packets, errors, strict=True)
        for data in (error, packet, error)
    ]
    assert outcome.sent == {0: wanted}
    assert outcome.events == {"flow_new": len(packets)}


@pytest.mark.parametrize("order", ["012", "102", "210", "120"])
@pytest.mark.parametrize("family", FAMILIES)
def test_fragments_in_one_burst(make_bench: BenchMaker, family: int, order: str) -> None:
    """Of two datagrams in turn, with others between; early ones leave right behind their first."""
    node = make_bench(bench.all_combinations(), tx_slots=TX_SLOTS)
    datagrams = [datagram(family, identification) for identification in (7, 8)]
    whole = frame(4, "udp", port=86)
    arrived = [data for n in order for parts in datagrams for data in (parts[int(n)], whole)]
    outcome = forward_block(node, arrived)
    early = order.index("0")
    wanted = [
        node.wrapped(parts[0], encap.inner_packet(parts[n]))[1]
        for parts in datagrams
        for n in (0, *map(int, order[:early]))
    ] + [
        node.wrapped(parts[0], encap.inner_packet(parts[int(n)]))[1]
        for n in order[early + 1 :]
        for parts in datagrams
    ]
    assert outcome.sent == {0: wanted, 1: [node.wrapped(whole)[1]] * 6}
    assert outcome.drops == {}
    assert outcome.events == {"flow_new": 2} | ({"fragment_held": 2 * early} if early else {})


@pytest.mark.parametrize("inner", FAMILIES)
def test_every_length_is_copied_whole(make_bench: BenchMaker, inner: int) -> None:
    """Into slots that have held something longer: nothing of that is left, nothing is missing."""
    rng = random.Random(inner)
    node = make_bench(bench.all_combinations(), tx_slots=ring.BURST * 4)
    longer = frame(inner, "udp", payload=b"\xee" * 1000)
    forward_block(node, [longer] * (4 * ring.BURST))
    packets = [frame(inner, "udp", payload=rng.randbytes(length)) for length in range(200)]
    outcome = forward_block(node, packets)
    node.assert_forwarded(packets[0], outcome, [data[14:] for data in packets])
