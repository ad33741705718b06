"""What is said of a packet is what then happens to it, and saying it changes nothing."""

import os
from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6ExtHdrFragment
from scapy.layers.l2 import Ether

from lbfwd.encap import read_outer
from lbfwd.explain import Explanation, explain
from lbfwd.forwarding import Forwarding
from tests.oracle import maglev, siphash
from tests.packet import bench
from tests.packet.bench import NOW_MS, SECRET, VIP4, VIP6, Bench, BenchMaker
from tests.packet.corpus import seeds
from tests.packet.crafted import frame
from tests.packet.streams import Flow, send
from tests.packet.test_flow_room import movable
from tests.packet.test_flows import HEAVY, SECOND, begin, chosen, members, state

PROTOCOLS = {"tcp": 6, "udp": 17}
COMBINATIONS = [(f, p, port) for f in (4, 6) for p in PROTOCOLS for port in (84, 86)]


def told(node: Bench, data: bytes, slot: int = 0, now_ms: int = NOW_MS) -> Explanation:
    return explain(node.tables.files(), slot, (0, 1), data, now_ms)


def name(node: Bench, slot: int | None) -> str | None:
    found = {seat: key for (seat, _), key in node.tables.seats().backends.items()}
    return None if slot is None else found[slot][1]


def contents(node: Bench) -> list[bytes]:
    return [os.pread(fd, os.fstat(fd).st_size, 0) for fd in node.tables.files()]


@pytest.fixture
def node(make_bench: BenchMaker) -> Bench:
    return make_bench(state(members()), workers=2)


@pytest.mark.parametrize(("family", "protocol", "port"), COMBINATIONS)
def test_the_frame_is_the_one_that_is_sent(
    make_bench: BenchMaker, family: int, protocol: str, port: int
) -> None:
    node = make_bench(bench.all_combinations())
    data = frame(family, protocol, port=port)
    said = told(node, data)
    assert (said.reason, list(said.sent)) == ("none", [node.wrapped(data)])
    sent = node.forward(data).sent
    assert sent == {ring: [wrapped] for ring, wrapped in said.sent}
    outer, (_, _, hop) = read_outer(said.sent[0][1]), node.choose(data)
    assert (outer.source, outer.destination) == (hop.source, hop.destination)
    assert (bytes.fromhex(outer.dst_mac.replace(":", "")), outer.ttl) == (hop.dst_mac, 64)
    assert outer.gre_protocol == {4: 0x0800, 6: 0x86DD}[family]
    assert outer.length == len(said.sent[0][1]) - 14
    assert outer.raw == said.sent[0][1][: len(outer.raw)]


def is_fragment(data: bytes) -> bool:
    packet = Ether(data.ljust(14, b"\0"))
    four = packet.getlayer(IP)
    return IPv6ExtHdrFragment in packet or bool(four and (four.flags.MF or four.frag))


def test_every_frame_ends_as_is_said(make_bench: BenchMaker) -> None:
    """Fragments aside: they follow what the worker keeps to itself."""
    node = make_bench(bench.all_combinations())
    plain = sorted({data for offload, data in seeds() if not any(offload)})
    whole = [data for data in plain if not is_fragment(data)]
    assert len(whole) > 50
    for data in whole:
        said, happened = told(node, data), node.forward(data)
        assert happened.drops == ({} if said.reason == "none" else {said.reason: 1})
        assert happened.frames == [wrapped for _, wrapped in said.sent]
        assert list(said.events) == [event for event, n in happened.events.items() if n]


def test_hash_bucket_and_table_entry_are_those_of_the_documents(node: Bench) -> None:
    for flow in movable(20):
        said = told(node, flow.packet())
        source = ip_address(flow.source)
        key = siphash.flow_key(source, VIP4, flow.sport, 84, PROTOCOLS["tcp"])
        table = maglev.table({m.name: m.weight for m in members()}, 251)
        assert (said.key, said.hash) == (key, siphash.flow_hash(key, SECRET))
        assert (said.table_size, said.bucket) == (251, siphash.bucket(said.hash, 251))
        assert name(node, said.table_backend) == table[said.bucket]
        assert node.tables.seats().services[said.service or 0] == (VIP4, "tcp", 84)


def test_source_affinity_is_seen_in_the_key(make_bench: BenchMaker) -> None:
    node = make_bench(bench.one_service(members(), VIP6, "tcp", affinity="source"))
    said = told(node, frame(6, "tcp", port=84))
    assert len(said.key) == 37
    assert said.key[-5:] == bytes(5)


def test_saying_it_changes_nothing(node: Bench) -> None:
    begun, new = movable(2)
    begin(node, [begun])
    before = contents(node)
    for slot in (0, 1):
        for flow in (begun, new):
            told(node, flow.packet("FA"), slot)
    assert contents(node) == before
    assert "flow_new" in told(node, new.packet()).events, "nor was an entry kept aside"


def test_entries_are_seen_in_every_workers_table(node: Bench) -> None:
    flow = movable(1)[0]
    (mine,) = begin(node, [flow]).values()
    send(node.workers[1], flow.packet("FA"), NOW_MS + 7 * SECOND)
    said = told(node, flow.packet(), now_ms=NOW_MS + 10 * SECOND)
    facts = [(s.worker, name(node, s.backend), s.state, s.age_s) for s in said.sightings]
    assert facts == [(0, mine, "tcp", 10), (1, mine, "closing", 3)]
    assert all(sighting.usable and sighting.bucket in (1, 2) for sighting in said.sightings)


def test_an_unconfirmed_entry_is_one(node: Bench) -> None:
    flow = movable(1)[0]
    send(node.worker, flow.packet("S"))
    assert [s.state for s in told(node, flow.packet()).sightings] == ["unconfirmed"]


def test_both_buckets_are_looked_at(make_bench: BenchMaker) -> None:
    node = make_bench(state(members()), flows=64)
    many = movable(60)
    for flow in many:
        send(node.worker, flow.packet("S"))
    seen = [s.bucket for f in many for s in told(node, f.packet()).sightings]
    assert set(seen) == {1, 2}


def published(node: Bench, forwarding: Forwarding, flow: Flow, slot: int) -> Explanation:
    node.publish(forwarding)
    return told(node, flow.packet(), slot)


@pytest.mark.parametrize("slot", [0, 1])
def test_a_live_flow_stays_whatever_the_table_says(node: Bench, slot: int) -> None:
    flow = movable(1)[0]
    (mine,) = begin(node, [flow]).values()
    crowd = state([*members(), *HEAVY])
    said = published(node, crowd, flow, slot)
    assert name(node, said.backend) == mine
    assert name(node, said.table_backend) == chosen(crowd, flow) != mine
    assert said.events == (() if slot == 0 else ("flow_found_elsewhere",))


def test_a_flow_whose_backend_is_gone_is_redirected(node: Bench) -> None:
    flow = movable(1)[0]
    (mine,) = begin(node, [flow]).values()
    rest = state([member for member in members() if member.name != mine])
    said = published(node, rest, flow, 0)
    assert said.events == ("flow_redirected",)
    assert [sighting.usable for sighting in said.sightings] == [False]
    assert name(node, said.backend) == chosen(rest, flow)


def test_without_a_backend_there_is_none(make_bench: BenchMaker) -> None:
    node = make_bench(state([]))
    said = told(node, movable(1)[0].packet())
    assert (said.reason, said.backend, said.table_backend) == ("no_backend", None, None)
    assert (said.table_size, said.sent) == (0, ())


def test_a_packet_for_nobody_has_no_service(node: Bench) -> None:
    said = told(node, frame(6, "udp", port=9))
    assert (said.service, said.key, said.sightings) == (None, b"", ())
    assert said.reason == "no_vip"


def test_a_slot_that_is_not_there_is_refused(node: Bench) -> None:
    with pytest.raises(OSError, match="map the shared state"):
        told(node, frame(4, "tcp", port=84), slot=2)
